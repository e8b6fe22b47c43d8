//! What is not TOML, and how it was meant.
//!
//! A line that the parser could not take is mended by the habits behind it: no quotes, quotes of a
//! word processor, `:` for `=`, a comma at the end. Invariant: a mended line is offered only after
//! the file was read with it, and nothing was wrong with that line any more. Only the first few
//! lines are mended, and only in a file of usual size.

use toml::{
    Spanned,
    de::{DeTable, Error},
};

use super::{Code, Diagnostics, Span};
use crate::config::text::{hint::bare, table::truth};

/// So many lines are mended.
const MOST_LINES: usize = 5;
/// A file beyond this size is not read again for it.
const LARGEST: usize = 64 * 1024;
/// A longer line is not a slip.
const LONGEST: usize = 200;

/// Parses a text, as far as that is possible.
///
/// The parser keeps each error with its words. Of a long text it gets no more than what follows the
/// first error, so that a file of nothing but errors does not fill the memory.
pub(crate) fn parse(text: &str) -> (Spanned<DeTable<'_>>, Vec<Error>) {
    if text.len() <= LARGEST {
        return DeTable::parse_recoverable(text);
    }
    match DeTable::parse(text) {
        Ok(document) => (document, Vec::new()),
        Err(error) => {
            let from = error.span().map_or(0, |range| range.start.min(text.len()));
            let end = text.as_bytes()[from..].iter().skip(LARGEST).position(|c| *c == b'\n');
            DeTable::parse_recoverable(end.map_or(text, |at| &text[..from + LARGEST + at]))
        }
    }
}

/// Notes what the parser could not take of a file. `is_sound` says whether the line of a number,
/// counted from 0, has no problem in a whole text.
pub(crate) fn refuse(
    text: &str,
    file: Span,
    errors: &[Error],
    is_sound: &dyn Fn(&str, usize) -> bool,
    diagnostics: &mut Diagnostics,
) {
    // The first problem of a line is the one that is shown.
    let mut errors: Vec<&Error> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map_or(0, |range| range.start));
    let line_of = |error: &Error| {
        let at = error.span().map_or(0, |range| range.start.min(text.len()));
        text.as_bytes()[..at].iter().filter(|c| **c == b'\n').count()
    };
    let broken: Vec<usize> = errors.iter().take(MOST_LINES).map(|error| line_of(error)).collect();
    for (i, error) in errors.iter().enumerate() {
        let line = broken.get(i).filter(|line| text.len() <= LARGEST && !broken[..i].contains(line));
        let cure = line.and_then(|line| mend(text, *line, &broken, is_sound));
        let (message, hint) = plain_words(error.message());
        let note = diagnostics.problem(Code::Syntax, file.part(error.span().unwrap_or(0..0)), message);
        match (cure, hint) {
            (Some(cure), _) => note.hint(format!("write {cure}")),
            (None, Some(hint)) => note.hint(hint),
            (None, None) => note,
        };
    }
}

/// What the parser says, in the words of a configuration file.
fn plain_words(message: &str) -> (String, Option<&'static str>) {
    const QUOTES: &str = "a string stands in quotes";
    let starts_a_value =
        ["invalid time", "invalid date", "invalid float", "invalid integer", "string values must be quoted"];
    if message.contains("recurs") {
        ("tables and lists are nested too deeply".to_owned(), Some("at most 80 deep"))
    } else if starts_a_value.iter().any(|start| message.starts_with(start)) {
        (QUOTES.to_owned(), Some("put the value in double quotes, unless it is a number, true or false"))
    } else if message.starts_with("duplicate key") {
        (message.to_owned(), Some("give a key once; where it takes several values, they stand in one list"))
    } else {
        (message.to_owned(), None)
    }
}

/// Another text for a line that is sound there. Other broken lines are left out: they would hide
/// what is wrong.
fn mend(
    text: &str,
    number: usize,
    broken: &[usize],
    is_sound: &dyn Fn(&str, usize) -> bool,
) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let line = *lines.get(number).filter(|line| line.len() <= LONGEST)?;
    let with = |mended: &str| {
        let whole = lines.iter().enumerate().map(|(i, line)| match i {
            i if i == number => mended,
            i if broken.contains(&i) => "",
            _ => line,
        });
        whole.collect::<Vec<_>>().join("\n")
    };
    guesses(line).into_iter().filter(|mended| mended != line).find(|mended| is_sound(&with(mended), number))
}

/// What a line was meant to be, the likeliest first.
fn guesses(line: &str) -> Vec<String> {
    let line = plain(line);
    let mut all = Vec::new();
    if line.starts_with('[') && !line.contains('=') {
        let name = line.trim_matches(['[', ']', ' ']);
        all.extend([format!("[[{name}]]"), format!("[{name}]")]);
        return all;
    }
    all.push(line.clone());
    let Some((key, value)) = line.split_once('=').or_else(|| line.split_once([':', ' '])) else { return all };
    let key = bare(key).replace(' ', "_");
    let value = value.trim().trim_start_matches('=').trim();
    let is_list = value.starts_with(['[', '{']);
    let items: Vec<String> = value
        .trim_matches(['[', ']', '{', '}'])
        .split([',', ' '])
        .map(bare)
        .filter(|item| !item.is_empty())
        .map(|item| format!("\"{item}\""))
        .collect();
    let digits = value.replace([',', '_'], "");
    let number = digits.parse::<u64>().map(|number| number.to_string()).ok();
    let values = [
        Some(value.to_owned()),
        number.filter(|_| !is_list),
        truth(value).map(|truth| truth.to_string()),
        (!is_list).then(|| format!("\"{}\"", bare(value))),
        value.contains('\\').then(|| format!("'{}'", bare(value))),
        Some(format!("[{}]", items.join(", "))),
    ];
    all.extend(values.into_iter().flatten().map(|value| format!("{key} = {value}")));
    all
}

/// A line with the characters that TOML knows, and its comment as one.
fn plain(line: &str) -> String {
    let line: String = line
        .chars()
        .filter(|c| !matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}' | '\r'))
        .map(|c| match c {
            '\u{2018}'..='\u{201f}' | '«' | '»' => '"',
            c if c.is_whitespace() => ' ',
            c => c,
        })
        .collect();
    let comment = [" //", "; #", " ;", " #"].iter().filter_map(|mark| line.find(mark)).min();
    let line = comment.map_or(&*line, |at| &line[..at]);
    line.trim().trim_end_matches([',', ';']).trim_end().to_owned()
}
