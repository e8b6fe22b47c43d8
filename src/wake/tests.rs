use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, advance, sleep},
};
use tokio_util::task::TaskTracker;

use super::{
    Start, StartError, State, WakeSpec, Waker, Wakers,
    engine::Engine,
    registry::Place,
    starter::{Call, Starter},
    waker::Unreached,
};
use crate::{
    events::Events,
    mapping::{Host, MappingName, PortSpan, Protocol, TargetAddr},
};

const SECOND: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(60);
const STOP_AFTER: Duration = Duration::from_secs(900);

/// A target that is started by hand.
#[derive(Debug, Default)]
pub(super) struct Fake {
    /// What the next starts say; after these they work.
    script: Mutex<VecDeque<&'static str>>,
    /// How long a start and a stop take.
    takes: Mutex<Duration>,
    /// When it takes clients.
    up_at: Mutex<Option<Instant>>,
    /// How long after its start it takes clients.
    boot: Mutex<Duration>,
    starts: AtomicUsize,
    stops: AtomicUsize,
    stop_fails: AtomicUsize,
    dials: AtomicUsize,
}

impl Fake {
    pub(super) async fn start(&self, _: &Call) -> Result<(), String> {
        self.starts.fetch_add(1, SeqCst);
        let takes = *self.takes.lock().unwrap();
        sleep(takes).await;
        if let Some(error) = self.script.lock().unwrap().pop_front() {
            return Err(error.to_owned());
        }
        let boot = *self.boot.lock().unwrap();
        self.up_at.lock().unwrap().get_or_insert(Instant::now() + boot);
        Ok(())
    }

    pub(super) async fn stop(&self) -> Result<(), String> {
        let takes = *self.takes.lock().unwrap();
        sleep(takes).await;
        self.stops.fetch_add(1, SeqCst);
        if self.stop_fails.load(SeqCst) > 0 {
            self.stop_fails.fetch_sub(1, SeqCst);
            return Err("it does not want to".to_owned());
        }
        *self.up_at.lock().unwrap() = None;
        Ok(())
    }

    async fn dial(&self) -> Result<&'static str, &'static str> {
        self.dials.fetch_add(1, SeqCst);
        let up_at = *self.up_at.lock().unwrap();
        match up_at {
            Some(at) if at <= Instant::now() => Ok("connected"),
            _ => Err("refused"),
        }
    }

    /// Starts and stops so far.
    fn counts(&self) -> (usize, usize) {
        (self.starts.load(SeqCst), self.stops.load(SeqCst))
    }

    fn crash(&self) {
        *self.up_at.lock().unwrap() = None;
    }

    fn runs_already(&self) {
        *self.up_at.lock().unwrap() = Some(Instant::now());
    }
}

fn name() -> MappingName {
    MappingName::new("game").unwrap()
}

/// A waker of a fake whose start takes `takes`, and that is up `boot` later.
fn waker(takes: Duration, boot: Duration) -> (Waker, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    *fake.takes.lock().unwrap() = takes;
    *fake.boot.lock().unwrap() = boot;
    let call = Call { mapping: name(), host: None, target: "127.0.0.1:1".into() };
    let engine = Engine::new(Starter::fake(Arc::clone(&fake)), call, TaskTracker::new(), Events::default());
    let start = Start::Machine([0; 6]);
    let spec = WakeSpec { start, wait: WAIT, stop_after: Some(STOP_AFTER) };
    (Waker { engine: Arc::new(engine), spec: Arc::new(spec) }, fake)
}

async fn reach(waker: &Waker, fake: &Fake) -> Result<&'static str, Unreached<&'static str>> {
    waker.reach(Instant::now(), || fake.dial()).await
}

#[tokio::test(start_paused = true)]
async fn a_target_that_runs_is_not_started() {
    let (waker, fake) = waker(SECOND, SECOND);
    fake.runs_already();
    assert_eq!(waker.state(), State::Asleep);
    let _awake = waker.enter();
    assert_eq!(reach(&waker, &fake).await.unwrap(), "connected");
    assert_eq!((fake.counts(), waker.state()), ((0, 0), State::Running));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_clients_are_one_start_and_all_of_them_get_through() {
    let (waker, fake) = waker(2 * SECOND, 30 * SECOND);
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        let (waker, fake) = (waker.clone(), Arc::clone(&fake));
        clients.spawn(async move {
            let _awake = waker.enter();
            reach(&waker, &fake).await.map(|_| Instant::now())
        });
    }
    sleep(SECOND).await;
    assert_eq!(waker.state(), State::Starting { since: began });
    let reached: Vec<Instant> = clients.join_all().await.into_iter().map(Result::unwrap).collect();
    let took: Vec<Duration> = reached.iter().map(|at| *at - began).collect();
    assert_eq!(fake.counts().0, 1);
    assert!(took.iter().all(|took| (32 * SECOND..34 * SECOND).contains(took)), "{took:?}");
    let dials = fake.dials.load(SeqCst);
    assert!(dials < 6_000, "{dials} dials in 32 s");
    assert_eq!(waker.state(), State::Running);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_clients_dial_no_more_often_than_a_hundred() {
    let (waker, fake) = waker(SECOND, 30 * SECOND);
    let mut clients = JoinSet::new();
    for _ in 0..1_000 {
        let (waker, fake) = (waker.clone(), Arc::clone(&fake));
        clients.spawn(async move { reach(&waker, &fake).await.map(|_| ()) });
    }
    clients.join_all().await.into_iter().for_each(|reached| reached.unwrap());
    let dials = fake.dials.load(SeqCst);
    assert!(dials < 11_000, "{dials} dials in 31 s");
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_the_error_of_all_who_wait_and_is_repeated_later_and_later() {
    let (waker, fake) = waker(SECOND, Duration::ZERO);
    fake.script.lock().unwrap().extend(["no such unit"; 9]);
    let mut clients = JoinSet::new();
    for _ in 0..3 {
        let (waker, fake) = (waker.clone(), Arc::clone(&fake));
        clients.spawn(async move { reach(&waker, &fake).await.unwrap_err().to_string() });
    }
    for said in clients.join_all().await {
        assert_eq!(said, "fake: no such unit (before that: refused)");
    }
    assert_eq!(fake.counts().0, 1);
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        let State::Failed { next_try, .. } = waker.state() else { panic!("{:?}", waker.state()) };
        assert_eq!(next_try - Instant::now(), pause * SECOND);
        let starts = fake.counts().0;
        let Err(Unreached::NotStarted { .. }) = reach(&waker, &fake).await else { panic!("started") };
        assert_eq!(fake.counts().0, starts, "not before its time");
        advance(pause * SECOND).await;
        let Err(Unreached::NotStarted { .. }) = reach(&waker, &fake).await else { panic!("started") };
        assert_eq!(fake.counts().0, starts + 1);
    }
    advance(60 * SECOND).await;
    reach(&waker, &fake).await.unwrap();
    fake.crash();
    fake.script.lock().unwrap().push_back("no");
    reach(&waker, &fake).await.unwrap_err();
    let State::Failed { next_try, .. } = waker.state() else { panic!("{:?}", waker.state()) };
    assert_eq!(next_try - Instant::now(), SECOND, "a session that got through ends the row");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_come_up_in_time_is_an_error_and_is_started_again_later() {
    let (waker, fake) = waker(SECOND, 100 * SECOND);
    let began = Instant::now();
    let error = reach(&waker, &fake).await.unwrap_err();
    assert_eq!(began.elapsed(), WAIT);
    let Unreached::NotInTime { start: StartError::NotReached { limit: WAIT, .. }, .. } = error else {
        panic!("{error}")
    };
    assert!(error.to_string().ends_with("raise `wait` if it needs longer: refused"), "{error}");
    assert!(matches!(waker.state(), State::Failed { .. }));
    advance(2 * SECOND).await;
    reach(&waker, &fake).await.unwrap();
    assert_eq!(fake.counts().0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_late_has_the_whole_time() {
    let (waker, fake) = waker(SECOND, 100 * SECOND);
    let late = async {
        sleep(50 * SECOND).await;
        reach(&waker, &fake).await
    };
    let (first, late) = tokio::join!(reach(&waker, &fake), late);
    assert!(matches!(first, Err(Unreached::NotInTime { .. })));
    late.unwrap();
    assert_eq!((fake.counts().0, waker.state()), (1, State::Running));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_no_start() {
    let (waker, fake) = waker(5 * SECOND, 20 * SECOND);
    let awake = waker.enter();
    tokio::time::timeout(SECOND, reach(&waker, &fake)).await.unwrap_err();
    drop(awake);
    assert!(matches!(waker.state(), State::Starting { .. }));
    sleep(WAIT).await;
    assert_eq!((fake.counts(), waker.state()), ((1, 0), State::Running));
    reach(&waker, &fake).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_started_and_not_used_is_stopped_too() {
    let (waker, fake) = waker(5 * SECOND, 20 * SECOND);
    let awake = waker.enter();
    tokio::time::timeout(SECOND, reach(&waker, &fake)).await.unwrap_err();
    drop(awake);
    sleep(WAIT + STOP_AFTER - SECOND).await;
    assert_eq!(fake.counts(), (1, 0));
    sleep(10 * SECOND).await;
    assert_eq!((fake.counts(), waker.state()), ((1, 1), State::Asleep));
}

#[tokio::test(start_paused = true)]
async fn the_stop_comes_after_the_last_session_and_never_while_one_lives() {
    let (waker, fake) = waker(SECOND, SECOND);
    let (first, second) = (waker.enter(), waker.enter());
    reach(&waker, &fake).await.unwrap();
    drop(first);
    sleep(2 * STOP_AFTER).await;
    assert_eq!(fake.counts(), (1, 0));
    drop(second);
    sleep(STOP_AFTER - SECOND).await;
    let third = waker.enter();
    sleep(2 * STOP_AFTER).await;
    drop(third);
    sleep(STOP_AFTER - SECOND).await;
    assert_eq!(fake.counts(), (1, 0));
    sleep(3 * SECOND).await;
    assert_eq!((fake.counts(), waker.state()), ((1, 1), State::Asleep));
    sleep(9 * STOP_AFTER).await;
    assert_eq!(fake.counts(), (1, 1), "it is stopped once");
}

#[tokio::test(start_paused = true)]
async fn sessions_that_come_and_go_have_one_watch() {
    let (waker, fake) = waker(SECOND, SECOND);
    drop(waker.enter());
    fake.runs_already();
    for _ in 0..10_000 {
        let _awake = waker.enter();
        reach(&waker, &fake).await.unwrap();
        advance(Duration::from_millis(10)).await;
    }
    assert_eq!(waker.engine.tasks_running(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_during_a_stop_waits_for_its_end_and_starts_again() {
    let (waker, fake) = waker(20 * SECOND, SECOND);
    let awake = waker.enter();
    reach(&waker, &fake).await.unwrap();
    drop(awake);
    sleep(STOP_AFTER + SECOND).await;
    assert_eq!(waker.state(), State::Stopping);
    let dials = fake.dials.load(SeqCst);
    let came = Instant::now();
    let _awake = waker.enter();
    let client = async {
        reach(&waker, &fake).await.unwrap();
        came.elapsed()
    };
    let dials_meanwhile = async {
        sleep(18 * SECOND).await;
        fake.dials.load(SeqCst) - dials
    };
    let (took, meanwhile) = tokio::join!(client, dials_meanwhile);
    assert_eq!(meanwhile, 0, "what is being stopped is not dialled");
    assert!((40 * SECOND..42 * SECOND).contains(&took), "{took:?}: the rest of the stop, and a start");
    assert_eq!((fake.counts(), waker.state()), ((2, 1), State::Running));
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_fails_is_tried_again_and_no_more_often_than_once_a_minute() {
    let (waker, fake) = waker(SECOND, SECOND);
    let spec = WakeSpec { stop_after: Some(SECOND), ..WakeSpec::clone(&waker.spec) };
    let waker = Waker { spec: Arc::new(spec), ..waker };
    fake.stop_fails.store(1, SeqCst);
    let awake = waker.enter();
    reach(&waker, &fake).await.unwrap();
    drop(awake);
    sleep(30 * SECOND).await;
    assert_eq!((fake.counts(), waker.state()), ((1, 1), State::Running));
    sleep(40 * SECOND).await;
    assert_eq!((fake.counts(), waker.state()), ((1, 2), State::Asleep));
}

#[tokio::test(start_paused = true)]
async fn what_carried_no_session_and_was_not_started_here_is_not_stopped() {
    let (waker, fake) = waker(SECOND, SECOND);
    fake.runs_already();
    drop(waker.enter());
    sleep(2 * STOP_AFTER).await;
    assert_eq!(fake.counts(), (0, 0));
    let awake = waker.enter();
    reach(&waker, &fake).await.unwrap();
    drop(awake);
    sleep(2 * STOP_AFTER).await;
    assert_eq!(fake.counts(), (0, 1), "it has carried a session now");
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_a_reload_takes_away_leaves_its_target_running() {
    let (waker, fake) = waker(SECOND, SECOND);
    let awake = waker.enter();
    reach(&waker, &fake).await.unwrap();
    drop(awake);
    waker.engine.plan(false);
    sleep(2 * STOP_AFTER).await;
    assert_eq!((fake.counts(), waker.state()), ((1, 0), State::Running));
    waker.engine.plan(true);
    sleep(STOP_AFTER - SECOND).await;
    assert_eq!(fake.counts(), (1, 0), "it is back, and has its whole time");
    sleep(3 * SECOND).await;
    assert_eq!(fake.counts(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_crashed_is_started_again_once() {
    let (waker, fake) = waker(SECOND, 5 * SECOND);
    let _awake = waker.enter();
    reach(&waker, &fake).await.unwrap();
    fake.crash();
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let (waker, fake) = (waker.clone(), Arc::clone(&fake));
        clients.spawn(async move { reach(&waker, &fake).await.map(drop) });
    }
    clients.join_all().await.into_iter().for_each(Result::unwrap);
    assert_eq!(fake.counts().0, 2);
}

#[tokio::test(start_paused = true)]
async fn flows_start_a_target_without_a_dial_and_once() {
    let (waker, fake) = waker(3 * SECOND, SECOND);
    let began = Instant::now();
    let (one, other) = tokio::join!(waker.start(), waker.start());
    one.unwrap();
    other.unwrap();
    assert_eq!((began.elapsed(), fake.counts().0), (3 * SECOND, 1));
    waker.reached();
    waker.start().await.unwrap();
    assert_eq!((fake.counts().0, waker.state()), (1, State::Running));
    waker.lost();
    waker.start().await.unwrap();
    assert_eq!(fake.counts().0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_player_who_is_answered_at_once_starts_the_target_and_does_not_wait() {
    let (waker, fake) = waker(SECOND, 20 * SECOND);
    let began = Instant::now();
    assert_eq!(waker.start_soon(), State::Starting { since: began });
    assert_eq!(waker.start_soon(), State::Starting { since: began });
    sleep(25 * SECOND).await;
    reach(&waker, &fake).await.unwrap();
    assert_eq!(fake.counts().0, 1);
}

fn machine(last: u8, wait: Duration) -> Arc<WakeSpec> {
    Arc::new(WakeSpec { start: Start::Machine([2, 0, 0, 0, 0, last]), wait, stop_after: None })
}

#[tokio::test]
async fn what_is_the_same_is_one_and_a_command_belongs_to_its_mapping_and_name() {
    let wakers = Wakers::new(Events::default());
    let target = TargetAddr { host: Host::Ip([127, 0, 0, 1].into(), None), port: 1.try_into().unwrap() };
    let other = MappingName::new("other").unwrap();
    let game = name();
    let place = |mapping, host| Place { mapping, host, target: &target };
    let of = |spec: &Arc<WakeSpec>, mapping, host| wakers.of(spec, place(mapping, host)).engine;
    let same = |a: Arc<Engine>, b: Arc<Engine>| Arc::ptr_eq(&a, &b);
    let unit = machine(1, WAIT);
    assert!(same(of(&unit, &game, None), of(&machine(1, SECOND), &other, Some("a"))));
    assert!(!same(of(&unit, &game, None), of(&machine(2, WAIT), &game, None)));
    let port = PortSpan::single(25565.try_into().unwrap());
    let start: Arc<[String]> = ["start".to_owned()].into();
    let start = Start::Command { start, stop: None };
    let command = Arc::new(WakeSpec { start, wait: WAIT, stop_after: None });
    assert!(same(of(&command, &game, None), of(&command, &game, None)));
    assert!(!same(of(&command, &game, None), of(&command, &other, None)));
    assert!(!same(of(&command, &game, Some("a")), of(&command, &game, Some("b"))));
    let [tcp, udp] = [Protocol::Tcp, Protocol::Udp].map(|protocol| MappingName::default_for(port, protocol));
    assert!(same(of(&command, &tcp, None), of(&command, &udp, None)), "one mapping of both protocols");
    assert_eq!(wakers.shown().len(), 7);

    let session = of(&unit, &game, None);
    wakers.keep([(&other, &*command)]);
    let left: Vec<_> = wakers.shown().iter().map(|shown| shown.what.to_string()).collect();
    assert_eq!(left, ["machine 02:00:00:00:00:01", "command start"], "and what a session uses");
    wakers.keep([(&game, &*unit)]);
    assert!(same(of(&unit, &game, None), session), "it is the same when it comes back");
}

/// The same thing in the next process.
fn next(waker: &Waker, fake: &Arc<Fake>) -> Waker {
    let call = waker.engine.call().clone();
    let engine = Engine::new(Starter::fake(Arc::clone(fake)), call, TaskTracker::new(), Events::default());
    let next = Waker { engine: Arc::new(engine), spec: Arc::clone(&waker.spec) };
    let record = waker.engine.look(|ledger| ledger.snapshot(Instant::now())).unwrap();
    let json = serde_json::to_string(&record).unwrap();
    next.engine.take_over(serde_json::from_str(&json).unwrap(), WAIT);
    next
}

#[tokio::test(start_paused = true)]
async fn what_one_process_started_the_next_one_stops_when_its_time_comes() {
    let (before, fake) = waker(SECOND, SECOND);
    let awake = before.enter();
    reach(&before, &fake).await.unwrap();
    let next = next(&before, &fake);
    let taken = next.enter();
    std::mem::forget(awake);
    sleep(2 * STOP_AFTER).await;
    assert_eq!((fake.counts(), next.state()), ((1, 0), State::Running), "a session was handed over");
    drop(taken);
    sleep(STOP_AFTER / 3).await;
    let third = self::next(&next, &fake);
    // Its process ends.
    std::mem::forget(next.enter());
    sleep(STOP_AFTER * 2 / 3 - SECOND).await;
    assert_eq!(fake.counts(), (1, 0));
    sleep(2 * SECOND + SECOND).await;
    assert_eq!((fake.counts(), third.state()), ((1, 1), State::Asleep), "the time went on");
}

#[tokio::test(start_paused = true)]
async fn a_start_or_a_stop_under_way_comes_to_its_end_in_the_next_process() {
    let (before, fake) = waker(10 * SECOND, SECOND);
    before.start_soon();
    sleep(SECOND).await;
    let next = next(&before, &fake);
    let awake = next.enter();
    reach(&next, &fake).await.unwrap();
    assert_eq!(fake.counts(), (1, 0), "it is not started twice");
    drop(awake);
    std::mem::forget(before.enter());
    sleep(STOP_AFTER + SECOND).await;
    assert_eq!(next.state(), State::Stopping);
    let third = self::next(&next, &fake);
    sleep(10 * SECOND).await;
    assert_eq!(fake.counts(), (1, 1));
    let _awake = third.enter();
    reach(&third, &fake).await.unwrap();
    assert_eq!(fake.counts(), (2, 1), "a client that comes later starts it");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_failed_is_not_tried_sooner_in_the_next_process() {
    let (before, fake) = waker(Duration::ZERO, SECOND);
    fake.script.lock().unwrap().extend(["no image", "no image"]);
    let error = reach(&before, &fake).await.unwrap_err().to_string();
    let next = next(&before, &fake);
    assert_eq!(reach(&next, &fake).await.unwrap_err().to_string(), error);
    assert_eq!(fake.counts().0, 1);
    sleep(SECOND).await;
    reach(&next, &fake).await.unwrap_err();
    let State::Failed { next_try, .. } = next.state() else { panic!("{:?}", next.state()) };
    assert_eq!((fake.counts().0, next_try - Instant::now()), (2, 2 * SECOND), "the pauses grow");
}

#[tokio::test(start_paused = true)]
async fn only_what_the_plan_starts_is_taken_over_and_a_spoilt_record_starts_and_stops_nothing() {
    let (before, game) = (Wakers::new(Events::default()), name());
    let target = "127.0.0.1:1".parse().unwrap();
    let place = Place { mapping: &game, host: Some("mc.lan"), target: &target };
    let never: Arc<[String]> = ["/nonexistent/portway".to_owned()].into();
    let start = Start::Command { start: Arc::clone(&never), stop: Some(never) };
    let command = Arc::new(WakeSpec { start, wait: WAIT, stop_after: Some(STOP_AFTER) });
    let unit = machine(1, WAIT);
    for spec in [&command, &unit] {
        before.of(spec, place).reached();
    }
    let record = before.snapshot(Instant::now());
    let shown = |wakers: &Wakers| {
        wakers.shown().iter().map(|shown| (shown.what.to_string(), shown.state.clone())).collect::<Vec<_>>()
    };
    let next = Wakers::new(Events::default());
    next.take_over(record.clone(), [(&game, &*command)]);
    assert_eq!(shown(&next), [("command /nonexistent/portway".to_owned(), State::Running)]);
    crate::fixture::each_spoilt(&record, |spoilt| {
        let Ok(record) = serde_json::from_value(spoilt) else { return };
        let next = Wakers::new(Events::default());
        next.take_over(record, [(&game, &*command), (&game, &*unit)]);
        assert!(next.shown().len() <= 3);
        let _ = next.snapshot(Instant::now());
    });
}
