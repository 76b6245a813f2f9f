// SPDX-License-Identifier: GPL-2.0

//! Runs the explorations and prints how many states each saw.
//!
//! `explorer [part of a name]` explores, `explorer walks [part] [seed]` walks at random,
//! `explorer mutation RULE` takes the run that must break without that rule: it succeeds where this is a build without
//! it (see `tests/mutations.rs`) and a promise breaks. `EXPLORE=long` takes the larger bounds.

use std::{process::ExitCode, time::Instant};

use explorer::{
    cluster, mutants, runs,
    search::{self, Report},
    walks,
};

fn wanted(name: &str, only: &Option<String>) -> bool {
    only.as_ref().is_none_or(|o| name.contains(o.as_str()))
}

fn show(name: &str, t: Instant, r: &Report) {
    println!("{} {:>7.1?}", r.line(name), t.elapsed());
    print!("{}", r.trace());
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    let long = std::env::var("EXPLORE").is_ok_and(|v| v == "long");
    let limit = std::env::var("LIMIT")
        .ok()
        .and_then(|l| l.parse().ok())
        .unwrap_or(usize::MAX);
    let mut good = true;
    if args.next_if_eq("mutation").is_some() {
        let rule = args.next().unwrap_or_default();
        let t = Instant::now();
        good = if let Some(cfg) = mutants::of_cluster(&rule) {
            let found = cluster::explore(&cfg, limit);
            println!("{} {:>7.1?}", found.line(&rule), t.elapsed());
            print!("{}", found.trace());
            found.broken.is_some()
        } else {
            let r = search::shortest(&mutants::mutation(&rule), limit);
            show(&rule, t, &r);
            r.broken.is_some()
        };
    } else if args.next_if_eq("walks").is_some() {
        let only = args.next();
        let seed = args.next().and_then(|s| s.parse().ok()).unwrap_or(1);
        println!("seed {seed}");
        for cfg in walks::walks() {
            if wanted(cfg.name, &only) {
                let t = Instant::now();
                let r = search::wander(&cfg, seed, limit.min(2000), 400);
                show(cfg.name, t, &r);
                good &= r.broken.is_none();
            }
        }
    } else {
        let only = args.next();
        for cfg in runs::families(long).into_iter().flat_map(|f| f.1) {
            if wanted(cfg.name, &only) {
                let t = Instant::now();
                let r = search::exhaust(&cfg, limit);
                show(cfg.name, t, &r);
                good &= r.broken.is_none();
            }
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
