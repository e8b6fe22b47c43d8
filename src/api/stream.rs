//! The stream of a client, with a limit for a client that does not read.
//!
//! Owns that limit: bytes that the client does not take within [`STALL`] are an error, which ends
//! the connection. So a client that never reads holds neither memory nor a task without end. Each
//! byte that it takes begins the limit again.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, Sleep, sleep, timeout},
};

/// How long a client may take nothing of what waits for it.
pub(super) const STALL: Duration = Duration::from_secs(20);
/// How long the rest of a client's bytes is read after the last answer, and how many. A close
/// before that would discard the answer on its way.
const LINGER: Duration = Duration::from_secs(1);
const MOST_LINGERING: usize = 1 << 20;

/// A client's stream, over either kind of socket.
#[derive(Debug)]
pub(super) enum Client {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    // Neither kind of socket has a buffer of its own.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A stream with the limit.
#[derive(Debug)]
pub(super) struct Impatient<S> {
    stream: S,
    /// The limit, while the client takes nothing.
    stalls: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Impatient<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, stalls: None }
    }

    /// Ends the stream after the last answer.
    pub(super) async fn close(mut self) {
        let end = async {
            self.stream.shutdown().await?;
            let mut rest = (&mut self.stream).take(MOST_LINGERING as u64);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // However it ends, the client has had its time.
        let _ = timeout(LINGER, end).await;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, bytes) {
            self.stalls = None;
            return Poll::Ready(written);
        }
        let stalls = self.stalls.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stalls.as_mut().poll(cx));
        stalls.as_mut().reset(Instant::now() + STALL);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up_and_one_that_reads_slowly_is_not() {
        let (ours, mut theirs) = duplex(1024);
        let mut ours = Impatient::new(ours);
        let answer = [0; 4096];
        let slow = async {
            for _ in 0..4 {
                sleep(STALL - Duration::from_secs(1)).await;
                theirs.read_exact(&mut [0; 1024]).await.unwrap();
            }
        };
        let (sent, ()) = tokio::join!(ours.write_all(&answer), slow);
        sent.unwrap();
        let started = Instant::now();
        let error = ours.write_all(&answer).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed()), (io::ErrorKind::TimedOut, STALL));
    }
}
