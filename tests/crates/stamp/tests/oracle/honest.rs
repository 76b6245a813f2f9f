// SPDX-License-Identifier: GPL-2.0

//! Honest images pass every check, and inputs that do not belong together are refused.

use seeded::Rng;
use stamp::check::{check, Input};
use stamp::coverage::Image;
use stamp::prefix::Require;
use stamp::replay::Base;

use crate::sim::{apply, blank, Rec, Sim, ALL, PLAIN};
use crate::{checker, fail, last_on, pass, sims};

#[test]
fn an_honest_prefix_passes_every_check() {
    for (seed, sim, mut rng) in sims(&ALL, 80) {
        let t = rng.below(sim.recs.len() as u64 + 1);
        let images = sim.upto(t, &mut rng);
        let o = checker(&sim).order(&sim).see(&images);
        pass(&o, seed);
        let (low, high) = o.at.unwrap();
        assert!(
            (low..=high).contains(&t),
            "seed {seed}: {t} not in {low}..={high}"
        );
        pass(&checker(&sim).closed(&sim).see(&images), seed);
        if t >= sim.acked() {
            for r in [Require::Durable, Require::Acked, Require::AckedAll] {
                let o = checker(&sim).order(&sim).require(r).see(&images);
                pass(&o, seed);
                assert_eq!(o.acked_lost, 0);
            }
        }
    }
}

#[test]
fn a_journal_cut_short_accuses_nobody() {
    for (seed, sim, mut rng) in sims(&ALL, 80) {
        let t = rng.below(sim.recs.len() as u64 + 1);
        let images = sim.upto(t, &mut rng);
        let mut j = checker(&sim);
        // Issues of zeroes and discards leave no stamps: what they did cannot be learnt from the image.
        let lines = sim.events.iter().rposition(|e| match e {
            stamp::journal::Event::Issue(s) => !s.op.stamps(),
            _ => false,
        });
        let keep: usize = sim.events[..lines.map_or(1, |i| i + 1)]
            .iter()
            .map(|e| e.line().len())
            .sum();
        let whole = j.journals[0].len();
        let cut = keep + rng.below((whole - keep) as u64 + 1) as usize;
        j.journals[0].truncate(cut);
        pass(&j.see(&images), seed);
    }
}

#[test]
fn a_closed_set_passes_the_closed_check_and_is_seldom_a_prefix() {
    let mut no_prefix = 0;
    for (seed, sim, mut rng) in sims(&ALL, 80) {
        let m = rng.below(sim.recs.len() as u64 + 1);
        let mut images = blank();
        let p = rng.below(1000);
        for r in &sim.recs {
            let free = r.seq > m;
            if !free || r.depends_on <= m {
                let mut coin = Rng::new(seed ^ (r.seq << 8));
                apply(&mut images, r, &mut rng, |_| !free || coin.chance(p));
            }
        }
        pass(&checker(&sim).closed(&sim).see(&images), seed);
        no_prefix += u64::from(checker(&sim).only_order(&sim).see(&images).violations > 0);
    }
    assert!(no_prefix > 20, "{no_prefix}");
}

#[test]
fn lost_acknowledged_writes_are_counted() {
    let mut found = 0;
    for (seed, sim, mut rng) in sims(&PLAIN, 100) {
        let t = rng.below(sim.acked());
        let images = sim.upto(t, &mut rng);
        let o = checker(&sim).order(&sim).see(&images);
        // An honest past state: fine in async mode, with the number of writes that are not in it.
        pass(&o, seed);
        let (_, high) = o.at.unwrap();
        let above = sim
            .recs
            .iter()
            .filter(|r| r.done.is_some() && r.seq > high)
            .count() as u64;
        assert!(
            o.acked_lost >= above && above > 0,
            "seed {seed}: {} of {above}",
            o.acked_lost
        );
        fail(
            &checker(&sim)
                .order(&sim)
                .require(Require::Acked)
                .see(&images),
            seed,
            "in sync mode",
        );
        // Without the order: an acknowledged last write on its sectors that is not there.
        let n = sim.recs.len() as u64;
        let alone = |r: &&Rec| {
            let concurrent = |o: &Rec| o.done.is_none_or(|d| d >= r.stamp.issue) && o.seq != r.seq;
            r.seq > t
                && r.done.is_some()
                && !last_on(&sim, r, n).is_empty()
                && !sim.recs.iter().any(|o| o.seq <= t && concurrent(o))
        };
        if sim.recs.iter().any(|r| alone(&r)) {
            fail(
                &checker(&sim).require(Require::Acked).see(&images),
                seed,
                "by stamps",
            );
            found += 1;
        }
    }
    assert!(found > 10, "{found}");
}

#[test]
fn what_a_power_cut_may_take_from_a_primary_is_not_held_against_it() {
    let mut excused = 0;
    for (seed, sim, mut rng) in sims(&ALL, 300) {
        let mut history = stamp::history::History::new();
        history
            .add_journal(&stamp::journal::parse(&sim.journal()).unwrap())
            .unwrap();
        let durable = history.durable();
        let highest = history
            .writes
            .iter()
            .zip(&durable)
            .filter(|(_, d)| **d)
            .filter_map(|(w, _)| sim.recs.iter().find(|r| r.stamp == w.stamp))
            .max_by_key(|r| r.seq);
        let Some(last) = highest else { continue };
        // What a log that was flushed up to there may lose.
        let images = sim.upto(last.seq, &mut rng);
        pass(&checker(&sim).require(Require::Durable).see(&images), seed);
        excused += u64::from(last.seq < sim.acked());
    }
    assert!(excused > 50, "{excused}");
}

#[test]
fn a_second_run_is_newer_than_what_the_first_left_open() {
    for seed in 0..100 {
        let mut rng = Rng::new(seed);
        let (a, b) = (Sim::new(&mut rng, 1, &PLAIN), Sim::new(&mut rng, 2, &PLAIN));
        let mut j = checker(&a).require(Require::Acked);
        j.journals = vec![a.journal(), b.journal()];
        let mut images = a.upto(a.recs.len() as u64, &mut rng);
        for r in &b.recs {
            apply(&mut images, r, &mut rng, |_| true);
        }
        pass(&j.see(&images), seed);
        // A write of the first run that comes back over the second.
        let last = b
            .recs
            .iter()
            .find(|r| r.done.is_some() && last_on(&b, r, u64::MAX).contains(&0));
        let Some(r) = last else { continue };
        let covers = |o: &&Rec| {
            let end = o.stamp.first + u64::from(o.stamp.sectors);
            o.stamp.device == r.stamp.device && (o.stamp.first..end).contains(&r.stamp.first)
        };
        let Some(ghost) = a.recs.iter().find(covers) else {
            continue;
        };
        let at = (r.stamp.first - ghost.stamp.first) as usize;
        apply(&mut images, ghost, &mut rng, |i| i == at);
        fail(&j.see(&images), seed, "an earlier run came back");
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let mut rng = Rng::new(1);
    let sim = Sim::new(&mut rng, 1, &PLAIN);
    let other = Sim::new(&mut rng, 2, &PLAIN);
    let images = sim.upto(5, &mut rng);
    let see = |journals: Vec<String>, order: String| {
        let boxed = |i: &Vec<u8>| Box::new(i.clone()) as Box<dyn Image>;
        check(&Input {
            images: images.iter().map(|i| (None, boxed(i))).collect(),
            bases: images.iter().map(|_| Base::Zero).collect(),
            journals,
            orders: vec![order],
            srls: vec![],
            closed: false,
            stamps: true,
            allow_unresolved: false,
            options: checker(&sim).options,
        })
    };
    // The order of another run: contents unknown must not become "anything goes".
    assert!(see(vec![sim.journal()], other.order())
        .unwrap_err()
        .contains("not known"));
    let whole = sim.order();
    let tail: String = whole.split_inclusive('\n').skip(3).collect();
    assert!(see(vec![sim.journal()], tail)
        .unwrap_err()
        .contains("begins at seq 4"));
    assert!(see(vec!["nonsense\nmore\n".into()], sim.order()).is_err());
}
