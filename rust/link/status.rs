// SPDX-License-Identifier: GPL-2.0

//! What a link shows of itself: a copy of everything at one moment, for netlink and `dmsetup status`.

use super::Link;
use crate::{group::Group, reason::Reason, refuse::Text};
use kernel::sync::atomic::Relaxed;
use replicate_core::{
    group::Mode,
    node::{behind::Behind, Role},
    session::state::State,
    units::{HostId, Seq},
};
use replicate_linux::clock;

/// A link at one moment. Counters are read from [`Link::stats`].
pub(crate) struct Snapshot {
    pub(crate) state: State,
    pub(crate) mode: Mode,
    pub(crate) in_sync: bool,
    pub(crate) reason: Reason,
    pub(crate) text: Option<Text>,
    pub(crate) since_ns: u64,
    /// `HostId::NONE` until it has been met.
    pub(crate) peer_host: HostId,
    /// Of a primary only.
    pub(crate) sent: Option<Seq>,
    pub(crate) received: Seq,
    pub(crate) logged: Seq,
    pub(crate) applied: Seq,
    pub(crate) behind_records: u64,
    pub(crate) behind_bytes: u64,
    pub(crate) behind_ms: u64,
    /// 0: not measured.
    pub(crate) rtt_us: u64,
    /// Done and total bytes of a synchronisation under way.
    pub(crate) sync: Option<(u64, u64)>,
    /// When the peer was last heard, ns since 1970; 0: never.
    pub(crate) last_rx_ns: u64,
    pub(crate) window_bytes: u64,
}

impl Link {
    /// Name of its state.
    pub(crate) fn state_name(&self) -> &'static str {
        self.view.lock().shown.name()
    }

    /// Everything at one moment. May sleep.
    pub(crate) fn status(&self, group: &Group) -> Snapshot {
        let (role, mode, in_sync, acks, behind) = {
            let inner = group.inner.lock();
            let e = &inner.node;
            let p = e.positions.get(self.id).copied();
            let role = e.role();
            let (mode, in_sync) = p.map_or((Mode::Async, false), |p| (p.mode, p.in_sync));
            let acks = p.map_or((Seq::NONE, Seq::NONE, Seq::NONE), |p| {
                (p.received, p.logged.max(p.kept), p.applied)
            });
            let behind = match role {
                Role::Primary => e.behind(acks.1),
                Role::Secondary => Behind::default(),
            };
            (role, mode, in_sync, acks, behind)
        };
        let now = clock::wall_ns();
        let v = self.view.lock();
        let text = v.text.as_ref();
        let text = text.map(|t| Text::new(format_args!("{}", t.as_str())));
        let (acks, behind_records) = match role {
            Role::Primary => (acks, behind.records),
            Role::Secondary => (
                (v.acked.received, v.acked.logged, v.acked.applied),
                v.peer_head.since(v.acked.logged),
            ),
        };
        let sync = match role {
            Role::Primary => v.syncs.wanted().map(|_| v.sync.unwrap_or_default()),
            Role::Secondary => v.sync,
        };
        let since = if behind.since_ns > 0 {
            behind.since_ns
        } else {
            v.level_ns
        };
        Snapshot {
            state: v.shown,
            mode,
            in_sync: in_sync || (role == Role::Secondary && v.told_in_sync && self.is_connected()),
            reason: v.reason,
            text,
            since_ns: v.since_ns,
            peer_host: v.peer_host,
            sent: (role == Role::Primary).then(|| Seq(self.sent.load(Relaxed))),
            received: acks.0,
            logged: acks.1,
            applied: acks.2,
            behind_records,
            behind_bytes: behind.bytes,
            behind_ms: if behind_records > 0 && since > 0 {
                now.saturating_sub(since) / 1_000_000
            } else {
                0
            },
            rtt_us: self.rtt_us.load(Relaxed),
            sync: sync.map(|j| (j.done_bytes, j.total_bytes)),
            last_rx_ns: self.last_rx_ns.load(Relaxed),
            window_bytes: self.window_bytes(group),
        }
    }
}
