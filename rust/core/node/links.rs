// SPDX-License-Identifier: GPL-2.0

//! Where each link is, as far as the log and the application's writes are concerned.
//!
//! Two phases: the network ack releases writers, only the data ack (or a durable `needs-sync`) frees log
//! space. A data ack above the commit point neither frees nor persists: after a crash the primary would
//! not know the record it claims.

use super::Store;
use crate::{group::Mode, units::Seq};

/// Links in a group at most.
pub const MAX_LINKS: usize = 32;

/// Number of a link within its group on this host: its slot in the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u8);

/// One link's positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// What completes writes while in-sync.
    pub mode: Mode,
    /// Held in the peer's memory, this session.
    pub received: Seq,
    /// On the peer's stable storage, this session.
    pub logged: Seq,
    /// On the peer's volumes, this session.
    pub applied: Seq,
    /// On the peer's stable storage and below our commit point, ever: what the log must keep is above it.
    pub kept: Seq,
    /// Everything that completed is there, at the level of the mode, and writers wait for this link.
    pub in_sync: bool,
    /// Writers wait for it already, so that it can become in-sync while they go on: it is once it has
    /// everything up to here.
    pub closing: Option<Seq>,
    /// The log does not hold what this link needs; it pins nothing.
    pub needs_sync: bool,
    /// A synchronisation runs: the replica is inconsistent, so the link is not in-sync however level it is.
    pub syncing: bool,
    /// A session stands: the peer answers, or it times out.
    pub live: bool,
    /// Writers wait for it again only from this acknowledgement of the mode on: its last session ended because it stood
    /// still below.
    pub gate_from: Seq,
    /// What was written while a synchronisation ran in this session, and is still to be made up for, ends here.
    pub owed: Seq,
    /// In a handshake: the peer is being promised everything above this, which the log keeps beside what it kept before.
    /// Nothing of what the link had is given up before the peer has taken the promise and the superblock says so.
    pub promised: Option<Seq>,
}

/// All links' positions, in storage of at most [`MAX_LINKS`] slots: several KiB, which the module keeps off its stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Positions<S = [Option<Position>; MAX_LINKS]> {
    links: S,
}

impl Default for Positions {
    fn default() -> Self {
        Positions {
            links: [None; MAX_LINKS],
        }
    }
}

impl<S: Store<Option<Position>>> Positions<S> {
    /// No link is there yet. `links`: a slot for each that may come, all of them `None`.
    pub fn new(links: S) -> Self {
        Positions { links }
    }

    /// The link, if it is there.
    pub fn get(&self, id: LinkId) -> Option<&Position> {
        self.links.as_ref().get(usize::from(id.0))?.as_ref()
    }

    /// Every link.
    pub fn iter(&self) -> impl Iterator<Item = (LinkId, &Position)> {
        (0u8..)
            .zip(self.links.as_ref())
            .filter_map(|(i, l)| l.as_ref().map(|l| (LinkId(i), l)))
    }

    /// Adds or replaces a link; `kept`: its durable position, or `None` where it needs a sync first.
    pub fn set(&mut self, id: LinkId, mode: Mode, kept: Option<Seq>) {
        if let Some(l) = self.links.as_mut().get_mut(usize::from(id.0)) {
            *l = Some(Position {
                mode,
                received: Seq::NONE,
                logged: Seq::NONE,
                applied: Seq::NONE,
                kept: kept.unwrap_or(Seq::NONE),
                in_sync: false,
                closing: None,
                needs_sync: kept.is_none(),
                syncing: false,
                live: false,
                gate_from: Seq::NONE,
                owed: Seq::NONE,
                promised: None,
            });
        }
    }

    /// Removes a link: it pins and gates nothing any more.
    pub fn remove(&mut self, id: LinkId) {
        if let Some(l) = self.links.as_mut().get_mut(usize::from(id.0)) {
            *l = None;
        }
    }

    fn get_mut(&mut self, id: LinkId) -> Option<&mut Position> {
        self.links.as_mut().get_mut(usize::from(id.0))?.as_mut()
    }

    /// Changes the mode. Leaving in-sync is the caller's event to send first.
    pub fn set_mode(&mut self, id: LinkId, mode: Mode) {
        if let Some(l) = self.get_mut(id) {
            l.mode = mode;
            l.gate_from = Seq::NONE;
            l.in_sync = false;
            l.closing = None;
        }
    }

    /// A session began: acknowledgements start from what its handshake stated, they may go down.
    pub fn session(&mut self, id: LinkId, received: Seq, logged: Seq, applied: Seq) {
        if let Some(l) = self.get_mut(id) {
            (l.received, l.logged, l.applied) = (received, logged, applied);
            l.in_sync = false;
            l.closing = None;
            l.live = true;
        }
    }

    /// The session ended; writers no longer wait for the link. Returns whether it was in-sync: then an
    /// event must be sent *before* the next release.
    pub fn disconnected(&mut self, id: LinkId) -> bool {
        match self.get_mut(id) {
            Some(l) => {
                (l.live, l.owed) = (false, Seq::NONE);
                l.promised = None;
                l.closing = None;
                core::mem::replace(&mut l.in_sync, false)
            }
            None => false,
        }
    }

    /// The peer owes something and has stood still for too long: its session is about to end. Else the next session
    /// would find it as near as before, and writers would wait for it again, for as long again.
    pub fn stalled(&mut self, id: LinkId) {
        if let Some(l) = self.get_mut(id) {
            l.gate_from = l.level().next();
        }
    }

    /// An acknowledgement of this session. Follow it with [`Self::catch_up`].
    pub fn acknowledged(
        &mut self,
        id: LinkId,
        (received, logged, applied): (Seq, Seq, Seq),
        head: Seq,
        commit: Seq,
    ) {
        let Some(l) = self.get_mut(id) else {
            return;
        };
        // Nobody can hold what has no seq yet.
        l.received = l.received.max(received.min(head));
        l.logged = l.logged.max(logged.min(head));
        l.applied = l.applied.max(applied.min(head));
        l.kept = l.settled(commit);
        if l.syncing {
            l.owed = head;
        } else if l.kept >= l.owed {
            l.owed = Seq::NONE;
        }
    }

    /// Brings a link in-sync, or on the way to it. `true`: it became in-sync. `near`: it lacks little.
    ///
    /// Under a load that does not pause no acknowledgement ever finds a peer level with the head: it is always a
    /// round trip behind. So a link that is near makes writers wait first. What completed before that is
    /// at most today's head; once the peer has that, it has everything that ever completed (P2).
    pub fn catch_up(&mut self, id: LinkId, head: Seq, near: bool) -> bool {
        let Some(l) = self.get_mut(id) else {
            return false;
        };
        if l.in_sync || l.mode == Mode::Async || l.needs_sync || l.syncing {
            return false;
        }
        if l.level() < l.gate_from && l.level() < head {
            return false;
        }
        l.gate_from = Seq::NONE;
        if l.level() >= l.closing.unwrap_or(head) {
            l.in_sync = true;
            l.closing = None;
        } else if near && l.closing.is_none() {
            l.closing = Some(head);
        }
        l.in_sync
    }

    /// The log no longer keeps anything for this link (durable with the next superblock).
    pub fn set_needs_sync(&mut self, id: LinkId) {
        if let Some(l) = self.get_mut(id) {
            l.needs_sync = true;
            l.promised = None;
            l.syncing = false;
            l.in_sync = false;
            l.closing = None;
        }
    }

    /// A peer is about to be welcomed: the log keeps everything above `from` for it, and all that it kept before. Undone by
    /// [`Self::disconnected`].
    ///
    /// Trace without the second half: a link at record 3 is to be synchronised from record 9; a checkpoint frees 4 to 9; the peer
    /// never gets the welcome, and the primary crashes: it could have gone on from 3.
    pub fn promise(&mut self, id: LinkId, from: Seq) {
        if let Some(l) = self.get_mut(id) {
            l.promised = Some(from);
        }
    }

    /// The peer took the welcome, and the superblock says what follows from it (`syncing`: a synchronisation runs): the log
    /// keeps what was promised, and no more. `false`: the link was given up meanwhile, the session must end.
    #[must_use]
    pub fn keep_promise(&mut self, id: LinkId, syncing: bool) -> bool {
        match self.get(id).and_then(|l| l.promised) {
            Some(from) => {
                self.synced_from(id, from, syncing);
                true
            }
            None => false,
        }
    }

    /// A sync began (`syncing`), or equality was declared: the log keeps everything above `from`.
    fn synced_from(&mut self, id: LinkId, from: Seq, syncing: bool) {
        if let Some(l) = self.get_mut(id) {
            l.needs_sync = false;
            l.promised = None;
            l.syncing = syncing;
            l.in_sync = false;
            l.closing = None;
            l.kept = from;
            (l.received, l.logged, l.applied) = (from, from, from);
        }
    }

    /// The peer reported the sync ended: it is consistent. The next acknowledgement may bring it in-sync.
    pub fn sync_ended(&mut self, id: LinkId) {
        if let Some(l) = self.get_mut(id) {
            l.syncing = false;
        }
    }

    /// The commit point reached `commit`: takes up data acks that were above it when they came.
    pub fn settle(&mut self, commit: Seq) {
        for l in self.links.as_mut().iter_mut().flatten() {
            l.kept = l.settled(commit);
        }
    }

    /// After a crash nothing above `head` was ever told to anybody by this history.
    pub fn cut(&mut self, head: Seq) {
        for l in self.links.as_mut().iter_mut().flatten() {
            l.kept = l.kept.min(head);
        }
    }

    /// How far writes may complete as far as links that they wait for are concerned.
    pub fn sync_limit(&self) -> Seq {
        self.links
            .as_ref()
            .iter()
            .flatten()
            .filter(|l| l.gates())
            .map(Position::level)
            .min()
            .unwrap_or(Seq(u64::MAX))
    }

    /// What the log must keep starts above this.
    pub fn tail_limit(&self, commit: Seq) -> Seq {
        self.links
            .as_ref()
            .iter()
            .flatten()
            .filter_map(|l| l.pinned(l.settled(commit)))
            .map(|seq| seq.min(commit))
            .min()
            .unwrap_or(commit)
    }

    /// The link that pins the tail: the one to give up when the log is full.
    pub fn most_behind(&self) -> Option<LinkId> {
        self.iter()
            .filter_map(|(id, l)| Some((id, l.pinned(l.kept)?)))
            .min_by_key(|(_, seq)| *seq)
            .map(|(id, _)| id)
    }
}

impl Position {
    /// The data ack as far as this host cannot lose what it acknowledges.
    fn settled(&self, commit: Seq) -> Seq {
        let data = self.logged;
        self.kept.max(data.min(commit))
    }

    /// Returns above which seq the log is kept for the link, when its data ack is `kept`; `None`: it pins nothing.
    pub fn pinned(&self, kept: Seq) -> Option<Seq> {
        let kept = (!self.needs_sync).then_some(kept);
        match (kept, self.promised) {
            (Some(k), Some(p)) => Some(k.min(p)),
            (k, p) => k.or(p),
        }
    }

    /// Whether the log may be taken from it when it is full. Not while writers wait for it anyway, and not in
    /// a synchronisation that goes on, until what was written meanwhile is made up for: that would begin
    /// again, and be overtaken again. Both end with the session.
    pub fn may_be_given_up(&self) -> bool {
        let paces = self.live && (self.syncing || self.owed > self.kept);
        self.pinned(self.kept).is_some() && !(self.gates() || paces)
    }

    /// Writers wait for this link.
    pub fn gates(&self) -> bool {
        self.in_sync || self.closing.is_some()
    }

    /// The acknowledgement that this link's mode waits for.
    pub fn level(&self) -> Seq {
        match self.mode {
            Mode::Async => Seq(u64::MAX),
            Mode::Received => self.received,
            Mode::Logged => self.logged,
            Mode::Applied => self.applied,
        }
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_position))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn a_link_becomes_in_sync_under_a_load_that_never_pauses() {
        let id = LinkId(0);
        let mut p = Positions::default();
        p.set(id, Mode::Received, Some(Seq(0)));
        p.session(id, Seq(0), Seq(0), Seq(0));
        let mut ack = |to, head, near| {
            p.acknowledged(id, (Seq(to), Seq(0), Seq(0)), Seq(head), Seq(0));
            (p.catch_up(id, Seq(head), near), p.sync_limit())
        };
        // Far behind: nobody waits.
        assert_eq!(ack(10, 9000, false), (false, Seq(u64::MAX)));
        // Near: writers wait from here on, and what was there then is still to come.
        assert_eq!(ack(8990, 9010, true), (false, Seq(8990)));
        assert_eq!(ack(9009, 9030, true), (false, Seq(9009)));
        assert_eq!(ack(9010, 9040, true), (true, Seq(9010)));
        assert_eq!(ack(9020, 9050, true), (false, Seq(9020)));
        assert!(p.disconnected(id));
        assert_eq!(p.sync_limit(), Seq(u64::MAX));
    }

    #[test]
    fn a_promise_frees_nothing_before_it_is_kept() {
        let id = LinkId(0);
        let mut p = Positions::default();
        p.set(id, Mode::Async, Some(Seq(3)));
        p.promise(id, Seq(9));
        assert_eq!(p.tail_limit(Seq(20)), Seq(3));
        // The peer never took it: it may go on from where it was.
        p.disconnected(id);
        assert_eq!(p.tail_limit(Seq(20)), Seq(3));
        assert!(!p.keep_promise(id, true));
        p.promise(id, Seq(9));
        assert!(p.keep_promise(id, true));
        assert_eq!(p.tail_limit(Seq(20)), Seq(9));
        // A link that has nothing has what it is promised, until the log is full.
        p.set(id, Mode::Async, None);
        assert_eq!(p.tail_limit(Seq(20)), Seq(20));
        p.promise(id, Seq(9));
        assert_eq!(p.tail_limit(Seq(20)), Seq(9));
        assert_eq!(p.most_behind(), Some(id));
        assert_eq!(p.get(id).map(Position::may_be_given_up), Some(true));
        p.set_needs_sync(id);
        assert_eq!(p.tail_limit(Seq(20)), Seq(20));
        assert!(!p.keep_promise(id, true));
    }

    #[test]
    fn writers_do_not_wait_again_for_a_peer_that_stood_still() {
        let id = LinkId(0);
        let mut p = Positions::default();
        p.set(id, Mode::Logged, Some(Seq(0)));
        let session = |p: &mut Positions, to| {
            p.session(id, Seq(5), Seq(5), Seq(5));
            p.acknowledged(id, (Seq(to), Seq(to), Seq(5)), Seq(9), Seq(9));
            p.catch_up(id, Seq(9), true);
            p.get(id).is_some_and(Position::gates)
        };
        assert!(session(&mut p, 8));
        p.stalled(id);
        p.disconnected(id);
        // As near as before, and stuck as before.
        assert!(!session(&mut p, 8));
        p.disconnected(id);
        assert!(!session(&mut p, 7));
        // It moves.
        p.disconnected(id);
        assert!(session(&mut p, 9));
        assert!(p
            .get(id)
            .is_some_and(|l| l.in_sync && l.gate_from == Seq::NONE));
    }

    #[test]
    fn a_full_log_paces_writers_for_a_sync_that_goes_on() {
        let id = LinkId(0);
        let may = |p: &Positions| p.get(id).map(Position::may_be_given_up);
        let mut p = Positions::default();
        p.set(id, Mode::Async, None);
        assert_eq!(may(&p), Some(false));
        p.promise(id, Seq(3));
        assert!(p.keep_promise(id, true));
        p.session(id, Seq(3), Seq(3), Seq(3));
        assert_eq!(may(&p), Some(false));
        // The peer is gone: it may not hold the log for ever.
        p.disconnected(id);
        assert_eq!(may(&p), Some(true));
        p.session(id, Seq(3), Seq(3), Seq(3));
        let ack = |p: &mut Positions, to, head| {
            p.acknowledged(id, (Seq(to), Seq(to), Seq(to)), Seq(head), Seq(head));
        };
        ack(&mut p, 4, 9);
        p.sync_ended(id);
        assert_eq!(may(&p), Some(false));
        // What came while it ran is made up for; what comes later is as for any link.
        ack(&mut p, 8, 20);
        assert_eq!(may(&p), Some(false));
        ack(&mut p, 9, 20);
        assert_eq!(may(&p), Some(true));
    }
}
