// SPDX-License-Identifier: GPL-2.0

//! Kernel threads that run a closure, and are stopped and joined when dropped.
//!
//! Spawning and stopping: process context, may sleep. The closure must return soon after
//! [`should_stop`] becomes true; every wait of [`crate::event`] ends then.

use crate::{bindings as raw, gfp::NoioScope};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{bindings, error::from_err_ptr, prelude::*, types::NotThreadSafe};

/// Whether the calling kthread was asked to stop; false when called by anything else.
pub fn should_stop() -> bool {
    // SAFETY: No requirements.
    unsafe { raw::should_stop() }
}

/// Whether a kernel thread calls, and not a user's process in the kernel.
pub(crate) fn is_kthread() -> bool {
    // SAFETY: No requirements.
    unsafe { raw::is_kthread() }
}

/// Lets the thread ask whether it should stop.
pub struct StopToken {
    _not_send: NotThreadSafe,
}

impl StopToken {
    /// Whether this thread was asked to stop.
    pub fn should_stop(&self) -> bool {
        should_stop()
    }
}

/// What a thread runs. Typed, so that the C entry point knows what it was given.
struct Body<F> {
    /// Taken by the thread when it starts; still here if it was stopped before it ran.
    run: Option<F>,
    noio: bool,
}

/// A running kernel thread. Dropping it stops and joins it.
///
/// # Invariants
///
/// `task` is a kthread on which this holds a reference. `body` came from `KBox::into_raw` and may
/// be given to `free_body` once the thread has exited.
pub struct Thread {
    task: NonNull<bindings::task_struct>,
    body: NonNull<c_void>,
    free_body: unsafe fn(NonNull<c_void>),
    _owns: PhantomData<bindings::task_struct>,
}

// SAFETY: A task may be stopped from any other task. What `body` points at is `Send`.
unsafe impl Send for Thread {}
// SAFETY: There is no method that takes `&self` and changes anything.
unsafe impl Sync for Thread {}

impl Thread {
    /// Starts a thread that runs `f`. The first 15 bytes of `name` are what `ps` shows.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EINTR` if the caller is being killed.
    pub fn spawn<F>(name: &CStr, f: F) -> Result<Self>
    where
        F: FnOnce(&StopToken) + Send + 'static,
    {
        let thread = Self::make(name, f, false)?;
        thread.wake();
        Ok(thread)
    }

    /// As [`Thread::spawn`]; all allocations of the thread behave as `GFP_NOIO`.
    pub fn spawn_noio<F>(name: &CStr, f: F) -> Result<Self>
    where
        F: FnOnce(&StopToken) + Send + 'static,
    {
        let thread = Self::make_noio(name, f)?;
        thread.wake();
        Ok(thread)
    }

    /// As [`Thread::spawn_noio`], but the thread runs only after [`Thread::wake`]. Stopped before that, it never runs.
    pub fn make_noio<F>(name: &CStr, f: F) -> Result<Self>
    where
        F: FnOnce(&StopToken) + Send + 'static,
    {
        Self::make(name, f, true)
    }

    /// Lets a thread run that was only made. Does not sleep.
    pub fn wake(&self) {
        // SAFETY: By the type invariant there is a reference.
        unsafe { bindings::wake_up_process(self.task.as_ptr()) };
    }

    fn make<F>(name: &CStr, f: F, noio: bool) -> Result<Self>
    where
        F: FnOnce(&StopToken) + Send + 'static,
    {
        let body = Body { run: Some(f), noio };
        let body = KBox::into_raw(KBox::new(body, GFP_KERNEL)?);
        // SAFETY: `run::<F>` takes what `body` points at. The format takes one string.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(run::<F>),
                body.cast::<c_void>(),
                bindings::NUMA_NO_NODE,
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        });
        let task = match task {
            Ok(task) => task,
            Err(e) => {
                // SAFETY: From `into_raw` above, and there is no thread that would use it.
                drop(unsafe { KBox::from_raw(body) });
                return Err(e);
            }
        };
        // SAFETY: A new kthread is alive at least until it was woken.
        unsafe { raw::get_task(task) };
        // INVARIANT: The reference was taken, `body` comes from `into_raw`, `free::<F>` fits it.
        Ok(Self {
            // SAFETY: `from_err_ptr` gave a task; those are never null.
            task: unsafe { NonNull::new_unchecked(task) },
            // SAFETY: A box is never null.
            body: unsafe { NonNull::new_unchecked(body.cast::<c_void>()) },
            free_body: free::<F>,
            _owns: PhantomData,
        })
    }

    /// Asks the thread to stop, wakes it, and waits until it has returned. Same as dropping it.
    pub fn stop(self) {
        drop(self);
    }

    /// Whether this is the thread that calls.
    pub fn is_current(&self) -> bool {
        // SAFETY: No requirements.
        self.task.as_ptr() == unsafe { raw::current() }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if self.is_current() {
            // A thread cannot join itself. It goes on and ends by itself; `body` is leaked because
            // nobody can tell when it has returned.
            pr_warn!("a thread dropped its own handle, it is not joined\n");
            // SAFETY: By the type invariant there is a reference to give up.
            unsafe { raw::put_task(self.task.as_ptr()) };
            return;
        }
        // SAFETY: By the type invariant this is a kthread with a reference, which this call drops.
        unsafe { raw::kthread_stop_put(self.task.as_ptr()) };
        // SAFETY: The thread has exited, and `free_body` fits `body` by the type invariant.
        unsafe { (self.free_body)(self.body) };
    }
}

/// What the C side starts.
///
/// # Safety
///
/// `data` points at a `Body<F>` that stays valid until this returns and that nobody else touches.
unsafe extern "C" fn run<F: FnOnce(&StopToken)>(data: *mut c_void) -> c_int {
    // SAFETY: By the requirement above.
    let body = unsafe { &mut *data.cast::<Body<F>>() };
    let _scope = body.noio.then(NoioScope::enter);
    if let Some(f) = body.run.take() {
        f(&StopToken {
            _not_send: NotThreadSafe,
        });
    }
    0
}

/// Frees what [`run`] was given.
///
/// # Safety
///
/// `body` came from `KBox::<Body<F>>::into_raw`, and nobody else uses it any more.
unsafe fn free<F>(body: NonNull<c_void>) {
    // SAFETY: By the requirement above.
    drop(unsafe { KBox::from_raw(body.as_ptr().cast::<Body<F>>()) });
}

#[kunit_tests(replicate_linux_kthread)]
mod tests {
    use super::*;
    use crate::event::{Event, Wake, FOREVER};
    use kernel::sync::{
        atomic::{Atomic, Full},
        Arc,
    };

    #[test]
    fn a_stop_ends_a_wait_without_limit() -> Result {
        let event = Event::new()?;
        let started = Event::new()?;
        let result = Arc::new(Atomic::<i32>::new(0), GFP_KERNEL)?;
        let (e, s, r) = (event.clone(), started.clone(), result.clone());
        let thread = Thread::spawn_noio(c"kunit-stop", move |token| {
            s.notify();
            let wake = e.wait(FOREVER);
            if wake == Wake::Stop && token.should_stop() {
                r.xchg(1, Full);
            }
        })?;
        assert!(started.wait(60_000) == Wake::Signalled);
        thread.stop();
        assert_eq!(result.load(kernel::sync::atomic::Acquire), 1);
        Ok(())
    }

    #[test]
    fn what_the_closure_owns_is_dropped_once() -> Result {
        let owned = Arc::new((), GFP_KERNEL)?;
        for _ in 0..50 {
            // Some of these are stopped before they ever ran.
            let inside = owned.clone();
            Thread::spawn(c"kunit-drop", move |_| drop(inside))?.stop();
        }
        assert!(Arc::into_unique_or_drop(owned).is_some());
        Ok(())
    }

    #[test]
    fn a_thread_that_was_not_woken_never_runs() -> Result {
        let ran = Arc::new(Atomic::<i32>::new(0), GFP_KERNEL)?;
        for woken in [false, true] {
            let (done, r) = (Event::new()?, ran.clone());
            let d = done.clone();
            let thread = Thread::make_noio(c"kunit-make", move |_| {
                r.xchg(1, Full);
                d.notify();
            })?;
            if woken {
                thread.wake();
                assert!(done.wait(60_000) == Wake::Signalled);
            }
            thread.stop();
            let seen = ran.load(kernel::sync::atomic::Acquire);
            assert_eq!(seen, i32::from(woken));
        }
        Ok(())
    }

    #[test]
    fn outside_of_a_thread_nothing_stops() {
        assert!(!should_stop());
    }
}
