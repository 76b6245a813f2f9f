// SPDX-License-Identifier: GPL-2.0

//! The commands that ask the kernel to change something: groups, links, synchronisation, takeover.

use std::path::{self, Path};

use crate::{
    cli::{Group, GroupOptions, Link, LinkName, LinkOptions, Sync},
    error::{Error, Exit, Result},
    netlink::{attr::Builder, Connection},
    secret, uapi,
    uapi::{a_group, a_link, cmd},
};
use replicate_core::group::Name;

/// `dmrepl group ...`
pub fn group(command: &Group) -> Result {
    match command {
        Group::Add {
            group,
            srl,
            role,
            options,
        } => {
            let attrs = Builder::new()
                .string(a_group::NAME, group.as_str())
                .string(a_group::SRL, &device_path(srl)?)
                .option(*role, |b, v| b.u32(a_group::ROLE, v));
            change(
                &format!("cannot add group {group}"),
                cmd::GROUP_ADD,
                &group_options(attrs, options)?,
            )
        }
        Group::Del { group } => {
            let attrs = Builder::new().string(a_group::NAME, group.as_str());
            change(
                &format!("cannot remove group {group}"),
                cmd::GROUP_DEL,
                &attrs,
            )
        }
        Group::Set { group, options } => {
            let name = Builder::new().string(a_group::NAME, group.as_str());
            let attrs = group_options(name.clone(), options)?;
            something_to_set(&name, &attrs, &format!("group set {group}"))?;
            change(
                &format!("cannot change group {group}"),
                cmd::GROUP_SET,
                &attrs,
            )
        }
    }
}

/// `dmrepl link ...`
pub fn link(command: &Link) -> Result {
    let (link, verb, number, attrs) = match command {
        Link::Add {
            link,
            local,
            peer,
            options,
        } => {
            let attrs = link_name(link)
                .string(a_link::LOCAL, &local.to_string())
                .string(a_link::PEER, &peer.to_string());
            (link, "add", cmd::LINK_ADD, link_options(attrs, options))
        }
        Link::Del(link) => (link, "remove", cmd::LINK_DEL, link_name(link)),
        Link::Set { link, options } => {
            let attrs = link_options(link_name(link), options);
            something_to_set(
                &link_name(link),
                &attrs,
                &format!("link set {} {}", link.group, link.link),
            )?;
            (link, "change", cmd::LINK_SET, attrs)
        }
        Link::Connect(link) => (link, "connect", cmd::LINK_CONNECT, link_name(link)),
        Link::Disconnect(link) => (link, "disconnect", cmd::LINK_DISCONNECT, link_name(link)),
    };
    let doing = format!("cannot {verb} link {} of group {}", link.link, link.group);
    change(&doing, number, &attrs)
}

/// `dmrepl sync ...`
pub fn sync(sync: &Sync) -> Result {
    let (group, link, kind) = (sync.link.group, sync.link.link, sync.kind());
    let value = uapi::value_of(uapi::SYNC_KIND, kind).ok_or_else(|| {
        Error::new(format!(
            "this tool's kernel header has no synchronisation {kind}"
        ))
    })?;
    let attrs = link_name(&sync.link)
        .u32(a_link::SYNC_KIND, value)
        .flag(a_link::FORCE, sync.force);
    let doing = match kind {
        "stop" => format!("cannot stop the synchronisation of link {link} of group {group}"),
        _ => format!("cannot start the synchronisation ({kind}) of link {link} of group {group}"),
    };
    change(&doing, cmd::SYNC, &attrs)
}

/// `dmrepl takeover ...`: prints what the replica was worth.
pub fn takeover(group: &Name, force: bool) -> Result {
    let attrs = Builder::new()
        .string(a_group::NAME, group.as_str())
        .flag(a_group::FORCE, force);
    let doing = format!("cannot take over group {group}");
    let replies = Connection::open()?.request(&doing, cmd::TAKEOVER, &attrs)?;
    let reply = replies.into_iter().next().unwrap_or_default();
    let mut line = format!("group {group}: this host is the primary now");
    if let Some(seq) = reply.uint(a_group::HEAD_SEQ) {
        line += &format!(", from record {}", seq.saturating_add(1));
    }
    if let Some(text) = reply
        .string(a_group::TAKEOVER_TEXT)
        .filter(|t| !t.is_empty())
    {
        line += &format!("; {text}");
    }
    crate::print(&line)
}

fn change(doing: &str, number: u8, attrs: &Builder) -> Result {
    Connection::open()?
        .request(doing, number, attrs)
        .map(|_| ())
}

fn group_options(attrs: Builder, options: &GroupOptions) -> Result<Builder> {
    let secret = options
        .secret_file
        .as_deref()
        .map(secret::read)
        .transpose()?;
    Ok(attrs
        .option(secret, |b, v| b.binary(a_group::SECRET, &v))
        .option(options.srl_policy, |b, v| b.u32(a_group::SRL_POLICY, v))
        .option(options.pool, |b, v| b.uint(a_group::POOL_BYTES, v))
        .option(options.commit_interval, |b, v| {
            b.u32(a_group::COMMIT_INTERVAL_MS, v)
        })
        .option(options.commit_bytes, |b, v| {
            b.uint(a_group::COMMIT_BYTES, v)
        })
        .option(options.start_wait, |b, v| b.u32(a_group::START_WAIT_MS, v))
        .option(options.window, |b, v| b.uint(a_group::WINDOW_BYTES, v)))
}

fn link_name(link: &LinkName) -> Builder {
    Builder::new()
        .string(a_link::GROUP, link.group.as_str())
        .string(a_link::NAME, link.link.as_str())
}

fn link_options(attrs: Builder, options: &LinkOptions) -> Builder {
    attrs
        .option(options.mode, |b, v| b.u32(a_link::MODE, v))
        .option(options.on_disconnect, |b, v| {
            b.u32(a_link::ON_DISCONNECT, v)
        })
        .option(options.on_log_full, |b, v| b.u32(a_link::ON_LOG_FULL, v))
        .option(options.heartbeat, |b, v| b.u32(a_link::HEARTBEAT_MS, v))
        .option(options.peer_timeout, |b, v| {
            b.u32(a_link::PEER_TIMEOUT_MS, v)
        })
        .option(options.progress_timeout, |b, v| {
            b.u32(a_link::PROGRESS_TIMEOUT_MS, v)
        })
        .option(options.window, |b, v| b.uint(a_link::WINDOW_BYTES, v))
}

fn something_to_set(name: &Builder, attrs: &Builder, command: &str) -> Result {
    if attrs.as_bytes() == name.as_bytes() {
        return Err(Error::new(format!("{command}: nothing to change is given"))
            .hint("Give at least one option; --help lists them.")
            .exit(Exit::Usage));
    }
    Ok(())
}

/// Returns an absolute path for the kernel, which opens it as this process would.
fn device_path(device: &Path) -> Result<String> {
    let absolute = path::absolute(device)
        .map_err(|e| Error::io(format!("cannot use the path {}", device.display()), &e))?;
    let limit = uapi::PATH_MAX;
    match absolute.to_str() {
        Some(path) if path.len() <= limit => Ok(path.to_string()),
        Some(path) => Err(Error::new(format!(
            "the path {path} is longer than {limit} bytes"
        ))),
        None => Err(Error::new(format!(
            "the path {} is not UTF-8",
            absolute.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::Attrs;

    #[test]
    fn options_become_attributes() {
        let options = GroupOptions {
            pool: Some(1 << 33),
            commit_interval: Some(5),
            ..GroupOptions::default()
        };
        let attrs = Attrs::parse(group_options(Builder::new(), &options).unwrap().as_bytes());
        assert_eq!(attrs.uint(a_group::POOL_BYTES), Some(1 << 33));
        assert_eq!(attrs.u32(a_group::COMMIT_INTERVAL_MS), Some(5));
        assert_eq!(attrs.bytes(a_group::SECRET), None);

        let options = LinkOptions {
            mode: Some(2),
            peer_timeout: Some(9),
            ..LinkOptions::default()
        };
        let attrs = Attrs::parse(link_options(Builder::new(), &options).as_bytes());
        assert_eq!(
            (attrs.u32(a_link::MODE), attrs.u32(a_link::PEER_TIMEOUT_MS)),
            (Some(2), Some(9))
        );
    }

    #[test]
    fn a_set_without_options_is_refused() {
        let name = Builder::new().string(1, "db");
        assert!(something_to_set(&name, &name.clone(), "group set db").is_err());
        assert!(something_to_set(&name, &name.clone().u32(2, 0), "group set db").is_ok());
    }

    #[test]
    fn paths_are_absolute_and_short_enough() {
        assert_eq!(device_path(Path::new("/dev/vdc")).unwrap(), "/dev/vdc");
        assert!(device_path(Path::new("vdc")).unwrap().starts_with('/'));
        assert!(device_path(Path::new(&"/x".repeat(128)))
            .unwrap_err()
            .to_string()
            .contains("longer than 255"));
    }
}
