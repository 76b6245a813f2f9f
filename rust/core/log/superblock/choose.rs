// SPDX-License-Identifier: GPL-2.0

//! Choosing among the four copies: the highest generation that is whole.

use super::{validate, Found, SuperblockError};

/// A choice in progress, one copy after the other, so that one buffer is enough.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    best: Option<(usize, Found)>,
    refusal: Option<SuperblockError>,
    trouble: Option<SuperblockError>,
}

impl Choice {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new() -> Choice {
        Choice {
            best: None,
            refusal: None,
            trouble: None,
        }
    }

    /// Takes what [`validate`] says of copy number `copy` into account. A copy that cannot be read
    /// is simply not considered.
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
        match (self.refusal, self.best) {
            (Some(e), _) => Err(e),
            (None, Some(best)) => Ok(best),
            (None, None) => Err(self.trouble.unwrap_or(SuperblockError::Short)),
        }
    }
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
        | SuperblockError::Shrunk { .. }
        | SuperblockError::Block { .. } => 5,
    }
}

/// The number of the copy to go by; `None` for one that could not be read.
pub fn choose(copies: [Option<&[u8]>; 4]) -> Result<usize, SuperblockError> {
    let mut choice = Choice::new();
    for (i, bytes) in copies.iter().enumerate() {
        if let Some(bytes) = bytes {
            choice.consider(i, validate(bytes));
        }
    }
    choice.finish().map(|(i, _)| i)
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_choose))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;
    use crate::{log::superblock::Signature, units::Bytes};

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
