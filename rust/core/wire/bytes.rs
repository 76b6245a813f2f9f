// SPDX-License-Identifier: GPL-2.0

//! Small helpers of the codec: checks that say what is wrong, writing that cannot overrun.

use super::WireError;

/// `Ok` when the statement holds, else an impossible field.
pub(super) fn must(holds: bool, what: &'static str) -> Result<(), WireError> {
    if holds {
        Ok(())
    } else {
        Err(WireError::Field(what))
    }
}

/// Whether all of these are zero.
pub(super) fn zero(reserved: &[u8]) -> Result<(), WireError> {
    if reserved.iter().all(|b| *b == 0) {
        Ok(())
    } else {
        Err(WireError::Reserved)
    }
}

/// A buffer that is filled from its start.
pub(super) struct Out<'a> {
    rest: &'a mut [u8],
    written: usize,
}

impl<'a> Out<'a> {
    pub(super) fn new(rest: &'a mut [u8]) -> Out<'a> {
        Out { rest, written: 0 }
    }

    /// Appends `bytes`.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let all = core::mem::take(&mut self.rest);
        let (place, rest) = all
            .split_at_mut_checked(bytes.len())
            .ok_or(WireError::NoRoom)?;
        place.copy_from_slice(bytes);
        self.rest = rest;
        self.written = self.written.saturating_add(bytes.len());
        Ok(())
    }

    /// How many bytes were appended.
    pub(super) fn written(&self) -> usize {
        self.written
    }
}
