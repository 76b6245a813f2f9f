// SPDX-License-Identifier: GPL-2.0

//! The record header: 56 bytes, the same on every disk and on every wire, and the chain over it.
//!
//! A record keeps the header that its first primary gave it. Because the bytes are the same
//! everywhere, so is the chain: two hosts whose chain values at a seq are equal have the same
//! history up to it. Encoding refuses exactly what decoding refuses.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | seq |
//! | 8 | 8 | depends_on |
//! | 16 | 8 | wall clock, ns since 1970 |
//! | 24 | 8 | first sector |
//! | 32 | 4 | sectors |
//! | 36 | 4 | stored length in bytes |
//! | 40 | 4 | CRC32C of the payload, unseeded |
//! | 44 | 2 | volume |
//! | 46 | 2 | origin |
//! | 48 | 1 | op: 1 write, 2 discard, 3 write-zeroes, 4 marker |
//! | 49 | 1 | flags: 1 FUA, 2 no-unmap |
//! | 50 | 6 | reserved, zero |

use core::fmt;

use zerocopy::{
    little_endian::{U16, U32, U64},
    transmute, transmute_ref,
};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    checksum::crc32c,
    units::{Chain, Op, Range, Record, Sector, Seq, VolumeId},
};

/// Bytes of a record header.
pub const RECORD_BYTES: usize = 56;

const FLAG_FUA: u8 = 1;
const FLAG_NO_UNMAP: u8 = 2;

/// The header as bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    seq: U64,
    depends_on: U64,
    time_ns: U64,
    sector: U64,
    sectors: U32,
    stored: U32,
    payload_crc: U32,
    volume: U16,
    origin: U16,
    op: u8,
    flags: u8,
    reserved: [u8; 6],
}

/// Why bytes or values are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The seq is zero.
    NoSeq,
    /// Its number is not the one of its place.
    WrongSeq,
    /// It depends on itself or on a later record.
    DependsOnLater,
    /// No such operation.
    UnknownOp(u8),
    /// Flags that mean nothing, or nothing for this operation.
    BadFlags(u8),
    /// Its range is empty.
    EmptyRange,
    /// Its range crosses a 1 MiB boundary, or the end of all sectors.
    CrossesExtent,
    /// The stored length does not fit the operation and the range.
    BadLength,
    /// A payload checksum without a payload.
    CrcWithoutPayload,
    /// A marker with a range.
    MarkerWithRange,
    /// Reserved bytes are not zero.
    Reserved,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::NoSeq => f.write_str("record without a seq"),
            RecordError::WrongSeq => f.write_str("record whose seq is not that of its place"),
            RecordError::DependsOnLater => f.write_str("record depends on itself or a later one"),
            RecordError::UnknownOp(n) => write!(f, "record with unknown operation {n}"),
            RecordError::BadFlags(n) => write!(f, "record with meaningless flags {n:#x}"),
            RecordError::EmptyRange => f.write_str("record with an empty range"),
            RecordError::CrossesExtent => f.write_str("record crosses a 1 MiB boundary"),
            RecordError::BadLength => f.write_str("record whose length does not fit its range"),
            RecordError::CrcWithoutPayload => f.write_str("record with a checksum but no payload"),
            RecordError::MarkerWithRange => f.write_str("marker with a range"),
            RecordError::Reserved => f.write_str("record with reserved bytes that are not zero"),
        }
    }
}

/// Whether `r` can be a record at all.
pub fn check(r: &Record) -> Result<(), RecordError> {
    if r.seq == Seq::NONE {
        return Err(RecordError::NoSeq);
    }
    if r.depends_on >= r.seq {
        return Err(RecordError::DependsOnLater);
    }
    if r.no_unmap && r.op != Op::WriteZeroes {
        return Err(RecordError::BadFlags(FLAG_NO_UNMAP));
    }
    match r.op {
        Op::Marker if r.range != Range::default() => return Err(RecordError::MarkerWithRange),
        Op::Marker => {}
        Op::Write | Op::Discard | Op::WriteZeroes if r.range.sectors == 0 => {
            return Err(RecordError::EmptyRange);
        }
        Op::Write | Op::Discard | Op::WriteZeroes => {
            // `end` saturates, so the end of all sectors must be ruled out by hand.
            let end = r.range.sector.0.checked_add(u64::from(r.range.sectors));
            if end.is_none_or(|e| Sector(e).to_bytes().is_none()) || !r.range.in_one_extent() {
                return Err(RecordError::CrossesExtent);
            }
        }
    }
    if r.payload_bytes() == 0 && r.payload_crc != 0 {
        return Err(RecordError::CrcWithoutPayload);
    }
    Ok(())
}

/// The 56 bytes of `r`.
pub fn encode(r: &Record) -> Result<[u8; RECORD_BYTES], RecordError> {
    check(r)?;
    let raw = Raw {
        seq: r.seq.0.into(),
        depends_on: r.depends_on.0.into(),
        time_ns: r.time_ns.into(),
        sector: r.range.sector.0.into(),
        sectors: r.range.sectors.into(),
        stored: r.payload_bytes().into(),
        payload_crc: r.payload_crc.into(),
        volume: r.range.volume.0.into(),
        origin: r.origin.into(),
        op: match r.op {
            Op::Write => 1,
            Op::Discard => 2,
            Op::WriteZeroes => 3,
            Op::Marker => 4,
        },
        flags: if r.fua { FLAG_FUA } else { 0 } | if r.no_unmap { FLAG_NO_UNMAP } else { 0 },
        reserved: [0; 6],
    };
    Ok(transmute!(raw))
}

/// The record that the 56 bytes describe. Every field is checked.
pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Result<Record, RecordError> {
    let raw: &Raw = transmute_ref!(bytes);
    if raw.reserved != [0; 6] {
        return Err(RecordError::Reserved);
    }
    if raw.flags & !(FLAG_FUA | FLAG_NO_UNMAP) != 0 {
        return Err(RecordError::BadFlags(raw.flags));
    }
    let r = Record {
        seq: Seq(raw.seq.get()),
        op: match raw.op {
            1 => Op::Write,
            2 => Op::Discard,
            3 => Op::WriteZeroes,
            4 => Op::Marker,
            n => return Err(RecordError::UnknownOp(n)),
        },
        fua: raw.flags & FLAG_FUA != 0,
        no_unmap: raw.flags & FLAG_NO_UNMAP != 0,
        range: Range {
            volume: VolumeId(raw.volume.get()),
            sector: Sector(raw.sector.get()),
            sectors: raw.sectors.get(),
        },
        depends_on: Seq(raw.depends_on.get()),
        time_ns: raw.time_ns.get(),
        origin: raw.origin.get(),
        payload_crc: raw.payload_crc.get(),
    };
    check(&r)?;
    if raw.stored.get() != r.payload_bytes() {
        return Err(RecordError::BadLength);
    }
    Ok(r)
}

/// The chain after a record, given its 56 bytes.
#[must_use]
pub fn chain_next(before: Chain, bytes: &[u8; RECORD_BYTES]) -> Chain {
    Chain(crc32c(before.0, bytes))
}

/// The chain after record `r`.
pub fn chain_record(before: Chain, r: &Record) -> Result<Chain, RecordError> {
    Ok(chain_next(before, &encode(r)?))
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_record))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    fn sample() -> Record {
        Record {
            seq: Seq(7),
            op: Op::Write,
            fua: true,
            no_unmap: false,
            range: Range {
                volume: VolumeId(3),
                sector: Sector(2040),
                sectors: 8,
            },
            depends_on: Seq(5),
            time_ns: 0x1122_3344_5566_7788,
            origin: 2,
            payload_crc: 0xdead_beef,
        }
    }

    #[test]
    fn bytes_are_where_the_document_says() {
        let b = encode(&sample());
        assert!(b.is_ok());
        let b = b.unwrap_or([0; RECORD_BYTES]);
        assert_eq!(b[0..8], 7u64.to_le_bytes());
        assert_eq!(b[8..16], 5u64.to_le_bytes());
        assert_eq!(b[16..24], 0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(b[24..32], 2040u64.to_le_bytes());
        assert_eq!(b[32..36], 8u32.to_le_bytes());
        assert_eq!(b[36..40], 4096u32.to_le_bytes());
        assert_eq!(b[40..44], 0xdead_beefu32.to_le_bytes());
        assert_eq!(b[44..46], 3u16.to_le_bytes());
        assert_eq!(b[46..48], 2u16.to_le_bytes());
        assert_eq!(b[48..50], [1, 1]);
        assert_eq!(b[50..56], [0; 6]);
        assert_eq!(decode(&b), Ok(sample()));
    }

    #[test]
    fn each_rule_refuses() {
        let with = |f: fn(&mut Record)| {
            let mut r = sample();
            f(&mut r);
            check(&r).err()
        };
        assert_eq!(with(|_| ()), None);
        assert_eq!(with(|r| r.seq = Seq(0)), Some(RecordError::NoSeq));
        assert_eq!(
            with(|r| r.depends_on = Seq(7)),
            Some(RecordError::DependsOnLater)
        );
        assert_eq!(with(|r| r.no_unmap = true), Some(RecordError::BadFlags(2)));
        assert_eq!(with(|r| r.range.sectors = 0), Some(RecordError::EmptyRange));
        assert_eq!(
            with(|r| r.range.sectors = 9),
            Some(RecordError::CrossesExtent)
        );
        assert_eq!(
            with(|r| r.range.sector = Sector(u64::MAX)),
            Some(RecordError::CrossesExtent)
        );
        assert_eq!(
            with(|r| r.op = Op::Discard),
            Some(RecordError::CrcWithoutPayload)
        );
        assert_eq!(
            with(|r| {
                r.op = Op::Marker;
                r.payload_crc = 0;
            }),
            Some(RecordError::MarkerWithRange)
        );
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let with = |at: usize, value: u8| {
            let mut b = encode(&sample()).unwrap_or([0; RECORD_BYTES]);
            if let Some(x) = b.get_mut(at) {
                *x = value;
            }
            decode(&b).err()
        };
        assert_eq!(with(50, 1), Some(RecordError::Reserved));
        assert_eq!(with(55, 1), Some(RecordError::Reserved));
        assert_eq!(with(48, 0), Some(RecordError::UnknownOp(0)));
        assert_eq!(with(48, 5), Some(RecordError::UnknownOp(5)));
        assert_eq!(with(49, 4), Some(RecordError::BadFlags(4)));
        assert_eq!(with(36, 1), Some(RecordError::BadLength));
    }

    #[test]
    fn chain_sees_every_difference() {
        let start = Chain(9);
        let a = chain_record(start, &sample());
        let mut other = sample();
        other.payload_crc = 1;
        assert!(a.is_ok());
        assert!(a != chain_record(start, &other));
        assert!(a != chain_record(Chain(0), &sample()));
    }
}
