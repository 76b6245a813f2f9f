// SPDX-License-Identifier: GPL-2.0

//! The fixed header of every message after the proof: 96 bytes.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `dmRm` |
//! | 4 | 1 | type |
//! | 5 | 1 | flags: 1 sent again, 2 the primary's writers wait for this peer, 4 until it is durable there |
//! | 6 | 2 | connection index |
//! | 8 | 4 | length of what follows the header: control part and data |
//! | 12 | 4 | CRC32C of the header, seeded with the session id, this field zero |
//! | 16 | 8 | session id |
//! | 24 | 24 | position: epoch id, seq |
//! | 48 | 8 | commit point |
//! | 56 | 16 | credit: highest seq, highest byte |
//! | 72 | 8 | send time, ns since 1970 |
//! | 80 | 4 | CRC32C of the control part |
//! | 84 | 12 | reserved, zero |

use zerocopy::{
    little_endian::{U16, U32, U64},
    transmute, transmute_ref,
};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{bytes::zero, WireError, DATA_HEAD_BYTES, HEADER_BYTES, MAX_CONTROL, MAX_DATA};
use crate::{
    checksum::crc32c,
    group::numbered,
    lineage::Pos,
    units::{Position, Seq},
};

const MAGIC: [u8; 4] = *b"dmRm";

/// The message was sent before and is sent again.
pub const FLAG_AGAIN: u8 = 1;
/// From a primary: its writers wait for this peer's acknowledgements.
pub const FLAG_IN_SYNC: u8 = 2;
/// ... and not before it is on the peer's stable storage (mode `logged` or `applied`): the log is flushed at once.
pub const FLAG_STABLE: u8 = 4;
const FLAGS: u8 = FLAG_AGAIN | FLAG_IN_SYNC | FLAG_STABLE;

numbered! {
    /// Type of a message.
    Kind {
        /// No: a reason.
        Refuse = 1 "refuse",
        /// What this host has.
        State = 2 "state",
        /// Yes: the session, the lineage, where to resume.
        Welcome = 3 "welcome",
        /// The secondary is ready for records.
        Ready = 4 "ready",
        /// The session ends in order.
        Goodbye = 5 "goodbye",
        /// One write.
        Record = 16 "record",
        /// Nothing but the commit point in the header.
        CommitPoint = 17 "commit-point",
        /// Still there.
        Heartbeat = 18 "heartbeat",
        /// What the secondary has.
        Ack = 19 "ack",
        /// Please send these again.
        Resend = 20 "resend",
        /// Region copies follow.
        SyncStart = 32 "sync-start",
        /// One region of a volume.
        RegionCopy = 33 "region-copy",
        /// Copies that are durable.
        CopyAck = 34 "copy-ack",
        /// No more region copies.
        SyncEnd = 35 "sync-end",
    }
}

impl Kind {
    /// Numbers that later versions may use: joining connections, map exchange, verify, markers,
    /// tail donation.
    const RESERVED: [u8; 8] = [6, 48, 49, 50, 51, 52, 53, 54];

    fn decode(n: u8) -> Result<Kind, WireError> {
        match Kind::from_u8(n) {
            Some(kind) => Ok(kind),
            None if Kind::RESERVED.contains(&n) => Err(WireError::ReservedKind(n)),
            None => Err(WireError::UnknownKind(n)),
        }
    }

    /// Whether data may follow its control part.
    #[must_use]
    pub const fn has_data(self) -> bool {
        matches!(self, Kind::Record | Kind::RegionCopy)
    }
}

/// How far the other side may send. Absolute, so that what is lost or sent again always fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Credit {
    /// Highest seq.
    pub seq: Seq,
    /// Highest byte of the session's data, counted from its start.
    pub byte: u64,
}

/// What a sender says with every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// `FLAG_*`.
    pub flags: u8,
    /// Which of the link's connections this is.
    pub connection: u16,
    /// The session; 0 before there is one.
    pub session: u64,
    /// A record's own position; else the newest that the sender holds.
    pub position: Position,
    /// What the primary cannot lose any more.
    pub commit: Seq,
    /// How far the receiver of this message may send.
    pub credit: Credit,
    /// When it was sent, ns since 1970 by the sender's clock.
    pub time_ns: u64,
}

/// A header that is whole and makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the sender says with every message.
    pub envelope: Envelope,
    /// What follows.
    pub kind: Kind,
    /// How many bytes follow.
    pub length: u32,
    /// CRC32C of the control part.
    pub control_crc: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    kind: u8,
    flags: u8,
    connection: U16,
    length: U32,
    crc: U32,
    session: U64,
    position: Pos,
    commit: U64,
    credit_seq: U64,
    credit_byte: U64,
    time_ns: U64,
    control_crc: U32,
    reserved: [u8; 12],
}

/// CRC of a header, whatever its CRC field holds.
fn header_crc(session: u64, bytes: &[u8; HEADER_BYTES]) -> u32 {
    let before = bytes.get(..12).unwrap_or(&[]);
    let after = bytes.get(16..).unwrap_or(&[]);
    let seed = crc32c(0, &session.to_le_bytes());
    crc32c(crc32c(crc32c(seed, before), &[0; 4]), after)
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let e = &self.envelope;
        let mut raw = Raw {
            magic: MAGIC,
            kind: self.kind.to_u8(),
            flags: e.flags & FLAGS,
            connection: e.connection.into(),
            length: self.length.into(),
            crc: 0.into(),
            session: e.session.into(),
            position: e.position.into(),
            commit: e.commit.0.into(),
            credit_seq: e.credit.seq.0.into(),
            credit_byte: e.credit.byte.into(),
            time_ns: e.time_ns.into(),
            control_crc: self.control_crc.into(),
            reserved: [0; 12],
        };
        raw.crc = header_crc(e.session, &transmute!(raw)).into();
        transmute!(raw)
    }

    /// The header that these bytes are. Lengths are checked against the type.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
        let raw: &Raw = transmute_ref!(bytes);
        if raw.magic != MAGIC {
            return Err(WireError::Magic);
        }
        let session = raw.session.get();
        if header_crc(session, bytes) != raw.crc.get() {
            return Err(WireError::HeaderCrc);
        }
        zero(&raw.reserved)?;
        let kind = Kind::decode(raw.kind)?;
        if raw.flags & !FLAGS != 0 {
            return Err(WireError::Flags(raw.flags));
        }
        let length = raw.length.get();
        let possible = if kind.has_data() {
            let data = length.checked_sub(DATA_HEAD_BYTES as u32);
            data.is_some_and(|d| d <= MAX_DATA && d % 512 == 0)
        } else {
            length <= MAX_CONTROL
        };
        if !possible {
            return Err(WireError::Length { kind, length });
        }
        Ok(Header {
            envelope: Envelope {
                flags: raw.flags,
                connection: raw.connection.get(),
                session,
                position: raw.position.get(),
                commit: Seq(raw.commit.get()),
                credit: Credit {
                    seq: Seq(raw.credit_seq.get()),
                    byte: raw.credit_byte.get(),
                },
                time_ns: raw.time_ns.get(),
            },
            kind,
            length,
            control_crc: raw.control_crc.get(),
        })
    }

    /// Bytes of the control part that follows the header.
    #[must_use]
    pub const fn control(&self) -> u32 {
        if self.kind.has_data() {
            DATA_HEAD_BYTES as u32
        } else {
            self.length
        }
    }

    /// Bytes of data that follow the control part.
    #[must_use]
    pub const fn data(&self) -> u32 {
        self.length.saturating_sub(self.control())
    }
}

const _: () = assert!(size_of::<Raw>() == HEADER_BYTES);

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_wire_header))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::units::EpochId;

    fn sample() -> Header {
        Header {
            envelope: Envelope {
                flags: FLAG_AGAIN,
                connection: 3,
                session: 0x0102_0304_0506_0708,
                position: Position {
                    epoch: EpochId([7; 16]),
                    seq: Seq(99),
                },
                commit: Seq(90),
                credit: Credit {
                    seq: Seq(1000),
                    byte: 1 << 24,
                },
                time_ns: 5,
            },
            kind: Kind::Record,
            length: 56 + 4096,
            control_crc: 0xabcd,
        }
    }

    #[test]
    fn bytes_are_where_the_document_says() {
        let b = sample().encode();
        assert_eq!(b[0..4], *b"dmRm");
        assert_eq!(b[4..8], [16, 1, 3, 0]);
        assert_eq!(b[8..12], (56u32 + 4096).to_le_bytes());
        assert_eq!(b[16..24], 0x0102_0304_0506_0708u64.to_le_bytes());
        assert_eq!(b[24..40], [7; 16]);
        assert_eq!(b[40..48], 99u64.to_le_bytes());
        assert_eq!(b[48..56], 90u64.to_le_bytes());
        assert_eq!(b[56..64], 1000u64.to_le_bytes());
        assert_eq!(b[64..72], (1u64 << 24).to_le_bytes());
        assert_eq!(b[72..80], 5u64.to_le_bytes());
        assert_eq!(b[80..84], 0xabcdu32.to_le_bytes());
        assert_eq!(b[84..96], [0; 12]);
        assert_eq!(Header::decode(&b), Ok(sample()));
        assert_eq!(sample().control(), 56);
        assert_eq!(sample().data(), 4096);
    }

    #[test]
    fn lengths_fit_types() {
        let with = |kind, length| {
            let h = Header {
                kind,
                length,
                ..sample()
            };
            Header::decode(&h.encode()).err()
        };
        let bad = |kind, length| Some(WireError::Length { kind, length });
        assert_eq!(with(Kind::Record, 56), None);
        assert_eq!(with(Kind::Record, 55), bad(Kind::Record, 55));
        assert_eq!(with(Kind::Record, 57), bad(Kind::Record, 57));
        assert_eq!(with(Kind::RegionCopy, 56 + MAX_DATA), None);
        let long = 56 + MAX_DATA + 512;
        assert_eq!(with(Kind::RegionCopy, long), bad(Kind::RegionCopy, long));
        assert_eq!(with(Kind::State, MAX_CONTROL), None);
        assert_eq!(
            with(Kind::State, MAX_CONTROL + 1),
            bad(Kind::State, MAX_CONTROL + 1)
        );
    }

    #[test]
    fn unknown_is_told_from_reserved() {
        assert_eq!(Kind::decode(0), Err(WireError::UnknownKind(0)));
        assert_eq!(Kind::decode(50), Err(WireError::ReservedKind(50)));
        let known = (0..=u8::MAX).filter_map(|n| Kind::decode(n).ok().map(|k| (n, k)));
        let mut count = 0;
        for (n, kind) in known {
            assert_eq!(kind.to_u8(), n);
            assert!(!Kind::RESERVED.contains(&n));
            count += 1;
        }
        assert_eq!(count, 14);
    }
}
