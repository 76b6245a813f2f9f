// SPDX-License-Identifier: GPL-2.0

//! I/O that is waited for. Process context.

use super::bind_root;
use crate::{
    bdev::{BlockDevice, SECTOR_BYTES},
    bindings as raw,
    pages::PageBuf,
};
use kernel::{bindings, error::to_result, prelude::*};

/// The most pages in one bio.
const MAX_VECS: usize = bindings::BIO_MAX_VECS as usize;

/// One page's part of an I/O: page, offset, length.
type Part = (*mut bindings::page, usize, usize);

/// Does one bio of at most `MAX_VECS` parts.
pub(crate) fn rw_sync(
    dev: &BlockDevice,
    opf: bindings::blk_opf_t,
    sector: u64,
    parts: &[Part],
) -> Result {
    let bytes: usize = parts.iter().map(|part| part.2).sum();
    let sectors = u64::try_from(bytes / SECTOR_BYTES).map_err(|_| EINVAL)?;
    let end = sector.checked_add(sectors).ok_or(EINVAL)?;
    if parts.len() > MAX_VECS || bytes % SECTOR_BYTES != 0 || end > dev.nr_sectors() {
        return Err(EINVAL);
    }
    let opf = opf | raw::REQ_SYNC | raw::REQ_IDLE;
    // SAFETY: One bio at a time, so the mempool behind it makes progress: this does not fail.
    let bio = unsafe {
        bindings::bio_alloc_bioset(
            core::ptr::null_mut(),
            c_ushort::try_from(parts.len())?,
            opf,
            raw::GFP_MASK_NOIO,
            &raw mut bindings::fs_bio_set,
        )
    };
    if bio.is_null() {
        return Err(ENOMEM);
    }
    // SAFETY: A new bio without a device; `dev` is open.
    unsafe { bind_root(bio, dev.as_ptr()) };
    // SAFETY: The bio is ours until it is submitted.
    unsafe { (*bio).bi_iter.bi_sector = sector };
    let mut fits = true;
    for (page, offset, len) in parts {
        // SAFETY: The caller's pages live until this returns; the bio has room for all parts.
        let added =
            unsafe { bindings::bio_add_page(bio, *page, *len as c_uint, *offset as c_uint) };
        fits = fits && usize::try_from(added) == Ok(*len);
    }
    let result = if fits {
        // SAFETY: The bio is complete, and this is process context.
        to_result(unsafe { bindings::submit_bio_wait(bio) })
    } else {
        Err(EINVAL)
    };
    // SAFETY: The reference from the allocation.
    unsafe { bindings::bio_put(bio) };
    result
}

/// Does I/O on a range of a buffer, in as many bios as it takes.
pub(crate) fn rw_buf_sync(
    dev: &BlockDevice,
    opf: bindings::blk_opf_t,
    sector: u64,
    buf: &PageBuf,
    offset: usize,
    len: usize,
) -> Result {
    // One page less than a bio holds: the first and the last may be partial. The pieces are whole
    // pages long, so every logical block size up to a page divides them.
    const STEP: usize = (MAX_VECS - 1) * crate::pages::PAGE_BYTES;

    let mut parts = KVec::<Part>::with_capacity(MAX_VECS, GFP_KERNEL)?;
    let mut opf = opf;
    let mut done = 0;
    while done < len {
        let n = STEP.min(len - done);
        parts.clear();
        let mut full = false;
        let start = offset.checked_add(done).ok_or(EINVAL)?;
        buf.segment_pages(start, n, |page, off, n| {
            full |= parts.push_within_capacity((page, off, n)).is_err();
        })
        .ok_or(EINVAL)?;
        if full {
            return Err(EINVAL);
        }
        let skip = u64::try_from(done / SECTOR_BYTES).map_err(|_| EINVAL)?;
        rw_sync(dev, opf, sector.checked_add(skip).ok_or(EINVAL)?, &parts)?;
        opf &= !raw::REQ_PREFLUSH;
        done += n;
    }
    Ok(())
}
