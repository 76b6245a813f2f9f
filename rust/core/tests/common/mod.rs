// SPDX-License-Identifier: GPL-2.0

//! What the property tests of both formats draw from.

#![allow(dead_code)]

use proptest::prelude::*;
use replicate_core::{
    group::{Name, Volume},
    lineage::{Before, Entry, Epoch, Lineage, Reason, MAX_EPOCHS},
    units::{
        Chain, EpochId, HostId, Op, Position, Range, Record, Sector, Seq, VolumeId, EXTENT_SECTORS,
    },
};

/// A range within one extent, anywhere on the largest possible volume.
pub fn range() -> impl Strategy<Value = Range> {
    let start = (0..(u64::MAX >> 20), 0..EXTENT_SECTORS);
    (any::<u16>(), start, 1..=EXTENT_SECTORS as u32).prop_map(|(volume, (extent, at), n)| Range {
        volume: VolumeId(volume),
        sector: Sector(extent * EXTENT_SECTORS + at),
        sectors: n.min((EXTENT_SECTORS - at) as u32),
    })
}

/// A record of this seq.
pub fn record(seq: u64) -> impl Strategy<Value = Record> {
    let op = prop_oneof![
        6 => Just(Op::Write),
        1 => Just(Op::Discard),
        1 => Just(Op::WriteZeroes),
        1 => Just(Op::Marker),
    ];
    let flags = (any::<bool>(), any::<bool>());
    let rest = (0..seq, any::<u64>(), any::<u16>(), any::<u32>());
    (op, flags, range(), rest).prop_map(move |(op, (fua, no_unmap), range, rest)| {
        let (depends_on, time_ns, origin, crc) = rest;
        Record {
            seq: Seq(seq),
            op,
            fua,
            no_unmap: no_unmap && op == Op::WriteZeroes,
            range: if op == Op::Marker {
                Range::default()
            } else {
                range
            },
            depends_on: Seq(depends_on),
            time_ns,
            origin,
            payload_crc: if op == Op::Write { crc } else { 0 },
        }
    })
}

/// The same record with a small payload, so that many share a batch.
pub fn small_record(seq: u64) -> impl Strategy<Value = Record> {
    (record(seq), 1u32..=16).prop_map(|(mut r, sectors)| {
        r.range.sectors = r.range.sectors.min(sectors);
        r
    })
}

pub fn epoch_id() -> impl Strategy<Value = EpochId> {
    any::<[u8; 16]>()
        .prop_filter("an id", |id| *id != [0; 16])
        .prop_map(EpochId)
}

pub fn position() -> impl Strategy<Value = Position> {
    (epoch_id(), any::<u64>()).prop_map(|(epoch, seq)| Position {
        epoch,
        seq: Seq(seq),
    })
}

pub fn chain() -> impl Strategy<Value = Chain> {
    any::<u32>().prop_map(Chain)
}

pub fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9._+:@-]{1,63}".prop_map(|s| Name::new(s.as_bytes()).expect("a name"))
}

pub fn reason() -> impl Strategy<Value = Reason> {
    (1u8..=5).prop_map(|n| Reason::from_u8(n).expect("a reason"))
}

/// Epochs as they follow each other, `gap` seqs each, ids all different.
pub fn epochs(max: usize) -> impl Strategy<Value = (Before, Vec<Epoch>)> {
    let one = (
        0u64..50,
        any::<[u8; 15]>(),
        any::<[u8; 16]>(),
        reason(),
        any::<u64>(),
    );
    let before = prop_oneof![Just((0u32, 0u64)), (1..u32::MAX, 0..u64::from(u32::MAX)),];
    (before, prop::collection::vec(one, 0..=max)).prop_map(|((folded, last), raw)| {
        let folded = if raw.is_empty() { 0 } else { folded };
        let mut id = [0xff; 16];
        id[0] = 0xfe;
        let before = Before {
            folded,
            last: Seq(if folded == 0 { 0 } else { last }),
            epoch: if folded == 0 {
                EpochId::NONE
            } else {
                EpochId(id)
            },
        };
        let mut first = before.last.0 + 1;
        let mut list = Vec::new();
        for (i, (gap, random, host, reason, time_ns)) in raw.into_iter().enumerate() {
            let mut id = [i as u8 + 1; 16];
            id[1..].copy_from_slice(&random);
            list.push(Epoch {
                id: EpochId(id),
                first: Seq(first),
                host: HostId(host),
                reason,
                time_ns,
                index: 0,
            });
            first += gap;
        }
        (before, list)
    })
}

/// The entries of a whole lineage.
pub fn lineage() -> impl Strategy<Value = (Before, Vec<Entry>)> {
    epochs(MAX_EPOCHS).prop_map(|(b, list)| (b, list.into_iter().map(Entry::from).collect()))
}

pub fn as_lineage((before, entries): &(Before, Vec<Entry>)) -> Lineage<'_> {
    Lineage::new(*before, entries).expect("a lineage")
}

/// Volumes with different names and ids.
pub fn volumes(max: usize) -> impl Strategy<Value = Vec<Volume>> {
    let one = (1u64..1 << 50, 9u32..=16, any::<u32>());
    prop::collection::vec(one, 0..=max).prop_map(|list| {
        let volume = |(i, (size, shift, discard)): (usize, (u64, u32, u32))| Volume {
            id: VolumeId(i as u16 * 3),
            name: Name::new(format!("vol-{i}").as_bytes()).expect("a name"),
            size: Sector(size),
            logical_block: 1 << shift,
            discard_granularity: discard,
        };
        list.into_iter().enumerate().map(volume).collect()
    })
}
