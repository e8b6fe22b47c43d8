//! `portway knock`: asks a server to be let in.
//!
//! One datagram goes to each address of the host, and none comes back: the port of knocks never
//! answers. It asks for the address that this machine sends from where the server sees that one
//! too. Behind a NAT that is not so: then the address that the datagram comes from is meant.

use std::{
    io::{self, Read as _},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Args;

use super::{FAILED, help, printed, say};
use crate::{
    knock::{keys::ClientKey, seal},
    text::{Escaped, escaped_lines},
};

/// The usual port of knocks.
const PORT: u16 = 62201;
/// The most addresses of a host that are knocked at.
const MOST: usize = 8;
/// How long a try waits for the connection, and for the first byte.
const TRY: Duration = Duration::from_secs(3);

/// How to knock.
#[derive(Debug, Args)]
pub(super) struct Knock {
    /// The server, HOST or HOST:PORT; the usual port is 62201
    host: String,
    /// The key that `portway key new` made (NAME.key)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The address to let in, in place of the one that this comes from
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Connect to this TCP port of the server afterwards, and say what is heard
    #[arg(long = "try", value_name = "PORT")]
    attempt: Option<u16>,
}

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
enum KnockError {
    #[error("the key {path} cannot be used: {1}", path = .0.display())]
    Key(PathBuf, String),
    #[error("`{0}` is not a host with an address: {1}")]
    Host(String, String),
    #[error("knock at {0}: {1}")]
    Send(SocketAddr, io::Error),
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
}

impl KnockError {
    fn cure(&self) -> Option<&'static str> {
        match self {
            Self::Key(..) => Some("name the .key file that `portway key new` wrote"),
            Self::Host(..) => Some("write HOST or HOST:PORT, and an IPv6 address in brackets"),
            Self::Send(..) => Some("is there a way to this address? `ip route` shows it"),
            Self::Random(_) => None,
        }
    }
}

impl Knock {
    /// Runs the command.
    pub(super) fn run(&self) -> ExitCode {
        match self.knock() {
            Ok(text) => printed(&escaped_lines(&text), ExitCode::SUCCESS),
            Err(error) => {
                say(&escaped_lines(&format!(
                    "portway: {}",
                    help::below(&error.to_string(), error.cure(), 2)
                )));
                ExitCode::from(FAILED)
            }
        }
    }

    fn knock(&self) -> Result<String, KnockError> {
        let wrong = |why: String| KnockError::Key(self.key.clone(), why);
        let text = std::fs::read_to_string(&self.key).map_err(|error| wrong(error.to_string()))?;
        let key = ClientKey::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let addresses = addresses(&self.host)?;
        let (mut sent, mut failed) = (Vec::new(), None);
        for to in addresses {
            match self.send(&key, to) {
                Ok(()) => sent.push(to),
                Err(error) => failed = Some(error),
            }
        }
        let Some(first) = sent.first().copied() else {
            return Err(failed.unwrap_or_else(|| {
                KnockError::Host(self.host.clone(), "it has none of the wanted family".to_owned())
            }));
        };
        let told: Vec<_> = sent.iter().map(ToString::to_string).collect();
        let mut text = format!(
            "knocked at {} with the key {}; no answer comes\n",
            told.join(" and "),
            Escaped(&key.name)
        );
        text.push_str(&match self.attempt {
            Some(port) => attempt(SocketAddr::new(first.ip(), port)),
            None => "try what you want to reach. If it stays silent: is the clock of this machine right, to the minute? \
                     `portway status` on the server shows grants, and its log why a knock is false\n"
                .to_owned(),
        });
        Ok(text)
    }

    /// Sends one datagram.
    fn send(&self, key: &ClientKey, to: SocketAddr) -> Result<(), KnockError> {
        let failed = |error| KnockError::Send(to, error);
        let any: IpAddr = match to {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).map_err(failed)?;
        socket.connect(to).map_err(failed)?;
        let own = socket.local_addr().map_err(failed)?.ip();
        let wanted = self.address.or_else(|| sees(own, to.ip()).then_some(own));
        let random = super::random().map_err(KnockError::Random)?;
        socket.send(&seal(key, wanted, SystemTime::now(), random)).map_err(failed)?;
        Ok(())
    }
}

/// Whether the server sees this address of ours: both are public, or neither is.
fn sees(own: IpAddr, server: IpAddr) -> bool {
    is_public(own) == is_public(server)
}

/// Whether an address means the same everywhere.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

/// The addresses of `HOST` or `HOST:PORT`, one of each family where there are several.
fn addresses(host: &str) -> Result<Vec<SocketAddr>, KnockError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(vec![SocketAddr::new(ip, PORT)]),
        Err(_) if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            host.to_socket_addrs().map(Iterator::collect)
        }
        Err(_) => (host, PORT).to_socket_addrs().map(Iterator::collect),
    };
    let mut found: Vec<SocketAddr> =
        found.map_err(|error| KnockError::Host(host.to_owned(), error.to_string()))?;
    found.dedup();
    found.truncate(MOST);
    Ok(found)
}

/// Connects, and says what is heard. A mapping that wants a knock accepts everyone and says
/// nothing to those who did not, so silence proves nothing.
fn attempt(to: SocketAddr) -> String {
    // The first connection may overtake the knock.
    let is_silent =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    let heard = match hear(to) {
        Err(error) if is_silent(&error) => hear(to),
        heard => heard,
    };
    match heard {
        Ok(0) => format!("{to}: connected, and closed by the other side\n"),
        Ok(_) => format!("{to}: connected, and it speaks: the knock worked\n"),
        Err(error) if is_silent(&error) => format!(
            "{to}: silent. A server that waits for its client to speak first is so, and so is a mapping that did \
             not take the knock\n"
        ),
        Err(error) => format!("{to}: {error}\n"),
    }
}

/// Connects, and waits for the first bytes.
fn hear(to: SocketAddr) -> io::Result<usize> {
    let mut stream = TcpStream::connect_timeout(&to, TRY)?;
    stream.set_read_timeout(Some(TRY))?;
    stream.read(&mut [0; 64])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_have_a_port_and_an_address_may_have_brackets() {
        let first = |host: &str| addresses(host).unwrap()[0].to_string();
        assert_eq!(first("192.0.2.1"), "192.0.2.1:62201");
        assert_eq!(first("192.0.2.1:7"), "192.0.2.1:7");
        assert_eq!(first("[2001:db8::1]:7"), "[2001:db8::1]:7");
        assert_eq!(first("2001:db8::1"), "[2001:db8::1]:62201");
        assert!(addresses("[2001:db8::1").is_ok() && addresses("no such host!").is_err());
    }

    #[test]
    fn an_address_is_asked_for_only_where_the_server_sees_it() {
        let sees = |own: &str, server: &str| sees(own.parse().unwrap(), server.parse().unwrap());
        assert!(
            sees("10.0.0.2", "10.0.0.1")
                && sees("203.0.113.9", "198.51.100.1")
                && sees("127.0.0.1", "127.0.0.1")
        );
        assert!(!sees("10.0.0.2", "198.51.100.1") && !sees("100.64.0.2", "198.51.100.1"));
        assert!(sees("2001:db8::2", "2001:db8:1::1"));
    }
}
