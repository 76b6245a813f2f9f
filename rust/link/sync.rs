// SPDX-License-Identifier: GPL-2.0

//! Synchronisation, as far as it outlives a session: what was asked for, how far it is, what is durable.
//!
//! A sync is wanted by a command, begins with the next session (which the command asks for), and may take
//! several. The link's slot in the superblock says how far the peer's copies are durable; it is
//! written now and then, and with it the applier stands still, so that no checkpoint writes an older slot.

use super::{error::SessionError, worker::Worker, Link};
use crate::{
    applier::pause::Still,
    event::{self, Code as Event, Severity},
    group::{inner::Phase, Group},
    reason::Reason,
    refuse::{Refusal, Text},
};
use kernel::prelude::*;
use replicate_core::{
    group::{self, Volume},
    log::superblock::Superblock,
    node::{
        durable::links::{self as durable, NoSlot},
        links::LinkId,
        volumes::State as VolumeState,
        Role,
    },
    session::{
        primary::{Decision, Kind, Resync},
        state,
    },
    units::{Chain, HostId, Sector, Seq, VolumeId, SECTOR_BYTES},
};
use replicate_linux::{clock, errno::ETIMEDOUT};

/// The superblock says so often how far a sync is.
const SAVE_NS: u64 = 2_000_000_000;
/// How long `--assume-clean` waits for the peer.
const PATIENCE_MS: u32 = 10_000;

/// A synchronisation that is wanted or under way, and how far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) sync: Resync,
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
    saved_ns: u64,
}

impl From<Resync> for Job {
    fn from(sync: Resync) -> Job {
        Job {
            sync,
            done_bytes: 0,
            total_bytes: 0,
            saved_ns: 0,
        }
    }
}

impl Job {
    /// Done and total bytes for this cursor.
    pub(super) fn measure(&mut self, volumes: &[Volume]) {
        let mut before = 0u64;
        self.total_bytes = 0;
        let mut seen = false;
        for v in volumes {
            let bytes = v.size.0.saturating_mul(SECTOR_BYTES);
            self.total_bytes = self.total_bytes.saturating_add(bytes);
            if v.id == self.sync.at.0 {
                seen = true;
                before = before.saturating_add(self.sync.at.1 .0.saturating_mul(SECTOR_BYTES));
            } else if !seen {
                before = before.saturating_add(bytes);
            }
        }
        self.done_bytes = before;
    }
}

impl Link {
    /// `sync --full`, `--assume-clean`, or `--stop` (`None`). May sleep; no lock may be held.
    pub(crate) fn sync(
        &self,
        group: &Group,
        kind: Option<Kind>,
        force: bool,
    ) -> Result<(), Refusal> {
        let name = self.name.as_str();
        let (role, phase) = {
            let inner = group.inner.lock();
            (inner.node.role(), inner.phase)
        };
        if role != Role::Primary {
            return Err(Refusal::new(
                EPERM,
                format_args!(
                    "sync: link {name}: this host is the secondary; say it on the primary"
                ),
            ));
        }
        if phase != Phase::Active {
            return Err(Refusal::new(
                EAGAIN,
                format_args!(
                    "sync: group {} is not running normally, see 'dmrepl status'",
                    group.name.as_str()
                ),
            ));
        }
        match kind {
            Some(Kind::Full) => self.sync_full(group, force),
            Some(Kind::AssumeClean) => self.assume_clean(group, force),
            None => self.sync_stop(group),
        }
    }

    /// The synchronisation that was under way is no more; one that was asked for meanwhile has yet to begin.
    pub(super) fn forget_sync(&self) {
        let mut v = self.view.lock();
        v.sync = v.sync.filter(|job| job.sync.fresh);
    }

    fn sync_full(&self, group: &Group, force: bool) -> Result<(), Refusal> {
        let first = first_volume(group)?;
        // Nothing changes before the session that begins it: an in-sync link leaves that state in good order.
        self.view.lock().sync = Some(Resync::new(Kind::Full, force, first.id).into());
        self.restart();
        Ok(())
    }

    fn assume_clean(&self, group: &Group, force: bool) -> Result<(), Refusal> {
        let first = first_volume(group)?;
        let name = self.name.as_str();
        if quiet_head(group).is_none() {
            return Err(Refusal::new(
                EBUSY,
                format_args!("sync: --assume-clean of link {name} only before the group's first write, or with all its volumes suspended ('dmsetup suspend') and drained; else use --full"),
            ));
        }
        self.sync_over.set(false);
        self.view.lock().sync = Some(Resync::new(Kind::AssumeClean, force, first.id).into());
        self.restart();
        let wake = self
            .changed
            .wait_until_killable(PATIENCE_MS, || self.sync_over.get());
        let over = self.sync_over.get();
        let mut v = self.view.lock();
        if !over {
            v.sync = None;
        }
        if let Err(e) = wake {
            return Err(Refusal::new(e, format_args!("sync: interrupted")));
        }
        match (over, v.state) {
            (true, state::State::CatchingUp | state::State::Streaming) => Ok(()),
            (false, _) => Err(Refusal::new(
                ETIMEDOUT,
                format_args!("sync: the secondary of link {name} did not answer within {} s; nothing was changed: connect it first", PATIENCE_MS / 1000),
            )),
            (true, _) => Err(Refusal::new(
                EIO,
                format_args!("sync: link {name}: {}", v.text.as_ref().map(Text::as_str).unwrap_or("the secondary refused")),
            )),
        }
    }

    fn sync_stop(&self, group: &Group) -> Result<(), Refusal> {
        let name = self.name.as_str();
        let Some(job) = self.view.lock().sync.take() else {
            return Err(Refusal::new(
                ENOENT,
                format_args!("sync: no synchronisation of link {name} is under way"),
            ));
        };
        let recorded = group
            .srl
            .read(|sb| sb.link(usize::from(self.id.0)).and_then(|l| l.sync));
        if job.sync.fresh && recorded.is_ok_and(|s| s.is_none()) {
            // It has not begun, or its welcome is under way: the peer says what it is in the next session.
            self.restart();
            return Ok(());
        }
        write_slot(group, self, |sb, id| {
            durable::needs_sync(sb, id)?;
            group.inner.lock().node.positions.set_needs_sync(id);
            Ok(())
        })?;
        event::link(
            group,
            self,
            Event::SyncStopped,
            Severity::Warning,
            Reason::Admin,
            "synchronisation stopped by command; the secondary stays inconsistent until the next one",
        );
        self.restart();
        Ok(())
    }
}

/// What began with a session: event, reason and text.
pub(super) type Began = (Event, Reason, &'static str);

impl Worker {
    /// The peer is ready: what was begun is durable there. Makes it durable here. Returns what there is to say.
    ///
    /// `still`: held until the positions in memory say the same, see
    /// [`keep_promise`](replicate_core::node::links::Positions::keep_promise).
    pub(super) fn sync_began(
        &self,
        still: &Still<'_>,
        decision: &Decision,
        host: HostId,
    ) -> Result<Option<Began>, SessionError> {
        let (group, link) = (&self.group, &self.link);
        let (start, chain) = (decision.resume.prev(), decision.fork_chain);
        let own = |r: Refusal| SessionError::own(Reason::LogFailed, r);
        match (decision.begins(), decision.sync) {
            (Some(Kind::Full), Some(sync)) => {
                put_slot(group, link, still, |sb, id| {
                    durable::sync_began(sb, id, host, chain.unwrap_or_default(), sync.to_slot())
                })
                .map_err(own)?;
                // Another one may have been asked for meanwhile.
                if let Some(job) = &mut link.view.lock().sync {
                    if job.sync == sync {
                        job.sync.fresh = false;
                    }
                }
                Ok(Some((
                    Event::SyncStarted,
                    Reason::Sync,
                    "full synchronisation started",
                )))
            }
            (Some(Kind::AssumeClean), sync) => {
                put_slot(group, link, still, |sb, id| {
                    durable::declared_equal(sb, id, host, start, chain.unwrap_or_default())
                })
                .map_err(own)?;
                let mut v = link.view.lock();
                if v.sync.map(|job| job.sync) == sync {
                    v.sync = None;
                }
                drop(v);
                Ok(Some((
                    Event::SyncDone,
                    Reason::Admin,
                    "both sides were declared equal",
                )))
            }
            (Some(Kind::Full) | None, _) => {
                let news = group
                    .srl
                    .read(|sb| durable::session_is_news(sb, link.id, host));
                if news.unwrap_or(true) {
                    let tail = group.inner.lock().node.log_tail(start);
                    put_slot(group, link, still, |sb, id| {
                        durable::session_began(sb, id, host, start, tail)
                    })
                    .map_err(own)?;
                }
                Ok(None)
            }
        }
    }

    /// The peer reported copies durable: the cursor moves, now and then in the superblock too.
    pub(super) fn sync_moved(
        &self,
        cursor: (VolumeId, Sector),
        volumes: &[Volume],
    ) -> Result<(), SessionError> {
        let now = clock::monotonic_ns();
        let job = {
            let mut v = self.link.view.lock();
            let Some(job) = &mut v.sync else {
                return Ok(());
            };
            if !job.sync.moved(cursor) {
                return Ok(());
            }
            job.measure(volumes);
            if now.saturating_sub(job.saved_ns) < SAVE_NS {
                return Ok(());
            }
            job.saved_ns = now;
            *job
        };
        self.save(&job, None)
    }

    /// All copies were sent; the sync ends at `end`. Durable before the peer is told.
    pub(super) fn sync_ends(&self, end: Seq) -> Result<(), SessionError> {
        let job = {
            let mut v = self.link.view.lock();
            let Some(job) = &mut v.sync else {
                return Ok(());
            };
            if !job.sync.ends(end) {
                return Ok(());
            }
            *job
        };
        self.save(&job, Some(end))
    }

    fn save(&self, job: &Job, end: Option<Seq>) -> Result<(), SessionError> {
        write_slot(&self.group, &self.link, |sb, id| {
            durable::sync_moved(sb, id, job.sync.at, end)
        })
        .map_err(|r| SessionError::own(Reason::LogFailed, r))
    }
}

/// The peer is consistent: the sync is over.
pub(super) fn finished(group: &Group, link: &Link, at: Option<Seq>) -> Result<(), SessionError> {
    write_slot(group, link, durable::sync_over)
        .map_err(|r| SessionError::own(Reason::LogFailed, r))?;
    link.forget_sync();
    group.inner.lock().node.positions.sync_ended(link.id);
    let text = match at {
        Some(seq) => Refusal::new(
            EIO,
            format_args!("synchronised: the secondary is consistent, up to record {seq} or later"),
        ),
        None => Refusal::new(
            EIO,
            format_args!("synchronised: the secondary is consistent"),
        ),
    };
    event::link(
        group,
        link,
        Event::SyncDone,
        Severity::Info,
        Reason::None,
        text.text(),
    );
    Ok(())
}

/// The head and its chain, when nothing is under way and nothing can come: what `--assume-clean` declares.
pub(super) fn quiet_head(group: &Group) -> Option<(Seq, Chain)> {
    let inner = group.inner.lock();
    let head = inner.node.head();
    let still = head == Seq::NONE
        || inner
            .attached
            .iter()
            .all(|l| l.volume.state() == VolumeState::Suspended);
    let drained = inner.node.commit() == head && inner.node.applier.applied() == head;
    if still && drained {
        inner.node.chain_at(head).map(|chain| (head, chain))
    } else {
        None
    }
}

fn first_volume(group: &Group) -> Result<Volume, Refusal> {
    let first = group.srl.read(|sb| sb.volume(0).map(|s| s.volume))?;
    first.ok_or_else(|| {
        Refusal::new(
            ENOENT,
            format_args!(
                "sync: group {} has no volume yet: create one with dmsetup",
                group.name.as_str()
            ),
        )
    })
}

/// Changes the link's slot durably, with the applier standing still. May sleep; no lock may be held.
pub(super) fn write_slot(
    group: &Group,
    link: &Link,
    change: impl FnOnce(&mut Superblock, LinkId) -> Result<(), NoSlot>,
) -> Result<(), Refusal> {
    put_slot(group, link, &group.pause.hold(), change)
}

/// The same for a caller that keeps the applier still.
fn put_slot(
    group: &Group,
    link: &Link,
    _still: &Still<'_>,
    change: impl FnOnce(&mut Superblock, LinkId) -> Result<(), NoSlot>,
) -> Result<(), Refusal> {
    group.srl.update(|sb| {
        change(sb, link.id).map_err(|NoSlot| {
            Refusal::new(
                ENOENT,
                format_args!(
                    "link {}: its slot in the superblock is gone",
                    link.name.as_str()
                ),
            )
        })
    })
}

/// Whether this mode makes writers wait.
pub(super) fn is_sync(mode: group::Mode) -> bool {
    mode != group::Mode::Async
}
