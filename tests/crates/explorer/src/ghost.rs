// SPDX-License-Identifier: GPL-2.0

//! The true history, and what was promised: known to the checks, to neither host.

use std::rc::Rc;

use replicate_core::units::{Record, Seq};

use crate::disk::Value;

/// An order of which a recovery of the primary lost the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Past {
    pub hist: Rc<Vec<Record>>,
    /// Highest seq completed in-sync in it.
    pub synced: Seq,
    /// The epoch with which the primary went on.
    pub epoch: u8,
}

/// What only the checks know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ghost {
    /// The primary's order.
    pub hist: Vec<Record>,
    /// Orders that the primary lost the end of.
    pub pasts: Vec<Past>,
    /// Writes that the application saw complete.
    pub completed: u16,
    /// For each write, the highest seq that the application had seen complete when it was issued.
    pub depends: Vec<Seq>,
    /// Last record that a recovery found: any of them may have been seen complete.
    pub recovered: Seq,
    /// Where the last sync began.
    pub sync_start: Seq,
    /// Writes that must survive any power cut of the primary.
    pub owed: u16,
    /// Highest seq completed while the link was in-sync.
    pub synced: Seq,
    /// The secondary lost its memory since.
    pub forgot: bool,
    /// A takeover began at some time: the replica may be ahead of its primary.
    pub took: bool,
    pub taken: bool,
    pub next_wid: Value,
    pub next_epoch: u8,
    pub next_session: u8,
    pub script: u8,
    pub crashes: [u8; 2],
    pub drops: u8,
    pub asks: u8,
    pub faults: u8,
    pub errors: u8,
    pub sb_errors: u8,
    /// Blocks that may become unreadable.
    pub spoils: u8,
    /// The secondary was told that it equals the primary, which nobody vouches for.
    pub declared: bool,
    /// What became unreadable was proven durable.
    pub damaged: bool,
    pub volume_moves: u8,
    pub checkpoints: [u8; 2],
}
