// SPDX-License-Identifier: GPL-2.0

//! Numbers and names of the netlink family, as `scripts/ynl-regen` makes them from the specification.

#[allow(dead_code, reason = "the whole interface is here, whether used or not")]
#[path = "../../../rust/generated/uapi.rs"]
mod generated;

pub use generated::*;

/// Returns the value that a name of a table stands for.
pub fn value_of(table: &[&str], name: &str) -> Option<u32> {
    table
        .iter()
        .position(|n| *n == name)
        .and_then(|i| u32::try_from(i).ok())
}

/// Returns the name of a value; a newer module may send one that this tool does not know.
pub fn name_of(table: &'static [&'static str], value: u32) -> String {
    match usize::try_from(value).ok().and_then(|i| table.get(i)) {
        Some(name) => (*name).to_string(),
        None => format!("unknown-{value}"),
    }
}

/// Returns the name of an attribute of a set.
pub fn attribute_name(names: &[&'static str], kind: u16) -> Option<&'static str> {
    names.get(usize::from(kind).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        assert_eq!(
            attribute_name(a_group::NAMES, a_group::HEAD_SEQ),
            Some("head-seq")
        );
        assert_eq!(attribute_name(a_link::NAMES, 0), None);
        assert_eq!(usize::from(cmd::EVENT), cmd::NAMES.len());
        let number = Reason::PeerAhead as u32;
        assert_eq!(name_of(REASON, number), "peer-ahead");
        assert_eq!(Reason::from_u32(number), Some(Reason::PeerAhead));
        assert_eq!(Reason::from_u32(4711), None);
    }

    #[test]
    fn names_and_values_agree() {
        assert_eq!(
            value_of(LINK_STATE, "streaming")
                .map(|v| name_of(LINK_STATE, v))
                .as_deref(),
            Some("streaming")
        );
        assert_eq!(value_of(LINK_STATE, "nonsense"), None);
        assert_eq!(name_of(LINK_STATE, 4711), "unknown-4711");
    }
}
