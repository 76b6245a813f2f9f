// SPDX-License-Identifier: GPL-2.0

//! The start of a host: what its superblock says, whether the host may start on it, and the superblock of the new life.

use super::grow::{begin_epoch, GivenUp, GrowError, Limits};
use crate::{
    group::{self, Name},
    lineage::{self, Epoch},
    log::{
        ring::Place,
        superblock::{Link, LinkState, Superblock, Tail},
    },
    node::{
        links::{self, LinkId, Positions},
        NoRing, Role, Store,
    },
    units::{Bytes, Chain, EpochId, GroupUuid, Position, Seq},
};

/// What a start needs to know of a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The group; `GroupUuid::NONE` before its first life.
    pub uuid: GroupUuid,
    /// The group's name on this host.
    pub name: Name,
    /// The recorded role.
    pub role: group::Role,
    /// Everything up to here is on the data volumes.
    pub applied: Position,
    /// Chain value of the last checkpoint.
    pub checkpoint_chain: Chain,
    /// Nothing above it may be on the data volumes (without a ring).
    pub horizon: Position,
    /// A redo was begun.
    pub redo: bool,
    /// Where the scan starts.
    pub tail: Tail,
    /// Size of the ring.
    pub ring: Option<Bytes>,
    /// Writes went past the log since a takeover without a ring.
    pub unlogged: bool,
    /// The log is void since this generation.
    pub void: Option<u64>,
    /// Links recorded.
    pub links: usize,
    /// A synchronisation of this host is unfinished.
    pub syncing: bool,
    /// The last seq whose epoch is folded.
    pub folded: Seq,
}

/// Why a host may not start on a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It belongs to the group of this name.
    OtherGroup(Name),
    /// Its records are void since this generation.
    Void(u64),
    /// It has another role than the one asked for.
    Role(Role),
    /// It is new, and no role was asked for.
    RoleUnknown,
    /// It has no ring, which a primary needs.
    NoRing,
    /// Its log begins at this record, and its lineage does not name the epoch of that any more.
    Folded(Seq),
}

impl Facts {
    /// Returns what `sb` says.
    #[must_use]
    pub fn of(sb: &Superblock) -> Facts {
        Facts {
            uuid: sb.group(),
            name: sb.group_name(),
            role: sb.role(),
            applied: sb.applied(),
            checkpoint_chain: sb.checkpoint().1,
            horizon: sb.horizon(),
            redo: sb.redo(),
            tail: sb.tail(),
            ring: sb.ring().map(|a| a.length),
            unlogged: sb.unlogged().is_some(),
            void: sb.log_void(),
            links: sb.links().count(),
            syncing: sb.inconsistent().is_some(),
            folded: sb.lineage().before().last,
        }
    }

    /// Whether the superblock has never been part of a group's life.
    #[must_use]
    pub fn is_first_life(&self) -> bool {
        self.uuid.is_none() || self.role == group::Role::None
    }

    /// Returns the role in which group `name` starts here, when it may. `asked`: what the administrator said.
    pub fn role_for(&self, name: Name, asked: Option<Role>) -> Result<Role, Unfit> {
        if !self.name.is_none() && self.name != name {
            return Err(Unfit::OtherGroup(self.name));
        }
        if let Some(generation) = self.void {
            return Err(Unfit::Void(generation));
        }
        let recorded = match self.role {
            group::Role::None => None,
            group::Role::Primary => Some(Role::Primary),
            group::Role::Secondary => Some(Role::Secondary),
        };
        let role = match (asked, recorded) {
            (Some(asked), Some(is)) if asked != is => return Err(Unfit::Role(is)),
            (Some(role), _) | (None, Some(role)) => role,
            (None, None) => return Err(Unfit::RoleUnknown),
        };
        if role == Role::Primary && self.ring.is_none() && !self.unlogged {
            return Err(Unfit::NoRing);
        }
        if self.ring.is_some() && self.tail.seq <= self.folded {
            return Err(Unfit::Folded(self.tail.seq));
        }
        Ok(role)
    }

    /// Returns the absolute place in the ring where the scan starts.
    #[must_use]
    pub fn tail_place(&self) -> Place {
        let size = self.ring.unwrap_or(Bytes(0)).0;
        Place(
            self.tail
                .lap
                .saturating_mul(size)
                .saturating_add(self.tail.offset.0),
        )
    }

    /// Returns what a host without a ring knows durably.
    #[must_use]
    pub fn no_ring(&self) -> NoRing {
        NoRing::after_start(self.applied.seq, self.horizon.seq, self.redo)
    }
}

/// The life that a host begins.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Name of the group.
    pub name: Name,
    /// Role, as [`Facts::role_for`] returned it.
    pub role: Role,
    /// Last record that the scan found; without a ring the applied position.
    pub head: Seq,
    /// Random: the uuid of a group that has none yet. Used by its first primary only.
    pub uuid: GroupUuid,
    /// Random: id of a primary's new epoch.
    pub epoch: EpochId,
    /// Now, ns since 1970.
    pub time_ns: u64,
    /// How much history is kept.
    pub limits: Limits,
}

/// The superblock of a new life: identity and role; for a primary with a ring its new epoch, and no position above
/// the head that the scan found.
///
/// *Before:* the scan ended at `head`, and the log was flushed after the scan, so that a power cut cannot take what the scan
/// found (rule RecoveryFlush). Nothing has been replayed, written or told.
/// *A cut before:* the next start scans the same log to the same head. *A cut after:* the next start finds an epoch that owns
/// no record, and begins another one at the same seq.
/// *Must be durable before* a record of the epoch is written or sent, a link is told a position, or a volume takes writes:
/// trace X1 (the peer holds record 2 of the former life, which is lost here; without the epoch it takes the new record 2 for a
/// duplicate), and X19 for the positions.
/// Returns the links that lie too far back in the history to be kept: they need a synchronisation, see [`super::grow`].
pub fn begin_life(sb: &mut Superblock, life: &Life) -> Result<GivenUp, GrowError> {
    let facts = Facts::of(sb);
    let first_life = facts.is_first_life();
    if facts.name.is_none() || facts.uuid.is_none() {
        let uuid = match (life.role, facts.uuid.is_none()) {
            (Role::Primary, true) => life.uuid,
            (Role::Primary | Role::Secondary, _) => facts.uuid,
        };
        sb.set_group(uuid, life.name);
    }
    sb.set_role(life.role.into());
    sb.set_clean(false);
    if life.role == Role::Secondary || facts.ring.is_none() {
        return Ok(GivenUp::default());
    }
    let epoch = Epoch {
        id: life.epoch,
        first: life.head.next(),
        host: sb.host(),
        reason: if first_life {
            lineage::Reason::Created
        } else {
            lineage::Reason::Recovered
        },
        time_ns: life.time_ns,
        index: 0,
    };
    let given_up = begin_epoch(sb, epoch, life.limits)?;
    let at_head = sb.lineage().position(life.head).unwrap_or_default();
    sb.set_commit(at_head);
    cut_links(sb, at_head);
    if first_life {
        sb.set_consistent(false);
    }
    Ok(given_up)
}

/// Nothing above the head was ever told to anybody by this history.
fn cut_links(sb: &mut Superblock, head: Position) {
    for slot in 0..crate::node::links::MAX_LINKS {
        if let Some(link) = sb.link(slot) {
            if link.position.seq > head.seq {
                let position = head;
                let _ = sb.set_link(slot, Some(&Link { position, ..link }));
            }
        }
    }
}

/// Sets `positions` to what the superblock keeps for each link, none above `head`.
pub fn positions<S>(sb: &Superblock, head: Seq, positions: &mut Positions<S>)
where
    S: Store<Option<links::Position>>,
{
    for (slot, link) in sb.links() {
        if let Ok(slot) = u8::try_from(slot) {
            positions.set(LinkId(slot), link.mode, kept(&link));
        }
    }
    positions.cut(head);
}

/// Returns the position above which the log keeps everything for a link; `None`: it must be synchronised.
#[must_use]
pub fn kept(link: &Link) -> Option<Seq> {
    match link.state {
        LinkState::Normal | LinkState::Syncing => Some(link.position.seq),
        LinkState::NeedsSync | LinkState::Logging => None,
    }
}
