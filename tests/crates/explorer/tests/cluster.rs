// SPDX-License-Identifier: GPL-2.0

//! Two hosts and three: no promise breaks in any state, and what comes to rest says why. Where there are more states
//! than the limit, the nearest are walked; `EXPLORE=long` takes more.

use explorer::cluster::{explore, runs, Cluster};

fn walk(cfg: &Cluster) {
    let long = std::env::var("EXPLORE").is_ok_and(|v| v == "long");
    let found = explore(cfg, if long { 20_000_000 } else { 600_000 });
    println!("{}", found.line(cfg.name));
    assert!(found.broken.is_none(), "{}\n{}", cfg.name, found.trace());
}

#[test]
fn two_hosts_change_roles() {
    runs::two_hosts().iter().for_each(walk);
}

#[test]
fn a_secondary_that_fails() {
    walk(&runs::failed_secondary());
}

#[test]
fn two_primaries_and_one_secondary() {
    walk(&runs::two_primaries());
}

#[test]
fn three_hosts_and_a_crash() {
    walk(&runs::two_primaries_and_a_crash());
}
