// SPDX-License-Identifier: GPL-2.0

//! The wire: handshake, records, acknowledgements, region copies. Decided and planned by the core.

use replicate_core::{
    group::Volume,
    log::recovery::Epochs,
    node::{
        durable::links,
        inbound::{Refused, Stated},
        secondary::Acks,
    },
    session::{
        credit::Supply,
        meet::{judge, Peer, Primary, Verdict},
        primary::{decide, Decision, Kind, Promise, Refusal, Resync},
        receiver::{progress, End, Fate, Meaning, Next, Reply},
        resync::{Copied, CopyItem},
        same_session,
        sender::{Change, Send, Told},
        SessionId,
    },
    units::{Chain, EpochId, Position, Record, Seq, VolumeId},
    wire::{Credit, Envelope, Message, Progress, RegionCopy},
};

use crate::{
    config::Config,
    host::{blocks_of, writes_of, Host, On, Why, Writes, LINK},
    sb::Sb,
    world::{broken, Step, World, P, S},
};

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Msg {
    /// Its epoch, and the commit point.
    Record(Record, EpochId, Seq),
    Commit(Seq),
    Copy(CopyItem, Writes, Seq),
    SyncEnd(Seq, u64, Seq),
    /// Positions, and how much more may come.
    Ack(Acks, Credit),
    /// Durable copies; one more than there were: the replica is consistent.
    CopyAck(u64),
    Resend(Seq),
}

/// Memory is never short, but for the window's few slots.
pub const SUPPLY: Supply = Supply {
    pages: 1 << 20,
    page_bytes: 4096,
    window_bytes: 1 << 30,
};

/// The primary's answer on its way to the secondary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Welcome {
    /// When the secondary stated what this answers.
    pub stated: Option<Stated>,
    pub session: u8,
    /// The primary's history.
    pub history: Sb,
    pub promise: Promise,
    /// The secondary has taken it, and said what it holds.
    pub ready: Option<(Progress, Credit)>,
}

/// Whether the chain value after `seq` can be read from memory or log.
fn known(mine: &Primary<'_>, seq: Seq) -> bool {
    seq >= mine.oldest.prev() && seq <= mine.head
}

impl Welcome {
    /// Whether it declares both sides equal.
    pub fn declares_equality(&self) -> bool {
        self.promise.decision().begins() == Some(Kind::AssumeClean)
    }
}

impl World {
    /// What the running primary decides about its secondary. `sync`: what was asked for or is recorded.
    pub fn decide(&self, cfg: &Config, sync: Option<Resync>) -> Result<Decision, Refusal> {
        let p = &self.hosts[P];
        let node = &p.on().node;
        let mine = Primary {
            lineage: p.sb.lineage(),
            head: node.head(),
            oldest: node.oldest_held(),
        };
        let first = Some(VolumeId(cfg.blocks[0].0));
        let start = |kind: Kind| match kind {
            Kind::Full => node.sync_start(),
            // Writers stand still, and everything is on the volumes.
            Kind::AssumeClean => (node.commit() == node.head()
                && node.applier.applied() == node.head())
            .then(|| node.chain_at(node.head()).map(|c| (node.head(), c)))
            .flatten(),
        };
        let chain = |seq| known(&mine, seq).then(|| p.chain_at(seq)).flatten();
        let slot = p.sb.link_sync();
        let stated = self.hosts[S].stated();
        let peer = Peer::of(&stated, self.hosts[S].sb.lineage());
        decide(&mine, &peer, sync, slot, first, start, chain)
    }

    /// The judgement that the primary `mine` passes on `peer`.
    /// `chain`: chain value of its order after a seq.
    pub fn judgement(
        &self,
        mine: &Host,
        peer: &Host,
        head: Seq,
        oldest: Seq,
        chain: impl Fn(Seq) -> Option<Chain>,
    ) -> Verdict {
        let primary = Primary {
            lineage: mine.sb.lineage(),
            head,
            oldest,
        };
        let peer = Peer::of(&peer.stated(), peer.sb.lineage());
        judge(&primary, &peer, |seq| {
            known(&primary, seq).then(|| chain(seq)).flatten()
        })
    }

    fn post(&mut self, cfg: &Config, d: usize, msg: Msg) -> Step {
        let from = if d == 0 { P } else { S };
        let session = self.hosts[from].on().session.expect("in a session");
        if cfg.queue == 0 {
            return self.deliver(cfg, d, session, msg);
        }
        // Positions are cumulative: a newer one that was not sent yet takes the older one's place.
        if !cfg.stale && matches!(msg, Msg::Ack(..)) {
            self.wires[d].retain(|m| !matches!(m.1, Msg::Ack(..)));
        }
        self.wires[d].push((session, msg));
        Ok(true)
    }

    /// The sender's next message.
    pub fn send(&mut self, cfg: &Config) -> Step {
        let h = &mut self.hosts[P];
        if self.wires[0].len() >= cfg.queue.max(1) {
            return Ok(false);
        }
        let volumes: Vec<Volume> = h.sb.volumes().collect();
        let On { node, sender, .. } = &mut **h.on.as_mut().expect("host is up");
        let Some(sender) = sender else {
            return Ok(false);
        };
        let mut next = sender.next(node, volumes.iter());
        if next == Send::SyncStart {
            // That is for status only.
            next = sender.next(node, volumes.iter());
        }
        let told = Told::now(node, LINK);
        match next {
            Send::SyncStart | Send::Nothing => Ok(false),
            Send::Record(seq) => {
                let Some(record) = self.hosts[P].record(seq) else {
                    return broken(format!(
                        "P5: the peer needs record {seq}, which neither log nor memory holds"
                    ));
                };
                if self.ghost.hist.get(seq.0 as usize - 1) != Some(&record) {
                    return broken(format!(
                        "P7: the record {seq} that is sent is not that of the order"
                    ));
                }
                let sender = self.hosts[P].on_mut().sender.as_mut();
                sender.expect("in a session").record_sent(&record, told);
                let epoch = self.hosts[P].sb.lineage().epoch_of(seq).0;
                self.post(cfg, 0, Msg::Record(record, epoch, told.commit))
            }
            Send::ReadCopy(item) => {
                sender.copy_begins();
                let data = self.read_region(cfg, &item);
                self.hosts[P].on_mut().reading = data;
                Ok(true)
            }
            Send::Copy(item) => {
                sender.tells(node);
                sender.copy_sent(item.range.bytes().0);
                let data = std::mem::take(&mut self.hosts[P].on_mut().reading);
                self.post(cfg, 0, Msg::Copy(item, data, told.commit))
            }
            // The primary's superblock knows the end before the peer does.
            Send::RecordEnd(end) => self.sync_ends(end),
            Send::SyncEnd { end, items } => {
                sender.tells(node);
                sender.end_sent();
                self.post(cfg, 0, Msg::SyncEnd(end, items, told.commit))
            }
            Send::Told => {
                sender.tells(node);
                self.post(cfg, 0, Msg::Commit(told.commit))
            }
        }
    }

    /// The superblock is to say how far the copies are. The link's thread waits for it.
    pub fn sync_moved(&mut self) -> bool {
        let h = &mut self.hosts[P];
        let Some(sync) = h.on().syncs.running().copied() else {
            return false;
        };
        let said = h.sb.link_sync().map(|s| (s.volume, s.cursor));
        if h.pending.is_some() || sync.fresh || said == Some(sync.at) {
            return false;
        }
        let sb =
            h.sb.edit(|sb| links::sync_moved(sb, LINK, sync.at, sync.end));
        h.pending = Some((sb.expect("the link has a slot"), Why::SyncMoved));
        true
    }

    fn sync_ends(&mut self, end: Seq) -> Step {
        let h = &mut self.hosts[P];
        if h.pending.is_some() {
            return Ok(false);
        }
        let on = h.on.as_mut().expect("host is up");
        let Some(sync) = on.syncs.ends(end) else {
            return broken("P4: a synchronisation ends that is not under way");
        };
        let sb =
            h.sb.edit(|sb| links::sync_moved(sb, LINK, sync.at, sync.end));
        h.pending = Some((sb.expect("the link has a slot"), Why::SyncEnds));
        Ok(true)
    }

    fn read_region(&self, cfg: &Config, item: &CopyItem) -> Writes {
        let h = &self.hosts[P];
        blocks_of(cfg, &item.range)
            .into_iter()
            .map(|b| (b, h.vols[b].current()))
            .collect()
    }

    pub fn region_read(&mut self, cfg: &Config, now: bool) -> Step {
        let on = self.hosts[P].on();
        let Some(item) = on.sender.and_then(|s| s.reading()) else {
            return Ok(false);
        };
        if now {
            let data = self.read_region(cfg, &item);
            if data == on.reading {
                return Ok(false);
            }
            self.hosts[P].on_mut().reading = data;
        }
        let on = self.hosts[P].on_mut();
        let commit = on.node.commit();
        if let Some(s) = &mut on.sender {
            s.copy_read(commit);
        }
        Ok(true)
    }

    pub fn deliver(&mut self, cfg: &Config, d: usize, session: u8, msg: Msg) -> Step {
        let to = if d == 0 { S } else { P };
        let Some(on) = &mut self.hosts[to].on else {
            return Ok(true);
        };
        let mine = on.session;
        let Some(mine) = mine else {
            return Ok(true);
        };
        if !same_session(SessionId::from_wire(u64::from(mine)), u64::from(session)) {
            return Ok(true);
        }
        if to == S {
            return self.receive(cfg, msg, true);
        }
        let Some(sender) = &mut on.sender else {
            return Ok(true);
        };
        match msg {
            Msg::Record(..) | Msg::Commit(_) | Msg::Copy(..) | Msg::SyncEnd(..) => {}
            Msg::Resend(from) => sender.resend(from, on.node.oldest()),
            Msg::CopyAck(item) => match sender.copies_durable(item) {
                Ok(Copied::Nothing) => {}
                Ok(Copied::Moved(cursor)) => {
                    on.syncs.moved(cursor);
                }
                Ok(Copied::Over) => on.sync_over = true,
                Err(e) => return broken(format!("P7: {e}")),
            },
            Msg::Ack(acks, credit) => {
                sender.set_credit(credit.seq, credit.byte);
                return match sender.acknowledged(&mut on.node, progress(acks)) {
                    Ok(change) => self.follow(cfg, change),
                    Err(e) => broken(format!("P7: {e}")),
                };
            }
        }
        Ok(true)
    }

    /// What follows from an acknowledgement.
    pub fn follow(&mut self, cfg: &Config, change: Change) -> Step {
        if change.in_sync {
            // In-sync means that all that ever completed is there, however it completed.
            let on = self.hosts[P].on();
            let (published, session) = (on.node.flush_target(), on.session);
            self.completed_in_sync(cfg, published, session)?;
        }
        Ok(true)
    }

    /// The secondary takes a message. `intact`: its data is as it was sent.
    pub fn receive(&mut self, cfg: &Config, msg: Msg, intact: bool) -> Step {
        let Host { on, sb, .. } = &mut *self.hosts[S];
        let on = on.as_mut().expect("host is up");
        let Some(receiver) = &mut on.receiver else {
            return Ok(true);
        };
        let mut position = Position::default();
        let (message, commit, data) = match msg {
            Msg::Record(record, epoch, commit) => {
                let seq = record.seq;
                position = Position { epoch, seq };
                (Message::Record(record), commit, Writes::new())
            }
            Msg::Commit(commit) => (Message::CommitPoint, commit, Writes::new()),
            Msg::Copy(item, data, commit) => {
                let copy = RegionCopy {
                    item: item.item,
                    after: item.after,
                    range: item.range,
                    ..RegionCopy::default()
                };
                (Message::RegionCopy(copy), commit, data)
            }
            Msg::SyncEnd(end, items, commit) => {
                (Message::SyncEnd { end, items }, commit, Writes::new())
            }
            Msg::Ack(..) | Msg::CopyAck(_) | Msg::Resend(_) => return Ok(true),
        };
        let envelope = Envelope {
            position,
            commit,
            ..Envelope::default()
        };
        let volumes: Vec<Volume> = sb.volumes().collect();
        let mut taken = || {
            if let Meaning::Item(item) = receiver.message(&envelope, &message, &volumes)? {
                let right = item.payload_crc();
                if receiver.data(&item, if intact { right } else { !right })? {
                    let fate = receiver.take(&mut on.node, &sb.lineage(), &item)?;
                    return Ok((Some(fate), receiver.settle(&mut on.node, 0, u64::MAX)));
                }
            }
            Ok((None, receiver.settle(&mut on.node, 0, u64::MAX)))
        };
        let ended = match taken() {
            Ok((Some(_), _)) if !intact => {
                return broken("P6: data is taken that does not match its checksum")
            }
            Ok((Some(Fate::NoRoom), _)) => {
                return broken("P9: a record that came within its credit finds no room")
            }
            Ok((_, settled)) => settled.map(|_| ()),
            Err(end) => Err(end),
        };
        if let Err(end) = ended {
            return self.session_ends(cfg, end);
        }
        if let Message::RegionCopy(copy) = message {
            if intact {
                on.arrived.push((copy.item, data));
            }
        }
        Ok(true)
    }

    /// The secondary ends its session.
    fn session_ends(&mut self, cfg: &Config, end: End) -> Step {
        match end {
            End::Refused(Refused::Failed) => {}
            // What came before was lost or damaged.
            End::Nonsense(_) | End::BadCopy(_) | End::Missing(_)
                if cfg.reorder || cfg.faults > 0 => {}
            end => return broken(format!("P7: the only session ends: {end:?}")),
        }
        self.drop_session(cfg, S);
        Ok(true)
    }

    pub fn acknowledge(&mut self, cfg: &Config) -> Step {
        let mut said = false;
        loop {
            let on = self.hosts[S].on_mut();
            let Some(receiver) = &mut on.receiver else {
                return Ok(said);
            };
            if !said && self.wires[1].len() > cfg.queue {
                return Ok(false);
            }
            let reply = match receiver.next(&on.node, &SUPPLY) {
                Ok(Next::Send(reply)) => reply,
                Ok(Next::Synced | Next::Level) => continue,
                Ok(Next::Wait) => return Ok(said),
                Err(end) => return self.session_ends(cfg, end),
            };
            said = true;
            let msg = match reply {
                Reply::Ack(acks) => Msg::Ack(acks, receiver.credit()),
                Reply::CopyAck(item) => Msg::CopyAck(item),
                Reply::Resend(from, _) => Msg::Resend(from),
                Reply::Heartbeat => continue,
            };
            self.post(cfg, 1, msg)?;
        }
    }

    /// The secondary has waited long enough for what is missing.
    pub fn ask_again(&mut self, cfg: &Config) -> Step {
        let same = self.hosts[P].on.as_ref().map(|o| o.session);
        let on = self.hosts[S].on_mut();
        let next = on.node.head().next();
        let under_way = |m: &(u8, Msg)| match m.1 {
            Msg::Record(r, ..) => r.seq == next,
            Msg::Resend(_) => true,
            _ => false,
        };
        if self.wires.iter().flatten().any(under_way) || same != Some(on.session) {
            return Ok(false);
        }
        let Some(receiver) = on.receiver.as_mut().filter(|r| r.waits_for_records()) else {
            return Ok(false);
        };
        match receiver.settle(&mut on.node, 0, 0) {
            Ok(_) => self.acknowledge(cfg),
            Err(end) => self.session_ends(cfg, end),
        }
    }

    pub fn copy_write(&mut self, cfg: &Config) -> bool {
        let on = self.hosts[S].on_mut();
        let Some(copy) = on.node.next_copy() else {
            return false;
        };
        let at = on
            .arrived
            .iter()
            .position(|a| a.0 == copy.item)
            .expect("its data came with it");
        on.copying = on.arrived.remove(at).1;
        if !cfg.fine {
            self.copy_written();
        }
        true
    }

    pub fn copy_written(&mut self) {
        let h = &mut self.hosts[S];
        let data = std::mem::take(&mut h.on_mut().copying);
        for (b, v) in data {
            h.vols[b].write(v);
        }
        h.on_mut().node.copy_written();
    }

    /// The takeover's superblock is durable: the application goes on here.
    pub fn taken_over(&mut self, cfg: &Config, end: Seq) -> Step {
        self.hosts[S].on_mut().node.takeover_done(end);
        self.ghost.taken = true;
        self.check_takeover(cfg, end)?;
        Ok(true)
    }
}

/// All writes of a history up to `seq`, applied.
pub fn image(cfg: &Config, hist: &[Record], seq: Seq) -> Vec<u8> {
    let mut v = vec![0; cfg.blocks.len()];
    for r in hist.iter().take_while(|r| r.seq <= seq) {
        for (b, w) in writes_of(cfg, r) {
            v[b] = w;
        }
    }
    v
}
