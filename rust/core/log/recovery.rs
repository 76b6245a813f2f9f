// SPDX-License-Identifier: GPL-2.0

//! Recovery: which part of the ring is to be believed.
//!
//! The scan starts at the tail and accepts, at each place, only the batch that must be there (see
//! [`reader`](super::reader)). Where there is none, the log ends.
//!
//! *An end is torn or it is damage.* Up to four log writes were in flight, so valid batches may lie
//! beyond a torn one: they are cut with it. But nothing that was proven durable may be missing: the
//! superblock's commit position, or a later batch that states a durable seq at or beyond the missing
//! record, makes it corruption. Then the scan says so and the caller stops; records are never skipped.
//!
//! *A place that cannot be read* is a place where nothing is: a power cut in the middle of a write may leave such a
//! sector, and a host must start after a power cut. What was proven durable is missed all the same, and named
//! ([`Scan::unreadable_at`]). Only where nothing at all can be read beyond it either, it is the device that fails, and no
//! end of the log is claimed ([`Outcome::Unreadable`]).
//!
//! The caller reads and parses; this machine decides. What the scan accepted is not durable yet: it may
//! live in a cache that survived a reset. So the machine asks for a flush of the log device
//! ([`Want::Flush`]) before it names the end. What follows is the caller's to execute, one by one:
//! **superblock with the new epoch, replay, accept writes**.

use crate::{
    lineage::Lineage,
    log::{
        format::MAX_BATCH_BYTES,
        reader::{Expected, Found, Walk},
        ring::{Mark, Place, Ring},
        writer::MAX_IN_FLIGHT,
    },
    units::{Chain, EpochId, Seq},
};

/// How far beyond the end of the log a later batch is looked for.
pub const EVIDENCE_BYTES: u64 = (MAX_IN_FLIGHT as u64 + 1) * MAX_BATCH_BYTES as u64;

/// What the caller must look for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// The batch that must lie here, header and payloads verified.
    Batch(Expected),
    /// Any valid batch header of the epoch that lies here, of a seq above the expected one.
    Evidence(Expected),
    /// A flush of the log device: what a reset left in its cache becomes durable before anybody believes it.
    Flush,
    /// Nothing more.
    Done(Outcome),
}

/// What the scan says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The log ends after `head`; the next batch goes to `place`.
    Head {
        /// Last record of the log.
        head: Seq,
        /// Chain value after it.
        chain: Chain,
        /// Where the next batch goes.
        place: Place,
    },
    /// A record that was durable is not there any more.
    Corrupt {
        /// The missing record.
        missing: Seq,
        /// What was proven durable.
        proven: Seq,
        /// Where it should lie.
        place: Place,
    },
    /// Nothing can be read from `place` on: the device fails.
    Unreadable {
        /// Where the next batch should lie.
        place: Place,
    },
}

/// The epoch of a seq and the last seq of that epoch, as the lineage tells.
pub trait Epochs {
    /// Epoch of `seq` and its last seq (`Seq(u64::MAX)` for the newest one).
    fn epoch_of(&self, seq: Seq) -> (EpochId, Seq);
}

/// The answer of another, taken under a lock that is not held any more: for the one seq that was asked about.
impl Epochs for (EpochId, Seq) {
    fn epoch_of(&self, _: Seq) -> (EpochId, Seq) {
        *self
    }
}

impl Epochs for Lineage<'_> {
    fn epoch_of(&self, seq: Seq) -> (EpochId, Seq) {
        match self.at(seq) {
            Some(e) => (e.id, self.last_seq_of(&e.id).unwrap_or(Seq(u64::MAX))),
            None if self.is_empty() => (EpochId::NONE, Seq(u64::MAX)),
            None if seq == self.before().last => (self.before().epoch, seq),
            // It is not known any more, and no batch may pass for its.
            None => (EpochId::NONE, self.before().last),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Next,
    Evidence { at: Place, end: Place, lap2: bool },
    Flush(Outcome),
    Done(Outcome),
}

/// The scan. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    ring: Ring,
    walk: Walk,
    proven: Seq,
    /// The place that could not be read, where the log ends.
    unreadable: Option<Place>,
    /// Something could be read beyond the end.
    readable: bool,
    state: State,
}

impl Scan {
    /// A scan of `ring` from its tail, where the record `first` must lie with `chain` before it.
    /// `proven`: the superblock's commit position.
    pub fn new(ring: Ring, first: Seq, chain: Chain, proven: Seq) -> Self {
        Scan {
            walk: Walk::at(Mark {
                first,
                place: ring.tail(),
                chain,
            }),
            ring,
            proven,
            unreadable: None,
            readable: false,
            state: State::Next,
        }
    }

    /// What to look for now.
    pub fn want(&self, lineage: &impl Epochs) -> Want {
        let expected = self.walk.expected(&self.ring, lineage);
        match self.state {
            State::Next => Want::Batch(expected),
            State::Evidence { at, .. } => Want::Evidence(Expected {
                place: at,
                ..expected
            }),
            State::Flush(_) => Want::Flush,
            State::Done(outcome) => Want::Done(outcome),
        }
    }

    /// The batch wanted was there. `chain_at(seq)`: chain value after that record of it.
    pub fn accept(&mut self, found: Found, lineage: &impl Epochs, chain_at: impl Fn(Seq) -> Chain) {
        if self.state != State::Next {
            return;
        }
        let last = self.walk.found(&found, &self.ring, lineage, chain_at);
        self.proven = self.proven.max(found.durable.min(last));
        self.unreadable = None;
        // Full circle: everything from tail to tail was live.
        if self.walk.place().0 >= self.ring.tail().0.saturating_add(self.ring.size().0) {
            self.end();
        }
    }

    /// It was not there.
    pub fn reject(&mut self) {
        if let State::Evidence { .. } = self.state {
            self.readable = true;
        }
        self.go_on();
    }

    /// The device could not read what was wanted.
    pub fn unreadable(&mut self) {
        if self.state == State::Next && self.unreadable.is_none() {
            self.unreadable = Some(self.walk.place());
        }
        self.go_on();
    }

    /// The place at the end of the log that could not be read, if there is one.
    pub fn unreadable_at(&self) -> Option<Place> {
        self.unreadable
    }

    fn go_on(&mut self) {
        match self.state {
            State::Next => {
                if !self.walk.absent(&self.ring) {
                    self.look_for_evidence();
                }
            }
            State::Evidence { at, end, lap2 } => {
                let next = Place(at.0.saturating_add(u64::from(self.ring.block())));
                if next < end {
                    self.state = State::Evidence {
                        at: next,
                        end,
                        lap2,
                    };
                } else if !lap2 {
                    let start = self.ring.next_lap(self.walk.place());
                    self.state = State::Evidence {
                        at: start,
                        end: self.evidence_end(start),
                        lap2: true,
                    };
                } else {
                    self.end();
                }
            }
            State::Flush(_) | State::Done(_) => {}
        }
    }

    /// A later batch is there; it states what was durable when it was written.
    pub fn evidence(&mut self, found: Found, lineage: &impl Epochs) {
        let (_, bound) = lineage.epoch_of(self.walk.first());
        if found.first > self.walk.first() && found.first <= bound {
            self.proven = self.proven.max(found.durable);
        }
        self.reject();
    }

    /// The log device was flushed as [`Want::Flush`] asked.
    pub fn flushed(&mut self) {
        if let State::Flush(outcome) = self.state {
            self.state = State::Done(outcome);
        }
    }

    fn evidence_end(&self, from: Place) -> Place {
        let far = from
            .0
            .saturating_add(EVIDENCE_BYTES.min(self.ring.size().0));
        Place(far.min(self.ring.next_lap(from).0))
    }

    fn look_for_evidence(&mut self) {
        let place = self.walk.place();
        self.state = State::Evidence {
            at: place,
            end: self.evidence_end(place),
            lap2: self.ring.offset(place).0 == 0,
        };
    }

    fn end(&mut self) {
        let (first, place) = (self.walk.first(), self.walk.place());
        self.state = if self.proven >= first {
            State::Done(Outcome::Corrupt {
                missing: first,
                proven: self.proven,
                place,
            })
        } else if self.unreadable.is_some() && !self.readable {
            State::Done(Outcome::Unreadable { place })
        } else {
            let end = Outcome::Head {
                head: first.prev(),
                chain: self.walk.chain(),
                place,
            };
            State::Flush(end)
        };
    }
}
