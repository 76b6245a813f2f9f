// SPDX-License-Identifier: GPL-2.0

//! Two hosts and three, several links, roles that change, and histories that go on after a takeover.
//!
//! What [`world`](crate::world) explores in depth for one link (torn log writes, caches, rounds that overtake each
//! other) happens here in one step each, so that what lies between hosts can be explored: who follows whom. Node,
//! judgement, adoption, inbound ownership, send planning, credit and takeover are the core's own.
//!
//! Any host may be a primary; a link may carry a session in either direction. Each end of a connection notices its loss
//! for itself. There is no region copy here: where only a synchronisation helps, that is a named end.

mod act;
mod check;
pub mod runs;
mod search;

pub use search::{explore, Found};

use std::{collections::BTreeMap, rc::Rc};

use replicate_core::{
    group::{Mode, Volume},
    log::{
        ring::{Index, Mark, Place, Ring},
        writer::Writer,
    },
    node::{durable::start, inbound::Stated, links::Positions, secondary::Acks, Log, Role, Start},
    record::chain_record,
    session::{primary::Promise, receiver::Receiver, secondary::Adoption, sender::Sender},
    units::{Bytes, Chain, Record, Sector, Seq, VolumeId},
    wire::Credit,
};

use crate::{
    config::BLOCK_SECTORS,
    disk::{Value, LOG_BLOCK},
    host::{Mem, Node},
    sb::{group, Sb},
};

/// Blocks of the one volume.
pub const BLOCKS: usize = 2;
/// Size of the ring.
pub const RING: u64 = (2 << 20) + 16 * 69632;

/// The one volume.
pub fn volume() -> Volume {
    Volume {
        name: group(),
        size: Sector(BLOCKS as u64 * u64::from(BLOCK_SECTORS)),
        logical_block: 512,
        ..Volume::default()
    }
}

/// What is explored.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: &'static str,
    pub hosts: usize,
    /// The two hosts of each link. Host 0 is the primary at first.
    pub links: &'static [(usize, usize)],
    pub mode: Mode,
    /// Writes that the application of each host issues while it is primary.
    pub writes: [u8; 3],
    pub takeovers: u8,
    pub crashes: u8,
    /// Connections lost though nothing is wrong.
    pub losses: u8,
    /// Links that may be cut for good.
    pub cuts: &'static [usize],
    /// Log devices that fail.
    pub log_errors: u8,
    /// Messages under way in one direction.
    pub queue: usize,
}

/// A log write on stable storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Laid {
    pub mark: Mark,
    pub length: u64,
    pub records: Vec<Record>,
}

/// One end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum End {
    Sender(u8, Sender),
    Receiver {
        session: u8,
        /// Newest epoch of its primary.
        epoch: u8,
        receiver: Receiver,
    },
}

impl End {
    pub fn session(&self) -> u8 {
        match self {
            End::Sender(session, _) | End::Receiver { session, .. } => *session,
        }
    }
}

/// A host that runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct On {
    pub node: Node,
    pub taking: Option<Seq>,
    /// By link.
    pub ends: Vec<Option<End>>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    pub sb: Sb,
    pub log: Vec<Laid>,
    pub vol: [Value; BLOCKS],
    /// Its log failed when it held so much.
    pub failed_at: Option<Seq>,
    pub on: Option<On>,
}

/// A primary's answer on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Welcome {
    pub session: u8,
    pub from: usize,
    pub to: usize,
    /// The primary's history.
    pub history: Sb,
    pub promise: Promise,
    pub stated: Stated,
    /// Once it was taken up.
    pub adoption: Option<Adoption>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Msg {
    Record(Record, u8, Seq),
    Commit(Seq),
    /// Positions, and the credit.
    Ack(Acks, Credit),
}

/// A link's wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wire {
    pub cut: bool,
    pub welcome: Option<Welcome>,
    /// By the host that they go to: 0 is the link's first. Session, message.
    pub to: [Vec<(u8, Msg)>; 2],
}

/// What nobody in the cluster knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Truth {
    /// Every write that ever had a place in an order.
    pub hist: Rc<BTreeMap<(u8, u64), Record>>,
    pub next_wid: Value,
    pub next_epoch: u8,
    pub next_session: u8,
    pub writes: [u8; 3],
    pub takeovers: u8,
    pub crashes: u8,
    pub losses: u8,
    pub log_errors: u8,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub hosts: Vec<Rc<Host>>,
    pub wires: Vec<Wire>,
    pub truth: Truth,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ev {
    Write(usize),
    Log(usize),
    LogFails(usize),
    Apply(usize),
    Crash(usize),
    Boot(usize),
    TakeOver(usize),
    TakenOver(usize),
    /// State, decision, welcome.
    Connect(usize),
    /// The secondary takes up the welcome.
    TakeUp(usize),
    /// It is durable there, and the session begins.
    Adopt(usize),
    Send(usize),
    Deliver(usize, usize),
    Ack(usize),
    /// The end of a link at a host is lost.
    Lose(usize, usize),
    Cut(usize),
}

impl Ev {
    /// Whether it is a fault or a command: nothing in the cluster brings it about.
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Ev::LogFails(_) | Ev::Crash(_) | Ev::TakeOver(_) | Ev::Cut(_)
        )
    }
}

impl Host {
    pub fn on(&self) -> &On {
        self.on.as_ref().expect("host is up")
    }

    pub fn on_mut(&mut self) -> &mut On {
        self.on.as_mut().expect("host is up")
    }

    /// Last record on stable storage.
    pub fn durable(&self) -> Seq {
        let last = self.log.last().and_then(|l| l.records.last());
        last.map_or(Seq::NONE, |r| r.seq)
    }

    /// What a scan under the lineage of `sb` finds: log writes, the last record, where the next one goes, the chain value there.
    pub fn scan(&self, sb: &Sb) -> (Vec<Laid>, Seq, Place, Chain) {
        let mut log = self.log.clone();
        for laid in &mut log {
            let known = |r: &Record| sb.epoch(r.seq) == self.sb.epoch(r.seq);
            laid.records.retain(known);
        }
        log.retain(|l| !l.records.is_empty());
        let end = |l: &Laid| Place(l.mark.place.0 + l.length);
        let place = log.last().map_or(Place(0), end);
        let all = || log.iter().flat_map(|l| &l.records);
        let head = all().last().map_or(Seq::NONE, |r| r.seq);
        let chain = all().fold(Chain(0), |c, r| chain_record(c, r).expect("it was logged"));
        (log, head, place, chain)
    }

    /// Starts: as after a scan that found all that is durable. Nothing was checkpointed, so all of it is replayed.
    pub fn boot(&mut self, cfg: &Cluster) {
        let (_, head, place, chain) = self.scan(&self.sb);
        let ring = Ring::new(Bytes(RING), LOG_BLOCK, Place(0), place);
        let mut index = Index::new([Mark::default(); 6]);
        for laid in &self.log {
            index.push(laid.mark);
        }
        let mut positions = Positions::new([None; 3]);
        start::positions(self.sb.bytes(), head, &mut positions);
        let start = Start {
            role: if self.sb.primary {
                Role::Primary
            } else {
                Role::Secondary
            },
            applied: Seq::NONE,
            chain: Chain(0),
            head,
            head_chain: chain,
        };
        let log = Log::Ring(Writer::new(ring, index, head, false));
        let mut node: Node = replicate_core::node::Node::<Mem>::new(
            Default::default(),
            [Seq::NONE; 1],
            Default::default(),
            log,
            positions,
            start,
        );
        assert!(node.volume_attached(VolumeId(0)), "there is room");
        while let Some(seq) = node.wants_load() {
            let all = self.log.iter().flat_map(|l| &l.records);
            let record = *all
                .clone()
                .find(|r| r.seq == seq)
                .expect("it is in the log");
            assert!(node.load(record), "the node takes what it asked for");
        }
        self.on = Some(On {
            node,
            taking: None,
            ends: vec![None; cfg.links.len()],
        });
    }
}

impl State {
    pub fn new(cfg: &Cluster) -> State {
        let host = |h: usize| {
            let mut h = Host {
                sb: Sb::of_cluster(h, cfg),
                log: Vec::new(),
                vol: [0; BLOCKS],
                failed_at: None,
                on: None,
            };
            h.boot(cfg);
            Rc::new(h)
        };
        State {
            hosts: (0..cfg.hosts).map(host).collect(),
            wires: vec![Wire::default(); cfg.links.len()],
            truth: Truth {
                hist: Rc::default(),
                next_wid: 1,
                next_epoch: 2,
                next_session: 1,
                writes: cfg.writes,
                takeovers: cfg.takeovers,
                crashes: cfg.crashes,
                losses: cfg.losses,
                log_errors: cfg.log_errors,
            },
        }
    }

    pub fn host(&mut self, h: usize) -> &mut Host {
        Rc::make_mut(&mut self.hosts[h])
    }

    /// The record that a history has at `seq`.
    pub fn record(&self, sb: &Sb, seq: Seq) -> Option<Record> {
        self.truth.hist.get(&(sb.epoch(seq), seq.0)).copied()
    }

    /// Chain value of a history after `seq`; `None` where it has no such record.
    pub fn chain(&self, sb: &Sb, seq: Seq) -> Option<Chain> {
        let mut chain = Chain(0);
        for s in 1..=seq.0 {
            chain = chain_record(chain, &self.record(sb, Seq(s))?).ok()?;
        }
        Some(chain)
    }
}
