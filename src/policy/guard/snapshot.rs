//! What the guard remembers, as plain values: to be kept over a restart, and taken back.
//!
//! Owns the form of these values (serde, dates of the wall clock) and how dates become ends by the
//! monotonic clock. The file around them is not known here.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    super::rate::CLIENTS,
    BanReason, FORGIVEN, Guard, LONGEST,
    ban::{Ban, Banned, End, PastBans},
    table::BanTable,
};

/// Everything that the guard remembers, except the refusals that have not earned a ban yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardSnapshot {
    /// The bans in force; the one that ends first comes first.
    pub(super) bans: Vec<Ban>,
    /// The clients that were banned before, and until when that counts.
    pub(super) past: Vec<PastBans>,
}

/// What [`Guard::restore`] took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restored {
    /// Bans that are in force again.
    pub bans: usize,
    /// Bans that have ended in the meantime.
    pub expired: usize,
}

impl Guard {
    /// What the guard remembers now.
    pub(crate) fn snapshot(&self, now: Instant) -> GuardSnapshot {
        let table = self.read();
        GuardSnapshot {
            bans: table.bans(now).cloned().collect(),
            past: table.past.iter(now).cloned().collect(),
        }
    }

    /// Adds a snapshot to what the guard remembers. Where both have a ban of a client, the guard's
    /// own stays.
    ///
    /// - A ban that begins later than now, by the clock of this machine, lasts its whole length
    ///   from now. The clock is slow then: a board without a battery starts in the past.
    /// - An automatic ban ends 30 days from now at the latest, or after the length of a first ban
    ///   where that is longer. A ban by the operator lasts as long as it says.
    pub(crate) fn restore(&self, snapshot: GuardSnapshot, now: Instant) -> Restored {
        let longest = self.terms.load().as_ref().map_or(LONGEST, |terms| LONGEST.max(terms.ban));
        let date = self.date();
        let restored = self.change(|table| snapshot.restore(table, longest, now, date));
        if restored.bans > 0 {
            self.tell_new_ban();
        }
        restored
    }
}

impl GuardSnapshot {
    fn restore(self, table: &mut BanTable, longest: Duration, now: Instant, date: SystemTime) -> Restored {
        let mut restored = Restored::default();
        // If there are too many bans, those that end last are taken.
        let skipped = self.bans.len().saturating_sub(CLIENTS);
        for ban in self.bans.into_iter().skip(skipped) {
            let most = (ban.reason != BanReason::Operator).then_some(longest);
            // Before a ban began the clock cannot tell how much of it is over.
            let Some((end, until)) = end_of(ban.until, most, now, date.max(ban.since)) else {
                restored.expired += 1;
                continue;
            };
            let is_new = match ban.client {
                Banned::Client(client) => table.bans.get(&client, now).is_none(),
                Banned::Net(net) => table.nets.get(net, now).is_none(),
            };
            if is_new {
                let ban = Ban { until, ..ban };
                match ban.client {
                    Banned::Client(client) => drop(table.bans.insert(client, end, ban)),
                    Banned::Net(net) => table.nets.insist(net, end, ban),
                }
                restored.bans += 1;
            }
        }
        // Twice the length of the last ban, and a day.
        let remembered = Some(longest.saturating_mul(2).saturating_add(FORGIVEN));
        for past in self.past {
            let known = table.past.get(&past.client, now).map_or(0, |known| known.bans);
            if let Some((end, until)) =
                end_of(past.until, remembered, now, date).filter(|_| past.bans > known)
            {
                table.past.insert(past.client, end, PastBans { until, ..past });
            }
        }
        restored
    }
}

/// When an entry ends, by both clocks; `None` if it has ended. It was to end at `until`, lasts
/// `most` from now, and the date is `date`.
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
    let left = left.into_iter().chain(most).min();
    let end = left.and_then(|left| now.checked_add(left)).map_or(End::Never, End::At);
    Some((end, left.and_then(|left| date.checked_add(left))))
}

#[cfg(test)]
mod tests;
