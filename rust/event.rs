// SPDX-License-Identifier: GPL-2.0

//! Events: what a user wants to know without asking, told on the netlink group `events`.
//!
//! Called by every room that changes a state, in process context, with no spinlock held; it may sleep. An event
//! that cannot be sent for want of memory or listeners is dropped: status has the same facts. The kernel log
//! gets those of a warning or worse, and a link's state.

use crate::{group::Group, link::Link, reason::Reason, uapi as nl, volume::Volume};
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};
use replicate_linux::{clock, genl::Multicast};

replicate_linux::genl_family! {
    /// The generic netlink family of this module.
    pub(crate) struct Family = dm_replicate_nl_family;
}

/// Names, numbers and a text of at most 400 bytes.
const CAPACITY: usize = 1024;

/// Number of the newest event; also the generation of every status.
static GENERATION: Atomic<u64> = Atomic::new(0);

/// What happened. The numbers are `enum dm_replicate_event_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "documented in the netlink specification")]
pub(crate) enum Code {
    GroupAdded = nl::DM_REPLICATE_EVENT_CODE_GROUP_ADDED,
    GroupRemoved = nl::DM_REPLICATE_EVENT_CODE_GROUP_REMOVED,
    GroupChanged = nl::DM_REPLICATE_EVENT_CODE_GROUP_CHANGED,
    GroupState = nl::DM_REPLICATE_EVENT_CODE_GROUP_STATE,
    VolumeAdded = nl::DM_REPLICATE_EVENT_CODE_VOLUME_ADDED,
    VolumeRemoved = nl::DM_REPLICATE_EVENT_CODE_VOLUME_REMOVED,
    VolumeState = nl::DM_REPLICATE_EVENT_CODE_VOLUME_STATE,
    LinkAdded = nl::DM_REPLICATE_EVENT_CODE_LINK_ADDED,
    LinkRemoved = nl::DM_REPLICATE_EVENT_CODE_LINK_REMOVED,
    LinkChanged = nl::DM_REPLICATE_EVENT_CODE_LINK_CHANGED,
    LinkState = nl::DM_REPLICATE_EVENT_CODE_LINK_STATE,
    InSync = nl::DM_REPLICATE_EVENT_CODE_IN_SYNC,
    LeftSync = nl::DM_REPLICATE_EVENT_CODE_LEFT_SYNC,
    NeedsSync = nl::DM_REPLICATE_EVENT_CODE_NEEDS_SYNC,
    SyncStarted = nl::DM_REPLICATE_EVENT_CODE_SYNC_STARTED,
    SyncDone = nl::DM_REPLICATE_EVENT_CODE_SYNC_DONE,
    SyncStopped = nl::DM_REPLICATE_EVENT_CODE_SYNC_STOPPED,
    ReplicaState = nl::DM_REPLICATE_EVENT_CODE_REPLICA_STATE,
    Takeover = nl::DM_REPLICATE_EVENT_CODE_TAKEOVER,
    Recovered = nl::DM_REPLICATE_EVENT_CODE_RECOVERED,
    Forked = nl::DM_REPLICATE_EVENT_CODE_FORKED,
    BadPeer = nl::DM_REPLICATE_EVENT_CODE_BAD_PEER,
    Integrity = nl::DM_REPLICATE_EVENT_CODE_INTEGRITY,
    LogFull = nl::DM_REPLICATE_EVENT_CODE_LOG_FULL,
    LogFailed = nl::DM_REPLICATE_EVENT_CODE_LOG_FAILED,
    VolumeFailed = nl::DM_REPLICATE_EVENT_CODE_VOLUME_FAILED,
}

/// How loud it is. The numbers are `enum dm_replicate_severity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "documented in the netlink specification")]
pub(crate) enum Severity {
    Info = nl::DM_REPLICATE_SEVERITY_INFO,
    Warning = nl::DM_REPLICATE_SEVERITY_WARNING,
    Critical = nl::DM_REPLICATE_SEVERITY_CRITICAL,
}

/// What an event is about.
#[derive(Clone, Copy, Default)]
struct About<'a> {
    link: Option<&'a str>,
    volume: Option<&'a str>,
    reason: Option<Reason>,
}

/// The newest event's number.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Relaxed)
}

/// An event of a group.
pub(crate) fn group(group: &Group, code: Code, severity: Severity, text: &str) {
    if severity != Severity::Info {
        pr_warn!("group {}: {text}\n", group.name.as_str());
    }
    tell(group, code, severity, About::default(), text);
}

/// An event of a link.
pub(crate) fn link(
    group: &Group,
    link: &Link,
    code: Code,
    severity: Severity,
    reason: Reason,
    text: &str,
) {
    let (g, l) = (group.name.as_str(), link.name.as_str());
    // These two come with a change of state that says the same.
    if !matches!(code, Code::NeedsSync | Code::Forked) {
        match severity {
            Severity::Info => pr_info!("group {g}: link {l}: {text}\n"),
            Severity::Warning | Severity::Critical => pr_warn!("group {g}: link {l}: {text}\n"),
        }
    }
    let about = About {
        link: Some(l),
        reason: Some(reason),
        ..About::default()
    };
    tell(group, code, severity, about, text);
}

/// An event of a volume.
pub(crate) fn volume(group: &Group, volume: &Volume, code: Code, severity: Severity, text: &str) {
    let v = volume.name.as_str();
    if severity != Severity::Info {
        pr_warn!("volume {}/{v}: {text}\n", group.name.as_str());
    }
    let about = About {
        volume: Some(v),
        ..About::default()
    };
    tell(group, code, severity, about, text);
}

fn tell(group: &Group, code: Code, severity: Severity, about: About<'_>, text: &str) {
    let generation = GENERATION.fetch_add(1, Relaxed) + 1;
    // Nobody hangs on an event: status has the facts.
    let _ = send(group, code, severity, about, text, generation);
}

fn send(
    group: &Group,
    code: Code,
    severity: Severity,
    about: About<'_>,
    text: &str,
    generation: u64,
) -> Result {
    let head = group.inner.lock().node.head();
    let mut m = Multicast::<Family>::new(nl::DM_REPLICATE_CMD_EVENT as u8, CAPACITY)?;
    m.uint(nl::DM_REPLICATE_A_EVENT_GENERATION as u16, generation)?;
    m.uint(nl::DM_REPLICATE_A_EVENT_TIME_NS as u16, clock::wall_ns())?;
    m.str(nl::DM_REPLICATE_A_EVENT_GROUP as u16, group.name.as_str())?;
    if let Some(name) = about.link {
        m.str(nl::DM_REPLICATE_A_EVENT_LINK as u16, name)?;
    }
    if let Some(name) = about.volume {
        m.str(nl::DM_REPLICATE_A_EVENT_VOLUME as u16, name)?;
    }
    m.u32(nl::DM_REPLICATE_A_EVENT_CODE as u16, code as u32)?;
    m.u32(nl::DM_REPLICATE_A_EVENT_SEVERITY as u16, severity as u32)?;
    if let Some(reason) = about.reason {
        m.u32(nl::DM_REPLICATE_A_EVENT_REASON as u16, reason.code())?;
    }
    m.str(nl::DM_REPLICATE_A_EVENT_TEXT as u16, text)?;
    m.uint(nl::DM_REPLICATE_A_EVENT_SEQ as u16, head.0)?;
    m.send(0)
}
