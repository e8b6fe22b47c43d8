//! Amounts as they are written: counts (`100`), rates (`"20/s"`), sizes (`"64KiB"`); each may be `"unlimited"` where
//! there need not be a limit.
//!
//! The grammar is pure; [`count_or`], [`rate`] and [`size`] take a key's value through it and note what is wrong.

use std::{
    borrow::Cow,
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use toml::de::DeValue;

use super::table::{Reader, Value, closest};

/// The word for the absence of a limit.
pub(super) const UNLIMITED: &str = "unlimited";

/// So many in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) count: NonZeroU32,
    pub(super) per: Duration,
}

/// A positive integer, or `None` for the one word that may stand in its place.
pub(super) fn count_or(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    word: &str,
) -> Option<Option<NonZeroU32>> {
    let expected = format!("a positive number or \"{word}\"");
    match value.get_ref() {
        DeValue::Integer(_) => positive(reader, key, value, Some(word)).map(Some),
        DeValue::String(_) => {
            let text = reader.text(key, value)?;
            if text.value == word {
                return Some(None);
            }
            let is_number = !text.value.is_empty() && text.value.bytes().all(|c| c.is_ascii_digit());
            let hint: Cow<'_, str> = match closest(&text.value, &[word]) {
                _ if is_number => format!("write it without quotes: {}", text.value).into(),
                Some(_) => format!("did you mean \"{word}\"?").into(),
                None => format!("as in {key} = 100").into(),
            };
            let message = format!("`{key}` is {expected}, not `{}`", text.value);
            reader.notes.problem(text.place(), message).text(&text.value).hint(hint.into_owned());
            None
        }
        _ => {
            reader.wrong_type(key, value, &expected);
            None
        }
    }
}

/// A positive integer; `word` is what could be written for no limit.
pub(super) fn positive(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    word: Option<&str>,
) -> Option<NonZeroU32> {
    let DeValue::Integer(integer) = value.get_ref() else {
        reader.wrong_type(key, value, "a positive number");
        return None;
    };
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
    if let Some(count) = number.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new) {
        return Some(count);
    }
    let place = reader.place(value.span());
    let hint = match (number, word) {
        (Some(n), Some(UNLIMITED)) if n <= 0 => {
            "use \"unlimited\" where there shall be no limit; `enabled = false` closes a mapping".into()
        }
        (Some(n), _) if n <= 0 => "use a number from 1".into(),
        (_, Some(word)) => format!("the most is {}; use \"{word}\"", u32::MAX),
        (_, None) => format!("the most is {}", u32::MAX),
    };
    let or = word.map(|word| format!(" or \"{word}\"")).unwrap_or_default();
    let message = match number {
        Some(n) if n <= 0 => format!("`{key}` is a positive number{or}, not {n}"),
        _ => format!("`{key}` is too large"),
    };
    reader.notes.problem(place, message).hint(hint);
    None
}

/// A rate, or `None` for `"unlimited"`.
pub(super) fn rate(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Option<Pace>> {
    read(reader, key, value, parse_rate)
}

/// A size of at least 1 KiB, in bytes, or `None` for `"unlimited"`. `/s` may stand behind it.
pub(super) fn size(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Option<NonZeroU64>> {
    read(reader, key, value, parse_size)
}

fn read<T>(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    parse: fn(&str) -> Result<Option<T>, AmountError>,
) -> Option<Option<T>> {
    let text = reader.text(key, value)?;
    parse(&text.value)
        .map_err(|e| {
            reader.notes.problem(text.place(), e.message).text(&text.value).hint(e.hint);
        })
        .ok()
}

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
struct AmountError {
    message: String,
    hint: Cow<'static, str>,
}

fn error<T>(message: String, hint: impl Into<Cow<'static, str>>) -> Result<T, AmountError> {
    Err(AmountError { message, hint: hint.into() })
}

/// Reads `COUNT/UNIT`, with the units `s`, `min` and `h`.
fn parse_rate(text: &str) -> Result<Option<Pace>, AmountError> {
    const FORMS: &str =
        "write how many in which time, as in \"20/s\", \"10/min\" or \"100/h\"; or \"unlimited\"";
    /// Beyond a thousand million a second, the time between two is nothing.
    const MOST: u64 = 1_000_000_000;
    if text == UNLIMITED {
        return Ok(None);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return error(format!("`{text}` is not a rate"), FORMS);
    }
    let Some(unit) = rest.trim_start().strip_prefix('/').map(str::trim) else {
        return match rest {
            "" => error(format!("the rate `{text}` has no unit"), FORMS),
            _ => error(format!("`{text}` is not a rate"), FORMS),
        };
    };
    let seconds = match rest {
        "/s" => 1,
        "/min" => 60,
        "/h" => 3600,
        _ => {
            let hint = match unit_meant(unit) {
                Some(meant) => format!("did you mean \"{number}/{meant}\"?").into(),
                None => Cow::from(FORMS),
            };
            return error(format!("`{text}` is not a rate"), hint);
        }
    };
    match number.parse::<u64>() {
        Ok(0) => error(
            format!("`{text}` is never"),
            "use \"unlimited\" where there shall be no limit; `enabled = false` closes a mapping",
        ),
        Ok(n) if n <= MOST => {
            let count = u32::try_from(n).ok().and_then(NonZeroU32::new);
            Ok(count.map(|count| Pace { count, per: Duration::from_secs(seconds) }))
        }
        _ => error(format!("`{text}` is more than a machine can do"), "use \"unlimited\""),
    }
}

/// The unit that a word was meant to be.
fn unit_meant(word: &str) -> Option<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "m" | "min" | "mins" | "minute" | "minutes" => Some("min"),
        "h" | "hr" | "hour" | "hours" => Some("h"),
        _ => None,
    }
}

/// The units of a size, in bytes; the first of those that differ only by case is the right one.
const SIZES: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1000),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads a number and its unit.
fn parse_size(text: &str) -> Result<Option<NonZeroU64>, AmountError> {
    const FORMS: &str = "write a number and its unit, as in \"64KiB\" or \"10MB\"; or \"unlimited\"";
    /// More than any network carries.
    const MOST: u64 = 1 << 40;
    if text == UNLIMITED {
        return Ok(None);
    }
    let amount = text.strip_suffix("/s").unwrap_or(text);
    let digits = amount.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = amount.split_at(digits);
    if number.is_empty() {
        return error(format!("`{text}` is not a size"), FORMS);
    }
    let Some((_, each)) = SIZES.iter().find(|(u, _)| *u == unit) else {
        let message = match unit {
            "" => format!("the size `{text}` has no unit"),
            _ => format!("`{text}` is not a size"),
        };
        return error(message, size_hint(number, unit).map_or(Cow::from(FORMS), Cow::from));
    };
    match number.parse::<u64>().ok().and_then(|n| n.checked_mul(*each)) {
        Some(0) => error(
            format!("`{text}` lets nothing pass"),
            "use \"unlimited\" where there shall be no limit; `enabled = false` closes a mapping",
        ),
        Some(n @ 1..=MOST) => Ok(NonZeroU64::new(n)),
        _ => error(format!("`{text}` is more than any network carries"), "use \"unlimited\""),
    }
}

/// What was meant by a unit that is none: another case, a letter left out, or bits.
fn size_hint(number: &str, unit: &str) -> Option<String> {
    let lower = unit.trim().to_ascii_lowercase();
    let bits = ["bit", "bps", "bit/s"].iter().find_map(|bits| lower.strip_suffix(bits));
    if let Some(prefix) = bits {
        let each = match prefix.trim() {
            "k" => 1000,
            "m" => 1_000_000,
            "g" => 1_000_000_000,
            _ => return None,
        };
        let bytes = number.parse::<u64>().ok()?.checked_mul(each)? / 8;
        return Some(format!("sizes are bytes, not bits: \"{}KB\"", bytes.div_ceil(1000)));
    }
    let known = SIZES.iter().find(|(u, _)| {
        let known = u.to_ascii_lowercase();
        !lower.is_empty() && (known == lower || known.strip_suffix('b') == Some(&lower))
    });
    // `10M` may be meant either way; the smaller is the safe guess.
    let (unit, _) = match lower.as_str() {
        "k" => Some(&("KB", 1000)),
        "m" => Some(&("MB", 1_000_000)),
        "g" => Some(&("GB", 1_000_000_000)),
        _ => known,
    }?;
    Some(format!("did you mean \"{number}{unit}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_so_many_in_a_second_a_minute_or_an_hour() {
        for (text, count, seconds) in
            [("20/s", 20, 1), ("10/min", 10, 60), ("100/h", 100, 3600), ("1000000000/s", 1_000_000_000, 1)]
        {
            let pace = parse_rate(text).unwrap().unwrap();
            assert_eq!((pace.count.get(), pace.per), (count, Duration::from_secs(seconds)));
        }
        assert_eq!(parse_rate("unlimited"), Ok(None));
    }

    #[test]
    fn any_other_rate_is_refused_with_what_would_be_right() {
        for (text, message, hint) in [
            ("20", "the rate `20` has no unit", "write how many in which time"),
            ("20/m", "`20/m` is not a rate", "did you mean \"20/min\"?"),
            ("20 / s", "`20 / s` is not a rate", "did you mean \"20/s\"?"),
            ("20/Hour", "`20/Hour` is not a rate", "did you mean \"20/h\"?"),
            ("20/d", "`20/d` is not a rate", "write how many in which time"),
            ("20/", "`20/` is not a rate", "write how many in which time"),
            ("20s", "`20s` is not a rate", "write how many in which time"),
            ("", "`` is not a rate", "write how many in which time"),
            ("/s", "`/s` is not a rate", "write how many in which time"),
            ("-1/s", "`-1/s` is not a rate", "write how many in which time"),
            ("1.5/s", "`1.5/s` is not a rate", "write how many in which time"),
            ("٣/s", "`٣/s` is not a rate", "write how many in which time"),
            ("0/min", "`0/min` is never", "use \"unlimited\" where there shall be no limit"),
            ("1000000001/h", "`1000000001/h` is more than a machine can do", "use \"unlimited\""),
            ("99999999999999999999/s", "`99999999999999999999/s` is more than a machine can do", "use"),
        ] {
            let e = parse_rate(text).unwrap_err();
            assert_eq!(e.message, message);
            assert!(e.hint.starts_with(hint), "{text}: {}", e.hint);
        }
    }

    #[test]
    fn a_size_is_a_number_and_its_unit() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("10MB", 10_000_000),
            ("10MB/s", 10_000_000),
            ("2KB", 2000),
            ("2kB", 2000),
            ("1024B", 1024),
            ("1B", 1),
            ("1KB", 1000),
            ("1MiB", 1 << 20),
            ("1024GiB", 1 << 40),
        ] {
            assert_eq!(parse_size(text).unwrap().unwrap().get(), bytes, "{text}");
        }
        assert_eq!(parse_size("unlimited"), Ok(None));
    }

    #[test]
    fn any_other_size_is_refused_with_what_would_be_right() {
        for (text, message, hint) in [
            ("65536", "the size `65536` has no unit", "write a number and its unit"),
            ("64kib", "`64kib` is not a size", "did you mean \"64KiB\"?"),
            ("64mb/s", "`64mb/s` is not a size", "did you mean \"64MB\"?"),
            ("10M", "`10M` is not a size", "did you mean \"10MB\"?"),
            ("10Ki", "`10Ki` is not a size", "did you mean \"10KiB\"?"),
            ("10 MB", "`10 MB` is not a size", "did you mean \"10MB\"?"),
            ("10Mbit/s", "`10Mbit/s` is not a size", "sizes are bytes, not bits: \"1250KB\""),
            ("100kbps", "`100kbps` is not a size", "sizes are bytes, not bits: \"13KB\""),
            ("10TB", "`10TB` is not a size", "write a number and its unit"),
            ("1.5MB", "`1.5MB` is not a size", "write a number and its unit"),
            ("MB", "`MB` is not a size", "write a number and its unit"),
            ("", "`` is not a size", "write a number and its unit"),
            ("0MB", "`0MB` lets nothing pass", "use \"unlimited\" where there shall be no limit"),
            ("1025GiB", "`1025GiB` is more than any network carries", "use \"unlimited\""),
            ("99999999999999999999GB", "`99999999999999999999GB` is more than any network carries", "use"),
        ] {
            let e = parse_size(text).unwrap_err();
            assert_eq!(e.message, message);
            assert!(e.hint.starts_with(hint), "{text}: {}", e.hint);
        }
    }
}
