// SPDX-License-Identifier: GPL-2.0

//! Log flushes: when the log's device must empty its cache.

use super::{Kind, LogWorker};
use kernel::sync::atomic::Relaxed;
use replicate_core::{engine::Role, group::Mode};
use replicate_linux::clock;

impl LogWorker {
    /// Starts a log flush where someone waits for one.
    pub(super) fn flush(&mut self) {
        let Some(unit) = self.flush.take() else {
            return;
        };
        let wanted = {
            let mut o = self.group.order.lock();
            let secondary = o.engine.role() == Role::Secondary;
            let at_once = secondary && self.group.flush_at_once.load(Relaxed);
            if !secondary || at_once {
                o.engine.demand_fua();
            }
            let age = clock::monotonic_ns().saturating_sub(o.uncommitted_since);
            let s = &self.group.settings;
            let interval = u64::from(s.commit_interval_ms.load(Relaxed)) * 1_000_000;
            let due = o.uncommitted_since != 0 && age >= interval
                || o.uncommitted_bytes >= s.commit_bytes.load(Relaxed)
                || o.wants_space
                || o.engine
                    .positions
                    .iter()
                    .any(|(_, l)| l.gates() && l.mode == Mode::Applied)
                || at_once;
            if due {
                o.engine.demand_all();
            }
            if o.engine.commit() >= o.engine.head() {
                o.uncommitted_since = 0;
                o.uncommitted_bytes = 0;
            }
            o.engine.plan_flush()
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
