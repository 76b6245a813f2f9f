// SPDX-License-Identifier: GPL-2.0

//! Events: what a user wants to know without asking, told on the netlink group `events`.
//!
//! Called by every module that changes a state, in process context, with no lock held that the order lock is taken
//! under. An event never waits for memory: who waits for it may be who frees memory. One that cannot be sent is
//! dropped, which leaves a gap in the generations that listeners see; status has the same facts. The event that a
//! link left in-sync is owed before the first write that it releases (P2), so a session sets its message aside
//! when it begins ([`Reserved`]). The kernel log gets those of a warning or worse, and a link's state.

pub(crate) use crate::uapi::{EventCode as Code, Severity};
use crate::{
    group::Group,
    link::Link,
    reason::Reason,
    uapi::{a_event as e, cmd},
    volume::Volume,
};
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};
use replicate_linux::{clock, genl::Multicast};

/// Names, numbers and a text of at most 400 bytes.
const CAPACITY: usize = 1024;

/// Number of the newest event; also the generation of every status.
static GENERATION: Atomic<u64> = Atomic::new(0);

/// What an event is about.
#[derive(Clone, Copy, Default)]
struct About<'a> {
    link: Option<&'a str>,
    volume: Option<&'a str>,
    reason: Option<Reason>,
}

/// A message that was made before it was needed.
pub(crate) struct Reserved(Multicast);

impl Reserved {
    /// Makes one. May sleep.
    pub(crate) fn new() -> Result<Reserved> {
        Multicast::reserve(cmd::EVENT, CAPACITY).map(Reserved)
    }
}

/// Returns the newest event's number.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Relaxed)
}

/// An event of a group.
pub(crate) fn group(group: &Group, code: Code, severity: Severity, text: &str) {
    if severity != Severity::Info {
        pr_warn!("group {}: {text}\n", group.name.as_str());
    }
    tell(None, group, code, severity, About::default(), text);
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
    link_with(None, group, link, code, severity, reason, text);
}

/// As [`fn@link`], with a message that was made beforehand.
pub(crate) fn link_with(
    reserved: Option<Reserved>,
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
    tell(reserved, group, code, severity, about, text);
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
    tell(None, group, code, severity, about, text);
}

fn tell(
    reserved: Option<Reserved>,
    group: &Group,
    code: Code,
    severity: Severity,
    about: About<'_>,
    text: &str,
) {
    let generation = GENERATION.fetch_add(1, Relaxed) + 1;
    // Nobody hangs on an event: status has the facts.
    if send(reserved, group, code, severity, about, text, generation).is_err() {
        group.stats.events_lost.add(1);
    }
}

fn send(
    reserved: Option<Reserved>,
    group: &Group,
    code: Code,
    severity: Severity,
    about: About<'_>,
    text: &str,
    generation: u64,
) -> Result {
    let head = group.inner.lock().node.head();
    let mut m = match reserved {
        Some(reserved) => reserved.0,
        None => Multicast::new(cmd::EVENT, CAPACITY)?,
    };
    m.uint(e::GENERATION, generation)?;
    m.uint(e::TIME_NS, clock::wall_ns())?;
    m.str(e::GROUP, group.name.as_str())?;
    if let Some(name) = about.link {
        m.str(e::LINK, name)?;
    }
    if let Some(name) = about.volume {
        m.str(e::VOLUME, name)?;
    }
    m.u32(e::CODE, code as u32)?;
    m.u32(e::SEVERITY, severity as u32)?;
    if let Some(reason) = about.reason {
        m.u32(e::REASON, reason.code())?;
    }
    m.str(e::TEXT, text)?;
    m.uint(e::SEQ, head.0)?;
    m.send(0)
}
