// SPDX-License-Identifier: GPL-2.0

//! The ordering rules by name, so that a test can leave one out and watch a promise break.
//!
//! Every rule that the design marks [X], and three more, is asked for by name at the one place that keeps it. In a
//! normal build [`on`] is `const true` and costs nothing. Two kinds of build can leave rules out:
//! the explorer (cargo feature `mutations`, a run-time set) and test builds of the module
//! (`MUTATE=write-ahead`, one rule, fixed at compile time), which the guest scenarios must catch.

/// An ordering rule; the text says what it forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Rule {
    /// No data-volume write above the commit point (trace A1).
    WriteAhead,
    /// Recovery flushes the log device before it believes what the scan found (A2).
    RecoveryFlush,
    /// A recovered or promoted primary starts a new epoch (X1).
    NewEpoch,
    /// A secondary drops what it holds above the fork (X2).
    TruncateAtFork,
    /// Link positions are cut to the recovered head (X19).
    CutPositions,
    /// The commit point is what a completed flush covers, not what was written (X4).
    CommitIsFlushed,
    /// A FUA log write raises the commit point by itself only when all below it is durable.
    FuaOnDurableGround,
    /// A replica applies only up to its primary's commit point (X3).
    ApplyBelowPeerCommit,
    /// Data devices are flushed before the tail moves (X5).
    CheckpointFlush,
    /// When a data device failed, the tail stays where its last good flush was.
    DeviceFailurePins,
    /// The tail waits for the data ack, not the network ack (X6).
    TailOnDataAck,
    /// Overlapping records are applied in seq order (Y10, X9).
    OverlapOrder,
    /// The data ack follows the flush (X14).
    FlushBeforeDataAck,
    /// An application flush waits for the log flush (X15).
    AppFlushWaits,
    /// Without a ring a record waits for its `depends_on` at all (Y7).
    DependsOn,
    /// ... and waits until that is durable, not merely complete (Y8).
    DependsOnDurable,
    /// `depends_on` starts at the recovered head after recovery (Y11).
    DependsOnAfterRecovery,
    /// Without a ring, redo is atomic: all up to the horizon in memory and a durable flag first (A5).
    AtomicRedo,
    /// Without a ring, the data ack never passes the durable superblock (A4).
    AckBelowSuperblock,
    /// Messages of another session are dropped (H13).
    SessionIds,
    /// A region copy is read only after overlapping earlier records are written (R1).
    CopyAfterWrites,
    /// No overlapping later record is sent before the copy (R2).
    CopyBeforeLater,
    /// A region copy is read from the data volume, never from memory (R3).
    CopyFromVolume,
    /// The sync ends at the commit point when the last copy was read (R4).
    SyncEndsAtCommit,
    /// A link that is near is in-sync only when it has all that completed before writers waited for it.
    ClosesIn,
}

impl Rule {
    /// Every rule, for the tests that leave each out.
    pub const ALL: [Rule; 25] = [
        Rule::WriteAhead,
        Rule::RecoveryFlush,
        Rule::NewEpoch,
        Rule::TruncateAtFork,
        Rule::CutPositions,
        Rule::CommitIsFlushed,
        Rule::FuaOnDurableGround,
        Rule::ApplyBelowPeerCommit,
        Rule::CheckpointFlush,
        Rule::DeviceFailurePins,
        Rule::TailOnDataAck,
        Rule::OverlapOrder,
        Rule::FlushBeforeDataAck,
        Rule::AppFlushWaits,
        Rule::DependsOn,
        Rule::DependsOnDurable,
        Rule::DependsOnAfterRecovery,
        Rule::AtomicRedo,
        Rule::AckBelowSuperblock,
        Rule::SessionIds,
        Rule::CopyAfterWrites,
        Rule::CopyBeforeLater,
        Rule::CopyFromVolume,
        Rule::SyncEndsAtCommit,
        Rule::ClosesIn,
    ];
}

/// Whether `rule` is kept. Always, except in the two test builds named above.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
#[must_use]
pub const fn on(rule: Rule) -> bool {
    !matches!(
        (rule, LEFT_OUT),
        (Rule::WriteAhead, LeftOut::WriteAhead)
            | (Rule::CommitIsFlushed, LeftOut::LogFlush)
            | (Rule::RecoveryFlush, LeftOut::LogFlush)
            | (Rule::CheckpointFlush, LeftOut::CheckpointFlush)
    )
}

/// What a test build of the module leaves out.
#[cfg(not(feature = "mutations"))]
#[allow(dead_code)]
enum LeftOut {
    Nothing,
    WriteAhead,
    LogFlush,
    CheckpointFlush,
}

#[cfg(not(feature = "mutations"))]
const LEFT_OUT: LeftOut = if cfg!(mutate = "write-ahead") {
    LeftOut::WriteAhead
} else if cfg!(mutate = "log-flush") {
    LeftOut::LogFlush
} else if cfg!(mutate = "checkpoint-flush") {
    LeftOut::CheckpointFlush
} else {
    LeftOut::Nothing
};

/// What this build leaves out, for the module to say loudly; `None` in any build meant for use.
#[cfg(not(feature = "mutations"))]
#[must_use]
pub const fn left_out() -> Option<&'static str> {
    match LEFT_OUT {
        LeftOut::Nothing => None,
        LeftOut::WriteAhead => Some("write-ahead rule"),
        LeftOut::LogFlush => Some("log flush"),
        LeftOut::CheckpointFlush => Some("checkpoint flush"),
    }
}

#[cfg(feature = "mutations")]
static LEFT_OUT: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// Whether `rule` is kept in this process.
#[cfg(feature = "mutations")]
#[must_use]
pub fn on(rule: Rule) -> bool {
    LEFT_OUT.load(core::sync::atomic::Ordering::Relaxed) & (1 << rule as u32) == 0
}

/// Leaves exactly `rule` out from now on (`None`: keeps all). Process-wide: one mutation a process.
#[cfg(feature = "mutations")]
pub fn leave_out(rule: Option<Rule>) {
    let mask = rule.map_or(0, |r| 1 << r as u32);
    LEFT_OUT.store(mask, core::sync::atomic::Ordering::Relaxed);
}
