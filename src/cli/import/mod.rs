//! `portway import`: the configuration of another tool as a file of portway.
//!
//! Owns the way from files to a file: it reads them, bounded, finds out their kind, has a reader of
//! that kind fill [`Imported`], and writes that as TOML. What is written has to pass the reader of
//! portway itself: a mapping that does not is left out, with the reason. What is lost stands in the
//! outcome as a comment and on standard error. No file is ever overwritten.

mod compose;
mod detect;
mod dnat;
mod frp;
mod haproxy;
mod iptables;
mod model;
mod nft;
mod nginx;
mod rathole;
mod realm;
mod rinetd;
mod socat;
mod ssh;
mod systemd;
mod tree;
mod words;
mod write;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use detect::Kind;
use model::{File, Imported};
use write::Written;

use super::{FAILED, fresh, print, say};
use crate::config::{self, HostView, STDIN, System, read_any, read_stdin};

/// The most that a file may have.
const MOST: u64 = 4 * 1024 * 1024;
const TOO_LARGE: &str = "more than 4 MiB";

/// Where a PROXY header of every peer is believed, as before.
const EVERY_PROXY: &str = "Name the proxies in `accept_proxy`: this believes everyone, as before.";
/// What a tunnel had.
const TUNNEL: &str = "portway makes no tunnel: it has to reach the target from where it listens";

/// What to import.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The files of the other tool; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The tool; without it, each file shows what it is
    #[arg(long, value_name = "KIND")]
    from: Option<Kind>,
    /// Write to this file, which must not exist, in place of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Import {
    /// Reads, writes, and says what is lost.
    pub(super) fn run(&self) -> ExitCode {
        let mut texts = Vec::new();
        for path in &self.files {
            match text_of(path) {
                Ok(text) => texts.push((path.display().to_string(), text)),
                Err(error) => say(&format!("portway: {}: {error}", path.display())),
            }
        }
        let (files, unknown) = sorted(&texts, self.from);
        for name in unknown {
            say(&format!(
                "portway: {name}: it is not clear which tool this is for; name it, as in --from nginx"
            ));
        }
        let names: Vec<&str> = texts.iter().map(|(name, _)| &**name).collect();
        let mut imported = read(&files);
        let kinds: Vec<&str> = files.iter().map(|(kind, _)| kind.as_str()).collect();
        let outcome = accepted(&mut imported, &names, &head(&kinds), &System);
        let told = imported.losses.iter().chain(imported.mappings.iter().flat_map(|mapping| &mapping.losses));
        let mut losses: Vec<_> = told.collect();
        losses.sort_by_key(|loss| loss.place);
        for loss in losses {
            say(&write::told(loss, &names));
        }
        match outcome {
            Err(problem) => {
                say(&format!(
                    "portway: what it wrote is refused by its own reader; please report this: {problem}"
                ));
                ExitCode::from(FAILED)
            }
            Ok(_) if imported.mappings.is_empty() => {
                say("portway: nothing was imported");
                ExitCode::from(FAILED)
            }
            Ok(text) => self.deliver(&text),
        }
    }

    /// Writes the outcome to where it was asked for.
    fn deliver(&self, text: &str) -> ExitCode {
        let Some(path) = &self.output else { return super::code_of(print(text), ExitCode::SUCCESS) };
        match fresh::write(path, text) {
            Ok(()) => {
                say(&format!("{} is written; next: portway check -c {}", path.display(), path.display()));
                ExitCode::SUCCESS
            }
            Err(error) => {
                say(&format!("portway: {error}"));
                ExitCode::from(FAILED)
            }
        }
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    let bytes =
        if path == Path::new(STDIN) { read_stdin(MOST, TOO_LARGE) } else { read_any(path, MOST, TOO_LARGE) };
    let bytes = bytes.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned())
}

/// The files by their kinds, in the order of the kinds' first files; and those of no known kind.
fn sorted<'t>(
    texts: &'t [(String, String)],
    from: Option<Kind>,
) -> (Vec<(Kind, Vec<File<'t>>)>, Vec<&'t str>) {
    let (mut kinds, mut unknown): (Vec<(Kind, Vec<File<'t>>)>, _) = (Vec::new(), Vec::new());
    for (number, (name, text)) in texts.iter().enumerate() {
        let file = File { number, name, text };
        let Some(kind) = from.or_else(|| Kind::of(file)) else {
            unknown.push(&**name);
            continue;
        };
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, files)) => files.push(file),
            None => kinds.push((kind, vec![file])),
        }
    }
    (kinds, unknown)
}

/// What is in the files.
fn read(files: &[(Kind, Vec<File<'_>>)]) -> Imported {
    let mut into = Imported::default();
    for (kind, files) in files {
        let read: fn(File<'_>, &mut Imported) = match kind {
            Kind::Rinetd => rinetd::read,
            Kind::Haproxy => haproxy::read,
            Kind::Nginx => nginx::read,
            Kind::Realm => realm::read,
            Kind::Compose => compose::read,
            Kind::Socat => socat::read,
            Kind::Ssh => ssh::read,
            Kind::Iptables => iptables::read,
            Kind::Nft => nft::read,
            Kind::Frp => frp::read,
            Kind::Systemd => {
                systemd::read(files, &mut into);
                continue;
            }
            Kind::Rathole => {
                rathole::read(files, &mut into);
                continue;
            }
        };
        files.iter().for_each(|file| read(*file, &mut into));
    }
    into.mappings.sort_by_key(|mapping| mapping.place);
    into
}

fn head(kinds: &[&str]) -> String {
    let kinds = kinds.join(" and ");
    let schema = fresh::schema_lines();
    format!(
        "{schema}# Imported from {kinds} by `portway import`. Read it, then try it: portway check -c FILE\n"
    )
}

/// The file, as the reader of portway takes it. A mapping that it refuses becomes a loss: two tools
/// may use one port.
///
/// # Errors
/// What the reader refuses, and belongs to no mapping.
fn accepted(
    imported: &mut Imported,
    names: &[&str],
    head: &str,
    host: &dyn HostView,
) -> Result<String, String> {
    loop {
        let Written { text, starts } = write::written(imported, names, head);
        let Err(problems) = config::load_text(Path::new("import.toml"), text.clone(), host) else {
            return Ok(text);
        };
        let mut refused: Vec<(usize, String)> = Vec::new();
        for problem in problems.iter() {
            let after = starts.partition_point(|start| *start <= problem.line);
            let Some(index) = after.checked_sub(1) else { return Err(problem.one_line()) };
            if refused.iter().all(|(known, _)| *known != index) {
                let message = problem.message.split(", first at ").next().unwrap_or_default();
                refused.push((index, message.to_owned()));
            }
        }
        refused.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (index, message) in refused {
            let mapping = imported.mappings.remove(index);
            imported.lose(mapping.place, mapping.origin, format!("portway refuses it: {message}"));
            imported.losses.extend(mapping.losses);
        }
    }
}

#[cfg(test)]
mod tests;
