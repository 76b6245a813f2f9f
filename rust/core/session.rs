// SPDX-License-Identifier: GPL-2.0

//! A link: states, handshake, what to send next, region copies.

pub mod credit;
pub mod gap;
pub mod meet;
pub mod resync;
pub mod sender;
pub mod state;

/// Whether a message of session `theirs` belongs to the session `mine`.
///
/// Without this rule an acknowledgement that was under way when a peer restarted would release writers
/// and free log space for records that the peer has lost with its memory (H13).
#[inline]
#[must_use]
pub fn same_session(mine: u64, theirs: u64) -> bool {
    mine == theirs
}
