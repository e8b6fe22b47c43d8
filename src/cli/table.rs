//! Rows of cells as lines of text: the one way in which a command prints a table.
//!
//! Where all columns fit the terminal, a row is a line. Where they do not, the first columns that
//! fit make the line. The other cells stand below it, indented: words in lines of their own, values
//! behind the heading of their column. Without a width (a pipe) a row is always one line.
//!
//! Owns the layout, the escaping of cells and their colours. Must not know what the cells mean.
//! Invariant: a cell cannot forge a line or a colour, as each odd character of it is escaped.

#![cfg_attr(not(feature = "api"), allow(dead_code, reason = "only commands of the API have such cells"))]

use std::{fmt::Display, io::IsTerminal as _};

use comfy_table::{CellAlignment, ContentArrangement, presets};

use crate::text::Escaped;

const INDENT: u16 = 4;
/// A narrower terminal is not a place for a table.
const NARROWEST: u16 = 20;
/// What stands in a cell without a value.
const NOTHING: &str = "-";

/// For what a table is laid out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terminal {
    /// The characters of a line; `None` for a pipe.
    pub(super) width: Option<usize>,
    /// Whether it shows colours.
    pub(super) colour: bool,
}

impl Terminal {
    /// That of standard output. `COLUMNS` goes before its own width.
    pub(super) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let own = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let width = said.or_else(own).filter(|columns| *columns > 0);
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { width, colour: stdout.is_terminal() && !no_color }
    }
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    heading: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Words that need no heading to be understood.
    Words,
    Value,
    Number,
}

impl Column {
    /// Words that are understood without their heading.
    pub(super) const fn words(heading: &'static str) -> Self {
        Self { heading, kind: Kind::Words }
    }

    /// A value that means nothing without its heading.
    pub(super) const fn value(heading: &'static str) -> Self {
        Self { heading, kind: Kind::Value }
    }

    /// The same, aligned to the right.
    pub(super) const fn number(heading: &'static str) -> Self {
        Self { heading, kind: Kind::Number }
    }
}

/// The text of a cell, escaped.
#[derive(Clone, Debug)]
pub(super) struct Cell(String);

impl Cell {
    /// A text, or what is shown in place of an empty one.
    pub(super) fn of(text: impl Display) -> Self {
        let text = Escaped(text).to_string();
        Self(if text.is_empty() { NOTHING.to_owned() } else { text })
    }

    /// A text that may be empty.
    pub(super) fn words(text: impl Display) -> Self {
        Self(Escaped(text).to_string())
    }

    /// A text where there is one.
    pub(super) fn some(text: Option<impl Display>) -> Self {
        text.map_or_else(|| Self(NOTHING.to_owned()), Self::of)
    }

    /// The same in a colour.
    pub(super) fn coloured(self, colour: Colour) -> Self {
        Self(colour.mark(&self.0))
    }

    fn is_nothing(&self) -> bool {
        self.0.is_empty() || self.0 == NOTHING
    }
}

/// A colour by its meaning.
///
/// A cell carries it as a mark without width. The layout keeps the marks, and [`Colour::paint`]
/// turns them into what a terminal obeys. No other text has such a mark: [`Escaped`] removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// All is well.
    Good,
    /// An operator should look.
    Bad,
    /// Neither: paused, waiting.
    Pale,
}

impl Colour {
    /// The marks at the start, each with its sequence.
    const STARTS: [(Self, char, &'static str); 3] = [
        (Self::Good, '\u{2061}', "\u{1b}[32m"),
        (Self::Bad, '\u{2062}', "\u{1b}[31m"),
        (Self::Pale, '\u{2063}', "\u{1b}[33m"),
    ];
    const END: (char, &'static str) = ('\u{2064}', "\u{1b}[0m");

    /// A text with the mark of this colour; [`Colour::paint`] has to follow.
    pub(super) fn mark(self, text: &str) -> String {
        let start = Self::STARTS.into_iter().find(|(colour, ..)| *colour == self).map(|(_, mark, _)| mark);
        start.into_iter().chain(text.chars()).chain([Self::END.0]).collect()
    }

    /// A text whose marks became colours, or went away.
    pub(super) fn paint(text: &str, colour: bool) -> String {
        let mut painted = String::with_capacity(text.len());
        let mut is_open = false;
        for c in text.chars() {
            if let Some((.., sequence)) = Self::STARTS.iter().find(|(_, mark, _)| *mark == c) {
                is_open = true;
                painted.push_str(if colour { sequence } else { "" });
            } else if c == Self::END.0 || (c == '\n' && is_open) {
                // Where a cell was wrapped, its colour ends with the line.
                painted.push_str(if colour && is_open { Self::END.1 } else { "" });
                is_open = false;
                painted.extend((c == '\n').then_some(c));
            } else {
                painted.push(c);
            }
        }
        painted
    }
}

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Table<'c> {
    columns: &'c [Column],
    rows: Vec<Vec<Cell>>,
}

impl<'c> Table<'c> {
    /// A table without rows.
    pub(super) fn new(columns: &'c [Column]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row: a cell for each column.
    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len(), "a cell for each column");
        self.rows.push(cells.into());
    }

    /// Its lines, with the headings first; each ends with a line break.
    pub(super) fn text(&self, terminal: Terminal) -> String {
        let most = terminal.width.map(|width| u16::try_from(width).unwrap_or(u16::MAX).max(NARROWEST));
        let (columns, lines) = self.fitting(most);
        let mut text = String::new();
        for (nth, line) in lines.iter().enumerate() {
            text.push_str(line);
            // The headings of the cells that stand below would say nothing there.
            if let (Some(row), Some(most)) = (nth.checked_sub(1).and_then(|n| self.rows.get(n)), most) {
                text.push_str(&self.below(row, columns, most));
            }
        }
        Colour::paint(&text, terminal.colour)
    }

    /// How many columns stand in a line, and for each row its lines.
    fn fitting(&self, most: Option<u16>) -> (usize, Vec<String>) {
        let all = self.first(self.columns.len());
        let Some(most) = most else { return (self.columns.len(), lines(&all).collect()) };
        let widths = all.column_max_content_widths();
        let width = |columns: usize| widths[..columns].iter().map(|width| u32::from(*width) + 2).sum::<u32>();
        let fits = |columns: &usize| width(*columns) <= u32::from(most) + 2;
        match (1..=self.columns.len()).rev().find(fits) {
            Some(columns) if columns == self.columns.len() => (columns, lines(&all).collect()),
            Some(columns) => (columns, lines(&self.first(columns)).collect()),
            None => {
                let heading = self.columns.iter().map(|column| column.heading);
                let cells = self.rows.iter().filter_map(|row| row.first()).map(|cell| &*cell.0);
                (1, heading.take(1).chain(cells).map(|cell| wrapped(cell, 0, most)).collect())
            }
        }
    }

    /// The first columns as a table of its own.
    fn first(&self, columns: usize) -> comfy_table::Table {
        let mut table = bare();
        table.add_row(self.columns[..columns].iter().map(|column| column.heading));
        for row in &self.rows {
            table.add_row(row[..columns].iter().map(|cell| &*cell.0));
        }
        for (nth, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if nth + 1 < columns { 2 } else { 0 }));
            if self.columns[nth].kind == Kind::Number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// The cells that do not stand in the line of their row.
    fn below(&self, row: &[Cell], columns: usize, most: u16) -> String {
        let rest = || self.columns.iter().zip(row).skip(columns).filter(|(_, cell)| !cell.is_nothing());
        let words = rest().filter(|(column, _)| column.kind == Kind::Words).map(|(_, cell)| cell.0.clone());
        let values = rest().filter(|(column, _)| column.kind != Kind::Words);
        let values: Vec<String> =
            values.map(|(column, cell)| format!("{} {}", column.heading.to_lowercase(), cell.0)).collect();
        let values = (!values.is_empty()).then(|| values.join(", "));
        words.chain(values).map(|cell| wrapped(&cell, INDENT, most)).collect()
    }
}

/// A table of the library without a line or a space of its own.
fn bare() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// The lines of a table, without the spaces at their ends.
fn lines(table: &comfy_table::Table) -> impl Iterator<Item = String> {
    table.lines().map(|line| format!("{}\n", line.trim_end()))
}

/// Words in lines of at most `most` characters, all indented.
fn wrapped(words: &str, indent: u16, most: u16) -> String {
    let mut table = bare();
    table.add_row([words]).set_content_arrangement(ContentArrangement::Dynamic).set_width(most);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((indent, 0));
    });
    lines(&table).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [Column; 5] = [
        Column::words("MAPPING"),
        Column::value("PROTOCOL"),
        Column::words("LISTEN"),
        Column::words("TARGET"),
        Column::words("OPTIONS"),
    ];

    fn table(columns: &[Column; 5]) -> Table<'_> {
        let mut table = Table::new(columns);
        let options = "idle_timeout=1h max_sessions=20 refuse=drop";
        table.row(["web", "tcp", "[::]:8080 (every address)", "10.0.0.5:80", options].map(Cell::words));
        table.row(["53/udp", "udp", "127.0.0.1:53", "10.0.0.53:53", ""].map(Cell::words));
        table
    }

    fn within(width: usize) -> Terminal {
        Terminal { width: Some(width), colour: false }
    }

    #[test]
    fn words_that_do_not_fit_go_to_lines_of_their_own() {
        let table = table(&COLUMNS);
        assert_eq!(table.text(Terminal::default()).lines().count(), 3);
        assert_eq!(
            table.text(within(70)),
            "MAPPING  PROTOCOL  LISTEN                     TARGET\n\
             web      tcp       [::]:8080 (every address)  10.0.0.5:80\n    \
                 idle_timeout=1h max_sessions=20 refuse=drop\n\
             53/udp   udp       127.0.0.1:53               10.0.0.53:53\n"
        );
    }

    const NUMBERS: [Column; 4] =
        [Column::value("ID"), Column::words("CLIENT"), Column::number("IN"), Column::number("OUT")];

    #[test]
    fn values_that_do_not_fit_keep_their_headings() {
        let mut table = Table::new(&NUMBERS);
        table.row(["7", "192.0.2.7:5000", "1.2 MiB", "12 B"].map(Cell::of));
        table.row(["8", "[2001:db8::7]:5000", "0 B", ""].map(Cell::of));
        assert_eq!(
            table.text(Terminal::default()),
            "ID  CLIENT                   IN   OUT\n\
             7   192.0.2.7:5000      1.2 MiB  12 B\n\
             8   [2001:db8::7]:5000      0 B     -\n"
        );
        assert_eq!(
            table.text(within(26)),
            "ID  CLIENT\n7   192.0.2.7:5000\n    in 1.2 MiB, out 12 B\n8   [2001:db8::7]:5000\n    in 0 B\n"
        );
    }

    #[test]
    fn a_wide_character_takes_two_places() {
        let mut table = Table::new(&NUMBERS[..2]);
        table.row(["漢字", "a"].map(Cell::of));
        table.row(["abcd", "b"].map(Cell::of));
        assert_eq!(table.text(Terminal::default()), "ID    CLIENT\n漢字  a\nabcd  b\n");
    }

    #[test]
    fn a_colour_is_only_on_a_terminal_and_takes_no_place() {
        let mut table = Table::new(&NUMBERS[..2]);
        table.row([Cell::of("up").coloured(Colour::Good), Cell::of("a")]);
        table.row([Cell::of("down").coloured(Colour::Bad), Cell::of("b")]);
        assert_eq!(table.text(Terminal::default()), "ID    CLIENT\nup    a\ndown  b\n");
        let coloured = Terminal { colour: true, ..Terminal::default() };
        assert_eq!(
            table.text(coloured),
            "ID    CLIENT\n\u{1b}[32mup\u{1b}[0m    a\n\u{1b}[31mdown\u{1b}[0m  b\n"
        );
    }

    #[test]
    fn a_cell_forges_neither_a_line_nor_a_colour() {
        let mut table = Table::new(&NUMBERS[..1]);
        table.row([Cell::of("a\nb\u{1b}[31m\u{2062}")]);
        let coloured = Terminal { colour: true, ..Terminal::default() };
        assert_eq!(table.text(coloured), "ID\na\\nb\\u{1b}[31m\\u{2062}\n");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(width in 0_usize..120, cell in "[a-z=, ]{0,200}") {
            let mut table = table(&COLUMNS);
            table.rows[1][4] = Cell::words(&cell);
            table.rows[0][3] = Cell::words(&cell).coloured(Colour::Pale);
            table.rows[0][1] = Cell::words(cell);
            for line in table.text(within(width)).lines() {
                prop_assert!(line.chars().count() <= width.max(usize::from(NARROWEST)), "{}", line);
            }
        }
    }
}
