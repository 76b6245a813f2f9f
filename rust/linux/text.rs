// SPDX-License-Identifier: GPL-2.0

//! Text for user space, into a buffer that somebody else made. Any context.

use core::fmt;
use kernel::prelude::*;

/// Writes text to a buffer of fixed size. As with C's `DMEMIT`, what does not fit is left out;
/// device-mapper sees the full buffer and tells user space to come back with a larger one.
///
/// # Invariants
///
/// If the buffer is not empty, `len` is below its length and the byte at `len` is 0.
pub struct Writer<'a> {
    buf: &'a mut [u8],
    len: usize,
    full: bool,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buf: &'a mut [u8]) -> Self {
        if let Some(first) = buf.first_mut() {
            *first = 0;
        }
        // INVARIANT: The first byte is 0.
        Self {
            buf,
            len: 0,
            full: false,
        }
    }

    /// Whether something did not fit.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.buf.len().saturating_sub(self.len).saturating_sub(1);
        let n = s.len().min(room);
        self.full = self.full || n < s.len();
        let end = self.len.saturating_add(n);
        if let (Some(to), Some(from)) = (self.buf.get_mut(self.len..end), s.as_bytes().get(..n)) {
            to.copy_from_slice(from);
            self.len = end;
        }
        // INVARIANT: The byte after the text is 0.
        if let Some(last) = self.buf.get_mut(self.len) {
            *last = 0;
        }
        Ok(())
    }
}

#[kunit_tests(replicate_linux_text)]
mod tests {
    use super::*;
    use core::fmt::Write as _;

    #[test]
    fn cuts_what_does_not_fit_and_ends_with_nul() {
        let mut buf = [0xffu8; 8];
        let mut out = Writer::new(&mut buf);
        assert!(out.is_empty());
        assert!(write!(out, "{}-ab", 12).is_ok());
        assert!(!out.is_full());
        assert!(write!(out, "cdefg").is_ok());
        assert!(out.is_full());
        assert!(buf == *b"12-abcd\0");
        let mut none = [];
        let mut out = Writer::new(&mut none);
        assert!(write!(out, "x").is_ok());
        assert!(out.is_full());
    }
}
