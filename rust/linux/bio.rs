// SPDX-License-Identifier: GPL-2.0

//! I/O of our own to a block device.
//!
//! * [`IoUnit`]: a preallocated object that carries one operation of up to some megabytes, and is
//!   used again and again. Submitting it allocates nothing of ours and never fails: what goes wrong
//!   comes back like any other result.
//! * [`SyncIo`]: the same, waited for.
//! * [`CompletionQueue`]: where finished units arrive. The end of an I/O, possibly in a hard
//!   interrupt, takes no lock, allocates nothing and logs nothing: it counts, pushes the unit on a
//!   lock-free list, and notifies an [`Event`](crate::event::Event).
//!
//! Our bios belong to the root cgroup, so that a throttled task that happens to run does not
//! throttle everyone, and are `REQ_SYNC | REQ_IDLE`, so that writeback throttling does not make
//! them sleep. They carry no flag of the caller's bios but FUA, by meaning.
//!
//! Submitting: process context, also from `map()`, where the block layer only queues them on the
//! task until `map()` has returned: submit and return, never submit and wait.

mod kunit;
mod loaded;
mod queue;
mod segments;
mod sync;
mod unit;

pub use loaded::Loaded;
pub(crate) use queue::IrqList;
pub use queue::{CompletionQueue, Finished};
pub(crate) use sync::rw_sync;
pub use sync::SyncIo;
pub use unit::{Done, IoUnit};

pub use crate::pages::Segment;

use crate::bindings as raw;
use kernel::{bindings, types::Opaque};

/// What a write asks of the device's cache.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// The write is durable when it completes.
    pub fua: bool,
    /// Everything that completed before the submission is durable before this is written.
    pub preflush: bool,
}

impl Flags {
    /// A plain write.
    pub const NONE: Self = Self {
        fua: false,
        preflush: false,
    };
    /// Durable when it completes.
    pub const FUA: Self = Self {
        fua: true,
        preflush: false,
    };
    /// After a flush.
    pub const PREFLUSH: Self = Self {
        fua: false,
        preflush: true,
    };
    /// After a flush, and durable when it completes.
    pub const PREFLUSH_FUA: Self = Self {
        fua: true,
        preflush: true,
    };

    /// The bits of `blk_opf_t`.
    pub(crate) fn bits(self) -> bindings::blk_opf_t {
        let mut bits = 0;
        if self.fua {
            bits |= raw::REQ_FUA;
        }
        if self.preflush {
            bits |= raw::REQ_PREFLUSH;
        }
        bits
    }
}

/// Runs `f`; what it submits is held back until it returns (or until this task sleeps), so that
/// neighbouring requests are merged. Process context. Do not wait in it for what it submitted.
pub fn plugged<R>(f: impl FnOnce() -> R) -> R {
    let plug = Opaque::<bindings::blk_plug>::uninit();
    // SAFETY: `plug` stays where it is until it is finished below, on the same task.
    unsafe { bindings::blk_start_plug(plug.get()) };
    let result = f();
    // SAFETY: Started above.
    unsafe { bindings::blk_finish_plug(plug.get()) };
    result
}

/// Whether the task holds back what it submits, until it sleeps or ends its plug. Process context.
pub fn is_plugged() -> bool {
    // SAFETY: No requirements.
    let current = unsafe { raw::current() };
    // SAFETY: The current task is alive, and nobody else changes its plug.
    !unsafe { (*current).plug }.is_null()
}

/// Binds a bio to a device, in the name of the root cgroup.
///
/// # Safety
///
/// `bio` is initialised, without a device, and `bdev` is open.
unsafe fn bind_root(bio: *mut bindings::bio, bdev: *mut bindings::block_device) {
    // SAFETY: Per the caller.
    unsafe { (*bio).bi_bdev = bdev };
    // SAFETY: Per the caller; the device was set above.
    unsafe { raw::bio_associate_root(bio) };
}
