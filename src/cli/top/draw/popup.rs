//! What stands above the picture: a question, and the list of keys.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::Line,
    widgets::{Block, BorderType, Clear, Paragraph, Widget, Wrap},
};

use super::{Theme, plain};
use crate::cli::top::state::Column;

const WIDEST: u16 = 60;

/// Asks, in the middle of the screen.
pub(super) fn question(text: &str, area: Rect, theme: Theme, buffer: &mut Buffer) {
    let text = plain(text);
    let width = WIDEST.min(area.width);
    let inner = usize::from(width.saturating_sub(4).max(1));
    // Words may wrap earlier than characters do.
    let lines = text.chars().count() / inner + 2;
    let height = u16::try_from(lines + 3).unwrap_or(area.height).min(area.height);
    let keys = Line::styled("y yes   any other key no", theme.faint());
    boxed(" Question ", vec![Line::from(text), keys], width, height, area, theme, buffer);
}

/// Lists the keys.
pub(super) fn help(area: Rect, theme: Theme, buffer: &mut Buffer) {
    let columns = Column::ALL.map(|column| format!("{} {}", column.key(), column.heading().to_lowercase()));
    let mut lines: Vec<Line<'_>> = [
        "q, Ctrl-C    leave",
        "1 … 5        a tab; also Tab, Left, Right",
        "Up, Down     select; PageUp, PageDown, Home, End",
        "/            filter by words; Esc clears it",
        "x            sessions: end the selected one",
        "s, S         sessions: sort by the next, the previous column",
        "r            sessions: reverse the order",
        "u            bans: end the selected one",
        "sort sessions by:",
    ]
    .map(Line::from)
    .into();
    let (first, second) = columns.split_at(columns.len() / 2);
    lines.extend([first, second].map(|part| Line::from(format!("  {}", part.join(", ")))));
    let height = u16::try_from(lines.len() + 2).unwrap_or(area.height);
    boxed(" Keys ", lines, WIDEST + 4, height, area, theme, buffer);
}

/// Lines in a box.
fn boxed(
    title: &'static str,
    lines: Vec<Line<'_>>,
    width: u16,
    height: u16,
    area: Rect,
    theme: Theme,
    buffer: &mut Buffer,
) {
    let (width, height) = (width.min(area.width), height.min(area.height));
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let place = Rect { x, y, width, height };
    Clear.render(place, buffer);
    let block = Block::bordered().border_type(BorderType::Rounded).title(title).border_style(theme.strong());
    let inner = block.inner(place);
    block.render(place, buffer);
    let inner = Rect { x: inner.x + inner.width.min(1), width: inner.width.saturating_sub(2), ..inner };
    Paragraph::new(lines).wrap(Wrap { trim: true }).render(inner, buffer);
}
