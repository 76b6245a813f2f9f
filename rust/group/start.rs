// SPDX-License-Identifier: GPL-2.0

//! `group add`: from a formatted device to a running group.
//!
//! Order, and no other: open the superblock, check who it belongs to, scan the ring, **flush the SRL**, superblock
//! (a primary's new epoch; link positions cut to the recovered head), replay, accept writes. The first
//! four are here and in this order; replay is the applier's, and volumes park their I/O until it is done.
//! Nothing is written before every check has passed.
//!
//! Called by netlink with the registry's mutex held; sleeps.

use super::{
    epochs::EpochTable,
    inner::{Flushes, Inner, Phase, MAX_PINS, MAX_VOLUMES},
    scan::{scan, Scanned},
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
    srl::Srl,
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{atomic::Atomic, Arc},
};
use replicate_core::{
    group::{self, Name},
    lineage::{self, Epoch},
    log::{
        ring::Place,
        superblock::{LinkState, Superblock, Tail},
        writer::Writer,
    },
    node::window::Slot,
    node::{
        links::{LinkId, Positions, MAX_LINKS},
        Log, NoRing, Role, Start,
    },
    units::{EpochId, GroupUuid, Position, Seq},
};
use replicate_linux::{clock, event::Event, kthread::Thread, pages::PagePool, random};

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
    pub(crate) secret: KVec<u8>,
    pub(crate) pool_bytes: u64,
    pub(crate) commit_interval_ms: u32,
    pub(crate) commit_bytes: u64,
    pub(crate) start_wait_ms: u32,
    pub(crate) window_bytes: u64,
}

/// The facts of a superblock that a start needs.
struct SuperblockInfo {
    uuid: GroupUuid,
    name: Name,
    role: group::Role,
    applied: Position,
    horizon: Position,
    redo: bool,
    tail: Tail,
    unlogged: bool,
    void: Option<u64>,
    links: usize,
    syncing: bool,
}

impl SuperblockInfo {
    fn of(sb: &Superblock) -> SuperblockInfo {
        SuperblockInfo {
            uuid: sb.group(),
            name: sb.group_name(),
            role: sb.role(),
            applied: sb.applied(),
            horizon: sb.horizon(),
            redo: sb.redo(),
            tail: sb.tail(),
            unlogged: sb.unlogged().is_some(),
            void: sb.log_void(),
            links: sb.links().count(),
            syncing: sb.inconsistent().is_some(),
        }
    }
}

impl Group {
    /// Makes and starts a group. On refusal nothing was changed on any disk. May sleep.
    pub(crate) fn start(config: Config<'_>) -> Result<Arc<Group>, Refusal> {
        let srl = Srl::open(config.srl)?;
        let shown = config.srl.to_str().unwrap_or("?");
        let facts = srl.read(SuperblockInfo::of)?;
        let role = check(&config, &srl, &facts, shown)?;
        if config.pool_bytes < RESERVE_PAGES as u64 * PAGE_BYTES {
            return Err(Refusal::new(
                EINVAL,
                format_args!("group {}: a pool of {} bytes is too small: it must hold four largest records, {} bytes", config.name.as_str(), config.pool_bytes, RESERVE_PAGES as u64 * PAGE_BYTES),
            ));
        }
        let first_life = facts.uuid.is_none() || facts.role == group::Role::None;
        let scanned = match srl.ring_bytes() {
            Some(_) => Some(srl.read(|sb| scan(&srl, sb, facts.uuid, facts.applied.seq, shown))??),
            None => None,
        };
        let head = scanned.as_ref().map_or(facts.applied.seq, |s| s.head);
        write_superblock(&srl, &config, &facts, role, head, first_life)?;
        let group = build(config, srl, &facts, role, head, scanned)?;
        group.spawn()?;
        if !first_life {
            let text = Text::new(format_args!(
                "{}: the log ends at record {head}, {} of them are to be applied again",
                if role == Role::Primary {
                    "primary"
                } else {
                    "secondary"
                },
                head.since(facts.applied.seq)
            ));
            pr_info!("group {}: {}\n", group.name.as_str(), text.as_str());
            event::group(&group, Code::Recovered, Severity::Info, text.as_str());
        }
        Ok(group)
    }

    fn spawn(self: &Arc<Self>) -> Result<(), Refusal> {
        let worker = LogWorker::new(self.clone())?;
        let applier = Applier::new(self.clone())?;
        let mut threads = KVec::with_capacity(2, GFP_KERNEL)?;
        threads.push(
            Thread::spawn_noio(c"dmrepl-log", move |stop| worker.run(stop))?,
            GFP_KERNEL,
        )?;
        threads.push(
            Thread::spawn_noio(c"dmrepl-apply", move |stop| applier.run(stop))?,
            GFP_KERNEL,
        )?;
        self.lists.lock().threads = threads;
        Ok(())
    }
}

/// Everything that may be wrong with the device, the name or the role.
fn check(
    config: &Config<'_>,
    srl: &Srl,
    facts: &SuperblockInfo,
    shown: &str,
) -> Result<Role, Refusal> {
    let name = config.name.as_str();
    if !facts.name.is_none() && facts.name != config.name {
        return Err(Refusal::new(
            EINVAL,
            format_args!("SRL {shown} belongs to group {}, not to {name}; use that name, or 'dmrepl srl format --force' to give it up", facts.name.as_str()),
        ));
    }
    if let Some(generation) = facts.void {
        return Err(Refusal::new(
            EINVAL,
            format_args!("SRL {shown}: its records are void since generation {generation}, writes went past it; format it again and synchronise fully"),
        ));
    }
    let recorded = match facts.role {
        group::Role::None => None,
        group::Role::Primary => Some(Role::Primary),
        group::Role::Secondary => Some(Role::Secondary),
    };
    let role = match (config.role, recorded) {
        (Some(asked), Some(is)) if asked != is => {
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
            return Err(Refusal::new(
                EPERM,
                format_args!(
                    "group {name}: --role {asked} contradicts SRL {shown}, which says {is}; {way}"
                ),
            ));
        }
        (Some(role), _) | (None, Some(role)) => role,
        (None, None) => {
            return Err(Refusal::new(
                EINVAL,
                format_args!(
                    "group {name}: SRL {shown} is new, say --role primary or --role secondary"
                ),
            ))
        }
    };
    if role == Role::Primary && srl.ring_bytes().is_none() && !facts.unlogged {
        return Err(Refusal::new(
            EINVAL,
            format_args!("group {name}: SRL {shown} was formatted with --no-ring, which serves a secondary only; format it without --no-ring for a primary"),
        ));
    }
    Ok(role)
}

/// The superblock of this life, durable before anything of it is written, replayed or told.
fn write_superblock(
    srl: &Srl,
    config: &Config<'_>,
    facts: &SuperblockInfo,
    role: Role,
    head: Seq,
    first_life: bool,
) -> Result<(), Refusal> {
    let mut uuid = GroupUuid::NONE;
    random::fill(&mut uuid.0);
    let mut id = EpochId::NONE;
    random::fill(&mut id.0);
    srl.update(|sb| {
        if facts.name.is_none() || facts.uuid.is_none() {
            let uuid = match (role, facts.uuid.is_none()) {
                (Role::Primary, true) => uuid,
                (Role::Primary | Role::Secondary, _) => facts.uuid,
            };
            sb.set_group(uuid, config.name);
        }
        sb.set_role(match role {
            Role::Primary => group::Role::Primary,
            Role::Secondary => group::Role::Secondary,
        });
        sb.set_clean(false);
        if role == Role::Primary && srl.ring_bytes().is_some() {
            sb.push_epoch(Epoch {
                id,
                first: head.next(),
                host: sb.host(),
                reason: if first_life {
                    lineage::Reason::Created
                } else {
                    lineage::Reason::Recovered
                },
                time_ns: clock::wall_ns(),
                index: 0,
            })
            .map_err(|e| {
                Refusal::new(EINVAL, format_args!("group {}: {e}", config.name.as_str()))
            })?;
            let commit = sb.lineage().position(head).unwrap_or_default();
            sb.set_commit(commit);
            cut_links(sb, head);
            if first_life {
                sb.set_consistent(false);
            }
        }
        Ok(())
    })
}

/// After a crash nothing above `head` was ever told to anybody by this history.
fn cut_links(sb: &mut Superblock, head: Seq) {
    for slot in 0..MAX_LINKS {
        if let Some(mut link) = sb.link(slot) {
            if link.position.seq > head {
                link.position = sb.lineage().position(head).unwrap_or_default();
                let _ = sb.set_link(slot, Some(&link));
            }
        }
    }
}

fn build(
    config: Config<'_>,
    srl: Arc<Srl>,
    facts: &SuperblockInfo,
    role: Role,
    head: Seq,
    scanned: Option<Scanned>,
) -> Result<Arc<Group>, Refusal> {
    let node = build_engine(&srl, facts, role, head, scanned)?;
    let (identity, epochs) = srl.read(|sb| {
        let lineage = sb.lineage();
        let identity = Identity {
            uuid: sb.group(),
            host: sb.host(),
            epoch: lineage.newest().map_or(EpochId::NONE, |e| e.id),
            replica: sb.replica(),
        };
        EpochTable::of(&lineage).map(|epochs| (identity, epochs))
    })??;
    let log_wake = Event::new()?;
    let volumes = srl.read(|sb| sb.volumes().count() as u32)?;
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
            table_len: Atomic::new(volumes),
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
    facts: &SuperblockInfo,
    role: Role,
    start_wait_ms: u32,
) -> Result<KBox<Inner>> {
    let hold = role == Role::Primary && facts.links > 0;
    let until_ns = clock::monotonic_ns() + u64::from(start_wait_ms) * 1_000_000;
    Ok(KBox::new(
        Inner {
            node,
            epochs,
            sync_cursor: None,
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
fn build_engine(
    srl: &Srl,
    facts: &SuperblockInfo,
    role: Role,
    head: Seq,
    scanned: Option<Scanned>,
) -> Result<KBox<Node>, Refusal> {
    let mut positions = Positions::default();
    srl.read(|sb| {
        for (slot, link) in sb.links() {
            let kept = (link.state == LinkState::Normal || link.state == LinkState::Syncing)
                .then_some(link.position.seq);
            positions.set(LinkId(slot as u8), link.mode, kept);
        }
    })?;
    positions.cut(head);
    let applied = facts.applied.seq;
    let (log, chain) = match scanned {
        Some(s) => {
            let tail = facts.tail;
            let size = srl.ring_bytes().ok_or(EINVAL)?;
            let tail = Place(
                tail.lap
                    .saturating_mul(size.0)
                    .saturating_add(tail.offset.0),
            );
            let ring = srl.ring(tail, s.place).ok_or(EINVAL)?;
            let volatile = srl.dev().has_write_cache();
            (
                Log::Ring(Writer::new(ring, s.marks, s.head, volatile)),
                s.chain_at_applied,
            )
        }
        None => (
            Log::NoRing(NoRing::after_start(applied, facts.horizon.seq, facts.redo)),
            srl.read(|sb| sb.checkpoint().1)?,
        ),
    };
    let start = Start {
        role,
        applied,
        chain,
        head,
    };
    let node = Node::new(
        Fixed::new(WINDOW_SLOTS, Slot::default())?,
        Fixed::new(WINDOW_BUCKETS, Seq::NONE)?,
        log,
        positions,
        start,
    );
    let mut node = KBox::new(node, GFP_KERNEL)?;
    if facts.syncing && role == Role::Secondary {
        node.copies.set_syncing();
    }
    Ok(node)
}
