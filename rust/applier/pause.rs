// SPDX-License-Identifier: GPL-2.0

//! Pausing the applier: for commands and handshakes that change the log under its feet.
//!
//! [`Group::pause_applier`] returns when no round, copy or checkpoint is in progress and no log write or flush
//! is in flight, and keeps the applier still until the guard is dropped. Log writes may start again meanwhile
//! only if records arrive; the callers (handshake, takeover) are those who let records arrive.
//!
//! Process context, sleeps; no lock may be held. Guards do not nest.

use crate::group::Group;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex, MutexGuard},
};
use replicate_linux::event::Event;

/// While alive the applier stands still: it writes no superblock.
pub(crate) type Still<'a> = MutexGuard<'a, ()>;

/// Hand-over between the applier and those who pause it: whoever holds the mutex works.
#[pin_data]
pub(crate) struct Pause {
    #[pin]
    turn: Mutex<()>,
}

impl Pause {
    /// An applier that runs.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { turn <- new_mutex!(()) })
    }

    /// Waits for the applier's turn to end.
    pub(crate) fn hold(&self) -> Still<'_> {
        self.turn.lock()
    }
}

/// While alive the applier stands still.
pub(crate) struct PauseGuard<'a> {
    _turn: Still<'a>,
}

impl Group {
    /// Stops the applier between two rounds and waits until the log is idle. See the module.
    pub(crate) fn pause_applier(&self) -> PauseGuard<'_> {
        let turn = self.pause.hold();
        let idle = || {
            let inner = self.inner.lock();
            match &inner.node.log {
                replicate_core::node::Log::Ring(w) => w.is_idle() || w.has_failed(),
                replicate_core::node::Log::NoRing(_) => true,
            }
        };
        let moved: &Arc<Event> = &self.moved;
        while !idle() {
            moved.wait_until_always(10, idle);
        }
        PauseGuard { _turn: turn }
    }
}
