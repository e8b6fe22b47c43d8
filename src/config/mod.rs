//! Text to plan: what the configuration file and the command line ask for, or everything that is
//! wrong with it.
//!
//! [`load`] reads the fragments: the file, the files it includes and the `-p` specs. It merges them
//! to a [`Plan`] and [`Settings`], or gives [`Problems`]: all of them, in file order, each with its
//! place and what would be right. It opens no listener and changes nothing; what it must know of
//! the machine it asks a [`HostView`]. [`diff()`] says how one plan differs from the next.
//!
//! ```text
//! include ─► text: bytes to values ─► file: mappings as written ─► fragment ─► lower ─► plan
//!                                       └ lists, guard, countries ─► lower::gate ─► GateInput
//! ```
//!
//! - `fragment` merges the texts, and leaves out those that must not refuse the others.
//! - `text` reads bytes, parses TOML with recovery, and keeps the place of every value.
//! - `lower` gives the values their meaning: defaults, ranges, policies, and clashes.
//! - `keys` describes every key; the reader and the `schema` for editors are made from it.
//! - `plan` is the result, and the difference of two results.
//!
//! No serde type mirrors the file: serde ends at the first error. The file is parsed with recovery
//! into spanned values, and a small table reader (`table`) takes the keys out of it, so that every
//! problem of every line is found.
//!
//! Nothing here panics, whatever the file holds; what a stranger can write into it is bounded: the
//! size of the files, the depth of their nesting, the depth of includes, the number of listeners
//! and of entries that each of them copies.

mod containers;
mod effective;
pub(crate) mod environment;
mod file;
mod fragment;
mod host;
mod include;
mod keys;
mod label;
mod lower;
mod managed;
mod plan;
mod schema;
mod source;
mod text;
mod texts;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

pub(crate) use containers::Containers;
#[cfg(feature = "docker")]
pub(crate) use containers::{Container, Home, Label, Seen};
pub(crate) use effective::DaemonTerms;
pub(crate) use effective::effective;
use environment::Asked;
use file::MainText;
use fragment::Fragments;
pub(crate) use host::HostView;
pub use host::System;
use include::Walk;
pub(crate) use lower::api::{ApiSettings, ApiSocket, OFF, Role, Token};
pub(crate) use lower::daemon::{DaemonSettings, RunAs, Sandbox};
pub(crate) use lower::docker::DockerSettings;
pub(crate) use lower::lists::{ListFileError, ListRead, read_list};
pub(crate) use lower::log::{LogFormat, LogOverride, LogSettings, LogTarget};
pub(crate) use lower::overrides::terms;
#[cfg(feature = "api")]
pub(crate) use lower::own_paths::sockets;
pub(crate) use lower::settings::{LimitSettings, Settings};
use lower::{Context, api::ApiText, docker::DockerText, draft::Abouts, lists, paused::Paused};
#[cfg(feature = "api")]
pub(crate) use lower::{
    probe::{FORMS as NODE_FORMS, NodeUrl, ProbeSettings, WebUrl},
    secret::{Secret, load_token},
};
#[cfg(feature = "api")]
pub(crate) use managed::MOST as MOST_MANAGED;
pub(crate) use plan::about::About;
pub(crate) use plan::diff::{PlanDiff, diff};
pub(crate) use plan::{ListenerPlan, MappingPlan, Plan, Service};
pub(crate) use schema::schema;
pub(crate) use source::{DEFAULT_FILE, ReadSet, STDIN, SpecsFrom};
use source::{NAME_A_MAPPING, Origin};
#[cfg(feature = "api")]
pub(crate) use text::duration::parse as parse_duration;
#[cfg(feature = "import")]
pub(crate) use text::read::{read_any, read_stdin};
pub(crate) use text::spelling::host_terms;
use text::{Code, Diagnostics, SourceMap, Span};
pub(crate) use text::{Problem, Problems};
pub(crate) use text::{Spell, Term};
pub(crate) use texts::Texts;

pub(crate) use crate::log_level::LogLevel;
#[cfg(feature = "api")]
use crate::mapping::{MappingName, publish::Publish};
use crate::{mapping::MappingId, policy::GateInput, state::files};

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The configuration file, if there is one; [`STDIN`] is standard input.
    pub file: Option<PathBuf>,
    /// Where relative paths of the main file begin; in its directory where `None`.
    pub base: Option<PathBuf>,
    /// The default file, where it is not read because of the specs. It may not exist.
    pub passed_over: Option<PathBuf>,
    /// The publish specs beside the file, already split.
    pub publish: Vec<String>,
    /// Where these specs stand.
    pub publish_from: SpecsFrom,
    /// Open every listener on the router whose mapping does not say otherwise (`--router`).
    pub router: bool,
    /// What is logged, and how, in place of `[log]`.
    pub log: LogOverride,
    /// The socket of the API in place of `[api] socket`; the word `off` is none.
    pub socket: Option<PathBuf>,
    /// The user that the process goes on as, in place of `[daemon] user`.
    pub user: Option<RunAs>,
    /// Whether the process restricts itself, in place of `[daemon] sandbox`.
    pub sandbox: Option<Sandbox>,
    /// Variables of the environment that look like portway's and are not (see
    /// [`environment::strays`]).
    pub strays: Vec<String>,
    /// What is known of the containers.
    pub containers: Containers,
}

impl Loaded {
    /// What keeps mappings of the managed file out of the plan. A start goes on without them. A
    /// reload must not: it would close what runs.
    pub(crate) fn problems_of_managed_file(&self) -> Option<Problems> {
        let problems = self.warnings.iter().filter_map(Problem::of_managed_file).collect();
        Problems::new(problems, &[], self.read.clone())
    }
}

impl Source {
    /// Whether a user to go on as may be named: the process has to know that before it makes
    /// threads. Says yes too often. Reads the main file where that is a regular one.
    pub(crate) fn may_name_a_user(&self) -> bool {
        const MOST: u64 = 16 << 20;
        let text = |path: &PathBuf| files::read_text(path, MOST).ok();
        self.user.is_some() || self.file.as_ref().and_then(text).is_some_and(|text| text.contains("daemon"))
    }

    /// Where relative paths of the main file begin.
    fn directory(&self) -> &Path {
        let of_file = || self.file.as_deref().and_then(Path::parent);
        self.base.as_deref().or_else(of_file).unwrap_or(Path::new(""))
    }
}

/// A configuration without problems.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The mappings and listeners that should run.
    pub plan: Plan,
    /// What concerns the daemon as a whole.
    pub settings: Settings,
    /// Lists, countries and the guard.
    pub gate: GateInput,
    /// What works, but should be looked at.
    pub warnings: Vec<Problem>,
    /// What was read.
    pub read: ReadSet,
    /// The texts, for another look at the containers; `None` where no engine is asked.
    pub(crate) texts: Option<Arc<Texts>>,
    /// Where what is known of the containers is put.
    pub(crate) containers: Containers,
}

/// Reads the configuration. It reads files, so it belongs on a thread that may block.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(source: &Source, host: &dyn HostView) -> Result<Loaded, Problems> {
    let (mut fragments, mut diagnostics) = (Fragments::default(), Diagnostics::default());
    let asked = Asked::new(host);
    read(source, &asked, &mut fragments, &mut diagnostics);
    Texts::new(fragments, diagnostics, source, &asked).merged(&asked)
}

/// Reads a text as if it was the main file, and nothing beside it. `name` stands for its path.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn load_text(name: &Path, text: String, host: &dyn HostView) -> Result<Loaded, Problems> {
    let source = Source { file: Some(name.to_owned()), ..Source::default() };
    let (mut fragments, mut diagnostics) = (Fragments::default(), Diagnostics::default());
    let asked = Asked::new(host);
    Walk::new(&asked, &mut fragments, &mut diagnostics).given(name, text);
    Texts::new(fragments, diagnostics, &source, &asked).merged(&asked)
}

/// The name that a mapping with this publish spec has where it is given none.
#[cfg(feature = "api")]
pub(crate) fn default_name(spec: &str) -> Option<MappingName> {
    let spec = Publish::parse(spec, &|name, protocol| System.service(name, protocol)).ok()?;
    Some(MappingName::default_for(spec.listen.ports, spec.protocols.iter().next()?))
}

/// Reads the files and the specs.
fn read(source: &Source, host: &dyn HostView, fragments: &mut Fragments, diagnostics: &mut Diagnostics) {
    if let Some(path) = &source.file {
        Walk::new(host, fragments, diagnostics).main(path, source.base.as_deref());
    }
    for spec in &source.publish {
        fragments.spec(spec, source.publish_from);
    }
    // Without the API nothing could change that file.
    if cfg!(feature = "api") {
        let none = ApiText::default();
        let api = fragments.together.first().map_or(&none, |main| &main.text.main.api);
        if let Some(path) = api.managed(source.directory(), host) {
            managed::read(&path, host, fragments, diagnostics);
        }
    }
}

/// Makes one plan of the texts.
fn merge(
    mut fragments: Fragments,
    mut diagnostics: Diagnostics,
    source: &Source,
    asked: &Asked<'_>,
) -> Result<Loaded, Problems> {
    let docker = fragments.docker();
    if let Some(DockerText { span, settings }) = &docker {
        let seen = source.containers.seen();
        for container in &seen.containers {
            fragments.container(container, settings.allow_router, asked, &mut diagnostics);
        }
        if let Some((trouble, cure)) = &seen.trouble {
            let message = format!(
                "the container engine {} cannot be asked: {trouble}; the mappings of containers stay as they are",
                settings.engine
            );
            diagnostics.warning(Code::Unreachable, *span, message).hint(*cure);
        }
    }
    let list = &mut fragments.together;
    let MainText { defaults, mut settings, mut gate, api, router, docker: _ } =
        list.first_mut().map(|f| std::mem::take(&mut f.text.main)).unwrap_or_default();
    settings.log = source.log.over(settings.log);
    settings.daemon.user = source.user.clone().or(settings.daemon.user);
    settings.daemon.sandbox = source.sandbox.or(settings.daemon.sandbox);
    let lists = list.iter_mut().flat_map(|f| std::mem::take(&mut f.text.lists));
    gate.lists = lists::merged(lists, &mut diagnostics);
    let known = gate.known(list.first().is_some_and(|f| f.text.is_broken), fragments.is_broken);
    let everything_on_router = source.router;
    let services = api.services();
    let paused = Paused::new(std::mem::take(&mut fragments.paused));
    let context = Context {
        host: asked,
        defaults: &defaults,
        known: &known,
        everything_on_router,
        router,
        services: &services,
        paused: &paused,
        now: SystemTime::now(),
    };
    let lowered = fragments.lower(context, (gate.traps(), gate.knock()), &mut diagnostics);
    paused.warn_of_unknown(&mut diagnostics);
    let Fragments { mut sources, read, .. } = fragments;
    let gate = gate.load(source.directory(), &known, asked, &mut sources, &mut diagnostics);
    let socket = source.socket.as_deref().map(|path| (path, sources.add(Origin::CommandLine, String::new())));
    (settings.api, settings.metrics) = api.load(source.directory(), socket, asked, &mut diagnostics);
    if source.file.is_none() && source.publish.is_empty() {
        let span = sources.add(Origin::CommandLine, String::new());
        let message = "nothing to forward: neither a file nor a mapping is named";
        diagnostics.problem(Code::NothingToForward, span, message).hint(NAME_A_MAPPING);
    } else if lowered.plan.listeners.is_empty() && diagnostics.is_sound() && docker.is_none() {
        warn_of_an_empty_plan(lowered.disabled, &sources, &mut diagnostics);
    }
    warn_of_the_command_line(source, asked, &mut sources, &mut diagnostics);
    let mut plan = lowered.plan;
    plan.about = Arc::new(placed(lowered.abouts, &sources));
    let (problems, warnings) = diagnostics.finish(&sources);
    match Problems::new(problems, &warnings, read.clone()) {
        Some(problems) => Err(problems),
        None => {
            let containers = source.containers.clone();
            Ok(Loaded { plan, settings, gate, warnings, read, texts: None, containers })
        }
    }
}

/// Says where each mapping stands.
fn placed(abouts: Abouts, sources: &SourceMap) -> BTreeMap<MappingId, About> {
    let place = |(id, (span, mut about)): (MappingId, (Span, About))| {
        (about.origin, about.place) = (sources.origin(span).of_mappings(), sources.describe(span));
        (id, about)
    };
    abouts.into_iter().map(place).collect()
}

/// Warns of what the command line and the environment say, and of what they leave out.
fn warn_of_the_command_line(
    source: &Source,
    asked: &Asked<'_>,
    sources: &mut SourceMap,
    diagnostics: &mut Diagnostics,
) {
    let span = sources.add(Origin::CommandLine, String::new());
    environment::warn_of_strays(&source.strays, asked, span, diagnostics);
    // A file that cannot be looked at is there for all we know.
    if let Some(path) = source.passed_over.as_deref().filter(|path| path.try_exists().unwrap_or(true)) {
        let (path, from) = (path.display(), source.publish_from);
        diagnostics
            .warning(Code::NoEffect, span, format!("{path} is not read, because {from} names the mappings"))
            .hint(format!("what it says (such as `allow`) does not apply; to read both, add -c {path}"));
    }
}

/// An empty plan is valid, so that a reload can remove the last mapping.
fn warn_of_an_empty_plan(disabled: usize, sources: &SourceMap, diagnostics: &mut Diagnostics) {
    let (message, hint) = if disabled > 0 {
        ("nothing is forwarded: every mapping is disabled", "remove `enabled = false` from one")
    } else {
        ("nothing is forwarded: the configuration has no mapping", "add one, as in publish = [\"8080:80\"]")
    };
    diagnostics.warning(Code::NothingToForward, sources.start(), message).hint(hint);
}

#[cfg(test)]
mod tests;
