// SPDX-License-Identifier: GPL-2.0

//! Attributes of a command, and its answer.

use crate::{
    refuse::Refusal,
    registry::{self, Entry},
};
use core::fmt;
use kernel::{prelude::*, sync::Arc};
use replicate_core::group::Name;
use replicate_linux::{
    errno::EOPNOTSUPP,
    genl::{Attrs, Request},
};

/// Attributes that a command requires, with their names for the user.
pub(super) type Needs = [(u16, &'static str)];

/// Runs a command; a refusal is sent with its text.
pub(super) fn answer(
    request: &mut Request<'_>,
    what: &str,
    needs: &Needs,
    f: impl FnOnce(&Request<'_>, &Attrs<'_>) -> Result<(), Refusal>,
) -> Result {
    let attrs = request.attrs();
    for (id, noun) in needs {
        if attrs.get(*id).is_none() {
            return Err(request.fail_missing(*id, format_args!("{what}: {noun} required")));
        }
    }
    match f(request, &attrs) {
        Ok(()) => Ok(()),
        Err(refusal) => Err(request.fail(refusal.error, format_args!("{}", refusal.text()))),
    }
}

/// Returns a refusal with EINVAL.
pub(super) fn invalid(text: fmt::Arguments<'_>) -> Refusal {
    Refusal::new(EINVAL, text)
}

/// Returns the refusal of what the interface knows and this module does not do yet.
pub(super) fn not_yet(what: &str) -> Refusal {
    Refusal::new(EOPNOTSUPP, format_args!("{what}: not implemented"))
}

/// Returns the name in an attribute; `noun` says of what.
pub(super) fn name(attrs: &Attrs<'_>, id: u16, noun: &str) -> Result<Name, Refusal> {
    let text = attrs.str(id).unwrap_or("");
    Name::new(text.as_bytes()).ok_or_else(|| invalid(format_args!("invalid {noun} name '{text}'")))
}

/// Returns the group that the attribute names.
pub(super) fn entry(attrs: &Attrs<'_>, id: u16) -> Result<Arc<Entry>, Refusal> {
    let name = name(attrs, id, "group")?;
    registry::entry(&name).ok_or_else(|| registry::unknown(name.as_str()))
}
