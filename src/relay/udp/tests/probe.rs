//! Datagrams that prove a way from outside.

use tokio::time::Instant;

use super::*;
use crate::policy::{is_answer, question};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expected_number_is_answered_and_its_target_sees_nothing() {
    let target = socket().await;
    let spec = leading_to(target.local_addr().unwrap());
    let relay = Relay::start_on("[::]:0", spec, FlowBudget::new(1000));
    let listen = relay.meter.listen().to_string();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // Not the address that the system would answer from.
    client.connect(relay.at([127, 0, 0, 2])).await.unwrap();
    assert!(relay.probes.expect([5; 16], &listen, Instant::now()));
    for _ in 0..2 {
        assert!(is_answer(&ask(&client, &question([5; 16])).await, [5; 16]));
    }
    // What comes next is the first that the target sees, and the first of a flow.
    client.send(&question([6; 16])).await.unwrap();
    assert_eq!(recv(&target).await, question([6; 16]));
    assert_eq!(relay.budget.used(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_of_another_listener_is_dropped_here() {
    let target = socket().await;
    let relay = Relay::start(leading_to(target.local_addr().unwrap()));
    assert!(relay.probes.expect([5; 16], "[::]:1", Instant::now()));
    let client = relay.client().await;
    client.send(&question([5; 16])).await.unwrap();
    client.send(b"next").await.unwrap();
    assert_eq!(recv(&target).await, b"next");
}
