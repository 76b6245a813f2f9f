// SPDX-License-Identifier: GPL-2.0

//! The lineage as the log worker needs it: which epoch a seq belongs to, without the superblock's mutex.

use kernel::prelude::*;
use replicate_core::{
    lineage::{Lineage, MAX_EPOCHS},
    log::recovery::Epochs,
    units::{EpochId, Seq},
};

/// First seq, id and local number of each kept epoch, oldest first.
pub(crate) struct EpochTable {
    entries: KVec<(Seq, EpochId, u32)>,
    /// The newest folded epoch, and the last seq that it owns.
    before: (EpochId, Seq),
}

impl EpochTable {
    /// A table with room for every lineage, and nothing in it. May sleep.
    pub(crate) fn new() -> Result<EpochTable> {
        Ok(EpochTable {
            entries: KVec::with_capacity(MAX_EPOCHS, GFP_KERNEL)?,
            before: (EpochId::NONE, Seq::NONE),
        })
    }

    /// The table of a lineage. May sleep.
    pub(crate) fn of(lineage: &Lineage<'_>) -> Result<EpochTable> {
        let mut table = EpochTable::new()?;
        table.set(lineage);
        Ok(table)
    }

    /// Makes it the table of a lineage. Needs no memory: for who holds the superblock.
    pub(crate) fn set(&mut self, lineage: &Lineage<'_>) {
        self.entries.clear();
        for e in lineage.iter() {
            // Cannot fail: no lineage has more epochs than there is room.
            let _ = self.entries.push_within_capacity((e.first, e.id, e.index));
        }
        self.before = (lineage.before().epoch, lineage.before().last);
    }

    /// Id and local number of the epoch that owns `seq`.
    pub(crate) fn at(&self, seq: Seq) -> (EpochId, u32) {
        match self.entries.iter().rev().find(|e| e.0 <= seq) {
            Some((_, id, index)) => (*id, *index),
            None if seq == self.before.1 => (self.before.0, 0),
            // Not known any more: no batch may pass for one of it.
            None => (EpochId::NONE, 0),
        }
    }
}

impl Epochs for EpochTable {
    fn epoch_of(&self, seq: Seq) -> (EpochId, Seq) {
        let (id, _) = self.at(seq);
        let next = self.entries.iter().find(|e| e.0 > seq);
        (id, next.map_or(Seq(u64::MAX), |e| e.0.prev()))
    }
}

#[kunit_tests(dm_replicate_epochs)]
mod tests {
    use super::*;
    use replicate_core::lineage::{Before, Entry, Epoch};

    fn entry(id: u8, first: u64) -> Entry {
        Entry::from(Epoch {
            id: EpochId([id; 16]),
            first: Seq(first),
            index: u32::from(id),
            ..Epoch::default()
        })
    }

    #[test]
    fn every_seq_has_the_epoch_that_the_lineage_gives_it() -> Result {
        // Epoch 2 is empty: a primary that crashed twice without a write between.
        let entries = [entry(1, 1), entry(2, 6), entry(3, 6)];
        let lineage = Lineage::new(Before::default(), &entries).map_err(|_| EINVAL)?;
        let table = EpochTable::of(&lineage)?;
        for seq in 1..10 {
            let seq = Seq(seq);
            assert_eq!(
                table.at(seq).0,
                lineage.at(seq).map_or(EpochId::NONE, |e| e.id)
            );
            assert_eq!(table.epoch_of(seq), lineage.epoch_of(seq));
        }
        assert_eq!(table.at(Seq(7)).1, 3);
        Ok(())
    }
}
