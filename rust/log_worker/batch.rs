// SPDX-License-Identifier: GPL-2.0

//! Log writes and log flushes: what the core plans becomes I/O.
//!
//! The descriptor, the payloads as they lie in the pool, and the padding to the block go out in one write. Nothing is
//! allocated: a write that has a seq always gets logged.

use super::{BatchIo, Kind, LogWorker};
use crate::refuse::Refusal;
use kernel::{prelude::*, sync::atomic::Relaxed};
use replicate_core::{
    engine::{Log, Role},
    group::Mode,
    log::{
        batch::{Builder, Run},
        writer::Plan,
    },
};
use replicate_linux::{
    bio::{Flags, Segment},
    clock,
};

impl LogWorker {
    /// Starts log writes as the core asks for them.
    pub(super) fn batches(&mut self) {
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
            let Log::Ring(w) = &o.engine.log else {
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
    pub(super) fn flush(&mut self) {
        let Some(unit) = self.flush.take() else {
            return;
        };
        let wanted = {
            let mut o = self.group.order.lock();
            o.engine.demand_fua();
            let age = clock::monotonic_ns().saturating_sub(o.uncommitted_since);
            let s = &self.group.settings;
            let interval = u64::from(s.commit_interval_ms.load(Relaxed)) * 1_000_000;
            let due = o.uncommitted_since != 0 && age >= interval
                || o.uncommitted_bytes >= s.commit_bytes.load(Relaxed)
                || o.wants_space
                || o.engine
                    .positions
                    .iter()
                    .any(|(_, l)| l.in_sync && l.mode == Mode::Applied)
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
