// SPDX-License-Identifier: GPL-2.0

//! Every rule is needed: left out, a promise breaks, and the shortest way there is printed.
//!
//! What ships knows nothing of this. `scripts/mutate` makes a copy of core and explorer in which each place that a
//! rule of `mutations.toml` changes has both forms; one build of that serves all rules, each in a process of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use explorer::{mutants, search::shortest};

/// Builds the copy, once, and returns its explorer.
fn mutated() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutated");
        let run = |command: &mut Command| {
            let done = command.output().expect("it runs");
            let text = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success(), "{command:?}:\n{text}");
        };
        run(Command::new(top.join("scripts/mutate"))
            .arg("all")
            .arg(&copy));
        // What is left out leaves names unused.
        run(Command::new(env!("CARGO"))
            .args(["build", "--offline", "--profile", "explore", "--target-dir"])
            .arg(copy.join("target"))
            .env("RUSTFLAGS", "-Awarnings")
            .current_dir(&copy));
        copy.join("target/explore/explorer")
    })
}

fn breaks_without(rule: &str) {
    let done = Command::new(mutated())
        .args(["mutation", rule])
        .env("MUTANT", rule)
        .env("LIMIT", "1000000")
        .output()
        .expect("the mutated explorer runs");
    println!("{}", String::from_utf8_lossy(&done.stdout));
    assert!(
        done.status.success(),
        "without {rule} nothing breaks, model or rule is wrong: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// The same run with all rules kept: what breaks is the rule's doing.
fn holds_with(rule: &str) {
    if mutants::of_cluster(rule).is_some() {
        // Those runs are walked with all rules kept anyway, see cluster.rs.
        return;
    }
    let r = shortest(&mutants::mutation(rule), 30_000);
    assert!(r.broken.is_none(), "{rule}\n{}", r.trace());
}

macro_rules! mutations {
    ($($name:ident: $rule:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            breaks_without(stringify!($rule));
            holds_with(stringify!($rule));
        })*

        #[test]
        fn every_rule_has_its_test() {
            let table = include_str!("../mutations.toml");
            let rules: Vec<&str> = table
                .lines()
                .filter_map(|l| l.strip_prefix("rule = \"")?.strip_suffix('"'))
                .collect();
            assert_eq!(rules, [$(stringify!($rule)),*]);
        }
    };
}

mutations! {
    write_ahead: WriteAhead,
    recovery_flush: RecoveryFlush,
    new_epoch: NewEpoch,
    truncate_at_fork: TruncateAtFork,
    cut_positions: CutPositions,
    commit_is_flushed: CommitIsFlushed,
    fua_on_durable_ground: FuaOnDurableGround,
    apply_below_peer_commit: ApplyBelowPeerCommit,
    checkpoint_flush: CheckpointFlush,
    device_failure_pins: DeviceFailurePins,
    shared_disk: SharedDisk,
    floor_per_volume: FloorPerVolume,
    memory_of_applied: MemoryOfApplied,
    memory_of_logged: MemoryOfLogged,
    tail_on_data_ack: TailOnDataAck,
    overlap_order: OverlapOrder,
    flush_before_data_ack: FlushBeforeDataAck,
    app_flush_waits: AppFlushWaits,
    depends_on: DependsOn,
    depends_on_durable: DependsOnDurable,
    depends_on_after_recovery: DependsOnAfterRecovery,
    atomic_redo: AtomicRedo,
    ack_below_superblock: AckBelowSuperblock,
    session_ids: SessionIds,
    damaged_is_dropped: DamagedIsDropped,
    ack_without_gap: AckWithoutGap,
    credit_has_room: CreditHasRoom,
    copies_before_end: CopiesBeforeEnd,
    copy_after_writes: CopyAfterWrites,
    copy_before_later: CopyBeforeLater,
    copy_from_volume: CopyFromVolume,
    sync_ends_at_commit: SyncEndsAtCommit,
    closes_in: ClosesIn,
    proven_is_there: ProvenIsThere,
    torn_tail_is_cut: TornTailIsCut,
    verified_reader: VerifiedReader,
    sync_forgets: SyncForgets,
    sync_begins_anew: SyncBeginsAnew,
    welcome_forgets: WelcomeForgets,
    doubt_stops: DoubtStops,
    held_is_sent: HeldIsSent,
    promise_pins: PromisePins,
    inbound_owner: InboundOwner,
    failed_takes_nothing: FailedTakesNothing,
    takeover_keeps_applied: TakeoverKeepsApplied,
}
