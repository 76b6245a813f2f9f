// SPDX-License-Identifier: GPL-2.0

//! The status for people: a paragraph per group, a table of its volumes, a table of its links.

use std::{fs, path::Path};

use crate::{
    size::{human_millis, human_size},
    status::{Group, Link, Volume},
};

/// What rendering asks of the world: the time, and the names of devices.
pub struct World<'a> {
    pub now_ns: u64,
    pub device_name: &'a dyn Fn(&str) -> Option<String>,
}

/// Returns the name of a device "major:minor": /dev/mapper's for a device-mapper device.
pub fn device_name(numbers: &str) -> Option<String> {
    let valid = numbers
        .split_once(':')
        .is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.parse::<u32>().is_ok());
    let dir = Path::new("/sys/dev/block").join(valid.then_some(numbers)?);
    if let Ok(name) = fs::read_to_string(dir.join("dm/name")) {
        return Some(format!("/dev/mapper/{}", name.trim()));
    }
    let uevent = fs::read_to_string(dir.join("uevent")).ok()?;
    let name = uevent.lines().find_map(|l| l.strip_prefix("DEVNAME="))?;
    Some(format!("/dev/{name}"))
}

/// Returns all groups.
pub fn status(groups: &[Group], world: &World<'_>) -> String {
    if groups.is_empty() {
        return "no groups on this host".into();
    }
    let parts: Vec<String> = groups.iter().map(|g| group(g, world)).collect();
    parts.join("\n\n")
}

fn group(group: &Group, world: &World<'_>) -> String {
    let mut lines = vec![headline(group, world)];
    let mut line = |label: &str, text: Option<String>| {
        if let Some(text) = text {
            lines.push(format!("  {label:<9} {text}"));
        }
    };
    line(
        "reason",
        reason(group.reason.as_deref(), group.reason_text.as_deref()),
    );
    line("srl", srl(group));
    line("memory", used(group.pool_used, group.pool_bytes));
    line("records", records(group));
    line("replica", replica(group));
    line("takeover", group.takeover_text.clone());
    lines.extend(volumes(&group.volumes, world));
    lines.extend(links(&group.links));
    lines.join("\n")
}

fn headline(group: &Group, world: &World<'_>) -> String {
    let mut line = format!(
        "group {}: {}, {}",
        group.name,
        group.role.as_deref().unwrap_or("no role"),
        group.state.as_deref().unwrap_or("state unknown")
    );
    if let Some(since) = group
        .since_ns
        .and_then(|since| world.now_ns.checked_sub(since))
    {
        line += &format!(" for {}", human_millis(since / 1_000_000));
    }
    line
}

fn srl(group: &Group) -> Option<String> {
    let mut text = group.srl.clone()?;
    match (group.ring_used, group.ring_bytes) {
        (_, Some(0)) => text += ", no ring",
        (Some(ring_used), Some(ring)) => {
            let percent = (u128::from(ring_used) * 100).div_ceil(u128::from(ring));
            text += &format!(
                ", {} of {} used ({percent}%)",
                human_size(ring_used),
                human_size(ring)
            );
        }
        _ => {}
    }
    Some(text)
}

fn used(part: Option<u64>, whole: Option<u64>) -> Option<String> {
    Some(format!(
        "{} of {} used",
        human_size(part?),
        human_size(whole?)
    ))
}

fn records(group: &Group) -> Option<String> {
    let all = [
        ("head", group.head_seq),
        ("written", group.written_seq),
        ("committed", group.commit_seq),
        ("applied", group.applied_seq),
        ("tail", group.tail_seq),
        ("horizon", group.horizon_seq),
    ];
    let known: Vec<String> = all
        .iter()
        .filter_map(|(name, seq)| seq.map(|seq| format!("{name} {seq}")))
        .collect();
    (!known.is_empty()).then(|| known.join(", "))
}

fn replica(group: &Group) -> Option<String> {
    let state = group.replica_state.as_deref().filter(|s| *s != "none")?;
    Some(
        match group.replica_text.as_deref().filter(|t| !t.is_empty()) {
            Some(text) => format!("{state}, {text}"),
            None => state.to_string(),
        },
    )
}

/// "code: text", whichever is there.
fn reason(code: Option<&str>, text: Option<&str>) -> Option<String> {
    let code = code.filter(|c| *c != "none");
    let text = text.filter(|t| !t.is_empty());
    match (code, text) {
        (Some(code), Some(text)) => Some(format!("{code}: {text}")),
        (Some(one), None) | (None, Some(one)) => Some(one.to_string()),
        (None, None) => None,
    }
}

const NOTHING: &str = "-";

fn or_nothing(text: Option<String>) -> String {
    text.unwrap_or_else(|| NOTHING.into())
}

fn volumes(volumes: &[Volume], world: &World<'_>) -> Vec<String> {
    let named = |numbers: &Option<String>| {
        let numbers = numbers.as_deref()?;
        Some((world.device_name)(numbers).unwrap_or_else(|| numbers.to_string()))
    };
    let rows = volumes.iter().map(|v| {
        [
            v.name.clone(),
            or_nothing(v.state.clone()),
            or_nothing(v.size_sectors.map(|s| human_size(s.saturating_mul(512)))),
            or_nothing(named(&v.dm_dev)),
            or_nothing(named(&v.data_dev)),
            or_nothing(reason(v.reason.as_deref(), v.reason_text.as_deref())),
        ]
    });
    table(
        ["VOLUME", "STATE", "SIZE", "DEVICE", "DATA", "REASON"],
        rows,
    )
}

fn links(links: &[Link]) -> Vec<String> {
    let rows = links.iter().map(|l| {
        [
            l.name.clone(),
            or_nothing(l.mode.clone()),
            link_state(l),
            or_nothing(behind(l)),
            or_nothing(l.peer.clone()),
            or_nothing(reason(l.reason.as_deref(), l.reason_text.as_deref())),
        ]
    });
    table(["LINK", "MODE", "STATE", "BEHIND", "PEER", "REASON"], rows)
}

fn link_state(link: &Link) -> String {
    let mut text = or_nothing(link.state.clone());
    if link.in_sync {
        text += ", in-sync";
    }
    if let (Some(done), Some(total)) = (link.sync_done_bytes, link.sync_total_bytes) {
        let percent = (u128::from(done) * 100)
            .checked_div(u128::from(total))
            .unwrap_or(100);
        text += &format!(", {percent}% of {}", human_size(total));
    }
    text
}

fn behind(link: &Link) -> Option<String> {
    let records = link.behind_records?;
    if records == 0 {
        return Some("nothing".into());
    }
    let mut text = format!("{records} write{}", if records == 1 { "" } else { "s" });
    if let Some(bytes) = link.behind_bytes {
        text += &format!(", {}", human_size(bytes));
    }
    if let Some(ms) = link.behind_ms {
        text += &format!(", {}", human_millis(ms));
    }
    Some(text)
}

/// Returns the lines of a table; none without rows. A last column in which no row has anything is left out.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Vec<String> {
    let rows: Vec<[String; N]> = rows.collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let empty_last = rows.iter().all(|r| r.last().is_some_and(|c| c == NOTHING));
    let columns = if empty_last { N - 1 } else { N };
    let mut table = comfy_table::Table::new();
    table
        .load_preset(comfy_table::presets::NOTHING)
        .set_header(head.iter().take(columns))
        .add_rows(rows.iter().map(|r| r.iter().take(columns)));
    for column in table.column_iter_mut() {
        column.set_padding((2, 0));
    }
    table.trim_fmt().lines().map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.into())
    }

    fn sample() -> Group {
        let volume = |name: &str, state: &str| Volume {
            name: name.into(),
            state: some(state),
            dm_dev: some("253:0"),
            data_dev: some("254:16"),
            size_sectors: Some(20 << 21),
            ..Volume::default()
        };
        let link = |name: &str, mode: &str, state: &str| Link {
            name: name.into(),
            mode: some(mode),
            state: some(state),
            reason: some("none"),
            peer: some("10.0.0.2:7790"),
            ..Link::default()
        };
        Group {
            name: "db".into(),
            role: some("primary"),
            state: some("active"),
            reason: some("none"),
            since_ns: Some(1_000_000_000),
            srl: some("/dev/vdc"),
            ring_bytes: Some(1 << 30),
            ring_used: Some(32 << 20),
            pool_bytes: Some(64 << 20),
            pool_used: Some(3 << 20),
            head_seq: Some(1200),
            commit_seq: Some(1190),
            replica_state: some("none"),
            volumes: vec![
                volume("data", "active"),
                Volume {
                    dm_dev: None,
                    ..volume("logs", "absent")
                },
            ],
            links: vec![
                Link {
                    in_sync: true,
                    behind_records: Some(0),
                    ..link("near", "received", "streaming")
                },
                Link {
                    reason: some("unreachable"),
                    reason_text: some("10.0.0.2:7790: connection refused"),
                    behind_records: Some(12),
                    behind_bytes: Some(48 << 10),
                    behind_ms: Some(2100),
                    ..link("dr", "async", "connecting")
                },
                Link {
                    sync_done_bytes: Some(1 << 30),
                    sync_total_bytes: Some(4 << 30),
                    ..link("third", "async", "syncing")
                },
            ],
            ..Group::default()
        }
    }

    fn render(groups: &[Group]) -> String {
        let device_name = |n: &str| (n == "253:0").then(|| "/dev/mapper/db-data".to_string());
        status(
            groups,
            &World {
                now_ns: 61_000_000_000,
                device_name: &device_name,
            },
        )
    }

    #[test]
    fn a_primary_with_three_links() {
        assert_eq!(
            render(&[sample()]),
            "\
group db: primary, active for 1m
  srl       /dev/vdc, 32 MiB of 1 GiB used (4%)
  memory    3 MiB of 64 MiB used
  records   head 1200, committed 1190
  VOLUME  STATE   SIZE    DEVICE               DATA
  data    active  20 GiB  /dev/mapper/db-data  254:16
  logs    absent  20 GiB  -                    254:16
  LINK   MODE      STATE                  BEHIND                       PEER           REASON
  near   received  streaming, in-sync     nothing                      10.0.0.2:7790  -
  dr     async     connecting             12 writes, 48 KiB, 2s 100ms  10.0.0.2:7790  unreachable: 10.0.0.2:7790: connection refused
  third  async     syncing, 25% of 4 GiB  -                            10.0.0.2:7790  -"
        );
    }

    #[test]
    fn a_secondary() {
        let group = Group {
            role: some("secondary"),
            state: some("waiting"),
            reason: some("waiting-volumes"),
            reason_text: some("volume logs is not active"),
            ring_bytes: Some(0),
            replica_state: some("inconsistent"),
            replica_text: some("31% of the synchronisation is done"),
            volumes: vec![],
            links: vec![],
            since_ns: Some(u64::MAX),
            ..sample()
        };
        assert_eq!(
            render(&[group]),
            "\
group db: secondary, waiting
  reason    waiting-volumes: volume logs is not active
  srl       /dev/vdc, no ring
  memory    3 MiB of 64 MiB used
  records   head 1200, committed 1190
  replica   inconsistent, 31% of the synchronisation is done"
        );
    }

    #[test]
    fn nothing_known_is_no_reason_to_fail() {
        assert_eq!(render(&[]), "no groups on this host");
        let bare = Group {
            volumes: vec![Volume::default()],
            links: vec![Link::default()],
            ..Group::default()
        };
        assert!(render(&[bare.clone(), bare]).contains("no role, state unknown"));
    }

    #[test]
    fn only_numbers_are_looked_up() {
        assert_eq!(device_name("../../../etc:passwd"), None);
        assert_eq!(device_name("253"), None);
        assert_eq!(device_name("4294967295:0"), None);
    }

    #[test]
    fn totals_of_zero_and_huge_ones() {
        let link = |done, total| Link {
            sync_done_bytes: Some(done),
            sync_total_bytes: Some(total),
            ..Link::default()
        };
        assert_eq!(link_state(&link(0, 0)), "-, 100% of 0 B");
        assert_eq!(
            link_state(&link(u64::MAX / 2, u64::MAX)),
            "-, 49% of 16 EiB"
        );
    }
}
