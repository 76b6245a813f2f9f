// SPDX-License-Identifier: GPL-2.0

//! Between device-mapper's C callbacks and [`Target`].

use super::{
    bio::MappedBio,
    ctr::{Args, Ctr},
    limits::Limits,
    queue::PerBio,
    table::{Instance, TableHandle},
    Borrowed, StatusType, Target, Writer,
};
use crate::bindings as raw;
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    bindings,
    error::{from_result, to_result},
    prelude::*,
    sync::Arc,
    types::{ForeignOwnable, Opaque},
};

/// What `map` did; the bios that dm takes back are in it.
pub(super) enum Outcome {
    Submitted,
    Remapped(MappedBio),
    Kill(MappedBio),
    Requeue(MappedBio),
}

/// A registered target type; unregistered when dropped, which the kernel allows only while no
/// table uses it (such a table holds the module).
pub struct TargetRegistration<T: Target> {
    ttype: Pin<KBox<Opaque<raw::target_type>>>,
    _target: PhantomData<T>,
}

// SAFETY: A target type may be unregistered by any thread.
unsafe impl<T: Target> Send for TargetRegistration<T> {}
// SAFETY: No method takes `&self`.
unsafe impl<T: Target> Sync for TargetRegistration<T> {}

impl<T: Target> TargetRegistration<T> {
    /// Registers `T`. Tables that use it hold `module`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a target of that name exists.
    pub fn register(module: &'static ThisModule) -> Result<Self> {
        let ttype = raw::target_type {
            features: T::FEATURES,
            name: T::NAME.as_char_ptr(),
            module: module.as_ptr(),
            version: T::VERSION,
            ctr: Some(Glue::<T>::ctr),
            dtr: Some(Glue::<T>::dtr),
            map: Some(Glue::<T>::map),
            end_io: Some(Glue::<T>::end_io),
            presuspend: T::HAS_PRESUSPEND.then_some(Glue::<T>::presuspend as Callback),
            postsuspend: T::HAS_POSTSUSPEND.then_some(Glue::<T>::postsuspend as Callback),
            preresume: if T::HAS_PRERESUME {
                Some(Glue::<T>::preresume)
            } else {
                None
            },
            resume: T::HAS_RESUME.then_some(Glue::<T>::resume as Callback),
            status: if T::HAS_STATUS {
                Some(Glue::<T>::status)
            } else {
                None
            },
            message: if T::HAS_MESSAGE {
                Some(Glue::<T>::message)
            } else {
                None
            },
            iterate_devices: Some(Glue::<T>::iterate_devices),
            io_hints: if T::HAS_IO_HINTS {
                Some(Glue::<T>::io_hints)
            } else {
                None
            },
            ..raw::target_type::default()
        };
        let ttype = KBox::pin(Opaque::new(ttype), GFP_KERNEL)?;
        // SAFETY: It is valid and does not move until it is unregistered in `drop()`.
        to_result(unsafe { raw::dm_register_target(ttype.get()) })?;
        Ok(Self {
            ttype,
            _target: PhantomData,
        })
    }
}

impl<T: Target> Drop for TargetRegistration<T> {
    fn drop(&mut self) {
        // SAFETY: Registered in `register()`.
        unsafe { raw::dm_unregister_target(self.ttype.get()) };
    }
}

/// The longest answer to a message.
const MAX_REPLY: usize = 4096;

type Callback = unsafe extern "C" fn(*mut raw::dm_target);

/// What `dm_target.private` points at.
struct Holder {
    /// From `ForeignOwnable::into_foreign()`.
    user: *mut c_void,
    table: Arc<TableHandle>,
    devices: KVec<NonNull<raw::dm_dev>>,
}

/// Leaves what is behind the next multiple of `max_io_len` for another bio. Device-mapper does so itself for
/// reads and writes; discards and write-zeroes it only keeps within their own limits.
///
/// # Safety
///
/// `bio` was just given to the map function of `ti`, and nothing has been done with it yet.
unsafe fn keep_to_boundary(ti: *mut raw::dm_target, bio: *mut bindings::bio) {
    // SAFETY: Valid per the caller.
    let op = unsafe { (*bio).bi_opf } & raw::REQ_OP_BITMASK;
    if op != bindings::req_op_REQ_OP_DISCARD && op != bindings::req_op_REQ_OP_WRITE_ZEROES {
        return;
    }
    // SAFETY: Valid per the caller.
    let begin = unsafe { (*ti).begin };
    // SAFETY: Valid per the caller.
    let boundary = u64::from(unsafe { (*ti).max_io_len });
    // SAFETY: Valid per the caller.
    let iter = unsafe { (*bio).bi_iter };
    let offset = iter.bi_sector.wrapping_sub(begin);
    let Some(past) = offset.checked_rem(boundary) else {
        // No boundaries.
        return;
    };
    let left = boundary - past;
    if u64::from(iter.bi_size >> 9) > left {
        // CAST: `left` is less than the length of the bio.
        // SAFETY: In the map function; there is one bio of each kind, on a device that is not zoned, and
        // neither kind is atomic.
        unsafe { raw::dm_accept_partial_bio(bio, left as c_uint) };
    }
}

/// Puts devices that a constructor got.
///
/// # Safety
///
/// They were got for `ti`, and are not used any more.
unsafe fn put_devices(ti: *mut raw::dm_target, devices: &[NonNull<raw::dm_dev>]) {
    for dev in devices {
        // SAFETY: Per the caller.
        unsafe { raw::dm_put_device(ti, dev.as_ptr()) };
    }
}

/// The C callbacks of `T`.
///
/// All are called by dm with a valid instance, and all but `ctr` with one that `ctr` made.
struct Glue<T: Target>(PhantomData<T>);

impl<T: Target> Glue<T> {
    /// # Safety
    ///
    /// `ti` was made by `ctr` and lives for `'a`.
    unsafe fn holder<'a>(ti: *mut raw::dm_target) -> &'a Holder {
        // SAFETY: `ctr` stored a holder, which is freed in `dtr`.
        unsafe { &*(*ti).private.cast::<Holder>() }
    }

    /// # Safety
    ///
    /// As for `holder()`.
    unsafe fn user<'a>(ti: *mut raw::dm_target) -> Borrowed<'a, T> {
        // SAFETY: Per the caller.
        let holder = unsafe { Self::holder(ti) };
        // SAFETY: From `into_foreign()`, and taken back in `dtr` only.
        unsafe { T::Private::borrow(holder.user) }
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn ctr(
        ti: *mut raw::dm_target,
        argc: c_uint,
        argv: *mut *mut c_char,
    ) -> c_int {
        from_result(|| {
            // SAFETY: dm has set the table before it calls this.
            let table = unsafe { TableHandle::new((*ti).table) }?;
            let mut holder = KBox::new(
                Holder {
                    user: core::ptr::null_mut(),
                    table: table.clone(),
                    devices: KVec::new(),
                },
                GFP_KERNEL,
            )?;
            {
                // SAFETY: Nobody else uses the instance during its constructor.
                let ti = unsafe { &mut *ti };
                ti.num_flush_bios = 1;
                ti.set_flush_supported(true);
                ti.set_flush_bypasses_map(false);
                ti.per_io_data_size = c_uint::try_from(PerBio::SIZE)?;
            }
            // SAFETY: dm passes `argc` strings that live until this returns.
            let args = unsafe { Args::from_raw(argv, argc) };
            // SAFETY: This is the constructor.
            let mut ctr = unsafe { Ctr::new(ti, args, table.clone()) };
            let made = T::ctr(&mut ctr);
            match made {
                Ok(private) => {
                    holder.devices = core::mem::replace(&mut ctr.devices, KVec::new());
                    holder.user = private.into_foreign().cast::<c_void>();
                    // SAFETY: Nobody else uses the instance during its constructor.
                    unsafe { (*ti).private = KBox::into_raw(holder).cast::<c_void>() };
                    Ok(0)
                }
                Err(e) => {
                    table.kill();
                    // SAFETY: Got by this constructor; who shares them holds them open.
                    unsafe { put_devices(ti, &ctr.devices) };
                    Err(e)
                }
            }
        })
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn dtr(ti: *mut raw::dm_target) {
        // SAFETY: Stored by `ctr`, and taken back once: this is the end of the instance.
        let holder = unsafe { KBox::from_raw((*ti).private.cast::<Holder>()) };
        holder.table.kill();
        // SAFETY: From `into_foreign()`; all borrows have ended with their callbacks.
        T::dtr(unsafe { T::Private::from_foreign(holder.user.cast()) });
        // SAFETY: Got by the constructor; who shares them holds them open.
        unsafe { put_devices(ti, &holder.devices) };
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn map(ti: *mut raw::dm_target, bio: *mut bindings::bio) -> c_int {
        // SAFETY: dm maps the bio now, and it is ours.
        unsafe { keep_to_boundary(ti, bio) };
        // SAFETY: dm reserved `PerBio::SIZE` bytes, the bio is ours now, and `ti` maps it.
        unsafe { PerBio::init(bio, ti) };
        let Some(owned) = NonNull::new(bio) else {
            return raw::DM_MAPIO_KILL as c_int;
        };
        // SAFETY: dm gives the bio to us, and its data was initialised.
        let owned = unsafe { MappedBio::from_raw(owned) };
        // SAFETY: dm calls this between `ctr` and `dtr`.
        let user = unsafe { Self::user(ti) };
        let (back, code) = match T::map(user, owned).0 {
            Outcome::Submitted => return raw::DM_MAPIO_SUBMITTED as c_int,
            Outcome::Remapped(bio) => (bio, raw::DM_MAPIO_REMAPPED),
            Outcome::Kill(bio) => (bio, raw::DM_MAPIO_KILL),
            Outcome::Requeue(bio) => (bio, raw::DM_MAPIO_REQUEUE),
        };
        if back.is(bio) {
            back.forget();
            code as c_int
        } else {
            // The outcome is another bio's: that one ends with an error, and this one is with
            // whoever `map` gave it to.
            pr_err!("a target answered for the wrong bio\n");
            drop(back);
            raw::DM_MAPIO_SUBMITTED as c_int
        }
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn end_io(
        _ti: *mut raw::dm_target,
        bio: *mut bindings::bio,
        error: *mut bindings::blk_status_t,
    ) -> c_int {
        // SAFETY: `error` is valid.
        let status = unsafe { *error };
        // SAFETY: The bio went through `map`, and has just ended.
        if unsafe { PerBio::intercept(bio, status) } {
            raw::DM_ENDIO_INCOMPLETE as c_int
        } else {
            raw::DM_ENDIO_DONE as c_int
        }
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn presuspend(ti: *mut raw::dm_target) {
        // SAFETY: dm calls this between `ctr` and `dtr`. The same holds for all that follow.
        T::presuspend(unsafe { Self::user(ti) }, &unsafe { Instance::new(ti) });
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn postsuspend(ti: *mut raw::dm_target) {
        // SAFETY: As in `presuspend()`.
        T::postsuspend(unsafe { Self::user(ti) }, &unsafe { Instance::new(ti) });
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn preresume(ti: *mut raw::dm_target) -> c_int {
        // SAFETY: As in `presuspend()`.
        let result = T::preresume(unsafe { Self::user(ti) }, &unsafe { Instance::new(ti) });
        from_result(|| result.map(|()| 0))
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn resume(ti: *mut raw::dm_target) {
        // SAFETY: As in `presuspend()`.
        T::resume(unsafe { Self::user(ti) }, &unsafe { Instance::new(ti) });
    }

    /// # Safety
    ///
    /// `buf` is valid for writing `len` bytes, for `'a`.
    unsafe fn writer<'a>(buf: *mut c_char, len: c_uint) -> Writer<'a> {
        if buf.is_null() {
            return Writer::new(&mut []);
        }
        // SAFETY: Per the caller.
        unsafe { core::ptr::write_bytes(buf.cast::<u8>(), 0, len as usize) };
        // SAFETY: Per the caller; initialised above.
        Writer::new(unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), len as usize) })
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn status(
        ti: *mut raw::dm_target,
        what: raw::status_type_t,
        _flags: c_uint,
        result: *mut c_char,
        maxlen: c_uint,
    ) {
        // SAFETY: dm passes a buffer of that length.
        let mut out = unsafe { Self::writer(result, maxlen) };
        let what = match what {
            raw::status_type_t_STATUSTYPE_INFO => StatusType::Info,
            raw::status_type_t_STATUSTYPE_TABLE => StatusType::Table,
            raw::status_type_t_STATUSTYPE_IMA => StatusType::Ima,
            _ => return,
        };
        // SAFETY: As in `presuspend()`.
        let (user, instance) = unsafe { (Self::user(ti), Instance::new(ti)) };
        T::status(user, &instance, what, &mut out);
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn message(
        ti: *mut raw::dm_target,
        argc: c_uint,
        argv: *mut *mut c_char,
        result: *mut c_char,
        maxlen: c_uint,
    ) -> c_int {
        from_result(|| {
            // The buffer for the result is the one that the arguments are in: the answer is
            // written elsewhere until they are not needed any more.
            let len = MAX_REPLY.min(maxlen as usize);
            let mut reply = KVec::from_elem(0u8, len, GFP_KERNEL)?;
            let mut out = Writer::new(&mut reply);
            {
                // SAFETY: dm passes `argc` strings that live until this returns, and nobody
                // writes to them while this block runs.
                let args = unsafe { Args::from_raw(argv, argc) };
                // SAFETY: As in `presuspend()`.
                let (user, instance) = unsafe { (Self::user(ti), Instance::new(ti)) };
                T::message(user, &instance, &args, &mut out)?;
            }
            if out.is_empty() {
                return Ok(0);
            }
            // SAFETY: dm passes a buffer of `maxlen` bytes, which is no less than `len`.
            unsafe { core::ptr::copy_nonoverlapping(reply.as_ptr(), result.cast::<u8>(), len) };
            // There is something to print.
            Ok(1)
        })
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn iterate_devices(
        ti: *mut raw::dm_target,
        callout: raw::iterate_devices_callout_fn,
        data: *mut c_void,
    ) -> c_int {
        let Some(callout) = callout else { return 0 };
        // SAFETY: As in `presuspend()`.
        let holder = unsafe { Self::holder(ti) };
        for dev in &holder.devices {
            // SAFETY: The device is held until `dtr`; `data` is the caller's own.
            let r = unsafe { callout(ti, dev.as_ptr(), 0, (*ti).len, data) };
            if r != 0 {
                return r;
            }
        }
        0
    }

    /// # Safety
    ///
    /// For device-mapper, as a target's callback.
    unsafe extern "C" fn io_hints(ti: *mut raw::dm_target, limits: *mut bindings::queue_limits) {
        // SAFETY: dm passes limits that are its own until this returns.
        let mut limits = Limits::new(unsafe { &mut *limits });
        // SAFETY: As in `presuspend()`.
        T::io_hints(unsafe { Self::user(ti) }, &mut limits);
    }
}
