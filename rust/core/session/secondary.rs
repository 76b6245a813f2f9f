// SPDX-License-Identifier: GPL-2.0

//! The secondary's side of the handshake: what it states of itself, and how it takes the welcome that answers.
//!
//! [`state`] is what the primary decides on ([`decide`](super::primary::decide)). A welcome is taken in this order, and each
//! step takes what the one before it returned:
//!
//! 1. [`Offer::of`]: it makes sense, and is of this group.
//! 2. [`Offer::fits`]: every volume of the primary is here.
//! 3. [`Fitting::take_up`]: its history may be adopted, and the former session is revoked.
//! 4. [`Adoption::waits_for`]: the former session has ended, and the log holds all that it brought.
//! 5. [`Adoption::agree`], while the applier stands still: what was applied meanwhile is not above the fork. What memory does
//!    not hold is read under the new lineage and compared first ([`Unread::found`]). *Up to here nothing has changed on disk.*
//! 6. [`Agreed::record`]: the superblock says so.
//! 7. [`Agreed::begin`]: only then memory follows, and the session begins.
//!
//! From 3 on the link holds the adoption: where a step fails or is not taken, the caller ends it with
//! [`adoption_failed`](crate::node::Node::adoption_failed).
//!
//! Trace with 7 before 6: the secondary drops record 2, which its primary lost, takes the new record 2, applies it and is cut
//! before the superblock names the new epoch: the next scan finds the former record 2 in the log (X2).
//!
//! Trace without the second look of 5: records 1 and 2 are in the log, the fork is 1; while the adoption waits for the former
//! session the applier writes record 2: memory is cut at 1, and 2 stays on the volume (P4).

use super::{
    meet::{self, Succession, VolumeFault, Why},
    SessionId,
};
use crate::{
    group::{self, Name, Volume},
    lineage::Lineage,
    log::{
        ring::Place,
        superblock::{Superblock, Tail},
    },
    node::{
        durable::adopt::{self, AdoptError, History, Restart},
        inbound::{Inbound, NoAdoption, Stated},
        links::LinkId,
        phase::Phase,
        secondary::{BadTerms, Terms},
        volumes::State,
        Log, Memory, Node, Role,
    },
    units::{Bytes, Chain, GroupUuid, Position, Seq, VolumeId},
    wire::{Start, StateHead, WelcomeHead, WireError},
};

/// Why this host has no session now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unable {
    /// Its log, superblock or a volume failed: it could not keep what it acknowledges.
    Failed,
    /// Its group does not run normally.
    NotActive,
}

/// Whether a secondary can keep what it would acknowledge. `volumes`: what those that are attached do with I/O.
pub fn may_follow<M: Memory>(
    node: &Node<M>,
    phase: Phase,
    mut volumes: impl Iterator<Item = State>,
) -> Result<(), Unable> {
    let failed =
        node.has_failed() || node.beyond_repair().is_some() || volumes.any(|v| v == State::Failed);
    match phase {
        Phase::Failed => Err(Unable::Failed),
        _ if failed => Err(Unable::Failed),
        Phase::Active => Ok(()),
        Phase::Holding { .. } | Phase::TakingOver | Phase::Unlogged | Phase::Gone => {
            Err(Unable::NotActive)
        }
    }
}

/// Returns what this host states of itself.
pub fn state<M: Memory>(node: &Node<M>, sb: &Superblock) -> StateHead {
    let lineage = sb.lineage();
    let at = |seq: Seq| lineage.position(seq).unwrap_or_default();
    let (checkpoint, checkpoint_chain) = sb.checkpoint();
    let (ring, horizon) = match &node.log {
        Log::Ring(_) => (true, Seq::NONE),
        Log::NoRing(n) => (false, n.horizon),
    };
    let (logged, chain) = match node.logged_end() {
        Some(end) => (at(end.seq), end.chain),
        // What memory does not know the checkpoint knows.
        None => (checkpoint, checkpoint_chain),
    };
    StateHead {
        features: 0,
        group: sb.group(),
        group_name: sb.group_name(),
        role: match node.role() {
            Role::Primary => group::Role::Primary,
            Role::Secondary => group::Role::Secondary,
        },
        replica: sb.replica(),
        ring,
        redo: sb.redo(),
        logged,
        chain,
        applied: at(node.applied_bound()),
        horizon: at(horizon),
        checkpoint,
        checkpoint_chain,
        sync_end: sb.inconsistent().and_then(|i| i.until),
    }
}

/// Returns an id for a volume that has none yet, for the statement only: the highest below `last` that is not `taken`.
pub fn spare_id(last: VolumeId, taken: impl Fn(VolumeId) -> bool) -> VolumeId {
    let mut below = (0..last.0).rev().map(VolumeId);
    below.find(|id| !taken(*id)).unwrap_or_default()
}

/// Why a welcome was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It says what cannot be.
    Nonsense(WireError),
    /// It is another group's.
    OtherGroup,
    /// A volume of the primary is not here, or does not fit.
    Volume(Name, VolumeFault),
    /// A volume has another number in this host's table: the two were not made by the same group.
    OtherNumber(Name),
    /// Its history does not go with what this host has.
    Terms(BadTerms),
    /// Its history cannot be taken up.
    History(AdoptError),
    /// Another session, or this host's own state, stands against it.
    Adoption(NoAdoption),
    /// This host's log ends at this record under the new lineage, although it held more: it is damaged.
    LogEnds(Seq),
}

impl From<BadTerms> for NotTaken {
    fn from(e: BadTerms) -> NotTaken {
        NotTaken::Terms(e)
    }
}

impl From<Why> for NotTaken {
    fn from(e: Why) -> NotTaken {
        NotTaken::Terms(BadTerms::Histories(e))
    }
}

impl From<AdoptError> for NotTaken {
    fn from(e: AdoptError) -> NotTaken {
        NotTaken::History(e)
    }
}

impl From<NoAdoption> for NotTaken {
    fn from(e: NoAdoption) -> NotTaken {
        NotTaken::Adoption(e)
    }
}

/// A welcome that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    session: SessionId,
    fork: Position,
    fork_chain: Option<Chain>,
    resume: Seq,
    head: Seq,
    /// Region copies will come.
    sync: bool,
    /// What is here is given up; the chain value where this host begins anew.
    anew: Option<Chain>,
}

impl Offer {
    /// Returns what a welcome offers to a host of `group`.
    pub fn of(h: &WelcomeHead, group: GroupUuid) -> Result<Offer, NotTaken> {
        let nonsense = |what| NotTaken::Nonsense(WireError::Field(what));
        let session =
            SessionId::from_wire(h.session).ok_or(nonsense("welcome (it has no session)"))?;
        if !group.is_none() && group != h.group {
            return Err(NotTaken::OtherGroup);
        }
        if h.fork.seq > h.head.seq || h.resume > h.fork.seq.next() {
            return Err(nonsense("welcome (it resumes above the fork)"));
        }
        let anew = match h.start {
            Start::Resume | Start::SyncGoesOn => None,
            Start::SyncBegins | Start::AssumeClean if h.resume != h.fork.seq.next() => {
                return Err(nonsense("welcome (it does not begin at its fork)"));
            }
            Start::SyncBegins | Start::AssumeClean => {
                let chain = h.fork_chain;
                Some(chain.ok_or(nonsense("welcome (it begins without a chain value)"))?)
            }
        };
        Ok(Offer {
            session,
            fork: h.fork,
            fork_chain: h.fork_chain,
            resume: h.resume,
            head: h.head.seq,
            sync: h.start.is_sync(),
            anew,
        })
    }

    /// Checks that each of the primary's `volumes` is here, large enough and under its number. `here`: the volume of a name
    /// that is attached here.
    pub fn fits(
        self,
        sb: &Superblock,
        volumes: impl Iterator<Item = Volume>,
        mut here: impl FnMut(&Name) -> Option<Volume>,
    ) -> Result<Fitting, NotTaken> {
        for v in volumes {
            meet::check_volume(&v, here(&v.name).as_ref())
                .map_err(|fault| NotTaken::Volume(v.name, fault))?;
            if sb.find_volume(&v.name) != sb.find_volume_id(v.id) {
                return Err(NotTaken::OtherNumber(v.name));
            }
        }
        Ok(Fitting(self))
    }
}

/// A welcome whose volumes are all here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fitting(Offer);

impl Fitting {
    /// Takes up the welcome that came on `link` and answers what this host `stated`: from here on no other session brings
    /// anything. `theirs`: its lineage.
    pub fn take_up<M: Memory>(
        self,
        node: &mut Node<M>,
        sb: &Superblock,
        theirs: &Lineage<'_>,
        link: LinkId,
        stated: Stated,
    ) -> Result<Adoption, NotTaken> {
        let offer = self.0;
        let succession = meet::may_adopt(&sb.lineage(), theirs, offer.anew.is_some())?;
        let adoption = Adoption {
            link,
            offer,
            succession,
        };
        if offer.anew.is_none() {
            node.check_terms(&adoption.terms())?;
            adopt::may_resume(sb, theirs, node.adopted_commit(offer.fork.seq))?;
        }
        // Fails where another welcome was taken up since the statement. One that was being recorded while this host stated
        // itself may have mixed its lineage with former positions: the looks above are at what is here now, so that what is
        // taken is right; what the primary then sends anew is known already.
        node.adoption_begins(link, stated, succession)?;
        Ok(adoption)
    }
}

/// What an adoption waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The session with the former primary ends.
    Session,
    /// The log writes what it was given.
    Log,
}

/// A welcome that was taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Adoption {
    link: LinkId,
    offer: Offer,
    succession: Succession,
}

impl Adoption {
    fn terms(&self) -> Terms {
        Terms {
            fork: self.offer.fork.seq,
            fork_chain: self.offer.fork_chain,
            resume: self.offer.resume,
            sync: self.offer.sync,
            succession: self.succession,
        }
    }

    /// Returns what must happen first: no acknowledgement of the former session can leave any more, and the log holds
    /// everything that memory has in order, because it is cut as a whole.
    pub fn waits_for<M: Memory>(&self, node: &Node<M>) -> Result<Option<Wait>, NotTaken> {
        if !node.may_adopt() {
            return Ok(Some(Wait::Session));
        }
        if node.has_failed() {
            return Err(NoAdoption::Failed.into());
        }
        Ok(match &node.log {
            Log::Ring(w) if !w.is_idle() || w.logged_head() < node.window.head() => Some(Wait::Log),
            Log::Ring(_) | Log::NoRing(_) => None,
        })
    }

    /// Nothing is waited for, and the applier stands still from here to [`Agreed::begin`]: looks at the terms again, because more
    /// may have been applied.
    pub fn agree<M: Memory>(self, node: &Node<M>) -> Result<Agreement, NotTaken> {
        let agreed = |becomes| {
            Ok(Agreement::Agreed(Agreed {
                adoption: self,
                becomes,
            }))
        };
        if let Some(chain) = self.offer.anew {
            let (offset, lap) = match &node.log {
                Log::Ring(w) => (w.ring.offset(w.ring.head()), w.ring.lap(w.ring.head())),
                Log::NoRing(_) => (Bytes(0), 0),
            };
            return agreed(Becomes::Anew { chain, offset, lap });
        }
        node.check_terms(&self.terms())?;
        let fork = self.offer.fork.seq;
        let commit = node.adopted_commit(fork);
        if node.must_rescan(fork) {
            return Ok(Agreement::Unread(Unread {
                adoption: self,
                commit,
            }));
        }
        agreed(Becomes::Cut { commit, end: None })
    }
}

/// What [`Adoption::agree`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Agreement {
    /// The log holds records above the fork: it must be scanned under the new lineage.
    Unread(Unread),
    /// The superblock may say so.
    Agreed(Agreed),
}

/// An adoption that cuts the log, whose end under the new lineage is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unread {
    adoption: Adoption,
    commit: Seq,
}

impl Unread {
    /// Returns what the scan must find: nothing above it is proven under the new lineage.
    pub fn proven(&self) -> Seq {
        self.commit
    }

    /// The log ends after `head`, with chain value `chain`; the next batch goes to `place`.
    pub fn found(self, head: Seq, place: Place, chain: Chain) -> Result<Agreed, NotTaken> {
        let offer = &self.adoption.offer;
        if head != offer.fork.seq {
            return Err(NotTaken::LogEnds(head));
        }
        // What memory does not hold was not compared before.
        if offer.fork_chain.is_some_and(|theirs| theirs != chain) {
            return Err(Why::ChainDiffers.into());
        }
        Ok(Agreed {
            adoption: self.adoption,
            becomes: Becomes::Cut {
                commit: self.commit,
                end: Some((place, chain)),
            },
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Becomes {
    /// What is above the fork never was. `end`: where the log ends, if it held more.
    Cut {
        commit: Seq,
        end: Option<(Place, Chain)>,
    },
    /// Everything is given up; the log goes on at this place of the ring, empty.
    Anew {
        chain: Chain,
        offset: Bytes,
        lap: u64,
    },
}

/// A welcome that will be taken: the superblock says so next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Agreed {
    adoption: Adoption,
    becomes: Becomes,
}

impl Agreed {
    /// Returns whether region copies will come (`Some(true)`) or equality was declared, where this host begins anew.
    pub fn anew(&self) -> Option<bool> {
        let offer = &self.adoption.offer;
        offer.anew.map(|_| offer.sync)
    }

    /// Whether there is anything to record: a session after another one of the same epoch brings nothing new.
    #[must_use]
    pub fn is_news(&self, sb: &Superblock, mut volumes: impl Iterator<Item = Volume>) -> bool {
        let cuts = !matches!(self.becomes, Becomes::Cut { end: None, .. });
        cuts || self.adoption.succession != Succession::Same
            || volumes.any(|v| {
                let known = sb.find_volume(&v.name).and_then(|i| sb.volume(i));
                !known.is_some_and(|k| {
                    (k.volume.size, k.volume.logical_block) == (v.size, v.logical_block)
                })
            })
    }

    /// What the superblock says from now on. `history`, `volumes`: the welcome's. `time_ns`: now, ns since 1970.
    pub fn record(
        &self,
        sb: &mut Superblock,
        history: &History<'_>,
        volumes: impl Iterator<Item = Volume>,
        time_ns: u64,
    ) -> Result<(), AdoptError> {
        match self.becomes {
            Becomes::Cut { commit, .. } => adopt::resume(sb, history, volumes, commit),
            Becomes::Anew { chain, offset, lap } => {
                let restart = Restart {
                    start: self.adoption.offer.fork,
                    chain,
                    tail: Tail {
                        offset,
                        lap,
                        ..Tail::default()
                    },
                    sync: self.adoption.offer.sync,
                    time_ns,
                };
                adopt::restart(sb, history, volumes, &restart)
            }
        }
    }

    /// The superblock says so: memory follows, and the session begins.
    pub fn begin<M: Memory>(self, node: &mut Node<M>) -> Result<Begun, NotTaken> {
        let offer = &self.adoption.offer;
        let fork = offer.fork.seq;
        match self.becomes {
            Becomes::Cut { end, .. } => {
                if !node.truncate(fork, end) {
                    return Err(Why::PeerAhead.into());
                }
            }
            Becomes::Anew { chain, .. } => node.restart_at(fork, chain, offer.sync),
        }
        let owner = node
            .session_began(self.adoption.link, offer.session)
            .ok_or(NoAdoption::Role)?;
        Ok(Begun {
            owner,
            resume: offer.resume,
            head: offer.head,
            sync: node.copies.is_syncing(),
        })
    }
}

/// A session that began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Begun {
    /// Its right to bring records.
    pub owner: Inbound,
    /// First record that comes.
    pub resume: Seq,
    /// The primary's newest record when it sent the welcome.
    pub head: Seq,
    /// The replica is inconsistent until a synchronisation ends.
    pub sync: bool,
}
