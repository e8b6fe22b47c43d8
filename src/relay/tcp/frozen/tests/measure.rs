//! Many sessions move to another process several times, and how long they stand still.
//!
//! The times mean something in a build for release, with more sessions:
//! `PORTWAY_TEST_SESSIONS=1000 cargo test --release --lib tests::measure -- --nocapture`

use super::*;

#[derive(Clone, Copy, Debug)]
enum Load {
    Idle,
    Busy,
}

/// The times of the steps, from the freeze to the resumed sessions.
async fn hand_over(process: &Process, is_ahead: bool) -> (Process, [Duration; 6]) {
    let mut unpacker = Unpacker::default();
    if is_ahead {
        for some in process.meter.live().chunks(AT_ONCE) {
            let shown = ahead(&process.sessions, some).await;
            shown.into_iter().flatten().for_each(|socket| unpacker.add(socket));
        }
        unpacker.register_streams();
    }
    let mut next = process.next(65_536);
    let service = Arc::new(next.service());
    let mut times = vec![Instant::now()];
    let frozen = process.freeze().await;
    if frozen.left() > 0 {
        println!("{} sessions did not stop in time", frozen.left());
    }
    times.push(Instant::now());
    let mut packer = Packer::default();
    let records = serde_json::to_vec(&frozen.pack(0..frozen.count(), &mut packer).unwrap()).unwrap();
    let (sockets, bytes) = packer.into_parts();
    times.push(Instant::now());
    if !is_ahead {
        sockets.values().for_each(|socket| unpacker.add(socket.try_clone_to_owned().unwrap()));
    }
    unpacker.add_bytes(bytes);
    times.push(Instant::now());
    let records: Vec<SessionRecord> = serde_json::from_slice(&records).unwrap();
    times.push(Instant::now());
    let mut taken = FrozenTcp::held(&next.sessions);
    let not_taken = taken.take_over(&records, &mut unpacker, &service);
    assert_eq!((not_taken, taken.count()), (vec![], records.len()));
    times.push(Instant::now());
    next.serve();
    taken.resume();
    times.push(Instant::now());
    // The old process closes after the new one serves.
    frozen.let_go(&HashSet::new());
    let steps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    (next, steps.try_into().unwrap())
}

async fn measure(load: Load, sessions: usize, is_ahead: bool) {
    let (target, targets) = target().await;
    let mut process = Process::first(&spec(targets, TcpOptions::default()));
    let mut talks = JoinSet::new();
    let mut idle = Vec::new();
    for number in 0..sessions as u64 {
        let mut client = process.client().await;
        let mut reached = target.accept().await.unwrap().0;
        match load {
            Load::Idle => idle.push((client, reached)),
            Load::Busy => {
                talks.spawn(async move {
                    let length = 1_u64 << 40;
                    let write = async { write_all(&mut client, number, length).await };
                    let read = async { read_all(&mut reached, number).await };
                    tokio::join!(write, read);
                });
            }
        }
    }
    process.until_live(sessions).await;
    sleep(SECOND / 2).await;
    let mut totals = Vec::new();
    for _ in 0..7 {
        let (next, steps) = hand_over(&process, is_ahead).await;
        let total: Duration = steps.iter().sum();
        println!(
            "{sessions} {load:?}, ahead {is_ahead}: {total:?} (freeze, pack, add, parse, take over, resume: {steps:?})"
        );
        totals.push(total);
        process = next;
        sleep(SECOND / 5).await;
    }
    totals.sort();
    println!("median {:?}", totals[totals.len() / 2]);
    talks.abort_all();
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_move_whole_with_their_sockets_ahead_or_not() {
    let many = std::env::var("PORTWAY_TEST_SESSIONS").ok().and_then(|number| number.parse().ok());
    let loads: &[Load] = if many.is_some() { &[Load::Idle, Load::Busy] } else { &[Load::Idle] };
    for is_ahead in [false, true] {
        for load in loads {
            measure(*load, many.unwrap_or(100), is_ahead).await;
        }
    }
}
