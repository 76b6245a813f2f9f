// SPDX-License-Identifier: GPL-2.0

//! Cuts a list of page ranges into bios.
//!
//! A bio holds at most 256 ranges and must end at a logical block boundary, but the ranges of a
//! batch are any multiples of 512 bytes. So where a bio is full inside a block, the block's first
//! ranges move to the next bio, and a range that crosses the boundary is split.

use crate::bindings as raw;
use kernel::{bindings, prelude::*};

/// The most ranges in one bio.
const MAX_VECS: usize = bindings::BIO_MAX_VECS as usize;

/// The part of the ranges that one bio carries.
#[derive(Clone, Copy, Default)]
pub(super) struct Cut {
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) bytes: usize,
}

/// Ranges and cuts, allocated once.
///
/// # Invariants
///
/// A reference is held on the page of every entry of `vecs`.
pub(super) struct Segments {
    vecs: KVVec<bindings::bio_vec>,
    cuts: KVec<Cut>,
    /// The bio that is being filled.
    open: Cut,
}

impl Segments {
    /// Room for `max` ranges.
    pub(super) fn new(max: usize) -> Result<Self> {
        // With blocks of up to 64 KiB, at most 128 ranges move on to the next bio.
        let cuts = max / (MAX_VECS / 2) + 1;
        Ok(Self {
            vecs: KVVec::with_capacity(max.checked_add(cuts).ok_or(EINVAL)?, GFP_KERNEL)?,
            cuts: KVec::with_capacity(cuts, GFP_KERNEL)?,
            open: Cut::default(),
        })
    }

    /// The most bios that come out of it.
    pub(super) fn max_bios(&self) -> usize {
        self.cuts.capacity()
    }

    pub(super) fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Where the ranges of a cut are, for C. Valid until the next change.
    pub(super) fn table(&mut self, cut: Cut) -> Option<*mut bindings::bio_vec> {
        let range = self.vecs.get_mut(cut.first..)?.get_mut(..cut.count)?;
        Some(range.as_mut_ptr())
    }

    /// Lets go of all pages.
    pub(super) fn clear(&mut self) {
        for vec in self.vecs.iter() {
            // SAFETY: By the type invariant there is a reference, given up with the entry.
            unsafe { raw::put_page(vec.bv_page) };
        }
        self.vecs.clear();
        self.cuts.clear();
        self.open = Cut::default();
    }

    /// Adds a range of a page; takes a reference on the page.
    ///
    /// # Safety
    ///
    /// `page` is a valid page and the range is in it.
    pub(super) unsafe fn push(
        &mut self,
        page: *mut bindings::page,
        offset: usize,
        len: usize,
        block: usize,
    ) -> Result {
        let (off, n) = (u32::try_from(offset)?, u32::try_from(len)?);
        if self.open.count > 0 {
            if let Some(last) = self.vecs.last_mut() {
                // Neighbours in a page are one range, under one reference.
                if last.bv_page == page && last.bv_offset.checked_add(last.bv_len) == Some(off) {
                    last.bv_len = last.bv_len.checked_add(n).ok_or(EINVAL)?;
                    self.open.bytes += len;
                    return Ok(());
                }
            }
        }
        if self.open.count >= MAX_VECS {
            self.cut(block)?;
        }
        let vec = bindings::bio_vec {
            bv_page: page,
            bv_len: n,
            bv_offset: off,
        };
        self.vecs.push_within_capacity(vec).map_err(|_| E2BIG)?;
        // SAFETY: The caller vouches for the page. INVARIANT: The entry has its reference.
        unsafe { raw::get_page(page) };
        self.open.count += 1;
        self.open.bytes += len;
        Ok(())
    }

    /// Ends the last bio.
    pub(super) fn finish(&mut self) -> Result {
        if self.open.count > 0 {
            self.cuts
                .push_within_capacity(self.open)
                .map_err(|_| E2BIG)?;
            self.open = Cut::default();
        }
        Ok(())
    }

    /// Ends the open bio at the last block boundary; what follows that starts the next bio.
    fn cut(&mut self, block: usize) -> Result {
        let over = self.open.bytes.checked_rem(block).ok_or(EINVAL)?;
        let mut moved = 0;
        let mut at = self.vecs.len();
        while moved < over && at > self.open.first {
            at -= 1;
            moved += self.vecs.get(at).ok_or(EINVAL)?.bv_len as usize;
        }
        if moved > over {
            // The range at `at` crosses the boundary: `keep` bytes of it stay.
            let keep = u32::try_from(moved - over)?;
            let vec = self.vecs.get_mut(at).ok_or(EINVAL)?;
            let mut rest = *vec;
            vec.bv_len = keep;
            rest.bv_offset = rest.bv_offset.checked_add(keep).ok_or(EINVAL)?;
            rest.bv_len = rest.bv_len.checked_sub(keep).ok_or(EINVAL)?;
            at += 1;
            self.vecs
                .insert_within_capacity(at, rest)
                .map_err(|_| E2BIG)?;
            // SAFETY: The page is referenced by its first half. INVARIANT: So is the second now.
            unsafe { raw::get_page(rest.bv_page) };
        }
        let cut = Cut {
            first: self.open.first,
            count: at.checked_sub(self.open.first).ok_or(EINVAL)?,
            bytes: self.open.bytes.checked_sub(over).ok_or(EINVAL)?,
        };
        if cut.bytes == 0 {
            // One block of more ranges than a bio holds.
            return Err(E2BIG);
        }
        self.cuts.push_within_capacity(cut).map_err(|_| E2BIG)?;
        self.open = Cut {
            first: at,
            count: self.vecs.len().checked_sub(at).ok_or(EINVAL)?,
            bytes: over,
        };
        Ok(())
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.clear();
    }
}

#[kunit_tests(replicate_linux_bio_segments)]
mod tests {
    use super::*;
    use crate::pages::PAGE_BYTES;
    use kernel::page::Page;

    /// Fills with ranges of `len(i)` bytes, and checks that the cuts are whole and complete.
    fn check(max: usize, n: usize, block: usize, len: impl Fn(usize) -> usize) -> Result<usize> {
        let page = Page::alloc_page(GFP_KERNEL)?;
        let mut segments = Segments::new(max)?;
        let mut total = 0;
        for i in 0..n {
            // Offsets that never continue the range before.
            let offset = if i % 2 == 0 { 0 } else { PAGE_BYTES - len(i) };
            // SAFETY: The page lives longer than `segments`.
            unsafe { segments.push(page.as_ptr(), offset, len(i), block) }?;
            total += len(i);
        }
        segments.finish()?;
        let mut sum = 0;
        let mut next = 0;
        for cut in segments.cuts() {
            if cut.first != next || cut.count == 0 || cut.count > MAX_VECS {
                return Err(EINVAL);
            }
            let bytes: usize = segments
                .vecs
                .iter()
                .skip(cut.first)
                .take(cut.count)
                .map(|v| v.bv_len as usize)
                .sum();
            if bytes != cut.bytes {
                return Err(EIO);
            }
            next = cut.first + cut.count;
            sum += bytes;
            if sum % block != 0 && sum != total {
                return Err(ERANGE);
            }
        }
        if sum != total || next != segments.vecs.len() {
            return Err(crate::errno::ENODATA.into());
        }
        Ok(segments.cuts().len())
    }

    #[test]
    fn cuts_are_whole_blocks_and_lose_nothing() -> Result {
        assert_eq!(check(512, 10, 512, |_| 4096)?, 1);
        assert_eq!(check(512, 256, 4096, |_| 4096)?, 1);
        assert_eq!(check(512, 512, 4096, |_| 4096)?, 2);
        // 512-byte steps on a device of 4096-byte blocks.
        assert_eq!(check(800, 800, 4096, |_| 512)?, 4);
        assert_eq!(
            check(769, 769, 4096, |i| if i == 0 { 512 } else { 4096 })?,
            4
        );
        assert_eq!(check(700, 700, 4096, |i| 512 * (1 + i % 7))?, 3);
        assert_eq!(check(700, 700, 512, |i| 512 * (1 + i % 7))?, 3);
        Ok(())
    }

    #[test]
    fn too_many_are_refused() -> Result {
        assert!(check(16, 64, 512, |_| 512).is_err());
        Ok(())
    }

    #[test]
    fn neighbours_are_joined() -> Result {
        let page = Page::alloc_page(GFP_KERNEL)?;
        let mut segments = Segments::new(2)?;
        for i in 0..8 {
            // SAFETY: The page lives longer than `segments`.
            unsafe { segments.push(page.as_ptr(), i * 512, 512, 512) }?;
        }
        segments.finish()?;
        assert_eq!(segments.vecs.len(), 1);
        assert_eq!(segments.cuts().len(), 1);
        Ok(())
    }
}
