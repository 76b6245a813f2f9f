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
//! Trace without the overlap rule: W1(b0), W2(b0) in one round; the device takes W2, then W1; b0 = W1 for ever.

use crate::{
    node::{
        window::{Slot, Window},
        Store,
    },
    units::{Op, Record, Seq},
};

/// Records in one round at most.
pub const MAX_ROUND: u64 = 512;

/// How far the data volumes are. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Applier {
    applied: Seq,
    flushed: Seq,
    pinned: Option<Seq>,
    round: Option<(Seq, Seq)>,
}

impl Applier {
    /// An applier whose volumes hold everything up to `applied`, durably.
    pub fn new(applied: Seq) -> Self {
        Applier {
            applied,
            flushed: applied,
            pinned: None,
            round: None,
        }
    }

    /// Every record up to here was written to the data volumes (or superseded, or its volume failed).
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// Every record up to here was flushed there.
    pub fn flushed(&self) -> Seq {
        self.flushed
    }

    /// What a checkpoint may cover: nothing from the first failed data write on, nor what a failed device may have lost.
    pub fn clean(&self) -> Seq {
        match self.pinned {
            Some(p) => self.applied.min(p.prev()),
            None => self.applied,
        }
    }

    /// The round in progress.
    pub fn round(&self) -> Option<(Seq, Seq)> {
        self.round
    }

    /// Everything up to here was at least submitted to the data volumes.
    pub fn submitted(&self) -> Seq {
        self.round.map_or(self.applied, |(_, last)| last)
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
        let start = self.applied;
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
        if last == start {
            return None;
        }
        self.round = Some((start.next(), last));
        self.round
    }

    /// The round ended; `ok`: every write of it succeeded.
    ///
    /// A failure pins the checkpoint before the whole round: a record of it may have been superseded
    /// by the one that failed.
    pub fn round_done(&mut self, ok: bool) {
        if let Some((first, last)) = self.round.take() {
            self.applied = last;
            if !ok {
                self.pinned = Some(self.pinned.map_or(first, |p| p.min(first)));
            }
        }
    }

    /// A data device failed a write or a flush: what was written since the last good flush may be gone, and a later
    /// flush that succeeds does not bring it back.
    ///
    /// Trace without: W1 is in the device's cache, the flush fails and the cache is lost; the next flush has
    /// nothing to do and succeeds; the tail moves past W1, which is nowhere. Or the device loses power: a write fails,
    /// the device comes back, and only that write is made good.
    pub fn device_failed(&mut self) {
        let first = self.flushed.next();
        if self.submitted() >= first {
            self.pinned = Some(self.pinned.map_or(first, |p| p.min(first)));
        }
    }

    /// Everything that failed or was skipped has been written by other means: the checkpoint may go on.
    pub fn unpin(&mut self) {
        self.pinned = None;
    }

    /// A flush of every data device, begun when [`Self::applied`] was `upto`, completed.
    pub fn data_flushed(&mut self, upto: Seq) {
        self.flushed = self.flushed.max(upto.min(self.clean()));
    }

    /// The volumes were made equal to `seq` by other means (a finished sync, an adopted position).
    pub fn jump(&mut self, seq: Seq) {
        *self = Applier::new(seq);
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
        let mut a = Applier::new(Seq(0));
        assert_eq!(
            a.plan(&mut w, Seq(4), true, |_| true),
            Some((Seq(1), Seq(2)))
        );
        assert_eq!(a.plan(&mut w, Seq(4), true, |_| true), None);
        a.round_done(true);
        assert_eq!(
            a.plan(&mut w, Seq(4), true, |_| true),
            Some((Seq(3), Seq(4)))
        );
    }

    #[test]
    fn a_covered_record_is_superseded_only_where_the_log_can_replay() {
        let mut w = window(&[(0, 8), (0, 8)]);
        let mut a = Applier::new(Seq(0));
        assert_eq!(
            a.plan(&mut w, Seq(2), true, |_| true),
            Some((Seq(1), Seq(2)))
        );
        assert_eq!(w.get(Seq(1)).map(|s| s.superseded), Some(true));
        let mut w = window(&[(0, 8), (0, 8)]);
        let mut a = Applier::new(Seq(0));
        assert_eq!(
            a.plan(&mut w, Seq(2), false, |_| true),
            Some((Seq(1), Seq(1)))
        );
    }

    #[test]
    fn a_failed_write_pins_the_checkpoint() {
        let mut w = window(&[(0, 8), (8, 8)]);
        let mut a = Applier::new(Seq(0));
        a.plan(&mut w, Seq(1), true, |_| true);
        a.round_done(true);
        a.plan(&mut w, Seq(2), true, |_| true);
        a.round_done(false);
        a.data_flushed(Seq(2));
        assert_eq!(a.clean(), Seq(1));
        assert_eq!(a.flushed(), Seq(1));
        assert_eq!(a.applied(), Seq(2));
    }

    #[test]
    fn what_a_failed_device_held_is_not_made_good_by_its_next_flush() {
        let mut w = window(&[(0, 8), (8, 8)]);
        let mut a = Applier::new(Seq(0));
        a.plan(&mut w, Seq(1), true, |_| true);
        a.round_done(true);
        a.data_flushed(Seq(1));
        // Nothing was open: nothing is lost.
        a.device_failed();
        assert_eq!(a.clean(), Seq(1));
        a.plan(&mut w, Seq(2), true, |_| true);
        a.round_done(true);
        assert_eq!(a.clean(), Seq(2));
        a.device_failed();
        assert_eq!(a.clean(), Seq(1));
        a.data_flushed(Seq(2));
        assert_eq!(a.flushed(), Seq(1));
        a.unpin();
        a.data_flushed(Seq(2));
        assert_eq!(a.flushed(), Seq(2));
    }
}
