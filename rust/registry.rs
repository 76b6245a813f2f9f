// SPDX-License-Identifier: GPL-2.0

//! The groups of this host, by name.
//!
//! Three locks. `Adding` serialises `group add` and `group del`, which sleep for long. An entry's `commands` lets one
//! changing command per group in at a time; it is held over the whole command. `Groups`, the list itself, is held for
//! look-ups only. Order: `Adding` > `commands` > `Groups` > the locks of a group ([`crate::group`]).
//!
//! Entries have numbers that only grow, so that a dump that is sent in pieces finds its place again although groups
//! come and go.

use crate::{
    group::{inner::Phase, start::Config, Group},
    link::listener::Listeners,
    refuse::Refusal,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{lock::mutex::MutexBackend, lock::Guard, Arc, Mutex},
};
use replicate_core::group::Name;
use replicate_linux::{errno::ESHUTDOWN, global_mutex};

/// A group and what commands need beside it.
#[pin_data]
pub(crate) struct Entry {
    /// The group.
    pub(crate) group: Arc<Group>,
    number: u64,
    #[pin]
    commands: Mutex<()>,
}

/// While it lives no other command changes the group.
pub(crate) type Turn<'a> = Guard<'a, (), MutexBackend>;

impl Entry {
    /// Waits for the command before this one to end. May sleep.
    pub(crate) fn turn(&self) -> Turn<'_> {
        self.commands.lock()
    }

    /// Returns its number: higher than that of every group added before it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

struct List {
    entries: KVec<Arc<Entry>>,
    listeners: Option<Arc<Listeners>>,
    next: u64,
    /// +1 with every group that comes or goes.
    generation: u32,
    /// The module is being unloaded.
    closed: bool,
}

global_mutex! {
    /// The list.
    struct Groups(List) = List { entries: KVec::new(), listeners: None, next: 1, generation: 1, closed: false };
}

global_mutex! {
    /// Held while a group is made or removed.
    struct Adding(()) = ();
}

/// Returns the group of that name. May sleep.
pub(crate) fn find(name: &Name) -> Option<Arc<Group>> {
    entry(name).map(|e| e.group.clone())
}

/// Returns the entry of the group of that name. May sleep.
pub(crate) fn entry(name: &Name) -> Option<Arc<Entry>> {
    let list = Groups.lock();
    list.entries.iter().find(|e| e.group.name == *name).cloned()
}

/// Returns the first group whose number is at least `from`. May sleep.
pub(crate) fn from_number(from: u64) -> Option<Arc<Entry>> {
    let list = Groups.lock();
    list.entries.iter().find(|e| e.number >= from).cloned()
}

/// Returns which groups there are, as a number that changes with them. May sleep.
pub(crate) fn generation() -> u32 {
    Groups.lock().generation
}

/// Returns the listeners that the groups' links share, made for the first link. May sleep.
pub(crate) fn listeners() -> Result<Arc<Listeners>, Refusal> {
    let mut list = Groups.lock();
    if let Some(l) = &list.listeners {
        return Ok(l.clone());
    }
    if list.closed {
        return Err(unloading());
    }
    let made = Listeners::new()?;
    list.listeners = Some(made.clone());
    Ok(made)
}

/// Makes and starts a group, unless there is one of that name. May sleep.
#[inline(never)]
pub(crate) fn add(config: Config<'_>) -> Result<Arc<Group>, Refusal> {
    let _adding = Adding.lock();
    let number = {
        let mut list = Groups.lock();
        if list.closed {
            return Err(unloading());
        }
        if list.entries.iter().any(|e| e.group.name == config.name) {
            let name = config.name.as_str();
            return Err(Refusal::new(
                EEXIST,
                format_args!("group {name} already exists"),
            ));
        }
        list.entries.reserve(1, GFP_KERNEL)?;
        let number = list.next;
        list.next += 1;
        number
    };
    let prepared = Group::prepare(config)?;
    let held = prepared.group().clone();
    let made = Arc::pin_init(
        pin_init!(Entry {
            group: held,
            number,
            commands <- new_mutex!((), "Entry::commands"),
        }),
        GFP_KERNEL,
    )?;
    let group = prepared.begin()?;
    let mut list = Groups.lock();
    list.generation = list.generation.wrapping_add(1);
    // Cannot fail: there was made room, and nobody else adds.
    let _ = list.entries.push_within_capacity(made);
    drop(list);
    Ok(group)
}

/// Stops and forgets a group once `allow` has said that it may go. May sleep.
pub(crate) fn remove(
    name: &Name,
    allow: impl FnOnce(&Group) -> Result<(), Refusal>,
) -> Result<Arc<Group>, Refusal> {
    let _adding = Adding.lock();
    let found = entry(name).ok_or_else(|| unknown(name.as_str()))?;
    let _turn = found.turn();
    allow(&found.group)?;
    end(&found.group);
    let removed = {
        let mut list = Groups.lock();
        list.generation = list.generation.wrapping_add(1);
        match list.entries.iter().position(|e| Arc::ptr_eq(e, &found)) {
            Some(i) => list.entries.remove(i).ok(),
            None => None,
        }
    };
    // Not under the list's lock: it may be the last reference.
    drop(removed);
    Ok(found.group.clone())
}

/// Lets nobody in any more and stops the threads.
fn end(group: &Group) {
    group.inner.lock().phase = Phase::Gone;
    group.stop();
}

/// Returns the refusal of a command for a group that is not there.
pub(crate) fn unknown(name: &str) -> Refusal {
    Refusal::new(ENOENT, format_args!("unknown group '{name}'"))
}

fn unloading() -> Refusal {
    Refusal::new(
        ESHUTDOWN,
        format_args!("the module dm_replicate is being unloaded"),
    )
}

/// Ends everything that is left when the module is unloaded. No volume is there then: a device-mapper table holds the
/// module. Links keep their place in the SRL. It must be dropped before the netlink family, because threads send events.
pub(crate) struct Cleanup;

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _adding = Adding.lock();
        let (entries, listeners) = {
            let mut list = Groups.lock();
            list.closed = true;
            (core::mem::take(&mut list.entries), list.listeners.take())
        };
        for entry in entries.iter() {
            let _turn = entry.turn();
            if let Some(listeners) = &listeners {
                for link in (0..).map_while(|i| entry.group.link_at(i)) {
                    link.stop(listeners);
                }
            }
            pr_info!(
                "group {}: stopped, the module is unloaded\n",
                entry.group.name.as_str()
            );
            end(&entry.group);
        }
    }
}
