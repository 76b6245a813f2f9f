// SPDX-License-Identifier: GPL-2.0

//! A group on this host: one SRL, its volumes, its links, one order.
//!
//! | thread | does | module |
//! |---|---|---|
//! | log worker | batches, log flushes, completions, deferred bios | [`crate::log_worker`] |
//! | applier | replay, data-volume writes, checkpoints, superblocks | [`crate::applier`] |
//! | one per link | its sessions: sending and acknowledgements, or receiving | [`crate::link`] |
//!
//! # Lock order
//!
//! registry > `lists` > superblock (in [`Srl`]) > `status` > **order lock** (innermost, a spinlock).
//! Nothing sleeps under the order lock; nobody waits for a thread with any of them held.
//!
//! # End of life
//!
//! `group del` is refused while a volume is attached or a link is there. Then the threads are stopped
//! and joined; they hold the group by `Arc`, so the last one to go frees it.

pub(crate) mod admission;
pub(crate) mod epochs;
mod failed;
pub(crate) mod inner;
pub(crate) mod scan;
pub(crate) mod start;
pub(crate) mod takeover;
pub(crate) mod volumes;

use crate::{
    applier::pause::Pause,
    event::{self, Code, Severity},
    link::Link,
    log_worker::batch::LogIo,
    refuse::{Refusal, Text},
    srl::{Srl, Unwritten},
};
use inner::Inner;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex, SpinLock,
    },
};
use replicate_core::{
    group::{Name, Replica},
    log::superblock::Superblock,
    node::{links::LinkId, Role},
    session::resync::MAX_OUTSTANDING,
    units::{EpochId, GroupUuid, HostId, Seq},
};
use replicate_linux::{
    event::Event,
    kthread::Thread,
    pages::{PagePool, SharedBuf},
    secret::Secret,
};

/// What an administrator may set, changeable live.
pub(crate) struct Settings {
    /// At the latest so long after a write is written the log is flushed.
    pub(crate) commit_interval_ms: Atomic<u32>,
    /// ... or once so many bytes wait for it.
    pub(crate) commit_bytes: Atomic<u64>,
    /// How long a starting primary waits for its links.
    pub(crate) start_wait_ms: Atomic<u32>,
    /// Bytes that may be under way to a secondary of this group.
    pub(crate) window_bytes: Atomic<u64>,
    /// Limit of the page pool.
    pub(crate) pool_bytes: Atomic<u64>,
}

/// Counters, for status.
#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) writes: Counter,
    pub(crate) bytes: Counter,
    pub(crate) batches: Counter,
    pub(crate) flushes: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) stalls: Counter,
    pub(crate) overlaid_reads: Counter,
    pub(crate) log_bytes: Counter,
    pub(crate) events_lost: Counter,
}

/// A number that only grows.
pub(crate) struct Counter(Atomic<u64>);

impl Default for Counter {
    fn default() -> Self {
        Counter(Atomic::new(0))
    }
}

impl Counter {
    /// Adds `n`. Any context.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Its value.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What does not change while the group is there, but for an empty secondary that is adopted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) uuid: GroupUuid,
    pub(crate) host: HostId,
    pub(crate) epoch: EpochId,
    pub(crate) replica: Replica,
}

/// A region copy that waits: its item and what it holds (`None`: zeros).
pub(crate) type CopyPayload = (u64, Option<SharedBuf>);

/// Links and threads: things that come and go by command.
pub(crate) struct Lists {
    /// Links, in the order in which they were added.
    pub(crate) links: KVec<Arc<Link>>,
    /// The group's own threads.
    pub(crate) threads: KVec<Thread>,
    /// The shared secret.
    pub(crate) secret: Secret,
    /// The group is being removed: nothing may be added.
    pub(crate) closing: bool,
}

/// Why the group is in the state that it is in.
pub(crate) struct Status {
    pub(crate) reason: crate::reason::Reason,
    pub(crate) text: Option<Text>,
    pub(crate) since_ns: u64,
    pub(crate) takeover: Option<Text>,
}

/// A group. See the module.
#[pin_data]
pub(crate) struct Group {
    /// Its name on this host.
    pub(crate) name: Name,
    /// Its log.
    pub(crate) srl: Arc<Srl>,
    /// Memory for payloads.
    pub(crate) pool: Arc<PagePool>,
    /// What log writes share.
    pub(crate) log_io: LogIo,
    /// Wakes the log worker.
    pub(crate) log_wake: Arc<Event>,
    /// Wakes the applier.
    pub(crate) apply_wake: Arc<Event>,
    /// Notified when positions moved: for whoever waits for a drain, a takeover, a removal.
    pub(crate) moved: Arc<Event>,
    pub(crate) settings: Settings,
    pub(crate) stats: Stats,
    /// On a secondary: the primary's writers wait until its log is flushed.
    pub(crate) flush_at_once: Atomic<bool>,
    /// Stops the applier between two rounds.
    #[pin]
    pub(crate) pause: Pause,
    /// Payloads of region copies that wait for their turn, by item.
    #[pin]
    pub(crate) copy_payloads: SpinLock<[Option<CopyPayload>; MAX_OUTSTANDING]>,
    #[pin]
    pub(crate) inner: SpinLock<KBox<Inner>>,
    #[pin]
    pub(crate) identity: SpinLock<Identity>,
    #[pin]
    pub(crate) lists: Mutex<Lists>,
    #[pin]
    pub(crate) status: Mutex<Status>,
}

impl Group {
    /// Role of this host.
    pub(crate) fn role(&self) -> Role {
        self.inner.lock().node.role()
    }

    /// Its identity.
    pub(crate) fn identity(&self) -> Identity {
        *self.identity.lock()
    }

    /// Wakes every link's sender: something moved that it may want to tell. Does not sleep.
    pub(crate) fn wake_links(&self) {
        self.inner.lock().wake_links();
    }

    /// A link with that name.
    pub(crate) fn link(&self, name: &Name) -> Option<Arc<Link>> {
        let lists = self.lists.lock();
        let link = lists.links.iter().find(|l| l.name == *name)?;
        Some(link.clone())
    }

    /// Marks a link `needs-sync`: the log keeps nothing for it any more. Durable with the next superblock,
    /// which the applier writes at once, before it frees anything.
    pub(crate) fn give_up(&self, id: LinkId) {
        self.inner.lock().node.positions.set_needs_sync(id);
        let link = {
            let lists = self.lists.lock();
            let found = lists.links.iter().find(|l| l.id == id).cloned();
            found
        };
        if let Some(link) = link {
            link.overflowed();
        }
        self.apply_wake.notify();
    }

    /// Changes the superblock and returns once that is durable. May sleep; allocates nothing, unless it fails.
    ///
    /// When the device fails, a start may find the former superblock or the new one, and the group fails with it: nothing may
    /// be done that goes with one of them only (rule DoubtStops). When `f` refuses, nothing has changed.
    pub(crate) fn update_superblock<R, E: From<Error>>(
        &self,
        f: impl FnOnce(&mut Superblock) -> Result<R, E>,
    ) -> Result<R, E> {
        self.srl.update(f).map_err(|why| {
            if let Unwritten::Device(e) = why {
                self.fail(Refusal::new(
                    e,
                    format_args!(
                        "SRL {}: superblock write failed (error {}); remove and add the group again",
                        self.srl.path().to_str().unwrap_or("?"),
                        e.to_errno()
                    ),
                ));
            }
            why.error()
        })
    }

    /// The log failed: closes the group for writes. Every bio with a seq that was not completed ends in EIO.
    pub(crate) fn fail(&self, refusal: Refusal) {
        let mut out = replicate_linux::dm::BioList::new();
        {
            let mut inner = self.inner.lock();
            if !inner.phase.fail() {
                return;
            }
            inner.node.fail();
            inner.drain(true, &mut out);
        }
        // First of all: who waits may be who frees the memory that the rest needs.
        while let Some(bio) = out.pop() {
            bio.end(replicate_linux::errno::BlkStatus::IOERR);
        }
        pr_err!("group {}: {}\n", self.name.as_str(), refusal.text());
        self.set_reason(crate::reason::Reason::LogFailed, refusal.text());
        event::group(self, Code::LogFailed, Severity::Critical, refusal.text());
        // A secondary's session ends at once: the primary must not go on waiting for it.
        self.wake_links();
    }

    /// Records why the group is as it is. May sleep, but waits for no memory.
    pub(crate) fn set_reason(&self, reason: crate::reason::Reason, text: &str) {
        let text = Text::new(format_args!("{text}"));
        let mut s = self.status.lock();
        s.reason = reason;
        s.text = Some(text);
        s.since_ns = replicate_linux::clock::wall_ns();
    }

    /// Keeps the payload of a region copy until its turn. `false`: no room.
    pub(crate) fn put_copy(&self, item: u64, payload: Option<SharedBuf>) -> bool {
        let mut copies = self.copy_payloads.lock();
        match copies.iter_mut().find(|c| c.is_none()) {
            Some(place) => {
                *place = Some((item, payload));
                true
            }
            None => false,
        }
    }

    /// Takes the payload of a region copy; `None`: there is no such copy, its session ended.
    pub(crate) fn take_copy(&self, item: u64) -> Option<CopyPayload> {
        let mut copies = self.copy_payloads.lock();
        let place = copies
            .iter_mut()
            .find(|c| c.as_ref().is_some_and(|c| c.0 == item))?;
        place.take()
    }

    /// Forgets the payloads of a session that ended.
    pub(crate) fn drop_copies(&self) {
        for place in self.copy_payloads.lock().iter_mut() {
            *place = None;
        }
    }

    /// Lowest seq that a sender still wants from memory. Does not sleep: the log worker asks, and takes no lock
    /// under which a command may wait for memory.
    pub(crate) fn keep_from(&self) -> Seq {
        let inner = self.inner.lock();
        let wanted = inner.senders.iter().map(|s| s.wants).min();
        wanted.unwrap_or(Seq(u64::MAX))
    }

    /// Every link that the superblock records has been added, and has concluded a handshake or was refused.
    pub(crate) fn links_answered(&self) -> bool {
        // The node has a position for each. The superblock itself may be locked for as long as it is being written.
        let expected = self.inner.lock().node.positions.iter().count();
        let lists = self.lists.lock();
        lists.links.len() >= expected && lists.links.iter().all(|l| l.answered())
    }

    /// A starting primary found that its history is forked: it takes no writes.
    pub(crate) fn refuse_start(&self, why: &str) {
        let mut out = replicate_linux::dm::BioList::new();
        {
            let mut inner = self.inner.lock();
            if !inner.phase.release(true) {
                return;
            }
            inner.drain(true, &mut out);
        }
        // First of all, as in `fail`.
        while let Some(bio) = out.pop() {
            bio.end(replicate_linux::errno::BlkStatus::IOERR);
        }
        pr_err!("group {}: {why}\n", self.name.as_str());
        self.set_reason(crate::reason::Reason::Forked, why);
        event::group(self, Code::Forked, Severity::Critical, why);
    }

    /// Stops the group's threads and waits for them. No lock may be held.
    pub(crate) fn stop(&self) {
        let threads = {
            let mut lists = self.lists.lock();
            lists.closing = true;
            core::mem::take(&mut lists.threads)
        };
        self.log_wake.notify();
        self.apply_wake.notify();
        drop(threads);
    }
}
