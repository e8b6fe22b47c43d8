//! What comes before a session leads anywhere, through a listener of its own: headers of proxies
//! and names, a byte at a time, too late, or never.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{SECOND, service_under};
use crate::{
    mapping::{Host, ListenAddr, MappingName, Protocol, TargetAddr},
    meter::{Ended, Ledger, ListenerMeter},
    policy::{AccessSpec, Caps, Entries, Limit, PartAccess, Policy, Refuse},
    preface::{Match, hosts::HostTable, proxy::SendProxy},
    relay::{
        Drain,
        tcp::{Asleep, HostRoute, Names, Route, TcpOptions, TcpSpec},
    },
    targets::Targets,
    wake::{Start, WakeSpec},
};

/// A listener that serves.
struct Served {
    addr: SocketAddr,
    meter: Arc<ListenerMeter>,
    sessions: Drain,
    _spec: watch::Sender<Arc<TcpSpec>>,
    _closing: Drain,
    _task: JoinSet<()>,
}

impl Served {
    async fn new(spec: TcpSpec, policy: Policy, slots: usize) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let listen = ListenAddr::every(addr.port().try_into().unwrap());
        let meter =
            ListenerMeter::new(MappingName::new("t").unwrap(), Protocol::Tcp, listen, Ledger::default());
        let (spec, closing, sessions) = (watch::Sender::new(Arc::new(spec)), Drain::new(), Drain::new());
        let service = service_under(spec.subscribe(), &meter, policy, slots, sessions.watch());
        let (mut task, watch) = (JoinSet::new(), closing.watch());
        task.spawn(async move { service.serve(Arc::new(listener), watch).await.unwrap() });
        Self { addr, meter, sessions, _spec: spec, _closing: closing, _task: task }
    }

    async fn open(spec: TcpSpec) -> Self {
        let caps = Caps { sessions: Limit::Unlimited, sessions_per_client: Limit::Unlimited };
        Self::new(spec, Policy { caps, ..Policy::default() }, 16).await
    }

    async fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.addr).await.unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    async fn until_ended(&self, reason: Ended, times: u64) {
        let ended = async {
            while self.meter.ended_total(reason) < times {
                tokio::task::yield_now().await;
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(600 * SECOND, ended).await.unwrap_or_else(|_| panic!("not ended as {reason:?}"));
    }
}

/// A target, and what leads there.
async fn target() -> (TcpListener, Targets) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, leading_to(addr))
}

fn leading_to(addr: SocketAddr) -> Targets {
    Targets::one(TargetAddr { host: Host::Ip(addr.ip(), None), port: addr.port().try_into().unwrap() })
}

/// Nothing listens there.
async fn nowhere() -> Targets {
    target().await.1
}

fn behind_proxies(targets: Targets) -> TcpSpec {
    let accept_proxy = ["127.0.0.0/8".parse().unwrap()].into();
    TcpSpec { route: Route::Targets(targets), options: TcpOptions { accept_proxy, ..TcpOptions::default() } }
}

fn host(targets: Targets) -> HostRoute {
    HostRoute { targets, access: PartAccess::default(), send_proxy: None, wake: None }
}

fn by_name(by: Match, hosts: Vec<(&str, HostRoute)>, otherwise: Option<Targets>) -> TcpSpec {
    let mut table = HostTable::default();
    for (name, route) in hosts {
        table.insert(name, route).unwrap();
    }
    let names = Names { by, hosts: Arc::new(table), otherwise, asleep: None };
    TcpSpec { route: Route::Names(Arc::new(names)), options: TcpOptions::default() }
}

fn asleep(mut spec: TcpSpec) -> TcpSpec {
    if let Route::Names(names) = &mut spec.route {
        let asleep = Asleep { motd: "fast asleep".into(), players: (0, 20) };
        Arc::get_mut(names).unwrap().asleep = Some(Arc::new(asleep));
    }
    spec
}

/// The ClientHello of a client that wants `name`.
fn hello(name: &str) -> Vec<u8> {
    let with_length = |bytes: Vec<u8>| {
        let length = u16::try_from(bytes.len()).unwrap();
        [&length.to_be_bytes(), &bytes[..]].concat()
    };
    let server_name = with_length([&[0][..], &with_length(name.as_bytes().to_vec())].concat());
    let extension = |kind: u16, content: Vec<u8>| [&kind.to_be_bytes(), &with_length(content)[..]].concat();
    let extensions = [
        extension(0, server_name),
        extension(13, with_length(vec![8, 4, 4, 3])),
        extension(10, with_length(vec![0, 29])),
    ];
    let start = [&[3, 3][..], &[7; 32], &[0], &with_length(vec![19, 1, 0xc0, 0x2f]), &[1, 0]];
    let body = [start.concat(), with_length(extensions.concat())].concat();
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    let handshake = [vec![1, a, b, c], body].concat();
    [&[22, 3, 1][..], &with_length(handshake)].concat()
}

/// A packet of Minecraft.
fn packet(id: u8, content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len() + 1).unwrap(), id][..], content].concat()
}

/// The handshake of Minecraft, and what a client says next.
fn minecraft(name: &str, next: u8) -> Vec<u8> {
    let length = [u8::try_from(name.len()).unwrap()];
    let handshake = packet(0, &[&[0xff, 5][..], &length, name.as_bytes(), &[0x63, 0xdd, next]].concat());
    let after = if next == 1 { packet(0, &[]) } else { packet(0, &[&[4][..], b"anna", &[9; 16]].concat()) };
    [handshake, after].concat()
}

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 50312 443\r\n";

#[tokio::test(start_paused = true)]
async fn the_client_of_a_proxy_header_is_the_client_and_the_header_is_not_forwarded() {
    let (target, targets) = target().await;
    let served = Served::open(behind_proxies(targets)).await;
    let mut client = served.client().await;
    // At once with the first bytes and the end.
    client.write_all(&[HEADER, b"question"].concat()).await.unwrap();
    client.shutdown().await.unwrap();
    let (mut reached, _) = target.accept().await.unwrap();
    let mut question = Vec::new();
    reached.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    let live = served.meter.live();
    assert_eq!(live[0].client, "203.0.113.9:50312".parse().unwrap());
    assert_eq!(live[0].bytes_in(), 8);
    reached.write_all(b"answer").await.unwrap();
    drop(reached);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    served.until_ended(Ended::ClientClosed, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_header_is_read_however_it_is_cut() {
    let (target, targets) = target().await;
    let served = Served::open(behind_proxies(targets)).await;
    let bytes = [HEADER, b"x"].concat();
    for cut in 1..bytes.len() {
        let mut client = served.client().await;
        for part in [&bytes[..cut], &bytes[cut..]] {
            client.write_all(part).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        let (mut reached, _) = target.accept().await.unwrap();
        assert_eq!(reached.read_u8().await.unwrap(), b'x', "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listed_peer_without_a_header_is_closed_when_its_time_is_over() {
    let (_target, targets) = target().await;
    let served = Served::open(behind_proxies(targets)).await;
    let start = Instant::now();
    let (mut silent, mut slow) = (served.client().await, served.client().await);
    let mut sent = 0;
    // Each byte comes later than the one before, and none of them renews the time.
    while start.elapsed() < 4 * SECOND && slow.write_all(&HEADER[sent..=sent]).await.is_ok() {
        sent += 1;
        sleep(SECOND / 2).await;
    }
    assert!(sent < HEADER.len());
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
    served.until_ended(Ended::Preface, 2).await;
    assert_eq!(served.meter.sessions_total(), 2);
    let mut other = served.client().await;
    other.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let start = Instant::now();
    let _ = other.read(&mut [0; 1]).await;
    assert!(start.elapsed() < SECOND, "what is no header needs no time");
    served.until_ended(Ended::Preface, 3).await;
}

#[tokio::test(start_paused = true)]
async fn the_real_client_is_refused_where_it_may_not_enter_and_the_peer_needs_no_right() {
    let (target, targets) = target().await;
    let allow = Entries { nets: ["203.0.113.0/24".parse().unwrap()].into(), ..Entries::default() };
    let access = AccessSpec { allow: Some(allow), ..AccessSpec::default() };
    let policy = Policy { access, refuse: Refuse::Reset, ..Policy::default() };
    let served = Served::new(behind_proxies(targets), policy, 16).await;
    let mut stranger = served.client().await;
    stranger.write_all(b"PROXY TCP4 198.51.100.1 192.0.2.1 50312 443\r\n").await.unwrap();
    assert!(stranger.read(&mut [0; 1]).await.is_err(), "it is reset");
    let mut unknown = served.client().await;
    unknown.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    assert!(unknown.read(&mut [0; 1]).await.is_err(), "the peer itself is not allowed either");
    assert_eq!(served.meter.sessions_total(), 0);
    let mut friend = served.client().await;
    friend.write_all(HEADER).await.unwrap();
    let (mut reached, _) = target.accept().await.unwrap();
    reached.write_all(b"!").await.unwrap();
    assert_eq!(friend.read_u8().await.unwrap(), b'!');
}

#[tokio::test(start_paused = true)]
async fn silent_peers_fill_no_more_than_the_budget_and_only_for_their_time() {
    let (target, targets) = target().await;
    let served = Served::new(behind_proxies(targets), Policy::default(), 2).await;
    let silent = [served.client().await, served.client().await, served.client().await];
    sleep(SECOND / 10).await;
    let mut client = served.client().await;
    client.write_all(HEADER).await.unwrap();
    let (mut reached, _) = timeout(30 * SECOND, target.accept()).await.unwrap().unwrap();
    reached.write_all(b"!").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_not_said_its_client_goes_with_the_listener() {
    let (_target, targets) = target().await;
    let served = Served::open(behind_proxies(targets)).await;
    let mut peer = served.client().await;
    sleep(SECOND).await;
    served.sessions.close();
    assert_eq!(timeout(SECOND, peer.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    timeout(SECOND, served.sessions.finished()).await.unwrap();
    assert_eq!(served.meter.sessions_total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_header_from_a_peer_that_is_not_listed_is_only_bytes() {
    let (target, targets) = target().await;
    let mut spec = behind_proxies(targets);
    spec.options.accept_proxy = ["192.0.2.0/24".parse().unwrap()].into();
    let served = Served::open(spec).await;
    let mut client = served.client().await;
    client.write_all(HEADER).await.unwrap();
    client.shutdown().await.unwrap();
    let (mut reached, _) = target.accept().await.unwrap();
    let mut got = Vec::new();
    reached.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, HEADER);
}

#[tokio::test(start_paused = true)]
async fn a_target_gets_the_header_first_and_the_real_client_in_it() {
    for (form, received) in [(SendProxy::V1, true), (SendProxy::V1, false), (SendProxy::V2, true)] {
        let (target, targets) = target().await;
        let mut spec = behind_proxies(targets);
        spec.options.send_proxy = form;
        if !received {
            spec.options.accept_proxy = Arc::default();
        }
        let served = Served::open(spec).await;
        let mut client = served.client().await;
        let header = if received { HEADER } else { b"" };
        client.write_all(&[header, b"hello"].concat()).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut reached, _) = target.accept().await.unwrap();
        let mut got = Vec::new();
        reached.read_to_end(&mut got).await.unwrap();
        let bytes_in = served.meter.live()[0].bytes_in();
        assert_eq!(bytes_in, 5, "the header is not the client's");
        let own = client.local_addr().unwrap();
        match (form, received) {
            (SendProxy::V1, true) => assert_eq!(got, [HEADER, b"hello"].concat()),
            (SendProxy::V1, false) => {
                let to = served.addr.port();
                let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {to}\r\nhello", own.port());
                assert_eq!(got, line.as_bytes());
            }
            _ => {
                assert!(got.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11") && got.ends_with(b"hello"));
                assert_eq!(got[16..24], [203, 0, 113, 9, 192, 0, 2, 1]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_first_gets_the_header_before_the_client_says_anything() {
    let (target, targets) = target().await;
    let mut spec = behind_proxies(targets);
    (spec.options.send_proxy, spec.options.accept_proxy) = (SendProxy::V2, Arc::default());
    let served = Served::open(spec).await;
    let mut client = served.client().await;
    let (mut reached, _) = target.accept().await.unwrap();
    reached.read_exact(&mut [0; 28]).await.unwrap();
    reached.write_all(b"220").await.unwrap();
    client.read_exact(&mut [0; 3]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_name_leads_to_its_target_whole_however_its_bytes_are_cut() {
    let ((one, to_one), (two, to_two)) = (target().await, target().await);
    let hosts = vec![("one.example.org", host(to_one)), ("*.example.org", host(to_two))];
    let served = Served::open(by_name(Match::TlsSni, hosts, None)).await;
    for (name, target) in [("one.example.org", &one), ("TWO.b.example.org", &two)] {
        let bytes = hello(name);
        for cut in 1..bytes.len() {
            let mut client = served.client().await;
            for part in [&bytes[..cut], &bytes[cut..]] {
                client.write_all(part).await.unwrap();
                sleep(Duration::from_millis(1)).await;
            }
            client.shutdown().await.unwrap();
            let (mut reached, _) = timeout(SECOND, target.accept()).await.unwrap().unwrap();
            let mut got = Vec::new();
            reached.read_to_end(&mut got).await.unwrap();
            assert!(got == bytes, "{name}, cut at {cut}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_a_byte_a_turn_is_heard_out_within_its_time() {
    let (target, targets) = target().await;
    let served = Served::open(by_name(Match::TlsSni, vec![("one.example.org", host(targets))], None)).await;
    let bytes = hello("one.example.org");
    let mut client = served.client().await;
    for byte in &bytes {
        client.write_all(&[*byte]).await.unwrap();
        sleep(3 * SECOND / (u32::try_from(bytes.len()).unwrap() + 10)).await;
    }
    let (mut reached, _) = timeout(SECOND, target.accept()).await.unwrap().unwrap();
    let mut got = vec![0; bytes.len()];
    reached.read_exact(&mut got).await.unwrap();
    assert_eq!(got, bytes);
    let (start, mut slow) = (Instant::now(), served.client().await);
    for byte in &bytes {
        let written = slow.write_all(&[*byte]).await;
        sleep(SECOND / 10).await;
        if written.is_err() {
            break;
        }
    }
    assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
    served.until_ended(Ended::Preface, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_nowhere_is_told_in_the_protocol_of_the_client() {
    let spec = || async { vec![("one.example.org", host(nowhere().await))] };
    let served = Served::open(by_name(Match::Auto, spec().await, None)).await;
    let mut client = served.client().await;
    client.write_all(&hello("other.example.org")).await.unwrap();
    let mut alert = Vec::new();
    client.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 112]);
    let mut client = served.client().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: other.example.org\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 421 "));
    drop(client);
    served.until_ended(Ended::Preface, 2).await;

    let served = Served::open(by_name(Match::Minecraft, spec().await, None)).await;
    for next in [1, 2] {
        let mut client = served.client().await;
        client.write_all(&minecraft("other.example.org", next)).await.unwrap();
        let mut answer = vec![0; 40];
        client.read_exact(&mut answer).await.unwrap();
        client.shutdown().await.unwrap();
        client.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("no server with the name other.example.org"), "{answer}");
    }
    served.until_ended(Ended::Preface, 2).await;
}

#[tokio::test(start_paused = true)]
async fn clients_without_a_name_get_the_targets_of_the_mapping_with_all_that_they_said() {
    for said in [&b""[..], b"\x16\x03", b"SSH-2.0-OpenSSH_9.9\r\n"] {
        let (target, targets) = target().await;
        let hosts = vec![("one.example.org", host(nowhere().await))];
        let served = Served::open(by_name(Match::TlsSni, hosts, Some(targets))).await;
        let mut client = served.client().await;
        client.write_all(said).await.unwrap();
        let (mut reached, _) = timeout(4 * SECOND, target.accept()).await.unwrap().unwrap();
        client.write_all(b"more").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        reached.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [said, b"more"].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_and_goes_without_a_word_reaches_no_target() {
    let (target, targets) = target().await;
    let hosts = vec![("one.example.org", host(nowhere().await))];
    let served = Served::open(by_name(Match::TlsSni, hosts, Some(targets))).await;
    drop(served.client().await);
    served.until_ended(Ended::ClientClosed, 1).await;
    assert!(timeout(SECOND, target.accept()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_host_has_clients_and_a_header_of_its_own() {
    let ((inside, to_inside), (outside, to_outside)) = (target().await, target().await);
    let deny = Entries { nets: ["127.0.0.0/8".parse().unwrap()].into(), ..Entries::default() };
    let access = AccessSpec { deny, ..AccessSpec::default() }.into();
    let closed = HostRoute { access, ..host(to_inside) };
    let open = HostRoute { send_proxy: Some(SendProxy::V1), ..host(to_outside) };
    let hosts = vec![("closed.example.org", closed), ("open.example.org", open)];
    let served = Served::open(by_name(Match::HttpHost, hosts, None)).await;
    let request = |name| format!("GET / HTTP/1.1\r\nHost: {name}.example.org\r\n\r\n");
    let mut client = served.client().await;
    client.write_all(request("closed").as_bytes()).await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    served.until_ended(Ended::Policy, 1).await;
    let mut client = served.client().await;
    client.write_all(request("open").as_bytes()).await.unwrap();
    let (mut reached, _) = outside.accept().await.unwrap();
    reached.read_exact(&mut [0; 20]).await.unwrap();
    assert!(timeout(SECOND, inside.accept()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_player_whose_server_is_down_sees_that_it_is_asleep() {
    let hosts = vec![("mc.example.org", host(nowhere().await))];
    let served = Served::open(asleep(by_name(Match::Minecraft, hosts, None))).await;
    let mut client = served.client().await;
    client.write_all(&minecraft("mc.example.org", 1)).await.unwrap();
    let mut answer = vec![0; 60];
    client.read_exact(&mut answer).await.unwrap();
    // The time of the ping comes back.
    client.write_all(&packet(1, b"12345678")).await.unwrap();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("fast asleep"));
    assert!(answer.ends_with(&packet(1, b"12345678")));
    drop(client);
    let mut client = served.client().await;
    client.write_all(&minecraft("mc.example.org", 2)).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("fast asleep"));
    drop(client);
    served.until_ended(Ended::Unreachable, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_a_session_that_waits_for_a_name() {
    let hosts = vec![("one.example.org", host(nowhere().await))];
    let served = Served::open(by_name(Match::TlsSni, hosts, None)).await;
    let mut client = served.client().await;
    client.write_all(b"\x16").await.unwrap();
    sleep(SECOND).await;
    served.meter.cut_all(Ended::ClosedByOperator);
    assert_eq!(timeout(SECOND, client.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
    served.until_ended(Ended::ClosedByOperator, 1).await;
}

/// What is replayed is whole where the target takes it piece by piece, and the throttle counts only
/// what comes after it.
#[tokio::test(start_paused = true)]
async fn a_long_request_is_replayed_whole_before_what_follows() {
    let (target, targets) = target().await;
    let served = Served::open(by_name(Match::HttpHost, vec![("a.example.org", host(targets))], None)).await;
    let padding = "x".repeat(15_000);
    let request = format!("GET / HTTP/1.1\r\nX: {padding}\r\nHost: a.example.org\r\n\r\n");
    let body: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mut client = served.client().await;
    let expected = [request.as_bytes(), &body].concat();
    let sent = expected.clone();
    let mut writers = JoinSet::new();
    writers.spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    let (mut reached, _) = target.accept().await.unwrap();
    let mut got = Vec::new();
    reached.read_to_end(&mut got).await.unwrap();
    assert!(got == expected);
    assert_eq!(served.meter.live()[0].bytes_in(), expected.len() as u64);
}

/// What starts a target: here it leaves a file, by which the test knows.
fn waking(file: &std::path::Path) -> Option<Arc<WakeSpec>> {
    let start = [String::from("touch"), file.display().to_string()].into();
    let start = Start::Command { start, stop: None };
    Some(Arc::new(WakeSpec { start, wait: 20 * SECOND, stop_after: None }))
}

async fn until_there(file: &std::path::Path) {
    let there = async {
        while !file.exists() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(20 * SECOND, there).await.expect("the target was started");
}

#[tokio::test]
async fn a_client_stays_connected_while_its_target_starts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("started");
    let (target, targets) = target().await;
    let addr = target.local_addr().unwrap();
    drop(target);
    let mut spec = TcpSpec { route: Route::Targets(targets), options: TcpOptions::default() };
    spec.options.wake = waking(&file);
    let served = Served::open(spec).await;
    let mut clients = [served.client().await, served.client().await];
    for client in &mut clients {
        client.write_all(b"hello").await.unwrap();
    }
    until_there(&file).await;
    let target = TcpListener::bind(addr).await.unwrap();
    for _ in 0..clients.len() {
        let (mut reached, _) = timeout(20 * SECOND, target.accept()).await.unwrap().unwrap();
        reached.read_exact(&mut [0; 5]).await.unwrap();
        reached.write_all(b"!").await.unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.read_u8().await.unwrap(), b'!');
    }
}

#[tokio::test]
async fn a_player_hears_that_the_server_starts_and_neither_a_ping_nor_a_refused_client_starts_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("started");
    let wake = waking(&file);
    let deny = Entries { nets: ["127.0.0.0/8".parse().unwrap()].into(), ..Entries::default() };
    let access = AccessSpec { deny, ..AccessSpec::default() }.into();
    let closed = HostRoute { access, wake: wake.clone(), ..host(nowhere().await) };
    let open = HostRoute { wake, ..host(nowhere().await) };
    let hosts = vec![("closed.example.org", closed), ("mc.example.org", open)];
    let served = Served::open(asleep(by_name(Match::Minecraft, hosts, None))).await;
    let see = async |name: &str, next: u8| {
        let mut client = served.client().await;
        client.write_all(&minecraft(name, next)).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(see("mc.example.org", 1).await.contains("fast asleep"));
    assert_eq!(see("closed.example.org", 2).await, "");
    served.until_ended(Ended::Unreachable, 1).await;
    served.until_ended(Ended::Policy, 1).await;
    assert!(!file.exists());
    let kicked = see("mc.example.org", 2).await;
    assert!(kicked.contains("starting"), "{kicked}");
    until_there(&file).await;
    let status = see("mc.example.org", 1).await;
    assert!(status.contains("starting"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_read_behind_the_header_of_a_proxy() {
    let ((one, to_one), (_, to_other)) = (target().await, target().await);
    let hosts = vec![("one.example.org", host(to_one)), ("*.example.org", host(to_other))];
    let mut spec = by_name(Match::TlsSni, hosts, None);
    spec.options.accept_proxy = ["127.0.0.0/8".parse().unwrap()].into();
    spec.options.send_proxy = SendProxy::V1;
    let served = Served::open(spec).await;
    let bytes = [HEADER, &hello("one.example.org")].concat();
    for cut in [1, HEADER.len() - 1, HEADER.len(), HEADER.len() + 1, HEADER.len() + 60, bytes.len()] {
        let mut client = served.client().await;
        for part in [&bytes[..cut], &bytes[cut..]] {
            client.write_all(part).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        client.shutdown().await.unwrap();
        let (mut reached, _) = timeout(SECOND, one.accept()).await.unwrap().unwrap();
        let mut got = Vec::new();
        reached.read_to_end(&mut got).await.unwrap();
        assert!(got == bytes, "cut at {cut}");
    }
}
