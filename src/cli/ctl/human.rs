//! Numbers as people read them: durations, times, bytes and rates.

use std::time::{Duration, SystemTime};

use crate::text::escaped;

/// A duration in its two largest units: `3m 12s`.
pub(in crate::cli) fn span(ms: u64) -> String {
    const UNITS: [(u64, &str); 5] = [(365 * 86_400, "y"), (86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let seconds = ms / 1000;
    let Some(first) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else { return "0s".to_owned() };
    let (unit, name) = UNITS[first];
    let rest = UNITS.get(first + 1).map(|(next, name)| (seconds % unit / next, name));
    match rest {
        Some((count, rest)) if count > 0 => format!("{}{name} {count}{rest}", seconds / unit),
        _ => format!("{}{name}", seconds / unit),
    }
}

/// A number of bytes: `1.2 MiB`.
pub(in crate::cli) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // A tenth of a unit, rounded down, so that 1023.99 KiB is not 1024.0.
    let (mut tenths, mut unit) = (u128::from(count) * 10 / 1024, 0);
    while tenths >= 10_240 {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Bytes a second: `1.2 MiB/s`.
pub(in crate::cli) fn rate(count: u64) -> String {
    format!("{}/s", bytes(count))
}

/// `1 session`, `2 sessions`.
pub(in crate::cli) fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A time of the interface to the second: `2026-11-29 14:11:20`. Times are in UTC.
pub(in crate::cli) fn clock(time: &str) -> String {
    match parsed(time) {
        Some(time) => {
            let seconds = humantime::format_rfc3339_seconds(time).to_string();
            seconds.trim_end_matches('Z').replacen('T', " ", 1)
        }
        None => escaped(time),
    }
}

/// How long ago a time of the interface was: `3m 12s`.
pub(in crate::cli) fn ago(time: &str) -> Option<String> {
    Some(whole(SystemTime::now().duration_since(parsed(time)?).unwrap_or_default()))
}

/// How long it is until a time of the interface.
pub(in crate::cli) fn until(time: &str) -> Option<String> {
    Some(whole(parsed(time)?.duration_since(SystemTime::now()).unwrap_or_default()))
}

fn whole(span: Duration) -> String {
    // Half a second more: a time is written to the millisecond or the second.
    self::span(u64::try_from(span.as_millis()).unwrap_or(u64::MAX).saturating_add(500))
}

fn parsed(time: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_its_two_largest_units() {
        for (ms, shown) in [
            (0, "0s"),
            (999, "0s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (192_000, "3m 12s"),
            (3_600_000, "1h"),
            (7_512_000, "2h 5m"),
            (86_400_000 * 3 + 7_200_000, "3d 2h"),
            (86_400_000 * 400, "1y 35d"),
            (u64::MAX, "584942417y 129d"),
        ] {
            assert_eq!(span(ms), shown, "{ms}");
        }
    }

    #[test]
    fn bytes_have_one_decimal_and_are_never_rounded_up_to_the_next_unit() {
        for (n, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_258_291, "1.1 MiB"),
            (1_258_292, "1.2 MiB"),
            (1_048_575, "1023.9 KiB"),
            (1_048_576, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(n), shown, "{n}");
        }
        assert_eq!(rate(2048), "2.0 KiB/s");
    }

    #[test]
    fn a_time_is_shown_to_the_second_and_another_text_as_it_is() {
        assert_eq!(clock("2026-11-29T14:11:20.123Z"), "2026-11-29 14:11:20");
        assert_eq!(clock("soon\n"), "soon\\n");
        assert_eq!((ago("soon"), until("2000-01-01T00:00:00Z").as_deref()), (None, Some("0s")));
    }
}
