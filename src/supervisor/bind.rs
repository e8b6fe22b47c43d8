//! Binds a listener's socket, unless it was passed to this process. If that fails, says what is
//! wrong and what would help.

use std::{collections::HashMap, io, path::Path, time::Duration};

use rustix::io::Errno;

use super::{
    holder::{self, Holder},
    kind,
    roster::Trouble,
};
use crate::{
    config::{ListenerPlan, Plan},
    events::{Draft, EventKind, Events},
    job,
    mapping::{ListenerKey, MappingOrigin, Protocol},
    sock::{
        bind::{Aside, Bound, Listening, Overlap, settle},
        errno::is_absent,
        inherited::Inherited,
        transparent,
    },
    state::files,
};

/// How long the search for the holders of ports may take. The supervisor waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A listener that was bound, or that waits.
#[derive(Debug)]
pub(super) enum Staged {
    /// Bound, not serving.
    Bound(Bound),
    /// It cannot be bound now. The supervisor tries again every second.
    Waiting(BindError),
}

/// The failures to bind that do not refuse a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// None: every listener opens.
    Nothing,
    /// An address that does not exist yet. A reload has this one.
    Absent,
    /// Also a port in use, as long as some listener opens. A start has this one.
    AbsentOrTaken,
    /// All of them. What the label of a container asks for must refuse nothing that a person wrote,
    /// and no other container.
    Anything,
}

impl Tolerance {
    /// What is tolerated for one of the listeners of a plan.
    fn of(self, plan: &Plan, listener: &ListenerPlan) -> Self {
        if is_of_container(plan, listener) { Self::Anything } else { self }
    }
}

/// Whether a label asks for a listener.
fn is_of_container(plan: &Plan, listener: &ListenerPlan) -> bool {
    let about = listener.mapping.as_ref().and_then(|id| plan.about.get(id));
    about.is_some_and(|about| about.origin == MappingOrigin::Docker)
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("bind {key}: {}{cure}", describe(source))]
pub struct BindError {
    /// The socket that was wanted.
    pub key: ListenerKey,
    /// What the system said.
    pub source: io::Error,
    /// The holder of the port, or what would help. Empty before [`explained`].
    cure: String,
    /// The holder alone.
    holder: Option<String>,
}

impl BindError {
    fn new(key: &ListenerKey, source: io::Error) -> Self {
        Self { key: key.clone(), source, cure: String::new(), holder: None }
    }

    /// Whether another program has the port.
    pub(super) fn is_taken(&self) -> bool {
        self.errno() == Some(Errno::ADDRINUSE)
    }

    /// The system's number for it.
    pub(super) fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }

    /// What others see of it.
    pub(super) fn trouble(&self) -> Trouble {
        Trouble { error: self.cause(), holder: self.holder.clone(), is_taken: self.is_taken() }
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
            Tolerance::Anything => true,
        }
    }
}

/// Binds every one of `keys`, or reports each that cannot be bound. It also fails if ports are
/// in use and not one listener opens, those of containers aside.
pub(super) fn stage_all(
    keys: &[ListenerKey],
    plan: &Plan,
    tolerance: Tolerance,
    inherited: &Inherited,
) -> Result<Vec<(ListenerKey, Staged)>, Vec<BindError>> {
    let staged = stage_all_in(Place { overlap: Overlap::Nothing, inherited }, keys, plan, tolerance)?;
    let opens = staged.iter().any(|(_, staged)| matches!(staged, Staged::Bound(_)));
    let counts = |key: &ListenerKey| !is_of_container(plan, &plan.listeners[key]);
    let is_taken = |staged: &Staged| matches!(staged, Staged::Waiting(error) if error.is_taken());
    if opens || !staged.iter().any(|(key, staged)| is_taken(staged) && counts(key)) {
        return Ok(staged);
    }
    let errors = staged.into_iter().filter_map(|(key, staged)| match staged {
        Staged::Waiting(error) if counts(&key) => Some(error),
        Staged::Waiting(_) | Staged::Bound(_) => None,
    });
    Err(errors.collect())
}

/// Binds every one of `keys` over own sockets that will be closed. If it fails, those sockets
/// are as they were.
pub(super) fn stage_over(
    old: Vec<(Protocol, Listening)>,
    keys: &[ListenerKey],
    plan: &Plan,
    inherited: &Inherited,
) -> Result<Vec<(ListenerKey, Staged)>, Vec<BindError>> {
    let refused = |key: &ListenerKey, source| BindError::new(key, source);
    let _aside = Aside::of(old).map_err(|error| {
        keys.iter()
            .map(|key| refused(key, io::Error::new(error.kind(), error.to_string())))
            .collect::<Vec<_>>()
    })?;
    let staged =
        stage_all_in(Place { overlap: Overlap::OwnSockets, inherited }, keys, plan, Tolerance::Absent)?;
    // Last, because a TCP socket takes clients from here on.
    for (key, staged) in &staged {
        if let Staged::Bound(bound) = staged {
            settle(key.protocol, &bound.socket).map_err(|error| vec![refused(key, error)])?;
        }
    }
    Ok(staged)
}

/// Looks whether this process may have the addresses of clients, where `plan` needs that.
pub(super) fn may_be_transparent(plan: &Plan) -> Result<(), Vec<BindError>> {
    let mut wanted =
        plan.listeners.iter().filter(|(_, listener)| listener.service.is_transparent()).peekable();
    let Some(Err(error)) = wanted.peek().map(|_| transparent::check()) else { return Ok(()) };
    let refused = |(key, _)| BindError::new(key, io::Error::new(error.kind(), error.to_string()));
    Err(wanted.map(refused).collect())
}

fn stage_all_in(
    place: Place<'_>,
    keys: &[ListenerKey],
    plan: &Plan,
    tolerance: Tolerance,
) -> Result<Vec<(ListenerKey, Staged)>, Vec<BindError>> {
    let (mut staged, mut errors) = (Vec::with_capacity(keys.len()), Vec::new());
    for key in keys {
        let listener = &plan.listeners[key];
        match stage(place, key, listener, Tolerance::Nothing) {
            Ok(socket) => staged.push((key.clone(), socket)),
            Err(error) if error.is_tolerated(tolerance.of(plan, listener)) => {
                staged.push((key.clone(), Staged::Waiting(error)));
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(staged) } else { Err(errors) }
}

/// Where sockets come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// What a new one may overlap with.
    pub(super) overlap: Overlap,
    /// Those that were passed.
    pub(super) inherited: &'a Inherited,
}

/// Takes or binds what `key` asks for.
pub(super) fn stage(
    place: Place<'_>,
    key: &ListenerKey,
    plan: &ListenerPlan,
    tolerance: Tolerance,
) -> Result<Staged, BindError> {
    match kind::stage(&key.addr, (&plan.service, key.protocol), place.overlap, place.inherited) {
        Ok(bound) => Ok(Staged::Bound(bound)),
        Err(source) => {
            let error = BindError::new(key, source);
            if error.is_tolerated(tolerance) { Ok(Staged::Waiting(error)) } else { Err(error) }
        }
    }
}

/// Logs why listeners wait: the first few of each kind, and how many more there are. A range of
/// ports may have thousands.
pub(super) fn say_waiting(errors: &[BindError], plan: &Plan, events: &Events) {
    const NAMED: usize = 10;
    tell_waiting(&errors[..errors.len().min(NAMED)], plan, events);
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

fn tell_waiting(errors: &[BindError], plan: &Plan, events: &Events) {
    for error in errors {
        events.emit(EventKind::ListenerWaiting, || {
            let draft = Draft::new(format_args!("{} does not listen: {}", error.key, error.cause()));
            match plan.listeners.get(&error.key) {
                Some(listener) => draft.mapping(listener.name.clone()),
                None => draft,
            }
        });
    }
}

fn mapping(error: &BindError, plan: &Plan) -> Option<String> {
    plan.listeners.get(&error.key).map(|listener| listener.name.to_string())
}

/// Logs once that the machine has no IPv6, when a listener on every address takes IPv4 only.
pub(super) fn say_ipv4_only(key: &ListenerKey, bound: &Bound, is_said: &mut bool) {
    if bound.ipv4_only && !std::mem::replace(is_said, true) {
        tracing::warn!(
            listen.addr = %key.addr,
            "this machine has no IPv6: listeners on every address take IPv4 only"
        );
    }
}

fn describe(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => "the address is in use".to_owned(),
        Some(Errno::ACCESS | Errno::PERM) => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// The listeners of `keys` whose port another program has, as errors to bind them. It binds
/// nothing.
pub(super) async fn held(keys: Vec<ListenerKey>) -> Vec<BindError> {
    let found = job::run_within(PATIENCE, "portway-holder", move || {
        let holders = holder::find(&keys);
        keys.into_iter().zip(holders).filter_map(|(key, holder)| holder.map(|_| key)).collect::<Vec<_>>()
    });
    let in_use = |key: &ListenerKey| BindError::new(key, Errno::ADDRINUSE.into());
    explained(found.await.unwrap_or_default().iter().map(in_use).collect()).await
}

/// Adds to each of `errors` the holder of the port, or what would help.
pub(super) async fn explained(mut errors: Vec<BindError>) -> Vec<BindError> {
    if errors.is_empty() {
        return errors;
    }
    let causes = errors.iter().map(|error| (error.key.clone(), error.errno()));
    let causes: Vec<(ListenerKey, Option<Errno>)> = causes.collect();
    // Without cures the errors are still true.
    let cures = job::run_within(PATIENCE, "portway-holder", move || cures(&causes)).await.unwrap_or_default();
    for (error, (cure, holder)) in errors.iter_mut().zip(cures) {
        (error.cure, error.holder) = (cure, holder);
    }
    errors
}

/// The cure of each, and the holder of its port.
fn cures(causes: &[(ListenerKey, Option<Errno>)]) -> Vec<(String, Option<String>)> {
    let taken = causes.iter().filter(|(_, error)| *error == Some(Errno::ADDRINUSE));
    let taken: Vec<ListenerKey> = taken.map(|(key, _)| key.clone()).collect();
    let holders = holder::find(&taken);
    let holders: HashMap<&ListenerKey, Holder> =
        taken.iter().zip(holders).filter_map(|(key, holder)| Some((key, holder?))).collect();
    let cured = |(key, error): &(ListenerKey, Option<Errno>)| {
        let holder = holders.get(key);
        (cure(key, *error, holder), holder.map(ToString::to_string))
    };
    causes.iter().map(cured).collect()
}

/// The holder of the port, or what to do.
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
