// SPDX-License-Identifier: GPL-2.0

//! The volatile cache: for every block, the versions that were written since it was last made
//! durable, oldest first. A block is the unit that a power cut keeps or loses (512 bytes, or 4096 for
//! a disk with such blocks).
//!
//! Called by the disk with its lock held. Reads see the newest version. Making durable writes one
//! version to the image and drops that one and all older ones: an older one must never come back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use crate::image::{Batcher, Image};

/// Order of arrival of a request on a disk.
pub type OpId = u64;

/// Versions kept of one block. A cache need not remember every one; this bounds memory for a block
/// that is written over and over.
const MAX_VERSIONS: usize = 16;

/// The contents of one block.
#[derive(Clone, Debug)]
pub enum Data {
    Zero,
    Bytes { buf: Arc<[u8]>, at: usize },
}

/// One write of one block.
#[derive(Clone, Debug)]
pub struct Version {
    pub op: OpId,
    pub data: Data,
}

#[derive(Debug)]
struct Extent {
    op: OpId,
    first: u64,
    count: u64,
}

/// The cache of one disk.
#[derive(Debug)]
pub struct Cache {
    unit: usize,
    blocks: BTreeMap<u64, Vec<Version>>,
    versions: u64,
    fifo: VecDeque<Extent>,
    in_flight: BTreeSet<OpId>,
}

impl Cache {
    pub fn new(unit: usize) -> Self {
        Self {
            unit,
            blocks: BTreeMap::new(),
            versions: 0,
            fifo: VecDeque::new(),
            in_flight: BTreeSet::new(),
        }
    }

    /// Bytes of a block.
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// Number of blocks with at least one unflushed version.
    pub fn unflushed(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Number of unflushed versions: what the cache's memory goes by.
    pub fn versions(&self) -> u64 {
        self.versions
    }

    /// All unflushed versions, by block.
    pub fn blocks(&self) -> &BTreeMap<u64, Vec<Version>> {
        &self.blocks
    }

    /// Requests whose reply has not been sent.
    pub fn in_flight(&self) -> &BTreeSet<OpId> {
        &self.in_flight
    }

    /// Enters a request: until `leave`, no flush covers it.
    pub fn enter(&mut self, op: OpId) {
        self.in_flight.insert(op);
    }

    pub fn leave(&mut self, op: OpId) {
        self.in_flight.remove(&op);
    }

    /// A reset: nothing is in flight any more, the contents stay, volatile as before.
    pub fn forget_in_flight(&mut self) {
        self.in_flight.clear();
    }

    /// Adds one version to each of the blocks; `data` is `None` for zeros.
    pub fn write(&mut self, op: OpId, first: u64, count: u64, data: Option<&Arc<[u8]>>) {
        for i in 0..count {
            let data = match data {
                None => Data::Zero,
                Some(buf) => Data::Bytes {
                    buf: buf.clone(),
                    at: i as usize * self.unit,
                },
            };
            let versions = self.blocks.entry(first + i).or_default();
            versions.push(Version { op, data });
            self.versions += 1;
            let oldest_done = versions
                .first()
                .is_some_and(|v| !self.in_flight.contains(&v.op));
            if versions.len() > MAX_VERSIONS && oldest_done {
                versions.remove(0);
                self.versions -= 1;
            }
        }
        self.fifo.push_back(Extent { op, first, count });
    }

    /// Drops every version of the blocks (the caller has written the image under them).
    pub fn drop_range(&mut self, first: u64, count: u64) {
        let gone: Vec<u64> = self
            .blocks
            .range(first..first + count)
            .map(|(b, _)| *b)
            .collect();
        for b in gone {
            if let Some(v) = self.blocks.remove(&b) {
                self.versions -= v.len() as u64;
            }
        }
    }

    /// Lays the newest versions over `buf`, which was read from the image.
    pub fn overlay(&self, first: u64, buf: &mut [u8]) {
        let unit = self.unit;
        let count = (buf.len() / unit) as u64;
        for (b, versions) in self.blocks.range(first..first + count) {
            let at = (b - first) as usize * unit;
            if let Some(v) = versions.last() {
                copy_block(&v.data, &mut buf[at..at + unit]);
            }
        }
    }

    /// Makes the newest version that `covered` accepts durable, on every block.
    pub fn flush(&mut self, image: &Image, covered: impl Fn(OpId) -> bool) -> io::Result<()> {
        let all: Vec<u64> = self.blocks.keys().copied().collect();
        self.settle(image, &all, covered)?;
        if self.blocks.is_empty() {
            self.fifo.clear();
        }
        Ok(())
    }

    /// Makes one request's blocks durable (FUA, write-through).
    pub fn flush_op(&mut self, image: &Image, op: OpId, first: u64, count: u64) -> io::Result<()> {
        let mine: Vec<u64> = self
            .blocks
            .range(first..first + count)
            .map(|(b, _)| *b)
            .collect();
        self.settle(image, &mine, |o| o <= op)
    }

    /// Writes back the oldest requests until at most `limit` versions are cached.
    pub fn shrink(&mut self, image: &Image, limit: u64) -> io::Result<()> {
        while self.versions > limit {
            let Some(e) = self.fifo.pop_front() else {
                break;
            };
            self.flush_op(image, e.op, e.first, e.count)?;
        }
        Ok(())
    }

    fn settle(
        &mut self,
        image: &Image,
        blocks: &[u64],
        covered: impl Fn(OpId) -> bool,
    ) -> io::Result<()> {
        let mut out = Batcher::new(image);
        for b in blocks {
            let Some(versions) = self.blocks.get_mut(b) else {
                continue;
            };
            let Some(i) = versions.iter().rposition(|v| covered(v.op)) else {
                continue;
            };
            put_block(&mut out, self.unit, *b, &versions[i].data)?;
            versions.drain(..=i);
            self.versions -= i as u64 + 1;
            if versions.is_empty() {
                self.blocks.remove(b);
            }
        }
        out.finish()
    }

    /// The power is gone: everything that was not written to the image is forgotten.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.fifo.clear();
        self.in_flight.clear();
        self.versions = 0;
    }
}

/// Writes one block's contents to the image.
pub fn put_block(out: &mut Batcher<'_>, unit: usize, block: u64, data: &Data) -> io::Result<()> {
    let at = block * unit as u64;
    match data {
        Data::Zero => out.put_zero(at, unit as u64),
        Data::Bytes { buf, at: from } => out.put(at, &buf[*from..*from + unit]),
    }
}

fn copy_block(data: &Data, to: &mut [u8]) {
    match data {
        Data::Zero => to.fill(0),
        Data::Bytes { buf, at } => to.copy_from_slice(&buf[*at..*at + to.len()]),
    }
}
