// SPDX-License-Identifier: GPL-2.0

//! Messages that are being built.

use super::{generated, request::Request};
use crate::bindings as raw;
use core::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};
use kernel::{bindings, error::to_result, prelude::*};

/// Adds attributes to a message. A value that does not fit fails with `EMSGSIZE`; then the message
/// should be given up.
///
/// # Invariants
///
/// `skb` is a live message buffer that nobody else uses, with the open message `header`.
pub struct Message {
    skb: *mut bindings::sk_buff,
    header: *mut c_void,
}

impl Message {
    /// Starts a message in a buffer. `None` if there is no room even for that.
    ///
    /// # Safety
    ///
    /// `skb` is a live message buffer that nobody else uses as long as the result lives, and
    /// `family` is valid.
    pub(super) unsafe fn start(
        skb: *mut bindings::sk_buff,
        portid: u32,
        seq: u32,
        family: *const raw::genl_family,
        flags: u32,
        cmd: u8,
    ) -> Option<Self> {
        // SAFETY: Per the caller.
        let header = unsafe { raw::genlmsg_put(skb, portid, seq, family, flags as c_int, cmd) };
        if header.is_null() {
            return None;
        }
        // INVARIANT: The message was started, the rest is per the caller.
        Some(Self { skb, header })
    }

    /// Ends the message.
    pub(super) fn finish(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { raw::genlmsg_end(self.skb, self.header) };
    }

    /// Takes the message out of the buffer.
    pub(super) fn cancel(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { raw::genlmsg_cancel(self.skb, self.header) };
    }

    pub(super) fn header(&self) -> *mut c_void {
        self.header
    }

    /// Makes room for a value of `len` bytes.
    fn reserve(&mut self, id: u16, len: usize) -> Result<&mut [u8]> {
        let n = c_int::try_from(len).map_err(|_| EMSGSIZE)?;
        if len > u16::MAX as usize - 8 {
            return Err(EMSGSIZE);
        }
        // SAFETY: By the type invariant; the length fits an attribute.
        let attr = unsafe { raw::nla_reserve(self.skb, c_int::from(id), n) };
        if attr.is_null() {
            return Err(EMSGSIZE);
        }
        // SAFETY: The value follows the header, which is one `nlattr` long.
        let value = unsafe { attr.add(1) }.cast::<u8>();
        // SAFETY: `len` bytes are reserved there.
        unsafe { core::ptr::write_bytes(value, 0, len) };
        // SAFETY: As above, and initialised; nobody else uses the buffer.
        Ok(unsafe { core::slice::from_raw_parts_mut(value, len) })
    }

    /// Adds bytes.
    pub fn bytes(&mut self, id: u16, value: &[u8]) -> Result {
        self.reserve(id, value.len())?.copy_from_slice(value);
        Ok(())
    }

    /// Adds a flag: an attribute without a value.
    pub fn flag(&mut self, id: u16) -> Result {
        self.bytes(id, &[])
    }

    /// Adds a number of 8 bits.
    pub fn u8(&mut self, id: u16, value: u8) -> Result {
        self.bytes(id, &value.to_ne_bytes())
    }

    /// Adds a number of 16 bits.
    pub fn u16(&mut self, id: u16, value: u16) -> Result {
        self.bytes(id, &value.to_ne_bytes())
    }

    /// Adds a number of 32 bits.
    pub fn u32(&mut self, id: u16, value: u32) -> Result {
        self.bytes(id, &value.to_ne_bytes())
    }

    /// Adds what YNL calls `uint`: 32 bits if the value fits, else 64.
    pub fn uint(&mut self, id: u16, value: u64) -> Result {
        match u32::try_from(value) {
            Ok(small) => self.bytes(id, &small.to_ne_bytes()),
            Err(_) => self.bytes(id, &value.to_ne_bytes()),
        }
    }

    /// Adds text, with a NUL.
    pub fn str(&mut self, id: u16, value: &str) -> Result {
        self.fmt(id, format_args!("{}", value))
    }

    /// Adds formatted text, with a NUL: `m.fmt(ID, format_args!("{}", x))`.
    pub fn fmt(&mut self, id: u16, value: fmt::Arguments<'_>) -> Result {
        let mut count = Count(0);
        fmt::write(&mut count, value).map_err(|_| EINVAL)?;
        let mut out = Fill(self.reserve(id, count.0.checked_add(1).ok_or(EMSGSIZE)?)?);
        // Text that is longer the second time is cut: the last byte stays 0.
        fmt::write(&mut out, value).map_err(|_| EINVAL)
    }

    /// Adds a nest with what `f` adds. If `f` fails, the nest is taken out again.
    pub fn nest(&mut self, id: u16, f: impl FnOnce(&mut Message) -> Result) -> Result {
        // SAFETY: By the type invariant.
        let start = unsafe { raw::nla_nest_start(self.skb, c_int::from(id)) };
        if start.is_null() {
            return Err(EMSGSIZE);
        }
        match f(self) {
            Ok(()) => {
                // SAFETY: By the type invariant; started above.
                unsafe { raw::nla_nest_end(self.skb, start) };
                Ok(())
            }
            Err(e) => {
                // SAFETY: By the type invariant; started above.
                unsafe { raw::nla_nest_cancel(self.skb, start) };
                Err(e)
            }
        }
    }
}

/// Counts what it is given.
struct Count(usize);

impl fmt::Write for Count {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0 = self.0.saturating_add(s.len());
        Ok(())
    }
}

/// Fills a buffer, but not its last byte.
struct Fill<'a>(&'a mut [u8]);

impl fmt::Write for Fill<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let n = s.len().min(self.0.len().saturating_sub(1));
        let (head, tail) = core::mem::take(&mut self.0)
            .split_at_mut_checked(n)
            .ok_or(fmt::Error)?;
        head.copy_from_slice(s.as_bytes().get(..n).ok_or(fmt::Error)?);
        self.0 = tail;
        Ok(())
    }
}

/// A buffer of its own with one message.
///
/// # Invariants
///
/// Owns the buffer of `message`.
struct Own {
    message: Message,
}

impl Own {
    /// # Safety
    ///
    /// `family` is valid.
    unsafe fn new(
        capacity: usize,
        portid: u32,
        seq: u32,
        family: *const raw::genl_family,
        cmd: u8,
        gfp: bindings::gfp_t,
    ) -> Result<Self> {
        // SAFETY: Process context, as the callers demand.
        let skb = unsafe { raw::genlmsg_new(capacity, gfp) };
        if skb.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: A new buffer.
        let message = unsafe { Message::start(skb, portid, seq, family, 0, cmd) };
        match message {
            // INVARIANT: The buffer is ours.
            Some(message) => Ok(Self { message }),
            None => {
                // SAFETY: The buffer is ours.
                unsafe { raw::nlmsg_free(skb) };
                Err(EMSGSIZE)
            }
        }
    }

    /// Ends the message and gives up the buffer.
    fn into_raw(mut self) -> *mut bindings::sk_buff {
        self.message.finish();
        let skb = self.message.skb;
        core::mem::forget(self);
        skb
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: Ours by the type invariant.
        unsafe { raw::nlmsg_free(self.message.skb) };
    }
}

/// The answer to a request. Dropped unsent, it is not sent.
pub struct Reply<'a> {
    own: Own,
    info: *mut raw::genl_info,
    _request: PhantomData<&'a Request<'a>>,
}

impl<'a> Reply<'a> {
    /// # Safety
    ///
    /// `info` is that of a request that lives for `'a`.
    pub(super) unsafe fn new(info: *mut raw::genl_info, cmd: u8, capacity: usize) -> Result<Self> {
        // SAFETY: Per the caller.
        let (portid, seq, family) =
            unsafe { ((*info).snd_portid, (*info).snd_seq, (*info).family) };
        Ok(Self {
            // SAFETY: The family of a request is registered.
            own: unsafe { Own::new(capacity, portid, seq, family, cmd, raw::GFP_MASK_NOIO) }?,
            info,
            _request: PhantomData,
        })
    }

    /// Sends it.
    pub fn send(self) -> Result {
        let info = self.info;
        // SAFETY: The request lives; this takes the buffer.
        to_result(unsafe { raw::genlmsg_reply(self.own.into_raw(), info) })
    }
}

impl Deref for Reply<'_> {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.own.message
    }
}

impl DerefMut for Reply<'_> {
    fn deref_mut(&mut self) -> &mut Message {
        &mut self.own.message
    }
}

/// A message to all who listen to a group. Dropped unsent, it is not sent.
///
/// # Invariants
///
/// `family` is valid and registered.
pub struct Multicast {
    own: Own,
    family: *mut raw::genl_family,
}

// SAFETY: It owns the buffer that it points at; the family is one for all threads.
unsafe impl Send for Multicast {}

impl Multicast {
    /// Starts a message of up to about `capacity` bytes; fails rather than wait for memory. Process context. Only
    /// while the family is registered.
    pub fn new(cmd: u8, capacity: usize) -> Result<Self> {
        // SAFETY: A static of the generated C file.
        unsafe { Self::of(generated(), cmd, capacity, raw::GFP_MASK_NOWAIT) }
    }

    /// As [`Self::new`], but waits for memory: for one that is made long before it is sent.
    pub fn reserve(cmd: u8, capacity: usize) -> Result<Self> {
        // SAFETY: A static of the generated C file.
        unsafe { Self::of(generated(), cmd, capacity, raw::GFP_MASK_NOIO) }
    }

    /// # Safety
    ///
    /// `family` is valid and registered as long as the result lives.
    pub(super) unsafe fn of(
        family: *mut raw::genl_family,
        cmd: u8,
        capacity: usize,
        gfp: bindings::gfp_t,
    ) -> Result<Self> {
        // INVARIANT: Per the caller.
        Ok(Self {
            // SAFETY: Per the caller.
            own: unsafe { Own::new(capacity, 0, 0, family, cmd, gfp) }?,
            family,
        })
    }

    /// Sends it to the group of that index in the family, as far as its listeners opened their sockets with
    /// CAP_SYS_ADMIN. That nobody listens is no error. The first listener needs no memory; a further one for whom there
    /// is none learns that it missed something. Does not sleep.
    pub fn send(self, group: u32) -> Result {
        let family = self.family;
        let skb = self.own.into_raw();
        // SAFETY: Valid by the type invariant; this takes the buffer.
        let code = unsafe { raw::genlmsg_multicast(family, skb, group, raw::GFP_MASK_NOWAIT) };
        match to_result(code) {
            Err(e) if e == ESRCH => Ok(()),
            other => other,
        }
    }
}

impl Deref for Multicast {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.own.message
    }
}

impl DerefMut for Multicast {
    fn deref_mut(&mut self) -> &mut Message {
        &mut self.own.message
    }
}
