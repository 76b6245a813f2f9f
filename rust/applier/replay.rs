// SPDX-License-Identifier: GPL-2.0

//! Replay: records of this host's own log that the data volumes may lack.
//!
//! *After a start* the window is filled from the log as it empties, and the usual rounds apply it. *What a replica dropped from
//! memory* while it stood still is applied in rounds of the log. *A volume with a floor*
//! (it came late, was suspended, or a device failed) is brought up by its own records alone, a batch of the log in each
//! turn: replaying the others' again would make their reads go back in time. Which, from where and to where is
//! decided by the node ([`replicate_core::node::volumes`]).

use super::Applier;
use crate::{
    event::{self, Code, Severity},
    reason::Reason,
    refuse::Text,
    srl::{cursor::Cursor, reader::NoBatch},
    volume::Volume,
};
use kernel::prelude::*;
use replicate_core::{
    node::volumes::Replay,
    units::{Op, Record, Seq},
};
use replicate_linux::{
    bio::{plugged, Flags, SyncIo},
    errno::ENODATA,
    pages::PageBuf,
};

impl Applier {
    /// Loads records for replay while there is room; `true` when some were.
    pub(super) fn load(&mut self) -> bool {
        let mut any = false;
        loop {
            let wanted = self.group.inner.lock().node.wants_load();
            let Some(seq) = wanted else {
                return any;
            };
            match self.load_from(seq) {
                Ok(0) => return any,
                Ok(_) => any = true,
                Err(e) => {
                    self.unreadable(seq, e);
                    return false;
                }
            }
        }
    }

    fn unreadable(&self, seq: Seq, e: Error) {
        self.group.fail(crate::refuse::Refusal::new(
            e,
            format_args!(
                "SRL {}: record {seq} cannot be read back for replay (error {})",
                self.group.srl.path().to_str().unwrap_or("?"),
                e.to_errno()
            ),
        ));
    }

    /// A round of records that are in the log only; `true` when there was one.
    pub(super) fn apply_logged(&mut self, from: Seq) -> bool {
        let Some(mut cursor) = self.loader.take() else {
            return false;
        };
        let done = self.logged_round(&mut cursor, from);
        self.loader = Some(cursor);
        match done {
            Ok(some) => {
                self.tell_unread(false, from);
                some
            }
            // It has all that it acknowledged, if its device can be read again: it stands still and tries.
            Err(NoBatch::Io(_)) => {
                self.tell_unread(true, from);
                false
            }
            Err(e @ NoBatch::NotThere) => {
                self.unreadable(from, error(e));
                false
            }
        }
    }

    /// Says once that the log cannot be read, and once that it can again.
    fn tell_unread(&mut self, unread: bool, from: Seq) {
        if core::mem::replace(&mut self.told_unread, unread) == unread {
            return;
        }
        let group = &self.group;
        if unread {
            let text = Text::new(format_args!(
                "SRL {}: record {from} cannot be read; the replica stands still and tries again: repair the device",
                group.srl.path().to_str().unwrap_or("?")
            ));
            event::group(group, Code::SrlDegraded, Severity::Critical, text.as_str());
            group.set_reason(Reason::SrlDegraded, text.as_str());
        } else {
            let text = "the log is read again";
            event::group(group, Code::SrlDegraded, Severity::Info, text);
            group.set_reason(Reason::None, "");
        }
    }

    fn logged_round(&mut self, cursor: &mut Cursor, from: Seq) -> Result<bool, NoBatch> {
        let group = self.group.clone();
        cursor.set_group(group.identity().uuid);
        // The applier stands still while a history is adopted: what is read stays true until the round has ended.
        cursor.seek(&group, from)?;
        let read = || cursor.records().filter(move |(r, _)| r.seq >= from);
        let begun = {
            let mut inner = group.inner.lock();
            inner.node.begin_logged(read().map(|(r, _)| r))
        };
        let Some((_, last)) = begun else {
            return Ok(false);
        };
        plugged(|| {
            for (record, bytes) in read().take_while(|(r, _)| r.seq <= last) {
                self.write_logged(&record, bytes);
            }
        });
        self.reap(true);
        group.inner.lock().node.round_done();
        Ok(true)
    }

    /// Starts the data write of a record of such a round, or does it.
    fn write_logged(&mut self, record: &Record, bytes: &[u8]) {
        let volume = {
            let inner = self.group.inner.lock();
            if !inner.node.writes(record) {
                return;
            }
            inner.volume(record.range.volume)
        };
        let Some(volume) = volume else {
            self.missed(record);
            return;
        };
        let mut buf = self.reserve.try_take(bytes.len());
        buf.take_if(|b| b.write_at(0, bytes).is_err());
        if record.op == Op::Write && buf.is_none() {
            if write_one(&mut self.io, &volume, record, bytes).is_err() {
                self.group.fail_volume(&volume, "write", "I/O error");
            }
        } else if self.send(*record, buf.as_ref(), volume).is_some() {
            self.missed(record);
        }
    }

    /// Returns the cursor, and what else replay works with.
    fn cursor(&mut self) -> Result<(&mut Cursor, &mut SyncIo)> {
        let cursor = self.loader.as_mut().ok_or(EINVAL)?;
        // A secondary has the group's uuid from its first primary.
        cursor.set_group(self.group.identity().uuid);
        Ok((cursor, &mut self.io))
    }

    /// Loads the rest of the batch that holds `seq`; how many records were taken. 0: memory is short now.
    fn load_from(&mut self, seq: Seq) -> Result<usize> {
        let group = self.group.clone();
        let (cursor, _) = self.cursor()?;
        cursor.seek(&group, seq).map_err(error)?;
        let mut n = 0;
        for (record, bytes) in cursor.records().filter(|(r, _)| r.seq >= seq) {
            let payload = match record.op {
                Op::Write => {
                    let Some(buf) = to_pages(&group, bytes) else {
                        return Ok(n);
                    };
                    Some(buf.share())
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

    /// Opens volumes that lack nothing; `true` when one was.
    pub(super) fn open_volumes(&mut self) -> bool {
        let mut any = false;
        loop {
            let opened = {
                let mut inner = self.group.inner.lock();
                let opened = inner.node.open_volume();
                if opened.is_some() {
                    inner.show_states();
                }
                opened.map(|(id, state)| (inner.volume(id), state))
            };
            let Some((volume, state)) = opened else {
                return any;
            };
            any = true;
            if let Some(volume) = volume {
                event::volume(
                    &self.group,
                    &volume,
                    Code::VolumeState,
                    Severity::Info,
                    state.name(),
                );
            }
            self.group.log_wake.notify();
        }
    }

    /// Writes a batch of the log again to volumes that come back, or flushes one that has everything; `true` when there
    /// was something to do.
    pub(super) fn replay(&mut self) -> bool {
        let (planned, to_flush) = {
            let mut inner = self.group.inner.lock();
            let planned = inner.node.plan_replay();
            if planned.is_some() {
                inner.show_states();
            }
            let id = inner.node.volume_to_flush();
            (planned, id.and_then(|id| Some((id, inner.volume(id)?))))
        };
        if let Some((id, volume)) = to_flush {
            if self.group.flush_volume(&volume) {
                let mut inner = self.group.inner.lock();
                inner.node.volume_replayed(id);
                inner.show_states();
            }
            return true;
        }
        let Some(replay) = planned else {
            return false;
        };
        if let Err(e) = self.replay_batch(replay) {
            loop {
                let failed = {
                    let mut inner = self.group.inner.lock();
                    let id = inner.node.replay_failed();
                    id.map(|id| inner.volume(id))
                };
                match failed {
                    Some(Some(volume)) => self.group.fail_replay(&volume, e),
                    Some(None) => {}
                    None => break,
                }
            }
        }
        true
    }

    fn replay_batch(&mut self, replay: Replay) -> Result {
        let group = self.group.clone();
        let (cursor, io) = self.cursor()?;
        cursor.seek(&group, replay.from).map_err(error)?;
        let mut upto = replay.from;
        let wanted = |r: &Record| r.seq >= replay.from && r.seq <= replay.upto;
        for (record, bytes) in cursor.records().filter(|(r, _)| wanted(r)) {
            let volume = {
                let inner = group.inner.lock();
                let replays = inner.node.replays(&record);
                replays.then(|| inner.volume(record.range.volume)).flatten()
            };
            if let Some(volume) = volume {
                if write_one(io, &volume, &record, bytes).is_err() {
                    group.fail_volume(&volume, "replay", "I/O error");
                }
            }
            upto = record.seq;
        }
        group.inner.lock().node.replayed(replay, upto);
        Ok(())
    }
}

fn error(e: NoBatch) -> Error {
    match e {
        NoBatch::Io(e) => e,
        NoBatch::NotThere => ENODATA.into(),
    }
}

/// Writes one record to a data device. May sleep.
fn write_one(io: &mut SyncIo, volume: &Volume, record: &Record, bytes: &[u8]) -> Result {
    let (dev, sector) = (&volume.data, record.range.sector.0);
    let sectors = u64::from(record.range.sectors);
    match record.op {
        Op::Write => io.write(dev, sector, bytes, Flags::NONE),
        Op::WriteZeroes => io.zeroout(dev, sector, sectors, record.no_unmap),
        Op::Discard => {
            // Undefined content needs no device that can discard.
            let _ = io.discard(dev, sector, sectors);
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
