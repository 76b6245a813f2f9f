// SPDX-License-Identifier: GPL-2.0

//! The pure logic of replication: no kernel, no I/O, no clock, no allocation, no `unsafe`.
//!
//! Compiled unchanged into the module, the host tests, the explorer and the userspace tool. Every
//! decision that a promise rests on is taken here; the module executes.
//!
//! | module | what it decides |
//! |---|---|
//! | [`units`], [`group`], [`record`], [`lineage`] | the words |
//! | [`log`] | the log's format, space, writing, recovery |
//! | [`order`] | window of records, apply rounds, completions |
//! | [`node`] | one group on one host: all of that together |
//! | [`wire`] | the messages |
//! | [`link`] | sender, handshake, states, region copies |
#![cfg_attr(not(any(test, CONFIG_RUST)), no_std)]
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod checksum;
pub mod group;
pub mod lineage;
pub mod log;
pub mod node;
pub mod record;
pub mod session;
pub mod units;
pub mod wire;
