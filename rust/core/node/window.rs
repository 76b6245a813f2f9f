// SPDX-License-Identifier: GPL-2.0

//! The window: records in memory, found by seq and by place.
//!
//! Holds `(base, head]` without gaps, and beyond `head` those that arrived early (a secondary's
//! reassembly). The slot of a seq is `seq mod capacity`, so the caller keeps payloads and bios in
//! an array of the same shape beside it.
//!
//! The place index is a hash of extents: `newest[h]` is the newest seq in that bucket, and each slot
//! names the next older one of its bucket. As records leave only at the old end, a chain simply
//! ends where it passes `base`; nothing is ever unlinked. A record never crosses an extent, so one
//! bucket answers every question of overlap.
//!
//! Called under the group's order lock; never sleeps.

use crate::{
    node::Store,
    record::chain_record,
    units::{Chain, Op, Range, Record, Seq},
};

/// One place in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The record.
    pub record: Record,
    /// Chain value after it.
    pub chain: Chain,
    /// Next older record in the same bucket.
    older: Seq,
    /// A record is here.
    present: bool,
    /// Overwritten as a whole by a later record of the same apply round.
    pub superseded: bool,
    /// Its bio was completed.
    pub released: bool,
}

/// What became of a record handed to [`Window::place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Taken; the gap-free head moved.
    InOrder,
    /// Taken, but an earlier one is missing.
    Early,
    /// Already here or already gone: drop it.
    Duplicate,
    /// Beyond the window: the sender broke its credit, or memory is full.
    Beyond,
}

/// Records in memory. See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window<S, H> {
    slots: S,
    newest: H,
    base: Seq,
    head: Seq,
    base_chain: Chain,
    /// Newest FUA record in `(base, head]`; `NONE` where there is none.
    newest_fua: Seq,
}

impl<S: Store<Slot>, H: Store<Seq>> Window<S, H> {
    /// An empty window whose first record will be `base + 1`. Both storages must not be empty.
    pub fn new(slots: S, newest: H, base: Seq, chain: Chain) -> Self {
        let mut w = Window {
            slots,
            newest,
            base,
            head: base,
            base_chain: chain,
            newest_fua: Seq::NONE,
        };
        w.reset(base, chain);
        w
    }

    /// Forgets everything; the first record will be `base + 1`.
    pub fn reset(&mut self, base: Seq, chain: Chain) {
        self.slots.as_mut().fill(Slot::default());
        self.newest.as_mut().fill(Seq::NONE);
        self.base = base;
        self.head = base;
        self.base_chain = chain;
        self.newest_fua = Seq::NONE;
    }

    /// Highest seq that is no longer in memory.
    pub fn base(&self) -> Seq {
        self.base
    }

    /// Highest seq up to which there is no gap.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Number of slots.
    pub fn capacity(&self) -> u64 {
        self.slots.as_ref().len() as u64
    }

    /// Whether another record fits.
    pub fn has_room(&self) -> bool {
        self.head.since(self.base) < self.capacity()
    }

    /// Chain value after `seq`, where memory knows it.
    pub fn chain_at(&self, seq: Seq) -> Option<Chain> {
        if seq == self.base {
            return Some(self.base_chain);
        }
        self.get(seq).map(|s| s.chain)
    }

    /// Index of `seq`'s slot in the storage, and in the caller's arrays beside it.
    pub fn index(&self, seq: Seq) -> usize {
        // CAST: the remainder is below the storage's length, a usize.
        (seq.0.checked_rem(self.capacity()).unwrap_or(0)) as usize
    }

    fn slot(&self, seq: Seq) -> Option<&Slot> {
        let i = self.index(seq);
        self.slots
            .as_ref()
            .get(i)
            .filter(|s| s.present && s.record.seq == seq)
    }

    fn slot_mut(&mut self, seq: Seq) -> Option<&mut Slot> {
        let i = self.index(seq);
        self.slots
            .as_mut()
            .get_mut(i)
            .filter(|s| s.present && s.record.seq == seq)
    }

    /// The record `seq`, if it is in the gap-free part.
    pub fn get(&self, seq: Seq) -> Option<&Slot> {
        if seq > self.base && seq <= self.head {
            self.slot(seq)
        } else {
            None
        }
    }

    /// The same, to change its marks.
    pub fn get_mut(&mut self, seq: Seq) -> Option<&mut Slot> {
        if seq > self.base && seq <= self.head {
            self.slot_mut(seq)
        } else {
            None
        }
    }

    /// Whether `seq` is here, in order or early.
    pub fn holds(&self, seq: Seq) -> bool {
        seq > self.base && self.slot(seq).is_some()
    }

    /// The record `seq`, in order or early.
    pub fn held(&self, seq: Seq) -> Option<Record> {
        if seq > self.base {
            self.slot(seq).map(|s| s.record)
        } else {
            None
        }
    }

    /// Takes a record that arrived, in any order.
    pub fn place(&mut self, record: Record) -> Placed {
        let seq = record.seq;
        if seq <= self.head || self.holds(seq) {
            return Placed::Duplicate;
        }
        if seq.since(self.base) > self.capacity() {
            return Placed::Beyond;
        }
        let i = self.index(seq);
        if let Some(s) = self.slots.as_mut().get_mut(i) {
            *s = Slot {
                record,
                present: true,
                ..Slot::default()
            };
        }
        if seq != self.head.next() {
            return Placed::Early;
        }
        while self.link_next() {}
        Placed::InOrder
    }

    /// Moves the head over the next record if it is here: index and chain.
    fn link_next(&mut self) -> bool {
        let seq = self.head.next();
        if seq.since(self.base) > self.capacity() {
            return false;
        }
        let before = self.chain_at(self.head).unwrap_or_default();
        let Some(record) = self.slot(seq).map(|s| s.record) else {
            return false;
        };
        let b = self.bucket(&record.range);
        let older = match self.newest.as_mut().get_mut(b) {
            Some(n) => core::mem::replace(n, seq),
            None => Seq::NONE,
        };
        if let Some(s) = self.slot_mut(seq) {
            s.older = older;
            s.chain = chain_record(before, &record).unwrap_or(before);
        }
        if record.fua {
            self.newest_fua = seq;
        }
        self.head = seq;
        true
    }

    fn bucket(&self, range: &Range) -> usize {
        let key = range
            .sector
            .extent()
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(u64::from(range.volume.0).wrapping_mul(0xD1B5_4A32_D192_ED03));
        let len = self.newest.as_ref().len() as u64;
        // CAST: the remainder is below the storage's length, a usize.
        ((key >> 17).checked_rem(len).unwrap_or(0)) as usize
    }

    /// Calls `f` for every record in `(after, upto]` that overlaps `range`, newest first, until it says `false`.
    pub fn overlapping(
        &self,
        range: &Range,
        after: Seq,
        upto: Seq,
        mut f: impl FnMut(&Slot) -> bool,
    ) {
        let b = self.bucket(range);
        let mut seq = self.newest.as_ref().get(b).copied().unwrap_or(Seq::NONE);
        while seq > after && seq > self.base {
            let Some(s) = self.get(seq) else { return };
            if seq <= upto && s.record.range.overlaps(range) && !f(s) {
                return;
            }
            seq = s.older;
        }
    }

    /// Newest record in `(after, upto]` that overlaps `range`.
    pub fn newest_overlap(&self, range: &Range, after: Seq, upto: Seq) -> Option<Seq> {
        let mut found = None;
        self.overlapping(range, after, upto, |s| {
            found = Some(s.record.seq);
            false
        });
        found
    }

    /// Oldest record in `(after, upto]` that a read of `range` must see over what the device holds: not those that a later
    /// one of them covers as a whole, of which a block that is written again and again has many.
    pub fn oldest_visible(&self, range: &Range, after: Seq, upto: Seq) -> Option<Seq> {
        let mut oldest = None;
        self.overlapping(range, after, upto, |s| {
            oldest = Some(s.record.seq);
            // What was discarded is undefined: what lies below may show.
            s.record.op == Op::Discard || !s.record.range.covers(range)
        });
        oldest
    }

    /// Newest FUA record in `(after, upto]`. Looks at records only where a newer one is not in `upto` yet.
    pub fn newest_fua(&self, after: Seq, upto: Seq) -> Option<Seq> {
        let mut seq = self.newest_fua;
        if seq > upto {
            seq = upto;
            while seq > after && !self.get(seq).is_some_and(|s| s.record.fua) {
                seq = seq.prev();
            }
        }
        (seq > after).then_some(seq)
    }

    /// Forgets the records up to `seq`, which must be gap-free. The caller drops their payloads.
    pub fn retire(&mut self, seq: Seq) {
        let seq = seq.min(self.head);
        while self.base < seq {
            let next = self.base.next();
            self.base_chain = self.chain_at(next).unwrap_or(self.base_chain);
            let i = self.index(next);
            if let Some(s) = self.slots.as_mut().get_mut(i) {
                *s = Slot::default();
            }
            self.base = next;
        }
        if self.newest_fua <= self.base {
            self.newest_fua = Seq::NONE;
        }
    }

    /// Forgets everything above `fork`, early arrivals too: a new lineage says it never was.
    ///
    /// Returns `false` and changes nothing when `fork` is below what memory holds.
    pub fn truncate(&mut self, fork: Seq) -> bool {
        if fork < self.base {
            return false;
        }
        self.newest.as_mut().fill(Seq::NONE);
        for s in self.slots.as_mut() {
            if s.record.seq > fork {
                *s = Slot::default();
            }
        }
        self.newest_fua = Seq::NONE;
        let top = fork.min(self.head);
        self.head = self.base;
        while self.head < top && self.link_next() {}
        true
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_window))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::units::{Sector, VolumeId};

    fn record(seq: u64, sector: u64, sectors: u32) -> Record {
        Record {
            seq: Seq(seq),
            op: Op::Write,
            range: Range {
                volume: VolumeId(1),
                sector: Sector(sector),
                sectors,
            },
            ..Record::default()
        }
    }

    fn window() -> Window<[Slot; 4], [Seq; 2]> {
        Window::new([Slot::default(); 4], [Seq::NONE; 2], Seq(10), Chain(1))
    }

    #[test]
    fn early_arrivals_wait_for_the_gap() {
        let mut w = window();
        assert_eq!(w.place(record(12, 0, 8)), Placed::Early);
        assert_eq!(w.head(), Seq(10));
        assert_eq!(w.place(record(12, 0, 8)), Placed::Duplicate);
        assert_eq!(w.place(record(15, 0, 8)), Placed::Beyond);
        assert_eq!(w.place(record(11, 0, 8)), Placed::InOrder);
        assert_eq!(w.head(), Seq(12));
        assert_eq!(w.place(record(10, 0, 8)), Placed::Duplicate);
    }

    #[test]
    fn overlap_is_found_newest_first_and_forgotten_with_age() {
        let mut w = window();
        w.place(record(11, 0, 8));
        w.place(record(12, 16, 8));
        w.place(record(13, 4, 8));
        let r = record(0, 6, 4).range;
        assert_eq!(w.newest_overlap(&r, Seq(10), Seq(13)), Some(Seq(13)));
        assert_eq!(w.newest_overlap(&r, Seq(10), Seq(12)), Some(Seq(11)));
        w.retire(Seq(11));
        assert_eq!(w.newest_overlap(&r, Seq(0), Seq(12)), None);
        assert_eq!(w.place(record(14, 0, 1)), Placed::InOrder);
        assert_eq!(w.place(record(15, 0, 1)), Placed::InOrder);
        assert!(!w.has_room());
    }

    #[test]
    fn a_read_sees_nothing_below_what_covers_it() {
        let mut w = window();
        w.place(record(11, 0, 8));
        w.place(record(12, 0, 8));
        w.place(record(13, 2, 2));
        let visible = |w: &Window<_, _>, sector, after| {
            w.oldest_visible(&record(0, sector, 4).range, Seq(after), Seq(14))
        };
        assert_eq!(visible(&w, 0, 10), Some(Seq(12)));
        assert_eq!(visible(&w, 0, 12), Some(Seq(13)));
        assert_eq!(visible(&w, 4, 12), None);
        w.place(Record {
            op: Op::Discard,
            ..record(14, 0, 8)
        });
        assert_eq!(visible(&w, 4, 10), Some(Seq(12)));
    }

    #[test]
    fn the_newest_fua_record_is_known() {
        let mut w = window();
        for (seq, fua) in [(11, true), (12, false), (13, true), (14, false)] {
            w.place(Record {
                fua,
                ..record(seq, 0, 8)
            });
        }
        assert_eq!(w.newest_fua(Seq(10), Seq(14)), Some(Seq(13)));
        assert_eq!(w.newest_fua(Seq(10), Seq(12)), Some(Seq(11)));
        assert_eq!(w.newest_fua(Seq(11), Seq(12)), None);
        assert_eq!(w.newest_fua(Seq(13), Seq(14)), None);
        assert!(w.truncate(Seq(12)));
        assert_eq!(w.newest_fua(Seq(10), Seq(14)), Some(Seq(11)));
        w.retire(Seq(11));
        assert_eq!(w.newest_fua(Seq(10), Seq(14)), None);
    }

    #[test]
    fn truncation_forgets_above_the_fork_only() {
        let mut w = window();
        for s in 11..14 {
            w.place(record(s, 0, 8));
        }
        let chain = w.chain_at(Seq(12));
        assert!(w.truncate(Seq(12)));
        assert_eq!(w.head(), Seq(12));
        assert_eq!(w.chain_at(Seq(12)), chain);
        let r = record(0, 0, 8).range;
        assert_eq!(w.newest_overlap(&r, Seq(10), Seq(20)), Some(Seq(12)));
        assert!(!w.truncate(Seq(9)));
    }
}
