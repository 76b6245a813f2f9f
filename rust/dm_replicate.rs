// SPDX-License-Identifier: GPL-2.0

//! Write-order-faithful remote replication of block devices, as a device-mapper target.
//!
//! This crate executes what `replicate_core` decides, with the abstractions of `replicate_linux`. A map of it:
//!
//! | module | what it is |
//! |---|---|
//! | [`target`] | the target `replicate`: one volume as device-mapper sees it |
//! | [`group`] | a group: order lock, admission, start, takeover |
//! | [`log_worker`], [`applier`] | the group's two threads, above and below the commit point |
//! | [`srl`] | the log device: superblocks, reading batches back |
//! | [`link`] | links: handshake, sending, receiving, synchronisation |
//! | [`control`], [`event`], [`registry`] | generic netlink, events, the list of groups |
#![forbid(unsafe_code)]

use kernel::prelude::*;

mod applier;
mod control;
mod event;
mod group;
mod link;
mod log_worker;
mod memory;
mod reason;
mod refuse;
mod registry;
mod srl;
mod target;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "generated from the netlink specification"
)]
#[path = "generated/uapi.rs"]
mod uapi;
mod volume;

module! {
    type: DmReplicate,
    name: "dm_replicate",
    authors: ["The dm-replicate authors"],
    description: "Device-mapper target for ordered remote replication",
    license: "GPL",
    alias: ["dm-replicate", "net-pf-16-proto-16-family-dm-replicate"],
}

/// The module. Fields are torn down in this order: the groups that are left stop (their threads send events, which
/// needs the family), then no command is taken any more, then the target goes.
struct DmReplicate {
    _registry: registry::Cleanup,
    _control: control::Registration,
    _target: target::Registration,
}

impl kernel::Module for DmReplicate {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let target = target::Registration::register(module)?;
        let control = control::Registration::register(&control::COMMANDS)?;
        pr_info!("loaded, log format 1, protocol 1\n");
        Ok(Self {
            _registry: registry::Cleanup,
            _control: control,
            _target: target,
        })
    }
}
