// SPDX-License-Identifier: GPL-2.0

//! Block devices: opened by path or taken over from a device-mapper table, their properties, and
//! I/O that waits.
//!
//! Opening, closing and everything named `..._sync`: process context that may wait for I/O; never
//! from `map()` and never below a lock that I/O needs. The questions: any context.

use crate::{bindings as raw, bio, pages::PAGE_BYTES};
use core::{fmt, ptr::NonNull};
use kernel::{bindings, error::from_err_ptr, page::Page, prelude::*, sync::Arc};

/// Bytes in a sector, the unit of all positions on a device.
pub const SECTOR_BYTES: usize = 512;

/// What a device is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// Who else may open it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody else who wants it exclusively: no file system, no other open of this kind.
    Exclusive,
    /// Anybody.
    Shared,
}

/// Device number; displays as `253:3`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DevT {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl fmt::Display for DevT {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The kernel's name of a block device; displays as `vdb`.
#[derive(Clone, Copy)]
pub struct DevName {
    bytes: [u8; bindings::BDEVNAME_SIZE as usize],
    len: usize,
}

impl fmt::Display for DevName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.bytes.get(..self.len).unwrap_or_default();
        f.write_str(core::str::from_utf8(name).unwrap_or("?"))
    }
}

kernel_display!(DevT, DevName);

/// How the file behind a device is closed.
enum Close {
    /// Ours: give up the claim of this holder, then close. What the box holds does not matter,
    /// its address is the holder's identity.
    Claimed(#[allow(dead_code)] KBox<u8>),
    /// Ours, without a claim.
    Open,
    /// Somebody else's, on which we hold a reference.
    Referenced,
}

/// An open block device.
///
/// # Invariants
///
/// `file` is the open file of `bdev`, and `self` owns a reference on it, so `bdev` stays open.
pub struct BlockDevice {
    file: NonNull<bindings::file>,
    bdev: NonNull<bindings::block_device>,
    close: Close,
}

// SAFETY: A block device and its file may be used and closed from any thread.
unsafe impl Send for BlockDevice {}
// SAFETY: As above; the methods only read, or do I/O that the block layer serialises.
unsafe impl Sync for BlockDevice {}

impl BlockDevice {
    /// Opens the device node at `path`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is nothing, `ENOTBLK` if it is not a block device, `EBUSY` if somebody
    /// holds it exclusively, `EACCES` or `EROFS` if it cannot be written.
    pub fn open(path: &CStr, mode: Mode, holder: Holder) -> Result<Arc<Self>> {
        let bits = match mode {
            Mode::Read => raw::BLK_OPEN_READ,
            Mode::ReadWrite => raw::BLK_OPEN_READ | raw::BLK_OPEN_WRITE,
        };
        let (close, claim) = match holder {
            Holder::Shared => (Close::Open, core::ptr::null_mut()),
            Holder::Exclusive => {
                let mut id = KBox::new(0u8, GFP_KERNEL)?;
                let claim = core::ptr::from_mut::<u8>(&mut id).cast::<c_void>();
                (Close::Claimed(id), claim)
            }
        };
        // SAFETY: `path` is a C string; the claim lives until the device is closed.
        let file = from_err_ptr(unsafe {
            bindings::bdev_file_open_by_path(path.as_char_ptr(), bits, claim, core::ptr::null())
        })?;
        let file = NonNull::new(file).ok_or(ENODEV)?;
        // SAFETY: Just opened; the reference is given to the new object.
        let device = unsafe { Self::from_file(file, close) }?;
        Ok(Arc::new(device, GFP_KERNEL)?)
    }

    /// Shares a file that somebody else opened and may close before us.
    ///
    /// # Safety
    ///
    /// `file` is an open block device file.
    pub(crate) unsafe fn share(file: NonNull<bindings::file>) -> Result<Arc<Self>> {
        // SAFETY: The caller vouches for the file.
        unsafe { raw::get_file(file.as_ptr()) };
        // SAFETY: The reference just taken is given to the new object.
        let device = unsafe { Self::from_file(file, Close::Referenced) }?;
        Ok(Arc::new(device, GFP_KERNEL)?)
    }

    /// # Safety
    ///
    /// `file` is an open block device file; the caller gives up one reference on it, also when
    /// this fails.
    unsafe fn from_file(file: NonNull<bindings::file>, close: Close) -> Result<Self> {
        // SAFETY: The caller vouches for the file.
        let bdev = unsafe { bindings::file_bdev(file.as_ptr()) };
        let Some(bdev) = NonNull::new(bdev) else {
            // SAFETY: The reference is ours to give up.
            unsafe { bindings::fput(file.as_ptr()) };
            return Err(ENODEV);
        };
        // INVARIANT: `file` is open and its reference is now owned by `Self`.
        Ok(Self { file, bdev, close })
    }

    /// The device, for C.
    pub(crate) fn as_ptr(&self) -> *mut bindings::block_device {
        self.bdev.as_ptr()
    }

    /// Size in sectors of 512 bytes.
    pub fn nr_sectors(&self) -> u64 {
        // SAFETY: Open by the type invariant. The same holds for all that follow.
        unsafe { raw::bdev_nr_sectors(self.as_ptr()) }
    }

    /// The smallest write in bytes.
    pub fn logical_block_size(&self) -> u32 {
        // SAFETY: As in `nr_sectors()`.
        unsafe { raw::bdev_logical_block_size(self.as_ptr()) }
    }

    /// The smallest write in bytes that needs no read.
    pub fn physical_block_size(&self) -> u32 {
        // SAFETY: As in `nr_sectors()`.
        unsafe { raw::bdev_physical_block_size(self.as_ptr()) }
    }

    /// Whether completed writes may still be lost in a power cut until a flush.
    pub fn has_write_cache(&self) -> bool {
        // SAFETY: As in `nr_sectors()`.
        unsafe { raw::bdev_write_cache(self.as_ptr()) }
    }

    /// Whether the device itself does FUA writes; otherwise the block layer flushes after them.
    pub fn has_fua(&self) -> bool {
        // SAFETY: As in `nr_sectors()`.
        unsafe { raw::bdev_fua(self.as_ptr()) }
    }

    /// Whether the device refuses writes.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: As in `nr_sectors()`.
        unsafe { raw::bdev_read_only(self.as_ptr()) }
    }

    /// Whether the device has zones that must be written in order.
    pub fn is_zoned(&self) -> bool {
        // SAFETY: As in `nr_sectors()`.
        unsafe { raw::bdev_is_zoned(self.as_ptr()) }
    }

    /// The largest discard in sectors; 0 if there is none.
    pub fn max_discard_sectors(&self) -> u64 {
        // SAFETY: As in `nr_sectors()`.
        u64::from(unsafe { raw::bdev_max_discard_sectors(self.as_ptr()) })
    }

    /// The unit of discards in bytes; 0 if there is none.
    pub fn discard_granularity(&self) -> u32 {
        // SAFETY: As in `nr_sectors()`.
        unsafe { raw::bdev_discard_granularity(self.as_ptr()) }
    }

    /// The largest write-zeroes in sectors; 0 if there is none.
    pub fn max_write_zeroes_sectors(&self) -> u64 {
        // SAFETY: As in `nr_sectors()`.
        u64::from(unsafe { raw::bdev_write_zeroes_sectors(self.as_ptr()) })
    }

    /// How often the device is open now, ours included.
    pub fn openers(&self) -> u32 {
        // SAFETY: As in `nr_sectors()`.
        unsafe { raw::bdev_openers(self.as_ptr()) }
    }

    /// Device number.
    pub fn dev(&self) -> DevT {
        DevT {
            // SAFETY: As in `nr_sectors()`.
            major: unsafe { raw::bdev_major(self.as_ptr()) },
            // SAFETY: As in `nr_sectors()`.
            minor: unsafe { raw::bdev_minor(self.as_ptr()) },
        }
    }

    /// The kernel's name.
    pub fn name(&self) -> DevName {
        let mut bytes = [0u8; bindings::BDEVNAME_SIZE as usize];
        // SAFETY: `bytes` is valid for writing its length; otherwise as in `nr_sectors()`.
        let len = unsafe { raw::bdev_name(self.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
        DevName {
            bytes,
            len: usize::try_from(len).unwrap_or(0),
        }
    }

    /// Whether both are the same device (not merely on the same disk).
    pub fn same_device(&self, other: &Self) -> bool {
        self.bdev == other.bdev
    }

    /// Whether both are on the same disk: the same device, or partitions of one. Devices stacked on one disk are not seen.
    pub fn same_disk(&self, other: &Self) -> bool {
        // SAFETY: Both devices are open, as in `nr_sectors()`; a device's disk does not change while it is open.
        unsafe { raw::bdev_same_disk(self.as_ptr(), other.as_ptr()) }
    }

    /// Drops the clean, unused pages of the page cache of this device: what was read through it
    /// before its contents changed from below. Sleeps.
    pub fn invalidate_cache(&self) {
        // SAFETY: As in `nr_sectors()`; process context.
        unsafe { bindings::invalidate_bdev(self.as_ptr()) };
    }

    /// Reads `data.len()` bytes, a multiple of the logical block size, into any memory, by way of a page that it
    /// allocates.
    pub fn read_sync(&self, sector: u64, data: &mut [u8]) -> Result {
        let bounce = Page::alloc_page(GFP_NOWAIT).or_else(|_| Page::alloc_page(GFP_KERNEL))?;
        let mut at = sector;
        for chunk in data.chunks_mut(PAGE_BYTES) {
            let range = (bounce.as_ptr(), chunk.len());
            bio::rw_sync(self, bindings::req_op_REQ_OP_READ, at, Some(range))?;
            // SAFETY: A page is larger than the chunk; nobody else uses it.
            unsafe { bounce.read_raw(chunk.as_mut_ptr(), 0, chunk.len()) }?;
            at = at.checked_add(sectors(chunk.len())?).ok_or(EINVAL)?;
        }
        Ok(())
    }

    /// Makes all writes durable that completed before the call. Allocates nothing.
    pub fn flush_sync(&self) -> Result {
        let opf = bindings::req_op_REQ_OP_WRITE | raw::REQ_PREFLUSH;
        bio::rw_sync(self, opf, 0, None)
    }
}

impl Drop for BlockDevice {
    fn drop(&mut self) {
        match self.close {
            Close::Claimed(_) | Close::Open => {
                // SAFETY: Opened by us; the reference is ours to give up. A claim is given up
                // before this returns, so its box may go.
                unsafe { bindings::bdev_fput(self.file.as_ptr()) };
            }
            Close::Referenced => {
                // SAFETY: The reference is ours to give up.
                unsafe { bindings::fput(self.file.as_ptr()) };
            }
        }
    }
}

fn sectors(bytes: usize) -> Result<u64> {
    if bytes % SECTOR_BYTES != 0 {
        return Err(EINVAL);
    }
    u64::try_from(bytes / SECTOR_BYTES).map_err(|_| EINVAL)
}

#[kunit_tests(replicate_linux_bdev)]
mod tests {
    use super::*;
    use crate::{
        bio::{Flags, Segment, SyncIo},
        pages::PagePool,
    };
    use kernel::str::CString;

    /// The RAM disk that the test kernel has.
    const RAM: &CStr = c"/dev/ram0";

    #[test]
    fn opens_and_refuses() -> Result {
        assert!(BlockDevice::open(c"/dev/null", Mode::Read, Holder::Shared).is_err());
        assert!(BlockDevice::open(c"/no/such", Mode::Read, Holder::Shared).is_err());
        let a = BlockDevice::open(RAM, Mode::ReadWrite, Holder::Exclusive)?;
        assert!(a.nr_sectors() >= 8192);
        assert!(a.logical_block_size() >= 512);
        assert!(!a.is_read_only());
        assert!(!a.is_zoned());
        let name = CString::try_from_fmt(fmt!("{} {}", a.name(), a.dev()))?;
        assert_eq!(name.to_bytes(), b"ram0 1:0");
        let again = BlockDevice::open(RAM, Mode::ReadWrite, Holder::Exclusive);
        assert_eq!(again.err(), Some(EBUSY));
        let b = BlockDevice::open(RAM, Mode::Read, Holder::Shared)?;
        assert!(a.same_device(&b) && a.same_disk(&b));
        assert!(a.openers() >= 2);
        drop(a);
        BlockDevice::open(RAM, Mode::ReadWrite, Holder::Exclusive)?;
        Ok(())
    }

    #[test]
    fn reads_what_was_written() -> Result {
        let dev = BlockDevice::open(RAM, Mode::ReadWrite, Holder::Exclusive)?;
        let mut out = KVec::from_elem(0u8, 3 * PAGE_BYTES, GFP_KERNEL)?;
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = (i * 7 + i / 512) as u8;
        }
        let mut io = SyncIo::new(64, 3 * PAGE_BYTES)?;
        io.write(&dev, 16, &out, Flags::PREFLUSH_FUA)?;
        dev.flush_sync()?;
        let mut back = KVec::from_elem(0u8, 3 * PAGE_BYTES, GFP_KERNEL)?;
        dev.read_sync(16, &mut back)?;
        assert!(*out == *back);
        // In parts: the buffer is smaller.
        let mut small = SyncIo::new(0, PAGE_BYTES)?;
        back.fill(0);
        small.read(&dev, 16, &mut back)?;
        assert!(*out == *back);
        let end = dev.nr_sectors();
        assert!(small.read(&dev, end, &mut back).is_err());
        small.read(&dev, 16, &mut back)?;

        let pool = PagePool::new(0, 512, None)?;
        let mut buf = pool.try_take(64 * PAGE_BYTES).ok_or(ENOMEM)?;
        buf.zero_range(0, 64 * PAGE_BYTES)?;
        buf = io.read_buf(&dev, 16, buf, 3 * PAGE_BYTES)?;
        buf.read_at(0, &mut back)?;
        assert!(*out == *back);
        let whole = Segment {
            buf: &buf,
            offset: 0,
            len: buf.len(),
        };
        io.write_buf(&dev, 1024, whole, Flags::NONE)?;
        let all = pool.try_take(64 * PAGE_BYTES).ok_or(ENOMEM)?;
        let all = io.read_buf(&dev, 1024, all, 64 * PAGE_BYTES)?;
        let len = 64 * PAGE_BYTES;
        assert_eq!(all.crc32c(0, 0, len)?, buf.crc32c(0, 0, len)?);

        io.zeroout(&dev, 16, 8, true)?;
        dev.read_sync(16, &mut back)?;
        assert!(back.iter().take(4096).all(|b| *b == 0));
        assert!(back.iter().skip(4096).eq(out.iter().skip(4096)));
        assert!(dev.read_sync(dev.nr_sectors(), &mut back).is_err());
        assert!(dev.read_sync(u64::MAX, &mut back).is_err());
        Ok(())
    }
}
