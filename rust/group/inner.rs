// SPDX-License-Identifier: GPL-2.0

//! What the group's order lock protects: the node, and the payloads and bios of its records.
//!
//! The order lock is a spinlock. It is taken in process context only (`map()`, the group's threads, the
//! links' threads), never in bio end_io, and nothing under it sleeps. It is the innermost lock.

use crate::{
    group::epochs::EpochTable,
    log_worker::batch::FreeBatch,
    memory::{Fixed, Node},
    volume::Volume,
};
use kernel::{prelude::*, sync::Arc};
pub(crate) use replicate_core::node::phase::Phase;
use replicate_core::{
    node::{
        durable::progress::{Note, Recorder},
        links::LinkId,
        volumes::State,
        Full, Role,
    },
    session::{
        receiver::{End, Fate, Item, Receiver},
        secondary::{Agreed, Begun, NotTaken},
        sender,
    },
    units::{Bytes, Op, Range, Record, Sector, Seq, VolumeId},
};
use replicate_linux::{
    clock,
    dm::{BioList, BioOp, MappedBio},
    errno::BlkStatus,
    event::Event,
    pages::SharedBuf,
};

/// Reads that may be overlaid at a time; more wait in their entry.
pub(crate) const MAX_PINS: usize = 64;
/// Volumes in a group at most.
pub(crate) const MAX_VOLUMES: usize = 256;

/// One attached volume and its bios that wait.
pub(crate) struct Attached {
    /// The volume.
    pub(crate) volume: Arc<Volume>,
    /// Writes and flushes without a seq, in order of arrival.
    pub(crate) deferred: BioList,
    /// Reads that wait for a pin, or for the volume to become active.
    pub(crate) reads: BioList,
}

impl Attached {
    /// A volume of which nothing waits.
    pub(crate) fn new(volume: Arc<Volume>) -> Attached {
        Attached {
            volume,
            deferred: BioList::new(),
            reads: BioList::new(),
        }
    }
}

/// A read that will be overlaid with what memory held when it was submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    /// What was on the data volume for certain.
    pub(crate) applied: Seq,
    /// Newest record that the read must see.
    pub(crate) head: Seq,
    /// What it reads.
    pub(crate) range: Range,
}

/// A link with a session.
pub(crate) struct SenderWaker {
    pub(crate) id: LinkId,
    /// Wakes its thread.
    pub(crate) wake: Arc<Event>,
    /// Newest record sent.
    pub(crate) sent: Seq,
    /// First record that it wants to find in memory.
    pub(crate) wants: Seq,
}

/// Flushes that wait for a commit point.
#[derive(Default)]
pub(crate) struct Flushes {
    pub(crate) bios: BioList,
    pub(crate) target: Seq,
}

/// See the module.
pub(crate) struct Inner {
    /// The core's machine.
    pub(crate) node: KBox<Node>,
    /// Which epoch a seq belongs to: the lineage, where the log worker can see it.
    pub(crate) epochs: EpochTable,
    /// Payload of each record in the window, by the window's index.
    pub(crate) payloads: Fixed<Option<SharedBuf>>,
    /// Bio of each record that is not completed, by the window's index.
    pub(crate) bios: Fixed<Option<MappedBio>>,
    /// Attached volumes.
    pub(crate) attached: KVec<Attached>,
    /// Device-mapper tables that name the group, those that are not active too.
    pub(crate) tables: u32,
    /// Flushes that wait for the commit point they found.
    pub(crate) flushes: Flushes,
    /// Flushes that came later: they wait for a later one.
    pub(crate) later: Flushes,
    /// Reads under way that will be overlaid.
    pub(crate) pins: Fixed<Option<Pin>>,
    /// Whether I/O flows.
    pub(crate) phase: Phase,
    /// Bytes admitted since the commit point last moved.
    pub(crate) uncommitted_bytes: u64,
    /// When the oldest uncommitted record was admitted (monotonic ns), 0: none.
    pub(crate) uncommitted_since: u64,
    /// Sessions of links: more may be sent, or told.
    pub(crate) senders: KVec<SenderWaker>,
    /// What links' slots are to say of their synchronisations, by the link's id.
    pub(crate) recorders: Fixed<Recorder>,
    /// Somebody wants ring space that only a checkpoint can give.
    pub(crate) wants_space: bool,
    /// Since when small records gather for an asynchronous link (monotonic ns), 0: none do.
    pub(crate) gathering_since: u64,
    /// Log writes that are not in use.
    pub(crate) free_batches: KVec<FreeBatch>,
    /// A log write that could not be built, for the log worker to say: its records, and why.
    pub(crate) unbuilt: Option<(Seq, Seq, Error)>,
}

/// What became of a bio handed to the group.
pub(crate) enum Taken {
    /// It has a place in the order: start what may be logged, or wake the log worker.
    Admitted,
    /// End it with this status, outside the lock.
    End(MappedBio, BlkStatus),
    /// Not now: park it.
    NotNow(MappedBio),
}

impl Inner {
    /// The notes of a link. `None`: no such id.
    pub(crate) fn recorder(&mut self, id: LinkId) -> Option<&mut Recorder> {
        self.recorders.as_mut().get_mut(usize::from(id.0))
    }

    /// A note that is to be written, of the first link from that slot on. A group that failed writes none: its superblock is in doubt.
    pub(crate) fn next_note(&self, from: usize) -> Option<(LinkId, Note)> {
        if self.phase == Phase::Failed {
            return None;
        }
        let recorders = (0..).zip(self.recorders.as_ref());
        recorders
            .skip(from)
            .find_map(|(id, r)| Some((LinkId(id), r.waits()?)))
    }

    /// A log write may be used again.
    pub(crate) fn free_batch(&mut self, free: FreeBatch) {
        // Cannot fail: the vector was made for all of them.
        let _ = self.free_batches.push(free, GFP_NOWAIT);
    }

    /// Puts a write or flush on its volume's list, at the front where `first`. What cannot wait comes back with the
    /// status to end it with, without the lock.
    ///
    /// While a noflush suspend is under way, what would have to wait goes back to device-mapper. Not only what waits
    /// when it begins ([`Group::requeue`](crate::group::Group::requeue)): `map()` goes on for a while, and the log
    /// worker may hold a bio that finds no room. Device-mapper says that a suspend is under way before it asks for
    /// what waits, and both look under the order lock: no bio is left between the two.
    pub(crate) fn defer(
        &mut self,
        volume: &Volume,
        bio: MappedBio,
        first: bool,
    ) -> Result<(), (MappedBio, BlkStatus)> {
        match self.entry(volume) {
            Some(_) if bio.is_wanted_back() => Err((bio, BlkStatus::DM_REQUEUE)),
            Some(entry) if first => {
                entry.deferred.push_front(bio);
                Ok(())
            }
            Some(entry) => {
                entry.deferred.push(bio);
                Ok(())
            }
            None => Err((bio, BlkStatus::IOERR)),
        }
    }

    /// Bios that wait: those without a seq, and reads without a pin.
    pub(crate) fn deferred(&self) -> usize {
        self.attached
            .iter()
            .map(|l| l.deferred.len().saturating_add(l.reads.len()))
            .fold(0, usize::saturating_add)
    }

    /// The entry of a volume.
    pub(crate) fn entry(&mut self, volume: &Volume) -> Option<&mut Attached> {
        self.attached
            .iter_mut()
            .find(|l| core::ptr::eq::<Volume>(&*l.volume, volume))
    }

    /// The attached volume with that id.
    pub(crate) fn volume(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.attached
            .iter()
            .find(|l| l.volume.id() == Some(id))
            .map(|l| l.volume.clone())
    }

    /// Shows the volumes' states to those who look without the lock. After each of the node's events that may change one.
    pub(crate) fn show_states(&self) {
        for entry in self.attached.iter() {
            if let Some(id) = entry.volume.id() {
                entry.volume.set_state(self.node.volumes.state(id));
            }
        }
    }

    /// Whether writes of `volume` may be admitted now.
    pub(crate) fn is_open(&self, volume: &Volume) -> bool {
        self.phase == Phase::Active && volume.id().is_some_and(|id| self.node.is_open(id))
    }

    /// Gives a write, discard or write-zeroes its place in the order.
    pub(crate) fn admit(
        &mut self,
        volume: &Volume,
        bio: MappedBio,
        payload: Option<(SharedBuf, u32)>,
    ) -> Taken {
        if volume.state() == State::Failed
            || self.phase == Phase::Failed
            || self.phase == Phase::Gone
        {
            return Taken::End(bio, BlkStatus::IOERR);
        }
        let Some(id) = volume.id().filter(|_| self.is_open(volume)) else {
            return Taken::NotNow(bio);
        };
        let op = match bio.op() {
            BioOp::Write => Op::Write,
            BioOp::Discard if volume.discard_zero => Op::WriteZeroes,
            BioOp::Discard => Op::Discard,
            BioOp::WriteZeroes => Op::WriteZeroes,
            BioOp::Read | BioOp::Flush | BioOp::Other => {
                return Taken::End(bio, BlkStatus::NOTSUPP)
            }
        };
        let range = Range {
            volume: id,
            sector: Sector(bio.sector()),
            sectors: bio.sectors(),
        };
        if !range.in_one_extent() || range.end() > volume.size {
            return Taken::End(bio, BlkStatus::IOERR);
        }
        let (payload, crc) = match payload {
            Some((p, crc)) => (Some(p), crc),
            None => (None, 0),
        };
        let admitted = self.node.admit(
            op,
            range,
            bio.is_fua(),
            bio.is_no_unmap(),
            crc,
            clock::wall_ns(),
        );
        match admitted {
            Ok(seq) => {
                let i = self.node.window.index(seq);
                if let Some(p) = self.payloads.as_mut().get_mut(i) {
                    *p = payload;
                }
                if let Some(b) = self.bios.as_mut().get_mut(i) {
                    *b = Some(bio);
                }
                self.uncommitted(range.bytes());
                self.wake_senders(seq, range.bytes());
                Taken::Admitted
            }
            Err(Full::Ring) => {
                self.wants_space = true;
                Taken::NotNow(bio)
            }
            Err(Full::Window | Full::Role) => Taken::NotNow(bio),
            Err(Full::Failed) => Taken::End(bio, BlkStatus::IOERR),
        }
    }

    /// Wakes every link's sender. Does not sleep.
    pub(crate) fn wake_links(&self) {
        for sender in self.senders.iter() {
            sender.wake.notify();
        }
    }

    /// A record waits to be sent: wakes the senders that should not wait for more. Does not sleep.
    fn wake_senders(&mut self, head: Seq, bytes: Bytes) {
        // A secondary's sessions send acknowledgements: those do not wait.
        let primary = self.node.role() == Role::Primary;
        for sender in self.senders.iter() {
            let position = self.node.positions.get(sender.id).filter(|_| primary);
            let gathers =
                position.is_some_and(|p| sender::may_gather(p.mode, sender.sent, head, bytes));
            if !gathers {
                sender.wake.notify();
            } else if self.gathering_since == 0 {
                self.gathering_since = clock::monotonic_ns();
            }
        }
    }

    /// The commit point moved: who waits for it learns at once, asynchronous links with what gathers. Does not
    /// sleep.
    pub(crate) fn commit_moved(&mut self) {
        let (head, nothing) = (self.node.head(), Bytes(0));
        self.wake_senders(head, nothing);
    }

    /// Wakes the senders if what gathers has waited for `interval_ns`. The log worker asks after each log write, so
    /// it knows of everything that waits.
    pub(crate) fn send_gathered(&mut self, interval_ns: u64) {
        let since = self.gathering_since;
        if since != 0 && clock::monotonic_ns().saturating_sub(since) >= interval_ns {
            self.gathering_since = 0;
            self.wake_links();
        }
    }

    /// More waits for the commit point.
    fn uncommitted(&mut self, bytes: Bytes) {
        if self.uncommitted_since == 0 {
            self.uncommitted_since = clock::monotonic_ns();
        }
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_add(bytes.0);
    }

    /// A flush: ends at once where nothing completed is uncommitted, else waits for the log flush.
    pub(crate) fn flush(&mut self, bio: MappedBio) -> Taken {
        let target = self.node.flush_target();
        if self.node.log_failed() {
            return Taken::End(bio, BlkStatus::IOERR);
        }
        if self.node.flush_ready(target) {
            return Taken::End(bio, BlkStatus::OK);
        }
        let to = if self.flushes.bios.is_empty() {
            &mut self.flushes
        } else {
            &mut self.later
        };
        to.target = to.target.max(target);
        to.bios.push(bio);
        Taken::Admitted
    }

    /// Flushes whose commit point has come.
    pub(crate) fn ready_flushes(&mut self, out: &mut BioList) {
        while !self.flushes.bios.is_empty() && self.node.flush_ready(self.flushes.target) {
            out.append(&mut self.flushes.bios);
            core::mem::swap(&mut self.flushes, &mut self.later);
            self.later.target = Seq::NONE;
        }
    }

    /// Takes the bio of `seq`, to end it.
    pub(crate) fn take_bio(&mut self, seq: Seq) -> Option<MappedBio> {
        let i = self.node.window.index(seq);
        self.bios.as_mut().get_mut(i)?.take()
    }

    /// The payload of `seq`, which must be in the window.
    pub(crate) fn payload(&self, seq: Seq) -> Option<SharedBuf> {
        let i = self.node.window.index(seq);
        self.payloads.as_ref().get(i)?.clone()
    }

    /// A record with its payload, if both are in memory.
    pub(crate) fn held(&self, seq: Seq) -> Option<(Record, Option<SharedBuf>)> {
        let record = self.node.window.get(seq)?.record;
        let payload = self.payload(seq);
        if payload.is_none() && record.payload_bytes() > 0 {
            return None;
        }
        Some((record, payload))
    }

    /// Keeps the payload of a record that arrived from a peer or was read back.
    pub(crate) fn keep(&mut self, seq: Seq, payload: Option<SharedBuf>) {
        let i = self.node.window.index(seq);
        if let Some(p) = self.payloads.as_mut().get_mut(i) {
            *p = payload;
        }
    }

    /// Takes what came in the session of `receiver`. `payload`: of a record; those of region copies are kept elsewhere.
    pub(crate) fn take(
        &mut self,
        receiver: &mut Receiver,
        item: &Item,
        payload: Option<SharedBuf>,
    ) -> Result<Fate, End> {
        let fate = receiver.take(&mut self.node, &self.epochs, item)?;
        if let (Fate::Held, Item::Record(r, _)) = (fate, item) {
            self.keep(r.seq, payload);
            self.uncommitted(Bytes(u64::from(r.payload_bytes())));
        }
        Ok(fate)
    }

    /// Drops from memory what nobody needs there, as many records as `out` has room for, which takes their payloads:
    /// they are freed without the lock. `keep_from`: lowest seq that senders still want. `short`: memory is. `true`: there
    /// may be more.
    pub(crate) fn retire(
        &mut self,
        keep_from: Seq,
        short: bool,
        out: &mut KVec<SharedBuf>,
    ) -> bool {
        let pinned = self
            .pins
            .as_ref()
            .iter()
            .flatten()
            .map(|p| p.applied.next())
            .min()
            .unwrap_or(Seq(u64::MAX));
        let from = self.node.window.base();
        let room = (out.capacity() - out.len()) as u64;
        let end = from.plus(1 + room);
        let to = self.node.retire(keep_from.min(pinned).min(end), short);
        let mut seq = from.next();
        while seq <= to {
            let i = self.node.window.index(seq);
            if let Some(payload) = self.payloads.as_mut().get_mut(i).and_then(Option::take) {
                // Cannot fail: no more were retired than there is room for.
                let _ = out.push_within_capacity(payload);
            }
            seq = seq.next();
        }
        to.next() == end
    }

    /// The superblock says so: memory follows the welcome, and its session begins. What goes takes its payloads along.
    /// `table`: the epochs from now on, where they are others.
    pub(crate) fn begin(
        &mut self,
        agreed: Agreed,
        table: Option<EpochTable>,
    ) -> Result<Begun, NotTaken> {
        if let Some(table) = table {
            self.epochs = table;
        }
        let begun = agreed.begin(&mut self.node);
        self.show_states();
        self.forget_orphaned();
        begun
    }

    /// First step of a takeover: what arrived early goes, with its payloads. Returns the last record that stays.
    pub(crate) fn takeover_begin(&mut self) -> Seq {
        let end = self.node.takeover_begin();
        self.forget_orphaned();
        end
    }

    /// Drops payloads of records that the window no longer holds (after a truncation or a restart).
    pub(crate) fn forget_orphaned(&mut self) {
        let base = self.node.window.base();
        let n = self.node.window.capacity();
        let mut seq = base.next();
        for _ in 0..n {
            if !self.node.window.holds(seq) {
                self.keep(seq, None);
            }
            seq = seq.next();
        }
    }

    /// Whether a read of `range` must see something that the data volume may not hold yet.
    pub(crate) fn must_overlay(&self, range: &Range) -> bool {
        let applied = self.node.applier.applied();
        self.node
            .window
            .newest_overlap(range, applied, self.node.head())
            .is_some()
    }

    /// Registers a read that will be overlaid; its number, or `None` when too many are under way.
    pub(crate) fn pin(&mut self, range: Range) -> Option<usize> {
        let pin = Pin {
            applied: self.node.applier.applied(),
            head: self.node.head(),
            range,
        };
        let pins = self.pins.as_mut();
        let i = pins.iter().position(Option::is_none)?;
        if let Some(p) = pins.get_mut(i) {
            *p = Some(pin);
        }
        Some(i)
    }

    /// The oldest record after `after` that the pinned read must see over what it read.
    pub(crate) fn next_overlay(
        &self,
        pin: &Pin,
        after: Seq,
    ) -> Option<(Record, Option<SharedBuf>)> {
        let window = &self.node.window;
        let seq = window.oldest_visible(&pin.range, pin.applied.max(after), pin.head)?;
        let record = window.get(seq)?.record;
        Some((record, self.payload(seq)))
    }

    /// Ends everything that has no seq, and where `with_seq` everything that has one too.
    pub(crate) fn drain(&mut self, with_seq: bool, out: &mut BioList) {
        for entry in self.attached.iter_mut() {
            out.append(&mut entry.deferred);
            out.append(&mut entry.reads);
        }
        if with_seq {
            for b in self.bios.as_mut() {
                if let Some(b) = b.take() {
                    out.push(b);
                }
            }
            out.append(&mut self.flushes.bios);
            out.append(&mut self.later.bios);
        }
    }
}
