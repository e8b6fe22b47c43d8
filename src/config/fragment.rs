//! Fragments: the texts that make one configuration together, and how they are merged.
//!
//! Each fragment has an [`Origin`], which the [`SourceMap`] keeps: a file or a `-p` spec. Files and
//! specs hold together: one person wrote them for one purpose, so a problem in one refuses all. A
//! fragment that stands alone comes from somebody else: the labels of one container. If it
//! has a problem, it is left out with a warning, and the plan is as if it was not there. Such a
//! fragment holds mappings and specs only; the source that makes it sees to that.
//!
//! Fragments claim ports and names in order: files, specs, decoys, then what stands alone. Of two
//! that clash, the later one is at fault, and the message names both places.

use std::path::Path;

use crate::config::{
    containers::Container,
    file::{FileKind, FileText},
    host::HostView,
    keys, label,
    lower::{Context, Lowered, Lowering, docker::DockerText, knock::KnockText, trial},
    source::{Origin, ReadSet, SpecsFrom},
    text::{Code, Diagnostics, ExpansionBudget, Reader, SourceMap, Span, Text, syntax},
};

/// One text.
#[derive(Clone)]
pub(super) struct Fragment {
    span: Span,
    pub(super) text: FileText,
}

/// The texts of a configuration, in the order in which they were read.
#[derive(Clone, Default)]
pub(super) struct Fragments {
    /// Those that hold together, the main file first.
    pub(super) together: Vec<Fragment>,
    alone: Vec<Fragment>,
    pub(super) sources: SourceMap,
    pub(super) read: ReadSet,
    /// A file could not be read throughout: what seems to be missing may stand there.
    pub(super) is_broken: bool,
    /// The names that the managed file pauses, also where the rest of it is left out: a mistake in
    /// that file must not open what is closed.
    pub(super) paused: Vec<Text>,
    budget: ExpansionBudget,
}

impl Fragments {
    /// Reads a TOML text, and returns its includes. `place` is its span in `sources`, the directory
    /// where its relative paths begin, and whether it is the main file.
    pub(super) fn text(
        &mut self,
        (span, directory, is_main): (Span, &Path, bool),
        host: &dyn HostView,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Text> {
        let kind = match self.sources.origin(span) {
            Origin::Managed(_) => FileKind::Managed,
            _ if is_main => FileKind::Main,
            _ => FileKind::Included,
        };
        let (mut notes, text) = (Diagnostics::default(), self.sources.text(span));
        let (document, errors) = syntax::parse(text);
        let is_sound = |text: &str, line| trial::is_sound(text, line, host);
        syntax::refuse(text, span, &errors, &is_sound, &mut notes);
        let mut reader = Reader::new(span, text, host, &self.budget, &mut notes);
        let mut read = FileText::read(&mut reader, document.get_ref(), !errors.is_empty(), directory, kind);
        let includes = std::mem::take(&mut read.include);
        self.paused.append(&mut read.paused);
        if diagnostics.absorb(notes, &self.sources).is_empty() {
            self.is_broken |= read.is_broken;
            self.push(Fragment { span, text: read });
        }
        includes
    }

    /// Adds a spec that stands beside the file.
    pub(super) fn spec(&mut self, spec: &str, from: SpecsFrom) {
        let span = self.sources.add(Origin::Spec(from, spec.to_owned()), spec.to_owned());
        let publish = vec![Text::beside_file(spec.to_owned(), span, from)];
        self.push(Fragment { span, text: FileText { publish, ..FileText::default() } });
    }

    /// Adds the labels of a container. They have no variables: a container must not learn what the
    /// environment of portway holds.
    pub(super) fn container(
        &mut self,
        container: &Container,
        may_open_router: bool,
        host: &dyn HostView,
        diagnostics: &mut Diagnostics,
    ) {
        let mut notes = Diagnostics::default();
        let made = label::text_of(container, &keys::MAPPING.names());
        let span = self.sources.add(Origin::Container(made.origin), made.text);
        for (at, message, cure) in made.problems {
            notes.problem(Code::ConflictingKeys, span.part(at..at), message).hint(cure);
        }
        let text = self.sources.text(span);
        let (document, errors) = syntax::parse(text);
        syntax::refuse(text, span, &errors, &|_, _| false, &mut notes);
        let mut reader = Reader::new(span, text, host, &self.budget, &mut notes);
        reader.takes_variables = false;
        let kind = FileKind::Labels(may_open_router);
        let read = FileText::read(&mut reader, document.get_ref(), !errors.is_empty(), Path::new(""), kind);
        if diagnostics.absorb(notes, &self.sources).is_empty() {
            self.push(Fragment { span, text: FileText { home: Some(container.home.clone()), ..read } });
        }
    }

    /// What the main file says of containers.
    pub(super) fn docker(&self) -> Option<DockerText> {
        self.together.first()?.text.main.docker.clone()
    }

    fn push(&mut self, fragment: Fragment) {
        let stands_alone = self.sources.origin(fragment.span).stands_alone();
        let list = if stands_alone { &mut self.alone } else { &mut self.together };
        list.push(fragment);
    }

    /// Lowers the fragments. While some that stand alone have problems of their own, those are left
    /// out, and the others are lowered again.
    pub(super) fn lower(
        &mut self,
        context: Context<'_>,
        (traps, knock): (&[Text], Option<&KnockText>),
        diagnostics: &mut Diagnostics,
    ) -> Lowered {
        loop {
            let mut notes = Diagnostics::default();
            let mut lowering = Lowering::new(context, &mut notes);
            self.together.iter().for_each(|fragment| lowering.mappings(&fragment.text));
            lowering.traps(traps);
            knock.into_iter().for_each(|knock| lowering.knocks(knock));
            self.alone.iter().for_each(|fragment| lowering.mappings(&fragment.text));
            let lowered = lowering.finish();
            let out = diagnostics.absorb(notes, &self.sources);
            if out.is_empty() {
                return lowered;
            }
            self.alone.retain(|fragment| !out.contains(&fragment.span.source()));
        }
    }
}
