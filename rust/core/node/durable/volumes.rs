// SPDX-License-Identifier: GPL-2.0

//! The volume table of a primary: what its peers must fit.

use super::links;
use crate::{
    group::Volume,
    log::superblock::{Superblock, VolumeError},
    node::links::LinkId,
    units::VolumeId,
};

/// Enters a new volume. Returns the id that its records carry.
///
/// *A cut before:* the group has no such volume. *A cut after:* the table names a volume without a record; it waits
/// for it. *Must be durable before* the volume's first write gets a seq, since a record names its volume by the id.
pub fn enter(sb: &mut Superblock, volume: Volume) -> Result<VolumeId, VolumeError> {
    sb.add_volume(volume)
}

/// The volume's logical block size changed. `behind`: links without a session that lack records written with smaller blocks;
/// they must be synchronised, in the same superblock, because a peer is judged by the table alone.
///
/// *Before:* where it grows, everything written so far is committed. *Must be durable before* the first write with
/// the new size.
pub fn change_block(
    sb: &mut Superblock,
    volume: &Volume,
    behind: impl Iterator<Item = LinkId>,
) -> Result<(), VolumeError> {
    let i = sb.find_volume(&volume.name).ok_or(VolumeError::Unknown)?;
    let mut slot = sb.volume(i).ok_or(VolumeError::Unknown)?;
    slot.volume.logical_block = volume.logical_block;
    sb.set_volume(i, &slot)?;
    for id in behind {
        // A link that has no slot any more has nothing to lose.
        let _ = links::needs_sync(sb, id);
    }
    Ok(())
}
