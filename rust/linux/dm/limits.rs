// SPDX-License-Identifier: GPL-2.0

//! The limits that a device-mapper device shows to those above it.

use crate::bindings as raw;
use kernel::bindings;

/// Limits as stacked from the data devices, to be adjusted in `io_hints`.
pub struct Limits<'a>(&'a mut bindings::queue_limits);

impl<'a> Limits<'a> {
    pub(super) fn new(limits: &'a mut bindings::queue_limits) -> Self {
        Self(limits)
    }

    /// Logical block size in bytes.
    pub fn logical_block_size(&self) -> u32 {
        self.0.logical_block_size
    }

    /// Raises the block sizes to at least `bytes`.
    pub fn raise_block_size(&mut self, bytes: u32) {
        self.0.logical_block_size = self.0.logical_block_size.max(bytes);
        self.0.physical_block_size = self.0.physical_block_size.max(bytes);
        self.0.io_min = self.0.io_min.max(bytes);
    }

    /// The most sectors in one write-zeroes; 0 for none.
    pub fn limit_write_zeroes_sectors(&mut self, sectors: u32) {
        self.0.max_write_zeroes_sectors = self.0.max_write_zeroes_sectors.min(sectors);
        self.0.max_hw_wzeroes_unmap_sectors = self.0.max_hw_wzeroes_unmap_sectors.min(sectors);
    }

    /// The most sectors in one discard; 0 for none.
    pub fn limit_discard_sectors(&mut self, sectors: u32) {
        self.0.max_hw_discard_sectors = self.0.max_hw_discard_sectors.min(sectors);
        self.0.max_discard_sectors = self.0.max_discard_sectors.min(sectors);
    }

    /// Does not offer polled I/O, which asks the wrong device for completions.
    pub fn no_poll(&mut self) {
        self.0.features &= !raw::BLK_FEATURE_POLL;
    }

    /// Does not promise that a write is never torn.
    pub fn no_atomic_writes(&mut self) {
        self.0.features &= !raw::BLK_FEATURE_ATOMIC_WRITES;
        self.0.atomic_write_hw_max = 0;
        self.0.atomic_write_hw_unit_min = 0;
        self.0.atomic_write_hw_unit_max = 0;
        self.0.atomic_write_hw_boundary = 0;
    }
}
