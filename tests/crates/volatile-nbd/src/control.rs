// SPDX-License-Identifier: GPL-2.0

//! The control lines, from a unix socket or standard input: one command a line, one answer a line
//! (`ok ...` or `error ...`). A disk list at the end of a command restricts it; without one it means
//! all disks, at one instant.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::ops::Range;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::disk::{self, CutReport, Disk, Kind};
use crate::server::Server;

/// The commands, for `--help`.
pub const HELP: &str = "\
Control commands (one a line on the control socket or, with --stdin, on standard input):
  cut SEED [DISK...]               power cut: a seeded subset of the unflushed blocks survives
  lose SEED [DISK...]              caches lose what a cut would take, and the clients stay
  reset [DISK...]                  drop connections; caches survive and stay volatile
  crash-image SEED DIR [DISK...]   write what a cut now would leave to DIR/DISK.img and go on
  snapshot DISK FILE               copy what a reader sees now
  quiet [DISK...]                  wait until all that stopped clients have sent is carried out
  sync [DISK...]                   write the caches out
  fail read|write|flush on|off [START:LEN] [DISK...]   EIO; the range is in 512-byte sectors
  error-after N|off [DISK...]      all writes fail after N more
  delay MS [DISK...]               every reply is late by MS milliseconds
  hang on|off [DISK...]            requests wait unanswered
  stats                            counters as JSON
  quit                             write the caches out and end
Stop the guest (or kill it) before `cut`: a guest that goes on running sees I/O errors, which no power
cut shows. Commands that look at a disk or cut it first wait for what a killed client left in its sockets;
after stopping a guest say `quiet`, or two looks at its disks may differ.";

/// What to do after a line.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Line(String),
    Quit(String),
}

/// Carries one line out.
pub fn run(server: &Server, line: &str) -> Answer {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words == ["quit"] {
        server.settle(&server.disks);
        for d in &server.disks {
            if let Err(e) = d.sync() {
                return Answer::Line(format!("error quit: {}: {e}", d.config.name));
            }
        }
        return Answer::Quit("ok quit".into());
    }
    Answer::Line(match command(server, &words) {
        Ok(text) => format!("ok {text}"),
        Err(text) => format!("error {text}"),
    })
}

fn command(server: &Server, words: &[&str]) -> Result<String, String> {
    let fail = |what: &str, e: io::Error| format!("{what}: {e}");
    match words {
        ["cut", seed, names @ ..] => {
            let (seed, disks) = (number(seed)?, select(server, names)?);
            server.settle(&disks);
            let reports = disk::cut_all(&disks, seed).map_err(|e| fail("cut", e))?;
            server.drop_connections(&disks);
            Ok(format!("cut seed={seed}{}", list(&reports)))
        }
        ["lose", seed, names @ ..] => {
            let (seed, disks) = (number(seed)?, select(server, names)?);
            let reports = disk::lose_caches(&disks, seed).map_err(|e| fail("lose", e))?;
            Ok(format!("lose seed={seed}{}", list(&reports)))
        }
        ["crash-image", seed, dir, names @ ..] => {
            let (seed, disks) = (number(seed)?, select(server, names)?);
            server.settle(&disks);
            let reports = disk::crash_images(&disks, seed, Path::new(dir))
                .map_err(|e| fail("crash-image", e))?;
            Ok(format!("crash-image seed={seed}{}", list(&reports)))
        }
        ["reset", names @ ..] => {
            let disks = select(server, names)?;
            server.settle(&disks);
            for d in &disks {
                d.reset();
            }
            server.drop_connections(&disks);
            Ok("reset".into())
        }
        ["snapshot", name, file] => {
            let disks = select(server, &[name])?;
            server.settle(&disks);
            for d in disks {
                d.snapshot(Path::new(file)).map_err(|e| fail(file, e))?;
            }
            Ok(format!("snapshot {name} {file}"))
        }
        ["quiet", names @ ..] => {
            if server.quiet(&select(server, names)?) {
                Ok("quiet".into())
            } else {
                Err("quiet: clients go on sending: stop them first".into())
            }
        }
        ["sync", names @ ..] => {
            let disks = select(server, names)?;
            server.settle(&disks);
            for d in disks {
                d.sync().map_err(|e| fail(&d.config.name, e))?;
            }
            Ok("sync".into())
        }
        ["fail", kind, state, rest @ ..] => {
            let kind = match *kind {
                "read" => Kind::Read,
                "write" => Kind::Write,
                "flush" => Kind::Flush,
                other => return Err(format!("fail: `{other}` is not read, write or flush")),
            };
            let on = on_off(state)?;
            let (range, names) = match rest {
                [first, names @ ..] if first.contains(':') => (Some(sectors(first)?), names),
                names => (None, names),
            };
            for d in select(server, names)? {
                d.fail(kind, on, range.clone());
            }
            Ok(words.join(" "))
        }
        ["error-after", count, names @ ..] => {
            let count = match *count {
                "off" => None,
                n => Some(number(n)?),
            };
            for d in select(server, names)? {
                d.error_after(count);
            }
            Ok(words.join(" "))
        }
        ["delay", ms, names @ ..] => {
            let ms = number(ms)?;
            for d in select(server, names)? {
                d.set_delay(Duration::from_millis(ms));
            }
            Ok(words.join(" "))
        }
        ["hang", state, names @ ..] => {
            let on = on_off(state)?;
            for d in select(server, names)? {
                d.hang(on);
            }
            Ok(words.join(" "))
        }
        ["stats"] => Ok(stats(&server.disks)),
        [] => Err("empty command".into()),
        _ => Err(format!(
            "unknown command or wrong arguments: `{}`",
            words.join(" ")
        )),
    }
}

fn select(server: &Server, names: &[&str]) -> Result<Vec<Arc<Disk>>, String> {
    if names.is_empty() {
        return Ok(server.disks.clone());
    }
    // In the server's order, each once: the locks of several disks are taken in that order.
    for n in names {
        if !server.disks.iter().any(|d| d.config.name == *n) {
            return Err(format!("no disk `{n}`"));
        }
    }
    Ok(server
        .disks
        .iter()
        .filter(|d| names.contains(&d.config.name.as_str()))
        .cloned()
        .collect())
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is not a number"))
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}` is not on or off")),
    }
}

/// `START:LEN` in sectors.
pub fn sectors(text: &str) -> Result<Range<u64>, String> {
    let (start, len) = text
        .split_once(':')
        .ok_or_else(|| format!("`{text}` is not START:LEN"))?;
    let (start, len) = (number(start)?, number(len)?);
    Ok(start..start.saturating_add(len))
}

fn list(reports: &[CutReport]) -> String {
    let mut out = String::new();
    for r in reports {
        let _ = write!(
            out,
            " {}:policy={},unflushed={},kept={}",
            r.name, r.policy, r.unflushed, r.kept
        );
    }
    out
}

fn stats(disks: &[Arc<Disk>]) -> String {
    let mut out = String::from("[");
    for (i, d) in disks.iter().enumerate() {
        let (s, unflushed, hang) = d.stats();
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            out,
            "{comma}{{\"disk\":\"{}\",\"reads\":{},\"read_bytes\":{},\"writes\":{},\
             \"write_bytes\":{},\"fua\":{},\"flushes\":{},\"trims\":{},\"zeroes\":{},\
             \"errors\":{},\"cuts\":{},\"resets\":{},\"unflushed\":{unflushed},\"hang\":{hang}}}",
            d.config.name,
            s.reads,
            s.read_bytes,
            s.writes,
            s.write_bytes,
            s.fua,
            s.flushes,
            s.trims,
            s.zeroes,
            s.errors,
            s.cuts,
            s.resets
        );
    }
    out.push(']');
    out
}

/// Serves one stream of lines; true when it said `quit`.
pub fn converse(server: &Server, input: impl BufRead, mut output: impl Write) -> io::Result<bool> {
    for line in input.lines() {
        match run(server, &line?) {
            Answer::Line(text) => writeln!(output, "{text}")?,
            Answer::Quit(text) => {
                writeln!(output, "{text}")?;
                output.flush()?;
                return Ok(true);
            }
        }
        output.flush()?;
    }
    Ok(false)
}

/// Serves the control socket until a client says `quit`, then calls `end`.
pub fn listen(
    server: &Arc<Server>,
    path: &Path,
    end: impl Fn() + Send + Clone + 'static,
) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    let server = server.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let (server, end) = (server.clone(), end.clone());
            thread::spawn(move || {
                if let Ok(true) = converse(&server, io::BufReader::new(&stream), &stream) {
                    end();
                }
            });
        }
    });
    Ok(())
}
