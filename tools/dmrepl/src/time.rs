// SPDX-License-Identifier: GPL-2.0

//! Wall-clock times as the kernel gives them, for people.

use std::time::{SystemTime, UNIX_EPOCH};

const NS: u64 = 1_000_000_000;

/// UTC in RFC 3339, to the millisecond.
pub fn rfc3339(ns: u64) -> String {
    let secs = ns / NS;
    let (days, in_day) = (secs / 86_400, secs % 86_400);
    // Days since 1970 to a date, by the era of 400 years that begins on 1 March.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        in_day / 3600,
        in_day / 60 % 60,
        in_day % 60,
        ns % NS / 1_000_000
    )
}

/// Now, in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| u64::try_from(d.as_nanos()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400 * NS), "2000-02-29T00:00:00.000Z");
        assert_eq!(
            rfc3339(1_704_067_199 * NS + 999_999_999),
            "2023-12-31T23:59:59.999Z"
        );
        assert_eq!(
            rfc3339(1_795_171_387 * NS + 5_000_000),
            "2026-11-20T10:43:07.005Z"
        );
    }
}
