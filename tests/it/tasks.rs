//! What only the library can show: that no task is left behind.

use std::{net::SocketAddr, sync::Arc};

use portway::testing::{
    Alarm, Budgets, Events, Gate, Handle, Inherited, Means, Source, System, Tolerance, load,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::{JoinSet, yield_now},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::harness::{DEADLINE, own_addr};

/// Runs what `publish` says inside this process.
async fn start(publish: Vec<String>) -> Handle {
    let source = Source { publish, ..Source::default() };
    let loaded = load(&source, &System).unwrap_or_else(|problems| panic!("{problems}"));
    let budgets = Budgets::new(4_096, true);
    let (gate, alarm, events) = (Gate::new(std::time::SystemTime::now), Alarm::default(), Events::default());
    let means = Means { budgets, gate, alarm, events, inherited: Inherited::default() };
    let read = Arc::new(move || load(&source, &System));
    Handle::start(read, loaded, Tolerance::Nothing, means, &TaskTracker::new())
        .await
        .expect("the listeners open")
}

fn alive() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Waits until no more tasks run than `base`.
async fn back_to(base: usize) {
    let settled = async {
        while alive() > base {
            yield_now().await;
        }
    };
    timeout(DEADLINE, settled).await.unwrap_or_else(|_| panic!("{} tasks, {base} before", alive()));
}

async fn ping(at: SocketAddr) {
    let mut client = TcpStream::connect(at).await.expect("the listener takes a client");
    client.write_all(b"ping").await.expect("the client sends");
    client.read_exact(&mut [0; 4]).await.expect("the answer comes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sessions_leave_no_task() {
    let target = TcpListener::bind("127.0.0.1:0").await.expect("a target binds");
    let (at, behind) = (own_addr(8080), target.local_addr().expect("its address"));
    let mut echo = JoinSet::new();
    echo.spawn(async move {
        let mut buffer = [0; 16];
        while let Ok((mut stream, _)) = target.accept().await {
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                let _ = stream.write_all(&buffer[..n]).await;
            }
        }
    });
    let _daemon = start(vec![format!("{at}:{behind}")]).await;
    ping(at).await;
    let base = alive();
    for _ in 0..10_000 {
        ping(at).await;
    }
    back_to(base).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_leaves_no_task() {
    let target = UdpSocket::bind("127.0.0.1:0").await.expect("a target binds");
    let (at, behind) = (own_addr(8080), target.local_addr().expect("its address"));
    let base = alive();
    let daemon = start(vec![format!("{at}:{behind}/tcp+udp")]).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a client binds");
    client.send_to(b"a flow", at).await.expect("the client sends");
    target.recv_from(&mut [0; 16]).await.expect("the datagram arrives");
    assert!(alive() > base);
    daemon.stop_at_once();
    daemon.stop().await;
    back_to(base).await;
}
