// SPDX-License-Identifier: GPL-2.0

//! What the hosts of a group know and tell each other about themselves: names, roles, volumes.
//!
//! Shared by the log format and the wire format, which share nothing else with each other but the
//! record header and the lineage. Every value here has one number, the same on disk and on the wire.

use core::fmt;

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::units::{Sector, VolumeId};

/// Bytes that a name takes on disk and on the wire.
pub const NAME_BYTES: usize = 64;

/// Name of a group, link or volume: 1 to 63 bytes of `A-Z a-z 0-9 . _ + : @ -`, padded with zeros.
///
/// Bytes that come from outside are only a name once [`Name::is_valid`] says so.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct Name([u8; NAME_BYTES]);

impl Name {
    /// The name of nothing.
    pub const NONE: Name = Name([0; NAME_BYTES]);

    /// The name `text`, when it may be one.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Name> {
        let mut name = Name::NONE;
        if text.is_empty() || text.len() >= NAME_BYTES || !text.iter().all(|b| allowed(*b)) {
            return None;
        }
        name.0.get_mut(..text.len())?.copy_from_slice(text);
        Some(name)
    }

    /// Whether it is the name of nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Name::NONE
    }

    /// Whether it is a well-formed name: allowed bytes, then nothing but zeros.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        Name::new(self.as_bytes()).is_some_and(|n| n == *self)
    }

    /// Its bytes without the padding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|b| *b == 0).next().unwrap_or(&[])
    }

    /// As text; `?` for what is no name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or("?")
    }
}

impl Default for Name {
    fn default() -> Name {
        Name::NONE
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'+' | b':' | b'@' | b'-')
}

/// An enum whose variants have fixed numbers, on disk and on the wire.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $n:literal $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $n),* }

        impl $name {
            /// Its number on disk and on the wire.
            #[must_use]
            pub const fn to_u8(self) -> u8 {
                match self { $($name::$variant => $n),* }
            }

            /// The one with this number.
            #[must_use]
            pub const fn from_u8(n: u8) -> Option<$name> {
                match n { $($n => Some($name::$variant),)* _ => None }
            }

            /// Its word in status and messages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use numbered;

numbered! {
    /// Role of a host in a group.
    #[derive(Default)]
    Role {
        /// Not decided yet: formatted, not in a group.
        #[default]
        None = 0 "none",
        /// Applications write here.
        Primary = 1 "primary",
        /// Records arrive here.
        Secondary = 2 "secondary",
    }
}

numbered! {
    /// What a host's volumes hold.
    #[derive(Default)]
    Replica {
        /// Nothing of the group yet.
        #[default]
        Empty = 0 "empty",
        /// One state of the group's history.
        Consistent = 1 "consistent",
        /// A mixture, while a resynchronisation is on its way.
        Inconsistent = 2 "inconsistent",
    }
}

numbered! {
    /// When a write completes, as far as one link is concerned.
    #[derive(Default)]
    Mode {
        /// Without waiting for the peer.
        #[default]
        Async = 0 "async",
        /// When the peer holds it in memory.
        Received = 1 "received",
        /// When the peer has it on stable storage.
        Logged = 2 "logged",
        /// When the peer has applied it to its volumes.
        Applied = 3 "applied",
    }
}

numbered! {
    /// Which synchronisation.
    #[derive(Default)]
    SyncKind {
        /// Everything, to the peer.
        #[default]
        Full = 1 "full",
        /// What changed, to the peer.
        Update = 2 "update",
        /// Everything, from the peer.
        FullReverse = 3 "full-reverse",
        /// What changed, from the peer.
        UpdateReverse = 4 "update-reverse",
    }
}

/// What hosts tell each other about a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Its number in the group, the same on all hosts.
    pub id: VolumeId,
    /// Its name, the same on all hosts.
    pub name: Name,
    /// Its size.
    pub size: Sector,
    /// Logical block size in bytes.
    pub logical_block: u32,
    /// Discard granularity in bytes; 0 when it cannot discard.
    pub discard_granularity: u32,
}

impl Volume {
    /// Whether it could be one: a name, a size, a block size that is a power of two up to 64 KiB.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.name.is_valid()
            && self.size.0 > 0
            && self.size.to_bytes().is_some()
            && self.logical_block.is_power_of_two()
            && (512..=65536).contains(&self.logical_block)
    }
}

#[cfg_attr(CONFIG_KUNIT, kernel::macros::kunit_tests(replicate_core_group))]
#[cfg_attr(not(CONFIG_KUNIT), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(Name::new(b"db-data.1").is_some_and(|n| n.is_valid() && n.as_str() == "db-data.1"));
        assert!(Name::new(&[b'x'; 63]).is_some_and(|n| n.is_valid()));
        assert!(Name::new(&[b'x'; 64]).is_none());
        assert!(Name::new(b"").is_none());
        assert!(Name::new(b"a b").is_none());
        assert!(Name::new(b"a/b").is_none());
        assert!(Name::new(b"a\0").is_none());
        assert!(!Name::NONE.is_valid());
    }

    #[test]
    fn name_with_something_after_its_end_is_none() {
        let mut raw = [0u8; NAME_BYTES];
        raw[0] = b'a';
        raw[2] = b'b';
        assert!(!Name(raw).is_valid());
        raw[2] = 0;
        assert!(Name(raw).is_valid());
    }

    #[test]
    fn numbers_are_fixed() {
        assert_eq!(Role::Primary.to_u8(), 1);
        assert_eq!(Role::from_u8(2), Some(Role::Secondary));
        assert_eq!(Role::from_u8(3), None);
        assert_eq!(Replica::from_u8(2), Some(Replica::Inconsistent));
        assert_eq!(Mode::from_u8(3), Some(Mode::Applied));
        assert_eq!(Mode::from_u8(4), None);
    }
}
