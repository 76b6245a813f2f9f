// SPDX-License-Identifier: GPL-2.0

//! Why a state is what it is, as a number for programs.

pub(crate) use crate::uapi::Reason;

impl Reason {
    /// Returns the number that netlink uses.
    pub(crate) const fn code(self) -> u32 {
        self as u32
    }
}
