// SPDX-License-Identifier: GPL-2.0

//! Disks with volatile caches: the log device at the granularity of a descriptor and each payload, data
//! volumes at that of a block, and the superblock as an atomic write that is there or not.
//!
//! A power cut keeps any subset of what is not flushed; a reset keeps all that the device has taken, and
//! any part of what was still on its way.

use std::rc::Rc;

use replicate_core::{
    lineage::Lineage,
    log::{
        batch::{batch_bytes, descriptor_bytes, BatchHead},
        reader::{Expected, Walk},
        recovery::{Epochs, Outcome, Scan, Want},
        ring::{Mark, Place, Ring},
    },
    record::chain_record,
    units::{Bytes, Chain, EpochId, Record, Seq},
};

/// Unit of the log.
pub const LOG_BLOCK: u32 = 4096;

/// An epoch as lineages of the model hold it: its number and first seq.
pub type Epoch = (u8, u64);

/// A batch as it was sent to the log device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    pub place: Place,
    pub length: u64,
    pub epoch: EpochId,
    pub durable: Seq,
    pub chain: Chain,
    pub records: Vec<Record>,
}

impl Batch {
    pub fn first(&self) -> Seq {
        self.records[0].seq
    }

    pub fn last(&self) -> Seq {
        self.records[self.records.len() - 1].seq
    }

    pub fn chain_after(&self, seq: Seq) -> Chain {
        let upto = self.records.iter().take_while(|r| r.seq <= seq);
        upto.fold(self.chain, |c, r| chain_record(c, r).unwrap())
    }

    /// Start and end of its part `i`: 0 is the descriptor, then the payloads.
    fn part(&self, ring: &Ring, i: usize) -> (u64, u64) {
        let count = self.records.len() as u32;
        let start = ring.offset(self.place).0;
        let head = u64::from(descriptor_bytes(count, LOG_BLOCK));
        if i == 0 {
            return (start, start + head);
        }
        let before: u64 = self.records[..i - 1]
            .iter()
            .map(|r| u64::from(r.payload_bytes()))
            .sum();
        let at = start + head + before;
        (at, at + u64::from(self.records[i - 1].payload_bytes()))
    }

    fn parts(&self) -> usize {
        self.records.len() + 1
    }

    fn all(&self) -> u8 {
        (1u16 << self.parts()).wrapping_sub(1) as u8
    }
}

/// A batch on the log device: which of its parts are durable and which are in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Laid {
    pub batch: Rc<Batch>,
    pub durable: u8,
    pub cached: u8,
    /// The write ended: from now on a flush covers it.
    pub done: bool,
    /// A flush that is under way covers it.
    pub marked: bool,
}

/// The log device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogDev {
    pub size: u64,
    pub laid: Vec<Laid>,
    /// Offset in the ring of a block that cannot be read.
    pub bad: Option<u64>,
}

/// The device cannot read a place.
#[derive(Clone, Copy, Debug)]
pub struct Unreadable;

/// What recovery finds.
#[derive(Clone, Debug)]
pub struct Found {
    pub outcome: Outcome,
    pub marks: Vec<Mark>,
    pub records: Vec<Record>,
    /// Chain value before the first record.
    pub chain: Chain,
    /// The scan asks for a flush of the log device.
    pub flush: bool,
}

impl Found {
    pub fn head(&self) -> Option<Seq> {
        match self.outcome {
            Outcome::Head { head, .. } => Some(head),
            Outcome::Corrupt { .. } | Outcome::Unreadable { .. } => None,
        }
    }
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

impl LogDev {
    pub fn new(size: u64) -> LogDev {
        LogDev {
            size,
            laid: Vec::new(),
            bad: None,
        }
    }

    pub fn ring(&self, tail: Place) -> Ring {
        Ring::new(Bytes(self.size), LOG_BLOCK, tail, tail)
    }

    pub fn write(&mut self, batch: Rc<Batch>) {
        let at = self.ring(batch.place).offset(batch.place).0;
        // A block that is written can be read again.
        self.bad = self.bad.filter(|b| *b < at || *b >= at + batch.length);
        let cached = batch.all();
        self.laid.push(Laid {
            batch,
            durable: 0,
            cached,
            done: false,
            marked: false,
        });
    }

    /// The write of `batch` ended; with `fua` it is durable by that.
    pub fn ended(&mut self, batch: &Rc<Batch>, fua: bool) {
        if let Some(l) = self
            .laid
            .iter_mut()
            .rev()
            .find(|l| Rc::ptr_eq(&l.batch, batch) || l.batch == *batch)
        {
            l.done = true;
            if fua {
                l.durable |= l.cached;
                l.cached = 0;
            }
        }
        self.tidy();
    }

    /// A flush begins: it covers the writes that ended.
    pub fn flush_begins(&mut self) {
        for l in &mut self.laid {
            l.marked = l.done && l.cached != 0;
        }
    }

    pub fn flush_ends(&mut self) {
        for l in &mut self.laid {
            if l.marked {
                l.durable |= l.cached;
                l.cached = 0;
                l.marked = false;
            }
        }
        self.tidy();
    }

    pub fn flush_fails(&mut self) {
        for l in &mut self.laid {
            l.marked = false;
        }
    }

    pub fn flush(&mut self) {
        self.flush_begins();
        self.flush_ends();
    }

    /// Drops what lies below something newer and durable, and batches of which nothing is left.
    fn tidy(&mut self) {
        let ring = self.ring(Place(0));
        for i in 0..self.laid.len() {
            for j in i + 1..self.laid.len() {
                let (old, new) = (self.laid[i].batch.clone(), self.laid[j].batch.clone());
                for p in 0..old.parts() {
                    for q in 0..new.parts() {
                        let there = self.laid[j].durable & (1 << q) != 0;
                        if there && overlap(old.part(&ring, p), new.part(&ring, q)) {
                            self.laid[i].durable &= !(1 << p);
                            self.laid[i].cached &= !(1 << p);
                        }
                    }
                }
            }
        }
        // Without its descriptor a batch is nothing.
        self.laid
            .retain(|l| (l.durable | l.cached) & 1 != 0 || !l.done && l.cached != 0);
        for l in &mut self.laid {
            l.cached &= !l.durable;
        }
    }

    /// Forgets the live part's outside: batches that neither scan nor evidence can meet any more.
    pub fn forget_before(&mut self, tail: Place) {
        self.laid
            .retain(|l| l.batch.place.0 + l.batch.length > tail.0);
    }

    /// How the device may look after a power cut (`cut`) or a reset.
    pub fn aftermath(&self, cut: bool) -> Vec<LogDev> {
        let empty = LogDev {
            bad: self.bad,
            ..LogDev::new(self.size)
        };
        let mut all = vec![empty];
        for l in &self.laid {
            let mut choices: Vec<(u8, u8)> = Vec::new();
            if l.cached == 0 || (!cut && l.done) {
                choices.push((l.durable, l.cached));
            } else {
                // What counts is: nothing of it, the descriptor only, all of it.
                let full = l.cached;
                for keep in [0, full & 1, full] {
                    let c = if cut {
                        (l.durable | keep, 0)
                    } else {
                        (l.durable, keep)
                    };
                    if !choices.contains(&c) {
                        choices.push(c);
                    }
                }
            }
            let mut next = Vec::with_capacity(all.len() * choices.len());
            for dev in &all {
                for (durable, cached) in &choices {
                    let mut dev = dev.clone();
                    dev.laid.push(Laid {
                        batch: l.batch.clone(),
                        durable: *durable,
                        cached: *cached,
                        done: true,
                        marked: false,
                    });
                    next.push(dev);
                }
            }
            all = next;
        }
        for dev in &mut all {
            dev.tidy();
        }
        all
    }

    /// The batch that must lie at a place, whole, where it does.
    fn batch_at(
        &self,
        ring: &Ring,
        e: &Expected,
        with_cache: bool,
    ) -> Result<Option<&Rc<Batch>>, Unreadable> {
        let hit = self.read(e.place, with_cache)?;
        Ok(hit
            .filter(|(b, whole)| *whole && e.matches(ring, &head_of(b, ring), &b.epoch))
            .map(|(b, _)| b))
    }

    /// Reads the log on from `mark`, as replay and a sender do, up to the batch that holds `seq`. `None`: the log
    /// does not hold it.
    pub fn read_back(&self, mark: Mark, line: &Lineage<'_>, seq: Seq) -> Option<&Rc<Batch>> {
        let (ring, mut walk) = (self.ring(mark.place), Walk::at(mark));
        loop {
            let expected = walk.expected(&ring, line);
            match self.batch_at(&ring, &expected, true) {
                Ok(Some(b)) => {
                    if seq <= walk.found(&found_of(b), &ring, line, |s| b.chain_after(s)) {
                        return Some(b);
                    }
                }
                Ok(None) if walk.absent(&ring) => {}
                Ok(None) | Err(Unreadable) => return None,
            }
        }
    }

    /// The batch whose descriptor reads well at `place`, and whether its payloads do.
    fn read(
        &self,
        place: Place,
        with_cache: bool,
    ) -> Result<Option<(&Rc<Batch>, bool)>, Unreadable> {
        let ring = self.ring(Place(0));
        let offset = ring.offset(place);
        if self.bad == Some(offset.0) {
            return Err(Unreadable);
        }
        let view = |l: &Laid| {
            if with_cache {
                l.durable | l.cached
            } else {
                l.durable
            }
        };
        for (i, l) in self.laid.iter().enumerate().rev() {
            if ring.offset(l.batch.place) != offset {
                continue;
            }
            let intact = |p: usize| {
                view(l) & (1 << p) != 0
                    && !self.laid[i + 1..].iter().any(|n| {
                        (0..n.batch.parts()).any(|q| {
                            view(n) & (1 << q) != 0
                                && overlap(l.batch.part(&ring, p), n.batch.part(&ring, q))
                        })
                    })
            };
            if intact(0) {
                return Ok(Some((&l.batch, (1..l.batch.parts()).all(intact))));
            }
        }
        Ok(None)
    }

    /// Runs the core's scan over the device.
    pub fn scan(&self, tail: &Mark, commit: Seq, lineage: &Lineage<'_>, with_cache: bool) -> Found {
        let ring = self.ring(tail.place);
        let mut scan = Scan::new(ring, tail.first, tail.chain, commit);
        let (mut marks, mut records, mut flush) = (Vec::new(), Vec::new(), false);
        loop {
            match scan.want(lineage) {
                Want::Batch(e) => match self.batch_at(&ring, &e, with_cache) {
                    Ok(Some(b)) => {
                        let (_, bound) = lineage.epoch_of(e.first);
                        marks.push(Mark {
                            first: e.first,
                            place: e.place,
                            chain: e.chain,
                        });
                        records.extend(b.records.iter().filter(|r| r.seq <= bound).copied());
                        scan.accept(found_of(b), lineage, |s| b.chain_after(s));
                    }
                    Ok(None) => scan.reject(),
                    Err(Unreadable) => scan.unreadable(),
                },
                Want::Evidence(e) => match self.read(e.place, with_cache) {
                    Ok(Some((b, _))) if e.proves(&ring, &head_of(b, &ring), &b.epoch) => {
                        scan.evidence(found_of(b), lineage);
                    }
                    Ok(_) => scan.reject(),
                    Err(Unreadable) => scan.unreadable(),
                },
                // Whoever only looks does not flush.
                Want::Flush => {
                    flush = true;
                    scan.flushed();
                }
                Want::Done(outcome) => {
                    return Found {
                        outcome,
                        marks,
                        records,
                        chain: tail.chain,
                        flush,
                    };
                }
            }
        }
    }
}

fn head_of(b: &Batch, ring: &Ring) -> BatchHead {
    BatchHead {
        offset: ring.offset(b.place),
        lap: ring.lap(b.place),
        epoch_index: 0,
        first_seq: b.first(),
        count: b.records.len() as u32,
        length: Bytes(b.length),
        durable: b.durable,
        chain: b.chain,
        chain_after: b.chain_after(b.last()),
    }
}

fn found_of(b: &Batch) -> replicate_core::log::reader::Found {
    let payload: u32 = b.records.iter().map(|r| r.payload_bytes()).sum();
    debug_assert_eq!(
        u64::from(batch_bytes(b.records.len() as u32, payload, LOG_BLOCK)),
        b.length
    );
    replicate_core::log::reader::Found {
        first: b.first(),
        last: b.last(),
        length: Bytes(b.length),
        durable: b.durable,
    }
}

/// Content of a block: the number of the write that it holds.
pub type Value = u8;

/// Never written.
pub const BLANK: Value = 0;
/// What a replica held before it was ever synced.
pub const GARBAGE: Value = 255;

/// A block of a data volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    pub durable: Value,
    /// Written since, in the order in which the device took it.
    pub cache: Vec<Value>,
    /// How many of those a flush that is under way covers.
    pub marked: u8,
}

impl Block {
    pub fn new(v: Value) -> Block {
        Block {
            durable: v,
            cache: Vec::new(),
            marked: 0,
        }
    }

    pub fn current(&self) -> Value {
        self.cache.last().copied().unwrap_or(self.durable)
    }

    pub fn write(&mut self, v: Value) {
        if self.cache.is_empty() && self.durable == v {
            return;
        }
        if self.cache.last() != Some(&v) || usize::from(self.marked) == self.cache.len() {
            self.cache.push(v);
        }
    }

    pub fn flush_begins(&mut self) {
        self.marked = self.cache.len() as u8;
    }

    pub fn flush_ends(&mut self) {
        if self.marked > 0 {
            self.durable = self.cache[usize::from(self.marked) - 1];
            self.cache.drain(..usize::from(self.marked));
            self.marked = 0;
        }
    }

    /// Every value that a power cut may leave, and that may be read now.
    pub fn possible(&self) -> impl Iterator<Item = Value> + '_ {
        std::iter::once(self.durable).chain(self.cache.iter().copied())
    }
}
