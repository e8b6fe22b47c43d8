//! PROXY headers in datagrams, both ways, through a listener.

use super::*;
use crate::{
    policy::{AccessSpec, Entries},
    preface::proxy::{Addresses, Outgoing},
    relay::udp::introduction::take_header,
};

fn header(client: &str) -> Vec<u8> {
    let addresses =
        Addresses { source: client.parse().unwrap(), destination: "192.0.2.1:53".parse().unwrap() };
    let outgoing = Outgoing { protocol: Protocol::Udp, addresses, id: b"", authority: None, received: None };
    outgoing.encode(SendProxy::V2)
}

fn sending(target: SocketAddr, send_proxy: SendProxy) -> UdpSpec {
    let mut spec = leading_to(target);
    spec.options.send_proxy = send_proxy;
    spec
}

fn behind_proxies(target: SocketAddr) -> UdpSpec {
    let mut spec = leading_to(target);
    spec.options.accept_proxy = ["127.0.0.0/8".parse().unwrap()].into();
    spec
}

/// A client in the header of a datagram, and what is behind it.
fn told(datagram: &[u8]) -> (Option<SocketAddr>, Vec<u8>) {
    match take_header(datagram) {
        Some((header, payload)) => (Some(header.addresses.unwrap().source), payload.to_vec()),
        None => (None, datagram.to_vec()),
    }
}

#[tokio::test]
async fn the_first_datagram_of_a_flow_says_who_the_client_is() {
    let target = socket().await;
    let relay = Relay::start(sending(target.local_addr().unwrap(), SendProxy::V2));
    let client = relay.client().await;
    let own = client.local_addr().unwrap();
    client.send(b"").await.unwrap();
    assert_eq!(told(&recv(&target).await), (Some(own), vec![]));
    for payload in [&b"two"[..], b"three"] {
        client.send(payload).await.unwrap();
        assert_eq!(told(&recv(&target).await), (None, payload.to_vec()));
    }
    until(|| relay.meter.live().first().is_some_and(|live| live.bytes_in() == 8)).await;
}

#[tokio::test]
async fn each_datagram_says_it_where_that_is_asked_for_in_bursts_too() {
    let target = socket().await;
    let relay = Relay::start(sending(target.local_addr().unwrap(), SendProxy::V2Each));
    let client = relay.client().await;
    let own = client.local_addr().unwrap();
    let mut next = 0_u32;
    for burst in [1, 1, 60, 3, 40] {
        let first = next;
        for _ in 0..burst {
            // All of one size, so that the kernel joins them.
            client.send(&[&next.to_be_bytes()[..], &[7; 900]].concat()).await.unwrap();
            next += 1;
        }
        for number in first..next {
            let (from, payload) = told(&recv(&target).await);
            assert_eq!((from, &payload[..4], payload.len()), (Some(own), &number.to_be_bytes()[..], 904));
        }
    }
    assert_eq!(relay.drops.total(), 0);
}

#[tokio::test]
async fn a_datagram_that_gets_too_long_is_dropped_and_counted() {
    let target = socket().await;
    let relay = Relay::start(sending(target.local_addr().unwrap(), SendProxy::V2Each));
    let client = relay.client().await;
    client.send(&vec![7; introduction::LONGEST]).await.unwrap();
    until(|| relay.drops.count(DropReason::TooLong) == 1).await;
    client.send(b"short").await.unwrap();
    assert_eq!(told(&recv(&target).await).1, b"short");
}

#[tokio::test]
async fn the_client_of_a_listed_peer_is_the_one_of_its_header_and_answers_go_to_the_peer() {
    let target = echo().await;
    let relay = Relay::start(behind_proxies(target));
    let peer = relay.client().await;
    peer.send(b"no header").await.unwrap();
    until(|| relay.drops.count(DropReason::NoHeader) == 1).await;
    assert_eq!(relay.meter.sessions_total(), 0);
    let header = header("203.0.113.9:50312");
    // With a header, without one, and with one again.
    for datagram in [&[&header[..], b"one"].concat()[..], b"two", &[&header[..], b"three"].concat()] {
        peer.send(datagram).await.unwrap();
        let answer = recv(&peer).await;
        assert!(datagram.ends_with(&answer) && answer.len() <= 5, "{answer:?}");
    }
    let live = relay.meter.live();
    assert_eq!((live.len(), live[0].client), (1, "203.0.113.9:50312".parse().unwrap()));
    assert_eq!(live[0].bytes_in(), 11);
}

#[tokio::test]
async fn the_real_client_of_a_flow_has_to_be_allowed_and_the_peer_does_not() {
    let target = echo().await;
    let allow = Entries { nets: ["203.0.113.0/24".parse().unwrap()].into(), ..Entries::default() };
    let access = AccessSpec { allow: Some(allow), ..AccessSpec::default() };
    let admission = AdmissionHandle::under(Policy { access, ..Policy::default() });
    let relay =
        Relay::start_behind(admission.clone(), "127.0.0.1:0", behind_proxies(target), FlowBudget::new(10));
    let peer = relay.client().await;
    peer.send(&[&header("198.51.100.1:1")[..], b"one"].concat()).await.unwrap();
    let refused = || admission.current().refusals().map(|(_, count)| count).sum::<u64>() == 1;
    until(refused).await;
    peer.send(&[&header("203.0.113.9:1")[..], b"two"].concat()).await.unwrap();
    assert_eq!(recv(&peer).await, b"two");
    assert_eq!(relay.meter.sessions_total(), 1);
    // The flow of one client is not open to another one that may not enter.
    peer.send(&[&header("198.51.100.1:1")[..], b"three"].concat()).await.unwrap();
    peer.send(&[&header("203.0.113.10:1")[..], b"four"].concat()).await.unwrap();
    assert_eq!(recv(&peer).await, b"four");
}

#[tokio::test]
async fn a_client_over_ipv6_is_introduced_with_its_address() {
    let target = socket().await;
    let spec = sending(target.local_addr().unwrap(), SendProxy::V2Each);
    let relay = Relay::start_on("[::1]:0", spec, FlowBudget::new(10));
    let client = UdpSocket::bind("[::1]:0").await.unwrap();
    client.connect(relay.addr).await.unwrap();
    client.send(b"x").await.unwrap();
    assert_eq!(told(&recv(&target).await), (Some(client.local_addr().unwrap()), b"x".to_vec()));
}

#[tokio::test]
async fn what_a_peer_says_is_passed_on() {
    let target = socket().await;
    let mut spec = behind_proxies(target.local_addr().unwrap());
    spec.options.send_proxy = SendProxy::V2;
    let relay = Relay::start(spec);
    let peer = relay.client().await;
    peer.send(&[&header("203.0.113.9:50312")[..], b"x"].concat()).await.unwrap();
    let datagram = recv(&target).await;
    let (header, payload) = take_header(&datagram).unwrap();
    let addresses = header.addresses.unwrap();
    assert_eq!(addresses.source, "203.0.113.9:50312".parse().unwrap());
    assert_eq!((addresses.destination, payload), ("192.0.2.1:53".parse().unwrap(), &b"x"[..]));
}

#[tokio::test]
async fn the_datagrams_of_a_flow_are_held_until_its_target_was_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("started");
    let target = socket().await;
    let mut spec = leading_to(target.local_addr().unwrap());
    let (slow, touch) = ("sleep 0.3; touch \"$0\"", file.display().to_string());
    let start = ["sh", "-c", slow, &touch].map(str::to_owned);
    let start = crate::wake::Start::Command { start: start.into(), stop: None };
    let wait = Duration::from_secs(20);
    spec.options.wake = Some(Arc::new(WakeSpec { start, wait, stop_after: None }));
    let relay = Relay::start(spec);
    let client = relay.client().await;
    for datagram in [b"1", b"2", b"3"] {
        client.send(datagram).await.unwrap();
    }
    for datagram in [b"1", b"2", b"3"] {
        assert_eq!(recv(&target).await, datagram);
        assert!(file.exists(), "it was sent before the target was started");
    }
}
