// SPDX-License-Identifier: GPL-2.0

//! What else may be on a device: the signatures of what people keep on disks.
//!
//! For the message that refuses to overwrite it. Not a complete list, and not meant as one: a device
//! without a known signature and without our magic is refused too, it is only named less precisely.

use crate::{
    group::numbered,
    log::format::{BATCH_MAGIC, SUPERBLOCK_MAGIC},
};

numbered! {
    /// Something that is not ours.
    Signature {
        /// ext2, ext3 or ext4.
        Ext = 1 "an ext2/3/4 filesystem",
        /// XFS.
        Xfs = 2 "an XFS filesystem",
        /// Btrfs.
        Btrfs = 3 "a Btrfs filesystem",
        /// F2FS.
        F2fs = 4 "an F2FS filesystem",
        /// NTFS.
        Ntfs = 5 "an NTFS filesystem",
        /// exFAT.
        Exfat = 6 "an exFAT filesystem",
        /// ISO 9660.
        Iso9660 = 7 "an ISO 9660 filesystem",
        /// LVM physical volume.
        Lvm = 8 "an LVM physical volume",
        /// LUKS.
        Luks = 9 "a LUKS volume",
        /// Linux software RAID.
        Raid = 10 "a software RAID member",
        /// bcache.
        Bcache = 11 "a bcache device",
        /// dm-integrity.
        Integrity = 12 "a dm-integrity device",
        /// dm-vdo.
        Vdo = 13 "a dm-vdo device",
        /// Swap space.
        Swap = 14 "swap space",
        /// GUID partition table.
        Gpt = 15 "a GPT partition table",
        /// MBR partition table, or a FAT boot sector.
        Mbr = 16 "an MBR partition table or FAT filesystem",
        /// A dm-replicate log, as far as its magic says.
        Ours = 17 "a dm-replicate log",
    }
}

/// Where a signature lies and what it looks like; the first that fits names the device.
const SIGNATURES: [(usize, &[u8], Signature); 25] = [
    (0, &SUPERBLOCK_MAGIC, Signature::Ours),
    (0, &BATCH_MAGIC, Signature::Ours),
    (0, b"XFSB", Signature::Xfs),
    (0, b"LUKS\xba\xbe", Signature::Luks),
    (0, b"integrt\0", Signature::Integrity),
    (0, b"dmvdo001", Signature::Vdo),
    (0x438, &[0x53, 0xef], Signature::Ext),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], Signature::F2fs),
    (65600, b"_BHRfS_M", Signature::Btrfs),
    (24, b"LVM2 001", Signature::Lvm),
    (512 + 24, b"LVM2 001", Signature::Lvm),
    (1024 + 24, b"LVM2 001", Signature::Lvm),
    (1536 + 24, b"LVM2 001", Signature::Lvm),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], Signature::Raid),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], Signature::Raid),
    (
        4096 + 24,
        &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca],
        Signature::Bcache,
    ),
    (4086, b"SWAPSPACE2", Signature::Swap),
    (4086, b"SWAP-SPACE", Signature::Swap),
    (65526, b"SWAPSPACE2", Signature::Swap),
    (32769, b"CD001", Signature::Iso9660),
    (3, b"NTFS    ", Signature::Ntfs),
    (3, b"EXFAT   ", Signature::Exfat),
    (512, b"EFI PART", Signature::Gpt),
    (4096, b"EFI PART", Signature::Gpt),
    (510, &[0x55, 0xaa], Signature::Mbr),
];

/// What lies on a device that begins with `first`. 128 KiB show all that is known here.
#[must_use]
pub fn foreign(first: &[u8]) -> Option<Signature> {
    let fits = |at: usize, magic: &[u8]| first.get(at..).is_some_and(|b| b.starts_with(magic));
    let found = SIGNATURES.iter().find(|(at, magic, _)| fits(*at, magic));
    found.map(|(_, _, signature)| *signature)
}

/// Whether there is nothing but zeros.
#[must_use]
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_foreign))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_there() {
        let mut disk = [0u8; 2048];
        assert!(is_blank(&disk));
        assert_eq!(foreign(&disk), None);
        disk[510] = 0x55;
        disk[511] = 0xaa;
        assert!(!is_blank(&disk));
        assert_eq!(foreign(&disk), Some(Signature::Mbr));
        disk[512..520].copy_from_slice(b"EFI PART");
        assert_eq!(foreign(&disk), Some(Signature::Gpt));
        disk[0x438] = 0x53;
        disk[0x439] = 0xef;
        assert_eq!(foreign(&disk), Some(Signature::Ext));
        disk[..4].copy_from_slice(b"XFSB");
        assert_eq!(foreign(&disk), Some(Signature::Xfs));
        assert_eq!(foreign(&disk[..2]), None);
    }
}
