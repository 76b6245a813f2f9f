// SPDX-License-Identifier: GPL-2.0

//! Lists that user space asks for, sent in as many buffers as it takes.

use super::{attr::Attrs, message::Message, request::message_attrs};
use crate::{bindings as raw, gfp::NoioScope};
use core::marker::PhantomData;
use kernel::{bindings, prelude::*};

/// How many numbers a dump remembers between two calls.
pub const CURSORS: usize = 4;

/// One call of a dump handler: one buffer to be filled.
///
/// The handler adds entries from where it stopped, which it keeps in the cursors (all 0 at first).
/// When [`Dump::entry`] says that the buffer is full, it returns `Ok` and is called again; when
/// everything was added, it returns `Ok` and is not.
///
/// # Invariants
///
/// `skb` and `cb` are those of a running dump, and valid for `'a`.
pub struct Dump<'a> {
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
    full: bool,
    _alive: PhantomData<&'a bindings::netlink_callback>,
}

impl<'a> Dump<'a> {
    /// The attributes of the request.
    pub fn attrs(&self) -> Attrs<'a> {
        // SAFETY: By the type invariant.
        let header = unsafe { (*self.cb).nlh };
        // SAFETY: The C core has checked the message.
        unsafe { message_attrs(header) }
    }

    /// A number that was set before, 0 at first. `i` is below [`CURSORS`].
    pub fn cursor(&self, i: usize) -> u64 {
        // SAFETY: By the type invariant; the numbers are plain.
        let args = unsafe { (*self.cb).__bindgen_anon_1.args };
        args.get(i).map_or(0, |n| *n as u64)
    }

    /// Remembers a number for the next call.
    pub fn set_cursor(&mut self, i: usize, value: u64) {
        // SAFETY: By the type invariant; the numbers are plain.
        let args = unsafe { &mut (*self.cb).__bindgen_anon_1.args };
        if let Some(n) = args.get_mut(..CURSORS).and_then(|args| args.get_mut(i)) {
            *n = value as c_long;
        }
    }

    /// Says which generation of the list this call shows, not 0: if it changes during a dump, user
    /// space is told that the list is not consistent. Call it before the first entry.
    pub fn set_generation(&mut self, generation: u32) {
        // SAFETY: By the type invariant.
        unsafe { (*self.cb).seq = generation.max(1) };
    }

    /// Adds an entry. `Ok(false)` if the buffer is full: nothing was added.
    ///
    /// # Errors
    ///
    /// Those of `f`; `EMSGSIZE` if it does not even fit an empty buffer.
    pub fn entry(&mut self, cmd: u8, f: impl FnOnce(&mut Message) -> Result) -> Result<bool> {
        if self.full {
            return Ok(false);
        }
        // SAFETY: By the type invariant.
        let info = unsafe { raw::genl_info_dump(self.cb) };
        // SAFETY: A dump has the information of its request.
        let (portid, seq, family) =
            unsafe { ((*info).snd_portid, (*info).snd_seq, (*info).family) };
        // SAFETY: By the type invariant; one message at a time.
        let message =
            unsafe { Message::start(self.skb, portid, seq, family, bindings::NLM_F_MULTI, cmd) };
        let result = match message {
            None => Err(EMSGSIZE),
            Some(mut message) => match f(&mut message) {
                Ok(()) => {
                    // SAFETY: By the type invariant; the message is open.
                    unsafe { raw::genl_dump_check_consistent(self.cb, message.header()) };
                    message.finish();
                    return Ok(true);
                }
                Err(e) => {
                    message.cancel();
                    Err(e)
                }
            },
        };
        match result {
            Err(e) if e == EMSGSIZE && self.filled() > 0 => {
                self.full = true;
                Ok(false)
            }
            Err(e) => Err(e),
            Ok(()) => Ok(true),
        }
    }

    /// Bytes in the buffer.
    fn filled(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { (*self.skb).len }
    }
}

/// What the entry points of dumps do.
///
/// # Safety
///
/// `skb` and `cb` are those of a running dump.
pub(super) unsafe fn dumpit(
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
    handler: fn(&mut Dump<'_>) -> Result,
) -> c_int {
    // A dump goes on in whoever reads from the socket: each part is checked.
    // SAFETY: Per the caller; a running dump has the buffer of its request.
    if !unsafe { raw::netlink_is_privileged((*cb).skb) } {
        return EPERM.to_errno();
    }
    // INVARIANT: Per the caller.
    let mut dump = Dump {
        skb,
        cb,
        full: false,
        _alive: PhantomData,
    };
    // As for a request: handlers take locks that I/O needs.
    let _noio = NoioScope::enter();
    match handler(&mut dump) {
        Err(e) => e.to_errno(),
        // What is in the buffer is sent in both cases.
        Ok(()) if dump.full => c_int::try_from(dump.filled()).unwrap_or(c_int::MAX),
        Ok(()) => 0,
    }
}
