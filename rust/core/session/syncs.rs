// SPDX-License-Identifier: GPL-2.0

//! A link's synchronisations, as its primary knows them: the one that runs, and the one that was asked for.
//!
//! What was asked for begins with the next session. Until its peer has taken the welcome, the one that runs goes on, ends, or
//! is met again after a crash, as if nothing had been asked for: what the present session still reports is about that one.
//! Each request has a number, so that whoever carries one out, or takes it back, never means another that looks the same.

use super::primary::{Decision, Kind, Resync};
use crate::{
    log::superblock::SyncState,
    units::{Sector, Seq, VolumeId},
};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Syncs {
    /// What the link's slot in the superblock records, or newer.
    runs: Option<Resync>,
    asked: Option<Resync>,
    /// Of the newest request or command to stop.
    number: u32,
    /// What was asked for before this number was stopped.
    stopped: u32,
}

impl Syncs {
    /// Returns what a host knows after a start. `slot`: what the link's slot records.
    pub fn recorded(slot: Option<&SyncState>) -> Syncs {
        Syncs {
            runs: slot.map(Resync::recorded),
            ..Syncs::default()
        }
    }

    /// A synchronisation is asked for, in the place of one that was asked for before and has not begun. Nothing changes before
    /// the session that begins it. `first`: the first volume of the table. Returns its number.
    pub fn ask(&mut self, kind: Kind, force: bool, first: VolumeId) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.asked = Some(Resync {
            number: self.number,
            ..Resync::new(kind, force, first)
        });
        self.number
    }

    /// That request is taken back. `false`: it has begun, or another took its place.
    pub fn withdraw(&mut self, number: u32) -> bool {
        self.asked.take_if(|s| s.number == number).is_some()
    }

    /// The peer was refused: whoever declared both sides equal learns it, and asks again.
    pub fn refused(&mut self) -> bool {
        let declared = self.asked.take_if(|s| s.kind == Kind::AssumeClean);
        declared.is_some()
    }

    /// Whether one has yet to begin.
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Returns what the next session is to do.
    pub fn wanted(&self) -> Option<Resync> {
        self.asked.or(self.runs)
    }

    /// Returns the one that runs, or goes on in the next session.
    pub fn running(&self) -> Option<&Resync> {
        self.runs.as_ref()
    }

    /// A welcome with `d` is sent next. Where it begins something, the peer may forget all that it has, whether or not its
    /// answer arrives: what ran begins anew, too, should it be what the next session is to do.
    ///
    /// Trace without: all was copied, and where R1 ends is known; record 5, written since, is in the peer's log. The peer takes
    /// the welcome of a declared equality, which drops its log, and the answer is lost. The request is taken back. The peer
    /// is consistent, so R1 is over, without record 5.
    pub fn forgets(&mut self, d: &Decision) {
        if let (Some(_), Some(new), Some(runs)) = (d.begins(), d.sync, &mut self.runs) {
            (runs.fresh, runs.end, runs.at) = (true, None, new.at);
        }
    }

    /// The superblock says what follows from a welcome that the peer took: what was asked for has begun.
    pub fn began(&mut self, d: &Decision) {
        // Else it was stopped meanwhile, and the session is about to end.
        if let Some(sync) = d.sync.filter(|s| s.number >= self.stopped) {
            self.withdraw(sync.number);
            self.runs = (sync.kind == Kind::Full).then_some(Resync {
                fresh: false,
                ..sync
            });
        }
    }

    /// The peer's copies are durable up to `at`. Returns the one that runs.
    pub fn moved(&mut self, at: (VolumeId, Sector)) -> Option<Resync> {
        let runs = self.runs.as_mut()?;
        runs.at = at;
        Some(*runs)
    }

    /// All copies were sent, it ends at `end`. Returns what the slot is to say; `None`: it was stopped meanwhile.
    pub fn ends(&mut self, end: Seq) -> Option<Resync> {
        let runs = self.runs.as_mut()?;
        runs.end = Some(end);
        Some(*runs)
    }

    /// A handshake begins; `over`: whether the link's slot [says so](crate::node::durable::links::is_over). Returns whether the
    /// one that ran is over: its session ended before the superblock said it, and nobody was there to hear it.
    pub fn met(&mut self, over: bool) -> bool {
        over && self.runs.take_if(|r| !r.fresh).is_some()
    }

    /// The one that ran is over, or was given up.
    pub fn over(&mut self) {
        self.runs = None;
    }

    /// Everything is stopped. Returns what was.
    pub fn stop(&mut self) -> Option<Resync> {
        self.number = self.number.wrapping_add(1);
        self.stopped = self.number;
        self.runs.take().or(self.asked.take())
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_syncs))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::units::Position;

    const FIRST: VolumeId = VolumeId(0);

    fn decision(sync: Option<Resync>) -> Decision {
        Decision {
            resume: Seq(5),
            fork: Position::default(),
            fork_chain: None,
            sync,
            first: None,
        }
    }

    #[test]
    fn what_was_asked_for_is_another_than_what_runs() {
        let mut s = Syncs::default();
        s.ask(Kind::Full, false, FIRST);
        s.began(&decision(s.wanted()));
        assert!(!s.is_asked() && s.running().is_some_and(|r| !r.fresh));
        s.ask(Kind::Full, false, FIRST);
        // The session that stands goes on with the first one.
        let moved = s.moved((FIRST, Sector(8)));
        assert!(moved.is_some_and(|r| r.number == 1));
        assert_eq!(
            s.wanted().map(|r| (r.number, r.at)),
            Some((2, (FIRST, Sector(0))))
        );
        s.over();
        assert!(s.running().is_none() && s.is_asked());
    }

    #[test]
    fn two_equal_requests_are_two() {
        let mut s = Syncs::default();
        let first = s.ask(Kind::Full, false, FIRST);
        let welcomed = decision(s.wanted());
        // The same again, while the peer takes the welcome: it begins with the next session.
        let again = s.ask(Kind::Full, false, FIRST);
        s.began(&welcomed);
        assert_eq!(s.running().map(|r| r.number), Some(first));
        assert_eq!(s.wanted().map(|r| r.number), Some(again));
        assert!(!s.withdraw(first) && s.is_asked() && s.withdraw(again));
    }

    /// See [`Syncs::forgets`]: with two requests, and where what ran is what began anew in vain.
    #[test]
    fn what_a_welcome_begins_ends_what_ran() {
        let middle = (FIRST, Sector(8));
        let mut s = Syncs::default();
        s.ask(Kind::Full, false, FIRST);
        s.began(&decision(s.wanted()));
        assert!(s.moved(middle).is_some());
        // It goes on in a session that begins nothing.
        s.forgets(&decision(s.wanted()));
        assert_eq!(s.wanted().map(|r| (r.fresh, r.at)), Some((false, middle)));
        let asked = s.ask(Kind::AssumeClean, false, FIRST);
        s.forgets(&decision(s.wanted()));
        assert!(s.withdraw(asked));
        let anew = s.wanted().map(|r| (r.number, r.fresh, r.at));
        assert_eq!(anew, Some((1, true, (FIRST, Sector(0)))));
    }

    #[test]
    fn one_whose_end_nobody_heard_of_is_over() {
        let mut s = Syncs::default();
        s.ask(Kind::Full, false, FIRST);
        assert!(!s.met(true) && s.is_asked());
        s.began(&decision(s.wanted()));
        assert!(!s.met(false) && s.running().is_some());
        assert!(s.met(true) && s.wanted().is_none());
    }

    #[test]
    fn one_that_was_stopped_does_not_begin() {
        let mut s = Syncs::default();
        s.ask(Kind::Full, false, FIRST);
        let welcomed = decision(s.wanted());
        assert!(s.stop().is_some());
        s.began(&welcomed);
        assert!(s.wanted().is_none() && s.ends(Seq(9)).is_none());
    }
}
