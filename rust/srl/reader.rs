// SPDX-License-Identifier: GPL-2.0

//! Reading batches back from the ring: recovery, replay, and a sender whose pages are gone.
//!
//! A reader owns one buffer of the largest batch. What it returns was verified: descriptor CRC with the
//! group and epoch, place, and every payload's CRC. It may sleep.

use super::{zeroed, Srl};
use kernel::prelude::*;
use replicate_core::{
    log::{
        batch::{BadBatch, BatchHead, Head, Place as Where},
        format::{BATCH_MAGIC, MAX_BATCH_BYTES},
        recovery::Found,
        ring::{Place, Ring},
    },
    units::{Bytes, Chain, EpochId, GroupUuid, Record, Seq},
};
use replicate_linux::digest::crc32c;

/// Why there is no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoBatch {
    /// The device failed.
    Io(Error),
    /// No valid batch lies there.
    NotThere,
}

/// A batch in memory, and where it came from.
pub(crate) struct Reader {
    buf: KVVec<u8>,
    group: GroupUuid,
    block: u32,
    ring: Bytes,
    at: Bytes,
    valid: usize,
    /// A stretch of the ring, read in one go while batches are looked for block by block.
    ahead: KVVec<u8>,
    ahead_at: Option<Bytes>,
}

/// Bytes of such a stretch.
const AHEAD_BYTES: usize = 1 << 20;

impl Reader {
    /// A reader for the ring of `srl`. May sleep.
    pub(crate) fn new(srl: &Srl, group: GroupUuid) -> Result<Reader> {
        Ok(Reader {
            buf: zeroed(MAX_BATCH_BYTES as usize)?,
            group,
            block: srl.block(),
            ring: srl.ring_bytes().ok_or(EINVAL)?,
            at: Bytes(0),
            valid: 0,
            ahead: KVVec::new(),
            ahead_at: None,
        })
    }

    fn place(&self) -> Where {
        Where {
            group: self.group,
            offset: self.at,
            block: self.block,
            ring: self.ring,
        }
    }

    fn fetch(&mut self, srl: &Srl, from: usize, to: usize) -> Result<(), NoBatch> {
        let sector = srl.ring_sector(self.at.plus(Bytes(from as u64)));
        let part = self.buf.get_mut(from..to).ok_or(NoBatch::NotThere)?;
        srl.dev().read_sync(sector, part).map_err(NoBatch::Io)?;
        self.valid = to;
        Ok(())
    }

    /// Whether a batch may begin at `place`, from a stretch that is read once for many places. For a ring that
    /// nobody writes.
    pub(crate) fn may_begin(
        &mut self,
        srl: &Srl,
        ring: &Ring,
        place: Place,
    ) -> Result<bool, NoBatch> {
        let offset = ring.offset(place);
        if self.ahead.is_empty() {
            self.ahead = zeroed(AHEAD_BYTES).map_err(NoBatch::Io)?;
        }
        let held = self.ahead_at.filter(|at| {
            *at <= offset && offset.minus(*at).0 + BATCH_MAGIC.len() as u64 <= AHEAD_BYTES as u64
        });
        let from = match held {
            Some(at) => at,
            None => {
                self.ahead_at = None;
                let len = self.ring.minus(offset).0.min(AHEAD_BYTES as u64) as usize;
                let part = self.ahead.get_mut(..len).ok_or(NoBatch::NotThere)?;
                srl.dev()
                    .read_sync(srl.ring_sector(offset), part)
                    .map_err(NoBatch::Io)?;
                self.ahead_at = Some(offset);
                offset
            }
        };
        let i = offset.minus(from).0 as usize;
        let found = self.ahead.get(i..i + BATCH_MAGIC.len());
        Ok(found == Some(BATCH_MAGIC.as_slice()))
    }

    /// Reads the descriptor at `place`: verified, but its payloads are not.
    pub(crate) fn descriptor(
        &mut self,
        srl: &Srl,
        ring: &Ring,
        place: Place,
    ) -> Result<(BatchHead, EpochId), NoBatch> {
        self.at = ring.offset(place);
        let room = self.ring.minus(self.at).0.min(u64::from(MAX_BATCH_BYTES)) as usize;
        let mut need = (self.block as usize).min(room);
        self.valid = 0;
        loop {
            self.fetch(srl, self.valid, need)?;
            let bytes = self.buf.get(..self.valid).unwrap_or(&[]);
            match Head::parse(bytes, &self.place()) {
                Ok(head) if head.batch().lap == ring.lap(place) => {
                    return Ok((head.batch(), head.epoch()))
                }
                Err(BadBatch::Short { need: n })
                    if n as usize > self.valid && n as usize <= room =>
                {
                    need = n as usize;
                }
                Ok(_) | Err(_) => return Err(NoBatch::NotThere),
            }
        }
    }

    /// Reads the whole batch at `place` and verifies every payload.
    pub(crate) fn batch(
        &mut self,
        srl: &Srl,
        ring: &Ring,
        place: Place,
    ) -> Result<(BatchHead, EpochId), NoBatch> {
        let (head, epoch) = self.descriptor(srl, ring, place)?;
        let length = head.length.0 as usize;
        if length > self.valid {
            self.fetch(srl, self.valid, length)?;
        }
        let ok = self
            .records()
            .ok_or(NoBatch::NotThere)?
            .all(|(r, payload)| {
                payload.len() == r.payload_bytes() as usize && crc32c(0, payload) == r.payload_crc
            });
        if ok {
            Ok((head, epoch))
        } else {
            Err(NoBatch::NotThere)
        }
    }

    /// The records of the batch that was read last, with their payloads.
    pub(crate) fn records(&self) -> Option<impl Iterator<Item = (Record, &[u8])> + '_> {
        let bytes = self.buf.get(..self.valid)?;
        let head = Head::parse(bytes, &self.place()).ok()?;
        let n = head.batch().count;
        Some((0..n).filter_map(move |i| {
            let record = head.record(i)?;
            let from = head.payload_offset(i)? as usize;
            let to = from.checked_add(record.payload_bytes() as usize)?;
            Some((record, bytes.get(from..to)?))
        }))
    }

    /// Chain value after `seq`, which the batch read last holds (or precedes by one).
    pub(crate) fn chain_after(&self, head: &BatchHead, seq: Seq) -> Chain {
        let mut chain = head.chain;
        if let Some(records) = self.records() {
            for (r, _) in records.take_while(|(r, _)| r.seq <= seq) {
                chain = replicate_core::record::chain_record(chain, &r).unwrap_or(chain);
            }
        }
        chain
    }
}

/// The head as recovery wants it.
pub(crate) fn found(head: &BatchHead) -> Found {
    Found {
        first: head.first_seq,
        last: head.last_seq(),
        length: head.length,
        durable: head.durable,
    }
}
