// SPDX-License-Identifier: GPL-2.0

//! The messages: what follows a header, parsed and built.

use zerocopy::{little_endian::U64, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    bytes::{must, Out},
    Envelope, Header, Kind, Refusal, RegionCopy, State, SyncStart, Welcome, WireError,
    DATA_HEAD_BYTES, DATA_MESSAGE_HEAD_BYTES, HEADER_BYTES,
};
use crate::{
    checksum::crc32c,
    record,
    units::{Record, Seq},
};

/// What the secondary has; cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// All up to here is in its memory: the network ack.
    pub received: Seq,
    /// All up to here is on its stable storage: the data ack.
    pub logged: Seq,
    /// All up to here is on its volumes.
    pub applied: Seq,
}

/// A message, without the data that follows some.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// No: a reason.
    Refuse(Refusal<'a>),
    /// What this host has.
    State(State<'a>),
    /// Yes.
    Welcome(Welcome<'a>),
    /// The secondary is ready for records.
    Ready(Progress),
    /// The session ends in order.
    Goodbye(Refusal<'a>),
    /// One write; its payload follows.
    Record(Record),
    /// Nothing but the commit point in the header.
    CommitPoint,
    /// Still there.
    Heartbeat {
        /// Send time of the newest message that has come from the other side; 0: none yet.
        echo_ns: u64,
    },
    /// What the secondary has.
    Ack(Progress),
    /// Please send these again.
    Resend {
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
    },
    /// Region copies follow.
    SyncStart(SyncStart<'a>),
    /// One region; its data follows, unless it is all zeros.
    RegionCopy(RegionCopy),
    /// Copies up to this item are durable at the secondary.
    CopyAck {
        /// The item.
        item: u64,
    },
    /// No more region copies.
    SyncEnd {
        /// The volumes are one state of the history once all records up to here are applied.
        end: Seq,
        /// How many copies there were.
        items: u64,
    },
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawProgress {
    received: U64,
    logged: U64,
    applied: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Pair(U64, U64);

/// A fixed-size control part.
fn fixed<T>(bytes: &[u8], header: &Header) -> Result<T, WireError>
where
    T: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable,
{
    T::read_from_bytes(bytes).map_err(|_| WireError::Length {
        kind: header.kind,
        length: header.length,
    })
}

impl Progress {
    fn decode(bytes: &[u8], header: &Header) -> Result<Progress, WireError> {
        let raw: RawProgress = fixed(bytes, header)?;
        let p = Progress {
            received: Seq(raw.received.get()),
            logged: Seq(raw.logged.get()),
            applied: Seq(raw.applied.get()),
        };
        p.check()?;
        Ok(p)
    }

    fn check(&self) -> Result<(), WireError> {
        let ordered = self.logged <= self.received && self.applied <= self.received;
        must(
            ordered,
            "acknowledgement (logged or applied above received)",
        )
    }

    fn encode(&self, out: &mut Out<'_>) -> Result<(), WireError> {
        self.check()?;
        let raw = RawProgress {
            received: self.received.0.into(),
            logged: self.logged.0.into(),
            applied: self.applied.0.into(),
        };
        out.put(raw.as_bytes())
    }
}

impl<'a> Message<'a> {
    /// The message whose header is `header` and whose control part is `bytes`, checksum and all.
    pub(super) fn decode(header: &Header, bytes: &'a [u8]) -> Result<Message<'a>, WireError> {
        if bytes.len() != header.control() as usize {
            return Err(WireError::Size);
        }
        if crc32c(0, bytes) != header.control_crc {
            return Err(WireError::ControlCrc);
        }
        let head = || {
            bytes
                .first_chunk::<DATA_HEAD_BYTES>()
                .ok_or(WireError::Size)
        };
        let wrong_length = WireError::Length {
            kind: header.kind,
            length: header.length,
        };
        let message = match header.kind {
            Kind::Refuse => Message::Refuse(Refusal::decode(bytes)?),
            Kind::Goodbye => Message::Goodbye(Refusal::decode(bytes)?),
            Kind::State => Message::State(State::decode(bytes)?),
            Kind::Welcome => Message::Welcome(Welcome::decode(bytes)?),
            Kind::Ready => Message::Ready(Progress::decode(bytes, header)?),
            Kind::Ack => Message::Ack(Progress::decode(bytes, header)?),
            Kind::Record => {
                let r = record::decode(head()?)?;
                if r.payload_bytes() != header.data() {
                    return Err(wrong_length);
                }
                must(
                    header.envelope.position.seq == r.seq,
                    "position of a record",
                )?;
                Message::Record(r)
            }
            Kind::RegionCopy => {
                let copy = RegionCopy::decode(head()?)?;
                if copy.payload_bytes() != header.data() {
                    return Err(wrong_length);
                }
                Message::RegionCopy(copy)
            }
            Kind::CommitPoint if bytes.is_empty() => Message::CommitPoint,
            Kind::CommitPoint => return Err(wrong_length),
            Kind::Heartbeat => {
                let echo: U64 = fixed(bytes, header)?;
                Message::Heartbeat {
                    echo_ns: echo.get(),
                }
            }
            Kind::Resend => {
                let Pair(from, to) = fixed(bytes, header)?;
                let (from, to) = (Seq(from.get()), Seq(to.get()));
                must(from > Seq::NONE && from <= to, "range to send again")?;
                Message::Resend { from, to }
            }
            Kind::SyncStart => Message::SyncStart(SyncStart::decode(bytes)?),
            Kind::CopyAck => {
                let item: U64 = fixed(bytes, header)?;
                Message::CopyAck { item: item.get() }
            }
            Kind::SyncEnd => {
                let Pair(end, items) = fixed(bytes, header)?;
                Message::SyncEnd {
                    end: Seq(end.get()),
                    items: items.get(),
                }
            }
        };
        Ok(message)
    }
}

/// Puts the header before a control part that already lies in `out`; returns the length of both.
pub(super) fn seal(
    envelope: &Envelope,
    kind: Kind,
    control: usize,
    data: u32,
    out: &mut [u8],
) -> Result<usize, WireError> {
    let (place, body) = out
        .split_first_chunk_mut::<HEADER_BYTES>()
        .ok_or(WireError::NoRoom)?;
    let body = body.get(..control).ok_or(WireError::NoRoom)?;
    let header = Header {
        envelope: *envelope,
        kind,
        length: u32::try_from(control)
            .unwrap_or(u32::MAX)
            .saturating_add(data),
        control_crc: crc32c(0, body),
    };
    *place = header.encode();
    Ok(HEADER_BYTES.saturating_add(control))
}

/// Writes what precedes a record's payload into `out`; the payload follows from the caller's pages.
///
/// The envelope's position must be the record's own.
pub fn encode_record(envelope: &Envelope, r: &Record, out: &mut [u8]) -> Result<usize, WireError> {
    must(envelope.position.seq == r.seq, "position of a record")?;
    let bytes = record::encode(r)?;
    put_head(&bytes, out)?;
    seal(
        envelope,
        Kind::Record,
        DATA_HEAD_BYTES,
        r.payload_bytes(),
        out,
    )
}

fn put_head(bytes: &[u8; DATA_HEAD_BYTES], out: &mut [u8]) -> Result<(), WireError> {
    let place = out
        .get_mut(HEADER_BYTES..DATA_MESSAGE_HEAD_BYTES)
        .ok_or(WireError::NoRoom)?;
    place.copy_from_slice(bytes);
    Ok(())
}

/// Writes a whole message into `out` (of a record or region copy: what precedes the data); returns
/// how many bytes. `State` and `Welcome` are written by their own functions, from their own tables.
pub fn encode(
    envelope: &Envelope,
    message: &Message<'_>,
    out: &mut [u8],
) -> Result<usize, WireError> {
    let (kind, data) = match message {
        Message::Record(r) => return encode_record(envelope, r, out),
        Message::State(s) => {
            return super::encode_state(envelope, &s.head, &s.lineage, s.volumes.iter(), out)
        }
        Message::Welcome(w) => {
            return super::encode_welcome(envelope, &w.head, &w.lineage, w.volumes.iter(), out)
        }
        Message::RegionCopy(copy) => {
            put_head(&copy.encode()?, out)?;
            return seal(
                envelope,
                Kind::RegionCopy,
                DATA_HEAD_BYTES,
                copy.payload_bytes(),
                out,
            );
        }
        Message::Refuse(_) => (Kind::Refuse, 0),
        Message::Ready(_) => (Kind::Ready, 0),
        Message::Goodbye(_) => (Kind::Goodbye, 0),
        Message::CommitPoint => (Kind::CommitPoint, 0),
        Message::Heartbeat { .. } => (Kind::Heartbeat, 0),
        Message::Ack(_) => (Kind::Ack, 0),
        Message::Resend { .. } => (Kind::Resend, 0),
        Message::SyncStart(_) => (Kind::SyncStart, 0),
        Message::CopyAck { .. } => (Kind::CopyAck, 0),
        Message::SyncEnd { .. } => (Kind::SyncEnd, 0),
    };
    let mut body = Out::new(out.get_mut(HEADER_BYTES..).ok_or(WireError::NoRoom)?);
    match message {
        Message::Refuse(r) | Message::Goodbye(r) => r.encode(&mut body)?,
        Message::Ready(p) | Message::Ack(p) => p.encode(&mut body)?,
        Message::Heartbeat { echo_ns } => body.put(&echo_ns.to_le_bytes())?,
        Message::CopyAck { item } => body.put(&item.to_le_bytes())?,
        Message::Resend { from, to } => {
            must(*from > Seq::NONE && from <= to, "range to send again")?;
            body.put(Pair(from.0.into(), to.0.into()).as_bytes())?;
        }
        Message::SyncEnd { end, items } => {
            body.put(Pair(end.0.into(), (*items).into()).as_bytes())?;
        }
        Message::SyncStart(s) => s.encode(&mut body)?,
        Message::CommitPoint
        | Message::Record(_)
        | Message::RegionCopy(_)
        | Message::State(_)
        | Message::Welcome(_) => {}
    }
    let control = body.written();
    seal(envelope, kind, control, data, out)
}
