// SPDX-License-Identifier: GPL-2.0

//! The oracle checked: honest images pass, and every kind of violation is found.

mod found;
mod honest;
mod sim;

use seeded::Rng;
use sim::{Images, Rec, Shape, Sim, SECTORS};
use stamp::check::{check, Input, Outcome};
use stamp::coverage::Image;
use stamp::prefix::{Options, Require};
use stamp::replay::Base;

struct Checker {
    journals: Vec<String>,
    orders: Vec<String>,
    closed: bool,
    stamps: bool,
    options: Options,
}

fn checker(sim: &Sim) -> Checker {
    Checker {
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

impl Checker {
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
