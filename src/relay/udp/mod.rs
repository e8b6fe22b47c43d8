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
//! Owns the listener's loop ([`UdpListener`]) and what it shares with the tasks of its flows
//! (`ListenerShared`). The flow table decides (`flow_table`, pure), and the admission decides on
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
mod open_error;
mod return_path;
mod stopped;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU64,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
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
use quinn_udp::UdpSocketState;
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc, watch},
    task::yield_now,
    time::{Instant, sleep},
};

use self::{
    batch::{BatchSize, Read, Run, receive},
    connecting::Connecting,
    failover::Trouble,
    flow::{Flow, More},
    flow_table::{Arrival, FlowId, FlowKey, FlowTable, Silent, Verdict},
    introduction::{Introduction, may_have_header, take_header},
    stopped::Ride,
};
use super::{AdmissionHandle, DrainWatch, LogLimits};
use crate::{
    mapping::{Protocol, Timeout, canonical_socket},
    meter::{Ended, ListenerMeter, SessionMeter},
    policy::{Admission, Refusal},
    preface::proxy::{Header, SendProxy},
    sock::{Backoff, bind::Listening, udp as sockets},
    targets::{Dialer, PoolHandle, Targets},
    wake::{Place, WakeSpec, Wakers},
};

/// Batches that a listener handles before it lets other tasks have a turn.
const BATCHES_A_TURN: usize = 4;
/// The least time between two summaries of drops.
const SUMMARY_EVERY: Duration = Duration::from_secs(60);

/// How long flows that are due wait for datagrams that the kernel holds already.
const REPRIEVE: Duration = Duration::from_secs(1);

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
}

impl UdpService {
    /// Makes `socket` (bound, and of one owner) a listener that is ready to run, but does not yet.
    ///
    /// # Errors
    /// When the system cannot tell which address a datagram was sent to.
    pub(crate) fn register(self, socket: std::net::UdpSocket) -> io::Result<UdpListener> {
        let offload = sockets::offload(socket.local_addr()?)?;
        let kernel_joins = self.joins && offload.max_gso_segments() > 1;
        let spec = Arc::clone(&self.spec.borrow());
        let (idle, peers) = (spec.options.idle_timeout, Arc::clone(&spec.options.accept_proxy));
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
        Ok(UdpListener {
            service: self,
            listener,
            peers,
            batch: BatchSize::LEAST,
            alive: Some(alive),
            all_gone,
            next_summary: Instant::now(),
            reprieve: None,
        })
    }
}

/// A listener that is ready to run.
#[derive(Debug)]
#[must_use = "a listener that does not run forwards nothing"]
pub(crate) struct UdpListener {
    service: UdpService,
    listener: Arc<ListenerShared>,
    /// The peers that have to say who their clients are.
    peers: Arc<[IpNet]>,
    batch: BatchSize,
    /// The sign of life that the tasks of flows have; none once it closes.
    alive: Option<mpsc::Sender<()>>,
    all_gone: mpsc::Receiver<()>,
    next_summary: Instant,
    /// Flows that are due wait until then, or until the socket is empty.
    reprieve: Option<Instant>,
}

impl UdpListener {
    /// Its socket, for the supervisor.
    pub(crate) fn socket(&self) -> Listening {
        let listener: Weak<ListenerShared> = Arc::downgrade(&self.listener);
        listener
    }

    /// Forwards until `closing` has closed and the last flow is gone; the socket is closed then.
    /// It ends as well when another process has taken it over.
    pub(crate) async fn run(self, closing: DrainWatch) {
        let flows = Arc::clone(&self.service.flows);
        tokio::select! {
            () = self.receive_until(closing) => {}
            () = flows.gone() => {}
        }
    }

    async fn receive_until(mut self, closing: DrainWatch) {
        let flows = Arc::clone(&self.service.flows);
        let (this_loop, asked_to_stop) = (flows.hold.begin(), flows.hold.asked());
        let mut alive = self.alive.take();
        let mut backoff = Backoff::default();
        let closing = closing.closing();
        let timer = sleep(Duration::ZERO);
        tokio::pin!(closing, asked_to_stop, timer);
        loop {
            let wake_at = self.wake_at();
            if let Some(at) = wake_at.filter(|at| *at != timer.deadline()) {
                timer.as_mut().reset(at);
            }
            tokio::select! {
                biased;
                () = &mut asked_to_stop => {
                    this_loop.stand_still().await;
                    asked_to_stop.set(flows.hold.asked());
                }
                () = &mut closing, if alive.is_some() => {
                    alive = None;
                    self.listener.table().drain();
                }
                None = self.all_gone.recv(), if alive.is_none() => return,
                Ok(()) = self.service.spec.changed() => {
                    let spec = Arc::clone(&self.service.spec.borrow_and_update());
                    self.peers = Arc::clone(&spec.options.accept_proxy);
                    self.listener.table().retune(spec.options.idle_timeout);
                }
                () = self.listener.rearm.notified() => {}
                () = &mut timer, if wake_at.is_some() => {
                    self.expire();
                    self.summarise();
                    // Its deadline lies in the past now, and must not be taken for the one armed
                    // next.
                    timer.as_mut().reset(Instant::now() + SUMMARY_EVERY);
                }
                ready = self.listener.socket.readable() => {
                    if ready.is_err() {
                        return;
                    }
                    match self.turn(alive.as_ref()) {
                        Ok(Read::Empty) => {
                            backoff = Backoff::default();
                            if self.reprieve.take().is_some() {
                                self.listener.expire();
                            }
                        }
                        Ok(Read::More) => yield_now().await,
                        Err(error) => self.wait_out(&error, &mut backoff).await,
                    }
                }
            }
        }
    }

    /// Ends the flows that were idle for too long, after what their clients have sent is taken in:
    /// a daemon that stood still (stopped, suspended) finds the timer over before it hears of the
    /// datagrams. A socket that never gets empty does not hold this up for longer than
    /// [`REPRIEVE`].
    fn expire(&mut self) {
        let now = Instant::now();
        match self.reprieve {
            None if sockets::holds_datagrams(&self.listener.socket) => self.reprieve = Some(now + REPRIEVE),
            Some(until) if now < until => {}
            _ => {
                self.reprieve = None;
                self.listener.expire();
            }
        }
    }

    /// Receives and forwards until the socket is empty or the turn is over.
    fn turn(&mut self, alive: Option<&mpsc::Sender<()>>) -> io::Result<Read> {
        let now = Instant::now().into_std();
        let peers = &*self.peers;
        for _ in 0..BATCHES_A_TURN {
            let (read, filled) = receive(
                &self.listener.socket,
                &self.listener.offload,
                self.batch.get(),
                |client, hit, run| {
                    let key = FlowKey { client, local: sockets::reply_source(hit) };
                    let client = canonical_socket(client);
                    if peers.iter().any(|net| net.contains(&client.ip())) {
                        self.forward_of_peer(key, run, now, alive);
                    } else {
                        self.forward(key, client, None, run, now, alive);
                    }
                },
            )?;
            self.batch.filled(filled);
            if read == Read::Empty {
                return Ok(Read::Empty);
            }
        }
        Ok(Read::More)
    }

    /// Forwards datagrams of a listed peer: its headers say who their clients are.
    fn forward_of_peer(
        &self,
        key: FlowKey,
        run: Run<'_>,
        now: std::time::Instant,
        alive: Option<&mpsc::Sender<()>>,
    ) {
        let of_flow = || self.listener.table().find(&key).map(|flow| flow.live().client);
        if let Some(client) = of_flow().filter(|_| !may_have_header(run)) {
            return self.forward(key, client, None, run, now, alive);
        }
        for datagram in run.datagrams() {
            let (header, payload) = match take_header(datagram) {
                Some((header, payload)) => (Some(header), payload),
                None => (None, datagram),
            };
            let told = header.as_ref().map(|header| header.addresses.map_or(key.client, |told| told.source));
            // The client of a flow is the one of its first datagram.
            let client = match (of_flow(), told) {
                (Some(client), Some(told)) if !self.may_join(canonical_socket(told), client) => continue,
                (Some(client), _) => client,
                (None, Some(client)) => match self.meet_peer(key.client) {
                    Ok(()) => canonical_socket(client),
                    Err(()) => continue,
                },
                (None, None) => {
                    self.listener.drops.add(DropReason::NoHeader, 1);
                    continue;
                }
            };
            self.forward(key, client, header.as_ref(), Run::single(payload), now, alive);
        }
    }

    /// Whether a listed peer may start flows of its clients.
    fn meet_peer(&self, peer: SocketAddr) -> Result<(), ()> {
        let (service, peer) = (&self.service, canonical_socket(peer));
        let met = service.admission.current().admit_peer(peer.ip(), Instant::now());
        met.map_err(|refusal| service.admission.report(peer, refusal, &service.meter))
    }

    /// Whether a client may use the flow of another one: its peer sends for both from one port.
    /// What the admission says of addresses holds for each of them.
    fn may_join(&self, client: SocketAddr, of_flow: SocketAddr) -> bool {
        let service = &self.service;
        if client.ip() == of_flow.ip() {
            return true;
        }
        let admitted = service.admission.current().recheck(client.ip(), Instant::now());
        admitted.inspect_err(|refusal| service.admission.report(client, *refusal, &service.meter)).is_ok()
    }

    /// Forwards datagrams of a client.
    fn forward(
        &self,
        key: FlowKey,
        client: SocketAddr,
        received: Option<&Header>,
        run: Run<'_>,
        now: std::time::Instant,
        alive: Option<&mpsc::Sender<()>>,
    ) {
        let Self { service, listener, .. } = self;
        let admission = service.admission.current();
        let mut left = Some(run);
        while let Some(run) = left {
            let (datagram, rest) = run.split_first();
            let mut table = listener.table();
            let verdict = table.datagram(
                Arrival { key, client: client.ip(), payload: datagram, count: run.count(), now },
                |make_way| admission.admit_or_make_way(client.ip(), Protocol::Udp, Instant::now(), make_way),
                || pass(&admission, client.ip()),
                // Its task holds it, too, and needs the table's lock to end: nothing is dropped
                // under the lock.
                |settled| settled.give_way(),
                |permit, admitted| {
                    let session = service.meter.open(client);
                    let spec = service.spec.borrow();
                    let more = self.more(&spec, key, &session, received);
                    let (permits, buckets) = ((permit, admitted), Flow::buckets(spec.options.bandwidth));
                    Arc::new(Flow::new(key, session, permits, buckets, listener.kernel_joins, more))
                },
            );
            match verdict {
                Verdict::Known(flow, Silent(is_silent)) => {
                    // Only this task sends for an open flow, so that the order holds without the
                    // lock.
                    let flow = Arc::clone(flow);
                    drop(table);
                    if is_silent {
                        flow.tell(Trouble::Silent);
                    }
                    let allowed = allowed(&admission, client.ip(), run);
                    if let Some(run) = run.first(allowed) {
                        listener.send_in(&flow, run);
                    }
                    if allowed < run.count() {
                        service.admission.report(client, Refusal::DatagramRate, &service.meter);
                    }
                    return;
                }
                Verdict::New(id, flow) => {
                    let flow = Arc::clone(flow);
                    drop(table);
                    // A draining table starts no flow, so there is a sender.
                    if let Some(alive) = alive {
                        self.start(id, flow, alive.clone());
                    }
                }
                Verdict::Held => {}
                Verdict::Dropped(reason) => listener.drops.add(reason, 1),
                Verdict::Refused(refusal) => {
                    // It may write a line.
                    drop(table);
                    service.admission.report(client, refusal, &service.meter);
                }
            }
            left = rest;
        }
    }

    /// What a new flow needs for the keys that few mappings have.
    fn more(&self, spec: &UdpSpec, key: FlowKey, session: &SessionMeter, received: Option<&Header>) -> More {
        let UdpOptions { send_proxy, ref wake, .. } = spec.options;
        let listen = self.service.meter.listen();
        let hit = canonical_socket(SocketAddr::new(key.local.unwrap_or(listen.ip), listen.port.get()));
        let live = session.live();
        More {
            introduction: Introduction::new(send_proxy, live.client, hit, live.id, received),
            waker: wake.as_ref().map(|wake| {
                let (mapping, target) = (&session.mapping(), spec.targets.first());
                let waker = self.service.wakers.of(wake, Place { mapping, host: None, target });
                let awake = waker.enter();
                (waker, awake)
            }),
        }
    }

    /// Opens a flow. Where its target needs no lookup this is done on the spot, so that a client
    /// that starts with a burst loses none of it; else the flow's task waits for the lookup.
    fn start(&self, id: FlowId, flow: Arc<Flow>, alive: mpsc::Sender<()>) {
        let listener = &self.listener;
        let mut connecting = listener.connect(&flow);
        if connecting.is_done_at_once() {
            // Nothing else is held for it: the second call finds nothing, and opens the flow.
            while !return_path::send_early(listener, &flow, id) {}
        }
        let sign = (Arc::clone(listener), alive);
        listener.tasks.spawn(return_path::run(sign, flow, id, connecting, Ride::default()));
    }

    /// When there is something to do without a datagram.
    fn wake_at(&self) -> Option<Instant> {
        let expiry = self.listener.table().arm().map(Instant::from_std);
        let expiry = expiry.map(|at| self.reprieve.map_or(at, |until| until.max(at)));
        let drops = &self.listener.drops;
        let summary = (drops.total() != drops.told()).then_some(self.next_summary);
        expiry.into_iter().chain(summary).min()
    }

    /// Tells the operator what was dropped, at most once in [`SUMMARY_EVERY`].
    fn summarise(&mut self) {
        let (now, total) = (Instant::now(), self.listener.drops.total());
        let told = self.listener.drops.told();
        if total == told || now < self.next_summary {
            return;
        }
        // A mapping may have thousands of ports, and a stranger may send to each of them.
        if !self.service.meter.may_log() {
            self.next_summary = now + SUMMARY_EVERY;
            return;
        }
        tracing::info!(
            mapping = %self.service.meter.mapping(),
            listen.addr = %self.service.meter.listen(),
            dropped = total.saturating_sub(told),
            "dropped.so_far" = self.listener.drops.summary(),
            "datagrams dropped"
        );
        self.listener.drops.tell(total);
        self.next_summary = now + SUMMARY_EVERY;
    }

    /// Waits after an error of the listener's socket.
    async fn wait_out(&self, error: &io::Error, backoff: &mut Backoff) {
        if let Some(left_out) = self.listener.log.receive.take(Instant::now()) {
            tracing::warn!(%error, failures = left_out + 1, "cannot receive datagrams; trying again");
        }
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = self.service.flows.hold.asked() => {}
        }
    }
}

/// Whether the client's rate allows one more datagram, which waits for its flow to open.
fn pass(admission: &Admission, client: IpAddr) -> Result<(), Refusal> {
    let passed = admission.datagrams(client, 1, Instant::now());
    if passed == 1 { Ok(()) } else { Err(Refusal::DatagramRate) }
}

/// How many datagrams of a run the client's rate allows.
fn allowed(admission: &Admission, client: IpAddr, run: Run<'_>) -> usize {
    if !admission.limits_datagrams() {
        return run.count();
    }
    let count = u32::try_from(run.count()).unwrap_or(u32::MAX);
    admission.datagrams(client, count, Instant::now()) as usize
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
