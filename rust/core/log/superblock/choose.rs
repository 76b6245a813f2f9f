// SPDX-License-Identifier: GPL-2.0

//! Choosing among the four copies: the highest generation that is whole.
//!
//! A copy that is there and not whole is what a power cut leaves of a write that nobody acted on, or of one that failed and was
//! made good elsewhere. A copy that *cannot be read* may be a whole one that was acted on. What was acted on is in two
//! copies ([`super::write`]); so where one copy cannot be read and the three others are whole, the highest of those is no
//! older than anything that was acted on. In every other case it may be: the log is refused, for on an older superblock this host
//! would take up a past that its peers have left, and free or overwrite what the newer one keeps.

use super::{validate, Found, SuperblockError};
use crate::units::Bytes;

/// A choice in progress, one copy after the other, so that one buffer is enough.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    best: Option<(usize, Found)>,
    refusal: Option<SuperblockError>,
    trouble: Option<SuperblockError>,
    /// Copies that cannot be read.
    unreadable: u8,
}

impl Choice {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new() -> Choice {
        Choice {
            best: None,
            refusal: None,
            trouble: None,
            unreadable: 0,
        }
    }

    /// A copy cannot be read.
    pub fn unreadable(&mut self) {
        self.unreadable = self.unreadable.saturating_add(1);
    }

    /// Returns the size of the device when it was formatted, where a copy says so: it may have grown since, and the copies
    /// at the end lie where it ended then.
    #[must_use]
    pub fn device(&self) -> Option<Bytes> {
        self.best.map(|(_, found)| found.device)
    }

    /// Takes what [`validate`] says of copy number `copy` into account.
    pub fn consider(&mut self, copy: usize, result: Result<Found, SuperblockError>) {
        match result {
            Ok(found) => match self.best {
                Some((_, best)) if best.generation > found.generation => {}
                Some((_, best)) if best.generation == found.generation => {
                    if best.crc != found.crc {
                        self.refusal = Some(SuperblockError::Conflict(found.generation));
                    }
                }
                Some(_) | None => {
                    // A conflict between two older copies is none any more.
                    if matches!(self.refusal, Some(SuperblockError::Conflict(_))) {
                        self.refusal = None;
                    }
                    self.best = Some((copy, found));
                }
            },
            // Whole, and written by a newer version: what it says counts, and is not for us.
            Err(e @ (SuperblockError::Version(_) | SuperblockError::Features(_))) => {
                self.refusal = Some(e);
            }
            Err(e) => {
                if self.trouble.is_none_or(|t| weight(&e) > weight(&t)) {
                    self.trouble = Some(e);
                }
            }
        }
    }

    /// The number of the copy to go by.
    pub fn finish(self) -> Result<(usize, Found), SuperblockError> {
        let doubtful = match self.unreadable {
            0 => false,
            1 => self.trouble.is_some(),
            _ => true,
        };
        match (self.refusal, self.best) {
            (Some(e), _) => Err(e),
            (None, Some(_)) if doubtful => Err(SuperblockError::Unreadable(self.unreadable)),
            (None, Some(best)) => Ok(best),
            (None, None) if self.unreadable > 0 && self.trouble.is_none_or(is_nothing) => {
                Err(SuperblockError::Unreadable(self.unreadable))
            }
            (None, None) => Err(self.trouble.unwrap_or(SuperblockError::Short)),
        }
    }
}

/// Whether a copy says nothing about what the device holds.
const fn is_nothing(e: SuperblockError) -> bool {
    matches!(
        e,
        SuperblockError::Short | SuperblockError::Blank | SuperblockError::Crc
    )
}

/// Which of several troubles tells most.
const fn weight(e: &SuperblockError) -> u8 {
    match e {
        SuperblockError::Short => 0,
        SuperblockError::Blank => 1,
        SuperblockError::NotOurs(None) => 2,
        SuperblockError::NotOurs(Some(_)) => 3,
        SuperblockError::Crc => 4,
        SuperblockError::Malformed(_)
        | SuperblockError::Version(_)
        | SuperblockError::Features(_)
        | SuperblockError::Conflict(_)
        | SuperblockError::Unreadable(_)
        | SuperblockError::Shrunk { .. }
        | SuperblockError::Block { .. } => 5,
    }
}

/// The number of the copy to go by; `None` for one that could not be read.
pub fn choose(copies: [Option<&[u8]>; 4]) -> Result<usize, SuperblockError> {
    let mut choice = Choice::new();
    for (i, bytes) in copies.iter().enumerate() {
        match bytes {
            Some(bytes) => choice.consider(i, validate(bytes)),
            None => choice.unreadable(),
        }
    }
    choice.finish().map(|(i, _)| i)
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_choose))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::log::superblock::Signature;

    fn found(generation: u64, crc: u32) -> Result<Found, SuperblockError> {
        Ok(Found {
            generation,
            crc,
            device: Bytes(0),
        })
    }

    fn of(copies: [Result<Found, SuperblockError>; 4]) -> Result<usize, SuperblockError> {
        let mut c = Choice::new();
        for (i, copy) in copies.into_iter().enumerate() {
            c.consider(i, copy);
        }
        c.finish().map(|(i, _)| i)
    }

    /// `None`: it cannot be read.
    fn read(copies: [Option<Result<Found, SuperblockError>>; 4]) -> Result<usize, SuperblockError> {
        let mut c = Choice::new();
        for (i, copy) in copies.into_iter().enumerate() {
            match copy {
                Some(copy) => c.consider(i, copy),
                None => c.unreadable(),
            }
        }
        c.finish().map(|(i, _)| i)
    }

    #[test]
    fn a_copy_that_cannot_be_read_must_not_hide_a_newer_one() {
        let (a, b) = (Some(found(8, 1)), Some(found(7, 2)));
        // Whichever it is, another copy says what was acted on.
        assert_eq!(read([None, b, a, b]), Ok(2));
        assert_eq!(read([a, None, a, b]), Ok(0));
        assert_eq!(read([a, b, None, b]), Ok(0));
        assert_eq!(read([a, b, a, None]), Ok(0));
        // Generation 8 or 9 may be in those.
        let doubt = |n| Err(SuperblockError::Unreadable(n));
        assert_eq!(read([None, b, None, b]), doubt(2));
        assert_eq!(read([None, None, a, b]), doubt(2));
        assert_eq!(read([a, None, a, None]), doubt(2));
        assert_eq!(read([None, b, Some(BAD), b]), doubt(1));
        assert_eq!(read([None, b, a, Some(BAD)]), doubt(1));
        assert_eq!(read([None; 4]), doubt(4));
        let blank = Some(Err(SuperblockError::Blank));
        assert_eq!(read([None, blank, None, blank]), doubt(2));
        let newer = SuperblockError::Version(2);
        assert_eq!(read([None, Some(Err(newer)), None, b]), Err(newer));
    }

    const BAD: Result<Found, SuperblockError> = Err(SuperblockError::Crc);

    #[test]
    fn the_highest_whole_generation_wins() {
        assert_eq!(
            of([found(8, 1), found(7, 2), found(8, 1), found(7, 2)]),
            Ok(0)
        );
        assert_eq!(
            of([found(8, 1), found(9, 2), found(8, 1), found(7, 3)]),
            Ok(1)
        );
        assert_eq!(of([BAD, found(7, 2), found(8, 1), found(7, 2)]), Ok(2));
        assert_eq!(of([BAD, BAD, BAD, found(7, 2)]), Ok(3));
    }

    #[test]
    fn a_conflict_counts_only_at_the_top() {
        let conflict = Err(SuperblockError::Conflict(8));
        assert_eq!(of([found(8, 1), BAD, found(8, 2), BAD]), conflict);
        assert_eq!(of([found(8, 1), BAD, found(8, 2), found(9, 3)]), Ok(3));
        assert_eq!(
            of([found(9, 1), found(8, 2), found(9, 1), found(8, 3)]),
            Ok(0)
        );
    }

    #[test]
    fn a_newer_version_is_never_overruled() {
        let newer = Err(SuperblockError::Version(2));
        assert_eq!(
            of([found(8, 1), newer, found(8, 1), BAD]),
            Err(SuperblockError::Version(2))
        );
    }

    #[test]
    fn the_most_telling_trouble_is_named() {
        let xfs = Err(SuperblockError::NotOurs(Some(Signature::Xfs)));
        let data = Err(SuperblockError::NotOurs(None));
        let blank = Err(SuperblockError::Blank);
        assert_eq!(of([xfs, data, blank, blank]).err(), xfs.err());
        assert_eq!(of([blank; 4]).err(), Some(SuperblockError::Blank));
        assert_eq!(
            of([xfs, BAD, blank, blank]).err(),
            Some(SuperblockError::Crc)
        );
        assert_eq!(Choice::new().finish().err(), Some(SuperblockError::Short));
    }
}
