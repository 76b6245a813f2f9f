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

mod batch;
mod overlay;
mod waiting;

use crate::{
    group::{order::Phase, Group},
    refuse::Refusal,
};
use kernel::{
    prelude::*,
    sync::{atomic::Relaxed, Arc},
};
use replicate_core::{
    engine::Role,
    log::{batch::descriptor_bytes, format::MAX_BATCH_RECORDS, writer::MAX_IN_FLIGHT},
    units::{Record, Seq},
};
use replicate_linux::{
    bio::{CompletionQueue, Done, IoUnit},
    clock,
    dm::{BioList, BioQueue},
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
            return self.group.settings.commit_interval_ms.load(Relaxed).max(1);
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
                    // Also what is still being written: its flush is yet to come.
                    let behind = o.engine.commit() < o.engine.head();
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
