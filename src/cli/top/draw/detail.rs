//! All about the selected mapping, below the table: listeners, targets, refusals, and its rates
//! over fifteen minutes.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    symbols,
    text::{Line, Span},
    widgets::{Block, Borders, Sparkline, Widget},
};

use super::{Theme, fitting, plain, put, take_top, total};
use crate::{
    cli::{
        ctl::{
            human::{ago, clock, rate},
            router,
            status::{listener, listeners_state},
        },
        table::Colour,
        top::state::{SECONDS, State},
    },
    status::view::{ListenerState, Mapping, TargetState},
};

/// Below this height of table and details together, the table has all of it.
const LOW: u16 = 13;
/// The table keeps so many lines at least.
const TABLE: u16 = 5;
/// The height of both graphs, with a line about each.
const GRAPHS: u16 = 4;
/// The same where there is room.
const HIGH_GRAPHS: u16 = 8;
/// Listeners, and targets, that are shown.
const SHOWN: usize = 4;

/// Draws the details at the end of `area`, and leaves the rest of it.
pub(super) fn take(mapping: &Mapping, state: &State, theme: Theme, area: &mut Rect, buffer: &mut Buffer) {
    if area.height < LOW {
        return;
    }
    let lines = lines(mapping, theme, area.width);
    // The table with its heading and the words go before high graphs.
    let words = u16::try_from(lines.len() + state.order().len() + 2).unwrap_or(u16::MAX);
    let graphs_height = (area.height.saturating_sub(words) / 2 * 2).clamp(GRAPHS, HIGH_GRAPHS);
    let wanted = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(1 + graphs_height);
    let height = wanted.min(area.height - TABLE);
    let mut place = Rect { y: area.bottom() - height, height, ..*area };
    area.height -= height;
    let title = Line::from(vec![" ".into(), Span::styled(plain(&mapping.name), theme.strong()), " ".into()]);
    Block::new().borders(Borders::TOP).border_style(theme.faint()).title(title).render(place, buffer);
    take_top(&mut place);
    let graphs_height = graphs_height.min(place.height);
    let graphs = Rect { y: place.bottom() - graphs_height, height: graphs_height, ..place };
    place.height -= graphs_height;
    for line in &lines {
        put(buffer, take_top(&mut place), line);
    }
    draw_graphs(mapping, state, theme, graphs, buffer);
}

/// What there is to say, the most important first.
fn lines(mapping: &Mapping, theme: Theme, width: u16) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for one in mapping.listeners.iter().take(SHOWN) {
        let colour = match one.state {
            ListenerState::Listening => Colour::Good,
            ListenerState::Waiting | ListenerState::Failed => Colour::Bad,
            ListenerState::Closed => Colour::Pale,
        };
        let why = [
            one.error.as_ref().map(plain),
            one.holder.as_ref().map(|holder| format!("held by {}", plain(holder))),
        ];
        lines.push(row(listeners_state(one.state), theme.of(colour), plain(listener(one)), why));
    }
    lines.extend(more(mapping.listeners.len(), "listeners", theme));
    for target in mapping.targets.iter().take(SHOWN) {
        let (word, colour) = match target.state {
            TargetState::Up => ("target up", Colour::Good),
            TargetState::Down => ("target down", Colour::Bad),
            TargetState::Paused => ("target paused", Colour::Pale),
        };
        let since = target.since.as_deref().and_then(ago).map(|ago| format!("for {ago}"));
        let about = [since, target.last_error.as_ref().map(plain)];
        lines.push(row(
            word,
            theme.of(colour),
            format!("{}, {} live", plain(&target.address), target.sessions),
            about,
        ));
    }
    lines.extend(more(mapping.targets.len(), "targets", theme));
    for opening in mapping.router.iter().flatten().take(SHOWN) {
        let external =
            opening.external.as_ref().map_or_else(|| format!("port {}", opening.external_port), plain);
        let word = format!("router {}", plain(&opening.state));
        lines.push(row(
            &word,
            theme.of(router::colour(&opening.state)),
            external,
            [opening.error.as_ref().map(plain)],
        ));
    }
    if !mapping.refused.is_empty() {
        let refused = mapping.refused.iter().map(|(reason, count)| format!("{} {count}", plain(reason)));
        lines.push(row("refused", Style::new(), refused.collect::<Vec<_>>().join(", "), []));
    }
    let mut totals: Vec<Span<'static>> = vec![
        format!("{} sessions since the start", mapping.sessions_total).into(),
        total("in", mapping.bytes_in).into(),
        total("out", mapping.bytes_out).into(),
    ];
    totals.extend(mapping.until.as_ref().map(|until| Span::from(format!("until {} UTC", clock(until)))));
    totals.extend(mapping.place.as_ref().map(|place| Span::styled(plain(place), theme.faint())));
    lines.push(fitting(totals, width));
    lines
}

/// A word for the state, what it is about, and why.
fn row<const N: usize>(word: &str, style: Style, about: String, why: [Option<String>; N]) -> Line<'static> {
    let mut line = Line::from(vec![Span::styled(format!("{word:<12}"), style), about.into()]);
    let why: Vec<String> = why.into_iter().flatten().collect();
    if !why.is_empty() {
        line.push_span(format!(": {}", why.join(", ")));
    }
    line
}

fn more(all: usize, what: &str, theme: Theme) -> Option<Line<'static>> {
    let more = all.checked_sub(SHOWN).filter(|more| *more > 0)?;
    Some(Line::styled(format!("{:<12}and {more} more {what}", ""), theme.faint()))
}

/// The graphs of both directions, with what they show now and at most.
fn draw_graphs(mapping: &Mapping, state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let Some(rates) = state.rates(&mapping.name) else { return };
    let width = usize::from(area.width);
    let directions = [
        ("in", mapping.rate_in, rates.cells(SECONDS, width, |(a, _)| a)),
        ("out", mapping.rate_out, rates.cells(SECONDS, width, |(_, b)| b)),
    ];
    let half = area.height / 2;
    for ((name, now, cells), y) in directions.into_iter().zip([area.y, area.y + half]) {
        let most = cells.iter().flatten().copied().max().unwrap_or(0);
        let said = format!(
            "{name} {}, at most {} in 15 minutes",
            now.map_or_else(|| "-".to_owned(), rate),
            rate(most)
        );
        put(buffer, Rect { y, height: 1, ..area }, &Line::raw(said));
        let place = Rect { y: y + 1, height: half - 1, ..area };
        // Half a bar is the least that is seen of a rate that is not zero.
        Sparkline::default()
            .data(cells.iter().map(|cell| cell.unwrap_or(0)))
            .max(most.max(1))
            .bar_set(symbols::bar::NINE_LEVELS)
            .style(theme.graph())
            .render(place, buffer);
    }
}
