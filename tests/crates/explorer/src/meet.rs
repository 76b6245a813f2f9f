// SPDX-License-Identifier: GPL-2.0

//! How two hosts meet: judgement, welcome, the superblocks before the session, and its end.

use replicate_core::{
    group::{Name, Volume},
    log::recovery::Outcome,
    node::{
        durable::{
            self,
            adopt::{AdoptError, History},
        },
        inbound::Stated,
        links::LinkId,
        phase::Phase,
        secondary::BadTerms,
        Memory, Node,
    },
    session::{
        meet::Why as Reason,
        primary::{Decision, First, Kind, Ready, Refusal},
        receiver::{progress, Receiver},
        secondary::{may_follow, state, Adoption, Agreed, Agreement, NotTaken, Offer},
        SessionId,
    },
    units::{Seq, VolumeId},
    wire::StateHead,
};

use crate::{
    config::Config,
    host::{Host, Why, LINK},
    link::{Welcome, SUPPLY},
    sb::{group, Sb, GROUP},
    world::{broken, Broken, Step, World, P, S},
};

/// The secondary's first steps with a welcome of the primary whose superblock is `theirs`, come on a link as the answer to what
/// was stated.
pub fn take_up<M: Memory>(
    here: &Sb,
    node: &mut Node<M>,
    theirs: &Sb,
    d: &Decision,
    session: u8,
    (link, stated): (LinkId, Stated),
) -> Result<Adoption, NotTaken> {
    let session = SessionId::from_wire(u64::from(session)).expect("a number");
    // The primary's newest record is for status only: each would be a state of its own.
    let welcome = d.welcome(GROUP, group(), session, d.fork);
    // Both have devices of the same size.
    let attached = |name: &Name| theirs.volumes().find(|v| v.name == *name);
    let offer = Offer::of(&welcome, here.bytes().group())?;
    let fitting = offer.fits(here.bytes(), theirs.volumes(), attached)?;
    fitting.take_up(node, here.bytes(), &theirs.lineage(), link, stated)
}

/// The history that a welcome brings.
pub fn history(theirs: &Sb) -> History<'_> {
    History {
        group: GROUP,
        name: group(),
        lineage: theirs.lineage(),
    }
}

impl Host {
    /// What it states of itself.
    pub fn stated(&self) -> StateHead {
        state(&self.on().node, self.sb.bytes())
    }

    /// Whether it may follow a primary.
    pub fn may_follow(&self) -> bool {
        let node = &self.on().node;
        let volumes = node.volumes.iter().map(|(_, v)| v.state());
        may_follow(node, Phase::Active, volumes).is_ok()
    }

    /// Takes up a welcome, and reads the log where it must. `None`: it has to wait.
    fn agree(&mut self, w: &Welcome, stated: Stated) -> Result<Option<Agreed>, NotTaken> {
        let on = self.on.as_mut().expect("host is up");
        let d = w.promise.decision();
        let adoption = take_up(
            &self.sb,
            &mut on.node,
            &w.history,
            d,
            w.session,
            (LINK, stated),
        )?;
        let moves =
            on.node.applier.round().is_some() || on.checkpoint.is_some() || !on.copying.is_empty();
        if moves || adoption.waits_for(&on.node)?.is_some() {
            return Ok(None);
        }
        match adoption.agree(&on.node)? {
            Agreement::Agreed(agreed) => Ok(Some(agreed)),
            Agreement::Unread(unread) => {
                let found =
                    self.log
                        .scan(&self.sb.tail, unread.proven(), &w.history.lineage(), true);
                if found.flush {
                    self.log.flush();
                }
                let (head, place, chain) = match found.outcome {
                    Outcome::Head { head, place, chain } => (head, place, chain),
                    Outcome::Corrupt { missing, .. } => return Err(NotTaken::LogEnds(missing)),
                    Outcome::Unreadable { .. } => return Err(NotTaken::LogEnds(Seq::NONE)),
                };
                unread.found(head, place, chain).map(Some)
            }
        }
    }
}

impl World {
    pub fn can_connect(&self) -> bool {
        let up = |s: usize| {
            let on = self.hosts[s].on.as_ref();
            on.is_some_and(|o| o.session.is_none() && o.taking.is_none() && !o.node.has_failed())
        };
        let follows = || self.hosts[S].may_follow();
        // Each host goes through one handshake at a time, to its end.
        let busy = |s: usize| {
            matches!(
                self.hosts[s].pending,
                Some((
                    _,
                    Why::SessionBegan(..)
                        | Why::SyncOver { .. }
                        | Why::SyncForgets
                        | Why::SyncMoved
                        | Why::SyncEnds
                        | Why::Adopt(..)
                ))
            )
        };
        up(P) && up(S) && follows() && self.welcome.is_none() && !busy(P) && !busy(S)
    }

    /// The primary decides about the secondary, and welcomes it.
    pub fn connect(&mut self, cfg: &Config) -> Step {
        let h = &mut self.hosts[P];
        let over = durable::links::is_over(h.sb.bytes(), LINK);
        h.on_mut().syncs.met(over);
        let decision = match self.decide(cfg, self.hosts[P].on().syncs.wanted()) {
            // An administrator asks for it.
            Err(Refusal::NeedsSync(_)) if cfg.sync || cfg.give_up => {
                let first = VolumeId(cfg.blocks[0].0);
                let syncs = &mut self.hosts[P].on_mut().syncs;
                syncs.ask(Kind::Full, false, first);
                let wanted = syncs.wanted();
                self.decide(cfg, wanted)
            }
            other => other,
        };
        let d = match decision {
            Ok(d) => d,
            Err(Refusal::NotQuiet) => return Ok(false),
            // A takeover that did not come to its end may leave the replica ahead: then it says so.
            Err(Refusal::Refuse { why, .. }) if why == Reason::PeerAhead && self.ghost.took => {
                return Ok(false)
            }
            Err(why) => {
                return broken(format!(
                    "P4: no disk was lost, no takeover, and yet: {why:?}"
                ))
            }
        };
        if let Some(first) = d.first {
            // In its superblock first; then it meets the peer again.
            let h = &mut self.hosts[P];
            if h.pending.is_some() {
                return Ok(false);
            }
            let sb = h.sb.edit(|sb| match first {
                First::Over => durable::links::sync_over(sb, LINK),
                First::Forget => durable::links::sync_forgets(sb, LINK),
            });
            let why = match first {
                First::Over => Why::SyncOver { by_handshake: true },
                First::Forget => Why::SyncForgets,
            };
            h.pending = Some((sb.expect("the link has a slot"), why));
            return Ok(true);
        }
        self.hosts[P].on_mut().syncs.forgets(&d);
        let promise = match d.promise(&mut self.hosts[P].on_mut().node, LINK) {
            Ok(promise) => promise,
            Err(why) => return broken(format!("P5: the primary cannot promise: {why:?}")),
        };
        let session = self.ghost.next_session;
        if session > 40 {
            return broken("P9: sessions without end");
        }
        self.ghost.next_session += 1;
        self.welcome = Some(Welcome {
            stated: Some(self.hosts[S].on().node.stated()),
            session,
            history: self.hosts[P].sb.clone(),
            promise,
            ready: None,
        });
        Ok(true)
    }

    /// The peer is ready, durably: what follows from the welcome is made durable here, before what the log kept for the peer's
    /// former position may go.
    pub fn peer_ready(&mut self) -> Step {
        let Some((promise, has)) = self
            .welcome
            .as_ref()
            .and_then(|w| Some((w.promise, w.ready?.0)))
        else {
            return Ok(false);
        };
        if self.hosts[P].pending.is_some() {
            return Ok(false);
        }
        let peer = self.hosts[S].sb.bytes().host();
        let node = &self.hosts[P].on().node;
        let ready = match promise.ready(node, has) {
            Ok(ready) => ready,
            Err(why) => return broken(format!("P5: {why:?}")),
        };
        if !ready.is_news(self.hosts[P].sb.bytes(), peer) {
            self.session_recorded(&ready)?;
            return Ok(true);
        }
        let tail = node.log_tail(ready.decision().resume.prev());
        let edited = self.hosts[P].sb.edit(|sb| ready.record(sb, peer, tail));
        let sb = edited.expect("the link has a slot");
        self.hosts[P].pending = Some((sb, Why::SessionBegan(ready)));
        Ok(true)
    }

    /// The superblock is to say that the sync is over.
    pub fn sync_is_over(&mut self) -> Step {
        let h = &mut self.hosts[P];
        if h.pending.is_some() {
            return Ok(false);
        }
        let sb = h.sb.edit(|sb| durable::links::sync_over(sb, LINK));
        h.pending = Some((
            sb.expect("the link has a slot"),
            Why::SyncOver {
                by_handshake: false,
            },
        ));
        h.on_mut().sync_over = false;
        Ok(true)
    }

    /// The primary's superblock says what follows from its welcome: the session begins, if the connection is not lost by now.
    pub fn session_recorded(&mut self, ready: &Ready) -> Result<(), Broken> {
        let on = self.hosts[P].on_mut();
        on.syncs.began(ready.decision());
        if ready.decision().begins().is_some() {
            self.ghost.sync_start = ready.decision().resume.prev();
        }
        let volumes: Vec<Volume> = self.hosts[P].sb.volumes().collect();
        let on = self.hosts[P].on_mut();
        let sender = ready.keep(&mut on.node, volumes.iter());
        match (sender, self.welcome.take()) {
            (Ok(mut sender), Some(w)) => {
                let credit = w.ready.map_or_else(Default::default, |r| r.1);
                sender.set_credit(credit.seq, credit.byte);
                on.sender = Some(sender);
                on.session = Some(w.session);
                on.reading.clear();
            }
            (Ok(_), None) => {
                on.node.positions.disconnected(LINK);
            }
            (Err(why), _) => return broken(format!("P5: {why:?}")),
        }
        Ok(())
    }

    /// The secondary takes the welcome: its superblock first, then the session.
    pub fn welcomed(&mut self) -> Step {
        let w = self.welcome.clone().expect("a welcome");
        let h = &mut self.hosts[S];
        if h.pending.is_some() || h.on().session.is_some() || w.ready.is_some() {
            return Ok(false);
        }
        let Some(stated) = w.stated else {
            // It was down when the primary answered: it will state itself anew.
            self.welcome = None;
            return Ok(true);
        };
        let agreed = match h.agree(&w, stated) {
            Ok(Some(agreed)) => agreed,
            Ok(None) => return Ok(false),
            // Its log begins in an epoch that the primary knows no more. Each session is refused until a checkpoint has stated
            // a later tail; where none can, the link needs a synchronisation.
            Err(NotTaken::History(AdoptError::Folded)) => return Ok(false),
            Err(NotTaken::Adoption(_)) => {
                self.welcome = None;
                return Ok(true);
            }
            Err(NotTaken::Terms(BadTerms::SyncEnded)) => {
                h.on_mut().node.adoption_failed(LINK);
                self.welcome = None;
                return Ok(true);
            }
            Err(NotTaken::Terms(BadTerms::Histories(_))) if self.ghost.took => {
                h.on_mut().node.adoption_failed(LINK);
                self.welcome = None;
                return Ok(true);
            }
            Err(why) => {
                return broken(format!(
                    "P4: the replica cannot follow its primary: {why:?}"
                ))
            }
        };
        self.ghost.declared |= w.declares_equality();
        if !agreed.is_news(h.sb.bytes(), w.history.volumes()) {
            self.secondary_joins(&agreed, w.session)?;
            return Ok(true);
        }
        let volumes = w.history.volumes();
        let recorded =
            h.sb.edit(|sb| agreed.record(sb, &history(&w.history), volumes, 0));
        match recorded {
            Ok(sb) => h.pending = Some((sb, Why::Adopt(agreed, w.session))),
            Err(why) => return broken(format!("P4: the history is refused: {why}")),
        }
        Ok(true)
    }

    /// The welcome is durable: both ends enter the session, if the primary still stands by it.
    pub fn secondary_joins(&mut self, agreed: &Agreed, session: u8) -> Result<(), Broken> {
        let s = self.hosts[S].on_mut();
        let begun = match agreed.begin(&mut s.node) {
            Ok(begun) => begun,
            Err(why) => {
                return broken(format!(
                    "P4: the replica cannot follow its primary: {why:?}"
                ))
            }
        };
        // Another welcome may be under way by now: its connection begins its own handshake.
        let Some(w) = self.welcome.take_if(|w| w.session == session) else {
            s.node.inbound_ended(LINK);
            return Ok(());
        };
        let mut receiver = Receiver::new(begun.owner, begun.resume, begun.head);
        receiver.grow_credit(&s.node, &SUPPLY);
        let credit = receiver.credit();
        s.receiver = Some(receiver);
        s.arrived.clear();
        s.session = Some(w.session);
        let has = progress(s.node.acks());
        self.welcome = Some(Welcome {
            ready: Some((has, credit)),
            ..w
        });
        let peer = self.hosts[S].sb.bytes().host();
        let ready = w.promise.ready(&self.hosts[P].on().node, has);
        if ready.is_ok_and(|r| !r.is_news(self.hosts[P].sb.bytes(), peer)) {
            self.peer_ready()?;
        }
        Ok(())
    }

    pub fn drop_session(&mut self, cfg: &Config, s: usize) {
        let Some(on) = &mut self.hosts[s].on else {
            return;
        };
        if s == P {
            self.welcome = None;
            on.node.positions.disconnected(LINK);
            on.sender = None;
            on.reading.clear();
        }
        on.session = None;
        if on.receiver.take().is_some() {
            on.node.inbound_ended(LINK);
        }
        if !cfg.stale {
            self.wires[1 - s].clear();
        }
    }
}
