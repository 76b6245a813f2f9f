// SPDX-License-Identifier: GPL-2.0

//! All writes that are known, of one or several runs, from journals and from stamps found in images.
//!
//! Several runs (a guest that was killed and booted again) follow one another in the order of their
//! journals: a write of an earlier run that never completed is nevertheless older than every write of
//! a later run. Event numbers are made comparable by the index of the run in the upper bits.

use std::collections::HashMap;

use crate::block::{Op, Stamp};
use crate::journal::Event;

const RUN_SHIFT: u32 = 44;

/// Index of a write in the history.
pub type WriteId = u32;

/// One write; `stamp` is as written, the other numbers are comparable over runs.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub stamp: Stamp,
    pub run_index: usize,
    pub issue: u64,
    /// Everything at or below had completed when this was issued.
    pub floor: u64,
    /// When it was acknowledged.
    pub done: Option<u64>,
    pub failed: bool,
}

impl Write {
    pub fn op(&self) -> Op {
        self.stamp.op
    }

    pub fn end(&self) -> u64 {
        self.stamp.first + u64::from(self.stamp.sectors)
    }
}

#[derive(Debug, Default)]
pub struct History {
    pub writes: Vec<Write>,
    runs: Vec<u64>,
    journals: bool,
    index: HashMap<(u64, u64), WriteId>,
}

impl History {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Whether a stamp of this run belongs to the history: with journals, only the runs they name do.
    pub fn knows(&self, run: u64) -> bool {
        !self.journals || self.runs.contains(&run)
    }

    fn run_index(&mut self, run: u64) -> usize {
        match self.runs.iter().position(|r| *r == run) {
            Some(i) => i,
            None => {
                self.runs.push(run);
                self.runs.len() - 1
            }
        }
    }

    /// Adds a journal; journals come in the order of their runs.
    pub fn add_journal(&mut self, events: &[Event]) -> Result<(), String> {
        let mut run = None;
        self.journals = true;
        for e in events {
            match e {
                Event::Run { run: r, .. } => {
                    self.run_index(*r);
                    run = Some(*r);
                }
                Event::Issue(s) => {
                    run.ok_or("journal: an issue before any run")?;
                    self.learn(s);
                }
                Event::Done { issue, event } => {
                    let r = run.ok_or("journal: a completion before any run")?;
                    let w = self.of(r, *issue)?;
                    w.done = Some(((w.run_index as u64) << RUN_SHIFT) | event);
                }
                Event::Failed { issue, .. } => {
                    let r = run.ok_or("journal: a failure before any run")?;
                    self.of(r, *issue)?.failed = true;
                }
            }
        }
        Ok(())
    }

    fn of(&mut self, run: u64, issue: u64) -> Result<&mut Write, String> {
        let id = self
            .index
            .get(&(run, issue))
            .ok_or_else(|| format!("journal: completion of {issue}, which was never issued"))?;
        Ok(&mut self.writes[*id as usize])
    }

    /// The write of this stamp, added if it is new.
    pub fn learn(&mut self, s: &Stamp) -> WriteId {
        if let Some(id) = self.index.get(&(s.run, s.issue)) {
            return *id;
        }
        let run_index = self.run_index(s.run);
        let base = (run_index as u64) << RUN_SHIFT;
        let id = self.writes.len() as WriteId;
        self.writes.push(Write {
            stamp: *s,
            run_index,
            issue: base | s.issue,
            floor: base | s.floor,
            done: None,
            failed: false,
        });
        self.index.insert((s.run, s.issue), id);
        id
    }

    pub fn get(&self, id: WriteId) -> &Write {
        &self.writes[id as usize]
    }

    /// The latest event at which this write can still have been in flight.
    pub fn settled(&self, id: WriteId) -> u64 {
        let w = self.get(id);
        match w.done {
            Some(done) => done,
            None if w.run_index + 1 < self.runs.len() => (w.run_index as u64 + 1) << RUN_SHIFT,
            None => u64::MAX,
        }
    }

    /// Writes that had to survive any power cut: FUA, or completed before a flush of the same device
    /// that completed.
    pub fn durable(&self) -> Vec<bool> {
        let mut flushed: HashMap<(usize, u16), u64> = HashMap::new();
        for w in &self.writes {
            if w.op() == Op::Sync && w.done.is_some() && !w.failed {
                let until = flushed.entry((w.run_index, w.stamp.device)).or_default();
                *until = w.issue.max(*until);
            }
        }
        self.writes
            .iter()
            .map(|w| {
                let until = flushed.get(&(w.run_index, w.stamp.device)).copied();
                !w.failed
                    && w.op() != Op::Sync
                    && w.done.is_some_and(|done| {
                        w.op() == Op::Fua || until.is_some_and(|until| done < until)
                    })
            })
            .collect()
    }

    /// For messages.
    pub fn name(&self, id: WriteId) -> String {
        let w = self.get(id);
        let s = &w.stamp;
        format!(
            "{:?} {}.{} (run {:x}, issue {}, {}) device {} sectors {}+{}",
            s.op,
            s.writer,
            s.number,
            s.run,
            s.issue,
            match (w.done, w.failed) {
                (_, true) => "failed".into(),
                (Some(d), _) => format!("acknowledged at {}", d & ((1 << RUN_SHIFT) - 1)),
                (None, _) => "not acknowledged".into(),
            },
            s.device,
            s.first,
            s.sectors
        )
    }
}
