// SPDX-License-Identifier: GPL-2.0

//! How a bio enters the group: from `map()`, and again from the log worker when it had to wait.
//!
//! `map()` never sleeps. Everything that may be short is taken before the order lock: pages for the whole
//! payload, all or nothing, then the one copy of it (the bio's pages may change under us) and its CRC.
//! Under the lock only the seq is given; as its last act the writer starts the log write, if one should start
//! now. What cannot be had is waited for by the log worker: the bio goes on its volume's list, and later writes
//! of that volume queue behind it.

use super::{
    order::{Phase, Taken},
    Group,
};
use crate::volume::{State, Volume};
use kernel::{prelude::*, sync::Arc};
use replicate_core::{
    engine::Role,
    units::{Range, Sector},
};
use replicate_linux::{
    bio::is_plugged,
    dm::{BioList, BioOp, MapOutcome, MappedBio},
    errno::BlkStatus,
    gfp::NoioScope,
    pages::PageBuf,
};

/// The payload of a write, copied and summed.
type Payload = Option<(Arc<PageBuf>, u32)>;

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
            let mut o = self.order.lock();
            if o.phase == Phase::Unlogged && volume.state() == State::Active {
                drop(o);
                let sector = bio.sector();
                return bio.remap(&volume.data, sector);
            }
            if o.engine.role() == Role::Secondary && o.phase != Phase::TakingOver {
                drop(o);
                bio.end(BlkStatus::IOERR);
                return MapOutcome::SUBMITTED;
            }
            let open = o.is_open(volume) && o.engine.has_room(bio.bytes() as u32).is_ok();
            if let Some(lane) = o.lane(volume) {
                if !open || !lane.parked.is_empty() {
                    lane.parked.push(bio);
                    drop(o);
                    self.stats.stalls.add(1);
                    self.log_wake.notify();
                    return MapOutcome::SUBMITTED;
                }
            }
        }
        match self.copy(&bio) {
            Some(payload) => self.enter(volume, bio, payload),
            None => self.park(volume, bio),
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
        // A small object; in a NOIO scope the allocation cannot come back to this device.
        let _noio = NoioScope::enter();
        let buf = Arc::new(buf, GFP_NOWAIT).ok()?;
        Some(Some((buf, crc)))
    }

    fn enter(&self, volume: &Volume, bio: MappedBio, payload: Payload) {
        let bytes = bio.bytes();
        let taken = self.order.lock().admit(volume, bio, payload);
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
            Taken::NotNow(bio) => self.park(volume, bio),
        }
    }

    /// Completes what may complete: published under the order lock, ended outside it, by whoever brought the last
    /// condition about: the log worker, or a link's thread with an acknowledgement. `true`: bios wait for room,
    /// which the log worker may find now. Process context; no lock may be held.
    pub(crate) fn release(&self) -> bool {
        let mut out = BioList::new();
        let waiting = {
            let mut o = self.order.lock();
            while let Some(seq) = o.engine.next_release() {
                if let Some(bio) = o.take_bio(seq) {
                    out.push(bio);
                }
            }
            o.ready_flushes(&mut out);
            o.lanes.iter().any(|l| !l.parked.is_empty())
        };
        while let Some(bio) = out.pop() {
            bio.end(BlkStatus::OK);
        }
        waiting
    }

    /// Puts a bio on its volume's list; the log worker continues it.
    pub(crate) fn park(&self, volume: &Volume, bio: MappedBio) {
        self.stats.stalls.add(1);
        let mut o = self.order.lock();
        match o.lane(volume) {
            Some(lane) => {
                lane.parked.push(bio);
                drop(o);
            }
            None => {
                drop(o);
                bio.end(BlkStatus::IOERR);
            }
        }
        self.log_wake.notify();
    }

    fn map_flush(&self, volume: &Volume, bio: MappedBio) -> MapOutcome {
        let mut o = self.order.lock();
        if o.phase == Phase::Unlogged {
            drop(o);
            let sector = bio.sector();
            return bio.remap(&volume.data, sector);
        }
        if o.engine.role() == Role::Secondary {
            // Nothing was written through this device.
            drop(o);
            bio.end(BlkStatus::OK);
            return MapOutcome::SUBMITTED;
        }
        match o.flush(bio) {
            Taken::End(bio, status) => {
                drop(o);
                bio.end(status);
            }
            Taken::NotNow(bio) => {
                drop(o);
                self.park(volume, bio);
            }
            Taken::Admitted => {
                drop(o);
                self.log_wake.notify();
            }
        }
        MapOutcome::SUBMITTED
    }

    /// A read goes straight to the data device where that holds the latest; else the log worker overlays it.
    fn map_read(&self, volume: &Volume, bio: MappedBio) -> MapOutcome {
        let sector = bio.sector();
        let mut o = self.order.lock();
        match volume.state() {
            State::Failed => {
                drop(o);
                bio.end(BlkStatus::IOERR);
                return MapOutcome::SUBMITTED;
            }
            State::Active | State::Suspended => {
                if let Some(range) = range_of(volume, &bio) {
                    if !o.must_overlay(&range) || o.engine.role() == Role::Secondary {
                        drop(o);
                        return bio.remap(&volume.data, sector);
                    }
                }
            }
            State::Replica => {
                drop(o);
                return bio.remap(&volume.data, sector);
            }
            State::Parked | State::Replaying => {}
        }
        match o.lane(volume) {
            Some(lane) => {
                lane.reads.push(bio);
                drop(o);
                self.log_wake.notify();
            }
            None => {
                drop(o);
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
