// SPDX-License-Identifier: GPL-2.0

//! A peer that answers, and does nothing.
//!
//! Heartbeats show that a peer's host is there, not that its disks are: a log device that hangs leaves the connection
//! as it was, while writers wait for an acknowledgement that never comes (P9, P10). So a session also ends when the peer
//! owes something for [`limit`](Progress::check) and no position that it acknowledges moves in that time.
//!
//! It does not end while nothing is owed (an idle link), nor while anything moves, however slowly.

use crate::{
    group::Mode,
    units::{Sector, Seq, VolumeId},
};

/// What the peer has acknowledged in this session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reached {
    /// Held in its memory.
    pub received: Seq,
    /// On its stable storage.
    pub logged: Seq,
    /// On its volumes.
    pub applied: Seq,
    /// Region copies that are durable there end here.
    pub copied: Option<(VolumeId, Sector)>,
}

/// What the peer was given to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Given {
    /// Newest record that was sent.
    pub sent: Seq,
    /// The commit point: no peer can be asked to apply more.
    pub commit: Seq,
    /// What writers wait for.
    pub mode: Mode,
    /// A record waits for the peer's credit.
    pub starved: bool,
    /// Region copies were sent and are not durable there.
    pub copies: bool,
}

impl Given {
    /// Whether the peer owes anything.
    fn is_owed(&self, reached: &Reached) -> bool {
        let settled = self.sent.min(self.commit);
        reached.received < self.sent
            || reached.logged < settled
            || (self.mode == Mode::Applied && reached.applied < settled)
            || self.starved
            || self.copies
    }
}

/// What to do about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing is owed, or something moved.
    Moves,
    /// It owes something: look again after so many milliseconds.
    Owes(u64),
    /// It stood still for too long: the session ends.
    Stuck,
}

/// Progress of a peer in one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    last: Reached,
    /// Since when it owes something and has not moved.
    since_ms: Option<u64>,
}

impl Progress {
    /// Looks at the peer at `now_ms`. `limit_ms` 0: it may take as long as it likes.
    pub fn check(&mut self, given: &Given, reached: Reached, now_ms: u64, limit_ms: u64) -> Check {
        if limit_ms == 0 || reached != self.last || !given.is_owed(&reached) {
            self.last = reached;
            self.since_ms = None;
            if limit_ms == 0 || !given.is_owed(&reached) {
                return Check::Moves;
            }
        }
        let since = *self.since_ms.get_or_insert(now_ms);
        let age = now_ms.saturating_sub(since);
        if age >= limit_ms {
            Check::Stuck
        } else {
            Check::Owes(limit_ms.saturating_sub(age))
        }
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_progress))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    const GIVEN: Given = Given {
        sent: Seq(9),
        commit: Seq(9),
        mode: Mode::Received,
        starved: false,
        copies: false,
    };

    fn reached(received: u64, logged: u64) -> Reached {
        Reached {
            received: Seq(received),
            logged: Seq(logged),
            ..Reached::default()
        }
    }

    #[test]
    fn a_peer_that_stands_still_is_stuck_after_the_limit() {
        let mut p = Progress::default();
        assert_eq!(p.check(&GIVEN, reached(5, 5), 0, 1000), Check::Owes(1000));
        assert_eq!(p.check(&GIVEN, reached(5, 5), 999, 1000), Check::Owes(1));
        assert_eq!(p.check(&GIVEN, reached(5, 5), 1000, 1000), Check::Stuck);
        // It holds everything in memory, and logs nothing.
        let mut p = Progress::default();
        assert_eq!(p.check(&GIVEN, reached(9, 5), 0, 1000), Check::Owes(1000));
        assert_eq!(p.check(&GIVEN, reached(9, 5), 1000, 1000), Check::Stuck);
    }

    #[test]
    fn a_slow_peer_and_an_idle_link_are_left_alone() {
        let mut p = Progress::default();
        for n in 1..9 {
            assert_eq!(
                p.check(&GIVEN, reached(n, 0), n * 900, 1000),
                Check::Owes(1000)
            );
        }
        for now in [0, 5000, 50_000] {
            assert_eq!(p.check(&GIVEN, reached(9, 9), now, 1000), Check::Moves);
        }
        // The clock starts when something is owed again, not when it last moved.
        let more = Given {
            starved: true,
            ..GIVEN
        };
        assert_eq!(
            p.check(&more, reached(9, 9), 60_000, 1000),
            Check::Owes(1000)
        );
        assert_eq!(p.check(&more, reached(9, 9), 61_000, 1000), Check::Stuck);
    }

    #[test]
    fn what_the_primary_has_not_committed_is_not_owed_and_the_limit_can_be_off() {
        let mut p = Progress::default();
        let early = Given {
            commit: Seq(4),
            mode: Mode::Applied,
            ..GIVEN
        };
        let all = Reached {
            applied: Seq(4),
            ..reached(9, 4)
        };
        assert_eq!(p.check(&early, all, 0, 1000), Check::Moves);
        assert_eq!(p.check(&GIVEN, reached(0, 0), 0, 0), Check::Moves);
        assert_eq!(p.check(&GIVEN, reached(0, 0), 1 << 40, 0), Check::Moves);
    }
}
