//! What the demo's mappings lead to: a web page and a UDP echo, on loopback.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Bytes, header::CONTENT_TYPE, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UdpSocket};

use crate::{
    job,
    relay::{Drain, DrainWatch},
};

/// The page that the demo serves.
const PAGE: &str = include_str!("../demo.html");

/// Starts the targets on a thread of their own, as if they were other programs. Returns the address
/// of the page and that of the echo.
pub(super) fn start() -> io::Result<(SocketAddr, SocketAddr)> {
    let web = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let echo = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    web.set_nonblocking(true)?;
    echo.set_nonblocking(true)?;
    let addrs = (web.local_addr()?, echo.local_addr()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        runtime.block_on(async {
            let drain = Drain::new();
            let (Ok(web), Ok(echo)) = (TcpListener::from_std(web), UdpSocket::from_std(echo)) else { return };
            drain.watch().spawn(serve_echo(echo));
            serve_pages(web, drain.watch()).await;
        });
    };
    job::thread("demo-targets", serve).map_err(|(error, _)| error)?;
    Ok(addrs)
}

async fn serve_pages(listener: TcpListener, tasks: DrainWatch) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => tasks.spawn(async move {
                // A browser that goes away in the middle of a page is its own affair.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(page)).await;
            }),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn page<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = if request.uri().path() == "/" {
        (StatusCode::OK, PAGE)
    } else {
        (StatusCode::NOT_FOUND, "not found\n")
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let kind = if status == StatusCode::OK { "text/html; charset=utf-8" } else { "text/plain" };
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

async fn serve_echo(socket: UdpSocket) {
    let mut buffer = vec![0; 65_535];
    loop {
        // An error here belongs to one client that has gone.
        if let Ok((len, client)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..len], client).await;
        }
    }
}
