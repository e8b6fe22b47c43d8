//! Records that make no sense: each is taken or refused, and nothing panics.

use std::num::NonZeroU64;

use serde_json::{Value, json};

use super::*;
use crate::{fixture::Random, mapping::Timeout};

/// A message with clients of every kind, and what keeps them alive.
async fn every_kind() -> (Process, FrozenTcp, Vec<TcpStream>, TcpListener) {
    let (target, targets) = target().await;
    let options = TcpOptions {
        accept_proxy: ["127.0.0.2/32".parse().unwrap()].into(),
        idle_timeout: Timeout::After(60 * SECOND),
        bandwidth: NonZeroU64::new(1 << 30),
        ..TcpOptions::default()
    };
    let process = Process::of(&spec(targets, options), open_policy(), 3);
    let (mut stalled, reached) = joined(&process, &target).await;
    fill(&mut stalled, 1, 0).await;
    let (mut half_closed, other) = joined(&process, &target).await;
    half_closed.shutdown().await.unwrap();
    let peer = tokio::net::TcpSocket::new_v4().unwrap();
    peer.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut peer = peer.connect(process.addr()).await.unwrap();
    peer.write_all(b"PROXY TCP4 ").await.unwrap();
    let waiting = process.client().await;
    sleep(50 * MOMENT).await;
    let frozen = process.freeze().await;
    assert_eq!((frozen.count(), frozen.left()), (4, 0));
    (process, frozen, vec![stalled, reached, half_closed, other, peer, waiting], target)
}

/// All places of a value.
fn places(value: &Value, path: &str, into: &mut Vec<String>) {
    into.push(path.to_owned());
    match value {
        Value::Array(all) => {
            all.iter().enumerate().for_each(|(at, value)| places(value, &format!("{path}/{at}"), into));
        }
        Value::Object(all) => {
            all.iter().for_each(|(key, value)| places(value, &format!("{path}/{key}"), into));
        }
        _ => {}
    }
}

/// Puts something else in one place.
fn spoil(records: &mut Value, random: &mut Random) {
    let mut all = Vec::new();
    places(records, "", &mut all);
    let mut pick = |count: usize| usize::try_from(random.next() % count as u64).unwrap();
    let place = all.swap_remove(pick(all.len()));
    let others = [
        Value::Null,
        json!(0),
        json!(1),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!("shut"),
        json!("discarding"),
        json!("ending"),
        json!("to come"),
        json!("127.0.0.1:80"),
        json!("[::]:0"),
        json!(true),
        json!([]),
        json!({}),
        json!({"at": 0, "len": 7}),
        json!({"at": 3, "len": u64::MAX}),
        json!({"state": "discarding", "held": {"at": 0, "len": 9}, "ours": 10}),
    ];
    let mut other = others[pick(others.len())].clone();
    // A value of another type makes all of it unreadable: seldom.
    let present = std::mem::discriminant(records.pointer(&place).unwrap());
    let alike: Vec<_> = others.iter().filter(|other| std::mem::discriminant(*other) == present).collect();
    if !alike.is_empty() && pick(8) > 0 {
        other = alike[pick(alike.len())].clone();
    }
    match place.rsplit_once('/') {
        Some((parent, key)) if pick(4) == 0 => {
            if let Some(Value::Object(parent)) = records.pointer_mut(parent) {
                parent.remove(key);
            }
        }
        _ => *records.pointer_mut(&place).unwrap() = other,
    }
}

#[tokio::test]
async fn spoilt_records_are_refused_or_served_and_nothing_panics() {
    let (process, frozen, far_ends, _target) = every_kind().await;
    let (mut refused, mut unreadable, mut taken_whole) = (0, 0, 0);
    for seed in 0..400 {
        let mut random = Random::of(seed);
        let message = process.pack(&frozen);
        let (mut records, _, _): (Value, Value, Value) = serde_json::from_str(&message.json).unwrap();
        for _ in 0..=random.next() % 3 {
            spoil(&mut records, &mut random);
        }
        let Ok(records) = serde_json::from_value::<Vec<SessionRecord>>(records) else {
            unreadable += 1;
            continue;
        };
        let next = process.next(64);
        let mut unpacker = Unpacker::new(message.bytes);
        message.sockets.into_iter().for_each(|socket| unpacker.add(socket));
        let mut taken = FrozenTcp::held(&next.sessions);
        let not_taken = taken.take_over(&records, &mut unpacker, &Arc::new(next.service()));
        refused += not_taken.len();
        taken_whole += usize::from(taken.count() == 4);
        // What was taken goes on without a panic, and can stop and be packed once more.
        taken.resume();
        tokio::task::yield_now().await;
        let again = next.freeze().await;
        drop(next.pack(&again));
        again.resume();
        for live in next.meter.live() {
            live.cut(Ended::ClosedByOperator);
        }
        next.drain.close();
        drop(next.sessions.take_waiting());
        next.until_empty().await;
        let ended = next.totals.read(Protocol::Tcp).ended;
        let panicked = ended.iter().find(|(reason, _)| *reason == Ended::Shutdown).unwrap().1;
        assert_eq!(panicked, 0, "seed {seed}");
    }
    println!("{refused} refused, {unreadable} unreadable, {taken_whole} taken whole");
    assert!(refused > 20 && unreadable > 20 && taken_whole > 20);
    drop((frozen, far_ends));
}

#[tokio::test]
async fn sockets_of_another_kind_are_refused() {
    let (process, frozen, _far_ends, _target) = every_kind().await;
    let message = process.pack(&frozen);
    let udp = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let listener = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    for strange in [udp, listener] {
        let (mut records, _, _): (Value, Value, Value) = serde_json::from_str(&message.json).unwrap();
        let id = serde_json::to_value(SocketId::of(&strange).unwrap()).unwrap();
        for record in records.as_array_mut().unwrap() {
            record["client"] = id.clone();
        }
        let records: Vec<SessionRecord> = serde_json::from_value(records).unwrap();
        let next = process.next(64);
        let mut unpacker = Unpacker::new(message.bytes.clone());
        unpacker.add(strange);
        unpacker.register_streams();
        let mut taken = FrozenTcp::held(&next.sessions);
        let not_taken = taken.take_over(&records, &mut unpacker, &Arc::new(next.service()));
        assert_eq!((taken.count(), not_taken.len()), (0, records.len()));
        next.assert_empty();
    }
}
