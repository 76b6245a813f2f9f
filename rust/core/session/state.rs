// SPDX-License-Identifier: GPL-2.0

//! States of a link: one pure function from a state and an event to a state and what must be done.

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

/// What the caller must do after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actions {
    /// Close the connection, if one stands.
    pub close: bool,
    /// Stop gating writers on this link: send the event first, then release.
    pub ungate: bool,
    /// Multicast an event: the state changed in a way that a user wants to know.
    pub tell: bool,
    /// Try to connect again, after a back-off.
    pub retry: bool,
}

/// One step.
#[must_use]
pub fn step(state: State, event: Event) -> (State, Actions) {
    let live = matches!(
        state,
        State::Handshake | State::CatchingUp | State::Streaming | State::Syncing
    );
    let next = match (event, state) {
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
    };
    let was_flowing = matches!(state, State::CatchingUp | State::Streaming | State::Syncing);
    let flows = matches!(next, State::CatchingUp | State::Streaming | State::Syncing);
    let actions = Actions {
        close: live && !flows && next != State::Handshake,
        ungate: was_flowing && !flows,
        tell: next != state
            && !(next == State::Handshake
                || state == State::Handshake && !flows && next == State::Connecting),
        retry: matches!(next, State::Connecting | State::Refused | State::NeedsSync)
            && matches!(event, Event::Lost | Event::Refused | Event::Overflowed),
    };
    (next, actions)
}

/// Milliseconds to wait before attempt `n` (from 0) to connect: doubles from 100 ms to 5 s.
#[must_use]
pub fn backoff_ms(n: u32) -> u32 {
    let shift = n.min(6);
    (100u32 << shift).min(5000)
}

impl State {
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
    fn a_lost_stream_ungates_writers_and_is_told() {
        let (s, a) = step(State::Streaming, Event::Lost);
        assert_eq!(s, State::Connecting);
        assert!(a.ungate);
        assert!(a.tell);
        assert!(a.retry);
    }

    #[test]
    fn a_disabled_link_stays_idle_until_it_is_enabled() {
        for e in [
            Event::Lost,
            Event::Connected,
            Event::Refused,
            Event::Overflowed,
        ] {
            assert_eq!(step(State::Idle, e).0, State::Idle);
        }
        assert_eq!(step(State::Idle, Event::Enable).0, State::Connecting);
    }
}
