// SPDX-License-Identifier: GPL-2.0

//! The command line. Its help texts are the reference that the manual page follows.

use std::{net::SocketAddr, path::PathBuf};

use clap::{
    builder::{PossibleValuesParser, TypedValueParser},
    ArgGroup, Args, Parser, Subcommand,
};
use replicate_core::group::Name;

use crate::{
    size::{parse_millis, parse_size},
    uapi,
};

/// The port that is taken where an address has none.
const DEFAULT_PORT: u16 = 7790;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 refused or failed; 2 wrong command line; 3 no such group or link; 4 the kernel
module is not loaded; 5 not permitted; 6 srl dump or srl check found damage.";

/// Control of replicated volume groups (device-mapper target "replicate").
#[derive(Debug, Parser)]
#[command(name = "dmrepl", after_help = EXIT_CODES, version)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Format, print or check an SRL device (no kernel module needed)
    #[command(subcommand)]
    Srl(Srl),
    /// Add, remove or change a group on this host
    #[command(subcommand)]
    Group(Group),
    /// Add, remove, change, connect or disconnect a link of a group
    #[command(subcommand)]
    Link(Link),
    /// Make the peer of a link equal to this host, while the application runs
    Sync(Sync),
    /// Show groups, volumes and links, with the reason of every state
    Status {
        /// Only this group
        #[arg(value_parser = name)]
        group: Option<Name>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make this host, a secondary, the primary of a group
    #[command(
        after_help = "Refused while the group is connected or its data is inconsistent or in use, unless forced."
    )]
    Takeover {
        /// The group
        #[arg(value_parser = name)]
        group: Name,
        /// Go on in spite of that
        #[arg(long)]
        force: bool,
    },
    /// Print events as they happen, until interrupted
    Events {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Print a new secret for a group, made of 32 random bytes
    #[command(
        after_help = "Keep it from others: (umask 077; dmrepl secret > FILE), then copy FILE to all hosts of the group."
    )]
    Secret,
    /// Show the versions of the tool, the module and the formats
    Version,
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum Srl {
    /// Write an empty SRL onto a device; what is on it is lost
    Format {
        /// The device, or a file
        device: PathBuf,
        /// Superblocks and change maps only: a secondary without a log of its own
        #[arg(long)]
        no_ring: bool,
        /// Even if something is on the device
        #[arg(long)]
        force: bool,
    },
    /// Print the records in the ring, oldest first
    #[command(after_help = EXIT_CODES)]
    Dump {
        /// The device, or a file
        device: PathBuf,
        /// Also batches that are no longer needed and not yet overwritten
        #[arg(long)]
        all: bool,
        /// One JSON object per record and line
        #[arg(long)]
        json: bool,
    },
    /// Verify superblocks and scan the ring as recovery does; nothing is written
    #[command(after_help = EXIT_CODES)]
    Check {
        /// The device, or a file
        device: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum Group {
    /// Open an SRL and start the group on it
    Add {
        /// The group, by the same name on all its hosts
        #[arg(value_parser = name)]
        group: Name,
        /// The device that "srl format" has formatted
        #[arg(long, value_name = "DEV")]
        srl: PathBuf,
        /// What this host is; the first "group add" records it, later it may be left out
        #[arg(long, value_parser = names_of(uapi::ROLE))]
        role: Option<u32>,
        #[command(flatten)]
        options: GroupOptions,
    },
    /// Remove a group that no device uses; its devices are left as they are
    Del {
        /// The group
        #[arg(value_parser = name)]
        group: Name,
    },
    /// Change options while the group runs
    Set {
        /// The group
        #[arg(value_parser = name)]
        group: Name,
        #[command(flatten)]
        options: GroupOptions,
    },
}

#[derive(Debug, Default, Args)]
pub struct GroupOptions {
    /// File with the secret that all hosts of the group share (16 to 256 bytes, see "dmrepl secret")
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// What happens to writes when the SRL fails [default: fail]
    #[arg(long, value_name = "POLICY", value_parser = names_of(uapi::SRL_POLICY))]
    pub srl_policy: Option<u32>,
    /// Memory for records [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub pool: Option<u64>,
    /// Longest time that a record waits for a flush of the log [default: 20ms]
    #[arg(long, value_name = "TIME", value_parser = parse_millis)]
    pub commit_interval: Option<u32>,
    /// Most bytes that wait for a flush of the log [default: 4M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub commit_bytes: Option<u64>,
    /// How long a starting primary waits for its links to answer [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_millis)]
    pub start_wait: Option<u32>,
    /// Most bytes under way to a peer [default: 16M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub window: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub enum Link {
    /// Add a link and connect it; the same link name on both hosts
    Add {
        #[command(flatten)]
        link: LinkName,
        /// Address of this host: the secondary listens on it
        #[arg(long, value_name = "ADDR[:PORT]", value_parser = address)]
        local: SocketAddr,
        /// Address of the other host: the primary connects to it
        #[arg(long, value_name = "ADDR[:PORT]", value_parser = address)]
        peer: SocketAddr,
        #[command(flatten)]
        options: LinkOptions,
    },
    /// Disconnect and remove a link; its position in the log is forgotten
    Del(LinkName),
    /// Change options while the link runs
    Set {
        #[command(flatten)]
        link: LinkName,
        #[command(flatten)]
        options: LinkOptions,
    },
    /// Let a link connect, or try again at once
    Connect(LinkName),
    /// Close a link's connections and keep them closed
    Disconnect(LinkName),
}

#[derive(Debug, Args)]
pub struct LinkName {
    /// The group
    #[arg(value_parser = name)]
    pub group: Name,
    /// The link
    #[arg(value_parser = name)]
    pub link: Name,
}

#[derive(Debug, Default, Args)]
pub struct LinkOptions {
    /// When a write completes: async (in the local log), received (also in the peer's memory; "sync" means
    /// this), logged (also on the peer's stable storage), applied (also in the peer's volumes) [default: async]
    #[arg(long, value_parser = mode)]
    pub mode: Option<u32>,
    /// What a sync link does to writes while it is disconnected [default: async]
    #[arg(long, value_name = "POLICY", value_parser = names_of(uapi::ON_DISCONNECT))]
    pub on_disconnect: Option<u32>,
    /// What happens when the log cannot hold what an absent peer needs [default: needs-sync]
    #[arg(long, value_name = "POLICY", value_parser = names_of(uapi::ON_LOG_FULL))]
    pub on_log_full: Option<u32>,
    /// How often an idle link shows that it is alive [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_millis)]
    pub heartbeat: Option<u32>,
    /// After how much silence the peer is taken for lost [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_millis)]
    pub peer_timeout: Option<u32>,
    /// After how long a peer that answers, owes acknowledgements and sends none is given up for now; 0s is never
    /// [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_millis)]
    pub progress_timeout: Option<u32>,
    /// Most bytes under way to this peer [default: the group's]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub window: Option<u64>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("kind").required(true))]
pub struct Sync {
    #[command(flatten)]
    pub link: LinkName,
    /// Copy everything
    #[arg(long, group = "kind")]
    pub full: bool,
    /// Copy nothing: both sides are known to be equal
    #[arg(long, group = "kind")]
    pub assume_clean: bool,
    /// Copy the regions that differ or may differ
    #[arg(long, group = "kind")]
    pub update: bool,
    /// Copy from the peer to this host
    #[arg(long, group = "kind")]
    pub reverse: bool,
    /// Stop a running synchronisation; the peer stays inconsistent
    #[arg(long, group = "kind")]
    pub stop: bool,
    /// Even if data of one side is discarded that the other side does not have
    #[arg(long)]
    pub force: bool,
}

impl Sync {
    /// Returns the kind that was asked for, by the name that the kernel knows.
    pub fn kind(&self) -> &'static str {
        match self {
            Sync {
                assume_clean: true, ..
            } => "assume-clean",
            Sync { update: true, .. } => "update",
            Sync { reverse: true, .. } => "reverse",
            Sync { stop: true, .. } => "stop",
            _ => "full",
        }
    }
}

/// Returns a name of a group or link, as the formats on disk and wire allow it.
fn name(text: &str) -> Result<Name, String> {
    Name::new(text.as_bytes()).ok_or_else(|| {
        format!(
            "invalid name '{text}': 1 to {} characters of A-Z a-z 0-9 . _ + : @ - expected",
            uapi::NAME_MAX
        )
    })
}

/// An address with or without a port. Host names are not looked up: a link must not depend on DNS.
fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    text.parse()
        .or_else(|_| bare.parse().map(|ip| SocketAddr::new(ip, DEFAULT_PORT)))
        .map_err(|_| format!("invalid address '{text}': an IP address and port expected, as 10.0.0.1:{DEFAULT_PORT} or [fd00::1]:{DEFAULT_PORT}"))
}

/// Accepts the names of one of the kernel's enums and yields the number.
fn names_of(table: &'static [&'static str]) -> impl TypedValueParser<Value = u32> {
    PossibleValuesParser::new(table)
        .try_map(move |name| uapi::value_of(table, &name).ok_or("unknown"))
}

fn mode(text: &str) -> Result<u32, String> {
    let name = if text == "sync" { "received" } else { text };
    uapi::value_of(uapi::MODE, name).ok_or_else(|| {
        format!(
            "invalid mode '{text}': {} or sync (received) expected",
            uapi::MODE.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("dmrepl").chain(line.split_whitespace()))
            .map(|c| c.command)
    }

    fn refused(line: &str) -> String {
        parse(line).expect_err(line).to_string()
    }

    #[test]
    fn clap_finds_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_grammar_of_the_design() {
        for line in [
            "srl format /dev/vdc",
            "srl format /dev/vdc --no-ring --force",
            "srl dump /dev/vdc --all --json",
            "srl check /dev/vdc",
            "group add db --srl /dev/vdc --role primary --secret-file /etc/dm-replicate/db.key",
            "group add db --srl /dev/vdc",
            "group set db --pool 128M --commit-interval 5ms",
            "group del db",
            "link add db dr --local 10.0.0.1:7790 --peer 10.0.0.2:7790 --mode async",
            "link set db dr --mode applied --peer-timeout 10s",
            "link set db dr --progress-timeout 0s",
            "link del db dr",
            "link connect db dr",
            "link disconnect db dr",
            "sync db dr --full",
            "sync db dr --assume-clean",
            "sync db dr --update",
            "sync db dr --reverse --force",
            "status",
            "status --json",
            "status db",
            "takeover db",
            "takeover db --force",
            "events",
            "events --json",
            "secret",
            "version",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", refused(line));
        }
    }

    #[test]
    fn values_arrive() {
        let Ok(Command::Link(Link::Add { link, local, peer, options })) =
            parse("link add db dr --local 10.0.0.1 --peer [fd00::2]:77 --mode sync --window 32M --heartbeat 2s")
        else {
            panic!("not a link add");
        };
        assert_eq!((link.group.as_str(), link.link.as_str()), ("db", "dr"));
        assert_eq!(
            (local.to_string(), peer.to_string()),
            ("10.0.0.1:7790".into(), "[fd00::2]:77".into())
        );
        assert_eq!(options.mode, uapi::value_of(uapi::MODE, "received"));
        assert_eq!(
            (options.window, options.heartbeat, options.peer_timeout),
            (Some(32 << 20), Some(2000), None)
        );

        let Ok(Command::Group(Group::Add { role, .. })) =
            parse("group add db --srl x --role secondary")
        else {
            panic!("not a group add");
        };
        assert_eq!(role, uapi::value_of(uapi::ROLE, "secondary"));
    }

    #[test]
    fn exactly_one_kind_of_sync() {
        assert!(refused("sync db dr").contains("--full"));
        assert!(refused("sync db dr --full --update").contains("cannot be used with"));
        for (flag, kind) in [
            ("--full", "full"),
            ("--assume-clean", "assume-clean"),
            ("--stop", "stop"),
        ] {
            let Ok(Command::Sync(sync)) = parse(&format!("sync db dr {flag}")) else {
                panic!("not a sync");
            };
            assert_eq!(sync.kind(), kind);
            assert!(uapi::value_of(uapi::SYNC_KIND, kind).is_some());
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(refused("group add d/b --srl x").contains("invalid name 'd/b'"));
        assert!(refused(&format!("group del {}", "x".repeat(64))).contains("1 to 63"));
        assert!(refused("link add db dr --local node1:7790 --peer 10.0.0.2")
            .contains("invalid address 'node1:7790'"));
        assert!(refused("link set db dr --mode semi").contains("invalid mode 'semi'"));
        assert!(refused("group add db --srl x --role master").contains("primary, secondary"));
        assert!(refused("group set db --pool lots").contains("invalid size 'lots'"));
        assert!(refused("group add db").contains("--srl"));
        assert!(refused("frobnicate").contains("frobnicate"));
    }

    #[test]
    fn the_longest_names_fit_into_the_netlink_policy() {
        let longest = "x".repeat(uapi::NAME_MAX);
        assert!(name(&longest).is_ok());
        assert!(name(&format!("{longest}x")).is_err());
    }
}
