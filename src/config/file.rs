//! One file: its tables as they are written, before anything is known of other files or other
//! mappings.

use std::{path::Path, time::SystemTime};

use toml::de::{DeTable, DeValue};

use crate::{
    config::{
        containers::Home,
        keys,
        lower::{
            api::ApiText,
            daemon::DaemonSettings,
            docker::DockerText,
            gate::GateText,
            hosts::HostsText,
            labels,
            lists::{self, ListText},
            log::LogSettings,
            overrides::Overrides,
            settings::{self, LimitSettings, Settings},
            target::{self, TargetText},
        },
        text::{Code, Keys, List, Reader, Span, Text, Value},
    },
    gateway::RouterSettings,
};

/// What a file says.
#[derive(Clone, Default)]
pub(super) struct FileText {
    pub(super) publish: Vec<Text>,
    pub(super) include: Vec<Text>,
    pub(super) mappings: Vec<MappingText>,
    pub(super) lists: Vec<ListText>,
    pub(super) main: MainText,
    /// The names of mappings that are paused; the managed file has them.
    pub(super) paused: Vec<Text>,
    /// Where a target is whose host is not named, if not on this machine.
    pub(super) home: Option<Home>,
    /// It was not TOML throughout: what seems to be missing may stand in the broken lines.
    pub(super) is_broken: bool,
}

/// What only the main file says.
#[derive(Clone, Default)]
pub(super) struct MainText {
    pub(super) defaults: Overrides,
    pub(super) settings: Settings,
    pub(super) gate: GateText,
    pub(super) api: ApiText,
    /// Where `[router]` is, if anywhere.
    pub(super) router: Option<Span>,
    pub(super) docker: Option<DockerText>,
}

/// A `[[mapping]]`, as it is written.
#[derive(Clone)]
pub(super) struct MappingText {
    /// Its header.
    pub(super) span: Span,
    pub(super) name: Option<Text>,
    pub(super) publish: Option<List>,
    pub(super) listen: Option<List>,
    pub(super) targets: Option<List<TargetText>>,
    pub(super) hosts: Option<HostsText>,
    /// An unknown key may be one of those that are missing.
    pub(super) has_slip: bool,
    /// When it ends by itself; the managed file can say so.
    pub(super) until: Option<SystemTime>,
    pub(super) overrides: Overrides,
}

/// Which keys a file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// The file that a person names: everything.
    Main,
    /// One that is included: mappings and lists.
    Included,
    /// The managed file: mappings, and what the API keeps of them.
    Managed,
    /// The labels of a container: mappings. They may open ports on the router where the flag says
    /// so.
    Labels(bool),
}

impl FileText {
    /// Reads a file whose relative paths begin at `directory`; `is_broken` where the parser could
    /// not take all of it.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        document: &DeTable<'_>,
        is_broken: bool,
        directory: &Path,
        kind: FileKind,
    ) -> Self {
        reader.homes = &keys::HOMES;
        let top = &mut Keys::of(document, &keys::TOP);
        let file = Self {
            publish: texts(reader, top, "publish"),
            include: texts(reader, top, "include"),
            mappings: top.get("mapping").map(|v| mappings(reader, v, kind)).unwrap_or_default(),
            lists: lists(reader, top, directory),
            main: MainText::read(reader, top),
            home: None,
            paused: if kind == FileKind::Managed { texts(reader, top, "paused") } else { Vec::new() },
            is_broken,
        };
        top.refuse_others(reader, "at the top of the file");
        if kind != FileKind::Main {
            refuse_main_only(reader, document);
        }
        if kind == FileKind::Managed {
            for key in ["include", "lists"] {
                if let Some((span, _)) = Keys::of(document, &keys::TOP).entry(reader, key) {
                    reader
                        .diagnostics
                        .problem(Code::MisplacedKey, span, format!("`{key}` in the managed file"))
                        .hint("put it in the main file");
                }
            }
        }
        file
    }
}

fn texts(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>, key: &'static str) -> Vec<Text> {
    keys.entry(reader, key).map(|(at, v)| reader.texts(key, at, v).items).unwrap_or_default()
}

fn refuse_main_only(reader: &mut Reader<'_>, document: &DeTable<'_>) {
    for key in Keys::names(reader, MainText::read) {
        if let Some((span, _)) = Keys::of(document, &keys::TOP).entry(reader, key) {
            reader
                .diagnostics
                .problem(Code::MisplacedKey, span, format!("[{key}] in an included file"))
                .hint("put it in the main file; its [defaults] hold for included mappings too");
        }
    }
}

/// The lists that a file has. Relative paths in it begin at `directory`.
fn lists(reader: &mut Reader<'_>, top: &mut Keys<'_, '_>, directory: &Path) -> Vec<ListText> {
    let table = top.get("lists").and_then(|v| reader.table("lists", v));
    table.map(|table| lists::lists(reader, table, directory)).unwrap_or_default()
}

impl MainText {
    fn read(reader: &mut Reader<'_>, top: &mut Keys<'_, '_>) -> Self {
        let mut text = Self::default();
        if let Some(table) = top.get("defaults").and_then(|v| reader.table("defaults", v)) {
            text.defaults = defaults(reader, &mut Keys::of(table, &keys::SHARED));
        }
        text.gate = GateText::read(reader, top);
        text.api = ApiText::read(reader, top);
        let limits = top.table(reader, "limits", |reader, keys, _| LimitSettings::read(reader, keys));
        text.settings.limits = limits.unwrap_or_default();
        let daemon = top.table(reader, "daemon", |reader, keys, _| DaemonSettings::read(reader, keys));
        text.settings.daemon = daemon.unwrap_or_default();
        let router =
            top.table(reader, "router", |reader, keys, span| (span, RouterSettings::read(reader, keys)));
        if let Some((span, settings)) = router {
            text.router = Some(span);
            text.settings.router = settings;
        }
        text.docker = top.table(reader, "docker", DockerText::read);
        if let Some(docker) = &text.docker {
            docker.check(reader);
            text.settings.docker = Some(docker.settings.clone());
        }
        let log = top.table(reader, "log", |reader, keys, _| LogSettings::read(reader, keys));
        text.settings.log = log.unwrap_or_default();
        let grace = top.table(reader, "shutdown", |reader, keys, _| settings::grace(reader, keys));
        if let Some(grace) = grace.flatten() {
            text.settings.grace = grace;
        }
        text
    }
}

/// Reads `[defaults]`. It takes every key of a mapping but those that make it this one.
fn defaults(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Overrides {
    for key in keys::OWN.names() {
        if let Some((span, _)) = keys.entry(reader, key) {
            reader
                .diagnostics
                .problem(Code::MisplacedKey, span, format!("`{key}` has no default"))
                .hint("it belongs in a [[mapping]]");
        }
    }
    let defaults = Overrides::read(reader, keys);
    keys.refuse_others(reader, "in [defaults]");
    defaults
}

fn mappings(reader: &mut Reader<'_>, value: &Value<'_>, kind: FileKind) -> Vec<MappingText> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().filter_map(|item| mapping(reader, item, kind)).collect(),
        DeValue::Table(table) => {
            let span = reader.span(value.span());
            let keys = keys::MAPPING.names();
            let named = table
                .iter()
                .find(|(key, value)| value.get_ref().is_table() && !keys.contains(&&**key.get_ref()));
            let note = reader.diagnostics.problem(Code::WrongType, span, "`mapping` is a list of tables");
            if let Some((name, _)) = named {
                note.hint(format!(
                    "write [[mapping]], with two brackets, and below it name = {:?}",
                    name.get_ref()
                ));
                return Vec::new();
            }
            note.hint("write [[mapping]], with two brackets");
            mapping(reader, value, kind).into_iter().collect()
        }
        _ => {
            reader.wrong_type("mapping", value, "a list of tables, as in [[mapping]]");
            Vec::new()
        }
    }
}

fn mapping(reader: &mut Reader<'_>, value: &Value<'_>, kind: FileKind) -> Option<MappingText> {
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong_type("mapping", value, "a list of tables, as in [[mapping]]");
        return None;
    };
    let span = reader.span(value.span());
    let keys = &mut Keys::of(table, &keys::MAPPING);
    let mut mapping = MappingText {
        span,
        name: keys.get("name").and_then(|v| reader.text("name", v)),
        publish: list(reader, keys, "publish", |r, v| r.text("publish", v)),
        listen: list(reader, keys, "listen", |r, v| r.text("listen", v)),
        targets: list(reader, keys, "targets", |r, v| target::target(r, "targets", v)),
        hosts: HostsText::read(reader, keys),
        has_slip: false,
        until: None,
        overrides: Overrides::read(reader, keys),
    };
    if kind == FileKind::Managed || table.contains_key("until") {
        mapping.until = until(reader, keys, kind);
    }
    if let FileKind::Labels(may_open_router) = kind {
        let (own, hosts) = (&mut mapping.overrides, mapping.hosts.as_ref());
        labels::restrict(own, hosts, span, may_open_router, reader.diagnostics);
    }
    mapping.has_slip = keys.has_slip_of(reader, &keys::OWN.names()[1..]);
    keys.refuse_others(reader, "in [[mapping]]");
    Some(mapping)
}

/// When a mapping ends by itself: a time in UTC, as a string or as TOML writes a time.
fn until(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>, kind: FileKind) -> Option<SystemTime> {
    const FORM: &str = "write a time in UTC, as in \"2026-11-29T18:00:00Z\"";
    let (at, value) = keys.entry(reader, "until")?;
    if kind != FileKind::Managed {
        reader
            .diagnostics
            .problem(Code::MisplacedKey, at, "`until` belongs to the managed file")
            .hint("make such a mapping by `portway add SPEC --for 2h`");
        return None;
    }
    let written = match value.get_ref() {
        DeValue::Datetime(time) => time.to_string(),
        DeValue::String(text) => text.to_string(),
        _ => {
            reader.wrong_type("until", value, "a time").hint(FORM);
            return None;
        }
    };
    let time = humantime::parse_rfc3339(&written).ok();
    if time.is_none() {
        let span = reader.inner_span(value);
        reader
            .diagnostics
            .problem(Code::InvalidValue, span, format!("`{written}` is not a time in UTC"))
            .hint(FORM);
    }
    time
}

fn list<T>(
    reader: &mut Reader<'_>,
    keys: &mut Keys<'_, '_>,
    key: &'static str,
    item: fn(&mut Reader<'_>, &Value<'_>) -> Option<T>,
) -> Option<List<T>> {
    let (at, value) = keys.entry(reader, key)?;
    let mut list = reader.list(key, at, value, item);
    if list.items.is_empty() && list.is_whole {
        list.is_whole = false;
        let span = reader.span(value.span());
        if key == "targets" {
            reader.diagnostics.problem(Code::Empty, span, "`targets` is empty").hint("name at least one");
        } else {
            // A mapping whose last listener was taken out has to close, as one that was removed.
            reader
                .diagnostics
                .warning(Code::Empty, span, format!("`{key}` is empty: this mapping forwards nothing"))
                .hint("add an entry, or remove the mapping");
        }
    }
    Some(list)
}
