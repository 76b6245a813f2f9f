// SPDX-License-Identifier: GPL-2.0

//! `dmrepl srl dump`: the records of a ring, one per line.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
    path::Path,
};

use replicate_core::{
    lineage::Lineage,
    log::{recovery::Outcome, ring::Place},
    units::{EpochId, Op, Record, Seq},
};
use serde::Serialize;

use super::{
    copies::{self, Copies},
    device::Device,
    ring::{Batch, Entry, Reader},
};
use crate::{
    error::{warn, Error, Exit, Result},
    output_failed,
    size::rfc3339,
};

/// One line. The names of the fields are part of the tool's interface.
#[derive(Serialize)]
struct Line {
    seq: u64,
    epoch: String,
    volume: u16,
    sector: u64,
    sectors: u32,
    op: &'static str,
    crc: u32,
    depends_on: u64,
    time_ns: u64,
    fua: bool,
    origin: u16,
    payload: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_offset: Option<u64>,
    state: &'static str,
    lap: u64,
    offset: u64,
}

impl Line {
    fn new(batch: &Batch, entry: &Entry, state: &'static str) -> Self {
        let Record {
            seq,
            op,
            fua,
            range,
            depends_on,
            time_ns,
            origin,
            payload_crc,
            ..
        } = entry.record;
        Line {
            seq: seq.0,
            epoch: batch.epoch.to_string(),
            volume: range.volume.0,
            sector: range.sector.0,
            sectors: range.sectors,
            op: match op {
                Op::Write => "write",
                Op::Discard => "discard",
                Op::WriteZeroes => "write-zeroes",
                Op::Marker => "marker",
            },
            crc: payload_crc,
            depends_on: depends_on.0,
            time_ns,
            fua,
            origin,
            payload: match entry.payload {
                Some(true) => "ok",
                Some(false) => "bad",
                None => "none",
            },
            payload_offset: entry.payload.map(|_| entry.payload_at),
            state,
            lap: batch.head.lap,
            offset: batch.head.offset.0,
        }
    }

    fn text(&self) -> String {
        format!(
            "{:>8} {} volume {} {:<12} {:>12} +{:<5} after {:<8} crc {:08x} {:<4} {:<5} {}{}",
            self.seq,
            rfc3339(self.time_ns),
            self.volume,
            self.op,
            self.sector,
            self.sectors,
            self.depends_on,
            self.crc,
            self.payload,
            self.state,
            self.epoch,
            if self.fua { " fua" } else { "" },
        )
    }
}

/// Writes lines to stdout.
struct Printer<W: Write> {
    out: W,
    json: bool,
}

impl<W: Write> Printer<W> {
    fn batch(&mut self, batch: &Batch, state: impl Fn(Seq) -> &'static str) -> Result {
        for entry in &batch.records {
            let line = Line::new(batch, entry, state(entry.record.seq));
            let text = if self.json {
                serde_json::to_string(&line)
                    .map_err(|e| Error::new(format!("cannot print a record: {e}")))?
            } else {
                line.text()
            };
            writeln!(self.out, "{text}").map_err(output_failed)?;
        }
        Ok(())
    }
}

/// Dumps a device.
pub fn run(path: &Path, all: bool, json: bool) -> Result {
    let device = Device::open_to_read(path)?;
    if device.live() {
        warn(format!(
            "{}: live, may be torn: it is in use and changes while it is read",
            device.path()
        ));
    }
    let mut buffer = copies::buffer();
    let superblock = Copies::read(&device)?.newest(&device, &mut buffer)?;
    let Some(mut reader) = Reader::new(&device, superblock) else {
        return Err(Error::new(format!(
            "{}: formatted without a ring; there are no records",
            device.path()
        )));
    };
    if superblock.group().is_none() {
        warn(format!("{}: no group has used this SRL yet", device.path()));
        return Ok(());
    }

    let mut printer = Printer {
        out: BufWriter::new(io::stdout().lock()),
        json,
    };
    let mut live: BTreeMap<Place, Seq> = BTreeMap::new();
    let outcome = reader.scan(superblock, |place, batch, last| {
        if all {
            live.insert(place, last);
            return Ok(());
        }
        printer.batch(&batch, |seq| if seq <= last { "live" } else { "cut" })
    })?;
    if all {
        let lineage = superblock.lineage();
        let tail = reader.tail(superblock);
        for place in reader.all()? {
            let Some(batch) = reader.batch_at(place)? else {
                continue;
            };
            let state = |seq| match live.get(&place) {
                Some(last) if seq <= *last => "live",
                None if place < tail && owns(&lineage, &batch.epoch, seq) => "freed",
                _ => "cut",
            };
            printer.batch(&batch, state)?;
        }
    }
    printer.out.flush().map_err(output_failed)?;
    verdict(&device, &outcome)
}

/// Returns whether the history as it is now gives `seq` to that epoch; what is folded is believed.
fn owns(lineage: &Lineage<'_>, epoch: &EpochId, seq: Seq) -> bool {
    lineage.at(seq).is_none_or(|e| e.id == *epoch)
}

/// The end of a scan, as an error when it is one.
pub fn verdict(device: &Device, outcome: &Outcome) -> Result {
    let text = match outcome {
        Outcome::Corrupt { missing, proven, .. } => format!(
            "{}: damaged: record {missing} cannot be read, although everything up to record {proven} was durable",
            device.path()
        ),
        Outcome::Unreadable { .. } => {
            format!("{}: the log cannot be read", device.path())
        }
        Outcome::Head { .. } => return Ok(()),
    };
    if device.live() {
        warn(format!(
            "{text} (or it changed while it was read: try again, or when it is not in use)"
        ));
        return Ok(());
    }
    Err(Error::new(text)
        .hint("Keep the devices of both hosts as they are; the peer may hold what is missing.")
        .exit(Exit::Damaged))
}
