// SPDX-License-Identifier: GPL-2.0

//! Direct I/O on a block device (or a file, for tests): aligned buffers, FUA writes, flush, discard,
//! write-zeroes. Called by the workload and the shapes.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use block_devs::BlckExt;
use rustix::fs::{fallocate, seek, FallocateFlags, OFlags, SeekFrom};
use rustix::io::ReadWriteFlags;

const PAGE: usize = 4096;

/// A buffer that begins at a page, plus `skew` bytes.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl Buffer {
    pub fn new(len: usize, skew: usize) -> Self {
        let bytes = vec![0u8; len + skew + PAGE];
        let from = bytes.as_ptr().align_offset(PAGE) + skew;
        Self { bytes, from, len }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.from + self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.len]
    }
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    pub path: String,
    pub size: u64,
    /// Logical block size in bytes.
    pub block: u64,
    file: File,
    is_block: bool,
}

impl Device {
    pub fn open(path: &str, direct: bool) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{path}: {e}"));
        let flags = if direct {
            OFlags::DIRECT
        } else {
            OFlags::empty()
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits() as i32)
            .open(path)
            .map_err(named)?;
        let size = seek(&file, SeekFrom::End(0)).map_err(|e| named(e.into()))?;
        let is_block = file.is_block_device();
        let block = if is_block {
            file.get_size_of_block().map_err(named)?
        } else {
            512
        };
        Ok(Self {
            path: path.into(),
            size,
            block,
            file,
            is_block,
        })
    }

    pub fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, at)
    }

    pub fn write(&self, at: u64, buf: &[u8], fua: bool) -> io::Result<()> {
        self.write_vectored(at, &[IoSlice::new(buf)], fua)
    }

    /// One request of several segments; it must go in one piece.
    pub fn write_vectored(&self, at: u64, bufs: &[IoSlice<'_>], fua: bool) -> io::Result<()> {
        let flags = if fua {
            ReadWriteFlags::DSYNC
        } else {
            ReadWriteFlags::empty()
        };
        let len: usize = bufs.iter().map(|b| b.len()).sum();
        match rustix::io::pwritev2(&self.file, bufs, at, flags)? {
            n if n == len => Ok(()),
            n => Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("short write: {n} of {len} bytes"),
            )),
        }
    }

    /// A cache flush.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub fn discard(&self, at: u64, len: u64) -> io::Result<()> {
        if self.is_block {
            return self.file.block_discard(at, len);
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, punch, at, len)?)
    }

    /// On a block device this is a write-zeroes that may not unmap.
    pub fn zero(&self, at: u64, len: u64) -> io::Result<()> {
        if !self.is_block {
            // Not every file system can zero a range.
            return self.write(at, Buffer::new(len as usize, 0).bytes(), false);
        }
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, zero, at, len)?)
    }
}
