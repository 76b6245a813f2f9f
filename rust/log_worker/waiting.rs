// SPDX-License-Identifier: GPL-2.0

//! Bios that had to wait: continued here in order, as far as they can go now.

use super::LogWorker;
use crate::{
    event::{self, Code, Severity},
    group::order::{Order, Phase, Taken},
    volume::{State, Volume},
};
use kernel::sync::Arc;
use replicate_linux::{
    clock,
    dm::{BioOp, MappedBio},
    errno::BlkStatus,
};

impl LogWorker {
    /// Continues the bios that had to wait, in order, as far as they can go now.
    pub(super) fn waiting(&mut self) {
        self.end_holding();
        let n = self.group.order.lock().lanes.len();
        for i in 0..n {
            loop {
                let next = {
                    let mut o = self.group.order.lock();
                    let Some(volume) = o.lanes.get(i).map(|l| l.volume.clone()) else {
                        break;
                    };
                    let open = o.is_open(&volume);
                    let failed = volume.state() == State::Failed || o.phase == Phase::Failed;
                    let pass = o.phase == Phase::Unlogged && volume.state() == State::Active;
                    if !(open || failed || pass) {
                        break;
                    }
                    match o.lanes.get_mut(i).and_then(|l| l.parked.pop()) {
                        Some(bio) if failed => {
                            // At once: no page may ever come free again for its copy.
                            drop(o);
                            bio.end(BlkStatus::IOERR);
                            continue;
                        }
                        Some(bio) => (volume, bio, pass),
                        None => break,
                    }
                };
                if !self.continue_bio(next) {
                    break;
                }
            }
            while self.continue_read(i) {}
        }
    }

    fn continue_bio(&self, (volume, bio, pass): (Arc<Volume>, MappedBio, bool)) -> bool {
        if pass {
            let sector = bio.sector();
            bio.submit_to(&volume.data, sector);
            return true;
        }
        if bio.bytes() == 0 || bio.op() == BioOp::Flush {
            return self.settle(&volume, |o, bio| o.flush(bio), bio);
        }
        let Some(payload) = self.group.copy(&bio) else {
            self.unpop(&volume, bio);
            return false;
        };
        self.settle(&volume, |o, bio| o.admit(&volume, bio, payload), bio)
    }

    fn settle(
        &self,
        volume: &Volume,
        f: impl FnOnce(&mut Order, MappedBio) -> Taken,
        bio: MappedBio,
    ) -> bool {
        let bytes = bio.bytes();
        let taken = {
            let mut o = self.group.order.lock();
            f(&mut o, bio)
        };
        match taken {
            Taken::Admitted => {
                self.group.stats.writes.add(u64::from(bytes > 0));
                self.group.stats.bytes.add(bytes as u64);
                true
            }
            Taken::End(bio, status) => {
                bio.end(status);
                true
            }
            Taken::NotNow(bio) => {
                self.unpop(volume, bio);
                false
            }
        }
    }

    /// Puts a bio back in front of its list.
    fn unpop(&self, volume: &Volume, bio: MappedBio) {
        let mut o = self.group.order.lock();
        match o.lane(volume) {
            Some(lane) => {
                let mut rest = core::mem::take(&mut lane.parked);
                lane.parked.push(bio);
                lane.parked.append(&mut rest);
                if o.wants_space {
                    drop(o);
                    self.group.apply_wake.notify();
                }
            }
            None => {
                drop(o);
                bio.end(BlkStatus::IOERR);
            }
        }
    }

    /// A starting primary's wait for its links is over.
    fn end_holding(&self) {
        let until = match self.group.order.lock().phase {
            Phase::Holding { until_ns } => until_ns,
            Phase::Active | Phase::TakingOver | Phase::Unlogged | Phase::Failed | Phase::Gone => {
                return
            }
        };
        if clock::monotonic_ns() >= until || self.group.links_answered() {
            let mut o = self.group.order.lock();
            let Phase::Holding { .. } = o.phase else {
                return;
            };
            o.phase = Phase::Active;
            drop(o);
            event::group(
                &self.group,
                Code::GroupState,
                Severity::Info,
                "active: the links have answered, or start-wait has passed",
            );
        }
    }
}
