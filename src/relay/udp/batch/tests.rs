//! Runs: what arrives in buffers leaves as the same datagrams, whatever the kernel refuses.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const SIZE: usize = 8192;

/// A buffer as the kernel would fill it: of one of two clients, with datagrams of one size and a
/// shorter last one.
#[derive(Clone, Debug)]
struct Arrival {
    client: u16,
    segment: usize,
    len: usize,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let sizes = prop_oneof![Just(0_usize), Just(1), Just(5), Just(15), Just(500), 1..1500_usize];
    (0..2_u16, sizes, 1..4_usize, 0..1500_usize).prop_map(|(client, segment, count, less)| {
        let len = segment * count;
        Arrival { client, segment, len: len - if count > 1 { less % segment.max(1) } else { 0 } }
    })
}

fn meta(arrival: &Arrival) -> RecvMeta {
    let mut meta = RecvMeta::default();
    meta.addr = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), arrival.client);
    (meta.len, meta.stride) = (arrival.len, arrival.segment);
    meta
}

/// What the kernel does with a send.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    Takes,
    Refuses(Errno),
    IsFull,
}

fn kernel() -> impl Strategy<Value = Kernel> {
    prop_oneof![
        6 => Just(Kernel::Takes),
        1 => Just(Kernel::Refuses(Errno::IO)),
        1 => Just(Kernel::Refuses(Errno::MSGSIZE)),
        1 => Just(Kernel::Refuses(Errno::INVAL)),
        1 => Just(Kernel::Refuses(Errno::CONNREFUSED)),
        1 => Just(Kernel::IsFull),
    ]
}

proptest! {
    #[test]
    fn datagrams_leave_in_order_once_and_whole(
        arrivals in prop::collection::vec(arrival(), 0..20),
        answers in prop::collection::vec(kernel(), 0..60),
        kernel_joins in any::<bool>(),
    ) {
        let mut bytes: Vec<u8> = (0..SIZE * arrivals.len()).map(|i| (i * 7 % 251) as u8).collect();
        let arrived: Vec<(u16, Vec<u8>)> = arrivals
            .iter()
            .enumerate()
            .flat_map(|(i, arrival)| {
                let buffer = &bytes[i * SIZE..][..arrival.len];
                Run::new(buffer, arrival.segment).datagrams().map(|d| (arrival.client, d.to_vec())).collect::<Vec<_>>()
            })
            .collect();
        let meta: Vec<RecvMeta> = arrivals.iter().map(meta).collect();
        let limit = JoinLimit::new(kernel_joins);
        let mut answers = answers.into_iter();
        // Each datagram once: sent, or refused by itself.
        let mut left: Vec<(u16, Vec<u8>)> = Vec::new();
        each_run(&mut bytes, SIZE, &meta, |client, _, run| {
            let mut todo = Some(run);
            while let Some(run) = todo {
                let (before, mut refused) = (left.len(), 0);
                let pushed = push(run, &limit, |contents, segment| {
                    let several = segment.is_some();
                    match answers.next().unwrap_or(Kernel::Takes) {
                        Kernel::IsFull => return Err(io::ErrorKind::WouldBlock.into()),
                        Kernel::Refuses(errno) => {
                            if !several {
                                left.push((client.port(), contents.to_vec()));
                                refused += 1;
                            }
                            return Err(errno.into());
                        }
                        Kernel::Takes => {}
                    }
                    let sent = Run::new(contents, segment.unwrap_or(contents.len()));
                    assert!(several == (sent.count() > 1) && sent.count() <= JOINED_DATAGRAMS);
                    left.extend(sent.datagrams().map(|d| (client.port(), d.to_vec())));
                    Ok(())
                });
                assert_eq!(pushed.refused, refused);
                let over = left[before..].iter().map(|(_, d)| d.len() as u64).sum::<u64>();
                assert!(pushed.bytes <= over);
                todo = pushed.rest;
            }
        });
        prop_assert_eq!(left, arrived);
    }
}

#[test]
fn neighbours_of_one_size_become_one_run() {
    let mut bytes: Vec<u8> = (0..4 * SIZE).map(|i| (i / SIZE) as u8).collect();
    let arrived = [(1, 100), (1, 100), (1, 60), (1, 100)];
    let meta = arrived.map(|(client, len)| meta(&Arrival { client, segment: len, len }));
    let mut runs = Vec::new();
    each_run(&mut bytes, SIZE, &meta, |_, _, run| runs.push((run.bytes().to_vec(), run.segment())));
    let together = [[0; 100].as_slice(), &[1; 100], &[2; 60]].concat();
    assert_eq!(runs, [(together, 100), (vec![3; 100], 100)]);
}

#[test]
fn a_size_that_was_refused_joined_is_not_tried_joined_again() {
    let limit = JoinLimit::new(true);
    let bytes = [0; 3000];
    let mut joined = 0;
    for _ in 0..3 {
        let pushed = push(Run::new(&bytes, 1500), &limit, |_, segment| {
            joined += usize::from(segment.is_some());
            if segment.is_some() { Err(Errno::MSGSIZE.into()) } else { Ok(()) }
        });
        assert_eq!((pushed.bytes, pushed.refused, pushed.rest), (3000, 0, None));
    }
    assert_eq!(joined, 1);
    assert!(limit.allows(1499), "smaller ones may fit");
}

#[test]
fn one_empty_datagram_is_one_send() {
    let mut sends = 0;
    let pushed = push(Run::single(b""), &JoinLimit::new(true), |contents, segment| {
        assert!(contents.is_empty() && segment.is_none());
        sends += 1;
        Ok(())
    });
    assert_eq!((sends, pushed), (1, Pushed { datagrams: 1, ..Pushed::default() }));
}

#[test]
fn a_batch_is_as_large_as_what_came_last_and_says_when_nothing_is_left() {
    let mut size = BatchSize::LEAST;
    size.filled(1);
    assert_eq!(size.get(), 2, "one at a time");
    // A burst: each batch is full, until the largest.
    let mut calls = 0;
    while size.get() < LISTENER_BATCH {
        size.filled(size.get());
        calls += 1;
    }
    assert!(calls <= 3, "{calls} calls until a burst has whole batches");
    for (filled, next) in [(LISTENER_BATCH, LISTENER_BATCH), (16, LISTENER_BATCH), (7, 8), (3, 4), (0, 2)] {
        size = BatchSize(LISTENER_BATCH);
        size.filled(filled);
        assert_eq!(size.get(), next, "after {filled}");
        assert!(filled == LISTENER_BATCH || size.get() > filled, "room for one more than {filled}");
    }
}
