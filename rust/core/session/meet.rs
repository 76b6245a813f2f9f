// SPDX-License-Identifier: GPL-2.0

//! The handshake's judgement: do two hosts share a history, and where does it go on?
//!
//! *Fork* is the highest seq whose epoch is the same in both lineages. The peer drops what it holds
//! above it and resumes at `min(logged, fork) + 1`. Positions are compared with their epochs, never as
//! bare numbers. Trace X19 otherwise: the peer logged seq 1 of epoch 1; the primary lost it in a power
//! cut and wrote another seq 1 in epoch 2; the peer's "1" is believed, the new record is freed unsent.
//!
//! Both hosts run this: the primary decides, the peer checks before it drops anything.

use crate::{
    group::{Replica, Volume},
    lineage::{Lineage, Reason},
    units::{Chain, Position, Seq},
    wire::StateHead,
};

/// What the peer said of itself.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its lineage.
    pub lineage: Lineage<'a>,
    /// State of its volumes.
    pub replica: Replica,
    /// The last record on its stable storage, and the chain value there.
    pub logged: Position,
    /// That chain value.
    pub chain: Chain,
    /// What may already be on its volumes (applied; without a ring the horizon).
    pub applied_bound: Seq,
    /// Without a ring, a redo was begun and not finished; or this primary's synchronisation of it goes on.
    pub syncing: bool,
}

impl<'a> Peer<'a> {
    /// Returns what a peer of this lineage stated.
    pub fn of(h: &StateHead, lineage: Lineage<'a>) -> Peer<'a> {
        Peer {
            lineage,
            replica: h.replica,
            logged: h.logged,
            chain: h.chain,
            applied_bound: if h.ring {
                h.applied.seq
            } else {
                h.applied.seq.max(h.horizon.seq)
            },
            syncing: h.redo,
        }
    }
}

/// What this primary has.
#[derive(Clone, Copy, Debug)]
pub struct Primary<'a> {
    /// Its lineage.
    pub lineage: Lineage<'a>,
    /// Its last record.
    pub head: Seq,
    /// The oldest record that its log still holds (head + 1 when none).
    pub oldest: Seq,
}

/// The judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Same history: drop above `fork`, send from `resume`.
    Resume {
        /// Highest common position.
        fork: Position,
        /// Chain value there, where the primary knows it.
        fork_chain: Option<Chain>,
        /// First record to send.
        resume: Seq,
    },
    /// Not refused, but only a sync helps.
    NeedsSync(Why),
    /// Refused until somebody decides.
    Refuse(Why),
}

/// Why a peer cannot simply go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It holds no data of this group yet.
    Empty,
    /// It says itself that its volumes are inconsistent.
    Inconsistent,
    /// The log does not hold what it needs any more.
    Trimmed,
    /// It has a history of its own.
    Forked,
    /// No epoch is common.
    Unrelated,
    /// What it holds ends where this primary's lineage names no epoch any more: it cannot be compared.
    Folded,
    /// It applied what this primary has lost.
    PeerAhead,
    /// Same seq, other content: the histories differ although the lineages do not.
    ChainDiffers,
}

/// Judges a peer. `chain_at` gives this host's chain value after a seq, where it knows it.
pub fn judge(
    mine: &Primary<'_>,
    peer: &Peer<'_>,
    mut chain_at: impl FnMut(Seq) -> Option<Chain>,
) -> Verdict {
    if peer.lineage.is_empty() {
        return Verdict::NeedsSync(Why::Empty);
    }
    // All that it applied may lie in epochs that are folded here. Whether that is this history's past or another history,
    // nobody can tell; a synchronisation helps either, and an administrator starts it.
    let folded = mine.lineage.before().last;
    // What it logged above and never applied does not count: this primary may have lost just that, more than once since.
    let newest_first = peer.lineage.newest().map_or(Seq::NONE, |e| e.first);
    let may_be_folded = mine.lineage.before().folded > 0
        && newest_first <= folded.next()
        && peer.applied_bound <= folded;
    let unknown = |why| {
        if may_be_folded {
            Verdict::NeedsSync(Why::Folded)
        } else {
            Verdict::Refuse(why)
        }
    };
    let Some(fork) = fork(mine, peer) else {
        return unknown(Why::Unrelated);
    };
    let Some(newest) = peer.lineage.newest() else {
        return Verdict::Refuse(Why::Unrelated);
    };
    if mine.lineage.find(&newest.id).is_none() && mine.lineage.before().epoch != newest.id {
        return unknown(Why::Forked);
    }
    if peer.applied_bound > fork.seq {
        return Verdict::Refuse(Why::PeerAhead);
    }
    match peer.replica {
        Replica::Empty => return Verdict::NeedsSync(Why::Empty),
        Replica::Inconsistent if !peer.syncing => return Verdict::NeedsSync(Why::Inconsistent),
        Replica::Inconsistent | Replica::Consistent => {}
    }
    let last = peer.logged.seq.min(fork.seq);
    let resume = last.next();
    if last < folded {
        return Verdict::NeedsSync(Why::Folded);
    }
    if resume < mine.oldest {
        return Verdict::NeedsSync(Why::Trimmed);
    }
    if peer.logged.seq <= fork.seq {
        match chain_at(last) {
            None => return Verdict::NeedsSync(Why::Trimmed),
            Some(c) if c != peer.chain => return Verdict::Refuse(Why::ChainDiffers),
            Some(_) => {}
        }
    }
    Verdict::Resume {
        fork,
        fork_chain: chain_at(fork.seq),
        resume,
    }
}

/// Highest position whose epoch is the same in both lineages; `None` when no epoch is.
pub fn fork(mine: &Primary<'_>, peer: &Peer<'_>) -> Option<Position> {
    let common = peer
        .lineage
        .iter()
        .rev()
        .find(|e| mine.lineage.find(&e.id).is_some());
    let Some(common) = common else {
        return fork_at_fold(mine, peer);
    };
    let mine_ends = mine.lineage.last_seq_of(&common.id).unwrap_or(mine.head);
    let theirs_ends = peer.lineage.last_seq_of(&common.id);
    let seq = theirs_ends.map_or(mine_ends, |t| t.min(mine_ends));
    // The common epoch may own nothing yet: then the last common record is of an older one.
    Some(mine.lineage.position(seq).unwrap_or(Position {
        epoch: common.id,
        seq,
    }))
}

/// No epoch is kept by both: the peer's may be the newest one that is folded here, which is known by its id and its last seq.
fn fork_at_fold(mine: &Primary<'_>, peer: &Peer<'_>) -> Option<Position> {
    let before = mine.lineage.before();
    let common = peer.lineage.iter().find(|e| e.id == before.epoch)?;
    let ends = peer.lineage.last_seq_of(&common.id).unwrap_or(before.last);
    let seq = ends.min(before.last);
    Some(mine.lineage.position(seq).unwrap_or(Position {
        epoch: common.id,
        seq,
    }))
}

/// The peer's own check of a welcome: it may drop above `fork` only what it never applied.
pub fn may_truncate(applied_bound: Seq, fork: Seq) -> Result<(), Why> {
    if applied_bound > fork {
        Err(Why::PeerAhead)
    } else {
        Ok(())
    }
}

/// What a welcome's lineage is to this host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Succession {
    /// The same epoch goes on.
    Same,
    /// Its newest epoch is new here: the primary started again, or all of it is new.
    Newer,
    /// The first epoch that is new here began with a takeover: that host may have been further behind than this one.
    TookOver,
}

/// The peer's own check of a welcome's lineage: it must contain this host's newest epoch, else the primary that sends
/// it is not, or no longer, one of this history. `begins`: a synchronisation or declared equality begins, which gives
/// up what is here.
pub fn may_adopt(
    mine: &Lineage<'_>,
    theirs: &Lineage<'_>,
    begins: bool,
) -> Result<Succession, Why> {
    let (Some(newest), Some(their_newest)) = (mine.newest(), theirs.newest()) else {
        return Ok(Succession::Newer);
    };
    if newest.id == their_newest.id {
        return Ok(Succession::Same);
    }
    if begins {
        return Ok(Succession::Newer);
    }
    // As in `judge`: of the folded epochs the newest that owns a seq is still known.
    if theirs.find(&newest.id).is_none() && theirs.before().epoch != newest.id {
        return Err(Why::Forked);
    }
    let new = theirs.iter().find(|e| mine.find(&e.id).is_none());
    Ok(match new.map(|e| e.reason) {
        Some(Reason::TookOver) => Succession::TookOver,
        _ => Succession::Newer,
    })
}

/// What a primary is to another primary that it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rival {
    /// The other has an epoch that this host does not know: it took over, this host's history is the old one.
    Newer,
    /// This host took over, or recovered, without the other: the other's history is the old one.
    Older,
    /// The same history: one of them has the wrong role.
    Same,
}

/// What to make of another primary with that lineage.
pub fn meet(mine: &Lineage<'_>, theirs: &Lineage<'_>) -> Rival {
    // What begins below the folded part of a lineage is the past for it, known or not.
    let unknown = |to: &Lineage<'_>, of: &Lineage<'_>| {
        of.newest()
            .is_some_and(|e| to.find(&e.id).is_none() && e.first > to.before().last)
    };
    if unknown(mine, theirs) {
        Rival::Newer
    } else if unknown(theirs, mine) {
        Rival::Older
    } else {
        Rival::Same
    }
}

/// What is wrong with a peer's volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeFault {
    /// The peer has no volume of this name.
    Missing,
    /// It is smaller.
    TooSmall {
        /// Its size.
        theirs: u64,
        /// The size needed, in sectors.
        ours: u64,
    },
    /// Its logical block is larger: what is written here could not be written there.
    BlockTooLarge {
        /// Its logical block size.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
}

/// Whether `theirs`, the peer's volume of the same name if there is one, can hold `ours`.
pub fn check_volume(ours: &Volume, theirs: Option<&Volume>) -> Result<(), VolumeFault> {
    let Some(theirs) = theirs else {
        return Err(VolumeFault::Missing);
    };
    if theirs.size < ours.size {
        return Err(VolumeFault::TooSmall {
            theirs: theirs.size.0,
            ours: ours.size.0,
        });
    }
    if theirs.logical_block > ours.logical_block {
        return Err(VolumeFault::BlockTooLarge {
            theirs: theirs.logical_block,
            ours: ours.logical_block,
        });
    }
    Ok(())
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_handshake))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::{
        lineage::{Before, Entry, Epoch},
        units::EpochId,
    };

    fn entry(id: u8, first: u64) -> Entry {
        Entry::from(Epoch {
            id: EpochId([id; 16]),
            first: Seq(first),
            ..Epoch::default()
        })
    }

    fn verdict(
        mine: &[Entry],
        head: u64,
        theirs: &[Entry],
        logged: u64,
        applied: u64,
    ) -> Option<Verdict> {
        let peer = Peer {
            lineage: Lineage::new(Before::default(), theirs).ok()?,
            replica: Replica::Consistent,
            logged: Position {
                epoch: EpochId::NONE,
                seq: Seq(logged),
            },
            chain: Chain(7),
            applied_bound: Seq(applied),
            syncing: false,
        };
        let mine = Primary {
            lineage: Lineage::new(Before::default(), mine).ok()?,
            head: Seq(head),
            oldest: Seq(3),
        };
        Some(judge(&mine, &peer, |_| Some(Chain(7))))
    }

    fn resume(v: Option<Verdict>) -> Option<(u64, u64)> {
        match v {
            Some(Verdict::Resume { fork, resume, .. }) => Some((fork.seq.0, resume.0)),
            _ => None,
        }
    }

    #[test]
    fn a_peer_of_an_older_epoch_drops_above_the_fork() {
        let mine = [entry(1, 1), entry(2, 6)];
        let v = verdict(&mine, 9, &[entry(1, 1)], 8, 4);
        assert_eq!(resume(v), Some((5, 6)));
        let v = verdict(&mine, 9, &[entry(1, 1)], 3, 3);
        assert_eq!(resume(v), Some((5, 4)));
    }

    #[test]
    fn a_peer_that_applied_what_was_lost_is_ahead() {
        let mine = [entry(1, 1), entry(2, 6)];
        let v = verdict(&mine, 9, &[entry(1, 1)], 8, 6);
        assert_eq!(v, Some(Verdict::Refuse(Why::PeerAhead)));
    }

    #[test]
    fn a_peer_with_an_epoch_of_its_own_is_forked() {
        let mine = [entry(1, 1)];
        let v = verdict(&mine, 9, &[entry(1, 1), entry(3, 6)], 7, 7);
        assert_eq!(v, Some(Verdict::Refuse(Why::Forked)));
        let v = verdict(&mine, 9, &[entry(4, 1)], 7, 7);
        assert_eq!(v, Some(Verdict::Refuse(Why::Unrelated)));
    }

    #[test]
    fn a_welcome_must_contain_what_is_here() {
        let took_over = |id, first| {
            Entry::from(Epoch {
                id: EpochId([id; 16]),
                first: Seq(first),
                reason: Reason::TookOver,
                ..Epoch::default()
            })
        };
        fn lineage(e: &[Entry]) -> Result<Lineage<'_>, crate::lineage::LineageError> {
            Lineage::new(Before::default(), e)
        }
        let adopt = |mine, theirs, begins| {
            Some(may_adopt(
                &lineage(mine).ok()?,
                &lineage(theirs).ok()?,
                begins,
            ))
        };
        let mine = [entry(1, 1), entry(2, 6)];
        assert_eq!(adopt(&mine, &mine, false), Some(Ok(Succession::Same)));
        assert_eq!(adopt(&[], &mine, false), Some(Ok(Succession::Newer)));
        let recovered = [entry(1, 1), entry(2, 6), entry(3, 8), took_over(4, 9)];
        assert_eq!(adopt(&mine, &recovered, false), Some(Ok(Succession::Newer)));
        // Also where nothing was ever written in the epoch that is common.
        let (old, taken) = ([entry(1, 1)], [entry(1, 1), took_over(5, 1)]);
        assert_eq!(adopt(&old, &taken, false), Some(Ok(Succession::TookOver)));
        // It lacks the newest epoch: refused, unless everything begins anew.
        assert_eq!(adopt(&mine, &taken, false), Some(Err(Why::Forked)));
        assert_eq!(adopt(&mine, &taken, true), Some(Ok(Succession::Newer)));
    }

    #[test]
    fn a_primary_that_comes_back_knows_that_another_took_over() {
        let took_over = [entry(1, 1), entry(2, 6)];
        let recovered = [entry(1, 1), entry(3, 8)];
        let stale = [entry(1, 1)];
        let lineage = |e| Lineage::new(Before::default(), e);
        let met = |mine, theirs| Some(meet(&lineage(mine).ok()?, &lineage(theirs).ok()?));
        assert_eq!(met(&recovered, &took_over), Some(Rival::Newer));
        assert_eq!(met(&stale, &took_over), Some(Rival::Newer));
        assert_eq!(met(&took_over, &stale), Some(Rival::Older));
        assert_eq!(met(&stale, &stale), Some(Rival::Same));
    }

    #[test]
    fn a_peer_below_the_fold_needs_a_sync_and_is_no_stranger() {
        let before = Before {
            folded: 3,
            last: Seq(50),
            epoch: EpochId([3; 16]),
        };
        let mine = [entry(4, 51), entry(5, 60)];
        let judged = |theirs: &[Entry], logged: u64| {
            let peer = Peer {
                lineage: Lineage::new(Before::default(), theirs).ok()?,
                replica: Replica::Consistent,
                logged: Position {
                    epoch: EpochId::NONE,
                    seq: Seq(logged),
                },
                chain: Chain(7),
                applied_bound: Seq(logged),
                syncing: false,
            };
            let mine = Primary {
                lineage: Lineage::new(before, &mine).ok()?,
                head: Seq(70),
                oldest: Seq(51),
            };
            Some(judge(&mine, &peer, |_| Some(Chain(7))))
        };
        let folded = Some(Verdict::NeedsSync(Why::Folded));
        // Its only epoch is not named here any more.
        assert_eq!(judged(&[entry(1, 1)], 8), folded);
        assert_eq!(judged(&[entry(1, 1), entry(2, 30)], 40), folded);
        // It holds all of the newest folded epoch: nothing is missing.
        assert_eq!(
            resume(judged(&[entry(1, 1), entry(3, 31)], 50)),
            Some((50, 51))
        );
        assert_eq!(judged(&[entry(1, 1), entry(3, 31)], 40), folded);
        // It holds more than that, of a history of its own.
        assert_eq!(
            judged(&[entry(1, 1), entry(9, 30)], 55),
            Some(Verdict::Refuse(Why::Unrelated))
        );
    }

    #[test]
    fn what_the_ring_no_longer_holds_needs_a_sync() {
        let v = verdict(&[entry(1, 1)], 9, &[entry(1, 1)], 1, 1);
        assert_eq!(v, Some(Verdict::NeedsSync(Why::Trimmed)));
    }
}
