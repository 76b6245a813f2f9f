// SPDX-License-Identifier: GPL-2.0

//! Random numbers of the kernel's cryptographic generator. Any context.

use kernel::{bindings, prelude::*};

/// Fills `buf` with random bytes.
pub fn fill(buf: &mut [u8]) {
    // SAFETY: `buf` is valid for writing `buf.len()` bytes.
    unsafe { bindings::get_random_bytes(buf.as_mut_ptr().cast::<c_void>(), buf.len()) };
}

/// A random number.
pub fn u64() -> u64 {
    let mut bytes = [0u8; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

#[kunit_tests(replicate_linux_random)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ() {
        let mut id = [0u8; 16];
        fill(&mut id);
        assert!(id != [0u8; 16]);
        assert!(u64() != u64());
    }
}
