// SPDX-License-Identifier: GPL-2.0

//! The whole: two hosts, what is under way between them, the application, and the true history.

use std::rc::Rc;

use replicate_core::{
    group::Mode,
    node::{volumes::State, Log},
    record::chain_record,
    session::primary::Kind,
    units::{Chain, Record, Seq, VolumeId},
};

use crate::{
    config::{Config, Op, Peer},
    disk::{Block, LogDev, BLANK, GARBAGE},
    event::{side, Ev},
    ghost::{Ghost, Past},
    host::{wid, Host, Why, LINK},
    link::{Msg, Welcome},
    sb::Sb,
    shared::Shared,
};
use replicate_core::log::ring::Place;

/// Index of the primary in [`World::hosts`].
pub const P: usize = 0;
/// Index of the secondary.
pub const S: usize = 1;

/// A promise that broke.
#[derive(Clone, Debug)]
pub struct Broken(pub String);

pub type Step = Result<bool, Broken>;

pub fn broken<T>(text: impl Into<String>) -> Result<T, Broken> {
    Err(Broken(text.into()))
}

/// The state that is explored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub hosts: [Shared<Host>; 2],
    pub welcome: Option<Welcome>,
    /// To the secondary, to the primary: session and message.
    pub wires: [Vec<(u8, Msg)>; 2],
    pub ghost: Ghost,
}

impl World {
    pub fn new(cfg: &Config) -> World {
        let reserve = 2 << 20;
        let size = reserve + cfg.ring_room * (69632);
        let place = Place(match cfg.wrap {
            0 => 0,
            n => size - n * 69632 - 4096,
        });
        let host = |primary: bool| {
            let known = primary || !cfg.sync;
            Shared::new(Host {
                ring: primary || cfg.peer != Some(Peer::NoRing),
                log: LogDev::new(size),
                vols: cfg
                    .blocks
                    .iter()
                    .map(|_| Block::new(if known { BLANK } else { GARBAGE }))
                    .collect(),
                sb: Sb::new(cfg, primary, known, size, place),
                pending: None,
                left: None,
                on: None,
                booting: None,
            })
        };
        World {
            hosts: [host(true), host(false)],
            welcome: None,
            wires: [Vec::new(), Vec::new()],
            ghost: Ghost {
                hist: Vec::new(),
                pasts: Vec::new(),
                completed: 0,
                depends: vec![Seq::NONE],
                recovered: Seq::NONE,
                sync_start: Seq::NONE,
                owed: 0,
                synced: Seq::NONE,
                forgot: false,
                took: false,
                taken: false,
                next_wid: 1,
                next_epoch: 2,
                next_session: 1,
                script: 0,
                crashes: [cfg.primary_crashes, cfg.secondary_crashes],
                drops: cfg.drops,
                asks: cfg.asks,
                faults: cfg.faults,
                errors: cfg.errors,
                sb_errors: cfg.sb_errors,
                spoils: cfg.spoils,
                declared: false,
                damaged: false,
                volume_moves: cfg.volume_moves,
                checkpoints: [cfg.checkpoints; 2],
            },
        }
    }

    /// Chain value of the primary's order after `seq`.
    pub fn chain_at(&self, seq: Seq) -> Chain {
        let upto = self.ghost.hist.iter().take_while(|r| r.seq <= seq);
        upto.fold(Chain(0), |c, r| chain_record(c, r).unwrap())
    }

    pub fn step(&mut self, cfg: &Config, ev: Ev) -> Step {
        let done = self.act(cfg, ev)?;
        if done {
            self.settle(cfg)?;
        }
        Ok(done)
    }

    fn act(&mut self, cfg: &Config, ev: Ev) -> Step {
        match ev {
            Ev::App => Ok(self.app(cfg)),
            Ev::Batch(s) => Ok(self.hosts[s].start_batch()),
            Ev::BatchDone(s, id) => {
                self.hosts[s].batch_done(cfg, id);
                Ok(true)
            }
            Ev::LogFlush(s) => {
                let started = self.hosts[s].start_log_flush();
                if started && !cfg.fine && self.hosts[s].on().batches.iter().all(Option::is_none) {
                    self.hosts[s].end_log_flush();
                }
                Ok(started)
            }
            Ev::LogFlushed(s) => {
                self.hosts[s].end_log_flush();
                Ok(true)
            }
            Ev::Apply(s) => {
                let done = self.hosts[s].apply(cfg);
                let done = done.map_err(|e| Broken(format!("P5: {}: {e}", side(s))))?;
                if done
                    && !cfg.fine
                    && !self.hosts[s].round_conflicts()
                    && self.hosts[s].on().node.applier.round().is_some()
                {
                    self.hosts[s].round_done(false);
                }
                Ok(done)
            }
            Ev::RoundDone(s, reversed) => {
                self.hosts[s].round_done(reversed);
                Ok(true)
            }
            Ev::CheckpointFlush(s) => {
                self.ghost.checkpoints[s] -= 1;
                self.hosts[s].checkpoint_begins(cfg);
                if !cfg.fine {
                    self.hosts[s].checkpoint_flushed();
                }
                Ok(true)
            }
            Ev::CheckpointFlushed(s) => {
                self.hosts[s].checkpoint_flushed();
                Ok(true)
            }
            Ev::SuperblockDone(s) => self.superblock_done(cfg, s),
            Ev::SuperblockFails(s, there) => Ok(self.superblock_fails(cfg, s, there)),
            Ev::BatchFails(s, _)
            | Ev::LogFlushFails(s)
            | Ev::RoundFails(s, _)
            | Ev::CopyFails(s)
            | Ev::DataFlushFails(s, _) => {
                self.ghost.errors -= 1;
                Ok(self.hosts[s].fails(cfg, ev))
            }
            Ev::VolumeGoes(s, v) => {
                self.ghost.volume_moves -= 1;
                self.hosts[s].flush_volume(cfg, v);
                self.hosts[s].on_mut().node.volume_suspended(v);
                Ok(true)
            }
            Ev::VolumeComes(s, v) => Ok(self.hosts[s].on_mut().node.volume_attached(v)),
            Ev::Replay(s) => {
                let done = self.hosts[s].replay(cfg);
                done.or_else(|e| broken(format!("P5: {}: {e}", side(s))))
            }
            Ev::ReplayFlush(s) => Ok(self.hosts[s].replay_flush(cfg)),
            Ev::Boot(S) if self.hosts[S].sb.primary => {
                // The takeover's superblock made it, the host did not: it starts as the primary that it is.
                let (end, found) = (self.hosts[S].sb.commit, self.hosts[S].durable_head());
                if found.is_none_or(|f| f < end) {
                    return broken(format!(
                        "P3: a takeover at {end} lost its log after a crash: {found:?}"
                    ));
                }
                self.ghost.taken = true;
                Ok(true)
            }
            Ev::Boot(s) => {
                let epoch = self.ghost.next_epoch;
                match self.hosts[s].boot(cfg, epoch) {
                    Err(_) if self.ghost.damaged => self.ghost.taken = true,
                    Err(e) => return broken(format!("{}: {e}", side(s))),
                    Ok(true) if self.ghost.damaged => {
                        return broken(format!(
                            "P1: the {} starts, although what it could not read is proven durable",
                            side(s)
                        ))
                    }
                    Ok(false) => return Ok(false),
                    Ok(true) => {}
                }
                if s == P {
                    self.ghost.next_epoch += 1;
                }
                Ok(true)
            }
            Ev::Spoil(s, i) => {
                self.ghost.spoils -= 1;
                self.ghost.damaged = i > 0;
                Ok(self.hosts[s].spoil(i))
            }
            Ev::Cut(s, i) | Ev::Reset(s, i) => {
                let cut = matches!(ev, Ev::Cut(..));
                let mut all = self.hosts[s].aftermath(cut);
                *self.hosts[s] = all.swap_remove(i);
                self.crashed(cfg, s);
                Ok(true)
            }
            Ev::Connect => self.connect(cfg),
            Ev::Welcomed => self.welcomed(),
            Ev::Ready => self.peer_ready(),
            Ev::SyncMoved => Ok(self.sync_moved()),
            Ev::SyncOver => self.sync_is_over(),
            Ev::Drop(s) => {
                self.ghost.drops = self.ghost.drops.saturating_sub(1);
                self.drop_session(cfg, s);
                Ok(true)
            }
            Ev::Send => self.send(cfg),
            Ev::Deliver(d, i) => {
                let (session, msg) = self.wires[d].remove(i);
                self.deliver(cfg, d, session, msg)
            }
            Ev::Lose(d, i) => {
                self.ghost.faults -= 1;
                self.wires[d].remove(i);
                Ok(true)
            }
            Ev::Damage(i) => {
                self.ghost.faults -= 1;
                let (session, msg) = self.wires[0].remove(i);
                if self.hosts[S].on.as_ref().and_then(|o| o.session) != Some(session) {
                    return Ok(true);
                }
                self.receive(cfg, msg, false)
            }
            Ev::Double(d, i) => {
                self.ghost.faults -= 1;
                let m = self.wires[d][i].clone();
                self.wires[d].push(m);
                Ok(true)
            }
            Ev::Ack => self.acknowledge(cfg),
            Ev::AskAgain => self.ask_again(cfg),
            Ev::RegionRead(now) => self.region_read(cfg, now),
            Ev::GiveUp => {
                self.ghost.drops -= 1;
                let on = self.hosts[P].on_mut();
                on.node.positions.set_needs_sync(LINK);
                on.syncs.over();
                self.drop_session(cfg, P);
                self.welcome = None;
                Ok(true)
            }
            Ev::Resync => {
                self.ghost.asks -= 1;
                let first = VolumeId(cfg.blocks[0].0);
                // The session that stands ends soon.
                let kind = if cfg.withdraws {
                    Kind::AssumeClean
                } else {
                    Kind::Full
                };
                self.hosts[P].on_mut().syncs.ask(kind, false, first);
                Ok(true)
            }
            Ev::Withdraw => {
                let syncs = &mut self.hosts[P].on_mut().syncs;
                let asked = syncs.wanted().map_or(0, |s| s.number);
                syncs.withdraw(asked);
                Ok(true)
            }
            Ev::CopyWrite => Ok(self.copy_write(cfg)),
            Ev::CopyWritten => {
                self.copy_written();
                Ok(true)
            }
            Ev::TakeOver => {
                self.drop_session(cfg, S);
                self.ghost.took = true;
                let on = self.hosts[S].on_mut();
                let end = on.node.takeover_begin();
                on.taking = Some(end);
                Ok(true)
            }
            Ev::TakeOverWrite => {
                let epoch = self.ghost.next_epoch;
                self.ghost.next_epoch += 1;
                let end = self.hosts[S].on().taking.expect("begun");
                self.hosts[S].take_over(cfg, end, epoch);
                Ok(true)
            }
        }
    }

    fn app(&mut self, cfg: &Config) -> bool {
        let Some(op) = cfg.script.get(usize::from(self.ghost.script)) else {
            return false;
        };
        let on = self.hosts[P].on_mut();
        match *op {
            Op::Write { from, blocks, fua } => {
                let range = cfg.range(from, blocks);
                if on.node.volumes.state(range.volume) == State::Failed {
                    // It ends in an error.
                    self.ghost.script += 1;
                    return true;
                }
                let crc = u32::from(self.ghost.next_wid);
                let op = replicate_core::units::Op::Write;
                let Ok(seq) = on.node.admit(op, range, fua, false, crc, 0) else {
                    return false;
                };
                let record = on.node.window.get(seq).expect("just admitted").record;
                let seen = |r: &&Record| self.ghost.completed & (1 << wid(r)) != 0;
                let seen = self.ghost.hist.iter().filter(seen).map(|r| r.seq).max();
                self.ghost
                    .depends
                    .push(seen.unwrap_or_default().max(self.ghost.recovered));
                self.ghost.hist.push(record);
                self.ghost.next_wid += 1;
            }
            Op::Flush => {
                if on.flush.is_some() {
                    return false;
                }
                on.flush = Some((on.node.flush_target(), self.ghost.completed));
            }
        }
        self.ghost.script += 1;
        true
    }

    fn crashed(&mut self, cfg: &Config, s: usize) {
        self.ghost.crashes[s] -= 1;
        self.welcome = None;
        if s == S {
            self.ghost.forgot = true;
        }
        if !cfg.stale {
            // What a dead host is sent is lost; what it sent may still arrive.
            self.wires[1 - s].retain(|_| false);
            let other = self.hosts[1 - s].on.as_ref().and_then(|o| o.session);
            self.wires[s].retain(|m| Some(m.0) == other);
        }
    }

    fn superblock_done(&mut self, cfg: &Config, s: usize) -> Step {
        let Some((sb, why)) = self.hosts[s].pending.take() else {
            return Ok(false);
        };
        self.hosts[s].sb = sb;
        self.hosts[s].left = None;
        // A synchronisation takes nothing for granted; when one is over the primary counts on the replica.
        self.ghost.declared &= s != S || !self.hosts[S].sb.inconsistent;
        match why {
            Why::Recovered => {
                let booted = self.hosts[s].booting.take().expect("booting");
                self.recovered(booted.head)?;
                self.hosts[s].finish_boot(cfg, &booted);
            }
            Why::Checkpoint(update) => {
                let node = &mut self.hosts[s].on_mut().node;
                node.checkpoint_done(update);
                if let Log::Ring(w) = &node.log {
                    let tail = w.ring.tail();
                    self.hosts[s].log.forget_before(tail);
                }
            }
            Why::Horizon(horizon, redo) => {
                self.hosts[s].on_mut().node.horizon_durable(horizon, redo)
            }
            Why::Adopt(agreed, session) => self.secondary_joins(&agreed, session)?,
            Why::SessionBegan(ready) => self.session_recorded(&ready)?,
            Why::SyncForgets | Why::SyncMoved => {}
            Why::SyncEnds => {
                if let Some(sender) = &mut self.hosts[s].on_mut().sender {
                    sender.end_recorded();
                }
            }
            Why::SyncOver { by_handshake } => {
                self.ghost.declared = false;
                let on = self.hosts[s].on_mut();
                if !by_handshake && on.sender.is_none() {
                    // Nobody waits for it any more: the next handshake finds out.
                    return Ok(true);
                }
                on.syncs.over();
                if let Some(sender) = &mut on.sender {
                    let change = sender.sync_over(&mut on.node);
                    return self.follow(cfg, change);
                }
            }
            Why::TakeOver(end) => return self.taken_over(cfg, end),
        }
        Ok(true)
    }

    /// No copy of the superblock could be written; `there`: a start finds it all the same. As it may be either, nothing
    /// goes on with this host, as in the module.
    fn superblock_fails(&mut self, cfg: &Config, s: usize, there: bool) -> bool {
        self.ghost.sb_errors -= 1;
        let Some((sb, why)) = self.hosts[s].pending.take() else {
            return false;
        };
        self.hosts[s].left = there.then_some(sb);
        if self.hosts[s].booting.take().is_some() {
            // The group is not added: next time what is there is read.
            let found = self.hosts[s].on_device().clone();
            (self.hosts[s].sb, self.hosts[s].left) = (found, None);
            return true;
        }
        let on = self.hosts[s].on_mut();
        on.node.fail();
        on.taking = None;
        on.checkpoint = None;
        match why {
            Why::Adopt(..) => {
                on.node.adoption_failed(LINK);
                self.welcome = None;
            }
            Why::SessionBegan(_)
            | Why::SyncForgets
            | Why::SyncMoved
            | Why::SyncEnds
            | Why::SyncOver { .. } => {
                self.drop_session(cfg, s);
            }
            Why::Recovered | Why::Checkpoint(_) | Why::Horizon(..) | Why::TakeOver(_) => {}
        }
        true
    }

    /// The primary is back with `head`: what it lost never was, unless somebody was promised it.
    fn recovered(&mut self, head: Seq) -> Result<(), Broken> {
        let found = self.hosts[P].booting.as_ref().map(|b| b.records.clone());
        let keep = head.0 as usize;
        if keep > self.ghost.hist.len() {
            return broken(format!(
                "recovery found record {head}, which was never written"
            ));
        }
        for r in found.unwrap_or_default() {
            if self.ghost.hist.get(r.seq.0 as usize - 1) != Some(&r) {
                return broken(format!(
                    "recovery found a record {} that is not in the order",
                    r.seq
                ));
            }
        }
        for r in &self.ghost.hist[keep..] {
            if self.ghost.owed & (1 << wid(r)) != 0 {
                return broken(format!(
                    "P1: write {} was promised to survive a power cut, and is lost",
                    wid(r)
                ));
            }
        }
        self.ghost.recovered = head;
        if keep < self.ghost.hist.len() {
            self.ghost.pasts.push(Past {
                hist: Rc::new(self.ghost.hist.clone()),
                synced: self.ghost.synced,
                epoch: self.hosts[P].sb.line.last().map_or(0, |e| e.0),
            });
            self.ghost.hist.truncate(keep);
            // Once the peer has learnt of it, what was lost here without a promise is lost there too.
            self.ghost.synced = self.ghost.synced.min(head);
        }
        Ok(())
    }

    /// What happens at once, whatever happened.
    fn settle(&mut self, cfg: &Config) -> Result<(), Broken> {
        if self.ghost.taken {
            return Ok(());
        }
        self.primary_settles(cfg)?;
        for h in &mut self.hosts {
            if let Some(on) = &mut h.on {
                while on.node.open_volume().is_some() {}
                on.node.retire(Seq(u64::MAX), cfg.short);
            }
        }
        Ok(())
    }

    fn primary_settles(&mut self, cfg: &Config) -> Result<(), Broken> {
        if self.hosts[P].on.as_ref().is_none_or(|o| o.is_stopped()) {
            return Ok(());
        }
        loop {
            let on = self.hosts[P].on_mut();
            let in_sync = on.node.positions.get(LINK).is_some_and(|l| l.in_sync);
            let session = on.session;
            let Some(seq) = on.node.next_release() else {
                break;
            };
            let record = self.ghost.hist[seq.0 as usize - 1];
            self.ghost.completed |= 1 << wid(&record);
            if record.fua {
                self.ghost.owed |= 1 << wid(&record);
            }
            if in_sync {
                self.completed_in_sync(cfg, seq, session)?;
            }
        }
        let on = self.hosts[P].on_mut();
        on.node.demand_fua();
        if let Some((target, vouched)) = on.flush {
            if on.node.flush_ready(target) {
                on.flush = None;
                self.ghost.owed |= vouched;
            }
        }
        Ok(())
    }

    /// P2: a write completes while in-sync only when the peer has it at the configured level.
    pub fn completed_in_sync(
        &mut self,
        cfg: &Config,
        seq: Seq,
        session: Option<u8>,
    ) -> Result<(), Broken> {
        self.ghost.synced = self.ghost.synced.max(seq);
        match cfg.mode {
            Mode::Async => {}
            Mode::Received => {
                let peer = self.hosts[S]
                    .on
                    .as_ref()
                    .filter(|o| o.session == session && session.is_some());
                if peer.is_some_and(|o| o.node.head() < seq) {
                    return broken(format!(
                        "P2: {seq} completed in-sync, and the peer does not hold it"
                    ));
                }
                if peer.is_some() {
                    self.ghost.forgot = false;
                }
            }
            Mode::Logged | Mode::Applied => {
                let durable = self.hosts[S].durable_head();
                if durable.is_none_or(|d| d < seq) {
                    return broken(format!(
                        "P2: {seq} completed in-sync, and the peer has not got it on stable storage"
                    ));
                }
            }
        }
        Ok(())
    }
}
