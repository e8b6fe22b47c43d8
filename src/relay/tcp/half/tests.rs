//! When a direction goes through a pipe, between two real connections.

use std::future::poll_fn;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

/// A direction between two connections, of which the test has the far ends.
struct Way {
    half: Half,
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
        Self { half: Half::new(bandwidth), source, sink, near, far, next: 0 }
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
            let step = half.transfer(cx, source, sink, false, &mut Moved::default(), |_| {});
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
async fn bulk_owns_no_pipe_while_it_is_dry_and_stays_bulk() {
    let mut way = Way::open(None).await;
    // How the bytes fall into reads is the kernel's affair, and the last look at the source may still be to come.
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
