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
        recovery::{Epochs, Outcome, Scan, Want},
        ring::{Index, Mark, Place, Ring},
        superblock::{Superblock, Tail},
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

/// Where a scan begins, and what it must find.
pub(crate) struct ScanFrom {
    uuid: GroupUuid,
    tail: Tail,
    place: Place,
    proven: Seq,
}

impl ScanFrom {
    /// As the superblock says.
    pub(crate) fn of(sb: &Superblock) -> ScanFrom {
        ScanFrom {
            uuid: sb.group(),
            tail: sb.tail(),
            place: Facts::of(sb).tail_place(),
            proven: sb.commit().seq,
        }
    }

    /// The same, where no more than this is known to be there under another lineage.
    pub(crate) fn proven(self, proven: Seq) -> ScanFrom {
        ScanFrom { proven, ..self }
    }
}

/// Scans the ring under `lineage`, until it ends or `stop` says so (`EINTR`). Reads only. Sleeps, for as long as it takes
/// to read the log; no lock may be held that I/O needs.
pub(crate) fn scan(
    srl: &Srl,
    from: &ScanFrom,
    lineage: &impl Epochs,
    applied: Seq,
    mut stop: impl FnMut() -> bool,
) -> Result<Scanned, Refusal> {
    let shown = srl.path().to_str().unwrap_or("?");
    let (tail, place) = (from.tail, from.place);
    let size = srl.ring_bytes().ok_or(EINVAL)?;
    let ring = Ring::new(size, srl.block(), place, place);
    let first = tail.seq.max(Seq(1));
    let mut scan = Scan::new(ring, first, tail.chain, from.proven);
    let mut marks = Index::new(Fixed::new(MARKS, Mark::default())?);
    let mut reader = Reader::new(srl, from.uuid)?;
    let mut chain_at_applied = tail.chain;
    loop {
        if stop() {
            return Err(Refusal::new(
                EINTR,
                format_args!("SRL {shown}: the scan was stopped"),
            ));
        }
        match scan.want(lineage) {
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
                    scan.accept(found, lineage, |seq| reader.chain_after(seq));
                }
                Err(NoBatch::NotThere) => scan.reject(),
                Err(NoBatch::Io(_)) => scan.unreadable(),
            },
            Want::Evidence(want) => match reader.evidence(srl, &ring, &want) {
                Ok(found) => scan.evidence(found, lineage),
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
