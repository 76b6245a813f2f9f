// SPDX-License-Identifier: GPL-2.0

//! Properties of the wire: what is said is understood, what is damaged or made up is refused, and
//! nothing that arrives makes the codec do anything but return.

mod common;

use proptest::prelude::*;
use replicate_core::{
    checksum::crc32c,
    group::{Name, Replica, Role, SyncKind},
    lineage::{Before, Entry},
    session::SessionId,
    units::{EpochId, GroupUuid, HostId, Position, Record, Seq},
    wire::{
        encode, encode_record, encode_state, encode_welcome,
        hello::{decode_proof, decode_refusal, encode_proof, encode_refusal, signed, transcript},
        Clear, Code, Credit, Decoder, End, Envelope, Header, Hello, Incoming, Kind, Message,
        Progress, Refusal, RegionCopy, Start, StateHead, SyncStart, WelcomeHead, WireError,
        CLEAR_REFUSAL_BYTES, DATA_MESSAGE_HEAD_BYTES, HEADER_BYTES, HELLO_BYTES, MAX_CONTROL,
        MAX_DATA, PROOF_BYTES,
    },
};
use zerocopy::little_endian::U16;

const SESSION: u64 = 0xfeed_f00d;

fn envelope() -> impl Strategy<Value = Envelope> {
    let credit = (any::<u64>(), any::<u64>());
    let times = (any::<u64>(), any::<u64>());
    (0u8..=3, any::<u16>(), common::position(), credit, times).prop_map(
        |(flags, connection, position, (seq, byte), (commit, time_ns))| Envelope {
            flags,
            connection,
            session: SESSION,
            position,
            commit: Seq(commit),
            credit: Credit {
                seq: Seq(seq),
                byte,
            },
            time_ns,
        },
    )
}

/// What a message can carry, owned.
#[derive(Clone, Debug)]
enum Said {
    Refuse(u16, String),
    Goodbye(u16, String),
    Ready(Progress),
    Ack(Progress),
    Record(Record),
    CommitPoint,
    Heartbeat(u64),
    Resend(u64, u64),
    SyncStart(u8, Position, u64, Vec<u16>),
    RegionCopy(RegionCopy),
    CopyAck(u64),
    SyncEnd(u64, u64),
}

fn progress() -> impl Strategy<Value = Progress> {
    any::<[u64; 3]>().prop_map(|mut n| {
        n.sort_unstable();
        Progress {
            received: Seq(n[2]),
            logged: Seq(n[0]),
            applied: Seq(n[1]),
        }
    })
}

fn copy() -> impl Strategy<Value = RegionCopy> {
    (
        1u64..,
        any::<u64>(),
        common::range(),
        any::<bool>(),
        any::<u32>(),
    )
        .prop_map(|(item, after, range, zeroes, crc)| RegionCopy {
            item,
            after: Seq(after),
            range,
            zeroes,
            payload_crc: if zeroes { 0 } else { crc },
        })
}

fn said() -> impl Strategy<Value = Said> {
    let text = "[ -~]{0,256}";
    let ids = prop::collection::btree_set(any::<u16>(), 1..256);
    prop_oneof![
        (any::<u16>(), text).prop_map(|(c, t)| Said::Refuse(c, t)),
        (any::<u16>(), text).prop_map(|(c, t)| Said::Goodbye(c, t)),
        progress().prop_map(Said::Ready),
        progress().prop_map(Said::Ack),
        (1..u64::MAX)
            .prop_flat_map(common::record)
            .prop_map(Said::Record),
        Just(Said::CommitPoint),
        any::<u64>().prop_map(Said::Heartbeat),
        (1u64.., 0u64..1000).prop_map(|(from, n)| Said::Resend(from, from.saturating_add(n))),
        (1u8..=4, common::position(), any::<u64>(), ids)
            .prop_map(|(k, p, b, ids)| Said::SyncStart(k, p, b, ids.into_iter().collect())),
        copy().prop_map(Said::RegionCopy),
        any::<u64>().prop_map(Said::CopyAck),
        any::<[u64; 2]>().prop_map(|[end, items]| Said::SyncEnd(end, items)),
    ]
}

/// Encodes what is said; also the side that says it.
fn speak(said: &Said, envelope: &Envelope, out: &mut [u8]) -> Result<(usize, Role), WireError> {
    let mut envelope = *envelope;
    let ids: Vec<U16>;
    let (message, from) = match said {
        Said::Refuse(c, text) => {
            let code = Code::from_u16(*c);
            (Message::Refuse(Refusal { code, text }), Role::Primary)
        }
        Said::Goodbye(c, text) => {
            let code = Code::from_u16(*c);
            (Message::Goodbye(Refusal { code, text }), Role::Secondary)
        }
        Said::Ready(p) => (Message::Ready(*p), Role::Secondary),
        Said::Ack(p) => (Message::Ack(*p), Role::Secondary),
        Said::Record(r) => {
            envelope.position.seq = r.seq;
            (Message::Record(*r), Role::Primary)
        }
        Said::CommitPoint => (Message::CommitPoint, Role::Primary),
        Said::Heartbeat(n) => (Message::Heartbeat { echo_ns: *n }, Role::Primary),
        Said::Resend(from, to) => {
            let (from, to) = (Seq(*from), Seq(*to));
            (Message::Resend { from, to }, Role::Secondary)
        }
        Said::SyncStart(kind, start, bytes, list) => {
            ids = list.iter().map(|n| U16::new(*n)).collect();
            let kind = SyncKind::from_u8(*kind).unwrap();
            let start = SyncStart::new(kind, *start, *bytes, &ids);
            (Message::SyncStart(start), Role::Primary)
        }
        Said::RegionCopy(c) => (Message::RegionCopy(*c), Role::Primary),
        Said::CopyAck(item) => (Message::CopyAck { item: *item }, Role::Secondary),
        Said::SyncEnd(end, items) => {
            let end = Seq(*end);
            (Message::SyncEnd { end, items: *items }, Role::Primary)
        }
    };
    encode(&envelope, &message, out).map(|n| (n, from))
}

/// Takes a whole message (but its data) as a receiver would.
fn hear(
    bytes: &[u8],
    from: Role,
    session: u64,
    connection: u16,
) -> Result<(Header, Message<'_>), WireError> {
    let mut decoder = Decoder::new(from, connection);
    if let Some(session) = SessionId::from_wire(session) {
        decoder.set_session(session);
    }
    let head = bytes.first_chunk().ok_or(WireError::Size)?;
    match decoder.header(head)? {
        Incoming::Message(h) => {
            let control = bytes.get(HEADER_BYTES..).ok_or(WireError::Size)?;
            Ok((h, decoder.control(&h, control)?))
        }
        Incoming::OtherSession(_) => Err(WireError::Field("session")),
    }
}

/// Gives header and control part the checksums that they deserve.
fn repair(bytes: &mut [u8]) {
    let control = crc32c(0, &bytes[HEADER_BYTES..]);
    bytes[80..84].copy_from_slice(&control.to_le_bytes());
    bytes[12..16].fill(0);
    let seed = crc32c(0, &bytes[16..24]);
    let crc = crc32c(seed, &bytes[..HEADER_BYTES]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}

fn state_head() -> impl Strategy<Value = StateHead> {
    let p = prop::collection::vec(common::position(), 5);
    let bits = any::<[bool; 4]>();
    (
        p,
        bits,
        common::name(),
        0u8..=2,
        common::chain(),
        any::<u64>(),
    )
        .prop_map(|(p, b, name, replica, chain, features)| StateHead {
            features,
            group: GroupUuid([if b[0] { 4 } else { 0 }; 16]),
            group_name: name,
            role: if b[0] { Role::Primary } else { Role::Secondary },
            replica: Replica::from_u8(replica).unwrap(),
            ring: b[1],
            redo: b[2],
            logged: p[0],
            chain,
            applied: p[1],
            horizon: p[2],
            checkpoint: p[3],
            checkpoint_chain: chain,
            sync_end: b[3].then_some(p[4]),
        })
}

fn welcome_head() -> impl Strategy<Value = WelcomeHead> {
    let p = prop::collection::vec(common::position(), 2);
    (
        p,
        any::<[bool; 2]>(),
        common::name(),
        prop::option::of(common::chain()),
        1u64..,
    )
        .prop_map(|(mut p, b, group_name, fork_chain, session)| {
            p[1].seq = Seq(p[1].seq.0 >> 1);
            WelcomeHead {
                features: session,
                session,
                group: GroupUuid([4; 16]),
                group_name,
                resume: p[1].seq.next(),
                fork: p[0],
                fork_chain,
                head: p[1],
                start: match b {
                    [false, false] => Start::Resume,
                    [true, false] => Start::SyncGoesOn,
                    [true, true] => Start::SyncBegins,
                    [false, true] => Start::AssumeClean,
                },
            }
        })
}

proptest! {
    #[test]
    fn what_is_said_is_understood(said in said(), e in envelope()) {
        let mut out = vec![0u8; MAX_CONTROL as usize + HEADER_BYTES];
        let (n, from) = speak(&said, &e, &mut out).unwrap();
        let (header, message) = hear(&out[..n], from, SESSION, e.connection).unwrap();
        prop_assert_eq!(header.envelope.session, SESSION);
        prop_assert_eq!(header.envelope.credit, e.credit);
        prop_assert!(header.control() as usize + HEADER_BYTES == n && header.data() <= MAX_DATA);
        // Said again it is the same bytes, and that is the whole content.
        let mut again = vec![0u8; n];
        let length = encode(&header.envelope, &message, &mut again).unwrap();
        prop_assert_eq!(&again[..length], &out[..n]);
    }

    #[test]
    fn a_flipped_bit_is_seen(said in said(), e in envelope(), bit in 0usize..1 << 20) {
        let mut out = vec![0u8; MAX_CONTROL as usize];
        let (n, from) = speak(&said, &e, &mut out).unwrap();
        let bit = bit % (n * 8);
        out[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(hear(&out[..n], from, SESSION, e.connection).is_err());
    }

    #[test]
    fn a_cut_message_is_refused(said in said(), e in envelope(), cut in 0usize..1000) {
        let mut out = vec![0u8; MAX_CONTROL as usize];
        let (n, from) = speak(&said, &e, &mut out).unwrap();
        let cut = cut % n;
        prop_assert!(hear(&out[..cut], from, SESSION, e.connection).is_err());
        prop_assert_eq!(speak(&said, &e, &mut out[..cut]).err(), Some(WireError::NoRoom));
    }

    /// A peer that knows the secret may still be mad: any change with right checksums is refused, or
    /// it is another message that is said back to the same bytes.
    #[test]
    fn messages_are_canonical(said in said(), e in envelope(), at in 0usize..600, value in 1u8..) {
        let mut out = vec![0u8; MAX_CONTROL as usize];
        let (n, from) = speak(&said, &e, &mut out).unwrap();
        let mut bytes = out[..n].to_vec();
        let at = at % n;
        bytes[at] ^= value;
        repair(&mut bytes);
        if let Ok((header, message)) = hear(&bytes, from, SESSION, e.connection) {
            let mut again = vec![0u8; n];
            let length = encode(&header.envelope, &message, &mut again).unwrap();
            prop_assert_eq!(&again[..length], &bytes[..]);
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_not(
        mut bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES..1000),
        kind in prop::sample::select(vec![1u8, 2, 3, 4, 5, 16, 17, 18, 19, 20, 32, 33, 34, 35]),
        primary: bool,
        handshake: bool,
    ) {
        let from = if primary { Role::Primary } else { Role::Secondary };
        let session = if handshake { 0 } else { SESSION };
        prop_assert!(hear(&bytes, from, session, 0).is_err());
        // The same with everything right that can be made right.
        let control = (bytes.len() - HEADER_BYTES) as u32;
        bytes[..8].copy_from_slice(&[b'd', b'm', b'R', b'm', kind, 0, 0, 0]);
        let length = if matches!(kind, 16 | 33) { 56 + 512 } else { control };
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[16..24].copy_from_slice(&session.to_le_bytes());
        bytes[84..96].fill(0);
        repair(&mut bytes);
        if let Ok((header, message)) = hear(&bytes, from, session, 0) {
            let mut again = vec![0u8; bytes.len()];
            let length = encode(&header.envelope, &message, &mut again).unwrap();
            prop_assert_eq!(&again[..length], &bytes[..]);
        }
    }

    #[test]
    fn a_state_is_understood(
        head in state_head(),
        lineage in common::lineage(),
        volumes in common::volumes(256),
        bit in 0usize..1 << 20,
    ) {
        let lineage = common::as_lineage(&lineage);
        let mut out = vec![0u8; MAX_CONTROL as usize];
        let n = encode_state(&Envelope::default(), &head, &lineage, volumes.iter().copied(), &mut out).unwrap();
        let (_, message) = hear(&out[..n], head.role, 0, 0).unwrap();
        let Message::State(s) = message else {
            return Err(TestCaseError::fail("not a state"));
        };
        prop_assert_eq!(s.head, head);
        prop_assert_eq!(s.lineage.before(), lineage.before());
        prop_assert!(s.lineage.iter().eq(lineage.iter()));
        prop_assert!(s.volumes.iter().eq(volumes.iter().copied()));
        prop_assert!(hear(&out[..n], head.role, SESSION, 0).is_err());
        prop_assert!(hear(&out[..n - 1], head.role, 0, 0).is_err());
        let bit = bit % (n * 8);
        out[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(hear(&out[..n], head.role, 0, 0).is_err());
    }

    #[test]
    fn a_welcome_is_understood(
        head in welcome_head(),
        lineage in common::lineage(),
        volumes in common::volumes(256),
    ) {
        let lineage = common::as_lineage(&lineage);
        let mut out = vec![0u8; MAX_CONTROL as usize];
        let n = encode_welcome(&Envelope::default(), &head, &lineage, volumes.iter().copied(), &mut out).unwrap();
        let heard = hear(&out[..n], Role::Primary, 0, 0);
        if lineage.is_empty() {
            prop_assert!(heard.is_err());
            return Ok(());
        }
        let Ok((_, Message::Welcome(w))) = heard else {
            return Err(TestCaseError::fail("not a welcome"));
        };
        prop_assert_eq!(w.head, head);
        prop_assert!(w.lineage.iter().eq(lineage.iter()));
        prop_assert!(w.volumes.iter().eq(volumes.iter().copied()));
        prop_assert_eq!(hear(&out[..n], Role::Secondary, 0, 0).err(), Some(WireError::Unexpected(Kind::Welcome)));
    }

    #[test]
    fn any_bytes_in_the_clear(hello: [u8; HELLO_BYTES], proof: [u8; PROOF_BYTES], seed: u64) {
        let mut refusal = [0u8; CLEAR_REFUSAL_BYTES];
        for (i, b) in refusal.iter_mut().enumerate() {
            *b = crc32c(i as u32, &seed.to_le_bytes()) as u8;
        }
        prop_assert!(Hello::decode(&hello).is_err());
        prop_assert!(decode_proof(&proof).is_err());
        prop_assert!(decode_refusal(&refusal).is_err());
        prop_assert_eq!(Clear::peek(hello.first_chunk().unwrap()), Err(WireError::Magic));
    }

    #[test]
    fn hellos_are_understood_and_damage_is_seen(
        link in common::name(),
        host in common::epoch_id(),
        nonce: [u8; 32],
        mac: [u8; 32],
        bit in 0usize..HELLO_BYTES * 8,
    ) {
        prop_assume!(nonce != [0; 32]);
        let hello = Hello { mac, ..Hello::new(link, HostId(host.0), nonce) };
        let mut bytes = hello.encode();
        prop_assert_eq!(Hello::decode(&bytes), Ok(hello));
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Hello::decode(&bytes).is_err());
        let mut bytes = encode_proof(&nonce);
        prop_assert_eq!(decode_proof(&bytes), Ok(nonce));
        let bit = bit % (PROOF_BYTES * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode_proof(&bytes).is_err());
    }

    #[test]
    fn a_signature_covers_every_byte_but_crc_and_mac(nonce: [u8; 32], at in 0usize..HELLO_BYTES, value in 1u8..) {
        prop_assume!(nonce != [0; 32]);
        let hello = Hello::new(Name::new(b"dr").unwrap(), HostId([1; 16]), nonce);
        let mut bytes = hello.encode();
        bytes[at] ^= value;
        bytes[12..16].fill(0);
        let crc = crc32c(0, &bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        if let Ok(other) = Hello::decode(&bytes) {
            prop_assert_eq!(signed(&other) == signed(&hello), (12..16).contains(&at) || at >= 128);
        }
    }

    #[test]
    fn refusals_in_the_clear(code: u16, text in ".{0,300}", bit in 0usize..CLEAR_REFUSAL_BYTES * 8) {
        let mut bytes = encode_refusal(Code::from_u16(code), &text);
        let heard = decode_refusal(&bytes).unwrap();
        prop_assert_eq!(heard.code.to_u16(), code);
        prop_assert!(heard.text.len() <= 256 && heard.text.chars().all(|c| (' '..='~').contains(&c)));
        if text.len() <= 256 && text.is_ascii() && text.chars().all(|c| (' '..='~').contains(&c)) {
            prop_assert_eq!(heard.text, &text);
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode_refusal(&bytes).is_err());
    }

    #[test]
    fn the_transcript_covers_every_byte(a: [u8; 32], b: [u8; 32], at in 0usize..HELLO_BYTES, value in 1u8..) {
        let link = Name::new(b"dr").unwrap();
        let (c, l) = (Hello::new(link, HostId([1; 16]), a).encode(), Hello::new(link, HostId([2; 16]), b).encode());
        let whole = transcript(End::Connector, &c, &l);
        prop_assert!(whole != transcript(End::Listener, &c, &l));
        let mut other = c;
        other[at] ^= value;
        prop_assert!(whole != transcript(End::Connector, &other, &l));
        let mut other = l;
        other[at] ^= value;
        prop_assert!(whole != transcript(End::Connector, &c, &other));
    }
}

/// Every bit of a record's head, not a sample.
#[test]
fn every_flipped_bit_of_a_record_head_is_seen() {
    let r = Record {
        seq: Seq(9),
        range: replicate_core::units::Range {
            sectors: 8,
            ..Default::default()
        },
        payload_crc: 77,
        ..Record::default()
    };
    let position = Position {
        epoch: EpochId([3; 16]),
        seq: Seq(9),
    };
    let e = Envelope {
        session: SESSION,
        position,
        ..Envelope::default()
    };
    let mut out = [0u8; DATA_MESSAGE_HEAD_BYTES];
    assert_eq!(encode_record(&e, &r, &mut out), Ok(out.len()));
    assert!(hear(&out, Role::Primary, SESSION, 0).is_ok());
    for bit in 0..out.len() * 8 {
        out[bit / 8] ^= 1 << (bit % 8);
        assert!(hear(&out, Role::Primary, SESSION, 0).is_err(), "bit {bit}");
        out[bit / 8] ^= 1 << (bit % 8);
    }
}

/// A message of an earlier session is skipped, whatever it says, and its length can be trusted.
#[test]
fn another_session_is_skipped_unread() {
    let e = Envelope {
        session: SESSION,
        ..Envelope::default()
    };
    let mut out = [0u8; 256];
    let n = encode(&e, &Message::Ack(Progress::default()), &mut out).unwrap();
    let mut decoder = Decoder::new(Role::Primary, 0);
    decoder.set_session(SessionId::from_wire(SESSION + 1).unwrap());
    match decoder.header(out.first_chunk().unwrap()) {
        Ok(Incoming::OtherSession(h)) => assert_eq!(h.length as usize, n - HEADER_BYTES),
        other => panic!("{other:?}"),
    }
}

#[test]
fn local_numbers_do_not_travel() {
    let mut epoch = Entry::EMPTY.epoch();
    epoch.id = EpochId([1; 16]);
    epoch.first = Seq(1);
    epoch.index = 99;
    let table = (Before::default(), vec![Entry::from(epoch)]);
    let head = StateHead {
        role: Role::Secondary,
        group_name: Name::new(b"db").unwrap(),
        ..StateHead::default()
    };
    let mut out = vec![0u8; 1024];
    let e = Envelope::default();
    let lineage = common::as_lineage(&table);
    let n = encode_state(&e, &head, &lineage, [].into_iter(), &mut out).unwrap();
    match hear(&out[..n], Role::Secondary, 0, 0) {
        Ok((_, Message::State(s))) => assert_eq!(s.lineage.get(0).unwrap().index, 0),
        other => panic!("{other:?}"),
    }
}
