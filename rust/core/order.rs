// SPDX-License-Identifier: GPL-2.0

//! Write order: the records that are in memory, which may pass which, and which may complete.

pub mod applier;
pub mod gate;
pub mod window;

/// Storage handed in by the caller: the core allocates nothing.
///
/// The kernel gives a vector made once at group creation, tests a `Vec`, the explorer a small array.
pub trait Store<T>: AsRef<[T]> + AsMut<[T]> {}

impl<T, S: AsRef<[T]> + AsMut<[T]>> Store<T> for S {}
