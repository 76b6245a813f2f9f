// SPDX-License-Identifier: GPL-2.0

//! The command line: `stamp write`, `stamp check`, `stamp shapes`.
//!
//! Exit status: 0 as promised, 1 a violation, 2 bad usage or input, 3 the device answered with errors.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand, ValueEnum};
use seeded::Rng;

use stamp::check::{self, Input};
use stamp::coverage::Image;
use stamp::io::Device;
use stamp::prefix::{Options, Require};
use stamp::replay::Base;
use stamp::shapes;
use stamp::sink::Sink;
use stamp::workload::{self, Plan};

/// Stamped writes to block devices, and the oracle that checks what a replica holds.
#[derive(Parser)]
#[command(name = "stamp")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write stamps, with readers beside the writers on demand
    Write(WriteArgs),
    /// Checker images of the volumes
    Check(CheckArgs),
    /// Exercise every shape of request on a device (its contents are lost)
    Shapes {
        #[arg(long)]
        dev: String,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Through the page cache (for files that cannot do direct I/O)
        #[arg(long)]
        buffered: bool,
    },
}

#[derive(Args)]
struct WriteArgs {
    /// A device; its index is its place in the list
    #[arg(long = "dev", required = true, value_name = "PATH")]
    devices: Vec<String>,
    #[arg(long, default_value_t = 1)]
    writers: u32,
    /// Requests in flight per writer
    #[arg(long, default_value_t = 1)]
    depth: u32,
    /// Readers that check what they read while the writers run
    #[arg(long, default_value_t = 0)]
    readers: u32,
    /// Sizes in bytes with weights, `unaligned` for 1..256 sectors at any sector
    #[arg(long, default_value = "512,4096x4,65536,unaligned", value_name = "MIX")]
    blocks: String,
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Writes of all writers together
    #[arg(long, value_name = "C")]
    count: Option<u64>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run id in hex (default: from seed and clock)
    #[arg(long, value_name = "HEX")]
    run: Option<String>,
    /// Where the journal goes: a file, a port, or - for stdout
    #[arg(long, value_name = "FILE")]
    ack_file: Option<String>,
    /// A writer goes on only when its completion has been handed to the ack file
    #[arg(long)]
    sync_ack: bool,
    /// Flush after every K writes of a writer (0: never)
    #[arg(long, default_value_t = 0, value_name = "K")]
    fsync_every: u64,
    #[arg(long, default_value_t = 0, value_name = "P")]
    fua_percent: u64,
    #[arg(long, default_value_t = 0, value_name = "P")]
    discard_percent: u64,
    #[arg(long, default_value_t = 0, value_name = "P")]
    zero_percent: u64,
    /// In sectors, on every device
    #[arg(long, value_name = "START:LEN")]
    region: Option<String>,
    /// All writers write all of the region, overlapping
    #[arg(long)]
    shared: bool,
    /// Read and check all of the region at the end
    #[arg(long)]
    verify_at_end: bool,
    /// Go on after I/O errors
    #[arg(long)]
    keep_going: bool,
    /// Pause of a writer after each write
    #[arg(long, value_name = "US")]
    pause_us: Option<u64>,
    /// Through the page cache (for files that cannot do direct I/O)
    #[arg(long)]
    buffered: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum RequireArg {
    None,
    Durable,
    Acked,
    AckedAll,
}

#[derive(Args)]
struct CheckArgs {
    /// Images by device index; a volume's name when it is not the order's ascending one
    #[arg(required = true, value_name = "[VOLUME=]IMAGE")]
    images: Vec<String>,
    /// The volumes before the order's first record: zero, unknown or a file; once, or per image
    #[arg(long, value_name = "zero|unknown|FILE")]
    base: Vec<String>,
    /// A journal that `stamp write --ack-file` wrote; several in the order of their runs
    #[arg(long, visible_alias = "acked", value_name = "FILE")]
    journal: Vec<String>,
    /// The order of record: `dmrepl srl dump --all --json`; several are merged
    #[arg(long, value_name = "FILE")]
    order: Vec<String>,
    /// The SRL image of each --order: the contents of records that no journal knows
    #[arg(long, value_name = "FILE")]
    srl: Vec<String>,
    /// With --order: the replica has no ring, it need only be closed under depends_on
    #[arg(long)]
    closed: bool,
    /// Which acknowledged writes must be there (sync: acked; a recovered primary: durable)
    #[arg(long, value_enum, default_value = "none")]
    require: RequireArg,
    /// Do not require what had completed before a visible write (a plain disk after a power cut)
    #[arg(long)]
    no_prefix: bool,
    /// No write is torn within an aligned piece of so many bytes
    #[arg(long, value_name = "BYTES")]
    atomic: Option<u64>,
    /// Leave the check by stamps out (other workloads than `stamp write`)
    #[arg(long)]
    no_stamps: bool,
    /// Records of unknown content may have left anything
    #[arg(long)]
    allow_unresolved: bool,
    /// Violations to describe
    #[arg(long, default_value_t = 10, value_name = "N")]
    show: usize,
    /// One line of JSON instead of text
    #[arg(long)]
    json: bool,
}

struct FileImage {
    file: File,
    size: u64,
}

impl FileImage {
    fn open(path: &str) -> Result<Self, String> {
        let named = |e: io::Error| format!("{path}: {e}");
        let file = File::open(path).map_err(named)?;
        let size =
            rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).map_err(|e| named(e.into()))?;
        Ok(Self {
            file,
            size: size / 512 * 512,
        })
    }
}

impl Image for FileImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, at)
    }
}

fn text(path: &String) -> Result<String, String> {
    std::fs::read(path)
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .map_err(|e| format!("{path}: {e}"))
}

fn region(text: &str) -> Result<(u64, u64), String> {
    text.split_once(':')
        .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        .ok_or_else(|| format!("`{text}` is not START:LEN"))
}

fn write(a: &WriteArgs) -> Result<u8, String> {
    if a.seconds.is_none() && a.count.is_none() {
        return Err("give --seconds or --count".into());
    }
    if a.writers == 0 || a.depth == 0 || a.discard_percent + a.zero_percent > 100 {
        return Err("--writers and --depth must not be 0, percentages must not exceed 100".into());
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64);
    let plan = Plan {
        run: match &a.run {
            Some(hex) => u64::from_str_radix(hex, 16)
                .map_err(|_| format!("--run: `{hex}` is not a hexadecimal number"))?,
            None => Rng::new(a.seed ^ now).next_u64(),
        },
        seed: a.seed,
        writers: a.writers,
        depth: a.depth,
        readers: a.readers,
        shared: a.shared,
        sizes: workload::parse_sizes(&a.blocks)?,
        seconds: a.seconds,
        count: a.count,
        fsync_every: a.fsync_every,
        fua_percent: a.fua_percent,
        discard_percent: a.discard_percent,
        zero_percent: a.zero_percent,
        region: a.region.as_deref().map(region).transpose()?,
        sync_ack: a.sync_ack,
        keep_going: a.keep_going,
        verify_at_end: a.verify_at_end,
        interval: a.pause_us.map(Duration::from_micros),
    };
    let devices: Vec<Device> = a
        .devices
        .iter()
        .map(|d| Device::open(d, !a.buffered))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let sink = Sink::open(a.ack_file.as_deref()).map_err(|e| format!("--ack-file: {e}"))?;
    let begun = Instant::now();
    let t = workload::run(&plan, &devices, &sink)?;
    let closed = sink.close().map_err(|e| format!("--ack-file: {e}"));
    let n = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
    let line = format!(
        "{{\"run\":\"{:x}\",\"seed\":{},\"seconds\":{:.3},\"writes\":{},\"bytes\":{},\"syncs\":{},\
         \"discards\":{},\"zeroes\":{},\"reads\":{},\"errors\":{},\"violations\":{}}}",
        plan.run,
        plan.seed,
        begun.elapsed().as_secs_f64(),
        n(&t.writes),
        n(&t.bytes),
        n(&t.syncs),
        n(&t.discards),
        n(&t.zeroes),
        n(&t.reads),
        n(&t.errors),
        n(&t.violations)
    );
    if a.ack_file.as_deref() == Some("-") {
        eprintln!("{line}");
    } else {
        println!("{line}");
    }
    closed?;
    Ok(match (n(&t.violations), n(&t.errors)) {
        (0, 0) => 0,
        (0, _) => 3,
        _ => 1,
    })
}

fn run_check(a: &CheckArgs) -> Result<u8, String> {
    let open = |p: &str| -> Result<Box<dyn Image>, String> { Ok(Box::new(FileImage::open(p)?)) };
    let mut images = Vec::new();
    for spec in &a.images {
        images.push(match spec.split_once('=') {
            Some((name, path)) => (Some(name.to_owned()), open(path)?),
            None => (None, open(spec)?),
        });
    }
    let mut files = Vec::new();
    for b in &a.base {
        files.push(match b.as_str() {
            "zero" | "unknown" => None,
            path => Some(open(path)?),
        });
    }
    if a.base.len() > 1 && a.base.len() != images.len() {
        return Err("--base: give it once, or once for every image".into());
    }
    let bases = (0..images.len())
        .map(|d| {
            let i = if a.base.len() > 1 { d } else { 0 };
            match (a.base.get(i).map(String::as_str), files.get(i)) {
                (Some("unknown"), _) => Base::Unknown,
                (_, Some(Some(f))) => Base::Image(f.as_ref()),
                _ => Base::Zero,
            }
        })
        .collect();
    let input = Input {
        images,
        bases,
        journals: a.journal.iter().map(text).collect::<Result<_, _>>()?,
        orders: a.order.iter().map(text).collect::<Result<_, _>>()?,
        srls: a.srl.iter().map(|p| open(p)).collect::<Result<_, _>>()?,
        closed: a.closed,
        stamps: !a.no_stamps,
        allow_unresolved: a.allow_unresolved,
        options: Options {
            require: match a.require {
                RequireArg::None => Require::None,
                RequireArg::Durable => Require::Durable,
                RequireArg::Acked => Require::Acked,
                RequireArg::AckedAll => Require::AckedAll,
            },
            prefix: !a.no_prefix,
            atomic: a.atomic.map(|b| (b / 512).max(1)),
            show: a.show,
        },
    };
    let outcome = check::check(&input)?;
    if a.json {
        println!("{}", outcome.json());
    } else {
        print!("{}", outcome.text);
        println!(
            "stamp check: {}",
            match outcome.violations {
                0 => "PASS".to_owned(),
                n => format!("FAIL ({n} violations)"),
            }
        );
    }
    Ok(u8::from(outcome.violations > 0))
}

fn run_shapes(dev: &str, seed: u64, buffered: bool) -> Result<u8, String> {
    let device = Device::open(dev, !buffered).map_err(|e| e.to_string())?;
    match shapes::run(&device, seed) {
        Ok(t) => {
            println!(
                "stamp shapes: PASS {} writes, {} write-zeroes, {} discards",
                t.writes, t.zeroes, t.discards
            );
            Ok(0)
        }
        Err(e) => {
            println!("stamp shapes: FAIL {e}");
            Ok(1)
        }
    }
}

fn main() -> ExitCode {
    let result = match &Cli::parse().command {
        Command::Write(a) => write(a),
        Command::Check(a) => run_check(a),
        Command::Shapes {
            dev,
            seed,
            buffered,
        } => run_shapes(dev, *seed, *buffered),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("stamp: {e}");
            ExitCode::from(2)
        }
    }
}
