//! The bandwidth of a session.

use std::{
    io::{self, Read},
    net::SocketAddr,
    time::Duration,
};

use tokio::time::Instant;

use crate::harness::{
    Client, Content, Portway, TcpTarget, UdpTarget, mapping, messages, own_addr, pass, udp_client,
    udp_mapping,
};

const RATE: u64 = 2_000_000;
/// What the buckets and buffers of both connections let through at once is over by then.
const WARM_UP: Duration = Duration::from_secs(1);
const SPAN: Duration = Duration::from_secs(10);

/// Measures the stream up to three times, and gives the first span that is good: a busy machine may spoil one.
///
/// # Panics
///
/// If none is.
#[track_caller]
fn good_span<T: std::fmt::Debug>(mut measure: impl FnMut() -> T, is_good: impl Fn(&T) -> bool) {
    let mut spans: Vec<T> = Vec::new();
    while spans.len() < 3 && !spans.last().is_some_and(&is_good) {
        spans.push(measure());
    }
    assert!(spans.last().is_some_and(is_good), "none of these spans is good: {spans:?}");
}

/// How many bytes come within [`SPAN`] once the stream is steady, and the most that a tenth of a second brought.
fn received(from: &mut impl Read) -> (u64, u64) {
    let mut buffer = vec![0; 16 * 1024];
    let mut read = || from.read(&mut buffer).expect("bytes come") as u64;
    let start = Instant::now();
    while start.elapsed() < WARM_UP {
        read();
    }
    let (start, mut total, mut most) = (Instant::now(), 0, 0);
    let mut tenths = [0_u64; 101];
    while start.elapsed() < SPAN {
        let len = read();
        total += len;
        let tenth = usize::try_from(start.elapsed().as_millis() / 100).expect("small").min(100);
        tenths[tenth] += len;
        most = most.max(tenths[tenth]);
    }
    (total, most)
}

/// Whether that is what [`RATE`] brings within [`SPAN`].
fn is_exact(total: u64) -> bool {
    let exact = RATE * SPAN.as_secs();
    total.abs_diff(exact) < exact / 20
}

fn throttled(target: SocketAddr) -> (Portway, SocketAddr) {
    let at = own_addr(8080);
    let terms = format!("bandwidth_per_session = \"{RATE}B\"");
    (Portway::with(&mapping(at, target, &terms)).start(), at)
}

#[test]
fn a_session_gets_its_bandwidth_and_no_more_and_costs_next_to_nothing() {
    let content = Content::of(7);
    let target = TcpTarget::writes_and_closes(&content, 1 << 40);
    let (portway, at) = throttled(target.addr);
    let mut client = Client::to(at);
    let measure = || {
        let cpu = portway.cpu_time();
        let (total, most) = received(&mut client.0);
        (total, most, portway.cpu_time() - cpu)
    };
    // Its bytes, no more than a burst in a tenth of a second, and a timer that rests.
    good_span(measure, |(total, most, cpu)| is_exact(*total) && *most < RATE * 6 / 10 && *cpu < SPAN / 4);
}

#[test]
fn each_direction_has_its_own_bandwidth_and_a_held_back_session_is_not_idle() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let terms = format!("bandwidth_per_session = \"{RATE}B\"\nidle_timeout = \"2s\"");
    let content = Content::of(9);
    let (source, from) = (TcpTarget::writes_and_closes(&content, 1 << 40), own_addr(8081));
    let config = mapping(at, target.addr, &terms) + &mapping(from, source.addr, &terms);
    let _portway = Portway::with(&config).start();
    let client = Client::to(at);
    let mut sender = client.0.try_clone().expect("a second handle");
    let total = RATE * 3;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            content.send(&mut sender, total)?;
            sender.shutdown(std::net::Shutdown::Write)
        });
        // A session with the same limit for each direction, which measures the time.
        let clock = scope.spawn(|| {
            let mut stream = Client::to(from).0;
            io::copy(&mut Read::take(&mut stream, RATE * 5), &mut io::sink()).expect("bytes come")
        });
        let start = Instant::now();
        let mut receiver = &client.0;
        let got = content.receive(&mut receiver).expect("the whole echo");
        assert_eq!(got, total);
        assert!(start.elapsed() > Duration::from_millis(2_700), "{:?}", start.elapsed());
        // The way there and the way back overlap, as they have a limit each: with one limit it would be six seconds' worth.
        assert!(!clock.is_finished(), "both directions share a limit");
    });
}

#[test]
fn a_changed_bandwidth_is_for_new_sessions() {
    let content = Content::of(11);
    let target = TcpTarget::writes_and_closes(&content, 1 << 40);
    let (mut portway, at) = throttled(target.addr);
    let mut old = Client::to(at);
    old.hear(1);
    portway.reload_with(&mapping(at, target.addr, ""));
    let mut new = Client::to(at);
    // While the old one brings ten seconds' worth, the new one brings more: it has no limit.
    let fast = std::thread::spawn(move || {
        io::copy(&mut Read::take(&mut new.0, RATE * 25), &mut io::sink()).expect("bytes come")
    });
    io::copy(&mut Read::take(&mut old.0, RATE * 10), &mut io::sink()).expect("bytes come");
    assert!(fast.is_finished(), "a new session has no limit");
    good_span(|| received(&mut old.0).0, |total| is_exact(*total));
}

#[test]
fn a_flow_is_policed_and_the_drops_are_counted() {
    let behind = UdpTarget::silent();
    let at = own_addr(5353);
    let config = udp_mapping(at, behind.addr, "bandwidth_per_session = \"100KB\"");
    let mut portway = Portway::with(&config).start();
    let client = udp_client(at);
    let start = Instant::now();
    let mut sent = 0_u64;
    while start.elapsed() < Duration::from_secs(2) {
        for _ in 0..10 {
            client.send(&[0; 1_000]).expect("the client sends");
            sent += 1_000;
        }
        pass(Duration::from_millis(10));
    }
    let line = portway
        .wait_log(messages::DATAGRAMS_DROPPED, |line| line.text("dropped.so_far").contains("bandwidth="));
    assert_eq!(line.text("listen.addr"), at.to_string());
    let span = start.elapsed().as_millis();
    let got: u64 = behind.got().iter().map(|(_, payload)| payload.len() as u64).sum();
    let most = u64::try_from(100 * span).expect("small") + 10_000 + 1_000;
    assert!(got <= most && got >= 120_000, "{got} bytes of {sent} in {span} ms");
}
