// SPDX-License-Identifier: GPL-2.0

//! Recovery: which part of the ring is to be believed.
//!
//! The scan starts at the tail and accepts, at each place, only the batch that must be there: the
//! expected seq, in the epoch that the lineage gives it, at its own place, with the right chain. Where
//! that fails it tries the start of the next lap once, because a batch that did not fit before the
//! end of the ring went there. Where that fails too, the log ends.
//!
//! *An end is torn or it is damage.* Up to four log writes were in flight, so valid batches may lie
//! beyond a torn one: they are cut with it. But nothing that was proven durable may be missing: the
//! superblock's commit position, or a later batch that states a durable seq at or beyond the missing
//! record, makes it corruption. Then the scan says so and the caller stops; records are never skipped.
//!
//! The caller reads and parses; this machine decides. What the scan accepted is not durable yet: it may
//! live in a cache that survived a reset. So the machine asks for a flush of the log device
//! ([`Want::Flush`]) before it names the end. What follows is the caller's to execute, one by one:
//! **superblock with the new epoch, replay, accept writes**.

use crate::{
    lineage::Lineage,
    log::{
        batch::BatchHead,
        format::MAX_BATCH_BYTES,
        ring::{Place, Ring},
        writer::MAX_IN_FLIGHT,
    },
    units::{Bytes, Chain, EpochId, Seq},
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

/// What a batch must be to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// Where it lies.
    pub place: Place,
    /// Its first seq.
    pub first: Seq,
    /// The epoch of that seq.
    pub epoch: EpochId,
    /// Chain value before it.
    pub chain: Chain,
}

impl Expected {
    /// Whether a batch that parsed well at this place is the one that must be here. Its payloads are still
    /// to be verified.
    pub fn matches(&self, ring: &Ring, head: &BatchHead, epoch: &EpochId) -> bool {
        self.lies_here(ring, head, epoch)
            && head.first_seq == self.first
            && head.chain == self.chain
    }

    /// Whether a batch that parsed well at this place is evidence of what was durable.
    pub fn proves(&self, ring: &Ring, head: &BatchHead, epoch: &EpochId) -> bool {
        self.lies_here(ring, head, epoch) && head.first_seq > self.first
    }

    fn lies_here(&self, ring: &Ring, head: &BatchHead, epoch: &EpochId) -> bool {
        *epoch == self.epoch
            && head.offset == ring.offset(self.place)
            && head.lap == ring.lap(self.place)
    }
}

/// A batch that the caller found and verified in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// First record.
    pub first: Seq,
    /// Last record.
    pub last: Seq,
    /// Length with padding.
    pub length: Bytes,
    /// The commit point when it was written.
    pub durable: Seq,
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
}

/// The epoch of a seq and the last seq of that epoch, as the lineage tells.
pub trait Epochs {
    /// Epoch of `seq` and its last seq (`Seq(u64::MAX)` for the newest one).
    fn epoch_of(&self, seq: Seq) -> (EpochId, Seq);
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
    Next { wrapped: bool },
    Evidence { at: Place, end: Place, lap2: bool },
    Flush(Outcome),
    Done(Outcome),
}

/// The scan. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    ring: Ring,
    place: Place,
    expected: Seq,
    chain: Chain,
    proven: Seq,
    state: State,
}

impl Scan {
    /// A scan of `ring` from its tail, where the record `first` must lie with `chain` before it.
    /// `proven`: the superblock's commit position.
    pub fn new(ring: Ring, first: Seq, chain: Chain, proven: Seq) -> Self {
        Scan {
            place: ring.tail(),
            ring,
            expected: first,
            chain,
            proven,
            state: State::Next { wrapped: false },
        }
    }

    fn looking_at(&self, wrapped: bool) -> Place {
        if wrapped {
            self.ring.next_lap(self.place)
        } else {
            self.place
        }
    }

    /// What to look for now.
    pub fn want(&self, lineage: &impl Epochs) -> Want {
        let (epoch, _) = lineage.epoch_of(self.expected);
        let at = |place| Expected {
            place,
            first: self.expected,
            epoch,
            chain: self.chain,
        };
        match self.state {
            State::Next { wrapped } => Want::Batch(at(self.looking_at(wrapped))),
            State::Evidence { at: place, .. } => Want::Evidence(at(place)),
            State::Flush(_) => Want::Flush,
            State::Done(outcome) => Want::Done(outcome),
        }
    }

    /// The batch wanted was there. `chain_at(seq)` is the chain value after that record of it.
    pub fn accept(&mut self, found: Found, lineage: &impl Epochs, chain_at: impl Fn(Seq) -> Chain) {
        let State::Next { wrapped } = self.state else {
            return;
        };
        let (_, bound) = lineage.epoch_of(self.expected);
        // A later lineage may have cut this batch in the middle: what lies beyond is disowned.
        let last = found.last.min(bound);
        let place = self.looking_at(wrapped);
        self.place = Place(place.0.saturating_add(found.length.0));
        self.chain = chain_at(last);
        self.expected = last.next();
        self.proven = self.proven.max(found.durable.min(bound));
        self.state = State::Next { wrapped: false };
        // Full circle: everything from tail to tail was live.
        if self.place.0 >= self.ring.tail().0.saturating_add(self.ring.size().0) {
            self.end();
        }
    }

    /// It was not there.
    pub fn reject(&mut self) {
        match self.state {
            State::Next { wrapped: false } if self.ring.offset(self.place).0 != 0 => {
                self.state = State::Next { wrapped: true };
            }
            State::Next { .. } => self.look_for_evidence(),
            State::Evidence { at, end, lap2 } => {
                let next = Place(at.0.saturating_add(u64::from(self.ring.block())));
                if next < end {
                    self.state = State::Evidence {
                        at: next,
                        end,
                        lap2,
                    };
                } else if !lap2 {
                    let start = self.ring.next_lap(self.place);
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
        let (_, bound) = lineage.epoch_of(self.expected);
        if found.first > self.expected && found.first <= bound {
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
        self.state = State::Evidence {
            at: self.place,
            end: self.evidence_end(self.place),
            lap2: self.ring.offset(self.place).0 == 0,
        };
    }

    fn end(&mut self) {
        self.state = if self.proven >= self.expected {
            State::Done(Outcome::Corrupt {
                missing: self.expected,
                proven: self.proven,
                place: self.place,
            })
        } else {
            let end = Outcome::Head {
                head: self.expected.prev(),
                chain: self.chain,
                place: self.place,
            };
            State::Flush(end)
        };
    }
}
