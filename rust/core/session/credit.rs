// SPDX-License-Identifier: GPL-2.0

//! How far a secondary lets its primary send.
//!
//! A credit is an absolute window: the highest seq, and the highest byte of data counted from the session's
//! start. Absolute, so that what is lost or sent again always fits. What was granted once stays granted:
//! room is only used up by what arrives within it. So every limit is taken by halves here: whatever the
//! sizes of the records that come, their pages, their slots and their ring space were there when the
//! credit was given, and a record that arrives within its credit is never dropped for want of room.

use crate::{
    log::batch::worst_case_bytes,
    node::{Log, Memory, Node},
    units::Seq,
    units::MAX_RECORD_BYTES,
};

/// What a secondary has of memory, and how much of it a peer may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    /// Pages that the pool could give.
    pub pages: u64,
    /// Bytes in a page.
    pub page_bytes: u64,
    /// The most that the administrator wants under way.
    pub window_bytes: u64,
}

/// What a secondary has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Newest record in memory without a gap.
    pub head: Seq,
    /// Slots of the window that are free above it.
    pub slots: u64,
    /// Pages that the pool could give.
    pub pages: u64,
    /// Bytes in a page.
    pub page_bytes: u64,
    /// Free bytes of the ring and its block size; `None` without a ring.
    pub ring: Option<(u64, u32)>,
    /// The most that the administrator wants under way.
    pub window_bytes: u64,
}

impl Room {
    /// Returns what `node` has left. Under the order lock.
    #[must_use]
    pub fn of<M: Memory>(node: &Node<M>, supply: &Supply) -> Room {
        let w = &node.window;
        Room {
            head: w.head(),
            // Nothing is taken while this host's own log is still being loaded: memory is for that.
            slots: if w.head() < node.head() {
                0
            } else {
                w.capacity().saturating_sub(w.head().since(w.base()))
            },
            pages: supply.pages,
            page_bytes: supply.page_bytes,
            ring: match &node.log {
                Log::Ring(l) => Some((l.ring.free().0, l.ring.block())),
                Log::NoRing(_) => None,
            },
            window_bytes: supply.window_bytes,
        }
    }
}

/// The credit of a session, as it was granted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Granted {
    /// Highest seq.
    pub seq: Seq,
    /// Highest byte of the session's data.
    pub byte: u64,
}

impl Granted {
    /// What is granted now, when `received` bytes of data have come in this session.
    ///
    /// A record takes up to one page more than its data, and one page for the list of its pages; in the ring
    /// it takes its data and the worst case of a batch of its own.
    #[must_use]
    pub fn grow(self, room: &Room, received: u64) -> Granted {
        let mut records = room.slots.min(room.pages / 4);
        let mut bytes = room
            .window_bytes
            .min((room.pages / 2).saturating_mul(room.page_bytes));
        if let Some((free, block)) = room.ring {
            let each = u64::from(worst_case_bytes(0, block)).saturating_add(u64::from(block));
            records = records.min((free / 2).checked_div(each).unwrap_or(0));
            bytes = bytes.min(free / 2);
        }
        Granted {
            seq: self.seq.max(room.head.plus(records)),
            byte: self.byte.max(received.saturating_add(bytes)),
        }
    }

    /// Whether the primary must be told of this credit now, when it knows `told` and may be held up by it.
    #[must_use]
    pub fn must_tell(&self, told: &Granted, head: Seq, received: u64) -> bool {
        let few = told.seq.since(head) < 64;
        let short =
            told.byte.saturating_sub(received) < u64::from(MAX_RECORD_BYTES).saturating_mul(2);
        (self.seq > told.seq && few) || (self.byte > told.byte && short)
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_credit))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    fn room() -> Room {
        Room {
            head: Seq(100),
            slots: 1000,
            pages: 4096,
            page_bytes: 4096,
            ring: Some((6 << 20, 4096)),
            window_bytes: 16 << 20,
        }
    }

    #[test]
    fn whatever_is_granted_fits_the_ring() {
        let g = Granted::default().grow(&room(), 0);
        let records = g.seq.since(Seq(100));
        let each = g.byte.checked_div(records).unwrap_or(0) as u32;
        assert!(records > 0);
        for payload in [0, 512, each.next_multiple_of(512)] {
            let all = records * u64::from(worst_case_bytes(payload, 4096));
            assert!(all <= 6 << 20);
        }
    }

    #[test]
    fn an_empty_secondary_of_the_smallest_size_lets_a_largest_record_through() {
        let small = Room {
            pages: 1024 + 128,
            ..room()
        };
        let g = Granted::default().grow(&small, 0);
        assert!(g.byte >= 2 * u64::from(MAX_RECORD_BYTES));
        assert!(g.seq >= Seq(102));
    }

    #[test]
    fn credit_never_shrinks_and_is_told_when_it_may_be_missed() {
        let first = Granted::default().grow(&room(), 0);
        let full = Room {
            slots: 0,
            pages: 0,
            ..room()
        };
        assert_eq!(first.grow(&full, 0), first);
        let more = Room {
            head: Seq(400),
            ..room()
        };
        let next = first.grow(&more, first.byte);
        assert!(next.byte > first.byte);
        assert!(next.must_tell(&first, Seq(400), first.byte));
        assert!(!first.must_tell(&first, Seq(400), first.byte));
    }
}
