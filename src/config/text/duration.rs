//! Durations as they are written: `"500ms"`, `"30s"`, `"5m"`, `"12h"`, `"2d"`, or `"never"`.

use std::time::Duration;

use crate::{
    config::text::{
        cure::{Kind, Refusal, number},
        hint::bare,
    },
    mapping::Timeout,
};

/// The word for the absence of a limit.
const NEVER: &str = "never";
/// The longest limit: beyond it, `never` is meant.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Durations, and what a wrong one was meant to be.
pub(crate) const DURATION: Kind = Kind { forms: FORMS, guesses };
const FORMS: &str =
    "write a number and its unit, as in \"500ms\", \"30s\", \"5m\", \"12h\" or \"2d\"; or \"never\"";

/// Reads a duration or `never`.
///
/// # Errors
/// Another form, zero, or more than a hundred years.
pub(crate) fn parse(text: &str) -> Result<Timeout, Refusal> {
    match parse_from_zero(text)? {
        Timeout::After(Duration::ZERO) => Err(Refusal::new(format!("`{text}` is zero"), FORMS)),
        limit => Ok(limit),
    }
}

/// Reads a duration or `never`, where no time at all has a meaning, too.
///
/// # Errors
/// Another form, or more than a hundred years.
pub(crate) fn parse_from_zero(text: &str) -> Result<Timeout, Refusal> {
    if text == NEVER {
        return Ok(Timeout::Never);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        _ if number.is_empty() => return Err(Refusal::new(format!("`{text}` is not a duration"), FORMS)),
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(Refusal::new(format!("the duration `{text}` has no unit"), FORMS)),
        _ => return Err(Refusal::new(format!("`{text}` is not a duration"), FORMS)),
    };
    let limit = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).map(Duration::from_millis);
    match limit {
        Some(limit) if limit <= LONGEST => Ok(Timeout::After(limit)),
        _ => Err(Refusal::new(format!("`{text}` is more than a hundred years"), FORMS)),
    }
}

/// What a text was meant to be: another unit, a sum of several, a clock's form, seconds without a
/// unit, or no limit.
fn guesses(text: &str) -> Vec<String> {
    const NO_LIMIT: [&str; 9] =
        ["never", "none", "no", "off", "false", "unlimited", "infinite", "infinity", "disabled"];
    let text = bare(text).to_ascii_lowercase();
    if NO_LIMIT.contains(&&*text) || text == "-1" || number(&text).is_some_and(|(n, _)| n == 0) {
        return ["never", "0s"].map(str::to_owned).into();
    }
    let of = |ms| Timeout::After(Duration::from_millis(ms)).to_string();
    let sum = clock(&text).or_else(|| sum(&text));
    single(&text).into_iter().chain(sum.map(of)).collect()
}

/// One whole number and its unit, as they were written but for the spelling.
fn single(text: &str) -> Option<String> {
    let (thousandths, unit) = number(text).filter(|(n, _)| n % 1000 == 0)?;
    let unit = match unit_of(unit)? {
        (1000, _) => "ms",
        (1_000_000, _) => "s",
        (60_000_000, _) => "m",
        (3_600_000_000, _) => "h",
        (86_400_000_000, 1) => "d",
        _ => return None,
    };
    Some(format!("{}{unit}", thousandths / 1000))
}

/// The microseconds that a word for a unit stands for, and how many of the largest known unit it
/// is.
fn unit_of(word: &str) -> Option<(u64, u64)> {
    const DAY: u64 = 86_400_000_000;
    Some(match word {
        "us" | "µs" | "usec" => (1, 1),
        "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => (1000, 1),
        "" | "s" | "sec" | "secs" | "second" | "seconds" => (1_000_000, 1),
        "m" | "min" | "mins" | "minute" | "minutes" => (60_000_000, 1),
        "h" | "hr" | "hrs" | "hour" | "hours" => (3_600_000_000, 1),
        "d" | "day" | "days" => (DAY, 1),
        "w" | "wk" | "week" | "weeks" => (DAY, 7),
        _ => return None,
    })
}

/// The milliseconds of `1h30m`, `5 minutes`, `PT5M`, `60`.
fn sum(text: &str) -> Option<u64> {
    let iso = text.strip_prefix('p').map(|rest| rest.replacen('t', "", 1));
    let mut rest = iso.as_deref().unwrap_or(text);
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let (thousandths, after) = number(rest)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic() && c != 'µ').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (unit, count) = unit_of(unit)?;
        let each_us = unit.checked_mul(count)?;
        sum = sum.checked_add(thousandths.checked_mul(each_us)?.div_ceil(1_000_000))?;
        rest = after.trim_start_matches([' ', ',']).trim_start_matches("and ").trim_start();
    }
    Some(sum).filter(|sum| *sum > 0)
}

/// The milliseconds of `00:05:00`.
fn clock(text: &str) -> Option<u64> {
    let parts: Option<Vec<u64>> = text.split(':').map(|part| part.parse().ok()).collect();
    match *parts?.as_slice() {
        [hours, minutes, seconds] if hours < 1000 && minutes < 60 && seconds < 60 => {
            Some(((hours * 60 + minutes) * 60 + seconds) * 1000)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_printed_back() {
        for (text, ms) in
            [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("12h", 43_200_000), ("2d", 172_800_000)]
        {
            let timeout = parse(text).unwrap();
            assert_eq!(timeout, Timeout::After(Duration::from_millis(ms)));
            assert_eq!(timeout.to_string(), text);
        }
        assert_eq!(parse("never").unwrap(), Timeout::Never);
        assert_eq!(parse("90s").unwrap().to_string(), "90s");
        assert_eq!(parse("120s").unwrap().to_string(), "2m");
    }

    #[test]
    fn zero_is_read_where_it_has_a_meaning() {
        for text in ["0s", "0ms", "00d"] {
            assert_eq!(parse_from_zero(text).unwrap(), Timeout::After(Duration::ZERO));
        }
        assert_eq!(parse_from_zero("1s").unwrap(), parse("1s").unwrap());
        assert_eq!(parse_from_zero("0").unwrap_err().message, "the duration `0` has no unit");
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, message) in [
            ("0s", "`0s` is zero"),
            ("0ms", "`0ms` is zero"),
            ("30", "the duration `30` has no unit"),
            ("", "`` is not a duration"),
            ("s", "`s` is not a duration"),
            ("-1s", "`-1s` is not a duration"),
            ("1.5s", "`1.5s` is not a duration"),
            ("30 s", "`30 s` is not a duration"),
            ("1h30m", "`1h30m` is not a duration"),
            ("1w", "`1w` is not a duration"),
            ("Never", "`Never` is not a duration"),
            ("36501d", "`36501d` is more than a hundred years"),
            ("18446744073709551615d", "`18446744073709551615d` is more than a hundred years"),
            ("99999999999999999999999ms", "`99999999999999999999999ms` is more than a hundred years"),
            ("٣s", "`٣s` is not a duration"),
        ] {
            assert_eq!(parse(text).unwrap_err().message, message);
        }
    }
}
