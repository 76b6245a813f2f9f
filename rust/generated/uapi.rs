// SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause)
// Do not edit directly, auto-generated from:
//     Documentation/netlink/specs/dm-replicate.yaml
// To regenerate run: scripts/ynl-regen

//! The numbers and names of the netlink interface.

pub const FAMILY_NAME: &str = "dm-replicate";
pub const FAMILY_VERSION: u8 = 1;

pub const MCGRP_EVENTS: &str = "events";
/// Longest name of a group, link or volume, without the terminating zero.
pub const NAME_MAX: usize = 63;
/// Longest device path, without the terminating zero.
pub const PATH_MAX: usize = 255;
/// Longest "address:port" string, without the terminating zero.
pub const ADDR_MAX: usize = 63;
/// Shortest shared secret in bytes.
pub const SECRET_MIN: usize = 16;
/// Longest shared secret in bytes.
pub const SECRET_MAX: usize = 256;
/// What this host is in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    Primary = 0,
    Secondary = 1,
}
impl Role {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Primary),
            1 => Some(Self::Secondary),
            _ => None,
        }
    }
}
/// The names, by number.
pub const ROLE: &[&str] = &["primary", "secondary"];
/// What happens to writes when the SRL itself fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SrlPolicy {
    /// Writes end in EIO.
    Fail = 0,
    /// Writes go on without the log, once that is recorded durably.
    Bypass = 1,
}
impl SrlPolicy {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Fail),
            1 => Some(Self::Bypass),
            _ => None,
        }
    }
}
/// The names, by number.
pub const SRL_POLICY: &[&str] = &["fail", "bypass"];
/// What the group does on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum GroupState {
    /// At least one volume of the volume table is not active yet.
    Waiting = 0,
    /// Records of the log are being written to the data devices.
    Replaying = 1,
    /// A starting primary holds its writes until its links have answered, or start-wait has passed.
    Holding = 2,
    /// A primary takes writes; a secondary receives and applies.
    Active = 3,
    /// The secondary is becoming the primary.
    TakingOver = 4,
    /// The log is closed; nothing more is accepted until the group is added again.
    Failed = 5,
}
impl GroupState {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Waiting),
            1 => Some(Self::Replaying),
            2 => Some(Self::Holding),
            3 => Some(Self::Active),
            4 => Some(Self::TakingOver),
            5 => Some(Self::Failed),
            _ => None,
        }
    }
}
/// The names, by number.
pub const GROUP_STATE: &[&str] = &[
    "waiting",
    "replaying",
    "holding",
    "active",
    "taking-over",
    "failed",
];
/// What the data of a secondary is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum ReplicaState {
    /// Not a replica; this host is the primary.
    #[default]
    None = 0,
    /// Never synchronised.
    Empty = 1,
    /// A state that the primary was really in.
    Consistent = 2,
    /// A synchronisation is not finished.
    Inconsistent = 3,
}
impl ReplicaState {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::None),
            1 => Some(Self::Empty),
            2 => Some(Self::Consistent),
            3 => Some(Self::Inconsistent),
            _ => None,
        }
    }
}
/// The names, by number.
pub const REPLICA_STATE: &[&str] = &["none", "empty", "consistent", "inconsistent"];
/// What a volume does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VolumeState {
    /// In the volume table, but no device-mapper device is active.
    Absent = 0,
    /// Active, its I/O waits for recovery or for a starting primary's links.
    Parked = 1,
    /// Its records of the log are being written to its data device; I/O waits.
    Replaying = 2,
    /// Reads and writes are served.
    Active = 3,
    /// Written by the applier; writes of applications are refused.
    Replica = 4,
    /// Suspended by device-mapper.
    Suspended = 5,
    /// A write to the data device failed; new writes fail until the volume is activated again.
    Failed = 6,
}
impl VolumeState {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Absent),
            1 => Some(Self::Parked),
            2 => Some(Self::Replaying),
            3 => Some(Self::Active),
            4 => Some(Self::Replica),
            5 => Some(Self::Suspended),
            6 => Some(Self::Failed),
            _ => None,
        }
    }
}
/// The names, by number.
pub const VOLUME_STATE: &[&str] = &[
    "absent",
    "parked",
    "replaying",
    "active",
    "replica",
    "suspended",
    "failed",
];
/// When a write completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// Once it is in the local log.
    Async = 0,
    /// Once the peer also holds it in memory (network acknowledgement).
    Received = 1,
    /// Once it is also on the peer's stable storage (data acknowledgement).
    Logged = 2,
    /// Once it is also on the peer's data devices.
    Applied = 3,
}
impl Mode {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Async),
            1 => Some(Self::Received),
            2 => Some(Self::Logged),
            3 => Some(Self::Applied),
            _ => None,
        }
    }
}
/// The names, by number.
pub const MODE: &[&str] = &["async", "received", "logged", "applied"];
/// What a sync link does to writes while its peer cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum OnDisconnect {
    /// They go on; the link returns to sync by itself once it has caught up.
    Async = 0,
    /// They end in EIO.
    Fail = 1,
    /// They wait.
    Freeze = 2,
}
impl OnDisconnect {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Async),
            1 => Some(Self::Fail),
            2 => Some(Self::Freeze),
            _ => None,
        }
    }
}
/// The names, by number.
pub const ON_DISCONNECT: &[&str] = &["async", "fail", "freeze"];
/// What happens when the log cannot hold the records that an absent peer still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum OnLogFull {
    /// The link stops following the log and must be synchronised again.
    NeedsSync = 0,
    /// The link follows the change map only, and returns by itself.
    Map = 1,
    /// Writers are paced, then wait.
    Stall = 2,
    /// Writes end in EIO.
    Fail = 3,
}
impl OnLogFull {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::NeedsSync),
            1 => Some(Self::Map),
            2 => Some(Self::Stall),
            3 => Some(Self::Fail),
            _ => None,
        }
    }
}
/// The names, by number.
pub const ON_LOG_FULL: &[&str] = &["needs-sync", "map", "stall", "fail"];
/// What a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LinkState {
    /// Not connected and not trying to; "link connect" starts it.
    Idle = 0,
    /// The primary tries to reach its peer; the secondary listens.
    Connecting = 1,
    /// Connected; proofs, lineages and positions are being compared.
    Handshake = 2,
    /// The log is being drained to the peer.
    CatchingUp = 3,
    /// The peer is at the head of the log.
    Streaming = 4,
    /// The data itself is being copied to the peer.
    Syncing = 5,
    /// The peer cannot be brought up to date from the log; it waits for "sync".
    NeedsSync = 6,
    /// One of the two hosts refuses the other; the reason says which and why.
    Refused = 7,
}
impl LinkState {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Idle),
            1 => Some(Self::Connecting),
            2 => Some(Self::Handshake),
            3 => Some(Self::CatchingUp),
            4 => Some(Self::Streaming),
            5 => Some(Self::Syncing),
            6 => Some(Self::NeedsSync),
            7 => Some(Self::Refused),
            _ => None,
        }
    }
}
/// The names, by number.
pub const LINK_STATE: &[&str] = &[
    "idle",
    "connecting",
    "handshake",
    "catching-up",
    "streaming",
    "syncing",
    "needs-sync",
    "refused",
];
/// Why a state is what it is; the text beside it names the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// No reason to give; all is as it should be.
    #[default]
    None = 0,
    /// A command asked for it.
    Admin = 1,
    /// Added, and never connected since.
    NotConnected = 2,
    /// The peer's address cannot be reached, or refuses the connection.
    Unreachable = 3,
    /// The peer did not answer in time.
    PeerTimeout = 4,
    /// The connection was closed or broke.
    Reset = 5,
    /// The peer does not prove that it knows the group's secret.
    Auth = 6,
    /// The peer speaks no protocol version that this host speaks.
    Version = 7,
    /// The peer needs a feature that this host does not have.
    Feature = 8,
    /// The peer has no link of this name.
    UnknownLink = 9,
    /// The peer's group of this name is another group.
    GroupMismatch = 10,
    /// Both hosts have the same role.
    RoleConflict = 11,
    /// A volume is missing on one side.
    VolumeMissing = 12,
    /// The peer's volume is smaller than the primary's.
    VolumeTooSmall = 13,
    /// The peer's volume has a larger logical block size than the primary's.
    BlockSize = 14,
    /// The histories of the two hosts have forked.
    Forked = 15,
    /// The peer has applied records that this host does not have.
    PeerAhead = 16,
    /// The histories have the same positions and different contents.
    Chain = 17,
    /// The peer has never been synchronised.
    NeverSynced = 18,
    /// The log no longer holds the records that the peer needs.
    LogOverrun = 19,
    /// The peer sent a message that makes no sense.
    Protocol = 20,
    /// A checksum did not agree.
    Integrity = 21,
    /// Volumes of the group are not active yet.
    WaitingVolumes = 22,
    /// A starting primary waits for its links to answer.
    StartWait = 23,
    /// The log is being scanned or replayed.
    Recovery = 24,
    /// This host took over.
    Takeover = 25,
    /// A synchronisation is under way.
    Sync = 26,
    /// Reading, writing or flushing the SRL failed.
    LogFailed = 27,
    /// A record that was proven durable cannot be read back.
    LogCorrupt = 28,
    /// Reading, writing or flushing a data device failed.
    DataFailed = 29,
    /// Memory could not be had.
    NoMemory = 30,
    /// The link or the group is being removed.
    Stopping = 31,
    /// The peer refused this host; the text is the peer's.
    PeerRefused = 32,
    /// One copy of the log device's superblock cannot be written.
    SrlDegraded = 33,
    /// The peer answers, but acknowledged nothing for too long while records waited for it.
    NoProgress = 34,
}
impl Reason {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::None),
            1 => Some(Self::Admin),
            2 => Some(Self::NotConnected),
            3 => Some(Self::Unreachable),
            4 => Some(Self::PeerTimeout),
            5 => Some(Self::Reset),
            6 => Some(Self::Auth),
            7 => Some(Self::Version),
            8 => Some(Self::Feature),
            9 => Some(Self::UnknownLink),
            10 => Some(Self::GroupMismatch),
            11 => Some(Self::RoleConflict),
            12 => Some(Self::VolumeMissing),
            13 => Some(Self::VolumeTooSmall),
            14 => Some(Self::BlockSize),
            15 => Some(Self::Forked),
            16 => Some(Self::PeerAhead),
            17 => Some(Self::Chain),
            18 => Some(Self::NeverSynced),
            19 => Some(Self::LogOverrun),
            20 => Some(Self::Protocol),
            21 => Some(Self::Integrity),
            22 => Some(Self::WaitingVolumes),
            23 => Some(Self::StartWait),
            24 => Some(Self::Recovery),
            25 => Some(Self::Takeover),
            26 => Some(Self::Sync),
            27 => Some(Self::LogFailed),
            28 => Some(Self::LogCorrupt),
            29 => Some(Self::DataFailed),
            30 => Some(Self::NoMemory),
            31 => Some(Self::Stopping),
            32 => Some(Self::PeerRefused),
            33 => Some(Self::SrlDegraded),
            34 => Some(Self::NoProgress),
            _ => None,
        }
    }
}
/// The names, by number.
pub const REASON: &[&str] = &[
    "none",
    "admin",
    "not-connected",
    "unreachable",
    "peer-timeout",
    "reset",
    "auth",
    "version",
    "feature",
    "unknown-link",
    "group-mismatch",
    "role-conflict",
    "volume-missing",
    "volume-too-small",
    "block-size",
    "forked",
    "peer-ahead",
    "chain",
    "never-synced",
    "log-overrun",
    "protocol",
    "integrity",
    "waiting-volumes",
    "start-wait",
    "recovery",
    "takeover",
    "sync",
    "log-failed",
    "log-corrupt",
    "data-failed",
    "no-memory",
    "stopping",
    "peer-refused",
    "srl-degraded",
    "no-progress",
];
/// How to make the peer equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SyncKind {
    /// Copy everything.
    Full = 0,
    /// Copy nothing; both sides are known to be equal.
    AssumeClean = 1,
    /// Copy the regions that differ or may differ.
    Update = 2,
    /// Copy from the peer to this host.
    Reverse = 3,
    /// Stop the synchronisation; the peer stays inconsistent.
    Stop = 4,
}
impl SyncKind {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Full),
            1 => Some(Self::AssumeClean),
            2 => Some(Self::Update),
            3 => Some(Self::Reverse),
            4 => Some(Self::Stop),
            _ => None,
        }
    }
}
/// The names, by number.
pub const SYNC_KIND: &[&str] = &["full", "assume-clean", "update", "reverse", "stop"];
/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Severity {
    Info = 0,
    Warning = 1,
    Critical = 2,
}
impl Severity {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Info),
            1 => Some(Self::Warning),
            2 => Some(Self::Critical),
            _ => None,
        }
    }
}
/// The names, by number.
pub const SEVERITY: &[&str] = &["info", "warning", "critical"];
/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventCode {
    GroupAdded = 0,
    GroupRemoved = 1,
    GroupChanged = 2,
    GroupState = 3,
    VolumeAdded = 4,
    VolumeRemoved = 5,
    VolumeState = 6,
    LinkAdded = 7,
    LinkRemoved = 8,
    LinkChanged = 9,
    LinkState = 10,
    /// The link reached in-sync.
    InSync = 11,
    /// The link left in-sync; sent before the first write that this releases.
    LeftSync = 12,
    /// The peer can no longer be brought up to date from the log.
    NeedsSync = 13,
    SyncStarted = 14,
    SyncDone = 15,
    SyncStopped = 16,
    ReplicaState = 17,
    Takeover = 18,
    /// The log was scanned and replayed after a restart.
    Recovered = 19,
    /// A peer with a forked history was met.
    Forked = 20,
    /// A connection was dropped for where it came from or what it sent.
    BadPeer = 21,
    /// A checksum did not agree; the record is sent again.
    Integrity = 22,
    LogFull = 23,
    LogFailed = 24,
    VolumeFailed = 25,
    SrlDegraded = 26,
}
impl EventCode {
    /// Returns the entry with a number.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::GroupAdded),
            1 => Some(Self::GroupRemoved),
            2 => Some(Self::GroupChanged),
            3 => Some(Self::GroupState),
            4 => Some(Self::VolumeAdded),
            5 => Some(Self::VolumeRemoved),
            6 => Some(Self::VolumeState),
            7 => Some(Self::LinkAdded),
            8 => Some(Self::LinkRemoved),
            9 => Some(Self::LinkChanged),
            10 => Some(Self::LinkState),
            11 => Some(Self::InSync),
            12 => Some(Self::LeftSync),
            13 => Some(Self::NeedsSync),
            14 => Some(Self::SyncStarted),
            15 => Some(Self::SyncDone),
            16 => Some(Self::SyncStopped),
            17 => Some(Self::ReplicaState),
            18 => Some(Self::Takeover),
            19 => Some(Self::Recovered),
            20 => Some(Self::Forked),
            21 => Some(Self::BadPeer),
            22 => Some(Self::Integrity),
            23 => Some(Self::LogFull),
            24 => Some(Self::LogFailed),
            25 => Some(Self::VolumeFailed),
            26 => Some(Self::SrlDegraded),
            _ => None,
        }
    }
}
/// The names, by number.
pub const EVENT_CODE: &[&str] = &[
    "group-added",
    "group-removed",
    "group-changed",
    "group-state",
    "volume-added",
    "volume-removed",
    "volume-state",
    "link-added",
    "link-removed",
    "link-changed",
    "link-state",
    "in-sync",
    "left-sync",
    "needs-sync",
    "sync-started",
    "sync-done",
    "sync-stopped",
    "replica-state",
    "takeover",
    "recovered",
    "forked",
    "bad-peer",
    "integrity",
    "log-full",
    "log-failed",
    "volume-failed",
    "srl-degraded",
];
/// Commands.
pub mod cmd {
    /// Open an SRL and start a group on it.
    pub const GROUP_ADD: u8 = 1;
    /// Remove a group that no device-mapper device uses. Nothing on its devices is changed.
    pub const GROUP_DEL: u8 = 2;
    /// Status of one group, or of all (dump). A dump may spread a group over several messages; each carries the
    /// name, and volumes and links of all of them belong together.
    pub const GROUP_GET: u8 = 3;
    /// Change what can be changed while the group runs.
    pub const GROUP_SET: u8 = 4;
    /// Add a link to a group, and connect it.
    pub const LINK_ADD: u8 = 5;
    /// Disconnect and remove a link. Its position in the SRL is forgotten.
    pub const LINK_DEL: u8 = 6;
    /// Change what can be changed while the link runs.
    pub const LINK_SET: u8 = 7;
    /// Let a link connect, or try again at once.
    pub const LINK_CONNECT: u8 = 8;
    /// Close a link's connections, and keep them closed.
    pub const LINK_DISCONNECT: u8 = 9;
    /// Start or stop a synchronisation of a link's peer.
    pub const SYNC: u8 = 10;
    /// Make a secondary the primary.
    pub const TAKEOVER: u8 = 11;
    /// Something happened.
    pub const EVENT: u8 = 12;
    pub const NAMES: &[&str] = &[
        "group-add",
        "group-del",
        "group-get",
        "group-set",
        "link-add",
        "link-del",
        "link-set",
        "link-connect",
        "link-disconnect",
        "sync",
        "takeover",
        "event",
    ];
}
/// A group, as it is configured and as it is.
pub mod a_group {
    pub const NAME: u16 = 1;
    /// Path of the SRL device.
    pub const SRL: u16 = 2;
    pub const ROLE: u16 = 3;
    /// Shared secret of the group. Never sent by the kernel.
    pub const SECRET: u16 = 4;
    /// Go on in spite of what would be refused.
    pub const FORCE: u16 = 5;
    pub const SRL_POLICY: u16 = 6;
    /// Memory for records.
    pub const POOL_BYTES: u16 = 7;
    pub const COMMIT_INTERVAL_MS: u16 = 8;
    pub const COMMIT_BYTES: u16 = 9;
    pub const START_WAIT_MS: u16 = 10;
    /// Default window of the group's links.
    pub const WINDOW_BYTES: u16 = 11;
    /// 16 bytes; absent while the group is empty.
    pub const UUID: u16 = 12;
    /// 16 bytes, the id of this host in the group.
    pub const HOST_ID: u16 = 13;
    pub const STATE: u16 = 14;
    pub const REASON: u16 = 15;
    pub const REASON_TEXT: u16 = 16;
    /// Number of the last event of this group.
    pub const GENERATION: u16 = 17;
    /// 16 bytes, the id of the current epoch.
    pub const EPOCH: u16 = 18;
    /// Highest record that exists.
    pub const HEAD_SEQ: u16 = 19;
    /// End of the gap-free prefix written to the log.
    pub const WRITTEN_SEQ: u16 = 20;
    /// Commit point.
    pub const COMMIT_SEQ: u16 = 21;
    /// Highest record whose completion was published.
    pub const PUBLISHED_SEQ: u16 = 22;
    /// All records up to it are in the data volumes.
    pub const APPLIED_SEQ: u16 = 23;
    /// Lowest record that the log must still hold.
    pub const TAIL_SEQ: u16 = 24;
    /// Without a ring, nothing above it can have been written.
    pub const HORIZON_SEQ: u16 = 25;
    /// Size of the ring; 0 without a ring.
    pub const RING_BYTES: u16 = 26;
    pub const RING_USED: u16 = 27;
    pub const POOL_USED: u16 = 28;
    pub const REPLICA_STATE: u16 = 29;
    /// Up to where, or since when.
    pub const REPLICA_TEXT: u16 = 30;
    /// What the replica was worth when it took over.
    pub const TAKEOVER_TEXT: u16 = 31;
    /// Wall-clock time at which the state was entered.
    pub const SINCE_NS: u16 = 32;
    pub const VOLUME: u16 = 33;
    pub const LINK: u16 = 34;
    pub const STATS: u16 = 35;
    /// Writes, flushes and reads that wait now, for memory, ring space, a place, a link or a policy.
    pub const DEFERRED: u16 = 36;
    pub const NAMES: &[&str] = &[
        "name",
        "srl",
        "role",
        "secret",
        "force",
        "srl-policy",
        "pool-bytes",
        "commit-interval-ms",
        "commit-bytes",
        "start-wait-ms",
        "window-bytes",
        "uuid",
        "host-id",
        "state",
        "reason",
        "reason-text",
        "generation",
        "epoch",
        "head-seq",
        "written-seq",
        "commit-seq",
        "published-seq",
        "applied-seq",
        "tail-seq",
        "horizon-seq",
        "ring-bytes",
        "ring-used",
        "pool-used",
        "replica-state",
        "replica-text",
        "takeover-text",
        "since-ns",
        "volume",
        "link",
        "stats",
        "deferred",
    ];
}
/// A volume of a group.
pub mod a_volume {
    pub const ID: u16 = 1;
    pub const NAME: u16 = 2;
    /// The device-mapper device as major:minor; absent while there is none.
    pub const DM_DEV: u16 = 3;
    /// The data device as major:minor.
    pub const DATA_DEV: u16 = 4;
    pub const SIZE_SECTORS: u16 = 5;
    pub const LOGICAL_BLOCK: u16 = 6;
    pub const STATE: u16 = 7;
    pub const REASON: u16 = 8;
    pub const REASON_TEXT: u16 = 9;
    /// Sectors below it are synchronised; absent without a synchronisation.
    pub const SYNC_CURSOR: u16 = 10;
    pub const NAMES: &[&str] = &[
        "id",
        "name",
        "dm-dev",
        "data-dev",
        "size-sectors",
        "logical-block",
        "state",
        "reason",
        "reason-text",
        "sync-cursor",
    ];
}
/// A link of a group, as it is configured and as it is.
pub mod a_link {
    pub const GROUP: u16 = 1;
    pub const NAME: u16 = 2;
    /// Address and port on this host.
    pub const LOCAL: u16 = 3;
    /// Address and port of the peer.
    pub const PEER: u16 = 4;
    pub const MODE: u16 = 5;
    pub const ON_DISCONNECT: u16 = 6;
    pub const ON_LOG_FULL: u16 = 7;
    pub const HEARTBEAT_MS: u16 = 8;
    pub const PEER_TIMEOUT_MS: u16 = 9;
    pub const WINDOW_BYTES: u16 = 10;
    /// Go on in spite of what would be refused.
    pub const FORCE: u16 = 11;
    pub const SYNC_KIND: u16 = 12;
    pub const STATE: u16 = 13;
    pub const REASON: u16 = 14;
    pub const REASON_TEXT: u16 = 15;
    /// Wall-clock time at which the state was entered.
    pub const SINCE_NS: u16 = 16;
    pub const IN_SYNC: u16 = 17;
    /// 16 bytes, the id of the peer; absent until it was met.
    pub const PEER_HOST_ID: u16 = 18;
    pub const SENT_SEQ: u16 = 19;
    /// The peer holds all records up to it in memory.
    pub const RECEIVED_SEQ: u16 = 20;
    /// The peer holds all records up to it on stable storage.
    pub const LOGGED_SEQ: u16 = 21;
    /// The peer has all records up to it in its data volumes.
    pub const APPLIED_SEQ: u16 = 22;
    pub const BEHIND_RECORDS: u16 = 23;
    pub const BEHIND_BYTES: u16 = 24;
    /// Age of the oldest record that the peer has not acknowledged.
    pub const BEHIND_MS: u16 = 25;
    pub const RTT_US: u16 = 26;
    pub const SYNC_DONE_BYTES: u16 = 27;
    pub const SYNC_TOTAL_BYTES: u16 = 28;
    /// Wall-clock time of the last message from the peer.
    pub const CONTACT_NS: u16 = 29;
    pub const STATS: u16 = 30;
    /// A peer that owes acknowledgements and moves none for so long loses its session; 0 is never.
    pub const PROGRESS_TIMEOUT_MS: u16 = 31;
    /// Bytes that the connection holds, sent and not acknowledged by the peer's TCP. At 4 MiB nothing more
    /// is put into it; what was being put in then is at most 2 MiB more.
    pub const UNACKED_BYTES: u16 = 32;
    /// Connections from the peer's address that have not proven that they know the secret; 64 at most.
    pub const HANDSHAKES: u16 = 33;
    pub const NAMES: &[&str] = &[
        "group",
        "name",
        "local",
        "peer",
        "mode",
        "on-disconnect",
        "on-log-full",
        "heartbeat-ms",
        "peer-timeout-ms",
        "window-bytes",
        "force",
        "sync-kind",
        "state",
        "reason",
        "reason-text",
        "since-ns",
        "in-sync",
        "peer-host-id",
        "sent-seq",
        "received-seq",
        "logged-seq",
        "applied-seq",
        "behind-records",
        "behind-bytes",
        "behind-ms",
        "rtt-us",
        "sync-done-bytes",
        "sync-total-bytes",
        "contact-ns",
        "stats",
        "progress-timeout-ms",
        "unacked-bytes",
        "handshakes",
    ];
}
/// Counters of a group since it was added.
pub mod a_group_stats {
    /// Records made by applications' writes, or received.
    pub const WRITES: u16 = 1;
    /// Their payload.
    pub const BYTES: u16 = 2;
    /// Writes to the log.
    pub const BATCHES: u16 = 3;
    /// Bytes written to the ring.
    pub const LOG_BYTES: u16 = 4;
    pub const LOG_FLUSHES: u16 = 5;
    pub const CHECKPOINTS: u16 = 6;
    /// Writes that had to wait for memory, ring space or a policy.
    pub const STALLS: u16 = 7;
    /// Reads served from memory, wholly or in part.
    pub const MEMORY_READS: u16 = 8;
    /// Events for which there was no memory, or no room at a listener that has set NETLINK_BROADCAST_ERROR.
    /// None is queued.
    pub const EVENTS_LOST: u16 = 9;
    pub const NAMES: &[&str] = &[
        "writes",
        "bytes",
        "batches",
        "log-bytes",
        "log-flushes",
        "checkpoints",
        "stalls",
        "memory-reads",
        "events-lost",
    ];
}
/// Counters of a link since it was added.
pub mod a_link_stats {
    pub const MESSAGES_SENT: u16 = 1;
    pub const MESSAGES_RECEIVED: u16 = 2;
    pub const BYTES_SENT: u16 = 3;
    pub const BYTES_RECEIVED: u16 = 4;
    /// Handshakes that succeeded.
    pub const CONNECTS: u16 = 5;
    /// Connections that broke.
    pub const RESETS: u16 = 6;
    pub const CRC_ERRORS: u16 = 7;
    /// Records sent more than once.
    pub const RESENDS: u16 = 8;
    /// Connections dropped for where they came from or what they sent.
    pub const DROPPED: u16 = 9;
    pub const NAMES: &[&str] = &[
        "messages-sent",
        "messages-received",
        "bytes-sent",
        "bytes-received",
        "connects",
        "resets",
        "crc-errors",
        "resends",
        "dropped",
    ];
}
/// Something that happened.
pub mod a_event {
    /// Grows by one with every event of the group; a gap means that events were missed.
    pub const GENERATION: u16 = 1;
    pub const TIME_NS: u16 = 2;
    pub const GROUP: u16 = 3;
    pub const LINK: u16 = 4;
    pub const VOLUME: u16 = 5;
    pub const CODE: u16 = 6;
    pub const SEVERITY: u16 = 7;
    pub const REASON: u16 = 8;
    pub const TEXT: u16 = 9;
    pub const SEQ: u16 = 10;
    pub const NAMES: &[&str] = &[
        "generation",
        "time-ns",
        "group",
        "link",
        "volume",
        "code",
        "severity",
        "reason",
        "text",
        "seq",
    ];
}
