// SPDX-License-Identifier: GPL-2.0

//! `dmrepl srl format`: an empty SRL. Everything is checked before the first byte is written.

use std::path::Path;

use replicate_core::{
    log::superblock::{Format, Superblock},
    units::{Bytes, HostId},
};

use super::{
    copies::{self, Copies},
    device::Device,
    signature,
};
use crate::{
    error::{Error, Result},
    print, secret,
    size::human_size,
};

/// What is wiped at either end, so that no older signature or superblock is found there again.
const WIPE_BYTES: u64 = 1 << 20;

/// Formats a device.
pub fn run(path: &Path, ring: bool, force: bool) -> Result {
    let device = Device::open_to_write(path)?;
    let doing = format!("cannot format {}", device.path());

    let mut buffer = copies::buffer();
    let superblock = Superblock::mut_from(&mut buffer)
        .ok_or_else(|| Error::new("the superblock does not fit into its buffer"))?;
    let format = Format {
        host: random_host()?,
        device: Bytes(device.bytes()),
        physical_block: device.block(),
        ring,
    };
    superblock
        .format(&format)
        .map_err(|e| Error::new(format!("{doing}: {e}")))?;
    if !force {
        if let Some(found) = on_it(&device)? {
            return Err(Error::new(format!("{doing}: there is {found} on it"))
                .hint("If that can go, run the command again with --force: it is lost then."));
        }
    }

    wipe(&device)?;
    // Both slots, so that there is no moment with only one.
    for _ in 0..2 {
        superblock.advance();
        let offsets = superblock.write_offsets();
        let sealed = superblock.seal();
        for offset in offsets {
            device.write(offset.0, sealed)?;
        }
        device.flush()?;
    }
    verify(&device, &format)?;
    print(&summary(&device, superblock))
}

/// Returns what is on the device; an SRL is named by its group.
fn on_it(device: &Device) -> Result<Option<String>> {
    let mut buffer = copies::buffer();
    if let Ok(superblock) = Copies::read(device)?.newest(device, &mut buffer) {
        return Ok(Some(match superblock.group_name() {
            name if name.is_none() => "an SRL that no group has used yet".into(),
            name => format!("the SRL of group {name} ({})", superblock.group()),
        }));
    }
    signature::find(device)
}

fn wipe(device: &Device) -> Result {
    let zeros = [0; 64 << 10];
    let size = device.bytes();
    let chunk = zeros.len() as u64;
    let end_at = size.saturating_sub(WIPE_BYTES).next_multiple_of(4096);
    for (start, end) in [(0, WIPE_BYTES.min(size)), (end_at, size)] {
        let mut at = start;
        while at < end {
            let length = chunk.min(end - at);
            device.write(at, zeros.get(..length as usize).unwrap_or(&zeros))?;
            at += length;
        }
    }
    device.flush()
}

/// Reads it again: a device that loses what is written should be known now.
fn verify(device: &Device, format: &Format) -> Result {
    let copies = Copies::read(device)?;
    for copy in &copies.list {
        if let Err(e) = &copy.found {
            return Err(Error::new(format!(
                "{}: the superblock {} was written and cannot be read back: {e}",
                device.path(),
                copy.name
            ))
            .hint("Do not use this device; look into the kernel's log."));
        }
    }
    let mut buffer = copies::buffer();
    let read = copies.newest(device, &mut buffer)?;
    if read.host() != format.host {
        return Err(Error::new(format!(
            "{}: another superblock than the one written is read back",
            device.path()
        )));
    }
    Ok(())
}

fn summary(device: &Device, superblock: &Superblock) -> String {
    let ring = match superblock.ring() {
        Some(ring) => format!("ring of {}", human_size(ring.length.0)),
        None => "no ring".into(),
    };
    format!(
        "{}: formatted as an SRL: {}, {ring}, blocks of {}, host id {}",
        device.path(),
        human_size(device.bytes()),
        human_size(superblock.block().into()),
        superblock.host()
    )
}

fn random_host() -> Result<HostId> {
    let mut id = [0; 16];
    secret::random(&mut id)?;
    // A random UUID (version 4), so that other tools take it for one.
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Ok(HostId(id))
}
