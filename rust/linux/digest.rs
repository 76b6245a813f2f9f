// SPDX-License-Identifier: GPL-2.0

//! Checksums and keyed hashes, by the kernel's (accelerated) library functions.
//!
//! Any context; long inputs take time.

use crate::bindings as raw;
use core::mem::MaybeUninit;
use kernel::{bindings, prelude::*};

/// CRC-32C (Castagnoli) over `data`, continuing from `seed`, with the usual inversions at both
/// ends: `crc32c(crc32c(0, a), b)` is the checksum of `a` followed by `b`, and that of
/// `"123456789"` is `0xe306_9283`.
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    // SAFETY: `data` is valid for reading `data.len()` bytes.
    !unsafe { raw::crc32c(!seed, data.as_ptr().cast::<c_void>(), data.len()) }
}

/// Length of a SHA-256 in bytes.
pub const SHA256_BYTES: usize = 32;

/// HMAC-SHA256 with `key` over the concatenation of `parts`.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; SHA256_BYTES] {
    let mut ctx = MaybeUninit::<bindings::hmac_sha256_ctx>::uninit();
    let mut out = [0u8; SHA256_BYTES];
    // SAFETY: `ctx` is writable, `key` is valid for reading `key.len()` bytes.
    unsafe { raw::hmac_sha256_init_usingrawkey(ctx.as_mut_ptr(), key.as_ptr(), key.len()) };
    // SAFETY: Initialised by the call above.
    let ctx = unsafe { ctx.assume_init_mut() };
    for part in parts {
        // SAFETY: This is what the inline `hmac_sha256_update()` does; `part` is valid for reading.
        unsafe { raw::__sha256_update(&mut ctx.ctx.sha_ctx, part.as_ptr(), part.len()) };
    }
    // SAFETY: `ctx` is initialised, `out` has the length of the result. The call wipes `ctx`.
    unsafe { raw::hmac_sha256_final(ctx, out.as_mut_ptr()) };
    out
}

/// Compares in a time that does not depend on where the inputs differ. Different lengths are
/// unequal at once.
pub fn eq_const_time(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // SAFETY: Both are valid for reading `a.len()` bytes.
    unsafe {
        raw::__crypto_memneq(
            a.as_ptr().cast::<c_void>(),
            b.as_ptr().cast::<c_void>(),
            a.len(),
        ) == 0
    }
}

#[kunit_tests(replicate_linux_digest)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_known_answers() {
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(0, &[0u8; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(crc32c(0, b"1234"), b"56789"), 0xe306_9283);
        assert_eq!(crc32c(7, b""), 7);
    }

    #[test]
    fn hmac_known_answer() {
        // RFC 4231, test case 2.
        let expect = [
            0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95,
            0x75, 0xc7, 0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9,
            0x64, 0xec, 0x38, 0x43,
        ];
        let parts: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
        assert!(hmac_sha256(b"Jefe", &parts) == expect);
        assert!(hmac_sha256(b"Jefe", &[]) != expect);
    }

    #[test]
    fn comparison() {
        assert!(eq_const_time(b"abc", b"abc"));
        assert!(!eq_const_time(b"abc", b"abd"));
        assert!(!eq_const_time(b"abc", b"abcd"));
        assert!(eq_const_time(b"", b""));
    }
}
