// SPDX-License-Identifier: GPL-2.0

//! Who may bring records to this host: at most one session, the inbound owner.
//!
//! A group may have a link to each of several hosts, and more than one of them may call itself primary: two hosts lose
//! sight of each other, one takes over, the third sees both. The trace that breaks P7 and P8 without this rule (seen in
//! guests), hosts A, B, C, only A-B cut, A idle:
//!
//! 1. B takes over at T and connects to C. C adopts B's lineage. The session of A on C lives on.
//! 2. A's record T+1 is placed, logged under B's epoch and acknowledged to A.
//! 3. B's record T+1 has a seq that is there already: it is dropped as a duplicate, and acknowledged to B, which frees it.
//! 4. C holds A's write, calls itself consistent, and B holds it for equal.
//!
//! So a session must own the inbound side to place a record or a copy, to move the commit point, or to acknowledge
//! anything ([`Inbound`]). The order of a change of owner:
//!
//! ```text
//! welcome judged -> adoption_begins: former owner revoked -> its session ended -> log drained -> lineage durable
//!                   (from here it places and acknowledges    (may_adopt)                          -> session_began
//!                    nothing)
//! ```
//!
//! Nothing of the former session is acknowledged after the revocation, because positions to acknowledge are taken under
//! the order lock and only for the owner; what was taken before is on the wire, or dropped with the connection, before
//! the log is cut: the adoption waits for the end of that session. One adoption runs at a time; a welcome that
//! answers what this host stated before another one began is refused, and the hosts meet again.
//!
//! The caller holds the order lock around every call.

use super::{links::LinkId, secondary::Acks, Memory, Node, Role};
use crate::session::{meet::Succession, SessionId};

/// The right to bring records to this host: given by [`Node::session_began`], gone with the next adoption or takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inbound {
    link: LinkId,
    session: SessionId,
}

impl Inbound {
    /// Its session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }
}

/// The moment at which this host stated what it has. A welcome that answers the statement must not be taken when
/// another one was taken since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stated(u32);

/// Why nothing is taken from a session any more: it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The session is not, or no longer, the one that may bring records.
    NotOwner,
    /// This host's log, superblock or volume failed: it cannot keep what it would acknowledge.
    Failed,
    /// The record is of another epoch than this host's lineage has at its seq.
    OtherEpoch,
}

/// Why a welcome cannot be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoAdoption {
    /// This host is no secondary any more.
    Role,
    /// This host has failed.
    Failed,
    /// Another welcome is being taken, or was taken since this host stated what it has: state it again.
    Stale,
    /// The same primary feeds this host by another link.
    Followed(LinkId),
}

/// State of the inbound side. See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ownership {
    owner: Option<Inbound>,
    /// The link of a former owner whose session has not ended yet.
    leaving: Option<LinkId>,
    /// The link whose welcome is being taken.
    adopting: Option<LinkId>,
    /// Counts adoptions.
    adoptions: u32,
    /// This host keeps nothing reliably any more.
    failed: bool,
}

impl Ownership {
    /// Whether a session may bring anything.
    pub(super) fn is_owned(&self) -> bool {
        self.owner.is_some()
    }

    /// No session brings anything any more: this host takes over.
    pub(super) fn revoke_all(&mut self) {
        self.owner = None;
        self.adopting = None;
        self.adoptions = self.adoptions.wrapping_add(1);
    }
}

impl<M: Memory> Node<M> {
    /// Returns the moment of a statement about this host, for the welcome that answers it.
    pub fn stated(&self) -> Stated {
        Stated(self.inbound.adoptions)
    }

    /// Takes up a welcome that came on `link`: from here on nothing is taken from any other session.
    ///
    /// Returns the link whose session must end before anything is changed, see [`Self::may_adopt`]. On `Err` nothing has
    /// changed. Ends with [`Self::session_began`] or [`Self::adoption_failed`].
    pub fn adoption_begins(
        &mut self,
        link: LinkId,
        stated: Stated,
        succession: Succession,
    ) -> Result<Option<LinkId>, NoAdoption> {
        if self.role != Role::Secondary {
            return Err(NoAdoption::Role);
        }
        if self.has_failed() {
            return Err(NoAdoption::Failed);
        }
        let i = &mut self.inbound;
        if i.adopting.is_some() || i.adoptions != stated.0 {
            return Err(NoAdoption::Stale);
        }
        if let Some(former) = i.owner.filter(|o| o.link != link) {
            if succession == Succession::Same {
                return Err(NoAdoption::Followed(former.link));
            }
            i.leaving = Some(former.link);
        }
        i.owner = None;
        i.adopting = Some(link);
        i.adoptions = i.adoptions.wrapping_add(1);
        Ok(i.leaving)
    }

    /// Whether no acknowledgement of a former owner can leave any more: the adoption may change what this host has.
    pub fn may_adopt(&self) -> bool {
        self.inbound.leaving.is_none()
    }

    /// The welcome that `link` took up was not taken: nobody owns the inbound side. Harmless when there is none.
    pub fn adoption_failed(&mut self, link: LinkId) {
        self.inbound.adopting.take_if(|l| *l == link);
    }

    /// The welcome is durable here, and its session begins: forgets early arrivals and what the former one said of
    /// the commit point. Returns its right to bring records; `None` when it was revoked meanwhile.
    pub fn session_began(&mut self, link: LinkId, session: SessionId) -> Option<Inbound> {
        self.inbound.adopting.take_if(|l| *l == link)?;
        let owner = Inbound { link, session };
        self.inbound.owner = Some(owner);
        self.forget_session();
        Some(owner)
    }

    /// The session of `link` has ended: no acknowledgement of it leaves any more.
    pub fn inbound_ended(&mut self, link: LinkId) {
        self.inbound.owner.take_if(|o| o.link == link);
        self.inbound.leaving.take_if(|l| *l == link);
    }

    /// The superblock or another thing that the log rests on failed: nothing is received or acknowledged any more.
    pub fn fail(&mut self) {
        self.inbound.failed = true;
    }

    /// Whether this host cannot keep what it would receive.
    pub fn has_failed(&self) -> bool {
        self.inbound.failed || self.log_failed()
    }

    /// Whether `from` may bring anything, and be acknowledged anything.
    pub fn may_receive(&self, from: &Inbound) -> Result<(), Refused> {
        if self.inbound.owner.as_ref() != Some(from) {
            return Err(Refused::NotOwner);
        }
        if self.has_failed() {
            return Err(Refused::Failed);
        }
        Ok(())
    }

    /// Returns what may be acknowledged to `from` now.
    pub fn acks_for(&self, from: &Inbound) -> Result<Acks, Refused> {
        self.may_receive(from)?;
        Ok(self.acks())
    }
}
