// SPDX-License-Identifier: GPL-2.0

//! The wire: what two hosts of a group say to each other. Bytes in, checked values out, and back.
//!
//! No I/O and no memory of its own: the caller reads exactly as many bytes as it is told and hands
//! them in; what is parsed borrows from them. A connection goes through three phases:
//!
//! 1. **In the clear**, fixed sizes only: the connector's [`hello`], the listener's, then a proof of
//!    the shared secret from each, the connector first; or a refusal. Nothing else is accepted.
//! 2. **Handshake**, framed ([`header`]), session 0: `State` from both, then `Welcome` with a session
//!    id from the primary, or `Refuse`.
//! 3. **Session**: `Ready`, records, acknowledgements. Messages of another session are skipped unread.
//!
//! All seqs in a message are of the lineage that the session's `Welcome` carried; the header's
//! position names the epoch. Little endian throughout; `Documentation/wire-protocol.rst` has every byte.

mod bytes;
pub mod decoder;
mod error;
pub mod header;
pub mod hello;
pub mod message;
pub mod refusal;
pub mod state;
pub mod sync;

pub use decoder::{Decoder, Incoming};
pub use error::WireError;
pub use header::{Credit, Envelope, Header, Kind};
pub use hello::{Clear, End, Hello};
pub use message::{encode, encode_record, Message, Progress};
pub use refusal::{Code, Refusal};
pub use state::{
    encode_state, encode_welcome, Start, State, StateHead, Volumes, Welcome, WelcomeHead,
};
pub use sync::{RegionCopy, SyncStart};

/// The protocol version of this code, and the oldest that it speaks.
pub const VERSION: u16 = 1;

/// Bytes of a hello, for ever.
pub const HELLO_BYTES: usize = 160;
/// Bytes of a proof, for ever.
pub const PROOF_BYTES: usize = 48;
/// Bytes of a refusal in the clear, for ever.
pub const CLEAR_REFUSAL_BYTES: usize = 272;
/// Bytes of what a proof is computed over.
pub const TRANSCRIPT_BYTES: usize = 16 + 2 * HELLO_BYTES;
/// Bytes of what the MAC of a hello is computed over.
pub const SIGNED_BYTES: usize = 16 + HELLO_BYTES;

/// Bytes of a message header.
pub const HEADER_BYTES: usize = 96;
/// Bytes of the control part that precedes data.
pub const DATA_HEAD_BYTES: usize = 56;
/// Most bytes of data in a message.
pub const MAX_DATA: u32 = 1 << 20;
/// Most bytes of a message's control part; a buffer of this size is always enough.
pub const MAX_CONTROL: u32 = 65536;
/// Longest text of a refusal.
pub const MAX_TEXT: usize = 256;
/// Header and control part of a record or region copy: what precedes the data.
pub const DATA_MESSAGE_HEAD_BYTES: usize = HEADER_BYTES + DATA_HEAD_BYTES;
