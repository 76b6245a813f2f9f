// SPDX-License-Identifier: GPL-2.0

//! The secondary's side of the handshake: what it states, which welcomes it takes, and in which order.

use replicate_core::{
    group::{Name, Replica, Volume as Known},
    lineage::{Before, Entry, Epoch, Lineage, Reason},
    log::{
        format::SUPERBLOCK_BYTES,
        ring::{Index, Mark, Place, Ring},
        superblock::{Format, Superblock},
        writer::Writer,
    },
    node::{
        durable::adopt::{AdoptError, History},
        inbound::{NoAdoption, Stated},
        links::{LinkId, Position as LinkPosition, Positions},
        phase::Phase,
        secondary::BadTerms,
        volumes::{State, Volume},
        window::Slot,
        Log, Memory, Node, Role, Start as NodeStart,
    },
    record::chain_record,
    session::{
        meet::{VolumeFault, Why},
        secondary::{
            may_follow, spare_id, state, Adoption, Agreed, Agreement, NotTaken, Offer, Unable, Wait,
        },
    },
    units::{
        Bytes, Chain, EpochId, GroupUuid, HostId, Op, Position, Range, Record, Sector, Seq,
        VolumeId,
    },
    wire::{Start, WelcomeHead},
};

#[derive(Clone, Debug, PartialEq)]
struct Small;

impl Memory for Small {
    type Slots = [Slot; 4];
    type Heads = [Seq; 1];
    type Marks = [Mark; 2];
    type Volumes = [Volume; 1];
    type Links = [Option<LinkPosition>; 1];
}

const LINK: LinkId = LinkId(0);
const OTHER: LinkId = LinkId(1);
const GROUP: GroupUuid = GroupUuid([8; 16]);

fn record(seq: u64) -> Record {
    Record {
        seq: Seq(seq),
        op: Op::Write,
        range: Range {
            volume: VolumeId(0),
            sector: Sector(seq * 8),
            sectors: 8,
        },
        ..Record::default()
    }
}

fn chain(upto: u64) -> Chain {
    (1..=upto).fold(Chain(0), |c, s| {
        chain_record(c, &record(s)).expect("a record")
    })
}

fn name() -> Name {
    Name::new(b"db").expect("a name")
}

fn volume() -> Known {
    Known {
        id: VolumeId(0),
        name: name(),
        size: Sector(1 << 20),
        logical_block: 512,
        discard_granularity: 0,
    }
}

fn epoch(id: u8, first: u64, reason: Reason) -> Epoch {
    Epoch {
        id: EpochId([id; 16]),
        first: Seq(first),
        reason,
        ..Epoch::default()
    }
}

/// The primary's history: one epoch, or a second one from record 3 on.
fn entries(more: bool) -> Vec<Entry> {
    let second = epoch(2, 3, Reason::Recovered);
    let all = [epoch(1, 1, Reason::Created), second];
    all.into_iter()
        .take(1 + usize::from(more))
        .map(Entry::from)
        .collect()
}

fn lineage(entries: &[Entry]) -> Lineage<'_> {
    Lineage::new(Before::default(), entries).expect("a lineage")
}

fn history(lineage: Lineage<'_>) -> History<'_> {
    History {
        group: GROUP,
        name: name(),
        lineage,
    }
}

/// A secondary whose log holds records up to `head`, of the first epoch.
struct Host {
    node: Node<Small>,
    sb: Vec<u8>,
}

impl Host {
    fn new(head: u64) -> Host {
        let mut bytes = vec![0; SUPERBLOCK_BYTES];
        let sb = Superblock::mut_from(&mut bytes).expect("large enough");
        sb.format(&Format {
            host: HostId([5; 16]),
            device: Bytes(64 << 20),
            physical_block: 4096,
            ring: true,
        })
        .expect("formatted");
        sb.set_group(GROUP, name());
        sb.push_epoch(epoch(1, 1, Reason::Created))
            .expect("an epoch");
        sb.set_consistent(false);
        sb.adopt_volume(volume()).expect("a volume");
        let ring = Ring::new(Bytes(8 << 20), 4096, Place(0), Place(1 << 20));
        let start = NodeStart {
            role: Role::Secondary,
            applied: Seq::NONE,
            chain: Chain(0),
            head: Seq(head),
            head_chain: chain(head),
        };
        let mut node = Node::new(
            [Slot::default(); 4],
            [Seq::NONE; 1],
            [Volume::default(); 1],
            Log::Ring(Writer::new(
                ring,
                Index::new([Mark::default(); 2]),
                Seq(head),
                false,
            )),
            Positions::new([None; 1]),
            start,
        );
        assert!(node.volume_attached(VolumeId(0)));
        while let Some(seq) = node.wants_load() {
            assert!(node.load(record(seq.0)));
        }
        Host { node, sb: bytes }
    }

    fn sb(&mut self) -> &mut Superblock {
        Superblock::mut_from(&mut self.sb).expect("large enough")
    }

    /// A welcome that goes on, from what this host has at or below `fork`.
    fn welcome(&self, fork: u64) -> WelcomeHead {
        let has = self.node.head().0;
        WelcomeHead {
            session: 7,
            group: GROUP,
            group_name: name(),
            resume: Seq(has.min(fork) + 1),
            fork: Position {
                epoch: EpochId([1; 16]),
                seq: Seq(fork),
            },
            fork_chain: Some(chain(fork)),
            head: Position {
                seq: Seq(fork + 9),
                ..Position::default()
            },
            ..WelcomeHead::default()
        }
    }

    fn take_up(
        &mut self,
        w: &WelcomeHead,
        theirs: &Lineage<'_>,
        (link, stated): (LinkId, Stated),
    ) -> Result<Adoption, NotTaken> {
        let sb = Superblock::ref_from(&self.sb).expect("large enough");
        let fitting =
            Offer::of(w, sb.group())?.fits(sb, [volume()].into_iter(), |_| Some(volume()))?;
        fitting.take_up(&mut self.node, sb, theirs, link, stated)
    }

    /// Takes a welcome up to where the superblock is to say so.
    fn agree(&mut self, w: &WelcomeHead, theirs: &Lineage<'_>) -> Result<Agreement, NotTaken> {
        let stated = self.node.stated();
        let adoption = self.take_up(w, theirs, (LINK, stated))?;
        assert_eq!(adoption.waits_for(&self.node), Ok(None));
        adoption.agree(&self.node)
    }

    fn is_news(&self, agreed: &Agreed, volume: Known) -> bool {
        let sb = Superblock::ref_from(&self.sb).expect("large enough");
        agreed.is_news(sb, [volume].into_iter())
    }

    fn record(&mut self, agreed: &Agreed, theirs: Lineage<'_>) {
        let recorded = agreed.record(self.sb(), &history(theirs), [volume()].into_iter(), 0);
        assert_eq!(recorded, Ok(()));
    }
}

fn agreed(agreement: Result<Agreement, NotTaken>) -> Agreed {
    match agreement {
        Ok(Agreement::Agreed(agreed)) => agreed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_host_states_is_what_is_durable() {
    let mut h = Host::new(2);
    let sb = Superblock::ref_from(&h.sb).expect("large enough");
    let said = state(&h.node, sb);
    assert_eq!((said.logged.seq, said.chain), (Seq(2), chain(2)));
    assert_eq!(said.logged.epoch, EpochId([1; 16]));
    assert_eq!((said.group, said.replica), (GROUP, Replica::Consistent));
    assert_eq!((said.applied.seq, said.ring), (Seq::NONE, true));
    h.sb().set_consistent(true);
    let sb = Superblock::ref_from(&h.sb).expect("large enough");
    assert_eq!(state(&h.node, sb).replica, Replica::Empty);
}

#[test]
fn a_welcome_that_is_not_taken_changes_nothing() {
    let entries = entries(false);
    let theirs = lineage(&entries);
    let mut h = Host::new(2);
    let (before, stated) = (h.node.clone(), h.node.stated());
    let good = h.welcome(2);
    let mut no = |w: WelcomeHead| {
        let e = h.take_up(&w, &theirs, (LINK, stated)).expect_err("refused");
        assert_eq!(h.node, before);
        e
    };
    let nonsense = [
        WelcomeHead { session: 0, ..good },
        WelcomeHead {
            resume: Seq(4),
            ..good
        },
        WelcomeHead {
            head: Position::default(),
            ..good
        },
        WelcomeHead {
            start: Start::SyncBegins,
            fork_chain: None,
            ..good
        },
        WelcomeHead {
            start: Start::AssumeClean,
            resume: Seq(1),
            ..good
        },
    ];
    for w in nonsense {
        assert!(matches!(no(w), NotTaken::Nonsense(_)), "{w:?}");
    }
    let group = GroupUuid([9; 16]);
    assert_eq!(no(WelcomeHead { group, ..good }), NotTaken::OtherGroup);
    let sync = Start::SyncGoesOn;
    let ended = NotTaken::Terms(BadTerms::SyncEnded);
    assert_eq!(
        no(WelcomeHead {
            start: sync,
            ..good
        }),
        ended
    );
    let differs = NotTaken::Terms(BadTerms::Histories(Why::ChainDiffers));
    assert_eq!(
        no(WelcomeHead {
            fork_chain: Some(Chain(1)),
            ..good
        }),
        differs
    );
    // It answers an older statement.
    assert!(h.take_up(&good, &theirs, (LINK, stated)).is_ok());
    h.node.adoption_failed(LINK);
    let stale = h.take_up(&good, &theirs, (LINK, stated));
    assert_eq!(stale, Err(NotTaken::Adoption(NoAdoption::Stale)));
}

#[test]
fn a_welcome_that_leaves_out_records_is_nonsense() {
    let entries = entries(false);
    let mut h = Host::new(2);
    let w = WelcomeHead {
        resume: Seq(4),
        ..h.welcome(3)
    };
    let stated = h.node.stated();
    let e = h.take_up(&w, &lineage(&entries), (LINK, stated));
    assert_eq!(e, Err(NotTaken::Terms(BadTerms::LeavesOut)));
}

#[test]
fn every_volume_is_here_under_its_number() {
    let h = Host::new(0);
    let sb = Superblock::ref_from(&h.sb).expect("large enough");
    let offer = Offer::of(&h.welcome(0), GROUP).expect("it makes sense");
    let fits = |theirs: Known, here: Option<Known>| {
        let fitting = offer.fits(sb, [theirs].into_iter(), |_| here);
        fitting.err()
    };
    assert_eq!(fits(volume(), Some(volume())), None);
    let missing = NotTaken::Volume(name(), VolumeFault::Missing);
    assert_eq!(fits(volume(), None), Some(missing));
    let small = Known {
        size: Sector(8),
        ..volume()
    };
    let e = fits(volume(), Some(small));
    assert!(matches!(
        e,
        Some(NotTaken::Volume(_, VolumeFault::TooSmall { .. }))
    ));
    let other = Known {
        id: VolumeId(4),
        ..volume()
    };
    assert_eq!(
        fits(other, Some(volume())),
        Some(NotTaken::OtherNumber(name()))
    );
}

#[test]
fn a_history_that_is_folded_here_is_refused_before_the_former_session_ends() {
    let entries = [Entry::from(epoch(2, 9, Reason::Recovered))];
    let before = Before {
        folded: 1,
        last: Seq(8),
        epoch: EpochId([1; 16]),
    };
    let theirs = Lineage::new(before, &entries).expect("a lineage");
    let mut h = Host::new(2);
    let (was, stated) = (h.node.clone(), h.node.stated());
    let e = h.take_up(&h.welcome(2), &theirs, (LINK, stated));
    assert_eq!(e, Err(NotTaken::History(AdoptError::Folded)));
    assert_eq!(h.node, was);
}

#[test]
fn the_former_session_ends_and_the_log_is_written_first() {
    let entries = entries(true);
    let theirs = lineage(&entries);
    let mut h = Host::new(0);
    let welcome = h.welcome(0);
    let first = agreed(h.agree(&welcome, &lineage(&entries[..1])));
    let begun = first.begin(&mut h.node).expect("it begins");
    let own = lineage(&entries[..1]);
    let placed = h
        .node
        .receive(&begun.owner, &own, EpochId([1; 16]), record(1));
    assert!(placed.is_ok());
    // Another primary's welcome comes by another link.
    let w = WelcomeHead {
        resume: Seq(1),
        fork_chain: None,
        ..h.welcome(2)
    };
    let stated = h.node.stated();
    let adoption = h.take_up(&w, &theirs, (OTHER, stated)).expect("taken up");
    assert_eq!(adoption.waits_for(&h.node), Ok(Some(Wait::Session)));
    h.node.inbound_ended(LINK);
    assert_eq!(adoption.waits_for(&h.node), Ok(Some(Wait::Log)));
    let plan = h.node.plan_batch(&own).expect("record 1");
    assert_eq!(adoption.waits_for(&h.node), Ok(Some(Wait::Log)));
    h.node.batch_done(plan.id, true);
    assert_eq!(adoption.waits_for(&h.node), Ok(None));
    h.node.fail();
    let failed = NotTaken::Adoption(NoAdoption::Failed);
    assert_eq!(adoption.waits_for(&h.node), Err(failed));
}

#[test]
fn what_was_applied_while_the_adoption_waited_counts() {
    let entries = entries(true);
    let theirs = lineage(&entries);
    let mut h = Host::new(3);
    let (w, stated) = (h.welcome(2), h.node.stated());
    let adoption = h.take_up(&w, &theirs, (LINK, stated)).expect("taken up");
    assert!(matches!(adoption.agree(&h.node), Ok(Agreement::Unread(_))));
    // As a takeover's replay would: whatever applies record 3 meanwhile.
    h.node.applier.jump(replicate_core::node::applied::Point {
        seq: Seq(3),
        chain: chain(3),
    });
    let ahead = NotTaken::Terms(BadTerms::Histories(Why::PeerAhead));
    assert_eq!(adoption.agree(&h.node), Err(ahead));
}

#[test]
fn a_log_that_holds_more_is_read_and_cut() {
    let entries = entries(true);
    let theirs = lineage(&entries);
    let mut h = Host::new(3);
    let w = h.welcome(2);
    let Ok(Agreement::Unread(unread)) = h.agree(&w, &theirs) else {
        panic!("it holds more");
    };
    assert_eq!(unread.proven(), Seq(2));
    let short = unread.found(Seq(1), Place(0), chain(1));
    assert_eq!(short, Err(NotTaken::LogEnds(Seq(1))));
    let differs = NotTaken::Terms(BadTerms::Histories(Why::ChainDiffers));
    assert_eq!(unread.found(Seq(2), Place(0), Chain(1)), Err(differs));
    let agreed = unread
        .found(Seq(2), Place(8192), chain(2))
        .expect("it fits");
    assert!(h.is_news(&agreed, volume()));
    h.record(&agreed, theirs);
    assert_eq!(
        (h.sb().commit().seq, h.sb().lineage().iter().count()),
        (Seq(2), 2)
    );
    let begun = agreed.begin(&mut h.node).expect("it begins");
    assert_eq!(
        (begun.resume, begun.head, begun.sync),
        (Seq(3), Seq(11), false)
    );
    let end = h.node.logged_end().expect("known");
    assert_eq!((end.seq, end.chain), (Seq(2), chain(2)));
    assert!(h.node.may_receive(&begun.owner).is_ok());
}

#[test]
fn a_session_of_the_same_epoch_writes_no_superblock() {
    let entries = entries(false);
    let mut h = Host::new(2);
    let w = h.welcome(2);
    let agreed = agreed(h.agree(&w, &lineage(&entries)));
    assert!(!h.is_news(&agreed, volume()));
    // Unless the primary's volume has grown.
    let larger = Known {
        size: Sector(2 << 20),
        ..volume()
    };
    assert!(h.is_news(&agreed, larger));
}

#[test]
fn a_host_that_begins_anew_is_inconsistent_before_the_first_copy() {
    let entries = entries(true);
    let theirs = lineage(&entries);
    for sync in [true, false] {
        let mut h = Host::new(3);
        let w = WelcomeHead {
            start: if sync {
                Start::SyncBegins
            } else {
                Start::AssumeClean
            },
            resume: Seq(10),
            ..h.welcome(9)
        };
        let agreed = agreed(h.agree(&w, &theirs));
        assert_eq!(agreed.anew(), Some(sync));
        assert!(h.is_news(&agreed, volume()));
        h.record(&agreed, theirs);
        assert_eq!(h.sb().inconsistent().is_some(), sync);
        assert_eq!(h.sb().tail().offset, Bytes(1 << 20));
        let begun = agreed.begin(&mut h.node).expect("it begins");
        assert_eq!((begun.sync, h.node.head()), (sync, Seq(9)));
        let sb = Superblock::ref_from(&h.sb).expect("large enough");
        let said = state(&h.node, sb);
        let replica = if sync {
            Replica::Inconsistent
        } else {
            Replica::Consistent
        };
        assert_eq!((said.logged.seq, said.replica), (Seq(9), replica));
    }
}

#[test]
fn a_welcome_whose_host_took_over_meanwhile_begins_no_session() {
    let entries = entries(false);
    let mut h = Host::new(2);
    let w = h.welcome(2);
    let agreed = agreed(h.agree(&w, &lineage(&entries)));
    let _ = h.node.takeover_begin();
    let role = NotTaken::Adoption(NoAdoption::Role);
    assert_eq!(agreed.begin(&mut h.node), Err(role));
}

#[test]
fn a_host_that_cannot_keep_what_comes_follows_nobody() {
    let mut h = Host::new(0);
    let able = |node: &Node<Small>, phase, volume| may_follow(node, phase, [volume].into_iter());
    assert_eq!(able(&h.node, Phase::Active, State::Replica), Ok(()));
    let failed = Err(Unable::Failed);
    assert_eq!(able(&h.node, Phase::Active, State::Failed), failed);
    assert_eq!(able(&h.node, Phase::Failed, State::Replica), failed);
    let not_active = Err(Unable::NotActive);
    assert_eq!(able(&h.node, Phase::TakingOver, State::Replica), not_active);
    h.node.fail();
    assert_eq!(able(&h.node, Phase::Active, State::Replica), failed);
}

#[test]
fn volumes_without_a_number_get_one_that_is_free() {
    let taken = |id| id == VolumeId(u16::MAX - 1);
    let first = spare_id(VolumeId(u16::MAX), taken);
    let second = spare_id(first, taken);
    assert_eq!((first.0, second.0), (u16::MAX - 2, u16::MAX - 3));
    assert_eq!(spare_id(VolumeId(0), taken), VolumeId(0));
}
