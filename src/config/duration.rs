//! Durations as they are written: `"500ms"`, `"30s"`, `"5m"`, `"12h"`, `"2d"`, or `"never"`.

use std::time::Duration;

use crate::mapping::Timeout;

/// The longest limit: beyond it, `never` is meant.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct DurationError {
    pub(super) message: String,
    pub(super) hint: &'static str,
}

fn error(message: String, hint: &'static str) -> DurationError {
    DurationError { message, hint }
}

/// Reads a duration or `never`.
///
/// # Errors
/// Another form, zero, or more than a hundred years.
pub(super) fn parse(text: &str) -> Result<Timeout, DurationError> {
    match parse_from_zero(text)? {
        Timeout::After(Duration::ZERO) => {
            Err(error(format!("`{text}` is no time at all"), "use \"never\" where there shall be no limit"))
        }
        limit => Ok(limit),
    }
}

/// Reads a duration or `never`, where no time at all has a meaning, too.
///
/// # Errors
/// Another form, or more than a hundred years.
pub(super) fn parse_from_zero(text: &str) -> Result<Timeout, DurationError> {
    const FORMS: &str =
        "write a number and its unit, as in \"500ms\", \"30s\", \"5m\", \"12h\" or \"2d\"; or \"never\"";
    if text == "never" {
        return Ok(Timeout::Never);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(error(format!("`{text}` is not a duration"), FORMS));
    }
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(error(format!("the duration `{text}` has no unit"), FORMS)),
        _ => return Err(error(format!("`{text}` is not a duration"), FORMS)),
    };
    let limit = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).map(Duration::from_millis);
    match limit {
        Some(limit) if limit <= LONGEST => Ok(Timeout::After(limit)),
        _ => Err(error(format!("`{text}` is more than a hundred years"), "use \"never\"")),
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
            ("0s", "`0s` is no time at all"),
            ("0ms", "`0ms` is no time at all"),
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
