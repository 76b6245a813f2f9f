// SPDX-License-Identifier: GPL-2.0

//! A buffer of pool pages.
//!
//! The list of a buffer's pages is kept in the buffer if it is short, and in one more page of the
//! pool if it is long, so that making a buffer allocates nothing else.

use super::{
    shared::{Seat, SharedBuf},
    OwnedPage, PagePool, PAGE_BYTES,
};
use crate::{bindings as raw, digest};
use core::mem::MaybeUninit;
use kernel::{bindings, prelude::*, sync::Arc};

/// Pages listed in the buffer itself.
const INLINE_PAGES: usize = 4;

/// Pages that one page can list.
const LISTED_PAGES: usize = PAGE_BYTES / size_of::<OwnedPage>();

/// The largest buffer.
pub const MAX_BUF_BYTES: usize = {
    const LIMIT: usize = 2 << 20;
    if LISTED_PAGES * PAGE_BYTES < LIMIT {
        LISTED_PAGES * PAGE_BYTES
    } else {
        LIMIT
    }
};

/// A range of a buffer, to be written to a device.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// The buffer.
    pub buf: &'a PageBuf,
    /// Where the range starts, in bytes. Any value that the device can do (512-byte multiples
    /// always work).
    pub offset: usize,
    /// Length in bytes, a multiple of 512.
    pub len: usize,
}

enum List {
    /// The first `pages` are initialised.
    Inline([MaybeUninit<OwnedPage>; INLINE_PAGES]),
    /// The page holds `pages` initialised `OwnedPage`s.
    Page(OwnedPage),
}

/// `len` bytes in pages of a pool; given back when dropped.
///
/// # Invariants
///
/// The first `pages` entries of `list` are initialised and owned by `self`. `len` is at most
/// `pages * PAGE_BYTES`. `seat` is there until the buffer is shared.
pub struct PageBuf {
    list: List,
    pages: usize,
    len: usize,
    /// All pages were there: giving them back is news for those who wait for pages. What a failed
    /// attempt gives back is not, or a waiter that tries again would wake itself for ever.
    whole: bool,
    /// For [`PageBuf::share`].
    seat: Option<Seat>,
    pool: Arc<PagePool>,
}

impl PageBuf {
    pub(super) fn take(pool: &Arc<PagePool>, bytes: usize) -> Option<Self> {
        if bytes == 0 || bytes > MAX_BUF_BYTES {
            return None;
        }
        let want = bytes.div_ceil(PAGE_BYTES);
        let seat = pool.take_seat()?;
        let list = if want <= INLINE_PAGES {
            List::Inline([const { MaybeUninit::uninit() }; INLINE_PAGES])
        } else {
            let mut page = None;
            pool.take_pages(1, |p| page = Some(p));
            match page {
                Some(page) => List::Page(page),
                None => {
                    pool.give_seat_back(seat);
                    return None;
                }
            }
        };
        // INVARIANT: Nothing is listed yet.
        let mut buf = Self {
            list,
            pages: 0,
            len: 0,
            whole: false,
            seat: Some(seat),
            pool: pool.clone(),
        };
        // On failure the drop of `buf` gives back what it has got.
        if !pool.take_pages(want, |page| buf.push(page)) {
            return None;
        }
        buf.len = bytes;
        buf.whole = true;
        Some(buf)
    }

    /// Shares the buffer, which does not change any more. Allocates nothing.
    pub fn share(mut self) -> SharedBuf {
        match self.seat.take() {
            Some(seat) => SharedBuf::new(seat, self),
            // SAFETY: By the type invariant, as a shared buffer is never given out by value.
            None => unsafe { core::hint::unreachable_unchecked() },
        }
    }

    /// The last user of a shared buffer has gone: gives all back, the seat too.
    pub(super) fn give_back(mut self, seat: Seat) {
        self.seat = Some(seat);
    }

    fn list(&self) -> *mut OwnedPage {
        match &self.list {
            List::Inline(pages) => pages.as_ptr().cast::<OwnedPage>().cast_mut(),
            List::Page(page) => page.address().cast::<OwnedPage>(),
        }
    }

    fn push(&mut self, page: OwnedPage) {
        let room = match &self.list {
            List::Inline(_) => INLINE_PAGES,
            List::Page(_) => LISTED_PAGES,
        };
        if self.pages >= room {
            return;
        }
        let list = match &mut self.list {
            List::Inline(pages) => pages.as_mut_ptr().cast::<OwnedPage>(),
            List::Page(page) => page.address().cast::<OwnedPage>(),
        };
        // SAFETY: `self.pages` is below the number of places that the list has.
        let place = unsafe { list.add(self.pages) };
        // SAFETY: The place is valid for writing and holds nothing yet.
        unsafe { place.write(page) };
        // INVARIANT: One more entry is initialised.
        self.pages += 1;
    }

    fn pages(&self) -> &[OwnedPage] {
        // SAFETY: By the type invariant this many entries are initialised; they change only
        // through `&mut self`.
        unsafe { core::slice::from_raw_parts(self.list(), self.pages) }
    }

    /// Length in bytes, as asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether [`PageBuf::len`] is 0; only after [`PageBuf::truncate`].
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Length in whole pages, in bytes.
    pub fn capacity(&self) -> usize {
        self.pages * PAGE_BYTES
    }

    /// Lowers [`PageBuf::len`]; does nothing if it is lower already. The pages stay.
    pub fn truncate(&mut self, bytes: usize) {
        self.len = self.len.min(bytes);
    }

    /// Calls `f` with the page, the offset in it and the length, for each page of a range.
    /// Returns the last result, or `None` if the range is empty or not inside the buffer.
    pub(crate) fn segment_pages<R>(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(*mut bindings::page, usize, usize) -> R,
    ) -> Option<R> {
        let mut last = None;
        self.for_each_page(offset, len, |page, off, n| {
            last = Some(f(page.as_ptr(), off, n))
        })
        .ok()?;
        last
    }

    /// Calls `f` for each page of a range.
    fn for_each_page(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(&OwnedPage, usize, usize),
    ) -> Result {
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        if end > self.len {
            return Err(EINVAL);
        }
        let mut at = offset;
        while at < end {
            let page = self.pages().get(at / PAGE_BYTES).ok_or(EINVAL)?;
            let off = at % PAGE_BYTES;
            let n = (PAGE_BYTES - off).min(end - at);
            f(page, off, n);
            at += n;
        }
        Ok(())
    }

    /// Copies `data` into the buffer.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it does not fit; then nothing was written. The same holds for all that follow.
    pub fn write_at(&mut self, offset: usize, data: &[u8]) -> Result {
        let mut rest = data;
        self.for_each_page(offset, data.len(), |page, off, n| {
            let Some((head, tail)) = rest.split_at_checked(n) else {
                return;
            };
            // SAFETY: The page is ours through `&mut self`, `off + n` is inside it.
            let to = unsafe { page.address().add(off) };
            // SAFETY: `n` bytes are valid on both sides; a slice cannot overlap our page.
            unsafe { core::ptr::copy_nonoverlapping(head.as_ptr(), to, n) };
            rest = tail;
        })
    }

    /// Copies from the buffer into `data`.
    pub fn read_at(&self, offset: usize, data: &mut [u8]) -> Result {
        let mut done = 0;
        let len = data.len();
        self.for_each_page(offset, len, |page, off, n| {
            let Some(to) = data.get_mut(done..).and_then(|rest| rest.get_mut(..n)) else {
                return;
            };
            // SAFETY: `off + n` is inside the page.
            let from = unsafe { page.address().add(off) };
            // SAFETY: `n` bytes are valid on both sides; they do not overlap.
            unsafe { core::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), n) };
            done += n;
        })
    }

    /// Fills a range with zeros.
    pub fn zero_range(&mut self, offset: usize, len: usize) -> Result {
        self.for_each_page(offset, len, |page, off, n| {
            // SAFETY: `off + n` is inside the page.
            let to = unsafe { page.address().add(off) };
            // SAFETY: The page is ours through `&mut self`; `n` bytes are valid.
            unsafe { core::ptr::write_bytes(to, 0, n) };
        })
    }

    /// Calls `f` with the bytes of a range, page by page, in order.
    pub fn for_each_chunk(&self, offset: usize, len: usize, mut f: impl FnMut(&[u8])) -> Result {
        self.for_each_page(offset, len, |page, off, n| {
            // SAFETY: `off + n` is inside the page.
            let from = unsafe { page.address().add(off) };
            // SAFETY: The bytes are valid, and change only through `&mut self`.
            f(unsafe { core::slice::from_raw_parts(from, n) });
        })
    }

    /// CRC-32C of a range, continuing from `seed`; see [`digest::crc32c`].
    pub fn crc32c(&self, seed: u32, offset: usize, len: usize) -> Result<u32> {
        let mut crc = seed;
        self.for_each_chunk(offset, len, |chunk| crc = digest::crc32c(crc, chunk))?;
        Ok(crc)
    }

    /// Copies `n` bytes to the buffer from memory outside of Rust, which others (user space, a device) may write to at
    /// the same time: then the bytes are any mixture, but bytes. C copies them, because to Rust such a race is
    /// undefined; what it read is behind a call that the compiler does not look into, and is read once.
    ///
    /// # Safety
    ///
    /// `from` is valid for reading `n` bytes, and not in this buffer.
    pub(crate) unsafe fn copy_from_raw(
        &mut self,
        offset: usize,
        from: *const u8,
        n: usize,
    ) -> Result {
        let mut done = 0;
        self.for_each_page(offset, n, |page, off, n| {
            // SAFETY: `off + n` is inside the page.
            let to = unsafe { page.address().add(off) };
            // SAFETY: `done + n` is at most what the caller vouches for.
            let from = unsafe { from.add(done) };
            // SAFETY: `n` bytes are valid on both sides, per the caller they do not overlap.
            unsafe { raw::copy_shared(to.cast(), from.cast(), n) };
            done += n;
        })
    }

    /// Copies `n` bytes from the buffer to memory outside of Rust, which others may use at the same time: see
    /// [`Self::copy_from_raw`].
    ///
    /// # Safety
    ///
    /// `to` is valid for writing `n` bytes, and not in this buffer.
    pub(crate) unsafe fn copy_to_raw(&self, offset: usize, to: *mut u8, n: usize) -> Result {
        let mut done = 0;
        self.for_each_chunk(offset, n, |chunk| {
            // SAFETY: `done + chunk.len()` is at most what the caller vouches for.
            let to = unsafe { to.add(done) };
            // SAFETY: The bytes are valid on both sides, per the caller they do not overlap.
            unsafe { raw::copy_shared(to.cast(), chunk.as_ptr().cast(), chunk.len()) };
            done += chunk.len();
        })
    }
}

impl Drop for PageBuf {
    fn drop(&mut self) {
        let (list, pages) = (self.list(), self.pages);
        self.pages = 0;
        self.len = 0;
        self.pool.give_back((0..pages).map(|i| {
            // SAFETY: `i` is below the number of initialised entries.
            let entry = unsafe { list.add(i) };
            // SAFETY: Initialised, and read once: `self.pages` is 0 now.
            unsafe { entry.read() }
        }));
        let none = List::Inline([const { MaybeUninit::uninit() }; INLINE_PAGES]);
        if let List::Page(page) = core::mem::replace(&mut self.list, none) {
            self.pool.give_back(core::iter::once(page));
        }
        if let Some(seat) = self.seat.take() {
            self.pool.give_seat_back(seat);
        }
        if self.whole {
            self.pool.tell_returned();
        }
    }
}
