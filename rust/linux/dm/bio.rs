// SPDX-License-Identifier: GPL-2.0

//! Bios that device-mapper gave to the target.

use super::{
    glue::Outcome,
    queue::{BioQueue, PerBio},
    MapOutcome,
};
use crate::{
    bdev::{BlockDevice, SECTOR_BYTES},
    bindings as raw,
    errno::BlkStatus,
    pages::PageBuf,
};
use core::{mem::ManuallyDrop, ptr::NonNull};
use kernel::{bindings, prelude::*, sync::Arc};

/// What a bio wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BioOp {
    /// Read.
    Read,
    /// Write data; perhaps FUA.
    Write,
    /// Make what completed durable. Has no data: device-mapper sends the data of a flush with data
    /// as a write afterwards.
    Flush,
    /// The range is not needed any more.
    Discard,
    /// The range shall read as zeros.
    WriteZeroes,
    /// Anything else; the target did not ask for it.
    Other,
}

/// A bio that the target owns: it must be ended, remapped or submitted. Dropping it ends it with
/// an I/O error.
///
/// # Invariants
///
/// A bio that dm gave to the map function of a target of this crate, with initialised per-bio
/// data, which nobody else uses and which has not ended.
pub struct MappedBio(NonNull<bindings::bio>);

// SAFETY: A bio may be handled by any thread.
unsafe impl Send for MappedBio {}
// SAFETY: What takes `&self` only reads.
unsafe impl Sync for MappedBio {}

impl MappedBio {
    /// # Safety
    ///
    /// The type invariant holds for `bio`, and the caller gives it up.
    pub(super) unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: Per the caller.
        Self(bio)
    }

    /// Gives up the ownership.
    fn into_raw(self) -> *mut bindings::bio {
        ManuallyDrop::new(self).0.as_ptr()
    }

    fn per_bio(&self) -> &PerBio {
        // SAFETY: Initialised by the type invariant, and ours.
        unsafe { &*PerBio::of(self.0.as_ptr()) }
    }

    fn opf(&self) -> bindings::blk_opf_t {
        // SAFETY: Ours by the type invariant.
        unsafe { (*self.0.as_ptr()).bi_opf }
    }

    /// What it wants.
    pub fn op(&self) -> BioOp {
        let op = self.opf() & raw::REQ_OP_BITMASK;
        match op {
            bindings::req_op_REQ_OP_READ => BioOp::Read,
            bindings::req_op_REQ_OP_WRITE if self.bytes() > 0 => BioOp::Write,
            bindings::req_op_REQ_OP_WRITE | bindings::req_op_REQ_OP_FLUSH => BioOp::Flush,
            bindings::req_op_REQ_OP_DISCARD => BioOp::Discard,
            bindings::req_op_REQ_OP_WRITE_ZEROES => BioOp::WriteZeroes,
            _ => BioOp::Other,
        }
    }

    /// Whether it must be durable when it completes.
    pub fn is_fua(&self) -> bool {
        self.opf() & raw::REQ_FUA != 0
    }

    /// Whether a write-zeroes must leave its blocks allocated.
    pub fn is_no_unmap(&self) -> bool {
        self.opf() & raw::REQ_NOUNMAP != 0
    }

    /// First sector, counted from the start of the target.
    pub fn sector(&self) -> u64 {
        self.per_bio().sector
    }

    /// Length in sectors; 0 for a flush.
    pub fn sectors(&self) -> u32 {
        self.per_bio().iter.bi_size >> 9
    }

    /// Length in bytes; also for operations that carry no data.
    pub fn bytes(&self) -> usize {
        self.per_bio().iter.bi_size as usize
    }

    /// Calls `f` with each contiguous piece of memory in `[skip, skip + len)` of the data: address
    /// and length. The memory is valid for that long, but may be changed by others at any time.
    fn for_each_piece(
        &self,
        skip: usize,
        len: usize,
        mut f: impl FnMut(*mut u8, usize) -> Result,
    ) -> Result {
        let has_data = matches!(self.op(), BioOp::Read | BioOp::Write);
        let end = skip.checked_add(len).ok_or(EINVAL)?;
        if !has_data || end > self.bytes() {
            return Err(EINVAL);
        }
        let iter = self.per_bio().iter;
        // SAFETY: Ours by the type invariant.
        let vecs = unsafe { (*self.0.as_ptr()).bi_io_vec };
        let mut idx = iter.bi_idx as usize;
        let mut done = iter.bi_bvec_done as usize;
        let mut at = 0;
        while at < end {
            // SAFETY: The ranges from `bi_idx` on cover `bi_size` bytes, and `at` is below that.
            let vec = unsafe { *vecs.add(idx) };
            let whole = vec.bv_len as usize - done;
            // The part of this range that is in `[skip, end)`.
            let from = skip.saturating_sub(at).min(whole);
            let to = whole.min(end - at);
            if from < to {
                // SAFETY: A valid page; this kernel maps all memory.
                let page = unsafe { raw::page_address(vec.bv_page) }.cast::<u8>();
                // SAFETY: The pages of a range are contiguous, so this is inside the mapping.
                let piece = unsafe { page.add(vec.bv_offset as usize + done + from) };
                f(piece, to - from)?;
            }
            at += whole;
            idx += 1;
            done = 0;
        }
        Ok(())
    }

    /// Copies all data of a write to `dst`, from `dst_off` on. The data may change under us: copy
    /// it once, and use the copy for all purposes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the bio has no data or it does not fit.
    pub fn copy_to(&self, dst: &mut PageBuf, dst_off: usize) -> Result {
        if dst_off.checked_add(self.bytes()).ok_or(EINVAL)? > dst.len() {
            return Err(EINVAL);
        }
        let mut at = dst_off;
        self.for_each_piece(0, self.bytes(), |piece, n| {
            // SAFETY: Valid for reading; pool pages are never part of somebody else's bio.
            unsafe { dst.copy_from_raw(at, piece, n) }?;
            at += n;
            Ok(())
        })
    }

    /// Overlays a read: copies `len` bytes of `src` to the data at `offset`.
    pub fn copy_from(
        &mut self,
        offset: usize,
        src: &PageBuf,
        src_off: usize,
        len: usize,
    ) -> Result {
        if self.op() != BioOp::Read || src_off.checked_add(len).ok_or(EINVAL)? > src.len() {
            return Err(EINVAL);
        }
        let mut at = src_off;
        self.for_each_piece(offset, len, |piece, n| {
            // SAFETY: Valid for writing, as this is a read; not in a pool page.
            unsafe { src.copy_to_raw(at, piece, n) }?;
            at += n;
            Ok(())
        })
    }

    /// Overlays a read with zeros.
    pub fn zero_fill(&mut self, offset: usize, len: usize) -> Result {
        if self.op() != BioOp::Read {
            return Err(EINVAL);
        }
        self.for_each_piece(offset, len, |piece, n| {
            // SAFETY: Valid for writing, as this is a read; by C, as in `PageBuf::copy_to_raw()`.
            unsafe { raw::zero_shared(piece.cast(), n) };
            Ok(())
        })
    }

    /// Whether a suspend is in progress that takes bios back which end with [`BlkStatus::DM_REQUEUE`]. Any context.
    ///
    /// As for every target that pushes bios back (dm-mpath asks just so), the answer may be out of date once it is
    /// used: where a signal ends the suspend in between, the bio ends with an I/O error.
    pub fn is_wanted_back(&self) -> bool {
        // SAFETY: The instance outlives the bio, which is ours by the type invariant.
        unsafe { raw::dm_noflush_suspending(self.per_bio().ti) != 0 }
    }

    /// Completes it. Any context.
    pub fn end(self, status: BlkStatus) {
        let bio = self.into_raw();
        // SAFETY: It was ours.
        unsafe { (*bio).bi_status = status.as_raw() };
        // SAFETY: It was ours and has not ended.
        unsafe { bindings::bio_endio(bio) };
    }

    /// Lets device-mapper fail it. From `map` only.
    pub fn kill(self) -> MapOutcome {
        MapOutcome(Outcome::Kill(self))
    }

    /// Gives it back to device-mapper; without a noflush suspend that is an error to the user.
    /// From `map` only.
    pub fn requeue(self) -> MapOutcome {
        MapOutcome(Outcome::Requeue(self))
    }

    /// Sends it on to another device, where it completes by itself. From `map` only.
    pub fn remap(self, dev: &BlockDevice, sector: u64) -> MapOutcome {
        self.aim(dev, sector);
        MapOutcome(Outcome::Remapped(self))
    }

    /// Sends it on to another device, where it completes by itself. From a worker.
    pub fn submit_to(self, dev: &BlockDevice, sector: u64) {
        self.aim(dev, sector);
        // In the name of whoever sent it, not of this thread.
        // SAFETY: Ours, and aimed at an open device. dm keeps the data device open as long as a
        // bio of the table has not ended. That it is accounted already is seen there.
        unsafe { raw::dm_submit_bio_remap(self.into_raw(), core::ptr::null_mut()) };
    }

    /// Sends it on to another device; once done there it comes back through `queue` with its
    /// status, to be looked at, overlaid, and ended. Process context; also from `map`, which then
    /// returns [`MapOutcome::SUBMITTED`].
    pub fn read_then(self, dev: &Arc<BlockDevice>, sector: u64, tag: u64, queue: &BioQueue) {
        self.aim(dev, sector);
        let bio = self.into_raw();
        // SAFETY: The bio was ours, its data is initialised.
        unsafe { PerBio::send_back(bio, tag, queue) };
        // SAFETY: As in `submit_to()`.
        unsafe { raw::dm_submit_bio_remap(bio, core::ptr::null_mut()) };
    }

    fn aim(&self, dev: &BlockDevice, sector: u64) {
        let bio = self.0.as_ptr();
        // SAFETY: Ours by the type invariant; `dev` is open.
        unsafe { raw::bio_set_dev(bio, dev.as_ptr()) };
        // SAFETY: Ours by the type invariant.
        unsafe { (*bio).bi_iter.bi_sector = sector };
    }

    pub(super) fn is(&self, bio: *mut bindings::bio) -> bool {
        self.0.as_ptr() == bio
    }

    /// Forgets it: device-mapper has taken it back.
    pub(super) fn forget(self) {
        let _ = self.into_raw();
    }
}

impl Drop for MappedBio {
    fn drop(&mut self) {
        let bio = self.0.as_ptr();
        // SAFETY: Ours by the type invariant.
        unsafe { (*bio).bi_status = BlkStatus::IOERR.as_raw() };
        // SAFETY: Ours by the type invariant, and it has not ended.
        unsafe { bindings::bio_endio(bio) };
    }
}

const _: () = assert!(SECTOR_BYTES == 1 << 9);

/// Bios in the order in which they were pushed, linked through themselves: nothing is allocated.
/// Dropping it ends them with an I/O error.
///
/// # Invariants
///
/// `head` starts a list, linked by `bi_next` and ended by null, of `len` bios, of which `tail` is
/// the last, and which are owned as [`MappedBio`]s are.
pub struct BioList {
    head: *mut bindings::bio,
    tail: *mut bindings::bio,
    len: usize,
}

// SAFETY: It owns bios, which are `Send`.
unsafe impl Send for BioList {}
// SAFETY: What takes `&self` only reads its own fields.
unsafe impl Sync for BioList {}

impl BioList {
    /// An empty list.
    pub const fn new() -> Self {
        // INVARIANT: Empty.
        Self {
            head: core::ptr::null_mut(),
            tail: core::ptr::null_mut(),
            len: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// The first one.
    pub fn peek(&self) -> Option<&MappedBio> {
        if self.head.is_null() {
            return None;
        }
        // SAFETY: `MappedBio` is one non-null pointer, as `head` is; it is owned by the list.
        Some(unsafe { &*(&raw const self.head).cast::<MappedBio>() })
    }

    /// Adds to the end.
    pub fn push(&mut self, bio: MappedBio) {
        let bio = bio.into_raw();
        // SAFETY: The bio was owned, and is on no list.
        unsafe { (*bio).bi_next = core::ptr::null_mut() };
        self.link(bio, bio, 1);
    }

    /// Adds to the front.
    pub fn push_front(&mut self, bio: MappedBio) {
        let mut rest = core::mem::take(self);
        self.push(bio);
        self.append(&mut rest);
    }

    fn link(&mut self, head: *mut bindings::bio, tail: *mut bindings::bio, len: usize) {
        if self.tail.is_null() {
            self.head = head;
        } else {
            // SAFETY: The last bio is ours by the type invariant.
            unsafe { (*self.tail).bi_next = head };
        }
        self.tail = tail;
        self.len += len;
    }

    /// Moves all of `other` to the end of this.
    pub fn append(&mut self, other: &mut BioList) {
        if other.is_empty() {
            return;
        }
        let other = ManuallyDrop::new(core::mem::take(other));
        self.link(other.head, other.tail, other.len);
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<MappedBio> {
        let bio = NonNull::new(self.head)?;
        // SAFETY: Ours by the type invariant.
        self.head = unsafe { (*bio.as_ptr()).bi_next };
        if self.head.is_null() {
            self.tail = core::ptr::null_mut();
        }
        self.len -= 1;
        // SAFETY: Ours by the type invariant.
        unsafe { (*bio.as_ptr()).bi_next = core::ptr::null_mut() };
        // SAFETY: It was owned by the list.
        Some(unsafe { MappedBio::from_raw(bio) })
    }
}

impl Default for BioList {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for BioList {
    fn drop(&mut self) {
        while let Some(bio) = self.pop() {
            drop(bio);
        }
    }
}
