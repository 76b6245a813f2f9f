// SPDX-License-Identifier: GPL-2.0

//! A client's connection, which can be asked from outside whether its server has anything left to do.
//!
//! A client that stands still leaves requests in its socket, and does not fetch its replies. The server's thread
//! shows when it waits for one or the other; who then finds that the client has not moved either knows that
//! nothing more will happen. That needs an order: the thread shows "waiting", waits, shows "not waiting", and only
//! then reads or writes; who asks looks at the socket first and at what is shown afterwards.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::net::{send, SendFlags};

/// A connected socket; clones are the same one.
#[derive(Debug, Clone)]
pub struct Stream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: UnixStream,
    /// The server waits for a request, or the rest of one.
    hungry: AtomicBool,
    /// The server waits for the client to make room for a reply.
    stuck: AtomicBool,
}

impl Stream {
    pub fn new(socket: UnixStream) -> Self {
        Self(Arc::new(Shared {
            socket,
            hungry: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
        }))
    }

    pub fn shut(&self) {
        let _ = self.0.socket.shutdown(Shutdown::Both);
    }

    /// The client has closed its end.
    pub fn hung_up(&self) -> bool {
        let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
        self.now(PollFlags::RDHUP).intersects(gone)
    }

    /// Nothing happens here any more unless the client moves.
    pub fn is_still(&self) -> bool {
        let nothing_to_read = self.now(PollFlags::IN).is_empty();
        if nothing_to_read && self.0.hungry.load(Ordering::SeqCst) {
            return true;
        }
        let no_room = self.now(PollFlags::OUT).is_empty();
        no_room && self.0.stuck.load(Ordering::SeqCst)
    }

    fn now(&self, events: PollFlags) -> PollFlags {
        let mut fds = [PollFd::new(&self.0.socket, events)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    fn wait(&self, events: PollFlags, shown: &AtomicBool) -> io::Result<()> {
        shown.store(true, Ordering::SeqCst);
        let polled = poll(&mut [PollFd::new(&self.0.socket, events)], None);
        shown.store(false, Ordering::SeqCst);
        Ok(polled.map(|_| ())?)
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN, &self.0.hungry)?;
        (&self.0.socket).read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        loop {
            match send(
                &self.0.socket,
                buf,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Err(rustix::io::Errno::AGAIN) => self.wait(PollFlags::OUT, &self.0.stuck)?,
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
