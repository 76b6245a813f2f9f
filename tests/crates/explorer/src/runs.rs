// SPDX-License-Identifier: GPL-2.0

//! The runs: what is explored in full.

use replicate_core::{group::Mode, node::durable::grow::Limits, units::VolumeId};

use crate::{
    config::{fua, w, Config, Op, Peer},
    event::Ev,
    world::{P, S},
};

pub(crate) const ONE: &[(u16, u64)] = &[(0, 0)];
pub(crate) const TWO_EXTENTS: &[(u16, u64)] = &[(0, 0), (0, 2048)];
pub(crate) const ADJACENT: &[(u16, u64)] = &[(0, 0), (0, 128)];

/// A write of two blocks, which tears.
pub(crate) fn wide() -> Op {
    Op::Write {
        from: 0,
        blocks: 2,
        fua: false,
    }
}

pub(crate) fn run(name: &'static str, script: Vec<Op>) -> Config {
    Config {
        name,
        script,
        ..Config::BASE
    }
}

pub(crate) fn ring(name: &'static str, script: Vec<Op>) -> Config {
    Config {
        peer: Some(Peer::Ring),
        ..run(name, script)
    }
}

pub(crate) fn no_ring(name: &'static str, script: Vec<Op>) -> Config {
    Config {
        peer: Some(Peer::NoRing),
        ..run(name, script)
    }
}

/// Both hosts are up and in a session.
pub(crate) fn connected() -> Vec<Ev> {
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
pub(crate) fn syncing() -> Vec<Ev> {
    vec![
        Ev::Boot(P),
        Ev::SuperblockDone(P),
        Ev::Boot(S),
        Ev::Connect,
        Ev::Welcomed,
        Ev::SuperblockDone(S),
        Ev::Ready,
        Ev::SuperblockDone(P),
    ]
}

/// What is explored: a family of runs by name. `long`: larger bounds, for a night.
pub fn families(long: bool) -> Vec<(&'static str, Vec<Config>)> {
    vec![
        ("local", local(long)),
        ("volumes", volumes(long)),
        ("ring", ring_peer(long)),
        ("no-ring", ring_less_peer(long)),
        ("sync", sync_modes(long)),
        ("takeover", takeover(long)),
        ("wire", wires(long)),
        ("resync", resync(long)),
        ("resync-failing", resync_failing(long)),
        ("history", history(long)),
        ("superblock", superblocks(long)),
    ]
}

/// The runs of one family.
pub fn family(name: &str, long: bool) -> Vec<Config> {
    let all = families(long).into_iter();
    all.filter(|f| f.0 == name).flat_map(|f| f.1).collect()
}

/// Recovery of one host: no peer.
fn local(long: bool) -> Vec<Config> {
    let mut v = vec![
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
            wrap: 1,
            ring_room: 3,
            checkpoints: 2,
            resets: long,
            ..run("local: ring wraps", vec![w(0), w(1), w(0), w(1)])
        },
        Config {
            volatile: false,
            ..run("local: log without cache", vec![w(0), w(1), Op::Flush])
        },
        unreadable(),
        Config {
            errors: 2,
            checkpoints: 2,
            fine: true,
            resets: long,
            ..run("local: devices fail", vec![w(0), fua(1), Op::Flush])
        },
    ];
    if long {
        v.push(Config {
            primary_crashes: 2,
            fine: true,
            checkpoints: 2,
            ..run("local: long", vec![w(0), fua(1), w(0), Op::Flush])
        });
    }
    v
}

/// Blocks of the log that cannot be read after a crash.
pub fn unreadable() -> Config {
    Config {
        spoils: 1,
        checkpoints: 2,
        ..run("local: unreadable log", vec![w(0), w(1), Op::Flush])
    }
}

/// Volumes that come, go, fail and come back, each on its own or on one disk.
fn volumes(long: bool) -> Vec<Config> {
    let base = Config {
        volatile: false,
        resets: long,
        checkpoints: 2,
        live: true,
        repaired: true,
        ..Config::BASE
    };
    let mut v = vec![
        Config {
            name: "volumes: suspended and back",
            volume_moves: 2,
            script: vec![w(0), w(1), w(0)],
            ..base.clone()
        },
        Config {
            name: "volumes: late after a crash",
            late: true,
            volume_moves: 1,
            script: vec![w(0), w(1)],
            ..base.clone()
        },
        one_fails_others_go_on(),
        Config {
            name: "volumes: devices fail",
            errors: 2,
            script: vec![w(0), w(1)],
            ..base.clone()
        },
        Config {
            name: "volumes: devices fail, one disk",
            errors: 1,
            fine: true,
            shared_disk: true,
            script: vec![w(0), w(1)],
            ..base.clone()
        },
        Config {
            name: "volumes: fail and go, one disk",
            errors: 1,
            volume_moves: 1,
            shared_disk: true,
            script: vec![w(0), w(1)],
            ..base.clone()
        },
        Config {
            name: "volumes: a replica's",
            live: false,
            primary_crashes: 0,
            secondary_crashes: 1,
            checkpoints: 1,
            volume_moves: 1,
            prefix: connected(),
            ..Config {
                peer: Some(Peer::Ring),
                script: if long { vec![w(0), w(1)] } else { vec![w(0)] },
                ..base.clone()
            }
        },
        one_is_away_others_go_on(),
        Config {
            name: "volumes: a replica's, devices fail, takeover",
            live: false,
            primary_crashes: 0,
            secondary_crashes: 1,
            checkpoints: 1,
            errors: 1,
            shared_disk: true,
            takeover: true,
            prefix: connected(),
            ..Config {
                peer: Some(Peer::Ring),
                script: if long { vec![w(0), w(1)] } else { vec![w(0)] },
                ..base.clone()
            }
        },
    ];
    v.extend(memory_is_short(long));
    if long {
        v.push(Config {
            name: "volumes: everything",
            errors: 1,
            volume_moves: 2,
            primary_crashes: 2,
            fine: true,
            script: vec![w(0), w(1), w(0)],
            ..base
        });
    }
    v
}

/// A replica stands still, and keeps nothing in memory that its log holds.
fn memory_is_short(long: bool) -> [Config; 2] {
    let mut prefix = connected();
    prefix.push(Ev::VolumeGoes(S, VolumeId(0)));
    let base = Config {
        volatile: false,
        resets: long,
        volume_moves: 1,
        short: true,
        checkpoints: u8::from(long),
        prefix,
        script: if long {
            vec![w(0), w(1), w(0)]
        } else {
            vec![w(0), w(1)]
        },
        ..ring("volumes: a replica's, memory is short", Vec::new())
    };
    [
        Config {
            primary_crashes: 0,
            secondary_crashes: 1,
            takeover: true,
            ..base.clone()
        },
        Config {
            name: "volumes: the same, primary crashes",
            ..base
        },
    ]
}

/// A volume of the replica is away; the writers of the primary send several times what the replica's memory holds.
pub(crate) fn one_is_away_others_go_on() -> Config {
    let mut prefix = connected();
    prefix.push(Ev::VolumeGoes(S, VolumeId(0)));
    for _ in 0..4 {
        prefix.extend([
            Ev::App,
            Ev::Send,
            Ev::Batch(P),
            Ev::BatchDone(P, 0),
            Ev::Batch(S),
            Ev::BatchDone(S, 0),
            Ev::Ack,
        ]);
    }
    Config {
        mode: Mode::Received,
        volatile: false,
        primary_crashes: 0,
        volume_moves: 1,
        checkpoints: 0,
        short: true,
        live: true,
        prefix,
        ..ring(
            "volumes: a replica's is away, others go on",
            vec![w(0), w(1), w(1), w(1), w(1), w(1)],
        )
    }
}

/// A volume fails; the writers of another fill memory several times.
pub(crate) fn one_fails_others_go_on() -> Config {
    Config {
        name: "volumes: one fails, others go on",
        errors: 1,
        primary_crashes: 0,
        ring_room: 16,
        // More than memory holds.
        checkpoints: 0,
        script: vec![w(0), w(1), w(1), w(1), w(1), w(1), w(1)],
        prefix: vec![
            Ev::Boot(P),
            Ev::SuperblockDone(P),
            Ev::App,
            Ev::Batch(P),
            Ev::BatchDone(P, 0),
            Ev::Apply(P),
            Ev::DataFlushFails(P, VolumeId(0)),
            Ev::Replay(P),
            Ev::ReplayFlush(P),
            Ev::App,
            Ev::App,
            Ev::App,
            Ev::Batch(P),
            Ev::BatchDone(P, 0),
        ],
        volatile: false,
        live: true,
        ..Config::BASE
    }
}

/// A peer with a ring.
fn ring_peer(long: bool) -> Vec<Config> {
    let mut v = vec![
        Config {
            checkpoints: 0,
            prefix: connected(),
            ..ring("ring: primary crashes", vec![w(0), w(1)])
        },
        Config {
            ..ring("ring: from the start", vec![w(0)])
        },
        Config {
            checkpoints: 0,
            ..ring("ring: from the start, two writes", vec![w(0), w(1)])
        },
        Config {
            primary_crashes: 0,
            secondary_crashes: 1,
            checkpoints: 0,
            prefix: connected(),
            ..ring("ring: secondary crashes", vec![w(0), w(0)])
        },
        Config {
            primary_crashes: 0,
            secondary_crashes: 2,
            prefix: connected(),
            ..ring("ring: secondary crashes twice", vec![w(0)])
        },
        Config {
            secondary_crashes: 1,
            prefix: connected(),
            ..ring("ring: both crash", vec![w(0)])
        },
        Config {
            errors: 1,
            secondary_crashes: 1,
            resets: false,
            fine: true,
            prefix: connected(),
            ..ring("ring: devices fail", vec![w(0)])
        },
    ];
    if long {
        v.extend([
            Config {
                prefix: connected(),
                ..ring("ring: primary crashes, checkpoints", vec![w(0), w(0)])
            },
            Config {
                primary_crashes: 2,
                checkpoints: 0,
                prefix: connected(),
                ..ring("ring: primary crashes twice", vec![w(0), w(0)])
            },
            Config {
                primary_crashes: 0,
                secondary_crashes: 1,
                prefix: connected(),
                ..ring("ring: secondary crashes, checkpoints", vec![w(0), w(0)])
            },
        ]);
    }
    v
}

/// A peer without a ring.
fn ring_less_peer(long: bool) -> Vec<Config> {
    let mut v = vec![
        Config {
            prefix: connected(),
            ..no_ring("no ring: primary crashes", vec![w(0), w(1)])
        },
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
            ..no_ring("no ring: slow data writes", vec![w(0), w(1)])
        },
        Config {
            errors: 1,
            primary_crashes: 0,
            secondary_crashes: 1,
            resets: false,
            fine: long,
            prefix: connected(),
            ..no_ring("no ring: devices fail", vec![w(0), w(1)])
        },
        Config {
            errors: 1,
            primary_crashes: 0,
            secondary_crashes: 1,
            resets: false,
            fine: true,
            prefix: connected(),
            ..no_ring("no ring: devices fail, slowly", vec![w(0)])
        },
    ];
    if long {
        v.push(Config {
            primary_crashes: 0,
            secondary_crashes: 1,
            fine: true,
            checkpoints: 2,
            prefix: connected(),
            ..no_ring("no ring: three writes", vec![w(0), w(0), w(1)])
        });
    }
    v
}

/// Sync links, each with a takeover out of every state.
fn sync_modes(long: bool) -> Vec<Config> {
    let modes = [
        (
            Mode::Received,
            "sync received",
            "sync received: secondary crashes",
        ),
        (
            Mode::Logged,
            "sync logged",
            "sync logged: secondary crashes",
        ),
        (
            Mode::Applied,
            "sync applied",
            "sync applied: secondary crashes",
        ),
    ];
    let mut v = Vec::new();
    for (mode, name, crashes) in modes {
        v.push(Config {
            mode,
            primary_crashes: 0,
            checkpoints: 0,
            takeover: true,
            prefix: connected(),
            ..ring(name, vec![w(0), w(1)])
        });
        v.push(Config {
            mode,
            primary_crashes: 0,
            secondary_crashes: 1,
            takeover: true,
            prefix: connected(),
            ..ring(crashes, if long { vec![w(0), w(1)] } else { vec![w(0)] })
        });
        if long {
            v.push(Config {
                mode,
                primary_crashes: 0,
                secondary_crashes: 1,
                takeover: true,
                prefix: connected(),
                ..no_ring(crashes, vec![w(0), w(1)])
            });
        }
    }
    v
}

/// Takeover, with a primary that lives, crashes, or crashed before.
fn takeover(long: bool) -> Vec<Config> {
    let mut v = vec![
        Config {
            takeover: true,
            resets: false,
            checkpoints: 0,
            secondary_crashes: 1,
            prefix: connected(),
            ..ring("takeover: ring", vec![w(0)])
        },
        Config {
            takeover: true,
            resets: false,
            secondary_crashes: 1,
            prefix: connected(),
            ..no_ring("takeover: no ring", vec![w(0)])
        },
    ];
    if long {
        v.extend([
            Config {
                takeover: true,
                prefix: connected(),
                ..ring("takeover: ring, two writes", vec![w(0), w(1)])
            },
            Config {
                takeover: true,
                prefix: connected(),
                ..no_ring("takeover: no ring, two writes", vec![w(0), w(1)])
            },
        ]);
    }
    v
}

/// Messages that are lost, doubled, overtaken, or of a session that is over.
fn wires(long: bool) -> Vec<Config> {
    // The primary's own work is done: what is left is what travels.
    let mut busy = connected();
    busy.extend([Ev::App, Ev::App, Ev::Batch(P), Ev::BatchDone(P, 0)]);
    let mut v = vec![
        Config {
            queue: 2,
            reorder: true,
            faults: 1,
            primary_crashes: 0,
            checkpoints: 0,
            prefix: busy.clone(),
            ..ring("wire: lost, doubled, reordered", vec![w(0), w(0)])
        },
        Config {
            queue: 2,
            faults: 1,
            mode: Mode::Received,
            primary_crashes: 0,
            checkpoints: 0,
            prefix: busy,
            ..ring("wire: damaged", vec![w(0), w(0)])
        },
        Config {
            queue: 2,
            stale: true,
            mode: Mode::Received,
            primary_crashes: 0,
            secondary_crashes: 1,
            checkpoints: 0,
            prefix: connected(),
            ..ring("wire: stale, secondary crashes", vec![w(0)])
        },
        Config {
            queue: 2,
            stale: true,
            resets: false,
            checkpoints: 0,
            prefix: connected(),
            ..ring("wire: stale, primary crashes", vec![w(0)])
        },
    ];
    if long {
        v.extend([
            Config {
                queue: 2,
                stale: true,
                mode: Mode::Received,
                primary_crashes: 0,
                secondary_crashes: 1,
                resets: false,
                checkpoints: 0,
                prefix: connected(),
                ..ring("wire: stale, two writes", vec![w(0), w(1)])
            },
            Config {
                queue: 3,
                reorder: true,
                faults: 2,
                drops: 1,
                primary_crashes: 0,
                checkpoints: 0,
                prefix: connected(),
                ..ring("wire: worse", vec![w(0), w(0)])
            },
        ]);
    }
    v
}

/// A history longer than a superblock keeps: three epochs, and links are kept for two.
fn history(long: bool) -> Vec<Config> {
    let short = |c: Config| Config {
        limits: Limits {
            epochs: 3,
            links: 2,
        },
        give_up: true,
        resets: false,
        blocks: ONE,
        ..c
    };
    vec![
        short(Config {
            primary_crashes: if long { 4 } else { 3 },
            checkpoints: if long { 2 } else { 1 },
            prefix: connected(),
            ..ring("history: folded, ring", vec![w(0)])
        }),
        short(Config {
            primary_crashes: 3,
            checkpoints: 2,
            prefix: connected(),
            ..no_ring("history: folded, no ring", vec![w(0)])
        }),
        short(Config {
            primary_crashes: 4,
            checkpoints: 2,
            ..run("history: folded, alone", vec![w(0), w(0)])
        }),
    ]
}

/// A superblock of which no copy can be written, in any of a host's steps; a start finds it or not.
fn superblocks(long: bool) -> Vec<Config> {
    let failing = |c: Config| Config {
        sb_errors: 1,
        resets: long,
        ..c
    };
    let both = u8::from(long);
    vec![
        failing(Config {
            primary_crashes: 2,
            checkpoints: 2,
            live: true,
            ..run("superblock: alone", vec![w(0), w(1)])
        }),
        failing(Config {
            secondary_crashes: both,
            ..ring("superblock: from the start", vec![w(0)])
        }),
        failing(Config {
            takeover: true,
            primary_crashes: both,
            secondary_crashes: 1,
            prefix: connected(),
            ..ring("superblock: takeover", vec![w(0)])
        }),
        failing(Config {
            takeover: true,
            primary_crashes: both,
            secondary_crashes: 1,
            prefix: connected(),
            ..no_ring("superblock: takeover, no ring", vec![w(0)])
        }),
        failing(Config {
            sync: true,
            volatile: long,
            primary_crashes: 1,
            blocks: ONE,
            prefix: syncing(),
            ..ring(
                "superblock: resync",
                if long { vec![w(0)] } else { Vec::new() },
            )
        }),
        ends_in_doubt(),
    ]
}

/// All is copied; the superblock that says where the synchronisation ends cannot be written, and is on the device all the same.
/// Then a record is committed, and another synchronisation is asked for.
pub fn ends_in_doubt() -> Config {
    let mut prefix = syncing();
    prefix.extend([
        Ev::Send,
        Ev::RegionRead(false),
        Ev::Send,
        Ev::CopyWrite,
        Ev::CheckpointFlush(S),
        Ev::SuperblockDone(S),
        Ev::Ack,
        Ev::App,
        Ev::Batch(P),
        Ev::BatchDone(P, 0),
        Ev::LogFlush(P),
        Ev::Apply(P),
        Ev::Resync,
        Ev::Send,
    ]);
    Config {
        sync: true,
        asks: 1,
        sb_errors: 1,
        resets: false,
        checkpoints: 2,
        blocks: ONE,
        prefix,
        ..ring("superblock: the end of a resync", vec![w(0)])
    }
}

/// The largest run of a synchronisation, by itself, to go on beside the others. Connections that break meanwhile: in the long one.
fn resync_failing(long: bool) -> Vec<Config> {
    vec![Config {
        sync: true,
        errors: 1,
        drops: u8::from(long),
        primary_crashes: 0,
        secondary_crashes: 1,
        resets: false,
        checkpoints: 2,
        blocks: ONE,
        prefix: syncing(),
        ..ring("resync: devices fail", vec![w(0)])
    }]
}

/// A full synchronisation while the application writes.
fn resync(long: bool) -> Vec<Config> {
    let mut v = vec![
        Config {
            sync: true,
            primary_crashes: 0,
            blocks: TWO_EXTENTS,
            prefix: syncing(),
            ..ring("resync: two regions", vec![w(1)])
        },
        Config {
            sync: true,
            fine: true,
            primary_crashes: 0,
            blocks: ONE,
            prefix: syncing(),
            ..ring("resync: slow reads", vec![w(0)])
        },
        Config {
            sync: true,
            primary_crashes: 0,
            checkpoints: 0,
            blocks: ONE,
            prefix: syncing(),
            ..ring("resync: two writes", vec![w(0), w(0)])
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
    ];
    v.push(Config {
        give_up: true,
        drops: 1,
        resets: false,
        checkpoints: 2,
        blocks: ONE,
        prefix: connected(),
        ..ring("resync: link given up", vec![w(0)])
    });
    if long {
        v.extend([
            Config {
                sync: true,
                fine: true,
                primary_crashes: 0,
                blocks: ONE,
                prefix: syncing(),
                ..ring("resync: slow reads, two writes", vec![w(0), w(0)])
            },
            Config {
                sync: true,
                primary_crashes: 0,
                blocks: TWO_EXTENTS,
                checkpoints: 2,
                prefix: syncing(),
                ..ring("resync: two regions, two writes", vec![w(0), w(1)])
            },
        ]);
    }
    v
}
