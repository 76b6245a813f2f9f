// SPDX-License-Identifier: GPL-2.0

//! The applier: one thread per group for everything below the commit point.
//!
//! Each turn: load records for replay, write one round to the data volumes (of records in memory, or in the log), write
//! region copies whose turn has come, checkpoint when due. It waits for its own I/O, which nobody else does, so it is also the only
//! one that writes superblocks while the group runs (commands that must write one pause it first).
//!
//! Which volumes a round writes to, which are brought up from the log, and what a failed device means for them is
//! decided by the node ([`replicate_core::node::volumes`]).
//!
//! Locks: the order lock for each step; the superblock mutex while it writes one.

pub(crate) mod checkpoint;
pub(crate) mod pause;
pub(crate) mod replay;

use crate::{
    event::{self, Code, Severity},
    group::Group,
    reason::Reason,
    srl::cursor::Cursor,
    volume::Volume,
};
use kernel::{prelude::*, sync::Arc};
use replicate_core::{
    node::{apply::Apply, volumes::State},
    units::{Op, Record, Seq, MAX_RECORD_BYTES}, //
};
use replicate_linux::{
    bio::{plugged, CompletionQueue, Flags, IoUnit, Segment, SyncIo},
    clock,
    errno::BlkStatus,
    event::Event,
    gfp::ReclaimWaits,
    kthread::StopToken,
    pages::{PageBuf, PagePool},
};

/// Data writes in flight at once.
const DEPTH: usize = 64;
/// A turn is taken at least so often: a checkpoint may be due.
const IDLE_MS: u32 = 200;
/// Pages for data that is read from the log, and for the lists of them.
const RESERVE_PAGES: usize = 128;
/// Page fragments of a largest record.
const MAX_SEGMENTS: usize = 258;

/// What travels with a data write: its volume, for the blame.
struct Target {
    volume: Arc<Volume>,
    record: Record,
}

/// See the module.
pub(crate) struct Applier {
    pub(crate) group: Arc<Group>,
    queue: CompletionQueue<Target>,
    done: Arc<Event>,
    units: KVec<IoUnit<Target>>,
    /// For what is done one at a time: region copies, replay of one volume, zeros that a device cannot make.
    io: SyncIo,
    /// Reads the log for replay, where there is a ring: volumes whose disk fails wait for it, so it is made beforehand.
    loader: Option<Cursor>,
    /// Pages for data that is read from the log, so that small writes of a round go out together. What finds none is written
    /// one at a time, from the buffer of `io`.
    reserve: Arc<PagePool>,
    last_checkpoint_ns: u64,
    /// That the SRL lacks a copy of its superblock has been said.
    told_degraded: bool,
    /// That the log cannot be read back has been said.
    told_unread: bool,
    /// Room for a list of the attached volumes: the applier frees memory, so it asks for none.
    volumes: KVec<Arc<Volume>>,
}

impl Applier {
    /// Makes the applier of `group`. May sleep.
    pub(crate) fn new(group: Arc<Group>) -> Result<Applier> {
        let done = Event::new()?;
        let mut units = KVec::with_capacity(DEPTH, GFP_KERNEL)?;
        for _ in 0..DEPTH {
            units.push(IoUnit::new(MAX_SEGMENTS)?, GFP_KERNEL)?;
        }
        Ok(Applier {
            queue: CompletionQueue::new(done.clone())?,
            done,
            units,
            io: SyncIo::new(MAX_SEGMENTS, MAX_RECORD_BYTES as usize)?,
            loader: match group.srl.ring_bytes() {
                Some(_) => Some(Cursor::new(&group.srl, group.identity().uuid)?),
                None => None,
            },
            last_checkpoint_ns: clock::monotonic_ns(),
            told_degraded: false,
            told_unread: false,
            reserve: match group.srl.ring_bytes() {
                Some(_) => PagePool::new(RESERVE_PAGES, RESERVE_PAGES, None)?,
                None => PagePool::new(0, 0, None)?,
            },
            volumes: Group::room_for_volumes()?,
            group,
        })
    }

    /// The thread's body.
    pub(crate) fn run(mut self, stop: &StopToken) {
        while !stop.should_stop() {
            let group = self.group.clone();
            let reclaim = ReclaimWaits::enter();
            let turn = group.pause.hold();
            let busy = self.turn();
            drop(turn);
            drop(reclaim);
            if !busy {
                self.group.apply_wake.wait(IDLE_MS);
            }
        }
    }

    /// One turn; `true` when there may be more to do at once.
    fn turn(&mut self) -> bool {
        let mut busy = self.open_volumes();
        busy |= self.replay();
        busy |= self.load();
        busy |= self.apply();
        busy |= self.copies();
        busy |= self.checkpoint();
        busy |= self.notes();
        self.tell_degraded();
        if busy {
            self.group.log_wake.notify();
            self.group.wake_links();
            self.group.moved.notify();
        }
        busy
    }

    /// Says once that one copy of the superblock cannot be written, and once that it can again.
    fn tell_degraded(&mut self) {
        let group = &self.group;
        let degraded = group.srl.is_degraded();
        if core::mem::replace(&mut self.told_degraded, degraded) == degraded {
            return;
        }
        if degraded {
            let text = "a copy of the SRL's superblock cannot be written, another that fails may close the log: replace the device";
            event::group(group, Code::SrlDegraded, Severity::Warning, text);
            group.set_reason(Reason::SrlDegraded, text);
        } else {
            let text = "all copies of the SRL's superblock are written again";
            event::group(group, Code::SrlDegraded, Severity::Info, text);
            if group.status.lock().reason == Reason::SrlDegraded {
                group.set_reason(Reason::None, "");
            }
        }
    }

    /// A round of data writes, or what must come before one.
    fn apply(&mut self) -> bool {
        let planned = self.group.inner.lock().node.plan_apply();
        match planned {
            None => false,
            Some(Apply::Round { first, last }) => {
                self.round(first, last);
                self.group.inner.lock().node.round_done();
                true
            }
            Some(Apply::Log { from, .. }) => self.apply_logged(from),
            Some(Apply::Horizon { horizon, redo }) => self.raise_horizon(horizon, redo),
            Some(Apply::FlushData) => {
                let upto = self.group.inner.lock().node.applier.point();
                if self.flush_data() {
                    self.group.inner.lock().node.data_flushed(upto);
                    true
                } else {
                    false
                }
            }
        }
    }

    /// Writes the records `first..=last` that are not superseded, and waits for all of them.
    fn round(&mut self, first: Seq, last: Seq) {
        let mut seq = first;
        while seq <= last {
            // A plug lets the block layer merge neighbours; it is released before anything is waited for.
            let start = seq;
            seq = plugged(|| {
                let mut seq = start;
                while seq <= last && !self.units.is_empty() {
                    if let Some(record) = self.submit(seq) {
                        self.missed(&record);
                    }
                    seq = seq.next();
                }
                seq
            });
            self.reap(seq > last);
        }
    }

    /// A record of the round was not written, through no fault of the device.
    fn missed(&self, record: &Record) {
        let mut inner = self.group.inner.lock();
        inner.node.record_missed(record.range.volume);
        inner.show_states();
    }

    /// Submits one record's data write. Returns the record where that cannot be done, so that it must be replayed.
    fn submit(&mut self, seq: Seq) -> Option<Record> {
        let (record, payload, volume) = {
            let inner = self.group.inner.lock();
            let slot = inner.node.window.get(seq)?;
            if slot.superseded || !inner.node.writes(&slot.record) {
                return None;
            }
            (
                slot.record,
                inner.payload(seq),
                inner.volume(slot.record.range.volume),
            )
        };
        let Some(volume) = volume else {
            return Some(record);
        };
        self.send(record, payload.as_deref(), volume)
    }

    /// Submits the data write of `record`. Returns the record where that cannot be done, so that it must be replayed.
    fn send(
        &mut self,
        record: Record,
        payload: Option<&PageBuf>,
        volume: Arc<Volume>,
    ) -> Option<Record> {
        let Some(unit) = self.units.pop() else {
            return Some(record);
        };
        let seq = record.seq;
        let dev = volume.data.clone();
        let sector = record.range.sector.0;
        let target = Target { volume, record };
        match (record.op, payload) {
            (Op::Write, Some(buf)) => {
                let all = Segment {
                    buf,
                    offset: 0,
                    len: buf.len(),
                };
                unit.write(
                    &dev,
                    sector,
                    Flags::NONE,
                    Some(all),
                    seq.0,
                    target,
                    &self.queue,
                );
            }
            (Op::WriteZeroes, _) => unit.write_zeroes(
                &dev,
                sector,
                u64::from(record.range.sectors),
                record.no_unmap,
                seq.0,
                target,
                &self.queue,
            ),
            (Op::Discard, _) => unit.discard(
                &dev,
                sector,
                u64::from(record.range.sectors),
                seq.0,
                target,
                &self.queue,
            ),
            (Op::Write, None) | (Op::Marker, _) => {
                let _ = self.units.push(unit, GFP_NOWAIT);
                return (record.op != Op::Marker).then_some(record);
            }
        }
        None
    }

    /// Takes ended data writes: at least one, or all that are in flight.
    fn reap(&mut self, all: bool) {
        loop {
            for done in self.queue.pop_all() {
                let _ = self.units.push(done.unit, GFP_NOWAIT);
                self.judge(&done.keep, done.status);
            }
            if self.units.len() == DEPTH || (!all && !self.units.is_empty()) {
                return;
            }
            // Not the queue's count: that is lowered after the notification, which would be missed.
            self.done.wait_until_always(1000, || self.done.take());
        }
    }

    fn judge(&mut self, target: &Target, status: BlkStatus) {
        if status.is_ok() {
            return;
        }
        match target.record.op {
            // What was discarded is undefined: a device that cannot is as right as one that can.
            Op::Discard => return,
            Op::WriteZeroes => {
                let r = &target.record;
                let zeroed = self.io.zeroout(
                    &target.volume.data,
                    r.range.sector.0,
                    u64::from(r.range.sectors),
                    r.no_unmap,
                );
                if zeroed.is_ok() {
                    return;
                }
            }
            Op::Write | Op::Marker => {}
        }
        self.group
            .fail_volume(&target.volume, "write", status.name());
    }

    /// Flushes every data device that rounds write to; a device that fails fails its volume. `true`: none did.
    fn flush_data(&mut self) -> bool {
        self.group.present_in(&mut self.volumes);
        let mut ok = true;
        for volume in self.volumes.iter() {
            let written = volume
                .id()
                .is_some_and(|id| self.group.inner.lock().node.flushes(id));
            ok &= !written || self.group.flush_volume(volume);
        }
        self.volumes.clear();
        ok
    }

    /// Writes region copies whose turn has come.
    fn copies(&mut self) -> bool {
        let next = self.group.inner.lock().node.next_copy();
        let Some(copy) = next else {
            return false;
        };
        let volume = self.group.inner.lock().volume(copy.range.volume);
        let payload = self.group.take_copy(copy.item);
        let (Some(volume), Some((_, payload))) =
            (volume.filter(|v| v.state() != State::Failed), payload)
        else {
            // Never zeros for want of data: the copy does not count, and the next session sends it again.
            self.group.inner.lock().node.copy_abandoned();
            return false;
        };
        let (dev, sector) = (&volume.data, copy.range.sector.0);
        let done = match payload {
            Some(p) => {
                let all = Segment {
                    buf: &p,
                    offset: 0,
                    len: p.len(),
                };
                self.io.write_buf(dev, sector, all, Flags::NONE)
            }
            None => self
                .io
                .zeroout(dev, sector, u64::from(copy.range.sectors), false),
        };
        match done {
            Ok(()) => {
                let mut inner = self.group.inner.lock();
                inner.node.copy_written();
                true
            }
            Err(_) => {
                self.group
                    .fail_volume(&volume, "write of a region copy", "I/O error");
                self.group.inner.lock().node.copy_abandoned();
                false
            }
        }
    }
}
