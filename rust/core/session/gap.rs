// SPDX-License-Identifier: GPL-2.0

//! Gaps in what arrives: asked for once, then the connection is given up.
//!
//! A record is missing when later ones are here. On one connection that happens after a record was dropped for
//! its checksum; on several it is everyday, so a gap gets a little time to close by itself.

use crate::units::Seq;

/// What to do about a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing now.
    Wait,
    /// Ask for these again.
    Resend {
        /// First missing record.
        from: Seq,
        /// Last record before the next one that is here, or a later one: resending too much is harmless.
        to: Seq,
    },
    /// It did not come: reset the connection.
    Reset,
}

/// The gap of a session, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gap {
    missing: Option<Missing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Missing {
    from: Seq,
    since_ms: u64,
    asked: bool,
}

impl Gap {
    /// Looks: `head` is the newest record without a gap, `highest` the newest that arrived at all. `dropped`: a
    /// record above `head` was dropped, so waiting is pointless.
    pub fn look(
        &mut self,
        head: Seq,
        highest: Seq,
        dropped: bool,
        now_ms: u64,
        patience_ms: u64,
    ) -> Ask {
        if highest <= head && !dropped {
            self.missing = None;
            return Ask::Wait;
        }
        let from = head.next();
        let m = match self.missing {
            Some(m) if m.from == from => m,
            _ => Missing {
                from,
                since_ms: now_ms,
                asked: false,
            },
        };
        self.missing = Some(m);
        let age = now_ms.saturating_sub(m.since_ms);
        if !m.asked && (dropped || age >= patience_ms / 4) {
            self.missing = Some(Missing {
                since_ms: now_ms,
                asked: true,
                ..m
            });
            return Ask::Resend {
                from,
                to: highest.max(from),
            };
        }
        if m.asked && age >= patience_ms {
            return Ask::Reset;
        }
        Ask::Wait
    }

    /// Whether something is missing: then time matters.
    pub fn is_open(&self) -> bool {
        self.missing.is_some()
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_gap))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_asked_for_once_and_then_ends_the_connection() {
        let mut g = Gap::default();
        assert_eq!(g.look(Seq(5), Seq(8), false, 0, 1000), Ask::Wait);
        let resend = Ask::Resend {
            from: Seq(6),
            to: Seq(8),
        };
        assert_eq!(g.look(Seq(5), Seq(8), false, 250, 1000), resend);
        assert_eq!(g.look(Seq(5), Seq(8), false, 300, 1000), Ask::Wait);
        assert_eq!(g.look(Seq(5), Seq(8), false, 1250, 1000), Ask::Reset);
    }

    #[test]
    fn a_dropped_record_is_asked_for_at_once_and_a_filled_gap_forgotten() {
        let mut g = Gap::default();
        let resend = Ask::Resend {
            from: Seq(6),
            to: Seq(6),
        };
        assert_eq!(g.look(Seq(5), Seq(5), true, 0, 1000), resend);
        assert!(g.is_open());
        assert_eq!(g.look(Seq(6), Seq(6), false, 2000, 1000), Ask::Wait);
        assert!(!g.is_open());
    }

    #[test]
    fn progress_starts_the_clock_anew() {
        let mut g = Gap::default();
        g.look(Seq(5), Seq(9), true, 0, 1000);
        assert_eq!(g.look(Seq(7), Seq(9), false, 1100, 1000), Ask::Wait);
    }
}
