// SPDX-License-Identifier: GPL-2.0

//! A device or file that holds an SRL: opened so that nobody else has it, read and written past the
//! page cache, because the page cache does not see what the kernel module writes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Seek, SeekFrom},
    ops::{Deref, DerefMut},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// What everything is aligned to: no smaller than the logical block of any device.
const ALIGN: usize = 4096;

/// An open device.
pub struct Device {
    path: PathBuf,
    file: File,
    bytes: u64,
    block: u32,
    live: bool,
}

impl Device {
    /// Opens for writing; refused when anybody has it in use.
    pub fn open_to_write(path: &Path) -> Result<Self> {
        let doing = format!("cannot format {}", path.display());
        match Self::open(path, true, true) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Err(busy(&doing, path)),
            other => other.map_err(|e| Error::io(doing, &e)),
        }
    }

    /// Opens for reading, in use or not.
    pub fn open_to_read(path: &Path) -> Result<Self> {
        let doing = format!("cannot read {}", path.display());
        match Self::open(path, false, true) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Self::open(path, false, false),
            other => other,
        }
        .map_err(|e| Error::io(doing, &e))
    }

    fn open(path: &Path, write: bool, exclusive: bool) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let is_device = metadata.file_type().is_block_device();
        if !is_device && !metadata.is_file() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "neither a block device nor a file",
            ));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(write);
        let mut flags = 0;
        if is_device {
            // Without O_CREAT, O_EXCL on a block device means: fail if anybody holds it.
            flags = libc::O_DIRECT | if exclusive { libc::O_EXCL } else { 0 };
        }
        let mut file = options.custom_flags(flags).open(path)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        let block = if is_device {
            physical_block(metadata.rdev())
        } else {
            ALIGN as u32
        };
        Ok(Device {
            path: path.into(),
            file,
            bytes,
            block,
            live: is_device && !exclusive,
        })
    }

    /// Returns its path, for messages.
    pub fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Returns its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns its physical block.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// Returns whether somebody else has it in use, so that what is read may change meanwhile.
    pub fn live(&self) -> bool {
        self.live
    }

    /// Reads `length` bytes, or as many as there are before the end.
    pub fn read(&self, offset: u64, length: usize) -> Result<Buffer> {
        let rest = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut buffer = Buffer::zeroed(length.min(rest));
        match self.file.read_exact_at(&mut buffer, offset) {
            Ok(()) => Ok(buffer),
            Err(e) => Err(Error::io(
                format!(
                    "cannot read {length} bytes of {} at byte {offset}",
                    self.path()
                ),
                &e,
            )),
        }
    }

    /// Writes all of `bytes`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result {
        let mut buffer = Buffer::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        self.file.write_all_at(&buffer, offset).map_err(|e| {
            Error::io(
                format!(
                    "cannot write {} bytes to {} at byte {offset}",
                    bytes.len(),
                    self.path()
                ),
                &e,
            )
        })
    }

    /// Makes durable what was written.
    pub fn flush(&self) -> Result {
        self.file
            .sync_all()
            .map_err(|e| Error::io(format!("cannot flush {}", self.path()), &e))
    }
}

/// Bytes that begin where O_DIRECT wants them to.
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// `length` zeros.
    pub fn zeroed(length: usize) -> Self {
        let bytes = vec![0; length + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Buffer {
            bytes,
            start,
            length,
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

fn sysfs(numbers: u64) -> PathBuf {
    PathBuf::from(format!(
        "/sys/dev/block/{}:{}",
        libc::major(numbers),
        libc::minor(numbers)
    ))
}

fn physical_block(numbers: u64) -> u32 {
    // A partition's queue is that of the whole disk, one level up.
    ["queue", "../queue"]
        .iter()
        .find_map(|queue| {
            fs::read_to_string(sysfs(numbers).join(queue).join("physical_block_size")).ok()
        })
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(ALIGN as u32)
}

/// Says who has the device, as far as can be seen.
fn busy(doing: &str, path: &Path) -> Error {
    let mut users = Vec::new();
    if let Ok(metadata) = fs::metadata(path) {
        let numbers = format!(
            "{}:{}",
            libc::major(metadata.rdev()),
            libc::minor(metadata.rdev())
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        users.extend(mounted_on(&mounts, &numbers).map(|place| format!("mounted on {place}")));
        if let Ok(holders) = fs::read_dir(sysfs(metadata.rdev()).join("holders")) {
            users.extend(
                holders
                    .flatten()
                    .map(|h| format!("part of {}", h.file_name().to_string_lossy())),
            );
        }
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    if swaps
        .lines()
        .any(|l| l.split_whitespace().next().map(Path::new) == Some(real.as_path()))
    {
        users.push("used as swap".into());
    }
    if users.is_empty() {
        users.push(
            "somebody has it open exclusively (a group that uses it, or a mounted partition of it)"
                .into(),
        );
    }
    Error::new(format!("{doing}: it is in use: {}", users.join(", ")))
        .hint("Give it free first, or name another device; --force does not help here.")
}

fn mounted_on<'a>(mountinfo: &'a str, numbers: &'a str) -> impl Iterator<Item = &'a str> {
    mountinfo.lines().filter_map(move |line| {
        let mut fields = line.split(' ');
        (fields.nth(2)? == numbers).then(|| fields.nth(1))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned() {
        for length in [0, 1, 512, 4096, 65536] {
            let mut buffer = Buffer::zeroed(length);
            assert_eq!(buffer.as_ptr() as usize % ALIGN, 0);
            assert_eq!(buffer.len(), length);
            buffer.fill(1);
            assert!(buffer.iter().all(|b| *b == 1));
        }
    }

    #[test]
    fn reads_end_at_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(10_000).unwrap();
        let device = Device::open_to_read(file.path()).unwrap();
        assert_eq!(device.bytes(), 10_000);
        assert!(!device.live());
        assert_eq!(device.read(8192, 4096).unwrap().len(), 1808);
        assert_eq!(device.read(20_000, 4096).unwrap().len(), 0);
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let error = Device::open_to_write(Path::new("/dev/null"))
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("/dev/null") && error.contains("neither"),
            "{error}"
        );
        let error = Device::open_to_read(Path::new("/nonexistent"))
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("/nonexistent") && error.contains("No such file"),
            "{error}"
        );
    }

    #[test]
    fn mounts_are_found() {
        let mounts = "36 35 254:1 / / rw,noatime shared:1 - ext4 /dev/vda1 rw\n\
                      37 36 254:16 / /srv/data rw - xfs /dev/vdb rw\n";
        assert_eq!(
            mounted_on(mounts, "254:16").collect::<Vec<_>>(),
            ["/srv/data"]
        );
        assert_eq!(mounted_on(mounts, "254:2").count(), 0);
    }
}
