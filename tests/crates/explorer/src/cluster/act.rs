// SPDX-License-Identifier: GPL-2.0

//! What happens to a cluster, one event at a time.

use std::rc::Rc;

use replicate_core::{
    group::{Replica, Volume},
    lineage::{Before, Entry, Epoch as Entered, Lineage, Reason},
    node::{apply::Apply, inbound::Refused, links::LinkId, secondary::Terms, Log, Role},
    session::{
        meet::{judge, may_adopt, Peer, Primary, Succession, Verdict, Why},
        receiver::{progress, End as Ended, Fate, Meaning, Next, Receiver, Reply},
        same_session,
        sender::{Send, Sender, Told},
        SessionId,
    },
    units::{Op, Position, Range, Sector, Seq, VolumeId},
    wire::{Envelope, Message},
};

use super::{Cluster, End, Ev, Laid, Line, Msg, State, Welcome, BLOCKS};
use crate::{
    config::BLOCK_SECTORS,
    host::wid,
    link::SUPPLY,
    sb::epoch_id,
    world::{broken, Broken, Step},
};

fn entries(line: &Line) -> Vec<Entry> {
    let entry = |e: &super::Epoch| {
        Entry::from(Entered {
            id: epoch_id(e.0),
            first: Seq(e.1),
            reason: if e.2 {
                Reason::TookOver
            } else {
                Reason::Recovered
            },
            ..Entered::default()
        })
    };
    line.0.iter().map(entry).collect()
}

fn lineage(entries: &[Entry]) -> Lineage<'_> {
    Lineage::new(Before::default(), entries).expect("a lineage")
}

fn id(link: usize) -> LinkId {
    LinkId(link as u8)
}

/// The one volume.
fn volume() -> Volume {
    Volume {
        size: Sector(BLOCKS as u64 * u64::from(BLOCK_SECTORS)),
        ..Volume::default()
    }
}

impl State {
    /// The primary and the secondary of a link, if it has one of each, running.
    fn ends(&self, cfg: &Cluster, l: usize) -> Option<(usize, usize)> {
        let (a, b) = cfg.links[l];
        let role = |h: usize| Some(self.hosts[h].on.as_ref()?.node.role());
        match (role(a)?, role(b)?) {
            (Role::Primary, Role::Secondary) => Some((a, b)),
            (Role::Secondary, Role::Primary) => Some((b, a)),
            _ => None,
        }
    }

    /// Everything that may happen now; some of it turns out to change nothing.
    pub fn events(&self, cfg: &Cluster) -> Vec<Ev> {
        let mut all = Vec::with_capacity(32);
        let t = &self.truth;
        for (h, host) in self.hosts.iter().enumerate() {
            let Some(on) = &host.on else {
                all.push(Ev::Boot(h));
                continue;
            };
            if on.node.role() == Role::Primary && t.writes[h] > 0 {
                all.push(Ev::Write(h));
            }
            all.extend([Ev::Log(h), Ev::Apply(h)]);
            if on.taking.is_some() {
                all.push(Ev::TakenOver(h));
            } else if t.takeovers > 0 && on.node.role() == Role::Secondary && !on.node.has_failed()
            {
                all.push(Ev::TakeOver(h));
            }
            if t.log_errors > 0 && !on.node.has_failed() && on.node.role() == Role::Secondary {
                all.push(Ev::LogFails(h));
            }
            if t.crashes > 0 {
                all.push(Ev::Crash(h));
            }
        }
        for (l, w) in self.wires.iter().enumerate() {
            if cfg.cuts.contains(&l) && !w.cut {
                all.push(Ev::Cut(l));
            }
            if w.welcome.as_ref().is_some_and(|w| w.taken_up) {
                all.push(Ev::Adopt(l));
            } else if w.welcome.is_some() {
                all.push(Ev::TakeUp(l));
            } else {
                all.push(Ev::Connect(l));
            }
            let (a, b) = cfg.links[l];
            for h in [a, b] {
                if self.end(h, l).is_some() {
                    all.extend([Ev::Send(l), Ev::Ack(l), Ev::Lose(l, h)]);
                }
            }
            for side in [0, 1] {
                if !w.to[side].is_empty() {
                    all.push(Ev::Deliver(l, side));
                }
            }
        }
        all.dedup();
        all
    }

    pub fn end(&self, h: usize, l: usize) -> Option<&End> {
        self.hosts[h].on.as_ref()?.ends[l].as_ref()
    }

    pub fn step(&mut self, cfg: &Cluster, ev: Ev) -> Step {
        let done = self.act(cfg, ev)?;
        if done {
            self.settle(cfg)?;
        }
        Ok(done)
    }

    fn act(&mut self, cfg: &Cluster, ev: Ev) -> Step {
        match ev {
            Ev::Write(h) => Ok(self.write(h)),
            Ev::Log(h) => Ok(self.log(h)),
            Ev::LogFails(h) => Ok(self.log_fails(h)),
            Ev::Apply(h) => Ok(self.apply(h)),
            Ev::Crash(h) => {
                self.truth.crashes -= 1;
                for (l, ends) in cfg.links.iter().enumerate() {
                    if ends.0 == h || ends.1 == h {
                        self.forget(cfg, l, h);
                    }
                }
                self.host(h).on = None;
                Ok(true)
            }
            Ev::Boot(h) => {
                let epoch = self.truth.next_epoch;
                let host = self.host(h);
                if host.primary {
                    let first = host.durable().next();
                    host.line.0.push((epoch, first.0, false));
                    self.truth.next_epoch += 1;
                }
                self.host(h).boot(cfg);
                Ok(true)
            }
            Ev::TakeOver(h) => self.take_over(cfg, h),
            Ev::TakenOver(h) => self.taken_over(h),
            Ev::Connect(l) => self.connect(cfg, l),
            Ev::TakeUp(l) => self.take_up(l),
            Ev::Adopt(l) => self.adopt(l),
            Ev::Send(l) => Ok(self.send(cfg, l)),
            Ev::Deliver(l, side) => self.deliver(cfg, l, side),
            Ev::Ack(l) => self.acknowledge(cfg, l),
            Ev::Lose(l, h) => {
                let (a, b) = cfg.links[l];
                let other = if h == a { b } else { a };
                let session = |h| self.end(h, l).map(End::session);
                let alone = session(h) != session(other);
                if !alone && !self.wires[l].cut {
                    if self.truth.losses == 0 {
                        return Ok(false);
                    }
                    self.truth.losses -= 1;
                }
                self.forget(cfg, l, h);
                Ok(true)
            }
            Ev::Cut(l) => {
                let w = &mut self.wires[l];
                w.cut = true;
                w.to = Default::default();
                if let Some(to) = w.welcome.take().filter(|w| w.taken_up).map(|w| w.to) {
                    self.adoption_failed(to, l);
                }
                Ok(true)
            }
        }
    }

    /// The end of link `l` at host `h` is gone, and what was under way on it.
    fn forget(&mut self, cfg: &Cluster, l: usize, h: usize) {
        let (a, _) = cfg.links[l];
        let me = usize::from(h != a);
        self.wires[l].to[me].clear();
        if let Some(w) = self.wires[l].welcome.take() {
            if w.taken_up {
                self.adoption_failed(w.to, l);
            }
        }
        if self.end(h, l).is_none() {
            return;
        }
        let on = self.host(h).on_mut();
        on.ends[l] = None;
        on.node.positions.disconnected(id(l));
        on.node.inbound_ended(id(l));
    }

    fn adoption_failed(&mut self, h: usize, l: usize) {
        if self.hosts[h].on.is_some() {
            self.host(h).on_mut().node.adoption_failed(id(l));
        }
    }

    fn write(&mut self, h: usize) -> bool {
        let n = self.truth.writes[h];
        let value = self.truth.next_wid;
        let range = Range {
            volume: VolumeId(0),
            sector: Sector(u64::from(n % 2) * u64::from(BLOCK_SECTORS)),
            sectors: BLOCK_SECTORS,
        };
        let host = self.host(h);
        let on = host.on_mut();
        if on.node.is_replaying() {
            return false;
        }
        while on.node.open_volume().is_some() {}
        let Ok(seq) = on
            .node
            .admit(Op::Write, range, false, false, u32::from(value), 0)
        else {
            return false;
        };
        let record = on.node.window.get(seq).expect("just admitted").record;
        let key = (host.line.at(seq), seq.0);
        Rc::make_mut(&mut self.truth.hist).insert(key, record);
        self.truth.next_wid += 1;
        self.truth.writes[h] -= 1;
        true
    }

    fn log(&mut self, h: usize) -> bool {
        let host = &self.hosts[h];
        let line = host.line.clone();
        let mut node = host.on().node.clone();
        let Some(plan) = node.plan_batch(&line) else {
            return false;
        };
        let range = plan.first.0..=plan.last.0;
        let record = |s| node.window.get(Seq(s)).expect("in memory").record;
        let records = range.map(record).collect();
        node.batch_done(plan.id, true);
        let host = self.host(h);
        host.on_mut().node = node;
        host.log.push(Laid {
            mark: replicate_core::log::ring::Mark {
                first: plan.first,
                place: plan.place,
                chain: plan.chain,
            },
            length: plan.length.0,
            records,
        });
        true
    }

    fn log_fails(&mut self, h: usize) -> bool {
        let host = &self.hosts[h];
        let line = host.line.clone();
        let mut node = host.on().node.clone();
        let Some(plan) = node.plan_batch(&line) else {
            return false;
        };
        node.batch_done(plan.id, false);
        let host = self.host(h);
        host.failed_at = Some(node.head());
        host.on_mut().node = node;
        self.truth.log_errors -= 1;
        true
    }

    fn apply(&mut self, h: usize) -> bool {
        let mut node = self.hosts[h].on().node.clone();
        let Some(Apply::Round { first, last }) = node.plan_apply() else {
            return false;
        };
        let mut vol = self.hosts[h].vol;
        for s in first.0..=last.0 {
            let slot = node.window.get(Seq(s)).expect("in memory until applied");
            let block = slot.record.range.sector.0 / u64::from(BLOCK_SECTORS);
            vol[block as usize] = wid(&slot.record);
        }
        node.round_done();
        let host = self.host(h);
        host.on_mut().node = node;
        host.vol = vol;
        true
    }

    fn take_over(&mut self, cfg: &Cluster, h: usize) -> Step {
        // Refused while connected, unless forced: here it waits for the loss.
        if self.hosts[h].on().ends.iter().any(Option::is_some) {
            return Ok(false);
        }
        for (l, ends) in cfg.links.iter().enumerate() {
            if ends.0 == h || ends.1 == h {
                self.forget(cfg, l, h);
            }
        }
        self.truth.takeovers -= 1;
        let on = self.host(h).on_mut();
        on.taking = Some(on.node.takeover_begin());
        self.check_takeover(cfg, h)?;
        Ok(true)
    }

    fn taken_over(&mut self, h: usize) -> Step {
        let epoch = self.truth.next_epoch;
        let host = self.host(h);
        let end = host.on().taking.expect("begun");
        if !host.on().node.takeover_ready(end) {
            return Ok(false);
        }
        let first = end.next();
        // As the core's lineage does: what it adopted and has no record of is another history.
        host.line.0.retain(|e| e.1 <= first.0);
        host.line.0.push((epoch, first.0, true));
        host.primary = true;
        let on = host.on_mut();
        on.node.takeover_done(end);
        on.taking = None;
        self.truth.next_epoch += 1;
        Ok(true)
    }

    fn idle_link(&self, cfg: &Cluster, l: usize) -> Option<(usize, usize)> {
        let (p, s) = self.ends(cfg, l)?;
        let free = |h: usize| {
            let on = self.hosts[h].on();
            on.ends[l].is_none() && on.taking.is_none()
        };
        let w = &self.wires[l];
        (!w.cut && w.welcome.is_none() && free(p) && free(s)).then_some((p, s))
    }

    /// What the primary of a link says to its secondary.
    pub fn verdict(&self, p: usize, s: usize) -> Verdict {
        let (ours, theirs) = (&self.hosts[p], &self.hosts[s]);
        let node = &theirs.on().node;
        let logged = node.logged_end().unwrap_or_default();
        let (mine, peer) = (entries(&ours.line), entries(&theirs.line));
        let stated = Peer {
            lineage: lineage(&peer),
            replica: Replica::Consistent,
            logged: Position {
                epoch: epoch_id(theirs.line.at(logged.seq)),
                seq: logged.seq,
            },
            chain: logged.chain,
            applied_bound: node.applied_bound(),
            syncing: false,
        };
        let primary = Primary {
            lineage: lineage(&mine),
            head: ours.on().node.head(),
            oldest: ours.on().node.oldest().min(Seq(1)),
        };
        judge(&primary, &stated, |seq| self.chain(&ours.line, seq))
    }

    fn connect(&mut self, cfg: &Cluster, l: usize) -> Step {
        let Some((p, s)) = self.idle_link(cfg, l) else {
            return Ok(false);
        };
        if self.hosts[s].on().node.has_failed() {
            return Ok(false);
        }
        let stated = self.hosts[s].on().node.stated();
        let Verdict::Resume {
            fork,
            fork_chain,
            resume,
        } = self.verdict(p, s)
        else {
            return Ok(false);
        };
        // What is refused for good is not asked again: it would be the same answer.
        if self
            .refusal(p, s, fork.seq, fork_chain, resume, l)
            .is_some()
        {
            return Ok(false);
        }
        let from = resume.prev();
        let line = self.hosts[p].line.clone();
        let node = &mut self.host(p).on_mut().node;
        node.positions.promise(id(l), from);
        self.wires[l].welcome = Some(Welcome {
            session: self.truth.next_session,
            from: p,
            to: s,
            line,
            fork: fork.seq,
            fork_chain,
            resume,
            stated,
            taken_up: false,
        });
        self.truth.next_session += 1;
        Ok(true)
    }

    /// Why the secondary would not take a welcome with these terms now.
    pub fn refusal(
        &self,
        p: usize,
        s: usize,
        fork: Seq,
        fork_chain: Option<replicate_core::units::Chain>,
        resume: Seq,
        l: usize,
    ) -> Option<String> {
        let (ours, theirs) = (entries(&self.hosts[s].line), entries(&self.hosts[p].line));
        let node = &self.hosts[s].on().node;
        let succession = match may_adopt(&lineage(&ours), &lineage(&theirs), false) {
            Ok(succession) => succession,
            Err(why) => return Some(format!("{why:?}")),
        };
        let terms = terms(succession, fork, fork_chain, resume);
        if let Err(why) = node.check_terms(&terms) {
            return Some(format!("{why:?}"));
        }
        let mut node = node.clone();
        let stated = node.stated();
        let taken = node.adoption_begins(id(l), stated, succession);
        taken.err().map(|why| format!("{why:?}"))
    }

    fn take_up(&mut self, l: usize) -> Step {
        let w = self.wires[l].welcome.clone().expect("a welcome");
        let (ours, theirs) = (entries(&self.hosts[w.to].line), entries(&w.line));
        let succession = may_adopt(&lineage(&ours), &lineage(&theirs), false);
        let node = &mut self.host(w.to).on_mut().node;
        let taken = succession.is_ok_and(|succession| {
            let terms = terms(succession, w.fork, w.fork_chain, w.resume);
            node.check_terms(&terms).is_ok()
                && node.adoption_begins(id(l), w.stated, succession).is_ok()
        });
        match &mut self.wires[l].welcome {
            Some(w) if taken => w.taken_up = true,
            other => *other = None,
        }
        Ok(true)
    }

    fn adopt(&mut self, l: usize) -> Step {
        let w = self.wires[l].welcome.clone().expect("a welcome");
        let (ours, theirs) = (entries(&self.hosts[w.to].line), entries(&w.line));
        let Ok(succession) = may_adopt(&lineage(&ours), &lineage(&theirs), false) else {
            return broken("the lineage changed while a welcome was taken up");
        };
        let terms = terms(succession, w.fork, w.fork_chain, w.resume);
        let host = self.host(w.to);
        let node = &mut host.on.as_mut().expect("up").node;
        if !node.may_adopt() {
            return Ok(false);
        }
        let Log::Ring(writer) = &node.log else {
            return Ok(false);
        };
        if !node.has_failed() && writer.logged_head() < node.window.head() {
            return Ok(false);
        }
        if node.has_failed() || node.check_terms(&terms).is_err() {
            node.adoption_failed(id(l));
            self.wires[l].welcome = None;
            return Ok(true);
        }
        let rescan = node.must_rescan(w.fork);
        for laid in &mut host.log {
            laid.records.retain(|r| r.seq <= w.fork);
        }
        host.log.retain(|l| !l.records.is_empty());
        host.line = w.line.clone();
        let end = rescan.then(|| (host.place(), host.chain()));
        let node = &mut host.on.as_mut().expect("up").node;
        if !node.truncate(w.fork, end) {
            return broken("P4: the replica applied what its primary does not have");
        }
        let session = SessionId::from_wire(u64::from(w.session)).expect("a number");
        let Some(owner) = node.session_began(id(l), session) else {
            return broken("an adoption that nobody ended has ended");
        };
        let acks = node.acks();
        let mut receiver = Receiver::new(owner, w.resume, w.fork);
        receiver.grow_credit(node, &SUPPLY);
        let credit = receiver.credit();
        host.on_mut().ends[l] = Some(End::Receiver {
            session: w.session,
            epoch: w.line.0.last().map_or(0, |e| e.0),
            receiver,
        });
        self.wires[l].welcome = None;
        let last = w.resume.prev();
        let primary = self.host(w.from);
        let Some(on) = primary.on.as_mut().filter(|on| on.ends[l].is_none()) else {
            return Ok(true);
        };
        let mut sender = Sender::new(id(l), w.resume, acks.received, None);
        sender.set_credit(credit.seq, credit.byte);
        if !on.node.positions.keep_promise(id(l), false) {
            return broken("P5: a peer is welcomed to what the log no longer keeps for it");
        }
        on.node
            .positions
            .session(id(l), last, last, last.min(acks.applied));
        on.ends[l] = Some(End::Sender(w.session, sender));
        self.check_levels(w.from, w.to, acks.received)?;
        Ok(true)
    }

    fn send(&mut self, cfg: &Cluster, l: usize) -> bool {
        let (a, b) = cfg.links[l];
        let mut sent = false;
        for (h, side) in [(a, 1), (b, 0)] {
            let Some(End::Sender(session, sender)) = self.end(h, l).cloned() else {
                continue;
            };
            if self.wires[l].to[side].len() >= cfg.queue || self.wires[l].cut {
                continue;
            }
            let mut sender = sender;
            let node = &self.hosts[h].on().node;
            let told = Told::now(node, id(l));
            let msg = match sender.next(node, std::iter::empty()) {
                Send::Record(seq) => {
                    let line = &self.hosts[h].line;
                    let record = self.record(line, seq).expect("of its own history");
                    sender.record_sent(&record, told);
                    Msg::Record(record, line.at(seq), told.commit)
                }
                Send::Told => Msg::Commit(sender.tells(node).commit),
                _ => continue,
            };
            self.wires[l].to[side].push((session, msg));
            self.host(h).on_mut().ends[l] = Some(End::Sender(session, sender));
            sent = true;
        }
        sent
    }

    fn deliver(&mut self, cfg: &Cluster, l: usize, side: usize) -> Step {
        let h = if side == 0 {
            cfg.links[l].0
        } else {
            cfg.links[l].1
        };
        let (session, msg) = self.wires[l].to[side].remove(0);
        let Some(end) = self.end(h, l).cloned() else {
            return Ok(true);
        };
        let mine = SessionId::from_wire(u64::from(end.session()));
        if !same_session(mine, u64::from(session)) {
            return Ok(true);
        }
        let host = self.host(h);
        let line = host.line.clone();
        let on = host.on_mut();
        let (message, position, commit) = match (msg, end) {
            (Msg::Record(record, epoch, commit), End::Receiver { .. }) => {
                let (epoch, seq) = (epoch_id(epoch), record.seq);
                (Message::Record(record), Position { epoch, seq }, commit)
            }
            (Msg::Commit(commit), End::Receiver { .. }) => {
                (Message::CommitPoint, Position::default(), commit)
            }
            (Msg::Ack(acks, credit), End::Sender(session, mut sender)) => {
                if let Err(e) = sender.acknowledged(&mut on.node, progress(acks)) {
                    return broken(format!("P7: {e}"));
                }
                sender.set_credit(credit.seq, credit.byte);
                on.ends[l] = Some(End::Sender(session, sender));
                let (a, b) = cfg.links[l];
                let peer = if h == a { b } else { a };
                if self.end(peer, l).map(End::session) == Some(session) {
                    self.check_levels(h, peer, acks.received)?;
                }
                return Ok(true);
            }
            _ => return Ok(true),
        };
        let Some(End::Receiver { receiver, .. }) = &mut on.ends[l] else {
            return Ok(true);
        };
        let envelope = Envelope {
            position,
            commit,
            ..Envelope::default()
        };
        let mut take = || {
            if let Meaning::Item(item) = receiver.message(&envelope, &message, &[volume()])? {
                receiver.data(&item, item.payload_crc())?;
                let fate = receiver.take(&mut on.node, &line, &item)?;
                return Ok((fate, receiver.settle(&mut on.node, 0, u64::MAX)?));
            }
            Ok((Fate::Known, receiver.settle(&mut on.node, 0, u64::MAX)?))
        };
        match take() {
            Ok((Fate::NoRoom, _)) => {
                return broken("P9: a record that came within its credit finds no room")
            }
            Ok(_) => {}
            // The session ends with the reason.
            Err(Ended::Refused(Refused::NotOwner | Refused::Failed)) => self.forget(cfg, l, h),
            Err(Ended::Refused(Refused::OtherEpoch)) => {
                return broken("the owner of the inbound side sends records of another epoch")
            }
            Err(end) => return broken(format!("P7: a session ends: {end:?}")),
        }
        Ok(true)
    }

    fn acknowledge(&mut self, cfg: &Cluster, l: usize) -> Step {
        let (a, b) = cfg.links[l];
        let mut said = false;
        for (h, side) in [(a, 1), (b, 0)] {
            while !self.wires[l].cut {
                let host = self.host(h);
                let newest = host.line.0.last().map_or(0, |e| e.0);
                let Some(on) = &mut host.on else { break };
                let Some(End::Receiver {
                    session,
                    epoch,
                    receiver,
                }) = &mut on.ends[l]
                else {
                    break;
                };
                let (session, epoch) = (*session, *epoch);
                match receiver.next(&on.node, &SUPPLY) {
                    Ok(Next::Wait) => break,
                    Ok(Next::Send(Reply::Ack(acks))) => {
                        let msg = Msg::Ack(acks, receiver.credit());
                        if newest != epoch {
                            return broken(format!(
                                "P8: host {h} acknowledges to a primary of epoch {epoch}, whose history it has left: {:?}",
                                host.line.0
                            ));
                        }
                        let to = &mut self.wires[l].to[side];
                        to.retain(|m| !matches!(m.1, Msg::Ack(..)));
                        to.push((session, msg));
                    }
                    Ok(_) => {}
                    Err(_) => self.forget(cfg, l, h),
                }
                said = true;
            }
        }
        Ok(said)
    }

    /// What happens at once, whatever happened.
    fn settle(&mut self, cfg: &Cluster) -> Result<(), Broken> {
        for h in 0..self.hosts.len() {
            if self.hosts[h].on.is_none() {
                continue;
            }
            if self.hosts[h].on().node.role() == Role::Primary {
                while let Some(seq) = self.host(h).on_mut().node.next_release() {
                    self.completed(cfg, h, seq)?;
                }
            }
            self.host(h).on_mut().node.retire(Seq(u64::MAX));
        }
        Ok(())
    }
}

fn terms(
    succession: Succession,
    fork: Seq,
    fork_chain: Option<replicate_core::units::Chain>,
    resume: Seq,
) -> Terms {
    Terms {
        fork,
        fork_chain,
        resume,
        sync: false,
        succession,
    }
}

/// Whether a verdict names what an administrator must do.
pub fn is_named(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Refuse(Why::Forked | Why::PeerAhead | Why::Unrelated | Why::ChainDiffers)
            | Verdict::NeedsSync(_)
    )
}
