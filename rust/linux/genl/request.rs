// SPDX-License-Identifier: GPL-2.0

//! A request being handled, and how it is refused.

use super::{attr::Attrs, message::Reply};
use crate::{bindings as raw, gfp::NoioScope, text::Writer};
use core::{cell::UnsafeCell, fmt, marker::PhantomData};
use kernel::{
    bindings,
    error::from_result,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Relaxed, Release},
};

/// Room for a text that explains a refusal, NUL included.
const TEXT_BYTES: usize = 400;

/// Texts that are being reported at the same time.
const TEXTS: usize = 64;

/// Room for one text that is being reported.
struct Place {
    /// Somebody writes to it.
    taken: Atomic<i32>,
    text: UnsafeCell<[u8; TEXT_BYTES]>,
}

// SAFETY: Only who has set `taken` accesses `text` from Rust, through a pointer. The C core reads it, too, maybe while it
// is overwritten: it sees some bytes that end with the last one, which is never written.
unsafe impl Sync for Place {}

/// The C core has room for 79 characters; longer texts are kept here until it has sent them, which
/// it does as soon as the handler has returned. The places are used in turn: one is overwritten too
/// early only if that many other requests are refused in between, and then the text is another's.
static LONG_TEXTS: [Place; TEXTS] = [const {
    Place {
        taken: Atomic::new(0),
        text: UnsafeCell::new([0; TEXT_BYTES]),
    }
}; TEXTS];

/// The place to be used next.
static NEXT_TEXT: Atomic<i32> = Atomic::new(0);

/// A request being handled.
///
/// # Invariants
///
/// `info` is that of a request, valid for `'a`.
pub struct Request<'a> {
    info: *mut raw::genl_info,
    /// The attribute that is overwritten when the handler has returned.
    wipe: Option<u16>,
    _alive: PhantomData<&'a raw::genl_info>,
}

impl<'a> Request<'a> {
    /// # Safety
    ///
    /// `info` is that of a request, valid for `'a`.
    pub(super) unsafe fn new(info: *mut raw::genl_info) -> Self {
        // INVARIANT: Per the caller.
        Self {
            info,
            wipe: None,
            _alive: PhantomData,
        }
    }

    /// An attribute that holds a key: it is overwritten when the handler has returned, so that neither the freed
    /// buffer nor the echo of a refused request has it.
    pub fn wipe_when_done(&mut self, id: u16) {
        self.wipe = Some(id);
    }

    /// # Safety
    ///
    /// Nothing that borrows from the message is used any more.
    unsafe fn wipe(&self) {
        let Some(attr) = self.wipe.and_then(|id| self.attrs().get(id)) else {
            return;
        };
        let (at, len) = (attr.bytes().as_ptr(), attr.bytes().len());
        // SAFETY: By the type invariant.
        let message = unsafe { (*self.info).nlhdr }.cast::<u8>().cast_mut();
        let offset = (at as usize).wrapping_sub(message as usize);
        // SAFETY: The attribute is in the message, which is ours to write until the handler has returned.
        unsafe { raw::memzero_explicit(message.add(offset).cast::<c_void>(), len) };
    }

    /// The attributes of the request.
    pub fn attrs(&self) -> Attrs<'a> {
        // SAFETY: By the type invariant.
        let header = unsafe { (*self.info).nlhdr };
        // SAFETY: The C core has checked the message.
        unsafe { message_attrs(header) }
    }

    /// The netlink port that sent it.
    pub fn portid(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { (*self.info).snd_portid }
    }

    /// Starts an answer of up to about `capacity` bytes.
    pub fn reply(&self, cmd: u8, capacity: usize) -> Result<Reply<'_>> {
        // SAFETY: By the type invariant.
        unsafe { Reply::new(self.info, cmd, capacity) }
    }

    /// Says why the request is refused: a sentence for the user, of up to 399 bytes. Returns
    /// `error` for `return Err(..)`.
    pub fn fail(&mut self, error: Error, text: fmt::Arguments<'_>) -> Error {
        // SAFETY: By the type invariant.
        let extack = unsafe { (*self.info).extack };
        if !extack.is_null() {
            // SAFETY: The report of a live request is ours.
            set_text(unsafe { &mut *extack }, text);
        }
        error
    }

    /// As [`Request::fail`] with `EINVAL`; also names the attribute that is missing.
    pub fn fail_missing(&mut self, id: u16, text: fmt::Arguments<'_>) -> Error {
        // SAFETY: By the type invariant.
        let extack = unsafe { (*self.info).extack };
        if !extack.is_null() {
            // SAFETY: The report of a live request is ours.
            unsafe { (*extack).miss_type = id };
        }
        self.fail(EINVAL, text)
    }
}

fn set_text(extack: &mut bindings::netlink_ext_ack, text: fmt::Arguments<'_>) {
    let mut short = Writer::new(bytes_mut(&mut extack._msg_buf));
    let _ = fmt::write(&mut short, text);
    if !short.is_full() {
        extack._msg = extack._msg_buf.as_ptr();
        return;
    }
    let mut long = [0u8; TEXT_BYTES];
    let mut out = Writer::new(&mut long);
    let _ = fmt::write(&mut out, text);

    let n = NEXT_TEXT.fetch_add(1, Relaxed).unsigned_abs() as usize;
    let Some(place) = LONG_TEXTS.get(n % TEXTS) else {
        return;
    };
    if place.taken.cmpxchg(0, 1, Acquire).is_err() {
        // All were used in turn while one was written: the short text must do.
        extack._msg = extack._msg_buf.as_ptr();
        return;
    }
    let text = place.text.get().cast::<u8>();
    // The last byte of the place stays 0 for ever; that of `long` is 0, too.
    // SAFETY: The place is that long, holds plain bytes, and is ours as long as it is taken.
    unsafe { core::ptr::copy_nonoverlapping(long.as_ptr(), text, TEXT_BYTES - 1) };
    place.taken.store(0, Release);
    extack._msg = text.cast_const().cast::<c_char>();
}

/// C characters as bytes.
fn bytes_mut(chars: &mut [c_char]) -> &mut [u8] {
    chars
}

/// The attributes of a generic netlink message.
///
/// # Safety
///
/// `header` is null or that of a valid message that lives for `'a`.
pub(super) unsafe fn message_attrs<'a>(header: *const bindings::nlmsghdr) -> Attrs<'a> {
    const SKIP: usize = size_of::<bindings::nlmsghdr>() + size_of::<raw::genlmsghdr>();

    if header.is_null() {
        return Attrs::new(&[]);
    }
    // SAFETY: Per the caller.
    let len = unsafe { (*header).nlmsg_len } as usize;
    // SAFETY: A message is as long as its header says.
    let message = unsafe { core::slice::from_raw_parts(header.cast::<u8>(), len) };
    Attrs::new(message.get(SKIP..).unwrap_or_default())
}

/// What the entry points of requests do.
///
/// # Safety
///
/// `skb` and `info` are the buffer and the `struct genl_info` of a request.
pub(super) unsafe fn doit(
    skb: *mut bindings::sk_buff,
    info: *mut raw::genl_info,
    handler: fn(&mut Request<'_>) -> Result,
) -> c_int {
    // SAFETY: Per the caller.
    if !unsafe { raw::netlink_is_privileged(skb) } {
        return EPERM.to_errno();
    }
    // SAFETY: Per the caller.
    let mut request = unsafe { Request::new(info) };
    let result = {
        // Handlers take locks that I/O needs: no allocation below them may wait for I/O.
        let _noio = NoioScope::enter();
        handler(&mut request)
    };
    // SAFETY: The handler has returned, and what it borrowed with it.
    unsafe { request.wipe() };
    from_result(|| result.map(|()| 0))
}
