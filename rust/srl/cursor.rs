// SPDX-License-Identifier: GPL-2.0

//! Reading the log in order: replay, and a sender that has fallen out of memory.
//!
//! A cursor finds the batch of a seq by the index, then walks from batch to batch as the scan does
//! (`replicate_core::log::reader`). What it holds ends with the log's generation. It may sleep.

use super::{
    reader::{NoBatch, Reader},
    Srl,
};
use crate::group::Group;
use kernel::prelude::*;
use replicate_core::{
    log::{
        reader::Walk,
        recovery::Epochs,
        ring::{Mark, Ring},
    },
    node::{Log, Store},
    units::{Chain, GroupUuid, Record, Seq},
};

/// See the module.
pub(crate) struct Cursor {
    reader: Reader,
    /// The way on from the loaded batch.
    walk: Option<Walk>,
    /// Seqs of the loaded batch that count.
    loaded: Option<(Seq, Seq)>,
    /// Generation of the log that this is of.
    generation: u32,
}

impl Cursor {
    /// A cursor over the ring of `srl`. May sleep.
    pub(crate) fn new(srl: &Srl, uuid: GroupUuid) -> Result<Cursor> {
        Ok(Cursor {
            reader: Reader::new(srl, uuid)?,
            walk: None,
            loaded: None,
            generation: 0,
        })
    }

    /// Reads the log of this group from now on.
    pub(crate) fn set_group(&mut self, uuid: GroupUuid) {
        if self.reader.set_group(uuid) {
            self.forget();
        }
    }

    /// Makes the batch that holds `seq` the loaded one. `NotThere`: the log does not hold it (any more). May sleep.
    pub(crate) fn seek(&mut self, group: &Group, seq: Seq) -> Result<(), NoBatch> {
        loop {
            let (ring, mark) = self.look_up(group, seq)?;
            if self.holds(seq) {
                return Ok(());
            }
            // Going on from where we are is as good as the index, and usually exact.
            let mut walk = match (self.walk, mark) {
                (Some(walk), _) if walk.first() == seq => walk,
                (_, Some(mark)) => Walk::at(mark),
                (_, None) => return Err(NoBatch::NotThere),
            };
            (self.walk, self.loaded) = (None, None);
            let found = loop {
                let first = walk.first();
                match self.load(group, &ring, &mut walk) {
                    Ok(last) if seq <= last => {
                        (self.walk, self.loaded) = (Some(walk), Some((first, last)));
                        break Ok(());
                    }
                    Ok(_) => {}
                    Err(e) => break Err(e),
                }
            };
            // Disowned while we read: what was found is worth nothing, and what was not may be there.
            if self.is_current(group) {
                return found;
            }
        }
    }

    fn holds(&self, seq: Seq) -> bool {
        self.loaded
            .is_some_and(|(first, last)| first <= seq && seq <= last)
    }

    /// Where to begin for `seq`. Forgets what is of another generation.
    fn look_up(&mut self, group: &Group, seq: Seq) -> Result<(Ring, Option<Mark>), NoBatch> {
        let (ring, mark, generation) = {
            let inner = group.inner.lock();
            let Log::Ring(w) = &inner.node.log else {
                return Err(NoBatch::NotThere);
            };
            if seq > w.written_prefix() {
                return Err(NoBatch::NotThere);
            }
            (w.ring, w.index.find(seq), w.generation())
        };
        if generation != self.generation {
            self.forget();
            self.generation = generation;
        }
        Ok((ring, mark))
    }

    fn is_current(&self, group: &Group) -> bool {
        self.is_of(&group.inner.lock().node.log)
    }

    /// Whether what is loaded is still what `log` holds: for a caller that has the order lock.
    pub(crate) fn is_of<M: Store<Mark>>(&self, log: &Log<M>) -> bool {
        matches!(log, Log::Ring(w) if w.generation() == self.generation)
    }

    /// Reads the batch that comes next on `walk`; its last record that counts. May sleep.
    fn load(&mut self, group: &Group, ring: &Ring, walk: &mut Walk) -> Result<Seq, NoBatch> {
        let mut fresh = false;
        loop {
            let epoch = group.inner.lock().epochs.epoch_of(walk.first());
            let expected = walk.expected(ring, &epoch);
            match self.reader.batch(&group.srl, ring, &expected) {
                Ok(found) => {
                    let reader = &self.reader;
                    return Ok(walk.found(&found, ring, &epoch, |seq| reader.chain_after(seq)));
                }
                // The window may be older than the batch.
                Err(NoBatch::NotThere) if !fresh => {
                    self.reader.forget();
                    fresh = true;
                }
                Err(NoBatch::NotThere) if walk.absent(ring) => fresh = false,
                Err(e) => return Err(e),
            }
        }
    }

    /// The records of the loaded batch that count, with their payloads.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Record, &[u8])> + Clone + '_ {
        let (first, last) = self.loaded.unwrap_or((Seq(1), Seq::NONE));
        self.reader
            .records()
            .into_iter()
            .flatten()
            .filter(move |(r, _)| first <= r.seq && r.seq <= last)
    }

    /// Chain value after `seq`, a record of the loaded batch.
    pub(crate) fn chain_after(&self, seq: Seq) -> Chain {
        self.reader.chain_after(seq)
    }

    /// Forgets what is loaded.
    pub(crate) fn forget(&mut self) {
        self.loaded = None;
        self.walk = None;
        self.reader.forget();
    }
}
