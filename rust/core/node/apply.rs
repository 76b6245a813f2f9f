// SPDX-License-Identifier: GPL-2.0

//! Apply rounds: what may go to the data volumes now.
//!
//! A primary applies up to its own commit point. A secondary applies up to the lower of its own and
//! its primary's: what the primary could still lose must not be on the replica (P4). Without a ring
//! the replica's own durability is `depends_on`: a record goes out only when everything that the
//! application had seen complete before it is *flushed* here. Trace Y8 without that: W1(b0) applied,
//! W2(b1, depends on W1) applied, power cut keeps only b1.
//!
//! # Records that are in the log only
//!
//! A replica stands still while one of its volumes is away ([`Node::stands_still`]). It goes on receiving, so what it may
//! not apply would fill its memory, and the primary's writers, of all volumes, would wait although the log has room. So
//! with a ring it drops from memory what is durable in its own log ([`Node::retire`]); `applied` stays where it is, and
//! the window begins above it. What lies between, `(applied, base]`, is applied from the log when the volumes are back:
//! read by the verified reader, [`Apply::Log`], then [`Node::begin_logged`]. As long as the applier has not come up with the
//! window memory goes on being dropped when it is short, so the primary's writers do not wait for that either, until
//! the log is full.
//!
//! Nothing else changes, because nothing else looks at memory for what is not applied:
//!
//! - *Order:* rounds of the log begin after `applied` as those of memory do, and those of memory only begin when `applied`
//!   has reached the window. No two records of a round overlap.
//! - *Crash:* a checkpoint states `applied` or less, so the log keeps what was dropped; a start finds it there as it
//!   finds everything that is not applied. Trace: records 1-9 are received, 1-6 logged and dropped, the power is cut: the scan
//!   finds 1-6 behind the tail. 7-9 were acknowledged as received, and are sent again.
//! - *Limits:* the commit points of this host and of its primary bound a round of the log, too: what was dropped may lie above
//!   the primary's. Trace: 1-6 are dropped, the primary's commit point is 4, it crashes and recovers with 4. Had 5 been applied
//!   from the log, the replica would be ahead for ever.
//! - *A new history* may then cut below what was dropped (never below `applied`): [`Node::truncate`] lets the window begin at the
//!   fork, with the chain value that the scan of the log found there.
//! - *Takeover:* volumes open when all of the log is applied, as after a start. A primary drops nothing that is not
//!   applied: it lays that over reads. A replica's reads see its device only.
//! - *Synchronisation:* nothing is dropped while region copies may come, which are ordered against records in memory.

use super::{applied::Point, Log, Memory, Node, Role};
use crate::{
    record::chain_record,
    units::{Record, Seq},
};

/// Records of one round from the log at most: each is compared with those before it.
const MAX_LOGGED: usize = 32;

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
    /// Memory does not hold what is next: read it from this host's log, and begin a round with [`Node::begin_logged`].
    Log {
        /// First record.
        from: Seq,
        /// Records above this may not be applied now, or are in memory.
        upto: Seq,
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

    /// Whether this replica failed: nothing of what it received is written any more.
    ///
    /// Trace without: the superblock that adopts B's history from 60 on cannot be written, but one of its copies is on the
    /// device. 61 to 100 of the former primary, for which a volume stood still, are applied when the volume is resumed. The
    /// next start finds that copy, cuts the log at 60, and calls volumes consistent that hold 100.
    ///
    /// A primary goes on: what completed is in its log alone, whatever its superblock says.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.role == Role::Secondary && self.has_failed()
    }

    /// What the applier does next, if anything.
    pub fn plan_apply(&mut self) -> Option<Apply> {
        if self.applier.round().is_some() || self.stands_still() || self.is_in_doubt() {
            return None;
        }
        let mut limit = self.apply_limit();
        if self.is_below_window() {
            let from = self.applier.applied().next();
            let upto = limit.min(self.window.base());
            return (from <= upto).then_some(Apply::Log { from, upto });
        }
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

    /// Whether what is to be applied next is not in memory any more, but in the log.
    fn is_below_window(&self) -> bool {
        self.applier.applied() < self.window.base()
    }

    /// Whether memory may give up what is not applied, as far as this host's log holds it durably. See the module. Not for
    /// itself: where no session brings anything, what a start loads from the log stays until the volumes are there.
    pub(super) fn may_drop_unapplied(&self) -> bool {
        self.role == Role::Secondary
            && self.inbound.is_owned()
            && !self.copies.is_syncing()
            && (self.is_below_window() || self.stands_still())
    }

    /// Begins the round that [`Apply::Log`] asked for. `records`: those of the log from there on, in order.
    ///
    /// Returns first and last record of the round, each of which is written to its volume where [`Node::writes`] says so;
    /// [`Node::round_done`] ends it. `None`: nothing may be applied now.
    pub fn begin_logged(
        &mut self,
        records: impl Iterator<Item = Record> + Clone,
    ) -> Option<(Seq, Seq)> {
        let Some(Apply::Log { upto, .. }) = self.plan_apply() else {
            return None;
        };
        let before = self.applier.point();
        let mut last = before;
        for (n, record) in records.clone().take(MAX_LOGGED).enumerate() {
            let mut earlier = records.clone().take(n);
            if record.seq != last.seq.next()
                || record.seq > upto
                || self.copies.block(&record)
                || !self.volumes.knows(&record)
                || earlier.any(|e| e.range.overlaps(&record.range))
            {
                break;
            }
            last = Point {
                seq: record.seq,
                chain: chain_record(last.chain, &record).unwrap_or(last.chain),
            };
            self.volumes.goes_past(&record, before, last.seq);
        }
        self.applier.begin(last)
    }

    /// The round ended: every record of it was written, or its volume has a floor below it by now.
    pub fn round_done(&mut self) {
        self.applier.round_done();
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
