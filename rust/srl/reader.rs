// SPDX-License-Identifier: GPL-2.0

//! The bytes of the ring, for whoever reads it: recovery, replay, and a sender whose pages are gone.
//!
//! What to look for and whether it is that is decided by `replicate_core::log::reader`; this fetches the bytes. They
//! come in large reads, also for batches of 8 KiB: a window of the ring moves on with the reader. May sleep.

use super::{zeroed, Srl};
use kernel::prelude::*;
use replicate_core::{
    log::{
        batch::{self, Head},
        format::MAX_BATCH_BYTES,
        reader::{Expected, Found, Verdict},
        ring::{Place, Ring},
    },
    units::{Bytes, Chain, GroupUuid, Record, Seq},
};
use replicate_linux::{bio::SyncIo, digest::crc32c};

/// Why there is no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoBatch {
    /// The device failed.
    Io(Error),
    /// No valid batch lies there.
    NotThere,
}

/// Bytes of a read.
const READ_BYTES: usize = 512 << 10;

/// Bytes of the window: a largest batch, and what is read beyond it.
const WINDOW_BYTES: usize = MAX_BATCH_BYTES as usize + READ_BYTES;

/// A part of the ring in memory, and the batch in it that was verified last.
pub(crate) struct Reader {
    window: KVVec<u8>,
    /// Where the window begins in the ring, and how much of it was read.
    start: Bytes,
    valid: usize,
    group: GroupUuid,
    block: u32,
    ring: Bytes,
    /// Offset and length of the batch.
    batch: Option<(Bytes, usize)>,
    io: SyncIo,
}

impl Reader {
    /// A reader for the ring of `srl`. May sleep.
    pub(crate) fn new(srl: &Srl, group: GroupUuid) -> Result<Reader> {
        Ok(Reader {
            window: zeroed(WINDOW_BYTES)?,
            start: Bytes(0),
            valid: 0,
            group,
            block: srl.block(),
            ring: srl.ring_bytes().ok_or(EINVAL)?,
            batch: None,
            io: SyncIo::new(0, READ_BYTES)?,
        })
    }

    /// Accepts batches of this group from now on; `true` where it was another.
    pub(super) fn set_group(&mut self, group: GroupUuid) -> bool {
        core::mem::replace(&mut self.group, group) != group
    }

    /// Forgets what was read: the ring may have been written since.
    pub(crate) fn forget(&mut self) {
        self.valid = 0;
        self.batch = None;
    }

    /// How many bytes of the window begin at `at`.
    fn held(&self, at: Bytes) -> usize {
        match at.0.checked_sub(self.start.0) {
            Some(skip) => (self.valid as u64).saturating_sub(skip) as usize,
            None => 0,
        }
    }

    /// Bytes of the ring from `place` on: `need` of them, or all up to the end of the ring. May sleep.
    fn bytes(
        &mut self,
        srl: &Srl,
        ring: &Ring,
        place: Place,
        need: usize,
    ) -> Result<&[u8], NoBatch> {
        let at = ring.offset(place);
        let room = self.ring.minus(at).0.min(WINDOW_BYTES as u64) as usize;
        let need = need.min(room);
        let mut held = self.held(at);
        if held < need {
            // What is held of it comes to the front, the rest is read behind it.
            let from = self.valid.saturating_sub(held);
            self.window.copy_within(from..self.valid, 0);
            (self.start, self.valid) = (at, held);
            // Beyond the head nothing is yet that would still be right later.
            let live = match ring.head().0.checked_sub(place.0) {
                None | Some(0) => READ_BYTES,
                Some(live) => live.min(WINDOW_BYTES as u64) as usize,
            };
            let want = held
                .saturating_add(READ_BYTES)
                .min(live)
                .max(need)
                .min(room);
            if self.read(srl, want).is_err() {
                // One bad sector must not hide what lies before it.
                self.read(srl, need).map_err(NoBatch::Io)?;
            }
            held = self.valid;
        }
        let skip = at.minus(self.start).0 as usize;
        let bytes = self.window.get(skip..skip.saturating_add(held));
        bytes.ok_or(NoBatch::NotThere)
    }

    /// Reads the window up to its byte `to`. May sleep.
    fn read(&mut self, srl: &Srl, to: usize) -> Result {
        let at = self.start.plus(Bytes(self.valid as u64));
        let part = self.window.get_mut(self.valid..to).ok_or(EINVAL)?;
        self.io.read(srl.dev(), srl.ring_sector(at), part)?;
        self.valid = to;
        Ok(())
    }

    /// Makes the batch that `expected` names the one that [`Self::records`] shows. May sleep.
    pub(crate) fn batch(
        &mut self,
        srl: &Srl,
        ring: &Ring,
        expected: &Expected,
    ) -> Result<Found, NoBatch> {
        self.batch = None;
        let (group, at) = (self.group, ring.offset(expected.place));
        let mut need = self.block as usize;
        loop {
            let bytes = self.bytes(srl, ring, expected.place, need)?;
            match expected.verify(bytes, ring, &group, |payload| crc32c(0, payload)) {
                Verdict::Batch(head) => {
                    let head = head.batch();
                    self.batch = Some((at, head.length.0 as usize));
                    return Ok(Found::from(&head));
                }
                Verdict::More(n) if n as usize > bytes.len() => need = n as usize,
                Verdict::More(_) | Verdict::NotThere => return Err(NoBatch::NotThere),
            }
        }
    }

    /// Looks for a later batch than `expected` at its place. May sleep.
    pub(crate) fn evidence(
        &mut self,
        srl: &Srl,
        ring: &Ring,
        expected: &Expected,
    ) -> Result<Found, NoBatch> {
        let group = self.group;
        let mut need = self.block as usize;
        loop {
            let bytes = self.bytes(srl, ring, expected.place, need)?;
            match expected.evidence(bytes, ring, &group) {
                Verdict::Batch(head) => return Ok(Found::from(&head.batch())),
                Verdict::More(n) if n as usize > bytes.len() => need = n as usize,
                Verdict::More(_) | Verdict::NotThere => return Err(NoBatch::NotThere),
            }
        }
    }

    /// The batch that was verified last.
    fn head(&self) -> Option<(Head<'_>, &[u8])> {
        let (offset, length) = self.batch?;
        let skip = offset.0.checked_sub(self.start.0)? as usize;
        let bytes = self.window.get(skip..skip.checked_add(length)?)?;
        let place = batch::Place {
            group: self.group,
            offset,
            block: self.block,
            ring: self.ring,
        };
        Some((Head::parse(bytes, &place).ok()?, bytes))
    }

    /// Its records, with their payloads.
    pub(crate) fn records(&self) -> Option<impl Iterator<Item = (Record, &[u8])> + Clone + '_> {
        let (head, bytes) = self.head()?;
        Some(head.records().filter_map(move |(record, at)| {
            let from = at as usize;
            let to = from.checked_add(record.payload_bytes() as usize)?;
            Some((record, bytes.get(from..to)?))
        }))
    }

    /// Chain value after `seq`, which it holds (or precedes by one).
    pub(crate) fn chain_after(&self, seq: Seq) -> Chain {
        let chain = self.head().and_then(|(head, _)| {
            let n = seq.next().since(head.batch().first_seq);
            head.chain_after(u32::try_from(n).ok()?)
        });
        chain.unwrap_or_default()
    }
}
