// SPDX-License-Identifier: GPL-2.0

//! What is explored of clusters.

use replicate_core::group::Mode;

use super::Cluster;

const BASE: Cluster = Cluster {
    name: "",
    hosts: 2,
    links: &[(0, 1)],
    mode: Mode::Received,
    writes: [2, 0, 0],
    takeovers: 0,
    crashes: 0,
    losses: 0,
    cuts: &[],
    log_errors: 0,
    queue: 1,
};

/// a, b and c, each linked to each.
const TRIANGLE: &[(usize, usize)] = &[(0, 1), (0, 2), (1, 2)];

/// Two hosts; their roles change.
pub fn two_hosts() -> Vec<Cluster> {
    vec![
        Cluster {
            name: "two hosts: takeover, loss",
            takeovers: 1,
            losses: 1,
            writes: [2, 1, 0],
            ..BASE
        },
        Cluster {
            name: "two hosts: logged, takeover, crash",
            mode: Mode::Logged,
            takeovers: 1,
            crashes: 1,
            writes: [2, 1, 0],
            ..BASE
        },
        Cluster {
            name: "two hosts: two links",
            links: &[(0, 1), (0, 1)],
            losses: 1,
            writes: [1, 0, 0],
            ..BASE
        },
    ]
}

/// The secondary's log fails under a session.
pub fn failed_secondary() -> Cluster {
    Cluster {
        name: "two hosts: the secondary's log fails",
        log_errors: 1,
        ..BASE
    }
}

/// Only the wire between a and b is cut, b takes over; c has a link to each.
pub fn two_primaries() -> Cluster {
    Cluster {
        name: "three hosts: a-b is cut, b takes over",
        hosts: 3,
        links: TRIANGLE,
        mode: Mode::Async,
        takeovers: 1,
        cuts: &[0],
        writes: [1, 1, 0],
        ..BASE
    }
}

/// The same with a power cut of one of them.
pub fn two_primaries_and_a_crash() -> Cluster {
    Cluster {
        name: "three hosts: a-b is cut, b takes over, a crash",
        crashes: 1,
        ..two_primaries()
    }
}
