// SPDX-License-Identifier: GPL-2.0

//! The walks: larger scripts, walked at random where they are too large to be explored in full.

use replicate_core::group::Mode;

use crate::{
    config::{fua, w, Config, Op},
    runs::{no_ring, ring, wide, ADJACENT, TWO_EXTENTS},
};

/// Larger scripts, more of everything that goes wrong: for walks at random.
pub fn walks() -> Vec<Config> {
    let big = |c: Config| Config {
        primary_crashes: 2,
        secondary_crashes: 2,
        drops: 2,
        checkpoints: 4,
        fine: true,
        takeover: true,
        repaired: true,
        volume_moves: 2,
        errors: 1,
        script: vec![w(0), wide(), fua(1), w(0), Op::Flush],
        blocks: ADJACENT,
        ..c
    };
    let queue = |c: Config| Config {
        queue: 3,
        reorder: true,
        faults: 2,
        ..big(c)
    };
    let sync = |c: Config| Config {
        sync: true,
        takeover: false,
        queue: 2,
        blocks: TWO_EXTENTS,
        script: vec![w(0), w(1), w(0), w(1)],
        ..big(c)
    };
    vec![
        big(ring("walk: ring", Vec::new())),
        big(no_ring("walk: no ring", Vec::new())),
        queue(ring("walk: ring, bad wire", Vec::new())),
        queue(no_ring("walk: no ring, bad wire", Vec::new())),
        Config {
            mode: Mode::Received,
            ..queue(ring("walk: sync received", Vec::new()))
        },
        Config {
            mode: Mode::Applied,
            ..queue(no_ring("walk: sync applied, no ring", Vec::new()))
        },
        sync(ring("walk: resync", Vec::new())),
        Config {
            give_up: true,
            takeover: false,
            ..big(ring("walk: link given up", Vec::new()))
        },
        sync(no_ring("walk: resync, no ring", Vec::new())),
    ]
}
