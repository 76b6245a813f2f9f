// SPDX-License-Identifier: GPL-2.0

//! A model of an application on replicated volumes: writes are issued, get their seq some time later and
//! complete some time after that. It yields the journal, the order of record, and the image after any set
//! of records, which the tests then check honestly or after damage.

use seeded::Rng;
use stamp::block::{Op, Stamp};
use stamp::crc::crc32c;
use stamp::journal::Event;
use stamp::SECTOR;

pub const SECTORS: u64 = 96;
pub const DEVICES: u16 = 2;

/// A record of the order, with what it writes.
#[derive(Clone, Debug)]
pub struct Rec {
    pub stamp: Stamp,
    pub seq: u64,
    pub depends_on: u64,
    /// When the application saw it complete.
    pub done: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Sim {
    pub events: Vec<Event>,
    pub recs: Vec<Rec>,
}

pub struct Shape {
    pub ops: u64,
    pub in_flight: usize,
    pub discards: bool,
    pub zeroes: bool,
    pub syncs: bool,
    /// Longest write.
    pub sectors: u64,
}

pub const PLAIN: Shape = Shape {
    ops: 60,
    in_flight: 4,
    discards: false,
    zeroes: false,
    syncs: false,
    sectors: 8,
};

pub const ALL: Shape = Shape {
    ops: 80,
    in_flight: 5,
    discards: true,
    zeroes: true,
    syncs: true,
    sectors: 12,
};

pub type Images = Vec<Vec<u8>>;

pub fn blank() -> Images {
    vec![vec![0; SECTORS as usize * SECTOR]; usize::from(DEVICES)]
}

impl Sim {
    pub fn new(rng: &mut Rng, run: u64, shape: &Shape) -> Self {
        let mut s = Sim::default();
        s.events.push(Event::Run {
            run,
            devices: DEVICES,
        });
        let mut event = 0;
        let mut issued = 0;
        // Index in recs once it has its seq.
        let mut flight: Vec<(Stamp, Option<usize>)> = Vec::new();
        let mut published = 0;
        loop {
            let act = rng.below(3);
            if act == 0 && issued < shape.ops && flight.len() < shape.in_flight {
                issued += 1;
                event += 1;
                let op = match rng.below(20) {
                    0 | 1 if shape.discards => Op::Discard,
                    2 | 3 if shape.zeroes => Op::Zero,
                    4 if shape.syncs => Op::Sync,
                    5 | 6 => Op::Fua,
                    _ => Op::Write,
                };
                let sectors = if op == Op::Sync {
                    0
                } else {
                    1 + rng.below(shape.sectors)
                };
                let stamp = Stamp {
                    run,
                    writer: rng.below(3) as u32,
                    device: rng.below(u64::from(DEVICES)) as u16,
                    op,
                    number: issued,
                    time: 1000 + event,
                    first: rng.below(SECTORS - sectors),
                    sectors: sectors as u32,
                    issue: event,
                    floor: flight.iter().map(|f| f.0.issue).min().unwrap_or(event) - 1,
                };
                s.events.push(Event::Issue(stamp));
                flight.push((stamp, None));
            } else if act == 1 && !flight.is_empty() {
                let i = rng.below(flight.len() as u64) as usize;
                let (stamp, seq) = &mut flight[i];
                if seq.is_none() && stamp.op != Op::Sync {
                    *seq = Some(s.recs.len());
                    let at = s.recs.len() as u64 + 1;
                    s.recs.push(Rec {
                        stamp: *stamp,
                        seq: at,
                        depends_on: published,
                        done: None,
                    });
                }
            } else if !flight.is_empty() {
                let i = rng.below(flight.len() as u64) as usize;
                let (stamp, seq) = flight[i];
                if seq.is_some() || stamp.op == Op::Sync {
                    event += 1;
                    if let Some(k) = seq {
                        s.recs[k].done = Some(event);
                        published = published.max(s.recs[k].seq);
                    }
                    s.events.push(Event::Done {
                        issue: stamp.issue,
                        event,
                    });
                    flight.swap_remove(i);
                }
            }
            // Ends with some in flight: that is what a kill leaves.
            if issued == shape.ops && (flight.is_empty() || rng.chance(50)) {
                return s;
            }
        }
    }

    pub fn journal(&self) -> String {
        self.events.iter().map(Event::line).collect()
    }

    pub fn order(&self) -> String {
        self.recs.iter().map(line).collect()
    }

    /// Highest seq whose completion the application saw.
    pub fn acked(&self) -> u64 {
        let done = self.recs.iter().filter(|r| r.done.is_some());
        done.map(|r| r.seq).max().unwrap_or(0)
    }

    /// The images after the records up to `seq`.
    pub fn upto(&self, seq: u64, rng: &mut Rng) -> Images {
        let mut images = blank();
        for r in self.recs.iter().filter(|r| r.seq <= seq) {
            apply(&mut images, r, rng, |_| true);
        }
        images
    }
}

pub fn payload(stamp: &Stamp) -> Vec<u8> {
    let mut buf = vec![0; stamp.sectors as usize * SECTOR];
    stamp.fill(stamp.first, &mut buf);
    buf
}

/// A line as `dmrepl srl dump --all --json` prints it.
pub fn line(r: &Rec) -> String {
    let s = &r.stamp;
    let (op, crc) = match s.op {
        Op::Zero => ("write-zeroes", 0),
        Op::Discard => ("discard", 0),
        _ => ("write", crc32c(0, &payload(s))),
    };
    format!(
        "{{\"seq\":{},\"epoch\":\"e1\",\"volume\":{},\"sector\":{},\"sectors\":{},\"op\":\"{op}\",\
         \"crc\":{crc},\"depends_on\":{},\"time_ns\":{},\"fua\":false,\"origin\":0,\"payload\":\"ok\",\
         \"state\":\"live\",\"lap\":0,\"offset\":0}}\n",
        r.seq, s.device, s.first, s.sectors, r.depends_on, s.time
    )
}

/// Applies the sectors of a record that `keep` accepts (index in the record).
pub fn apply(images: &mut Images, r: &Rec, rng: &mut Rng, mut keep: impl FnMut(usize) -> bool) {
    let s = &r.stamp;
    let image = &mut images[usize::from(s.device)];
    let data = payload(s);
    for i in 0..s.sectors as usize {
        if !keep(i) {
            continue;
        }
        let at = (s.first as usize + i) * SECTOR;
        let to = &mut image[at..at + SECTOR];
        match s.op {
            Op::Zero => to.fill(0),
            Op::Discard => match rng.below(3) {
                0 => to.fill(0),
                1 => to.fill(0xd1),
                _ => (),
            },
            _ => to.copy_from_slice(&data[i * SECTOR..(i + 1) * SECTOR]),
        }
    }
}
