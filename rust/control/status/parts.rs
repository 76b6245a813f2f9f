// SPDX-License-Identifier: GPL-2.0

//! The volumes and links of a group at one moment, in an order that stays.
//!
//! Every part has a key: volumes by their id, then those that have none yet, then links by their slot. A dump that is
//! continued goes on behind the key that it has told last, whatever came or went meanwhile.

use crate::{
    group::{inner::MAX_VOLUMES, Group},
    link::Link,
    volume::Volume,
};
use kernel::{prelude::*, sync::Arc};
use replicate_core::{
    group,
    log::superblock::{VolumeSlot, VolumeState},
    node::links::MAX_LINKS,
    units::Sector,
};

/// Keys of volumes without an id begin here: ids have 16 bits.
const UNNUMBERED: u64 = 1 << 17;
/// Keys of links begin here.
const LINKS: u64 = 1 << 18;

/// A volume, by the table of the superblock and by what is attached.
pub(super) struct VolumePart {
    key: u64,
    /// As described by the table; of one that is not in there, by its device.
    pub(super) facts: group::Volume,
    /// It has an id: it is in the table.
    pub(super) known: bool,
    /// The table says that a write to it failed.
    pub(super) failed: bool,
    /// How far a synchronisation that runs has come.
    pub(super) cursor: Option<Sector>,
    /// The device-mapper device, while there is one.
    pub(super) attached: Option<Arc<Volume>>,
}

/// See the module.
pub(super) enum Part {
    Volume(VolumePart),
    Link(Arc<Link>),
}

impl Part {
    pub(super) fn key(&self) -> u64 {
        match self {
            Part::Volume(v) => v.key,
            Part::Link(l) => LINKS + u64::from(l.id.0),
        }
    }
}

/// All parts of a group.
pub(super) struct Parts(KVVec<Part>);

impl Parts {
    /// Takes them. May sleep.
    pub(super) fn of(group: &Group) -> Result<Parts> {
        let attached = group.present()?;
        let links = group.all_links()?;
        let mut parts = KVVec::with_capacity(
            MAX_VOLUMES + attached.len() + MAX_LINKS.max(links.len()),
            GFP_KERNEL,
        )?;
        group.srl.read(|sb| {
            let syncing = sb.inconsistent().is_some();
            for slot in sb.volumes() {
                let part = in_table(&slot, syncing, &attached);
                // Cannot fail: the table has no more places than that.
                let _ = parts.push_within_capacity(Part::Volume(part));
            }
        })?;
        let mut unnumbered = attached.iter().filter(|v| {
            !parts.iter().any(|p| match p {
                Part::Volume(p) => p.facts.name == v.name,
                Part::Link(_) => false,
            })
        });
        let mut numberless = KVec::with_capacity(attached.len(), GFP_KERNEL)?;
        for (i, v) in (0u64..).zip(&mut unnumbered) {
            let _ = numberless.push_within_capacity(Part::Volume(VolumePart {
                key: UNNUMBERED + i,
                facts: v.describe(),
                known: false,
                failed: false,
                cursor: None,
                attached: Some(v.clone()),
            }));
        }
        for p in numberless {
            let _ = parts.push_within_capacity(p);
        }
        for id in 0..MAX_LINKS {
            let link = links.iter().find(|l| usize::from(l.id.0) == id);
            if let Some(link) = link {
                let _ = parts.push_within_capacity(Part::Link(link.clone()));
            }
        }
        Ok(Parts(parts))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns those whose key is at least `from`.
    pub(super) fn at_least(&self, from: u64) -> impl Iterator<Item = &Part> {
        self.0.iter().filter(move |p| p.key() >= from)
    }

    /// Returns the first volume of the table that is not attached.
    pub(super) fn first_absent(&self) -> Option<&VolumePart> {
        self.volumes().find(|v| v.attached.is_none())
    }

    /// Returns all volumes.
    pub(super) fn volumes(&self) -> impl Iterator<Item = &VolumePart> {
        self.0.iter().filter_map(|p| match p {
            Part::Volume(v) => Some(v),
            Part::Link(_) => None,
        })
    }
}

fn in_table(slot: &VolumeSlot, syncing: bool, attached: &[Arc<Volume>]) -> VolumePart {
    VolumePart {
        key: 1 + u64::from(slot.volume.id.0),
        facts: slot.volume,
        known: true,
        failed: slot.state == VolumeState::Failed,
        cursor: (syncing && slot.state == VolumeState::Syncing).then_some(slot.cursor),
        attached: attached
            .iter()
            .find(|v| v.name == slot.volume.name)
            .cloned(),
    }
}
