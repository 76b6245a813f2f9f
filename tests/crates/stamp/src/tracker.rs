// SPDX-License-Identifier: GPL-2.0

//! What a reader may see while the writers run: for every sector, content that is never older than the
//! latest write that had completed when the read was submitted, never goes back in time, and is never
//! torn inside a sector.
//!
//! Writers report issue and completion ([`Tracker::issued`], [`Tracker::completed`]); readers take a
//! [`Sample`] before a read and verify the bytes after it. Context: any thread; a lock per 1 MiB of
//! device, held shortly, none nested. Discarded sectors are not checked until written again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use crate::block::{decode, Found, Op, Stamp};
use crate::SECTOR;

const STRIPE: u64 = 2048;

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Something issued at this event is there, or something that is not older.
    floor: u64,
    /// The last write that a read returned, and when that read was submitted.
    seen: u64,
    seen_at: u64,
    /// Completion of the latest write-zeroes; MAX while one is in flight.
    zeroed: u64,
    zeroing: u32,
    /// Completion of the latest discard whose effect may still be visible.
    discarded: u64,
    discarding: u32,
    /// Discards issued so far: one may come and go during a read.
    discards: u32,
    writing: u32,
}

impl State {
    fn undefined(&self) -> bool {
        self.discarding > 0 || self.discarded > 0
    }
}

/// What was known of a range when a read was submitted.
#[derive(Debug)]
pub struct Sample {
    at: u64,
    first: u64,
    states: Vec<State>,
}

/// All sectors of one device, from `start` on.
#[derive(Debug)]
struct Device {
    start: u64,
    stripes: Vec<Mutex<Vec<State>>>,
}

/// All devices of a run.
#[derive(Debug)]
pub struct Tracker {
    run: u64,
    devices: Vec<Device>,
    /// Completion by issue, of writes.
    done: RwLock<HashMap<u64, u64>>,
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tracker {
    /// Tracks `len` sectors from `start` on each device.
    pub fn new(run: u64, ranges: &[(u64, u64)]) -> Self {
        let devices = ranges
            .iter()
            .map(|(start, len)| Device {
                start: *start,
                stripes: (0..len.div_ceil(STRIPE))
                    .map(|_| Mutex::new(vec![State::default(); STRIPE as usize]))
                    .collect(),
            })
            .collect();
        Self {
            run,
            devices,
            done: RwLock::default(),
        }
    }

    /// Calls `each` for every sector of a range, with its state.
    fn each(&self, device: u16, first: u64, sectors: u64, mut each: impl FnMut(usize, &mut State)) {
        let Some(d) = self.devices.get(usize::from(device)) else {
            return;
        };
        let mut s = first - d.start;
        let end = s + sectors;
        let mut i = 0;
        while s < end {
            let mut stripe = locked(&d.stripes[(s / STRIPE) as usize]);
            let stop = end.min((s / STRIPE + 1) * STRIPE);
            while s < stop {
                each(i, &mut stripe[(s % STRIPE) as usize]);
                s += 1;
                i += 1;
            }
        }
    }

    /// Before submission.
    pub fn issued(&self, w: &Stamp) {
        self.each(w.device, w.first, w.sectors.into(), |_, s| match w.op {
            Op::Discard => {
                s.discarding += 1;
                s.discards += 1;
            }
            Op::Zero => s.zeroing += 1,
            _ => s.writing += 1,
        });
    }

    /// After completion; `failed` writes may be there or not, at any time.
    pub fn completed(&self, w: &Stamp, event: u64, failed: bool) {
        if w.op.stamps() && !failed && !self.devices.is_empty() {
            let mut done = self.done.write().unwrap_or_else(PoisonError::into_inner);
            done.insert(w.issue, event);
        }
        self.each(w.device, w.first, w.sectors.into(), |_, s| {
            match w.op {
                Op::Discard => {
                    s.discarding -= 1;
                    s.discarded = s.discarded.max(event);
                    return;
                }
                // A failed one stays in flight for ever: zeros may turn up.
                Op::Zero if failed => return,
                Op::Zero => {
                    s.zeroing -= 1;
                    s.zeroed = s.zeroed.max(event);
                }
                _ => s.writing -= 1,
            }
            if failed {
                return;
            }
            s.floor = s.floor.max(w.issue);
            if w.issue > s.discarded {
                s.discarded = 0;
            }
        });
    }

    /// Before a read is submitted, at this event.
    pub fn sample(&self, device: u16, first: u64, sectors: u64, at: u64) -> Sample {
        let mut states = Vec::with_capacity(sectors as usize);
        self.each(device, first, sectors, |_, s| states.push(*s));
        Sample { at, first, states }
    }

    /// Checks what a read returned. Returns the violations.
    pub fn verify(&self, device: u16, sample: &Sample, bytes: &[u8]) -> Vec<String> {
        let mut out = Vec::new();
        let mut shown: Vec<Option<u64>> = vec![None; sample.states.len()];
        let mut after = Vec::with_capacity(sample.states.len());
        self.each(device, sample.first, sample.states.len() as u64, |_, s| {
            after.push(*s)
        });
        {
            let done = self.done.read().unwrap_or_else(PoisonError::into_inner);
            for (i, before) in sample.states.iter().enumerate() {
                let sector = sample.first + i as u64;
                if before.undefined() || after[i].discards != before.discards {
                    continue;
                }
                let found = decode(&bytes[i * SECTOR..(i + 1) * SECTOR]);
                // Zeros may come from a write-zeroes that was issued during the read.
                let zeros = found == Found::Zero
                    && (after[i].zeroing > 0 || after[i].zeroed > before.zeroed);
                if zeros {
                    continue;
                }
                match self.verdict(device, sector, before, found, &done, &mut shown[i]) {
                    Ok(()) => (),
                    Err(text) => out.push(format!("device {device} sector {sector}: {text}")),
                }
            }
        }
        self.each(device, sample.first, shown.len() as u64, |i, s| {
            if s.discards != sample.states[i].discards {
                return;
            }
            if let Some(issue) = shown[i] {
                s.floor = s.floor.max(issue);
                if sample.at > s.seen_at {
                    s.seen = issue;
                    s.seen_at = sample.at;
                }
            }
        });
        out
    }

    fn verdict(
        &self,
        device: u16,
        sector: u64,
        before: &State,
        found: Found,
        done: &HashMap<u64, u64>,
        shown: &mut Option<u64>,
    ) -> Result<(), String> {
        let floor = before.floor;
        match found {
            Found::Broken if before.writing > 0 => {
                Err("torn inside the sector (a write was in flight)".into())
            }
            Found::Broken => Err("torn inside the sector".into()),
            Found::Stamp(s, own) if s.run == self.run => {
                if own != sector || s.device != device {
                    return Err(format!(
                        "data of device {} sector {own} (write {}.{})",
                        s.device, s.writer, s.number
                    ));
                }
                let ended = done.get(&s.issue).copied();
                if ended.is_some_and(|e| e < floor) {
                    return Err(format!(
                        "older than the latest completed write: write {}.{} (issue {}, completed at \
                         {}), but something issued at {floor} was there",
                        s.writer,
                        s.number,
                        s.issue,
                        ended.unwrap_or(0)
                    ));
                }
                let newer_was_seen = before.seen != 0 && before.seen != s.issue;
                if newer_was_seen && ended.is_some_and(|e| e < before.seen_at) {
                    return Err(format!(
                        "went back in time: write {}.{} (issue {}) after a read had returned issue {}",
                        s.writer, s.number, s.issue, before.seen
                    ));
                }
                *shown = Some(s.issue);
                Ok(())
            }
            Found::Zero if before.zeroed > 0 => match before.zeroed < floor {
                true => Err(format!(
                    "zeros of a write-zeroes that completed at {}, but something issued at {floor} \
                     was there",
                    before.zeroed
                )),
                false => Ok(()),
            },
            _ if floor == 0 => Ok(()),
            _ => Err(format!(
                "holds data from before the run, but something issued at {floor} was there"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(issue: u64, op: Op) -> Stamp {
        Stamp {
            run: 1,
            writer: 0,
            device: 0,
            op,
            number: issue,
            time: 0,
            first: 100,
            sectors: 4,
            issue,
            floor: 0,
        }
    }

    fn bytes(s: &Stamp) -> Vec<u8> {
        let mut b = vec![0; 4 * SECTOR];
        s.fill(s.first, &mut b);
        b
    }

    struct Lab {
        t: Tracker,
        now: u64,
    }

    impl Lab {
        fn new() -> Self {
            let t = Tracker::new(1, &[(96, 5000)]);
            Lab { t, now: 0 }
        }

        fn event(&mut self) -> u64 {
            self.now += 1;
            self.now
        }

        fn issue(&mut self, op: Op) -> Stamp {
            let s = stamp(self.event(), op);
            self.t.issued(&s);
            s
        }

        fn done(&mut self, s: &Stamp) {
            let e = self.event();
            self.t.completed(s, e, false);
        }

        fn write(&mut self) -> Stamp {
            let s = self.issue(Op::Write);
            self.done(&s);
            s
        }

        fn sample(&mut self) -> Sample {
            let e = self.event();
            self.t.sample(0, 100, 4, e)
        }

        fn read(&mut self, data: &[u8]) -> usize {
            let s = self.sample();
            self.t.verify(0, &s, data).len()
        }
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut l = Lab::new();
        let (a, b) = (l.write(), l.write());
        assert_eq!(l.read(&bytes(&b)), 0);
        assert_eq!(l.read(&bytes(&a)), 4);
        assert_eq!(l.read(&[0; 4 * SECTOR]), 4);
        assert_eq!(l.read(&[7; 4 * SECTOR]), 4);
    }

    #[test]
    fn a_read_submitted_earlier_may_return_the_older_one() {
        let mut l = Lab::new();
        let a = l.write();
        let s = l.sample();
        let b = l.write();
        assert_eq!(l.t.verify(0, &s, &bytes(&a)).len(), 0);
        assert_eq!(l.read(&bytes(&b)), 0);
    }

    #[test]
    fn concurrent_writes_may_end_either_way_but_a_read_settles_it() {
        let mut l = Lab::new();
        let (a, b) = (l.issue(Op::Write), l.issue(Op::Write));
        l.done(&b);
        l.done(&a);
        let before = l.sample();
        assert_eq!(l.read(&bytes(&b)), 0);
        assert_eq!(
            l.read(&bytes(&a)),
            4,
            "a had completed, and a read returned b"
        );
        // A read submitted before could return either.
        assert_eq!(l.t.verify(0, &before, &bytes(&a)).len(), 0);
    }

    #[test]
    fn data_of_a_write_in_flight_must_stay_once_read() {
        let mut l = Lab::new();
        let a = l.write();
        let b = l.issue(Op::Write);
        assert_eq!(l.read(&bytes(&a)), 0);
        assert_eq!(l.read(&bytes(&b)), 0);
        assert_eq!(l.read(&bytes(&a)), 4, "went back in time");
    }

    #[test]
    fn torn_misplaced_and_zeros() {
        let mut l = Lab::new();
        let a = l.write();
        let mut torn = bytes(&a);
        torn[700] ^= 1;
        assert_eq!(l.read(&torn), 1);
        let mut moved = bytes(&a);
        moved.rotate_left(SECTOR);
        assert_eq!(l.read(&moved), 4);
        let z = l.issue(Op::Zero);
        assert_eq!(l.read(&[0; 4 * SECTOR]), 0);
        l.done(&z);
        assert_eq!(l.read(&[0; 4 * SECTOR]), 0);
        assert_eq!(l.read(&bytes(&a)), 4);
        let b = l.write();
        assert_eq!(l.read(&[0; 4 * SECTOR]), 4);
        assert_eq!(l.read(&bytes(&b)), 0);
    }

    #[test]
    fn discarded_sectors_are_undefined_until_written() {
        let mut l = Lab::new();
        let a = l.write();
        let d = l.issue(Op::Discard);
        assert_eq!(l.read(&[0; 4 * SECTOR]), 0);
        l.done(&d);
        assert_eq!(l.read(&[9; 4 * SECTOR]), 0);
        assert_eq!(l.read(&bytes(&a)), 0);
        let b = l.write();
        assert_eq!(l.read(&bytes(&a)), 4);
        assert_eq!(l.read(&bytes(&b)), 0);
    }

    #[test]
    fn before_the_first_write_anything_goes() {
        let mut l = Lab::new();
        assert_eq!(l.read(&[3; 4 * SECTOR]), 0);
        let a = l.issue(Op::Write);
        assert_eq!(l.read(&[3; 4 * SECTOR]), 0);
        l.t.completed(&a, 50, true);
        assert_eq!(l.read(&[3; 4 * SECTOR]), 0);
        assert_eq!(l.read(&bytes(&a)), 0);
        assert_eq!(
            l.read(&[3; 4 * SECTOR]),
            4,
            "a failed write was seen, then gone"
        );
    }
}
