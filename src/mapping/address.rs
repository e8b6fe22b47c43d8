//! Addresses as a mapping names them: where to listen and where to connect.
//!
//! A zone (`%eth0`) stays a name here, because the interface it names may come and go: it is turned
//! into a scope number when a socket is bound.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
};

/// An IPv6 zone: the name (or number) of a network interface, as after the `%` of `fe80::1%eth0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Zone(Arc<str>);

impl Zone {
    /// The longest interface name on Linux (`IFNAMSIZ` less the closing zero).
    pub const MAX_LEN: usize = 15;

    /// Takes `text` as a zone, or `None` where no interface could have that name.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len());
        let plain =
            text.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'/' | b'%' | b'[' | b']' | b','));
        (fits && plain).then(|| Self(text.into()))
    }

    /// The interface's name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a listener listens: an address of this machine and a port.
///
/// [`Ipv6Addr::UNSPECIFIED`] is "every address": one dual-stack socket that takes IPv4 clients too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenAddr {
    /// The local address; the unspecified one is a wildcard.
    pub ip: IpAddr,
    /// The interface of a link-local IPv6 address.
    pub zone: Option<Zone>,
    /// The port, never 0.
    pub port: NonZeroU16,
}

impl ListenAddr {
    /// Every address of this machine, IPv6 and IPv4.
    pub const fn every(port: NonZeroU16) -> Self {
        Self { ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED), zone: None, port }
    }

    /// Whether it stands for more than one address.
    pub fn is_wildcard(&self) -> bool {
        self.ip.is_unspecified()
    }

    /// Whether both cannot be listened on at once (for one protocol): the same address, or a
    /// wildcard and any address on its port.
    pub fn collides_with(&self, other: &Self) -> bool {
        self.port == other.port
            && collide(self.ip, other.ip)
            && (self.is_wildcard() || other.is_wildcard() || self.zone == other.zone)
    }
}

/// Whether two addresses cannot be listened on at once, on one port: they are the same, or one is a
/// wildcard.
pub(crate) fn collide(one: IpAddr, other: IpAddr) -> bool {
    one.is_unspecified() || other.is_unspecified() || canonical(one) == canonical(other)
}

/// Whether a listener on `listen` takes what is sent to `to`, if that is an address of this
/// machine.
pub(crate) fn takes(listen: IpAddr, to: IpAddr) -> bool {
    let to = canonical(to);
    if listen.is_unspecified() { listen.is_ipv6() || to.is_ipv4() } else { canonical(listen) == to }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_port(f, self.ip, self.zone.as_ref(), self.port)
    }
}

/// Writes an address with a port, or with several: `10.0.0.7:80`, `[fe80::1%eth0]:80-90`.
pub(super) fn write_with_port(
    f: &mut fmt::Formatter<'_>,
    ip: IpAddr,
    zone: Option<&Zone>,
    port: impl fmt::Display,
) -> fmt::Result {
    match (ip, zone) {
        (IpAddr::V4(ip), _) => write!(f, "{ip}:{port}"),
        (IpAddr::V6(ip), None) => write!(f, "[{ip}]:{port}"),
        (IpAddr::V6(ip), Some(zone)) => write!(f, "[{ip}%{}]:{port}", zone.as_str()),
    }
}

/// The machine a target runs on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Host {
    /// A literal address, with the zone of a link-local one.
    Ip(IpAddr, Option<Zone>),
    /// A name for the system resolver; resolved for each session.
    Name(Arc<str>),
    /// The name of a service, such as `_minecraft._tcp.example.org`: its SRV records name the
    /// machines with their ports. The port beside it means nothing.
    Srv(Arc<str>),
}

impl Host {
    /// This machine, where a spec names no target host.
    pub(crate) const LOOPBACK: Self = Self::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), None);

    /// The longest host name (RFC 1035, section 2.3.4, as text without the closing dot).
    pub(crate) const MAX_NAME_LEN: usize = 253;

    /// Takes `text` as a host name, or `None` where it cannot be one: labels of 1 to 63 letters,
    /// digits, hyphens and underscores (which Docker's and Windows's names have), no all-numeric
    /// last label (that is a mistyped address).
    pub(crate) fn name(text: &str) -> Option<Self> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        let last_is_number = bare.rsplit('.').next().is_some_and(|l| l.bytes().all(|c| c.is_ascii_digit()));
        let valid = (1..=Self::MAX_NAME_LEN).contains(&bare.len()) && bare.split('.').all(label);
        (valid && !last_is_number).then(|| Self::Name(text.into()))
    }

    /// Takes `text` as the name of a service (RFC 2782): `_SERVICE._tcp.NAME` or `_udp`.
    pub(crate) fn srv(text: &str) -> Option<Self> {
        let (service, rest) = text.split_once('.')?;
        let (protocol, name) = rest.split_once('.')?;
        let is_protocol = ["_tcp", "_udp"].iter().any(|known| known.eq_ignore_ascii_case(protocol));
        let is_service = service.len() > 1 && service.starts_with('_') && is_protocol;
        (is_service && Self::name(text).is_some() && Self::name(name).is_some())
            .then(|| Self::Srv(text.into()))
    }

    /// Writes it with a port, or with several.
    pub(super) fn write_with_port(&self, f: &mut fmt::Formatter<'_>, port: impl fmt::Display) -> fmt::Result {
        match self {
            Self::Ip(ip, zone) => write_with_port(f, *ip, zone.as_ref(), port),
            Self::Name(name) => write!(f, "{name}:{port}"),
            Self::Srv(name) => f.write_str(name),
        }
    }
}

/// Where a target is: a host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TargetAddr {
    /// The machine.
    pub host: Host,
    /// The port, never 0; that of a [`Host::Srv`] means nothing.
    pub port: NonZeroU16,
}

impl fmt::Display for TargetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.write_with_port(f, self.port)
    }
}

impl serde::Serialize for ListenAddr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl serde::Serialize for TargetAddr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One port or a run of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortSpan {
    first: NonZeroU16,
    last: NonZeroU16,
}

impl PortSpan {
    /// A single port.
    pub const fn single(port: NonZeroU16) -> Self {
        Self { first: port, last: port }
    }

    /// The ports from `first` to `last`, or `None` when they are reversed.
    pub fn new(first: NonZeroU16, last: NonZeroU16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// How many ports; at least 1.
    pub fn count(self) -> usize {
        usize::from(self.last.get() - self.first.get()) + 1
    }

    /// The lowest port.
    pub const fn first(self) -> NonZeroU16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> NonZeroU16 {
        self.last
    }

    /// Every port, in ascending order.
    pub fn ports(self) -> impl Iterator<Item = NonZeroU16> {
        (self.first.get()..=self.last.get()).filter_map(NonZeroU16::new)
    }
}

impl fmt::Display for PortSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// The one form of an address that is compared, counted and shown: an IPv4 client of a dual-stack
/// socket arrives as `::ffff:a.b.c.d` and is `a.b.c.d` everywhere in portway.
pub(crate) fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The same for a socket's address; the zone number of a link-local one stays.
pub(crate) fn canonical_socket(addr: SocketAddr) -> SocketAddr {
    match canonical(addr.ip()) {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        IpAddr::V6(_) => addr,
    }
}

impl From<ListenAddr> for SocketAddr {
    /// The address to bind, less its zone, which only the running system can number.
    fn from(listen: ListenAddr) -> Self {
        Self::new(listen.ip, listen.port.get())
    }
}
