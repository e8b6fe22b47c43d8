//! `[knock]`: the port of knocks, the keys that open, and the classic sequence of ports.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    config::{
        host::HostView,
        keys,
        lower::own_paths,
        text::{
            Code, Diagnostics, Keys, Kind, Reader, Refusal, Span, Text, Value, cure,
            duration::{self, DURATION},
            read::absolute,
        },
    },
    mapping::{
        Timeout,
        publish::{ListenSpec, Protocols},
    },
    policy::{KnockSpec, Port},
};

/// How long a client may enter after its knock, where nothing is said.
const OPEN_FOR: Duration = Duration::from_secs(8 * 3600);
/// The longest time of that.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// The file of the grants in the directory that systemd gives to the service.
const STATE_FILE: &str = "knocks.json";
/// The most ports of a sequence.
const MOST_STEPS: usize = 16;

/// `[knock]` as it is written.
#[derive(Clone)]
pub(crate) struct KnockText {
    pub(crate) span: Span,
    listen: Option<Text>,
    keys: Vec<KeyText>,
    server_key: Option<Text>,
    open_for: Duration,
    sequence: Vec<Text>,
    sequence_at: Option<Span>,
    state: Option<Text>,
}

/// An entry of `keys`.
#[derive(Clone)]
struct KeyText {
    name: Text,
    file: Text,
}

impl KnockText {
    /// Reads `[knock]`.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>, span: Span) -> Self {
        let sequence = keys.entry(reader, "sequence");
        Self {
            span,
            listen: keys.get("listen").and_then(|v| reader.text("listen", v)),
            keys: keys
                .entry(reader, "keys")
                .map(|(at, v)| reader.list("keys", at, v, key).items)
                .unwrap_or_default(),
            server_key: keys.get("server_key").and_then(|v| reader.path("server_key", v)),
            open_for: keys.get("open_for").and_then(|v| open_for(reader, v)).unwrap_or(OPEN_FOR),
            sequence_at: sequence.as_ref().map(|(at, _)| *at),
            sequence: sequence.map(|(at, v)| reader.texts("sequence", at, v).items).unwrap_or_default(),
            state: keys.get("state").and_then(|v| reader.path("state", v)),
        }
    }

    /// The listen spec of the port of knocks; `None` where only the sequence opens.
    pub(crate) fn listen(&self) -> Option<&Text> {
        self.listen.as_ref().filter(|_| !self.keys.is_empty())
    }

    /// The listen specs of the sequence.
    pub(crate) fn steps(&self) -> &[Text] {
        &self.sequence
    }

    /// The terms. Relative paths begin at `directory`.
    pub(crate) fn spec(
        &self,
        directory: &Path,
        host: &dyn HostView,
        diagnostics: &mut Diagnostics,
    ) -> KnockSpec {
        if self.keys.is_empty() && self.sequence.is_empty() {
            diagnostics.problem(Code::MissingKey, self.span, "[knock] without `keys`").hint(
                "make a key by `portway key new anna -o /etc/portway/keys`, and name it: \
                 keys = [{ name = \"anna\", key_file = \"/etc/portway/keys/anna.pub\" }]",
            );
        }
        if !self.keys.is_empty() && self.listen.is_none() {
            diagnostics
                .problem(Code::MissingKey, self.span, "[knock] without `listen`")
                .hint("name a UDP port for knocks, as in listen = \"62201\"");
        }
        self.check_sequence(diagnostics);
        let said = self.state.as_ref().map(|text| directory.join(&text.value));
        let state = said.or_else(|| own_paths::state(STATE_FILE, |name| host.env(name).map(Into::into)));
        let state = state.as_deref().map(absolute);
        if state.is_none() {
            let message = "grants are kept in memory only, and a knock could be repeated after a restart within a minute";
            diagnostics.warning(Code::NotPersisted, self.span, message).hint(
                "name a file that portway may write, as in state = \"/var/lib/portway/knocks.json\" \
                 (as a service, systemd gives a place)",
            );
        }
        let services = |name: &str, protocol| host.service(name, protocol);
        let port = |text: &Text| -> Option<Port> {
            let (value, protocols) = port_of(&text.value, false);
            let spec = ListenSpec::parse(value, protocols, &services).ok()?;
            Some((protocols.iter().next()?, spec.ports.first().get()))
        };
        let sequence = self.sequence.iter().filter_map(port).collect();
        let listen = self.listen().map(|text| Arc::from(&*text.value));
        let mut spec = KnockSpec {
            secret: None,
            listen,
            keys: Vec::new(),
            sequence,
            open_for: self.open_for,
            state,
            files: Vec::new(),
        };
        if !self.keys.is_empty() {
            self.load(directory, &mut spec, diagnostics);
        }
        spec
    }

    fn check_sequence(&self, diagnostics: &mut Diagnostics) {
        let Some(at) = self.sequence_at else { return };
        if self.sequence.len() < 2 || self.sequence.len() > MOST_STEPS {
            let message = format!("`sequence` has {} ports", self.sequence.len());
            diagnostics
                .problem(Code::InvalidValue, at, message)
                .hint(format!("use 2 to {MOST_STEPS}, as in [\"7000\", \"8000/udp\", \"9000\"]"));
            return;
        }
        diagnostics
            .warning(
                Code::UnwiseValue,
                at,
                "`sequence` keeps out scans and no more: each one who sees it can repeat it",
            )
            .hint("use keys where the client can run `portway knock`; choose ports that do not rise");
    }

    #[cfg(not(feature = "knock"))]
    fn load(&self, _: &Path, _: &mut KnockSpec, diagnostics: &mut Diagnostics) {
        diagnostics
            .problem(
                Code::Unsupported,
                self.span,
                "`keys` need the feature `knock`, and this portway was built without it",
            )
            .hint("build it with `--features knock`");
    }

    /// Reads the files of the keys.
    #[cfg(feature = "knock")]
    fn load(&self, directory: &Path, spec: &mut KnockSpec, diagnostics: &mut Diagnostics) {
        use crate::{
            knock::keys as lines,
            policy::{KnockKey, ServerSecret},
        };
        let mut seen: Vec<(&str, [u8; 32], Span)> = Vec::new();
        for KeyText { name, file } in &self.keys {
            let path = directory.join(&file.value);
            spec.files.push(absolute(&path));
            let read = read_key(&path)
                .and_then(|text| lines::parse_public(&text).map_err(|e| (e.to_string(), None)));
            let public = match read {
                Ok(public) => public,
                Err((why, hint)) => {
                    let message = format!("the key file {} cannot be used: {why}", path.display());
                    let hint = hint.unwrap_or("name the .pub file that `portway key new` wrote");
                    diagnostics
                        .problem(Code::UnreadableFile, file.span(), message)
                        .text(&file.value)
                        .hint(hint);
                    continue;
                }
            };
            let same = |(known, key, _): &&(&str, [u8; 32], Span)| *known == name.value || *key == public;
            if let Some((.., first)) = seen.iter().find(same) {
                diagnostics
                    .problem(
                        Code::DuplicateEntry,
                        name.span(),
                        "this key has the name or the content of another, first at",
                    )
                    .also(*first)
                    .hint("give each person a key and a name of its own");
                continue;
            }
            seen.push((&name.value, public, name.span()));
            spec.keys.push(KnockKey { name: Arc::from(&*name.value), public });
        }
        let beside = || {
            let first = self.keys.first()?;
            let span = first.file.span();
            Some((directory.join(&first.file.value).with_file_name(lines::SERVER_KEY), span))
        };
        let named = self.server_key.as_ref().map(|text| (directory.join(&text.value), text.span()));
        let Some((path, span)) = named.or_else(beside) else { return };
        spec.files.push(absolute(&path));
        match read_key(&path).and_then(|text| lines::parse_server(&text).map_err(|e| (e.to_string(), None))) {
            Ok(secret) => spec.secret = Some(ServerSecret(secret)),
            Err((why, hint)) => {
                let message = format!("the server's own key {} cannot be used: {why}", path.display());
                let hint = hint.unwrap_or(
                    "`portway key new` makes it beside the first key; name it by `server_key` if it is elsewhere",
                );
                diagnostics.problem(Code::UnreadableFile, span, message).hint(hint);
            }
        }
    }
}

/// The port of a spec, and its protocol: that of knocks is UDP, one of the sequence is TCP unless
/// it says `/udp`.
pub(crate) fn port_of(spec: &str, is_knock: bool) -> (&str, Protocols) {
    let usual = if is_knock { Protocols::Udp } else { Protocols::Tcp };
    let named = |word: &str| spec.strip_suffix(word);
    match (named("/udp"), named("/tcp")) {
        (Some(port), _) => (port, Protocols::Udp),
        (_, Some(port)) if !is_knock => (port, Protocols::Tcp),
        _ => (spec, usual),
    }
}

/// The text of a key's file, or why there is none and what helps.
#[cfg(feature = "knock")]
fn read_key(path: &Path) -> Result<String, (String, Option<&'static str>)> {
    use crate::config::text::read::read;
    const LONGEST: u64 = 4096;
    let bytes = read(path, LONGEST, "it is too long for a key").map_err(|error| {
        let hint = error.hint().filter(|hint| hint.starts_with("the user"));
        (error.to_string(), hint)
    })?;
    String::from_utf8(bytes).map_err(|_| ("it is not text".to_owned(), None))
}

/// Reads an entry of `keys`.
fn key(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<KeyText> {
    const FORM: &str = "as in { name = \"anna\", key_file = \"/etc/portway/keys/anna.pub\" }";
    let Some(table) = value.get_ref().as_table() else {
        reader.wrong_type("keys", value, "a list of tables").hint(FORM);
        return None;
    };
    let mut keys = Keys::of(table, &keys::KNOCK_KEY);
    let (name, file) = (keys.get("name"), keys.get("key_file"));
    for (key, there) in [("name", name.is_some()), ("key_file", file.is_some())] {
        if !there && !keys.has_slip_of(reader, &[key]) {
            let span = reader.span(value.span());
            reader.diagnostics.problem(Code::MissingKey, span, format!("a key without a `{key}`")).hint(FORM);
        }
    }
    keys.refuse_others(reader, "of a key");
    let (name, file) = (reader.text("name", name?), reader.path("key_file", file?));
    let (name, file) = (name?, file?);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(plain) {
        reader
            .diagnostics
            .problem(Code::InvalidName, name.span(), format!("`{}` is not a name for a key", name.value))
            .text(&name.value)
            .hint("use letters, digits, `.`, `_` and `-`, up to 64");
        return None;
    }
    Some(KeyText { name, file })
}

fn open_for(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Duration> {
    const FORMS: &str = "use a time such as \"8h\", up to \"30d\"";
    cure::read(reader, "open_for", value, &Kind { forms: FORMS, ..DURATION }, |text| {
        match duration::parse(text) {
            Ok(Timeout::After(time)) if time <= LONGEST => Ok(time),
            Ok(Timeout::After(_)) => Err(Refusal::new(format!("`{text}` is more than 30 days"), FORMS)),
            Ok(Timeout::Never) => {
                Err(Refusal::new("`open_for` cannot be \"never\": addresses change hands", FORMS))
            }
            Err(refusal) => Err(Refusal { hint: FORMS.into(), ..refusal }),
        }
    })
}
