// SPDX-License-Identifier: GPL-2.0

//! No promise breaks in any state that the bounds allow. `EXPLORE=long` takes the larger ones.

use explorer::{
    runs,
    search::{exhaust, wander},
    walks,
};

fn explore(family: &str) {
    let long = std::env::var("EXPLORE").is_ok_and(|v| v == "long");
    let runs = runs::family(family, long);
    assert!(!runs.is_empty(), "no run of this family");
    for cfg in runs {
        let r = exhaust(&cfg, usize::MAX);
        println!("{}", r.line(cfg.name));
        assert!(r.broken.is_none(), "{}\n{}", cfg.name, r.trace());
    }
}

#[test]
fn local_recovery() {
    explore("local");
}

#[test]
fn volumes_that_come_and_go() {
    explore("volumes");
}

#[test]
fn a_peer_with_a_ring() {
    explore("ring");
}

#[test]
fn a_peer_without_a_ring() {
    explore("no-ring");
}

#[test]
fn sync_modes_and_takeover() {
    explore("sync");
    explore("takeover");
}

#[test]
fn a_bad_wire() {
    explore("wire");
}

#[test]
fn resynchronisation() {
    explore("resync");
}

#[test]
fn devices_fail_in_a_resynchronisation() {
    explore("resync-failing");
}

#[test]
fn a_history_longer_than_the_lineage() {
    explore("history");
}

#[test]
fn superblocks_that_cannot_be_written() {
    explore("superblock");
}

/// Far beyond the bounds of the exhaustive runs, by chance. The seed is printed; `SEED=` repeats one.
#[test]
fn walks_at_random() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let long = std::env::var("EXPLORE").is_ok_and(|v| v == "long");
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed}");
    for cfg in walks::walks() {
        let r = wander(&cfg, seed, if long { 20_000 } else { 300 }, 400);
        println!("{}", r.line(cfg.name));
        assert!(
            r.broken.is_none(),
            "SEED={seed} {}\n{}",
            cfg.name,
            r.trace()
        );
    }
}
