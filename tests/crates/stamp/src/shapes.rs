// SPDX-License-Identifier: GPL-2.0

//! Every shape of request on one device, read back and compared: 512 bytes to several MiB, one segment
//! or many, segments that begin anywhere in a page, ranges across 1 MiB boundaries, FUA, flush, discard
//! and write-zeroes. The device's contents are lost.

use std::io::IoSlice;

use seeded::Rng;

use crate::block::{Op, Stamp};
use crate::io::{Buffer, Device};
use crate::SECTOR;

const MIB: u64 = 1 << 20;

/// What was tried.
#[derive(Debug, Default)]
pub struct Totals {
    pub writes: u64,
    pub discards: u64,
    pub zeroes: u64,
}

struct Shapes<'a> {
    device: &'a Device,
    stamp: Stamp,
    totals: Totals,
    rng: Rng,
}

/// Runs all shapes; the first difference is the error.
pub fn run(device: &Device, seed: u64) -> Result<Totals, String> {
    if device.size < 16 * MIB {
        return Err(format!(
            "{}: {} bytes are too few, 16 MiB are needed",
            device.path, device.size
        ));
    }
    let mut s = Shapes {
        device,
        stamp: Stamp {
            run: seed,
            writer: 0,
            device: 0,
            op: Op::Write,
            number: 0,
            time: 0,
            first: 0,
            sectors: 0,
            issue: 0,
            floor: 0,
        },
        totals: Totals::default(),
        rng: Rng::new(seed),
    };
    s.sizes()?;
    s.boundaries()?;
    s.segments()?;
    s.no_data()?;
    Ok(s.totals)
}

impl Shapes<'_> {
    fn next(&mut self, at: u64, len: u64) -> Stamp {
        self.stamp.number += 1;
        self.stamp.issue += 1;
        self.stamp.first = at / SECTOR as u64;
        self.stamp.sectors = (len / SECTOR as u64) as u32;
        self.stamp
    }

    /// Writes `segments` (of these sizes, each skewed in its page), reads back, compares.
    fn write(&mut self, at: u64, segments: &[u64], skew: usize, fua: bool) -> Result<(), String> {
        let len: u64 = segments.iter().sum();
        let stamp = self.next(at, len);
        let mut want = vec![0; len as usize];
        stamp.fill(stamp.first, &mut want);
        let mut buffers = Vec::new();
        let mut rest = want.as_slice();
        for n in segments {
            let (head, tail) = rest.split_at(*n as usize);
            let mut b = Buffer::new(head.len(), skew);
            b.bytes_mut().copy_from_slice(head);
            buffers.push(b);
            rest = tail;
        }
        let slices: Vec<IoSlice<'_>> = buffers.iter().map(|b| IoSlice::new(b.bytes())).collect();
        let what = || {
            format!(
                "{}: {} segments, {len} bytes at {at}, skew {skew}{}",
                self.device.path,
                segments.len(),
                if fua { ", FUA" } else { "" }
            )
        };
        self.device
            .write_vectored(at, &slices, fua)
            .map_err(|e| format!("{}: {e}", what()))?;
        let got = self.read(at, len)?;
        if let Some(i) = (0..want.len() / SECTOR)
            .find(|i| got[i * SECTOR..][..SECTOR] != want[i * SECTOR..][..SECTOR])
        {
            return Err(format!(
                "{}: sector {i} of it reads back differently",
                what()
            ));
        }
        self.totals.writes += 1;
        Ok(())
    }

    fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, String> {
        let mut b = Buffer::new(len as usize, 0);
        self.device
            .read(at, b.bytes_mut())
            .map_err(|e| format!("{}: read of {len} bytes at {at}: {e}", self.device.path))?;
        Ok(b.bytes().to_vec())
    }

    fn sizes(&mut self) -> Result<(), String> {
        let unit = self.device.block;
        let mut sizes = vec![unit, 2 * unit, 7 * unit];
        for k in 12..=22 {
            let n = 1u64 << k;
            sizes.extend([n - unit, n, n + unit]);
        }
        for (i, len) in sizes.into_iter().filter(|n| *n >= unit).enumerate() {
            self.write(0, &[len], 0, i % 3 == 0)?;
            // At an odd place too, so that no size is always aligned to itself.
            self.write(3 * unit, &[len], SECTOR, false)?;
        }
        self.device
            .sync()
            .map_err(|e| format!("{}: flush: {e}", self.device.path))
    }

    fn boundaries(&mut self) -> Result<(), String> {
        let unit = self.device.block;
        for mib in 1..4 {
            for before in [unit, 8 * unit, 128 * 1024] {
                for after in [unit, 8 * unit, MIB, MIB + unit, 3 * MIB] {
                    let at = mib * MIB - before;
                    self.write(at, &[before + after], 0, after == unit)?;
                }
            }
        }
        // The end of the device.
        let end = self.device.size / unit * unit;
        self.write(end - unit, &[unit], 0, true)?;
        self.write(end - 2 * MIB, &[2 * MIB], 0, false)
    }

    fn segments(&mut self) -> Result<(), String> {
        let unit = self.device.block;
        for round in 0..60 {
            let n = [2, 3, 16, 100, 256][round % 5];
            let longest = if n > 16 { 16 } else { 300 };
            let segments: Vec<u64> = (0..n)
                .map(|_| (1 + self.rng.below(longest)) * unit)
                .collect();
            let skew = self.rng.below(8) as usize * SECTOR;
            let at = self.rng.below(8 * MIB / unit) * unit;
            self.write(at, &segments, skew, round % 4 == 0)?;
        }
        // One sector a segment: as many as a request can have.
        self.write(unit, &vec![unit; 1000], SECTOR, false)
    }

    fn no_data(&mut self) -> Result<(), String> {
        let unit = self.device.block;
        for len in [unit, 4096.max(unit), MIB - unit, MIB, MIB + unit, 5 * MIB] {
            for at in [0, 5 * unit, MIB - unit] {
                let (from, whole) = (at.saturating_sub(unit), len + 2 * unit);
                self.write(from, &[whole], 0, false)?;
                let before = self.read(from, whole)?;
                let error = |what: &str, e| {
                    format!("{}: {what} of {len} bytes at {at}: {e}", self.device.path)
                };
                self.device
                    .zero(at, len)
                    .map_err(|e| error("write-zeroes", e))?;
                self.totals.zeroes += 1;
                let mut want = before.clone();
                let skip = (at - from) as usize;
                want[skip..skip + len as usize].fill(0);
                if self.read(from, whole)? != want {
                    return Err(format!(
                        "{}: write-zeroes of {len} bytes at {at} left other data, inside or beside it",
                        self.device.path
                    ));
                }
                match self.device.discard(at, len) {
                    Ok(()) => self.totals.discards += 1,
                    Err(e) if e.raw_os_error() == Some(95) => continue,
                    Err(e) => return Err(error("discard", e)),
                }
                let got = self.read(from, whole)?;
                let end = skip + len as usize;
                if got[..skip] != want[..skip] || got[end..] != want[end..] {
                    return Err(format!(
                        "{}: discard of {len} bytes at {at} changed data beside it",
                        self.device.path
                    ));
                }
                // Discarded blocks are defined again once they are written.
                self.write(at, &[len], 0, false)?;
            }
        }
        Ok(())
    }
}
