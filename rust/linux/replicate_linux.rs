// SPDX-License-Identifier: GPL-2.0

//! The lowest layer: safe abstractions over the C interfaces that the `kernel` crate does not wrap yet.
//!
//! This crate is the only place with `unsafe` code. It knows nothing of replication: block devices,
//! bios, device-mapper targets, sockets, generic netlink, threads and pages are its nouns. Every
//! module says at its top in which context its functions may be called.

#[cfg(not(CONFIG_64BIT))]
compile_error!("pages are reached through the linear map, which needs a 64-bit kernel");

// What the `pr_*!` macros put in front of a message; the name of the module that this crate is in.
#[allow(dead_code)]
const __LOG_PREFIX: &[u8] = b"dm_replicate\0";

/// Makes types with [`core::fmt::Display`] usable in the kernel's `fmt!` and `pr_*!`, too.
macro_rules! kernel_display {
    ($($ty:ty),*) => {$(
        impl kernel::fmt::Display for $ty {
            fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
    )*};
}

mod bindings;

pub mod bdev;
pub mod bio;
pub mod clock;
pub mod digest;
pub mod dm;
pub mod errno;
pub mod event;
pub mod genl;
pub mod gfp;
pub mod global;
pub mod kthread;
pub mod net;
pub mod pages;
pub mod random;
pub mod secret;
pub mod text;
