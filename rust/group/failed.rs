// SPDX-License-Identifier: GPL-2.0

//! Data devices that fail.
//!
//! A write or flush that fails pins the checkpoint at the last good flush, because the device may have dropped what it
//! held, and a later flush that succeeds says nothing about that (P5; rule `DeviceFailurePins`, and the scenario
//! `operations.flush_fails_and_the_cache_is_lost`). The volume takes no more I/O. When its table is loaded again it is brought up to the others from the log
//! ([`crate::applier::replay`]); without a ring, by adding the group again.
//!
//! Called by the applier and by suspend, process context. Locks: the order lock, for the pin alone.

use super::Group;
use crate::{
    event::{self, Code, Severity},
    reason::Reason,
    refuse::Text,
    volume::{State, Volume},
};
use kernel::prelude::*;
use replicate_core::node::Log;

impl Group {
    /// A data device failed: the volume takes no more I/O until it is activated again. May sleep.
    pub(crate) fn fail_volume(&self, volume: &Volume, what: &str, why: &str) {
        let repair = {
            let mut inner = self.inner.lock();
            // With the pin first: no checkpoint may believe a flush that comes after this.
            inner.node.data_device_failed();
            volume.set_state(State::Failed);
            match inner.node.log {
                Log::Ring(_) => "the log keeps what it lacks; repair it, then reload its table",
                Log::NoRing(_) => "repair it, then remove the group and add it again: the primary sends what it lacks",
            }
        };
        let text = Text::new(format_args!(
            "data device {} of volume {}/{}: {what} failed ({why}); {repair}",
            volume.data.name(),
            self.name.as_str(),
            volume.name.as_str()
        ));
        pr_err!("{}\n", text.as_str());
        self.set_reason(Reason::DataFailed, text.as_str());
        event::volume(
            self,
            volume,
            Code::VolumeFailed,
            Severity::Critical,
            text.as_str(),
        );
        self.log_wake.notify();
        self.wake_links();
    }

    /// Makes what was written to a volume's data device durable. `false`: it failed, and the volume with it. May
    /// sleep.
    pub(crate) fn flush_volume(&self, volume: &Volume) -> bool {
        let flushed = volume.data.flush_sync().is_ok();
        if !flushed {
            self.fail_volume(volume, "flush", "I/O error");
        }
        flushed
    }
}
