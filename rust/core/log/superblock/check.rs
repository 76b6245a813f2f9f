// SPDX-License-Identifier: GPL-2.0

//! Whether bytes are a superblock: first the checksum, then the meaning of every field.

use core::fmt;

use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{copy_offsets, foreign, is_blank, superblock_crc, Link, Signature, Superblock};
use crate::{
    group::{Replica, Role},
    lineage::Lineage,
    log::format::{
        block_for, is_block, Extent, SuperblockHead, END_BYTES, EXTENT_MAP, EXTENT_RESERVED,
        EXTENT_RING, FLAGS, FLAG_SYNC_END, FLAG_UNLOGGED, MAX_LINKS, MAX_VOLUMES, MIN_RING_BYTES,
        PIECE_BYTES, SUPERBLOCK_BYTES, SUPERBLOCK_MAGIC, SUPERBLOCK_MIN_BYTES, VERSION,
    },
    units::Bytes,
};

/// Why there is no superblock to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuperblockError {
    /// Fewer bytes than a superblock has.
    Short,
    /// Nothing but zeros.
    Blank,
    /// Something else lies there.
    NotOurs(Option<Signature>),
    /// The checksum is wrong: damaged or torn.
    Crc,
    /// Another format version.
    Version(u32),
    /// Features that this version does not know.
    Features(u32),
    /// Whole, but not possible: what is wrong with it.
    Malformed(&'static str),
    /// Two copies claim the same generation and differ.
    Conflict(u64),
    /// So many copies cannot be read, and the others do not show that none of them is newer.
    Unreadable(u8),
    /// The device has shrunk.
    Shrunk {
        /// Size when it was formatted.
        formatted: Bytes,
        /// Size now.
        device: Bytes,
    },
    /// The device writes in larger blocks than the log was formatted for.
    Block {
        /// Block of the log.
        formatted: u32,
        /// Physical block of the device.
        physical: u32,
    },
}

impl fmt::Display for SuperblockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SuperblockError::Short => f.write_str("too small for a superblock"),
            SuperblockError::Blank => f.write_str("not formatted: run dmrepl srl format"),
            SuperblockError::NotOurs(Some(s)) => write!(f, "no dmrepl log: it holds {s}"),
            SuperblockError::NotOurs(None) => f.write_str("no dmrepl log: it holds unknown data"),
            SuperblockError::Crc => f.write_str("superblock with a wrong checksum"),
            SuperblockError::Version(v) if *v > VERSION => {
                write!(f, "log of format version {v}, from a newer dm-replicate")
            }
            SuperblockError::Version(v) => write!(f, "log of unknown format version {v}"),
            SuperblockError::Features(bits) => {
                write!(f, "log with features {bits:#x} of a newer dm-replicate")
            }
            SuperblockError::Malformed(what) => write!(f, "superblock with an impossible {what}"),
            SuperblockError::Conflict(g) => {
                write!(f, "two different superblocks of generation {g}")
            }
            SuperblockError::Unreadable(n) => write!(
                f,
                "{n} of the four copies of its superblock cannot be read, and may be newer than those that can; nothing was changed; repair the device, or take over on a secondary"
            ),
            SuperblockError::Shrunk { formatted, device } => {
                write!(
                    f,
                    "log formatted for {formatted} bytes, the device has {device}"
                )
            }
            SuperblockError::Block {
                formatted,
                physical,
            } => write!(
                f,
                "log formatted for {formatted}-byte blocks, the device has {physical}"
            ),
        }
    }
}

/// Whether `bytes` begin with something that has our magic and a right checksum, and how long it is.
///
/// Magic, version, length, checksum and feature words keep their places in every version, so that
/// "from a newer version" can be told from "damaged".
pub(super) fn checksum(bytes: &[u8]) -> Result<usize, SuperblockError> {
    let Ok((head, _)) = SuperblockHead::ref_from_prefix(bytes) else {
        return Err(SuperblockError::Short);
    };
    if head.magic != SUPERBLOCK_MAGIC {
        return Err(match foreign(bytes) {
            None if is_blank(bytes) => SuperblockError::Blank,
            signature => SuperblockError::NotOurs(signature),
        });
    }
    let length = head.length.get() as usize;
    let version = head.version.get();
    let Some(covered) = bytes.get(..length) else {
        // Longer than what this version writes: a newer one, or damaged.
        return Err(if version == VERSION {
            SuperblockError::Crc
        } else {
            SuperblockError::Version(version)
        });
    };
    if length < PIECE_BYTES
        || length % PIECE_BYTES != 0
        || superblock_crc(covered) != head.crc.get()
    {
        return Err(SuperblockError::Crc);
    }
    if version != VERSION {
        return Err(SuperblockError::Version(version));
    }
    // An older version may neither write nor read; there is no reading without writing here.
    let unknown = head.incompat.get() | head.ro_compat.get();
    if unknown != 0 {
        return Err(SuperblockError::Features(unknown));
    }
    if !(SUPERBLOCK_MIN_BYTES..=SUPERBLOCK_BYTES).contains(&length) {
        return Err(SuperblockError::Malformed("length"));
    }
    Ok(length)
}

/// `Ok` when the statement holds, else what is wrong.
fn must(holds: bool, what: &'static str) -> Result<(), SuperblockError> {
    if holds {
        Ok(())
    } else {
        Err(SuperblockError::Malformed(what))
    }
}

impl Superblock {
    /// Checks what a right checksum does not say, in the first `length` bytes.
    pub(super) fn check(&self, length: usize) -> Result<(), SuperblockError> {
        self.check_head()?;
        self.check_extents()?;
        self.check_tail()?;
        self.check_lineage()?;
        self.check_links()?;
        self.check_volumes(length)
    }

    fn check_head(&self) -> Result<(), SuperblockError> {
        let h = &self.head;
        must(h.generation.get() > 0, "generation")?;
        must(is_block(h.block.get()), "block size")?;
        must(!self.host().is_none(), "host id")?;
        must(Role::from_u8(h.role).is_some(), "role")?;
        must(h.flags.get() & !FLAGS == 0, "flags")?;
        must(
            h.group_name.is_none() || h.group_name.is_valid(),
            "group name",
        )?;
        let free = self.group().is_none() && self.role() == Role::None;
        must(free || h.group_name.is_valid(), "group without a name")?;
        let unlogged = h.flags.get() & FLAG_UNLOGGED != 0;
        must(unlogged || h.unlogged.is_none(), "unlogged mark")?;
        let sync_end = h.flags.get() & FLAG_SYNC_END != 0;
        must(sync_end || h.sync_end.is_none(), "synchronisation end")?;
        let mixture = match Replica::from_u8(h.replica) {
            Some(Replica::Inconsistent) => true,
            Some(Replica::Empty | Replica::Consistent) => {
                !sync_end && h.inconsistent.is_none() && h.inconsistent_ns.get() == 0
            }
            None => false,
        };
        must(mixture, "replica state")?;
        must(
            h.reserved_a == [0; 4] && h.reserved == [0; 608],
            "reserved byte",
        )
    }

    fn check_extents(&self) -> Result<(), SuperblockError> {
        let block = self.block();
        let [.., end, _] = copy_offsets(self.device());
        let mut rest = self.extents.as_slice();
        let mut rings = 0u32;
        while let Some((e, others)) = rest.split_first() {
            rest = others;
            let (kind, slot) = (e.kind.get(), usize::from(e.slot.get()));
            if kind == 0 {
                must(e.as_bytes().iter().all(|b| *b == 0), "unused area")?;
                continue;
            }
            let length = e.length.get();
            let possible = match kind {
                EXTENT_RING => {
                    rings = rings.saturating_add(1);
                    length >= MIN_RING_BYTES && slot == 0
                }
                EXTENT_MAP => slot < MAX_LINKS,
                EXTENT_RESERVED => slot == 0,
                _ => false,
            };
            must(possible && rings <= 1, "area")?;
            must(
                e.reserved_a == [0; 4] && e.reserved == [0; 8],
                "reserved byte of an area",
            )?;
            let own = e.start.get();
            let aligned = [own, length]
                .iter()
                .all(|n| Bytes(*n).round_down(block) == Bytes(*n));
            let inside = own >= END_BYTES
                && own
                    .checked_add(length)
                    .is_some_and(|e| e <= end.0 && length > 0);
            must(aligned && inside, "place of an area")?;
            must(!others.iter().any(|o| overlap(e, o)), "overlap of areas")?;
        }
        Ok(())
    }

    fn check_tail(&self) -> Result<(), SuperblockError> {
        let tail = self.tail();
        let possible = match self.ring() {
            Some(ring) => {
                tail.offset < ring.length && tail.offset.round_down(self.block()) == tail.offset
            }
            None => tail.offset == Bytes(0) && tail.lap == 0,
        };
        must(possible && tail.seq.0 > 0, "tail")
    }

    fn check_lineage(&self) -> Result<(), SuperblockError> {
        let malformed = SuperblockError::Malformed("lineage");
        let count = usize::from(self.head.lineage_count.get());
        let (used, rest) = self.lineage.split_at_checked(count).ok_or(malformed)?;
        let before = self.head.before.get().map_err(|_| malformed)?;
        let lineage = Lineage::new(before, used).map_err(|_| malformed)?;
        let last = self.last_epoch_index();
        must(
            lineage.iter().all(|e| (1..=last).contains(&e.index)),
            "epoch number",
        )?;
        must(
            rest.as_bytes().iter().all(|b| *b == 0),
            "unused lineage entry",
        )
    }

    fn check_links(&self) -> Result<(), SuperblockError> {
        for slot in &self.links {
            slot.decode()?;
        }
        let repeated =
            |(i, l): (usize, Link)| self.links().any(|(j, other)| j > i && other.name == l.name);
        must(!self.links().any(repeated), "link name (there are two)")
    }

    fn check_volumes(&self, length: usize) -> Result<(), SuperblockError> {
        let count = usize::from(self.head.volume_count.get());
        must(
            count <= MAX_VOLUMES && length == self.sealed_bytes(),
            "length",
        )?;
        let written = length.saturating_sub(SUPERBLOCK_MIN_BYTES) / 128;
        let mut rest = self.volumes.get(..written).unwrap_or(&[]);
        for _ in 0..count {
            let Some((entry, others)) = rest.split_first() else {
                break;
            };
            rest = others;
            let v = entry.decode()?.volume;
            must(v.id.0 < self.head.next_volume.get(), "volume number")?;
            let unique = !others
                .iter()
                .any(|o| o.name == v.name || (o.state != 0 && o.id == entry.id));
            must(unique, "volume (there are two)")?;
        }
        must(rest.iter().all(|e| e.is_unused()), "unused volume entry")
    }

    /// Whether the log can be used on this device.
    pub fn check_device(&self, device: Bytes, physical_block: u32) -> Result<(), SuperblockError> {
        if device < self.device() {
            return Err(SuperblockError::Shrunk {
                formatted: self.device(),
                device,
            });
        }
        if block_for(physical_block).is_none_or(|b| b > self.block()) {
            return Err(SuperblockError::Block {
                formatted: self.block(),
                physical: physical_block,
            });
        }
        Ok(())
    }
}

/// Whether two used areas share a byte.
fn overlap(a: &Extent, b: &Extent) -> bool {
    let end = |e: &Extent| e.start.get().saturating_add(e.length.get());
    b.kind.get() != 0 && a.start.get() < end(b) && b.start.get() < end(a)
}
