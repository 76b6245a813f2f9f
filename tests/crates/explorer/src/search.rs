// SPDX-License-Identifier: GPL-2.0

//! Walking the states: exhaustively, breadth first for the shortest trace, or at random and deep.

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hash, Hasher},
    panic::{catch_unwind, AssertUnwindSafe},
};

use replicate_core::node::{
    volumes::{State, Volume},
    Role,
};

use crate::{
    config::Config,
    event::Ev,
    host::{Why, LINK},
    link::Msg,
    world::{Broken, World, P, S},
};

/// A quick 64-bit hash, two multiplications a word.
#[derive(Clone, Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        let x = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        x ^ (x >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for c in bytes.chunks(8) {
            let mut w = [0; 8];
            w[..c.len()].copy_from_slice(c);
            self.write_u64(u64::from_le_bytes(w));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_u64(&mut self, n: u64) {
        let x = u128::from(self.0 ^ n ^ 0x9E37_79B9_7F4A_7C15)
            .wrapping_mul(0xA076_1D64_78BD_642F_E703_7ED1_A0B4_28DB);
        self.0 = (x >> 64) as u64 ^ (x as u64).rotate_left(23);
    }
}

#[derive(Clone, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

type Seen = HashSet<u64, BuildHasherDefault<Same>>;

fn key(w: &World) -> u64 {
    let mut h = Mix::default();
    w.hash(&mut h);
    h.finish()
}

/// The state in which the exploration begins.
fn begin(cfg: &Config) -> World {
    let mut w = World::new(cfg);
    for ev in &cfg.prefix {
        match w.step(cfg, *ev) {
            Ok(true) => {}
            // Without a new epoch there is no lineage to adopt.
            Ok(false) if matches!(ev, Ev::SuperblockDone(_)) => {}
            other => panic!(
                "{}: the way to its start fails at \"{ev}\": {other:?}",
                cfg.name
            ),
        }
    }
    w
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Report {
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
    /// The promise that broke, and how it came to it.
    pub broken: Option<(String, Vec<Ev>)>,
    /// The bound on states ended the search.
    pub cut_short: bool,
}

impl World {
    /// Every event that may happen now. Some turn out to change nothing.
    pub fn events(&self, cfg: &Config) -> Vec<Ev> {
        let mut all = Vec::with_capacity(24);
        if self.ghost.taken {
            return all;
        }
        for s in [P, S] {
            if s == S && cfg.peer.is_none() {
                break;
            }
            self.local(cfg, s, &mut all);
        }
        if cfg.peer.is_some() {
            self.between(cfg, &mut all);
        }
        all
    }

    fn local(&self, cfg: &Config, s: usize, all: &mut Vec<Ev>) {
        let h = &self.hosts[s];
        if let Some((sb, _)) = &h.pending {
            all.push(Ev::SuperblockDone(s));
            if self.ghost.sb_errors > 0 {
                let finds = h.sb.writing(sb).failed;
                let becomes = [(finds.former, false), (finds.new, true)];
                all.extend(
                    becomes
                        .into_iter()
                        .filter(|b| b.0)
                        .map(|b| Ev::SuperblockFails(s, b.1)),
                );
            }
        }
        let Some(on) = &h.on else {
            if h.booting.is_none() {
                all.push(Ev::Boot(s));
                if self.ghost.spoils > 0 && h.ring {
                    all.extend((0..=3).map(|i| Ev::Spoil(s, i)));
                }
            } else {
                self.crashes(cfg, s, all);
            }
            return;
        };
        // While a new lineage or a sync's beginning is being made durable nothing else starts.
        let held = matches!(h.pending, Some((_, Why::Adopt(..) | Why::TakeOver(_))));
        if s == P && usize::from(self.ghost.script) < cfg.script.len() && !on.is_stopped() {
            all.push(Ev::App);
        }
        for (i, b) in on.batches.iter().enumerate() {
            if b.is_some() {
                all.push(Ev::BatchDone(s, i));
            }
        }
        if self.ghost.errors > 0 {
            self.failures(cfg, s, all);
        }
        if on.log_flush {
            all.push(Ev::LogFlushed(s));
        }
        if !on.round.is_empty() {
            all.push(Ev::RoundDone(s, false));
            if h.round_conflicts() {
                all.push(Ev::RoundDone(s, true));
            }
        }
        if on.checkpoint.is_some() && h.pending.is_none() {
            all.push(Ev::CheckpointFlushed(s));
        }
        if !on.copying.is_empty() {
            all.push(Ev::CopyWritten);
        }
        if on.is_stopped() {
            self.crashes(cfg, s, all);
            return;
        }
        if !held {
            all.push(Ev::Batch(s));
            if h.can_flush_log() {
                all.push(Ev::LogFlush(s));
            }
            if on.node.applier.round().is_none() {
                all.push(Ev::Apply(s));
            }
            self.volumes(cfg, s, all);
            let checkpoint =
                self.ghost.checkpoints[s] > 0 && on.checkpoint.is_none() && h.pending.is_none();
            if checkpoint && on.node.checkpoint_useful() {
                all.push(Ev::CheckpointFlush(s));
            }
            if s == S && !on.arrived.is_empty() {
                all.push(Ev::CopyWrite);
            }
        }
        if s == S {
            let may = cfg.takeover
                && on.node.role() == Role::Secondary
                && on.node.is_consistent()
                && !h.sb.inconsistent;
            if may
                && on.taking.is_none()
                && (h.ring || !on.failed)
                && on.node.volumes.all_present()
                && self.welcome.is_none()
                && !h.sb.line.is_empty()
                && h.pending.is_none()
            {
                all.push(Ev::TakeOver);
            }
            if on.taking.is_some_and(|end| on.node.takeover_ready(end)) && h.pending.is_none() {
                all.push(Ev::TakeOverWrite);
            }
        }
        self.crashes(cfg, s, all);
    }

    /// Volumes go, come, and catch up.
    fn volumes(&self, cfg: &Config, s: usize, all: &mut Vec<Ev>) {
        let h = &self.hosts[s];
        let volumes = &h.on().node.volumes;
        for (id, v) in volumes.iter() {
            if self.ghost.volume_moves > 0 && h.can_suspend(id) {
                all.push(Ev::VolumeGoes(s, id));
            }
            let comes = match v.state() {
                State::Absent | State::Suspended => true,
                State::Failed => cfg.repaired,
                State::Waiting | State::Replaying | State::Active | State::Replica => false,
            };
            if comes {
                all.push(Ev::VolumeComes(s, id));
            }
        }
        let back = |v: &Volume| {
            matches!(v.state(), State::Waiting | State::Replaying) && v.floor().is_some()
        };
        if volumes.iter().any(|(_, v)| back(v)) {
            all.extend([Ev::Replay(s), Ev::ReplayFlush(s)]);
        }
    }

    fn failures(&self, cfg: &Config, s: usize, all: &mut Vec<Ev>) {
        let h = &self.hosts[s];
        let on = h.on();
        for (i, b) in on.batches.iter().enumerate() {
            if b.is_some() {
                all.push(Ev::BatchFails(s, i));
            }
        }
        if on.log_flush || h.can_flush_log() {
            all.push(Ev::LogFlushFails(s));
        }
        if !on.round.is_empty() {
            all.extend([Ev::RoundFails(s, false), Ev::RoundFails(s, true)]);
        }
        if !on.copying.is_empty() {
            all.push(Ev::CopyFails(s));
        }
        for id in cfg.volumes() {
            let dirty = |i: usize| cfg.volume(i) == id && !h.vols[i].cache.is_empty();
            if on.checkpoint.is_some() || (0..h.vols.len()).any(dirty) {
                all.push(Ev::DataFlushFails(s, id));
            }
        }
    }

    fn crashes(&self, cfg: &Config, s: usize, all: &mut Vec<Ev>) {
        if self.ghost.crashes[s] == 0 {
            return;
        }
        for i in 0..self.hosts[s].aftermath(true).len() {
            all.push(Ev::Cut(s, i));
        }
        if cfg.resets {
            for i in 0..self.hosts[s].aftermath(false).len() {
                all.push(Ev::Reset(s, i));
            }
        }
    }

    fn between(&self, cfg: &Config, all: &mut Vec<Ev>) {
        let session = |s: usize| self.hosts[s].on.as_ref().and_then(|o| o.session);
        let link = self.hosts[P]
            .on
            .as_ref()
            .and_then(|o| o.node.positions.get(LINK));
        let starting = matches!(self.hosts[P].pending, Some((_, Why::SessionBegan(..))));
        let runs = |s: usize| self.hosts[s].on.as_ref().is_some_and(|o| !o.is_stopped());
        if cfg.give_up
            && runs(P)
            && self.ghost.drops > 0
            && !starting
            && link.is_some_and(|l| l.may_be_given_up())
        {
            all.push(Ev::GiveUp);
        }
        if self.ghost.asks > 0 && !starting && runs(P) {
            all.push(Ev::Resync);
        }
        if cfg.withdraws
            && self.hosts[P]
                .on
                .as_ref()
                .is_some_and(|o| o.syncs.is_asked())
        {
            all.push(Ev::Withdraw);
        }
        if self.can_connect() {
            all.push(Ev::Connect);
        }
        if let Some(w) = &self.welcome {
            // Nobody vouches for it: the answer does not arrive.
            if w.ready.is_some() && self.hosts[P].on.is_some() && !w.declares_equality() {
                all.push(Ev::Ready);
            } else if self.hosts[S].on.is_some() {
                all.push(Ev::Welcomed);
            }
            if self.ghost.drops > 0 && !starting && self.hosts[P].on.is_some() {
                all.push(Ev::Drop(P));
            }
        }
        for s in [P, S] {
            // The primary of a welcome that is taken is about to enter the session.
            let awaited = self.welcome.as_ref().is_some_and(|w| w.ready.is_some());
            let alone = session(s).is_some() && session(s) != session(1 - s) && !awaited;
            // A host that cannot keep what it would acknowledge ends its session.
            let failed = s == S && session(s).is_some() && !self.hosts[s].may_follow();
            let asked = s == P && session(s).is_some() && self.hosts[P].on().syncs.is_asked();
            if alone
                || asked
                || failed
                || (session(s).is_some() && !runs(s))
                || (session(s).is_some() && self.ghost.drops > 0)
            {
                all.push(Ev::Drop(s));
            }
        }
        if self.hosts[P].on.as_ref().is_some_and(|o| o.sync_over) && self.hosts[P].pending.is_none()
        {
            all.push(Ev::SyncOver);
        }
        if session(P).is_some() {
            // Only a start reads it, or another request.
            if self.ghost.crashes[P] > 0 || self.ghost.asks > 0 {
                all.push(Ev::SyncMoved);
            }
            all.push(Ev::Send);
            all.push(Ev::RegionRead(false));
            if cfg.fine {
                all.push(Ev::RegionRead(true));
            }
        }
        if session(S).is_some() {
            all.push(Ev::Ack);
            if cfg.faults > 0 || cfg.reorder {
                all.push(Ev::AskAgain);
            }
        }
        for d in [0, 1] {
            let n = self.wires[d].len();
            let reach = if cfg.reorder { n } else { n.min(1) };
            for i in 0..reach {
                all.push(Ev::Deliver(d, i));
            }
            if self.ghost.faults > 0 {
                for i in 0..n {
                    all.push(Ev::Lose(d, i));
                    let data = matches!(self.wires[d][i].1, Msg::Record(..) | Msg::Copy(..));
                    if data && i < reach && !cfg.reorder {
                        all.push(Ev::Damage(i));
                    }
                    if n < cfg.queue {
                        all.push(Ev::Double(d, i));
                    }
                }
            }
        }
    }

    /// The state after `ev`, if it changes anything. Whoever has not seen it before [checks](World::check) it.
    fn after(&self, cfg: &Config, ev: Ev) -> Result<Option<World>, Broken> {
        let mut w = self.clone();
        Ok(w.step(cfg, ev)?.then_some(w))
    }
}

impl Report {
    fn new() -> Report {
        Report {
            states: 1,
            steps: 0,
            depth: 0,
            broken: None,
            cut_short: false,
        }
    }

    /// One line: what was seen.
    pub fn line(&self, name: &str) -> String {
        let end = if self.cut_short { " CUT SHORT" } else { "" };
        format!(
            "{name:<40} {:>9} states {:>10} steps, depth {:>3}{end}",
            self.states, self.steps, self.depth
        )
    }

    /// What broke, and how it came to it; empty where nothing did.
    pub fn trace(&self) -> String {
        let Some((text, path)) = &self.broken else {
            return String::new();
        };
        let mut s = format!("  broken: {text}\n");
        for ev in path {
            s += &format!("    {ev}\n");
        }
        s
    }
}

/// Passes on a state and whether it is new, checked then: what was seen before was checked before.
fn checked(
    cfg: &Config,
    after: Result<Option<World>, Broken>,
    new: impl FnOnce(&World) -> bool,
) -> Result<Option<(World, bool)>, String> {
    let Some(next) = after.map_err(|b| b.0)? else {
        return Ok(None);
    };
    let is_new = new(&next);
    if is_new {
        next.check(cfg).map_err(|b| b.0)?;
    }
    Ok(Some((next, is_new)))
}

/// Visits every state, depth first; memory is one hash a state.
pub fn exhaust(cfg: &Config, limit: usize) -> Report {
    let mut seen = Seen::default();
    let start = begin(cfg);
    seen.insert(key(&start));
    let mut report = Report::new();
    let mut stack: Vec<(World, Vec<Ev>, bool)> = Vec::new();
    let mut path: Vec<Ev> = Vec::new();
    let events = start.events(cfg);
    stack.push((start, events, false));
    while let Some((world, events, moves)) = stack.last_mut() {
        let Some(ev) = events.pop() else {
            if cfg.live && !*moves {
                if let Err(b) = world.at_rest(cfg) {
                    report.broken = Some((b.0, path));
                    return report;
                }
            }
            stack.pop();
            path.pop();
            continue;
        };
        report.steps += 1;
        let after = world.after(cfg, ev);
        let new = |w: &World| seen.insert(key(w));
        match checked(cfg, after, new) {
            Ok(None) => {}
            Ok(Some((next, is_new))) => {
                *moves |= !ev.is_fault() && next != *world;
                if is_new {
                    report.states += 1;
                    if report.states >= limit {
                        report.cut_short = true;
                        return report;
                    }
                    let events = next.events(cfg);
                    path.push(ev);
                    report.depth = report.depth.max(path.len());
                    stack.push((next, events, false));
                }
            }
            Err(text) => {
                path.push(ev);
                report.broken = Some((text, path));
                return report;
            }
        }
    }
    report
}

/// Breadth first: the first trace found is a shortest one.
pub fn shortest(cfg: &Config, limit: usize) -> Report {
    let mut seen = Seen::default();
    let start = begin(cfg);
    seen.insert(key(&start));
    let mut report = Report::new();
    let mut from: Vec<(u32, Ev)> = vec![(0, Ev::App)];
    let mut layer = vec![(0u32, start)];
    while !layer.is_empty() {
        report.depth += 1;
        let mut next_layer = Vec::new();
        for (at, world) in layer {
            let mut moves = !cfg.live;
            for ev in world.events(cfg) {
                report.steps += 1;
                let after = world.after(cfg, ev);
                let new = |w: &World| seen.insert(key(w));
                match checked(cfg, after, new) {
                    Ok(None) => {}
                    Ok(Some((next, is_new))) => {
                        moves |= !ev.is_fault() && next != world;
                        if is_new {
                            report.states += 1;
                            from.push((at, ev));
                            next_layer.push((from.len() as u32 - 1, next));
                        }
                    }
                    Err(text) => {
                        let mut path = way(&from, at);
                        path.push(ev);
                        report.broken = Some((text, path));
                        return report;
                    }
                }
            }
            if !moves {
                if let Err(b) = world.at_rest(cfg) {
                    report.broken = Some((b.0, way(&from, at)));
                    return report;
                }
            }
            if report.states >= limit {
                report.cut_short = true;
                return report;
            }
        }
        layer = next_layer;
    }
    report
}

/// The events that led to a state, by each state's predecessor.
fn way(from: &[(u32, Ev)], mut at: u32) -> Vec<Ev> {
    let mut path = Vec::new();
    while at != 0 {
        let (parent, ev) = from[at as usize];
        path.push(ev);
        at = parent;
    }
    path.reverse();
    path
}

/// Walks at random, `walks` times, each until nothing can happen or `deep` steps.
pub fn wander(cfg: &Config, seed: u64, walks: usize, deep: usize) -> Report {
    let mut seen = Seen::default();
    let mut report = Report::new();
    // Small seeds differ in a few bits only, and 0 would stay 0.
    let mut seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
    let mut roll = move |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % n.max(1) as u64) as usize
    };
    for _ in 0..walks {
        let mut world = begin(cfg);
        let mut path = Vec::new();
        while path.len() < deep {
            let mut events = world.events(cfg);
            // Crashes have many outcomes; they must not crowd out everything else.
            let calm: Vec<Ev> = events
                .iter()
                .copied()
                .filter(|e| !matches!(e, Ev::Cut(..) | Ev::Reset(..) | Ev::TakeOver))
                .collect();
            if !calm.is_empty() && roll(12) != 0 {
                events = calm;
            }
            let mut next = None;
            while next.is_none() && !events.is_empty() {
                let ev = events.swap_remove(roll(events.len()));
                report.steps += 1;
                // What panics has a way that led there, too.
                let after = catch_unwind(AssertUnwindSafe(|| {
                    let after = world.after(cfg, ev);
                    checked(cfg, after, |w| seen.insert(key(w)))
                }));
                match after.unwrap_or_else(|_| Err("it panicked, see above".into())) {
                    Ok(n) => next = n.map(|(w, is_new)| (ev, w, is_new)),
                    Err(text) => {
                        path.push(ev);
                        report.broken = Some((text, path));
                        return report;
                    }
                }
            }
            let Some((ev, w, is_new)) = next else { break };
            path.push(ev);
            report.states += usize::from(is_new);
            world = w;
        }
        report.depth = report.depth.max(path.len());
    }
    report
}
