// SPDX-License-Identifier: GPL-2.0

//! What can happen, one step at a time.

use std::fmt;

use replicate_core::units::VolumeId;

use crate::world::P;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ev {
    App,
    Batch(usize),
    BatchDone(usize, usize),
    LogFlush(usize),
    LogFlushed(usize),
    Apply(usize),
    RoundDone(usize, bool),
    CheckpointFlush(usize),
    CheckpointFlushed(usize),
    SuperblockDone(usize),
    /// No copy of a superblock can be written; `true`: a start finds it all the same.
    SuperblockFails(usize, bool),
    /// A log write fails; its parts may be there.
    BatchFails(usize, usize),
    /// A log flush fails.
    LogFlushFails(usize),
    /// Data writes fail; `true`: the device took them all the same, else what its cache held is gone, too.
    RoundFails(usize, bool),
    /// Writing a region copy fails.
    CopyFails(usize),
    /// A flush of a volume's device fails, and what the disk's cache held is gone.
    DataFlushFails(usize, VolumeId),
    /// A volume is suspended.
    VolumeGoes(usize, VolumeId),
    /// A volume is attached, again or for the first time.
    VolumeComes(usize, VolumeId),
    /// Log is written again to volumes that come back.
    Replay(usize),
    /// A volume that has everything again is flushed.
    ReplayFlush(usize),
    Boot(usize),
    /// While the host is off a block of its log becomes unreadable: at the log's end, or a batch that is proven.
    Spoil(usize, usize),
    /// Power cut; which of the outcomes.
    Cut(usize, usize),
    Reset(usize, usize),
    Connect,
    Welcomed,
    /// The primary hears that the secondary is ready for a sync.
    Ready,
    /// The primary's superblock is to say how far the copies are, as it does now and then.
    SyncMoved,
    /// The primary's superblock is to say that the sync is over.
    SyncOver,
    Drop(usize),
    Send,
    Deliver(usize, usize),
    Lose(usize, usize),
    Double(usize, usize),
    /// The data of a message to the secondary is damaged on the way.
    Damage(usize),
    Ack,
    AskAgain,
    /// A region's read ended; `true`: it saw what is there now, not what was there when it began.
    RegionRead(bool),
    /// The log keeps nothing for the link any more.
    GiveUp,
    /// Primary: another synchronisation is asked for.
    Resync,
    /// Primary: what was asked for is taken back before it has begun.
    Withdraw,
    CopyWrite,
    CopyWritten,
    TakeOver,
    TakeOverWrite,
}

impl Ev {
    /// Something fails, or somebody decides: nobody can count on it.
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Ev::BatchFails(..)
                | Ev::LogFlushFails(_)
                | Ev::RoundFails(..)
                | Ev::SuperblockFails(..)
                | Ev::CopyFails(_)
                | Ev::Spoil(..)
                | Ev::DataFlushFails(..)
                | Ev::VolumeGoes(..)
                | Ev::VolumeComes(..)
                | Ev::Cut(..)
                | Ev::Reset(..)
                | Ev::Drop(_)
                | Ev::Lose(..)
                | Ev::Double(..)
                | Ev::Damage(_)
                | Ev::GiveUp
                | Ev::Resync
                | Ev::Withdraw
                | Ev::TakeOver
        )
    }
}

/// A host's name.
pub fn side(s: usize) -> &'static str {
    if s == P {
        "primary"
    } else {
        "secondary"
    }
}

impl fmt::Display for Ev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ev::App => f.write_str("application: next step"),
            Ev::Batch(s) => write!(f, "{}: log write starts", side(*s)),
            Ev::BatchDone(s, i) => write!(f, "{}: log write {i} ends", side(*s)),
            Ev::LogFlush(s) => write!(f, "{}: log flush starts", side(*s)),
            Ev::LogFlushed(s) => write!(f, "{}: log flush ends", side(*s)),
            Ev::Apply(s) => write!(f, "{}: applier's next step", side(*s)),
            Ev::RoundDone(s, false) => write!(f, "{}: data writes end", side(*s)),
            Ev::RoundDone(s, true) => write!(f, "{}: data writes end, in reverse order", side(*s)),
            Ev::CheckpointFlush(s) => write!(f, "{}: checkpoint: data flush starts", side(*s)),
            Ev::CheckpointFlushed(s) => write!(f, "{}: checkpoint: superblock starts", side(*s)),
            Ev::SuperblockDone(s) => write!(f, "{}: superblock is durable", side(*s)),
            Ev::SuperblockFails(s, there) => {
                let there = if *there { ", but a start finds it" } else { "" };
                write!(f, "{}: the superblock CANNOT BE WRITTEN{there}", side(*s))
            }
            Ev::BatchFails(s, i) => write!(f, "{}: log write {i} FAILS", side(*s)),
            Ev::LogFlushFails(s) => write!(f, "{}: log flush FAILS", side(*s)),
            Ev::RoundFails(s, false) => {
                write!(f, "{}: data writes FAIL, caches are lost", side(*s))
            }
            Ev::RoundFails(s, true) => write!(f, "{}: data writes FAIL, but are there", side(*s)),
            Ev::CopyFails(s) => write!(f, "{}: writing a region copy FAILS", side(*s)),
            Ev::DataFlushFails(s, v) => {
                write!(
                    f,
                    "{}: flush of volume {} FAILS, caches are lost",
                    side(*s),
                    v.0
                )
            }
            Ev::VolumeGoes(s, v) => write!(f, "{}: volume {} is suspended", side(*s), v.0),
            Ev::VolumeComes(s, v) => write!(f, "{}: volume {} is attached", side(*s), v.0),
            Ev::Replay(s) => write!(f, "{}: log is written again to a volume", side(*s)),
            Ev::ReplayFlush(s) => write!(f, "{}: a replayed volume is flushed", side(*s)),
            Ev::Boot(s) => write!(f, "{}: starts, scans its log", side(*s)),
            Ev::Spoil(s, 0) => write!(f, "{}: the log's end cannot be read", side(*s)),
            Ev::Spoil(s, i) => write!(f, "{}: batch {i} of the log CANNOT BE READ", side(*s)),
            Ev::Cut(s, i) => write!(f, "{}: POWER CUT (outcome {i})", side(*s)),
            Ev::Reset(s, i) => write!(f, "{}: RESET (outcome {i})", side(*s)),
            Ev::Connect => f.write_str("link: connects, primary compares"),
            Ev::SyncMoved => f.write_str("primary: superblock: how far the copies are"),
            Ev::SyncOver => f.write_str("primary: superblock: the sync is over"),
            Ev::Ready => {
                f.write_str("link: primary hears that the secondary is ready to be synced")
            }
            Ev::Welcomed => f.write_str("link: secondary takes the welcome"),
            Ev::Drop(s) => write!(f, "link: {} sees the connection lost", side(*s)),
            Ev::Send => f.write_str("primary: sends"),
            Ev::Deliver(d, i) => write!(f, "link: {} receives message {i}", side(1 - *d)),
            Ev::Lose(d, i) => write!(f, "link: message {i} to the {} is lost", side(1 - *d)),
            Ev::Damage(i) => write!(f, "link: the data of message {i} is damaged"),
            Ev::Double(d, i) => write!(f, "link: message {i} to the {} is doubled", side(1 - *d)),
            Ev::Ack => f.write_str("secondary: acknowledges"),
            Ev::AskAgain => f.write_str("secondary: asks for the gap again"),
            Ev::RegionRead(false) => f.write_str("primary: region was read (as it was)"),
            Ev::RegionRead(true) => f.write_str("primary: region was read (as it is)"),
            Ev::GiveUp => f.write_str("primary: gives the link up: needs-sync"),
            Ev::Resync => f.write_str("primary: another synchronisation is asked for"),
            Ev::Withdraw => f.write_str("primary: what was asked for is taken back"),
            Ev::CopyWrite => f.write_str("secondary: region copy is being written"),
            Ev::CopyWritten => f.write_str("secondary: region copy was written"),
            Ev::TakeOver => f.write_str("secondary: TAKEOVER begins"),
            Ev::TakeOverWrite => f.write_str("secondary: takeover: superblock starts"),
        }
    }
}
