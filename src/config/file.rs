//! One file: its tables as they are written, before anything is known of other files or other mappings.

use std::path::Path;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    absent,
    expand::Text,
    gate::GateText,
    lists::{self, ListText},
    overrides::{self, Overrides},
    settings::{self, LimitSettings, LogSettings, Settings},
    span::Span,
    table::{List, Reader, Value, entry, slip},
};
use crate::gateway::RouterSettings;

/// What a file says.
pub(super) struct FileText {
    pub(super) publish: Vec<Text>,
    pub(super) include: Vec<Text>,
    pub(super) mappings: Vec<MappingText>,
    pub(super) lists: Vec<ListText>,
    pub(super) main: MainText,
    /// It was not TOML throughout: what seems to be missing may stand in the broken lines.
    pub(super) is_broken: bool,
}

/// What only the main file says.
#[derive(Default)]
pub(super) struct MainText {
    pub(super) defaults: Overrides,
    pub(super) settings: Settings,
    pub(super) gate: GateText,
    /// Where `[router]` is, if anywhere.
    pub(super) router: Option<Span>,
}

/// A `[[mapping]]`, as it is written.
pub(super) struct MappingText {
    /// Its header.
    pub(super) span: Span,
    pub(super) name: Option<Text>,
    pub(super) publish: Option<List>,
    pub(super) listen: Option<List>,
    pub(super) targets: Option<List>,
    /// An unknown key may be one of those that are missing.
    pub(super) has_slip: bool,
    pub(super) overrides: Overrides,
}

const SHARED: [&str; 4] = ["publish", "include", "mapping", "lists"];
const MAIN_ONLY: [&str; 7] = ["defaults", "guard", "limits", "geoip", "router", "log", "shutdown"];

impl FileText {
    /// Reads a file whose relative paths begin at `directory`; `is_broken` where the parser could not take all of it, `is_main` where nothing
    /// included it.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        document: &DeTable<'_>,
        is_broken: bool,
        directory: &Path,
        is_main: bool,
    ) -> Self {
        let top: Vec<_> = SHARED.into_iter().chain(MAIN_ONLY).collect();
        reader.refuse_others(document, "at the top of the file", &top, &absent::OF_FILE);
        if !is_main {
            refuse_main_only(reader, document);
        }
        let mut texts = |key| {
            entry(reader, document, key).map(|(at, v)| reader.texts(key, at, v).items).unwrap_or_default()
        };
        Self {
            publish: texts("publish"),
            include: texts("include"),
            mappings: document.get("mapping").map(|v| mappings(reader, v)).unwrap_or_default(),
            lists: lists(reader, document, directory),
            main: MainText::read(reader, document),
            is_broken,
        }
    }
}

fn refuse_main_only(reader: &mut Reader<'_>, document: &DeTable<'_>) {
    for key in MAIN_ONLY {
        if let Some((span, _)) = entry(reader, document, key) {
            reader
                .diagnostics
                .problem(span, format!("[{key}] in an included file"))
                .hint("put it in the main file; its [defaults] hold for included mappings too");
        }
    }
}

/// The lists that a file has. Relative paths in it begin at `directory`.
fn lists(reader: &mut Reader<'_>, document: &DeTable<'_>, directory: &Path) -> Vec<ListText> {
    let table = document.get("lists").and_then(|v| reader.table("lists", v));
    table.map(|table| lists::lists(reader, table, directory)).unwrap_or_default()
}

impl MainText {
    fn read(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Self {
        let mut text = Self::default();
        if let Some(table) = document.get("defaults").and_then(|v| reader.table("defaults", v)) {
            refuse_in_defaults(reader, table);
            text.defaults = Overrides::read(reader, table);
        }
        text.gate = GateText::read(reader, document);
        if let Some(table) = document.get("limits").and_then(|v| reader.table("limits", v)) {
            text.settings.limits = LimitSettings::read(reader, table);
        }
        if let Some(value) = document.get("router")
            && let Some(table) = reader.table("router", value)
        {
            text.router = Some(reader.span(value.span()));
            text.settings.router = RouterSettings::read(reader, table);
        }
        if let Some(table) = document.get("log").and_then(|v| reader.table("log", v)) {
            text.settings.log = LogSettings::read(reader, table);
        }
        if let Some(table) = document.get("shutdown").and_then(|v| reader.table("shutdown", v))
            && let Some(grace) = settings::grace(reader, table)
        {
            text.settings.grace = grace;
        }
        text
    }
}

const OWN_KEYS: [&str; 4] = ["name", "publish", "listen", "targets"];

fn mapping_keys() -> Vec<&'static str> {
    OWN_KEYS.into_iter().chain(overrides::keys()).collect()
}

/// `[defaults]` takes every key of a mapping but those that make it this one.
fn refuse_in_defaults(reader: &mut Reader<'_>, table: &DeTable<'_>) {
    reader.refuse_others(table, "in [defaults]", &mapping_keys(), &absent::OF_MAPPING);
    for key in OWN_KEYS {
        if let Some((span, _)) = entry(reader, table, key) {
            reader
                .diagnostics
                .problem(span, format!("`{key}` has no default"))
                .hint("it belongs in a [[mapping]]");
        }
    }
}

fn mappings(reader: &mut Reader<'_>, value: &Value<'_>) -> Vec<MappingText> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().filter_map(|item| mapping(reader, item)).collect(),
        DeValue::Table(table) => {
            let span = reader.span(value.span());
            let named = table.iter().find(|(key, value)| {
                value.get_ref().is_table() && !mapping_keys().contains(&&**key.get_ref())
            });
            let note = reader.diagnostics.problem(span, "`mapping` is a list of tables");
            if let Some((name, _)) = named {
                note.hint(format!(
                    "write [[mapping]], with two brackets, and below it name = {:?}",
                    name.get_ref()
                ));
                return Vec::new();
            }
            note.hint("write [[mapping]], with two brackets");
            mapping(reader, value).into_iter().collect()
        }
        _ => {
            reader.wrong_type("mapping", value, "a list of tables, as in [[mapping]]");
            Vec::new()
        }
    }
}

fn mapping(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<MappingText> {
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong_type("mapping", value, "a list of tables, as in [[mapping]]");
        return None;
    };
    reader.refuse_others(table, "in [[mapping]]", &mapping_keys(), &absent::OF_MAPPING);
    Some(MappingText {
        span: reader.span(value.span()),
        name: table.get("name").and_then(|v| reader.text("name", v)),
        publish: list(reader, table, "publish", |r, v| r.text("publish", v)),
        listen: list(reader, table, "listen", |r, v| r.text("listen", v)),
        targets: list(reader, table, "targets", target),
        has_slip: table.keys().any(|key| has_slip(key.get_ref())),
        overrides: Overrides::read(reader, table),
    })
}

/// Whether a key was meant as one of those without which a mapping promises nothing.
fn has_slip(key: &str) -> bool {
    let keys = mapping_keys();
    !keys.contains(&key) && slip(key, &keys).is_some_and(|meant| OWN_KEYS[1..].contains(&meant))
}

fn list(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    key: &str,
    item: fn(&mut Reader<'_>, &Value<'_>) -> Option<Text>,
) -> Option<List> {
    let (at, value) = entry(reader, table, key)?;
    let mut list = reader.list(key, at, value, item);
    if list.items.is_empty() && list.is_whole {
        list.is_whole = false;
        let span = reader.span(value.span());
        if key == "targets" {
            reader.diagnostics.problem(span, "`targets` is empty").hint("name at least one");
        } else {
            // A mapping whose last listener was taken out has to close, as one that was removed.
            reader
                .diagnostics
                .warning(span, format!("`{key}` is empty: this mapping forwards nothing"))
                .hint("add an entry, or remove the mapping");
        }
    }
    Some(list)
}

/// A target: its address, or a table that holds it.
fn target(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Text> {
    match value.get_ref() {
        DeValue::Table(table) => {
            reader.refuse_others(table, "of a target", &["address"], &absent::OF_TARGET);
            let address = table.get("address");
            if address.is_none() && !table.keys().any(|k| slip(k.get_ref(), &["address"]).is_some()) {
                let span = reader.span(value.span());
                reader
                    .diagnostics
                    .problem(span, "a target without an `address`")
                    .hint("as in { address = \"10.0.0.7:3389\" }");
            }
            reader.text("address", address?)
        }
        DeValue::String(_) => reader.text("targets", value),
        _ => {
            reader.wrong_type("targets", value, "a list of strings or of tables { address = \"...\" }");
            None
        }
    }
}
