//! What the documents say is true: every example loads, and the README shows the files that are there.

use std::{
    fs,
    path::{Path, PathBuf},
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
        fs::write(&file, &block).expect("the test's own directory");
        portway([Path::new("check"), Path::new("-c"), &file]).exits(0);
    }
}

#[test]
fn every_file_of_config_is_a_good_configuration() {
    let files = configs();
    assert!(files.len() >= 3, "config/ has {} files", files.len());
    for file in files {
        portway([Path::new("check"), Path::new("-c"), &file]).exits(0);
    }
}

#[test]
fn no_example_counts_a_udp_client_that_has_left_for_longer_than_minutes() {
    for file in configs() {
        let ran = portway([Path::new("check"), Path::new("--json"), Path::new("-c"), &file]).exits(0);
        let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        for listener in report["mappings"].as_array().expect("a list") {
            let idle = listener["idle_timeout"].as_str().unwrap_or_default();
            let is_short = idle.ends_with('s') || matches!(idle, "1m" | "2m" | "3m" | "4m" | "5m");
            assert!(listener["protocol"] == "tcp" || is_short, "{}: {listener}", file.display());
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
fn every_spec_that_the_readme_shows_is_a_good_one() {
    // The rows of its table: | `8080:80` | …; other tables begin with words.
    let readme = readme();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let specs: Vec<&str> =
        rows.map(|(spec, _)| spec).filter(|spec| spec.contains(':') && !spec.contains(' ')).collect();
    assert!(specs.len() >= 8, "{specs:?}");
    for spec in specs {
        // The one that names an interface needs this machine to have it.
        if !spec.contains('%') {
            portway(["check", "-p", spec]).exits(0);
        }
    }
}
