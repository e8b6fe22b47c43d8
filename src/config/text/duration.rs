//! Durations: `"500ms"`, `"30s"`, `"1h30m"`, `"2 days"`, or `"never"`. The grammar is that of
//! [`humantime`], in lower case: there `M` is a month, and a slip for `m` would be costly.

use std::time::Duration;

use humantime::DurationError;

use super::{Kind, Refusal};
use crate::{config::text::hint::bare, mapping::Timeout};

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
/// Another form, a part of a millisecond, or more than a hundred years.
pub(crate) fn parse_from_zero(text: &str) -> Result<Timeout, Refusal> {
    if text == NEVER {
        return Ok(Timeout::Never);
    }
    let has_capitals = text.contains(|c: char| c.is_ascii_uppercase());
    let message = match humantime::parse_duration(text) {
        _ if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) => {
            format!("the duration `{text}` has no unit")
        }
        Ok(limit) if has_capitals || limit.subsec_nanos() % 1_000_000 != 0 => {
            format!("`{text}` is not a duration in whole milliseconds")
        }
        Ok(limit) if limit <= LONGEST => return Ok(Timeout::After(limit)),
        Ok(_) | Err(DurationError::NumberOverflow) => format!("`{text}` is more than a hundred years"),
        Err(_) => format!("`{text}` is not a duration"),
    };
    Err(Refusal::new(message, FORMS))
}

/// What a text was meant to be: no limit, a clock's form, the ISO form, other spelling, or seconds
/// without a unit.
fn guesses(text: &str) -> Vec<String> {
    const NO_LIMIT: [&str; 10] =
        ["never", "none", "no", "off", "false", "unlimited", "infinite", "infinity", "disabled", "-1"];
    let text = bare(text).to_ascii_lowercase();
    let tidy = text.replace("and ", "").replace("milliseconds", "ms").replace(['_', ','], "");
    let tidy = tidy.strip_prefix('p').map_or(tidy.clone(), |iso| iso.replacen('t', "", 1));
    let limit = clock(&text)
        .or_else(|| [format!("{tidy}s"), tidy].iter().find_map(|text| humantime::parse_duration(text).ok()));
    if NO_LIMIT.contains(&&*text) || limit == Some(Duration::ZERO) {
        return ["never", "0s"].map(str::to_owned).into();
    }
    let whole = |limit: Duration| u64::try_from(limit.as_nanos().div_ceil(1_000_000)).ok();
    let whole = limit.and_then(whole).map(Duration::from_millis);
    whole.map(|limit| Timeout::After(limit).to_string()).into_iter().collect()
}

/// The time of `00:05:00`.
fn clock(text: &str) -> Option<Duration> {
    let parts: Option<Vec<u64>> = text.split(':').map(|part| part.parse().ok()).collect();
    match *parts?.as_slice() {
        [hours, minutes, seconds] if hours < 1000 && minutes < 60 && seconds < 60 => {
            Some(Duration::from_secs((hours * 60 + minutes) * 60 + seconds))
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
        for (text, printed) in [
            ("120s", "2m"),
            ("1h30m", "90m"),
            ("1.5h", "90m"),
            ("30 s", "30s"),
            ("1h 30min", "90m"),
            ("1w", "7d"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn zero_is_read_where_it_has_a_meaning() {
        for text in ["0s", "0ms", "0d"] {
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
            ("s60", "`s60` is not a duration"),
            ("500us", "`500us` is not a duration in whole milliseconds"),
            ("5M", "`5M` is not a duration in whole milliseconds"),
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
