// SPDX-License-Identifier: GPL-2.0

//! For every rule of `mutations.toml` the run that must break without it, led to where that shows soon.

use replicate_core::{group::Mode, units::VolumeId};

use crate::{
    cluster::{runs, Cluster},
    config::{fua, w, Config, Op},
    event::Ev,
    runs::{
        connected, ends_in_doubt, no_ring, one_fails_others_go_on, one_is_away_others_go_on, ring,
        run, syncing, unreadable, wide, ADJACENT, ONE, TWO_EXTENTS,
    },
    world::{P, S},
};

/// The cluster that breaks when `rule` is left out, for the rules between more than two ends.
pub fn of_cluster(rule: &str) -> Option<Cluster> {
    match rule {
        "InboundOwner" => Some(runs::two_primaries()),
        "FailedTakesNothing" => Some(runs::failed_secondary()),
        "TakeoverKeepsApplied" => Some(runs::two_primaries_and_a_crash()),
        _ => None,
    }
}

/// In a synchronisation: the first region is durable on the secondary, which has not said so yet.
const FIRST_REGION_COPIED: [Ev; 6] = [
    Ev::Send,
    Ev::RegionRead(false),
    Ev::Send,
    Ev::CopyWrite,
    Ev::CheckpointFlush(S),
    Ev::SuperblockDone(S),
];

/// The run that breaks when `rule` is left out. Panics when there is no such rule.
pub fn mutation(rule: &str) -> Config {
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
        "WriteAhead" => run("A1", vec![w(0)]),
        "RecoveryFlush" => run("A2", vec![w(0)]),
        "NewEpoch" => Config {
            prefix: connected(),
            ..ring("X1", vec![w(0), w(1)])
        },
        "TruncateAtFork" => Config {
            prefix: connected(),
            ..ring("X2", vec![w(0), w(1)])
        },
        "CutPositions" => Config {
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
        "CommitIsFlushed" => run("X4", vec![w(0)]),
        "FuaOnDurableGround" => run("FUA", vec![w(0), fua(1)]),
        "ApplyBelowPeerCommit" => ring("X3", vec![w(0)]),
        "CheckpointFlush" => run("X5", vec![w(0)]),
        "DeviceFailurePins" => Config {
            errors: 1,
            checkpoints: 2,
            ..run("failed flush", vec![w(0)])
        },
        "SharedDisk" => calm(Config {
            errors: 1,
            checkpoints: 2,
            shared_disk: true,
            repaired: true,
            // Two volumes, both written.
            prefix: with(
                vec![Ev::Boot(P), Ev::SuperblockDone(P), Ev::App, Ev::App],
                &with(logged(P).to_vec(), &[Ev::Apply(P)]),
            ),
            ..run("one disk", vec![w(0), w(1)])
        }),
        "FloorPerVolume" => Config {
            errors: 1,
            checkpoints: 2,
            late: true,
            repaired: true,
            // A record of each volume is to be replayed, the first one is there.
            prefix: with(
                with(
                    vec![
                        Ev::Boot(P),
                        Ev::SuperblockDone(P),
                        Ev::VolumeComes(P, VolumeId(0)),
                        Ev::VolumeComes(P, VolumeId(1)),
                        Ev::App,
                        Ev::App,
                    ],
                    &logged(P),
                ),
                &[
                    Ev::Cut(P, 0),
                    Ev::Boot(P),
                    Ev::SuperblockDone(P),
                    Ev::VolumeComes(P, VolumeId(0)),
                ],
            ),
            ..run("one of two volumes is back", vec![w(0), w(1)])
        },
        "MemoryOfApplied" => one_fails_others_go_on(),
        "MemoryOfLogged" => one_is_away_others_go_on(),
        "TailOnDataAck" => calm(Config {
            checkpoints: 2,
            ..ring("X6", vec![w(0), w(1)])
        }),
        "OverlapOrder" => Config {
            blocks: ONE,
            ..run("Y10/X9", vec![w(0), w(0)])
        },
        "FlushBeforeDataAck" => calm(Config {
            checkpoints: 2,
            ..ring("X14", vec![w(0), w(1)])
        }),
        "AppFlushWaits" => run("X15", vec![w(0), Op::Flush]),
        "DependsOn" => calm(no_ring("Y7", vec![w(0), w(1)])),
        "DependsOnDurable" => calm(no_ring("Y8", vec![w(0), w(1)])),
        "DependsOnAfterRecovery" => Config {
            prefix: with(connected(), &with(vec![Ev::App], &logged(P))),
            ..no_ring("Y11", vec![w(0), w(1)])
        },
        "AtomicRedo" => calm(Config {
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
        "AckBelowSuperblock" => calm(Config {
            checkpoints: 2,
            ..no_ring("A4", vec![w(0), w(1)])
        }),
        "SessionIds" => calm(Config {
            queue: 2,
            stale: true,
            mode: Mode::Received,
            secondary_crashes: 1,
            resets: false,
            checkpoints: 0,
            blocks: ONE,
            ..ring("H13", vec![w(0)])
        }),
        "DamagedIsDropped" | "AckWithoutGap" => Config {
            queue: 2,
            faults: 1,
            mode: Mode::Received,
            checkpoints: 0,
            prefix: with(
                connected(),
                &[Ev::App, Ev::App, Ev::Batch(P), Ev::BatchDone(P, 0)],
            ),
            ..calm(ring("damaged", vec![w(0), w(0)]))
        },
        "CreditHasRoom" => {
            // As many records as the secondary has slots are on the primary's volumes, and one more is not.
            let one = with(vec![Ev::App], &with(logged(P).to_vec(), &[Ev::Apply(P)]));
            let all = [&one[..]; 5].concat();
            calm(Config {
                prefix: with(with(connected(), &all), &[Ev::App]),
                ..ring("more than fits", vec![w(0), w(1), w(0), w(1), w(0), w(1)])
            })
        }
        "CopiesBeforeEnd" => sync(ring("copies before the end", vec![w(0)])),
        "CopyAfterWrites" => {
            let mut c = sync(ring("R1", vec![w(0)]));
            // W1 is committed, but not on the volume, when the sync starts.
            let at = 2;
            c.prefix.splice(at..at, with(vec![Ev::App], &logged(P)));
            c
        }
        "CopyBeforeLater" => sync(ring("R2", vec![w(0)])),
        "CopyFromVolume" => sync(ring("R3", vec![w(0)])),
        "SyncForgets" => {
            let mut c = Config {
                asks: 1,
                primary_crashes: 1,
                blocks: TWO_EXTENTS,
                ..sync(ring("asked for again", vec![w(0)]))
            };
            // The first region was copied, and the primary's superblock says so; then a record for it is committed.
            c.prefix.extend(FIRST_REGION_COPIED);
            c.prefix
                .extend([Ev::Ack, Ev::SyncMoved, Ev::SuperblockDone(P), Ev::App]);
            c.prefix.extend(logged(P));
            c.prefix.push(Ev::Resync);
            c
        }
        "SyncBeginsAnew" => {
            let mut c = Config {
                asks: 1,
                blocks: TWO_EXTENTS,
                ..sync(ring("asked for in a session", vec![w(0)]))
            };
            // The first region was copied, a record for it is committed; the acknowledgement comes after the command.
            c.prefix.extend(FIRST_REGION_COPIED);
            c.prefix.push(Ev::App);
            c.prefix.extend(logged(P));
            c.prefix.extend([Ev::Resync, Ev::Ack, Ev::Drop(P)]);
            c
        }
        "WelcomeForgets" => {
            let mut c = Config {
                asks: 1,
                withdraws: true,
                drops: 4,
                ..sync(ring("taken back", vec![w(0)]))
            };
            // All was copied, and the primary's superblock says where that ends. Then a record is committed and applied, and
            // equality is declared.
            c.prefix.extend(FIRST_REGION_COPIED);
            c.prefix
                .extend([Ev::Ack, Ev::Send, Ev::SuperblockDone(P), Ev::App]);
            c.prefix.extend(logged(P));
            c.prefix
                .extend([Ev::Apply(P), Ev::Resync, Ev::Drop(P), Ev::Drop(S)]);
            c
        }
        "DoubtStops" => {
            let mut c = ends_in_doubt();
            c.prefix.extend([Ev::SuperblockFails(P, true), Ev::Drop(S)]);
            c
        }
        "HeldIsSent" => Config {
            drops: 1,
            ..calm(ring("a session after another", vec![w(0), w(1)]))
        },
        "PromisePins" => {
            let mut c = Config {
                give_up: true,
                drops: 1,
                checkpoints: 1,
                ..calm(ring("a link that was given up", vec![w(0), w(1)]))
            };
            // Both are on the primary's volume and in its log, each in a batch of its own, when the link is given up and
            // meets its peer again.
            c.prefix = connected();
            for _ in 0..2 {
                c.prefix.push(Ev::App);
                c.prefix.extend(logged(P));
                c.prefix.push(Ev::Apply(P));
            }
            c.prefix.extend([Ev::GiveUp, Ev::Drop(S), Ev::Connect]);
            c
        }
        "SyncEndsAtCommit" => sync(ring("R4", vec![w(0)])),
        "ClosesIn" => calm(Config {
            mode: Mode::Received,
            ..ring("closing in", vec![w(0), w(1)])
        }),
        // Two log writes are in flight before the end of the ring; a cut takes the first. What follows has the seq
        // of the second, is larger, and goes to the next lap.
        "VerifiedReader" => Config {
            wrap: 2,
            blocks: ADJACENT,
            resets: false,
            checkpoints: 0,
            prefix: vec![
                Ev::Boot(P),
                Ev::SuperblockDone(P),
                Ev::App,
                Ev::Batch(P),
                Ev::App,
                Ev::Batch(P),
            ],
            ..run("F8", vec![w(0), w(1), w(0), wide()])
        },
        "ProvenIsThere" | "TornTailIsCut" => unreadable(),
        _ => panic!("no run for the rule {rule}"),
    }
}
