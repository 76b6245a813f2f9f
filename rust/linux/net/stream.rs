// SPDX-License-Identifier: GPL-2.0

//! A TCP connection.

use super::{addr::SocketAddr, socket::Socket, Part};
use crate::{
    bindings as raw,
    errno::{ECONNABORTED, ECONNREFUSED, EINPROGRESS, ESHUTDOWN, ETIMEDOUT},
    event::{Event, Wake, FOREVER},
    gfp::NoreclaimScope,
    pages::PageBuf,
};
use kernel::{bindings, error::to_result, prelude::*, sync::Arc};

/// Page ranges that are given to the socket in one call.
const VECS: usize = 32;

/// A probe after this many seconds of silence, and so often, this many times.
const KEEPALIVE: (c_int, c_int, c_int) = (10, 5, 3);

/// A connection. Shared by its users; sending, receiving and shutting down may happen at the same
/// time. Dropping it closes it; what was sent is still delivered unless it was aborted.
pub struct Stream {
    socket: Socket,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Stream {
    /// Connects to `peer`, from the address `local` (its port does not matter). The news of the
    /// connection go to `event`, also those of the attempt.
    ///
    /// # Errors
    ///
    /// `ECONNREFUSED`, `EHOSTUNREACH`, `ENETUNREACH`, `ETIMEDOUT`; `EINTR` if the calling kthread
    /// shall stop.
    pub fn connect(
        peer: SocketAddr,
        local: Option<SocketAddr>,
        timeout_ms: u32,
        event: Arc<Event>,
    ) -> Result<Arc<Self>> {
        let socket = Socket::new(&peer, event)?;
        if let Some(local) = local {
            socket.bind(&local.with_port(0))?;
        }
        let mut to = peer.to_storage();
        // SAFETY: The socket is open; the address is as long as it says.
        let started = to_result(unsafe {
            bindings::kernel_connect(
                socket.as_ptr(),
                (&raw mut to.storage).cast::<bindings::sockaddr_unsized>(),
                to.len,
                bindings::O_NONBLOCK as c_int,
            )
        });
        match started {
            Err(e) if e == EINPROGRESS => {
                // SAFETY: The socket is open.
                let done = || !unsafe { raw::sk_is_connecting(socket.sk()) };
                match socket.event().wait_until(timeout_ms, done) {
                    Wake::Signalled => {}
                    Wake::TimedOut => return Err(ETIMEDOUT.into()),
                    Wake::Stop => return Err(EINTR),
                }
            }
            other => other?,
        }
        // SAFETY: The socket is open.
        to_result(unsafe { raw::sk_take_error(socket.sk()) })?;
        // SAFETY: The socket is open.
        if !unsafe { raw::sk_is_established(socket.sk()) } {
            return Err(ECONNREFUSED.into());
        }
        Self::new(socket, peer)
    }

    pub(super) fn accepted(socket: Socket) -> Result<Arc<Self>> {
        // It may have been reset already.
        let peer = socket.peer().map_err(|_| ECONNABORTED)?;
        Self::new(socket, peer)
    }

    fn new(socket: Socket, peer: SocketAddr) -> Result<Arc<Self>> {
        let local = socket.local()?;
        let sk = socket.sk();
        // SAFETY: The socket is open. The same holds for all that follow.
        unsafe { raw::sock_set_keepalive(sk) };
        // SAFETY: As above.
        unsafe { raw::tcp_sock_set_keepidle(sk, KEEPALIVE.0) };
        // SAFETY: As above.
        unsafe { raw::tcp_sock_set_keepintvl(sk, KEEPALIVE.1) };
        // SAFETY: As above.
        unsafe { raw::tcp_sock_set_keepcnt(sk, KEEPALIVE.2) };
        let stream = Self {
            socket,
            peer,
            local,
        };
        Ok(Arc::new(stream, GFP_KERNEL)?)
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// What is notified.
    pub fn event(&self) -> &Arc<Event> {
        self.socket.event()
    }

    /// Gives the connection up if what was sent is not acknowledged for that long.
    pub fn set_user_timeout(&self, ms: u32) {
        let ms = c_int::try_from(ms).unwrap_or(c_int::MAX);
        // SAFETY: The socket is open.
        unsafe { raw::tcp_sock_set_user_timeout(self.socket.sk(), ms) };
    }

    /// Lets the connection use the system's last pages: what goes over it may be what frees memory. For peers that
    /// are who they should be. Sleeps.
    pub fn set_memalloc(&self) {
        self.socket.set_memalloc();
    }

    /// Bytes sent that the other end's TCP has not acknowledged; their pages may still be read.
    pub fn unacked(&self) -> usize {
        // SAFETY: The socket is open.
        unsafe { raw::tcp_unacked(self.socket.sk()) as usize }
    }

    /// Ends both directions, and wakes who waits for the event. Any thread.
    pub fn shutdown(&self) {
        self.socket.shutdown();
    }

    /// As [`Stream::shutdown`]; what was not sent yet is thrown away, and the pages with it.
    pub fn abort(&self) {
        // SAFETY: The socket is open.
        unsafe { raw::sock_no_linger(self.socket.sk()) };
        self.socket.shutdown();
    }

    /// Sends what the socket takes of `parts` after the first `skip` bytes, without waiting, and
    /// returns how much that was. With `more`, TCP may wait for the next call to fill a packet.
    ///
    /// # Errors
    ///
    /// Those of the connection, `ECONNRESET`, `EPIPE`, `ETIMEDOUT`; `EINVAL` if a range is not in
    /// its buffer.
    pub fn try_send(&self, parts: &[Part<'_>], skip: usize, more: bool) -> Result<usize> {
        let mut skip = skip;
        let mut sent = 0;
        let mut left: usize = parts.iter().map(Part::len).sum();
        for part in parts {
            let len = part.len();
            left -= len;
            if skip >= len {
                skip -= len;
                continue;
            }
            let n = len - skip;
            let taken = match *part {
                Part::Bytes(bytes) => {
                    let bytes = bytes.get(skip..).ok_or(EINVAL)?;
                    self.send_bytes(bytes, more || left > 0)
                }
                Part::Pages { buf, offset, .. } => {
                    let offset = offset.checked_add(skip).ok_or(EINVAL)?;
                    self.send_pages(buf, offset, n, more || left > 0)
                }
            };
            skip = 0;
            match taken {
                Ok(taken) => {
                    sent += taken;
                    if taken < n {
                        break;
                    }
                }
                // What was taken before must not be sent again.
                Err(e) if sent == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    fn send_bytes(&self, bytes: &[u8], more: bool) -> Result<usize> {
        let vec = bindings::kvec {
            iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(),
            iov_len: bytes.len(),
        };
        let mut msg = bindings::msghdr::default();
        // SAFETY: One range, valid for reading until this returns.
        unsafe {
            bindings::iov_iter_kvec(
                &mut msg.msg_iter,
                bindings::ITER_SOURCE,
                &vec,
                1,
                bytes.len(),
            )
        };
        self.send_msg(&mut msg, 0, more)
    }

    fn send_pages(&self, buf: &PageBuf, offset: usize, len: usize, more: bool) -> Result<usize> {
        let mut done = 0;
        while done < len {
            let mut vecs = [bindings::bio_vec::default(); VECS];
            let (n, bytes) = fill(&mut vecs, buf, offset + done, len - done)?;
            let mut msg = bindings::msghdr::default();
            // SAFETY: `n` ranges of pages that the buffer holds; the socket takes references of
            // its own on what it keeps.
            unsafe {
                bindings::iov_iter_bvec(
                    &mut msg.msg_iter,
                    bindings::ITER_SOURCE,
                    vecs.as_ptr(),
                    n,
                    bytes,
                )
            };
            let rest = done + bytes < len;
            match self.send_msg(&mut msg, bindings::MSG_SPLICE_PAGES, more || rest) {
                Ok(taken) => {
                    done += taken;
                    if taken < bytes {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn send_msg(&self, msg: &mut bindings::msghdr, flags: u32, more: bool) -> Result<usize> {
        msg.msg_flags = bindings::MSG_DONTWAIT | bindings::MSG_NOSIGNAL | flags;
        if more {
            msg.msg_flags |= bindings::MSG_MORE;
        }
        // As nbd and nvme-tcp do: never wait for memory that this very message may be about to free.
        let _noreclaim = self.socket.is_memalloc().then(NoreclaimScope::enter);
        // SAFETY: The socket is open; the message describes valid memory.
        let n = unsafe { bindings::sock_sendmsg(self.socket.as_ptr(), msg) };
        match to_result(n) {
            Err(e) if e == EAGAIN => Ok(0),
            Err(e) => Err(e),
            Ok(()) => Ok(n.unsigned_abs() as usize),
        }
    }

    /// Sends all of `parts`, as if it was one buffer.
    ///
    /// # Errors
    ///
    /// As for [`Stream::try_send`]; `ETIMEDOUT` if it takes longer than `timeout_ms` in all, and
    /// `EINTR` if the calling kthread shall stop: then a part of it was sent.
    pub fn send_all(&self, parts: &[Part<'_>], timeout_ms: u32) -> Result {
        let total: usize = parts.iter().map(Part::len).sum();
        let mut sent = 0;
        self.wait_for(timeout_ms, || {
            sent += self.try_send(parts, sent, false)?;
            Ok(sent >= total)
        })
    }

    /// Receives what has arrived, up to the length of `data`. 0 if there is nothing now.
    ///
    /// # Errors
    ///
    /// `ESHUTDOWN` if the other end has closed the connection and all was received; those of the
    /// connection.
    pub fn try_recv(&self, data: &mut [u8]) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let vec = bindings::kvec {
            iov_base: data.as_mut_ptr().cast::<c_void>(),
            iov_len: data.len(),
        };
        let mut msg = bindings::msghdr::default();
        // SAFETY: One range, valid for writing until this returns.
        unsafe {
            bindings::iov_iter_kvec(&mut msg.msg_iter, bindings::ITER_DEST, &vec, 1, data.len())
        };
        self.recv_msg(&mut msg)
    }

    /// As [`Stream::try_recv`], into a range of a buffer.
    pub fn try_recv_buf(&self, buf: &mut PageBuf, offset: usize, len: usize) -> Result<usize> {
        let mut done = 0;
        while done < len {
            let mut vecs = [bindings::bio_vec::default(); VECS];
            let (n, bytes) = fill(&mut vecs, buf, offset + done, len - done)?;
            let mut msg = bindings::msghdr::default();
            // SAFETY: `n` ranges of pages that are ours through `&mut`.
            unsafe {
                bindings::iov_iter_bvec(
                    &mut msg.msg_iter,
                    bindings::ITER_DEST,
                    vecs.as_ptr(),
                    n,
                    bytes,
                )
            };
            match self.recv_msg(&mut msg) {
                Ok(got) => {
                    done += got;
                    if got < bytes {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn recv_msg(&self, msg: &mut bindings::msghdr) -> Result<usize> {
        // SAFETY: The socket is open; the message describes valid memory.
        let n = unsafe {
            bindings::sock_recvmsg(self.socket.as_ptr(), msg, bindings::MSG_DONTWAIT as c_int)
        };
        match to_result(n) {
            Err(e) if e == EAGAIN => Ok(0),
            Err(e) => Err(e),
            Ok(()) if n == 0 => Err(ESHUTDOWN.into()),
            Ok(()) => Ok(n.unsigned_abs() as usize),
        }
    }

    /// Fills `data`.
    ///
    /// # Errors
    ///
    /// As for [`Stream::try_recv`]; `ETIMEDOUT` if it takes longer than `timeout_ms` in all, and
    /// `EINTR` if the calling kthread shall stop: then a part of it was received.
    pub fn recv_exact(&self, data: &mut [u8], timeout_ms: u32) -> Result {
        let mut done = 0;
        self.wait_for(timeout_ms, || {
            let rest = data.get_mut(done..).unwrap_or_default();
            done += self.try_recv(rest)?;
            Ok(done >= data.len())
        })
    }

    /// Calls `step` until it says that it is done, and waits for news in between.
    fn wait_for(&self, timeout_ms: u32, mut step: impl FnMut() -> Result<bool>) -> Result {
        // A shortage of memory makes a socket refuse without a later call: look now and then.
        const AT_LEAST_EVERY_MS: u32 = 200;

        let start = crate::clock::monotonic_ns();
        let limit = u64::from(timeout_ms).saturating_mul(1_000_000);
        let mut consumed = false;
        let result = loop {
            // The flag is cleared before the look, so that no news is lost.
            consumed |= self.event().take();
            match step() {
                Ok(false) => {}
                other => break other.map(|_| ()),
            }
            let spent = crate::clock::monotonic_ns().saturating_sub(start);
            let left = limit.saturating_sub(spent).div_ceil(1_000_000);
            if left == 0 && timeout_ms != FOREVER {
                break Err(ETIMEDOUT.into());
            }
            let ms = u32::try_from(left).unwrap_or(AT_LEAST_EVERY_MS);
            match self.event().wait(ms.min(AT_LEAST_EVERY_MS)) {
                Wake::Stop => break Err(EINTR),
                Wake::Signalled => consumed = true,
                Wake::TimedOut => {}
            }
        };
        if consumed {
            // It may have been for something else that shares the event.
            self.event().notify();
        }
        result
    }
}

/// Lists the pages of a range, as many as there is room for. Returns how many, and their bytes.
fn fill(
    vecs: &mut [bindings::bio_vec; VECS],
    buf: &PageBuf,
    offset: usize,
    len: usize,
) -> Result<(usize, usize)> {
    // One page less: the first may be partial.
    let len = len.min((VECS - 1) * crate::pages::PAGE_BYTES);
    let mut n = 0;
    buf.segment_pages(offset, len, |page, off, bytes| {
        if let Some(vec) = vecs.get_mut(n) {
            *vec = bindings::bio_vec {
                bv_page: page,
                bv_len: bytes as u32,
                bv_offset: off as u32,
            };
            n += 1;
        }
    })
    .ok_or(EINVAL)?;
    Ok((n, len))
}
