// SPDX-License-Identifier: GPL-2.0

//! The check by stamps: what a replica (or a recovered primary) shows must be explained by a prefix of
//! the order in which writes were issued and completed.
//!
//! A *required* write must be visible on every sector, unless something that is not older than it is
//! there instead. Required are, for each run: every write that had completed when a visible write was
//! issued; on demand the durable ones, or all acknowledged ones; and (with `atomic`) every visible write
//! itself, within one aligned piece, so that torn writes are found.

use std::collections::HashSet;

use crate::block::Op;
use crate::coverage::{Content, Contents, Coverage};
use crate::history::{History, WriteId};

/// Which acknowledged writes must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Require {
    None,
    /// FUA writes and those before a completed flush.
    Durable,
    /// Every acknowledged write of the last run, and the durable ones of earlier runs.
    Acked,
    /// Every acknowledged write of every run.
    AckedAll,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub require: Require,
    /// Whether a visible write needs those that had completed before it (not so on a plain disk).
    pub prefix: bool,
    /// Sectors of an aligned piece in which a write is not torn.
    pub atomic: Option<u64>,
    /// Violations to describe; all are counted.
    pub show: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub visible: u64,
    pub required: u64,
    /// Acknowledged writes that are gone on at least one sector.
    pub lost: u64,
    pub acked: u64,
    pub undefined_sectors: u64,
    pub violations: u64,
    pub messages: Vec<String>,
}

struct Required {
    issue: u64,
    floor: u64,
    id: WriteId,
}

/// Checks the images (by device) against the history.
pub fn check(history: &History, images: &[Contents], options: &Options) -> Report {
    let coverage: Vec<Coverage> = images
        .iter()
        .enumerate()
        .map(|(d, c)| Coverage::new(history, d as u16, c.len() as u64))
        .collect();
    let n = history.writes.len();
    let mut report = Report::default();

    // What is visible, and up to where each run must therefore be complete.
    let mut visible = vec![false; n];
    let mut pieces: HashSet<(WriteId, u64)> = HashSet::new();
    for contents in images {
        for (s, c) in contents.iter().enumerate() {
            if let Content::Write(id) = c {
                visible[*id as usize] = true;
                if let Some(piece) = options.atomic {
                    pieces.insert((*id, s as u64 / piece));
                }
            }
        }
    }
    report.visible = visible.iter().filter(|v| **v).count() as u64;
    let mut issued = vec![0u64; history.runs()];
    let mut floors = vec![0u64; history.runs()];
    for (w, _) in history.writes.iter().zip(&visible).filter(|(_, v)| **v) {
        issued[w.run_index] = issued[w.run_index].max(w.issue);
        floors[w.run_index] = floors[w.run_index].max(w.floor);
    }
    let last_visible_run = issued.iter().rposition(|i| *i > 0);

    let durable = history.durable();
    let last_run = history.runs().saturating_sub(1);
    let required: Vec<bool> = history
        .writes
        .iter()
        .enumerate()
        .map(|(i, w)| {
            if w.failed || w.op() == Op::Sync || w.op() == Op::Discard {
                return false;
            }
            let before =
                w.issue <= floors[w.run_index] || w.done.is_some_and(|d| d < issued[w.run_index]);
            let earlier = durable[i] && last_visible_run.is_some_and(|r| w.run_index < r);
            let demanded = match options.require {
                Require::None => false,
                Require::Durable => durable[i],
                Require::Acked => durable[i] || (w.done.is_some() && w.run_index == last_run),
                Require::AckedAll => w.done.is_some(),
            };
            demanded || (options.prefix && (before || earlier))
        })
        .collect();
    report.required = required.iter().filter(|r| **r).count() as u64;

    let mut lost: HashSet<WriteId> = HashSet::new();
    for (d, contents) in images.iter().enumerate() {
        for (s, content) in contents.iter().enumerate() {
            let s = s as u64;
            let over = coverage[d].of(s);
            let checker = Checker {
                history,
                over,
                content: *content,
            };
            checker.lost(&mut lost);
            let mut need: Option<Required> = None;
            for id in over {
                let w = history.get(*id);
                let whole = options
                    .atomic
                    .is_some_and(|p| pieces.contains(&(*id, s / p)));
                if required[*id as usize] || (whole && w.op().stamps()) {
                    let r = need.get_or_insert(Required {
                        issue: 0,
                        floor: 0,
                        id: *id,
                    });
                    if w.issue > r.issue {
                        r.issue = w.issue;
                        r.id = *id;
                    }
                    r.floor = r.floor.max(w.floor);
                }
            }
            match checker.against(need.as_ref()) {
                Verdict::Good => (),
                Verdict::Undefined => report.undefined_sectors += 1,
                Verdict::Bad(text) => {
                    report.violations += 1;
                    if report.messages.len() < options.show {
                        report
                            .messages
                            .push(format!("device {d} sector {s}: {text}"));
                    }
                }
            }
        }
    }
    report.lost = lost.len() as u64;
    report.acked = history
        .writes
        .iter()
        .filter(|w| w.done.is_some() && w.op() != Op::Sync)
        .count() as u64;
    report
}

enum Verdict {
    Good,
    Undefined,
    Bad(String),
}

struct Checker<'a> {
    history: &'a History,
    over: &'a [WriteId],
    content: Content,
}

impl Checker<'_> {
    /// Whether this write can be the last one on the sector when `issue` and `floor` are required.
    fn can_be_last(&self, id: WriteId, issue: u64, floor: u64) -> bool {
        self.history.settled(id) >= issue && self.history.get(id).issue > floor
    }

    fn excused(&self, op: Op, issue: u64, floor: u64) -> bool {
        self.over
            .iter()
            .any(|id| self.history.get(*id).op() == op && self.can_be_last(*id, issue, floor))
    }

    fn against(&self, need: Option<&Required>) -> Verdict {
        let (issue, floor) = need.map_or((0, 0), |r| (r.issue, r.floor));
        if self.excused(Op::Discard, issue, floor) {
            return Verdict::Undefined;
        }
        let but = |what: String| match need {
            Some(r) => Verdict::Bad(format!("{what}, but needs {}", self.history.name(r.id))),
            None => Verdict::Bad(what),
        };
        match self.content {
            Content::Broken => but("holds a damaged stamp".into()),
            Content::Misplaced(id) => but(format!(
                "holds data of another place: {}",
                self.history.name(id)
            )),
            _ if need.is_none() => Verdict::Good,
            Content::Write(id) if self.can_be_last(id, issue, floor) => Verdict::Good,
            Content::Write(id) => but(format!("shows the older {}", self.history.name(id))),
            Content::Zero if self.excused(Op::Zero, issue, floor) => Verdict::Good,
            Content::Zero => but("is zero".into()),
            Content::Other => but("holds data that no writer wrote".into()),
        }
    }

    /// Adds the acknowledged writes that this sector shows to be gone.
    fn lost(&self, lost: &mut HashSet<WriteId>) {
        for id in self.over {
            let w = self.history.get(*id);
            if w.done.is_none() || w.failed || !w.op().stamps() || lost.contains(id) {
                continue;
            }
            if let Content::Write(there) = self.content {
                if self.can_be_last(there, w.issue, w.floor) {
                    continue;
                }
            }
            let need = Required {
                issue: w.issue,
                floor: w.floor,
                id: *id,
            };
            if matches!(self.against(Some(&need)), Verdict::Bad(_)) {
                lost.insert(*id);
            }
        }
    }
}
