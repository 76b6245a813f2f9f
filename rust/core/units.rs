// SPDX-License-Identifier: GPL-2.0

//! Units: the numbers of replication as types, so that a sector is never taken for a byte.
//!
//! Everything here is `Copy`, total (no operation panics) and free of I/O. Arithmetic saturates or is
//! checked by name; nothing wraps silently.

use core::fmt;

/// Bytes in a sector, the block layer's unit of addressing.
pub const SECTOR_BYTES: u64 = 512;

/// Sectors in one extent, the unit that a record never crosses (1 MiB).
///
/// The target sets `max_io_len` to this, so every bio, and with it every record, lies within one
/// extent of its volume. Overlap is therefore a question within one extent only.
pub const EXTENT_SECTORS: u64 = 2048;

/// Largest payload of one record.
pub const MAX_RECORD_BYTES: u32 = 1 << 20;

/// Sequence number of a record within a group: +1 each, never reused within an epoch.
///
/// `Seq::NONE` (zero) is "before the first record".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first record.
    pub const NONE: Seq = Seq(0);

    /// The next sequence number.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }

    /// The previous one; `NONE` stays `NONE`.
    #[inline]
    #[must_use]
    pub const fn prev(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }

    /// The sequence number `n` records later.
    #[inline]
    #[must_use]
    pub const fn plus(self, n: u64) -> Seq {
        Seq(self.0.saturating_add(n))
    }

    /// How many records lie in `(earlier, self]`; zero when `earlier` is not earlier.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Seq) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A position on a volume or device, or a length, in 512-byte sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(pub u64);

impl Sector {
    /// The extent this sector lies in.
    #[inline]
    #[must_use]
    pub const fn extent(self) -> u64 {
        self.0 / EXTENT_SECTORS
    }

    /// As bytes; `None` on overflow.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> Option<Bytes> {
        match self.0.checked_mul(SECTOR_BYTES) {
            Some(b) => Some(Bytes(b)),
            None => None,
        }
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A position in, or a length of, a device or stream in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Sum, saturating.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }

    /// Difference; zero when `other` is larger.
    #[inline]
    #[must_use]
    pub const fn minus(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }

    /// Rounded up to a multiple of `unit` (a power of two).
    #[inline]
    #[must_use]
    pub const fn round_up(self, unit: u32) -> Bytes {
        let mask = (unit as u64).saturating_sub(1);
        Bytes(self.0.saturating_add(mask) & !mask)
    }

    /// Rounded down to a multiple of `unit` (a power of two).
    #[inline]
    #[must_use]
    pub const fn round_down(self, unit: u32) -> Bytes {
        let mask = (unit as u64).saturating_sub(1);
        Bytes(self.0 & !mask)
    }

    /// Whole sectors in it, rounded down.
    #[inline]
    #[must_use]
    pub const fn to_sectors(self) -> Sector {
        Sector(self.0 / SECTOR_BYTES)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Number of a volume within its group (at most 256 of them).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u16);

/// CRC chain over all records so far: equal chains mean equal histories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chain(pub u32);

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The id that names nothing.
            pub const NONE: $name = $name([0; 16]);

            /// Whether it names nothing.
            #[must_use]
            pub fn is_none(&self) -> bool {
                *self == Self::NONE
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (i, b) in self.0.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{b:02x}")?;
                }
                Ok(())
            }
        }
    };
}

id128! {
    /// Names one unbroken run of one primary. Random, never a counter: two hosts that each start
    /// "the next epoch" must never mean the same one.
    EpochId
}
id128! {
    /// Names a group on all its hosts. Made by the primary's first `group add`.
    GroupUuid
}
id128! {
    /// Names a host. Made by `srl format`.
    HostId
}

/// A place in a history: an epoch and a sequence number in it. A bare [`Seq`] never travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch that wrote the record.
    pub epoch: EpochId,
    /// The record.
    pub seq: Seq,
}

/// A range of sectors of one volume. Never empty where it describes a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Range {
    /// The volume.
    pub volume: VolumeId,
    /// First sector.
    pub sector: Sector,
    /// Number of sectors.
    pub sectors: u32,
}

impl Range {
    /// First sector after the range.
    #[inline]
    #[must_use]
    pub const fn end(&self) -> Sector {
        Sector(self.sector.0.saturating_add(self.sectors as u64))
    }

    /// Whether the two share a sector.
    #[inline]
    #[must_use]
    pub const fn overlaps(&self, other: &Range) -> bool {
        self.volume.0 == other.volume.0
            && self.sector.0 < other.end().0
            && other.sector.0 < self.end().0
    }

    /// Whether every sector of `other` is in `self`.
    #[inline]
    #[must_use]
    pub const fn covers(&self, other: &Range) -> bool {
        self.volume.0 == other.volume.0
            && self.sector.0 <= other.sector.0
            && other.end().0 <= self.end().0
    }

    /// The part of `other` that lies in `self`, if any.
    #[must_use]
    pub fn intersection(&self, other: &Range) -> Option<Range> {
        if !self.overlaps(other) {
            return None;
        }
        let start = self.sector.max(other.sector);
        let end = self.end().min(other.end());
        Some(Range {
            volume: self.volume,
            sector: start,
            sectors: u32::try_from(end.0.saturating_sub(start.0)).ok()?,
        })
    }

    /// Whether it is not empty and lies within one extent.
    #[inline]
    #[must_use]
    pub const fn in_one_extent(&self) -> bool {
        self.sectors > 0
            && self.end().0 > self.sector.0
            && self.sector.extent() == Sector(self.end().0.saturating_sub(1)).extent()
    }

    /// Its length in bytes.
    #[inline]
    #[must_use]
    pub const fn bytes(&self) -> Bytes {
        Bytes((self.sectors as u64).saturating_mul(SECTOR_BYTES))
    }
}

/// What a record does to its range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Op {
    /// Writes the payload.
    #[default]
    Write,
    /// The range's content is undefined until it is written again.
    Discard,
    /// The range reads as zeros. No payload.
    WriteZeroes,
    /// Changes nothing: a named point in the order (reserved for a later feature).
    Marker,
}

/// One application write as the log and the wire carry it, without its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// Its number.
    pub seq: Seq,
    /// What it does.
    pub op: Op,
    /// The application asked for it with FUA.
    pub fua: bool,
    /// Write-zeroes must not unmap.
    pub no_unmap: bool,
    /// Where.
    pub range: Range,
    /// Highest seq whose completion had been published when this record got its seq.
    pub depends_on: Seq,
    /// Wall clock of the primary when the record got its seq, in ns since 1970.
    pub time_ns: u64,
    /// Index of the host that first wrote it, in the lineage's terms (0: unknown).
    pub origin: u16,
    /// CRC32C of the payload, unseeded; 0 without payload.
    pub payload_crc: u32,
}

impl Record {
    /// Bytes of payload that follow it.
    #[inline]
    #[must_use]
    pub const fn payload_bytes(&self) -> u32 {
        match self.op {
            Op::Write => self.range.sectors.saturating_mul(SECTOR_BYTES as u32),
            Op::Discard | Op::WriteZeroes | Op::Marker => 0,
        }
    }
}
