// SPDX-License-Identifier: GPL-2.0

//! The log writer: group commit, the written prefix and the commit point.
//!
//! Up to four batches are in flight and end in any order. *Written* is the gap-free prefix of ended
//! batches. The *commit point* is the written prefix as it was sampled before a flush that then
//! completed: a batch that ends while the flush runs is not covered by it, because the device may
//! have taken it after it had emptied its cache. On a device without a volatile cache the two are one.
//!
//! A FUA batch raises the commit point by itself only when everything below it is durable already.
//!
//! The first failed write or flush closes the log for good: neither position ever moves again.
//!
//! Called under the group's order lock; never sleeps.

use crate::{
    log::{
        batch::{batch_bytes, worst_case_bytes},
        format::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS},
        recovery::Epochs,
        ring::{Index, Mark, Place, Ring},
    },
    node::{
        window::{Slot, Window},
        Store,
    },
    units::{Bytes, Chain, Record, Seq},
};

/// Log writes in flight at once.
pub const MAX_IN_FLIGHT: usize = 4;

/// A waiting batch of this size starts although others are in flight.
const EAGER_BYTES: u64 = 64 << 10;

/// One log write to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Which of the in-flight places it takes; named again in [`Writer::written`].
    pub id: usize,
    /// First record.
    pub first: Seq,
    /// Last record.
    pub last: Seq,
    /// Where it goes.
    pub place: Place,
    /// Its length.
    pub length: Bytes,
    /// Chain value before its first record.
    pub chain: Chain,
    /// Commit point to state in it.
    pub durable: Seq,
    /// Write with FUA: completion makes it durable.
    pub fua: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    first: Seq,
    last: Seq,
    fua: bool,
    done: bool,
}

/// The log writer. See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer<I> {
    /// Space.
    pub ring: Ring,
    /// Where batches lie.
    pub index: Index<I>,
    next: Seq,
    in_flight: [Option<InFlight>; MAX_IN_FLIGHT],
    written: Seq,
    commit: Seq,
    demand: Seq,
    flushing: Option<Seq>,
    volatile: bool,
    failed: bool,
    ended: bool,
    generation: u32,
    /// The tail that the superblock states, if this life stated one.
    tail: Option<Mark>,
}

impl<I: Store<Mark>> Writer<I> {
    /// A writer that continues after `head`, all of which is durable. `volatile`: the device has a write cache.
    pub fn new(ring: Ring, index: Index<I>, head: Seq, volatile: bool) -> Self {
        Writer {
            ring,
            index,
            next: head.next(),
            in_flight: [None; MAX_IN_FLIGHT],
            written: head,
            commit: head,
            demand: Seq::NONE,
            flushing: None,
            volatile,
            failed: false,
            ended: false,
            generation: 0,
            tail: None,
        }
    }

    /// Changes whenever batches that were in the log are disowned: what was read before is not to be believed.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Gap-free written prefix.
    pub fn written_prefix(&self) -> Seq {
        self.written
    }

    /// What a power cut cannot take any more.
    pub fn commit_point(&self) -> Seq {
        self.commit
    }

    /// Last record that was put into a batch.
    pub fn logged_head(&self) -> Seq {
        self.next.prev()
    }

    /// The log has failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// No batch and no flush is in flight.
    pub fn is_idle(&self) -> bool {
        self.flushing.is_none() && self.in_flight.iter().all(Option::is_none)
    }

    /// Ring space that `record` reserves at admission.
    pub fn cost(&self, record: &Record) -> Bytes {
        Bytes(u64::from(worst_case_bytes(
            record.payload_bytes(),
            self.ring.block(),
        )))
    }

    /// The next log write, if one should start now.
    ///
    /// A batch never spans two epochs: its descriptor names one, and the scan cuts it where that one ends. A
    /// secondary that catches up over a primary's crash has records of both in memory.
    pub fn plan<S: Store<Slot>, H: Store<Seq>>(
        &mut self,
        window: &Window<S, H>,
        lineage: &impl Epochs,
    ) -> Option<Plan> {
        if self.failed || self.next > window.head() {
            return None;
        }
        let id = self.in_flight.iter().position(Option::is_none)?;
        let busy = self.in_flight.iter().flatten().count();
        let block = self.ring.block();
        let (first, mut last) = (self.next, self.next.prev());
        let (mut count, mut payload, mut reserved, mut fua) = (0u32, 0u32, 0u64, false);
        let (_, bound) = lineage.epoch_of(first);
        while let Some(slot) = window.get(last.next()) {
            let r = &slot.record;
            let sum = payload.saturating_add(r.payload_bytes());
            let n = count.saturating_add(1);
            if n > MAX_BATCH_RECORDS
                || batch_bytes(n, sum, block) > MAX_BATCH_BYTES
                || r.seq > bound
            {
                break;
            }
            (count, payload, last) = (n, sum, last.next());
            reserved = reserved.saturating_add(self.cost(r).0);
            fua |= r.fua;
        }
        if count == 0 || (busy > 0 && u64::from(payload) < EAGER_BYTES && !self.ended) {
            return None;
        }
        let chain = window.chain_at(first.prev())?;
        let length = Bytes(u64::from(batch_bytes(count, payload, block)));
        let place = self.ring.place(length, Bytes(reserved));
        self.index.push(Mark {
            first,
            place,
            chain,
        });
        // Alone and on durable ground: one write makes it durable, no flush needed.
        let fua = fua && busy == 0 && self.stands_on_durable(first);
        if let Some(f) = self.in_flight.get_mut(id) {
            *f = Some(InFlight {
                first,
                last,
                fua,
                done: false,
            });
        }
        self.next = last.next();
        self.ended = false;
        Some(Plan {
            id,
            first,
            last,
            place,
            length,
            chain,
            durable: self.commit,
            fua,
        })
    }

    /// Nothing below `first` can be lost any more.
    fn stands_on_durable(&self, first: Seq) -> bool {
        self.commit == first.prev()
    }

    /// The log write `id` ended.
    pub fn written(&mut self, id: usize, ok: bool) {
        self.ended = true;
        let Some(Some(f)) = self.in_flight.get_mut(id) else {
            return;
        };
        if !ok {
            self.failed = true;
        }
        f.done = true;
        if self.failed {
            // A failed log never moves again, but its writes still end.
            if let Some(f) = self.in_flight.get_mut(id) {
                *f = None;
            }
            return;
        }
        loop {
            let next = self.written.next();
            let Some(f) = self
                .in_flight
                .iter_mut()
                .find(|f| f.is_some_and(|f| f.done && f.first == next))
            else {
                break;
            };
            if let Some(f) = f.take() {
                if f.fua && self.stands_on_durable(f.first) {
                    self.commit = f.last;
                }
                self.written = f.last;
            }
        }
        if !self.volatile {
            self.commit = self.written;
        }
    }

    /// Whether nothing after `keep` was put into a batch yet: then the log need not keep any batch.
    fn is_empty_after(&self, keep: Seq) -> bool {
        keep >= self.logged_head()
    }

    /// Returns the tail to be stated where nothing up to `keep` is needed any more: the batch of the next record, or of one
    /// shortly before it. `chain`: chain value after `keep`.
    ///
    /// The tail of an empty log is where the next batch goes, and not the last batch: else a group that is idle would keep its
    /// tail in an epoch that its later starts fold (see [`grow`](crate::node::durable::grow)). It never goes back to an older
    /// batch because the index forgot the one that was stated.
    pub fn tail_after(&self, keep: Seq, chain: Chain) -> Option<Mark> {
        if self.is_empty_after(keep) {
            return Some(Mark {
                first: keep.next(),
                place: self.ring.head(),
                chain,
            });
        }
        let stated = self.tail.filter(|m| m.first <= keep.next());
        let found = self.index.find(keep.next());
        match (stated, found) {
            (Some(s), Some(f)) if s.first > f.first => Some(s),
            (s, f) => f.or(s),
        }
    }

    /// The superblock states `tail`: the batches that lie before the one of `free` are given back.
    ///
    /// A batch that still stands in the index stays: a reader of the log may be at it.
    pub fn tail_stated(&mut self, tail: Mark, free: Seq) {
        self.tail = Some(tail);
        if let Some(mark) = self.index.advance_to(free) {
            self.ring.free_to(mark.place);
        }
    }

    /// Whether [`Self::tail_after`] would free space, or state an empty log for the first time.
    pub fn tail_moves(&self, keep: Seq) -> bool {
        let frees = self.index.find(keep.next());
        frees.is_some_and(|m| m.place > self.ring.tail())
            || self.is_empty_after(keep) && self.tail.map(|m| m.first) != Some(keep.next())
    }

    /// Somebody waits for `seq` to become durable.
    pub fn demand(&mut self, seq: Seq) {
        self.demand = self.demand.max(seq);
    }

    /// Starts a flush if someone waits for one and it would raise the commit point.
    ///
    /// The target is sampled here, before the caller submits the flush.
    #[must_use]
    pub fn plan_flush(&mut self) -> bool {
        let wanted = self.demand > self.commit && self.written > self.commit;
        if self.failed || self.flushing.is_some() || !wanted {
            return false;
        }
        self.flushing = Some(self.written);
        true
    }

    /// The flush ended.
    pub fn flushed(&mut self, ok: bool) {
        if let Some(target) = self.flushing.take() {
            if !ok {
                self.failed = true;
            } else if !self.failed {
                self.commit = self.commit.max(target);
            }
        }
    }

    /// Forgets everything: the next record will be `seq + 1`. Nothing may be in flight.
    pub fn restart_at(&mut self, seq: Seq) {
        self.generation = self.generation.wrapping_add(1);
        self.ring.restart();
        self.index.clear();
        self.next = seq.next();
        self.written = seq;
        self.commit = seq;
        self.demand = Seq::NONE;
        self.tail = None;
    }

    /// Forgets everything above `fork`, which a new lineage disowns. Nothing may be in flight.
    ///
    /// `place`: where a scan under the new lineage says that the log ends. `unlogged`: reservations of
    /// the records above `fork` that were never placed.
    pub fn truncate(&mut self, fork: Seq, place: Option<Place>, unlogged: Bytes) {
        self.generation = self.generation.wrapping_add(1);
        self.ring.unreserve(unlogged);
        if self.logged_head() > fork {
            if let Some(place) = place {
                self.ring.rewind(place);
            }
            self.index.truncate(fork);
        }
        self.next = self.next.min(fork.next());
        self.written = self.written.min(fork);
        self.commit = self.commit.min(fork);
        self.demand = self.demand.min(fork);
        self.flushing = self.flushing.map(|target| target.min(fork));
        self.tail = self.tail.filter(|m| m.first <= fork.next());
    }
}
