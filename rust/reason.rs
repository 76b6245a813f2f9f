// SPDX-License-Identifier: GPL-2.0

//! Why a state is what it is, as a number for programs. The numbers are `enum dm_replicate_reason`.

/// A reason code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
#[allow(
    missing_docs,
    dead_code,
    reason = "the numbers are those of the netlink specification, which documents them; not all are given yet"
)]
pub(crate) enum Reason {
    #[default]
    None = 0,
    Admin,
    NotConnected,
    Unreachable,
    PeerTimeout,
    Reset,
    ListenFailed,
    Auth,
    Version,
    Feature,
    UnknownLink,
    GroupMismatch,
    RoleConflict,
    VolumeMissing,
    VolumeTooSmall,
    BlockSize,
    Forked,
    PeerAhead,
    Chain,
    NeverSynced,
    LogOverrun,
    Protocol,
    Integrity,
    WaitingVolumes,
    StartWait,
    Recovery,
    Takeover,
    Sync,
    LogFailed,
    LogCorrupt,
    DataFailed,
    NoMemory,
    Stopping,
    PeerRefused,
}

impl Reason {
    /// The number that netlink uses.
    pub(crate) const fn code(self) -> u32 {
        self as u32
    }
}
