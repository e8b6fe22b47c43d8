//! The layers of `src/lib.rs`: a module uses only what is declared above its own group.
//!
//! The order is read from the declarations themselves (groups are separated by blank lines), the uses from every
//! `crate::…` path under `src/`, also inside `use crate::{…}`. Comments and texts do not count.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_module_uses_only_the_layers_below_it() {
    let src = Path::new(ROOT).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).expect("the library's root");
    let layers = layers(&lib);
    assert!(layers.len() > 3, "no layers found in lib.rs: {layers:?}");
    let mut offences = Vec::new();
    for file in sources(&src) {
        let inside = file.strip_prefix(&src).expect("a file under src");
        let text = fs::read_to_string(&file).expect("a source file");
        for (line, offence) in offences_of(&layers, inside, &text) {
            offences.push(format!("src/{}:{line}: {offence}", inside.display()));
        }
    }
    assert!(offences.is_empty(), "a layer looks up:\n{}", offences.join("\n"));
}

#[test]
fn a_look_up_is_found_wherever_it_is_written() {
    let layers = layers("pub mod low;\n\npub mod left;\npub mod right;\n\npub mod high;\n");
    let lines = |text: &str| -> Vec<usize> {
        offences_of(&layers, Path::new("left/deep.rs"), text).into_iter().map(|(line, _)| line).collect()
    };
    assert_eq!(lines("use crate::low::A;\nuse crate::left::B;\n"), [0; 0]);
    assert_eq!(lines("use crate::low::A;\nuse crate::high::B;\n"), [2]);
    assert_eq!(lines("use crate::{\n    low::{A, B},\n    right::C,\n    high,\n};\n"), [3, 4]);
    assert_eq!(lines("fn f() -> crate::right::C { crate :: high::f() }\n"), [1, 1]);
    assert_eq!(lines("// crate::high\n/* crate::high\n crate::high */\n/// [high](crate::high)\n"), [0; 0]);
    assert_eq!(lines("const A: &str = \"crate::high // \\\" crate::high\";\nuse crate::high as h;\n"), [2]);
    assert_eq!(lines("const Q: char = '\"';\nuse crate::high;\nfn f<'a>(_: &'a str) {}\n"), [2]);
    assert_eq!(lines("use $crate::high;\nuse crate::nothing::X;\nuse crate::Root;\n"), [1]);
}

/// The group of every module, the lowest first.
fn layers(lib: &str) -> BTreeMap<String, usize> {
    let mut layers = BTreeMap::new();
    let mut group = 0;
    for line in lib.lines().map(str::trim) {
        if line.is_empty() {
            group += 1;
        }
        let item = line.strip_prefix("pub ").unwrap_or(line);
        if let Some(name) = item.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            layers.insert(name.to_owned(), group);
        }
    }
    layers
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

/// Where a file uses what its module may not: the line, and what it uses.
fn offences_of(layers: &BTreeMap<String, usize>, file: &Path, text: &str) -> Vec<(usize, String)> {
    let first = file.components().next().expect("a file has a name").as_os_str().to_string_lossy();
    let module = first.strip_suffix(".rs").unwrap_or(&first);
    // lib.rs and main.rs are above all.
    let Some(own) = layers.get(module) else { return Vec::new() };
    let looks_up = |name: &str| name != module && layers.get(name).is_some_and(|layer| layer >= own);
    let used = crate_paths(&code_of(text));
    let up = used.into_iter().filter(|(_, name)| looks_up(name));
    up.map(|(line, name)| (line, format!("{module} uses crate::{name}"))).collect()
}

/// The text with everything in comments and quotes blanked out; lines stay lines.
pub(crate) fn code_of(text: &str) -> String {
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

/// The first name of every path that starts with `crate::`, and its line.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate") {
        let before = code[..at].chars().next_back();
        let after = code[at + "crate".len()..].trim_start();
        let is_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let Some(path) = after.strip_prefix("::").filter(|_| !is_word).map(str::trim_start) else { continue };
        let line_of = |part: &str| 1 + code[..code.len() - part.len()].matches('\n').count();
        match path.strip_prefix('{') {
            Some(group) => paths.extend(group_items(group).map(|item| (line_of(item), first_name(item)))),
            None => paths.push((line_of(path), first_name(path))),
        }
    }
    paths
}

/// The items of a group of paths, each from its start to the end of the code; `group` starts inside the brace.
fn group_items(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    let mut starts = vec![0];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    starts.into_iter().map(move |start| group[start..].trim_start())
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn comments_wrap_at_a_hundred_columns() {
    let mut long = Vec::new();
    for file in sources(&Path::new(ROOT).join("src")) {
        let text = fs::read_to_string(&file).expect("a source file");
        let mut is_picture = false;
        let comments = text.lines().enumerate().filter(|(_, line)| {
            is_picture ^= line.contains("```");
            line.trim_start().starts_with("//") && !is_picture
        });
        // A word that does not fit has a line of its own.
        let is_long = |line: &str| line.chars().count() > 100 && line.split_whitespace().count() > 2;
        let too_long = comments
            .filter(|(_, line)| is_long(line))
            .map(|(at, _)| format!("{}:{}", file.display(), at + 1));
        long.extend(too_long);
    }
    assert!(long.is_empty(), "comments over 100 columns:\n{}", long.join("\n"));
}
