// SPDX-License-Identifier: GPL-2.0

//! One host: its disks, what it has in memory while it runs, and its own work (log, apply, checkpoint).
//!
//! Every decision is the core's; this room executes it on the modelled disks, step by step.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{Hash, Hasher},
    rc::Rc,
};

use replicate_core::{
    engine::{
        apply::Apply,
        checkpoint::{Begun, Update},
        position::{LinkId, Positions},
        replica::Acks,
        Engine, Log, Memory, NoRing, Role, Start,
    },
    group::Mode,
    link::sender::Sender,
    log::{
        recovery::{new_epoch, Outcome, Step},
        ring::{Index, Mark},
        writer::{Writer, MAX_IN_FLIGHT},
    },
    order::window::Slot,
    record::chain_record,
    units::{Chain, Range, Record, Seq},
};

use crate::{
    config::Config,
    disk::{epoch_id, Batch, Block, Found, Line, LogDev, Sb, Value},
    search::Mix,
};

thread_local! {
    static SCANS: RefCell<HashMap<u64, Rc<Found>>> = RefCell::default();
}

/// Small storage for the engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mem;

impl Memory for Mem {
    type Slots = [Slot; 5];
    type Heads = [Seq; 1];
    type Marks = [Mark; 6];
}

pub type Eng = Engine<Mem>;

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
    /// A peer's lineage, which drops all above `fork`.
    Adopt {
        fork: Seq,
        session: u8,
    },
    /// Primary: a sync begins.
    SyncStart(Seq, Chain),
    /// Secondary: inconsistent, starts anew.
    SyncRestart(Seq, Chain, u8),
    TakeOver(Seq),
}

/// What a running host has in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct On {
    pub eng: Eng,
    pub batches: [Option<(Rc<Batch>, bool)>; MAX_IN_FLIGHT],
    pub log_flush: bool,
    /// Data writes in flight.
    pub round: Writes,
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
    pub sender: Option<Sender>,
    /// The region being read: what was on the volume when reading began.
    pub reading: Writes,
    /// An application flush that waits: target, and the writes it vouches for.
    pub flush: Option<(Seq, u16)>,
    /// What the peer was told last.
    pub told: Option<(Acks, u64, bool)>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    pub ring: bool,
    pub log: LogDev,
    pub vols: Vec<Block>,
    pub sb: Sb,
    pub pending: Option<(Sb, Why)>,
    pub on: Option<Box<On>>,
    /// What the scan found, while the recovery's superblock is on its way.
    pub booting: Option<Rc<Booted>>,
}

/// A scan's result, kept until the engine starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Booted {
    pub marks: Vec<Mark>,
    pub records: Vec<Record>,
    pub chain: Chain,
    pub head: Seq,
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

impl Host {
    pub fn on(&self) -> &On {
        self.on.as_ref().expect("host is up")
    }

    pub fn on_mut(&mut self) -> &mut On {
        self.on.as_mut().expect("host is up")
    }

    /// What the core's scan finds. The same log is met in many states, so the last answers are kept.
    pub fn scan(&self, with_cache: bool) -> Rc<Found> {
        let mut h = Mix::default();
        (
            &self.log,
            &self.sb.tail,
            self.sb.commit,
            &self.sb.line,
            with_cache,
        )
            .hash(&mut h);
        let key = h.finish();
        SCANS.with_borrow_mut(|known| {
            if known.len() > 200_000 {
                known.clear();
            }
            let scan = || {
                self.log
                    .scan(&self.sb.tail, self.sb.commit, &self.sb.line, with_cache)
            };
            known.entry(key).or_insert_with(|| Rc::new(scan())).clone()
        })
    }

    /// Power comes back: scan, flush, and for a primary the superblock with its new epoch.
    pub fn boot(&mut self, cfg: &Config, epoch: u8) -> Result<(), String> {
        if !self.ring {
            let n = NoRing::after_start(self.sb.applied, self.sb.horizon, self.sb.redo);
            self.start(
                cfg,
                Log::NoRing(n),
                self.sb.applied_chain,
                self.sb.applied,
                &[],
            );
            return Ok(());
        }
        let found = self.scan(true);
        let (head, place) = match found.outcome {
            Outcome::Head { head, place, .. } => (head, place),
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
            place,
        });
        if Step::first() == Step::Flush {
            self.log.flush();
        }
        if !self.sb.primary {
            self.finish_boot(cfg, &booted);
            return Ok(());
        }
        let mut sb = self.sb.clone();
        if let Some(first) = new_epoch(head) {
            sb.line.push((epoch, first.0));
        }
        sb.commit = head;
        let mut p = Positions::default();
        p.set(LINK, cfg.mode, sb.kept);
        p.cut(head);
        if let (Some(kept), Some(l)) = (&mut sb.kept, p.get(LINK)) {
            *kept = l.kept;
        }
        self.pending = Some((sb, Why::Recovered));
        self.booting = Some(booted);
        Ok(())
    }

    /// The superblock is there: the engine starts.
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
        self.start(cfg, Log::Ring(writer), chain, b.head, &b.records);
    }

    fn start(
        &mut self,
        cfg: &Config,
        log: Log<[Mark; 6]>,
        chain: Chain,
        head: Seq,
        records: &[Record],
    ) {
        let mut positions = Positions::default();
        let role = if self.sb.primary {
            Role::Primary
        } else {
            Role::Secondary
        };
        if self.sb.primary && cfg.peer.is_some() {
            positions.set(LINK, cfg.mode, self.sb.kept);
            positions.cut(head);
            if self.sb.sync.is_some() {
                positions.synced_from(LINK, self.sb.kept.unwrap_or_default(), true);
            }
        }
        let start = Start {
            role,
            applied: self.sb.applied,
            chain,
            head,
        };
        let mut eng = Engine::new([Slot::default(); 5], [Seq::NONE; 1], log, positions, start);
        if self.sb.inconsistent {
            eng.copies.set_syncing();
        }
        while let Some(seq) = eng.wants_load() {
            let r = records
                .iter()
                .find(|r| r.seq == seq)
                .expect("the scan found it");
            assert!(eng.load(*r), "the engine takes what it asked for");
        }
        self.on = Some(Box::new(On {
            eng,
            batches: Default::default(),
            log_flush: false,
            round: Vec::new(),
            copying: Vec::new(),
            arrived: Vec::new(),
            checkpoint: None,
            taking: None,
            replay: head,
            session: None,
            sender: None,
            reading: Vec::new(),
            flush: None,
            told: None,
        }));
    }

    /// Starts a log write if the writer has one.
    pub fn start_batch(&mut self) -> bool {
        let Host {
            on: Some(on),
            sb,
            log,
            ..
        } = self
        else {
            return false;
        };
        let Some(plan) = on.eng.plan_batch(&Line(&sb.line)) else {
            return false;
        };
        let mut records = Vec::new();
        let mut seq = plan.first;
        while seq <= plan.last {
            records.push(
                on.eng
                    .window
                    .get(seq)
                    .expect("planned records are in memory")
                    .record,
            );
            seq = seq.next();
        }
        let epoch = replicate_core::log::recovery::Epochs::epoch_of(&Line(&sb.line), plan.first).0;
        let batch = Rc::new(Batch {
            place: plan.place,
            length: plan.length.0,
            epoch,
            durable: plan.durable,
            chain: plan.chain,
            records,
        });
        log.write(batch.clone());
        on.batches[plan.id] = Some((batch, plan.fua));
        true
    }

    pub fn batch_done(&mut self, cfg: &Config, id: usize) {
        let on = self.on.as_mut().expect("host is up");
        let (batch, fua) = on.batches[id].take().expect("in flight");
        self.log.ended(&batch, fua || !cfg.volatile);
        on.eng.batch_done(id, true);
    }

    pub fn can_flush_log(&self) -> bool {
        self.on
            .as_ref()
            .is_some_and(|on| !on.log_flush && on.eng.written() > on.eng.commit())
    }

    pub fn start_log_flush(&mut self) -> bool {
        let on = self.on.as_mut().expect("host is up");
        on.eng.demand_all();
        if !on.eng.plan_flush() {
            return false;
        }
        on.log_flush = true;
        self.log.flush_begins();
        true
    }

    pub fn end_log_flush(&mut self) {
        self.log.flush_ends();
        let on = self.on_mut();
        on.log_flush = false;
        on.eng.flush_done(true);
    }

    /// The applier's next step. `false`: nothing to do.
    pub fn apply(&mut self, cfg: &Config) -> bool {
        let on = self.on.as_mut().expect("host is up");
        match on.eng.plan_apply() {
            None => false,
            Some(Apply::Round { first, last }) => {
                let mut seq = first;
                while seq <= last {
                    let s = on
                        .eng
                        .window
                        .get(seq)
                        .expect("in memory until it is applied");
                    if !s.superseded {
                        on.round.extend(writes_of(cfg, &s.record));
                    }
                    seq = seq.next();
                }
                true
            }
            Some(Apply::Horizon { horizon, redo }) => {
                if self.pending.is_some() {
                    return false;
                }
                let mut sb = self.sb.clone();
                sb.horizon = sb.horizon.max(horizon);
                sb.redo |= redo;
                self.pending = Some((sb, Why::Horizon(horizon, redo)));
                true
            }
            Some(Apply::FlushData) => {
                let upto = on.eng.applier.applied();
                for b in &mut self.vols {
                    b.flush_begins();
                    b.flush_ends();
                }
                on.eng.data_flushed(upto);
                true
            }
        }
    }

    /// The round's writes ended; `reversed`: the device took them the other way round.
    pub fn round_done(&mut self, reversed: bool) {
        let on = self.on.as_mut().expect("host is up");
        let mut round = std::mem::take(&mut on.round);
        if reversed {
            round.reverse();
        }
        for (b, v) in round {
            self.vols[b].write(v);
        }
        on.eng.round_done(true);
    }

    pub fn round_conflicts(&self) -> bool {
        let round = &self.on().round;
        (0..round.len()).any(|i| round[i + 1..].iter().any(|w| w.0 == round[i].0))
    }

    pub fn checkpoint_begins(&mut self) {
        let on = self.on.as_mut().expect("host is up");
        on.checkpoint = Some(on.eng.checkpoint_begin());
        for b in &mut self.vols {
            b.flush_begins();
        }
    }

    /// The flush ended: the superblock is on its way.
    pub fn checkpoint_flushed(&mut self) {
        let on = self.on.as_mut().expect("host is up");
        let begun = on.checkpoint.take().expect("begun");
        for b in &mut self.vols {
            if Eng::must_flush_data() {
                b.flush_ends();
            }
            b.marked = 0;
        }
        let flushed = on.eng.checkpoint_flushed(begun);
        let update = on.eng.checkpoint_update(flushed);
        let mut sb = self.sb.clone();
        sb.applied = update.applied;
        sb.applied_chain = update.chain;
        sb.commit = update.commit;
        if let Some(mark) = update.tail {
            sb.tail = mark;
        }
        if update.redo_ended {
            sb.redo = false;
        }
        if update.sync_ended {
            sb.inconsistent = false;
        }
        sb.horizon = sb.horizon.max(sb.applied);
        if let Some(l) = on.eng.positions.get(LINK) {
            sb.kept = (!l.needs_sync).then_some(l.kept);
            if !l.syncing {
                sb.sync = None;
            }
        }
        if let (Some(at), Some(c)) = (
            &mut sb.sync,
            on.sender.as_ref().and_then(|s| s.copies.as_ref()),
        ) {
            *at = c.cursor();
        }
        self.pending = Some((sb, Why::Checkpoint(update)));
    }

    /// Whether the log can be cut now: nothing in flight.
    pub fn is_idle(&self) -> bool {
        let on = self.on();
        let writer_idle = match &on.eng.log {
            Log::Ring(w) => w.is_idle(),
            Log::NoRing(_) => true,
        };
        writer_idle && self.pending.is_none()
    }

    /// Everything up to `end` is durable: the superblock with the new epoch goes out.
    pub fn take_over(&mut self, end: Seq, epoch: u8) {
        let mut sb = self.sb.clone();
        sb.primary = true;
        if let Some(first) = new_epoch(end) {
            sb.line.retain(|e| e.1 <= first.0);
            sb.line.push((epoch, first.0));
        }
        sb.commit = end;
        self.pending = Some((sb, Why::TakeOver(end)));
    }

    pub fn newest_epoch(&self) -> Option<u8> {
        self.sb.line.last().map(|e| e.0)
    }

    pub fn role_async(&self) -> bool {
        self.on
            .as_ref()
            .and_then(|o| o.eng.positions.get(LINK))
            .is_none_or(|l| l.mode == Mode::Async)
    }

    pub fn epoch_name(&self) -> replicate_core::units::EpochId {
        epoch_id(self.newest_epoch().unwrap_or(0))
    }
}
