// SPDX-License-Identifier: GPL-2.0

//! Writing a superblock: which generation the next write is, and what makes it durable.
//!
//! A generation is two copies in one slot, one in front and one at the end of the device. One copy that is whole makes
//! it durable: a start takes the highest generation that it finds whole. When neither copy could be written, one of them may be
//! on the device all the same. So the number is never used again: the next write takes the one after the next, which lies in the
//! same slot and leaves the other slot, with the last durable generation, alone.
//!
//! Trace otherwise: 8 is durable; the writes of 9 fail, but the front copy is on the device. 9 is written again with other
//! content, and the power fails between its copies: two different superblocks of generation 9, and no start chooses between them.

use super::Superblock;

/// What is known of the writes so far. One for each open device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WriteState {
    /// The highest generation of which a copy may be on the device.
    attempted: u64,
    /// Slots of which one copy could not be written: a further failure loses the generation.
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
    /// It is durable.
    Durable,
    /// It may be durable or not: nothing that it says may be acted on, nor the opposite.
    Unknown,
}

impl WriteState {
    /// Begins the next generation of `sb`, which is a changed copy of the durable one. Seal it, and write it to each of
    /// [`Superblock::write_offsets`].
    pub fn begin(&mut self, sb: &mut Superblock) -> Attempt {
        sb.advance_past(self.attempted);
        self.attempted = sb.generation();
        Attempt {
            generation: sb.generation(),
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
        if attempt.good > 0 {
            Written::Durable
        } else {
            Written::Unknown
        }
    }

    /// Whether one copy of a generation could not be written: the other is all there is.
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
        self.advance_past(0);
    }

    /// Begins the next generation above `attempted`, in the slot that does not hold this one.
    fn advance_past(&mut self, attempted: u64) {
        let mut next = self.generation().saturating_add(1);
        if next <= attempted {
            let above = attempted.saturating_sub(next).saturating_add(2) & !1;
            next = next.saturating_add(above);
        }
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

    fn attempt(copies: [bool; 2]) -> (WriteState, Written) {
        let mut state = WriteState::default();
        let mut a = Attempt {
            generation: 9,
            good: 0,
            bad: 0,
        };
        for ok in copies {
            assert!(ok || a.wants_preflush() || copies[0]);
            a.copy_done(ok);
        }
        let written = state.end(a);
        (state, written)
    }

    #[test]
    fn one_copy_is_enough_and_says_so() {
        let (state, written) = attempt([true, true]);
        assert_eq!((state.is_degraded(), written), (false, Written::Durable));
        for copies in [[true, false], [false, true]] {
            let (state, written) = attempt(copies);
            assert_eq!((state.is_degraded(), written), (true, Written::Durable));
        }
        assert_eq!(attempt([false, false]).1, Written::Unknown);
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
