// SPDX-License-Identifier: GPL-2.0

//! `stamp check`: brings images, journals and the order of record together and runs the checks.
//!
//! The contents of records come from the journal (a stamped payload can be built again; the checksum
//! tells which write a record is) or, for any other workload, from an image of the SRL, where the dump
//! gives `payload_offset`.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use crate::closed;
use crate::coverage::{scan, Coverage, Image};
use crate::crc::crc32c;
use crate::history::{History, WriteId};
use crate::journal;
use crate::order::{self, Record, RecordOp};
use crate::prefix::{self, Require};
use crate::replay::{self, hash_of, Base, Payload, Position, Timeline};
use crate::SECTOR;

/// What to check, all of it opened by the caller.
pub struct Input<'a> {
    /// By device index; the name is the volume's in the order, when given.
    pub images: Vec<(Option<String>, Box<dyn Image + 'a>)>,
    pub bases: Vec<Base<'a>>,
    pub journals: Vec<String>,
    pub orders: Vec<String>,
    pub srls: Vec<Box<dyn Image + 'a>>,
    pub closed: bool,
    pub stamps: bool,
    pub allow_unresolved: bool,
    pub options: prefix::Options,
}

/// The verdict, in words and numbers.
#[derive(Debug, Default)]
pub struct Outcome {
    pub text: String,
    pub violations: u64,
    pub writes: u64,
    pub acked: u64,
    pub acked_lost: u64,
    pub visible: u64,
    pub records: u64,
    /// Lowest and highest seq that the images equal.
    pub at: Option<(u64, u64)>,
    pub closed_up_to: Option<u64>,
}

impl Outcome {
    fn say(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    pub fn json(&self) -> String {
        let mut out = format!(
            "{{\"violations\":{},\"writes\":{},\"acked\":{},\"acked_lost\":{},\"visible\":{},\
             \"records\":{}",
            self.violations, self.writes, self.acked, self.acked_lost, self.visible, self.records
        );
        if let Some((low, high)) = self.at {
            let _ = write!(out, ",\"seq_low\":{low},\"seq_high\":{high}");
        }
        if let Some(c) = self.closed_up_to {
            let _ = write!(out, ",\"closed_up_to\":{c}");
        }
        out.push('}');
        out
    }
}

/// Runs the checks. An error is a fault of the input, not of what is checked.
pub fn check(input: &Input<'_>) -> Result<Outcome, String> {
    let mut out = Outcome::default();
    let mut history = History::new();
    for j in &input.journals {
        history.add_journal(&journal::parse(j)?)?;
    }
    let mut contents = Vec::new();
    for (d, (_, image)) in input.images.iter().enumerate() {
        let c = scan(&mut history, d as u16, image.as_ref());
        contents.push(c.map_err(|e| format!("image {d}: {e}"))?);
    }
    out.writes = history.writes.len() as u64;
    if input.stamps {
        let r = prefix::check(&history, &contents, &input.options);
        out.say(format!(
            "stamps: {} writes known, {} visible, {} required, {} acknowledged, {} of them lost, {} \
             undefined sectors, {} violations",
            out.writes, r.visible, r.required, r.acked, r.lost, r.undefined_sectors, r.violations
        ));
        for m in &r.messages {
            out.say(format!("  VIOLATION: {m}"));
        }
        out.violations += r.violations;
        (out.acked, out.acked_lost, out.visible) = (r.acked, r.lost, r.visible);
    }
    if !input.orders.is_empty() {
        by_order(input, &history, &mut out)?;
    }
    Ok(out)
}

fn by_order(input: &Input<'_>, history: &History, out: &mut Outcome) -> Result<(), String> {
    let mut dumps = Vec::new();
    for (i, text) in input.orders.iter().enumerate() {
        dumps.push(order::parse(text, i)?);
    }
    let order = order::merge(dumps)?;
    out.records = order.len() as u64;
    let first = order.first().map_or(1, |r| r.seq);
    if first != 1 && input.bases.iter().any(|b| matches!(b, Base::Zero)) {
        return Err(format!(
            "the order begins at seq {first}, not 1: give --base FILE (the state before it) or unknown"
        ));
    }
    let devices = map_volumes(input, &order)?;
    let (payloads, of_write) = resolve(input, history, &order, &devices)?;
    let unresolved = order
        .iter()
        .zip(&payloads)
        .filter(|(r, p)| r.op == RecordOp::Write && p.is_none())
        .count();
    if unresolved > 0 && !input.allow_unresolved {
        return Err(format!(
            "the contents of {unresolved} of {} records are not known (no write in the journals has their \
             checksum): give all journals, or --srl, or --allow-unresolved",
            order.len()
        ));
    }
    let mut volumes = Vec::new();
    for (d, (_, image)) in input.images.iter().enumerate() {
        let mine = |r: &Record| devices.get(&r.volume) == Some(&d);
        let t = Timeline::new(image.as_ref(), &input.bases[d], &order, &payloads, mine);
        volumes.push(t.map_err(|e| format!("image {d}: {e}"))?);
    }
    let seq_of = |p: Position| match p.checked_sub(1) {
        Some(i) => order.get(i as usize).map_or(0, |r| r.seq),
        None => first.saturating_sub(1),
    };
    let high = if input.closed {
        let r = closed::check(&volumes, &order, input.options.show);
        out.say(format!(
            "order: {} records, {unresolved} unresolved; closed up to seq {}, highest visible seq {}, {} \
             violations",
            order.len(),
            seq_of(r.closed_up_to),
            seq_of(r.highest),
            r.violations
        ));
        for m in &r.messages {
            out.say(format!("  VIOLATION: {m}"));
        }
        out.violations += r.violations;
        out.closed_up_to = Some(seq_of(r.closed_up_to));
        None
    } else {
        let r = replay::find(&volumes, order.len(), input.options.show);
        match r.at {
            Some((low, high)) => {
                out.say(format!(
                    "order: {} records, {unresolved} unresolved; the images equal seq {} (highest {})",
                    order.len(),
                    seq_of(low),
                    seq_of(high)
                ));
                out.at = Some((seq_of(low), seq_of(high)));
                Some(high)
            }
            None => {
                out.violations += r.wrong.max(1);
                out.say(format!(
                    "order: {} records, {unresolved} unresolved; VIOLATION: the images equal no seq; at \
                     seq {}, the best, {} sectors are wrong",
                    order.len(),
                    seq_of(r.best),
                    r.wrong
                ));
                for c in &r.contradictions {
                    out.say(format!(
                        "  VIOLATION: volume {} sector {}: should hold {}, and holds {}",
                        c.device,
                        c.sector,
                        closed::name(&order, c.needs),
                        closed::holds(&volumes[c.device], c.sector as usize, &order)
                    ));
                }
                None
            }
        }
    };
    acknowledged(input, history, &of_write, high, &seq_of, out);
    Ok(())
}

/// Every acknowledged write must be in the order, and (where the state is known) at or below it.
fn acknowledged(
    input: &Input<'_>,
    history: &History,
    of_write: &HashMap<WriteId, Position>,
    high: Option<Position>,
    seq_of: &dyn Fn(Position) -> u64,
    out: &mut Outcome,
) {
    let last = history.runs().saturating_sub(1);
    let (mut absent, mut above) = (Vec::new(), Vec::new());
    for (id, w) in history.writes.iter().enumerate() {
        let id = id as WriteId;
        if w.done.is_none() || w.failed || !w.op().stamps() {
            continue;
        }
        if input.options.require == Require::Acked && w.run_index != last {
            continue;
        }
        match (of_write.get(&id), high) {
            (None, _) => absent.push(id),
            (Some(p), Some(high)) if *p > high => above.push((id, *p)),
            _ => (),
        }
    }
    out.say(format!(
        "acknowledged writes: {} not in the order, {} above the seq",
        absent.len(),
        above.len()
    ));
    out.acked_lost = out.acked_lost.max((absent.len() + above.len()) as u64);
    if matches!(input.options.require, Require::Acked | Require::AckedAll) {
        out.violations += (absent.len() + above.len()) as u64;
        for id in absent.iter().take(input.options.show) {
            out.say(format!(
                "  VIOLATION: not in the order: {}",
                history.name(*id)
            ));
        }
        for (id, p) in above.iter().take(input.options.show) {
            out.say(format!(
                "  VIOLATION: at seq {}, above the state: {}",
                seq_of(*p),
                history.name(*id)
            ));
        }
    }
}

/// Volume name to device index: by the names given, else in ascending order.
fn map_volumes(input: &Input<'_>, order: &[Record]) -> Result<HashMap<String, usize>, String> {
    let names: BTreeSet<(usize, &str)> = order
        .iter()
        .filter(|r| r.op != RecordOp::Marker)
        .map(|r| (r.volume.len(), r.volume.as_str()))
        .collect();
    let mut map = HashMap::new();
    let given = input.images.iter().any(|(n, _)| n.is_some());
    for (i, (_, name)) in names.iter().enumerate() {
        let d = match given {
            true => input
                .images
                .iter()
                .position(|(n, _)| n.as_deref() == Some(*name)),
            false if names.len() <= input.images.len() => Some(i),
            false => None,
        };
        let d =
            d.ok_or_else(|| format!("the order has records of volume {name}: no image for it"))?;
        map.insert((*name).to_owned(), d);
    }
    if !given && !names.is_empty() && names.len() < input.images.len() {
        return Err(format!(
            "the order names {} volumes and there are {} images: give --image VOLUME=FILE",
            names.len(),
            input.images.len()
        ));
    }
    Ok(map)
}

type Resolved = (Vec<Payload>, HashMap<WriteId, Position>);

/// The contents of every record, and the last record of every write.
fn resolve(
    input: &Input<'_>,
    history: &History,
    order: &[Record],
    devices: &HashMap<String, usize>,
) -> Result<Resolved, String> {
    let mut exact: HashMap<(usize, u64, u64, u32), WriteId> = HashMap::new();
    let mut buf = Vec::new();
    for (id, w) in history.writes.iter().enumerate() {
        if w.op().stamps() {
            let s = &w.stamp;
            rebuild(history, id as WriteId, s.first, s.sectors.into(), &mut buf);
            let key = (
                usize::from(s.device),
                s.first,
                s.sectors.into(),
                crc32c(0, &buf),
            );
            exact.insert(key, id as WriteId);
        }
    }
    let coverage: Vec<Coverage> = input
        .images
        .iter()
        .enumerate()
        .map(|(d, (_, i))| Coverage::new(history, d as u16, i.size() / SECTOR as u64))
        .collect();
    let mut payloads = Vec::new();
    let mut of_write = HashMap::new();
    for (i, r) in order.iter().enumerate() {
        if r.op != RecordOp::Write {
            payloads.push(None);
            continue;
        }
        let d = devices[&r.volume];
        let mut id = exact.get(&(d, r.sector, r.sectors, r.crc)).copied();
        if id.is_none() {
            // A request that was split on its way: the record is a part of a write.
            id = coverage[d].of(r.sector).iter().copied().find(|id| {
                let w = history.get(*id);
                if !w.op().stamps() || w.end() < r.sector.saturating_add(r.sectors) {
                    return false;
                }
                rebuild(history, *id, r.sector, r.sectors, &mut buf);
                crc32c(0, &buf) == r.crc
            });
        }
        if let Some(id) = id {
            rebuild(history, id, r.sector, r.sectors, &mut buf);
            of_write.insert(id, i as Position + 1);
            payloads.push(Some(buf.chunks_exact(SECTOR).map(hash_of).collect()));
            continue;
        }
        payloads.push(from_srl(input, r)?);
    }
    Ok((payloads, of_write))
}

fn rebuild(history: &History, id: WriteId, first: u64, sectors: u64, buf: &mut Vec<u8>) {
    buf.clear();
    buf.resize(sectors as usize * SECTOR, 0);
    history.get(id).stamp.fill(first, buf);
}

fn from_srl(input: &Input<'_>, r: &Record) -> Result<Payload, String> {
    let Some((file, at)) = r.payload else {
        return Ok(None);
    };
    let Some(srl) = input.srls.get(file) else {
        return Ok(None);
    };
    let mut bytes = vec![0; r.sectors as usize * SECTOR];
    srl.read(at, &mut bytes)
        .map_err(|e| format!("srl {file}: payload of seq {}: {e}", r.seq))?;
    if crc32c(0, &bytes) != r.crc {
        return Err(format!(
            "srl {file}: the payload of seq {} at byte {at} has not the checksum of the record",
            r.seq
        ));
    }
    Ok(Some(bytes.chunks_exact(SECTOR).map(hash_of).collect()))
}
