// SPDX-License-Identifier: GPL-2.0

//! The SRL device: superblocks and ring, as bytes on a block device.
//!
//! Everything here sleeps: it is for group add, the applier and the links' threads. The log worker
//! writes batches itself (see [`crate::log_worker`]).
//!
//! The superblock in memory is the durable one: [`Srl::update`] changes a copy, writes it with
//! PREFLUSH and FUA to both places of the other slot, where one of them fails to the first slot too, and lets readers
//! see it once two copies are durable. One mutex serializes updates; it may be taken with no other lock but the group's lists
//! held. Readers take another, which is never held for I/O: status can be asked for while the device stands still.

pub(crate) mod cursor;
pub(crate) mod reader;

use crate::refuse::Refusal;
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex,
    },
};
use replicate_core::{
    log::{
        ring::{Place, Ring},
        superblock::{self, Choice, Superblock, SuperblockError, WriteState, Written},
    },
    units::Bytes, //
};
use replicate_linux::{
    bdev::{BlockDevice, Holder, Mode},
    bio::{Flags, SyncIo},
};

const SECTOR: u64 = 512;

/// The scratch in which the next superblock is made, and what writes it: superblocks free room in the
/// log, so writing one allocates nothing.
struct Next {
    bytes: KVVec<u8>,
    state: WriteState,
    io: SyncIo,
}

/// Why a superblock does not say what it was to say.
pub(crate) enum Unwritten<E> {
    /// The change was refused: nothing was written.
    Refused(E),
    /// The device failed: it may say either, and a start goes by what it finds.
    Device(Error),
}

impl<E> From<Error> for Unwritten<E> {
    fn from(e: Error) -> Self {
        Unwritten::Device(e)
    }
}

impl<E: From<Error>> Unwritten<E> {
    /// Returns the error alone.
    pub(crate) fn error(self) -> E {
        match self {
            Unwritten::Refused(e) => e,
            Unwritten::Device(e) => e.into(),
        }
    }
}

/// The SRL of one group on this host.
#[pin_data]
pub(crate) struct Srl {
    dev: Arc<BlockDevice>,
    path: CString,
    block: u32,
    ring: Option<(Bytes, Bytes)>,
    degraded: Atomic<bool>,
    #[pin]
    durable: Mutex<KVVec<u8>>,
    #[pin]
    next: Mutex<Next>,
}

impl Srl {
    /// Opens `path` for this group alone and reads its superblock. Changes nothing. May sleep.
    pub(crate) fn open(path: &CStr) -> Result<Arc<Srl>, Refusal> {
        let shown = path.to_str().unwrap_or("?");
        let owned = CString::try_from(path)?;
        let dev = BlockDevice::open(path, Mode::ReadWrite, Holder::Exclusive).map_err(|e| {
            if e == EBUSY {
                Refusal::new(EBUSY, format_args!("SRL {shown} is in use: another group, a mount or a device-mapper table holds it"))
            } else {
                Refusal::new(e, format_args!("SRL {shown} cannot be opened (error {})", e.to_errno()))
            }
        })?;
        let bytes = Bytes(dev.nr_sectors().saturating_mul(SECTOR));
        let sb = |e: SuperblockError| Refusal::new(EINVAL, format_args!("SRL {shown}: {e}"));
        let mut copy = zeroed(superblock_bytes())?;
        let mut choice = Choice::new();
        let at = |choice: &Choice, i: usize| {
            let formatted = choice.device().unwrap_or(bytes);
            superblock::copy_offsets(formatted.min(bytes))
                .get(i)
                .copied()
        };
        for i in 0..superblock::COPIES {
            let at = at(&choice, i).ok_or(EINVAL)?;
            let end = at.0.saturating_add(copy.len() as u64);
            match dev.read_sync(at.0 / SECTOR, &mut copy) {
                _ if end > bytes.0 => choice.consider(i, Err(SuperblockError::Short)),
                Ok(()) => choice.consider(i, superblock::validate(&copy)),
                Err(e) if e == ENOMEM => return Err(e.into()),
                Err(_) => choice.unreadable(),
            }
        }
        let (chosen, found) = choice.finish().map_err(sb)?;
        let at = at(&choice, chosen).ok_or(EINVAL)?;
        dev.read_sync(at.0 / SECTOR, &mut copy)?;
        if superblock::validate(&copy) != Ok(found) {
            return Err(Refusal::new(
                EIO,
                format_args!(
                    "SRL {shown}: its superblock reads differently each time; nothing was changed"
                ),
            ));
        }
        let mut durable = zeroed(superblock_bytes())?;
        let (block, ring) = {
            let s = Superblock::mut_from(&mut durable).ok_or(EINVAL)?;
            s.load(&copy).map_err(sb)?;
            s.check_device(bytes, dev.physical_block_size())
                .map_err(sb)?;
            (s.block(), s.ring().map(|a| (a.start, a.length)))
        };
        let next = zeroed(superblock_bytes())?;
        let io = SyncIo::new(0, superblock_bytes())?;
        let srl = Arc::pin_init(
            pin_init!(Srl {
                dev,
                path: owned,
                block,
                ring,
                degraded: Atomic::new(false),
                durable <- new_mutex!(durable),
                next <- new_mutex!(Next { bytes: next, state: WriteState::default(), io }),
            }),
            GFP_KERNEL,
        )?;
        Ok(srl)
    }

    /// The device.
    pub(crate) fn dev(&self) -> &Arc<BlockDevice> {
        &self.dev
    }

    /// The path that the administrator gave.
    pub(crate) fn path(&self) -> &CStr {
        &self.path
    }

    /// Unit of everything in the ring.
    pub(crate) fn block(&self) -> u32 {
        self.block
    }

    /// Size of the ring, where there is one.
    pub(crate) fn ring_bytes(&self) -> Option<Bytes> {
        self.ring.map(|(_, length)| length)
    }

    /// First sector on the device of `offset` bytes into the ring.
    pub(crate) fn ring_sector(&self, offset: Bytes) -> u64 {
        let start = self.ring.map_or(0, |(start, _)| start.0);
        start.saturating_add(offset.0) / SECTOR
    }

    /// Looks at the durable superblock. May sleep, but waits for no I/O. `f` does not sleep.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&Superblock) -> R) -> Result<R> {
        let mut durable = self.durable.lock();
        let sb = Superblock::mut_from(&mut durable).ok_or(EINVAL)?;
        Ok(f(sb))
    }

    /// Changes the superblock and returns once that is durable. May sleep; allocates nothing; blocks only other
    /// updates.
    ///
    /// When `f` refuses, or no two copies can be written, the superblock in memory stays what it was. After a device error
    /// the device may hold either, and nothing may go on: a group that runs calls
    /// [`Group::update_superblock`](crate::group::Group::update_superblock). See [`Self::is_degraded`].
    pub(crate) fn update<R, E>(
        &self,
        f: impl FnOnce(&mut Superblock) -> Result<R, E>,
    ) -> Result<R, Unwritten<E>> {
        let mut guard = self.next.lock();
        let b = &mut *guard;
        b.bytes.copy_from_slice(&self.durable.lock());
        let sb = Superblock::mut_from(&mut b.bytes).ok_or(EINVAL)?;
        let r = f(sb).map_err(Unwritten::Refused)?;
        loop {
            let mut attempt = b.state.begin(sb);
            let offsets = sb.write_offsets();
            let image = sb.seal();
            let mut error = EIO;
            // Both copies of one slot; the other slot stays valid until one of these is durable.
            for at in offsets {
                let flags = if attempt.wants_preflush() {
                    Flags::PREFLUSH_FUA
                } else {
                    Flags::FUA
                };
                let written = b.io.write(&self.dev, at.0 / SECTOR, image, flags);
                attempt.copy_done(written.is_ok());
                error = written.err().unwrap_or(error);
            }
            let written = b.state.end(attempt);
            self.degraded.store(b.state.is_degraded(), Relaxed);
            match written {
                Written::Durable => {
                    core::mem::swap(&mut *self.durable.lock(), &mut b.bytes);
                    return Ok(r);
                }
                Written::Again => {}
                Written::Unknown => return Err(error.into()),
            }
        }
    }

    /// Whether a copy of a superblock could not be written: another that fails may close the log. Does not sleep.
    pub(crate) fn is_degraded(&self) -> bool {
        self.degraded.load(Relaxed)
    }

    /// The ring's geometry with this live part.
    pub(crate) fn ring(&self, tail: Place, head: Place) -> Option<Ring> {
        self.ring
            .map(|(_, length)| Ring::new(length, self.block, tail, head))
    }
}

/// Bytes of a superblock image.
fn superblock_bytes() -> usize {
    core::mem::size_of::<Superblock>()
}

/// A zeroed buffer. May sleep.
pub(crate) fn zeroed(bytes: usize) -> Result<KVVec<u8>> {
    Ok(KVVec::from_elem(0u8, bytes, GFP_KERNEL)?)
}
