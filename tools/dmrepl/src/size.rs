// SPDX-License-Identifier: GPL-2.0

//! Sizes and durations on the command line, and their human form in the status.

/// Parses a size: a number, optionally with K, M, G or T (powers of 1024).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("'{text}' is not a size; give bytes, or a number with K, M, G or T, such as 64M")
    };
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("'{text}' is larger than any device"))
}

/// Parses a duration into milliseconds: a number with ms, s or m.
pub fn parse_millis(text: &str) -> Result<u32, String> {
    let wrong = || format!("'{text}' is not a time; give a number with ms, s or m, such as 500ms");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(factor)
        .and_then(|ms| u32::try_from(ms).ok())
        .ok_or_else(|| format!("'{text}' is longer than this tool can say"))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A size for people: three digits at most, powers of 1024.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = UNITS[0];
    for next in UNITS.into_iter().skip(1) {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" || value >= 99.95 || value.fract() < 0.005 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A duration for people.
pub fn human_millis(ms: u64) -> String {
    match ms {
        0..=999 => format!("{ms} ms"),
        1000..=119_999 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        120_000..=7_199_999 => format!("{} min", ms / 60_000),
        7_200_000..=172_799_999 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("64 MiB"), Ok(64 << 20));
        assert_eq!(parse_size("3g"), Ok(3 << 30));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
    }

    #[test]
    fn what_is_no_size_is_named() {
        for wrong in ["", "M", "-1", "1.5G", "64MB", "12 34", "0x10", "5q"] {
            let error = parse_size(wrong).unwrap_err();
            assert!(error.contains(&format!("'{wrong}'")), "{error}");
        }
        assert!(parse_size("99999999999T").is_err());
        assert!(parse_size("99999999999999999999").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(parse_millis("20ms"), Ok(20));
        assert_eq!(parse_millis("5s"), Ok(5000));
        assert_eq!(parse_millis("2m"), Ok(120_000));
        // A bare number would be milliseconds to one reader and seconds to the next.
        assert!(parse_millis("5").is_err());
        assert!(parse_millis("s").is_err());
        assert!(parse_millis("99999999m").is_err());
    }

    #[test]
    fn human_forms() {
        assert_eq!(human_size(0), "0 B");
        assert_eq!(human_size(1023), "1023 B");
        assert_eq!(human_size(1024), "1 KiB");
        assert_eq!(human_size(1536), "1.5 KiB");
        assert_eq!(human_size(1 << 30), "1 GiB");
        assert_eq!(human_size((1 << 20) - 1), "1.0 MiB");
        assert_eq!(human_size(u64::MAX), "16384 PiB");
        assert_eq!(human_millis(0), "0 ms");
        assert_eq!(human_millis(1250), "1.2 s");
        assert_eq!(human_millis(600_000), "10 min");
        assert_eq!(
            human_millis(u64::MAX),
            format!("{} days", u64::MAX / 86_400_000)
        );
    }
}
