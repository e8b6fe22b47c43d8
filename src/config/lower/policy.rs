//! The keys of a mapping that limit its clients, and how they make a [`Policy`]: access, rates and
//! caps.
//!
//! Each key of a mapping takes the place of the same key of `[defaults]` as a whole: lists are not
//! merged. A burst is the burst of its rate, wherever either of them stands. `burst_per_client`
//! belongs to `new_sessions_per_client`, and to `datagrams_per_client` where that is the only rate
//! for a client: what suits the one would strangle the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    ops::BitOrAssign,
};

use crate::{
    config::{
        lower::{
            declared::Declared,
            entries::{self, EntriesText},
        },
        text::{
            Code, Diagnostics, Keys, Located, Pace, Reader, Setting, Span, Term, Value,
            amount::{self, UNLIMITED},
            spelling,
            table::word,
        },
    },
    mapping::Protocol,
    policy::{AccessSpec, Caps, Country, Entries, Limit, Policy, Rate, Rates, Refuse},
};

/// Countries that were given: the place of the key, and those that could be read.
type LocatedCountries = Located<Vec<Located<Country>>>;

/// What was given of these keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyOverrides {
    max_sessions: Setting<Limit>,
    max_sessions_per_client: Setting<Limit>,
    allow: Option<EntriesText>,
    deny: Option<EntriesText>,
    allow_countries: Option<LocatedCountries>,
    deny_countries: Option<LocatedCountries>,
    /// Of a rate, nothing is unlimited.
    new_sessions: Setting<Option<Pace>>,
    new_sessions_per_client: Setting<Option<Pace>>,
    burst: Setting<NonZeroU32>,
    burst_per_client: Setting<NonZeroU32>,
    datagrams_per_client: Setting<Option<Pace>>,
    refuse: Setting<Refuse>,
    knock: Setting<bool>,
}

/// Which bursts have a rate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HasRates {
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
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
        Self {
            max_sessions: keys.setting(reader, "max_sessions", limit),
            max_sessions_per_client: keys.setting(reader, "max_sessions_per_client", limit),
            allow: entries::allow(reader, keys),
            deny: EntriesText::read(reader, keys, "deny"),
            allow_countries: allow_countries(reader, keys),
            deny_countries: countries(reader, keys, "deny_countries"),
            new_sessions: keys.setting(reader, "new_sessions", amount::rate),
            new_sessions_per_client: keys.setting(reader, "new_sessions_per_client", amount::rate),
            burst: keys.setting(reader, "burst", burst),
            burst_per_client: keys.setting(reader, "burst_per_client", burst),
            datagrams_per_client: keys.setting(reader, "datagrams_per_client", amount::rate),
            refuse: keys.setting(reader, "refuse", refuse),
            knock: keys.setting(reader, "knock", |reader, key, value| reader.flag(key, value)),
        }
    }

    /// The key given here that means nothing to UDP, with its place.
    pub(crate) fn tcp_only(&self) -> Option<(&'static str, Span)> {
        self.refuse.given().map(|g| ("refuse", g.span))
    }

    /// The key given here that means nothing to TCP, with its place.
    pub(crate) fn udp_only(&self) -> Option<(&'static str, Span)> {
        self.datagrams_per_client.given().map(|g| ("datagrams_per_client", g.span))
    }

    /// Notes what of a mapping's keys makes no sense together, or names what there is not.
    pub(crate) fn check(&self, defaults: &Self, known: &Declared, diagnostics: &mut Diagnostics) {
        self.check_bursts(defaults, diagnostics);
        self.check_who(defaults, known, diagnostics);
        self.check_knock(defaults, known, diagnostics);
    }

    /// A knock needs keys, and silence for everyone else.
    fn check_knock(&self, defaults: &Self, known: &Declared, diagnostics: &mut Diagnostics) {
        let Some(given) = self.knock.or(&defaults.knock).given().filter(|given| given.value) else { return };
        if !known.has_knock {
            diagnostics.problem(Code::MissingKey, given.span, "`knock = true` without [knock]: no client could enter").hint(
                "make a key by `portway key new anna -o /etc/portway/keys`, and name it: [knock] listen = \"62201\", \
                 keys = [{ name = \"anna\", key_file = \"/etc/portway/keys/anna.pub\" }]",
            );
        }
        if let Some(refuse) = self.refuse.given().filter(|refuse| refuse.value != Refuse::Drop) {
            diagnostics
                .problem(
                    Code::ConflictingKeys,
                    refuse.span,
                    "`refuse` with `knock = true`: an answer would show the port",
                )
                .hint("leave `refuse` out: clients that did not knock hear nothing");
        }
    }

    /// The same for `[defaults]`, whose keys go together with those of a mapping.
    pub(crate) fn check_defaults(&self, known: &Declared, diagnostics: &mut Diagnostics) {
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
                    let message = format!("`{key}` without a database of countries");
                    diagnostics
                        .problem(Code::MissingKey, given.span, message)
                        .hint("name one: [geoip] database = \"/var/lib/GeoIP/GeoLite2-Country.mmdb\"");
                }
            }
        }
        self.check_countries(defaults, diagnostics);
    }

    /// A burst of a mapping needs its rate; one of `[defaults]` waits for a mapping that has it.
    fn check_bursts(&self, defaults: &Self, diagnostics: &mut Diagnostics) {
        let has = self.has_rates(defaults);
        if let Some(given) = self.burst.given().filter(|_| !has.of_all) {
            diagnostics
                .problem(Code::MissingKey, given.span, "`burst` without `new_sessions`")
                .hint("say how often, as in new_sessions = \"20/s\"");
        }
        if let Some(given) = self.burst_per_client.given().filter(|_| !has.of_client) {
            diagnostics
                .problem(Code::MissingKey, given.span, "`burst_per_client` without `new_sessions_per_client`")
                .hint("say how often, as in new_sessions_per_client = \"10/min\"");
        }
    }

    /// Which bursts a mapping with these keys has a rate for.
    pub(crate) fn has_rates(&self, defaults: &Self) -> HasRates {
        let is_limit = |own: &Setting<Option<Pace>>, default: &Setting<Option<Pace>>| match own.or(default) {
            Setting::Unset => false,
            // The cause is reported already.
            Setting::Unreadable => true,
            Setting::Set(given) => given.value.is_some(),
        };
        HasRates {
            of_all: is_limit(&self.new_sessions, &defaults.new_sessions),
            of_client: is_limit(&self.new_sessions_per_client, &defaults.new_sessions_per_client)
                || is_limit(&self.datagrams_per_client, &defaults.datagrams_per_client),
        }
    }

    /// Notes the bursts of these keys, those of `[defaults]`, where no mapping has their rate.
    pub(crate) fn warn_of_idle_bursts(&self, has: HasRates, diagnostics: &mut Diagnostics) {
        let keys = [
            ("burst", &self.burst, has.of_all, "`new_sessions`"),
            ("burst_per_client", &self.burst_per_client, has.of_client, "`new_sessions_per_client`"),
        ];
        for (key, given, has_rate, rate) in keys {
            if let Some(given) = given.given().filter(|_| !has_rate) {
                let message = format!("`{key}` in [defaults], and no mapping has {rate}");
                diagnostics
                    .warning(Code::NoEffect, given.span, message)
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
        for Located { value, span } in &blamed.value {
            if let Some(also) = other.get(value) {
                let message = format!("the country {value:?} is both allowed and denied, also at");
                diagnostics
                    .problem(Code::ConflictingKeys, *span, message)
                    .also(*also)
                    .hint("leave it in one of the two");
            }
        }
    }

    /// The terms of a mapping: these keys, then those of `defaults`, then the built-in ones.
    pub(crate) fn policy(&self, defaults: &Self) -> Policy {
        let built_in = Caps::default();
        let entries = |text: &Option<EntriesText>, default: &Option<EntriesText>| {
            text.as_ref().or(default.as_ref()).map(|text| text.entries.clone())
        };
        let countries = |own: &Option<LocatedCountries>, default: &Option<LocatedCountries>| {
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
                sessions: self.max_sessions.resolve(&defaults.max_sessions, built_in.sessions),
                sessions_per_client: self
                    .max_sessions_per_client
                    .resolve(&defaults.max_sessions_per_client, built_in.sessions_per_client),
            },
            refuse: self.refuse.resolve(&defaults.refuse, Refuse::default()),
            knock: self.knock.resolve(&defaults.knock, false),
        }
    }

    fn rates(&self, defaults: &Self) -> Rates {
        let with = |pace: Option<Pace>, burst: Option<NonZeroU32>| {
            pace.map(|Pace { count, per }| Rate { count, per, burst: burst.unwrap_or(count) })
        };
        let per_client = self.new_sessions_per_client.resolve(&defaults.new_sessions_per_client, None);
        let burst_per_client = self.burst_per_client.resolve(&defaults.burst_per_client, None);
        Rates {
            new_sessions: with(
                self.new_sessions.resolve(&defaults.new_sessions, None),
                self.burst.resolve(&defaults.burst, None),
            ),
            new_sessions_per_client: with(per_client, burst_per_client),
            datagrams_per_client: with(
                self.datagrams_per_client.resolve(&defaults.datagrams_per_client, None),
                burst_per_client.filter(|_| per_client.is_none()),
            ),
        }
    }
}

/// Adds the keys of a policy that mean something to the protocol.
pub(crate) fn terms<'p>(policy: &'p Policy, protocol: Protocol, terms: &mut Vec<Term<'p>>) {
    let Policy { access, rates, caps, refuse, knock } = policy;
    let (usual, is_udp) = (Caps::default(), protocol == Protocol::Udp);
    terms.push(Term::new("allow", &access.allow, &None));
    terms.push(Term::new("deny", &access.deny, &Entries::default()));
    terms.push(Term::new("allow_countries", &access.allow_countries, &None));
    terms.push(Term::new("deny_countries", &access.deny_countries, &BTreeSet::new()));
    terms.push(Term::new("knock", knock, &false));
    terms.push(Term::new("max_sessions", &caps.sessions, &usual.sessions));
    terms.push(Term::new("max_sessions_per_client", &caps.sessions_per_client, &usual.sessions_per_client));
    let datagrams = rates.datagrams_per_client.filter(|_| is_udp);
    let mut rate = |key, burst_key, rate: &'p Option<Rate>, burst: Option<Rate>| {
        terms.push(Term::new(key, rate, &None));
        let is_count = burst.map(|rate| rate.count);
        terms.push(Term::owned(burst_key, burst.map(|rate| rate.burst), &is_count));
    };
    rate("new_sessions", "burst", &rates.new_sessions, rates.new_sessions);
    let per_client = &rates.new_sessions_per_client;
    rate("new_sessions_per_client", "burst_per_client", per_client, per_client.or(datagrams));
    if is_udp {
        terms.push(Term::new("datagrams_per_client", &rates.datagrams_per_client, &None));
    } else {
        terms.push(Term::new("refuse", refuse, &Refuse::default()));
    }
}

fn limit(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Limit> {
    let count = amount::count_or(reader, key, value, UNLIMITED)?;
    Some(count.map_or(Limit::Unlimited, Limit::AtMost))
}

fn burst(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<NonZeroU32> {
    /// With the slowest rate, so many are over a hundred years.
    const MOST: u32 = 1_000_000;
    amount::positive_up_to(reader, key, value, MOST, || {
        format!("where so many may come at once, leave `{key}` and its rate out")
    })
}

fn refuse(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Refuse> {
    word(
        reader,
        key,
        value,
        &[Refuse::Close, Refuse::Reset, Refuse::Drop].map(|refuse| (spelling::refuse(refuse), refuse)),
    )
}

fn allow_countries(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Option<LocatedCountries> {
    const KEY: &str = "allow_countries";
    entries::refuse_empty(
        reader,
        keys,
        KEY,
        "name a country, or leave it out: then clients of every country may enter",
    );
    countries(reader, keys, KEY)
}

fn countries(
    reader: &mut Reader<'_>,
    keys: &mut Keys<'_, '_>,
    key: &'static str,
) -> Option<LocatedCountries> {
    let (span, value) = keys.entry(reader, key)?;
    Some(Located { value: codes(reader, key, span, value), span })
}

fn codes(reader: &mut Reader<'_>, key: &str, at: Span, value: &Value<'_>) -> Vec<Located<Country>> {
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
                .problem(Code::InvalidEntry, span, format!("`{}` is not a country", text.value))
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
                .warning(Code::InvalidEntry, span, format!("{country:?} is not a country"))
                .text(&text.value)
                .hint(hint);
        }
        codes.push(Located { value: country, span });
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
