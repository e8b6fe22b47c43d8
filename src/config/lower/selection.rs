//! The keys that choose among the targets of a mapping: `balance`, `health`, `on_down` and
//! `slow_start`.

use std::{num::NonZeroU32, time::Duration};

use toml::de::DeValue;

use crate::{
    config::{
        keys,
        text::{
            Code, Keys, Reader, Setting, Term, Value, amount,
            bounded::Bounds,
            bytes::bytes,
            table::{truth, word},
        },
    },
    targets::{Balance, Health, OnDown, Selection},
};

/// The time between two probes that `health = {}` asks for.
const INTERVAL: Duration = Duration::from_secs(5);
/// The time that such a probe has, where the interval is longer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// So many good and failed probes in a row count.
const RISE: u32 = 2;
/// The same for failed ones.
const FALL: u32 = 3;

/// What was given of these keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct SelectionOverrides {
    pub(crate) balance: Setting<Balance>,
    pub(crate) health: Setting<Option<Health>>,
    pub(crate) on_down: Setting<OnDown>,
    pub(crate) slow_start: Setting<Option<Duration>>,
}

impl SelectionOverrides {
    /// Takes the keys out of a table.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
        Self {
            balance: keys.setting(reader, "balance", balance),
            health: keys.setting(reader, "health", health),
            on_down: keys.setting(reader, "on_down", on_down),
            slow_start: keys.setting(reader, "slow_start", |reader, key, value| {
                SLOW_START.read_or_never(reader, key, value)
            }),
        }
    }

    /// How a mapping with these keys chooses.
    pub(crate) fn selection(&self, defaults: &Self) -> Selection {
        let built_in = Selection::default();
        Selection {
            balance: self.balance.resolve(&defaults.balance, built_in.balance),
            health: self.health.resolve(&defaults.health, built_in.health),
            on_down: self.on_down.resolve(&defaults.on_down, built_in.on_down),
            slow_start: self.slow_start.resolve(&defaults.slow_start, built_in.slow_start),
        }
    }
}

/// The keys with their values.
pub(crate) fn terms<'p>(selection: &'p Selection, terms: &mut Vec<Term<'p>>) {
    let Selection { balance, health, on_down, slow_start } = selection;
    let built_in = Selection::default();
    terms.push(Term::new("balance", balance, &built_in.balance));
    terms.push(Term::new("health", health, &built_in.health));
    terms.push(Term::new("on_down", on_down, &built_in.on_down));
    terms.push(Term::new("slow_start", slow_start, &built_in.slow_start));
}

fn balance(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Balance> {
    let all = [Balance::RoundRobin, Balance::LeastSessions, Balance::ClientHash, Balance::First];
    word(reader, key, value, &all.map(|balance| (balance.as_str(), balance)))
}

fn on_down(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<OnDown> {
    word(reader, key, value, &[OnDown::Keep, OnDown::Close].map(|on_down| (on_down.as_str(), on_down)))
}

/// Reads `health`: a table, which may be empty, or `false`.
fn health(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Option<Health>> {
    let table = match value.get_ref() {
        DeValue::Table(table) => table,
        DeValue::Boolean(false) => return Some(None),
        other => {
            let meant = other.as_bool().or_else(|| other.as_str().and_then(truth));
            let hint = match (meant, other.as_str()) {
                (Some(false), _) => "write false".to_owned(),
                (None, Some(text)) if humantime::parse_duration(text).is_ok() => {
                    format!("write {{ interval = \"{text}\" }}")
                }
                _ => "write {} for a probe every 5 seconds, or { interval = \"10s\" }".to_owned(),
            };
            reader.wrong_type(key, value, "a table, or false").hint(hint);
            return None;
        }
    };
    let mut keys = Keys::of(table, &keys::HEALTH);
    let interval = keys.setting(reader, "interval", |reader, key, value| INTERVALS.read(reader, key, value));
    let timeout = keys.setting(reader, "timeout", |reader, key, value| TIMEOUTS.read(reader, key, value));
    let rise = keys.setting(reader, "rise", in_a_row);
    let fall = keys.setting(reader, "fall", in_a_row);
    let send = keys.setting(reader, "send", bytes);
    let expect = keys.setting(reader, "expect", bytes);
    keys.refuse_others(reader, "of `health`");
    let every = interval.given().map_or(INTERVAL, |given| given.value);
    if let Some(given) = timeout.given().filter(|given| given.value >= every) {
        let message = "`timeout` is not shorter than `interval`: the next probe would not be in time";
        reader
            .diagnostics
            .problem(Code::ConflictingKeys, given.span, message)
            .hint("make `timeout` shorter, or `interval` longer");
        return None;
    }
    let is_sound = [&send, &expect].iter().all(|given| !matches!(given, Setting::Unreadable))
        && !matches!(interval, Setting::Unreadable)
        && !matches!(timeout, Setting::Unreadable);
    let unset = &Setting::Unset;
    let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    is_sound.then(|| {
        Some(Health {
            interval: every,
            // A short interval has a timeout that it can keep.
            timeout: timeout.given().map_or(TIMEOUT.min(every / 2), |given| given.value),
            rise: rise.resolve(&Setting::Unset, number(RISE)),
            fall: fall.resolve(&Setting::Unset, number(FALL)),
            send: send.or(unset).given().map(|given| given.value.clone()),
            expect: expect.or(unset).given().map(|given| given.value.clone()),
        })
    })
}

fn in_a_row(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<NonZeroU32> {
    const MOST: u32 = 1000;
    amount::positive_up_to(reader, key, value, MOST, || {
        "it counts probes in a row: 2 or 3 are usual".to_owned()
    })
}

const DAY: Duration = Duration::from_secs(86_400);
const INTERVALS: Bounds = Bounds {
    least: Duration::from_millis(100),
    sensible: Duration::from_secs(1),
    most: DAY,
    words: "use a time from \"100ms\" to \"1d\", as in \"5s\"",
    warning: Some("below a second `interval` keeps the targets busy"),
};
const TIMEOUTS: Bounds = Bounds {
    least: Duration::from_millis(10),
    sensible: Duration::ZERO,
    most: DAY,
    words: "use a time from \"10ms\", shorter than `interval`",
    warning: None,
};
const SLOW_START: Bounds = Bounds {
    least: Duration::from_secs(1),
    sensible: Duration::ZERO,
    most: DAY,
    words: "use a time from \"1s\" to \"1d\", as in \"30s\", or \"never\"",
    warning: None,
};
