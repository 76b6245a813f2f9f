// SPDX-License-Identifier: GPL-2.0

//! What happens to a cluster, one event at a time.

use std::rc::Rc;

use replicate_core::{
    node::{
        apply::Apply,
        durable::{
            grow::Limits,
            takeover::{take_over, TakeOver},
        },
        inbound::Refused,
        links::LinkId,
        Role,
    },
    session::{
        meet::{Peer, Primary, Why},
        primary::{decide, Decision, Refusal},
        receiver::{progress, End as Ended, Fate, Meaning, Next, Receiver, Reply},
        same_session,
        secondary::{state, Agreement, NotTaken},
        sender::{Send, Told},
        SessionId,
    },
    units::{Op, Position, Range, Sector, Seq, VolumeId},
    wire::{Envelope, Message},
};

use super::{volume, Cluster, End, Ev, Laid, Msg, State, Welcome};
use crate::{
    config::BLOCK_SECTORS,
    host::wid,
    link::SUPPLY,
    meet::{history, take_up},
    sb::epoch_id,
    world::{broken, Broken, Step},
};

fn id(link: usize) -> LinkId {
    LinkId(link as u8)
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
            if w.welcome.as_ref().is_some_and(|w| w.adoption.is_some()) {
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
                if host.sb.primary {
                    let begun = host.sb.begin_life(host.durable(), epoch, Limits::FORMAT);
                    host.sb = begun.ok().flatten().expect("the history is short");
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
                self.end_welcome(l);
                Ok(true)
            }
        }
    }

    /// The end of link `l` at host `h` is gone, and what was under way on it.
    fn forget(&mut self, cfg: &Cluster, l: usize, h: usize) {
        let (a, _) = cfg.links[l];
        let me = usize::from(h != a);
        self.wires[l].to[me].clear();
        self.end_welcome(l);
        if self.end(h, l).is_none() {
            return;
        }
        let on = self.host(h).on_mut();
        on.ends[l] = None;
        on.node.positions.disconnected(id(l));
        on.node.inbound_ended(id(l));
    }

    /// A welcome that is under way on link `l` comes to nothing, and so does what was promised with it.
    fn end_welcome(&mut self, l: usize) {
        let Some(w) = self.wires[l].welcome.take() else {
            return;
        };
        if w.adoption.is_some() && self.hosts[w.to].on.is_some() {
            self.host(w.to).on_mut().node.adoption_failed(id(l));
        }
        if self.hosts[w.from].on.is_some() && self.end(w.from, l).is_none() {
            self.host(w.from)
                .on_mut()
                .node
                .positions
                .disconnected(id(l));
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
        let key = (host.sb.epoch(seq), seq.0);
        Rc::make_mut(&mut self.truth.hist).insert(key, record);
        self.truth.next_wid += 1;
        self.truth.writes[h] -= 1;
        true
    }

    fn log(&mut self, h: usize) -> bool {
        let host = &self.hosts[h];
        let mut node = host.on().node.clone();
        let Some(plan) = node.plan_batch(&host.sb.lineage()) else {
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
        let mut node = host.on().node.clone();
        let Some(plan) = node.plan_batch(&host.sb.lineage()) else {
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
        let t = TakeOver {
            end,
            epoch: epoch_id(epoch),
            time_ns: 0,
            limits: Limits::FORMAT,
        };
        let edited = host.sb.edit(|sb| take_over(sb, &t, [volume()].into_iter()));
        host.sb = edited.expect("the history is short");
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

    /// What the primary of a link decides about its secondary.
    pub fn decide(&self, p: usize, s: usize) -> Result<Decision, Refusal> {
        let (ours, theirs) = (&self.hosts[p], &self.hosts[s]);
        let stated = state(&theirs.on().node, theirs.sb.bytes());
        let peer = Peer::of(&stated, theirs.sb.lineage());
        let node = &ours.on().node;
        let mine = Primary {
            lineage: ours.sb.lineage(),
            head: node.head(),
            oldest: node.oldest_held(),
        };
        let chain = |seq| self.chain(&ours.sb, seq);
        decide(&mine, &peer, None, None, None, |_| None, chain)
    }

    fn connect(&mut self, cfg: &Cluster, l: usize) -> Step {
        let Some((p, s)) = self.idle_link(cfg, l) else {
            return Ok(false);
        };
        if self.hosts[s].on().node.has_failed() {
            return Ok(false);
        }
        let stated = self.hosts[s].on().node.stated();
        let Ok(d) = self.decide(p, s) else {
            return Ok(false);
        };
        // What is refused for good is not asked again: it would be the same answer.
        if self.refusal(&d, p, s, l).is_some() {
            return Ok(false);
        }
        let history = self.hosts[p].sb.clone();
        let promise = match d.promise(&mut self.host(p).on_mut().node, id(l)) {
            Ok(promise) => promise,
            Err(why) => return broken(format!("P5: the primary cannot promise: {why:?}")),
        };
        self.wires[l].welcome = Some(Welcome {
            session: self.truth.next_session,
            from: p,
            to: s,
            history,
            promise,
            stated,
            adoption: None,
        });
        self.truth.next_session += 1;
        Ok(true)
    }

    /// Why the secondary would not take up this welcome now.
    pub fn refusal(&self, d: &Decision, p: usize, s: usize, l: usize) -> Option<NotTaken> {
        let here = &self.hosts[s];
        let mut node = here.on().node.clone();
        let answers = (id(l), node.stated());
        take_up(&here.sb, &mut node, &self.hosts[p].sb, d, 1, answers).err()
    }

    fn take_up(&mut self, l: usize) -> Step {
        let w = self.wires[l].welcome.clone().expect("a welcome");
        let host = self.host(w.to);
        let node = &mut host.on.as_mut().expect("up").node;
        let d = w.promise.decision();
        match take_up(&host.sb, node, &w.history, d, w.session, (id(l), w.stated)) {
            Ok(adoption) => {
                let adoption = Some(adoption);
                self.wires[l].welcome = Some(Welcome { adoption, ..w });
            }
            Err(_) => self.end_welcome(l),
        }
        Ok(true)
    }

    fn adopt(&mut self, l: usize) -> Step {
        let w = self.wires[l].welcome.clone().expect("a welcome");
        let adoption = w.adoption.expect("taken up");
        let host = self.host(w.to);
        let on = host.on.as_mut().expect("up");
        let agreed = match adoption.waits_for(&on.node) {
            Ok(Some(_)) => return Ok(false),
            Ok(None) => adoption.agree(&on.node),
            Err(why) => Err(why),
        };
        let mut cut = None;
        let agreed = agreed.and_then(|agreed| match agreed {
            Agreement::Agreed(agreed) => Ok(agreed),
            Agreement::Unread(unread) => {
                let (log, head, place, chain) = host.scan(&w.history);
                cut = Some(log);
                unread.found(head, place, chain)
            }
        });
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err(NotTaken::LogEnds(end)) => {
                return broken(format!("P4: the log ends at {end} although it held more"))
            }
            Err(_) => {
                self.end_welcome(l);
                return Ok(true);
            }
        };
        let volumes = || w.history.volumes();
        if agreed.is_news(host.sb.bytes(), volumes()) {
            let edited = host
                .sb
                .edit(|sb| agreed.record(sb, &history(&w.history), volumes(), 0));
            host.sb = edited.expect("it was taken up");
        }
        if let Some(log) = cut {
            host.log = log;
        }
        let node = &mut host.on.as_mut().expect("up").node;
        let begun = match agreed.begin(node) {
            Ok(begun) => begun,
            Err(why) => return broken(format!("P4: an adoption that nobody ended: {why:?}")),
        };
        let has = progress(node.acks());
        let mut receiver = Receiver::new(begun.owner, begun.resume, begun.head);
        receiver.grow_credit(node, &SUPPLY);
        let credit = receiver.credit();
        host.on_mut().ends[l] = Some(End::Receiver {
            session: w.session,
            epoch: w.history.newest(),
            receiver,
        });
        let peer = host.sb.bytes().host();
        self.wires[l].welcome = None;
        let primary = self.host(w.from);
        let Some(on) = primary.on.as_mut().filter(|on| on.ends[l].is_none()) else {
            return Ok(true);
        };
        let ready = match w.promise.ready(&on.node, has) {
            Ok(ready) => ready,
            Err(why) => return broken(format!("P5: {why:?}")),
        };
        if ready.is_news(primary.sb.bytes(), peer) {
            let tail = on.node.log_tail(ready.decision().resume.prev());
            let edited = primary.sb.edit(|sb| ready.record(sb, peer, tail));
            primary.sb = edited.expect("the link has a slot");
        }
        let mut sender = match ready.keep(&mut on.node, [volume()].iter()) {
            Ok(sender) => sender,
            Err(why) => return broken(format!("P5: {why:?}")),
        };
        sender.set_credit(credit.seq, credit.byte);
        on.ends[l] = Some(End::Sender(w.session, sender));
        self.check_levels(w.from, w.to, has.received)?;
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
                    let sb = &self.hosts[h].sb;
                    let record = self.record(sb, seq).expect("of its own history");
                    sender.record_sent(&record, told);
                    Msg::Record(record, sb.epoch(seq), told.commit)
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
        let sb = host.sb.clone();
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
                let fate = receiver.take(&mut on.node, &sb.lineage(), &item)?;
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
                let newest = host.sb.newest();
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
                                host.sb.line
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
            self.host(h).on_mut().node.retire(Seq(u64::MAX), false);
        }
        Ok(())
    }
}

/// Whether a refusal names what an administrator must do.
pub fn is_named(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::NeedsSync(_) => true,
        Refusal::Refuse { why, .. } => matches!(
            why,
            Why::Forked | Why::PeerAhead | Why::Unrelated | Why::ChainDiffers
        ),
        Refusal::NotQuiet => false,
    }
}
