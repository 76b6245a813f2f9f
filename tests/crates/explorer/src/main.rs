// SPDX-License-Identifier: GPL-2.0

//! Runs the explorations and prints how many states each saw.
//!
//! `explorer [name part]` explores, `explorer mutations [rule part]` leaves rules out one by one.

use std::time::Instant;

use explorer::{runs, search, search::Report};
use replicate_core::rules::{self, Rule};

fn show(name: &str, r: &Report, t: Instant) {
    println!(
        "{name:<40} {:>9} states {:>10} steps depth {:>3} {:>7.1?}{}",
        r.states,
        r.steps,
        r.depth,
        t.elapsed(),
        if r.cut_short { " CUT SHORT" } else { "" }
    );
    if let Some((text, path)) = &r.broken {
        println!("  broken: {text}");
        for ev in path {
            println!("    {ev}");
        }
    }
}

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    let mut failed = false;
    let limit = std::env::var("LIMIT")
        .ok()
        .and_then(|l| l.parse().ok())
        .unwrap_or(usize::MAX);
    if args.next_if_eq("mutations").is_some() {
        let only = args.next();
        for rule in Rule::ALL {
            let name = format!("{rule:?}");
            if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
                continue;
            }
            rules::leave_out(Some(rule));
            let t = Instant::now();
            let cfg = runs::mutation(rule);
            let r = search::shortest(&cfg, limit);
            show(&name, &r, t);
            failed |= r.broken.is_none();
        }
    } else {
        let only = args.next();
        for cfg in runs::all() {
            if only
                .as_ref()
                .is_some_and(|o| !cfg.name.contains(o.as_str()))
            {
                continue;
            }
            let t = Instant::now();
            let r = search::exhaust(&cfg, limit);
            show(cfg.name, &r, t);
            failed |= r.broken.is_some();
        }
    }
    std::process::exit(i32::from(failed));
}
