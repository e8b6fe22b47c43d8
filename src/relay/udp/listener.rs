//! The loop of a listener: it receives, and does what is due.
//!
//! Owns what only this loop needs: the size of the next batch, the summary of drops, and what is
//! put off. What becomes of a datagram is in `forward`.

mod forward;
mod probe;

use std::{
    future::poll_fn,
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    sync::{mpsc, watch},
    task::yield_now,
    time::{Instant, sleep},
};

use super::{
    ListenerShared, UdpService, UdpSpec,
    batch::{BatchSize, Read, receive},
    flow_table::FlowKey,
};
use crate::{
    mapping::canonical_socket,
    relay::DrainWatch,
    sock::{Backoff, bind::Listening, udp as sockets},
};

/// Batches that a listener handles before it lets other tasks have a turn.
const BATCHES_A_TURN: usize = 4;
/// The least time between two summaries of drops.
const SUMMARY_EVERY: Duration = Duration::from_secs(60);

/// How long flows that are due wait for datagrams that the kernel holds already.
const REPRIEVE: Duration = Duration::from_secs(1);

/// Waits for another spec, and gives its receiver back; nothing where there will be none.
async fn changed(mut spec: watch::Receiver<Arc<UdpSpec>>) -> Option<watch::Receiver<Arc<UdpSpec>>> {
    spec.changed().await.ok().map(|()| spec)
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
    /// A listener of `service`. The tasks of its flows have a sign of life each; `all_gone` tells
    /// when none is left.
    pub(super) fn new(
        service: UdpService,
        listener: Arc<ListenerShared>,
        (alive, all_gone): (mpsc::Sender<()>, mpsc::Receiver<()>),
    ) -> Self {
        let peers = Arc::clone(&service.spec.borrow().options.accept_proxy);
        Self {
            service,
            listener,
            peers,
            batch: BatchSize::LEAST,
            alive: Some(alive),
            all_gone,
            next_summary: Instant::now(),
            reprieve: None,
        }
    }

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
        let listener = Arc::clone(&self.listener);
        let closing = closing.closing();
        let timer = sleep(Duration::ZERO);
        // These wait on from turn to turn: to make, register and remove each one again would cost
        // hundreds of instructions at each wake-up.
        let (respecified, rearmed) = (changed(self.service.spec.clone()), listener.rearm.notified());
        let mut is_specified = true;
        tokio::pin!(closing, asked_to_stop, timer, respecified, rearmed);
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
                spec = &mut respecified, if is_specified => match spec {
                    Some(mut receiver) => {
                        let spec = Arc::clone(&receiver.borrow_and_update());
                        self.peers = Arc::clone(&spec.options.accept_proxy);
                        self.listener.table().retune(spec.options.idle_timeout);
                        respecified.set(changed(receiver));
                    }
                    None => is_specified = false,
                },
                () = &mut rearmed => rearmed.set(listener.rearm.notified()),
                () = &mut timer, if wake_at.is_some() => {
                    self.expire();
                    self.summarise();
                    // Its deadline lies in the past now, and must not be taken for the one armed
                    // next.
                    timer.as_mut().reset(Instant::now() + SUMMARY_EVERY);
                }
                // Only this task waits for the socket.
                ready = poll_fn(|cx| listener.socket.poll_recv_ready(cx)) => {
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
                    let is_expected = self.service.probes.any();
                    let run = if is_expected { self.answer_probes(client, hit, run) } else { Some(run) };
                    let Some(run) = run else { return };
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
