// SPDX-License-Identifier: GPL-2.0

//! Attributes of a received message, as bytes.

use kernel::prelude::*;

/// Length of an attribute's header.
const HEADER: usize = 4;

/// The bits of the type that are not its number.
const FLAGS: u16 = (kernel::bindings::NLA_F_NESTED | kernel::bindings::NLA_F_NET_BYTEORDER) as u16;

/// A sequence of attributes: those of a message, or of a nest.
#[derive(Clone, Copy)]
pub struct Attrs<'a>(&'a [u8]);

/// One attribute.
#[derive(Clone, Copy)]
pub struct Attr<'a> {
    id: u16,
    /// Header and value.
    bytes: &'a [u8],
}

impl<'a> Attrs<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// All attributes in the order in which they were sent, repeated ones too.
    pub fn iter(&self) -> impl Iterator<Item = Attr<'a>> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (len, id) = match rest {
                [l0, l1, t0, t1, ..] => (
                    u16::from_ne_bytes([*l0, *l1]) as usize,
                    u16::from_ne_bytes([*t0, *t1]) & !FLAGS,
                ),
                _ => return None,
            };
            if len < HEADER {
                return None;
            }
            let bytes = rest.get(..len)?;
            // The last one may come without its padding.
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            Some(Attr { id, bytes })
        })
    }

    /// The attribute `id`; the last one if it is there several times.
    pub fn get(&self, id: u16) -> Option<Attr<'a>> {
        self.iter().filter(|attr| attr.id == id).last()
    }

    /// All attributes `id`.
    pub fn all(&self, id: u16) -> impl Iterator<Item = Attr<'a>> {
        self.iter().filter(move |attr| attr.id == id)
    }

    /// Whether `id` is there; what a flag means.
    pub fn flag(&self, id: u16) -> bool {
        self.get(id).is_some()
    }

    /// The value of `id` as a number; see [`Attr::u32`].
    pub fn u32(&self, id: u16) -> Option<u32> {
        self.get(id)?.u32()
    }

    /// The value of `id` as a number; see [`Attr::uint`].
    pub fn uint(&self, id: u16) -> Option<u64> {
        self.get(id)?.uint()
    }

    /// The value of `id` as text; see [`Attr::str`].
    pub fn str(&self, id: u16) -> Option<&'a str> {
        self.get(id)?.str()
    }

    /// The value of `id` as text for C; see [`Attr::c_str`].
    pub fn c_str(&self, id: u16) -> Option<&'a CStr> {
        self.get(id)?.c_str()
    }

    /// The value of `id`.
    pub fn bytes(&self, id: u16) -> Option<&'a [u8]> {
        Some(self.get(id)?.bytes())
    }

    /// The attributes in the nest `id`.
    pub fn nested(&self, id: u16) -> Option<Attrs<'a>> {
        Some(self.get(id)?.nested())
    }
}

impl<'a> Attr<'a> {
    /// Its number.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Its value.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// Its value as a number of 8 bits; `None` if it is not one byte long.
    pub fn u8(&self) -> Option<u8> {
        Some(u8::from_ne_bytes(self.bytes().try_into().ok()?))
    }

    /// Its value as a number of 16 bits; `None` if it is not two bytes long.
    pub fn u16(&self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.bytes().try_into().ok()?))
    }

    /// Its value as a number of 32 bits; `None` if it is not four bytes long.
    pub fn u32(&self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes().try_into().ok()?))
    }

    /// Its value as a number of 64 bits; `None` if it is not eight bytes long.
    pub fn u64(&self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.bytes().try_into().ok()?))
    }

    /// Its value as what YNL calls `uint`: a number of 32 or of 64 bits.
    pub fn uint(&self) -> Option<u64> {
        self.u32().map(u64::from).or_else(|| self.u64())
    }

    /// Its value as text, up to the first NUL; `None` if it is not UTF-8.
    pub fn str(&self) -> Option<&'a str> {
        let bytes = self.bytes();
        let len = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        core::str::from_utf8(bytes.get(..len)?).ok()
    }

    /// Its value as text with its NUL; `None` if that is missing.
    pub fn c_str(&self) -> Option<&'a CStr> {
        CStr::from_bytes_until_nul(self.bytes()).ok()
    }

    /// Its value as a nest.
    pub fn nested(&self) -> Attrs<'a> {
        Attrs(self.bytes())
    }
}

#[kunit_tests(replicate_linux_genl_attr)]
mod tests {
    use super::*;

    #[test]
    fn walks_and_stops_at_garbage() {
        // 1: u32 5; 2: "ab"; 1: u32 6; then a length beyond the end.
        let bytes = [
            8, 0, 1, 0, 5, 0, 0, 0, 7, 0, 2, 0, b'a', b'b', 0, 0, 8, 0, 1, 0x80, 6, 0, 0, 0, 200,
            0, 3, 0,
        ];
        let attrs = Attrs::new(&bytes);
        assert_eq!(attrs.iter().count(), 3);
        assert_eq!(attrs.u32(1), Some(6));
        assert_eq!(attrs.uint(1), Some(6));
        assert_eq!(attrs.all(1).filter_map(|a| a.u32()).sum::<u32>(), 11);
        assert_eq!(attrs.str(2), Some("ab"));
        assert!(attrs.c_str(2) == Some(c"ab"));
        assert_eq!(attrs.u32(2), None);
        assert!(!attrs.flag(3));
        assert_eq!(Attrs::new(&[]).iter().count(), 0);
        assert_eq!(Attrs::new(&[1, 0, 1]).iter().count(), 0);
        assert_eq!(Attrs::new(&[3, 0, 1, 0]).iter().count(), 0);
        assert_eq!(Attrs::new(&[4, 0, 1, 0]).iter().count(), 1);
    }
}
