// SPDX-License-Identifier: GPL-2.0

//! The writers and readers of `stamp write`.
//!
//! Each writer has `depth` threads that take the writer's next number in turn. A writer owns its part of
//! every device's region and keeps its own requests in flight disjoint, so the order of its overlapping
//! writes is known; with `shared` all writers write all of the region, overlapping freely.
//!
//! Issues and completions are numbered by one counter under one lock ([`Events`]), which also puts the
//! journal lines in that order. An issue is journalled before the request is submitted.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use seeded::Rng;

use crate::block::{Op, Stamp};
use crate::io::{Buffer, Device};
use crate::journal::Event;
use crate::sink::Sink;
use crate::tracker::Tracker;
use crate::SECTOR;

/// A size of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Bytes, at multiples of the size (of 4096 above that).
    Bytes(u64),
    /// 1 to 256 sectors, at any sector.
    Unaligned,
}

/// Reads `512,4096x4,1048576,unaligned`; `x4` is a weight.
pub fn parse_sizes(text: &str) -> Result<Vec<Size>, String> {
    let mut out = Vec::new();
    for part in text.split(',') {
        let (size, weight) = part.split_once('x').unwrap_or((part, "1"));
        let weight: usize = weight
            .parse()
            .map_err(|_| format!("`{part}`: the weight is not a number"))?;
        let size = match size {
            "unaligned" => Size::Unaligned,
            n => match n.parse() {
                Ok(b) if b > 0 && b % SECTOR as u64 == 0 => Size::Bytes(b),
                _ => return Err(format!("`{part}` is not a positive multiple of 512")),
            },
        };
        out.extend(std::iter::repeat_n(size, weight));
    }
    if out.is_empty() {
        return Err("no request size given".into());
    }
    Ok(out)
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub run: u64,
    pub seed: u64,
    pub writers: u32,
    pub depth: u32,
    pub readers: u32,
    pub shared: bool,
    pub sizes: Vec<Size>,
    pub seconds: Option<f64>,
    pub count: Option<u64>,
    pub fsync_every: u64,
    pub fua_percent: u64,
    pub discard_percent: u64,
    pub zero_percent: u64,
    /// In sectors.
    pub region: Option<(u64, u64)>,
    pub sync_ack: bool,
    pub keep_going: bool,
    pub verify_at_end: bool,
    pub interval: Option<Duration>,
}

#[derive(Debug, Default)]
pub struct Totals {
    pub writes: AtomicU64,
    pub bytes: AtomicU64,
    pub syncs: AtomicU64,
    pub discards: AtomicU64,
    pub zeroes: AtomicU64,
    pub reads: AtomicU64,
    pub errors: AtomicU64,
    pub violations: AtomicU64,
}

/// The order of events.
#[derive(Default)]
struct Events {
    next: u64,
    in_flight: BTreeSet<u64>,
}

struct Writer {
    number: u64,
    busy: Vec<(u16, u64, u64)>,
    rng: Rng,
}

struct Run<'a> {
    plan: &'a Plan,
    devices: &'a [Device],
    /// In sectors, per device.
    regions: Vec<(u64, u64)>,
    unit: u64,
    tracker: Tracker,
    sink: &'a Sink,
    events: Mutex<Events>,
    writers: Vec<(Mutex<Writer>, Condvar)>,
    issued: AtomicU64,
    stop: AtomicBool,
    until: Option<Instant>,
    totals: Totals,
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the plan to its end.
pub fn run(plan: &Plan, devices: &[Device], sink: &Sink) -> Result<Totals, String> {
    let unit = devices.iter().map(|d| d.block).max().unwrap_or(512) / SECTOR as u64;
    let mut regions = Vec::new();
    for d in devices {
        let all = d.size / SECTOR as u64;
        let (start, len) = plan.region.unwrap_or((0, all));
        if start % 8 != 0 || start.checked_add(len).is_none_or(|end| end > all) {
            return Err(format!(
                "{}: region {start}:{len} does not begin at 4096 bytes or does not fit in {all} sectors",
                d.path
            ));
        }
        regions.push((start, len - len % 8));
    }
    let parts = if plan.shared {
        1
    } else {
        u64::from(plan.writers)
    };
    let largest = plan.sizes.iter().map(|s| match s {
        Size::Bytes(b) => b / SECTOR as u64,
        Size::Unaligned => 256,
    });
    let largest = largest.max().unwrap_or(8);
    for (d, (_, len)) in devices.iter().zip(&regions) {
        if len / parts / 8 * 8 < largest.next_multiple_of(8) + 8 {
            return Err(format!(
                "{}: {len} sectors are too few for {parts} parts with requests of {largest} sectors",
                d.path
            ));
        }
    }
    let rng = Rng::new(plan.seed);
    let writers = (0..plan.writers)
        .map(|w| {
            let rng = Rng::for_name(rng.clone().next_u64(), &format!("writer {w}"));
            let writer = Writer {
                number: 0,
                busy: Vec::new(),
                rng,
            };
            (Mutex::new(writer), Condvar::new())
        })
        .collect();
    let run = Run {
        plan,
        devices,
        // The tracker costs memory by region: only where somebody reads.
        tracker: match plan.readers > 0 || plan.verify_at_end {
            true => Tracker::new(plan.run, &regions),
            false => Tracker::new(plan.run, &[]),
        },
        regions,
        unit,
        sink,
        events: Mutex::default(),
        writers,
        issued: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        until: plan
            .seconds
            .map(|s| Instant::now() + Duration::from_secs_f64(s)),
        totals: Totals::default(),
    };
    let begin = Event::Run {
        run: plan.run,
        devices: devices.len() as u16,
    };
    // The run must be known before any of its stamps can be found.
    sink.wait(sink.push(&begin.line()));
    let writing = AtomicU64::new(u64::from(plan.writers) * u64::from(plan.depth));
    thread::scope(|scope| {
        for w in 0..plan.writers {
            for _ in 0..plan.depth {
                let (run, writing) = (&run, &writing);
                scope.spawn(move || {
                    run.write_loop(w);
                    writing.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
        for r in 0..plan.readers {
            let (run, writing) = (&run, &writing);
            let mut rng = Rng::for_name(plan.seed, &format!("reader {r}"));
            scope.spawn(move || {
                while writing.load(Ordering::Relaxed) > 0 && !run.stop.load(Ordering::Relaxed) {
                    run.read_one(&mut rng);
                }
            });
        }
    });
    if plan.verify_at_end {
        run.read_all();
    }
    Ok(run.totals)
}

impl Run<'_> {
    fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.until.is_some_and(|t| Instant::now() >= t)
    }

    fn write_loop(&self, w: u32) {
        let mut buffers = Vec::new();
        while !self.over() {
            if self.plan.count.is_some() {
                let n = self.issued.fetch_add(1, Ordering::Relaxed);
                if self.plan.count.is_some_and(|c| n >= c) {
                    return;
                }
            }
            self.write_one(w, &mut buffers);
            if let Some(pause) = self.plan.interval {
                thread::sleep(pause);
            }
        }
    }

    /// A random place of a random size in the writer's part of the region.
    fn place(&self, w: u32, rng: &mut Rng) -> (u16, u64, u64) {
        let device = rng.below(self.devices.len() as u64) as u16;
        let (mut start, mut len) = self.regions[usize::from(device)];
        if !self.plan.shared {
            len = len / u64::from(self.plan.writers) / 8 * 8;
            start += len * u64::from(w);
        }
        let size = self.plan.sizes[rng.below(self.plan.sizes.len() as u64) as usize];
        let (sectors, align) = match size {
            Size::Bytes(b) => (b / SECTOR as u64, (b / SECTOR as u64).min(8)),
            Size::Unaligned => (1 + rng.below(256), 1),
        };
        let align = align.max(self.unit);
        let sectors = sectors.next_multiple_of(self.unit);
        let at = rng.below((len - sectors) / align + 1) * align;
        (device, start + at, sectors)
    }

    /// Takes the writer's next number and a place that none of its own requests is on.
    fn take(&self, w: u32) -> (u64, Op, u16, u64, u64) {
        let (writer, wake) = &self.writers[w as usize];
        let mut me = locked(writer);
        let (device, first, sectors) = loop {
            let mut rng = me.rng.clone();
            let (device, first, sectors) = self.place(w, &mut rng);
            me.rng = rng;
            let free = self.plan.shared
                || me
                    .busy
                    .iter()
                    .all(|(d, f, n)| *d != device || f + n <= first || first + sectors <= *f);
            if free {
                break (device, first, sectors);
            }
            me = wake.wait(me).unwrap_or_else(PoisonError::into_inner);
        };
        let dice = me.rng.below(100);
        let p = self.plan;
        let op = if dice < p.discard_percent {
            Op::Discard
        } else if dice < p.discard_percent + p.zero_percent {
            Op::Zero
        } else if me.rng.below(100) < p.fua_percent {
            Op::Fua
        } else {
            Op::Write
        };
        me.number += 1;
        me.busy.push((device, first, sectors));
        (me.number, op, device, first, sectors)
    }

    fn give_back(&self, w: u32, place: (u16, u64, u64)) {
        let (writer, wake) = &self.writers[w as usize];
        let mut me = locked(writer);
        if let Some(i) = me.busy.iter().position(|b| *b == place) {
            me.busy.swap_remove(i);
        }
        wake.notify_all();
    }

    fn issue(&self, mut stamp: Stamp) -> Stamp {
        let mut e = locked(&self.events);
        e.next += 1;
        stamp.issue = e.next;
        stamp.floor = e.in_flight.first().map_or(e.next, |i| *i) - 1;
        stamp.time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        e.in_flight.insert(stamp.issue);
        self.sink.push(&Event::Issue(stamp).line());
        stamp
    }

    fn complete(&self, stamp: &Stamp, result: &std::io::Result<()>) -> u64 {
        let (event, line) = {
            let mut e = locked(&self.events);
            e.next += 1;
            e.in_flight.remove(&stamp.issue);
            let (issue, event) = (stamp.issue, e.next);
            let what = match result {
                Ok(()) => Event::Done { issue, event },
                Err(error) => Event::Failed {
                    issue,
                    event,
                    errno: error.raw_os_error().unwrap_or(0),
                },
            };
            (event, self.sink.push(&what.line()))
        };
        if self.plan.sync_ack {
            self.sink.wait(line);
        }
        event
    }

    fn event(&self) -> u64 {
        let mut e = locked(&self.events);
        e.next += 1;
        e.next
    }

    fn write_one(&self, w: u32, buffers: &mut Vec<Buffer>) {
        let (number, op, device, first, sectors) = self.take(w);
        let stamp = self.issue(Stamp {
            run: self.plan.run,
            writer: w,
            device,
            op,
            number,
            time: 0,
            first,
            sectors: sectors as u32,
            issue: 0,
            floor: 0,
        });
        self.tracker.issued(&stamp);
        let dev = &self.devices[usize::from(device)];
        let (at, len) = (first * SECTOR as u64, sectors * SECTOR as u64);
        let result = match op {
            Op::Discard => dev.discard(at, len),
            Op::Zero => dev.zero(at, len),
            _ => {
                let mut buffer = match buffers.iter().position(|b| b.bytes().len() as u64 == len) {
                    Some(i) => buffers.swap_remove(i),
                    None => Buffer::new(len as usize, 0),
                };
                stamp.fill(first, buffer.bytes_mut());
                let r = dev.write(at, buffer.bytes(), op == Op::Fua);
                if buffers.len() < 4 {
                    buffers.push(buffer);
                }
                r
            }
        };
        let event = self.complete(&stamp, &result);
        self.tracker.completed(&stamp, event, result.is_err());
        self.give_back(w, (device, first, sectors));
        let t = &self.totals;
        match op {
            Op::Discard => t.discards.fetch_add(1, Ordering::Relaxed),
            Op::Zero => t.zeroes.fetch_add(1, Ordering::Relaxed),
            _ => t.writes.fetch_add(1, Ordering::Relaxed),
        };
        t.bytes.fetch_add(len, Ordering::Relaxed);
        self.failed(&stamp, result);
        let every = self.plan.fsync_every;
        if every > 0 && number % every == 0 {
            self.sync_one(w, device, number);
        }
    }

    fn sync_one(&self, w: u32, device: u16, number: u64) {
        let stamp = self.issue(Stamp {
            run: self.plan.run,
            writer: w,
            device,
            op: Op::Sync,
            number,
            time: 0,
            first: 0,
            sectors: 0,
            issue: 0,
            floor: 0,
        });
        let result = self.devices[usize::from(device)].sync();
        self.complete(&stamp, &result);
        self.totals.syncs.fetch_add(1, Ordering::Relaxed);
        self.failed(&stamp, result);
    }

    fn failed(&self, stamp: &Stamp, result: std::io::Result<()>) {
        if let Err(e) = result {
            self.totals.errors.fetch_add(1, Ordering::Relaxed);
            eprintln!(
                "stamp: {}: {:?} of {} sectors at {} failed: {e}",
                self.devices[usize::from(stamp.device)].path,
                stamp.op,
                stamp.sectors,
                stamp.first
            );
            if !self.plan.keep_going {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn read_one(&self, rng: &mut Rng) {
        let device = rng.below(self.devices.len() as u64) as u16;
        let (start, len) = self.regions[usize::from(device)];
        let sectors = match rng.below(4) {
            0 => 1,
            1 => 8,
            2 => 1 + rng.below(64),
            _ => 1 + rng.below(512),
        };
        let sectors = sectors.next_multiple_of(self.unit).min(len);
        let at = rng.below((len - sectors) / self.unit + 1) * self.unit;
        self.read_range(device, start + at, sectors);
    }

    fn read_all(&self) {
        for (d, (start, len)) in self.regions.iter().enumerate() {
            let mut at = 0;
            while at < *len {
                let n = (len - at).min(2048);
                self.read_range(d as u16, start + at, n);
                at += n;
            }
        }
    }

    fn read_range(&self, device: u16, first: u64, sectors: u64) {
        let dev = &self.devices[usize::from(device)];
        let mut buffer = Buffer::new(sectors as usize * SECTOR, 0);
        let sample = self.tracker.sample(device, first, sectors, self.event());
        self.totals.reads.fetch_add(1, Ordering::Relaxed);
        if let Err(e) = dev.read(first * SECTOR as u64, buffer.bytes_mut()) {
            self.totals.errors.fetch_add(1, Ordering::Relaxed);
            eprintln!(
                "stamp: {}: read of {sectors} sectors at {first} failed: {e}",
                dev.path
            );
            if !self.plan.keep_going {
                self.stop.store(true, Ordering::Relaxed);
            }
            return;
        }
        for text in self.tracker.verify(device, &sample, buffer.bytes()) {
            if self.totals.violations.fetch_add(1, Ordering::Relaxed) < 20 {
                eprintln!("stamp: VIOLATION: read of {}: {text}", dev.path);
            }
        }
    }
}
