// SPDX-License-Identifier: GPL-2.0

//! Reading the log in order: replay, and a sender that has fallen out of memory.
//!
//! A cursor finds the batch of a seq by the index, then goes from batch to batch. A batch that a later
//! lineage cut in the middle counts up to the cut; the rest of it never was. It may sleep.

use super::{
    reader::{NoBatch, Reader},
    Srl,
};
use crate::group::Group;
use kernel::prelude::*;
use replicate_core::{
    log::{
        recovery::Epochs,
        ring::{Place, Ring},
    },
    node::Log,
    units::{GroupUuid, Record, Seq},
};

/// See the module.
pub(crate) struct Cursor {
    reader: Reader,
    /// Where the batch after the loaded one lies, and its first seq.
    next: Option<(Place, Seq)>,
    /// Seqs of the loaded batch that count.
    loaded: Option<(Seq, Seq)>,
}

impl Cursor {
    /// A cursor over the ring of `srl`. May sleep.
    pub(crate) fn new(srl: &Srl, uuid: GroupUuid) -> Result<Cursor> {
        Ok(Cursor {
            reader: Reader::new(srl, uuid)?,
            next: None,
            loaded: None,
        })
    }

    /// Makes the batch that holds `seq` the loaded one. `NotThere`: the log does not hold it (any more).
    pub(crate) fn seek(&mut self, group: &Group, seq: Seq) -> Result<(), NoBatch> {
        if self
            .loaded
            .is_some_and(|(first, last)| first <= seq && seq <= last)
        {
            return Ok(());
        }
        let (ring, mark) = {
            let inner = group.inner.lock();
            let Log::Ring(w) = &inner.node.log else {
                return Err(NoBatch::NotThere);
            };
            if seq > w.written_prefix() {
                return Err(NoBatch::NotThere);
            }
            (w.ring, w.index.find(seq))
        };
        // Going on from where we are is as good as the index, and usually exact.
        let start = match (self.next, mark) {
            (Some((place, first)), _) if first == seq => (place, first),
            (_, Some(m)) => (m.place, m.first),
            (_, None) => return Err(NoBatch::NotThere),
        };
        let (mut place, mut first) = start;
        loop {
            let (at, last, length) = self.load(group, &ring, place, first)?;
            place = Place(at.0.saturating_add(length));
            self.next = Some((place, last.next()));
            self.loaded = Some((first, last));
            if seq <= last {
                return Ok(());
            }
            first = last.next();
        }
    }

    /// Reads the batch that begins with `first` at `place`, or at the start of the next lap.
    fn load(
        &mut self,
        group: &Group,
        ring: &Ring,
        place: Place,
        first: Seq,
    ) -> Result<(Place, Seq, u64), NoBatch> {
        self.loaded = None;
        self.next = None;
        let bound = {
            let inner = group.inner.lock();
            let (_, bound) = inner.epochs.epoch_of(first);
            bound
        };
        for at in [place, ring.next_lap(place)] {
            match self.reader.batch(&group.srl, ring, at) {
                Ok((head, _)) if head.first_seq == first => {
                    return Ok((at, head.last_seq().min(bound), head.length.0))
                }
                Ok(_) | Err(NoBatch::NotThere) => {}
                Err(e) => return Err(e),
            }
        }
        Err(NoBatch::NotThere)
    }

    /// The records of the loaded batch that count, with their payloads.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Record, &[u8])> + '_ {
        let (first, last) = self.loaded.unwrap_or((Seq(1), Seq::NONE));
        self.reader
            .records()
            .into_iter()
            .flatten()
            .filter(move |(r, _)| first <= r.seq && r.seq <= last)
    }

    /// Forgets what is loaded: the log may have been rewritten (a new lineage).
    pub(crate) fn forget(&mut self) {
        self.loaded = None;
        self.next = None;
    }
}
