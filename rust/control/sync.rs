// SPDX-License-Identifier: GPL-2.0

//! The command `sync`: makes the peer of a link equal to this host, or declares that it is.
//!
//! Whether it may be done now is the link's to say ([`crate::link::sync`]).

use super::{
    answer::{invalid, not_yet, of_link as l},
    link::with_link,
};
use crate::{link::sync::Kind, uapi as nl};
use kernel::prelude::*;
use replicate_linux::genl::Request;

/// `sync`.
pub(super) fn sync(request: &mut Request<'_>) -> Result {
    with_link(request, "sync", |group, link, attrs| {
        let kind = match attrs.u32(l::SYNC_KIND) {
            Some(nl::DM_REPLICATE_SYNC_KIND_FULL) => Some(Kind::Full),
            Some(nl::DM_REPLICATE_SYNC_KIND_ASSUME_CLEAN) => Some(Kind::AssumeClean),
            Some(nl::DM_REPLICATE_SYNC_KIND_STOP) => None,
            Some(nl::DM_REPLICATE_SYNC_KIND_UPDATE) => {
                return Err(not_yet("sync --update", "use --full"))
            }
            Some(nl::DM_REPLICATE_SYNC_KIND_REVERSE) => {
                return Err(not_yet(
                    "sync --reverse",
                    "take over on the peer and use --full there",
                ))
            }
            other => {
                return Err(invalid(format_args!(
                    "sync of link {}: kind {} is none; say --full, --assume-clean or --stop",
                    link.name.as_str(),
                    other.unwrap_or_default()
                )))
            }
        };
        link.sync(group, kind, attrs.flag(l::FORCE))
    })
}
