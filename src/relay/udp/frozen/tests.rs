//! Flows that stand still and go on, over real loopback sockets: in the same process, and in what
//! stands for the next one, which has nothing of it but JSON, bytes and copies of the sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{Mutex, atomic::Ordering::Relaxed},
};

use tokio::net::UdpSocket;

use super::*;
use crate::{
    fixture::{LogCatcher, Random, each_spoilt},
    mapping::Timeout,
    preface::proxy::SendProxy,
    relay::udp::{
        DropReason, FlowBudget, UdpSpec,
        stopped::Reply,
        tests::{Relay, bind, leading_to, noise, recv, recv_from, socket, soon, target_addr, until},
    },
    targets::Targets,
};

/// What went over.
struct Message {
    json: String,
    sockets: Vec<std::os::fd::OwnedFd>,
    bytes: Vec<u8>,
}

impl Message {
    fn of(frozen: &FrozenUdp) -> Self {
        let mut packer = Packer::default();
        let record = frozen.pack(&mut packer).unwrap();
        let (sockets, bytes) = packer.into_parts();
        let sockets = sockets.values().map(|socket| socket.try_clone_to_owned().unwrap()).collect();
        Self { json: serde_json::to_string(&record).unwrap(), sockets, bytes }
    }

    fn unpacker(&self) -> Unpacker {
        let mut unpacker = Unpacker::new(self.bytes.clone());
        for socket in &self.sockets {
            unpacker.add(socket.try_clone().unwrap());
        }
        unpacker
    }
}

/// The socket of a listener, for the next process.
fn listening_socket(relay: &Relay) -> std::net::UdpSocket {
    let listener = relay.flows.listener().unwrap();
    listener.socket.as_fd().try_clone_to_owned().unwrap().into()
}

/// A listener of the next process, which has the same plan and serves already, but is held.
fn successor(old: &Relay) -> (Relay, FrozenUdp) {
    let (socket, spec) = (listening_socket(old), (**old.spec.borrow()).clone());
    let new = Relay::of(&socket, old.admission.clone(), spec, FlowBudget::new(1000));
    let held = FrozenUdp::held(&new.flows);
    (new.serve(socket), held)
}

async fn freeze(relay: &Relay) -> FrozenUdp {
    let frozen = FrozenUdp::freeze(&relay.flows, &relay.meter).await;
    assert_eq!(frozen.left(), 0, "all flows stopped");
    frozen
}

/// Hands all over, does something while everything stands still, and waits for the end of the old
/// listener.
async fn hand_over_while<F: Future<Output = ()>>(old: Relay, meanwhile: impl FnOnce() -> F) -> Relay {
    let frozen = freeze(&old).await;
    let message = Message::of(&frozen);
    let (new, mut taken) = successor(&old);
    let mut unpacker = message.unpacker();
    let record = serde_json::from_str(&message.json).unwrap();
    assert!(taken.take_over(&record, &mut unpacker, &new.service()).is_empty());
    assert_eq!(unpacker.left(), 0);
    meanwhile().await;
    frozen.let_go(&HashSet::new());
    taken.resume();
    soon(old.ended.unwrap()).await.unwrap();
    assert_eq!((old.meter.live_count(), old.budget.used()), (0, 0));
    new
}

async fn hand_over(old: Relay) -> Relay {
    hand_over_while(old, async || {}).await
}

/// Stands still, does something, and goes on in the same process.
async fn roll_back_while<F: Future<Output = ()>>(relay: &Relay, meanwhile: impl FnOnce() -> F) {
    let frozen = freeze(relay).await;
    // Whatever happened to the message.
    drop(Message::of(&frozen));
    meanwhile().await;
    frozen.resume();
}

/// A relay with an open flow: its client, the target, and the flow's address there.
async fn open_flow(spec: impl FnOnce(UdpSpec) -> UdpSpec) -> (Relay, UdpSocket, UdpSocket, SocketAddr) {
    let target = socket().await;
    let relay = Relay::start(spec(leading_to(target.local_addr().unwrap())));
    let client = relay.client().await;
    client.send(b"hello").await.unwrap();
    let (_, flow) = recv_from(&target).await;
    target.send_to(b"welcome", flow).await.unwrap();
    assert_eq!(recv(&client).await, b"welcome");
    (relay, client, target, flow)
}

/// What is sent while a flow stands still arrives afterwards, once and in order.
async fn both_ways(client: &UdpSocket, target: &UdpSocket, flow: SocketAddr) {
    for number in 0..50_u8 {
        client.send(&[number; 100]).await.unwrap();
        target.send_to(&[number; 200], flow).await.unwrap();
    }
}

async fn arrives(client: &UdpSocket, target: &UdpSocket, flow: SocketAddr) {
    for number in 0..50_u8 {
        let (datagram, from) = recv_from(target).await;
        assert_eq!((datagram, from), (vec![number; 100], flow), "from the same port as before");
        assert_eq!(recv(client).await, [number; 200]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_flow_goes_on_in_the_next_process_and_no_datagram_is_lost() {
    let (old, client, target, flow) = open_flow(|spec| spec).await;
    let (id, started) = (old.meter.live()[0].id, old.meter.live()[0].started);
    let began = Instant::now();
    let new = hand_over_while(old, async || both_ways(&client, &target, flow).await).await;
    let took = began.elapsed();
    arrives(&client, &target, flow).await;
    assert_eq!(ask_back(&client, &target).await, flow);
    let live = &new.meter.live()[0];
    // A datagram is counted after it was sent.
    until(|| (live.bytes_in(), live.bytes_out()) == (5 + 50 * 100 + 1, 7 + 50 * 200 + 1)).await;
    assert_eq!(live.id, id);
    assert!(live.started.duration_since(started) <= took, "it is as old as before");
    assert_eq!((new.meter.sessions_total(), new.drops.total(), new.budget.used()), (0, 0, 1));
    assert_eq!(new.admission.current().inside(), 1);
}

/// One question and one answer; the flow's address at the target.
async fn ask_back(client: &UdpSocket, target: &UdpSocket) -> SocketAddr {
    client.send(b"?").await.unwrap();
    let (_, flow) = recv_from(target).await;
    target.send_to(b"!", flow).await.unwrap();
    assert_eq!(recv(client).await, b"!");
    flow
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_roll_back_all_goes_on_as_if_nothing_had_happened() {
    let (relay, client, target, flow) = open_flow(|spec| spec).await;
    for _ in 0..20 {
        roll_back_while(&relay, async || both_ways(&client, &target, flow).await).await;
        arrives(&client, &target, flow).await;
    }
    assert_eq!((relay.meter.sessions_total(), relay.meter.live_count(), relay.drops.total()), (1, 1, 0));
    let other = relay.client().await;
    other.send(b"new").await.unwrap();
    assert_eq!(recv(&target).await, b"new", "the listener takes new flows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_is_broken_off_leaves_all_running() {
    let (relay, client, target, flow) = open_flow(|spec| spec).await;
    for _ in 0..50 {
        let freezing = FrozenUdp::freeze(&relay.flows, &relay.meter);
        let _ = timeout(Duration::from_micros(10), freezing).await;
        assert_eq!(ask_back(&client, &target).await, flow);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_without_a_target_yet_takes_its_datagrams_along() {
    let (dir, target) = (tempfile::tempdir().unwrap(), socket().await);
    let mut spec = leading_to(target.local_addr().unwrap());
    let file = dir.path().join("go");
    // It ends with the test at the latest.
    let wait = "echo begun >> \"$0.log\"; while test -d \"${0%/*}\" && ! test -e \"$0\"; do sleep 0.02; done";
    let start = ["sh", "-c", wait, &file.display().to_string()].map(str::to_owned);
    let start = crate::wake::Start::Command { start: start.into(), stop: None };
    let wait = Duration::from_secs(20);
    spec.options.wake = Some(Arc::new(crate::wake::WakeSpec { start, wait, stop_after: None }));
    let old = Relay::start(spec);
    let client = old.client().await;
    let send = async |numbers: std::ops::Range<u8>| {
        for number in numbers {
            client.send(&[number; 9]).await.unwrap();
        }
    };
    send(0..3).await;
    until(|| dir.path().join("go.log").exists() && held(&old) == 3).await;
    roll_back_while(&old, async || send(3..5).await).await;
    until(|| held(&old) == 5).await;
    let new = hand_over_while(old, async || send(5..9).await).await;
    until(|| held(&new) == 9).await;
    std::fs::write(&file, "").unwrap();
    for number in 0..9 {
        assert_eq!(recv(&target).await, [number; 9]);
    }
    assert_eq!((new.meter.live_count(), new.drops.total()), (1, 0));
}

/// Datagrams that wait for the target of the only flow.
fn held(relay: &Relay) -> usize {
    let Some(listener) = relay.flows.listener() else { return 0 };
    let table = listener.table();
    let shapes: Vec<_> = table.all_shapes().collect();
    match &shapes[..] {
        [Shape::Connecting { held, .. }] => held.len(),
        _ => 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_that_the_kernel_joins_keep_their_datagrams() {
    let (relay, client, target, flow) = open_flow(|spec| spec).await;
    let burst = async |from: u32| {
        for number in from..from + 60 {
            let mut payload = noise(700);
            payload[..4].copy_from_slice(&number.to_be_bytes());
            target.send_to(&payload, flow).await.unwrap();
        }
    };
    let whole = async |from: u32| {
        for number in from..from + 60 {
            let payload = recv(&client).await;
            assert_eq!((&payload[..4], payload.len()), (&number.to_be_bytes()[..], 700));
            assert!(payload[4..] == noise(700)[4..]);
        }
    };
    let joined = || {
        relay
            .flows
            .listener()
            .unwrap()
            .table()
            .all()
            .all(|flow| crate::sock::udp::is_joined(&flow.target().unwrap().socket))
    };
    let mut number = 0;
    while !joined() {
        burst(number).await;
        whole(number).await;
        number += 60;
    }
    roll_back_while(&relay, async || burst(number).await).await;
    whole(number).await;
    number += 60;
    let new = hand_over_while(relay, async || burst(number).await).await;
    whole(number).await;
    burst(number + 60).await;
    whole(number + 60).await;
    assert_eq!(new.drops.total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_knows_the_client_is_not_introduced_to_it_again() {
    for (form, headers) in [(SendProxy::V2, [1, 0, 0]), (SendProxy::V2Each, [1, 1, 1])] {
        let target = socket().await;
        let mut spec = leading_to(target.local_addr().unwrap());
        spec.options.send_proxy = form;
        let old = Relay::start(spec);
        let client = old.client().await;
        let mut met = Vec::new();
        let mut relay = old;
        for _ in 0..3 {
            client.send(b"payload").await.unwrap();
            let datagram = recv(&target).await;
            met.push((datagram.len() - 7, datagram));
            relay = hand_over(relay).await;
        }
        let has = met.iter().map(|(header, _)| usize::from(*header > 0)).collect::<Vec<_>>();
        assert_eq!(has, headers, "{form:?}");
        if form == SendProxy::V2Each {
            assert!(met.iter().all(|(_, datagram)| *datagram == met[0].1), "the same header as before");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_of_a_listed_peer_stays_the_one_that_its_header_named() {
    let target = socket().await;
    let mut spec = leading_to(target.local_addr().unwrap());
    spec.options.accept_proxy = ["127.0.0.0/8".parse().unwrap()].into();
    let old = Relay::start(spec);
    let peer = old.client().await;
    let addresses = crate::preface::proxy::Addresses {
        source: "203.0.113.9:50312".parse().unwrap(),
        destination: "192.0.2.1:53".parse().unwrap(),
    };
    let (id, authority, received) = (&b""[..], None, None);
    let protocol = crate::mapping::Protocol::Udp;
    let outgoing = crate::preface::proxy::Outgoing { protocol, addresses, id, authority, received };
    let header = outgoing.encode(SendProxy::V2);
    peer.send(&[&header[..], b"first"].concat()).await.unwrap();
    let (first, flow) = recv_from(&target).await;
    assert_eq!(first, b"first");
    let new = hand_over(old).await;
    peer.send(b"without a header").await.unwrap();
    assert_eq!(recv_from(&target).await, (b"without a header".to_vec(), flow));
    target.send_to(b"answer", flow).await.unwrap();
    assert_eq!(recv(&peer).await, b"answer");
    assert_eq!(new.meter.live()[0].client, addresses.source);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bandwidth_that_is_used_up_stays_used_up() {
    let (relay, client, target, _) = open_flow(|mut spec| {
        spec.options.bandwidth = std::num::NonZeroU64::new(10_000);
        spec
    })
    .await;
    // A full bucket takes one datagram of any size, and is in debt for it for six seconds.
    tokio::time::sleep(Duration::from_millis(120)).await;
    client.send(&noise(60_000)).await.unwrap();
    assert_eq!(recv(&target).await.len(), 60_000);
    let new = hand_over(relay).await;
    client.send(b"too much").await.unwrap();
    until(|| new.drops.count(DropReason::Bandwidth) == 1).await;
    let buckets = new.flows.listener().unwrap().table().all().next().unwrap().bandwidth().unwrap();
    let owed = serde_json::to_value(buckets[0].record(Instant::now())).unwrap()["owed_us"].as_u64().unwrap();
    assert!((4_000_000..6_000_000).contains(&owed), "{owed} µs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_flow_has_no_more_time_than_it_had_and_its_line_is_written_once() {
    let (relay, client, target, flow) = open_flow(|mut spec| {
        spec.options.idle_timeout = Timeout::After(Duration::from_secs(3));
        spec
    })
    .await;
    let opened = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let new = hand_over(relay).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    let third = hand_over(new).await;
    until(|| third.meter.live_count() == 0).await;
    assert!((2900..4500).contains(&opened.elapsed().as_millis()), "{:?}", opened.elapsed());
    assert_eq!(third.meter.ended_total(Ended::Idle), 1);
    assert_ne!(ask_back(&client, &target).await, flow, "another flow begins");
}

#[tokio::test]
async fn neither_process_tells_of_a_flow_that_changed_hands_before_its_end() {
    let log = LogCatcher::start();
    let (old, client, ..) = open_flow(|spec| spec).await;
    let new = hand_over(old).await;
    assert!(!log.lines().iter().any(|line| line.contains("session ended")));
    new.meter.cut_all(Ended::ClosedByOperator);
    until(|| new.meter.live_count() == 0).await;
    let lines = log.lines().join("\n");
    assert_eq!(lines.matches("session ended").count(), 1, "{lines}");
    assert!(lines.contains("session.id=1") && lines.contains("bytes.in=5"), "{lines}");
    drop(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_was_asked_to_end_while_it_stood_still_ends() {
    let (relay, ..) = open_flow(|spec| spec).await;
    let frozen = freeze(&relay).await;
    relay.meter.cut_all(Ended::Policy);
    frozen.resume();
    until(|| relay.meter.ended_total(Ended::Policy) == 1).await;

    let (old, ..) = open_flow(|spec| spec).await;
    let frozen = freeze(&old).await;
    old.meter.cut_all(Ended::Policy);
    let message = Message::of(&frozen);
    let (new, mut taken) = successor(&old);
    taken.take_over(&serde_json::from_str(&message.json).unwrap(), &mut message.unpacker(), &new.service());
    frozen.let_go(&HashSet::new());
    taken.resume();
    until(|| new.meter.ended_total(Ended::Policy) == 1).await;
    assert_eq!(old.meter.ended_total(Ended::Policy), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_wait_for_the_listeners_socket_go_along_in_their_order() {
    let (old, client, target, flow) = open_flow(|spec| spec).await;
    let mut frozen = freeze(&old).await;
    // A socket of loopback always takes more, so that they are put there by hand.
    let replies = [(noise(250), 100), (Vec::new(), 1), (b"last".to_vec(), 4)];
    let replies = replies.map(|(bytes, segment)| Reply { bytes, segment });
    frozen.stopped[0].ride.replies = replies.into();
    target.send_to(b"later", flow).await.unwrap();
    let message = Message::of(&frozen);
    let (new, mut taken) = successor(&old);
    let record = serde_json::from_str(&message.json).unwrap();
    assert!(taken.take_over(&record, &mut message.unpacker(), &new.service()).is_empty());
    frozen.let_go(&HashSet::new());
    taken.resume();
    let parts = [&noise(250)[..100], &noise(250)[100..200], &noise(250)[200..], b"", b"last", b"later"];
    for part in parts {
        assert_eq!(recv(&client).await, part);
    }
    assert_eq!(new.flows.listener().unwrap().held.0.load(Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_fails_over_in_the_next_process_as_it_would_have_here() {
    let gone = bind("127.0.0.1:0".parse().unwrap());
    let (first, second) = (gone.local_addr().unwrap(), socket().await);
    gone.set_nonblocking(true).unwrap();
    let gone = UdpSocket::from_std(gone).unwrap();
    let mut spec = leading_to(first);
    let both = [first, second.local_addr().unwrap()].map(|addr| target_addr(addr).into());
    spec.targets = Targets::new(both).unwrap();
    let old = Relay::start(spec);
    let client = old.client().await;
    client.send(b"1").await.unwrap();
    let (_, flow) = recv_from(&gone).await;
    gone.send_to(b"answer", flow).await.unwrap();
    recv(&client).await;
    drop(gone);
    let new = hand_over(old).await;
    let moved = async {
        loop {
            client.send(b"again").await.unwrap();
            let mut byte = [0; 9];
            let wait = Duration::from_millis(100);
            if timeout(wait, second.recv_from(&mut byte)).await.is_ok() {
                return;
            }
        }
    };
    soon(moved).await;
    assert_eq!(new.meter.live()[0].target_text(), Some(second.local_addr().unwrap().to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sockets_that_go_ahead_are_those_that_the_records_name() {
    let (old, client, target, flow) = open_flow(|spec| spec).await;
    let ahead = old.flows.ahead(&old.meter.live());
    assert_eq!(ahead.len(), 1);
    let frozen = freeze(&old).await;
    let mut message = Message::of(&frozen);
    message.sockets = ahead;
    let (new, mut taken) = successor(&old);
    let record = serde_json::from_str(&message.json).unwrap();
    assert!(taken.take_over(&record, &mut message.unpacker(), &new.service()).is_empty());
    frozen.let_go(&HashSet::new());
    taken.resume();
    assert_eq!(ask_back(&client, &target).await, flow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_whose_socket_did_not_arrive_ends_and_its_client_begins_another() {
    let (old, client, target, flow) = open_flow(|spec| spec).await;
    let frozen = freeze(&old).await;
    let message = Message::of(&frozen);
    let (new, mut taken) = successor(&old);
    let record = serde_json::from_str(&message.json).unwrap();
    let not_taken = taken.take_over(&record, &mut Unpacker::new(message.bytes.clone()), &new.service());
    assert_eq!(not_taken, [SocketId::of(&frozen.stopped[0].target.as_ref().unwrap().socket).unwrap()]);
    frozen.let_go(&not_taken.into_iter().collect());
    taken.resume();
    until(|| old.meter.ended_total(Ended::Reload) == 1).await;
    assert_ne!(ask_back(&client, &target).await, flow);
    assert_eq!((new.meter.sessions_total(), new.budget.used()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_closes_stands_still_too_and_goes_on_to_close() {
    let (relay, client, target, flow) = open_flow(|spec| spec).await;
    relay.drain.close();
    assert_eq!(ask_back(&client, &target).await, flow);
    roll_back_while(&relay, async || both_ways(&client, &target, flow).await).await;
    arrives(&client, &target, flow).await;
    relay.meter.cut_all(Ended::Shutdown);
    soon(relay.ended.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drops_go_on_and_each_is_told_once() {
    let (old, ..) = open_flow(|spec| spec).await;
    old.drops.add(DropReason::EarlyLimit, 7);
    old.drops.tell(5);
    old.drops.add(DropReason::TooLong, 1);
    let frozen = freeze(&old).await;
    let message = Message::of(&frozen);
    let (new, mut taken) = successor(&old);
    taken.take_over(&serde_json::from_str(&message.json).unwrap(), &mut message.unpacker(), &new.service());
    assert_eq!((new.drops.count(DropReason::EarlyLimit), new.drops.total(), new.drops.told()), (7, 8, 5));
    frozen.resume();
    drop(taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoilt_record_leaves_nothing_behind_and_harms_no_other_flow() {
    let (old, ..) = open_flow(|mut spec| {
        spec.options.bandwidth = std::num::NonZeroU64::new(1 << 40);
        spec.options.send_proxy = SendProxy::V2;
        spec
    })
    .await;
    let mut frozen = freeze(&old).await;
    frozen.stopped[0].ride.replies = vec![Reply { bytes: noise(250), segment: 100 }];
    let message = Message::of(&frozen);
    let whole: serde_json::Value = serde_json::from_str(&message.json).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    each_spoilt(&whole, |spoilt| {
        let Ok(record) = serde_json::from_value::<UdpRecord>(spoilt) else { return };
        let new =
            Relay::of(&socket, old.admission.clone(), (**old.spec.borrow()).clone(), FlowBudget::new(9));
        let mut taken = FrozenUdp::held(&new.flows);
        let new = new.serve(socket.try_clone().unwrap());
        let mut unpacker = message.unpacker();
        let not_taken = taken.take_over(&record, &mut unpacker, &new.service());
        assert_eq!(taken.count(), new.meter.live_count(), "{} not taken", not_taken.len());
        assert!(taken.count() <= 1 && new.budget.used() == taken.count());
        let _ = taken.pack(&mut Packer::default()).unwrap();
        taken.resume();
        new.meter.cut_all(Ended::Shutdown);
        new.drain.close();
    });
}

/// Descriptors of this process.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Memory of this process, in KiB.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What one client has sent and got.
#[derive(Default)]
struct Count {
    asked: u64,
    answered: u64,
}

#[expect(clippy::too_many_lines, reason = "one scenario: what each step expects hangs on those before")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_flows_survive_twenty_freezes_in_a_row() {
    const FLOWS: usize = 200;
    // A target that answers, and notes where each client's datagrams come from.
    let (target, ports) = (socket().await, Arc::<Mutex<BTreeSet<(u64, SocketAddr)>>>::default());
    let mut relay = Relay::start(leading_to(target.local_addr().unwrap()));
    let noted = Arc::clone(&ports);
    #[allow(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = target.recv_from(&mut buffer).await {
            let n = u64::from_be_bytes(buffer[..8].try_into().unwrap());
            noted.lock().unwrap().insert((n, from));
            target.send_to(&buffer, from).await.unwrap();
        }
    });
    let mut random = Random::of(7);
    let mut clients = Vec::new();
    let mut counts: BTreeMap<usize, Count> = BTreeMap::new();
    for n in 0..FLOWS {
        clients.push(relay.client().await);
        counts.insert(n, Count::default());
    }
    let mut flat = None;
    for round in 0..24 {
        // Some clients ask once or twice: a queue of the kernel has room for all of that.
        let asks: Vec<(usize, u64)> = (0..FLOWS)
            .map(|n| (n, 1 + random.next() % 2))
            .filter(|(n, _)| round == 0 || n % 2 != round % 2)
            .collect();
        let send = async |asks: &[(usize, u64)], counts: &mut BTreeMap<usize, Count>| {
            for (n, times) in asks {
                for _ in 0..*times {
                    let count = counts.get_mut(n).unwrap();
                    let question = [(*n as u64).to_be_bytes(), count.asked.to_be_bytes()].concat();
                    clients[*n].send(&question).await.unwrap();
                    count.asked += 1;
                }
            }
        };
        let half = asks.len() / 2;
        if round == 0 {
            send(&asks, &mut counts).await;
        } else {
            send(&asks[..half], &mut counts).await;
            match random.next() % 2 {
                0 => roll_back_while(&relay, async || send(&asks[half..], &mut counts).await).await,
                _ => relay = hand_over_while(relay, async || send(&asks[half..], &mut counts).await).await,
            }
        }
        for (n, times) in asks {
            for _ in 0..times {
                let answer = recv(&clients[n]).await;
                let count = counts.get_mut(&n).unwrap();
                assert_eq!(answer[8..], count.answered.to_be_bytes(), "in order, none lost, none twice");
                count.answered += 1;
            }
        }
        assert_eq!((relay.meter.live_count(), relay.drops.total()), (FLOWS, 0));
        if round == 3 {
            flat = Some((descriptors(), memory()));
        }
    }
    let ids: BTreeSet<u64> = relay.meter.live().iter().map(|live| live.id).collect();
    assert_eq!((ids.len(), ports.lock().unwrap().len()), (FLOWS, FLOWS), "each kept its number and port");
    let (open, kib) = flat.unwrap();
    // Other tests run beside this one, some with hundreds of sockets: those end.
    until(|| descriptors() < open + FLOWS).await;
    assert!(memory() < kib + 30_000, "{} after {kib} KiB", memory());
}
