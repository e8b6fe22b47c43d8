//! The table of each tab.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{
    Theme, detail, fitting,
    grid::{Column, Grid},
    plain, put, speed, take_top,
};
use crate::{
    cli::{
        ctl::{
            events,
            human::{bytes, span, until},
            router,
            status::{few, listener, state as state_of},
        },
        table::Colour,
        top::state::{Column as By, Happened, Link, Rates, State, Tab},
    },
    mapping::Protocol,
};

/// How far back the small graphs go.
const GRAPH_SECONDS: usize = 5 * 60;
/// The bars of a graph of one line.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl Theme {
    pub(super) fn of(self, colour: Colour) -> Style {
        match colour {
            Colour::Good => self.good(),
            Colour::Bad => self.bad(),
            Colour::Pale => self.pale(),
        }
    }
}

/// Draws the tab that is shown.
pub(super) fn draw(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    match state.tab {
        Tab::Mappings => mappings(state, theme, area, buffer),
        Tab::Sessions => sessions(state, theme, area, buffer),
        Tab::Events => events(state, theme, area, buffer),
        Tab::Router => router(state, theme, area, buffer),
        Tab::Bans => bans(state, theme, area, buffer),
    }
}

/// What is said where a table has no rows.
fn empty<'a>(state: &State, is_known: bool, nothing: &'a str) -> &'a str {
    match state.link {
        _ if !state.filter().is_empty() => "nothing matches the filter",
        Link::Live if is_known => nothing,
        _ => "",
    }
}

/// The table of a tab without its cells.
fn grid<'a>(state: &State, columns: &'a [Column], empty: &'a str) -> Grid<'a> {
    Grid { columns, sorted: None, len: state.order().len(), at: state.at(), empty }
}

fn text(text: impl std::fmt::Display) -> Span<'static> {
    Span::raw(plain(text))
}

fn some(known: Option<impl std::fmt::Display>) -> Span<'static> {
    known.map_or_else(|| "-".into(), text)
}

fn protocol(protocol: Option<Protocol>) -> Span<'static> {
    some(protocol.map(Protocol::as_str))
}

fn mappings(state: &State, theme: Theme, mut area: Rect, buffer: &mut Buffer) {
    let graph = if area.width >= 120 { 30 } else { 10 };
    let columns = [
        Column::words("MAPPING", 0),
        Column::words("STATE", 1),
        Column::number("LIVE", 2, 4),
        Column::number("IN", 3, 10),
        Column::number("OUT", 3, 10),
        Column::graph("5 MINUTES", 4, graph),
        Column::words("TARGET", 5),
        Column::words("LISTEN", 6),
        Column::number("TOTAL", 7, 6),
    ];
    if let Some(mapping) = state.mapping() {
        detail::take(mapping, state, theme, &mut area, buffer);
    }
    let grid = grid(state, &columns, empty(state, true, "no mappings"));
    grid.draw(theme, area, buffer, |nth| {
        let mapping = &state.picture.mappings[state.order()[nth]];
        let (word, colour) = state_of(mapping);
        let listeners: Vec<_> = mapping.listeners.iter().map(listener).collect();
        let targets: Vec<_> = mapping.targets.iter().map(|target| target.address.clone()).collect();
        vec![
            text(&mapping.name),
            Span::styled(plain(word), theme.of(colour)),
            text(mapping.sessions),
            text(speed(mapping.rate_in)),
            text(speed(mapping.rate_out)),
            Span::styled(bars(state.rates(&mapping.name), graph.into()), theme.graph()),
            text(few(&targets)),
            text(few(&listeners)),
            text(bytes(mapping.bytes_in.saturating_add(mapping.bytes_out))),
        ]
    });
}

/// Both rates of the last minutes as a line of bars. The highest one is the highest of this
/// mapping.
fn bars(rates: Option<&Rates>, width: usize) -> String {
    let Some(rates) = rates else { return String::new() };
    let cells = rates.cells(GRAPH_SECONDS, width, |(a, b)| a.saturating_add(b));
    let most = u128::from(cells.iter().flatten().copied().max().unwrap_or(0).max(1));
    let bar = |cell: &Option<u64>| match cell {
        None => ' ',
        Some(value) => BARS[usize::try_from(u128::from(*value) * 7 / most).unwrap_or(7).min(7)],
    };
    cells.iter().map(bar).collect()
}

fn sessions(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let weights = |by| match by {
        By::Client => 0,
        By::Mapping | By::Id => 1,
        By::Rate => 2,
        By::In | By::Out => 3,
        By::Age => 4,
        By::Target => 5,
        By::Idle => 6,
        By::Protocol => 7,
    };
    let columns = By::ALL.map(|by| match by {
        // The column that is sorted by is always seen.
        _ if by == state.column && by.is_number() => Column::number(by.heading(), 0, 7),
        By::Id | By::Age | By::Idle => Column::number(by.heading(), weights(by), 4),
        By::In | By::Out | By::Rate => Column::number(by.heading(), weights(by), 9),
        By::Mapping | By::Client | By::Target | By::Protocol => {
            Column::words(by.heading(), if by == state.column { 0 } else { weights(by) })
        }
    });
    let falls = state.column.falls() != state.reversed;
    let is_known = state.sessions_known;
    let mut grid = grid(state, &columns, empty(state, is_known, "no live sessions"));
    grid.sorted = Some((state.column as usize, falls));
    grid.draw(theme, area, buffer, |nth| {
        let row = &state.sessions[state.order()[nth]];
        let session = &row.session;
        let client = match &session.country {
            Some(country) => format!("{} ({country})", session.client),
            None => session.client.clone(),
        };
        By::ALL
            .map(|by| match by {
                By::Id => text(session.id),
                By::Mapping => text(&session.mapping),
                By::Client => text(&client),
                By::Target => some(session.target.as_deref()),
                By::Protocol => protocol(session.protocol),
                By::Age => text(span(session.age_ms)),
                By::Idle => some(session.idle_ms.map(span)),
                By::In => text(bytes(session.bytes_in)),
                By::Out => text(bytes(session.bytes_out)),
                By::Rate => text(speed(row.rate)),
            })
            .into()
    });
}

fn events(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    const COLUMNS: [Column; 4] = [
        Column::words("TIME", 2),
        Column::words("EVENT", 1),
        Column::words("MAPPING", 3),
        Column::sentence("WHAT HAPPENED", 0),
    ];
    let grid = grid(state, &COLUMNS, empty(state, true, "nothing has happened yet"));
    grid.draw(theme, area, buffer, |nth| match &state.events[state.order()[nth]].1 {
        Happened::Lost(count) => {
            let lost = format!("{count} more events came too fast");
            vec!["".into(), "…".into(), "".into(), Span::styled(lost, theme.pale())]
        }
        Happened::Event(event) => {
            let style = events::colour(&event.kind).map(|colour| theme.of(colour)).unwrap_or_default();
            let mapping = event.mapping.as_deref().unwrap_or_default();
            vec![
                text(time(&event.at)),
                Span::styled(plain(&event.kind), style),
                text(mapping),
                text(&event.message),
            ]
        }
    });
}

/// The time of a day out of a time of the interface, in UTC.
fn time(at: &str) -> &str {
    at.get(11..19).unwrap_or(at)
}

fn router(state: &State, theme: Theme, mut area: Rect, buffer: &mut Buffer) {
    const COLUMNS: [Column; 7] = [
        Column::words("MAPPING", 0),
        Column::words("PROTOCOL", 5),
        Column::words("STATE", 1),
        Column::words("EXTERNAL", 2),
        Column::words("LISTEN", 4),
        Column::number("LEASE", 6, 4),
        Column::sentence("ERROR", 3),
    ];
    if let Some(router) = &state.picture.router {
        let mut parts = vec![Span::raw(match &*router.state {
            "off" => "no mapping that is open has `router = true`".to_owned(),
            state => plain(state),
        })];
        let about = [("at", &router.gateway), ("by", &router.protocol), ("external", &router.external)];
        parts.extend(
            about.iter().filter_map(|(name, value)| Some(text(format!("{name} {}", value.as_ref()?)))),
        );
        parts.extend(router.model.as_ref().map(text));
        put(buffer, take_top(&mut area), &fitting(parts, area.width));
        for line in [&router.verdict, &router.error].into_iter().flatten() {
            put(buffer, take_top(&mut area), &Line::styled(plain(line), theme.bad()));
        }
        take_top(&mut area);
    }
    let grid =
        grid(state, &COLUMNS, empty(state, state.picture.router.is_some(), "nothing is open on a router"));
    grid.draw(theme, area, buffer, |nth| {
        let opening = &state.openings()[state.order()[nth]];
        let external = match (&opening.external, opening.external_port) {
            (Some(external), _) => external.clone(),
            (None, 0) => String::new(),
            (None, port) => format!("port {port}"),
        };
        let unverified = if opening.unverified { ", unverified" } else { "" };
        let retry = opening.retry_ms.map(|ms| format!("; tried again in {}", span(ms))).unwrap_or_default();
        vec![
            text(&opening.mapping),
            protocol(opening.protocol),
            Span::styled(
                plain(format!("{}{unverified}", opening.state)),
                theme.of(router::colour(&opening.state)),
            ),
            text(external),
            text(&opening.listen),
            some(opening.lease_ms.map(span)),
            text(opening.error.as_ref().map(|error| format!("{error}{retry}")).unwrap_or_default()),
        ]
    });
}

fn bans(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    const COLUMNS: [Column; 5] = [
        Column::words("CLIENT", 0),
        Column::number("ENDS IN", 1, 8),
        Column::words("BY", 2),
        Column::number("TIMES", 3, 0),
        Column::sentence("REASON", 1),
    ];
    let grid = grid(state, &COLUMNS, empty(state, state.picture.bans.is_some(), "no client is banned"));
    grid.draw(theme, area, buffer, |nth| {
        let ban = &state.bans()[state.order()[nth]];
        let left = ban.until.as_deref().map_or(Some("never".to_owned()), until);
        vec![
            text(&ban.client),
            some(left.or_else(|| ban.until.clone())),
            text(if ban.manual { "operator" } else { "guard" }),
            text(ban.count),
            text(&ban.reason),
        ]
    });
}
