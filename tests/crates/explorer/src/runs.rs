// SPDX-License-Identifier: GPL-2.0

//! The runs: what is explored in full, and for every rule the run that must break without it.

use replicate_core::{group::Mode, rules::Rule};

use crate::config::{fua, w, Config, Op, Peer};

const ONE: &[(u16, u64)] = &[(0, 0)];
const TWO_EXTENTS: &[(u16, u64)] = &[(0, 0), (0, 2048)];
const ADJACENT: &[(u16, u64)] = &[(0, 0), (0, 128)];

/// A write of two blocks, which tears.
fn wide() -> Op {
    Op::Write {
        from: 0,
        blocks: 2,
        fua: false,
    }
}

fn run(name: &'static str, script: Vec<Op>) -> Config {
    Config {
        name,
        script,
        ..Config::BASE
    }
}

fn ring(name: &'static str, script: Vec<Op>) -> Config {
    Config {
        peer: Some(Peer::Ring),
        ..run(name, script)
    }
}

fn no_ring(name: &'static str, script: Vec<Op>) -> Config {
    Config {
        peer: Some(Peer::NoRing),
        ..run(name, script)
    }
}

/// The explorations that pass, in full.
pub fn all() -> Vec<Config> {
    let mut v = local();
    v.extend(ring_peer());
    v.extend(ring_less_peer());
    v.extend(sync_modes());
    v.extend(takeover());
    v.extend(wires());
    v.extend(resync());
    v
}

/// Local recovery: no peer.
fn local() -> Vec<Config> {
    vec![
        Config {
            primary_crashes: 2,
            fine: true,
            ..run("local: two volumes, flush", vec![w(0), w(1), Op::Flush])
        },
        Config {
            primary_crashes: 2,
            ..run("local: overwrite, FUA", vec![w(0), fua(0), w(1)])
        },
        Config {
            blocks: ADJACENT,
            ..run("local: torn write", vec![wide(), w(0), Op::Flush])
        },
        Config {
            wrap: true,
            ring_room: 3,
            checkpoints: 2,
            ..run("local: ring wraps", vec![w(0), w(1), w(0), w(1)])
        },
        Config {
            volatile: false,
            ..run("local: log without cache", vec![w(0), w(1), Op::Flush])
        },
    ]
}

fn ring_peer() -> Vec<Config> {
    vec![
        ring("ring peer: primary crashes", vec![w(0), w(1)]),
        Config {
            primary_crashes: 0,
            secondary_crashes: 1,
            ..ring("ring peer: secondary crashes", vec![w(0), w(0)])
        },
    ]
}

fn ring_less_peer() -> Vec<Config> {
    vec![
        no_ring("no-ring peer: primary crashes", vec![w(0), w(1)]),
        Config {
            primary_crashes: 0,
            secondary_crashes: 1,
            ..no_ring("no-ring peer: secondary crashes", vec![w(0), w(1)])
        },
    ]
}

fn sync_modes() -> Vec<Config> {
    [Mode::Received, Mode::Logged, Mode::Applied]
        .into_iter()
        .zip(["sync received", "sync logged", "sync applied"])
        .map(|(mode, name)| Config {
            mode,
            primary_crashes: 0,
            secondary_crashes: 1,
            takeover: true,
            ..ring(name, vec![w(0), w(1)])
        })
        .collect()
}

fn takeover() -> Vec<Config> {
    vec![
        Config {
            takeover: true,
            ..ring("takeover: ring", vec![w(0), w(1)])
        },
        Config {
            takeover: true,
            ..no_ring("takeover: no ring", vec![w(0), w(1)])
        },
    ]
}

fn wires() -> Vec<Config> {
    vec![Config {
        queue: 2,
        reorder: true,
        faults: 1,
        primary_crashes: 0,
        drops: 1,
        ..ring("wire: lost, doubled, reordered", vec![w(0), w(0)])
    }]
}

fn resync() -> Vec<Config> {
    vec![Config {
        sync: true,
        fine: true,
        primary_crashes: 0,
        blocks: ONE,
        ..ring("resync: ring", vec![w(0), w(0)])
    }]
}

/// The run that breaks when `rule` is left out.
pub fn mutation(rule: Rule) -> Config {
    match rule {
        Rule::WriteAhead => run("A1", vec![w(0)]),
        Rule::RecoveryFlush => Config {
            primary_crashes: 1,
            ..run("A2", vec![w(0)])
        },
        Rule::NewEpoch => Config {
            blocks: ONE,
            ..ring("X1", vec![w(0), w(0)])
        },
        Rule::TruncateAtFork => Config {
            blocks: ONE,
            ..ring("X2", vec![w(0), w(0)])
        },
        Rule::CutPositions => Config {
            blocks: ONE,
            checkpoints: 2,
            ..ring("X19", vec![w(0), w(0)])
        },
        Rule::CommitIsFlushed => run("X4", vec![w(0)]),
        Rule::ApplyBelowPeerCommit => ring("X3", vec![w(0)]),
        Rule::CheckpointFlush => run("X5", vec![w(0)]),
        Rule::TailOnDataAck => Config {
            primary_crashes: 0,
            checkpoints: 2,
            ..ring("X6", vec![w(0), w(1)])
        },
        Rule::OverlapOrder => Config {
            blocks: ONE,
            ..run("Y10/X9", vec![w(0), w(0)])
        },
        Rule::FlushBeforeDataAck => Config {
            primary_crashes: 0,
            checkpoints: 2,
            ..ring("X14", vec![w(0), w(1)])
        },
        Rule::AppFlushWaits => run("X15", vec![w(0), Op::Flush]),
        Rule::DependsOn => Config {
            primary_crashes: 0,
            ..no_ring("Y7", vec![w(0), w(1)])
        },
        Rule::DependsOnDurable => Config {
            primary_crashes: 0,
            ..no_ring("Y8", vec![w(0), w(1)])
        },
        Rule::DependsOnAfterRecovery => no_ring("Y11", vec![w(0), w(1)]),
        Rule::AtomicRedo => Config {
            primary_crashes: 0,
            secondary_crashes: 1,
            checkpoints: 2,
            resets: false,
            ..no_ring("A5", vec![w(0), w(0), w(1)])
        },
        Rule::AckBelowSuperblock => Config {
            primary_crashes: 0,
            checkpoints: 2,
            ..no_ring("A4", vec![w(0), w(1)])
        },
        Rule::SessionIds => Config {
            queue: 2,
            stale: true,
            mode: Mode::Received,
            primary_crashes: 0,
            secondary_crashes: 1,
            resets: false,
            checkpoints: 0,
            blocks: ONE,
            ..ring("H13", vec![w(0)])
        },
        Rule::CopyAfterWrites => Config {
            sync: true,
            primary_crashes: 0,
            blocks: ONE,
            checkpoints: 2,
            ..ring("R1", vec![w(0), w(0)])
        },
        Rule::CopyBeforeLater => Config {
            sync: true,
            primary_crashes: 0,
            blocks: ONE,
            checkpoints: 2,
            ..ring("R2", vec![w(0), w(0)])
        },
        Rule::CopyFromVolume => Config {
            sync: true,
            primary_crashes: 0,
            blocks: ONE,
            ..ring("R3", vec![w(0)])
        },
        Rule::SyncEndsAtCommit => Config {
            sync: true,
            primary_crashes: 0,
            blocks: TWO_EXTENTS,
            checkpoints: 2,
            ..ring("R4", vec![w(0)])
        },
    }
}
