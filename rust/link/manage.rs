// SPDX-License-Identifier: GPL-2.0

//! Commands on links: add, remove, set, connect, disconnect; and stop, when the module goes.
//!
//! Called with the group's commands serialised, and with no other lock. They may sleep. A link's slot in the superblock
//! is its number in the group; it is kept while the link is there, over restarts too.

use super::{
    listener::Listeners, sync::write_slot, worker::Worker, Config, Flag, Link, LinkStatus,
    Settings, Stats,
};
use crate::{
    event::{self, Code as Event, Severity},
    group::Group,
    reason::Reason,
    refuse::Refusal,
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};
use replicate_core::{
    group::{Mode, Name},
    log::superblock,
    node::{
        durable::{links as durable, start},
        links::LinkId,
        secondary::Acks,
    },
    session::{
        state::{self, State},
        syncs::Syncs,
    },
    units::{HostId, Seq},
};
use replicate_linux::{clock, event::Event as Wake, kthread::Thread};

/// What `link set` may change.
pub(crate) struct Change {
    pub(crate) mode: Option<Mode>,
    pub(crate) heartbeat_ms: Option<u32>,
    pub(crate) peer_timeout_ms: Option<u32>,
    pub(crate) progress_timeout_ms: Option<u32>,
    pub(crate) window_bytes: Option<u64>,
}

impl Link {
    /// Adds a link and starts it. On refusal nothing was changed.
    pub(crate) fn add(
        group: &Arc<Group>,
        listeners: &Arc<Listeners>,
        config: Config,
    ) -> Result<Arc<Link>, Refusal> {
        let name = config.name;
        let (slot, known) = group.srl.read(|sb| match sb.find_link(&name) {
            Some(i) => (Some(i), sb.link(i)),
            None => (sb.free_link_slot(), None),
        })?;
        let id = slot.and_then(|s| u8::try_from(s).ok()).map(LinkId);
        let Some(id) = id else {
            return Err(Refusal::new(
                ENOSPC,
                format_args!(
                    "link {}: the SRL of group {} has no free link slot; remove a link first",
                    name.as_str(),
                    group.name.as_str()
                ),
            ));
        };
        let mode = config.mode;
        let link = Link::new(id, config, known.as_ref())?;
        let worker = Worker::new(group.clone(), link.clone())?;
        listeners.listen(group, &link)?;
        let recorded = link.record(group, mode);
        link.step(
            group,
            state::Event::Enable,
            Reason::NotConnected,
            format_args!("added, not connected yet"),
        );
        let started = recorded.and_then(|()| link.start(worker));
        if let Err(refusal) = started {
            listeners.forget(&link);
            if known.is_none() {
                link.forget(group);
            }
            return Err(refusal);
        }
        // The list has room for every slot of a superblock.
        let _ = group.lists.lock().links.push(link.clone(), GFP_KERNEL);
        link.tell(group, Event::LinkAdded, "added");
        link.wake_thread();
        Ok(link)
    }

    fn new(id: LinkId, c: Config, known: Option<&superblock::Link>) -> Result<Arc<Link>, Refusal> {
        let slot = known.and_then(|l| l.sync.as_ref());
        let view = LinkStatus {
            state: State::Idle,
            shown: State::Idle,
            reason: Reason::NotConnected,
            text: None,
            since_ns: clock::wall_ns(),
            peer_host: known.map_or(HostId::NONE, |l| l.peer),
            peer_head: Seq::NONE,
            acked: Acks::default(),
            told_in_sync: false,
            level_ns: 0,
            syncs: Syncs::recorded(slot),
            sync: None,
        };
        let made = Arc::pin_init(
            try_pin_init!(Link {
                name: c.name,
                id,
                local: c.local,
                peer: c.peer,
                wake: Wake::new()?,
                changed: Wake::new()?,
                settings: Settings {
                    heartbeat_ms: Atomic::new(c.heartbeat_ms),
                    peer_timeout_ms: Atomic::new(c.peer_timeout_ms),
                    progress_timeout_ms: Atomic::new(c.progress_timeout_ms),
                    window_bytes: Atomic::new(c.window_bytes.unwrap_or(0)),
                },
                stats: Stats::default(),
                enabled: Flag::new(true),
                restart_wanted: Flag::new(false),
                overflow: Flag::new(false),
                answered: Flag::new(false),
                connected: Flag::new(false),
                closing: Flag::new(false),
                sync_over: Flag::new(false),
                last_rx_ns: Atomic::new(0),
                rtt_us: Atomic::new(0),
                sent: Atomic::new(0),
                handshakes: Atomic::new(0),
                view <- new_mutex!(view),
                stream <- new_spinlock!(None),
                incoming <- new_spinlock!(None),
                thread <- new_mutex!(None),
            }? Error),
            GFP_KERNEL,
        )?;
        Ok(made)
    }

    /// Records the link in the superblock, and what the log keeps for it.
    #[inline(never)]
    fn record(&self, group: &Group, mode: Mode) -> Result<(), Refusal> {
        let _still = group.pause.hold();
        let entry = group.update_superblock(|sb| {
            durable::add(sb, self.id, self.name, mode, clock::wall_ns()).map_err(|_| EINVAL)
        })?;
        let mut inner = group.inner.lock();
        let head = inner.node.head();
        let positions = &mut inner.node.positions;
        if positions.get(self.id).is_some() {
            // Kept since the start: no session ever raised or lowered it.
            positions.set_mode(self.id, mode);
        } else {
            let kept = start::kept(&entry).map(|seq| seq.min(head));
            positions.set(self.id, mode, kept);
        }
        Ok(())
    }

    fn start(&self, mut worker: KBox<Worker>) -> Result<(), Refusal> {
        let thread = Thread::spawn_noio(c"dmrepl-link", move |stop| worker.run(stop))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Forgets the link in superblock and order.
    fn forget(&self, group: &Group) {
        let written = {
            let _still = group.pause.hold();
            let written = group.update_superblock(|sb| -> Result<(), Error> {
                let mut inner = group.inner.lock();
                if let Some(recorder) = inner.recorder(self.id) {
                    recorder.forget();
                }
                drop(inner);
                durable::remove(sb, self.id);
                Ok(())
            });
            group.inner.lock().node.positions.remove(self.id);
            written
        };
        if let Err(e) = written {
            pr_warn!(
                "group {}: link {} is removed, but the SRL could not be told (error {}): it will wait for it at the next start\n",
                group.name.as_str(),
                self.name.as_str(),
                e.to_errno()
            );
        }
        group.log_wake.notify();
        group.apply_wake.notify();
    }

    /// Removes a link: ends its session, frees what the log kept for it.
    pub(crate) fn remove(group: &Group, listeners: &Listeners, name: &Name) -> Result<(), Refusal> {
        let Some(link) = group.link(name) else {
            return Err(Refusal::new(
                ENOENT,
                format_args!(
                    "group {} has no link {}",
                    group.name.as_str(),
                    name.as_str()
                ),
            ));
        };
        if link.closing.get() {
            return Err(Refusal::new(
                EBUSY,
                format_args!("link {} is being removed already", name.as_str()),
            ));
        }
        link.stop(listeners);
        link.forget(group);
        group.lists.lock().links.retain(|l| !Arc::ptr_eq(l, &link));
        link.tell(group, Event::LinkRemoved, "removed");
        Ok(())
    }

    /// Ends the link's thread; its slot in the superblock stays. No lock may be held but the commands'.
    pub(crate) fn stop(&self, listeners: &Listeners) {
        self.closing.set(true);
        self.disable();
        listeners.forget(self);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.stop();
        }
        // A pending connection that was admitted last holds nothing but its connection.
        drop(self.take_incoming());
    }

    /// Changes settings.
    pub(crate) fn set(&self, group: &Group, c: Change) -> Result<(), Refusal> {
        if let Some(ms) = c.heartbeat_ms {
            self.settings.heartbeat_ms.store(ms, Relaxed);
        }
        if let Some(ms) = c.peer_timeout_ms {
            self.settings.peer_timeout_ms.store(ms, Relaxed);
        }
        if let Some(ms) = c.progress_timeout_ms {
            self.settings.progress_timeout_ms.store(ms, Relaxed);
        }
        if let Some(bytes) = c.window_bytes {
            self.settings.window_bytes.store(bytes, Relaxed);
        }
        if let Some(mode) = c.mode {
            self.set_mode(group, mode)?;
        }
        self.tell(group, Event::LinkChanged, "settings changed");
        self.wake_thread();
        Ok(())
    }

    fn set_mode(&self, group: &Group, mode: Mode) -> Result<(), Refusal> {
        let (before, in_sync) = {
            let inner = group.inner.lock();
            match inner.node.positions.get(self.id) {
                Some(p) => (p.mode, p.in_sync),
                None => return Ok(()),
            }
        };
        if before == mode {
            return Ok(());
        }
        write_slot(group, self, |sb, id| durable::set_mode(sb, id, mode))?;
        if in_sync {
            let text = if mode != Mode::Async {
                "left in-sync: the mode was changed; back as soon as the peer is level"
            } else {
                "left in-sync: the mode is async now"
            };
            event::link(
                group,
                self,
                Event::LeftSync,
                Severity::Warning,
                Reason::Admin,
                text,
            );
        }
        group.inner.lock().node.positions.set_mode(self.id, mode);
        group.log_wake.notify();
        // A new session shows where the peer is, although nothing may be written for long.
        self.restart();
        Ok(())
    }

    /// Tries to have a session from now on.
    pub(crate) fn connect(&self, group: &Group) -> Result<(), Refusal> {
        if self.enabled.get() {
            // A link that is refused, or waits before it tries again, tries at once.
            if !self.is_connected() {
                self.restart();
            }
            return Ok(());
        }
        self.enabled.set(true);
        self.step(
            group,
            state::Event::Enable,
            Reason::NotConnected,
            format_args!("connecting"),
        );
        self.wake_thread();
        Ok(())
    }

    /// Ends the session and does not try again.
    pub(crate) fn disconnect(&self, group: &Group) -> Result<(), Refusal> {
        if self.enabled.get() {
            self.disable();
            let limit_ms = self.settings.peer_timeout_ms.load(Relaxed);
            self.changed
                .wait_until_killable(limit_ms, || !self.is_connected())?;
            self.step(
                group,
                state::Event::Disable,
                Reason::Admin,
                format_args!("disconnected by command"),
            );
        }
        Ok(())
    }

    fn tell(&self, group: &Group, code: Event, text: &str) {
        event::link(group, self, code, Severity::Info, Reason::Admin, text);
    }
}
