// SPDX-License-Identifier: GPL-2.0

//! Write-order-faithful remote replication of block devices, as a device-mapper target.
#![forbid(unsafe_code)]

use kernel::prelude::*;

module! {
    type: DmReplicate,
    name: "dm_replicate",
    authors: ["The dm-replicate authors"],
    description: "Device-mapper target for ordered remote replication",
    license: "GPL",
    alias: ["net-pf-16-proto-16-family-dm-replicate"],
}

struct DmReplicate;

impl kernel::Module for DmReplicate {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("loaded\n");
        Ok(Self)
    }
}

impl Drop for DmReplicate {
    fn drop(&mut self) {
        pr_info!("unloaded\n");
    }
}
