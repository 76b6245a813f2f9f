// SPDX-License-Identifier: GPL-2.0

//! The conversation with the kernel: one generic netlink socket, one request at a time.
//!
//! A request ends with the kernel's acknowledgement or with its error; the extended
//! acknowledgement's text is passed on word by word, with the attribute that it points at.

pub mod attr;
mod extack;
mod message;

use std::io;

use netlink_packet_core::{
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST,
};
use netlink_sys::{protocols::NETLINK_GENERIC, Socket, SocketAddr};

use crate::{
    error::{Error, Exit, Result},
    uapi,
};
use attr::{Attrs, Builder};
use extack::Refusal;
use message::Message;

// The controller of generic netlink (linux/genetlink.h), which knows every family's number.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_VERSION: u16 = 3;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

/// The list changed while it was dumped (linux/netlink.h).
const NLM_F_DUMP_INTR: u16 = 0x10;
const DUMP_ATTEMPTS: u32 = 8;

/// Room for one receive; the kernel fills 32 KiB of a dump at most.
const RECEIVE_BYTES: usize = 256 << 10;

/// Enough for a burst of events while the reader is busy.
const EVENT_BUFFER_BYTES: u32 = 4 << 20;

type Datagram = NetlinkMessage<Message>;

/// What the controller says about the family.
struct Family {
    id: u16,
    version: u32,
    events: Option<u32>,
}

/// A socket that knows the family's number.
pub struct Connection {
    socket: Socket,
    family: Family,
    seq: u32,
}

impl Connection {
    /// Opens a socket and finds the family.
    pub fn open() -> Result<Self> {
        let socket = open_socket().map_err(|e| Error::io("cannot open a netlink socket", &e))?;
        let unknown = Family {
            id: GENL_ID_CTRL,
            version: 2,
            events: None,
        };
        let mut connection = Connection {
            socket,
            family: unknown,
            seq: 0,
        };
        connection.family = connection.find_family()?;
        Ok(connection)
    }

    /// Returns the version of the family that the loaded module has.
    pub fn family_version(&self) -> u32 {
        self.family.version
    }

    /// Sends a request that changes or asks for one thing; returns the replies' attributes.
    ///
    /// `doing` says what is being tried, on which object: "cannot add group db".
    pub fn request(&mut self, doing: &str, cmd: u8, attrs: &Builder) -> Result<Vec<Attrs>> {
        match self.transact(cmd, attrs, NLM_F_REQUEST | NLM_F_ACK) {
            Ok((replies, _)) => Ok(replies),
            Err(failure) => Err(failure.explain(doing, cmd)),
        }
    }

    /// Asks for a list; starts again when it changed meanwhile.
    pub fn dump(&mut self, doing: &str, cmd: u8) -> Result<Vec<Attrs>> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.transact(cmd, &Builder::new(), NLM_F_REQUEST | NLM_F_DUMP) {
                Ok((replies, false)) => return Ok(replies),
                Ok((_, true)) => {}
                Err(failure) => return Err(failure.explain(doing, cmd)),
            }
        }
        Err(Error::new(format!(
            "{doing}: the groups change faster than they can be read"
        ))
        .hint("Try again."))
    }

    /// Joins the multicast group of events.
    pub fn subscribe(&mut self) -> Result {
        let failed = |e: io::Error| Error::io("cannot subscribe to events", &e);
        let group = self.family.events.ok_or_else(|| {
            Error::new(
                "cannot subscribe to events: the loaded module has no multicast group for them",
            )
            .hint("Load the module that belongs to this tool.")
        })?;
        self.socket
            .set_rx_buf_sz(EVENT_BUFFER_BYTES)
            .map_err(failed)?;
        // What there is no room for here counts as lost in the group's status.
        self.socket.set_broadcast_error(true).map_err(failed)?;
        self.socket.add_membership(group).map_err(failed)
    }

    /// Waits for events; `None` when the socket overflowed and some were lost.
    pub fn next_events(&mut self) -> Result<Option<Vec<Attrs>>> {
        let messages = match self.receive() {
            Ok(messages) => messages,
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
            Err(e) => return Err(Error::io("cannot receive events", &e)),
        };
        let events = messages.into_iter().filter_map(|m| match m.payload {
            NetlinkPayload::InnerMessage(m)
                if m.family == self.family.id && m.cmd == uapi::cmd::EVENT =>
            {
                Some(m.attrs)
            }
            _ => None,
        });
        Ok(Some(events.collect()))
    }

    fn find_family(&mut self) -> Result<Family> {
        let doing = "cannot look up the netlink family dm-replicate";
        let request = Builder::new().string(CTRL_ATTR_FAMILY_NAME, uapi::FAMILY_NAME);
        let replies = match self.transact(CTRL_CMD_GETFAMILY, &request, NLM_F_REQUEST | NLM_F_ACK) {
            Ok((replies, _)) => replies,
            Err(Failure::Refused(refusal)) if refusal.errno == libc::ENOENT => {
                return Err(Error::new("the kernel module dm_replicate is not loaded")
                    .hint("Load it: modprobe dm_replicate, or insmod dm_replicate.ko. In a container or another network namespace it cannot be seen: run this on the host itself.")
                    .exit(Exit::NoModule))
            }
            Err(failure) => return Err(failure.explain(doing, CTRL_CMD_GETFAMILY)),
        };
        let reply = replies.first();
        let id = reply.and_then(|r| r.u16(CTRL_ATTR_FAMILY_ID));
        let (Some(reply), Some(id)) = (reply, id) else {
            return Err(Error::new(format!(
                "{doing}: the kernel's answer has no number in it"
            )));
        };
        let groups = reply.nest(CTRL_ATTR_MCAST_GROUPS).unwrap_or_default();
        let events = groups.nests().find_map(|g| {
            (g.string(CTRL_ATTR_MCAST_GRP_NAME)? == uapi::MCGRP_EVENTS)
                .then(|| g.u32(CTRL_ATTR_MCAST_GRP_ID))?
        });
        Ok(Family {
            id,
            version: reply.u32(CTRL_ATTR_VERSION).unwrap_or(0),
            events,
        })
    }

    /// Sends, and receives until the end of the answer. The flag says that a dump was interrupted.
    fn transact(
        &mut self,
        cmd: u8,
        attrs: &Builder,
        flags: u16,
    ) -> Result<(Vec<Attrs>, bool), Failure> {
        self.seq = self.seq.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.seq;
        let message = Message::new(self.family.id, cmd, attrs);
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(Failure::Io)?;

        let mut replies = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive().map_err(Failure::Io)? {
                if message.header.sequence_number != self.seq {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(m) => replies.push(m.attrs),
                    NetlinkPayload::Error(e) if e.raw_code() == 0 => {
                        return Ok((replies, interrupted))
                    }
                    NetlinkPayload::Error(e) => {
                        let refusal = Refusal::of_error(&e, message.header.flags, &bytes);
                        return Err(Failure::Refused(refusal));
                    }
                    NetlinkPayload::Done(d) if d.code < 0 => {
                        let refusal = Refusal::new(d.code, &d.extended_ack, &bytes);
                        return Err(Failure::Refused(refusal));
                    }
                    NetlinkPayload::Done(_) => return Ok((replies, interrupted)),
                    _ => {}
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<Vec<Datagram>> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        let length = loop {
            match self.socket.recv(&mut buffer, libc::MSG_TRUNC) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if length > buffer.len() {
            return Err(io::Error::other(format!(
                "a message of {length} bytes is too long for this tool"
            )));
        }
        split(&buffer)
    }
}

fn open_socket() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    // The request need not come back with the error: it is still here.
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// Returns the messages of one receive.
fn split(mut rest: &[u8]) -> io::Result<Vec<Datagram>> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let message = Datagram::deserialize(rest).map_err(|e| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the kernel's message makes no sense: {e}"),
            )
        })?;
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        rest = rest.get(length.saturating_add(3) & !3..).unwrap_or(&[]);
        messages.push(message);
    }
    Ok(messages)
}

/// Why a request did not succeed.
enum Failure {
    Io(io::Error),
    Refused(Refusal),
}

impl Failure {
    fn explain(self, doing: &str, cmd: u8) -> Error {
        match self {
            Failure::Io(e) => Error::io(doing, &e),
            Failure::Refused(refusal) => refusal.explain(doing, cmd),
        }
    }
}
