// SPDX-License-Identifier: GPL-2.0

//! Commands: what generic netlink asks of this module.
//!
//! The operations and their policies are generated from `Documentation/netlink/specs/dm-replicate.yaml`; here are the
//! functions that they name. Lengths and ranges were checked before, and that the caller has CAP_SYS_ADMIN in the initial
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

use crate::event::Family;
use replicate_linux::genl;

/// While it lives, commands are taken.
pub(crate) type Registration = genl::Registration<Family>;

replicate_linux::genl_doit! {
    dm_replicate_nl_group_add_doit => group::add;
    dm_replicate_nl_group_del_doit => group::del;
    dm_replicate_nl_group_set_doit => group::set;
    dm_replicate_nl_group_get_doit => status::get;
    dm_replicate_nl_link_add_doit => link::add;
    dm_replicate_nl_link_del_doit => link::del;
    dm_replicate_nl_link_set_doit => link::set;
    dm_replicate_nl_link_connect_doit => link::connect;
    dm_replicate_nl_link_disconnect_doit => link::disconnect;
    dm_replicate_nl_sync_doit => sync::sync;
    dm_replicate_nl_takeover_doit => takeover::takeover;
}

replicate_linux::genl_dumpit! {
    dm_replicate_nl_group_get_dumpit => status::dump;
}
