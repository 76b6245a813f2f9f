// SPDX-License-Identifier: GPL-2.0

//! The secondary's side of a session: what it takes, drops, asks for again and acknowledges.

use replicate_core::{
    group::Volume as Known,
    lineage::{Before, Entry, Epoch, Lineage},
    log::{
        ring::{Index, Mark, Place, Ring},
        writer::Writer,
    },
    node::{
        links::{LinkId, Position as LinkPosition, Positions},
        volumes::Volume,
        window::Slot,
        Log, Memory, Node, Role, Start,
    },
    session::{
        credit::Supply,
        meet::Succession,
        receiver::{End, Fate, Item, Meaning, Next, Receiver, Reply},
        SessionId,
    },
    units::{Bytes, Chain, EpochId, Op, Position, Range, Record, Sector, Seq, VolumeId},
    wire::{Envelope, Message, RegionCopy},
};

struct Small;

impl Memory for Small {
    type Slots = [Slot; 4];
    type Heads = [Seq; 1];
    type Marks = [Mark; 2];
    type Volumes = [Volume; 1];
    type Links = [Option<LinkPosition>; 1];
}

const LINK: LinkId = LinkId(0);
const EPOCH: EpochId = EpochId([1; 16]);
const SUPPLY: Supply = Supply {
    pages: 1 << 20,
    page_bytes: 4096,
    window_bytes: 1 << 30,
};

fn record(seq: u64) -> Record {
    Record {
        seq: Seq(seq),
        op: Op::Write,
        range: Range {
            volume: VolumeId(0),
            sector: Sector(seq * 8),
            sectors: 8,
        },
        payload_crc: 7,
        ..Record::default()
    }
}

/// A secondary that holds nothing yet, in a session, with the lineage of its primary.
struct Host {
    node: Node<Small>,
    receiver: Receiver,
    entries: [Entry; 1],
}

impl Host {
    fn new(syncing: bool) -> Host {
        let ring = Ring::new(Bytes(8 << 20), 4096, Place(0), Place(0));
        let index = Index::new([Mark::default(); 2]);
        let start = Start {
            role: Role::Secondary,
            applied: Seq::NONE,
            chain: Chain(0),
            head: Seq::NONE,
            head_chain: Chain(0),
        };
        let mut node = Node::new(
            [Slot::default(); 4],
            [Seq::NONE; 1],
            [Volume::default(); 1],
            Log::Ring(Writer::new(ring, index, Seq::NONE, true)),
            Positions::new([None; 1]),
            start,
        );
        assert!(node.volume_attached(VolumeId(0)));
        if syncing {
            node.copies.set_syncing();
        }
        let stated = node.stated();
        node.adoption_begins(LINK, stated, Succession::Same)
            .expect("nobody follows");
        let session = SessionId::from_wire(9).expect("a number");
        let owner = node.session_began(LINK, session).expect("an adoption");
        let epoch = Epoch {
            id: EPOCH,
            first: Seq(1),
            ..Epoch::default()
        };
        Host {
            node,
            receiver: Receiver::new(owner, Seq(1), Seq::NONE),
            entries: [Entry::from(epoch)],
        }
    }

    fn message(&mut self, message: Message<'static>) -> Result<Option<Item>, End> {
        let seq = match message {
            Message::Record(r) => r.seq,
            _ => Seq::NONE,
        };
        let envelope = Envelope {
            position: Position { epoch: EPOCH, seq },
            ..Envelope::default()
        };
        let volume = Known {
            size: Sector(4096),
            ..Known::default()
        };
        match self.receiver.message(&envelope, &message, &[volume])? {
            Meaning::Item(item) => Ok(Some(item)),
            _ => Ok(None),
        }
    }

    /// A message comes, with data of checksum `crc`, and the thread goes through its turn. `None`: nothing was placed.
    fn comes(&mut self, message: Message<'static>, crc: u32) -> Result<Option<Fate>, End> {
        let mut fate = None;
        if let Some(item) = self.message(message)? {
            if self.receiver.data(&item, crc)? {
                let lineage = Lineage::new(Before::default(), &self.entries).expect("a lineage");
                fate = Some(self.receiver.take(&mut self.node, &lineage, &item)?);
            }
        }
        self.receiver.settle(&mut self.node, 0, 1000)?;
        Ok(fate)
    }

    fn says(&mut self) -> Vec<Reply> {
        let mut all = Vec::new();
        loop {
            match self.receiver.next(&self.node, &SUPPLY).expect("a session") {
                Next::Send(reply) => {
                    self.receiver.credit();
                    all.push(reply);
                }
                Next::Synced | Next::Level => {}
                Next::Wait => return all,
            }
        }
    }
}

fn copy(item: u64) -> Message<'static> {
    Message::RegionCopy(RegionCopy {
        item,
        range: record(1).range,
        payload_crc: 7,
        ..RegionCopy::default()
    })
}

fn received(replies: &[Reply]) -> Option<Seq> {
    replies.iter().rev().find_map(|r| match r {
        Reply::Ack(acks) => Some(acks.received),
        _ => None,
    })
}

#[test]
fn a_damaged_record_is_asked_for_and_nothing_above_it_acknowledged() {
    let mut h = Host::new(false);
    assert_eq!(received(&h.says()), Some(Seq::NONE));
    assert_eq!(h.comes(Message::Record(record(1)), 8), Ok(None));
    assert_eq!(h.comes(Message::Record(record(2)), 7), Ok(Some(Fate::Held)));
    let said = h.says();
    assert!(said.contains(&Reply::Resend(Seq(1), Seq(1))));
    assert_ne!(received(&said), Some(Seq(2)));
    assert_eq!(h.comes(Message::Record(record(1)), 7), Ok(Some(Fate::Held)));
    assert_eq!(received(&h.says()), Some(Seq(2)));
    assert!(!h.receiver.waits_for_records());
}

#[test]
fn a_record_that_does_not_come_again_ends_the_session() {
    let mut h = Host::new(false);
    assert_eq!(h.comes(Message::Record(record(1)), 8), Ok(None));
    assert!(h.receiver.settle(&mut h.node, 999, 1000).is_ok());
    let end = h.receiver.settle(&mut h.node, 1000, 1000);
    assert_eq!(end, Err(End::Missing(Seq(1))));
}

#[test]
fn what_is_granted_has_room_and_no_more() {
    let mut h = Host::new(false);
    h.says();
    let last = h.receiver.credit().seq;
    for seq in 1..=last.0 {
        let taken = h.comes(Message::Record(record(seq)), 7);
        assert_eq!(taken, Ok(Some(Fate::Held)));
    }
    h.says();
    assert_eq!(h.receiver.credit().seq, last);
    let beyond = Message::Record(record(last.0 + 1));
    assert_eq!(h.comes(beyond, 7), Ok(Some(Fate::NoRoom)));
    assert!(h.receiver.may_wait(1000).is_ok());
    assert_eq!(h.receiver.may_wait(60_001), Err(End::Stuck));
}

#[test]
fn copies_come_in_turn_and_the_end_after_all_of_them() {
    let mut h = Host::new(true);
    assert!(matches!(h.comes(copy(2), 7), Err(End::Nonsense(_))));
    assert_eq!(h.comes(copy(1), 7), Ok(Some(Fate::Held)));
    assert!(matches!(h.comes(copy(1), 7), Err(End::Nonsense(_))));
    assert_eq!(h.comes(copy(2), 8), Err(End::BadCopy(2)));
    let end = |items| Message::SyncEnd {
        end: Seq::NONE,
        items,
    };
    assert!(matches!(h.comes(end(2), 0), Err(End::Nonsense(_))));
    assert_eq!(h.comes(end(1), 0), Ok(None));
    // Nothing of it is durable.
    assert!(!h.says().iter().any(|r| matches!(r, Reply::CopyAck(_))));
}

#[test]
fn what_makes_no_sense_ends_the_session() {
    let mut h = Host::new(false);
    let mut far = record(1);
    far.range.sector = Sector(4096);
    let end = Message::SyncEnd {
        end: Seq(1),
        items: 0,
    };
    for message in [Message::Record(far), copy(1), end] {
        let taken = h.comes(message, 7);
        assert!(matches!(taken, Err(End::Nonsense(_))), "{message:?}");
    }
    assert_eq!(
        h.comes(Message::CopyAck { item: 1 }, 0),
        Err(End::Unexpected)
    );
}
