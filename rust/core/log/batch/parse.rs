// SPDX-License-Identifier: GPL-2.0

//! Believing a batch: the used part of the descriptor is covered by its CRC, the rest must be zero (a sector of
//! it that is not was torn off); then every field is checked.
//!
//! What is checked here is true of a batch by itself at its place in a ring of a group. Whether it
//! is the *expected* one (seq, epoch, lap, chain) is decided by the recovery scan.

use core::fmt;

use zerocopy::FromBytes as _;

use super::{batch_bytes, descriptor_bytes, descriptor_crc, used_bytes, BatchHead};
use crate::{
    log::format::{
        is_block, BatchHeader, BATCH_HEADER_BYTES, BATCH_MAGIC, MAX_BATCH_BYTES, MAX_BATCH_RECORDS,
        VERSION,
    },
    record::{self, RecordError, RECORD_BYTES},
    units::{Bytes, Chain, EpochId, GroupUuid, Record, Seq},
};

/// Where a batch is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The group of the log.
    pub group: GroupUuid,
    /// Offset from the start of the ring.
    pub offset: Bytes,
    /// Block of the log.
    pub block: u32,
    /// Length of the ring.
    pub ring: Bytes,
}

/// Why the bytes at a place are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBatch {
    /// No batch begins here.
    NotABatch,
    /// A batch of another format version.
    Version(u16),
    /// More bytes are needed to tell: read this many and parse again.
    Short {
        /// Length of the descriptor.
        need: u32,
    },
    /// The number of records or the descriptor's length is impossible.
    Count,
    /// Damaged, torn, or of another group.
    Crc,
    /// A batch that was written elsewhere.
    Offset,
    /// The length does not fit the records, or the ring.
    Length,
    /// Its first seq is zero, too large, or not above what was durable.
    Seq,
    /// Reserved bytes are not zero.
    Reserved,
    /// One of its records is none.
    Record(RecordError),
}

impl fmt::Display for BadBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadBatch::NotABatch => f.write_str("no batch here"),
            BadBatch::Version(v) => write!(f, "batch of format version {v}"),
            BadBatch::Short { need } => write!(f, "batch descriptor of {need} bytes cut short"),
            BadBatch::Count => f.write_str("batch with an impossible number of records"),
            BadBatch::Crc => f.write_str("batch descriptor with a wrong checksum"),
            BadBatch::Offset => f.write_str("batch that belongs to another place"),
            BadBatch::Length => f.write_str("batch with an impossible length"),
            BadBatch::Seq => f.write_str("batch with impossible sequence numbers"),
            BadBatch::Reserved => f.write_str("batch with reserved bytes that are not zero"),
            BadBatch::Record(e) => write!(f, "batch with a bad record: {e}"),
        }
    }
}

/// A descriptor that is whole and makes sense.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    batch: BatchHead,
    epoch: EpochId,
    descriptor: u32,
    records: &'a [u8],
}

impl<'a> Head<'a> {
    /// Parses the descriptor at the start of `bytes`, which were read at `place`.
    pub fn parse(bytes: &'a [u8], place: &Place) -> Result<Head<'a>, BadBatch> {
        let least = descriptor_bytes(1, place.block);
        let Ok((h, _)) = BatchHeader::ref_from_prefix(bytes) else {
            return Err(BadBatch::Short { need: least });
        };
        if h.magic != BATCH_MAGIC {
            return Err(BadBatch::NotABatch);
        }
        if u32::from(h.version.get()) != VERSION {
            return Err(BadBatch::Version(h.version.get()));
        }
        let count = u32::from(h.count.get());
        if count == 0 || count > MAX_BATCH_RECORDS || !is_block(place.block) {
            return Err(BadBatch::Count);
        }
        let descriptor = descriptor_bytes(count, place.block);
        let Some(covered) = bytes.get(..descriptor as usize) else {
            return Err(BadBatch::Short { need: descriptor });
        };
        let epoch = EpochId(h.epoch);
        let (used, padding) = covered
            .split_at_checked(used_bytes(count))
            .ok_or(BadBatch::Count)?;
        if descriptor_crc(&place.group, &epoch, used) != h.crc.get()
            || padding.iter().any(|b| *b != 0)
        {
            return Err(BadBatch::Crc);
        }
        if h.descriptor.get() != descriptor {
            return Err(BadBatch::Count);
        }
        if h.reserved != [0; 48] {
            return Err(BadBatch::Reserved);
        }
        if h.offset.get() != place.offset.0 {
            return Err(BadBatch::Offset);
        }
        let first_seq = Seq(h.first_seq.get());
        let durable = Seq(h.durable.get());
        if durable >= first_seq || first_seq.0.checked_add(u64::from(count)).is_none() {
            return Err(BadBatch::Seq);
        }
        let records = used.get(BATCH_HEADER_BYTES..).ok_or(BadBatch::Count)?;
        let mut head = Head {
            batch: BatchHead {
                offset: place.offset,
                lap: h.lap.get(),
                epoch_index: h.epoch_index.get(),
                first_seq,
                count,
                length: Bytes(u64::from(h.length.get())),
                durable,
                chain: Chain(h.chain.get()),
                chain_after: Chain(h.chain.get()),
            },
            epoch,
            descriptor,
            records,
        };
        let payload = head.check_records()?;
        let length = batch_bytes(count, payload, place.block);
        if length != h.length.get()
            || length > MAX_BATCH_BYTES
            || place
                .offset
                .0
                .checked_add(u64::from(length))
                .is_none_or(|end| end > place.ring.0)
        {
            return Err(BadBatch::Length);
        }
        Ok(head)
    }

    /// Checks each record, sets the chain after the last, returns the payload of all.
    fn check_records(&mut self) -> Result<u32, BadBatch> {
        let mut payload = 0u32;
        let mut expected = self.batch.first_seq;
        for bytes in self.headers() {
            let r = record::decode(bytes).map_err(BadBatch::Record)?;
            if r.seq != expected {
                return Err(BadBatch::Record(RecordError::WrongSeq));
            }
            payload = payload.saturating_add(r.payload_bytes());
            expected = expected.next();
        }
        self.batch.chain_after = self.chain_after(self.batch.count).unwrap_or_default();
        Ok(payload)
    }

    /// The record headers as bytes.
    fn headers(&self) -> impl Iterator<Item = &'a [u8; RECORD_BYTES]> + Clone {
        self.records
            .chunks_exact(RECORD_BYTES)
            .filter_map(|c| c.first_chunk())
    }

    /// What the log's state machines need to know of it.
    #[must_use]
    pub const fn batch(&self) -> BatchHead {
        self.batch
    }

    /// The epoch of its records.
    #[must_use]
    pub const fn epoch(&self) -> EpochId {
        self.epoch
    }

    /// Length of the descriptor; the payloads begin after it.
    #[must_use]
    pub const fn descriptor_bytes(&self) -> u32 {
        self.descriptor
    }

    /// Record number `i`.
    #[must_use]
    pub fn record(&self, i: u32) -> Option<Record> {
        let bytes = self.headers().nth(usize::try_from(i).ok()?)?;
        record::decode(bytes).ok()
    }

    /// Where the payload of record number `i` begins, in bytes from the start of the batch.
    #[must_use]
    pub fn payload_offset(&self, i: u32) -> Option<u32> {
        self.records()
            .nth(usize::try_from(i).ok()?)
            .map(|(_, offset)| offset)
    }

    /// The records, each with where its payload begins, in bytes from the start of the batch.
    pub fn records(&self) -> impl Iterator<Item = (Record, u32)> + Clone + 'a {
        let mut offset = self.descriptor;
        self.headers()
            .filter_map(|b| record::decode(b).ok())
            .map(move |r| {
                let at = offset;
                offset = offset.saturating_add(r.payload_bytes());
                (r, at)
            })
    }

    /// The chain after its first `n` records; `None` when it has fewer.
    #[must_use]
    pub fn chain_after(&self, n: u32) -> Option<Chain> {
        if n > self.batch.count {
            return None;
        }
        let first = self.headers().take(usize::try_from(n).ok()?);
        Some(first.fold(self.batch.chain, record::chain_next))
    }
}
