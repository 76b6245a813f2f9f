// SPDX-License-Identifier: GPL-2.0

//! Carries bytes between a unix socket and a virtio-serial port, both ways.
//!
//! The kernel's NBD driver wants a socket, and the disk server is behind a port of the guest. Each way has
//! a thread of its own: neither end may have to fetch something before it can send.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::thread;

/// As much as the port takes at once.
const CHUNK: usize = 32 << 10;

fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = from.read(&mut buffer)?;
        match buffer.get(..n) {
            None | Some([]) => return Ok(()),
            Some(data) => to.write_all(data)?,
        }
    }
}

/// Takes one connection at `socket` and serves it until either end closes.
pub fn serve(socket: &str, port: &str) -> io::Result<()> {
    let mut port: File = OpenOptions::new().read(true).write(true).open(port)?;
    let (mut connection, _) = UnixListener::bind(socket)?.accept()?;
    let (mut host, mut kernel) = (port.try_clone()?, connection.try_clone()?);
    let down = thread::spawn(move || {
        let result = carry(&mut host, &mut kernel);
        let _ = kernel.shutdown(Shutdown::Both);
        result
    });
    let up = carry(&mut connection, &mut port);
    up.and(down.join().unwrap_or(Ok(())))
}
