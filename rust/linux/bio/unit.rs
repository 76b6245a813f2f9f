// SPDX-License-Identifier: GPL-2.0

//! A preallocated I/O.

use super::{
    bind_root,
    loaded::Loaded,
    queue::{CompletionQueue, IrqList},
    segments::{Cut, Segments},
    Flags,
};
use crate::{
    bdev::{BlockDevice, SECTOR_BYTES},
    bindings as raw,
    errno::{BlkStatus, EOPNOTSUPP},
    pages::{PageBuf, Segment, PAGE_BYTES},
};
use core::{mem::MaybeUninit, ptr::NonNull};
use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc,
    },
    types::Opaque,
};

/// The most sectors that one bio without data covers: its size in bytes is 32 bits wide.
const MAX_EMPTY_SECTORS: u64 = 1 << 22;

/// What a unit consists of.
///
/// The first field is what it is found by in a completion queue.
#[repr(C)]
pub(super) struct Inner<T> {
    node: Opaque<bindings::llist_node>,
    /// Bios in flight, and one for the submitter.
    remaining: Atomic<i32>,
    /// The first status that is not "ok".
    status: Atomic<i32>,
    queue: *const IrqList,
    tag: u64,
    /// Initialised from the submission until the unit is finished.
    keep: MaybeUninit<T>,
    buf: Option<PageBuf>,
    dev: Option<Arc<BlockDevice>>,
    segments: Segments,
    /// Those that were initialised since the last `release()`.
    bios_used: usize,
    bios: KVec<Opaque<bindings::bio>>,
}

/// A finished unit.
pub struct Done<T: Send + 'static> {
    /// The unit, ready to be used again.
    pub unit: IoUnit<T>,
    /// How it ended: the first failure of its bios, or ok.
    pub status: BlkStatus,
    /// As given at submission.
    pub tag: u64,
    /// As given at submission.
    pub keep: T,
    /// The buffer of a read.
    pub buf: Option<PageBuf>,
}

/// A preallocated I/O: bios, page ranges and room for a payload `T` that travels with it.
///
/// # Invariants
///
/// Points at an `Inner<T>` from `KBox::into_raw`, owned by `self`, of which nothing is in flight.
pub struct IoUnit<T: Send + 'static>(NonNull<Inner<T>>);

// SAFETY: It owns all it points at, and `T` is `Send`.
unsafe impl<T: Send + 'static> Send for IoUnit<T> {}
// SAFETY: No method takes `&self` and changes anything.
unsafe impl<T: Send + 'static> Sync for IoUnit<T> {}

impl<T: Send + 'static> IoUnit<T> {
    /// Allocates a unit for up to `max_segments` page ranges (those of a [`Segment`]: one for each
    /// page that it touches). Process context, may sleep.
    pub fn new(max_segments: usize) -> Result<Self> {
        let segments = Segments::new(max_segments.max(1))?;
        let n = segments.max_bios();
        let mut bios = KVec::with_capacity(n, GFP_KERNEL)?;
        for _ in 0..n {
            bios.push(Opaque::uninit(), GFP_KERNEL)?;
        }
        let inner = Inner {
            node: Opaque::new(bindings::llist_node {
                next: core::ptr::null_mut(),
            }),
            remaining: Atomic::new(0),
            status: Atomic::new(0),
            queue: core::ptr::null(),
            tag: 0,
            keep: MaybeUninit::uninit(),
            buf: None,
            dev: None,
            segments,
            bios_used: 0,
            bios,
        };
        let inner = KBox::into_raw(KBox::new(inner, GFP_KERNEL)?);
        // INVARIANT: From `into_raw`, and idle.
        NonNull::new(inner).map(Self).ok_or(ENOMEM)
    }

    /// Writes `segments`, one after the other, from `sector` on.
    ///
    /// The I/O itself references the pages, so the buffers may be dropped before it ends (their
    /// pages do not return to the pool then); they should not be changed before. With several bios
    /// (more than 256 ranges) each has the flags.
    ///
    /// Ends with `INVAL` if there are more ranges than the unit has room for, or if it is not
    /// inside the device.
    #[allow(clippy::too_many_arguments)]
    pub fn write<'a>(
        self,
        dev: &Arc<BlockDevice>,
        sector: u64,
        flags: Flags,
        segments: impl IntoIterator<Item = Segment<'a>>,
        tag: u64,
        keep: T,
        queue: &CompletionQueue<T>,
    ) {
        self.load(dev, segments)
            .write(dev, sector, flags, tag, keep, queue);
    }

    /// The first half of [`IoUnit::write`]: afterwards what the segments borrow may travel as the payload `T`.
    pub fn load<'a>(
        mut self,
        dev: &Arc<BlockDevice>,
        segments: impl IntoIterator<Item = Segment<'a>>,
    ) -> Loaded<T> {
        let block = dev.logical_block_size() as usize;
        let inner = self.inner();
        let mut ready = Ok(());
        for s in segments {
            if ready.is_ok() {
                ready = inner.add_range(s.buf, s.offset, s.len, block);
            }
        }
        Loaded::new(self, ready)
    }

    /// Reads `len` bytes from `sector` on into `buf`, which comes back with the result.
    ///
    /// Ends with `INVAL` if `len` is 0, does not fit the buffer or the unit, or is not inside the
    /// device.
    #[allow(clippy::too_many_arguments)]
    pub fn read(
        mut self,
        dev: &Arc<BlockDevice>,
        sector: u64,
        buf: PageBuf,
        len: usize,
        tag: u64,
        keep: T,
        queue: &CompletionQueue<T>,
    ) {
        let block = dev.logical_block_size() as usize;
        let inner = self.inner();
        let ready = inner
            .add_range(&buf, 0, len, block)
            .and_then(|()| inner.prepare_data(dev, bindings::req_op_REQ_OP_READ, sector));
        inner.buf = Some(buf);
        self.submit(dev, ready, tag, keep, queue);
    }

    /// Makes all writes durable that completed before the submission.
    pub fn flush(mut self, dev: &Arc<BlockDevice>, tag: u64, keep: T, queue: &CompletionQueue<T>) {
        let opf = bindings::req_op_REQ_OP_WRITE | raw::REQ_PREFLUSH;
        let ready = self.inner().prepare(dev, opf, 0, None, 0);
        self.submit(dev, ready, tag, keep, queue);
    }

    /// Tells the device that a range is not needed any more. Ends with `NOTSUPP` if the device has
    /// no discard.
    pub fn discard(
        mut self,
        dev: &Arc<BlockDevice>,
        sector: u64,
        sectors: u64,
        tag: u64,
        keep: T,
        queue: &CompletionQueue<T>,
    ) {
        let ready = if dev.max_discard_sectors() == 0 {
            Err(EOPNOTSUPP.into())
        } else {
            let opf = bindings::req_op_REQ_OP_DISCARD;
            self.inner().prepare_empty(dev, opf, sector, sectors)
        };
        self.submit(dev, ready, tag, keep, queue);
    }

    /// Makes a range read as zeros; with `no_unmap` its blocks stay allocated.
    ///
    /// Where the device cannot, zeros are written if the unit has room for that many pages; else
    /// it ends with `NOTSUPP`. A device that first says it can may also end it with `NOTSUPP` or
    /// `TARGET`: then use [`IoUnit::write_zero_pages`].
    #[allow(clippy::too_many_arguments)]
    pub fn write_zeroes(
        mut self,
        dev: &Arc<BlockDevice>,
        sector: u64,
        sectors: u64,
        no_unmap: bool,
        tag: u64,
        keep: T,
        queue: &CompletionQueue<T>,
    ) {
        let ready = if dev.max_write_zeroes_sectors() == 0 {
            self.inner().prepare_zero_pages(dev, sector, sectors)
        } else {
            let mut opf = bindings::req_op_REQ_OP_WRITE_ZEROES;
            if no_unmap {
                opf |= raw::REQ_NOUNMAP;
            }
            self.inner().prepare_empty(dev, opf, sector, sectors)
        };
        self.submit(dev, ready, tag, keep, queue);
    }

    /// Writes zeros, as far as the unit has room for that many pages; else it ends with `NOTSUPP`.
    pub fn write_zero_pages(
        mut self,
        dev: &Arc<BlockDevice>,
        sector: u64,
        sectors: u64,
        tag: u64,
        keep: T,
        queue: &CompletionQueue<T>,
    ) {
        let ready = self.inner().prepare_zero_pages(dev, sector, sectors);
        self.submit(dev, ready, tag, keep, queue);
    }

    pub(super) fn inner(&mut self) -> &mut Inner<T> {
        // SAFETY: By the type invariant it is ours alone.
        unsafe { self.0.as_mut() }
    }

    /// Sends off what was prepared; or, if that failed, gives it back at once through the queue.
    pub(super) fn submit(
        mut self,
        dev: &Arc<BlockDevice>,
        ready: Result,
        tag: u64,
        keep: T,
        queue: &CompletionQueue<T>,
    ) {
        let inner = self.inner();
        let n = if ready.is_ok() { inner.bios_used } else { 0 };
        let status = ready.err().map_or(BlkStatus::OK, |e| {
            if e == EOPNOTSUPP {
                BlkStatus::NOTSUPP
            } else {
                BlkStatus::INVAL
            }
        });
        inner.tag = tag;
        inner.keep.write(keep);
        inner.dev = Some(dev.clone());
        inner.queue = queue.list();
        inner.status.store(i32::from(status.as_raw()), Relaxed);
        inner
            .remaining
            .store(i32::try_from(n).unwrap_or(0) + 1, Relaxed);
        queue.list().expect_one();

        let inner = self.0.as_ptr();
        core::mem::forget(self);
        for i in 0..n {
            // SAFETY: The unit is alive: the submitter's own count is still in `remaining`. `i` is
            // below the number of bios; what C does to them is not seen through this reference.
            let bio = unsafe { (*inner).bios.get(i) }.map(Opaque::get);
            if let Some(bio) = bio {
                // SAFETY: As above.
                unsafe { (*bio).bi_private = inner.cast::<c_void>() };
                // SAFETY: As above; `end_io::<T>` is for `Inner<T>`.
                unsafe { (*bio).bi_end_io = Some(end_io::<T>) };
                // SAFETY: The bio is complete; its device and pages are held by the unit.
                unsafe { bindings::submit_bio(bio) };
            }
        }
        // SAFETY: This is the submitter's own count.
        unsafe { one_less(inner) };
    }
}

impl<T: Send + 'static> Drop for IoUnit<T> {
    fn drop(&mut self) {
        self.inner().release();
        // SAFETY: By the type invariant from `into_raw`, and idle.
        drop(unsafe { KBox::from_raw(self.0.as_ptr()) });
    }
}

impl<T> Inner<T> {
    /// Turns a unit that came out of a queue into what the user gets. Process context.
    ///
    /// # Safety
    ///
    /// `inner` was pushed on its queue by [`one_less`], and is given away by the caller.
    pub(super) unsafe fn finished(inner: NonNull<Self>) -> Done<T>
    where
        T: Send + 'static,
    {
        // INVARIANT: All bios have ended, and the caller gives it to us.
        let mut unit = IoUnit(inner);
        let inner = unit.inner();
        inner.release();
        inner.queue = core::ptr::null();
        let status =
            u8::try_from(inner.status.load(Relaxed)).map_or(BlkStatus::IOERR, BlkStatus::from_raw);
        let (tag, buf) = (inner.tag, inner.buf.take());
        // SAFETY: Initialised by the submission; not read again before the next one writes it.
        let keep = unsafe { inner.keep.assume_init_read() };
        // May close the device.
        inner.dev = None;
        Done {
            unit,
            status,
            tag,
            keep,
            buf,
        }
    }

    /// Undoes the preparation: lets go of bios and pages.
    fn release(&mut self) {
        for bio in self.bios.iter().take(self.bios_used) {
            // SAFETY: Initialised and not in flight.
            unsafe { bindings::bio_uninit(bio.get()) };
        }
        self.bios_used = 0;
        self.segments.clear();
    }

    fn add_range(&mut self, buf: &PageBuf, offset: usize, len: usize, block: usize) -> Result {
        if len % SECTOR_BYTES != 0 {
            return Err(EINVAL);
        }
        let mut result = Ok(());
        buf.segment_pages(offset, len, |page, off, n| {
            if result.is_ok() {
                // SAFETY: The buffer's pages are valid, and the range is inside.
                result = unsafe { self.segments.push(page, off, n, block) };
            }
        })
        .ok_or(EINVAL)?;
        result
    }

    /// Makes one bio.
    fn prepare(
        &mut self,
        dev: &BlockDevice,
        opf: bindings::blk_opf_t,
        sector: u64,
        data: Option<Cut>,
        bytes: usize,
    ) -> Result {
        let (table, count) = match data {
            Some(cut) => (self.segments.table(cut).ok_or(EINVAL)?, cut.count),
            None => (core::ptr::null_mut(), 0),
        };
        let count = c_ushort::try_from(count)?;
        let bytes = u32::try_from(bytes)?;
        let bio = self.bios.get(self.bios_used).ok_or(E2BIG)?.get();
        let opf = opf | raw::REQ_SYNC | raw::REQ_IDLE;
        // SAFETY: The bio is idle memory; the table has `count` entries and lives in this unit.
        unsafe { bindings::bio_init(bio, core::ptr::null_mut(), table, count, opf) };
        // SAFETY: Just initialised without a device; the unit will hold `dev` open.
        unsafe { bind_root(bio, dev.as_ptr()) };
        // SAFETY: The bio is ours.
        unsafe { (*bio).bi_vcnt = count };
        // SAFETY: The bio is ours.
        unsafe { (*bio).bi_iter.bi_size = bytes };
        // SAFETY: The bio is ours.
        unsafe { (*bio).bi_iter.bi_sector = sector };
        self.bios_used += 1;
        Ok(())
    }

    /// Makes the bios for the ranges that were added.
    pub(super) fn prepare_data(
        &mut self,
        dev: &BlockDevice,
        opf: bindings::blk_opf_t,
        sector: u64,
    ) -> Result {
        self.segments.finish()?;
        if self.segments.cuts().is_empty() {
            return Err(EINVAL);
        }
        let mut at = sector;
        for i in 0..self.segments.cuts().len() {
            let cut = *self.segments.cuts().get(i).ok_or(EINVAL)?;
            let sectors = u64::try_from(cut.bytes / SECTOR_BYTES).map_err(|_| EINVAL)?;
            let end = at.checked_add(sectors).ok_or(EINVAL)?;
            if end > dev.nr_sectors() {
                return Err(EINVAL);
            }
            self.prepare(dev, opf, at, Some(cut), cut.bytes)?;
            at = end;
        }
        Ok(())
    }

    /// Makes the bios for an operation without data.
    fn prepare_empty(
        &mut self,
        dev: &BlockDevice,
        opf: bindings::blk_opf_t,
        sector: u64,
        sectors: u64,
    ) -> Result {
        let end = sector.checked_add(sectors).ok_or(EINVAL)?;
        if sectors == 0 || end > dev.nr_sectors() {
            return Err(EINVAL);
        }
        let mut at = sector;
        while at < end {
            let n = (end - at).min(MAX_EMPTY_SECTORS);
            let bytes = usize::try_from(n).map_err(|_| EINVAL)? * SECTOR_BYTES;
            self.prepare(dev, opf, at, None, bytes)?;
            at += n;
        }
        Ok(())
    }

    /// Makes the bios that write the zero page over and over.
    fn prepare_zero_pages(&mut self, dev: &BlockDevice, sector: u64, sectors: u64) -> Result {
        let block = dev.logical_block_size() as usize;
        let mut left = usize::try_from(sectors)
            .ok()
            .and_then(|n| n.checked_mul(SECTOR_BYTES))
            .ok_or(EINVAL)?;
        // SAFETY: No requirements.
        let zero = unsafe { raw::zero_page() };
        while left > 0 {
            let n = left.min(PAGE_BYTES);
            // SAFETY: The zero page is always valid.
            let room = unsafe { self.segments.push(zero, 0, n, block) };
            // Too large for this unit is not the caller's mistake.
            room.map_err(|e| if e == E2BIG { EOPNOTSUPP.into() } else { e })?;
            left -= n;
        }
        self.prepare_data(dev, bindings::req_op_REQ_OP_WRITE, sector)
    }
}

/// What the block layer calls when a bio has ended. Any context.
///
/// # Safety
///
/// `bio` is one of the bios of an `Inner<T>`, which is in its `bi_private`.
unsafe extern "C" fn end_io<T>(bio: *mut bindings::bio) {
    // SAFETY: Per the requirement above.
    let inner = unsafe { (*bio).bi_private }.cast::<Inner<T>>();
    // SAFETY: A bio that ends is ours.
    let status = unsafe { (*bio).bi_status };
    if status != 0 {
        // SAFETY: The unit is alive: this bio is still counted.
        let first = unsafe { &(*inner).status };
        // Only the first failure is kept.
        let _ = first.cmpxchg(0, i32::from(status), Relaxed);
    }
    // SAFETY: This is the count of this bio.
    unsafe { one_less(inner) };
}

/// Gives up one count; the last one hands the unit to its queue. Any context.
///
/// # Safety
///
/// The caller owns one count in `remaining` of a live unit, and gives it up.
unsafe fn one_less<T>(inner: *mut Inner<T>) {
    // SAFETY: Alive as long as the caller's count is there. The full barrier makes all that the
    // others did visible to the last.
    if unsafe { (*inner).remaining.fetch_sub(1, Full) } != 1 {
        return;
    }
    // SAFETY: The last one owns the unit.
    let queue = unsafe { (*inner).queue };
    // SAFETY: As above.
    let node = unsafe { (*inner).node.get() };
    // SAFETY: The queue expects this unit since its submission.
    unsafe { IrqList::push(queue, node) };
}
