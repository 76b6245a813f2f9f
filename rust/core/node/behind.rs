// SPDX-License-Identifier: GPL-2.0

//! How far a peer is behind, for status.

use super::{Log, Memory, Node};
use crate::units::Seq;

/// How far a peer is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Records that it lacks.
    pub records: u64,
    /// Their bytes, as far as log or memory know them.
    pub bytes: u64,
    /// When the oldest of them was written, ns since 1970; 0: not known.
    pub since_ns: u64,
}

impl<M: Memory> Node<M> {
    /// How far a peer that has everything up to `logged` on stable storage is behind.
    ///
    /// Looks at no more records than memory holds, however far behind the peer is: anybody may ask for status,
    /// and this runs under the order lock.
    pub fn behind(&self, logged: Seq) -> Behind {
        let head = self.head();
        if logged >= head {
            return Behind::default();
        }
        let next = logged.next();
        let (mut bytes, mut from) = (0u64, next);
        if let Log::Ring(w) = &self.log {
            // What is in the log: by its places, which need no look at each record.
            if let Some(mark) = w.index.find(next).filter(|_| next <= w.logged_head()) {
                bytes = w.ring.head().0.saturating_sub(mark.place.0);
                from = w.logged_head().next();
            }
        }
        // Before the window there is nothing to look at.
        from = from.max(self.window.base().next());
        while from <= self.window.head() {
            if let Some(s) = self.window.get(from) {
                bytes = bytes.saturating_add(u64::from(s.record.payload_bytes()));
            }
            from = from.next();
        }
        Behind {
            records: head.since(logged),
            bytes,
            since_ns: self.window.get(next).map_or(0, |s| s.record.time_ns),
        }
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_behind))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::{
        log::{
            ring::{Index, Mark, Place, Ring},
            writer::Writer,
        },
        node::{
            links::{Position, Positions, MAX_LINKS},
            volumes::Volume,
            window::Slot,
            Role, Start,
        },
        units::{Bytes, Chain, Op, Range, Sector, VolumeId},
    };

    struct Small;

    impl Memory for Small {
        type Slots = [Slot; 8];
        type Heads = [Seq; 4];
        type Marks = [Mark; 4];
        type Volumes = [Volume; 1];
        type Links = [Option<Position>; MAX_LINKS];
    }

    #[test]
    fn a_link_that_is_a_long_way_behind_costs_no_more_than_the_window() {
        const OLD: u64 = 1 << 60;
        let ring = Ring::new(Bytes(8 << 20), 4096, Place(0), Place(0));
        let writer = Writer::new(ring, Index::new([Mark::default(); 4]), Seq(OLD), true);
        let start = Start {
            role: Role::Primary,
            applied: Seq(OLD),
            chain: Chain(0),
            head: Seq(OLD),
            head_chain: Chain(0),
        };
        let mut node = Node::<Small>::new(
            [Slot::default(); 8],
            [Seq::NONE; 4],
            [Volume::default(); 1],
            Log::Ring(writer),
            Positions::default(),
            start,
        );
        assert_eq!(node.behind(Seq(OLD)), Behind::default());
        assert!(node.volume_attached(VolumeId(0)) && node.open_volume().is_some());
        let range = Range {
            volume: VolumeId(0),
            sector: Sector(0),
            sectors: 8,
        };
        assert!(node.admit(Op::Write, range, false, false, 0, 77).is_ok());
        // A walk from record 5 on would not end in this life.
        let far = node.behind(Seq(4));
        assert_eq!((far.records, far.bytes, far.since_ns), (OLD - 3, 4096, 0));
        let near = node.behind(Seq(OLD));
        assert_eq!((near.records, near.bytes, near.since_ns), (1, 4096, 77));
    }
}
