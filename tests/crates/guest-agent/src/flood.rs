// SPDX-License-Identifier: GPL-2.0

//! Connections that mean no good: some a second, a number of them open at a time, each says one piece of a file and
//! then nothing.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// Connects to `address` `rate` times a second for ever, and keeps the last `open` connections. Each says the next
/// `piece` bytes of the file, which begins again at its end; with 0 it says nothing.
pub(crate) fn serve(
    address: &str,
    rate: u32,
    open: usize,
    piece: usize,
    file: &str,
) -> io::Result<()> {
    let words = std::fs::read(file)?;
    let pieces: Vec<&[u8]> = match piece {
        0 => vec![&[]],
        n => words.chunks_exact(n).collect(),
    };
    let mut kept = VecDeque::new();
    let pause = Duration::from_secs(1) / rate.max(1);
    for piece in pieces.iter().cycle() {
        let started = Instant::now();
        // A host that accepts no more, or has closed at once, is what a flood brings about.
        if let Ok(mut stream) = TcpStream::connect(address) {
            let _ = stream.write_all(piece);
            kept.push_back(stream);
        }
        if kept.len() > open {
            kept.pop_front();
        }
        thread::sleep(pause.saturating_sub(started.elapsed()));
    }
    Ok(())
}
