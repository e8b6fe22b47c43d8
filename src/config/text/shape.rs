//! What a table may hold: its keys, each with its form, its default and what it means.
//!
//! Owns the description that the reader and the schema share. The reader takes from it which keys
//! there are, so that neither can know a key that the other lacks. Knows no key by name.

/// A table.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Its keys, in the order in which they are shown.
    pub(crate) keys: &'static [Key],
    /// More keys, which another table has, too.
    pub(crate) more: Option<&'static Self>,
    /// Keys that it needs.
    pub(crate) required: &'static [&'static str],
}

/// A key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it may hold.
    pub(crate) form: Form,
    /// What it means, in a line.
    pub(crate) about: &'static str,
    /// Its default as JSON; empty where it has none.
    pub(crate) default: &'static str,
}

/// What a value may be.
#[derive(Debug)]
pub(crate) enum Form {
    /// Any string.
    Text,
    /// A string that begins like this.
    Like(&'static str),
    /// `true` or `false`.
    Flag,
    /// `false` alone.
    Off,
    /// A number from the first to the last.
    Number(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A time such as `"30s"`.
    Duration,
    /// A rate such as `"10/min"`.
    Rate,
    /// Bytes, such as `"64KiB"`.
    Size,
    /// One of these.
    Any(&'static [Self]),
    /// A list of these.
    List(&'static Self),
    /// One of these, or a list of them.
    Some(&'static Self),
    /// A table.
    Table(&'static Shape),
    /// A table with names that the author chooses.
    Names(&'static Self),
}

impl Key {
    /// A key without a default.
    pub(crate) const fn new(name: &'static str, form: Form, about: &'static str) -> Self {
        Self { name, form, about, default: "" }
    }

    /// The same with a default, as JSON.
    pub(crate) const fn or(self, default: &'static str) -> Self {
        let Self { name, form, about, default: _ } = self;
        Self { name, form, about, default }
    }
}

impl Shape {
    /// A table of these keys.
    pub(crate) const fn of(keys: &'static [Key]) -> Self {
        Self { keys, more: None, required: &[] }
    }

    /// Its keys.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().chain(self.more.map_or(&[][..], |more| more.keys))
    }

    /// The names of its keys.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.all().map(|key| key.name).collect()
    }
}
