// SPDX-License-Identifier: GPL-2.0

//! Reads regions of data volumes for a synchronisation, one at a time, beside everything else that the link's thread
//! does: a slow disk delays no heartbeat and no acknowledgement.
//!
//! That a read takes time is what the rules of region copies are for (`replicate_core::session::resync`): it starts when the
//! volume has all that was sent (R1), nothing is sent while it runs (R2), and the commit point is looked at when it has ended
//! (R4). The explorer's run *resync: slow reads* has it end at any time. What was read for a session that has ended is dropped:
//! the next one plans anew.

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

    /// Returns the right to start a read; `None` while one of a former session has not ended. `wake`: notified when what is
    /// read is there. May sleep, to allocate once in a session.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn ready(&mut self, wake: &Arc<Event>) -> Result<Option<Idle<'_>>> {
        if self.stale {
            if let Some(queue) = &self.queue {
                if queue.in_flight() > 0 {
                    return Ok(None);
                }
                self.unit = queue.pop_all().next().map(|d| d.unit).or(self.unit.take());
            }
            // It wakes a connection that is closed.
            self.queue = None;
            self.stale = false;
        }
        let queue = match self.queue.take() {
            Some(queue) => queue,
            None => CompletionQueue::new(wake.clone())?,
        };
        let queue = self.queue.insert(queue);
        let unit = match self.unit.take() {
            Some(unit) => unit,
            None if queue.in_flight() > 0 => return Ok(None),
            None => IoUnit::new(REGION_PAGES)?,
        };
        Ok(Some(Idle { unit, queue }))
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

/// Nothing is being read.
pub(super) struct Idle<'a> {
    unit: IoUnit<()>,
    queue: &'a CompletionQueue<()>,
}

impl Idle<'_> {
    /// Starts to read `bytes` bytes from `sector` on.
    pub(super) fn read(self, dev: &Arc<BlockDevice>, sector: u64, buf: PageBuf, bytes: usize) {
        self.unit.read(dev, sector, buf, bytes, 0, (), self.queue);
    }
}
