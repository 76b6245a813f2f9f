// SPDX-License-Identifier: GPL-2.0

//! TCP between kernels, in the initial network namespace.
//!
//! Nothing here blocks inside of the socket: calls take or give what there is, and an
//! [`Event`](crate::event::Event) of the caller is notified when there may be more, when the
//! connection changes, or when there is room to send. So one thread can wait for a socket and for
//! anything else, and is woken by [`Stream::shutdown`] or when it shall stop.
//!
//! All functions: process context, may sleep for memory and for the socket's own lock. The sockets
//! allocate with `GFP_NOIO`; callers on the I/O path stand in a [`NoioScope`](crate::gfp::NoioScope)
//! as well. Only notifications run in soft interrupts.

mod addr;
mod kunit;
mod listener;
mod socket;
mod stream;

pub use addr::SocketAddr;
pub use listener::Listener;
pub use stream::Stream;

use crate::pages::PageBuf;

/// A piece of what is sent.
#[derive(Clone, Copy)]
pub enum Part<'a> {
    /// Bytes, which are copied.
    Bytes(&'a [u8]),
    /// A range of a buffer, whose pages the socket holds on to instead of copying them. The
    /// buffer may be dropped at once, but what it holds must not change until the peer has
    /// acknowledged it: TCP may send it again.
    Pages {
        /// The buffer.
        buf: &'a PageBuf,
        /// Where the range starts, in bytes.
        offset: usize,
        /// Its length in bytes.
        len: usize,
    },
}

impl Part<'_> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::Pages { len, .. } => *len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
