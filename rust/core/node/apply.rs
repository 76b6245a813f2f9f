// SPDX-License-Identifier: GPL-2.0

//! Apply rounds: what may go to the data volumes now.
//!
//! A primary applies up to its own commit point. A secondary applies up to the lower of its own and
//! its primary's: what the primary could still lose must not be on the replica (P4). Without a ring
//! the replica's own durability is `depends_on`: a record goes out only when everything that the
//! application had seen complete before it is *flushed* here. Trace Y8 without that: W1(b0) applied,
//! W2(b1, depends on W1) applied, power cut keeps only b1.

use super::{applied::Point, Log, Memory, Node, Role};
use crate::units::{Record, Seq};

/// What the applier must do before it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Apply {
    /// Write these records (but the superseded), in any order, and report [`Node::round_done`].
    Round {
        /// First record.
        first: Seq,
        /// Last record.
        last: Seq,
    },
    /// Without a ring: write a superblock with this horizon, and the redo flag where said, then report
    /// [`Node::horizon_durable`].
    Horizon {
        /// The bound to state.
        horizon: Seq,
        /// A redo begins.
        redo: bool,
    },
    /// Without a ring: take the applier's [point](super::applied::Applier::point), flush the data devices and report
    /// [`Node::data_flushed`]: somebody waits for what was written.
    FlushData,
}

impl<M: Memory> Node<M> {
    /// Highest seq that may be applied by the rules of the role.
    pub fn apply_limit(&self) -> Seq {
        let mut limit = self.window.head();
        if let Log::Ring(w) = &self.log {
            limit = limit.min(w.commit_point());
        }
        if self.role == Role::Secondary {
            limit = limit.min(self.peer_commit);
        }
        if let Some(q) = self.quiesce {
            limit = limit.min(q);
        }
        limit
    }

    /// What the applier does next, if anything.
    pub fn plan_apply(&mut self) -> Option<Apply> {
        if self.applier.round().is_some() || self.stands_still() {
            return None;
        }
        let mut limit = self.apply_limit();
        let mut may_supersede = true;
        let mut needs = Seq::NONE;
        if let Log::NoRing(n) = &mut self.log {
            may_supersede = false;
            if let Some(to) = n.redo {
                // Nothing is redone before all of it is here, and the flag durable.
                if self.window.head() < to || limit < to {
                    return None;
                }
                if !n.redo_durable {
                    return Some(Apply::Horizon {
                        horizon: n.horizon,
                        redo: true,
                    });
                }
                // What lies beyond keeps its order again, so it waits until the redo was declared ended.
                limit = limit.min(to);
            }
            if n.horizon <= self.applier.applied() && limit > n.horizon {
                let step = (self.window.capacity() / 2).max(1);
                return Some(Apply::Horizon {
                    horizon: limit.min(n.horizon.plus(step)),
                    redo: n.redo.is_some(),
                });
            }
            limit = limit.min(n.horizon);
        }
        let in_redo = matches!(&self.log, Log::NoRing(n) if n.redo.is_some());
        let no_ring = matches!(&self.log, Log::NoRing(_)) && self.role == Role::Secondary;
        let base = self.flushed();
        let (copies, volumes) = (&self.copies, &self.volumes);
        let allow = |r: &Record| {
            if copies.block(r) || !volumes.knows(r) {
                return false;
            }
            // A redo was declared: a crash in it makes the replica inconsistent, so order need not be kept inside.
            if no_ring && !in_redo && r.depends_on > base {
                needs = r.depends_on;
                return false;
            }
            true
        };
        if let Some((first, last)) =
            self.applier
                .plan(&mut self.window, limit, may_supersede, allow)
        {
            self.note_missing(first, last);
            return Some(Apply::Round { first, last });
        }
        // Above the clean position no flush helps.
        (needs > Seq::NONE && needs <= self.clean()).then_some(Apply::FlushData)
    }

    /// The round ended: every record of it was written, or its volume has a floor below it by now.
    pub fn round_done(&mut self) {
        let last = self.applier.submitted();
        let chain = self.window.chain_at(last).unwrap_or_default();
        self.applier.round_done(chain);
    }

    /// A superblock with that horizon is durable.
    pub fn horizon_durable(&mut self, horizon: Seq, redo: bool) {
        if let Log::NoRing(n) = &mut self.log {
            n.horizon = n.horizon.max(horizon);
            n.redo_durable = redo && n.redo.is_some();
        }
    }

    /// A flush of all data devices, begun when the applier was at `upto`, completed without a failure.
    pub fn data_flushed(&mut self, upto: Point) {
        self.applier.data_flushed(upto);
    }

    /// Returns up to where all volumes have everything, durably.
    pub fn flushed(&self) -> Seq {
        self.applier.flushed().min(self.clean())
    }

    /// Stops the applier at `seq` (no further than it is now); `None` lets it go on.
    pub fn set_quiesce(&mut self, at: Option<Seq>) -> Seq {
        let stop = self.applier.submitted();
        self.quiesce = at.map(|s| s.max(stop));
        self.quiesce.unwrap_or(stop)
    }
}
