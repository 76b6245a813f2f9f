// SPDX-License-Identifier: GPL-2.0

//! The secondary's session: take what comes, acknowledge once per batch, say how much more may come.
//!
//! A payload is summed before it is placed; what does not match is never placed, but asked for again. When memory
//! or log space is short the socket is left full, which holds the sender back, while acknowledgements and
//! heartbeats go on. The credit makes that rare.

use super::{error::SessionError, sync::Job, worker::Worker};
use crate::{
    event::{self, Code as Event, Severity},
    reason::Reason,
    refuse::Text,
};
use core::convert::Infallible;
use kernel::{prelude::*, sync::atomic::Relaxed};
use replicate_core::{
    group::Volume,
    node::{
        inbound::{Inbound, Refused},
        resync::Copy,
        secondary::Acks,
        window::Placed,
        Log,
    },
    session::{
        credit::Granted,
        gap::{Ask, Gap},
    },
    units::{EpochId, Op, Range, Record, Seq, SECTOR_BYTES},
    wire::{
        header::{FLAG_IN_SYNC, FLAG_STABLE},
        Code, Header, Message, RegionCopy,
    },
};
use replicate_linux::{
    clock,
    pages::{PageBuf, SharedBuf},
};

/// Messages taken before they are acknowledged.
const RX_BATCH: u32 = 256;
/// How long to wait for memory before looking again.
const RETRY_MS: u32 = 5;
/// A record that finds no room for so long was sent without credit.
const STUCK_NS: u64 = 60_000_000_000;

#[derive(Clone, Copy)]
enum What {
    /// A record, and the epoch that its message named.
    Record(Record, EpochId),
    Copy(RegionCopy),
}

/// A record or copy whose data is on its way, or that waits for room.
struct Pending {
    what: What,
    len: usize,
    got: usize,
    buf: Option<PageBuf>,
    /// Its data is here and right.
    whole: Option<SharedBuf>,
    since_ns: u64,
}

/// What a secondary keeps of its session.
pub(super) struct Session {
    /// The right to bring records.
    pub(super) owner: Inbound,
    volumes: KVec<Volume>,
    pending: Option<Pending>,
    pub(super) granted: Granted,
    pub(super) told: Granted,
    pub(super) acks: Option<Acks>,
    /// Bytes of data that have come in this session.
    pub(super) received: u64,
    /// Newest record that came, and newest that was dropped for its checksum.
    highest: Seq,
    dropped: Seq,
    gap: Gap,
    pub(super) resend: Option<(Seq, Seq)>,
    commit: Seq,
    /// Newest record of the primary, as far as it said.
    pub(super) peer_head: Seq,
    in_sync: bool,
    last_item: u64,
    pub(super) told_item: u64,
    /// How many copies this session had, once all are here.
    pub(super) items: Option<u64>,
    pub(super) was_level: bool,
    /// A heartbeat is to be answered.
    pub(super) reply: bool,
}

/// What a batch brought.
#[derive(Default)]
struct RxBatch {
    records: bool,
    copies: bool,
    /// There is more to take at once.
    more: bool,
    /// Room is short.
    short: bool,
}

impl Session {
    pub(super) fn new(
        owner: Inbound,
        volumes: KVec<Volume>,
        resume: Seq,
        peer_head: Seq,
    ) -> Session {
        Session {
            owner,
            volumes,
            pending: None,
            granted: Granted::default(),
            told: Granted::default(),
            acks: None,
            received: 0,
            highest: resume.prev(),
            dropped: Seq::NONE,
            gap: Gap::default(),
            resend: None,
            commit: Seq::NONE,
            peer_head,
            in_sync: false,
            last_item: 0,
            told_item: 0,
            items: None,
            was_level: false,
            reply: false,
        }
    }

    /// Whether the range is one of a volume that this session knows.
    fn knows(&self, range: &Range) -> bool {
        self.volumes
            .iter()
            .any(|v| v.id == range.volume && range.end() <= v.size)
    }
}

impl Worker {
    /// Runs the session until it ends.
    pub(super) fn receive(&mut self, s: &mut Session) -> Result<Infallible, SessionError> {
        let Err(ended) = self.receive_all(s);
        self.link.view.lock().sync = None;
        Err(ended)
    }

    #[inline(never)]
    fn receive_all(&mut self, s: &mut Session) -> Result<Infallible, SessionError> {
        loop {
            self.interrupted()?;
            self.check_health()?;
            if self.link.has_incoming() {
                return Err(SessionError::lost(
                    Reason::Reset,
                    format_args!("the primary has connected anew"),
                ));
            }
            let batch = self.batch(s)?;
            self.process_batch(s, &batch)?;
            let held = !self.tx.is_empty();
            if !held {
                self.report(s)?;
            }
            let gone = self.tx.flush(&self.link.stats)?;
            if batch.more || (held && gone) {
                continue;
            }
            let (due, mut wait) = self.check_timers()?;
            if due && self.tx.is_empty() {
                let e = self.secondary_envelope(s);
                self.send(&e, &Message::Heartbeat { echo_ns: 0 })?;
                continue;
            }
            if s.gap.is_open() {
                wait = wait.min(50);
            }
            if batch.short {
                wait = RETRY_MS;
            }
            self.wake.wait(wait);
        }
    }

    /// Takes what has arrived, up to a limit.
    #[inline(never)]
    fn batch(&mut self, s: &mut Session) -> Result<RxBatch, SessionError> {
        let mut batch = RxBatch::default();
        for _ in 0..RX_BATCH {
            if s.pending.is_some() {
                if !self.finish(s, &mut batch)? {
                    return Ok(batch);
                }
                continue;
            }
            let Some(header) = self.rx.poll(&self.link.stats)? else {
                return Ok(batch);
            };
            self.touch_last_rx();
            self.message(s, &header)?;
        }
        batch.more = true;
        Ok(batch)
    }

    /// One message whose control part is here.
    fn message(&mut self, s: &mut Session, h: &Header) -> Result<(), SessionError> {
        s.commit = s.commit.max(h.envelope.commit);
        s.peer_head = s.peer_head.max(h.envelope.position.seq);
        let in_sync = h.envelope.flags & FLAG_IN_SYNC != 0;
        if in_sync != s.in_sync {
            s.in_sync = in_sync;
            self.link.view.lock().told_in_sync = in_sync;
        }
        let stable = h.envelope.flags & FLAG_STABLE != 0;
        self.group.flush_at_once.store(stable, Relaxed);
        let len = h.data() as usize;
        let what = match self.rx.message(h).map_err(SessionError::wire)? {
            Message::Record(r) => {
                if r.op != Op::Marker && !s.knows(&r.range) {
                    return Err(nonsense("a record beyond the volumes of the group"));
                }
                What::Record(r, h.envelope.position.epoch)
            }
            Message::RegionCopy(c) => {
                if !s.knows(&c.range) || c.item != s.last_item.saturating_add(1) {
                    return Err(nonsense("a region copy out of turn or beyond its volume"));
                }
                What::Copy(c)
            }
            Message::CommitPoint => return Ok(()),
            Message::Heartbeat { .. } => {
                s.reply = true;
                return Ok(());
            }
            Message::SyncStart(start) => {
                let job = Job {
                    total_bytes: start.bytes,
                    ..Job::default()
                };
                self.link.view.lock().sync = Some(job);
                return Ok(());
            }
            Message::SyncEnd { end, items } => {
                if items != s.last_item {
                    return Err(nonsense("the end of a synchronisation with copies missing"));
                }
                s.items = Some(items);
                let told = self
                    .group
                    .inner
                    .lock()
                    .node
                    .sync_end_told(&s.owner, end, items);
                told.map_err(|r| self.refused(r))?;
                self.group.apply_wake.notify();
                return Ok(());
            }
            Message::Refuse(r) => return Err(SessionError::by_peer(&r, false)),
            Message::Goodbye(r) => return Err(SessionError::by_peer(&r, true)),
            _ => return Err(Worker::unexpected(h.kind)),
        };
        s.pending = Some(Pending {
            what,
            len,
            got: 0,
            buf: None,
            whole: None,
            since_ns: clock::monotonic_ns(),
        });
        Ok(())
    }

    /// Goes on with the record or copy under way. `false`: it waits for data or room.
    #[inline(never)]
    fn finish(&mut self, s: &mut Session, batch: &mut RxBatch) -> Result<bool, SessionError> {
        let Some(mut p) = s.pending.take() else {
            return Ok(true);
        };
        if p.whole.is_none() && p.len > 0 {
            if p.buf.is_none() {
                p.buf = self.group.pool.try_take(p.len);
            }
            let Some(mut buf) = p.buf.take() else {
                self.short_of_room();
                batch.short = true;
                return self.keep_waiting(s, p);
            };
            while p.got < p.len {
                let n = self
                    .rx
                    .data(&mut buf, p.got, p.len - p.got, &self.link.stats)?;
                if n == 0 {
                    p.buf = Some(buf);
                    p.since_ns = clock::monotonic_ns();
                    s.pending = Some(p);
                    return Ok(false);
                }
                p.got += n;
            }
            s.received = s.received.saturating_add(p.len as u64);
            let crc = buf
                .crc32c(0, 0, p.len)
                .map_err(|_| SessionError::no_memory())?;
            if crc != p.crc() {
                self.corrupt(s, &p)?;
                return Ok(true);
            }
            p.whole = Some(buf.share());
        }
        let done = match p.what {
            What::Record(r, epoch) => {
                s.highest = s.highest.max(r.seq);
                batch.records = true;
                self.place(&s.owner, &r, epoch, &p)?
            }
            What::Copy(c) => {
                self.place_copy(&s.owner, &c, &p)?;
                s.last_item = c.item;
                batch.copies = true;
                if let Some(job) = &mut self.link.view.lock().sync {
                    let bytes = u64::from(c.range.sectors) * SECTOR_BYTES;
                    job.done_bytes = job.done_bytes.saturating_add(bytes);
                }
                true
            }
        };
        if done {
            return Ok(true);
        }
        batch.short = true;
        self.keep_waiting(s, p)
    }

    fn keep_waiting(&self, s: &mut Session, p: Pending) -> Result<bool, SessionError> {
        if clock::monotonic_ns().saturating_sub(p.since_ns) > STUCK_NS {
            return Err(SessionError::closed(
                Reason::NoMemory,
                Code::NoMemory,
                format_args!("no room for the next record for 60 s: is the secondary's data device or SRL stuck?"),
            ));
        }
        s.pending = Some(p);
        Ok(false)
    }

    /// A payload that does not match its checksum: never placed.
    fn corrupt(&self, s: &mut Session, p: &Pending) -> Result<(), SessionError> {
        self.link.stats.crc_errors.add(1);
        match p.what {
            What::Record(r, _) => {
                s.dropped = s.dropped.max(r.seq);
                let text = Text::new(
                    format_args!(
                        "record {} arrived with a wrong checksum: dropped, asked for again",
                        r.seq
                    ),
                );
                event::link(
                    &self.group,
                    &self.link,
                    Event::Integrity,
                    Severity::Warning,
                    Reason::Integrity,
                    text.as_str(),
                );
                Ok(())
            }
            What::Copy(c) => Err(SessionError::closed(
                Reason::Integrity,
                Code::Corrupt,
                format_args!(
                    "region copy {} arrived with a wrong checksum: dropped, the session begins anew",
                    c.item
                ),
            )),
        }
    }

    /// `false`: there is no room now.
    fn place(
        &self,
        owner: &Inbound,
        r: &Record,
        epoch: EpochId,
        p: &Pending,
    ) -> Result<bool, SessionError> {
        let placed = self
            .group
            .inner
            .lock()
            .receive(owner, epoch, *r, p.whole.clone());
        match placed {
            Ok(Placed::InOrder | Placed::Early | Placed::Duplicate) => Ok(true),
            Ok(Placed::Beyond) => {
                self.short_of_room();
                Ok(false)
            }
            Err(refused) => Err(self.refused(refused)),
        }
    }

    /// Why this host takes and acknowledges nothing more in this session.
    pub(super) fn refused(&self, refused: Refused) -> SessionError {
        match refused {
            Refused::NotOwner => SessionError::closed(
                Reason::Takeover,
                Code::TakeOver,
                format_args!("another primary took over, this secondary follows it"),
            ),
            Refused::Failed => self.failed(),
            Refused::OtherEpoch => SessionError::refused(
                Reason::Forked,
                Code::Forked,
                format_args!("a record came of an epoch that is not in this secondary's history"),
            ),
        }
    }

    /// What is held can go once it is flushed and applied: now, not after the commit interval.
    fn short_of_room(&self) {
        self.group.inner.lock().wants_space = true;
        self.group.log_wake.notify();
        self.group.apply_wake.notify();
    }

    fn place_copy(&self, owner: &Inbound, c: &RegionCopy, p: &Pending) -> Result<(), SessionError> {
        if !self.group.put_copy(c.item, p.whole.clone()) {
            return Err(nonsense("more region copies at once than were allowed"));
        }
        let copy = Copy {
            item: c.item,
            after: c.after,
            range: c.range,
        };
        let taken = self.group.inner.lock().node.copy_arrived(owner, copy);
        match taken {
            Ok(true) => Ok(()),
            Ok(false) => Err(nonsense("a region copy that has no place in the stream")),
            Err(refused) => Err(self.refused(refused)),
        }
    }

    /// After a batch: the commit point, gaps, and who has something to do now.
    #[inline(never)]
    fn process_batch(&mut self, s: &mut Session, batch: &RxBatch) -> Result<(), SessionError> {
        let (head, moved, ringless) = {
            let mut inner = self.group.inner.lock();
            let before = inner.node.peer_commit();
            let told = inner.node.set_peer_commit(&s.owner, s.commit);
            let ringless = matches!(inner.node.log, Log::NoRing(_));
            let moved = told.map(|()| s.commit > before);
            (inner.node.head(), moved, ringless)
        };
        let moved = moved.map_err(|r| self.refused(r))?;
        if batch.records && !ringless {
            // Not here: the log's device may be stuck, and this thread must go on talking.
            self.group.log_wake.notify();
        }
        if moved || batch.copies || (batch.records && ringless) {
            self.group.apply_wake.notify();
        }
        let now_ms = clock::monotonic_ns() / 1_000_000;
        let patience = u64::from(self.link.settings.peer_timeout_ms.load(Relaxed).max(100));
        match s
            .gap
            .look(head, s.highest, s.dropped > head, now_ms, patience)
        {
            Ask::Wait => Ok(()),
            Ask::Resend { from, to } => {
                self.link.stats.resends.add(1);
                s.resend = Some((from, to));
                Ok(())
            }
            Ask::Reset => Err(SessionError::closed(
                Reason::Integrity,
                Code::Corrupt,
                format_args!(
                    "record {} did not come although it was asked for again; the session begins anew",
                    head.next()
                ),
            )),
        }
    }
}

impl Pending {
    fn crc(&self) -> u32 {
        match self.what {
            What::Record(r, _) => r.payload_crc,
            What::Copy(c) => c.payload_crc,
        }
    }
}

fn nonsense(what: &'static str) -> SessionError {
    SessionError::closed(
        Reason::Protocol,
        Code::Protocol,
        format_args!("connection dropped: the peer sent {what}"),
    )
}
