//! List files and the database of countries: read again when they change, without a reload.
//!
//! They are looked at once in [`INTERVAL`], by name (see `watch` for why), and only while the configuration has any. A
//! change is taken when two looks find the same, so that a half-written file is not read. A good one counts at once,
//! for every mapping, and live sessions of clients who are no longer allowed are cut. One that is broken or gone changes
//! nothing: the last good content stays, and one line says so for each change.
//!
//! It ends when the supervisor has stopped.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{task::spawn_blocking, time::sleep};

use super::watch::{Stamp, stamp, written_within};
use crate::{
    config::{ListFileError, read_list},
    policy::{Countries, Gate, ListName, ListSpec},
    supervisor::Handle,
};

const INTERVAL: Duration = Duration::from_millis(500);
/// What was written less than this before a configuration came into force may not be what the configuration read.
const UNSURE: Duration = Duration::from_secs(10);

/// A file that belongs to the gate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Followed {
    List(ListName, PathBuf),
    Countries(PathBuf),
}

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The stamp of the content that counts, or was found wanting.
    taken: Option<Stamp>,
    /// The stamp at the last look.
    seen: Stamp,
}

/// Follows the files of the gate.
pub(super) async fn follow(handle: Handle) {
    let gate = Arc::clone(handle.gate());
    let mut plans = handle.admissions();
    drop(handle);
    let mut known: HashMap<Followed, Known> = HashMap::new();
    loop {
        let files = followed(&gate);
        known.retain(|file, _| files.contains(file));
        if files.is_empty() {
            if plans.changed().await.is_err() {
                return;
            }
            continue;
        }
        for (file, now) in look(files).await {
            let is_new = !known.contains_key(&file);
            let before = known.entry(file.clone()).or_insert_with(|| Known::first(now));
            let settled = before.seen == now;
            before.seen = now;
            if settled && before.taken != Some(now) {
                // Nobody has changed it as far as we know; it is only read to be sure.
                let unsure = before.taken.is_none() || is_new;
                before.taken = Some(now);
                take(&gate, file, unsure).await;
            }
        }
        tokio::select! {
            () = sleep(INTERVAL) => {}
            plan = plans.changed() => if plan.is_err() {
                return;
            }
        }
    }
}

impl Known {
    /// A file that the configuration has just read: what it holds counts, unless it was written at about that time.
    fn first(now: Stamp) -> Self {
        let looked = SystemTime::now();
        let unsure = now.is_some_and(|written| written_within(written, looked - UNSURE, looked));
        Self { taken: (!unsure).then_some(now), seen: now }
    }
}

fn followed(gate: &Gate) -> HashSet<Followed> {
    let spec = gate.spec();
    let lists = spec.lists.iter().filter_map(|(name, source)| match source {
        ListSpec::File(path) => Some(Followed::List(name.clone(), path.clone())),
        ListSpec::Inline(_) => None,
    });
    lists.chain(spec.geoip.iter().cloned().map(Followed::Countries)).collect()
}

async fn look(files: HashSet<Followed>) -> Vec<(Followed, Stamp)> {
    let look = move || files.into_iter().map(|file| (file.clone(), stamp(file.path()))).collect();
    spawn_blocking(look).await.unwrap_or_default()
}

impl Followed {
    fn path(&self) -> &Path {
        match self {
            Self::List(_, path) | Self::Countries(path) => path,
        }
    }
}

/// Reads a file and puts it in force, if the configuration still has it.
async fn take(gate: &Arc<Gate>, file: Followed, unsure: bool) {
    let gate = Arc::clone(gate);
    let taken = spawn_blocking(move || match &file {
        Followed::List(name, path) => match read_list(path) {
            Ok(set) if followed(&gate).contains(&file) => {
                let (entries, revision) = (set.len(), gate.revision());
                let before = *revision.borrow();
                gate.replace_list(name, Arc::new(set));
                let is_news = !unsure || *revision.borrow() != before;
                say_list(name, path, entries, is_news);
            }
            Ok(_) => {}
            Err(error) => say_broken(name, path, &error),
        },
        Followed::Countries(path) => match Countries::open(path) {
            Ok(countries) if followed(&gate).contains(&file) => {
                gate.replace_countries(Arc::new(countries));
                tracing::info!(file = %path.display(), "country database reloaded");
            }
            Ok(_) => {}
            Err(error) => {
                let file = path.display();
                tracing::warn!(%file, error, "country database not usable; the last good one stays");
            }
        },
    });
    let _ = taken.await;
}

fn say_list(name: &ListName, path: &Path, entries: usize, is_news: bool) {
    let (list, file) = (&name.0, path.display());
    if is_news {
        tracing::info!(%list, %file, entries, "list reloaded");
    } else {
        tracing::debug!(%list, %file, entries, "list read again");
    }
}

fn say_broken(name: &ListName, path: &Path, error: &ListFileError) {
    let line = match error {
        ListFileError::Broken(errors) => errors.first().map(|error| error.line),
        ListFileError::Unreadable(_) => None,
    };
    // What a line says came from whoever writes the file.
    let error: String =
        error.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).take(300).collect();
    tracing::warn!(
        list = %name.0,
        file = %path.display(),
        line,
        error,
        "list not usable; the last good one stays"
    );
}
