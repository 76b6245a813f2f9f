// SPDX-License-Identifier: GPL-2.0

//! Scanning the ring: at group add, and again when a new lineage cuts this host's log.
//!
//! The machine that decides is `replicate_core::log::recovery`; this reads for it. Nothing is written. Sleeps.

use crate::{
    memory::Fixed,
    refuse::Refusal,
    srl::{
        reader::{NoBatch, Reader},
        Srl,
    },
};
use kernel::prelude::*;
use replicate_core::{
    log::{
        recovery::{Outcome, Scan, Want},
        ring::{Index, Mark, Place, Ring},
        superblock::Superblock,
    },
    node::durable::start::Facts,
    units::{Chain, GroupUuid, Seq},
};
use replicate_linux::errno::EUCLEAN;

/// Batches that the index knows exactly.
const MARKS: usize = 8192;

/// What the ring held.
pub(crate) struct Scanned {
    pub(crate) head: Seq,
    pub(crate) place: Place,
    /// Chain value after `head`.
    pub(crate) chain: Chain,
    pub(crate) chain_at_applied: Chain,
    pub(crate) marks: Index<Fixed<Mark>>,
}

/// Scans the ring under the lineage of `sb`. Reads only. May sleep.
pub(crate) fn scan(
    srl: &Srl,
    sb: &Superblock,
    uuid: GroupUuid,
    applied: Seq,
    shown: &str,
) -> Result<Scanned, Refusal> {
    let lineage = sb.lineage();
    let tail = sb.tail();
    let size = srl.ring_bytes().ok_or(EINVAL)?;
    let place = Facts::of(sb).tail_place();
    let ring = Ring::new(size, srl.block(), place, place);
    let first = tail.seq.max(Seq(1));
    let mut scan = Scan::new(ring, first, tail.chain, sb.commit().seq);
    let mut marks = Index::new(Fixed::new(MARKS, Mark::default())?);
    let mut reader = Reader::new(srl, uuid)?;
    let mut chain_at_applied = tail.chain;
    loop {
        match scan.want(&lineage) {
            Want::Batch(want) => match reader.batch(srl, &ring, &want) {
                Ok(found) => {
                    if found.first <= applied && applied <= found.last {
                        chain_at_applied = reader.chain_after(applied);
                    }
                    marks.push(Mark {
                        first: want.first,
                        place: want.place,
                        chain: want.chain,
                    });
                    scan.accept(found, &lineage, |seq| reader.chain_after(seq));
                }
                Err(NoBatch::NotThere) => scan.reject(),
                Err(NoBatch::Io(_)) => scan.unreadable(),
            },
            Want::Evidence(want) => match reader.evidence(srl, &ring, &want) {
                Ok(found) => scan.evidence(found, &lineage),
                Err(NoBatch::NotThere) => scan.reject(),
                Err(NoBatch::Io(_)) => scan.unreadable(),
            },
            Want::Flush => {
                srl.dev().flush_sync().map_err(|e| {
                    Refusal::new(
                        e,
                        format_args!(
                            "SRL {shown}: flush failed (error {}); nothing was changed",
                            e.to_errno()
                        ),
                    )
                })?;
                scan.flushed();
            }
            Want::Done(Outcome::Head { head, chain, place }) => {
                if let Some(bad) = scan.unreadable_at() {
                    pr_warn!(
                        "SRL {shown}: the log ends after record {}: ring offset {} cannot be read, nothing shows that a record there was durable\n",
                        head.0,
                        ring.offset(bad).0
                    );
                }
                return Ok(Scanned {
                    head,
                    place,
                    chain,
                    chain_at_applied: if applied >= head {
                        chain
                    } else {
                        chain_at_applied
                    },
                    marks,
                });
            }
            Want::Done(Outcome::Corrupt {
                missing,
                proven,
                place,
            }) => {
                let how = match scan.unreadable_at() {
                    Some(_) => "cannot be read",
                    None => "is not there",
                };
                return Err(Refusal::new(
                    EUCLEAN,
                    format_args!(
                        "SRL {shown}: record {missing} at ring offset {} {how}, but {proven} was durable: the log is damaged; nothing was changed; take over on a secondary, or look with 'dmrepl srl check'",
                        ring.offset(place)
                    ),
                ));
            }
            Want::Done(Outcome::Unreadable { place }) => {
                return Err(Refusal::new(
                    EIO,
                    format_args!(
                        "SRL {shown}: the log cannot be read from ring offset {} on; nothing was changed",
                        ring.offset(place)
                    ),
                ));
            }
        }
    }
}
