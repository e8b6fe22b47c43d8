//! What is said of a fixed set of bad configurations: the words, the places and the codes.
//!
//! The configurations are the files of `problems/`, the words are in `problems.golden`. The other
//! tests compare places and codes, so a message is written in one place only.

use super::*;
use crate::config::text::Code;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests");

/// Each configuration, with its problems or its warnings.
fn said() -> String {
    let directory = Path::new(DIRECTORY).join("problems");
    let mut files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut said = String::new();
    for file in files {
        said += &format!("==== {}\n", file.file_name().unwrap().display());
        let problems = match load(&Source { file: Some(file), ..Source::default() }, &Machine) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => problems.iter().cloned().collect(),
        };
        for problem in problems {
            said += &format!("\n[{}] {problem}\n", problem.code.as_str());
        }
        said += "\n";
    }
    let directory = directory.display().to_string();
    said.replace(&format!("{directory}/"), "").replace(&directory, "problems")
}

#[test]
fn the_words_are_those_of_the_golden_file() {
    let golden = Path::new(DIRECTORY).join("problems.golden");
    let said = said();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&golden, &said).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap();
    let changed = said.lines().zip(expected.lines()).find(|(said, expected)| said != expected);
    assert_eq!(changed, None, "BLESS=1 writes the file again");
    assert_eq!(said.len(), expected.len(), "BLESS=1 writes the file again");
}

#[test]
fn every_code_occurs() {
    let said = said();
    // A file can be right and need what the sandbox of a process has closed.
    for code in Code::ALL.iter().filter(|code| **code != Code::Sandboxed) {
        assert!(said.contains(&format!("\n[{}] ", code.as_str())), "{}", code.as_str());
    }
}
