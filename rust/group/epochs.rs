// SPDX-License-Identifier: GPL-2.0

//! The lineage as the log worker needs it: which epoch a seq belongs to, without the superblock's mutex.

use replicate_core::{
    lineage::{Lineage, MAX_EPOCHS},
    log::recovery::Epochs,
    units::{EpochId, Seq},
};

/// First seq, id and local number of each kept epoch, oldest first.
#[derive(Clone)]
pub(crate) struct EpochTable {
    entries: [(Seq, EpochId, u32); MAX_EPOCHS],
    len: usize,
    before: EpochId,
}

impl EpochTable {
    /// The table of a lineage.
    pub(crate) fn of(lineage: &Lineage<'_>) -> EpochTable {
        let mut t = EpochTable {
            entries: [(Seq::NONE, EpochId::NONE, 0); MAX_EPOCHS],
            len: 0,
            before: lineage.before().epoch,
        };
        for (to, e) in t.entries.iter_mut().zip(lineage.iter()) {
            *to = (e.first, e.id, e.index);
            t.len += 1;
        }
        t
    }

    fn live(&self) -> &[(Seq, EpochId, u32)] {
        self.entries.get(..self.len).unwrap_or(&[])
    }

    /// Id and local number of the epoch that owns `seq`.
    pub(crate) fn at(&self, seq: Seq) -> (EpochId, u32) {
        match self.live().iter().rev().find(|e| e.0 <= seq) {
            Some((_, id, index)) => (*id, *index),
            None => (self.before, 0),
        }
    }
}

impl Epochs for EpochTable {
    fn epoch_of(&self, seq: Seq) -> (EpochId, Seq) {
        let (id, _) = self.at(seq);
        let next = self.live().iter().find(|e| e.0 > seq);
        (id, next.map_or(Seq(u64::MAX), |e| e.0.prev()))
    }
}
