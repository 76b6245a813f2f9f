// SPDX-License-Identifier: GPL-2.0

//! Addresses: IPv4 or IPv6, and a port.

use crate::bindings as raw;
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
};
use kernel::{bindings, prelude::*};

/// An address, written `10.0.0.1:7790` or `[2001:db8::1]:7790`; a link-local one has the number of
/// its interface: `[fe80::1%2]:7790`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SocketAddr(core::net::SocketAddr);

/// A `struct sockaddr_storage`, and how much of it is used.
pub(super) struct Storage {
    pub(super) storage: bindings::__kernel_sockaddr_storage,
    pub(super) len: c_int,
}

impl SocketAddr {
    /// Parses an address. Host names are not known to the kernel.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn parse(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|_| EINVAL)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// The same address with another port.
    pub fn with_port(mut self, port: u16) -> Self {
        self.0.set_port(port);
        self
    }

    /// Whether it is IPv6.
    pub fn is_v6(&self) -> bool {
        self.0.is_ipv6()
    }

    /// The host part; that of an IPv4 host is the same where it comes over IPv6.
    pub fn host(&self) -> IpAddr {
        self.0.ip().to_canonical()
    }

    /// Whether both have the same host part.
    pub fn same_host(&self, other: &Self) -> bool {
        self.host() == other.host()
    }

    /// Whether it stands for any address of this host.
    pub fn is_any(&self) -> bool {
        self.0.ip().is_unspecified()
    }

    pub(super) fn family(&self) -> c_int {
        if self.is_v6() {
            bindings::AF_INET6 as c_int
        } else {
            bindings::AF_INET as c_int
        }
    }

    pub(super) fn to_storage(self) -> Storage {
        let mut storage = bindings::__kernel_sockaddr_storage::default();
        let len = match self.0 {
            core::net::SocketAddr::V4(v4) => {
                let addr = raw::sockaddr_in {
                    sin_family: bindings::AF_INET as u16,
                    sin_port: v4.port().to_be(),
                    sin_addr: raw::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    ..Default::default()
                };
                // SAFETY: A `sockaddr_storage` is larger and at least as aligned.
                unsafe { (&raw mut storage).cast::<raw::sockaddr_in>().write(addr) };
                size_of::<raw::sockaddr_in>()
            }
            core::net::SocketAddr::V6(v6) => {
                let mut addr = bindings::sockaddr_in6 {
                    sin6_family: bindings::AF_INET6 as u16,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo().to_be(),
                    sin6_scope_id: v6.scope_id(),
                    ..Default::default()
                };
                addr.sin6_addr.in6_u.u6_addr8 = v6.ip().octets();
                // SAFETY: As above.
                unsafe {
                    (&raw mut storage)
                        .cast::<bindings::sockaddr_in6>()
                        .write(addr)
                };
                size_of::<bindings::sockaddr_in6>()
            }
        };
        Storage {
            storage,
            len: len as c_int,
        }
    }

    pub(super) fn from_storage(storage: &bindings::__kernel_sockaddr_storage) -> Option<Self> {
        let start = core::ptr::from_ref(storage);
        // SAFETY: The family comes first in every kind of address.
        let family = u32::from(unsafe { *start.cast::<u16>() });
        match family {
            bindings::AF_INET => {
                // SAFETY: The family says so, and the storage is large enough.
                let addr = unsafe { &*start.cast::<raw::sockaddr_in>() };
                let ip = Ipv4Addr::from(addr.sin_addr.s_addr.to_ne_bytes());
                let v4 = SocketAddrV4::new(ip, u16::from_be(addr.sin_port));
                Some(Self(v4.into()))
            }
            bindings::AF_INET6 => {
                // SAFETY: The family says so, and the storage is large enough.
                let addr = unsafe { &*start.cast::<bindings::sockaddr_in6>() };
                // SAFETY: All bytes of an address are initialised.
                let ip = Ipv6Addr::from(unsafe { addr.sin6_addr.in6_u.u6_addr8 });
                let v6 = SocketAddrV6::new(
                    ip,
                    u16::from_be(addr.sin6_port),
                    u32::from_be(addr.sin6_flowinfo),
                    addr.sin6_scope_id,
                );
                Some(Self(v6.into()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for SocketAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

kernel_display!(SocketAddr);

impl From<core::net::SocketAddr> for SocketAddr {
    fn from(addr: core::net::SocketAddr) -> Self {
        Self(addr)
    }
}

impl From<SocketAddr> for IpAddr {
    fn from(addr: SocketAddr) -> Self {
        addr.0.ip()
    }
}

#[kunit_tests(replicate_linux_net_addr)]
mod tests {
    use super::*;
    use kernel::str::CString;

    #[test]
    fn text_and_storage_keep_everything() -> Result {
        for text in ["10.1.2.3:7790", "[2001:db8::5]:1", "[fe80::1%7]:65535"] {
            let addr = SocketAddr::parse(text)?;
            let back = SocketAddr::from_storage(&addr.to_storage().storage).ok_or(EINVAL)?;
            assert!(back == addr);
            let shown = CString::try_from_fmt(fmt!("{}", back))?;
            assert!(shown.to_bytes() == text.as_bytes());
        }
        assert_eq!(SocketAddr::parse("10.1.2.3:7790")?.port(), 7790);
        assert!(SocketAddr::parse("0.0.0.0:1")?.is_any());
        let (v4, mapped) = ("10.1.2.3:1", "[::ffff:10.1.2.3]:2");
        assert!(SocketAddr::parse(v4)?.same_host(&SocketAddr::parse(mapped)?));
        let zeros = bindings::__kernel_sockaddr_storage::default();
        assert!(SocketAddr::from_storage(&zeros).is_none());
        Ok(())
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "10.0.0.1",
            "host:1",
            "10.0.0.1:65536",
            "::1:80",
            "[::1]",
            "1.2.3.4.5:6",
        ] {
            assert!(SocketAddr::parse(text).is_err());
        }
    }
}
