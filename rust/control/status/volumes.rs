// SPDX-License-Identifier: GPL-2.0

//! What is told of a volume.

use super::parts::VolumePart;
use crate::{
    group::{volumes::BESIDE_SRL, Group},
    reason::Reason,
    uapi::{a_volume as v, VolumeState},
    volume,
};
use kernel::prelude::*;
use replicate_core::node::volumes::State;
use replicate_linux::genl::Message;

/// Adds a volume to the nest that is open.
pub(super) fn tell(m: &mut Message, group: &Group, part: &VolumePart) -> Result {
    if part.known {
        m.u32(v::ID, u32::from(part.facts.id.0))?;
    }
    m.str(v::NAME, part.facts.name.as_str())?;
    m.uint(v::SIZE_SECTORS, part.facts.size.0)?;
    m.u32(v::LOGICAL_BLOCK, part.facts.logical_block)?;
    if let Some(volume) = &part.attached {
        m.fmt(v::DM_DEV, format_args!("{}", volume.table.dev()))?;
        m.fmt(v::DATA_DEV, format_args!("{}", volume.data.dev()))?;
    }
    let (state, reason, text) = state(part, group.repair());
    m.u32(v::STATE, state)?;
    m.u32(v::REASON, reason.code())?;
    if !text.is_empty() {
        m.str(v::REASON_TEXT, text)?;
    }
    if let Some(cursor) = part.cursor {
        m.uint(v::SYNC_CURSOR, cursor.0)?;
    }
    Ok(())
}

fn state(part: &VolumePart, repair: &'static str) -> (u32, Reason, &'static str) {
    let Some(attached) = &part.attached else {
        return (
            VolumeState::Absent as u32,
            Reason::WaitingVolumes,
            "in the volume table, but no device-mapper device is active; create it with dmsetup",
        );
    };
    let state = attached.state();
    let (reason, text) = match state {
        State::Failed => (Reason::DataFailed, repair),
        // Its state is that of the device before it was activated again.
        _ if part.failed => (
            Reason::DataFailed,
            "a write to the data device failed before; the records since are being written again",
        ),
        State::Absent | State::Waiting if !part.known => (
            Reason::NotConnected,
            "not in the volume table yet: it waits for the first contact with the primary",
        ),
        State::Absent | State::Waiting => (Reason::Recovery, "its I/O waits for the group"),
        State::Replaying => (
            Reason::Recovery,
            "its records of the log are being written to the data device",
        ),
        State::Suspended => (Reason::Admin, "suspended by device-mapper"),
        State::Active | State::Replica if part.cursor.is_some() => {
            (Reason::Sync, "being synchronised")
        }
        State::Active if attached.beside_srl => (Reason::None, BESIDE_SRL),
        State::Active => (Reason::None, ""),
        State::Replica => (Reason::None, "read-only: this host is a secondary"),
    };
    (volume::number(state), reason, text)
}
