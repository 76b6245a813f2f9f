// SPDX-License-Identifier: GPL-2.0

//! The journal that the writers stream to the host, one event a line:
//!
//! ```text
//! R <run hex> <devices>                                                    a run begins
//! I <issue> <writer> <number> <device> <first> <sectors> <op> <time> <floor>   before submission
//! C <issue> <event>                                                        completed, acknowledged
//! X <issue> <event> <errno>                                                failed: may be there or not
//! ```
//!
//! `op` is w(rite), f(ua), z(ero), d(iscard) or s(ync). Events are numbered in the order in which
//! they happened. A killed guest leaves a torn last line; it is ignored. An issue may be missing at the
//! end although the write reached the disk: its stamps tell the checker of it.

use crate::block::{Op, Stamp};

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Run { run: u64, devices: u16 },
    Issue(Stamp),
    Done { issue: u64, event: u64 },
    Failed { issue: u64, event: u64, errno: i32 },
}

impl Event {
    pub fn line(&self) -> String {
        match self {
            Event::Run { run, devices } => format!("R {run:x} {devices}\n"),
            Event::Issue(s) => format!(
                "I {} {} {} {} {} {} {} {} {}\n",
                s.issue,
                s.writer,
                s.number,
                s.device,
                s.first,
                s.sectors,
                s.op.letter(),
                s.time,
                s.floor
            ),
            Event::Done { issue, event } => format!("C {issue} {event}\n"),
            Event::Failed {
                issue,
                event,
                errno,
            } => format!("X {issue} {event} {errno}\n"),
        }
    }

    /// Reads one line; an issue belongs to `run`.
    pub fn parse(line: &str, run: u64) -> Option<Self> {
        let mut w = line.split(' ');
        let kind = w.next()?;
        let event = match kind {
            "R" => Event::Run {
                run: u64::from_str_radix(w.next()?, 16).ok()?,
                devices: w.next()?.parse().ok()?,
            },
            "I" => {
                let mut n = || w.next()?.parse::<u64>().ok();
                let (issue, writer, number, device) = (n()?, n()?, n()?, n()?);
                let (first, sectors) = (n()?, n()?);
                Event::Issue(Stamp {
                    run,
                    writer: u32::try_from(writer).ok()?,
                    device: u16::try_from(device).ok()?,
                    op: Op::from_letter(w.next().filter(|l| l.len() == 1)?.chars().next()?)?,
                    number,
                    time: w.next()?.parse().ok()?,
                    first,
                    sectors: u32::try_from(sectors).ok()?,
                    issue,
                    floor: w.next()?.parse().ok()?,
                })
            }
            "C" => Event::Done {
                issue: w.next()?.parse().ok()?,
                event: w.next()?.parse().ok()?,
            },
            "X" => Event::Failed {
                issue: w.next()?.parse().ok()?,
                event: w.next()?.parse().ok()?,
                errno: w.next()?.parse().ok()?,
            },
            _ => return None,
        };
        w.next().is_none().then_some(event)
    }
}

/// Reads a whole journal. The last line may be torn (no newline, or cut short).
pub fn parse(text: &str) -> Result<Vec<Event>, String> {
    let mut run = 0;
    let mut events = Vec::new();
    let mut rest = text;
    let mut n = 0;
    while let Some((line, after)) = rest.split_once('\n') {
        n += 1;
        match Event::parse(line, run) {
            Some(e) => {
                if let Event::Run { run: r, .. } = e {
                    run = r;
                }
                events.push(e);
            }
            None if after.is_empty() => break,
            None => return Err(format!("line {n} is not a journal line: `{line}`")),
        }
        rest = after;
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_torn_tail() {
        let stamp = Stamp {
            run: 0xabc,
            writer: 1,
            device: 2,
            op: Op::Discard,
            number: 3,
            time: 4,
            first: 5,
            sectors: 6,
            issue: 7,
            floor: 6,
        };
        let events = vec![
            Event::Run {
                run: 0xabc,
                devices: 2,
            },
            Event::Issue(stamp),
            Event::Done { issue: 7, event: 8 },
            Event::Failed {
                issue: 7,
                event: 9,
                errno: 5,
            },
        ];
        let text: String = events.iter().map(Event::line).collect();
        assert_eq!(parse(&text), Ok(events.clone()));
        for cut in 0..text.len() {
            // Whatever was cut off, what is read is a prefix: an acknowledgement is never made up.
            let got = parse(&text[..cut]).unwrap();
            assert!(events.starts_with(&got), "cut at {cut}");
        }
        assert!(parse("nonsense\nC 1 2\n").is_err());
    }
}
