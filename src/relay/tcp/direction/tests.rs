//! When a direction goes through a pipe, between two real connections.

use std::{future::poll_fn, sync::LazyLock};

use rustix::net::{SendFlags, send};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

static PIPES: LazyLock<Pipes> = LazyLock::new(|| Pipes::new(64));

/// A direction between two connections, of which the test has the far ends.
struct Way {
    half: Direction<'static>,
    source: TcpStream,
    sink: TcpStream,
    near: TcpStream,
    far: TcpStream,
    /// A number for the next byte.
    next: usize,
}

impl Way {
    async fn open(bandwidth: Option<NonZeroU64>) -> Self {
        let (near, source) = pair().await;
        let (sink, far) = pair().await;
        Self { half: Direction::new(bandwidth, None), source, sink, near, far, next: 0 }
    }

    /// Sends so many bytes through, and checks them.
    async fn bring(&mut self, length: usize) {
        let content: Vec<u8> = (self.next..self.next + length).map(|n| (n % 251) as u8).collect();
        self.next += length;
        let Self { half, source, sink, near, far, .. } = self;
        let mut arrived = vec![0; length];
        let write = async {
            near.write_all(&content).await.unwrap();
            std::future::pending::<()>().await;
        };
        let pump = poll_fn(|cx| {
            let step =
                half.transfer(cx, Link { source, sink, pipes: &PIPES }, false, &mut Moved::default(), |_| {});
            assert!(step.is_ok());
            Poll::<()>::Pending
        });
        tokio::select! {
            () = write => {}
            () = pump => {}
            read = far.read_exact(&mut arrived) => { read.unwrap(); }
        }
        assert!(arrived == content);
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn what_a_client_says_at_once_goes_out_before_tokio_knows_the_sockets() {
    let register = |stream: TcpStream| TcpStream::from_std(stream.into_std().unwrap()).unwrap();
    for first in [None, Some(Box::new(Pending::first(b"a header".to_vec(), 8)))] {
        let expected: &[u8] = if first.is_some() { b"a header" } else { b"hello" };
        let mut way = Way::open(None).await;
        way.half = Direction::of_client(None, first);
        way.near.write_all(b"hello").await.unwrap();
        // From here on nothing is awaited: tokio has not heard of these two.
        (way.source, way.sink) = (register(way.source), register(way.sink));
        let link = Link { source: &way.source, sink: &way.sink, pipes: &PIPES };
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert!(way.half.transfer(cx, link, false, &mut Moved::default(), |_| {}).is_ok());
        let mut arrived = [0; 8];
        let arrived = &mut arrived[..expected.len()];
        let there = readiness(&way.far, PollFlags::IN).contains(PollFlags::IN);
        assert!(there, "{expected:?} waits");
        way.far.read_exact(arrived).await.unwrap();
        assert_eq!(arrived, expected);
    }
}

#[tokio::test]
async fn bulk_owns_no_pipe_while_it_is_dry_and_stays_bulk() {
    let mut way = Way::open(None).await;
    // How the bytes fall into reads is the kernel's affair, and the last look at the source may
    // still be to come.
    for _ in 0..1000 {
        way.bring(64 * BUFFER).await;
        if way.half.bulk.as_ref().is_some_and(|bulk| !bulk.has_pipe()) {
            return;
        }
    }
    panic!("{:?}", way.half.bulk);
}

#[tokio::test]
async fn little_at_a_time_is_no_bulk_any_more() {
    let mut way = Way::open(None).await;
    way.bring(4 << 20).await;
    for _ in 0..3 {
        way.bring(100).await;
    }
    assert!(way.half.bulk.is_none(), "{:?}", way.half.bulk);
    way.bring(100).await;
}

#[tokio::test]
async fn a_throttled_direction_is_never_bulk() {
    let mut way = Way::open(NonZeroU64::new(1 << 30)).await;
    way.bring(4 << 20).await;
    assert!(way.half.bulk.is_none(), "{:?}", way.half.bulk);
}

/// Marks a byte of what the near end sends as urgent.
async fn send_urgent(way: &mut Way, byte: u8) {
    way.near.writable().await.unwrap();
    way.near
        .try_io(Interest::WRITABLE, || Ok(send(&way.near, &[byte], SendFlags::OOB)?))
        .expect("room for a byte");
}

/// Everything that comes out until the end.
async fn rest(way: &mut Way) -> Vec<u8> {
    let Way { half, source, sink, far, .. } = way;
    let mut arrived = Vec::new();
    let pump = poll_fn(|cx| {
        let step =
            half.transfer(cx, Link { source, sink, pipes: &PIPES }, false, &mut Moved::default(), |_| {});
        assert!(step.is_ok());
        Poll::<()>::Pending
    });
    tokio::select! {
        () = pump => {}
        read = far.read_to_end(&mut arrived) => { read.unwrap(); }
    }
    arrived
}

#[tokio::test]
async fn what_follows_an_urgent_byte_is_not_lost_although_splice_says_that_the_stream_ended() {
    let mut way = Way::open(None).await;
    // The source is full to the brim when the pump starts, so that it is bulk by the time that it
    // meets the mark.
    let first = vec![b'a'; 3 * BUFFER + 20_000];
    way.near.write_all(&first).await.unwrap();
    send_urgent(&mut way, b'!').await;
    way.near.write_all(&[b'b'; 5000]).await.unwrap();
    way.near.shutdown().await.unwrap();
    let arrived = rest(&mut way).await;
    assert_eq!(arrived.iter().filter(|b| **b == b'a').count(), first.len());
    assert_eq!(arrived.iter().filter(|b| **b == b'b').count(), 5000);
    assert!(arrived.ends_with(b"bbb"));
}

#[tokio::test]
async fn bulk_goes_on_past_an_urgent_byte_in_the_middle() {
    let mut way = Way::open(None).await;
    way.bring(4 << 20).await;
    send_urgent(&mut way, b'!').await;
    // Without the mark in line, the urgent byte itself is not part of the stream.
    way.bring(4 << 20).await;
    way.bring(100).await;
}

#[tokio::test]
async fn a_stalled_flow_that_gives_its_pipe_up_loses_nothing() {
    let mut way = Way::open(None).await;
    let content: Vec<u8> = (0..32_usize << 20).map(|n| (n % 251) as u8).collect();
    let Way { half, source, sink, near, far, .. } = &mut way;
    let stalled = tokio::sync::Notify::new();
    let write = async {
        near.write_all(&content).await.unwrap();
        near.shutdown().await.unwrap();
    };
    let pump = poll_fn(|cx| {
        let step =
            half.transfer(cx, Link { source, sink, pipes: &PIPES }, false, &mut Moved::default(), |_| {});
        assert!(step.is_ok());
        if half.bulk.as_ref().is_some_and(|bulk| bulk.laden() > 0) {
            half.unload().unwrap();
            assert!(half.bulk.is_none() && half.is_stalled());
            stalled.notify_one();
        }
        if half.is_shut() { Poll::Ready(()) } else { Poll::Pending }
    });
    let read = async {
        let mut arrived = Vec::new();
        stalled.notified().await;
        far.read_to_end(&mut arrived).await.unwrap();
        arrived
    };
    let ((), (), arrived) = tokio::join!(write, pump, read);
    assert!(arrived == content);
}
