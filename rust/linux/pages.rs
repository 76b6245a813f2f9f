// SPDX-License-Identifier: GPL-2.0

//! Bounded memory for payloads: a pool of pages, and buffers made of them.
//!
//! A pool has a reserve that is allocated up front, and grows up to its maximum without waiting.
//! Taking a buffer is all or nothing and never sleeps, so `map()` can do it. A page is used again
//! only if nobody else holds it, so that it is never written to while an old user still reads it.
//! One that is still in flight to a device, or sits in a socket, is *lent*: it counts as used until
//! it was let go. So the reserve never shrinks, and what sockets hold is bounded like all else.
//!
//! Process context (the pool's spinlock is not interrupt-safe). Lock order: innermost.

mod buf;
mod shared;

pub use buf::{PageBuf, Segment, MAX_BUF_BYTES};
pub use shared::SharedBuf;

use crate::{bindings as raw, event::Event};
use core::ptr::NonNull;
use kernel::{
    bindings, new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc, SpinLock,
    },
};
use shared::{new_seat, Seat};

/// Bytes in a page.
pub const PAGE_BYTES: usize = kernel::page::PAGE_SIZE;

/// Lent pages that are looked at by whoever asks how many are in use.
const REAP: usize = 64;
/// Lent pages that are looked at when there are none for a buffer.
const REAP_SHORT: usize = 1024;

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
    /// Pages in buffers, with those that hold the buffers' page lists, and those that are lent.
    in_use: usize,
    /// Pages of buffers that are gone, which somebody else still holds. Capacity as `free`.
    lent: KVVec<OwnedPage>,
    /// Where the search for those that were let go continues.
    look_at: usize,
    /// Seats that nobody uses; its capacity is the reserve.
    seats: KVVec<Seat>,
    seats_in_use: usize,
    /// Limit on `in_use`; may be lowered below it while running.
    max: usize,
}

impl Inner {
    /// A page that nobody else holds is not in use any more. What comes back is not needed.
    fn put(&mut self, page: OwnedPage, reserve: usize) -> Option<OwnedPage> {
        self.in_use = self.in_use.saturating_sub(1);
        if self.free.len() + self.in_use < reserve {
            self.free.push_within_capacity(page).err().map(|e| e.0)
        } else {
            Some(page)
        }
    }

    /// Looks at `n` lent pages, and takes back those that were let go.
    fn reap(&mut self, n: usize, reserve: usize) {
        for _ in 0..n {
            if self.look_at >= self.lent.len() {
                self.look_at = 0;
            }
            match self.lent.get(self.look_at) {
                None => return,
                Some(page) if page.is_unshared() => {
                    let last = self.lent.len() - 1;
                    self.lent.swap(self.look_at, last);
                    if let Some(page) = self.lent.pop() {
                        drop(self.put(page, reserve));
                    }
                }
                Some(_) => self.look_at += 1,
            }
        }
    }
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
    /// A buffer was not to be had since this was last asked.
    short: Atomic<i32>,
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
            lent: KVVec::with_capacity(max_pages, GFP_KERNEL)?,
            look_at: 0,
            // No buffer is without a page.
            seats: KVVec::with_capacity(reserve_pages, GFP_KERNEL)?,
            seats_in_use: 0,
            in_use: 0,
            max: max_pages,
        };
        let pool = Arc::pin_init(
            pin_init!(Self {
                inner <- new_spinlock!(inner, "PagePool::inner"),
                reserve: reserve_pages,
                ceiling: max_pages,
                returned,
                short: Atomic::new(0),
            }),
            GFP_KERNEL,
        )?;
        for _ in 0..reserve_pages {
            let page = OwnedPage::new(raw::GFP_MASK_KERNEL).ok_or(ENOMEM)?;
            let seat = new_seat(GFP_KERNEL).ok_or(ENOMEM)?;
            let mut inner = pool.inner.lock();
            let page = inner.free.push_within_capacity(page);
            let seat = inner.seats.push_within_capacity(seat);
            // Cannot fail: there is room for the reserve. Dropped without the lock, if it could.
            drop(inner);
            drop((page, seat));
        }
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

    /// Takes a buffer of `bytes` bytes, or nothing at all. Never sleeps. The contents are
    /// undefined until written.
    ///
    /// Returns `None` if the pool is at its maximum or the system is short of memory, and for
    /// `bytes` of 0 or above [`MAX_BUF_BYTES`].
    pub fn try_take(self: &Arc<Self>, bytes: usize) -> Option<PageBuf> {
        let taken = PageBuf::take(self, bytes);
        if taken.is_none() {
            self.short.store(1, Relaxed);
        }
        taken
    }

    /// Whether a buffer was not to be had since this was last asked: the maximum is reached, or the system has no
    /// memory. Then the owner should give buffers back that it only keeps to be faster.
    pub fn take_short(&self) -> bool {
        self.short.load(Relaxed) != 0 && self.short.xchg(0, Full) != 0
    }

    /// Reserves `want` pages and gives each to `put`. All or nothing: on failure those that were
    /// given are the caller's to give back.
    fn take_pages(&self, want: usize, mut put: impl FnMut(OwnedPage)) -> bool {
        let mut got = 0;
        {
            let mut inner = self.inner.lock();
            // More than are lent by a buffer as large as this one: none is forgotten.
            inner.reap(want.saturating_mul(2), self.reserve);
            if inner.in_use.saturating_add(want) > inner.max {
                inner.reap(REAP_SHORT, self.reserve);
            }
            let in_use = inner.in_use.saturating_add(want);
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
                if page.is_unshared() {
                    inner.put(page, self.reserve)
                } else {
                    // Cannot fail: `in_use`, of which these are a part, is bounded by the capacity.
                    inner.lent.push_within_capacity(page).err().map(|e| e.0)
                }
            };
        }
    }

    /// Takes memory for a shared buffer. Never sleeps.
    fn take_seat(&self) -> Option<Seat> {
        let kept = {
            let mut inner = self.inner.lock();
            inner.seats_in_use += 1;
            inner.seats.pop()
        };
        let seat = kept.or_else(|| new_seat(GFP_NOWAIT | __GFP_NOWARN));
        if seat.is_none() {
            self.inner.lock().seats_in_use -= 1;
        }
        seat
    }

    fn give_seat_back(&self, seat: Seat) {
        // What is not kept is freed after the lock is released.
        let _rest = {
            let mut inner = self.inner.lock();
            inner.seats_in_use = inner.seats_in_use.saturating_sub(1);
            if inner.seats.len() + inner.seats_in_use < self.reserve {
                inner.seats.push_within_capacity(seat).err().map(|e| e.0)
            } else {
                Some(seat)
            }
        };
    }

    fn tell_returned(&self) {
        if let Some(event) = &self.returned {
            event.notify();
        }
    }

    /// Pages in buffers now, and those that a socket or a device still holds: each call looks whether some of these
    /// were let go.
    pub fn in_use(&self) -> usize {
        let mut inner = self.inner.lock();
        inner.reap(REAP, self.reserve);
        inner.in_use
    }

    /// Pages of buffers that are gone, which a socket or a device still held when they were last looked at.
    pub fn lent(&self) -> usize {
        self.inner.lock().lent.len()
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
    fn a_page_that_someone_holds_returns_when_it_is_let_go() -> Result {
        let pool = PagePool::new(1, 1, None)?;
        let buf = pool.try_take(PAGE_BYTES).ok_or(ENOMEM)?;
        let page = buf.segment_pages(0, 1, |page, _, _| page).ok_or(EINVAL)?;
        // SAFETY: The buffer holds the page.
        unsafe { raw::get_page(page) };
        drop(buf);
        assert_eq!((pool.allocated(), pool.in_use(), pool.lent()), (1, 1, 1));
        // Not even the system's memory replaces it: what others hold is bounded.
        assert!(pool.try_take(1).is_none());
        // SAFETY: Gives back the reference taken above.
        unsafe { raw::put_page(page) };
        let again = pool.try_take(1).ok_or(ENOMEM)?;
        let same = again.segment_pages(0, 1, |page, _, _| page).ok_or(EINVAL)?;
        assert!(page == same);
        assert_eq!(pool.lent(), 0);
        Ok(())
    }

    #[test]
    fn a_shared_buffer_returns_with_its_last_user() -> Result {
        let pool = PagePool::new(2, 2, None)?;
        for _ in 0..3 {
            let mut buf = pool.try_take(PAGE_BYTES).ok_or(ENOMEM)?;
            buf.write_at(0, b"123456789")?;
            let one = buf.share();
            let other = one.clone();
            drop(one);
            assert_eq!(pool.in_use(), 1);
            assert_eq!(other.crc32c(0, 0, 9)?, 0xe306_9283);
            drop(other);
            assert_eq!(pool.in_use(), 0);
        }
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
