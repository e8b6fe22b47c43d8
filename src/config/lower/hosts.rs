//! `hosts`: the names on one port, each with where it leads.

use toml::de::{DeTable, DeValue};

use crate::{
    config::{
        keys,
        lower::{
            entries::{self, EntriesText},
            proxy,
            target::{self, TargetText},
            wake,
        },
        text::{Code, Keys, List, Reader, Setting, Span, Value, hint::bare},
    },
    preface::{
        hosts::{HostError, HostTable},
        proxy::SendProxy,
    },
};

/// The most names of one mapping.
const MOST: usize = 100_000;

/// The key `hosts`, as it is written.
#[derive(Clone, Debug)]
pub(crate) struct HostsText {
    /// Where the key stands.
    pub(crate) key: Span,
    /// The hosts that could be read.
    pub(crate) items: Vec<HostText>,
    /// Every one of them was.
    pub(crate) is_whole: bool,
}

/// A name and where it leads.
#[derive(Clone, Debug)]
pub(crate) struct HostText {
    /// The name, which a [`HostTable`] takes, and which it has once.
    pub(crate) name: String,
    /// Where it stands.
    pub(crate) span: Span,
    pub(crate) targets: List<TargetText>,
    pub(crate) allow: Option<EntriesText>,
    pub(crate) deny: Option<EntriesText>,
    pub(crate) send_proxy: Setting<SendProxy>,
    pub(crate) wake: Setting<wake::Wish>,
}

impl HostsText {
    /// Takes the key `hosts`.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Option<Self> {
        let (at, value) = keys.entry(reader, "hosts")?;
        let mut hosts = Self { key: at, items: Vec::new(), is_whole: false };
        let DeValue::Table(table) = value.get_ref() else {
            reader
                .wrong_type("hosts", value, "a table of names")
                .hint("as in hosts = { \"mc.example.org\" = \"10.0.0.20:25565\" }");
            return Some(hosts);
        };
        if table.is_empty() {
            reader
                .diagnostics
                .problem(Code::Empty, at, "`hosts` is empty")
                .hint("name a host, as in hosts = { \"mc.example.org\" = \"10.0.0.20:25565\" }");
            return Some(hosts);
        }
        if table.len() > MOST {
            reader
                .diagnostics
                .problem(Code::TooMany, at, format!("`hosts` has more than {MOST} names"))
                .hint("use wildcards, or several mappings");
            return Some(hosts);
        }
        let mut all: Vec<_> = table.iter().collect();
        all.sort_by_key(|(name, _)| name.span().start);
        let mut known: HostTable<Span> = HostTable::default();
        hosts.is_whole = true;
        for (name, value) in all {
            if reader.diagnostics.is_full() {
                break;
            }
            let span = reader.span(name.span());
            let name: &str = name.get_ref();
            let is_dotted = dotted(name, value);
            if let Some(whole) = is_dotted {
                hosts.is_whole = false;
                reader
                    .diagnostics
                    .problem(Code::InvalidName, span, format!("the name {whole} stands without quotes"))
                    .hint(format!("write \"{whole}\", with quotes: dots outside of them make tables"));
                continue;
            }
            let is_name = take_name(reader, &mut known, name, span);
            match HostText::read(reader, name, span, value) {
                Some(host) if is_name => hosts.items.push(host),
                _ => hosts.is_whole = false,
            }
        }
        Some(hosts)
    }
}

impl HostText {
    /// Reads what a name leads to: a target, a list of them, or a table.
    fn read(reader: &mut Reader<'_>, name: &str, span: Span, value: &Value<'_>) -> Option<Self> {
        let mut host = Self {
            name: name.to_owned(),
            span,
            targets: List { key: span, items: Vec::new(), is_whole: true },
            allow: None,
            deny: None,
            send_proxy: Setting::Unset,
            wake: Setting::Unset,
        };
        match value.get_ref() {
            DeValue::Table(table) if !table.contains_key("address") => {
                let mut keys = Keys::of(table, &keys::HOST);
                let targets = keys.entry(reader, "targets");
                host.allow = entries::allow(reader, &mut keys);
                host.deny = EntriesText::read(reader, &mut keys, "deny");
                host.send_proxy = keys.setting(reader, "send_proxy", proxy::send);
                host.wake = keys.setting(reader, "wake", wake::wake);
                let has_slip = keys.has_slip_of(reader, &["targets"]);
                keys.refuse_others(reader, "of a host");
                match targets {
                    Some((at, value)) => host.targets = list(reader, at, value),
                    None => {
                        host.targets.is_whole = false;
                        if !has_slip {
                            reader
                                .diagnostics
                                .problem(Code::MissingKey, span, "a host without `targets`")
                                .hint("say where it leads, as in { targets = \"10.0.0.20:25565\" }");
                        }
                    }
                }
            }
            DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => {
                host.targets = list(reader, span, value);
            }
            _ => {
                reader
                    .wrong_type(name, value, "a target, a list of targets, or a table { targets = [...] }")
                    .hint("as in \"mc.example.org\" = \"10.0.0.20:25565\"");
                return None;
            }
        }
        host.targets.is_whole.then_some(host)
    }
}

/// A target or a list of them, at least one.
fn list(reader: &mut Reader<'_>, at: Span, value: &Value<'_>) -> List<TargetText> {
    let mut list = reader.list("targets", at, value, |reader, item| target::target(reader, "targets", item));
    if list.items.is_empty() && list.is_whole {
        list.is_whole = false;
        let span = reader.span(value.span());
        reader.diagnostics.problem(Code::Empty, span, "the host has no target").hint("name at least one");
    }
    list
}

/// Takes a name into those that are known, or notes what is wrong with it.
fn take_name(reader: &mut Reader<'_>, known: &mut HostTable<Span>, name: &str, span: Span) -> bool {
    let error = match known.insert(name, span) {
        Ok(()) => return true,
        Err(error) => error,
    };
    if let HostError::Twice(first) = &error {
        let first = known.iter().find(|(name, _)| *name == &**first).map_or(span, |(_, span)| *span);
        reader
            .diagnostics
            .problem(
                Code::DuplicateEntry,
                span,
                format!("the host {name} is never reached: it is there before"),
            )
            .also(first)
            .hint("names are the same in upper and lower case, and with a dot at the end: leave one out");
        return false;
    }
    let hint = match (&error, meant(name)) {
        (HostError::Every, _) => "remove it, and say where other names lead by `targets`".to_owned(),
        (HostError::Unicode(ascii), _) => format!("write \"{ascii}\""),
        (_, Some(meant)) => format!("write \"{meant}\""),
        (HostError::Wildcard, None) => "as in \"*.example.org\"".to_owned(),
        _ => "as in \"mc.example.org\" or \"*.example.org\"".to_owned(),
    };
    let message = match error {
        HostError::Every => "`*` is every name".to_owned(),
        HostError::Wildcard => format!("`{name}`: a star stands for whole parts, and only at the start"),
        HostError::Unicode(_) => format!("`{name}` is not how clients send this name"),
        _ => format!("`{name}` is not a host name"),
    };
    reader.diagnostics.problem(Code::InvalidName, span, message).text(name).hint(hint);
    false
}

/// The name that a text was meant to be: without a scheme, a port, a path, or with its dot behind
/// the star.
fn meant(text: &str) -> Option<String> {
    let text = bare(text);
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split(['/', '?', '#']).next().unwrap_or(text);
    let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
    let text = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.bytes().all(|c| c.is_ascii_digit()) => host,
        _ => text,
    };
    let wild = text.strip_prefix('*').filter(|rest| !rest.starts_with('.') && !rest.is_empty());
    let text = match (wild, text.strip_prefix('.')) {
        (Some(rest), _) | (None, Some(rest)) => format!("*.{}", rest.trim_start_matches('-')),
        _ => text.to_owned(),
    };
    let takes = |name: &str| HostTable::default().insert(name, ());
    match takes(&text) {
        Ok(()) => Some(text),
        Err(HostError::Unicode(ascii)) => Some(ascii.into()),
        Err(_) => None,
    }
}

/// The whole name of a key that was written with dots and without quotes, so that it made tables.
fn dotted(name: &str, value: &Value<'_>) -> Option<String> {
    /// A name has no more parts.
    const DEEPEST: usize = 127;
    const KEYS: [&str; 6] = ["targets", "address", "allow", "deny", "send_proxy", "wake"];
    let mut whole = name.to_owned();
    let mut inner: &DeTable<'_> = value.get_ref().as_table()?;
    for _ in 0..DEEPEST {
        let mut keys = inner.iter();
        let (Some((key, value)), None) = (keys.next(), keys.next()) else { return None };
        let key: &str = key.get_ref();
        if KEYS.contains(&key) {
            // The name ended before.
            return (whole != name).then_some(whole);
        }
        whole = format!("{whole}.{key}");
        match value.get_ref() {
            DeValue::Table(table) => inner = table,
            DeValue::String(_) | DeValue::Array(_) => {
                return HostTable::default().insert(&whole, ()).is_ok().then_some(whole);
            }
            _ => return None,
        }
    }
    None
}
