// SPDX-License-Identifier: GPL-2.0

//! Generic netlink, with a family whose C tables were generated from a YNL specification.
//!
//! The generated C code has the operations, their policies and the family. What it lacks are the functions that the
//! operations name: those are generated too ([`Commands`]), and call what the module registered:
//!
//! ```ignore
//! static COMMANDS: Commands = Commands { thing_set: |request| .., thing_get_dump: |dump| .. };
//!
//! let registration = Registration::register(&COMMANDS)?;
//! ```
//!
//! The C core has checked a message by the policy before a handler sees it: lengths, ranges and
//! unknown attributes; not whether an attribute is there. Handlers run in process context and may
//! sleep; with `parallel_ops` several at once.
//!
//! No handler, of a change or of a read, is reached without CAP_SYS_ADMIN in the initial user namespace and a socket of
//! the initial network namespace: the entry points check both, of the sender and of whoever opened the socket. A
//! multicast message reaches only sockets that were opened with that privilege.

mod attr;
mod commands;
mod dump;
mod kunit;
mod message;
mod request;

pub use attr::{Attr, Attrs};
pub use commands::Commands;
pub use dump::{Dump, CURSORS};
pub use message::{Message, Multicast, Reply};
pub use request::Request;

use crate::bindings as raw;
use kernel::{error::to_result, prelude::*, sync::SetOnce};

/// The family that was generated.
fn generated() -> *mut raw::genl_family {
    &raw mut raw::dm_replicate_nl_family
}

/// What the module registered.
static COMMANDS: SetOnce<&'static Commands> = SetOnce::new();

/// A registered family. Dropping it waits until no handler runs any more.
///
/// # Invariants
///
/// The pointer is a family that was registered, and is valid as long as it is.
pub struct Registration(*mut raw::genl_family);

// SAFETY: A family may be unregistered by any thread.
unsafe impl Send for Registration {}
// SAFETY: No method takes `&self`.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers the family with what its operations do; they may be called before this returns. Process context.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is a family of that name, or commands were registered before.
    pub fn register(commands: &'static Commands) -> Result<Self> {
        if !COMMANDS.populate(commands) {
            return Err(EEXIST);
        }
        // SAFETY: A static of the generated C file.
        unsafe { Self::new(generated()) }
    }

    /// # Safety
    ///
    /// The family is valid as long as the result lives.
    unsafe fn new(family: *mut raw::genl_family) -> Result<Self> {
        // SAFETY: Per the caller.
        to_result(unsafe { raw::genl_register_family(family) })?;
        // INVARIANT: Registered, and valid per the caller.
        Ok(Self(family))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { raw::genl_unregister_family(self.0) };
    }
}
