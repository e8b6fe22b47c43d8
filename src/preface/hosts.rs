//! A table of host names: exact ones, and wildcards such as `*.example.org`.
//!
//! An exact name wins, then the longest wildcard. A wildcard takes every name below it, of one
//! label or more, and not the name that it stands under. Names are compared without case and
//! without a closing dot. A lookup allocates nothing, and costs one look for the name and one for
//! each label.

use std::{fmt, net::Ipv6Addr};

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use super::name;

/// Values by host name.
#[derive(Clone)]
pub(crate) struct HostTable<T> {
    /// By the plain name; a wildcard keeps its `*.`.
    all: IndexMap<Box<str>, T, RandomState>,
    /// The most labels that the part of a wildcard after `*` has; 0 without wildcards.
    deepest: usize,
}

/// Why a text is no name for a table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum HostError {
    /// It is there already, perhaps in another spelling.
    #[error("the host {0} is there twice")]
    Twice(Box<str>),
    /// All names.
    #[error("a host cannot be every name; the targets of the mapping take the names that no host has")]
    Every,
    /// A `*` that is not the whole first label.
    #[error("a * stands for the first labels of a name, as in *.example.org")]
    Wildcard,
    /// A name with letters that are not in ASCII.
    #[error("clients send this name in ASCII: write {0}")]
    Unicode(Box<str>),
    /// Something else.
    #[error("this is no host name; it has labels of letters, digits, - and _, with dots between them")]
    Malformed,
}

impl<T> HostTable<T> {
    /// Adds a value for a name, or for a wildcard.
    ///
    /// # Errors
    /// [`HostError`] if it is no name, or there already.
    pub(crate) fn insert(&mut self, name: &str, value: T) -> Result<(), HostError> {
        let name = key(name)?;
        if self.all.contains_key(&name) {
            return Err(HostError::Twice(name));
        }
        if let Some(rest) = name.strip_prefix("*.") {
            self.deepest = self.deepest.max(rest.split('.').count());
        }
        self.all.insert(name, value);
        Ok(())
    }

    /// The value for a name that a client wants.
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.find(name).map(|(_, value)| value)
    }

    /// The name in the table that takes `name`, and its value.
    pub(crate) fn find(&self, name: &str) -> Option<(&str, &T)> {
        if self.all.is_empty() || name.contains('*') {
            return None;
        }
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let mut buffer = [0; name::LONGEST];
        let plain = buffer.get_mut(..name.len())?;
        plain.copy_from_slice(name);
        plain.make_ascii_lowercase();
        if let Some(found) = self.entry(plain) {
            return Some(found);
        }
        // The byte before a dot becomes the star of a wildcard; what stands before it is not needed
        // again.
        let mut labels = plain.iter().filter(|c| **c == b'.').count();
        for dot in 1..plain.len() {
            if plain[dot] == b'.' {
                if labels <= self.deepest {
                    plain[dot - 1] = b'*';
                    if let Some(found) = self.entry(&plain[dot - 1..]) {
                        return Some(found);
                    }
                }
                labels -= 1;
            }
        }
        None
    }

    fn entry(&self, plain: &[u8]) -> Option<(&str, &T)> {
        self.all.get_key_value(str::from_utf8(plain).ok()?).map(|(name, value)| (&**name, value))
    }

    /// The names and their values, in the order in which they were added.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.all.iter().map(|(name, value)| (&**name, value))
    }

    /// The values, in the order in which they were added.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.all.values()
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

/// The spelling of a name in the table.
fn key(name: &str) -> Result<Box<str>, HostError> {
    let (star, host) = match name.strip_prefix('*') {
        Some("" | ".") => return Err(HostError::Every),
        Some(rest) => ("*.", rest.strip_prefix('.').ok_or(HostError::Wildcard)?),
        None => ("", name),
    };
    if host.contains('*') {
        return Err(HostError::Wildcard);
    }
    if !host.is_ascii() {
        let ascii = idna::domain_to_ascii(host).map_err(|_| HostError::Malformed)?;
        return Err(HostError::Unicode(format!("{star}{ascii}").into()));
    }
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match literal.parse::<Ipv6Addr>() {
        Ok(ip) if star.is_empty() => Ok(ip.to_string().into()),
        _ => {
            let plain = name::plain(host.as_bytes()).ok_or(HostError::Malformed)?;
            Ok(format!("{star}{plain}").into())
        }
    }
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { all: IndexMap::default(), deepest: 0 }
    }
}

impl<T: fmt::Debug> fmt::Debug for HostTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Equal with the same names and values, in whatever order.
impl<T: PartialEq> PartialEq for HostTable<T> {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl<T: Eq> Eq for HostTable<T> {}

#[cfg(test)]
mod tests;
