//! The picture on the screen: header, tabs, the table of the shown tab, keys.
//!
//! Pure: [`draw`] reads the state and writes cells. Whatever does not fit is left out by its
//! weight: columns from the least important one, then lines. While the daemon does not answer, all
//! but the header is greyed.
//!
//! Must not know where the values come from. Each text of another program goes through
//! [`plain`], so that none of it moves the cursor.

mod bodies;
mod detail;
mod grid;
mod popup;

use std::fmt::Display;

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::state::{Link, Mode, State, Tab};
use crate::{
    cli::ctl::human::{bytes, count, rate, span},
    text::Escaped,
};

/// Below this height the header has one line.
const LOW: u16 = 8;
/// From this height on, there is a line for what an operator should know.
const HIGH: u16 = 10;

/// How things look. Without colours, weight alone says what matters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    /// Whether colours are wanted.
    pub(super) colour: bool,
}

impl Theme {
    fn colour(self, colour: Color, without: Modifier) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new().add_modifier(without) }
    }

    fn good(self) -> Style {
        self.colour(Color::Green, Modifier::empty())
    }

    fn bad(self) -> Style {
        self.colour(Color::Red, Modifier::BOLD).add_modifier(Modifier::BOLD)
    }

    fn pale(self) -> Style {
        self.colour(Color::Yellow, Modifier::empty())
    }

    fn faint(self) -> Style {
        self.colour(Color::DarkGray, Modifier::DIM)
    }

    fn graph(self) -> Style {
        self.colour(Color::Cyan, Modifier::empty())
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

/// A text of another program, fit for a terminal.
fn plain(text: impl Display) -> String {
    Escaped(text).to_string()
}

/// Draws all of it.
pub(super) fn draw(state: &State, theme: Theme, frame: &mut Frame<'_>) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    let alert = if area.height >= HIGH { alert(state) } else { None };
    let mut lines = vec![title(state, theme, area.width)];
    if area.height >= LOW {
        lines.push(totals(state, area.width));
    }
    if let Some(alert) = alert {
        lines.push(Line::styled(plain(alert), theme.bad()));
    }
    lines.push(tabs(state, theme, area.width));
    let mut rest = area;
    for line in &lines {
        put(buffer, take_top(&mut rest), line);
    }
    if rest.height > 1 {
        let footer = Rect { y: rest.bottom() - 1, height: 1, ..rest };
        rest.height -= 1;
        put(buffer, footer, &footer_line(state, theme, area.width));
    }
    bodies::draw(state, theme, rest, buffer);
    if matches!(state.link, Link::Gone(_)) {
        let from = area.y + 1;
        let old = Rect { y: from, height: area.height.saturating_sub(1), ..area };
        grey(buffer, old.intersection(area), theme);
    }
    match &state.mode {
        Mode::Help => popup::help(area, theme, buffer),
        Mode::Question { text, .. } => popup::question(text, area, theme, buffer),
        Mode::Filter | Mode::Table => {}
    }
}

/// Takes the colours away, so that what is old looks old.
fn grey(buffer: &mut Buffer, area: Rect, theme: Theme) {
    for position in area.positions() {
        let selected = buffer[position].modifier & Modifier::REVERSED;
        buffer[position].set_style(Style::reset());
        buffer[position].set_style(theme.faint().add_modifier(selected));
    }
}

/// Cuts the first line off.
fn take_top(rest: &mut Rect) -> Rect {
    let height = rest.height.min(1);
    let top = Rect { height, ..*rest };
    (rest.y, rest.height) = (rest.y + height, rest.height - height);
    top
}

/// Writes a line, cut at the end of its place.
fn put(buffer: &mut Buffer, area: Rect, line: &Line<'_>) {
    if area.height > 0 && area.width > 0 {
        buffer.set_line(area.x, area.y, line, area.width);
    }
}

/// The parts that fit a line, with two spaces between them. The first is always there.
fn fitting(parts: Vec<Span<'static>>, width: u16) -> Line<'static> {
    let mut line = Line::default();
    for part in parts {
        let gap = if line.spans.is_empty() { 0 } else { 2 };
        if gap > 0 && line.width() + gap + part.width() > usize::from(width) {
            continue;
        }
        line.push_span(" ".repeat(gap));
        line.push_span(part);
    }
    line
}

/// The first line: which daemon, and how it is.
fn title(state: &State, theme: Theme, width: u16) -> Line<'static> {
    let status = &state.picture.status;
    let name = match &*status.version {
        "" => "portway".to_owned(),
        version => format!("portway {}", plain(version)),
    };
    let name = Span::styled(name, theme.strong());
    match &state.link {
        Link::Asking => fitting(vec![name, "asking the daemon …".into()], width),
        Link::Gone(why) => {
            let why = Span::styled(format!("not reached: {}", plain(why)), theme.bad());
            Line::from(vec![name, "  ".into(), why])
        }
        Link::Live => {
            let ready = match status.ready {
                true => Span::styled("ready", theme.good()),
                false => Span::styled("not ready", theme.bad()),
            };
            let mut parts = vec![name, ready, format!("up {}", span(status.uptime_ms)).into()];
            if let Some(external) = &status.external {
                parts.push(format!("external {}", plain(external)).into());
            }
            parts.push(Span::styled(format!("process {}", status.pid), theme.faint()));
            fitting(parts, width)
        }
    }
}

/// The second line: numbers of the whole daemon.
fn totals(state: &State, width: u16) -> Line<'static> {
    let status = &state.picture.status;
    if status.version.is_empty() {
        return Line::default();
    }
    let mut parts = vec![count(status.sessions as u64, "session"), count(status.flows as u64, "flow")];
    let mappings = &state.picture.mappings;
    if mappings.iter().any(|mapping| mapping.rate_in.is_some()) {
        let sum = |rate: fn(&crate::status::view::Mapping) -> Option<u64>| {
            mappings.iter().filter_map(rate).fold(0, u64::saturating_add)
        };
        parts.push(format!("in {}", rate(sum(|mapping| mapping.rate_in))));
        parts.push(format!("out {}", rate(sum(|mapping| mapping.rate_out))));
    }
    let descriptors = status.descriptors;
    if descriptors.limit > 0 {
        parts.push(format!("{} of {} descriptors", descriptors.open, descriptors.limit));
    }
    if status.bans > 0 {
        parts.push(count(status.bans as u64, "ban"));
    }
    fitting(parts.into_iter().map(Span::from).collect(), width)
}

/// What an operator should know: the most urgent of it.
fn alert(state: &State) -> Option<String> {
    let status = &state.picture.status;
    if let [first, rest @ ..] = &*status.not_ready {
        let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
        return Some(format!("not ready: {first}{more}"));
    }
    if let Some(reload) = status.last_reload.as_ref().filter(|reload| reload.outcome == "refused") {
        let first = reload.problems.first().map(|problem| format!(": {}", problem.message));
        return Some(format!("the last reload was refused{}", first.unwrap_or_default()));
    }
    let warnings = status.warnings.len() as u64;
    (warnings > 0).then(|| format!("{}; `portway status` shows them", count(warnings, "warning")))
}

/// The tabs with their keys. Where they do not fit, the others are numbers.
fn tabs(state: &State, theme: Theme, width: u16) -> Line<'static> {
    let line = |short: bool| {
        let mut line = Line::default();
        for (tab, key) in Tab::ALL.into_iter().zip(1..) {
            let is_shown = tab == state.tab;
            let title = if short && !is_shown { String::new() } else { format!(" {}", tab.title()) };
            let style = if is_shown { theme.selected().add_modifier(Modifier::BOLD) } else { Style::new() };
            line.push_span(Span::styled(format!(" {key}{title} "), style));
            line.push_span(" ");
        }
        line
    };
    let full = line(false);
    if full.width() <= usize::from(width) { full } else { line(true) }
}

/// The last line: what was done, what is written, or the keys.
fn footer_line(state: &State, theme: Theme, width: u16) -> Line<'static> {
    let filter = plain(state.filter());
    if state.mode == Mode::Filter {
        let cursor = Span::styled(" ", theme.selected());
        let keys = Span::styled("  Enter keeps, Esc clears", theme.faint());
        return Line::from(vec!["filter: ".into(), filter.into(), cursor, keys]);
    }
    if let Some(notice) = &state.notice {
        let style = if notice.is_bad { theme.bad() } else { theme.good() };
        return Line::styled(plain(&notice.text), style);
    }
    let mut parts = Vec::new();
    if !filter.is_empty() {
        parts.push(Span::styled(format!("filter: {filter}"), theme.pale()));
        parts.push("Esc clears".into());
    }
    let keys: &[&str] = match state.tab {
        Tab::Sessions => &["? keys", "q quit", "/ filter", "x end", "s sort", "r reverse"],
        Tab::Bans => &["? keys", "q quit", "/ filter", "u unban"],
        Tab::Mappings | Tab::Events | Tab::Router => &["? keys", "q quit", "/ filter", "Tab next"],
    };
    parts.extend(keys.iter().map(|key| Span::styled(*key, theme.faint())));
    fitting(parts, width)
}

/// A number of bytes a second, where it is known.
fn speed(known: Option<u64>) -> String {
    known.map_or_else(|| "-".to_owned(), rate)
}

/// A total with its heading.
fn total(name: &str, of: u64) -> String {
    format!("{name} {}", bytes(of))
}

#[cfg(test)]
mod tests;
