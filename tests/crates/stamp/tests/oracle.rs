// SPDX-License-Identifier: GPL-2.0

//! The oracle judged: honest images pass, and every kind of violation is found.

mod sim;

use sim::{apply, blank, Images, Rec, Shape, Sim, ALL, PLAIN, SECTORS};
use stamp::block::Op;
use stamp::check::{check, Input, Outcome};
use stamp::coverage::Image;
use stamp::prefix::{Options, Require};
use stamp::replay::Base;
use stamp::rng::Rng;
use stamp::SECTOR;

struct Judge {
    journals: Vec<String>,
    orders: Vec<String>,
    closed: bool,
    stamps: bool,
    options: Options,
}

fn judge(sim: &Sim) -> Judge {
    Judge {
        journals: vec![sim.journal()],
        orders: vec![],
        closed: false,
        stamps: true,
        options: Options {
            require: Require::None,
            prefix: true,
            atomic: Some(SECTORS),
            show: 5,
        },
    }
}

impl Judge {
    fn order(mut self, sim: &Sim) -> Self {
        self.orders = vec![sim.order()];
        self
    }

    fn only_order(mut self, sim: &Sim) -> Self {
        self.stamps = false;
        self.order(sim)
    }

    fn closed(mut self, sim: &Sim) -> Self {
        self.closed = true;
        self.options.atomic = None;
        self.order(sim)
    }

    fn require(mut self, r: Require) -> Self {
        self.options.require = r;
        self
    }

    fn see(&self, images: &Images) -> Outcome {
        let boxed = |i: &Vec<u8>| Box::new(i.clone()) as Box<dyn Image>;
        check(&Input {
            images: images.iter().map(|i| (None, boxed(i))).collect(),
            bases: images.iter().map(|_| Base::Zero).collect(),
            journals: self.journals.clone(),
            orders: self.orders.clone(),
            srls: vec![],
            closed: self.closed,
            stamps: self.stamps,
            allow_unresolved: false,
            options: self.options,
        })
        .unwrap()
    }
}

fn pass(o: &Outcome, seed: u64) {
    assert_eq!(o.violations, 0, "seed {seed}:\n{}", o.text);
}

fn fail(o: &Outcome, seed: u64, why: &str) {
    assert!(
        o.violations > 0,
        "seed {seed}: not found: {why}\n{}",
        o.text
    );
}

fn sims(shape: &'static Shape, n: u64) -> impl Iterator<Item = (u64, Sim, Rng)> {
    (0..n).map(move |seed| {
        let mut rng = Rng::new(seed);
        let sim = Sim::new(&mut rng, seed + 1, shape);
        (seed, sim, rng)
    })
}

/// Sectors on which `r` is the last write among the records up to `seq`.
fn last_on(sim: &Sim, r: &Rec, seq: u64) -> Vec<usize> {
    let (a, b) = (r.stamp.first, r.stamp.first + u64::from(r.stamp.sectors));
    (a..b)
        .filter(|s| {
            !sim.recs.iter().any(|o| {
                let end = o.stamp.first + u64::from(o.stamp.sectors);
                o.seq > r.seq
                    && o.seq <= seq
                    && o.stamp.device == r.stamp.device
                    && (o.stamp.first..end).contains(s)
            })
        })
        .map(|s| (s - a) as usize)
        .collect()
}

#[test]
fn an_honest_prefix_passes_every_check() {
    for (seed, sim, mut rng) in sims(&ALL, 200) {
        let t = rng.below(sim.recs.len() as u64 + 1);
        let images = sim.upto(t, &mut rng);
        let o = judge(&sim).order(&sim).see(&images);
        pass(&o, seed);
        let (low, high) = o.at.unwrap();
        assert!(
            (low..=high).contains(&t),
            "seed {seed}: {t} not in {low}..={high}"
        );
        pass(&judge(&sim).closed(&sim).see(&images), seed);
        if t >= sim.acked() {
            for r in [Require::Durable, Require::Acked, Require::AckedAll] {
                let o = judge(&sim).order(&sim).require(r).see(&images);
                pass(&o, seed);
                assert_eq!(o.acked_lost, 0);
            }
        }
    }
}

#[test]
fn a_journal_cut_short_accuses_nobody() {
    for (seed, sim, mut rng) in sims(&ALL, 200) {
        let t = rng.below(sim.recs.len() as u64 + 1);
        let images = sim.upto(t, &mut rng);
        let mut j = judge(&sim);
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
    for (seed, sim, mut rng) in sims(&ALL, 200) {
        let m = rng.below(sim.recs.len() as u64 + 1);
        let mut images = blank();
        let p = rng.below(1000);
        for r in &sim.recs {
            let free = r.seq > m;
            if !free || r.depends_on <= m {
                let mut coin = Rng::new(seed ^ r.seq << 8);
                apply(&mut images, r, &mut rng, |_| !free || coin.chance(p));
            }
        }
        pass(&judge(&sim).closed(&sim).see(&images), seed);
        no_prefix += u64::from(judge(&sim).only_order(&sim).see(&images).violations > 0);
    }
    assert!(no_prefix > 50, "{no_prefix}");
}

/// Takes record `k` back on all sectors where it is the last; returns whether that changed anything.
fn without(sim: &Sim, k: u64, t: u64, keep: impl Fn(usize) -> bool) -> Images {
    let mut images = blank();
    let mut rng = Rng::new(0);
    for r in sim.recs.iter().filter(|r| r.seq <= t) {
        apply(&mut images, r, &mut rng, |i| r.seq != k || keep(i));
    }
    images
}

#[test]
fn a_missing_write_is_found() {
    let (mut by_stamps, mut by_order, mut by_closure) = (0, 0, 0);
    for (seed, sim, mut rng) in sims(&PLAIN, 200) {
        let t = sim.recs.len() as u64;
        let k = 1 + rng.below(t - 1);
        let r = &sim.recs[k as usize - 1];
        if last_on(&sim, r, t).is_empty() {
            continue;
        }
        // A later record that is visible, and needs k.
        let later = |need: &dyn Fn(&Rec) -> bool| {
            sim.recs
                .iter()
                .any(|o| o.seq > k && need(o) && !last_on(&sim, o, t).is_empty())
        };
        let images = without(&sim, k, t, |_| false);
        // By stamps, a write that was concurrent with k excuses its absence.
        let concurrent = |o: &&Rec| {
            o.seq < k
                && o.stamp.device == r.stamp.device
                && o.done.is_none_or(|d| d >= r.stamp.issue)
        };
        let excused = sim.recs.iter().any(|o| concurrent(&o));
        if !excused && later(&|o| r.done.is_some_and(|d| d < o.stamp.issue)) {
            fail(&judge(&sim).see(&images), seed, "by stamps");
            by_stamps += 1;
        }
        if later(&|_| true) {
            fail(&judge(&sim).only_order(&sim).see(&images), seed, "by order");
            by_order += 1;
        }
        if later(&|o| o.depends_on >= k) {
            let mut j = judge(&sim).closed(&sim);
            j.stamps = false;
            fail(&j.see(&images), seed, "by closure");
            by_closure += 1;
        }
    }
    assert!(
        by_stamps > 30 && by_order > 40 && by_closure > 40,
        "{by_stamps} {by_order} {by_closure}"
    );
}

#[test]
fn a_write_that_went_backwards_is_found() {
    let mut found = 0;
    for (seed, sim, mut rng) in sims(&PLAIN, 300) {
        let t = sim.recs.len() as u64;
        let r = &sim.recs[rng.below(t) as usize];
        let last = last_on(&sim, r, t);
        let Some(i) = last.first() else { continue };
        // An older record on the same sector, applied again over it: redo out of order.
        let sector = r.stamp.first + *i as u64;
        let older = sim.recs.iter().find(|o| {
            let end = o.stamp.first + u64::from(o.stamp.sectors);
            o.seq < r.seq
                && o.stamp.device == r.stamp.device
                && (o.stamp.first..end).contains(&sector)
                && o.done.is_some_and(|d| d < r.stamp.issue)
        });
        let (Some(o), true) = (older, r.done.is_some()) else {
            continue;
        };
        let mut images = sim.upto(t, &mut rng);
        let at = (sector - o.stamp.first) as usize;
        apply(&mut images, o, &mut rng, |n| n == at);
        let j = judge(&sim).require(Require::Acked);
        fail(
            &j.see(&images),
            seed,
            "an acknowledged write overwritten by an older one",
        );
        if last.len() > 1 {
            fail(&judge(&sim).see(&images), seed, "torn by an older write");
            fail(&judge(&sim).only_order(&sim).see(&images), seed, "by order");
            found += 1;
        }
    }
    assert!(found > 30, "{found}");
}

#[test]
fn a_torn_record_is_found() {
    let (mut stamps, mut order) = (0, 0);
    for (seed, sim, mut rng) in sims(&PLAIN, 300) {
        let t = 1 + rng.below(sim.recs.len() as u64);
        let r = &sim.recs[t as usize - 1];
        if r.stamp.sectors < 2 {
            continue;
        }
        let half = r.stamp.sectors as usize / 2;
        let images = without(&sim, t, t, |i| i < half);
        fail(&judge(&sim).only_order(&sim).see(&images), seed, "by order");
        order += 1;
        // By stamps a concurrent write may excuse the other half; a blank or older sector may not.
        let concurrent = sim
            .recs
            .iter()
            .any(|o| o.seq < t && o.done.is_none_or(|d| d >= r.stamp.issue));
        if !concurrent {
            fail(&judge(&sim).see(&images), seed, "by stamps");
            stamps += 1;
        }
    }
    assert!(stamps > 10 && order > 100, "{stamps} {order}");
}

#[test]
fn volumes_at_different_seqs_are_found() {
    let mut found = 0;
    for (seed, sim, mut rng) in sims(&PLAIN, 200) {
        let n = sim.recs.len() as u64;
        let (a, b) = (rng.below(n + 1), rng.below(n + 1));
        let low = sim.upto(a.min(b), &mut rng);
        let high = sim.upto(a.max(b), &mut rng);
        let images = vec![low[0].clone(), high[1].clone()];
        // Each volume moved in between, and not only at the end of the other's stretch.
        let between: Vec<&Rec> = sim
            .recs
            .iter()
            .filter(|r| r.seq > a.min(b) && r.seq <= a.max(b))
            .collect();
        let first_0 = between.iter().find(|r| r.stamp.device == 0).map(|r| r.seq);
        let last_1 = between
            .iter()
            .rev()
            .find(|r| r.stamp.device == 1)
            .map(|r| r.seq);
        let (Some(f), Some(l)) = (first_0, last_1) else {
            continue;
        };
        if f > l {
            continue;
        }
        fail(
            &judge(&sim).only_order(&sim).see(&images),
            seed,
            "two seqs at once",
        );
        found += 1;
    }
    assert!(found > 50, "{found}");
}

#[test]
fn lost_acknowledged_writes_are_counted() {
    let mut found = 0;
    for (seed, sim, mut rng) in sims(&PLAIN, 200) {
        let t = rng.below(sim.acked());
        let images = sim.upto(t, &mut rng);
        let o = judge(&sim).order(&sim).see(&images);
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
            &judge(&sim).order(&sim).require(Require::Acked).see(&images),
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
                &judge(&sim).require(Require::Acked).see(&images),
                seed,
                "by stamps",
            );
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
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
        pass(&judge(&sim).require(Require::Durable).see(&images), seed);
        excused += u64::from(last.seq < sim.acked());
    }
    assert!(excused > 50, "{excused}");
}

#[test]
fn a_lost_durable_write_is_found() {
    // One FUA write, completed, absent.
    let mut sim = Sim::default();
    let stamp = stamp::block::Stamp {
        run: 9,
        writer: 0,
        device: 0,
        op: Op::Fua,
        number: 1,
        time: 1,
        first: 4,
        sectors: 2,
        issue: 1,
        floor: 0,
    };
    sim.events = vec![
        stamp::journal::Event::Run { run: 9, devices: 2 },
        stamp::journal::Event::Issue(stamp),
        stamp::journal::Event::Done { issue: 1, event: 2 },
    ];
    let durable = |sim: &Sim| judge(sim).require(Require::Durable).see(&blank());
    fail(&durable(&sim), 0, "a FUA write is gone");
    pass(&judge(&sim).see(&blank()), 0);

    // A plain write, completed before a flush was issued that completed: on the same device only.
    let plain = stamp::block::Stamp {
        op: Op::Write,
        ..stamp
    };
    let flush = |device, issue| stamp::block::Stamp {
        op: Op::Sync,
        device,
        issue,
        sectors: 0,
        ..stamp
    };
    use stamp::journal::Event::{Done, Issue};
    for (device, at, done, lost) in [
        (0, 3, true, true),
        (0, 3, false, false),
        (1, 3, true, false),
        (0, 2, true, false),
    ] {
        // With the flush issued at 2, the write completes at 3, after it.
        let ended = if at == 3 { 2 } else { 3 };
        let mut events = vec![sim.events[0], Issue(plain)];
        events.push(Done {
            issue: 1,
            event: ended,
        });
        events.push(Issue(flush(device, at)));
        if done {
            events.push(Done {
                issue: at,
                event: 4,
            });
        }
        let s = Sim {
            events,
            ..Sim::default()
        };
        match lost {
            true => fail(&durable(&s), 0, "a flushed write is gone"),
            false => pass(&durable(&s), 0),
        }
    }
}

#[test]
fn damage_and_strange_data_are_found() {
    for (seed, sim, mut rng) in sims(&PLAIN, 60) {
        let t = sim.recs.len() as u64;
        let images = sim.upto(t, &mut rng);
        let r = &sim.recs[t as usize - 1];
        let d = usize::from(r.stamp.device);
        let at = r.stamp.first as usize * SECTOR;
        let far = ((r.stamp.first as usize + 40) % SECTORS as usize) * SECTOR;

        let mut flipped = images.clone();
        flipped[d][at + 100] ^= 4;
        fail(&judge(&sim).see(&flipped), seed, "a flipped bit, by stamps");
        fail(
            &judge(&sim).only_order(&sim).see(&flipped),
            seed,
            "a flipped bit, by order",
        );

        let mut moved = images.clone();
        let sector = images[d][at..at + SECTOR].to_vec();
        moved[d][far..far + SECTOR].copy_from_slice(&sector);
        fail(
            &judge(&sim).see(&moved),
            seed,
            "a misplaced sector, by stamps",
        );
        fail(
            &judge(&sim).only_order(&sim).see(&moved),
            seed,
            "a misplaced sector, by order",
        );

        let mut other = images.clone();
        other[d][at..at + SECTOR].fill(0x77);
        fail(
            &judge(&sim)
                .require(Require::AckedAll)
                .only_order(&sim)
                .see(&other),
            seed,
            "foreign data",
        );
        if r.stamp.sectors > 1 {
            fail(
                &judge(&sim).see(&other),
                seed,
                "foreign data within a visible write",
            );
        }

        let mut swapped = images.clone();
        swapped.swap(0, 1);
        fail(
            &judge(&sim).see(&swapped),
            seed,
            "swapped volumes, by stamps",
        );
        fail(
            &judge(&sim).only_order(&sim).see(&swapped),
            seed,
            "swapped volumes, by order",
        );
    }
}

#[test]
fn writes_outside_the_order_are_found() {
    for (seed, sim, mut rng) in sims(&PLAIN, 60) {
        let mut images = sim.upto(sim.recs.len() as u64, &mut rng);
        let untouched = (0..SECTORS).find(|s| {
            !sim.recs.iter().any(|r| {
                let end = r.stamp.first + u64::from(r.stamp.sectors);
                r.stamp.device == 0 && (r.stamp.first..end).contains(s)
            })
        });
        let Some(s) = untouched else { continue };
        images[0][s as usize * SECTOR] = 1;
        fail(
            &judge(&sim).only_order(&sim).see(&images),
            seed,
            "a sector that no record wrote",
        );
    }
}

#[test]
fn a_lost_zeroing_is_found_and_discards_are_undefined() {
    let (mut zero, mut discard) = (0, 0);
    for (seed, sim, mut rng) in sims(&ALL, 60) {
        let t = sim.recs.len() as u64;
        for r in &sim.recs {
            if r.done.is_none() {
                continue;
            }
            let last = last_on(&sim, r, t);
            let Some(i) = last.first() else { continue };
            let at = (r.stamp.first as usize + i) * SECTOR;
            let mut images = sim.upto(t, &mut rng);
            images[usize::from(r.stamp.device)][at..at + SECTOR].fill(0x3c);
            let j = judge(&sim).order(&sim).require(Require::Acked);
            match r.stamp.op {
                Op::Discard => {
                    pass(&j.see(&images), seed);
                    discard += 1;
                }
                Op::Zero => {
                    fail(&j.see(&images), seed, "a zeroed sector holds data");
                    zero += 1;
                }
                _ => (),
            }
        }
    }
    assert!(zero > 50 && discard > 50, "{zero} {discard}");
}

#[test]
fn a_second_run_is_newer_than_what_the_first_left_open() {
    for seed in 0..100 {
        let mut rng = Rng::new(seed);
        let (a, b) = (Sim::new(&mut rng, 1, &PLAIN), Sim::new(&mut rng, 2, &PLAIN));
        let mut j = judge(&a).require(Require::Acked);
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
            options: judge(&sim).options,
        })
    };
    // The order of another run: contents unknown must not become "anything goes".
    assert!(see(vec![sim.journal()], other.order())
        .unwrap_err()
        .contains("not known"));
    let tail: String = sim
        .order()
        .lines()
        .skip(3)
        .map(|l| format!("{l}\n"))
        .collect();
    assert!(see(vec![sim.journal()], tail)
        .unwrap_err()
        .contains("begins at seq 4"));
    assert!(see(vec!["nonsense\nmore\n".into()], sim.order()).is_err());
}
