// SPDX-License-Identifier: GPL-2.0

//! Allocation scopes: what memory allocation may do to make room.
//!
//! Process context. Whoever allocates on the I/O path stands in a [`NoioScope`], or reclaim could
//! wait for the very I/O that waits for the memory.

use crate::bindings as raw;
use kernel::{prelude::*, types::NotThreadSafe};

/// While alive, allocations of the current task behave as if `GFP_NOIO` was passed. Scopes nest.
///
/// # Invariants
///
/// `flags` was returned by `memalloc_noio_save()` on this task.
pub struct NoioScope {
    flags: c_uint,
    _not_send: NotThreadSafe,
}

impl NoioScope {
    /// Enters the scope.
    #[must_use]
    pub fn enter() -> Self {
        // INVARIANT: The flags come from `memalloc_noio_save()`, and `Self` is not `Send`.
        Self {
            // SAFETY: No requirements.
            flags: unsafe { raw::memalloc_noio_save() },
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for NoioScope {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, `flags` were saved on this task.
        unsafe { raw::memalloc_noio_restore(self.flags) };
    }
}

/// While alive, allocations of the current task never look for memory to free, and may use the system's last
/// pages. For short stretches on the way of what frees memory. Scopes nest.
///
/// # Invariants
///
/// `flags` was returned by `memalloc_noreclaim_save()` on this task.
pub(crate) struct NoreclaimScope {
    flags: c_uint,
    _not_send: NotThreadSafe,
}

impl NoreclaimScope {
    /// Enters the scope.
    #[must_use]
    pub(crate) fn enter() -> Self {
        // INVARIANT: The flags come from `memalloc_noreclaim_save()`, and `Self` is not `Send`.
        Self {
            // SAFETY: No requirements.
            flags: unsafe { raw::memalloc_noreclaim_save() },
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for NoreclaimScope {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, `flags` were saved on this task.
        unsafe { raw::memalloc_noreclaim_restore(self.flags) };
    }
}

/// While alive, lockdep takes the current task for one that memory reclaim waits for: it reports a lock that is taken
/// here, and elsewhere held by somebody who allocates and so may wait for reclaim. Costs nothing without lockdep.
/// They do not nest.
pub struct ReclaimWaits {
    _not_send: NotThreadSafe,
}

impl ReclaimWaits {
    /// Enters the scope. Process context.
    #[must_use]
    pub fn enter() -> Self {
        // SAFETY: No requirements; ended by `drop()` on this task, as `Self` is not `Send`.
        unsafe { raw::reclaim_waits_begin() };
        Self {
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for ReclaimWaits {
    fn drop(&mut self) {
        // SAFETY: Begun by `enter()` on this task.
        unsafe { raw::reclaim_waits_end() };
    }
}

#[kunit_tests(replicate_linux_gfp)]
mod tests {
    use super::*;

    #[test]
    fn scopes_nest_and_are_left() {
        let outer = NoioScope::enter();
        // What C returns is what it changed: something the first time, nothing the second.
        assert!(outer.flags != 0);
        let inner = NoioScope::enter();
        assert_eq!(inner.flags, 0);
        drop(inner);
        drop(outer);
        let again = NoioScope::enter();
        assert!(again.flags != 0);
    }
}
