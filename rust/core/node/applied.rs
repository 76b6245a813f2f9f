// SPDX-License-Identifier: GPL-2.0

//! The applier: data-volume writes in rounds, below the commit point.
//!
//! A round is a run of consecutive records of which no two overlap, so its writes may go to the devices
//! in any order and in parallel; the next round starts when all have ended. Between two rounds the
//! volumes are exactly the state after `applied`: that is where a replica is quiesced.
//!
//! Where the log can replay (a primary, a secondary with a ring) a record that a later one of the same
//! round covers whole is *superseded*: it is not written. A crash in the middle is repaired by the log.
//! Without a ring every record is written.
//!
//! A round is of records in memory, or of records that are in the log only, see [`apply`](super::apply).
//!
//! Whether a volume has what a round went past is said beside it, see [`volumes`](super::volumes).
//!
//! Trace without the overlap rule: W1(b0), W2(b0) in one round; the device takes W2, then W1; b0 = W1 for ever.

use crate::{
    node::{
        window::{Slot, Window},
        Store,
    },
    units::{Chain, Op, Record, Seq},
};

/// Records in one round at most.
pub const MAX_ROUND: u64 = 512;

/// A seq and the chain value after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Point {
    /// The seq.
    pub seq: Seq,
    /// Chain value after it.
    pub chain: Chain,
}

/// How far the rounds are. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Applier {
    applied: Point,
    flushed: Point,
    /// First record and end of the round in progress.
    round: Option<(Seq, Point)>,
}

impl Applier {
    /// An applier whose volumes hold everything up to `at`, durably.
    pub fn new(at: Point) -> Self {
        Applier {
            applied: at,
            flushed: at,
            round: None,
        }
    }

    /// Every record up to here was written to its volume, or superseded, or its volume has a floor below it.
    pub fn applied(&self) -> Seq {
        self.applied.seq
    }

    /// The same, with the chain value.
    pub fn point(&self) -> Point {
        self.applied
    }

    /// Every record up to here is durable on its volume, or its volume has a floor below it.
    pub fn flushed(&self) -> Seq {
        self.flushed.seq
    }

    /// The same, with the chain value.
    pub fn flushed_point(&self) -> Point {
        self.flushed
    }

    /// The round in progress.
    pub fn round(&self) -> Option<(Seq, Seq)> {
        self.round.map(|(first, last)| (first, last.seq))
    }

    /// Everything up to here was at least submitted to the data volumes.
    pub fn submitted(&self) -> Seq {
        self.round.map_or(self.applied, |(_, last)| last).seq
    }

    /// Starts the next round within `(applied, limit]`; `allow` says whether a record may be submitted now.
    ///
    /// Returns first and last seq; the caller writes every record of it that is not superseded.
    pub fn plan<S: Store<Slot>, H: Store<Seq>>(
        &mut self,
        window: &mut Window<S, H>,
        limit: Seq,
        may_supersede: bool,
        mut allow: impl FnMut(&Record) -> bool,
    ) -> Option<(Seq, Seq)> {
        if self.round.is_some() {
            return None;
        }
        let start = self.applied.seq;
        let mut last = start;
        while last < limit && last.since(start) < MAX_ROUND {
            let Some(slot) = window.get(last.next()) else {
                break;
            };
            let record = slot.record;
            if !allow(&record) {
                break;
            }
            if !supersede(window, &record, start, may_supersede) {
                break;
            }
            last = last.next();
        }
        let chain = window.chain_at(last).unwrap_or_default();
        self.begin(Point { seq: last, chain })
    }

    /// Starts a round of the records up to `last`. Returns first and last seq; `None` where that is no record.
    pub(super) fn begin(&mut self, last: Point) -> Option<(Seq, Seq)> {
        let first = self.applied.seq.next();
        if self.round.is_some() || last.seq < first {
            return None;
        }
        self.round = Some((first, last));
        self.round()
    }

    /// The round ended.
    pub fn round_done(&mut self) {
        if let Some((_, last)) = self.round.take() {
            self.applied = last;
        }
    }

    /// A flush of every data device, begun when [`Self::point`] was `upto`, completed, and no device failed meanwhile.
    pub fn data_flushed(&mut self, upto: Point) {
        if upto.seq > self.flushed.seq {
            self.flushed = upto;
        }
    }

    /// The volumes were made equal to `at` by other means (a sync that begins, an adopted position).
    pub fn jump(&mut self, at: Point) {
        *self = Applier::new(at);
    }
}

/// Whether `record` may join the round that began after `start`; marks what it supersedes.
fn supersede<S: Store<Slot>, H: Store<Seq>>(
    window: &mut Window<S, H>,
    record: &Record,
    start: Seq,
    may_supersede: bool,
) -> bool {
    let before = record.seq.prev();
    let mut blocked = false;
    let mut covered = Seq::NONE;
    window.overlapping(&record.range, start, before, |s| {
        if s.superseded {
            return true;
        }
        if may_supersede
            && covered == Seq::NONE
            && record.op != Op::Discard
            && record.range.covers(&s.record.range)
        {
            covered = s.record.seq;
            true
        } else {
            blocked = true;
            false
        }
    });
    if blocked {
        return false;
    }
    if let Some(s) = window.get_mut(covered) {
        s.superseded = true;
    }
    true
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_applier))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::units::{Chain, Range, Sector, VolumeId};

    fn window(ranges: &[(u64, u32)]) -> Window<[Slot; 8], [Seq; 4]> {
        let mut w = Window::new([Slot::default(); 8], [Seq::NONE; 4], Seq(0), Chain(0));
        for (seq, (sector, sectors)) in (1u64..).zip(ranges) {
            w.place(Record {
                seq: Seq(seq),
                range: Range {
                    volume: VolumeId(0),
                    sector: Sector(*sector),
                    sectors: *sectors,
                },
                ..Record::default()
            });
        }
        w
    }

    #[test]
    fn a_round_ends_before_an_overlap() {
        let mut w = window(&[(0, 8), (8, 8), (4, 8), (100, 1)]);
        let mut a = Applier::new(Point::default());
        assert_eq!(
            a.plan(&mut w, Seq(4), true, |_| true),
            Some((Seq(1), Seq(2)))
        );
        assert_eq!(a.plan(&mut w, Seq(4), true, |_| true), None);
        a.round_done();
        assert_eq!(
            a.plan(&mut w, Seq(4), true, |_| true),
            Some((Seq(3), Seq(4)))
        );
    }

    #[test]
    fn a_covered_record_is_superseded_only_where_the_log_can_replay() {
        let mut w = window(&[(0, 8), (0, 8)]);
        let mut a = Applier::new(Point::default());
        assert_eq!(
            a.plan(&mut w, Seq(2), true, |_| true),
            Some((Seq(1), Seq(2)))
        );
        assert_eq!(w.get(Seq(1)).map(|s| s.superseded), Some(true));
        let mut w = window(&[(0, 8), (0, 8)]);
        let mut a = Applier::new(Point::default());
        assert_eq!(
            a.plan(&mut w, Seq(2), false, |_| true),
            Some((Seq(1), Seq(1)))
        );
    }
}
