// SPDX-License-Identifier: GPL-2.0

//! The link slots: what the log keeps of each peer, by host id. A slot's number never changes.

use crate::{
    group::{numbered, Mode, Name, SyncKind},
    lineage::Pos,
    log::{
        format::LinkSlot,
        superblock::{Superblock, SuperblockError},
    },
    units::{Chain, HostId, Position, Sector, VolumeId},
};

numbered! {
    /// What the log owes a link.
    #[derive(Default)]
    LinkState {
        /// All records after its position.
        #[default]
        Normal = 1 "normal",
        /// Nothing: it must be synchronised first.
        NeedsSync = 2 "needs-sync",
        /// Nothing: changes go to its change map.
        Logging = 3 "logging",
        /// The records since the synchronisation began.
        Syncing = 4 "syncing",
    }
}

/// A synchronisation that is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncState {
    /// Which.
    pub kind: SyncKind,
    /// The volume that it has reached.
    pub volume: VolumeId,
    /// The sector of it up to which the peer has durable copies.
    pub cursor: Sector,
    /// Where it began.
    pub start: Position,
    /// Where it ends, when that is known.
    pub end: Option<Position>,
}

/// One link, as far as it must survive a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The peer; `HostId::NONE` until it has been met.
    pub peer: HostId,
    /// The link's name.
    pub name: Name,
    /// The peer has all up to here on stable storage.
    pub position: Position,
    /// Chain there.
    pub chain: Chain,
    /// What the log owes it.
    pub state: LinkState,
    /// When writes complete.
    pub mode: Mode,
    /// Why it is in that state: a refusal code of the wire, or 0.
    pub reason: u16,
    /// Since when, ns since 1970.
    pub since_ns: u64,
    /// The synchronisation that is on its way.
    pub sync: Option<SyncState>,
}

const EMPTY: LinkSlot = zerocopy::transmute!([0u8; 208]);
const SYNC_END_KNOWN: u8 = 1;

impl LinkSlot {
    /// What it says, `None` when it is unused.
    pub(super) fn decode(&self) -> Result<Option<Link>, SuperblockError> {
        let bad = Err(SuperblockError::Malformed("link slot"));
        if self.state == 0 {
            let unused = zerocopy::IntoBytes::as_bytes(self).iter().all(|b| *b == 0);
            return if unused { Ok(None) } else { bad };
        }
        let (Some(state), Some(mode)) = (LinkState::from_u8(self.state), Mode::from_u8(self.mode))
        else {
            return bad;
        };
        if !self.name.is_valid() || self.reserved_a != [0; 4] || self.reserved != [0; 24] {
            return bad;
        }
        Ok(Some(Link {
            peer: HostId(self.peer),
            name: self.name,
            position: self.position.get(),
            chain: Chain(self.chain.get()),
            state,
            mode,
            reason: self.reason.get(),
            since_ns: self.since_ns.get(),
            sync: self.decode_sync()?,
        }))
    }

    fn decode_sync(&self) -> Result<Option<SyncState>, SuperblockError> {
        let bad = Err(SuperblockError::Malformed("synchronisation in a link slot"));
        let end_known = self.sync_flags == SYNC_END_KNOWN;
        if !end_known && (self.sync_flags != 0 || !self.sync_end.is_none()) {
            return bad;
        }
        let sync = SyncState {
            kind: SyncKind::from_u8(self.sync_kind).unwrap_or_default(),
            volume: VolumeId(self.sync_volume.get()),
            cursor: Sector(self.sync_cursor.get()),
            start: self.sync_start.get(),
            end: end_known.then(|| self.sync_end.get()),
        };
        match SyncKind::from_u8(self.sync_kind) {
            Some(_) => Ok(Some(sync)),
            None if self.sync_kind == 0 && sync == SyncState::default() => Ok(None),
            None => bad,
        }
    }
}

impl From<&Link> for LinkSlot {
    fn from(l: &Link) -> LinkSlot {
        let sync = l.sync.unwrap_or_default();
        LinkSlot {
            peer: l.peer.0,
            name: l.name,
            position: l.position.into(),
            chain: l.chain.0.into(),
            state: l.state.to_u8(),
            mode: l.mode.to_u8(),
            reason: l.reason.into(),
            since_ns: l.since_ns.into(),
            sync_kind: l.sync.map_or(0, |s| s.kind.to_u8()),
            sync_flags: if sync.end.is_some() {
                SYNC_END_KNOWN
            } else {
                0
            },
            sync_volume: sync.volume.0.into(),
            sync_cursor: sync.cursor.0.into(),
            sync_start: sync.start.into(),
            sync_end: sync.end.map_or(Pos::default(), Pos::from),
            ..EMPTY
        }
    }
}

impl Superblock {
    /// The link in `slot`.
    #[must_use]
    pub fn link(&self, slot: usize) -> Option<Link> {
        self.links.get(slot)?.decode().ok().flatten()
    }

    /// All links with the number of their slot.
    pub fn links(&self) -> impl Iterator<Item = (usize, Link)> + '_ {
        let all = self.links.iter().enumerate();
        all.filter_map(|(i, slot)| slot.decode().ok().flatten().map(|l| (i, l)))
    }

    /// The slot of the link with this name.
    #[must_use]
    pub fn find_link(&self, name: &Name) -> Option<usize> {
        self.links().find(|(_, l)| l.name == *name).map(|(i, _)| i)
    }

    /// A slot that no link uses.
    #[must_use]
    pub fn free_link_slot(&self) -> Option<usize> {
        self.links.iter().position(|slot| slot.state == 0)
    }

    /// Writes a link into a slot, or empties it. `false`: no such slot, or no valid name.
    #[must_use]
    pub fn set_link(&mut self, slot: usize, link: Option<&Link>) -> bool {
        if link.is_some_and(|l| !l.name.is_valid()) {
            return false;
        }
        match self.links.get_mut(slot) {
            Some(place) => {
                *place = link.map_or(EMPTY, LinkSlot::from);
                true
            }
            None => false,
        }
    }
}
