//! Bans over a restart: the file that keeps them.
//!
//! Owns the form of the file (JSON, dates of the wall clock) and how it is written: beside its place, flushed, then
//! renamed, so that there is a whole one at any time; readable for its owner alone, because it names people's addresses.
//! A file that cannot be read or understood is set aside and told: it is never overwritten, and it never keeps the daemon
//! from starting. What is no file at all is left alone. One saves at a time: the caller sees to it. Both functions block.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    super::rate::CLIENTS,
    BanReason, FORGIVEN, Guard, LONGEST,
    ban::rfc3339,
    book::{Book, End, Past, Sentence},
};
use crate::{durable, mapping::ClientKey, text::clean};

const VERSION: u32 = 1;
/// A file with as many entries as there can be has a third of this.
const LARGEST: u64 = 64 << 20;

/// Why bans were not saved or not restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be written.
    #[error("save bans to {}: {source}; bans are kept in memory only", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be read; it was set aside.
    #[error("read bans from {}: {source}; starting without them, and the file {}", path.display(), kept_as(aside.as_deref()))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// Where it is now, unless it could not be moved, or is no file.
        aside: Option<PathBuf>,
    },
    /// The file is not one of ours, or damaged; it was set aside.
    #[error("{} holds no bans ({why}); starting without them, and the file {}", path.display(), kept_as(aside.as_deref()))]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// Where it is now, unless it could not be moved.
        aside: Option<PathBuf>,
    },
}

fn kept_as(aside: Option<&Path>) -> String {
    aside.map_or_else(|| "stays where it is".to_owned(), |aside| format!("is kept as {}", aside.display()))
}

/// What [`Guard::load`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Bans that are in force again.
    pub bans: usize,
    /// Bans that have ended in the meantime.
    pub expired: usize,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    bans: Vec<SavedBan>,
    /// Who has been banned before, and until when that counts.
    past: Vec<SavedPast>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedBan {
    client: Client,
    since: Date,
    until: Option<Date>,
    reason: BanReason,
    repeats: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedPast {
    client: Client,
    bans: u32,
    until: Option<Date>,
}

impl Guard {
    /// Writes what the guard remembers to `path`. Its directory is made if only that is missing.
    ///
    /// # Errors
    /// [`StateError::Save`]; the file that was there is untouched.
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        let saved = Saved::of(&self.read(), Instant::now());
        write(path, &saved).map_err(|source| StateError::Save { path: path.to_owned(), source })
    }

    /// Adds what was saved in `path` to what the guard remembers; of two bans of a client, the guard's own stays, and a file
    /// that is not there holds nothing. A ban that begins only later by the clock of this machine, which then is slow (a
    /// board without a battery), lasts as long as it was meant to, from now. An automatic ban of the far future is cut to
    /// 30 days from now, or to the length of a first ban where that is longer; the operator's may be as long as it says.
    ///
    /// # Errors
    /// [`StateError::Read`] where the file cannot be read, and [`StateError::Broken`] where it cannot be understood: then
    /// it has been renamed to `<name>.unreadable` or `<name>.broken`. Neither is a reason not to start.
    pub fn load(&self, path: &Path, now: Instant) -> Result<Restored, StateError> {
        let read = |source| {
            let aside = set_aside(path, ".unreadable");
            StateError::Read { path: path.to_owned(), source, aside }
        };
        let Some(bytes) = read_file(path).map_err(read)? else { return Ok(Restored::default()) };
        let saved = Saved::parse(&bytes).map_err(|why| {
            let aside = set_aside(path, ".broken");
            StateError::Broken { path: path.to_owned(), why, aside }
        })?;
        let longest = self.terms.load().as_ref().map_or(LONGEST, |terms| LONGEST.max(terms.ban));
        let restored = self.change(|book| saved.restore(book, longest, now, SystemTime::now()));
        if restored.bans > 0 {
            self.tell_new_ban();
        }
        Ok(restored)
    }
}

impl Saved {
    fn of(book: &Book, now: Instant) -> Self {
        let bans = book.bans.iter(now).map(|(client, ban)| SavedBan {
            client: Client(*client),
            since: Date(ban.since),
            until: ban.until.map(Date),
            reason: ban.reason,
            repeats: ban.repeats,
        });
        let past = book.past.iter(now).map(|(client, past)| SavedPast {
            client: Client(*client),
            bans: past.bans,
            until: past.until.map(Date),
        });
        Self { version: VERSION, bans: bans.collect(), past: past.collect() }
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() as u64 > LARGEST {
            return Err(format!("it is larger than {} MiB", LARGEST >> 20));
        }
        let saved: Self = serde_json::from_slice(bytes).map_err(|e| clean(&e.to_string()))?;
        match saved.version {
            VERSION => Ok(saved),
            other => Err(format!("it has version {other}, and this portway knows {VERSION}")),
        }
    }

    fn restore(self, book: &mut Book, longest: Duration, now: Instant, date: SystemTime) -> Restored {
        let mut restored = Restored::default();
        // What lasts longest was written last, and is what stays if there is too much.
        let skipped = self.bans.len().saturating_sub(CLIENTS);
        for ban in self.bans.into_iter().skip(skipped) {
            let most = (ban.reason != BanReason::Operator).then_some(longest);
            // Before a ban began the clock cannot tell how much of it is over.
            let seen = if date < ban.since.0 { ban.since.0 } else { date };
            let Some((end, until)) = end_of(ban.until.map(|until| until.0), most, now, seen) else {
                restored.expired += 1;
                continue;
            };
            if book.bans.get(&ban.client.0, now).is_none() {
                let sentence =
                    Sentence { since: ban.since.0, until, reason: ban.reason, repeats: ban.repeats };
                book.bans.insert(ban.client.0, end, sentence);
                restored.bans += 1;
            }
        }
        // Twice the length of the last ban, and a day.
        let remembered = Some(longest.saturating_mul(2).saturating_add(FORGIVEN));
        for past in self.past {
            let known = book.past.get(&past.client.0, now).map_or(0, |known| known.bans);
            if let Some((end, until)) =
                end_of(past.until.map(|until| until.0), remembered, now, date).filter(|_| past.bans > known)
            {
                book.past.insert(past.client.0, end, Past { bans: past.bans, until });
            }
        }
        restored
    }
}

/// When an entry ends that was to end at `until`, at `most` from now, where it is `date` now; `None` if it has ended.
fn end_of(
    until: Option<SystemTime>,
    most: Option<Duration>,
    now: Instant,
    date: SystemTime,
) -> Option<(End, Option<SystemTime>)> {
    let left = match until {
        Some(until) => Some(until.duration_since(date).ok().filter(|left| !left.is_zero())?),
        None => None,
    };
    let left = match (left, most) {
        (Some(left), Some(most)) => Some(left.min(most)),
        (left, most) => left.or(most),
    };
    let end = left.and_then(|left| now.checked_add(left)).map_or(End::Never, End::At);
    Some((end, left.and_then(|left| date.checked_add(left))))
}

/// The content of a file, a little more than the largest at most; `None` where there is none.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match durable::read(path, LARGEST) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some),
    }
}

/// An error where there is something at `path` that is no file: a pipe may block for ever, and `/dev/null` is nobody's to
/// replace.
fn refuse_no_file(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(data) if data.is_dir() => Err(io::Error::other("it is a directory")),
        Ok(data) if !data.is_file() => Err(io::Error::other("it is not a file")),
        _ => Ok(()),
    }
}

/// Gives a file another name; says which, or nothing where it keeps its own.
fn set_aside(path: &Path, suffix: &str) -> Option<PathBuf> {
    refuse_no_file(path).ok()?;
    let aside = durable::with_suffix(path, suffix);
    fs::rename(path, &aside).is_ok().then_some(aside)
}

fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    refuse_no_file(path)?;
    match fs::DirBuilder::new().mode(0o700).create(durable::directory(path)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let mut text = serde_json::to_vec(saved)?;
    text.push(b'\n');
    durable::replace(path, &text)
}

/// A client as text: `203.0.113.9`, or `2001:db8:1:2::/64`.
struct Client(ClientKey);

impl Serialize for Client {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Client {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let ip = text.parse::<IpAddr>().ok();
        let net = || text.parse::<Ipv6Net>().ok().filter(|net| net.prefix_len() == 64);
        let ip = ip.or_else(|| net().map(|net| net.addr().into()));
        ip.map(|ip| Self(ClientKey::of(ip)))
            .ok_or_else(|| serde::de::Error::custom("a client is an address or an IPv6 /64"))
    }
}

/// A time as RFC 3339 text, in whole seconds.
struct Date(SystemTime);

impl Serialize for Date {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&rfc3339(self.0))
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
