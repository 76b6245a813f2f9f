// SPDX-License-Identifier: GPL-2.0

//! Log writes, flushes and completions: the upper half of a record's life.

use super::{Log, Memory, Node, Role};
use crate::{
    log::{recovery::Epochs, writer::Plan},
    units::Seq,
};

impl<M: Memory> Node<M> {
    /// The next log write, if one should start. All its records are of the epoch of its first.
    pub fn plan_batch(&mut self, lineage: &impl Epochs) -> Option<Plan> {
        match &mut self.log {
            Log::Ring(w) => w.plan(&self.window, lineage),
            Log::NoRing(_) => None,
        }
    }

    /// A log write ended.
    pub fn batch_done(&mut self, id: usize, ok: bool) {
        if let Log::Ring(w) = &mut self.log {
            w.written(id, ok);
        }
    }

    /// Somebody waits for `seq` to be durable in the log.
    pub fn demand(&mut self, seq: Seq) {
        if let Log::Ring(w) = &mut self.log {
            w.demand(seq);
        }
    }

    /// Everything written so far shall be committed: the commit interval ended, or enough has gathered.
    pub fn demand_all(&mut self) {
        let seq = self.written();
        self.demand(seq);
    }

    /// Whether the log device must be flushed now; the target was sampled. Report with [`Self::flush_done`].
    #[must_use]
    pub fn plan_flush(&mut self) -> bool {
        match &mut self.log {
            Log::Ring(w) => w.plan_flush(),
            Log::NoRing(_) => false,
        }
    }

    /// The log flush ended.
    pub fn flush_done(&mut self, ok: bool) {
        if let Log::Ring(w) = &mut self.log {
            w.flushed(ok);
        }
    }

    /// The log failed: no write completes any more, none is admitted.
    pub fn log_failed(&self) -> bool {
        match &self.log {
            Log::Ring(w) => w.has_failed(),
            Log::NoRing(_) => false,
        }
    }

    /// Gap-free written prefix of the log.
    pub fn written(&self) -> Seq {
        match &self.log {
            Log::Ring(w) => w.written_prefix(),
            Log::NoRing(n) => n.durable,
        }
    }

    /// The commit point: what this host cannot lose any more.
    pub fn commit(&self) -> Seq {
        match &self.log {
            Log::Ring(w) => w.commit_point(),
            Log::NoRing(n) => n.durable,
        }
    }

    /// The next record whose bio completes now, if any. Publishing comes first, by construction.
    pub fn next_release(&mut self) -> Option<Seq> {
        if self.role != Role::Primary || self.log_failed() {
            return None;
        }
        let plain = self.written().min(self.positions.sync_limit());
        let fua = self.commit().min(plain);
        let window = &self.window;
        let seq = self
            .gate
            .next(plain, fua, |s| window.get(s).is_some_and(|s| s.record.fua))?;
        if let Some(s) = self.window.get_mut(seq) {
            s.released = true;
        }
        Some(seq)
    }

    /// What a flush that arrives now must wait for: the highest seq completed so far.
    pub fn flush_target(&self) -> Seq {
        self.gate.published()
    }

    /// Whether a flush with that target may complete; demands the log flush where not.
    pub fn flush_ready(&mut self, target: Seq) -> bool {
        if self.log_failed() {
            return false;
        }
        // After recovery everything recovered is durable, whatever it was published as.
        if self.commit() >= target {
            return true;
        }
        self.demand(target);
        false
    }

    /// Demands flushes for FUA records that are written but not committed.
    pub fn demand_fua(&mut self) {
        if let Some(seq) = self.window.newest_fua(self.commit(), self.written()) {
            self.demand(seq);
        }
    }
}
