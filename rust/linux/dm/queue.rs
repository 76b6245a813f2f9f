// SPDX-License-Identifier: GPL-2.0

//! Mapped bios that went to a device and come back to the target when they are done there.

use super::bio::MappedBio;
use crate::{bindings as raw, bio::IrqList, errno::BlkStatus, event::Event};
use core::ptr::NonNull;
use kernel::{bindings, prelude::*, sync::Arc, types::Opaque};

/// What device-mapper keeps for us next to each bio.
#[repr(C)]
pub(super) struct PerBio {
    node: Opaque<bindings::llist_node>,
    /// The instance that the bio is mapped by. It outlives the bio: device-mapper destroys a table only once all
    /// bios that it mapped have ended.
    pub(super) ti: *mut raw::dm_target,
    /// Where the bio goes when it is done, or null.
    list: *const IrqList,
    tag: u64,
    /// First sector, from the start of the target.
    pub(super) sector: u64,
    /// The range, as it was mapped: lower devices consume the bio's own.
    pub(super) iter: bindings::bvec_iter,
    status: bindings::blk_status_t,
}

/// Flags of the lower device, which must not count a second end of the bio.
const LOWER_FLAGS: u16 =
    1 << bindings::BIO_QOS_THROTTLED | 1 << bindings::BIO_QOS_MERGED | 1 << bindings::BIO_REMAPPED;

impl PerBio {
    /// Bytes that dm must reserve.
    pub(super) const SIZE: usize = size_of::<Self>();

    /// Where the data of `bio` is.
    ///
    /// # Safety
    ///
    /// `bio` is a bio that dm gave to a target of this crate.
    pub(super) unsafe fn of(bio: *mut bindings::bio) -> *mut Self {
        // SAFETY: Per the caller; the registration reserves that much.
        unsafe { raw::dm_per_bio_data(bio, Self::SIZE) }.cast::<Self>()
    }

    /// Initialises the data of a bio that is about to be mapped.
    ///
    /// # Safety
    ///
    /// As for [`PerBio::of`]; nobody else uses the bio, and `ti` is what it is being mapped by.
    pub(super) unsafe fn init(bio: *mut bindings::bio, ti: *mut raw::dm_target) {
        // SAFETY: Per the caller.
        let this = unsafe { Self::of(bio) };
        // SAFETY: Per the caller.
        let iter = unsafe { (*bio).bi_iter };
        let sector = iter.bi_sector;
        // SAFETY: Per the caller.
        let begin = unsafe { (*ti).begin };
        let new = Self {
            node: Opaque::new(bindings::llist_node {
                next: core::ptr::null_mut(),
            }),
            ti,
            list: core::ptr::null(),
            tag: 0,
            sector: sector.wrapping_sub(begin),
            iter,
            status: 0,
        };
        // SAFETY: The place is ours, and large and aligned enough.
        unsafe { this.write(new) };
    }

    /// Makes the bio come back through `queue`.
    ///
    /// # Safety
    ///
    /// As for [`PerBio::of`]; the data is initialised, and the bio is submitted next.
    pub(super) unsafe fn send_back(bio: *mut bindings::bio, tag: u64, queue: &BioQueue) {
        // SAFETY: Per the caller.
        let this = unsafe { &mut *Self::of(bio) };
        this.tag = tag;
        this.list = &raw const *queue.list;
        queue.list.expect_one();
    }

    /// Takes the end of a bio away from dm if it is to come back. Any context.
    ///
    /// # Safety
    ///
    /// As for [`PerBio::of`]; the data is initialised, and the bio has just ended with `status`.
    /// If this returns true, the bio belongs to somebody else.
    pub(super) unsafe fn intercept(
        bio: *mut bindings::bio,
        status: bindings::blk_status_t,
    ) -> bool {
        // SAFETY: Per the caller.
        let this = unsafe { Self::of(bio) };
        // SAFETY: Initialised, and ours until it is pushed.
        let list = unsafe { (*this).list };
        if list.is_null() {
            return false;
        }
        // SAFETY: As above.
        unsafe { (*this).list = core::ptr::null() };
        // SAFETY: As above.
        unsafe { (*this).status = status };
        // SAFETY: As above.
        unsafe { (*bio).bi_iter = (*this).iter };
        // SAFETY: As above.
        unsafe { (*bio).bi_flags &= !LOWER_FLAGS };
        // SAFETY: As above.
        let node = unsafe { (*this).node.get() };
        // SAFETY: The list expects this bio since `send_back()`.
        unsafe { IrqList::push(list, node) };
        true
    }
}

/// Where bios come back from [`MappedBio::read_then`].
///
/// Dropping it waits until all have come back and ends them with an I/O error: process context.
pub struct BioQueue {
    list: KBox<IrqList>,
}

impl BioQueue {
    /// Makes a queue that notifies `event` for each bio that comes back.
    pub fn new(event: Arc<Event>) -> Result<Self> {
        Ok(Self {
            list: KBox::new(IrqList::new(event), GFP_KERNEL)?,
        })
    }

    /// Takes all that came back, the first one first. Process context.
    pub fn pop_all(&self) -> Returned {
        Returned {
            next: self.list.take_all(),
        }
    }

    /// How many are still away; a moment later it may be less.
    pub fn in_flight(&self) -> usize {
        self.list.in_flight()
    }
}

impl Drop for BioQueue {
    fn drop(&mut self) {
        self.list.drain();
        drop(self.pop_all());
    }
}

/// Bios that came back, with their status and tag; those not taken are ended with an error.
///
/// # Invariants
///
/// `next` starts a list of nodes that are the first fields of the `PerBio`s of owned bios.
pub struct Returned {
    next: *mut bindings::llist_node,
}

// SAFETY: It owns bios, which are `Send`.
unsafe impl Send for Returned {}

impl Iterator for Returned {
    type Item = (MappedBio, BlkStatus, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let node = NonNull::new(self.next)?;
        // SAFETY: Ours by the type invariant.
        self.next = unsafe { (*node.as_ptr()).next };
        let this = node.cast::<PerBio>();
        // SAFETY: By the type invariant the node is the first field of a `PerBio`.
        let (status, tag) = unsafe { ((*this.as_ptr()).status, (*this.as_ptr()).tag) };
        // SAFETY: This undoes `PerBio::of()`.
        let bio =
            unsafe { raw::dm_bio_from_per_bio_data(this.as_ptr().cast::<c_void>(), PerBio::SIZE) };
        let bio = NonNull::new(bio)?;
        // SAFETY: Owned by the type invariant.
        let bio = unsafe { MappedBio::from_raw(bio) };
        Some((bio, BlkStatus::from_raw(status), tag))
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        for bio in &mut *self {
            drop(bio);
        }
    }
}
