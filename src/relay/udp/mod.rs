//! UDP: a listener and its flows.
//!
//! A *flow* is what one client (its address, and the address of ours that it sent to) has with one
//! target: a socket connected to the target, and a task that carries replies. It keeps the socket,
//! and so its source port, as long as the target answers. If the target does not, the flow fails
//! over to the next address (`failover`, `connecting`), with another socket.
//!
//! ```text
//! client ──► listener's socket ──► [flow table] ──► flow's socket ──► target      the listener's task
//! client ◄── listener's socket ◄───────────────── flow's socket ◄── target        the flow's task
//! ```
//!
//! Owns what a listener shares with the tasks of its flows (`ListenerShared`). Its loop is in
//! `listener`. The flow table decides (`flow_table`, pure), and the admission decides on
//! clients. System calls are in `batch` and `sock::udp`. Knows no configuration.
//!
//! Invariants:
//! - Datagrams pass whole and unchanged, empty ones and those of 65,507 bytes too, and those of one
//!   flow in order.
//! - The loop waits for nothing but its socket and its timer: no lookup, no full socket, no flow. A
//!   datagram for a flow whose socket takes no more is dropped and counted, as a router's full
//!   queue would.
//! - No error of the socket ends it. Those of a target stay with the flow.
//! - A refused client hears nothing, and nothing is kept for it.
//! - The table's lock is held for decisions, never for a system call on a known flow's way.
//!
//! It can stand still (`frozen`), with all its flows, and go on here or in another process.
//!
//! How it ends: when `closing` closes, datagrams that would start a flow are dropped from then on;
//! those of its flows still pass in both directions, through the same socket, until each flow has
//! ended by its idle time or was cut through the meter. UDP has no goodbye, so how long is worth
//! waiting is for the owner to say. [`UdpListener::run`] returns when the last is gone, and has
//! closed the socket by then: only after that can the port be bound again. A mapping that is merely
//! retuned keeps its listener and changes the spec.

mod activity;
mod batch;
mod budget;
mod connecting;
mod drops;
mod failover;
mod flow;
mod flow_table;
mod flows;
mod frozen;
mod introduction;
mod knock;
mod listener;
mod open_error;
mod return_path;
mod stopped;

use std::{
    io,
    net::IpAddr,
    num::NonZeroU64,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

pub(crate) use budget::FlowBudget;
pub(crate) use drops::{DropReason, UdpDrops};
pub(crate) use flows::Flows;
pub(crate) use frozen::{FrozenUdp, UdpRecord};
use ipnet::IpNet;
pub(crate) use knock::KnockService;
pub(crate) use listener::UdpListener;
use quinn_udp::UdpSocketState;
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use self::{batch::Run, connecting::Connecting, flow::Flow, flow_table::FlowTable};
use super::{AdmissionHandle, DrainWatch, LogLimits};
use crate::{
    mapping::Timeout,
    meter::{Ended, ListenerMeter},
    policy::Probes,
    preface::proxy::SendProxy,
    sock::udp as sockets,
    targets::{Dialer, PoolHandle, Targets},
    wake::{WakeSpec, Wakers},
};

/// What a UDP listener does with a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UdpSpec {
    /// Where flows lead.
    pub targets: Targets,
    /// How they are treated.
    pub options: UdpOptions,
}

/// How UDP flows are treated; the keys of the interface, section 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UdpOptions {
    /// No datagram in either direction for this long ends the flow.
    pub idle_timeout: Timeout,
    /// The local address of the socket to the target.
    pub source: Option<IpAddr>,
    /// Bytes a second that a session may move in each direction.
    pub bandwidth: Option<NonZeroU64>,
    /// The PROXY header that a target gets.
    pub send_proxy: SendProxy,
    /// The peers whose PROXY header is required and believed.
    pub accept_proxy: Arc<[IpNet]>,
    /// Whether the target sees the client's own address.
    pub transparent: bool,
    /// What starts the target when a client comes.
    pub wake: Option<Arc<WakeSpec>>,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Timeout::After(Duration::from_secs(60)),
            source: None,
            bandwidth: None,
            send_proxy: SendProxy::Off,
            accept_proxy: Arc::default(),
            transparent: false,
            wake: None,
        }
    }
}

/// What a UDP listener works with.
#[derive(Debug)]
pub(crate) struct UdpService {
    /// What it does with a datagram. A change of targets takes hold with the next flow, one of the
    /// idle timeout with the next datagram of each flow.
    pub spec: watch::Receiver<Arc<UdpSpec>>,
    /// How its targets are reached.
    pub dialer: Dialer,
    /// What starts its targets.
    pub wakers: Wakers,
    /// Which of them is the next one.
    pub pool: PoolHandle,
    /// Decides on clients.
    pub admission: AdmissionHandle,
    /// Its account.
    pub meter: Arc<ListenerMeter>,
    /// The flows that the daemon may have.
    pub budget: FlowBudget,
    /// Whether the kernel may join and split the datagrams of a flow (GRO and GSO).
    pub joins: bool,
    /// How often it may log what outsiders can cause.
    pub log: Arc<LogLimits>,
    /// Its count of datagrams that were not forwarded.
    pub drops: Arc<UdpDrops>,
    /// Where the tasks of its flows run.
    pub tasks: DrainWatch,
    /// Its flows, over all its sockets.
    pub flows: Arc<Flows>,
    /// The datagrams that it answers itself, because they prove a way from outside.
    pub probes: Arc<Probes>,
}

impl UdpService {
    /// Makes `socket` (bound, and of one owner) a listener that is ready to run, but does not yet.
    ///
    /// # Errors
    /// When the system cannot tell which address a datagram was sent to.
    pub(crate) fn register(self, socket: std::net::UdpSocket) -> io::Result<UdpListener> {
        let offload = sockets::offload(socket.local_addr()?)?;
        let kernel_joins = self.joins && offload.max_gso_segments() > 1;
        let idle = self.spec.borrow().options.idle_timeout;
        // Each flow's task holds a sender until it has let go of everything else.
        let (alive, all_gone) = mpsc::channel::<()>(1);
        let listener = ListenerShared {
            socket: sockets::listener(socket, kernel_joins)?,
            kernel_joins,
            offload,
            table: Mutex::new(FlowTable::new(idle, self.budget.clone())),
            rearm: Notify::new(),
            drops: Arc::clone(&self.drops),
            log: Arc::clone(&self.log),
            held: MemoryUse::default(),
            spec: self.spec.clone(),
            dialer: self.dialer.clone(),
            pool: self.pool.clone(),
            meter: Arc::clone(&self.meter),
            tasks: self.tasks.clone(),
            flows: Arc::clone(&self.flows),
            alive: alive.downgrade(),
        };
        let listener = Arc::new(listener);
        self.flows.are_of(&listener);
        self.drops.tell(self.drops.total());
        Ok(UdpListener::new(self, listener, (alive, all_gone)))
    }
}

/// What a listener and the tasks of its flows share.
#[derive(Debug)]
struct ListenerShared {
    socket: UdpSocket,
    offload: UdpSocketState,
    kernel_joins: bool,
    table: Mutex<FlowTable<Arc<Flow>>>,
    /// The table wants to be looked at earlier than the listener's timer says.
    rearm: Notify,
    drops: Arc<UdpDrops>,
    log: Arc<LogLimits>,
    /// Replies that wait for the socket.
    held: MemoryUse,
    /// What the mapping says now, for flows that are led to another address.
    spec: watch::Receiver<Arc<UdpSpec>>,
    dialer: Dialer,
    pool: PoolHandle,
    meter: Arc<ListenerMeter>,
    /// Where the tasks of flows run.
    tasks: DrainWatch,
    flows: Arc<Flows>,
    /// The sign of life for the task of a flow that comes from another process.
    alive: mpsc::WeakSender<()>,
}

impl AsFd for ListenerShared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl ListenerShared {
    fn table(&self) -> MutexGuard<'_, FlowTable<Arc<Flow>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the tasks of flows: a change of the table that may move the deadline the listener waits
    /// for.
    fn with_table<R>(&self, change: impl FnOnce(&mut FlowTable<Arc<Flow>>, std::time::Instant) -> R) -> R {
        let mut table = self.table();
        let outcome = change(&mut table, Instant::now().into_std());
        if table.is_armed_late() {
            self.rearm.notify_one();
        }
        outcome
    }

    /// The way of a flow to its target, from the beginning.
    fn connect(&self, flow: &Arc<Flow>) -> Connecting {
        let spec = Arc::clone(&self.spec.borrow());
        Connecting::begin(Arc::clone(flow), spec, (self.dialer.clone(), self.pool.current()))
    }

    /// Ends the flows that were idle for too long.
    fn expire(&self) {
        let mut expired = Vec::new();
        // A system call under the lock, but only for a flow that is due.
        let has_news =
            |flow: &Arc<Flow>| flow.target().is_some_and(|target| sockets::holds_datagrams(&target.socket));
        self.table().expire(Instant::now().into_std(), has_news, |flow| expired.push(flow));
        for flow in expired {
            flow.live().cut(Ended::Idle);
        }
    }

    /// Sends datagrams of a client to its target, and counts what did not go out.
    fn send_in(&self, flow: &Flow, run: Run<'_>) {
        let (run, over) = flow.police_in(run);
        self.drops.add(DropReason::Bandwidth, over);
        let Some(run) = run else { return };
        let sent = flow.send_to_target(run, &self.offload);
        self.drops.add(DropReason::TargetRefused, sent.refused);
        self.drops.add(DropReason::TargetBusy, sent.busy);
        self.drops.add(DropReason::TooLong, sent.too_long);
    }
}

/// Memory in use, in bytes.
#[derive(Debug, Default)]
struct MemoryUse(AtomicUsize);

impl MemoryUse {
    /// Takes `bytes` that were reserved elsewhere.
    fn take_over(&self, bytes: usize) {
        self.0.fetch_add(bytes, Relaxed);
    }

    /// Takes `bytes` unless there are more than `limit` then.
    fn reserve(&self, bytes: usize, limit: usize) -> bool {
        self.0
            .fetch_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|used| *used <= limit))
            .is_ok()
    }

    /// Gives back what was reserved.
    fn release(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

#[cfg(test)]
pub(super) mod tests;
