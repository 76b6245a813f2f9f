// SPDX-License-Identifier: GPL-2.0

//! The single facts of a superblock: who, in which role, how far, and with which warnings.

use crate::{
    group::{Name, Replica, Role},
    lineage::{Epoch, Lineage, LineageError, LineageMut, Pos},
    log::{
        format::{FLAG_CLEAN, FLAG_REDO, FLAG_SYNC_END, FLAG_UNLOGGED},
        superblock::Superblock,
    },
    units::{Bytes, Chain, GroupUuid, HostId, Position, Seq},
};

/// Where the log begins that is still needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tail {
    /// Its first record.
    pub seq: Seq,
    /// Where the batch with that record lies, from the start of the ring.
    pub offset: Bytes,
    /// How often the ring had wrapped there.
    pub lap: u64,
    /// Chain before the record.
    pub chain: Chain,
}

/// Since when the volumes are a mixture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inconsistent {
    /// The last position at which they were not.
    pub since: Position,
    /// When that was, ns since 1970.
    pub time_ns: u64,
    /// Where the mixture ends, when that is known.
    pub until: Option<Position>,
}

impl Superblock {
    /// +1 with every write; 0 only before the first.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.head.generation.get()
    }

    /// Size of the device when it was formatted.
    #[must_use]
    pub const fn device(&self) -> Bytes {
        Bytes(self.head.device.get())
    }

    /// Block in which the log is written.
    #[must_use]
    pub const fn block(&self) -> u32 {
        self.head.block.get()
    }

    /// This host.
    #[must_use]
    pub const fn host(&self) -> HostId {
        HostId(self.head.host)
    }

    /// The group; `GroupUuid::NONE` while there is none.
    #[must_use]
    pub const fn group(&self) -> GroupUuid {
        GroupUuid(self.head.group)
    }

    /// The group's name on this host.
    #[must_use]
    pub const fn group_name(&self) -> Name {
        self.head.group_name
    }

    /// Joins a group. An adopted uuid and a made one look the same.
    pub fn set_group(&mut self, group: GroupUuid, name: Name) {
        self.head.group = group.0;
        self.head.group_name = name;
    }

    /// The role of this host.
    #[must_use]
    pub fn role(&self) -> Role {
        Role::from_u8(self.head.role).unwrap_or_default()
    }

    /// Sets the role.
    pub fn set_role(&mut self, role: Role) {
        self.head.role = role.to_u8();
    }

    /// What the volumes hold.
    #[must_use]
    pub fn replica(&self) -> Replica {
        Replica::from_u8(self.head.replica).unwrap_or_default()
    }

    /// The volumes hold nothing, or one state of the history. Ends an inconsistency.
    pub fn set_consistent(&mut self, empty: bool) {
        let replica = if empty {
            Replica::Empty
        } else {
            Replica::Consistent
        };
        self.head.replica = replica.to_u8();
        self.head.inconsistent = Pos::default();
        self.head.inconsistent_ns.set(0);
        self.head.sync_end = Pos::default();
        self.set_flag(FLAG_SYNC_END, false);
    }

    /// Since when the volumes are a mixture, when they are.
    #[must_use]
    pub fn inconsistent(&self) -> Option<Inconsistent> {
        (self.replica() == Replica::Inconsistent).then(|| Inconsistent {
            since: self.head.inconsistent.get(),
            time_ns: self.head.inconsistent_ns.get(),
            until: self.flag(FLAG_SYNC_END).then(|| self.head.sync_end.get()),
        })
    }

    /// The volumes are a mixture from now on.
    pub fn set_inconsistent(&mut self, i: Inconsistent) {
        self.head.replica = Replica::Inconsistent.to_u8();
        self.head.inconsistent = i.since.into();
        self.head.inconsistent_ns.set(i.time_ns);
        self.head.sync_end = i.until.map_or(Pos::default(), Pos::from);
        self.set_flag(FLAG_SYNC_END, i.until.is_some());
    }

    const fn flag(&self, flag: u32) -> bool {
        self.head.flags.get() & flag != 0
    }

    fn set_flag(&mut self, flag: u32, on: bool) {
        let others = self.head.flags.get() & !flag;
        self.head.flags.set(if on { others | flag } else { others });
    }

    /// Whether it was stopped cleanly.
    #[must_use]
    pub const fn clean(&self) -> bool {
        self.flag(FLAG_CLEAN)
    }

    /// Says whether it is stopped cleanly.
    pub fn set_clean(&mut self, clean: bool) {
        self.set_flag(FLAG_CLEAN, clean);
    }

    /// Whether redo above the applied position has begun (without a ring).
    #[must_use]
    pub const fn redo(&self) -> bool {
        self.flag(FLAG_REDO)
    }

    /// Says whether redo has begun.
    pub fn set_redo(&mut self, redo: bool) {
        self.set_flag(FLAG_REDO, redo);
    }

    /// Since which generation the log is void, when it is.
    #[must_use]
    pub fn log_void(&self) -> Option<u64> {
        Some(self.head.log_void.get()).filter(|g| *g != 0)
    }

    /// Declares the log void since a generation, or not void.
    pub fn set_log_void(&mut self, since: Option<u64>) {
        self.head.log_void.set(since.unwrap_or(0));
    }

    /// After which position everything may differ from the log, when writes went past it.
    #[must_use]
    pub fn unlogged(&self) -> Option<Position> {
        self.flag(FLAG_UNLOGGED).then(|| self.head.unlogged.get())
    }

    /// Marks everything after a position as possibly different, or takes the mark away.
    pub fn set_unlogged(&mut self, after: Option<Position>) {
        self.head.unlogged = after.map_or(Pos::default(), Pos::from);
        self.set_flag(FLAG_UNLOGGED, after.is_some());
    }

    /// What the log cannot lose any more.
    #[must_use]
    pub fn commit(&self) -> Position {
        self.head.commit.get()
    }

    /// Moves the commit position.
    pub fn set_commit(&mut self, p: Position) {
        self.head.commit = p.into();
    }

    /// All up to here is on the data volumes, flushed.
    #[must_use]
    pub fn applied(&self) -> Position {
        self.head.applied.get()
    }

    /// Moves the applied position.
    pub fn set_applied(&mut self, p: Position) {
        self.head.applied = p.into();
    }

    /// Nothing above it may have been written to the data volumes (without a ring).
    #[must_use]
    pub fn horizon(&self) -> Position {
        self.head.horizon.get()
    }

    /// Moves the horizon.
    pub fn set_horizon(&mut self, p: Position) {
        self.head.horizon = p.into();
    }

    /// Position and chain of the last checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> (Position, Chain) {
        let chain = Chain(self.head.checkpoint_chain.get());
        (self.head.checkpoint.get(), chain)
    }

    /// Sets position and chain of the checkpoint.
    pub fn set_checkpoint(&mut self, p: Position, chain: Chain) {
        self.head.checkpoint = p.into();
        self.head.checkpoint_chain.set(chain.0);
    }

    /// Where the log begins.
    #[must_use]
    pub const fn tail(&self) -> Tail {
        Tail {
            seq: Seq(self.head.tail_seq.get()),
            offset: Bytes(self.head.tail_offset.get()),
            lap: self.head.tail_lap.get(),
            chain: Chain(self.head.tail_chain.get()),
        }
    }

    /// Moves the beginning of the log.
    pub fn set_tail(&mut self, tail: Tail) {
        self.head.tail_seq.set(tail.seq.0);
        self.head.tail_offset.set(tail.offset.0);
        self.head.tail_lap.set(tail.lap);
        self.head.tail_chain.set(tail.chain.0);
    }

    /// The last number that was given to an epoch; 0 before the first.
    #[must_use]
    pub const fn last_epoch_index(&self) -> u32 {
        self.head.last_epoch_index.get()
    }

    /// The lineage. Empty when it is damaged, which `load` does not let in.
    #[must_use]
    pub fn lineage(&self) -> Lineage<'_> {
        let used = self
            .lineage
            .get(..usize::from(self.head.lineage_count.get()));
        match (self.head.before.get(), used) {
            (Ok(before), Some(entries)) => Lineage::new(before, entries).unwrap_or(Lineage::EMPTY),
            _ => Lineage::EMPTY,
        }
    }

    fn lineage_mut(&mut self) -> LineageMut<'_> {
        LineageMut {
            before: &mut self.head.before,
            count: &mut self.head.lineage_count,
            last_index: &mut self.head.last_epoch_index,
            entries: &mut self.lineage,
        }
    }

    /// Adds an epoch; returns its local number. The oldest is folded when there are too many.
    pub fn push_epoch(&mut self, epoch: Epoch) -> Result<u32, LineageError> {
        self.lineage_mut().push(epoch)
    }

    /// The same, with `most` epochs kept at most.
    pub fn push_epoch_within(&mut self, epoch: Epoch, most: usize) -> Result<u32, LineageError> {
        self.lineage_mut().push_within(epoch, most)
    }

    /// Takes over a peer's lineage. Epochs known here keep their local number.
    pub fn adopt_lineage(&mut self, peer: &Lineage<'_>) -> Result<(), LineageError> {
        self.lineage_mut().adopt(peer)
    }
}
