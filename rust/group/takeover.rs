// SPDX-License-Identifier: GPL-2.0

//! Takeover: the secondary becomes the primary because the old one is lost.
//!
//! 1. Close all sessions: no acknowledgement leaves after this, so no write that the old primary still
//!    completes rests on us.
//! 2. T = end of the gap-free prefix in memory; with a ring it is logged and flushed, without one applied and flushed.
//! 3. Superblock with the new epoch, first seq T+1. Until this is durable a crash leaves a secondary.
//! 4. The volumes become writable. Their page caches are invalidated first: the applier wrote below them.
//!
//! Refused while the primary is connected, while the replica is inconsistent or empty, and with openers,
//! unless forced.

use super::{epochs::EpochTable, inner::Phase, Group};
use crate::{
    event::{self, Code, Severity},
    link::Link,
    refuse::{Refusal, Text},
    volume::Volume,
};
use core::fmt;
use kernel::{prelude::*, sync::Arc};
use replicate_core::{
    group::Replica,
    node::{
        durable::{grow::Limits, takeover as durable},
        links::MAX_LINKS,
        Log, Role,
    },
    units::{EpochId, Seq},
};
use replicate_linux::{
    clock,
    errno::{EALREADY, EISCONN, ENODATA, ETIMEDOUT, EUCLEAN},
    random,
};

/// What a takeover says.
pub(crate) struct TakenOver {
    pub(crate) epoch: EpochId,
    pub(crate) head: Seq,
    pub(crate) text: Text,
}

/// How long the log may take to make the last records durable.
const LIMIT_MS: u64 = 60_000;

impl Group {
    /// Takes over. May sleep; called with the registry's mutex held.
    pub(crate) fn takeover(&self, force: bool) -> Result<TakenOver, Refusal> {
        self.may_take_over(force)?;
        let mut links = self.all_links()?;
        let was_sync = last_contact(&links);
        // All that it needs, so that nothing fails for want of it half way.
        let room = Self::room_for_volumes()?;
        let epochs = EpochTable::new()?;
        if !self.inner.lock().phase.begin_takeover() {
            return Err(self.not_normal());
        }
        links.retain(|l| l.close_for_takeover());
        // Until its session had ended a link could begin a synchronisation, or this host could fail.
        let taken = match self.is_fit(force) {
            Ok(()) => self.become_primary(was_sync, room, epochs),
            Err(e) => Err(e),
        };
        // After a refusal a secondary as before, unless it failed.
        let _ = self.inner.lock().phase.end_takeover(false);
        // Whoever comes now, above all the old primary, is told what this host is.
        for link in links {
            let _ = link.connect(self);
        }
        taken
    }

    /// All sessions are closed. `room`: for all volumes. Needs no memory.
    #[inline(never)]
    fn become_primary(
        &self,
        was_sync: &str,
        mut room: KVec<Arc<Volume>>,
        mut epochs: EpochTable,
    ) -> Result<TakenOver, Refusal> {
        let name = self.name.as_str();
        let end = self.inner.lock().takeover_begin();
        self.drop_copies();
        if let Err(e) = self.wait_durable(end) {
            if matches!(self.inner.lock().node.log, Log::NoRing(_)) {
                // Its volumes may hold by now what the primary never committed.
                self.fail(Refusal::new(e.error, format_args!("{}", e.text())));
            }
            return Err(e);
        }
        let still = self.pause_applier();
        if self.inner.lock().node.has_failed() {
            return Err(self.srl_failed());
        }
        let ring = matches!(self.inner.lock().node.log, Log::Ring(_));
        let mut id = EpochId::NONE;
        random::fill(&mut id.0);
        let take_over = durable::TakeOver {
            end,
            epoch: id,
            time_ns: clock::wall_ns(),
            limits: Limits::FORMAT,
        };
        self.present_in(&mut room);
        let mut refused = false;
        let written = self.update_superblock(|sb| {
            durable::take_over(sb, &take_over, room.iter().map(|v| v.describe())).map_err(|e| {
                refused = true;
                Refusal::new(EINVAL, format_args!("group {name}: {e}"))
            })?;
            epochs.set(&sb.lineage());
            Ok::<_, Refusal>(())
        });
        match written {
            Ok(()) => {}
            // Nothing was written.
            Err(e) if refused && ring => return Err(e),
            // Where it was not refused the group has failed: one of the copies may say primary.
            Err(e) => {
                self.fail(Refusal::new(
                    e.error,
                    format_args!(
                        "takeover failed, remove and add the group again: {}",
                        e.text()
                    ),
                ));
                return Err(e);
            }
        }
        {
            let mut i = self.identity.lock();
            i.epoch = id;
            i.replica = Replica::Consistent;
        }
        {
            let mut inner = self.inner.lock();
            inner.epochs = epochs;
            inner.node.takeover_done(end);
            inner.show_states();
            let _ = inner.phase.end_takeover(!ring);
        }
        drop(still);
        self.open_volumes(room);
        let text = Text::new(format_args!(
            "took over at record {end}; {was_sync}{}",
            if ring {
                ""
            } else {
                "; without a ring writes are unlogged, everything from here on may differ"
            }
        ));
        let shown = text.as_str();
        self.set_reason(crate::reason::Reason::Takeover, shown);
        let kept = Text::new(format_args!("{shown}"));
        self.status.lock().takeover = Some(kept);
        event::group(self, Code::Takeover, Severity::Critical, shown);
        Ok(TakenOver {
            epoch: id,
            head: end,
            text,
        })
    }

    fn may_take_over(&self, force: bool) -> Result<(), Refusal> {
        let name = self.name.as_str();
        self.is_fit(force)?;
        if self.inner.lock().phase != Phase::Active {
            return Err(self.not_normal());
        }
        if force {
            return Ok(());
        }
        for link in self.all_links()? {
            if link.is_connected() {
                return Err(Refusal::new(EISCONN, format_args!("group {name}: link {} is connected to the primary; stop the primary first, or use --force", link.name.as_str())));
            }
        }
        for volume in self.present()? {
            let openers = volume.table.openers().unwrap_or(0);
            if openers > 0 {
                return Err(Refusal::new(EBUSY, format_args!("volume {name}/{}: {openers} openers read it; close them (fuser -v), or use --force", volume.name.as_str())));
            }
        }
        Ok(())
    }

    /// Whether what this host has can be taken over.
    fn is_fit(&self, force: bool) -> Result<(), Refusal> {
        let name = self.name.as_str();
        let no = |e: Error, text: fmt::Arguments<'_>| Err(Refusal::new(e, text));
        let (role, failed, consistent, all, lacking) = {
            let inner = self.inner.lock();
            let node = &inner.node;
            let lacking = node.beyond_repair().and_then(|id| inner.volume(id));
            (
                node.role(),
                node.has_failed(),
                node.is_consistent(),
                node.volumes.all_present(),
                lacking,
            )
        };
        if role == Role::Primary {
            return no(
                EALREADY.into(),
                format_args!("group {name} is primary on this host already; nothing to take over"),
            );
        }
        if failed {
            return Err(self.srl_failed());
        }
        let replica = self.identity().replica;
        if replica == Replica::Empty {
            return no(ENODATA.into(), format_args!("group {name} has never been synchronised on this host: there is nothing to take over"));
        }
        if (replica == Replica::Inconsistent || !consistent) && !force {
            return no(EUCLEAN.into(), format_args!("group {name}: the replica is inconsistent until its synchronisation ends; --force takes it over as it is"));
        }
        if !all {
            return no(EAGAIN, format_args!("group {name}: not every volume is active on this host; create them with dmsetup first"));
        }
        if let Some(volume) = lacking {
            return no(
                EIO,
                format_args!("volume {name}/{}: its data device failed, and there is no ring to bring back what it lacks: remove the group and add it again, then take over what the device holds", volume.name.as_str()),
            );
        }
        Ok(())
    }

    fn not_normal(&self) -> Refusal {
        let name = self.name.as_str();
        Refusal::new(
            EBUSY,
            format_args!("group {name} is not running normally (see 'dmrepl status {name}'); takeover refused"),
        )
    }

    fn srl_failed(&self) -> Refusal {
        let name = self.name.as_str();
        Refusal::new(
            EIO,
            format_args!("group {name}: the SRL failed; takeover refused"),
        )
    }

    /// Waits until everything up to `end` is as durable as a takeover needs.
    fn wait_durable(&self, end: Seq) -> Result<(), Refusal> {
        let until = clock::monotonic_ns() + LIMIT_MS * 1_000_000;
        let ready = || {
            let mut inner = self.inner.lock();
            inner.node.demand(end);
            inner.node.takeover_ready(end) || inner.node.has_failed()
        };
        while !ready() {
            self.log_wake.notify();
            self.apply_wake.notify();
            self.moved.wait_until_always(20, ready);
            if clock::monotonic_ns() > until {
                return Err(Refusal::new(
                    ETIMEDOUT,
                    format_args!("group {}: records up to {end} did not become durable within 60 s; still a secondary", self.name.as_str()),
                ));
            }
        }
        if self.inner.lock().node.has_failed() {
            return Err(self.srl_failed());
        }
        Ok(())
    }

    /// Makes the volumes writable. Reads and writes are parked until the log is applied.
    fn open_volumes(&self, mut room: KVec<Arc<Volume>>) {
        room.clear();
        self.present_in(&mut room);
        for volume in room.iter() {
            let _ = volume.table.invalidate_cache();
            let _ = volume.table.set_read_only(false);
            let _ = volume.table.event();
        }
        self.apply_wake.notify();
        self.log_wake.notify();
        self.moved.notify();
    }

    /// Every link. May sleep.
    pub(crate) fn all_links(&self) -> Result<KVec<Arc<Link>>> {
        // Before the lock: the applier takes it too, and memory may have to wait for the applier.
        let mut room = Self::room_for_links()?;
        self.links_in(&mut room);
        Ok(room)
    }

    /// Memory for all links that there can be. May sleep.
    pub(crate) fn room_for_links() -> Result<KVec<Arc<Link>>> {
        Ok(KVec::with_capacity(MAX_LINKS, GFP_KERNEL)?)
    }

    /// Every link, where there must be no need for memory. May sleep.
    pub(crate) fn links_in(&self, room: &mut KVec<Arc<Link>>) {
        for link in self.lists.lock().links.iter() {
            // Cannot fail: there are no more links than there is room.
            let _ = room.push(link.clone(), GFP_NOWAIT);
        }
    }

    /// The link at a place in the list: for going through it without memory, while no command changes it.
    pub(crate) fn link_at(&self, i: usize) -> Option<Arc<Link>> {
        self.lists.lock().links.get(i).cloned()
    }
}

/// What is known of the old primary, for the takeover's text.
fn last_contact(links: &[Arc<Link>]) -> &'static str {
    if links.iter().any(|l| l.was_in_sync()) {
        "in-sync when contact was lost; the primary may have gone on"
    } else {
        "not in-sync when contact was lost: the primary may have completed writes that are not here"
    }
}
