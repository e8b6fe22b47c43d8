//! Cures: what a message offers in place of what it refuses.
//!
//! A kind of text has its forms in general and its guesses at what a wrong one was meant to be.
//! Invariant: a guess is offered only after the reader that refused the text has taken it, with
//! every bound of its key. So a cure is never refused in turn.

use std::borrow::Cow;

use toml::de::DeValue;

use super::{Code, Reader, Value};
use crate::config::text::hint::instead;

/// Why a text cannot be read, and what is right in general.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// What is wrong.
    pub(crate) message: String,
    /// What would be right.
    pub(crate) hint: Cow<'static, str>,
}

impl Refusal {
    /// Both of these.
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// A kind of text.
pub(crate) struct Kind {
    /// What a value looks like, with examples that are read.
    pub(crate) forms: &'static str,
    /// What a wrong one may have been meant to be, the likeliest first.
    pub(crate) guesses: fn(&str) -> Vec<String>,
}

impl Kind {
    /// The likeliest guess that `parse` takes.
    pub(crate) fn cure<T>(&self, text: &str, parse: impl Fn(&str) -> Result<T, Refusal>) -> Option<String> {
        /// A longer text is not a typing error.
        const LONGEST: usize = 100;
        let guesses = if text.len() <= LONGEST { (self.guesses)(text) } else { Vec::new() };
        guesses.into_iter().find(|guess| parse(guess).is_ok())
    }
}

/// Reads a string of a kind, or notes what is wrong with it and what would be right.
pub(crate) fn read<T>(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    kind: &Kind,
    parse: impl Fn(&str) -> Result<T, Refusal>,
) -> Option<T> {
    if !matches!(value.get_ref(), DeValue::String(_)) {
        let cure = reader.scalar(value).and_then(|written| kind.cure(&written, &parse));
        let hint = cure.map_or(Cow::from(kind.forms), |cure| format!("write \"{cure}\"").into());
        reader.wrong_type(key, value, "a string").hint(hint);
        return None;
    }
    let text = reader.text(key, value)?;
    match parse(&text.value) {
        Ok(value) => Some(value),
        Err(refusal) => {
            let cure = kind.cure(&text.value, &parse);
            let hint = cure.map_or(refusal.hint, |cure| instead(&text, &format!("\"{cure}\"")).into());
            reader
                .diagnostics
                .problem(Code::InvalidValue, text.span(), refusal.message)
                .text(&text.value)
                .hint(hint);
            None
        }
    }
}

/// The number at the start of a text, as thousandths, and what follows: `1.5h`, `1,000/h`,
/// `10_000`.
pub(crate) fn number(text: &str) -> Option<(u64, &str)> {
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ',' | '_'))).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let digits = number.replace('_', "");
    // Three digits after a comma are thousands.
    let is_grouped = digits.split(',').skip(1).all(|group| group.len() == 3) && !digits.starts_with(',');
    let digits = if is_grouped { digits.replace(',', "") } else { digits.replace(',', ".") };
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    if whole.is_empty() || fraction.len() > 3 || fraction.contains('.') {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    Some((whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths)?, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, thousandths, rest) in [
            ("60", 60_000, ""),
            ("1.5 h", 1500, "h"),
            ("1,5MB", 1500, "MB"),
            ("1,000/h", 1_000_000, "/h"),
            ("10_000", 10_000_000, ""),
        ] {
            assert_eq!(number(text), Some((thousandths, rest)), "{text}");
        }
        for text in ["", "h", ".5", "1.2.3", "1.2345", "99999999999999999999"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
