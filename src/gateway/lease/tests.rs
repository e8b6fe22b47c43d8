//! One opening, answer by answer.

use super::*;
use crate::{
    gateway::{OnConflict, want::Key},
    mapping::{ListenAddr, ListenerKey, MappingName, Protocol},
};

const LEASE: Duration = Duration::from_secs(3600);
const CHECK: Duration = Duration::from_secs(60);

/// An opening and all around it.
struct Bench {
    lease: Lease,
    settings: RouterSettings,
    habits: Habits,
    formers: Vec<IpAddr>,
    rng: Rng,
    now: Instant,
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn want() -> Want {
    let listener = ListenerKey { protocol: Protocol::Tcp, addr: ListenAddr::every(port(80)) };
    Want {
        key: Key { listener, pinhole: None },
        mapping: MappingName::new("web").unwrap(),
        internal: "192.168.77.2:80".parse().unwrap(),
        external_port: port(80),
        text: "portway:web@nas".to_owned(),
    }
}

fn held_by(place: &str, text: &str, lease: Option<u64>) -> Answer {
    let holder = Holder { addr: place.parse().unwrap(), text: text.to_owned() };
    Ok(Done::Seen(Entry::Taken { holder, lease: lease.map(Duration::from_secs) }))
}

fn ours(left: u64) -> Answer {
    held_by("192.168.77.2:80", "portway:web@nas", Some(left))
}

fn free() -> Answer {
    Ok(Done::Seen(Entry::Free))
}

fn closed() -> Answer {
    Ok(Done::Closed)
}

fn conflict() -> Answer {
    Err(RouterError::Conflict)
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            lease: Lease::wanted(want(), now),
            settings: RouterSettings::default(),
            habits: Habits::default(),
            formers: Vec::new(),
            rng: Rng::with_seed(1),
            now,
        }
    }

    fn any_port() -> Self {
        let mut bench = Self::new();
        bench.settings.on_conflict = OnConflict::AnyPort;
        bench
    }

    /// One that is open, and was seen to be.
    fn open() -> Self {
        let mut bench = Self::new();
        bench.looks(free());
        bench.opens(LEASE.as_secs());
        bench.looks(ours(3600));
        assert!(bench.is_open());
        bench
    }

    /// Lets time pass until the next request is due, and gives how long that was.
    fn wait(&mut self) -> Duration {
        let waited = self.lease.due().saturating_duration_since(self.now);
        self.now += waited;
        waited
    }

    #[track_caller]
    fn answer(&mut self, expected: &str, answer: Answer) -> Call {
        self.wait();
        let call = self.lease.call(&self.settings, self.habits);
        assert!(format!("{call:?}").starts_with(expected), "{expected} was expected, not {call:?}");
        self.lease.sending();
        let Self { lease, settings, habits, formers, rng, now } = self;
        lease.answered(answer, &mut Context { now: *now, settings, habits, formers, rng });
        call
    }

    #[track_caller]
    fn looks(&mut self, answer: Answer) {
        self.answer("Look", answer);
    }

    #[track_caller]
    fn opens(&mut self, lease: u64) -> MapRequest {
        let call = self.lease.call(&self.settings, self.habits);
        let (external_port, asked) = (call.request().external_port, call.request().lease);
        let lease = asked.map(|_| Duration::from_secs(lease));
        let granted = Granted { external_port, lease, pinhole: None };
        self.answer("Open", Ok(Done::Granted(granted))).request().clone()
    }

    fn is_open(&self) -> bool {
        matches!(self.lease.state(), State::Open(open) if open.settled)
    }

    #[track_caller]
    fn fails_with(&self, text: &str) {
        assert!(
            matches!(self.lease.state(), State::Failed(e) if e.contains(text)),
            "{:?}",
            self.lease.state()
        );
    }
}

#[test]
fn a_renewal_comes_at_half_the_lease_and_closes_nothing() {
    let mut bench = Bench::open();
    let opened = bench.now;
    // Looks, each minute, until it is renewed.
    while !matches!(bench.lease.call(&bench.settings, bench.habits), Call::Open(_)) {
        assert!(bench.wait() <= CHECK);
        let left = 3600 - (bench.now - opened).as_secs();
        bench.looks(ours(left));
    }
    bench.opens(3600);
    let half = (bench.now - opened).as_secs();
    assert!((1620..=1980).contains(&half), "renewed after {half} s");
    bench.looks(ours(3600));
    assert!(bench.is_open());
    assert_eq!(bench.lease.times_opened(), 1);
}

#[test]
fn a_router_that_keeps_permanent_leases_only_is_asked_for_one_and_remembered() {
    let mut bench = Bench::new();
    bench.looks(free());
    bench.answer("Open", Err(RouterError::OnlyPermanent));
    assert_eq!(bench.opens(0).lease, None);
    bench.looks(held_by("192.168.77.2:80", "portway:web@nas", None));
    assert!(bench.is_open() && bench.habits.permanent_only);
    // Renewed hourly all the same.
    let opened = bench.now;
    loop {
        bench.wait();
        bench.looks(held_by("192.168.77.2:80", "portway:web@nas", None));
        if matches!(bench.lease.call(&bench.settings, bench.habits), Call::Open(_)) {
            break;
        }
    }
    assert!((3240..=4020).contains(&(bench.now - opened).as_secs()), "{:?}", bench.now - opened);
}

#[test]
fn a_router_that_grants_it_twice_and_does_not_find_it_has_it_open_and_hidden() {
    let is_visible = |bench: &Bench| bench.lease.is_shown();
    let mut bench = Bench::new();
    bench.looks(free());
    bench.opens(3600);
    bench.looks(free());
    bench.opens(3600);
    bench.looks(free());
    for _ in 0..3 {
        assert!(bench.is_open() && !is_visible(&bench) && bench.lease.mark().sight == Sight::Hidden);
        assert!(
            bench.wait() >= Duration::from_secs(1600),
            "it is renewed in time, not looked at all the time"
        );
        bench.opens(3600);
        bench.looks(free());
    }
    assert_eq!(bench.lease.times_opened(), 1);
    bench.wait();
    bench.opens(3600);
    bench.looks(ours(3600));
    assert!(bench.is_open() && is_visible(&bench) && bench.lease.mark().sight == Sight::Shown);
}

#[test]
fn a_hidden_opening_is_closed_at_the_end_although_it_is_not_found() {
    let mut bench = Bench::new();
    bench.looks(free());
    for _ in 0..2 {
        bench.opens(3600);
        bench.looks(free());
    }
    bench.lease.leave(bench.now);
    bench.looks(free());
    bench.answer("Close", closed());
    assert_eq!(*bench.lease.state(), State::Gone(Gone::Closed));
}

#[test]
fn an_opening_without_its_lease_is_replaced_once_and_then_taken_for_the_routers_habit() {
    let without = || held_by("192.168.77.2:80", "portway:web@nas", None);
    let mut bench = Bench::open();
    bench.looks(without());
    bench.answer("Close", closed());
    bench.opens(3600);
    bench.looks(without());
    assert!(bench.is_open() && bench.habits.hides_leases);
    bench.looks(without());
    assert!(bench.is_open());
}

#[test]
fn a_renewal_that_does_not_prolong_is_replaced_near_the_end() {
    let mut bench = Bench::open();
    let opened = bench.now;
    let left = |bench: &Bench| 3600 - (bench.now - opened).as_secs();
    while !matches!(bench.lease.call(&bench.settings, bench.habits), Call::Open(_)) {
        bench.wait();
        let left = left(&bench);
        bench.looks(ours(left));
    }
    bench.opens(3600);
    let left_then = left(&bench);
    bench.looks(ours(left_then));
    while !matches!(bench.lease.call(&bench.settings, bench.habits), Call::Close(_)) {
        bench.wait();
        let left = left(&bench);
        assert!(left > 300, "too late: {left} s are left");
        bench.looks(ours(left));
    }
    assert!(left(&bench) <= 400, "too soon: {} s are left", left(&bench));
    bench.answer("Close", closed());
    bench.opens(3600);
    bench.looks(ours(3600));
    assert!(bench.is_open());
}

#[test]
fn a_router_that_shows_a_constant_lease_is_only_renewed() {
    let mut bench = Bench::open();
    bench.settings.check_every = Duration::from_secs(1);
    for _ in 0..3 {
        while !matches!(bench.lease.call(&bench.settings, bench.habits), Call::Open(_)) {
            bench.wait();
            bench.looks(ours(3600));
        }
        bench.opens(3600);
        bench.looks(ours(3600));
        assert!(bench.is_open());
    }
    assert_eq!(bench.lease.times_opened(), 1);
}

#[test]
fn a_foreign_opening_is_named_looked_at_and_taken_over_when_it_is_gone() {
    let foreign = || held_by("192.168.77.3:9", "a game", Some(600));
    let mut bench = Bench::new();
    bench.looks(foreign());
    for _ in 0..3 {
        let State::Conflict(Some(holder)) = bench.lease.state() else { panic!("{:?}", bench.lease.state()) };
        assert_eq!(holder.to_string(), "192.168.77.3:9 (a game)");
        assert_eq!(bench.wait(), CHECK);
        bench.looks(foreign());
    }
    bench.looks(free());
    bench.opens(3600);
    bench.looks(ours(3600));
    assert!(bench.is_open());
}

#[test]
fn a_port_whose_holder_is_unknown_is_tried_as_often_as_others_are_looked_at() {
    let mut bench = Bench::new();
    for nth in 0..20 {
        bench.looks(Ok(Done::Seen(Entry::Unknown)));
        bench.answer("Open", conflict());
        bench.looks(Ok(Done::Seen(Entry::Unknown)));
        assert_eq!(*bench.lease.state(), State::Conflict(None));
        let wait = bench.wait();
        assert!(wait <= CHECK * 6 / 5 && (nth < 5 || wait >= CHECK * 4 / 5), "{wait:?}");
    }
}

#[test]
fn an_opening_of_another_program_of_this_machine_is_no_ours() {
    let mut bench = Bench::new();
    bench.looks(held_by("192.168.77.2:9", "a game", None));
    assert!(matches!(bench.lease.state(), State::Conflict(Some(_))));
    bench.lease.leave(bench.now);
    assert_eq!(*bench.lease.state(), State::Gone(Gone::Nothing));
}

#[test]
fn an_opening_made_by_hand_to_the_same_place_will_do_and_is_never_closed() {
    let by_hand = || held_by("192.168.77.2:80", "my web server", None);
    let mut bench = Bench::new();
    bench.looks(by_hand());
    assert!(bench.is_open() && !bench.lease.is_touched());
    for _ in 0..100 {
        bench.wait();
        bench.looks(by_hand());
    }
    // When it is gone, ours takes its place.
    bench.looks(free());
    bench.opens(3600);
    bench.looks(ours(3600));
    assert!(bench.is_open() && bench.lease.is_touched());
}

#[test]
fn a_refused_conflict_that_is_ours_is_fine() {
    let mut bench = Bench::new();
    bench.looks(free());
    bench.answer("Open", conflict());
    bench.looks(ours(1000));
    assert!(bench.is_open() && bench.lease.is_touched());
}

#[test]
fn a_former_address_is_evicted_once_and_else_waited_for() {
    let former = || held_by("192.168.77.9:80", "portway:web@nas", Some(30));
    let mut bench = Bench::new();
    bench.formers = vec!["192.168.77.9".parse().unwrap()];
    bench.looks(former());
    bench.answer("Close", Err(RouterError::Denied("606".into())));
    assert!(matches!(bench.lease.state(), State::Conflict(Some(_))));
    bench.looks(former());
    assert_eq!(bench.wait(), Duration::from_secs(31), "it ends in thirty seconds");
    bench.looks(free());
    bench.opens(3600);
}

#[test]
fn the_same_text_at_an_address_that_was_never_ours_is_foreign() {
    let mut bench = Bench::new();
    bench.looks(held_by("192.168.77.9:80", "portway:web@nas", Some(30)));
    assert!(matches!(bench.lease.state(), State::Conflict(Some(_))));
    bench.wait();
    bench.looks(free());
}

#[test]
fn any_port_moves_to_a_free_one_and_stays_there() {
    let mut bench = Bench::any_port();
    bench.looks(held_by("192.168.77.3:9", "a game", None));
    bench.looks(free());
    let request = bench.opens(3600);
    assert!(request.external_port.get() >= 49_152, "{request:?}");
    bench.looks(ours(3600));
    assert!(bench.is_open());
    let kept = bench.lease.mark().clone();
    // Another machine takes that one, while the router was away: it is not left for a third.
    bench.wait();
    bench.looks(held_by("192.168.77.3:9", "a game", None));
    assert_eq!(bench.lease.external_port(), request.external_port);
    assert!(matches!(bench.lease.state(), State::Conflict(Some(_))));
    // A restart comes back to it.
    let adopted = Lease::adopted(want(), kept, bench.now);
    assert_eq!(adopted.external_port(), request.external_port);
}

#[test]
fn a_port_that_was_taken_while_we_were_away_is_replaced_by_another() {
    let foreign = || held_by("192.168.77.3:9", "a game", None);
    let mut bench = Bench::any_port();
    let mark = Mark { external_port: port(50_000), ..Lease::wanted(want(), bench.now).mark().clone() };
    bench.lease = Lease::adopted(want(), mark, bench.now);
    bench.looks(foreign());
    assert_eq!(bench.lease.external_port(), port(80));
    bench.looks(foreign());
    bench.looks(free());
    assert!(bench.opens(3600).external_port.get() >= 49_152);
    bench.looks(ours(3600));
    assert!(bench.is_open());
}

#[test]
fn a_kept_port_that_a_router_without_a_list_refuses_is_given_up() {
    let unknown = || Ok(Done::Seen(Entry::Unknown));
    let mut bench = Bench::any_port();
    let mark = Mark { external_port: port(50_000), ..Lease::wanted(want(), bench.now).mark().clone() };
    bench.lease = Lease::adopted(want(), mark, bench.now);
    bench.looks(unknown());
    bench.answer("Open", conflict());
    bench.looks(unknown());
    bench.looks(unknown());
    assert_eq!(bench.opens(3600).external_port, port(80));
    bench.looks(unknown());
    assert!(bench.is_open());
}

#[test]
fn a_router_that_tells_nothing_gives_another_port_itself() {
    let unknown = || Ok(Done::Seen(Entry::Unknown));
    let mut bench = Bench::any_port();
    bench.looks(unknown());
    bench.answer("Open", conflict());
    bench.looks(unknown());
    let granted = Granted { external_port: port(2000), lease: Some(LEASE), pinhole: None };
    bench.answer("AnyPort", Ok(Done::Granted(granted)));
    bench.looks(unknown());
    assert!(bench.is_open());
    assert_eq!(bench.lease.external_port(), port(2000));
    // What cannot be looked at is only renewed.
    assert!(bench.wait() > Duration::from_secs(1600));
    bench.opens(3600);
}

#[test]
fn a_denied_opening_is_asked_for_again_in_an_hour() {
    let mut bench = Bench::new();
    bench.looks(free());
    bench.answer("Open", Err(RouterError::Denied("606".into())));
    assert!(matches!(bench.lease.state(), State::Denied(_)) && !bench.lease.is_touched());
    let wait = bench.wait();
    assert!((3240..=3960).contains(&wait.as_secs()), "{wait:?}");
}

#[test]
fn a_router_of_fixed_ports_is_denied_or_moves_where_any_port_will_do() {
    let other = Want { external_port: port(8080), ..want() };
    let mut bench = Bench::new();
    bench.lease = Lease::wanted(other.clone(), bench.now);
    bench.looks(free());
    bench.answer("Open", Err(RouterError::SamePort));
    assert!(matches!(bench.lease.state(), State::Denied(e) if e.contains("external_port")));

    let mut bench = Bench::any_port();
    bench.lease = Lease::wanted(other, bench.now);
    bench.looks(free());
    bench.answer("Open", Err(RouterError::SamePort));
    bench.looks(free());
    assert_eq!(bench.opens(3600).external_port, port(80));
}

#[test]
fn failures_are_retried_more_and_more_seldom() {
    let mut bench = Bench::new();
    let mut waits = Vec::new();
    for _ in 0..12 {
        bench.looks(free());
        bench.answer("Open", Err(RouterError::Failed("501".into())));
        waits.push(bench.wait().as_secs());
    }
    assert!(waits[0] <= 6 && waits[3] >= 32, "{waits:?}");
    assert!(waits[8..].iter().all(|wait| (480..=720).contains(wait)), "{waits:?}");
}

#[test]
fn a_lease_of_next_to_nothing_is_a_failure_and_not_renewed_for_ever() {
    for (granted, shown) in [(0, 0), (1, 1), (3600, 1)] {
        let mut bench = Bench::new();
        let mut asked = 0;
        let began = bench.now;
        while bench.now < began + Duration::from_secs(3600) {
            bench.wait();
            match bench.lease.call(&bench.settings, bench.habits) {
                Call::Open(_) => {
                    asked += 1;
                    bench.opens(granted);
                }
                _ if bench.is_open() || matches!(bench.lease.state(), State::Open(_)) => {
                    bench.looks(ours(shown));
                }
                _ => bench.looks(free()),
            }
        }
        assert!(asked < 20, "{granted} s: asked {asked} times an hour");
        bench.fails_with("five seconds");
    }
}

#[test]
fn a_failed_renewal_is_tried_again_while_the_lease_lasts() {
    let mut bench = Bench::open();
    let opened = bench.now;
    let mut tries = 0;
    while bench.is_open() {
        bench.wait();
        bench.lease.lapse(bench.now);
        if !bench.is_open() {
            break;
        }
        match bench.lease.call(&bench.settings, bench.habits) {
            Call::Look(_) => {
                let left = 3600_u64.saturating_sub((bench.now - opened).as_secs()).max(1);
                bench.looks(ours(left));
            }
            _ => {
                tries += 1;
                bench.answer("Open", Err(RouterError::Failed("501".into())));
            }
        }
    }
    assert!((5..60).contains(&tries), "{tries} tries");
    assert!((bench.now - opened).as_secs() >= 3500, "given up after {:?}", bench.now - opened);
}

#[test]
fn an_answer_that_does_not_come_changes_nothing_about_what_is_open() {
    let mut bench = Bench::open();
    bench.wait();
    bench.looks(Err(RouterError::Lost("silence".into())));
    assert!(bench.is_open());
    bench.lease.doubt(bench.now);
    bench.looks(ours(3000));
    assert!(bench.is_open());
    assert_eq!(bench.lease.times_opened(), 1);
}

#[test]
fn what_the_router_forgot_is_opened_again() {
    let mut bench = Bench::open();
    bench.lease.doubt(bench.now);
    bench.looks(free());
    assert!(!bench.is_open());
    bench.opens(3600);
    bench.looks(ours(3600));
    assert_eq!(bench.lease.times_opened(), 2);
}

#[test]
fn what_leaves_is_looked_at_before_it_is_closed() {
    let mut bench = Bench::open();
    bench.lease.leave(bench.now);
    bench.looks(ours(100));
    bench.answer("Close", closed());
    assert_eq!(*bench.lease.state(), State::Gone(Gone::Closed));

    for others in ["192.168.77.3:80", "192.168.77.2:81"] {
        let mut bench = Bench::open();
        bench.lease.leave(bench.now);
        bench.looks(held_by(others, "a game", None));
        assert_eq!(*bench.lease.state(), State::Gone(Gone::Nothing), "{others}");
    }
}

#[test]
fn what_leaves_a_silent_router_is_given_up_after_three_tries() {
    let mut bench = Bench::open();
    bench.lease.leave(bench.now);
    for _ in 0..3 {
        bench.looks(Err(RouterError::Lost("silence".into())));
    }
    assert!(matches!(bench.lease.state(), State::Gone(Gone::Left(_))));
}

#[test]
fn a_request_whose_answer_was_lost_may_have_been_carried_out() {
    let mut bench = Bench::new();
    bench.looks(free());
    bench.answer("Open", Err(RouterError::Lost("silence".into())));
    assert!(bench.lease.is_touched());
    bench.lease.leave(bench.now);
    bench.looks(ours(3600));
    bench.answer("Close", closed());
}

#[test]
fn a_text_that_the_router_changed_is_known_again() {
    let cut = || held_by("192.168.77.2:80", "portway:we", Some(3600));
    let mut bench = Bench::new();
    bench.looks(free());
    bench.opens(3600);
    bench.looks(cut());
    assert!(bench.is_open());
    let mut later = Lease::adopted(want(), bench.lease.mark().clone(), bench.now);
    std::mem::swap(&mut bench.lease, &mut later);
    bench.lease.leave(bench.now);
    bench.looks(cut());
    bench.answer("Close", closed());
}
