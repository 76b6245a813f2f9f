// SPDX-License-Identifier: GPL-2.0

//! The secondary takes a welcome: the primary's lineage, durably, before anything of the session is believed.
//!
//! `replicate_core::session::secondary` decides, and has the order; this locks, waits, scans and writes. The applier stands
//! still and the log is idle while the superblock is written. On refusal nothing was changed on disk.

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
    srl::Unwritten,
};
use kernel::prelude::*;
use replicate_core::{
    group::{Replica, Volume},
    node::{
        durable::adopt::{AdoptError, History},
        inbound::{NoAdoption, Stated},
        secondary::BadTerms,
    },
    session::{
        meet::Why,
        secondary::{Adoption, Agreed, Agreement, Begun, NotTaken, Offer, Unread, Wait},
    },
    units::Seq,
    wire::{Code, Welcome, WireError},
};
use replicate_linux::{clock, kthread::should_stop};

/// How long the session of a former primary may take to end, whose thread waits for nothing but its own connection; then
/// as long again for the log to write what it was given before.
const SETTLE_NS: u64 = 30_000_000_000;

/// What the session needs of the welcome.
pub(super) struct Adopted {
    pub(super) begun: Begun,
    pub(super) volumes: KVec<Volume>,
}

/// An adoption under way on a link; ends when it is dropped.
struct UnderWay<'a> {
    group: &'a Group,
    link: &'a Link,
}

impl Drop for UnderWay<'_> {
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
    let no = |why| not_taken(group, w, why);
    let mut volumes =
        KVec::with_capacity(w.volumes.len(), GFP_KERNEL).map_err(|_| SessionError::no_memory())?;
    for v in w.volumes.iter() {
        volumes
            .push(v, GFP_KERNEL)
            .map_err(|_| SessionError::no_memory())?;
    }
    let offer = Offer::of(&w.head, group.identity().uuid).map_err(no)?;
    let taken = group.srl.read(|sb| {
        let here = |name: &_| group.volume_named(name).map(|v| v.describe());
        let fitting = offer.fits(sb, w.volumes.iter(), here)?;
        let node = &mut group.inner.lock().node;
        fitting.take_up(node, sb, &w.lineage, link.id, stated)
    });
    let adoption = taken.map_err(|_| SessionError::no_memory())?.map_err(no)?;
    let under_way = UnderWay { group, link };
    settle(group, link, w, &adoption)?;
    let still = group.pause_applier();
    // Why not is said without the order lock: it may end the group.
    let agreement = adoption.agree(&group.inner.lock().node);
    let agreed = match agreement.map_err(no)? {
        Agreement::Agreed(agreed) => agreed,
        Agreement::Unread(unread) => read_log(group, link, w, unread)?,
    };
    let table = record(group, w, &agreed)?;
    let begun = group.inner.lock().begin(agreed, table);
    let begun = begun.map_err(no)?;
    drop(under_way);
    if let Some(sync) = agreed.anew() {
        begins_anew(group, sync);
    }
    group.drop_copies();
    drop(still);
    group
        .number_volumes()
        .map_err(|_| SessionError::no_memory())?;
    group.log_wake.notify();
    group.apply_wake.notify();
    Ok(Adopted { begun, volumes })
}

fn begins_anew(group: &Group, sync: bool) {
    let (replica, text) = if sync {
        (
            Replica::Inconsistent,
            "inconsistent: a full synchronisation began",
        )
    } else {
        (
            Replica::Consistent,
            "consistent: declared equal to the primary",
        )
    };
    group.identity.lock().replica = replica;
    event::group(group, Event::ReplicaState, Severity::Info, text);
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

/// Why a welcome is not taken, in words.
#[inline(never)]
fn not_taken(group: &Group, w: &Welcome<'_>, why: NotTaken) -> SessionError {
    let other_group = |text: core::fmt::Arguments<'_>| {
        SessionError::refused(Reason::GroupMismatch, Code::OtherGroup, text)
    };
    match why {
        NotTaken::Nonsense(e) => SessionError::wire(e),
        NotTaken::OtherGroup => other_group(
            format_args!("the primary's group {} is another group than this secondary's (uuid {}, here {}): format this SRL again to join it", w.head.group_name.as_str(), w.head.group, group.identity().uuid),
        ),
        NotTaken::Volume(name, fault) => error::volume(&name, fault),
        NotTaken::OtherNumber(name) => other_group(
            format_args!("volume {} has another number in the secondary's volume table: the two were not made by the same group; format the secondary's SRL again", name.as_str()),
        ),
        NotTaken::Terms(BadTerms::Histories(why)) => error::verdict(why, false),
        NotTaken::Terms(BadTerms::SyncEnded) => met_again("the synchronisation ended"),
        NotTaken::Terms(BadTerms::LeavesOut) => {
            SessionError::wire(WireError::Field("welcome (it leaves out records)"))
        }
        NotTaken::History(AdoptError::Folded) => error::verdict(Why::Folded, false),
        NotTaken::History(why @ (AdoptError::Lineage(_) | AdoptError::Volume(_))) => other_group(
            format_args!(
                "SRL {} of the secondary cannot take up the primary's history: {why}",
                shown(group)
            ),
        ),
        NotTaken::Adoption(NoAdoption::Role) => met_again("this host changed its role"),
        NotTaken::Adoption(NoAdoption::Stale) => met_again("another primary was taken up"),
        NotTaken::Adoption(NoAdoption::Failed) => SessionError::closed(
            Reason::LogFailed,
            Code::Failed,
            format_args!("the secondary has failed, see its status there"),
        ),
        NotTaken::Adoption(NoAdoption::Followed(_)) => SessionError::closed(
            Reason::Reset,
            Code::Busy,
            format_args!("the secondary follows this primary by another link already"),
        ),
        NotTaken::LogEnds(head) => broken(
            group,
            Reason::LogCorrupt,
            Refusal::new(
                EIO,
                format_args!(
                    "SRL {}: the log ends at record {head} although it held more: it is damaged; look with 'dmrepl srl check'",
                    shown(group)
                ),
            ),
        ),
    }
}

fn shown(group: &Group) -> &str {
    group.srl.path().to_str().unwrap_or("?")
}

/// Waits until the session that brought records has ended, and the log holds everything that memory has in order.
fn settle(
    group: &Group,
    link: &Link,
    w: &Welcome<'_>,
    adoption: &Adoption,
) -> Result<(), SessionError> {
    let (mut start, mut before) = (clock::monotonic_ns(), None);
    let waits_for = || adoption.waits_for(&group.inner.lock().node);
    while let Some(wait) = waits_for().map_err(|why| not_taken(group, w, why))? {
        if !goes_on(group, link) {
            return Err(stopped());
        }
        if before.replace(wait) != Some(wait) {
            start = clock::monotonic_ns();
        }
        let late = clock::monotonic_ns().saturating_sub(start) > SETTLE_NS;
        match wait {
            Wait::Session if late => {
                return Err(met_again("the session with the former primary did not end"))
            }
            Wait::Log if late => {
                return Err(SessionError::closed(
                    Reason::LogFailed,
                    Code::NotReady,
                    format_args!("the secondary's log is still busy with the former session; trying again; is its SRL stuck?"),
                ))
            }
            Wait::Session => group.wake_links(),
            Wait::Log => group.log_wake.notify(),
        }
        let moved = || !matches!(waits_for(), Ok(still) if still == Some(wait));
        group.moved.wait_until(20, moved);
    }
    Ok(())
}

/// Scans the log under the lineage that is to be adopted. A scan that is stopped has changed nothing.
#[inline(never)]
fn read_log(
    group: &Group,
    link: &Link,
    w: &Welcome<'_>,
    unread: Unread,
) -> Result<Agreed, SessionError> {
    let epochs = EpochTable::of(&w.lineage).map_err(|_| SessionError::no_memory())?;
    let from = group
        .srl
        .read(|sb| ScanFrom::of(sb).proven(unread.proven()))
        .map_err(|_| SessionError::no_memory())?;
    let stop = || !goes_on(group, link);
    match scan(&group.srl, &from, &epochs, Seq::NONE, stop) {
        Err(refusal) if refusal.error == EINTR => Err(stopped()),
        Err(refusal) if refusal.error == ENOMEM => Err(SessionError::no_memory()),
        Ok(s) => unread
            .found(s.head, s.place, s.chain)
            .map_err(|why| not_taken(group, w, why)),
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

/// Writes the superblock that adopts the primary's history, if that says anything new, and returns its epochs. When the device
/// fails the group fails: it may come back with that history, so nothing may go on with the former one.
#[inline(never)]
fn record(
    group: &Group,
    w: &Welcome<'_>,
    agreed: &Agreed,
) -> Result<Option<EpochTable>, SessionError> {
    let news = group.srl.read(|sb| agreed.is_news(sb, w.volumes.iter()));
    if !news.map_err(|_| SessionError::no_memory())? {
        return Ok(None);
    }
    let history = History {
        group: w.head.group,
        name: group.name,
        lineage: w.lineage,
    };
    // Before the lock of the superblock, which a checkpoint waits for.
    let mut table = EpochTable::new().map_err(|_| SessionError::no_memory())?;
    let written = group.update_superblock(|sb| {
        agreed
            .record(sb, &history, w.volumes.iter(), clock::wall_ns())
            .map_err(Unwritten::Refused)?;
        table.set(&sb.lineage());
        Ok(())
    });
    written.map_err(|why| match why {
        Unwritten::Refused(e) => not_taken(group, w, e.into()),
        Unwritten::Device(e) => SessionError::own(
            Reason::LogFailed,
            Refusal::new(
                e,
                format_args!("the secondary's superblock cannot be written"),
            ),
        ),
    })?;
    let mut identity = group.identity.lock();
    identity.uuid = w.head.group;
    if let Some(newest) = w.lineage.newest() {
        identity.epoch = newest.id;
    }
    Ok(Some(table))
}
