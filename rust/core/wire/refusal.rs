// SPDX-License-Identifier: GPL-2.0

//! Why a host says no, or goodbye: a number for programs and a text for people.

use core::fmt;

use zerocopy::{little_endian::U16, FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    bytes::{zero, Out},
    WireError, MAX_TEXT,
};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $n:literal $text:literal),* $(,)?) => {
        /// Why. The numbers are also the link's reason in status, events and superblock.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// One that this version does not know.
            Other(u16),
        }

        impl Code {
            /// All that this version knows.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// Its number.
            #[must_use]
            pub const fn to_u16(self) -> u16 {
                match self { $(Code::$name => $n,)* Code::Other(n) => n }
            }

            /// The one with this number.
            #[must_use]
            pub const fn from_u16(n: u16) -> Code {
                match n { $($n => Code::$name,)* n => Code::Other(n) }
            }

            /// Its word in status and events.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* Code::Other(_) => "unknown reason" }
            }
        }
    };
}

codes! {
    /// The proof is wrong.
    WrongSecret = 1 "wrong secret",
    /// No link of that name here.
    UnknownLink = 2 "unknown link",
    /// No common protocol version.
    Version = 3 "no common protocol version",
    /// Both ends have the same host id.
    SameHost = 4 "same host id on both ends",
    /// The peer of this link is another host.
    OtherHost = 5 "another host than before",
    /// The group is another one.
    OtherGroup = 6 "another group",
    /// Both are primary, or both secondary.
    Role = 7 "roles do not go together",
    /// The histories have parted.
    Forked = 8 "forked",
    /// The peer has applied what this host does not have.
    PeerAhead = 9 "peer ahead",
    /// The log does not reach back far enough.
    NeedsSync = 10 "needs-sync",
    /// The chain values at the last common seq differ.
    Chain = 11 "histories differ",
    /// A volume is missing on one side.
    VolumeMissing = 12 "volume missing",
    /// A volume of the peer is too small.
    VolumeSize = 13 "volume too small",
    /// A volume of the peer has larger blocks.
    VolumeBlock = 14 "volume with larger blocks",
    /// A session for this link is there already.
    Busy = 15 "link busy",
    /// Not all volumes are there yet.
    NotReady = 16 "not ready",
    /// A feature is needed that the peer does not have.
    Features = 17 "missing feature",
    /// The other side broke the protocol.
    Protocol = 18 "protocol error",
    /// A payload did not match its checksum, again.
    Corrupt = 19 "corrupt data",
    /// The replica is a mixture.
    Inconsistent = 20 "inconsistent",
    /// Somebody said `link disconnect`.
    Disconnected = 21 "disconnected by command",
    /// The host stops, or removes the group.
    Stopping = 22 "host is stopping",
    /// The host takes over.
    TakeOver = 23 "host takes over",
    /// Its own log or volume failed.
    Failed = 24 "host has failed",
    /// Memory ran out.
    NoMemory = 25 "out of memory",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Other(n) => write!(f, "unknown reason {n}"),
            known => f.write_str(known.as_str()),
        }
    }
}

/// A refusal or a goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// For programs.
    pub code: Code,
    /// For people: printable ASCII, at most [`MAX_TEXT`] bytes.
    pub text: &'a str,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    code: U16,
    length: U16,
    reserved: [u8; 4],
}

/// The bytes of `text` that may be sent: cut to [`MAX_TEXT`], `?` for what is not printable.
pub(super) fn text_of(text: &str) -> impl Iterator<Item = u8> + '_ {
    let printable = |b: u8| if matches!(b, 0x20..=0x7e) { b } else { b'?' };
    text.bytes().take(MAX_TEXT).map(printable)
}

/// `bytes` as text, when they are printable.
pub(super) fn is_text(bytes: &[u8]) -> Result<&str, WireError> {
    let bad = WireError::Field("character in a text");
    if bytes.len() > MAX_TEXT || !bytes.iter().all(|b| matches!(b, 0x20..=0x7e)) {
        return Err(bad);
    }
    core::str::from_utf8(bytes).map_err(|_| bad)
}

impl<'a> Refusal<'a> {
    /// Code, length of the text, four zeros, the text.
    pub(super) fn encode(&self, out: &mut Out<'_>) -> Result<(), WireError> {
        let length = u16::try_from(text_of(self.text).count()).unwrap_or(0);
        let raw = Raw {
            code: self.code.to_u16().into(),
            length: length.into(),
            reserved: [0; 4],
        };
        out.put(raw.as_bytes())?;
        text_of(self.text).try_for_each(|b| out.put(&[b]))
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Refusal<'a>, WireError> {
        let (raw, text) = Raw::ref_from_prefix(bytes).map_err(|_| WireError::Size)?;
        zero(&raw.reserved)?;
        if text.len() != usize::from(raw.length.get()) {
            return Err(WireError::Field("length of a text"));
        }
        Ok(Refusal {
            code: Code::from_u16(raw.code.get()),
            text: is_text(text)?,
        })
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_wire_refusal))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_number() {
        for code in Code::ALL {
            assert_eq!(Code::from_u16(code.to_u16()), *code);
        }
        assert_eq!(Code::from_u16(9999), Code::Other(9999));
        assert_eq!(Code::Forked.to_u16(), 8);
    }

    #[test]
    fn text_is_printable_or_refused() {
        assert_eq!(is_text(b"plain"), Ok("plain"));
        assert!(is_text(b"esc\x1b[2J").is_err());
        assert!(is_text(b"\xff").is_err());
        assert!(is_text(&[b'x'; 257]).is_err());
    }
}
