//! Files: reading them, bounded, and following `include`.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use crate::{
    config::{
        fragment::Fragments,
        host::HostView,
        source::{DEFAULT_FILE, NAME_A_MAPPING, Origin, STDIN},
        text::{
            Code, Diagnostics, ReadError, Span, Text,
            read::{CLOSED, absolute, cause, read, read_any, read_stdin},
        },
    },
    state::files,
};

/// The most that a configuration may have, all files together.
const MOST: u64 = 4 * 1024 * 1024;
const TOO_LARGE: &str = "more than 4 MiB of configuration";

/// How many files one pattern may match.
const MOST_MATCHES: usize = 4096;
/// How deep includes may go.
const DEEPEST: usize = 8;

/// The walk through the main file and what it includes.
pub(super) struct Walk<'a> {
    host: &'a dyn HostView,
    diagnostics: &'a mut Diagnostics,
    /// Takes the files, the main file first, each before what it includes.
    fragments: &'a mut Fragments,
    /// Where each file was included, by its canonical path; nowhere for the main file.
    seen: HashMap<PathBuf, Option<Span>>,
    /// The files that the current one was included by, itself last.
    above: Vec<PathBuf>,
    /// Where relative paths of the main file begin, if not in its directory.
    base: Option<PathBuf>,
    left: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        host: &'a dyn HostView,
        fragments: &'a mut Fragments,
        diagnostics: &'a mut Diagnostics,
    ) -> Self {
        Self { host, diagnostics, fragments, seen: HashMap::new(), above: Vec::new(), base: None, left: MOST }
    }

    /// Reads the main file and everything that it includes. Relative paths in it begin at `base`,
    /// or in its directory.
    pub(super) fn main(&mut self, path: &Path, base: Option<&Path>) {
        self.base = base.map(Path::to_owned);
        self.visit(path, None);
    }

    /// Takes in a text as the main file.
    pub(super) fn given(&mut self, path: &Path, text: String) {
        let span = self.fragments.sources.add(origin_of(path, None), text);
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        for include in &self.fragments.text((span, &directory, true), self.host, self.diagnostics) {
            self.include(&directory, include);
        }
    }

    fn visit(&mut self, path: &Path, from: Option<Span>) {
        let is_stdin = from.is_none() && path == Path::new(STDIN);
        if !is_stdin {
            self.fragments.read.files.push(absolute(path));
        }
        let bytes = match from {
            None if is_stdin => read_stdin(self.left, TOO_LARGE),
            None => read_any(path, self.left, TOO_LARGE),
            Some(_) => read(path, self.left, TOO_LARGE),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(e) => return self.unreadable(path, from, &e),
        };
        let identity = path.canonicalize().unwrap_or_else(|_| absolute(path));
        if let Some(from) = from
            && self.is_known(&identity, path, from)
        {
            return;
        }
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.seen.insert(identity.clone(), from);
        let Some(span) = self.text(origin_of(path, from), bytes) else {
            self.fragments.is_broken = true;
            return;
        };
        let base = self.base.as_deref().filter(|_| from.is_none());
        let directory = base.or(path.parent()).unwrap_or(Path::new("")).to_owned();
        let place = (span, directory.as_path(), from.is_none());
        let includes = self.fragments.text(place, self.host, self.diagnostics);
        self.above.push(identity);
        for include in &includes {
            self.include(&directory, include);
        }
        self.above.pop();
    }

    /// Takes in the text of a file, or notes that it is none.
    fn text(&mut self, origin: Origin, bytes: Vec<u8>) -> Option<Span> {
        const BOM: &str = "\u{feff}";
        match String::from_utf8(bytes) {
            Ok(mut text) => {
                if text.starts_with(BOM) {
                    text.drain(..BOM.len());
                }
                Some(self.fragments.sources.add(origin, text))
            }
            Err(e) => {
                let at = e.utf8_error().valid_up_to();
                let bytes = e.as_bytes();
                let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
                let message = format!("not UTF-8 text: byte 0x{:02x} at offset {at}", bytes[at]);
                let text = String::from_utf8_lossy(bytes).into_owned();
                let span = self.fragments.sources.add(origin, text).part(at..at + '\u{fffd}'.len_utf8());
                self.diagnostics.problem(Code::Syntax, span, message).hint(if is_utf16 {
                    "it looks like UTF-16: save it as UTF-8"
                } else {
                    "save the file as UTF-8"
                });
                None
            }
        }
    }

    fn unreadable(&mut self, path: &Path, from: Option<Span>, error: &ReadError) {
        self.fragments.is_broken = true;
        let is_default = from.is_none() && path == Path::new(DEFAULT_FILE);
        let hint = match error {
            // The person did not name this path, so the hint does not ask to check it.
            ReadError::Io(e) if is_default && e.kind() == io::ErrorKind::NotFound => Some(NAME_A_MAPPING),
            ReadError::Directory => Some("name a file; a pattern such as DIR/*.toml belongs in `include`"),
            _ => error.hint(),
        };
        let note = match from {
            Some(from) => {
                let message = format!("include {}: {error}", path.display());
                self.diagnostics.problem(Code::UnreadableFile, from, message)
            }
            None => {
                let span = self.fragments.sources.add(origin_of(path, from), String::new());
                let message = format!("the file cannot be read: {error}");
                self.diagnostics.problem(Code::UnreadableFile, span, message).whole_file()
            }
        };
        if let Some(hint) = hint {
            note.hint(hint);
        }
    }

    /// Notes that a file was read before.
    fn is_known(&mut self, identity: &Path, path: &Path, from: Span) -> bool {
        let Some(before) = self.seen.get(identity) else { return false };
        let path = path.display();
        if self.above.iter().any(|p| p == identity) {
            self.diagnostics
                .problem(Code::RepeatedInclude, from, format!("{path} includes itself"))
                .hint("keep included files in a directory of their own, as in conf.d/*.toml");
        } else if let Some(before) = before {
            self.diagnostics
                .problem(Code::RepeatedInclude, from, format!("{path} is included twice, first at"))
                .also(*before)
                .hint("include it once");
        }
        true
    }

    /// Follows an `include` of a file whose relative paths begin at `directory`.
    fn include(&mut self, directory: &Path, include: &Text) {
        let span = include.span();
        if self.above.len() >= DEEPEST {
            let message = format!("includes go more than {DEEPEST} files deep");
            self.diagnostics.problem(Code::TooMany, span, message);
            self.fragments.is_broken = true;
            return;
        }
        if include.value.is_empty() {
            self.diagnostics
                .problem(Code::Empty, span, "an include without a name")
                .hint("as in include = [\"conf.d/*.toml\"]");
            return;
        }
        if !include.value.contains(['*', '?', '[']) {
            return self.visit(&directory.join(&include.value), Some(span));
        }
        let pattern = |directory: &Path| {
            let escaped = glob::Pattern::escape(&directory.to_string_lossy());
            Path::new(&escaped).join(&include.value).to_string_lossy().into_owned()
        };
        // The empty path, which is the current directory, has no absolute form; that of a file in
        // it has.
        let in_directory = absolute(&directory.join("-"));
        self.fragments.read.patterns.push(pattern(in_directory.parent().unwrap_or(Path::new("/"))));
        match matches(&pattern(directory)) {
            Ok(found) if found.is_empty() => {
                self.diagnostics
                    .warning(Code::NoMatch, span, format!("include {}: no file matches", include.value))
                    .text(&include.value)
                    .hint(format!("the pattern begins at {}", shown(directory)));
            }
            Ok(found) if found.len() > MOST_MATCHES => {
                self.fragments.is_broken = true;
                let message = format!("include {}: more than {MOST_MATCHES} files", include.value);
                self.diagnostics
                    .problem(Code::TooMany, span, message)
                    .text(&include.value)
                    .hint("name a directory of their own, as in conf.d/*.toml");
            }
            Ok(found) => found.iter().for_each(|path| self.visit(path, Some(span))),
            Err(e) => {
                self.fragments.is_broken = true;
                let note = self
                    .diagnostics
                    .problem(Code::UnreadableFile, span, format!("include {}: {e}", include.value))
                    .text(&include.value);
                if matches!(&e, GlobError::Read(at) if files::is_closed(at.path())) {
                    note.hint(CLOSED);
                }
            }
        }
    }
}

fn origin_of(path: &Path, from: Option<Span>) -> Origin {
    let is_stdin = from.is_none() && path == Path::new(STDIN);
    Origin::File(if is_stdin { "standard input".to_owned() } else { path.display().to_string() })
}

/// A directory as a message shows it.
fn shown(directory: &Path) -> String {
    match directory.display().to_string() {
        empty if empty.is_empty() => "the current directory".to_owned(),
        path => path,
    }
}

/// What a pattern matches, sorted.
fn matches(pattern: &str) -> Result<Vec<PathBuf>, GlobError> {
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let all = glob::glob_with(pattern, options)?.take(MOST_MATCHES + 1);
    let mut found = all.collect::<Result<Vec<_>, _>>()?;
    found.sort();
    Ok(found)
}

#[derive(Debug, thiserror::Error)]
enum GlobError {
    #[error("not a pattern: {}", .0.msg)]
    Pattern(#[from] glob::PatternError),
    #[error("{}", cause(.0.error()))]
    Read(#[from] glob::GlobError),
}
