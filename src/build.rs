//! Tells the program the commit that it was built from.
//!
//! The commit is `PORTWAY_COMMIT` from the environment where that is set: an image or a package is
//! built without the repository. Otherwise git is asked, and without git the commit is `unknown`.
//! Nothing else of the machine, the place or the time goes into the program, so that the same
//! source gives the same bytes.

use std::{env, error::Error, path::Path, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=PORTWAY_COMMIT");
    let root = env::var("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&root);
    let commit = match env::var("PORTWAY_COMMIT").ok().filter(|given| !given.is_empty()) {
        Some(given) if is_commit(&given) => given,
        Some(given) => {
            return Err(format!(
                "PORTWAY_COMMIT is {given:?}: give the commit as `git rev-parse HEAD` says it"
            )
            .into());
        }
        None => of_git(root).unwrap_or_else(|| "unknown".to_owned()),
    };
    // Cargo gives it to the programs of `cargo test`, too. They warn of unknown names that begin
    // with PORTWAY.
    println!("cargo::rustc-env=COMMIT_OF_PORTWAY={commit}");
    Ok(())
}

/// The commit of the repository whose top is `root`. The source may also lie somewhere inside
/// another repository, as a distribution has it: that one's commit says nothing.
fn of_git(root: &Path) -> Option<String> {
    let commit = git(root, &["rev-parse", "--verify", "HEAD"]).filter(|commit| is_commit(commit));
    // Without these, cargo would ask again for every change of any file.
    println!("cargo::rerun-if-changed=src/build.rs");
    // Every move of HEAD is a line of this file: a commit, a switch, a rebase.
    for file in ["logs/HEAD", "HEAD"] {
        let Some(path) = git(root, &["rev-parse", "--git-path", file]) else { continue };
        if root.join(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    commit
}

/// What git says, unless it fails.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(root).args(args);
    if let Some(above) = root.parent() {
        git.env("GIT_CEILING_DIRECTORIES", above);
    }
    let out = git.output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_owned())
}

/// Whether it is the name of a commit, short or whole.
fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
