// SPDX-License-Identifier: GPL-2.0

//! Walking a cluster's states: breadth first for the shortest trace.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, BuildHasherDefault},
};

use super::{Cluster, Ev, State};
use crate::search::Mix;

/// What a walk found.
#[derive(Clone, Debug)]
pub struct Found {
    pub states: usize,
    pub rests: usize,
    pub depth: usize,
    pub cut_short: bool,
    pub broken: Option<(String, Vec<Ev>)>,
}

impl Found {
    pub fn line(&self, name: &str) -> String {
        let end = if self.cut_short { " CUT SHORT" } else { "" };
        format!(
            "{name}: {} states, {} at rest, depth {}{end}",
            self.states, self.rests, self.depth
        )
    }

    pub fn trace(&self) -> String {
        let Some((why, events)) = &self.broken else {
            return String::new();
        };
        let mut text = format!("{why}\n");
        for (i, ev) in events.iter().enumerate() {
            text += &format!("{:3} {ev:?}\n", i + 1);
        }
        text
    }
}

/// Walks every state, up to `limit` of them.
pub fn explore(cfg: &Cluster, limit: usize) -> Found {
    let hash = BuildHasherDefault::<Mix>::default();
    let start = State::new(cfg);
    let mut seen = HashSet::from([hash.hash_one(&start)]);
    // How each state was come to: the number of the one before, and the event.
    let mut came: Vec<(u32, Option<Ev>)> = vec![(0, None)];
    let mut queue = VecDeque::from([(0u32, 0usize, start)]);
    let mut found = Found {
        states: 1,
        rests: 0,
        depth: 0,
        cut_short: false,
        broken: None,
    };
    let trace = |came: &[(u32, Option<Ev>)], mut at: u32, last: Option<Ev>| {
        let mut events: Vec<Ev> = last.into_iter().collect();
        while let (before, Some(ev)) = came[at as usize] {
            events.push(ev);
            at = before;
        }
        events.reverse();
        events
    };
    while let Some((number, depth, state)) = queue.pop_front() {
        found.depth = found.depth.max(depth);
        let mut left = Vec::new();
        let mut moved = false;
        for ev in state.events(cfg) {
            let mut next = state.clone();
            let stepped = next.step(cfg, ev).and_then(|done| {
                if done {
                    next.check()?;
                }
                Ok(done)
            });
            match stepped {
                Ok(false) => continue,
                Ok(true) => {}
                Err(why) => {
                    found.broken = Some((why.0, trace(&came, number, Some(ev))));
                    return found;
                }
            }
            if ev.is_fault() {
                left.push(ev);
            } else {
                moved = true;
            }
            if !seen.insert(hash.hash_one(&next)) {
                continue;
            }
            if found.states >= limit {
                found.cut_short = true;
                continue;
            }
            found.states += 1;
            let n = u32::try_from(came.len()).expect("a number");
            came.push((number, Some(ev)));
            queue.push_back((n, depth + 1, next));
        }
        if !moved {
            found.rests += 1;
            if let Err(why) = state.check_rest(cfg, &left) {
                found.broken = Some((why.0, trace(&came, number, None)));
                return found;
            }
        }
    }
    found
}
