// SPDX-License-Identifier: GPL-2.0

//! Lineage: the epochs of a group's history, oldest first, on disk and on the wire.
//!
//! Holds the data type and its encoding; comparing two lineages is the handshake's business. At
//! most [`MAX_EPOCHS`] epochs are kept, older ones are folded into one [`Before`] mark. The entries
//! are used where they lie (in a superblock or in a received message), never copied to the stack.
//!
//! A kept epoch owns the seqs from its `first` to the one before the next epoch's `first`; it may
//! own none (a primary that crashed twice without a write between).

mod bytes;
mod grow;

use core::fmt;

use zerocopy::FromBytes as _;

use crate::{
    group::numbered,
    units::{EpochId, HostId, Position, Seq},
};

pub use bytes::{Entry, Pos, RawBefore};
pub use grow::LineageMut;

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
    /// The one that owns that seq (the newest that owns any).
    pub epoch: EpochId,
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
            let first = e.epoch().first;
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
            None if seq > Seq::NONE && seq == self.before.last => self.before.epoch,
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

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_lineage))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

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
