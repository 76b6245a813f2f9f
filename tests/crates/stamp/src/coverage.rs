// SPDX-License-Identifier: GPL-2.0

//! Which writes cover a sector, and what the images hold there. Built once for a check.

use std::io;

use crate::block::{decode, Found};
use crate::history::{History, WriteId};
use crate::SECTOR;

/// Something to check: the image of one volume.
pub trait Image {
    /// Bytes.
    fn size(&self) -> u64;
    fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl Image for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = at as usize;
        let have = self
            .get(at..at + buf.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(have);
        Ok(())
    }
}

/// What one sector of an image holds, in terms of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Write(WriteId),
    Zero,
    /// Not ours.
    Other,
    /// Damaged inside.
    Broken,
    /// A stamp that belongs to another place or device.
    Misplaced(WriteId),
}

/// The contents of one image, by sector.
pub type Contents = Vec<Content>;

const CHUNK: usize = 1 << 20;

/// Calls `each` for every sector of an image.
pub fn sectors(image: &dyn Image, mut each: impl FnMut(u64, &[u8])) -> io::Result<()> {
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    while at < image.size() {
        let n = (image.size() - at).min(CHUNK as u64) as usize;
        image.read(at, &mut buf[..n])?;
        for (i, s) in buf[..n].chunks_exact(SECTOR).enumerate() {
            each(at / SECTOR as u64 + i as u64, s);
        }
        at += n as u64;
    }
    Ok(())
}

/// Scans the image of `device`. Writes that the journal does not know are learnt from their stamps;
/// stamps of a run that no journal names (when there are journals) count as other data.
pub fn scan(history: &mut History, device: u16, image: &dyn Image) -> io::Result<Contents> {
    let mut out = Vec::with_capacity((image.size() / SECTOR as u64) as usize);
    sectors(image, |sector, bytes| {
        out.push(match decode(bytes) {
            Found::Zero => Content::Zero,
            Found::Other => Content::Other,
            Found::Broken => Content::Broken,
            Found::Stamp(s, _) if !history.knows(s.run) => Content::Other,
            Found::Stamp(s, own) => {
                let id = history.learn(&s);
                let inside = (s.first..s.first + u64::from(s.sectors)).contains(&own);
                if own == sector && s.device == device && inside {
                    Content::Write(id)
                } else {
                    Content::Misplaced(id)
                }
            }
        });
    })?;
    Ok(out)
}

/// For every sector of a device, the writes that cover it (compressed rows).
#[derive(Debug)]
pub struct Coverage {
    start: Vec<u32>,
    ids: Vec<WriteId>,
}

impl Coverage {
    pub fn new(history: &History, device: u16, sectors: u64) -> Self {
        let mine = |id: &WriteId| history.get(*id).stamp.device == device;
        let ids: Vec<WriteId> = (0..history.writes.len() as u32).filter(mine).collect();
        let span = |id: WriteId| {
            let w = history.get(id);
            let len = if w.op() == crate::block::Op::Sync {
                0
            } else {
                w.stamp.sectors
            };
            let first = w.stamp.first.min(sectors);
            first as usize..(first + u64::from(len)).min(sectors) as usize
        };
        let mut start = vec![0u32; sectors as usize + 1];
        for id in &ids {
            for s in span(*id) {
                start[s + 1] += 1;
            }
        }
        for s in 0..sectors as usize {
            start[s + 1] += start[s];
        }
        let mut next = start.clone();
        let mut rows = vec![0; start[sectors as usize] as usize];
        for id in &ids {
            for s in span(*id) {
                rows[next[s] as usize] = *id;
                next[s] += 1;
            }
        }
        Self { start, ids: rows }
    }

    pub fn of(&self, sector: u64) -> &[WriteId] {
        let s = sector as usize;
        match (self.start.get(s), self.start.get(s + 1)) {
            (Some(a), Some(b)) => &self.ids[*a as usize..*b as usize],
            _ => &[],
        }
    }
}
