// SPDX-License-Identifier: GPL-2.0

//! What a constructor gets: its arguments, and the instance that is being made.

use super::table::TableHandle;
use crate::{bdev::BlockDevice, bindings as raw};
use core::{fmt, marker::PhantomData, ptr::NonNull};
use kernel::{bindings, error::to_result, prelude::*, sync::Arc};

/// The words of a table line or of a message.
///
/// # Invariants
///
/// `argv` has `argc` valid C strings that live for `'a`.
pub struct Args<'a> {
    argv: *const *mut c_char,
    argc: usize,
    _strings: PhantomData<&'a CStr>,
}

impl<'a> Args<'a> {
    /// # Safety
    ///
    /// `argv` has `argc` valid C strings that live for `'a`.
    pub(super) unsafe fn from_raw(argv: *const *mut c_char, argc: c_uint) -> Self {
        // INVARIANT: Per the caller.
        Self {
            argv,
            argc: argc as usize,
            _strings: PhantomData,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.argc
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.argc == 0
    }

    /// The word at `i`, from 0.
    pub fn get(&self, i: usize) -> Option<&'a CStr> {
        if i >= self.argc {
            return None;
        }
        // SAFETY: In bounds by the type invariant.
        let place = unsafe { self.argv.add(i) };
        // SAFETY: In bounds by the type invariant.
        let word = unsafe { *place };
        // SAFETY: A valid C string by the type invariant.
        Some(unsafe { CStr::from_char_ptr(word) })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &'a CStr> + '_ {
        (0..self.argc).filter_map(|i| self.get(i))
    }
}

/// An instance that is being constructed.
///
/// # Invariants
///
/// `ti` is the `dm_target` that dm passed to the constructor, which is running.
pub struct Ctr<'a> {
    ti: *mut raw::dm_target,
    args: Args<'a>,
    table: Arc<TableHandle>,
    pub(super) devices: KVec<NonNull<raw::dm_dev>>,
}

impl<'a> Ctr<'a> {
    /// # Safety
    ///
    /// `ti` is the argument of a running constructor.
    pub(super) unsafe fn new(
        ti: *mut raw::dm_target,
        args: Args<'a>,
        table: Arc<TableHandle>,
    ) -> Self {
        // INVARIANT: Per the caller.
        Self {
            ti,
            args,
            table,
            devices: KVec::new(),
        }
    }

    /// The words after the target's name.
    pub fn args(&self) -> &Args<'a> {
        &self.args
    }

    /// Length of the target in sectors.
    pub fn len(&self) -> u64 {
        // SAFETY: By the type invariant. The same holds for all that follow.
        unsafe { (*self.ti).len }
    }

    /// Whether the target has no sectors; device-mapper does not construct such.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// First sector of the target in its device; 0 for a singleton.
    pub fn begin(&self) -> u64 {
        // SAFETY: As in `len()`.
        unsafe { (*self.ti).begin }
    }

    /// The device's number as text, `253:3`.
    pub fn device_name(&self) -> &CStr {
        // SAFETY: As in `len()`.
        let table = unsafe { (*self.ti).table };
        // SAFETY: The table lives as long as the instance; its device's name does not change.
        unsafe { CStr::from_char_ptr(raw::dm_table_device_name(table)) }
    }

    /// Whether the table is being loaded read-only.
    pub fn is_read_only(&self) -> bool {
        self.mode() & raw::BLK_OPEN_WRITE == 0
    }

    fn mode(&self) -> bindings::blk_mode_t {
        // SAFETY: As in `len()`.
        let table = unsafe { (*self.ti).table };
        // SAFETY: The table lives as long as the instance.
        unsafe { raw::dm_table_get_mode(table) }
    }

    /// A handle on the table for use outside of the callbacks.
    pub fn table(&self) -> Arc<TableHandle> {
        self.table.clone()
    }

    /// Opens a data device, in the mode of the table; `path` may also be `major:minor`.
    ///
    /// Device-mapper's own claim on it ends with the instance; the handle may live longer.
    ///
    /// # Errors
    ///
    /// As for opening; `EINVAL` if it is the very device that is being made.
    pub fn get_device(&mut self, path: &CStr) -> Result<Arc<BlockDevice>> {
        self.devices.reserve(1, GFP_KERNEL)?;
        let mut dev = core::ptr::null_mut();
        // SAFETY: As in `len()`; `path` is a C string.
        to_result(unsafe {
            raw::dm_get_device(self.ti, path.as_char_ptr(), self.mode(), &mut dev)
        })?;
        let dev = NonNull::new(dev).ok_or(ENODEV)?;
        // There is room: it was reserved.
        let _ = self.devices.push_within_capacity(dev);
        // SAFETY: dm holds the device until it is put, which is not before the destructor.
        let file = unsafe { (*dev.as_ptr()).bdev_file };
        // SAFETY: The file of an open block device.
        unsafe { BlockDevice::share(NonNull::new(file).ok_or(ENODEV)?) }
    }

    /// Says why the constructor fails: `text` is what device-mapper logs, `detail` names the
    /// objects, in a line of its own before that. Returns `error` for `return Err(..)`.
    pub fn fail(&mut self, error: Error, text: &'static CStr, detail: fmt::Arguments<'_>) -> Error {
        let name = core::str::from_utf8(self.device_name().to_bytes()).unwrap_or("?");
        pr_err!("{}: {}\n", name, detail);
        // SAFETY: As in `len()`. dm only reads the string.
        unsafe { (*self.ti).error = text.as_char_ptr().cast_mut() };
        error
    }

    /// Bios of every kind are split at multiples of `sectors`, a power of two.
    pub fn set_max_io_sectors(&mut self, sectors: u32) -> Result {
        if !sectors.is_power_of_two() {
            return Err(EINVAL);
        }
        // SAFETY: As in `len()`.
        to_result(unsafe { raw::dm_set_target_max_io_len(self.ti, u64::from(sectors)) })
    }

    /// Whether discards are mapped; with `always`, even if the data devices have none.
    pub fn set_discards(&mut self, mapped: bool, always: bool) {
        // SAFETY: As in `len()`; nobody else uses it during the constructor.
        let ti = unsafe { &mut *self.ti };
        ti.num_discard_bios = mapped.into();
        ti.set_discards_supported(mapped && always);
        ti.set_max_discard_granularity(mapped);
    }

    /// Whether write-zeroes are mapped, if the data devices have them.
    pub fn set_write_zeroes(&mut self, mapped: bool) {
        // SAFETY: As in `len()`.
        unsafe { (*self.ti).num_write_zeroes_bios = mapped.into() };
    }

    /// Whether the number of swap bios in flight is limited.
    pub fn set_limit_swap_bios(&mut self, limited: bool) {
        // SAFETY: As in `len()`; nobody else uses it during the constructor.
        let ti = unsafe { &mut *self.ti };
        ti.set_limit_swap_bios(limited);
    }
}
