// SPDX-License-Identifier: GPL-2.0

//! Checkpoints, and the superblocks that go with applying.
//!
//! The order is the core's, each step taking the proof of the one before: data writes complete -> flush of every
//! data device -> superblock durable -> space freed. See `replicate_core::node::checkpoint`.

use super::Applier;
use crate::event::{self, Code, Severity};
use kernel::prelude::*;
use replicate_core::{
    node::{durable::checkpoint as durable, Log},
    units::Seq,
};
use replicate_linux::clock;

/// A useful checkpoint is taken at least so often.
const INTERVAL_NS: u64 = 1_000_000_000;

impl Applier {
    /// Takes a checkpoint if one is due; `true` when one was taken.
    pub(super) fn checkpoint(&mut self) -> bool {
        if !self.checkpoint_due() {
            return false;
        }
        let begun = self.group.inner.lock().node.checkpoint_begin();
        if !self.flush_data() {
            return false;
        }
        let image = {
            let mut inner = self.group.inner.lock();
            let Some(flushed) = inner.node.checkpoint_flushed(begun) else {
                return false;
            };
            let update = inner.node.checkpoint_update(flushed);
            inner.node.checkpoint_image(update)
        };
        let written = self.group.update_superblock(|sb| {
            durable::checkpoint(sb, &image);
            Ok::<(), Error>(())
        });
        if written.is_err() {
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

    /// Writes what links' slots are to say of their synchronisations, one superblock for each link; `true` when something was
    /// written.
    pub(super) fn notes(&mut self) -> bool {
        let mut busy = false;
        let mut from = 0;
        loop {
            let Some((id, note)) = self.group.inner.lock().next_note(from) else {
                return busy;
            };
            from = usize::from(id.0).saturating_add(1);
            let written = self.group.update_superblock(|sb| {
                // Only if it waits still: the slot may be another link's by now.
                let mut inner = self.group.inner.lock();
                let waits = inner.recorder(id).is_some_and(|r| r.waits() == Some(note));
                drop(inner);
                Ok::<bool, Error>(waits && note.write(sb, id).is_ok())
            });
            busy = true;
            let mut inner = self.group.inner.lock();
            let Some(recorder) = inner.recorder(id) else {
                return busy;
            };
            match written {
                Ok(true) => recorder.written(note),
                // The link is being removed, or somebody has written it.
                Ok(false) => recorder.changed(Some(note)),
                // The group has failed.
                Err(_) => recorder.forget(),
            }
        }
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

    /// Without a ring: states durably how far the volumes may be written.
    pub(super) fn raise_horizon(&mut self, horizon: Seq, redo: bool) -> bool {
        let written = self.group.update_superblock(|sb| {
            durable::raise_horizon(sb, horizon, redo);
            Ok::<(), Error>(())
        });
        if written.is_ok() {
            self.group.inner.lock().node.horizon_durable(horizon, redo);
        }
        written.is_ok()
    }
}
