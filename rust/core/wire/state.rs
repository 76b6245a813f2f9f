// SPDX-License-Identifier: GPL-2.0

//! What the hosts tell each other before a session: `State` of both, `Welcome` of the primary.
//!
//! Both are a fixed part, then the lineage's entries (64 bytes each, without local numbers), then the
//! volumes (96 bytes each). An `empty` secondary learns the group's uuid from the primary's `State`.

use zerocopy::{
    little_endian::{U16, U32, U64},
    FromBytes as _, IntoBytes as _,
};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    bytes::{must, zero, Out},
    message::seal,
    Envelope, Kind, WireError, HEADER_BYTES,
};
use crate::{
    group::{Name, Replica, Role, Volume},
    lineage::{Entry, Epoch, Lineage, Pos, RawBefore},
    units::{Chain, GroupUuid, Position, Sector, Seq, VolumeId},
};

/// Volumes of a group.
const MAX_VOLUMES: usize = 256;

/// What a host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateHead {
    /// Features that it offers.
    pub features: u64,
    /// Its group; none on a host that has not met its primary yet.
    pub group: GroupUuid,
    /// Its name for the group.
    pub group_name: Name,
    /// Its role.
    pub role: Role,
    /// What its volumes hold.
    pub replica: Replica,
    /// Whether its log has a ring.
    pub ring: bool,
    /// Whether a redo has begun and not ended (without a ring).
    pub redo: bool,
    /// The last record on its stable storage.
    pub logged: Position,
    /// Chain there.
    pub chain: Chain,
    /// All up to here is on its volumes.
    pub applied: Position,
    /// Nothing above it may be on its volumes.
    pub horizon: Position,
    /// Its last checkpoint.
    pub checkpoint: Position,
    /// Chain there.
    pub checkpoint_chain: Chain,
    /// Where a synchronisation that is on its way ends, when that is known.
    pub sync_end: Option<Position>,
}

/// What the primary decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WelcomeHead {
    /// Features that both have.
    pub features: u64,
    /// The session, random, never 0.
    pub session: u64,
    /// The group.
    pub group: GroupUuid,
    /// The primary's name for it.
    pub group_name: Name,
    /// First record that will be sent.
    pub resume: Seq,
    /// Highest common position: the secondary drops what it holds above it.
    pub fork: Position,
    /// Chain there, where the primary knows it.
    pub fork_chain: Option<Chain>,
    /// The primary's newest record.
    pub head: Position,
    /// How it begins.
    pub start: Start,
}

/// How a session begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// The replica is consistent and its history goes on.
    #[default]
    Resume,
    /// A synchronisation that an earlier session began goes on: region copies will come.
    SyncGoesOn,
    /// A synchronisation begins: the replica is inconsistent from now on, region copies will come.
    SyncBegins,
    /// The volumes are declared equal as of `fork`.
    AssumeClean,
}

impl Start {
    /// Region copies will come.
    pub fn is_sync(self) -> bool {
        match self {
            Start::SyncGoesOn | Start::SyncBegins => true,
            Start::Resume | Start::AssumeClean => false,
        }
    }

    fn flags(self) -> u16 {
        match self {
            Start::Resume => 0,
            Start::SyncGoesOn => FLAG_SYNC,
            Start::SyncBegins => FLAG_SYNC | FLAG_ANEW,
            Start::AssumeClean => FLAG_ANEW,
        }
    }

    fn from_flags(flags: u16) -> Start {
        match (flags & FLAG_SYNC != 0, flags & FLAG_ANEW != 0) {
            (false, false) => Start::Resume,
            (true, false) => Start::SyncGoesOn,
            (true, true) => Start::SyncBegins,
            (false, true) => Start::AssumeClean,
        }
    }
}

const FLAG_RING: u16 = 1;
const FLAG_REDO: u16 = 2;
const FLAG_SYNC_END: u16 = 4;
const FLAG_SYNC: u16 = 1;
const FLAG_ANEW: u16 = 2;
const FLAG_FORK_CHAIN: u16 = 4;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawState {
    features: U64,
    group: [u8; 16],
    group_name: Name,
    role: u8,
    replica: u8,
    flags: U16,
    epochs: U16,
    volumes: U16,
    logged: Pos,
    applied: Pos,
    horizon: Pos,
    checkpoint: Pos,
    sync_end: Pos,
    chain: U32,
    checkpoint_chain: U32,
    before: RawBefore,
    reserved: [u8; 64],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawWelcome {
    features: U64,
    session: U64,
    group: [u8; 16],
    group_name: Name,
    flags: U16,
    epochs: U16,
    volumes: U16,
    reserved_a: [u8; 2],
    resume: U64,
    fork: Pos,
    head: Pos,
    fork_chain: U32,
    reserved_b: [u8; 4],
    before: RawBefore,
    reserved: [u8; 56],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawVolume {
    id: U16,
    reserved_a: [u8; 2],
    logical_block: U32,
    name: Name,
    size: U64,
    discard_granularity: U32,
    reserved: [u8; 12],
}

const _: () = assert!(size_of::<RawState>() == 320);
const _: () = assert!(size_of::<RawWelcome>() == 256);
const _: () = assert!(size_of::<RawVolume>() == 96);

impl RawVolume {
    fn get(&self) -> Volume {
        Volume {
            id: VolumeId(self.id.get()),
            name: self.name,
            size: Sector(self.size.get()),
            logical_block: self.logical_block.get(),
            discard_granularity: self.discard_granularity.get(),
        }
    }
}

impl From<Volume> for RawVolume {
    fn from(v: Volume) -> RawVolume {
        RawVolume {
            id: v.id.0.into(),
            reserved_a: [0; 2],
            logical_block: v.logical_block.into(),
            name: v.name,
            size: v.size.0.into(),
            discard_granularity: v.discard_granularity.into(),
            reserved: [0; 12],
        }
    }
}

/// The volumes in a message: valid each, no name and no number twice.
#[derive(Clone, Copy, Debug)]
pub struct Volumes<'a>(&'a [RawVolume]);

impl<'a> Volumes<'a> {
    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Volume> + 'a {
        self.0.iter().map(RawVolume::get)
    }

    fn new(raw: &'a [RawVolume]) -> Result<Volumes<'a>, WireError> {
        must(raw.len() <= MAX_VOLUMES, "number of volumes")?;
        let mut rest = raw;
        while let Some((v, others)) = rest.split_first() {
            rest = others;
            zero(&v.reserved_a)?;
            zero(&v.reserved)?;
            must(v.get().is_valid(), "volume")?;
            let repeated = others.iter().any(|o| o.id == v.id || o.name == v.name);
            must(!repeated, "volume (there are two)")?;
        }
        Ok(Volumes(raw))
    }
}

/// A `State` message.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// The fixed part.
    pub head: StateHead,
    /// The host's lineage.
    pub lineage: Lineage<'a>,
    /// Its volumes.
    pub volumes: Volumes<'a>,
}

/// A `Welcome` message.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    /// The fixed part.
    pub head: WelcomeHead,
    /// The lineage from now on.
    pub lineage: Lineage<'a>,
    /// The group's volumes.
    pub volumes: Volumes<'a>,
}

/// The lineage and the volumes that follow a fixed part, to the last byte.
fn tables<'a>(
    bytes: &'a [u8],
    before: &RawBefore,
    epochs: U16,
    volumes: U16,
) -> Result<(Lineage<'a>, Volumes<'a>), WireError> {
    let short = WireError::Field("length of its tables");
    let (entries, rest) = <[Entry]>::ref_from_prefix_with_elems(bytes, usize::from(epochs.get()))
        .map_err(|_| short)?;
    let raw = <[RawVolume]>::ref_from_bytes_with_elems(rest, usize::from(volumes.get()))
        .map_err(|_| short)?;
    let lineage = Lineage::new(before.get()?, entries)?;
    must(
        lineage.iter().all(|e| e.index == 0),
        "local number of an epoch",
    )?;
    Ok((lineage, Volumes::new(raw)?))
}

/// Whether a host may say that it belongs to this group.
fn check_group(group: &GroupUuid, name: &Name, needed: bool) -> Result<(), WireError> {
    must(name.is_valid(), "group name")?;
    must(!needed || !group.is_none(), "group uuid")
}

impl<'a> State<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<State<'a>, WireError> {
        let (raw, rest) = RawState::ref_from_prefix(bytes).map_err(|_| WireError::Size)?;
        zero(&raw.reserved)?;
        let flags = raw.flags.get();
        must(
            flags & !(FLAG_RING | FLAG_REDO | FLAG_SYNC_END) == 0,
            "flags of a state",
        )?;
        let sync_end = flags & FLAG_SYNC_END != 0;
        must(
            sync_end || raw.sync_end.is_none(),
            "end of a synchronisation",
        )?;
        let head = StateHead {
            features: raw.features.get(),
            group: GroupUuid(raw.group),
            group_name: raw.group_name,
            role: Role::from_u8(raw.role).ok_or(WireError::Field("role"))?,
            replica: Replica::from_u8(raw.replica).ok_or(WireError::Field("replica state"))?,
            ring: flags & FLAG_RING != 0,
            redo: flags & FLAG_REDO != 0,
            logged: raw.logged.get(),
            chain: Chain(raw.chain.get()),
            applied: raw.applied.get(),
            horizon: raw.horizon.get(),
            checkpoint: raw.checkpoint.get(),
            checkpoint_chain: Chain(raw.checkpoint_chain.get()),
            sync_end: sync_end.then(|| raw.sync_end.get()),
        };
        check_group(&head.group, &head.group_name, head.role == Role::Primary)?;
        must(head.role != Role::None, "role")?;
        let (lineage, volumes) = tables(rest, &raw.before, raw.epochs, raw.volumes)?;
        Ok(State {
            head,
            lineage,
            volumes,
        })
    }
}

impl<'a> Welcome<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Welcome<'a>, WireError> {
        let (raw, rest) = RawWelcome::ref_from_prefix(bytes).map_err(|_| WireError::Size)?;
        zero(&raw.reserved_a)?;
        zero(&raw.reserved_b)?;
        zero(&raw.reserved)?;
        let flags = raw.flags.get();
        let known = FLAG_SYNC | FLAG_ANEW | FLAG_FORK_CHAIN;
        must(flags & !known == 0, "flags of a welcome")?;
        let fork_chain = flags & FLAG_FORK_CHAIN != 0;
        must(fork_chain || raw.fork_chain.get() == 0, "chain at the fork")?;
        let head = WelcomeHead {
            features: raw.features.get(),
            session: raw.session.get(),
            group: GroupUuid(raw.group),
            group_name: raw.group_name,
            resume: Seq(raw.resume.get()),
            fork: raw.fork.get(),
            fork_chain: fork_chain.then(|| Chain(raw.fork_chain.get())),
            head: raw.head.get(),
            start: Start::from_flags(flags),
        };
        check_group(&head.group, &head.group_name, true)?;
        must(head.session != 0, "session id")?;
        must(
            head.resume.0 > 0 && head.resume <= head.head.seq.next(),
            "first record to send",
        )?;
        let (lineage, volumes) = tables(rest, &raw.before, raw.epochs, raw.volumes)?;
        must(!lineage.is_empty(), "lineage (it is empty)")?;
        Ok(Welcome {
            head,
            lineage,
            volumes,
        })
    }
}

/// Appends lineage and volumes.
fn put_tables(
    out: &mut Out<'_>,
    lineage: &Lineage<'_>,
    volumes: impl Iterator<Item = Volume>,
) -> Result<(), WireError> {
    for epoch in lineage.iter() {
        let bare = Epoch { index: 0, ..epoch };
        out.put(Entry::from(bare).as_bytes())?;
    }
    for v in volumes {
        out.put(RawVolume::from(v).as_bytes())?;
    }
    Ok(())
}

/// How many, as the message says it.
fn counted(n: usize, what: &'static str) -> Result<U16, WireError> {
    u16::try_from(n)
        .map(U16::from)
        .map_err(|_| WireError::Field(what))
}

/// Writes a whole `State` message into `out`; returns its length.
pub fn encode_state(
    envelope: &Envelope,
    head: &StateHead,
    lineage: &Lineage<'_>,
    volumes: impl ExactSizeIterator<Item = Volume>,
    out: &mut [u8],
) -> Result<usize, WireError> {
    let raw = RawState {
        features: head.features.into(),
        group: head.group.0,
        group_name: head.group_name,
        role: head.role.to_u8(),
        replica: head.replica.to_u8(),
        flags: (if head.ring { FLAG_RING } else { 0 }
            | if head.redo { FLAG_REDO } else { 0 }
            | if head.sync_end.is_some() {
                FLAG_SYNC_END
            } else {
                0
            })
        .into(),
        epochs: counted(lineage.len(), "number of epochs")?,
        volumes: counted(volumes.len(), "number of volumes")?,
        logged: head.logged.into(),
        applied: head.applied.into(),
        horizon: head.horizon.into(),
        checkpoint: head.checkpoint.into(),
        sync_end: head.sync_end.map_or(Pos::default(), Pos::from),
        chain: head.chain.0.into(),
        checkpoint_chain: head.checkpoint_chain.0.into(),
        before: lineage.before().into(),
        reserved: [0; 64],
    };
    let body = out.get_mut(HEADER_BYTES..).ok_or(WireError::NoRoom)?;
    let mut body = Out::new(body);
    body.put(raw.as_bytes())?;
    put_tables(&mut body, lineage, volumes)?;
    let length = body.written();
    seal(envelope, Kind::State, length, 0, out)
}

/// Writes a whole `Welcome` message into `out`; returns its length.
pub fn encode_welcome(
    envelope: &Envelope,
    head: &WelcomeHead,
    lineage: &Lineage<'_>,
    volumes: impl ExactSizeIterator<Item = Volume>,
    out: &mut [u8],
) -> Result<usize, WireError> {
    let raw = RawWelcome {
        features: head.features.into(),
        session: head.session.into(),
        group: head.group.0,
        group_name: head.group_name,
        flags: (head.start.flags()
            | if head.fork_chain.is_some() {
                FLAG_FORK_CHAIN
            } else {
                0
            })
        .into(),
        epochs: counted(lineage.len(), "number of epochs")?,
        volumes: counted(volumes.len(), "number of volumes")?,
        reserved_a: [0; 2],
        resume: head.resume.0.into(),
        fork: head.fork.into(),
        head: head.head.into(),
        fork_chain: head.fork_chain.unwrap_or_default().0.into(),
        reserved_b: [0; 4],
        before: lineage.before().into(),
        reserved: [0; 56],
    };
    let body = out.get_mut(HEADER_BYTES..).ok_or(WireError::NoRoom)?;
    let mut body = Out::new(body);
    body.put(raw.as_bytes())?;
    put_tables(&mut body, lineage, volumes)?;
    let length = body.written();
    seal(envelope, Kind::Welcome, length, 0, out)
}
