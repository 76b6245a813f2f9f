// SPDX-License-Identifier: GPL-2.0

//! The check for a replica without a ring after a crash of its own: the records that are visible must
//! be closed under `depends_on`. With M the highest `depends_on` of a visible record, everything up to M
//! is there (or overwritten by a later record); records above M were concurrent with all that is visible
//! and may be there or not, whole or in part.
//!
//! Where several records would leave the same bytes, the reading that needs the smallest M is taken.

use crate::order::Record;
use crate::replay::{Left, Position, Timeline};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The position up to which everything had to be there.
    pub closed_up_to: Position,
    /// The highest record that is visible.
    pub highest: Position,
    pub violations: u64,
    pub messages: Vec<String>,
}

/// The position of the last record with a seq at or below `seq`.
pub fn position_of(order: &[Record], seq: u64) -> Position {
    order.partition_point(|r| r.seq <= seq) as Position
}

/// A record that the content of a sector may come from.
#[derive(Clone, Copy)]
struct Candidate {
    at: Position,
    depends: Position,
    sure: bool,
}

/// Checks all volumes together.
pub fn check(volumes: &[Timeline], order: &[Record], show: usize) -> Report {
    let depends: Vec<Position> = order
        .iter()
        .map(|r| position_of(order, r.depends_on))
        .collect();
    let mut report = Report::default();
    // M only grows, so this ends.
    let mut up_to = 0;
    loop {
        let mut next = up_to;
        report.highest = 0;
        for (device, v) in volumes.iter().enumerate() {
            for s in 0..v.sectors() {
                match verify(v, s, up_to, &depends) {
                    Ok(c) => {
                        if c.sure {
                            next = next.max(c.depends);
                            report.highest = report.highest.max(c.at);
                        }
                    }
                    Err(needs) => {
                        report.violations += 1;
                        if report.messages.len() < show {
                            report.messages.push(format!(
                                "volume {device} sector {s}: must hold {} or a later record \
                                 (everything up to {} is depended on), and holds {}",
                                name(order, needs),
                                name(order, up_to),
                                holds(v, s, order)
                            ));
                        }
                    }
                }
            }
        }
        report.closed_up_to = up_to;
        if report.violations > 0 || next == up_to {
            return report;
        }
        up_to = next;
    }
}

/// The candidate with the smallest dependency at or above what `up_to` demands, or the demand.
fn verify(
    v: &Timeline,
    s: usize,
    up_to: Position,
    depends: &[Position],
) -> Result<Candidate, Position> {
    let mut needs = 0;
    let mut best: Option<Candidate> = None;
    for (from, _, left) in v.stretches(s) {
        if from <= up_to {
            // Everything before the last record that must be there is out.
            needs = from;
            best = None;
        }
        if !v.allows(s, left) {
            continue;
        }
        let c = Candidate {
            at: from,
            depends: match from {
                0 => 0,
                p => depends[p as usize - 1],
            },
            sure: matches!(left, Left::Data(_)) && from > 0,
        };
        // Undefined content may be there for any reason: it shows nothing to be visible.
        let weight = |c: &Candidate| if c.sure { c.depends } else { 0 };
        if best.as_ref().is_none_or(|b| weight(&c) < weight(b)) {
            best = Some(c);
        }
    }
    best.ok_or(needs)
}

pub fn name(order: &[Record], at: Position) -> String {
    match at.checked_sub(1).and_then(|i| order.get(i as usize)) {
        None => "the base".into(),
        Some(r) => format!(
            "seq {} ({:?} volume {} sectors {}+{}, depends on {})",
            r.seq, r.op, r.volume, r.sector, r.sectors, r.depends_on
        ),
    }
}

/// What the sector's content is, by the order.
pub fn holds(v: &Timeline, s: usize, order: &[Record]) -> String {
    let fits: Vec<Position> = v
        .stretches(s)
        .filter(|(_, _, l)| v.allows(s, *l))
        .map(|(from, _, _)| from)
        .collect();
    match fits.last() {
        None => "something that no record wrote".into(),
        Some(p) => name(order, *p),
    }
}
