// SPDX-License-Identifier: GPL-2.0

//! The stamp in a sector, little endian:
//!
//! ```text
//!   0 magic "DMRSTAMP"    8 run          16 writer u32   20 device u16   22 op u16
//!  24 number in writer   32 time ns      40 sector       48 first sector of the write
//!  56 sectors u32        60 zero u32     64 issue        72 floor
//!  80 filler, derived from the above    504 check over bytes 0..504
//! ```
//!
//! `issue` is the write's place in the process' order of events; every write with an issue at or below
//! `floor` had completed when this one was issued. The whole payload follows from these fields, so the
//! host can build it again and compare checksums.

use crate::crc::mix64;
use crate::SECTOR;

const MAGIC: u64 = u64::from_le_bytes(*b"DMRSTAMP");
const CHECK: usize = SECTOR - 8;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Write,
    Fua,
    Zero,
    Discard,
    Sync,
}

impl Op {
    pub const fn letter(self) -> char {
        match self {
            Op::Write => 'w',
            Op::Fua => 'f',
            Op::Zero => 'z',
            Op::Discard => 'd',
            Op::Sync => 's',
        }
    }

    pub fn from_letter(c: char) -> Option<Self> {
        [Op::Write, Op::Fua, Op::Zero, Op::Discard, Op::Sync]
            .into_iter()
            .find(|o| o.letter() == c)
    }

    /// Whether it leaves stamps on the device.
    pub const fn stamps(self) -> bool {
        matches!(self, Op::Write | Op::Fua)
    }
}

/// Everything that names one write; the sectors of a write differ only in their own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub run: u64,
    pub writer: u32,
    pub device: u16,
    pub op: Op,
    pub number: u64,
    pub time: u64,
    pub first: u64,
    pub sectors: u32,
    pub issue: u64,
    pub floor: u64,
}

/// What a sector turns out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A stamp, and the sector it says it belongs to.
    Stamp(Stamp, u64),
    Zero,
    /// It begins like a stamp and is not one: torn inside the sector, or damaged.
    Broken,
    Other,
}

fn put(buf: &mut [u8], at: usize, v: u64) {
    buf[at..at + 8].copy_from_slice(&v.to_le_bytes());
}

fn get(buf: &[u8], at: usize) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&buf[at..at + 8]);
    u64::from_le_bytes(b)
}

impl Stamp {
    /// Fills one sector (512 bytes).
    pub fn encode(&self, sector: u64, buf: &mut [u8]) {
        put(buf, 0, MAGIC);
        put(buf, 8, self.run);
        let op = u64::from(self.op.letter() as u8);
        put(
            buf,
            16,
            u64::from(self.writer) | (u64::from(self.device) << 32) | (op << 48),
        );
        put(buf, 24, self.number);
        put(buf, 32, self.time);
        put(buf, 40, sector);
        put(buf, 48, self.first);
        put(buf, 56, u64::from(self.sectors));
        put(buf, 64, self.issue);
        put(buf, 72, self.floor);
        let mut w = mix64(&buf[..80]);
        for chunk in buf[80..CHECK].chunks_exact_mut(8) {
            chunk.copy_from_slice(&w.to_le_bytes());
            w = w.wrapping_add(0x9e37_79b9_7f4a_7c15).rotate_left(7);
        }
        let check = mix64(&buf[..CHECK]);
        put(buf, CHECK, check);
    }

    /// Fills the payload of the sectors from `first` on, as many as `buf` holds.
    pub fn fill(&self, first: u64, buf: &mut [u8]) {
        for (i, s) in buf.chunks_exact_mut(SECTOR).enumerate() {
            self.encode(first + i as u64, s);
        }
    }
}

/// Reads what one sector (512 bytes) holds.
pub fn decode(buf: &[u8]) -> Found {
    if get(buf, 0) != MAGIC {
        return if buf.iter().all(|b| *b == 0) {
            Found::Zero
        } else {
            Found::Other
        };
    }
    let who = get(buf, 16);
    let op = Op::from_letter(char::from((who >> 48) as u8));
    let (Some(op), true) = (op, get(buf, CHECK) == mix64(&buf[..CHECK])) else {
        return Found::Broken;
    };
    let stamp = Stamp {
        run: get(buf, 8),
        writer: who as u32,
        device: (who >> 32) as u16,
        op,
        number: get(buf, 24),
        time: get(buf, 32),
        first: get(buf, 48),
        sectors: get(buf, 56) as u32,
        issue: get(buf, 64),
        floor: get(buf, 72),
    };
    Found::Stamp(stamp, get(buf, 40))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let s = Stamp {
            run: 77,
            writer: 3,
            device: 1,
            op: Op::Fua,
            number: 9,
            time: 123,
            first: 100,
            sectors: 8,
            issue: 55,
            floor: 40,
        };
        let mut a = vec![0; SECTOR];
        s.encode(104, &mut a);
        assert_eq!(decode(&a), Found::Stamp(s, 104));
        for at in 8..SECTOR {
            let mut b = a.clone();
            b[at] ^= 1;
            assert_eq!(decode(&b), Found::Broken, "byte {at}");
        }
        // Torn inside: the head of one write and the tail of another, at every word.
        let mut other = vec![0; SECTOR];
        Stamp { number: 10, ..s }.encode(104, &mut other);
        for at in (8..SECTOR).step_by(8) {
            let torn = [&a[..at], &other[at..]].concat();
            assert!(
                torn == a || torn == other || decode(&torn) == Found::Broken,
                "at {at}"
            );
        }
        assert_eq!(decode(&[0; SECTOR]), Found::Zero);
        assert_eq!(decode(&[1; SECTOR]), Found::Other);
    }
}
