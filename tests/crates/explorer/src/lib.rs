// SPDX-License-Identifier: GPL-2.0

//! The explorer: walks every state of a primary, a secondary and their link that small bounds allow, and
//! checks the promises in each.
//!
//! The state machines are the core's own, the ones that the kernel module executes: node, log writer,
//! scan, handshake, sender, region copies, takeover. Only disks ([`disk`], [`crash`]) and the wire ([`link`]) are
//! models, and how a superblock's bytes get there ([`copies`]). [`event`] names what can happen, [`check`] what must hold, [`runs`] what is explored, [`walks`] what is walked at random, [`mutants`]
//! which run must break when a rule is left out.

pub mod check;
pub mod cluster;
pub mod config;
pub mod copies;
pub mod crash;
pub mod disk;
pub mod event;
pub mod ghost;
pub mod host;
pub mod link;
pub mod meet;
pub mod mutants;
pub mod runs;
pub mod sb;
pub mod search;
pub mod shared;
pub mod walks;
pub mod work;
pub mod world;
