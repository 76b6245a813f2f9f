// SPDX-License-Identifier: GPL-2.0

//! How two hosts meet: judgement, welcome, the superblocks before the session, and its end.

use replicate_core::{
    group::Volume,
    log::{recovery::Outcome, superblock::Tail},
    node::{
        durable::{
            self,
            adopt::{self, AdoptError, Restart},
        },
        secondary::{BadTerms, Terms},
        Log,
    },
    session::{
        meet::{may_adopt, Why as Reason},
        primary::{First, Kind, Ready, Refusal},
        receiver::{progress, Receiver},
        SessionId,
    },
    units::{Bytes, Seq, VolumeId},
};

use crate::{
    config::Config,
    host::{Why, LINK},
    link::{Welcome, SUPPLY},
    sb::{group, GROUP},
    world::{broken, Broken, Step, World, P, S},
};

/// What the welcome says of the primary's history.
fn history(w: &Welcome) -> adopt::History<'_> {
    adopt::History {
        group: GROUP,
        name: group(),
        lineage: w.history.lineage(),
    }
}

impl World {
    pub fn can_connect(&self) -> bool {
        let up = |s: usize| {
            let on = self.hosts[s].on.as_ref();
            on.is_some_and(|o| o.session.is_none() && o.taking.is_none() && !o.node.has_failed())
        };
        // Each host goes through one handshake at a time, to its end.
        let busy = |s: usize| {
            matches!(
                self.hosts[s].pending,
                Some((
                    _,
                    Why::SessionBegan(..)
                        | Why::SyncOver
                        | Why::SyncForgets
                        | Why::SyncEnds
                        | Why::Adopt { .. }
                        | Why::SyncRestart(..)
                ))
            )
        };
        up(P) && up(S) && self.welcome.is_none() && !busy(P) && !busy(S)
    }

    /// The primary decides about the secondary, and welcomes it.
    pub fn connect(&mut self, cfg: &Config) -> Step {
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
                First::Over => Why::SyncOver,
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
        h.pending = Some((sb.expect("the link has a slot"), Why::SyncOver));
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
        if !h.is_idle() || h.on().session.is_some() || w.ready.is_some() || h.on().node.has_failed()
        {
            return Ok(false);
        }
        let Some(stated) = w.stated else {
            // It was down when the primary answered: it will state itself anew.
            self.welcome = None;
            return Ok(true);
        };
        let d = w.promise.decision();
        let begins = d.begins().is_some();
        let succession = may_adopt(&h.sb.lineage(), &w.history.lineage(), begins);
        let succession = match succession {
            Ok(s) => s,
            Err(_) if self.ghost.took => {
                self.welcome = None;
                return Ok(true);
            }
            Err(why) => {
                return broken(format!(
                    "P4: the replica cannot follow its primary: {why:?}"
                ))
            }
        };
        if begins {
            let (start, chain) = (d.resume.prev(), d.fork_chain.unwrap_or_default());
            // The applier stands still: no round, copy or checkpoint is in progress.
            let checkpoints = h.on().checkpoint.is_some();
            if h.on().node.applier.round().is_some()
                || !h.on().node.copies.is_empty()
                || checkpoints
            {
                return Ok(false);
            }
            let begun = h.on_mut().node.adoption_begins(LINK, stated, succession);
            if begun.is_err() {
                self.welcome = None;
                return Ok(true);
            }
            let (offset, lap) = match &h.on().node.log {
                Log::Ring(r) => (r.ring.offset(r.ring.head()), r.ring.lap(r.ring.head())),
                Log::NoRing(_) => (Bytes(0), 0),
            };
            let restart = Restart {
                start: w.history.lineage().position(start).unwrap_or_default(),
                chain,
                tail: Tail {
                    offset,
                    lap,
                    ..Tail::default()
                },
                sync: true,
                time_ns: 0,
            };
            let edited =
                h.sb.edit(|sb| adopt::restart(sb, &history(&w), w.history.volumes(), &restart));
            let sb = edited.expect("the history is short");
            h.pending = Some((sb, Why::SyncRestart(start, chain, w.session)));
            return Ok(true);
        }
        let terms = Terms {
            fork: d.fork.seq,
            fork_chain: d.fork_chain,
            resume: d.resume,
            sync: d.sync.is_some(),
            succession,
        };
        match h.on().node.check_terms(&terms) {
            Ok(()) => {}
            Err(BadTerms::Histories(_)) if self.ghost.took => {
                self.welcome = None;
                return Ok(true);
            }
            Err(BadTerms::SyncEnded) => {
                self.welcome = None;
                return Ok(true);
            }
            Err(why) => {
                return broken(format!(
                    "P4: the replica cannot follow its primary: {why:?}"
                ))
            }
        }
        let resumed = w.history.line != h.sb.line;
        let commit = h.on().node.adopted_commit(d.fork.seq);
        let edited = resumed.then(|| {
            h.sb.edit(|sb| adopt::resume(sb, &history(&w), w.history.volumes(), commit))
        });
        // Its log begins in an epoch that the primary knows no more. Each session is refused until a checkpoint has stated
        // a later tail; where none can, the link needs a synchronisation.
        if let Some(Err(AdoptError::Folded)) = edited {
            return Ok(false);
        }
        let begun = h.on_mut().node.adoption_begins(LINK, stated, succession);
        if begun.is_err() {
            self.welcome = None;
            return Ok(true);
        }
        let Some(edited) = edited else {
            self.truncate(d.fork.seq)?;
            self.secondary_joins(w.session)?;
            return Ok(true);
        };
        let sb = match edited {
            Ok(sb) => sb,
            Err(why) => return broken(format!("P4: the lineage is refused: {why}")),
        };
        h.pending = Some((
            sb,
            Why::Adopt {
                fork: d.fork.seq,
                session: w.session,
            },
        ));
        Ok(true)
    }

    /// The lineage is durable: what lies above the fork is dropped.
    pub fn truncate(&mut self, fork: Seq) -> Result<(), Broken> {
        let h = &mut self.hosts[S];
        let rescan = h.on().node.must_rescan(fork);
        let place = if rescan {
            match h.scan(true).outcome {
                Outcome::Head { place, chain, .. } => Some((place, chain)),
                Outcome::Corrupt { .. } | Outcome::Unreadable { .. } => {
                    return broken("a scan under the new lineage calls the log corrupt")
                }
            }
        } else {
            None
        };
        if !h.on_mut().node.truncate(fork, place) {
            return broken("P4: the replica applied what its primary lost");
        }
        Ok(())
    }

    /// Both ends enter the session, if the primary still stands by its welcome.
    pub fn secondary_joins(&mut self, session: u8) -> Result<(), Broken> {
        // Another welcome may be under way by now: its connection begins its own handshake.
        let Some(w) = self.welcome.take_if(|w| w.session == session) else {
            self.hosts[S].on_mut().node.adoption_failed(LINK);
            return Ok(());
        };
        let s = self.hosts[S].on_mut();
        let id = SessionId::from_wire(u64::from(session)).expect("a number");
        let owner = s.node.session_began(LINK, id);
        let (resume, head) = {
            let d = w.promise.decision();
            (d.resume, d.fork.seq)
        };
        s.receiver = owner.map(|owner| Receiver::new(owner, resume, head));
        s.arrived.clear();
        s.session = Some(w.session);
        if let Some(r) = &mut s.receiver {
            r.grow_credit(&s.node, &SUPPLY);
        }
        let credit = s.receiver.as_mut().map(Receiver::credit);
        let has = progress(s.node.acks());
        self.welcome = Some(Welcome {
            ready: Some((has, credit.unwrap_or_default())),
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
