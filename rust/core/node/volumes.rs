// SPDX-License-Identifier: GPL-2.0

//! The volumes of a group on this host: the state of each, and the *floor* of each that may lack records.
//!
//! ```text
//!                    attach              lacks nothing, group recovered
//!   absent ------------------> waiting ------------------------------------> active (replica on a secondary)
//!     ^                        |  ^  ^                                          |   |
//!     | detach      has a floor|  |  | flushed: floor lifted                    |   | another volume's device failed
//!     |                        v  |  |                                          |   v
//!   suspended <--- suspend -- replaying <---------------------------------------|- waiting
//!     |    attach -> waiting                                                    |
//!   failed <---- write or flush failed (from any state) -----------------------+
//! ```
//!
//! `applied` of the [applier](super::applied) says how far the *rounds* are. A volume that was not there for one of
//! its records (absent, suspended, failed), or whose device may have dropped what its cache held, has a floor: all its
//! records up to there are durable on its device, those above may be missing. The rounds do not write to a volume with
//! a floor; they only move its replay's end. It is brought up alone, from the log: its own records in `(floor, end]`, in
//! order, then a flush of its device, and only then the floor is lifted, whatever the other volumes do.
//!
//! A checkpoint states [`Node::clean`]: the lowest of `applied` and all floors. So the log keeps every record that a
//! volume lacks for as long as it lacks it. Trace with one floor for all volumes: X and Y are suspended, records 5 (X)
//! and 6 (Y) go past them, the checkpoint stays at 4; X comes back, replays 5 and releases the checkpoint; Y comes back,
//! nothing seems to be missing, record 6 is lost although it was acknowledged.
//!
//! Rewriting a record that is there already does no harm: the volume takes no reads until its replay has reached the end,
//! and a crash in the middle begins again at the floor, which the superblock's tail has not passed.
//!
//! Without a ring nothing can be replayed: a volume with a floor is failed until the group is added again.
//!
//! Called under the group's order lock; never sleeps.

use super::{applied::Point, Log, Memory, Node, Role, Store};
use crate::units::{Op, Record, Seq, VolumeId};

/// What a volume does with I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// In the group's table; no device is attached.
    #[default]
    Absent,
    /// Attached; its I/O is deferred until it lacks nothing and the group has recovered.
    Waiting,
    /// Its records of the log are being written to its device; its I/O is deferred.
    Replaying,
    /// Reads and writes are served.
    Active,
    /// Written by the applier; reads are served, writes are refused.
    Replica,
    /// Suspended by device-mapper, or on its way out.
    Suspended,
    /// Its device failed a write or a flush: I/O fails until it is attached again.
    Failed,
}

impl State {
    /// Its name, as status prints it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Absent => "absent",
            State::Waiting => "parked",
            State::Replaying => "replaying",
            State::Active => "active",
            State::Replica => "replica",
            State::Suspended => "suspended",
            State::Failed => "failed",
        }
    }
}

/// One volume of the group's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Volume {
    id: Option<VolumeId>,
    state: State,
    /// It may lack records after this.
    floor: Option<Point>,
    /// While it replays: everything up to here was written to it again.
    replayed: Seq,
    /// While it has a floor: it lacks nothing above this that a later round does not bring.
    end: Seq,
}

impl Volume {
    /// What it does with I/O.
    pub fn state(&self) -> State {
        self.state
    }

    /// Where it may lack something: after this seq.
    pub fn floor(&self) -> Option<Seq> {
        self.floor.map(|f| f.seq)
    }

    /// Whether rounds write to it.
    fn takes(&self) -> bool {
        let there = match self.state {
            State::Waiting | State::Active | State::Replica => true,
            State::Absent | State::Replaying | State::Suspended | State::Failed => false,
        };
        there && self.floor.is_none()
    }

    /// It may lack records in `(to, end]`.
    fn lower(&mut self, to: Point, end: Seq) {
        if self.floor.is_none_or(|f| to.seq < f.seq) {
            self.floor = Some(to);
        }
        self.end = self.end.max(end);
    }
}

/// Every volume of the group's table. See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Volumes<V> {
    slots: V,
}

impl<V: Store<Volume>> Volumes<V> {
    /// No volume yet; as many as `slots` holds can be entered.
    pub fn new(mut slots: V) -> Self {
        slots.as_mut().fill(Volume::default());
        Volumes { slots }
    }

    /// Every volume, with its id.
    pub fn iter(&self) -> impl Iterator<Item = (VolumeId, &Volume)> {
        self.slots
            .as_ref()
            .iter()
            .filter_map(|v| v.id.map(|id| (id, v)))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Volume> {
        self.slots.as_mut().iter_mut().filter(|v| v.id.is_some())
    }

    /// The volume, if it is in the table.
    pub fn get(&self, id: VolumeId) -> Option<&Volume> {
        self.slots.as_ref().iter().find(|v| v.id == Some(id))
    }

    fn get_mut(&mut self, id: VolumeId) -> Option<&mut Volume> {
        self.slots.as_mut().iter_mut().find(|v| v.id == Some(id))
    }

    /// Returns the state of the volume; one that is not in the table is absent.
    pub fn state(&self, id: VolumeId) -> State {
        self.get(id).map_or(State::Absent, |v| v.state)
    }

    /// Enters a volume into the table, absent. Returns `false` where there is no room for it.
    pub fn enter(&mut self, id: VolumeId) -> bool {
        if self.get(id).is_some() {
            return true;
        }
        let Some(free) = self.slots.as_mut().iter_mut().find(|v| v.id.is_none()) else {
            return false;
        };
        *free = Volume {
            id: Some(id),
            ..Volume::default()
        };
        true
    }

    /// Whether every volume of the table is attached, and there is one.
    pub fn all_present(&self) -> bool {
        self.iter().next().is_some() && self.iter().all(|(_, v)| v.state != State::Absent)
    }

    /// Returns the lowest floor.
    pub(super) fn lowest(&self) -> Option<Point> {
        let floors = self.iter().filter_map(|(_, v)| v.floor);
        floors.min_by_key(|f| f.seq)
    }

    /// Whether a round may hold this record: without knowing its volume nobody could say what that lacks.
    pub(super) fn knows(&self, record: &Record) -> bool {
        record.op == Op::Marker || self.get(record.range.volume).is_some()
    }

    /// A round that begins after `before` and ends with `end` holds the record: its volume lacks it where it takes none.
    pub(super) fn goes_past(&mut self, record: &Record, before: Point, end: Seq) {
        let volume = self.get_mut(record.range.volume);
        if let Some(v) = volume.filter(|v| record.op != Op::Marker && !v.takes()) {
            v.lower(before, end);
        }
    }

    /// The content of all volumes was declared or is being copied: they lack nothing that the log has.
    pub(super) fn restart(&mut self) {
        for v in self.iter_mut() {
            v.floor = None;
            v.end = Seq::NONE;
            if v.state == State::Replaying {
                v.state = State::Waiting;
            }
        }
    }

    /// The host is the primary from now on: replicas serve again once the log is applied.
    pub(super) fn took_over(&mut self) {
        for v in self.iter_mut() {
            if v.state == State::Replica {
                v.state = State::Waiting;
            }
        }
    }
}

/// Log to be written again to volumes that come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replay {
    /// First record.
    pub from: Seq,
    /// Last record.
    pub upto: Seq,
}

impl<M: Memory> Node<M> {
    /// Returns what a checkpoint may state: all volumes have everything up to here, apart from a flush.
    pub fn clean(&self) -> Seq {
        self.clean_point().seq
    }

    pub(super) fn clean_point(&self) -> Point {
        let applied = self.applier.point();
        match self.volumes.lowest() {
            Some(floor) if floor.seq < applied.seq => floor,
            Some(_) | None => applied,
        }
    }

    /// A device is attached to the volume, for the first time or again. Returns `false` where the group has no room.
    pub fn volume_attached(&mut self, id: VolumeId) -> bool {
        if !self.volumes.enter(id) {
            return false;
        }
        let ring = matches!(self.log, Log::Ring(_));
        if let Some(v) = self.volumes.get_mut(id) {
            v.state = v.healing(ring);
        }
        true
    }

    /// Returns a volume that lacks records which this host cannot bring back: without a ring only a new life of the group
    /// heals it, in which its primary sends them again. Until then nothing more is applied, and no takeover can end.
    pub fn beyond_repair(&self) -> Option<VolumeId> {
        if matches!(self.log, Log::Ring(_)) {
            return None;
        }
        let mut all = self.volumes.iter();
        all.find(|(_, v)| v.floor.is_some()).map(|(id, _)| id)
    }

    /// The volume is suspended, its device flushed: it may come back with another device. The applier stands still.
    pub fn volume_suspended(&mut self, id: VolumeId) {
        if let Some(v) = self.volumes.get_mut(id) {
            if v.state != State::Failed {
                v.state = State::Suspended;
            }
        }
    }

    /// The volume's device is gone. The applier stands still.
    pub fn volume_detached(&mut self, id: VolumeId) {
        let (good, applied) = (self.applier.flushed_point(), self.applier.applied());
        if let Some(v) = self.volumes.get_mut(id) {
            if v.state != State::Suspended && applied > good.seq {
                // Nobody flushed it.
                v.lower(good, applied);
            }
            v.state = State::Absent;
        }
    }

    /// A write or a flush of the volume's device failed. What any device held in a cache since the last good flush of
    /// all may be gone, for volumes may share a disk; a later flush that succeeds does not bring it back.
    ///
    /// Trace without: W1 is in the device's cache, the flush fails and the cache is lost; the next flush has
    /// nothing to do and succeeds; the tail moves past W1, which is nowhere. Or X and Y lie on one disk: X's flush fails
    /// and the cache is lost; X is replayed; Y's flush succeeds; the tail moves past what Y lost.
    ///
    /// With a ring the other volumes replay what they may have lost, their I/O deferred meanwhile.
    pub fn volume_failed(&mut self, id: VolumeId) {
        let (good, end) = (self.applier.flushed_point(), self.applier.submitted());
        let suspect = end > good.seq;
        let ring = matches!(self.log, Log::Ring(_));
        for v in self.volumes.iter_mut() {
            let failed = v.id == Some(id);
            if suspect && (failed || ring) {
                v.lower(good, end);
            }
            if failed {
                v.state = State::Failed;
            } else if ring && v.floor.is_some() && v.is_attached_and_runs() {
                // What its replay wrote so far may be gone, too.
                v.state = State::Waiting;
            }
        }
        self.copies.device_failed();
        self.failures = self.failures.wrapping_add(1);
    }

    /// A record of the round under way could not be written for a reason of this host's own: its volume replays it.
    pub fn record_missed(&mut self, id: VolumeId) {
        let Some((_, last)) = self.applier.round() else {
            return;
        };
        // Not what was applied: its device took that, but was not flushed since, and a checkpoint does not flush the
        // device of a volume with a floor.
        let good = self.applier.flushed_point();
        let ring = matches!(self.log, Log::Ring(_));
        if let Some(v) = self.volumes.get_mut(id) {
            v.lower(good, last);
            if v.is_attached_and_runs() {
                v.state = v.healing(ring);
            }
        }
    }

    /// Whether the round under way writes this record to its volume; one that does not take it replays it later.
    pub fn writes(&self, record: &Record) -> bool {
        self.volumes
            .get(record.range.volume)
            .is_some_and(Volume::takes)
    }

    /// Whether a checkpoint flushes the volume's device: the others are flushed before their floor is lifted, or were
    /// when they were suspended.
    pub fn flushes(&self, id: VolumeId) -> bool {
        self.volumes.get(id).is_some_and(Volume::takes)
    }

    /// Records of the round that was planned go past volumes that do not take them. The whole round: a record of it may
    /// be superseded by one that is missing.
    pub(super) fn note_missing(&mut self, first: Seq, last: Seq) {
        let before = self.applier.point();
        let mut seq = first;
        while seq <= last {
            if let Some(record) = self.window.get(seq).map(|s| s.record) {
                self.volumes.goes_past(&record, before, last);
            }
            seq = seq.next();
        }
    }

    /// Whether nothing may be applied now. A replica stands still while one of its volumes is away, so that a
    /// snapshot below them is of one seq, and while one catches up, so that it does; and nobody applies anything
    /// before there is a volume to apply it to.
    pub(super) fn stands_still(&self) -> bool {
        let ring = matches!(self.log, Log::Ring(_));
        let mut any = false;
        for (_, v) in self.volumes.iter() {
            any |= v.state != State::Absent;
            let holds = match v.state {
                State::Absent | State::Suspended => true,
                State::Waiting | State::Replaying => ring && v.floor.is_some(),
                State::Active | State::Replica | State::Failed => false,
            };
            if holds && self.role == Role::Secondary {
                return true;
            }
        }
        !any
    }

    /// Whether the volume's device has everything up to `target` that this host has, apart from a flush, or will not get it
    /// while the volume stays as it is: a suspend waits for no more. A volume that is being brought up has older records than
    /// a snapshot below may lack, however far the rounds are.
    ///
    /// A replica is suspended where it stands, but not with a floor: its other volumes have what it lacks.
    pub fn is_drained(&self, id: VolumeId, target: Seq) -> bool {
        let Some(v) = self.volumes.get(id) else {
            return true;
        };
        if !v.is_attached_and_runs() || self.has_failed() {
            return true;
        }
        let applied = self.role == Role::Secondary || self.applier.applied() >= target;
        v.floor.is_none() && applied
    }

    /// Whether writes to the volume may be admitted.
    pub fn is_open(&self, id: VolumeId) -> bool {
        self.role == Role::Primary && self.volumes.state(id) == State::Active
    }

    /// Opens a volume that waits and lacks nothing, if there is one: its id and its new state. A primary opens none
    /// before the records of its former life are applied.
    pub fn open_volume(&mut self) -> Option<(VolumeId, State)> {
        let state = match self.role {
            Role::Primary if self.is_replaying() => return None,
            Role::Primary => State::Active,
            Role::Secondary => State::Replica,
        };
        let waits = |v: &&mut Volume| v.state == State::Waiting && v.floor.is_none();
        let v = self.volumes.iter_mut().find(waits)?;
        v.state = state;
        v.id.map(|id| (id, state))
    }

    /// Returns the log to write again to volumes that come back, if any does. Write those of its records that
    /// [`Self::replays`] names, in order, and report with [`Self::replayed`].
    pub fn plan_replay(&mut self) -> Option<Replay> {
        if matches!(self.log, Log::NoRing(_)) || self.applier.round().is_some() {
            return None;
        }
        let applied = self.applier.applied();
        let mut from = None;
        for v in self.volumes.iter_mut() {
            let Some(floor) = v.floor else { continue };
            if v.state == State::Waiting {
                v.state = State::Replaying;
                v.replayed = floor.seq;
            }
            if v.state == State::Replaying && v.replayed < v.end.min(applied) {
                let next = v.replayed.next();
                from = Some(from.map_or(next, |f: Seq| f.min(next)));
            }
        }
        from.map(|from| Replay {
            from,
            upto: applied,
        })
    }

    /// Whether a record of the planned replay is to be written to its volume.
    pub fn replays(&self, record: &Record) -> bool {
        self.volumes
            .get(record.range.volume)
            .is_some_and(|v| v.state == State::Replaying && record.seq > v.replayed)
    }

    /// The log cannot be read: the volumes that replay stay away, with what they lack kept, until they are attached again.
    /// Returns one of them at a time.
    pub fn replay_failed(&mut self) -> Option<VolumeId> {
        let mut all = self.volumes.iter_mut();
        let v = all.find(|v| v.state == State::Replaying)?;
        v.state = State::Failed;
        v.id
    }

    /// The records of the planned replay from its first to `upto` were written where they were to be.
    pub fn replayed(&mut self, replay: Replay, upto: Seq) {
        for v in self.volumes.iter_mut() {
            if v.state == State::Replaying && v.replayed.next() >= replay.from {
                v.replayed = v.replayed.max(upto.min(replay.upto));
            }
        }
    }

    /// Returns a volume that has everything again, and whose device is to be flushed ([`Self::volume_replayed`]).
    pub fn volume_to_flush(&self) -> Option<VolumeId> {
        let applied = self.applier.applied();
        self.volumes
            .iter()
            .find(|(_, v)| v.state == State::Replaying && v.replayed >= v.end && v.end <= applied)
            .map(|(id, _)| id)
    }

    /// The volume from [`Self::volume_to_flush`] was flushed, and nothing failed meanwhile: it lacks nothing any more.
    pub fn volume_replayed(&mut self, id: VolumeId) {
        if let Some(v) = self.volumes.get_mut(id) {
            if v.state == State::Replaying && v.replayed >= v.end {
                v.floor = None;
                v.end = Seq::NONE;
                v.state = State::Waiting;
            }
        }
    }
}

impl Volume {
    /// The state of a volume that has a device again: what it lacks comes from the ring, or not in this life.
    fn healing(&self, ring: bool) -> State {
        if ring || self.floor.is_none() {
            State::Waiting
        } else {
            State::Failed
        }
    }

    fn is_attached_and_runs(&self) -> bool {
        match self.state {
            State::Waiting | State::Replaying | State::Active | State::Replica => true,
            State::Absent | State::Suspended | State::Failed => false,
        }
    }
}

// On the host only: a node by value is too large for a kernel stack.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::{
            ring::{Index, Mark, Place, Ring},
            writer::Writer,
        },
        node::{
            apply::Apply,
            links::{Position, Positions, MAX_LINKS},
            window::Slot,
            Start,
        },
        units::{Bytes, Chain, Range, Sector},
    };

    struct Small;

    impl Memory for Small {
        type Slots = [Slot; 4];
        type Heads = [Seq; 1];
        type Marks = [Mark; 2];
        type Volumes = [Volume; 2];
        type Links = [Option<Position>; MAX_LINKS];
    }

    const X: VolumeId = VolumeId(0);
    const Y: VolumeId = VolumeId(1);

    /// Records with an even seq are of Y.
    fn record(seq: Seq) -> Record {
        Record {
            seq,
            op: Op::Write,
            range: Range {
                volume: if seq.0 % 2 == 0 { Y } else { X },
                sector: Sector(seq.0 * 8),
                sectors: 8,
            },
            ..Record::default()
        }
    }

    fn node(role: Role, head: u64) -> Node<Small> {
        let ring = Ring::new(Bytes(8 << 20), 4096, Place(0), Place(0));
        let head = Seq(head);
        let index = Index::new([Mark::default(); 2]);
        let start = Start {
            role,
            applied: Seq::NONE,
            chain: Chain(0),
            head,
            head_chain: Chain(0),
        };
        let mut node = Node::new(
            [Slot::default(); 4],
            [Seq::NONE; 1],
            [Volume::default(); 2],
            Log::Ring(Writer::new(ring, index, head, true)),
            Positions::default(),
            start,
        );
        for id in [X, Y] {
            assert!(node.volumes.enter(id));
        }
        node
    }

    /// The applier, until it has nothing to do: rounds, then volumes that come back.
    fn work(node: &mut Node<Small>) {
        for _ in 0..40 {
            while node.open_volume().is_some() {}
            while let Some(seq) = node.wants_load() {
                assert!(node.load(record(seq)));
            }
            if let Some(Apply::Round { .. }) = node.plan_apply() {
                node.round_done();
            }
            if let Some(replay) = node.plan_replay() {
                node.replayed(replay, replay.upto);
            }
            if let Some(id) = node.volume_to_flush() {
                node.volume_replayed(id);
            }
            node.retire(Seq(u64::MAX), false);
        }
    }

    /// A primary after a crash: more is to be replayed than memory holds, and a volume is not there.
    #[test]
    fn replay_does_not_wait_for_an_absent_volume() {
        let mut node = node(Role::Primary, 10);
        assert!(node.volume_attached(X));
        work(&mut node);
        assert!(!node.is_replaying());
        assert_eq!(node.volumes.state(X), State::Active);
        // The log keeps what the volume lacks: from the round of its first record on.
        assert_eq!(node.clean(), Seq::NONE);
        assert!(node.volume_attached(Y));
        work(&mut node);
        assert_eq!(node.volumes.state(Y), State::Active);
        assert_eq!(node.clean(), Seq(10));
    }

    /// A replica with both volumes suspended takes over; one comes back, then the other.
    #[test]
    fn a_suspended_volume_keeps_its_backlog_when_another_comes_back() {
        let mut node = node(Role::Secondary, 10);
        for id in [X, Y] {
            assert!(node.volume_attached(id));
        }
        while node.open_volume().is_some() {}
        for id in [X, Y] {
            node.volume_suspended(id);
        }
        let end = node.takeover_begin();
        node.takeover_done(end);
        work(&mut node);
        assert_eq!((node.applier.applied(), node.clean()), (end, Seq::NONE));
        assert!(node.volume_attached(X));
        work(&mut node);
        assert_eq!(node.volumes.state(X), State::Active);
        assert_eq!(node.clean(), Seq::NONE);
        assert!(node.volume_attached(Y));
        while node.open_volume().is_some() {}
        assert!(node.plan_replay().is_some_and(|r| r.from == Seq(1)));
        assert!(node.replays(&record(Seq(2))) && !node.replays(&record(Seq(1))));
        work(&mut node);
        assert_eq!(node.clean(), end);
    }

    #[test]
    fn a_failed_device_makes_every_volume_suspect() {
        let mut node = node(Role::Primary, 10);
        for id in [X, Y] {
            assert!(node.volume_attached(id));
        }
        work(&mut node);
        let begun = node.checkpoint_begin();
        node.volume_failed(X);
        assert!(
            node.checkpoint_flushed(begun).is_none(),
            "it proves nothing"
        );
        assert_eq!(node.clean(), Seq::NONE);
        assert_eq!(node.volumes.state(X), State::Failed);
        // Y is written again before it serves anything.
        assert_eq!(node.volumes.state(Y), State::Waiting);
        assert!(!node.is_open(Y));
        let replay = node.plan_replay().expect("of Y");
        assert!(node.replays(&record(Seq(2))) && !node.replays(&record(Seq(1))));
        node.replayed(replay, replay.upto);
        assert_eq!(node.volume_to_flush(), Some(Y));
        // Its flush fails: again from the beginning, and nothing is stated.
        node.volume_failed(Y);
        node.volume_replayed(Y);
        assert_eq!((node.volume_to_flush(), node.clean()), (None, Seq::NONE));
        for id in [X, Y] {
            assert!(node.volume_attached(id));
        }
        work(&mut node);
        assert_eq!(node.clean(), Seq(10));
        // What is flushed is not lost by a later failure.
        let begun = node.checkpoint_begin();
        assert!(node.checkpoint_flushed(begun).is_some());
        node.volume_failed(X);
        assert_eq!(node.clean(), Seq(10));
        assert_eq!(node.volumes.state(Y), State::Active);
    }

    /// A record of the log cannot be read at the start: the group fails, and does not try for ever.
    #[test]
    fn a_group_that_failed_loads_nothing() {
        let mut node = node(Role::Primary, 10);
        assert!(node.volume_attached(X));
        assert_eq!(node.wants_load(), Some(Seq(1)));
        node.fail();
        assert_eq!(node.wants_load(), None);
    }

    #[test]
    fn without_a_ring_a_failed_volume_stays_failed() {
        for ring in [true, false] {
            let mut node = node(Role::Secondary, 0);
            if !ring {
                node.log = Log::NoRing(crate::node::NoRing::default());
                node.horizon_durable(Seq(4), false);
            }
            for id in [X, Y] {
                assert!(node.volume_attached(id));
            }
            while node.open_volume().is_some() {}
            node.window.place(record(Seq(1)));
            assert_eq!(
                node.applier.plan(&mut node.window, Seq(1), false, |_| true),
                Some((Seq(1), Seq(1)))
            );
            node.volume_failed(X);
            node.round_done();
            assert_eq!(node.beyond_repair(), (!ring).then_some(X));
            // Its device is repaired.
            assert!(node.volume_attached(X));
            if ring {
                work(&mut node);
                assert_eq!(node.volumes.state(X), State::Replica);
            } else {
                // It would wait for ever, and writers of a takeover with it.
                assert_eq!(node.volumes.state(X), State::Failed);
                let end = node.takeover_begin();
                assert!(!node.takeover_ready(end));
            }
        }
    }

    /// What a volume missed is replayed from where its device was flushed: until then a checkpoint states no more.
    #[test]
    fn a_record_that_was_missed_takes_back_what_was_not_flushed() {
        let mut node = node(Role::Primary, 4);
        for id in [X, Y] {
            assert!(node.volume_attached(id));
        }
        while node.open_volume().is_some() {}
        let round = |node: &mut Node<Small>, last| {
            while let Some(seq) = node.wants_load() {
                assert!(node.load(record(seq)));
            }
            let plan = node
                .applier
                .plan(&mut node.window, Seq(last), true, |_| true);
            assert!(plan.is_some());
        };
        round(&mut node, 2);
        node.round_done();
        round(&mut node, 4);
        node.record_missed(X);
        node.round_done();
        // Record 1 is in the cache of X's device only, and its volume is not flushed by checkpoints now.
        assert!(!node.flushes(X));
        assert_eq!(node.clean(), Seq::NONE);
        work(&mut node);
        assert_eq!(
            (node.volumes.state(X), node.clean()),
            (State::Active, Seq(4))
        );
    }

    #[test]
    fn a_suspend_waits_for_what_the_device_lacks() {
        let mut node = node(Role::Primary, 10);
        let head = node.head();
        assert!(node.volume_attached(X));
        // The records of the former life are complete: a snapshot must have them.
        assert!(!node.is_drained(X, head));
        work(&mut node);
        assert!(node.is_drained(X, head));
        // Rounds went past the one that was not there.
        assert!(node.is_drained(Y, head));
        assert!(node.volume_attached(Y));
        assert!(node.applier.applied() >= head && !node.is_drained(Y, head));
        assert!(node.plan_replay().is_some());
        assert!(!node.is_drained(Y, head));
        work(&mut node);
        assert!(node.is_drained(Y, head));
        // Nobody waits for what does not come.
        node.volume_failed(Y);
        assert!(node.is_drained(Y, Seq(99)) && !node.is_drained(X, Seq(99)));
        node.fail();
        assert!(node.is_drained(X, Seq(99)));
    }
}
