// SPDX-License-Identifier: GPL-2.0

//! The verified reader and the scan on real bytes: what a new lineage disowned is not read back, and a sector that
//! cannot be read ends the log only where nothing shows that something durable lay there.

use replicate_core::{
    checksum::crc32c,
    log::{
        batch::{max_descriptor_bytes, Builder, Run},
        format::MIN_RING_BYTES,
        reader::{Expected, Found, Verdict, Walk},
        recovery::{Epochs, Outcome, Scan, Want},
        ring::{Mark, Place, Ring},
    },
    record::chain_record,
    units::{Bytes, Chain, EpochId, GroupUuid, Op, Range, Record, Sector, Seq, VolumeId},
};

const GROUP: GroupUuid = GroupUuid([0x11; 16]);
const OLD: EpochId = EpochId([1; 16]);
const NEW: EpochId = EpochId([2; 16]);
const BLOCK: u32 = 4096;

/// Epoch and first seq, oldest first.
struct Line(Vec<(EpochId, u64)>);

impl Epochs for Line {
    fn epoch_of(&self, seq: Seq) -> (EpochId, Seq) {
        let i = self.0.iter().rposition(|e| e.1 <= seq.0).expect("an epoch");
        let bound = self.0.get(i + 1).map_or(u64::MAX, |e| e.1 - 1);
        (self.0[i].0, Seq(bound))
    }
}

/// A log device: the bytes of a ring, some of which cannot be read.
struct Device {
    bytes: Vec<u8>,
    bad: Vec<u64>,
    head: Place,
}

impl Device {
    fn new(head: u64) -> Device {
        Device {
            bytes: vec![0; MIN_RING_BYTES as usize],
            bad: Vec::new(),
            head: Place(head),
        }
    }

    fn ring(&self, tail: Place) -> Ring {
        Ring::new(Bytes(MIN_RING_BYTES), BLOCK, tail, tail)
    }

    /// Writes one record as a batch where the writer would put it, and returns its place and the chain after it.
    fn write(&mut self, epoch: EpochId, seq: u64, sectors: u32, chain: Chain) -> (Place, Chain) {
        let payload = vec![seq as u8 ^ epoch.0[0]; sectors as usize * 512];
        let record = Record {
            seq: Seq(seq),
            op: Op::Write,
            fua: false,
            no_unmap: false,
            range: Range {
                volume: VolumeId(0),
                sector: Sector(0),
                sectors,
            },
            depends_on: Seq(seq - 1),
            time_ns: 0,
            origin: 0,
            payload_crc: crc32c(0, &payload),
        };
        let run = Run {
            group: GROUP,
            epoch,
            epoch_index: 1,
            first_seq: Seq(seq),
            chain,
            block: BLOCK,
        };
        let mut buffer = vec![0; max_descriptor_bytes(BLOCK) as usize];
        let length = {
            let mut b = Builder::new(&mut buffer, run).unwrap();
            b.push(&record).unwrap();
            b.finish(Bytes(0), 0, Seq(0)).unwrap().head.length
        };
        let mut ring = Ring::new(Bytes(MIN_RING_BYTES), BLOCK, self.head, self.head);
        let place = ring.place(length, Bytes(0));
        let mut b = Builder::new(&mut buffer, run).unwrap();
        b.push(&record).unwrap();
        // All before it is durable.
        let built = b
            .finish(ring.offset(place), ring.lap(place), Seq(seq - 1))
            .unwrap();
        let at = ring.offset(place).0 as usize;
        let descriptor = built.descriptor as usize;
        self.bytes[at..at + descriptor].copy_from_slice(&buffer[..descriptor]);
        self.bytes[at + descriptor..at + descriptor + payload.len()].copy_from_slice(&payload);
        self.head = ring.head();
        (place, chain_record(chain, &record).unwrap())
    }

    fn read(&self, ring: &Ring, place: Place, length: u32) -> Option<&[u8]> {
        let at = ring.offset(place).0;
        let hit = |bad: &u64| *bad >= at && *bad < at + u64::from(length);
        (!self.bad.iter().any(hit))
            .then(|| &self.bytes[at as usize..(at + u64::from(length)) as usize])
    }

    /// What lies at a place; `None`: it cannot be read.
    fn find(&self, ring: &Ring, e: &Expected, batch: bool) -> Option<Option<(Found, Chain)>> {
        let mut need = BLOCK;
        loop {
            let bytes = self.read(ring, e.place, need)?;
            let verdict = if batch {
                e.verify(bytes, ring, &GROUP, |p| crc32c(0, p))
            } else {
                e.evidence(bytes, ring, &GROUP)
            };
            match verdict {
                Verdict::More(n) => need = n,
                Verdict::NotThere => return Some(None),
                Verdict::Batch(h) => {
                    return Some(Some((Found::from(&h.batch()), h.batch().chain_after)))
                }
            }
        }
    }

    /// Every batch from `mark` on, in order.
    fn walk(&self, mark: Mark, line: &Line) -> Vec<(Seq, Place)> {
        let ring = self.ring(mark.place);
        let (mut walk, mut all) = (Walk::at(mark), Vec::new());
        loop {
            let expected = walk.expected(&ring, line);
            match self.find(&ring, &expected, true) {
                Some(Some((found, chain))) => {
                    all.push((found.first, expected.place));
                    walk.found(&found, &ring, line, |_| chain);
                }
                _ if walk.absent(&ring) => {}
                _ => return all,
            }
        }
    }

    /// The scan from `tail`: its outcome, and the place that it could not read.
    fn scan(&self, tail: Place, commit: u64, line: &Line) -> (Outcome, Option<Place>) {
        let ring = self.ring(tail);
        let mut scan = Scan::new(ring, Seq(1), Chain(0), Seq(commit));
        loop {
            match scan.want(line) {
                Want::Batch(e) => match self.find(&ring, &e, true) {
                    Some(Some((found, chain))) => scan.accept(found, line, |_| chain),
                    Some(None) => scan.reject(),
                    None => scan.unreadable(),
                },
                Want::Evidence(e) => match self.find(&ring, &e, false) {
                    Some(Some((found, _))) => scan.evidence(found, line),
                    Some(None) => scan.reject(),
                    None => scan.unreadable(),
                },
                Want::Flush => scan.flushed(),
                Want::Done(outcome) => return (outcome, scan.unreadable_at()),
            }
        }
    }
}

fn head_of(outcome: Outcome) -> Seq {
    match outcome {
        Outcome::Head { head, .. } => head,
        other => panic!("no end: {other:?}"),
    }
}

#[test]
fn a_disowned_batch_of_this_lap_is_not_read_back() {
    // Room for one small batch behind record 100 before the end of the ring, not for a larger one.
    let small = 2 * u64::from(BLOCK);
    let mut d = Device::new(MIN_RING_BYTES - 3 * small);
    let tail = d.head;
    let (_, c99) = d.write(OLD, 99, 8, Chain(7));
    let (_, c100) = d.write(OLD, 100, 8, c99);
    let behind = d.head;
    let (q, _) = d.write(OLD, 101, 8, c100);
    assert_eq!(q, behind);
    // The new lineage has none above 100. Its 101 is larger: it goes to the next lap, and q stays as it was.
    d.head = behind;
    let (p, c101) = d.write(NEW, 101, 16, c100);
    assert_ne!(p, q);
    let (_, _) = d.write(NEW, 102, 8, c101);
    let line = Line(vec![(OLD, 1), (NEW, 101)]);
    let from = Mark {
        first: Seq(99),
        place: tail,
        chain: Chain(7),
    };
    let all = d.walk(from, &line);
    assert_eq!(
        all.iter().map(|b| b.0 .0).collect::<Vec<_>>(),
        [99, 100, 101, 102]
    );
    assert_eq!(all[2].1, p);
    // From a mark in the middle as well.
    let from = Mark {
        first: Seq(101),
        place: behind,
        chain: c100,
    };
    assert_eq!(d.walk(from, &line)[0], (Seq(101), p));
    // Even one of the same epoch: only the chain tells.
    let same = Line(vec![(OLD, 1)]);
    let from = Mark {
        chain: Chain(c100.0 ^ 1),
        ..from
    };
    assert_eq!(d.walk(from, &same), []);
}

/// Three records of 8 KiB each, the last just written.
fn three() -> (Device, Line, [Place; 3]) {
    let mut d = Device::new(0);
    let (p1, c1) = d.write(OLD, 1, 8, Chain(0));
    let (p2, c2) = d.write(OLD, 2, 8, c1);
    let (p3, _) = d.write(OLD, 3, 8, c2);
    (d, Line(vec![(OLD, 1)]), [p1, p2, p3])
}

#[test]
fn a_torn_tail_that_cannot_be_read_is_cut() {
    let (mut d, line, [_, _, p3]) = three();
    assert_eq!(d.scan(Place(0), 2, &line), {
        let (outcome, _) = d.scan(Place(0), 0, &line);
        (outcome, None)
    });
    for bad in [p3.0, p3.0 + u64::from(BLOCK)] {
        d.bad = vec![bad];
        let (outcome, at) = d.scan(Place(0), 2, &line);
        assert_eq!(head_of(outcome), Seq(2));
        assert_eq!(at, Some(p3));
    }
    // Beyond the end it disturbs nobody.
    d.bad = vec![d.head.0, d.head.0 + 5 * u64::from(BLOCK)];
    assert_eq!(head_of(d.scan(Place(0), 3, &line).0), Seq(3));
}

#[test]
fn what_is_proven_and_cannot_be_read_is_damage() {
    let (mut d, line, [_, p2, p3]) = three();
    // The superblock says that record 3 was durable.
    d.bad = vec![p3.0];
    let (outcome, at) = d.scan(Place(0), 3, &line);
    assert!(matches!(
        outcome,
        Outcome::Corrupt {
            missing: Seq(3),
            proven: Seq(3),
            ..
        }
    ));
    assert_eq!(at, Some(p3));
    // The batch behind it says that record 2 was durable.
    d.bad = vec![p2.0];
    let (outcome, at) = d.scan(Place(0), 0, &line);
    assert!(matches!(
        outcome,
        Outcome::Corrupt {
            missing: Seq(2),
            proven: Seq(2),
            ..
        }
    ));
    assert_eq!(at, Some(p2));
}

#[test]
fn a_device_that_reads_nothing_has_no_end() {
    let (mut d, line, _) = three();
    let blocks = MIN_RING_BYTES / u64::from(BLOCK);
    d.bad = (0..blocks).map(|b| b * u64::from(BLOCK)).collect();
    let tail = Mark {
        first: Seq(1),
        place: Place(0),
        chain: Chain(0),
    };
    assert_eq!(d.walk(tail, &line), []);
    let (outcome, _) = d.scan(Place(0), 0, &line);
    assert!(matches!(outcome, Outcome::Unreadable { place: Place(0) }));
}
