// SPDX-License-Identifier: GPL-2.0

//! Writing a superblock: its copies on the device, as bytes; which of them are written, and which one a start chooses, the
//! core decides.
//!
//! A copy's write succeeds, fails and changes nothing, fails and is there all the same, or tears; the power fails before or after
//! any of them. Whatever happens, a start must find the former superblock or the new one, and the new one once its write was
//! called durable. Every pair that the exploration meets is tried once.

use std::{cell::RefCell, collections::HashMap};

use replicate_core::{
    log::{
        format::SUPERBLOCK_BYTES,
        superblock::{
            copy_offsets, validate, Choice, Found, Superblock, SuperblockError, WriteState,
            Written, COPIES,
        },
    },
    units::Bytes,
};

/// Size of the log device.
pub const DEVICE: Bytes = Bytes(64 << 20);

/// What a start may find, the former superblock or the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finds {
    pub former: bool,
    pub new: bool,
}

impl Finds {
    fn add(&mut self, content: Content) -> Result<(), String> {
        match content {
            Content::Older => return Err("a start finds an older superblock".into()),
            Content::Former => self.former = true,
            Content::New => self.new = true,
        }
        Ok(())
    }
}

/// What may come of a write that does not succeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// It failed: neither is certain.
    pub failed: Finds,
    /// The power failed in the middle.
    pub cut: Finds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Older,
    Former,
    New,
}

/// What becomes of the write of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copied {
    Written,
    Lost,
    There,
    Torn,
}

const COPIED: [Copied; 4] = [Copied::Written, Copied::Lost, Copied::There, Copied::Torn];

struct Image {
    /// Generation, content, and what it tore over.
    key: (u64, Content, Option<usize>),
    bytes: Vec<u8>,
    /// What the core makes of them.
    found: Result<Found, SuperblockError>,
}

/// The device, and what its host knows of its writes.
#[derive(Clone, Copy)]
struct Device {
    /// Numbers of images.
    copies: [usize; COPIES],
    state: WriteState,
}

struct Trial {
    /// By content: older, former, new.
    contents: [Vec<u8>; 3],
    images: Vec<Image>,
    outcomes: Outcomes,
}

thread_local! {
    static TRIED: RefCell<HashMap<(u64, u64), Outcomes>> = RefCell::default();
}

/// What may come of writing `new` over `former`; both as they are before a generation is chosen, known by their keys.
///
/// # Errors
///
/// A start finds something else, or refuses.
pub fn writing((a, former): (u64, &[u8]), (b, new): (u64, &[u8])) -> Result<Outcomes, String> {
    if let Some(known) = TRIED.with_borrow(|t| t.get(&(a, b)).copied()) {
        return Ok(known);
    }
    let outcomes = Trial::run(former, new)?;
    TRIED.with_borrow_mut(|t| t.insert((a, b), outcomes));
    Ok(outcomes)
}

impl Trial {
    fn run(former: &[u8], new: &[u8]) -> Result<Outcomes, String> {
        let mut older = former.to_vec();
        let sb = Superblock::mut_from(&mut older).ok_or("too short")?;
        sb.set_clean(!sb.clean());
        let mut trial = Trial {
            contents: [older, former.to_vec(), new.to_vec()],
            images: Vec::new(),
            outcomes: Outcomes::default(),
        };
        trial.images.push(Image {
            key: (0, Content::Older, None),
            bytes: vec![0; SUPERBLOCK_BYTES],
            found: Err(SuperblockError::Blank),
        });
        let blank = Device {
            copies: [0; COPIES],
            state: WriteState::default(),
        };
        let good = [Copied::Written; 2];
        let (older, _) = trial.write(blank, Content::Older, good, &mut Vec::new());
        // The former one is there in both copies of its slot, or in one of them and in the other slot.
        let mut begins = vec![trial.write(older, Content::Former, good, &mut Vec::new()).0];
        for one in [
            [Copied::Written, Copied::Torn],
            [Copied::Torn, Copied::Written],
        ] {
            let (half, _) = trial.write(older, Content::Former, one, &mut Vec::new());
            begins.push(trial.write(half, Content::Former, good, &mut Vec::new()).0);
        }
        for device in begins {
            trial.attempt(device, false)?;
        }
        Ok(trial.outcomes)
    }

    fn attempt(&mut self, device: Device, again: bool) -> Result<(), String> {
        for first in COPIED {
            for second in COPIED {
                let mut seen = vec![device.copies];
                let (after, written) = self.write(device, Content::New, [first, second], &mut seen);
                for copies in seen {
                    let found = self.start(&copies)?;
                    self.outcomes.cut.add(found)?;
                }
                let found = self.start(&after.copies)?;
                match written {
                    Written::Durable if found == Content::New => {}
                    Written::Durable => return Err("a start does not find what is durable".into()),
                    Written::Again if again => {
                        return Err("a superblock is written without end".into())
                    }
                    Written::Again => self.attempt(after, true)?,
                    Written::Unknown => self.outcomes.failed.add(found)?,
                }
            }
        }
        Ok(())
    }

    /// One generation: both copies of its slot. `seen`: the device after each.
    fn write(
        &mut self,
        mut device: Device,
        content: Content,
        becomes: [Copied; 2],
        seen: &mut Vec<[usize; COPIES]>,
    ) -> (Device, Written) {
        let mut bytes = self.contents[content as usize].clone();
        let sb = Superblock::mut_from(&mut bytes).expect("large enough");
        let mut attempt = device.state.begin(sb);
        for (offset, copied) in sb.write_offsets().into_iter().zip(becomes) {
            let place = copy_offsets(DEVICE).iter().position(|o| *o == offset);
            let copy = &mut device.copies[place.expect("a place of a copy")];
            *copy = match copied {
                Copied::Lost => *copy,
                Copied::Written | Copied::There => self.image(sb, content, None),
                Copied::Torn => self.image(sb, content, Some(*copy)),
            };
            attempt.copy_done(copied == Copied::Written);
            seen.push(device.copies);
        }
        let written = device.state.end(attempt);
        (device, written)
    }

    /// Number of the image of this generation; torn: its first half, and the second half of what was there.
    fn image(&mut self, sb: &mut Superblock, content: Content, torn: Option<usize>) -> usize {
        let key = (sb.generation(), content, torn);
        if let Some(known) = self.images.iter().position(|i| i.key == key) {
            return known;
        }
        let sealed = sb.seal();
        let mut bytes = torn.map_or_else(
            || vec![0; SUPERBLOCK_BYTES],
            |t| self.images[t].bytes.clone(),
        );
        let there = if torn.is_some() {
            sealed.len() / 2
        } else {
            sealed.len()
        };
        bytes[..there].copy_from_slice(&sealed[..there]);
        self.images.push(Image {
            found: validate(&bytes),
            bytes,
            key,
        });
        self.images.len() - 1
    }

    /// What a start goes by.
    fn start(&self, copies: &[usize; COPIES]) -> Result<Content, String> {
        let mut choice = Choice::new();
        for (i, image) in copies.iter().enumerate() {
            choice.consider(i, self.images[*image].found);
        }
        let (chosen, _) = choice
            .finish()
            .map_err(|e| format!("a start refuses: {e}"))?;
        Ok(self.images[copies[chosen]].key.1)
    }
}
