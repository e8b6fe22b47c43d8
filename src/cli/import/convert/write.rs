//! Mappings as a commented TOML file.
//!
//! Owns the order of keys and the quoting. Pure: the caller has the reader of portway look at the
//! outcome. Invariant: no text of another tool becomes anything but a string or a comment, and no
//! variable of portway.

use std::{collections::HashSet, fmt::Write as _};

use super::model::{Imported, Loss, Mapping, Place, Target, Value};
use crate::{
    cli::fresh::{quoted, quoted_key},
    mapping::publish::Protocols,
    text::clean_start,
};

/// The longest name of a mapping.
const LONGEST_NAME: usize = 64;
/// The longest comment about one thing.
const LONGEST: usize = 300;

/// A file that was written, with the first line of each mapping.
pub(crate) struct Written {
    /// The file.
    pub(crate) text: String,
    /// The line where each mapping begins, in the order of the mappings.
    pub(crate) starts: Vec<usize>,
}

/// Writes mappings. `files` are the names of what was imported, `head` is what the file begins
/// with.
pub(crate) fn written(imported: &Imported, files: &[&str], head: &str) -> Written {
    let mut text = head.to_owned();
    let mut starts = Vec::new();
    let mut names = HashSet::new();
    let mut losses: Vec<&Loss> = imported.losses.iter().collect();
    losses.sort_by_key(|loss| loss.place);
    let mut losses = losses.into_iter().peekable();
    for mapping in &imported.mappings {
        let mut is_first = true;
        while let Some(loss) = losses.next_if(|loss| loss.place < mapping.place) {
            if std::mem::take(&mut is_first) {
                text.push('\n');
            }
            lost(&mut text, loss, files);
        }
        text.push('\n');
        starts.push(text.lines().count() + 1);
        one(&mut text, mapping, files, &mut names);
    }
    if losses.peek().is_some() {
        text.push('\n');
    }
    for loss in losses {
        lost(&mut text, loss, files);
    }
    Written { text, starts }
}

/// A place as `file:line`.
pub(crate) fn placed(place: Place, files: &[&str]) -> String {
    format!("{}:{}", files.get(place.file).unwrap_or(&"?"), place.line)
}

/// A loss on one line.
pub(crate) fn told(loss: &Loss, files: &[&str]) -> String {
    let what = clean_start(&loss.what, LONGEST);
    let what = if what.is_empty() { String::new() } else { format!("{what}: ") };
    clean_start(
        &format!("{}: {what}{}", placed(loss.place, files), clean_start(&loss.why, LONGEST)),
        2 * LONGEST,
    )
}

fn lost(text: &mut String, loss: &Loss, files: &[&str]) {
    let _ = writeln!(text, "# not carried over: {}", told(loss, files));
}

fn one(text: &mut String, mapping: &Mapping, files: &[&str], names: &mut HashSet<String>) {
    let origin = clean_start(&mapping.origin, LONGEST);
    let _ = writeln!(text, "# {}: {origin}", clean_start(&placed(mapping.place, files), LONGEST));
    for note in &mapping.notes {
        let _ = writeln!(text, "# {}", clean_start(note, LONGEST));
    }
    for loss in &mapping.losses {
        lost(text, loss, files);
    }
    text.push_str("[[mapping]]\n");
    if let Some(name) = name_of(&mapping.name, names) {
        let _ = writeln!(text, "name = {}", quoted(&name));
    }
    match &*mapping.targets {
        [Target { address, weight: None, backup: false }]
            if mapping.listen.len() == 1 && mapping.hosts.is_empty() && !address.starts_with("srv:") =>
        {
            let protocol = match mapping.protocols {
                Protocols::Tcp => String::new(),
                other => format!("/{other}"),
            };
            let _ =
                writeln!(text, "publish = {}", quoted(&format!("{}:{address}{protocol}", mapping.listen[0])));
        }
        targets => {
            let _ = writeln!(text, "listen = {}", value(&Value::Texts(mapping.listen.clone())));
            if !targets.is_empty() {
                let _ = writeln!(text, "targets = {}", targets_of(targets));
            }
            if mapping.protocols != Protocols::Tcp {
                let _ = writeln!(text, "protocol = \"{}\"", mapping.protocols);
            }
        }
    }
    for (key, given) in &mapping.keys {
        let _ = writeln!(text, "{key} = {}", value(given));
    }
    if !mapping.hosts.is_empty() {
        text.push_str("[mapping.hosts]\n");
        for host in &mapping.hosts {
            let way = match (&*host.targets, &host.send_proxy) {
                ([Target { address, weight: None, backup: false }], None) => quoted(address),
                (targets, None) => targets_of(targets),
                (targets, Some(version)) => {
                    format!("{{ targets = {}, send_proxy = {} }}", targets_of(targets), quoted(version))
                }
            };
            let _ = writeln!(text, "{} = {way}", quoted_key(&host.name));
        }
    }
}

/// The name that a mapping gets: fit for a name, and of this mapping alone.
fn name_of(wish: &str, names: &mut HashSet<String>) -> Option<String> {
    let fit = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let base: String = wish.trim().chars().map(fit).take(LONGEST_NAME - 6).collect();
    let base = base.trim_matches('-');
    if base.is_empty() {
        return None;
    }
    let numbered = (2..).map(|number| format!("{base}-{number}"));
    let mut all = std::iter::once(base.to_owned()).chain(numbered);
    let name = all.find(|name| !names.contains(name))?;
    names.insert(name.clone());
    Some(name)
}

fn targets_of(targets: &[Target]) -> String {
    let target = |target: &Target| {
        if target.weight.is_none() && !target.backup {
            return quoted(&target.address);
        }
        let mut table = vec![("address", Value::Text(target.address.clone()))];
        table.extend(target.weight.map(|weight| ("weight", Value::Number(weight))));
        table.extend(target.backup.then_some(("backup", Value::Flag(true))));
        value(&Value::Table(table))
    };
    format!("[{}]", targets.iter().map(target).collect::<Vec<_>>().join(", "))
}

/// A value as TOML.
pub(crate) fn value(given: &Value) -> String {
    match given {
        Value::Text(text) => quoted(text),
        Value::Texts(texts) => {
            format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
        }
        Value::Number(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let entries = table.iter().map(|(key, given)| format!("{key} = {}", value(given)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}
