//! No circles between files: of two files of `src/`, at most one needs the other, straight or by way of others.
//!
//! A module and its own child may need each other: they are one thing in two files. What a file needs is read from its
//! paths. A name that a module passes on (`pub use`) counts as use of the file that defines it. Test code does not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::harness::{paths, sources, src};

/// The path of a module, as in `["relay", "tcp"]`; the crate itself is empty.
type Module = Vec<String>;

#[test]
fn no_two_files_need_each_other_but_a_module_and_its_child() {
    let src = src();
    let mut files = BTreeMap::new();
    for file in sources(&src) {
        let inside = file.strip_prefix(&src).expect("a file under src").with_extension("");
        let mut module: Module = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        if !module.iter().any(|part| part == "tests") && module != ["main"] {
            files.insert(module, fs::read_to_string(&file).expect("a source file"));
        }
    }
    assert!(files.len() > 100, "too few files: {}", files.len());
    let circles: Vec<_> = Graph::of(&files).circles().iter().map(|steps| steps.join("\n")).collect();
    assert!(circles.is_empty(), "files that need each other:\n{}", circles.join("\n\n"));
}

#[test]
fn a_circle_is_found_through_names_that_are_passed_on() {
    let circles = |files: &[(&str, &str)]| {
        let module =
            |path: &str| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let files = files.iter().map(|(path, text)| (module(path), (*text).to_owned())).collect();
        Graph::of(&files).circles()
    };
    let two = |a: &str, b: &str| {
        circles(&[("", "mod m;"), ("m", "pub use a::A; mod a; mod b;"), ("m::a", a), ("m::b", b)])
    };
    assert_eq!(two("use super::b::B;", "fn f() -> crate::m::A {}"), [["m::a needs m::b", "m::b needs m::a"]]);
    assert_eq!(
        two("use super::{b, C};\nfn f() { b::g() }", "use super::a;\nfn g() { a::f() }"),
        [["m::a needs m::b", "m::b needs m::a"]]
    );
    assert!(
        two("use super::b::B;", "// crate::m::A\n#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}")
            .is_empty()
    );
    assert!(two("use super::b::B;", "use crate::m::C;").is_empty(), "a module and its child");
    let three = [("", ""), ("a", "use crate::b::B;"), ("b", "use crate::c::C;"), ("c", "use crate::a::A;")];
    assert_eq!(circles(&three), [["a needs b", "b needs c", "c needs a"]]);
}

/// Which file needs which.
struct Graph {
    needs: BTreeMap<Module, BTreeSet<Module>>,
}

impl Graph {
    fn of(files: &BTreeMap<Module, String>) -> Self {
        let parsed: BTreeMap<_, _> = files.iter().map(|(module, text)| (module, Parsed::of(text))).collect();
        let mut needs = BTreeMap::new();
        for (module, file) in &parsed {
            let used = file.uses.iter().map(|(_, path)| path).chain(&file.paths);
            let found = used.filter_map(|path| defined_in(&parsed, module, path, 0));
            let apart =
                |other: &Module| *other != **module && !is_parent(other, module) && !is_parent(module, other);
            needs.insert((*module).clone(), found.filter(apart).collect::<BTreeSet<_>>());
        }
        Self { needs }
    }

    /// Every group of files that need each other, as the steps from one to the next.
    fn circles(&self) -> Vec<Vec<String>> {
        let reach: BTreeMap<_, _> = self.needs.keys().map(|module| (module, self.reach(module))).collect();
        let mut groups = BTreeSet::new();
        for (module, far) in &reach {
            if far.contains(*module) {
                groups.insert(far.iter().filter(|other| reach[other].contains(*module)).collect::<Vec<_>>());
            }
        }
        let steps = |group: &Vec<&Module>| {
            let within = |module: &&Module| self.needs[*module].iter().filter(|other| group.contains(other));
            let step = |from: &Module, to: &Module| format!("{} needs {}", from.join("::"), to.join("::"));
            group.iter().flat_map(|module| within(module).map(|other| step(module, other))).collect()
        };
        groups.iter().map(steps).collect()
    }

    fn reach(&self, from: &Module) -> BTreeSet<Module> {
        let (mut found, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(next) = open.pop() {
            for needed in &self.needs[next] {
                if found.insert(needed.clone()) {
                    open.push(needed);
                }
            }
        }
        found
    }
}

fn is_parent(parent: &Module, child: &Module) -> bool {
    child.split_last().is_some_and(|(_, rest)| rest == parent)
}

/// The file that defines what `path` means in `module`; `None` where that is not in this crate.
fn defined_in(
    files: &BTreeMap<&Module, Parsed>,
    module: &Module,
    path: &[String],
    depth: u8,
) -> Option<Module> {
    if depth > 8 {
        return None;
    }
    let mut at = module.clone();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => (at, rest) = (Module::new(), &rest[1..]),
        "self" => rest = &rest[1..],
        "super" => {}
        first => {
            let is_child = files.contains_key(&child(module, first));
            let is_used = files[module].uses.iter().any(|(name, _)| name == first);
            if !is_child && !is_used {
                return None;
            }
        }
    }
    while let Some((first, after)) = rest.split_first() {
        if first == "super" {
            at.pop();
        } else if files.contains_key(&child(&at, first)) {
            at.push(first.clone());
        } else {
            let file = files.get(&at)?;
            let used = file.uses.iter().find(|(name, _)| name == first);
            // A name that the file makes itself, or one that it passes on.
            return match used {
                Some((_, used)) if used.as_slice() != rest => {
                    let whole: Vec<_> = used.iter().chain(after).cloned().collect();
                    defined_in(files, &at, &whole, depth + 1)
                }
                _ => Some(at),
            };
        }
        rest = after;
    }
    Some(at)
}

fn child(module: &Module, name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// What a file says of others.
struct Parsed {
    /// The names that its `use` lines bring in, and the paths that they stand for.
    uses: Vec<(String, Vec<String>)>,
    /// The other paths in its code.
    paths: Vec<Vec<String>>,
}

impl Parsed {
    fn of(text: &str) -> Self {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let mut parsed = Self { uses: vec![], paths: vec![] };
        for named in paths(code) {
            match named.brings {
                Some(name) => parsed.uses.push((name, named.path)),
                None => parsed.paths.push(named.path),
            }
        }
        parsed
    }
}
