// SPDX-License-Identifier: GPL-2.0

//! The log worker: one thread per group that writes the log and completes writes.
//!
//! Each turn: take what ended, continue bios that had to wait, start log writes and flushes that the
//! core asks for, complete what may complete. It never waits for a device or a peer: I/O comes back
//! through a lock-free queue that bio end_io fills, and everything that wakes it goes through one event.
//!
//! What it needs per log write was made beforehand: four units, each with its bios, its descriptor
//! page and room for the payload references. So a write that has a seq always gets logged without
//! another allocation.
//!
//! Locks: the order lock, for each step on its own. Failure: the first failed log write or flush closes
//! the group ([`Group::fail`]).

use crate::{
    group::{
        admission,
        order::{Phase, Pin, Taken},
        Group,
    },
    refuse::Refusal,
    volume::{State, Volume},
};
use kernel::{prelude::*, sync::Arc};
use replicate_core::{
    engine::Role,
    log::{
        batch::{descriptor_bytes, Builder, Run},
        format::MAX_BATCH_RECORDS,
        writer::{Plan, MAX_IN_FLIGHT},
    },
    units::{Bytes, Op, Record, Seq, SECTOR_BYTES},
};
use replicate_linux::{
    bio::{CompletionQueue, Done, Flags, IoUnit, Segment},
    clock,
    dm::{BioList, BioQueue, MappedBio},
    errno::BlkStatus,
    kthread::StopToken,
    pages::PageBuf,
};

/// Page fragments of a largest batch: 2 MiB in pages, descriptor, and two more per record.
const MAX_SEGMENTS: usize = 512 + 17 + 2 * MAX_BATCH_RECORDS as usize;

/// Everything that one log write needs.
struct BatchIo {
    descriptor: PageBuf,
    bytes: KVVec<u8>,
    payloads: KVec<Arc<PageBuf>>,
    records: KVec<Record>,
}

/// What comes back from the device.
#[derive(Clone, Copy)]
enum Kind {
    Batch,
    Flush,
}

/// The worker's own things.
pub(crate) struct LogWorker {
    group: Arc<Group>,
    queue: CompletionQueue<Kind>,
    reads: BioQueue,
    units: KVec<IoUnit<Kind>>,
    /// By the number that the core gives a log write in flight.
    batches: KVec<BatchIo>,
    flush: Option<IoUnit<Kind>>,
    pad: PageBuf,
}

impl LogWorker {
    /// Makes a worker for `group`. May sleep.
    pub(crate) fn new(group: Arc<Group>) -> Result<LogWorker> {
        let block = group.srl.block();
        let descriptor = descriptor_bytes(MAX_BATCH_RECORDS, block) as usize;
        let mut units = KVec::with_capacity(MAX_IN_FLIGHT, GFP_KERNEL)?;
        let mut batches = KVec::with_capacity(MAX_IN_FLIGHT, GFP_KERNEL)?;
        for _ in 0..MAX_IN_FLIGHT {
            let io = BatchIo {
                descriptor: group.pool.try_take(descriptor).ok_or(ENOMEM)?,
                bytes: crate::srl::zeroed(descriptor)?,
                payloads: KVec::with_capacity(MAX_BATCH_RECORDS as usize, GFP_KERNEL)?,
                records: KVec::with_capacity(MAX_BATCH_RECORDS as usize, GFP_KERNEL)?,
            };
            batches.push(io, GFP_KERNEL)?;
            units.push(IoUnit::new(MAX_SEGMENTS)?, GFP_KERNEL)?;
        }
        let mut pad = group.pool.try_take(block as usize).ok_or(ENOMEM)?;
        pad.zero_range(0, block as usize)?;
        let wake = group.log_wake.clone();
        Ok(LogWorker {
            queue: CompletionQueue::new(wake.clone())?,
            reads: BioQueue::new(wake)?,
            units,
            batches,
            flush: Some(IoUnit::new(1)?),
            pad,
            group,
        })
    }

    /// The thread's body.
    pub(crate) fn run(mut self, stop: &StopToken) {
        while !stop.should_stop() {
            self.ended();
            self.overlay_ended();
            self.waiting();
            self.batches();
            self.flush();
            self.release();
            self.retire();
            let ms = self.sleep_ms();
            self.group.log_wake.wait(ms);
        }
        // Whatever is in flight comes back before the queues go.
        while self.queue.in_flight() > 0 {
            self.ended();
            clock::sleep_ms(1);
        }
    }

    /// How long until something is due without a wake-up.
    fn sleep_ms(&self) -> u32 {
        let o = self.group.order.lock();
        if let Phase::Holding { .. } = o.phase {
            return 50;
        }
        if o.uncommitted_since != 0 {
            return self
                .group
                .settings
                .commit_interval_ms
                .load(kernel::sync::atomic::Relaxed)
                .max(1);
        }
        1000
    }

    /// Takes log writes and flushes that ended.
    fn ended(&mut self) {
        for done in self.queue.pop_all() {
            let Done {
                unit,
                status,
                tag,
                keep,
                ..
            } = done;
            let ok = status.is_ok();
            let what = match keep {
                Kind::Batch => {
                    if let Some(io) = self.batches.get_mut(tag as usize) {
                        io.payloads.clear();
                    }
                    // Cannot fail: the vector was made for all of them.
                    let _ = self.units.push(unit, GFP_NOWAIT);
                    self.group.order.lock().engine.batch_done(tag as usize, ok);
                    "write"
                }
                Kind::Flush => {
                    self.flush = Some(unit);
                    let mut o = self.group.order.lock();
                    o.engine.flush_done(ok);
                    let behind = o.engine.commit() < o.engine.written();
                    o.uncommitted_bytes = 0;
                    o.uncommitted_since = if behind { clock::monotonic_ns() } else { 0 };
                    "flush"
                }
            };
            if !ok {
                self.group.fail(Refusal::new(
                    EIO,
                    format_args!(
                        "SRL {}: log {what} failed ({}); writes end in EIO; repair the device, then remove and add the group again",
                        self.group.srl.path().to_str().unwrap_or("?"),
                        status.name()
                    ),
                ));
            }
            self.group.wake_links();
            self.group.apply_wake.notify();
            self.group.moved.notify();
        }
    }

    /// Continues the bios that had to wait, in order, as far as they can go now.
    fn waiting(&mut self) {
        self.end_holding();
        let n = self.group.order.lock().lanes.len();
        for i in 0..n {
            loop {
                let next = {
                    let mut o = self.group.order.lock();
                    let Some(volume) = o.lanes.get(i).map(|l| l.volume.clone()) else {
                        break;
                    };
                    let open = o.is_open(&volume);
                    let failed = volume.state() == State::Failed || o.phase == Phase::Failed;
                    let pass = o.phase == Phase::Unlogged && volume.state() == State::Active;
                    if !(open || failed || pass) {
                        break;
                    }
                    match o.lanes.get_mut(i).and_then(|l| l.parked.pop()) {
                        Some(bio) if failed => {
                            // At once: no page may ever come free again for its copy.
                            drop(o);
                            bio.end(BlkStatus::IOERR);
                            continue;
                        }
                        Some(bio) => (volume, bio, pass),
                        None => break,
                    }
                };
                if !self.continue_bio(next) {
                    break;
                }
            }
            while self.continue_read(i) {}
        }
    }

    fn continue_bio(&self, (volume, bio, pass): (Arc<Volume>, MappedBio, bool)) -> bool {
        if pass {
            let sector = bio.sector();
            bio.submit_to(&volume.data, sector);
            return true;
        }
        if bio.bytes() == 0 || bio.op() == replicate_linux::dm::BioOp::Flush {
            return self.settle(&volume, |o, bio| o.flush(bio), bio);
        }
        let Some(payload) = self.group.copy(&bio) else {
            self.unpop(&volume, bio);
            return false;
        };
        self.settle(&volume, |o, bio| o.admit(&volume, bio, payload), bio)
    }

    fn settle(
        &self,
        volume: &Volume,
        f: impl FnOnce(&mut crate::group::order::Order, MappedBio) -> Taken,
        bio: MappedBio,
    ) -> bool {
        let bytes = bio.bytes();
        let taken = {
            let mut o = self.group.order.lock();
            f(&mut o, bio)
        };
        match taken {
            Taken::Admitted => {
                self.group.stats.writes.add(u64::from(bytes > 0));
                self.group.stats.bytes.add(bytes as u64);
                true
            }
            Taken::Kept => true,
            Taken::End(bio, status) => {
                bio.end(status);
                true
            }
            Taken::NotNow(bio) => {
                self.unpop(volume, bio);
                false
            }
        }
    }

    /// Puts a bio back in front of its list.
    fn unpop(&self, volume: &Volume, bio: MappedBio) {
        let mut o = self.group.order.lock();
        match o.lane(volume) {
            Some(lane) => {
                let mut rest = core::mem::take(&mut lane.parked);
                lane.parked.push(bio);
                lane.parked.append(&mut rest);
                if o.wants_space {
                    drop(o);
                    self.group.apply_wake.notify();
                }
            }
            None => {
                drop(o);
                bio.end(BlkStatus::IOERR);
            }
        }
    }

    /// A starting primary's wait for its links is over.
    fn end_holding(&self) {
        let until = match self.group.order.lock().phase {
            Phase::Holding { until_ns } => until_ns,
            Phase::Active | Phase::TakingOver | Phase::Unlogged | Phase::Failed | Phase::Gone => {
                return
            }
        };
        if clock::monotonic_ns() >= until || self.group.links_answered() {
            let mut o = self.group.order.lock();
            if let Phase::Holding { .. } = o.phase {
                o.phase = Phase::Active;
            }
        }
    }

    /// Starts one waiting read of lane `i`; `false` when there is none, or not now.
    fn continue_read(&self, i: usize) -> bool {
        let mut o = self.group.order.lock();
        let Some(volume) = o.lanes.get(i).map(|l| l.volume.clone()) else {
            return false;
        };
        match volume.state() {
            State::Parked | State::Replaying => return false,
            State::Active | State::Replica | State::Suspended | State::Failed => {}
        }
        let Some(bio) = o.lanes.get_mut(i).and_then(|l| l.reads.pop()) else {
            return false;
        };
        if volume.state() == State::Failed {
            drop(o);
            bio.end(BlkStatus::IOERR);
            return true;
        }
        let sector = bio.sector();
        let range = admission::range_of(&volume, &bio);
        let overlay = match &range {
            Some(r) => volume.state() != State::Replica && o.must_overlay(r),
            None => false,
        };
        match range.filter(|_| overlay) {
            None => {
                drop(o);
                bio.submit_to(&volume.data, sector);
            }
            Some(range) => match o.pin(range) {
                Some(pin) => {
                    drop(o);
                    self.group.stats.overlaid_reads.add(1);
                    bio.read_then(&volume.data, sector, pin as u64, &self.reads);
                }
                None => {
                    if let Some(lane) = o.lanes.get_mut(i) {
                        let mut rest = core::mem::take(&mut lane.reads);
                        lane.reads.push(bio);
                        lane.reads.append(&mut rest);
                    }
                    return false;
                }
            },
        }
        true
    }

    /// Lays what memory holds over reads that came back, oldest record first, and ends them.
    ///
    /// The read saw, for each block, some state between its submission and now. Every record that was
    /// unapplied at its submission is laid over it, so the result is never older than what was complete
    /// then. The pin keeps those records in memory.
    fn overlay_ended(&mut self) {
        for (mut bio, status, tag) in self.reads.pop_all() {
            let slot = tag as usize;
            let pin = self
                .group
                .order
                .lock()
                .pins
                .as_ref()
                .get(slot)
                .copied()
                .flatten();
            let mut status = status;
            if let Some(pin) = pin.filter(|_| status.is_ok()) {
                if self.lay_over(&mut bio, &pin).is_err() {
                    status = BlkStatus::IOERR;
                }
            }
            if let Some(p) = self.group.order.lock().pins.as_mut().get_mut(slot) {
                *p = None;
            }
            bio.end(status);
        }
    }

    fn lay_over(&self, bio: &mut MappedBio, pin: &Pin) -> Result {
        let mut after = Seq::NONE;
        loop {
            let next = self.group.order.lock().next_overlay(pin, after);
            let Some((record, payload)) = next else {
                return Ok(());
            };
            after = record.seq;
            let Some(part) = pin.range.intersection(&record.range) else {
                continue;
            };
            let to = sectors_to_bytes(part.sector.0 - pin.range.sector.0);
            let from = sectors_to_bytes(part.sector.0 - record.range.sector.0);
            let len = sectors_to_bytes(u64::from(part.sectors));
            match (record.op, payload) {
                (Op::Write, Some(p)) => bio.copy_from(to, &p, from, len)?,
                (Op::Write, None) => return Err(EIO),
                (Op::WriteZeroes, _) => bio.zero_fill(to, len)?,
                (Op::Discard | Op::Marker, _) => {}
            }
        }
    }

    /// Starts log writes as the core asks for them.
    fn batches(&mut self) {
        while !self.units.is_empty() {
            let plan = {
                let mut o = self.group.order.lock();
                let order = &mut **o;
                let Some(plan) = order.engine.plan_batch(&order.epochs) else {
                    return;
                };
                if let Some(io) = self.batches.get_mut(plan.id) {
                    gather(&o, &plan, io);
                }
                plan
            };
            if let Err(e) = self.write(plan) {
                self.group.order.lock().engine.batch_done(plan.id, false);
                self.group.fail(Refusal::new(
                    e,
                    format_args!(
                        "log batch of records {}..{} could not be built (error {})",
                        plan.first,
                        plan.last,
                        e.to_errno()
                    ),
                ));
                return;
            }
        }
    }

    fn write(&mut self, plan: Plan) -> Result {
        let identity = self.group.identity();
        let block = self.group.srl.block();
        let (offset, lap, (epoch, epoch_index)) = {
            let o = self.group.order.lock();
            let replicate_core::engine::Log::Ring(w) = &o.engine.log else {
                return Err(EINVAL);
            };
            let place = plan.place;
            (
                w.ring.offset(place),
                w.ring.lap(place),
                o.epochs.at(plan.first),
            )
        };
        let run = Run {
            group: identity.uuid,
            epoch,
            epoch_index,
            first_seq: plan.first,
            chain: plan.chain,
            block,
        };
        let io = self.batches.get_mut(plan.id).ok_or(EINVAL)?;
        let mut builder = Builder::new(&mut io.bytes, run).map_err(|_| EINVAL)?;
        for r in io.records.iter() {
            builder.push(r).map_err(|_| EINVAL)?;
        }
        let built = builder
            .finish(offset, lap, plan.durable)
            .map_err(|_| EINVAL)?;
        let descriptor = built.descriptor as usize;
        if built.head.length != plan.length {
            return Err(EINVAL);
        }
        io.descriptor
            .write_at(0, io.bytes.get(..descriptor).ok_or(EINVAL)?)?;
        let payload: usize = io.payloads.iter().map(|p| p.len()).sum();
        let pad = (plan.length.0 as usize).saturating_sub(descriptor + payload);
        let sector = self.group.srl.ring_sector(offset);
        let flags = if plan.fua { Flags::FUA } else { Flags::NONE };
        self.group.stats.batches.add(1);
        self.group.stats.log_bytes.add(plan.length.0);
        let head = Segment {
            buf: &io.descriptor,
            offset: 0,
            len: descriptor,
        };
        let body = io.payloads.iter().map(|p| Segment {
            buf: p,
            offset: 0,
            len: p.len(),
        });
        let tail = (pad > 0).then_some(Segment {
            buf: &self.pad,
            offset: 0,
            len: pad,
        });
        let unit = self.units.pop().ok_or(ENOMEM)?;
        unit.write(
            self.group.srl.dev(),
            sector,
            flags,
            Iterator::chain(Iterator::chain(core::iter::once(head), body), tail),
            plan.id as u64,
            Kind::Batch,
            &self.queue,
        );
        Ok(())
    }

    /// Starts a log flush where someone waits for one.
    fn flush(&mut self) {
        let Some(unit) = self.flush.take() else {
            return;
        };
        let wanted = {
            let mut o = self.group.order.lock();
            o.engine.demand_fua();
            let age = clock::monotonic_ns().saturating_sub(o.uncommitted_since);
            let s = &self.group.settings;
            let interval =
                u64::from(s.commit_interval_ms.load(kernel::sync::atomic::Relaxed)) * 1_000_000;
            let due = o.uncommitted_since != 0 && age >= interval
                || o.uncommitted_bytes >= s.commit_bytes.load(kernel::sync::atomic::Relaxed)
                || o.wants_space
                || o.engine
                    .positions
                    .iter()
                    .any(|(_, l)| l.in_sync && l.mode == replicate_core::group::Mode::Applied)
                || o.engine.role() == Role::Secondary;
            if due {
                o.engine.demand_all();
            }
            if o.engine.commit() >= o.engine.head() {
                o.uncommitted_since = 0;
                o.uncommitted_bytes = 0;
            }
            o.engine.plan_flush()
        };
        if wanted {
            self.group.stats.flushes.add(1);
            unit.flush(self.group.srl.dev(), 0, Kind::Flush, &self.queue);
        } else {
            self.flush = Some(unit);
        }
    }

    /// Completes what may complete: published under the lock, ended outside it.
    fn release(&mut self) {
        let mut out = BioList::new();
        {
            let mut o = self.group.order.lock();
            while let Some(seq) = o.engine.next_release() {
                if let Some(bio) = o.take_bio(seq) {
                    out.push(bio);
                }
            }
            o.ready_flushes(&mut out);
        }
        while let Some(bio) = out.pop() {
            bio.end(BlkStatus::OK);
        }
    }

    /// Gives memory back. A secondary keeps nothing that is applied. A primary keeps what its senders have
    /// still to send, as long as memory is plenty; when it grows short they read back from the log.
    fn retire(&mut self) {
        let (role, base, used, capacity, replaying) = {
            let o = self.group.order.lock();
            let w = &o.engine.window;
            (
                o.engine.role(),
                w.base(),
                w.head().since(w.base()),
                w.capacity(),
                o.engine.is_replaying(),
            )
        };
        let (pages, max) = (self.group.pool.in_use(), self.group.pool.max());
        let keep_from = match role {
            Role::Secondary => Seq(u64::MAX),
            Role::Primary if replaying => Seq(u64::MAX),
            Role::Primary if used > capacity / 2 || pages > max / 2 => {
                self.group.keep_from().max(base.plus(1 + used / 4))
            }
            Role::Primary if used > capacity / 16 || pages > max / 16 => self.group.keep_from(),
            Role::Primary => return,
        };
        self.group.order.lock().retire(keep_from);
    }
}

/// Collects the records and payload references of a batch. Under the order lock; allocates nothing.
fn gather(o: &crate::group::order::Order, plan: &Plan, io: &mut BatchIo) {
    io.records.clear();
    io.payloads.clear();
    let mut seq = plan.first;
    while seq <= plan.last {
        if let Some(slot) = o.engine.window.get(seq) {
            // Cannot fail: both vectors were made for a largest batch.
            let _ = io.records.push(slot.record, GFP_NOWAIT);
            if let Some(p) = o.payload(seq) {
                let _ = io.payloads.push(p, GFP_NOWAIT);
            }
        }
        seq = seq.next();
    }
}

fn sectors_to_bytes(sectors: u64) -> usize {
    Bytes(sectors.saturating_mul(SECTOR_BYTES)).0 as usize
}
