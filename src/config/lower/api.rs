//! `[api]`, `[metrics]` and `[probe]`: where portway answers requests, and which tokens it takes.
//!
//! Tokens are read from their files when the configuration is read (`secret`). A token does not
//! stand in the configuration itself, whose lines an error message may quote.
//!
//! A socket or a file that is not named has its usual place (`own_paths`). Does not open anything.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    config::{
        host::HostView,
        keys,
        lower::{
            own_paths,
            probe::{ProbeSettings, ProbeText},
            secret::{Secret, load_token},
        },
        text::{
            Code, Diagnostics, Keys, Located, Reader, Span, Text, Value, hint::instead, read::absolute,
            table::word,
        },
    },
    mapping::{
        Host, ListenAddr,
        publish::{ListenSpec, Protocols},
    },
};

/// The word for no socket.
pub(crate) const OFF: &str = "off";
/// The longest path of a unix socket (`sun_path` less the closing zero).
const LONGEST_SOCKET: usize = 107;

/// Where portway answers requests (`[api]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiSettings {
    /// The unix socket.
    pub socket: ApiSocket,
    /// The address for TCP; `None` is off.
    pub listen: Option<ListenAddr>,
    /// What a request over TCP may show.
    pub tokens: Arc<[Token]>,
    /// The files that hold them.
    pub token_files: Vec<PathBuf>,
    /// Further names that the `Host` header may have over TCP, in lower case.
    pub hosts: Vec<String>,
    /// The file of the mappings that the API makes. `None` where no directory can hold it.
    pub managed: Option<PathBuf>,
    /// The terms of proof from outside; without them this node tries no ports.
    pub probe: Option<ProbeSettings>,
}

/// The unix socket of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ApiSocket {
    /// There is none.
    #[default]
    Off,
    /// The usual one: nothing names a socket. Where it cannot be opened, portway forwards without.
    Usual(PathBuf),
    /// The one that the configuration, the command line or the environment names.
    Named(PathBuf),
}

impl ApiSocket {
    /// The mode of its directory, where that is made.
    pub(crate) const DIRECTORY_MODE: u32 = 0o755;

    /// Where it is.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::Usual(path) | Self::Named(path) => Some(path),
        }
    }
}

/// Where metrics are read (`[metrics]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSettings {
    /// The address for TCP; `None` is off.
    pub listen: Option<ListenAddr>,
}

/// What a client with this token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// How much.
    pub role: Role,
    /// The token itself.
    pub secret: Secret,
}

/// How much a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// To have its own port tried from here, and nothing else.
    Probe,
    /// To look at everything.
    Read,
    /// To change things, too.
    Admin,
}

/// A listener of portway itself, as the configuration names it.
#[derive(Clone, Debug)]
pub(crate) struct OwnService {
    /// The table that names it.
    pub(crate) table: &'static str,
    pub(crate) listen: Located<ListenAddr>,
}

/// `[api]` and `[metrics]` as they are written.
#[derive(Clone, Default)]
pub(crate) struct ApiText {
    /// `[api]`, if it is there.
    span: Option<Span>,
    socket: Option<Text>,
    listen: Option<Located<ListenAddr>>,
    /// Whether the key is there, readable or not.
    has_tokens: bool,
    tokens: Vec<TokenText>,
    hosts: Vec<String>,
    managed: Option<Text>,
    metrics: Option<MetricsText>,
    probe: Option<ProbeText>,
}

/// `[metrics]` as it is written.
#[derive(Clone)]
struct MetricsText {
    span: Span,
    listen: Option<Located<ListenAddr>>,
}

/// A token as it is written.
#[derive(Clone)]
struct TokenText {
    role: Role,
    file: Text,
}

impl ApiText {
    /// Takes the tables out of the main file.
    pub(crate) fn read(reader: &mut Reader<'_>, top: &mut Keys<'_, '_>) -> Self {
        let mut text = top
            .table(reader, "api", |reader, keys, span| Self { span: Some(span), ..Self::api(reader, keys) })
            .unwrap_or_default();
        text.metrics = top.table(reader, "metrics", |reader, keys, span| MetricsText {
            span,
            listen: metrics(reader, keys),
        });
        text.probe = top.table(reader, "probe", ProbeText::read);
        text
    }

    /// Reads `[api]`.
    pub(crate) fn api(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
        let tokens = keys.get("tokens");
        Self {
            span: None,
            socket: keys.get("socket").and_then(|v| reader.path("socket", v)),
            listen: listen(reader, keys, "127.0.0.1:7678"),
            has_tokens: tokens.is_some(),
            tokens: tokens.map(|v| self::tokens(reader, v)).unwrap_or_default(),
            hosts: hosts(reader, keys),
            managed: keys.get("managed").and_then(|v| reader.path("managed", v)),
            metrics: None,
            probe: None,
        }
    }

    /// The listeners that it names.
    pub(crate) fn services(&self) -> Vec<OwnService> {
        let of = |table, listen: Option<&Located<ListenAddr>>| {
            listen.map(|listen| OwnService { table, listen: listen.clone() })
        };
        let metrics = self.metrics.as_ref().and_then(|metrics| metrics.listen.as_ref());
        [of("[api]", self.listen.as_ref()), of("[metrics]", metrics)].into_iter().flatten().collect()
    }

    /// Reads the files of the tokens, and finds the usual places. Relative paths begin at
    /// `directory`. `named` is the socket that the command line names, with its place.
    pub(crate) fn load(
        self,
        directory: &Path,
        named: Option<(&Path, Span)>,
        host: &dyn HostView,
        diagnostics: &mut Diagnostics,
    ) -> (ApiSettings, MetricsSettings) {
        self.check(diagnostics);
        let socket = match (named, &self.socket) {
            (Some((path, _)), _) if path == Path::new(OFF) => ApiSocket::Off,
            (Some((path, span)), _) => socket(path, span, diagnostics),
            (None, Some(text)) if text.value == OFF => ApiSocket::Off,
            (None, Some(text)) => socket(&directory.join(&text.value), text.span(), diagnostics),
            (None, None) => ApiSocket::Usual(own_paths::socket(|name| host.env(name).map(Into::into))),
        };
        let managed = self.managed(directory, host);
        let mut texts = self.tokens;
        let of_probe = self.probe.as_ref().and_then(|probe| probe.token_file.clone());
        texts.extend(of_probe.map(|file| TokenText { role: Role::Probe, file }));
        let tokens = load_tokens(&texts, directory, diagnostics);
        let of_probe =
            tokens.iter().find(|token| token.role == Role::Probe).map(|token| token.secret.clone());
        let settings = ApiSettings {
            socket,
            probe: self.probe.zip(of_probe).map(|(probe, token)| probe.settings(token)),
            tokens: tokens.into(),
            token_files: texts.iter().map(|token| directory.join(&token.file.value)).collect(),
            listen: self.listen.map(|listen| listen.value),
            hosts: self.hosts,
            managed,
        };
        let metrics = MetricsSettings {
            listen: self.metrics.and_then(|metrics| metrics.listen).map(|listen| listen.value),
        };
        (settings, metrics)
    }

    /// The managed file. A relative path begins at `directory`.
    pub(crate) fn managed(&self, directory: &Path, host: &dyn HostView) -> Option<PathBuf> {
        match &self.managed {
            Some(text) => Some(absolute(&directory.join(&text.value))),
            None => own_paths::managed(|name| host.env(name).map(Into::into)),
        }
    }

    /// Checks what the keys say of each other.
    fn check(&self, diagnostics: &mut Diagnostics) {
        if let Some(listen) = self.listen.as_ref().filter(|listen| !listen.value.ip.is_loopback())
            && !self.has_tokens
            && self.probe.is_none()
        {
            let message =
                format!("{} can be reached from other machines, and asks for no token", listen.value);
            diagnostics.problem(Code::MissingKey, listen.span, message).hint(
                "add tokens = [{ role = \"admin\", file = \"/etc/portway/token\" }], or listen on 127.0.0.1",
            );
        }
        if let Some(span) =
            self.probe.as_ref().and_then(|probe| probe.proxies_at).filter(|_| !self.has_tokens)
        {
            let message =
                "`proxies` without [api] `tokens`: a client of a local proxy would be an administrator";
            diagnostics
                .problem(Code::MissingKey, span, message)
                .hint("add tokens = [{ role = \"admin\", file = \"/etc/portway/token\" }] to [api]");
        }
        if let [api, metrics] = &*self.services()
            && api.listen.value.collides_with(&metrics.listen.value)
        {
            let message = format!("[metrics] listens on {}, as [api] does at", metrics.listen.value);
            diagnostics
                .problem(Code::PortInUse, metrics.listen.span, message)
                .also(api.listen.span)
                .hint("choose another port; [api] answers /metrics, too");
        }
        let tables = [
            ("[api]", self.span),
            ("[metrics]", self.metrics.as_ref().map(|metrics| metrics.span)),
            ("[probe]", self.probe.as_ref().map(|probe| probe.span)),
        ];
        for (table, span) in tables.into_iter().filter(|_| !cfg!(feature = "api")) {
            if let Some(span) = span {
                let message = format!("{table} has no effect: this portway was built without the API");
                diagnostics.warning(Code::Unsupported, span, message).hint("remove it");
            }
        }
    }
}

/// Reads `[metrics]`; it is the address.
pub(crate) fn metrics(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Option<Located<ListenAddr>> {
    listen(reader, keys, "127.0.0.1:9678")
}

/// Reads the address of a listener of portway itself, which may be as in `example`.
fn listen(
    reader: &mut Reader<'_>,
    keys: &mut Keys<'_, '_>,
    example: &'static str,
) -> Option<Located<ListenAddr>> {
    let text = reader.text("listen", keys.get("listen")?)?;
    let host = reader.host;
    let services = |name: &str, protocol| host.service(name, protocol);
    let as_in = || format!("write an address and a port, as in \"{example}\"");
    let local = || {
        let port = text.value.strip_prefix("localhost:")?;
        ListenSpec::parse(port, Protocols::Tcp, &services).ok()?;
        Some(instead(&text, &format!("\"127.0.0.1:{port}\"")))
    };
    match ListenSpec::parse(&text.value, Protocols::Tcp, &services) {
        Ok(spec) if spec.ports.count() == 1 => {
            let value = spec.addr(spec.ports.first());
            Some(Located { value, span: text.span() })
        }
        Ok(spec) => {
            let message = format!("`{}` has {} ports", text.value, spec.ports.count());
            let note = reader.diagnostics.problem(Code::InvalidValue, text.span(), message);
            note.text(&text.value).hint(as_in());
            None
        }
        Err(error) => {
            let range = error.at..error.at + error.len;
            let offending = text.value.get(range.clone()).unwrap_or_default().to_owned();
            let hint = local().or(error.hint).unwrap_or_else(as_in);
            let note = reader.diagnostics.problem(Code::InvalidSpec, text.at(range), error.message);
            note.text(offending).hint(hint);
            None
        }
    }
}

/// Reads `tokens`: tables, each with a role and a file.
fn tokens(reader: &mut Reader<'_>, value: &Value<'_>) -> Vec<TokenText> {
    const FORM: &str = "a list of tables { role = \"admin\", file = \"...\" }";
    let Some(items) = value.get_ref().as_array() else {
        let note = reader.wrong_type("tokens", value, FORM).whole_file();
        note.hint("as in [{ role = \"admin\", file = \"/etc/portway/token\" }]");
        return Vec::new();
    };
    if items.is_empty() {
        let span = reader.span(value.span());
        reader
            .diagnostics
            .problem(Code::Empty, span, "`tokens` is empty")
            .hint("name one, as in { role = \"admin\", file = \"/etc/portway/token\" }; or remove it");
    }
    let bare: Vec<_> = items.iter().filter(|item| has_token_itself(item)).collect();
    for item in &bare {
        let span = reader.span(item.span());
        // No excerpt of this line, and no other problem of it: the token would be shown.
        reader
            .diagnostics
            .problem(Code::WrongType, span, "a token stands in a file of its own, not in the configuration")
            .whole_file()
            .hint("as in { role = \"admin\", file = \"/etc/portway/token\" }");
    }
    if bare.is_empty() { items.iter().filter_map(|item| token(reader, item)).collect() } else { Vec::new() }
}

/// Whether an entry seems to have the token where the name of its file belongs.
fn has_token_itself(item: &Value<'_>) -> bool {
    item.get_ref().as_table().is_none_or(|table| table.contains_key("token"))
}

fn token(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<TokenText> {
    const ROLES: [(&str, Role); 2] = [("admin", Role::Admin), ("read", Role::Read)];
    let mut keys = Keys::of(value.get_ref().as_table()?, &keys::TOKEN);
    let (role, file) = (keys.get("role"), keys.get("file"));
    for (key, there) in [("role", role.is_some()), ("file", file.is_some())] {
        if !there && !keys.has_slip_of(reader, &[key]) {
            let span = reader.span(value.span());
            reader
                .diagnostics
                .problem(Code::MissingKey, span, format!("a token without a `{key}`"))
                .hint("as in { role = \"admin\", file = \"/etc/portway/token\" }");
        }
    }
    keys.refuse_others(reader, "of a token");
    let role = word(reader, "role", role?, &ROLES);
    let file = reader.path("file", file?);
    Some(TokenText { role: role?, file: file? })
}

/// Reads `hosts`: names, without ports.
fn hosts(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Vec<String> {
    let Some((at, value)) = keys.entry(reader, "hosts") else { return Vec::new() };
    let mut hosts = Vec::new();
    for text in reader.texts("hosts", at, value).items {
        let name = text.value.trim_end_matches('.').to_ascii_lowercase();
        if name.parse::<IpAddr>().is_ok() || Host::name(&name).is_some() {
            hosts.push(name);
            continue;
        }
        let bare = name.rsplit_once(':').map(|(host, _)| host).filter(|host| Host::name(host).is_some());
        let hint = match bare {
            Some(host) => instead(&text, &format!("\"{host}\"")),
            None => "use the name that the browser's address line shows, without port or path".to_owned(),
        };
        let message = format!("`{}` is not the name of a host", text.value);
        reader.diagnostics.problem(Code::InvalidValue, text.span(), message).text(&text.value).hint(hint);
    }
    hosts
}

fn socket(path: &Path, span: Span, diagnostics: &mut Diagnostics) -> ApiSocket {
    let path = absolute(path);
    let length = path.as_os_str().len();
    if length > LONGEST_SOCKET {
        let message = format!("the path of the socket has {length} bytes; the system takes {LONGEST_SOCKET}");
        diagnostics.problem(Code::InvalidValue, span, message).hint("use a shorter path");
    }
    ApiSocket::Named(path)
}

/// Reads the files of the tokens.
fn load_tokens(texts: &[TokenText], directory: &Path, diagnostics: &mut Diagnostics) -> Vec<Token> {
    let mut tokens: Vec<(Token, Span)> = Vec::new();
    for TokenText { role, file } in texts {
        let (path, span) = (directory.join(&file.value), file.span());
        let secret = match load_token(&path) {
            Ok(secret) => secret,
            Err((message, hint)) => {
                let message = format!("the token file {} {message}", path.display());
                let note = diagnostics.problem(Code::UnreadableFile, span, message).text(&file.value);
                if let Some(hint) = hint {
                    note.hint(hint);
                }
                continue;
            }
        };
        if let Some((_, first)) = tokens.iter().find(|(token, _)| token.secret == secret) {
            diagnostics
                .problem(Code::DuplicateEntry, span, "this file has the same token as another, first at")
                .also(*first)
                .hint("make a token for each");
        } else {
            tokens.push((Token { role: *role, secret }, span));
        }
    }
    tokens.into_iter().map(|(token, _)| token).collect()
}
