//! TCP: the listener of a mapping ([`TcpService`]), a decoy ([`TrapService`]), and what a session
//! needs.
//!
//! Both take connections from an `acceptor`. `silent_drops` answers refused clients, `budget`
//! counts sessions, and `sessions` has those of a listener. Each session is one task: it finds its
//! way, dials, greets, pumps and settles (`session`). The way leads by the name that the client
//! says first (`preface`, `route`), or to the targets of the mapping. `proxied` hears peers out
//! that speak for a client. `stand_in` answers a client that reaches no target. The `pump`
//! decides half-close, resets and limits, over two directions (`direction`) that move the bytes.
//! Bulk goes through pipes (`splice`, `pipe`).
//!
//! All that a listener has can stop where it is, and go on here or in another process (`frozen`).
//! Meanwhile `hold` stops the acceptor.

mod accept;
mod acceptor;
mod budget;
mod direction;
mod flight;
mod frozen;
mod greet;
mod names;
mod pipe;
mod preface;
mod proxied;
mod pump;
mod route;
mod said;
mod service;
mod session;
mod sessions;
mod silent_drops;
mod splice;
mod stand_in;
mod trap;

#[cfg(test)]
mod tests;

pub(crate) use accept::WAITING_ROOM;
pub(crate) use budget::SessionBudget;
pub(crate) use frozen::{AT_ONCE, FrozenTcp, SessionRecord, ahead};
pub(crate) use names::{Asleep, HostRoute, Names, Route};
pub(crate) use service::TcpService;
pub(crate) use sessions::Sessions;
pub(crate) use silent_drops::SilentDrops;
pub(crate) use trap::{Touch, TrapService};

use std::{net::IpAddr, num::NonZeroU64, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::{mapping::Timeout, preface::proxy::SendProxy, wake::WakeSpec};

/// What a TCP listener does with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TcpSpec {
    /// Where sessions lead.
    pub route: Route,
    /// How they are treated.
    pub options: TcpOptions,
}

/// How TCP sessions are treated; the keys of the interface, section 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TcpOptions {
    /// The time one target has to accept.
    pub connect_timeout: Duration,
    /// No byte in either direction for this long ends the session.
    pub idle_timeout: Timeout,
    /// After one side ended: the time the other has, renewed by every byte.
    pub half_close_timeout: Timeout,
    /// The idle time before TCP keepalive probes, on both sides.
    pub keepalive: Timeout,
    /// The local address of the connection to the target.
    pub source: Option<IpAddr>,
    /// Bytes a second that a session may move in each direction.
    pub bandwidth: Option<NonZeroU64>,
    /// The PROXY header that a target gets.
    pub send_proxy: SendProxy,
    /// The peers whose PROXY header is required and believed.
    pub accept_proxy: Arc<[IpNet]>,
    /// How long a client may take to say the name that it wants, and a peer to send its header.
    pub match_timeout: Duration,
    /// Whether the target sees the client's own address.
    pub transparent: bool,
    /// What starts the target when a client comes.
    pub wake: Option<Arc<WakeSpec>>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Timeout::Never,
            half_close_timeout: Timeout::After(Duration::from_secs(300)),
            keepalive: Timeout::After(Duration::from_secs(60)),
            source: None,
            bandwidth: None,
            send_proxy: SendProxy::Off,
            accept_proxy: Arc::default(),
            match_timeout: Duration::from_secs(3),
            transparent: false,
            wake: None,
        }
    }
}
