//! The visitors of the demo: a few clients that come, ask for a page now and then, and leave again.
//!
//! They are ordinary clients: they come through the listeners, and portway treats them as any
//! other. A visitor that cannot come in tries again.

use std::{io, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::sleep,
};

use crate::{job, relay::Drain};

/// How many visitors the page has.
const READERS: u64 = 3;
/// The time between two requests of a visitor, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 150..700;
/// The requests of a visit.
const REQUESTS: std::ops::Range<u32> = 20..60;
/// How long a visitor that cannot come in waits.
const AGAIN: Duration = Duration::from_millis(200);

/// Sends visitors to both ports on 127.0.0.1, from a thread of their own, as long as the process
/// lives.
pub(super) fn start(web: u16, echo: u16) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let visit = move || {
        runtime.block_on(async {
            let drain = Drain::new();
            for _ in 0..READERS {
                drain.watch().spawn(repeat(move || read_pages(web)));
            }
            repeat(move || talk(echo)).await;
        });
    };
    job::thread("demo-visitors", visit).map_err(|(error, _)| error)?;
    Ok(())
}

async fn repeat<F: Future<Output = io::Result<()>>>(mut visit: impl FnMut() -> F) {
    loop {
        // The end of a visit, also one that was cut, is the visitor's own affair.
        let _ = visit().await;
        sleep(AGAIN).await;
    }
}

fn pause() -> Duration {
    Duration::from_millis(fastrand::u64(PAUSE_MS))
}

/// Asks for the page a number of times, on one connection.
async fn read_pages(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut buffer = vec![0; 16 * 1024];
    for _ in 0..fastrand::u32(REQUESTS) {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        if stream.read(&mut buffer).await? == 0 {
            break;
        }
        sleep(pause()).await;
    }
    Ok(())
}

/// Sends a line now and then, and waits for its echo.
async fn talk(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut buffer = [0; 128];
    for _ in 0..fastrand::u32(REQUESTS) {
        socket.send(b"Is there an echo in here?\n").await?;
        let _ = tokio::time::timeout(AGAIN, socket.recv(&mut buffer)).await;
        sleep(pause()).await;
    }
    Ok(())
}
