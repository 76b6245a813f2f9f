// SPDX-License-Identifier: GPL-2.0

//! The device and table that an instance belongs to.

use crate::{bdev::DevT, bindings as raw};
use core::marker::PhantomData;
use kernel::{bindings, new_mutex, prelude::*, sync::Arc, sync::Mutex};

/// An instance, inside of a callback.
///
/// # Invariants
///
/// `ti` is valid for `'a`.
pub struct Instance<'a> {
    ti: *mut raw::dm_target,
    _alive: PhantomData<&'a raw::dm_target>,
}

impl Instance<'_> {
    /// # Safety
    ///
    /// `ti` is an instance that lives as long as the result.
    pub(super) unsafe fn new(ti: *mut raw::dm_target) -> Self {
        // INVARIANT: Per the caller.
        Self {
            ti,
            _alive: PhantomData,
        }
    }

    /// Whether a suspend is in progress that does not wait for bios that are requeued.
    pub fn is_noflush_suspending(&self) -> bool {
        // SAFETY: By the type invariant. The same holds for all that follow.
        unsafe { raw::dm_noflush_suspending(self.ti) != 0 }
    }

    /// Length in sectors.
    pub fn len(&self) -> u64 {
        // SAFETY: As above.
        unsafe { (*self.ti).len }
    }

    /// Whether there are no sectors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The device's number as text, `253:3`.
    pub fn device_name(&self) -> &CStr {
        // SAFETY: As above.
        let table = unsafe { (*self.ti).table };
        // SAFETY: The table lives as long as the instance; its device's name does not change.
        unsafe { CStr::from_char_ptr(raw::dm_table_device_name(table)) }
    }
}

/// A table, for use from workers. It is dead, and all methods do nothing, once the instance's
/// destructor has begun.
///
/// The methods sleep, and wait for each other. Lock order: outside of device-mapper's event lock;
/// do not call them with a lock held that the destructor takes.
#[pin_data]
pub struct TableHandle {
    #[pin]
    table: Mutex<Alive>,
    dev: DevT,
}

/// # Invariants
///
/// Null, or a table that is not destroyed before this was set to null.
struct Alive(*mut raw::dm_table);

// SAFETY: A table may be used from any thread as long as it exists.
unsafe impl Send for Alive {}

impl TableHandle {
    /// # Safety
    ///
    /// `table` is valid until `kill()` is called.
    pub(super) unsafe fn new(table: *mut raw::dm_table) -> Result<Arc<Self>> {
        // SAFETY: Per the caller.
        let disk = unsafe { disk_of(table) };
        // The first block device gets its number later, when the disk is added.
        // SAFETY: The disk is valid.
        let (major, minor) = unsafe { ((*disk).major, (*disk).first_minor) };
        let dev = DevT {
            major: major.unsigned_abs(),
            minor: minor.unsigned_abs(),
        };
        // INVARIANT: Per the caller.
        let alive = Alive(table);
        Arc::pin_init(
            pin_init!(Self {
                table <- new_mutex!(alive, "TableHandle::table"),
                dev,
            }),
            GFP_KERNEL,
        )
    }

    /// Makes the handle dead. On return nobody is in one of its methods.
    pub(super) fn kill(&self) {
        // INVARIANT: Null.
        self.table.lock().0 = core::ptr::null_mut();
    }

    fn with<R>(&self, f: impl FnOnce(*mut raw::dm_table) -> R) -> Option<R> {
        let alive = self.table.lock();
        if alive.0.is_null() {
            None
        } else {
            Some(f(alive.0))
        }
    }

    fn with_disk<R>(&self, f: impl FnOnce(*mut bindings::gendisk) -> R) -> Option<R> {
        // SAFETY: `with()` gives a valid table.
        self.with(|table| f(unsafe { disk_of(table) }))
    }

    /// Number of the device-mapper device.
    pub fn dev(&self) -> DevT {
        self.dev
    }

    /// Raises a device-mapper event, for `dmsetup wait`. False if dead, as for all that follow.
    pub fn event(&self) -> bool {
        // SAFETY: `with()` gives a valid table, and keeps it until this returns.
        self.with(|table| unsafe { raw::dm_table_event(table) })
            .is_some()
    }

    /// Makes the device refuse writes, or not. Device-mapper sets it by the table's mode at each
    /// resume with a new table, so set it (again) in `resume`.
    pub fn set_read_only(&self, read_only: bool) -> bool {
        // SAFETY: `with_disk()` gives a valid disk.
        self.with_disk(|disk| unsafe { bindings::set_disk_ro(disk, read_only) })
            .is_some()
    }

    /// Drops clean, unused pages of the device's page cache: what was read before the contents
    /// changed from below.
    pub fn invalidate_cache(&self) -> bool {
        self.with_disk(|disk| {
            // SAFETY: `with_disk()` gives a valid disk, which has its first block device.
            unsafe { bindings::invalidate_bdev((*disk).part0) }
        })
        .is_some()
    }

    /// How often the device is open; `None` if dead.
    pub fn openers(&self) -> Option<u32> {
        // SAFETY: `with_disk()` gives a valid disk, which has its first block device.
        self.with_disk(|disk| unsafe { raw::bdev_openers((*disk).part0) })
    }
}

/// # Safety
///
/// `table` is valid.
unsafe fn disk_of(table: *mut raw::dm_table) -> *mut bindings::gendisk {
    // SAFETY: Per the caller.
    let md = unsafe { raw::dm_table_get_md(table) };
    // SAFETY: A table's device outlives it.
    unsafe { raw::dm_disk(md) }
}
