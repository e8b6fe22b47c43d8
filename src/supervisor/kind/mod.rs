//! The kinds of listeners: what differs between a TCP listener, a UDP listener, a decoy and a port
//! of knocks. A file a kind.
//!
//! A kind serves on the socket that [`stage`] found or bound for it, takes a changed plan while it
//! serves, and says whether its sessions need that socket. All else is the same for every kind, and
//! is in [`Running`](super::running::Running). The diff of two plans replaces a listener whose kind
//! changes.

mod frozen;
mod knock;
mod tcp;
mod trap;
mod udp;

use std::{fmt, io, os::fd::OwnedFd, pin::Pin, sync::Arc};

pub(crate) use frozen::{FrozenListener, HandedListener};
use tokio::sync::watch;

use super::{mapping::MappingRuntime, shared::Shared};
use crate::{
    config::Service,
    handover::{SocketId, Unpacker},
    mapping::{ListenAddr, Protocol, Timeout},
    meter::{ListenerMeter, LiveSession},
    policy::Admission,
    relay::{AdmissionHandle, DrainWatch, tcp::Touch, udp::UdpDrops},
    sock::{
        bind::{Bound, Listening, Overlap, bind_tcp, bind_udp},
        inherited::Inherited,
    },
    targets::PoolHandle,
};

/// What a listener does with what arrives, while it runs.
pub(super) trait Kind: fmt::Debug + Send + Sync {
    /// Serves on `socket`, which [`stage`] bound for this kind. The result is a reference to the
    /// socket and the work itself, which ends when `parts.closing` closes.
    ///
    /// # Errors
    /// What the system says to the options of the socket.
    fn serve(&self, socket: OwnedFd, parts: Parts<'_>) -> io::Result<(Listening, Work)>;

    /// Takes a changed service of the same kind: new sessions follow it, live ones go on.
    fn retune(&self, service: &Service);

    /// What decides on its clients, of the mapping that it belongs to; `None` for a decoy.
    fn admission(&self) -> Option<&watch::Sender<Arc<Admission>>> {
        None
    }

    /// Whether a live session may stay by the rules of the name that its client asked for.
    fn may_stay(&self, _admission: &Admission, _live: &LiveSession) -> bool {
        true
    }

    /// Whether it bans those who touch it.
    fn is_trap(&self) -> bool {
        false
    }

    /// What chooses among its targets, of the mapping that it belongs to; `None` for a decoy.
    fn pool(&self) -> Option<&PoolHandle> {
        None
    }

    /// The targets, as the log shows them; `None` for a decoy.
    fn targets(&self) -> Option<String> {
        None
    }

    /// Its count of datagrams that were not forwarded; `None` where it has no datagrams.
    fn drops(&self) -> Option<&Arc<UdpDrops>> {
        None
    }

    /// Whether its sessions live on the socket of the listener: they end when it closes.
    fn shares_its_socket(&self) -> bool {
        false
    }

    /// Stops the listener and its sessions where they are. What arrives meanwhile waits in the
    /// kernel. Ready when all have stopped, or after a limit, which is well under a second. Where
    /// it is dropped before, all goes on.
    fn freeze(&self, _parts: Parts<'_>) -> Freezing {
        Box::pin(std::future::ready(FrozenListener::Nothing))
    }

    /// Copies of the sockets of these live sessions, [`AT_ONCE`](crate::relay::tcp::AT_ONCE) at
    /// most, which go on: to be sent before a freeze.
    fn ahead(&self, _parts: Parts<'_>, _live: Vec<Arc<LiveSession>>) -> Ahead {
        Box::pin(std::future::ready(Vec::new()))
    }

    /// Takes what another process hands over. Until it is resumed, the listener is held, also where
    /// it begins to serve meanwhile. Returns the clients that cannot be taken, too: by their
    /// sockets, the client's with TCP.
    ///
    /// It belongs inside the runtime's context.
    fn take_over(
        &self,
        _handed: &HandedListener,
        _unpacker: &mut Unpacker,
        _parts: Parts<'_>,
    ) -> (FrozenListener, Vec<SocketId>) {
        (FrozenListener::Nothing, Vec::new())
    }
}

/// A freeze under way.
pub(crate) type Freezing = Pin<Box<dyn Future<Output = FrozenListener> + Send>>;

/// Sockets that come together.
pub(crate) type Ahead = Pin<Box<dyn Future<Output = Vec<OwnedFd>> + Send>>;

/// What serves a listener until it closes.
///
/// The error is that of a socket that is dead.
pub(super) type Work = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// What a listener works with.
pub(super) struct Parts<'a> {
    pub(super) shared: &'a Shared,
    pub(super) meter: &'a Arc<ListenerMeter>,
    /// Where its sessions run.
    pub(super) sessions: DrainWatch,
    /// When to stop taking new ones.
    pub(super) closing: DrainWatch,
}

/// What a listener of a mapping gets its changes through.
#[derive(Debug)]
struct Feed<S> {
    spec: watch::Sender<Arc<S>>,
    admission: watch::Sender<Arc<Admission>>,
    pool: PoolHandle,
}

impl<S> Feed<S> {
    /// The feed of a listener of `mapping`.
    fn new(spec: S, mapping: &MappingRuntime) -> Self {
        Self {
            spec: watch::Sender::new(Arc::new(spec)),
            admission: watch::Sender::new(Arc::clone(&mapping.admission)),
            pool: PoolHandle::new(&mapping.pool),
        }
    }

    fn admission_handle(&self, shared: &Shared) -> AdmissionHandle {
        AdmissionHandle { admission: self.admission.subscribe(), refused: Arc::clone(&shared.refused) }
    }
}

/// The socket that a service needs: the one that was passed, or a new one.
///
/// # Errors
/// What the system says.
pub(super) fn stage(
    listen: &ListenAddr,
    (service, protocol): (&Service, Protocol),
    overlap: Overlap,
    inherited: &Inherited,
) -> io::Result<Bound> {
    let tcp = |keepalive| match inherited.tcp(listen, keepalive)? {
        Some(bound) => Ok(bound),
        None => bind_tcp(listen, keepalive, overlap),
    };
    match service {
        Service::Tcp(spec) => tcp(spec.options.keepalive),
        Service::Udp(_) => match inherited.udp(listen)? {
            Some(bound) => Ok(bound),
            None => bind_udp(listen, overlap),
        },
        Service::Step if protocol == Protocol::Tcp => tcp(Timeout::Never),
        Service::Knock | Service::Step => match inherited.udp(listen)? {
            Some(bound) => Ok(bound),
            None => bind_udp(listen, overlap),
        },
        Service::Trap => tcp(Timeout::Never),
    }
}

/// The kind of a listener with this service, and with this mapping: a decoy has none.
pub(super) fn of(service: Service, protocol: Protocol, mapping: Option<&MappingRuntime>) -> Box<dyn Kind> {
    let mapping = || mapping.expect("a plan has the mapping of each of its listeners");
    match service {
        Service::Tcp(spec) => Box::new(tcp::Tcp::new(Feed::new(spec, mapping()))),
        Service::Udp(spec) => Box::new(udp::Udp::new(Feed::new(spec, mapping()))),
        Service::Trap => Box::new(trap::Trap::new(Touch::Ban)),
        Service::Step if protocol == Protocol::Tcp => Box::new(trap::Trap::new(Touch::Step)),
        Service::Knock => Box::new(knock::Knock::new(false)),
        Service::Step => Box::new(knock::Knock::new(true)),
    }
}
