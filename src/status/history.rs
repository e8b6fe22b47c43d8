//! Rates over time: of each mapping, and of all of them together.
//!
//! Owns the last 15 minutes second by second and the last 24 hours minute by minute ([`History`]).
//! One task samples the totals of the mappings every second ([`History::run`]), from when a window
//! wants it until it does not ([`History::switch`]). Then everything is forgotten. The same pass
//! notes for each live session whether it has moved something, so the data path keeps no time.
//!
//! The task belongs among those of the relay. It takes the locks that sessions take when they start
//! and end, and a thread of lower priority could be stopped while it has one.
//!
//! - A point has 12 bytes. A mapping has 900 and 1440 points after a day, so 28,080 bytes, and the
//!   first [`MOST`] mappings have a history: 7 MiB at most. The others have the rates of the last
//!   second. The history of a mapping is dropped when the mapping leaves the plan.
//! - A rate is what has moved divided by the time that the monotonic clock counted. A sample that
//!   comes late counts for each second that it was late.
//! - A point has the date of the wall clock when it was taken. The clock may jump, and a suspended
//!   machine has no points. So an answer leaves out what is too old, and what lies in the future.

pub(crate) mod record;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use self::record::HistoryRecord;
use super::{rfc3339, view};
use crate::{mapping::MappingId, meter::Moved, supervisor::AllTotals};

/// The mappings that have a history.
const MOST: usize = 256;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// The points second by second.
const SECONDS: usize = 15 * 60;
/// The points minute by minute.
const MINUTES: usize = 24 * 60;
/// How far the date of a point may lie ahead of the wall clock, which is corrected now and then.
const AHEAD: Duration = Duration::from_secs(2);

/// The rates of all mappings. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// `None` while nothing is measured.
    record: Mutex<Option<Record>>,
    /// What another process has measured, until the first sample.
    before: Mutex<Option<HistoryRecord>>,
    is_wanted: watch::Sender<bool>,
}

/// What is read of a mapping: its live sessions, and what they all moved since the start.
#[derive(Clone, Debug)]
struct Reading {
    mapping: MappingId,
    sessions: u32,
    moved: Moved,
}

#[derive(Debug)]
struct Record {
    /// When the last sample was taken.
    sampled: Instant,
    /// The dates of the points, which all series share. A series that is younger lacks the first.
    seconds: VecDeque<SystemTime>,
    minutes: VecDeque<SystemTime>,
    /// The points of this minute so far.
    in_minute: u32,
    all: Series,
    mappings: BTreeMap<MappingId, Series>,
}

/// The points of one mapping, or of all.
#[derive(Debug, Default)]
struct Series {
    /// What had moved at the last sample.
    moved: (u64, u64),
    now: Point,
    /// Whether there was room for its history when it came, or later.
    is_kept: bool,
    minute: Minute,
    seconds: VecDeque<Point>,
    minutes: VecDeque<Point>,
}

/// Bytes a second, and live sessions. A float is exact up to 16 MiB a second, and to a millionth
/// above.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    bytes_in: f32,
    bytes_out: f32,
    sessions: u32,
}

/// The minute that is under way.
#[derive(Debug, Default)]
struct Minute {
    bytes_in: f64,
    bytes_out: f64,
    most: u32,
}

/// Ends the record with the task that makes it.
struct Recording<'a>(&'a History);

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        *self.0.record() = None;
    }
}

impl History {
    /// Says whether a window wants rates.
    pub(crate) fn switch(&self, on: bool) {
        self.0.is_wanted.send_replace(on);
    }

    /// Samples `totals` every second while that is wanted, until the supervisor has gone.
    pub(crate) async fn run(self, totals: watch::Receiver<AllTotals>) {
        let mut is_wanted = self.0.is_wanted.subscribe();
        let mut end = totals.clone();
        let gone = async { while end.changed().await.is_ok() {} };
        tokio::pin!(gone);
        loop {
            tokio::select! {
                () = &mut gone => return,
                wanted = is_wanted.wait_for(|wanted| *wanted) => if wanted.is_err() { return },
            }
            tokio::select! {
                () = &mut gone => return,
                () = self.measure(&totals) => {}
                _ = is_wanted.wait_for(|wanted| !*wanted) => {}
            }
        }
    }

    async fn measure(&self, totals: &watch::Receiver<AllTotals>) {
        let _recording = Recording(self);
        let mut tick = interval(SECOND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            let now = Instant::now();
            let readings = read(totals, now);
            let begin = || self.begin(now, &readings);
            let mut record = self.record();
            let record = record.get_or_insert_with(begin);
            record.sample(now, SystemTime::now(), readings);
        }
    }

    /// What is handed to the next process; `None` while nothing is measured.
    pub(crate) fn snapshot(&self) -> Option<HistoryRecord> {
        self.record().as_ref().map(Record::snapshot)
    }

    /// Goes on with what another process has measured. It belongs before the first sample.
    pub(crate) fn take_over(&self, record: HistoryRecord) {
        *self.0.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }

    /// An empty record, or that of another process.
    fn begin(&self, now: Instant, readings: &[Reading]) -> Record {
        let before = self.0.before.lock().unwrap_or_else(PoisonError::into_inner).take();
        before.map_or_else(|| Record::new(now), |before| Record::taken_over(&before, readings, now))
    }

    /// Whether rates and the time without a byte are measured.
    pub(crate) fn is_on(&self) -> bool {
        self.record().is_some()
    }

    /// Bytes of the last second, from clients to targets and from targets to clients.
    pub(crate) fn rates(&self, mapping: &MappingId) -> Option<(u64, u64)> {
        let record = self.record();
        let Point { bytes_in, bytes_out, .. } = record.as_ref()?.mappings.get(mapping)?.now;
        Some((whole(bytes_in), whole(bytes_out)))
    }

    /// The points of the last `minutes`, of a mapping or of all together: one a second up to 15
    /// minutes, else one a minute.
    pub(crate) fn view(&self, mapping: Option<&MappingId>, minutes: u32) -> view::History {
        self.view_at(mapping, minutes, SystemTime::now())
    }

    fn view_at(&self, mapping: Option<&MappingId>, minutes: u32, date: SystemTime) -> view::History {
        let span = MINUTE * minutes;
        let is_fine = span <= SECOND * SECONDS as u32;
        let interval_ms = super::millis(if is_fine { SECOND } else { MINUTE });
        let name = mapping.map(|id| id.name.to_string());
        let points = self.record().as_ref().map(|record| record.points(mapping, is_fine, (span, date)));
        view::History { mapping: name, interval_ms, points: points.unwrap_or_default() }
    }

    fn record(&self) -> MutexGuard<'_, Option<Record>> {
        // A panic elsewhere costs a point at most.
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(totals: &watch::Receiver<AllTotals>, now: Instant) -> Vec<Reading> {
    // A copy, so that the supervisor can send others meanwhile.
    let all = totals.borrow().clone();
    let reading = |(mapping, totals): (MappingId, Arc<crate::meter::MappingTotals>)| {
        let (live, moved) = totals.sample(now);
        Reading { mapping, sessions: u32::try_from(live).unwrap_or(u32::MAX), moved }
    };
    all.into_iter().map(reading).collect()
}

impl Record {
    fn new(now: Instant) -> Self {
        let (seconds, minutes, mappings) = (VecDeque::new(), VecDeque::new(), BTreeMap::new());
        Self { sampled: now, seconds, minutes, in_minute: 0, all: Series::default(), mappings }
    }

    /// Takes a sample at `now`, on `date`. The first one has no rate.
    fn sample(&mut self, now: Instant, date: SystemTime, readings: Vec<Reading>) {
        let elapsed = now.saturating_duration_since(self.sampled);
        self.sampled = now;
        let there: BTreeSet<_> = readings.iter().map(|reading| &reading.mapping).collect();
        self.mappings.retain(|id, _| there.contains(id));
        let kept = self.mappings.values().filter(|series| series.is_kept).count();
        let mut room = MOST.saturating_sub(kept);
        self.all.now = Point::default();
        for Reading { mapping, sessions, moved } in readings {
            let series = self.mappings.entry(mapping).or_insert_with(|| Series::from(&moved));
            if !series.is_kept && room > 0 {
                (series.is_kept, room) = (true, room - 1);
            }
            series.now = series.rates(&moved, elapsed, sessions);
            self.all.now.add(series.now);
        }
        // Half a second and more is a second.
        let seconds = elapsed.as_millis().saturating_add(500) / 1_000;
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX).min((MINUTES * 60) as u32);
        for left in (0..seconds).rev() {
            self.keep(date.checked_sub(SECOND * left).unwrap_or(date));
        }
    }

    /// Makes a point of the present rates.
    fn keep(&mut self, date: SystemTime) {
        self.in_minute = (self.in_minute + 1) % 60;
        let is_full = self.in_minute == 0;
        push(&mut self.seconds, date, SECONDS);
        if is_full {
            push(&mut self.minutes, date, MINUTES);
        }
        self.all.keep(is_full);
        for series in self.mappings.values_mut().filter(|series| series.is_kept) {
            series.keep(is_full);
        }
    }

    fn points(
        &self,
        mapping: Option<&MappingId>,
        is_fine: bool,
        (span, date): (Duration, SystemTime),
    ) -> Vec<view::Point> {
        let series = match mapping {
            Some(id) => self.mappings.get(id),
            None => Some(&self.all),
        };
        let Some(series) = series else { return Vec::new() };
        let (dates, points) = match is_fine {
            true => (&self.seconds, &series.seconds),
            false => (&self.minutes, &series.minutes),
        };
        let oldest = date.checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH);
        let newest = date + AHEAD;
        let dated = dates.iter().skip(dates.len().saturating_sub(points.len())).zip(points);
        let asked = dated.filter(|(date, _)| **date > oldest && **date <= newest);
        asked.map(|(date, point)| point.view(*date)).collect()
    }
}

impl Series {
    fn from(moved: &Moved) -> Self {
        Self { moved: (moved.bytes_in, moved.bytes_out), ..Self::default() }
    }

    /// What moved since the last sample, by the second.
    fn rates(&mut self, moved: &Moved, elapsed: Duration, sessions: u32) -> Point {
        let (before_in, before_out) = std::mem::replace(&mut self.moved, (moved.bytes_in, moved.bytes_out));
        let rate = |now: u64, before: u64| match elapsed.is_zero() {
            true => 0.0,
            // A mapping that went and came back counts from zero.
            false => (now.saturating_sub(before) as f64 / elapsed.as_secs_f64()) as f32,
        };
        Point {
            bytes_in: rate(moved.bytes_in, before_in),
            bytes_out: rate(moved.bytes_out, before_out),
            sessions,
        }
    }

    fn keep(&mut self, is_full: bool) {
        push(&mut self.seconds, self.now, SECONDS);
        self.minute.bytes_in += f64::from(self.now.bytes_in);
        self.minute.bytes_out += f64::from(self.now.bytes_out);
        self.minute.most = self.minute.most.max(self.now.sessions);
        if is_full {
            let Minute { bytes_in, bytes_out, most } = std::mem::take(&mut self.minute);
            let (bytes_in, bytes_out) = ((bytes_in / 60.0) as f32, (bytes_out / 60.0) as f32);
            push(&mut self.minutes, Point { bytes_in, bytes_out, sessions: most }, MINUTES);
        }
    }
}

impl Point {
    fn add(&mut self, other: Self) {
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.sessions = self.sessions.saturating_add(other.sessions);
    }

    fn view(self, date: SystemTime) -> view::Point {
        view::Point {
            at: rfc3339(date),
            bytes_in: whole(self.bytes_in),
            bytes_out: whole(self.bytes_out),
            sessions: self.sessions.into(),
        }
    }
}

/// A rate as a whole number.
fn whole(rate: f32) -> u64 {
    rate.round() as u64
}

/// Puts the newest in, and the oldest of more than `most` out.
fn push<T>(all: &mut VecDeque<T>, newest: T, most: usize) {
    if all.len() == most {
        all.pop_front();
    }
    all.push_back(newest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::MappingName;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn id(name: &str) -> MappingId {
        MappingId { name: MappingName::new(name).unwrap(), nth: 0 }
    }

    fn reading(name: &str, sessions: u32, bytes_in: u64, bytes_out: u64) -> Reading {
        Reading { mapping: id(name), sessions, moved: Moved { bytes_in, bytes_out, ..Moved::default() } }
    }

    /// A history that is sampled by hand.
    struct Sampled {
        history: History,
        start: Instant,
    }

    impl Sampled {
        fn new() -> Self {
            Self { history: History::default(), start: Instant::now() }
        }

        fn at(&self, clock: Duration, date: Duration, readings: Vec<Reading>) {
            let now = self.start + clock;
            let mut record = self.history.record();
            record.get_or_insert_with(|| Record::new(now)).sample(now, START + date, readings);
        }

        fn points(&self, name: Option<&str>, minutes: u32, date: Duration) -> Vec<(u64, u64, u64)> {
            let mapping = name.map(id);
            let view = self.history.view_at(mapping.as_ref(), minutes, START + date);
            view.points.iter().map(|point| (point.bytes_in, point.bytes_out, point.sessions)).collect()
        }
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_rate_is_what_moved_in_the_last_second_and_all_mappings_add_up() {
        let sampled = Sampled::new();
        let date = secs(1_000_000);
        sampled.at(secs(0), date, vec![reading("a", 1, 500, 0), reading("b", 0, 0, 7)]);
        assert_eq!(sampled.history.rates(&id("a")), Some((0, 0)), "what moved before is not a rate");
        sampled.at(secs(1), date + secs(1), vec![reading("a", 2, 600, 10), reading("b", 3, 0, 7)]);
        assert_eq!(sampled.history.rates(&id("a")), Some((100, 10)));
        assert_eq!(sampled.history.rates(&id("c")), None);
        let late = vec![reading("a", 0, 900, 10), reading("b", 0, 3, 7)];
        sampled.at(secs(4), date + secs(4), late);
        let date = date + secs(4);
        let of_a = [(100, 10, 2), (100, 0, 0), (100, 0, 0), (100, 0, 0)];
        assert_eq!(sampled.points(Some("a"), 15, date), of_a);
        let of_all = [(100, 10, 5), (101, 0, 0), (101, 0, 0), (101, 0, 0)];
        assert_eq!(sampled.points(None, 15, date), of_all);
        assert_eq!(sampled.points(Some("c"), 15, date), []);
        let view = sampled.history.view_at(Some(&id("a")), 1, START + date);
        assert_eq!((view.interval_ms, view.mapping.as_deref()), (1000, Some("a")));
        assert_eq!(view.points[0].at, "1970-01-12T13:46:41.000Z");
    }

    #[test]
    fn a_day_is_kept_minute_by_minute_and_no_more() {
        let sampled = Sampled::new();
        let date = secs(1_000_000);
        let day = 24 * 3600;
        for second in 0..day + 7200 {
            let sessions = u32::from(second % 60 == 30);
            let at = secs(second);
            sampled.at(at, date + at, vec![reading("a", sessions, 60 * second, second / 60 * 120)]);
        }
        let date = date + secs(day + 7199);
        let minutes = sampled.points(Some("a"), 24 * 60, date);
        assert_eq!(minutes.len(), MINUTES);
        assert!(minutes.iter().all(|point| *point == (60, 2, 1)), "{:?}", minutes[0]);
        assert_eq!(sampled.points(None, 15, date).len(), SECONDS);
        assert_eq!(sampled.points(None, 1, date).len(), 60);
        let record = sampled.history.record();
        let series = &record.as_ref().unwrap().mappings[&id("a")];
        let bytes = (series.seconds.len() + series.minutes.len()) * size_of::<Point>();
        assert_eq!(bytes, 28_080);
    }

    #[test]
    fn a_suspend_leaves_a_gap_and_a_clock_that_jumps_hides_what_it_cannot_date() {
        let sampled = Sampled::new();
        let sample = |clock: u64, date: u64| sampled.at(secs(clock), secs(date), vec![reading("a", 1, 0, 0)]);
        (0..=10).for_each(|n| sample(n, 1_000_000 + n));
        // The machine slept for an hour: the monotonic clock did not count it.
        (11..=13).for_each(|n| sample(n, 1_003_600 + n));
        assert_eq!(sampled.points(None, 15, secs(1_003_613)).len(), 3);
        // The clock is put back by a day, and later forward again.
        (14..=15).for_each(|n| sample(n, 917_200 + n));
        assert_eq!(sampled.points(None, 15, secs(917_215)).len(), 2);
        (16..=16).for_each(|n| sample(n, 1_003_600 + n));
        assert_eq!(sampled.points(None, 15, secs(1_003_616)).len(), 4);
        assert_eq!(sampled.points(None, 15, Duration::ZERO).len(), 0);
        // A process that stood still for a month does not take long.
        sample(16 + 30 * 24 * 3600, 1_003_616 + 30 * 24 * 3600);
        assert_eq!(sampled.points(None, 15, secs(1_003_616 + 30 * 24 * 3600)).len(), SECONDS);
    }

    #[test]
    fn a_mapping_that_leaves_the_plan_is_forgotten_and_only_so_many_have_a_history() {
        let sampled = Sampled::new();
        let many = |from: usize, second: u64| {
            let names = (from..2 * MOST).map(|n| format!("m{n:04}"));
            names.map(|name| reading(&name, 0, 10 * second, 0)).collect::<Vec<_>>()
        };
        (0..3).for_each(|second| sampled.at(secs(second), secs(9_000 + second), many(0, second)));
        let kept = |name: &str| sampled.points(Some(name), 15, secs(9_003)).len();
        assert_eq!((kept("m0000"), kept("m0255"), kept("m0256")), (2, 2, 0));
        assert_eq!(sampled.history.rates(&id("m0511")), Some((10, 0)));
        sampled.at(secs(3), secs(9_003), many(MOST, 3));
        assert_eq!((kept("m0000"), kept("m0256")), (0, 1));
        assert_eq!(sampled.history.rates(&id("m0000")), None);
        sampled.at(secs(4), secs(9_004), many(0, 0));
        assert_eq!(sampled.history.rates(&id("m0511")), Some((0, 0)), "it came back, and counts from zero");
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_samples_once_a_second_while_a_window_wants_it_and_ends_with_the_supervisor() {
        let (sender, totals) = watch::channel(vec![(id("a"), Arc::default())]);
        let history = History::default();
        let windows = async {
            let mut points = Vec::new();
            for on in [false, true, false, true] {
                history.switch(on);
                tokio::time::sleep(Duration::from_millis(10_500)).await;
                let same = sender.borrow().clone();
                sender.send_replace(same);
                assert_eq!(history.is_on(), on);
                points.push(history.view(Some(&id("a")), 15).points.len());
            }
            drop(sender);
            points
        };
        let ((), points) = tokio::join!(history.clone().run(totals), windows);
        assert_eq!((points, history.is_on()), (vec![0, 10, 0, 10], false));
    }
}
