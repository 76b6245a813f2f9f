// SPDX-License-Identifier: GPL-2.0

//! Region copies at the replica: items of the stream, ordered by overlap like records.
//!
//! A copy stands after record `after`: it is written once all overlapping records up to there are on the
//! volume, and no later overlapping record is applied before it. Items are numbered from 1 in each session,
//! written one at a time, in order. They are reported to the primary once they are flushed, which moves its
//! cursor; the sync ends when all of them are, and the records up to the stated end are applied and flushed.
//!
//! Nothing is taken unless the superblock says durably that the replica is inconsistent.

use super::{
    inbound::{Inbound, Refused},
    Memory, Node, Role,
};
use crate::{
    session::resync::MAX_OUTSTANDING,
    units::{Range, Record, Sector, Seq, VolumeId},
};

/// A region copy as an item of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Copy {
    /// Number of the item, from 1 in each session.
    pub item: u64,
    /// The record it follows.
    pub after: Seq,
    /// What it covers.
    pub range: Range,
}

/// Copies under way to this host. Counts are of this run; `base` is where the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Copies {
    waiting: [Option<Copy>; MAX_OUTSTANDING],
    writing: Option<Copy>,
    base: u64,
    written: u64,
    flushed: u64,
    end: Option<(Seq, u64)>,
    syncing: bool,
    /// A copy of this session is lost.
    lost: bool,
    /// Volume and sector that the copies written in this run have reached; nothing once one of them may be lost.
    reached: Option<(VolumeId, Sector)>,
}

impl Copies {
    /// Whether `record` must wait for a copy that precedes it.
    pub fn block(&self, record: &Record) -> bool {
        self.waiting
            .iter()
            .flatten()
            .chain(&self.writing)
            .any(|c| c.after < record.seq && c.range.overlaps(&record.range))
    }

    /// Whether nothing waits and nothing is being written.
    pub fn is_empty(&self) -> bool {
        self.writing.is_none() && self.waiting.iter().all(Option::is_none)
    }

    /// Whether the replica is inconsistent until a sync ends.
    pub fn is_syncing(&self) -> bool {
        self.syncing
    }

    /// The superblock says that a sync is unfinished: it goes on in the next session.
    pub fn set_syncing(&mut self) {
        self.syncing = true;
    }

    /// The last item of this session that is durable: what the copy ack says.
    pub fn durable_item(&self) -> u64 {
        self.flushed.saturating_sub(self.base)
    }

    fn last_written(&self) -> u64 {
        self.written.saturating_sub(self.base)
    }

    /// Written copies of this run, for a checkpoint to cover.
    pub(super) fn unflushed(&self) -> u64 {
        self.written
    }

    /// Whether a flush would cover copies that are not durable yet.
    pub(super) fn want_flush(&self) -> bool {
        self.written > self.flushed && !self.lost
    }

    pub(super) fn flushed(&mut self, upto: u64) {
        if !self.lost {
            self.flushed = self.flushed.max(upto);
        }
    }

    /// Copies that are not durable yet may be gone. None of this session counts any more; the next one sends them
    /// again.
    pub(super) fn device_failed(&mut self) {
        if self.want_flush() {
            self.lost = true;
            self.reached = None;
        }
    }

    /// What the written copies have reached: as durable as a flush that begins now makes them.
    pub(super) fn reached(&self) -> Option<(VolumeId, Sector)> {
        self.reached
    }

    /// Whether the sync is over once everything up to `applied` is flushed.
    pub(super) fn ends_at(&self, applied: Seq) -> bool {
        self.syncing
            && self
                .end
                .is_some_and(|(end, items)| applied >= end && self.durable_item() >= items)
    }

    pub(super) fn ended(&mut self) {
        self.syncing = false;
        self.end = None;
        self.reached = None;
    }

    /// Items are numbered anew. One that is being written still blocks its region, but counts no more.
    pub(super) fn session_began(&mut self) {
        self.waiting = [None; MAX_OUTSTANDING];
        if let Some(c) = &mut self.writing {
            c.item = 0;
        }
        self.base = self.written;
        self.end = None;
        self.lost = false;
    }

    pub(super) fn restart(&mut self, syncing: bool) {
        self.session_began();
        self.syncing = syncing;
        self.reached = None;
    }
}

impl<M: Memory> Node<M> {
    /// A region copy arrived from `from`. `false`: no room, out of turn, or no sync: the session must end.
    pub fn copy_arrived(&mut self, from: &Inbound, copy: Copy) -> Result<bool, Refused> {
        self.may_receive(from)?;
        Ok(self.take_copy(copy))
    }

    fn take_copy(&mut self, copy: Copy) -> bool {
        let c = &self.copies;
        if c.syncing && (copy.item <= c.last_written() || self.is_held(copy.item)) {
            return true;
        }
        // A later overlapping record that is already on its way to the volume must not be overwritten.
        let submitted = self.applier.submitted();
        let overtaken = copy.after < self.window.base()
            || self
                .window
                .newest_overlap(&copy.range, copy.after, submitted)
                .is_some();
        if !c.syncing || overtaken {
            return false;
        }
        match self.copies.waiting.iter_mut().find(|c| c.is_none()) {
            Some(place) => {
                *place = Some(copy);
                true
            }
            None => false,
        }
    }

    /// Whether a data volume lacks a record up to `upto` that overlaps `range`: it is not written yet, or the device
    /// failed, or the volume is not there. Then the region is neither read for a copy nor written by one.
    pub fn volume_lacks(&self, range: &Range, upto: Seq) -> bool {
        let Some(volume) = self.volumes.get(range.volume) else {
            return true;
        };
        let applied = self.applier.applied();
        let has = volume.floor().map_or(applied, |f| f.min(applied));
        // What a volume lacks need not be in memory any more.
        has < self.window.base() || self.window.newest_overlap(range, has, upto).is_some()
    }

    fn is_held(&self, item: u64) -> bool {
        let c = &self.copies;
        c.waiting
            .iter()
            .chain([&c.writing])
            .flatten()
            .any(|c| c.item == item)
    }

    /// The copy to write now, if its turn has come: all records up to `after` are here, those that overlap it
    /// are written, and its volume is one that the next checkpoint flushes. Report with [`Self::copy_written`].
    pub fn next_copy(&mut self) -> Option<Copy> {
        if self.role != Role::Secondary
            || self.applier.round().is_some()
            || self.copies.writing.is_some()
            || self.copies.lost
            || self.stands_still()
            || self.is_in_doubt()
        {
            return None;
        }
        let next = self.copies.last_written().saturating_add(1);
        let i = self.copies.waiting.iter().position(|c| {
            c.is_some_and(|c| {
                c.item == next
                    && self.window.head() >= c.after
                    && self.flushes(c.range.volume)
                    && !self.volume_lacks(&c.range, c.after)
            })
        })?;
        self.copies.writing = self.copies.waiting.get_mut(i)?.take();
        self.copies.writing
    }

    /// The copy from [`Self::next_copy`] was written to its data volume.
    pub fn copy_written(&mut self) {
        if let Some(c) = self.copies.writing.take().filter(|c| c.item != 0) {
            self.copies.written = self.copies.written.saturating_add(1);
            if !self.copies.lost {
                self.copies.reached = Some((c.range.volume, c.range.end()));
            }
        }
    }

    /// The copy from [`Self::next_copy`] was not written: it does not count, and the sync cannot end in this session.
    pub fn copy_abandoned(&mut self) {
        self.copies.writing = None;
    }

    /// `from` told where the sync ends, and how many copies the session had.
    pub fn sync_end_told(&mut self, from: &Inbound, end: Seq, items: u64) -> Result<(), Refused> {
        self.may_receive(from)?;
        self.copies.end = Some((end, items));
        Ok(())
    }
}
