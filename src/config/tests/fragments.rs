//! Texts that stand alone, here the labels of containers, beside files and specs.

use super::*;
use crate::config::source::Labels;

/// Files and specs, with labels that are read before them or after them.
struct Beside<'a> {
    before: &'a [(&'a str, &'a str)],
    files: Files,
    specs: &'a [&'a str],
    after: &'a [(&'a str, &'a str)],
}

impl Beside<'_> {
    fn load(&self) -> Result<Loaded, Problems> {
        let (mut fragments, mut diagnostics) = (Fragments::default(), Diagnostics::default());
        let publish = self.specs.iter().map(|spec| (*spec).to_owned()).collect();
        let file = Some(self.files.path("portway.toml"));
        let source = Source { file, publish, ..Source::default() };
        let add = |fragments: &mut Fragments, labels: &[(&str, &str)], diagnostics: &mut Diagnostics| {
            for (name, text) in labels {
                let span = fragments.sources.add(origin(name), (*text).to_owned());
                fragments.text((span, Path::new(""), false), &Machine, diagnostics);
            }
        };
        add(&mut fragments, self.before, &mut diagnostics);
        read(&source, &Machine, &mut fragments, &mut diagnostics);
        add(&mut fragments, self.after, &mut diagnostics);
        merge(fragments, diagnostics, &source, &Asked::new(&Machine))
    }

    /// The names of the listeners with their sockets, and what is left out.
    fn outcome(&self) -> (Vec<String>, Vec<String>) {
        let loaded = self.load().unwrap_or_else(|e| panic!("{e}"));
        let listeners = loaded.plan.listeners.iter().map(|(key, l)| format!("{} {key}", l.name)).collect();
        let out = loaded.warnings.iter().filter(|warning| warning.message.starts_with("left out: "));
        (listeners, out.map(|warning| self.files.brief(&warning.summary())).collect())
    }
}

/// A file with labels after it.
fn beside<'a>(text: &str, after: &'a [(&'a str, &'a str)]) -> Beside<'a> {
    Beside { before: &[], files: file(text), specs: &[], after }
}

/// The origin of a text that stands alone.
fn origin(name: &str) -> Origin {
    Origin::Container(Labels { container: name.into(), places: Arc::default() })
}

const A_FILE: &str = "[[mapping]]\nname = \"web\"\npublish = \"127.0.0.1:80:10.0.0.1:80\"\n";
const TWICE: &str = "127.0.0.1:80/tcp is listened on twice, first at";

#[test]
fn a_bad_text_that_stands_alone_is_left_out_of_a_good_plan() {
    for (text, problem) in [
        ("publish = [\"127.0.0.1:81:10.0.0.1:80x\"]", "container a: left out: "),
        ("publish = [\"127.0.0.1:81:10.0.0.1:80\"", "container a: left out: "),
        ("publish = [\"127.0.0.1:81:10.0.0.1:80\"]\nnothing = 1", "container a: left out: "),
        ("publish = [\"127.0.0.1:81:127.0.0.1:81\"]", "container a: left out: the target "),
    ] {
        let (listeners, out) = beside(A_FILE, &[("a", text)]).outcome();
        assert_eq!(listeners, ["web 127.0.0.1:80/tcp"], "{text}");
        assert_eq!(out.len(), 1, "{text}: {out:?}");
        assert!(out[0].starts_with(problem), "{text}: {out:?}");
    }
}

#[test]
fn what_is_left_out_leaves_nothing_behind() {
    let alone = loaded(A_FILE);
    let text = "[[mapping]]\nname = \"b\"\npublish = [\"0.0.0.0:23:10.0.0.1:23\", \"127.0.0.1:80:10.0.0.1:81\"]\nrouter = true\n";
    let beside = beside(A_FILE, &[("a", text)]).load().unwrap();
    assert_eq!(beside.plan, alone.plan);
    assert_eq!(beside.warnings.len(), alone.warnings.len() + 1, "{:?}", beside.warnings);
}

#[test]
fn a_bad_file_or_spec_refuses_everything() {
    let good = [("a", "publish = [\"127.0.0.1:81:10.0.0.1:80\"]")];
    let bad = Beside { specs: &["127.0.0.1:81x"], ..beside(A_FILE, &good) };
    let problems = bad.load().unwrap_err();
    assert_eq!(problems.len(), 1, "{problems}");
    assert_eq!(problems.iter().next().unwrap().file, "-p \"127.0.0.1:81x\"");
    let bad = beside("publish = [\"127.0.0.1:80x\"]", &[("a", "publish = [\"127.0.0.1:81x\"]")]);
    let problems = bad.load().unwrap_err();
    assert_eq!(problems.len(), 1, "{problems}");
    assert!(problems.iter().next().unwrap().file.ends_with("portway.toml"));
}

#[test]
fn what_stands_alone_loses_against_files_specs_and_decoys_in_any_order() {
    let text = format!("{A_FILE}[guard]\ntrap = [\"127.0.0.1:82\"]\n");
    let labels = [
        ("a", "publish = [\"127.0.0.1:80:10.0.0.2:80\"]"),
        ("b", "publish = [\"127.0.0.1:81:10.0.0.2:80\"]"),
        ("c", "publish = [\"127.0.0.1:82:10.0.0.2:80\"]"),
        ("d", "[[mapping]]\nname = \"web\"\npublish = \"127.0.0.1:83:10.0.0.2:80\""),
    ];
    let specs = &["127.0.0.1:81:10.0.0.1:80"];
    let expected = [
        format!("container a: left out: {TWICE} portway.toml:3:12"),
        "container b: left out: 127.0.0.1:81/tcp is listened on twice, first at -p \
         \"127.0.0.1:81:10.0.0.1:80\""
            .to_owned(),
        "container c: left out: 127.0.0.1:82/tcp is listened on twice, first at portway.toml:5:10".to_owned(),
        "container d: left out: the name \"web\" is used twice, first at portway.toml:2:9".to_owned(),
    ];
    let after = Beside { specs, ..beside(&text, &labels) };
    let before = Beside { before: &labels, after: &[], files: file(&text), specs };
    for (listeners, out) in [after.outcome(), before.outcome()] {
        assert_eq!(listeners, ["web 127.0.0.1:80/tcp", "81/tcp 127.0.0.1:81/tcp", "82/tcp 127.0.0.1:82/tcp"]);
        assert_eq!(out, expected);
    }
}

#[test]
fn of_two_that_stand_alone_the_first_wins() {
    let a = ("a", "publish = [\"127.0.0.1:81:10.0.0.1:80\"]");
    let b = ("b", "publish = [\"127.0.0.1:81:10.0.0.2:80\"]");
    for (labels, winner) in [([a, b], "10.0.0.1:80"), ([b, a], "10.0.0.2:80")] {
        let beside = beside(A_FILE, &labels);
        let (first, second) = (labels[0].0, labels[1].0);
        let left_out = format!(
            "container {second}: left out: 127.0.0.1:81/tcp is listened on twice, first at container {first}"
        );
        assert_eq!(beside.outcome().1, [left_out]);
        assert_eq!(plan(&beside.load().unwrap())[1], format!("81/tcp 127.0.0.1:81/tcp {winner}"));
    }
}

#[test]
fn a_text_that_clashes_only_with_what_is_left_out_stays() {
    let labels = [
        ("a", "publish = [\"127.0.0.1:80:10.0.0.1:80\", \"127.0.0.1:81:10.0.0.1:80\"]"),
        ("b", "publish = [\"127.0.0.1:81:10.0.0.2:80\"]"),
        ("c", "publish = [\"127.0.0.1:81:10.0.0.3:80\"]"),
    ];
    let (listeners, out) = beside(A_FILE, &labels).outcome();
    assert_eq!(listeners, ["web 127.0.0.1:80/tcp", "81/tcp 127.0.0.1:81/tcp"]);
    let a = format!("container a: left out: {TWICE} portway.toml:3:12");
    let c = "container c: left out: 127.0.0.1:81/tcp is listened on twice, first at container b";
    assert_eq!(out, [a, c.to_owned()]);
}

#[test]
fn a_problem_at_a_place_in_a_file_leaves_out_the_text_that_causes_it() {
    let circle = beside(
        "publish = [\"127.0.0.1:90:127.0.0.1:80\"]",
        &[("a", "publish = [\"127.0.0.1:80:127.0.0.1:90\"]")],
    );
    let (listeners, out) = circle.outcome();
    assert_eq!(listeners, ["90/tcp 127.0.0.1:90/tcp"]);
    let leads_back = "container a: left out: at portway.toml:1:13, the target 127.0.0.1:80 leads back in \
                      a circle: 127.0.0.1:80/tcp -> 127.0.0.1:90/tcp -> 127.0.0.1:80/tcp";
    assert_eq!(out, [leads_back]);

    let named = "[[mapping]]\nname = \"81/tcp\"\npublish = \"127.0.0.1:80:10.0.0.1:80\"\n";
    let (listeners, out) = beside(named, &[("a", "publish = [\"127.0.0.1:81:10.0.0.1:80\"]")]).outcome();
    assert_eq!(listeners, ["81/tcp 127.0.0.1:80/tcp"]);
    let default_name = "container a: left out: at portway.toml:2:9, the name \"81/tcp\" is the default name \
                        of the listener at container a";
    assert_eq!(out, [default_name]);
}

#[test]
fn what_a_good_text_says_is_in_the_plan() {
    let text = "[[mapping]]\nname = \"db\"\npublish = \"127.0.0.1:81:10.0.0.2:80\"\n";
    let loaded = beside(A_FILE, &[("a", text)]).load().unwrap();
    assert_eq!(loaded.warnings, []);
    let ids: Vec<_> = loaded.plan.mappings.keys().map(|id| id.name.to_string()).collect();
    assert_eq!(ids, ["db", "web"]);
    let of_label = loaded.plan.listeners.values().find(|l| l.name.as_str() == "db").unwrap();
    assert!(loaded.plan.mappings.contains_key(of_label.mapping.as_ref().unwrap()));
}

#[test]
fn a_spec_that_clashes_with_a_file_names_both_places() {
    let clash = Beside { specs: &["127.0.0.1:80:10.0.0.2:80"], ..beside(A_FILE, &[]) };
    let problems = clash.load().unwrap_err();
    let lines: Vec<_> = problems.iter().map(|p| clash.files.brief(&p.summary())).collect();
    assert_eq!(lines, [format!("-p \"127.0.0.1:80:10.0.0.2:80\" (column 1): {TWICE} portway.toml:3:12")]);
}
