// SPDX-License-Identifier: GPL-2.0

//! A new epoch, and what the lineage forgets for it.
//!
//! A lineage keeps a limited number of epochs; the oldest is folded for a new one, and then nobody knows any more to which
//! epoch its seqs belong. Nothing that is still needed may be folded:
//!
//! - *This host's log*, from the tail on: the scan and the replay accept a batch only in the epoch that the lineage gives to its
//!   seq. Trace without it: a link is away and keeps the tail in epoch 1, the primary restarts 64 times; the scan knows no epoch
//!   for the first batch, takes it for missing, and calls a whole log damaged. (Found by review; `tests/durable.rs`.)
//! - *A link's position*: its peer would be taken for one of another history.
//!
//! A link whose position lies before the newest [`Limits::links`] epochs is therefore marked `needs-sync` in the superblock that
//! begins the epoch, while the lineage still has room for some more. What that link kept is freed by the next checkpoint, and the
//! tail moves, long before its epoch must be folded. A host whose own replay still needs the epoch is refused the new one.

use core::fmt;

use crate::{
    lineage::{Epoch, LineageError, MAX_EPOCHS},
    log::superblock::{LinkState, Superblock},
    node::links::LinkId,
    units::Seq,
};

use super::{links, start::kept};

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Epochs in a lineage.
    pub epochs: usize,
    /// A link's position lies in one of so many newest epochs, or it needs a synchronisation. Less than `epochs`.
    pub links: usize,
}

impl Limits {
    /// What the format has room for; links are given up eight epochs earlier.
    pub const FORMAT: Limits = Limits {
        epochs: MAX_EPOCHS,
        links: MAX_EPOCHS - 8,
    };
}

/// Why no new epoch can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowError {
    /// The lineage refuses it.
    Lineage(LineageError),
    /// The oldest epoch would have to be folded, and this host's own volumes still lack records from `tail` on.
    ReplayNeeds {
        /// First record that the log still needs.
        tail: Seq,
        /// The new epoch would fold everything up to here.
        folds: Seq,
    },
}

impl fmt::Display for GrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrowError::Lineage(e) => e.fmt(f),
            GrowError::ReplayNeeds { tail, folds } => write!(
                f,
                "its volumes still lack records from {tail} on, and a new epoch would fold the history up to {folds}; its peers have them: take over there, or synchronise from there"
            ),
        }
    }
}

impl From<LineageError> for GrowError {
    fn from(e: LineageError) -> GrowError {
        GrowError::Lineage(e)
    }
}

/// Links that were marked `needs-sync`, a bit for each slot.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp(u32);

impl GivenUp {
    /// Returns the links.
    pub fn iter(self) -> impl Iterator<Item = LinkId> {
        (0..32u8)
            .filter(move |i| self.0 & 1u32.wrapping_shl(u32::from(*i)) != 0)
            .map(LinkId)
    }
}

/// Begins `epoch` in `sb`. See the module.
pub(super) fn begin_epoch(
    sb: &mut Superblock,
    epoch: Epoch,
    limits: Limits,
) -> Result<GivenUp, GrowError> {
    // The last seq before the newest `n` epochs, counting the new one.
    let before_newest = |sb: &Superblock, n: usize| {
        let lineage = sb.lineage();
        let kept = lineage
            .iter()
            .take_while(|e| e.first <= epoch.first)
            .count();
        let oldest = kept.checked_add(1)?.checked_sub(n).filter(|i| *i > 0)?;
        lineage.get(oldest).map(|e| e.first.prev())
    };
    if let Some(folds) = before_newest(sb, limits.epochs) {
        let tail = if sb.ring().is_some() {
            sb.tail().seq
        } else {
            sb.applied().seq.next()
        };
        // An empty log needs nothing: its tail is where the epoch begins.
        if tail <= folds && tail < epoch.first {
            return Err(GrowError::ReplayNeeds { tail, folds });
        }
    }
    let mut given_up = GivenUp::default();
    if let Some(last) = before_newest(sb, limits.links) {
        for slot in 0..crate::node::links::MAX_LINKS as u8 {
            let behind = sb
                .link(usize::from(slot))
                .filter(|l| l.state != LinkState::NeedsSync)
                .and_then(|l| kept(&l))
                .is_some_and(|seq| seq < last);
            if behind && links::needs_sync(sb, LinkId(slot)).is_ok() {
                given_up.0 |= 1u32.wrapping_shl(u32::from(slot));
            }
        }
    }
    sb.push_epoch_within(epoch, limits.epochs)?;
    Ok(given_up)
}
