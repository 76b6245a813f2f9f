// SPDX-License-Identifier: GPL-2.0

//! Lineage: the epochs of a group's history, oldest first, on disk and on the wire.
//!
//! Holds the data type and its encoding; comparing two lineages is the handshake's business. At
//! most [`MAX_EPOCHS`] epochs are kept, older ones are folded into one [`Before`] mark. The entries
//! are used where they lie (in a superblock or in a received message), never copied to the stack.
//!
//! A kept epoch owns the seqs from its `first` to the one before the next epoch's `first`; it may
//! own none (a primary that crashed twice without a write between).

use core::fmt;

use zerocopy::{
    little_endian::{U16, U32, U64},
    FromBytes as _,
};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    group::numbered,
    units::{EpochId, HostId, Position, Seq},
};

/// Epochs that a lineage keeps.
pub const MAX_EPOCHS: usize = 64;
/// Bytes of one [`Entry`].
pub const ENTRY_BYTES: usize = 64;

numbered! {
    /// Why an epoch began.
    #[derive(Default)]
    Reason {
        /// The group was made.
        #[default]
        Created = 1 "created",
        /// The primary came back after a crash.
        Recovered = 2 "recovered",
        /// A secondary took over.
        TookOver = 3 "took-over",
        /// The role was handed over.
        Migrated = 4 "migrated",
        /// Activated again after a clean stop.
        Reactivated = 5 "reactivated",
    }
}

/// One epoch: an unbroken run of one primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// Its random id.
    pub id: EpochId,
    /// The first seq that belongs to it.
    pub first: Seq,
    /// The primary.
    pub host: HostId,
    /// Why it began.
    pub reason: Reason,
    /// When, ns since 1970 by the primary's clock.
    pub time_ns: u64,
    /// This host's own number for it in batch descriptors; 0 on the wire.
    pub index: u32,
}

/// What is known of the epochs that are no longer kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// How many there were; 0: none, and the rest is zero too.
    pub folded: u32,
    /// The last seq that belongs to them.
    pub last: Seq,
    /// The newest of them.
    pub epoch: EpochId,
}

/// A position as 24 bytes: epoch id, seq.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Pos {
    epoch: [u8; 16],
    seq: U64,
}

impl Pos {
    /// As a position.
    #[must_use]
    pub fn get(&self) -> Position {
        Position {
            epoch: EpochId(self.epoch),
            seq: Seq(self.seq.get()),
        }
    }

    /// Whether all its bytes are zero: no position.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Pos::default()
    }
}

impl From<Position> for Pos {
    fn from(p: Position) -> Pos {
        Pos {
            epoch: p.epoch.0,
            seq: p.seq.0.into(),
        }
    }
}

/// [`Before`] as 32 bytes: epoch id, last seq, count, four zeros.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawBefore {
    epoch: [u8; 16],
    last: U64,
    folded: U32,
    reserved: [u8; 4],
}

impl RawBefore {
    /// As a mark, when it can be one.
    pub fn get(&self) -> Result<Before, LineageError> {
        let b = Before {
            folded: self.folded.get(),
            last: Seq(self.last.get()),
            epoch: EpochId(self.epoch),
        };
        if self.reserved != [0; 4] {
            return Err(LineageError::Reserved);
        }
        if b.epoch.is_none() != (b.folded == 0) || (b.folded == 0 && b.last != Seq::NONE) {
            return Err(LineageError::BadBefore);
        }
        Ok(b)
    }
}

impl From<Before> for RawBefore {
    fn from(b: Before) -> RawBefore {
        RawBefore {
            epoch: b.epoch.0,
            last: b.last.0.into(),
            folded: b.folded.into(),
            reserved: [0; 4],
        }
    }
}

/// [`Epoch`] as 64 bytes: id, host, first seq, time, index, reason, eleven zeros.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Entry {
    id: [u8; 16],
    host: [u8; 16],
    first: U64,
    time_ns: U64,
    index: U32,
    reason: u8,
    reserved: [u8; 11],
}

impl Entry {
    /// An entry that says nothing.
    pub const EMPTY: Entry = Entry {
        id: [0; 16],
        host: [0; 16],
        first: U64::ZERO,
        time_ns: U64::ZERO,
        index: U32::ZERO,
        reason: 0,
        reserved: [0; 11],
    };

    /// As an epoch. Entries within a [`Lineage`] are checked: their reason is known.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch {
            id: EpochId(self.id),
            first: Seq(self.first.get()),
            host: HostId(self.host),
            reason: Reason::from_u8(self.reason).unwrap_or_default(),
            time_ns: self.time_ns.get(),
            index: self.index.get(),
        }
    }
}

impl From<Epoch> for Entry {
    fn from(e: Epoch) -> Entry {
        Entry {
            id: e.id.0,
            host: e.host.0,
            first: e.first.0.into(),
            time_ns: e.time_ns.into(),
            index: e.index.into(),
            reason: e.reason.to_u8(),
            reserved: [0; 11],
        }
    }
}

/// Why entries are no lineage, or why one cannot grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineageError {
    /// More than [`MAX_EPOCHS`].
    TooMany,
    /// The mark for what is folded contradicts itself.
    BadBefore,
    /// An epoch without an id, or two with the same.
    BadId,
    /// An epoch begins before the one before it, or the first not where the folded ones end.
    OutOfOrder,
    /// An epoch that began for a reason that does not exist.
    UnknownReason(u8),
    /// Reserved bytes are not zero.
    Reserved,
    /// The local numbers of epochs are used up.
    NoIndex,
}

impl fmt::Display for LineageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineageError::TooMany => write!(f, "lineage of more than {MAX_EPOCHS} epochs"),
            LineageError::BadBefore => f.write_str("lineage whose mark for folded epochs is wrong"),
            LineageError::BadId => f.write_str("lineage with a missing or repeated epoch id"),
            LineageError::OutOfOrder => f.write_str("lineage whose epochs are out of order"),
            LineageError::UnknownReason(n) => write!(f, "lineage with unknown reason {n}"),
            LineageError::Reserved => f.write_str("lineage with reserved bytes that are not zero"),
            LineageError::NoIndex => f.write_str("no epoch number left on this log"),
        }
    }
}

/// A checked lineage, used where its bytes lie.
#[derive(Clone, Copy, Debug)]
pub struct Lineage<'a> {
    before: Before,
    entries: &'a [Entry],
}

impl<'a> Lineage<'a> {
    /// A lineage without any epoch: nothing has happened yet.
    pub const EMPTY: Lineage<'static> = Lineage {
        before: Before {
            folded: 0,
            last: Seq::NONE,
            epoch: EpochId::NONE,
        },
        entries: &[],
    };

    /// The lineage of these entries, when they are one.
    pub fn new(before: Before, entries: &'a [Entry]) -> Result<Lineage<'a>, LineageError> {
        if entries.len() > MAX_EPOCHS {
            return Err(LineageError::TooMany);
        }
        RawBefore::from(before).get()?;
        let mut seen = entries;
        let mut earlier: Option<Seq> = None;
        for e in entries {
            seen = seen.get(1..).unwrap_or(&[]);
            if e.reserved != [0; 11] {
                return Err(LineageError::Reserved);
            }
            if Reason::from_u8(e.reason).is_none() {
                return Err(LineageError::UnknownReason(e.reason));
            }
            if e.id == [0; 16] || e.id == before.epoch.0 || seen.iter().any(|o| o.id == e.id) {
                return Err(LineageError::BadId);
            }
            let first = Seq(e.first.get());
            let ordered = match earlier {
                None => first == before.last.next(),
                Some(f) => f <= first,
            };
            if !ordered {
                return Err(LineageError::OutOfOrder);
            }
            earlier = Some(first);
        }
        if entries.is_empty() && before.folded != 0 {
            return Err(LineageError::BadBefore);
        }
        Ok(Lineage { before, entries })
    }

    /// The lineage of `count` entries at the start of `bytes`.
    pub fn from_bytes(before: &RawBefore, bytes: &'a [u8]) -> Result<Lineage<'a>, LineageError> {
        let entries = <[Entry]>::ref_from_bytes(bytes).map_err(|_| LineageError::TooMany)?;
        Lineage::new(before.get()?, entries)
    }

    /// What is folded.
    #[must_use]
    pub const fn before(&self) -> Before {
        self.before
    }

    /// The entries as they lie.
    #[must_use]
    pub const fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// How many epochs are kept.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing has happened yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The kept epoch number `i`, oldest first.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<Epoch> {
        self.entries.get(i).map(Entry::epoch)
    }

    /// The kept epochs, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Epoch> + ExactSizeIterator + 'a {
        self.entries.iter().map(Entry::epoch)
    }

    /// The newest epoch.
    #[must_use]
    pub fn newest(&self) -> Option<Epoch> {
        self.entries.last().map(Entry::epoch)
    }

    /// The epoch that owns `seq`; `None` when it is folded or there is none.
    #[must_use]
    pub fn at(&self, seq: Seq) -> Option<Epoch> {
        self.iter().rev().find(|e| e.first <= seq)
    }

    /// The position of `seq`; `None` when its epoch is folded (but for the last folded seq).
    #[must_use]
    pub fn position(&self, seq: Seq) -> Option<Position> {
        let epoch = match self.at(seq) {
            Some(e) => e.id,
            None if self.before.folded > 0 && seq == self.before.last => self.before.epoch,
            None => return None,
        };
        Some(Position { epoch, seq })
    }

    /// The epoch of this id.
    #[must_use]
    pub fn find(&self, id: &EpochId) -> Option<Epoch> {
        self.iter().find(|e| e.id == *id)
    }

    /// The last seq that the epoch of this id may own: `None` when it is unknown or the newest.
    #[must_use]
    pub fn last_seq_of(&self, id: &EpochId) -> Option<Seq> {
        let mut rest = self.iter().skip_while(|e| e.id != *id);
        rest.next()?;
        rest.next().map(|next| next.first.prev())
    }

    /// Whether `p` is a place in this history as far as it is kept: the epoch owns the seq.
    ///
    /// Seq 0 without an epoch is the beginning of every history.
    #[must_use]
    pub fn contains(&self, p: Position) -> bool {
        (p == Position::default()) || self.position(p.seq) == Some(p)
    }
}

/// A lineage that may grow, where it lies in a superblock.
///
/// Every change is checked before the first byte is touched.
#[derive(Debug)]
pub struct LineageMut<'a> {
    /// What is folded.
    pub before: &'a mut RawBefore,
    /// How many of `entries` are used.
    pub count: &'a mut U16,
    /// The last local number that was given to an epoch; only ever goes up.
    pub last_index: &'a mut U32,
    /// The entries; unused ones are zero.
    pub entries: &'a mut [Entry; MAX_EPOCHS],
}

impl LineageMut<'_> {
    /// As a lineage.
    pub fn as_lineage(&self) -> Result<Lineage<'_>, LineageError> {
        let used = self.entries.get(..usize::from(self.count.get()));
        Lineage::new(self.before.get()?, used.ok_or(LineageError::TooMany)?)
    }

    /// Adds the epoch `e` (its index is given here) and returns its local number.
    pub fn push(&mut self, e: Epoch) -> Result<u32, LineageError> {
        let lineage = self.as_lineage()?;
        let newest_first = lineage.newest().map(|n| n.first);
        let start = newest_first.unwrap_or(lineage.before().last.next());
        if e.first < start || (newest_first.is_none() && e.first != start) {
            return Err(LineageError::OutOfOrder);
        }
        if e.id.is_none() || lineage.find(&e.id).is_some() || lineage.before().epoch == e.id {
            return Err(LineageError::BadId);
        }
        let index = self
            .last_index
            .get()
            .checked_add(1)
            .ok_or(LineageError::NoIndex)?;
        if lineage.len() == MAX_EPOCHS {
            self.fold()?;
        }
        let count = self.count.get();
        let entry = self
            .entries
            .get_mut(usize::from(count))
            .ok_or(LineageError::TooMany)?;
        *entry = Entry::from(Epoch { index, ..e });
        self.count.set(count.saturating_add(1));
        self.last_index.set(index);
        Ok(index)
    }

    /// Folds the oldest epoch into the mark.
    fn fold(&mut self) -> Result<(), LineageError> {
        let lineage = self.as_lineage()?;
        let (Some(oldest), Some(next)) = (lineage.get(0), lineage.get(1)) else {
            return Ok(());
        };
        let folded = lineage.before().folded.saturating_add(1);
        *self.before = Before {
            folded,
            last: next.first.prev(),
            epoch: oldest.id,
        }
        .into();
        let count = self.count.get().saturating_sub(1);
        self.entries.rotate_left(1);
        if let Some(last) = self.entries.get_mut(usize::from(count)) {
            *last = Entry::EMPTY;
        }
        self.count.set(count);
        Ok(())
    }

    /// Replaces this lineage by a peer's. Epochs known here keep their local number.
    pub fn adopt(&mut self, peer: &Lineage<'_>) -> Result<(), LineageError> {
        let mine = self.as_lineage()?;
        let mut last = self.last_index.get();
        let mut indices = [0u32; MAX_EPOCHS];
        for (index, e) in indices.iter_mut().zip(peer.iter()) {
            *index = match mine.find(&e.id) {
                Some(known) => known.index,
                None => {
                    last = last.checked_add(1).ok_or(LineageError::NoIndex)?;
                    last
                }
            };
        }
        let count = u16::try_from(peer.len()).map_err(|_| LineageError::TooMany)?;
        let theirs = peer.iter().map(Some).chain(core::iter::repeat(None));
        for ((entry, index), e) in self.entries.iter_mut().zip(indices).zip(theirs) {
            *entry = e.map_or(Entry::EMPTY, |e| Entry::from(Epoch { index, ..e }));
        }
        *self.before = peer.before().into();
        self.count.set(count);
        self.last_index.set(last);
        Ok(())
    }
}

// The sizes that the documents state.
const _: () = assert!(size_of::<Entry>() == ENTRY_BYTES);
const _: () = assert!(size_of::<RawBefore>() == 32 && size_of::<Pos>() == 24);

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_lineage))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    struct Table {
        before: RawBefore,
        count: U16,
        last_index: U32,
        entries: [Entry; MAX_EPOCHS],
    }

    impl Table {
        fn new() -> Table {
            Table {
                before: RawBefore::default(),
                count: U16::ZERO,
                last_index: U32::ZERO,
                entries: [Entry::EMPTY; MAX_EPOCHS],
            }
        }

        fn edit(&mut self) -> LineageMut<'_> {
            LineageMut {
                before: &mut self.before,
                count: &mut self.count,
                last_index: &mut self.last_index,
                entries: &mut self.entries,
            }
        }

        fn push(&mut self, id: u8, first: u64) -> Result<u32, LineageError> {
            self.edit().push(epoch(id, first))
        }
    }

    fn epoch(id: u8, first: u64) -> Epoch {
        Epoch {
            id: EpochId([id; 16]),
            first: Seq(first),
            host: HostId([7; 16]),
            reason: Reason::Recovered,
            time_ns: 5,
            index: 0,
        }
    }

    fn position(id: u8, seq: u64) -> Position {
        Position {
            epoch: EpochId([id; 16]),
            seq: Seq(seq),
        }
    }

    #[test]
    fn owners_of_seqs() {
        let mut t = Table::new();
        assert_eq!(t.push(1, 1), Ok(1));
        assert_eq!(t.push(2, 11), Ok(2));
        assert_eq!(t.push(3, 11), Ok(3));
        assert_eq!(t.push(4, 20), Ok(4));
        let edit = t.edit();
        let l = edit.as_lineage().unwrap_or(Lineage::EMPTY);
        assert_eq!(l.len(), 4);
        assert_eq!(l.position(Seq(1)), Some(position(1, 1)));
        assert_eq!(l.position(Seq(10)), Some(position(1, 10)));
        assert_eq!(l.position(Seq(11)), Some(position(3, 11)));
        assert_eq!(l.position(Seq(99)), Some(position(4, 99)));
        assert_eq!(l.position(Seq(0)), None);
        assert!(l.contains(position(1, 10)));
        assert!(!l.contains(position(1, 11)));
        assert!(!l.contains(position(2, 11)));
        assert!(l.contains(Position::default()));
        assert_eq!(l.last_seq_of(&EpochId([1; 16])), Some(Seq(10)));
        assert_eq!(l.last_seq_of(&EpochId([3; 16])), Some(Seq(19)));
        assert_eq!(l.last_seq_of(&EpochId([4; 16])), None);
        assert_eq!(l.last_seq_of(&EpochId([9; 16])), None);
    }

    #[test]
    fn refuses_to_go_back_or_to_repeat() {
        let mut t = Table::new();
        assert_eq!(t.push(1, 2), Err(LineageError::OutOfOrder));
        assert_eq!(t.push(0, 1), Err(LineageError::BadId));
        assert_eq!(t.push(1, 1), Ok(1));
        assert_eq!(t.push(1, 5), Err(LineageError::BadId));
        assert_eq!(t.push(2, 5), Ok(2));
        assert_eq!(t.push(3, 4), Err(LineageError::OutOfOrder));
    }

    #[test]
    fn the_oldest_is_folded() {
        let mut t = Table::new();
        for i in 0..70u8 {
            assert_eq!(
                t.push(i.saturating_add(1), u64::from(i) * 10 + 1),
                Ok(u32::from(i) + 1)
            );
        }
        let edit = t.edit();
        let l = edit.as_lineage().unwrap_or(Lineage::EMPTY);
        assert_eq!(l.len(), 64);
        assert_eq!(
            l.before(),
            Before {
                folded: 6,
                last: Seq(60),
                epoch: EpochId([6; 16])
            }
        );
        assert_eq!(l.position(Seq(60)), Some(position(6, 60)));
        assert_eq!(l.position(Seq(59)), None);
        assert_eq!(l.position(Seq(61)), Some(position(7, 61)));
    }

    #[test]
    fn adopting_keeps_known_numbers() {
        let mut theirs = Table::new();
        let mut ours = Table::new();
        assert_eq!(ours.push(1, 1), Ok(1));
        assert_eq!(ours.push(2, 10), Ok(2));
        for (id, first) in [(1, 1), (3, 8), (4, 30)] {
            assert!(theirs.push(id, first).is_ok());
        }
        let peer = theirs.edit();
        let adopted = peer.as_lineage().and_then(|l| ours.edit().adopt(&l));
        assert_eq!(adopted, Ok(()));
        let edit = ours.edit();
        let l = edit.as_lineage().unwrap_or(Lineage::EMPTY);
        let mut seen = l.iter().map(|e| (e.id, e.first, e.index));
        assert_eq!(seen.next(), Some((EpochId([1; 16]), Seq(1), 1)));
        assert_eq!(seen.next(), Some((EpochId([3; 16]), Seq(8), 3)));
        assert_eq!(seen.next(), Some((EpochId([4; 16]), Seq(30), 4)));
        assert_eq!(seen.next(), None);
    }

    #[test]
    fn bad_entries_are_refused() {
        let good = [Entry::from(epoch(1, 1)), Entry::from(epoch(2, 5))];
        let with = |f: fn(&mut [Entry; 2])| {
            let mut bad = good;
            f(&mut bad);
            Lineage::new(Before::default(), &bad).err()
        };
        assert_eq!(with(|_| ()), None);
        assert_eq!(with(|b| b.reverse()), Some(LineageError::OutOfOrder));
        assert_eq!(with(|b| b[1].id = [1; 16]), Some(LineageError::BadId));
        assert_eq!(with(|b| b[0].id = [0; 16]), Some(LineageError::BadId));
        assert_eq!(
            with(|b| b[0].reason = 0),
            Some(LineageError::UnknownReason(0))
        );
        assert_eq!(
            with(|b| b[0].reserved[10] = 1),
            Some(LineageError::Reserved)
        );
        let before = Before {
            folded: 1,
            ..Before::default()
        };
        assert_eq!(
            Lineage::new(before, &good).err(),
            Some(LineageError::BadBefore)
        );
    }
}
