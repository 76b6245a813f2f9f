// SPDX-License-Identifier: GPL-2.0

//! A part of a state that most steps leave as it is: copied when it changes, hashed once.

use std::{
    cell::Cell,
    hash::{Hash, Hasher},
    ops::{Deref, DerefMut},
    rc::Rc,
};

use crate::search::Mix;

/// See the module.
#[derive(Clone, Debug)]
pub struct Shared<T> {
    value: Rc<T>,
    key: Cell<Option<u64>>,
}

impl<T> Shared<T> {
    pub fn new(value: T) -> Shared<T> {
        Shared {
            value: Rc::new(value),
            key: Cell::new(None),
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.key.set(None);
        Rc::make_mut(&mut self.value)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Shared<T>) -> bool {
        Rc::ptr_eq(&self.value, &other.value) || self.value == other.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: Hash> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, h: &mut H) {
        let key = self.key.get().unwrap_or_else(|| {
            let mut h = Mix::default();
            self.value.hash(&mut h);
            h.finish()
        });
        self.key.set(Some(key));
        h.write_u64(key);
    }
}
