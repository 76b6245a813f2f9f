// SPDX-License-Identifier: GPL-2.0

//! What is told of a link.

use super::super::answer::{of_link as l, of_link_stats as s};
use crate::{group::Group, link::Link, uapi as nl};
use kernel::{prelude::*, sync::atomic::Relaxed};
use replicate_core::{group::Mode, session::state::State, units::Seq};
use replicate_linux::genl::Message;

/// Adds a link to the nest that is open. May sleep.
pub(super) fn tell(m: &mut Message, group: &Group, link: &Link) -> Result {
    let now = link.status(group);
    m.str(l::NAME, link.name.as_str())?;
    m.fmt(l::LOCAL, format_args!("{}", link.local))?;
    m.fmt(l::PEER, format_args!("{}", link.peer))?;
    m.u32(l::MODE, mode(now.mode))?;
    m.u32(l::ON_DISCONNECT, nl::DM_REPLICATE_ON_DISCONNECT_ASYNC)?;
    m.u32(l::ON_LOG_FULL, nl::DM_REPLICATE_ON_LOG_FULL_NEEDS_SYNC)?;
    let set = &link.settings;
    m.u32(l::HEARTBEAT_MS, set.heartbeat_ms.load(Relaxed))?;
    m.u32(l::PEER_TIMEOUT_MS, set.peer_timeout_ms.load(Relaxed))?;
    m.uint(l::WINDOW_BYTES, now.window_bytes)?;
    m.u32(l::STATE, state(now.state))?;
    m.u32(l::REASON, now.reason.code())?;
    if let Some(text) = now.text.as_ref().and_then(|t| t.to_str().ok()) {
        m.str(l::REASON_TEXT, text)?;
    }
    m.uint(l::SINCE_NS, now.since_ns)?;
    if now.in_sync {
        m.flag(l::IN_SYNC)?;
    }
    if !now.peer_host.is_none() {
        m.bytes(l::PEER_HOST_ID, &now.peer_host.0)?;
    }
    if let Some(Seq(sent)) = now.sent {
        m.uint(l::SENT_SEQ, sent)?;
    }
    m.uint(l::RECEIVED_SEQ, now.received.0)?;
    m.uint(l::LOGGED_SEQ, now.logged.0)?;
    m.uint(l::APPLIED_SEQ, now.applied.0)?;
    m.uint(l::BEHIND_RECORDS, now.behind_records)?;
    m.uint(l::BEHIND_BYTES, now.behind_bytes)?;
    m.uint(l::BEHIND_MS, now.behind_ms)?;
    if now.rtt_us > 0 {
        m.u32(l::RTT_US, u32::try_from(now.rtt_us).unwrap_or(u32::MAX))?;
    }
    if let Some((done, total)) = now.sync.filter(|(_, total)| *total > 0) {
        m.u32(l::SYNC_KIND, nl::DM_REPLICATE_SYNC_KIND_FULL)?;
        m.uint(l::SYNC_DONE_BYTES, done)?;
        m.uint(l::SYNC_TOTAL_BYTES, total)?;
    }
    if now.last_rx_ns > 0 {
        m.uint(l::CONTACT_NS, now.last_rx_ns)?;
    }
    stats(m, link)
}

fn stats(m: &mut Message, link: &Link) -> Result {
    let c = &link.stats;
    m.nest(l::STATS, |m| {
        m.uint(s::MESSAGES_SENT, c.messages_sent.get())?;
        m.uint(s::MESSAGES_RECEIVED, c.messages_received.get())?;
        m.uint(s::BYTES_SENT, c.bytes_sent.get())?;
        m.uint(s::BYTES_RECEIVED, c.bytes_received.get())?;
        m.uint(s::CONNECTS, c.connects.get())?;
        m.uint(s::RESETS, c.resets.get())?;
        m.uint(s::CRC_ERRORS, c.crc_errors.get())?;
        m.uint(s::RESENDS, c.resends.get())?;
        m.uint(s::DROPPED, c.dropped.get())
    })
}

fn mode(mode: Mode) -> u32 {
    match mode {
        Mode::Async => nl::DM_REPLICATE_MODE_ASYNC,
        Mode::Received => nl::DM_REPLICATE_MODE_RECEIVED,
        Mode::Logged => nl::DM_REPLICATE_MODE_LOGGED,
        Mode::Applied => nl::DM_REPLICATE_MODE_APPLIED,
    }
}

fn state(state: State) -> u32 {
    match state {
        State::Idle => nl::DM_REPLICATE_LINK_STATE_IDLE,
        State::Connecting => nl::DM_REPLICATE_LINK_STATE_CONNECTING,
        State::Handshake => nl::DM_REPLICATE_LINK_STATE_HANDSHAKE,
        State::CatchingUp => nl::DM_REPLICATE_LINK_STATE_CATCHING_UP,
        State::Streaming => nl::DM_REPLICATE_LINK_STATE_STREAMING,
        State::Syncing => nl::DM_REPLICATE_LINK_STATE_SYNCING,
        State::NeedsSync => nl::DM_REPLICATE_LINK_STATE_NEEDS_SYNC,
        State::Refused => nl::DM_REPLICATE_LINK_STATE_REFUSED,
    }
}
