// SPDX-License-Identifier: GPL-2.0

//! Superblock transitions over a host's whole life: a history longer than a lineage keeps, and writes that fail.

use proptest::{prelude::*, test_runner::TestCaseError};
use replicate_core::{
    group::{Mode, Name, Role as Recorded, SyncKind},
    lineage::{Before, Entry, Epoch, Lineage},
    log::{
        format::SUPERBLOCK_BYTES,
        reader::Found,
        recovery::{Outcome, Scan, Want},
        ring::{Index, Mark, Place, Ring},
        superblock::{
            choose, copy_offsets, validate, Format, Link, LinkState, Superblock, SuperblockError,
            SyncState, Tail, WriteState, Written,
        },
        writer::Writer,
    },
    node::{
        durable::{
            self,
            adopt::{self, AdoptError, History},
            grow::{GrowError, Limits},
            start::{begin_life, Facts, Life, Unfit},
            takeover::{take_over, TakeOver, TakeOverError},
        },
        links::{LinkId, Position as LinkPosition, Positions},
        volumes::Volume,
        window::Slot,
        Log, Memory, Node, Role, Start as NodeStart,
    },
    units::{Bytes, Chain, EpochId, GroupUuid, HostId, Op, Position, Range, Sector, Seq, VolumeId},
};

const DEVICE: u64 = 64 << 20;
/// A batch of one record of 4 KiB.
const BATCH: u64 = 8192;

fn formatted() -> Vec<u8> {
    let mut buffer = vec![0; SUPERBLOCK_BYTES];
    let format = Format {
        host: HostId([5; 16]),
        device: Bytes(DEVICE),
        physical_block: 512,
        ring: true,
    };
    let sb = Superblock::mut_from(&mut buffer).unwrap();
    sb.format(&format).unwrap();
    buffer
}

fn name() -> Name {
    Name::new(b"db").unwrap()
}

fn epoch(n: u64) -> EpochId {
    let mut id = [1; 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    EpochId(id)
}

/// A primary with one record a batch, whose application writes ten records between two crashes.
struct Host {
    sb: Vec<u8>,
    /// Epoch of each seq, from 1 on.
    owner: Vec<EpochId>,
    starts: u64,
}

impl Host {
    fn new() -> Host {
        Host {
            sb: formatted(),
            owner: Vec::new(),
            starts: 0,
        }
    }

    fn sb(&mut self) -> &mut Superblock {
        Superblock::mut_from(&mut self.sb).unwrap()
    }

    fn start(&mut self) -> Result<Vec<LinkId>, GrowError> {
        self.starts += 1;
        let head = Seq(self.owner.len() as u64);
        let life = Life {
            name: name(),
            role: Role::Primary,
            head,
            uuid: GroupUuid([8; 16]),
            epoch: epoch(self.starts),
            time_ns: self.starts,
            limits: Limits::FORMAT,
        };
        let mut next = self.sb.clone();
        let given_up = begin_life(Superblock::mut_from(&mut next).unwrap(), &life)?;
        self.sb = next;
        Ok(given_up.iter().collect())
    }

    fn write(&mut self) {
        let newest = epoch(self.starts);
        self.owner.extend([newest; 10]);
    }

    /// A checkpoint at the head, as far as the links let the tail go.
    fn checkpoint(&mut self) {
        let head = Seq(self.owner.len() as u64);
        let sb = self.sb();
        let at = sb.lineage().position(head).unwrap();
        sb.set_applied(at);
        sb.set_commit(at);
        let mut keep = head;
        for (_, l) in sb.links() {
            if l.state != LinkState::NeedsSync {
                keep = keep.min(l.position.seq);
            }
        }
        sb.set_tail(Tail {
            seq: keep.next(),
            offset: Bytes(keep.0 * BATCH),
            lap: 0,
            chain: Chain(keep.0 as u32),
        });
    }

    /// What a scan of its log says.
    fn scan(&mut self) -> Outcome {
        let owner = self.owner.clone();
        let sb = self.sb();
        let tail = sb.tail();
        let ring = Ring::new(
            Bytes(DEVICE / 2),
            4096,
            Place(tail.offset.0),
            Place(tail.offset.0),
        );
        let lineage = sb.lineage();
        let mut scan = Scan::new(ring, tail.seq, tail.chain, sb.commit().seq);
        loop {
            match scan.want(&lineage) {
                Want::Batch(e) if owner.get(e.first.0 as usize - 1) == Some(&e.epoch) => {
                    let found = Found {
                        first: e.first,
                        last: e.first,
                        length: Bytes(BATCH),
                        durable: e.first.prev(),
                    };
                    scan.accept(found, &lineage, |seq| Chain(seq.0 as u32));
                }
                Want::Batch(_) | Want::Evidence(_) => scan.reject(),
                Want::Flush => scan.flushed(),
                Want::Done(outcome) => return outcome,
            }
        }
    }

    fn ends_at(&mut self) -> Option<Seq> {
        match self.scan() {
            Outcome::Head { head, .. } => Some(head),
            Outcome::Corrupt { .. } | Outcome::Unreadable { .. } => None,
        }
    }
}

/// A link is away in epoch 1 and keeps the tail there, while the primary starts more often than a lineage has entries.
#[test]
fn a_link_that_is_away_for_longer_than_the_lineage_does_not_damage_the_log() {
    let mut h = Host::new();
    h.start().unwrap();
    h.write();
    let link = Link {
        name: Name::new(b"dr").unwrap(),
        position: h.sb().lineage().position(Seq(5)).unwrap(),
        state: LinkState::Normal,
        mode: Mode::Async,
        ..Link::default()
    };
    assert!(h.sb().set_link(3, Some(&link)));
    h.checkpoint();
    let mut told = Vec::new();
    for start in 2..=200u64 {
        let head = Seq(h.owner.len() as u64);
        assert_eq!(h.ends_at(), Some(head), "scan before start {start}");
        let facts = Facts::of(h.sb());
        assert_eq!(facts.role_for(name(), None), Ok(Role::Primary));
        told.extend(h.start().unwrap().into_iter().map(|id| (start, id)));
        h.write();
        h.checkpoint();
    }
    // It was said once, in the superblock that would have brought its epoch near to the end of the lineage.
    assert_eq!(told, [(Limits::FORMAT.links as u64 + 1, LinkId(3))]);
    assert_eq!(h.sb().link(3).map(|l| l.state), Some(LinkState::NeedsSync));
    assert!(h.sb().lineage().before().folded > 0);
}

/// The same with volumes that never come back: nothing may be forgotten that their replay needs.
#[test]
fn a_replay_that_needs_the_oldest_epoch_refuses_a_new_one() {
    let mut h = Host::new();
    let mut refused = None;
    for start in 1..=70u64 {
        let before = h.sb.clone();
        match h.start() {
            Ok(_) => h.write(),
            Err(e) => {
                refused.get_or_insert((start, e));
                assert_eq!(h.sb, before);
            }
        }
        let head = h.owner.len() as u64;
        assert_eq!(h.ends_at(), Some(Seq(head)));
    }
    let needs = GrowError::ReplayNeeds {
        tail: Seq(1),
        folds: Seq(10),
    };
    assert_eq!(refused, Some((65, needs)));
}

/// A log that a former version let fall below the fold is refused with the reason, not called damaged.
#[test]
fn a_log_below_the_fold_is_named() {
    let mut h = Host::new();
    h.start().unwrap();
    h.write();
    for n in 0..70u64 {
        let first = Seq(11 + n);
        let e = Epoch {
            id: epoch(100 + n),
            first,
            ..Epoch::default()
        };
        h.sb().push_epoch(e).unwrap();
    }
    let facts = Facts::of(h.sb());
    assert_eq!(facts.role_for(name(), None), Err(Unfit::Folded(Seq(1))));
}

fn lineage_folded_at(last: u64) -> (Before, Vec<Entry>) {
    let before = Before {
        folded: 9,
        last: Seq(last),
        epoch: epoch(9),
    };
    let entry = Entry::from(Epoch {
        id: epoch(10),
        first: Seq(last + 1),
        ..Epoch::default()
    });
    (before, vec![entry])
}

/// A secondary whose log begins, or whose head lies, below what its primary's lineage names.
#[test]
fn a_secondary_below_the_fold_neither_resumes_nor_takes_over() {
    let (before, entries) = lineage_folded_at(100);
    let lineage = Lineage::new(before, &entries).unwrap();
    let history = History {
        group: GroupUuid([8; 16]),
        name: name(),
        lineage,
    };
    let mut buffer = formatted();
    let sb = Superblock::mut_from(&mut buffer).unwrap();
    sb.set_role(Recorded::Secondary);
    let resumed = adopt::resume(sb, &history, std::iter::empty(), Seq(100));
    assert_eq!(resumed, Err(AdoptError::Folded));
    sb.set_tail(Tail {
        seq: Seq(101),
        ..sb.tail()
    });
    let resumed = adopt::resume(sb, &history, std::iter::empty(), Seq(100));
    assert_eq!(resumed, Ok(()));
    let take = |end| TakeOver {
        end: Seq(end),
        epoch: epoch(11),
        time_ns: 1,
        limits: Limits::FORMAT,
    };
    let below = TakeOverError::Folded {
        end: Seq(99),
        folded: Seq(100),
    };
    assert_eq!(take_over(sb, &take(99), std::iter::empty()), Err(below));
    assert_eq!(sb.role(), Recorded::Secondary);
    assert_eq!(take_over(sb, &take(100), std::iter::empty()), Ok(()));
    let at = Position {
        epoch: epoch(9),
        seq: Seq(100),
    };
    assert_eq!(sb.commit(), at);
}

/// What a copy's write comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Copied {
    Ok,
    /// It failed, and nothing changed.
    Lost,
    /// It failed, and is there.
    There,
    /// It failed half way.
    Torn,
}

proptest! {
    /// Whatever fails, a start finds the last generation that was called durable, or a later one that was tried; never two
    /// that contradict each other.
    #[test]
    fn superblock_writes_that_fail_leave_no_doubt(
        tries in prop::collection::vec(
            prop::array::uniform2(prop_oneof![
                3 => Just(Copied::Ok), 1 => Just(Copied::Lost), 1 => Just(Copied::There), 1 => Just(Copied::Torn)
            ]),
            1..12,
        )
    ) {
        let mut durable = formatted();
        let mut state = WriteState::default();
        let mut disk: [Vec<u8>; 4] = std::array::from_fn(|_| vec![0; SUPERBLOCK_BYTES]);
        // Formatted: whole in all four places.
        for _ in 0..2 {
            let sb = Superblock::mut_from(&mut durable).unwrap();
            sb.advance();
            let at = sb.write_offsets();
            let sealed = sb.seal().to_vec();
            for (copy, offset) in disk.iter_mut().zip(copy_offsets(Bytes(DEVICE))) {
                if at.contains(&offset) {
                    copy[..sealed.len()].copy_from_slice(&sealed);
                }
            }
        }
        let (mut last_durable, mut degraded_slot) = (0, [false; 2]);
        let mut tries = tries.into_iter();
        let mut n = 0;
        'contents: loop {
            n += 1;
            let mut next = durable.clone();
            let sb = Superblock::mut_from(&mut next).unwrap();
            sb.set_horizon(Position { epoch: epoch(1), seq: Seq(n) });
            loop {
                let Some(copies) = tries.next() else { break 'contents };
                let mut attempt = state.begin(sb);
                let at = sb.write_offsets();
                let slot = sb.generation() % 2;
                let sealed = sb.seal().to_vec();
                for (offset, outcome) in at.into_iter().zip(copies) {
                    let place = copy_offsets(Bytes(DEVICE)).iter().position(|o| *o == offset).unwrap();
                    match outcome {
                        Copied::Ok | Copied::There => disk[place][..sealed.len()].copy_from_slice(&sealed),
                        Copied::Lost => {}
                        Copied::Torn => disk[place][4096..8192].fill(0xee),
                    }
                    attempt.copy_done(outcome == Copied::Ok);
                    // The power may fail at any time.
                    check_start(&disk, last_durable, n)?;
                }
                degraded_slot[slot as usize] = copies != [Copied::Ok; 2];
                match state.end(attempt) {
                    Written::Again => continue,
                    Written::Durable => last_durable = n,
                    Written::Unknown => prop_assert!(!copies.contains(&Copied::Ok)),
                }
                break;
            }
            if last_durable == n {
                durable = next;
            }
            prop_assert_eq!(state.is_degraded(), degraded_slot != [false; 2]);
            check_start(&disk, last_durable, n)?;
        }
    }
}

struct Small;

impl Memory for Small {
    type Slots = [Slot; 4];
    type Heads = [Seq; 1];
    type Marks = [Mark; 2];
    type Volumes = [Volume; 1];
    type Links = [Option<LinkPosition>; 1];
}

/// The node of a start: the log is scanned as it is, one record in a batch.
fn node(h: &mut Host) -> Node<Small> {
    let head = h.ends_at().expect("a log that is whole");
    let sb = h.sb();
    let (tail, applied) = (sb.tail(), sb.applied().seq);
    let batches = head.since(tail.seq.prev());
    let end = tail.offset.0 + batches * BATCH;
    let ring = Ring::new(Bytes(DEVICE / 2), 4096, Place(tail.offset.0), Place(end));
    let mut marks = Index::new([Mark::default(); 2]);
    for n in 0..batches {
        marks.push(Mark {
            first: Seq(tail.seq.0 + n),
            place: Place(tail.offset.0 + n * BATCH),
            chain: Chain(0),
        });
    }
    let start = NodeStart {
        role: Role::Primary,
        applied,
        chain: Chain(0),
        head,
        head_chain: Chain(0),
    };
    let mut node = Node::<Small>::new(
        [Slot::default(); 4],
        [Seq::NONE; 1],
        [Volume::default(); 1],
        Log::Ring(Writer::new(ring, marks, head, true)),
        Positions::new([None; 1]),
        start,
    );
    assert!(node.volumes.enter(VolumeId(0)));
    assert!(node.volume_attached(VolumeId(0)));
    while node.open_volume().is_some() {}
    node
}

/// A group that wrote once starts for ever: its checkpoints say that its log holds nothing, and so nothing that a
/// start folds.
#[test]
fn an_idle_group_starts_more_often_than_a_lineage_has_entries() {
    let mut h = Host::new();
    for start in 1..=200u64 {
        h.start().unwrap();
        let mut node = node(&mut h);
        if start == 1 {
            let range = Range {
                volume: VolumeId(0),
                sector: Sector(0),
                sectors: 8,
            };
            let seq = node.admit(Op::Write, range, false, false, 0, 0).unwrap();
            let plan = node.plan_batch(&(epoch(1), Seq(u64::MAX))).unwrap();
            assert_eq!(plan.length, Bytes(BATCH));
            node.batch_done(plan.id, true);
            node.demand(seq);
            assert!(node.plan_flush());
            node.flush_done(true);
            assert!(node.plan_apply().is_some());
            node.round_done();
            h.owner.push(epoch(1));
        }
        let mut checkpoints = 0;
        while node.checkpoint_useful() {
            let begun = node.checkpoint_begin();
            let flushed = node.checkpoint_flushed(begun).expect("no device failed");
            let update = node.checkpoint_update(flushed);
            durable::checkpoint::checkpoint(h.sb(), &node.checkpoint_image(update));
            node.checkpoint_done(update);
            checkpoints += 1;
        }
        assert!(checkpoints <= 1, "start {start}");
        assert_eq!(node.head(), Seq(1));
    }
    assert_eq!(h.sb().applied().seq, Seq(1));
    assert!(h.sb().lineage().before().folded > 0);
}

/// What a start makes of the four copies: no older than `durable`, which was acted on, no newer than `tried`. Also when any
/// of them cannot be read: then it may refuse.
fn check_start(disk: &[Vec<u8>; 4], durable: u64, tried: u64) -> Result<(), TestCaseError> {
    for unreadable in 0u32..16 {
        let copies = std::array::from_fn(|i| (unreadable & (1 << i) == 0).then_some(&disk[i][..]));
        let whole = copies
            .iter()
            .flatten()
            .filter(|c| validate(c).is_ok())
            .count();
        match choose(copies) {
            Ok(i) => {
                let sb = Superblock::ref_from(&disk[i]).unwrap();
                let found = sb.horizon().seq.0;
                prop_assert!(
                    (durable..=tried).contains(&found),
                    "{found} after {durable}, without {unreadable:04b}"
                );
            }
            Err(SuperblockError::Unreadable(n)) => {
                prop_assert_eq!(n, unreadable.count_ones() as u8);
                // One bad copy stops nobody.
                prop_assert!(n > 1 || whole < 3);
            }
            Err(e) => prop_assert!(false, "{e}"),
        }
    }
    Ok(())
}

/// A checkpoint whose image says that a link is being synchronised does not make a consistent peer of it.
#[test]
fn a_checkpoint_ends_no_synchronisation() {
    let mut h = Host::new();
    h.start().unwrap();
    let id = LinkId(0);
    durable::links::add(h.sb(), id, name(), Mode::Async, 0).unwrap();
    let checkpoint = |h: &mut Host, node: &mut Node<Small>| {
        let begun = node.checkpoint_begin();
        let flushed = node.checkpoint_flushed(begun).expect("no device failed");
        let update = node.checkpoint_update(flushed);
        durable::checkpoint::checkpoint(h.sb(), &node.checkpoint_image(update));
        node.checkpoint_done(update);
        let link = h.sb().link(usize::from(id.0)).unwrap();
        (link.state, link.sync.is_some())
    };
    let mut node = node(&mut h);
    node.positions.set(id, Mode::Async, None);
    assert_eq!(checkpoint(&mut h, &mut node), (LinkState::NeedsSync, false));
    node.positions.promise(id, Seq::NONE);
    assert!(node.positions.keep_promise(id, true));
    // The slot does not say yet, or not any more, that one runs.
    assert_eq!(checkpoint(&mut h, &mut node), (LinkState::NeedsSync, false));
    let sync = SyncState {
        kind: SyncKind::Full,
        volume: VolumeId(0),
        cursor: Sector(0),
        start: Position::default(),
        end: None,
    };
    durable::links::sync_began(h.sb(), id, HostId([9; 16]), Chain(0), sync).unwrap();
    assert_eq!(checkpoint(&mut h, &mut node), (LinkState::Syncing, true));
    // It is given up, and its log freed, while a note that it is over waits: the note changes nothing.
    assert!(!durable::links::is_over(h.sb(), id));
    node.positions.set_needs_sync(id);
    assert_eq!(checkpoint(&mut h, &mut node), (LinkState::NeedsSync, false));
    durable::progress::Note::Over.write(h.sb(), id).unwrap();
    assert_eq!(h.sb().link(0).unwrap().state, LinkState::NeedsSync);
    assert!(!durable::links::is_over(h.sb(), id));
    // Where it runs, it is over.
    durable::links::sync_began(h.sb(), id, HostId([9; 16]), Chain(0), sync).unwrap();
    durable::progress::Note::Over.write(h.sb(), id).unwrap();
    assert!(durable::links::is_over(h.sb(), id));
}
