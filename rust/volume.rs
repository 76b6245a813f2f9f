// SPDX-License-Identifier: GPL-2.0

//! A volume: one device-mapper device in front of one data device.
//!
//! Made by the target's constructor, attached to its group in preresume, detached after suspend. During
//! a table reload two instances of one volume exist; the group knows the attached one only.

use kernel::sync::{
    atomic::{Atomic, Relaxed},
    Arc,
};
use replicate_core::{
    group::{self, Name},
    units::{Sector, VolumeId},
};
use replicate_linux::{bdev::BlockDevice, dm::TableHandle};

/// No id yet: a secondary that has not met its primary.
const NO_ID: u32 = u32::MAX;

/// What a volume does with I/O. The numbers are those of the netlink interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its I/O waits: recovery, replay, or a starting primary's links.
    Parked,
    /// Its records of the log are being written to its data device.
    Replaying,
    /// Reads and writes are served.
    Active,
    /// Written by the applier; writes are refused.
    Replica,
    /// Suspended by device-mapper.
    Suspended,
    /// A write to the data device failed: everything fails until it is activated again.
    Failed,
}

/// One instance of a volume.
pub(crate) struct Volume {
    /// Its name within the group.
    pub(crate) name: Name,
    /// Its size.
    pub(crate) size: Sector,
    /// Its logical block size in bytes, as advertised.
    pub(crate) logical_block: u32,
    /// Discard is replicated as write-zeroes.
    pub(crate) discard_zero: bool,
    /// Where its data lies.
    pub(crate) data: Arc<BlockDevice>,
    /// The device-mapper device above it.
    pub(crate) table: Arc<TableHandle>,
    id: Atomic<u32>,
    state: Atomic<u32>,
}

impl Volume {
    /// A volume that is not attached yet.
    pub(crate) fn new(
        name: Name,
        size: Sector,
        logical_block: u32,
        discard_zero: bool,
        data: Arc<BlockDevice>,
        table: Arc<TableHandle>,
    ) -> Volume {
        Volume {
            name,
            size,
            logical_block,
            discard_zero,
            data,
            table,
            id: Atomic::new(NO_ID),
            state: Atomic::new(State::Parked.code()),
        }
    }

    /// Its number in the group, once it has one.
    pub(crate) fn id(&self) -> Option<VolumeId> {
        u16::try_from(self.id.load(Relaxed)).ok().map(VolumeId)
    }

    /// Gives it its number.
    pub(crate) fn set_id(&self, id: VolumeId) {
        self.id.store(u32::from(id.0), Relaxed);
    }

    /// Its state.
    pub(crate) fn state(&self) -> State {
        State::from_code(self.state.load(Relaxed))
    }

    /// Changes its state. Under the order lock wherever I/O depends on it.
    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state.code(), Relaxed);
    }

    /// As the superblock and the wire describe it.
    pub(crate) fn describe(&self) -> group::Volume {
        group::Volume {
            id: self.id().unwrap_or_default(),
            name: self.name,
            size: self.size,
            logical_block: self.logical_block,
            discard_granularity: self.data.discard_granularity(),
        }
    }
}

impl State {
    const fn code(self) -> u32 {
        match self {
            State::Parked => 1,
            State::Replaying => 2,
            State::Active => 3,
            State::Replica => 4,
            State::Suspended => 5,
            State::Failed => 6,
        }
    }

    const fn from_code(code: u32) -> State {
        match code {
            2 => State::Replaying,
            3 => State::Active,
            4 => State::Replica,
            5 => State::Suspended,
            6 => State::Failed,
            _ => State::Parked,
        }
    }

    /// The number netlink uses.
    pub(crate) const fn uapi(self) -> u32 {
        self.code()
    }

    /// Its name, as status prints it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            State::Parked => "parked",
            State::Replaying => "replaying",
            State::Active => "active",
            State::Replica => "replica",
            State::Suspended => "suspended",
            State::Failed => "failed",
        }
    }
}
