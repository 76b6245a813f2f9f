// SPDX-License-Identifier: GPL-2.0

//! dmrepl: the userspace tool of dm-replicate.
//!
//! Says to the kernel module over generic netlink what it shall do, shows what it does, and formats
//! and reads SRL devices with the same code for the log format as the module's.

mod cli;
mod control;
mod error;
mod event;
mod netlink;
mod render;
mod secret;
mod size;
mod srl;
mod status;
mod uapi;
mod version;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use error::{Error, Exit, Result};
use netlink::Connection;
use replicate_core::group::Name;

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: &Command) -> Result {
    match command {
        Command::Group(command) => control::group(command),
        Command::Link(command) => control::link(command),
        Command::Sync(command) => control::sync(command),
        Command::Takeover { group, force } => control::takeover(group, *force),
        Command::Status { group, json } => show_status(group.as_ref(), *json),
        Command::Events { json } => event::run(*json),
        Command::Secret => print(&secret::generate()?),
        Command::Version => print(&version::text()),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "dmrepl", &mut script);
            io::stdout().write_all(&script).map_err(output_failed)
        }
        Command::Srl(command) => srl::run(command),
    }
}

fn show_status(group: Option<&Name>, json: bool) -> Result {
    let messages = Connection::open()?.dump("cannot read the status", uapi::cmd::GROUP_GET)?;
    let mut groups = status::groups(&messages);
    if let Some(wanted) = group {
        groups.retain(|g| g.name == wanted.as_str());
        if groups.is_empty() {
            return Err(
                Error::new(format!("there is no group {wanted} on this host"))
                    .hint("dmrepl status lists the groups.")
                    .exit(Exit::NotFound),
            );
        }
    }
    if json {
        let status = status::Status { version: 1, groups };
        let text = serde_json::to_string_pretty(&status)
            .map_err(|e| Error::new(format!("cannot print the status: {e}")))?;
        return print(&text);
    }
    let world = render::World {
        now_ns: size::now_ns(),
        device_name: &render::device_name,
    };
    print(&render::status(&groups, &world))
}

/// Prints a text and a newline.
fn print(text: &str) -> Result {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(output_failed)
}

/// Returns an error of stdout. A reader that has gone away has seen enough: no words then.
fn output_failed(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    Error::io("cannot write the output", &error)
}
