// SPDX-License-Identifier: GPL-2.0

//! Tests with real tables: the guest's `dmsetup` makes them, of a target that exists for that.
//!
//! The target copies writes and lets a worker do them, sends reads to the device and overlays them
//! when they come back, and remaps flushes: every way that a bio can go.

use kernel::prelude::*;

#[kunit_tests(replicate_linux_dm)]
mod tests {
    use super::*;
    use crate::{
        bdev::{BlockDevice, Holder, Mode},
        bindings as raw,
        bio::{CompletionQueue, Flags, IoUnit, Segment, SyncIo},
        dm::{
            features, Args, BioList, BioOp, BioQueue, Borrowed, Ctr, Instance, Limits, MapOutcome,
            MappedBio, StatusType, TableHandle, Target, TargetRegistration, Writer,
        },
        errno::BlkStatus,
        event::{Event, FOREVER},
        kthread::{StopToken, Thread},
        pages::{PageBuf, PagePool},
    };
    use core::fmt::Write as _;
    use kernel::{
        new_spinlock,
        sync::{Arc, SpinLock},
    };

    /// Reads of this sector are overlaid.
    const OVERLAID: u64 = 64;
    const MARK: &[u8] = b"from the worker";
    const MAX_IO_SECTORS: u32 = 64;

    #[pin_data]
    struct Shared {
        dev: Arc<BlockDevice>,
        pool: Arc<PagePool>,
        event: Arc<Event>,
        queue: BioQueue,
        mark: PageBuf,
        #[pin]
        fifo: SpinLock<BioList>,
    }

    impl Shared {
        fn work(&self, token: &StopToken) {
            while !token.should_stop() {
                let _ = self.event.wait(FOREVER);
                loop {
                    let bio = self.fifo.lock().pop();
                    let Some(bio) = bio else { break };
                    let status = self
                        .write(&bio)
                        .err()
                        .map_or(BlkStatus::OK, BlkStatus::from);
                    bio.end(status);
                }
                for (mut bio, mut status, tag) in self.queue.pop_all() {
                    if tag == OVERLAID && status.is_ok() {
                        let n = self.mark.len();
                        if bio.copy_from(3, &self.mark, 0, n).is_err()
                            || bio.zero_fill(0, 3).is_err()
                            || bio.zero_fill(bio.bytes(), 1).is_ok()
                        {
                            status = BlkStatus::IOERR;
                        }
                    }
                    bio.end(status);
                }
            }
        }

        fn write(&self, bio: &MappedBio) -> Result {
            if bio.sectors() > MAX_IO_SECTORS || bio.op() != BioOp::Write {
                return Err(EINVAL);
            }
            let mut buf = self.pool.try_take(bio.bytes()).ok_or(ENOMEM)?;
            bio.copy_to(&mut buf, 0)?;
            if bio.copy_to(&mut buf, 1).is_ok() {
                return Err(EINVAL);
            }
            let flags = Flags {
                fua: bio.is_fua(),
                preflush: false,
            };
            let all = Segment {
                buf: &buf,
                offset: 0,
                len: bio.bytes(),
            };
            SyncIo::new(64, 0)?.write_buf(&self.dev, bio.sector(), all, flags)
        }
    }

    struct Volume {
        // Stops before the rest goes.
        _thread: Thread,
        shared: Arc<Shared>,
        table: Arc<TableHandle>,
    }

    struct TestTarget;

    #[vtable]
    impl Target for TestTarget {
        type Private = KBox<Volume>;
        const NAME: &'static CStr = c"replicate-kunit";
        const VERSION: [u32; 3] = [1, 2, 3];
        const FEATURES: u64 = features::SINGLETON;

        fn ctr(ctr: &mut Ctr<'_>) -> Result<Self::Private> {
            let Some(path) = ctr.args().get(0) else {
                return Err(ctr.fail(
                    EINVAL,
                    c"needs a device",
                    format_args!("{} arguments given, 1 needed", 0),
                ));
            };
            let dev = ctr.get_device(path)?;
            if dev.nr_sectors() < ctr.len() {
                return Err(ctr.fail(EINVAL, c"device too small", format_args!("{}", dev.name())));
            }
            ctr.set_max_io_sectors(MAX_IO_SECTORS)?;
            let pool = PagePool::new(0, 256, None)?;
            let mut mark = pool.try_take(MARK.len()).ok_or(ENOMEM)?;
            mark.write_at(0, MARK)?;
            let event = Event::new()?;
            let queue = BioQueue::new(event.clone())?;
            let shared = Arc::pin_init(
                pin_init!(Shared {
                    dev,
                    pool,
                    event,
                    queue,
                    mark,
                    fifo <- new_spinlock!(BioList::new()),
                }),
                GFP_KERNEL,
            )?;
            let worker = shared.clone();
            let volume = Volume {
                _thread: Thread::spawn_noio(c"kunit-dm", move |token| worker.work(token))?,
                shared,
                table: ctr.table(),
            };
            Ok(KBox::new(volume, GFP_KERNEL)?)
        }

        fn map(volume: Borrowed<'_, Self>, bio: MappedBio) -> MapOutcome {
            let shared = &volume.shared;
            match bio.op() {
                BioOp::Write => {
                    shared.fifo.lock().push(bio);
                    shared.event.notify();
                    MapOutcome::SUBMITTED
                }
                BioOp::Read => {
                    let sector = bio.sector();
                    bio.read_then(&shared.dev, sector, sector, &shared.queue);
                    MapOutcome::SUBMITTED
                }
                BioOp::Flush => bio.remap(&shared.dev, 0),
                _ => bio.kill(),
            }
        }

        fn resume(volume: Borrowed<'_, Self>, _instance: &Instance<'_>) {
            volume.table.set_read_only(false);
        }

        fn status(
            volume: Borrowed<'_, Self>,
            instance: &Instance<'_>,
            what: StatusType,
            out: &mut Writer<'_>,
        ) {
            let _ = match what {
                StatusType::Info => write!(out, "{} sectors", instance.len()),
                StatusType::Table => write!(out, "{}", volume.shared.dev.dev()),
                StatusType::Ima => write!(out, "len={};", instance.len()),
            };
        }

        fn message(
            volume: Borrowed<'_, Self>,
            _instance: &Instance<'_>,
            args: &Args<'_>,
            reply: &mut Writer<'_>,
        ) -> Result {
            if args.get(0) != Some(c"event") || args.len() != 2 {
                return Err(EINVAL);
            }
            let alive = volume.table.event();
            write!(reply, "{} {}", alive, volume.table.dev()).map_err(|_| EIO)
        }

        fn io_hints(_volume: Borrowed<'_, Self>, limits: &mut Limits<'_>) {
            limits.raise_block_size(1024);
            limits.no_poll();
        }
    }

    fn register() -> Result<TargetRegistration<TestTarget>> {
        extern "C" {
            // The `struct module` of the module that this crate is linked into.
            static mut __this_module: core::cell::UnsafeCell<c_void>;
        }
        // A `static`, so that there is a reference for ever.
        static MODULE: kernel::ThisModule =
            // SAFETY: The symbol is this module's own.
            unsafe { kernel::ThisModule::from_ptr((&raw mut __this_module).cast()) };
        TargetRegistration::register(&MODULE)
    }

    const CREATE: &CStr =
        c"echo 0 2048 replicate-kunit /dev/ram1 | dmsetup create kunit --noudevsync; \
         dmsetup mknodes kunit";
    const REMOVE: &CStr = c"dmsetup remove kunit --noudevsync";

    /// Runs a script in the guest; its exit code is the result.
    fn sh(script: &CStr) -> i32 {
        let mut argv = [
            c"/bin/sh".as_char_ptr().cast_mut(),
            c"-ec".as_char_ptr().cast_mut(),
            script.as_char_ptr().cast_mut(),
            core::ptr::null_mut(),
        ];
        let mut envp = [
            c"PATH=/usr/sbin:/usr/bin:/sbin:/bin"
                .as_char_ptr()
                .cast_mut(),
            c"LD_LIBRARY_PATH=/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu"
                .as_char_ptr()
                .cast_mut(),
            core::ptr::null_mut(),
        ];
        // SAFETY: The arrays are ended by null, and live until the program has ended.
        unsafe {
            raw::call_usermodehelper(
                c"/bin/sh".as_char_ptr(),
                argv.as_mut_ptr(),
                envp.as_mut_ptr(),
                kernel::bindings::UMH_WAIT_PROC as c_int,
            )
        }
    }

    #[test]
    fn a_name_is_registered_once() -> Result {
        for _ in 0..100 {
            let first = register()?;
            assert_eq!(register().err(), Some(EBUSY));
            drop(first);
        }
        Ok(())
    }

    #[test]
    fn tables_come_and_go() -> Result {
        let registration = register()?;
        let create_and_remove = c"i=0; while [ $i -lt 20 ]; do \
             echo 0 2048 replicate-kunit /dev/ram1 | dmsetup create kunit --noudevsync; \
             dmsetup remove kunit --noudevsync; i=$((i+1)); done";
        assert_eq!(sh(create_and_remove), 0);
        drop(registration);
        let ram = BlockDevice::open(c"/dev/ram1", Mode::ReadWrite, Holder::Exclusive)?;
        assert_eq!(ram.openers(), 1);
        Ok(())
    }

    #[test]
    fn bad_tables_are_refused() -> Result {
        let registration = register()?;
        let refused = c"! echo 0 2048 replicate-kunit | dmsetup create kunit --noudevsync; \
             ! echo 0 2048 replicate-kunit /none | dmsetup create kunit --noudevsync; \
             ! echo 0 99999999 replicate-kunit /dev/ram1 | dmsetup create kunit --noudevsync; \
             ! dmsetup info kunit";
        assert_eq!(sh(refused), 0);
        drop(registration);
        Ok(())
    }

    #[test]
    fn status_and_messages_reach_dmsetup() -> Result {
        let registration = register()?;
        let code = sh(
            c"echo 0 2048 replicate-kunit /dev/ram1 | dmsetup create kunit --noudevsync; \
              [ \"$(dmsetup status kunit)\" = '0 2048 replicate-kunit 2048 sectors' ]; \
              [ \"$(dmsetup table kunit)\" = '0 2048 replicate-kunit 1:1' ]; \
              n=$(dmsetup info -c --noheadings -o events kunit); \
              dmsetup message kunit 0 event now | grep -q '^true 25[0-9]:[0-9]*$'; \
              [ $(dmsetup info -c --noheadings -o events kunit) = $((n+1)) ]; \
              ! dmsetup message kunit 0 nonsense; \
              dmsetup suspend kunit; dmsetup resume kunit; \
              dmsetup reload kunit --table '0 1024 replicate-kunit /dev/ram1'; \
              dmsetup resume kunit; \
              [ \"$(dmsetup status kunit)\" = '0 1024 replicate-kunit 1024 sectors' ]",
        );
        let removed = sh(REMOVE);
        drop(registration);
        assert_eq!(code, 0);
        assert_eq!(removed, 0);
        Ok(())
    }

    #[test]
    fn errors_of_a_device_come_back() -> Result {
        let made = sh(c"echo 0 2048 error | dmsetup create kunit --noudevsync; \
             dmsetup mknodes kunit");
        let result = errors();
        let removed = sh(REMOVE);
        assert_eq!(made, 0);
        assert_eq!(removed, 0);
        result
    }

    /// I/O to a device that fails all of it.
    fn errors() -> Result {
        let dev = BlockDevice::open(c"/dev/mapper/kunit", Mode::ReadWrite, Holder::Exclusive)?;
        let check = |ok: bool| if ok { Ok(()) } else { Err(EPIPE) };
        let mut data = [0u8; 512];
        check(dev.read_sync(0, &mut data) == Err(EIO))?;
        check(SyncIo::new(1, 512)?.write(&dev, 0, &data, Flags::FUA) == Err(EIO))?;
        let pool = PagePool::new(0, 512, None)?;
        let queue = CompletionQueue::new(Event::new()?)?;
        let buf = pool.try_take(300 * 4096).ok_or(ENOMEM)?;
        let all = Segment {
            buf: &buf,
            offset: 0,
            len: buf.len(),
        };
        // Several bios fail, and the unit comes back once.
        let unit = IoUnit::new(1024)?;
        unit.write(&dev, 0, Flags::NONE, [all, all], 3, (), &queue);
        let mut failed = None;
        while failed.is_none() {
            failed = queue.pop_all().next();
            if failed.is_none() {
                queue.event().wait(FOREVER);
            }
        }
        check(failed.is_some_and(|done| done.status == BlkStatus::INVAL))?;

        let unit = IoUnit::new(1024)?;
        let part = Segment {
            buf: &buf,
            offset: 0,
            len: 128 * 4096,
        };
        unit.write(&dev, 0, Flags::NONE, [part, part], 4, (), &queue);
        let mut failed = None;
        while failed.is_none() {
            failed = queue.pop_all().next();
            if failed.is_none() {
                queue.event().wait(FOREVER);
            }
        }
        check(failed.is_some_and(|done| done.status == BlkStatus::IOERR && done.tag == 4))?;
        check(queue.pop_all().next().is_none())
    }

    #[test]
    fn bios_go_every_way() -> Result {
        let registration = register()?;
        let made = sh(CREATE);
        let result = io();
        let removed = sh(REMOVE);
        drop(registration);
        assert_eq!(made, 0);
        assert_eq!(removed, 0);
        result
    }

    /// I/O through the mapped device; fails with an error, not an assertion, so that the caller
    /// can clean up.
    fn io() -> Result {
        let top = BlockDevice::open(c"/dev/mapper/kunit", Mode::ReadWrite, Holder::Exclusive)?;
        let check = |ok: bool| if ok { Ok(()) } else { Err(EIO) };
        check(top.nr_sectors() == 2048)?;
        check(top.logical_block_size() == 1024)?;
        check(top.has_write_cache() && top.has_fua())?;
        check(top.max_discard_sectors() == 0)?;

        // Larger than `MAX_IO_SECTORS` and off its boundaries; with a flush before and after.
        let pool = PagePool::new(0, 512, None)?;
        let len = 150 * 1024;
        let mut out = pool.try_take(len).ok_or(ENOMEM)?;
        let mut at = 0;
        while at < len {
            out.write_at(at, &[(at / 128 * 11) as u8; 128])?;
            at += 128;
        }
        let mut io = SyncIo::new(64, 1024)?;
        let all = Segment {
            buf: &out,
            offset: 0,
            len,
        };
        io.write_buf(&top, 66, all, Flags::PREFLUSH_FUA)?;
        top.flush_sync()?;
        let back = pool.try_take(len).ok_or(ENOMEM)?;
        let back = io.read_buf(&top, 66, back, len)?;
        check(back.crc32c(0, 0, len)? == out.crc32c(0, 0, len)?)?;

        // The device below has it; only the overlay differs.
        let mut data = KVec::from_elem(1u8, 1024, GFP_KERNEL)?;
        io.write(&top, OVERLAID, &data, Flags::NONE)?;
        top.read_sync(OVERLAID, &mut data)?;
        check(data.get(..3) == Some(&[0, 0, 0]))?;
        check(data.get(3..3 + MARK.len()) == Some(MARK))?;
        check(data.iter().skip(3 + MARK.len()).all(|b| *b == 1))?;

        check(top.read_sync(2048, &mut data).is_err())?;
        check(io.zeroout(&top, 0, 8, false).is_ok())?;
        Ok(())
    }
}
