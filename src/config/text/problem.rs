//! Problems: collected while reading as [`Diagnostic`]s, shown to people and programs as
//! [`Problem`]s.
//!
//! A note knows only its place; lines, columns and excerpts are worked out at the end, when every
//! text is at hand. Whatever the file holds, a problem is safe to print on a terminal: control
//! characters are escaped.

mod code;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    fmt::{self, Write as _},
};

pub(crate) use code::Code;
use serde::Serialize;

use super::{SourceMap, Span};
use crate::{
    config::{
        source::{Origin, ReadSet},
        text::span::Excerpt,
    },
    help,
    text::escaped,
};

/// One thing that is wrong, or worth a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of problem it is.
    pub code: Code,
    /// The file, as it was named; `-p "SPEC"` or `PORTWAY_PUBLISH "SPEC"` for a spec beside it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The text it is about.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    #[serde(skip)]
    origin: Origin,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
    /// A text that stands alone is left out because of this.
    #[serde(skip)]
    is_left_out: bool,
}

/// What the warning begins with.
const LEFT_OUT: &str = "left out: ";

impl Problem {
    /// The problem of the managed file that keeps it out of the plan, where this warning says so.
    pub(crate) fn of_managed_file(&self) -> Option<Self> {
        let is_managed = self.is_left_out && matches!(self.origin, Origin::Managed(_));
        let message = self.message.strip_prefix(LEFT_OUT).filter(|_| is_managed)?.to_owned();
        Some(Self { message, is_left_out: false, ..self.clone() })
    }

    /// A problem of the running process with a configuration that has none of its own.
    pub(crate) fn of_process(message: &str, help: &str) -> Self {
        let origin = Origin::CommandLine;
        Self {
            code: Code::Sandboxed,
            file: "this process".to_owned(),
            line: 1,
            column: 1,
            text: String::new(),
            message: escaped(message),
            help: Some(help.to_owned()),
            origin,
            excerpt: None,
            is_left_out: false,
        }
    }

    /// The place and the message on one line: `file:line:column: message`.
    pub fn summary(&self) -> String {
        let Self { file, line, column, message, .. } = self;
        match &self.origin {
            origin if origin.is_file() => format!("{file}:{line}:{column}: {message}"),
            Origin::CommandLine | Origin::Container(_) => format!("{file}: {message}"),
            _ => format!("{file} (column {column}): {message}"),
        }
    }

    /// All of it but the excerpt, on one line.
    pub fn one_line(&self) -> String {
        help::behind(&self.summary(), self.help.as_deref())
    }
}

impl fmt::Display for Problem {
    /// The summary, the line with a mark, and the help; no line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut text, mut gutter) = (self.summary(), 2);
        if let Some(Excerpt { line, mark, width }) = &self.excerpt {
            let number = self.line.to_string();
            gutter = number.len();
            write!(text, "\n{:gutter$} |\n{number} | {line}", "")?;
            write!(text, "\n{:gutter$} | {:mark$}{:^<width$}", "", "", "")?;
        }
        f.write_str(&help::below(&text, self.help.as_deref(), gutter))
    }
}

/// Everything that is wrong with a configuration: never nothing, in file order, and no more than
/// ten thousand.
#[derive(Clone, Debug)]
pub struct Problems {
    list: Vec<Problem>,
    /// Warnings about the command line and the environment: a slip there may be the cause.
    pub warnings: Vec<Problem>,
    /// What was read all the same.
    pub read: ReadSet,
}

impl Problems {
    /// How many are printed.
    const PRINTED: usize = 100;

    /// The problems, with the warnings of the command line; `None` without a problem.
    pub(crate) fn new(list: Vec<Problem>, warnings: &[Problem], read: ReadSet) -> Option<Self> {
        let of_command_line = |warning: &&Problem| matches!(warning.origin, Origin::CommandLine);
        let warnings = warnings.iter().filter(of_command_line).cloned().collect();
        (!list.is_empty()).then_some(Self { list, warnings, read })
    }

    /// Each problem, in file order.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// How many there are; at least 1.
    pub fn len(&self) -> usize {
        self.list.len()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    /// One block a problem, an empty line between two; no line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().take(Self::PRINTED).enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n\n" })?;
        }
        match self.list.len().saturating_sub(Self::PRINTED) {
            0 => Ok(()),
            more => write!(f, "\n\n... and {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// Words that the program has, or that it makes.
type Words = Cow<'static, str>;

/// A problem or a warning while it is collected.
#[derive(Clone)]
pub(crate) struct Diagnostic {
    code: Code,
    span: Span,
    message: Words,
    hint: Option<Words>,
    also: Option<Span>,
    /// The last listener of a circle.
    circle: Option<Span>,
    text: Option<String>,
    is_whole_file: bool,
    is_left_out: bool,
}

impl Diagnostic {
    /// Says what would be right.
    pub(crate) fn hint(&mut self, hint: impl Into<Words>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says something else before what would be right.
    pub(crate) fn add_to_hint(&mut self, also: &str) -> &mut Self {
        let hint = self.hint.take().map(|hint| format!("{also}; {hint}"));
        self.hint(hint.unwrap_or_else(|| also.to_owned()))
    }

    /// Takes what stands behind the last colon of the message for what would be right.
    pub(crate) fn split_hint(&mut self) -> &mut Self {
        if let Some((message, hint)) = self.message.rsplit_once(": ") {
            (self.hint, self.message) = (Some(hint.to_owned().into()), message.to_owned().into());
        }
        self
    }

    /// Ends the message with another place.
    pub(crate) fn also(&mut self, span: Span) -> &mut Self {
        self.also = Some(span);
        self
    }

    /// The last listener of the circle that it is about.
    pub(crate) fn circle(&mut self, last: Option<Span>) -> &mut Self {
        self.circle = last;
        self
    }

    /// Every place that it is about.
    fn places(&self) -> impl Iterator<Item = Span> {
        [self.circle, self.also, Some(self.span)].into_iter().flatten()
    }

    /// The last place of this problem in a text that stands alone, if any: without that text, there
    /// would be no problem.
    fn alone(&self, sources: &SourceMap) -> Option<Span> {
        // Of several in one text, the place of the problem itself: the last of the greatest counts.
        self.places().filter(|place| sources.origin(*place).stands_alone()).max_by_key(|place| place.source())
    }

    /// The warning that the text which stands alone is left out because of this.
    fn left_out(mut self, sources: &SourceMap) -> Self {
        let place = self.alone(sources).unwrap_or(self.span);
        let is_here = place.source() == self.span.source();
        let at = if is_here { String::new() } else { format!("at {}, ", sources.describe(self.span)) };
        self.message = format!("{LEFT_OUT}{at}{}", self.message).into();
        Self { span: place, is_left_out: true, ..self }
    }

    /// Names the offending text where it differs from what stands in the file.
    pub(crate) fn text(&mut self, text: impl Into<String>) -> &mut Self {
        self.text = Some(text.into());
        self
    }

    /// It is about the file, not about a line of it.
    pub(crate) fn whole_file(&mut self) -> &mut Self {
        self.is_whole_file = true;
        self
    }

    fn into_problem(self, sources: &SourceMap) -> Problem {
        let origin = sources.origin(self.span);
        // A text that was made of labels was never written as it is.
        let (line, column) =
            if matches!(origin, Origin::Container(_)) { (1, 1) } else { sources.position(self.span) };
        let is_file = origin.is_file();
        let has_excerpt = is_file && !self.is_whole_file && !sources.text(self.span).is_empty();
        let text = match (self.text, self.is_whole_file) {
            (Some(text), _) => text,
            (None, true) => String::new(),
            (None, false) => sources.words(self.span).to_owned(),
        };
        let also = self.also.map(|p| format!(" {}", sources.describe(p))).unwrap_or_default();
        Problem {
            code: self.code,
            file: escaped(&sources.name(self.span)),
            line,
            column,
            text: printable(&text),
            message: printable(&self.message) + &escaped(&also),
            help: self.hint.map(|h| printable(&h)),
            excerpt: has_excerpt.then(|| sources.excerpt(self.span)),
            origin: origin.clone(),
            is_left_out: self.is_left_out,
        }
    }
}

/// A text that is safe to show, cut where it goes on for longer than anyone reads.
fn printable(text: &str) -> String {
    const LONGEST: usize = 1000;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => escaped(&text[..end]) + "…",
        None => escaped(text),
    }
}

/// What was noticed so far.
#[derive(Clone, Default)]
pub(crate) struct Diagnostics {
    problems: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Diagnostics {
    /// How many problems are kept: enough for any person, and a bound for a file that is nothing
    /// but problems.
    const KEPT: usize = 10_000;

    /// How many are taken in: they are not yet in order, and those that are kept are the first.
    const TAKEN: usize = 4 * Self::KEPT;

    /// Whether no more problems are taken in.
    pub(crate) fn is_full(&self) -> bool {
        self.problems.len() >= Self::TAKEN
    }

    fn push(list: &mut Vec<Diagnostic>, code: Code, span: Span, message: Words) -> &mut Diagnostic {
        let note = Diagnostic {
            code,
            span,
            message,
            hint: None,
            also: None,
            circle: None,
            text: None,
            is_whole_file: false,
            is_left_out: false,
        };
        if list.len() >= Self::TAKEN {
            list.pop();
        }
        list.push(note);
        list.last_mut().expect("it was just pushed")
    }

    /// Something is wrong.
    pub(crate) fn problem(&mut self, code: Code, span: Span, message: impl Into<Words>) -> &mut Diagnostic {
        Self::push(&mut self.problems, code, span, message.into())
    }

    /// Something works, but should be looked at.
    pub(crate) fn warning(&mut self, code: Code, span: Span, message: impl Into<Words>) -> &mut Diagnostic {
        Self::push(&mut self.warnings, code, span, message.into())
    }

    /// Takes in the notes of a look at several texts.
    ///
    /// If texts that stand alone have problems, those of them have to be left out whose problems
    /// come from no other such text: they are the outcome, and their problems, as warnings, are all
    /// that is taken in. The other notes may come from them, so the other texts need another look.
    pub(crate) fn absorb(&mut self, notes: Self, sources: &SourceMap) -> BTreeSet<u32> {
        let text = |note: &Diagnostic| note.alone(sources).map(Span::source);
        let bad: BTreeSet<u32> = notes.problems.iter().filter_map(text).collect();
        // The first bad one has to do with no other: of the texts of a note, the last is to blame.
        let is_its_own = |note: &&Diagnostic| {
            note.places().map(Span::source).all(|source| Some(source) == text(note) || !bad.contains(&source))
        };
        let out: BTreeSet<u32> = notes.problems.iter().filter(is_its_own).filter_map(text).collect();
        let (problems, warnings) = if bad.is_empty() {
            (notes.problems, notes.warnings)
        } else {
            let is_out = |note: &Diagnostic| text(note).is_some_and(|source| out.contains(&source));
            let of_those = notes.problems.into_iter().filter(is_out);
            (Vec::new(), of_those.map(|note| note.left_out(sources)).collect())
        };
        for (list, more) in [(&mut self.problems, problems), (&mut self.warnings, warnings)] {
            list.extend(more);
            list.truncate(Self::TAKEN);
        }
        out
    }

    /// Whether no problem was noted so far.
    pub(crate) fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Problems and warnings, each in file order.
    ///
    /// A line that is not TOML has that one problem: what else was noticed about it comes from
    /// guessing how the line was meant.
    pub(crate) fn finish(mut self, sources: &SourceMap) -> (Vec<Problem>, Vec<Problem>) {
        let is_syntax = |n: &Diagnostic| n.code == Code::Syntax;
        self.problems.sort_by_key(|n| (n.span, !is_syntax(n)));
        let line = |n: &Diagnostic| (n.span.source(), sources.position(n.span).0);
        let broken: HashSet<_> = self.problems.iter().filter(|n| is_syntax(n)).map(line).collect();
        let mut told = HashSet::new();
        self.problems.retain(|n| {
            broken.is_empty() || !broken.contains(&line(n)) || (is_syntax(n) && told.insert(line(n)))
        });
        self.problems.truncate(Self::KEPT);
        self.warnings.sort_by_key(|n| n.span);
        self.warnings.truncate(Self::KEPT);
        let shown = |list: Vec<Diagnostic>| list.into_iter().map(|n| n.into_problem(sources)).collect();
        (shown(self.problems), shown(self.warnings))
    }
}
