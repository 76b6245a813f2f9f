// SPDX-License-Identifier: GPL-2.0

//! A batch: what one log write carries. A descriptor (header, record headers), then the payloads.
//!
//! The writer builds the descriptor with [`Builder`]; recovery, read-back and the dump tool believe
//! one only through [`Head::parse`]. Payloads lie back to back after the descriptor (each is whole
//! sectors), the batch ends at the log's block. Payload checksums are the caller's, against
//! `Record::payload_crc`: the payload is not in this crate's hands.

mod build;
mod parse;

pub use build::{BuildError, Builder, Built, Run};
pub use parse::{BadBatch, Head, Place};

use super::format::{round_up, BATCH_HEADER_BYTES, MAX_BATCH_RECORDS};
use crate::{
    checksum::crc32c,
    record::RECORD_BYTES,
    units::{Bytes, Chain, EpochId, GroupUuid, Seq},
};

/// Length of the descriptor of a batch of `records` records.
#[must_use]
pub const fn descriptor_bytes(records: u32, block: u32) -> u32 {
    let headers = records.saturating_mul(RECORD_BYTES as u32);
    round_up(headers.saturating_add(BATCH_HEADER_BYTES as u32), block)
}

/// Length of the descriptor of the fullest batch: what a descriptor buffer must hold.
#[must_use]
pub const fn max_descriptor_bytes(block: u32) -> u32 {
    descriptor_bytes(MAX_BATCH_RECORDS, block)
}

/// Length of a batch of `records` records with `payload` bytes of payload together.
#[must_use]
pub const fn batch_bytes(records: u32, payload: u32, block: u32) -> u32 {
    descriptor_bytes(records, block).saturating_add(round_up(payload, block))
}

/// What a record with `payload` bytes must reserve before it is known with which others it shares a batch.
///
/// However records are grouped, their batches never need more than the sum of this. What the wrap
/// wastes is not in it: see [`WRAP_RESERVE`](super::format::WRAP_RESERVE).
#[must_use]
pub const fn worst_case_bytes(payload: u32, block: u32) -> u32 {
    batch_bytes(1, payload, block)
}

/// What the log's state machines know of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BatchHead {
    /// Where it lies, from the start of the ring.
    pub offset: Bytes,
    /// How often the ring had wrapped.
    pub lap: u64,
    /// This log's number for the epoch of its records.
    pub epoch_index: u32,
    /// Its first record.
    pub first_seq: Seq,
    /// How many records, at least one.
    pub count: u32,
    /// How long it is, a multiple of the block.
    pub length: Bytes,
    /// Highest seq that was known to be durable when it was written.
    pub durable: Seq,
    /// Chain before its first record.
    pub chain: Chain,
    /// Chain after its last record.
    pub chain_after: Chain,
}

impl BatchHead {
    /// Its last record.
    #[must_use]
    pub const fn last_seq(&self) -> Seq {
        self.first_seq.plus(self.count as u64).prev()
    }

    /// Where the batch after it lies, unless that one is at the start of the ring.
    #[must_use]
    pub const fn end(&self) -> Bytes {
        self.offset.plus(self.length)
    }
}

/// Where the CRC lies in a descriptor, and where it ends.
const CRC_AT: (usize, usize) = (12, 16);

/// Bytes of a descriptor that say something; those that follow are zero.
const fn used_bytes(count: u32) -> usize {
    (count as usize)
        .saturating_mul(RECORD_BYTES)
        .saturating_add(BATCH_HEADER_BYTES)
}

/// CRC of the used part of a descriptor, whatever its CRC field holds.
fn descriptor_crc(group: &GroupUuid, epoch: &EpochId, used: &[u8]) -> u32 {
    let before = used.get(..CRC_AT.0).unwrap_or(&[]);
    let after = used.get(CRC_AT.1..).unwrap_or(&[]);
    let seed = crc32c(crc32c(0, &group.0), &epoch.0);
    crc32c(crc32c(crc32c(seed, before), &[0; 4]), after)
}
