//! A text lowered on trial, to learn whether it would be right.

use std::{path::Path, time::SystemTime};

use toml::de::DeTable;

use crate::config::{
    file::{FileKind, FileText},
    host::HostView,
    lower::{Context, Lowering, declared::Declared, overrides::Overrides, paused::Paused},
    source::{Origin, SpecsFrom},
    text::{Code, Diagnostics, ExpansionBudget, Reader, SourceMap, Text},
};

/// Whether a file with this text has nothing wrong in a line.
pub(crate) fn is_sound(text: &str, line: usize, host: &dyn HostView) -> bool {
    let (mut diagnostics, mut sources) = (Diagnostics::default(), SourceMap::default());
    let span = sources.add(Origin::File(String::new()), text.to_owned());
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        diagnostics.problem(Code::Syntax, span.part(error.span().unwrap_or(0..0)), "");
    }
    let budget = ExpansionBudget::default();
    let mut reader = Reader::new(span, text, host, &budget, &mut diagnostics);
    let file =
        FileText::read(&mut reader, document.get_ref(), !errors.is_empty(), Path::new(""), FileKind::Main);
    lower(&file, host, &mut diagnostics);
    let (problems, _) = diagnostics.finish(&sources);
    !problems.iter().any(|problem| problem.line == line + 1)
}

/// Whether these specs alone are a sound configuration.
pub(super) fn are_sound(specs: &[String], host: &dyn HostView) -> bool {
    let (mut diagnostics, span) = (Diagnostics::default(), SourceMap::default().start());
    let text = |spec: &String| Text::beside_file(spec.clone(), span, SpecsFrom::Arguments);
    let publish = specs.iter().map(text).collect();
    lower(&FileText { publish, ..FileText::default() }, host, &mut diagnostics);
    diagnostics.is_sound()
}

fn lower(text: &FileText, host: &dyn HostView, diagnostics: &mut Diagnostics) {
    let (defaults, known) = (Overrides::default(), Declared::anything());
    let (paused, now) = (Paused::default(), SystemTime::UNIX_EPOCH);
    let context = Context {
        host,
        defaults: &defaults,
        known: &known,
        everything_on_router: false,
        router: None,
        services: &[],
        paused: &paused,
        now,
    };
    let mut lowering = Lowering::new(context, diagnostics).without_cures();
    lowering.mappings(text);
    lowering.finish();
}
