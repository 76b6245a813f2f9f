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
    before: EpochId,
}

impl EpochTable {
    /// The table of a lineage. May sleep.
    pub(crate) fn of(lineage: &Lineage<'_>) -> Result<EpochTable> {
        let mut entries = KVec::with_capacity(MAX_EPOCHS, GFP_KERNEL)?;
        for e in lineage.iter() {
            entries.push((e.first, e.id, e.index), GFP_KERNEL)?;
        }
        Ok(EpochTable {
            entries,
            before: lineage.before().epoch,
        })
    }

    /// Id and local number of the epoch that owns `seq`.
    pub(crate) fn at(&self, seq: Seq) -> (EpochId, u32) {
        match self.entries.iter().rev().find(|e| e.0 <= seq) {
            Some((_, id, index)) => (*id, *index),
            None => (self.before, 0),
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
