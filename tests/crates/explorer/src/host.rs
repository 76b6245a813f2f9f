// SPDX-License-Identifier: GPL-2.0

//! One host: its disks, what it has in memory while it runs, and its own work (log, apply, checkpoint).
//!
//! Every decision is the core's; this module executes it on the modelled disks, step by step.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{Hash, Hasher},
    rc::Rc,
};

use replicate_core::{
    log::{
        recovery::Outcome,
        ring::{Index, Mark},
        writer::{Writer, MAX_IN_FLIGHT},
    },
    node::window::Slot,
    node::{
        checkpoint::{Begun, Update},
        durable::start,
        links::{LinkId, Position as LinkPosition, Positions},
        volumes::Volume,
        Log, Memory, Role, Start,
    },
    record::chain_record,
    session::{
        primary::Ready, receiver::Receiver, secondary::Agreed, sender::Sender, syncs::Syncs,
    },
    units::{Chain, Range, Record, Seq},
};

use crate::{
    config::Config,
    disk::{Batch, Block, Found, LogDev, Value},
    sb::Sb,
    search::Mix,
};

thread_local! {
    static SCANS: RefCell<HashMap<u64, Rc<Found>>> = RefCell::default();
}

/// Small storage for the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mem;

impl Memory for Mem {
    type Slots = [Slot; 5];
    type Heads = [Seq; 1];
    type Marks = [Mark; 6];
    type Volumes = [Volume; 2];
    type Links = [Option<LinkPosition>; 3];
}

pub type Node = replicate_core::node::Node<Mem>;

/// The one link.
pub const LINK: LinkId = LinkId(0);

/// Blocks of a record or region, and their values.
pub type Writes = Vec<(usize, Value)>;

/// Why a superblock is being written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The primary's new epoch after recovery.
    Recovered,
    Checkpoint(Update),
    Horizon(Seq, bool),
    /// Secondary: what it agreed to.
    Adopt(Agreed, u8),
    /// Primary: what follows from a welcome.
    SessionBegan(Ready),
    /// Primary: the recorded sync counts for nothing, another one begins.
    SyncForgets,
    /// Primary: how far the copies are.
    SyncMoved,
    /// Primary: where the sync ends.
    SyncEnds,
    /// Primary: a sync is over.
    SyncOver {
        by_handshake: bool,
    },
    TakeOver(Seq),
}

/// What a running host has in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct On {
    pub node: Node,
    pub batches: [Option<(Rc<Batch>, bool)>; MAX_IN_FLIGHT],
    pub log_flush: bool,
    /// Data writes in flight.
    pub round: Writes,
    /// A data device failed. Without a ring its volumes are no point of the order until the host was started again.
    pub failed: bool,
    /// A region copy being written.
    pub copying: Writes,
    /// Region copies that arrived: item, content.
    pub arrived: Vec<(u64, Writes)>,
    pub checkpoint: Option<Begun>,
    pub taking: Option<Seq>,
    /// Replays up to here before its volumes are a point of the order.
    pub replay: Seq,
    /// Its end of a session, if one stands.
    pub session: Option<u8>,
    pub receiver: Option<Receiver>,
    pub sender: Option<Sender>,
    /// The region being read: what was on the volume when reading began.
    pub reading: Writes,
    /// An application flush that waits: target, and the writes it vouches for.
    pub flush: Option<(Seq, u16)>,
    /// The peer said that it is consistent: the superblock is to say that the sync is over.
    pub sync_over: bool,
    /// The link's synchronisations.
    pub syncs: Syncs,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    pub ring: bool,
    pub log: LogDev,
    pub vols: Vec<Block>,
    /// The superblock that the host goes by.
    pub sb: Sb,
    pub pending: Option<(Sb, Why)>,
    /// One whose write failed, and which the next start finds all the same.
    pub left: Option<Sb>,
    pub on: Option<Box<On>>,
    /// What the scan found, while the recovery's superblock is on its way.
    pub booting: Option<Rc<Booted>>,
}

/// A scan's result, kept until the node starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Booted {
    pub marks: Vec<Mark>,
    pub records: Vec<Record>,
    /// Before the first of the records.
    pub chain: Chain,
    pub head: Seq,
    /// Chain value after `head`.
    pub end: Chain,
    pub place: replicate_core::log::ring::Place,
}

pub fn wid(r: &Record) -> Value {
    r.payload_crc as Value
}

/// The model's blocks within a range.
pub fn blocks_of(cfg: &Config, range: &Range) -> Vec<usize> {
    (0..cfg.blocks.len())
        .filter(|b| range.covers(&cfg.range(*b, 1)))
        .collect()
}

pub fn writes_of(cfg: &Config, r: &Record) -> Writes {
    blocks_of(cfg, &r.range)
        .into_iter()
        .map(|b| (b, wid(r)))
        .collect()
}

impl On {
    /// Its superblock could not be written: nothing begins any more.
    pub fn is_stopped(&self) -> bool {
        self.node.has_failed() && !self.node.log_failed()
    }
}

impl Host {
    pub fn on(&self) -> &On {
        self.on.as_ref().expect("host is up")
    }

    pub fn on_mut(&mut self) -> &mut On {
        self.on.as_mut().expect("host is up")
    }

    /// The superblock that a start would find.
    pub fn on_device(&self) -> &Sb {
        self.left.as_ref().unwrap_or(&self.sb)
    }

    /// A record that this host has, from memory or read back from its log.
    pub fn record(&self, seq: Seq) -> Option<Record> {
        if let Some(slot) = self.on().node.window.get(seq) {
            return Some(slot.record);
        }
        let batch = self.read_back(seq)?;
        batch.records.iter().find(|r| r.seq == seq).copied()
    }

    /// Chain value after `seq`, from memory or from the log.
    pub fn chain_at(&self, seq: Seq) -> Option<Chain> {
        let on = self.on();
        if let Some(chain) = on.node.chain_at(seq) {
            return Some(chain);
        }
        if let Log::Ring(w) = &on.node.log {
            if let Some(m) = w.index.find(seq.next()).filter(|m| m.first == seq.next()) {
                return Some(m.chain);
            }
        }
        Some(self.read_back(seq)?.chain_after(seq))
    }

    fn read_back(&self, seq: Seq) -> Option<&Rc<Batch>> {
        let Log::Ring(w) = &self.on().node.log else {
            return None;
        };
        if seq > w.written_prefix() {
            return None;
        }
        self.log
            .read_back(w.index.find(seq)?, &self.sb.lineage(), seq)
    }

    /// A block of the log cannot be read any more: 0, where the log ends; else that of a batch which the superblock, or
    /// a later batch, proves durable. `false`: there is no such batch, or nobody needs it.
    pub fn spoil(&mut self, i: usize) -> bool {
        let found = self.scan(true);
        let Outcome::Head { place, .. } = found.outcome else {
            return false;
        };
        let ring = self.log.ring(place);
        if i == 0 {
            self.log.bad = Some(ring.offset(place).0);
            return true;
        }
        let Some(mark) = found.marks.get(i - 1) else {
            return false;
        };
        let later = self.log.laid.iter().map(|l| &l.batch);
        let stated = later
            .filter(|b| b.place > mark.place && found.marks.iter().any(|m| m.place == b.place))
            .map(|b| b.durable);
        let proven = stated.chain([self.sb.commit]).max();
        if proven < Some(mark.first) {
            return false;
        }
        self.log.bad = Some(ring.offset(mark.place).0);
        true
    }

    /// What the core's scan finds. The same log is met in many states, so the last answers are kept.
    pub fn scan(&self, with_cache: bool) -> Rc<Found> {
        let mut h = Mix::default();
        (&self.log, &self.sb, with_cache).hash(&mut h);
        let key = h.finish();
        SCANS.with_borrow_mut(|known| {
            if known.len() > 200_000 {
                known.clear();
            }
            let scan = || {
                self.log.scan(
                    &self.sb.tail,
                    self.sb.commit,
                    &self.sb.lineage(),
                    with_cache,
                )
            };
            known.entry(key).or_insert_with(|| Rc::new(scan())).clone()
        })
    }

    /// Power comes back: scan, flush, and for a primary the superblock with its new epoch.
    /// `false`: the start is refused.
    pub fn boot(&mut self, cfg: &Config, epoch: u8) -> Result<bool, String> {
        if !self.ring {
            let n = start::Facts::of(self.sb.bytes()).no_ring();
            self.start(
                cfg,
                Log::NoRing(n),
                self.sb.applied_chain,
                (self.sb.applied, self.sb.applied_chain),
                &[],
            );
            return Ok(true);
        }
        let found = self.scan(true);
        let (head, end, place) = match found.outcome {
            Outcome::Head { head, chain, place } => (head, chain, place),
            Outcome::Unreadable { place } => {
                return Err(format!("recovery cannot read the log from {place:?} on"))
            }
            Outcome::Corrupt {
                missing, proven, ..
            } => {
                return Err(format!(
                    "recovery calls the log corrupt: record {missing} is missing, {proven} was proven durable"
                ));
            }
        };
        if head < self.sb.applied {
            return Err(format!(
                "recovery: the log ends at {head}, the volumes hold {}",
                self.sb.applied
            ));
        }
        let booted = Rc::new(Booted {
            marks: found.marks.clone(),
            records: found.records.clone(),
            chain: found.chain,
            head,
            end,
            place,
        });
        if found.flush {
            self.log.flush();
        }
        if !self.sb.primary {
            self.finish_boot(cfg, &booted);
            return Ok(true);
        }
        let Some(sb) = self.sb.begin_life(head, epoch, cfg.limits)? else {
            return Ok(false);
        };
        self.pending = Some((sb, Why::Recovered));
        self.booting = Some(booted);
        Ok(true)
    }

    /// The superblock is there: the node starts.
    pub fn finish_boot(&mut self, cfg: &Config, b: &Booted) {
        let ring = replicate_core::log::ring::Ring::new(
            replicate_core::units::Bytes(self.log.size),
            crate::disk::LOG_BLOCK,
            self.sb.tail.place,
            b.place,
        );
        let mut index = Index::new([Mark::default(); 6]);
        for m in &b.marks {
            index.push(*m);
        }
        let applied = self.sb.applied;
        let below = b.records.iter().take_while(|r| r.seq <= applied);
        let chain = below.fold(b.chain, |c, r| chain_record(c, r).unwrap());
        let writer = Writer::new(ring, index, b.head, cfg.volatile);
        self.start(cfg, Log::Ring(writer), chain, (b.head, b.end), &b.records);
    }

    fn start(
        &mut self,
        cfg: &Config,
        log: Log<[Mark; 6]>,
        chain: Chain,
        (head, head_chain): (Seq, Chain),
        records: &[Record],
    ) {
        let mut positions = Positions::new([None; 3]);
        let role = if self.sb.primary {
            Role::Primary
        } else {
            Role::Secondary
        };
        if self.sb.primary && cfg.peer.is_some() {
            start::positions(self.sb.bytes(), head, &mut positions);
        }
        let start = Start {
            role,
            applied: self.sb.applied,
            chain,
            head,
            head_chain,
        };
        let mut node = Node::new(
            [Slot::default(); 5],
            [Seq::NONE; 1],
            [Volume::default(); 2],
            log,
            positions,
            start,
        );
        for v in cfg.volumes() {
            assert!(node.volumes.enter(v), "there is room");
            if !cfg.late {
                node.volume_attached(v);
            }
        }
        if self.sb.inconsistent {
            node.copies.set_syncing();
        }
        while let Some(seq) = node.wants_load() {
            let r = records
                .iter()
                .find(|r| r.seq == seq)
                .expect("the scan found it");
            assert!(node.load(*r), "the node takes what it asked for");
        }
        self.on = Some(Box::new(On {
            node,
            batches: Default::default(),
            log_flush: false,
            round: Vec::new(),
            failed: false,
            copying: Vec::new(),
            arrived: Vec::new(),
            checkpoint: None,
            taking: None,
            replay: head,
            session: None,
            receiver: None,
            sender: None,
            reading: Vec::new(),
            flush: None,
            sync_over: false,
            syncs: Syncs::recorded(self.sb.link_sync().as_ref()),
        }));
    }
}
