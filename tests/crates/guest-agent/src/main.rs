// SPDX-License-Identifier: GPL-2.0

//! The lab's hand inside a guest: runs shell commands that the host asks for over a virtio-serial
//! port, several at a time.
//!
//! Asked:    `run <id> <timeout ms, 0 = none> <command bytes> <stdin bytes>\n` command, stdin;
//!           `kill <id>\n`; `hello\n`.
//! Answered: `ready\n` to hello; `out <id> <bytes>\n` data (stdout and stderr together);
//!           `exit <id> <code>\n`, where 128 + n means signal n and 124 the timeout.
//!
//! Each command is `sh -c` in a process group of its own, so that a timeout ends its children too.
//! Failure to talk to the port ends the agent; init starts it again.
//!
//! As `guest-agent pump SOCKET PORT` it is one end of a disk instead, see [`pump`]; as `guest-agent flood` a client
//! that nobody wants, see [`flood`].

mod flood;
mod pump;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Where answers go, whole messages at a time.
type Port = Arc<Mutex<File>>;

/// Process groups of the commands that run, by the host's id.
type Groups = Arc<Mutex<HashMap<u64, u32>>>;

struct Request {
    id: u64,
    timeout: Option<Duration>,
    command: String,
    stdin: Vec<u8>,
}

fn send(port: &Port, head: &str, body: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(head.len() + body.len() + 1);
    message.extend_from_slice(head.as_bytes());
    message.push(b'\n');
    message.extend_from_slice(body);
    let mut port = port
        .lock()
        .map_err(|_| io::Error::other("port lock poisoned"))?;
    port.write_all(&message)
}

/// Signals a process group; the group may be gone already.
fn kill_group(pid: u32) {
    let _ = Command::new("kill")
        .args(["-KILL", "--", &format!("-{pid}")])
        .stderr(Stdio::null())
        .status();
}

fn run(port: &Port, groups: &Groups, request: Request) -> io::Result<()> {
    let mut child = match Command::new("sh")
        .arg("-c")
        .arg(format!("exec 2>&1\n{}", request.command))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
    {
        Ok(child) => child,
        Err(error) => {
            let text = format!("guest-agent: cannot start sh: {error}\n");
            send(
                port,
                &format!("out {} {}", request.id, text.len()),
                text.as_bytes(),
            )?;
            return send(port, &format!("exit {} 127", request.id), &[]);
        }
    };
    let pid = child.id();
    if let Ok(mut groups) = groups.lock() {
        groups.insert(request.id, pid);
    }
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input is not an error.
        thread::spawn(move || stdin.write_all(&request.stdin));
    }
    let output = child.stdout.take();
    let out_port = Arc::clone(port);
    let id = request.id;
    let (drained, when_drained) = mpsc::channel();
    thread::spawn(move || {
        let mut output = output;
        let mut buffer = [0; 32 * 1024];
        while let Some(Ok(n @ 1..)) = output.as_mut().map(|o| o.read(&mut buffer)) {
            let Some(data) = buffer.get(..n) else { break };
            if send(&out_port, &format!("out {id} {n}"), data).is_err() {
                break;
            }
        }
        let _ = drained.send(());
    });
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(child.wait()));
    let (status, timed_out) = match request.timeout {
        None => (wait.recv().ok(), false),
        Some(limit) => match wait.recv_timeout(limit) {
            Ok(status) => (Some(status), false),
            Err(_) => {
                kill_group(pid);
                // Something in uninterruptible sleep does not die: do not wait for it.
                (wait.recv_timeout(Duration::from_secs(2)).ok(), true)
            }
        },
    };
    // A child left in the background may hold the pipe open: its output is not waited for long.
    let _ = when_drained.recv_timeout(Duration::from_millis(if timed_out { 100 } else { 5000 }));
    if let Ok(mut groups) = groups.lock() {
        groups.remove(&id);
    }
    let code = match status {
        _ if timed_out => 124,
        Some(Ok(status)) => status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Some(Err(_)) | None => 127,
    };
    send(port, &format!("exit {id} {code}"), &[])
}

fn bad(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("bad request from the host: {what}"),
    )
}

fn number(words: &mut std::str::SplitWhitespace<'_>, line: &str) -> io::Result<u64> {
    words
        .next()
        .and_then(|w| w.parse().ok())
        .ok_or_else(|| bad(line))
}

fn take(reader: &mut impl Read, len: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    if reader.take(len).read_to_end(&mut data)? as u64 == len {
        Ok(data)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn serve(path: &str) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let port: Port = Arc::new(Mutex::new(file.try_clone()?));
    let groups: Groups = Arc::default();
    let mut reader = BufReader::new(file);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            // The host end is closed: it may come back.
            thread::sleep(Duration::from_millis(50));
            continue;
        }
        let mut words = line.split_whitespace();
        match words.next() {
            Some("run") => {
                let id = number(&mut words, &line)?;
                let timeout = number(&mut words, &line)?;
                let command_len = number(&mut words, &line)?;
                let stdin_len = number(&mut words, &line)?;
                let command = take(&mut reader, command_len)?;
                let request = Request {
                    id,
                    timeout: (timeout > 0).then(|| Duration::from_millis(timeout)),
                    command: String::from_utf8_lossy(&command).into_owned(),
                    stdin: take(&mut reader, stdin_len)?,
                };
                let (port, groups) = (Arc::clone(&port), Arc::clone(&groups));
                thread::spawn(move || run(&port, &groups, request));
            }
            Some("hello") => send(&port, "ready", &[])?,
            Some("kill") => {
                let id = number(&mut words, &line)?;
                let pid = groups.lock().ok().and_then(|g| g.get(&id).copied());
                if let Some(pid) = pid {
                    kill_group(pid);
                }
            }
            _ => return Err(bad(&line)),
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: guest-agent PORT");
    eprintln!("       guest-agent pump SOCKET PORT");
    eprintln!("       guest-agent flood ADDRESS:PORT RATE OPEN PIECE FILE");
    ExitCode::from(2)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (path, result) = match words.as_slice() {
        ["pump", socket, port] => (*port, pump::serve(socket, port)),
        ["flood", address, rate, open, piece, file] => {
            match (rate.parse(), open.parse(), piece.parse()) {
                (Ok(rate), Ok(open), Ok(piece)) => {
                    (*address, flood::serve(address, rate, open, piece, file))
                }
                _ => return usage(),
            }
        }
        [port] => (*port, serve(port)),
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-agent: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}
