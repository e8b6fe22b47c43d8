//! The steps of a hand-over: what waits, what stays, what goes ahead, and how it travels.

use std::{fs, thread};

use super::*;
use crate::{
    handover::{Frame, MOST_DESCRIPTORS, Wire},
    preface::{Match, hosts::HostTable},
    relay::{
        Hold, LogLimits,
        tcp::{Asleep, HostRoute, Names, Touch, TrapService},
    },
    targets::Balance,
};

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_meanwhile_waits_in_the_kernel() {
    for way in WAYS {
        let (target, targets) = target().await;
        let process = Process::first(&spec(targets, TcpOptions::default()));
        let frozen = process.freeze().await;
        let mut client = process.client().await;
        client.write_all(b"x").await.unwrap();
        sleep(SECOND).await;
        assert_eq!(process.totals.read(Protocol::Tcp).sessions, 0);
        frozen.resume();
        let process = if way == Way::Back { process } else { process.through(way).await };
        let (mut reached, _) = target.accept().await.unwrap();
        assert_eq!(reached.read_u8().await.unwrap(), b'x');
        drop((client, reached));
        process.until_empty().await;
    }
}

#[tokio::test]
async fn a_decoy_that_is_held_bans_later() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    let gate = Gate::new(std::time::SystemTime::now);
    let (hold, closing) = (Arc::<Hold>::default(), Drain::new());
    let meter = Process::first(&spec_to_nowhere()).meter;
    let log = Arc::<LogLimits>::default();
    let service =
        TrapService { gate: Arc::clone(&gate), meter, touch: Touch::Ban, log, hold: Arc::clone(&hold) };
    let mut serving = JoinSet::new();
    serving.spawn(service.serve(Arc::new(listener), closing.watch()));
    hold.hold();
    timeout(SECOND, hold.stopped()).await.unwrap();
    let mut client = TcpStream::connect(addr).await.unwrap();
    sleep(20 * MOMENT).await;
    assert_eq!(gate.guard().trap_touches(), 0);
    hold.release();
    assert!(timeout(20 * SECOND, client.read(&mut [0])).await.unwrap().is_err(), "it is reset");
    assert_eq!(gate.guard().trap_touches(), 1);
}

fn spec_to_nowhere() -> TcpSpec {
    spec(Targets::one(addr_of("127.0.0.1:1".parse().unwrap())), TcpOptions::default())
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_answer_is_left_and_keeps_no_other_waiting_for_long() {
    let (target, targets) = target().await;
    let process = Process::first(&spec(targets, TcpOptions::default()));
    let (mut client, mut reached) = joined(&process, &target).await;
    let silent = process.sessions.try_take().unwrap();
    let start = Instant::now();
    let frozen = process.freeze().await;
    assert!(start.elapsed() >= LIMIT && start.elapsed() < 2 * LIMIT);
    assert_eq!((frozen.count(), frozen.left()), (1, 1));
    // One that stops too late goes on by itself.
    let mut frozen = frozen;
    let late = frozen.sessions.pop().unwrap();
    frozen.resume();
    let FrozenSession::Session(late) = late else { panic!("it is one") };
    process.sessions.hand_in(late);
    client.write_all(b"x").await.unwrap();
    assert_eq!(reached.read_u8().await.unwrap(), b'x');

    let given_up = timeout(LIMIT / 2, process.freeze()).await;
    assert!(given_up.is_err());
    client.write_all(b"y").await.unwrap();
    assert_eq!(reached.read_u8().await.unwrap(), b'y', "it goes on when the freeze is broken off");
    drop(silent);
    let start = Instant::now();
    drop(process.freeze().await);
    assert!(start.elapsed() < LIMIT / 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_says_its_last_words_stays_and_says_them_once() {
    let mut hosts = HostTable::default();
    let (listener, targets) = target().await;
    drop(listener);
    let route = HostRoute { targets, access: Default::default(), send_proxy: None, wake: None };
    hosts.insert("mc.example.org", route).unwrap();
    let asleep = Some(Arc::new(Asleep { motd: "fast asleep".into(), players: (0, 20) }));
    let names = Names { by: Match::Minecraft, hosts: Arc::new(hosts), otherwise: None, asleep };
    let spec = TcpSpec { route: Route::Names(Arc::new(names)), options: TcpOptions::default() };
    let process = Process::first(&spec);
    let mut client = process.client().await;
    client.write_all(b"\x15\x00\xff\x05\x0emc.example.org\x63\xdd\x01\x01\x00").await.unwrap();
    let mut answer = vec![0; 60];
    client.read_exact(&mut answer).await.unwrap();
    let start = Instant::now();
    let frozen = process.freeze().await;
    assert_eq!((frozen.count(), frozen.left()), (0, 1));
    assert!(start.elapsed() < LIMIT / 2, "it is not waited for");
    let next = process.next(10);
    let (taken, not_taken) = next.take_over(process.pack(&frozen));
    assert_eq!((taken.count(), not_taken), (0, vec![]));
    frozen.let_go(&HashSet::new());
    client.write_all(b"\x09\x0112345678").await.unwrap();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"12345678"));
    assert_eq!(String::from_utf8_lossy(&answer).matches("fast asleep").count(), 1);
    drop(client);
    process.until_ended(Ended::Unreachable, 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_next_process_does_not_take_goes_on_in_the_old_one() {
    let (target, targets) = target().await;
    let process = Process::first(&spec(targets, TcpOptions::default()));
    let (mut goes, mut reached_by_goer) = joined(&process, &target).await;
    let (mut stays, mut reached_by_stayer) = joined(&process, &target).await;
    let frozen = process.freeze().await;
    let mut message = process.pack(&frozen);
    // The target's socket of one does not arrive.
    let its_own = reached_by_stayer.peer_addr().unwrap();
    message.sockets.retain(|socket| {
        let socket = std::net::TcpStream::from(socket.try_clone().unwrap());
        socket.local_addr().unwrap() != its_own
    });
    let mut next = process.next(10);
    let (taken, not_taken) = next.take_over(message);
    assert_eq!((taken.count(), not_taken.len()), (1, 1));
    assert_eq!((next.meter.live_count(), next.admission.inside(), next.budget.used()), (1, 1, 1));
    frozen.let_go(&not_taken.into_iter().collect());
    next.serve();
    taken.resume();
    assert_eq!((process.meter.live_count(), next.meter.live_count()), (1, 1));
    for (client, reached) in [(&mut goes, &mut reached_by_goer), (&mut stays, &mut reached_by_stayer)] {
        client.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        reached.read_exact(&mut got).await.unwrap();
    }
    drop((goes, stays, reached_by_goer, reached_by_stayer));
    process.until_ended(Ended::ClientClosed, 1).await;
    next.until_ended(Ended::ClientClosed, 1).await;
    process.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_frozen_session_that_is_cut_ends_in_the_process_that_has_it() {
    for way in WAYS {
        let (target, targets) = target().await;
        let process = Process::first(&spec(targets, TcpOptions::default()));
        let (mut client, _reached) = joined(&process, &target).await;
        let frozen = process.freeze().await;
        assert!(process.meter.live()[0].cut(Ended::ClosedByOperator));
        assert!(!process.meter.live()[0].cut(Ended::Policy));
        let process = if way == Way::Back {
            frozen.resume();
            process
        } else {
            let next = process.next(10);
            let (taken, _) = next.take_over(process.pack(&frozen));
            frozen.let_go(&HashSet::new());
            taken.resume();
            next
        };
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        process.until_ended(Ended::ClosedByOperator, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_counts_at_its_target_in_the_process_that_has_it() {
    let (one, other) = (target().await.0, target().await.0);
    let addrs = [&one, &other].map(|target| addr_of(target.local_addr().unwrap()));
    let targets = Targets::new(addrs.clone().map(Into::into)).unwrap();
    let process = Process::first(&spec(targets, TcpOptions::default()));
    let sessions = |process: &Process| {
        addrs.clone().map(|addr| process.pool.member(Protocol::Tcp, &addr).map_or(0, |m| m.sessions()))
    };
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(process.client().await);
        process.until_live(clients.len()).await;
        sleep(10 * MOMENT).await;
    }
    assert_eq!(sessions(&process), [2, 2]);
    let frozen = process.freeze().await;
    let next = process.next(10);
    let selection = Selection { balance: Balance::LeastSessions, ..Selection::default() };
    next.pool.retune(&selection, &[], false);
    let (taken, _) = next.take_over(process.pack(&frozen));
    assert_eq!((sessions(&process), sessions(&next)), ([2, 2], [2, 2]));
    frozen.let_go(&HashSet::new());
    taken.resume();
    assert_eq!((sessions(&process), sessions(&next)), ([0, 0], [2, 2]));
    // A target that the plan no longer has gives no place, and its session goes on.
    let frozen = next.freeze().await;
    let last = next.next(10);
    let left = spec(Targets::one(addrs[0].clone()), TcpOptions::default());
    last.spec.send_replace(Arc::new(left));
    let (taken, not_taken) = last.take_over(next.pack(&frozen));
    assert_eq!((taken.count(), not_taken), (4, vec![]));
    frozen.let_go(&HashSet::new());
    taken.resume();
    assert_eq!(sessions(&last), [2, 0]);
    drop(clients);
    last.until_empty().await;
    assert_eq!(sessions(&last), [0, 0]);
}

#[tokio::test]
async fn sockets_that_go_ahead_serve_the_session_and_do_not_disturb_it() {
    let (target, targets) = target().await;
    let process = Process::first(&spec(targets, TcpOptions::default()));
    let mut pairs = Vec::new();
    for _ in 0..3 {
        pairs.push(joined(&process, &target).await);
    }
    let shown = ahead(&process.sessions, &process.meter.live()).await;
    assert_eq!(shown.len(), 3);
    let mut unpacker = Unpacker::default();
    shown.into_iter().flatten().for_each(|socket| unpacker.add(socket));
    unpacker.register_streams();
    let (client, reached) = &mut pairs[0];
    // What the old process moves meanwhile is no concern of the next one.
    for _ in 0..50 {
        client.write_all(b"ping").await.unwrap();
        reached.read_exact(&mut [0; 4]).await.unwrap();
    }
    pairs.push(joined(&process, &target).await);
    client_of(&mut pairs, 1).write_all(b"before").await.unwrap();
    let frozen = process.freeze().await;
    let mut packer = Packer::default();
    let records = frozen.pack(0..frozen.count(), &mut packer).unwrap();
    let (sockets, bytes) = packer.into_parts();
    unpacker.add_bytes(bytes);
    // What came ahead comes again, beside the others.
    sockets.values().for_each(|socket| unpacker.add(socket.try_clone_to_owned().unwrap()));
    let mut next = process.next(10);
    let mut taken = FrozenTcp::held(&next.sessions);
    let not_taken = taken.take_over(&records, &mut unpacker, &Arc::new(next.service()));
    assert_eq!((not_taken, unpacker.left()), (vec![], 0));
    frozen.let_go(&HashSet::new());
    client_of(&mut pairs, 2).write_all(b"during").await.unwrap();
    next.serve();
    taken.resume();
    for (at, (client, reached)) in pairs.iter_mut().enumerate() {
        client.write_all(b"after").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        reached.read_to_end(&mut got).await.unwrap();
        let expected: &[u8] = [&b"after"[..], b"beforeafter", b"duringafter", b"after"][at];
        assert_eq!(got, expected);
    }
    drop(pairs);
    next.until_empty().await;
}

fn client_of(pairs: &mut [(TcpStream, TcpStream)], at: usize) -> &mut TcpStream {
    &mut pairs[at].0
}

#[tokio::test]
async fn a_listener_with_many_sessions_goes_over_a_socket() {
    const SESSIONS: u64 = 300;
    let (target, targets) = target().await;
    let process = Process::first(&spec(targets, TcpOptions::default()));
    let mut pairs = Vec::new();
    for _ in 0..SESSIONS {
        let client = process.client().await;
        pairs.push((client, target.accept().await.unwrap().0));
    }
    until_joined(&process, pairs.len()).await;
    let log = LogCatcher::start();
    let frozen = process.freeze().await;
    let mut packer = Packer::default();
    let records = frozen.pack(0..frozen.count(), &mut packer).unwrap();
    let (sockets, bytes) = packer.into_parts();
    let sockets: Vec<BorrowedFd<'_>> = sockets.into_values().collect();
    let inodes: HashSet<_> = sockets.iter().map(inode).collect();
    let (mut old_end, mut new_end) = Wire::pair().unwrap();
    let until = Instant::now() + 20 * SECOND;
    let received = thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let mut unpacker = Unpacker::default();
            loop {
                let received = new_end.receive(until).unwrap();
                received.descriptors.into_iter().for_each(|socket| unpacker.add(socket));
                if !received.frame.record.is_empty() {
                    unpacker.add_bytes(received.frame.bytes);
                    return (unpacker, received.frame.record);
                }
            }
        });
        for some in sockets.chunks(MOST_DESCRIPTORS) {
            old_end.send(&Frame::default(), some, until).unwrap();
        }
        let record = serde_json::to_vec(&records).unwrap();
        old_end.send(&Frame { record, bytes }, &[], until).unwrap();
        receiving.join().unwrap()
    });
    let (mut unpacker, record) = received;
    let records: Vec<SessionRecord> = serde_json::from_slice(&record).unwrap();
    let mut next = process.next(1000);
    let mut taken = FrozenTcp::held(&next.sessions);
    let not_taken = taken.take_over(&records, &mut unpacker, &Arc::new(next.service()));
    assert_eq!((not_taken, unpacker.left(), taken.count()), (vec![], 0, pairs.len()));
    frozen.let_go(&HashSet::new());
    process.assert_empty();
    next.serve();
    taken.resume();
    assert_eq!(log.lines().join("\n").matches("session ended").count(), 0);
    for (client, reached) in &mut pairs {
        client.write_all(b"hello").await.unwrap();
        reached.read_exact(&mut [0; 5]).await.unwrap();
    }
    drop(pairs);
    next.until_empty().await;
    assert_eq!(log.lines().join("\n").matches("session ended").count() as u64, SESSIONS);
    assert_eq!(open_of(&inodes), 0, "descriptors are left");
}

/// What the system calls the file behind a descriptor.
pub(super) fn inode(socket: &impl AsFd) -> u64 {
    rustix::fs::fstat(socket).unwrap().st_ino
}

/// How many descriptors of the whole process lead to these sockets.
pub(super) fn open_of(inodes: &HashSet<u64>) -> usize {
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let numbers = links.filter_map(|link| {
        let name = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        name.parse::<u64>().ok()
    });
    numbers.filter(|number| inodes.contains(number)).count()
}
