// SPDX-License-Identifier: GPL-2.0

//! Commands that add, remove and change groups.

use super::{
    answer::{answer, entry, invalid, name},
    settings,
};
use crate::{
    event::{self, Code, Severity},
    group::{inner::Phase, start::Config, Group},
    refuse::Refusal,
    registry,
    uapi::{self, a_group as g},
};
use kernel::{prelude::*, sync::atomic::Relaxed};
use replicate_core::node::Role;
use replicate_linux::genl::{Attrs, Request};

/// Bytes in a page, as the pool counts.
const PAGE_BYTES: u64 = 4096;
const NS_PER_MS: u64 = 1_000_000;

/// `group add`.
pub(super) fn add(request: &mut Request<'_>) -> Result {
    request.wipe_when_done(g::SECRET);
    let needs = [(g::NAME, "group name"), (g::SRL, "SRL device")];
    answer(request, "group add", &needs, |_, attrs| {
        let group = registry::add(config(attrs)?).map_err(|mut refusal| {
            // ENOENT means that there is no such group.
            if refusal.error == ENOENT {
                refusal.error = ENODEV;
            }
            refusal
        })?;
        tell_added(&group);
        Ok(())
    })
}

// Not inlined: opening the log needs the stack.
#[inline(never)]
fn config<'a>(attrs: &Attrs<'a>) -> Result<Config<'a>, Refusal> {
    let name = name(attrs, g::NAME, "group")?;
    let shown = name.as_str();
    let asked = settings::group(attrs, shown, settings::DEFAULT_GROUP)?;
    Ok(Config {
        name,
        srl: srl(attrs, shown)?,
        role: role(attrs),
        secret: settings::secret(attrs, shown)?.unwrap_or_default(),
        pool_bytes: asked.pool_bytes,
        commit_interval_ms: asked.commit_interval_ms,
        commit_bytes: asked.commit_bytes,
        start_wait_ms: asked.start_wait_ms,
        window_bytes: asked.window_bytes,
    })
}

#[inline(never)]
fn tell_added(group: &Group) {
    let text = match group.role() {
        Role::Primary => "added as primary",
        Role::Secondary => "added as secondary",
    };
    pr_info!("group {}: {text}\n", group.name.as_str());
    event::group(group, Code::GroupAdded, Severity::Info, text);
}

/// `group del`.
pub(super) fn del(request: &mut Request<'_>) -> Result {
    answer(
        request,
        "group del",
        &[(g::NAME, "group name")],
        |_, attrs| {
            let name = name(attrs, g::NAME, "group")?;
            let group = registry::remove(&name, may_go)?;
            pr_info!("group {}: removed\n", name.as_str());
            event::group(&group, Code::GroupRemoved, Severity::Info, "removed");
            Ok(())
        },
    )
}

/// `group set`.
pub(super) fn set(request: &mut Request<'_>) -> Result {
    request.wipe_when_done(g::SECRET);
    answer(
        request,
        "group set",
        &[(g::NAME, "group name")],
        |_, attrs| {
            let entry = entry(attrs, g::NAME)?;
            let _turn = entry.turn();
            let group = &*entry.group;
            let name = group.name.as_str();
            let s = &group.settings;
            let now = settings::Group {
                commit_interval_ms: s.commit_interval_ms.load(Relaxed),
                commit_bytes: s.commit_bytes.load(Relaxed),
                start_wait_ms: s.start_wait_ms.load(Relaxed),
                window_bytes: s.window_bytes.load(Relaxed),
                pool_bytes: s.pool_bytes.load(Relaxed),
            };
            let asked = settings::group(attrs, name, now)?;
            let secret = settings::secret(attrs, name)?;
            if asked.pool_bytes != now.pool_bytes {
                resize_pool(group, asked.pool_bytes)?;
            }
            s.commit_interval_ms
                .store(asked.commit_interval_ms, Relaxed);
            s.commit_bytes.store(asked.commit_bytes, Relaxed);
            s.window_bytes.store(asked.window_bytes, Relaxed);
            s.start_wait_ms.store(asked.start_wait_ms, Relaxed);
            move_hold(group, now.start_wait_ms, asked.start_wait_ms);
            if let Some(secret) = secret {
                // Sessions that stand have proven the old one; the next handshake asks for the new one.
                group.lists.lock().secret = secret;
            }
            group.log_wake.notify();
            event::group(
                group,
                Code::GroupChanged,
                Severity::Info,
                "settings changed",
            );
            Ok(())
        },
    )
}

/// Refuses to remove a group that is in use.
fn may_go(group: &Group) -> Result<(), Refusal> {
    let name = group.name.as_str();
    {
        let lists = group.lists.lock();
        if let Some(first) = lists.links.first() {
            return Err(Refusal::new(
                EBUSY,
                format_args!(
                    "group {name}: in use by {} link(s), first {}",
                    lists.links.len(),
                    first.name.as_str()
                ),
            ));
        }
    }
    let present = group.present()?;
    if let Some(first) = present.first() {
        return Err(Refusal::new(
            EBUSY,
            format_args!(
                "group {name}: in use by {} active volume(s), first {} (device {})",
                present.len(),
                first.name.as_str(),
                first.table.dev()
            ),
        ));
    }
    drop(present);
    // The last word, under the lock that a new table takes: from here on none is let in.
    let mut inner = group.inner.lock();
    if inner.tables == 0 {
        inner.phase = Phase::Gone;
        return Ok(());
    }
    drop(inner);
    Err(Refusal::new(
        EBUSY,
        format_args!("group {name}: in use by an inactive device-mapper table"),
    ))
}

fn resize_pool(group: &Group, bytes: u64) -> Result<(), Refusal> {
    let pages = usize::try_from(bytes / PAGE_BYTES).unwrap_or(usize::MAX);
    group.pool.set_max(pages).map_err(|e| {
        Refusal::new(
            e,
            format_args!(
                "group {}: cannot resize the pool to {bytes} bytes while the group runs",
                group.name.as_str()
            ),
        )
    })?;
    group.settings.pool_bytes.store(bytes, Relaxed);
    Ok(())
}

/// A primary that still holds its writes holds them for the new time, from when it began.
fn move_hold(group: &Group, was_ms: u32, is_ms: u32) {
    if let Phase::Holding { until_ns } = &mut group.inner.lock().phase {
        *until_ns = until_ns
            .saturating_sub(u64::from(was_ms) * NS_PER_MS)
            .saturating_add(u64::from(is_ms) * NS_PER_MS);
    }
}

fn srl<'a>(attrs: &Attrs<'a>, name: &str) -> Result<&'a CStr, Refusal> {
    match attrs.c_str(g::SRL) {
        Some(path) if path.to_bytes().starts_with(b"/") => Ok(path),
        _ => Err(invalid(format_args!(
            "group {name}: invalid SRL device '{}': not an absolute path",
            attrs.str(g::SRL).unwrap_or("")
        ))),
    }
}

fn role(attrs: &Attrs<'_>) -> Option<Role> {
    // The policy lets no other number through.
    Some(match uapi::Role::from_u32(attrs.u32(g::ROLE)?)? {
        uapi::Role::Primary => Role::Primary,
        uapi::Role::Secondary => Role::Secondary,
    })
}
