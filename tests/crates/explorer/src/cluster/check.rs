// SPDX-License-Identifier: GPL-2.0

//! What must hold in every state of a cluster.

use replicate_core::{group::Mode, node::Role, units::Seq};

use super::{act::is_named, Cluster, End, Ev, Host, State, BLOCKS};
use crate::{
    config::BLOCK_SECTORS,
    host::wid,
    world::{broken, Broken},
};

impl Host {
    /// Records that it holds, in memory or on stable storage, in the order of their seqs.
    fn held(&self) -> Vec<replicate_core::units::Record> {
        let mut all: Vec<_> = self.log.iter().flat_map(|l| l.records.clone()).collect();
        if let Some(on) = &self.on {
            let w = &on.node.window;
            let (from, to) = (w.base().0 + 1, w.base().0 + w.capacity());
            all.extend((from..=to).filter_map(|s| w.held(Seq(s))));
        }
        all
    }
}

impl State {
    /// Every promise that can be checked in this state.
    pub fn check(&self) -> Result<(), Broken> {
        for (h, host) in self.hosts.iter().enumerate() {
            // P7, P8: what it holds at a place is what its history has there, and nothing else.
            for r in host.held() {
                if self.record(&host.sb, r.seq) != Some(r) {
                    return broken(format!(
                        "P8: host {h} holds write {} as record {} of its history {:?}, which has {:?} there",
                        wid(&r),
                        r.seq,
                        host.sb.line,
                        self.record(&host.sb, r.seq).map(|r| wid(&r)),
                    ));
                }
            }
            // P3: its volume is one point of that history.
            if !self.is_a_point(host) {
                return broken(format!(
                    "P3: host {h} has {:?} on its volume, which is no point of its history {:?}",
                    host.vol, host.sb.line
                ));
            }
        }
        Ok(())
    }

    fn is_a_point(&self, host: &Host) -> bool {
        let mut image = [0; BLOCKS];
        let mut seq = Seq::NONE;
        loop {
            if image == host.vol {
                return true;
            }
            seq = seq.next();
            let Some(r) = self.record(&host.sb, seq) else {
                return false;
            };
            image[(r.range.sector.0 / u64::from(BLOCK_SECTORS)) as usize] = wid(&r);
        }
    }

    /// P8: host `p` believes that `s`, with which it has a session, holds its own records up to `upto`.
    pub fn check_levels(&self, p: usize, s: usize, upto: Seq) -> Result<(), Broken> {
        let (ours, theirs) = (&self.hosts[p].sb, &self.hosts[s].sb);
        for seq in (1..=upto.0).map(Seq) {
            if ours.epoch(seq) != theirs.epoch(seq) {
                return broken(format!(
                    "P8: host {s} acknowledges record {seq} of epoch {} to host {p}, whose record {seq} is of epoch {}",
                    theirs.epoch(seq),
                    ours.epoch(seq)
                ));
            }
        }
        Ok(())
    }

    /// A write of primary `h` completes.
    pub fn completed(&self, cfg: &Cluster, h: usize, seq: Seq) -> Result<(), Broken> {
        for (l, ends) in cfg.links.iter().enumerate() {
            let on = self.hosts[h].on();
            let in_sync = on
                .node
                .positions
                .get(replicate_core::node::links::LinkId(l as u8))
                .is_some_and(|p| p.in_sync);
            if !in_sync || (ends.0 != h && ends.1 != h) {
                continue;
            }
            let s = if ends.0 == h { ends.1 } else { ends.0 };
            let peer = &self.hosts[s];
            let session = |h: usize| self.end(h, l).map(End::session);
            // P2: a peer that failed has promised nothing of what came after.
            let bound =
                session(h) == session(s) || peer.on.as_ref().is_some_and(|on| on.node.has_failed());
            if bound && peer.failed_at.is_some_and(|at| seq > at) {
                return broken(format!(
                    "P2: {seq} completed in-sync on host {s}, whose log failed before it came"
                ));
            }
            let holds = match cfg.mode {
                Mode::Async => true,
                Mode::Received => {
                    session(h) != session(s) || peer.on.is_none() || peer.on().node.head() >= seq
                }
                Mode::Logged | Mode::Applied => {
                    peer.sb.epoch(seq) != self.hosts[h].sb.epoch(seq) || peer.durable() >= seq
                }
            };
            if !holds {
                return broken(format!(
                    "P2: {seq} completed in-sync, and host {s} lacks it"
                ));
            }
        }
        Ok(())
    }

    /// P3: what completed on a primary for which host `h` is in-sync is here.
    pub fn check_takeover(&self, cfg: &Cluster, h: usize) -> Result<(), Broken> {
        let end = self.hosts[h].on().taking.expect("begun");
        for (l, ends) in cfg.links.iter().enumerate() {
            if ends.0 != h && ends.1 != h {
                continue;
            }
            let p = if ends.0 == h { ends.1 } else { ends.0 };
            let Some(on) = &self.hosts[p].on else {
                continue;
            };
            let id = replicate_core::node::links::LinkId(l as u8);
            let in_sync = on.node.positions.get(id).is_some_and(|p| p.in_sync);
            let durable = matches!(cfg.mode, Mode::Logged | Mode::Applied);
            let same = self.hosts[h].sb.line == self.hosts[p].sb.line;
            if in_sync && durable && same && on.node.flush_target() > end {
                return broken(format!(
                    "P3: host {h} takes over at {end}, {} had completed in-sync with it",
                    on.node.flush_target()
                ));
            }
        }
        Ok(())
    }

    /// P9: nothing but a fault or a command can happen any more. Then every write has completed, and every link streams
    /// and is level, or says why not.
    pub fn check_rest(&self, cfg: &Cluster, left: &[Ev]) -> Result<(), Broken> {
        debug_assert!(left.iter().all(Ev::is_fault));
        for (h, host) in self.hosts.iter().enumerate() {
            let Some(on) = &host.on else {
                return broken(format!("P9: host {h} does not start"));
            };
            let waits = on.node.role() == Role::Primary && on.node.flush_target() < on.node.head();
            if waits && !on.node.has_failed() {
                return broken(format!("P9: a write of host {h} never completes"));
            }
        }
        for (l, ends) in cfg.links.iter().enumerate() {
            let role = |h: usize| self.hosts[h].on().node.role();
            let (p, s) = match (role(ends.0), role(ends.1)) {
                (Role::Primary, Role::Secondary) => (ends.0, ends.1),
                (Role::Secondary, Role::Primary) => (ends.1, ends.0),
                // Two primaries are forked, two secondaries wait for a takeover.
                _ => continue,
            };
            if self.wires[l].cut || self.hosts[s].on().node.has_failed() {
                continue;
            }
            match (self.end(p, l), self.end(s, l)) {
                (Some(End::Sender(..)), Some(End::Receiver { .. })) => {
                    let (head, acks) = (
                        self.hosts[p].on().node.head(),
                        self.hosts[s].on().node.acks(),
                    );
                    if acks.logged < head {
                        return broken(format!("P9: link {l} streams and stops at {acks:?}"));
                    }
                }
                _ => match self.decide(p, s) {
                    Ok(d) if self.refusal(&d, p, s, l).is_none() => {
                        return broken(format!("P9: link {l} could go on, and does not"));
                    }
                    Ok(_) => {}
                    Err(why) if is_named(&why) => {}
                    Err(why) => return broken(format!("P9: link {l} is at an end: {why:?}")),
                },
            }
        }
        Ok(())
    }
}
