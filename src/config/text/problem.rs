//! Problems: collected while reading as [`Diagnostic`]s, shown to people and programs as
//! [`Problem`]s.
//!
//! A note knows only its place; lines, columns and excerpts are worked out at the end, when every
//! text is at hand. Whatever the file holds, a problem is safe to print on a terminal: control
//! characters are escaped.

mod code;

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt::{self, Write as _},
};

pub(crate) use code::Code;
use serde::Serialize;

use crate::{
    config::{
        source::ReadSet,
        text::span::{Excerpt, Name, SourceMap, Span},
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
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    File(Option<Excerpt>),
    Spec,
    CommandLine,
}

impl Problem {
    /// The place and the message on one line: `file:line:column: message`.
    pub fn summary(&self) -> String {
        let Self { file, line, column, message, .. } = self;
        match self.kind {
            Kind::File(_) => format!("{file}:{line}:{column}: {message}"),
            Kind::Spec => format!("{file} (column {column}): {message}"),
            Kind::CommandLine => format!("{file}: {message}"),
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
        if let Kind::File(Some(Excerpt { line, mark, width })) = &self.kind {
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

    /// The problems, with the warnings of the command line; nothing where there is no problem.
    pub(crate) fn new(list: Vec<Problem>, warnings: &[Problem], read: ReadSet) -> Option<Self> {
        let of_command_line = |warning: &&Problem| warning.kind == Kind::CommandLine;
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

/// A problem or a warning while it is collected.
pub(crate) struct Diagnostic {
    code: Code,
    span: Span,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    also: Option<Span>,
    text: Option<String>,
    is_whole_file: bool,
}

impl Diagnostic {
    /// Says what would be right.
    pub(crate) fn hint(&mut self, hint: impl Into<Cow<'static, str>>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says something else before what would be right.
    pub(crate) fn add_to_hint(&mut self, also: &str) -> &mut Self {
        let hint = self.hint.take().map(|hint| format!("{also}; {hint}"));
        self.hint(hint.unwrap_or_else(|| also.to_owned()))
    }

    /// Ends the message with another place.
    pub(crate) fn also(&mut self, span: Span) -> &mut Self {
        self.also = Some(span);
        self
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
        let (line, column) = sources.position(self.span);
        let name = sources.source(self.span).map_or(&Name::CommandLine, |o| &o.name);
        let has_excerpt = !self.is_whole_file && !sources.text(self.span).is_empty();
        let text = match (self.text, self.is_whole_file) {
            (Some(text), _) => text,
            (None, true) => String::new(),
            (None, false) => sources.words(self.span).to_owned(),
        };
        let also = self.also.map(|p| format!(" {}", sources.describe(p))).unwrap_or_default();
        Problem {
            code: self.code,
            file: escaped(&name.to_string()),
            line,
            column,
            text: printable(&text),
            message: printable(&self.message) + &escaped(&also),
            help: self.hint.map(|h| printable(&h)),
            kind: match name {
                Name::File(_) => Kind::File(has_excerpt.then(|| sources.excerpt(self.span))),
                Name::Spec(..) => Kind::Spec,
                Name::CommandLine => Kind::CommandLine,
            },
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
#[derive(Default)]
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

    fn push<'n>(
        list: &'n mut Vec<Diagnostic>,
        code: Code,
        span: Span,
        message: Cow<'static, str>,
    ) -> &'n mut Diagnostic {
        let note =
            Diagnostic { code, span, message, hint: None, also: None, text: None, is_whole_file: false };
        if list.len() >= Self::TAKEN {
            list.pop();
        }
        list.push(note);
        list.last_mut().expect("it was just pushed")
    }

    /// Something is wrong.
    pub(crate) fn problem(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<Cow<'static, str>>,
    ) -> &mut Diagnostic {
        Self::push(&mut self.problems, code, span, message.into())
    }

    /// Something works, but should be looked at.
    pub(crate) fn warning(
        &mut self,
        code: Code,
        span: Span,
        message: impl Into<Cow<'static, str>>,
    ) -> &mut Diagnostic {
        Self::push(&mut self.warnings, code, span, message.into())
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
