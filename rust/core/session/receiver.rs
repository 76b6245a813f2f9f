// SPDX-License-Identifier: GPL-2.0

//! The secondary's side of a session: takes what comes, acknowledges it, says how much more may come.
//!
//! Without clock, socket and payloads. The caller does, in a loop:
//!
//! 1. [`message`](Receiver::message) for each message whose control part is here. The data of an [`Item`] comes into memory,
//!    then [`data`](Receiver::data) with the checksum that was computed, then, under the order lock, [`take`](Receiver::take).
//!    An item that finds no room is offered again; no message is taken meanwhile.
//! 2. After some of them, under the order lock, [`settle`](Receiver::settle).
//! 3. [`next`](Receiver::next), under the order lock each time, until there is nothing to send.
//!
//! What holds, and the trace without it:
//!
//! - A payload that does not match its checksum is never placed, and so never acknowledged (P6). The record is asked for again;
//!   what came after it is held. Acknowledged is what memory has *without a gap*, not the newest record that came. Trace:
//!   record 1 is damaged on the way, 2 comes, "received 2" completes the write 1 of a primary in mode `received`; the primary is
//!   lost, and a takeover does not have it (P2).
//! - Region copies come in turn, and the end of a synchronisation names as many as came. Trace: one is lost, the end is
//!   believed, and the replica calls itself consistent with a region that was never copied (P3).
//! - Nothing is acknowledged for a session that does not own the inbound side any more, or of a host that has failed: positions are
//!   taken under the order lock, see [`inbound`](crate::node::inbound).
//! - What is granted has room, whatever comes (see [`credit`](super::credit)): what finds none was sent without credit, and is
//!   waited for, not dropped.

use super::{
    credit::{Granted, Room, Supply},
    gap::{Ask, Gap},
};
use crate::{
    group::Volume,
    log::recovery::Epochs,
    node::{
        inbound::{Inbound, Refused},
        resync::Copy,
        secondary::Acks,
        window::Placed,
        Log, Memory, Node,
    },
    units::{EpochId, Op, Range, Record, Seq},
    wire::{
        header::{FLAG_IN_SYNC, FLAG_STABLE},
        Credit, Envelope, Message, Progress, Refusal, RegionCopy, SyncStart,
    },
};

/// An item that finds no room for so many milliseconds was sent without credit.
const STUCK_MS: u64 = 60_000;

/// What takes a place in the stream; data follows its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record, and the epoch that its message named.
    Record(Record, EpochId),
    /// A copy of a region.
    Copy(RegionCopy),
}

impl Item {
    /// Returns the checksum that its data must have.
    #[must_use]
    pub fn payload_crc(&self) -> u32 {
        match self {
            Item::Record(r, _) => r.payload_crc,
            Item::Copy(c) => c.payload_crc,
        }
    }

    /// Returns how many bytes of data follow its message.
    #[must_use]
    pub fn payload_bytes(&self) -> u32 {
        match self {
            Item::Record(r, _) => r.payload_bytes(),
            Item::Copy(c) => c.payload_bytes(),
        }
    }
}

/// What a message means.
#[derive(Clone, Copy, Debug)]
pub enum Meaning<'a> {
    /// Nothing more is to be done.
    Noted,
    /// Its data is to come next.
    Item(Item),
    /// Region copies follow.
    SyncStarts(SyncStart<'a>),
    /// The primary ends the session. `goodbye`: in order.
    Ends {
        /// Why.
        refusal: Refusal<'a>,
        /// It is no refusal.
        goodbye: bool,
    },
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is held from now on, and so must be its data.
    Held,
    /// It was here before.
    Known,
    /// There is no room: space is needed, and the item is offered again.
    NoRoom,
}

/// Who has something to do after a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The log worker.
    pub log: bool,
    /// The applier.
    pub applier: bool,
    /// Records are asked for again.
    pub asks: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this, with [`Receiver::credit`] in its header.
    Send(Reply),
    /// The synchronisation is over, durably: this replica is consistent.
    Synced,
    /// This host has everything that its primary is known to have, for the first time in this session.
    Level,
    /// Nothing.
    Wait,
}

/// A message to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Send these again: the first, the last.
    Resend(Seq, Seq),
    /// What this host has.
    Ack(Acks),
    /// Copies up to this item are durable; the end of the synchronisation is the item after the last.
    CopyAck(u64),
    /// This host is there.
    Heartbeat,
}

impl Reply {
    /// Returns the message. `echo_ns`: send time of the newest message that came.
    #[must_use]
    pub fn message(self, echo_ns: u64) -> Message<'static> {
        match self {
            Reply::Resend(from, to) => Message::Resend { from, to },
            Reply::Ack(acks) => Message::Ack(progress(acks)),
            Reply::CopyAck(item) => Message::CopyAck { item },
            Reply::Heartbeat => Message::Heartbeat { echo_ns },
        }
    }
}

/// Returns what an acknowledgement, or the message that a secondary is ready, says.
#[must_use]
pub fn progress(acks: Acks) -> Progress {
    Progress {
        received: acks.received,
        logged: acks.logged.min(acks.received),
        applied: acks.applied.min(acks.received),
    }
}

/// Why the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The primary sent what makes no sense.
    Nonsense(&'static str),
    /// A message that has no place in a session.
    Unexpected,
    /// This host takes nothing more of it.
    Refused(Refused),
    /// The data of this region copy does not match its checksum. Copies are not asked for again.
    BadCopy(u64),
    /// This record did not come, although it was asked for again.
    Missing(Seq),
    /// There was no room for a record for a long time.
    Stuck,
}

impl From<Refused> for End {
    fn from(refused: Refused) -> End {
        End::Refused(refused)
    }
}

/// The receiving side of one session. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receiver {
    owner: Inbound,
    granted: Granted,
    told: Granted,
    acks: Option<Acks>,
    /// Bytes of data that have come.
    received: u64,
    /// Newest record that came, and newest that was dropped for its checksum.
    highest: Seq,
    dropped: Seq,
    gap: Gap,
    resend: Option<(Seq, Seq)>,
    commit: Seq,
    peer_head: Seq,
    flags: u8,
    /// Newest copy that came, and newest that was acknowledged.
    last_item: u64,
    told_item: u64,
    /// Where the synchronisation ends, and how many copies this session had; not passed on yet.
    end: Option<(Seq, u64)>,
    /// How many copies this session had, once all are here.
    items: Option<u64>,
    level: bool,
    /// A heartbeat is to be answered.
    reply: bool,
    /// What came since the last [`Receiver::settle`].
    records: bool,
    copies: bool,
}

impl Receiver {
    /// Returns the side of a session that begins with record `resume`. `peer_head`: the newest record of the primary.
    #[must_use]
    pub fn new(owner: Inbound, resume: Seq, peer_head: Seq) -> Receiver {
        Receiver {
            owner,
            granted: Granted::default(),
            told: Granted::default(),
            acks: None,
            received: 0,
            highest: resume.prev(),
            dropped: Seq::NONE,
            gap: Gap::default(),
            resend: None,
            commit: Seq::NONE,
            peer_head,
            flags: 0,
            last_item: 0,
            told_item: 0,
            end: None,
            items: None,
            level: false,
            reply: false,
            records: false,
            copies: false,
        }
    }

    /// Returns the right to bring records.
    #[must_use]
    pub fn owner(&self) -> &Inbound {
        &self.owner
    }

    /// Returns the newest record of the primary, as far as it said.
    #[must_use]
    pub fn peer_head(&self) -> Seq {
        self.peer_head
    }

    /// Whether the primary's writers wait for this host, and not before it is on stable storage here.
    #[must_use]
    pub fn who_waits(&self) -> (bool, bool) {
        let is = |flag| self.flags & flag != 0;
        (is(FLAG_IN_SYNC), is(FLAG_STABLE))
    }

    /// Whether something is missing: then time matters, see [`Self::settle`].
    #[must_use]
    pub fn waits_for_records(&self) -> bool {
        self.gap.is_open()
    }

    /// Takes a message without its data. `volumes`: those of the welcome.
    ///
    /// # Errors
    ///
    /// The session must end.
    pub fn message<'a>(
        &mut self,
        envelope: &Envelope,
        message: &Message<'a>,
        volumes: &[Volume],
    ) -> Result<Meaning<'a>, End> {
        self.commit = self.commit.max(envelope.commit);
        self.peer_head = self.peer_head.max(envelope.position.seq);
        self.flags = envelope.flags;
        let knows = |range: &Range| {
            let mut all = volumes.iter();
            all.any(|v| v.id == range.volume && range.end() <= v.size)
        };
        match *message {
            Message::Record(r) => {
                if r.op != Op::Marker && !knows(&r.range) {
                    return Err(End::Nonsense("a record beyond the volumes of the group"));
                }
                Ok(Meaning::Item(Item::Record(r, envelope.position.epoch)))
            }
            Message::RegionCopy(c) => {
                if !knows(&c.range) || c.item != self.last_item.saturating_add(1) {
                    return Err(End::Nonsense(
                        "a region copy out of turn or beyond its volume",
                    ));
                }
                Ok(Meaning::Item(Item::Copy(c)))
            }
            Message::CommitPoint => Ok(Meaning::Noted),
            Message::Heartbeat { .. } => {
                self.reply = true;
                Ok(Meaning::Noted)
            }
            Message::SyncStart(start) => Ok(Meaning::SyncStarts(start)),
            Message::SyncEnd { end, items } => {
                if items != self.last_item {
                    return Err(End::Nonsense(
                        "the end of a synchronisation with copies missing",
                    ));
                }
                self.end = Some((end, items));
                Ok(Meaning::Noted)
            }
            Message::Refuse(refusal) => Ok(Meaning::Ends {
                refusal,
                goodbye: false,
            }),
            Message::Goodbye(refusal) => Ok(Meaning::Ends {
                refusal,
                goodbye: true,
            }),
            Message::State(_)
            | Message::Welcome(_)
            | Message::Ready(_)
            | Message::Ack(_)
            | Message::Resend { .. }
            | Message::CopyAck { .. } => Err(End::Unexpected),
        }
    }

    /// All data of `item` is here, and its checksum is `crc`. `false`: it is dropped, with its data, and asked for again.
    ///
    /// # Errors
    ///
    /// The session must end.
    pub fn data(&mut self, item: &Item, crc: u32) -> Result<bool, End> {
        self.received = self
            .received
            .saturating_add(u64::from(item.payload_bytes()));
        let sound = crc == item.payload_crc();
        match *item {
            _ if sound => Ok(true),
            Item::Record(r, _) => {
                self.dropped = self.dropped.max(r.seq);
                Ok(false)
            }
            Item::Copy(c) => Err(End::BadCopy(c.item)),
        }
    }

    /// Takes an item whose data is here. `epochs`: this host's lineage. Under the order lock.
    ///
    /// # Errors
    ///
    /// The session must end.
    pub fn take<M: Memory>(
        &mut self,
        node: &mut Node<M>,
        epochs: &impl Epochs,
        item: &Item,
    ) -> Result<Fate, End> {
        match *item {
            Item::Record(r, epoch) => {
                self.highest = self.highest.max(r.seq);
                self.records = true;
                let placed = node.receive(&self.owner, epochs, epoch, r)?;
                Ok(match placed {
                    Placed::InOrder | Placed::Early => Fate::Held,
                    Placed::Duplicate => Fate::Known,
                    Placed::Beyond => Fate::NoRoom,
                })
            }
            Item::Copy(c) => {
                let copy = Copy {
                    item: c.item,
                    after: c.after,
                    range: c.range,
                };
                if !node.copy_arrived(&self.owner, copy)? {
                    return Err(End::Nonsense(
                        "a region copy that has no place in the stream",
                    ));
                }
                self.last_item = c.item;
                self.copies = true;
                Ok(Fate::Held)
            }
        }
    }

    /// An item has found no room for so long.
    ///
    /// # Errors
    ///
    /// That was too long.
    pub fn may_wait(&self, waited_ms: u64) -> Result<(), End> {
        if waited_ms > STUCK_MS {
            Err(End::Stuck)
        } else {
            Ok(())
        }
    }

    /// What came goes to the node: the commit point, the end of a synchronisation; what is missing is noticed. Under the order
    /// lock. `patience_ms`: how long a record that was asked for again may take.
    ///
    /// # Errors
    ///
    /// The session must end.
    pub fn settle<M: Memory>(
        &mut self,
        node: &mut Node<M>,
        now_ms: u64,
        patience_ms: u64,
    ) -> Result<Settled, End> {
        let before = node.peer_commit();
        node.set_peer_commit(&self.owner, self.commit)?;
        let ended = self.end.take();
        if let Some((end, items)) = ended {
            if !node.copies.is_syncing() {
                return Err(End::Nonsense(
                    "the end of a synchronisation that never began",
                ));
            }
            node.sync_end_told(&self.owner, end, items)?;
            self.items = Some(items);
        }
        let ringless = matches!(node.log, Log::NoRing(_));
        let (records, copies) = (self.records, self.copies);
        (self.records, self.copies) = (false, false);
        let head = node.head();
        let missing = self.dropped > head;
        let ask = self
            .gap
            .look(head, self.highest, missing, now_ms, patience_ms);
        match ask {
            Ask::Wait => {}
            Ask::Resend { from, to } => self.resend = Some((from, to)),
            Ask::Reset => return Err(End::Missing(head.next())),
        }
        Ok(Settled {
            log: records && !ringless,
            applier: self.commit > before || copies || ended.is_some() || (records && ringless),
            asks: matches!(ask, Ask::Resend { .. }),
        })
    }

    /// Returns what to do next. Under the order lock: what is acknowledged is what the node has now.
    ///
    /// # Errors
    ///
    /// The session must end.
    pub fn next<M: Memory>(&mut self, node: &Node<M>, supply: &Supply) -> Result<Next, End> {
        let acks = node.acks_for(&self.owner)?;
        self.grow_credit(node, supply);
        if let Some((from, to)) = self.resend.take() {
            return Ok(Next::Send(Reply::Resend(from, to)));
        }
        let more = self
            .granted
            .must_tell(&self.told, node.head(), self.received);
        if self.acks != Some(acks) || more {
            self.acks = Some(acks);
            self.told = self.granted;
            return Ok(Next::Send(Reply::Ack(acks)));
        }
        // The end is acknowledged as the item after the last, once the superblock says consistent.
        let syncing = node.copies.is_syncing();
        let over = self.items.filter(|_| !syncing);
        let item = over.map_or(node.copies.durable_item(), |n| n.saturating_add(1));
        if item > self.told_item {
            self.told_item = item;
            return Ok(Next::Send(Reply::CopyAck(item)));
        }
        if over.is_some() {
            self.items = None;
            return Ok(Next::Synced);
        }
        if !self.level && !syncing && acks.received >= self.peer_head {
            self.level = true;
            return Ok(Next::Level);
        }
        if core::mem::take(&mut self.reply) {
            return Ok(Next::Send(Reply::Heartbeat));
        }
        Ok(Next::Wait)
    }

    /// Grants what there is room for. Under the order lock.
    pub fn grow_credit<M: Memory>(&mut self, node: &Node<M>, supply: &Supply) {
        self.granted = self.granted.grow(&Room::of(node, supply), self.received);
    }

    /// Returns the credit for the header of a message that is sent now.
    pub fn credit(&mut self) -> Credit {
        self.told = self.granted;
        Credit {
            seq: self.granted.seq,
            byte: self.granted.byte,
        }
    }
}
