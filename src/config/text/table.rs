//! Taking keys out of a parsed table: the part of the reading that knows TOML, and no key by name.
//!
//! Each taker returns what it could read and notes what it could not, so that one mistake does not
//! hide the next.

use std::{borrow::Cow, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Code, Diagnostic, Diagnostics, ExpansionBudget, Span, Text,
    shape::{Form, Shape},
};
use crate::config::{
    host::HostView,
    text::hint::{bare, instead},
};

pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// Tables, as they are headed, with their keys.
pub(crate) type Homes = &'static [(&'static str, &'static Shape)];

/// A table that is not described.
const NOTHING: Shape = Shape::of(&[]);

/// What reading a file needs.
pub(crate) struct Reader<'a> {
    /// The whole file.
    pub(crate) file: Span,
    /// What is in it.
    pub(crate) text: &'a str,
    /// The machine, for its environment and its services.
    pub(crate) host: &'a dyn HostView,
    /// How much the variables may still expand to.
    pub(crate) budget: &'a ExpansionBudget,
    /// Whether strings have variables.
    pub(crate) takes_variables: bool,
    /// Takes what is wrong.
    pub(crate) diagnostics: &'a mut Diagnostics,
    /// The tables of this program with their keys, to say where a misplaced key belongs.
    pub(crate) homes: Homes,
}

/// A table that is being read. Its shape says which keys there are. It also remembers every key
/// that it was asked for: a test compares the two.
pub(crate) struct Keys<'t, 'i> {
    table: &'t DeTable<'i>,
    shape: &'static Shape,
    asked: Vec<&'static str>,
}

impl<'t, 'i> Keys<'t, 'i> {
    /// A table of which no key is read yet.
    pub(crate) fn of(table: &'t DeTable<'i>, shape: &'static Shape) -> Self {
        Self { table, shape, asked: Vec::new() }
    }

    /// The keys of the table that `read` reads: those that it asks an empty one for.
    pub(crate) fn names<T>(
        reader: &mut Reader<'_>,
        read: impl FnOnce(&mut Reader<'_>, &mut Keys<'_, '_>) -> T,
    ) -> Vec<&'static str> {
        let empty = DeTable::new();
        let mut keys = Keys::of(&empty, &NOTHING);
        read(reader, &mut keys);
        keys.asked
    }

    /// The value of a key, which counts as known from now on.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'t Value<'i>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.table.get(key)
    }

    /// A key with its place and its value.
    pub(crate) fn entry(&mut self, reader: &Reader<'_>, key: &'static str) -> Option<(Span, &'t Value<'i>)> {
        let value = self.get(key)?;
        let (name, _) = self.table.get_key_value(key)?;
        Some((reader.span(name.span()), value))
    }

    /// The value of a key, through `read`, which notes what it cannot read.
    pub(crate) fn setting<T>(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'_>, &'static str, &Value<'_>) -> Option<T>,
    ) -> Setting<T> {
        let Some(value) = self.get(key) else { return Setting::Unset };
        let span = reader.inner_span(value);
        read(reader, key, value).map_or(Setting::Unreadable, |value| Setting::Set(Located { value, span }))
    }

    /// A table below this one, headed `[key]`, through `read`. Keys that it does not ask for are
    /// refused.
    pub(crate) fn table<T>(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'_>, &mut Keys<'_, '_>, Span) -> T,
    ) -> Option<T> {
        let value = self.get(key)?;
        let described = self.shape.all().find(|described| described.name == key);
        let shape = match described.map(|described| &described.form) {
            Some(Form::Table(shape)) => shape,
            _ => &NOTHING,
        };
        let mut keys = Keys::of(reader.table(key, value)?, shape);
        let span = reader.span(value.span());
        let read = read(reader, &mut keys, span);
        keys.refuse_others(reader, &format!("in [{key}]"));
        Some(read)
    }

    /// Whether a key that was not asked for looks like a slip of one of `keys`.
    pub(crate) fn has_slip_of(&self, reader: &Reader<'_>, keys: &[&str]) -> bool {
        let known = self.known();
        let is_unknown = |name: &&str| !known.contains(name);
        let mut unknown = self.table.keys().map(|key| &**key.get_ref()).filter(is_unknown);
        unknown.any(|name| reader.slip(name, &known).is_some_and(|meant| keys.contains(&meant)))
    }

    /// The keys that there are: those of the shape, and what was asked for beside them.
    fn known(&self) -> Vec<&'static str> {
        let mut known = self.shape.names();
        known.extend(self.asked.iter().filter(|key| !self.shape.names().contains(key)));
        known
    }

    /// Refuses every key that there is not.
    pub(crate) fn refuse_others(&self, reader: &mut Reader<'_>, inside: &str) {
        reader.refuse_others(self.table, inside, &self.known());
    }
}

/// What a file says of a key.
#[derive(Clone, Debug, Default)]
pub(crate) enum Setting<T> {
    /// The key is not there.
    #[default]
    Unset,
    /// The key is there. What is wrong with its value is reported.
    Unreadable,
    /// The value, and its place.
    Set(Located<T>),
}

impl<T> Setting<T> {
    /// The value with its place.
    pub(crate) fn given(&self) -> Option<&Located<T>> {
        match self {
            Self::Set(given) => Some(given),
            Self::Unset | Self::Unreadable => None,
        }
    }

    /// This setting, or the one of `[defaults]` where this key is not there.
    pub(crate) fn or<'s>(&'s self, default: &'s Self) -> &'s Self {
        if matches!(self, Self::Unset) { default } else { self }
    }
}

impl<T: Clone> Setting<T> {
    /// The value of a mapping: its own, or that of `[defaults]`, or the built-in one.
    pub(crate) fn resolve<U>(&self, default: &Self, built_in: U) -> U
    where
        T: Into<U>,
    {
        self.or(default).given().map_or(built_in, |given| given.value.clone().into())
    }
}

/// Something that was given, and where.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    /// What was given.
    pub(crate) value: T,
    /// Where it stands.
    pub(crate) span: Span,
}

/// A key that holds strings, or other items; some of them may have been unreadable.
#[derive(Clone, Debug)]
pub(crate) struct List<T = Text> {
    /// Where the key stands.
    pub(crate) key: Span,
    /// The items that could be read.
    pub(crate) items: Vec<T>,
    /// Every item was read.
    pub(crate) is_whole: bool,
}

impl<'a> Reader<'a> {
    /// A reader of one file.
    pub(crate) fn new(
        file: Span,
        text: &'a str,
        host: &'a dyn HostView,
        budget: &'a ExpansionBudget,
        diagnostics: &'a mut Diagnostics,
    ) -> Self {
        Self { file, text, host, budget, takes_variables: true, diagnostics, homes: &[] }
    }
}

impl Reader<'_> {
    /// The place of a part of the file.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        self.file.part(range)
    }

    /// The place of a value, without the quotes of a string.
    pub(crate) fn inner_span(&self, value: &Value<'_>) -> Span {
        let range = value.span();
        let quotes = value.get_ref().as_str().and_then(|text| self.quotes(text, &range)).unwrap_or(0);
        self.span(range.start + quotes..range.end - quotes)
    }

    /// How many quotes stand at each end of a string; unknown if escapes make it differ from its
    /// text.
    fn quotes(&self, value: &str, range: &Range<usize>) -> Option<usize> {
        let raw = self.text.get(range.clone())?;
        [1, 3].into_iter().find(|q| raw.len().checked_sub(*q).and_then(|end| raw.get(*q..end)) == Some(value))
    }

    /// Refuses every key of `table` that is not one of `known`.
    fn refuse_others(&mut self, table: &DeTable<'_>, inside: &str, known: &[&str]) {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) || self.diagnostics.is_full() {
                continue;
            }
            let span = self.span(key.span());
            let hint = match (self.slip(name, known), self.home(name)) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some(home)) if !inside.contains(home) => format!("it belongs in {home}"),
                _ => format!("the keys here are {}", known.join(", ")),
            };
            self.diagnostics
                .problem(Code::UnknownKey, span, format!("unknown key `{name}` {inside}"))
                .text(name)
                .hint(hint);
        }
    }

    /// The key of `known` that was meant by a name: in another case, by another program's word, or
    /// with a slip.
    pub(crate) fn slip<'k>(&self, name: &str, known: &[&'k str]) -> Option<&'k str> {
        let snake = snake_case(name);
        let of = |key: &str| known.iter().copied().find(|k| *k == key);
        let other =
            || OTHER_WORDS.iter().find(|(_, words)| words.contains(&&*snake)).and_then(|(key, _)| of(key));
        let near = || if self.home(&snake).is_some() { None } else { closest(&snake, known) };
        of(&snake).or_else(other).or_else(near)
    }

    /// The table to which a key belongs; of several, the usual one.
    fn home(&self, name: &str) -> Option<&'static str> {
        let has = |shape: &Shape| shape.all().any(|key| key.name == name);
        self.homes.iter().find(|(_, shape)| has(shape)).map(|(table, _)| *table)
    }

    /// Notes that `key` holds something else than it should, with an example of what it may hold.
    pub(crate) fn wrong_type(&mut self, key: &str, value: &Value<'_>, expected: &str) -> &mut Diagnostic {
        let span = self.span(value.span());
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        let hint = self.scalar(value).and_then(|written| quoted(key, &written)).or_else(|| example(key));
        let message = format!("`{key}` is {expected}, not {article} {found}");
        let note = self.diagnostics.problem(Code::WrongType, span, message);
        match hint {
            Some(hint) => note.hint(hint),
            None => note,
        }
    }

    /// Refuses a text: `what` it is, and why not.
    pub(crate) fn refuse_text<T>(
        &mut self,
        what: &str,
        text: &Text,
        why: &str,
        hint: impl Into<Cow<'static, str>>,
    ) -> Option<T> {
        let message = format!("{what} `{}` {why}", text.value);
        self.diagnostics.problem(Code::InvalidValue, text.span(), message).text(&text.value).hint(hint);
        None
    }

    /// A number, a flag or a time, as it is written.
    pub(crate) fn scalar(&self, value: &Value<'_>) -> Option<String> {
        let is_scalar =
            !matches!(value.get_ref(), DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_));
        is_scalar.then(|| self.text.get(value.span()).map(str::to_owned)).flatten()
    }

    /// A table, or nothing where it is none.
    pub(crate) fn table<'t, 'i>(&mut self, key: &str, value: &'t Value<'i>) -> Option<&'t DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(key, value, &format!("a table, as in [{key}]"));
        }
        table
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, key: &str, value: &Value<'_>) -> Option<bool> {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            let meant = match value.get_ref() {
                DeValue::String(word) => truth(word),
                _ => self.scalar(value).and_then(|written| truth(&written)),
            };
            let hint =
                meant.map_or("write true or false, without quotes".into(), |meant| format!("write {meant}"));
            self.wrong_type(key, value, "true or false").hint(hint);
        }
        flag
    }

    /// A string, with its variables expanded.
    pub(crate) fn text(&mut self, key: &str, value: &Value<'_>) -> Option<Text> {
        match value.get_ref() {
            DeValue::String(text) => self.expanded(text, value.span()),
            _ => {
                self.wrong_type(key, value, "a string");
                None
            }
        }
    }

    /// A string that names a file.
    pub(crate) fn path(&mut self, key: &str, value: &Value<'_>) -> Option<Text> {
        let text = self.text(key, value)?;
        if text.value.is_empty() {
            self.diagnostics
                .problem(Code::Empty, text.span(), format!("`{key}` is empty"))
                .hint("name a file");
            return None;
        }
        Some(text)
    }

    fn expanded(&mut self, value: &str, range: Range<usize>) -> Option<Text> {
        let span = self.span(range.clone());
        let quotes = self.quotes(value, &range);
        let from = quotes.map(|q| range.start + q);
        if !self.takes_variables {
            return Some(Text::verbatim(value, span, from));
        }
        let host = self.host;
        match Text::expand(value, span, from, self.budget, |name| host.env(name)) {
            Ok(text) => Some(text),
            Err((span, e)) => {
                self.diagnostics.problem(Code::InvalidVariable, span, e.message).hint(e.hint);
                None
            }
        }
    }

    /// A string or a list of strings.
    pub(crate) fn texts(&mut self, key: &str, at: Span, value: &Value<'_>) -> List {
        self.list(key, at, value, |reader, item| reader.text(key, item))
    }

    /// One item or a list of them, each read by `item`.
    pub(crate) fn list<T>(
        &mut self,
        key: &str,
        at: Span,
        value: &Value<'_>,
        mut item: impl FnMut(&mut Self, &Value<'_>) -> Option<T>,
    ) -> List<T> {
        let mut list = List { key: at, items: Vec::new(), is_whole: true };
        let mut take = |reader: &mut Self, value: &Value<'_>| match item(reader, value) {
            Some(item) => list.items.push(item),
            None => list.is_whole = false,
        };
        match value.get_ref() {
            DeValue::Array(items) => items.iter().for_each(|v| take(self, v)),
            DeValue::String(_) | DeValue::Table(_) => take(self, value),
            _ => {
                self.wrong_type(key, value, "a list of strings");
                list.is_whole = false;
            }
        }
        list
    }
}

/// A value that only lacks its quotes.
fn quoted(key: &str, written: &str) -> Option<String> {
    let is_port = written.parse::<u16>().is_ok_and(|port| port > 0);
    let lacks_quotes = match key {
        "listen" | "targets" | "address" | "trap" => is_port,
        "name" => written.bytes().all(|c| c.is_ascii_digit()),
        _ => false,
    };
    lacks_quotes.then(|| format!("write \"{written}\""))
}

/// How a key is written, by an example that is read.
fn example(key: &str) -> Option<String> {
    let value = match key {
        "publish" => "[\"8080:80\"]",
        "listen" => "[\"8080\"]",
        "targets" => "[\"10.0.0.5:80\"]",
        "address" => "\"10.0.0.5:80\"",
        "trap" => "[\"23\", \"445\"]",
        "allow" | "deny" | "exempt" => "[\"10.0.0.0/8\", \"192.168.0.0/16\"]",
        "allow_countries" | "deny_countries" => "[\"DE\", \"FR\"]",
        "include" => "[\"conf.d/*.toml\"]",
        "protocol" => "\"tcp+udp\"",
        "name" => "\"web\"",
        "source" => "\"192.168.1.2\"",
        "level" => "\"info\"",
        "format" => "\"text\"",
        "refuse" => "\"close\"",
        "balance" => "\"least-sessions\"",
        "on_down" => "\"close\"",
        "send_proxy" => "\"v2\"",
        "accept_proxy" => "[\"10.0.0.1\", \"10.1.0.0/24\"]",
        "motd" => "\"The server is asleep\"",
        "players" => "\"0/20\"",
        "hex" => "\"0001ff\"",
        "weight" => "2",
        "log" => "\"errors\"",
        "gateway" | "interface" => "\"auto\"",
        "burst" | "burst_per_client" => "100",
        _ => return None,
    };
    Some(format!("as in {key} = {value}"))
}

/// What a word for a flag means.
pub(crate) fn truth(word: &str) -> Option<bool> {
    match bare(word).to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "y" | "enabled" => Some(true),
        "false" | "no" | "off" | "0" | "n" | "disabled" => Some(false),
        _ => None,
    }
}

/// One word of a few, each with what it stands for.
pub(crate) fn word<T: Copy>(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Value<'_>,
    words: &[(&str, T)],
) -> Option<T> {
    let text = reader.text(key, value)?;
    let known = words.iter().find(|(w, _)| *w == text.value);
    if known.is_none() {
        let all: Vec<_> = words.iter().map(|(w, _)| *w).collect();
        let hint = match closest(bare(&text.value), &all) {
            Some(near) if text.is_expanded() => instead(&text, &format!("\"{near}\"")),
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("it is one of {}", all.join(", ")),
        };
        reader
            .diagnostics
            .problem(Code::InvalidValue, text.span(), format!("unknown {key} `{}`", text.value))
            .text(&text.value)
            .hint(hint);
    }
    known.map(|(_, t)| *t)
}

/// What other programs call it.
const OTHER_WORDS: [(&str, &[&str]); 11] = [
    ("publish", &["port", "ports", "forward", "forwards", "expose"]),
    ("targets", &["target", "to", "upstream", "backend", "backends", "destination", "remote", "server"]),
    ("listen", &["listens", "listeners", "bind", "listen_on", "local"]),
    ("mapping", &["rule", "rules", "route", "routes", "services"]),
    ("idle_timeout", &["timeout", "ttl"]),
    ("max_sessions", &["max_connections", "max_conn", "maxconn", "connections"]),
    ("allow", &["whitelist", "allowlist", "allow_from", "allowed"]),
    ("deny", &["blacklist", "denylist", "block", "blocked", "denied"]),
    ("protocol", &["proto", "network"]),
    ("address", &["addr", "host", "ip"]),
    ("bandwidth_per_session", &["bandwidth", "rate_limit", "speed"]),
];

/// `idleTimeout`, `Idle-Timeout` and `idle timeout` as a key is written.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len());
    let mut was_lower = false;
    for c in name.chars().take(80) {
        if c.is_ascii_uppercase() && was_lower {
            snake.push('_');
        }
        was_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        snake.push(if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() });
    }
    snake
}

/// The word of `known` that `word` is a slip of, if any is close enough. Of a short word little is
/// left when some of it is wrong: it is a slip only of what begins so, or differs by a letter.
pub(crate) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    const LONGEST: usize = 40;
    const SHORT: usize = 3;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let is_short = word.chars().count() <= SHORT;
    let is_like = |likeness: f64, k: &str| likeness > 0.8 && (!is_short || k.starts_with(&word));
    known
        .iter()
        .map(|k| (strsim::jaro_winkler(&word, k), *k))
        .filter(|(likeness, k)| is_like(*likeness, k) || strsim::damerau_levenshtein(&word, k) <= k.len() / 3)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
