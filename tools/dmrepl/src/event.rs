// SPDX-License-Identifier: GPL-2.0

//! `dmrepl events`: one line per event, as it happens.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use serde::Serialize;

use crate::{
    error::{warn, Error, Result},
    netlink::{attr::Attrs, Connection},
    size::rfc3339,
    uapi::{self, a_event, name_of},
};

/// One event.
#[derive(Clone, Debug, Default, Serialize)]
struct Event {
    generation: u64,
    time_ns: u64,
    time: String,
    group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<String>,
    code: String,
    severity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

impl Event {
    fn from_attrs(attrs: &Attrs) -> Self {
        let time_ns = attrs.uint(a_event::TIME_NS).unwrap_or(0);
        Event {
            generation: attrs.uint(a_event::GENERATION).unwrap_or(0),
            time_ns,
            time: rfc3339(time_ns),
            group: attrs.string(a_event::GROUP).unwrap_or_default(),
            link: attrs.string(a_event::LINK),
            volume: attrs.string(a_event::VOLUME),
            code: name_of(
                uapi::EVENT_CODE,
                attrs.u32(a_event::CODE).unwrap_or(u32::MAX),
            ),
            severity: name_of(uapi::SEVERITY, attrs.u32(a_event::SEVERITY).unwrap_or(0)),
            reason: attrs.u32(a_event::REASON).map(|r| name_of(uapi::REASON, r)),
            text: attrs.string(a_event::TEXT).unwrap_or_default(),
            seq: attrs.uint(a_event::SEQ),
        }
    }

    fn line(&self) -> String {
        let mut object = self.group.clone();
        for part in [&self.link, &self.volume].into_iter().flatten() {
            object = format!("{object}/{part}");
        }
        let mut line = format!("{} {:<8} {object} {}", self.time, self.severity, self.code);
        if let Some(reason) = self.reason.as_ref().filter(|r| *r != "none") {
            line += &format!(" ({reason})");
        }
        if !self.text.is_empty() {
            line += &format!(": {}", self.text);
        }
        if let Some(seq) = self.seq {
            line += &format!(" [seq {seq}]");
        }
        line
    }
}

/// Notices gaps in each group's generations.
#[derive(Default)]
struct Generations(HashMap<String, u64>);

impl Generations {
    /// Returns how many events of the group were missed before this one.
    fn missed(&mut self, event: &Event) -> u64 {
        match self.0.insert(event.group.clone(), event.generation) {
            // A group that was removed and added again starts again.
            Some(last) if event.generation > last => event.generation - last - 1,
            _ => 0,
        }
    }
}

/// Prints events until the reader goes away.
pub fn run(json: bool) -> Result {
    let mut connection = Connection::open()?;
    connection.subscribe()?;
    let mut generations = Generations::default();
    let mut out = io::stdout().lock();
    loop {
        let Some(events) = connection.next_events()? else {
            warn("events came faster than they were read; some were lost (status shows what is)");
            continue;
        };
        for event in events.iter().map(Event::from_attrs) {
            match generations.missed(&event) {
                0 => {}
                n => warn(format!("{n} events of group {} were missed", event.group)),
            }
            let line = if json {
                serde_json::to_string(&event)
                    .map_err(|e| Error::new(format!("cannot print an event: {e}")))?
            } else {
                event.line()
            };
            writeln!(out, "{line}")
                .and_then(|()| out.flush())
                .map_err(crate::output_failed)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::Builder;

    fn event(generation: u64) -> Event {
        let attrs = Builder::new()
            .uint(a_event::GENERATION, generation)
            .uint(a_event::TIME_NS, 1_795_171_387_005_000_000)
            .string(a_event::GROUP, "db")
            .string(a_event::LINK, "dr")
            .u32(
                a_event::CODE,
                uapi::value_of(uapi::EVENT_CODE, "left-sync").unwrap(),
            )
            .u32(
                a_event::SEVERITY,
                uapi::value_of(uapi::SEVERITY, "warning").unwrap(),
            )
            .u32(
                a_event::REASON,
                uapi::value_of(uapi::REASON, "peer-timeout").unwrap(),
            )
            .string(a_event::TEXT, "no answer for 5 s")
            .uint(a_event::SEQ, 17);
        Event::from_attrs(&Attrs::parse(attrs.as_bytes()))
    }

    #[test]
    fn a_line_says_all() {
        assert_eq!(
            event(3).line(),
            "2026-11-20T10:43:07.005Z warning  db/dr left-sync (peer-timeout): no answer for 5 s [seq 17]"
        );
    }

    #[test]
    fn json() {
        assert_eq!(
            serde_json::to_value(event(3)).unwrap(),
            serde_json::json!({
                "generation": 3, "time_ns": 1_795_171_387_005_000_000u64, "time": "2026-11-20T10:43:07.005Z",
                "group": "db", "link": "dr", "code": "left-sync", "severity": "warning",
                "reason": "peer-timeout", "text": "no answer for 5 s", "seq": 17
            })
        );
    }

    #[test]
    fn gaps_are_noticed() {
        let mut generations = Generations::default();
        let missed: Vec<u64> = [5, 6, 9, 10, 1, 2]
            .into_iter()
            .map(|g| generations.missed(&event(g)))
            .collect();
        assert_eq!(missed, [0, 0, 2, 0, 0, 0]);
    }
}
