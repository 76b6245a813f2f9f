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
    node::volumes::State,
    units::{Sector, VolumeId},
};
use replicate_linux::{bdev::BlockDevice, dm::TableHandle};

/// No id yet: a secondary that has not met its primary.
const NO_ID: u32 = u32::MAX;

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
    /// Its data lies on the disk of the group's SRL: a failure takes both.
    pub(crate) beside_srl: bool,
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
        beside_srl: bool,
        table: Arc<TableHandle>,
    ) -> Volume {
        Volume {
            name,
            size,
            logical_block,
            discard_zero,
            data,
            beside_srl,
            table,
            id: Atomic::new(NO_ID),
            state: Atomic::new(number(State::Waiting)),
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

    /// Its state, as the node last said: for a look without the order lock.
    pub(crate) fn state(&self) -> State {
        from_number(self.state.load(Relaxed))
    }

    /// Shows a state of the node's, under the order lock; a volume without an id is in no state of the node's.
    pub(crate) fn set_state(&self, state: State) {
        self.state.store(number(state), Relaxed);
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

/// The number of a state, here and on the netlink interface. An absent volume is in no device-mapper device.
pub(crate) const fn number(state: State) -> u32 {
    match state {
        State::Absent | State::Waiting => 1,
        State::Replaying => 2,
        State::Active => 3,
        State::Replica => 4,
        State::Suspended => 5,
        State::Failed => 6,
    }
}

const fn from_number(number: u32) -> State {
    match number {
        2 => State::Replaying,
        3 => State::Active,
        4 => State::Replica,
        5 => State::Suspended,
        6 => State::Failed,
        _ => State::Waiting,
    }
}
