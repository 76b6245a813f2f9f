// SPDX-License-Identifier: GPL-2.0

//! How a bio enters the group: from `map()`, and again from the log worker when it had to wait.
//!
//! `map()` never sleeps. Everything that may be short is taken before the order lock: pages for the whole
//! payload, all or nothing, then the one copy of it (the bio's pages may change under us) and its CRC.
//! Under the lock only the seq is given; as its last act the writer starts the log write, if one should start
//! now. What cannot be had is waited for by the log worker: the bio goes on its volume's list, and later writes
//! of that volume queue behind it.

use super::{
    inner::{Attached, Phase, Taken},
    Group,
};
use crate::volume::Volume;
use replicate_core::{
    node::{phase::Read, volumes::State, Role},
    units::{Range, Sector},
};
use replicate_linux::{
    bio::is_plugged,
    dm::{BioList, BioOp, MapOutcome, MappedBio},
    errno::BlkStatus,
    pages::SharedBuf,
};

/// The payload of a write, copied and summed.
type Payload = Option<(SharedBuf, u32)>;

impl Group {
    /// A bio arrives from device-mapper. Process context; never sleeps.
    pub(crate) fn map(&self, volume: &Volume, bio: MappedBio) -> MapOutcome {
        match bio.op() {
            BioOp::Read => self.map_read(volume, bio),
            BioOp::Flush => self.map_flush(volume, bio),
            BioOp::Write | BioOp::Discard | BioOp::WriteZeroes => self.map_write(volume, bio),
            BioOp::Other => {
                bio.end(BlkStatus::NOTSUPP);
                MapOutcome::SUBMITTED
            }
        }
    }

    fn map_write(&self, volume: &Volume, bio: MappedBio) -> MapOutcome {
        {
            let mut inner = self.inner.lock();
            if inner.phase == Phase::Unlogged && volume.state() == State::Active {
                drop(inner);
                let sector = bio.sector();
                return bio.remap(&volume.data, sector);
            }
            if inner.node.role() == Role::Secondary && inner.phase != Phase::TakingOver {
                drop(inner);
                bio.end(BlkStatus::IOERR);
                return MapOutcome::SUBMITTED;
            }
            let open = inner.is_open(volume) && inner.node.has_room(bio.bytes() as u32).is_ok();
            let waits = |entry: &mut Attached| !open || !entry.deferred.is_empty();
            if inner.entry(volume).is_some_and(waits) {
                drop(inner);
                self.defer(volume, bio);
                return MapOutcome::SUBMITTED;
            }
        }
        match self.copy(&bio) {
            Some(payload) => self.enter(volume, bio, payload),
            None => self.defer(volume, bio),
        }
        MapOutcome::SUBMITTED
    }

    /// Pages, copy and CRC; `None` where memory is short.
    pub(crate) fn copy(&self, bio: &MappedBio) -> Option<Payload> {
        if bio.op() != BioOp::Write {
            return Some(None);
        }
        let mut buf = self.pool.try_take(bio.bytes())?;
        bio.copy_to(&mut buf, 0).ok()?;
        let crc = buf.crc32c(0, 0, bio.bytes()).ok()?;
        Some(Some((buf.share(), crc)))
    }

    fn enter(&self, volume: &Volume, bio: MappedBio, payload: Payload) {
        let bytes = bio.bytes();
        let taken = self.inner.lock().admit(volume, bio, payload);
        match taken {
            Taken::Admitted => {
                self.stats.writes.add(1);
                self.stats.bytes.add(bytes as u64);
                if is_plugged() {
                    // More is to come, and what this task submits would wait for it.
                    self.log_wake.notify();
                } else {
                    self.start_batches();
                }
            }
            Taken::End(bio, status) => bio.end(status),
            Taken::NotNow(bio) => self.defer(volume, bio),
        }
    }

    /// Completes what may complete: published under the order lock, ended outside it, by whoever brought the last
    /// condition about: the log worker, or a link's thread with an acknowledgement. `true`: bios wait for room,
    /// which the log worker may find now. Process context; no lock may be held.
    pub(crate) fn release(&self) -> bool {
        let mut out = BioList::new();
        let waiting = {
            let mut inner = self.inner.lock();
            while let Some(seq) = inner.node.next_release() {
                if let Some(bio) = inner.take_bio(seq) {
                    out.push(bio);
                }
            }
            inner.ready_flushes(&mut out);
            inner.attached.iter().any(|l| !l.deferred.is_empty())
        };
        while let Some(bio) = out.pop() {
            bio.end(BlkStatus::OK);
        }
        waiting
    }

    /// Puts a bio on its volume's list; the log worker continues it.
    pub(crate) fn defer(&self, volume: &Volume, bio: MappedBio) {
        let deferred = self.inner.lock().defer(volume, bio, false);
        match deferred {
            Ok(()) => {
                self.stats.stalls.add(1);
                self.log_wake.notify();
            }
            Err((bio, status)) => bio.end(status),
        }
    }

    fn map_flush(&self, volume: &Volume, bio: MappedBio) -> MapOutcome {
        let mut inner = self.inner.lock();
        if inner.phase == Phase::Unlogged {
            drop(inner);
            let sector = bio.sector();
            return bio.remap(&volume.data, sector);
        }
        if inner.node.role() == Role::Secondary {
            // Nothing was written through this device.
            drop(inner);
            bio.end(BlkStatus::OK);
            return MapOutcome::SUBMITTED;
        }
        match inner.flush(bio) {
            Taken::End(bio, status) => {
                drop(inner);
                bio.end(status);
            }
            Taken::NotNow(bio) => {
                drop(inner);
                self.defer(volume, bio);
            }
            Taken::Admitted => {
                drop(inner);
                self.log_wake.notify();
            }
        }
        MapOutcome::SUBMITTED
    }

    /// A read goes straight to the data device where that holds the latest; else the log worker overlays it.
    fn map_read(&self, volume: &Volume, bio: MappedBio) -> MapOutcome {
        let sector = bio.sector();
        let mut inner = self.inner.lock();
        if inner.phase.read(volume.state()) == Read::Fail {
            drop(inner);
            bio.end(BlkStatus::IOERR);
            return MapOutcome::SUBMITTED;
        }
        match volume.state() {
            State::Active | State::Suspended => {
                if let Some(range) = range_of(volume, &bio) {
                    if !inner.must_overlay(&range) || inner.node.role() == Role::Secondary {
                        drop(inner);
                        return bio.remap(&volume.data, sector);
                    }
                }
            }
            State::Replica => {
                drop(inner);
                return bio.remap(&volume.data, sector);
            }
            // A secondary that has not met its primary yet has no record of this volume: what is on the data device
            // is all that there is. Whoever looks (blkid, when the device appears) need not wait for the peer.
            State::Waiting if volume.id().is_none() && inner.node.role() == Role::Secondary => {
                drop(inner);
                return bio.remap(&volume.data, sector);
            }
            State::Absent | State::Waiting | State::Replaying | State::Failed => {}
        }
        match inner.entry(volume) {
            Some(_) if bio.is_wanted_back() => {
                drop(inner);
                bio.end(BlkStatus::DM_REQUEUE);
            }
            Some(entry) => {
                entry.reads.push(bio);
                drop(inner);
                self.log_wake.notify();
            }
            None => {
                drop(inner);
                bio.end(BlkStatus::IOERR);
            }
        }
        MapOutcome::SUBMITTED
    }
}

/// What a bio covers, in the group's terms.
pub(crate) fn range_of(volume: &Volume, bio: &MappedBio) -> Option<Range> {
    let range = Range {
        volume: volume.id()?,
        sector: Sector(bio.sector()),
        sectors: bio.sectors(),
    };
    range.in_one_extent().then_some(range)
}
