//! `${NAME}` and `${NAME:-default}` inside a string, and where each byte of the outcome came from.

use std::{borrow::Cow, cell::Cell, ops::Range};

use super::Span;
use crate::config::source::SpecsFrom;

/// A string value after expansion, which knows its place.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    /// The string.
    pub(crate) value: String,
    span: Span,
    origin: Source,
    is_expanded: bool,
    beside: Option<SpecsFrom>,
}

/// How the value stands in the file.
#[derive(Clone, Debug)]
enum Source {
    /// In another form (escapes), so that only the string as a whole can be pointed at.
    Rewritten,
    /// Byte for byte, from this offset.
    Verbatim(usize),
    /// With variables, the pieces from this offset.
    Expanded(usize, Vec<Piece>),
}

impl Text {
    /// A spec that stands beside the file.
    pub(crate) fn beside_file(value: String, span: Span, from: SpecsFrom) -> Self {
        Self { value, span, origin: Source::Verbatim(0), is_expanded: false, beside: Some(from) }
    }

    /// A string as it is: `from` is where it begins if it stands there byte for byte.
    pub(crate) fn verbatim(value: &str, span: Span, from: Option<usize>) -> Self {
        let origin = from.map_or(Source::Rewritten, Source::Verbatim);
        Self { value: value.to_owned(), span, origin, is_expanded: false, beside: None }
    }

    /// A string of the file: `value` is what it says, `from` where that begins if it stands there
    /// byte for byte.
    ///
    /// # Errors
    /// A variable that is not set, a `${` that is none, or too long an outcome; the span is within
    /// `value`.
    pub(crate) fn expand(
        value: &str,
        span: Span,
        from: Option<usize>,
        budget: &ExpansionBudget,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, (Span, ExpandError)> {
        let plain = Self::verbatim(value, span, from);
        if !value.contains('$') {
            return Ok(plain);
        }
        match expand(value, env) {
            Err(e) => Err((plain.at(e.range.clone()), e)),
            Ok((value, _)) if !budget.take(value.len()) => {
                let range = 0..plain.value.len();
                let message = format!("variables make this configuration longer than {} MiB", MOST >> 20);
                Err((span, ExpandError { range, message, hint: SHORTER.into() }))
            }
            Ok((value, pieces)) => {
                let origin = from.map_or(Source::Rewritten, |from| Source::Expanded(from, pieces));
                Ok(Self { value, span, origin, is_expanded: true, beside: None })
            }
        }
    }

    /// Whether variables are part of the value.
    pub(crate) fn is_expanded(&self) -> bool {
        self.is_expanded
    }

    /// Where a spec stands that is in no file.
    pub(crate) fn beside(&self) -> Option<SpecsFrom> {
        self.beside
    }

    /// The place of a part of the value, as narrow as it is known.
    pub(crate) fn at(&self, part: Range<usize>) -> Span {
        match &self.origin {
            Source::Rewritten => self.span,
            Source::Verbatim(from) => self.span.part(from + part.start..from + part.end),
            Source::Expanded(from, pieces) => {
                let piece = |at: usize| pieces.iter().find(|p| at < p.value.end).or(pieces.last());
                let start = piece(part.start).map_or(0, |p| p.start_of(part.start));
                let end = piece(part.end.saturating_sub(1)).map_or(start, |p| p.end_of(part.end));
                self.span.part(from + start..from + end.max(start))
            }
        }
    }

    /// The place of the whole value.
    pub(crate) fn span(&self) -> Span {
        self.at(0..self.value.len())
    }
}

/// A piece of an expanded value and of the text that it came from.
#[derive(Clone, Debug)]
struct Piece {
    value: Range<usize>,
    source: Range<usize>,
    is_verbatim: bool,
}

impl Piece {
    fn start_of(&self, at: usize) -> usize {
        if self.is_verbatim {
            self.source.start + at.saturating_sub(self.value.start)
        } else {
            self.source.start
        }
    }

    fn end_of(&self, at: usize) -> usize {
        if self.is_verbatim { self.start_of(at) } else { self.source.end }
    }
}

/// What to do where variables make too much.
const SHORTER: &str = "put what is long into a file of its own, such as a list file";
/// The most that a string may become: any value is far shorter.
const LONGEST: usize = 64 * 1024;
/// The most that all strings with variables may become together.
const MOST: usize = 4 * 1024 * 1024;

/// How much variables may still add to a configuration.
#[derive(Clone)]
pub(crate) struct ExpansionBudget(Cell<usize>);

impl Default for ExpansionBudget {
    fn default() -> Self {
        Self(Cell::new(MOST))
    }
}

impl ExpansionBudget {
    /// Takes from the budget for a string that has grown to `len` bytes.
    fn take(&self, len: usize) -> bool {
        let left = self.0.get().checked_sub(len);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// Why a string cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ExpandError {
    range: Range<usize>,
    /// What is wrong.
    pub(crate) message: String,
    /// What would be right.
    pub(crate) hint: Cow<'static, str>,
}

fn expand(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<(String, Vec<Piece>), ExpandError> {
    let mut value = String::with_capacity(text.len());
    let mut pieces = Vec::new();
    let mut done = 0;
    while done < text.len() {
        let rest = &text[done..];
        let start = value.len();
        let (used, is_verbatim) = if rest.starts_with("$$") {
            value.push('$');
            (2, false)
        } else if rest.starts_with("${") {
            let (used, replacement) = variable(rest, done, &env)?;
            if value.len() + replacement.len() > LONGEST {
                let message = format!("variables make this string longer than {} KiB", LONGEST >> 10);
                return Err(ExpandError { range: done..done + used, message, hint: SHORTER.into() });
            }
            value.push_str(&replacement);
            (used, false)
        } else {
            let used = rest.bytes().skip(1).position(|c| c == b'$').map_or(rest.len(), |i| i + 1);
            value.push_str(&rest[..used]);
            (used, true)
        };
        pieces.push(Piece { value: start..value.len(), source: done..done + used, is_verbatim });
        done += used;
    }
    Ok((value, pieces))
}

/// Reads the variable at the start of `rest`, which begins at `at`: how long it is, and what it
/// stands for.
fn variable(
    rest: &str,
    at: usize,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<(usize, String), ExpandError> {
    let error = |len: usize, message: String, hint: &'static str| {
        Err(ExpandError { range: at..at + len, message, hint: hint.into() })
    };
    let Some(end) = rest.find('}') else {
        return error(
            rest.len(),
            "`${` is not closed".into(),
            "close it with }, or write $$ for a dollar sign",
        );
    };
    let (inner, used) = (&rest[2..end], end + 1);
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let is_name = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        && name.bytes().next().is_some_and(|c| !c.is_ascii_digit());
    if !is_name {
        let message = format!("`{name}` is not the name of a variable");
        return match meant(inner, env) {
            Some(meant) => {
                Err(ExpandError { range: at..at + used, message, hint: format!("write {meant}").into() })
            }
            None => {
                error(used, message, "the forms are ${NAME} and ${NAME:-default}; write $$ for a dollar sign")
            }
        };
    }
    if default.is_some_and(|d| d.contains("${")) {
        return error(used, "a default cannot hold another variable".into(), "write its value");
    }
    match (env(name), default) {
        (Some(value), None) => Ok((used, value)),
        (Some(value), Some(_)) if !value.is_empty() => Ok((used, value)),
        (_, Some(default)) => Ok((used, default.to_owned())),
        (None, None) => error(
            used,
            format!("the environment variable {name} is not set"),
            "set it, or put `:-` and a default behind its name",
        ),
    }
}

/// What was meant by the inside of braces that names no variable: a default as shells also write
/// it, or spaces.
fn meant(inner: &str, env: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let inner = inner.trim();
    let end = inner
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .unwrap_or(inner.len());
    let (name, rest) = inner.split_at(end);
    let default = [":=", ":-", "-", "=", ":"].iter().find_map(|mark| rest.trim_start().strip_prefix(mark));
    let is_name = name.bytes().next().is_some_and(|c| !c.is_ascii_digit());
    match default {
        _ if !is_name => None,
        _ if rest.is_empty() => env(name).map(|_| format!("${{{name}}}")),
        Some(default) if !default.contains("${") => Some(format!("${{{name}:-{}}}", default.trim_start())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8080".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn value(text: &str) -> String {
        expand(text, env).unwrap().0
    }

    #[test]
    fn variables_are_taken_from_the_environment() {
        assert_eq!(value("${PORT}:80"), "8080:80");
        assert_eq!(value("a${PORT}${PORT}b"), "a80808080b");
        assert_eq!(value("${NOT_SET:-9090}:80"), "9090:80");
        assert_eq!(value("${PORT:-9090}:80"), "8080:80");
        assert_eq!(value("${EMPTY:-9090}"), "9090");
        assert_eq!(value("[${EMPTY}]${NOT_SET:-}"), "[]");
    }

    #[test]
    fn a_dollar_sign_can_be_written() {
        assert_eq!(value("$${PORT} $$ $PORT 5$"), "${PORT} $ $PORT 5$");
    }

    #[test]
    fn letters_of_several_bytes_stand_beside_a_dollar_sign() {
        assert_eq!(value("é$é${PORT}é$$é"), "é$é8080é$é");
    }

    #[test]
    fn what_cannot_be_expanded_is_refused_with_its_place() {
        for (text, at, message) in [
            ("x${NOPE}", 1..8, "the environment variable NOPE is not set"),
            ("x${PORT", 1..7, "`${` is not closed"),
            ("${}", 0..3, "`` is not the name of a variable"),
            ("${1A}", 0..5, "`1A` is not the name of a variable"),
            ("${A-b}", 0..6, "`A-b` is not the name of a variable"),
            ("${A:-${PORT}}", 0..12, "a default cannot hold another variable"),
        ] {
            let e = expand(text, env).unwrap_err();
            assert_eq!((e.range, e.message.as_str()), (at, message), "{text}");
        }
    }
}
