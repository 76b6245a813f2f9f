// SPDX-License-Identifier: GPL-2.0

//! A lineage as bytes: entries, the mark for what is folded, and positions. Little endian.

use zerocopy::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Before, Epoch, LineageError, Reason};
use crate::units::{EpochId, HostId, Position, Seq};

/// A position as 24 bytes: epoch id, seq.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Pos {
    epoch: [u8; 16],
    seq: U64,
}

impl Pos {
    /// As a position.
    #[must_use]
    pub fn get(&self) -> Position {
        Position {
            epoch: EpochId(self.epoch),
            seq: Seq(self.seq.get()),
        }
    }

    /// Whether all its bytes are zero: no position.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Pos::default()
    }
}

impl From<Position> for Pos {
    fn from(p: Position) -> Pos {
        Pos {
            epoch: p.epoch.0,
            seq: p.seq.0.into(),
        }
    }
}

/// [`Before`] as 32 bytes: epoch id, last seq, count, four zeros.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawBefore {
    epoch: [u8; 16],
    last: U64,
    folded: U32,
    reserved: [u8; 4],
}

impl RawBefore {
    /// As a mark, when it can be one.
    pub fn get(&self) -> Result<Before, LineageError> {
        let b = Before {
            folded: self.folded.get(),
            last: Seq(self.last.get()),
            epoch: EpochId(self.epoch),
        };
        if self.reserved != [0; 4] {
            return Err(LineageError::Reserved);
        }
        if b.epoch.is_none() != (b.folded == 0) || (b.folded == 0 && b.last != Seq::NONE) {
            return Err(LineageError::BadBefore);
        }
        Ok(b)
    }
}

impl From<Before> for RawBefore {
    fn from(b: Before) -> RawBefore {
        RawBefore {
            epoch: b.epoch.0,
            last: b.last.0.into(),
            folded: b.folded.into(),
            reserved: [0; 4],
        }
    }
}

/// [`Epoch`] as 64 bytes: id, host, first seq, time, index, reason, eleven zeros.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Entry {
    pub(super) id: [u8; 16],
    host: [u8; 16],
    first: U64,
    time_ns: U64,
    index: U32,
    pub(super) reason: u8,
    pub(super) reserved: [u8; 11],
}

impl Entry {
    /// An entry that says nothing.
    pub const EMPTY: Entry = Entry {
        id: [0; 16],
        host: [0; 16],
        first: U64::ZERO,
        time_ns: U64::ZERO,
        index: U32::ZERO,
        reason: 0,
        reserved: [0; 11],
    };

    /// As an epoch. Entries within a [`Lineage`] are checked: their reason is known.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch {
            id: EpochId(self.id),
            first: Seq(self.first.get()),
            host: HostId(self.host),
            reason: Reason::from_u8(self.reason).unwrap_or_default(),
            time_ns: self.time_ns.get(),
            index: self.index.get(),
        }
    }
}

impl From<Epoch> for Entry {
    fn from(e: Epoch) -> Entry {
        Entry {
            id: e.id.0,
            host: e.host.0,
            first: e.first.0.into(),
            time_ns: e.time_ns.into(),
            index: e.index.into(),
            reason: e.reason.to_u8(),
            reserved: [0; 11],
        }
    }
}

// The sizes that the documents state.
const _: () = assert!(size_of::<Entry>() == super::ENTRY_BYTES);
const _: () = assert!(size_of::<RawBefore>() == 32 && size_of::<Pos>() == 24);
