// SPDX-License-Identifier: GPL-2.0

//! Bios that had to wait: continued here in order, as far as they can go now.

use super::LogWorker;
use crate::{
    event::{self, Code, Severity},
    group::inner::{Inner, Phase, Taken},
    volume::Volume,
};
use kernel::sync::Arc;
use replicate_core::node::volumes::State;
use replicate_linux::{
    clock,
    dm::{BioOp, MappedBio},
    errno::BlkStatus,
};

impl LogWorker {
    /// Continues the bios that had to wait, in order, as far as they can go now.
    pub(super) fn waiting(&mut self) {
        self.end_holding();
        self.short_of_pages = false;
        let n = self.group.inner.lock().attached.len();
        for i in 0..n {
            loop {
                let next = {
                    let mut inner = self.group.inner.lock();
                    let Some(volume) = inner.attached.get(i).map(|l| l.volume.clone()) else {
                        break;
                    };
                    let open = inner.is_open(&volume);
                    let failed = volume.state() == State::Failed || inner.phase == Phase::Failed;
                    let pass = inner.phase == Phase::Unlogged && volume.state() == State::Active;
                    if !(open || failed || pass) {
                        break;
                    }
                    match inner.attached.get_mut(i).and_then(|l| l.deferred.pop()) {
                        Some(bio) if failed => {
                            // At once: no page may ever come free again for its copy.
                            drop(inner);
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

    fn continue_bio(&mut self, (volume, bio, pass): (Arc<Volume>, MappedBio, bool)) -> bool {
        if pass {
            let sector = bio.sector();
            bio.submit_to(&volume.data, sector);
            return true;
        }
        if bio.bytes() == 0 || bio.op() == BioOp::Flush {
            return self.dispatch(&volume, |inner, bio| inner.flush(bio), bio);
        }
        let Some(payload) = self.group.copy(&bio) else {
            self.short_of_pages = true;
            self.defer_front(&volume, bio);
            return false;
        };
        self.dispatch(
            &volume,
            |inner, bio| inner.admit(&volume, bio, payload),
            bio,
        )
    }

    fn dispatch(
        &self,
        volume: &Volume,
        f: impl FnOnce(&mut Inner, MappedBio) -> Taken,
        bio: MappedBio,
    ) -> bool {
        let bytes = bio.bytes();
        let taken = {
            let mut inner = self.group.inner.lock();
            f(&mut inner, bio)
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
                self.defer_front(volume, bio);
                false
            }
        }
    }

    /// Puts a bio back in front of its list.
    fn defer_front(&self, volume: &Volume, bio: MappedBio) {
        let (deferred, wants_space) = {
            let mut inner = self.group.inner.lock();
            (inner.defer(volume, bio, true), inner.wants_space)
        };
        match deferred {
            Ok(()) if wants_space => self.group.apply_wake.notify(),
            Ok(()) => {}
            Err((bio, status)) => bio.end(status),
        }
    }

    /// A starting primary's wait for its links is over.
    fn end_holding(&self) {
        let until = match self.group.inner.lock().phase {
            Phase::Holding { until_ns } => until_ns,
            Phase::Active | Phase::TakingOver | Phase::Unlogged | Phase::Failed | Phase::Gone => {
                return
            }
        };
        if clock::monotonic_ns() >= until || self.group.links_answered() {
            let mut inner = self.group.inner.lock();
            if !inner.phase.release(false) {
                return;
            }
            drop(inner);
            event::group(
                &self.group,
                Code::GroupState,
                Severity::Info,
                "active: the links have answered, or start-wait has passed",
            );
        }
    }
}
