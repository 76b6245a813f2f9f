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
        primary::{First, Kind, Refusal, Resync},
        sender::Sender,
        SessionId,
    },
    units::{Bytes, Seq, VolumeId},
};

use crate::{
    config::Config,
    host::{Why, LINK},
    link::Welcome,
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
        let decision = match self.decide(cfg, self.hosts[P].on().resync) {
            // An administrator asks for it.
            Err(Refusal::NeedsSync(_)) if cfg.sync || cfg.give_up => {
                let first = VolumeId(cfg.blocks[0].0);
                self.decide(cfg, Some(Resync::new(Kind::Full, false, first)))
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
            h.on_mut().resync = d.sync;
            return Ok(true);
        }
        self.hosts[P].on_mut().resync = d.sync;
        let session = self.ghost.next_session;
        if session > 40 {
            return broken("P9: sessions without end");
        }
        self.ghost.next_session += 1;
        self.welcome = Some(Welcome {
            stated: Some(self.hosts[S].on().node.stated()),
            session,
            history: self.hosts[P].sb.clone(),
            decision: d,
            ready: false,
        });
        // The log keeps what was promised, even where a sync that never came about had given it up.
        let on = self.hosts[P].on_mut();
        on.node.positions.promise(LINK, d.resume.prev());
        Ok(true)
    }

    /// The peer is ready, durably: what follows from the welcome is made durable here, before what the log kept for the peer's
    /// former position may go.
    pub fn peer_ready(&mut self) -> Step {
        let Some(d) = self.welcome.as_ref().map(|w| w.decision) else {
            return Ok(false);
        };
        if self.hosts[P].pending.is_some() {
            return Ok(false);
        }
        let peer = self.hosts[S].sb.bytes().host();
        let tail = self.hosts[P].on().node.log_tail(d.resume.prev());
        let edited = self.hosts[P].sb.edit(|sb| match d.sync {
            Some(sync) if sync.fresh => durable::links::sync_began(
                sb,
                LINK,
                peer,
                d.fork_chain.unwrap_or_default(),
                sync.to_slot(),
            ),
            _ => durable::links::session_began(sb, LINK, peer, d.resume.prev(), tail),
        });
        let sb = edited.expect("the link has a slot");
        let sync = d.begins().map(|_| d.resume.prev());
        self.hosts[P].pending = Some((sb, Why::SessionBegan(sync)));
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
        let on = h.on_mut();
        on.resync = on.resync.filter(|s| s.fresh);
        Ok(true)
    }

    /// The primary's superblock says what follows from its welcome; `sync`: a synchronisation runs from there on.
    pub fn session_recorded(&mut self, sync: Option<Seq>) -> Result<(), Broken> {
        if let Some(start) = sync {
            self.ghost.sync_start = start;
            if let Some(resync) = &mut self.hosts[P].on_mut().resync {
                resync.fresh = false;
            }
        }
        match self.welcome.take() {
            Some(w) => self.primary_joins(&w),
            None => {
                // The connection is lost by now.
                let positions = &mut self.hosts[P].on_mut().node.positions;
                let _ = positions.keep_promise(LINK, sync.is_some());
                positions.disconnected(LINK);
                Ok(())
            }
        }
    }

    /// The secondary takes the welcome: its superblock first, then the session.
    pub fn welcomed(&mut self) -> Step {
        let w = self.welcome.clone().expect("a welcome");
        let h = &mut self.hosts[S];
        if !h.is_idle() || h.on().session.is_some() || w.ready || h.on().node.has_failed() {
            return Ok(false);
        }
        let Some(stated) = w.stated else {
            // It was down when the primary answered: it will state itself anew.
            self.welcome = None;
            return Ok(true);
        };
        let d = w.decision;
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
        s.inbound = s.node.session_began(LINK, id);
        s.arrived.clear();
        s.session = Some(w.session);
        s.told = None;
        let peer = self.hosts[S].sb.bytes().host();
        let news = durable::links::session_is_news(self.hosts[P].sb.bytes(), LINK, peer);
        if w.decision.begins().is_some() || news {
            self.welcome = Some(Welcome { ready: true, ..w });
            return Ok(());
        }
        self.primary_joins(&w)
    }

    /// The primary has heard that the secondary is ready.
    fn primary_joins(&mut self, w: &Welcome) -> Result<(), Broken> {
        let d = w.decision;
        let acks = self.hosts[S].on.as_ref().map(|s| s.node.acks());
        let volumes: Vec<Volume> = self.hosts[P].sb.volumes().collect();
        let copies = d.sync.and_then(|s| s.copies(volumes.iter()));
        let Some(p) = &mut self.hosts[P].on else {
            return Ok(());
        };
        if !p.node.positions.keep_promise(LINK, copies.is_some()) {
            return broken("P5: a peer is welcomed to what the log no longer keeps for it");
        }
        let acks = acks.unwrap_or_default();
        let mut sender = Sender::new(d.resume, copies);
        sender.acknowledged(acks.received);
        sender.set_credit(Seq(u64::MAX), u64::MAX);
        p.sender = Some(sender);
        p.session = Some(w.session);
        p.reading.clear();
        let last = d.resume.prev();
        p.node
            .positions
            .session(LINK, last, last, acks.applied.min(last));
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
        if on.inbound.take().is_some() {
            on.node.inbound_ended(LINK);
        }
        if !cfg.stale {
            self.wires[1 - s].clear();
        }
    }
}
