// SPDX-License-Identifier: GPL-2.0

//! A secondary adopts its primary's history: it resumes in it, or starts anew at a point of it.
//!
//! Both write identity, lineage and volumes of the primary in one superblock with what follows from them, while the
//! applier stands still and the log is idle. The welcome is answered, and a record of the session taken, only when that is
//! durable.

use core::fmt;

use crate::{
    group::{Name, Volume},
    lineage::{Lineage, LineageError},
    log::superblock::{Inconsistent, Superblock, Tail, VolumeError, VolumeSlot, VolumeState},
    units::{Chain, GroupUuid, Position, Sector, Seq},
};

/// The history that is adopted.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The group, which an empty secondary joins.
    pub group: GroupUuid,
    /// The group's name on this host.
    pub name: Name,
    /// The primary's lineage.
    pub lineage: Lineage<'a>,
}

/// Why a history cannot be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptError {
    /// Its lineage cannot be taken over.
    Lineage(LineageError),
    /// One of its volumes cannot be entered.
    Volume(VolumeError),
    /// This host's log begins at a record whose epoch the lineage does not name any more.
    Folded,
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdoptError::Lineage(e) => e.fmt(f),
            AdoptError::Volume(e) => e.fmt(f),
            AdoptError::Folded => {
                f.write_str("the primary's history is too long to go on from this host's log")
            }
        }
    }
}

impl From<LineageError> for AdoptError {
    fn from(e: LineageError) -> AdoptError {
        AdoptError::Lineage(e)
    }
}

impl From<VolumeError> for AdoptError {
    fn from(e: VolumeError) -> AdoptError {
        AdoptError::Volume(e)
    }
}

/// Whether the log of `sb` can go on under `lineage`, which names the epoch of its first record: else a scan would call it
/// damaged. `commit`: as for [`resume`].
pub fn may_resume(sb: &Superblock, lineage: &Lineage<'_>, commit: Seq) -> Result<(), AdoptError> {
    let folded = lineage.before().last;
    if sb.ring().is_some() && sb.tail().seq <= folded || commit < folded {
        return Err(AdoptError::Folded);
    }
    Ok(())
}

/// The same history goes on: everything that this host holds above the fork never was.
///
/// `commit`: this host's commit point, no higher than the fork ([`Node::adopted_commit`](crate::node::Node::adopted_commit)).
/// *Before:* nothing above the fork may be on the data volumes; no log write is in flight. *A cut before:* the former
/// lineage, and the next handshake says the same. *A cut after:* the next scan ends at the fork, because the lineage gives what
/// lies above to another epoch; the commit position does not claim a record above it, which would look like damage.
/// Refused where the lineage does not name the epoch of the log's first record: the next scan would call the log damaged.
/// *Must be durable before* memory is cut at the fork, and before a record of the new epoch is placed (trace X2).
pub fn resume(
    sb: &mut Superblock,
    history: &History<'_>,
    volumes: impl Iterator<Item = Volume>,
    commit: Seq,
) -> Result<(), AdoptError> {
    may_resume(sb, &history.lineage, commit)?;
    adopt(sb, history, volumes)?;
    sb.set_commit(sb.lineage().position(commit).unwrap_or_default());
    Ok(())
}

/// Where a secondary starts anew.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// A point that the primary cannot lose.
    pub start: Position,
    /// Chain value there.
    pub chain: Chain,
    /// The log is empty from here on. Its seq and chain follow from `start`.
    pub tail: Tail,
    /// A synchronisation makes the volumes equal; else they were declared equal.
    pub sync: bool,
    /// Now, ns since 1970.
    pub time_ns: u64,
}

/// Everything that this host had is given up: it starts at a point of the primary's history, with an empty log, and inconsistent
/// unless it was declared equal.
///
/// *Before:* the primary keeps everything above `start`. *A cut before:* what was there is there, untouched. *A cut after:*
/// no record of the former log lies behind the tail, because the tail's seq, place and chain are new; no copy has
/// been written.
/// *Must be durable before* the first region copy is written: else a crash leaves a mixture that calls itself consistent.
pub fn restart(
    sb: &mut Superblock,
    history: &History<'_>,
    volumes: impl Iterator<Item = Volume>,
    r: &Restart,
) -> Result<(), AdoptError> {
    adopt(sb, history, volumes)?;
    if r.sync {
        sb.set_inconsistent(Inconsistent {
            since: r.start,
            time_ns: r.time_ns,
            until: None,
        });
    } else {
        sb.set_consistent(false);
    }
    sb.set_applied(r.start);
    sb.set_commit(r.start);
    sb.set_horizon(r.start);
    sb.set_redo(false);
    sb.set_checkpoint(r.start, r.chain);
    sb.set_tail(Tail {
        seq: r.start.seq.next(),
        chain: r.chain,
        ..r.tail
    });
    for i in 0..sb.volume_count() {
        if let Some(slot) = sb.volume(i) {
            let slot = VolumeSlot {
                state: if r.sync {
                    VolumeState::Syncing
                } else {
                    VolumeState::Normal
                },
                cursor: Sector(0),
                end: Seq::NONE,
                ..slot
            };
            sb.set_volume(i, &slot)?;
        }
    }
    Ok(())
}

/// The primary's identity, lineage and volumes.
fn adopt(
    sb: &mut Superblock,
    history: &History<'_>,
    volumes: impl Iterator<Item = Volume>,
) -> Result<(), AdoptError> {
    if sb.group().is_none() {
        sb.set_group(history.group, history.name);
    }
    sb.adopt_lineage(&history.lineage)?;
    for v in volumes {
        let known = sb
            .find_volume(&v.name)
            .and_then(|i| Some((i, sb.volume(i)?)));
        match known {
            Some((i, mut slot)) => {
                // It may have changed at the primary, or with the primary.
                (slot.volume.size, slot.volume.logical_block) = (v.size, v.logical_block);
                slot.cursor = slot.cursor.min(v.size);
                sb.set_volume(i, &slot)?;
            }
            None => sb.adopt_volume(v)?,
        }
    }
    Ok(())
}
