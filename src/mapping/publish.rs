//! The grammar of a publish spec, as in `docker run -p`, with a target host added:
//! `[LISTEN_IP:]LISTEN_PORT:[TARGET_HOST:]TARGET_PORT[/PROTOCOL]`.
//!
//! Owns the reading of a spec and of its two halves as the long form writes them ([`ListenSpec`],
//! [`TargetSpec`]), and their canonical text. It is pure: service names are looked up through a
//! function that the caller gives. What was read is sound: no port is 0, no range is reversed, both
//! ranges fit each other, an address can be bound or connected to in principle. What cannot be read
//! ends in a [`SpecError`], which knows the offending part. Its hint is general; a whole spec that
//! may be offered instead comes from [`meant`], which reads it with this grammar first.

pub(crate) mod meant;
mod part;
mod tidy;

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
};

use part::{Part, Role};

use super::{Host, ListenAddr, PortSpan, Protocol, TargetAddr, Zone, address::write_with_port};

/// Looks up a service name, as services(5) has it.
pub(crate) type Services<'a> = &'a dyn Fn(&str, Protocol) -> Option<u16>;

/// Why a text is not a spec, and which part of it is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SpecError {
    /// Where the offending part begins, in bytes.
    pub at: usize,
    /// How many bytes it has; 0 where something is missing.
    pub len: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right, in general: it holds no guess at this text.
    pub hint: Option<String>,
}

/// The protocols of a mapping; "both" exists only here, where text is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Protocols {
    /// TCP alone, the default.
    #[default]
    Tcp,
    /// UDP alone.
    Udp,
    /// `tcp+udp`.
    Both,
}

impl Protocols {
    /// Each protocol, TCP first.
    pub(crate) fn iter(self) -> impl Iterator<Item = Protocol> {
        let tcp = matches!(self, Self::Tcp | Self::Both).then_some(Protocol::Tcp);
        let udp = matches!(self, Self::Udp | Self::Both).then_some(Protocol::Udp);
        tcp.into_iter().chain(udp)
    }

    /// Whether TCP is one of them.
    pub(crate) fn has_tcp(self) -> bool {
        self != Self::Udp
    }

    /// Whether UDP is one of them.
    pub(crate) fn has_udp(self) -> bool {
        self != Self::Tcp
    }

    /// Reads `tcp`, `udp` or `tcp+udp`.
    ///
    /// # Errors
    /// Any other word.
    pub(crate) fn parse(text: &str) -> Result<Self, SpecError> {
        part::protocols(Part::new(text))
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Both => "tcp+udp",
        })
    }
}

/// Where to listen: an address and one or more ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ListenSpec {
    /// The address; [`Ipv6Addr::UNSPECIFIED`] is every address, IPv4 included.
    pub ip: IpAddr,
    /// The interface of a link-local address.
    pub zone: Option<Zone>,
    /// The ports.
    pub ports: PortSpan,
}

impl ListenSpec {
    /// Reads a `listen` entry: `3389`, `5000-5010`, `https`, `0.0.0.0:3389`, `[::]:80`.
    ///
    /// # Errors
    /// Where it is none, with the part to blame.
    pub(crate) fn parse(text: &str, protocols: Protocols, services: Services<'_>) -> Result<Self, SpecError> {
        let (ip, ports) = part::halves(text, "[ADDRESS:]PORT")?;
        if ip.is_none() && part::is_address(ports) {
            let hint = format!("add the port: {}:8080", ports.text);
            return Err(ports.error("the listen port is missing").hint(hint));
        }
        Self::from_parts(ip, ports, protocols, services)
    }

    fn from_parts(
        ip: Option<Part<'_>>,
        ports: Part<'_>,
        protocols: Protocols,
        services: Services<'_>,
    ) -> Result<Self, SpecError> {
        let (ip, zone) = ip.map_or(Ok((IpAddr::V6(Ipv6Addr::UNSPECIFIED), None)), part::listen_ip)?;
        Ok(Self { ip, zone, ports: part::ports(ports, Role::Listen, protocols, services)? })
    }

    /// The address with one of the ports.
    pub(crate) fn addr(&self, port: NonZeroU16) -> ListenAddr {
        ListenAddr { ip: self.ip, zone: self.zone.clone(), port }
    }

    /// Whether it is every address of this machine, IPv6 and IPv4.
    pub(crate) fn is_every_address(&self) -> bool {
        self.ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    }
}

impl fmt::Display for ListenSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_every_address() {
            self.ports.fmt(f)
        } else {
            write_with_port(f, self.ip, self.zone.as_ref(), self.ports)
        }
    }
}

/// Where a mapping leads: a host and one or more ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TargetSpec {
    /// The machine.
    pub host: Host,
    /// The ports: one for all, or one for each listen port.
    pub ports: PortSpan,
}

impl TargetSpec {
    /// Reads a `targets` entry: `10.0.0.7:3389`, `nas.lan:80`, `[::1]:80`, `80` (of this machine),
    /// `cam.lan:6000-6010`, `_minecraft._tcp.example.org`.
    ///
    /// # Errors
    /// Where it is none, with the part to blame.
    pub(crate) fn parse(text: &str, protocols: Protocols, services: Services<'_>) -> Result<Self, SpecError> {
        Self::parse_for(&Host::LOOPBACK, text, protocols, services)
    }

    /// The same, with another machine than this one where none is named.
    ///
    /// # Errors
    /// Where it is none, with the part to blame.
    pub(crate) fn parse_for(
        home: &Host,
        text: &str,
        protocols: Protocols,
        services: Services<'_>,
    ) -> Result<Self, SpecError> {
        let (host, ports) = part::halves(text, "[HOST:]PORT")?;
        if host.is_none() && Host::srv(ports.text).is_none() && part::is_host_without_port(ports) {
            let hint = format!("add the port: {}:80", ports.text);
            return Err(ports.error("the target port is missing").hint(hint));
        }
        Self::from_parts(home, host, ports, protocols, services)
    }

    fn from_parts(
        home: &Host,
        host: Option<Part<'_>>,
        ports: Part<'_>,
        protocols: Protocols,
        services: Services<'_>,
    ) -> Result<Self, SpecError> {
        if let (None, Some(host)) = (host, Host::srv(ports.text)) {
            // Its records have the ports.
            return Ok(Self { host, ports: PortSpan::single(NonZeroU16::MIN) });
        }
        let host = host.map_or_else(|| Ok(home.clone()), part::target_host)?;
        Ok(Self { host, ports: part::ports(ports, Role::Target, protocols, services)? })
    }

    /// Whether every port of `listen` has its counterpart here.
    ///
    /// # Errors
    /// Where the ranges do not fit; the error blames the whole text that `self` was read from.
    pub(crate) fn fits(&self, listen: PortSpan) -> Result<(), Mismatch> {
        match (listen.count(), self.ports.count()) {
            (_, 1) => Ok(()),
            (l, t) if l == t => Ok(()),
            (listen, target) => Err(Mismatch { listen, target }),
        }
    }

    /// The target of `port`, which is one of `listen`; [`Self::fits`] says whether there is one for
    /// each.
    pub(crate) fn counterpart(&self, listen: PortSpan, port: NonZeroU16) -> TargetAddr {
        TargetAddr { host: self.host.clone(), port: self.counterpart_port(listen, port) }
    }

    /// Its port.
    pub(crate) fn counterpart_port(&self, listen: PortSpan, port: NonZeroU16) -> NonZeroU16 {
        let offset = if self.ports.count() == 1 { 0 } else { port.get() - listen.first().get() };
        self.ports.first().saturating_add(offset)
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host == Host::LOOPBACK { self.ports.fmt(f) } else { self.host.write_with_port(f, self.ports) }
    }
}

/// Two ranges that do not fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Mismatch {
    /// How many ports are listened on.
    pub listen: usize,
    /// How many target ports there are; more than 1.
    pub target: usize,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.listen {
            1 => write!(f, "one listen port cannot lead to a range of {} target ports", self.target),
            n => write!(f, "{n} listen ports cannot lead to a range of {} target ports", self.target),
        }
    }
}

impl Mismatch {
    /// What would be right.
    pub(crate) const HINT: &str = "give both ranges the same length, or name one target port for all";
}

/// A whole publish spec.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Publish {
    /// Where to listen.
    pub listen: ListenSpec,
    /// Where it leads; its ports fit those of `listen`.
    pub target: TargetSpec,
    /// For which protocols.
    pub protocols: Protocols,
}

impl Publish {
    /// Reads a publish spec.
    ///
    /// # Errors
    /// Where it is none, with the part to blame.
    pub(crate) fn parse(text: &str, services: Services<'_>) -> Result<Self, SpecError> {
        Self::parse_for(&Host::LOOPBACK, text, services)
    }

    /// The same, with another machine than this one where no target host is named.
    ///
    /// # Errors
    /// Where it is none, with the part to blame.
    pub(crate) fn parse_for(home: &Host, text: &str, services: Services<'_>) -> Result<Self, SpecError> {
        let (spec, protocols) = part::split_protocol(part::plain(Part::new(text))?)?;
        let parts = part::cut(spec)?;
        let (ip, listen, host, target) = match *parts.as_slice() {
            [only] => return Err(part::target_missing(only)),
            [ip, _] if part::is_address(ip) => {
                return Err(spec
                    .error("the target port is missing")
                    .hint("the form is LISTEN_IP:LISTEN_PORT:TARGET_PORT, as in 127.0.0.1:8080:80"));
            }
            [_, host] if Host::srv(host.text).is_none() && part::is_host_without_port(host) => {
                return Err(host
                    .error("the target port is missing")
                    .hint("the form is LISTEN_PORT:HOST:TARGET_PORT, as in 8080:nas.lan:80"));
            }
            [listen, target] => (None, listen, None, target),
            [ip, listen, target] if part::is_address(ip) => (Some(ip), listen, None, target),
            [listen, host, target] => (None, listen, Some(host), target),
            [ip, listen, host, target] => (Some(ip), listen, Some(host), target),
            _ => return Err(part::too_many(spec, "[LISTEN_IP:]LISTEN_PORT:[TARGET_HOST:]TARGET_PORT")),
        };
        let listen = ListenSpec::from_parts(ip, listen, protocols, services)?;
        let ports = target;
        let target = TargetSpec::from_parts(home, host, target, protocols, services)?;
        target.fits(listen.ports).map_err(|e| ports.error(e.to_string()).hint(Mismatch::HINT))?;
        Ok(Self { listen, target, protocols })
    }
}

impl fmt::Display for Publish {
    /// The canonical text, which reads back as the same spec.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.listen, self.target)?;
        if self.protocols == Protocols::Tcp { Ok(()) } else { write!(f, "/{}", self.protocols) }
    }
}

#[cfg(test)]
mod tests;
