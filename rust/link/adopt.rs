// SPDX-License-Identifier: GPL-2.0

//! The secondary takes a welcome: the primary's lineage, durably, before anything of the session is believed.
//!
//! *Resuming*: everything above the fork never was. The superblock says so first; then the log is scanned again
//! under the new lineage for its end, and memory is cut. *Beginning anew* (a sync, or declared equality):
//! one superblock write makes lineage, position, empty log and `inconsistent` durable together.
//!
//! Before any of it the session that brought records until now is revoked and has ended
//! (`replicate_core::node::inbound` has the order and the trace). The applier stands still and the log is idle
//! meanwhile. On refusal nothing was changed on disk.

use super::{
    error::{self, SessionError},
    Link,
};
use crate::{
    event::{self, Code as Event, Severity},
    group::{
        epochs::EpochTable,
        inner::Phase,
        scan::{scan, ScanFrom},
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
        inbound::{Inbound, NoAdoption, Stated},
        secondary::{BadTerms, Terms},
        Log,
    },
    session::{
        meet::{self, Succession, VolumeFault, Why},
        SessionId,
    },
    units::{Bytes, Chain, Seq},
    wire::{Code, Start, Welcome},
};
use replicate_linux::{clock, kthread::should_stop};

/// How long the session of a former primary may take to end: its thread waits for nothing but its own connection.
const LEAVE_NS: u64 = 30_000_000_000;
/// How long the log may take to write what it was given before.
const DRAIN_NS: u64 = 30_000_000_000;

/// What the session needs of the welcome.
pub(super) struct Adopted {
    /// The session's right to bring records.
    pub(super) owner: Inbound,
    pub(super) resume: Seq,
    /// The primary's newest record.
    pub(super) head: Seq,
    /// The replica is inconsistent until a sync ends.
    pub(super) sync: bool,
    pub(super) volumes: KVec<Volume>,
}

/// An adoption under way on a link; ends when it is dropped.
struct Adoption<'a> {
    group: &'a Group,
    link: &'a Link,
}

impl Drop for Adoption<'_> {
    fn drop(&mut self) {
        self.group.inner.lock().node.adoption_failed(self.link.id);
    }
}

/// Takes a welcome that answers what this host `stated`. Sleeps; no lock may be held.
pub(super) fn welcome(
    group: &Group,
    link: &Link,
    stated: Stated,
    w: &Welcome<'_>,
) -> Result<Adopted, SessionError> {
    let h = &w.head;
    let session =
        SessionId::from_wire(h.session).ok_or_else(|| nonsense("a welcome without a session"))?;
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
    let (adoption, succession) = take_up(group, link, stated, w)?;
    drain(group, link)?;
    let still = group.pause_applier();
    match h.start {
        Start::SyncBegins | Start::AssumeClean => begin_anew(group, w)?,
        Start::Resume | Start::SyncGoesOn => resume(group, link, w, succession)?,
    }
    let owner = group
        .inner
        .lock()
        .session_began(link.id, session)
        .ok_or_else(|| met_again("this host changed its role"))?;
    drop(adoption);
    group.drop_copies();
    drop(still);
    group
        .number_volumes()
        .map_err(|_| SessionError::no_memory())?;
    group.log_wake.notify();
    group.apply_wake.notify();
    let sync = group.inner.lock().node.copies.is_syncing();
    Ok(Adopted {
        owner,
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

/// Whether what waits for the adoption may go on waiting: the link is not told to stop, and its group runs.
fn goes_on(group: &Group, link: &Link) -> bool {
    !should_stop() && link.enabled.get() && group.inner.lock().phase == Phase::Active
}

/// The adoption was stopped before it changed anything.
fn stopped() -> SessionError {
    SessionError::asked(
        Code::Stopping,
        format_args!("the link is told to stop, or its group does not run any more"),
    )
}

/// What this host has is not what it stated any more: not an error of either side.
fn met_again(why: &'static str) -> SessionError {
    SessionError::closed(
        Reason::Reset,
        Code::NotReady,
        format_args!("{why} while the hosts were meeting; they meet again"),
    )
}

/// What a welcome that goes on with this host's history says.
fn terms(w: &Welcome<'_>, succession: Succession) -> Terms {
    Terms {
        fork: w.head.fork.seq,
        fork_chain: w.head.fork_chain,
        resume: w.head.resume,
        sync: w.head.start.is_sync(),
        succession,
    }
}

fn bad_terms(bad: BadTerms) -> SessionError {
    match bad {
        BadTerms::SyncEnded => met_again("the synchronisation ended"),
        BadTerms::Histories(why) => error::verdict(why, false),
        BadTerms::LeavesOut => nonsense("a welcome that leaves out records"),
    }
}

/// Makes sure that the welcome may be taken, and that its session will be the only one that brings records: the one
/// that did so until now has ended when this returns.
#[inline(never)]
fn take_up<'a>(
    group: &'a Group,
    link: &'a Link,
    stated: Stated,
    w: &Welcome<'_>,
) -> Result<(Adoption<'a>, Succession), SessionError> {
    let begins = matches!(w.head.start, Start::SyncBegins | Start::AssumeClean);
    let succession = group
        .srl
        .read(|sb| meet::may_adopt(&sb.lineage(), &w.lineage, begins))
        .map_err(|_| SessionError::no_memory())?
        .map_err(|why| error::verdict(why, false))?;
    let begun = {
        let mut inner = group.inner.lock();
        let terms = if begins {
            Ok(())
        } else {
            inner.node.check_terms(&terms(w, succession))
        };
        // The lineage above is the one that was stated, or this fails.
        terms.map(|()| inner.node.adoption_begins(link.id, stated, succession))
    };
    let former = begun.map_err(bad_terms)?.map_err(|no| match no {
        NoAdoption::Role => met_again("this host changed its role"),
        NoAdoption::Stale => met_again("another primary was taken up"),
        NoAdoption::Failed => SessionError::closed(
            Reason::LogFailed,
            Code::Failed,
            format_args!("the secondary has failed, see its status there"),
        ),
        NoAdoption::Followed(_) => SessionError::closed(
            Reason::Reset,
            Code::Busy,
            format_args!("the secondary follows this primary by another link already"),
        ),
    })?;
    let adoption = Adoption { group, link };
    if former.is_some() {
        group.wake_links();
        let start = clock::monotonic_ns();
        let ended = || group.inner.lock().node.may_adopt();
        while !ended() {
            if !goes_on(group, link) {
                return Err(stopped());
            }
            if clock::monotonic_ns().saturating_sub(start) > LEAVE_NS {
                return Err(met_again("the session with the former primary did not end"));
            }
            group.moved.wait_until(100, ended);
        }
    }
    Ok((adoption, succession))
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
fn drain(group: &Group, link: &Link) -> Result<(), SessionError> {
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
        if !goes_on(group, link) {
            return Err(stopped());
        }
        if clock::monotonic_ns().saturating_sub(start) > DRAIN_NS {
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
///
/// The log is scanned before the superblock is written: it is idle, and a scan that is stopped has changed nothing.
#[inline(never)]
fn resume(
    group: &Group,
    link: &Link,
    w: &Welcome<'_>,
    succession: Succession,
) -> Result<(), SessionError> {
    let fork = w.head.fork.seq;
    let (checked, rescan, commit) = {
        let inner = group.inner.lock();
        let node = &inner.node;
        // Again: more may have been applied until the applier stood still.
        (
            node.check_terms(&terms(w, succession)),
            node.must_rescan(fork),
            node.adopted_commit(fork),
        )
    };
    checked.map_err(bad_terms)?;
    let end = if rescan {
        let end = end_of_log(group, link, w, fork, commit)?;
        // What memory does not hold was not compared before.
        if w.head.fork_chain.is_some_and(|theirs| theirs != end.1) {
            return Err(error::verdict(Why::ChainDiffers, false));
        }
        Some(end)
    } else {
        None
    };
    let table = update(group, w, |sb, history| {
        durable::resume(sb, history, w.volumes.iter(), commit)
    })?;
    let mut inner = group.inner.lock();
    inner.epochs = table;
    let cut = inner.node.truncate(fork, end);
    inner.forget_orphaned();
    drop(inner);
    if cut {
        Ok(())
    } else {
        Err(error::verdict(Why::PeerAhead, false))
    }
}

/// Where the log ends under the lineage that is to be adopted, and the chain value there. `commit`: what it has for
/// certain then.
fn end_of_log(
    group: &Group,
    link: &Link,
    w: &Welcome<'_>,
    fork: Seq,
    commit: Seq,
) -> Result<(Place, Chain), SessionError> {
    let shown = group.srl.path().to_str().unwrap_or("?");
    let epochs = EpochTable::of(&w.lineage).map_err(|_| SessionError::no_memory())?;
    let from = group.srl.read(|sb| {
        durable::may_resume(sb, &w.lineage, commit).map(|()| ScanFrom::of(sb).proven(commit))
    });
    let from = from.map_err(|_| SessionError::no_memory())?;
    let from = from.map_err(|e| unfit(group, e))?;
    let stop = || !goes_on(group, link);
    match scan(&group.srl, &from, &epochs, Seq::NONE, stop) {
        Err(refusal) if refusal.error == EINTR => Err(stopped()),
        Err(refusal) if refusal.error == ENOMEM => Err(SessionError::no_memory()),
        Ok(s) if s.head == fork => Ok((s.place, s.chain)),
        Ok(s) => Err(broken(
            group,
            Reason::LogCorrupt,
            Refusal::new(
                EIO,
                format_args!(
                    "SRL {shown}: the log ends at record {} although it held more: it is damaged",
                    s.head
                ),
            ),
        )),
        Err(refusal) => Err(broken(group, Reason::LogCorrupt, refusal)),
    }
}

/// The log cannot be used any more.
fn broken(group: &Group, reason: Reason, refusal: Refusal) -> SessionError {
    let ended = SessionError::own(
        reason,
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
    inner.node.restart_at(start.seq, chain, sync);
    inner.show_states();
    inner.forget_orphaned();
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

/// The primary's history does not go with what this host has.
fn unfit(group: &Group, why: AdoptError) -> SessionError {
    match why {
        AdoptError::Folded => error::verdict(Why::Folded, false),
        AdoptError::Lineage(_) | AdoptError::Volume(_) => SessionError::refused(
            Reason::GroupMismatch,
            Code::OtherGroup,
            format_args!(
                "SRL {} of the secondary cannot take up the primary's history: {why}",
                group.srl.path().to_str().unwrap_or("?")
            ),
        ),
    }
}

/// Why the superblock of an adoption was not written.
enum Unwritten {
    /// The history is refused: nothing was written.
    Refused(AdoptError),
    /// The device failed: it may say either.
    Device(Error),
}

impl From<Error> for Unwritten {
    fn from(e: Error) -> Unwritten {
        Unwritten::Device(e)
    }
}

/// Writes the superblock that adopts the primary's history. When the device fails the group fails: it may come back with
/// that history, so nothing may go on with the former one.
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
    // Before the lock of the superblock, which a checkpoint waits for.
    let mut table = EpochTable::new().map_err(|_| SessionError::no_memory())?;
    let written = group.srl.update(|sb| {
        change(sb, &history).map_err(Unwritten::Refused)?;
        table.set(&sb.lineage());
        Ok(())
    });
    written.map_err(|why| match why {
        Unwritten::Refused(e) => unfit(group, e),
        Unwritten::Device(e) => broken(
            group,
            Reason::LogFailed,
            Refusal::new(
                e,
                format_args!(
                    "SRL {shown}: superblock write failed (error {}); remove and add the group again",
                    e.to_errno()
                ),
            ),
        ),
    })?;
    let mut identity = group.identity.lock();
    identity.uuid = w.head.group;
    if let Some(newest) = w.lineage.newest() {
        identity.epoch = newest.id;
    }
    Ok(table)
}
