// SPDX-License-Identifier: GPL-2.0

//! A refusal by the kernel: its errno and the extended acknowledgement.

use netlink_packet_core::ErrorMessage;

use super::attr::Attrs;
use crate::{
    error::{plain, Error, Exit},
    uapi::{self, cmd},
};

// linux/netlink.h
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_HEADER: usize = 16;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;
const NLMSGERR_ATTR_MISS_TYPE: u16 = 5;

/// What the kernel said.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Positive errno.
    pub errno: i32,
    message: Option<String>,
    bad_attribute: Option<u16>,
    missing_attribute: Option<u16>,
}

impl Refusal {
    /// From an error message and the flags of its header; `request` is what was sent.
    pub fn of_error(error: &ErrorMessage, flags: u16, request: &[u8]) -> Self {
        // The request's header comes back, and its body too unless that was switched off.
        let echoed = if flags & NLM_F_CAPPED != 0 {
            NLMSG_HEADER
        } else {
            request.len()
        };
        let tlvs = match flags & NLM_F_ACK_TLVS {
            0 => &[],
            _ => error.header.get(echoed..).unwrap_or(&[]),
        };
        Self::new(error.raw_code(), tlvs, request)
    }

    /// From a negative errno and the attributes of the extended acknowledgement.
    pub fn new(code: i32, tlvs: &[u8], request: &[u8]) -> Self {
        let tlvs = Attrs::parse(tlvs);
        let bad_attribute = tlvs.u32(NLMSGERR_ATTR_OFFS).and_then(|offset| {
            let kind_at = usize::try_from(offset).ok()?.checked_add(2)?;
            let kind = request.get(kind_at..kind_at.checked_add(2)?)?;
            kind.try_into().ok().map(u16::from_ne_bytes)
        });
        Refusal {
            errno: code.saturating_abs(),
            message: tlvs.string(NLMSGERR_ATTR_MSG).filter(|m| !m.is_empty()),
            bad_attribute,
            missing_attribute: tlvs
                .u32(NLMSGERR_ATTR_MISS_TYPE)
                .and_then(|kind| u16::try_from(kind).ok()),
        }
    }

    /// Returns the error for the user.
    pub fn explain(&self, doing: &str, command: u8) -> Error {
        let why = match &self.message {
            Some(message) => message.clone(),
            None => plain(&std::io::Error::from_raw_os_error(self.errno)),
        };
        let names = attribute_names(command);
        let name = |kind: Option<u16>| kind.and_then(|k| uapi::attribute_name(names, k & 0x3fff));
        let mut what = format!("{doing}: {why}");
        if let Some(name) = name(self.missing_attribute) {
            what += &format!(" (missing: {name})");
        } else if let Some(name) = name(self.bad_attribute) {
            what += &format!(" (attribute: {name})");
        }

        let error = Error::new(what);
        match self.errno {
            libc::EBUSY if command == cmd::GROUP_DEL => error
                .hint("Remove its links (dmrepl link del) and its devices (dmsetup remove) first."),
            libc::EKEYREJECTED if command == cmd::LINK_ADD => {
                error.hint("Set one first: dmrepl group set GROUP --secret-file FILE.")
            }
            libc::EPERM | libc::EACCES if self.message.is_none() => error
                .hint("This needs CAP_SYS_ADMIN in the initial user and network namespaces: run it as root on the host itself.")
                .exit(Exit::NotPermitted),
            libc::ENOENT => error.exit(Exit::NotFound),
            libc::EOPNOTSUPP if self.message.is_none() => error
                .hint("The loaded module does not know this command; load the one that belongs to this tool."),
            _ => error,
        }
    }
}

fn attribute_names(command: u8) -> &'static [&'static str] {
    match command {
        cmd::LINK_ADD
        | cmd::LINK_DEL
        | cmd::LINK_SET
        | cmd::LINK_CONNECT
        | cmd::LINK_DISCONNECT
        | cmd::SYNC => uapi::a_link::NAMES,
        _ => uapi::a_group::NAMES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::Builder;

    const EINVAL: i32 = 22;

    /// A request as it was sent: 16 + 4 bytes of headers, then the attributes.
    fn request(attrs: &Builder) -> Vec<u8> {
        [&[0; 20], attrs.as_bytes()].concat()
    }

    #[test]
    fn the_text_is_passed_on_word_by_word() {
        let tlvs = Builder::new().string(
            NLMSGERR_ATTR_MSG,
            "SRL /dev/vdc: not formatted; run dmrepl srl format",
        );
        let refusal = Refusal::new(-EINVAL, tlvs.as_bytes(), &[]);
        let error = refusal.explain("cannot add group db", cmd::GROUP_ADD);
        assert_eq!(
            error.to_string(),
            "dmrepl: error: cannot add group db: SRL /dev/vdc: not formatted; run dmrepl srl format"
        );
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn attributes_are_named() {
        let sent = request(
            &Builder::new()
                .string(uapi::a_link::GROUP, "db")
                .string(uapi::a_link::LOCAL, "x"),
        );
        let tlvs = Builder::new()
            .string(NLMSGERR_ATTR_MSG, "no")
            .u32(NLMSGERR_ATTR_OFFS, 28);
        let error = Refusal::new(-EINVAL, tlvs.as_bytes(), &sent).explain("d", cmd::LINK_ADD);
        assert!(
            error.to_string().ends_with("d: no (attribute: local)"),
            "{error}"
        );

        let tlvs = Builder::new().u32(NLMSGERR_ATTR_MISS_TYPE, uapi::a_group::SRL.into());
        let error = Refusal::new(-EINVAL, tlvs.as_bytes(), &sent).explain("d", cmd::GROUP_ADD);
        assert!(
            error
                .to_string()
                .ends_with("d: Invalid argument (missing: srl)"),
            "{error}"
        );
    }

    #[test]
    fn errors_without_a_text() {
        let error = Refusal::new(-libc::EPERM, &[], &[]).explain("d", cmd::GROUP_ADD);
        assert_eq!(error.exit_code(), Exit::NotPermitted as u8);
        let error = Refusal::new(-libc::ENOENT, &[], &[]).explain("d", cmd::GROUP_DEL);
        assert_eq!(error.exit_code(), Exit::NotFound as u8);
    }

    #[test]
    fn both_forms_of_an_error_message() {
        let sent = request(&Builder::new().string(1, "db"));
        let tlvs = Builder::new().string(NLMSGERR_ATTR_MSG, "why");
        let mut error = ErrorMessage::default();
        error.code = std::num::NonZeroI32::new(-EINVAL);

        error.header = [&sent[..16], tlvs.as_bytes()].concat();
        let capped = Refusal::of_error(&error, NLM_F_CAPPED | NLM_F_ACK_TLVS, &sent);
        error.header = [&sent, tlvs.as_bytes()].concat();
        let whole = Refusal::of_error(&error, NLM_F_ACK_TLVS, &sent);
        assert_eq!(capped.message.as_deref(), Some("why"));
        assert_eq!(capped, whole);

        // An offset beyond the request, and a body that is too short, are no reason to fail.
        let tlvs = Builder::new().u32(NLMSGERR_ATTR_OFFS, u32::MAX);
        assert_eq!(
            Refusal::new(-EINVAL, tlvs.as_bytes(), &sent).bad_attribute,
            None
        );
        error.header = vec![1, 2, 3];
        assert_eq!(
            Refusal::of_error(&error, NLM_F_ACK_TLVS, &sent).message,
            None
        );
    }
}
