// SPDX-License-Identifier: GPL-2.0

//! Generic netlink families whose C tables were generated from a YNL specification.
//!
//! The generated C code has the operations, their policies and the family. What it lacks are the
//! functions that the operations name; the module defines them in safe code:
//!
//! ```ignore
//! genl_family! {
//!     /// The family of this module.
//!     pub struct Family = foo_nl_family;
//! }
//! genl_doit! { foo_nl_thing_set_doit => thing_set; }
//! genl_dumpit! { foo_nl_thing_get_dumpit => thing_dump; }
//!
//! fn thing_set(request: &mut Request<'_>) -> Result { .. }
//! fn thing_dump(dump: &mut Dump<'_>) -> Result { .. }
//! ```
//!
//! The C core has checked a message by the policy before a handler sees it: lengths, ranges and
//! unknown attributes; not whether an attribute is there. Handlers run in process context and may
//! sleep; with `parallel_ops` several at once.
//!
//! No handler, of a change or of a read, is reached without CAP_SYS_ADMIN in the initial user namespace and a socket of
//! the initial network namespace: the entry points check both, of the sender and of whoever opened the socket.

mod attr;
mod dump;
mod kunit;
mod message;
mod request;

pub use attr::{Attr, Attrs};
pub use dump::{dumpit, Dump, CURSORS};
pub use message::{Message, Multicast, Reply};
pub use request::{doit, Request};

use crate::bindings as raw;
use core::marker::PhantomData;
use kernel::{error::to_result, prelude::*};

/// A generated family. Implemented by [`genl_family!`](crate::genl_family).
///
/// # Safety
///
/// `as_ptr()` points at a `struct genl_family` that is valid for ever, or until it is no longer
/// registered.
pub unsafe trait Family: 'static {
    /// The `struct genl_family`.
    fn as_ptr() -> *mut c_void;
}

/// The family, for C.
fn raw_family<F: Family>() -> *mut raw::genl_family {
    F::as_ptr().cast::<raw::genl_family>()
}

/// Names a generated family: `genl_family! { pub struct Family = foo_nl_family; }`.
#[macro_export]
macro_rules! genl_family {
    ($(#[$meta:meta])* $vis:vis struct $name:ident = $c_name:ident;) => {
        $(#[$meta])*
        $vis struct $name;

        // SAFETY: The generated C file defines this static with that type.
        unsafe impl $crate::genl::Family for $name {
            fn as_ptr() -> *mut ::core::ffi::c_void {
                extern "C" {
                    static mut $c_name: ::core::cell::UnsafeCell<u8>;
                }
                (&raw mut $c_name).cast()
            }
        }
    };
}

/// Defines `doit` entry points that a generated table names:
/// `c_name => handler;` with `fn handler(request: &mut Request<'_>) -> Result`.
#[macro_export]
macro_rules! genl_doit {
    ($($(#[$meta:meta])* $c_name:ident => $handler:path;)*) => {$(
        $(#[$meta])*
        ///
        /// # Safety
        ///
        /// For generic netlink.
        #[no_mangle]
        unsafe extern "C" fn $c_name(
            skb: *mut ::core::ffi::c_void,
            info: *mut ::core::ffi::c_void,
        ) -> ::kernel::ffi::c_int {
            // SAFETY: Genetlink calls this with the buffer and the `struct genl_info` of a request.
            unsafe { $crate::genl::doit(skb, info, $handler) }
        }
    )*};
}

/// Defines `dumpit` entry points that a generated table names:
/// `c_name => handler;` with `fn handler(dump: &mut Dump<'_>) -> Result`.
#[macro_export]
macro_rules! genl_dumpit {
    ($($(#[$meta:meta])* $c_name:ident => $handler:path;)*) => {$(
        $(#[$meta])*
        ///
        /// # Safety
        ///
        /// For generic netlink.
        #[no_mangle]
        unsafe extern "C" fn $c_name(
            skb: *mut ::core::ffi::c_void,
            cb: *mut ::core::ffi::c_void,
        ) -> ::kernel::ffi::c_int {
            // SAFETY: Genetlink calls this with a message buffer and the state of a dump.
            unsafe { $crate::genl::dumpit(skb, cb, $handler) }
        }
    )*};
}

/// A registered family. Dropping it waits until no handler runs any more.
pub struct Registration<F: Family>(PhantomData<F>);

impl<F: Family> Registration<F> {
    /// Registers the family; handlers may be called before this returns. Process context.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is a family of that name.
    pub fn new() -> Result<Self> {
        // SAFETY: Valid per the trait.
        to_result(unsafe { raw::genl_register_family(raw_family::<F>()) })?;
        Ok(Self(PhantomData))
    }
}

impl<F: Family> Drop for Registration<F> {
    fn drop(&mut self) {
        // SAFETY: Registered by `new()`.
        unsafe { raw::genl_unregister_family(raw_family::<F>()) };
    }
}
