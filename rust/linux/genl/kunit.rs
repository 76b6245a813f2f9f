// SPDX-License-Identifier: GPL-2.0

//! Tests with a real family, through a real netlink socket.

use kernel::prelude::*;

#[kunit_tests(replicate_linux_genl)]
mod tests {
    use super::*;
    use crate::{
        bindings as raw,
        genl::{dump::dumpit, request::doit, Attrs, Dump, Multicast, Registration, Request},
    };
    use core::{cell::UnsafeCell, ptr::NonNull};
    use kernel::{bindings, error::to_result};

    const CMD_ECHO: u8 = 1;
    const CMD_LIST: u8 = 2;
    const CMD_REFUSE: u8 = 3;
    const A_NUMBER: u16 = 1;
    const A_TEXT: u16 = 2;
    const A_NEST: u16 = 3;
    const A_BIG: u16 = 4;
    const ENTRIES: u64 = 500;
    // From `linux/genetlink.h` of the user interface.
    const CAP_DO: u8 = 2;
    const CAP_DUMP: u8 = 4;
    const HEADERS: usize = size_of::<bindings::nlmsghdr>() + size_of::<raw::genlmsghdr>();

    /// # Safety
    ///
    /// For generic netlink, as all that follow.
    unsafe extern "C" fn echo_doit(
        skb: *mut bindings::sk_buff,
        info: *mut raw::genl_info,
    ) -> c_int {
        // SAFETY: Per the caller.
        unsafe { doit(skb, info, echo) }
    }

    /// # Safety
    ///
    /// As above.
    unsafe extern "C" fn refuse_doit(
        skb: *mut bindings::sk_buff,
        info: *mut raw::genl_info,
    ) -> c_int {
        // SAFETY: Per the caller.
        unsafe { doit(skb, info, refuse) }
    }

    /// # Safety
    ///
    /// As above.
    unsafe extern "C" fn list_dumpit(
        skb: *mut bindings::sk_buff,
        cb: *mut bindings::netlink_callback,
    ) -> c_int {
        // SAFETY: Per the caller.
        unsafe { dumpit(skb, cb, list) }
    }

    fn echo(request: &mut Request<'_>) -> Result {
        let attrs = request.attrs();
        let Some(number) = attrs.get(A_NUMBER) else {
            return Err(request.fail_missing(A_NUMBER, format_args!("no number given")));
        };
        let Some(value) = number.u32() else {
            return Err(request.fail(ERANGE, format_args!("not a number")));
        };
        let text = attrs.str(A_TEXT).ok_or(EINVAL)?;
        let mut reply = request.reply(CMD_ECHO, 256)?;
        reply.u32(A_NUMBER, value + 1)?;
        reply.nest(A_NEST, |m| {
            m.fmt(A_TEXT, format_args!("<{}>", text))?;
            m.uint(A_BIG, u64::from(value) << 32)
        })?;
        // A nest that fails leaves nothing behind.
        let failed = reply.nest(A_NEST, |m| {
            m.flag(A_BIG)?;
            Err(EIO)
        });
        if failed != Err(EIO) || reply.bytes(A_BIG, &[0; 60_000]) != Err(EMSGSIZE) {
            return Err(EPIPE);
        }
        reply.send()
    }

    fn refuse(request: &mut Request<'_>) -> Result {
        let n = request.attrs().u32(A_NUMBER).unwrap_or(0) as usize;
        Err(request.fail(EBUSY, format_args!("{:x>1$}", "end", n)))
    }

    fn list(dump: &mut Dump<'_>) -> Result {
        dump.set_generation(7);
        let mut i = dump.cursor(0);
        while i < ENTRIES {
            let number = u32::try_from(i)?;
            let added = dump.entry(CMD_LIST, |m| {
                m.u32(A_NUMBER, number)?;
                m.bytes(A_TEXT, &[7; 100])
            })?;
            if !added {
                break;
            }
            i += 1;
        }
        dump.set_cursor(0, i);
        Ok(())
    }

    /// `struct nla_policy`, which the kernel's bindings do not have.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Policy {
        kind: u8,
        validation: u8,
        len: u16,
        more: u64,
    }

    /// Any bytes, up to a length (`NLA_BINARY`).
    const BINARY: u8 = 11;

    /// The tables that are generated C otherwise.
    struct Tables {
        family: raw::genl_family,
        ops: [raw::genl_split_ops; 3],
        groups: [raw::genl_multicast_group; 1],
        policy: [Policy; 3],
    }

    struct Place(UnsafeCell<Option<KBox<Tables>>>);

    // SAFETY: Tests of a suite run one after the other.
    unsafe impl Sync for Place {}

    static PLACE: Place = Place(UnsafeCell::new(None));

    fn family() -> *mut raw::genl_family {
        // SAFETY: The tables are set before the family is used, and tests run one after the other.
        let tables = unsafe { &mut *PLACE.0.get() };
        tables
            .as_mut()
            .map_or(core::ptr::null_mut(), |t| &raw mut t.family)
    }

    fn register() -> Result<Registration> {
        // SAFETY: The tables stay until the registration is gone: it is made after them, and dropped before.
        unsafe { Registration::new(family()) }
    }

    fn new_event() -> Result<Multicast> {
        // SAFETY: The tests that call this have registered the family.
        unsafe { Multicast::of(family(), 9, 128, raw::GFP_MASK_NOWAIT) }
    }

    fn name(text: &CStr) -> [c_char; 16] {
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(text.to_bytes()) {
            *to = *from;
        }
        name
    }

    /// Frees the tables when dropped.
    struct Made;

    impl Drop for Made {
        fn drop(&mut self) {
            // SAFETY: The family is not registered any more.
            unsafe { *PLACE.0.get() = None };
        }
    }

    fn make_tables() -> Result<Made> {
        let doit = |cmd: u8, entry| {
            let mut op = raw::genl_split_ops {
                cmd,
                flags: CAP_DO,
                ..Default::default()
            };
            op.__bindgen_anon_1.__bindgen_anon_1.doit = entry;
            op
        };
        let mut dump = raw::genl_split_ops {
            cmd: CMD_LIST,
            flags: CAP_DUMP,
            ..Default::default()
        };
        dump.__bindgen_anon_1.__bindgen_anon_2.dumpit = Some(list_dumpit);
        let tables = Tables {
            family: raw::genl_family {
                name: name(c"replicate-kunit"),
                version: 1,
                n_split_ops: 3,
                n_mcgrps: 1,
                ..Default::default()
            },
            ops: [
                doit(CMD_ECHO, Some(echo_doit)),
                dump,
                doit(CMD_REFUSE, Some(refuse_doit)),
            ],
            groups: [raw::genl_multicast_group {
                name: name(c"events"),
                ..Default::default()
            }],
            policy: [Policy {
                kind: BINARY,
                validation: 0,
                len: 64,
                more: 0,
            }; 3],
        };
        let mut tables = KBox::new(tables, GFP_KERNEL)?;
        let policy = tables.policy.as_ptr().cast::<bindings::nla_policy>();
        for op in &mut tables.ops {
            op.policy = policy;
            op.maxattr = u32::from(A_TEXT);
        }
        tables.family.split_ops = tables.ops.as_ptr();
        tables.family.mcgrps = tables.groups.as_ptr();
        // SAFETY: Nobody uses the tables of an earlier test any more.
        unsafe { *PLACE.0.get() = Some(tables) };
        Ok(Made)
    }

    /// A user's netlink socket.
    struct Client {
        sock: NonNull<bindings::socket>,
        buf: KVec<u8>,
    }

    impl Client {
        fn new() -> Result<Self> {
            let buf = KVec::from_elem(0u8, 64 << 10, GFP_KERNEL)?;
            let mut sock = core::ptr::null_mut();
            // SAFETY: Makes a new socket in the initial namespace.
            to_result(unsafe {
                bindings::sock_create_kern(
                    raw::init_net(),
                    bindings::AF_NETLINK as c_int,
                    bindings::sock_type_SOCK_RAW as c_int,
                    bindings::NETLINK_GENERIC as c_int,
                    &mut sock,
                )
            })?;
            let client = Self {
                sock: NonNull::new(sock).ok_or(EIO)?,
                buf,
            };
            client.option(bindings::NETLINK_EXT_ACK, 1)?;
            let mut any = bindings::sockaddr_nl {
                nl_family: bindings::AF_NETLINK as u16,
                ..Default::default()
            };
            // SAFETY: The socket is open; the address is as long as it says.
            to_result(unsafe {
                bindings::kernel_bind(
                    client.sock.as_ptr(),
                    (&raw mut any).cast(),
                    size_of::<bindings::sockaddr_nl>() as c_int,
                )
            })?;
            Ok(client)
        }

        fn option(&self, option: u32, value: i32) -> Result {
            let mut value = value;
            let mut ptr = bindings::sockptr_t::default();
            ptr.__bindgen_anon_1.kernel = (&raw mut value).cast();
            ptr.set_is_kernel(true);
            // SAFETY: The socket is open.
            let set = unsafe { (*(*self.sock.as_ptr()).ops).setsockopt }.ok_or(EIO)?;
            // SAFETY: The option is an `int`, which `ptr` points at.
            to_result(unsafe {
                set(
                    self.sock.as_ptr(),
                    bindings::SOL_NETLINK as c_int,
                    option as c_int,
                    ptr,
                    4,
                )
            })
        }

        fn send(&mut self, cmd: u8, flags: u32, attrs: &[u8]) -> Result {
            let mut message = KVec::with_capacity(HEADERS + attrs.len(), GFP_KERNEL)?;
            // SAFETY: The family is registered.
            let id = unsafe { (*family()).id };
            let len = u32::try_from(HEADERS + attrs.len())?;
            message.extend_from_slice(&len.to_ne_bytes(), GFP_KERNEL)?;
            message.extend_from_slice(&u16::try_from(id)?.to_ne_bytes(), GFP_KERNEL)?;
            let flags = u16::try_from(flags | bindings::NLM_F_REQUEST)?;
            message.extend_from_slice(&flags.to_ne_bytes(), GFP_KERNEL)?;
            message.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, cmd, 1, 0, 0], GFP_KERNEL)?;
            message.extend_from_slice(attrs, GFP_KERNEL)?;
            let mut vec = bindings::kvec {
                iov_base: message.as_mut_ptr().cast(),
                iov_len: message.len(),
            };
            let mut msg = bindings::msghdr::default();
            // SAFETY: The socket is open; the message is valid.
            to_result(unsafe {
                bindings::kernel_sendmsg(self.sock.as_ptr(), &mut msg, &mut vec, 1, message.len())
            })
        }

        /// Receives a datagram; it may hold several messages.
        fn recv(&mut self) -> Result<&[u8]> {
            let mut vec = bindings::kvec {
                iov_base: self.buf.as_mut_ptr().cast(),
                iov_len: self.buf.len(),
            };
            let mut msg = bindings::msghdr::default();
            // SAFETY: The socket is open; the buffer is valid.
            let n = unsafe {
                bindings::kernel_recvmsg(
                    self.sock.as_ptr(),
                    &mut msg,
                    &mut vec,
                    1,
                    self.buf.len(),
                    bindings::MSG_DONTWAIT as c_int,
                )
            };
            to_result(n)?;
            self.buf.get(..n.unsigned_abs() as usize).ok_or(EIO)
        }
    }

    impl Drop for Client {
        fn drop(&mut self) {
            // SAFETY: The socket is ours.
            unsafe { bindings::sock_release(self.sock.as_ptr()) };
        }
    }

    /// Splits the first message off: type, what follows the netlink header, rest.
    fn message(bytes: &[u8]) -> Result<(u16, &[u8], &[u8])> {
        let (&[l0, l1, l2, l3, t0, t1], _) = bytes.split_first_chunk::<6>().ok_or(EINVAL)?;
        let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let body = bytes.get(16..len).ok_or(EINVAL)?;
        let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Ok((u16::from_ne_bytes([t0, t1]), body, rest))
    }

    /// The error code of an acknowledgement, and its text.
    fn ack(bytes: &[u8]) -> Result<(i32, &str)> {
        let (kind, body, _) = message(bytes)?;
        let (code, rest) = body.split_first_chunk::<4>().ok_or(EINVAL)?;
        // The header of the request, or all of it, comes before the attributes.
        let (&[l0, l1, l2, l3], _) = rest.split_first_chunk::<4>().ok_or(EINVAL)?;
        let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let attrs = Attrs::new(rest.get(len.next_multiple_of(4)..).unwrap_or_default());
        let text = attrs.str(bindings::nlmsgerr_attrs_NLMSGERR_ATTR_MSG as u16);
        if u32::from(kind) != bindings::NLMSG_ERROR {
            return Err(EINVAL);
        }
        Ok((i32::from_ne_bytes(*code), text.unwrap_or_default()))
    }

    #[test]
    fn a_request_is_answered() -> Result {
        let _tables = make_tables()?;
        let registration = register()?;
        let mut client = Client::new()?;
        let attrs = [8, 0, 1, 0, 41, 0, 0, 0, 7, 0, 2, 0, b'a', b'b', 0, 0];
        client.send(CMD_ECHO, 0, &attrs)?;
        let mut number = None;
        let mut big = None;
        let mut text_ok = false;
        let mut nests = 0;
        if let Ok((_, body, _)) = message(client.recv()?) {
            let attrs = Attrs::new(body.get(4..).unwrap_or_default());
            number = attrs.u32(A_NUMBER);
            nests = attrs.all(A_NEST).count();
            if let Some(nest) = attrs.nested(A_NEST) {
                text_ok = nest.str(A_TEXT) == Some("<ab>");
                big = nest.uint(A_BIG);
            }
        }
        drop(registration);
        assert_eq!(number, Some(42));
        assert_eq!(nests, 1);
        assert!(text_ok);
        assert_eq!(big, Some(41 << 32));
        Ok(())
    }

    #[test]
    fn refusals_carry_their_text() -> Result {
        let _tables = make_tables()?;
        let registration = register()?;
        let mut client = Client::new()?;
        client.send(CMD_ECHO, 0, &[])?;
        let missing = ack(client.recv()?)? == (-22, "no number given");
        client.send(CMD_ECHO, 0, &[5, 0, 1, 0, 9, 0, 0, 0])?;
        let bad = ack(client.recv()?)? == (ERANGE.to_errno(), "not a number");
        let mut lengths = [0; 4];
        for (got, want) in lengths.iter_mut().zip([10u32, 79, 80, 399]) {
            let [a, b, c, d] = want.to_ne_bytes();
            client.send(CMD_REFUSE, 0, &[8, 0, 1, 0, a, b, c, d])?;
            let (code, text) = ack(client.recv()?)?;
            if code == EBUSY.to_errno() && text.ends_with("end") {
                *got = text.len();
            }
        }
        let [a, b, c, d] = 1000u32.to_ne_bytes();
        client.send(CMD_REFUSE, 0, &[8, 0, 1, 0, a, b, c, d])?;
        let cut = ack(client.recv()?)?.1.len();
        drop(registration);
        assert!(missing);
        assert!(bad);
        assert!(lengths == [10, 79, 80, 399]);
        assert_eq!(cut, 399);
        Ok(())
    }

    #[test]
    fn a_long_list_comes_in_pieces() -> Result {
        let _tables = make_tables()?;
        let registration = register()?;
        let mut client = Client::new()?;
        client.send(CMD_LIST, bindings::NLM_F_DUMP, &[])?;
        let mut next = 0;
        let mut datagrams = 0;
        let mut done = false;
        while !done {
            let mut rest = client.recv()?;
            datagrams += 1;
            while !rest.is_empty() {
                let (kind, body, after) = message(rest)?;
                rest = after;
                if u32::from(kind) == bindings::NLMSG_DONE {
                    done = true;
                    continue;
                }
                let attrs = Attrs::new(body.get(4..).unwrap_or_default());
                if attrs.u32(A_NUMBER) == Some(next) && attrs.bytes(A_TEXT) == Some(&[7; 100]) {
                    next += 1;
                }
            }
        }
        drop(registration);
        assert_eq!(u64::from(next), ENTRIES);
        assert!(datagrams > 2);
        Ok(())
    }

    #[test]
    fn events_reach_those_who_listen() -> Result {
        let _tables = make_tables()?;
        let registration = register()?;
        let unheard = new_event()?.send(0);
        let mut client = Client::new()?;
        // SAFETY: The family is registered.
        let first = unsafe { (*family()).mcgrp_offset };
        client.option(bindings::NETLINK_ADD_MEMBERSHIP, i32::try_from(first)?)?;
        let mut event = new_event()?;
        event.str(A_TEXT, "it happened")?;
        drop(new_event()?);
        event.send(0)?;
        let heard = match message(client.recv()?)? {
            (_, [9, _, _, _, attrs @ ..], _) => {
                Attrs::new(attrs).str(A_TEXT) == Some("it happened")
            }
            _ => false,
        };
        let nothing_more = client.recv().is_err();
        drop(client);
        drop(registration);
        assert!(unheard.is_ok());
        assert!(heard);
        assert!(nothing_more);
        Ok(())
    }
}
