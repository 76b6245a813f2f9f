// SPDX-License-Identifier: GPL-2.0

//! Synchronisation, as far as it outlives a session: what was asked for, how far it is, what is durable.
//!
//! A sync is wanted by a command, begins with the next session (which the command asks for), and may take
//! several. The link's slot in the superblock says how far the peer's copies are durable, and where it ends. While a session
//! stands, the applier writes that (`replicate_core::node::durable::progress`): the link's thread waits for no disk.
//! A command or a handshake that changes the slot writes it with the applier standing still, so that no checkpoint
//! writes an older slot.

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
    group::Volume,
    log::superblock::Superblock,
    node::{
        durable::{
            links::{self as durable, NoSlot},
            progress::{Note, Recorder},
        },
        links::LinkId,
        volumes::State as VolumeState,
        Role,
    },
    session::{
        primary::{Kind, Ready, Resync},
        state,
    },
    units::{Chain, HostId, Sector, Seq, VolumeId, SECTOR_BYTES},
};
use replicate_linux::{clock, errno::ETIMEDOUT};

/// The superblock says so often how far a sync is.
const SAVE_NS: u64 = 2_000_000_000;
/// How long `--assume-clean` waits for the peer.
const PATIENCE_MS: u32 = 10_000;

/// How far a synchronisation is, for status.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Job {
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(super) saved_ns: u64,
}

impl Job {
    /// Done and total bytes when the copies have reached `at`.
    pub(super) fn measure(&mut self, at: (VolumeId, Sector), volumes: &[Volume]) {
        let mut before = 0u64;
        self.total_bytes = 0;
        let mut seen = false;
        for v in volumes {
            let bytes = v.size.0.saturating_mul(SECTOR_BYTES);
            self.total_bytes = self.total_bytes.saturating_add(bytes);
            if v.id == at.0 {
                seen = true;
                before = before.saturating_add(at.1 .0.saturating_mul(SECTOR_BYTES));
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
        self.view.lock().syncs.over();
    }

    fn ask(&self, kind: Kind, force: bool, first: VolumeId) -> u32 {
        let number = {
            let mut v = self.view.lock();
            v.sync = None;
            v.syncs.ask(kind, force, first)
        };
        self.restart();
        number
    }

    fn sync_full(&self, group: &Group, force: bool) -> Result<(), Refusal> {
        let first = first_volume(group)?;
        // Nothing changes before the session that begins it: an in-sync link leaves that state in good order.
        self.ask(Kind::Full, force, first.id);
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
        let number = self.ask(Kind::AssumeClean, force, first.id);
        let wake = self
            .changed
            .wait_until_killable(PATIENCE_MS, || self.sync_over.get());
        let over = self.sync_over.get();
        let mut v = self.view.lock();
        if !over {
            v.syncs.withdraw(number);
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
        let Some(stopped) = self.view.lock().syncs.stop() else {
            return Err(Refusal::new(
                ENOENT,
                format_args!("sync: no synchronisation of link {name} is under way"),
            ));
        };
        // The superblock that begins it may be on its way: then it has begun.
        let still = group.pause.hold();
        let recorded = group
            .srl
            .read(|sb| sb.link(usize::from(self.id.0)).and_then(|l| l.sync));
        if stopped.fresh && recorded.is_ok_and(|s| s.is_none()) {
            // It has not begun, or its welcome is under way: the peer says what it is in the next session.
            drop(still);
            self.restart();
            return Ok(());
        }
        let written = put_slot(group, self, &still, |sb, id| {
            durable::needs_sync(sb, id)?;
            group.inner.lock().node.positions.set_needs_sync(id);
            Ok(())
        });
        drop(still);
        // Also where that failed: the session has nothing to go on with.
        self.restart();
        written?;
        event::link(
            group,
            self,
            Event::SyncStopped,
            Severity::Warning,
            Reason::Admin,
            "synchronisation stopped by command; the secondary stays inconsistent until the next one",
        );
        Ok(())
    }
}

impl Worker {
    /// The peer is ready: what was begun is durable there. Makes it durable here.
    ///
    /// `still`: held until the positions in memory say the same, see [`Ready::keep`].
    pub(super) fn sync_began(
        &self,
        still: &Still<'_>,
        ready: &Ready,
        host: HostId,
    ) -> Result<(), SessionError> {
        let (group, link) = (&self.group, &self.link);
        let news = group.srl.read(|sb| ready.is_news(sb, host));
        if news.unwrap_or(true) {
            let from = ready.decision().resume.prev();
            let tail = group.inner.lock().node.log_tail(from);
            put_slot(group, link, still, |sb, _| ready.record(sb, host, tail))
                .map_err(|r| SessionError::own(Reason::LogFailed, r))?;
        }
        link.view.lock().syncs.began(ready.decision());
        Ok(())
    }

    /// The peer reported copies durable: the cursor moves, now and then in the superblock too.
    pub(super) fn sync_moved(
        &self,
        cursor: (VolumeId, Sector),
        volumes: &[Volume],
    ) -> Result<(), SessionError> {
        let now = clock::monotonic_ns();
        let note = {
            let mut v = self.link.view.lock();
            let Some(sync) = v.syncs.moved(cursor) else {
                return Ok(());
            };
            let job = v.sync.get_or_insert_default();
            job.measure(cursor, volumes);
            if now.saturating_sub(job.saved_ns) < SAVE_NS {
                return Ok(());
            }
            job.saved_ns = now;
            moved(&sync)
        };
        self.with_recorder(|r| r.note(note))?;
        self.group.apply_wake.notify();
        Ok(())
    }

    /// All copies were sent; the sync ends at `end`. Durable before the peer is told. `false`: not yet, this thread is woken; or
    /// it was stopped meanwhile, and this session ends.
    pub(super) fn sync_ends(&self, end: Seq) -> Result<bool, SessionError> {
        let sync = self.link.view.lock().syncs.ends(end);
        sync.map_or(Ok(false), |sync| self.is_durable(moved(&sync)))
    }

    /// The peer is consistent. `false`: the slot does not say so yet, this thread is woken.
    pub(super) fn sync_is_over(&self) -> Result<bool, SessionError> {
        if !self.is_durable(Note::Over)? {
            return Ok(false);
        }
        let end = self.link.view.lock().syncs.running().and_then(|s| s.end);
        tell_over(&self.group, &self.link, end);
        Ok(true)
    }

    fn is_durable(&self, note: Note) -> Result<bool, SessionError> {
        if self.with_recorder(|r| r.is_durable(note))? {
            return Ok(true);
        }
        if self.group.inner.lock().phase == Phase::Failed {
            return Err(SessionError::own(
                Reason::LogFailed,
                Refusal::new(
                    EIO,
                    format_args!(
                        "group {} has failed and writes no superblock, see 'dmrepl status'",
                        self.group.name.as_str()
                    ),
                ),
            ));
        }
        self.group.apply_wake.notify();
        Ok(false)
    }

    fn with_recorder<R>(&self, f: impl FnOnce(&mut Recorder) -> R) -> Result<R, SessionError> {
        let mut inner = self.group.inner.lock();
        let recorder = inner.recorder(self.link.id);
        recorder.map(f).ok_or_else(SessionError::no_memory)
    }
}

fn moved(sync: &Resync) -> Note {
    Note::Moved {
        at: sync.at,
        end: sync.end,
    }
}

/// What a former session left to be written is durable when this returns, and known to have been. May sleep; no lock may be
/// held.
pub(super) fn settle(group: &Group, link: &Link) -> Result<(), SessionError> {
    let waits = {
        let mut inner = group.inner.lock();
        inner.recorder(link.id).is_some_and(|r| r.waits().is_some())
    };
    if waits {
        write_slot(group, link, |_, _| Ok(()))
            .map_err(|r| SessionError::own(Reason::LogFailed, r))?;
    }
    let over = group.srl.read(|sb| durable::is_over(sb, link.id));
    let over = link.view.lock().syncs.met(over.unwrap_or(false));
    if over {
        tell_over(group, link, None);
    }
    Ok(())
}

/// The peer says in the handshake that it is consistent: the sync is over.
pub(super) fn finished(group: &Group, link: &Link) -> Result<(), SessionError> {
    write_slot(group, link, durable::sync_over)
        .map_err(|r| SessionError::own(Reason::LogFailed, r))?;
    tell_over(group, link, None);
    Ok(())
}

fn tell_over(group: &Group, link: &Link, at: Option<Seq>) {
    link.forget_sync();
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
    let id = link.id;
    let before = group.update_superblock(|sb| {
        let recorder = group.inner.lock().recorder(id).copied();
        let before = recorder.unwrap_or_default().before(sb, id);
        let changed = before.and_then(|before| change(sb, id).map(|()| before));
        changed.map_err(|NoSlot| {
            Refusal::new(
                ENOENT,
                format_args!(
                    "link {}: its slot in the superblock is gone",
                    link.name.as_str()
                ),
            )
        })
    })?;
    if let Some(recorder) = group.inner.lock().recorder(id) {
        recorder.changed(before);
    }
    Ok(())
}
