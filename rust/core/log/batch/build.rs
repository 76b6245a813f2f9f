// SPDX-License-Identifier: GPL-2.0

//! Building the descriptor of a batch in a buffer of the caller.

use core::fmt;

use zerocopy::IntoBytes as _;

use super::{batch_bytes, descriptor_bytes, descriptor_crc, used_bytes, BatchHead, CRC_AT};
use crate::{
    log::format::{
        is_block, BatchHeader, BATCH_HEADER_BYTES, BATCH_MAGIC, MAX_BATCH_BYTES, MAX_BATCH_RECORDS,
        VERSION,
    },
    record::{self, RecordError, RECORD_BYTES},
    units::{Bytes, Chain, EpochId, GroupUuid, Record, Seq},
};

/// What a batch continues: the log up to its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The group.
    pub group: GroupUuid,
    /// The epoch of all its records.
    pub epoch: EpochId,
    /// This log's number for it.
    pub epoch_index: u32,
    /// Its first record.
    pub first_seq: Seq,
    /// Chain before that.
    pub chain: Chain,
    /// Block of the log.
    pub block: u32,
}

/// Why a batch cannot be built so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The record does not fit any more: finish this batch, begin another.
    Full,
    /// The buffer for the descriptor is too small.
    Room,
    /// The record is none.
    Record(RecordError),
    /// A batch without a record.
    Empty,
    /// The log's block is not possible.
    Block,
    /// The place is not at a block, or the durable seq is not below the first.
    Place,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Full => f.write_str("batch is full"),
            BuildError::Room => f.write_str("buffer too small for the batch descriptor"),
            BuildError::Record(e) => e.fmt(f),
            BuildError::Empty => f.write_str("batch without a record"),
            BuildError::Block => f.write_str("impossible log block size"),
            BuildError::Place => f.write_str("batch at an impossible place"),
        }
    }
}

/// A finished descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// What the log's state machines need to know of it.
    pub head: BatchHead,
    /// Bytes of the buffer to write; the payloads follow them at once.
    pub descriptor: u32,
}

/// A batch being put together. Dropping it leaves garbage in the buffer and nothing else.
#[derive(Debug)]
pub struct Builder<'a> {
    buffer: &'a mut [u8],
    run: Run,
    count: u32,
    payload: u32,
    chain: Chain,
}

impl<'a> Builder<'a> {
    /// Begins a batch. `max_descriptor_bytes` of buffer are always enough.
    pub fn new(buffer: &'a mut [u8], run: Run) -> Result<Builder<'a>, BuildError> {
        if !is_block(run.block) {
            return Err(BuildError::Block);
        }
        Ok(Builder {
            buffer,
            run,
            count: 0,
            payload: 0,
            chain: run.chain,
        })
    }

    /// Records in it so far.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Length of the batch if it were finished now.
    #[must_use]
    pub const fn length(&self) -> u32 {
        batch_bytes(self.count, self.payload, self.run.block)
    }

    /// Whether a record with this much payload still fits.
    #[must_use]
    pub const fn fits(&self, payload: u32) -> bool {
        let count = self.count.saturating_add(1);
        let payload = self.payload.saturating_add(payload);
        count <= MAX_BATCH_RECORDS && batch_bytes(count, payload, self.run.block) <= MAX_BATCH_BYTES
    }

    /// Adds the next record; returns where its payload goes, in bytes after the descriptor.
    pub fn push(&mut self, r: &Record) -> Result<u32, BuildError> {
        if r.seq != self.run.first_seq.plus(u64::from(self.count)) {
            return Err(BuildError::Record(RecordError::WrongSeq));
        }
        let bytes = record::encode(r).map_err(BuildError::Record)?;
        if !self.fits(r.payload_bytes()) {
            return Err(BuildError::Full);
        }
        let count = self.count.saturating_add(1);
        if descriptor_bytes(count, self.run.block) as usize > self.buffer.len() {
            return Err(BuildError::Room);
        }
        let start = (self.count as usize).saturating_mul(RECORD_BYTES);
        let place = self
            .buffer
            .get_mut(BATCH_HEADER_BYTES.saturating_add(start)..)
            .and_then(|b| b.first_chunk_mut::<RECORD_BYTES>())
            .ok_or(BuildError::Room)?;
        *place = bytes;
        let offset = self.payload;
        self.payload = self.payload.saturating_add(r.payload_bytes());
        self.chain = record::chain_next(self.chain, &bytes);
        self.count = count;
        Ok(offset)
    }

    /// Fills in where the batch goes and what was durable by then, and seals the descriptor.
    pub fn finish(self, offset: Bytes, lap: u64, durable: Seq) -> Result<Built, BuildError> {
        if self.count == 0 {
            return Err(BuildError::Empty);
        }
        if offset.round_down(self.run.block) != offset || durable >= self.run.first_seq {
            return Err(BuildError::Place);
        }
        let length = self.length();
        let size = descriptor_bytes(self.count, self.run.block);
        let descriptor = self
            .buffer
            .get_mut(..size as usize)
            .ok_or(BuildError::Room)?;
        let (used, padding) = descriptor
            .split_at_mut_checked(used_bytes(self.count))
            .ok_or(BuildError::Room)?;
        padding.fill(0);
        let header = BatchHeader {
            magic: BATCH_MAGIC,
            version: (VERSION as u16).into(),
            count: (self.count as u16).into(),
            crc: 0.into(),
            epoch: self.run.epoch.0,
            epoch_index: self.run.epoch_index.into(),
            length: length.into(),
            offset: offset.0.into(),
            lap: lap.into(),
            first_seq: self.run.first_seq.0.into(),
            durable: durable.0.into(),
            chain: self.run.chain.0.into(),
            descriptor: size.into(),
            reserved: [0; 48],
        };
        let place = used.get_mut(..BATCH_HEADER_BYTES).ok_or(BuildError::Room)?;
        place.copy_from_slice(header.as_bytes());
        let crc = descriptor_crc(&self.run.group, &self.run.epoch, used);
        let place = used.get_mut(CRC_AT.0..CRC_AT.1).ok_or(BuildError::Room)?;
        place.copy_from_slice(&crc.to_le_bytes());
        let head = BatchHead {
            offset,
            lap,
            epoch_index: self.run.epoch_index,
            first_seq: self.run.first_seq,
            count: self.count,
            length: Bytes(u64::from(length)),
            durable,
            chain: self.run.chain,
            chain_after: self.chain,
        };
        Ok(Built {
            head,
            descriptor: size,
        })
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_batch))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::{
        log::batch::{worst_case_bytes, BadBatch, Head, Place},
        units::Range,
    };

    const GROUP: GroupUuid = GroupUuid([3; 16]);
    const BLOCK: u32 = 4096;

    fn run() -> Run {
        Run {
            group: GROUP,
            epoch: EpochId([9; 16]),
            epoch_index: 4,
            first_seq: Seq(100),
            chain: Chain(77),
            block: BLOCK,
        }
    }

    fn record(seq: u64, sectors: u32) -> Record {
        Record {
            seq: Seq(seq),
            range: Range {
                sectors,
                ..Range::default()
            },
            depends_on: Seq(50),
            payload_crc: 5,
            ..Record::default()
        }
    }

    fn place() -> Place {
        Place {
            group: GROUP,
            offset: Bytes(8192),
            block: BLOCK,
            ring: Bytes(8 << 20),
        }
    }

    /// Two records, 512 bytes and 4 KiB, at ring offset 8192.
    fn build(buffer: &mut [u8]) -> Result<Built, BuildError> {
        let mut b = Builder::new(buffer, run())?;
        b.push(&record(100, 1))?;
        b.push(&record(101, 8))?;
        b.finish(Bytes(8192), 2, Seq(90))
    }

    #[test]
    fn what_is_built_is_parsed() {
        let mut buffer = [0xa5u8; 8192];
        let built = build(&mut buffer);
        assert!(built.is_ok());
        let head = Head::parse(&buffer, &place());
        assert!(head.is_ok());
        let (Ok(built), Ok(head)) = (built, head) else {
            return;
        };
        assert_eq!(built.descriptor, 4096);
        assert_eq!(head.batch(), built.head);
        assert_eq!(built.head.length, Bytes(4096 + 8192));
        assert_eq!(built.head.last_seq(), Seq(101));
        assert_eq!(head.record(0), Some(record(100, 1)));
        assert_eq!(head.record(1), Some(record(101, 8)));
        assert_eq!(head.record(2), None);
        assert_eq!(head.payload_offset(0), Some(4096));
        assert_eq!(head.payload_offset(1), Some(4096 + 512));
        assert_eq!(head.payload_offset(2), None);
        assert_eq!(head.chain_after(0), Some(Chain(77)));
        assert_eq!(head.chain_after(2), Some(built.head.chain_after));
        assert_eq!(head.chain_after(3), None);
    }

    #[test]
    fn a_batch_is_only_believed_at_its_place() {
        let mut buffer = [0u8; 4096];
        assert!(build(&mut buffer).is_ok());
        let with = |f: fn(&mut Place)| {
            let mut p = place();
            f(&mut p);
            Head::parse(&buffer, &p).err()
        };
        assert_eq!(with(|_| ()), None);
        assert_eq!(with(|p| p.offset = Bytes(4096)), Some(BadBatch::Offset));
        assert_eq!(with(|p| p.group = GroupUuid([4; 16])), Some(BadBatch::Crc));
        assert_eq!(
            with(|p| p.ring = Bytes(8192 + 4096)),
            Some(BadBatch::Length)
        );
        assert_eq!(
            with(|p| p.block = 8192),
            Some(BadBatch::Short { need: 8192 })
        );
        assert_eq!(
            Head::parse(&buffer[..100], &place()).err(),
            Some(BadBatch::Short { need: 4096 })
        );
        assert_eq!(
            Head::parse(&[0; 4096], &place()).err(),
            Some(BadBatch::NotABatch)
        );
    }

    #[test]
    fn a_batch_of_which_a_sector_was_torn_off_is_not_believed() {
        let mut buffer = [0u8; 4096];
        assert!(build(&mut buffer).is_ok());
        for at in [0, 12, 200, 512, 4095] {
            buffer[at] ^= 0x10;
            assert!(Head::parse(&buffer, &place()).is_err());
            buffer[at] ^= 0x10;
        }
        buffer[512] = 1;
        assert_eq!(Head::parse(&buffer, &place()).err(), Some(BadBatch::Crc));
    }

    #[test]
    fn limits() {
        let mut buffer = [0u8; 8192];
        let b = Builder::new(&mut buffer, run());
        assert!(b.is_ok());
        let Ok(mut b) = b else {
            return;
        };
        assert_eq!(
            b.push(&record(101, 1)),
            Err(BuildError::Record(RecordError::WrongSeq))
        );
        assert_eq!(b.push(&record(100, 2048)), Ok(0));
        assert_eq!(b.push(&record(101, 2048)), Err(BuildError::Full));
        for i in 0..127u32 {
            let seq = 101 + u64::from(i);
            assert_eq!(b.push(&record(seq, 1)), Ok((1 << 20) + i * 512));
        }
        assert_eq!(b.push(&record(228, 1)), Err(BuildError::Full));
        assert_eq!(b.finish(Bytes(0), 0, Seq(100)), Err(BuildError::Place));
        let empty = Builder::new(&mut buffer, run()).and_then(|b| b.finish(Bytes(0), 0, Seq(0)));
        assert_eq!(empty, Err(BuildError::Empty));
        let small =
            Builder::new(&mut buffer[..4095], run()).and_then(|mut b| b.push(&record(100, 1)));
        assert_eq!(small, Err(BuildError::Room));
    }

    #[test]
    fn sizes() {
        assert_eq!(descriptor_bytes(1, 4096), 4096);
        assert_eq!(descriptor_bytes(70, 4096), 4096);
        assert_eq!(descriptor_bytes(71, 4096), 8192);
        assert_eq!(descriptor_bytes(128, 4096), 8192);
        assert_eq!(worst_case_bytes(0, 4096), 4096);
        assert_eq!(worst_case_bytes(512, 4096), 8192);
        assert_eq!(worst_case_bytes(1 << 20, 4096), 4096 + (1 << 20));
        assert_eq!(worst_case_bytes(1 << 20, 65536), 65536 + (1 << 20));
    }
}
