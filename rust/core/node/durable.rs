// SPDX-License-Identifier: GPL-2.0

//! Superblock transitions: each durable step of a host's life, as a function on the superblock's own bytes.
//!
//! # Contract of every function here
//!
//! *Context:* the caller holds what serialises superblock updates and hands in a copy of the durable superblock.
//! A function edits that copy; it does no I/O, allocates nothing, does not sleep, and takes no lock. When it refuses,
//! the copy is thrown away: nothing has changed anywhere.
//!
//! *Durability:* the caller then writes the copy as the next generation ([`WriteState`](crate::log::superblock::WriteState))
//! and may sleep in that. Only when it is durable does the caller act on what it says: starts the node, frees the space,
//! tells the peer. Each function states what a power cut leaves *before* (the superblock that was there), and *after* (this
//! one, although nobody has acted on it yet). There is no third state: a generation is whole or it is not chosen.
//!
//! | transition | when | caller |
//! |---|---|---|
//! | [`start::begin_life`] | `group add`, after scan and flush of the log | command |
//! | [`checkpoint::checkpoint`] | data writes flushed; before space is freed | applier |
//! | [`checkpoint::raise_horizon`] | no ring; before data writes above the horizon | applier |
//! | [`adopt::resume`], [`adopt::restart`] | welcome received; before it is answered | link thread |
//! | [`takeover::take_over`] | the log is durable up to T; before the volumes are writable | command |
//! | [`links`] | `link add`, `del`, `set`; a synchronisation begins | command, link thread |
//! | [`progress`] | a synchronisation moves, ends | applier |
//! | [`volumes`] | a volume is new, or its block size changed; before its first write | device-mapper |
//!
//! The explorer runs these functions on real bytes, with every cut before and after.

pub mod adopt;
pub mod checkpoint;
pub mod grow;
pub mod links;
pub mod progress;
pub mod start;
pub mod takeover;
pub mod volumes;
