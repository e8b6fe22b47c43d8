//! The listener and its flows over real loopback sockets.

mod headers;
mod probe;

use std::{
    collections::BTreeSet,
    future::Future,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
};

use socket2::{Domain, Socket, Type};
use tokio::{sync::oneshot, time::timeout};

use super::{
    flow::More,
    flow_table::{Arrival, FlowKey, Verdict},
    stopped::Ride,
    *,
};
use crate::{
    events::Events,
    mapping::{Host, ListenAddr, MappingName, Protocol, TargetAddr, Zone},
    meter::Ledger,
    policy::{Permit, Policy, Rate, Rates, Refusal},
    relay::Drain,
    sock::transparent::Source,
    targets::Place,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running listener.
pub(super) struct Relay {
    pub(super) addr: SocketAddr,
    pub(super) spec: watch::Sender<Arc<UdpSpec>>,
    pub(super) meter: Arc<ListenerMeter>,
    pub(super) budget: FlowBudget,
    pub(super) drops: Arc<UdpDrops>,
    pub(super) drain: Drain,
    pub(super) ended: Option<oneshot::Receiver<()>>,
    pub(super) flows: Arc<Flows>,
    pub(super) probes: Arc<Probes>,
    pub(super) admission: AdmissionHandle,
    pub(super) dialer: Dialer,
    pub(super) wakers: Wakers,
    pub(super) pool: PoolHandle,
}

pub(super) fn target_addr(addr: SocketAddr) -> TargetAddr {
    TargetAddr { host: Host::Ip(addr.ip(), None), port: NonZeroU16::new(addr.port()).unwrap() }
}

pub(super) fn leading_to(target: SocketAddr) -> UdpSpec {
    UdpSpec { targets: Targets::one(target_addr(target)), options: UdpOptions::default() }
}

pub(super) fn idle_after(spec: UdpSpec, idle: Duration) -> UdpSpec {
    UdpSpec { options: UdpOptions { idle_timeout: Timeout::After(idle), ..spec.options }, ..spec }
}

pub(super) fn bind(listen: SocketAddr) -> std::net::UdpSocket {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, None).unwrap();
    if listen.is_ipv6() {
        socket.set_only_v6(!listen.ip().is_unspecified()).unwrap();
    }
    socket.bind(&listen.into()).unwrap();
    socket.into()
}

impl Relay {
    pub(super) fn start(spec: UdpSpec) -> Self {
        Self::start_on("127.0.0.1:0", spec, FlowBudget::new(1000))
    }

    pub(super) fn start_on(listen: &str, spec: UdpSpec, budget: FlowBudget) -> Self {
        Self::start_behind(AdmissionHandle::open(), listen, spec, budget)
    }

    pub(super) fn start_behind(
        admission: AdmissionHandle,
        listen: &str,
        spec: UdpSpec,
        budget: FlowBudget,
    ) -> Self {
        let socket = bind(listen.parse().unwrap());
        Self::of(&socket, admission, spec, budget).serve(socket)
    }

    /// A listener that does not serve yet.
    pub(super) fn of(
        socket: &std::net::UdpSocket,
        admission: AdmissionHandle,
        spec: UdpSpec,
        budget: FlowBudget,
    ) -> Self {
        let addr = socket.local_addr().unwrap();
        let port = NonZeroU16::new(addr.port()).unwrap();
        let name = MappingName::new(&format!("{}/udp", addr.port())).unwrap();
        let meter = ListenerMeter::new(
            name,
            Protocol::Udp,
            ListenAddr { ip: addr.ip(), zone: None, port },
            Ledger::default(),
        );
        Self {
            addr,
            spec: watch::Sender::new(Arc::new(spec)),
            meter,
            budget,
            drops: Arc::default(),
            drain: Drain::new(),
            ended: None,
            flows: Arc::default(),
            probes: Arc::default(),
            admission,
            dialer: Dialer::new(Events::default()),
            wakers: Wakers::new(Events::default()),
            pool: PoolHandle::default(),
        }
    }

    pub(super) fn service(&self) -> UdpService {
        UdpService {
            spec: self.spec.subscribe(),
            dialer: self.dialer.clone(),
            wakers: self.wakers.clone(),
            pool: self.pool.clone(),
            meter: Arc::clone(&self.meter),
            admission: self.admission.clone(),
            budget: self.budget.clone(),
            joins: true,
            log: Arc::default(),
            drops: Arc::clone(&self.drops),
            tasks: self.drain.watch(),
            flows: Arc::clone(&self.flows),
            probes: Arc::clone(&self.probes),
        }
    }

    pub(super) fn serve(mut self, socket: std::net::UdpSocket) -> Self {
        let listener = self.service().register(socket).unwrap();
        let (end, ended) = oneshot::channel();
        let closing = self.drain.watch();
        self.drain.watch().spawn(async move {
            listener.run(closing).await;
            let _ = end.send(());
        });
        self.ended = Some(ended);
        self
    }

    pub(super) fn at(&self, ip: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(ip.into(), self.addr.port())
    }

    pub(super) async fn client(&self) -> UdpSocket {
        let socket = socket().await;
        socket.connect(self.addr).await.unwrap();
        socket
    }
}

/// The permit of an admitted client.
fn permit(client: SocketAddr) -> Permit {
    AdmissionHandle::open().current().admit(client.ip(), Protocol::Udp, Instant::now()).unwrap()
}

pub(super) async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// A target that sends everything back.
pub(super) async fn echo() -> SocketAddr {
    let socket = socket().await;
    let addr = socket.local_addr().unwrap();
    #[allow(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..len], from).await;
        }
    });
    addr
}

pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it happens in time")
}

pub(super) async fn recv_from(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (len, from) = soon(socket.recv_from(&mut buffer)).await.unwrap();
    buffer.truncate(len);
    (buffer, from)
}

pub(super) async fn recv(socket: &UdpSocket) -> Vec<u8> {
    recv_from(socket).await.0
}

pub(super) async fn ask(client: &UdpSocket, question: &[u8]) -> Vec<u8> {
    client.send(question).await.unwrap();
    recv(client).await
}

pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub(super) fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_of_every_size_pass_unchanged_both_ways() {
    let target = socket().await;
    let relay = Relay::start(leading_to(target.local_addr().unwrap()));
    let client = relay.client().await;
    let mut bytes = 0;
    for len in [0, 1, 1472, 1500, 2048, 9000, 65_507, 0] {
        let (question, answer) = (noise(len), noise(len).into_iter().rev().collect::<Vec<_>>());
        client.send(&question).await.unwrap();
        let (arrived, from) = recv_from(&target).await;
        assert!(arrived == question, "{len} bytes to the target");
        target.send_to(&answer, from).await.unwrap();
        assert!(recv(&client).await == answer, "{len} bytes to the client");
        bytes += len as u64;
    }
    let live = &relay.meter.live()[0];
    until(|| (live.bytes_in(), live.bytes_out()) == (bytes, bytes)).await;
    assert_eq!((relay.meter.sessions_total(), relay.drops.total()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_and_a_short_datagram_back_to_back_keep_their_contents() {
    let target = socket().await;
    let relay = Relay::start(leading_to(target.local_addr().unwrap()));
    let client = relay.client().await;
    for i in 0..10_000_u32 {
        let mark = (i % 251) as u8;
        let (long, short) = ([mark; 15], [!mark; 5]);
        client.send(&long).await.unwrap();
        client.send(&short).await.unwrap();
        assert_eq!(recv(&target).await, long);
        assert_eq!(recv(&target).await, short);
    }
    assert_eq!(relay.meter.sessions_total(), 1);
}

/// Sends numbered datagrams in bursts, each of which is answered before the next, so that no queue
/// overflows.
async fn numbered_bursts(from: &UdpSocket, to: SocketAddr, at: &UdpSocket, first_len: usize) {
    let mut number = 0_u32;
    for burst in 0..200 {
        // Of one size, of several, and with a shorter one in between: what is joined differs, what
        // arrives may not.
        let sizes = |i: u32| match burst % 3 {
            0 => first_len,
            1 => first_len + (i % 5) as usize * 100,
            _ => first_len - (i % 7 / 6) as usize * 3,
        };
        let base = number;
        for i in 0..50 {
            let mut payload = noise(sizes(i));
            payload[..4].copy_from_slice(&number.to_be_bytes());
            from.send_to(&payload, to).await.unwrap();
            number += 1;
        }
        for i in 0..50 {
            let arrived = recv(at).await;
            assert_eq!(arrived[..4], (base + i).to_be_bytes(), "in order, none twice, none lost");
            assert_eq!(arrived.len(), sizes(i));
            assert!(arrived[4..] == noise(arrived.len())[4..]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_of_a_flow_arrive_in_order_to_the_target() {
    let target = socket().await;
    let relay = Relay::start(leading_to(target.local_addr().unwrap()));
    let client = socket().await;
    numbered_bursts(&client, relay.addr, &target, 600).await;
    assert_eq!((relay.meter.sessions_total(), relay.drops.total()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_of_a_flow_arrive_in_order_to_the_client() {
    let target = socket().await;
    let relay = Relay::start(leading_to(target.local_addr().unwrap()));
    let client = relay.client().await;
    client.send(b"hello").await.unwrap();
    let (_, flow) = recv_from(&target).await;
    numbered_bursts(&target, flow, &client, 600).await;
    assert_eq!((relay.meter.sessions_total(), relay.drops.total()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joined_send_of_the_client_arrives_as_the_datagrams_it_was() {
    let target = socket().await;
    let relay = Relay::start(leading_to(target.local_addr().unwrap()));
    let client = socket().await;
    let offload = sockets::offload(relay.addr).unwrap();
    let contents = noise(1200 * 40 + 7);
    let transmit = quinn_udp::Transmit {
        destination: relay.addr,
        ecn: None,
        contents: &contents,
        segment_size: Some(1200),
        src_ip: None,
    };
    // The first one starts the flow, the second meets it. Not every kernel joins.
    for _ in 0..2 {
        if offload.max_gso_segments() < 41 || offload.try_send((&client).into(), &transmit).is_err() {
            return;
        }
        for datagram in contents.chunks(1200) {
            assert!(recv(&target).await == datagram);
        }
    }
    assert_eq!((relay.meter.sessions_total(), relay.drops.total()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_leave_from_the_address_the_client_hit() {
    let target = echo().await;
    let (one, two) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let relay = Relay::start_on(listen, leading_to(target), FlowBudget::new(100));
        let client = socket().await;
        for hit in [one, two, one] {
            client.send_to(b"question", relay.at(hit)).await.unwrap();
            assert_eq!(recv_from(&client).await.1, relay.at(hit), "on {listen}");
        }
        assert_eq!(relay.meter.sessions_total(), 2, "one for each address the client hit");
        let canonical = relay.meter.live().iter().all(|live| live.client == client.local_addr().unwrap());
        assert!(canonical, "an IPv4 client is an IPv4 client");
        if relay.addr.is_ipv6() {
            let client = UdpSocket::bind("[::1]:0").await.unwrap();
            client.send_to(b"question", relay.at(Ipv6Addr::LOCALHOST)).await.unwrap();
            assert_eq!(recv_from(&client).await.1, relay.at(Ipv6Addr::LOCALHOST));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ipv6_listener_leads_to_an_ipv6_target() {
    let target = UdpSocket::bind("[::1]:0").await.unwrap();
    let relay = Relay::start_on("[::1]:0", leading_to(target.local_addr().unwrap()), FlowBudget::new(9));
    let client = UdpSocket::bind("[::1]:0").await.unwrap();
    for len in [0, 1, 9000, 65_507] {
        client.send_to(&noise(len), relay.addr).await.unwrap();
        let (arrived, from) = recv_from(&target).await;
        assert!(arrived == noise(len));
        target.send_to(&arrived, from).await.unwrap();
        assert!(recv(&client).await == noise(len));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_option_is_the_address_the_target_sees() {
    let target = socket().await;
    let mut spec = leading_to(target.local_addr().unwrap());
    spec.options.source = Some([127, 0, 0, 5].into());
    let relay = Relay::start(spec);
    let client = relay.client().await;
    client.send(b"hello").await.unwrap();
    assert_eq!(recv_from(&target).await.1.ip(), IpAddr::from([127, 0, 0, 5]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_refused_datagram_arrives_once_the_target_is_up() {
    for _ in 0..5 {
        let addr = {
            let target = UdpSocket::bind("127.0.0.77:0").await.unwrap();
            target.local_addr().unwrap()
        };
        let relay = Relay::start(leading_to(addr));
        let client = relay.client().await;
        client.send(b"A").await.unwrap();
        until(|| relay.drops.count(DropReason::TargetRefused) > 0).await;
        // Another program may have taken the port meanwhile.
        let Ok(target) = UdpSocket::bind(addr).await else { continue };
        client.send(b"B").await.unwrap();
        assert_eq!(recv(&target).await, b"B");
        assert_eq!((relay.meter.live_count(), relay.meter.sessions_total()), (1, 1), "the flow lives on");
        return;
    }
    panic!("the port was taken five times");
}

#[tokio::test]
async fn the_error_of_an_earlier_datagram_does_not_cost_the_next_one() {
    let addr = bind("127.0.0.78:0".parse().unwrap()).local_addr().unwrap();
    let client = socket().await.local_addr().unwrap();
    let listen = ListenAddr::every(NonZeroU16::MIN);
    let meter =
        ListenerMeter::new(MappingName::new("1/udp").unwrap(), Protocol::Udp, listen, Ledger::default());
    let key = FlowKey { client, local: None };
    let offload = sockets::offload(client).unwrap();
    let permits = (FlowBudget::new(1).take().unwrap(), permit(client));
    let flow = Flow::new(key, meter.open(client), permits, None, true, More::default());
    let (way, peer) = sockets::connect(addr, Source::Any).unwrap();
    let (of, joins) = (target_addr(addr), batch::JoinLimit::new(true));
    let way = flow::Target { socket: way, peer, addr, of, member: None, joins, is_introduced: false.into() };
    flow.reached(way, Place::default());
    // No task reads the flow's socket, so that the error meets the send.
    assert_eq!(flow.send_to_target(Run::single(b"A"), &offload).refused, 0);
    let target = UdpSocket::bind(addr).await.unwrap();
    assert_eq!(flow.send_to_target(Run::single(b"B"), &offload).refused, 1, "which was A");
    assert_eq!(recv(&target).await, b"B");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_one_way_stream_keeps_its_source_port_over_three_timeouts() {
    let idle = Duration::from_millis(400);
    for _ in 0..10 {
        let target = socket().await;
        let relay = Relay::start(idle_after(leading_to(target.local_addr().unwrap()), idle));
        let client = relay.client().await;
        let (started, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        let mut ports = BTreeSet::new();
        while started.elapsed() < idle * 3 + idle / 2 {
            client.send(b"tick").await.unwrap();
            ports.insert(recv_from(&target).await.1.port());
            longest = longest.max(last.elapsed());
            last = Instant::now();
            tokio::time::sleep(idle / 20).await;
        }
        // A machine that stood still for half a timeout proves nothing.
        if longest < idle / 2 {
            assert_eq!(ports.len(), 1);
            return;
        }
    }
    panic!("the machine is too slow for this test");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_alone_keep_a_flow_alive() {
    let idle = Duration::from_millis(400);
    for _ in 0..10 {
        let target = socket().await;
        let relay = Relay::start(idle_after(leading_to(target.local_addr().unwrap()), idle));
        let client = relay.client().await;
        client.send(b"subscribe").await.unwrap();
        let (_, flow) = recv_from(&target).await;
        let (started, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        while started.elapsed() < idle * 2 && longest < idle / 2 {
            target.send_to(b"news", flow).await.unwrap();
            assert_eq!(recv(&client).await, b"news");
            longest = longest.max(last.elapsed());
            last = Instant::now();
            tokio::time::sleep(idle / 20).await;
        }
        if longest < idle / 2 {
            assert_eq!((relay.meter.live_count(), relay.meter.sessions_total()), (1, 1));
            return;
        }
    }
    panic!("the machine is too slow for this test");
}

#[tokio::test]
async fn datagrams_that_wait_for_a_lookup_count_against_their_clients_rate() {
    let target = socket().await;
    let port = NonZeroU16::new(target.local_addr().unwrap().port()).unwrap();
    let by_name = TargetAddr { host: Host::name("localhost").unwrap(), port };
    let mut spec = UdpSpec { targets: Targets::one(by_name), options: UdpOptions::default() };
    // The name may have an IPv6 address, too, where nothing listens.
    spec.options.source = Some(Ipv4Addr::LOCALHOST.into());
    let three = 3.try_into().unwrap();
    let rate = Rate { count: three, per: Duration::from_secs(3600), burst: three };
    let rates = Rates { datagrams_per_client: Some(rate), ..Rates::default() };
    let admission = AdmissionHandle::under(Policy { rates, ..Policy::default() });
    let relay = Relay::start_behind(admission.clone(), "127.0.0.1:0", spec, FlowBudget::new(10));
    let client = relay.client().await;
    // Nothing else runs on this thread meanwhile, so that all of them meet a connecting flow.
    for i in 0..10_u8 {
        client.send(&[i]).await.unwrap();
    }
    for i in 0..3_u8 {
        assert_eq!(recv(&target).await, [i]);
    }
    until(|| admission.current().refused(Refusal::DatagramRate) == 7).await;
    until(|| relay.meter.live().iter().all(|live| live.bytes_in() == 3)).await;
    assert_eq!((relay.meter.sessions_total(), relay.drops.total()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_budget_drops_new_flows_and_keeps_those_with_open_questions() {
    let target = socket().await;
    let to = target.local_addr().unwrap();
    let budget = FlowBudget::new(2);
    let relay = Relay::start_on("127.0.0.1:0", leading_to(to), budget.clone());
    let other = Relay::start_on("127.0.0.1:0", leading_to(to), budget.clone());
    let (first, second, third) = (relay.client().await, other.client().await, relay.client().await);
    first.send(b"1").await.unwrap();
    let (_, flow) = recv_from(&target).await;
    second.send(b"2").await.unwrap();
    assert_eq!(recv(&target).await, b"2");
    third.send(b"3").await.unwrap();
    until(|| relay.drops.count(DropReason::FlowLimit) == 1).await;
    target.send_to(b"answer", flow).await.unwrap();
    assert_eq!(recv(&first).await, b"answer");
    first.send(b"1 again").await.unwrap();
    assert_eq!(recv(&target).await, b"1 again");
    assert_eq!((relay.meter.sessions_total(), budget.used()), (1, 2));
    // A flow that ends makes room, for whichever listener.
    other.meter.cut_all(Ended::ClosedByOperator);
    until(|| budget.used() == 1).await;
    third.send(b"3 again").await.unwrap();
    assert_eq!(recv(&target).await, b"3 again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_room_the_oldest_flow_that_was_answered_makes_way() {
    let target = echo().await;
    let budget = FlowBudget::new(3);
    let relay = Relay::start_on("127.0.0.1:0", leading_to(target), budget.clone());
    for i in 0..100_u8 {
        assert_eq!(ask(&relay.client().await, &[i]).await, [i]);
    }
    until(|| relay.meter.live_count() == 3).await;
    assert_eq!((relay.meter.ended_total(Ended::Idle), relay.drops.total()), (97, 0));
    assert_eq!(budget.used(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_clients_stays_within_the_budget_and_leaves_nothing() {
    let target = socket().await;
    let spec = idle_after(leading_to(target.local_addr().unwrap()), Duration::from_millis(300));
    let relay = Relay::start_on("127.0.0.1:0", spec, FlowBudget::new(200));
    let mut clients = Vec::new();
    for _ in 0..600 {
        let client = relay.client().await;
        client.send(b"let me in").await.unwrap();
        assert!(relay.budget.used() <= 200 && relay.meter.live_count() <= 200);
        clients.push(client);
    }
    until(|| relay.meter.sessions_total() + relay.drops.total() >= 600).await;
    until(|| relay.meter.live_count() == 0 && relay.budget.used() == 0).await;
    assert_eq!(relay.drain.task_count(), 1, "only the listener is left");
    let late = relay.client().await;
    late.send(b"now?").await.unwrap();
    until(|| relay.meter.live_count() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_flow_is_closed_and_its_next_datagram_starts_another() {
    let target = socket().await;
    let relay = Relay::start(idle_after(leading_to(target.local_addr().unwrap()), Duration::from_millis(50)));
    let client = relay.client().await;
    client.send(b"hello").await.unwrap();
    let (_, flow) = recv_from(&target).await;
    until(|| relay.meter.live_count() == 0).await;
    assert_eq!(relay.budget.used(), 0);
    // Its socket is closed: the port is free.
    until(|| std::net::UdpSocket::bind(flow).is_ok() || relay.drain.task_count() == 1).await;
    client.send(b"hello again").await.unwrap();
    assert_eq!(recv(&target).await, b"hello again");
    assert_eq!(relay.meter.sessions_total(), 2);
}

#[tokio::test]
async fn a_flow_ends_once_with_the_true_reason() {
    let target = echo().await;
    let relay = Relay::start(idle_after(leading_to(target), Duration::from_millis(20)));
    let client = relay.client().await;
    assert_eq!(ask(&client, b"1").await, b"1");
    until(|| relay.meter.live_count() == 0).await;
    relay.spec.send_replace(Arc::new(leading_to(target)));
    assert_eq!(ask(&client, b"2").await, b"2");
    relay.meter.cut_all(Ended::Reload);
    until(|| relay.meter.live_count() == 0).await;
    let nowhere = Host::Ip(Ipv6Addr::LOCALHOST.into(), Zone::new("no-such-if0"));
    let nowhere = TargetAddr { host: nowhere, port: NonZeroU16::MIN };
    relay.spec.send_replace(Arc::new(UdpSpec { targets: Targets::one(nowhere), ..leading_to(target) }));
    client.send(b"3").await.unwrap();
    until(|| relay.meter.sessions_total() == 3 && relay.meter.live_count() == 0).await;
    for reason in Ended::ALL {
        let expected = u64::from(matches!(reason, Ended::Idle | Ended::Reload | Ended::Unreachable));
        assert_eq!(relay.meter.ended_total(reason), expected, "{reason:?}");
    }
    assert_eq!(relay.budget.used(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_cannot_be_reached_does_not_stop_the_listener() {
    let target = echo().await;
    let nowhere = Host::Ip(Ipv6Addr::LOCALHOST.into(), Zone::new("no-such-if0"));
    let nowhere = TargetAddr { host: nowhere, port: NonZeroU16::MIN };
    let relay = Relay::start(UdpSpec { targets: Targets::one(nowhere), ..leading_to(target) });
    let client = relay.client().await;
    client.send(b"lost").await.unwrap();
    until(|| relay.drops.count(DropReason::Unreachable) == 1 && relay.meter.live_count() == 0).await;
    // For a while no other flow is tried.
    client.send(b"lost too").await.unwrap();
    until(|| relay.drops.count(DropReason::Unreachable) == 2).await;
    assert_eq!(relay.meter.sessions_total(), 1);
    relay.spec.send_replace(Arc::new(leading_to(target)));
    // The listener takes the new spec at its next turn.
    soon(async {
        loop {
            client.send(b"found").await.unwrap();
            let mut answer = [0; 9];
            if let Ok(Ok(5)) = timeout(Duration::from_millis(20), client.recv(&mut answer)).await {
                break;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_target_is_taken_where_the_first_does_not_resolve() {
    let target = echo().await;
    let nowhere = Host::Ip(Ipv6Addr::LOCALHOST.into(), Zone::new("no-such-if0"));
    let nowhere = TargetAddr { host: nowhere, port: NonZeroU16::MIN };
    let targets = Targets::new([nowhere, target_addr(target)].map(Into::into)).unwrap();
    let relay = Relay::start(UdpSpec { targets, ..leading_to(target) });
    let client = relay.client().await;
    assert_eq!(ask(&client, b"hello").await, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_takes_no_new_flows_and_lets_the_old_ones_go_on() {
    let target = echo().await;
    let relay = Relay::start(leading_to(target));
    let (old, new) = (relay.client().await, relay.client().await);
    assert_eq!(ask(&old, b"before").await, b"before");
    relay.drain.close();
    until(|| relay.drain.watch().is_closing()).await;
    // The listener hears of it at its next turn, so the newcomer's first datagram may still be in
    // time.
    soon(async {
        while relay.drops.count(DropReason::Draining) == 0 {
            let another = relay.client().await;
            another.send(b"too late").await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let sessions = relay.meter.sessions_total();
    new.send(b"too late").await.unwrap();
    assert_eq!(ask(&old, b"during").await, b"during");
    assert_eq!(relay.meter.sessions_total(), sessions);
    relay.meter.cut_all(Ended::Shutdown);
    soon(relay.ended.unwrap()).await.unwrap();
    // Its socket is closed by then, not a moment later.
    let _free = bind(relay.addr);
    soon(relay.drain.finished()).await;
    assert_eq!((relay.meter.live_count(), relay.budget.used()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_without_flows_ends_at_once() {
    let relay = Relay::start(leading_to(echo().await));
    relay.drain.close();
    soon(relay.ended.unwrap()).await.unwrap();
    let _free = bind(relay.addr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_targets_are_for_new_flows() {
    let (first, second) = (socket().await, socket().await);
    let relay = Relay::start(leading_to(first.local_addr().unwrap()));
    let old = relay.client().await;
    old.send(b"old").await.unwrap();
    assert_eq!(recv(&first).await, b"old");
    relay.spec.send_replace(Arc::new(leading_to(second.local_addr().unwrap())));
    let new = relay.client().await;
    new.send(b"new").await.unwrap();
    assert_eq!(recv(&second).await, b"new");
    old.send(b"still old").await.unwrap();
    assert_eq!(recv(&first).await, b"still old");
}

/// What a listener in front of `target` shares with its flows.
fn shared(target: SocketAddr, meter: Arc<ListenerMeter>, budget: FlowBudget) -> ListenerShared {
    ListenerShared {
        socket: sockets::listener(bind("127.0.0.1:0".parse().unwrap()), true).unwrap(),
        kernel_joins: true,
        offload: sockets::offload(target).unwrap(),
        table: Mutex::new(FlowTable::new(Timeout::Never, budget)),
        rearm: Notify::new(),
        drops: Arc::default(),
        log: Arc::default(),
        held: MemoryUse::default(),
        spec: watch::channel(Arc::new(leading_to(target))).1,
        dialer: Dialer::new(Events::default()),
        pool: PoolHandle::default(),
        meter,
        tasks: DrainWatch::default(),
        flows: Arc::default(),
        alive: mpsc::channel(1).0.downgrade(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_had_to_wait_are_sent_whole_and_in_order() {
    let listen = ListenAddr::every(NonZeroU16::MIN);
    let meter =
        ListenerMeter::new(MappingName::new("1/udp").unwrap(), Protocol::Udp, listen, Ledger::default());
    let client = socket().await;
    let addr = client.local_addr().unwrap();
    let budget = FlowBudget::new(1);
    let listener = shared(addr, meter.clone(), budget.clone());
    let permits = (budget.take().unwrap(), permit(addr));
    let flow = Flow::new(
        FlowKey { client: addr, local: None },
        meter.open(addr),
        permits,
        None,
        true,
        More::default(),
    );
    let bytes = noise(2500);
    let mut held = return_path::Held::new(&listener, Run::new(&bytes, 1000)).unwrap();
    assert!(
        return_path::Held::new(&listener, Run::new(&vec![0; return_path::HELD_FOR_CLIENTS], 1000)).is_none()
    );
    held.send(&listener, &flow).await;
    drop(held);
    for datagram in bytes.chunks(1000) {
        assert!(recv(&client).await == datagram);
    }
    assert_eq!((listener.held.0.load(Relaxed), listener.drops.total()), (0, 0));
}

#[tokio::test]
async fn sockets_allow_fragmentation() {
    use rustix::net::sockopt::{
        Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, ip_mtu_discover, ipv6_mtu_discover,
    };
    for listen in ["127.0.0.1:0", "[::]:0"] {
        let listener = sockets::listener(bind(listen.parse().unwrap()), true).unwrap();
        assert!(matches!(ip_mtu_discover(&listener), Ok(Ipv4PathMtuDiscovery::DONT)));
        let v6 = listener.local_addr().unwrap().is_ipv6();
        assert!(!v6 || matches!(ipv6_mtu_discover(&listener), Ok(Ipv6PathMtuDiscovery::DONT)));
    }
    let (flow, _) = sockets::connect("127.0.0.1:9".parse().unwrap(), Source::Any).unwrap();
    assert!(matches!(ip_mtu_discover(&flow), Ok(Ipv4PathMtuDiscovery::DONT)));
}

#[tokio::test]
async fn an_idle_flow_costs_less_than_two_kibibytes() {
    let target = socket().await.local_addr().unwrap();
    let relay = Relay::start(leading_to(target));
    let client = relay.client().await;
    client.send(b"hello").await.unwrap();
    until(|| relay.meter.live_count() == 1).await;
    let (alive, _gone) = mpsc::channel(1);
    let listener = Arc::new(shared(target, relay.meter.clone(), FlowBudget::new(1)));
    let key = FlowKey { client: target, local: None };
    let permits = (FlowBudget::new(1).take().unwrap(), permit(target));
    let flow = Arc::new(Flow::new(key, relay.meter.open(target), permits, None, false, More::default()));
    let now = Instant::now().into_std();
    let arrival = Arrival { key, client: target.ip(), payload: b"", count: 1, now };
    let id = match listener.table().datagram(arrival, |_| Ok(()), || Ok(()), drop, |_, ()| Arc::clone(&flow))
    {
        Verdict::New(id, _) => id,
        verdict => panic!("{verdict:?}"),
    };
    let way = (Dialer::new(Events::default()), Arc::default());
    let connecting = Connecting::begin(Arc::clone(&flow), Arc::new(leading_to(target)), way);
    let task = return_path::run((Arc::clone(&listener), alive), flow, id, connecting, Ride::default());
    assert!(size_of_val(&task) + size_of::<Flow>() < 1280, "{} + {}", size_of_val(&task), size_of::<Flow>());
}
