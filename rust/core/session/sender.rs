// SPDX-License-Identifier: GPL-2.0

//! What a primary sends next on a link.
//!
//! Records go out as soon as they have a seq, beside the log write: the peer does not apply them before
//! the commit point, which travels in every header, and alone where nothing else is queued to carry it.
//! Records need credit; control messages need none, so that the commit point, without which the peer
//! cannot apply and so cannot give credit, always gets through.

use super::{
    progress::{Given, Reached},
    resync::{Copied, Copies, CopyItem},
};
use crate::{
    group::{Mode, Volume},
    node::{
        links::{LinkId, Position},
        Memory, Node,
    },
    units::{Bytes, Record, Seq},
    wire::{
        header::{FLAG_IN_SYNC, FLAG_STABLE},
        Progress, WireError,
    },
};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Send {
    /// Announce the synchronisation: region copies follow.
    SyncStart,
    /// Send this record; from memory or read back from the log. Where it [fits](Sender::fits), report with
    /// [`Sender::record_sent`].
    Record(Seq),
    /// Read this region from the data volume now: [`Sender::copy_begins`], then [`Sender::copy_read`].
    ReadCopy(CopyItem),
    /// Send this region copy, which was read; report with [`Sender::copy_sent`].
    Copy(CopyItem),
    /// All regions were copied. Make durable where the synchronisation ends; report with [`Sender::end_recorded`].
    RecordEnd(Seq),
    /// It is durable: tell the peer, which is consistent once it applied up to `end`; report with [`Sender::end_sent`].
    SyncEnd {
        /// The commit point when the last copy was read.
        end: Seq,
        /// Number of copies.
        items: u64,
    },
    /// Send a header alone: the commit point, or who waits for the peer, is another than it was told.
    Told,
    /// Nothing now.
    Nothing,
}

/// What every message of the session says beside its own content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Told {
    /// The commit point.
    pub commit: Seq,
    /// Who waits for the peer, as flags of the header.
    pub flags: u8,
}

impl Told {
    /// Returns what a message of `link` says now.
    pub fn now<M: Memory>(node: &Node<M>, link: LinkId) -> Told {
        Told {
            commit: node.commit(),
            flags: node.positions.get(link).map_or(0, flags),
        }
    }
}

/// What an acknowledgement brought about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The link became in-sync.
    pub in_sync: bool,
    /// The peer lacks little, for the first time in this session.
    pub level: bool,
    /// The peer lacks nothing.
    pub whole: bool,
    /// More is on its stable storage.
    pub logged: bool,
    /// Writers may wait for acknowledgements of this link.
    pub releases: bool,
    /// They do so from now on: what they wait for is flushed at once.
    pub gates: bool,
}

/// So many records of an asynchronous link gather at most.
const GATHER_RECORDS: u64 = 128;
/// A record of this size goes out at once.
const GATHER_BYTES: u64 = 16 << 10;

/// Whether a new record of `bytes` may wait for others, for a commit interval, before the sender is woken.
///
/// Where no writer waits for the peer, one wake-up, one segment, one log write of the peer and one acknowledgement
/// serve many small records. A primary may lose as much to a power cut. `sent`: what was sent to the peer; `head`:
/// the new record.
pub fn may_gather(mode: Mode, sent: Seq, head: Seq, bytes: Bytes) -> bool {
    mode == Mode::Async && head.0.saturating_sub(sent.0) < GATHER_RECORDS && bytes.0 < GATHER_BYTES
}

/// Primary's side of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    link: LinkId,
    next: Seq,
    /// Highest record that was ever sent in this session; `next` goes back when one is asked for again.
    sent: Seq,
    credit_seq: Seq,
    credit_bytes: u64,
    sent_bytes: u64,
    told: Told,
    /// The next record has so many payload bytes, and does not fit the peer's window; 0: it is not known not to.
    starved: u64,
    /// The synchronisation under way, if any.
    copies: Option<Copies>,
    announced: bool,
    /// The peer has been near the head once.
    was_level: bool,
}

impl Sender {
    /// A session of `link` that begins with record `resume`. `received`: the peer, as its Ready says, holds everything up
    /// to there: that counts as sent.
    pub fn new(link: LinkId, resume: Seq, received: Seq, copies: Option<Copies>) -> Self {
        let sent = resume.prev().max(received);
        Sender {
            link,
            next: sent.next(),
            sent,
            credit_seq: resume.prev(),
            credit_bytes: 0,
            sent_bytes: 0,
            told: Told::default(),
            starved: 0,
            copies,
            announced: false,
            was_level: false,
        }
    }

    /// First record that was not sent in this session.
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// Newest record that was sent in this session, or that the peer said it has.
    pub fn sent(&self) -> Seq {
        self.sent
    }

    /// The peer's window: absolute, never shrinks.
    pub fn set_credit(&mut self, seq: Seq, bytes: u64) {
        self.credit_seq = self.credit_seq.max(seq);
        self.credit_bytes = self.credit_bytes.max(bytes);
    }

    /// What to do next. `volumes`: the group's, in the order in which they are synchronised.
    pub fn next<'a, M: Memory>(
        &mut self,
        node: &Node<M>,
        volumes: impl Iterator<Item = &'a Volume>,
    ) -> Send {
        if let Some(c) = &mut self.copies {
            if !self.announced {
                self.announced = true;
                return Send::SyncStart;
            }
            c.go_on(volumes, node.commit());
        }
        self.plan(node.head(), Told::now(node, self.link), |item, last| {
            node.volume_lacks(&item.range, last)
        })
    }

    /// `lacks(item, last)`: whether the data volume lacks a record up to `last` that overlaps the region, see
    /// [`Node::volume_lacks`].
    fn plan(&self, head: Seq, now: Told, lacks: impl FnOnce(&CopyItem, Seq) -> bool) -> Send {
        let last = self.sent;
        let told = if now == self.told {
            Send::Nothing
        } else {
            Send::Told
        };
        if let Some(c) = &self.copies {
            if let Some(item) = c.read() {
                return Send::Copy(item);
            }
            // While a region is read nothing overtakes it (R2).
            if c.reading().is_some() {
                return told;
            }
            if let Some(item) = c.wanted(last) {
                if self.has_credit(item.range.bytes().0) {
                    // What was sent must be on the volume before the region is read from it (R1).
                    if lacks(&item, last) {
                        return told;
                    }
                    return Send::ReadCopy(item);
                }
            } else if let Some(send) = c.end() {
                return send;
            }
        }
        // One that did not fit is not even looked at before it does: it may have to be read from the log each time.
        if self.next <= head && self.next <= self.credit_seq && self.has_credit(self.starved) {
            return Send::Record(self.next);
        }
        told
    }

    fn has_credit(&self, bytes: u64) -> bool {
        self.sent_bytes.saturating_add(bytes) <= self.credit_bytes
    }

    /// Whether `record`, the next one, fits the peer's window. Where not, ask [what else](Self::next) there is to send.
    pub fn fits(&mut self, record: &Record) -> bool {
        let bytes = u64::from(record.payload_bytes());
        let fits = record.seq <= self.credit_seq && self.has_credit(bytes);
        self.starved = if fits { 0 } else { bytes };
        fits
    }

    /// A message of the session is sent: returns what it says.
    pub fn tells<M: Memory>(&mut self, node: &Node<M>) -> Told {
        self.told = Told::now(node, self.link);
        self.told
    }

    /// That record was sent, with `told` in its header.
    pub fn record_sent(&mut self, record: &Record, told: Told) {
        self.next_is(record.seq.next());
        self.sent = self.sent.max(record.seq);
        self.sent_bytes = self
            .sent_bytes
            .saturating_add(u64::from(record.payload_bytes()));
        self.told = told;
    }

    /// Reading of the wanted region starts.
    pub fn copy_begins(&mut self) {
        let last = self.sent;
        if let Some(c) = &mut self.copies {
            c.begin(last);
        }
    }

    /// The region being read.
    pub fn reading(&self) -> Option<CopyItem> {
        self.copies.as_ref()?.reading()
    }

    /// It was read, when the commit point was `commit`.
    pub fn copy_read(&mut self, commit: Seq) {
        if let Some(c) = &mut self.copies {
            c.done_reading(commit);
        }
    }

    /// The copy that was read is sent.
    pub fn copy_sent(&mut self, bytes: u64) {
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        if let Some(c) = &mut self.copies {
            c.sent();
        }
    }

    /// The superblock says where the synchronisation ends.
    pub fn end_recorded(&mut self) {
        if let Some(c) = &mut self.copies {
            c.end_recorded();
        }
    }

    /// The end of the synchronisation was told.
    pub fn end_sent(&mut self) {
        if let Some(c) = &mut self.copies {
            c.end_sent();
        }
    }

    /// An acknowledgement arrived.
    ///
    /// What the peer holds is not sent (again), and a region copy that it takes for older than a record which it
    /// already has would be placed before that record, while its content is older still (R2).
    ///
    /// # Errors
    ///
    /// The peer acknowledges what it was not sent: nothing it says can be believed, the session ends. Lower positions than
    /// before are an older acknowledgement, and change nothing.
    pub fn acknowledged<M: Memory>(
        &mut self,
        node: &mut Node<M>,
        p: Progress,
    ) -> Result<Change, WireError> {
        if p.received > self.sent {
            return Err(WireError::Field(
                "acknowledgement (of a record that was not sent)",
            ));
        }
        self.next_is(self.next.max(p.received.next()));
        Ok(self.reached(node, (p.received, p.logged, p.applied)))
    }

    fn reached<M: Memory>(&mut self, node: &mut Node<M>, acks: (Seq, Seq, Seq)) -> Change {
        let before = node.positions.get(self.link).copied().unwrap_or_default();
        let in_sync = node.acknowledged(self.link, acks);
        let Some(l) = node.positions.get(self.link) else {
            return Change::default();
        };
        let level = !self.was_level && node.is_near(l.received) && !l.syncing && !l.needs_sync;
        self.was_level |= level;
        Change {
            in_sync,
            level,
            whole: l.received >= node.head(),
            logged: l.logged > before.logged,
            releases: l.mode != Mode::Async,
            gates: l.gates() && !before.gates(),
        }
    }

    /// The peer reported region copies up to `item` durable; the item after the last one is the end.
    ///
    /// # Errors
    ///
    /// It was not sent so many.
    pub fn copies_durable(&mut self, item: u64) -> Result<Copied, WireError> {
        match &mut self.copies {
            Some(copies) => copies.acknowledged(item),
            None => Ok(Copied::Nothing),
        }
    }

    /// The synchronisation is over, durably. What the peer acknowledged while it ran counts from now on; on an idle
    /// group nothing else comes.
    pub fn sync_over<M: Memory>(&mut self, node: &mut Node<M>) -> Change {
        self.copies = None;
        self.was_level = false;
        node.positions.sync_ended(self.link);
        match node.positions.get(self.link) {
            Some(&Position {
                received,
                logged,
                applied,
                ..
            }) => self.reached(node, (received, logged, applied)),
            None => Change::default(),
        }
    }

    /// The next record in order was asked for again (`from` was lost on the way).
    pub fn resend(&mut self, from: Seq, oldest: Seq) {
        self.next_is(self.next.min(from.max(oldest)));
    }

    fn next_is(&mut self, seq: Seq) {
        if seq != self.next {
            self.starved = 0;
        }
        self.next = seq;
    }

    /// Returns what the peer was given to do, and what it has done: see [`Progress`](super::progress::Progress).
    pub fn standing<M: Memory>(&self, node: &Node<M>) -> (Given, Reached) {
        let position = node.positions.get(self.link).copied().unwrap_or_default();
        let given = Given {
            sent: self.sent,
            commit: node.commit(),
            mode: position.mode,
            starved: self.is_starved(node.head()),
            copies: self.copies.as_ref().is_some_and(Copies::is_outstanding),
        };
        let reached = Reached {
            received: position.received,
            logged: position.logged,
            applied: position.applied,
            copied: self.copies.as_ref().map(Copies::cursor),
        };
        (given, reached)
    }

    /// Whether the next record, where there is one up to `head`, waits for the peer's credit.
    fn is_starved(&self, head: Seq) -> bool {
        self.next <= head && (self.next > self.credit_seq || !self.has_credit(self.starved))
    }
}

/// What the peer must know of who waits for it.
fn flags(p: &Position) -> u8 {
    if !p.gates() {
        return 0;
    }
    let in_sync = if p.in_sync { FLAG_IN_SYNC } else { 0 };
    match p.mode {
        Mode::Logged | Mode::Applied => in_sync | FLAG_STABLE,
        Mode::Received | Mode::Async => in_sync,
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_sender))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::{
        log::{
            ring::{Index, Mark, Place, Ring},
            writer::Writer,
        },
        node::{links::Positions, volumes::Volume as NodeVolume, window::Slot, Log, Role, Start},
        session::resync::Copied,
        units::{Chain, Op, Range, Sector, VolumeId},
    };

    const SMALL: Bytes = Bytes(4096);
    const LINK: LinkId = LinkId(0);

    struct Small;

    impl Memory for Small {
        type Slots = [Slot; 4];
        type Heads = [Seq; 1];
        type Marks = [Mark; 2];
        type Volumes = [NodeVolume; 1];
        type Links = [Option<Position>; 1];
    }

    /// A primary with `head` records, all of them committed and applied, and a link that writers wait for.
    fn node(head: u64) -> Node<Small> {
        let ring = Ring::new(Bytes(8 << 20), 4096, Place(0), Place(0));
        let head = Seq(head);
        let mut positions = Positions::new([None; 1]);
        positions.set(LINK, Mode::Logged, Some(Seq::NONE));
        let start = Start {
            role: Role::Primary,
            applied: head,
            chain: Chain(0),
            head,
            head_chain: Chain(0),
        };
        Node::new(
            [Slot::default(); 4],
            [Seq::NONE; 1],
            [NodeVolume::default(); 1],
            Log::Ring(Writer::new(
                ring,
                Index::new([Mark::default(); 2]),
                head,
                true,
            )),
            positions,
            start,
        )
    }

    fn has(received: u64, logged: u64) -> Progress {
        Progress {
            received: Seq(received),
            logged: Seq(logged),
            applied: Seq::NONE,
        }
    }

    #[test]
    fn nobody_acknowledges_what_it_was_not_sent() {
        let mut node = node(9);
        // It held records 5 and 6 from the session before.
        let mut s = Sender::new(LINK, Seq(5), Seq(6), None);
        let seven = Record {
            seq: Seq(7),
            ..Record::default()
        };
        s.record_sent(&seven, Told::default());
        assert!(s.acknowledged(&mut node, has(8, 7)).is_err());
        assert_eq!(node.positions.get(LINK).map(|l| l.logged), Some(Seq::NONE));
        assert!(s
            .acknowledged(&mut node, has(7, 7))
            .is_ok_and(|c| c.logged && c.releases));
        // An older one comes late.
        assert!(s
            .acknowledged(&mut node, has(5, 5))
            .is_ok_and(|c| !c.logged));
        assert_eq!(s.next_seq(), Seq(8));
    }

    #[test]
    fn a_copy_counts_once_it_was_sent_and_the_end_once_it_was_told() {
        let node = node(0);
        let volumes = [Volume {
            size: Sector(8),
            ..Volume::default()
        }];
        let copies = Copies::new(VolumeId(0), Sector(8), Sector(0));
        let mut s = Sender::new(LINK, Seq(1), Seq::NONE, Some(copies));
        s.set_credit(Seq(9), 1 << 20);
        assert_eq!(s.next(&node, volumes.iter()), Send::SyncStart);
        assert!(s.copies_durable(1).is_err());
        s.copy_begins();
        s.copy_read(Seq::NONE);
        s.copy_sent(4096);
        assert!(s.copies_durable(2).is_err());
        assert_eq!(
            s.copies_durable(1),
            Ok(Copied::Moved((VolumeId(0), Sector(8))))
        );
        // Where it ends is durable before the peer hears of it.
        assert_eq!(s.next(&node, volumes.iter()), Send::RecordEnd(Seq::NONE));
        assert!(s.copies_durable(2).is_err());
        s.end_recorded();
        let end = Send::SyncEnd {
            end: Seq::NONE,
            items: 1,
        };
        assert_eq!(s.next(&node, volumes.iter()), end);
        s.end_sent();
        assert_eq!(s.copies_durable(2), Ok(Copied::Over));
        assert_eq!(s.copies_durable(2), Ok(Copied::Nothing));
    }

    #[test]
    fn a_peer_learns_that_writers_wait_for_it() {
        let mut node = node(9);
        let mut s = Sender::new(LINK, Seq(10), Seq(9), None);
        node.positions.session(LINK, Seq(9), Seq(8), Seq(8));
        s.tells(&node);
        assert_eq!(s.next(&node, [].iter()), Send::Nothing);
        assert!(s
            .acknowledged(&mut node, has(9, 9))
            .is_ok_and(|c| c.in_sync && c.gates));
        assert_eq!(s.next(&node, [].iter()), Send::Told);
        assert_eq!(s.tells(&node).flags, FLAG_IN_SYNC | FLAG_STABLE);
        assert_eq!(s.next(&node, [].iter()), Send::Nothing);
    }

    #[test]
    fn a_record_without_credit_is_looked_at_once() {
        let record = |seq, sectors| Record {
            seq: Seq(seq),
            op: Op::Write,
            range: Range {
                sectors,
                ..Range::default()
            },
            ..Record::default()
        };
        let plan = |s: &Sender| s.plan(Seq(9), Told::default(), |_, _| false);
        let mut s = Sender::new(LinkId(0), Seq(5), Seq(4), None);
        s.set_credit(Seq(20), 4096);
        assert_eq!(plan(&s), Send::Record(Seq(5)));
        assert!(!s.fits(&record(5, 16)) && s.is_starved(Seq(9)));
        // However often it is woken, until the credit grows far enough.
        assert_eq!(plan(&s), Send::Nothing);
        s.set_credit(Seq(20), 8191);
        assert_eq!(plan(&s), Send::Nothing);
        s.set_credit(Seq(20), 8192);
        assert!(plan(&s) == Send::Record(Seq(5)) && !s.is_starved(Seq(9)));
        assert!(s.fits(&record(5, 16)));
        s.record_sent(&record(5, 16), Told::default());
        // What is next is another record: of its size nothing is known.
        assert!(!s.fits(&record(6, 8)));
        assert_eq!(plan(&s), Send::Nothing);
        s.resend(Seq(5), Seq(5));
        assert_eq!(plan(&s), Send::Record(Seq(5)));
    }

    #[test]
    fn only_small_records_that_nobody_waits_for_gather() {
        assert!(may_gather(Mode::Async, Seq(10), Seq(11), SMALL));
        // A writer waits, or will as soon as the link is level.
        for mode in [Mode::Received, Mode::Logged, Mode::Applied] {
            assert!(!may_gather(mode, Seq(10), Seq(11), SMALL));
        }
        // Enough has gathered, or it fills segments by itself.
        assert!(!may_gather(Mode::Async, Seq(10), Seq(138), SMALL));
        assert!(!may_gather(Mode::Async, Seq(10), Seq(11), Bytes(1 << 20)));
    }
}
