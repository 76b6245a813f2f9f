// SPDX-License-Identifier: GPL-2.0

//! Reading the ring: what must lie at a place, and whether the bytes there are that.
//!
//! One reader for everything that reads a log: the recovery scan, replay, a sender that reads back, `dmrepl` and the
//! explorer. [`Walk`] knows which batch must come next ([`Expected`]): its place, first seq, epoch and chain value. It looks
//! at the place where the last batch ended, then at the start of the next lap, because a batch that did not fit before
//! the end of the ring went there. [`Expected::verify`] decides over the bytes.
//!
//! *A valid batch is not enough.* A batch that a new lineage disowned stays on the device, whole, until its place is
//! written again. Trace: records 99 and 100 lie at p, 101 at q behind them. The new lineage has none above 100; its
//! own 101 is larger, does not fit before the end of the ring, and goes to the start of the next lap. At q the lap is right
//! and so is the first seq; only the epoch and the chain tell that this 101 never was. Whoever accepts it by
//! the first seq applies, or sends to a peer, a record of a history that was given up.
//!
//! *What is known goes stale.* A truncation disowns batches that were verified before. It raises
//! [`Writer::generation`](super::writer::Writer::generation); who keeps a walk, or bytes, across the order lock compares
//! that number under the lock and begins again where it has changed.
//!
//! No I/O, no allocation; any context.

use crate::{
    log::{
        batch::{self, BadBatch, BatchHead, Head},
        recovery::Epochs,
        ring::{Mark, Place, Ring},
    },
    units::{Bytes, Chain, EpochId, GroupUuid, Seq},
};

/// What a batch must be to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// Where it lies.
    pub place: Place,
    /// Its first seq.
    pub first: Seq,
    /// The epoch of that seq.
    pub epoch: EpochId,
    /// Chain value before it.
    pub chain: Chain,
}

/// What the bytes at a place are.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// The batch that must be here, payloads verified.
    Batch(Head<'a>),
    /// To tell, so many bytes from the place on are needed; fewer were given.
    More(u32),
    /// Anything else.
    NotThere,
}

impl Expected {
    /// Whether a batch that parsed well at this place is the one that must be here. Its payloads are still
    /// to be verified.
    pub fn matches(&self, ring: &Ring, head: &BatchHead, epoch: &EpochId) -> bool {
        self.lies_here(ring, head)
            && self.is_of(epoch)
            && head.first_seq == self.first
            && head.chain == self.chain
    }

    /// Whether a batch that parsed well at this place is evidence of what was durable.
    pub fn proves(&self, ring: &Ring, head: &BatchHead, epoch: &EpochId) -> bool {
        self.lies_here(ring, head) && self.is_of(epoch) && head.first_seq > self.first
    }

    fn is_of(&self, epoch: &EpochId) -> bool {
        *epoch == self.epoch
    }

    fn lies_here(&self, ring: &Ring, head: &BatchHead) -> bool {
        head.offset == ring.offset(self.place) && head.lap == ring.lap(self.place)
    }

    fn parse<'a>(
        &self,
        bytes: &'a [u8],
        ring: &Ring,
        group: &GroupUuid,
    ) -> Result<Head<'a>, Verdict<'a>> {
        let offset = ring.offset(self.place);
        let at = batch::Place {
            group: *group,
            offset,
            block: ring.block(),
            ring: ring.size(),
        };
        Head::parse(bytes, &at).map_err(|e| match e {
            BadBatch::Short { need } if u64::from(need) <= ring.size().minus(offset).0 => {
                Verdict::More(need)
            }
            _ => Verdict::NotThere,
        })
    }

    /// Decides over `bytes`, which were read from this place on. `crc`: CRC32C of a payload.
    pub fn verify<'a>(
        &self,
        bytes: &'a [u8],
        ring: &Ring,
        group: &GroupUuid,
        crc: impl Fn(&[u8]) -> u32,
    ) -> Verdict<'a> {
        let head = match self.parse(bytes, ring, group) {
            Ok(head) => head,
            Err(verdict) => return verdict,
        };
        let batch = head.batch();
        if !self.matches(ring, &batch, &head.epoch()) {
            return Verdict::NotThere;
        }
        if (bytes.len() as u64) < batch.length.0 {
            return Verdict::More(u32::try_from(batch.length.0).unwrap_or(u32::MAX));
        }
        let whole = head.records().all(|(r, at)| {
            let from = at as usize;
            let to = from.saturating_add(r.payload_bytes() as usize);
            match bytes.get(from..to) {
                Some([]) => true,
                Some(payload) => crc(payload) == r.payload_crc,
                None => false,
            }
        });
        if whole {
            Verdict::Batch(head)
        } else {
            Verdict::NotThere
        }
    }

    /// Looks for evidence in `bytes`, which were read from this place on: a later batch, its payloads unverified.
    pub fn evidence<'a>(&self, bytes: &'a [u8], ring: &Ring, group: &GroupUuid) -> Verdict<'a> {
        match self.parse(bytes, ring, group) {
            Ok(head) if self.proves(ring, &head.batch(), &head.epoch()) => Verdict::Batch(head),
            Ok(_) => Verdict::NotThere,
            Err(verdict) => verdict,
        }
    }
}

/// A batch that was found and verified in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// First record.
    pub first: Seq,
    /// Last record.
    pub last: Seq,
    /// Length with padding.
    pub length: Bytes,
    /// The commit point when it was written.
    pub durable: Seq,
}

impl From<&BatchHead> for Found {
    fn from(head: &BatchHead) -> Self {
        Found {
            first: head.first_seq,
            last: head.last_seq(),
            length: head.length,
            durable: head.durable,
        }
    }
}

/// A way through the ring from batch to batch. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Walk {
    next: Mark,
    wrapped: bool,
}

impl Walk {
    /// A walk that begins at a known batch.
    pub const fn at(mark: Mark) -> Self {
        Walk {
            next: mark,
            wrapped: false,
        }
    }

    /// First record of the batch that comes next.
    pub const fn first(&self) -> Seq {
        self.next.first
    }

    /// Chain value before it.
    pub const fn chain(&self) -> Chain {
        self.next.chain
    }

    /// Where the last batch ended: the next one lies there or at the start of the next lap.
    pub const fn place(&self) -> Place {
        self.next.place
    }

    /// What to look for now.
    pub fn expected(&self, ring: &Ring, epochs: &impl Epochs) -> Expected {
        let (epoch, _) = epochs.epoch_of(self.next.first);
        Expected {
            place: self.looking_at(ring),
            first: self.next.first,
            epoch,
            chain: self.next.chain,
        }
    }

    fn looking_at(&self, ring: &Ring) -> Place {
        if self.wrapped {
            ring.next_lap(self.next.place)
        } else {
            self.next.place
        }
    }

    /// The batch was there. Returns the last record of it that counts: a later lineage may have cut the batch
    /// in the middle, and what lies beyond is disowned. `chain_at(seq)`: chain value after that record of it.
    pub fn found(
        &mut self,
        found: &Found,
        ring: &Ring,
        epochs: &impl Epochs,
        chain_at: impl Fn(Seq) -> Chain,
    ) -> Seq {
        let (_, bound) = epochs.epoch_of(self.next.first);
        let last = found.last.min(bound);
        self.next = Mark {
            first: last.next(),
            place: Place(self.looking_at(ring).0.saturating_add(found.length.0)),
            chain: chain_at(last),
        };
        self.wrapped = false;
        last
    }

    /// It was not there. Returns whether there is another place to look at.
    #[must_use]
    pub fn absent(&mut self, ring: &Ring) -> bool {
        let again = !self.wrapped && ring.offset(self.next.place).0 != 0;
        self.wrapped = again;
        again
    }
}
