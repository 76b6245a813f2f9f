// SPDX-License-Identifier: GPL-2.0

//! The gate: which writes may complete to the application.
//!
//! A plain write completes once every record up to it is written in the log and every in-sync link
//! has acknowledged it at its level; a FUA write also waits for the commit point. Completions need no
//! order among themselves: a plain write does not wait behind the flush of an earlier FUA write.
//!
//! *Published* is the highest seq whose completion was decided. It moves under the order lock, before
//! the first `bio_endio` that it covers, so a record that gets its seq afterwards names it in
//! `depends_on`: what the application may have seen complete is always at or below it.

use crate::units::Seq;

/// Release cursors. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gate {
    plain: Seq,
    fua: Seq,
    published: Seq,
}

impl Gate {
    /// A gate for records after `head`; everything up to it counts as published.
    pub fn new(head: Seq, published: Seq) -> Self {
        Gate {
            plain: head,
            fua: head,
            published,
        }
    }

    /// Highest seq whose completion was published.
    pub fn published(&self) -> Seq {
        self.published
    }

    /// The next record to complete, if any. `plain_limit`: written and acknowledged; `fua_limit`: also committed.
    /// `is_fua` tells of a record at or below `plain_limit` that was not completed yet.
    pub fn next(
        &mut self,
        plain_limit: Seq,
        fua_limit: Seq,
        mut is_fua: impl FnMut(Seq) -> bool,
    ) -> Option<Seq> {
        loop {
            if self.fua < fua_limit.min(self.plain) {
                self.fua = self.fua.next();
                if is_fua(self.fua) {
                    self.published = self.published.max(self.fua);
                    return Some(self.fua);
                }
            } else if self.plain < plain_limit {
                self.plain = self.plain.next();
                if !is_fua(self.plain) {
                    self.published = self.published.max(self.plain);
                    return Some(self.plain);
                }
            } else {
                return None;
            }
        }
    }

    /// Every record up to here was completed: its memory may go.
    pub fn completed(&self) -> Seq {
        self.plain.min(self.fua)
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_gate))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn plain_writes_pass_a_waiting_fua_write_once_each() {
        let mut g = Gate::new(Seq(0), Seq(0));
        let fua = |s: Seq| s == Seq(2);
        assert_eq!(g.next(Seq(3), Seq(1), fua), Some(Seq(1)));
        assert_eq!(g.next(Seq(3), Seq(1), fua), Some(Seq(3)));
        assert_eq!(g.next(Seq(3), Seq(1), fua), None);
        assert_eq!(g.published(), Seq(3));
        assert_eq!(g.next(Seq(3), Seq(3), fua), Some(Seq(2)));
        assert_eq!(g.next(Seq(3), Seq(3), fua), None);
    }
}
