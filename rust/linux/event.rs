// SPDX-License-Identifier: GPL-2.0

//! A wake-up call that anyone may make, from any context, and that process context waits for.
//!
//! [`Event::notify`] sets a sticky flag and wakes all who wait, so a call is never lost. Waits of
//! kthreads are `TASK_IDLE`: they count neither as load nor as a hung task, and end early when the
//! kthread is asked to stop (not those named `..._always`). What a user's process waits for is
//! `TASK_UNINTERRUPTIBLE`, so that it is seen when it takes too long, or killable.

use crate::{bindings as raw, clock, kthread};
use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc,
    },
    types::Opaque,
};

/// No time limit.
pub const FOREVER: u32 = u32::MAX;

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// Notified, or the condition holds.
    Signalled,
    /// The time is up.
    TimedOut,
    /// The calling kthread was asked to stop.
    Stop,
}

/// See the [module documentation](self).
#[pin_data]
pub struct Event {
    signalled: Atomic<i32>,
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue head is made to be shared; it has its own lock.
unsafe impl Send for Event {}
// SAFETY: As above.
unsafe impl Sync for Event {}

impl Event {
    /// Makes an event. Process context.
    pub fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                signalled: Atomic::new(0),
                head <- Opaque::ffi_init(|slot: *mut bindings::wait_queue_head| {
                    // SAFETY: `slot` is valid memory for a wait queue head, and pinned.
                    unsafe { raw::init_waitqueue_head(slot) }
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// Sets the flag and wakes everyone who waits. Any context, hard interrupts included.
    pub fn notify(&self) {
        // The first of several calls in a row does the work; the flag is cleared before the
        // waiter looks at what it waits for.
        self.signalled.xchg(1, Full);
        // SAFETY: `head` is initialised; this has the barrier that pairs with the waiter's.
        if unsafe { raw::wq_has_sleeper(self.head.get()) } {
            // SAFETY: `head` is initialised. 0 means: wake all.
            unsafe {
                bindings::__wake_up(
                    self.head.get(),
                    raw::TASK_STATE_NORMAL,
                    0,
                    core::ptr::null_mut(),
                )
            };
        }
    }

    /// Clears the flag, and says whether it was set.
    pub fn take(&self) -> bool {
        self.signalled.load(Relaxed) != 0 && self.signalled.xchg(0, Full) != 0
    }

    /// Waits until someone has called [`Event::notify`] since the last wait returned, and clears
    /// that. For one waiter. Process context.
    pub fn wait(&self, timeout_ms: u32) -> Wake {
        self.wait_until(timeout_ms, || self.take())
    }

    /// Waits until `cond` holds; it is asked again after every notification and must neither sleep
    /// nor wait on this event. Any number of waiters. Process context.
    pub fn wait_until(&self, timeout_ms: u32, cond: impl FnMut() -> bool) -> Wake {
        self.wait_in(raw::TASK_STATE_IDLE, timeout_ms, true, cond)
    }

    /// As [`Event::wait_until`], but goes on waiting when the kthread is asked to stop: for what
    /// must end first, such as I/O in flight.
    pub fn wait_until_always(&self, timeout_ms: u32, cond: impl FnMut() -> bool) -> Wake {
        self.wait_in(raw::TASK_STATE_IDLE, timeout_ms, false, cond)
    }

    /// As [`Event::wait_until`], for callers from user space: ends with `EINTR` if the process is
    /// being killed.
    pub fn wait_until_killable(
        &self,
        timeout_ms: u32,
        mut cond: impl FnMut() -> bool,
    ) -> Result<Wake> {
        let mut killed = false;
        let wake = self.wait_in(raw::TASK_STATE_KILLABLE, timeout_ms, true, || {
            // SAFETY: No requirements.
            killed = unsafe { raw::fatal_signal_pending() };
            killed || cond()
        });
        if killed {
            return Err(EINTR);
        }
        Ok(wake)
    }

    fn wait_in(
        &self,
        state: u32,
        timeout_ms: u32,
        stoppable: bool,
        mut cond: impl FnMut() -> bool,
    ) -> Wake {
        // SAFETY: A debugging aid without requirements.
        unsafe { raw::might_sleep() };
        let state = if state == raw::TASK_STATE_IDLE && !kthread::is_kthread() {
            raw::TASK_STATE_UNINTERRUPTIBLE
        } else {
            state
        };
        let end =
            clock::monotonic_ns().saturating_add(u64::from(timeout_ms).saturating_mul(1_000_000));
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: `entry` is valid memory; it does not move and is taken off the queue before it
        // goes out of scope.
        unsafe { bindings::init_wait_entry(entry.get(), 0) };
        let wake = loop {
            // SAFETY: Both are initialised. From here on the task is not running for the
            // scheduler: nothing up to `schedule_timeout()` sleeps.
            unsafe {
                bindings::prepare_to_wait_event(self.head.get(), entry.get(), state as c_int)
            };
            if cond() {
                break Wake::Signalled;
            }
            if stoppable && kthread::should_stop() {
                break Wake::Stop;
            }
            let left = if timeout_ms == FOREVER {
                c_long::MAX
            } else {
                let now = clock::monotonic_ns();
                if now >= end {
                    break Wake::TimedOut;
                }
                let ms = end.saturating_sub(now).div_ceil(1_000_000);
                // SAFETY: No requirements.
                let j = unsafe { raw::msecs_to_jiffies(u32::try_from(ms).unwrap_or(FOREVER - 1)) };
                c_long::try_from(j).unwrap_or(c_long::MAX)
            };
            // SAFETY: Process context; the task is queued, so a notification wakes it.
            unsafe { bindings::schedule_timeout(left) };
        };
        // SAFETY: `entry` was initialised, and is queued on `head` if at all.
        unsafe { bindings::finish_wait(self.head.get(), entry.get()) };
        wake
    }
}

#[kunit_tests(replicate_linux_event)]
mod tests {
    use super::*;
    use crate::kthread::Thread;

    #[test]
    fn a_call_before_the_wait_is_not_lost() -> Result {
        let event = Event::new()?;
        event.notify();
        event.notify();
        assert!(event.wait(FOREVER) == Wake::Signalled);
        assert!(event.wait(1) == Wake::TimedOut);
        Ok(())
    }

    #[test]
    fn a_thread_wakes_the_waiter() -> Result {
        let event = Event::new()?;
        let from = event.clone();
        let thread = Thread::spawn(c"kunit-notify", move |_| from.notify())?;
        assert!(event.wait(60_000) == Wake::Signalled);
        thread.stop();
        Ok(())
    }

    #[test]
    fn a_condition_is_asked_after_each_call() -> Result {
        let event = Event::new()?;
        let count = Arc::new(Atomic::<i32>::new(0), GFP_KERNEL)?;
        let (e, c) = (event.clone(), count.clone());
        let thread = Thread::spawn(c"kunit-count", move |_| {
            for _ in 0..5 {
                c.fetch_add(1, Full);
                e.notify();
            }
        })?;
        assert!(event.wait_until(60_000, || count.load(Relaxed) == 5) == Wake::Signalled);
        thread.stop();
        Ok(())
    }
}
