//! What was understood of another tool's configuration, in the words of portway.
//!
//! Owns the values that every reader of a kind fills and that the writer prints. Knows no kind.
//! Invariant: a thing that is not carried over is a [`Loss`] with its place.

use std::collections::HashSet;

use crate::mapping::publish::Protocols;

/// A place in a file that is imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The file, by its number.
    pub(crate) file: usize,
    /// The line, from 1.
    pub(crate) line: usize,
}

/// Something that is not carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Where it stands.
    pub(crate) place: Place,
    /// What it is, as it is written there.
    pub(crate) what: String,
    /// Why it is lost, or what to do in its place.
    pub(crate) why: String,
}

impl Loss {
    /// A thing that is lost, and why.
    pub(crate) fn new(place: Place, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place, what: what.into(), why: why.into() }
    }
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Host and port.
    pub(crate) address: String,
    /// Its share, where it is not 1.
    pub(crate) weight: Option<u64>,
    /// It waits until no other works.
    pub(crate) backup: bool,
}

impl Target {
    /// A target like any other.
    pub(crate) fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), ..Self::default() }
    }
}

/// A name, and where its clients lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// The name.
    pub(crate) name: String,
    /// Where they lead.
    pub(crate) targets: Vec<Target>,
    /// `send_proxy`, where it is another one than that of the mapping.
    pub(crate) send_proxy: Option<String>,
}

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
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
pub(crate) struct Mapping {
    /// Where it stands.
    pub(crate) place: Place,
    /// What it is there, as in `frontend web`.
    pub(crate) origin: String,
    /// What it could be called; nothing for the default name.
    pub(crate) name: String,
    /// The addresses and ports to listen on.
    pub(crate) listen: Vec<String>,
    /// Where clients lead.
    pub(crate) targets: Vec<Target>,
    /// The protocols.
    pub(crate) protocols: Protocols,
    /// Where they lead by the name that they want.
    pub(crate) hosts: Vec<Host>,
    /// Further keys, each once.
    pub(crate) keys: Vec<(&'static str, Value)>,
    /// What a person should look at.
    pub(crate) notes: Vec<String>,
    /// What is lost of it.
    pub(crate) losses: Vec<Loss>,
}

impl Mapping {
    /// A mapping at a place, that nothing is known of.
    pub(crate) fn at(place: Place, origin: impl Into<String>, name: impl Into<String>) -> Self {
        Self { place, origin: origin.into(), name: name.into(), ..Self::default() }
    }

    /// Sets a key, in place of what it had.
    pub(crate) fn set(&mut self, key: &'static str, value: Value) {
        self.keys.retain(|(known, _)| *known != key);
        self.keys.push((key, value));
    }

    /// Sets a key to a string, if there is one.
    pub(crate) fn set_text(&mut self, key: &'static str, text: Option<String>) {
        if let Some(text) = text {
            self.set(key, Value::Text(text));
        }
    }

    /// Sets a key to a list, unless it is empty.
    pub(crate) fn set_texts(&mut self, key: &'static str, texts: Vec<String>) {
        if !texts.is_empty() {
            self.set(key, Value::Texts(texts));
        }
    }

    /// Notes a loss.
    pub(crate) fn lose(&mut self, place: Place, what: impl Into<String>, why: impl Into<String>) {
        let loss = Loss::new(place, what, why);
        if !self.losses.contains(&loss) && self.losses.len() < MOST_OF_ONE {
            self.losses.push(loss);
        }
    }
}

/// The most losses of one mapping.
const MOST_OF_ONE: usize = 1000;

/// Everything that was understood, and what was not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Imported {
    /// The mappings, in the order of the files.
    pub(crate) mappings: Vec<Mapping>,
    /// What is lost and belongs to no mapping.
    pub(crate) losses: Vec<Loss>,
    /// Where the mappings listen and lead, to know them again.
    known: HashSet<String>,
}

/// The most mappings, and the most losses beside them.
const MOST: usize = 10_000;

impl Imported {
    /// Notes a loss that belongs to no mapping.
    pub(crate) fn lose(&mut self, place: Place, what: impl Into<String>, why: impl Into<String>) {
        if self.losses.len() < MOST {
            self.losses.push(Loss::new(place, what, why));
        }
    }

    /// All losses, in the order of the files.
    pub(crate) fn all_losses(&self) -> Vec<&Loss> {
        let all = self.losses.iter().chain(self.mappings.iter().flat_map(|mapping| &mapping.losses));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|loss| loss.place);
        // What two mappings lose is said once.
        all.dedup();
        all
    }

    /// Whether it takes no more mappings.
    pub(crate) fn is_full(&self) -> bool {
        self.mappings.len() >= MOST
    }

    /// Takes a mapping in; without a listener or a way it is a loss. One that is there already
    /// says nothing new: scripts and firewalls have the same rule at several places.
    pub(crate) fn add(&mut self, mut mapping: Mapping) {
        // Two families of one port are one listener here.
        let mut seen = HashSet::new();
        mapping.listen.retain(|listen| seen.insert(listen.clone()));
        mapping
            .listen
            .retain(|listen| listen.strip_prefix("0.0.0.0:").is_none_or(|port| !seen.contains(port)));
        let why = match &mapping {
            Mapping { listen, .. } if listen.is_empty() => "nothing is left to listen on",
            Mapping { targets, hosts, .. } if targets.is_empty() && hosts.is_empty() => "no target is left",
            _ if self.is_full() => "more than 10000 mappings",
            _ => {
                let Mapping { listen, targets, protocols, hosts, keys, .. } = &mapping;
                if self.known.insert(format!("{listen:?} {targets:?} {protocols} {hosts:?} {keys:?}")) {
                    self.mappings.push(mapping);
                }
                return;
            }
        };
        self.lose(mapping.place, mapping.origin, why);
        self.losses.extend(mapping.losses);
    }
}

/// A file to import.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File<'t> {
    /// Its number.
    pub(crate) number: usize,
    /// Its name, as it was given.
    pub(crate) name: &'t str,
    /// What is in it.
    pub(crate) text: &'t str,
}

impl<'t> File<'t> {
    /// A line of it.
    pub(crate) fn at(&self, line: usize) -> Place {
        Place { file: self.number, line }
    }

    /// Its lines with their places.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (Place, &'t str)> {
        let number = self.number;
        self.text.lines().enumerate().map(move |(line, text)| (Place { file: number, line: line + 1 }, text))
    }
}
