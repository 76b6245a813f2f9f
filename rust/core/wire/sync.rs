// SPDX-License-Identifier: GPL-2.0

//! Synchronisation: which volumes, and the copies of their regions, items of the link's stream.

use zerocopy::{
    little_endian::{U16, U32, U64},
    transmute, transmute_ref, FromBytes as _, IntoBytes as _,
};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    bytes::{must, zero, Out},
    WireError, DATA_HEAD_BYTES,
};
use crate::{
    group::SyncKind,
    lineage::Pos,
    units::{Position, Range, Sector, Seq, VolumeId},
};

/// Region copies follow. The end is not known yet.
#[derive(Clone, Copy, Debug)]
pub struct SyncStart<'a> {
    /// Which synchronisation.
    pub kind: SyncKind,
    /// Where it begins.
    pub start: Position,
    /// How many bytes it will copy at most; for progress.
    pub bytes: u64,
    volumes: &'a [U16],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawStart {
    kind: u8,
    reserved_a: u8,
    count: U16,
    reserved_b: [u8; 4],
    start: Pos,
    bytes: U64,
}

impl<'a> SyncStart<'a> {
    /// A synchronisation of these volumes, each named once, in the order in which they come.
    #[must_use]
    pub const fn new(
        kind: SyncKind,
        start: Position,
        bytes: u64,
        volumes: &'a [U16],
    ) -> SyncStart<'a> {
        SyncStart {
            kind,
            start,
            bytes,
            volumes,
        }
    }

    /// The volumes in the order in which they come.
    pub fn volumes(&self) -> impl ExactSizeIterator<Item = VolumeId> + 'a {
        self.volumes.iter().map(|v| VolumeId(v.get()))
    }

    fn check(&self) -> Result<(), WireError> {
        must(
            !self.volumes.is_empty() && self.volumes.len() <= 256,
            "number of volumes",
        )?;
        let mut rest = self.volumes;
        while let Some((v, others)) = rest.split_first() {
            rest = others;
            must(!others.contains(v), "volume (there are two)")?;
        }
        Ok(())
    }

    pub(super) fn encode(&self, out: &mut Out<'_>) -> Result<(), WireError> {
        self.check()?;
        let raw = RawStart {
            kind: self.kind.to_u8(),
            reserved_a: 0,
            count: (self.volumes.len() as u16).into(),
            reserved_b: [0; 4],
            start: self.start.into(),
            bytes: self.bytes.into(),
        };
        out.put(raw.as_bytes())?;
        out.put(self.volumes.as_bytes())
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<SyncStart<'a>, WireError> {
        let (raw, rest) = RawStart::ref_from_prefix(bytes).map_err(|_| WireError::Size)?;
        zero(&[raw.reserved_a])?;
        zero(&raw.reserved_b)?;
        let count = usize::from(raw.count.get());
        let volumes = <[U16]>::ref_from_bytes_with_elems(rest, count)
            .map_err(|_| WireError::Field("length of its tables"))?;
        let start = SyncStart {
            kind: SyncKind::from_u8(raw.kind).ok_or(WireError::Field("kind of synchronisation"))?,
            start: raw.start.get(),
            bytes: raw.bytes.get(),
            volumes,
        };
        start.check()?;
        Ok(start)
    }
}

/// What a region of a volume held, as read after the record `after` and before any later one that
/// overlaps it. The data follows, unless it is all zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionCopy {
    /// Number of the item, +1 each, from 1 in each session.
    pub item: u64,
    /// Its place in the stream.
    pub after: Seq,
    /// The region.
    pub range: Range,
    /// The region reads as zeros; no data.
    pub zeroes: bool,
    /// CRC32C of the data, unseeded; 0 without.
    pub payload_crc: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCopy {
    item: U64,
    after: U64,
    sector: U64,
    sectors: U32,
    payload_crc: U32,
    volume: U16,
    flags: u8,
    reserved: [u8; 21],
}

const FLAG_ZEROES: u8 = 1;

const _: () = assert!(size_of::<RawCopy>() == DATA_HEAD_BYTES);
const _: () = assert!(size_of::<RawStart>() == 40);

impl RegionCopy {
    /// Bytes of data that follow.
    #[must_use]
    pub const fn payload_bytes(&self) -> u32 {
        if self.zeroes {
            0
        } else {
            self.range.sectors.saturating_mul(512)
        }
    }

    fn check(&self) -> Result<(), WireError> {
        must(self.item > 0, "number of a copy")?;
        let end = self
            .range
            .sector
            .0
            .checked_add(u64::from(self.range.sectors));
        let possible = end.is_some_and(|e| Sector(e).to_bytes().is_some());
        must(possible && self.range.in_one_extent(), "region of a copy")?;
        must(
            !self.zeroes || self.payload_crc == 0,
            "checksum without data",
        )
    }

    pub(super) fn encode(&self) -> Result<[u8; DATA_HEAD_BYTES], WireError> {
        self.check()?;
        let raw = RawCopy {
            item: self.item.into(),
            after: self.after.0.into(),
            sector: self.range.sector.0.into(),
            sectors: self.range.sectors.into(),
            payload_crc: self.payload_crc.into(),
            volume: self.range.volume.0.into(),
            flags: if self.zeroes { FLAG_ZEROES } else { 0 },
            reserved: [0; 21],
        };
        Ok(transmute!(raw))
    }

    pub(super) fn decode(bytes: &[u8; DATA_HEAD_BYTES]) -> Result<RegionCopy, WireError> {
        let raw: &RawCopy = transmute_ref!(bytes);
        zero(&raw.reserved)?;
        must(raw.flags & !FLAG_ZEROES == 0, "flags of a copy")?;
        let copy = RegionCopy {
            item: raw.item.get(),
            after: Seq(raw.after.get()),
            range: Range {
                volume: VolumeId(raw.volume.get()),
                sector: Sector(raw.sector.get()),
                sectors: raw.sectors.get(),
            },
            zeroes: raw.flags & FLAG_ZEROES != 0,
            payload_crc: raw.payload_crc.get(),
        };
        copy.check()?;
        Ok(copy)
    }
}
