// SPDX-License-Identifier: GPL-2.0

//! Why what arrived is refused. Any of these ends the connection, is counted, and shown.

use core::fmt;

use super::Kind;
use crate::{lineage::LineageError, record::RecordError};

/// What is wrong with bytes from the network, or with what was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The buffer to encode into is too small.
    NoRoom,
    /// The bytes handed in are not as many as were asked for.
    Size,
    /// The first bytes are not those of this protocol.
    Magic,
    /// A checksum over a hello, proof, refusal or header is wrong.
    HeaderCrc,
    /// The checksum over a message's control part is wrong.
    ControlCrc,
    /// The two hosts speak no common version.
    Version {
        /// Oldest version of the peer.
        lowest: u16,
        /// Newest version of the peer.
        highest: u16,
    },
    /// The peer names another link.
    OtherLink,
    /// The peer is this host.
    SameHost,
    /// The peer repeats our nonce, or has none.
    Nonce,
    /// No such type of message.
    UnknownKind(u8),
    /// A type that a later version may use.
    ReservedKind(u8),
    /// A type that this side of the link does not send, or not in this phase.
    Unexpected(Kind),
    /// Flags that mean nothing.
    Flags(u8),
    /// A length that this type of message cannot have.
    Length {
        /// The type.
        kind: Kind,
        /// Its length.
        length: u32,
    },
    /// A field with an impossible value: which.
    Field(&'static str),
    /// Reserved bytes that are not zero.
    Reserved,
    /// A bad record.
    Record(RecordError),
    /// A bad lineage.
    Lineage(LineageError),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::NoRoom => f.write_str("buffer too small for a message"),
            WireError::Size => f.write_str("message cut short"),
            WireError::Magic => f.write_str("not the dm-replicate protocol"),
            WireError::HeaderCrc => f.write_str("message header with a wrong checksum"),
            WireError::ControlCrc => f.write_str("message with a wrong checksum"),
            WireError::Version { lowest, highest } => {
                write!(f, "peer speaks protocol versions {lowest} to {highest}")
            }
            WireError::OtherLink => f.write_str("peer means another link"),
            WireError::SameHost => f.write_str("peer has the host id of this host"),
            WireError::Nonce => f.write_str("peer sent no nonce of its own"),
            WireError::UnknownKind(n) => write!(f, "message of unknown type {n}"),
            WireError::ReservedKind(n) => write!(f, "message of type {n} of a later version"),
            WireError::Unexpected(kind) => write!(f, "unexpected {kind} message"),
            WireError::Flags(n) => write!(f, "message with meaningless flags {n:#x}"),
            WireError::Length { kind, length } => {
                write!(
                    f,
                    "{kind} message with an impossible length of {length} bytes"
                )
            }
            WireError::Field(what) => write!(f, "message with an impossible {what}"),
            WireError::Reserved => f.write_str("message with reserved bytes that are not zero"),
            WireError::Record(e) => e.fmt(f),
            WireError::Lineage(e) => e.fmt(f),
        }
    }
}

impl From<RecordError> for WireError {
    fn from(e: RecordError) -> WireError {
        WireError::Record(e)
    }
}

impl From<LineageError> for WireError {
    fn from(e: LineageError) -> WireError {
        WireError::Lineage(e)
    }
}
