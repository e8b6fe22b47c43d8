//! Sessions as rows, and the orders in which they are shown.

use std::{cmp::Ordering, net::SocketAddr};

use crate::status::view::Session;

/// A session with its rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli::top) struct Row {
    pub(in crate::cli::top) session: Session,
    /// Bytes a second in both directions; absent until it was seen twice.
    pub(in crate::cli::top) rate: Option<u64>,
}

impl Row {
    /// A session, with what was known of it one picture ago.
    pub(super) fn new(before: Option<&Self>, session: Session) -> Self {
        let rate = before.and_then(|before| {
            let old = &before.session;
            match session.age_ms.saturating_sub(old.age_ms) {
                // Two pictures of the same moment.
                0 => before.rate,
                elapsed => {
                    let moved = both(&session).saturating_sub(both(old));
                    Some(u64::try_from(moved * 1000 / u128::from(elapsed)).unwrap_or(u64::MAX))
                }
            }
        });
        Self { session, rate }
    }

    /// The text in which the filter looks.
    pub(super) fn text(&self) -> String {
        let Session { id, mapping, protocol, client, listen, target, country, .. } = &self.session;
        let protocol = protocol.map(crate::mapping::Protocol::as_str).unwrap_or_default();
        let (target, country) =
            (target.as_deref().unwrap_or_default(), country.as_deref().unwrap_or_default());
        format!("{id} {mapping} {protocol} {client} {listen} {target} {country}")
    }
}

fn both(session: &Session) -> u128 {
    u128::from(session.bytes_in) + u128::from(session.bytes_out)
}

/// A column of the table of sessions, by which it can be sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli::top) enum Column {
    Id,
    Mapping,
    Client,
    Target,
    Protocol,
    Age,
    Idle,
    In,
    Out,
    #[default]
    Rate,
}

impl Column {
    pub(in crate::cli::top) const ALL: [Self; 10] = [
        Self::Id,
        Self::Mapping,
        Self::Client,
        Self::Target,
        Self::Protocol,
        Self::Age,
        Self::Idle,
        Self::In,
        Self::Out,
        Self::Rate,
    ];

    pub(in crate::cli::top) fn heading(self) -> &'static str {
        match self {
            Self::Id => "ID",
            Self::Mapping => "MAPPING",
            Self::Client => "CLIENT",
            Self::Target => "TARGET",
            Self::Protocol => "PROTOCOL",
            Self::Age => "AGE",
            Self::Idle => "IDLE",
            Self::In => "IN",
            Self::Out => "OUT",
            Self::Rate => "RATE",
        }
    }

    /// Whether its cells are numbers.
    pub(in crate::cli::top) fn is_number(self) -> bool {
        self.falls() || self == Self::Id
    }

    /// The key that sorts by it.
    pub(in crate::cli::top) fn key(self) -> char {
        match self {
            Self::Id => 'd',
            Self::Mapping => 'm',
            Self::Client => 'c',
            Self::Target => 't',
            Self::Protocol => 'p',
            Self::Age => 'a',
            Self::Idle => 'l',
            Self::In => 'i',
            Self::Out => 'o',
            Self::Rate => 'b',
        }
    }

    /// The column so many places further, in a circle.
    pub(super) fn step(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }

    /// Whether the largest come first.
    pub(in crate::cli::top) fn falls(self) -> bool {
        matches!(self, Self::Age | Self::Idle | Self::In | Self::Out | Self::Rate)
    }

    /// Sorts the rows with these indices: numbers from the largest, words from the first. Rows that
    /// are equal stand by their number.
    pub(super) fn sort(self, order: &mut [usize], rows: &[Row], reversed: bool) {
        let falls = self.falls() != reversed;
        let by = |compared: Ordering| if falls { compared.reverse() } else { compared };
        let id = |index: usize| rows[index].session.id;
        match self {
            Self::Client => {
                // Addresses are read once each.
                let mut keys: Vec<Option<(Option<SocketAddr>, &str)>> = vec![None; rows.len()];
                for index in &*order {
                    let client = &*rows[*index].session.client;
                    keys[*index] = Some((client.parse().ok(), client));
                }
                order.sort_by(|a, b| by(keys[*a].cmp(&keys[*b])).then(id(*a).cmp(&id(*b))));
            }
            _ => order.sort_by(|a, b| by(self.compare(&rows[*a], &rows[*b])).then(id(*a).cmp(&id(*b)))),
        }
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let (a_rate, b_rate) = (a.rate, b.rate);
        let (a, b) = (&a.session, &b.session);
        match self {
            Self::Id => a.id.cmp(&b.id),
            Self::Mapping => a.mapping.cmp(&b.mapping),
            Self::Client => a.client.cmp(&b.client),
            Self::Target => a.target.cmp(&b.target),
            Self::Protocol => a.protocol.cmp(&b.protocol),
            Self::Age => a.age_ms.cmp(&b.age_ms),
            Self::Idle => a.idle_ms.cmp(&b.idle_ms),
            Self::In => a.bytes_in.cmp(&b.bytes_in),
            Self::Out => a.bytes_out.cmp(&b.bytes_out),
            Self::Rate => a_rate.cmp(&b_rate),
        }
    }
}
