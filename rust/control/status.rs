// SPDX-License-Identifier: GPL-2.0

//! The command `group get`: what a group is and does, with the reason of every state.
//!
//! The secret is never told. A group is its scalars and its *parts*: volumes, those of the
//! superblock's table that are absent too, and links. One answer holds them all; a dump spreads a large group over
//! several messages, of which the first has the scalars and the others its name and further parts.
//!
//! SuperblockInfo are taken under the group's locks and told after they are released; nothing is allocated under a lock that
//! the I/O path takes.

mod links;
mod parts;
mod scalars;
mod volumes;

use super::answer::{answer, entry};
use crate::{
    group::Group,
    registry,
    uapi::{a_group as g, cmd},
};
use kernel::prelude::*;
use parts::{Part, Parts};
use replicate_linux::genl::{Dump, Message, Request};

/// Room for the scalars of a group, with texts of at most 400 bytes each.
const SCALAR_BYTES: usize = 4096;
/// Room for one part.
const PART_BYTES: usize = 1600;
const CMD: u8 = cmd::GROUP_GET;

/// Places of a dump: which group, and from which part of it on (0: the scalars first).
const GROUP: usize = 0;
const PART: usize = 1;

/// `group get` of one group.
pub(super) fn get(request: &mut Request<'_>) -> Result {
    answer(
        request,
        "group get",
        &[(g::NAME, "group name")],
        |request, attrs| {
            let entry = entry(attrs, g::NAME)?;
            let parts = Parts::of(&entry.group)?;
            let capacity = SCALAR_BYTES.saturating_add(parts.len().saturating_mul(PART_BYTES));
            let mut m = request.reply(CMD, capacity)?;
            scalars::tell(&mut m, &entry.group, &parts)?;
            for part in parts.at_least(0) {
                tell(&mut m, &entry.group, part)?;
            }
            Ok(m.send()?)
        },
    )
}

/// `group get` of all groups.
pub(super) fn dump(dump: &mut Dump<'_>) -> Result {
    dump.set_generation(registry::generation());
    while let Some(entry) = registry::from_number(dump.cursor(GROUP)) {
        if entry.number() != dump.cursor(GROUP) {
            // The next one; the one before is told, or was removed meanwhile.
            dump.set_cursor(GROUP, entry.number());
            dump.set_cursor(PART, 0);
        }
        if !dump_group(dump, &entry.group)? {
            return Ok(());
        }
        dump.set_cursor(GROUP, entry.number().saturating_add(1));
        dump.set_cursor(PART, 0);
    }
    Ok(())
}

/// Tells what is still to be told of a group; `false`: the buffer is full.
fn dump_group(dump: &mut Dump<'_>, group: &Group) -> Result<bool> {
    let parts = Parts::of(group)?;
    loop {
        // Keys of parts begin at 1.
        let from = dump.cursor(PART);
        if from > 0 && parts.at_least(from).next().is_none() {
            return Ok(true);
        }
        let mut next = from.max(1);
        let added = dump.entry(CMD, |m| {
            if from == 0 {
                scalars::tell(m, group, &parts)?;
            } else {
                m.str(g::NAME, group.name.as_str())?;
            }
            for part in parts.at_least(from) {
                match tell(m, group, part) {
                    Ok(()) => next = part.key().saturating_add(1),
                    // As many as fit; an entry without any is no progress.
                    Err(e) if e == EMSGSIZE && (from == 0 || next > from) => return Ok(()),
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        })?;
        if !added {
            return Ok(false);
        }
        dump.set_cursor(PART, next);
    }
}

fn tell(m: &mut Message, group: &Group, part: &Part) -> Result {
    match part {
        Part::Volume(v) => m.nest(g::VOLUME, |m| volumes::tell(m, group, v)),
        Part::Link(l) => m.nest(g::LINK, |m| links::tell(m, group, l)),
    }
}
