//! The managed file: the mappings that were made at run time, and the names that are paused.
//!
//! [`Managed`] is its one writer. Each change is a transaction: read the file, edit it (`edit`),
//! write it whole, ask the supervisor for a reload. Where the reload is refused, the old text is
//! put back, and nothing has changed. A person may edit the file by hand: comments and order stay,
//! and an edit that comes in between is noticed and never overwritten.
//!
//! What another file declares can be paused here, but not changed. A mapping with an `until` is
//! left out of the plan after that time. [`Managed::follow`] asks for the reload then, and takes it
//! out of the file. It ends when the supervisor has stopped.
//!
//! Knows nothing of HTTP. `config::managed` reads the file.

mod edit;

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value};
use tokio::{sync::Mutex, time::sleep};

use crate::{
    config::{MOST_MANAGED, Problem, Problems, default_name},
    events::{Draft, EventKind, Events},
    job::{self, JobError},
    mapping::{MappingName, MappingOrigin},
    state::files,
    supervisor::{Applied, Handle, ReloadError},
};
use edit::Place;

/// How long the file may take to be read and written.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the clock of the wall is trusted: it may jump.
const LOOK: Duration = Duration::from_secs(10);
/// The longest time between two tries to end a mapping whose reload is refused.
const LONGEST_PATIENCE: Duration = Duration::from_secs(600);

/// The managed file of a daemon. Clones share one writer.
#[derive(Clone, Debug)]
pub(crate) struct Managed {
    handle: Handle,
    events: Events,
    /// One change at a time.
    writing: Arc<Mutex<()>>,
}

/// Why a change was not made. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManagedError {
    /// No mapping has this name.
    #[error("no mapping is named \"{0}\"")]
    Unknown(MappingName),
    /// Another file, or the command line, declares the mapping.
    #[error("the mapping \"{name}\" is declared at {place}: change it there, or pause it")]
    DeclaredElsewhere {
        /// Its name.
        name: MappingName,
        /// Where it stands.
        place: String,
    },
    /// The table of the mapping is wrong; each problem has the file `body`.
    #[error("the mapping is wrong: nothing has changed")]
    Body(Vec<Problem>),
    /// The table of the mapping is not one that TOML can have.
    #[error("{0}")]
    Shape(String),
    /// The reload was refused for another reason than the table.
    #[error("{0}; nothing has changed")]
    Refused(Arc<ReloadError>),
    /// No directory can hold the file.
    #[error("no directory can hold the managed file: name a file by `managed` in [api]")]
    NoPlace,
    /// The file was broken by hand.
    #[error("the managed file {}: {error}; mend it by hand", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The file was changed by another program at this moment.
    #[error("the managed file {} was changed by another program meanwhile: try again", .0.display())]
    Changed(PathBuf),
    /// The file cannot be read or written.
    #[error(
        "the managed file {} cannot be written: {error}; let portway write it, or name another by `managed` in [api]",
        path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file system does not answer.
    #[error("write the managed file: {0}")]
    Job(#[from] JobError),
}

/// A written change, which can be taken back.
struct Written {
    path: PathBuf,
    old: Option<String>,
    new: String,
    /// Where the table that was put stands in the new text.
    table: Option<Place>,
}

/// An edit of the text of the file. It says where it put a table, if it did.
type Edit = Box<dyn FnOnce(&str) -> Result<(String, Option<Place>), EditError> + Send>;

/// Why an edit was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum EditError {
    /// The text is not one that can be edited.
    #[error("{0}")]
    Broken(String),
    /// The table is not one that TOML can have.
    #[error("{0}")]
    Shape(String),
    /// The mapping does not stand there.
    #[error("it does not stand there")]
    Missing,
}

impl Managed {
    /// The managed file of the configuration that runs.
    pub(crate) fn new(handle: Handle, events: Events) -> Self {
        Self { handle, events, writing: Arc::default() }
    }

    /// The default name of a mapping with this publish spec. `None` where it cannot be read.
    pub(crate) fn default_name(spec: &str) -> Option<MappingName> {
        default_name(spec)
    }

    /// Adds a mapping, or changes it as a whole. `table` has its keys, as TOML would.
    ///
    /// # Errors
    /// [`ManagedError`]; then nothing has changed.
    pub(crate) async fn put(
        &self,
        name: &MappingName,
        table: Map<String, Value>,
    ) -> Result<Applied, ManagedError> {
        self.refuse_declared_elsewhere(name)?;
        let owned = name.clone();
        let edit =
            move |text: &str| edit::put(text, owned.as_str(), &table).map(|(text, at)| (text, Some(at)));
        let applied = self.change(name, Box::new(edit)).await?;
        self.tell(EventKind::MappingAdded, name, "mapping added");
        Ok(applied)
    }

    /// Removes a mapping.
    ///
    /// # Errors
    /// [`ManagedError`]; then nothing has changed.
    pub(crate) async fn remove(&self, name: &MappingName) -> Result<Applied, ManagedError> {
        self.refuse_declared_elsewhere(name)?;
        let owned = name.clone();
        let edit = move |text: &str| edit::remove(text, owned.as_str()).map(|text| (text, None));
        let applied = self.change(name, Box::new(edit)).await?;
        self.tell(EventKind::MappingRemoved, name, "mapping removed");
        Ok(applied)
    }

    /// Closes the listeners of a mapping of any file until it is resumed. Its sessions have the
    /// grace. A restart keeps it paused.
    ///
    /// # Errors
    /// [`ManagedError`]; then nothing has changed.
    pub(crate) async fn pause(&self, name: &MappingName) -> Result<Applied, ManagedError> {
        self.set_paused(name, true).await
    }

    /// Opens the listeners of a paused mapping again.
    ///
    /// # Errors
    /// [`ManagedError`]; then nothing has changed.
    pub(crate) async fn resume(&self, name: &MappingName) -> Result<Applied, ManagedError> {
        self.set_paused(name, false).await
    }

    async fn set_paused(&self, name: &MappingName, paused: bool) -> Result<Applied, ManagedError> {
        let roster = self.handle.roster().borrow().clone();
        if !roster.plan.about.keys().any(|id| id.name == *name) {
            return Err(ManagedError::Unknown(name.clone()));
        }
        let owned = name.clone();
        let edit = move |text: &str| edit::pause(text, owned.as_str(), paused).map(|text| (text, None));
        let applied = self.change(name, Box::new(edit)).await?;
        let (kind, message) = if paused {
            (EventKind::MappingPaused, "mapping paused")
        } else {
            (EventKind::MappingResumed, "mapping resumed")
        };
        self.tell(kind, name, message);
        Ok(applied)
    }

    fn tell(&self, kind: EventKind, name: &MappingName, message: &'static str) {
        tracing::info!(mapping = %name, "{message}");
        self.events.emit(kind, || Draft::new(message).mapping(name.clone()));
    }

    fn refuse_declared_elsewhere(&self, name: &MappingName) -> Result<(), ManagedError> {
        let roster = self.handle.roster().borrow().clone();
        let about = roster.plan.about.iter().find(|(id, _)| id.name == *name).map(|(_, about)| about);
        match about.filter(|about| about.origin != MappingOrigin::Managed) {
            Some(about) => {
                Err(ManagedError::DeclaredElsewhere { name: name.clone(), place: about.place.clone() })
            }
            None => Ok(()),
        }
    }

    /// Edits the file and reloads; takes the edit back where the reload is refused.
    async fn change(&self, name: &MappingName, edit: Edit) -> Result<Applied, ManagedError> {
        let writing = self.writing.lock().await;
        let path = self.handle.settings().borrow().api.managed.clone().ok_or(ManagedError::NoPlace)?;
        let written = job::run_within(LIMIT, "portway-managed", move || write(&path, edit)).await?;
        let written = written.map_err(|error| match error {
            WriteError::Edit(_, EditError::Missing) => ManagedError::Unknown(name.clone()),
            WriteError::Edit(path, EditError::Broken(error)) => ManagedError::Broken { path, error },
            WriteError::Edit(_, EditError::Shape(message)) => ManagedError::Shape(message),
            WriteError::Changed(path) => ManagedError::Changed(path),
            WriteError::Io(path, error) => ManagedError::Unwritable { path, error },
        })?;
        let refused = match self.handle.reload().await {
            Ok(applied) => return Ok(applied),
            Err(error) => error,
        };
        let error = explained(&refused, &written);
        let path = written.path.clone();
        let restored = job::run_within(LIMIT, "portway-managed", move || restore(&written)).await;
        if let Err(error) = restored.map_err(io::Error::other).and_then(|restored| restored) {
            tracing::error!(file = %path.display(), %error, "managed file not restored");
        }
        drop(writing);
        Err(error)
    }

    /// Ends each mapping at its time, until the supervisor has stopped.
    pub(crate) async fn follow(self) {
        let mut roster = self.handle.roster();
        let mut patience = LOOK;
        loop {
            let next = {
                let roster = roster.borrow_and_update();
                roster.plan.about.values().filter_map(|about| about.until).min()
            };
            let Some(until) = next else {
                if roster.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            if left.is_zero() {
                match self.end_overdue().await {
                    Ok(()) => patience = LOOK,
                    Err(error) if matches!(*error, ReloadError::Stopping) => return,
                    Err(_) => {
                        sleep(patience).await;
                        patience = (patience * 2).min(LONGEST_PATIENCE);
                    }
                }
                continue;
            }
            tokio::select! {
                () = sleep(left.min(LOOK)) => {}
                changed = roster.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Takes the mappings whose time is over out of the file, and reloads. The plan leaves them out
    /// also where the file cannot be written.
    async fn end_overdue(&self) -> Result<(), Arc<ReloadError>> {
        let _writing = self.writing.lock().await;
        let path = self.handle.settings().borrow().api.managed.clone();
        if let Some(path) = path {
            let now = SystemTime::now();
            let edit: Edit = Box::new(move |text| edit::prune(text, now).map(|text| (text, None)));
            let pruned = job::run_within(LIMIT, "portway-managed", move || write(&path, edit)).await;
            let error = match pruned {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = error {
                tracing::warn!(error, "mapping ended, but not removed from the managed file");
            }
        }
        self.handle.reload().await.map(drop)
    }
}

/// Why the file was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("{}: {_1}", _0.display())]
    Edit(PathBuf, EditError),
    #[error("{} was changed meanwhile", _0.display())]
    Changed(PathBuf),
    #[error("{}: {_1}", _0.display())]
    Io(PathBuf, io::Error),
}

/// Reads the file, edits it and writes it. Blocks.
fn write(path: &Path, edit: Edit) -> Result<Written, WriteError> {
    // A link stays one: its file is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let failed = |error| WriteError::Io(path.clone(), error);
    let old = read(&path).map_err(failed)?;
    let (new, table) =
        edit(old.as_deref().unwrap_or_default()).map_err(|error| WriteError::Edit(path.clone(), error))?;
    if old.as_deref() != Some(&new) {
        if read(&path).map_err(failed)? != old {
            return Err(WriteError::Changed(path));
        }
        replace(&path, &new).map_err(failed)?;
    }
    Ok(Written { path, old, new, table })
}

/// Puts the old text back, unless another program has changed the file since. Blocks.
fn restore(written: &Written) -> io::Result<()> {
    let Written { path, old, new, .. } = written;
    if read(path)?.as_ref() != Some(new) {
        return Ok(());
    }
    match old {
        Some(old) if old == new => Ok(()),
        Some(old) => replace(path, old),
        None => fs::remove_file(path),
    }
}

/// The text of the file; `None` where it does not exist.
fn read(path: &Path) -> io::Result<Option<String>> {
    match files::read_text(path, MOST_MANAGED) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the file, with the mode that it had. A file without a right to write stays as it is:
/// its owner meant that.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    const GROUP: u32 = 0o660;
    let mode = fs::metadata(path).ok().map(|metadata| metadata.permissions().mode());
    if mode.is_some_and(|mode| mode & 0o222 == 0) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is read-only"));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(files::directory(path))?;
    files::replace(path, text.as_bytes())?;
    match mode.map(|mode| mode & GROUP).filter(|mode| *mode != 0o600) {
        Some(mode) => fs::set_permissions(path, Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// Why the reload after a change was refused: problems of the table that was put have their place
/// in it.
fn explained(refused: &Arc<ReloadError>, written: &Written) -> ManagedError {
    if let (ReloadError::Config(problems), Some(table)) = (&**refused, &written.table) {
        let of_table = of_body(problems, &written.path, table);
        if !of_table.is_empty() {
            return ManagedError::Body(of_table);
        }
    }
    ManagedError::Refused(Arc::clone(refused))
}

/// The problems in a table of the file, with their places in it.
fn of_body(problems: &Problems, path: &Path, table: &Place) -> Vec<Problem> {
    let file = path.display().to_string();
    let is_in_table = |problem: &&Problem| {
        // The configuration names the file as it is written there.
        let is_same =
            problem.file == file || Path::new(&problem.file).canonicalize().is_ok_and(|p| p == path);
        is_same && table.has_line(problem.line)
    };
    let moved = |problem: &Problem| {
        let mut moved = problem.clone();
        moved.file = "body".to_owned();
        moved.line = problem.line - table.first + 1;
        moved
    };
    problems.iter().filter(is_in_table).map(moved).collect()
}

#[cfg(test)]
mod tests;
