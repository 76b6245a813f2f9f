// SPDX-License-Identifier: GPL-2.0

//! A write between its two halves: the ranges are in, the payload may still be moved.

use super::{queue::CompletionQueue, unit::IoUnit, Flags};
use crate::bdev::BlockDevice;
use kernel::{bindings, prelude::*, sync::Arc};

/// A unit with the ranges that it will write.
pub struct Loaded<T: Send + 'static> {
    unit: IoUnit<T>,
    ready: Result,
}

impl<T: Send + 'static> Loaded<T> {
    pub(super) fn new(unit: IoUnit<T>, ready: Result) -> Self {
        Self { unit, ready }
    }

    /// The second half of [`IoUnit::write`], on the device that it was loaded for.
    pub fn write(
        mut self,
        dev: &Arc<BlockDevice>,
        sector: u64,
        flags: Flags,
        tag: u64,
        keep: T,
        queue: &CompletionQueue<T>,
    ) {
        let opf = bindings::req_op_REQ_OP_WRITE | flags.bits();
        let inner = self.unit.inner();
        let ready = self
            .ready
            .and_then(|()| inner.prepare_data(dev, opf, sector));
        self.unit.submit(dev, ready, tag, keep, queue);
    }
}
