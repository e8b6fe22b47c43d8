//! List files and the database of countries: read again when they change, without a reload.
//!
//! The files are looked at once in [`INTERVAL`], by name (see `watch` for why), if the
//! configuration has any. A change is taken when a second look finds the same, so that a
//! half-written file is not read. A list that is empty or stops within a line, as a stalled
//! download leaves it, is taken after [`PATIENCE`] looks. A good file counts at once, for every
//! mapping, and live sessions without access are cut. A broken or missing file changes nothing: the
//! last good content stays, and one line says so for each change.
//!
//! A reload applies what it has read itself, which may be older than what was taken here meanwhile.
//! So after a reload, all files are read again.
//!
//! It ends when the supervisor has stopped.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::sleep};

use crate::{
    config::{ListFileError, ListRead, read_list},
    job,
    policy::{Countries, Gate, ListError, ListName, ListSpec},
    state::{
        files,
        watch::{FileStamp, FileWatch},
    },
    supervisor::Handle,
    text::clean,
};

const INTERVAL: Duration = Duration::from_millis(500);
/// When it is said that a file does not answer.
const PATIENT: Duration = Duration::from_secs(30);
/// How many looks must find the same where a list seems to be half written.
const PATIENCE: u32 = 4;
/// What was written less than this before a configuration came into force may not be what the
/// configuration read.
const UNSURE: Duration = Duration::from_secs(10);

/// A file that belongs to the gate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Followed {
    List(ListName, PathBuf),
    Countries(PathBuf),
}

/// Follows the files of the gate.
pub(super) async fn follow(handle: Handle) {
    let (lists, plans) = (Lists::of(handle.gate()), handle.admissions());
    drop(handle);
    follow_plans(lists, plans).await;
}

async fn follow_plans<P>(mut lists: Lists, mut plans: watch::Receiver<P>) {
    loop {
        let has_files = lists.look().await;
        tokio::select! {
            () = sleep(INTERVAL), if has_files => {}
            plan = plans.changed() => match plan {
                Ok(()) => lists.known.clear(),
                Err(_) => return,
            },
        }
    }
}

/// The files of a gate.
struct Lists {
    gate: Arc<Gate>,
    known: HashMap<Followed, FileWatch<Option<FileStamp>>>,
}

impl Lists {
    fn of(gate: &Arc<Gate>) -> Self {
        Self { gate: Arc::clone(gate), known: HashMap::new() }
    }

    /// Looks at every file, and takes those that have changed; whether there are any files.
    async fn look(&mut self) -> bool {
        let files = followed(&self.gate);
        self.known.retain(|file, _| files.contains(file));
        if files.is_empty() {
            return false;
        }
        for (file, now) in look(files).await {
            let watch = match self.known.entry(file.clone()) {
                Entry::Occupied(known) => {
                    let watch = known.into_mut();
                    watch.note(now);
                    watch
                }
                Entry::Vacant(place) => place.insert(first_look(now)),
            };
            if watch.has_settled(PATIENCE) || watch.has_settled(2) && file.seems_whole().await {
                // If it is not known whether it has changed, it is only read to be sure.
                let unsure = watch.is_unsure();
                if take(&self.gate, file, unsure).await {
                    watch.take();
                }
            }
        }
        true
    }
}

/// A file that the configuration has just read: what it holds counts, unless it was written at
/// about that time.
fn first_look(now: Option<FileStamp>) -> FileWatch<Option<FileStamp>> {
    let looked = SystemTime::now();
    let unsure = now.is_some_and(|stamp| stamp.changed_within(looked - UNSURE, looked));
    FileWatch::new(now, !unsure)
}

fn followed(gate: &Gate) -> HashSet<Followed> {
    let spec = gate.spec();
    let lists = spec.lists.iter().filter_map(|(name, source)| match source {
        ListSpec::File(path) => Some(Followed::List(name.clone(), path.clone())),
        ListSpec::Inline(_) => None,
    });
    lists.chain(spec.geoip.iter().cloned().map(Followed::Countries)).collect()
}

async fn look(files: HashSet<Followed>) -> Vec<(Followed, Option<FileStamp>)> {
    let look = move || files.into_iter().map(|file| (file.clone(), FileStamp::of(file.path()))).collect();
    // Where the system makes no thread, the next look finds out.
    patiently(look).await.unwrap_or_default()
}

impl Followed {
    fn path(&self) -> &Path {
        match self {
            Self::List(_, path) | Self::Countries(path) => path,
        }
    }

    /// Whether it looks complete. A database that is not complete cannot be read, and is refused
    /// later.
    async fn seems_whole(&self) -> bool {
        let Self::List(_, path) = self else { return true };
        let path = path.clone();
        patiently(move || ends_a_line(&path).unwrap_or(true)).await.unwrap_or(true)
    }
}

/// Whether a file ends with a line break. An empty one does not. What is not a file has no end, and
/// counts as complete.
fn ends_a_line(path: &Path) -> io::Result<bool> {
    let (mut file, metadata) = files::open(path)?;
    if !metadata.is_file() {
        return Ok(true);
    }
    if metadata.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Reads a file and puts it in force, if the configuration still has it; whether that was done,
/// well or not.
async fn take(gate: &Arc<Gate>, file: Followed, unsure: bool) -> bool {
    let gate = Arc::clone(gate);
    let taken = patiently(move || match &file {
        Followed::List(name, path) => match read_list(path) {
            Ok(ListRead { set, doubtful }) if followed(&gate).contains(&file) => {
                let (entries, revision) = (set.len(), gate.revision());
                let before = *revision.borrow();
                gate.replace_list(name, Arc::new(set));
                let is_news = !unsure || *revision.borrow() != before;
                say_list(name, path, entries, is_news);
                if is_news {
                    say_doubtful(name, path, &doubtful);
                }
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
    taken.await.is_some()
}

/// Does this on a thread that may block, and logs if it takes long. `None` if the system makes no
/// thread.
async fn patiently<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let tell = || {
        let after_s = PATIENT.as_secs();
        tracing::warn!(
            after_s,
            "a list or the country database does not answer: lists are not followed meanwhile"
        );
    };
    job::run_or_tell(PATIENT, "portway-lists", work, tell).await.ok()
}

fn say_list(name: &ListName, path: &Path, entries: usize, is_news: bool) {
    let (list, file) = (&name.0, path.display());
    if is_news {
        tracing::info!(%list, %file, entries, "list reloaded");
    } else {
        tracing::debug!(%list, %file, entries, "list read again");
    }
}

/// One line for a file: the first of its entries with bits beyond their prefix, and how many are
/// left out.
fn say_doubtful(name: &ListName, path: &Path, doubtful: &[ListError]) {
    let Some(first) = doubtful.first() else { return };
    let (list, file) = (&name.0, path.display());
    let (line, entry, left_out) = (first.line, clean(&first.message), doubtful.len() - 1);
    tracing::warn!(%list, %file, line, entry, left_out, "list entry has bits beyond its prefix");
}

fn say_broken(name: &ListName, path: &Path, error: &ListFileError) {
    let line = match error {
        ListFileError::Broken(errors) => errors.first().map(|error| error.line),
        ListFileError::Unreadable(_) => None,
    };
    // The text of the line comes from the file.
    let error = clean(&error.to_string());
    tracing::warn!(
        list = %name.0,
        file = %path.display(),
        line,
        error,
        "list not usable; the last good one stays"
    );
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs::{self, OpenOptions},
        net::IpAddr,
    };

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tokio::{
        task::JoinSet,
        time::{Instant, timeout},
    };

    use super::*;
    use crate::policy::{AccessSpec, Admission, Entries, GateInput, GateSpec, IpSet, Policy};

    /// A list in a file, and a mapping that denies its entries.
    struct World {
        dir: tempfile::TempDir,
        gate: Arc<Gate>,
        mapping: Arc<Admission>,
        writes: usize,
    }

    impl World {
        /// The file holds `text`, and the configuration has read it.
        fn new(text: &str) -> Self {
            let (dir, gate) = (tempfile::tempdir().unwrap(), Gate::new(SystemTime::now));
            let deny = Entries { nets: Arc::default(), lists: [name()].into() };
            let policy = Policy { access: AccessSpec { deny, ..AccessSpec::default() }, ..Policy::default() };
            let mapping = Admission::new(&Arc::new(policy), &gate);
            let mut world = Self { dir, gate, mapping, writes: 0 };
            world.write(text);
            world.apply(text);
            world
        }

        /// Writes the file, with another length than ever: the kernel's clock is too coarse to tell
        /// two quick writes apart.
        fn write(&mut self, text: &str) {
            self.writes += 1;
            let comment = if text.is_empty() { String::new() } else { "#".repeat(self.writes * 100) + "\n" };
            fs::write(self.path(), comment + text).unwrap();
        }

        /// A configuration comes into force that has read `text`.
        fn apply(&self, text: &str) {
            let lists = BTreeMap::from([(name(), ListSpec::File(self.path()))]);
            let contents = BTreeMap::from([(name(), Arc::new(IpSet::parse(text).unwrap()))]);
            let spec = GateSpec { lists, ..GateSpec::default() };
            self.gate.apply(&GateInput { spec, lists: contents, countries: None });
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("blocked.txt")
        }

        fn denies(&self, ip: &str) -> bool {
            self.mapping.recheck(ip.parse::<IpAddr>().unwrap(), Instant::now()).is_err()
        }

        /// Looks until `ip` is denied; says how many looks it took.
        async fn looks_until_denied(&self, lists: &mut Lists, ip: &str) -> u32 {
            for looks in 1..10 {
                lists.look().await;
                if self.denies(ip) {
                    return looks;
                }
            }
            panic!("nine looks, and {ip} still enters");
        }
    }

    fn name() -> ListName {
        ListName("blocked".into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_that_has_read_an_older_file_does_not_stay() {
        let mut world = World::new("192.0.2.1\n");
        let (plans, mut task) = (watch::Sender::new(()), JoinSet::new());
        task.spawn(follow_plans(Lists::of(&world.gate), plans.subscribe()));
        sleep(4 * INTERVAL).await;
        assert!(world.denies("192.0.2.1"));
        // A reload reads the file here; then the new content is taken; then the reload comes into
        // force.
        world.write("192.0.2.2\n");
        sleep(4 * INTERVAL).await;
        assert!(world.denies("192.0.2.2") && !world.denies("192.0.2.1"));
        world.apply("192.0.2.1\n");
        plans.send_replace(());
        assert!(world.denies("192.0.2.1"));
        sleep(4 * INTERVAL).await;
        assert!(world.denies("192.0.2.2") && !world.denies("192.0.2.1"), "the file says so");
    }

    #[tokio::test]
    async fn a_pipe_in_the_place_of_a_list_is_not_waited_for() {
        let mut world = World::new("192.0.2.1\n");
        let mut lists = Lists::of(&world.gate);
        lists.look().await;
        fs::remove_file(world.path()).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, world.path(), FileType::Fifo, mode, 0).unwrap();
        for _ in 0..2 * PATIENCE {
            if timeout(Duration::from_secs(10), lists.look()).await.is_err() {
                // The program that opened it can go on, and the runtime can end.
                drop(OpenOptions::new().write(true).open(world.path()).unwrap());
                panic!("the watcher waits for a pipe");
            }
            assert!(world.denies("192.0.2.1"), "the last good list stays");
        }
        fs::remove_file(world.path()).unwrap();
        world.write("192.0.2.2\n");
        world.looks_until_denied(&mut lists, "192.0.2.2").await;
    }

    #[tokio::test]
    async fn a_list_that_stops_within_a_line_has_four_looks_to_go_on() {
        let mut world = World::new("192.0.2.1\n");
        let mut lists = Lists::of(&world.gate);
        for stalled in ["192.0.2.2\n198.51.100.0/2", "192.0.2.2\n198.51.100.0/24"] {
            world.write("192.0.2.1\n");
            world.looks_until_denied(&mut lists, "192.0.2.1").await;
            world.write(stalled);
            for _ in 1..PATIENCE {
                lists.look().await;
                assert!(world.denies("192.0.2.1") && !world.denies("192.0.2.2"), "{stalled:?}");
            }
            world.write("192.0.2.2\n198.51.100.0/24\n");
            assert_eq!(world.looks_until_denied(&mut lists, "192.0.2.2").await, 2, "it is whole now");
        }
        world.write("203.0.113.0/24");
        let looks = world.looks_until_denied(&mut lists, "203.0.113.1").await;
        assert_eq!(looks, PATIENCE, "some programs write no last line break");
        world.write("");
        for _ in 1..PATIENCE {
            lists.look().await;
            assert!(world.denies("203.0.113.1"));
        }
        lists.look().await;
        assert!(!world.denies("203.0.113.1"), "it is meant to be empty");
    }
}
