// SPDX-License-Identifier: GPL-2.0

//! The status of groups as the kernel sends it, and as `--json` prints it.
//!
//! A field that the kernel leaves out does not apply and is left out of the JSON too.

use serde::Serialize;

use crate::{
    netlink::attr::Attrs,
    uapi::{self, a_group, a_group_stats, a_link, a_link_stats, a_volume, name_of},
};

/// What `status --json` prints; `version` grows when a field changes its meaning.
#[derive(Debug, Serialize)]
pub struct Status {
    pub version: u32,
    pub groups: Vec<Group>,
}

/// Fills a struct from attributes: one line per field, with the attribute and how to read it.
macro_rules! from_attrs {
    (
        $(#[$meta:meta])* $name:ident from $set:ident {
            $( $field:ident : $ty:ty = $attr:ident $read:tt ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        #[serde(default)]
        pub struct $name {
            $( #[serde(skip_serializing_if = "Absent::absent")] pub $field: $ty, )*
        }

        impl $name {
            /// Reads what is there.
            pub fn from_attrs(attrs: &Attrs) -> Self {
                $name { $( $field: from_attrs!(@read attrs, $set::$attr, $read), )* }
            }
        }
    };
    (@read $a:ident, $k:expr, string) => { $a.string($k) };
    (@read $a:ident, $k:expr, name) => { $a.string($k).unwrap_or_default() };
    (@read $a:ident, $k:expr, u32) => { $a.u32($k) };
    (@read $a:ident, $k:expr, uint) => { $a.uint($k) };
    (@read $a:ident, $k:expr, flag) => { $a.flag($k) };
    (@read $a:ident, $k:expr, id) => { $a.bytes($k).map(uuid) };
    (@read $a:ident, $k:expr, [$table:ident]) => { $a.u32($k).map(|v| name_of(uapi::$table, v)) };
    (@read $a:ident, $k:expr, {$nested:ident}) => { $a.nest($k).map(|n| $nested::from_attrs(&n)) };
    (@read $a:ident, $k:expr, ($nested:ident)) => { $a.each($k).map(|n| $nested::from_attrs(&n)).collect() };
}

/// What is left out of the JSON.
trait Absent {
    fn absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn absent(&self) -> bool {
        false
    }
}

impl Absent for bool {
    fn absent(&self) -> bool {
        false
    }
}

impl Absent for String {
    fn absent(&self) -> bool {
        false
    }
}

from_attrs! {
    /// A group on this host.
    Group from a_group {
        name: String = NAME name,
        uuid: Option<String> = UUID id,
        host_id: Option<String> = HOST_ID id,
        role: Option<String> = ROLE [ROLE],
        state: Option<String> = STATE [GROUP_STATE],
        reason: Option<String> = REASON [REASON],
        reason_text: Option<String> = REASON_TEXT string,
        since_ns: Option<u64> = SINCE_NS uint,
        generation: Option<u64> = GENERATION uint,
        srl: Option<String> = SRL string,
        srl_policy: Option<String> = SRL_POLICY [SRL_POLICY],
        replica_state: Option<String> = REPLICA_STATE [REPLICA_STATE],
        replica_text: Option<String> = REPLICA_TEXT string,
        takeover_text: Option<String> = TAKEOVER_TEXT string,
        epoch: Option<String> = EPOCH id,
        head_seq: Option<u64> = HEAD_SEQ uint,
        written_seq: Option<u64> = WRITTEN_SEQ uint,
        commit_seq: Option<u64> = COMMIT_SEQ uint,
        published_seq: Option<u64> = PUBLISHED_SEQ uint,
        applied_seq: Option<u64> = APPLIED_SEQ uint,
        tail_seq: Option<u64> = TAIL_SEQ uint,
        horizon_seq: Option<u64> = HORIZON_SEQ uint,
        ring_bytes: Option<u64> = RING_BYTES uint,
        ring_used: Option<u64> = RING_USED uint,
        pool_bytes: Option<u64> = POOL_BYTES uint,
        pool_used: Option<u64> = POOL_USED uint,
        commit_interval_ms: Option<u32> = COMMIT_INTERVAL_MS u32,
        commit_bytes: Option<u64> = COMMIT_BYTES uint,
        start_wait_ms: Option<u32> = START_WAIT_MS u32,
        window_bytes: Option<u64> = WINDOW_BYTES uint,
        deferred: Option<u32> = DEFERRED u32,
        stats: Option<GroupStats> = STATS {GroupStats},
        volumes: Vec<Volume> = VOLUME (Volume),
        links: Vec<Link> = LINK (Link),
    }
}

from_attrs! {
    /// A volume of a group.
    Volume from a_volume {
        id: Option<u32> = ID u32,
        name: String = NAME name,
        state: Option<String> = STATE [VOLUME_STATE],
        reason: Option<String> = REASON [REASON],
        reason_text: Option<String> = REASON_TEXT string,
        dm_dev: Option<String> = DM_DEV string,
        data_dev: Option<String> = DATA_DEV string,
        size_sectors: Option<u64> = SIZE_SECTORS uint,
        logical_block: Option<u32> = LOGICAL_BLOCK u32,
        sync_cursor: Option<u64> = SYNC_CURSOR uint,
    }
}

from_attrs! {
    /// A link of a group.
    Link from a_link {
        name: String = NAME name,
        state: Option<String> = STATE [LINK_STATE],
        reason: Option<String> = REASON [REASON],
        reason_text: Option<String> = REASON_TEXT string,
        since_ns: Option<u64> = SINCE_NS uint,
        in_sync: bool = IN_SYNC flag,
        mode: Option<String> = MODE [MODE],
        on_disconnect: Option<String> = ON_DISCONNECT [ON_DISCONNECT],
        on_log_full: Option<String> = ON_LOG_FULL [ON_LOG_FULL],
        local: Option<String> = LOCAL string,
        peer: Option<String> = PEER string,
        peer_host_id: Option<String> = PEER_HOST_ID id,
        sent_seq: Option<u64> = SENT_SEQ uint,
        received_seq: Option<u64> = RECEIVED_SEQ uint,
        logged_seq: Option<u64> = LOGGED_SEQ uint,
        applied_seq: Option<u64> = APPLIED_SEQ uint,
        behind_records: Option<u64> = BEHIND_RECORDS uint,
        behind_bytes: Option<u64> = BEHIND_BYTES uint,
        behind_ms: Option<u64> = BEHIND_MS uint,
        sync_kind: Option<String> = SYNC_KIND [SYNC_KIND],
        sync_done_bytes: Option<u64> = SYNC_DONE_BYTES uint,
        sync_total_bytes: Option<u64> = SYNC_TOTAL_BYTES uint,
        rtt_us: Option<u32> = RTT_US u32,
        contact_ns: Option<u64> = CONTACT_NS uint,
        heartbeat_ms: Option<u32> = HEARTBEAT_MS u32,
        peer_timeout_ms: Option<u32> = PEER_TIMEOUT_MS u32,
        progress_timeout_ms: Option<u32> = PROGRESS_TIMEOUT_MS u32,
        window_bytes: Option<u64> = WINDOW_BYTES uint,
        unacked_bytes: Option<u32> = UNACKED_BYTES u32,
        handshakes: Option<u32> = HANDSHAKES u32,
        stats: Option<LinkStats> = STATS {LinkStats},
    }
}

from_attrs! {
    /// Counters of a group since it was added.
    GroupStats from a_group_stats {
        writes: Option<u64> = WRITES uint,
        bytes: Option<u64> = BYTES uint,
        batches: Option<u64> = BATCHES uint,
        log_bytes: Option<u64> = LOG_BYTES uint,
        log_flushes: Option<u64> = LOG_FLUSHES uint,
        checkpoints: Option<u64> = CHECKPOINTS uint,
        stalls: Option<u64> = STALLS uint,
        memory_reads: Option<u64> = MEMORY_READS uint,
        events_lost: Option<u64> = EVENTS_LOST uint,
    }
}

from_attrs! {
    /// Counters of a link since it was added.
    LinkStats from a_link_stats {
        messages_sent: Option<u64> = MESSAGES_SENT uint,
        messages_received: Option<u64> = MESSAGES_RECEIVED uint,
        bytes_sent: Option<u64> = BYTES_SENT uint,
        bytes_received: Option<u64> = BYTES_RECEIVED uint,
        connects: Option<u64> = CONNECTS uint,
        resets: Option<u64> = RESETS uint,
        crc_errors: Option<u64> = CRC_ERRORS uint,
        resends: Option<u64> = RESENDS uint,
        dropped: Option<u64> = DROPPED uint,
    }
}

/// Returns the groups of a dump. A group may be spread over several messages: the first has its scalars,
/// each has some of its volumes and links.
pub fn groups(messages: &[Attrs]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for message in messages {
        let part = Group::from_attrs(message);
        match groups.iter_mut().find(|g| g.name == part.name) {
            Some(group) => {
                group.volumes.extend(part.volumes);
                group.links.extend(part.links);
            }
            None => groups.push(part),
        }
    }
    groups
}

/// 16 bytes in the usual form of a UUID.
pub fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text += &format!("{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::Builder;

    fn number(table: &[&str], name: &str) -> u32 {
        uapi::value_of(table, name).unwrap()
    }

    fn message(name: &str) -> Builder {
        Builder::new().string(a_group::NAME, name)
    }

    fn link(name: &str) -> Builder {
        Builder::new()
            .string(a_link::NAME, name)
            .u32(a_link::STATE, number(uapi::LINK_STATE, "streaming"))
            .flag(a_link::IN_SYNC, true)
            .uint(a_link::BEHIND_BYTES, 1 << 33)
            .nest(
                a_link::STATS,
                &Builder::new().uint(a_link_stats::RESENDS, 7),
            )
    }

    #[test]
    fn a_group_is_read() {
        let bytes = message("db")
            .u32(a_group::ROLE, number(uapi::ROLE, "primary"))
            .u32(a_group::STATE, number(uapi::GROUP_STATE, "active"))
            .u32(a_group::REASON, 4711)
            .binary(a_group::UUID, &[0xab; 16])
            .uint(a_group::HEAD_SEQ, u64::MAX)
            .nest(
                a_group::VOLUME,
                &Builder::new()
                    .string(a_volume::NAME, "data")
                    .u32(a_volume::ID, 0),
            )
            .nest(a_group::LINK, &link("dr"));
        let group = Group::from_attrs(&Attrs::parse(bytes.as_bytes()));
        assert_eq!(group.name, "db");
        assert_eq!(group.role.as_deref(), Some("primary"));
        assert_eq!(group.state.as_deref(), Some("active"));
        assert_eq!(group.reason.as_deref(), Some("unknown-4711"));
        assert_eq!(
            group.uuid.as_deref(),
            Some("abababab-abab-abab-abab-abababababab")
        );
        assert_eq!((group.head_seq, group.tail_seq), (Some(u64::MAX), None));
        assert_eq!(group.volumes.len(), 1);
        assert_eq!(group.volumes[0].name, "data");
        let link = &group.links[0];
        assert_eq!(
            (link.name.as_str(), link.in_sync, link.behind_bytes),
            ("dr", true, Some(1 << 33))
        );
        assert_eq!(link.stats.as_ref().and_then(|s| s.resends), Some(7));
    }

    #[test]
    fn a_group_in_several_messages_is_one_group() {
        let parts = [
            message("a")
                .uint(a_group::HEAD_SEQ, 9)
                .nest(a_group::LINK, &link("one")),
            message("a").nest(a_group::LINK, &link("two")),
            message("b"),
        ];
        let parts: Vec<Attrs> = parts.iter().map(|p| Attrs::parse(p.as_bytes())).collect();
        let groups = groups(&parts);
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].head_seq, Some(9));
        let names: Vec<_> = groups[0].links.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
    }

    #[test]
    fn json_leaves_out_what_does_not_apply_and_keeps_what_is_false_or_empty() {
        let status = Status {
            version: 1,
            groups: vec![Group {
                name: "db".into(),
                links: vec![Link::default()],
                ..Group::default()
            }],
        };
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"version": 1, "groups": [{"name": "db", "volumes": [], "links": [{"name": "", "in_sync": false}]}]})
        );
    }
}
