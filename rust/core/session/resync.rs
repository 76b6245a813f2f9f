// SPDX-License-Identifier: GPL-2.0

//! Region copies, the primary's side: a full synchronisation while the application writes.
//!
//! A copy is an item of the link's stream, placed after a record `s`. Four rules make it right, each with
//! the trace that breaks without it:
//!
//! - R1: it is read after every overlapping record `<= s` is on the volume; else the peer, which applied
//!   that record already, gets older data over it.
//! - R2: no overlapping record `> s` is sent before it; else the copy, read before that record, overwrites it.
//! - R3: it is read from the data volume only, never from memory; else it carries what the primary can
//!   still lose.
//! - R4: the sync ends at the commit point when the last copy was read, not at that copy's `s`: the
//!   volume already holds committed records above `s`, so "consistent at s" would be ahead of itself.
//!
//! A region is one extent, so that one look into one bucket answers R1. One region is read at a time.

use super::sender::Send;
use crate::{
    group::Volume,
    units::{Range, Sector, Seq, VolumeId, EXTENT_SECTORS},
    wire::WireError,
};

/// Copies sent and not reported durable yet, at most: what the peer has room for.
pub const MAX_OUTSTANDING: usize = 4;

/// One region copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CopyItem {
    /// Number of the item, from 1 in each session.
    pub item: u64,
    /// The record it follows in the stream.
    pub after: Seq,
    /// The region.
    pub range: Range,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Wanted,
    Reading {
        after: Seq,
    },
    Read {
        after: Seq,
    },
    /// Every region of the present volume was sent.
    VolumeDone,
    Ended {
        end: Seq,
    },
    /// The superblock says so.
    Recorded {
        end: Seq,
    },
    Told,
    /// The peer is consistent.
    Over,
}

/// What it means that the peer has copies on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// Nothing new.
    Nothing,
    /// They are durable up to this volume and sector: what the superblock may say.
    Moved((VolumeId, Sector)),
    /// It is consistent: the synchronisation is over. Make that durable, then
    /// [`Sender::sync_over`](super::sender::Sender::sync_over).
    Over,
}

/// A running synchronisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Copies {
    volume: VolumeId,
    size: Sector,
    cursor: Sector,
    item: u64,
    stage: Stage,
    last_commit: Option<Seq>,
    sent: [Option<Sent>; MAX_OUTSTANDING],
    durable: (VolumeId, Sector),
}

/// A copy on its way: its item and where the cursor is when it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sent {
    item: u64,
    cursor: (VolumeId, Sector),
}

impl Copies {
    /// A sync that goes on, in a new session, at `cursor` of a volume of `size` sectors.
    pub fn new(volume: VolumeId, size: Sector, cursor: Sector) -> Self {
        Copies {
            volume,
            size,
            cursor,
            item: 0,
            stage: if cursor < size {
                Stage::Wanted
            } else {
                Stage::VolumeDone
            },
            last_commit: None,
            sent: [None; MAX_OUTSTANDING],
            durable: (volume, cursor),
        }
    }

    fn current(&self, after: Seq) -> CopyItem {
        let start = self.cursor.0;
        let extent_end = Sector(start)
            .extent()
            .saturating_add(1)
            .saturating_mul(EXTENT_SECTORS);
        let end = extent_end.min(self.size.0);
        CopyItem {
            item: self.item.saturating_add(1),
            after,
            range: Range {
                volume: self.volume,
                sector: self.cursor,
                // CAST: at most one extent.
                sectors: end.saturating_sub(start) as u32,
            },
        }
    }

    /// The region to copy next, if it would follow record `after`.
    pub fn wanted(&self, after: Seq) -> Option<CopyItem> {
        let room = self.sent.iter().any(Option::is_none);
        (room && matches!(self.stage, Stage::Wanted)).then(|| self.current(after))
    }

    /// The region being read.
    pub fn reading(&self) -> Option<CopyItem> {
        match self.stage {
            Stage::Reading { after } => Some(self.current(after)),
            _ => None,
        }
    }

    /// The region that was read and waits to be sent.
    pub fn read(&self) -> Option<CopyItem> {
        match self.stage {
            Stage::Read { after } => Some(self.current(after)),
            _ => None,
        }
    }

    /// Reading starts; the copy's place in the stream is after record `after`.
    pub fn begin(&mut self, after: Seq) {
        if matches!(self.stage, Stage::Wanted) {
            self.stage = Stage::Reading { after };
        }
    }

    /// Reading ended when the commit point was `commit`.
    pub fn done_reading(&mut self, commit: Seq) {
        if let Stage::Reading { after } = self.stage {
            self.stage = Stage::Read { after };
            self.last_commit = Some(commit);
        }
    }

    /// The copy was sent.
    pub fn sent(&mut self) {
        let done = self.current(Seq::NONE);
        self.item = done.item;
        self.cursor = done.range.end();
        if let Some(place) = self.sent.iter_mut().find(|s| s.is_none()) {
            *place = Some(Sent {
                item: self.item,
                cursor: (self.volume, self.cursor),
            });
        }
        self.stage = if self.cursor < self.size {
            Stage::Wanted
        } else {
            Stage::VolumeDone
        };
    }

    /// The peer reported all copies up to `item` durable; the item after the last one: the end.
    pub(super) fn acknowledged(&mut self, item: u64) -> Result<Copied, WireError> {
        let ends = matches!(self.stage, Stage::Told | Stage::Over);
        if item > self.item.saturating_add(u64::from(ends)) {
            return Err(WireError::Field(
                "acknowledgement (of a region copy that was not sent)",
            ));
        }
        if item > self.item && self.stage == Stage::Told {
            self.stage = Stage::Over;
            return Ok(Copied::Over);
        }
        let (before, mut newest) = (self.durable, 0);
        for place in &mut self.sent {
            if let Some(s) = place.take_if(|s| s.item <= item) {
                if s.item > newest {
                    newest = s.item;
                    self.durable = s.cursor;
                }
            }
        }
        Ok(if self.durable == before {
            Copied::Nothing
        } else {
            Copied::Moved(self.durable)
        })
    }

    /// When all regions of a volume were sent: goes on with the next volume, or ends. `commit`: the commit point now, for a
    /// sync that had nothing to read.
    pub(super) fn go_on<'a>(&mut self, mut volumes: impl Iterator<Item = &'a Volume>, commit: Seq) {
        if self.stage == Stage::VolumeDone {
            // The present one, then those behind it.
            let _ = volumes.find(|v| v.id == self.volume);
        }
        while self.stage == Stage::VolumeDone {
            match volumes.next() {
                Some(v) => {
                    (self.volume, self.size, self.cursor) = (v.id, v.size, Sector(0));
                    if v.size.0 > 0 {
                        self.stage = Stage::Wanted;
                    }
                }
                None => {
                    let end = self.last_commit.unwrap_or(commit);
                    self.stage = Stage::Ended { end };
                }
            }
        }
    }

    /// The end, once known and not told yet.
    pub(super) fn end(&self) -> Option<Send> {
        match self.stage {
            Stage::Ended { end } => Some(Send::RecordEnd(end)),
            Stage::Recorded { end } => Some(Send::SyncEnd {
                end,
                items: self.item,
            }),
            _ => None,
        }
    }

    /// The superblock says where it ends.
    pub(super) fn end_recorded(&mut self) {
        if let Stage::Ended { end } = self.stage {
            self.stage = Stage::Recorded { end };
        }
    }

    /// The end was told.
    pub(super) fn end_sent(&mut self) {
        if let Stage::Recorded { .. } = self.stage {
            self.stage = Stage::Told;
        }
    }

    /// Whether copies were sent that the peer has not reported durable.
    pub fn is_outstanding(&self) -> bool {
        self.sent.iter().any(Option::is_some)
    }

    /// Volume and sector up to which the copies are durable at the peer.
    pub fn cursor(&self) -> (VolumeId, Sector) {
        self.durable
    }
}
