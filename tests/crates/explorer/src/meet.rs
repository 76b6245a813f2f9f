// SPDX-License-Identifier: GPL-2.0

//! How two hosts meet: judgement, welcome, the superblocks before the session, and its end.

use replicate_core::{
    group::SyncKind,
    log::{
        recovery::Outcome,
        superblock::{SyncState, Tail},
    },
    node::{
        durable::{
            self,
            adopt::{self, AdoptError, Restart},
        },
        secondary::{BadTerms, Terms},
        Log,
    },
    session::{
        meet::{may_adopt, Verdict, Why as Reason},
        resync::Copies,
        sender::Sender,
        SessionId,
    },
    units::{Bytes, Sector, Seq, VolumeId},
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
                    Why::SyncStart(..) | Why::SyncOver | Why::Adopt { .. } | Why::SyncRestart(..)
                ))
            )
        };
        up(P) && up(S) && self.welcome.is_none() && !busy(P) && !busy(S)
    }

    pub fn connect(&mut self, cfg: &Config) -> Step {
        let p = self.hosts[P].on();
        let link = *p.node.positions.get(LINK).expect("the link");
        let verdict = self.judgement(
            &self.hosts[P],
            &self.hosts[S],
            p.node.head(),
            p.node.oldest(),
            |seq| self.hosts[P].chain_at(seq),
        );
        let inconsistent = self.hosts[S].sb.inconsistent;
        let lost_track = inconsistent && self.hosts[P].sb.sync.is_none();
        let needs = link.needs_sync || lost_track;
        match verdict {
            Verdict::Resume { fork, resume, .. } if !needs => {
                self.welcome = Some(Welcome {
                    stated: Some(self.hosts[S].on().node.stated()),
                    session: 0,
                    history: self.hosts[P].sb.clone(),
                    fork: fork.seq,
                    resume,
                    restart: None,
                    cursor: if inconsistent {
                        self.hosts[P].sb.sync
                    } else {
                        None
                    },
                    ready: false,
                });
                self.name_session();
                // The log keeps what was promised, even where a sync that never came about had given it up.
                let on = self.hosts[P].on_mut();
                on.node.positions.promise(LINK, resume.prev());
                Ok(true)
            }
            Verdict::Resume { .. } | Verdict::NeedsSync(_) if cfg.sync || cfg.give_up => {
                let Some((start, chain)) = p.node.sync_start() else {
                    return Ok(false);
                };
                self.hosts[P].on_mut().node.positions.promise(LINK, start);
                self.welcome = Some(Welcome {
                    stated: Some(self.hosts[S].on().node.stated()),
                    session: 0,
                    history: self.hosts[P].sb.clone(),
                    fork: start,
                    resume: start.next(),
                    restart: Some((start, chain)),
                    cursor: Some((VolumeId(cfg.blocks[0].0), Sector(0))),
                    ready: false,
                });
                self.name_session();
                Ok(true)
            }
            // A takeover that did not come to its end may leave the replica ahead: then it says so.
            Verdict::Refuse(Reason::PeerAhead) if self.ghost.took => Ok(false),
            v => broken(format!("P4: no disk was lost, no takeover, and yet: {v:?}")),
        }
    }

    fn name_session(&mut self) {
        let session = self.ghost.next_session;
        self.ghost.next_session += 1;
        if let Some(w) = &mut self.welcome {
            w.session = session;
        }
    }

    /// The secondary is ready for the sync, durably. The primary's superblock says so before what the log kept for the
    /// secondary's former position may go.
    pub fn sync_ready(&mut self) -> Step {
        let Some((start, chain)) = self.welcome.as_ref().and_then(|w| w.restart) else {
            return Ok(false);
        };
        if self.hosts[P].pending.is_some() {
            return Ok(false);
        }
        let first = self.welcome.as_ref().and_then(|w| w.cursor);
        let (volume, cursor) = first.unwrap_or_default();
        let sync = SyncState {
            kind: SyncKind::Full,
            volume,
            cursor,
            start: self.hosts[P]
                .sb
                .lineage()
                .position(start)
                .unwrap_or_default(),
            end: None,
        };
        let peer = self.hosts[S].sb.bytes().host();
        let edited = self.hosts[P]
            .sb
            .edit(|sb| durable::links::sync_began(sb, LINK, peer, chain, sync));
        let sb = edited.expect("the link has a slot");
        self.hosts[P].pending = Some((sb, Why::SyncStart(start)));
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

    /// The primary's superblock says that a sync of the link runs.
    pub fn sync_started(&mut self, cfg: &Config, start: Seq) -> Result<(), Broken> {
        self.ghost.sync_start = start;
        match self.welcome.take() {
            Some(w) => self.primary_joins(cfg, &w),
            None => {
                // The connection is lost by now.
                let positions = &mut self.hosts[P].on_mut().node.positions;
                let _ = positions.keep_promise(LINK, true);
                positions.disconnected(LINK);
                Ok(())
            }
        }
    }

    /// The secondary takes the welcome: its superblock first, then the session.
    pub fn welcomed(&mut self, cfg: &Config) -> Step {
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
        let succession = may_adopt(&h.sb.lineage(), &w.history.lineage(), w.restart.is_some());
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
        if let Some((start, chain)) = w.restart {
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
            fork: w.fork,
            fork_chain: None,
            resume: w.resume,
            sync: w.cursor.is_some(),
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
        let commit = h.on().node.adopted_commit(w.fork);
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
            self.truncate(w.fork)?;
            self.secondary_joins(cfg, w.session)?;
            return Ok(true);
        };
        let sb = match edited {
            Ok(sb) => sb,
            Err(why) => return broken(format!("P4: the lineage is refused: {why}")),
        };
        h.pending = Some((
            sb,
            Why::Adopt {
                fork: w.fork,
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
    pub fn secondary_joins(&mut self, cfg: &Config, session: u8) -> Result<(), Broken> {
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
        if w.restart.is_some() {
            self.welcome = Some(Welcome { ready: true, ..w });
            return Ok(());
        }
        self.primary_joins(cfg, &w)
    }

    /// The primary has heard that the secondary is ready.
    fn primary_joins(&mut self, cfg: &Config, w: &Welcome) -> Result<(), Broken> {
        let acks = self.hosts[S].on.as_ref().map(|s| s.node.acks());
        let unfinished = self.hosts[P].sb.sync.is_some();
        let Some(p) = &mut self.hosts[P].on else {
            return Ok(());
        };
        if !p.node.positions.keep_promise(LINK, w.cursor.is_some()) {
            return broken("P5: a peer is welcomed to what the log no longer keeps for it");
        }
        let acks = acks.unwrap_or_default();
        let copies = w
            .cursor
            .map(|(volume, at)| Copies::new(volume, cfg.size(volume.0), at));
        let mut sender = Sender::new(w.resume, copies);
        sender.acknowledged(acks.received);
        sender.set_credit(Seq(u64::MAX), u64::MAX);
        p.sender = Some(sender);
        p.session = Some(w.session);
        p.reading.clear();
        // It ended, and only the superblock does not say so yet.
        p.sync_over = w.cursor.is_none() && unfinished;
        let last = w.resume.prev();
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
