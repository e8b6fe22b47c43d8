//! The sandbox: the process gives up the files (`files`) and the system calls (`calls`) that it
//! does not need. For those who run portway without a service manager that does so.
//!
//! System calls are closed unless the configuration says otherwise (`[daemon] sandbox = "auto"`):
//! that costs a user nothing. Closed files have a price, so they have to be asked for (`"on"`): a
//! reload cannot reach a new directory, and other processes are hidden, so that a port in use is
//! reported with the user that holds it and without the program.
//!
//! Whatever is configured must work as without a sandbox. What cannot be had is left out, and said
//! once in the log:
//!
//! - A unit with a filter of system calls and without new privileges has closed more: nothing is
//!   added.
//! - A command that starts a target is any program, and inherits everything. So files stay open
//!   then. So do system calls, unless privileges were given up before (`--user`): a filter needs
//!   that, and it would break `sudo`.
//!
//! The order at the start: the configuration is read, on a thread of its own, so that a stop ends
//! the wait. That thread ends. Then no privilege can be gained any more, system calls are refused
//! on every thread, and files are closed to this one. Where there is another thread (that of the
//! allocator, before the first line of the program), the program executes itself
//! ([`super::again`]). A static one needs no second start. A variable ([`VARIABLE`]) says so to the
//! program that starts then, and to the one that takes over. What is in force is inherited, so
//! neither adds anything, however often there is a hand-over. A right that a file carries
//! (`setcap`) outlives that: without new privileges, the kernel gives the new program what the old
//! one had, and no more.
//!
//! What a reload asks for, and the sandbox keeps from it, is a problem of that configuration: the
//! one that runs stays ([`guarded`]).

#[cfg(feature = "sandbox")]
mod calls;
#[cfg(feature = "sandbox")]
mod files;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    pipe::{PipeFlags, pipe_with},
    thread::no_new_privs,
};

use super::{again, handover, signals, systemd};
use crate::{
    config::{DaemonSettings, Loaded, Problem, Problems, Sandbox},
    job,
    supervisor::PlanSource,
    wake::Start,
};

/// Says to the program what the process has given up before.
const VARIABLE: &str = "PORTWAY_SANDBOXED";
const FILES: &str = "files";
const CALLS: &str = "system calls";
const BETWEEN: &str = "; ";
/// How long the configuration may take here. Then the daemon starts without a sandbox, and waits
/// on.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// What the process has given up, and why not more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confined {
    files: bool,
    calls: bool,
    reasons: Vec<String>,
    /// The service manager has closed more.
    is_left_to_manager: bool,
}

impl Confined {
    /// Nothing, for this reason.
    fn not(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], ..Self::default() }
    }

    fn names(&self) -> String {
        let names = [(self.files, FILES), (self.calls, CALLS)].into_iter().filter(|(is, _)| *is);
        names.map(|(_, name)| name).collect::<Vec<_>>().join(", ")
    }

    /// What the next program hears of it: the names, and the reasons behind a semicolon.
    pub(super) fn mark(&self) -> Option<(&'static str, String)> {
        let all = std::iter::once(self.names()).chain(self.reasons.iter().cloned());
        (self.files || self.calls).then(|| (VARIABLE, all.collect::<Vec<_>>().join(BETWEEN)))
    }

    /// What the program before this one has given up. A variable that was set by hand is no proof.
    fn inherited() -> Option<Self> {
        let mark = std::env::var(VARIABLE).ok()?;
        let (names, reasons) = mark.split_once(BETWEEN).unwrap_or((&mark, ""));
        let has = |name| names.split(", ").any(|named| named == name);
        let is = no_new_privs().unwrap_or_default() && (!has(CALLS) || are_calls_filtered());
        let reasons = reasons.split(BETWEEN).filter(|reason| !reason.is_empty()).map(str::to_owned);
        let confined =
            Self { files: has(FILES), calls: has(CALLS), reasons: reasons.collect(), ..Self::default() };
        (is && (confined.files || confined.calls)).then_some(confined)
    }

    /// Logs it. It is worth a warning only where it was asked for. A daemon that makes no sandbox
    /// at all says nothing of it.
    pub(super) fn tell(&self, settings: &DaemonSettings) {
        let (restricts, mut reason) = (self.names(), self.reasons.join(BETWEEN));
        let wants_files = settings.sandbox == Some(Sandbox::On);
        if wants_files && !self.files && reason.is_empty() {
            reason = "files are closed when portway starts again".into();
        }
        let is_asked_for = matches!(settings.sandbox, Some(Sandbox::Auto | Sandbox::On));
        let is_missed = is_asked_for && !self.is_left_to_manager;
        match (self.calls && (self.files || !wants_files), reason.is_empty()) {
            (true, true) => tracing::info!(restricts, "sandbox"),
            (false, true) if restricts.is_empty() => {}
            _ if is_missed => tracing::warn!(restricts, reason, "sandbox"),
            _ => tracing::info!(restricts, reason, "sandbox"),
        }
    }
}

/// Enters the sandbox, as far as the configuration and the system let it. Returns the source to go
/// on with, or does not return: the program starts once more. To be called while there is no other
/// thread of the program's own.
///
/// # Errors
/// Signals cannot be held, or there are no more descriptors.
pub(crate) fn enter(source: PlanSource) -> io::Result<(PlanSource, Confined)> {
    if let Some(confined) = Confined::inherited() {
        return Ok((guarded(source, &confined), confined));
    }
    let without = |source, reason: &str| Ok((source, Confined::not(reason)));
    if !cfg!(feature = "sandbox") {
        return without(source, "this portway was built without the feature `sandbox`");
    }
    if std::env::var_os(handover::VARIABLE).is_some() {
        return without(source, "the process that handed over had none; it begins when portway starts again");
    }
    if systemd::is_there() && no_new_privs().unwrap_or_default() && are_calls_filtered() {
        let reasons = vec!["the service manager restricts portway already".into()];
        return Ok((source, Confined { reasons, is_left_to_manager: true, ..Confined::default() }));
    }
    signals::hold()?;
    let (source, loaded) = read_once(source)?;
    let Some(loaded) = loaded else {
        return without(source, "the configuration could not be read beforehand");
    };
    // What is wrong with it is said later.
    let Ok(loaded) = &*loaded else { return Ok((source, Confined::default())) };
    let mut confined = confine(loaded);
    if confined.files && has_other_threads() {
        let error = again::execute_self(confined.mark().as_ref());
        confined.reasons.push(format!("execute {}: {error}; another thread keeps its files", again::SELF));
    }
    Ok((guarded(source, &confined), confined))
}

/// Enters it just before the program executes itself.
pub(super) fn enter_before_exec(loaded: &Loaded) -> Confined {
    if cfg!(feature = "sandbox") { confine(loaded) } else { Confined::default() }
}

/// Gives up what this configuration does not need.
fn confine(loaded: &Loaded) -> Confined {
    if loaded.settings.daemon.sandbox == Some(Sandbox::Off) {
        return Confined::not("it is switched off");
    }
    let mut confined = Confined::default();
    let has_command = command(loaded).is_some();
    if has_command {
        confined.reasons.push("a mapping starts a command, which would be restricted as well".into());
        if !no_new_privs().unwrap_or_default() {
            return confined;
        }
    }
    let mut keep = |done: Result<(), String>| done.map_err(|reason| confined.reasons.push(reason)).is_ok();
    let wants_files = loaded.settings.daemon.sandbox == Some(Sandbox::On);
    let files = wants_files && !has_command && keep(close_files(loaded));
    let calls = keep(refuse_calls());
    Confined { files, calls, ..confined }
}

/// Closes the files that are not needed.
#[cfg(feature = "sandbox")]
fn close_files(loaded: &Loaded) -> Result<(), String> {
    let is_stream = |file: &std::path::PathBuf| std::fs::metadata(file).is_ok_and(|meta| !meta.is_file());
    if loaded.read.files.iter().any(is_stream) {
        return Err("the configuration comes out of a pipe, which a second start could not read".into());
    }
    files::close_others(loaded)
}

#[cfg(feature = "sandbox")]
fn refuse_calls() -> Result<(), String> {
    calls::refuse()
}

#[cfg(not(feature = "sandbox"))]
fn close_files(_: &Loaded) -> Result<(), String> {
    Ok(())
}

#[cfg(not(feature = "sandbox"))]
fn refuse_calls() -> Result<(), String> {
    Ok(())
}

/// A mapping that starts a command, by its name.
fn command(loaded: &Loaded) -> Option<String> {
    let mut wakes = loaded.plan.wakes();
    wakes.find(|(_, wake)| matches!(wake.start, Start::Command { .. })).map(|(name, _)| name.to_string())
}

/// What was read.
type Read = Arc<Result<Loaded, Problems>>;

/// Reads the configuration, unless a stop is wanted first, or it takes too long. The source that
/// comes back gives that reading first, or waits for it: a file may be one that can be read once.
fn read_once(source: PlanSource) -> io::Result<(PlanSource, Option<Read>)> {
    let mut stops = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT].into_iter().for_each(|signal| stops.add(signal));
    let signal = SignalFd::with_flags(&stops, SfdFlags::SFD_CLOEXEC)?;
    let (ended, ends) = pipe_with(PipeFlags::CLOEXEC)?;
    let (done, result) = mpsc::sync_channel(1);
    let first = Arc::clone(&source);
    let read = move || {
        // It is received later where this thread was not waited for.
        let _ = done.send(Arc::new(first()));
        drop(ends);
    };
    let Ok(thread) = job::thread("portway-config", read) else {
        // The daemon needs more of them, and says so.
        return Ok((source, None));
    };
    let mut waits = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&signal, PollFlags::IN)];
    let limit = Timespec::try_from(READ_LIMIT).ok();
    // What has come tells.
    let _ = retry_on_intr(|| poll(&mut waits, limit.as_ref()));
    let has_ended = !waits[0].revents().is_empty();
    if has_ended {
        // A panic of it is on standard error; the next reading finds the same.
        let _ = thread.join();
    }
    let loaded: Option<Read> = if has_ended { result.try_recv().ok() } else { None };
    let kept = Mutex::new(Some((loaded.clone(), result)));
    let source: PlanSource = Arc::new(move || {
        let first = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let read = first.and_then(|(loaded, result)| loaded.or_else(|| result.recv().ok()));
        read.map_or_else(&*source, Arc::unwrap_or_clone)
    });
    Ok((source, loaded))
}

/// A source that refuses what this process may not do any more.
fn guarded(source: PlanSource, confined: &Confined) -> PlanSource {
    if !confined.files {
        return source;
    }
    Arc::new(move || {
        let loaded = source()?;
        match Problems::new(refused(&loaded), &[], loaded.read.clone()) {
            Some(problems) => Err(problems),
            None => Ok(loaded),
        }
    })
}

/// What the closed files keep a configuration from.
fn refused(loaded: &Loaded) -> Vec<Problem> {
    const RESTART: &str = "restart portway: the sandbox is made for the configuration at the start; or switch it off with \
                           [daemon] sandbox = \"off\"";
    let command = command(loaded).map(|mapping| {
        format!(
            "the mapping {mapping} starts a command, and the sandbox of this process restricts programs, too"
        )
    });
    let closed = closed(loaded).into_iter();
    let closed =
        closed.map(|dir| format!("the sandbox of this process does not let it write in {}", dir.display()));
    command.into_iter().chain(closed).map(|message| Problem::of_process(&message, RESTART)).collect()
}

#[cfg(feature = "sandbox")]
fn closed(loaded: &Loaded) -> Vec<std::path::PathBuf> {
    let written = files::written(loaded).into_iter();
    written.filter(files::Written::is_closed).map(|written| written.path).collect()
}

#[cfg(not(feature = "sandbox"))]
fn closed(_: &Loaded) -> Vec<std::path::PathBuf> {
    Vec::new()
}

/// Whether system calls are filtered, by whatever.
fn are_calls_filtered() -> bool {
    const FILTERED: u32 = 2;
    let status = procfs::process::Process::myself().and_then(|me| me.status());
    status.is_ok_and(|status| status.seccomp == Some(FILTERED))
}

/// Whether something else than this thread runs in the process. Where that cannot be told, it does.
fn has_other_threads() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(true, |tasks| tasks.count() != 1)
}
