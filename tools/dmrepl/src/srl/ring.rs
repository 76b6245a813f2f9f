// SPDX-License-Identifier: GPL-2.0

//! Reading the ring of an SRL: batches one by one, and the scan that recovery does.
//!
//! The decisions are those of `replicate_core::log::recovery`; here the batches are read and their
//! payloads verified for it.

use std::collections::BTreeSet;

use replicate_core::{
    checksum::crc32c,
    lineage::Lineage,
    log::{
        batch::{BatchHead, Head, Place as BatchPlace},
        format::MAX_BATCH_BYTES,
        reader::{Expected, Found},
        recovery::{Epochs, Outcome, Scan, Want},
        ring::{Place, Ring},
        superblock::{Area, Superblock},
    },
    record,
    units::{Bytes, Chain, EpochId, GroupUuid, Record, Seq},
};

use super::device::{Buffer, Device};
use crate::error::Result;

/// Read at once; a batch lies within it wherever it begins in the first half.
const WINDOW_BYTES: u64 = 2 * MAX_BATCH_BYTES as u64;

/// A batch that was read, with its payloads verified.
pub struct Batch {
    pub head: BatchHead,
    pub epoch: EpochId,
    pub records: Vec<Entry>,
}

/// One of its records.
pub struct Entry {
    pub record: Record,
    /// Whether the payload is what the header says; `None` without payload.
    pub payload: Option<bool>,
    /// Where the payload lies on the device.
    pub payload_at: u64,
    /// Chain after it.
    pub chain: Chain,
}

impl Batch {
    /// From what begins with `bytes`, which were read at byte `start` of the device.
    fn new(head: &Head<'_>, bytes: &[u8], start: u64) -> Self {
        let mut chain = head.batch().chain;
        let records = head.records().map(|(r, offset)| {
            chain = record::chain_record(chain, &r).unwrap_or_default();
            Entry {
                record: r,
                payload: verify(&r, offset, bytes),
                payload_at: start.saturating_add(offset.into()),
                chain,
            }
        });
        Batch {
            records: records.collect(),
            head: head.batch(),
            epoch: head.epoch(),
        }
    }

    /// Returns whether every payload is what its header says.
    pub fn whole(&self) -> bool {
        self.records.iter().all(|e| e.payload != Some(false))
    }

    fn chain_after(&self, seq: Seq) -> Chain {
        let entry = self.records.iter().rev().find(|e| e.record.seq <= seq);
        entry.map_or(self.head.chain, |e| e.chain)
    }

    fn found(&self) -> Found {
        Found::from(&self.head)
    }
}

fn verify(r: &Record, offset: u32, bytes: &[u8]) -> Option<bool> {
    let length = usize::try_from(r.payload_bytes()).ok().filter(|l| *l > 0)?;
    let start = usize::try_from(offset).ok()?;
    let payload = start
        .checked_add(length)
        .and_then(|end| bytes.get(start..end));
    Some(payload.is_some_and(|p| crc32c(0, p) == r.payload_crc))
}

/// The ring of a device.
pub struct Reader<'d> {
    device: &'d Device,
    area: Area,
    block: u32,
    group: GroupUuid,
    window: (u64, Buffer),
}

impl<'d> Reader<'d> {
    /// `None` without a ring.
    pub fn new(device: &'d Device, superblock: &Superblock) -> Option<Self> {
        Some(Reader {
            device,
            area: superblock.ring()?,
            block: superblock.block(),
            group: superblock.group(),
            window: (0, Buffer::zeroed(0)),
        })
    }

    /// Length of the ring.
    pub fn bytes(&self) -> Bytes {
        self.area.length
    }

    /// Unit in which batches begin.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// Returns the bytes at an offset of the ring, as many as a batch may have.
    fn at(&mut self, offset: u64) -> Result<&[u8]> {
        let (start, buffer) = &self.window;
        let have = (buffer.len() as u64).saturating_sub(offset.saturating_sub(*start));
        let wanted = u64::from(MAX_BATCH_BYTES).min(self.area.length.0.saturating_sub(offset));
        if offset < *start || have < wanted {
            let length = WINDOW_BYTES.min(self.area.length.0.saturating_sub(offset));
            let buffer = self
                .device
                .read(self.area.start.0.saturating_add(offset), length as usize)?;
            self.window = (offset, buffer);
        }
        let (start, buffer) = &self.window;
        let skip = usize::try_from(offset.saturating_sub(*start)).unwrap_or(usize::MAX);
        Ok(buffer.get(skip..).unwrap_or(&[]))
    }

    /// Returns the batch of this group at an offset, if a whole descriptor is there.
    fn batch(&mut self, offset: Bytes) -> Result<Option<Batch>> {
        let place = BatchPlace {
            group: self.group,
            offset,
            block: self.block,
            ring: self.area.length,
        };
        let start = self.area.start.plus(offset);
        let bytes = self.at(offset.0)?;
        Ok(Head::parse(bytes, &place)
            .ok()
            .map(|head| Batch::new(&head, bytes, start.0)))
    }

    /// Returns the places of all batches that can still be read, oldest first.
    pub fn all(&mut self) -> Result<BTreeSet<Place>> {
        let mut places = BTreeSet::new();
        let mut offset = 0;
        while offset < self.area.length.0 {
            let mut step = u64::from(self.block);
            if let Some(batch) = self.batch(Bytes(offset))? {
                // Behind the front of a batch that is partly overwritten a newer one may begin.
                if batch.whole() {
                    step = batch.head.length.0;
                }
                places.insert(self.place(&batch.head));
            }
            offset = offset.saturating_add(step);
        }
        Ok(places)
    }

    /// Returns the batch at a place, if it is still there.
    pub fn batch_at(&mut self, place: Place) -> Result<Option<Batch>> {
        let offset = Bytes(place.0.checked_rem(self.area.length.0).unwrap_or(0));
        let batch = self.batch(offset)?;
        Ok(batch.filter(|b| self.place(&b.head) == place))
    }

    /// Returns the place of a batch.
    pub fn place(&self, head: &BatchHead) -> Place {
        Place(
            head.lap
                .saturating_mul(self.area.length.0)
                .saturating_add(head.offset.0),
        )
    }

    /// Returns where the part begins that is still needed.
    pub fn tail(&self, superblock: &Superblock) -> Place {
        let tail = superblock.tail();
        Place(
            tail.lap
                .saturating_mul(self.area.length.0)
                .saturating_add(tail.offset.0),
        )
    }

    /// Scans from the tail as recovery does. `each` sees every accepted batch, with the last record
    /// of it that the lineage owns.
    pub fn scan(
        &mut self,
        superblock: &Superblock,
        mut each: impl FnMut(Place, Batch, Seq) -> Result,
    ) -> Result<Outcome> {
        let tail = superblock.tail();
        let start = self.tail(superblock);
        let ring = Ring::new(self.area.length, self.block, start, start);
        let epochs = Owners(superblock.lineage());
        let mut scan = Scan::new(ring, tail.seq, tail.chain, superblock.commit().seq);
        loop {
            match scan.want(&epochs) {
                // It only looks: what the device holds is enough for that.
                Want::Flush => scan.flushed(),
                Want::Done(outcome) => return Ok(outcome),
                Want::Batch(expected) => match self.expected(&ring, &expected)? {
                    Some(batch) => {
                        let last = batch.head.last_seq().min(epochs.epoch_of(expected.first).1);
                        scan.accept(batch.found(), &epochs, |seq| batch.chain_after(seq));
                        each(expected.place, batch, last)?;
                    }
                    None => scan.reject(),
                },
                Want::Evidence(expected) => match self.batch_at(expected.place)? {
                    Some(b) if expected.proves(&ring, &b.head, &b.epoch) => {
                        scan.evidence(b.found(), &epochs);
                    }
                    _ => scan.reject(),
                },
            }
        }
    }

    fn expected(&mut self, ring: &Ring, expected: &Expected) -> Result<Option<Batch>> {
        let batch = self.batch_at(expected.place)?;
        Ok(batch.filter(|b| expected.matches(ring, &b.head, &b.epoch) && b.whole()))
    }
}

/// The lineage, as the scan asks it.
struct Owners<'a>(Lineage<'a>);

impl Epochs for Owners<'_> {
    fn epoch_of(&self, seq: Seq) -> (EpochId, Seq) {
        match self.0.at(seq) {
            Some(epoch) => (
                epoch.id,
                self.0.last_seq_of(&epoch.id).unwrap_or(Seq(u64::MAX)),
            ),
            None => (self.0.before().epoch, self.0.before().last),
        }
    }
}
