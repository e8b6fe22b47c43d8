//! Files as they come: broken, hostile, included, and how problems are shown.

use super::*;
use crate::config::keys;

#[test]
fn a_problem_is_shown_with_its_line() {
    let files = file("# first\npublish = \"0:80\"\n");
    assert_eq!(
        files.brief(&files.load().unwrap_err().to_string()),
        "portway.toml:2:12: port 0 cannot be listened on\n  |\n2 | publish = \"0:80\"\n  |            ^\n  = help: use a port from 1 to 65535"
    );
}

#[test]
fn every_problem_is_reported_in_file_order() {
    let files = file(
        "publish = [\"0:1\"]\nfoo = 1\n[[mapping]]\nname = \"x\"\nidle_timeout = 30s\npublish = \"1:0\"\n[log]\nlevel = 3\n",
    );
    assert_eq!(
        files.problems(),
        [
            "portway.toml:1:13 invalid-spec",
            "portway.toml:2:1 unknown-key",
            "portway.toml:5:16 syntax",
            "portway.toml:6:14 invalid-spec",
            "portway.toml:8:9 wrong-type"
        ]
    );
}

#[test]
fn what_a_broken_line_hides_is_not_called_missing() {
    assert_eq!(problems("[[mapping]]\nname = \"a\npublish \"80:80\"\n"), ["2:10 syntax", "3:9 syntax"]);
    assert_eq!(problems("publish = [\"80:9\"]\npublish = [\"81:9\"]\n"), ["2:1 syntax"]);
    assert_eq!(problems("[[mapping]]\npublish = \n").len(), 1);
}

#[test]
fn line_ends_and_a_byte_order_mark_do_not_move_a_column() {
    assert_eq!(
        problems("\u{feff}publish = \"0:80\"\r\nfoo = 1\r\n[log]\r\nlevel = 'é0'\r\n")[..2],
        ["1:12 invalid-spec", "2:1 unknown-key"]
    );
    let files = file("foo = 1\r\n");
    assert!(files.load().unwrap_err().to_string().contains("\n1 | foo = 1\n  | ^^^\n"));
    assert_eq!(problems("publish = [\"ééé:80\", \"0:1\"]\n")[1], "1:23 invalid-spec");
}

#[test]
fn text_of_a_hostile_file_is_safe_on_a_terminal() {
    let files =
        file("\"\\u001b[31m\\u202e\\u009b\" = 1\n\tx = '''a\u{1b}]0;b\u{7}'''\npublish = \"8\u{202e}0:1\"\n");
    let problems = files.load().unwrap_err();
    let shown = format!("{problems}{}", serde_json::to_string(&problems.iter().collect::<Vec<_>>()).unwrap());
    assert!(shown.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{shown:?}");
    assert!(shown.contains("unknown key `\\u{1b}[31m\\u{202e}\\u{9b}`"), "{shown}");
}

#[test]
fn a_long_line_is_cut_around_the_mark() {
    let many = "\"nas.example.lan\", ".repeat(200);
    let files =
        file(&format!("publish = [\"81:9\", \"0:80\", {many}]\nfoo = [{many} {many}]\ninclude = [{many}"));
    let shown = files.load().unwrap_err().to_string();
    assert!(shown.lines().all(|l| l.len() < 300), "{shown}");
    assert!(shown.contains("...\n  |                     ^\n"), "{shown}");
}

#[test]
fn a_line_of_nothing_but_problems_is_no_burden() {
    let files = file(&format!("publish = [{}]", "\"é:0\",".repeat(100_000)));
    let problems = files.load().unwrap_err();
    assert_eq!(problems.len(), 10_000);
    let last = problems.iter().last().unwrap();
    assert_eq!((last.line, last.column), (1, 12 + 6 * 9_999 + 1));
}

#[test]
fn only_the_first_hundred_problems_are_printed() {
    let files = file(&"[[mapping]]\npublish = \"0:1\"\n".repeat(250));
    let problems = files.load().unwrap_err();
    assert_eq!(problems.len(), 250);
    let shown = problems.to_string();
    assert_eq!(shown.matches("cannot be listened on").count(), 100);
    assert!(shown.ends_with("\n\n... and 150 more"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let files = Files::new(&[("dir.toml/x", b"")]);
    assert_eq!(files.problems(), ["portway.toml:1:1 unreadable-file"]);
    let missing = files.load().unwrap_err();
    assert_eq!(missing.read.files, [files.path("portway.toml")]);
    let at = |path: PathBuf| {
        load(&Source { file: Some(path), publish: vec!["80:9".into()], ..Source::default() }, &Machine)
            .unwrap_err()
    };
    assert_eq!(files.line(at(files.path("dir.toml")).iter().next().unwrap()), "dir.toml:1:1 unreadable-file");
    assert_eq!(files.line(at("/dev/zero".into()).iter().next().unwrap()), "/dev/zero:1:1 unreadable-file");
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let files = file("");
    fs::File::options().write(true).open(files.path("portway.toml")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(files.problems(), ["portway.toml:1:1 unreadable-file"]);
}

#[test]
fn bytes_that_are_no_utf8_are_refused_with_their_place() {
    let files = Files::new(&[("portway.toml", b"a = 1\nb = '\xc3\xa9\xff'\n")]);
    assert_eq!(files.problems(), ["portway.toml:2:7 syntax"]);
    let files = Files::new(&[("portway.toml", b"\xff\xfea\0 \0")]);
    assert_eq!(files.problems(), ["portway.toml:1:1 syntax"]);
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("a = {}", "{a = ".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
        format!("publish = [{}", "\"80:80\", [".repeat(100_000)),
        "[".repeat(100_000),
    ] {
        let found = problems(&text);
        assert!(found.len() <= 2, "{found:?}");
    }
    assert_eq!(problems(&format!("a = {}", "[".repeat(1000))), ["1:85 syntax"]);
}

#[test]
fn included_files_add_mappings_under_the_defaults_of_the_main_file() {
    let files = Files::new(&[
        ("portway.toml", b"publish = [\"1:9\"]\ninclude = [\"conf.d/*.toml\", \"one.toml\", \"none/*.toml\"]\n[defaults]\nidle_timeout = \"1h\"\n"),
        ("conf.d/b.toml", b"publish = [\"3:9\"]\n"),
        ("conf.d/a.toml", b"[[mapping]]\nname = \"a\"\npublish = \"2:9\"\n"),
        ("conf.d/.hidden.toml", b"broken"),
        ("conf.d/c.txt", b"broken"),
        ("one.toml", b"include = [\"more/x.toml\"]\n"),
        ("more/x.toml", b"publish = \"4:9\"\n"),
    ]);
    let loaded = files.load().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        plan(&loaded),
        [
            "1/tcp [::]:1/tcp 127.0.0.1:9",
            "a [::]:2/tcp 127.0.0.1:9",
            "3/tcp [::]:3/tcp 127.0.0.1:9",
            "4/tcp [::]:4/tcp 127.0.0.1:9"
        ]
    );
    let hour = Timeout::After(Duration::from_secs(3600));
    assert!(
        loaded
            .plan
            .listeners
            .values()
            .all(|l| matches!(&l.service, Service::Tcp(s) if s.options.idle_timeout == hour))
    );
    let names = ["portway.toml", "conf.d/a.toml", "conf.d/b.toml", "one.toml", "more/x.toml"];
    assert_eq!(loaded.read.files, names.map(|n| files.path(n)));
    let patterns = ["conf.d/*.toml", "none/*.toml"].map(|p| files.path(p).display().to_string());
    assert_eq!(loaded.read.patterns, patterns);
}

#[test]
fn problems_of_included_files_come_after_those_of_the_main_file() {
    let files = Files::new(&[
        ("portway.toml", b"include = [\"a.toml\", \"gone.toml\", \"a.toml\", \"b.toml\", \"[x\", \"\"]\npublish = \"0:1\"\n"),
        ("a.toml", b"[log]\nlevel = \"info\"\n[defaults]\n[shutdown]\n[[mapping]]\nname = \"x\"\npublish = \"7:9\"\n"),
        ("b.toml", b"include = \"portway.toml\"\n[[mapping]]\nname = \"x\"\npublish = \"7:10\"\n"),
    ]);
    assert_eq!(
        files.problems(),
        [
            "portway.toml:1:23 unreadable-file",
            "portway.toml:1:36 repeated-include",
            "portway.toml:1:56 unreadable-file",
            "portway.toml:1:62 empty",
            "portway.toml:2:12 invalid-spec",
            "a.toml:1:2 misplaced-key",
            "a.toml:3:2 misplaced-key",
            "a.toml:4:2 misplaced-key",
            "b.toml:1:12 repeated-include",
            "b.toml:3:9 duplicate-name",
            "b.toml:4:12 port-in-use"
        ]
    );
}

#[test]
fn includes_go_only_so_deep() {
    let texts: Vec<_> = (0..12)
        .map(|i| {
            (format!("{i}.toml"), format!("include = \"{}.toml\"\npublish = \"{}:9\"\n", i + 1, i + 100))
        })
        .collect();
    let mut all: Vec<(&str, &[u8])> = texts.iter().map(|(n, t)| (n.as_str(), t.as_bytes())).collect();
    all.push(("portway.toml", b"include = \"0.toml\"\n"));
    assert_eq!(Files::new(&all).problems(), ["6.toml:1:12 too-many"]);
}

/// A copy of an example with keys that exist, where it names the usual place for keys.
fn with_keys(dir: &Path, example: PathBuf) -> PathBuf {
    use crate::knock::keys::{ClientKey, SERVER_KEY, server_line, server_public};
    const KEYS: &str = "/etc/portway/keys";
    let text = fs::read_to_string(&example).unwrap();
    if !text.contains(KEYS) {
        return example;
    }
    let secret = [7; 32];
    let anna = ClientKey::new("anna", [8; 32], server_public(&secret)).unwrap();
    fs::write(dir.join(SERVER_KEY), server_line(&secret)).unwrap();
    fs::write(dir.join("anna.pub"), anna.public_line()).unwrap();
    let copy = dir.join("example.toml");
    fs::write(&copy, text.replace(KEYS, dir.to_str().unwrap())).unwrap();
    copy
}

#[test]
fn every_example_loads_without_problems() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let keys = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for directory in [root.clone(), root.join("examples")] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml") {
                let is_annotated = path.ends_with("config/portway.toml");
                let path = with_keys(keys.path(), path);
                let loaded = load(&Source { file: Some(path.clone()), ..Source::default() }, &Machine);
                let loaded = loaded.unwrap_or_else(|e| panic!("{e}"));
                let is_empty = is_annotated || loaded.settings.docker.is_some();
                assert_eq!(loaded.plan.listeners.is_empty(), is_empty, "{}", path.display());
                let mut warnings = loaded.warnings.iter().map(|warning| &*warning.message);
                let nothing =
                    is_annotated.then_some("nothing is forwarded: the configuration has no mapping");
                assert_eq!((warnings.next(), warnings.next()), (nothing, None), "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 4);
}

const EXAMPLE: &str = include_str!("../../../config/portway.toml");

const HARDENED: &str = include_str!("../../../config/examples/rdp.toml");

/// Each table with its keys, as they are described.
fn every_key() -> Vec<(&'static str, &'static str)> {
    let of_tables =
        keys::HOMES.into_iter().flat_map(|(table, shape)| shape.all().map(move |key| (table, key.name)));
    let name = |table: &'static str| &table[1..table.len() - 1];
    of_tables.map(|(table, key)| (name(table), key)).chain([("lists", "blocked")]).collect()
}

#[test]
fn the_annotated_file_has_every_key() {
    for (table, key) in every_key() {
        assert!(EXAMPLE.contains(&format!("[{table}]")), "[{table}]");
        let has =
            |line: &str| line.trim_start_matches(['#', ' ']).split_once(" = ").is_some_and(|(k, _)| k == key);
        assert!(EXAMPLE.lines().any(has), "{key}");
    }
}

/// The annotated file with every example in it taken out of its comment.
fn uncommented() -> String {
    let shown = |line: &str| match line.strip_prefix("# ") {
        Some(text)
            if text.starts_with('[') || text.split_once(" = ").is_some_and(|(k, _)| !k.contains(' ')) =>
        {
            text.to_owned()
        }
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(|line| shown(line) + "\n").collect()
}

#[test]
fn what_the_annotated_file_shows_behind_a_mark_is_right_too() {
    let text = uncommented();
    for part in ["\n[router]\n", "\ntrap = ", "\nrouter = true\n", "\n[[mapping]]\n", "\npublish = ["] {
        assert!(text.contains(part), "{part}");
    }
    let loaded = loaded(&text);
    assert!(loaded.plan.listeners.len() > 10, "{:?}", plan(&loaded));
    let warned: Vec<_> = loaded.warnings.iter().map(|warning| &*warning.message).collect();
    assert_eq!(warned, ["include conf.d/*.toml: no file matches"]);
}

/// Reads it, and prints whatever is wrong with it.
fn survives(bytes: &[u8]) {
    let files = Files::new(&[("portway.toml", bytes)]);
    if let Err(problems) = files.load() {
        assert!(!problems.to_string().is_empty());
        for problem in &problems {
            assert!(problem.line >= 1 && problem.column >= 1, "{problem}");
        }
    }
}

/// A value of any type, right for some key or for none.
fn any_value() -> impl Strategy<Value = String> {
    let words = "(unlimited|auto|never|close|upnp|@[a-z]?|@|DE|UK|[0-9]{0,21}(/|/s|/min|/h|s|h|d|KiB|MB|Mbit)?(/s)?|\
                 [0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,3}|:[0-9]{1,6})?|\\[?::[0-9a-f%]{0,4}\\]?(/[0-9]{1,3}|:[0-9]{1,5})?|\
                 [0-9]{1,5}-[0-9]{1,5}|\\$\\{[A-Z:-]{0,6}\\}?|.{0,9})";
    let text = words.prop_map(|word| format!("'{}'", word.replace(['\'', '\n', '\r'], "")));
    let scalar = prop_oneof![
        4 => text,
        1 => any::<i64>().prop_map(|n| n.to_string()),
        1 => (0..70_000_i32).prop_map(|n| n.to_string()),
        1 => Just("99999999999999999999999999999999999999999".to_owned()),
        1 => any::<bool>().prop_map(|b| b.to_string()),
        1 => Just("1.5".to_owned()),
        1 => Just("1979-05-27".to_owned()),
    ];
    let key = "(external_port|ipv6|file|address|[a-z]{1,3})";
    scalar.prop_recursive(2, 8, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::hash_map(key, inner, 0..3).prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key} = {value}")).collect();
                format!("{{ {} }}", fields.join(", "))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
        survives(&bytes);
    }

    #[test]
    fn any_text_of_toml_characters_is_read_or_refused(text in "[\\[\\]{}=.,\"'a-c0-9:$\\\\\\n -]{0,80}") {
        survives(text.as_bytes());
        survives(format!("[[mapping]]\npublish = {text}\n").as_bytes());
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused(
        at in any::<prop::sample::Index>(), again in any::<prop::sample::Index>(), value in any_value(), other in any_value(),
    ) {
        let keys = every_key();
        let ((table, key), (table2, key2)) = (keys[at.index(keys.len())], keys[again.index(keys.len())]);
        survives(format!("[{table}]\n{key} = {value}\n[{table2}]\n{key2} = {other}\n").as_bytes());
        survives(format!("publish = \"80-90:9/tcp+udp\"\n[defaults]\n{key} = {value}\n{key2} = {other}\n").as_bytes());
        survives(format!("[[mapping]]\npublish = \"1-9:9\"\n{key} = {value}\n{key2} = {other}\n").as_bytes());
        survives(format!("{table} = {value}\n{table2} = {other}\n").as_bytes());
    }

    #[test]
    fn a_mutilated_example_is_read_or_refused(
        example in prop::sample::select(vec![uncommented(), HARDENED.to_owned()]),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, any::<Vec<u8>>()), 1..4),
    ) {
        let mut bytes = example.as_bytes().to_vec();
        for (at, len, with) in cuts {
            let at = at.index(bytes.len());
            let end = (at + len).min(bytes.len());
            bytes.splice(at..end, with.into_iter().take(8));
        }
        survives(&bytes);
    }

    #[test]
    fn an_example_with_words_exchanged_is_read_or_refused(
        example in prop::sample::select(vec![uncommented(), HARDENED.to_owned()]),
        a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
    ) {
        let text: String = example.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
        let mut words: Vec<&str> = text.split_inclusive([' ', '"', '\n', ',']).collect();
        let (a, b) = (a.index(words.len()), b.index(words.len()));
        words.swap(a, b);
        survives(words.concat().as_bytes());
    }
}
