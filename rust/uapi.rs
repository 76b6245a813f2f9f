// SPDX-License-Identifier: GPL-2.0

//! The numbers of the netlink interface, generated from `include/uapi/linux/dm_replicate.h`. Constants only.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused,
    clippy::all,
    non_camel_case_types,
    reason = "generated"
)]

include!(concat!(
    env!("REPLICATE_OBJ"),
    "/rust/bindings/uapi_generated.rs"
));
