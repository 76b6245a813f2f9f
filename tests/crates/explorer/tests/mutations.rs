// SPDX-License-Identifier: GPL-2.0

//! Every rule is needed: left out, a promise breaks, and the shortest way there is printed.
//!
//! The rules are switched for the whole process, so one test at a time holds the switch.

use std::sync::{Mutex, PoisonError};

use explorer::{mutants, search::shortest};
use replicate_core::rules::{self, Rule};

static SWITCH: Mutex<()> = Mutex::new(());

fn breaks_without(rule: Rule) {
    let held = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    rules::leave_out(Some(rule));
    let cfg = mutants::mutation(rule);
    let r = shortest(&cfg, 1_000_000);
    rules::leave_out(None);
    drop(held);
    println!(
        "{}\n{}",
        r.line(&format!("{rule:?} ({})", cfg.name)),
        r.trace()
    );
    assert!(
        r.broken.is_some(),
        "without {rule:?} nothing breaks: model or rule is wrong"
    );
}

/// The same run with all rules kept: what breaks is the rule's doing.
fn holds_with(rule: Rule) {
    let held = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    rules::leave_out(None);
    let cfg = mutants::mutation(rule);
    let r = shortest(&cfg, 30_000);
    drop(held);
    assert!(r.broken.is_none(), "{rule:?}\n{}", r.trace());
}

macro_rules! mutations {
    ($($name:ident: $rule:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            breaks_without(Rule::$rule);
            holds_with(Rule::$rule);
        })*

        #[test]
        fn every_rule_has_its_test() {
            let mut here = vec![$(Rule::$rule),*];
            here.dedup();
            for rule in Rule::ALL {
                assert!(here.contains(&rule), "{rule:?} has no test");
            }
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
    copy_after_writes: CopyAfterWrites,
    copy_before_later: CopyBeforeLater,
    copy_from_volume: CopyFromVolume,
    sync_ends_at_commit: SyncEndsAtCommit,
    closes_in: ClosesIn,
}
