//! The labels of a container as a text of TOML, so that they are read as any file is.
//!
//! `portway.publish` is the key `publish` of the container's mapping, `portway.mc.publish` that of
//! its mapping `mc`; what follows with a further dot is a table, as in
//! `portway.mc.router.external_port`. A value is text. It is taken as TOML where it is a number, a
//! flag, or where it is written as a list, a table or a string of TOML; a list may also be written
//! with commas. Whatever a value holds, it stays one value: it can add no key and no table.
//!
//! All labels of a container hold together. One that is wrong may be the `allow` of another, so
//! that the whole container is left out.

use std::{collections::BTreeMap, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::{
    containers::{Container, Label},
    source::Labels,
};
use crate::mapping::MappingName;

/// The keys that hold a list of strings.
const LISTS: [&str; 8] =
    ["publish", "listen", "targets", "allow", "deny", "allow_countries", "deny_countries", "accept_proxy"];
/// The keys that hold a text, even one that looks like a number.
const TEXTS: [&str; 8] = ["name", "motd", "players", "send", "expect", "source", "match", "log"];
/// The keys whose spaces at the ends mean something.
const SPACED: [&str; 3] = ["motd", "send", "expect"];
/// The longest label, name and value together.
const LONGEST: usize = 16 << 10;
/// The most labels of one container.
const MOST: usize = 1000;

/// A text of TOML that was made of labels.
pub(super) struct LabelText {
    pub(super) text: String,
    pub(super) origin: Labels,
    /// What is wrong already: the place in the text, what is wrong, and the cure.
    pub(super) problems: Vec<(usize, String, String)>,
}

/// A label in its mapping: the rest of its path, the key first.
struct Entry<'l> {
    label: &'l Label,
    path: Vec<&'l str>,
}

/// Makes one text of all labels. `keys` are those of a mapping.
pub(super) fn text_of(container: &Container, keys: &[&str]) -> LabelText {
    let mut made = LabelText {
        text: String::new(),
        origin: Labels { container: container.name.as_str().into(), places: Arc::default() },
        problems: Vec::new(),
    };
    let mut groups: BTreeMap<Option<&str>, Vec<Entry<'_>>> = BTreeMap::new();
    for label in container.labels.iter().take(MOST) {
        let mut path: Vec<&str> = label.name.get(label.at..).unwrap_or_default().split('.').collect();
        let is_key = path.len() == 1 || keys.contains(&path[0]);
        let group = if is_key { None } else { Some(path.remove(0)) };
        groups.entry(group).or_default().push(Entry { label, path });
    }
    let mut places = Vec::new();
    for (group, entries) in &groups {
        // The mapping itself stands where it says what it publishes.
        let first = entries.iter().find(|e| e.path == ["publish"] || e.path == ["listen"]);
        let first = first.or(entries.first()).map(|entry| entry.label);
        places.extend(first.map(|label| (made.text.len(), label.name.as_str().into())));
        made.text.push_str("[[mapping]]\n");
        if !entries.iter().any(|entry| entry.path == ["name"]) {
            made.text.push_str(&format!("name = {}\n", quoted(&name(container, *group))));
        }
        for entry in entries {
            places.push((made.text.len(), entry.label.name.as_str().into()));
            if entry.label.name.len() + entry.label.value.len() > LONGEST {
                let message = format!("the label is longer than {} KiB", LONGEST >> 10);
                made.problems.push((made.text.len(), message, "put this mapping into a file".to_owned()));
                continue;
            }
            if let Some(other) = entries.iter().find(|other| is_above(other, entry)) {
                let message =
                    format!("it is a part of the label `{}`, which has a value of its own", other.label.name);
                let cure = "write all of it in one of the two".to_owned();
                made.problems.push((made.text.len(), message, cure));
                continue;
            }
            made.text.push_str(&line(entry));
        }
    }
    if let Some(more) = container.labels.len().checked_sub(MOST).filter(|more| *more > 0) {
        made.problems.push((0, format!("{more} labels more than {MOST}"), "use fewer".to_owned()));
    }
    made.origin.places = places.into();
    made
}

/// Whether a label names what another one names a part of.
fn is_above(other: &Entry<'_>, entry: &Entry<'_>) -> bool {
    other.path.len() < entry.path.len() && entry.path.starts_with(&other.path)
}

/// The default name of a mapping: that of the container, with the group.
fn name(container: &Container, group: Option<&str>) -> String {
    let group = group.map(|group| format!(".{group}")).unwrap_or_default();
    let room = MappingName::MAX_LEN.saturating_sub(group.len());
    let name: String = container.name.chars().take(room).collect();
    name + &group
}

/// `key = value`, with a line break.
fn line(entry: &Entry<'_>) -> String {
    let mut path = entry.path.clone();
    let host;
    if let ["hosts", rest @ ..] = &entry.path[..]
        && !rest.is_empty()
    {
        // The dots of a host name make no tables.
        host = rest.join(".");
        path = vec!["hosts", &host];
    }
    let key = path.iter().map(|step| key(step)).collect::<Vec<_>>().join(".");
    format!("{key} = {}\n", value(&path, &entry.label.value))
}

fn key(step: &str) -> String {
    let is_bare = !step.is_empty() && step.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(&c));
    if is_bare { step.to_owned() } else { quoted(step) }
}

/// A value, as TOML writes it.
fn value(path: &[&str], text: &str) -> String {
    let trimmed = text.trim();
    let last = path.last().copied().unwrap_or_default();
    if trimmed.starts_with(['[', '{', '"', '\'']) && is_one_value(trimmed) {
        return trimmed.to_owned();
    }
    if path.len() == 1 && LISTS.contains(&last) {
        let items: Vec<String> =
            trimmed.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty()).map(quoted).collect();
        return format!("[{}]", items.join(", "));
    }
    let is_number = !trimmed.is_empty()
        && trimmed.len() <= 18
        && trimmed.bytes().all(|c| c.is_ascii_digit())
        && (trimmed == "0" || !trimmed.starts_with('0'));
    let is_text = TEXTS.contains(&last) || path.first() == Some(&"hosts");
    if !is_text && (is_number || matches!(trimmed, "true" | "false")) {
        return trimmed.to_owned();
    }
    quoted(if SPACED.contains(&last) { text } else { trimmed })
}

/// Whether a text is one value of TOML, and nothing beside it.
fn is_one_value(text: &str) -> bool {
    let text = format!("x = {text}\n");
    DeTable::parse(&text).is_ok_and(|table| {
        let table = table.get_ref();
        table.len() == 1 && !table.get("x").is_none_or(|x| matches!(x.get_ref(), DeValue::Datetime(_)))
    })
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\u{0}'..='\u{1f}' | '\u{7f}' => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
