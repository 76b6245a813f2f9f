// SPDX-License-Identifier: GPL-2.0

//! Reading the log for a link: records whose pages are gone, and chain values that memory no longer knows.
//!
//! A link that drains an outage reads each batch once and in order. Everything read is verified. What is not there
//! any more was given up for this link; the session then ends and the link needs a sync. Sleeps.

use super::error::{self, SessionError};
use crate::{
    group::Group,
    reason::Reason,
    refuse::Refusal,
    srl::{cursor::Cursor, reader::NoBatch},
};
use kernel::prelude::*;
use replicate_core::{
    log::format::MAX_BATCH_RECORDS,
    node::Log,
    session::meet::Why,
    units::{Chain, Record, Seq},
};
use replicate_linux::pages::SharedBuf;

/// A record with its payload.
pub(crate) type Held = (Record, Option<SharedBuf>);

/// See the module.
pub(crate) struct ReadBack {
    cursor: Cursor,
    ready: KVec<Held>,
    at: usize,
}

impl ReadBack {
    /// A reader of the group's log. May sleep.
    pub(crate) fn new(group: &Group) -> Result<ReadBack> {
        Ok(ReadBack {
            cursor: Cursor::new(&group.srl, group.identity().uuid)?,
            ready: KVec::with_capacity(MAX_BATCH_RECORDS as usize, GFP_KERNEL)?,
            at: 0,
        })
    }

    /// Record `seq` from the log; `None` while there is no memory for its payload.
    pub(crate) fn get(&mut self, group: &Group, seq: Seq) -> Result<Option<Held>, SessionError> {
        let here = |r: &ReadBack| r.ready.get(r.at).is_some_and(|h| h.0.seq == seq);
        if !here(self) {
            self.fill(group, seq)?;
        }
        if !here(self) {
            return Ok(None);
        }
        let held = match self.ready.get_mut(self.at) {
            Some((record, payload)) => (*record, payload.take()),
            None => return Ok(None),
        };
        self.at += 1;
        Ok(Some(held))
    }

    /// Takes what memory allows of the batch that holds `seq`, from there on.
    fn fill(&mut self, group: &Group, seq: Seq) -> Result<(), SessionError> {
        self.ready.clear();
        self.at = 0;
        self.cursor.seek(group, seq).map_err(|e| gone(group, e))?;
        for (record, bytes) in self.cursor.records().filter(|(r, _)| r.seq >= seq) {
            let payload = if bytes.is_empty() {
                None
            } else {
                let Some(mut buf) = group.pool.try_take(bytes.len()) else {
                    return Ok(());
                };
                if buf.write_at(0, bytes).is_err() {
                    return Ok(());
                }
                Some(buf.share())
            };
            if self.ready.push_within_capacity((record, payload)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives the pages back; the batch that they were taken from stays.
    pub(crate) fn release(&mut self) {
        self.ready.clear();
        self.at = 0;
    }

    /// Forgets what was read: another session may want something else.
    pub(crate) fn forget(&mut self) {
        self.release();
        self.cursor.forget();
    }
}

fn gone(group: &Group, e: NoBatch) -> SessionError {
    match e {
        NoBatch::NotThere => error::verdict(Why::Trimmed, false),
        NoBatch::Io(e) => SessionError::own(
            Reason::LogFailed,
            Refusal::new(
                e,
                format_args!(
                    "reading the log back from the SRL of group {} failed (error {}); trying again; if it stays so, use 'dmrepl sync --full' on the primary",
                    group.name.as_str(),
                    e.to_errno()
                ),
            ),
        ),
    }
}

/// Chain value after `seq`, from memory or from the log; `None`: neither holds it. Sleeps; no lock but the superblock's
/// may be held.
///
/// # Errors
///
/// Memory is short, or the log cannot be read now: nobody may conclude that it is not there.
pub(crate) fn chain_at(group: &Group, seq: Seq) -> Result<Option<Chain>, SessionError> {
    {
        let inner = group.inner.lock();
        if let Some(chain) = inner.node.chain_at(seq) {
            return Ok(Some(chain));
        }
        let Log::Ring(w) = &inner.node.log else {
            return Ok(None);
        };
        let after = w.index.find(seq.next());
        if let Some(m) = after.filter(|m| m.first == seq.next()) {
            return Ok(Some(m.chain));
        }
    }
    let mut cursor =
        Cursor::new(&group.srl, group.identity().uuid).map_err(|_| SessionError::no_memory())?;
    match cursor.seek(group, seq) {
        Ok(()) => Ok(Some(cursor.chain_after(seq))),
        Err(NoBatch::NotThere) => Ok(None),
        Err(e) => Err(gone(group, e)),
    }
}
