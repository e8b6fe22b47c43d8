//! Taking keys out of a parsed table: the part of the reading that knows TOML, and no key by name.
//!
//! Each taker returns what it could read and notes what it could not, so that one mistake does not hide the next.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{HostView, expand::Text, place::Place, problem::Notes};

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// What reading a file needs.
pub(super) struct Reader<'a> {
    pub(super) file: Place,
    pub(super) text: &'a str,
    pub(super) host: &'a dyn HostView,
    pub(super) notes: &'a mut Notes,
}

/// Something that was given, and where.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A key that holds strings; some of them may have been unreadable.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) key: Place,
    pub(super) items: Vec<Text>,
    /// Every item was read.
    pub(super) is_whole: bool,
}

impl Reader<'_> {
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        self.file.with_span(span)
    }

    /// Refuses every key of `table` that is not one of `known`.
    pub(super) fn refuse_unknown(&mut self, table: &DeTable<'_>, inside: &str, known: &[&str]) {
        self.refuse_others(table, inside, known, &[]);
    }

    /// The same where there are keys that only this version does not have: `absent`.
    pub(super) fn refuse_others(
        &mut self,
        table: &DeTable<'_>,
        inside: &str,
        known: &[&str],
        absent: &[&str],
    ) {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let place = self.place(key.span());
            if absent.contains(&name) {
                self.notes
                    .problem(place, format!("`{name}` {inside} is not in this version"))
                    .hint("remove it");
                continue;
            }
            let hint = match closest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", known.join(", ")),
            };
            self.notes.problem(place, format!("unknown key `{name}` {inside}")).text(name).hint(hint);
        }
    }

    /// Notes that `key` holds something else than it should.
    pub(super) fn wrong_type(&mut self, key: &str, value: &Value<'_>, expected: &str) {
        let place = self.place(value.span());
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        let scalar = matches!(value.get_ref(), DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_));
        let written =
            self.text.get(value.span()).filter(|_| scalar && expected.contains("string")).map(str::to_owned);
        let note = self.notes.problem(place, format!("`{key}` is {expected}, not {article} {found}"));
        if let Some(written) = written {
            note.hint(format!("put it in quotes: \"{written}\""));
        }
    }

    /// A table, or nothing where it is none.
    pub(super) fn table<'t, 'i>(&mut self, key: &str, value: &'t Value<'i>) -> Option<&'t DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(key, value, &format!("a table, as in [{key}]"));
        }
        table
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str, value: &Value<'_>) -> Option<bool> {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false");
        }
        flag
    }

    /// A string, with its variables expanded.
    pub(super) fn text(&mut self, key: &str, value: &Value<'_>) -> Option<Text> {
        match value.get_ref() {
            DeValue::String(text) => self.expanded(text, value.span()),
            _ => {
                self.wrong_type(key, value, "a string");
                None
            }
        }
    }

    /// A string that names a file.
    pub(super) fn path(&mut self, key: &str, value: &Value<'_>) -> Option<Text> {
        let text = self.text(key, value)?;
        if text.value.is_empty() {
            self.notes.problem(text.place(), format!("`{key}` is empty")).hint("name a file");
            return None;
        }
        Some(text)
    }

    fn expanded(&mut self, value: &str, span: Range<usize>) -> Option<Text> {
        let place = self.place(span.clone());
        let raw = self.text.get(span.clone()).unwrap_or("");
        let inside = |quotes: usize| raw.get(quotes..raw.len().checked_sub(quotes)?);
        let quotes = [1, 3].into_iter().find(|q| inside(*q) == Some(value));
        let host = self.host;
        match Text::expand(value, place, quotes.map(|q| span.start + q), |name| host.env(name)) {
            Ok(text) => Some(text),
            Err((place, e)) => {
                self.notes.problem(place, e.message).hint(e.hint);
                None
            }
        }
    }

    /// A string or a list of strings.
    pub(super) fn texts(&mut self, key: &str, at: Place, value: &Value<'_>) -> List {
        self.list(key, at, value, |reader, item| reader.text(key, item))
    }

    /// One item or a list of them, each read by `item`.
    pub(super) fn list(
        &mut self,
        key: &str,
        at: Place,
        value: &Value<'_>,
        mut item: impl FnMut(&mut Self, &Value<'_>) -> Option<Text>,
    ) -> List {
        let mut list = List { key: at, items: Vec::new(), is_whole: true };
        let mut take = |reader: &mut Self, value: &Value<'_>| match item(reader, value) {
            Some(text) => list.items.push(text),
            None => list.is_whole = false,
        };
        match value.get_ref() {
            DeValue::Array(items) => items.iter().for_each(|v| take(self, v)),
            DeValue::String(_) | DeValue::Table(_) => take(self, value),
            _ => {
                self.wrong_type(key, value, "a list of strings");
                list.is_whole = false;
            }
        }
        list
    }
}

/// One word of a few, each with what it stands for.
pub(super) fn word<T: Copy>(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    words: &[(&str, T)],
) -> Option<T> {
    let text = reader.text(key, value)?;
    let known = words.iter().find(|(w, _)| *w == text.value);
    if known.is_none() {
        let all: Vec<_> = words.iter().map(|(w, _)| *w).collect();
        let hint = match closest(&text.value, &all) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("it is one of {}", all.join(", ")),
        };
        reader
            .notes
            .problem(text.place(), format!("unknown {key} `{}`", text.value))
            .text(&text.value)
            .hint(hint);
    }
    known.map(|(_, t)| *t)
}

/// A key with its place and its value.
pub(super) fn entry<'t, 'i>(
    reader: &Reader<'_>,
    table: &'t DeTable<'i>,
    key: &str,
) -> Option<(Place, &'t Value<'i>)> {
    let (name, value) = table.get_key_value(key)?;
    Some((reader.place(name.span()), value))
}

/// The word of `known` that `word` is a slip of, if any is close enough. Of a short word little is left when some of it is
/// wrong: it is a slip only of what begins so, or differs by a letter.
pub(super) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    const LONGEST: usize = 40;
    const SHORT: usize = 3;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let is_short = word.chars().count() <= SHORT;
    let is_like = |likeness: f64, k: &str| likeness > 0.8 && (!is_short || k.starts_with(&word));
    known
        .iter()
        .map(|k| (strsim::jaro_winkler(&word, k), *k))
        .filter(|(likeness, k)| is_like(*likeness, k) || strsim::damerau_levenshtein(&word, k) <= k.len() / 3)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
