// SPDX-License-Identifier: GPL-2.0

//! A generic netlink message: the 4-byte header and the attributes.

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};

use super::attr::{Attrs, Builder};
use crate::uapi;

const HEADER: usize = 4;

/// One message of a family, in either direction.
#[derive(Debug)]
pub struct Message {
    /// The family's number.
    pub family: u16,
    /// Its command.
    pub cmd: u8,
    /// What was received.
    pub attrs: Attrs,
    body: Vec<u8>,
}

impl Message {
    /// Returns a message to be sent.
    pub fn new(family: u16, cmd: u8, attrs: &Builder) -> Self {
        Message {
            family,
            cmd,
            attrs: Attrs::default(),
            body: attrs.as_bytes().to_vec(),
        }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let header = [self.cmd, uapi::FAMILY_VERSION, 0, 0];
        for (to, from) in buffer.iter_mut().zip(header.iter().chain(&self.body)) {
            *to = *from;
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (&cmd, attrs) = payload
            .first()
            .zip(payload.get(HEADER..))
            .ok_or_else(|| DecodeError::buffer_too_small(payload.len(), HEADER))?;
        Ok(Message {
            family: header.message_type,
            cmd,
            attrs: Attrs::parse(attrs),
            body: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};

    #[test]
    fn round_trip() {
        let sent = Message::new(0x1f, 5, &Builder::new().string(1, "db"));
        let mut sent =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(sent));
        sent.finalize();
        let mut bytes = vec![0xee; sent.buffer_len()];
        sent.serialize(&mut bytes);
        assert_eq!(bytes.len(), 16 + 4 + 8);

        let got = NetlinkMessage::<Message>::deserialize(&bytes).unwrap();
        let NetlinkPayload::InnerMessage(got) = got.payload else {
            panic!("not an inner message");
        };
        assert_eq!((got.family, got.cmd), (0x1f, 5));
        assert_eq!(got.attrs.string(1).as_deref(), Some("db"));
    }

    #[test]
    fn a_message_without_its_header_is_refused() {
        let header = NetlinkHeader::default();
        assert!(Message::deserialize(&header, &[1, 1, 0]).is_err());
        assert!(Message::deserialize(&header, &[]).is_err());
    }
}
