// SPDX-License-Identifier: GPL-2.0

//! `dmrepl version`: the tool, the module that is loaded, and the formats that they know.

use std::fs;

use crate::{netlink::Connection, uapi};

const MODULE: &str = "/sys/module/dm_replicate";

/// Returns what there is to say. That the module is not loaded is no error here.
pub fn text() -> String {
    let mut lines = vec![
        format!("dmrepl {}", env!("CARGO_PKG_VERSION")),
        format!(
            "  netlink family {} version {}",
            uapi::FAMILY_NAME,
            uapi::FAMILY_VERSION
        ),
        format!(
            "  srl format version {}",
            replicate_core::log::format::VERSION
        ),
        format!("  wire protocol version {}", replicate_core::wire::VERSION),
    ];
    let about = |what: &str| {
        fs::read_to_string(format!("{MODULE}/{what}"))
            .ok()
            .map(|v| v.trim().to_string())
    };
    match Connection::open() {
        Ok(connection) => {
            lines.push(format!(
                "module dm_replicate {}",
                about("version").unwrap_or_else(|| "(loaded)".into())
            ));
            lines.push(format!(
                "  netlink family version {}",
                connection.family_version()
            ));
            if let Some(source) = about("srcversion") {
                lines.push(format!("  source {source}"));
            }
        }
        Err(_) => lines.push("module dm_replicate: not loaded".into()),
    }
    lines.join("\n")
}
