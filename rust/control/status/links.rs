// SPDX-License-Identifier: GPL-2.0

//! What is told of a link.

use crate::{
    group::Group,
    link::Link,
    refuse::Text,
    uapi::{self as nl, a_link as l, a_link_stats as s},
};
use kernel::{prelude::*, sync::atomic::Relaxed};
use replicate_core::{group::Mode, session::state::State, units::Seq};
use replicate_linux::genl::Message;

/// Adds a link to the nest that is open. May sleep.
pub(super) fn tell(m: &mut Message, group: &Group, link: &Link) -> Result {
    let now = link.status(group);
    m.str(l::NAME, link.name.as_str())?;
    m.fmt(l::LOCAL, format_args!("{}", link.local))?;
    m.fmt(l::PEER, format_args!("{}", link.peer))?;
    m.u32(l::MODE, mode(now.mode) as u32)?;
    m.u32(l::ON_DISCONNECT, nl::OnDisconnect::Async as u32)?;
    m.u32(l::ON_LOG_FULL, nl::OnLogFull::NeedsSync as u32)?;
    let set = &link.settings;
    m.u32(l::HEARTBEAT_MS, set.heartbeat_ms.load(Relaxed))?;
    m.u32(l::PEER_TIMEOUT_MS, set.peer_timeout_ms.load(Relaxed))?;
    m.u32(
        l::PROGRESS_TIMEOUT_MS,
        set.progress_timeout_ms.load(Relaxed),
    )?;
    m.uint(l::WINDOW_BYTES, now.window_bytes)?;
    m.u32(l::STATE, state(now.state) as u32)?;
    m.u32(l::REASON, now.reason.code())?;
    if let Some(text) = now.text.as_ref().map(Text::as_str) {
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
        m.u32(l::SYNC_KIND, nl::SyncKind::Full as u32)?;
        m.uint(l::SYNC_DONE_BYTES, done)?;
        m.uint(l::SYNC_TOTAL_BYTES, total)?;
    }
    if now.last_rx_ns > 0 {
        m.uint(l::CONTACT_NS, now.last_rx_ns)?;
    }
    m.u32(l::UNACKED_BYTES, link.unacked_bytes())?;
    m.u32(l::HANDSHAKES, link.handshakes.load(Relaxed))?;
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

fn mode(mode: Mode) -> nl::Mode {
    match mode {
        Mode::Async => nl::Mode::Async,
        Mode::Received => nl::Mode::Received,
        Mode::Logged => nl::Mode::Logged,
        Mode::Applied => nl::Mode::Applied,
    }
}

fn state(state: State) -> nl::LinkState {
    match state {
        State::Idle => nl::LinkState::Idle,
        State::Connecting => nl::LinkState::Connecting,
        State::Handshake => nl::LinkState::Handshake,
        State::CatchingUp => nl::LinkState::CatchingUp,
        State::Streaming => nl::LinkState::Streaming,
        State::Syncing => nl::LinkState::Syncing,
        State::NeedsSync => nl::LinkState::NeedsSync,
        State::Refused => nl::LinkState::Refused,
    }
}
