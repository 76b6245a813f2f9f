// SPDX-License-Identifier: GPL-2.0

//! A host's own work, step by step: log writes and flushes, the applier, checkpoints, a takeover's superblock.

use std::rc::Rc;

use replicate_core::{
    log::recovery::Epochs,
    node::{apply::Apply, durable, Log},
    units::Seq,
};

use crate::{
    config::Config,
    disk::Batch,
    event::Ev,
    host::{writes_of, Host, Why, LINK},
    sb::epoch_id,
};

impl Host {
    /// Starts a log write if the writer has one.
    pub fn start_batch(&mut self) -> bool {
        let Host {
            on: Some(on),
            sb,
            log,
            ..
        } = self
        else {
            return false;
        };
        let Some(plan) = on.node.plan_batch(&sb.lineage()) else {
            return false;
        };
        let mut records = Vec::new();
        let mut seq = plan.first;
        while seq <= plan.last {
            records.push(
                on.node
                    .window
                    .get(seq)
                    .expect("planned records are in memory")
                    .record,
            );
            seq = seq.next();
        }
        let epoch = Epochs::epoch_of(&sb.lineage(), plan.first).0;
        let batch = Rc::new(Batch {
            place: plan.place,
            length: plan.length.0,
            epoch,
            durable: plan.durable,
            chain: plan.chain,
            records,
        });
        log.write(batch.clone());
        on.batches[plan.id] = Some((batch, plan.fua));
        true
    }

    pub fn batch_done(&mut self, cfg: &Config, id: usize) {
        let on = self.on.as_mut().expect("host is up");
        let (batch, fua) = on.batches[id].take().expect("in flight");
        self.log.ended(&batch, fua || !cfg.volatile);
        on.node.batch_done(id, true);
    }

    /// A device fails. `false`: nothing was under way that could.
    pub fn fails(&mut self, ev: Ev) -> bool {
        match ev {
            Ev::BatchFails(_, id) => {
                // As if it were still on its way: any part of it may be there, no flush covers it.
                let on = self.on_mut();
                on.batches[id] = None;
                on.node.batch_done(id, false);
            }
            Ev::LogFlushFails(_) => {
                if !self.on().log_flush && !self.start_log_flush() {
                    return false;
                }
                self.log.flush_fails();
                let on = self.on_mut();
                on.log_flush = false;
                on.node.flush_done(false);
            }
            Ev::RoundFails(_, taken) => {
                let round = std::mem::take(&mut self.on_mut().round);
                if taken {
                    for (b, v) in round {
                        self.vols[b].write(v);
                    }
                } else {
                    self.lose_caches();
                }
                let on = self.on_mut();
                on.failed = true;
                on.node.data_device_failed();
                on.node.round_done(false);
            }
            Ev::CopyFails(_) => {
                let on = self.on_mut();
                on.copying.clear();
                on.failed = true;
                on.node.data_device_failed();
                on.node.copy_abandoned();
            }
            Ev::DataFlushFails(_) => {
                self.lose_caches();
                let on = self.on_mut();
                on.failed = true;
                on.checkpoint = None;
                on.node.data_device_failed();
            }
            _ => return false,
        }
        true
    }

    fn lose_caches(&mut self) {
        for b in &mut self.vols {
            b.cache.clear();
            b.marked = 0;
        }
    }

    pub fn can_flush_log(&self) -> bool {
        self.on
            .as_ref()
            .is_some_and(|on| !on.log_flush && on.node.written() > on.node.commit())
    }

    pub fn start_log_flush(&mut self) -> bool {
        let on = self.on.as_mut().expect("host is up");
        on.node.demand_all();
        if !on.node.plan_flush() {
            return false;
        }
        on.log_flush = true;
        self.log.flush_begins();
        true
    }

    pub fn end_log_flush(&mut self) {
        self.log.flush_ends();
        let on = self.on_mut();
        on.log_flush = false;
        on.node.flush_done(true);
    }

    /// The applier's next step. `false`: nothing to do.
    pub fn apply(&mut self, cfg: &Config) -> bool {
        let on = self.on.as_mut().expect("host is up");
        match on.node.plan_apply() {
            None => false,
            Some(Apply::Round { first, last }) => {
                let mut seq = first;
                while seq <= last {
                    let s = on
                        .node
                        .window
                        .get(seq)
                        .expect("in memory until it is applied");
                    if !s.superseded {
                        on.round.extend(writes_of(cfg, &s.record));
                    }
                    seq = seq.next();
                }
                true
            }
            Some(Apply::Horizon { horizon, redo }) => {
                if self.pending.is_some() {
                    return false;
                }
                let sb = self
                    .sb
                    .changed(|sb| durable::checkpoint::raise_horizon(sb, horizon, redo));
                self.pending = Some((sb, Why::Horizon(horizon, redo)));
                true
            }
            Some(Apply::FlushData) => {
                let upto = on.node.applier.applied();
                for b in &mut self.vols {
                    b.flush_begins();
                    b.flush_ends();
                }
                on.node.data_flushed(upto);
                true
            }
        }
    }

    /// The round's writes ended; `reversed`: the device took them the other way round.
    pub fn round_done(&mut self, reversed: bool) {
        let on = self.on.as_mut().expect("host is up");
        let mut round = std::mem::take(&mut on.round);
        if reversed {
            round.reverse();
        }
        for (b, v) in round {
            self.vols[b].write(v);
        }
        on.node.round_done(true);
    }

    pub fn round_conflicts(&self) -> bool {
        let round = &self.on().round;
        (0..round.len()).any(|i| round[i + 1..].iter().any(|w| w.0 == round[i].0))
    }

    /// `false`: there is nothing that it could state.
    pub fn checkpoint_begins(&mut self) -> bool {
        let on = self.on.as_mut().expect("host is up");
        on.checkpoint = on.node.checkpoint_begin();
        if on.checkpoint.is_none() {
            return false;
        }
        for b in &mut self.vols {
            b.flush_begins();
        }
        true
    }

    /// The flush ended: the superblock is on its way.
    pub fn checkpoint_flushed(&mut self) {
        let on = self.on.as_mut().expect("host is up");
        let begun = on.checkpoint.take().expect("begun");
        for b in &mut self.vols {
            b.flush_ends();
            b.marked = 0;
        }
        let Some(flushed) = on.node.checkpoint_flushed(begun) else {
            return;
        };
        let update = on.node.checkpoint_update(flushed);
        let image = on.node.checkpoint_image(update, None);
        let cursor = on.sender.as_ref().and_then(|s| s.copies.as_ref());
        let cursor = cursor.map(|c| c.cursor());
        let sb = self.sb.changed(|sb| {
            durable::checkpoint::checkpoint(sb, &image);
            // The module says now and then how far the copies are; here it comes with the checkpoint.
            if let Some(at) = cursor {
                let _ = durable::links::sync_moved(sb, LINK, at, None);
            }
        });
        self.pending = Some((sb, Why::Checkpoint(update)));
    }

    /// Whether the log can be cut now: nothing in flight.
    pub fn is_idle(&self) -> bool {
        let on = self.on();
        let writer_idle = match &on.node.log {
            Log::Ring(w) => w.is_idle(),
            Log::NoRing(_) => true,
        };
        writer_idle && self.pending.is_none()
    }

    /// Everything up to `end` is durable: the superblock with the new epoch goes out.
    pub fn take_over(&mut self, cfg: &Config, end: Seq, epoch: u8) {
        let t = durable::takeover::TakeOver {
            end,
            epoch: epoch_id(epoch),
            time_ns: 0,
            limits: cfg.limits,
        };
        let volumes: Vec<_> = self.sb.volumes().collect();
        let edited = self
            .sb
            .edit(|sb| durable::takeover::take_over(sb, &t, volumes.into_iter()));
        let sb = edited.expect("the history is short");
        self.pending = Some((sb, Why::TakeOver(end)));
    }
}
