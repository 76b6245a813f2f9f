// SPDX-License-Identifier: GPL-2.0

//! The stable image: what would be on the platter. A raw sparse file, addressed in bytes.
//!
//! Called by the disk with its lock held. Data written here counts as durable; the host is not
//! expected to crash, so nothing is synced.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{fallocate, flock, seek, FallocateFlags, FlockOperation, SeekFrom};

const COPY_CHUNK: u64 = 1 << 20;

/// An open stable image, locked against a second server.
#[derive(Debug)]
pub struct Image {
    file: File,
    size: u64,
}

impl Image {
    /// Opens `path`, creating it (or extending it) to `size` bytes when a size is given.
    pub fn open(path: &Path, size: Option<u64>) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(size.is_some())
            .truncate(false)
            .open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| {
            io::Error::new(
                io::Error::from(e).kind(),
                "image is in use by another server",
            )
        })?;
        let have = file.metadata()?.len();
        let size = match size {
            Some(want) if want < have => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("image has {have} bytes already, refusing to shrink it to {want}"),
                ))
            }
            Some(want) => {
                file.set_len(want)?;
                want
            }
            None => have,
        };
        if size == 0 || size % 512 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("image size {size} is not a positive multiple of 512"),
            ));
        }
        Ok(Self { file, size })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, at)
    }

    pub fn write(&self, at: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_all_at(buf, at)
    }

    /// Makes a range read as zeros, as a hole where the file system can.
    pub fn zero(&self, at: u64, len: u64) -> io::Result<()> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(&self.file, punch, at, len).is_ok() {
            return Ok(());
        }
        let zeros = vec![0u8; len.min(COPY_CHUNK) as usize];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(COPY_CHUNK);
            self.write(at + done, &zeros[..n as usize])?;
            done += n;
        }
        Ok(())
    }

    /// Copies the image to a new sparse file and returns that file, open for writing.
    pub fn copy_to(&self, path: &Path) -> io::Result<Self> {
        let out = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        out.set_len(self.size)?;
        let mut buf = vec![0u8; COPY_CHUNK as usize];
        let mut at = 0;
        while at < self.size {
            let start = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(s) => s,
                Err(rustix::io::Errno::NXIO) => break,
                Err(_) => at,
            };
            let end = seek(&self.file, SeekFrom::Hole(start)).unwrap_or(self.size);
            at = start;
            while at < end {
                let n = (end - at).min(COPY_CHUNK) as usize;
                self.read(at, &mut buf[..n])?;
                out.write_all_at(&buf[..n], at)?;
                at += n as u64;
            }
        }
        Ok(Self {
            file: out,
            size: self.size,
        })
    }
}

/// Gathers neighbouring blocks into large writes. Blocks come in ascending order; `finish` must be
/// called at the end.
pub struct Batcher<'a> {
    image: &'a Image,
    at: u64,
    buf: Vec<u8>,
    zero_at: u64,
    zero_len: u64,
}

impl<'a> Batcher<'a> {
    pub fn new(image: &'a Image) -> Self {
        Self {
            image,
            at: 0,
            buf: Vec::new(),
            zero_at: 0,
            zero_len: 0,
        }
    }

    pub fn put(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        let next = self.at + self.buf.len() as u64;
        if self.buf.is_empty() || next != at || self.buf.len() as u64 >= COPY_CHUNK {
            self.flush_data()?;
            self.at = at;
        }
        self.buf.extend_from_slice(data);
        Ok(())
    }

    pub fn put_zero(&mut self, at: u64, len: u64) -> io::Result<()> {
        if self.zero_len == 0 || self.zero_at + self.zero_len != at {
            self.flush_zero()?;
            self.zero_at = at;
        }
        self.zero_len += len;
        Ok(())
    }

    fn flush_data(&mut self) -> io::Result<()> {
        if !self.buf.is_empty() {
            self.image.write(self.at, &self.buf)?;
            self.buf.clear();
        }
        Ok(())
    }

    fn flush_zero(&mut self) -> io::Result<()> {
        if self.zero_len > 0 {
            self.image.zero(self.zero_at, self.zero_len)?;
            self.zero_len = 0;
        }
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.flush_data()?;
        self.flush_zero()
    }
}
