// SPDX-License-Identifier: GPL-2.0

//! A refusal: an errno with the text that a user reads.
//!
//! Made where the cause is known, carried up to netlink (extack), device-mapper (the kernel log) or a
//! link's reason. The text names the object and the cause.

use core::fmt::{self, Write as _};
use kernel::prelude::*;

/// Longest text, in bytes.
const MAX_TEXT: usize = 400;

/// A formatted text of at most [`MAX_TEXT`] bytes.
pub(crate) struct Text(Option<KVec<u8>>);

impl Text {
    /// Formats a text; a longer one is cut. Does not sleep: what failed may be what frees memory. Where there is none
    /// the text is missing.
    #[inline(never)]
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Self {
        let mut bounded = Bounded::default();
        // A text that is too long is cut; that is no failure.
        let _ = bounded.write_fmt(text);
        Text(bounded.copy())
    }

    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        match &self.0 {
            Some(t) => core::str::from_utf8(t).unwrap_or("(text is not UTF-8)"),
            None => "out of memory",
        }
    }
}

/// Why something is not done.
pub(crate) struct Refusal {
    /// The errno for programs.
    pub(crate) error: Error,
    text: Text,
}

impl Refusal {
    /// Returns a refusal with its text. Does not sleep.
    pub(crate) fn new(error: impl Into<Error>, text: fmt::Arguments<'_>) -> Self {
        Refusal {
            error: error.into(),
            text: Text::new(text),
        }
    }

    /// Returns the text.
    pub(crate) fn text(&self) -> &str {
        self.text.as_str()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        if error == ENOMEM {
            return kernel::alloc::AllocError.into();
        }
        Refusal::new(
            error,
            format_args!("failed with error {}", error.to_errno()),
        )
    }
}

impl From<kernel::alloc::AllocError> for Refusal {
    fn from(_: kernel::alloc::AllocError) -> Self {
        Refusal {
            error: ENOMEM,
            text: Text(None),
        }
    }
}

impl From<Refusal> for Error {
    fn from(r: Refusal) -> Self {
        r.error
    }
}

/// A text that is cut where it grows too long.
pub(crate) struct Bounded {
    bytes: [u8; MAX_TEXT],
    len: usize,
}

impl Default for Bounded {
    fn default() -> Self {
        Bounded {
            bytes: [0; MAX_TEXT],
            len: 0,
        }
    }
}

impl Bounded {
    /// Returns a copy that is only as long as it must be, if there is memory for it. Does not sleep.
    fn copy(&self) -> Option<KVec<u8>> {
        let text = self.as_str().as_bytes();
        let mut copy = KVec::with_capacity(text.len(), GFP_NOWAIT | __GFP_NOWARN).ok()?;
        copy.extend_from_slice(text, GFP_NOWAIT | __GFP_NOWARN)
            .ok()?;
        Some(copy)
    }

    /// Returns what was written so far.
    pub(crate) fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or(&[]);
        core::str::from_utf8(bytes).unwrap_or("")
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            let mut utf8 = [0u8; 4];
            let c = c.encode_utf8(&mut utf8).as_bytes();
            let end = self.len + c.len();
            match self.bytes.get_mut(self.len..end) {
                Some(to) => to.copy_from_slice(c),
                None => return Err(fmt::Error),
            }
            self.len = end;
        }
        Ok(())
    }
}

#[kunit_tests(dm_replicate_refuse)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character() {
        let mut b = Bounded::default();
        for _ in 0..MAX_TEXT {
            let _ = b.write_str("\u{e4}b");
        }
        assert!(b.as_str().len() <= MAX_TEXT);
        assert!(b.as_str().len() > MAX_TEXT - 3);
        assert!(b.as_str().starts_with("\u{e4}b\u{e4}b"));
    }

    #[test]
    fn a_refusal_carries_errno_and_sentence() {
        let r = Refusal::new(ENOSPC, format_args!("volume {}: {} sectors", "db/data", 7));
        assert_eq!(r.text(), "volume db/data: 7 sectors");
        assert_eq!(Error::from(r).to_errno(), ENOSPC.to_errno());
        assert_eq!(Refusal::from(ENOMEM).text(), "out of memory");
    }
}
