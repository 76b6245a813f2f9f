// SPDX-License-Identifier: GPL-2.0

//! The command `sync`: makes the peer of a link equal to this host, or declares that it is.
//!
//! Whether it may be done now is the link's to say ([`crate::link::sync`]).

use super::{
    answer::{invalid, not_yet},
    link::with_link,
};
use crate::uapi::{a_link as l, SyncKind};
use kernel::prelude::*;
use replicate_core::session::primary::Kind;
use replicate_linux::genl::Request;

/// `sync`.
pub(super) fn sync(request: &mut Request<'_>) -> Result {
    with_link(request, "sync", |group, link, attrs| {
        let kind = match attrs.u32(l::SYNC_KIND).and_then(SyncKind::from_u32) {
            Some(SyncKind::Full) => Some(Kind::Full),
            Some(SyncKind::AssumeClean) => Some(Kind::AssumeClean),
            Some(SyncKind::Stop) => None,
            Some(SyncKind::Update) => return Err(not_yet("sync --update")),
            Some(SyncKind::Reverse) => return Err(not_yet("sync --reverse")),
            None => {
                return Err(invalid(format_args!(
                    "link {}: no kind of synchronisation given",
                    link.name.as_str()
                )))
            }
        };
        link.sync(group, kind, attrs.flag(l::FORCE))
    })
}
