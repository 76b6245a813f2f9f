// SPDX-License-Identifier: GPL-2.0

//! How far a link's synchronisation is, on its way into the link's slot.
//!
//! The thread of a link with a session waits for no disk: it would send no heartbeats meanwhile. What the slot is to say it
//! leaves in the link's [`Recorder`]; the applier writes it, as it writes every superblock of a group that runs. The link's
//! thread asks again until it is durable, where something hangs on that.
//!
//! A note stays in the recorder until it is durable, beyond the end of the session, and a change of the slot by anybody else
//! has it applied first ([`Recorder::before`]): notes and changes are in the superblock in the order in which they were made.
//!
//! Trace without the first: all copies were sent, the synchronisation ends at 7. Before the slot says so the session ends,
//! and the note is dropped. The next session, which knows the end, tells the peer. The peer is consistent; the primary
//! loses power and goes on from its slot: a synchronisation without an end, of a peer that has long been consistent.
//! Trace without the second: the cursor of R1 waits; R2 begins, its slot says cursor 0; now the cursor of R1 is written. After a
//! power cut R2 leaves out what R1 had copied.

use crate::{
    log::superblock::Superblock,
    node::{
        durable::links::{self, NoSlot},
        links::LinkId,
    },
    units::{Sector, Seq, VolumeId},
};

/// What the slot is to say of the synchronisation that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// See [`links::sync_moved`].
    Moved {
        /// What the peer has of it durably.
        at: (VolumeId, Sector),
        /// Where it ends, once that is known.
        end: Option<Seq>,
    },
    /// See [`links::sync_over`].
    Over,
}

impl Note {
    /// Changes the slot.
    ///
    /// # Errors
    ///
    /// The link is gone.
    pub fn write(&self, sb: &mut Superblock, id: LinkId) -> Result<(), NoSlot> {
        match *self {
            Note::Moved { at, end } => links::sync_moved(sb, id, at, end),
            Note::Over => links::sync_over(sb, id),
        }
    }

    /// Whether a slot that says `self` says all of `other` on which something hangs: a cursor may be behind.
    fn says(&self, other: &Note) -> bool {
        match (self, other) {
            (Note::Moved { end, .. }, Note::Moved { end: wanted, .. }) => end == wanted,
            (Note::Over, Note::Over) => true,
            _ => false,
        }
    }
}

/// One link's notes. See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recorder {
    waits: Option<Note>,
    durable: Option<Note>,
}

impl Recorder {
    /// The slot is to say this, soon; a newer note takes the place of one that waits.
    pub fn note(&mut self, note: Note) {
        self.waits = Some(note);
    }

    /// The slot is to say this before its caller goes on. Returns whether it does; else the caller asks again.
    pub fn is_durable(&mut self, note: Note) -> bool {
        if self.durable.is_some_and(|d| d.says(&note)) {
            return true;
        }
        if !self.waits.is_some_and(|w| w.says(&note)) {
            self.waits = Some(note);
        }
        false
    }

    /// Returns what is to be written: ask for it when the superblock is in hand.
    #[must_use]
    pub fn waits(&self) -> Option<Note> {
        self.waits
    }

    /// That note is durable.
    pub fn written(&mut self, note: Note) {
        self.waits.take_if(|w| *w == note);
        self.durable = Some(note);
    }

    /// The slot is about to be changed by another: what waits comes first.
    ///
    /// # Errors
    ///
    /// The link is gone.
    pub fn before(&self, sb: &mut Superblock, id: LinkId) -> Result<Option<Note>, NoSlot> {
        if let Some(note) = &self.waits {
            note.write(sb, id)?;
        }
        Ok(self.waits)
    }

    /// That change is durable, and with it what [`Self::before`] returned. What the slot said of a synchronisation may be
    /// about another one from now on.
    pub fn changed(&mut self, before: Option<Note>) {
        self.waits.take_if(|w| before == Some(*w));
        self.durable = None;
    }

    /// The link is gone.
    pub fn forget(&mut self) {
        *self = Recorder::default();
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_progress))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    fn moved(sector: u64, end: Option<u64>) -> Note {
        Note::Moved {
            at: (VolumeId(0), Sector(sector)),
            end: end.map(Seq),
        }
    }

    #[test]
    fn an_end_is_asked_for_until_it_is_durable() {
        let mut r = Recorder::default();
        r.note(moved(8, None));
        assert!(!r.is_durable(moved(8, Some(7))));
        assert_eq!(r.waits(), Some(moved(8, Some(7))));
        // The cursor moves on while it is written: that is no other end.
        assert!(!r.is_durable(moved(16, Some(7))));
        assert_eq!(r.waits(), Some(moved(8, Some(7))));
        r.written(moved(8, Some(7)));
        assert!(r.is_durable(moved(16, Some(7))));
        assert!(r.waits().is_none());
        assert!(!r.is_durable(moved(16, Some(9))));
    }

    #[test]
    fn a_note_that_came_while_one_was_written_is_written_next() {
        let mut r = Recorder::default();
        r.note(moved(8, None));
        r.note(moved(16, None));
        r.written(moved(8, None));
        assert_eq!(r.waits(), Some(moved(16, None)));
        assert!(!r.is_durable(Note::Over));
        r.written(moved(16, None));
        assert_eq!(r.waits(), Some(Note::Over));
        r.written(Note::Over);
        assert!(r.is_durable(Note::Over));
    }

    #[test]
    fn what_another_synchronisation_said_counts_no_more() {
        let mut r = Recorder::default();
        assert!(!r.is_durable(moved(8, Some(7))));
        r.changed(Some(moved(8, Some(7))));
        assert!(r.waits().is_none() && !r.is_durable(moved(8, Some(7))));
        // One that came after the change stays.
        r.note(moved(16, None));
        r.changed(Some(moved(8, Some(7))));
        assert_eq!(r.waits(), Some(moved(16, None)));
        r.forget();
        assert_eq!(r, Recorder::default());
    }
}
