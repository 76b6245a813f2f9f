// SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause)
// Do not edit directly, auto-generated from:
//     Documentation/netlink/specs/dm-replicate.yaml
// To regenerate run: scripts/ynl-regen

//! What the operations of the generated family do, and the functions that its table names for them.

use super::{
    dump::{dumpit, Dump},
    request::{doit, Request},
    COMMANDS,
};
use crate::bindings as raw;
use kernel::{bindings, prelude::*};

/// What the operations do.
pub struct Commands {
    /// Open an SRL and start a group on it.
    pub group_add: fn(&mut Request<'_>) -> Result,
    /// Remove a group that no device-mapper device uses. Nothing on its devices is changed.
    pub group_del: fn(&mut Request<'_>) -> Result,
    /// Status of one group, or of all (dump). A dump may spread a group over several messages; each carries the
    /// name, and volumes and links of all of them belong together.
    pub group_get: fn(&mut Request<'_>) -> Result,
    /// Status of one group, or of all (dump). A dump may spread a group over several messages; each carries the
    /// name, and volumes and links of all of them belong together.
    pub group_get_dump: fn(&mut Dump<'_>) -> Result,
    /// Change what can be changed while the group runs.
    pub group_set: fn(&mut Request<'_>) -> Result,
    /// Add a link to a group, and connect it.
    pub link_add: fn(&mut Request<'_>) -> Result,
    /// Disconnect and remove a link. Its position in the SRL is forgotten.
    pub link_del: fn(&mut Request<'_>) -> Result,
    /// Change what can be changed while the link runs.
    pub link_set: fn(&mut Request<'_>) -> Result,
    /// Let a link connect, or try again at once.
    pub link_connect: fn(&mut Request<'_>) -> Result,
    /// Close a link's connections, and keep them closed.
    pub link_disconnect: fn(&mut Request<'_>) -> Result,
    /// Start or stop a synchronisation of a link's peer.
    pub sync: fn(&mut Request<'_>) -> Result,
    /// Make a secondary the primary.
    pub takeover: fn(&mut Request<'_>) -> Result,
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_group_add_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.group_add) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_group_del_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.group_del) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_group_get_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.group_get) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_group_get_dumpit(
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { dumpit(skb, cb, commands.group_get_dump) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_group_set_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.group_set) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_link_add_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.link_add) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_link_del_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.link_del) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_link_set_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.link_set) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_link_connect_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.link_connect) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_link_disconnect_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.link_disconnect) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_sync_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.sync) }
}

/// # Safety
///
/// For generic netlink, as the operation that the table names it for.
#[no_mangle]
unsafe extern "C" fn dm_replicate_nl_takeover_doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
) -> c_int {
    // Not called before they are there.
    let Some(commands) = COMMANDS.as_ref() else {
        return ENODEV.to_errno();
    };
    // SAFETY: Per the caller.
    unsafe { doit(skb, info, commands.takeover) }
}
