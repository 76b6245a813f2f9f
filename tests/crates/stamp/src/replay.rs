// SPDX-License-Identifier: GPL-2.0

//! The check by the order of record: the images of all volumes together must equal the replay of the
//! order up to one seq, on every sector, written or not.
//!
//! For every sector the order gives a history of contents; the image's content allows some stretches of
//! it. A seq that all sectors allow is the state the replica is in; without one, the replica is in no
//! state that ever was, and the report names two sectors that contradict each other.

use std::io;

use crate::coverage::{sectors, Image};
use crate::order::{Record, RecordOp};

/// Identity of a sector's content: a hash of its bytes.
pub type Hash = u64;

/// Place in the order: 0 is the base, `k` the state after the first `k` records.
pub type Position = u32;

/// What a record leaves on a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Data(Hash),
    /// Discarded, or of unknown content: anything may be there.
    Anything,
}

/// The contents of a record: one hash a sector, or nothing when it cannot be known.
pub type Payload = Option<Vec<Hash>>;

/// The base of a volume.
pub enum Base<'a> {
    Zero,
    Unknown,
    Image(&'a dyn Image),
}

/// The histories of all sectors of one volume, and what its image holds.
pub struct Timeline {
    start: Vec<u32>,
    entries: Vec<(Position, Left)>,
    base: Vec<Left>,
    pub found: Vec<Hash>,
}

pub fn hash_of(sector: &[u8]) -> Hash {
    crate::crc::mix64(sector)
}

pub fn zero_hash() -> Hash {
    hash_of(&[0; crate::SECTOR])
}

impl Timeline {
    /// Builds the timeline of the volume whose records are marked by `mine`.
    pub fn new(
        image: &dyn Image,
        base: &Base<'_>,
        order: &[Record],
        payloads: &[Payload],
        mine: impl Fn(&Record) -> bool,
    ) -> io::Result<Self> {
        let mut found = Vec::new();
        sectors(image, |_, s| found.push(hash_of(s)))?;
        let n = found.len();
        let zero = zero_hash();
        let mut bases = vec![Left::Data(zero); n];
        match base {
            Base::Zero => (),
            Base::Unknown => bases.fill(Left::Anything),
            Base::Image(b) => sectors(*b, |s, bytes| {
                if let Some(x) = bases.get_mut(s as usize) {
                    *x = Left::Data(hash_of(bytes));
                }
            })?,
        }
        let span = |r: &Record| {
            let end = r.sector.saturating_add(r.sectors).min(n as u64);
            (r.sector.min(end) as usize)..end as usize
        };
        let acts = |r: &&Record| r.op != RecordOp::Marker && mine(r);
        let mut start = vec![0u32; n + 1];
        for r in order.iter().filter(acts) {
            for s in span(r) {
                start[s + 1] += 1;
            }
        }
        for s in 0..n {
            start[s + 1] += start[s];
        }
        let mut next = start.clone();
        let mut entries = vec![(0, Left::Anything); start[n] as usize];
        for (i, r) in order.iter().enumerate().filter(|(_, r)| acts(r)) {
            for s in span(r) {
                let left = match (r.op, &payloads[i]) {
                    (RecordOp::Zero, _) => Left::Data(zero),
                    (RecordOp::Write, Some(p)) => {
                        let k = s - r.sector as usize;
                        p.get(k).map_or(Left::Anything, |h| Left::Data(*h))
                    }
                    _ => Left::Anything,
                };
                entries[next[s] as usize] = (i as Position + 1, left);
                next[s] += 1;
            }
        }
        Ok(Self {
            start,
            entries,
            base: bases,
            found,
        })
    }

    pub fn sectors(&self) -> usize {
        self.found.len()
    }

    /// The records over a sector, ascending.
    pub fn of(&self, s: usize) -> &[(Position, Left)] {
        &self.entries[self.start[s] as usize..self.start[s + 1] as usize]
    }

    /// Stretches `[from, to)` of positions, with what the sector holds in them.
    pub fn stretches(&self, s: usize) -> impl Iterator<Item = (Position, Position, Left)> + '_ {
        let list = self.of(s);
        let first = list.first().map_or(Position::MAX, |e| e.0);
        std::iter::once((0, first, self.base[s])).chain(list.iter().enumerate().map(
            move |(i, e)| {
                let to = list.get(i + 1).map_or(Position::MAX, |n| n.0);
                (e.0, to, e.1)
            },
        ))
    }

    /// Whether the image's content is what this stretch leaves.
    pub fn allows(&self, s: usize, left: Left) -> bool {
        match left {
            Left::Data(h) => h == self.found[s],
            Left::Anything => true,
        }
    }
}

/// A sector of a volume, and the positions between which its content was never right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    pub device: usize,
    pub sector: u64,
    /// What it must be at the checked position.
    pub needs: Position,
    /// The positions at which its content was right: the nearest below and above.
    pub fits: Vec<Position>,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Lowest and highest position that explains every sector.
    pub at: Option<(Position, Position)>,
    /// Where no position does: the one that explains most, and the sectors it does not.
    pub best: Position,
    pub wrong: u64,
    pub contradictions: Vec<Contradiction>,
}

/// Looks for the one position, among `0..=records`, that explains all volumes.
pub fn find(volumes: &[Timeline], records: usize, show: usize) -> Report {
    let mut delta = vec![0i64; records + 2];
    let mut total = 0i64;
    for v in volumes {
        for s in 0..v.sectors() {
            total += 1;
            for (from, to, left) in v.stretches(s) {
                if v.allows(s, left) {
                    delta[(from as usize).min(records + 1)] += 1;
                    delta[(to as usize).min(records + 1)] -= 1;
                }
            }
        }
    }
    let mut report = Report::default();
    let (mut sum, mut most) = (0, -1);
    for (p, d) in delta.iter().take(records + 1).enumerate() {
        sum += d;
        if sum == total {
            let p = p as Position;
            let low = report.at.map_or(p, |(low, _)| low);
            report.at = Some((low, p));
        }
        // Later positions win a draw: the report should blame what is missing, not what is new.
        if sum >= most {
            most = sum;
            report.best = p as Position;
        }
    }
    if report.at.is_some() {
        return report;
    }
    report.wrong = (total - most) as u64;
    for (device, v) in volumes.iter().enumerate() {
        for s in 0..v.sectors() {
            if report.contradictions.len() >= show {
                return report;
            }
            let mut needs = 0;
            let mut fits = Vec::new();
            let mut good = false;
            for (from, to, left) in v.stretches(s) {
                let ok = v.allows(s, left);
                if ok {
                    fits.push(from);
                }
                if (from..to).contains(&report.best) {
                    needs = from;
                    good = ok;
                }
            }
            if !good {
                report.contradictions.push(Contradiction {
                    device,
                    sector: s as u64,
                    needs,
                    fits,
                });
            }
        }
    }
    report
}

/// Of the records at these positions, those that are not contained in a state at position `at`.
pub fn beyond(positions: &[Position], at: Position) -> usize {
    positions.iter().filter(|p| **p > at).count()
}
