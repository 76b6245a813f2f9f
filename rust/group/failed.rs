// SPDX-License-Identifier: GPL-2.0

//! Data devices that fail.
//!
//! What was written since the last good flush may be gone, on this volume and on those that share a disk with it
//! ([`Node::volume_failed`](replicate_core::node::Node::volume_failed); rule `DeviceFailurePins`, and the scenario
//! `operations.flush_fails_and_the_cache_is_lost`). The volume takes no more I/O. When its table is loaded again it is
//! brought up from the log ([`crate::applier::replay`]), as the others are at once; without a ring, by adding the group
//! again.
//!
//! Called by the applier and by suspend, process context. Locks: the order lock, for the node's event alone.

use super::Group;
use crate::{
    event::{self, Code, Severity},
    reason::Reason,
    refuse::Text,
    volume::Volume,
};
use kernel::prelude::*;
use replicate_core::node::volumes::State;

impl Group {
    /// A data device failed: the volume takes no more I/O until it is activated again. May sleep.
    pub(crate) fn fail_volume(&self, volume: &Volume, what: &str, why: &str) {
        {
            let mut inner = self.inner.lock();
            // First of all: no checkpoint may believe a flush that comes after this.
            match volume.id() {
                Some(id) => inner.node.volume_failed(id),
                None => volume.set_state(State::Failed),
            }
            inner.show_states();
        }
        let repair = self.repair();
        self.say_failed(volume, format_args!("{what} failed ({why}); {repair}"));
        // Others may have to be replayed.
        self.apply_wake.notify();
    }

    /// Returns what heals a volume whose device failed.
    pub(crate) fn repair(&self) -> &'static str {
        match self.srl.ring_bytes() {
            Some(_) => "repair the device, then suspend and resume the volume: the log keeps what it lacks",
            None => "repair the device, then remove the group and add it again: the primary sends what it lacks",
        }
    }

    /// The log does not give back what the volume lacks. May sleep.
    pub(crate) fn fail_replay(&self, volume: &Volume, why: Error) {
        self.inner.lock().show_states();
        let why = why.to_errno();
        self.say_failed(
            volume,
            format_args!("the log cannot be read for its replay (error {why}); repair the SRL's device, then suspend and resume the volume"),
        );
    }

    fn say_failed(&self, volume: &Volume, what: core::fmt::Arguments<'_>) {
        let text = Text::new(format_args!(
            "data device {} of volume {}/{}: {what}",
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
