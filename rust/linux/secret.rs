// SPDX-License-Identifier: GPL-2.0

//! Keys: bytes that are wiped before their memory is given back.

use crate::bindings as raw;
use kernel::prelude::*;

/// A key, or none (empty).
#[derive(Default)]
pub struct Secret(KVec<u8>);

impl Secret {
    /// A copy of `bytes`. Process context.
    pub fn copy(bytes: &[u8]) -> Result<Self> {
        // Of its size from the start: growing would leave a copy behind.
        let mut secret = KVec::with_capacity(bytes.len(), GFP_KERNEL)?;
        secret.extend_from_slice(bytes, GFP_KERNEL)?;
        Ok(Self(secret))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Overwrites `bytes` with zeros, and the compiler cannot take that away.
fn wipe(bytes: &mut [u8]) {
    // SAFETY: `bytes` is valid for writing its length.
    unsafe { raw::memzero_explicit(bytes.as_mut_ptr().cast::<c_void>(), bytes.len()) };
}

#[kunit_tests(replicate_linux_secret)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_and_wiped() -> Result {
        let mut secret = Secret::copy(b"sixteen bytes ok")?;
        assert!(secret.as_bytes() == b"sixteen bytes ok" && !secret.is_empty());
        wipe(&mut secret.0);
        assert!(secret.as_bytes() == [0; 16]);
        assert!(Secret::default().is_empty());
        Ok(())
    }
}
