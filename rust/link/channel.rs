// SPDX-License-Identifier: GPL-2.0

//! Messages on a connection: an [`Inbox`] that never blocks and an [`Outbox`] that goes out in one corked go.
//!
//! Both belong to the link's thread and own their buffers for the life of the link: a message of any size that
//! the protocol allows fits, nothing is allocated per message. Payloads of records are sent from the pages
//! where they lie (they never change, and go back to the pool only when the socket has let go of them), and
//! received into pages by the caller.

use super::{error::SessionError, Stats};
use crate::srl::zeroed;
use kernel::{prelude::*, sync::Arc};
use replicate_core::{
    group::Role,
    session::SessionId,
    wire::{
        Decoder, Header, Incoming, Message, WireError, DATA_MESSAGE_HEAD_BYTES, HEADER_BYTES,
        MAX_CONTROL,
    },
};
use replicate_linux::{
    clock,
    net::{Part, Stream},
    pages::{PageBuf, SharedBuf},
};

/// Messages in one go at most.
const MAX_ITEMS: usize = 64;
/// Payload bytes in one go at most (one largest record may exceed it).
const MAX_BYTES: usize = 1 << 20;
/// Bytes of payloads that a connection may hold: sent, and not acknowledged by the peer's TCP.
const MAX_PINNED: usize = 4 << 20;
/// Room for one largest control message and a go of records.
const HEADS: usize = HEADER_BYTES + MAX_CONTROL as usize + MAX_ITEMS * DATA_MESSAGE_HEAD_BYTES;

/// Messages of another session that a connection may bring: those that were under way when the session began.
const MAX_SKIPPED: u32 = 64;

#[derive(Clone, Copy)]
enum Stage {
    Header,
    Control(Header),
    Skip(usize),
}

/// Read from the socket at a time, where less was asked for: head and control part of most messages, and the first
/// bytes of what follows.
const AHEAD: usize = 512;

/// Bytes that were read before they were asked for: a small message costs one call to the socket, not three.
struct Ahead {
    bytes: KVVec<u8>,
    from: usize,
    to: usize,
}

impl Ahead {
    fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    /// At most `len` of the bytes.
    fn take(&mut self, len: usize) -> &[u8] {
        let from = self.from;
        self.from = self.to.min(from.saturating_add(len));
        self.bytes.get(from..self.from).unwrap_or_default()
    }
}

/// What comes in. See the module.
pub(crate) struct Inbox {
    pub(crate) stream: Option<Arc<Stream>>,
    ahead: Ahead,
    decoder: Decoder,
    head: [u8; HEADER_BYTES],
    control: KVVec<u8>,
    stage: Stage,
    got: usize,
    /// Messages of another session that this connection brought.
    skipped: u32,
    /// When the peer was last heard, or nothing was read, monotonic ns.
    pub(crate) rx_ns: u64,
    /// Send time of the newest message, by the peer's clock.
    pub(crate) peer_time_ns: u64,
}

impl Inbox {
    /// An inbox without a connection. May sleep.
    pub(crate) fn new() -> Result<Inbox> {
        Ok(Inbox {
            stream: None,
            ahead: Ahead {
                bytes: zeroed(AHEAD)?,
                from: 0,
                to: 0,
            },
            decoder: Decoder::new(Role::Primary, 0),
            head: [0; HEADER_BYTES],
            control: zeroed(MAX_CONTROL as usize)?,
            stage: Stage::Header,
            got: 0,
            skipped: 0,
            rx_ns: 0,
            peer_time_ns: 0,
        })
    }

    /// A new connection, before its session; the other side is a host of role `from`.
    pub(crate) fn open(&mut self, stream: Arc<Stream>, from: Role) {
        self.stream = Some(stream);
        (self.ahead.from, self.ahead.to) = (0, 0);
        self.decoder = Decoder::new(from, 0);
        self.stage = Stage::Header;
        self.got = 0;
        self.skipped = 0;
        self.rx_ns = clock::monotonic_ns();
        self.peer_time_ns = 0;
    }

    /// The other side turned out to have this role.
    pub(crate) fn comes_from(&mut self, from: Role) {
        self.decoder = Decoder::new(from, 0);
    }

    /// The session has begun.
    pub(crate) fn begin_session(&mut self, session: SessionId) {
        self.decoder.set_session(session);
    }

    /// The header of the next message whose control part is here, if there is one now. Its data, if it has
    /// some, is to be read from the stream before the next call.
    pub(crate) fn poll(&mut self, stats: &Stats) -> Result<Option<Header>, SessionError> {
        loop {
            match self.stage {
                Stage::Header => {
                    if !self.fill_head(stats)? {
                        return Ok(None);
                    }
                    self.got = 0;
                    self.stage = match self
                        .decoder
                        .header(&self.head)
                        .map_err(SessionError::wire)?
                    {
                        Incoming::Message(h) => Stage::Control(h),
                        Incoming::OtherSession(h) if self.skipped < MAX_SKIPPED => {
                            self.skipped += 1;
                            Stage::Skip(h.length as usize)
                        }
                        Incoming::OtherSession(_) => {
                            return Err(SessionError::wire(WireError::Field("session")))
                        }
                    };
                }
                Stage::Control(h) => {
                    if !self.fill_control(h.control() as usize, stats)? {
                        return Ok(None);
                    }
                    self.got = 0;
                    self.stage = Stage::Header;
                    self.peer_time_ns = h.envelope.time_ns;
                    stats.messages_received.add(1);
                    return Ok(Some(h));
                }
                Stage::Skip(left) => {
                    let want = left.min(self.control.len());
                    self.got = 0;
                    if want > 0 && !self.fill_some(want, stats)? {
                        return Ok(None);
                    }
                    let left = left.saturating_sub(self.got);
                    self.got = 0;
                    self.stage = if left == 0 {
                        Stage::Header
                    } else {
                        Stage::Skip(left)
                    };
                }
            }
        }
    }

    /// The message that belongs to the header that [`Self::poll`] returned last.
    pub(crate) fn message(&self, header: &Header) -> Result<Message<'_>, WireError> {
        let bytes = self.control.get(..header.control() as usize);
        self.decoder.control(header, bytes.ok_or(WireError::Size)?)
    }

    fn fill_head(&mut self, stats: &Stats) -> Result<bool, SessionError> {
        while self.got < HEADER_BYTES {
            if !self.look_ahead(stats)? {
                return Ok(false);
            }
            let bytes = self.ahead.take(HEADER_BYTES - self.got);
            if let Some(to) = self.head.get_mut(self.got..self.got + bytes.len()) {
                to.copy_from_slice(bytes);
            }
            self.got += bytes.len();
        }
        Ok(true)
    }

    /// Reads ahead, where nothing is left of what was; `false`: nothing has come.
    fn look_ahead(&mut self, stats: &Stats) -> Result<bool, SessionError> {
        if self.ahead.is_empty() {
            let n = match &self.stream {
                Some(s) => s
                    .try_recv(&mut self.ahead.bytes)
                    .map_err(SessionError::io)?,
                None => 0,
            };
            (self.ahead.from, self.ahead.to) = (0, n);
            self.heard(n, stats);
        }
        Ok(!self.ahead.is_empty())
    }

    fn fill_control(&mut self, want: usize, stats: &Stats) -> Result<bool, SessionError> {
        while self.got < want {
            if !self.fill_some(want, stats)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads once into the control buffer, up to `want`.
    fn fill_some(&mut self, want: usize, stats: &Stats) -> Result<bool, SessionError> {
        let left = want.saturating_sub(self.got);
        if left <= AHEAD || !self.ahead.is_empty() {
            if !self.look_ahead(stats)? {
                return Ok(false);
            }
            let bytes = self.ahead.take(left);
            if let Some(to) = self.control.get_mut(self.got..self.got + bytes.len()) {
                to.copy_from_slice(bytes);
            }
            self.got += bytes.len();
            return Ok(true);
        }
        let n = match (&self.stream, self.control.get_mut(self.got..want)) {
            (Some(s), Some(to)) => s.try_recv(to).map_err(SessionError::io)?,
            _ => 0,
        };
        self.heard(n, stats);
        self.got += n;
        Ok(n > 0)
    }

    /// Reads data of the present message into `buf`; how many bytes came.
    pub(crate) fn data(
        &mut self,
        buf: &mut PageBuf,
        at: usize,
        len: usize,
        stats: &Stats,
    ) -> Result<usize, SessionError> {
        if !self.ahead.is_empty() {
            let bytes = self.ahead.take(len);
            let n = bytes.len();
            buf.write_at(at, bytes)
                .map_err(|_| SessionError::wire(WireError::Size))?;
            return Ok(n);
        }
        let Some(stream) = &self.stream else {
            return Ok(0);
        };
        let n = stream
            .try_recv_buf(buf, at, len)
            .map_err(SessionError::io)?;
        self.heard(n, stats);
        Ok(n)
    }

    /// Nothing is read now, for want of room: that the peer is not heard says nothing about it.
    pub(crate) fn is_not_read(&mut self) {
        self.rx_ns = clock::monotonic_ns();
    }

    fn heard(&mut self, n: usize, stats: &Stats) {
        if n > 0 {
            self.rx_ns = clock::monotonic_ns();
            stats.bytes_received.add(n as u64);
        }
    }
}

struct Item {
    from: usize,
    to: usize,
    data: Option<SharedBuf>,
    len: usize,
}

/// What goes out. See the module.
pub(crate) struct Outbox {
    pub(crate) stream: Option<Arc<Stream>>,
    heads: KVVec<u8>,
    used: usize,
    items: KVec<Item>,
    bytes: usize,
    /// The item that is going out, and how many bytes of it are gone.
    at: usize,
    done: usize,
    /// When something was last put in, monotonic ns.
    pub(crate) tx_ns: u64,
}

impl Outbox {
    /// An outbox without a connection. May sleep.
    pub(crate) fn new() -> Result<Outbox> {
        Ok(Outbox {
            stream: None,
            heads: zeroed(HEADS)?,
            used: 0,
            items: KVec::with_capacity(MAX_ITEMS, GFP_KERNEL)?,
            bytes: 0,
            at: 0,
            done: 0,
            tx_ns: 0,
        })
    }

    /// A new connection.
    pub(crate) fn open(&mut self, stream: Arc<Stream>) {
        self.clear();
        self.stream = Some(stream);
        self.tx_ns = clock::monotonic_ns();
    }

    /// Forgets everything, the connection too.
    pub(crate) fn close(&mut self) {
        self.clear();
        self.stream = None;
    }

    fn clear(&mut self) {
        self.items.clear();
        self.used = 0;
        self.bytes = 0;
        self.at = 0;
        self.done = 0;
    }

    /// The connection holds so much of the pool that no more may be put into it now.
    pub(crate) fn holds_too_much(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|s| s.unacked() >= MAX_PINNED)
    }

    /// The connection holds more than a few small messages.
    pub(crate) fn holds_much(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|s| s.unacked() > HEADER_BYTES + MAX_CONTROL as usize)
    }

    /// Nothing waits to go out.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether a small message or a record still fits this go.
    pub(crate) fn has_room(&self) -> bool {
        self.items.len() < MAX_ITEMS
            && self.bytes < MAX_BYTES
            && self.used + HEADER_BYTES + 512 <= HEADS
    }

    /// Puts in a message that `encode` writes, with the payload that follows it.
    pub(crate) fn push(
        &mut self,
        data: Option<SharedBuf>,
        encode: impl FnOnce(&mut [u8]) -> Result<usize, WireError>,
    ) -> Result<(), SessionError> {
        let room = self.heads.get_mut(self.used..).unwrap_or_default();
        let n = encode(room).map_err(SessionError::wire)?;
        let len = data.as_ref().map_or(0, |d| d.len());
        let item = Item {
            from: self.used,
            to: self.used + n,
            data,
            len,
        };
        self.items
            .push_within_capacity(item)
            .map_err(|_| SessionError::no_memory())?;
        self.used += n;
        self.bytes += len;
        self.tx_ns = clock::monotonic_ns();
        Ok(())
    }

    /// Sends what the socket takes now; `true` when everything is gone.
    pub(crate) fn flush(&mut self, stats: &Stats) -> Result<bool, SessionError> {
        let Some(stream) = &self.stream else {
            return Ok(true);
        };
        while let Some(item) = self.items.get(self.at) {
            let head = self.heads.get(item.from..item.to).unwrap_or_default();
            let total = head.len() + item.len;
            let more = self.at + 1 < self.items.len();
            let sent = match &item.data {
                Some(buf) => stream.try_send(
                    &[
                        Part::Bytes(head),
                        Part::Pages {
                            buf,
                            offset: 0,
                            len: item.len,
                        },
                    ],
                    self.done,
                    more,
                ),
                None => stream.try_send(&[Part::Bytes(head)], self.done, more),
            };
            let n = sent.map_err(SessionError::io)?;
            if n == 0 {
                return Ok(false);
            }
            stats.bytes_sent.add(n as u64);
            self.done += n;
            if self.done >= total {
                stats.messages_sent.add(1);
                self.at += 1;
                self.done = 0;
            }
        }
        self.clear();
        Ok(true)
    }
}
