// SPDX-License-Identifier: GPL-2.0

//! The promises, checked in every state: not only what is, but what a power cut now would leave.

use replicate_core::{
    log::recovery::Outcome,
    node::{durable::grow::Limits, volumes::State, Log},
    session::meet::{Verdict, Why as Reason},
    units::{Record, Seq},
};

use crate::{
    config::{Config, Op},
    disk::{Value, GARBAGE},
    host::{wid, writes_of, Host},
    link::image,
    world::{broken, Broken, World, P, S},
};

type Check = Result<(), Broken>;

fn seq_of(hist: &[Record], v: Value) -> Option<Seq> {
    if v == 0 {
        return Some(Seq::NONE);
    }
    hist.iter().find(|r| wid(r) == v).map(|r| r.seq)
}

/// Last record that writes block `b` at or below `upto`.
fn last_writer(cfg: &Config, hist: &[Record], b: usize, upto: Seq) -> Seq {
    let mut last = Seq::NONE;
    for r in hist.iter().take_while(|r| r.seq <= upto) {
        if writes_of(cfg, r).iter().any(|w| w.0 == b) {
            last = r.seq;
        }
    }
    last
}

impl Host {
    /// Values that block `b` may have after a power cut, or has now.
    fn possible(&self, b: usize) -> Vec<Value> {
        let mut all: Vec<Value> = self.vols[b].possible().collect();
        if let Some(on) = &self.on {
            all.extend(
                on.round
                    .iter()
                    .chain(&on.copying)
                    .filter(|w| w.0 == b)
                    .map(|w| w.1),
            );
        }
        all
    }

    /// Last record that a power cut cannot take from this host.
    pub fn durable_head(&self) -> Option<Seq> {
        if self.ring {
            self.scan(false).head()
        } else {
            Some(self.sb.applied)
        }
    }

    fn is_off_duty(&self) -> bool {
        self.sb.inconsistent
    }
}

impl World {
    /// Every promise that can be checked in this state.
    pub fn check(&self, cfg: &Config) -> Check {
        if self.ghost.taken || self.ghost.damaged {
            return Ok(());
        }
        if self.hosts.iter().any(|h| h.left.is_some()) {
            // What counts is what a start would find.
            let mut found = self.clone();
            for h in &mut found.hosts {
                if let Some(sb) = h.left.clone() {
                    (h.sb, h.left) = (sb, None);
                }
            }
            return found.check(cfg);
        }
        let hist = &self.ghost.hist;
        let p = &self.hosts[P];
        let found = p.scan(false);
        let Outcome::Head { head: safe, .. } = found.outcome else {
            return broken("P4: a power cut of the primary now would make its log look corrupt: what it had called durable is gone");
        };
        self.own_log(p, &found.records, hist, "primary")?;
        // P1
        for r in hist.iter().filter(|r| r.seq > safe) {
            if self.ghost.owed & (1 << wid(r)) != 0 {
                return broken(format!(
                    "P1: write {} was promised to be durable; a power cut now would lose it",
                    wid(r)
                ));
            }
        }
        self.recoverable(cfg, p, hist, safe, "primary")?;
        if cfg.peer.is_some() {
            self.replica(cfg, safe)?;
            self.freed()?;
        }
        Ok(())
    }

    fn own_log(&self, h: &Host, records: &[Record], hist: &[Record], who: &str) -> Check {
        for r in records {
            if hist.get(r.seq.0 as usize - 1) != Some(r) {
                return broken(format!(
                    "P4: the {who}'s log holds another record {} than the order",
                    r.seq
                ));
            }
        }
        let _ = h;
        Ok(())
    }

    /// Volumes plus log give one point of the order, whatever a power cut keeps of the caches.
    fn recoverable(&self, cfg: &Config, h: &Host, hist: &[Record], safe: Seq, who: &str) -> Check {
        let most = h.scan(true).head();
        let Some(most) = most else {
            return broken(format!(
                "P4: a reset of the {who} now would make its log look corrupt: what it had called durable is not in this history"
            ));
        };
        let applied = h.sb.applied;
        if safe < applied {
            return broken(format!(
                "P4: the {who}'s volumes are at {applied}, its log would end at {safe}"
            ));
        }
        let mut head = safe;
        while head <= most.max(safe) {
            for b in 0..cfg.blocks.len() {
                let writer = last_writer(cfg, hist, b, head);
                if writer > applied {
                    continue;
                }
                for v in h.possible(b) {
                    if seq_of(hist, v) != Some(writer) {
                        return broken(format!(
                            "P3/P4: after a power cut of the {who} with log end {head}, block {b} may hold write {v}, the order says that of record {writer}"
                        ));
                    }
                }
            }
            head = head.next();
        }
        Ok(())
    }

    fn replica(&self, cfg: &Config, safe: Seq) -> Check {
        if self.ghost.declared {
            return Ok(());
        }
        let s = &self.hosts[S];
        let hist = &self.ghost.hist;
        // P4: nothing is on the replica that the primary could still lose.
        if !self.ghost.took {
            for b in 0..cfg.blocks.len() {
                for v in s.possible(b) {
                    let garbage = v == GARBAGE && (s.is_off_duty() || s.sb.line.is_empty());
                    match seq_of(hist, v) {
                        _ if garbage => {}
                        None => {
                            return broken(format!(
                                "P4: the replica's block {b} may hold write {v}, which the primary lost or never had"
                            ));
                        }
                        Some(seq) if seq > safe => {
                            return broken(format!(
                                "P4: the replica's block {b} may hold record {seq}, which a power cut of the primary now would take"
                            ));
                        }
                        Some(_) => {}
                    }
                }
            }
        }
        if s.sb.line.is_empty() || s.is_off_duty() {
            return Ok(());
        }
        let mut first = None;
        for hist in std::iter::once(hist).chain(self.ghost.pasts.iter().map(|p| &*p.hist)) {
            match self.true_past(cfg, s, hist) {
                Ok(()) => return Ok(()),
                Err(e) => first = first.or(Some(e)),
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// The replica is, and would recover to, a state of this history.
    fn true_past(&self, cfg: &Config, s: &Host, hist: &[Record]) -> Check {
        if let Some(on) = &s.on {
            let still = on.node.applier.round().is_none();
            let redo = matches!(&on.node.log, Log::NoRing(n) if n.redo.is_some());
            let applied = on.node.applier.applied();
            // After a restart with caches kept the volumes are ahead of the replay.
            let replaying = s.ring && applied < on.replay;
            if still && !redo && !replaying && (s.ring || !on.failed) {
                let mut now: Vec<Value> = s.vols.iter().map(|b| b.current()).collect();
                let image = image(cfg, hist, applied);
                for b in 0..now.len() {
                    // What a volume lacks is in the log, and it serves nothing before it has it.
                    let v = on.node.volumes.get(cfg.volume(b));
                    if v.is_some_and(|v| v.floor().is_some() && v.state() != State::Replica) {
                        now[b] = image[b];
                    }
                }
                if now != image {
                    return broken(format!(
                        "P3/P7: the replica, quiesced at {applied}, holds writes {now:?} instead of {:?}",
                        image
                    ));
                }
            }
        }
        if s.ring {
            let found = s.scan(false);
            let Outcome::Head { head, .. } = found.outcome else {
                return broken("P4: a power cut of the secondary now would make its log look corrupt: what it had called durable is gone");
            };
            self.own_log(s, &found.records, hist, "secondary")?;
            return self.recoverable(cfg, s, hist, head, "secondary");
        }
        if s.sb.redo {
            return Ok(());
        }
        self.closed(cfg, s, hist)
    }

    /// Without a ring: whatever a power cut leaves is everything up to some `depends_on`, and some of what
    /// was concurrent with it.
    fn closed(&self, cfg: &Config, s: &Host, hist: &[Record]) -> Check {
        for a in 0..cfg.blocks.len() {
            for v in s.possible(a) {
                let Some(seq) = seq_of(hist, v) else {
                    return broken(format!(
                        "P3: block {a} may hold write {v} of another history"
                    ));
                };
                if seq == Seq::NONE {
                    continue;
                }
                let depends = self.ghost.depends[usize::from(v)];
                for b in (0..cfg.blocks.len()).filter(|b| *b != a) {
                    let needs = last_writer(cfg, hist, b, depends);
                    for u in s.possible(b) {
                        if seq_of(hist, u).is_none_or(|u| u < needs) {
                            return broken(format!(
                                "P3: a power cut of the secondary now may leave record {seq} in block {a}, and in block {b} something older than record {needs}, which it depends on"
                            ));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// P5: what the primary's log gave up is durable at the peer, or the link says that it needs a sync.
    fn freed(&self) -> Check {
        let (p, s) = (&self.hosts[P], &self.hosts[S]);
        let oldest = p.on.as_ref().map_or(p.sb.tail.first, |on| on.node.oldest());
        // Only what is durable counts: it must still be known after a crash that the peer needs a sync.
        let needs_sync = p.sb.kept.is_none();
        if needs_sync || s.sb.line.is_empty() {
            return Ok(());
        }
        let log = if s.ring {
            s.scan(false).records.clone()
        } else {
            Vec::new()
        };
        // A sync that begins gives up what is below its start: the replica starts there, or stays inconsistent.
        let mut seq = s.sb.applied.max(self.ghost.sync_start).next();
        while seq < oldest {
            let ours = self.ghost.hist.get(seq.0 as usize - 1);
            if !log.iter().any(|r| Some(r) == ours) {
                return broken(format!(
                    "P5: the primary's log gave up record {seq}, and the peer has not got it on stable storage"
                ));
            }
            seq = seq.next();
        }
        Ok(())
    }

    /// P9, P10: nothing happens any more unless something else fails, so every write has been taken, and has completed.
    pub fn at_rest(&self, cfg: &Config) -> Check {
        let Some(on) = &self.hosts[P].on else {
            return Ok(());
        };
        if self.ghost.taken || on.node.has_failed() {
            return Ok(());
        }
        for (id, v) in on.node.volumes.iter() {
            if matches!(v.state(), State::Waiting | State::Replaying) {
                return broken(format!("P9: volume {} waits for ever", id.0));
            }
        }
        let next = cfg.script.get(usize::from(self.ghost.script));
        let away = |from: usize| {
            let state = on.node.volumes.state(cfg.volume(from));
            matches!(state, State::Absent | State::Suspended)
        };
        let waits = next.is_some_and(|op| match *op {
            Op::Write { from, .. } => !away(from),
            Op::Flush => true,
        });
        if waits {
            return broken(format!(
                "P10: the application's step {} waits for ever",
                self.ghost.script
            ));
        }
        let open =
            self.ghost.hist.iter().find(|r| {
                r.seq > self.ghost.recovered && self.ghost.completed & (1 << wid(r)) == 0
            });
        match open {
            Some(r) => broken(format!("P9: write {} never completes", wid(r))),
            None => Ok(()),
        }
    }

    /// After a takeover: the image, what it contains, and that the old primary is refused.
    pub fn check_takeover(&self, cfg: &Config, end: Seq) -> Check {
        let s = &self.hosts[S];
        let on = s.on();
        let applied = on.node.applier.applied();
        let chosen = std::iter::once(&self.ghost.hist)
            .chain(self.ghost.pasts.iter().map(|p| &*p.hist))
            .find(|hist| {
                // Its volumes, and what it still replays.
                let mut now: Vec<Value> = s.vols.iter().map(|b| b.current()).collect();
                let log = s.scan(true);
                for (id, v) in on.node.volumes.iter() {
                    let lacks = v.floor().unwrap_or(applied);
                    let its =
                        |r: &&Record| r.seq > lacks && r.seq <= applied && r.range.volume == id;
                    for r in log.records.iter().filter(its) {
                        for (b, v) in writes_of(cfg, r) {
                            now[b] = v;
                        }
                    }
                }
                let mut seq = applied.next();
                while seq <= end {
                    let Some(record) = s.record(seq) else {
                        return false;
                    };
                    for (b, v) in writes_of(cfg, &record) {
                        now[b] = v;
                    }
                    seq = seq.next();
                }
                // Without a ring and before a redo the image is used as it is.
                let torn = !s.ring && s.sb.horizon > end;
                let exact = now == image(cfg, hist, end);
                (end.0 as usize) <= hist.len()
                    && (exact || torn)
                    && (s.ring || self.closed(cfg, s, hist).is_ok())
            });
        let Some(hist) = chosen else {
            return broken(format!(
                "P3: the image of the takeover at {end} is no point of the order"
            ));
        };
        let received = cfg.mode == replicate_core::group::Mode::Received;
        // What completed in-sync in the history that the replica followed: the primary's, as of the last of
        // its recoveries that the replica has learnt of. The newest epoch is the takeover's own.
        let known = s.sb.line.iter().rev().nth(1).map_or(0, |e| e.0);
        let unheard = self.ghost.pasts.iter().find(|p| p.epoch > known);
        let synced = unheard.map_or(self.ghost.synced, |p| p.synced);
        if end < synced && !(received && self.ghost.forgot) {
            return broken(format!(
                "P3: {synced} completed in-sync, the takeover ends at {end}"
            ));
        }
        self.old_primary_returns(hist, end)
    }

    /// P8: the old primary, as it is or after its own recovery, is refused; or as a secondary drops only
    /// what it never applied.
    fn old_primary_returns(&self, hist: &[Record], end: Seq) -> Check {
        let mut old = self.hosts[P].clone();
        let head = old.durable_head().unwrap_or_default();
        for recovered in [false, true] {
            if recovered {
                let sb = old
                    .sb
                    .begin_life(head, 200, Limits::FORMAT)
                    .map_err(Broken)?;
                let Some(sb) = sb else {
                    continue;
                };
                old.sb = sb;
            }
            match self.judgement(&old, &self.hosts[S], head, Seq(1), |seq| {
                Some(self.chain_at(seq))
            }) {
                Verdict::Refuse(Reason::Forked | Reason::PeerAhead | Reason::Unrelated) => {}
                v => {
                    return broken(format!(
                        "P8: the old primary meets a host that took over: {v:?}"
                    ))
                }
            }
        }
        let Some(_) = &self.hosts[P].on else {
            return Ok(());
        };
        let verdict = self.judgement(&self.hosts[S], &self.hosts[P], end, Seq(1), |seq| {
            Some(self.chain_at(seq))
        });
        if let Verdict::Resume { fork, .. } = verdict {
            let ahead =
                self.ghost.hist.get(..fork.seq.0 as usize) != hist.get(..fork.seq.0 as usize);
            if self.hosts[P].on().node.applied_bound() > fork.seq || ahead {
                return broken("P8: the old primary would follow with a history of its own");
            }
        }
        Ok(())
    }
}
