//! Grants and taken knocks on disk: restored before the first listener opens, saved when they
//! change and at the end.
//!
//! Owns when that happens and which file it is (`[knock] state`, or `knocks.json` in the directory
//! that systemd gives). Only the owner of a key causes a save, and there is one a second at most.
//! A failure ends nothing: it is logged when it begins, and grants are kept in memory. Between a
//! knock and its save a crash could forget that it was taken; the address inside still binds it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    job,
    policy::{Gate, GateSpec, KnockSnapshot},
    state::{Format, StateError, StateFile},
    supervisor::Handle,
};

/// A file of as many nonces as there can be has a third of this size.
const FORMAT: Format = Format { version: 1, largest: 8 << 20 };
/// What comes within this time after a change is saved with it.
const SETTLE: Duration = Duration::from_millis(100);
/// The least time between two saves.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a file is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a configuration keeps grants.
pub(super) fn state(spec: &GateSpec) -> Option<PathBuf> {
    spec.knock.as_ref()?.state.clone()
}

/// Keeps grants over a restart.
#[derive(Debug)]
pub(super) struct KnockSaver {
    gate: Arc<Gate>,
    store: Mutex<Store>,
}

/// The file, and how saving goes.
#[derive(Debug, Default)]
struct Store {
    path: Option<PathBuf>,
    file: Option<StateFile>,
    has_failed: bool,
    has_left: bool,
}

impl KnockSaver {
    /// Keeps the grants of `gate`.
    pub(super) fn of(gate: &Arc<Gate>) -> Arc<Self> {
        Arc::new(Self { gate: Arc::clone(gate), store: Mutex::default() })
    }

    /// Puts in force what was saved in this file, and uses it from now on.
    pub(super) async fn restore(self: &Arc<Self>, path: Option<PathBuf>) {
        let saver = Arc::clone(self);
        let open = job::run_within(PATIENCE, "portway-knocks", move || saver.store().open(path, &saver.gate));
        if let Err(error) = open.await {
            tracing::warn!(%error, "grants not restored");
        }
    }

    /// Saves whenever something changes, until the supervisor has stopped.
    pub(super) async fn follow(self: Arc<Self>, handle: Handle) {
        let plans = handle.admissions();
        drop(handle);
        self.follow_plans(plans).await;
    }

    async fn follow_plans<P>(self: Arc<Self>, mut plans: watch::Receiver<P>) {
        let mut changes = self.gate.knocks().changes();
        let mut place = self.gate.knocks().state();
        loop {
            tokio::select! {
                Ok(()) = changes.changed() => {
                    sleep(SETTLE).await;
                    changes.mark_unchanged();
                    self.save().await;
                    sleep(INTERVAL - SETTLE).await;
                }
                plan = plans.changed() => {
                    if plan.is_err() {
                        return;
                    }
                    let now = self.gate.knocks().state();
                    if now != place {
                        self.restore(now.clone()).await;
                        place = now;
                        self.save().await;
                    }
                }
            }
        }
    }

    /// Saves everything now.
    pub(super) async fn save(self: &Arc<Self>) {
        let saver = Arc::clone(self);
        let save = move || {
            let snapshot = saver.gate.knocks().snapshot(Instant::now());
            saver.store().save(&snapshot);
        };
        if let Err(error) = job::run_within(PATIENCE, "portway-knocks", save).await {
            tracing::warn!(%error, "grants not saved");
        }
    }

    /// Closes the file: another process keeps the grants.
    pub(super) async fn leave(self: &Arc<Self>) {
        let saver = Arc::clone(self);
        let close = move || *saver.store() = Store { has_left: true, ..Store::default() };
        if let Err(error) = job::run_within(PATIENCE, "portway-knocks", close).await {
            tracing::warn!(%error, "grants not left to the new process");
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn open(&mut self, path: Option<PathBuf>, gate: &Gate) {
        if self.has_left {
            return;
        }
        *self = Self { path: path.clone(), ..Self::default() };
        let Some(path) = path else { return };
        match StateFile::open::<KnockSnapshot>(path, FORMAT) {
            Ok(opened) => {
                match opened.content {
                    Ok(Some(snapshot)) => gate.knocks().restore(snapshot, Instant::now()),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "grants not restored"),
                }
                self.file = Some(opened.file);
            }
            Err(error) => tracing::warn!(%error, "grants not restored"),
        }
    }

    fn save(&mut self, snapshot: &KnockSnapshot) {
        let Some(path) = self.path.clone().filter(|_| !self.has_left) else { return };
        let saved = self.save_in(path, snapshot);
        match saved {
            Ok(()) => self.has_failed = false,
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    let error = format_args!("{error}; grants are kept in memory only");
                    tracing::warn!(%error, "grants not saved");
                }
            }
        }
    }

    fn save_in(&mut self, path: PathBuf, snapshot: &KnockSnapshot) -> Result<(), StateError> {
        if self.file.is_none() {
            self.file = Some(StateFile::open::<KnockSnapshot>(path, FORMAT)?.file);
        }
        self.file.as_mut().map_or(Ok(()), |file| file.save(snapshot))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_saved_within_a_second_and_a_broken_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("knocks.json");
        fs::write(&path, "{").unwrap();
        let gate = Gate::new(SystemTime::now);
        let (saver, plans) = (KnockSaver::of(&gate), watch::Sender::new(()));
        saver.restore(Some(path.clone())).await;
        assert!(!path.exists() && dir.path().join("knocks.json.broken").exists());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(Arc::clone(&saver).follow_plans(plans.subscribe()));
        tokio::task::yield_now().await;
        gate.knocks().restore(KnockSnapshot::default(), Instant::now());
        sleep(INTERVAL).await;
        assert!(fs::read_to_string(&path).unwrap().contains("grants"));
        saver.leave().await;
        fs::remove_file(&path).unwrap();
        saver.save().await;
        assert!(!path.exists(), "another process keeps them");
    }
}
