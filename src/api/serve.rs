//! Takes clients at one door, and serves HTTP/1.1 to each.
//!
//! Owns how long and how much a client may send before it is known: the head of a request has
//! [`HEAD_TIME`], [`MOST_HEAD`] bytes and [`MOST_HEADERS`] headers. A client without a place hears
//! 503. The limit for a client that does not read is in [`stream`](super::stream).
//!
//! Every task is tracked. When the door closes, no client enters any more, streams end, and each
//! client has [`DRAIN`] for the answer that it waits for.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use axum::response::Response;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, UnixListener},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    app::App,
    entrance::{Clients, Door, Ends, Entrance, Place},
    stream::{Client, Impatient},
};
use crate::{
    log_limiter::LogLimiter,
    sock::{Backoff, errno::is_of_one_connection},
};

/// How long the head of a request may take, and how long a connection may stay without one.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// The largest head, and as much of an answer is kept for a client that is slow.
const MOST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;
/// How long an answer may take after the door has closed.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the first request of a client may take after that.
const LAST_CALL: Duration = Duration::from_millis(250);
/// How long a client may take to hear that there is no place.
const TURN_AWAY: Duration = Duration::from_secs(2);
/// What it hears.
const NO_PLACE: &str =
    "{\"error\":\"the daemon serves as many clients of its API as it may; try again later\"}";

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<(Client, Option<Ends>)> {
        match self {
            Self::Unix(listener) => Ok((Client::Unix(listener.accept().await?.0), None)),
            Self::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                let own: SocketAddr = stream.local_addr()?;
                Ok((Client::Tcp(stream), Some(Ends { client, own })))
            }
        }
    }
}

/// What all doors share.
#[derive(Clone, Debug)]
pub(super) struct Hall {
    pub(super) app: Arc<App>,
    pub(super) clients: Arc<Clients>,
    pub(super) tasks: TaskTracker,
}

/// Takes clients until the door closes.
pub(super) async fn accept(listener: Arc<Listener>, door: Door, hall: Hall, closing: CancellationToken) {
    let (mut backoff, trouble) = (Backoff::default(), LogLimiter::new(1, Duration::from_secs(60)));
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, tcp)) => {
                backoff = Backoff::default();
                let entrance = Entrance { door, tcp, closing: closing.clone() };
                admit(client, entrance, &hall);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if let Some(left_out) = trouble.take(Instant::now()) {
                    tracing::warn!(%error, failures = left_out + 1, "API takes no client; trying again");
                }
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = sleep(backoff.next()) => {}
                }
            }
        }
    }
}

fn admit(client: Client, entrance: Entrance, hall: &Hall) {
    if let Some(place) = hall.clients.enter(entrance.door) {
        hall.tasks.spawn(serve(client, entrance, Arc::clone(&hall.app), place));
    } else if let Some(place) = hall.clients.turn_away() {
        hall.tasks.spawn(turn_away(client, place));
    }
}

/// Serves one client until it leaves.
async fn serve(client: Client, entrance: Entrance, app: Arc<App>, _place: Place) {
    let closing = entrance.closing.clone();
    let is_fresh = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_fresh);
    let service = service_fn(move |request: Request<Incoming>| {
        asked.store(false, Relaxed);
        answer(&app, request, &entrance)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    builder.max_buf_size(MOST_HEAD).max_headers(MOST_HEADERS);
    let mut connection = builder.serve_connection(TokioIo::new(Impatient::new(client)), service);
    let served = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx));
    let is_over = tokio::select! {
        _ = served => true,
        () = closing.cancelled() => false,
    };
    if !is_over {
        // The request of a client that came at the last moment may be on its way.
        let asks = std::future::poll_fn(|cx| {
            let served = connection.poll_without_shutdown(cx);
            if is_fresh.load(Relaxed) { served.map(drop) } else { Poll::Ready(()) }
        });
        let _ = timeout(LAST_CALL, asks).await;
        Pin::new(&mut connection).graceful_shutdown();
        let _ = timeout(DRAIN, std::future::poll_fn(|cx| connection.poll_without_shutdown(cx))).await;
    }
    connection.into_parts().io.into_inner().close().await;
}

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

fn answer(app: &Arc<App>, request: Request<Incoming>, entrance: &Entrance) -> Answering {
    let (app, entrance) = (Arc::clone(app), entrance.clone());
    Box::pin(async move { Ok(app.answer(request.map(axum::body::Body::new), entrance).await) })
}

/// Tells a client that there is no place.
async fn turn_away(client: Client, _place: Place) {
    let length = NO_PLACE.len();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{NO_PLACE}"
    );
    let mut client = Impatient::new(client);
    let told = async {
        if client.write_all(answer.as_bytes()).await.is_ok() {
            client.close().await;
        }
    };
    let _ = timeout(TURN_AWAY, told).await;
}
