// SPDX-License-Identifier: GPL-2.0

//! Log flushes: when the log's device must empty its cache.

use super::{Kind, LogWorker};
use kernel::sync::atomic::Relaxed;
use replicate_core::{group::Mode, node::Role};
use replicate_linux::clock;

impl LogWorker {
    /// Starts a log flush where someone waits for one.
    pub(super) fn flush(&mut self) {
        let Some(unit) = self.flush.take() else {
            return;
        };
        let wanted = {
            let mut inner = self.group.inner.lock();
            let secondary = inner.node.role() == Role::Secondary;
            let at_once = secondary && self.group.flush_at_once.load(Relaxed);
            if !secondary || at_once {
                inner.node.demand_fua();
            }
            let age = clock::monotonic_ns().saturating_sub(inner.uncommitted_since);
            let s = &self.group.settings;
            let interval = u64::from(s.commit_interval_ms.load(Relaxed)) * 1_000_000;
            let due = inner.uncommitted_since != 0 && age >= interval
                || inner.uncommitted_bytes >= s.commit_bytes.load(Relaxed)
                || inner.wants_space
                || inner
                    .node
                    .positions
                    .iter()
                    .any(|(_, l)| l.gates() && l.mode == Mode::Applied)
                || at_once;
            if due {
                inner.node.demand_all();
            }
            if inner.node.commit() >= inner.node.head() {
                inner.uncommitted_since = 0;
                inner.uncommitted_bytes = 0;
            }
            inner.node.plan_flush()
        };
        if wanted {
            self.group.stats.flushes.add(1);
            let queue = &self.group.log_io.queue;
            unit.flush(self.group.srl.dev(), 0, Kind::Flush, queue);
        } else {
            self.flush = Some(unit);
        }
    }
}
