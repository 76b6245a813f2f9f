// SPDX-License-Identifier: GPL-2.0

//! The volume table: which volumes the group has. It is binding, absent devices included.

use core::fmt;

use crate::{
    group::{numbered, Name, Volume},
    log::{
        format::{VolumeEntry, MAX_VOLUMES},
        superblock::{Superblock, SuperblockError},
    },
    units::{Sector, Seq, VolumeId},
};

numbered! {
    /// What a volume holds on this host.
    #[derive(Default)]
    VolumeState {
        /// What the log says.
        #[default]
        Normal = 1 "normal",
        /// A write to it failed.
        Failed = 2 "failed",
        /// A mixture, up to the end of the synchronisation.
        Syncing = 3 "syncing",
    }
}

/// One volume of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeSlot {
    /// What all hosts know of it.
    pub volume: Volume,
    /// What it holds here.
    pub state: VolumeState,
    /// The sector up to which a running synchronisation has written it, durably.
    pub cursor: Sector,
    /// Seq at which that synchronisation ends; `Seq::NONE`: not known.
    pub end: Seq,
}

/// Why a volume cannot be entered so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeError {
    /// The table is full, or no ids are left.
    Full,
    /// There is one with that name or id.
    Exists,
    /// There is none in that place.
    Unknown,
    /// Name, size or block size are impossible.
    Invalid,
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VolumeError::Full => "the group has all the volumes that it can have",
            VolumeError::Exists => "the group has a volume of that name or number",
            VolumeError::Unknown => "the group has no such volume",
            VolumeError::Invalid => {
                "a volume needs a name, a size and a block size of 512 to 65536"
            }
        })
    }
}

const EMPTY: VolumeEntry = zerocopy::transmute!([0u8; 128]);

impl VolumeEntry {
    /// Whether it is unused, to the last byte.
    pub(super) fn is_unused(&self) -> bool {
        zerocopy::IntoBytes::as_bytes(self).iter().all(|b| *b == 0)
    }

    /// What it says.
    pub(super) fn decode(&self) -> Result<VolumeSlot, SuperblockError> {
        let bad = Err(SuperblockError::Malformed("volume table"));
        let slot = VolumeSlot {
            volume: Volume {
                id: VolumeId(self.id.get()),
                name: self.name,
                size: Sector(self.size.get()),
                logical_block: self.logical_block.get(),
                discard_granularity: self.discard_granularity.get(),
            },
            state: match VolumeState::from_u8(self.state) {
                Some(state) => state,
                None => return bad,
            },
            cursor: Sector(self.sync_cursor.get()),
            end: Seq(self.sync_end.get()),
        };
        let zero = self.reserved_a == 0 && self.reserved_b == [0; 4] && self.reserved == [0; 24];
        if zero && slot.volume.is_valid() && slot.cursor <= slot.volume.size {
            Ok(slot)
        } else {
            bad
        }
    }
}

impl From<&VolumeSlot> for VolumeEntry {
    fn from(s: &VolumeSlot) -> VolumeEntry {
        VolumeEntry {
            id: s.volume.id.0.into(),
            state: s.state.to_u8(),
            logical_block: s.volume.logical_block.into(),
            name: s.volume.name,
            size: s.volume.size.0.into(),
            discard_granularity: s.volume.discard_granularity.into(),
            sync_cursor: s.cursor.0.into(),
            sync_end: s.end.0.into(),
            ..EMPTY
        }
    }
}

impl Superblock {
    /// How many volumes the group has.
    #[must_use]
    pub fn volume_count(&self) -> usize {
        usize::from(self.head.volume_count.get()).min(MAX_VOLUMES)
    }

    /// The volume in place `i` of the table.
    #[must_use]
    pub fn volume(&self, i: usize) -> Option<VolumeSlot> {
        let used = self.volumes.get(..self.volume_count())?;
        used.get(i)?.decode().ok()
    }

    /// All volumes, in the order of the table.
    pub fn volumes(&self) -> impl Iterator<Item = VolumeSlot> + '_ {
        let used = self.volumes.get(..self.volume_count()).unwrap_or(&[]);
        used.iter().filter_map(|e| e.decode().ok())
    }

    /// The place of the volume with this name.
    #[must_use]
    pub fn find_volume(&self, name: &Name) -> Option<usize> {
        self.volumes().position(|v| v.volume.name == *name)
    }

    /// The place of the volume with this id.
    #[must_use]
    pub fn find_volume_id(&self, id: VolumeId) -> Option<usize> {
        self.volumes().position(|v| v.volume.id == id)
    }

    /// Adds a volume under the next free id (the one in `volume` is not looked at), returns that.
    pub fn add_volume(&mut self, volume: Volume) -> Result<VolumeId, VolumeError> {
        let id = VolumeId(self.head.next_volume.get());
        self.adopt_volume(Volume { id, ..volume })?;
        Ok(id)
    }

    /// Adds a volume under the id that the peer gave it.
    pub fn adopt_volume(&mut self, volume: Volume) -> Result<(), VolumeError> {
        if !volume.is_valid() {
            return Err(VolumeError::Invalid);
        }
        if self.find_volume(&volume.name).is_some() || self.find_volume_id(volume.id).is_some() {
            return Err(VolumeError::Exists);
        }
        let next = volume.id.0.checked_add(1).ok_or(VolumeError::Full)?;
        let count = self.volume_count();
        let place = self.volumes.get_mut(count).ok_or(VolumeError::Full)?;
        let slot = VolumeSlot {
            volume,
            ..VolumeSlot::default()
        };
        *place = VolumeEntry::from(&slot);
        self.head.volume_count.set(count.saturating_add(1) as u16);
        let next = next.max(self.head.next_volume.get());
        self.head.next_volume.set(next);
        Ok(())
    }

    /// Replaces the volume in place `i`; its id stays what it was.
    pub fn set_volume(&mut self, i: usize, slot: &VolumeSlot) -> Result<(), VolumeError> {
        let before = self.volume(i).ok_or(VolumeError::Unknown)?;
        let same_name = self.find_volume(&slot.volume.name).is_none_or(|at| at == i);
        if !slot.volume.is_valid() || slot.cursor > slot.volume.size {
            return Err(VolumeError::Invalid);
        }
        if !same_name || slot.volume.id != before.volume.id {
            return Err(VolumeError::Exists);
        }
        let place = self.volumes.get_mut(i).ok_or(VolumeError::Unknown)?;
        *place = VolumeEntry::from(slot);
        Ok(())
    }
}
