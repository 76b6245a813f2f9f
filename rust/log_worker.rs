// SPDX-License-Identifier: GPL-2.0

//! The log worker: one thread per group that takes what ended, and completes what waited for it.
//!
//! Each turn: take what ended, continue bios that had to wait, start log writes and flushes that the
//! core asks for, complete what may complete. It never waits for a device or a peer: I/O comes back
//! through a lock-free queue that bio end_io fills, and everything that wakes it goes through one event.
//! Most log writes are started by the writers themselves: see [`batch`].
//!
//! Locks: the order lock, for each step on its own. Failure: the first failed log write or flush closes
//! the group ([`Group::fail`]).

pub(crate) mod batch;
mod deferred;
mod flush;
mod overlay;

use crate::{
    group::{inner::Phase, Group},
    refuse::Refusal,
};
use kernel::{
    prelude::*,
    sync::{atomic::Relaxed, Arc},
};
use replicate_core::{log::format::MAX_BATCH_RECORDS, node::Role, units::Seq};
use replicate_linux::{
    bio::{Done, IoUnit},
    clock,
    dm::BioQueue,
    gfp::ReclaimWaits,
    kthread::StopToken,
    pages::SharedBuf,
};

/// Page fragments of a largest batch: 2 MiB in pages, descriptor, and two more per record.
const MAX_SEGMENTS: usize = 512 + 17 + 2 * MAX_BATCH_RECORDS as usize;

/// How often bios that wait for pages look whether there are some.
const PAGES_MS: u32 = 5;
/// Records whose memory is given back under one hold of the order lock.
const RETIRE: usize = 128;

/// What comes back from the device.
pub(crate) enum Kind {
    /// A log write, with what it was made of.
    Batch(KBox<batch::BatchIo>),
    /// A log flush.
    Flush,
}

/// The worker's own things.
pub(crate) struct LogWorker {
    group: Arc<Group>,
    reads: BioQueue,
    flush: Option<IoUnit<Kind>>,
    /// Payloads on their way back to the pool.
    retired: KVec<SharedBuf>,
    /// A bio that waits found no pages in this turn.
    short_of_pages: bool,
}

impl LogWorker {
    /// Makes a worker for `group`. May sleep.
    pub(crate) fn new(group: Arc<Group>) -> Result<LogWorker> {
        Ok(LogWorker {
            reads: BioQueue::new(group.log_wake.clone())?,
            flush: Some(IoUnit::new(1)?),
            retired: KVec::with_capacity(RETIRE, GFP_KERNEL)?,
            short_of_pages: false,
            group,
        })
    }

    /// The thread's body.
    pub(crate) fn run(mut self, stop: &StopToken) {
        while !stop.should_stop() {
            let reclaim = ReclaimWaits::enter();
            self.ended();
            self.overlay_ended();
            self.waiting();
            self.group.start_batches();
            self.unbuilt();
            self.flush();
            let _ = self.group.release();
            self.retire();
            let ms = self.sleep_ms();
            drop(reclaim);
            self.group.log_wake.wait(ms);
        }
        // Whatever is in flight comes back before the queues go.
        loop {
            let n = self.group.log_io.queue.in_flight();
            self.ended();
            if n == 0 {
                break;
            }
            let queue = &self.group.log_io.queue;
            self.group
                .log_wake
                .wait_until_always(10, || queue.in_flight() < n);
        }
    }

    /// How long until something is due without a wake-up.
    fn sleep_ms(&self) -> u32 {
        let mut inner = self.group.inner.lock();
        if let Phase::Holding { .. } = inner.phase {
            return 50;
        }
        let ms = self.group.settings.commit_interval_ms.load(Relaxed).max(1);
        inner.send_gathered(u64::from(ms) * 1_000_000);
        if self.short_of_pages {
            // Nobody calls when a socket lets go of pages, or the system has some again.
            return PAGES_MS;
        }
        if inner.uncommitted_since != 0 || inner.gathering_since != 0 {
            return ms;
        }
        1000
    }

    /// Takes log writes and flushes that ended.
    fn ended(&mut self) {
        let mut any = false;
        let before = self.group.inner.lock().node.commit();
        let mut commit = before;
        for done in self.group.log_io.queue.pop_all() {
            any = true;
            let Done {
                unit,
                status,
                tag,
                keep,
                ..
            } = done;
            let ok = status.is_ok();
            let what = match keep {
                Kind::Batch(mut io) => {
                    io.clear();
                    let mut inner = self.group.inner.lock();
                    inner.free_batch((unit, io));
                    inner.node.batch_done(tag as usize, ok);
                    commit = inner.node.commit();
                    "write"
                }
                Kind::Flush => {
                    self.flush = Some(unit);
                    let mut inner = self.group.inner.lock();
                    inner.node.flush_done(ok);
                    commit = inner.node.commit();
                    // Also what is still being written: its flush is yet to come.
                    let behind = inner.node.commit() < inner.node.head();
                    inner.uncommitted_bytes = 0;
                    inner.uncommitted_since = if behind { clock::monotonic_ns() } else { 0 };
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
        }
        if commit > before {
            // What links tell and the applier may write is bounded by it.
            self.group.inner.lock().commit_moved();
            self.group.apply_wake.notify();
        }
        if any {
            self.group.moved.notify();
        }
    }

    /// A log write could not even be built: the log has failed.
    fn unbuilt(&self) {
        let Some((first, last, e)) = self.group.inner.lock().unbuilt.take() else {
            return;
        };
        self.group.fail(Refusal::new(
            e,
            format_args!(
                "SRL {}: log batch of records {first}..{last} could not be built (error {}); writes end in EIO; remove and add the group again",
                self.group.srl.path().to_str().unwrap_or("?"),
                e.to_errno()
            ),
        ));
    }

    /// Gives memory back. A secondary keeps nothing that is applied, and while it applies nothing, or comes up from that,
    /// no more than a quarter of its memory: the rest is for what comes. A primary keeps what its senders have
    /// still to send, as long as memory is plenty; when it grows short they read back from the log.
    fn retire(&mut self) {
        let (role, base, used, capacity, replaying) = {
            let inner = self.group.inner.lock();
            let w = &inner.node.window;
            (
                inner.node.role(),
                w.base(),
                w.head().since(w.base()),
                w.capacity(),
                inner.node.is_replaying(),
            )
        };
        let (pages, max) = (self.group.pool.in_use(), self.group.pool.max());
        // The system may run out of memory long before the pool reaches its maximum.
        let mut short = self.group.pool.take_short();
        let keep_from = match role {
            Role::Secondary => {
                short |= used > capacity / 4 || pages > max / 4;
                Seq(u64::MAX)
            }
            Role::Primary if replaying => Seq(u64::MAX),
            Role::Primary if short || used > capacity / 2 || pages > max / 2 => {
                self.group.keep_from().max(base.plus(2 + used / 4))
            }
            Role::Primary if used > capacity / 16 || pages > max / 16 => self.group.keep_from(),
            Role::Primary => return,
        };
        loop {
            let more = {
                let mut inner = self.group.inner.lock();
                inner.retire(keep_from, short, &mut self.retired)
            };
            self.retired.clear();
            if !more {
                break;
            }
        }
        let inner = self.group.inner.lock();
        if inner.node.window.base() == base {
            return;
        }
        if role == Role::Secondary && short {
            // Sessions have credit to give.
            inner.wake_links();
        }
        if inner.attached.iter().any(|l| !l.deferred.is_empty()) {
            // There is room again for what waits.
            self.group.log_wake.notify();
        }
    }
}
