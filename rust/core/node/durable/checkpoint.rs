// SPDX-License-Identifier: GPL-2.0

//! The superblocks of the applier: a checkpoint, and without a ring the horizon.

use crate::{
    group::Mode,
    log::{
        ring::Mark,
        superblock::{LinkState, Superblock, Tail, VolumeState},
    },
    node::{
        checkpoint::Update,
        links::{LinkId, MAX_LINKS},
        Log, Memory, Node,
    },
    units::{Sector, Seq, VolumeId},
};

/// What the log keeps for one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LinkMark {
    kept: Seq,
    needs_sync: bool,
    syncing: bool,
    mode: Mode,
}

/// All that a checkpoint's superblock says, taken from the node at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// The part that [`Node::checkpoint_done`] needs.
    pub update: Update,
    tail: Option<Tail>,
    links: [Option<LinkMark>; MAX_LINKS],
}

impl<M: Memory> Node<M> {
    fn tail_at(&self, m: Mark) -> Option<Tail> {
        let Log::Ring(w) = &self.log else {
            return None;
        };
        Some(Tail {
            seq: m.first,
            offset: w.ring.offset(m.place),
            lap: w.ring.lap(m.place),
            chain: m.chain,
        })
    }

    /// Returns the batch at which the log must begin to hold everything above `from`, as a superblock names it; `None`: it
    /// holds nothing above.
    pub fn log_tail(&self, from: Seq) -> Option<Tail> {
        let Log::Ring(w) = &self.log else {
            return None;
        };
        if w.logged_head() <= from {
            return None;
        }
        self.tail_at(w.index.find(from.next())?)
    }

    /// Returns the image of a checkpoint. Call it under the same hold of the order lock as
    /// [`Self::checkpoint_update`], so that positions and tail are of one moment.
    pub fn checkpoint_image(&self, update: Update) -> Image {
        let tail = update.tail.and_then(|m| self.tail_at(m));
        let mut links = [None; MAX_LINKS];
        for (LinkId(slot), l) in self.positions.iter() {
            if let Some(place) = links.get_mut(usize::from(slot)) {
                *place = Some(LinkMark {
                    kept: l.kept,
                    needs_sync: l.needs_sync,
                    syncing: l.syncing,
                    mode: l.mode,
                });
            }
        }
        Image {
            update,
            tail,
            links,
        }
    }
}

/// The superblock of a checkpoint: applied and commit position, where the log that is still needed begins, what it keeps for
/// each link, and links that it gave up.
///
/// *Before:* all data writes up to `applied` are complete, and a flush of every data device that began after that succeeded;
/// region copies up to the cursor likewise. *A cut before:* more is replayed than needed. *A cut after:* the space
/// before the tail is free, and nobody has used it.
/// *Must be durable before* the space is used (trace X5), and before a data ack of a host without a ring says `applied` (A4).
/// A link that is given up is `needs-sync` in the same superblock that moves the tail past what it lacks.
pub fn checkpoint(sb: &mut Superblock, image: &Image) {
    let u = &image.update;
    match sb.lineage().position(u.applied) {
        Some(p) => {
            sb.set_applied(p);
            sb.set_checkpoint(p, u.chain);
        }
        None if u.applied == Seq::NONE => {}
        // Its epoch is folded, which [`super::grow`] does not let happen. The tail must not move without it.
        None => return,
    }
    if let Some(p) = sb.lineage().position(u.commit) {
        sb.set_commit(p);
    }
    if let Some(tail) = image.tail {
        sb.set_tail(tail);
    }
    for (slot, mark) in image.links.iter().enumerate() {
        if let Some(mark) = mark {
            put_link(sb, slot, mark);
        }
    }
    if let Some((volume, cursor)) = u.cursor {
        put_cursor(sb, volume, cursor);
    }
    if u.redo_ended {
        sb.set_redo(false);
    }
    if u.sync_ended {
        sb.set_consistent(false);
        end_cursors(sb);
    }
}

fn put_link(sb: &mut Superblock, slot: usize, mark: &LinkMark) {
    let Some(mut link) = sb.link(slot) else {
        return;
    };
    link.mode = mark.mode;
    if mark.needs_sync {
        link.state = LinkState::NeedsSync;
        link.sync = None;
    } else {
        // Only `sync_over` makes a peer consistent again that is being synchronised.
        if link.state == LinkState::NeedsSync && !mark.syncing {
            link.state = LinkState::Normal;
        }
        if let Some(p) = sb.lineage().position(mark.kept) {
            link.position = p;
        }
    }
    let _ = sb.set_link(slot, Some(&link));
}

fn put_cursor(sb: &mut Superblock, volume: VolumeId, cursor: Sector) {
    let Some(reached) = sb.find_volume_id(volume) else {
        return;
    };
    // Volumes are copied in the order of the table: those before are whole.
    for i in 0..=reached {
        if let Some(mut slot) = sb.volume(i) {
            slot.cursor = if i == reached {
                cursor
            } else {
                slot.volume.size
            };
            slot.state = VolumeState::Syncing;
            let _ = sb.set_volume(i, &slot);
        }
    }
}

/// The synchronisation is over: no volume is in the middle of one.
fn end_cursors(sb: &mut Superblock) {
    for i in 0..sb.volume_count() {
        if let Some(mut slot) = sb.volume(i) {
            slot.state = VolumeState::Normal;
            slot.cursor = Sector(0);
            slot.end = Seq::NONE;
            let _ = sb.set_volume(i, &slot);
        }
    }
}

/// Without a ring: how far the data volumes may be written from now on, and whether what lies between is a redo.
///
/// *Before:* nothing above the former horizon was submitted. *A cut before:* nothing changed. *A cut after:* the next
/// start takes everything up to the horizon for possibly written, and redoes it as a whole.
/// *Must be durable before* a data write above the former horizon, or of a redo, is submitted (trace A5).
pub fn raise_horizon(sb: &mut Superblock, horizon: Seq, redo: bool) {
    let at = sb.lineage().position(horizon).unwrap_or_default();
    sb.set_horizon(at);
    sb.set_redo(redo);
}
