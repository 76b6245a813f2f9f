// SPDX-License-Identifier: GPL-2.0

//! The storage that the core works in: vectors made once, when a group is added.

use kernel::prelude::*;
use replicate_core::{
    log::ring::Mark,
    node,
    node::{links::Position, volumes::Volume, window::Slot},
    units::Seq, //
};

/// A vector whose length never changes, as the core wants its storage.
pub(crate) struct Fixed<T>(KVVec<T>);

impl<T: Clone> Fixed<T> {
    /// `n` copies of `value`. May sleep.
    pub(crate) fn new(n: usize, value: T) -> Result<Self> {
        Ok(Fixed(KVVec::from_elem(value, n, GFP_KERNEL)?))
    }
}

impl<T> Fixed<T> {
    /// As many `None`s, or other things that cannot be cloned, as `make` gives. May sleep.
    pub(crate) fn from_fn(n: usize, mut make: impl FnMut() -> T) -> Result<Self> {
        let mut v = KVVec::with_capacity(n, GFP_KERNEL)?;
        for _ in 0..n {
            v.push(make(), GFP_KERNEL)?;
        }
        Ok(Fixed(v))
    }
}

impl<T> AsRef<[T]> for Fixed<T> {
    fn as_ref(&self) -> &[T] {
        &self.0
    }
}

impl<T> AsMut<[T]> for Fixed<T> {
    fn as_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// The kernel's storage for a node.
pub(crate) struct KernelMemory;

impl node::Memory for KernelMemory {
    type Slots = Fixed<Slot>;
    type Heads = Fixed<Seq>;
    type Marks = Fixed<Mark>;
    type Volumes = Fixed<Volume>;
    type Links = Fixed<Option<Position>>;
}

/// The node as the module runs it.
pub(crate) type Node = node::Node<KernelMemory>;
