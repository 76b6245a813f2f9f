// SPDX-License-Identifier: GPL-2.0

//! What a primary sends next on a link.
//!
//! Records go out as soon as they have a seq, beside the log write: the peer does not apply them before
//! the commit point, which travels in every header, and alone where nothing else is queued to carry it.
//! Records need credit; control messages need none, so that the commit point, without which the peer
//! cannot apply and so cannot give credit, always gets through.

use super::resync::{Copies, CopyItem};
use crate::{
    group::Mode,
    units::{Bytes, Record, Seq},
};

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Send {
    /// This record; from memory or read back from the log.
    Record(Seq),
    /// Read this region from the data volume now, then call [`Sender::copy_read`].
    ReadCopy(CopyItem),
    /// This region copy, which was read.
    Copy(CopyItem),
    /// All regions were copied: the peer is consistent once it applied up to `end`.
    SyncEnd {
        /// The commit point when the last copy was read.
        end: Seq,
        /// Number of copies.
        items: u64,
    },
    /// The commit point, alone.
    Commit,
    /// Nothing now.
    Nothing,
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

/// Sending side of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    next: Seq,
    /// Highest record that was ever sent in this session; `next` goes back when one is asked for again.
    sent: Seq,
    credit_seq: Seq,
    credit_bytes: u64,
    sent_bytes: u64,
    told_commit: Seq,
    /// The next record has so many payload bytes, and does not fit the peer's window; 0: it is not known not to.
    starved: u64,
    /// The initial synchronisation under way, if any.
    pub copies: Option<Copies>,
}

impl Sender {
    /// A session that begins with record `resume`.
    pub fn new(resume: Seq, copies: Option<Copies>) -> Self {
        Sender {
            next: resume,
            sent: resume.prev(),
            credit_seq: resume.prev(),
            credit_bytes: 0,
            sent_bytes: 0,
            told_commit: Seq::NONE,
            starved: 0,
            copies,
        }
    }

    /// First record that was not sent in this session.
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// The peer's window: absolute, never shrinks.
    pub fn set_credit(&mut self, seq: Seq, bytes: u64) {
        self.credit_seq = self.credit_seq.max(seq);
        self.credit_bytes = self.credit_bytes.max(bytes);
    }

    /// Payload bytes sent in this session.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// What to send. `head`: newest record; `lacks(item, last)`: whether the data volume lacks a record up to `last`
    /// that overlaps the region, see [`Node::volume_lacks`](crate::node::Node::volume_lacks).
    pub fn plan(&self, head: Seq, commit: Seq, lacks: impl FnOnce(&CopyItem, Seq) -> bool) -> Send {
        let last = self.sent;
        if let Some(c) = &self.copies {
            if let Some(item) = c.read() {
                return Send::Copy(item);
            }
            // While a region is read nothing overtakes it (R2).
            if c.reading().is_some() {
                return self.commit_only(commit);
            }
            if let Some(item) = c.wanted(last) {
                if self.has_credit(item.range.bytes().0) {
                    // What was sent must be on the volume before the region is read from it (R1).
                    if lacks(&item, last) {
                        return self.commit_only(commit);
                    }
                    return Send::ReadCopy(item);
                }
            } else if let Some((end, items)) = c.end() {
                return Send::SyncEnd { end, items };
            }
        }
        // One that did not fit is not even looked at before it does: it may have to be read from the log each time.
        if self.next <= head && self.next <= self.credit_seq && self.has_credit(self.starved) {
            return Send::Record(self.next);
        }
        self.commit_only(commit)
    }

    fn commit_only(&self, commit: Seq) -> Send {
        if self.owes_commit(commit) {
            Send::Commit
        } else {
            Send::Nothing
        }
    }

    /// Whether the peer has not been told of this commit point yet.
    pub fn owes_commit(&self, commit: Seq) -> bool {
        commit > self.told_commit
    }

    fn has_credit(&self, bytes: u64) -> bool {
        self.sent_bytes.saturating_add(bytes) <= self.credit_bytes
    }

    /// Whether `record`, the next one, fits the peer's window.
    pub fn fits(&mut self, record: &Record) -> bool {
        let bytes = u64::from(record.payload_bytes());
        let fits = record.seq <= self.credit_seq && self.has_credit(bytes);
        self.starved = if fits { 0 } else { bytes };
        fits
    }

    /// Whether the next record, where there is one up to `head`, waits for the peer's credit.
    pub fn is_starved(&self, head: Seq) -> bool {
        self.next <= head && (self.next > self.credit_seq || !self.has_credit(self.starved))
    }

    /// Newest record that was sent in this session, or that the peer said it has.
    pub fn sent(&self) -> Seq {
        self.sent
    }

    /// That record was sent, with `commit` in its header.
    pub fn record_sent(&mut self, record: &Record, commit: Seq) {
        self.next_is(record.seq.next());
        self.sent = self.sent.max(record.seq);
        self.sent_bytes = self
            .sent_bytes
            .saturating_add(u64::from(record.payload_bytes()));
        self.told_commit = commit;
    }

    /// The peer holds everything up to `received` (its Ready, and every ack): that is not sent (again).
    ///
    /// More than saving: what it holds from the session before counts as sent. It may log it and free our log
    /// space above what the handshake said to send; and a region copy that it takes for older than a record
    /// which it already has would be placed before that record, while its content is older still (R2).
    pub fn acknowledged(&mut self, received: Seq) {
        self.next_is(self.next.max(received.next()));
        self.sent = self.sent.max(received);
    }

    /// A message carried `commit`.
    pub fn commit_told(&mut self, commit: Seq) {
        self.told_commit = commit;
    }

    /// Reading of the wanted region starts.
    pub fn copy_begins(&mut self) {
        let last = self.sent;
        if let Some(c) = &mut self.copies {
            c.begin(last);
        }
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

    /// The end of the sync was told.
    pub fn end_sent(&mut self) {
        if let Some(c) = &mut self.copies {
            c.end_sent();
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
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_sender))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::units::{Op, Range};

    const SMALL: Bytes = Bytes(4096);

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
        let plan = |s: &Sender| s.plan(Seq(9), Seq::NONE, |_, _| false);
        let mut s = Sender::new(Seq(5), None);
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
        s.record_sent(&record(5, 16), Seq::NONE);
        // What is next is another record: of its size nothing is known.
        assert!(!s.fits(&record(6, 8)));
        assert_eq!(plan(&s), Send::Nothing);
        s.acknowledged(Seq(6));
        assert_eq!(plan(&s), Send::Record(Seq(7)));
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
