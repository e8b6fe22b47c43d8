//! `portway import`: the configuration of another tool as a file of portway.
//!
//! Owns the way from files to a file: it reads them, bounded, has [`convert`] turn them into TOML,
//! and puts the outcome where it was asked for. What is written has to pass the reader of portway
//! itself: a mapping that does not is left out, with the reason. What is lost stands in the
//! outcome as a comment and on standard error. No file is ever overwritten.

mod convert;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use convert::{Imported, Kind, Written};

use super::{FAILED, fresh, print, say, variables::Variables};
use crate::config::{self, HostView, STDIN, System, read_any, read_stdin};

/// The most that a file may have.
const MOST: u64 = 4 * 1024 * 1024;
const TOO_LARGE: &str = "more than 4 MiB";

/// What to import.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The files of the other tool; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The tool; without it, each file shows what it is [env: PORTWAY_IMPORT_FROM]
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    from: Option<Kind>,
    /// Write to this file, which must not exist, in place of standard output
    /// [env: PORTWAY_IMPORT_OUTPUT]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::as_str))
        .map(|word| Kind::named(&word).unwrap_or(Kind::Rinetd))
}

impl Import {
    /// The arguments with their variables.
    ///
    /// # Errors
    /// A variable with a value that it cannot have.
    pub(super) fn resolve<F: Fn(&str) -> Option<OsString>>(
        self,
        variables: &Variables<F>,
    ) -> Result<Self, clap::Error> {
        let from = variables.word("PORTWAY_IMPORT_FROM", &Kind::ALL.map(Kind::as_str), Kind::named)?;
        let output = variables.value("PORTWAY_IMPORT_OUTPUT").map(PathBuf::from);
        Ok(Self { from: self.from.or(from), output: self.output.or(output), ..self })
    }

    /// Reads, writes, and says what is lost.
    pub(super) fn run(&self) -> ExitCode {
        let mut texts = Vec::new();
        for path in &self.files {
            match text_of(path) {
                Ok(text) => texts.push((path.display().to_string(), text)),
                Err(error) => say(&format!("portway: {}: {error}", path.display())),
            }
        }
        let (files, unknown) = convert::sorted(&texts, self.from);
        for name in unknown {
            say(&format!(
                "portway: {name}: it is not clear which tool this is for; name it, as in --from nginx"
            ));
        }
        let names: Vec<&str> = texts.iter().map(|(name, _)| &**name).collect();
        let mut imported = convert::read(&files);
        let kinds: Vec<&str> = files.iter().map(|(kind, _)| kind.as_str()).collect();
        let outcome = accepted(&mut imported, &names, &head(&kinds), &System);
        for loss in imported.all_losses() {
            say(&convert::told(loss, &names));
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
        let Written { text, starts } = convert::written(imported, names, head);
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
