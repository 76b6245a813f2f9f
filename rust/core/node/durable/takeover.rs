// SPDX-License-Identifier: GPL-2.0

//! The superblock that makes a secondary the primary.

use core::fmt;

use super::grow::{begin_epoch, GrowError, Limits};
use crate::{
    group::{self, Volume},
    lineage::{Epoch, Reason},
    log::superblock::{Superblock, VolumeError},
    units::{EpochId, Seq},
};

/// A takeover.
#[derive(Clone, Copy, Debug)]
pub struct TakeOver {
    /// T: last record of the history that goes on here.
    pub end: Seq,
    /// Random: id of the new epoch.
    pub epoch: EpochId,
    /// Now, ns since 1970.
    pub time_ns: u64,
    /// How much history is kept.
    pub limits: Limits,
}

/// Why a takeover is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOverError {
    /// No new epoch can begin.
    Epoch(GrowError),
    /// T lies below what the lineage still names: this host lacks all records of the epochs that it adopted.
    Folded {
        /// T.
        end: Seq,
        /// Last seq whose epoch is folded.
        folded: Seq,
    },
    /// A volume cannot be entered.
    Volume(VolumeError),
}

impl fmt::Display for TakeOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeOverError::Epoch(e) => e.fmt(f),
            TakeOverError::Folded { end, folded } => write!(
                f,
                "its log ends at record {end}, and its history names no epoch up to record {folded}: it is too old to go on from"
            ),
            TakeOverError::Volume(e) => e.fmt(f),
        }
    }
}

/// The secondary becomes the primary: a new epoch from T + 1 on, and the volumes as they are here.
///
/// *Before:* all sessions are closed, so that no acknowledgement leaves any more; everything up to T is durable in the log
/// (without a ring: on the volumes, flushed); the applier stands still. *A cut before:* a secondary that is not ahead of its
/// primary. *A cut after:* a primary that starts, and recovers T.
/// *Must be durable before* a volume is writable, or a record above the former primary's commit point is applied.
/// Without a ring what is written from now on leaves no record: everything since T may differ, which the same superblock says.
pub fn take_over(
    sb: &mut Superblock,
    t: &TakeOver,
    volumes: impl Iterator<Item = Volume>,
) -> Result<(), TakeOverError> {
    let folded = sb.lineage().before().last;
    if t.end < folded {
        return Err(TakeOverError::Folded { end: t.end, folded });
    }
    sb.set_role(group::Role::Primary);
    let before = sb.lineage().position(t.end).unwrap_or_default();
    let epoch = Epoch {
        id: t.epoch,
        first: t.end.next(),
        host: sb.host(),
        reason: Reason::TookOver,
        time_ns: t.time_ns,
        index: 0,
    };
    // Links of a secondary keep nothing: whether one was given up says nothing new.
    let _ = begin_epoch(sb, epoch, t.limits).map_err(TakeOverError::Epoch)?;
    if sb.ring().is_none() {
        sb.set_unlogged(Some(before));
    }
    sb.set_commit(sb.lineage().position(t.end).unwrap_or_default());
    sb.set_consistent(false);
    // From now on the volumes are what they are here: peers must fit these.
    for v in volumes {
        let Some(i) = sb.find_volume(&v.name) else {
            continue;
        };
        if let Some(mut slot) = sb.volume(i) {
            slot.volume.size = v.size;
            slot.volume.logical_block = v.logical_block;
            sb.set_volume(i, &slot).map_err(TakeOverError::Volume)?;
        }
    }
    Ok(())
}
