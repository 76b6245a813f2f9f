// SPDX-License-Identifier: GPL-2.0

//! The superblock's four copies on a device, and the one that is to be believed.

use replicate_core::{
    log::{
        format::SUPERBLOCK_BYTES,
        superblock::{choose, copy_offsets, validate, Found, Superblock, SuperblockError},
    },
    units::Bytes,
};

use super::device::{Buffer, Device};
use crate::error::{Error, Exit, Result};

const NAMES: [&str; 4] = [
    "first, slot A",
    "first, slot B",
    "last, slot A",
    "last, slot B",
];

/// One copy.
pub struct Copy {
    /// Which, for people.
    pub name: &'static str,
    /// Where it lies.
    pub offset: u64,
    /// What it says of itself.
    pub found: Result<Found, SuperblockError>,
    bytes: Buffer,
}

/// All four.
pub struct Copies {
    pub list: Vec<Copy>,
}

impl Copies {
    /// Reads them. Those at the end lie where the device ended when it was formatted.
    pub fn read(device: &Device) -> Result<Self> {
        let mut size = device.bytes();
        let mut list: Vec<Copy> = Vec::new();
        for (i, name) in NAMES.into_iter().enumerate() {
            if i == 2 {
                let formatted = list
                    .iter()
                    .filter_map(|c| c.found.as_ref().ok())
                    .map(|f| f.device.0);
                size = formatted.max().unwrap_or(size);
            }
            let offset = copy_offsets(Bytes(size)).get(i).map_or(0, |o| o.0);
            let bytes = device.read(offset, SUPERBLOCK_BYTES)?;
            let found = validate(&bytes);
            list.push(Copy {
                name,
                offset,
                found,
                bytes,
            });
        }
        Ok(Copies { list })
    }

    /// Loads the newest valid copy into `buffer`.
    pub fn newest<'b>(
        &self,
        device: &Device,
        buffer: &'b mut Buffer,
    ) -> Result<&'b mut Superblock> {
        let mut copies = [None; 4];
        for (to, from) in copies.iter_mut().zip(&self.list) {
            *to = Some(&*from.bytes);
        }
        let chosen = choose(copies).map_err(|e| self.none(device, e))?;
        let bytes = self.list.get(chosen).map_or(&[][..], |c| &c.bytes);
        let superblock = Superblock::mut_from(buffer)
            .ok_or_else(|| Error::new("the superblock does not fit into its buffer"))?;
        superblock.load(bytes).map_err(|e| self.none(device, e))?;
        Ok(superblock)
    }

    fn none(&self, device: &Device, error: SuperblockError) -> Error {
        Error::new(format!("{}: no valid superblock: {error}", device.path()))
            .hint("dmrepl srl check shows all four copies; dmrepl srl format makes a new SRL, and what is on it is lost.")
            .exit(Exit::Damaged)
    }
}

/// Returns a buffer for one superblock.
pub fn buffer() -> Buffer {
    Buffer::zeroed(SUPERBLOCK_BYTES)
}
