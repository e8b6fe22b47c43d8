//! A table on the screen: columns as wide as what is seen of them, the least important ones left
//! out where they do not fit.
//!
//! Only the rows that are seen are made, so a table of 10,000 rows costs no more than one of
//! twenty.

use std::ops::Range;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::Theme;

/// The space between two columns.
const GAP: u16 = 2;
/// No column is made narrower than this.
const NARROWEST: u16 = 6;
/// A column that is wider than this, an address with its port, is cut before another is left out.
const WIDE: u16 = 24;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    heading: &'static str,
    is_number: bool,
    /// Sentences give all the room that they can before another column is left out.
    is_long: bool,
    /// A graph is not turned around where its row is selected: it would show its opposite.
    is_graph: bool,
    /// Those of the highest weight are left out first. The ones without weight always stay.
    weight: u8,
    /// Its width where the cells are narrower.
    least: u16,
}

impl Column {
    pub(super) const fn words(heading: &'static str, weight: u8) -> Self {
        Self { heading, is_number: false, is_long: false, is_graph: false, weight, least: 0 }
    }

    pub(super) const fn sentence(heading: &'static str, weight: u8) -> Self {
        Self { heading, is_number: false, is_long: true, is_graph: false, weight, least: 0 }
    }

    /// Numbers stand at the right. Their column keeps `least`, so that it does not jump.
    pub(super) const fn number(heading: &'static str, weight: u8, least: u16) -> Self {
        Self { heading, is_number: true, is_long: false, is_graph: false, weight, least }
    }

    /// A graph of this width.
    pub(super) const fn graph(heading: &'static str, weight: u8, least: u16) -> Self {
        Self { heading, is_number: false, is_long: false, is_graph: true, weight, least }
    }
}

/// The rows that are seen of `len`, so that the selected one is in the middle where it can be.
pub(super) fn seen(len: usize, at: usize, height: u16) -> Range<usize> {
    let height = usize::from(height);
    let first = at.saturating_sub(height / 2).min(len.saturating_sub(height));
    first..(first + height).min(len)
}

/// A table.
pub(super) struct Grid<'a> {
    pub(super) columns: &'a [Column],
    /// The column by which it is sorted, and whether it falls.
    pub(super) sorted: Option<(usize, bool)>,
    /// How many rows there are.
    pub(super) len: usize,
    /// The selected one.
    pub(super) at: usize,
    /// What is said where there are none.
    pub(super) empty: &'a str,
}

impl Grid<'_> {
    /// Draws headings and rows; `row` makes the cells of one.
    pub(super) fn draw(
        &self,
        theme: Theme,
        area: Rect,
        buffer: &mut Buffer,
        row: impl Fn(usize) -> Vec<Span<'static>>,
    ) {
        if area.is_empty() {
            return;
        }
        if self.len == 0 {
            buffer.set_line(area.x, area.y, &Line::styled(self.empty.to_owned(), theme.faint()), area.width);
            return;
        }
        let seen = seen(self.len, self.at, area.height - 1);
        let rows: Vec<Vec<Span<'static>>> = seen.clone().map(row).collect();
        let headings: Vec<String> = (0..self.columns.len()).map(|nth| self.heading(nth)).collect();
        let widths = self.widths(&headings, &rows, area.width);
        let headings =
            headings.into_iter().map(|text| Span::styled(text, theme.strong())).collect::<Vec<_>>();
        self.line(&headings, &widths, Rect { height: 1, ..area }, buffer);
        for (y, (nth, row)) in (area.y + 1..).zip(seen.zip(&rows)) {
            let place = Rect { y, height: 1, ..area };
            self.line(row, &widths, place, buffer);
            if nth == self.at {
                self.select(&widths, place, theme, buffer);
            }
        }
    }

    fn heading(&self, nth: usize) -> String {
        let heading = self.columns[nth].heading;
        match self.sorted {
            Some((by, falls)) if by == nth => format!("{heading}{}", if falls { '▼' } else { '▲' }),
            _ => heading.to_owned(),
        }
    }

    /// The width of each column; 0 for one that is left out.
    fn widths(&self, headings: &[String], rows: &[Vec<Span<'static>>], width: u16) -> Vec<u16> {
        let of = |nth: usize| {
            let cells = rows.iter().filter_map(|row| row.get(nth)).map(Span::width).max().unwrap_or(0);
            let heading = Span::raw(&*headings[nth]).width();
            u16::try_from(cells.max(heading)).unwrap_or(u16::MAX).max(self.columns[nth].least)
        };
        let natural: Vec<u16> = (0..self.columns.len()).map(of).collect();
        let mut widths = natural.clone();
        let shortage = |widths: &[u16]| {
            let shown = widths.iter().filter(|width| **width > 0);
            let all = shown.map(|width| u32::from(width + GAP)).sum::<u32>().saturating_sub(GAP.into());
            u16::try_from(all.saturating_sub(u32::from(width))).unwrap_or(u16::MAX)
        };
        // Long words give some of their room first, then columns go, then words give more.
        while shortage(&widths) > 0 {
            let half =
                |nth: usize| if self.columns[nth].is_long { WIDE } else { (widths[nth] / 2).max(WIDE) };
            let room: u16 = (0..widths.len()).map(|nth| self.spare(headings, &widths, nth, half(nth))).sum();
            let heaviest =
                (0..widths.len()).filter(|nth| widths[*nth] > 0).max_by_key(|nth| self.columns[*nth].weight);
            match heaviest.filter(|nth| self.columns[*nth].weight > 0) {
                Some(heaviest) if room < shortage(&widths) => widths[heaviest] = 0,
                found => {
                    let least = |nth| if found.is_some() { half(nth) } else { NARROWEST };
                    let spare = |nth: &usize| self.spare(headings, &widths, *nth, least(*nth));
                    let Some(widest) =
                        (0..widths.len()).filter(|nth| spare(nth) > 0).max_by_key(|nth| widths[*nth])
                    else {
                        // Too narrow for this table: the end of the line is cut.
                        break;
                    };
                    let given = spare(&widest).min(shortage(&widths));
                    widths[widest] -= given;
                }
            }
        }
        // A narrow column may have been left out before a wide one went.
        let mut out: Vec<usize> = (0..widths.len()).filter(|nth| widths[*nth] == 0).collect();
        out.sort_by_key(|nth| self.columns[*nth].weight);
        for nth in out {
            widths[nth] = natural[nth];
            if shortage(&widths) > 0 {
                widths[nth] = 0;
            }
        }
        widths
    }

    /// By how much a column can be narrower: one of words, down to `least`, its heading, and what
    /// can still be read.
    fn spare(&self, headings: &[String], widths: &[u16], nth: usize, least: u16) -> u16 {
        let column = self.columns[nth];
        if column.is_number || column.least > 0 {
            return 0;
        }
        let heading = u16::try_from(headings[nth].chars().count()).unwrap_or(u16::MAX);
        widths[nth].saturating_sub(least.max(heading).max(NARROWEST))
    }

    /// Turns a line around, but for its graphs.
    fn select(&self, widths: &[u16], area: Rect, theme: Theme, buffer: &mut Buffer) {
        buffer.set_style(area, Style::new().fg(Color::Reset).add_modifier(Modifier::REVERSED));
        let mut x = area.x;
        for (column, width) in self.columns.iter().zip(widths).filter(|(_, width)| **width > 0) {
            if column.is_graph {
                let graph = Rect { x, width: *width, ..area }.intersection(area);
                buffer.set_style(graph, theme.graph().remove_modifier(Modifier::REVERSED));
            }
            x = x.saturating_add(width + GAP);
        }
    }

    fn line(&self, cells: &[Span<'static>], widths: &[u16], area: Rect, buffer: &mut Buffer) {
        let mut x = area.x;
        for ((column, cell), width) in self.columns.iter().zip(cells).zip(widths) {
            let width = (*width).min(area.right().saturating_sub(x));
            if width == 0 {
                continue;
            }
            let cell = cut(cell, width);
            let free = if column.is_number {
                width - u16::try_from(cell.width()).unwrap_or(width).min(width)
            } else {
                0
            };
            buffer.set_span(x + free, area.y, &cell, width - free);
            x = x.saturating_add(width + GAP);
        }
    }
}

/// A cell in this width; its end is `…` where it is longer.
fn cut(cell: &Span<'static>, width: u16) -> Span<'static> {
    let most = usize::from(width);
    if cell.width() <= most {
        return cell.clone();
    }
    let mut kept = String::new();
    for c in cell.content.chars() {
        kept.push(c);
        if Span::raw(&*kept).width() > most.saturating_sub(1) {
            kept.pop();
            break;
        }
    }
    Span::styled(format!("{kept}…"), cell.style)
}
