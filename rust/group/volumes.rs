// SPDX-License-Identifier: GPL-2.0

//! Volumes come and go: attach (preresume), drain (postsuspend), detach (destructor).
//!
//! The volume table in the superblock is binding: on a primary a new name is entered there, durably, before
//! its first write; on a secondary the table is the primary's, adopted at the first handshake. What this means for the
//! log and for the volume's I/O is decided by the node ([`replicate_core::node::volumes`]).

use super::{
    inner::{Attached, Phase, MAX_VOLUMES},
    Group,
};
use crate::{
    event::{self, Code, Severity},
    refuse::Refusal,
    volume::Volume,
};
use kernel::{prelude::*, sync::Arc};
use replicate_core::{
    group::Name,
    node::{durable::volumes as durable, links::MAX_LINKS, volumes::State, Role},
    units::VolumeId,
};
use replicate_linux::{
    clock,
    dm::{BioList, TableHandle},
    errno::BlkStatus,
    event::FOREVER,
};

/// What is said of a volume whose data lies on the disk of the SRL.
pub(crate) const BESIDE_SRL: &str =
    "its data device is on the same disk as the SRL: a failure of that disk takes the log, too";
/// How long a log write and a flush may take before a volume with a larger block size is refused.
const COMMIT_MS: u32 = 10_000;

impl Group {
    /// Refuses a volume that another device-mapper device is already: of the tables of one device each may
    /// take the other's place, but two devices would write past each other. May sleep.
    pub(crate) fn is_free(&self, name: &Name, table: &TableHandle) -> Result<(), Refusal> {
        match self.volume_named(name) {
            Some(there) if there.table.dev() != table.dev() => Err(Refusal::new(
                EBUSY,
                format_args!(
                    "volume {}/{}: it is already there, as device-mapper device {}; remove that first, or use another name",
                    self.name.as_str(),
                    name.as_str(),
                    there.table.dev()
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Attaches an instance of a volume, in place of another instance of the same device. May sleep.
    pub(crate) fn attach(&self, volume: &Arc<Volume>) -> Result<(), Refusal> {
        self.is_free(&volume.name, &volume.table)?;
        let name = volume.name.as_str();
        let known = self.srl.read(|sb| {
            let i = sb.find_volume(&volume.name)?;
            sb.volume(i).map(|s| s.volume)
        })?;
        let id = match (self.role(), known) {
            (Role::Primary, None) => Some(self.enter_volume(volume)?),
            (Role::Primary, Some(v)) if v.size != volume.size => {
                return Err(Refusal::new(
                    EINVAL,
                    format_args!("volume {}/{name}: the table line says {} sectors, the log {}; changing the size is not implemented yet", self.name.as_str(), volume.size, v.size),
                ))
            }
            (Role::Primary, Some(v)) if v.logical_block != volume.logical_block => {
                self.change_block(volume, v.logical_block)?;
                Some(v.id)
            }
            (Role::Secondary, Some(v)) if v.size > volume.size => {
                return Err(Refusal::new(
                    ENOSPC,
                    format_args!("volume {}/{name}: {} sectors are too few, the primary's volume has {}; use a larger data device", self.name.as_str(), volume.size, v.size),
                ))
            }
            (_, Some(v)) => Some(v.id),
            (Role::Secondary, None) => None,
        };
        if let Some(id) = id {
            volume.set_id(id);
        }
        let mut orphaned = BioList::new();
        {
            let mut inner = self.inner.lock();
            if inner.phase == Phase::Gone {
                return Err(Refusal::new(
                    ENODEV,
                    format_args!("group {} is being removed", self.name.as_str()),
                ));
            }
            let resumed = match inner
                .attached
                .iter()
                .position(|l| l.volume.name == volume.name)
            {
                Some(i) => match inner.attached.get_mut(i) {
                    Some(entry) if Arc::ptr_eq(&entry.volume, volume) => true,
                    Some(entry) => {
                        orphaned.append(&mut entry.deferred);
                        orphaned.append(&mut entry.reads);
                        entry.volume = volume.clone();
                        false
                    }
                    None => false,
                },
                None => {
                    inner
                        .attached
                        .push(Attached::new(volume.clone()), GFP_NOWAIT)?;
                    false
                }
            };
            if !resumed || matches!(volume.state(), State::Suspended | State::Failed) {
                match volume.id() {
                    Some(id) => {
                        // There is room: a superblock has no more.
                        let _ = inner.node.volume_attached(id);
                        inner.show_states();
                    }
                    None => volume.set_state(State::Waiting),
                }
            }
        }
        while let Some(bio) = orphaned.pop() {
            bio.end(BlkStatus::IOERR);
        }
        if volume.id().is_none() {
            // The table may have been adopted since it was looked at above, while the volume was not in the list yet.
            self.number_volumes()?;
        }
        self.show_mode(volume);
        event::volume(self, volume, Code::VolumeAdded, Severity::Info, name);
        if volume.beside_srl {
            event::volume(
                self,
                volume,
                Code::VolumeState,
                Severity::Warning,
                BESIDE_SRL,
            );
        }
        self.apply_wake.notify();
        self.log_wake.notify();
        Ok(())
    }

    /// A secondary's device is read-only: mounts see it at once, not at their first write. Device-mapper sets the
    /// mode of the table with every resume, so this is said again after each.
    pub(crate) fn show_mode(&self, volume: &Volume) {
        if self.role() == Role::Secondary {
            let _ = volume.table.set_read_only(true);
        }
    }

    /// Enters a new volume into the table. May sleep.
    fn enter_volume(&self, volume: &Volume) -> Result<VolumeId, Refusal> {
        let mut links = Self::room_for_links()?;
        let id = self.update_superblock(|sb| {
            durable::enter(sb, volume.describe()).map_err(|e| {
                Refusal::new(
                    EINVAL,
                    format_args!(
                        "volume {}/{}: {e}",
                        self.name.as_str(),
                        volume.name.as_str()
                    ),
                )
            })
        })?;
        // Peers learn the new table in a new handshake.
        self.links_in(&mut links);
        for link in links {
            link.restart();
        }
        Ok(id)
    }

    /// The volume comes with another logical block size than it had: its table line or its device changed. Peers
    /// judge by the table, so it says the new one before the first write. A larger one holds for what is written from
    /// now on: links that lack older records must be synchronised, past those. May sleep.
    #[inline(never)]
    fn change_block(&self, volume: &Volume, before: u32) -> Result<(), Refusal> {
        let name = volume.name.as_str();
        let mut behind = KVec::with_capacity(MAX_LINKS, GFP_KERNEL)?;
        let mut links = Self::room_for_links()?;
        if volume.logical_block > before {
            let head = self.inner.lock().node.head();
            let settled = || {
                let mut inner = self.inner.lock();
                inner.node.demand(head);
                inner.node.commit() >= head || inner.node.log_failed()
            };
            if !settled() {
                self.log_wake.notify();
                self.moved.wait_until(COMMIT_MS, settled);
            }
            if self.inner.lock().node.commit() < head {
                return Err(Refusal::new(
                    EAGAIN,
                    format_args!("volume {}/{name}: its block size cannot grow to {} bytes while the log does not take what was written before; see the state of the group", self.name.as_str(), volume.logical_block),
                ));
            }
            let inner = self.inner.lock();
            for (id, p) in inner.node.positions.iter() {
                // A peer with a session was accepted with the smaller blocks.
                if !p.needs_sync && !p.live && p.kept < head {
                    let _ = behind.push(id, GFP_NOWAIT);
                }
            }
        }
        // One superblock says both, and no checkpoint's older one comes after it.
        let still = self.pause.hold();
        self.update_superblock(|sb| {
            durable::change_block(sb, &volume.describe(), behind.iter().copied()).map_err(|e| {
                Refusal::new(
                    EINVAL,
                    format_args!("volume {}/{name}: {e}", self.name.as_str()),
                )
            })
        })?;
        for id in behind.iter() {
            self.give_up(*id);
        }
        drop(still);
        self.links_in(&mut links);
        for link in links {
            link.restart();
        }
        Ok(())
    }

    /// Takes a table over that was adopted, and gives attached volumes their ids. May sleep.
    pub(crate) fn number_volumes(&self) -> Result {
        self.srl.read(|sb| {
            let mut inner = self.inner.lock();
            for v in sb.volumes() {
                let _ = inner.node.volumes.enter(v.volume.id);
            }
        })?;
        for volume in self.present()? {
            let id = self.srl.read(|sb| {
                let i = sb.find_volume(&volume.name)?;
                sb.volume(i).map(|s| s.volume.id)
            });
            let Ok(Some(id)) = id else { continue };
            let mut inner = self.inner.lock();
            if volume.id() != Some(id) {
                let suspended = volume.state() == State::Suspended;
                volume.set_id(id);
                let _ = inner.node.volume_attached(id);
                if suspended {
                    inner.node.volume_suspended(id);
                }
            }
            inner.show_states();
        }
        self.apply_wake.notify();
        Ok(())
    }

    /// The attached volumes. May sleep.
    pub(crate) fn present(&self) -> Result<KVec<Arc<Volume>>> {
        let mut room = Self::room_for_volumes()?;
        self.present_in(&mut room);
        Ok(room)
    }

    /// Memory for all volumes that there can be. May sleep.
    pub(crate) fn room_for_volumes() -> Result<KVec<Arc<Volume>>> {
        Ok(KVec::with_capacity(MAX_VOLUMES, GFP_KERNEL)?)
    }

    /// The attached volumes, where there must be no need for memory.
    pub(crate) fn present_in(&self, room: &mut KVec<Arc<Volume>>) {
        for entry in self.inner.lock().attached.iter() {
            // Cannot fail: there are no more attached than there is room.
            let _ = room.push(entry.volume.clone(), GFP_NOWAIT);
        }
    }

    /// The attached volume of that name.
    pub(crate) fn volume_named(&self, name: &Name) -> Option<Arc<Volume>> {
        let inner = self.inner.lock();
        let entry = inner.attached.iter().find(|l| l.volume.name == *name)?;
        Some(entry.volume.clone())
    }

    /// Gives the bios of `volume` that have no seq back to device-mapper, so that a noflush suspend can end; those that
    /// come later go back at once. Does not sleep.
    pub(crate) fn requeue(&self, volume: &Volume) {
        let mut out = BioList::new();
        if let Some(entry) = self.inner.lock().entry(volume) {
            out.append(&mut entry.deferred);
            out.append(&mut entry.reads);
        }
        while let Some(bio) = out.pop() {
            bio.end(BlkStatus::DM_REQUEUE);
        }
    }

    /// Suspends `volume`: every write that completed is on its data device and flushed when this returns, so that
    /// a snapshot taken below is right. Device-mapper has ended all bios before. May sleep.
    ///
    /// A noflush suspend promises no such thing and must end, whatever the log's device does: it waits for
    /// `limit_ms` at most. What the data device lacks then is replayed when the volume is resumed.
    pub(crate) fn drain(&self, volume: &Volume, limit_ms: u32) {
        let target = self.inner.lock().node.head();
        let done = || {
            let mut inner = self.inner.lock();
            let drained = volume
                .id()
                .is_none_or(|id| inner.node.is_drained(id, target));
            if !drained {
                inner.node.demand_all();
            }
            drained || inner.phase.is_over() || inner.phase == Phase::Unlogged
        };
        let start = clock::monotonic_ns();
        let late = || {
            let spent = clock::monotonic_ns().saturating_sub(start);
            limit_ms != FOREVER && spent >= u64::from(limit_ms) * 1_000_000
        };
        // Nothing is being written then, and what was is made durable: who is not there any more is not flushed by
        // a checkpoint. A replica stands still between two rounds while one of its devices is suspended.
        let _still = loop {
            while !done() && !late() {
                self.log_wake.notify();
                self.apply_wake.notify();
                self.moved.wait_until_always(20, done);
            }
            let still = self.pause.hold();
            // A device that failed until then may have taken this one back.
            if done() || late() {
                break still;
            }
        };
        if volume.state() != State::Failed && self.flush_volume(volume) {
            let mut inner = self.inner.lock();
            match volume.id() {
                Some(id) => inner.node.volume_suspended(id),
                None => volume.set_state(State::Suspended),
            }
            inner.show_states();
        }
    }

    /// A device-mapper table names the group from now on: until [`Self::detach`] it is not removed.
    pub(crate) fn enlist(&self) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        if inner.phase == Phase::Gone {
            drop(inner);
            return Err(Refusal::new(
                ENODEV,
                format_args!("group {} is being removed", self.name.as_str()),
            ));
        }
        inner.tables = inner.tables.saturating_add(1);
        Ok(())
    }

    /// Detaches `volume` if it is the attached instance. The end of what [`Self::enlist`] began. May sleep.
    pub(crate) fn detach(&self, volume: &Volume) {
        let mut out = BioList::new();
        let _still = self.pause.hold();
        let gone = {
            let mut inner = self.inner.lock();
            match inner
                .attached
                .iter()
                .position(|l| core::ptr::eq::<Volume>(&*l.volume, volume))
            {
                Some(i) => {
                    if let Some(id) = volume.id() {
                        inner.node.volume_detached(id);
                    }
                    inner.attached.remove(i).ok()
                }
                None => None,
            }
        };
        if let Some(mut entry) = gone {
            out.append(&mut entry.deferred);
            out.append(&mut entry.reads);
            event::volume(
                self,
                volume,
                Code::VolumeRemoved,
                Severity::Info,
                volume.name.as_str(),
            );
        }
        while let Some(bio) = out.pop() {
            bio.end(BlkStatus::IOERR);
        }
        let mut inner = self.inner.lock();
        inner.tables = inner.tables.saturating_sub(1);
    }
}
