// SPDX-License-Identifier: GPL-2.0

//! The device-mapper target `replicate`: the constructor, status, messages and suspend of one volume.
//!
//! ```text
//! <start> <length> replicate <group> <volume> <data device> [<#args> [block_size <bytes>] [discard_zero <0|1>]]
//! ```
//!
//! What it does with I/O is the group's business ([`crate::group::admission`]). `map()` never sleeps.
//! During a table reload two instances of a volume exist: the constructor only looks, preresume attaches.

use crate::{group::Group, refuse::Refusal, registry, volume::Volume};
use core::fmt::{self, Write as _};
use kernel::{
    prelude::*,
    sync::{Arc, ArcBorrow},
};
use replicate_core::{
    group::Name,
    node::{volumes::State, Role},
    units::{Sector, EXTENT_SECTORS},
};
use replicate_linux::{
    dm::{
        self, features, Args, Ctr, Instance, Limits, MapOutcome, MappedBio, StatusType, Target,
        Writer,
    },
    errno::EOPNOTSUPP,
    event::FOREVER,
    gfp::NoioScope,
};

/// The target.
pub(crate) struct Replicate;

/// One instance: a volume and its group.
pub(crate) struct Instanced {
    group: Arc<Group>,
    volume: Arc<Volume>,
    /// As given: `None` where the table line says nothing.
    block_size: Option<u32>,
}

impl Drop for Instanced {
    fn drop(&mut self) {
        self.group.detach(&self.volume);
    }
}

/// Optional arguments.
#[derive(Default)]
struct Options {
    block_size: Option<u32>,
    discard_zero: bool,
}

/// A noflush suspend waits so long for what completed to reach the data device.
const NOFLUSH_MS: u32 = 2_000;

const USAGE: &CStr =
    c"usage: <group> <volume> <data device> [<#args> [block_size <bytes>] [discard_zero <0|1>]]";

impl Options {
    fn parse(args: &Args<'_>) -> Result<Options, Refusal> {
        let mut options = Options::default();
        let Some(count) = args.get(3) else {
            return Ok(options);
        };
        let count = number(count).ok_or_else(|| {
            bad(format_args!(
                "the fourth argument is the number of optional arguments, not '{}'",
                show(count)
            ))
        })?;
        if count as usize != args.len() - 4 {
            return Err(bad(format_args!(
                "{} optional arguments were announced, {} are there",
                count,
                args.len() - 4
            )));
        }
        let mut i = 4;
        while let Some(key) = args.get(i) {
            let value = args
                .get(i + 1)
                .ok_or_else(|| bad(format_args!("option {} has no value", show(key))))?;
            let n = number(value).ok_or_else(|| {
                bad(format_args!(
                    "option {}: '{}' is no number",
                    show(key),
                    show(value)
                ))
            })?;
            match show(key) {
                "block_size" => {
                    if !n.is_power_of_two() || !(512..=4096).contains(&n) {
                        return Err(bad(format_args!(
                            "block_size {n}: must be 512, 1024, 2048 or 4096"
                        )));
                    }
                    options.block_size = Some(n);
                }
                "discard_zero" if n <= 1 => options.discard_zero = n == 1,
                "discard_zero" => {
                    return Err(bad(format_args!("discard_zero {n}: must be 0 or 1")))
                }
                other => {
                    return Err(bad(format_args!(
                        "unknown option '{other}': block_size or discard_zero expected"
                    )))
                }
            }
            i += 2;
        }
        Ok(options)
    }
}

fn show(s: &CStr) -> &str {
    s.to_str().unwrap_or("?")
}

fn number(s: &CStr) -> Option<u32> {
    let digits = s.to_bytes();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |n, c| {
        let digit = c.checked_sub(b'0').filter(|d| *d < 10)?;
        n.checked_mul(10)?.checked_add(u32::from(digit))
    })
}

fn bad(text: fmt::Arguments<'_>) -> Refusal {
    Refusal::new(EINVAL, text)
}

fn construct(ti: &mut Ctr<'_>) -> Result<Instanced, Refusal> {
    let args = ti.args();
    if args.len() < 3 {
        return Err(bad(format_args!(
            "{} arguments are too few; {}",
            args.len(),
            show(USAGE)
        )));
    }
    let (Some(group), Some(volume), Some(path)) = (args.get(0), args.get(1), args.get(2)) else {
        return Err(bad(format_args!("{}", show(USAGE))));
    };
    let options = Options::parse(args)?;
    let name = Name::new(group.to_bytes())
        .ok_or_else(|| bad(format_args!("invalid group name '{}'", show(group))))?;
    let group = registry::find(&name)
        .ok_or_else(|| Refusal::new(ENOENT, format_args!("unknown group '{}'", name.as_str())))?;
    let vname = Name::new(volume.to_bytes())
        .ok_or_else(|| bad(format_args!("invalid volume name '{}'", show(volume))))?;
    if ti.begin() != 0 {
        return Err(bad(format_args!(
            "volume {}/{}: must start at sector 0 of its device",
            name.as_str(),
            vname.as_str()
        )));
    }
    let table = ti.table();
    group.is_free(&vname, &table)?;
    let data = ti.get_device(path).map_err(|e| {
        let why = if e == EBUSY {
            "it is in use"
        } else {
            "it cannot be opened"
        };
        Refusal::new(
            e,
            format_args!("data device {}: {why} (error {})", show(path), e.to_errno()),
        )
    })?;
    if data.is_zoned() {
        return Err(Refusal::new(
            EOPNOTSUPP,
            format_args!(
                "data device {} is zoned, which is not supported",
                show(path)
            ),
        ));
    }
    if data.same_device(group.srl.dev()) {
        return Err(Refusal::new(
            EBUSY,
            format_args!(
                "data device {} is the SRL of group {}",
                show(path),
                name.as_str()
            ),
        ));
    }
    let size = ti.len();
    if data.nr_sectors() < size {
        return Err(Refusal::new(
            ENOSPC,
            format_args!(
                "data device {} has {} sectors, the table line wants {size}: it is too small",
                show(path),
                data.nr_sectors()
            ),
        ));
    }
    let block = data
        .logical_block_size()
        .max(options.block_size.unwrap_or(512));
    if size == 0 || size.checked_rem(u64::from(block / 512)) != Some(0) {
        return Err(bad(format_args!(
            "volume {}/{}: {size} sectors are no whole number of {block}-byte blocks",
            name.as_str(),
            vname.as_str()
        )));
    }
    ti.set_max_io_sectors(EXTENT_SECTORS as u32)?;
    let discards = data.max_discard_sectors() > 0 || group.role() == Role::Secondary;
    ti.set_discards(discards, false);
    ti.set_write_zeroes(true);
    ti.set_limit_swap_bios(true);
    let beside_srl = data.same_disk(group.srl.dev());
    let volume = Volume::new(
        vname,
        Sector(size),
        block,
        options.discard_zero,
        data,
        beside_srl,
        table,
    );
    let volume = Arc::new(volume, GFP_KERNEL)?;
    group.enlist()?;
    Ok(Instanced {
        volume,
        group,
        block_size: options.block_size,
    })
}

#[vtable]
impl Target for Replicate {
    type Private = Arc<Instanced>;

    const NAME: &'static CStr = c"replicate";
    const VERSION: [u32; 3] = [1, 0, 0];
    const FEATURES: u64 = features::SINGLETON;

    fn ctr(ti: &mut Ctr<'_>) -> Result<Self::Private> {
        match construct(ti) {
            Ok(i) => Ok(Arc::new(i, GFP_KERNEL)?),
            Err(r) => Err(ti.fail(
                r.error,
                c"replicate: refused, see the kernel log",
                format_args!("{}", r.text()),
            )),
        }
    }

    fn map(p: ArcBorrow<'_, Instanced>, bio: MappedBio) -> MapOutcome {
        p.group.map(&p.volume, bio)
    }

    fn presuspend(p: ArcBorrow<'_, Instanced>, i: &Instance<'_>) {
        // A plain suspend ends no wait for a peer: it would abort the very journal that is being frozen.
        if i.is_noflush_suspending() {
            p.group.requeue(&p.volume);
        }
    }

    fn postsuspend(p: ArcBorrow<'_, Instanced>, i: &Instance<'_>) {
        let _noio = NoioScope::enter();
        let limit_ms = if i.is_noflush_suspending() {
            NOFLUSH_MS
        } else {
            FOREVER
        };
        p.group.drain(&p.volume, limit_ms);
    }

    fn preresume(p: ArcBorrow<'_, Instanced>, _i: &Instance<'_>) -> Result {
        // The device is still suspended: memory must not be looked for in it.
        let _noio = NoioScope::enter();
        p.group.attach(&p.volume).map_err(|r| {
            pr_err!("{}\n", r.text());
            r.error
        })
    }

    fn resume(p: ArcBorrow<'_, Instanced>, _i: &Instance<'_>) {
        p.group.show_mode(&p.volume);
        p.group.apply_wake.notify();
        p.group.log_wake.notify();
    }

    fn status(
        p: ArcBorrow<'_, Instanced>,
        _i: &Instance<'_>,
        what: StatusType,
        out: &mut Writer<'_>,
    ) {
        let _noio = NoioScope::enter();
        // A line that does not fit is cut by device-mapper, which asks again with more room.
        let _ = match what {
            StatusType::Info => info(&p, out),
            StatusType::Table => table(&p, out),
            StatusType::Ima => ima(&p, out),
        };
    }

    fn message(
        p: ArcBorrow<'_, Instanced>,
        _i: &Instance<'_>,
        args: &Args<'_>,
        reply: &mut Writer<'_>,
    ) -> Result {
        match args.get(0).map(show) {
            Some("flush") if args.len() == 1 => {
                p.group.inner.lock().node.demand_all();
                p.group.log_wake.notify();
                Ok(())
            }
            Some("position") if args.len() == 1 => {
                let (head, commit, applied) = {
                    let inner = p.group.inner.lock();
                    (
                        inner.node.head(),
                        inner.node.commit(),
                        inner.node.applier.applied(),
                    )
                };
                write!(reply, "{head} {commit} {applied}").map_err(|_| ENOSPC)
            }
            other => {
                pr_err!(
                    "volume {}/{}: unknown message '{}': 'flush' or 'position' expected\n",
                    p.group.name.as_str(),
                    p.volume.name.as_str(),
                    other.unwrap_or("")
                );
                Err(EINVAL)
            }
        }
    }

    fn io_hints(p: ArcBorrow<'_, Instanced>, limits: &mut Limits<'_>) {
        limits.raise_block_size(p.volume.logical_block);
        limits.limit_discard_sectors(EXTENT_SECTORS as u32);
        limits.limit_write_zeroes_sectors(EXTENT_SECTORS as u32);
        limits.no_poll();
        limits.no_atomic_writes();
    }
}

/// `<role> <state> <head> <commit> <applied> <ring used>/<ring bytes> <links> {<link> <state>}`
fn info(p: &Instanced, out: &mut Writer<'_>) -> fmt::Result {
    let (role, head, commit, applied, used, size) = {
        let inner = p.group.inner.lock();
        let (used, size) = match &inner.node.log {
            replicate_core::node::Log::Ring(w) => (w.ring.used().0, w.ring.size().0),
            replicate_core::node::Log::NoRing(_) => (0, 0),
        };
        (
            inner.node.role(),
            inner.node.head(),
            inner.node.commit(),
            inner.node.applier.applied(),
            used,
            size,
        )
    };
    let role = match role {
        Role::Primary => "primary",
        Role::Secondary => "secondary",
    };
    write!(
        out,
        "{role} {} {head} {commit} {applied} {used}/{size}",
        p.volume.state().name()
    )?;
    let links = p.group.all_links().map_err(|_| fmt::Error)?;
    write!(out, " {}", links.len())?;
    for link in links.iter() {
        write!(out, " {} {}", link.name.as_str(), link.state_name())?;
    }
    Ok(())
}

fn table(p: &Instanced, out: &mut Writer<'_>) -> fmt::Result {
    write!(
        out,
        "{} {} {}",
        p.group.name.as_str(),
        p.volume.name.as_str(),
        p.volume.data.dev()
    )?;
    let n = 2 * (usize::from(p.block_size.is_some()) + usize::from(p.volume.discard_zero));
    if n > 0 {
        write!(out, " {n}")?;
    }
    if let Some(b) = p.block_size {
        write!(out, " block_size {b}")?;
    }
    if p.volume.discard_zero {
        write!(out, " discard_zero 1")?;
    }
    Ok(())
}

fn ima(p: &Instanced, out: &mut Writer<'_>) -> fmt::Result {
    let v = Replicate::VERSION;
    write!(
        out,
        "target_name={},target_version={}.{}.{},group={},volume={},data_device_name={},block_size={},discard_zero={},state={};",
        show(Replicate::NAME),
        v.first().unwrap_or(&0),
        v.get(1).unwrap_or(&0),
        v.get(2).unwrap_or(&0),
        p.group.name.as_str(),
        p.volume.name.as_str(),
        p.volume.data.dev(),
        p.volume.logical_block,
        u8::from(p.volume.discard_zero),
        match p.volume.state() {
            State::Replica => "n",
            State::Active
            | State::Absent
            | State::Waiting
            | State::Replaying
            | State::Suspended
            | State::Failed => "y",
        }
    )
}

/// The registration of the target.
pub(crate) type Registration = dm::TargetRegistration<Replicate>;
