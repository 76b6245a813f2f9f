// SPDX-License-Identifier: GPL-2.0

//! A port that waits for connections.

use super::{addr::SocketAddr, socket::Socket, stream::Stream};
use crate::{bindings as raw, event::Event};
use kernel::{bindings, error::to_result, prelude::*, sync::Arc};

/// Connections that may wait to be accepted.
const BACKLOG: c_int = 256;

/// A listening socket. Its event is notified when a connection may be there.
pub struct Listener(Socket);

impl Listener {
    /// Listens on `addr`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE`, `EADDRNOTAVAIL` if no interface has the address.
    pub fn bind(addr: SocketAddr, event: Arc<Event>) -> Result<Self> {
        let socket = Socket::new(&addr, event)?;
        // SAFETY: The socket is open.
        unsafe { raw::sock_set_reuseaddr(socket.sk()) };
        socket.bind(&addr)?;
        // SAFETY: The socket is open.
        to_result(unsafe { bindings::kernel_listen(socket.as_ptr(), BACKLOG) })?;
        Ok(Self(socket))
    }

    /// Takes a connection, whose news go to `event`. `None` if there is none now.
    pub fn try_accept(&self, event: Arc<Event>) -> Result<Option<(Arc<Stream>, SocketAddr)>> {
        let Some(socket) = self.0.accept(event)? else {
            return Ok(None);
        };
        let stream = Stream::accepted(socket)?;
        let peer = stream.peer();
        Ok(Some((stream, peer)))
    }

    /// Where it listens.
    pub fn local(&self) -> Result<SocketAddr> {
        self.0.local()
    }
}
