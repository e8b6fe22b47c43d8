//! Where a text has something: byte spans while reading, lines and columns when shown.
//!
//! [`SourceMap`] owns every text that was read. A [`Span`] is a range of bytes of one of them,
//! small and ordered. The order of spans is file order. A line and a column are found in constant
//! time, so a file of nothing but mistakes is reported in linear time.

use std::{cell::OnceCell, ops::Range};

use crate::{
    config::source::Origin,
    text::{escaped, is_plain},
};

/// A range of bytes of one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Span {
    source: u32,
    start: u32,
    end: u32,
}

impl Span {
    /// A part of the same text, by offsets from the start of the text.
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        let offset = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: offset(range.start), end: offset(range.end), ..self }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Which text it is of, for grouping.
    pub(crate) fn source(self) -> u32 {
        self.source
    }
}

/// A text and where it comes from.
#[derive(Clone)]
struct SourceText {
    origin: Origin,
    text: String,
    index: OnceCell<LineIndex>,
}

/// Every text that was read, in order.
#[derive(Clone, Default)]
pub(crate) struct SourceMap(Vec<SourceText>);

impl SourceMap {
    /// Takes in a text; the span is the whole of it.
    pub(crate) fn add(&mut self, origin: Origin, text: String) -> Span {
        let source = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let span = Span { source, start: 0, end: 0 }.part(0..text.len());
        self.0.push(SourceText { origin, text, index: OnceCell::new() });
        span
    }

    /// The start of the first text.
    pub(crate) fn start(&self) -> Span {
        Span { source: 0, start: 0, end: 0 }
    }

    /// The text that a span is of.
    pub(crate) fn text(&self, span: Span) -> &str {
        self.source(span).map_or("", |o| &o.text)
    }

    fn source(&self, span: Span) -> Option<&SourceText> {
        self.0.get(span.source as usize)
    }

    /// Where the text of a span comes from.
    pub(crate) fn origin(&self, span: Span) -> &Origin {
        self.source(span).map_or(&Origin::CommandLine, |o| &o.origin)
    }

    /// The words of a span, as far as they are worth showing.
    pub(crate) fn words(&self, span: Span) -> &str {
        const LONGEST: usize = 200;
        let text = self.text(span);
        let Range { start, end } = span.range();
        let start = boundary(text, start);
        &text[start..boundary(text, end.min(start + LONGEST)).max(start)]
    }

    /// Line and column, from 1; columns count characters.
    pub(crate) fn position(&self, span: Span) -> (usize, usize) {
        self.source(span).map_or((1, 1), |o| {
            let index = o.index.get_or_init(|| LineIndex::new(&o.text));
            index.position(&o.text, span.start as usize)
        })
    }

    /// The position in words, for a message about another one.
    pub(crate) fn describe(&self, span: Span) -> String {
        let (line, column) = self.position(span);
        match self.origin(span) {
            origin if origin.is_file() => format!("{origin}:{line}:{column}"),
            _ => self.name(span),
        }
    }

    /// The text that a span is of, as a message names it; of the labels of a container, the label.
    pub(crate) fn name(&self, span: Span) -> String {
        match self.origin(span) {
            Origin::Container(labels) => labels.describe(span.start as usize),
            origin => origin.to_string(),
        }
    }

    /// The line of a span, cut around it, and which characters of it the span has.
    pub(crate) fn excerpt(&self, span: Span) -> Excerpt {
        const BEFORE: usize = 60;
        const AFTER: usize = 50;
        let text = self.text(span);
        let Range { start, end } = span.range();
        let start = boundary(text, start);
        // A line may be as long as the file, so no more of it is looked at than can be shown.
        let near = boundary(text, start.saturating_sub(4 * (BEFORE + 1)));
        let before = text[near..start].rsplit('\n').next().unwrap_or("");
        let far = boundary(text, start + 4 * (AFTER + 1));
        let after = text[start..far].split('\n').next().unwrap_or("");
        let after = after.strip_suffix('\r').unwrap_or(after);

        let mut line = String::new();
        let from = before.char_indices().rev().nth(BEFORE - 1).map_or(0, |(i, _)| i);
        if from > 0 {
            line.push_str("...");
        }
        before[from..].chars().for_each(|c| shown(c, &mut line));
        let mark = line.chars().count();
        let to = after.char_indices().nth(AFTER).map_or(after.len(), |(i, _)| i);
        let marked = boundary(after, end.saturating_sub(start).min(to));
        after[..marked].chars().for_each(|c| shown(c, &mut line));
        let width = line.chars().count().saturating_sub(mark).max(1);
        after[marked..to].chars().for_each(|c| shown(c, &mut line));
        if to < after.len() {
            line.push_str("...");
        }
        Excerpt { line: line.trim_end().to_owned(), mark, width }
    }
}

/// The last offset up to `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

/// A line as it is shown, and what of it is marked, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Excerpt {
    /// The line.
    pub(crate) line: String,
    /// Where the marked part begins.
    pub(crate) mark: usize,
    /// How long it is.
    pub(crate) width: usize,
}

/// Appends `c` as a line of an excerpt shows it: a tab is a space, so that the mark stands below
/// what it marks.
fn shown(c: char, to: &mut String) {
    match c {
        '\t' => to.push(' '),
        c if is_plain(c) => to.push(c),
        c => to.push_str(&escaped(c.encode_utf8(&mut [0; 4]))),
    }
}

/// Where the lines of a text begin, and how many characters come before every block of it.
#[derive(Clone)]
struct LineIndex {
    lines: Vec<usize>,
    blocks: Vec<usize>,
}

impl LineIndex {
    const BLOCK: usize = 1024;

    fn new(text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, c)| *c == b'\n').map(|(i, _)| i + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        let mut before = 0;
        let blocks = text
            .as_bytes()
            .chunks(Self::BLOCK)
            .map(|block| {
                let here = before;
                before += characters(block);
                here
            })
            .collect();
        Self { lines, blocks }
    }

    fn position(&self, text: &str, at: usize) -> (usize, usize) {
        let at = at.min(text.len());
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        let start = self.lines[line - 1];
        // Most lines are shorter than what would have to be counted before them.
        let column = match at - start {
            0..Self::BLOCK => characters(&text.as_bytes()[start..at]),
            _ => self.before(text, at) - self.before(text, start),
        };
        (line, column + 1)
    }

    /// How many characters begin before `at`.
    fn before(&self, text: &str, at: usize) -> usize {
        let block = (at / Self::BLOCK).min(self.blocks.len().saturating_sub(1));
        let known = self.blocks.get(block).copied().unwrap_or(0);
        known + characters(&text.as_bytes()[block * Self::BLOCK..at])
    }
}

/// How many characters begin in a piece of UTF-8.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|c| !matches!(c, 0x80..=0xbf)).count()
}
