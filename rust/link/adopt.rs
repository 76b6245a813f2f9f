// SPDX-License-Identifier: GPL-2.0

//! The secondary takes a welcome: the primary's lineage, durably, before anything of the session is believed.
//!
//! *Resuming*: everything above the fork never was. The superblock says so first; then the log is scanned again
//! under the new lineage for its end, and memory is cut. *Beginning anew* (a sync, or declared equality):
//! one superblock write makes lineage, position, empty log and `inconsistent` durable together.
//!
//! The applier stands still and the log is idle meanwhile. On refusal nothing was changed.

use super::error::{self, SessionError};
use crate::{
    event::{self, Code as Event, Severity},
    group::{
        epochs::EpochTable,
        scan::{scan, Scanned},
        Group,
    },
    reason::Reason,
    refuse::Refusal,
};
use kernel::prelude::*;
use replicate_core::{
    group::{Replica, Volume},
    log::{
        ring::Place,
        superblock::{Superblock, Tail},
    },
    node::{
        durable::adopt::{self as durable, AdoptError, History, Restart},
        Log,
    },
    session::meet::{self, VolumeFault, Why},
    units::{Bytes, Seq},
    wire::{Code, Start, Welcome},
};
use replicate_linux::{clock, kthread::should_stop};

/// How long the log may take to write what it was given before.
const DRAIN_NS: u64 = 30_000_000_000;

/// What the session needs of the welcome.
pub(super) struct Adopted {
    pub(super) session: u64,
    pub(super) resume: Seq,
    /// The primary's newest record.
    pub(super) head: Seq,
    /// The replica is inconsistent until a sync ends.
    pub(super) sync: bool,
    pub(super) volumes: KVec<Volume>,
}

/// Takes a welcome. Sleeps; no lock may be held.
pub(super) fn welcome(group: &Group, w: &Welcome<'_>) -> Result<Adopted, SessionError> {
    let h = &w.head;
    let uuid = group.identity().uuid;
    if !uuid.is_none() && uuid != h.group {
        return Err(SessionError::refused(
            Reason::GroupMismatch,
            Code::OtherGroup,
            format_args!("the primary's group {} is another group than this secondary's (uuid {}, here {uuid}): format this SRL again to join it", h.group_name.as_str(), h.group),
        ));
    }
    let volumes = check_volumes(group, w)?;
    if h.fork.seq > h.head.seq || h.resume > h.fork.seq.next() {
        return Err(nonsense("a welcome that resumes above the fork"));
    }
    drain(group)?;
    let still = group.pause_applier();
    match h.start {
        Start::SyncBegins | Start::AssumeClean => begin_anew(group, w)?,
        Start::Resume | Start::SyncGoesOn => resume(group, w)?,
    }
    group.drop_copies();
    drop(still);
    group
        .number_volumes()
        .map_err(|_| SessionError::no_memory())?;
    group.log_wake.notify();
    group.apply_wake.notify();
    let sync = group.inner.lock().node.copies.is_syncing();
    Ok(Adopted {
        session: h.session,
        resume: h.resume,
        head: h.head.seq,
        sync,
        volumes,
    })
}

fn nonsense(what: &'static str) -> SessionError {
    SessionError::closed(
        Reason::Protocol,
        Code::Protocol,
        format_args!("connection dropped: {what}"),
    )
}

/// Whether the primary's volumes are all here, and fit.
fn check_volumes(group: &Group, w: &Welcome<'_>) -> Result<KVec<Volume>, SessionError> {
    let mut volumes =
        KVec::with_capacity(w.volumes.len(), GFP_KERNEL).map_err(|_| SessionError::no_memory())?;
    for v in w.volumes.iter() {
        let name = v.name.as_str();
        let here = group.volume_named(&v.name).map(|l| l.describe());
        let fault = meet::check_volume(&v, here.as_ref());
        let text = match fault {
            Ok(()) => None,
            Err(VolumeFault::Missing) => {
                Some((Reason::VolumeMissing, Code::VolumeMissing, "is not active"))
            }
            Err(VolumeFault::TooSmall { .. }) => {
                Some((Reason::VolumeTooSmall, Code::VolumeSize, "is too small"))
            }
            Err(VolumeFault::BlockTooLarge { .. }) => Some((
                Reason::BlockSize,
                Code::VolumeBlock,
                "has too large logical blocks",
            )),
        };
        if let Some((reason, code, what)) = text {
            return Err(SessionError::refused(
                reason,
                code,
                format_args!("volume {name} {what} on the secondary"),
            ));
        }
        let known = group
            .srl
            .read(|sb| {
                let by_name = sb.find_volume(&v.name);
                let by_id = sb.find_volume_id(v.id);
                by_name == by_id
            })
            .map_err(|_| SessionError::no_memory())?;
        if !known {
            return Err(SessionError::refused(
                Reason::GroupMismatch,
                Code::OtherGroup,
                format_args!("volume {name} has another number in the secondary's volume table: the two were not made by the same group; format the secondary's SRL again"),
            ));
        }
        volumes
            .push(v, GFP_KERNEL)
            .map_err(|_| SessionError::no_memory())?;
    }
    Ok(volumes)
}

/// Waits until the log holds everything that memory has in order: no session brings more.
fn drain(group: &Group) -> Result<(), SessionError> {
    let start = clock::monotonic_ns();
    let idle = || {
        let inner = group.inner.lock();
        match &inner.node.log {
            Log::Ring(w) => {
                w.has_failed() || (w.is_idle() && w.logged_head() >= inner.node.window.head())
            }
            Log::NoRing(_) => true,
        }
    };
    while !idle() {
        if should_stop() || clock::monotonic_ns().saturating_sub(start) > DRAIN_NS {
            return Err(SessionError::closed(
                Reason::LogFailed,
                Code::NotReady,
                format_args!("the secondary's log is still busy with the former session"),
            ));
        }
        group.log_wake.notify();
        group.moved.wait_until(20, idle);
    }
    if group.inner.lock().node.log_failed() {
        return Err(SessionError::closed(
            Reason::LogFailed,
            Code::Failed,
            format_args!(
                "the secondary's SRL has failed: replace it, format it, and synchronise fully"
            ),
        ));
    }
    Ok(())
}

/// The same history goes on.
#[inline(never)]
fn resume(group: &Group, w: &Welcome<'_>) -> Result<(), SessionError> {
    let h = &w.head;
    let fork = h.fork.seq;
    let (rescan, commit) = {
        let inner = group.inner.lock();
        let e = &inner.node;
        if !e.welcome_fits(h.start.is_sync()) {
            drop(inner);
            return Err(SessionError::closed(
                Reason::Reset,
                Code::NotReady,
                format_args!(
                    "the synchronisation ended while the hosts were meeting; they meet again"
                ),
            ));
        }
        if let Err(why) = meet::may_truncate(e.applied_bound(), fork) {
            drop(inner);
            return Err(error::verdict(why, false));
        }
        if let (Some(mine), Some(theirs)) = (e.window.chain_at(fork), h.fork_chain) {
            if mine != theirs {
                drop(inner);
                return Err(error::verdict(Why::ChainDiffers, false));
            }
        }
        if e.head().min(fork) < h.resume.prev() {
            drop(inner);
            return Err(nonsense("a welcome that leaves out records"));
        }
        (e.must_rescan(fork), e.adopted_commit(fork))
    };
    let table = update(group, w, |sb, history| {
        durable::resume(sb, history, w.volumes.iter(), commit)
    })?;
    let place = if rescan {
        Some(end_of_log(group, fork)?)
    } else {
        None
    };
    let mut inner = group.inner.lock();
    inner.epochs = table;
    let cut = inner.node.truncate(fork, place);
    inner.forget_orphaned();
    inner.node.session_began();
    drop(inner);
    if cut {
        Ok(())
    } else {
        Err(error::verdict(Why::PeerAhead, false))
    }
}

/// Where the log ends under the lineage that is durable now.
fn end_of_log(group: &Group, fork: Seq) -> Result<Place, SessionError> {
    let shown = group.srl.path().to_str().unwrap_or("?");
    let uuid = group.identity().uuid;
    let scanned: Result<Scanned, Refusal> = group
        .srl
        .read(|sb| scan(&group.srl, sb, uuid, Seq::NONE, shown))
        .map_err(Refusal::from)
        .and_then(|r| r);
    match scanned {
        Ok(s) if s.head == fork => Ok(s.place),
        Ok(s) => Err(broken(
            group,
            Refusal::new(
                EIO,
                format_args!(
                    "SRL {shown}: the log ends at record {} although it held more: it is damaged",
                    s.head
                ),
            ),
        )),
        Err(refusal) => Err(broken(group, refusal)),
    }
}

/// The log cannot be used any more.
fn broken(group: &Group, refusal: Refusal) -> SessionError {
    let ended = SessionError::own(
        Reason::LogCorrupt,
        Refusal::new(refusal.error, format_args!("{}", refusal.text())),
    );
    group.fail(refusal);
    ended
}

/// Everything that this host had is given up: it begins at the fork, inconsistent or declared equal.
#[inline(never)]
fn begin_anew(group: &Group, w: &Welcome<'_>) -> Result<(), SessionError> {
    let h = &w.head;
    let start = h.fork;
    let chain = h
        .fork_chain
        .ok_or_else(|| nonsense("a welcome without the chain value that it begins with"))?;
    if h.resume != start.seq.next() {
        return Err(nonsense("a welcome that does not begin at its fork"));
    }
    let (offset, lap) = {
        let inner = group.inner.lock();
        match &inner.node.log {
            Log::Ring(log) => (
                log.ring.offset(log.ring.head()),
                log.ring.lap(log.ring.head()),
            ),
            Log::NoRing(_) => (Bytes(0), 0),
        }
    };
    let sync = h.start.is_sync();
    let restart = Restart {
        start,
        chain,
        tail: Tail {
            seq: start.seq.next(),
            offset,
            lap,
            chain,
        },
        sync,
        time_ns: clock::wall_ns(),
    };
    let table = update(group, w, |sb, history| {
        durable::restart(sb, history, w.volumes.iter(), &restart)
    })?;
    let mut inner = group.inner.lock();
    inner.epochs = table;
    inner.sync_cursor = None;
    inner.node.restart_at(start.seq, chain, sync);
    inner.forget_orphaned();
    inner.node.session_began();
    drop(inner);
    group.identity.lock().replica = if sync {
        Replica::Inconsistent
    } else {
        Replica::Consistent
    };
    let text = if sync {
        "inconsistent: a full synchronisation began"
    } else {
        "consistent: declared equal to the primary"
    };
    event::group(group, Event::ReplicaState, Severity::Info, text);
    Ok(())
}

/// Writes the superblock that adopts the primary's history.
#[inline(never)]
fn update(
    group: &Group,
    w: &Welcome<'_>,
    change: impl FnOnce(&mut Superblock, &History<'_>) -> Result<(), AdoptError>,
) -> Result<EpochTable, SessionError> {
    let shown = group.srl.path().to_str().unwrap_or("?");
    let history = History {
        group: w.head.group,
        name: group.name,
        lineage: w.lineage,
    };
    let written = group.srl.update(|sb| -> Result<EpochTable, Refusal> {
        change(sb, &history).map_err(|e| Refusal::new(EINVAL, format_args!("SRL {shown}: {e}")))?;
        Ok(EpochTable::of(&sb.lineage())?)
    });
    let table = written.map_err(|r| SessionError::own(Reason::LogFailed, r))?;
    let mut identity = group.identity.lock();
    identity.uuid = w.head.group;
    if let Some(newest) = w.lineage.newest() {
        identity.epoch = newest.id;
    }
    Ok(table)
}
