// SPDX-License-Identifier: GPL-2.0

//! A mutex in a static, for safe code: whoever locks it first makes it ready.
//!
//! The kernel's `global_lock!` must be initialised before its first use, which only a programmer can
//! promise. Process context; locking may sleep.
//!
//! ```ignore
//! global_mutex! {
//!     /// All things.
//!     struct Things(KVec<Thing>) = KVec::new();
//! }
//!
//! Things.lock().push(thing, GFP_KERNEL)?;
//! ```

use crate::clock;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};

const NEW: u32 = 0;
const BUSY: u32 = 1;
const READY: u32 = 2;

/// Runs `init` if nobody did yet; when it returns, `init` has been run. May sleep.
#[doc(hidden)]
pub fn once(state: &Atomic<u32>, init: impl FnOnce()) {
    if state.load(Acquire) == READY {
        return;
    }
    if state.cmpxchg(NEW, BUSY, Relaxed).is_ok() {
        init();
        state.store(READY, Release);
        return;
    }
    // Another one is at it. A thread that spun here could keep it from the CPU.
    while state.load(Acquire) != READY {
        clock::sleep_ms(1);
    }
}

/// Defines a global mutex and what it protects; see the [module](crate::global).
#[macro_export]
macro_rules! global_mutex {
    ($(#[$meta:meta])* $vis:vis struct $name:ident($ty:ty) = $value:expr;) => {
        $(#[$meta])*
        $vis struct $name;

        const _: () = {
            #[allow(unused_imports)]
            use ::core::pin::Pin;

            ::kernel::sync::global_lock! {
                // SAFETY: Only the function below can name it, and initialises it first.
                unsafe(uninit) static GLOBAL: Mutex<$ty> = $value;
            }

            static STATE: ::kernel::sync::atomic::Atomic<u32> =
                ::kernel::sync::atomic::Atomic::new(0);

            impl $name {
                /// Locks it. May sleep.
                $vis fn lock(&self) -> impl ::core::ops::DerefMut<Target = $ty> {
                    $crate::global::once(&STATE, || {
                        // SAFETY: This is run once.
                        unsafe { GLOBAL.init() }
                    });
                    GLOBAL.lock()
                }
            }
        };
    };
}
