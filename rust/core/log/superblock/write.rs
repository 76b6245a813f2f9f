// SPDX-License-Identifier: GPL-2.0

//! Writing a superblock: which generation the next write is, and what makes it durable.
//!
//! A generation is two copies in one slot, one in front and one at the end of the device. A start takes the highest
//! generation that it finds whole, and one of the four copies may have become unreadable by then. So nobody acts on a
//! superblock before *two* copies say what it says: both of its slot, or, where one of those cannot be written, that one
//! and one of the other slot, to which the same content is written as the next generation ([`Written::Again`]).
//!
//! Trace with one copy: the write of 9 fails at the end of the device, its front copy is all there is, and is acted on. At the
//! next start the front copy cannot be read. The start finds 8, and nothing that says that there ever was more.
//!
//! When no copy could be written, one of them may be on the device all the same. So the number is never used again, and
//! the next write goes to the same slot: the other one holds the last generation that is there for certain.
//!
//! Trace otherwise: 8 is durable; the writes of 9 fail, but the front copy is on the device. 9 is written again with other
//! content, and the power fails between its copies: two different superblocks of generation 9, and no start chooses between them.

use super::Superblock;

/// What is known of the writes so far. One for each open device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WriteState {
    /// The highest generation of which a copy may be on the device.
    attempted: u64,
    /// The highest generation of which a copy was written, by this host's open device.
    held: u64,
    /// The content of `held` has one copy, and is being written to the other slot.
    alone: bool,
    /// Slots of which one copy could not be written.
    degraded: [bool; 2],
}

/// One generation being written.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    generation: u64,
    good: u8,
    bad: u8,
}

/// What became of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Written {
    /// It is durable, in two copies.
    Durable,
    /// It has one copy: write the same content as the next generation, before anybody acts on it.
    Again,
    /// It may be durable or not: nothing that it says may be acted on, nor the opposite.
    Unknown,
}

impl WriteState {
    /// Begins the next generation of `sb`, which is a changed copy of the durable one, or after [`Written::Again`] the
    /// same. Seal it, and write it to each of [`Superblock::write_offsets`].
    pub fn begin(&mut self, sb: &mut Superblock) -> Attempt {
        self.held = self.held.max(sb.generation());
        let next = sb.generation().max(self.attempted).saturating_add(1);
        // Never over the last copies that are certain.
        let same_slot = next % 2 == self.held % 2;
        self.attempted = next.saturating_add(u64::from(same_slot));
        sb.head.generation.set(self.attempted);
        Attempt {
            generation: self.attempted,
            good: 0,
            bad: 0,
        }
    }

    /// Every copy was tried.
    #[must_use]
    pub fn end(&mut self, attempt: Attempt) -> Written {
        let [even, odd] = &mut self.degraded;
        let slot = if attempt.generation % 2 == 0 {
            even
        } else {
            odd
        };
        *slot = attempt.bad > 0;
        let second = core::mem::take(&mut self.alone);
        if attempt.good == 0 {
            return Written::Unknown;
        }
        self.held = attempt.generation;
        if attempt.bad == 0 || second {
            return Written::Durable;
        }
        self.alone = true;
        Written::Again
    }

    /// Whether a copy of a superblock could not be written: each is written to both slots, and another copy that fails may
    /// close the log.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.degraded != [false; 2]
    }
}

impl Attempt {
    /// Whether the next copy must flush the device's cache before it: until one that did so succeeded.
    #[must_use]
    pub fn wants_preflush(&self) -> bool {
        self.good == 0
    }

    /// One copy was written and is durable, or failed.
    pub fn copy_done(&mut self, ok: bool) {
        let n = if ok { &mut self.good } else { &mut self.bad };
        *n = n.saturating_add(1);
    }
}

impl Superblock {
    /// Begins the next generation of a superblock that nobody else writes, as the formatter does.
    pub fn advance(&mut self) {
        let next = self.generation().saturating_add(1);
        self.head.generation.set(next);
    }
}

#[cfg_attr(
    CONFIG_KUNIT,
    kernel::macros::kunit_tests(replicate_core_superblock_write)
)]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    fn end(state: &mut WriteState, generation: u64, copies: [bool; 2]) -> Written {
        let mut a = Attempt {
            generation,
            good: 0,
            bad: 0,
        };
        for ok in copies {
            assert!(ok || a.wants_preflush() || copies[0]);
            a.copy_done(ok);
        }
        state.end(a)
    }

    #[test]
    fn one_copy_is_written_again_to_the_other_slot() {
        let both = [true, true];
        let mut state = WriteState::default();
        assert_eq!(end(&mut state, 9, both), Written::Durable);
        assert!(!state.is_degraded());
        for one in [[true, false], [false, true]] {
            for other in [both, one] {
                assert_eq!(end(&mut state, 9, one), Written::Again);
                assert!(state.is_degraded());
                assert_eq!(end(&mut state, 10, other), Written::Durable);
                assert!(state.is_degraded());
            }
            assert_eq!(end(&mut state, 9, one), Written::Again);
            assert_eq!(end(&mut state, 10, [false; 2]), Written::Unknown);
            // What is tried next is another content.
            assert_eq!(end(&mut state, 12, one), Written::Again);
            assert_eq!(end(&mut state, 13, both), Written::Durable);
        }
        assert_eq!(end(&mut state, 14, [false; 2]), Written::Unknown);
    }

    #[test]
    fn the_flush_comes_before_the_first_copy_that_counts() {
        let mut a = Attempt {
            generation: 9,
            good: 0,
            bad: 0,
        };
        assert!(a.wants_preflush());
        a.copy_done(false);
        assert!(a.wants_preflush());
        a.copy_done(true);
        assert!(!a.wants_preflush());
    }
}
