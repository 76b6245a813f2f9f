// SPDX-License-Identifier: GPL-2.0

//! Attributes of a command, and its answer.

use crate::{
    refuse::Refusal,
    registry::{self, Entry},
    uapi,
};
use core::fmt;
use kernel::{prelude::*, sync::Arc};
use replicate_core::group::Name;
use replicate_linux::{
    errno::EOPNOTSUPP,
    genl::{Attrs, Request},
};

/// Attribute numbers of one set, as netlink messages hold them.
macro_rules! ids {
    ($(#[$meta:meta])* $room:ident $prefix:ident: $($name:ident)*) => {
        $(#[$meta])*
        pub(super) mod $room {
            use super::uapi;
            use kernel::macros::paste;
            paste! {
                $(pub(crate) const $name: u16 = uapi::[<$prefix $name>] as u16;)*
            }
        }
    };
}

ids! {
    /// A group.
    of_group DM_REPLICATE_A_GROUP_:
    NAME SRL ROLE SECRET FORCE SRL_POLICY POOL_BYTES COMMIT_INTERVAL_MS COMMIT_BYTES START_WAIT_MS WINDOW_BYTES
    UUID HOST_ID STATE REASON REASON_TEXT GENERATION EPOCH HEAD_SEQ WRITTEN_SEQ COMMIT_SEQ PUBLISHED_SEQ APPLIED_SEQ
    TAIL_SEQ HORIZON_SEQ RING_BYTES RING_USED POOL_USED REPLICA_STATE REPLICA_TEXT TAKEOVER_TEXT SINCE_NS VOLUME LINK
    STATS
}
ids! {
    /// Counters of a group.
    of_group_stats DM_REPLICATE_A_GROUP_STATS_:
    WRITES BYTES BATCHES LOG_BYTES LOG_FLUSHES CHECKPOINTS STALLS MEMORY_READS
}
ids! {
    /// A volume.
    of_volume DM_REPLICATE_A_VOLUME_:
    ID NAME DM_DEV DATA_DEV SIZE_SECTORS LOGICAL_BLOCK STATE REASON REASON_TEXT SYNC_CURSOR
}
ids! {
    /// A link.
    of_link DM_REPLICATE_A_LINK_:
    GROUP NAME LOCAL PEER MODE ON_DISCONNECT ON_LOG_FULL HEARTBEAT_MS PEER_TIMEOUT_MS WINDOW_BYTES FORCE SYNC_KIND
    STATE REASON REASON_TEXT SINCE_NS IN_SYNC PEER_HOST_ID SENT_SEQ RECEIVED_SEQ LOGGED_SEQ APPLIED_SEQ
    BEHIND_RECORDS BEHIND_BYTES BEHIND_MS RTT_US SYNC_DONE_BYTES SYNC_TOTAL_BYTES CONTACT_NS STATS
}
ids! {
    /// Counters of a link.
    of_link_stats DM_REPLICATE_A_LINK_STATS_:
    MESSAGES_SENT MESSAGES_RECEIVED BYTES_SENT BYTES_RECEIVED CONNECTS RESETS CRC_ERRORS RESENDS DROPPED
}

/// Attributes that a command cannot do without, with their names for the user.
pub(super) type Needs = [(u16, &'static str)];

/// Runs a command; what it refuses is told with the errno.
pub(super) fn answer(
    request: &mut Request<'_>,
    what: &str,
    needs: &Needs,
    f: impl FnOnce(&Request<'_>, &Attrs<'_>) -> Result<(), Refusal>,
) -> Result {
    let attrs = request.attrs();
    for (id, noun) in needs {
        if attrs.get(*id).is_none() {
            return Err(
                request.fail_missing(*id, format_args!("{what}: no {noun} was given; say which"))
            );
        }
    }
    match f(request, &attrs) {
        Ok(()) => Ok(()),
        Err(refusal) => Err(request.fail(refusal.error, format_args!("{}", refusal.text()))),
    }
}

/// A refusal with EINVAL.
pub(super) fn invalid(text: fmt::Arguments<'_>) -> Refusal {
    Refusal::new(EINVAL, text)
}

/// The refusal of what the interface knows and this module does not do yet.
pub(super) fn not_yet(what: &str, way_out: &str) -> Refusal {
    Refusal::new(
        EOPNOTSUPP,
        format_args!("{what} is not implemented yet; {way_out}"),
    )
}

/// A name attribute; `noun` says of what.
pub(super) fn name(attrs: &Attrs<'_>, id: u16, noun: &str) -> Result<Name, Refusal> {
    let text = attrs.str(id).unwrap_or("");
    Name::new(text.as_bytes()).ok_or_else(|| {
        invalid(format_args!(
            "'{text}' is no name of a {noun}: use 1 to 63 of the characters A-Z a-z 0-9 . _ + : @ -"
        ))
    })
}

/// The group that the attribute names.
pub(super) fn entry(attrs: &Attrs<'_>, id: u16) -> Result<Arc<Entry>, Refusal> {
    let name = name(attrs, id, "group")?;
    registry::entry(&name).ok_or_else(|| registry::unknown(name.as_str()))
}
