// SPDX-License-Identifier: GPL-2.0

//! Clocks and sleeping. The pure core never reads a clock: it is handed these numbers.

use crate::bindings as raw;
use kernel::{bindings, prelude::*};

/// Nanoseconds since boot without suspend. Never goes back. Any context.
pub fn monotonic_ns() -> u64 {
    // SAFETY: No requirements.
    unsafe { raw::ktime_get_ns() }
}

/// Nanoseconds since 1970 by the wall clock; may jump. Any context.
pub fn wall_ns() -> u64 {
    // SAFETY: No requirements.
    unsafe { raw::ktime_get_real_ns() }
}

/// Sleeps for `ms` milliseconds, less if the calling kthread is asked to stop. Does not count as
/// load or as a hung task. Process context.
pub fn sleep_ms(ms: u32) {
    let end = monotonic_ns().saturating_add(u64::from(ms).saturating_mul(1_000_000));
    loop {
        let now = monotonic_ns();
        if now >= end || crate::kthread::should_stop() {
            return;
        }
        let left = u32::try_from(end.saturating_sub(now).div_ceil(1_000_000)).unwrap_or(u32::MAX);
        // SAFETY: No requirements.
        let jiffies = unsafe { raw::msecs_to_jiffies(left) };
        // A stop wakes the task; what else wakes it early makes the loop go round.
        // SAFETY: Process context, as this function demands.
        unsafe {
            bindings::schedule_timeout_idle(c_long::try_from(jiffies).unwrap_or(c_long::MAX))
        };
    }
}

#[kunit_tests(replicate_linux_clock)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_while_sleeping() {
        let start = monotonic_ns();
        sleep_ms(2);
        assert!(monotonic_ns() - start >= 2_000_000);
        // 2020-01-01: the wall clock was set.
        assert!(wall_ns() > 0);
    }
}
