// SPDX-License-Identifier: GPL-2.0

//! Sockets and connections: one thread per connection carries requests out as they arrive; replies
//! that a delay holds back go through a second thread, so that a delay is latency and not a queue.
//!
//! A cut or reset ends the disk's session first and then shuts the sockets down
//! ([`Server::drop_connections`]); the threads end by themselves.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::{Disk, Refused, Request, Started};
use crate::proto::{self, Export};
use crate::stream::Stream;

/// How long to wait for the requests of clients that are gone.
const SETTLE: Duration = Duration::from_secs(10);

/// All disks and all open connections.
#[derive(Debug)]
pub struct Server {
    pub disks: Vec<Arc<Disk>>,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, (Arc<Disk>, Stream)>,
}

struct Late {
    due: Instant,
    cookie: u64,
    started: Started,
}

impl Server {
    pub fn new(disks: Vec<Arc<Disk>>) -> Self {
        Self {
            disks,
            connections: Mutex::default(),
        }
    }

    /// Serves on a socket. `only` is the disk of that socket, whatever name the client asks for;
    /// without it the name chooses (an empty name the first disk).
    pub fn listen(self: &Arc<Self>, path: &Path, only: Option<usize>) -> io::Result<()> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        let server = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let server = server.clone();
                thread::spawn(move || {
                    // A client that goes away is no news; a cut makes many of them.
                    let _ = server.serve(Stream::new(stream), only);
                });
            }
        });
        Ok(())
    }

    /// Shuts down the connections of these disks.
    pub fn drop_connections(&self, disks: &[Arc<Disk>]) {
        let connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (disk, stream) in connections.open.values() {
            if disks.iter().any(|d| Arc::ptr_eq(d, disk)) {
                stream.shut();
            }
        }
    }

    /// Waits until no request of a client that is gone is still on its way to these disks: a guest that
    /// was killed leaves requests in its sockets, and what is looked at must not change afterwards.
    pub fn settle(&self, disks: &[Arc<Disk>]) {
        let _ = self.wait_until_none(disks, Stream::hung_up);
    }

    /// The same for clients that stand still but live. False if they go on sending.
    #[must_use]
    pub fn quiet(&self, disks: &[Arc<Disk>]) -> bool {
        self.wait_until_none(disks, |stream| !stream.is_still())
    }

    fn wait_until_none(&self, disks: &[Arc<Disk>], busy: impl Fn(&Stream) -> bool) -> bool {
        let end = Instant::now() + SETTLE;
        while self.any(disks, &busy) {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn any(&self, disks: &[Arc<Disk>], busy: impl Fn(&Stream) -> bool) -> bool {
        let connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.open.values().any(|(disk, stream)| {
            // A disk that hangs will not come to an end by waiting.
            disks.iter().any(|d| Arc::ptr_eq(d, disk)) && !disk.hanging() && busy(stream)
        })
    }

    fn serve(&self, stream: Stream, only: Option<usize>) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(256 << 10, stream.clone());
        let names: Vec<String> = match only {
            Some(i) => vec![self.disks[i].config.name.clone()],
            None => self.disks.iter().map(|d| d.config.name.clone()).collect(),
        };
        let find = |name: &str| match only {
            Some(i) => Some(i),
            None if name.is_empty() => Some(0),
            None => names.iter().position(|n| n == name),
        };
        let about = |i: usize| export(&self.disks[i]);
        // The session begins before the client hears that it is connected, and the connection is
        // registered before the session is read: a cut is seen by one or the other.
        let mut entered = None;
        let enter = |i: usize| {
            let disk = self.disks[i].clone();
            let id = {
                let mut c = self
                    .connections
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                c.next += 1;
                let id = c.next;
                c.open.insert(id, (disk.clone(), stream.clone()));
                id
            };
            let session = disk.session();
            entered = Some((id, disk, session));
            Ok(())
        };
        let chosen = proto::negotiate(&mut reader, &mut stream.clone(), &names, find, about, enter);
        let Some((id, disk, session)) = entered else {
            return chosen.map(|_| ());
        };
        let result = chosen.and_then(|_| Connection::new(disk, session, stream)?.run(&mut reader));
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .open
            .remove(&id);
        result
    }
}

fn export(disk: &Disk) -> Export {
    let mut flags = proto::EXPORT_HAS_FLAGS
        | proto::EXPORT_TRIM
        | proto::EXPORT_WRITE_ZEROES
        | proto::EXPORT_MULTI_CONN;
    if disk.config.read_only {
        flags |= proto::EXPORT_READ_ONLY;
    }
    if !disk.config.write_through {
        flags |= proto::EXPORT_FLUSH | proto::EXPORT_FUA;
    }
    Export {
        size: disk.size,
        flags,
        block: disk.config.unit as u32,
    }
}

struct Connection {
    disk: Arc<Disk>,
    session: u64,
    out: Arc<Mutex<Stream>>,
    late: Option<Sender<Late>>,
}

impl Connection {
    fn new(disk: Arc<Disk>, session: u64, stream: Stream) -> io::Result<Self> {
        Ok(Self {
            disk,
            session,
            out: Arc::new(Mutex::new(stream)),
            late: None,
        })
    }

    fn run(&mut self, reader: &mut impl Read) -> io::Result<()> {
        loop {
            let h = proto::read_header(reader)?;
            let fua = h.flags & proto::CMD_FLAG_FUA != 0;
            let (at, len) = (h.at, u64::from(h.len));
            let request = match h.command {
                proto::CMD_READ if h.len <= proto::MAX_PAYLOAD => Request::Read { at, len },
                proto::CMD_WRITE => {
                    if h.len > proto::MAX_PAYLOAD {
                        return Err(io::Error::other("write too long"));
                    }
                    let mut data = vec![0; h.len as usize];
                    reader.read_exact(&mut data)?;
                    let data = data.into();
                    Request::Write { at, data, fua }
                }
                proto::CMD_DISC => return Ok(()),
                proto::CMD_FLUSH => Request::Flush,
                proto::CMD_TRIM => Request::Trim { at, len, fua },
                proto::CMD_WRITE_ZEROES => Request::Zero { at, len, fua },
                _ => {
                    self.reply(h.cookie, crate::disk::EINVAL, &[])?;
                    continue;
                }
            };
            match self.disk.begin(self.session, request) {
                Err(Refused::Gone) => return Ok(()),
                Err(Refused::Errno(e)) => self.reply(h.cookie, e, &[])?,
                Ok(started) if started.delay.is_zero() && self.late.is_none() => {
                    finish(&self.disk, self.session, &self.out, h.cookie, &started)?;
                }
                Ok(started) => self.reply_late(h.cookie, started)?,
            }
        }
    }

    fn reply(&self, cookie: u64, errno: u32, data: &[u8]) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        proto::write_reply(&mut *out, cookie, errno, data)
    }

    fn reply_late(&mut self, cookie: u64, started: Started) -> io::Result<()> {
        if self.late.is_none() {
            let (tx, rx) = channel();
            let (disk, session, out) = (self.disk.clone(), self.session, self.out.clone());
            thread::spawn(move || late_replies(&disk, session, &out, &rx));
            self.late = Some(tx);
        }
        let late = Late {
            due: Instant::now() + started.delay,
            cookie,
            started,
        };
        match &self.late {
            Some(tx) => tx.send(late).map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

/// Goes on after the client has left: a device finishes what it was given.
fn late_replies(disk: &Disk, session: u64, out: &Mutex<Stream>, rx: &Receiver<Late>) {
    while let Ok(late) = rx.recv() {
        if let Some(wait) = late.due.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
        }
        let _ = finish(disk, session, out, late.cookie, &late.started);
    }
}

fn finish(
    disk: &Disk,
    session: u64,
    out: &Mutex<Stream>,
    cookie: u64,
    started: &Started,
) -> io::Result<()> {
    let (errno, data) = match disk.complete(session, started) {
        Ok(()) => (0, started.data.as_slice()),
        Err(Refused::Errno(e)) => (e, [].as_slice()),
        Err(Refused::Gone) => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    proto::write_reply(&mut *out, cookie, errno, data)
}
