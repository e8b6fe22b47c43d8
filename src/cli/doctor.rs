//! `portway doctor`: walks the way of each mapping, and prints what was found.
//!
//! Owns where the mappings come from: the running daemon, else the configuration that `check` would
//! read. A file that is named counts before what runs. The walk itself is in
//! [`doctor`](crate::doctor). The exit code is 0 if no hop fails, and 1 if one does.

use std::{ffi::OsString, fmt::Write as _, process::ExitCode};

use clap::error::ErrorKind;
use serde_json::json;

use super::{
    FAILED,
    args::Doctor,
    ctl, failure_of_start, printed, refusal, refuse, say,
    table::{Colour, Terminal},
    variables::Variables,
};
use crate::{
    api::client::{Ask, Client, ClientError},
    config::{self, ApiSocket, Loaded, NodeUrl, Problems, System},
    doctor::{Daemon, Finding, Outside, Subject, Surroundings, Verdict, examine},
    help,
    probe::Node,
    status::view,
    text::{escaped, escaped_json, escaped_lines},
};

/// The width of the widest hop and of the widest verdict, with what separates them.
const HOP: usize = 10;
const VERDICT: usize = 9;

/// Runs it.
pub(super) fn run<F: Fn(&str) -> Option<OsString>>(args: &Doctor, variables: &Variables<F>) -> ExitCode {
    let loaded = config::load(&args.source, &System);
    if let (true, Err(problems)) = (args.is_named, &loaded) {
        return refuse(problems);
    }
    let client = match client(args, loaded.as_ref().ok(), variables) {
        Ok(client) => client,
        Err(error) => return super::answer(&error),
    };
    let outside = match outside(args, loaded.as_ref().ok(), client.as_ref()) {
        Ok(outside) => outside,
        Err(error) => return super::answer(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure_of_start(&error),
    };
    runtime.block_on(async {
        let (daemon, views) = ask(client.as_ref()).await;
        let subjects = match subjects(args.is_named, views, &loaded) {
            Ok(subjects) => subjects,
            Err(problems) => return without_mappings(&daemon, problems),
        };
        if let Some(name) = &args.name {
            let known: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
            if !known.contains(name) {
                return unknown_name(name, &known);
            }
        }
        if subjects.is_empty() {
            say("portway: there is no mapping to walk");
            return ExitCode::from(FAILED);
        }
        let settings = loaded.map(|loaded| loaded.settings.router).unwrap_or_default();
        let around = Surroundings { settings, daemon, outside };
        let findings = examine(&subjects, args.name.as_deref(), &around).await;
        let fails = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
        let code = if fails { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
        if args.json {
            let json = serde_json::to_string_pretty(&json!({ "hops": findings }));
            return printed(&escaped_json(&json.expect("findings are plain values")), code);
        }
        printed(&text(&findings, Terminal::of_stdout()), code)
    })
}

/// The daemon at the socket that is named, that the configuration names, or at a usual place.
fn client<F: Fn(&str) -> Option<OsString>>(
    args: &Doctor,
    loaded: Option<&Loaded>,
    variables: &Variables<F>,
) -> Result<Option<Client>, clap::Error> {
    let said = args.source.socket.clone();
    let of_file = loaded.and_then(|loaded| match &loaded.settings.api.socket {
        ApiSocket::Named(path) => Some(path.clone()),
        ApiSocket::Off | ApiSocket::Usual(_) => None,
    });
    if said.as_deref() == Some(config::OFF.as_ref()) {
        return Ok(None);
    }
    ctl::client(said.or(of_file), variables).map(Some)
}

/// What tries the ports from outside, if anything does.
fn outside(
    args: &Doctor,
    loaded: Option<&Loaded>,
    client: Option<&Client>,
) -> Result<Option<Outside>, clap::Error> {
    let terms = loaded.and_then(|loaded| loaded.settings.api.probe.as_ref());
    let Some(url) = args.from.clone().or_else(|| terms.and_then(|terms| terms.from.clone())) else {
        return Ok(None);
    };
    let token = match &args.token_file {
        Some(file) => Some(config::load_token(file).map_err(|(why, help)| {
            let message = format!("the token file {} {why}", escaped(&file.display().to_string()));
            refusal(ErrorKind::InvalidValue, &message, help)
        })?),
        None => terms.map(|terms| terms.token.clone()),
    };
    if token.is_none() && !matches!(url, NodeUrl::Unix(_)) {
        let help = "add --token-file FILE, or [probe] token_file to the configuration of this one";
        return Err(refusal(
            ErrorKind::MissingRequiredArgument,
            "that portway wants the token of its [probe] token_file",
            Some(help),
        ));
    }
    Ok(Some(Outside { node: Node::new(url, token), client: client.cloned() }))
}

/// The daemon, and its mappings.
async fn ask(client: Option<&Client>) -> (Daemon, Option<Vec<view::Mapping>>) {
    let Some(client) = client else { return (Daemon::Absent, None) };
    let answer = client.ask(&Ask::get("/v1/mappings")).await;
    match answer.and_then(|answer| answer.read::<view::Mappings>()) {
        Ok(all) => (Daemon::Runs, Some(all.mappings)),
        Err(ClientError::NoDaemon(_)) => (Daemon::Absent, None),
        Err(error) => (Daemon::Hidden(error.to_string()), None),
    }
}

/// The mappings to look at: those that run, unless a configuration is named.
fn subjects(
    is_named: bool,
    views: Option<Vec<view::Mapping>>,
    loaded: &Result<Loaded, Problems>,
) -> Result<Vec<Subject>, &Problems> {
    let mut live: Vec<Subject> = views.into_iter().flatten().map(Subject::of_view).collect();
    if !is_named && !live.is_empty() {
        return Ok(live);
    }
    let planned = &loaded.as_ref()?.plan.about;
    let one = |(id, about): (_, _)| {
        let planned = Subject::of_plan(&ToString::to_string(id), about);
        let running = live.iter().position(|subject| subject.is_like(&planned));
        running.map_or(planned, |at| live.swap_remove(at))
    };
    Ok(planned.iter().map(one).collect())
}

/// Neither a daemon nor a configuration has mappings.
fn without_mappings(daemon: &Daemon, problems: &Problems) -> ExitCode {
    if let Daemon::Hidden(reason) = daemon {
        say(&escaped_lines(&format!("portway: {reason}")));
    }
    refuse(problems)
}

fn unknown_name(name: &str, known: &[String]) -> ExitCode {
    let message = format!("portway: there is no mapping {}", escaped(name));
    let cure = format!("it may be {}", escaped(&known.join(", ")));
    say(&help::below(&message, (!known.is_empty()).then_some(&*cure), 2));
    ExitCode::from(FAILED)
}

/// A paragraph a mapping: a line a hop, and the cure below it.
fn text(findings: &[Finding], terminal: Terminal) -> String {
    let mut text = String::new();
    let mut last = None;
    for finding in findings {
        if last.replace(&finding.mapping) != Some(&finding.mapping) {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{}", escaped(&finding.mapping));
        }
        let (hop, verdict) = (finding.hop.as_str(), finding.verdict.as_str());
        let colour = match finding.verdict {
            Verdict::Ok => Colour::Good,
            Verdict::Fail => Colour::Bad,
            Verdict::Unknown => Colour::Pale,
        };
        let pad = " ".repeat(VERDICT.saturating_sub(verdict.len()));
        let _ = writeln!(text, "  {hop:HOP$}{}{pad}{}", colour.mark(verdict), escaped(&finding.evidence));
        if !finding.cure.is_empty() {
            let _ = writeln!(text, "  {:width$}cure: {}", "", escaped(&finding.cure), width = HOP + VERDICT);
        }
    }
    let failing: Vec<_> = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).collect();
    let outcome = match failing.first() {
        None => "no hop fails".to_owned(),
        Some(first) => format!(
            "{} of {} hops fail; mend {} of {} first",
            failing.len(),
            findings.len(),
            first.hop.as_str(),
            escaped(&first.mapping)
        ),
    };
    let _ = writeln!(text, "\n{outcome}");
    Colour::paint(&text, terminal.colour)
}
