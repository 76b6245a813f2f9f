// SPDX-License-Identifier: GPL-2.0

//! How far a secondary lets its primary send.
//!
//! A credit is an absolute window: the highest seq, and the highest byte of data counted from the session's
//! start. Absolute, so that what is lost or sent again always fits. What was granted once stays granted.
//!
//! Whatever the sizes of the records that come, their pages, their slots and their ring space are there: a record that
//! arrives within its credit is never dropped for want of room, nor does it wait. A record takes more than its data, so
//! both parts of a credit draw on the same room, and each grows into what the *other one, as it stands,* leaves. Where
//! both are free each gets a half. Trace, of two halves without regard to what was granted before: 1,000 pages are free,
//! 500 pages of data and 250 records are granted; 200 records of 512 bytes come and take 400 pages; of the 600 that are left
//! 150 records are granted, which with the 475 pages of data that are still granted makes 775. The last of them waits for
//! pages, the socket is not read, and the session ends because nothing was heard.

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
        let records = self.seq.since(room.head);
        let bytes = self.byte.saturating_sub(received);
        let shared = |free: u64, each: u64| {
            let half = free / 2;
            (
                free.saturating_sub(bytes.max(half))
                    .checked_div(each)
                    .unwrap_or(0),
                free.saturating_sub(records.saturating_mul(each).max(half)),
            )
        };
        let pages = room.pages.saturating_mul(room.page_bytes);
        let (mut records, mut bytes) = shared(pages, room.page_bytes.saturating_mul(2));
        if let Some((free, block)) = room.ring {
            let each = u64::from(worst_case_bytes(0, block)).saturating_add(u64::from(block));
            let in_ring = shared(free, each);
            records = records.min(in_ring.0);
            bytes = bytes.min(in_ring.1);
        }
        records = records.min(room.slots);
        bytes = bytes.min(room.window_bytes);
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

    /// A primary that sends whatever it may, sizes chosen to hurt, to a secondary whose memory is retired now and then.
    #[test]
    fn what_comes_within_its_credit_finds_its_pages() {
        const PAGE: u64 = 4096;
        for seed in 1..64_u64 {
            let mut x = seed;
            let mut chance = |n: u64| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(seed);
                (x >> 33) % n
            };
            let (mut pages, mut received) = (1200, 0);
            let mut held = 0;
            let mut at = Granted::default();
            let mut head = Seq(0);
            for _ in 0..2000 {
                let now = Room {
                    head,
                    slots: 4096,
                    pages,
                    ring: None,
                    ..room()
                };
                at = at.grow(&now, received);
                // Long runs of small ones, then long runs of large ones.
                let small = chance(8) != 0;
                for _ in 0..chance(60) {
                    let bytes = match (small, chance(3)) {
                        (true, _) => 512,
                        (_, 0) => 65536,
                        (_, 1) => 4608,
                        _ => u64::from(MAX_RECORD_BYTES),
                    };
                    if head >= at.seq || received + bytes > at.byte {
                        break;
                    }
                    let takes = bytes.div_ceil(PAGE) + 1;
                    assert!(takes <= pages);
                    pages -= takes;
                    held += takes;
                    received += bytes;
                    head = head.next();
                }
                if chance(4) == 0 {
                    let back = chance(held + 1);
                    held -= back;
                    pages += back;
                }
            }
            // Nothing is used up for ever.
            let empty = Room {
                head,
                slots: 4096,
                pages: pages + held,
                ring: None,
                ..room()
            };
            let last = at.grow(&empty, received);
            assert!(last.byte - received >= 2 * u64::from(MAX_RECORD_BYTES));
            assert!(last.seq > head.plus(1));
        }
    }
}
