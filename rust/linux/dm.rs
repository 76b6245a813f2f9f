// SPDX-License-Identifier: GPL-2.0

//! Device-mapper targets.
//!
//! A type that implements [`Target`] becomes a target type by [`TargetRegistration`]; each table
//! line makes one instance, whose data is `Target::Private`.
//!
//! | callback | context |
//! |---|---|
//! | `ctr`, `dtr`, `status`, `message`, `io_hints` | process, may sleep |
//! | `presuspend`, `postsuspend`, `preresume`, `resume` | process, may sleep; holds `suspend_lock` |
//! | `map` | process, **must not wait**: it runs under the SRCU that suspend waits for |
//!
//! What `map` cannot do at once it keeps (a [`MappedBio`] is owned) and lets a worker do.
//! Device-mapper splits bios at `max_io_sectors`, turns a flush with data into an empty flush and
//! the data, and does not send `REQ_NOWAIT` or polled bios to these targets.

mod bio;
mod ctr;
mod glue;
mod kunit;
mod limits;
mod queue;
mod table;

pub use bio::{BioList, BioOp, MappedBio};
pub use ctr::{Args, Ctr};
pub use glue::TargetRegistration;
pub use limits::Limits;
pub use queue::{BioQueue, Returned};
pub use table::{Instance, TableHandle};

pub use crate::text::Writer;

use kernel::{prelude::*, types::ForeignOwnable};

/// Features of a target type.
pub mod features {
    use crate::bindings as raw;

    /// The target is the only one in its table.
    pub const SINGLETON: u64 = raw::DM_TARGET_SINGLETON as u64;
    /// Tables with this target cannot be read-only.
    pub const ALWAYS_WRITEABLE: u64 = raw::DM_TARGET_ALWAYS_WRITEABLE as u64;
    /// A device with this target never gets another one.
    pub const IMMUTABLE: u64 = raw::DM_TARGET_IMMUTABLE as u64;
}

/// What `status` is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusType {
    /// `dmsetup status`.
    Info,
    /// `dmsetup table`: what the constructor would take.
    Table,
    /// For the integrity measurement log: `name=value,...;`.
    Ima,
}

/// What `map` did with its bio; made by consuming it.
#[must_use]
pub struct MapOutcome(pub(self) glue::Outcome);

impl MapOutcome {
    /// The bio was ended, submitted, or kept to be ended later.
    pub const SUBMITTED: Self = Self(glue::Outcome::Submitted);
}

/// What an instance's callbacks see of its data.
pub type Borrowed<'a, T> = <<T as Target>::Private as ForeignOwnable>::Borrowed<'a>;

/// A target type. See the [module documentation](self) for the contexts.
#[vtable]
pub trait Target: Sized + 'static {
    /// The data of an instance, for example `Arc<Volume>`.
    type Private: ForeignOwnable + Send + Sync + 'static;

    /// The name in table lines.
    const NAME: &'static CStr;
    /// Version; shown by `dmsetup targets`.
    const VERSION: [u32; 3];
    /// See [`features`].
    const FEATURES: u64;

    /// Makes an instance from a table line. On failure, [`Ctr::fail`] says why.
    fn ctr(ctr: &mut Ctr<'_>) -> Result<Self::Private>;

    /// Takes an instance down. No I/O, no callback is running or will; the [`TableHandle`] is dead.
    fn dtr(private: Self::Private) {
        drop(private);
    }

    /// Handles a bio. Must not wait.
    fn map(private: Borrowed<'_, Self>, bio: MappedBio) -> MapOutcome;

    /// A suspend begins; I/O still arrives, then dm waits until all has ended.
    fn presuspend(_private: Borrowed<'_, Self>, _instance: &Instance<'_>) {
        kernel::build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// All I/O has ended and none arrives until the resume.
    fn postsuspend(_private: Borrowed<'_, Self>, _instance: &Instance<'_>) {
        kernel::build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Before the first I/O, and before I/O goes on; an error leaves the device suspended.
    fn preresume(_private: Borrowed<'_, Self>, _instance: &Instance<'_>) -> Result {
        kernel::build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// I/O goes on now.
    fn resume(_private: Borrowed<'_, Self>, _instance: &Instance<'_>) {
        kernel::build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Writes a status line.
    fn status(
        _private: Borrowed<'_, Self>,
        _instance: &Instance<'_>,
        _what: StatusType,
        _out: &mut Writer<'_>,
    ) {
        kernel::build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Handles `dmsetup message`; what is written to `reply` is what it prints.
    fn message(
        _private: Borrowed<'_, Self>,
        _instance: &Instance<'_>,
        _args: &Args<'_>,
        _reply: &mut Writer<'_>,
    ) -> Result {
        kernel::build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }

    /// Adjusts the limits that were stacked from the data devices.
    fn io_hints(_private: Borrowed<'_, Self>, _limits: &mut Limits<'_>) {
        kernel::build_error!(kernel::error::VTABLE_DEFAULT_ERROR)
    }
}
