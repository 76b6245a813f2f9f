// SPDX-License-Identifier: GPL-2.0

//! The order of record: lines of `dmrepl srl dump --all --json`, from one host or several.
//!
//! Records that the dump calls `cut` are no part of the history. The dumps of two hosts are merged; where
//! both hold a record they must agree. A record of an epoch at or above the first seq of a later epoch is
//! dead (the epochs are ordered by first seq, then by time).

use std::collections::BTreeMap;

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordOp {
    Write,
    Zero,
    Discard,
    Marker,
}

/// One record, `volume` still as the dump names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub seq: u64,
    pub epoch: String,
    pub volume: String,
    pub op: RecordOp,
    pub sector: u64,
    pub sectors: u64,
    pub crc: u32,
    pub depends_on: u64,
    pub time: u64,
    /// Where the payload is: (index of the order file, byte offset on that host's SRL).
    pub payload: Option<(usize, u64)>,
}

impl Record {
    fn same(&self, o: &Record) -> bool {
        (&self.volume, self.op, self.sector, self.sectors, self.crc)
            == (&o.volume, o.op, o.sector, o.sectors, o.crc)
    }
}

fn field<'a>(v: &'a Value, names: &[&str]) -> Option<&'a Value> {
    names.iter().find_map(|n| v.get(n))
}

fn number(v: &Value, names: &[&str]) -> Option<u64> {
    field(v, names)?.as_u64()
}

fn text(v: &Value, names: &[&str]) -> Option<String> {
    match field(v, names)? {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// Reads one dump; `None` in the list is a record that was cut.
pub fn parse(dump: &str, file: usize) -> Result<Vec<Record>, String> {
    let mut out = Vec::new();
    for (i, line) in dump.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let bad = |what: &str| format!("order line {}: {what}: {line}", i + 1);
        let v: Value = serde_json::from_str(line).map_err(|e| bad(&e.to_string()))?;
        if text(&v, &["state"]).as_deref() == Some("cut") {
            continue;
        }
        let op = match text(&v, &["op"]).as_deref() {
            Some("write") | None => RecordOp::Write,
            Some("write-zeroes" | "write_zeroes") => RecordOp::Zero,
            Some("discard") => RecordOp::Discard,
            Some("marker") => RecordOp::Marker,
            Some(_) => return Err(bad("unknown op")),
        };
        if op == RecordOp::Write && text(&v, &["payload"]).as_deref() == Some("bad") {
            return Err(bad("its payload is damaged in the log"));
        }
        let need = |names: &[&str]| {
            number(&v, names).ok_or_else(|| bad(&format!("no number `{}`", names[0])))
        };
        out.push(Record {
            seq: need(&["seq"])?,
            epoch: text(&v, &["epoch"]).unwrap_or_default(),
            volume: text(&v, &["volume", "volume_id"]).ok_or_else(|| bad("no `volume`"))?,
            op,
            sector: need(&["sector"])?,
            sectors: need(&["sectors"])?,
            crc: if op == RecordOp::Write {
                need(&["crc", "payload_crc"])? as u32
            } else {
                0
            },
            depends_on: need(&["depends_on"])?,
            time: number(&v, &["time_ns"]).unwrap_or(0),
            payload: number(&v, &["payload_offset"]).map(|o| (file, o)),
        });
    }
    Ok(out)
}

/// Merges dumps into one gap-free order, ascending by seq.
pub fn merge(dumps: Vec<Vec<Record>>) -> Result<Vec<Record>, String> {
    let mut epochs: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for r in dumps.iter().flatten() {
        let e = epochs
            .entry(r.epoch.clone())
            .or_insert((u64::MAX, u64::MAX));
        *e = (*e).min((r.seq, r.time));
    }
    let mut ranked: Vec<_> = epochs.iter().map(|(id, first)| (*first, id)).collect();
    ranked.sort();
    // An epoch ends where any later one begins.
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    let mut end = u64::MAX;
    for ((first, _), id) in ranked.iter().rev() {
        ends.insert(id, end);
        end = end.min(*first);
    }
    let mut merged: BTreeMap<u64, Record> = BTreeMap::new();
    for r in dumps.into_iter().flatten() {
        if ends.get(r.epoch.as_str()).is_some_and(|end| r.seq >= *end) {
            continue;
        }
        match merged.get_mut(&r.seq) {
            None => {
                merged.insert(r.seq, r);
            }
            Some(have) if have.epoch == r.epoch && !have.same(&r) => {
                return Err(format!(
                    "two dumps differ at seq {}: {have:?} and {r:?}",
                    r.seq
                ));
            }
            Some(have) => have.payload = have.payload.or(r.payload),
        }
    }
    let records: Vec<Record> = merged.into_values().collect();
    for w in records.windows(2) {
        if w[1].seq != w[0].seq + 1 {
            return Err(format!(
                "the order has a gap: no record between seq {} and {}",
                w[0].seq, w[1].seq
            ));
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, epoch: &str, crc: u32, state: &str) -> String {
        format!(
            "{{\"seq\":{seq},\"epoch\":\"{epoch}\",\"volume\":0,\"sector\":8,\"sectors\":8,\
             \"op\":\"write\",\"crc\":{crc},\"depends_on\":0,\"time_ns\":{crc},\"fua\":false,\
             \"origin\":0,\"payload\":\"ok\",\"state\":\"{state}\",\"lap\":0,\"offset\":0}}\n"
        )
    }

    #[test]
    fn merges_epochs_and_hosts() {
        let one = [
            line(1, "a", 1, "freed"),
            line(2, "a", 2, "live"),
            line(3, "a", 3, "live"),
        ]
        .concat();
        let two = [
            line(2, "a", 2, "live"),
            line(3, "b", 9, "live"),
            line(4, "b", 4, "cut"),
        ]
        .concat();
        let dumps = vec![parse(&one, 0).unwrap(), parse(&two, 1).unwrap()];
        let got: Vec<(u64, u32)> = merge(dumps)
            .unwrap()
            .iter()
            .map(|r| (r.seq, r.crc))
            .collect();
        // Seq 3 of epoch a is dead: b, which began later, has its own; 4 was cut.
        assert_eq!(got, [(1, 1), (2, 2), (3, 9)]);
    }

    #[test]
    fn contradictions_and_gaps_are_refused() {
        let a = parse(&line(1, "a", 1, "live"), 0).unwrap();
        let b = parse(&line(1, "a", 2, "live"), 1).unwrap();
        assert!(merge(vec![a.clone(), b]).is_err());
        let c = parse(&line(3, "a", 3, "live"), 0).unwrap();
        assert!(merge(vec![a, c]).unwrap_err().contains("gap"));
        assert!(parse("{\"seq\":1}", 0).is_err());
        assert!(parse("garbage", 0).is_err());
    }
}
