// SPDX-License-Identifier: GPL-2.0

//! The ring: where batches lie, and exactly how much room there is.
//!
//! Places are absolute: bytes since the ring was made, `lap * size + offset`. What is used is then
//! `head - tail`, with nothing to drift. A batch does not wrap: where it does not fit before the end
//! the rest of the lap is skipped, which costs at most one largest batch between head and tail. That
//! much is kept aside for ever, so a record that was admitted always finds its place:
//!
//! `used + reserved + MAX_BATCH <= size`, where a reservation is the cost of the record alone in a batch.
//! Any grouping costs at most the sum of its records' reservations (see `batch::worst_case_bytes`).

use crate::{
    log::format::MAX_BATCH_BYTES,
    node::Store,
    units::{Bytes, Chain, Seq},
};

/// An absolute place in the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u64);

/// Where a batch lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Its first record.
    pub first: Seq,
    /// Its place.
    pub place: Place,
    /// Chain value before its first record.
    pub chain: Chain,
}

/// Space and head of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ring {
    size: u64,
    block: u32,
    head: Place,
    tail: Place,
    reserved: u64,
}

impl Ring {
    /// A ring of `size` bytes (a multiple of `block`) whose live part is `[tail, head)`.
    pub fn new(size: Bytes, block: u32, tail: Place, head: Place) -> Self {
        Ring {
            size: size.0,
            block,
            head,
            tail,
            reserved: 0,
        }
    }

    /// Its size.
    pub fn size(&self) -> Bytes {
        Bytes(self.size)
    }

    /// Unit in which everything in it starts and ends.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// Where the next batch would go if it fits.
    pub fn head(&self) -> Place {
        self.head
    }

    /// Start of the live part.
    pub fn tail(&self) -> Place {
        self.tail
    }

    /// Bytes between tail and head.
    pub fn used(&self) -> Bytes {
        Bytes(self.head.0.saturating_sub(self.tail.0))
    }

    /// What could still be set aside for records.
    pub fn free(&self) -> Bytes {
        Bytes(self.size)
            .minus(self.used())
            .minus(Bytes(self.reserved))
            .minus(Bytes(u64::from(MAX_BATCH_BYTES)))
    }

    /// Byte offset of `place` within the ring.
    pub fn offset(&self, place: Place) -> Bytes {
        Bytes(place.0.checked_rem(self.size).unwrap_or(0))
    }

    /// Lap of `place`.
    pub fn lap(&self, place: Place) -> u64 {
        place.0.checked_div(self.size).unwrap_or(0)
    }

    /// First place of the lap after `place`.
    pub fn next_lap(&self, place: Place) -> Place {
        Place(self.lap(place).saturating_add(1).saturating_mul(self.size))
    }

    /// Sets aside `cost` bytes for a record; `false` when the ring is full.
    #[must_use]
    pub fn reserve(&mut self, cost: Bytes) -> bool {
        if !self.has_room(cost) {
            return false;
        }
        self.reserved = self.reserved.saturating_add(cost.0);
        true
    }

    /// Whether `cost` more bytes could be set aside.
    pub fn has_room(&self, cost: Bytes) -> bool {
        self.used()
            .plus(Bytes(self.reserved))
            .plus(cost)
            .plus(Bytes(u64::from(MAX_BATCH_BYTES)))
            .0
            <= self.size
    }

    /// Where a batch of `length` bytes goes: at the head, or at the start of the next lap.
    fn fit(&self, length: Bytes) -> Place {
        if self.offset(self.head).plus(length).0 <= self.size {
            self.head
        } else {
            self.next_lap(self.head)
        }
    }

    /// Places a batch of `length` bytes and gives back its records' reservations.
    pub fn place(&mut self, length: Bytes, reserved: Bytes) -> Place {
        let at = self.fit(length);
        self.head = Place(at.0.saturating_add(length.0));
        self.reserved = self.reserved.saturating_sub(reserved.0);
        at
    }

    /// Gives back a reservation whose record was never placed.
    pub fn unreserve(&mut self, cost: Bytes) {
        self.reserved = self.reserved.saturating_sub(cost.0);
    }

    /// Frees everything: the live part becomes empty at the head.
    pub fn restart(&mut self) {
        self.tail = self.head;
        self.reserved = 0;
    }

    /// Moves the head back to `place`: what lay beyond is disowned. Never passes the tail.
    pub fn rewind(&mut self, place: Place) {
        self.head = place.max(self.tail).min(self.head);
    }

    /// Frees everything before `place`. Never moves back, never passes the head.
    pub fn free_to(&mut self, place: Place) {
        self.tail = place.max(self.tail).min(self.head);
    }
}

/// A sparse list of batches between tail and head: finds a place to start reading from.
///
/// Holds every batch as long as they fit; when full it forgets every second one, so any seq is
/// found within a few batches by reading on from the mark before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Index<S> {
    marks: S,
    len: usize,
    stride: u64,
}

impl<S: Store<Mark>> Index<S> {
    /// An empty index.
    pub fn new(marks: S) -> Self {
        Index {
            marks,
            len: 0,
            stride: 0,
        }
    }

    fn live(&self) -> &[Mark] {
        self.marks.as_ref().get(..self.len).unwrap_or(&[])
    }

    /// Adds the newest batch.
    pub fn push(&mut self, mark: Mark) {
        if let Some(last) = self.live().last() {
            if mark.place.0 < last.place.0.saturating_add(self.stride) {
                return;
            }
        }
        if self.len == self.marks.as_ref().len() {
            self.thin();
        }
        if let Some(m) = self.marks.as_mut().get_mut(self.len) {
            *m = mark;
            self.len = self.len.saturating_add(1);
        }
    }

    /// Keeps every second mark and doubles the stride.
    fn thin(&mut self) {
        let (first, last) = match (self.live().first(), self.live().last()) {
            (Some(f), Some(l)) => (f.place.0, l.place.0),
            _ => return,
        };
        let marks = self.marks.as_mut();
        let mut kept = 0usize;
        for i in (0..self.len).step_by(2) {
            if let Some(m) = marks.get(i).copied() {
                if let Some(to) = marks.get_mut(kept) {
                    *to = m;
                    kept = kept.saturating_add(1);
                }
            }
        }
        self.len = kept;
        let average = last
            .saturating_sub(first)
            .checked_div(kept as u64)
            .unwrap_or(0);
        self.stride = self.stride.max(average / 2);
    }

    /// The oldest mark.
    pub fn first(&self) -> Option<Mark> {
        self.live().first().copied()
    }

    /// The last mark whose first record is at or before `seq`.
    pub fn find(&self, seq: Seq) -> Option<Mark> {
        let live = self.live();
        let n = live.partition_point(|m| m.first <= seq);
        live.get(n.checked_sub(1)?).copied()
    }

    /// Forgets the marks before the one that [`Self::find`] gives for `seq`, and returns that one.
    pub fn advance_to(&mut self, seq: Seq) -> Option<Mark> {
        let n = self
            .live()
            .partition_point(|m| m.first <= seq)
            .checked_sub(1)?;
        let len = self.len;
        self.marks.as_mut().get_mut(..len)?.rotate_left(n);
        self.len = len.saturating_sub(n);
        self.live().first().copied()
    }

    /// Forgets every mark.
    pub fn clear(&mut self) {
        self.len = 0;
        self.stride = 0;
    }

    /// Forgets every mark whose first record is above `seq`.
    pub fn truncate(&mut self, seq: Seq) {
        self.len = self.live().partition_point(|m| m.first <= seq);
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_ring))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_reserved_batch_always_fits_even_across_the_wrap() {
        let mut r = Ring::new(Bytes(8 * MIB), 4096, Place(0), Place(0));
        let mut live = [(Place(0), 0u64); 8];
        let mut n = 0usize;
        for i in 0..1000u64 {
            let len = Bytes((i % 5 + 1) * 300 * 4096 / 4);
            while !r.reserve(len) {
                // Free the oldest.
                r.free_to(Place(live[0].0 .0 + live[0].1));
                live.rotate_left(1);
                n -= 1;
            }
            let at = r.place(len, len);
            assert!(r.offset(at).0 + len.0 <= 8 * MIB);
            assert!(r.used().0 <= 8 * MIB);
            assert!(n < 8);
            live[n] = (at, len.0);
            n += 1;
        }
    }

    #[test]
    fn the_index_finds_the_batch_before_any_seq() {
        let mut ix = Index::new([Mark::default(); 4]);
        for i in 0..100u64 {
            ix.push(Mark {
                first: Seq(1 + 3 * i),
                place: Place(4096 * i),
                chain: Chain(0),
            });
        }
        let m = ix.find(Seq(200)).map(|m| m.first);
        assert!(m.is_some());
        assert!(m <= Some(Seq(200)));
        assert!(ix.find(Seq(0)).is_none());
        let t = ix.advance_to(Seq(250));
        assert!(t.is_some());
        assert_eq!(ix.find(Seq(250)).map(|m| m.first), t.map(|m| m.first));
    }
}
