// SPDX-License-Identifier: GPL-2.0

//! What is said in the clear: hello, proof, refusal. Fixed for ever, fixed sizes, no lists, no text
//! that is trusted.
//!
//! The connector's hello, the listener's hello, the connector's proof, the listener's proof. A proof
//! is an HMAC-SHA256 with the group's secret over [`transcript`], computed by the caller. The listener
//! says nothing that depends on the secret to one who has not proved that he knows it.
//!
//! The connector's hello carries a MAC of itself ([`signed`]). It proves less than the proof, because it may be a
//! recorded one; but whoever knows no secret and has recorded nothing does not get as far as owing a proof, so that
//! the few places of those who do are not theirs to take.
//!
//! | offset | bytes | hello |
//! |---|---|---|
//! | 0 | 8 | magic `dmRep\r\nH` |
//! | 8 | 2 | newest protocol version |
//! | 10 | 2 | oldest protocol version |
//! | 12 | 4 | CRC32C of the hello with this field zero |
//! | 16 | 64 | link name |
//! | 80 | 16 | host id |
//! | 96 | 32 | nonce |
//! | 128 | 32 | the connector's: MAC over [`signed`]; the listener's: zero |

use zerocopy::{
    little_endian::{U16, U32},
    transmute, transmute_ref, IntoBytes as _,
};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    bytes::{must, zero},
    refusal::{is_text, text_of, Code, Refusal},
    WireError, CLEAR_REFUSAL_BYTES, HELLO_BYTES, MAX_TEXT, PROOF_BYTES, SIGNED_BYTES,
    TRANSCRIPT_BYTES, VERSION,
};
use crate::{checksum::crc32c, group::Name, units::HostId};

const HELLO: [u8; 8] = *b"dmRep\r\nH";
const PROOF: [u8; 8] = *b"dmRep\r\nP";
const REFUSAL: [u8; 8] = *b"dmRep\r\nR";

/// What can come in the clear. The first eight bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clear {
    /// [`HELLO_BYTES`] in all.
    Hello,
    /// [`PROOF_BYTES`] in all.
    Proof,
    /// [`CLEAR_REFUSAL_BYTES`] in all.
    Refusal,
}

impl Clear {
    /// What begins with these eight bytes.
    pub fn peek(first: &[u8; 8]) -> Result<Clear, WireError> {
        match *first {
            HELLO => Ok(Clear::Hello),
            PROOF => Ok(Clear::Proof),
            REFUSAL => Ok(Clear::Refusal),
            _ => Err(WireError::Magic),
        }
    }

    /// How long it is in all.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Clear::Hello => HELLO_BYTES,
            Clear::Proof => PROOF_BYTES,
            Clear::Refusal => CLEAR_REFUSAL_BYTES,
        }
    }
}

/// Which end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that connected.
    Connector,
    /// The one that listened.
    Listener,
}

impl End {
    /// Sixteen bytes that differ, so that a proof cannot be sent back as the other's.
    const fn tag(self) -> [u8; 16] {
        match self {
            End::Connector => *b"dmRep connector\0",
            End::Listener => *b"dmRep listener\0\0",
        }
    }
}

/// The first thing that either end says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Newest protocol version that it speaks.
    pub highest: u16,
    /// Oldest protocol version that it speaks.
    pub lowest: u16,
    /// The link that is meant.
    pub link: Name,
    /// The host that speaks.
    pub host: HostId,
    /// Random, new for every connection.
    pub nonce: [u8; 32],
    /// The connector's: its MAC over [`signed`]. The listener's: zero.
    pub mac: [u8; 32],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHello {
    magic: [u8; 8],
    highest: U16,
    lowest: U16,
    crc: U32,
    link: Name,
    host: [u8; 16],
    nonce: [u8; 32],
    mac: [u8; 32],
}

impl Hello {
    /// The hello of this code, without a MAC.
    #[must_use]
    pub const fn new(link: Name, host: HostId, nonce: [u8; 32]) -> Hello {
        Hello {
            highest: VERSION,
            lowest: VERSION,
            link,
            host,
            nonce,
            mac: [0; 32],
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut raw = self.raw();
        raw.crc = crc32c(0, raw.as_bytes()).into();
        transmute!(raw)
    }

    /// Its fields in their places, the CRC zero.
    fn raw(&self) -> RawHello {
        RawHello {
            magic: HELLO,
            highest: self.highest.into(),
            lowest: self.lowest.into(),
            crc: 0.into(),
            link: self.link,
            host: self.host.0,
            nonce: self.nonce,
            mac: self.mac,
        }
    }

    /// The hello that these bytes are.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, WireError> {
        let raw: RawHello = transmute!(*bytes);
        if raw.magic != HELLO {
            return Err(WireError::Magic);
        }
        let plain = RawHello {
            crc: 0.into(),
            ..raw
        };
        if crc32c(0, plain.as_bytes()) != raw.crc.get() {
            return Err(WireError::HeaderCrc);
        }
        let (lowest, highest) = (raw.lowest.get(), raw.highest.get());
        must(lowest <= highest && lowest > 0, "range of versions")?;
        must(raw.link.is_valid(), "link name")?;
        must(raw.host != [0; 16], "host id")?;
        if raw.nonce == [0; 32] {
            return Err(WireError::Nonce);
        }
        Ok(Hello {
            highest,
            lowest,
            link: raw.link,
            host: HostId(raw.host),
            nonce: raw.nonce,
            mac: raw.mac,
        })
    }

    /// The version to speak with `peer`, when the two hellos go together at all.
    pub fn agree(&self, peer: &Hello) -> Result<u16, WireError> {
        let highest = self.highest.min(peer.highest);
        if highest < self.lowest.max(peer.lowest) {
            return Err(WireError::Version {
                lowest: peer.lowest,
                highest: peer.highest,
            });
        }
        if self.link != peer.link {
            return Err(WireError::OtherLink);
        }
        if self.host == peer.host {
            return Err(WireError::SameHost);
        }
        if self.nonce == peer.nonce {
            return Err(WireError::Nonce);
        }
        Ok(highest)
    }
}

/// What the MAC of a connector's hello is computed over: a tag, and the hello with CRC and MAC zero.
#[must_use]
pub fn signed(hello: &Hello) -> [u8; SIGNED_BYTES] {
    #[derive(IntoBytes, Immutable)]
    #[repr(C)]
    struct Signed {
        tag: [u8; 16],
        hello: RawHello,
    }
    transmute!(Signed {
        tag: *b"dmRep hello\0\0\0\0\0",
        hello: Hello {
            mac: [0; 32],
            ..*hello
        }
        .raw(),
    })
}

/// What `prover` computes its proof over: its tag and both hellos as they were sent.
#[must_use]
pub fn transcript(
    prover: End,
    connector: &[u8; HELLO_BYTES],
    listener: &[u8; HELLO_BYTES],
) -> [u8; TRANSCRIPT_BYTES] {
    #[derive(IntoBytes, Immutable)]
    #[repr(C)]
    struct Transcript {
        tag: [u8; 16],
        connector: [u8; HELLO_BYTES],
        listener: [u8; HELLO_BYTES],
    }
    transmute!(Transcript {
        tag: prover.tag(),
        connector: *connector,
        listener: *listener,
    })
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawProof {
    magic: [u8; 8],
    crc: U32,
    reserved: [u8; 4],
    mac: [u8; 32],
}

/// The bytes of a proof: magic, CRC32C with that field zero, four zeros, the MAC.
#[must_use]
pub fn encode_proof(mac: &[u8; 32]) -> [u8; PROOF_BYTES] {
    let mut raw = RawProof {
        magic: PROOF,
        crc: 0.into(),
        reserved: [0; 4],
        mac: *mac,
    };
    raw.crc = crc32c(0, raw.as_bytes()).into();
    transmute!(raw)
}

/// The MAC that a proof carries.
pub fn decode_proof(bytes: &[u8; PROOF_BYTES]) -> Result<[u8; 32], WireError> {
    let raw: RawProof = transmute!(*bytes);
    if raw.magic != PROOF {
        return Err(WireError::Magic);
    }
    let plain = RawProof {
        crc: 0.into(),
        ..raw
    };
    if crc32c(0, plain.as_bytes()) != raw.crc.get() {
        return Err(WireError::HeaderCrc);
    }
    zero(&raw.reserved)?;
    Ok(raw.mac)
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRefusal {
    magic: [u8; 8],
    crc: U32,
    code: U16,
    length: U16,
    text: [u8; MAX_TEXT],
}

/// The bytes of a refusal in the clear: magic, CRC32C with that field zero, code, length of the
/// text, 256 bytes of text. What is too long or not printable is cut or replaced.
#[must_use]
pub fn encode_refusal(code: Code, text: &str) -> [u8; CLEAR_REFUSAL_BYTES] {
    let mut raw = RawRefusal {
        magic: REFUSAL,
        crc: 0.into(),
        code: code.to_u16().into(),
        length: 0.into(),
        text: [0; MAX_TEXT],
    };
    let mut length = 0u16;
    for (place, byte) in raw.text.iter_mut().zip(text_of(text)) {
        *place = byte;
        length = length.saturating_add(1);
    }
    raw.length.set(length);
    raw.crc = crc32c(0, raw.as_bytes()).into();
    transmute!(raw)
}

/// The refusal that these bytes are. Nothing proves who sent it: show it, decide nothing by it.
pub fn decode_refusal(bytes: &[u8; CLEAR_REFUSAL_BYTES]) -> Result<Refusal<'_>, WireError> {
    let raw: &RawRefusal = transmute_ref!(bytes);
    if raw.magic != REFUSAL {
        return Err(WireError::Magic);
    }
    let plain = RawRefusal {
        crc: 0.into(),
        ..*raw
    };
    if crc32c(0, plain.as_bytes()) != raw.crc.get() {
        return Err(WireError::HeaderCrc);
    }
    let (text, rest) = raw
        .text
        .split_at_checked(usize::from(raw.length.get()))
        .ok_or(WireError::Field("length of a text"))?;
    zero(rest)?;
    Ok(Refusal {
        code: Code::from_u16(raw.code.get()),
        text: is_text(text)?,
    })
}

const _: () = assert!(size_of::<RawHello>() == HELLO_BYTES);
const _: () = assert!(size_of::<RawProof>() == PROOF_BYTES);
const _: () = assert!(size_of::<RawRefusal>() == CLEAR_REFUSAL_BYTES);

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_wire_hello))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    fn hello(host: u8, nonce: u8) -> Hello {
        let link = Name::new(b"dr").unwrap_or_default();
        Hello::new(link, HostId([host; 16]), [nonce; 32])
    }

    #[test]
    fn bytes_are_where_the_document_says() {
        let b = hello(1, 2).encode();
        assert_eq!(b[0..8], *b"dmRep\r\nH");
        assert_eq!(b[8..12], [1, 0, 1, 0]);
        assert_eq!(b[16..20], *b"dr\0\0");
        assert_eq!(b[80..96], [1; 16]);
        assert_eq!(b[96..128], [2; 32]);
        assert_eq!(b[128..160], [0; 32]);
        assert_eq!(Hello::decode(&b), Ok(hello(1, 2)));
        let first = b.first_chunk::<8>();
        assert_eq!(first.map(Clear::peek), Some(Ok(Clear::Hello)));
    }

    #[test]
    fn who_may_talk_to_whom() {
        let us = hello(1, 2);
        assert_eq!(us.agree(&hello(3, 4)), Ok(1));
        assert_eq!(us.agree(&hello(1, 4)), Err(WireError::SameHost));
        assert_eq!(us.agree(&hello(3, 2)), Err(WireError::Nonce));
        let mut other = hello(3, 4);
        other.link = Name::new(b"dr2").unwrap_or_default();
        assert_eq!(us.agree(&other), Err(WireError::OtherLink));
        let mut newer = hello(3, 4);
        newer.highest = 9;
        assert_eq!(us.agree(&newer), Ok(1));
        newer.lowest = 2;
        let no_common = WireError::Version {
            lowest: 2,
            highest: 9,
        };
        assert_eq!(us.agree(&newer), Err(no_common));
    }

    #[test]
    fn a_proof_cannot_be_reflected() {
        let (c, l) = (hello(1, 2).encode(), hello(3, 4).encode());
        let a = transcript(End::Connector, &c, &l);
        let b = transcript(End::Listener, &c, &l);
        assert!(a != b);
        assert!(a != transcript(End::Connector, &l, &c));
        assert_eq!(a[0..16], *b"dmRep connector\0");
        assert_eq!(a[16..176], c);
        assert_eq!(a[176..336], l);
    }

    #[test]
    fn a_hello_is_signed_without_its_mac() {
        let plain = signed(&hello(1, 2));
        assert_eq!(plain[0..16], *b"dmRep hello\0\0\0\0\0");
        assert_eq!(plain[28..32], [0; 4]);
        assert_eq!(plain[112..144], [2; 32]);
        let with = Hello {
            mac: [7; 32],
            ..hello(1, 2)
        };
        assert!(signed(&with) == plain);
        assert_eq!(Hello::decode(&with.encode()), Ok(with));
    }

    #[test]
    fn proofs() {
        let mac = [0x5a; 32];
        let b = encode_proof(&mac);
        assert_eq!(decode_proof(&b), Ok(mac));
    }

    #[test]
    fn refusals_in_the_clear() {
        let b = encode_refusal(Code::UnknownLink, "no link \"x\"\n");
        let r = decode_refusal(&b);
        assert_eq!(r.map(|r| r.code), Ok(Code::UnknownLink));
        assert_eq!(r.map(|r| r.text), Ok("no link \"x\"?"));
        let first = b.first_chunk::<8>();
        assert_eq!(first.map(Clear::peek), Some(Ok(Clear::Refusal)));
    }
}
