// SPDX-License-Identifier: GPL-2.0

//! `group add`: from a formatted device to a running group.
//!
//! Order, and no other: open the superblock, check who it belongs to, scan the ring, **flush the SRL**, superblock
//! (a primary's new epoch; link positions cut to the recovered head), replay, accept writes. The first
//! four are here and in this order; replay is the applier's, and volumes park their I/O until it is done.
//! Nothing is written before every check has passed.
//!
//! All memory that this needs is had before the superblock is written: what fails for want of it has changed nothing.
//! Called by netlink with the registry's mutex held; sleeps.

use super::{
    epochs::EpochTable,
    inner::{Flushes, Inner, Phase, MAX_PINS, MAX_VOLUMES},
    scan::{scan, ScanFrom, Scanned},
    Group, Identity, Lists, Settings, Stats, Status,
};
use crate::{
    applier::{pause::Pause, Applier},
    event::{self, Code, Severity},
    log_worker::{
        batch::{free_batches, FreeBatch, LogIo},
        LogWorker,
    },
    memory::{Fixed, Node},
    reason::Reason,
    refuse::{Refusal, Text},
    srl::{Srl, Unwritten},
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{atomic::Atomic, Arc},
};
use replicate_core::{
    group::Name,
    log::{superblock::Superblock, writer::Writer},
    node::{
        durable::{
            grow::{GivenUp, Limits},
            progress::Recorder,
            start::{self as durable, Facts, Life, Unfit},
        },
        links::{Positions, MAX_LINKS},
        volumes::Volume,
        window::Slot,
        Log, Role, Start,
    },
    units::{EpochId, GroupUuid, Seq},
};
use replicate_linux::{
    clock, errno::EUCLEAN, event::Event, kthread::Thread, pages::PagePool, random, secret::Secret,
};

/// Records in memory at most.
const WINDOW_SLOTS: usize = 16384;
/// Buckets of the place index.
const WINDOW_BUCKETS: usize = 4096;
/// Pages that the pool keeps: four largest records, and the log worker's own.
const RESERVE_PAGES: usize = 4 * 256 + 128;
/// Page size, as the pool counts.
const PAGE_BYTES: u64 = 4096;

/// What `group add` asks for.
pub(crate) struct Config<'a> {
    pub(crate) name: Name,
    pub(crate) srl: &'a CStr,
    pub(crate) role: Option<Role>,
    pub(crate) secret: Secret,
    pub(crate) pool_bytes: u64,
    pub(crate) commit_interval_ms: u32,
    pub(crate) commit_bytes: u64,
    pub(crate) start_wait_ms: u32,
    pub(crate) window_bytes: u64,
}

/// A group that nothing was written for yet, and whose threads have not run. Dropped, it is gone without a trace.
pub(crate) struct Prepared {
    group: Arc<Group>,
    role: Role,
    head: Seq,
    applied: Seq,
    first_life: bool,
    begun: bool,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.begun {
            self.group.stop();
        }
    }
}

impl Prepared {
    /// Returns the group, for what must be made before it begins.
    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Writes the superblock of this life and lets the threads run. Needs no memory; may sleep. Refused when the superblock
    /// cannot be written.
    pub(crate) fn begin(mut self) -> Result<Arc<Group>, Refusal> {
        let group = self.group.clone();
        let given_up = write_superblock(&group, self.role, self.head)?;
        group.srl.read(|sb| {
            let lineage = sb.lineage();
            *group.identity.lock() = identity(sb);
            let mut inner = group.inner.lock();
            inner.epochs.set(&lineage);
            durable::positions(sb, self.head, &mut inner.node.positions);
        })?;
        for thread in group.lists.lock().threads.iter() {
            thread.wake();
        }
        self.begun = true;
        group.tell_given_up(given_up);
        if !self.first_life {
            let text = Text::new(format_args!(
                "{}: the log ends at record {}, {} of them are to be applied again",
                if self.role == Role::Primary {
                    "primary"
                } else {
                    "secondary"
                },
                self.head,
                self.head.since(self.applied)
            ));
            pr_info!("group {}: {}\n", group.name.as_str(), text.as_str());
            event::group(&group, Code::Recovered, Severity::Info, text.as_str());
        }
        Ok(group)
    }
}

impl Group {
    /// Makes a group. Changes nothing on any disk. May sleep.
    pub(crate) fn prepare(config: Config<'_>) -> Result<Prepared, Refusal> {
        let srl = Srl::open(config.srl)?;
        let shown = config.srl.to_str().unwrap_or("?");
        let facts = srl.read(Facts::of)?;
        let role = facts
            .role_for(config.name, config.role)
            .map_err(|why| unfit(&config, shown, why))?;
        if config.pool_bytes < RESERVE_PAGES as u64 * PAGE_BYTES {
            return Err(Refusal::new(
                EINVAL,
                format_args!("group {}: a pool of {} bytes is too small: it must hold four largest records, {} bytes", config.name.as_str(), config.pool_bytes, RESERVE_PAGES as u64 * PAGE_BYTES),
            ));
        }
        let scanned = match srl.ring_bytes() {
            Some(_) => {
                let (from, epochs) =
                    srl.read(|sb| (ScanFrom::of(sb), EpochTable::of(&sb.lineage())))?;
                Some(scan(&srl, &from, &epochs?, facts.applied.seq, || false)?)
            }
            None => None,
        };
        let head = scanned.as_ref().map_or(facts.applied.seq, |s| s.head);
        let group = build(config, srl, &facts, role, head, scanned)?;
        let prepared = Prepared {
            group,
            role,
            head,
            applied: facts.applied.seq,
            first_life: facts.is_first_life(),
            begun: false,
        };
        prepared.group.make_threads()?;
        Ok(prepared)
    }

    /// Says which links lie too far back in the history to be kept: the new epoch's superblock gave them up.
    #[inline(never)]
    fn tell_given_up(&self, links: GivenUp) {
        for id in links.iter() {
            let link = self.srl.read(|sb| sb.link(usize::from(id.0)));
            if let Ok(Some(link)) = link {
                let text = Refusal::new(
                    EIO,
                    format_args!("link {}: its peer lacks records of too many starts ago, the log keeps them no longer: use 'dmrepl sync --full' once the peer is back", link.name.as_str()),
                );
                event::group(self, Code::NeedsSync, Severity::Warning, text.text());
            }
        }
    }

    fn make_threads(self: &Arc<Self>) -> Result<(), Refusal> {
        let worker = LogWorker::new(self.clone())?;
        let applier = Applier::new(self.clone())?;
        let mut threads = KVec::with_capacity(2, GFP_KERNEL)?;
        threads.push(
            Thread::make_noio(c"dmrepl-log", move |stop| worker.run(stop))?,
            GFP_KERNEL,
        )?;
        threads.push(
            Thread::make_noio(c"dmrepl-apply", move |stop| applier.run(stop))?,
            GFP_KERNEL,
        )?;
        self.lists.lock().threads = threads;
        Ok(())
    }
}

/// Why a superblock refuses the group, for whoever asked.
fn unfit(config: &Config<'_>, shown: &str, why: Unfit) -> Refusal {
    let name = config.name.as_str();
    match why {
        Unfit::OtherGroup(owner) => Refusal::new(
            EINVAL,
            format_args!("SRL {shown} belongs to group {}, not to {name}; use that name, or 'dmrepl srl format --force' to give it up", owner.as_str()),
        ),
        Unfit::Void(generation) => Refusal::new(
            EINVAL,
            format_args!("SRL {shown}: its records are void since generation {generation}, writes went past it; format it again and synchronise fully"),
        ),
        Unfit::Role(is) => {
            let (asked, is, way) = match is {
                Role::Primary => (
                    "secondary",
                    "primary",
                    "a primary is demoted by formatting its SRL again and synchronising it fully",
                ),
                Role::Secondary => (
                    "primary",
                    "secondary",
                    "add it as secondary and use 'dmrepl takeover'",
                ),
            };
            Refusal::new(
                EPERM,
                format_args!(
                    "group {name}: --role {asked} contradicts SRL {shown}, which says {is}; {way}"
                ),
            )
        }
        Unfit::RoleUnknown => Refusal::new(
            EINVAL,
            format_args!("group {name}: SRL {shown} is new, say --role primary or --role secondary"),
        ),
        Unfit::Folded(tail) => Refusal::new(
            EUCLEAN,
            format_args!("group {name}: the log of SRL {shown} begins at record {tail}, and its history names no epoch for that any more; nothing was changed; take over on a secondary, or format the SRL again and synchronise fully"),
        ),
        Unfit::NoRing => Refusal::new(
            EINVAL,
            format_args!("group {name}: SRL {shown} was formatted with --no-ring, which serves a secondary only; format it without --no-ring for a primary"),
        ),
    }
}

/// The superblock of this life, durable before anything of it is written, replayed or told.
#[inline(never)]
fn write_superblock(group: &Group, role: Role, head: Seq) -> Result<GivenUp, Refusal> {
    let mut life = Life {
        name: group.name,
        role,
        head,
        uuid: GroupUuid::NONE,
        epoch: EpochId::NONE,
        time_ns: clock::wall_ns(),
        limits: Limits::FORMAT,
    };
    random::fill(&mut life.uuid.0);
    random::fill(&mut life.epoch.0);
    // Should it fail, the group is not there: when it is added again, what the device holds is read.
    let written = group.srl.update(|sb| {
        durable::begin_life(sb, &life)
            .map_err(|e| Refusal::new(EINVAL, format_args!("group {}: {e}", group.name.as_str())))
    });
    written.map_err(Unwritten::error)
}

/// What a superblock says of the group.
fn identity(sb: &Superblock) -> Identity {
    Identity {
        uuid: sb.group(),
        host: sb.host(),
        epoch: sb.lineage().newest().map_or(EpochId::NONE, |e| e.id),
        replica: sb.replica(),
    }
}

fn build(
    config: Config<'_>,
    srl: Arc<Srl>,
    facts: &Facts,
    role: Role,
    head: Seq,
    scanned: Option<Scanned>,
) -> Result<Arc<Group>, Refusal> {
    let node = build_node(&srl, facts, role, head, scanned)?;
    let identity = srl.read(identity)?;
    let epochs = EpochTable::new()?;
    let log_wake = Event::new()?;
    let max_pages = (config.pool_bytes / PAGE_BYTES) as usize;
    let pool = PagePool::new(RESERVE_PAGES, max_pages, Some(log_wake.clone()))?;
    let log_io = LogIo::new(&pool, srl.block(), log_wake.clone())?;
    let free = free_batches(&pool, srl.block())?;
    let inner = build_inner(node, epochs, free, facts, role, config.start_wait_ms)?;
    let group = Arc::pin_init(
        try_pin_init!(Group {
            name: config.name,
            srl,
            pool,
            log_io,
            log_wake,
            apply_wake: Event::new()?,
            moved: Event::new()?,
            settings: Settings {
                commit_interval_ms: Atomic::new(config.commit_interval_ms),
                commit_bytes: Atomic::new(config.commit_bytes),
                start_wait_ms: Atomic::new(config.start_wait_ms),
                window_bytes: Atomic::new(config.window_bytes),
                pool_bytes: Atomic::new(config.pool_bytes),
            },
            stats: Stats::default(),
            flush_at_once: Atomic::new(false),
            pause <- Pause::new(),
            copy_payloads <- new_spinlock!([const { None }; replicate_core::session::resync::MAX_OUTSTANDING]),
            inner <- new_spinlock!(inner),
            identity <- new_spinlock!(identity),
            lists <- new_mutex!(Lists {
                links: KVec::with_capacity(MAX_LINKS, GFP_KERNEL)?,
                threads: KVec::new(),
                secret: config.secret,
                closing: false,
            }),
            status <- new_mutex!(Status {
                reason: Reason::None,
                text: None,
                since_ns: clock::wall_ns(),
                takeover: None,
            }),
        }? Error),
        GFP_KERNEL,
    )?;
    Ok(group)
}

fn build_inner(
    node: KBox<Node>,
    epochs: EpochTable,
    free_batches: KVec<FreeBatch>,
    facts: &Facts,
    role: Role,
    start_wait_ms: u32,
) -> Result<KBox<Inner>> {
    let hold = role == Role::Primary && facts.links > 0;
    let until_ns = clock::monotonic_ns() + u64::from(start_wait_ms) * 1_000_000;
    Ok(KBox::new(
        Inner {
            node,
            epochs,
            payloads: Fixed::from_fn(WINDOW_SLOTS, || None)?,
            bios: Fixed::from_fn(WINDOW_SLOTS, || None)?,
            attached: KVec::with_capacity(MAX_VOLUMES, GFP_KERNEL)?,
            tables: 0,
            flushes: Flushes::default(),
            later: Flushes::default(),
            pins: Fixed::new(MAX_PINS, None)?,
            phase: match (role, facts.unlogged) {
                (Role::Primary, true) => Phase::Unlogged,
                _ if hold => Phase::Holding { until_ns },
                _ => Phase::Active,
            },
            uncommitted_bytes: 0,
            uncommitted_since: 0,
            senders: KVec::with_capacity(MAX_LINKS, GFP_KERNEL)?,
            recorders: Fixed::new(MAX_LINKS, Recorder::default())?,
            wants_space: false,
            gathering_since: 0,
            free_batches,
            unbuilt: None,
        },
        GFP_KERNEL,
    )?)
}

/// In a frame of its own, which is gone when the rest is built: the node is large.
#[inline(never)]
fn build_node(
    srl: &Srl,
    facts: &Facts,
    role: Role,
    head: Seq,
    scanned: Option<Scanned>,
) -> Result<KBox<Node>, Refusal> {
    let applied = facts.applied.seq;
    let (log, chain, head_chain) = match scanned {
        Some(s) => {
            let ring = srl.ring(facts.tail_place(), s.place).ok_or(EINVAL)?;
            let volatile = srl.dev().has_write_cache();
            (
                Log::Ring(Writer::new(ring, s.marks, s.head, volatile)),
                s.chain_at_applied,
                s.chain,
            )
        }
        None => {
            let chain = facts.checkpoint_chain;
            (Log::NoRing(facts.no_ring()), chain, chain)
        }
    };
    let start = Start {
        role,
        applied,
        chain,
        head,
        head_chain,
    };
    let positions = Positions::new(Fixed::new(MAX_LINKS, None)?);
    let node = Node::new(
        Fixed::new(WINDOW_SLOTS, Slot::default())?,
        Fixed::new(WINDOW_BUCKETS, Seq::NONE)?,
        Fixed::new(MAX_VOLUMES, Volume::default())?,
        log,
        positions,
        start,
    );
    let mut node = KBox::new(node, GFP_KERNEL)?;
    srl.read(|sb| {
        for v in sb.volumes() {
            let _ = node.volumes.enter(v.volume.id);
        }
    })?;
    if facts.syncing && role == Role::Secondary {
        node.copies.set_syncing();
    }
    Ok(node)
}
