//! Bans on disk: restored before the first listener opens, saved at the start, when they change and
//! at the end.
//!
//! Owns when that happens; [`store`] owns the files. Files are read and written on a thread that
//! may block, one save at a time.
//!
//! - The save at the start changes nothing; it finds out whether there will be others.
//! - The first ban after a quiet time is saved within [`SETTLE`] and a write. Strangers earn bans
//!   as fast as they like, and must not wear out the disk. So further bans are saved [`INTERVAL`]
//!   after the last save, many at once.
//! - A save that failed is tried again, whether anything changes or not. A failure ends nothing: it
//!   is logged when it begins, once in [`REMIND`] and at the end, and bans are kept in memory.
//!
//! It ends when the supervisor has stopped; the daemon then saves for the last time.

mod store;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use self::store::Store;
use crate::{
    job::{self, Job, JobError},
    policy::{Gate, GateSpec},
    state::Directories,
    supervisor::Handle,
};

/// What comes within this time after a change is saved with it.
const SETTLE: Duration = Duration::from_millis(500);
/// The least time between two saves that changes have caused.
const INTERVAL: Duration = Duration::from_secs(30);
/// When a save that failed is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// How long a file is waited for; its thread runs on.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the log repeats that bans are not saved.
const REMIND: Duration = Duration::from_secs(3600);

/// Keeps the bans of the daemon over a restart.
#[derive(Debug)]
pub(super) struct BanSaver {
    gate: Arc<Gate>,
    /// Locked by the thread that reads or writes: there is one at a time.
    store: Mutex<Store>,
    /// A save that is not waited for any more: no other one begins before its end.
    late: Mutex<Option<Job<bool>>>,
    /// Another process keeps them.
    has_left: AtomicBool,
}

/// Where a configuration keeps bans.
fn state(spec: &GateSpec) -> Option<PathBuf> {
    spec.guard.as_ref()?.state.clone()
}

impl BanSaver {
    /// Keeps the bans of `gate`.
    pub(super) fn of(gate: &Arc<Gate>) -> Arc<Self> {
        let directories = Directories::new(|name| std::env::var_os(name));
        Arc::new(Self {
            gate: Arc::clone(gate),
            store: Mutex::new(Store::new(directories)),
            late: Mutex::default(),
            has_left: AtomicBool::new(false),
        })
    }

    /// Puts the bans in force that were saved for this configuration.
    pub(super) async fn restore(self: &Arc<Self>, spec: &GateSpec) {
        let path = state(spec);
        let saver = Arc::clone(self);
        let load = move || saver.store().move_to(path, saver.gate.guard());
        if let Err(error) = job::run_within(PATIENCE, "portway-bans", load).await {
            // What a late thread still reads counts, too.
            tracing::warn!(%error, "bans not restored");
        }
    }

    /// Keeps the bans that another process has handed over, in the file that it has left.
    pub(super) async fn go_on(self: &Arc<Self>, spec: &GateSpec) {
        let (path, saver) = (state(spec), Arc::clone(self));
        let open = move || saver.store().go_on_with(path);
        if let Err(error) = job::run_within(PATIENCE, "portway-bans", open).await {
            tracing::warn!(%error, "the file of the bans is not there");
        }
    }

    /// Saves bans now and whenever they change, until the supervisor has stopped.
    pub(super) async fn follow(self: Arc<Self>, handle: Handle) {
        let plans = handle.admissions();
        drop(handle);
        self.follow_plans(plans).await;
    }

    async fn follow_plans<P>(self: Arc<Self>, mut plans: watch::Receiver<P>) {
        let mut changes = self.gate.guard().changes();
        let mut place = state(&self.gate.spec());
        let (mut last, mut due) = (None::<Instant>, Some(Instant::now()));
        let mut has_changed = false;
        loop {
            tokio::select! {
                Ok(()) = changes.changed() => {
                    has_changed = true;
                    let soonest = Instant::now() + SETTLE;
                    let soonest = last.map_or(soonest, |last| soonest.max(last + INTERVAL));
                    due = Some(due.map_or(soonest, |due| due.min(soonest)));
                }
                plan = plans.changed() => {
                    if plan.is_err() {
                        return;
                    }
                    let now = state(&self.gate.spec());
                    if now != place {
                        // A reload has moved the bans. What the other file holds counts, too.
                        self.restore(&self.gate.spec()).await;
                        place = now;
                        due = Some(Instant::now());
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    changes.mark_unchanged();
                    if std::mem::take(&mut has_changed) {
                        last = Some(Instant::now());
                    }
                    due = (!self.save(false).await).then(|| Instant::now() + RETRY);
                }
            }
        }
    }

    /// Saves the bans for the last time.
    pub(super) async fn save_last(self: &Arc<Self>) {
        self.save(true).await;
    }

    /// Ends without a further save, and closes the files: another process keeps the bans.
    pub(super) async fn leave(self: &Arc<Self>) {
        self.has_left.store(true, SeqCst);
        let saver = Arc::clone(self);
        // It waits for a save that is under way.
        let close = job::run_within(PATIENCE, "portway-bans", move || saver.store().close());
        if let Err(error) = close.await {
            tracing::warn!(%error, "bans not left to the new process");
        }
    }

    /// Saves the bans, if the configuration names a file for them. `false` where that failed.
    async fn save(self: &Arc<Self>, is_last: bool) -> bool {
        if state(&self.gate.spec()).is_none() {
            return true;
        }
        if self.is_late() {
            return false;
        }
        let saver = Arc::clone(self);
        let saved = match job::start("portway-bans", move || saver.write(is_last)) {
            Ok(mut job) => match timeout(PATIENCE, &mut job).await {
                Ok(saved) => saved,
                Err(_) => {
                    *self.late.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
                    Err(JobError::TimedOut(PATIENCE))
                }
            },
            Err(error) => Err(error),
        };
        saved.unwrap_or_else(|error| {
            tracing::warn!(%error, "bans not saved");
            false
        })
    }

    /// Whether a save that was given up still runs.
    fn is_late(&self) -> bool {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.take_if(|job| job.has_ended());
        late.is_some()
    }

    fn write(&self, is_last: bool) -> bool {
        let mut store = self.store();
        if self.has_left.load(SeqCst) {
            return true;
        }
        store.move_to(state(&self.gate.spec()), self.gate.guard());
        store.save(self.gate.guard(), is_last)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::{IpAddr, Ipv4Addr},
        num::NonZeroU32,
        os::unix::fs::MetadataExt as _,
        path::Path,
    };

    use tokio::{task::JoinSet, time::sleep};

    use super::*;
    use crate::policy::{Entries, GateInput, GuardSpec, Rate};

    const SECOND: Duration = Duration::from_secs(1);

    struct Kept {
        gate: Arc<Gate>,
        saver: Arc<BanSaver>,
        dir: tempfile::TempDir,
        plans: watch::Sender<()>,
        tasks: JoinSet<()>,
    }

    impl Kept {
        /// A saver that follows bans, which are kept in this file of a new directory.
        fn following(file: &str) -> Self {
            let (gate, dir) = (Gate::new(std::time::SystemTime::now), tempfile::tempdir().unwrap());
            let (saver, plans, tasks) = (BanSaver::of(&gate), watch::Sender::new(()), JoinSet::new());
            let mut kept = Self { gate, saver, dir, plans, tasks };
            kept.keep_in(file);
            kept.tasks.spawn(Arc::clone(&kept.saver).follow_plans(kept.plans.subscribe()));
            kept
        }

        fn keep_in(&self, file: &str) {
            let ten = NonZeroU32::new(10).unwrap();
            let refusals = Rate { count: ten, per: SECOND, burst: ten };
            let state = Some(self.path(file));
            let guard = GuardSpec { refusals, ban: 3600 * SECOND, exempt: Entries::default(), state };
            let spec = GateSpec { guard: Some(guard), ..GateSpec::default() };
            self.gate.apply(&GateInput { spec, ..GateInput::default() });
        }

        fn path(&self, file: &str) -> PathBuf {
            self.dir.path().join(file)
        }

        fn ban(&self, n: u32) -> String {
            let ip = Ipv4Addr::from(0xcb00_7100 + n);
            self.gate.guard().trap(IpAddr::V4(ip), Instant::now()).unwrap();
            format!("\"{ip}\"")
        }

        fn holds(&self, file: &str, client: &str) -> bool {
            fs::read_to_string(self.path(file)).is_ok_and(|text| text.contains(client))
        }
    }

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_ban_is_saved_at_once_and_a_flood_of_them_twice_a_minute() {
        let kept = Kept::following("bans.json");
        sleep(SECOND).await;
        let file = kept.path("bans.json");
        let mut before = inode(&file);
        let first = kept.ban(0);
        sleep(SECOND).await;
        assert!(kept.holds("bans.json", &first), "the save at the start does not delay it");

        let mut saves = 0;
        for n in 1..=200 {
            kept.ban(n);
            sleep(SECOND).await;
            // A file that is renamed into the place of another has another inode.
            let now = inode(&file);
            saves += u32::from(std::mem::replace(&mut before, now) != now);
        }
        assert!((6..=8).contains(&saves), "{saves} saves in 200 seconds");
        let last = kept.ban(201);
        sleep(INTERVAL + SECOND).await;
        assert!(kept.holds("bans.json", &last));
        sleep(2 * INTERVAL).await;
        before = inode(&file);
        sleep(10 * INTERVAL).await;
        assert_eq!(inode(&file), before, "nothing changes, nothing is written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_save_that_failed_is_tried_again_without_a_new_ban() {
        let kept = Kept::following("missing/dir/bans.json");
        sleep(SECOND).await;
        let client = kept.ban(1);
        sleep(SECOND).await;
        assert!(!kept.holds("missing/dir/bans.json", &client));
        assert_eq!(kept.saver.store().failures(), 2, "at the start, and for the ban");
        fs::create_dir(kept.path("missing")).unwrap();
        sleep(RETRY).await;
        assert!(kept.holds("missing/dir/bans.json", &client));
        assert_eq!(kept.saver.store().failures(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_that_lasts_is_said_at_its_begin_and_once_an_hour() {
        let kept = Kept::following("missing/dir/bans.json");
        sleep(SECOND).await;
        let said = || kept.saver.store().said().unwrap();
        let begin = said();
        sleep(REMIND - 2 * RETRY).await;
        assert_eq!(said(), begin);
        sleep(3 * RETRY).await;
        assert!(said() >= begin + REMIND);
        let again = said();
        sleep(RETRY).await;
        assert!(!kept.saver.save(false).await);
        assert_eq!(said(), again);
        kept.saver.save_last().await;
        assert!(said() > again, "the end is said in any case");
    }

    #[tokio::test(start_paused = true)]
    async fn bans_that_a_reload_moves_are_saved_there_at_once_with_those_that_were_kept_there() {
        let kept = Kept::following("one.json");
        let client = kept.ban(1);
        sleep(SECOND).await;
        fs::copy(kept.path("one.json"), kept.path("two.json")).unwrap();
        kept.gate.guard().unban([203, 0, 113, 1].into());
        let other = kept.ban(2);
        kept.keep_in("two.json");
        kept.plans.send_replace(());
        sleep(SECOND).await;
        assert!(kept.holds("two.json", &client) && kept.holds("two.json", &other));
        assert!(kept.gate.guard().is_banned([203, 0, 113, 1].into(), Instant::now()).is_some());
    }

    #[tokio::test]
    async fn saves_that_overlap_leave_one_whole_file_with_the_last_ban() {
        let kept = Kept::following("bans.json");
        let mut saves = JoinSet::new();
        for n in 1..=50 {
            kept.ban(n);
            let saver = Arc::clone(&kept.saver);
            saves.spawn(async move { saver.save(n % 2 == 0).await });
        }
        let last = kept.ban(51);
        kept.saver.save_last().await;
        assert!(kept.holds("bans.json", &last));
        assert!(saves.join_all().await.into_iter().all(|saved| saved), "none gets in the way of another");
        assert!(kept.holds("bans.json", &last));
    }
}
