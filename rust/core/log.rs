// SPDX-License-Identifier: GPL-2.0

//! The Storage Replicator Log: its format, its space, how it is written and how it is believed.

pub mod batch;
pub mod format;
pub mod reader;
pub mod recovery;
pub mod ring;
pub mod superblock;
pub mod writer;
