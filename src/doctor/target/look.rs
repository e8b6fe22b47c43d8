//! What a target does when it is asked.
//!
//! Every step has a limit. A target gets a connection that is closed at once, or an empty datagram.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout},
};

use super::{
    super::subject::{self, Listener, Subject},
    Back, Clients, Did, Seen, Speaks, clients,
};
use crate::{
    job,
    mapping::{Protocol, takes},
    sock::leads_here,
};

/// How long a lookup may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// How long a connection may take. The kernel notices a missing machine after three seconds.
const CONNECT: Duration = Duration::from_secs(4);
/// How long a refusal of a datagram may take.
const REFUSAL: Duration = Duration::from_millis(500);
/// How long an answer to the start of TLS may take.
const ANSWER: Duration = Duration::from_secs(1);
/// A port that hardly any program uses, to compare with.
const UNUSED: u16 = 47_808 + 13;
/// A target with another port that says HTTP says it within so many bytes.
const FIRST: usize = 8;

/// Asks the targets of a mapping, one after the other.
pub(in crate::doctor) async fn look(subject: &Subject, back: &Back<'_>) -> Vec<Seen> {
    let mut all = Vec::new();
    for protocol in subject.protocols() {
        for target in &subject.targets {
            let (lookup, did) = one(subject, back, target, protocol).await;
            all.push(Seen { target: target.clone(), protocol, lookup, did });
        }
    }
    all
}

async fn one(
    subject: &Subject,
    back: &Back<'_>,
    target: &str,
    protocol: Protocol,
) -> (Option<Duration>, Did) {
    let (addresses, lookup) = match subject::target(target) {
        None => return (None, Did::Untried),
        Some(Ok(addr)) => (vec![addr], None),
        Some(Err((host, port))) => {
            let started = Instant::now();
            let find = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            match job::run_within(LOOKUP, "portway-lookup", find).await {
                Ok(Ok(found)) if !found.is_empty() => (found, Some(started.elapsed())),
                Ok(Ok(_)) => return (None, Did::NoAddress("the answer is empty".to_owned())),
                Ok(Err(error)) => return (None, Did::NoAddress(error.to_string())),
                Err(error) => return (None, Did::NoAddress(error.to_string())),
            }
        }
    };
    let mut worst = Did::Untried;
    for addr in addresses.into_iter().take(4) {
        let did = if let Some(did) = loops(subject, back, protocol, addr) {
            did
        } else if protocol == Protocol::Tcp {
            tcp(subject, addr).await
        } else {
            udp(addr).await
        };
        if matches!(did, Did::Connected { .. } | Did::Open) {
            return (lookup, did);
        }
        if worst == Did::Untried || matches!(did, Did::Refused { .. }) {
            worst = did;
        }
    }
    (lookup, worst)
}

/// Whether what goes to the address comes back to portway.
fn loops(subject: &Subject, back: &Back<'_>, protocol: Protocol, addr: SocketAddr) -> Option<Did> {
    let takes_it = |listener: &&Listener| {
        (listener.protocol, listener.port.get()) == (protocol, addr.port()) && takes(listener.ip, addr.ip())
    };
    // The mapping itself counts before others with the same port.
    let all = std::iter::once(subject).chain(back.all);
    let taker = all.into_iter().find(|other| other.listeners.iter().any(|l| takes_it(&l)));
    if let Some(taker) = taker.filter(|_| leads_here(addr).unwrap_or(false)) {
        return Some(Did::Loops(addr, taker.name.clone()));
    }
    let leads_back = |listener: &Listener| {
        (listener.protocol, subject.external_port(listener).get()) == (protocol, addr.port())
    };
    let is_outside = back.external == Some(addr.ip().to_canonical());
    (is_outside && subject.is_exposed() && subject.listeners.iter().any(leads_back))
        .then_some(Did::ComesBack(addr))
}

async fn tcp(subject: &Subject, addr: SocketAddr) -> Did {
    match connect(addr).await {
        Ok(stream) => {
            let is_web = clients(subject) != Clients::Any;
            Did::Connected { speaks: if is_web { speaks(stream).await } else { None } }
        }
        Err(Did::Refused { .. }) => Did::Refused { other_works: datagram(addr).await == Did::Open },
        Err(did) => did,
    }
}

async fn udp(addr: SocketAddr) -> Did {
    match datagram(addr).await {
        Did::Refused { .. } => Did::Refused { other_works: connect(addr).await.is_ok() },
        // Perhaps the machine is not there at all.
        Did::Untold => match connect(addr).await {
            Err(did @ Did::Unreachable(_)) => did,
            _ => Did::Untold,
        },
        did => did,
    }
}

async fn connect(addr: SocketAddr) -> Result<TcpStream, Did> {
    match timeout(CONNECT, TcpStream::connect(addr)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(Did::Refused { other_works: false })
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(Did::Silent),
        Ok(Err(error)) => Err(Did::Unreachable(error.to_string())),
        Err(_) => Err(Did::Silent),
    }
}

/// Sends an empty datagram to the port, and to another one to compare.
async fn datagram(addr: SocketAddr) -> Did {
    let other = SocketAddr::new(addr.ip(), UNUSED);
    let (one, compared) = tokio::join!(refuses(addr), refuses(other));
    match (one, compared) {
        (Err(error), _) => Did::Unreachable(error.to_string()),
        (Ok(true), _) => Did::Refused { other_works: false },
        (Ok(false), Ok(true)) => Did::Open,
        (Ok(false), _) => Did::Untold,
    }
}

/// Whether a port refuses a datagram.
async fn refuses(addr: SocketAddr) -> io::Result<bool> {
    let any: IpAddr = if addr.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(addr).await?;
    socket.send(&[]).await?;
    match timeout(REFUSAL, socket.recv(&mut [0; 64])).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(false),
    }
}

/// What a target answers to the first message of TLS.
async fn speaks(mut stream: TcpStream) -> Option<Speaks> {
    stream.write_all(&hello()).await.ok()?;
    let mut first = [0; FIRST];
    let mut length = 0;
    let read = async {
        while length < first.len() {
            match stream.read(&mut first[length..]).await {
                Ok(0) | Err(_) => break,
                Ok(count) => length += count,
            }
        }
    };
    // What came in time counts.
    let _ = timeout(ANSWER, read).await;
    Some(match first[..length] {
        // A handshake or an alert, of TLS 1.x (RFC 8446 section 5.1).
        [0x15 | 0x16, 3, ..] => Speaks::Tls,
        [b'H', b'T', b'T', b'P', ..] => Speaks::Http,
        _ => Speaks::Other,
    })
}

/// The first message of a client (RFC 5246 section 7.4.1.2): TLS 1.2, with the usual suites.
fn hello() -> Vec<u8> {
    const SUITES: [u16; 6] = [0xc02b, 0xc02f, 0xc02c, 0xc030, 0x009c, 0x002f];
    // Curves, their points, and signatures.
    const EXTENSIONS: [u8; 26] =
        [0, 10, 0, 6, 0, 4, 0, 23, 0, 24, 0, 11, 0, 2, 1, 0, 0, 13, 0, 6, 0, 4, 4, 1, 4, 3];
    let mut body = vec![3, 3];
    body.extend([0x5a; 32]);
    body.push(0);
    body.extend(12_u16.to_be_bytes());
    body.extend(SUITES.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]);
    body.extend((EXTENSIONS.len() as u16).to_be_bytes());
    body.extend(EXTENSIONS);
    let length = body.len() as u16;
    let mut message = vec![0x16, 3, 1];
    message.extend((length + 4).to_be_bytes());
    message.extend([1, 0]);
    message.extend(length.to_be_bytes());
    message.extend(body);
    message
}
