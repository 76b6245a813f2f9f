// SPDX-License-Identifier: GPL-2.0

//! What an administrator may set: defaults, limits, and how the attributes are read.
//!
//! Everything is checked before anything is changed.

use super::answer::{invalid, not_yet};
use crate::{
    refuse::Refusal,
    uapi::{self as nl, a_group as g, a_link as l},
};
use core::{fmt, ops::RangeInclusive};
use kernel::prelude::*;
use replicate_core::{group::Mode, units::MAX_RECORD_BYTES};
use replicate_linux::{genl::Attrs, secret::Secret};

/// Four largest records: what pool and window hold at least.
const FOUR_RECORDS: u64 = 4 * MAX_RECORD_BYTES as u64;

const COMMIT_INTERVAL_MS: RangeInclusive<u64> = 1..=10_000;
const COMMIT_BYTES: RangeInclusive<u64> = 4096..=1 << 30;
const START_WAIT_MS: RangeInclusive<u64> = 0..=3_600_000;
const POOL_BYTES: RangeInclusive<u64> = FOUR_RECORDS + (1 << 20)..=1 << 40;
const WINDOW_BYTES: RangeInclusive<u64> = FOUR_RECORDS..=1 << 40;
const HEARTBEAT_MS: RangeInclusive<u64> = 10..=60_000;
const PEER_TIMEOUT_MS: RangeInclusive<u64> = 20..=600_000;
/// 0: never.
const PROGRESS_TIMEOUT_MS: RangeInclusive<u64> = 0..=86_400_000;
/// Length of a secret: what can be guessed by trying is none.
const SECRET_BYTES: RangeInclusive<usize> = nl::SECRET_MIN..=nl::SECRET_MAX;

/// Defaults of a group.
pub(super) const DEFAULT_GROUP: Group = Group {
    commit_interval_ms: 20,
    commit_bytes: 4 << 20,
    start_wait_ms: 5000,
    window_bytes: 16 << 20,
    pool_bytes: 64 << 20,
};
/// Default of a link.
pub(super) const DEFAULT_HEARTBEAT_MS: u32 = 1000;
/// Default of a link.
pub(super) const DEFAULT_PEER_TIMEOUT_MS: u32 = 5000;
/// Default of a link.
pub(super) const DEFAULT_PROGRESS_TIMEOUT_MS: u32 = 30_000;

/// Settings of a group.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub(super) commit_interval_ms: u32,
    pub(super) commit_bytes: u64,
    pub(super) start_wait_ms: u32,
    pub(super) window_bytes: u64,
    pub(super) pool_bytes: u64,
}

/// What a command says about the settings of a link.
#[derive(Clone, Copy, Default)]
pub(super) struct Link {
    pub(super) mode: Option<Mode>,
    pub(super) heartbeat_ms: Option<u32>,
    pub(super) peer_timeout_ms: Option<u32>,
    pub(super) progress_timeout_ms: Option<u32>,
    pub(super) window_bytes: Option<u64>,
}

/// Returns the settings of group `name` with what the command says about them.
pub(super) fn group(attrs: &Attrs<'_>, name: &str, now: Group) -> Result<Group, Refusal> {
    let what = Owner("group", name);
    if let Some(policy) = attrs.u32(g::SRL_POLICY) {
        if policy != nl::SrlPolicy::Fail as u32 {
            return Err(not_yet("--srl-policy bypass"));
        }
    }
    let n = |id, noun, range| number(attrs, id, &what, noun, range);
    let interval = n(
        g::COMMIT_INTERVAL_MS,
        "commit interval in ms",
        COMMIT_INTERVAL_MS,
    )?;
    let commit = n(g::COMMIT_BYTES, "commit bytes", COMMIT_BYTES)?;
    let wait = n(g::START_WAIT_MS, "start wait in ms", START_WAIT_MS)?;
    let pool = n(g::POOL_BYTES, "pool in bytes", POOL_BYTES)?.unwrap_or(now.pool_bytes);
    let window = n(g::WINDOW_BYTES, "window in bytes", WINDOW_BYTES)?;
    if let Some(window) = window.filter(|w| *w > pool) {
        return Err(invalid(format_args!(
            "{what}: window of {window} bytes exceeds the pool of {pool} bytes"
        )));
    }
    Ok(Group {
        commit_interval_ms: interval.map_or(now.commit_interval_ms, ms),
        commit_bytes: commit.unwrap_or(now.commit_bytes),
        start_wait_ms: wait.map_or(now.start_wait_ms, ms),
        window_bytes: window.unwrap_or(now.window_bytes.min(pool)),
        pool_bytes: pool,
    })
}

/// Returns what the command says about the settings of link `name`; `pool`: what its window may have at most.
pub(super) fn link(attrs: &Attrs<'_>, name: &str, pool: u64) -> Result<Link, Refusal> {
    let what = Owner("link", name);
    let n = |id, noun, range| number(attrs, id, &what, noun, range);
    if attrs
        .u32(l::ON_DISCONNECT)
        .is_some_and(|p| p != nl::OnDisconnect::Async as u32)
    {
        return Err(not_yet("--on-disconnect fail or freeze"));
    }
    if attrs
        .u32(l::ON_LOG_FULL)
        .is_some_and(|p| p != nl::OnLogFull::NeedsSync as u32)
    {
        return Err(not_yet("--on-log-full map, stall or fail"));
    }
    let mode = match attrs.u32(l::MODE) {
        None => None,
        Some(n) => Some(mode(n).ok_or_else(|| invalid(format_args!("{what}: invalid mode {n}")))?),
    };
    let window = n(l::WINDOW_BYTES, "window in bytes", WINDOW_BYTES)?;
    if let Some(window) = window.filter(|w| *w > pool) {
        return Err(invalid(format_args!(
            "{what}: window of {window} bytes exceeds the group's pool of {pool} bytes"
        )));
    }
    Ok(Link {
        mode,
        heartbeat_ms: n(l::HEARTBEAT_MS, "heartbeat in ms", HEARTBEAT_MS)?.map(ms),
        peer_timeout_ms: n(l::PEER_TIMEOUT_MS, "peer timeout in ms", PEER_TIMEOUT_MS)?.map(ms),
        progress_timeout_ms: n(
            l::PROGRESS_TIMEOUT_MS,
            "progress timeout in ms",
            PROGRESS_TIMEOUT_MS,
        )?
        .map(ms),
        window_bytes: window,
    })
}

/// A peer that shows itself every `heartbeat_ms` must not be lost for the silence in between.
pub(super) fn check_timeout(name: &str, heartbeat_ms: u32, timeout_ms: u32) -> Result<(), Refusal> {
    if timeout_ms / 2 >= heartbeat_ms {
        return Ok(());
    }
    Err(invalid(format_args!(
        "link {name}: peer timeout of {timeout_ms} ms is less than two heartbeats of {heartbeat_ms} ms"
    )))
}

/// Returns the secret that the command brings.
pub(super) fn secret(attrs: &Attrs<'_>, name: &str) -> Result<Option<Secret>, Refusal> {
    let Some(bytes) = attrs.bytes(g::SECRET) else {
        return Ok(None);
    };
    if !SECRET_BYTES.contains(&bytes.len()) {
        return Err(invalid(format_args!(
            "group {name}: invalid secret of {} bytes: {} to {} expected",
            bytes.len(),
            SECRET_BYTES.start(),
            SECRET_BYTES.end()
        )));
    }
    Ok(Some(Secret::copy(bytes)?))
}

fn number(
    attrs: &Attrs<'_>,
    id: u16,
    what: &Owner<'_>,
    noun: &str,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, Refusal> {
    match attrs.uint(id) {
        Some(n) if !range.contains(&n) => Err(invalid(format_args!(
            "{what}: {noun} {n} out of range: {} to {} expected",
            range.start(),
            range.end()
        ))),
        other => Ok(other),
    }
}

/// Milliseconds that were checked to be within a range that fits.
fn ms(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn mode(n: u32) -> Option<Mode> {
    Some(match nl::Mode::from_u32(n)? {
        nl::Mode::Async => Mode::Async,
        nl::Mode::Received => Mode::Received,
        nl::Mode::Logged => Mode::Logged,
        nl::Mode::Applied => Mode::Applied,
    })
}

/// What a setting belongs to.
struct Owner<'a>(&'static str, &'a str);

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}
