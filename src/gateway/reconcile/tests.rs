//! The loop against a NAT-PMP router in this process, at a loopback address of its own: the port is
//! fixed.

use std::{
    net::{Ipv4Addr, UdpSocket},
    num::NonZeroU16,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    thread::JoinHandle,
};

use super::{
    tasks::{LIKELY_BACK, LOOK_AROUND, WHILE_LIKELY, restarted},
    *,
};
use crate::{
    events::Events,
    gateway::{RouterProtocol, questions::search, router::CALL, status::OpeningState},
    mapping::{Exposure, ListenAddr, ListenerKey, LiveListener, MappingName, Protocol},
};

/// What the router says, and what it was asked.
#[derive(Debug)]
struct Mind {
    epoch: AtomicU32,
    /// The result of each request for an opening.
    result: AtomicU8,
    /// The lifetimes of these requests; 0 takes the opening back.
    lifetimes: Mutex<Vec<u32>>,
}

struct FakeRouter {
    ip: Ipv4Addr,
    mind: Arc<Mind>,
    socket: Arc<UdpSocket>,
    thread: Option<JoinHandle<()>>,
}

impl FakeRouter {
    fn start() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        // The driver's tests have the lower half of each network.
        let ip = Ipv4Addr::new(127, high | 0x40, low, NEXT.fetch_add(1, Ordering::Relaxed) | 0x80);
        let socket = Arc::new(UdpSocket::bind((ip, 5351)).expect("an address of its own"));
        let mind =
            Arc::new(Mind { epoch: 1000.into(), result: AtomicU8::new(0), lifetimes: Mutex::default() });
        let (answers, its) = (Arc::clone(&socket), Arc::clone(&mind));
        let thread = std::thread::spawn(move || {
            let mut question = [0; 1100];
            while let Ok((len, from)) = answers.recv_from(&mut question) {
                if len == 0 {
                    return;
                }
                let _ = answers.send_to(&its.answer(&question[..len]), from);
            }
        });
        Self { ip, mind, socket, thread: Some(thread) }
    }

    fn settings(&self) -> RouterSettings {
        RouterSettings {
            protocols: vec![RouterProtocol::NatPmp],
            gateway: Some((self.ip.into(), None)),
            ..RouterSettings::default()
        }
    }

    fn reconciler(&self) -> Reconciler {
        Reconciler::new(Memory::open(None), false, "host".to_owned(), self.settings())
    }

    async fn found(&self, reconciler: &mut Reconciler) {
        let Some(Ok(router_addr)) = &reconciler.router_addr else { panic!("{:?}", reconciler.router_addr) };
        let (driver, found) = search(&reconciler.settings.protocols, router_addr).await.expect("it answers");
        reconciler.found(driver, found);
    }

    /// It answers nothing from now on.
    fn hang(&mut self) {
        // It wakes the thread.
        let _ = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }

    fn lifetimes(&self) -> Vec<u32> {
        self.mind.lifetimes.lock().expect("no panic").clone()
    }
}

impl Drop for FakeRouter {
    fn drop(&mut self) {
        self.hang();
    }
}

impl Mind {
    fn answer(&self, question: &[u8]) -> Vec<u8> {
        let opens = matches!(question[..2], [0, 1 | 2]);
        let result = if opens { self.result.load(Ordering::Relaxed) } else { 0 };
        let mut answer = vec![0, question[1] | 0x80, 0, result];
        answer.extend(self.epoch.load(Ordering::Relaxed).to_be_bytes());
        if !opens {
            answer.extend([11, 99, 0, 1]);
            return answer;
        }
        let lifetime = u32::from_be_bytes([question[8], question[9], question[10], question[11]]);
        self.lifetimes.lock().expect("no panic").push(lifetime);
        answer.extend(&question[4..6]);
        answer.extend(if lifetime == 0 { &[0; 2] } else { &question[6..8] });
        answer.extend(&question[8..12]);
        answer
    }
}

fn live() -> LiveSet {
    let addr = ListenAddr::every(NonZeroU16::new(8080).expect("a port"));
    let live = LiveListener {
        mapping: MappingName::new("web").expect("a name"),
        exposure: Some(Exposure::default()),
    };
    LiveSet::from([(ListenerKey { protocol: Protocol::Tcp, addr }, live)])
}

/// Does what is due, until that is done.
async fn act(reconciler: &mut Reconciler, until: impl Fn(&OpeningState) -> bool) {
    loop {
        match reconciler.next(Instant::now()) {
            Task::Wait(Some(until)) => sleep_until(until).await,
            task => reconciler.perform(task).await,
        }
        if reconciler.status().openings.iter().any(|opening| until(&opening.state)) {
            return;
        }
    }
}

#[tokio::test]
async fn a_restart_that_a_failed_call_showed_lifts_a_refusal() {
    let router = FakeRouter::start();
    let mut reconciler = router.reconciler();
    reconciler.live = live();
    router.mind.result.store(2, Ordering::Relaxed);
    act(&mut reconciler, |state| matches!(state, OpeningState::Denied(_))).await;

    // Lost and found again without a restart, it is not asked again.
    reconciler.lose("a test");
    router.found(&mut reconciler).await;
    reconciler.check().await;
    // Between two that change something there is a second.
    let soon = Duration::from_secs(2);
    let asks = |reconciler: &mut Reconciler| {
        let now = Instant::now();
        reconciler.look_at = now + LOOK_AROUND;
        match reconciler.next(now) {
            Task::Request(..) => true,
            Task::Wait(Some(until)) => until < now + soon,
            task => panic!("{task:?}"),
        }
    };
    assert!(!asks(&mut reconciler));

    reconciler.lose("a test");
    router.mind.epoch.store(1, Ordering::Relaxed);
    router.found(&mut reconciler).await;
    reconciler.check().await;
    assert!(asks(&mut reconciler));
    router.mind.result.store(0, Ordering::Relaxed);
    act(&mut reconciler, |state| matches!(state, OpeningState::Open { .. })).await;
}

#[tokio::test]
async fn a_pulse_alone_does_not_make_up_for_questions_without_an_answer() {
    let router = FakeRouter::start();
    let mut reconciler = router.reconciler();
    reconciler.live = live();
    act(&mut reconciler, |state| matches!(state, OpeningState::Open { .. })).await;
    assert_eq!(reconciler.strikes, 0);
    for strikes in 1..5 {
        reconciler.lose("a test");
        router.found(&mut reconciler).await;
        reconciler.check().await;
        assert_eq!(reconciler.strikes, strikes);
    }
    assert!(
        reconciler.search_at > Instant::now() + Duration::from_secs(10),
        "it is asked more and more seldom"
    );
    act(&mut reconciler, |_| router.lifetimes().len() > 1).await;
    assert_eq!(reconciler.strikes, 0, "it answered");
}

#[tokio::test(start_paused = true)]
async fn a_router_that_was_just_lost_is_searched_for_every_minute() {
    let router = FakeRouter::start();
    let mut reconciler = router.reconciler();
    let lost_at = Instant::now();
    let mut longest = Duration::ZERO;
    for searches in 1..40 {
        let wait = reconciler.patience(searches);
        assert!(wait <= WHILE_LIKELY || Instant::now() >= lost_at + LIKELY_BACK, "{searches}: {wait:?}");
        longest = longest.max(wait);
        tokio::time::advance(wait).await;
    }
    assert!(longest > 8 * WHILE_LIKELY, "a router that stays away is searched for seldom: {longest:?}");
}

#[tokio::test]
async fn a_router_that_hangs_holds_the_end_up_for_three_seconds_only() {
    let mut router = FakeRouter::start();
    let mut reconciler = router.reconciler();
    reconciler.live = live();
    act(&mut reconciler, |state| matches!(state, OpeningState::Open { .. })).await;
    router.hang();
    tokio::time::pause();
    let asked = Instant::now();
    reconciler.take_everything_back().await;
    let took = asked.elapsed();
    assert!((RELEASE..RELEASE + Duration::from_millis(100)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_shorter_time_between_checks_holds_at_once() {
    let router = FakeRouter::start();
    let mut reconciler = router.reconciler();
    reconciler.live = live();
    act(&mut reconciler, |state| matches!(state, OpeningState::Open { .. })).await;
    let (_live_tx, mut live) = watch::channel(live());
    let check_every = Duration::from_secs(1);
    reconciler.follow(&mut live, RouterSettings { check_every, ..router.settings() });
    let check_at = reconciler.router.map(|router| router.check_at);
    assert!(check_at.is_some_and(|at| at <= Instant::now() + check_every));
    assert_eq!(router.lifetimes(), [3600], "nothing was taken back for that");
}

#[tokio::test]
async fn a_protocol_without_an_answer_is_tried_once_when_another_one_works() {
    let router = FakeRouter::start();
    let mut reconciler = router.reconciler();
    reconciler.look_around();
    reconciler.settings.protocols = vec![RouterProtocol::Upnp, RouterProtocol::NatPmp];
    let began = Instant::now();
    router.found(&mut reconciler).await;
    let took = began.elapsed();
    assert!(took < CALL + Duration::from_secs(5), "{took:?}");
    assert_eq!(reconciler.router.map(|router| router.found.via), Some(RouterProtocol::NatPmp));
}

#[tokio::test]
async fn a_reload_that_leads_elsewhere_takes_back_what_is_open_first() {
    let router = FakeRouter::start();
    let (_live_tx, live) = watch::channel(live());
    let settings = |protocols| RouterSettings { protocols, ..router.settings() };
    let (settings_tx, settings_rx) = watch::channel(settings(vec![RouterProtocol::NatPmp]));
    let (status, mut told) = watch::channel(RouterStatus::default());
    let stop = CancellationToken::new();
    let (leave, events) = (CancellationToken::new(), Events::default());
    let wires = Wires { live, settings: settings_rx, status, stop: stop.clone(), leave, events };
    let runs = Reconciler::run(Memory::open(None), false, "host".to_owned(), wires);
    let test = async {
        let open = |status: &RouterStatus| {
            status.openings.iter().any(|opening| matches!(opening.state, OpeningState::Open { .. }))
        };
        told.wait_for(open).await.expect("it runs");
        assert_eq!(router.lifetimes(), [3600]);
        settings_tx.send_replace(settings(vec![RouterProtocol::Pcp, RouterProtocol::NatPmp]));
        told.wait_for(|status| !open(status)).await.expect("it runs");
        told.wait_for(open).await.expect("it runs");
        assert_eq!(router.lifetimes(), [3600, 0, 3600]);
        stop.cancel();
    };
    tokio::join!(runs, test);
    assert_eq!(router.lifetimes(), [3600, 0, 3600, 0]);
}

fn health(epoch: Option<u32>, boot_id: Option<u32>) -> Health {
    Health { external: None, tells: true, epoch, boot_id }
}

#[test]
fn a_restart_is_told_from_the_epoch_and_from_the_number_of_the_start() {
    let then = Instant::now();
    let now = then + Duration::from_secs(80);
    for (before, after, expected) in [
        (health(Some(1000), None), health(Some(1080), None), false),
        // A router whose clock is slow.
        (health(Some(1000), None), health(Some(1070), None), false),
        (health(Some(1000), None), health(Some(1060), None), true),
        (health(Some(1000), None), health(Some(1), None), true),
        (health(None, Some(7)), health(None, Some(7)), false),
        (health(None, Some(7)), health(None, Some(8)), true),
        (health(None, None), health(None, Some(8)), false),
    ] {
        assert_eq!(restarted(&before, then, &after, now), expected, "{before:?} {after:?}");
    }
}
