//! `[lists]`: named sets of addresses, written in the configuration or kept in files of their own.
//!
//! A list file is apart from the configuration: it may be large, and it changes by itself. The
//! daemon follows it and reads it with [`read_list`], by the same rules as here.

use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use crate::{
    config::{
        keys,
        lower::entries,
        source::Origin,
        text::{
            Code, Diagnostics, Keys, ReadError, Reader, SourceMap, Span, Text, Value,
            read::{absolute, read},
            table::closest,
        },
    },
    policy::{IpSet, ListError, ListName, ListSpec, parse_net},
};

/// The most that a list file may have, in bytes: some four million addresses.
const MOST: u64 = 64 * 1024 * 1024;
const TOO_LARGE: &str = "more than 64 MiB";
/// The longest name of a list, in characters.
const LONGEST_NAME: usize = 64;

/// A list as it is written.
#[derive(Clone)]
pub(crate) struct ListText {
    pub(crate) name: ListName,
    span: Span,
    /// Nothing where it could not be read.
    source: Option<ListSource>,
}

#[derive(Clone)]
enum ListSource {
    Inline(Vec<IpNet>),
    /// A file, which belongs to the directory of the file that names it.
    File(PathBuf, Text),
}

/// Reads `[lists]` of a file in `directory`.
pub(crate) fn lists(reader: &mut Reader<'_>, table: &DeTable<'_>, directory: &Path) -> Vec<ListText> {
    let mut lists = Vec::with_capacity(table.len());
    for (key, value) in table {
        let name: &str = key.get_ref();
        let span = reader.span(key.span());
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(plain) {
            reader
                .diagnostics
                .problem(Code::InvalidName, span, format!("`{name}` is not a name for a list"))
                .text(name)
                .hint("a name is 1 to 64 of the characters A-Z a-z 0-9 . _ -");
        }
        let source = source(reader, name, value, directory);
        lists.push(ListText { name: ListName(name.into()), span, source });
    }
    lists
}

/// Puts the lists of all files together: a name stands for one of them.
pub(crate) fn merged(all: impl Iterator<Item = ListText>, diagnostics: &mut Diagnostics) -> Vec<ListText> {
    let mut first_of: HashMap<ListName, Span> = HashMap::new();
    let mut merged = Vec::new();
    for list in all {
        if let Some(first) = first_of.get(&list.name) {
            let message = format!("the list \"{}\" is there twice, first at", list.name.0);
            diagnostics
                .problem(Code::DuplicateName, list.span, message)
                .also(*first)
                .hint("give each list a name of its own, over all files");
        } else {
            first_of.insert(list.name.clone(), list.span);
            merged.push(list);
        }
    }
    merged
}

fn source(reader: &mut Reader<'_>, name: &str, value: &Value<'_>, directory: &Path) -> Option<ListSource> {
    match value.get_ref() {
        DeValue::Table(table) => {
            file(reader, name, value, table).map(|text| ListSource::File(directory.to_owned(), text))
        }
        DeValue::Array(_) | DeValue::String(_) => Some(ListSource::Inline(inline(reader, name, value))),
        _ => {
            reader.wrong_type(name, value, "a list of addresses, or { file = \"...\" }");
            None
        }
    }
}

fn inline(reader: &mut Reader<'_>, name: &str, value: &Value<'_>) -> Vec<IpNet> {
    let at = reader.span(value.span());
    let mut nets = Vec::new();
    for text in reader.texts(name, at, value).items {
        if reader.diagnostics.is_full() {
            break;
        }
        match parse_net(&text.value) {
            Ok(net) => {
                nets.push(net);
                entries::warn_of_host_bits(reader.diagnostics, text.span(), &text.value);
            }
            Err(message) => {
                let looks_like_a_file = text.value.starts_with(['/', '.']) || text.value.ends_with(".txt");
                let note = entries::refuse(reader.diagnostics, text.span(), message).text(&text.value);
                if looks_like_a_file {
                    note.hint(format!("to read a file, write {name} = {{ file = \"{}\" }}", text.value));
                }
            }
        }
    }
    nets
}

fn file(reader: &mut Reader<'_>, name: &str, value: &Value<'_>, table: &DeTable<'_>) -> Option<Text> {
    let mut keys = Keys::of(table, &keys::LIST);
    let path = keys.get("file");
    keys.refuse_others(reader, "of a list");
    let Some(path) = path else {
        if !table.keys().any(|k| closest(k.get_ref(), &["file"]).is_some()) {
            let span = reader.span(value.span());
            reader
                .diagnostics
                .problem(Code::MissingKey, span, "a list without a `file`")
                .hint(format!("as in {name} = {{ file = \"{name}.txt\" }}"));
        }
        return None;
    };
    reader.path("file", path)
}

impl ListText {
    /// What it holds.
    pub(crate) fn load(
        self,
        sources: &mut SourceMap,
        diagnostics: &mut Diagnostics,
    ) -> Option<(ListSpec, Arc<IpSet>)> {
        match self.source? {
            ListSource::Inline(nets) => {
                let set = nets.iter().copied().collect();
                Some((ListSpec::Inline(nets), Arc::new(set)))
            }
            ListSource::File(directory, text) => {
                let path = directory.join(&text.value);
                let set = load_file(&path, text.span(), sources, diagnostics)?;
                Some((ListSpec::File(absolute(&path)), Arc::new(set)))
            }
        }
    }
}

/// Reads a list file; `from` is where the configuration names it.
fn load_file(
    path: &Path,
    from: Span,
    sources: &mut SourceMap,
    diagnostics: &mut Diagnostics,
) -> Option<IpSet> {
    let text = match text_of(path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("the list file {} cannot be read: {error}", path.display());
            let note = diagnostics.problem(Code::UnreadableFile, from, message);
            if let Some(hint) = error.hint() {
                note.hint(hint);
            }
            return None;
        }
    };
    match IpSet::parse(&text) {
        Ok(set) => {
            let doubtful = IpSet::with_host_bits(&text);
            if !doubtful.is_empty() {
                let ranges = ranges(&text, &doubtful);
                let file = sources.add(Origin::File(path.display().to_string()), text);
                for (line, range) in doubtful.into_iter().zip(ranges) {
                    entries::warn(diagnostics, file.part(range), line.message);
                }
            }
            Some(set)
        }
        Err(errors) => {
            let ranges = ranges(&text, &errors);
            let file = sources.add(Origin::File(path.display().to_string()), text);
            for (error, range) in errors.into_iter().zip(ranges) {
                entries::refuse(diagnostics, file.part(range), error.message);
            }
            None
        }
    }
}

/// Where the entries of the bad lines stand, less the spaces around them and the comments behind.
fn ranges(text: &str, errors: &[ListError]) -> Vec<Range<usize>> {
    let mut lines = text.split_inclusive('\n').enumerate();
    let (mut start, mut ranges) = (0, Vec::with_capacity(errors.len()));
    for error in errors {
        let range = lines.by_ref().find_map(|(i, line)| {
            let from = start + (line.len() - line.trim_start().len());
            start += line.len();
            let entry = line.split(['#', ';']).next().unwrap_or(line);
            (i + 1 == error.line).then(|| from..from + entry.trim().len())
        });
        ranges.push(range.unwrap_or(0..0));
    }
    ranges
}

/// The text of a list file. A comment in another encoding does not make the list unusable: what is
/// not UTF-8 is replaced, and no entry can be made of that.
fn text_of(path: &Path) -> Result<String, ReadError> {
    let bytes = read(path, MOST, TOO_LARGE)?;
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).map(<[u8]>::to_vec).unwrap_or(bytes);
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// Why a list file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListFileError {
    /// It cannot be read: why.
    #[error("{0}")]
    Unreadable(String),
    /// Lines of it are no entries; never empty.
    #[error("{}", first_of(.0))]
    Broken(Vec<ListError>),
}

fn first_of(errors: &[ListError]) -> String {
    let more = errors.len().saturating_sub(1);
    let first = errors.first().map(|e| format!("line {}: {}", e.line, e.message)).unwrap_or_default();
    if more == 0 { first } else { format!("{first} (and {more} more)") }
}

/// Reads a list file as [`crate::config::load`] does: at most 64 MiB, one entry a line, and
/// comments in any encoding.
///
/// # Errors
/// Where it cannot be read, or any line of it is not an entry.
pub(crate) fn read_list(path: &Path) -> Result<ListRead, ListFileError> {
    let text = text_of(path).map_err(|e| ListFileError::Unreadable(e.to_string()))?;
    let set = IpSet::parse(&text).map_err(ListFileError::Broken)?;
    Ok(ListRead { set, doubtful: IpSet::with_host_bits(&text) })
}

/// A list file that was read.
#[derive(Clone, Debug)]
pub(crate) struct ListRead {
    /// What it holds.
    pub set: IpSet,
    /// Lines that stand for a whole network although they have bits beyond their prefix, as
    /// [`IpSet::with_host_bits`] tells them.
    pub doubtful: Vec<ListError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_entries_are_found_without_what_stands_around_them() {
        let text = "\t bad \r\n\nfine\n  worse # why\n\nlast;";
        let errors = [1, 4, 6, 9].map(|line| ListError { line, message: String::new() });
        let words: Vec<_> = ranges(text, &errors).into_iter().map(|range| &text[range]).collect();
        assert_eq!(words, ["bad", "worse", "last", ""]);
    }

    #[test]
    fn a_list_in_another_encoding_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list.txt");
        std::fs::write(&path, b"\xef\xbb\xbf# caf\xe9\n").unwrap();
        assert_eq!(text_of(&path).unwrap(), "# caf\u{fffd}\n");
        assert!(read_list(&path).unwrap().set.is_empty());
        std::fs::File::options().write(true).open(&path).unwrap().set_len(MOST + 1).unwrap();
        assert_eq!(read_list(&path).unwrap_err().to_string(), "more than 64 MiB");
        assert_eq!(read_list(directory.path()).unwrap_err().to_string(), "it is a directory");
    }

    #[test]
    fn an_error_of_a_list_names_its_first_line() {
        let error = |line| ListError { line, message: "not an address".into() };
        assert_eq!(ListFileError::Broken(vec![error(3)]).to_string(), "line 3: not an address");
        let two = ListFileError::Broken(vec![error(3), error(9)]);
        assert_eq!(two.to_string(), "line 3: not an address (and 1 more)");
    }
}
