//! PCP and NAT-PMP against a router in this process, at a loopback address of its own: the port is
//! fixed.

use std::{
    net::UdpSocket,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    thread::JoinHandle,
};

use super::*;

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A router whose answers a closure makes; it keeps the questions.
struct FakeRouter {
    at: RouterAddr,
    socket: Arc<UdpSocket>,
    questions: Arc<Mutex<Vec<Vec<u8>>>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeRouter {
    fn start(mut answer: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let at = place();
        let socket = Arc::new(UdpSocket::bind((at.gateway, 5351)).expect("an address of its own"));
        let questions = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (answers, kept) = (Arc::clone(&socket), Arc::clone(&questions));
        let thread = std::thread::spawn(move || {
            let mut question = [0; 1100];
            while let Ok((len, from)) = answers.recv_from(&mut question) {
                if len == 0 {
                    return;
                }
                kept.lock().expect("no panic").push(question[..len].to_vec());
                if let Some(answer) = answer(&question[..len]) {
                    let _ = answers.send_to(&answer, from);
                }
            }
        });
        Self { at, socket, questions, thread: Some(thread) }
    }

    fn questions(&self) -> Vec<Vec<u8>> {
        self.questions.lock().expect("no panic").clone()
    }
}

impl Drop for FakeRouter {
    fn drop(&mut self) {
        // It wakes the thread.
        let _ = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A place whose gateway is an address that no other test of this process has; another process has
/// other ones.
fn place() -> RouterAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let gateway = Ipv4Addr::new(127, high | 0x40, low, NEXT.fetch_add(1, Ordering::Relaxed));
    RouterAddr { gateway: gateway.into(), own: HERE.into(), search_port: None, gateway6: None, interface: 0 }
}

const EPOCH: [u8; 4] = [0, 0, 1, 2];

/// A NAT-PMP answer with this result; to a request for an opening, with this port.
fn natpmp(question: &[u8], result: u8, port: u16) -> Vec<u8> {
    let mut answer = vec![0, question[1] | 0x80, 0, result];
    answer.extend(EPOCH);
    if question[1] == 0 {
        answer.extend([11, 99, 0, 1]);
        return answer;
    }
    let closing = question[8..12] == [0; 4];
    answer.extend(&question[4..6]);
    answer.extend(if closing { 0 } else { port }.to_be_bytes());
    answer.extend(&question[8..12]);
    answer
}

/// A PCP answer with this result; to a request for an opening, with this port and half the
/// lifetime.
fn pcp(question: &[u8], result: u8, port: u16) -> Vec<u8> {
    let mut answer = vec![2, question[1] | 0x80, 0, result];
    let lifetime = u32::from_be_bytes([question[4], question[5], question[6], question[7]]);
    answer.extend((lifetime / 2).to_be_bytes());
    answer.extend(EPOCH);
    answer.extend([0; 12]);
    if question[1] == 1 {
        answer.extend(&question[24..42]);
        answer.extend(port.to_be_bytes());
        answer.extend(Ipv4Addr::new(11, 99, 0, 1).to_ipv6_mapped().octets());
    }
    answer
}

/// A PCP server that speaks no NAT-PMP, as RFC 6887 section 9 has it.
fn only_pcp(question: &[u8], result: u8, port: u16) -> Vec<u8> {
    match question[0] {
        2 => pcp(question, result, port),
        _ => [&[2, question[1] | 0x80, 0, 1][..], &[0; 20]].concat(),
    }
}

/// One that speaks both.
fn both(question: &[u8], result: u8, port: u16) -> Vec<u8> {
    if question[0] == 0 { natpmp(question, result, port) } else { pcp(question, result, port) }
}

async fn search(via: RouterProtocol, router: &FakeRouter) -> Driver {
    let (driver, found) = Driver::search(via, &router.at).await.expect("the router is found");
    assert_eq!(found, router.at.found(via));
    driver
}

fn web() -> MapRequest {
    request((HERE, 8080), 9080)
}

#[test]
fn natpmp_opens_and_closes() {
    let router = FakeRouter::start(|question| Some(natpmp(question, 0, 9080)));
    run(async {
        let driver = search(RouterProtocol::NatPmp, &router).await;
        let granted = Granted { external_port: web().external_port, lease: web().lease, pinhole: None };
        assert_eq!(driver.open(&web()).await, Ok(granted));
        assert_eq!(driver.look(&web()).await, Ok(Entry::Unknown));
        let health =
            Health { external: Some([11, 99, 0, 1].into()), tells: true, epoch: Some(0x102), boot_id: None };
        assert_eq!(driver.health().await, Ok(health));
        assert_eq!(driver.close(&web()).await, Ok(()));
        let udp = MapRequest { protocol: Protocol::Udp, lease: None, ..web() };
        let granted = driver.open(&udp).await.expect("it opens");
        assert!(granted.lease.is_some(), "the protocol knows no opening without end");
    });
    let last = router.questions().pop().expect("a question");
    assert_eq!(last[..8], [0, 1, 0, 0, 0x1f, 0x90, 0x23, 0x78]);
}

#[test]
fn a_port_that_was_not_asked_for_is_given_back() {
    let router = FakeRouter::start(|question| Some(both(question, 0, 1024)));
    run(async {
        for (via, lifetime) in [(RouterProtocol::NatPmp, 8..12), (RouterProtocol::Pcp, 4..8)] {
            let driver = search(via, &router).await;
            assert_eq!(driver.open(&web()).await, Err(RouterError::Conflict), "{via:?}");
            let mut questions = router.questions();
            let (last, before) = (questions.pop().expect("a question"), questions.pop().expect("a question"));
            assert_eq!(last[lifetime.clone()], [0; 4], "{via:?}");
            assert_ne!(before[lifetime], [0; 4], "{via:?}");
            if via == RouterProtocol::Pcp {
                assert_eq!(last[24..36], before[24..36], "only the nonce of an opening closes it");
            }
            let any = driver.any_port(&web()).await.map(|granted| granted.external_port.get());
            assert_eq!(any, Ok(1024), "{via:?}");
        }
    });
}

#[test]
fn pcp_renews_with_the_nonce_and_the_lifetime_that_is_wanted() {
    let router = FakeRouter::start(|question| Some(only_pcp(question, 0, 9080)));
    run(async {
        let driver = search(RouterProtocol::Pcp, &router).await;
        assert_eq!(
            driver.health().await.map(|health| (health.external, health.tells)),
            Ok((None, false)),
            "unknown before the first opening"
        );
        let first = driver.open(&web()).await.expect("it opens");
        assert_eq!(first.lease, Some(Duration::from_secs(300)));
        let renewed = driver.open(&web()).await;
        assert_eq!(renewed.as_ref(), Ok(&first));
        let asked = router.questions().pop().expect("a question");
        assert_eq!(asked[4..8], 600_u32.to_be_bytes());
        assert_eq!(asked[24..36], web().nonce);
        let health = driver.health().await.expect("it answers");
        assert_eq!(
            health,
            Health { external: Some([11, 99, 0, 1].into()), tells: true, epoch: Some(0x102), boot_id: None }
        );
        assert_eq!(driver.close(&web()).await, Ok(()));
        let closing = router.questions().pop().expect("a question");
        assert_eq!(closing[24..36], web().nonce);
    });
}

#[test]
fn after_a_lost_answer_the_same_nonce_opens_the_port() {
    let mut answers = 0;
    let router = FakeRouter::start(move |question| {
        answers += u32::from(question[1] == 1);
        // The first request and its copy get no answer, though the router did what they say.
        (question[1] == 0 || answers > 2).then(|| pcp(question, 0, 9080))
    });
    run(async {
        let lost = within(CALL, search(RouterProtocol::Pcp, &router).await.open(&web())).await;
        assert!(matches!(lost, Err(RouterError::Lost(_))), "{lost:?}");
        search(RouterProtocol::Pcp, &router).await.open(&web()).await.expect("it opens");
    });
    let mut nonces: Vec<_> =
        router.questions().iter().filter_map(|one| one.get(24..36).map(Vec::from)).collect();
    assert_eq!(nonces.len(), 3);
    nonces.dedup();
    assert_eq!(nonces.len(), 1, "a router refuses what it has open under another nonce");
}

#[test]
fn a_refusal_over_port_5351_tells_whether_it_will_last() {
    let result = Arc::new(AtomicU8::new(0));
    let set = Arc::clone(&result);
    let router = FakeRouter::start(move |question| {
        let result = if question[1] == 0 { 0 } else { result.load(Ordering::Relaxed) };
        Some(both(question, result, 9080))
    });
    let kind = |opened: Result<Granted, RouterError>| match opened {
        Err(RouterError::Denied(_)) => "denied",
        Err(RouterError::Failed(_)) => "failed",
        Err(RouterError::Lost(_)) => "lost",
        Err(RouterError::Conflict) => "conflict",
        _ => "else",
    };
    let natpmp = [(2, "denied"), (3, "failed"), (4, "failed"), (5, "failed"), (1, "lost"), (99, "lost")];
    let pcp = [
        (2, "denied"),
        (8, "failed"),
        (10, "failed"),
        (12, "failed"),
        (11, "conflict"),
        (1, "lost"),
        (99, "lost"),
    ];
    run(async {
        for (via, meanings) in [(RouterProtocol::NatPmp, &natpmp[..]), (RouterProtocol::Pcp, &pcp)] {
            let driver = search(via, &router).await;
            for (result, meaning) in meanings {
                set.store(*result, Ordering::Relaxed);
                assert_eq!(kind(driver.open(&web()).await), *meaning, "{via:?} {result}");
            }
        }
    });
}

#[test]
fn a_router_that_says_nothing_or_nonsense_is_lost() {
    let nonsense = [None, Some(vec![]), Some(vec![0xff; 3]), Some(vec![0x80; 1100]), Some(vec![0; 16])];
    each(&nonsense, |nonsense| {
        let answer = nonsense.clone();
        let router = FakeRouter::start(move |question| match question {
            [0, 0] => Some(natpmp(question, 0, 9080)),
            [2, 0, ..] => Some(pcp(question, 0, 9080)),
            _ => answer.clone(),
        });
        let shown = nonsense.as_ref().map(Vec::len);
        each(&[RouterProtocol::NatPmp, RouterProtocol::Pcp], |via| {
            run(async {
                let driver = search(*via, &router).await;
                let opened = within(CALL, driver.open(&web())).await;
                assert!(matches!(opened, Err(RouterError::Lost(_))), "{via:?} {shown:?}: {opened:?}");
                let closed = within(CALL, driver.close(&web())).await;
                assert!(matches!(closed, Err(RouterError::Lost(_))), "{via:?} {shown:?}: {closed:?}");
            });
        });
    });
}

#[test]
fn a_search_ends_in_time_whatever_is_there() {
    let silent = FakeRouter::start(|_| None);
    let nonsense = FakeRouter::start(|_| Some(vec![7; 40]));
    each(&[RouterProtocol::NatPmp, RouterProtocol::Pcp], |via| {
        each(&[&silent, &nonsense], |router| {
            let found = run(within(CALL, Driver::search(*via, &router.at)));
            assert!(matches!(found, Err(RouterError::Lost(_))), "{via:?}: {found:?}");
        });
        let absent = run(within(Duration::ZERO, Driver::search(*via, &place())));
        assert!(matches!(absent, Err(RouterError::Lost(_))), "{via:?}: {absent:?}");
    });
    run(async {
        let old = FakeRouter::start(|question| Some(natpmp(question, 1, 0)));
        let found = Driver::search(RouterProtocol::Pcp, &old.at).await;
        assert!(matches!(&found, Err(RouterError::Lost(text)) if text.contains("no PCP")), "{found:?}");
        let new = FakeRouter::start(|question| Some(only_pcp(question, 0, 0)));
        let found = Driver::search(RouterProtocol::NatPmp, &new.at).await;
        assert!(matches!(&found, Err(RouterError::Lost(text)) if text.contains("no NAT-PMP")), "{found:?}");
    });
}

#[test]
fn an_address_that_requests_do_not_leave_from_is_not_asked_for() {
    let router = FakeRouter::start(|question| Some(both(question, 0, 9080)));
    let alias = request((Ipv4Addr::new(127, 0, 0, 9), 8080), 9080);
    let global = request(("2001:db8::1".parse::<Ipv6Addr>().expect("an address"), 8080), 8080);
    run(async {
        for via in [RouterProtocol::NatPmp, RouterProtocol::Pcp] {
            let driver = search(via, &router).await;
            let asked = router.questions().len();
            for request in [&alias, &global] {
                let opened = driver.open(request).await;
                assert!(matches!(opened, Err(RouterError::Failed(_))), "{via:?}: {opened:?}");
            }
            assert_eq!(router.questions().len(), asked, "{via:?}");
        }
    });
}
