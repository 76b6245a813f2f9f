// SPDX-License-Identifier: GPL-2.0

//! Replay: records of this host's own log that the data volumes may lack.
//!
//! *After a start* the window is filled from the log as it empties, and the usual rounds apply it. *A volume
//! that comes late* (or comes back after its device failed) is brought up to what the others have by its
//! own records alone: replaying the others' again would make their reads go back in time.

use super::Applier;
use crate::{
    event::{self, Code, Severity},
    srl::{cursor::Cursor, reader::NoBatch},
    volume::{State, Volume},
};
use kernel::{prelude::*, sync::Arc};
use replicate_core::{
    node::{Log, Role},
    units::{Op, Record, Seq},
};
use replicate_linux::{bio::Flags, errno::ENODATA, pages::PageBuf};

/// Reads the log for replay.
pub(crate) type Loader = Cursor;

impl Applier {
    /// Loads records for replay while there is room; `true` when some were.
    pub(super) fn load(&mut self) -> bool {
        let mut any = false;
        loop {
            let wanted = self.group.inner.lock().node.wants_load();
            let Some(seq) = wanted else {
                if any {
                    self.loader = None;
                }
                return any;
            };
            match self.load_from(seq) {
                Ok(0) => return any,
                Ok(_) => any = true,
                Err(e) => {
                    self.loader = None;
                    self.group.fail(crate::refuse::Refusal::new(
                        e,
                        format_args!(
                            "SRL {}: record {seq} cannot be read back for replay (error {})",
                            self.group.srl.path().to_str().unwrap_or("?"),
                            e.to_errno()
                        ),
                    ));
                    return false;
                }
            }
        }
    }

    fn cursor(&mut self) -> Result<&mut Cursor> {
        if self.loader.is_none() {
            let uuid = self.group.identity().uuid;
            self.loader = Some(Cursor::new(&self.group.srl, uuid)?);
        }
        self.loader.as_mut().ok_or(ENOMEM)
    }

    /// Loads the rest of the batch that holds `seq`; how many records were taken. 0: memory is short now.
    fn load_from(&mut self, seq: Seq) -> Result<usize> {
        let group = self.group.clone();
        let cursor = self.cursor()?;
        cursor.seek(&group, seq).map_err(error)?;
        let mut n = 0;
        for (record, bytes) in cursor.records().filter(|(r, _)| r.seq >= seq) {
            let payload = match record.op {
                Op::Write => {
                    let Some(buf) = to_pages(&group, bytes) else {
                        return Ok(n);
                    };
                    Some(Arc::new(buf, GFP_KERNEL)?)
                }
                Op::Discard | Op::WriteZeroes | Op::Marker => None,
            };
            let mut inner = group.inner.lock();
            if !cursor.is_of(&inner.node.log) || !inner.node.load(record) {
                return Ok(n);
            }
            inner.keep(record.seq, payload);
            n += 1;
        }
        Ok(n)
    }

    /// Opens volumes whose replay is over, and replays those that came late.
    pub(super) fn late_volumes(&mut self) -> bool {
        let mut any = false;
        let Ok(present) = self.group.present() else {
            return false;
        };
        for volume in present {
            if volume.state() != State::Parked || volume.id().is_none() {
                continue;
            }
            let (replaying, from, to, role) = {
                let inner = self.group.inner.lock();
                let a = &inner.node.applier;
                (
                    inner.node.is_replaying(),
                    a.clean(),
                    a.applied(),
                    inner.node.role(),
                )
            };
            if replaying {
                continue;
            }
            if from < to && !self.replay_alone(&volume, from, to) {
                continue;
            }
            self.open(&volume, role);
            any = true;
        }
        if any {
            self.unpin();
        }
        any
    }

    /// Writes this volume's records in `(from, to]`, read from the log, one after the other.
    fn replay_alone(&mut self, volume: &Arc<Volume>, from: Seq, to: Seq) -> bool {
        if matches!(self.group.inner.lock().node.log, Log::NoRing(_)) {
            return false;
        }
        volume.set_state(State::Replaying);
        let result = self.replay_range(volume, from.next(), to);
        volume.set_state(State::Parked);
        if let Err(e) = result {
            self.group.fail_volume(
                volume,
                "replay",
                if e == EIO {
                    "I/O error"
                } else {
                    "log not readable"
                },
            );
            return false;
        }
        self.group.flush_volume(volume)
    }

    fn replay_range(&mut self, volume: &Arc<Volume>, from: Seq, to: Seq) -> Result {
        let group = self.group.clone();
        let id = volume.id().ok_or(EINVAL)?;
        let mut seq = from;
        while seq <= to {
            let cursor = self.cursor()?;
            cursor.seek(&group, seq).map_err(error)?;
            for (record, bytes) in cursor
                .records()
                .filter(|(r, _)| r.seq >= seq && r.seq <= to)
            {
                if record.range.volume == id {
                    write_one(volume, &record, bytes)?;
                }
            }
            seq = cursor
                .records()
                .map(|(r, _)| r.seq)
                .max()
                .unwrap_or(to)
                .next();
        }
        Ok(())
    }

    fn open(&self, volume: &Volume, role: Role) {
        let state = match role {
            Role::Primary => State::Active,
            Role::Secondary => State::Replica,
        };
        let inner = self.group.inner.lock();
        volume.set_state(state);
        drop(inner);
        event::volume(
            &self.group,
            volume,
            Code::VolumeState,
            Severity::Info,
            state.name(),
        );
        self.group.log_wake.notify();
    }

    /// Once every volume of the table is there and served, nothing below `applied` is missing anywhere.
    fn unpin(&self) {
        let mut inner = self.group.inner.lock();
        let healthy = inner.attached.iter().all(|l| {
            !matches!(
                l.volume.state(),
                State::Failed | State::Parked | State::Replaying
            )
        });
        if healthy && self.group.all_present(&inner) {
            inner.node.applier.unpin();
        }
    }
}

fn error(e: NoBatch) -> Error {
    match e {
        NoBatch::Io(e) => e,
        NoBatch::NotThere => ENODATA,
    }
}

/// Writes one record to a data device. May sleep.
fn write_one(volume: &Volume, record: &Record, bytes: &[u8]) -> Result {
    let sector = record.range.sector.0;
    let sectors = u64::from(record.range.sectors);
    match record.op {
        Op::Write => volume.data.write_sync(sector, bytes, Flags::NONE),
        Op::WriteZeroes => volume.data.zeroout_sync(sector, sectors, record.no_unmap),
        Op::Discard => {
            // Undefined content needs no device that can discard.
            let _ = volume.data.discard_sync(sector, sectors);
            Ok(())
        }
        Op::Marker => Ok(()),
    }
}

/// A payload in pool pages. Used by whoever reads a record back.
pub(crate) fn to_pages(group: &crate::group::Group, bytes: &[u8]) -> Option<PageBuf> {
    let mut buf = group.pool.try_take(bytes.len())?;
    buf.write_at(0, bytes).ok()?;
    Some(buf)
}
