// SPDX-License-Identifier: GPL-2.0

//! Error codes that the `kernel` prelude lacks, and the block layer's status codes.
//!
//! Any context.

use crate::bindings as raw;
use core::fmt;
use kernel::{bindings, error::Error, prelude::*};

/// An error code as a constant: `Error::from_errno` is not `const`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(i32);

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error::from_errno(-errno.0)
    }
}

impl PartialEq<Errno> for Error {
    fn eq(&self, errno: &Errno) -> bool {
        self.to_errno() == -errno.0
    }
}

macro_rules! errnos {
    ($($name:ident $doc:literal,)*) => {$(
        #[doc = $doc]
        pub const $name: Errno = Errno(bindings::$name as i32);
    )*};
}

errnos! {
    EADDRINUSE "Address already in use.",
    EADDRNOTAVAIL "Cannot assign requested address.",
    EALREADY "Operation already in progress.",
    ECONNABORTED "Software caused connection abort.",
    ECONNREFUSED "Connection refused.",
    ECONNRESET "Connection reset by peer.",
    EHOSTDOWN "Host is down.",
    EHOSTUNREACH "No route to host.",
    EINPROGRESS "Operation now in progress.",
    EISCONN "Transport endpoint is already connected.",
    EKEYREJECTED "Key was rejected.",
    ENETDOWN "Network is down.",
    ENETUNREACH "Network is unreachable.",
    ENODATA "No data available.",
    ENOTCONN "Transport endpoint is not connected.",
    EOPNOTSUPP "Operation not supported.",
    ESHUTDOWN "Cannot send after transport endpoint shutdown; here: the peer closed the stream.",
    ETIME "Timer expired.",
    ETIMEDOUT "Connection timed out.",
    EUCLEAN "Structure needs cleaning.",
}

/// How a block I/O ended (`blk_status_t`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BlkStatus(bindings::blk_status_t);

impl BlkStatus {
    /// Success.
    pub const OK: Self = Self(0);
    /// The device does not support the operation.
    pub const NOTSUPP: Self = Self(raw::BLK_STATUS_NOTSUPP);
    /// The device did not answer in time.
    pub const TIMEOUT: Self = Self(raw::BLK_STATUS_TIMEOUT);
    /// No space left.
    pub const NOSPC: Self = Self(raw::BLK_STATUS_NOSPC);
    /// The way to the device is broken.
    pub const TRANSPORT: Self = Self(raw::BLK_STATUS_TRANSPORT);
    /// The device says it never can.
    pub const TARGET: Self = Self(raw::BLK_STATUS_TARGET);
    /// The medium is damaged.
    pub const MEDIUM: Self = Self(raw::BLK_STATUS_MEDIUM);
    /// Data integrity check failed.
    pub const PROTECTION: Self = Self(raw::BLK_STATUS_PROTECTION);
    /// Out of a resource; may be tried again.
    pub const RESOURCE: Self = Self(raw::BLK_STATUS_RESOURCE);
    /// I/O error without further detail.
    pub const IOERR: Self = Self(raw::BLK_STATUS_IOERR);
    /// Hand the bio back to device-mapper; only during a noflush suspend, else it is an error.
    pub const DM_REQUEUE: Self = Self(raw::BLK_STATUS_DM_REQUEUE);
    /// Would block.
    pub const AGAIN: Self = Self(raw::BLK_STATUS_AGAIN);
    /// The device is offline.
    pub const OFFLINE: Self = Self(raw::BLK_STATUS_OFFLINE);
    /// Size or alignment that the device cannot do.
    pub const INVAL: Self = Self(raw::BLK_STATUS_INVAL);

    /// Takes over a status from C.
    pub(crate) fn from_raw(status: bindings::blk_status_t) -> Self {
        Self(status)
    }

    /// The status for C.
    pub(crate) fn as_raw(self) -> bindings::blk_status_t {
        self.0
    }

    /// Whether the I/O succeeded.
    pub fn is_ok(self) -> bool {
        self == Self::OK
    }

    /// `Ok` or the errno that user space would see.
    pub fn to_result(self) -> Result {
        // SAFETY: Any status may be passed; unknown ones become `EIO`.
        kernel::error::to_result(unsafe { bindings::blk_status_to_errno(self.0) })
    }

    /// A short name for messages and counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::OK => "ok",
            Self::NOTSUPP => "not supported",
            Self::TIMEOUT => "timeout",
            Self::NOSPC => "no space",
            Self::TRANSPORT => "transport error",
            Self::TARGET => "target error",
            Self::MEDIUM => "medium error",
            Self::PROTECTION => "protection error",
            Self::RESOURCE => "out of resources",
            Self::IOERR => "I/O error",
            Self::DM_REQUEUE => "requeued",
            Self::AGAIN => "would block",
            Self::OFFLINE => "device offline",
            Self::INVAL => "invalid request",
            _ => "unknown status",
        }
    }
}

impl fmt::Display for BlkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

kernel_display!(BlkStatus);

impl fmt::Debug for BlkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Error> for BlkStatus {
    fn from(error: Error) -> Self {
        // SAFETY: An `Error` is a valid negative errno.
        Self(unsafe { bindings::errno_to_blk_status(error.to_errno()) })
    }
}

#[kunit_tests(replicate_linux_errno)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_what_c_says() {
        assert_eq!(Error::from(ECONNRESET).to_errno(), -104);
        assert_eq!(Error::from(ECONNREFUSED).to_errno(), -111);
        assert_eq!(Error::from(EUCLEAN).to_errno(), -117);
        assert!(Error::from(ETIMEDOUT) == ETIMEDOUT && EIO != ETIMEDOUT);
    }

    #[test]
    fn status_and_error_map_both_ways() {
        assert!(BlkStatus::OK.to_result().is_ok());
        assert_eq!(BlkStatus::IOERR.to_result(), Err(EIO));
        assert_eq!(BlkStatus::NOSPC.to_result(), Err(ENOSPC));
        assert!(BlkStatus::from(ENOSPC) == BlkStatus::NOSPC);
        assert!(BlkStatus::from(Error::from(EOPNOTSUPP)) == BlkStatus::NOTSUPP);
        assert!(BlkStatus::from(EIO) == BlkStatus::IOERR);
    }
}
