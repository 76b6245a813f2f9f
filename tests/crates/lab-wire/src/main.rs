// SPDX-License-Identifier: GPL-2.0

//! The wires between the lab's guests: passes Ethernet frames between the two ends of each.
//!
//! An end is a unix socket to which a guest's QEMU connects (`-netdev stream`, frames with a length
//! in front). Why not QEMU to QEMU: when one of them is killed with frames under way, the other's
//! transmit queue may stand still for ever. Here an end is always there; what is sent to a guest that
//! is not is lost, as on a real wire. A guest that does not read holds its peer back, not for longer
//! than it lives. Frames are passed whole or not at all.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;

/// No frame is longer; QEMU itself stops far below.
const MAX_FRAME: usize = 1 << 18;

/// Where frames for an end go, while a guest is connected there.
type End = Arc<Mutex<Option<UnixStream>>>;

/// Reads one frame with its length into `frame`.
fn receive(from: &mut UnixStream, frame: &mut Vec<u8>) -> io::Result<()> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if len > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {len} bytes"),
        ));
    }
    frame.clear();
    frame.extend_from_slice(&head);
    if Read::take(from, len as u64).read_to_end(frame)? == len {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Serves one end: takes the guest's connections one after the other, passes what it sends on.
fn serve(listener: &UnixListener, own: &End, other: &End) {
    let mut frame = Vec::new();
    for conn in listener.incoming() {
        let Ok(mut conn) = conn else { continue };
        if let Ok(mut own) = own.lock() {
            *own = conn.try_clone().ok();
        }
        while receive(&mut conn, &mut frame).is_ok() {
            let Ok(mut other) = other.lock() else { return };
            let gone = other
                .as_mut()
                .is_some_and(|to| to.write_all(&frame).is_err());
            if gone {
                *other = None;
            }
        }
        // Waits for a peer that is still writing to this guest: its write fails now.
        if let Ok(mut own) = own.lock() {
            *own = None;
        }
    }
}

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() || paths.len() % 2 != 0 {
        eprintln!("usage: lab-wire ONE-END OTHER-END [ONE-END OTHER-END]...");
        return ExitCode::from(2);
    }
    let mut threads = Vec::new();
    for pair in paths.chunks(2) {
        let ends: [End; 2] = [End::default(), End::default()];
        for (i, path) in pair.iter().enumerate() {
            let listener = match UnixListener::bind(path) {
                Ok(listener) => listener,
                Err(error) => {
                    eprintln!("lab-wire: {path}: {error}");
                    return ExitCode::FAILURE;
                }
            };
            let (Some(own), Some(other)) = (ends.get(i).cloned(), ends.get(1 - i).cloned()) else {
                continue;
            };
            threads.push(thread::spawn(move || serve(&listener, &own, &other)));
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
    ExitCode::SUCCESS
}
