// SPDX-License-Identifier: GPL-2.0

//! The log device byte by byte: sizes, limits and layouts of format version 1.
//!
//! Layouts only; what the fields mean and which values are allowed is decided by `superblock` and
//! `batch`. Everything is little endian and without alignment, so the structs are used where the
//! bytes lie. `Documentation/log-format.rst` says the same in words.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    group::Name,
    lineage::{Pos, RawBefore},
    record::RECORD_BYTES,
};

/// Version of the format that this code writes and reads.
pub const VERSION: u32 = 1;

/// Smallest unit in which the log is written; the physical block of the device when that is larger.
pub const MIN_BLOCK: u32 = 4096;
/// Largest physical block that is supported.
pub const MAX_BLOCK: u32 = 65536;

/// Largest batch, descriptor and padding included.
pub const MAX_BATCH_BYTES: u32 = 2 << 20;
/// Most records in a batch.
pub const MAX_BATCH_RECORDS: u32 = 128;
/// Smallest ring: four largest batches.
pub const MIN_RING_BYTES: u64 = 4 * MAX_BATCH_BYTES as u64;

/// What one ring must keep free for its wrap: batches do not wrap, so less than one is wasted there.
pub const WRAP_RESERVE: u32 = MAX_BATCH_BYTES;

/// Distance between the two superblock slots, and room of each.
pub const SLOT_BYTES: u64 = 65536;
/// What both ends of the device keep for superblocks.
pub const END_BYTES: u64 = 2 * SLOT_BYTES;
/// Piece in which a superblock is written.
pub const PIECE_BYTES: usize = 4096;
/// Size of a superblock with a full volume table.
pub const SUPERBLOCK_BYTES: usize = 45056;
/// Size of a superblock without any volume.
pub const SUPERBLOCK_MIN_BYTES: usize = 12288;

/// Typed areas of the device.
pub const MAX_EXTENTS: usize = 16;
/// Links of a group.
pub const MAX_LINKS: usize = 32;
/// Volumes of a group.
pub const MAX_VOLUMES: usize = 256;

/// First bytes of a superblock, of any version.
pub const SUPERBLOCK_MAGIC: [u8; 8] = *b"dmRepSRL";
/// First bytes of a batch, of any version.
pub const BATCH_MAGIC: [u8; 8] = *b"dmRepBat";

/// Bytes of a [`BatchHeader`].
pub const BATCH_HEADER_BYTES: usize = 128;

/// What a batch begins with; record headers follow, 56 bytes each.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    /// 0: [`BATCH_MAGIC`].
    pub magic: [u8; 8],
    /// 8: format version.
    pub version: U16,
    /// 10: number of records.
    pub count: U16,
    /// 12: CRC32C over group uuid, epoch id and the descriptor with this field zero.
    pub crc: U32,
    /// 16: id of the epoch that all its records belong to.
    pub epoch: [u8; 16],
    /// 32: this log's number for that epoch, never used twice.
    pub epoch_index: U32,
    /// 36: length of the batch in bytes.
    pub length: U32,
    /// 40: where it lies, in bytes from the start of the ring.
    pub offset: U64,
    /// 48: how often the ring had wrapped.
    pub lap: U64,
    /// 56: seq of its first record.
    pub first_seq: U64,
    /// 64: highest seq known to be durable when it was written.
    pub durable: U64,
    /// 72: chain before its first record.
    pub chain: U32,
    /// 76: length of the descriptor in bytes.
    pub descriptor: U32,
    /// 80: zero.
    pub reserved: [u8; 48],
}

/// Head of a superblock.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SuperblockHead {
    /// 0: [`SUPERBLOCK_MAGIC`].
    pub magic: [u8; 8],
    /// 8: format version.
    pub version: U32,
    /// 12: bytes written, a multiple of 4096.
    pub length: U32,
    /// 16: CRC32C over those bytes with this field zero.
    pub crc: U32,
    /// 20: features that an older version may ignore.
    pub compat: U32,
    /// 24: features with which an older version may only read.
    pub ro_compat: U32,
    /// 28: features with which an older version may not even read.
    pub incompat: U32,
    /// 32: +1 with every write; even generations lie in slot A, odd ones in slot B.
    pub generation: U64,
    /// 40: size of the device in bytes when it was formatted.
    pub device: U64,
    /// 48: block in which the log is written.
    pub block: U32,
    /// 52: volumes in the table.
    pub volume_count: U16,
    /// 54: id for the next new volume.
    pub next_volume: U16,
    /// 56: group; zero while the host belongs to none.
    pub group: [u8; 16],
    /// 72: this host.
    pub host: [u8; 16],
    /// 88: name of the group on this host.
    pub group_name: Name,
    /// 152: role (`group::Role`).
    pub role: u8,
    /// 153: what the volumes hold (`group::Replica`).
    pub replica: u8,
    /// 154: epochs in the lineage.
    pub lineage_count: U16,
    /// 156: `FLAG_*`.
    pub flags: U32,
    /// 160: last number given to an epoch.
    pub last_epoch_index: U32,
    /// 164: chain before the first record at the tail.
    pub tail_chain: U32,
    /// 168: first record that is still needed.
    pub tail_seq: U64,
    /// 176: where its batch lies in the ring.
    pub tail_offset: U64,
    /// 184: lap of that place.
    pub tail_lap: U64,
    /// 192: commit position.
    pub commit: Pos,
    /// 216: all up to here is on the data volumes, flushed.
    pub applied: Pos,
    /// 240: nothing above it may have been written to the data volumes (without a ring).
    pub horizon: Pos,
    /// 264: position of the last checkpoint.
    pub checkpoint: Pos,
    /// 288: chain there.
    pub checkpoint_chain: U32,
    /// 292: zero.
    pub reserved_a: [u8; 4],
    /// 296: the log is void since this generation (policy bypass); 0: it is not.
    pub log_void: U64,
    /// 304: everything after it may differ from the log (`FLAG_UNLOGGED`).
    pub unlogged: Pos,
    /// 328: the volumes are a mixture since here (replica inconsistent).
    pub inconsistent: Pos,
    /// 352: and since then, ns since 1970.
    pub inconsistent_ns: U64,
    /// 360: where the mixture ends (`FLAG_SYNC_END`).
    pub sync_end: Pos,
    /// 384: folded epochs.
    pub before: RawBefore,
    /// 416: zero.
    pub reserved: [u8; 608],
}

/// Stopped cleanly: all that was completed is on the data volumes.
pub const FLAG_CLEAN: u32 = 1;
/// Redo above the applied position has begun (without a ring).
pub const FLAG_REDO: u32 = 2;
/// `unlogged` is set.
pub const FLAG_UNLOGGED: u32 = 4;
/// `sync_end` is set.
pub const FLAG_SYNC_END: u32 = 8;
/// All flags there are.
pub const FLAGS: u32 = FLAG_CLEAN | FLAG_REDO | FLAG_UNLOGGED | FLAG_SYNC_END;

/// One typed area of the device.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Extent {
    /// 0: `EXTENT_*`; 0: unused.
    pub kind: U16,
    /// 2: link slot that a map belongs to.
    pub slot: U16,
    /// 4: zero.
    pub reserved_a: [u8; 4],
    /// 8: first byte.
    pub start: U64,
    /// 16: bytes.
    pub length: U64,
    /// 24: zero.
    pub reserved: [u8; 8],
}

/// The ring of batches.
pub const EXTENT_RING: u16 = 1;
/// The change map of one link.
pub const EXTENT_MAP: u16 = 2;
/// Kept for change maps.
pub const EXTENT_RESERVED: u16 = 3;

/// What the log keeps of one link.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LinkSlot {
    /// 0: the peer.
    pub peer: [u8; 16],
    /// 16: name of the link.
    pub name: Name,
    /// 80: the peer has all up to here on stable storage.
    pub position: Pos,
    /// 104: chain there.
    pub chain: U32,
    /// 108: `superblock::LinkState`; 0: unused slot, all zero.
    pub state: u8,
    /// 109: `group::Mode`.
    pub mode: u8,
    /// 110: why it is in that state, a refusal code of the wire or 0.
    pub reason: U16,
    /// 112: since when, ns since 1970.
    pub since_ns: U64,
    /// 120: `superblock::SyncKind`; 0: no synchronisation, the fields below are zero.
    pub sync_kind: u8,
    /// 121: 1: `sync_end` is known.
    pub sync_flags: u8,
    /// 122: volume that the synchronisation has reached.
    pub sync_volume: U16,
    /// 124: zero.
    pub reserved_a: [u8; 4],
    /// 128: sector of it up to which the peer has durable copies.
    pub sync_cursor: U64,
    /// 136: where it began.
    pub sync_start: Pos,
    /// 160: where it ends.
    pub sync_end: Pos,
    /// 184: zero.
    pub reserved: [u8; 24],
}

/// What the log keeps of one volume.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VolumeEntry {
    /// 0: its number, never used twice in a group.
    pub id: U16,
    /// 2: `superblock::VolumeState`; 0: unused entry, all zero.
    pub state: u8,
    /// 3: zero.
    pub reserved_a: u8,
    /// 4: logical block size in bytes.
    pub logical_block: U32,
    /// 8: its name.
    pub name: Name,
    /// 72: its size in sectors.
    pub size: U64,
    /// 80: discard granularity in bytes; 0: no discard.
    pub discard_granularity: U32,
    /// 84: zero.
    pub reserved_b: [u8; 4],
    /// 88: sector up to which a running synchronisation has written it, durably.
    pub sync_cursor: U64,
    /// 96: seq at which that synchronisation ends; 0: not known.
    pub sync_end: U64,
    /// 104: zero.
    pub reserved: [u8; 24],
}

/// `value` rounded up to a multiple of `unit`, a power of two. Saturates.
#[must_use]
pub(crate) const fn round_up(value: u32, unit: u32) -> u32 {
    let mask = unit.saturating_sub(1);
    value.saturating_add(mask) & !mask
}

/// Whether `block` can be the block of a log.
#[must_use]
pub const fn is_block(block: u32) -> bool {
    block.is_power_of_two() && block >= MIN_BLOCK && block <= MAX_BLOCK
}

/// The block for a device with this physical block; `None` when that is not supported.
#[must_use]
pub const fn block_for(physical_block: u32) -> Option<u32> {
    let block = if physical_block < MIN_BLOCK {
        MIN_BLOCK
    } else {
        physical_block
    };
    if physical_block.is_power_of_two() && is_block(block) {
        Some(block)
    } else {
        None
    }
}

// The document and other implementations rely on these.
const _: () = assert!(size_of::<BatchHeader>() == BATCH_HEADER_BYTES);
const _: () = assert!(size_of::<SuperblockHead>() == 1024);
const _: () = assert!(size_of::<Extent>() == 32);
const _: () = assert!(size_of::<LinkSlot>() == 208);
const _: () = assert!(size_of::<VolumeEntry>() == 128);
const _: () = assert!(RECORD_BYTES == 56);
