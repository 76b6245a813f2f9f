// SPDX-License-Identifier: GPL-2.0

//! A TCP socket whose news go to an event.

use super::addr::SocketAddr;
use crate::{bindings as raw, errno::ENOTCONN, event::Event, gfp::NoioScope};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc,
    },
};

/// What the callbacks find, and what they replaced.
struct Hook {
    event: Arc<Event>,
}

/// The callbacks that a socket has by itself, as pointers for C.
///
/// A child that a listener makes starts with the listener's, which are ours; so these are handed
/// on from the listener to its children.
#[derive(Clone, Copy)]
pub(super) struct Defaults {
    data_ready: *mut c_void,
    state_change: *mut c_void,
    write_space: *mut c_void,
}

// SAFETY: They point at functions of the kernel.
unsafe impl Send for Defaults {}
// SAFETY: As above.
unsafe impl Sync for Defaults {}

/// An owned socket.
///
/// # Invariants
///
/// `sock` is an open TCP socket that `self` owns. Its user data points at `hook`, and its callbacks
/// are ours, until `drop()`.
pub(super) struct Socket {
    sock: NonNull<bindings::socket>,
    hook: KBox<Hook>,
    defaults: Defaults,
    memalloc: Atomic<i32>,
}

// SAFETY: A socket has its own lock.
unsafe impl Send for Socket {}
// SAFETY: As above.
unsafe impl Sync for Socket {}

/// A socket without hooks, closed when dropped.
///
/// # Invariants
///
/// An open TCP socket, owned.
struct Bare(NonNull<bindings::socket>);

impl Bare {
    fn into_inner(self) -> NonNull<bindings::socket> {
        let sock = self.0;
        core::mem::forget(self);
        sock
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Closing allocates; reclaim must not wait for those who wait for us.
        let _noio = NoioScope::enter();
        // SAFETY: Owned by the type invariant.
        unsafe { bindings::sock_release(self.0.as_ptr()) };
    }
}

impl Socket {
    /// Makes a socket for the family of `addr`.
    pub(super) fn new(addr: &SocketAddr, event: Arc<Event>) -> Result<Self> {
        let mut sock = core::ptr::null_mut();
        // SAFETY: The initial namespace lives for ever.
        to_result(unsafe {
            bindings::sock_create_kern(
                raw::init_net(),
                addr.family(),
                bindings::sock_type_SOCK_STREAM as c_int,
                raw::IPPROTO_NR_TCP,
                &mut sock,
            )
        })?;
        // INVARIANT: A new socket is ours.
        let bare = Bare(NonNull::new(sock).ok_or(ENOTCONN)?);
        Self::adopt(bare, None, event)
    }

    /// Takes a connection from a listening socket. `None` if there is none.
    pub(super) fn accept(&self, event: Arc<Event>) -> Result<Option<Self>> {
        let mut sock = core::ptr::null_mut();
        // SAFETY: By the type invariant.
        let accepted = to_result(unsafe {
            bindings::kernel_accept(self.sock.as_ptr(), &mut sock, bindings::O_NONBLOCK as c_int)
        });
        match accepted {
            Err(e) if e == EAGAIN => return Ok(None),
            other => other?,
        }
        // INVARIANT: A new socket is ours.
        let bare = Bare(NonNull::new(sock).ok_or(ENOTCONN)?);
        Self::adopt(bare, Some(self.defaults), event).map(Some)
    }

    fn adopt(bare: Bare, defaults: Option<Defaults>, event: Arc<Event>) -> Result<Self> {
        let hook = KBox::new(Hook { event }, GFP_KERNEL)?;
        // SAFETY: Owned by the type invariant of `Bare`.
        let sk = unsafe { (*bare.0.as_ptr()).sk };
        if defaults.is_none() {
            // Only a socket that is not connected yet: this makes its locks anew.
            // SAFETY: The socket is open, so its `sock` is there. The same holds for all that
            // follow.
            unsafe { raw::sk_reclassify(sk) };
        }
        // SAFETY: As above.
        unsafe { raw::sk_set_io_path(sk) };
        // SAFETY: As above.
        unsafe { raw::tcp_sock_set_nodelay(sk) };

        // SAFETY: As above.
        unsafe { raw::write_lock_callbacks(sk) };
        // SAFETY: As above, with the lock. The hook lives until `drop()` has taken this back.
        unsafe { raw::sk_set_user_data(sk, core::ptr::from_ref::<Hook>(&hook).cast_mut().cast()) };
        let found = Defaults {
            // SAFETY: As above, with the lock; the functions stay until `drop()`.
            data_ready: unsafe { raw::sk_swap_data_ready(sk, data_ready as *mut c_void) },
            // SAFETY: As above.
            state_change: unsafe { raw::sk_swap_state_change(sk, data_ready as *mut c_void) },
            // SAFETY: As above.
            write_space: unsafe { raw::sk_swap_write_space(sk, write_space as *mut c_void) },
        };
        // SAFETY: Locked above.
        unsafe { raw::write_unlock_callbacks(sk) };

        // What came before the hook was there made no call.
        hook.event.notify();
        // INVARIANT: Hooked above.
        Ok(Self {
            sock: bare.into_inner(),
            hook,
            defaults: defaults.unwrap_or(found),
            memalloc: Atomic::new(0),
        })
    }

    /// The socket, for C.
    pub(super) fn as_ptr(&self) -> *mut bindings::socket {
        self.sock.as_ptr()
    }

    /// Its protocol's part, for C.
    pub(super) fn sk(&self) -> *mut bindings::sock {
        // SAFETY: Open by the type invariant.
        unsafe { (*self.sock.as_ptr()).sk }
    }

    pub(super) fn event(&self) -> &Arc<Event> {
        &self.hook.event
    }

    pub(super) fn bind(&self, addr: &SocketAddr) -> Result {
        let mut to = addr.to_storage();
        // SAFETY: By the type invariant; the address is as long as it says.
        to_result(unsafe {
            bindings::kernel_bind(
                self.as_ptr(),
                (&raw mut to.storage).cast::<bindings::sockaddr_unsized>(),
                to.len,
            )
        })
    }

    /// The address at this end.
    pub(super) fn local(&self) -> Result<SocketAddr> {
        let mut storage = bindings::__kernel_sockaddr_storage::default();
        // SAFETY: By the type invariant; there is room for every kind of address.
        let len = unsafe { bindings::kernel_getsockname(self.as_ptr(), (&raw mut storage).cast()) };
        to_result(len)?;
        SocketAddr::from_storage(&storage).ok_or(ENOTCONN.into())
    }

    /// The address at the other end.
    pub(super) fn peer(&self) -> Result<SocketAddr> {
        let mut storage = bindings::__kernel_sockaddr_storage::default();
        // SAFETY: By the type invariant; there is room for every kind of address.
        let len = unsafe { bindings::kernel_getpeername(self.as_ptr(), (&raw mut storage).cast()) };
        to_result(len)?;
        SocketAddr::from_storage(&storage).ok_or(ENOTCONN.into())
    }

    /// See [`super::Stream::set_memalloc`].
    pub(super) fn set_memalloc(&self) {
        if self.memalloc.xchg(1, Full) == 0 {
            // SAFETY: Open by the type invariant; process context. Undone once, in `drop()`.
            unsafe { raw::sk_set_memalloc(self.sk()) };
        }
    }

    pub(super) fn is_memalloc(&self) -> bool {
        self.memalloc.load(Relaxed) != 0
    }

    /// Ends both directions; who waits is woken.
    pub(super) fn shutdown(&self) {
        let _noio = NoioScope::enter();
        // SAFETY: By the type invariant. That it is not connected any more is no problem.
        let _ = unsafe {
            bindings::kernel_sock_shutdown(self.as_ptr(), bindings::sock_shutdown_cmd_SHUT_RDWR)
        };
        self.hook.event.notify();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let sk = self.sk();
        // SAFETY: Open by the type invariant. The same holds for all that follow.
        unsafe { raw::write_lock_callbacks(sk) };
        // SAFETY: As above, with the lock: nobody is in a callback, and none will see the hook.
        unsafe { raw::sk_set_user_data(sk, core::ptr::null_mut()) };
        // SAFETY: As above. TCP may use the `sock` for a while after it was closed, perhaps longer
        // than this code exists.
        unsafe { raw::sk_swap_data_ready(sk, self.defaults.data_ready) };
        // SAFETY: As above.
        unsafe { raw::sk_swap_state_change(sk, self.defaults.state_change) };
        // SAFETY: As above.
        unsafe { raw::sk_swap_write_space(sk, self.defaults.write_space) };
        // SAFETY: Locked above.
        unsafe { raw::write_unlock_callbacks(sk) };
        if self.is_memalloc() {
            // SAFETY: As above; process context.
            unsafe { raw::sk_clear_memalloc(sk) };
        }
        drop(Bare(self.sock));
    }
}

/// Notifies the event of a socket, if it has one.
///
/// # Safety
///
/// `sk` is a live socket whose callback lock is held.
unsafe fn notify(sk: *mut bindings::sock) {
    // SAFETY: Per the caller.
    let hook = unsafe { raw::sk_user_data(sk) }.cast::<Hook>();
    if !hook.is_null() {
        // SAFETY: Set by `adopt()`; `drop()` takes it back under the lock that is held.
        unsafe { (*hook).event.notify() };
    }
}

/// Called when there is something to read or to accept, or when the state has changed.
///
/// # Safety
///
/// For TCP, with a live socket.
unsafe extern "C" fn data_ready(sk: *mut bindings::sock) {
    // SAFETY: Per the requirement above. The same holds for all that follow.
    unsafe { raw::read_lock_callbacks(sk) };
    // SAFETY: As above, with the lock.
    unsafe { notify(sk) };
    // SAFETY: Locked above.
    unsafe { raw::read_unlock_callbacks(sk) };
}

/// Called when there is room to send.
///
/// # Safety
///
/// For TCP, with a live socket.
unsafe extern "C" fn write_space(sk: *mut bindings::sock) {
    // SAFETY: Per the requirement above. The same holds for all that follow.
    unsafe { raw::read_lock_callbacks(sk) };
    // SAFETY: As above.
    if unsafe { raw::sk_take_write_space(sk) } {
        // SAFETY: As above, with the lock.
        unsafe { notify(sk) };
    }
    // SAFETY: Locked above.
    unsafe { raw::read_unlock_callbacks(sk) };
}
