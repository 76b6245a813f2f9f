// SPDX-License-Identifier: GPL-2.0

//! What is told of a volume.

use super::parts::VolumePart;
use crate::{
    reason::Reason,
    uapi::{a_volume as v, VolumeState},
    volume::State,
};
use kernel::prelude::*;
use replicate_linux::genl::Message;

/// Adds a volume to the nest that is open.
pub(super) fn tell(m: &mut Message, part: &VolumePart) -> Result {
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
    let (state, reason, text) = state(part);
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

fn state(part: &VolumePart) -> (u32, Reason, &'static str) {
    let Some(volume) = &part.attached else {
        return (
            VolumeState::Absent as u32,
            Reason::WaitingVolumes,
            "in the volume table, but no device-mapper device is active; create it with dmsetup",
        );
    };
    let state = volume.state();
    let (reason, text) = match state {
        State::Failed => (
            Reason::DataFailed,
            "a write to the data device failed; repair it, then suspend and resume the volume",
        ),
        // Its state is that of the device before it was activated again.
        _ if part.failed => (
            Reason::DataFailed,
            "a write to the data device failed before; the records since are being written again",
        ),
        State::Parked if !part.known => (
            Reason::NotConnected,
            "not in the volume table yet: it waits for the first contact with the primary",
        ),
        State::Parked => (Reason::Recovery, "its I/O waits for the group"),
        State::Replaying => (
            Reason::Recovery,
            "its records of the log are being written to the data device",
        ),
        State::Suspended => (Reason::Admin, "suspended by device-mapper"),
        State::Active | State::Replica if part.cursor.is_some() => {
            (Reason::Sync, "being synchronised")
        }
        State::Active => (Reason::None, ""),
        State::Replica => (Reason::None, "read-only: this host is a secondary"),
    };
    (state.uapi(), reason, text)
}
