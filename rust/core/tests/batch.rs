// SPDX-License-Identifier: GPL-2.0

//! Properties of records and batches: what is written is read, what is damaged is refused, and no
//! grouping of records needs more room than they reserved.

mod common;

use proptest::prelude::*;
use replicate_core::{
    checksum::crc32c,
    log::{
        batch::{
            batch_bytes, descriptor_bytes, max_descriptor_bytes, worst_case_bytes, BadBatch,
            BuildError, Builder, Built, Head, Place, Run,
        },
        format::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS},
    },
    record::{self, RECORD_BYTES},
    units::{Bytes, Chain, EpochId, GroupUuid, Record, Seq},
};

const GROUP: GroupUuid = GroupUuid([0x11; 16]);
const EPOCH: EpochId = EpochId([0x22; 16]);
const RING: u64 = 64 << 20;

fn blocks() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![4096u32, 8192, 16384, 32768, 65536])
}

fn run(first: u64, block: u32) -> Run {
    Run {
        group: GROUP,
        epoch: EPOCH,
        epoch_index: 7,
        first_seq: Seq(first),
        chain: Chain(0x1234),
        block,
    }
}

fn place(offset: u64, block: u32) -> Place {
    Place {
        group: GROUP,
        offset: Bytes(offset),
        block,
        ring: Bytes(RING),
    }
}

/// Records of seqs `first..`, as many as are drawn.
fn records(first: u64, max: usize) -> impl Strategy<Value = Vec<Record>> {
    (1..=max).prop_flat_map(move |n| {
        (0..n as u64)
            .map(|i| common::small_record(first + i))
            .collect::<Vec<_>>()
    })
}

/// As many of `records` as fit, at `offset`; the buffer starts full of rubbish.
fn build(records: &[Record], block: u32, offset: u64) -> (Vec<u8>, Built, usize) {
    let mut buffer = vec![0xeeu8; max_descriptor_bytes(block) as usize];
    let mut b = Builder::new(&mut buffer, run(records[0].seq.0, block)).unwrap();
    let mut n = 0;
    for r in records {
        match b.push(r) {
            Ok(_) => n += 1,
            Err(BuildError::Full) => break,
            Err(e) => panic!("{e}"),
        }
    }
    let built = b.finish(Bytes(offset), 3, records[0].seq.prev()).unwrap();
    buffer.truncate(built.descriptor as usize);
    (buffer, built, n)
}

/// Gives a descriptor the checksum that its bytes deserve.
fn repair(descriptor: &mut [u8]) {
    let epoch: [u8; 16] = descriptor[16..32].try_into().unwrap();
    descriptor[12..16].fill(0);
    let seed = crc32c(crc32c(0, &GROUP.0), &epoch);
    let crc = crc32c(seed, descriptor);
    descriptor[12..16].copy_from_slice(&crc.to_le_bytes());
}

proptest! {
    #[test]
    fn a_record_survives_its_bytes(r in (1..u64::MAX).prop_flat_map(common::record)) {
        let bytes = record::encode(&r).unwrap();
        prop_assert_eq!(record::decode(&bytes), Ok(r));
    }

    /// There is one way to write a record: what is accepted is written back the same.
    #[test]
    fn record_bytes_are_canonical(
        r in (1..u64::MAX).prop_flat_map(common::record),
        at in 0..RECORD_BYTES,
        value: u8,
    ) {
        let mut bytes = record::encode(&r).unwrap();
        bytes[at] = value;
        if let Ok(other) = record::decode(&bytes) {
            prop_assert_eq!(record::encode(&other), Ok(bytes));
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_not(bytes: [u8; RECORD_BYTES]) {
        if let Ok(r) = record::decode(&bytes) {
            prop_assert!(r.seq > r.depends_on);
            prop_assert_eq!(record::encode(&r), Ok(bytes));
        }
    }

    #[test]
    fn what_is_built_is_parsed(list in records(100, 160), block in blocks(), at in 0u64..100) {
        let offset = at * u64::from(block);
        let (bytes, built, n) = build(&list, block, offset);
        let head = Head::parse(&bytes, &place(offset, block)).unwrap();
        prop_assert_eq!(head.batch(), built.head);
        prop_assert_eq!(head.epoch(), EPOCH);
        prop_assert_eq!(head.batch().count as usize, n);
        // The payloads lie one after the other between descriptor and end.
        let mut expected = head.descriptor_bytes();
        let mut chain = Chain(0x1234);
        for (i, (r, offset)) in head.records().enumerate() {
            prop_assert_eq!(r, list[i]);
            prop_assert_eq!(offset, expected);
            prop_assert_eq!(head.payload_offset(i as u32), Some(offset));
            prop_assert_eq!(head.chain_after(i as u32), Some(chain));
            chain = record::chain_record(chain, &r).unwrap();
            expected += r.payload_bytes();
        }
        prop_assert!(u64::from(expected) <= built.head.length.0);
        prop_assert!(built.head.length.0 <= u64::from(MAX_BATCH_BYTES));
        prop_assert_eq!(built.head.length.round_down(block), built.head.length);
        prop_assert_eq!(built.head.chain_after, chain);
    }

    #[test]
    fn a_flipped_bit_is_seen(list in records(9, 90), bit in 0usize..1 << 20) {
        let (mut bytes, _, _) = build(&list, 4096, 0);
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Head::parse(&bytes, &place(0, 4096)).is_err());
    }

    #[test]
    fn a_cut_descriptor_asks_for_more(list in records(9, 90), cut in 0usize..8192) {
        let (bytes, built, _) = build(&list, 4096, 0);
        let cut = cut % bytes.len();
        let e = Head::parse(&bytes[..cut], &place(0, 4096)).unwrap_err();
        let need = if cut < 128 { 4096 } else { built.descriptor };
        prop_assert_eq!(e, BadBatch::Short { need });
    }

    /// Damage that the checksum agrees with: refused, or a batch with another content that is
    /// written back to the same bytes. No byte of a descriptor goes unlooked at.
    #[test]
    fn descriptor_bytes_are_canonical(
        list in records(9, 90),
        at in 0usize..8192,
        value in 1u8..,
        near in any::<bool>(),
    ) {
        let (mut bytes, _, _) = build(&list, 4096, 0);
        let at = if near { at % 256 } else { at % bytes.len() };
        prop_assume!(!(12..16).contains(&at));
        bytes[at] ^= value;
        repair(&mut bytes);
        let Ok(head) = Head::parse(&bytes, &place(0, 4096)) else {
            return Ok(());
        };
        let b = head.batch();
        let mut again = vec![0u8; bytes.len()];
        let run = Run {
            epoch: head.epoch(),
            epoch_index: b.epoch_index,
            chain: b.chain,
            ..run(b.first_seq.0, 4096)
        };
        let mut builder = Builder::new(&mut again, run).unwrap();
        for (r, _) in head.records() {
            prop_assert!(r.op == replicate_core::units::Op::Marker || r.range.in_one_extent());
            builder.push(&r).unwrap();
        }
        let built = builder.finish(b.offset, b.lap, b.durable).unwrap();
        prop_assert_eq!(built.head, b);
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn any_bytes_are_a_batch_or_not(mut bytes in prop::collection::vec(any::<u8>(), 0..9000), ours: bool) {
        if ours && bytes.len() >= 16 {
            bytes[..8].copy_from_slice(b"dmRepBat");
            bytes[8..10].copy_from_slice(&1u16.to_le_bytes());
        }
        prop_assert!(Head::parse(&bytes, &place(0, 4096)).is_err());
    }

    /// P9's arithmetic: any grouping fits into what the records reserved one by one.
    #[test]
    fn no_grouping_needs_more_than_was_reserved(
        payloads in prop::collection::vec(prop_oneof![0u32..=16, 0u32..=2048], 1..400),
        cuts in prop::collection::vec(1usize..=MAX_BATCH_RECORDS as usize, 400),
        block in blocks(),
    ) {
        let reserved: u64 = payloads.iter().map(|p| u64::from(worst_case_bytes(p * 512, block))).sum();
        let mut used = 0u64;
        let mut rest = payloads.as_slice();
        for cut in cuts {
            let (group, others) = rest.split_at(cut.min(rest.len()));
            rest = others;
            if group.is_empty() {
                break;
            }
            let payload: u32 = group.iter().map(|p| p * 512).sum();
            let bytes = batch_bytes(group.len() as u32, payload, block);
            prop_assert!(bytes > descriptor_bytes(group.len() as u32, block) || payload == 0);
            used += u64::from(bytes);
        }
        prop_assert!(rest.is_empty() && used <= reserved);
    }

    /// The chain is a property of the records, not of how they were grouped.
    #[test]
    fn the_chain_does_not_see_batches(list in records(50, 60), cut in 1usize..60) {
        let cut = cut.min(list.len() - 1).max(1);
        prop_assume!(cut < list.len());
        let (_, whole, n) = build(&list, 4096, 0);
        prop_assert_eq!(n, list.len());
        let (_, first, _) = build(&list[..cut], 4096, 0);
        let mut buffer = vec![0u8; 8192];
        let run = Run { chain: first.head.chain_after, ..run(list[cut].seq.0, 4096) };
        let mut b = Builder::new(&mut buffer, run).unwrap();
        for r in &list[cut..] {
            b.push(r).unwrap();
        }
        let second = b.finish(Bytes(4096), 0, Seq(0)).unwrap();
        prop_assert_eq!(second.head.chain_after, whole.head.chain_after);
    }
}

/// Every bit of one descriptor, not a sample.
#[test]
fn every_flipped_bit_of_a_descriptor_is_seen() {
    let list: Vec<Record> = (1..=3)
        .map(|i| Record {
            seq: Seq(i),
            range: replicate_core::units::Range {
                sectors: 8,
                ..Default::default()
            },
            ..Record::default()
        })
        .collect();
    let (mut bytes, _, _) = build(&list, 4096, 0);
    assert!(Head::parse(&bytes, &place(0, 4096)).is_ok());
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Head::parse(&bytes, &place(0, 4096)).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}
