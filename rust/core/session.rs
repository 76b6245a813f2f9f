// SPDX-License-Identifier: GPL-2.0

//! A link: states, handshake, what to send next, region copies.

pub mod accept;
pub mod credit;
pub mod gap;
pub mod meet;
pub mod primary;
pub mod progress;
pub mod receiver;
pub mod resync;
pub mod secondary;
pub mod sender;
pub mod state;
pub mod syncs;

use core::num::NonZeroU64;

/// Number of a session: drawn at random by its primary, the same on both sides. On the wire 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// The session that the wire calls `n`; `None` for 0.
    #[must_use]
    pub const fn from_wire(n: u64) -> Option<SessionId> {
        match NonZeroU64::new(n) {
            Some(n) => Some(SessionId(n)),
            None => None,
        }
    }

    /// What the wire says for it.
    #[must_use]
    pub const fn to_wire(session: Option<SessionId>) -> u64 {
        match session {
            Some(SessionId(n)) => n.get(),
            None => 0,
        }
    }
}

/// Whether a message that says session `theirs` belongs to the session `mine`.
///
/// Without this rule an acknowledgement that was under way when a peer restarted would release writers
/// and free log space for records that the peer has lost with its memory (H13).
#[inline]
#[must_use]
pub fn same_session(mine: Option<SessionId>, theirs: u64) -> bool {
    SessionId::to_wire(mine) == theirs
}
