//! The documents are true: every example loads, every command is one, and the README shows the files that exist.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::portway;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn readme() -> String {
    fs::read_to_string(Path::new(ROOT).join("README.md")).expect("the README")
}

/// The code blocks of a document that are marked with `language`.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<Vec<&str>> = None;
    let mut wanted = false;
    for line in document.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(mark)) => {
                wanted = mark.trim() == language;
                block = Some(Vec::new());
            }
            (Some(lines), Some(_)) => {
                if wanted {
                    found.push(lines.join("\n") + "\n");
                }
                block = None;
            }
            (Some(lines), None) => lines.push(line),
            (None, None) => {}
        }
    }
    found
}

/// The text with a key and a token that exist, where it names the usual ones.
fn with_keys(dir: &Path, text: &str) -> String {
    const KEYS: &str = "/etc/portway/keys";
    const TOKEN: &str = "/etc/portway/probe-token";
    let token = dir.join("probe-token");
    if text.contains(TOKEN) {
        fs::write(&token, "a token of 16 characters".replace(' ', "-")).expect("the test's own directory");
    }
    let text = text.replace(TOKEN, token.to_str().expect("a readable path"));
    if text.contains(KEYS) {
        portway([Path::new("key"), Path::new("new"), Path::new("anna"), Path::new("-o"), dir]).exits(0);
    }
    text.replace(KEYS, dir.to_str().expect("a readable path"))
}

/// The files of `config/`, examples included.
fn configs() -> Vec<PathBuf> {
    let config = Path::new(ROOT).join("config");
    let mut found = Vec::new();
    for dir in [config.join("examples"), config] {
        let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let files = entries.map(|entry| entry.expect("a directory entry").path());
        found.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")));
    }
    found
}

#[test]
fn every_toml_block_of_the_readme_is_a_good_configuration() {
    let blocks = blocks(&readme(), "toml");
    assert!(blocks.len() >= 3, "the README has {} blocks of TOML", blocks.len());
    for block in blocks {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("portway.toml");
        fs::write(&file, with_keys(dir.path(), &block)).expect("the test's own directory");
        portway([Path::new("check"), Path::new("-c"), &file]).exits(0);
    }
}

#[test]
fn every_file_of_config_is_a_good_configuration() {
    let files = configs();
    assert!(files.len() >= 3, "config/ has {} files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).expect("a file of config/");
        // Keys are read, and those of an example are nowhere.
        let dir = tempfile::tempdir().expect("a temporary directory");
        let with_keys = with_keys(dir.path(), &text);
        let copy = dir.path().join("portway.toml");
        fs::write(&copy, &with_keys).expect("the test's own directory");
        let file = if with_keys == text { &file } else { &copy };
        portway([Path::new("check"), Path::new("-c"), file]).exits(0);
    }
}

/// The annotated file.
fn annotated() -> String {
    fs::read_to_string(Path::new(ROOT).join("config/portway.toml")).expect("the annotated file")
}

/// Whether a line of the annotated file is an example in a comment: a table, or a key with its value.
fn example(line: &str) -> Option<&str> {
    let text = line.strip_prefix("# ")?;
    let is_key = text
        .split_once(" = ")
        .is_some_and(|(key, _)| key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'));
    (is_key || text.starts_with('[')).then_some(text)
}

/// The annotated file with every example in it taken out of its comment.
fn uncommented() -> String {
    annotated().lines().map(|line| example(line).unwrap_or(line).to_owned() + "\n").collect()
}

/// What `check --json` says of a configuration.
#[track_caller]
fn checked(text: &str) -> serde_json::Value {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("portway.toml");
    fs::write(&file, with_keys(dir.path(), text)).expect("the test's own directory");
    let ran = portway([Path::new("check"), Path::new("--json"), Path::new("-c"), &file]).exits(0);
    serde_json::from_str(&ran.out).expect("JSON")
}

#[test]
fn the_annotated_file_forwards_nothing_as_it_is() {
    let report = checked(&annotated());
    assert_eq!(report["mappings"], serde_json::json!([]));
    assert!(report["warnings"].to_string().contains("nothing is forwarded"), "{report}");
}

#[test]
fn every_example_in_a_comment_of_the_annotated_file_loads() {
    let (annotated, all) = (annotated(), uncommented());
    let names = |report: &serde_json::Value| -> Vec<String> {
        let listeners = report["mappings"].as_array().expect("a list");
        listeners.iter().filter_map(|listener| listener["name"].as_str().map(str::to_owned)).collect()
    };
    let found = names(&checked(&all));
    for name in ["8080/tcp", "2222/tcp", "minecraft", "web", "sites", "game", "camera"] {
        assert!(found.iter().any(|found| found == name), "{name} in {found:?}");
    }

    // And each of them alone, with the rest as it is.
    let mut mappings = Vec::new();
    for line in annotated.lines() {
        let text = example(line);
        match mappings.last_mut() {
            _ if text == Some("[[mapping]]") => mappings.push("[[mapping]]\n".to_owned()),
            Some(mapping) => {
                if line.starts_with("# ---- ") {
                    break;
                }
                *mapping += &text.map(|text| format!("{text}\n")).unwrap_or_default();
            }
            None => {}
        }
    }
    assert_eq!(mappings.len(), 5, "{mappings:#?}");
    for mapping in mappings {
        let report = checked(&format!("{annotated}\n{mapping}"));
        assert!(!names(&report).is_empty(), "{mapping}");
    }
}

#[test]
fn no_example_counts_a_udp_client_that_has_left_for_longer_than_minutes() {
    let read = |file: PathBuf| fs::read_to_string(file).expect("a file of config/");
    for text in configs().into_iter().map(read).chain([uncommented()]) {
        let report = checked(&text);
        for listener in report["mappings"].as_array().expect("a list") {
            let idle = listener["idle_timeout"].as_str().unwrap_or_default();
            let is_short = idle.ends_with('s') || matches!(idle, "1m" | "2m" | "3m" | "4m" | "5m");
            // A port of knocks leads nowhere: it has no clients that stay.
            let is_of_knocks =
                listener["idle_timeout"].is_null() && listener["targets"] == serde_json::json!([]);
            let is_tcp = listener["protocol"] == "tcp";
            assert!(is_tcp || is_of_knocks || is_short, "{listener} in\n{text}");
        }
    }
}

#[test]
fn the_examples_of_the_readme_are_the_files_of_config() {
    let blocks = blocks(&readme(), "toml");
    for name in ["minecraft", "rtsp-camera", "rdp"] {
        let path = format!("config/examples/{name}.toml");
        let file = fs::read_to_string(Path::new(ROOT).join(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(blocks.contains(&file), "{path} is not, word for word, a block of the README");
        assert!(readme().contains(&path), "the README does not name {path}");
    }
}

#[test]
fn every_shell_block_of_the_readme_is_shell() {
    let blocks = blocks(&readme(), "sh");
    assert!(blocks.len() >= 8, "the README has {} blocks of shell", blocks.len());
    for block in blocks {
        let parsed = Command::new("bash").args(["-n", "-c", &block]).output().expect("bash");
        assert!(parsed.status.success(), "{block}\n{}", String::from_utf8_lossy(&parsed.stderr));
    }
}

/// What follows `name` in each command of the README's shell blocks that starts with it, with or without `sudo`.
fn commands(name: &str) -> Vec<Vec<String>> {
    let joined = blocks(&readme(), "sh").concat().replace("\\\n", " ");
    let commands = joined.lines().flat_map(|line| line.split("&&")).map(|command| {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if words.first().is_some_and(|word| word == "sudo") { words[1..].to_vec() } else { words }
    });
    commands
        .filter(|words| words.first().is_some_and(|word| word == name))
        .map(|words| words[1..].to_vec())
        .collect()
}

#[test]
fn every_file_that_the_readme_installs_exists() {
    let installed: Vec<String> = commands("install").into_iter().flatten().collect();
    let sources: Vec<&String> = installed
        .iter()
        .filter(|word| ["config/", "systemd/"].iter().any(|dir| word.starts_with(dir)))
        .collect();
    assert!(sources.len() >= 2, "{installed:?}");
    for source in sources {
        assert!(Path::new(ROOT).join(source).is_file(), "{source}");
    }
}

#[test]
fn portway_understands_each_of_its_commands_in_the_readme() {
    let commands = commands("portway");
    assert!(commands.len() >= 3, "{commands:?}");
    for arguments in commands {
        // `--help` ends the program before it starts anything, but after a wrong option.
        portway(arguments.iter().map(String::as_str).chain(["--help"])).exits(0);
    }
}

#[test]
fn the_readme_says_edit_before_enable_and_ends_with_the_figures() {
    let readme = readme();
    let place = |text: &str| readme.find(text).unwrap_or_else(|| panic!("the README lacks {text:?}"));
    assert!(place("sudo nano /etc/portway/portway.toml") < place("systemctl enable --now portway"));
    assert!(place("build-essential") < place("git clone") && place("git clone") < place("cargo build"));
    let sections: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections[sections.len() - 2..], ["What it costs", "License"], "{sections:?}");
}

#[test]
fn every_link_inside_the_readme_leads_somewhere() {
    let readme = readme();
    let anchor = |title: &str| title.to_lowercase().replace(' ', "-").replace([':', ',', '.'], "");
    let titles = readme
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with("##")));
    let anchors: Vec<String> = titles.map(anchor).collect();
    let links: Vec<&str> =
        readme.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link).collect();
    assert!(links.len() >= 10, "{links:?}");
    for link in links {
        match link.strip_prefix('#') {
            Some(section) => assert!(anchors.iter().any(|anchor| anchor == section), "no section #{section}"),
            None if link.starts_with("https://") => {}
            None => assert!(Path::new(ROOT).join(link).exists(), "no file {link}"),
        }
    }
}

#[test]
fn every_spec_that_the_readme_shows_is_a_good_one() {
    // The rows of its table: | `8080:80` | …; other tables begin with words.
    let readme = readme();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let specs: Vec<&str> =
        rows.map(|(spec, _)| spec).filter(|spec| spec.contains(':') && !spec.contains([' ', '"'])).collect();
    assert!(specs.len() >= 8, "{specs:?}");
    for spec in specs {
        // The one that names an interface needs this machine to have it.
        if !spec.contains('%') {
            portway(["check", "-p", spec]).exits(0);
        }
    }
}

#[test]
fn the_pages_for_developers_name_files_that_exist() {
    for (page, beside) in
        [("src/README.md", "src"), (".github/CONTRIBUTING.md", "."), (".github/SECURITY.md", ".")]
    {
        let text = fs::read_to_string(Path::new(ROOT).join(page)).expect("a page for developers");
        let quoted = text.split('`').skip(1).step_by(2);
        let is_path = |word: &&str| {
            word.contains('/') && (word.ends_with(".rs") || word.ends_with('/')) && !word.contains('*')
        };
        let paths: Vec<_> = quoted.filter(is_path).collect();
        assert!(paths.len() > 5 || page.contains("SECURITY"), "{page} names few files: {paths:?}");
        for path in paths {
            let exists = |dir: &str| Path::new(ROOT).join(dir).join(path).exists();
            assert!(exists(beside) || exists("."), "{page} names {path}, which is not there");
        }
    }
}
