// SPDX-License-Identifier: GPL-2.0

//! The superblock: what a host knows for certain about its log, its volumes and its peers.
//!
//! The struct *is* the bytes: the caller owns a buffer of [`SUPERBLOCK_BYTES`] (never on a stack)
//! and works on it in place. One writer at a time. A change is durable once [`WriteState::begin`]
//! and [`Superblock::seal`] were called and the sealed bytes are written, flushed, to the two places that
//! [`Superblock::write_offsets`] names, or where one of those fails to a place of each slot ([`WriteState`]). Until a
//! copy is written those of the generation before stay whole in the other slot.
//!
//! On failure nothing is changed: every setter that can refuse checks first.

mod check;
mod choose;
mod facts;
mod foreign;
mod links;
mod make;
mod volumes;
mod write;

pub use check::SuperblockError;
pub use choose::{choose, Choice};
pub use facts::{Inconsistent, Tail};
pub use foreign::{foreign, is_blank, Signature};
pub use links::{Link, LinkState, SyncState};
pub use make::{Format, FormatError, MIN_DEVICE_BYTES, MIN_DEVICE_NO_RING_BYTES};
pub use volumes::{VolumeError, VolumeSlot, VolumeState};
pub use write::{Attempt, WriteState, Written};

use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::format::{
    Extent, LinkSlot, SuperblockHead, VolumeEntry, END_BYTES, EXTENT_MAP, EXTENT_RESERVED,
    EXTENT_RING, MAX_EXTENTS, MAX_LINKS, MAX_VOLUMES, PIECE_BYTES, SLOT_BYTES, SUPERBLOCK_BYTES,
    SUPERBLOCK_MIN_BYTES,
};
use crate::{
    checksum::crc32c,
    lineage::{Entry, MAX_EPOCHS},
    units::Bytes,
};

/// A superblock, in the layout that it has on the device.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Superblock {
    head: SuperblockHead,
    extents: [Extent; MAX_EXTENTS],
    links: [LinkSlot; MAX_LINKS],
    lineage: [Entry; MAX_EPOCHS],
    volumes: [VolumeEntry; MAX_VOLUMES],
}

const _: () = assert!(size_of::<Superblock>() == SUPERBLOCK_BYTES);
const _: () = assert!(
    size_of::<Superblock>() - size_of::<[VolumeEntry; MAX_VOLUMES]>() == SUPERBLOCK_MIN_BYTES
);
const _: () = assert!(SUPERBLOCK_BYTES as u64 <= SLOT_BYTES && SUPERBLOCK_BYTES % PIECE_BYTES == 0);

/// What a valid copy says of itself, enough to choose between copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its generation.
    pub generation: u64,
    /// Its checksum: two copies of one generation must have the same.
    pub crc: u32,
    /// Size of the device when it was formatted; the copies at the end lie there.
    pub device: Bytes,
}

/// An area of the log device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Its first byte.
    pub start: Bytes,
    /// Its length.
    pub length: Bytes,
}

/// Copies of the superblock on a device.
pub const COPIES: usize = 4;

/// Where the four copies lie on a device of this size: slot A and B in front, A and B at the end.
///
/// The end is rounded down to 64 KiB, so that copies and areas start at a block of any size.
#[must_use]
pub const fn copy_offsets(device: Bytes) -> [Bytes; COPIES] {
    let end = device.round_down(SLOT_BYTES as u32).minus(Bytes(END_BYTES));
    [
        Bytes(0),
        Bytes(SLOT_BYTES),
        end,
        end.plus(Bytes(SLOT_BYTES)),
    ]
}

/// Whether `bytes` begin with a valid superblock, and which.
pub fn validate(bytes: &[u8]) -> Result<Found, SuperblockError> {
    let length = check::checksum(bytes)?;
    let Ok((sb, _)) = Superblock::ref_from_prefix(bytes) else {
        return Err(SuperblockError::Short);
    };
    sb.check(length)?;
    Ok(Found {
        generation: sb.generation(),
        crc: sb.head.crc.get(),
        device: sb.device(),
    })
}

/// CRC over `covered`, a whole superblock, whatever its CRC field holds.
fn superblock_crc(covered: &[u8]) -> u32 {
    let before = covered.get(..16).unwrap_or(&[]);
    let after = covered.get(20..).unwrap_or(&[]);
    crc32c(crc32c(crc32c(0, before), &[0; 4]), after)
}

impl Superblock {
    /// The superblock in the first [`SUPERBLOCK_BYTES`] of `buffer`, whatever they hold.
    #[must_use]
    pub fn mut_from(buffer: &mut [u8]) -> Option<&mut Superblock> {
        Superblock::mut_from_prefix(buffer).ok().map(|(sb, _)| sb)
    }

    /// The same, to read.
    #[must_use]
    pub fn ref_from(buffer: &[u8]) -> Option<&Superblock> {
        Superblock::ref_from_prefix(buffer).ok().map(|(sb, _)| sb)
    }

    /// Becomes the copy in `bytes`, when that is valid. Stale bytes behind it are left out.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), SuperblockError> {
        validate(bytes)?;
        let length = check::checksum(bytes)?;
        let used = bytes.get(..length).ok_or(SuperblockError::Short)?;
        let own = self.as_mut_bytes();
        own.fill(0);
        own.get_mut(..length)
            .ok_or(SuperblockError::Short)?
            .copy_from_slice(used);
        Ok(())
    }

    /// Sets length and checksum and returns the bytes to write to each of the two places.
    pub fn seal(&mut self) -> &[u8] {
        let length = self.sealed_bytes();
        self.head.length.set(length as u32);
        let crc = superblock_crc(self.as_bytes().get(..length).unwrap_or(&[]));
        self.head.crc.set(crc);
        self.as_bytes().get(..length).unwrap_or(&[])
    }

    /// How long it is on the device: without the unused end of the volume table.
    fn sealed_bytes(&self) -> usize {
        let volumes = self.volume_count().saturating_mul(size_of::<VolumeEntry>());
        let length = SUPERBLOCK_MIN_BYTES.saturating_add(volumes);
        length.next_multiple_of(PIECE_BYTES).min(SUPERBLOCK_BYTES)
    }

    /// Where this generation is written: a place in front and one at the end of the device.
    #[must_use]
    pub const fn write_offsets(&self) -> [Bytes; 2] {
        let [a_front, b_front, a_end, b_end] = copy_offsets(self.device());
        if self.generation() % 2 == 0 {
            [a_front, a_end]
        } else {
            [b_front, b_end]
        }
    }

    fn area(&self, kind: u16, slot: Option<u16>) -> Option<Area> {
        let is_it = |e: &&Extent| e.kind.get() == kind && slot.is_none_or(|s| e.slot.get() == s);
        self.extents.iter().find(is_it).map(|e| Area {
            start: Bytes(e.start.get()),
            length: Bytes(e.length.get()),
        })
    }

    /// The ring of batches, unless it was formatted without.
    #[must_use]
    pub fn ring(&self) -> Option<Area> {
        self.area(EXTENT_RING, None)
    }

    /// The change map of the link in `slot`.
    #[must_use]
    pub fn map(&self, slot: usize) -> Option<Area> {
        self.area(EXTENT_MAP, Some(u16::try_from(slot).ok()?))
    }

    /// What is kept for change maps.
    #[must_use]
    pub fn reserved_area(&self) -> Option<Area> {
        self.area(EXTENT_RESERVED, None)
    }
}
