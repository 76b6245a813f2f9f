// SPDX-License-Identifier: GPL-2.0

//! What a secondary does more: take records from the wire, acknowledge, drop what never was, take over.

use super::{
    applied::Point,
    inbound::{Inbound, Refused},
    Log, Memory, NoRing, Node, Role,
};
use crate::{
    log::{recovery::Epochs, ring::Place},
    node::window::Placed,
    session::meet::{self, Succession, Why},
    units::{Bytes, Chain, EpochId, Record, Seq},
};

/// What a secondary tells its primary: three cumulative positions of this session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Acks {
    /// In memory without a gap (network ack).
    pub received: Seq,
    /// On stable storage (data ack).
    pub logged: Seq,
    /// On the volumes.
    pub applied: Seq,
}

/// What a welcome says that goes on with the history which this host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Highest common seq: everything above never was.
    pub fork: Seq,
    /// The primary's chain value there, where it knows it.
    pub fork_chain: Option<Chain>,
    /// First record that it will send.
    pub resume: Seq,
    /// It goes on with a synchronisation.
    pub sync: bool,
    /// What its lineage is to this host's.
    pub succession: Succession,
}

/// Why a welcome does not go with what this host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadTerms {
    /// The synchronisation ended between this host's statement and the answer: the hosts meet again.
    SyncEnded,
    /// It leaves out records that this host does not have.
    LeavesOut,
    /// The histories do not go together.
    Histories(Why),
}

impl<M: Memory> Node<M> {
    /// A record of epoch `epoch` arrived from `from`, in any order. `epochs`: this host's lineage.
    ///
    /// A seq is a place in one history only. What comes of another epoch than the lineage has there belongs to another
    /// history, whoever sent it, and must not take that place.
    pub fn receive(
        &mut self,
        from: &Inbound,
        epochs: &impl Epochs,
        epoch: EpochId,
        record: Record,
    ) -> Result<Placed, Refused> {
        self.may_receive(from)?;
        if epochs.epoch_of(record.seq).0 != epoch {
            return Err(Refused::OtherEpoch);
        }
        Ok(self.place(record))
    }

    fn place(&mut self, record: Record) -> Placed {
        if self.role != Role::Secondary || record.seq <= self.recovered.seq {
            return Placed::Duplicate;
        }
        if let Log::Ring(w) = &mut self.log {
            if self.window.holds(record.seq) || record.seq <= self.window.head() {
                return Placed::Duplicate;
            }
            // Space for early arrivals is taken at once: what was acknowledged is never dropped for want of it.
            let cost = w.cost(&record);
            if !w.ring.reserve(cost) {
                return Placed::Beyond;
            }
            let placed = self.window.place(record);
            if matches!(placed, Placed::Beyond | Placed::Duplicate) {
                w.ring.unreserve(cost);
            }
            return placed;
        }
        self.window.place(record)
    }

    /// The primary's commit point as a message of `from` told it; never moves back in a session.
    pub fn set_peer_commit(&mut self, from: &Inbound, commit: Seq) -> Result<(), Refused> {
        self.may_receive(from)?;
        self.peer_commit = self.peer_commit.max(commit);
        Ok(())
    }

    /// The primary's commit point as far as it is known.
    pub fn peer_commit(&self) -> Seq {
        self.peer_commit
    }

    /// What may be acknowledged now.
    pub fn acks(&self) -> Acks {
        let applied = self.clean();
        match &self.log {
            Log::Ring(w) => {
                let logged = w.commit_point();
                Acks {
                    received: self.head(),
                    logged,
                    applied: applied.min(w.commit_point()),
                }
            }
            Log::NoRing(n) => {
                let durable = n.durable;
                Acks {
                    received: self.head(),
                    logged: durable,
                    applied: durable,
                }
            }
        }
    }

    /// Returns the last record on stable storage and the chain value after it: what this host says of its log when it
    /// meets another one.
    ///
    /// After a start that is the end which the scan found, whether or not memory holds all records up to there. A
    /// secondary whose log holds more to apply than memory does would else state its checkpoint. Its primary has freed
    /// what this log holds since, so it would want a synchronisation; and as without a session nothing is applied, the
    /// next statement would be the same, for ever.
    ///
    /// `None`: the superblock's checkpoint is what is known (without a ring, where it is the data ack).
    pub fn logged_end(&self) -> Option<Point> {
        let seq = match self.role {
            Role::Primary => self.commit(),
            Role::Secondary => self.acks().logged,
        };
        self.chain_at(seq).map(|chain| Point { seq, chain })
    }

    /// Whether a seq above `fork` may already be on the data volumes: then this replica is ahead of that history.
    pub fn applied_bound(&self) -> Seq {
        let submitted = self.applier.submitted();
        match &self.log {
            Log::Ring(_) => submitted,
            Log::NoRing(n) => submitted.max(n.horizon),
        }
    }

    /// Returns what must not be above a fork to which this host cuts what it has.
    ///
    /// What is on the volumes is known in this run only: after a start they may hold more than the last checkpoint
    /// says, up to what the log holds. A primary that recovered cannot have lost any of that, because it was applied
    /// below its commit point. A host that took over was perhaps further behind than this one: trace (three
    /// hosts), A commits 1, C applies 1 and crashes, B takes over at 0: C's volumes hold 1, its checkpoint does not.
    pub fn truncation_bound(&self, succession: Succession) -> Seq {
        let bound = self.applied_bound();
        match &self.log {
            Log::Ring(_) if succession == Succession::TookOver => bound.max(self.recovered.seq),
            Log::Ring(_) | Log::NoRing(_) => bound,
        }
    }

    /// Whether the log holds records above `fork`: then the caller scans it again under the new lineage,
    /// to learn where it ends, and hands that place to [`Self::truncate`].
    pub fn must_rescan(&self, fork: Seq) -> bool {
        matches!(&self.log, Log::Ring(w) if w.logged_head() > fork)
    }

    /// What the superblock that adopts a new lineage must state as its commit position: nothing above `fork`
    /// ever was. Else the next scan would miss what it believes to be proven.
    pub fn adopted_commit(&self, fork: Seq) -> Seq {
        self.commit().min(fork)
    }

    /// A new lineage, durable by now, says that nothing above `fork` ever was. No log write may be in flight.
    ///
    /// `end`: where the log ends under that lineage, and the chain value there, if it was scanned for this.
    ///
    /// Returns `false` when records above `fork` were applied: the caller must have refused before.
    pub fn truncate(&mut self, fork: Seq, end: Option<(Place, Chain)>) -> bool {
        if self.applied_bound() > fork {
            return false;
        }
        let mut unlogged = Bytes(0);
        if let Log::Ring(w) = &self.log {
            let mut seq = w.logged_head().next();
            let end = self.window.base().plus(self.window.capacity());
            while seq <= end {
                if let Some(record) = self.window.held(seq) {
                    if seq > fork {
                        unlogged = unlogged.plus(w.cost(&record));
                    }
                }
                seq = seq.next();
            }
        }
        let known = end.map(|(_, chain)| chain).or(self.chain_at(fork));
        let chain = known.unwrap_or_default();
        if fork < self.recovered.seq {
            self.recovered = Point { seq: fork, chain };
        }
        if !self.window.truncate(fork) {
            // What lies above was dropped from memory, and is in the log only: so is what is still to be applied.
            self.window.reset(fork, chain);
        }
        if let Log::Ring(w) = &mut self.log {
            w.truncate(fork, end.map(|(place, _)| place), unlogged);
        }
        self.peer_commit = self.peer_commit.min(fork);
        true
    }

    /// Forgets early arrivals and what the former session said of the commit point.
    pub(super) fn forget_session(&mut self) {
        self.peer_commit = Seq::NONE;
        self.truncate_early(self.head());
        self.copies.session_began();
    }

    fn truncate_early(&mut self, head: Seq) {
        if let Log::Ring(w) = &mut self.log {
            let end = self.window.base().plus(self.window.capacity());
            let mut seq = head.next();
            while seq <= end {
                if let Some(record) = self.window.held(seq) {
                    let cost = w.cost(&record);
                    w.ring.unreserve(cost);
                }
                seq = seq.next();
            }
        }
        self.window.truncate(head);
    }

    /// Forgets everything and starts at `seq`: a sync begins there (`syncing`), or equality at `seq` was declared.
    ///
    /// The superblock says so by now: applied and commit position `seq`, tail at the ring's head with `seq + 1`
    /// and `chain`, and for a sync `inconsistent`. Nothing may be in flight.
    pub fn restart_at(&mut self, seq: Seq, chain: Chain, syncing: bool) {
        self.window.reset(seq, chain);
        self.applier.jump(Point { seq, chain });
        self.volumes.restart();
        self.recovered = Point { seq, chain };
        self.peer_commit = seq;
        self.copies.restart(syncing);
        match &mut self.log {
            Log::Ring(w) => w.restart_at(seq),
            Log::NoRing(n) => {
                *n = NoRing {
                    durable: seq,
                    horizon: seq,
                    redo: None,
                    redo_durable: false,
                }
            }
        }
    }

    /// Whether a welcome that goes on with this host's history goes with what it has by now.
    pub fn check_terms(&self, terms: &Terms) -> Result<(), BadTerms> {
        if terms.sync != self.copies.is_syncing() {
            return Err(BadTerms::SyncEnded);
        }
        meet::may_truncate(self.truncation_bound(terms.succession), terms.fork)
            .map_err(BadTerms::Histories)?;
        if let (Some(mine), Some(theirs)) = (self.chain_at(terms.fork), terms.fork_chain) {
            if mine != theirs {
                return Err(BadTerms::Histories(Why::ChainDiffers));
            }
        }
        if self.head().min(terms.fork) < terms.resume.prev() {
            return Err(BadTerms::LeavesOut);
        }
        Ok(())
    }

    /// Whether the volumes (with the log) are one state of the history: no sync and no redo is unfinished.
    /// A takeover is refused otherwise, unless forced.
    pub fn is_consistent(&self) -> bool {
        let redoing = matches!(&self.log, Log::NoRing(n) if n.redo.is_some() && n.redo_durable);
        !redoing && !self.copies.is_syncing()
    }

    /// First step of a takeover, after all sessions are closed: cuts at the gap-free end `T` and returns it.
    ///
    /// With a ring the caller then logs and flushes up to it; without one it applies and flushes (unless
    /// a redo has not begun: then the image is used as it is and `T` is the applied position).
    pub fn takeover_begin(&mut self) -> Seq {
        self.inbound.revoke_all();
        let end = match &self.log {
            Log::NoRing(n) if n.redo.is_some() && !n.redo_durable => self.applier.applied(),
            _ => self.head(),
        };
        self.truncate_early(end);
        // Region copies are the old primary's: what waits would be written over what comes now.
        self.copies.session_began();
        if let Log::NoRing(_) = &self.log {
            // Its volumes are all it has, so T goes there now. With a ring they wait for the new epoch: a crash
            // before it is durable leaves a secondary that is not ahead of its primary.
            self.peer_commit = Seq(u64::MAX);
        }
        self.demand(end);
        end
    }

    /// Whether everything up to `end` is as durable as a takeover needs.
    pub fn takeover_ready(&self, end: Seq) -> bool {
        match &self.log {
            Log::Ring(w) => w.commit_point() >= end,
            Log::NoRing(_) => self.flushed() >= end,
        }
    }

    /// Last step, once the superblock with the new epoch (first seq `end + 1`) is durable.
    pub fn takeover_done(&mut self, end: Seq) {
        self.role = Role::Primary;
        self.copies.restart(false);
        self.volumes.took_over();
        self.recovered = Point {
            seq: end,
            chain: self.chain_at(end).unwrap_or_default(),
        };
        self.gate = crate::node::release::Gate::new(end, end);
    }
}

// On the host only: a node by value is too large for a kernel stack.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        group::Replica,
        lineage::{Before, Entry, Epoch, Lineage},
        log::{
            ring::{Index, Mark, Ring},
            writer::Writer,
        },
        node::{
            apply::Apply,
            links::{LinkId, Position as LinkPosition, Positions},
            resync::Copy,
            volumes::{State, Volume},
            window::Slot,
            Start,
        },
        record::chain_record,
        session::{
            meet::{judge, Peer, Primary, Verdict},
            SessionId,
        },
        units::{EpochId, Op, Position, Range, Sector, VolumeId},
    };

    struct Small;

    impl Memory for Small {
        type Slots = [Slot; 4];
        type Heads = [Seq; 1];
        type Marks = [Mark; 2];
        type Volumes = [Volume; 1];
        type Links = [Option<LinkPosition>; 1];
    }

    fn record(seq: Seq) -> Record {
        Record {
            seq,
            op: Op::Write,
            range: Range {
                volume: VolumeId(0),
                sector: Sector(seq.0 * 8),
                sectors: 8,
            },
            ..Record::default()
        }
    }

    fn chain(upto: u64) -> Chain {
        (1..=upto).fold(Chain(0), |c, s| {
            chain_record(c, &record(Seq(s))).unwrap_or_default()
        })
    }

    /// A secondary after a start: its log holds records up to `head`, of which none is on the volume.
    fn started(head: u64) -> Node<Small> {
        let ring = Ring::new(Bytes(8 << 20), 4096, Place(0), Place(0));
        let index = Index::new([Mark::default(); 2]);
        let start = Start {
            role: Role::Secondary,
            applied: Seq::NONE,
            chain: Chain(0),
            head: Seq(head),
            head_chain: chain(head),
        };
        let mut node = Node::new(
            [Slot::default(); 4],
            [Seq::NONE; 1],
            [Volume::default(); 1],
            Log::Ring(Writer::new(ring, index, Seq(head), true)),
            Positions::new([None; 1]),
            start,
        );
        assert!(node.volume_attached(VolumeId(0)));
        while let Some(seq) = node.wants_load() {
            assert!(node.load(record(seq)));
        }
        node
    }

    fn end(seq: u64) -> Option<Point> {
        Some(Point {
            seq: Seq(seq),
            chain: chain(seq),
        })
    }

    /// Its primary has freed what the secondary acknowledged as logged.
    #[test]
    fn a_backlog_larger_than_memory_is_resumed_at_its_end() {
        let node = started(20);
        assert_eq!(node.window.head(), Seq(4));
        assert_eq!(node.logged_end(), end(20));

        let entries = [Entry::from(Epoch {
            id: EpochId([1; 16]),
            first: Seq(1),
            ..Epoch::default()
        })];
        let lineage = Lineage::new(Before::default(), &entries).unwrap_or(Lineage::EMPTY);
        let primary = Primary {
            lineage,
            head: Seq(30),
            oldest: Seq(21),
        };
        let logged = node.logged_end().unwrap_or_default();
        let peer = Peer {
            lineage,
            replica: Replica::Consistent,
            logged: Position {
                epoch: EpochId([1; 16]),
                seq: logged.seq,
            },
            chain: logged.chain,
            applied_bound: node.applied_bound(),
            syncing: false,
        };
        let verdict = judge(&primary, &peer, |seq| Some(chain(seq.0)));
        assert!(matches!(verdict, Verdict::Resume { resume, .. } if resume == Seq(21)));
    }

    #[test]
    fn a_backlog_that_is_cut_ends_at_the_fork() {
        let mut node = started(20);
        let place = Some((Place(4096), chain(12)));
        assert!(node.must_rescan(Seq(12)) && node.truncate(Seq(12), place));
        assert_eq!((node.head(), node.logged_end()), (Seq(12), end(12)));
        // A fork that memory holds.
        assert!(node.truncate(Seq(3), Some((Place(0), chain(3)))));
        assert_eq!((node.head(), node.logged_end()), (Seq(3), end(3)));
    }

    #[test]
    fn a_host_that_takes_over_with_a_backlog_knows_its_chain() {
        let mut node = started(20);
        let t = node.takeover_begin();
        assert!(t == Seq(20) && node.takeover_ready(t));
        node.takeover_done(t);
        assert_eq!(node.chain_at(t), end(20).map(|p| p.chain));
        // A link that needs a synchronisation gets it at once, not when all is replayed.
        assert_eq!(node.sync_start(), Some((t, chain(20))));
    }

    /// Record `seq` arrives, and is durable in the log.
    fn arrives(node: &mut Node<Small>, seq: u64) -> Placed {
        let placed = node.place(record(Seq(seq)));
        while let Some(plan) = node.plan_batch(&(EpochId::NONE, Seq(u64::MAX))) {
            node.batch_done(plan.id, true);
        }
        node.demand_all();
        if node.plan_flush() {
            node.flush_done(true);
        }
        placed
    }

    /// Everything that may be applied now, from memory and from the log.
    fn apply(node: &mut Node<Small>) {
        loop {
            while node.open_volume().is_some() {}
            match node.plan_apply() {
                Some(Apply::Round { .. }) => node.round_done(),
                Some(Apply::Log { from, upto }) => {
                    let read = (from.0..=upto.0).map(|s| record(Seq(s)));
                    assert!(node.begin_logged(read).is_some());
                    node.round_done();
                }
                Some(Apply::Horizon { .. } | Apply::FlushData) | None => return,
            }
        }
    }

    /// A replica has applied 1 and holds 2. Its volume is suspended; many more come than memory has room for.
    fn suspended() -> Node<Small> {
        let mut node = started(0);
        let begun = node.adoption_begins(LinkId(0), node.stated(), Succession::Same);
        assert_eq!(begun, Ok(None));
        let session = SessionId::from_wire(1).unwrap_or_else(|| unreachable!());
        assert!(node.session_began(LinkId(0), session).is_some());
        assert_eq!(arrives(&mut node, 1), Placed::InOrder);
        node.peer_commit = Seq(1);
        apply(&mut node);
        assert_eq!(node.applier.applied(), Seq(1));
        node.volume_suspended(VolumeId(0));
        for seq in 2..=12 {
            assert_eq!(arrives(&mut node, seq), Placed::InOrder, "record {seq}");
            node.peer_commit = Seq(seq);
            apply(&mut node);
            node.retire(Seq(u64::MAX), true);
        }
        node
    }

    #[test]
    fn a_suspended_volume_leaves_room_for_what_comes() {
        let mut node = suspended();
        assert_eq!((node.applier.applied(), node.clean()), (Seq(1), Seq(1)));
        assert_eq!((node.head(), node.logged_end()), (Seq(12), end(12)));
        let acks = node.acks();
        assert_eq!((acks.logged, acks.applied), (Seq(12), Seq(1)));
        // Where memory is not short nothing is given up.
        for seq in 13..=16 {
            assert_eq!(arrives(&mut node, seq), Placed::InOrder);
            node.retire(Seq(u64::MAX), false);
        }
        assert_eq!(arrives(&mut node, 17), Placed::Beyond);
        // It comes back. What the primary could still lose is not applied from the log either.
        assert!(node.volume_attached(VolumeId(0)));
        node.peer_commit = Seq(5);
        apply(&mut node);
        assert_eq!(node.applier.applied(), Seq(5));
        // Until the applier has come up memory is dropped, as before.
        node.retire(Seq(u64::MAX), true);
        assert_eq!(arrives(&mut node, 17), Placed::InOrder);
        node.peer_commit = Seq(17);
        apply(&mut node);
        assert_eq!(Some(node.applier.point()), end(17));
        // Then it is not.
        assert_eq!(node.retire(Seq(u64::MAX), true), Seq(17));
        assert_eq!(arrives(&mut node, 18), Placed::InOrder);
        assert_eq!(node.retire(Seq(u64::MAX), true), Seq(17));
    }

    /// See [`Node::is_in_doubt`].
    #[test]
    fn a_replica_that_failed_applies_nothing_more() {
        let mut node = suspended();
        node.fail();
        assert!(node.volume_attached(VolumeId(0)));
        apply(&mut node);
        assert_eq!(node.applier.applied(), Seq(1));
        assert!(!node.checkpoint_useful());
    }

    #[test]
    fn a_history_may_be_cut_below_what_memory_dropped() {
        let mut node = suspended();
        assert!(node.must_rescan(Seq(6)));
        assert!(!node.truncate(Seq(0), Some((Place(0), Chain(0)))));
        assert!(node.truncate(Seq(6), Some((Place(4096), chain(6)))));
        assert_eq!((node.head(), node.logged_end()), (Seq(6), end(6)));
        assert_eq!(arrives(&mut node, 7), Placed::InOrder);
        assert!(node.volume_attached(VolumeId(0)));
        node.peer_commit = Seq(7);
        apply(&mut node);
        assert_eq!(Some(node.applier.point()), end(7));
    }

    #[test]
    fn a_takeover_applies_what_memory_dropped() {
        for back in [true, false] {
            let mut node = suspended();
            let t = node.takeover_begin();
            assert!(t == Seq(12) && node.takeover_ready(t));
            node.takeover_done(t);
            if back {
                assert!(node.volume_attached(VolumeId(0)));
                assert_eq!(node.open_volume(), None);
            }
            apply(&mut node);
            assert_eq!(Some(node.applier.point()), end(12));
            if back {
                let state = node.volumes.state(VolumeId(0));
                assert_eq!((state, node.clean()), (State::Active, t));
                continue;
            }
            // Rounds went past it.
            assert_eq!(node.clean(), Seq(1));
            assert!(node.volume_attached(VolumeId(0)));
            let replay = node.plan_replay();
            assert!(replay.is_some_and(|r| r.from == Seq(2) && r.upto == t));
        }
    }

    #[test]
    fn a_round_of_the_log_holds_no_overlap() {
        let mut node = suspended();
        assert!(node.volume_attached(VolumeId(0)));
        let at = |seq: u64, like: u64| Record {
            seq: Seq(seq),
            ..record(Seq(like))
        };
        let read = [at(2, 2), at(3, 3), at(4, 2), at(5, 5)];
        assert_eq!(node.begin_logged(read.into_iter()), Some((Seq(2), Seq(3))));
        // One at a time, and memory may go on being dropped.
        assert_eq!(node.begin_logged(read.into_iter()), None);
        assert_eq!(arrives(&mut node, 13), Placed::InOrder);
        assert_eq!(node.retire(Seq(u64::MAX), true), Seq(13));
        node.round_done();
        let rest = read.into_iter().skip(2);
        assert_eq!(node.begin_logged(rest), Some((Seq(4), Seq(5))));
        // Not what was read of another place.
        node.round_done();
        assert_eq!(node.begin_logged([at(7, 7)].into_iter()), None);
    }

    /// One more region copy in the session of `owner`, written.
    fn copy(node: &mut Node<Small>, owner: &Inbound, item: u64) {
        let copy = Copy {
            item,
            after: Seq::NONE,
            range: record(Seq(item)).range,
        };
        assert_eq!(node.copy_arrived(owner, copy), Ok(true));
        assert!(node.next_copy().is_some());
        node.copy_written();
    }

    fn checkpoint(node: &mut Node<Small>) -> Option<(VolumeId, Sector)> {
        let begun = node.checkpoint_begin();
        let flushed = node.checkpoint_flushed(begun)?;
        node.checkpoint_update(flushed).cursor
    }

    #[test]
    fn the_superblock_claims_no_copy_that_may_be_lost() {
        let mut node = started(0);
        node.copies.set_syncing();
        let link = LinkId(0);
        let session = |n| SessionId::from_wire(n).unwrap_or_else(|| unreachable!());
        let begin = |node: &mut Node<Small>, n| {
            let begun = node.adoption_begins(link, node.stated(), Succession::Same);
            assert_eq!(begun, Ok(None));
            node.session_began(link, session(n))
        };
        let Some(owner) = begin(&mut node, 1) else {
            unreachable!()
        };
        let reached = |s: u64| Some((VolumeId(0), Sector(s * 8 + 8)));
        copy(&mut node, &owner, 1);
        assert_eq!(checkpoint(&mut node), reached(1));
        // The device fails between the copy and the flush that should have made it durable.
        copy(&mut node, &owner, 2);
        node.volume_failed(VolumeId(0));
        assert!(node.volume_attached(VolumeId(0)));
        assert_eq!(checkpoint(&mut node), None);
        // The next session sends it again.
        node.inbound_ended(link);
        let Some(owner) = begin(&mut node, 2) else {
            unreachable!()
        };
        assert_eq!(checkpoint(&mut node), None);
        copy(&mut node, &owner, 1);
        assert_eq!(checkpoint(&mut node), reached(1));
        // A primary writes no region copies, whatever was left.
        let copy = Copy {
            item: 2,
            after: Seq::NONE,
            range: record(Seq(2)).range,
        };
        assert_eq!(node.copy_arrived(&owner, copy), Ok(true));
        node.role = Role::Primary;
        assert_eq!(node.next_copy(), None);
    }
}
