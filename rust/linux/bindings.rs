// SPDX-License-Identifier: GPL-2.0

//! What bindgen generated, and nothing else. Private to this crate.

#![allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

mod raw {
    use kernel::{bindings::*, ffi};
    use pin_init::{MaybeZeroable, Zeroable};
    include!(concat!(
        env!("REPLICATE_OBJ"),
        "/rust/bindings/bindings_generated.rs"
    ));
}

mod helper {
    use super::raw::*;
    use kernel::{bindings::*, ffi};
    include!(concat!(
        env!("REPLICATE_OBJ"),
        "/rust/bindings/helpers_generated.rs"
    ));
}

pub(crate) use helper::*;
pub(crate) use raw::*;
