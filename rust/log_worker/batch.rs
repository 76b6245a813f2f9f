// SPDX-License-Identifier: GPL-2.0

//! Log writes: what the core plans becomes I/O.
//!
//! The descriptor, the payloads as they lie in the pool, and the padding to the block go out in one write. Nothing is
//! allocated: what a log write needs was made beforehand, four times, so a write that has a seq always gets logged.
//!
//! Whoever gives the order something to log starts it: a writer in `map()`, without waiting for a thread (the
//! block layer submits it when `map()` returns), or the log worker when writes ended and others had gathered
//! meanwhile. What is planned under the order lock is submitted outside it, so two log writes may reach the device in
//! either order; the core's written prefix does not mind.
//!
//! Process context; never sleeps. What ends comes back to the log worker alone.

use super::{Kind, MAX_SEGMENTS};
use crate::group::{inner::Inner, Group};
use kernel::{prelude::*, sync::Arc};
use replicate_core::{
    log::{
        batch::{descriptor_bytes, Builder, Run},
        format::MAX_BATCH_RECORDS,
        writer::{Plan, MAX_IN_FLIGHT},
    },
    node::Log,
    units::{Bytes, EpochId, Record},
};
use replicate_linux::{
    bio::{CompletionQueue, Flags, IoUnit, Segment},
    event::Event,
    pages::{PageBuf, PagePool, SharedBuf},
};

/// Everything that one log write needs beside its bios.
pub(crate) struct BatchIo {
    descriptor: PageBuf,
    bytes: KVVec<u8>,
    payloads: KVec<SharedBuf>,
    records: KVec<Record>,
}

impl BatchIo {
    fn new(pool: &Arc<PagePool>, block: u32) -> Result<KBox<BatchIo>> {
        let descriptor = descriptor_bytes(MAX_BATCH_RECORDS, block) as usize;
        let io = BatchIo {
            descriptor: pool.try_take(descriptor).ok_or(ENOMEM)?,
            bytes: crate::srl::zeroed(descriptor)?,
            payloads: KVec::with_capacity(MAX_BATCH_RECORDS as usize, GFP_KERNEL)?,
            records: KVec::with_capacity(MAX_BATCH_RECORDS as usize, GFP_KERNEL)?,
        };
        Ok(KBox::new(io, GFP_KERNEL)?)
    }

    /// The write ended: its payloads may go.
    pub(super) fn clear(&mut self) {
        self.payloads.clear();
    }
}

/// A log write that waits to be used.
pub(crate) type FreeBatch = (IoUnit<Kind>, KBox<BatchIo>);

/// As many log writes as may be in flight. May sleep.
pub(crate) fn free_batches(pool: &Arc<PagePool>, block: u32) -> Result<KVec<FreeBatch>> {
    let mut free = KVec::with_capacity(MAX_IN_FLIGHT, GFP_KERNEL)?;
    for _ in 0..MAX_IN_FLIGHT {
        let one = (IoUnit::new(MAX_SEGMENTS)?, BatchIo::new(pool, block)?);
        free.push(one, GFP_KERNEL)?;
    }
    Ok(free)
}

/// What all log writes of a group share.
pub(crate) struct LogIo {
    /// Where log writes and flushes come back; it wakes the log worker.
    pub(super) queue: CompletionQueue<Kind>,
    pad: PageBuf,
}

impl LogIo {
    /// For a log of `block`-byte blocks. May sleep.
    pub(crate) fn new(pool: &Arc<PagePool>, block: u32, wake: Arc<Event>) -> Result<LogIo> {
        let mut pad = pool.try_take(block as usize).ok_or(ENOMEM)?;
        pad.zero_range(0, block as usize)?;
        Ok(LogIo {
            queue: CompletionQueue::new(wake)?,
            pad,
        })
    }
}

/// A log write that was planned.
struct Batch {
    plan: Plan,
    offset: Bytes,
    lap: u64,
    epoch: (EpochId, u32),
    unit: IoUnit<Kind>,
    io: KBox<BatchIo>,
}

impl Group {
    /// Starts log writes as the core asks for them. No lock may be held.
    pub(crate) fn start_batches(&self) {
        while let Some(batch) = self.next_batch() {
            let (id, first, last) = (batch.plan.id, batch.plan.first, batch.plan.last);
            if let Err(e) = self.write_batch(batch) {
                let mut inner = self.inner.lock();
                inner.node.batch_done(id, false);
                inner.unbuilt = Some((first, last, e));
                drop(inner);
                // It may sleep, and says it.
                self.log_wake.notify();
                return;
            }
        }
    }

    fn next_batch(&self) -> Option<Batch> {
        let mut guard = self.inner.lock();
        let inner = &mut **guard;
        let (unit, mut io) = inner.free_batches.pop()?;
        let Some(plan) = inner.node.plan_batch(&inner.epochs) else {
            inner.free_batch((unit, io));
            return None;
        };
        gather(inner, &plan, &mut io);
        let (offset, lap) = match &inner.node.log {
            Log::Ring(w) => (w.ring.offset(plan.place), w.ring.lap(plan.place)),
            // It plans nothing.
            Log::NoRing(_) => (Bytes(0), 0),
        };
        Some(Batch {
            offset,
            lap,
            epoch: inner.epochs.at(plan.first),
            plan,
            unit,
            io,
        })
    }

    fn write_batch(&self, batch: Batch) -> Result {
        let Batch {
            plan,
            offset,
            lap,
            epoch: (epoch, epoch_index),
            unit,
            mut io,
        } = batch;
        let run = Run {
            group: self.identity().uuid,
            epoch,
            epoch_index,
            first_seq: plan.first,
            chain: plan.chain,
            block: self.srl.block(),
        };
        let BatchIo {
            descriptor: page,
            bytes,
            records,
            ..
        } = &mut *io;
        let mut builder = Builder::new(bytes, run).map_err(|_| EINVAL)?;
        for r in records.iter() {
            builder.push(r).map_err(|_| EINVAL)?;
        }
        let built = builder
            .finish(offset, lap, plan.durable)
            .map_err(|_| EINVAL)?;
        let descriptor = built.descriptor as usize;
        if built.head.length != plan.length {
            return Err(EINVAL);
        }
        page.write_at(0, bytes.get(..descriptor).ok_or(EINVAL)?)?;
        let payload: usize = io.payloads.iter().map(|p| p.len()).sum();
        let pad = (plan.length.0 as usize).saturating_sub(descriptor + payload);
        let flags = if plan.fua { Flags::FUA } else { Flags::NONE };
        self.stats.batches.add(1);
        self.stats.log_bytes.add(plan.length.0);
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
            buf: &self.log_io.pad,
            offset: 0,
            len: pad,
        });
        let all = Iterator::chain(Iterator::chain(core::iter::once(head), body), tail);
        unit.load(self.srl.dev(), all).write(
            self.srl.dev(),
            self.srl.ring_sector(offset),
            flags,
            plan.id as u64,
            Kind::Batch(io),
            &self.log_io.queue,
        );
        Ok(())
    }
}

/// Collects the records and payload references of a batch. Under the order lock; allocates nothing.
fn gather(inner: &Inner, plan: &Plan, io: &mut BatchIo) {
    io.records.clear();
    io.payloads.clear();
    let mut seq = plan.first;
    while seq <= plan.last {
        if let Some(slot) = inner.node.window.get(seq) {
            // Cannot fail: both vectors were made for a largest batch.
            let _ = io.records.push(slot.record, GFP_NOWAIT);
            if let Some(p) = inner.payload(seq) {
                let _ = io.payloads.push(p, GFP_NOWAIT);
            }
        }
        seq = seq.next();
    }
}
