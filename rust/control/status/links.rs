// SPDX-License-Identifier: GPL-2.0

//! What is told of a link.
use crate::{group::Group, link::Link};
use kernel::prelude::*;
use replicate_linux::genl::Message;

/// Adds a link to the nest that is open.
pub(super) fn tell(m: &mut Message, _group: &Group, link: &Link) -> Result {
    m.str(super::super::answer::of_link::NAME, link.name.as_str())
}
