// SPDX-License-Identifier: GPL-2.0

//! The secondary's session: executes what [`replicate_core::session::receiver`] decides.
//!
//! A payload is summed before it is placed. When memory or log space is short the socket is left full, which holds the
//! sender back, while acknowledgements and heartbeats go on. The credit makes that rare.

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
    node::inbound::Refused,
    session::{
        credit::Supply,
        receiver::{End, Fate, Item, Meaning, Next, Receiver, Reply},
        state,
    },
    units::SECTOR_BYTES,
    wire::{Code, Envelope, Header, SyncStart},
};
use replicate_linux::{
    clock,
    pages::{PageBuf, SharedBuf, PAGE_BYTES},
};

/// Messages taken before they are acknowledged.
const RX_BATCH: u32 = 256;
/// How long to wait for memory before looking again.
const RETRY_MS: u32 = 5;

/// An item whose data is on its way, or that waits for room.
struct Pending {
    item: Item,
    got: usize,
    buf: Option<PageBuf>,
    /// Its data is here and right.
    whole: Option<SharedBuf>,
    since_ms: u64,
}

/// What a secondary keeps of its session.
pub(super) struct Session {
    receiver: Receiver,
    volumes: KVec<Volume>,
    pending: Option<Pending>,
}

/// Whether a batch ended because its limit was reached, nothing more is here, or room is short.
enum Batch {
    More,
    Taken,
    Short,
}

impl Session {
    pub(super) fn new(receiver: Receiver, volumes: KVec<Volume>) -> Session {
        Session {
            receiver,
            volumes,
            pending: None,
        }
    }
}

fn now_ms() -> u64 {
    clock::monotonic_ns() / 1_000_000
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
            let batch = self.batch(s);
            // Also when the session ends: the end of a synchronisation may have come just before.
            let settled = self.settle(s);
            let batch = batch?;
            settled?;
            let said = self.tx.is_empty() && self.report(s)?;
            let gone = self.tx.flush(&self.link.stats)?;
            if matches!(batch, Batch::More) || (!said && gone) {
                continue;
            }
            if matches!(batch, Batch::Short) {
                self.rx.is_not_read();
            }
            let (due, mut wait) = self.check_timers()?;
            if due && self.tx.is_empty() {
                self.send_reply(&mut s.receiver, Reply::Heartbeat, 0)?;
                continue;
            }
            if s.receiver.waits_for_records() {
                wait = wait.min(50);
            }
            if matches!(batch, Batch::Short) {
                wait = RETRY_MS;
            }
            self.wake.wait(wait);
        }
    }

    /// Takes what has arrived, up to a limit.
    #[inline(never)]
    fn batch(&mut self, s: &mut Session) -> Result<Batch, SessionError> {
        for _ in 0..RX_BATCH {
            if let Some(p) = s.pending.take() {
                match self.finish(s, p)? {
                    None => continue,
                    Some(ended) => return Ok(ended),
                }
            }
            let Some(header) = self.rx.poll(&self.link.stats)? else {
                return Ok(Batch::Taken);
            };
            self.touch_last_rx();
            self.message(s, &header)?;
        }
        Ok(Batch::More)
    }

    /// One message whose control part is here.
    fn message(&mut self, s: &mut Session, h: &Header) -> Result<(), SessionError> {
        let before = s.receiver.who_waits();
        let message = self.rx.message(h).map_err(SessionError::wire)?;
        let meaning = s.receiver.message(&h.envelope, &message, &s.volumes);
        let meaning = meaning.map_err(|end| match end {
            End::Unexpected => Worker::unexpected(h.kind),
            end => self.ended(end),
        })?;
        match meaning {
            Meaning::Noted => {}
            Meaning::Item(item) => {
                s.pending = Some(Pending {
                    item,
                    got: 0,
                    buf: None,
                    whole: None,
                    since_ms: now_ms(),
                });
            }
            Meaning::SyncStarts(start) => self.show_sync(&start),
            Meaning::Ends { refusal, goodbye } => {
                return Err(SessionError::by_peer(&refusal, goodbye))
            }
        }
        let now = s.receiver.who_waits();
        if now != before {
            self.link.view.lock().told_in_sync = now.0;
            self.group.flush_at_once.store(now.1, Relaxed);
        }
        Ok(())
    }

    fn show_sync(&self, start: &SyncStart<'_>) {
        let job = Job {
            total_bytes: start.bytes,
            ..Job::default()
        };
        self.link.view.lock().sync = Some(job);
    }

    /// Goes on with the item under way. `Some`: it waits for data or room.
    #[inline(never)]
    fn finish(&mut self, s: &mut Session, mut p: Pending) -> Result<Option<Batch>, SessionError> {
        let len = p.item.payload_bytes() as usize;
        if p.whole.is_none() && len > 0 {
            if p.buf.is_none() {
                p.buf = self.group.pool.try_take(len);
            }
            let Some(mut buf) = p.buf.take() else {
                return self.keep_waiting(s, p);
            };
            while p.got < len {
                let n = self
                    .rx
                    .data(&mut buf, p.got, len - p.got, &self.link.stats)?;
                if n == 0 {
                    p.buf = Some(buf);
                    p.since_ms = now_ms();
                    s.pending = Some(p);
                    return Ok(Some(Batch::Taken));
                }
                p.got += n;
            }
            let crc = buf
                .crc32c(0, 0, len)
                .map_err(|_| SessionError::no_memory())?;
            if crc != p.item.payload_crc() {
                self.link.stats.crc_errors.add(1);
            }
            let sound = s.receiver.data(&p.item, crc);
            if !sound.map_err(|end| self.ended(end))? {
                self.show_dropped(&p.item);
                return Ok(None);
            }
            p.whole = Some(buf.share());
        }
        if let Item::Copy(c) = p.item {
            if !self.group.put_copy(c.item, p.whole.clone()) {
                let end = End::Nonsense("more region copies at once than were allowed");
                return Err(self.ended(end));
            }
        }
        let fate = {
            let mut inner = self.group.inner.lock();
            inner.take(&mut s.receiver, &p.item, p.whole.clone())
        };
        match (fate.map_err(|end| self.ended(end))?, p.item) {
            (Fate::NoRoom, _) => return self.keep_waiting(s, p),
            (_, Item::Record(..)) => {}
            (_, Item::Copy(c)) => {
                if let Some(job) = &mut self.link.view.lock().sync {
                    let bytes = u64::from(c.range.sectors) * SECTOR_BYTES;
                    job.done_bytes = job.done_bytes.saturating_add(bytes);
                }
            }
        }
        Ok(None)
    }

    /// What is held can go once it is flushed and applied: now, not after the commit interval.
    fn keep_waiting(&self, s: &mut Session, p: Pending) -> Result<Option<Batch>, SessionError> {
        let waited = now_ms().saturating_sub(p.since_ms);
        s.receiver.may_wait(waited).map_err(|end| self.ended(end))?;
        s.pending = Some(p);
        self.group.inner.lock().wants_space = true;
        self.group.log_wake.notify();
        self.group.apply_wake.notify();
        Ok(Some(Batch::Short))
    }

    /// A record whose payload does not match its checksum.
    #[inline(never)]
    fn show_dropped(&self, item: &Item) {
        let Item::Record(r, _) = item else {
            return;
        };
        let text = Text::new(format_args!(
            "record {} arrived with a wrong checksum: dropped, asked for again",
            r.seq
        ));
        event::link(
            &self.group,
            &self.link,
            Event::Integrity,
            Severity::Warning,
            Reason::Integrity,
            text.as_str(),
        );
    }

    /// After a batch: the commit point, gaps, and who has something to do now.
    #[inline(never)]
    fn settle(&mut self, s: &mut Session) -> Result<(), SessionError> {
        let patience = u64::from(self.link.settings.peer_timeout_ms.load(Relaxed).max(100));
        let now = now_ms();
        let settled = {
            let mut inner = self.group.inner.lock();
            s.receiver.settle(&mut inner.node, now, patience)
        };
        let settled = settled.map_err(|end| self.ended(end))?;
        if settled.log {
            // Not here: the log's device may be stuck, and this thread must go on talking.
            self.group.log_wake.notify();
        }
        if settled.applier {
            self.group.apply_wake.notify();
        }
        if settled.asks {
            self.link.stats.resends.add(1);
        }
        Ok(())
    }

    /// Puts in the outbox what the primary should know. Returns whether that is all.
    #[inline(never)]
    fn report(&mut self, s: &mut Session) -> Result<bool, SessionError> {
        // Looked at once: pages that come free meanwhile would be granted in as many messages.
        let supply = self.supply();
        while self.tx.has_room() {
            let next = {
                let inner = self.group.inner.lock();
                s.receiver.next(&inner.node, &supply)
            };
            match next.map_err(|end| self.ended(end))? {
                Next::Send(reply) => {
                    if let Reply::Ack(acks) = reply {
                        let mut v = self.link.view.lock();
                        v.acked = acks;
                        v.peer_head = s.receiver.peer_head();
                    }
                    let echo_ns = self.rx.peer_time_ns;
                    self.send_reply(&mut s.receiver, reply, echo_ns)?;
                }
                Next::Synced => {
                    self.link.view.lock().sync = None;
                    self.link.step(
                        &self.group,
                        state::Event::Synced,
                        Reason::None,
                        format_args!("the synchronisation ended, this replica is consistent"),
                    );
                }
                Next::Level => self.link.step(
                    &self.group,
                    state::Event::Level,
                    Reason::None,
                    format_args!("level with the primary"),
                ),
                Next::Wait => return Ok(true),
            }
        }
        Ok(false)
    }

    fn send_reply(
        &mut self,
        receiver: &mut Receiver,
        reply: Reply,
        echo_ns: u64,
    ) -> Result<(), SessionError> {
        let e = self.secondary_envelope(receiver);
        self.send(&e, &reply.message(echo_ns))
    }

    /// Returns what every message of a secondary says: above all, how much more may come.
    pub(super) fn secondary_envelope(&self, receiver: &mut Receiver) -> Envelope {
        let supply = self.supply();
        receiver.grow_credit(&self.group.inner.lock().node, &supply);
        Envelope {
            credit: receiver.credit(),
            ..self.envelope()
        }
    }

    fn supply(&self) -> Supply {
        let pool = &self.group.pool;
        Supply {
            pages: pool.max().saturating_sub(pool.in_use()) as u64,
            page_bytes: PAGE_BYTES as u64,
            window_bytes: self.link.window_bytes(&self.group),
        }
    }

    /// Why a session ends, in words. May sleep.
    pub(super) fn ended(&self, end: End) -> SessionError {
        let corrupt = |text: core::fmt::Arguments<'_>| {
            SessionError::closed(Reason::Integrity, Code::Corrupt, text)
        };
        match end {
            End::Nonsense(what) => protocol(what),
            End::Unexpected => protocol("a message that makes no sense here"),
            End::BadCopy(item) => corrupt(
                format_args!("region copy {item} arrived with a wrong checksum: dropped, the session begins anew"),
            ),
            End::Missing(seq) => corrupt(
                format_args!("record {seq} did not come although it was asked for again; the session begins anew"),
            ),
            End::Stuck => SessionError::closed(
                Reason::NoMemory,
                Code::NoMemory,
                format_args!("no room for the next record for 60 s: is the secondary's data device or SRL stuck?"),
            ),
            End::Refused(Refused::NotOwner) => SessionError::closed(
                Reason::Takeover,
                Code::TakeOver,
                format_args!("another primary took over, this secondary follows it"),
            ),
            End::Refused(Refused::Failed) => self.failed(),
            End::Refused(Refused::OtherEpoch) => SessionError::refused(
                Reason::Forked,
                Code::Forked,
                format_args!("a record came of an epoch that is not in this secondary's history"),
            ),
        }
    }
}

fn protocol(what: &'static str) -> SessionError {
    SessionError::closed(
        Reason::Protocol,
        Code::Protocol,
        format_args!("connection dropped: the peer sent {what}"),
    )
}
