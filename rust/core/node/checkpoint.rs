// SPDX-License-Identifier: GPL-2.0

//! Checkpoints: how log space is given back.
//!
//! Data writes up to `d` complete -> flush of every data device -> superblock with the new tail,
//! durable -> *only then* the space. Each step returns the proof that the next one takes, so that the
//! order cannot be got wrong by the caller: [`Begun`] -> [`Flushed`] -> [`Update`] -> space.
//!
//! Trace X5 without the flush: W1 applied (device cache), tail moves past it, power cut: W1 is nowhere.
//! A failed device ends the checkpoint, and the next ones stay where its floor is ([`Node::volume_failed`]).
//! Trace X6 with the network ack instead of the data ack: the peer holds W1 in memory only, the tail
//! moves, both hosts lose power: the peer never gets W1, the primary has it.

use super::{applied::Point, links::LinkId, Log, Memory, Node, Role};
use crate::{
    log::{batch::worst_case_bytes, ring::Mark},
    units::{Bytes, Chain, Sector, Seq, VolumeId, MAX_RECORD_BYTES},
};

/// Data writes up to `upto`, and so many copies, are complete; the data devices are to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Begun {
    upto: Point,
    /// The same for the volumes that have no floor.
    applied: Point,
    copies: u64,
    reached: Option<(VolumeId, Sector)>,
    failures: u32,
}

/// Everything up to `upto` is durable on the data devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flushed {
    upto: Point,
    reached: Option<(VolumeId, Sector)>,
}

/// What the superblock must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Update {
    /// Everything up to here is on the data volumes.
    pub applied: Seq,
    /// Chain value after it.
    pub chain: Chain,
    /// The commit point.
    pub commit: Seq,
    /// Where the scan starts (`None`: no ring, or unchanged).
    pub tail: Option<Mark>,
    /// Without a ring: a redo ended, the flag goes.
    pub redo_ended: bool,
    /// A sync ended: the replica is consistent.
    pub sync_ended: bool,
    /// Volume and sector that durable region copies have reached on this host (`None`: as before).
    pub cursor: Option<(VolumeId, Sector)>,
}

impl<M: Memory> Node<M> {
    /// Begins a checkpoint. Flush every data device, then call [`Self::checkpoint_flushed`]; where that failed, call
    /// [`Self::volume_failed`].
    pub fn checkpoint_begin(&self) -> Begun {
        Begun {
            upto: self.clean_point(),
            applied: self.applier.point(),
            copies: self.copies.unflushed(),
            reached: self.copies.reached(),
            failures: self.failures,
        }
    }

    /// The data devices were flushed after [`Self::checkpoint_begin`]. `None`: meanwhile a device failed, so that
    /// this flush proves nothing.
    pub fn checkpoint_flushed(&mut self, begun: Begun) -> Option<Flushed> {
        if begun.failures != self.failures {
            return None;
        }
        self.applier.data_flushed(begun.applied);
        self.copies.flushed(begun.copies);
        Some(Flushed {
            upto: begun.upto,
            reached: begun.reached,
        })
    }

    /// What the superblock must say now.
    pub fn checkpoint_update(&mut self, flushed: Flushed) -> Update {
        let mut redo_ended = false;
        let tail = match &mut self.log {
            Log::Ring(w) => {
                let mut keep = flushed.upto.seq.min(w.commit_point());
                if self.role == Role::Primary {
                    self.positions.settle(w.commit_point());
                    keep = keep.min(self.positions.tail_limit(w.commit_point()));
                }
                w.tail_after(keep, flushed.upto.chain)
            }
            Log::NoRing(n) => {
                redo_ended = n.redo.is_some_and(|to| flushed.upto.seq >= to);
                None
            }
        };
        Update {
            applied: flushed.upto.seq,
            chain: flushed.upto.chain,
            commit: self.commit(),
            tail,
            redo_ended,
            sync_ended: self.copies.ends_at(flushed.upto.seq),
            cursor: flushed.reached,
        }
    }

    /// The superblock that says so is durable: the space before the tail is free.
    pub fn checkpoint_done(&mut self, update: Update) {
        if update.sync_ended {
            self.copies.ended();
        }
        match &mut self.log {
            Log::Ring(w) => {
                if let Some(mark) = update.tail {
                    let mut free = mark.first;
                    if self.role == Role::Primary {
                        // A link may have been promised older records while the superblock was under way. They are
                        // kept; after a crash the tail says that they are gone, and the link needs a sync.
                        free = free.min(self.positions.tail_limit(w.commit_point()).next());
                    }
                    w.tail_stated(mark, free);
                }
            }
            Log::NoRing(n) => {
                n.durable = n.durable.max(update.applied);
                if update.redo_ended {
                    n.redo = None;
                    n.redo_durable = false;
                }
            }
        }
    }

    /// Whether a checkpoint would free space, raise an acknowledgement or end a sync.
    pub fn checkpoint_useful(&self) -> bool {
        if self.has_failed() {
            return false;
        }
        if self.copies.want_flush() || self.copies.ends_at(self.clean()) {
            return true;
        }
        match &self.log {
            Log::Ring(w) => {
                let mut keep = self.clean().min(w.commit_point());
                if self.role == Role::Primary {
                    keep = keep.min(self.positions.tail_limit(w.commit_point()));
                }
                w.tail_moves(keep) || self.applier.applied() > self.applier.flushed()
            }
            Log::NoRing(n) => self.clean() > n.durable,
        }
    }

    /// The link to give up (`needs-sync`) because the ring is full and it alone holds the tail back.
    ///
    /// Never one that writers wait for, see [`Position::may_be_given_up`](super::links::Position::may_be_given_up).
    pub fn link_to_give_up(&self) -> Option<LinkId> {
        // A secondary keeps nothing for anybody.
        let (Log::Ring(w), Role::Primary) = (&self.log, self.role) else {
            return None;
        };
        let largest = worst_case_bytes(MAX_RECORD_BYTES, w.ring.block());
        if w.ring.has_room(Bytes(u64::from(largest))) {
            return None;
        }
        let id = self.positions.most_behind()?;
        let behind = self.positions.get(id)?;
        let pins = behind.pinned(behind.kept)? < self.clean();
        (behind.may_be_given_up() && pins).then_some(id)
    }
}
