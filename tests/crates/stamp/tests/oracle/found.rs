// SPDX-License-Identifier: GPL-2.0

//! Every kind of violation is found.

use seeded::Rng;
use stamp::block::Op;
use stamp::prefix::Require;
use stamp::SECTOR;

use crate::sim::{apply, blank, Images, Rec, Sim, ALL, PLAIN, SECTORS};
use crate::{checker, fail, last_on, pass, sims};

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
    for (seed, sim, mut rng) in sims(&PLAIN, 120) {
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
            fail(&checker(&sim).see(&images), seed, "by stamps");
            by_stamps += 1;
        }
        if later(&|_| true) {
            fail(
                &checker(&sim).only_order(&sim).see(&images),
                seed,
                "by order",
            );
            by_order += 1;
        }
        if later(&|o| o.depends_on >= k) {
            let mut j = checker(&sim).closed(&sim);
            j.stamps = false;
            fail(&j.see(&images), seed, "by closure");
            by_closure += 1;
        }
    }
    assert!(
        by_stamps > 10 && by_order > 20 && by_closure > 20,
        "{by_stamps} {by_order} {by_closure}"
    );
}

#[test]
fn a_write_that_went_backwards_is_found() {
    let mut found = 0;
    for (seed, sim, mut rng) in sims(&PLAIN, 150) {
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
        let j = checker(&sim).require(Require::Acked);
        fail(
            &j.see(&images),
            seed,
            "an acknowledged write overwritten by an older one",
        );
        if last.len() > 1 {
            fail(&checker(&sim).see(&images), seed, "torn by an older write");
            fail(
                &checker(&sim).only_order(&sim).see(&images),
                seed,
                "by order",
            );
            found += 1;
        }
    }
    assert!(found > 10, "{found}");
}

#[test]
fn a_torn_record_is_found() {
    let (mut stamps, mut order) = (0, 0);
    for (seed, sim, mut rng) in sims(&PLAIN, 150) {
        let t = 1 + rng.below(sim.recs.len() as u64);
        let r = &sim.recs[t as usize - 1];
        if r.stamp.sectors < 2 {
            continue;
        }
        let half = r.stamp.sectors as usize / 2;
        let images = without(&sim, t, t, |i| i < half);
        fail(
            &checker(&sim).only_order(&sim).see(&images),
            seed,
            "by order",
        );
        order += 1;
        // By stamps a concurrent write may excuse the other half; a blank or older sector may not.
        let concurrent = sim
            .recs
            .iter()
            .any(|o| o.seq < t && o.done.is_none_or(|d| d >= r.stamp.issue));
        if !concurrent {
            fail(&checker(&sim).see(&images), seed, "by stamps");
            stamps += 1;
        }
    }
    assert!(stamps > 5 && order > 50, "{stamps} {order}");
}

#[test]
fn volumes_at_different_seqs_are_found() {
    let mut found = 0;
    for (seed, sim, mut rng) in sims(&PLAIN, 120) {
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
            &checker(&sim).only_order(&sim).see(&images),
            seed,
            "two seqs at once",
        );
        found += 1;
    }
    assert!(found > 20, "{found}");
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
    let durable = |sim: &Sim| checker(sim).require(Require::Durable).see(&blank());
    fail(&durable(&sim), 0, "a FUA write is gone");
    pass(&checker(&sim).see(&blank()), 0);

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
        fail(
            &checker(&sim).see(&flipped),
            seed,
            "a flipped bit, by stamps",
        );
        fail(
            &checker(&sim).only_order(&sim).see(&flipped),
            seed,
            "a flipped bit, by order",
        );

        let mut moved = images.clone();
        let sector = images[d][at..at + SECTOR].to_vec();
        moved[d][far..far + SECTOR].copy_from_slice(&sector);
        fail(
            &checker(&sim).see(&moved),
            seed,
            "a misplaced sector, by stamps",
        );
        fail(
            &checker(&sim).only_order(&sim).see(&moved),
            seed,
            "a misplaced sector, by order",
        );

        let mut other = images.clone();
        other[d][at..at + SECTOR].fill(0x77);
        fail(
            &checker(&sim)
                .require(Require::AckedAll)
                .only_order(&sim)
                .see(&other),
            seed,
            "foreign data",
        );
        if r.stamp.sectors > 1 {
            fail(
                &checker(&sim).see(&other),
                seed,
                "foreign data within a visible write",
            );
        }

        let mut swapped = images.clone();
        swapped.swap(0, 1);
        fail(
            &checker(&sim).see(&swapped),
            seed,
            "swapped volumes, by stamps",
        );
        fail(
            &checker(&sim).only_order(&sim).see(&swapped),
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
            &checker(&sim).only_order(&sim).see(&images),
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
        let (mut zeroes, mut discards) = (0, 0);
        for r in &sim.recs {
            // Two of each are enough for one history.
            let enough = match r.stamp.op {
                Op::Discard => &mut discards,
                Op::Zero => &mut zeroes,
                _ => continue,
            };
            if r.done.is_none() || *enough == 2 {
                continue;
            }
            let last = last_on(&sim, r, t);
            let Some(i) = last.first() else { continue };
            *enough += 1;
            let at = (r.stamp.first as usize + i) * SECTOR;
            let mut images = sim.upto(t, &mut rng);
            images[usize::from(r.stamp.device)][at..at + SECTOR].fill(0x3c);
            let j = checker(&sim).order(&sim).require(Require::Acked);
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
