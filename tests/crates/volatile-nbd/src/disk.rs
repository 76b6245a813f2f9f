// SPDX-License-Identifier: GPL-2.0

//! One disk: the image, the cache over it, faults and counters behind one lock.
//!
//! Connections call [`Disk::begin`] when a request arrives and [`Disk::complete`] when its reply is
//! about to be sent; between the two it is in flight (that is where a delay goes). Control calls the
//! rest. A power cut of several disks holds all their locks at once ([`cut_all`]), taken in the order
//! of the list. A cut or a reset starts a new session; requests of an older one are refused, so
//! nothing that was still in a socket reaches the disk afterwards.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cache::{self, Cache, OpId};
use crate::cut;
use crate::image::{Batcher, Image};

pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;
pub const ENOSPC: u32 = 28;
pub const EROFS: u32 = 1;

/// Zero and trim requests above this many blocks go to the image at once (a cache may write through
/// whenever it likes); discarding a whole disk must not fill the cache.
const LARGE: u64 = 4096;

/// What a trimmed block reads as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    Zero,
    Keep,
    Garbage,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub path: PathBuf,
    pub size: Option<u64>,
    pub unit: usize,
    pub write_through: bool,
    pub read_only: bool,
    pub cache_max: u64,
    pub trim: Trim,
}

/// A request with its range in bytes.
#[derive(Clone, Debug)]
pub enum Request {
    Read { at: u64, len: u64 },
    Write { at: u64, data: Arc<[u8]>, fua: bool },
    Trim { at: u64, len: u64, fua: bool },
    Zero { at: u64, len: u64, fua: bool },
    Flush,
}

/// A request that has been carried out but not answered.
#[derive(Debug)]
pub struct Started {
    pub data: Vec<u8>,
    pub delay: Duration,
    op: OpId,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Nothing,
    Durable { first: u64, count: u64 },
    Flush { uncovered: BTreeSet<OpId> },
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Answer with this error number.
    Errno(u32),
    /// The session is over: close the connection.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Flush,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub write_bytes: u64,
    pub fua: u64,
    pub flushes: u64,
    pub trims: u64,
    pub zeroes: u64,
    pub errors: u64,
    pub cuts: u64,
    pub resets: u64,
}

#[derive(Debug, Default)]
struct Faults {
    read: Option<Range<u64>>,
    write: Option<Range<u64>>,
    flush: bool,
    writes_left: Option<u64>,
}

#[derive(Debug)]
struct Inner {
    image: Image,
    cache: Cache,
    faults: Faults,
    stats: Stats,
    next_op: OpId,
    session: u64,
    hang: bool,
    delay: Duration,
}

/// One disk.
#[derive(Debug)]
pub struct Disk {
    pub config: Config,
    pub size: u64,
    inner: Mutex<Inner>,
    wake: Condvar,
}

/// What a power cut did to one disk.
#[derive(Clone, Debug)]
pub struct CutReport {
    pub name: String,
    pub policy: String,
    pub unflushed: u64,
    pub kept: u64,
}

impl Disk {
    pub fn open(config: Config) -> io::Result<Self> {
        let image = Image::open(&config.path, config.size)?;
        let size = image.size();
        if size % config.unit as u64 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("image size {size} is not a multiple of {}", config.unit),
            ));
        }
        let cache = Cache::new(config.unit);
        Ok(Self {
            config,
            size,
            inner: Mutex::new(Inner {
                image,
                cache,
                faults: Faults::default(),
                stats: Stats::default(),
                next_op: 1,
                session: 1,
                hang: false,
                delay: Duration::ZERO,
            }),
            wake: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session that a new connection belongs to.
    pub fn session(&self) -> u64 {
        self.lock().session
    }

    /// Carries a request out; it is in flight until [`Disk::complete`].
    pub fn begin(&self, session: u64, request: Request) -> Result<Started, Refused> {
        let mut inner = self.lock();
        while inner.hang && inner.session == session {
            inner = self
                .wake
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if inner.session != session {
            return Err(Refused::Gone);
        }
        let result = inner.begin(&self.config, self.size, request);
        if result.is_err() {
            inner.stats.errors += 1;
            let op = inner.next_op - 1;
            inner.cache.leave(op);
        }
        result.map_err(Refused::Errno)
    }

    /// Gives a request the durability that its reply promises. To be called before the reply is sent.
    pub fn complete(&self, session: u64, started: &Started) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.session != session {
            return Err(Refused::Gone);
        }
        inner.complete(&self.config, started).map_err(|_| {
            inner.stats.errors += 1;
            Refused::Errno(EIO)
        })
    }

    /// Drops connections by starting a new session; the cache survives and stays volatile.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.stats.resets += 1;
        inner.cache.forget_in_flight();
        inner.session += 1;
        self.wake.notify_all();
    }

    /// Sets or clears a fault. `range` is in 512-byte sectors, everything when absent.
    pub fn fail(&self, kind: Kind, on: bool, range: Option<Range<u64>>) {
        let range = range.unwrap_or(0..u64::MAX);
        let set = on.then_some(range);
        let faults = &mut self.lock().faults;
        match kind {
            Kind::Read => faults.read = set,
            Kind::Write => faults.write = set,
            Kind::Flush => faults.flush = on,
        }
    }

    /// All writes fail after `count` more.
    pub fn error_after(&self, count: Option<u64>) {
        self.lock().faults.writes_left = count;
    }

    pub fn set_delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// While set, requests wait unanswered.
    pub fn hang(&self, on: bool) {
        self.lock().hang = on;
        self.wake.notify_all();
    }

    pub fn hanging(&self) -> bool {
        self.lock().hang
    }

    /// Counters, unflushed blocks, and whether the disk hangs.
    pub fn stats(&self) -> (Stats, u64, bool) {
        let inner = self.lock();
        (inner.stats, inner.cache.unflushed(), inner.hang)
    }

    /// Writes everything that is cached to the image.
    pub fn sync(&self) -> io::Result<()> {
        self.lock().sync()
    }

    /// Copies what a reader sees now to a new file.
    pub fn snapshot(&self, path: &Path) -> io::Result<()> {
        let inner = self.lock();
        let copy = inner.image.copy_to(path)?;
        let mut out = Batcher::new(&copy);
        for (b, versions) in inner.cache.blocks() {
            if let Some(v) = versions.last() {
                cache::put_block(&mut out, self.config.unit, *b, &v.data)?;
            }
        }
        out.finish()
    }
}

impl Inner {
    fn begin(&mut self, config: &Config, size: u64, request: Request) -> Result<Started, u32> {
        let unit = config.unit as u64;
        let blocks = |at: u64, len: u64| -> Result<(u64, u64), u32> {
            if at % unit != 0 || len % unit != 0 || len == 0 {
                return Err(EINVAL);
            }
            match at.checked_add(len) {
                Some(end) if end <= size => Ok((at / unit, len / unit)),
                _ => Err(ENOSPC),
            }
        };
        let op = self.next_op;
        self.next_op += 1;
        let mut started = Started {
            data: Vec::new(),
            delay: self.delay,
            op,
            then: Then::Nothing,
        };
        let durable = |fua: bool, first: u64, count: u64| {
            if fua || config.write_through {
                Then::Durable { first, count }
            } else {
                Then::Nothing
            }
        };
        match request {
            Request::Read { at, len } => {
                let (first, _) = blocks(at, len).map_err(|_| EINVAL)?;
                self.stats.reads += 1;
                self.stats.read_bytes += len;
                if hit(&self.faults.read, at, len) {
                    return Err(EIO);
                }
                started.data = vec![0; len as usize];
                self.image.read(at, &mut started.data).map_err(|_| EIO)?;
                self.cache.overlay(first, &mut started.data);
                return Ok(started);
            }
            Request::Flush => {
                self.stats.flushes += 1;
                if self.faults.flush {
                    return Err(EIO);
                }
                started.then = Then::Flush {
                    uncovered: self.cache.in_flight().clone(),
                };
                return Ok(started);
            }
            Request::Write { at, data, fua } => {
                let len = data.len() as u64;
                let (first, count) = blocks(at, len)?;
                self.stats.writes += 1;
                self.stats.write_bytes += len;
                self.may_write(config, fua, at, len)?;
                self.cache.enter(op);
                self.cache.write(op, first, count, Some(&data));
                started.then = durable(fua, first, count);
            }
            Request::Trim { at, len, fua } => {
                let (first, count) = blocks(at, len)?;
                self.stats.trims += 1;
                self.may_write(config, fua, at, len)?;
                self.cache.enter(op);
                match config.trim {
                    Trim::Keep => return Ok(started),
                    Trim::Garbage if count <= LARGE => {
                        let junk: Arc<[u8]> = vec![0xa5; len as usize].into();
                        self.cache.write(op, first, count, Some(&junk));
                    }
                    _ => self.zeros(op, first, count, unit)?,
                }
                started.then = durable(fua, first, count);
            }
            Request::Zero { at, len, fua } => {
                let (first, count) = blocks(at, len)?;
                self.stats.zeroes += 1;
                self.may_write(config, fua, at, len)?;
                self.cache.enter(op);
                self.zeros(op, first, count, unit)?;
                started.then = durable(fua, first, count);
            }
        }
        if self.cache_full(config) {
            let limit = config.cache_max / unit;
            self.cache
                .shrink(&self.image, limit - limit / 4)
                .map_err(|_| EIO)?;
        }
        Ok(started)
    }

    fn may_write(&mut self, config: &Config, fua: bool, at: u64, len: u64) -> Result<(), u32> {
        if config.read_only {
            return Err(EROFS);
        }
        if fua {
            self.stats.fua += 1;
        }
        if let Some(left) = &mut self.faults.writes_left {
            match left.checked_sub(1) {
                None => return Err(EIO),
                Some(n) => *left = n,
            }
        }
        if hit(&self.faults.write, at, len) {
            return Err(EIO);
        }
        Ok(())
    }

    fn zeros(&mut self, op: OpId, first: u64, count: u64, unit: u64) -> Result<(), u32> {
        if count <= LARGE {
            self.cache.write(op, first, count, None);
            return Ok(());
        }
        self.cache.drop_range(first, count);
        self.image.zero(first * unit, count * unit).map_err(|_| EIO)
    }

    fn cache_full(&self, config: &Config) -> bool {
        self.cache.versions() > config.cache_max / config.unit as u64
    }

    fn complete(&mut self, config: &Config, started: &Started) -> io::Result<()> {
        self.cache.leave(started.op);
        match &started.then {
            Then::Nothing => Ok(()),
            Then::Durable { first, count } => {
                self.cache.flush_op(&self.image, started.op, *first, *count)
            }
            Then::Flush { .. } if config.write_through => Ok(()),
            Then::Flush { uncovered } => {
                let before = started.op;
                self.cache
                    .flush(&self.image, |op| op < before && !uncovered.contains(&op))
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.cache.flush(&self.image, |_| true)
    }

    /// The survivors of a cut, written to `to` (the image itself, or a copy of it).
    fn keep_some(&self, config: &Config, seed: u64, to: &Image) -> io::Result<CutReport> {
        let survivors = cut::survivors(&self.cache, seed, &config.name);
        let mut out = Batcher::new(to);
        for (b, v) in &survivors.blocks {
            cache::put_block(&mut out, config.unit, *b, &v.data)?;
        }
        out.finish()?;
        Ok(CutReport {
            name: config.name.clone(),
            policy: survivors.policy.to_string(),
            unflushed: self.cache.unflushed(),
            kept: survivors.blocks.len() as u64,
        })
    }
}

fn hit(fault: &Option<Range<u64>>, at: u64, len: u64) -> bool {
    fault
        .as_ref()
        .is_some_and(|r| r.start < (at + len).div_ceil(512) && at / 512 < r.end)
}

/// Cuts the power of all these disks at one instant.
pub fn cut_all(disks: &[Arc<Disk>], seed: u64) -> io::Result<Vec<CutReport>> {
    lose_all(disks, seed, |inner| inner.session += 1)
}

/// These disks' caches lose what a cut would take, at one instant, and the clients stay: a device that was reset
/// behind its driver's back.
pub fn lose_caches(disks: &[Arc<Disk>], seed: u64) -> io::Result<Vec<CutReport>> {
    lose_all(disks, seed, |_| ())
}

fn lose_all(
    disks: &[Arc<Disk>],
    seed: u64,
    and: impl Fn(&mut Inner),
) -> io::Result<Vec<CutReport>> {
    let mut locked: Vec<_> = disks.iter().map(|d| (d, d.lock())).collect();
    let mut reports = Vec::new();
    for (disk, inner) in &mut locked {
        reports.push(inner.keep_some(&disk.config, seed, &inner.image)?);
        inner.cache.clear();
        inner.stats.cuts += 1;
        and(inner);
        disk.wake.notify_all();
    }
    Ok(reports)
}

/// Writes what a cut at this instant would leave to `DIR/<name>.img`, and goes on.
pub fn crash_images(disks: &[Arc<Disk>], seed: u64, dir: &Path) -> io::Result<Vec<CutReport>> {
    let locked: Vec<_> = disks.iter().map(|d| (d, d.lock())).collect();
    let mut reports = Vec::new();
    for (disk, inner) in &locked {
        let copy = inner
            .image
            .copy_to(&dir.join(format!("{}.img", disk.config.name)))?;
        reports.push(inner.keep_some(&disk.config, seed, &copy)?);
    }
    Ok(reports)
}
