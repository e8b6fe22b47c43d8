//! Amounts as they are written: counts (`100`), rates (`"20/s"`), sizes (`"64KiB"`); each may be
//! `"unlimited"` where there need not be a limit.
//!
//! The grammar is pure; [`count_or`], [`rate`] and [`size`] take a key's value through it and note
//! what is wrong.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use toml::de::DeValue;

use super::{Code, Kind, Reader, Refusal, Value};
use crate::config::text::{
    cure::{self, number},
    hint::{bare, instead},
    table::closest,
};

/// The word for the absence of a limit.
pub(crate) const UNLIMITED: &str = "unlimited";

/// So many in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) count: NonZeroU32,
    pub(crate) per: Duration,
}

/// A positive integer, or `None` for the one word that may stand in its place.
pub(crate) fn count_or(
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
            let hint = match count_meant(&text.value, word) {
                Some(meant) => instead(&text, &meant),
                None => format!("as in {key} = 100, or {key} = \"{word}\""),
            };
            let message = format!("`{key}` is {expected}, not `{}`", text.value);
            reader.diagnostics.problem(Code::InvalidValue, text.span(), message).text(&text.value).hint(hint);
            None
        }
        _ => {
            let meant = reader.scalar(value).and_then(|written| count_meant(&written, word));
            let hint =
                meant.map_or(format!("as in {key} = 100, or {key} = \"{word}\""), |m| format!("write {m}"));
            reader.wrong_type(key, value, &expected).hint(hint);
            None
        }
    }
}

/// What was meant by a count: one in quotes, with `k`, with separators, or a word for no limit.
fn count_meant(text: &str, word: &str) -> Option<String> {
    let text = bare(text).to_ascii_lowercase();
    if closest(&text, &[word]).is_some() || (word == UNLIMITED && is_unlimited(&text)) {
        return Some(format!("\"{word}\""));
    }
    let (thousandths, unit) = number(&text)?;
    let each: u64 = match unit {
        "" => 1,
        "k" | "e3" => 1000,
        "m" | "e6" => 1_000_000,
        _ => return None,
    };
    let count = thousandths.checked_mul(each).filter(|count| count % 1000 == 0)? / 1000;
    u32::try_from(count).ok().filter(|count| *count > 0).map(|count| count.to_string())
}

/// A positive integer that is `most` at most. `hint` is the cure for a greater one.
pub(crate) fn positive_up_to(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    most: u32,
    hint: impl FnOnce() -> String,
) -> Option<NonZeroU32> {
    let count = positive(reader, key, value, None)?;
    if count.get() > most {
        let span = reader.span(value.span());
        reader
            .diagnostics
            .problem(Code::InvalidValue, span, format!("`{key}` is more than {most}"))
            .hint(hint());
        return None;
    }
    Some(count)
}

/// A positive integer; `word` is what could be written for no limit.
pub(crate) fn positive(
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
    let span = reader.span(value.span());
    let hint = match (number, word) {
        (Some(n), Some(UNLIMITED)) if n <= 0 => CLOSED.into(),
        (Some(n), _) if n <= 0 => "use a number from 1".into(),
        (_, Some(word)) => format!("the most is {}; use \"{word}\"", u32::MAX),
        (_, None) => format!("the most is {}", u32::MAX),
    };
    let or = word.map(|word| format!(" or \"{word}\"")).unwrap_or_default();
    let message = match number {
        Some(n) if n <= 0 => format!("`{key}` is a positive number{or}, not {n}"),
        _ => format!("`{key}` is too large"),
    };
    reader.diagnostics.problem(Code::InvalidValue, span, message).hint(hint);
    None
}

/// A rate, or `None` for `"unlimited"`.
pub(crate) fn rate(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Option<Pace>> {
    cure::read(reader, key, value, &RATE, parse_rate)
}

/// A rate that must be a limit.
pub(crate) fn limiting_rate(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    forms: &'static str,
) -> Option<Pace> {
    let kind = Kind { forms, ..RATE };
    let parse = |text: &str| match parse_rate(text) {
        Ok(Some(pace)) => Ok(pace),
        Ok(None) => Err(Refusal::new(format!("`{key}` cannot be \"{UNLIMITED}\""), forms)),
        Err(refusal) => Err(Refusal { hint: forms.into(), ..refusal }),
    };
    cure::read(reader, key, value, &kind, parse)
}

/// A size in bytes, or `None` for `"unlimited"`. `/s` may stand behind it.
pub(crate) fn size(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Option<NonZeroU64>> {
    cure::read(reader, key, value, &SIZE, parse_size)
}

const RATE: Kind = Kind { forms: RATES, guesses: rate_guesses };
const RATES: &str = "write how many in which time, as in \"20/s\", \"10/min\" or \"100/h\"; or \"unlimited\"";
const SIZE: Kind = Kind { forms: SIZE_FORMS, guesses: size_guesses };
const SIZE_FORMS: &str = "write a number and its unit, as in \"64KiB\" or \"10MB\"; or \"unlimited\"";
/// Where the least is still too much.
const CLOSED: &str = "use \"unlimited\" for no limit; `enabled = false` closes a mapping";

fn error<T>(message: String, hint: &'static str) -> Result<T, Refusal> {
    Err(Refusal::new(message, hint))
}

/// Whether a word means "without limit".
fn is_unlimited(word: &str) -> bool {
    matches!(word, "unlimited" | "none" | "no" | "off" | "never" | "false" | "infinite" | "infinity" | "-1")
        || closest(word, &[UNLIMITED]).is_some()
}

/// Reads `COUNT/UNIT`, with the units `s`, `min` and `h`.
fn parse_rate(text: &str) -> Result<Option<Pace>, Refusal> {
    /// Beyond a thousand million a second, the time between two is nothing.
    const MOST: u64 = 1_000_000_000;
    if text == UNLIMITED {
        return Ok(None);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let seconds = match rest {
        _ if number.is_empty() => return error(format!("`{text}` is not a rate"), RATES),
        "/s" => 1,
        "/min" => 60,
        "/h" => 3600,
        "" => return error(format!("the rate `{text}` has no unit"), RATES),
        _ => return error(format!("`{text}` is not a rate"), RATES),
    };
    match number.parse::<u64>() {
        Ok(0) => error(format!("`{text}` is never"), CLOSED),
        Ok(n) if n <= MOST => {
            let count = u32::try_from(n).ok().and_then(NonZeroU32::new);
            Ok(count.map(|count| Pace { count, per: Duration::from_secs(seconds) }))
        }
        _ => error(format!("`{text}` is more than a machine can do"), "use \"unlimited\""),
    }
}

/// What was meant: another word for the time, a fraction, or a time of several seconds.
fn rate_guesses(text: &str) -> Vec<String> {
    let text = bare(text).to_ascii_lowercase();
    if is_unlimited(&text) {
        return vec![UNLIMITED.to_owned()];
    }
    let Some((thousandths, rest)) = number(&text) else { return Vec::new() };
    let per = ["/", "per ", "a ", "an "].iter().find_map(|mark| rest.strip_prefix(mark)).map(str::trim);
    let per = per.or((rest == "rps").then_some("s")).or((rest == "rpm").then_some("min"));
    let Some((each, unit)) = per.map(|per| number(per).unwrap_or((1000, per))) else { return Vec::new() };
    let seconds: u64 = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        _ => return Vec::new(),
    };
    let Some(window) = seconds.checked_mul(each).filter(|window| *window > 0) else { return Vec::new() };
    let exact = |(name, per): (&str, u64)| {
        let count = thousandths.checked_mul(per)?;
        (count % window == 0).then(|| format!("{}/{name}", count / window))
    };
    // The unit that was written, where it is one; otherwise the one in which the count is whole.
    let mut units = [("s", 1), ("min", 60), ("h", 3600)];
    units.sort_by_key(|(_, per)| *per != seconds);
    units.into_iter().filter_map(exact).take(1).collect()
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
fn parse_size(text: &str) -> Result<Option<NonZeroU64>, Refusal> {
    /// More than any network carries.
    const MOST: u64 = 1 << 40;
    if text == UNLIMITED {
        return Ok(None);
    }
    let amount = text.strip_suffix("/s").unwrap_or(text);
    let digits = amount.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = amount.split_at(digits);
    if number.is_empty() {
        return error(format!("`{text}` is not a size"), SIZE_FORMS);
    }
    let Some((_, each)) = SIZES.iter().find(|(u, _)| *u == unit) else {
        let message = match unit {
            "" => format!("the size `{text}` has no unit"),
            unit if bits(unit).is_some() => format!("the size `{text}` is in bits, and sizes are in bytes"),
            _ => format!("`{text}` is not a size"),
        };
        return error(message, SIZE_FORMS);
    };
    match number.parse::<u64>().ok().and_then(|n| n.checked_mul(*each)) {
        Some(0) => error(format!("`{text}` lets nothing pass"), CLOSED),
        Some(n @ 1..=MOST) => Ok(NonZeroU64::new(n)),
        _ => error(format!("`{text}` is more than any network carries"), "use \"unlimited\""),
    }
}

/// The prefix of a unit of bits: `Mbit/s`, `Mbps`, `mb/s` is of bytes.
fn bits(unit: &str) -> Option<&str> {
    let unit = unit.trim();
    ["bits/s", "bit/s", "bits", "bit", "bps"].iter().find_map(|bits| unit.strip_suffix(bits))
}

/// What was meant: another case, a letter left out, a space, a fraction, bits, or bytes without a
/// unit.
fn size_guesses(text: &str) -> Vec<String> {
    let text = bare(text);
    if is_unlimited(&text.to_ascii_lowercase()) {
        return vec![UNLIMITED.to_owned()];
    }
    let Some((thousandths, unit)) = number(text) else { return Vec::new() };
    let (unit, divisor) = match bits(unit) {
        Some(prefix) => (prefix.trim(), 8000),
        None => (unit.trim_end_matches("/s").trim_end_matches("ps").trim(), 1000),
    };
    let unit = unit.to_ascii_lowercase();
    let (prefix, each): (&str, u64) = match unit.as_str() {
        "" | "b" | "byte" | "bytes" => ("B", 1),
        "k" | "kb" | "kbyte" | "kbytes" | "kilobytes" => ("KB", 1000),
        "m" | "mb" | "mbyte" | "mbytes" | "megabytes" => ("MB", 1_000_000),
        "g" | "gb" | "gbyte" | "gbytes" | "gigabytes" => ("GB", 1_000_000_000),
        "t" | "tb" => ("GB", 1_000_000_000_000),
        "ki" | "kib" => ("KiB", 1 << 10),
        "mi" | "mib" => ("MiB", 1 << 20),
        "gi" | "gib" => ("GiB", 1 << 30),
        "ti" | "tib" => ("GiB", 1 << 40),
        _ => return Vec::new(),
    };
    let Some(bytes) = thousandths.checked_mul(each).map(|n| n.div_ceil(divisor)) else { return Vec::new() };
    let whole = SIZES
        .iter()
        .rev()
        .filter(|(unit, each)| *unit != "kB" && bytes % each == 0)
        .map(|(unit, each)| (*unit, bytes / each));
    // In the unit that was written, where that is whole.
    let own = SIZES.iter().find(|(unit, _)| *unit == prefix).filter(|(_, each)| bytes % each == 0);
    own.map(|(unit, each)| (*unit, bytes / each))
        .into_iter()
        .chain(whole)
        .map(|(u, n)| format!("{n}{u}"))
        .collect()
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
            ("20/m", "`20/m` is not a rate", "write \"20/min\""),
            ("20 / s", "`20 / s` is not a rate", "write \"20/s\""),
            ("20/Hour", "`20/Hour` is not a rate", "write \"20/h\""),
            ("20/d", "`20/d` is not a rate", "write how many in which time"),
            ("20/", "`20/` is not a rate", "write how many in which time"),
            ("20s", "`20s` is not a rate", "write how many in which time"),
            ("", "`` is not a rate", "write how many in which time"),
            ("/s", "`/s` is not a rate", "write how many in which time"),
            ("-1/s", "`-1/s` is not a rate", "write how many in which time"),
            ("1.5/s", "`1.5/s` is not a rate", "write \"90/min\""),
            ("٣/s", "`٣/s` is not a rate", "write how many in which time"),
            ("0/min", "`0/min` is never", "use \"unlimited\" for no limit"),
            ("1000000001/h", "`1000000001/h` is more than a machine can do", "use \"unlimited\""),
            ("99999999999999999999/s", "`99999999999999999999/s` is more than a machine can do", "use"),
        ] {
            let e = parse_rate(text).unwrap_err();
            assert_eq!(e.message, message);
            let cure = RATE.cure(text, parse_rate).map(|cure| format!("write \"{cure}\""));
            let said = cure.unwrap_or_else(|| e.hint.into_owned());
            assert!(said.starts_with(hint), "{text}: {said}");
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
            ("65536", "the size `65536` has no unit", "write \"65536B\""),
            ("64kib", "`64kib` is not a size", "write \"64KiB\""),
            ("64mb/s", "`64mb/s` is not a size", "write \"64MB\""),
            ("10M", "`10M` is not a size", "write \"10MB\""),
            ("10Ki", "`10Ki` is not a size", "write \"10KiB\""),
            ("10 MB", "`10 MB` is not a size", "write \"10MB\""),
            ("10Mbit/s", "the size `10Mbit/s` is in bits, and sizes are in bytes", "write \"1250KB\""),
            ("100kbps", "the size `100kbps` is in bits, and sizes are in bytes", "write \"12500B\""),
            ("5TB", "`5TB` is not a size", "write a number and its unit"),
            ("1.5MB", "`1.5MB` is not a size", "write \"1500KB\""),
            ("MB", "`MB` is not a size", "write a number and its unit"),
            ("", "`` is not a size", "write a number and its unit"),
            ("0MB", "`0MB` lets nothing pass", "use \"unlimited\" for no limit"),
            ("1025GiB", "`1025GiB` is more than any network carries", "use \"unlimited\""),
            ("99999999999999999999GB", "`99999999999999999999GB` is more than any network carries", "use"),
        ] {
            let e = parse_size(text).unwrap_err();
            assert_eq!(e.message, message);
            let cure = SIZE.cure(text, parse_size).map(|cure| format!("write \"{cure}\""));
            let said = cure.unwrap_or_else(|| e.hint.into_owned());
            assert!(said.starts_with(hint), "{text}: {said}");
        }
    }
}
