// SPDX-License-Identifier: GPL-2.0

//! I/O that is waited for. Process context, sleeps.
//!
//! Nothing here allocates but [`SyncIo::new`]: who waits for one of these may be who frees memory.

use super::{bind_root, CompletionQueue, Done, Flags, IoUnit, Segment};
use crate::{
    bdev::{BlockDevice, SECTOR_BYTES},
    bindings as raw,
    event::Event,
    pages::{PageBuf, PagePool, PAGE_BYTES},
};
use kernel::{bindings, error::to_result, prelude::*, sync::Arc, types::Opaque};

/// Does one bio of at most one page range, made on the stack. Allocates nothing.
pub(crate) fn rw_sync(
    dev: &BlockDevice,
    opf: bindings::blk_opf_t,
    sector: u64,
    range: Option<(*mut bindings::page, usize)>,
) -> Result {
    let bytes = range.map_or(0, |r| r.1);
    let sectors = u64::try_from(bytes / SECTOR_BYTES).map_err(|_| EINVAL)?;
    let end = sector.checked_add(sectors).ok_or(EINVAL)?;
    if bytes > PAGE_BYTES || bytes % SECTOR_BYTES != 0 || end > dev.nr_sectors() {
        return Err(EINVAL);
    }
    let bio = Opaque::<bindings::bio>::uninit();
    let mut vec = bindings::bio_vec::default();
    let opf = opf | raw::REQ_SYNC | raw::REQ_IDLE;
    // SAFETY: The bio and its one vector stay where they are until the bio has ended below.
    unsafe { bindings::bio_init(bio.get(), core::ptr::null_mut(), &raw mut vec, 1, opf) };
    // SAFETY: Just initialised without a device; `dev` is open.
    unsafe { bind_root(bio.get(), dev.as_ptr()) };
    // SAFETY: The bio is ours until it is submitted.
    unsafe { (*bio.get()).bi_iter.bi_sector = sector };
    let fits = match range {
        Some((page, len)) => {
            let n = c_uint::try_from(len)?;
            // SAFETY: The caller's page lives until this returns; the bio has room for one range.
            unsafe { bindings::bio_add_page(bio.get(), page, n, 0) == n as c_int }
        }
        None => true,
    };
    let result = if fits {
        // SAFETY: The bio is complete, and this is process context.
        to_result(unsafe { bindings::submit_bio_wait(bio.get()) })
    } else {
        Err(EINVAL)
    };
    // SAFETY: Initialised above, and not in flight any more.
    unsafe { bindings::bio_uninit(bio.get()) };
    result
}

/// An I/O that is waited for, with all the memory that it will ever need: bios, page ranges, and a buffer for
/// bytes that do not lie in pages of a pool. One at a time.
pub struct SyncIo {
    unit: Option<IoUnit<()>>,
    queue: CompletionQueue<()>,
    bounce: Option<PageBuf>,
}

impl SyncIo {
    /// Makes one for I/O of up to `max_segments` page ranges, with a buffer of `bounce` bytes (may be 0). May sleep.
    pub fn new(max_segments: usize, bounce: usize) -> Result<Self> {
        let pages = bounce.div_ceil(PAGE_BYTES);
        let bounce = match pages {
            0 => None,
            // One more for the list of the others.
            n => {
                let pool = PagePool::new(n + 1, n + 1, None)?;
                Some(pool.try_take(bounce).ok_or(ENOMEM)?)
            }
        };
        Ok(Self {
            unit: Some(IoUnit::new(max_segments.max(pages))?),
            queue: CompletionQueue::new(Event::new()?)?,
            bounce,
        })
    }

    /// Submits by `f` and waits for the end. Returns the buffer of a read.
    fn run(
        &mut self,
        f: impl FnOnce(IoUnit<()>, &CompletionQueue<()>),
    ) -> (Result, Option<PageBuf>) {
        let Some(unit) = self.unit.take() else {
            return (Err(EBUSY), None);
        };
        f(unit, &self.queue);
        loop {
            if let Some(done) = self.queue.pop_all().next() {
                let Done {
                    unit, status, buf, ..
                } = done;
                self.unit = Some(unit);
                return (status.to_result(), buf);
            }
            let queue = &self.queue;
            queue
                .event()
                .wait_until_always(1000, || queue.event().take());
        }
    }

    /// Writes `data`, a multiple of the logical block size, as large as the buffer at most.
    pub fn write(
        &mut self,
        dev: &Arc<BlockDevice>,
        sector: u64,
        data: &[u8],
        flags: Flags,
    ) -> Result {
        let mut bounce = self.bounce.take().ok_or(EINVAL)?;
        let result = bounce.write_at(0, data).and_then(|()| {
            let all = Segment {
                buf: &bounce,
                offset: 0,
                len: data.len(),
            };
            self.write_buf(dev, sector, all, flags)
        });
        self.bounce = Some(bounce);
        result
    }

    /// Writes a range of a buffer.
    pub fn write_buf(
        &mut self,
        dev: &Arc<BlockDevice>,
        sector: u64,
        data: Segment<'_>,
        flags: Flags,
    ) -> Result {
        let (done, _) = self.run(|unit, queue| {
            unit.write(dev, sector, flags, Some(data), 0, (), queue);
        });
        done
    }

    /// Reads `data.len()` bytes, a multiple of the logical block size, in as many reads as the buffer makes of them.
    /// After a failure `data` holds what was read before it.
    pub fn read(&mut self, dev: &Arc<BlockDevice>, sector: u64, data: &mut [u8]) -> Result {
        let room = self.bounce.as_ref().ok_or(EINVAL)?.len();
        let mut at = sector;
        for part in data.chunks_mut(room) {
            let bounce = self.bounce.take().ok_or(EINVAL)?;
            let (done, bounce) = self.run(|unit, queue| {
                unit.read(dev, at, bounce, part.len(), 0, (), queue);
            });
            self.bounce = bounce;
            done?;
            self.bounce.as_ref().ok_or(EIO)?.read_at(0, part)?;
            let sectors = u64::try_from(part.len() / SECTOR_BYTES).map_err(|_| EINVAL)?;
            at = at.checked_add(sectors).ok_or(EINVAL)?;
        }
        Ok(())
    }

    /// Reads `len` bytes into a buffer, which is dropped if that fails.
    #[cfg(CONFIG_KUNIT)]
    pub(crate) fn read_buf(
        &mut self,
        dev: &Arc<BlockDevice>,
        sector: u64,
        buf: PageBuf,
        len: usize,
    ) -> Result<PageBuf> {
        let (done, buf) = self.run(|unit, queue| unit.read(dev, sector, buf, len, 0, (), queue));
        done?;
        buf.ok_or(EIO)
    }

    /// Makes a range read as zeros: by the device if it can, else by writing zeros, of which there is room for as
    /// many pages as there are ranges. With `no_unmap` the blocks stay allocated.
    pub fn zeroout(
        &mut self,
        dev: &Arc<BlockDevice>,
        sector: u64,
        sectors: u64,
        no_unmap: bool,
    ) -> Result {
        let (by_device, _) = self.run(|unit, queue| {
            unit.write_zeroes(dev, sector, sectors, no_unmap, 0, (), queue);
        });
        if by_device.is_ok() {
            return Ok(());
        }
        self.run(|unit, queue| unit.write_zero_pages(dev, sector, sectors, 0, (), queue))
            .0
    }

    /// Tells the device that a range is not needed any more.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the device has no discard.
    pub fn discard(&mut self, dev: &Arc<BlockDevice>, sector: u64, sectors: u64) -> Result {
        self.run(|unit, queue| unit.discard(dev, sector, sectors, 0, (), queue))
            .0
    }
}
