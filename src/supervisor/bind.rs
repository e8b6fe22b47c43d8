//! Binding a listener's socket, and saying what is wrong and what would help when that fails.

use std::{collections::HashMap, io, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::io::Errno;

use super::{
    holder::{self, Holder},
    kind,
};
use crate::{
    config::{ListenerPlan, Plan},
    job,
    mapping::{ListenerKey, Protocol},
    sock::{
        bind::{Aside, Bound, Listening, Overlap, settle},
        errno::is_absent,
    },
    state::files,
};

/// How long the search for the holders of ports may take: the supervisor waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What binding came to, when it did not fail.
#[derive(Debug)]
pub(super) enum Staged {
    /// Bound, not serving.
    Bound(OwnedFd),
    /// Time may mend what is wrong: the supervisor tries again every second.
    Waiting(BindError),
}

/// Which failures to bind a plan survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// None: every listener opens.
    Nothing,
    /// An address that is not there yet. A reload has this one.
    Absent,
    /// A port in use, too, as long as some listener opens. A start has this one.
    AbsentOrTaken,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("bind {key}: {}{cure}", describe(source))]
pub struct BindError {
    /// The socket that was wanted.
    pub key: ListenerKey,
    /// What the system said.
    pub source: io::Error,
    /// What is in the way, or what would help; empty before [`explained`].
    cure: String,
}

impl BindError {
    /// Whether another program has the port.
    pub(super) fn is_taken(&self) -> bool {
        self.errno() == Some(Errno::ADDRINUSE)
    }

    /// The system's number for it.
    pub(super) fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }

    /// The cause and the cure, without the listener.
    pub(super) fn cause(&self) -> String {
        format!("{}{}", describe(&self.source), self.cure)
    }

    fn is_tolerated(&self, tolerance: Tolerance) -> bool {
        match tolerance {
            Tolerance::Nothing => false,
            Tolerance::Absent => is_absent(&self.source),
            Tolerance::AbsentOrTaken => is_absent(&self.source) || self.is_taken(),
        }
    }
}

/// Binds what `key` asks for.
pub(super) fn stage(
    key: &ListenerKey,
    plan: &ListenerPlan,
    tolerance: Tolerance,
) -> Result<Staged, BindError> {
    stage_in(Overlap::Nothing, key, plan, tolerance)
}

/// Binds every one of `keys`, or reports each that cannot be. Where ports are in use and not one listener opens, that is
/// a failure, too.
pub(super) fn stage_all(
    keys: &[ListenerKey],
    plan: &Plan,
    tolerance: Tolerance,
) -> Result<Vec<(ListenerKey, Staged)>, Vec<BindError>> {
    let staged = stage_all_in(Overlap::Nothing, keys, plan, tolerance)?;
    let opens = staged.iter().any(|(_, staged)| matches!(staged, Staged::Bound(_)));
    let is_taken = |staged: &Staged| matches!(staged, Staged::Waiting(error) if error.is_taken());
    if opens || !staged.iter().any(|(_, staged)| is_taken(staged)) {
        return Ok(staged);
    }
    let errors = staged.into_iter().filter_map(|(_, staged)| match staged {
        Staged::Waiting(error) => Some(error),
        Staged::Bound(_) => None,
    });
    Err(errors.collect())
}

/// Binds every one of `keys` over sockets of ours that are to be closed. Where it fails, they are as they were.
pub(super) fn stage_over(
    old: Vec<(Protocol, Listening)>,
    keys: &[ListenerKey],
    plan: &Plan,
) -> Result<Vec<(ListenerKey, Staged)>, Vec<BindError>> {
    let refused = |key: &ListenerKey, source| BindError { key: key.clone(), source, cure: String::new() };
    let _aside = Aside::of(old).map_err(|error| {
        keys.iter()
            .map(|key| refused(key, io::Error::new(error.kind(), error.to_string())))
            .collect::<Vec<_>>()
    })?;
    let staged = stage_all_in(Overlap::OwnSockets, keys, plan, Tolerance::Absent)?;
    // Last, because a TCP socket takes clients from here on.
    for (key, staged) in &staged {
        if let Staged::Bound(socket) = staged {
            settle(key.protocol, socket).map_err(|error| vec![refused(key, error)])?;
        }
    }
    Ok(staged)
}

fn stage_all_in(
    overlap: Overlap,
    keys: &[ListenerKey],
    plan: &Plan,
    tolerance: Tolerance,
) -> Result<Vec<(ListenerKey, Staged)>, Vec<BindError>> {
    let (mut staged, mut errors) = (Vec::with_capacity(keys.len()), Vec::new());
    for key in keys {
        match stage_in(overlap, key, &plan.listeners[key], tolerance) {
            Ok(socket) => staged.push((key.clone(), socket)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(staged) } else { Err(errors) }
}

fn stage_in(
    overlap: Overlap,
    key: &ListenerKey,
    plan: &ListenerPlan,
    tolerance: Tolerance,
) -> Result<Staged, BindError> {
    match kind::stage(key, &plan.service, overlap) {
        Ok(bound) => Ok(Staged::Bound(told(key, bound))),
        Err(source) => {
            let error = BindError { key: key.clone(), source, cure: String::new() };
            if error.is_tolerated(tolerance) { Ok(Staged::Waiting(error)) } else { Err(error) }
        }
    }
}

/// Logs why listeners wait: the first few of each kind, and how many more there are. A range of ports may have thousands.
pub(super) fn say_waiting(errors: &[BindError], plan: &Plan) {
    const NAMED: usize = 10;
    let (taken, absent): (Vec<_>, Vec<_>) = errors.iter().partition(|error| !is_absent(&error.source));
    for error in taken.iter().take(NAMED) {
        let (mapping, protocol) = (mapping(error, plan), error.key.protocol.as_str());
        tracing::error!(mapping, protocol, listen.addr = %error.key.addr, error = error.cause(), "listener waiting");
    }
    if let Some(left_out @ 1..) = taken.len().checked_sub(NAMED) {
        tracing::error!(left_out, "more listeners waiting");
    }
    for error in absent.iter().take(NAMED) {
        let (mapping, protocol) = (mapping(error, plan), error.key.protocol.as_str());
        tracing::warn!(mapping, protocol, listen.addr = %error.key.addr, error = error.cause(), "listener waiting");
    }
    if let Some(left_out @ 1..) = absent.len().checked_sub(NAMED) {
        tracing::warn!(left_out, "more listeners waiting");
    }
}

fn mapping(error: &BindError, plan: &Plan) -> Option<String> {
    plan.listeners.get(&error.key).map(|listener| listener.name.to_string())
}

/// Says once in the life of the program that there is no IPv6, where that shows.
fn told(key: &ListenerKey, bound: Bound<OwnedFd>) -> OwnedFd {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if bound.ipv4_only {
        ONCE.call_once(|| {
            tracing::warn!(
                listen.addr = %key.addr,
                "this machine has no IPv6: listeners on every address take IPv4 only"
            );
        });
    }
    bound.socket
}

fn describe(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => "the address is in use".to_owned(),
        Some(Errno::ACCESS | Errno::PERM) => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Finds out what is in the way, or what would help, for all of `errors` together.
pub(super) async fn explained(mut errors: Vec<BindError>) -> Vec<BindError> {
    if errors.is_empty() {
        return errors;
    }
    let causes = errors.iter().map(|error| (error.key.clone(), error.errno()));
    let causes: Vec<(ListenerKey, Option<Errno>)> = causes.collect();
    // Without cures the errors are as true.
    let cures = job::run_within(PATIENCE, "portway-holder", move || cures(&causes)).await.unwrap_or_default();
    for (error, cure) in errors.iter_mut().zip(cures) {
        error.cure = cure;
    }
    errors
}

fn cures(causes: &[(ListenerKey, Option<Errno>)]) -> Vec<String> {
    let taken = causes.iter().filter(|(_, error)| *error == Some(Errno::ADDRINUSE));
    let taken: Vec<ListenerKey> = taken.map(|(key, _)| key.clone()).collect();
    let holders = holder::find(&taken);
    let holders: HashMap<&ListenerKey, Holder> =
        taken.iter().zip(holders).filter_map(|(key, holder)| Some((key, holder?))).collect();
    causes.iter().map(|(key, error)| cure(key, *error, holders.get(key))).collect()
}

/// Who is in the way, or what to do.
fn cure(key: &ListenerKey, error: Option<Errno>, holder: Option<&Holder>) -> String {
    match error {
        Some(Errno::ADDRINUSE) => match holder {
            Some(holder) => format!(" by {holder}; stop it, or listen on another port or address"),
            None => "; stop what uses it, or listen on another port or address (as root, `ss -lntup` shows its name)"
                .to_owned(),
        },
        Some(Errno::ACCESS | Errno::PERM) if key.addr.port.get() < first_unprivileged_port() => format!(
            ": a port below {} needs the capability CAP_NET_BIND_SERVICE; give it in the systemd unit \
             (AmbientCapabilities=CAP_NET_BIND_SERVICE) or to the program \
             (setcap cap_net_bind_service=+ep {})",
            first_unprivileged_port(),
            program()
        ),
        Some(Errno::MFILE) => ": too many listeners for the descriptor limit; raise LimitNOFILE= in the unit, or \
             `ulimit -n`"
            .to_owned(),
        _ => String::new(),
    }
}

fn first_unprivileged_port() -> u16 {
    const DEFAULT: u16 = 1024;
    let text = files::read_text(Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start"), 64).ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT)
}

fn program() -> String {
    std::env::current_exe().map_or_else(|_| "/usr/bin/portway".to_owned(), |path| path.display().to_string())
}
