// SPDX-License-Identifier: GPL-2.0

//! Tests of I/O through a real block device, the RAM disk.

use kernel::prelude::*;

#[kunit_tests(replicate_linux_bio)]
mod tests {
    use super::*;
    use crate::{
        bdev::{BlockDevice, Holder, Mode, SECTOR_BYTES},
        bio::{plugged, CompletionQueue, Done, Flags, IoUnit, Segment},
        errno::BlkStatus,
        event::{Event, Wake},
        pages::{PageBuf, PagePool, MAX_BUF_BYTES, PAGE_BYTES},
    };
    use kernel::sync::Arc;

    fn ram() -> Result<Arc<BlockDevice>> {
        BlockDevice::open(c"/dev/ram0", Mode::ReadWrite, Holder::Exclusive)
    }

    /// Waits for the next finished unit.
    fn next<T: Send + 'static>(queue: &CompletionQueue<T>) -> Result<Done<T>> {
        let mut got = None;
        // A unit may arrive between the look and the wait: the event is sticky.
        while got.is_none() {
            got = queue.pop_all().next();
            if got.is_none() && queue.event().wait(60_000) == Wake::TimedOut {
                return Err(crate::errno::ETIME.into());
            }
        }
        got.ok_or(EIO)
    }

    fn pattern(buf: &mut PageBuf, salt: usize) -> Result {
        let mut at = 0;
        while at < buf.len() {
            let line = [(at / 64 + salt) as u8; 64];
            let n = line.len().min(buf.len() - at);
            buf.write_at(at, line.get(..n).ok_or(EINVAL)?)?;
            at += n;
        }
        Ok(())
    }

    #[test]
    fn a_batch_of_odd_pieces_arrives_whole() -> Result {
        let dev = ram()?;
        let queue = CompletionQueue::new(Event::new()?)?;
        let pool = PagePool::new(0, 2048, None)?;
        let mut head = pool.try_take(PAGE_BYTES).ok_or(ENOMEM)?;
        pattern(&mut head, 1)?;
        let mut big = pool.try_take(MAX_BUF_BYTES / 2).ok_or(ENOMEM)?;
        pattern(&mut big, 2)?;
        let unit = IoUnit::<Arc<u32>>::new(1024)?;
        let keep = Arc::new(7, GFP_KERNEL)?;
        // A descriptor, then payloads that start anywhere on a sector: more than one bio.
        let segments = [
            Segment {
                buf: &head,
                offset: 0,
                len: PAGE_BYTES,
            },
            Segment {
                buf: &big,
                offset: 512,
                len: 3 * 512,
            },
            Segment {
                buf: &big,
                offset: 0,
                len: MAX_BUF_BYTES / 2,
            },
            Segment {
                buf: &big,
                offset: 4096 - 512,
                len: 1024,
            },
        ];
        let total: usize = segments.iter().map(|s| s.len).sum();
        unit.write(&dev, 64, Flags::FUA, segments, 42, keep.clone(), &queue);
        let done = next(&queue)?;
        assert!(done.status.is_ok());
        assert_eq!(done.tag, 42);
        assert_eq!(*done.keep, 7);
        assert!(done.buf.is_none());

        let mut expect = 0;
        for s in segments {
            expect = s.buf.crc32c(expect, s.offset, s.len)?;
        }
        let back = pool.try_take(total).ok_or(ENOMEM)?;
        done.unit.read(&dev, 64, back, total, 1, done.keep, &queue);
        let done = next(&queue)?;
        assert!(done.status.is_ok());
        let back = done.buf.ok_or(EIO)?;
        assert_eq!(back.crc32c(0, 0, total)?, expect);
        Ok(())
    }

    #[test]
    fn one_unit_is_used_again_and_again() -> Result {
        let dev = ram()?;
        let queue = CompletionQueue::new(Event::new()?)?;
        let pool = PagePool::new(2, 2, None)?;
        let mut unit = IoUnit::<()>::new(4)?;
        for i in 0..200usize {
            let mut buf = pool.try_take(2 * PAGE_BYTES).ok_or(ENOMEM)?;
            pattern(&mut buf, i)?;
            let segment = Segment {
                buf: &buf,
                offset: 0,
                len: 2 * PAGE_BYTES,
            };
            let sector = 8 + (i as u64) * 16;
            unit.write(&dev, sector, Flags::NONE, [segment], i as u64, (), &queue);
            let done = next(&queue)?;
            assert!(done.status.is_ok());
            assert_eq!(done.tag, i as u64);
            unit = done.unit;
        }
        // Every page came back: none is lost to a reference that was not given up.
        assert_eq!(pool.allocated(), 2);
        assert_eq!(pool.in_use(), 0);
        assert_eq!(queue.in_flight(), 0);
        Ok(())
    }

    #[test]
    fn errors_come_back_through_the_queue() -> Result {
        let dev = ram()?;
        let end = dev.nr_sectors();
        let queue = CompletionQueue::new(Event::new()?)?;
        let pool = PagePool::new(0, 64, None)?;
        let buf = pool.try_take(8 * PAGE_BYTES).ok_or(ENOMEM)?;
        let all = Segment {
            buf: &buf,
            offset: 0,
            len: 8 * PAGE_BYTES,
        };

        // Beyond the end, in whole and in part; and at a place that does not exist.
        for sector in [end, end - 8, u64::MAX] {
            let unit = IoUnit::<()>::new(16)?;
            unit.write(&dev, sector, Flags::NONE, [all], sector, (), &queue);
            let done = next(&queue)?;
            assert!(done.status == BlkStatus::INVAL);
            assert_eq!(done.tag, sector);
        }
        // More ranges than there is room for, an empty write, a length that is no sector.
        let unit = IoUnit::<()>::new(1)?;
        unit.write(&dev, 0, Flags::NONE, [all, all], 0, (), &queue);
        let done = next(&queue)?;
        assert!(done.status == BlkStatus::INVAL);
        done.unit.write(&dev, 0, Flags::NONE, [], 0, (), &queue);
        let done = next(&queue)?;
        assert!(done.status == BlkStatus::INVAL);
        let odd = Segment {
            buf: &buf,
            offset: 0,
            len: 100,
        };
        done.unit.write(&dev, 0, Flags::NONE, [odd], 0, (), &queue);
        let done = next(&queue)?;
        assert!(done.status == BlkStatus::INVAL);
        // The same unit still works.
        let one = Segment {
            buf: &buf,
            offset: 0,
            len: 512,
        };
        done.unit.write(&dev, 0, Flags::NONE, [one], 0, (), &queue);
        assert!(next(&queue)?.status.is_ok());
        Ok(())
    }

    #[test]
    fn flush_discard_and_zeroes() -> Result {
        let dev = ram()?;
        let queue = CompletionQueue::new(Event::new()?)?;
        let pool = PagePool::new(0, 64, None)?;
        let mut buf = pool.try_take(4 * PAGE_BYTES).ok_or(ENOMEM)?;
        pattern(&mut buf, 3)?;
        let unit = IoUnit::<()>::new(16)?;
        let all = Segment {
            buf: &buf,
            offset: 0,
            len: 4 * PAGE_BYTES,
        };
        unit.write(&dev, 128, Flags::PREFLUSH_FUA, [all], 0, (), &queue);
        let done = next(&queue)?;
        assert!(done.status.is_ok());
        done.unit.flush(&dev, 0, (), &queue);
        let done = next(&queue)?;
        assert!(done.status.is_ok());

        done.unit.write_zeroes(&dev, 128, 3, false, 0, (), &queue);
        let done = next(&queue)?;
        assert!(done.status.is_ok());
        let mut data = KVec::from_elem(1u8, 4 * PAGE_BYTES, GFP_KERNEL)?;
        dev.read_sync(128, &mut data)?;
        assert!(data.iter().take(3 * SECTOR_BYTES).all(|b| *b == 0));
        let mut rest = KVec::from_elem(0u8, 4 * PAGE_BYTES - 3 * SECTOR_BYTES, GFP_KERNEL)?;
        buf.read_at(3 * SECTOR_BYTES, &mut rest)?;
        assert!(data.iter().skip(3 * SECTOR_BYTES).eq(rest.iter()));

        let can = dev.max_discard_sectors() != 0;
        done.unit.discard(&dev, 128, 32, 0, (), &queue);
        let done = next(&queue)?;
        assert_eq!(done.status.is_ok(), can);
        if !can {
            assert!(done.status == BlkStatus::NOTSUPP);
        }
        Ok(())
    }

    #[test]
    fn dropping_a_queue_waits_for_what_is_in_flight() -> Result {
        let dev = ram()?;
        let pool = PagePool::new(0, 64, None)?;
        let owned = Arc::new((), GFP_KERNEL)?;
        let buf = pool.try_take(PAGE_BYTES).ok_or(ENOMEM)?;
        let queue = CompletionQueue::new(Event::new()?)?;
        let mut units = KVec::with_capacity(8, GFP_KERNEL)?;
        for _ in 0..8 {
            units.push(IoUnit::<Arc<()>>::new(1)?, GFP_KERNEL)?;
        }
        plugged(|| {
            for (i, unit) in units.drain_all().enumerate() {
                let segment = Segment {
                    buf: &buf,
                    offset: 0,
                    len: PAGE_BYTES,
                };
                let sector = (i as u64) * 8;
                unit.write(
                    &dev,
                    sector,
                    Flags::NONE,
                    [segment],
                    0,
                    owned.clone(),
                    &queue,
                );
            }
        });
        drop(queue);
        assert!(Arc::into_unique_or_drop(owned).is_some());
        Ok(())
    }
}
