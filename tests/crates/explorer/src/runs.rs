// SPDX-License-Identifier: GPL-2.0

//! The runs: what is explored in full, and for every rule the run that must break without it.

use replicate_core::{group::Mode, rules::Rule};

use crate::{
    config::{fua, w, Config, Op, Peer},
    world::{Ev, P, S},
};

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

/// Both hosts are up and in a session.
fn connected() -> Vec<Ev> {
    vec![
        Ev::Boot(P),
        Ev::SuperblockDone(P),
        Ev::Boot(S),
        Ev::Connect,
        Ev::Welcomed,
        Ev::SuperblockDone(S),
    ]
}

/// Both hosts are up, a sync begins.
fn syncing() -> Vec<Ev> {
    vec![
        Ev::Boot(P),
        Ev::SuperblockDone(P),
        Ev::Boot(S),
        Ev::Connect,
        Ev::SuperblockDone(P),
        Ev::Welcomed,
        Ev::SuperblockDone(S),
    ]
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
        Config {
            prefix: connected(),
            checkpoints: 0,
            ..ring("ring: primary crashes", vec![w(0), w(1)])
        },
        Config {
            prefix: connected(),
            resets: false,
            ..ring("ring: primary crashes, checkpoints", vec![w(0), w(0)])
        },
        Config {
            resets: false,
            checkpoints: 0,
            ..ring("ring: from the start", vec![w(0), w(1)])
        },
        Config {
            primary_crashes: 0,
            secondary_crashes: 1,
            prefix: connected(),
            ..ring("ring: secondary crashes", vec![w(0), w(0)])
        },
        Config {
            primary_crashes: 1,
            secondary_crashes: 1,
            resets: false,
            prefix: connected(),
            ..ring("ring: both crash", vec![w(0)])
        },
    ]
}

fn ring_less_peer() -> Vec<Config> {
    vec![
        no_ring("no ring: primary crashes", vec![w(0), w(1)]),
        Config {
            primary_crashes: 0,
            secondary_crashes: 1,
            ..no_ring("no ring: secondary crashes", vec![w(0), w(1)])
        },
        Config {
            primary_crashes: 0,
            secondary_crashes: 2,
            resets: false,
            checkpoints: 2,
            prefix: connected(),
            ..no_ring("no ring: secondary crashes twice", vec![w(0), w(0)])
        },
        Config {
            primary_crashes: 0,
            secondary_crashes: 1,
            fine: true,
            prefix: connected(),
            ..no_ring("no ring: fine", vec![w(0), w(1)])
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
            resets: false,
            takeover: true,
            prefix: connected(),
            ..ring(name, vec![w(0), w(1)])
        })
        .collect()
}

fn takeover() -> Vec<Config> {
    vec![
        Config {
            takeover: true,
            checkpoints: 0,
            prefix: connected(),
            ..ring("takeover: ring", vec![w(0), w(1)])
        },
        Config {
            takeover: true,
            prefix: connected(),
            ..no_ring("takeover: no ring", vec![w(0), w(1)])
        },
    ]
}

fn wires() -> Vec<Config> {
    vec![
        Config {
            queue: 2,
            reorder: true,
            faults: 1,
            primary_crashes: 0,
            checkpoints: 0,
            drops: 1,
            prefix: connected(),
            ..ring("wire: lost, doubled, reordered", vec![w(0), w(0)])
        },
        Config {
            queue: 2,
            stale: true,
            mode: Mode::Received,
            primary_crashes: 0,
            secondary_crashes: 1,
            resets: false,
            checkpoints: 0,
            prefix: connected(),
            ..ring("wire: stale sessions", vec![w(0), w(1)])
        },
    ]
}

fn resync() -> Vec<Config> {
    vec![
        Config {
            sync: true,
            primary_crashes: 0,
            blocks: TWO_EXTENTS,
            prefix: syncing(),
            ..ring("resync: two regions", vec![w(0), w(1)])
        },
        Config {
            sync: true,
            fine: true,
            primary_crashes: 0,
            blocks: ONE,
            prefix: syncing(),
            ..ring("resync: slow reads", vec![w(0), w(0)])
        },
        Config {
            sync: true,
            resets: false,
            blocks: ONE,
            prefix: syncing(),
            ..ring("resync: primary crashes", vec![w(0)])
        },
        Config {
            sync: true,
            primary_crashes: 0,
            secondary_crashes: 1,
            resets: false,
            checkpoints: 2,
            blocks: ONE,
            ..ring("resync: secondary crashes", vec![w(0)])
        },
        Config {
            sync: true,
            primary_crashes: 0,
            secondary_crashes: 1,
            resets: false,
            checkpoints: 2,
            blocks: ONE,
            ..no_ring("resync: no ring", vec![w(0)])
        },
    ]
}

/// The run that breaks when `rule` is left out.
pub fn mutation(rule: Rule) -> Config {
    // One write is on the primary's volumes and sent; P: log write, its end, flush (at once).
    let logged = |s: usize| [Ev::Batch(s), Ev::BatchDone(s, 0), Ev::LogFlush(s)];
    let with = |mut first: Vec<Ev>, then: &[Ev]| {
        first.extend(then);
        first
    };
    let calm = |c: Config| Config {
        primary_crashes: 0,
        ..c
    };
    let sync = |c: Config| Config {
        sync: true,
        blocks: ONE,
        checkpoints: 2,
        prefix: syncing(),
        ..calm(c)
    };
    match rule {
        Rule::WriteAhead => run("A1", vec![w(0)]),
        Rule::RecoveryFlush => run("A2", vec![w(0)]),
        Rule::NewEpoch => Config {
            prefix: connected(),
            ..ring("X1", vec![w(0), w(1)])
        },
        Rule::TruncateAtFork => Config {
            prefix: connected(),
            ..ring("X2", vec![w(0), w(1)])
        },
        Rule::CutPositions => Config {
            checkpoints: 2,
            resets: false,
            // W1 is committed and applied, W2 is on its way to the log; the peer has logged both and said so.
            prefix: with(
                connected(),
                &[
                    Ev::App,
                    Ev::Batch(P),
                    Ev::BatchDone(P, 0),
                    Ev::LogFlush(P),
                    Ev::Apply(P),
                    Ev::App,
                    Ev::Batch(P),
                    Ev::Send,
                    Ev::Send,
                    Ev::Batch(S),
                    Ev::BatchDone(S, 0),
                    Ev::LogFlush(S),
                    Ev::Ack,
                    Ev::CheckpointFlush(P),
                    Ev::SuperblockDone(P),
                    // W2 is lost.
                    Ev::Cut(P, 0),
                    Ev::Boot(P),
                    Ev::SuperblockDone(P),
                ],
            ),
            ..ring("X19", vec![w(0), w(1), w(0), w(1)])
        },
        Rule::CommitIsFlushed => run("X4", vec![w(0)]),
        Rule::ApplyBelowPeerCommit => ring("X3", vec![w(0)]),
        Rule::CheckpointFlush => run("X5", vec![w(0)]),
        Rule::TailOnDataAck => calm(Config {
            checkpoints: 2,
            ..ring("X6", vec![w(0), w(1)])
        }),
        Rule::OverlapOrder => Config {
            blocks: ONE,
            ..run("Y10/X9", vec![w(0), w(0)])
        },
        Rule::FlushBeforeDataAck => calm(Config {
            checkpoints: 2,
            ..ring("X14", vec![w(0), w(1)])
        }),
        Rule::AppFlushWaits => run("X15", vec![w(0), Op::Flush]),
        Rule::DependsOn => calm(no_ring("Y7", vec![w(0), w(1)])),
        Rule::DependsOnDurable => calm(no_ring("Y8", vec![w(0), w(1)])),
        Rule::DependsOnAfterRecovery => Config {
            prefix: with(connected(), &with(vec![Ev::App], &logged(P))),
            ..no_ring("Y11", vec![w(0), w(1)])
        },
        Rule::AtomicRedo => calm(Config {
            secondary_crashes: 1,
            resets: false,
            // W1, W2 and W3, one after the other, are committed on the primary and sent.
            prefix: with(
                connected(),
                &[
                    Ev::App,
                    Ev::Batch(P),
                    Ev::BatchDone(P, 0),
                    Ev::App,
                    Ev::Batch(P),
                    Ev::BatchDone(P, 0),
                    Ev::App,
                    Ev::Batch(P),
                    Ev::BatchDone(P, 0),
                    Ev::LogFlush(P),
                    Ev::Send,
                    Ev::Send,
                    Ev::Send,
                ],
            ),
            ..no_ring("A5", vec![w(0), w(0), w(1)])
        }),
        Rule::AckBelowSuperblock => calm(Config {
            checkpoints: 2,
            ..no_ring("A4", vec![w(0), w(1)])
        }),
        Rule::SessionIds => calm(Config {
            queue: 2,
            stale: true,
            mode: Mode::Received,
            secondary_crashes: 1,
            resets: false,
            checkpoints: 0,
            blocks: ONE,
            ..ring("H13", vec![w(0)])
        }),
        Rule::CopyAfterWrites => {
            let mut c = sync(ring("R1", vec![w(0)]));
            // W1 is committed, but not on the volume, when the sync starts.
            let at = 2;
            c.prefix.splice(at..at, with(vec![Ev::App], &logged(P)));
            c
        }
        Rule::CopyBeforeLater => sync(ring("R2", vec![w(0)])),
        Rule::CopyFromVolume => sync(ring("R3", vec![w(0)])),
        Rule::SyncEndsAtCommit => sync(ring("R4", vec![w(0)])),
    }
}
