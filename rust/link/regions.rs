// SPDX-License-Identifier: GPL-2.0

//! Reads regions of data volumes for a synchronisation, one at a time, beside everything else that the link's thread
//! does: a slow disk delays no heartbeat and no acknowledgement.

use kernel::{prelude::*, sync::Arc};
use replicate_core::units::MAX_RECORD_BYTES;
use replicate_linux::{
    bdev::BlockDevice,
    bio::{CompletionQueue, IoUnit},
    event::Event,
    pages::{PageBuf, PAGE_BYTES},
};

/// Page ranges of a region.
const REGION_PAGES: usize = MAX_RECORD_BYTES as usize / PAGE_BYTES;

/// See the module. Dropping it waits for the read under way.
#[derive(Default)]
pub(crate) struct Regions {
    unit: Option<IoUnit<()>>,
    queue: Option<CompletionQueue<()>>,
    /// What is in flight, if anything, was read for a session that has ended.
    stale: bool,
}

impl Regions {
    /// The session has ended: what is being read for it is not wanted. Waits for nothing.
    pub(super) fn session_ended(&mut self) {
        self.stale = true;
    }

    /// Whether nothing is being read, and [`Self::read`] may be called. `wake`: notified when the region is there. May
    /// sleep, to allocate once in a session.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn is_ready(&mut self, wake: &Arc<Event>) -> Result<bool> {
        if self.stale {
            if let Some(queue) = &self.queue {
                if queue.in_flight() > 0 {
                    return Ok(false);
                }
                self.unit = queue.pop_all().next().map(|d| d.unit).or(self.unit.take());
            }
            // It wakes a connection that is closed.
            self.queue = None;
            self.stale = false;
        }
        if self.queue.is_none() {
            self.queue = Some(CompletionQueue::new(wake.clone())?);
        }
        if self.unit.is_none() && self.queue.as_ref().is_some_and(|q| q.in_flight() == 0) {
            self.unit = Some(IoUnit::new(REGION_PAGES)?);
        }
        Ok(self.unit.is_some())
    }

    /// Starts to read `bytes` bytes from `sector` on.
    pub(super) fn read(&mut self, dev: &Arc<BlockDevice>, sector: u64, buf: PageBuf, bytes: usize) {
        if let (Some(queue), Some(unit)) = (&self.queue, self.unit.take()) {
            unit.read(dev, sector, buf, bytes, 0, (), queue);
        }
    }

    /// Returns what was read, once it is there.
    pub(super) fn take(&mut self) -> Option<(Result, Option<PageBuf>)> {
        if self.stale {
            return None;
        }
        let done = self.queue.as_ref()?.pop_all().next()?;
        self.unit = Some(done.unit);
        Some((done.status.to_result(), done.buf))
    }
}
