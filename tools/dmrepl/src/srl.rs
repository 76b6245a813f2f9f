// SPDX-License-Identifier: GPL-2.0

//! SRL devices, without the kernel module: format, dump, check.
//!
//! What the bytes mean is decided by `replicate_core`, the same code as in the module; here are only
//! the device and the words.

mod check;
mod copies;
mod device;
mod dump;
mod format;
mod ring;
mod signature;

use crate::{cli::Srl, error::Result};

/// `dmrepl srl ...`
pub fn run(command: &Srl) -> Result {
    match command {
        Srl::Format {
            device,
            no_ring,
            force,
        } => format::run(device, !no_ring, *force),
        Srl::Dump { device, all, json } => dump::run(device, *all, *json),
        Srl::Check { device } => check::run(device),
    }
}
