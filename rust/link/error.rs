// SPDX-License-Identifier: GPL-2.0

//! How an attempt to have a session ends: always in one of these, with the reason that a user reads.

use crate::{reason::Reason, refuse::Refusal};
use core::fmt;
use kernel::prelude::*;
use replicate_core::{
    group::Name,
    session::{
        meet::{VolumeFault, Why},
        state::Event,
    },
    wire::{self, Code, WireError},
};
use replicate_linux::errno::{
    ECONNABORTED, ECONNREFUSED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH,
    ENOTCONN, ESHUTDOWN, ETIMEDOUT,
};

/// The end of an attempt or a session.
pub(crate) struct SessionError {
    /// What the state machine is told; `None`: nothing happened (the link was told to stop, or to begin anew).
    pub(crate) event: Option<Event>,
    pub(crate) reason: Reason,
    /// What the peer is told before the connection closes, if it stands.
    pub(crate) tell: Option<Code>,
    pub(crate) refusal: Refusal,
}

impl SessionError {
    /// The connection was lost, or could not be had: tried again soon.
    pub(crate) fn lost(reason: Reason, text: fmt::Arguments<'_>) -> SessionError {
        SessionError {
            event: Some(Event::Lost),
            reason,
            tell: None,
            refusal: Refusal::new(ECONNRESET, text),
        }
    }

    /// The connection is closed by us, who tell the peer why.
    pub(crate) fn closed(reason: Reason, code: Code, text: fmt::Arguments<'_>) -> SessionError {
        SessionError {
            tell: Some(code),
            ..SessionError::lost(reason, text)
        }
    }

    /// This host refuses the peer.
    pub(crate) fn refused(reason: Reason, code: Code, text: fmt::Arguments<'_>) -> SessionError {
        SessionError {
            event: Some(Event::Refused),
            tell: Some(code),
            ..SessionError::lost(reason, text)
        }
    }

    /// Only a sync helps.
    pub(crate) fn needs_sync(reason: Reason, text: fmt::Arguments<'_>) -> SessionError {
        let code = if reason == Reason::NeverSynced {
            Code::Inconsistent
        } else {
            Code::NeedsSync
        };
        SessionError {
            event: Some(Event::Overflowed),
            tell: Some(code),
            ..SessionError::lost(reason, text)
        }
    }

    /// The thread was told to stop, to disconnect or to begin anew.
    pub(crate) fn asked(code: Code, text: fmt::Arguments<'_>) -> SessionError {
        SessionError {
            event: None,
            tell: Some(code),
            ..SessionError::lost(Reason::Admin, text)
        }
    }

    /// The peer refused, or said goodbye.
    pub(crate) fn by_peer(r: &wire::Refusal<'_>, goodbye: bool) -> SessionError {
        let event = match r.code {
            Code::NeedsSync | Code::Inconsistent => Event::Overflowed,
            _ if goodbye => Event::Lost,
            Code::NotReady | Code::Busy | Code::Stopping | Code::TakeOver | Code::Disconnected => {
                Event::Lost
            }
            _ => Event::Refused,
        };
        SessionError {
            event: Some(event),
            tell: None,
            ..SessionError::lost(reason_of(r.code), format_args!("the peer says: {}", r.text))
        }
    }

    /// The socket failed.
    pub(crate) fn io(e: Error) -> SessionError {
        let reason = if e == ETIMEDOUT {
            Reason::PeerTimeout
        } else {
            Reason::Reset
        };
        SessionError::lost(reason, format_args!("{}; trying again", what(e)))
    }

    /// Whether a message did not match its own checksum (a payload that does not ends no session).
    pub(crate) fn is_broken_message(&self) -> bool {
        self.reason == Reason::Integrity && self.tell == Some(Code::Protocol)
    }

    /// The peer's bytes make no sense.
    pub(crate) fn wire(e: WireError) -> SessionError {
        let reason = match e {
            WireError::HeaderCrc | WireError::ControlCrc => Reason::Integrity,
            _ => Reason::Protocol,
        };
        SessionError::closed(
            reason,
            Code::Protocol,
            format_args!("connection dropped: {e}"),
        )
    }

    /// Memory is short.
    pub(crate) fn no_memory() -> SessionError {
        SessionError::closed(
            Reason::NoMemory,
            Code::NoMemory,
            format_args!("memory is short; trying again"),
        )
    }

    /// This host's own log or memory failed in a way that says it all.
    pub(crate) fn own(reason: Reason, refusal: Refusal) -> SessionError {
        SessionError {
            event: Some(Event::Lost),
            reason,
            tell: Some(Code::Failed),
            refusal,
        }
    }
}

/// What a socket error means to a user.
pub(crate) fn what(e: Error) -> &'static str {
    if e == ECONNREFUSED {
        "connection refused: nobody listens there, is the link added on the peer?"
    } else if e == ETIMEDOUT {
        "no answer in time"
    } else if e == EHOSTUNREACH || e == ENETUNREACH || e == EHOSTDOWN || e == ENETDOWN {
        "no route to the peer"
    } else if e == ESHUTDOWN {
        "the peer closed the connection"
    } else if e == ECONNRESET || e == ECONNABORTED || e == ENOTCONN {
        "the connection broke"
    } else {
        "the connection failed"
    }
}

/// The reason that goes with a code of the wire, when the peer names it.
fn reason_of(code: Code) -> Reason {
    match code {
        Code::WrongSecret => Reason::Auth,
        Code::UnknownLink => Reason::UnknownLink,
        Code::Version => Reason::Version,
        Code::Features => Reason::Feature,
        Code::OtherGroup => Reason::GroupMismatch,
        Code::Role => Reason::RoleConflict,
        Code::Forked => Reason::Forked,
        Code::PeerAhead => Reason::PeerAhead,
        Code::NeedsSync => Reason::LogOverrun,
        Code::Inconsistent => Reason::NeverSynced,
        Code::Chain => Reason::Chain,
        Code::VolumeMissing => Reason::VolumeMissing,
        Code::VolumeSize => Reason::VolumeTooSmall,
        Code::VolumeBlock => Reason::BlockSize,
        Code::NotReady => Reason::WaitingVolumes,
        Code::Stopping | Code::Disconnected => Reason::Stopping,
        Code::TakeOver => Reason::Takeover,
        Code::SameHost
        | Code::OtherHost
        | Code::Busy
        | Code::Protocol
        | Code::Corrupt
        | Code::Failed
        | Code::NoMemory
        | Code::Other(_) => Reason::PeerRefused,
    }
}

/// A verdict of the handshake that is no session.
pub(crate) fn verdict(why: Why, sync: bool) -> SessionError {
    match why {
        Why::Empty => SessionError::needs_sync(
            Reason::NeverSynced,
            format_args!("the secondary has never been synchronised: use 'dmrepl sync --full' or, for volumes known to be equal, '--assume-clean' on the primary"),
        ),
        Why::Inconsistent => SessionError::needs_sync(
            Reason::NeverSynced,
            format_args!("the secondary is inconsistent, a synchronisation did not end: use 'dmrepl sync --full' on the primary"),
        ),
        Why::Folded => SessionError::needs_sync(
            Reason::LogOverrun,
            format_args!("what the secondary holds ends before the oldest epoch that the primary's history still names: use 'dmrepl sync --full' on the primary"),
        ),
        Why::Trimmed => SessionError::needs_sync(
            Reason::LogOverrun,
            format_args!("the primary's log no longer holds what the secondary needs: use 'dmrepl sync --full' on the primary"),
        ),
        Why::Forked => SessionError::refused(
            Reason::Forked,
            Code::Forked,
            format_args!("the histories have forked: both hosts have written since they parted; give one side up with 'dmrepl sync --full --force' on the other{}", forced(sync)),
        ),
        Why::Unrelated => SessionError::refused(
            Reason::Forked,
            Code::Forked,
            format_args!("the secondary holds another history, no epoch is common; 'dmrepl sync --full --force' on the primary overwrites it{}", forced(sync)),
        ),
        Why::PeerAhead => SessionError::refused(
            Reason::PeerAhead,
            Code::PeerAhead,
            format_args!("the secondary has applied records that the primary has lost: take over there, or 'dmrepl sync --full --force' on the primary{}", forced(sync)),
        ),
        Why::ChainDiffers => SessionError::refused(
            Reason::Chain,
            Code::Chain,
            format_args!("the two logs differ at the same position although their lineages agree; check the devices, then 'dmrepl sync --full --force' on the primary{}", forced(sync)),
        ),
    }
}

fn forced(sync: bool) -> &'static str {
    if sync {
        " (the sync that was asked for lacks --force)"
    } else {
        ""
    }
}

/// A volume of the primary that is not on the secondary, or cannot hold there what is written here.
pub(super) fn volume(name: &Name, fault: VolumeFault) -> SessionError {
    let name = name.as_str();
    match fault {
        VolumeFault::Missing => SessionError::refused(
            Reason::VolumeMissing,
            Code::VolumeMissing,
            format_args!("volume {name} is not active on the secondary: create it there with dmsetup, under the same name"),
        ),
        VolumeFault::TooSmall { theirs, ours } => SessionError::refused(
            Reason::VolumeTooSmall,
            Code::VolumeSize,
            format_args!("volume {name} has {theirs} sectors on the secondary, the primary's has {ours}: use a larger data device there"),
        ),
        VolumeFault::BlockTooLarge { theirs, ours } => SessionError::refused(
            Reason::BlockSize,
            Code::VolumeBlock,
            format_args!("volume {name} has logical blocks of {theirs} bytes on the secondary, {ours} on the primary: create the primary's with 'block_size {theirs}'"),
        ),
    }
}
