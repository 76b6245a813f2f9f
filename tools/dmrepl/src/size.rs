// SPDX-License-Identifier: GPL-2.0

//! Sizes and times: as they are given on the command line, and as they are shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Parses a size. As in the device-mapper tools a unit is a power of 1024, whether written K, KB or KiB.
pub fn parse_size(text: &str) -> Result<u64, String> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .map_err(|e| format!("invalid size '{text}': {e}"))
}

/// Parses a time into milliseconds; it must have a unit.
pub fn parse_millis(text: &str) -> Result<u32, String> {
    let time =
        humantime::parse_duration(text).map_err(|e| format!("invalid time '{text}': {e}"))?;
    u32::try_from(time.as_millis()).map_err(|_| format!("invalid time '{text}': too long"))
}

/// Returns a size with one decimal at most, in powers of 1024.
pub fn human_size(bytes: u64) -> String {
    let format = humansize::BINARY.decimal_places(1);
    humansize::format_size(bytes, format)
}

/// Returns a duration; of one that is longer than 10 s the seconds, not their fraction.
pub fn human_millis(ms: u64) -> String {
    let shown = if ms < 10_000 { ms } else { ms - ms % 1000 };
    humantime::format_duration(Duration::from_millis(shown)).to_string()
}

/// Returns a time of the kernel's wall clock in UTC by RFC 3339, to the millisecond.
pub fn rfc3339(ns: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(ns);
    humantime::format_rfc3339_millis(time).to_string()
}

/// Returns the time in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("1T", 1 << 40), ("3g", 3 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["64M", "64MB", "64 MiB"] {
            assert_eq!(parse_size(text), Ok(64 << 20));
        }
        for wrong in ["", "M", "-1", "0x10", "5q", "99999999999T"] {
            let error = parse_size(wrong).unwrap_err();
            assert!(
                error.starts_with(&format!("invalid size '{wrong}'")),
                "{error}"
            );
        }
        assert_eq!(human_size(0), "0 B");
        assert_eq!(human_size(1536), "1.5 KiB");
        assert_eq!(human_size(1 << 30), "1 GiB");
    }

    #[test]
    fn times() {
        assert_eq!(parse_millis("20ms"), Ok(20));
        assert_eq!(parse_millis("5s"), Ok(5000));
        assert_eq!(parse_millis("2m"), Ok(120_000));
        // A bare number would be milliseconds to one reader and seconds to the next.
        for wrong in ["5", "s", "99999999m"] {
            assert!(parse_millis(wrong).is_err(), "{wrong}");
        }
        assert_eq!(human_millis(1250), "1s 250ms");
        assert_eq!(human_millis(600_999), "10m");
        assert_eq!(
            rfc3339(1_795_171_387_005_000_000),
            "2026-11-20T10:43:07.005Z"
        );
    }
}
