// SPDX-License-Identifier: GPL-2.0

//! The command `takeover`.

use super::answer::{answer, entry};
use crate::uapi::{a_group as g, cmd};
use kernel::prelude::*;
use replicate_linux::genl::Request;

/// Room for a name, an id, a number and a text of at most 400 bytes.
const CAPACITY: usize = 1024;

/// `takeover`. It may take as long as the log takes to become durable.
pub(super) fn takeover(request: &mut Request<'_>) -> Result {
    answer(
        request,
        "takeover",
        &[(g::NAME, "group name")],
        |request, attrs| {
            let entry = entry(attrs, g::NAME)?;
            let _turn = entry.turn();
            let done = entry.group.takeover(attrs.flag(g::FORCE))?;
            // It has happened: an answer that cannot be sent does not undo it, status tells the same.
            let told = (|| {
                let mut m = request.reply(cmd::TAKEOVER, CAPACITY)?;
                m.str(g::NAME, entry.group.name.as_str())?;
                m.bytes(g::EPOCH, &done.epoch.0)?;
                m.uint(g::HEAD_SEQ, done.head.0)?;
                m.str(g::TAKEOVER_TEXT, done.text.as_str())?;
                m.send()
            })();
            if let Err(e) = told {
                pr_warn!(
                    "group {}: took over; the answer could not be sent (error {})\n",
                    entry.group.name.as_str(),
                    e.to_errno()
                );
            }
            Ok(())
        },
    )
}
