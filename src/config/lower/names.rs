//! The keys that lead by the name that a client wants, but for `hosts`: `match` and
//! `on_connect_failure`.

use std::{sync::Arc, time::Duration};

use toml::de::DeValue;

use crate::{
    config::{
        keys,
        text::{
            Code, Keys, Kind, Reader, Refusal, Setting, Span, Term, Value, bounded::Bounds, cure, hint::bare,
            spelling::Hosts, table::closest,
        },
    },
    preface::Match,
    relay::tcp::{Asleep, Route},
};

/// What was given of these keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamesOverrides {
    /// Nothing where it is `"none"`. With the place of its key.
    pub(crate) by: Setting<Option<Match>>,
    /// Nothing where it is `"close"`.
    pub(crate) asleep: Setting<Option<Arc<Asleep>>>,
}

impl NamesOverrides {
    /// Takes the keys out of a table.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
        Self {
            by: keys.setting(reader, "match", by),
            asleep: keys.setting(reader, "on_connect_failure", asleep),
        }
    }

    /// The keys given here that mean nothing to UDP.
    pub(crate) fn tcp_only(&self) -> impl Iterator<Item = (&'static str, Span)> {
        let by = self.by.given().filter(|given| given.value.is_some()).map(|given| ("match", given.span));
        let asleep = self.asleep.given().map(|given| ("on_connect_failure", given.span));
        by.into_iter().chain(asleep)
    }
}

/// The keys of a TCP listener with their values.
pub(crate) fn terms<'p>(route: &'p Route, terms: &mut Vec<Term<'p>>) {
    let names = match route {
        Route::Targets(_) => None,
        Route::Names(names) => Some(names),
    };
    terms.push(Term::owned("match", names.map(|names| names.by), &None));
    terms.push(Term::owned("hosts", names.map(|names| Hosts(&names.hosts)), &None));
    terms.push(Term::owned("on_connect_failure", names.and_then(|names| names.asleep.as_deref()), &None));
}

/// Reads `match`.
fn by(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Option<Match>> {
    const FORMS: &str = "it is one of tls-sni, http-host, minecraft, auto, none";
    let all = [Match::TlsSni, Match::HttpHost, Match::Minecraft, Match::Auto];
    cure::read(reader, key, value, &Kind { forms: FORMS, guesses: match_guesses }, |text| {
        let found = all.iter().find(|by| by.as_str() == text);
        match found {
            Some(by) => Ok(Some(*by)),
            None if text == "none" => Ok(None),
            None => Err(Refusal::new(format!("unknown {key} `{text}`"), FORMS)),
        }
    })
}

/// What was meant by another word for it.
fn match_guesses(text: &str) -> Vec<String> {
    let text = bare(text).to_ascii_lowercase().replace(['_', ' '], "-");
    let meant = match &*text {
        "sni" | "tls" | "ssl" | "https" | "server-name" => Some("tls-sni"),
        "http" | "host" | "host-header" | "hostname" => Some("http-host"),
        "mc" | "minecraft-java" => Some("minecraft"),
        "off" | "no" | "false" => Some("none"),
        _ => closest(&text, &["tls-sni", "http-host", "minecraft", "auto", "none"]),
    };
    meant.map(str::to_owned).into_iter().collect()
}

/// Reads `match_timeout`.
pub(crate) const MATCH_TIMEOUT: Bounds = Bounds {
    least: Duration::from_millis(100),
    sensible: Duration::ZERO,
    most: Duration::from_secs(600),
    words: "use a time from \"100ms\" to \"10m\", as in \"3s\"",
    warning: None,
};

/// Reads `on_connect_failure`: `"close"`, or what players are told.
fn asleep(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Option<Arc<Asleep>>> {
    const FORMS: &str = "write \"close\", or { motd = \"The server is asleep\", players = \"0/20\" }";
    const MOTD: &str = "The server is asleep";
    const PLAYERS: (u32, u32) = (0, 20);
    let table = match value.get_ref() {
        DeValue::Table(table) => table,
        DeValue::String(_) => {
            let text = reader.text(key, value)?;
            if text.value == "close" {
                return Some(None);
            }
            return reader.refuse_text("the answer", &text, "is not one", FORMS);
        }
        _ => {
            reader.wrong_type(key, value, "\"close\", or a table").hint(FORMS);
            return None;
        }
    };
    let mut keys = Keys::of(table, &keys::ASLEEP);
    let motd = keys.setting(reader, "motd", motd);
    let players = keys.setting(reader, "players", players);
    keys.refuse_others(reader, "of `on_connect_failure`");
    let is_sound = !matches!(motd, Setting::Unreadable) && !matches!(players, Setting::Unreadable);
    is_sound.then(|| {
        Some(Arc::new(Asleep {
            motd: motd.given().map_or_else(|| MOTD.into(), |given| Arc::clone(&given.value)),
            players: players.given().map_or(PLAYERS, |given| given.value),
        }))
    })
}

/// The text that players see in their list of servers.
fn motd(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Arc<str>> {
    /// The list of servers shows two lines of some 60 characters.
    const LONGEST: usize = 500;
    let text = reader.text(key, value)?;
    if text.value.is_empty() || text.value.chars().count() > LONGEST {
        let what = if text.value.is_empty() { "is empty" } else { "is longer than 500 characters" };
        reader
            .diagnostics
            .problem(Code::InvalidValue, text.span(), format!("`{key}` {what}"))
            .hint("players see one or two lines of it, as in \"The server is asleep\"");
        return None;
    }
    Some(text.value.into())
}

/// Players that are on, and the most that may be: `0/20`.
fn players(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<(u32, u32)> {
    let text = reader.text(key, value)?;
    let both = text.value.split_once('/').and_then(|(on, most)| Some((on.parse().ok()?, most.parse().ok()?)));
    if both.is_none() {
        return reader.refuse_text("the players", &text, "are not two numbers", "as in \"0/20\"");
    }
    both
}
