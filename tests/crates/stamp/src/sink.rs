// SPDX-License-Identifier: GPL-2.0

//! Streams the journal to a file, a virtio-serial port or stdout, from a thread of its own.
//!
//! Lines leave in the order in which they were pushed. [`Sink::push`] waits when the reader is far
//! behind; [`Sink::wait`] waits until a line has been handed to the kernel.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

const LIMIT: usize = 8 << 20;

#[derive(Default)]
struct State {
    text: String,
    pushed: u64,
    written: u64,
    end: bool,
    error: Option<String>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// The journal's way out.
pub struct Sink {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// `-` is stdout; `None` keeps no journal.
    pub fn open(path: Option<&str>) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match path {
            None => Box::new(io::sink()),
            Some("-") => Box::new(io::stdout()),
            Some(p) => {
                let plain = std::fs::metadata(p).map_or(true, |m| m.is_file());
                Box::new(
                    OpenOptions::new()
                        .write(true)
                        .create(plain)
                        .truncate(plain)
                        .open(p)?,
                )
            }
        };
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = thread::spawn(move || drain(&theirs, out));
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Adds a line; its number is for [`Sink::wait`].
    pub fn push(&self, line: &str) -> u64 {
        let mut s = self.lock();
        while s.text.len() > LIMIT && s.error.is_none() {
            s = self
                .shared
                .wake
                .wait(s)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if s.text.is_empty() {
            self.shared.wake.notify_all();
        }
        s.text.push_str(line);
        s.pushed += 1;
        s.pushed
    }

    /// Waits until the line of this number has been written.
    pub fn wait(&self, number: u64) {
        let mut s = self.lock();
        while s.written < number && s.error.is_none() {
            s = self
                .shared
                .wake
                .wait(s)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes out what is left; the error if anything could not be written.
    pub fn close(mut self) -> Result<(), String> {
        self.lock().end = true;
        self.shared.wake.notify_all();
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
        let error = self.lock().error.take();
        error.map_or(Ok(()), Err)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn drain(shared: &Shared, mut out: Box<dyn Write + Send>) {
    loop {
        let (text, pushed) = {
            let mut s = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            while s.text.is_empty() && !s.end {
                s = shared.wake.wait(s).unwrap_or_else(PoisonError::into_inner);
            }
            if s.text.is_empty() {
                return;
            }
            (std::mem::take(&mut s.text), s.pushed)
        };
        let result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let mut s = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.written = pushed;
        if let Err(e) = result {
            s.error = Some(e.to_string());
        }
        shared.wake.notify_all();
    }
}
