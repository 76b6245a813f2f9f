// SPDX-License-Identifier: GPL-2.0

//! A buffer that several hold: log write, sender, applier, overlaid reads.
//!
//! The memory of the reference count is part of the pool's reserve, as the pages are: where there are pages for a
//! buffer there is one of these, so sharing a buffer cannot fail.

use super::PageBuf;
use core::{mem::ManuallyDrop, ops::Deref, pin::Pin};
use kernel::sync::{Arc, UniqueArc};

/// Memory for a shared buffer, empty.
pub(super) type Seat = UniqueArc<Option<PageBuf>>;

/// Makes a seat.
pub(super) fn new_seat(flags: kernel::alloc::Flags) -> Option<Seat> {
    UniqueArc::new(None, flags).ok()
}

/// A [`PageBuf`] that is only read from now on, by any number of users. The last one gives pages and seat back.
///
/// # Invariants
///
/// The option is `Some` until the last `SharedBuf` of it is dropped.
pub struct SharedBuf(ManuallyDrop<Arc<Option<PageBuf>>>);

impl SharedBuf {
    pub(super) fn new(mut seat: Seat, buf: PageBuf) -> Self {
        *seat = Some(buf);
        // INVARIANT: Filled above.
        Self(ManuallyDrop::new(Arc::from(seat)))
    }
}

impl Clone for SharedBuf {
    fn clone(&self) -> Self {
        // INVARIANT: The same object.
        Self(ManuallyDrop::new(Arc::clone(&self.0)))
    }
}

impl Deref for SharedBuf {
    type Target = PageBuf;

    fn deref(&self) -> &PageBuf {
        match self.0.as_ref() {
            Some(buf) => buf,
            // SAFETY: By the type invariant; `self` is one that is not dropped yet.
            None => unsafe { core::hint::unreachable_unchecked() },
        }
    }
}

impl Drop for SharedBuf {
    fn drop(&mut self) {
        // SAFETY: Taken once, here.
        let shared = unsafe { ManuallyDrop::take(&mut self.0) };
        if let Some(seat) = Arc::into_unique_or_drop(shared) {
            let mut seat = Pin::into_inner(seat);
            if let Some(buf) = seat.take() {
                buf.give_back(seat);
            }
        }
    }
}
