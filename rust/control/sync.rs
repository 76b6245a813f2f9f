// SPDX-License-Identifier: GPL-2.0

//! The command `sync`: makes the peer of a link equal to this host, or declares that it is.

use super::{
    answer::{invalid, not_yet, of_link as l},
    link::with_link,
};
use crate::{group::Group, refuse::Refusal, uapi as nl, volume::State};
use kernel::prelude::*;
use replicate_core::{engine::Role, units::Seq};
use replicate_linux::genl::Request;

/// `sync`.
pub(super) fn sync(request: &mut Request<'_>) -> Result {
    with_link(request, "sync", |group, link, attrs| {
        let kind = attrs.u32(l::SYNC_KIND).ok_or_else(|| {
            invalid(format_args!(
                "sync of link {}: say which: --full, --assume-clean or --stop",
                link.name.as_str()
            ))
        })?;
        let force = attrs.flag(l::FORCE);
        match kind {
            nl::DM_REPLICATE_SYNC_KIND_UPDATE => {
                return Err(not_yet("sync --update", "use --full"))
            }
            nl::DM_REPLICATE_SYNC_KIND_REVERSE => {
                return Err(not_yet(
                    "sync --reverse",
                    "take over there and use --full from that host",
                ))
            }
            _ => {}
        }
        if group.role() != Role::Primary {
            return Err(Refusal::new(
                EPERM,
                format_args!(
                    "group {} is secondary on this host; a synchronisation is started and stopped on the primary",
                    group.name.as_str()
                ),
            ));
        }
        match kind {
            nl::DM_REPLICATE_SYNC_KIND_FULL => link.sync_full(group, force),
            nl::DM_REPLICATE_SYNC_KIND_ASSUME_CLEAN => {
                check_still(group)?;
                link.assume_clean(group)
            }
            nl::DM_REPLICATE_SYNC_KIND_STOP => link.sync_stop(group),
            other => Err(invalid(format_args!("there is no kind {other} of sync"))),
        }
    })
}

/// Equality can be declared only while nothing is written: before the first write of the group, or with all
/// volumes suspended and their data on the data devices.
fn check_still(group: &Group) -> Result<(), Refusal> {
    let still = {
        let o = group.order.lock();
        let head = o.engine.head();
        let suspended = o.lanes.iter().all(|v| v.volume.state() == State::Suspended);
        head == Seq::NONE || (suspended && o.engine.applier.applied() >= head)
    };
    if still {
        return Ok(());
    }
    Err(Refusal::new(
        EBUSY,
        format_args!(
            "group {}: it has been written to, so that nobody can tell whether the peer is equal; suspend every volume (dmsetup suspend) first, or use --full",
            group.name.as_str()
        ),
    ))
}
