// SPDX-License-Identifier: GPL-2.0

//! A lineage that grows: a new epoch, the oldest folded away, a peer's lineage adopted.
//!
//! Works where the lineage lies in a superblock; nothing is durable until that is written.

use zerocopy::little_endian::{U16, U32};

use super::{Before, Entry, Epoch, Lineage, LineageError, RawBefore, MAX_EPOCHS};

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
    ///
    /// Epochs that begin above it go: this host adopted them, but has no record of them, and what it says
    /// from now on is another history. A replica that takes over before it caught up is in that place.
    pub fn push(&mut self, e: Epoch) -> Result<u32, LineageError> {
        self.push_within(e, MAX_EPOCHS)
    }

    /// The same, with `most` epochs kept at most (1 to [`MAX_EPOCHS`]).
    pub fn push_within(&mut self, e: Epoch, most: usize) -> Result<u32, LineageError> {
        let lineage = self.as_lineage()?;
        let kept = lineage.iter().take_while(|k| k.first <= e.first).count();
        let newest_first = kept
            .checked_sub(1)
            .and_then(|i| lineage.get(i))
            .map(|n| n.first);
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
        if kept < lineage.len() {
            self.entries
                .iter_mut()
                .skip(kept)
                .for_each(|gone| *gone = Entry::EMPTY);
            self.count
                .set(u16::try_from(kept).map_err(|_| LineageError::TooMany)?);
        }
        for _ in most.clamp(1, MAX_EPOCHS)..kept.saturating_add(1) {
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
        let before = lineage.before();
        let last = next.first.prev();
        // An epoch that owns nothing leaves the owner of the last folded seq as it is.
        let owner = if before.folded > 0 && last == before.last {
            before.epoch
        } else {
            oldest.id
        };
        *self.before = Before {
            folded: before.folded.saturating_add(1),
            last,
            epoch: owner,
        }
        .into();
        let count = self.count.get();
        // What lies behind the entries in use stays empty, or no start takes the superblock.
        if let Some(used) = self.entries.get_mut(..usize::from(count)) {
            used.rotate_left(1);
            if let Some(last) = used.last_mut() {
                *last = Entry::EMPTY;
            }
        }
        self.count.set(count.saturating_sub(1));
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

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_lineage_grow))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::{
        lineage::Reason,
        units::{EpochId, HostId, Position, Seq},
    };

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
        assert_eq!(t.push(3, 0), Err(LineageError::OutOfOrder));
    }

    #[test]
    fn an_epoch_below_others_drops_them() {
        let mut t = Table::new();
        assert_eq!(t.push(1, 1), Ok(1));
        assert_eq!(t.push(2, 5), Ok(2));
        assert_eq!(t.push(3, 9), Ok(3));
        assert_eq!(t.push(4, 5), Ok(4));
        let edit = t.edit();
        let l = edit.as_lineage().unwrap_or(Lineage::EMPTY);
        let mut seen = l.iter().map(|e| (e.id, e.first));
        assert_eq!(seen.next(), Some((EpochId([1; 16]), Seq(1))));
        assert_eq!(seen.next(), Some((EpochId([2; 16]), Seq(5))));
        assert_eq!(seen.next(), Some((EpochId([4; 16]), Seq(5))));
        assert_eq!(seen.next(), None);
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
        let mut ours = Table::new();
        assert_eq!(ours.push(1, 1), Ok(1));
        assert_eq!(ours.push(2, 10), Ok(2));
        let theirs = [(1, 1), (3, 8), (4, 30)].map(|(id, first)| Entry::from(epoch(id, first)));
        let peer = Lineage::new(Before::default(), &theirs);
        let adopted = peer.and_then(|l| ours.edit().adopt(&l));
        assert_eq!(adopted, Ok(()));
        let edit = ours.edit();
        let l = edit.as_lineage().unwrap_or(Lineage::EMPTY);
        let mut seen = l.iter().map(|e| (e.id, e.first, e.index));
        assert_eq!(seen.next(), Some((EpochId([1; 16]), Seq(1), 1)));
        assert_eq!(seen.next(), Some((EpochId([3; 16]), Seq(8), 3)));
        assert_eq!(seen.next(), Some((EpochId([4; 16]), Seq(30), 4)));
        assert_eq!(seen.next(), None);
    }
}
