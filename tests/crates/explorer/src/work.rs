// SPDX-License-Identifier: GPL-2.0

//! A host's own work, step by step: log writes and flushes, the applier, checkpoints, a takeover's superblock.

use std::rc::Rc;

use replicate_core::{
    log::recovery::Epochs,
    node::{apply::Apply, durable, volumes::State, Log},
    units::{Seq, VolumeId},
};

use crate::{
    config::Config,
    disk::Batch,
    event::Ev,
    host::{writes_of, Host, Why},
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
    pub fn fails(&mut self, cfg: &Config, ev: Ev) -> bool {
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
                let volume = cfg.volume(round[0].0);
                if !taken {
                    self.lose_caches(cfg, volume);
                }
                for (b, v) in round {
                    if taken || !shares_disk(cfg, b, volume) {
                        self.vols[b].write(v);
                    }
                }
                let on = self.on_mut();
                on.failed = true;
                on.node.volume_failed(volume);
                on.node.round_done();
            }
            Ev::CopyFails(_) => {
                let on = self.on_mut();
                let volume = cfg.volume(on.copying[0].0);
                on.copying.clear();
                on.failed = true;
                on.node.volume_failed(volume);
                on.node.copy_abandoned();
            }
            Ev::DataFlushFails(_, volume) => {
                self.lose_caches(cfg, volume);
                let on = self.on_mut();
                on.failed = true;
                on.checkpoint = None;
                on.node.volume_failed(volume);
            }
            _ => return false,
        }
        true
    }

    fn lose_caches(&mut self, cfg: &Config, volume: VolumeId) {
        for (i, b) in self.vols.iter_mut().enumerate() {
            if shares_disk(cfg, i, volume) {
                b.cache.clear();
                b.marked = 0;
            }
        }
    }

    /// Everything that was written to the volume is durable.
    pub fn flush_volume(&mut self, cfg: &Config, volume: VolumeId) {
        for (i, b) in self.vols.iter_mut().enumerate() {
            if cfg.volume(i) == volume {
                b.flush_begins();
                b.flush_ends();
            }
        }
    }

    /// The next stretch of log for volumes that come back, a record at a time where data writes take time.
    pub fn replay(&mut self, cfg: &Config) -> Result<bool, String> {
        let found = self.scan(true);
        let on = self.on.as_mut().expect("host is up");
        let Some(replay) = on.node.plan_replay() else {
            return Ok(false);
        };
        let mut seq = replay.from;
        loop {
            let Some(record) = found.records.iter().find(|r| r.seq == seq) else {
                return Err(format!(
                    "the log gave up record {seq}, which a volume lacks"
                ));
            };
            if on.node.replays(record) {
                for (b, v) in writes_of(cfg, record) {
                    self.vols[b].write(v);
                }
            }
            if cfg.fine || seq >= replay.upto {
                break;
            }
            seq = seq.next();
        }
        on.node.replayed(replay, seq);
        Ok(true)
    }

    /// A volume that has everything again is flushed. `false`: there is none.
    pub fn replay_flush(&mut self, cfg: &Config) -> bool {
        let Some(volume) = self.on().node.volume_to_flush() else {
            return false;
        };
        self.flush_volume(cfg, volume);
        self.on_mut().node.volume_replayed(volume);
        true
    }

    /// Whether device-mapper may suspend the volume now: the applier stands still, what was written is on the device.
    pub fn can_suspend(&self, volume: VolumeId) -> bool {
        let on = self.on();
        let drained = match on.node.volumes.state(volume) {
            State::Active => on.node.applier.applied() >= on.node.head(),
            State::Waiting | State::Replaying | State::Replica => true,
            State::Absent | State::Suspended | State::Failed => false,
        };
        drained
            && on.node.applier.round().is_none()
            && on.checkpoint.is_none()
            && on.copying.is_empty()
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
    pub fn apply(&mut self, cfg: &Config) -> Result<bool, String> {
        let planned = self.on_mut().node.plan_apply();
        if let Some(Apply::Log { from, .. }) = planned {
            return self.apply_logged(cfg, from);
        }
        let on = self.on.as_mut().expect("host is up");
        Ok(match planned {
            None | Some(Apply::Log { .. }) => false,
            Some(Apply::Round { first, last }) => {
                let mut seq = first;
                while seq <= last {
                    let s = on
                        .node
                        .window
                        .get(seq)
                        .expect("in memory until it is applied");
                    if !s.superseded && on.node.writes(&s.record) {
                        on.round.extend(writes_of(cfg, &s.record));
                    }
                    seq = seq.next();
                }
                if on.round.is_empty() {
                    on.node.round_done();
                }
                true
            }
            Some(Apply::Horizon { horizon, redo }) => {
                if self.pending.is_some() {
                    return Ok(false);
                }
                let sb = self
                    .sb
                    .changed(|sb| durable::checkpoint::raise_horizon(sb, horizon, redo));
                self.pending = Some((sb, Why::Horizon(horizon, redo)));
                true
            }
            Some(Apply::FlushData) => {
                let upto = on.node.applier.point();
                for b in &mut self.vols {
                    b.flush_begins();
                    b.flush_ends();
                }
                on.node.data_flushed(upto);
                true
            }
        })
    }

    /// A round of records that are in the log only.
    fn apply_logged(&mut self, cfg: &Config, from: Seq) -> Result<bool, String> {
        let found = self.scan(true);
        let on = self.on.as_mut().expect("host is up");
        let read = found.records.iter().filter(|r| r.seq >= from).copied();
        if found.records.iter().all(|r| r.seq != from) {
            return Err(format!(
                "the log gave up record {from}, which is not applied"
            ));
        }
        let Some((first, last)) = on.node.begin_logged(read) else {
            return Ok(false);
        };
        for r in found.records.iter() {
            if first <= r.seq && r.seq <= last && on.node.writes(r) {
                on.round.extend(writes_of(cfg, r));
            }
        }
        if on.round.is_empty() {
            on.node.round_done();
        }
        Ok(true)
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
        on.node.round_done();
    }

    pub fn round_conflicts(&self) -> bool {
        let round = &self.on().round;
        (0..round.len()).any(|i| round[i + 1..].iter().any(|w| w.0 == round[i].0))
    }

    pub fn checkpoint_begins(&mut self, cfg: &Config) {
        let on = self.on.as_mut().expect("host is up");
        on.checkpoint = Some(on.node.checkpoint_begin());
        for (i, b) in self.vols.iter_mut().enumerate() {
            if on.node.flushes(cfg.volume(i)) {
                b.flush_begins();
            }
        }
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
        let image = on.node.checkpoint_image(update);
        let sb = self
            .sb
            .changed(|sb| durable::checkpoint::checkpoint(sb, &image));
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

/// Whether block `b` lies on the disk of `volume`.
fn shares_disk(cfg: &Config, b: usize, volume: VolumeId) -> bool {
    cfg.shared_disk || cfg.volume(b) == volume
}
