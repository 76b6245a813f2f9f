// SPDX-License-Identifier: GPL-2.0

//! The node of one group on one host: everything between a record's arrival and its checkpoint.
//!
//! One structure for both roles, because both do the same work: take records in order, log them,
//! apply them below the commit point, checkpoint, free. They differ in where records come from (bios
//! or the wire) and in what gates the applier. Takeover is therefore a change of role, not of machinery.
//!
//! The caller holds the group's order lock around every call, executes what the `plan_*` calls return
//! and reports back. Nothing here waits. Modules: [`log`](self::log) (log writes, flushes, completions), [`apply`]
//! (rounds), [`checkpoint`], [`replica`] (what a secondary does more), [`copies`] (a sync), [`position`] (links).
//!
//! # Order of events in a record's life, and who holds it back
//!
//! ```text
//! admit -> log write -> [log flush] -> commit point -> data write -> data flush -> superblock -> space free
//!            |              |             |                                          |
//!            |              |             +-- no data write above it (A1)            +-- nor above any link's data ack (X6)
//!            |              +-- a flush bio waits for it (X15)
//!            +-- a plain write completes here, once in-sync links have acknowledged
//! ```

pub mod applied;
pub mod apply;
pub mod behind;
pub mod checkpoint;
pub mod durable;
pub mod inbound;
pub mod links;
pub mod log;
pub mod phase;
pub mod release;
pub mod resync;
pub mod secondary;
pub mod volumes;
pub mod window;

use crate::{
    group::Mode,
    log::{
        ring::Mark,
        writer::Writer, //
    },
    node::{
        applied::{Applier, Point},
        release::Gate,
        window::{Slot, Window},
    },
    units::{Chain, Op, Range, Record, Seq},
};
use links::{LinkId, Position, Positions};
use resync::Copies;
use volumes::{Volume, Volumes};

/// A peer that lacks so many records, and so many bytes, lacks little: what is under way on a long link, or in a
/// commit interval.
const NEAR_RECORDS: u64 = 1024;
const NEAR_BYTES: u64 = 16 << 20;

/// Storage handed in by the caller: the core allocates nothing.
///
/// The kernel gives a vector made once at group creation, tests a `Vec`, the explorer a small array.
pub trait Store<T>: AsRef<[T]> + AsMut<[T]> {}

impl<T, S: AsRef<[T]> + AsMut<[T]>> Store<T> for S {}

/// The storage a node works in.
pub trait Memory {
    /// Records in memory.
    type Slots: Store<Slot>;
    /// Place index.
    type Heads: Store<Seq>;
    /// Batches in the ring.
    type Marks: Store<Mark>;
    /// Volumes of the table.
    type Volumes: Store<Volume>;
    /// Links.
    type Links: Store<Option<Position>>;
}

/// What a host is to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes the application's writes.
    Primary,
    /// Takes records from a primary.
    Secondary,
}

impl From<Role> for crate::group::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Primary => crate::group::Role::Primary,
            Role::Secondary => crate::group::Role::Secondary,
        }
    }
}

/// Where a host keeps what it was told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Log<I> {
    /// A ring of records.
    Ring(Writer<I>),
    /// No ring: the superblock only.
    NoRing(NoRing),
}

/// What a host without a ring knows durably.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NoRing {
    /// Position in the durable superblock: the data ack never passes it.
    pub durable: Seq,
    /// Durable bound of what may have been written to the data volumes.
    pub horizon: Seq,
    /// After a crash: everything up to here must be in memory before anything is written again.
    pub redo: Option<Seq>,
    /// The redo flag is durable: from now on a crash leaves the replica inconsistent.
    pub redo_durable: bool,
}

impl NoRing {
    /// As the superblock says after a start: everything up to `applied` is durable on the volumes, nothing
    /// above `horizon` was ever written there, and `redo` says that a redo was begun and not ended.
    ///
    /// What lies between may be there in any mixture that kept `depends_on`, so it is redone as a whole.
    pub fn after_start(applied: Seq, horizon: Seq, redo: bool) -> Self {
        NoRing {
            durable: applied,
            horizon: horizon.max(applied),
            redo: (horizon > applied).then_some(horizon),
            redo_durable: redo && horizon > applied,
        }
    }
}

/// Why a write cannot be admitted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// No slot in memory.
    Window,
    /// No space in the ring.
    Ring,
    /// The log has failed: nothing will be admitted any more.
    Failed,
    /// This host does not take writes now (secondary, or still replaying).
    Role,
}

/// The node. See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node<M: Memory> {
    /// Records in memory.
    pub window: Window<M::Slots, M::Heads>,
    /// The log.
    pub log: Log<M::Marks>,
    /// Rounds of data writes.
    pub applier: Applier,
    /// Data volumes.
    pub volumes: Volumes<M::Volumes>,
    /// Links' positions.
    pub positions: Positions<M::Links>,
    /// Region copies under way to this host.
    pub copies: Copies,
    gate: Gate,
    role: Role,
    peer_commit: Seq,
    quiesce: Option<Seq>,
    /// Which session brings records.
    inbound: inbound::Ownership,
    /// Data devices failed so often: a flush that began before proves nothing.
    failures: u32,
    /// Records up to here come from this host's own log and are loaded, not admitted. The chain value after the last one
    /// is the scan's: memory learns it only once all of them were loaded.
    recovered: Point,
}

/// How a log was found when the node starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    /// Role of this host.
    pub role: Role,
    /// Everything up to here is durable on the data volumes.
    pub applied: Seq,
    /// Chain value after it.
    pub chain: Chain,
    /// Last record of the log (without a ring: the same as `applied`).
    pub head: Seq,
    /// Chain value after it.
    pub head_chain: Chain,
}

impl<M: Memory> Node<M> {
    /// A node after recovery: records `(applied, head]` are to be loaded with [`Self::load`] and applied. Every volume
    /// of the group's table must be [entered](Volumes::enter) before its records can be.
    pub fn new(
        slots: M::Slots,
        heads: M::Heads,
        volumes: M::Volumes,
        log: Log<M::Marks>,
        positions: Positions<M::Links>,
        start: Start,
    ) -> Self {
        // Everything recovered may have been seen complete by the application of the former life.
        let published = start.head;
        Node {
            window: Window::new(slots, heads, start.applied, start.chain),
            log,
            applier: Applier::new(Point {
                seq: start.applied,
                chain: start.chain,
            }),
            volumes: Volumes::new(volumes),
            positions,
            copies: Copies::default(),
            gate: Gate::new(start.head, published),
            role: start.role,
            peer_commit: Seq::NONE,
            quiesce: None,
            inbound: inbound::Ownership::default(),
            failures: 0,
            recovered: Point {
                seq: start.head,
                chain: start.head_chain,
            },
        }
    }

    /// Role of this host.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Last record that has a seq on this host.
    pub fn head(&self) -> Seq {
        self.window.head().max(self.recovered.seq)
    }

    /// Whether records of the former life are still to be loaded or applied.
    pub fn is_replaying(&self) -> bool {
        self.role == Role::Primary && self.applier.applied() < self.recovered.seq
    }

    /// Next record that the caller must read from its own log and hand to [`Self::load`].
    pub fn wants_load(&self) -> Option<Seq> {
        if self.has_failed() {
            // It was not read back, or what it rests on failed: asking again changes nothing.
            return None;
        }
        let next = self.window.head().next();
        (next <= self.recovered.seq && self.window.has_room()).then_some(next)
    }

    /// A record of this host's own log, read back for replay.
    pub fn load(&mut self, record: Record) -> bool {
        if Some(record.seq) != self.wants_load() {
            return false;
        }
        matches!(
            self.window.place(record),
            crate::node::window::Placed::InOrder
        )
    }

    /// Gives an application write its place in the order, or says what is missing for it.
    ///
    /// Nothing changes when it fails.
    pub fn admit(
        &mut self,
        op: Op,
        range: Range,
        fua: bool,
        no_unmap: bool,
        payload_crc: u32,
        time_ns: u64,
    ) -> Result<Seq, Full> {
        if !self.is_open(range.volume) || self.window.head() < self.recovered.seq {
            return Err(Full::Role);
        }
        if !self.window.has_room() {
            return Err(Full::Window);
        }
        let record = Record {
            seq: self.window.head().next(),
            op,
            fua,
            no_unmap,
            range,
            depends_on: self.gate.published(),
            time_ns,
            origin: 0,
            payload_crc,
        };
        match &mut self.log {
            Log::Ring(w) => {
                if w.has_failed() {
                    return Err(Full::Failed);
                }
                let cost = w.cost(&record);
                if !w.ring.reserve(cost) {
                    return Err(Full::Ring);
                }
            }
            Log::NoRing(_) => return Err(Full::Role),
        }
        self.window.place(record);
        Ok(record.seq)
    }

    /// Whether a record of this payload would find ring space and a slot.
    pub fn has_room(&self, payload: u32) -> Result<(), Full> {
        if !self.window.has_room() {
            return Err(Full::Window);
        }
        match &self.log {
            Log::Ring(w) => {
                let cost = crate::log::batch::worst_case_bytes(payload, w.ring.block());
                if w.has_failed() {
                    Err(Full::Failed)
                } else if w.ring.has_room(crate::units::Bytes(u64::from(cost))) {
                    Ok(())
                } else {
                    Err(Full::Ring)
                }
            }
            Log::NoRing(_) => Err(Full::Role),
        }
    }

    /// Drops from memory what is completed, applied, and not needed by an in-memory sender; returns the highest seq
    /// that is gone.
    ///
    /// With a ring a volume that lacks a record (absent, suspended, failed) gets it from the log when it comes back, so
    /// memory does not wait for it: the other volumes' writers go on until the log itself is full. Without a ring memory
    /// is all there is. A replica that stands still applies nothing, whatever comes: where memory is `short` it drops what is
    /// durable in its log, too, and applies that from there, see [`apply`].
    ///
    /// `keep_from`: lowest seq that a reader of memory still holds (reads being overlaid, senders, when memory is not short).
    pub fn retire(&mut self, keep_from: Seq, short: bool) -> Seq {
        let mut upto = match &self.log {
            Log::Ring(w) if short && self.may_drop_unapplied() => w.commit_point(),
            Log::Ring(w) => self.applier.applied().min(w.written_prefix()),
            Log::NoRing(_) => self.clean(),
        };
        upto = upto.min(keep_from.prev());
        if self.role == Role::Primary {
            upto = upto.min(self.gate.completed());
        }
        // The records of a round from the log are not in memory.
        let in_memory = |(_, last): &(Seq, Seq)| *last > self.window.base();
        if let Some((first, _)) = self.applier.round().filter(in_memory) {
            upto = upto.min(first.prev());
        }
        self.window.retire(upto);
        self.window.base()
    }

    /// An acknowledgement of a link's session. Returns `true` when the link became in-sync by it.
    pub fn acknowledged(&mut self, id: LinkId, acks: (Seq, Seq, Seq)) -> bool {
        let (head, commit) = (self.head(), self.commit());
        self.positions.acknowledged(id, acks, head, commit);
        let wanted = self
            .positions
            .get(id)
            .filter(|l| !l.gates() && l.mode != Mode::Async);
        let near = wanted.is_some_and(|l| self.is_near(l.level()));
        self.positions.catch_up(id, head, near)
    }

    /// Whether a peer that has everything up to `level` lacks so little that writers may wait for it.
    pub fn is_near(&self, level: Seq) -> bool {
        let head = self.head();
        if level >= head {
            return true;
        }
        if head.since(level) > NEAR_RECORDS {
            return false;
        }
        let (mut bytes, mut seq) = (0u64, level.next());
        while seq <= head && bytes <= NEAR_BYTES {
            let Some(slot) = self.window.get(seq) else {
                return false;
            };
            bytes = bytes.saturating_add(u64::from(slot.record.payload_bytes()));
            seq = seq.next();
        }
        bytes <= NEAR_BYTES
    }

    /// Where a sync of a link starts, and the chain value there: the commit point, because the peer must not
    /// start above what this host could lose, and all that is not committed yet must be sent.
    pub fn sync_start(&self) -> Option<(Seq, Chain)> {
        let start = self.commit();
        self.chain_at(start).map(|chain| (start, chain))
    }

    /// Returns the chain value after `seq`, where this host knows it without reading its log.
    pub fn chain_at(&self, seq: Seq) -> Option<Chain> {
        let recovered = (seq == self.recovered.seq).then_some(self.recovered.chain);
        self.window.chain_at(seq).or(recovered)
    }

    /// Oldest record that log or memory still holds.
    ///
    /// A link that the log keeps nothing for may so go on from memory. Its slot then says that the log holds what only memory
    /// does: where the session ends before the peer has it, the next one finds that it is gone, and the link needs a
    /// synchronisation.
    pub fn oldest_held(&self) -> Seq {
        self.oldest().min(self.window.base().next())
    }

    /// Oldest record that the log still holds; the next one to be logged when it holds none.
    pub fn oldest(&self) -> Seq {
        match &self.log {
            Log::Ring(w) => w.index.first().map_or(w.logged_head().next(), |m| m.first),
            Log::NoRing(_) => self.head().next(),
        }
    }
}
