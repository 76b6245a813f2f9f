// SPDX-License-Identifier: GPL-2.0

//! What is told of a group itself: settings, identity, positions, state and its reason, counters.

use super::parts::Parts;
use crate::{
    event,
    group::{inner::Phase, Group},
    reason::Reason,
    refuse::{Bounded, Text},
    uapi::{self as nl, a_group as g, a_group_stats as s},
};
use core::fmt::Write as _;
use kernel::{prelude::*, sync::atomic::Relaxed};
use replicate_core::{
    group::Replica,
    log::superblock::Inconsistent,
    node::{Log, Role},
    units::{Bytes, Seq},
};
use replicate_linux::{clock, genl::Message};

const PAGE_BYTES: u64 = 4096;
const NS_PER_MS: u64 = 1_000_000;

/// What the order lock protects, at one moment.
struct Snapshot {
    role: Role,
    phase: Phase,
    replaying: bool,
    consistent: bool,
    head: Seq,
    written: Seq,
    commit: Seq,
    published: Seq,
    applied: Seq,
    horizon: Option<Seq>,
    ring: (Bytes, Bytes),
    deferred: usize,
}

impl Snapshot {
    fn of(group: &Group) -> Snapshot {
        let inner = group.inner.lock();
        let e = &inner.node;
        let (horizon, ring) = match &e.log {
            Log::Ring(w) => (None, (w.ring.size(), w.ring.used())),
            Log::NoRing(n) => (Some(n.horizon), (Bytes(0), Bytes(0))),
        };
        Snapshot {
            role: e.role(),
            phase: inner.phase,
            replaying: e.is_replaying(),
            consistent: e.is_consistent(),
            head: e.head(),
            written: e.written(),
            commit: e.commit(),
            published: e.flush_target(),
            applied: e.applier.applied(),
            horizon,
            ring,
            deferred: inner.deferred(),
        }
    }
}

/// Adds the scalars of a group to a message. May sleep.
pub(super) fn tell(m: &mut Message, group: &Group, parts: &Parts) -> Result {
    let now = Snapshot::of(group);
    let identity = group.identity();
    let (tail, mixture) = group.srl.read(|sb| (sb.tail().seq, sb.inconsistent()))?;
    m.str(g::NAME, group.name.as_str())?;
    m.str(g::SRL, group.srl.path().to_str().unwrap_or("?"))?;
    m.u32(g::ROLE, role(now.role) as u32)?;
    m.uint(g::GENERATION, event::generation())?;
    settings(m, group)?;
    if !identity.uuid.is_none() {
        m.bytes(g::UUID, &identity.uuid.0)?;
    }
    m.bytes(g::HOST_ID, &identity.host.0)?;
    if !identity.epoch.is_none() {
        m.bytes(g::EPOCH, &identity.epoch.0)?;
    }
    m.uint(g::HEAD_SEQ, now.head.0)?;
    m.uint(g::WRITTEN_SEQ, now.written.0)?;
    m.uint(g::COMMIT_SEQ, now.commit.0)?;
    if now.role == Role::Primary {
        m.uint(g::PUBLISHED_SEQ, now.published.0)?;
    }
    m.uint(g::APPLIED_SEQ, now.applied.0)?;
    m.uint(g::TAIL_SEQ, tail.0)?;
    if let Some(horizon) = now.horizon {
        m.uint(g::HORIZON_SEQ, horizon.0)?;
    }
    m.uint(g::RING_BYTES, now.ring.0 .0)?;
    m.uint(g::RING_USED, now.ring.1 .0)?;
    let pool = (group.pool.in_use() as u64).saturating_mul(PAGE_BYTES);
    m.uint(g::POOL_USED, pool)?;
    m.u32(g::DEFERRED, u32::try_from(now.deferred).unwrap_or(u32::MAX))?;
    state(m, group, parts, &now)?;
    replica(m, identity.replica, mixture, &now)?;
    stats(m, group)
}

fn role(role: Role) -> nl::Role {
    match role {
        Role::Primary => nl::Role::Primary,
        Role::Secondary => nl::Role::Secondary,
    }
}

fn settings(m: &mut Message, group: &Group) -> Result {
    let s = &group.settings;
    m.u32(g::SRL_POLICY, nl::SrlPolicy::Fail as u32)?;
    m.uint(g::POOL_BYTES, s.pool_bytes.load(Relaxed))?;
    m.u32(g::COMMIT_INTERVAL_MS, s.commit_interval_ms.load(Relaxed))?;
    m.uint(g::COMMIT_BYTES, s.commit_bytes.load(Relaxed))?;
    m.u32(g::START_WAIT_MS, s.start_wait_ms.load(Relaxed))?;
    m.uint(g::WINDOW_BYTES, s.window_bytes.load(Relaxed))
}

/// The state, by what keeps the group from being active, if anything does; and why.
fn state(m: &mut Message, group: &Group, parts: &Parts, now: &Snapshot) -> Result {
    let mut text = Bounded::default();
    // A text that does not fit is cut.
    let (state, reason) = match now.phase {
        Phase::Failed => (nl::GroupState::Failed, Reason::LogFailed),
        Phase::Gone => {
            let _ = text.write_str("it is being removed");
            (nl::GroupState::Failed, Reason::Stopping)
        }
        Phase::TakingOver => (nl::GroupState::TakingOver, Reason::Takeover),
        Phase::Holding { .. } | Phase::Active | Phase::Unlogged
            if parts.volumes().next().is_none() =>
        {
            let _ = text.write_str("the group has no volume yet; create one with dmsetup");
            (nl::GroupState::Waiting, Reason::WaitingVolumes)
        }
        Phase::Holding { .. } | Phase::Active | Phase::Unlogged
            if parts.first_absent().is_some() =>
        {
            let name = parts.first_absent().map_or("?", |v| v.facts.name.as_str());
            let _ = write!(text, "volume {name} is not active; create it with dmsetup");
            (nl::GroupState::Waiting, Reason::WaitingVolumes)
        }
        Phase::Holding { .. } | Phase::Active if now.replaying => {
            let _ = write!(
                text,
                "records up to {} of {} are on the data devices",
                now.applied, now.head
            );
            (nl::GroupState::Replaying, Reason::Recovery)
        }
        Phase::Holding { until_ns } => {
            let left = until_ns.saturating_sub(clock::monotonic_ns()) / NS_PER_MS;
            let _ = write!(
                text,
                "writes wait until every link has answered, for {left} ms more at most"
            );
            (nl::GroupState::Holding, Reason::StartWait)
        }
        Phase::Unlogged => {
            let _ = text.write_str(
                "unlogged: took over without a ring, writes leave no record and feed no link",
            );
            (nl::GroupState::Active, Reason::Takeover)
        }
        Phase::Active => (nl::GroupState::Active, Reason::None),
    };
    m.u32(g::STATE, state as u32)?;
    let status = group.status.lock();
    let kept = status.text.as_ref().map(Text::as_str);
    if text.as_str().is_empty() {
        // Nothing to be seen from outside: what was recorded when it came about.
        let reason = match status.reason {
            Reason::None => reason,
            recorded => recorded,
        };
        m.u32(g::REASON, reason.code())?;
        if let Some(kept) = kept {
            m.str(g::REASON_TEXT, kept)?;
        }
    } else {
        m.u32(g::REASON, reason.code())?;
        m.str(g::REASON_TEXT, text.as_str())?;
    }
    if let Some(t) = status.takeover.as_ref().map(Text::as_str) {
        m.str(g::TAKEOVER_TEXT, t)?;
    }
    m.uint(g::SINCE_NS, status.since_ns)
}

/// What the data of a secondary is worth.
fn replica(
    m: &mut Message,
    replica: Replica,
    mixture: Option<Inconsistent>,
    now: &Snapshot,
) -> Result {
    if now.role == Role::Primary {
        return m.u32(g::REPLICA_STATE, nl::ReplicaState::None as u32);
    }
    match (replica, mixture) {
        (Replica::Empty, None) => {
            m.u32(g::REPLICA_STATE, nl::ReplicaState::Empty as u32)?;
            m.str(g::REPLICA_TEXT, "never synchronised")
        }
        (Replica::Consistent, None) if now.consistent => {
            m.u32(g::REPLICA_STATE, nl::ReplicaState::Consistent as u32)?;
            m.fmt(
                g::REPLICA_TEXT,
                format_args!("up to record {}", now.applied),
            )
        }
        (_, mixture) => {
            m.u32(g::REPLICA_STATE, nl::ReplicaState::Inconsistent as u32)?;
            match mixture {
                Some(Inconsistent {
                    since,
                    until: Some(until),
                    ..
                }) => m.fmt(
                    g::REPLICA_TEXT,
                    format_args!("since record {}, until record {} is applied", since.seq, until.seq),
                ),
                Some(Inconsistent { since, .. }) => m.fmt(
                    g::REPLICA_TEXT,
                    format_args!("since record {}, until the synchronisation ends", since.seq),
                ),
                None => m.str(
                    g::REPLICA_TEXT,
                    "until everything that may have been written before the last stop is applied again",
                ),
            }
        }
    }
}

fn stats(m: &mut Message, group: &Group) -> Result {
    let c = &group.stats;
    m.nest(g::STATS, |m| {
        m.uint(s::WRITES, c.writes.get())?;
        m.uint(s::BYTES, c.bytes.get())?;
        m.uint(s::BATCHES, c.batches.get())?;
        m.uint(s::LOG_BYTES, c.log_bytes.get())?;
        m.uint(s::LOG_FLUSHES, c.flushes.get())?;
        m.uint(s::CHECKPOINTS, c.checkpoints.get())?;
        m.uint(s::STALLS, c.stalls.get())?;
        m.uint(s::MEMORY_READS, c.overlaid_reads.get())?;
        m.uint(s::EVENTS_LOST, c.events_lost.get())
    })
}
