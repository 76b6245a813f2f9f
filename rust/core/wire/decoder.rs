// SPDX-License-Identifier: GPL-2.0

//! One direction of one connection after the proof: which message may come, and what it is.
//!
//! The caller reads [`HEADER_BYTES`] and hands them to [`Decoder::header`]; then as many bytes as the
//! header's `control()` says, for [`Decoder::control`]; then `data()` bytes into pages, whose checksum
//! it compares itself. After any error the stream means nothing any more: drop the connection.

use super::{Header, Kind, Message, WireError, HEADER_BYTES};
use crate::{
    group::Role,
    session::{same_session, SessionId},
};

/// What a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message of this session.
    Message(Header),
    /// A message of another session: read `header.length` bytes and forget them.
    OtherSession(Header),
}

/// What is expected from the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder {
    from: Role,
    session: Option<SessionId>,
    connection: u16,
}

impl Decoder {
    /// Before the session: messages from a host of role `from` on connection number `connection`.
    #[must_use]
    pub const fn new(from: Role, connection: u16) -> Decoder {
        Decoder {
            from,
            session: None,
            connection,
        }
    }

    /// The session has begun: the `Welcome` was sent, or was received.
    pub fn set_session(&mut self, session: SessionId) {
        self.session = Some(session);
    }

    /// Takes a header.
    pub fn header(&self, bytes: &[u8; HEADER_BYTES]) -> Result<Incoming, WireError> {
        let header = Header::decode(bytes)?;
        if !same_session(self.session, header.envelope.session) {
            return Ok(Incoming::OtherSession(header));
        }
        if !self.allows(header.kind) {
            return Err(WireError::Unexpected(header.kind));
        }
        if header.envelope.connection != self.connection {
            return Err(WireError::Field("connection index"));
        }
        Ok(Incoming::Message(header))
    }

    /// Takes the control part that follows `header`.
    pub fn control<'a>(&self, header: &Header, bytes: &'a [u8]) -> Result<Message<'a>, WireError> {
        let message = Message::decode(header, bytes)?;
        match message {
            Message::State(s) if s.head.role != self.from => Err(WireError::Field("role")),
            other => Ok(other),
        }
    }

    /// Whether the other side may send this now.
    const fn allows(&self, kind: Kind) -> bool {
        let in_session = self.session.is_some();
        let from_primary = matches!(self.from, Role::Primary);
        match kind {
            Kind::Refuse | Kind::Goodbye | Kind::Heartbeat => true,
            Kind::State => !in_session,
            Kind::Welcome => !in_session && from_primary,
            Kind::Record
            | Kind::CommitPoint
            | Kind::SyncStart
            | Kind::RegionCopy
            | Kind::SyncEnd => in_session && from_primary,
            Kind::Ready | Kind::Ack | Kind::Resend | Kind::CopyAck => in_session && !from_primary,
        }
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_wire_decoder))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::{
        units::{Range, Record, Seq},
        wire::{encode, Code, Envelope, Progress, Refusal, RegionCopy, DATA_MESSAGE_HEAD_BYTES},
    };

    const SESSION: u64 = 77;

    /// Encodes `message` as the session's and takes it as coming from `from`.
    fn carry(from: Role, session: u64, message: &Message<'_>, seq: u64) -> Result<Kind, WireError> {
        let mut out = [0u8; 512];
        let mut envelope = Envelope {
            session: SESSION,
            ..Envelope::default()
        };
        envelope.position.seq = Seq(seq);
        let length = encode(&envelope, message, &mut out)?;
        let mut decoder = Decoder::new(from, 0);
        if let Some(session) = SessionId::from_wire(session) {
            decoder.set_session(session);
        }
        let bytes = out.first_chunk().ok_or(WireError::Size)?;
        match decoder.header(bytes)? {
            Incoming::Message(h) => {
                assert_eq!(length, HEADER_BYTES + h.control() as usize);
                let control = out.get(HEADER_BYTES..length).ok_or(WireError::Size)?;
                decoder.control(&h, control)?;
                Ok(h.kind)
            }
            Incoming::OtherSession(_) => Err(WireError::Field("session")),
        }
    }

    fn record() -> Record {
        Record {
            seq: Seq(5),
            range: Range {
                sectors: 8,
                ..Range::default()
            },
            ..Record::default()
        }
    }

    #[test]
    fn each_side_sends_what_is_its_to_send() {
        let ack = Message::Ack(Progress::default());
        assert_eq!(carry(Role::Secondary, SESSION, &ack, 0), Ok(Kind::Ack));
        assert_eq!(
            carry(Role::Primary, SESSION, &ack, 0),
            Err(WireError::Unexpected(Kind::Ack))
        );
        let r = Message::Record(record());
        assert_eq!(carry(Role::Primary, SESSION, &r, 5), Ok(Kind::Record));
        assert_eq!(
            carry(Role::Secondary, SESSION, &r, 5),
            Err(WireError::Unexpected(Kind::Record))
        );
    }

    #[test]
    fn another_session_is_told_apart() {
        let ack = Message::Ack(Progress::default());
        assert_eq!(
            carry(Role::Secondary, 78, &ack, 0),
            Err(WireError::Field("session"))
        );
        assert_eq!(
            carry(Role::Secondary, 0, &ack, 0),
            Err(WireError::Field("session"))
        );
    }

    #[test]
    fn fields_are_checked_both_ways() {
        let ahead = Message::Ack(Progress {
            received: Seq(1),
            logged: Seq(2),
            applied: Seq(0),
        });
        assert!(carry(Role::Secondary, SESSION, &ahead, 0).is_err());
        let r = Message::Record(record());
        assert_eq!(
            carry(Role::Primary, SESSION, &r, 6),
            Err(WireError::Field("position of a record"))
        );
        let backwards = Message::Resend {
            from: Seq(3),
            to: Seq(2),
        };
        assert!(carry(Role::Secondary, SESSION, &backwards, 0).is_err());
        let copy = Message::RegionCopy(RegionCopy::default());
        assert!(carry(Role::Primary, SESSION, &copy, 0).is_err());
    }

    #[test]
    fn a_record_announces_its_data() {
        let mut out = [0u8; DATA_MESSAGE_HEAD_BYTES];
        let mut envelope = Envelope::default();
        envelope.position.seq = Seq(5);
        let length = encode(&envelope, &Message::Record(record()), &mut out);
        assert_eq!(length, Ok(152));
        let header = out.first_chunk().map(Header::decode);
        assert!(matches!(header, Some(Ok(h)) if h.data() == 4096 && h.control() == 56));
    }

    #[test]
    fn a_goodbye_keeps_its_reason() {
        let bye = Message::Goodbye(Refusal {
            code: Code::Stopping,
            text: "shutdown",
        });
        assert_eq!(carry(Role::Secondary, SESSION, &bye, 0), Ok(Kind::Goodbye));
    }
}
