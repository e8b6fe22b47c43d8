//! The keys of a mapping that say who may enter, how often and how many at once, and how they make a [`Policy`].
//!
//! Each key of a mapping takes the place of the same key of `[defaults]` as a whole: lists are not merged. A burst is
//! the burst of its rate, wherever either of them stands. `burst_per_client` belongs to `new_sessions_per_client`, and to
//! `datagrams_per_client` where that is the only rate for a client: what suits the one would strangle the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    ops::BitOrAssign,
};

use toml::de::DeTable;

use super::{
    amount::{self, Pace, UNLIMITED},
    declared::Declared,
    entries::{self, EntriesText},
    problem::Diagnostics,
    span::Span,
    table::{Given, Reader, Value, entry, word},
};
use crate::policy::{AccessSpec, Caps, Country, Limit, Policy, Rate, Rates, Refuse};

/// The keys that are read here.
pub(super) const KEYS: [&str; 12] = [
    "max_sessions",
    "max_sessions_per_client",
    "allow",
    "deny",
    "allow_countries",
    "deny_countries",
    "new_sessions",
    "new_sessions_per_client",
    "burst",
    "burst_per_client",
    "datagrams_per_client",
    "refuse",
];

/// A rate that was given: not readable, or unlimited, or a limit.
type GivenRate = Option<Option<Pace>>;
/// Countries that were given: the place of the key, and those that could be read.
type GivenCountries = Given<Vec<Given<Country>>>;

/// What was given of these keys.
#[derive(Clone, Debug, Default)]
pub(super) struct PolicyOverrides {
    max_sessions: Option<Limit>,
    max_sessions_per_client: Option<Limit>,
    allow: Option<EntriesText>,
    deny: Option<EntriesText>,
    allow_countries: Option<GivenCountries>,
    deny_countries: Option<GivenCountries>,
    new_sessions: Option<GivenRate>,
    new_sessions_per_client: Option<GivenRate>,
    burst: Option<Given<NonZeroU32>>,
    burst_per_client: Option<Given<NonZeroU32>>,
    datagrams_per_client: Option<Given<GivenRate>>,
    refuse: Option<Given<Refuse>>,
}

/// Which bursts have a rate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HasRates {
    /// `burst`.
    of_all: bool,
    /// `burst_per_client`.
    of_client: bool,
}

impl BitOrAssign for HasRates {
    fn bitor_assign(&mut self, other: Self) {
        self.of_all |= other.of_all;
        self.of_client |= other.of_client;
    }
}

impl PolicyOverrides {
    /// Takes the keys out of a table.
    pub(super) fn read(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Self {
        Self {
            max_sessions: limit(reader, table, "max_sessions"),
            max_sessions_per_client: limit(reader, table, "max_sessions_per_client"),
            allow: entries::allow(reader, table),
            deny: EntriesText::read(reader, table, "deny"),
            allow_countries: allow_countries(reader, table),
            deny_countries: countries(reader, table, "deny_countries"),
            new_sessions: rate(reader, table, "new_sessions").map(|g| g.value),
            new_sessions_per_client: rate(reader, table, "new_sessions_per_client").map(|g| g.value),
            burst: burst(reader, table, "burst"),
            burst_per_client: burst(reader, table, "burst_per_client"),
            datagrams_per_client: rate(reader, table, "datagrams_per_client"),
            refuse: refuse(reader, table),
        }
    }

    /// The key given here that means nothing to UDP, with its place.
    pub(super) fn tcp_only(&self) -> Option<(&'static str, Span)> {
        self.refuse.as_ref().map(|g| ("refuse", g.span))
    }

    /// The key given here that means nothing to TCP, with its place.
    pub(super) fn udp_only(&self) -> Option<(&'static str, Span)> {
        self.datagrams_per_client.as_ref().map(|g| ("datagrams_per_client", g.span))
    }

    /// Notes what of a mapping's keys makes no sense together, or names what there is not.
    pub(super) fn check(&self, defaults: &Self, known: &Declared, diagnostics: &mut Diagnostics) {
        self.check_bursts(defaults, diagnostics);
        self.check_who(defaults, known, diagnostics);
    }

    /// The same for `[defaults]`, whose keys go together with those of a mapping.
    pub(super) fn check_defaults(&self, known: &Declared, diagnostics: &mut Diagnostics) {
        self.check_who(&Self::default(), known, diagnostics);
    }

    fn check_who(&self, defaults: &Self, known: &Declared, diagnostics: &mut Diagnostics) {
        for entries in [&self.allow, &self.deny].into_iter().flatten() {
            known.refuse_unknown_lists(entries, diagnostics);
        }
        if !known.has_countries {
            let keys = [("allow_countries", &self.allow_countries), ("deny_countries", &self.deny_countries)];
            for (key, given) in keys {
                if let Some(given) = given {
                    diagnostics
                        .problem(given.span, format!("`{key}` without a database of countries"))
                        .hint("name one: [geoip] database = \"/var/lib/GeoIP/GeoLite2-Country.mmdb\"");
                }
            }
        }
        self.check_countries(defaults, diagnostics);
    }

    /// A burst of a mapping needs its rate; one of `[defaults]` waits for a mapping that has it.
    fn check_bursts(&self, defaults: &Self, diagnostics: &mut Diagnostics) {
        let has = self.has_rates(defaults);
        if let Some(given) = self.burst.as_ref().filter(|_| !has.of_all) {
            diagnostics
                .problem(given.span, "`burst` without `new_sessions`")
                .hint("say how often, as in new_sessions = \"20/s\"");
        }
        if let Some(given) = self.burst_per_client.as_ref().filter(|_| !has.of_client) {
            diagnostics
                .problem(given.span, "`burst_per_client` without `new_sessions_per_client`")
                .hint("say how often, as in new_sessions_per_client = \"10/min\"");
        }
    }

    /// Which bursts a mapping with these keys has a rate for.
    pub(super) fn has_rates(&self, defaults: &Self) -> HasRates {
        let is_limit = |own: &Option<GivenRate>, default: &Option<GivenRate>| {
            // One that could not be read is a problem already.
            own.or(*default).is_some_and(|rate| rate != Some(None))
        };
        let datagrams = |overrides: &Self| overrides.datagrams_per_client.as_ref().map(|g| g.value);
        HasRates {
            of_all: is_limit(&self.new_sessions, &defaults.new_sessions),
            of_client: is_limit(&self.new_sessions_per_client, &defaults.new_sessions_per_client)
                || is_limit(&datagrams(self), &datagrams(defaults)),
        }
    }

    /// Notes the bursts of these keys, those of `[defaults]`, where no mapping has their rate.
    pub(super) fn warn_of_idle_bursts(&self, has: HasRates, diagnostics: &mut Diagnostics) {
        let keys = [
            ("burst", &self.burst, has.of_all, "`new_sessions`"),
            ("burst_per_client", &self.burst_per_client, has.of_client, "`new_sessions_per_client`"),
        ];
        for (key, given, has_rate, rate) in keys {
            if let Some(given) = given.as_ref().filter(|_| !has_rate) {
                diagnostics
                    .warning(given.span, format!("`{key}` in [defaults], and no mapping has {rate}"))
                    .hint("a burst limits nothing by itself: say how often, too");
            }
        }
    }

    /// A country cannot be let in and kept out. Of two keys the mapping's own is to blame.
    fn check_countries(&self, defaults: &Self, diagnostics: &mut Diagnostics) {
        let (Some(allow), Some(deny)) = (
            self.allow_countries.as_ref().or(defaults.allow_countries.as_ref()),
            self.deny_countries.as_ref().or(defaults.deny_countries.as_ref()),
        ) else {
            return;
        };
        if self.allow_countries.is_none() && self.deny_countries.is_none() {
            return;
        }
        let (blamed, other) = if self.deny_countries.is_some() { (deny, allow) } else { (allow, deny) };
        let other: BTreeMap<Country, Span> = other.value.iter().map(|g| (g.value, g.span)).collect();
        for Given { value, span } in &blamed.value {
            if let Some(also) = other.get(value) {
                diagnostics
                    .problem(*span, format!("the country {value:?} is both allowed and denied, also at"))
                    .also(*also)
                    .hint("leave it in one of the two");
            }
        }
    }

    /// The terms of a mapping: these keys, then those of `defaults`, then the built-in ones.
    pub(super) fn policy(&self, defaults: &Self) -> Policy {
        let built_in = Caps::default();
        let entries = |text: &Option<EntriesText>, default: &Option<EntriesText>| {
            text.as_ref().or(default.as_ref()).map(|text| text.entries.clone())
        };
        let countries = |own: &Option<GivenCountries>, default: &Option<GivenCountries>| {
            let given = own.as_ref().or(default.as_ref())?;
            Some(given.value.iter().map(|g| g.value).collect::<BTreeSet<_>>())
        };
        Policy {
            access: AccessSpec {
                allow: entries(&self.allow, &defaults.allow),
                deny: entries(&self.deny, &defaults.deny).unwrap_or_default(),
                allow_countries: countries(&self.allow_countries, &defaults.allow_countries),
                deny_countries: countries(&self.deny_countries, &defaults.deny_countries).unwrap_or_default(),
            },
            rates: self.rates(defaults),
            caps: Caps {
                sessions: self.max_sessions.or(defaults.max_sessions).unwrap_or(built_in.sessions),
                sessions_per_client: self
                    .max_sessions_per_client
                    .or(defaults.max_sessions_per_client)
                    .unwrap_or(built_in.sessions_per_client),
            },
            refuse: self.refuse.as_ref().or(defaults.refuse.as_ref()).map_or(Refuse::default(), |g| g.value),
        }
    }

    fn rates(&self, defaults: &Self) -> Rates {
        let pace = |own: Option<GivenRate>, default: Option<GivenRate>| own.or(default).flatten().flatten();
        let burst = |own: &Option<Given<NonZeroU32>>, default: &Option<Given<NonZeroU32>>| {
            own.as_ref().or(default.as_ref()).map(|g| g.value)
        };
        let with = |pace: Option<Pace>, burst: Option<NonZeroU32>| {
            pace.map(|Pace { count, per }| Rate { count, per, burst: burst.unwrap_or(count) })
        };
        let datagrams = |overrides: &Self| overrides.datagrams_per_client.as_ref().map(|g| g.value);
        let per_client = pace(self.new_sessions_per_client, defaults.new_sessions_per_client);
        let burst_per_client = burst(&self.burst_per_client, &defaults.burst_per_client);
        Rates {
            new_sessions: with(
                pace(self.new_sessions, defaults.new_sessions),
                burst(&self.burst, &defaults.burst),
            ),
            new_sessions_per_client: with(per_client, burst_per_client),
            datagrams_per_client: with(
                pace(datagrams(self), datagrams(defaults)),
                burst_per_client.filter(|_| per_client.is_none()),
            ),
        }
    }
}

fn limit(reader: &mut Reader<'_>, table: &DeTable<'_>, key: &str) -> Option<Limit> {
    let count = amount::count_or(reader, key, table.get(key)?, UNLIMITED)?;
    Some(count.map_or(Limit::Unlimited, Limit::AtMost))
}

/// A rate, known to be given even where it could not be read.
fn rate(reader: &mut Reader<'_>, table: &DeTable<'_>, key: &str) -> Option<Given<GivenRate>> {
    let value = table.get(key)?;
    Some(Given { value: amount::rate(reader, key, value), span: reader.span(value.span()) })
}

fn burst(reader: &mut Reader<'_>, table: &DeTable<'_>, key: &str) -> Option<Given<NonZeroU32>> {
    /// With the slowest rate, so many are over a hundred years.
    const MOST: u32 = 1_000_000;
    let value = table.get(key)?;
    let count = amount::positive(reader, key, value, None)?;
    let span = reader.span(value.span());
    if count.get() > MOST {
        reader
            .diagnostics
            .problem(span, format!("`{key}` is more than {MOST}"))
            .hint(format!("where so many may come at once, leave `{key}` and its rate out"));
        return None;
    }
    Some(Given { value: count, span })
}

fn refuse(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<Given<Refuse>> {
    let value = table.get("refuse")?;
    let words = [("close", Refuse::Close), ("reset", Refuse::Reset), ("drop", Refuse::Drop)];
    let span = reader.span(value.span());
    word(reader, "refuse", value, &words).map(|value| Given { value, span })
}

fn allow_countries(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<GivenCountries> {
    const KEY: &str = "allow_countries";
    entries::refuse_empty(
        reader,
        table,
        KEY,
        "name a country, or leave it out: then clients of every country may enter",
    );
    countries(reader, table, KEY)
}

fn countries(reader: &mut Reader<'_>, table: &DeTable<'_>, key: &str) -> Option<GivenCountries> {
    let (span, value) = entry(reader, table, key)?;
    Some(Given { value: codes(reader, key, span, value), span })
}

fn codes(reader: &mut Reader<'_>, key: &str, at: Span, value: &Value<'_>) -> Vec<Given<Country>> {
    let mut codes = Vec::new();
    for text in reader.texts(key, at, value).items {
        let span = text.span();
        let Some(country) = Country::new(&text.value) else {
            let pieces: Vec<_> =
                text.value.split([',', ' ', ';']).filter(|piece| !piece.is_empty()).collect();
            let hint = if pieces.len() > 1 && pieces.iter().all(|piece| Country::new(piece).is_some()) {
                format!("write {key} = [\"{}\"]", pieces.join("\", \""))
            } else {
                "use the two letters of ISO 3166, as in \"DE\"".to_owned()
            };
            reader
                .diagnostics
                .problem(span, format!("`{}` is not a country", text.value))
                .text(&text.value)
                .hint(hint);
            continue;
        };
        if !is_assigned(country.as_str()) {
            let hint = if country.as_str() == "UK" {
                "the United Kingdom is \"GB\""
            } else {
                "no client will be found there; the codes are those of ISO 3166"
            };
            reader
                .diagnostics
                .warning(span, format!("there is no country {country:?}"))
                .text(&text.value)
                .hint(hint);
        }
        codes.push(Given { value: country, span });
    }
    codes
}

/// Whether ISO 3166-1 has the code, or the databases do (Kosovo is XK in them).
fn is_assigned(code: &str) -> bool {
    const CODES: &str = "\
        AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ \
        CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO \
        FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE \
        JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO \
        MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW \
        PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM \
        TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW";
    CODES.split(' ').any(|known| known == code)
}
