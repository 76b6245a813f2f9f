// SPDX-License-Identifier: GPL-2.0

//! The primary's side of a session: connect, compare, welcome, then [`super::sender`].
//!
//! What the peer is welcomed to is decided by `replicate_core::session::primary`, which also says in which order that is
//! carried out. The log is pinned for the peer before it is welcomed, so that nothing it was promised is freed meanwhile.

use super::{
    error::{self, SessionError},
    hello,
    listener::Incoming,
    read_back,
    sender::Session,
    sync::{settle, write_slot},
    worker::Worker,
    Link,
};
use crate::{
    event::{self, Code as Event, Severity},
    group::{inner::Phase, Group},
    reason::Reason,
};
use core::convert::Infallible;
use kernel::{prelude::*, sync::Arc};
use replicate_core::{
    group::{Name, Role, Volume},
    lineage::{Before, Entry, Lineage},
    log::superblock::Superblock,
    node::durable::links as durable,
    session::{
        meet::{self, Peer, Primary, Rival, Why},
        primary::{self, Decision, First, Kind, NoSession, Promise, Refusal},
        sender::Sender,
        state, SessionId,
    },
    units::{GroupUuid, HostId},
    wire::{self, Code, Message, Progress, State, WireError},
};
use replicate_linux::{net::Stream, random};

/// How long an attempt to connect may take.
const CONNECT_MS: u32 = 3000;

/// What this host is, copied out of the superblock.
pub(super) struct SuperblockInfo {
    pub(super) uuid: GroupUuid,
    pub(super) name: Name,
    before: Before,
    entries: KVec<Entry>,
    pub(super) volumes: KVec<Volume>,
}

impl SuperblockInfo {
    /// The durable facts of `group`. May sleep.
    pub(super) fn of(group: &Group) -> Result<SuperblockInfo, SessionError> {
        // Made before: the log worker and the applier take the superblock's mutex, so nothing waits for memory under it.
        let lengths = group.srl.read(|sb| (sb.lineage().len(), sb.volume_count()));
        let (epochs, count) = lengths.map_err(|_| SessionError::no_memory())?;
        let memory = |_| SessionError::no_memory();
        let mut entries = KVec::with_capacity(epochs, GFP_KERNEL).map_err(memory)?;
        let mut volumes = KVec::with_capacity(count, GFP_KERNEL).map_err(memory)?;
        let copy = |sb: &Superblock| -> Result<SuperblockInfo> {
            let lineage = sb.lineage();
            for e in lineage.iter() {
                entries.push(Entry::from(e), GFP_NOWAIT)?;
            }
            for v in sb.volumes() {
                volumes.push(v.volume, GFP_NOWAIT)?;
            }
            Ok(SuperblockInfo {
                uuid: sb.group(),
                name: sb.group_name(),
                before: lineage.before(),
                entries,
                volumes,
            })
        };
        match group.srl.read(copy) {
            Ok(Ok(facts)) => Ok(facts),
            Ok(Err(_)) | Err(_) => Err(SessionError::no_memory()),
        }
    }

    /// The lineage.
    pub(super) fn lineage(&self) -> Lineage<'_> {
        Lineage::new(self.before, &self.entries).unwrap_or(Lineage::EMPTY)
    }
}

impl Worker {
    /// One attempt to have a session as primary.
    #[inline(never)]
    pub(super) fn primary(&mut self) -> Result<Infallible, SessionError> {
        if let Some(incoming) = self.link.take_incoming() {
            return self.answer(&incoming);
        }
        self.ready()?;
        let stream = Stream::connect(
            self.link.peer,
            Some(self.link.local),
            CONNECT_MS,
            self.link.wake.clone(),
        )
        .map_err(|e| hello::unreachable(&self.link, e))?;
        self.open(&stream)?;
        let host = hello::connect(&self.group, &self.link, &stream)?;
        self.framed(&stream, Role::Secondary);
        let mut session = self.handshake(host)?;
        self.stream(&mut session)
    }

    /// Whether this host may have a session at all now.
    fn ready(&self) -> Result<(), SessionError> {
        let (phase, all) = {
            let inner = self.group.inner.lock();
            (inner.phase, inner.node.volumes.all_present())
        };
        match phase {
            Phase::Holding { .. } | Phase::Active => {}
            Phase::TakingOver | Phase::Unlogged | Phase::Failed | Phase::Gone => {
                return Err(SessionError::lost(
                    Reason::LogFailed,
                    format_args!(
                        "the group takes no logged writes now, see its state; nothing can be sent"
                    ),
                ))
            }
        }
        if all {
            Ok(())
        } else {
            Err(SessionError::lost(
                Reason::WaitingVolumes,
                format_args!(
                    "waiting until every volume of the group is active: create them with dmsetup"
                ),
            ))
        }
    }

    /// Somebody connects to a primary: it is told what this host is, and refuses.
    #[inline(never)]
    fn answer(&mut self, incoming: &Incoming) -> Result<Infallible, SessionError> {
        self.open(&incoming.stream)?;
        self.framed(&incoming.stream, Role::Primary);
        self.set_peer(incoming.host);
        self.send_state()?;
        let header = self.recv()?;
        match self.rx.message(&header).map_err(SessionError::wire)? {
            Message::Refuse(r) => {
                let ended = SessionError::by_peer(&r, false);
                if r.code == Code::Forked {
                    self.group.refuse_start(r.text);
                }
                Err(ended)
            }
            Message::Goodbye(r) => Err(SessionError::by_peer(&r, true)),
            _ => Err(Worker::unexpected(header.kind)),
        }
    }

    /// Remembers who the peer is.
    pub(super) fn set_peer(&self, host: HostId) {
        self.link.view.lock().peer_host = host;
    }

    /// State, Welcome, Ready.
    #[inline(never)]
    fn handshake(&mut self, host: HostId) -> Result<Session, SessionError> {
        self.set_peer(host);
        let header = self.recv()?;
        if matches!(self.rx.message(&header), Err(WireError::Field("role"))) {
            self.rx.comes_from(Role::Primary);
        }
        settle(&self.group, &self.link)?;
        let facts = SuperblockInfo::of(&self.group)?;
        let decision = match self.rx.message(&header).map_err(SessionError::wire)? {
            Message::State(s) if s.head.role == Role::Primary => {
                return Err(rival(&self.group, &facts, &s, host))
            }
            Message::State(s) => decide(&self.group, &self.link, &facts, &s)?,
            Message::Refuse(r) => return Err(SessionError::by_peer(&r, false)),
            Message::Goodbye(r) => return Err(SessionError::by_peer(&r, true)),
            _ => return Err(Worker::unexpected(header.kind)),
        };
        let promised = decision.promise(&mut self.group.inner.lock().node, self.link.id);
        let promise = promised.map_err(|why| error::verdict(why, false))?;
        let session = loop {
            if let Some(id) = SessionId::from_wire(random::u64()) {
                break id;
            }
        };
        self.welcome(&facts, promise.decision(), session)?;
        self.rx.begin_session(session);
        let header = self.recv()?;
        let has = match self.rx.message(&header).map_err(SessionError::wire)? {
            Message::Ready(p) => p,
            Message::Refuse(r) => return Err(SessionError::by_peer(&r, false)),
            Message::Goodbye(r) => return Err(SessionError::by_peer(&r, true)),
            _ => return Err(Worker::unexpected(header.kind)),
        };
        self.begin_session(session)?;
        let mut sender = self.keep_promise(promise, has, host, &facts.volumes)?;
        let credit = header.envelope.credit;
        sender.set_credit(credit.seq, credit.byte);
        let syncing = decision.sync.is_some_and(|s| s.kind == Kind::Full);
        self.link.answered.set(true);
        self.link.step(
            &self.group,
            state::Event::Welcomed { sync: syncing },
            if syncing { Reason::Sync } else { Reason::None },
            format_args!("sending from record {}", decision.resume),
        );
        if decision.begins() == Some(Kind::AssumeClean) {
            self.link.sync_over.set(true);
            self.link.changed.notify();
        }
        Ok(Session::new(sender, facts.volumes))
    }

    /// The peer took the welcome: makes durable what follows from it, and begins the session.
    #[inline(never)]
    fn keep_promise(
        &self,
        promise: Promise,
        has: Progress,
        host: HostId,
        volumes: &[Volume],
    ) -> Result<Sender, SessionError> {
        let ended = |why| match why {
            NoSession::GivenUp => self.overrun(),
            NoSession::Nonsense(e) => SessionError::wire(e),
        };
        let (ready, sender) = {
            let still = self.group.pause.hold();
            let ready = promise.ready(&self.group.inner.lock().node, has);
            let ready = ready.map_err(ended)?;
            self.sync_began(&still, &ready, host)?;
            let sender = ready.keep(&mut self.group.inner.lock().node, volumes.iter());
            (ready, sender)
        };
        let began = match ready.decision().begins() {
            Some(Kind::Full) => Some((
                Event::SyncStarted,
                Reason::Sync,
                "full synchronisation started",
            )),
            Some(Kind::AssumeClean) => Some((
                Event::SyncDone,
                Reason::Admin,
                "both sides were declared equal",
            )),
            None => None,
        };
        if let Some((event, reason, text)) = began {
            event::link(&self.group, &self.link, event, Severity::Info, reason, text);
        }
        sender.map_err(ended)
    }

    #[inline(never)]
    fn welcome(
        &mut self,
        facts: &SuperblockInfo,
        d: &Decision,
        session: SessionId,
    ) -> Result<(), SessionError> {
        let envelope = self.envelope();
        let head = d.welcome(facts.uuid, facts.name, session, envelope.position);
        let volumes = facts.volumes.iter().copied();
        self.tx.push(None, |out| {
            wire::encode_welcome(&envelope, &head, &facts.lineage(), volumes, out)
        })
    }
}

/// Another primary answered.
fn rival(group: &Arc<Group>, facts: &SuperblockInfo, s: &State<'_>, host: HostId) -> SessionError {
    let us = group.identity().host;
    let forked = |new: HostId, old: HostId| {
        SessionError::refused(
            Reason::Forked,
            Code::Forked,
            format_args!("host {new} took over from host {old}, their histories have forked: give the old one up (format its SRL again, add it as secondary, sync --full)"),
        )
    };
    match meet::meet(&facts.lineage(), &s.lineage) {
        Rival::Newer => {
            let ended = forked(host, us);
            // A starting one must not write; a running one must not be stopped by a mistaken takeover.
            group.refuse_start(ended.refusal.text());
            ended
        }
        Rival::Older => forked(us, host),
        Rival::Same => SessionError::refused(
            Reason::RoleConflict,
            Code::Role,
            format_args!("both hosts are primary of the group: add it with --role secondary on one of them (format its SRL again first)"),
        ),
    }
}

/// Judges a secondary, and what an administrator asked for.
#[inline(never)]
fn decide(
    group: &Arc<Group>,
    link: &Link,
    mine: &SuperblockInfo,
    s: &State<'_>,
) -> Result<Decision, SessionError> {
    let h = &s.head;
    if !h.group.is_none() && h.group != mine.uuid {
        return Err(SessionError::refused(
            Reason::GroupMismatch,
            Code::OtherGroup,
            format_args!("the peer's group {} is another group (uuid {}, here {}): its SRL was used with another primary; format it again", h.group_name.as_str(), h.group, mine.uuid),
        ));
    }
    check_volumes(mine, s)?;
    let wanted = link.view.lock().syncs.wanted();
    let slot = group
        .srl
        .read(|sb| sb.link(usize::from(link.id.0)).and_then(|l| l.sync))
        .unwrap_or_default();
    let (head, oldest) = {
        let inner = group.inner.lock();
        (inner.node.head(), inner.node.oldest_held())
    };
    let peer = Peer::of(h, s.lineage);
    let primary = Primary {
        lineage: mine.lineage(),
        head,
        oldest,
    };
    let mut unread = None;
    let decision = primary::decide(
        &primary,
        &peer,
        wanted,
        slot,
        mine.volumes.first().map(|v| v.id),
        |kind| match kind {
            Kind::Full => group.inner.lock().node.sync_start(),
            Kind::AssumeClean => super::sync::quiet_head(group),
        },
        |seq| {
            read_back::chain_at(group, seq).unwrap_or_else(|e| {
                unread = Some(e);
                None
            })
        },
    );
    if let Some(e) = unread {
        // What could not be looked up now is not gone: the hosts meet again. A synchronisation that was asked for begins
        // all the same where the log cannot be read, as where it is gone: it is the way out.
        let begins = matches!(&decision, Ok(d) if d.begins().is_some());
        if !begins || e.reason != Reason::LogFailed {
            return Err(e);
        }
    }
    let decision = match decision {
        Ok(decision) => decision,
        Err(Refusal::NeedsSync(why)) => return Err(error::verdict(why, false)),
        Err(Refusal::Refuse { why, asked }) => {
            let e = error::verdict(why, asked);
            if why == Why::Forked && !asked {
                group.refuse_start(e.refusal.text());
            }
            return Err(e);
        }
        Err(Refusal::NotQuiet) => {
            return Err(SessionError::needs_sync(
                Reason::NeverSynced,
                format_args!("--assume-clean came too late: the group was written to; suspend all its volumes (or use 'dmrepl sync --full') and say it again"),
            ))
        }
    };
    match decision.first {
        Some(First::Over) => super::sync::finished(group, link)?,
        Some(First::Forget) => write_slot(group, link, durable::sync_forgets)
            .map_err(|r| SessionError::own(Reason::LogFailed, r))?,
        None => {}
    }
    link.view.lock().syncs.forgets(&decision);
    Ok(decision)
}

/// Whether the peer's volumes can hold ours.
#[inline(never)]
fn check_volumes(mine: &SuperblockInfo, s: &State<'_>) -> Result<(), SessionError> {
    for v in mine.volumes.iter() {
        let theirs = s.volumes.iter().find(|t| t.name == v.name);
        meet::check_volume(v, theirs.as_ref()).map_err(|fault| error::volume(&v.name, fault))?;
    }
    Ok(())
}
