// SPDX-License-Identifier: GPL-2.0

//! Netlink attributes: written by [`Builder`], read as [`Attrs`].
//!
//! Reading is lenient about what is unknown (a newer module) and yields nothing for a value of the
//! wrong length; nothing that the kernel sends can make it panic.

use netlink_packet_core::NlasIterator;

const HEADER: usize = 4;

/// Attributes being put together.
#[derive(Clone, Default)]
pub struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A string, with its terminating zero.
    pub fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.binary(kind, &bytes)
    }

    /// A 32-bit number or enum.
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.binary(kind, &value.to_ne_bytes())
    }

    /// A number of type uint: 4 bytes where it fits, else 8.
    pub fn uint(self, kind: u16, value: u64) -> Self {
        match u32::try_from(value) {
            Ok(small) => self.u32(kind, small),
            Err(_) => self.binary(kind, &value.to_ne_bytes()),
        }
    }

    /// A flag, if it is set.
    pub fn flag(self, kind: u16, value: bool) -> Self {
        if value {
            self.binary(kind, &[])
        } else {
            self
        }
    }

    /// Attributes within an attribute.
    #[cfg(test)]
    pub fn nest(self, kind: u16, inner: &Builder) -> Self {
        self.binary(kind | netlink_packet_core::NLA_F_NESTED, &inner.bytes)
    }

    /// Something else, if there is a value.
    pub fn option<T>(self, value: Option<T>, put: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => put(self, value),
            None => self,
        }
    }

    /// Bytes as they are. Everything that the tool sends is far below the limit of 64 KiB.
    pub fn binary(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + HEADER).expect("attributes are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// As they go on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Attributes that were received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    list: Vec<(u16, Vec<u8>)>,
}

impl Attrs {
    /// Takes the bytes apart; stops at the first attribute that does not fit in them.
    pub fn parse(bytes: &[u8]) -> Self {
        let list = NlasIterator::new(bytes)
            .map_while(Result::ok)
            .map(|nla| (nla.kind(), nla.value().to_vec()))
            .collect();
        Attrs { list }
    }

    /// Returns the bytes of the first attribute of a kind.
    pub fn bytes(&self, kind: u16) -> Option<&[u8]> {
        self.list
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, v)| v.as_slice())
    }

    /// Returns a string up to its terminating zero; what is not UTF-8 in it is replaced.
    pub fn string(&self, kind: u16) -> Option<String> {
        let bytes = self.bytes(kind)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        bytes
            .get(..end)
            .map(|b| String::from_utf8_lossy(b).into_owned())
    }

    /// Returns a 16-bit number.
    pub fn u16(&self, kind: u16) -> Option<u16> {
        self.bytes(kind)?.try_into().ok().map(u16::from_ne_bytes)
    }

    /// Returns a 32-bit number.
    pub fn u32(&self, kind: u16) -> Option<u32> {
        self.bytes(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// Returns a number of type uint, in either of its lengths.
    pub fn uint(&self, kind: u16) -> Option<u64> {
        let bytes = self.bytes(kind)?;
        match bytes.len() {
            4 => bytes.try_into().ok().map(u32::from_ne_bytes).map(u64::from),
            8 => bytes.try_into().ok().map(u64::from_ne_bytes),
            _ => None,
        }
    }

    /// Returns whether a flag is set.
    pub fn flag(&self, kind: u16) -> bool {
        self.bytes(kind).is_some()
    }

    /// Returns the attributes within the first one of a kind.
    pub fn nest(&self, kind: u16) -> Option<Attrs> {
        self.bytes(kind).map(Attrs::parse)
    }

    /// Returns the attributes within each one of a kind.
    pub fn each(&self, kind: u16) -> impl Iterator<Item = Attrs> + '_ {
        self.list
            .iter()
            .filter(move |(k, _)| *k == kind)
            .map(|(_, v)| Attrs::parse(v))
    }

    /// Returns every attribute taken as a nest: an array in the old style.
    pub fn nests(&self) -> impl Iterator<Item = Attrs> + '_ {
        self.list.iter().map(|(_, v)| Attrs::parse(v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_of_nested_attributes() {
        let link = |name: &str, seq| {
            Builder::new()
                .string(2, name)
                .uint(20, seq)
                .flag(17, seq > 5)
        };
        let sent = Builder::new()
            .string(1, "db")
            .u32(3, 7)
            .nest(31, &link("dr", 3))
            .nest(31, &link("dr2", u64::from(u32::MAX) + 1))
            .binary(12, &[9; 16]);
        assert_eq!(sent.as_bytes().len() % 4, 0);

        let got = Attrs::parse(sent.as_bytes());
        assert_eq!(got.string(1).as_deref(), Some("db"));
        assert_eq!(got.u32(3), Some(7));
        assert_eq!(got.bytes(12), Some([9; 16].as_slice()));
        let links: Vec<_> = got
            .each(31)
            .map(|l| (l.string(2).unwrap(), l.uint(20).unwrap(), l.flag(17)))
            .collect();
        assert_eq!(
            links,
            [("dr".into(), 3, false), ("dr2".into(), 1 << 32, true)]
        );
    }

    #[test]
    fn the_bytes_are_those_of_the_kernel() {
        let bytes = Builder::new()
            .string(1, "ab")
            .nest(2, &Builder::new().u32(3, 1))
            .as_bytes()
            .to_vec();
        let one = 1u32.to_ne_bytes();
        #[rustfmt::skip]
        let expected = [
            [7u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat(), b"ab\0\0".to_vec(),
            [12u16.to_ne_bytes(), 0x8002u16.to_ne_bytes()].concat(),
            [8u16.to_ne_bytes(), 3u16.to_ne_bytes()].concat(), one.to_vec(),
        ].concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn uint_has_two_lengths_and_no_others() {
        let small = Builder::new().uint(1, 5);
        let large = Builder::new().uint(1, 1 << 40);
        assert_eq!((small.as_bytes().len(), large.as_bytes().len()), (8, 12));
        assert_eq!(Attrs::parse(small.as_bytes()).uint(1), Some(5));
        assert_eq!(Attrs::parse(large.as_bytes()).uint(1), Some(1 << 40));
        assert_eq!(
            Attrs::parse(Builder::new().binary(1, &[1, 2]).as_bytes()).uint(1),
            None
        );
    }

    #[test]
    fn bytes_that_lie_about_their_length_are_dropped() {
        let good = Builder::new().u32(1, 1);
        for tail in [&[0xff, 0xff, 2, 0][..], &[3, 0, 2, 0], &[8], &[0, 0, 0, 0]] {
            let attrs = Attrs::parse(&[good.as_bytes(), tail].concat());
            assert_eq!((attrs.u32(1), attrs.bytes(2)), (Some(1), None), "{tail:?}");
        }
        assert_eq!(Attrs::parse(&[]), Attrs::default());
        assert_eq!(
            Attrs::parse(Builder::new().binary(1, &[0xff, 0xfe, 0]).as_bytes())
                .string(1)
                .unwrap()
                .chars()
                .count(),
            2
        );
    }
}
