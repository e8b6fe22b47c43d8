//! The layers of `src/lib.rs`: a module uses only what is declared above its own group.
//!
//! The order is read from the declarations themselves (groups are separated by blank lines), the uses from every
//! `crate::…` path under `src/`, also inside `use crate::{…}`. Comments and texts do not count.

use std::{collections::BTreeMap, fs, path::Path};

use crate::harness::{paths, sources, src};

#[test]
fn every_module_uses_only_the_layers_below_it() {
    let src = src();
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

/// Where a file uses what its module may not: the line, and what it uses.
fn offences_of(layers: &BTreeMap<String, usize>, file: &Path, text: &str) -> Vec<(usize, String)> {
    let first = file.components().next().expect("a file has a name").as_os_str().to_string_lossy();
    let module = first.strip_suffix(".rs").unwrap_or(&first);
    // lib.rs and main.rs are above all.
    let Some(own) = layers.get(module) else { return Vec::new() };
    let looks_up = |name: &str| name != module && layers.get(name).is_some_and(|layer| layer >= own);
    let used = paths(text).into_iter().filter(|used| used.path[0] == "crate");
    let up = used.filter(|used| looks_up(&used.path[1]));
    up.map(|used| (used.line, format!("{module} uses crate::{}", used.path[1]))).collect()
}

#[test]
fn comments_wrap_at_a_hundred_columns() {
    let mut long = Vec::new();
    for file in sources(&src()) {
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
