// SPDX-License-Identifier: GPL-2.0

//! The primary's decision about a session: from where the peer goes on, or which synchronisation begins or goes on.
//!
//! [`meet::judge`] compares two histories. Here that is put together with what an administrator asked for and with a
//! synchronisation that an earlier session did not end. A [`Decision`] is executed in this order, and each step takes what
//! the one before it returned:
//!
//! 1. The superblock says what [`Decision::first`] names.
//! 2. [`Decision::promise`]: the log keeps everything from `resume` on, beside what it kept for the peer before.
//! 3. The welcome is sent; the peer makes it durable and answers: [`Promise::ready`].
//! 4. The superblock says what follows from it: [`Ready::record`].
//! 5. [`Ready::keep`]: only then what the log kept for the peer's former position may go. The session begins.
//!
//! Trace without the order of 3 and 4: the superblock says that a synchronisation runs from record 9; the peer never gets the
//! welcome; a cut; the primary would send it copies, where it could have gone on from record 3.
//!
//! Trace without 1: a synchronisation from record 3 has copied half of a volume when another one is asked for; the peer takes the
//! welcome and forgets everything up to record 9, where that one starts; a cut of the primary before its superblock says so. It
//! says that a synchronisation goes on from the middle: records 4 to 9 never reach the first half, and the peer calls itself
//! consistent. So the slot forgets how far the old one was before the peer hears of the new one. (Found by the explorer.)

use super::{
    meet::{self, Peer, Primary, Verdict, Why},
    resync::Copies,
    sender::Sender,
    SessionId,
};
use crate::{
    group::{Name, Replica, SyncKind, Volume},
    log::superblock::{Superblock, SyncState, Tail},
    node::{
        durable::links::{self, NoSlot},
        links::LinkId,
        Memory, Node,
    },
    units::{Chain, GroupUuid, HostId, Position, Sector, Seq, VolumeId},
    wire::{Progress, Start, WelcomeHead, WireError},
};

/// How a peer is brought to what this host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Everything is copied.
    Full,
    /// Nothing is copied: both sides are known to be equal.
    AssumeClean,
}

/// A synchronisation of a link, as far as it outlives a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resync {
    /// Number of the request among those of its link, see [`Syncs`](super::syncs::Syncs); 0: it was found recorded.
    pub number: u32,
    /// Which.
    pub kind: Kind,
    /// The peer has not begun it yet.
    pub fresh: bool,
    /// It may discard a history of the peer's own.
    pub force: bool,
    /// Where it began.
    pub start: Position,
    /// Volume and sector up to which the peer's copies are durable.
    pub at: (VolumeId, Sector),
    /// Where it ends, once all copies were sent.
    pub end: Option<Seq>,
}

impl Resync {
    /// Returns one that was asked for. `first`: the first volume of the table.
    pub fn new(kind: Kind, force: bool, first: VolumeId) -> Resync {
        Resync {
            number: 0,
            kind,
            fresh: true,
            force,
            start: Position::default(),
            at: (first, Sector(0)),
            end: None,
        }
    }

    /// Returns the one that a link's slot in the superblock records. One of which nothing was copied begins again: that costs
    /// nothing, and the log need not hold everything since.
    pub fn recorded(s: &SyncState) -> Resync {
        Resync {
            number: 0,
            kind: Kind::Full,
            fresh: s.cursor == Sector(0) && s.end.is_none(),
            force: false,
            start: s.start,
            at: (s.volume, s.cursor),
            end: s.end.map(|p| p.seq),
        }
    }

    /// The peer's copies are durable up to `at`. `false`: of another synchronisation, this one has not begun.
    #[must_use]
    pub fn moved(&mut self, at: (VolumeId, Sector)) -> bool {
        if !self.fresh {
            self.at = at;
        }
        !self.fresh
    }

    /// All copies were sent, it ends at `end`. `false`: another one does, this one has not begun.
    #[must_use]
    pub fn ends(&mut self, end: Seq) -> bool {
        if !self.fresh {
            self.end = Some(end);
        }
        !self.fresh
    }

    /// What was copied so far is worth nothing.
    fn begin_anew(&mut self, first: Option<VolumeId>) {
        self.fresh = true;
        self.end = None;
        self.at = (first.unwrap_or_default(), Sector(0));
    }

    /// Returns the copies still to be made, in a new session; they go volume by volume, in the order of the table. `None`:
    /// nothing is copied.
    pub fn copies<'a>(
        &self,
        mut volumes: impl Iterator<Item = &'a Volume> + Clone,
    ) -> Option<Copies> {
        if self.kind != Kind::Full {
            return None;
        }
        let (v, cursor) = match volumes.clone().find(|v| v.id == self.at.0) {
            Some(v) => (v, self.at.1),
            None => (volumes.next()?, Sector(0)),
        };
        Some(Copies::new(v.id, v.size, cursor.min(v.size)))
    }

    /// Returns what the link's slot records of it when it begins.
    pub fn to_slot(&self) -> SyncState {
        SyncState {
            kind: SyncKind::Full,
            volume: self.at.0,
            cursor: self.at.1,
            start: self.start,
            end: None,
        }
    }
}

/// What the primary says to a peer that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// First record to send.
    pub resume: Seq,
    /// The peer drops what it holds above.
    pub fork: Position,
    /// Chain value there, where the primary knows it.
    pub fork_chain: Option<Chain>,
    /// The synchronisation of this session, new or going on.
    pub sync: Option<Resync>,
    /// What the superblock must say before the welcome.
    pub first: Option<First>,
}

/// What the superblock must say before the welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum First {
    /// The recorded synchronisation is over: the peer ended it
    /// ([`sync_over`](crate::node::durable::links::sync_over)).
    Over,
    /// Nothing of the recorded synchronisation was copied: another one begins
    /// ([`sync_forgets`](crate::node::durable::links::sync_forgets)).
    Forget,
}

impl Decision {
    /// Returns which synchronisation begins, and does not go on, in this session.
    pub fn begins(&self) -> Option<Kind> {
        self.sync.filter(|s| s.fresh).map(|s| s.kind)
    }

    /// Returns what the welcome says.
    fn start(&self) -> Start {
        match (self.begins(), self.sync) {
            (Some(Kind::Full), _) => Start::SyncBegins,
            (Some(Kind::AssumeClean), _) => Start::AssumeClean,
            (None, Some(_)) => Start::SyncGoesOn,
            (None, None) => Start::Resume,
        }
    }

    /// Returns the welcome to a session. `head`: this host's newest record.
    pub fn welcome(
        &self,
        group: GroupUuid,
        group_name: Name,
        session: SessionId,
        head: Position,
    ) -> WelcomeHead {
        WelcomeHead {
            features: 0,
            session: SessionId::to_wire(Some(session)),
            group,
            group_name,
            resume: self.resume,
            fork: self.fork,
            fork_chain: self.fork_chain,
            head,
            start: self.start(),
        }
    }

    /// Makes the log keep what the peer will need, before it is welcomed. Undone by the end of the connection
    /// ([`disconnected`](crate::node::links::Positions::disconnected)).
    ///
    /// # Errors
    ///
    /// Neither log nor memory holds it any more.
    pub fn promise<M: Memory>(self, node: &mut Node<M>, link: LinkId) -> Result<Promise, Why> {
        if self.resume < node.oldest_held() {
            return Err(Why::Trimmed);
        }
        node.positions.promise(link, self.resume.prev());
        Ok(Promise {
            link,
            decision: self,
        })
    }
}

/// A decision whose records the log keeps: the peer may be welcomed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Promise {
    link: LinkId,
    decision: Decision,
}

/// Why a session that was agreed does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSession {
    /// The log was full, and the link was given up.
    GivenUp,
    /// The peer says what cannot be.
    Nonsense(WireError),
}

impl Promise {
    /// Returns what the peer is welcomed to.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The peer took the welcome, durably. `has`: what it holds.
    ///
    /// Who gives a link up may not do so until the superblock says what follows, and memory with it: the caller holds the
    /// applier still from here to [`Ready::keep`]. Nor may a checkpoint come between: it would put what memory still says over
    /// the link's slot.
    pub fn ready<M: Memory>(self, node: &Node<M>, has: Progress) -> Result<Ready, NoSession> {
        if has.received > node.head() {
            return Err(NoSession::Nonsense(WireError::Field(
                "readiness (it holds a record that was never written)",
            )));
        }
        let link = node.positions.get(self.link);
        if link.is_some_and(|l| l.promised.is_some()) {
            Ok(Ready { promise: self, has })
        } else {
            Err(NoSession::GivenUp)
        }
    }
}

/// A peer that took its welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ready {
    promise: Promise,
    has: Progress,
}

impl Ready {
    /// Returns what the peer was welcomed to.
    pub fn decision(&self) -> &Decision {
        &self.promise.decision
    }

    /// Whether there is anything to record.
    #[must_use]
    pub fn is_news(&self, sb: &Superblock, peer: HostId) -> bool {
        self.decision().begins().is_some() || links::session_is_news(sb, self.promise.link, peer)
    }

    /// What the superblock says of a session with `peer`. `tail`: where the log must begin for it
    /// ([`Node::log_tail`] of the record before the first one to send).
    pub fn record(
        &self,
        sb: &mut Superblock,
        peer: HostId,
        tail: Option<Tail>,
    ) -> Result<(), NoSlot> {
        let (link, d) = (self.promise.link, self.decision());
        let (from, chain) = (d.resume.prev(), d.fork_chain.unwrap_or_default());
        match d.sync.filter(|s| s.fresh) {
            Some(s) if s.kind == Kind::Full => {
                links::sync_began(sb, link, peer, chain, s.to_slot())
            }
            Some(_) => links::declared_equal(sb, link, peer, from, chain),
            None => links::session_began(sb, link, peer, from, tail),
        }
    }

    /// The superblock says so: the session begins. What the log kept for the peer's former position may go.
    pub fn keep<'a, M: Memory>(
        self,
        node: &mut Node<M>,
        volumes: impl Iterator<Item = &'a Volume> + Clone,
    ) -> Result<Sender, NoSession> {
        let (link, d) = (self.promise.link, self.decision());
        let last = d.resume.prev();
        let copies = d.sync.and_then(|s| s.copies(volumes));
        if !node.positions.keep_promise(link, copies.is_some()) {
            return Err(NoSession::GivenUp);
        }
        node.positions
            .session(link, last, last, last.min(self.has.applied));
        Ok(Sender::new(link, d.resume, self.has.received, copies))
    }
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Only a synchronisation helps, and nobody asked for one.
    NeedsSync(Why),
    /// An administrator must decide.
    Refuse {
        /// Why.
        why: Why,
        /// A synchronisation was asked for, but not one that may discard the peer's history.
        asked: bool,
    },
    /// Equality was declared, but this host is written to.
    NotQuiet,
}

/// Decides about a peer.
///
/// - `wanted`: what was asked for, or what the slot records.
/// - `slot`: what it records.
/// - `first`: the first volume of the table.
/// - `start`: where a synchronisation of that kind can start, and the chain value there; `None`: it cannot.
/// - `chain_at`: this host's chain value after a seq, where it knows it.
///
/// # Errors
///
/// See [`Refusal`]; nothing may be changed then.
pub fn decide(
    mine: &Primary<'_>,
    peer: &Peer<'_>,
    wanted: Option<Resync>,
    slot: Option<SyncState>,
    first: Option<VolumeId>,
    start: impl FnOnce(Kind) -> Option<(Seq, Chain)>,
    chain_at: impl FnMut(Seq) -> Option<Chain>,
) -> Result<Decision, Refusal> {
    let mut wanted = wanted;
    if let Some(s) = &mut wanted {
        if !s.fresh && peer.replica == Replica::Consistent && s.end.is_none() {
            // The peer is not in the middle of anything: its volumes are not those that were copied to.
            s.begin_anew(first);
        }
    }
    let peer = Peer {
        syncing: peer.syncing || wanted.is_some_and(|s| !s.fresh),
        ..*peer
    };
    let verdict = meet::judge(mine, &peer, chain_at);
    if let Some(mut sync) = wanted.filter(|s| s.fresh) {
        sync.begin_anew(first);
        return match verdict {
            Verdict::Refuse(why) if !sync.force => Err(Refusal::Refuse { why, asked: true }),
            Verdict::Refuse(_) | Verdict::NeedsSync(_) | Verdict::Resume { .. } => {
                let (at, chain) = start(sync.kind).ok_or(Refusal::NotQuiet)?;
                let fork = mine.lineage.position(at).unwrap_or_default();
                let copied = slot.is_some_and(|s| !Resync::recorded(&s).fresh);
                Ok(Decision {
                    resume: at.next(),
                    fork,
                    fork_chain: Some(chain),
                    sync: Some(Resync {
                        start: fork,
                        ..sync
                    }),
                    first: copied.then_some(First::Forget),
                })
            }
        };
    }
    match verdict {
        Verdict::Resume {
            fork,
            fork_chain,
            resume,
        } => {
            let over =
                wanted.is_some_and(|s| s.end.is_some()) && peer.replica == Replica::Consistent;
            Ok(Decision {
                resume,
                fork,
                fork_chain,
                sync: wanted.filter(|_| !over),
                first: over.then_some(First::Over),
            })
        }
        Verdict::NeedsSync(why) => Err(Refusal::NeedsSync(why)),
        Verdict::Refuse(why) => Err(Refusal::Refuse { why, asked: false }),
    }
}
