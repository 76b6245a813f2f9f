// SPDX-License-Identifier: GPL-2.0

//! Which unflushed versions survive a power cut: a policy drawn from the seed, then a decision for
//! every version of every block. The survivor of a block is the last kept version, else the stable
//! one, so with several versions any one of them can be the one that is found afterwards.
//!
//! Called by the disk with its lock held. Pure: the image is written by the caller.

use std::collections::BTreeMap;
use std::fmt;

use seeded::Rng;

use crate::cache::{Cache, OpId, Version};

/// How a torn request ends up: which of its blocks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    Head,
    Tail,
    Scatter,
}

/// What the cache did before the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing unflushed survives.
    Nothing,
    /// Everything survives.
    Everything,
    /// Every version of every block by itself, with this chance in 1000.
    Scatter { permille: u64 },
    /// Only a run of requests survives.
    Window { from: OpId, to: OpId },
    /// Only the later requests survive: the cache wrote backwards.
    Later { from: OpId },
    /// All requests below `to`; `to` itself is torn.
    Prefix { to: OpId, tear: Tear },
    /// Whole requests with this chance in 1000, one of them torn.
    Requests {
        permille: u64,
        torn: OpId,
        tear: Tear,
    },
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Nothing => write!(f, "nothing"),
            Policy::Everything => write!(f, "everything"),
            Policy::Scatter { permille } => write!(f, "scatter({permille}/1000)"),
            Policy::Window { from, to } => write!(f, "window({from}..{to})"),
            Policy::Later { from } => write!(f, "later({from}..)"),
            Policy::Prefix { to, tear } => write!(f, "prefix(..{to},{tear:?})"),
            Policy::Requests {
                permille,
                torn,
                tear,
            } => write!(f, "requests({permille}/1000,torn={torn},{tear:?})"),
        }
    }
}

impl Policy {
    /// Draws a policy for a cache whose unflushed requests are `ops` (ascending).
    pub fn draw(rng: &mut Rng, ops: &[OpId]) -> Self {
        let pick = |rng: &mut Rng| {
            ops.get(rng.below(ops.len() as u64) as usize)
                .copied()
                .unwrap_or(0)
        };
        let tear = match rng.below(3) {
            0 => Tear::Head,
            1 => Tear::Tail,
            _ => Tear::Scatter,
        };
        match rng.below(16) {
            0 | 1 => Policy::Nothing,
            2 => Policy::Everything,
            3..=6 => Policy::Scatter {
                permille: 1 + rng.below(999),
            },
            7 | 8 => {
                let (a, b) = (pick(rng), pick(rng));
                Policy::Window {
                    from: a.min(b),
                    to: a.max(b),
                }
            }
            9 | 10 => Policy::Later { from: pick(rng) },
            11 | 12 => Policy::Prefix {
                to: pick(rng),
                tear,
            },
            _ => Policy::Requests {
                permille: 1 + rng.below(999),
                torn: pick(rng),
                tear,
            },
        }
    }
}

/// What survives: the version to write, for each block that changes on the platter.
pub struct Survivors<'a> {
    pub policy: Policy,
    pub blocks: Vec<(u64, &'a Version)>,
}

/// Decides the survivors of a cut with this seed on the disk of this name.
pub fn survivors<'a>(cache: &'a Cache, seed: u64, name: &str) -> Survivors<'a> {
    let mut rng = Rng::for_name(seed, name);
    let mut sizes: BTreeMap<OpId, u64> = BTreeMap::new();
    for versions in cache.blocks().values() {
        for v in versions {
            *sizes.entry(v.op).or_default() += 1;
        }
    }
    let ops: Vec<OpId> = sizes.keys().copied().collect();
    let policy = Policy::draw(&mut rng, &ops);
    let mut chooser = Chooser::new(policy, &sizes, rng);
    let mut blocks = Vec::new();
    for (b, versions) in cache.blocks() {
        let mut kept = None;
        for v in versions {
            if chooser.keep(v.op) {
                kept = Some(v);
            }
        }
        if let Some(v) = kept {
            blocks.push((*b, v));
        }
    }
    Survivors { policy, blocks }
}

struct Chooser {
    policy: Policy,
    rng: Rng,
    /// For `Policy::Requests`: the verdict on each whole request.
    whole: BTreeMap<OpId, bool>,
    torn_seen: u64,
    torn_split: u64,
}

impl Chooser {
    fn new(policy: Policy, sizes: &BTreeMap<OpId, u64>, mut rng: Rng) -> Self {
        let mut whole = BTreeMap::new();
        let mut torn_split = 0;
        match policy {
            Policy::Prefix { to, .. } => {
                torn_split = rng.below(sizes.get(&to).copied().unwrap_or(0) + 1);
            }
            Policy::Requests { permille, torn, .. } => {
                for op in sizes.keys() {
                    whole.insert(*op, rng.chance(permille));
                }
                torn_split = rng.below(sizes.get(&torn).copied().unwrap_or(0) + 1);
            }
            _ => (),
        }
        Self {
            policy,
            rng,
            whole,
            torn_seen: 0,
            torn_split,
        }
    }

    fn keep(&mut self, op: OpId) -> bool {
        match self.policy {
            Policy::Nothing => false,
            Policy::Everything => true,
            Policy::Scatter { permille } => self.rng.chance(permille),
            Policy::Window { from, to } => (from..=to).contains(&op),
            Policy::Later { from } => op >= from,
            Policy::Prefix { to, tear } => op < to || (op == to && self.keep_torn(tear)),
            Policy::Requests { torn, tear, .. } => {
                if op == torn {
                    self.keep_torn(tear)
                } else {
                    self.whole.get(&op).copied().unwrap_or(false)
                }
            }
        }
    }

    /// The blocks of the torn request come in ascending order.
    fn keep_torn(&mut self, tear: Tear) -> bool {
        let i = self.torn_seen;
        self.torn_seen += 1;
        match tear {
            Tear::Head => i < self.torn_split,
            Tear::Tail => i >= self.torn_split,
            Tear::Scatter => self.rng.chance(500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn cache() -> Cache {
        let mut c = Cache::new(512);
        let buf: Arc<[u8]> = vec![1u8; 8 * 512].into();
        for op in 1..=20u64 {
            c.write(op, (op % 5) * 4, 8, Some(&buf));
        }
        c
    }

    #[test]
    fn same_seed_same_survivors() {
        let c = cache();
        for seed in 0..50 {
            let list = |c: &Cache| -> Vec<(u64, OpId)> {
                survivors(c, seed, "d")
                    .blocks
                    .iter()
                    .map(|(b, v)| (*b, v.op))
                    .collect()
            };
            assert_eq!(list(&c), list(&cache()));
        }
    }

    #[test]
    fn every_policy_and_every_version_comes_up() {
        let c = cache();
        let mut kinds = BTreeSet::new();
        let mut ops_of_block_0 = BTreeSet::new();
        let mut stable_kept = false;
        let mut torn = false;
        for seed in 0..2000 {
            let s = survivors(&c, seed, "d");
            kinds.insert(s.policy.to_string().split('(').next().map(str::to_owned));
            match s.blocks.iter().find(|(b, _)| *b == 0) {
                Some((_, v)) => {
                    ops_of_block_0.insert(v.op);
                }
                None => stable_kept = true,
            }
            // Request 20 covers blocks 0..8 and is the newest there: some but not all kept is a tear.
            let n = s.blocks.iter().filter(|(_, v)| v.op == 20).count();
            torn |= n > 0 && n < 8;
        }
        assert_eq!(kinds.len(), 7, "{kinds:?}");
        let all: BTreeSet<OpId> = c.blocks()[&0].iter().map(|v| v.op).collect();
        assert_eq!(ops_of_block_0, all);
        assert!(stable_kept && torn);
    }
}
