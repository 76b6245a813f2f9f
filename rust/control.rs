// SPDX-License-Identifier: GPL-2.0

//! Commands: what generic netlink asks of this module.
//!
//! The operations and their policies are generated from `Documentation/netlink/specs/dm-replicate.yaml`; here is
//! what they do. Lengths and ranges were checked before, and that the caller has CAP_SYS_ADMIN in the initial
//! user namespace and comes from the initial network namespace (`replicate_linux::genl`); what must be there is checked
//! here. A refusal names the object and the cause; nothing was changed then. What to do about it is dmrepl's to say.
//!
//! Handlers run in process context, several at once. A command that changes a group holds its
//! [turn](crate::registry::Entry::turn). Nothing else uses this module.

mod answer;
mod group;
mod link;
mod settings;
mod status;
mod sync;
mod takeover;

use replicate_linux::genl::{self, Commands};

/// While it lives, commands are taken.
pub(crate) type Registration = genl::Registration;

/// What the operations do.
pub(crate) static COMMANDS: Commands = Commands {
    group_add: group::add,
    group_del: group::del,
    group_get: status::get,
    group_get_dump: status::dump,
    group_set: group::set,
    link_add: link::add,
    link_del: link::del,
    link_set: link::set,
    link_connect: link::connect,
    link_disconnect: link::disconnect,
    sync: sync::sync,
    takeover: takeover::takeover,
};
