// SPDX-License-Identifier: GPL-2.0

//! The command line of the server: opens the disks, listens, prints `volatile-nbd: ready`, and serves
//! until `quit` (or a signal, which loses the caches).

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use volatile_nbd::control::{self, sectors};
use volatile_nbd::disk::{Config, Disk, Kind, Trim};
use volatile_nbd::server::Server;

#[derive(Clone, Copy, ValueEnum)]
enum TrimArg {
    Zero,
    Keep,
    Garbage,
}

/// NBD server with a volatile write cache, seeded power cuts and fault injection.
#[derive(Parser)]
#[command(name = "volatile-nbd", after_help = control::HELP)]
struct Args {
    /// A disk: NAME=IMAGE[,size=BYTES[K|M|G]][,socket=PATH][,block=512|4096][,write-through][,ro]
    #[arg(long = "disk", required = true, value_name = "SPEC")]
    disks: Vec<String>,
    /// A socket for all disks, chosen by export name
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The control socket
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Take control commands from standard input too (its end is not the end of the server)
    #[arg(long)]
    stdin: bool,
    /// No cache on any disk: every write is durable when answered, no flush or FUA is advertised
    #[arg(long)]
    write_through: bool,
    /// MiB of unflushed versions a disk may hold before it writes the oldest back
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    cache_max: u64,
    /// What trimmed blocks read as
    #[arg(long, value_enum, default_value = "zero")]
    trim: TrimArg,
    /// Every reply is late by this many milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS")]
    delay: u64,
    /// All writes fail after this many
    #[arg(long, value_name = "N")]
    error_after: Option<u64>,
    /// Writes to these 512-byte sectors fail
    #[arg(long, value_name = "START:LEN")]
    fail_sectors: Option<String>,
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| format!("`{text}` is not a size"))
}

struct Spec {
    config: Config,
    socket: Option<PathBuf>,
}

fn spec(args: &Args, text: &str) -> Result<Spec, String> {
    let mut parts = text.split(',');
    let (name, path) = parts
        .next()
        .and_then(|p| p.split_once('='))
        .ok_or_else(|| format!("--disk {text}: expected NAME=IMAGE"))?;
    let mut spec = Spec {
        config: Config {
            name: name.into(),
            path: path.into(),
            size: None,
            unit: 512,
            write_through: args.write_through,
            read_only: false,
            cache_max: args.cache_max << 20,
            trim: match args.trim {
                TrimArg::Zero => Trim::Zero,
                TrimArg::Keep => Trim::Keep,
                TrimArg::Garbage => Trim::Garbage,
            },
        },
        socket: None,
    };
    for part in parts {
        match part.split_once('=') {
            Some(("size", v)) => spec.config.size = Some(size(v)?),
            Some(("socket", v)) => spec.socket = Some(v.into()),
            Some(("block", "512")) => spec.config.unit = 512,
            Some(("block", "4096")) => spec.config.unit = 4096,
            None if part == "write-through" => spec.config.write_through = true,
            None if part == "ro" => spec.config.read_only = true,
            _ => return Err(format!("--disk {text}: unknown part `{part}`")),
        }
    }
    Ok(spec)
}

fn run(args: &Args) -> Result<(), String> {
    let specs: Vec<Spec> = args
        .disks
        .iter()
        .map(|d| spec(args, d))
        .collect::<Result<_, _>>()?;
    let mut disks: Vec<Arc<Disk>> = Vec::new();
    for s in &specs {
        if disks.iter().any(|d| d.config.name == s.config.name) {
            return Err(format!("two disks are named `{}`", s.config.name));
        }
        let disk = Disk::open(s.config.clone())
            .map_err(|e| format!("{}: {e}", s.config.path.display()))?;
        disk.set_delay(Duration::from_millis(args.delay));
        disk.error_after(args.error_after);
        if let Some(range) = &args.fail_sectors {
            disk.fail(Kind::Write, true, Some(sectors(range)?));
        }
        disks.push(Arc::new(disk));
    }
    if args.socket.is_none() && specs.iter().any(|s| s.socket.is_none()) {
        return Err("a disk has no socket: give --socket PATH or socket=PATH in its --disk".into());
    }
    let server = Arc::new(Server::new(disks));
    if let Some(path) = &args.socket {
        server
            .listen(path, None)
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    for (i, s) in specs.iter().enumerate() {
        if let Some(path) = &s.socket {
            server
                .listen(path, Some(i))
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    let (tx, rx) = channel::<()>();
    if let Some(path) = &args.control {
        let tx = tx.clone();
        control::listen(&server, path, move || {
            let _ = tx.send(());
        })
        .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    println!("volatile-nbd: ready");
    if args.stdin {
        let (server, tx) = (server.clone(), tx.clone());
        std::thread::spawn(move || {
            let input = std::io::stdin().lock();
            if let Ok(true) = control::converse(&server, input, std::io::stdout()) {
                let _ = tx.send(());
            }
        });
    }
    rx.recv().map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("volatile-nbd: {e}");
            ExitCode::FAILURE
        }
    }
}
