// SPDX-License-Identifier: GPL-2.0

//! The primary's session: the loop that sends, as `replicate_core::session::sender` plans it.
//!
//! Each turn takes what has arrived, fills one go of messages, and hands it to the socket. It waits only when there
//! is nothing to take, nothing to send, or the socket is full. Records come from memory where they still are,
//! else from the log; region copies from the data volume only.

use super::{
    error::SessionError,
    read_back::{Held, ReadBack},
    worker::Worker,
};
use crate::{reason::Reason, volume};
use core::convert::Infallible;
use kernel::{
    prelude::*,
    sync::{atomic::Relaxed, Arc},
};
use replicate_core::{
    group::{SyncKind, Volume},
    session::{
        progress::{Check, Progress},
        resync::CopyItem,
        sender::{Send, Sender, Told},
        SessionId,
    },
    units::{Position, Seq, SECTOR_BYTES},
    wire::{self, Code, Envelope, Message, RegionCopy, SyncStart, WireError},
};
use replicate_linux::{clock, event::FOREVER, pages::SharedBuf};
use zerocopy::little_endian::U16;

/// How long to wait for memory, or for a device, before looking again.
const RETRY_MS: u32 = 5;

/// A region that was read and waits to be sent.
struct Read {
    buf: Option<SharedBuf>,
    crc: u32,
}

/// What a primary keeps of its session.
pub(super) struct Session {
    pub(super) sender: Sender,
    pub(super) volumes: KVec<Volume>,
    read: Option<Read>,
    /// The peer is consistent, the superblock does not say so yet.
    pub(super) over: bool,
    /// Whether the peer does anything.
    progress: Progress,
}

/// What became of an attempt to fill the outbox.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// There is nothing more to send now.
    Dry,
    /// The go is full, or must go out before the next thing is done.
    Go,
    /// Something is short: look again soon.
    Short,
}

impl Session {
    pub(super) fn new(sender: Sender, volumes: KVec<Volume>) -> Session {
        Session {
            sender,
            volumes,
            read: None,
            over: false,
            progress: Progress::default(),
        }
    }
}

impl Worker {
    /// Runs the session until it ends.
    pub(super) fn stream(&mut self, s: &mut Session) -> Result<Infallible, SessionError> {
        // Needed when writers wait for this link and memory is short: it is made before they wait.
        if let Some(back) = &mut self.back {
            back.forget();
        } else if self.group.srl.ring_bytes().is_some() {
            self.back = Some(ReadBack::new(&self.group).map_err(|_| SessionError::no_memory())?);
        }
        self.show_sent(s);
        self.regions.session_ended();
        loop {
            self.interrupted()?;
            self.take_acks(s)?;
            if s.over {
                self.sync_over(s)?;
            }
            if s.sender.reading().is_some() {
                self.region_read(s)?;
            }
            // What is still going out must be gone before more is put behind it: then look again.
            let mut filled = Filled::Go;
            if self.tx.holds_too_much() {
                filled = Filled::Short;
            } else if self.tx.is_empty() {
                filled = self.fill(s)?;
                self.show_sent(s);
            }
            let gone = self.tx.flush(&self.link.stats)?;
            if gone && filled == Filled::Go {
                continue;
            }
            let (due, mut wait) = self.check_timers()?;
            wait = wait.min(self.check_progress(s)?);
            if due && self.tx.is_empty() {
                self.heartbeat(s)?;
                continue;
            }
            if filled == Filled::Short {
                wait = RETRY_MS;
            }
            self.wake.wait(wait);
        }
    }

    /// Ends the session of a peer that answers and does nothing. Returns how long, in ms, the thread may wait before
    /// it looks again.
    #[inline(never)]
    fn check_progress(&self, s: &mut Session) -> Result<u32, SessionError> {
        let limit = self.link.settings.progress_timeout_ms.load(Relaxed);
        let now_ms = clock::monotonic_ns() / 1_000_000;
        let mut inner = self.group.inner.lock();
        let node = &mut inner.node;
        let (given, reached) = s.sender.standing(node);
        match s.progress.check(&given, reached, now_ms, u64::from(limit)) {
            Check::Moves => Ok(FOREVER - 1),
            Check::Owes(ms) => Ok(u32::try_from(ms).unwrap_or(FOREVER - 1).max(1)),
            Check::Stuck => {
                node.positions.stalled(self.link.id);
                drop(inner);
                Err(SessionError::closed(
                    Reason::NoProgress,
                    Code::Stopping,
                    format_args!("the peer answers, but acknowledged nothing for {limit} ms although records wait for it; is its SRL or a data device stuck?"),
                ))
            }
        }
    }

    fn show_sent(&self, s: &Session) {
        let sent = s.sender.next_seq().prev();
        self.link.sent.store(sent.0, Relaxed);
        let mut inner = self.group.inner.lock();
        if let Some(sender) = inner.senders.iter_mut().find(|s| s.id == self.link.id) {
            sender.sent = sent;
            sender.wants = s.sender.next_seq();
        }
    }

    /// What a message of this session says that is sent now.
    fn session_envelope(&self, s: &mut Session) -> Envelope {
        let mut e = self.envelope();
        let told = s.sender.tells(&self.group.inner.lock().node);
        (e.commit, e.flags) = (told.commit, e.flags | told.flags);
        e
    }

    fn heartbeat(&mut self, s: &mut Session) -> Result<(), SessionError> {
        let e = self.session_envelope(s);
        let echo_ns = self.rx.peer_time_ns;
        self.send(&e, &Message::Heartbeat { echo_ns })
    }

    /// Fills the outbox with what may be sent now.
    #[inline(never)]
    fn fill(&mut self, s: &mut Session) -> Result<Filled, SessionError> {
        while self.tx.has_room() {
            let next = {
                let inner = self.group.inner.lock();
                s.sender.next(&inner.node, s.volumes.iter())
            };
            match next {
                Send::SyncStart => self.sync_start(s)?,
                Send::Record(seq) => {
                    if !self.record(s, seq)? {
                        return Ok(Filled::Short);
                    }
                }
                Send::ReadCopy(item) => {
                    if !self.read_region(s, &item)? {
                        return Ok(Filled::Short);
                    }
                }
                Send::Copy(item) => self.copy(s, &item)?,
                Send::RecordEnd(end) => {
                    if !self.sync_ends(end)? {
                        return Ok(Filled::Dry);
                    }
                    s.sender.end_recorded();
                }
                Send::SyncEnd { end, items } => {
                    let e = self.session_envelope(s);
                    self.send(&e, &Message::SyncEnd { end, items })?;
                    s.sender.end_sent();
                }
                Send::Told => {
                    let e = self.session_envelope(s);
                    self.send(&e, &Message::CommitPoint)?;
                }
                Send::Nothing => return Ok(Filled::Dry),
            }
        }
        Ok(Filled::Go)
    }

    /// One record, if the peer has room for it. `false`: no memory now to read it back.
    #[inline(never)]
    fn record(&mut self, s: &mut Session, seq: Seq) -> Result<bool, SessionError> {
        let (held, epoch, told) = {
            let inner = self.group.inner.lock();
            (
                inner.held(seq),
                inner.epochs.at(seq).0,
                Told::now(&inner.node, self.link.id),
            )
        };
        let (record, payload) = match held {
            Some(held) => held,
            None => match self.look_back(seq)? {
                Some(held) => held,
                None => return Ok(false),
            },
        };
        if !s.sender.fits(&record) {
            if let Some(back) = &mut self.back {
                // Its pages are not held while the peer has no room. The batch stays: nothing is read again.
                back.release();
            }
            return Ok(true);
        }
        let envelope = Envelope {
            flags: told.flags,
            session: SessionId::to_wire(self.session),
            position: Position { epoch, seq },
            commit: told.commit,
            time_ns: clock::wall_ns(),
            ..Envelope::default()
        };
        self.tx
            .push(payload, |out| wire::encode_record(&envelope, &record, out))?;
        s.sender.record_sent(&record, told);
        Ok(true)
    }

    fn look_back(&mut self, seq: Seq) -> Result<Option<Held>, SessionError> {
        match &mut self.back {
            Some(back) => back.get(&self.group, seq),
            None => Ok(None),
        }
    }

    /// Announces a synchronisation, new or resumed.
    #[inline(never)]
    fn sync_start(&mut self, s: &mut Session) -> Result<(), SessionError> {
        let (sync, job) = {
            let mut v = self.link.view.lock();
            let Some(sync) = v.syncs.running().copied() else {
                return Ok(());
            };
            let job = v.sync.get_or_insert_default();
            job.measure(sync.at, &s.volumes);
            (sync, *job)
        };
        let mut ids = KVec::with_capacity(s.volumes.len(), GFP_KERNEL)
            .map_err(|_| SessionError::no_memory())?;
        for v in s.volumes.iter() {
            ids.push(U16::new(v.id.0), GFP_KERNEL)
                .map_err(|_| SessionError::no_memory())?;
        }
        let e = self.session_envelope(s);
        let bytes = job.total_bytes.saturating_sub(job.done_bytes);
        let start = SyncStart::new(SyncKind::Full, sync.start, bytes, &ids);
        self.send(&e, &Message::SyncStart(start))?;
        Ok(())
    }

    /// Starts to read a region from the data volume. `false`: no memory now, or the read of a former session has not ended.
    #[inline(never)]
    fn read_region(&mut self, s: &mut Session, item: &CopyItem) -> Result<bool, SessionError> {
        let bytes = item.range.bytes().0 as usize;
        let volume = self.volume_of(item)?;
        let Some(buf) = self.group.pool.try_take(bytes) else {
            return Ok(false);
        };
        let idle = self.regions.ready(&self.wake);
        let Some(idle) = idle.map_err(|_| SessionError::no_memory())? else {
            return Ok(false);
        };
        s.sender.copy_begins();
        idle.read(&volume.data, item.range.sector.0, buf, bytes);
        Ok(true)
    }

    fn volume_of(&self, item: &CopyItem) -> Result<Arc<volume::Volume>, SessionError> {
        let volume = self.group.inner.lock().volume(item.range.volume);
        volume.ok_or_else(|| {
            SessionError::lost(
                Reason::WaitingVolumes,
                format_args!("a volume of the group is not active any more; its synchronisation goes on when it is back"),
            )
        })
    }

    /// Takes the region that is being read, if it is there.
    #[inline(never)]
    fn region_read(&mut self, s: &mut Session) -> Result<(), SessionError> {
        let (Some(item), Some((result, buf))) = (s.sender.reading(), self.regions.take()) else {
            return Ok(());
        };
        let bytes = item.range.bytes().0 as usize;
        let volume = self.volume_of(&item)?;
        let failed = |e: Error| {
            SessionError::closed(
                Reason::DataFailed,
                Code::Failed,
                format_args!("reading volume {} for the synchronisation failed at sector {} (error {}); trying again", volume.name.as_str(), item.range.sector, e.to_errno()),
            )
        };
        result.map_err(failed)?;
        let buf = buf.ok_or_else(|| failed(EIO))?;
        let commit = self.group.inner.lock().node.commit();
        s.sender.copy_read(commit);
        let mut zeroes = true;
        let looked = buf.for_each_chunk(0, bytes, |c| zeroes = zeroes && is_zero(c));
        let crc = match (looked, zeroes) {
            (Ok(()), true) => None,
            _ => Some(
                buf.crc32c(0, 0, bytes)
                    .map_err(|_| SessionError::no_memory())?,
            ),
        };
        s.read = Some(match crc {
            None => Read { buf: None, crc: 0 },
            Some(crc) => Read {
                buf: Some(buf.share()),
                crc,
            },
        });
        Ok(())
    }

    #[inline(never)]
    fn copy(&mut self, s: &mut Session, item: &CopyItem) -> Result<(), SessionError> {
        let Some(read) = s.read.take() else {
            return Err(SessionError::wire(WireError::Field(
                "region copy that was not read",
            )));
        };
        let e = self.session_envelope(s);
        let copy = RegionCopy {
            item: item.item,
            after: item.after,
            range: item.range,
            zeroes: read.buf.is_none(),
            payload_crc: read.crc,
        };
        let bytes = if read.buf.is_some() {
            u64::from(item.range.sectors) * SECTOR_BYTES
        } else {
            0
        };
        self.tx.push(read.buf, |out| {
            wire::encode(&e, &Message::RegionCopy(copy), out)
        })?;
        s.sender.copy_sent(bytes);
        Ok(())
    }
}

/// Whether these bytes are all zero.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |all, b| all | b) == 0
}
