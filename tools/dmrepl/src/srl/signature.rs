// SPDX-License-Identifier: GPL-2.0

//! What is on a device that shall be formatted. The core knows the common signatures at the front;
//! here are rarer ones, those at the end, and the last resort: anything but zeros at either end.

use replicate_core::log::superblock::{foreign, is_blank};

use super::device::Device;
use crate::error::Result;

/// How much of either end is looked at.
const LOOK_BYTES: u64 = 1 << 20;

/// How much of either end must be blank where no signature is found: what the superblocks take.
const BLANK_BYTES: usize = 128 << 10;

const FRONT: [(usize, &[u8], &str); 15] = [
    (0, b"bluestore block device", "a Ceph BlueStore device"),
    (0, b"hsqs", "a SquashFS filesystem"),
    (0, b"verity\0\0", "a dm-verity device"),
    (32, b"ORCLDISK", "an Oracle ASM disk"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "an EROFS filesystem"),
    (1024, b"H+\0\x04", "an HFS+ filesystem"),
    (1030, &[0x34, 0x34], "a NILFS2 filesystem"),
    (8192, b"OCFSV2", "an OCFS2 filesystem"),
    (
        4096 + 24,
        &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9],
        "a bcachefs filesystem",
    ),
    (32768, b"JFS1", "a JFS filesystem"),
    (65536, &[0x01, 0x16, 0x19, 0x70], "a GFS2 filesystem"),
    (65536 + 52, b"ReIsErFs", "a ReiserFS filesystem"),
    (65536 + 52, b"ReIsEr2Fs", "a ReiserFS filesystem"),
    (65536 + 52, b"ReIsEr3Fs", "a ReiserFS filesystem"),
    (128 << 10, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0], ZFS),
];

const ZFS: &str = "a ZFS pool member";

/// Returns what is on the device, or nothing.
pub fn find(device: &Device) -> Result<Option<String>> {
    let front = device.read(0, LOOK_BYTES as usize)?;
    let at = device.bytes().saturating_sub(LOOK_BYTES);
    // Aligned, so that O_DIRECT can read it.
    let end = device.read(at.next_multiple_of(4096), LOOK_BYTES as usize)?;
    Ok(name(&front, &end, device.bytes()))
}

fn name(front: &[u8], end: &[u8], size: u64) -> Option<String> {
    if let Some(signature) = foreign(front) {
        return Some(signature.to_string());
    }
    let known = FRONT
        .iter()
        .find(|(at, magic, _)| starts(front, *at, magic))
        .map(|(_, _, name)| *name);
    if let Some(name) = known.or_else(|| zfs(front)).or_else(|| at_end(end, size)) {
        return Some(name.into());
    }
    let front = front.get(..BLANK_BYTES).unwrap_or(front);
    let end = end
        .len()
        .checked_sub(BLANK_BYTES)
        .and_then(|at| end.get(at..))
        .unwrap_or(end);
    match (is_blank(front), is_blank(end)) {
        (true, true) => None,
        (false, _) => Some("data of an unknown kind at its beginning".into()),
        (true, false) => Some("data of an unknown kind at its end".into()),
    }
}

fn starts(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|b| b.starts_with(magic))
}

/// A pool's newest uberblock lies anywhere in an array of 128 of them.
fn zfs(front: &[u8]) -> Option<&'static str> {
    let magic = 0x00ba_b10c_u64.to_le_bytes();
    let any = (128..256).any(|k| starts(front, k << 10, &magic));
    any.then_some(ZFS)
}

/// Returns what lies at the end of a device; `size` tells how far an offset is from there.
fn at_end(end: &[u8], size: u64) -> Option<&'static str> {
    let from_end = |back: u64| end.len().checked_sub(usize::try_from(back).ok()?);
    let is = |back: u64, magic: &[u8]| from_end(back).is_some_and(|at| starts(end, at, magic));
    // linux/raid: 64 KiB, or 8 KiB in whole blocks, before the end.
    let raid = 0xa92b_4efc_u32;
    let v0 = size - size.min((size & !0xffff).saturating_sub(65536));
    let v1 = size - size.min(size.saturating_sub(8192) & !0xfff);
    if is(v0, &raid.to_ne_bytes()) || is(v1, &raid.to_le_bytes()) {
        return Some("a software RAID member");
    }
    if is(512, b"EFI PART") || is(4096, b"EFI PART") {
        return Some("the second half of a GPT partition table");
    }
    // DRBD 8.3 to 9: internal metadata in the last 4 KiB block.
    let drbd = size - (size & !0xfff) + 4096 - 60;
    if (0x6b..=0x6d).any(|version| is(drbd, &[0x83, 0x74, 0x02, version])) {
        return Some("DRBD metadata");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 4 << 20;

    /// Returns what is found on a disk with something at one place.
    fn with(at: usize, bytes: &[u8]) -> Option<String> {
        let mut disk = vec![0; SIZE];
        disk[at..at + bytes.len()].copy_from_slice(bytes);
        name(&disk[..1 << 20], &disk[SIZE - (1 << 20)..], SIZE as u64)
    }

    #[test]
    fn blank_is_blank() {
        assert_eq!(with(0, &[]), None);
        // In the middle anything may lie: a device that was used and wiped at its ends.
        assert_eq!(with(2 << 20, b"old"), None);
    }

    #[test]
    fn all_that_is_listed_is_found() {
        for (at, magic, expected) in FRONT {
            assert_eq!(with(at, magic).as_deref(), Some(expected));
        }
        assert!(with(0x438, &[0x53, 0xef]).unwrap().contains("ext"));
        assert_eq!(
            with((128 << 10) + (77 << 10), &0x00ba_b10c_u64.to_le_bytes()).as_deref(),
            Some(ZFS)
        );
    }

    #[test]
    fn ends_are_looked_at() {
        let raid = 0xa92b_4efc_u32.to_le_bytes();
        assert_eq!(
            with(SIZE - 65536, &raid).as_deref(),
            Some("a software RAID member")
        );
        assert_eq!(
            with(SIZE - 8192, &raid).as_deref(),
            Some("a software RAID member")
        );
        assert!(with(SIZE - 512, b"EFI PART").unwrap().contains("GPT"));
        assert_eq!(
            with(SIZE - 4096 + 60, &[0x83, 0x74, 0x02, 0x6d]).as_deref(),
            Some("DRBD metadata")
        );
    }

    #[test]
    fn unknown_data_is_no_blank_device() {
        assert!(with(70_000, b"x").unwrap().contains("beginning"));
        assert!(with(SIZE - 1, b"x").unwrap().contains("end"));
    }
}
