// SPDX-License-Identifier: GPL-2.0

//! Where finished I/O arrives.

use super::unit::{Done, Inner};
use crate::{bindings as raw, event::Event};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        Arc,
    },
    types::Opaque,
};

/// A lock-free list that interrupts push on and one thread takes all from, and a count of those
/// who will still push.
///
/// A pusher's last touch is the count, so once it is 0 the list may be freed.
pub(crate) struct IrqList {
    head: Opaque<bindings::llist_head>,
    in_flight: Atomic<i32>,
    event: Arc<Event>,
}

// SAFETY: The list is made for concurrent use.
unsafe impl Send for IrqList {}
// SAFETY: As above.
unsafe impl Sync for IrqList {}

impl IrqList {
    pub(crate) fn new(event: Arc<Event>) -> Self {
        Self {
            head: Opaque::new(bindings::llist_head {
                first: core::ptr::null_mut(),
            }),
            in_flight: Atomic::new(0),
            event,
        }
    }

    /// One more will be pushed.
    pub(crate) fn expect_one(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// Pushes. Any context.
    ///
    /// # Safety
    ///
    /// `list` points at a list that was told to expect this; it may be gone when this returns.
    /// `node` is not on a list, and belongs to whoever takes it from this one.
    pub(crate) unsafe fn push(list: *const Self, node: *mut bindings::llist_node) {
        // SAFETY: The list lives until the count below was lowered.
        let this = unsafe { &*list };
        // SAFETY: Both are valid; the node is not on a list.
        unsafe { raw::llist_add(node, this.head.get()) };
        this.event.notify();
        this.in_flight.fetch_sub(1, Release);
    }

    /// Takes all, the oldest first. Process context.
    pub(crate) fn take_all(&self) -> *mut bindings::llist_node {
        // SAFETY: The head is valid.
        let mut node = unsafe { raw::llist_del_all(self.head.get()) };
        let mut oldest = core::ptr::null_mut();
        while let Some(n) = NonNull::new(node) {
            // SAFETY: The nodes that were taken are ours.
            let next = unsafe { (*n.as_ptr()).next };
            // SAFETY: As above.
            unsafe { (*n.as_ptr()).next = oldest };
            oldest = node;
            node = next;
        }
        oldest
    }

    pub(crate) fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight.load(Relaxed)).unwrap_or(0)
    }

    pub(crate) fn event(&self) -> &Arc<Event> {
        &self.event
    }

    /// Waits until nobody will push any more. Process context.
    pub(crate) fn drain(&self) {
        // The count is lowered after the notification, hence the short limit.
        while self.in_flight.load(Acquire) != 0 {
            self.event
                .wait_until_always(10, || self.in_flight.load(Acquire) == 0);
        }
    }
}

/// Where finished units arrive, with their payloads `T`.
///
/// Put it into what the submitters share. Dropping it waits until everything in flight has come
/// back and drops that: process context.
pub struct CompletionQueue<T: Send + 'static> {
    list: KBox<IrqList>,
    _holds: PhantomData<T>,
}

impl<T: Send + 'static> CompletionQueue<T> {
    /// Makes a queue that notifies `event` for every unit that arrives.
    pub fn new(event: Arc<Event>) -> Result<Self> {
        Ok(Self {
            list: KBox::new(IrqList::new(event), GFP_KERNEL)?,
            _holds: PhantomData,
        })
    }

    pub(super) fn list(&self) -> &IrqList {
        &self.list
    }

    /// Takes all that has arrived, in the order of arrival. Process context.
    pub fn pop_all(&self) -> Finished<T> {
        Finished {
            next: self.list.take_all(),
            _holds: PhantomData,
        }
    }

    /// Units submitted and not yet arrived; a moment later it may be less.
    pub fn in_flight(&self) -> usize {
        self.list.in_flight()
    }

    /// What is notified.
    pub fn event(&self) -> &Arc<Event> {
        self.list.event()
    }
}

impl<T: Send + 'static> Drop for CompletionQueue<T> {
    fn drop(&mut self) {
        self.list.drain();
        drop(self.pop_all());
    }
}

/// Finished units; those not taken are dropped with it.
///
/// # Invariants
///
/// `next` starts a list of nodes that are the first fields of finished `Inner<T>`s, owned by
/// `self`.
pub struct Finished<T: Send + 'static> {
    next: *mut bindings::llist_node,
    _holds: PhantomData<T>,
}

// SAFETY: It owns units, which are `Send`.
unsafe impl<T: Send + 'static> Send for Finished<T> {}

impl<T: Send + 'static> Iterator for Finished<T> {
    type Item = Done<T>;

    fn next(&mut self) -> Option<Done<T>> {
        let node = NonNull::new(self.next)?;
        // SAFETY: Ours by the type invariant.
        self.next = unsafe { (*node.as_ptr()).next };
        // SAFETY: By the type invariant this is the first field of a finished unit, which is
        // given away here.
        Some(unsafe { Inner::<T>::finished(node.cast()) })
    }
}

impl<T: Send + 'static> Drop for Finished<T> {
    fn drop(&mut self) {
        for done in &mut *self {
            drop(done);
        }
    }
}
