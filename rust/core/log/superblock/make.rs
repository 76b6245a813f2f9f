// SPDX-License-Identifier: GPL-2.0

//! Making a superblock: what `dmrepl srl format` lays out.

use core::fmt;

use zerocopy::IntoBytes as _;

use super::{copy_offsets, Superblock};
use crate::{
    group::Replica,
    log::format::{
        block_for, Extent, END_BYTES, EXTENT_RESERVED, EXTENT_RING, MIN_RING_BYTES,
        SUPERBLOCK_MAGIC, VERSION,
    },
    units::{Bytes, HostId},
};

/// Smallest device with a ring.
pub const MIN_DEVICE_BYTES: u64 = 9 << 20;
/// Smallest device without one.
pub const MIN_DEVICE_NO_RING_BYTES: u64 = 1 << 20;
/// Most that is kept for change maps where there is a ring.
const MAX_RESERVED_BYTES: u64 = 32 << 20;

/// What to format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// This host's new id, random.
    pub host: HostId,
    /// Size of the device.
    pub device: Bytes,
    /// Its physical block size.
    pub physical_block: u32,
    /// Whether there is to be a ring.
    pub ring: bool,
}

/// Why a device cannot be formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// It is too small.
    TooSmall {
        /// What it must have.
        need: Bytes,
        /// What it has.
        device: Bytes,
    },
    /// Its physical block size is not supported.
    Block(u32),
    /// The host id names nothing.
    NoHost,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::TooSmall { need, device } => {
                write!(
                    f,
                    "the device has {device} bytes, a log needs at least {need}"
                )
            }
            FormatError::Block(n) => write!(f, "a physical block size of {n} is not supported"),
            FormatError::NoHost => f.write_str("a host id of zeros names no host"),
        }
    }
}

impl Superblock {
    /// Becomes the superblock of a freshly formatted device, of generation 0.
    ///
    /// To be whole in all four places it is advanced, sealed and written twice. What the ring held
    /// before needs no wiping: a new group's batches are told from old ones by their checksum.
    pub fn format(&mut self, f: &Format) -> Result<(), FormatError> {
        let block = block_for(f.physical_block).ok_or(FormatError::Block(f.physical_block))?;
        let need = if f.ring {
            MIN_DEVICE_BYTES
        } else {
            MIN_DEVICE_NO_RING_BYTES
        };
        if f.device.0 < need {
            return Err(FormatError::TooSmall {
                need: Bytes(need),
                device: f.device,
            });
        }
        if f.host.is_none() {
            return Err(FormatError::NoHost);
        }
        let [.., end, _] = copy_offsets(f.device);
        let room = end.minus(Bytes(END_BYTES));
        let reserved = if f.ring {
            Bytes((f.device.0 / 16).min(MAX_RESERVED_BYTES)).round_down(block)
        } else {
            room
        };
        let ring_start = Bytes(END_BYTES).plus(reserved);
        let ring = room.minus(reserved).round_down(block);
        if f.ring && ring.0 < MIN_RING_BYTES {
            return Err(FormatError::TooSmall {
                need: Bytes(need),
                device: f.device,
            });
        }

        self.as_mut_bytes().fill(0);
        self.head.magic = SUPERBLOCK_MAGIC;
        self.head.version.set(VERSION);
        self.head.device.set(f.device.0);
        self.head.block.set(block);
        self.head.host = f.host.0;
        self.head.replica = Replica::Empty.to_u8();
        self.head.tail_seq.set(1);
        let areas = [
            (EXTENT_RESERVED, Bytes(END_BYTES), reserved),
            (
                EXTENT_RING,
                ring_start,
                if f.ring { ring } else { Bytes(0) },
            ),
        ];
        for (extent, (kind, start, length)) in self.extents.iter_mut().zip(areas) {
            if length.0 > 0 {
                *extent = Extent {
                    kind: kind.into(),
                    slot: 0.into(),
                    reserved_a: [0; 4],
                    start: start.0.into(),
                    length: length.0.into(),
                    reserved: [0; 8],
                };
            }
        }
        Ok(())
    }
}
