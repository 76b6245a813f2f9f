// SPDX-License-Identifier: GPL-2.0

//! Whether a group takes I/O, and what may follow what.
//!
//! ```text
//!   holding ---> active <---> taking-over ---> active, unlogged
//!      |            |              |               |
//!      +------------+-------> failed <-------------+          gone: from any, the end
//! ```
//!
//! A group that failed does not run again: whoever had begun something finds that out here when it ends it, instead of
//! opening the group over the failure. Called under the group's order lock.

use crate::node::volumes::State;

/// Whether a group takes I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A starting primary holds its writes until its links have answered, or until then (monotonic ns).
    Holding {
        /// When it no longer does.
        until_ns: u64,
    },
    /// I/O flows by the rules of the role.
    Active,
    /// The secondary is becoming the primary.
    TakingOver,
    /// Took over without a ring: writes go straight to the data devices, feeding no link.
    Unlogged,
    /// The log failed, or this host found its history forked at start: writes end in EIO.
    Failed,
    /// The group is being removed.
    Gone,
}

/// What becomes of a read that arrives at a volume, or waits at one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// It is served.
    Serve,
    /// It waits until the volume is brought up.
    Wait,
    /// It ends in an error: nothing would end its wait.
    Fail,
}

impl Phase {
    /// The group runs no more, or never will again: who waits for it to get anywhere waits no longer.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Phase::Failed | Phase::Gone)
    }

    /// Whether the records of the log get to the data volumes by the rules of the role: who waits for that may go on waiting.
    #[must_use]
    pub fn applies(self) -> bool {
        matches!(self, Phase::Holding { .. } | Phase::Active)
    }

    /// The log failed. `false`: it had failed before, or the group is being removed.
    #[must_use]
    pub fn fail(&mut self) -> bool {
        let runs = !self.is_over();
        if runs {
            *self = Phase::Failed;
        }
        runs
    }

    /// The hold of a starting primary ends, for the better or (`forked`) for the worse. `false`: it held nothing.
    #[must_use]
    pub fn release(&mut self, forked: bool) -> bool {
        let held = matches!(self, Phase::Holding { .. });
        if held {
            *self = if forked { Phase::Failed } else { Phase::Active };
        }
        held
    }

    /// A takeover begins. `false`: the group does not run normally.
    #[must_use]
    pub fn begin_takeover(&mut self) -> bool {
        let active = *self == Phase::Active;
        if active {
            *self = Phase::TakingOver;
        }
        active
    }

    /// A takeover ends: the group was made the primary, without a ring (`unlogged`) or with one, or stays what it was.
    /// `false`: it failed meanwhile, and stays so.
    pub fn end_takeover(&mut self, unlogged: bool) -> bool {
        let goes_on = *self == Phase::TakingOver;
        if goes_on {
            *self = if unlogged {
                Phase::Unlogged
            } else {
                Phase::Active
            };
        }
        goes_on
    }

    /// Returns what becomes of a read of a volume in this state. What a volume lacks at a start is loaded by a group that
    /// runs only, so after a failure nobody brings it up.
    #[must_use]
    pub fn read(self, volume: State) -> Read {
        match volume {
            State::Failed => Read::Fail,
            State::Active | State::Replica | State::Suspended => Read::Serve,
            State::Absent | State::Waiting | State::Replaying if self.is_over() => Read::Fail,
            State::Absent | State::Waiting | State::Replaying => Read::Wait,
        }
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_phase))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_failed_stays_failed() {
        for mut phase in [
            Phase::Holding { until_ns: 1 },
            Phase::Active,
            Phase::TakingOver,
            Phase::Unlogged,
        ] {
            assert!(phase.fail() && !phase.fail());
            assert!(!phase.begin_takeover());
            assert!(!phase.end_takeover(false) && !phase.end_takeover(true));
            assert!(!phase.release(false));
            assert_eq!(phase, Phase::Failed);
        }
        let mut gone = Phase::Gone;
        assert!(!gone.fail() && !gone.end_takeover(false));
        assert_eq!(gone, Phase::Gone);
    }

    #[test]
    fn one_takeover_at_a_time() {
        let mut phase = Phase::Holding { until_ns: 1 };
        assert!(!phase.begin_takeover());
        assert!(phase.release(false));
        assert!(phase.begin_takeover() && !phase.begin_takeover());
        assert!(phase.end_takeover(true));
        assert_eq!(phase, Phase::Unlogged);
        assert!(!phase.begin_takeover());
    }

    #[test]
    fn no_read_waits_for_what_nobody_will_bring() {
        let volumes = [State::Absent, State::Waiting, State::Replaying];
        for v in volumes {
            assert_eq!(Phase::Active.read(v), Read::Wait);
            assert_eq!(Phase::TakingOver.read(v), Read::Wait);
            assert_eq!(Phase::Failed.read(v), Read::Fail);
            assert_eq!(Phase::Gone.read(v), Read::Fail);
        }
        // What was complete is served from memory and the device.
        assert_eq!(Phase::Failed.read(State::Active), Read::Serve);
        assert_eq!(Phase::Active.read(State::Failed), Read::Fail);
    }
}
