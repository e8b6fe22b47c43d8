//! A text lowered on trial, to learn whether a line of it would be right.

use std::path::Path;

use toml::de::DeTable;

use crate::config::{
    file::FileText,
    host::HostView,
    lower::{Context, Lowering, declared::Declared, overrides::Overrides},
    text::{
        expand::Room,
        problem::{Code, Diagnostics},
        span::{Name, SourceMap},
        table::Reader,
    },
};

/// Whether a file with this text has nothing wrong in a line.
pub(crate) fn is_sound(text: &str, line: usize, host: &dyn HostView) -> bool {
    let (mut diagnostics, mut sources) = (Diagnostics::default(), SourceMap::default());
    let span = sources.add(Name::File(String::new()), text.to_owned());
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        diagnostics.problem(Code::Syntax, span.part(error.span().unwrap_or(0..0)), "");
    }
    let room = Room::default();
    let mut reader = Reader::new(span, text, host, &room, &mut diagnostics);
    let file = FileText::read(&mut reader, document.get_ref(), !errors.is_empty(), Path::new(""), true);
    let (defaults, known) = (Overrides::default(), Declared::anything());
    let context =
        Context { host, defaults: &defaults, known: &known, everything_on_router: false, router: None };
    let mut lowering = Lowering::new(context, &mut diagnostics).without_cures();
    lowering.file(&file);
    lowering.finish();
    let (problems, _) = diagnostics.finish(&sources);
    !problems.iter().any(|problem| problem.line == line + 1)
}
