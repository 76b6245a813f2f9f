// SPDX-License-Identifier: GPL-2.0

//! Properties of lineages: owners of seqs, folding, and local numbers that are never used twice.

mod common;

use proptest::prelude::*;
use replicate_core::{
    lineage::{Entry, Epoch, LineageError, LineageMut, RawBefore, MAX_EPOCHS},
    units::{EpochId, Position, Seq},
};
use zerocopy::little_endian::{U16, U32};

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
            count: U16::new(0),
            last_index: U32::new(0),
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
}

/// Gaps between the first seqs of epochs 1, 2, 3...
fn gaps() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0u64..6, 1..150)
}

fn id(n: usize) -> EpochId {
    let mut id = [1u8; 16];
    id[..8].copy_from_slice(&(n as u64).to_le_bytes());
    EpochId(id)
}

proptest! {
    /// Folded or not, a lineage gives every seq the owner that the whole history gives it.
    #[test]
    fn folding_forgets_but_never_lies(gaps in gaps()) {
        let mut table = Table::new();
        // The owner of seq n is in place n - 1.
        let mut owner = Vec::new();
        let mut first = 1;
        for (i, gap) in gaps.iter().enumerate() {
            let e = Epoch { id: id(i), first: Seq(first), ..Epoch::default() };
            prop_assert_eq!(table.edit().push(e), Ok(i as u32 + 1));
            owner.extend((0..*gap).map(|_| id(i)));
            first += gap;
        }
        let edit = table.edit();
        let l = edit.as_lineage().unwrap();
        prop_assert_eq!(l.len(), gaps.len().min(MAX_EPOCHS));
        prop_assert_eq!(l.before().folded as usize, gaps.len() - l.len());
        for seq in 1..first {
            let truth = Position { epoch: owner[seq as usize - 1], seq: Seq(seq) };
            match l.position(Seq(seq)) {
                Some(p) => {
                    prop_assert_eq!(p, truth);
                    prop_assert!(l.contains(p));
                }
                None => prop_assert!(Seq(seq) < l.before().last),
            }
        }
    }

    /// Whatever is adopted, a local number means one epoch for ever.
    #[test]
    fn local_numbers_are_never_used_twice(
        peers in prop::collection::vec(common::lineage(), 1..6),
        keep in prop::collection::vec(any::<bool>(), 6),
    ) {
        let mut table = Table::new();
        let mut meaning: Vec<(u32, EpochId)> = Vec::new();
        let mut last = 0;
        for (peer, keep) in peers.iter().zip(keep) {
            if keep {
                // A primary that recovers on its own between two adoptions.
                let newest = table.edit().as_lineage().unwrap().newest();
                let first = newest.map_or(table.edit().as_lineage().unwrap().before().last.next(), |n| n.first);
                let e = Epoch { id: id(900 + last as usize), first, ..Epoch::default() };
                prop_assert!(matches!(table.edit().push(e), Ok(_) | Err(LineageError::BadId)));
            }
            let theirs = common::as_lineage(peer);
            table.edit().adopt(&theirs).unwrap();
            let edit = table.edit();
            let l = edit.as_lineage().unwrap();
            prop_assert_eq!(l.before(), theirs.before());
            let bare = l.iter().map(|e| Epoch { index: 0, ..e });
            prop_assert!(bare.eq(theirs.iter()));
            let mut seen = Vec::new();
            for e in l.iter() {
                prop_assert!(e.index > 0 && !seen.contains(&e.index));
                seen.push(e.index);
                match meaning.iter().find(|m| m.0 == e.index) {
                    Some(m) => prop_assert_eq!(m.1, e.id),
                    None => meaning.push((e.index, e.id)),
                }
            }
            prop_assert!(edit.last_index.get() >= last);
            last = edit.last_index.get();
        }
    }
}
