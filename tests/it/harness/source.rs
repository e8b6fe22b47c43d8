//! The sources of the crate: its files, and the paths that a file names, in `use` items and in its other code.
//!
//! Comments and quoted texts do not count.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The directory of the sources.
pub(crate) fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file under a directory.
pub(crate) fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a source directory") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A path of two names or more, as in `["crate", "mapping", "Zone"]`. A group in a `use` item has one for each leaf.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) path: Vec<String>,
    /// The line of its last name, from 1.
    pub(crate) line: usize,
    /// The name that a `use` item brings in for it.
    pub(crate) brings: Option<String>,
}

/// The paths that a text of Rust names.
pub(crate) fn paths(text: &str) -> Vec<Named> {
    let code = code_of(text);
    let tokens = tokens(&code);
    let (mut rest, mut found) = (tokens.as_slice(), Vec::new());
    while let [(word, _), after @ ..] = rest {
        rest = match (*word, after) {
            // `use<'a>` in a type brings nothing in.
            ("use", [(next, _), ..]) if *next != "<" => tree(&[], after, true, &mut found),
            // How far an item can be seen is not a use.
            ("pub", [("(", _), ("in", _), path @ ..]) => tree(&[], path, false, &mut Vec::new()),
            // The rest of a path whose start is a type.
            ("::", [_, after @ ..]) => after,
            (name, [("::", _), ..]) if is_name(name) => tree(&[], rest, false, &mut found),
            _ => after,
        };
    }
    found
}

/// A word or a mark, and its line.
type Token<'a> = (&'a str, usize);

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let len = match first {
                ':' if rest.starts_with("::") => 2,
                c if is_part(c) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
                c => c.len_utf8(),
            };
            tokens.push((&rest[..len], line));
            rest = rest[len..].trim_start();
        }
    }
    tokens
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_name(token: &str) -> bool {
    token == "*" || token.starts_with(is_part)
}

/// Reads one path below `prefix`, with its groups in a `use` item, and gives what follows.
fn tree<'a, 'b>(
    prefix: &[String],
    mut rest: &'b [Token<'a>],
    is_use: bool,
    found: &mut Vec<Named>,
) -> &'b [Token<'a>] {
    let mut path = prefix.to_vec();
    let mut line = 0;
    loop {
        match rest {
            [("{", _), after @ ..] if is_use => {
                rest = after;
                while !matches!(rest, [] | [("}", _), ..]) {
                    rest = match tree(&path, rest, is_use, found) {
                        [(",", _), after @ ..] => after,
                        rest => rest,
                    };
                }
                return rest.get(1..).unwrap_or_default();
            }
            [(name, at), after @ ..] if is_name(name) => {
                path.push((*name).to_owned());
                (line, rest) = (*at, after);
            }
            // `Vec::<T>`: the rest belongs to a type.
            _ => break,
        }
        let [("::", _), after @ ..] = rest else { break };
        rest = after;
    }
    let mut brings = None;
    if is_use {
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        brings = path.last().cloned();
        if let [("as", _), (alias, _), after @ ..] = rest {
            (brings, rest) = (Some((*alias).to_owned()), after);
        }
    }
    if path.len() > 1 {
        found.push(Named { path, line, brings });
    }
    rest
}

/// The text with everything in comments and quotes blanked out; lines stay lines.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let len = match next {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest),
            '\'' if rest.starts_with("'\"'") => 3,
            _ => {
                code.push(next);
                rest = &rest[next.len_utf8()..];
                continue;
            }
        };
        code.extend(rest[..len].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[len..];
    }
    code
}

/// How long the text in quotes is that `rest` starts with.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
