//! Many sessions that do this and that while all stands still again and again, back and over.

use super::{
    steps::{inode, open_of},
    *,
};
use crate::fixture::Random;

/// Up to `most`.
fn below(random: &mut Random, most: u64) -> u64 {
    random.next() % (most + 1)
}

/// One end of a session: writes its stream, checks the other one. Returns what it wrote and read.
async fn talk(mut end: TcpStream, mut random: Random, own: u64, other: u64) -> (u64, u64) {
    let (mut reads, mut writes) = end.split();
    let mut write_random = random.clone();
    let length = match below(&mut random, 3) {
        0 => 0,
        1 => below(&mut random, 3_000),
        _ => below(&mut random, 400_000),
    };
    let is_slow = below(&mut random, 4) == 0;
    let write = async {
        let mut sent = 0;
        while sent < length {
            let piece = below(&mut write_random, 30_000).min(length - sent - 1) + 1;
            writes.write_all(&content(own, sent, usize::try_from(piece).unwrap())).await.unwrap();
            sent += piece;
            if below(&mut write_random, 3) == 0 {
                sleep(MOMENT * u32::try_from(below(&mut write_random, 300)).unwrap()).await;
            }
        }
        if below(&mut write_random, 2) == 0 {
            sleep(SECOND).await;
        }
        writes.shutdown().await.unwrap();
    };
    let read = async {
        let (mut got, mut piece) = (0, vec![0; 20_000]);
        loop {
            if is_slow && below(&mut random, 3) == 0 {
                sleep(SECOND / 3).await;
            }
            match reads.read(&mut piece).await.unwrap() {
                0 => return got,
                n => {
                    assert!(piece[..n] == content(other, got, n), "stream {other} differs after {got}");
                    got += n as u64;
                }
            }
        }
    };
    let ((), got) = tokio::join!(write, read);
    (length, got)
}

async fn sessions_talk_while_all_stands_still(seed: u64) {
    const SESSIONS: u64 = 40;
    let mut random = Random::of(seed);
    let log = LogCatcher::start();
    let (target, targets) = target().await;
    let mut process = Process::first(&spec(targets, TcpOptions::default()));
    let addr = process.addr();
    let mut ends = JoinSet::new();
    let seeds: Vec<u64> = (0..2 * SESSIONS).map(|_| random.next()).collect();
    let of_targets = seeds.clone();
    ends.spawn(async move {
        let mut ends = JoinSet::new();
        for _ in 0..SESSIONS {
            let (mut end, _) = target.accept().await.unwrap();
            let random = Random::of(of_targets[ends.len()]);
            ends.spawn(async move {
                let number = end.read_u64().await.unwrap();
                talk(end, random, 2 * number + 1, 2 * number).await
            });
        }
        ends.join_all().await.into_iter().fold((0, 0), |sum, (sent, got)| (sum.0 + sent, sum.1 + got))
    });
    for number in 0..SESSIONS {
        let random = Random::of(seeds[usize::try_from(SESSIONS + number).unwrap()]);
        ends.spawn(async move {
            sleep(SECOND / 10 * u32::try_from(number).unwrap()).await;
            let mut end = TcpStream::connect(addr).await.unwrap();
            end.write_u64(number).await.unwrap();
            talk(end, random, 2 * number, 2 * number + 1).await
        });
    }
    let mut inodes = HashSet::new();
    for _ in 0..20 {
        sleep(MOMENT * u32::try_from(below(&mut random, 500)).unwrap()).await;
        let frozen = process.freeze().await;
        inodes.extend(process.pack(&frozen).sockets.iter().map(inode));
        frozen.resume();
        process = process.through(WAYS[usize::try_from(below(&mut random, 1)).unwrap()]).await;
    }
    // In whatever order they end, all of them sent as much as was got.
    let all = ends.join_all().await;
    let (sent, got) = all.iter().fold((0, 0), |sum, (sent, got)| (sum.0 + sent, sum.1 + got));
    assert_eq!(sent, got);
    process.until_empty().await;
    let read = process.totals.read(Protocol::Tcp);
    assert_eq!((read.live, read.sessions), (0, SESSIONS));
    assert_eq!(read.ended.iter().map(|(_, count)| count).sum::<u64>(), SESSIONS);
    assert_eq!(read.moved.bytes_in + read.moved.bytes_out, sent + 8 * SESSIONS);
    assert!(!inodes.is_empty());
    assert_eq!(open_of(&inodes), 0, "descriptors are left");
    let lines = log.lines();
    for id in 1..=SESSIONS {
        let of_session = format!("session.id={id} ");
        let count = lines.iter().filter(|l| l.contains("session ended") && l.contains(&of_session)).count();
        assert_eq!(count, 1, "lines of session {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_byte_arrives_and_is_counted_once_whatever_the_sessions_do() {
    let seeds = std::env::var("PORTWAY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3);
    for seed in 0..seeds {
        println!("seed {seed}");
        sessions_talk_while_all_stands_still(seed).await;
    }
}
