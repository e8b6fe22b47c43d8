//! The process itself: `[daemon]`.
//!
//! Owns the form of a user's name. Whether the machine has that user is found out at the start.

use std::fmt;

use crate::config::text::{
    Keys, Kind, Reader, Refusal,
    cure::{self},
    table::word,
};

/// What concerns the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonSettings {
    /// The user that it goes on as; the one that started it where `None`.
    pub user: Option<RunAs>,
    /// Whether it restricts itself; [`Sandbox::Auto`] where `None`, which is not worth a warning
    /// where it cannot be had.
    pub sandbox: Option<Sandbox>,
}

/// Whether the process gives up what it does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// System calls alone, and only where nothing that is configured stops working.
    Auto,
    /// Files as well: a reload cannot reach new directories, and other processes are hidden.
    On,
    /// Not at all.
    Off,
}

/// A user, and a group in place of the user's own. Each is a name or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// The user.
    pub(crate) user: String,
    /// The group.
    pub(crate) group: Option<String>,
}

const FORMS: &str =
    "write a user, as in \"portway\" or \"1000\"; with a group, as in \"portway:adm\" or \"1000:1000\"";
const SANDBOX: [(&str, Sandbox); 3] = [("auto", Sandbox::Auto), ("on", Sandbox::On), ("off", Sandbox::Off)];
const USER: Kind = Kind { forms: FORMS, guesses };
/// No system has longer names.
const LONGEST: usize = 256;

impl DaemonSettings {
    /// Reads `[daemon]`.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
        let user = keys.get("user").and_then(|value| cure::read(reader, "user", value, &USER, RunAs::parse));
        let sandbox = keys.get("sandbox").and_then(|value| word(reader, "sandbox", value, &SANDBOX));
        Self { user, sandbox }
    }
}

impl Sandbox {
    /// Every word.
    pub(crate) const ALL: [Self; 3] = [Self::Auto, Self::On, Self::Off];

    /// The word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }

    /// What the word stands for.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sandbox| sandbox.as_str() == word.to_ascii_lowercase())
    }
}

impl RunAs {
    /// Reads `USER` or `USER:GROUP`.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let is_name = |name: &str| {
            let (first, rest) = (name.bytes().next(), name.strip_suffix('$').unwrap_or(name));
            name.len() <= LONGEST
                && first.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        if !is_name(user) || !group.is_none_or(is_name) {
            return Err(Refusal::new(format!("\"{text}\" names no user"), FORMS));
        }
        Ok(Self { user: user.to_owned(), group: group.map(str::to_owned) })
    }
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)?;
        self.group.iter().try_for_each(|group| write!(f, ":{group}"))
    }
}

/// A number without quotes, and the mark of `chown` that is out of use.
fn guesses(text: &str) -> Vec<String> {
    vec![text.trim().to_owned(), text.trim().replacen('.', ":", 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_or_a_number_and_may_have_a_group() {
        for text in ["portway", "1000", "0", "www-data:adm", "1000:1000", "_x.y", "host$"] {
            assert_eq!(RunAs::parse(text).unwrap().to_string(), text);
        }
        for text in ["", ":", "a:", ":a", "-1", "a b", "a:b:c", "a/b", "\u{1}", "a$b"] {
            assert!(RunAs::parse(text).is_err(), "{text:?}");
        }
    }
}
