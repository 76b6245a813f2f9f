// SPDX-License-Identifier: GPL-2.0

//! A link's slot: what the log keeps for a peer, and how far a synchronisation of it is.
//!
//! All of them are written while the applier stands still, so that no checkpoint's older slot comes after them.

use crate::{
    group::{Mode, Name},
    log::superblock::{Link, LinkState, Superblock, SyncState, Tail},
    node::links::LinkId,
    units::{Chain, HostId, Sector, Seq, VolumeId},
};

/// The link has no slot in the superblock (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSlot;

type Changed = Result<(), NoSlot>;

fn edit(sb: &mut Superblock, id: LinkId, change: impl FnOnce(&Superblock, &mut Link)) -> Changed {
    let slot = usize::from(id.0);
    let mut link = sb.link(slot).ok_or(NoSlot)?;
    change(sb, &mut link);
    if sb.set_link(slot, Some(&link)) {
        Ok(())
    } else {
        Err(NoSlot)
    }
}

/// `link add`: the link as it was recorded, with this mode; a new one needs a synchronisation first. Returns it.
///
/// *A cut before:* no such link, or as it was. *A cut after:* a link that is not added yet; a starting primary waits for it.
/// *Must be durable before* the link's thread starts.
pub fn add(
    sb: &mut Superblock,
    id: LinkId,
    name: Name,
    mode: Mode,
    time_ns: u64,
) -> Result<Link, NoSlot> {
    let slot = usize::from(id.0);
    let link = Link {
        mode,
        ..sb.link(slot).unwrap_or(Link {
            name,
            state: LinkState::NeedsSync,
            since_ns: time_ns,
            ..Link::default()
        })
    };
    if sb.set_link(slot, Some(&link)) {
        Ok(link)
    } else {
        Err(NoSlot)
    }
}

/// `link del`: the log keeps nothing for it any more.
///
/// *Before:* its session has ended. *A cut before:* the next start waits for the link, and keeps the log for it.
pub fn remove(sb: &mut Superblock, id: LinkId) {
    let _ = sb.set_link(usize::from(id.0), None);
}

/// `link set --mode`.
///
/// *Must be durable before* writers wait for the new level. Either mode is right after a cut: no link is in-sync then.
pub fn set_mode(sb: &mut Superblock, id: LinkId, mode: Mode) -> Changed {
    edit(sb, id, |_, link| link.mode = mode)
}

/// A full synchronisation begins: the log keeps everything above its start, the peer's former position is given up.
///
/// *Before:* the log holds everything above `sync.start`, a position that this host cannot lose. *A cut before:* the link is what
/// it was; the peer may be inconsistent already and says so. *A cut after:* the synchronisation goes on from its cursor.
/// *Must be durable before* log that the peer's former position needs is freed.
pub fn sync_began(
    sb: &mut Superblock,
    id: LinkId,
    peer: HostId,
    chain: Chain,
    sync: SyncState,
) -> Changed {
    edit(sb, id, |_, link| {
        link.peer = peer;
        link.state = LinkState::Syncing;
        link.position = sync.start;
        link.chain = chain;
        link.sync = Some(SyncState { end: None, ..sync });
    })
}

/// Both sides were declared equal at `at`. *Before:* the peer's superblock says so.
pub fn declared_equal(
    sb: &mut Superblock,
    id: LinkId,
    peer: HostId,
    at: Seq,
    chain: Chain,
) -> Changed {
    edit(sb, id, |sb, link| {
        link.peer = peer;
        link.state = LinkState::Normal;
        link.position = sb.lineage().position(at).unwrap_or_default();
        link.chain = chain;
        link.sync = None;
    })
}

/// Whether [`session_began`] has something to say.
#[must_use]
pub fn session_is_news(sb: &Superblock, id: LinkId, peer: HostId) -> bool {
    let known = sb.link(usize::from(id.0));
    !known.is_some_and(|l| l.peer == peer && l.state != LinkState::NeedsSync)
}

/// A peer goes on in the same history at `from`: who it is, and that the log keeps everything above `from` for it again
/// if it had been given up. `tail`: the batch at which the log must begin for that ([`Node::log_tail`](crate::node::Node::log_tail)).
///
/// *Before:* the log holds everything above `from`; a checkpoint may have stated a tail beyond it, while the link was given up,
/// so the tail goes back. *A cut before:* the peer must be synchronised, or is met again.
pub fn session_began(
    sb: &mut Superblock,
    id: LinkId,
    peer: HostId,
    from: Seq,
    tail: Option<Tail>,
) -> Changed {
    let mut resumes = false;
    edit(sb, id, |sb, link| {
        link.peer = peer;
        resumes = link.state == LinkState::NeedsSync;
        if resumes {
            link.state = LinkState::Normal;
            link.position = sb.lineage().position(from).unwrap_or_default();
        }
    })?;
    if let Some(tail) = tail.filter(|t| resumes && t.seq < sb.tail().seq) {
        sb.set_tail(tail);
    }
    Ok(())
}

/// How far the peer's copies are durable *there*, and where the synchronisation ends once that is known.
///
/// *A cut before:* copies are made again, from the older cursor. The end *must be durable before* the peer is told it: a
/// primary that comes back would otherwise not know that the peer may call itself consistent.
pub fn sync_moved(
    sb: &mut Superblock,
    id: LinkId,
    at: (VolumeId, Sector),
    end: Option<Seq>,
) -> Changed {
    edit(sb, id, |sb, link| {
        let end = end.and_then(|s| sb.lineage().position(s));
        if let Some(sync) = &mut link.sync {
            (sync.volume, sync.cursor) = at;
            sync.end = end.or(sync.end);
        }
    })
}

/// Another synchronisation is about to begin: nothing was copied by the recorded one.
///
/// *A cut before:* the recorded one goes on; the peer has heard of no other. *A cut after:* the recorded one begins again.
/// *Must be durable before* the peer is welcomed to the new one, see [`primary`](crate::session::primary).
pub fn sync_forgets(sb: &mut Superblock, id: LinkId) -> Changed {
    edit(sb, id, |_, link| {
        if let Some(sync) = &mut link.sync {
            (sync.cursor, sync.end) = (Sector(0), None);
        }
    })
}

/// The peer said that it is consistent, durably: the synchronisation is over.
///
/// *A cut before:* the next handshake finds a consistent peer, and the end in the slot. A slot without a synchronisation stays
/// as it is: the link may have been given up meanwhile, and the log that it needs freed.
pub fn sync_over(sb: &mut Superblock, id: LinkId) -> Changed {
    edit(sb, id, |_, link| {
        if link.sync.take().is_some() {
            link.state = LinkState::Normal;
        }
    })
}

/// Whether the slot says that a synchronisation is over. One that was given up or stopped is not: the link needs another.
#[must_use]
pub fn is_over(sb: &Superblock, id: LinkId) -> bool {
    sb.link(usize::from(id.0))
        .is_some_and(|l| l.sync.is_none() && l.state == LinkState::Normal)
}

/// The synchronisation was stopped: the peer stays inconsistent, and the log keeps nothing for it.
///
/// *Must be durable before* the log that it needs is freed.
pub fn needs_sync(sb: &mut Superblock, id: LinkId) -> Changed {
    edit(sb, id, |_, link| {
        link.state = LinkState::NeedsSync;
        link.sync = None;
    })
}
