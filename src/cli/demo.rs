//! `portway demo`: a complete example with nothing set up.
//!
//! A web page and a UDP echo run as targets inside the program, on loopback and on ports that the
//! system chooses; in front of them, the real daemon runs a real plan, on ports that are easy to
//! type. What a person can do next is printed, then the log goes on as always.

use std::{
    convert::Infallible,
    fmt::Write as _,
    io,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Bytes, header::CONTENT_TYPE, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UdpSocket};

use super::{FAILED, code_of, print, say, start};
use crate::{
    config::{self, Source, System},
    daemon::{self, Options},
    job,
    mapping::Timeout,
    relay::{Drain, DrainWatch},
};

/// The page that the demo serves.
const PAGE: &str = include_str!("demo.html");
/// Where the first free pair of ports is looked for.
const FIRST_PORT: u16 = 8080;
const TRIES: u16 = 100;

/// Runs the demo until it is stopped.
pub(super) fn run() -> ExitCode {
    let (web, echo) = match daemon::hold_signals().and_then(|()| targets()) {
        Ok(addrs) => addrs,
        Err(error) => {
            say(&format!("portway demo: start the targets: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let Some((web_port, echo_port)) = free_ports() else {
        say("portway demo: no free port on 127.0.0.1 between 8080 and 8180");
        return ExitCode::from(FAILED);
    };
    let publish = vec![format!("127.0.0.1:{web_port}:{web}"), format!("127.0.0.1:{echo_port}:{echo}/udp")];
    if let Err(error) = print(&invitation(web_port, echo_port, &publish))
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return code_of(Err(error), ExitCode::SUCCESS);
    }
    let source = Source { publish, ..Source::default() };
    let read = move || {
        config::load(&source, &System).map(|mut loaded| {
            // A demo has no sessions to wait for: Ctrl-C ends it.
            loaded.settings.grace = Timeout::After(Duration::ZERO);
            loaded
        })
    };
    // Where one of its ports is taken meanwhile, half a demo is of no use.
    start(Arc::new(read), Options { strict: true, ..Options::default() })
}

fn invitation(web_port: u16, echo_port: u16, publish: &[String]) -> String {
    let mut text = String::from("portway demo: two mappings on this machine, with a target behind each\n\n");
    for spec in publish {
        let _ = writeln!(text, "  portway -p {spec}");
    }
    let _ = write!(
        text,
        "\nTry them:\n\
         \n  open   http://127.0.0.1:{web_port}/            in a browser, or: curl http://127.0.0.1:{web_port}/\
         \n  type   nc -u 127.0.0.1 {echo_port}              and some words: each line comes back\n\
         \nEach connection ends with a line `session ended` below. Ctrl-C stops the demo.\n"
    );
    text
}

/// A TCP and a UDP port on 127.0.0.1 that are free now, one after the other. If another program
/// takes one before the daemon binds it, the start fails and names that program.
fn free_ports() -> Option<(u16, u16)> {
    let free_tcp = |port: &u16| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let free_udp = |port: &u16| std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let web = (FIRST_PORT..FIRST_PORT + TRIES).find(free_tcp)?;
    let echo = (web + 1..FIRST_PORT + TRIES + 1).find(free_udp)?;
    Some((web, echo))
}

/// Starts the targets on a thread of their own, as if they were other programs.
fn targets() -> io::Result<(SocketAddr, SocketAddr)> {
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
