// SPDX-License-Identifier: GPL-2.0

//! Bounded memory for payloads: a pool of pages, and buffers made of them.
//!
//! A pool has a reserve that is allocated up front, and grows up to its maximum without waiting.
//! Taking a buffer is all or nothing and never sleeps, so `map()` can do it. A page goes back to
//! the pool only if nobody else holds it: one that is still in flight to a device, or sits in a
//! socket, is let go and replaced later, so a page that comes out of the pool is never written to
//! while an old user still reads it.
//!
//! Process context (the pool's spinlock is not interrupt-safe). Lock order: innermost.

mod buf;

pub use buf::{PageBuf, Segment, MAX_BUF_BYTES};

use crate::{bindings as raw, event::Event};
use core::ptr::NonNull;
use kernel::{bindings, new_spinlock, prelude::*, sync::Arc, sync::SpinLock};

/// Bytes in a page.
pub const PAGE_BYTES: usize = kernel::page::PAGE_SIZE;

/// One page, and a reference on it.
///
/// # Invariants
///
/// The pointer is a valid order-0 page of low memory, and `self` owns one reference on it.
pub(crate) struct OwnedPage(NonNull<bindings::page>);

// SAFETY: Pages may be used from any thread.
unsafe impl Send for OwnedPage {}
// SAFETY: As above.
unsafe impl Sync for OwnedPage {}

impl OwnedPage {
    /// Allocates a page; its contents are undefined.
    fn new(gfp: bindings::gfp_t) -> Option<Self> {
        // SAFETY: The caller chose `gfp` for its context.
        let page = unsafe { raw::alloc_page(gfp) };
        // INVARIANT: A new page has one reference, which is now ours.
        NonNull::new(page).map(Self)
    }

    /// The page, for C.
    pub(crate) fn as_ptr(&self) -> *mut bindings::page {
        self.0.as_ptr()
    }

    /// Where the page is mapped: `PAGE_BYTES` long, as long as the reference is held.
    pub(crate) fn address(&self) -> *mut u8 {
        // SAFETY: Valid by the type invariant; low memory is always mapped.
        unsafe { raw::page_address(self.0.as_ptr()).cast::<u8>() }
    }

    /// Whether nobody else has a reference.
    fn is_unshared(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { raw::page_count(self.0.as_ptr()) == 1 }
    }
}

impl Drop for OwnedPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give up.
        unsafe { raw::put_page(self.0.as_ptr()) };
    }
}

struct Inner {
    /// Pages that nobody uses; its capacity is the maximum of the pool.
    free: KVVec<OwnedPage>,
    /// Pages in buffers, with those that hold the buffers' page lists.
    in_use: usize,
    /// Limit on `in_use`; may be lowered below it while running.
    max: usize,
}

/// See the [module documentation](self).
#[pin_data]
pub struct PagePool {
    #[pin]
    inner: SpinLock<Inner>,
    reserve: usize,
    /// `max` as given at the start: what `free` has room for.
    ceiling: usize,
    returned: Option<Arc<Event>>,
}

impl PagePool {
    /// Makes a pool and allocates its reserve. `returned` is notified whenever pages come back.
    /// May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `reserve_pages` is larger than `max_pages`; `ENOMEM`.
    pub fn new(
        reserve_pages: usize,
        max_pages: usize,
        returned: Option<Arc<Event>>,
    ) -> Result<Arc<Self>> {
        if reserve_pages > max_pages {
            return Err(EINVAL);
        }
        let inner = Inner {
            free: KVVec::with_capacity(max_pages, GFP_KERNEL)?,
            in_use: 0,
            max: max_pages,
        };
        let pool = Arc::pin_init(
            pin_init!(Self {
                inner <- new_spinlock!(inner, "PagePool::inner"),
                reserve: reserve_pages,
                ceiling: max_pages,
                returned,
            }),
            GFP_KERNEL,
        )?;
        pool.fill(raw::GFP_MASK_KERNEL)?;
        Ok(pool)
    }

    /// Changes the maximum. Buffers that are out stay out.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is below the reserve or above what the pool was made with.
    pub fn set_max(&self, max_pages: usize) -> Result {
        if max_pages < self.reserve || max_pages > self.ceiling {
            return Err(EINVAL);
        }
        self.inner.lock().max = max_pages;
        Ok(())
    }

    /// Allocates what is missing from the reserve, because pages were let go. May sleep
    /// (`GFP_NOIO`); not needed for correctness, call it now and then from a worker.
    pub fn refill(&self) -> Result {
        self.fill(raw::GFP_MASK_NOIO)
    }

    fn fill(&self, gfp: bindings::gfp_t) -> Result {
        loop {
            {
                let inner = self.inner.lock();
                if inner.free.len() + inner.in_use >= self.reserve {
                    return Ok(());
                }
            }
            let page = OwnedPage::new(gfp).ok_or(ENOMEM)?;
            // There may be no room any more: then the page is dropped, outside of the lock.
            let _rest = self.inner.lock().free.push_within_capacity(page);
        }
    }

    /// Takes a buffer of `bytes` bytes, or nothing at all. Never sleeps. The contents are
    /// undefined until written.
    ///
    /// Returns `None` if the pool is at its maximum or the system is short of memory, and for
    /// `bytes` of 0 or above [`MAX_BUF_BYTES`].
    pub fn try_take(self: &Arc<Self>, bytes: usize) -> Option<PageBuf> {
        PageBuf::take(self, bytes)
    }

    /// Reserves `want` pages and gives each to `put`. All or nothing: on failure those that were
    /// given are the caller's to give back.
    fn take_pages(&self, want: usize, mut put: impl FnMut(OwnedPage)) -> bool {
        let mut got = 0;
        {
            let mut inner = self.inner.lock();
            let Some(in_use) = inner.in_use.checked_add(want) else {
                return false;
            };
            if in_use > inner.max {
                return false;
            }
            inner.in_use = in_use;
            while got < want {
                let Some(page) = inner.free.pop() else { break };
                put(page);
                got += 1;
            }
        }
        while got < want {
            let Some(page) = OwnedPage::new(raw::GFP_MASK_NOWAIT) else {
                // Those that were not handed out are not in use.
                let mut inner = self.inner.lock();
                inner.in_use = inner.in_use.saturating_sub(want.saturating_sub(got));
                return false;
            };
            put(page);
            got += 1;
        }
        true
    }

    /// Takes pages back.
    fn give_back(&self, pages: impl Iterator<Item = OwnedPage>) {
        for page in pages {
            // What does not go on the list is dropped after the lock is released.
            let _rest = {
                let mut inner = self.inner.lock();
                inner.in_use = inner.in_use.saturating_sub(1);
                if page.is_unshared() && inner.free.len() + inner.in_use < self.reserve {
                    inner.free.push_within_capacity(page).err().map(|e| e.0)
                } else {
                    Some(page)
                }
            };
        }
    }

    fn tell_returned(&self) {
        if let Some(event) = &self.returned {
            event.notify();
        }
    }

    /// Pages in buffers now.
    pub fn in_use(&self) -> usize {
        self.inner.lock().in_use
    }

    /// The most pages that may be in buffers.
    pub fn max(&self) -> usize {
        self.inner.lock().max
    }

    /// Pages that the pool has allocated, used or not.
    pub fn allocated(&self) -> usize {
        let inner = self.inner.lock();
        inner.in_use + inner.free.len()
    }
}

#[kunit_tests(replicate_linux_pages)]
mod tests {
    use super::*;
    use crate::event::Wake;

    #[test]
    fn exhaustion_is_all_or_nothing_and_returns() -> Result {
        let event = Event::new()?;
        let pool = PagePool::new(2, 6, Some(event.clone()))?;
        assert_eq!(pool.allocated(), 2);
        let a = pool.try_take(4 * PAGE_BYTES);
        assert!(a.is_some());
        assert_eq!(pool.in_use(), 4);
        assert!(pool.try_take(3 * PAGE_BYTES).is_none());
        assert_eq!(pool.in_use(), 4);
        let b = pool.try_take(PAGE_BYTES + 1);
        assert!(b.is_some());
        assert_eq!(pool.in_use(), 6);
        assert!(pool.try_take(1).is_none());
        assert!(event.wait(0) == Wake::TimedOut);
        drop(a);
        assert!(event.wait(0) == Wake::Signalled);
        drop(b);
        assert_eq!(pool.in_use(), 0);
        assert_eq!(pool.allocated(), 2);
        assert!(pool.set_max(7).is_err());
        assert!(pool.set_max(1).is_err());
        pool.set_max(3)?;
        assert!(pool.try_take(4 * PAGE_BYTES).is_none());
        assert!(pool.try_take(3 * PAGE_BYTES).is_some());
        Ok(())
    }

    #[test]
    fn a_page_that_someone_holds_does_not_return() -> Result {
        let pool = PagePool::new(1, 1, None)?;
        let buf = pool.try_take(PAGE_BYTES).ok_or(ENOMEM)?;
        let page = buf.segment_pages(0, 1, |page, _, _| page).ok_or(EINVAL)?;
        // SAFETY: The buffer holds the page.
        unsafe { raw::get_page(page) };
        drop(buf);
        assert_eq!(pool.allocated(), 0);
        pool.refill()?;
        assert_eq!(pool.allocated(), 1);
        let again = pool.try_take(1).ok_or(ENOMEM)?;
        let other = again.segment_pages(0, 1, |page, _, _| page).ok_or(EINVAL)?;
        assert!(page != other);
        // SAFETY: Gives back the reference taken above.
        unsafe { raw::put_page(page) };
        Ok(())
    }

    #[test]
    fn large_buffers_and_unaligned_access() -> Result {
        let pool = PagePool::new(0, 1024, None)?;
        let mut buf = pool.try_take(MAX_BUF_BYTES).ok_or(ENOMEM)?;
        assert!(pool.try_take(MAX_BUF_BYTES + 1).is_none());
        assert!(pool.try_take(0).is_none());
        let off = 5 * PAGE_BYTES - 3;
        buf.zero_range(off - 1, 16)?;
        buf.write_at(off, b"123456789")?;
        let mut back = [0u8; 11];
        buf.read_at(off - 1, &mut back)?;
        assert!(back == [0, b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8', b'9', 0]);
        assert_eq!(buf.crc32c(0, off, 9)?, 0xe306_9283);
        let mut chunks = 0;
        buf.for_each_chunk(off, 9, |chunk| chunks += usize::from(!chunk.is_empty()))?;
        assert_eq!(chunks, 2);
        assert!(buf.write_at(MAX_BUF_BYTES - 1, b"12").is_err());
        assert!(buf.read_at(usize::MAX, &mut back).is_err());
        buf.truncate(10);
        assert_eq!(buf.len(), 10);
        assert!(buf.crc32c(0, 0, 11).is_err());
        Ok(())
    }
}
