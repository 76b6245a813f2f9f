// SPDX-License-Identifier: GPL-2.0

//! Checkpoints, and the superblocks that go with applying.
//!
//! The order is the core's, each step taking the proof of the one before: data writes complete -> flush of every
//! data device -> superblock durable -> space freed. See `replicate_core::node::checkpoint`.

use super::Applier;
use crate::{
    event::{self, Code, Severity},
    refuse::Refusal,
};
use kernel::prelude::*;
use replicate_core::{
    log::superblock::{LinkState, Superblock, Tail, VolumeState},
    node::{checkpoint::Update, links::LinkId, Log},
    units::{Sector, Seq, VolumeId},
};
use replicate_linux::clock;

/// A useful checkpoint is taken at least so often.
const INTERVAL_NS: u64 = 1_000_000_000;

/// What a checkpoint writes, collected under the order lock.
struct Image {
    update: Update,
    offset_lap: Option<(replicate_core::units::Bytes, u64)>,
    cursor: Option<(VolumeId, Sector)>,
}

impl Applier {
    /// Takes a checkpoint if one is due; `true` when one was taken.
    pub(super) fn checkpoint(&mut self) -> bool {
        if !self.checkpoint_due() {
            return false;
        }
        let Some(begun) = self.group.inner.lock().node.checkpoint_begin() else {
            return false;
        };
        if !self.flush_data() {
            return false;
        }
        let image = {
            let mut inner = self.group.inner.lock();
            let Some(flushed) = inner.node.checkpoint_flushed(begun) else {
                return false;
            };
            let update = inner.node.checkpoint_update(flushed);
            let offset_lap = match (&inner.node.log, update.tail) {
                (Log::Ring(w), Some(m)) => Some((w.ring.offset(m.place), w.ring.lap(m.place))),
                (Log::Ring(_), None) | (Log::NoRing(_), _) => None,
            };
            Image {
                update,
                offset_lap,
                cursor: inner.sync_cursor.take(),
            }
        };
        let written = self.write_image(&image);
        if let Err(e) = written {
            self.group.fail(Refusal::new(
                e,
                format_args!(
                    "SRL {}: superblock write failed (error {}); writes end in EIO",
                    self.group.srl.path().to_str().unwrap_or("?"),
                    e.to_errno()
                ),
            ));
            return false;
        }
        {
            let mut inner = self.group.inner.lock();
            inner.node.checkpoint_done(image.update);
            inner.wants_space = false;
        }
        self.last_checkpoint_ns = clock::monotonic_ns();
        self.group.stats.checkpoints.add(1);
        if image.update.sync_ended {
            self.group.identity.lock().replica = replicate_core::group::Replica::Consistent;
            event::group(
                &self.group,
                Code::ReplicaState,
                Severity::Info,
                "consistent: the synchronisation ended",
            );
        }
        true
    }

    fn checkpoint_due(&self) -> bool {
        let give_up = {
            let inner = self.group.inner.lock();
            inner
                .wants_space
                .then(|| inner.node.link_to_give_up())
                .flatten()
        };
        if let Some(id) = give_up {
            event::group(
                &self.group,
                Code::LogFull,
                Severity::Warning,
                "the log is full: a link that is behind is given up",
            );
            self.group.give_up(id);
        }
        let inner = self.group.inner.lock();
        if !inner.node.checkpoint_useful() && give_up.is_none() {
            return false;
        }
        let age = clock::monotonic_ns().saturating_sub(self.last_checkpoint_ns);
        match &inner.node.log {
            Log::Ring(w) => {
                let quarter = w.ring.size().0 / 4;
                inner.wants_space
                    || give_up.is_some()
                    || w.ring.used().0 > quarter && age > INTERVAL_NS / 10
                    || !inner.node.copies.is_empty()
                    || inner.node.copies.is_syncing()
                    || age >= INTERVAL_NS
            }
            // Its data ack is the superblock: one for each window of writes.
            Log::NoRing(_) => true,
        }
    }

    fn write_image(&self, image: &Image) -> Result {
        let links: KVec<(LinkId, Seq, bool, replicate_core::group::Mode)> = {
            let inner = self.group.inner.lock();
            let mut v = KVec::with_capacity(replicate_core::node::links::MAX_LINKS, GFP_NOWAIT)?;
            for (id, l) in inner.node.positions.iter() {
                v.push((id, l.kept, l.needs_sync, l.mode), GFP_NOWAIT)?;
            }
            v
        };
        self.group.srl.update(|sb| {
            let u = &image.update;
            put_positions(sb, u, image);
            for (id, kept, needs_sync, mode) in links.iter() {
                put_link(sb, *id, *kept, *needs_sync, *mode);
            }
            if let Some((volume, cursor)) = image.cursor {
                put_cursor(sb, volume, cursor);
            }
            if u.redo_ended {
                sb.set_redo(false);
            }
            if u.sync_ended {
                sb.set_consistent(false);
                end_cursors(sb);
            }
            Ok(())
        })
    }

    /// Without a ring: states durably how far the volumes may be written.
    pub(super) fn raise_horizon(&mut self, horizon: Seq, redo: bool) -> bool {
        let written = self.group.srl.update(|sb| {
            sb.set_horizon(sb.lineage().position(horizon).unwrap_or_default());
            sb.set_redo(redo);
            Ok::<(), Error>(())
        });
        match written {
            Ok(()) => {
                self.group.inner.lock().node.horizon_durable(horizon, redo);
                true
            }
            Err(e) => {
                self.group.fail(Refusal::new(
                    e,
                    format_args!(
                        "SRL {}: superblock write failed (error {})",
                        self.group.srl.path().to_str().unwrap_or("?"),
                        e.to_errno()
                    ),
                ));
                false
            }
        }
    }
}

fn put_positions(sb: &mut Superblock, u: &Update, image: &Image) {
    if let Some(p) = sb.lineage().position(u.applied) {
        sb.set_applied(p);
        sb.set_checkpoint(p, u.chain);
    }
    if let Some(p) = sb.lineage().position(u.commit) {
        sb.set_commit(p);
    }
    if let (Some(mark), Some((offset, lap))) = (u.tail, image.offset_lap) {
        sb.set_tail(Tail {
            seq: mark.first,
            offset,
            lap,
            chain: mark.chain,
        });
    }
}

fn put_link(
    sb: &mut Superblock,
    id: LinkId,
    kept: Seq,
    needs_sync: bool,
    mode: replicate_core::group::Mode,
) {
    let slot = usize::from(id.0);
    let Some(mut link) = sb.link(slot) else {
        return;
    };
    link.mode = mode;
    if needs_sync {
        link.state = LinkState::NeedsSync;
        link.sync = None;
    } else {
        if link.state == LinkState::NeedsSync {
            link.state = LinkState::Normal;
        }
        if let Some(p) = sb.lineage().position(kept) {
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
