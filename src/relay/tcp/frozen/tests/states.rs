//! Each state in which a session can be stopped, back and over.

use std::num::NonZeroU64;

use super::*;
use crate::{
    mapping::Timeout,
    preface::{Match, hosts::HostTable, proxy::SendProxy},
    relay::tcp::{
        HostRoute, Names,
        direction::Pending,
        pump::{Begin, ClientSide, Limits, Outcome, pump},
        session::Origin,
    },
    sock::stream::reset_on_close,
    wake::{Start, WakeSpec},
};

#[tokio::test]
async fn bulk_in_both_directions_is_whole_however_often_it_stands_still() {
    const LENGTH: u64 = 24 << 20;
    for way in WAYS {
        let (target, targets) = target().await;
        let mut process = Process::first(&spec(targets, TcpOptions::default()));
        let (mut client, mut reached) = joined(&process, &target).await;
        let ((from_client, to_client), (from_target, to_target)) = (client.split(), reached.split());
        let (mut from_client, mut to_client) = (from_client, to_client);
        let (mut from_target, mut to_target) = (from_target, to_target);
        let freezing = async {
            for _ in 0..6 {
                sleep(3 * MOMENT).await;
                process = process.through(way).await;
            }
            process
        };
        let (process, (), (), inward, outward) = tokio::join!(
            freezing,
            write_all(&mut to_client, 1, LENGTH),
            write_all(&mut to_target, 2, LENGTH),
            read_all(&mut from_target, 1),
            read_all(&mut from_client, 2),
        );
        assert_eq!((inward, outward), (LENGTH, LENGTH));
        process.until_empty().await;
        let moved = process.totals.read(Protocol::Tcp).moved;
        assert_eq!((moved.bytes_in, moved.bytes_out), (LENGTH, LENGTH), "{way:?}");
    }
}

#[tokio::test]
async fn what_a_slow_reader_has_not_taken_goes_along() {
    for way in WAYS {
        let (target, targets) = target().await;
        let process = Process::first(&spec(targets, TcpOptions::default()));
        let (mut client, mut reached) = joined(&process, &target).await;
        // Its source is full to the brim when it goes on, so it is bulk.
        let frozen = process.freeze().await;
        let mut sent = fill(&mut client, 1, 0).await;
        frozen.resume();
        sent = fill(&mut client, 1, sent).await;
        let frozen = process.freeze().await;
        let held = process.pack(&frozen).bytes.len();
        // How much that is, in memory or in a pipe, is the kernel's affair.
        assert!(held > 0, "of {sent} bytes");
        frozen.resume();
        let process = process.through(way).await.through(way).await;
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut reached, 1).await, sent);
        drop((client, reached));
        process.until_empty().await;
        assert_eq!(process.totals.read(Protocol::Tcp).moved.bytes_in, sent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_session_lets_the_reply_finish() {
    for way in WAYS {
        for by_client in [true, false] {
            let (target, targets) = target().await;
            let process = Process::first(&spec(targets, TcpOptions::default()));
            let (client, reached) = joined(&process, &target).await;
            let (mut first, mut last) = if by_client { (client, reached) } else { (reached, client) };
            write_all(&mut first, 1, 50_000).await;
            assert_eq!(read_all(&mut last, 1).await, 50_000);
            let process = process.through(way).await;
            let ((), got) = tokio::join!(write_all(&mut last, 2, 300_000), read_all(&mut first, 2));
            assert_eq!(got, 300_000);
            process.until_ended(if by_client { Ended::ClientClosed } else { Ended::TargetClosed }, 1).await;
        }
    }
}

#[tokio::test]
async fn an_end_that_waits_behind_bytes_comes_after_them() {
    for way in WAYS {
        let (target, targets) = target().await;
        let process = Process::first(&spec(targets, TcpOptions::default()));
        let (mut client, mut reached) = joined(&process, &target).await;
        let sent = fill(&mut client, 1, 0).await;
        drop(client);
        sleep(20 * MOMENT).await;
        let process = process.through(way).await;
        assert_eq!(read_all(&mut reached, 1).await, sent);
        drop(reached);
        process.until_ended(Ended::ClientClosed, 1).await;
    }
}

/// As a web server that refuses an upload.
#[tokio::test(start_paused = true)]
async fn an_answer_survives_a_target_that_has_gone() {
    for way in WAYS {
        let (target, targets) = target().await;
        let process = Process::first(&spec(targets, TcpOptions::default()));
        let (mut client, mut reached) = joined(&process, &target).await;
        client.write_all(b"upload").await.unwrap();
        reached.read_exact(&mut [0; 6]).await.unwrap();
        write_all(&mut reached, 2, 50_000).await;
        drop(reached);
        for _ in 0..20 {
            client.write_all(&[b'u'; 4096]).await.unwrap();
            sleep(MOMENT).await;
        }
        let process = process.through(way).await;
        for _ in 0..20 {
            client.write_all(&[b'u'; 4096]).await.unwrap();
            sleep(MOMENT).await;
        }
        assert_eq!(read_all(&mut client, 2).await, 50_000);
        let start = Instant::now();
        drop(client);
        process.until_ended(Ended::TargetClosed, 1).await;
        assert!(start.elapsed() < 3 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_session_keeps_its_rate() {
    for way in WAYS {
        let (target, targets) = target().await;
        let options = TcpOptions { bandwidth: NonZeroU64::new(100_000), ..TcpOptions::default() };
        let process = Process::first(&spec(targets, options));
        let (mut client, mut reached) = joined(&process, &target).await;
        let start = Instant::now();
        let freezing = async {
            let mut process = process;
            for _ in 0..20 {
                sleep(SECOND / 7).await;
                process = process.through(way).await;
            }
            process
        };
        let (process, (), got) =
            tokio::join!(freezing, write_all(&mut client, 1, 500_000), read_all(&mut reached, 1));
        let took = start.elapsed();
        assert_eq!(got, 500_000);
        assert!(took > 19 * SECOND / 4 && took < 21 * SECOND / 4, "{took:?} in place of five seconds");
        drop((client, reached));
        process.until_empty().await;
    }
}

#[tokio::test(start_paused = true)]
async fn limits_go_on_from_where_they_were() {
    for way in WAYS {
        let (target, targets) = target().await;
        let options = TcpOptions {
            idle_timeout: Timeout::After(10 * SECOND),
            half_close_timeout: Timeout::After(8 * SECOND),
            ..TcpOptions::default()
        };
        let process = Process::first(&spec(targets, options));
        let (mut client, mut reached) = joined(&process, &target).await;
        client.write_all(b"x").await.unwrap();
        reached.read_u8().await.unwrap();
        let start = Instant::now();
        sleep(6 * SECOND).await;
        let process = process.through(way).await;
        process.until_ended(Ended::Idle, 1).await;
        let took = start.elapsed();
        assert!(took >= 10 * SECOND && took < 10 * SECOND + SECOND / 10, "{took:?}");

        let (mut client, _reached) = joined(&process, &target).await;
        client.shutdown().await.unwrap();
        let start = Instant::now();
        sleep(5 * SECOND).await;
        let process = process.through(way).await;
        process.until_ended(Ended::HalfCloseTimeout, 1).await;
        let took = start.elapsed();
        assert!(took >= 8 * SECOND && took < 8 * SECOND + SECOND / 10, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_and_a_reset_that_come_meanwhile_are_not_missed() {
    for way in WAYS {
        let (target, targets) = target().await;
        let process = Process::first(&spec(targets, TcpOptions::default()));
        let (ends, mut reached_one) = joined(&process, &target).await;
        let (resets, mut reached_other) = joined(&process, &target).await;
        let frozen = process.freeze().await;
        drop(ends);
        reset_on_close(&resets);
        drop(resets);
        sleep(10 * MOMENT).await;
        frozen.resume();
        let process = if way == Way::Back { process } else { process.through(way).await };
        assert_eq!(reached_one.read(&mut [0]).await.unwrap(), 0);
        let error = reached_other.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        process.until_ended(Ended::ClientError, 1).await;
        drop(reached_one);
        process.until_ended(Ended::ClientClosed, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_between_the_processes_reaches_the_next_one() {
    let (target, targets) = target().await;
    let process = Process::first(&spec(targets, TcpOptions::default()));
    let (client, mut reached) = joined(&process, &target).await;
    let frozen = process.freeze().await;
    let mut next = process.next(10);
    let (taken, _) = next.take_over(process.pack(&frozen));
    frozen.let_go(&HashSet::new());
    reset_on_close(&client);
    drop(client);
    sleep(10 * MOMENT).await;
    next.serve();
    taken.resume();
    assert_eq!(reached.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    next.until_ended(Ended::ClientError, 1).await;
}

fn by_name(targets: Targets) -> TcpSpec {
    let mut hosts = HostTable::default();
    let route = HostRoute { targets, access: Default::default(), send_proxy: None, wake: None };
    hosts.insert("one.example.org", route).unwrap();
    let names = Names { by: Match::HttpHost, hosts: Arc::new(hosts), otherwise: None, asleep: None };
    TcpSpec { route: Route::Names(Arc::new(names)), options: TcpOptions::default() }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: one.example.org\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_client_that_has_said_half_of_the_name_says_the_other_half() {
    for way in WAYS {
        let (target, targets) = target().await;
        let mut process = Process::first(&by_name(targets));
        for cut in [0, 1, 20, REQUEST.len() - 1] {
            let mut client = process.client().await;
            client.write_all(&REQUEST[..cut]).await.unwrap();
            process.until_live(1).await;
            sleep(10 * MOMENT).await;
            process = process.through(way).await;
            client.write_all(&REQUEST[cut..]).await.unwrap();
            client.shutdown().await.unwrap();
            let (mut reached, _) = target.accept().await.unwrap();
            let mut got = Vec::new();
            reached.read_to_end(&mut got).await.unwrap();
            assert!(got == REQUEST, "cut at {cut}");
            assert_eq!(process.meter.live()[0].name(), Some("one.example.org"));
            drop((client, reached));
            process.until_empty().await;
        }
        // The time for it goes on.
        let (mut silent, start) = (process.client().await, Instant::now());
        process.until_live(1).await;
        sleep(2 * SECOND).await;
        let process = process.through(way).await;
        assert_ne!(silent.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0, "it is told why");
        assert!(start.elapsed() < 3 * SECOND + SECOND / 10, "{:?}", start.elapsed());
        drop(silent);
        process.until_ended(Ended::Preface, 1).await;
    }
}

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 50312 443\r\n";

#[tokio::test(start_paused = true)]
async fn a_proxy_goes_on_with_its_header_and_the_target_gets_it_once() {
    for way in WAYS {
        let (target, targets) = target().await;
        let accept_proxy = ["127.0.0.0/8".parse().unwrap()].into();
        let options = TcpOptions { accept_proxy, send_proxy: SendProxy::V1, ..TcpOptions::default() };
        let mut process = Process::first(&spec(targets, options));
        for cut in [0, 1, HEADER.len() - 1] {
            let mut client = process.client().await;
            client.write_all(&HEADER[..cut]).await.unwrap();
            sleep(10 * MOMENT).await;
            process = process.through(way).await;
            client.write_all(&[&HEADER[cut..], b"question"].concat()).await.unwrap();
            let (mut reached, _) = target.accept().await.unwrap();
            let mut got = vec![0; HEADER.len() + 8];
            reached.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [HEADER, b"question"].concat(), "cut at {cut}");
            process = process.through(way).await;
            assert_eq!(process.meter.live()[0].client, "203.0.113.9:50312".parse().unwrap());
            drop((client, reached));
            process.until_empty().await;
        }
        let (mut silent, start) = (process.client().await, Instant::now());
        sleep(2 * SECOND).await;
        let process = process.through(way).await;
        assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(start.elapsed() < 3 * SECOND + SECOND / 10, "{:?}", start.elapsed());
        process.until_ended(Ended::Preface, 1).await;
    }
}

#[tokio::test]
async fn a_greeting_that_was_not_sent_yet_is_sent_whole_and_only_its_own_bytes_count() {
    for way in WAYS {
        let (target, targets) = target().await;
        let process = Process::first(&spec(targets, TcpOptions::default()));
        let (mut client, _) = joined(&process, &target).await;
        // A session of the same listener, asked before its first byte.
        let inside = TcpStream::connect(target.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = target.accept().await.unwrap();
        let (near, to) = pair().await;
        let slot = process.sessions.try_take().unwrap();
        let meter = process.meter.open("192.0.2.7:7".parse().unwrap());
        let permit = process.admission.take_over("192.0.2.7".parse().unwrap(), Protocol::Tcp);
        let near = ClientSide { client: near, meter, slot };
        let greeting = [HEADER, b"first"].concat();
        let first = Some(Box::new(Pending::first(greeting.clone(), HEADER.len())));
        let limits = Limits { idle: Timeout::Never, half_close: Timeout::Never };
        let begin = Begin::New { limits, keepalive: Timeout::Never, bandwidth: None, first };
        near.meter.live().ask_freeze();
        let Outcome::Stopped(still) = pump(&near, &inside, begin).await else { panic!("it stops") };
        let origin = Origin::Still(Box::new((inside, *still)));
        let stopped = Box::new(Stopped { near, permit, origin, lead: None });
        let freezing = tokio::join!(process.freeze(), async { process.sessions.hand_in(stopped) });
        drop(freezing.0);
        let process = process.through(way).await;
        let mut got = vec![0; greeting.len()];
        far.read_exact(&mut got).await.unwrap();
        assert!(got == greeting);
        let moved = process.totals.read(Protocol::Tcp).moved;
        assert_eq!(moved.bytes_in, 5);
        drop((to, far));
        client.shutdown().await.unwrap();
        process.until_empty().await;
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// A target whose queue is full: it answers to no further client.
async fn deaf() -> (TcpListener, Vec<TcpStream>, Targets) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(client) = timeout(SECOND / 2, TcpStream::connect(addr)).await {
        queue.push(client.unwrap());
    }
    (listener, queue, Targets::one(addr_of(addr)))
}

#[tokio::test(start_paused = true)]
async fn a_dial_goes_on_with_the_time_that_was_left() {
    for way in WAYS {
        let (_deaf, _queue, targets) = deaf().await;
        let process = Process::first(&spec(targets, TcpOptions::default()));
        let (mut client, start) = (process.client().await, Instant::now());
        client.write_all(b"question").await.unwrap();
        process.until_live(1).await;
        sleep(2 * SECOND).await;
        let process = process.through(way).await;
        sleep(2 * SECOND).await;
        let process = process.through(way).await;
        process.until_ended(Ended::Unreachable, 1).await;
        let took = start.elapsed();
        assert!(took >= 5 * SECOND - MOMENT && took < 5 * SECOND + SECOND / 5, "{took:?}");
    }
}

#[tokio::test]
async fn a_dial_is_made_again_and_what_the_client_said_is_not_lost() {
    for way in WAYS {
        let (target, queue, targets) = deaf().await;
        let process = Process::first(&spec(targets, TcpOptions::default()));
        let mut client = process.client().await;
        client.write_all(b"question").await.unwrap();
        process.until_live(1).await;
        let process = process.through(way).await;
        for _ in &queue {
            target.accept().await.unwrap();
        }
        let answer = async {
            loop {
                // The dial of before may have left a connection behind.
                let (mut reached, _) = target.accept().await.unwrap();
                let mut got = Vec::new();
                let _ = timeout(SECOND, reached.read_buf(&mut got)).await;
                if got == b"question" {
                    reached.write_all(b"answer").await.unwrap();
                    return;
                }
            }
        };
        let mut got = [0; 6];
        let ((), read) = tokio::join!(answer, client.read_exact(&mut got));
        read.unwrap();
        assert_eq!(&got, b"answer");
        drop(client);
        process.until_empty().await;
    }
}

#[tokio::test]
async fn a_client_that_waits_for_its_target_to_start_gets_there() {
    for way in WAYS {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("started");
        let (target, targets) = target().await;
        let addr = target.local_addr().unwrap();
        drop(target);
        let start = [String::from("touch"), file.display().to_string()].into();
        let start = Start::Command { start, stop: None };
        let wake = WakeSpec { start, wait: 20 * SECOND, stop_after: Some(20 * SECOND) };
        let options = TcpOptions { wake: Some(Arc::new(wake)), ..TcpOptions::default() };
        let process = Process::first(&spec(targets, options));
        let mut client = process.client().await;
        client.write_all(b"hello").await.unwrap();
        while !file.exists() {
            sleep(MOMENT).await;
        }
        let process = process.through(way).await;
        let target = TcpListener::bind(addr).await.unwrap();
        let (mut reached, _) = timeout(20 * SECOND, target.accept()).await.unwrap().unwrap();
        reached.read_exact(&mut [0; 5]).await.unwrap();
        let sessions = |process: &Process| process.wakers.shown().iter().map(|w| w.sessions).sum::<usize>();
        assert_eq!(sessions(&process), 1);
        // Joined, it keeps its target awake in the next process, too.
        let process = process.through(way).await;
        assert_eq!(sessions(&process), 1);
        reached.write_all(b"!").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
        drop((client, reached));
        process.until_empty().await;
        while sessions(&process) > 0 {
            sleep(MOMENT).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_wait_for_a_slot_wait_on() {
    for way in WAYS {
        let (target, targets) = target().await;
        let process = Process::of(&spec(targets, TcpOptions::default()), open_policy(), 1);
        let (first, reached_first) = joined(&process, &target).await;
        let mut second = process.client().await;
        second.write_all(b"x").await.unwrap();
        sleep(10 * MOMENT).await;
        assert_eq!(process.admission.inside(), 2);
        let frozen = process.freeze().await;
        assert_eq!((frozen.count(), frozen.left()), (2, 0));
        let process = if way == Way::Back {
            frozen.resume();
            process
        } else {
            let mut next = process.next(1);
            let (taken, _) = next.take_over(process.pack(&frozen));
            frozen.let_go(&HashSet::new());
            assert_eq!((process.meter.live_count(), process.admission.inside()), (0, 0));
            next.serve();
            taken.resume();
            next
        };
        sleep(10 * MOMENT).await;
        assert_eq!((process.meter.live_count(), process.admission.inside()), (1, 2));
        drop((first, reached_first));
        let (mut reached, _) = target.accept().await.unwrap();
        assert_eq!(reached.read_u8().await.unwrap(), b'x');
        drop((second, reached));
        process.until_empty().await;
    }
}
