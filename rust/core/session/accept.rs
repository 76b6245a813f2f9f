// SPDX-License-Identifier: GPL-2.0

//! Which connections a listener keeps before their peers have proven anything.
//!
//! Only addresses of configured peers get so far; every other connection is closed when it is accepted. What is left
//! to bound is what somebody at a peer's own address does: another user of that host, or whoever shares its address.
//!
//! - Each address has places of its own, so nobody takes those of another peer.
//! - Where they are all taken, a new connection takes the place of the oldest one of that address that has not sent a
//!   valid hello. An honest peer sends its hello at once: half-open and slow connections do not keep it out.
//! - A connection that was answered and owes its proof is never closed for a new one. A hello is answered once, and only
//!   when it is signed with the secret: to take all places so, somebody must have recorded as many hellos on the wire.
//!   Its time is shorter while the places of its address are all taken, so that they become free before an honest peer's
//!   second attempt.

/// Connections of one address that may wait at a time.
pub const MAX_PER_SOURCE: usize = 64;
/// Connections to accept before those that wait are looked at, and the caller asks whether it shall stop.
pub const MAX_ACCEPTS: usize = 32;
/// Time to prove oneself, from the accept on.
const PATIENCE_NS: u64 = 3_000_000_000;
/// The same while the places of the address are all taken: a round trip of an honest peer is shorter.
const CROWDED_PATIENCE_NS: u64 = 1_000_000_000;

/// What a connection has shown so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing, or part of a hello.
    Hello,
    /// A valid hello, which was answered: it owes the proof.
    Proof,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is a place for it.
    Takes,
    /// It takes the place of the waiting connection with that index.
    Replaces(usize),
    /// It is closed.
    Closed,
}

/// Decides on a new connection from `source`. `waiting`: address and stage of those that wait, oldest first.
pub fn admit<S: PartialEq>(waiting: impl Iterator<Item = (S, Stage)>, source: &S) -> Admission {
    let mut count = 0usize;
    let mut oldest = None;
    for (i, (_, stage)) in waiting.enumerate().filter(|(_, (s, _))| s == source) {
        count = count.saturating_add(1);
        if stage == Stage::Hello && oldest.is_none() {
            oldest = Some(i);
        }
    }
    match oldest {
        _ if count < MAX_PER_SOURCE => Admission::Takes,
        Some(i) => Admission::Replaces(i),
        None => Admission::Closed,
    }
}

/// Whether a connection that waits for `age_ns` has had its time. `same`: connections that wait from its address.
#[must_use]
pub fn is_late(age_ns: u64, same: usize) -> bool {
    let crowded = same >= MAX_PER_SOURCE;
    age_ns
        > if crowded {
            CROWDED_PATIENCE_NS
        } else {
            PATIENCE_NS
        }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_accept))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    const US: u8 = 1;
    const OTHERS: u8 = 2;

    #[test]
    fn a_flood_takes_the_places_of_its_own_address_only() {
        let flood = || (0..1000).map(|_| (OTHERS, Stage::Hello));
        assert_eq!(admit(flood(), &US), Admission::Takes);
        assert_eq!(admit(flood(), &OTHERS), Admission::Replaces(0));
        assert_eq!(admit(core::iter::empty(), &US), Admission::Takes);
    }

    #[test]
    fn a_connection_that_owes_its_proof_stays() {
        // The oldest one was answered: the next oldest goes.
        let stage = |i| match i {
            0 | 2 => Stage::Proof,
            _ => Stage::Hello,
        };
        let waiting = (0..MAX_PER_SOURCE).map(|i| (US, stage(i)));
        assert_eq!(admit(waiting, &US), Admission::Replaces(1));
        // All were answered.
        let waiting = || (0..MAX_PER_SOURCE).map(|_| (US, Stage::Proof));
        assert_eq!(admit(waiting(), &US), Admission::Closed);
        assert_eq!(admit(waiting().skip(1), &US), Admission::Takes);
        // They give way to time, and then sooner.
        assert!(is_late(1_000_000_001, MAX_PER_SOURCE));
        assert!(!is_late(1_000_000_001, MAX_PER_SOURCE - 1));
        assert!(is_late(3_000_000_001, 1));
    }
}
