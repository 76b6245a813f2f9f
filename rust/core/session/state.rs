// SPDX-License-Identifier: GPL-2.0

//! States of a link: one pure function from a state and an event to a state.

/// State of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Configured, and told to stay disconnected.
    #[default]
    Idle,
    /// No connection; trying, or listening.
    Connecting,
    /// Connected; proofs and positions are exchanged.
    Handshake,
    /// Records flow, but the peer has not acknowledged everything yet.
    CatchingUp,
    /// Records flow and the peer has been level with the head in this session.
    Streaming,
    /// A synchronisation runs; the replica is inconsistent until it ends.
    Syncing,
    /// The log no longer holds what the peer needs: a sync must be asked for.
    NeedsSync,
    /// The peer, or we, refused; the reason says why. Tried again slowly.
    Refused,
}

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// `link connect`, or added.
    Enable,
    /// `link disconnect`, or removed.
    Disable,
    /// A TCP connection stands.
    Connected,
    /// The handshake ended in a session; `sync`: it is one of a synchronisation.
    Welcomed {
        /// A synchronisation runs in this session.
        sync: bool,
    },
    /// The peer has acknowledged everything up to the head.
    Level,
    /// The synchronisation ended and is durable at the peer.
    Synced,
    /// The connection was lost, or timed out.
    Lost,
    /// One side refused.
    Refused,
    /// The handshake, or a full log, found that only a sync helps.
    Overflowed,
}

/// One step.
#[must_use]
pub fn step(state: State, event: Event) -> State {
    match (event, state) {
        (Event::Disable, _) => State::Idle,
        (_, State::Idle) => match event {
            Event::Enable => State::Connecting,
            Event::Overflowed
            | Event::Disable
            | Event::Connected
            | Event::Welcomed { .. }
            | Event::Level
            | Event::Synced
            | Event::Lost
            | Event::Refused => State::Idle,
        },
        (Event::Enable, State::Refused | State::NeedsSync) => State::Connecting,
        (Event::Enable, s) => s,
        (Event::Connected, State::Connecting | State::Refused | State::NeedsSync) => {
            State::Handshake
        }
        (Event::Connected, s) => s,
        (Event::Welcomed { sync: true }, State::Handshake) => State::Syncing,
        (Event::Welcomed { sync: false }, State::Handshake) => State::CatchingUp,
        (Event::Welcomed { .. }, s) => s,
        (Event::Level, State::CatchingUp) => State::Streaming,
        (Event::Level, s) => s,
        (Event::Synced, State::Syncing) => State::CatchingUp,
        (Event::Synced, s) => s,
        (Event::Lost, State::Refused) => State::Refused,
        (Event::Lost, State::NeedsSync) => State::NeedsSync,
        (Event::Lost, _) => State::Connecting,
        (Event::Refused, _) => State::Refused,
        (Event::Overflowed, _) => State::NeedsSync,
    }
}

/// Milliseconds to wait before attempt `n` (from 0) to connect: doubles from 100 ms to 5 s.
#[must_use]
pub fn backoff_ms(n: u32) -> u32 {
    let shift = n.min(6);
    (100u32 << shift).min(5000)
}

impl State {
    /// Whether a session stands.
    #[must_use]
    pub const fn flows(self) -> bool {
        matches!(self, State::CatchingUp | State::Streaming | State::Syncing)
    }

    /// Its name, as status and events print it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Connecting => "connecting",
            State::Handshake => "handshake",
            State::CatchingUp => "catching-up",
            State::Streaming => "streaming",
            State::Syncing => "syncing",
            State::NeedsSync => "needs-sync",
            State::Refused => "refused",
        }
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_link_state))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn a_lost_stream_is_tried_again() {
        let next = step(State::Streaming, Event::Lost);
        assert!(State::Streaming.flows() && !next.flows());
        assert_eq!(next, State::Connecting);
        // What was refused stays shown as refused.
        assert_eq!(step(State::Refused, Event::Lost), State::Refused);
    }

    #[test]
    fn a_disabled_link_stays_idle_until_it_is_enabled() {
        for e in [
            Event::Lost,
            Event::Connected,
            Event::Refused,
            Event::Overflowed,
        ] {
            assert_eq!(step(State::Idle, e), State::Idle);
        }
        assert_eq!(step(State::Idle, Event::Enable), State::Connecting);
    }
}
