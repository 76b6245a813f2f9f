// SPDX-License-Identifier: GPL-2.0

//! Reads of what is not on the data volume yet: the read is done, then laid over with what memory holds.
//!
//! The read saw, for each block, some state between its submission and its end. Every record that was
//! unapplied at its submission is laid over it, oldest first, so the result is never older than what was
//! complete then. The pin keeps those records in memory.

use super::LogWorker;
use crate::group::{admission, inner::Pin};
use kernel::prelude::*;
use replicate_core::{
    node::{phase::Read, volumes::State},
    units::{Op, Seq, SECTOR_BYTES},
};
use replicate_linux::{dm::MappedBio, errno::BlkStatus};

impl LogWorker {
    /// Starts one waiting read of entry `i`; `false` when there is none, or not now.
    pub(super) fn continue_read(&self, i: usize) -> bool {
        let mut inner = self.group.inner.lock();
        let Some(volume) = inner.attached.get(i).map(|l| l.volume.clone()) else {
            return false;
        };
        let read = inner.phase.read(volume.state());
        if read == Read::Wait {
            return false;
        }
        let Some(bio) = inner.attached.get_mut(i).and_then(|l| l.reads.pop()) else {
            return false;
        };
        if read == Read::Fail {
            drop(inner);
            bio.end(BlkStatus::IOERR);
            return true;
        }
        let sector = bio.sector();
        let range = admission::range_of(&volume, &bio);
        let overlay = match &range {
            Some(r) => volume.state() != State::Replica && inner.must_overlay(r),
            None => false,
        };
        match range.filter(|_| overlay) {
            None => {
                drop(inner);
                bio.submit_to(&volume.data, sector);
            }
            Some(range) => match inner.pin(range) {
                Some(pin) => {
                    drop(inner);
                    self.group.stats.overlaid_reads.add(1);
                    bio.read_then(&volume.data, sector, pin as u64, &self.reads);
                }
                None => {
                    // The lock was held since it was taken off: the entry is there, and takes it back.
                    if let Some(entry) = inner.attached.get_mut(i) {
                        entry.reads.push_front(bio);
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
    pub(super) fn overlay_ended(&mut self) {
        for (mut bio, status, tag) in self.reads.pop_all() {
            let slot = tag as usize;
            let pin = self
                .group
                .inner
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
            if let Some(p) = self.group.inner.lock().pins.as_mut().get_mut(slot) {
                *p = None;
            }
            bio.end(status);
        }
    }

    fn lay_over(&self, bio: &mut MappedBio, pin: &Pin) -> Result {
        let mut after = Seq::NONE;
        loop {
            let next = self.group.inner.lock().next_overlay(pin, after);
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
}

fn sectors_to_bytes(sectors: u64) -> usize {
    // CAST: at most one extent.
    sectors.saturating_mul(SECTOR_BYTES) as usize
}
