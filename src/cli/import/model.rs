//! What was understood of another tool's configuration, in the words of portway.
//!
//! Owns the values that every reader of a kind fills and that the writer prints. Knows no kind.
//! Invariant: a thing that is not carried over is a [`Loss`] with its place.

use std::fmt;

/// A place in a file that is imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The file, by its number.
    pub(super) file: usize,
    /// The line, from 1.
    pub(super) line: usize,
}

/// Something that is not carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// Where it stands.
    pub(super) place: Place,
    /// What it is, as it is written there.
    pub(super) what: String,
    /// Why it is lost, or what to do in its place.
    pub(super) why: String,
}

impl Loss {
    /// A thing that is lost, and why.
    pub(super) fn new(place: Place, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place, what: what.into(), why: why.into() }
    }
}

/// The protocols of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Protocols {
    /// TCP alone.
    #[default]
    Tcp,
    /// UDP alone.
    Udp,
    /// Both.
    Both,
}

impl Protocols {
    /// Those that the two flags ask for; TCP where neither does.
    pub(super) fn of(tcp: bool, udp: bool) -> Self {
        match (tcp, udp) {
            (true, true) => Self::Both,
            (false, true) => Self::Udp,
            _ => Self::Tcp,
        }
    }

    /// The protocol of a word such as `tcp6`.
    pub(super) fn named(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "tcp" | "tcp4" | "tcp6" => Some(Self::Tcp),
            "udp" | "udp4" | "udp6" => Some(Self::Udp),
            _ => None,
        }
    }

    /// Whether UDP is one of them.
    pub(super) fn has_udp(self) -> bool {
        self != Self::Tcp
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Both => "tcp+udp",
        })
    }
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Host and port.
    pub(super) address: String,
    /// Its share, where it is not 1.
    pub(super) weight: Option<u64>,
    /// It waits until no other works.
    pub(super) backup: bool,
}

impl Target {
    /// A target like any other.
    pub(super) fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), ..Self::default() }
    }
}

/// A name, and where its clients lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// The name.
    pub(super) name: String,
    /// Where they lead.
    pub(super) targets: Vec<Target>,
    /// `send_proxy`, where it is another one than that of the mapping.
    pub(super) send_proxy: Option<String>,
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A string.
    Text(String),
    /// A list of strings.
    Texts(Vec<String>),
    /// A number.
    Number(u64),
    /// A flag.
    Flag(bool),
    /// A table on one line.
    Table(Vec<(&'static str, Value)>),
}

/// A mapping.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    /// Where it stands.
    pub(super) place: Place,
    /// What it is there, as in `frontend web`.
    pub(super) origin: String,
    /// What it could be called; nothing for the default name.
    pub(super) name: String,
    /// The addresses and ports to listen on.
    pub(super) listen: Vec<String>,
    /// Where clients lead.
    pub(super) targets: Vec<Target>,
    /// The protocols.
    pub(super) protocols: Protocols,
    /// Where they lead by the name that they want.
    pub(super) hosts: Vec<Host>,
    /// Further keys, each once.
    pub(super) keys: Vec<(&'static str, Value)>,
    /// What a person should look at.
    pub(super) notes: Vec<String>,
    /// What is lost of it.
    pub(super) losses: Vec<Loss>,
}

impl Mapping {
    /// A mapping at a place, that nothing is known of.
    pub(super) fn at(place: Place, origin: impl Into<String>, name: impl Into<String>) -> Self {
        Self { place, origin: origin.into(), name: name.into(), ..Self::default() }
    }

    /// Sets a key, in place of what it had.
    pub(super) fn set(&mut self, key: &'static str, value: Value) {
        self.keys.retain(|(known, _)| *known != key);
        self.keys.push((key, value));
    }

    /// Sets a key to a string, if there is one.
    pub(super) fn set_text(&mut self, key: &'static str, text: Option<String>) {
        if let Some(text) = text {
            self.set(key, Value::Text(text));
        }
    }

    /// Sets a key to a list, unless it is empty.
    pub(super) fn set_texts(&mut self, key: &'static str, texts: Vec<String>) {
        if !texts.is_empty() {
            self.set(key, Value::Texts(texts));
        }
    }

    /// Notes a loss.
    pub(super) fn lose(&mut self, place: Place, what: impl Into<String>, why: impl Into<String>) {
        self.losses.push(Loss::new(place, what, why));
    }
}

/// Everything that was understood, and what was not.
#[derive(Clone, Debug, Default)]
pub(super) struct Imported {
    /// The mappings, in the order of the files.
    pub(super) mappings: Vec<Mapping>,
    /// What is lost and belongs to no mapping.
    pub(super) losses: Vec<Loss>,
}

/// The most mappings, and the most losses beside them.
const MOST: usize = 10_000;

impl Imported {
    /// Notes a loss that belongs to no mapping.
    pub(super) fn lose(&mut self, place: Place, what: impl Into<String>, why: impl Into<String>) {
        if self.losses.len() < MOST {
            self.losses.push(Loss::new(place, what, why));
        }
    }

    /// Whether it takes no more mappings.
    pub(super) fn is_full(&self) -> bool {
        self.mappings.len() >= MOST
    }

    /// Takes a mapping in; without a listener or a way it is a loss.
    pub(super) fn add(&mut self, mapping: Mapping) {
        let why = match &mapping {
            Mapping { listen, .. } if listen.is_empty() => "nothing is left to listen on",
            Mapping { targets, hosts, .. } if targets.is_empty() && hosts.is_empty() => "no target is left",
            _ if self.is_full() => "more than 10000 mappings",
            _ => return self.mappings.push(mapping),
        };
        self.lose(mapping.place, mapping.origin, why);
        self.losses.extend(mapping.losses);
    }
}

/// A file to import.
#[derive(Clone, Copy, Debug)]
pub(super) struct File<'t> {
    /// Its number.
    pub(super) number: usize,
    /// Its name, as it was given.
    pub(super) name: &'t str,
    /// What is in it.
    pub(super) text: &'t str,
}

impl<'t> File<'t> {
    /// A line of it.
    pub(super) fn at(&self, line: usize) -> Place {
        Place { file: self.number, line }
    }

    /// Its lines with their places.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Place, &'t str)> {
        let number = self.number;
        self.text.lines().enumerate().map(move |(line, text)| (Place { file: number, line: line + 1 }, text))
    }

    /// Its name without directories and without what is behind the first dot.
    pub(super) fn stem(&self) -> &'t str {
        let name = self.name.rsplit('/').next().unwrap_or(self.name);
        name.split('.').next().unwrap_or(name)
    }
}
