// SPDX-License-Identifier: GPL-2.0

//! What a run explores: the application's script, the peer, and how much may go wrong.

use crate::event::Ev;
use replicate_core::{
    group::Mode,
    node::durable::grow::Limits,
    units::{Range, Sector, VolumeId},
};

/// Sectors of a model block. At 64 KiB a batch starts although others are in flight.
pub const BLOCK_SECTORS: u32 = 128;

/// One step of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes `blocks` blocks from `from` on.
    Write { from: usize, blocks: u32, fua: bool },
    /// A flush.
    Flush,
}

/// A plain write of one block.
pub const fn w(from: usize) -> Op {
    Op::Write {
        from,
        blocks: 1,
        fua: false,
    }
}

/// A FUA write of one block.
pub const fn fua(from: usize) -> Op {
    Op::Write {
        from,
        blocks: 1,
        fua: true,
    }
}

/// The secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Ring,
    NoRing,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: &'static str,
    /// Model blocks: volume and first sector.
    pub blocks: &'static [(u16, u64)],
    pub script: Vec<Op>,
    pub peer: Option<Peer>,
    pub mode: Mode,
    /// The log devices have a volatile cache.
    pub volatile: bool,
    /// Power cuts and resets of the primary, together.
    pub primary_crashes: u8,
    pub secondary_crashes: u8,
    /// Resets are explored beside power cuts.
    pub resets: bool,
    /// Connections lost (beyond those by crashes).
    pub drops: u8,
    /// Synchronisations that an administrator asks for, whatever runs.
    pub asks: u8,
    /// What is asked for is to declare both sides equal; its answer is lost, and it is taken back.
    pub withdraws: bool,
    /// Messages in flight at most; 0: delivered at once.
    pub queue: usize,
    /// Messages overtake each other.
    pub reorder: bool,
    /// Messages lost or doubled.
    pub faults: u8,
    /// Volumes are suspended so often, both sides together; they may come back at any time.
    pub volume_moves: u8,
    /// A volume that failed may be attached again.
    pub repaired: bool,
    /// No volume is there when a host starts.
    pub late: bool,
    /// All volumes of a host lie on one disk: what its cache held is lost for all of them.
    pub shared_disk: bool,
    /// Failures of devices, both sides together.
    pub errors: u8,
    /// Superblocks of which no copy can be written, both sides together.
    pub sb_errors: u8,
    /// Blocks of a log that become unreadable while its host is off.
    pub spoils: u8,
    /// Messages of an ended session stay under way.
    pub stale: bool,
    /// Data writes, flushes and reads take time.
    pub fine: bool,
    pub takeover: bool,
    /// The replica starts with garbage and is synced.
    pub sync: bool,
    /// The primary may give the link up (`needs-sync`), as it does when its log is full; a sync follows.
    pub give_up: bool,
    /// Checkpoints of each side at most.
    pub checkpoints: u8,
    /// Memory is always short.
    pub short: bool,
    /// Ring: room for so many one-block batches beside the reserve.
    pub ring_room: u64,
    /// Events that lead to where the exploration begins.
    pub prefix: Vec<Ev>,
    /// Start so near the ring's end that only so many one-block batches fit before the wrap; 0: at its start.
    pub wrap: u64,
    /// How much history a superblock keeps.
    pub limits: Limits,
    /// Also checked: where nothing but a fault can happen any more, every write has completed.
    pub live: bool,
}

impl Config {
    pub const BASE: Config = Config {
        name: "",
        blocks: &[(0, 0), (1, 0)],
        script: Vec::new(),
        peer: None,
        mode: Mode::Async,
        volatile: true,
        primary_crashes: 1,
        secondary_crashes: 0,
        resets: true,
        drops: 0,
        asks: 0,
        withdraws: false,
        queue: 0,
        reorder: false,
        faults: 0,
        errors: 0,
        sb_errors: 0,
        spoils: 0,
        volume_moves: 0,
        repaired: false,
        late: false,
        shared_disk: false,
        stale: false,
        fine: false,
        takeover: false,
        sync: false,
        give_up: false,
        checkpoints: 1,
        short: false,
        // Half of it is the credit for a region of a synchronisation.
        ring_room: 40,
        wrap: 0,
        limits: Limits::FORMAT,
        live: false,
        prefix: Vec::new(),
    };

    /// The range of `blocks` model blocks from `b` on.
    pub fn range(&self, b: usize, blocks: u32) -> Range {
        let (volume, sector) = self.blocks[b];
        Range {
            volume: VolumeId(volume),
            sector: Sector(sector),
            sectors: BLOCK_SECTORS * blocks,
        }
    }

    /// The volume that block `b` lies in.
    pub fn volume(&self, b: usize) -> VolumeId {
        VolumeId(self.blocks[b].0)
    }

    /// Every volume.
    pub fn volumes(&self) -> Vec<VolumeId> {
        let mut all: Vec<VolumeId> = (0..self.blocks.len()).map(|b| self.volume(b)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Size of a volume.
    pub fn size(&self, volume: u16) -> Sector {
        let last = self
            .blocks
            .iter()
            .filter(|b| b.0 == volume)
            .map(|b| b.1)
            .max();
        Sector(last.map_or(0, |s| s + u64::from(BLOCK_SECTORS)))
    }
}
