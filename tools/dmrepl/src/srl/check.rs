// SPDX-License-Identifier: GPL-2.0

//! `dmrepl srl check`: what recovery would find, without changing anything.

use std::path::Path;

use replicate_core::{
    log::{
        recovery::Outcome,
        superblock::{Superblock, SuperblockError},
    },
    units::Seq,
};

use super::{
    copies::{self, Copies},
    device::Device,
    dump::verdict,
    ring::Reader,
};
use crate::{
    error::{warn, Error, Result},
    print,
    size::{human_size, rfc3339},
};

/// Checks a device.
pub fn run(path: &Path) -> Result {
    let device = Device::open_to_read(path)?;
    if device.live() {
        warn(format!(
            "{}: live, may be torn: it is in use and changes while it is read",
            device.path()
        ));
    }
    let copies = Copies::read(&device)?;
    print(&copies_text(&device, &copies))?;
    let mut buffer = copies::buffer();
    let superblock = copies.newest(&device, &mut buffer)?;
    superblock
        .check_device(replicate_core::units::Bytes(device.bytes()), device.block())
        .map_err(|e| Error::new(format!("{}: {e}", device.path())))?;
    print(&facts(superblock))?;

    let Some(mut reader) = Reader::new(&device, superblock) else {
        return print("ring: none");
    };
    if superblock.group().is_none() {
        return print("ring: never used");
    }
    let (mut batches, mut records, mut bytes) = (0u64, 0u64, 0u64);
    let outcome = reader.scan(superblock, |_, batch, last| {
        batches += 1;
        bytes += batch.head.length.0;
        records += batch
            .records
            .iter()
            .filter(|e| e.record.seq <= last)
            .count() as u64;
        Ok(())
    })?;
    let tail = superblock.tail();
    print(&format!(
        "ring: {} in blocks of {}; from record {} (lap {}, byte {}): {records} records in {batches} batches, {}",
        human_size(reader.bytes().0),
        reader.block(),
        tail.seq,
        tail.lap,
        tail.offset,
        human_size(bytes),
    ))?;
    if let Outcome::Head { head, place, .. } = outcome {
        print(&format!(
            "ring: whole up to record {head}; the next batch goes to byte {}",
            offset_text(&reader, place.0)
        ))?;
    }
    verdict(&device, &outcome)?;
    print(&format!("{}: whole", device.path()))
}

fn offset_text(reader: &Reader<'_>, place: u64) -> String {
    let size = reader.bytes().0.max(1);
    format!("{} of lap {}", place % size, place / size)
}

fn copies_text(device: &Device, copies: &Copies) -> String {
    let newest = copies
        .list
        .iter()
        .filter_map(|c| c.found.as_ref().ok())
        .map(|f| f.generation)
        .max();
    let lines = copies.list.iter().map(|copy| {
        let says = match &copy.found {
            Ok(found) if Some(found.generation) == newest => {
                format!("generation {} (newest)", found.generation)
            }
            Ok(found) => format!("generation {}", found.generation),
            Err(SuperblockError::Blank) => "never written".into(),
            Err(e) => format!("not valid: {e}"),
        };
        format!("superblock {} at byte {}: {says}", copy.name, copy.offset)
    });
    let head = format!("{}: {}", device.path(), human_size(device.bytes()));
    std::iter::once(head)
        .chain(lines)
        .collect::<Vec<_>>()
        .join("\n")
}

fn facts(sb: &Superblock) -> String {
    let mut lines = vec![format!("host {}", sb.host())];
    if sb.group().is_none() && sb.group_name().is_none() {
        lines.push("group: none yet".into());
        return lines.join("\n");
    }
    lines.push(format!(
        "group {}: {}, {}, data {}, {}",
        sb.group_name(),
        sb.group(),
        sb.role(),
        sb.replica(),
        if sb.clean() {
            "stopped cleanly"
        } else {
            "not stopped cleanly"
        }
    ));
    let mut note = |label: &str, position: Seq| lines.push(format!("{label}: record {position}"));
    note("committed", sb.commit().seq);
    note("applied", sb.applied().seq);
    if sb.ring().is_none() {
        note("horizon", sb.horizon().seq);
    }
    if sb.redo() {
        lines.push("redo: begun and not finished".into());
    }
    if let Some(i) = sb.inconsistent() {
        lines.push(format!(
            "inconsistent: since record {} at {}",
            i.since.seq,
            rfc3339(i.time_ns)
        ));
    }
    if let Some(after) = sb.unlogged() {
        lines.push(format!(
            "unlogged: everything after record {} may differ",
            after.seq
        ));
    }
    if let Some(generation) = sb.log_void() {
        lines.push(format!("log void: since generation {generation}"));
    }
    lines.extend(sb.lineage().iter().map(|e| {
        format!(
            "epoch {}: from record {}, {}, {} by host {}",
            e.id,
            e.first,
            e.reason,
            rfc3339(e.time_ns),
            e.host
        )
    }));
    lines.extend(sb.volumes().map(|v| {
        let size = v.volume.size.to_bytes().map_or(u64::MAX, |b| b.0);
        format!(
            "volume {}: {}, {}, blocks of {}, {}",
            v.volume.id.0,
            v.volume.name,
            human_size(size),
            v.volume.logical_block,
            v.state
        )
    }));
    lines.extend(sb.links().map(|(_, l)| {
        format!(
            "link {}: {}, {}, peer {} has record {}",
            l.name, l.mode, l.state, l.peer, l.position.seq
        )
    }));
    lines.join("\n")
}
