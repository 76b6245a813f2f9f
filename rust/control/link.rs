// SPDX-License-Identifier: GPL-2.0

//! Commands that add, remove, change, connect and disconnect links.

use super::{
    answer::{answer, entry, invalid, name, Needs},
    settings,
};
use crate::{
    group::Group,
    link::{self, Link},
    refuse::Refusal,
    registry,
    uapi::a_link as l,
};
use core::net;
use kernel::{
    prelude::*,
    sync::{atomic::Relaxed, Arc},
};
use replicate_core::{
    group::{Mode, Name},
    node::links::MAX_LINKS,
};
use replicate_linux::{
    errno::EKEYREJECTED,
    genl::{Attrs, Request},
    net::SocketAddr,
};

const NAMES: [(u16, &str); 2] = [(l::GROUP, "group name"), (l::NAME, "link name")];

/// `link add`.
pub(super) fn add(request: &mut Request<'_>) -> Result {
    let needs: &Needs = &[
        (l::GROUP, "group name"),
        (l::NAME, "link name"),
        (l::LOCAL, "local address"),
        (l::PEER, "peer address"),
    ];
    answer(request, "link add", needs, |_, attrs| {
        let entry = entry(attrs, l::GROUP)?;
        let _turn = entry.turn();
        let group = &entry.group;
        let name = name(attrs, l::NAME, "link")?;
        let shown = name.as_str();
        may_be_added(group, &name)?;
        let asked = settings::link(attrs, shown, group.settings.pool_bytes.load(Relaxed))?;
        let heartbeat_ms = asked.heartbeat_ms.unwrap_or(settings::DEFAULT_HEARTBEAT_MS);
        let peer_timeout_ms = asked
            .peer_timeout_ms
            .unwrap_or(settings::DEFAULT_PEER_TIMEOUT_MS);
        settings::check_timeout(shown, heartbeat_ms, peer_timeout_ms)?;
        let (local, peer) = addresses(attrs, shown)?;
        Link::add(
            group,
            &registry::listeners()?,
            link::Config {
                name,
                local,
                peer,
                mode: asked.mode.unwrap_or(Mode::Async),
                heartbeat_ms,
                peer_timeout_ms,
                progress_timeout_ms: asked
                    .progress_timeout_ms
                    .unwrap_or(settings::DEFAULT_PROGRESS_TIMEOUT_MS),
                window_bytes: asked.window_bytes,
            },
        )?;
        Ok(())
    })
}

/// `link del`.
pub(super) fn del(request: &mut Request<'_>) -> Result {
    with_link(request, "link del", |group, link, _| {
        Link::remove(group, &*registry::listeners()?, &link.name)
    })
}

/// `link set`.
pub(super) fn set(request: &mut Request<'_>) -> Result {
    with_link(request, "link set", |group, link, attrs| {
        let name = link.name.as_str();
        let asked = settings::link(attrs, name, group.settings.pool_bytes.load(Relaxed))?;
        let now = &link.settings;
        settings::check_timeout(
            name,
            asked
                .heartbeat_ms
                .unwrap_or_else(|| now.heartbeat_ms.load(Relaxed)),
            asked
                .peer_timeout_ms
                .unwrap_or_else(|| now.peer_timeout_ms.load(Relaxed)),
        )?;
        link.set(
            group,
            link::Change {
                mode: asked.mode,
                heartbeat_ms: asked.heartbeat_ms,
                peer_timeout_ms: asked.peer_timeout_ms,
                progress_timeout_ms: asked.progress_timeout_ms,
                window_bytes: asked.window_bytes,
            },
        )
    })
}

/// `link connect`.
pub(super) fn connect(request: &mut Request<'_>) -> Result {
    with_link(request, "link connect", |group, link, _| {
        link.connect(group)
    })
}

/// `link disconnect`.
pub(super) fn disconnect(request: &mut Request<'_>) -> Result {
    with_link(request, "link disconnect", |group, link, _| {
        link.disconnect(group)
    })
}

/// Runs a command on the link that it names.
pub(super) fn with_link(
    request: &mut Request<'_>,
    what: &str,
    f: impl FnOnce(&Arc<Group>, &Arc<Link>, &Attrs<'_>) -> Result<(), Refusal>,
) -> Result {
    answer(request, what, &NAMES, |_, attrs| {
        let entry = entry(attrs, l::GROUP)?;
        let _turn = entry.turn();
        let name = name(attrs, l::NAME, "link")?;
        let link = entry.group.link(&name).ok_or_else(|| {
            let group = entry.group.name.as_str();
            Refusal::new(
                ENOENT,
                format_args!("group {group}: no link '{}'", name.as_str()),
            )
        })?;
        f(&entry.group, &link, attrs)
    })
}

fn may_be_added(group: &Group, name: &Name) -> Result<(), Refusal> {
    let (g, name_) = (group.name.as_str(), name.as_str());
    if group.link(name).is_some() {
        return Err(Refusal::new(
            EEXIST,
            format_args!("group {g}: link {name_} already exists"),
        ));
    }
    let lists = group.lists.lock();
    if lists.secret.is_empty() {
        return Err(Refusal::new(
            EKEYREJECTED,
            format_args!("group {g}: no secret set"),
        ));
    }
    if lists.links.len() >= MAX_LINKS {
        return Err(Refusal::new(
            ENOSPC,
            format_args!("group {g}: too many links (limit {MAX_LINKS})"),
        ));
    }
    Ok(())
}

/// Both addresses, of the same kind, that can be listened on and connected to.
fn addresses(attrs: &Attrs<'_>, link: &str) -> Result<(SocketAddr, SocketAddr), Refusal> {
    let (local, local_net) = address(attrs, l::LOCAL, link, "local")?;
    let (peer, peer_net) = address(attrs, l::PEER, link, "peer")?;
    if local_net.is_ipv4() != peer_net.is_ipv4() {
        return Err(invalid(format_args!(
            "link {link}: local address {local_net} and peer address {peer_net} are of different families"
        )));
    }
    if peer_net.ip().is_unspecified() || peer_net.ip().is_multicast() {
        return Err(invalid(format_args!(
            "link {link}: invalid peer address {peer_net}: not a unicast address"
        )));
    }
    if local_net.ip().is_multicast() {
        return Err(invalid(format_args!(
            "link {link}: invalid local address {local_net}: not a unicast address"
        )));
    }
    if local_net == peer_net {
        return Err(invalid(format_args!(
            "link {link}: local and peer address are the same ({peer_net})"
        )));
    }
    Ok((local, peer))
}

fn address(
    attrs: &Attrs<'_>,
    id: u16,
    link: &str,
    which: &str,
) -> Result<(SocketAddr, net::SocketAddr), Refusal> {
    let text = attrs.str(id).unwrap_or("");
    let parsed = text
        .parse::<net::SocketAddr>()
        .ok()
        .filter(|a| a.port() != 0);
    let bad = || {
        invalid(format_args!(
            "link {link}: invalid {which} address '{text}': ADDRESS:PORT expected"
        ))
    };
    let parsed = parsed.ok_or_else(bad)?;
    Ok((SocketAddr::parse(text).map_err(|_| bad())?, parsed))
}
