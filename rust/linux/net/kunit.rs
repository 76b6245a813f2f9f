// SPDX-License-Identifier: GPL-2.0

//! Tests over the loopback device.

use kernel::prelude::*;

#[kunit_tests(replicate_linux_net)]
mod tests {
    use super::*;
    use crate::{
        clock,
        errno::{ECONNREFUSED, ESHUTDOWN, ETIME, ETIMEDOUT},
        event::{Event, Wake, FOREVER},
        kthread::Thread,
        net::{Listener, Part, SocketAddr, Stream},
        pages::{PageBuf, PagePool, PAGE_BYTES},
    };
    use kernel::sync::Arc;

    const LIMIT_MS: u32 = 60_000;

    /// Two ends of one connection.
    fn pair(addr: &str) -> Result<(Arc<Stream>, Arc<Stream>)> {
        let news = Event::new()?;
        let listener = Listener::bind(SocketAddr::parse(addr)?, news.clone())?;
        let at = listener.local()?;
        assert_ok(listener.try_accept(Event::new()?)?.is_none())?;
        let there = Stream::connect(at, None, LIMIT_MS, Event::new()?)?;
        let mut accepted = None;
        while accepted.is_none() {
            accepted = listener.try_accept(Event::new()?)?;
            if accepted.is_none() && news.wait(LIMIT_MS) == Wake::TimedOut {
                return Err(ETIME.into());
            }
        }
        let (here, from) = accepted.ok_or(EIO)?;
        assert_ok(from == there.local() && here.local() == there.peer() && there.peer() == at)?;
        Ok((there, here))
    }

    fn assert_ok(ok: bool) -> Result {
        if ok {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    fn pattern(pool: &Arc<PagePool>, len: usize) -> Result<PageBuf> {
        let mut buf = pool.try_take(len).ok_or(ENOMEM)?;
        let mut at = 0;
        while at < len {
            let n = 64.min(len - at);
            buf.write_at(at, [(at / 61) as u8; 64].get(..n).ok_or(EINVAL)?)?;
            at += n;
        }
        Ok(buf)
    }

    #[test]
    fn bytes_go_both_ways() -> Result {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b) = pair(addr)?;
            assert_eq!(b.try_recv(&mut [0; 4])?, 0);
            a.send_all(&[Part::Bytes(b"hello "), Part::Bytes(b"world")], LIMIT_MS)?;
            let mut text = [0u8; 11];
            b.recv_exact(&mut text, LIMIT_MS)?;
            assert!(text == *b"hello world");
            b.send_all(&[Part::Bytes(b"yes")], LIMIT_MS)?;
            let mut text = [0u8; 3];
            a.recv_exact(&mut text, LIMIT_MS)?;
            assert!(text == *b"yes");
            assert_eq!(a.recv_exact(&mut text, 20), Err(ETIMEDOUT.into()));
            drop(a);
            assert_eq!(b.recv_exact(&mut text, LIMIT_MS), Err(ESHUTDOWN.into()));
        }
        Ok(())
    }

    #[test]
    fn pages_arrive_whole_and_come_back_to_the_pool() -> Result {
        const LEN: usize = 1 << 20;
        let pool = PagePool::new(0, 2048, None)?;
        let (a, b) = pair("127.0.0.1:0")?;
        let out = pattern(&pool, LEN)?;
        let crc = out.crc32c(0, 3, LEN - 3)?;
        let sender = a.clone();
        // More than the socket buffers: one thread must wait for the other.
        let thread = Thread::spawn_noio(c"kunit-send", move |_| {
            for i in 0..4u8 {
                let head = [i; 5];
                let pages = Part::Pages {
                    buf: &out,
                    offset: 3,
                    len: LEN - 3,
                };
                if sender
                    .send_all(&[Part::Bytes(&head), pages], LIMIT_MS)
                    .is_err()
                {
                    sender.abort();
                }
            }
        })?;
        for i in 0..4u8 {
            let mut head = [0u8; 5];
            b.recv_exact(&mut head, LIMIT_MS)?;
            assert!(head == [i; 5]);
            let mut back = pool.try_take(LEN).ok_or(ENOMEM)?;
            let mut at = 3;
            while at < LEN {
                b.event().take();
                match b.try_recv_buf(&mut back, at, LEN - at)? {
                    0 => assert_ok(b.event().wait(LIMIT_MS) == Wake::Signalled)?,
                    n => at += n,
                }
            }
            assert_eq!(back.crc32c(0, 3, LEN - 3)?, crc);
        }
        thread.stop();
        // Pages are let go when the sender learns that their bytes have arrived.
        let end = clock::monotonic_ns() + u64::from(LIMIT_MS) * 1_000_000;
        while pool.in_use() > 0 && clock::monotonic_ns() < end {
            clock::sleep_ms(5);
        }
        assert_eq!((pool.in_use(), pool.lent()), (0, 0));
        Ok(())
    }

    #[test]
    fn a_full_socket_takes_a_part_and_says_when_there_is_room() -> Result {
        let pool = PagePool::new(0, 2048, None)?;
        let (a, b) = pair("127.0.0.1:0")?;
        let out = pattern(&pool, 64 * PAGE_BYTES)?;
        let parts = [Part::Pages {
            buf: &out,
            offset: 0,
            len: 64 * PAGE_BYTES,
        }];
        let mut total = 0;
        loop {
            let n = a.try_send(&parts, total % (64 * PAGE_BYTES), false)?;
            total += n;
            if n == 0 {
                break;
            }
            assert!(total < 256 << 20);
        }
        assert!(total > 0);
        assert!(a.unacked() > 0);
        a.event().take();
        let mut sum = 0;
        let mut back = pool.try_take(64 * PAGE_BYTES).ok_or(ENOMEM)?;
        while sum < total {
            let got = b.try_recv_buf(&mut back, 0, 64 * PAGE_BYTES)?;
            sum += got;
            if got == 0 {
                b.event().wait(100);
            }
        }
        assert_eq!(sum, total);
        assert!(a.event().wait(LIMIT_MS) == Wake::Signalled);
        assert!(a.try_send(&parts, 0, false)? > 0);
        Ok(())
    }

    #[test]
    fn a_shutdown_wakes_who_waits() -> Result {
        let (a, _b) = pair("127.0.0.1:0")?;
        let done = Event::new()?;
        let (reader, told) = (a.clone(), done.clone());
        let thread = Thread::spawn(c"kunit-read", move |_| {
            let mut byte = [0u8; 1];
            if reader.recv_exact(&mut byte, FOREVER).is_err() {
                told.notify();
            }
        })?;
        a.shutdown();
        assert!(done.wait(LIMIT_MS) == Wake::Signalled);
        thread.stop();

        // And a stop ends a wait for the peer.
        let (c, _d) = pair("127.0.0.1:0")?;
        let thread = Thread::spawn(c"kunit-stop", move |_| {
            let mut byte = [0u8; 1];
            let _ = c.recv_exact(&mut byte, FOREVER);
        })?;
        thread.stop();
        Ok(())
    }

    #[test]
    fn refusals() -> Result {
        let event = Event::new()?;
        let listener = Listener::bind(SocketAddr::parse("127.0.0.1:0")?, event.clone())?;
        let at = listener.local()?;
        assert!(Listener::bind(at, event.clone()).is_err());
        let foreign = SocketAddr::parse("192.0.2.1:7790")?;
        assert!(Listener::bind(foreign, event.clone()).is_err());
        drop(listener);
        let refused = Stream::connect(at, None, LIMIT_MS, event.clone());
        assert_eq!(refused.err(), Some(ECONNREFUSED.into()));
        let unbound = Stream::connect(at, Some(foreign), LIMIT_MS, event);
        assert!(unbound.is_err());
        Ok(())
    }

    #[test]
    fn connections_come_and_go() -> Result {
        for _ in 0..50 {
            let (a, b) = pair("127.0.0.1:0")?;
            a.send_all(&[Part::Bytes(&[7; 100])], LIMIT_MS)?;
            let mut data = [0u8; 100];
            b.recv_exact(&mut data, LIMIT_MS)?;
            a.abort();
            assert!(b.recv_exact(&mut data, LIMIT_MS).is_err());
        }
        Ok(())
    }
}
