// SPDX-License-Identifier: GPL-2.0

//! Properties of the superblock: what is sealed is loaded, what is damaged is refused, and a crash
//! between any two blocks of an update leaves one of the two generations.

mod common;

use proptest::prelude::*;
use replicate_core::{
    checksum::crc32c,
    group::{Mode, Name, Replica, Role, SyncKind, Volume},
    lineage::Epoch,
    log::{
        format::{MAX_LINKS, MAX_VOLUMES, SUPERBLOCK_BYTES},
        superblock::{
            choose, copy_offsets, validate, Choice, Format, FormatError, Inconsistent, Link,
            LinkState, Signature, Superblock, SuperblockError, SyncState, Tail, VolumeError,
            VolumeSlot, VolumeState, MIN_DEVICE_BYTES, MIN_DEVICE_NO_RING_BYTES,
        },
    },
    units::{Bytes, Chain, EpochId, GroupUuid, HostId, Position, Sector, Seq, VolumeId},
};

const DEVICE: u64 = 64 << 20;

fn format(ring: bool) -> Format {
    Format {
        host: HostId([5; 16]),
        device: Bytes(if ring { DEVICE } else { 1 << 20 }),
        physical_block: 512,
        ring,
    }
}

/// A formatted superblock in memory of its own.
fn fresh() -> Vec<u8> {
    let mut buffer = vec![0xddu8; SUPERBLOCK_BYTES];
    let sb = Superblock::mut_from(&mut buffer).unwrap();
    sb.format(&format(true)).unwrap();
    sb.advance();
    buffer
}

fn sb(buffer: &mut [u8]) -> &mut Superblock {
    Superblock::mut_from(buffer).unwrap()
}

/// Gives sealed bytes the checksum that they deserve.
fn repair(bytes: &mut [u8]) {
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    bytes[16..20].fill(0);
    let crc = crc32c(0, &bytes[..length.min(bytes.len())]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
}

fn link() -> impl Strategy<Value = Link> {
    let sync = (
        1u8..=4,
        any::<u16>(),
        any::<u64>(),
        common::position(),
        prop::option::of(common::position()),
    )
        .prop_map(|(kind, volume, cursor, start, end)| SyncState {
            kind: SyncKind::from_u8(kind).unwrap(),
            volume: VolumeId(volume),
            cursor: Sector(cursor),
            start,
            end,
        });
    let fixed = (
        any::<[u8; 16]>(),
        common::position(),
        common::chain(),
        1u8..=4,
        0u8..=3,
    );
    (fixed, any::<u16>(), any::<u64>(), prop::option::of(sync)).prop_map(
        |((peer, position, chain, state, mode), reason, since_ns, sync)| Link {
            peer: HostId(peer),
            name: Name::NONE,
            position,
            chain,
            state: LinkState::from_u8(state).unwrap(),
            mode: Mode::from_u8(mode).unwrap(),
            reason,
            since_ns,
            sync,
        },
    )
}

/// A superblock with something in every place.
fn full() -> impl Strategy<Value = Vec<u8>> {
    let positions = prop::collection::vec(common::position(), 6);
    let tables = (
        common::epochs(64),
        prop::collection::vec(link(), 0..=MAX_LINKS),
        common::volumes(40),
    );
    let tail = (1u64.., 0u64..1000, any::<u64>(), common::chain());
    (positions, tables, tail, any::<[bool; 5]>(), 1u64..).prop_map(
        |(p, ((_, epochs), links, volumes), (seq, block, lap, chain), b, number)| {
            let mut buffer = fresh();
            let s = sb(&mut buffer);
            s.set_group(GroupUuid([8; 16]), Name::new(b"db").unwrap());
            s.set_role(if b[0] { Role::Primary } else { Role::Secondary });
            s.set_clean(b[1]);
            s.set_redo(b[2]);
            s.set_unlogged(b[3].then_some(p[0]));
            s.set_log_void(b[4].then_some(number));
            s.set_commit(p[1]);
            s.set_applied(p[2]);
            s.set_horizon(p[3]);
            s.set_checkpoint(p[4], chain);
            s.set_tail(Tail {
                seq: Seq(seq),
                offset: Bytes(block * 4096),
                lap,
                chain,
            });
            if b[2] {
                s.set_inconsistent(Inconsistent {
                    since: p[5],
                    time_ns: number,
                    until: b[3].then_some(p[0]),
                });
            } else {
                s.set_consistent(b[4]);
            }
            let mut first = 1;
            for e in epochs {
                // Local epochs start at seq 1 whatever was folded elsewhere.
                s.push_epoch(Epoch {
                    first: Seq(first),
                    ..e
                })
                .unwrap();
                first += 10;
            }
            for (i, l) in links.into_iter().enumerate() {
                let name = Name::new(format!("link{i}").as_bytes()).unwrap();
                assert!(s.set_link(i, Some(&Link { name, ..l })));
            }
            for v in volumes {
                s.adopt_volume(v).unwrap();
            }
            s.seal();
            buffer
        },
    )
}

/// Everything that a superblock says, as one value that can be compared.
fn facts(s: &Superblock) -> String {
    let lineage: Vec<Epoch> = s.lineage().iter().collect();
    let links: Vec<_> = s.links().collect();
    let volumes: Vec<_> = s.volumes().collect();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {lineage:?} {links:?} {volumes:?}",
        (s.generation(), s.device(), s.block(), s.host(), s.group(), s.group_name()),
        (s.role(), s.replica(), s.inconsistent(), s.clean(), s.redo()),
        s.log_void(),
        s.unlogged(),
        s.commit(),
        s.applied(),
        s.horizon(),
        s.checkpoint(),
        s.tail(),
        (s.ring(), s.reserved_area(), s.map(0)),
        s.last_epoch_index(),
        s.lineage().before(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_is_loaded(mut buffer in full(), stale: u8) {
        let said = facts(sb(&mut buffer));
        let sealed = sb(&mut buffer).seal().to_vec();
        // What an older, longer superblock left behind it does not matter.
        let mut device = vec![stale; SUPERBLOCK_BYTES];
        device[..sealed.len()].copy_from_slice(&sealed);
        let mut other = vec![0x77u8; SUPERBLOCK_BYTES];
        sb(&mut other).load(&device).unwrap();
        prop_assert_eq!(facts(sb(&mut other)), said);
        prop_assert_eq!(sb(&mut other).seal(), &sealed[..]);
    }

    #[test]
    fn a_flipped_bit_is_seen(mut buffer in full(), bits in prop::collection::vec(0usize..1 << 20, 64)) {
        let length = sb(&mut buffer).seal().len();
        for bit in bits {
            let bit = bit % (length * 8);
            buffer[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(validate(&buffer).is_err());
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
        prop_assert!(validate(&buffer).is_ok());
    }

    /// Damage that the checksum agrees with is refused, or it is a superblock with another content:
    /// what it says then, written down again, gives the same bytes. No byte goes unlooked at.
    #[test]
    fn bytes_are_canonical(mut buffer in full(), at in prop::collection::vec((0usize..1 << 20, 1u8..), 64)) {
        let length = sb(&mut buffer).seal().len();
        for (i, (at, value)) in at.into_iter().enumerate() {
            // Half of them in the head, where most fields are.
            let at = at % if i % 2 == 0 { 1024 } else { length };
            // Version, length, checksum, compatible features; the next volume id.
            if (8..24).contains(&at) || (54..56).contains(&at) {
                continue;
            }
            let mut damaged = buffer.clone();
            damaged[at] ^= value;
            repair(&mut damaged);
            if validate(&damaged).is_ok() {
                prop_assert!(facts(sb(&mut damaged)) != facts(sb(&mut buffer)), "byte {}", at);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_superblock_or_not(
        mut bytes in prop::collection::vec(any::<u8>(), SUPERBLOCK_BYTES),
        ours in 0usize..4,
    ) {
        let said = validate(&bytes);
        prop_assert!(matches!(said, Err(SuperblockError::NotOurs(_))), "{:?}", said);
        if ours > 0 {
            bytes[..8].copy_from_slice(b"dmRepSRL");
            bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
            bytes[12..16].copy_from_slice(&((ours as u32 + 2) * 4096).to_le_bytes());
            bytes[20..32].fill(0);
            repair(&mut bytes);
            let said = validate(&bytes);
            prop_assert!(matches!(said, Err(SuperblockError::Malformed(_))), "{:?}", said);
        }
    }

    #[test]
    fn a_cut_copy_is_refused(mut buffer in full(), cut in 0usize..SUPERBLOCK_BYTES) {
        sb(&mut buffer).seal();
        prop_assert!(validate(&buffer[..cut]).is_err());
    }

    /// A power cut during an update keeps any 4 KiB pieces of it: the choice is the new generation
    /// or the one before, whole, and never anything else.
    #[test]
    fn a_torn_update_leaves_one_of_two_generations(
        states in prop::collection::vec(full(), 2..5),
        kept in prop::collection::vec(any::<bool>(), 32),
    ) {
        let offsets = copy_offsets(Bytes(1 << 20));
        let mut device = vec![0u8; 1 << 20];
        let mut live = vec![0u8; SUPERBLOCK_BYTES];
        let mut said = Vec::new();
        let count = states.len();
        for (i, mut state) in states.into_iter().enumerate() {
            live.copy_from_slice(&state);
            let s = sb(&mut state);
            for _ in 0..i {
                s.advance();
            }
            let slot = s.write_offsets().map(|o| copy_offsets(s.device()).iter().position(|c| *c == o).unwrap());
            let sealed = s.seal().to_vec();
            said.push(facts(s));
            let mut kept = kept.iter().cycle();
            for copy in slot {
                let at = offsets[copy].0 as usize;
                for (p, piece) in sealed.chunks(4096).enumerate() {
                    if i + 1 < count || *kept.next().unwrap() {
                        device[at + p * 4096..][..4096].copy_from_slice(piece);
                    }
                }
            }
        }
        let copies = offsets.map(|o| Some(&device[o.0 as usize..]));
        let chosen = choose(copies).unwrap();
        sb(&mut live).load(copies[chosen].unwrap()).unwrap();
        let found = facts(sb(&mut live));
        prop_assert!(said[count - 2..].contains(&found));
    }
}

#[test]
fn every_flipped_bit_of_the_head_is_seen() {
    let mut buffer = fresh();
    sb(&mut buffer).seal();
    assert!(validate(&buffer).is_ok());
    for bit in 0..1024 * 8 {
        buffer[bit / 8] ^= 1 << (bit % 8);
        assert!(validate(&buffer).is_err(), "bit {bit}");
        buffer[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_newer_version_is_named_as_such() {
    let with = |at: usize, value: u8| {
        let mut buffer = fresh();
        sb(&mut buffer).seal();
        buffer[at] = value;
        repair(&mut buffer);
        validate(&buffer).unwrap_err()
    };
    assert_eq!(with(8, 2), SuperblockError::Version(2));
    assert_eq!(with(28, 4), SuperblockError::Features(4));
    assert_eq!(with(24, 1), SuperblockError::Features(1));
    assert!(with(8, 2).to_string().contains("newer"));
}

#[test]
fn what_is_not_ours_is_named() {
    let mut disk = vec![0u8; 128 << 10];
    assert_eq!(validate(&disk), Err(SuperblockError::Blank));
    disk[0x438] = 0x53;
    disk[0x439] = 0xef;
    assert_eq!(
        validate(&disk),
        Err(SuperblockError::NotOurs(Some(Signature::Ext)))
    );
    let at = |i: usize| Some(&disk[i * 65536..]);
    let all = [at(0), at(1), None, None];
    assert_eq!(
        choose(all),
        Err(SuperblockError::NotOurs(Some(Signature::Ext)))
    );
    assert_eq!(Choice::new().finish().err(), Some(SuperblockError::Short));
}

#[test]
fn the_layout_of_a_fresh_log() {
    let mut buffer = fresh();
    let s = sb(&mut buffer);
    let (reserved, ring) = (s.reserved_area().unwrap(), s.ring().unwrap());
    assert_eq!(reserved.start, Bytes(128 << 10));
    assert_eq!(reserved.length, Bytes(DEVICE / 16));
    assert_eq!(ring.start, reserved.start.plus(reserved.length));
    assert_eq!(ring.start.plus(ring.length), Bytes(DEVICE - (128 << 10)));
    assert_eq!((s.block(), s.generation(), s.role()), (4096, 1, Role::None));
    assert_eq!(s.tail().seq, Seq(1));
    assert_eq!(s.replica(), Replica::Empty);
    assert!(s.lineage().is_empty());

    s.format(&format(false)).unwrap();
    assert_eq!(s.ring(), None);
    assert_eq!(
        s.reserved_area().unwrap().length,
        Bytes((1 << 20) - (256 << 10))
    );
}

#[test]
fn every_size_of_device_is_laid_out_or_refused() {
    let mut buffer = vec![0u8; SUPERBLOCK_BYTES];
    let s = sb(&mut buffer);
    for block in [512, 4096, 16384, 65536] {
        for kib in (512..80 << 10)
            .step_by(501)
            .chain([9 << 10, 1 << 30, 1 << 34])
        {
            for ring in [false, true] {
                let device = Bytes((kib << 10) + 512);
                let f = Format {
                    device,
                    physical_block: block,
                    ..format(ring)
                };
                let need = if ring {
                    MIN_DEVICE_BYTES
                } else {
                    MIN_DEVICE_NO_RING_BYTES
                };
                match s.format(&f) {
                    Ok(()) => {
                        assert!(device.0 >= need);
                        s.advance();
                        let sealed = s.seal();
                        assert_eq!(sealed.len(), 12288);
                        s.check_device(device, block).unwrap();
                        let area = s.ring().or(s.reserved_area()).unwrap();
                        assert!(area.start.plus(area.length) <= copy_offsets(device)[2]);
                    }
                    Err(e) => assert_eq!(
                        e,
                        FormatError::TooSmall {
                            need: Bytes(need),
                            device
                        }
                    ),
                }
            }
        }
    }
    let f = Format {
        physical_block: 131_072,
        ..format(true)
    };
    assert_eq!(s.format(&f), Err(FormatError::Block(131_072)));
}

#[test]
fn the_device_must_still_fit() {
    let mut buffer = fresh();
    let s = sb(&mut buffer);
    assert_eq!(s.check_device(Bytes(DEVICE), 512), Ok(()));
    assert_eq!(s.check_device(Bytes(DEVICE + 512), 4096), Ok(()));
    assert!(matches!(
        s.check_device(Bytes(DEVICE - 512), 512),
        Err(SuperblockError::Shrunk { .. })
    ));
    assert!(matches!(
        s.check_device(Bytes(DEVICE), 8192),
        Err(SuperblockError::Block { .. })
    ));
}

#[test]
fn the_volume_table_is_kept_straight() {
    let mut buffer = fresh();
    let s = sb(&mut buffer);
    let volume = |name: &[u8]| Volume {
        name: Name::new(name).unwrap(),
        size: Sector(8),
        logical_block: 512,
        ..Volume::default()
    };
    assert_eq!(s.add_volume(volume(b"a")), Ok(VolumeId(0)));
    assert_eq!(s.add_volume(volume(b"b")), Ok(VolumeId(1)));
    assert_eq!(s.add_volume(volume(b"a")), Err(VolumeError::Exists));
    assert_eq!(s.add_volume(Volume::default()), Err(VolumeError::Invalid));
    assert_eq!(s.volume_count(), 2);
    assert_eq!(s.find_volume(&Name::new(b"b").unwrap()), Some(1));
    let slot = VolumeSlot {
        state: VolumeState::Failed,
        cursor: Sector(3),
        ..s.volume(1).unwrap()
    };
    assert_eq!(s.set_volume(1, &slot), Ok(()));
    assert_eq!(s.volume(1), Some(slot));
    assert_eq!(s.set_volume(0, &slot), Err(VolumeError::Exists));
    assert_eq!(s.set_volume(2, &slot), Err(VolumeError::Unknown));
    for i in 2..MAX_VOLUMES {
        s.add_volume(volume(format!("v{i}").as_bytes())).unwrap();
    }
    assert_eq!(s.add_volume(volume(b"one-more")), Err(VolumeError::Full));
    assert_eq!(s.seal().len(), SUPERBLOCK_BYTES);
    assert!(validate(&buffer).is_ok());
}

#[test]
fn links_and_epochs_come_and_go() {
    let mut buffer = fresh();
    let s = sb(&mut buffer);
    let dr = Link {
        name: Name::new(b"dr").unwrap(),
        ..Link::default()
    };
    assert_eq!(s.free_link_slot(), Some(0));
    assert!(s.set_link(0, Some(&dr)));
    assert!(!s.set_link(MAX_LINKS, Some(&dr)));
    assert!(!s.set_link(1, Some(&Link::default())));
    assert_eq!(s.find_link(&dr.name), Some(0));
    assert_eq!(s.free_link_slot(), Some(1));
    assert!(s.set_link(1, Some(&dr)));
    s.seal();
    assert!(validate(&buffer).is_err(), "two links of one name");
    let s = sb(&mut buffer);
    assert!(s.set_link(1, None));
    let epoch = Epoch {
        id: EpochId([1; 16]),
        first: Seq(1),
        ..Epoch::default()
    };
    assert_eq!(s.push_epoch(epoch), Ok(1));
    assert_eq!(
        s.lineage().position(Seq(4)),
        Some(Position {
            epoch: epoch.id,
            seq: Seq(4)
        })
    );
    s.set_checkpoint(
        Position {
            epoch: epoch.id,
            seq: Seq(4),
        },
        Chain(9),
    );
    s.seal();
    assert!(validate(&buffer).is_ok());
}

/// However few epochs are kept, what was folded leaves nothing behind the entries in use.
#[test]
fn a_folded_lineage_is_a_superblock() {
    let mut buffer = fresh();
    let s = sb(&mut buffer);
    s.set_group(GroupUuid([8; 16]), Name::new(b"db").unwrap());
    for n in 1..=5 {
        let epoch = Epoch {
            id: EpochId([n; 16]),
            first: Seq(u64::from(n)),
            ..Epoch::default()
        };
        s.push_epoch_within(epoch, 3).unwrap();
        let sealed = s.seal().to_vec();
        let mut copy = vec![0; SUPERBLOCK_BYTES];
        copy[..sealed.len()].copy_from_slice(&sealed);
        assert!(validate(&copy).is_ok(), "after epoch {n}");
    }
    assert_eq!((s.lineage().len(), s.lineage().before().folded), (3, 2));
}
