//! The loop of a listener: it receives, and does what is due.
//!
//! Owns what only this loop needs: the size of the next batch, the summary of drops, and what is
//! put off. What becomes of a datagram is in `forward`.

mod forward;
mod probe;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    sync::{mpsc, watch},
    task::yield_now,
    time::{Instant, Sleep, sleep},
};

use super::{
    ListenerShared, UdpService, UdpSpec,
    batch::{BatchSize, Read, receive},
    flow_table::FlowKey,
};
use crate::{
    mapping::canonical_socket,
    relay::{
        DrainWatch,
        seldom::{Seldom, changed},
    },
    sock::{Backoff, bind::Listening, udp as sockets},
};

/// Batches that a listener handles before it lets other tasks have a turn.
const BATCHES_A_TURN: usize = 4;
/// The least time between two summaries of drops.
const SUMMARY_EVERY: Duration = Duration::from_secs(60);

/// How long flows that are due wait for datagrams that the kernel holds already.
const REPRIEVE: Duration = Duration::from_secs(1);

/// What seldom calls the loop.
enum Call {
    /// To end: another process has the flows, or the last one of a closed listener is gone.
    End,
    /// To stand still.
    Stop,
    /// To close.
    Close,
    /// Another spec; nothing where there will be none.
    Spec(Option<watch::Receiver<Arc<UdpSpec>>>),
    /// The next flow that is due may be due sooner.
    Rearm,
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
    /// After errors of the socket.
    backoff: Backoff,
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
            backoff: Backoff::default(),
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
    pub(crate) async fn run(mut self, closing: DrainWatch) {
        let flows = Arc::clone(&self.service.flows);
        let (this_loop, asked_to_stop) = (flows.hold.begin(), flows.hold.asked());
        let mut alive = self.alive.take();
        let listener = Arc::clone(&self.listener);
        let (closing, gone) = (closing.closing(), flows.gone());
        let timer = sleep(Duration::ZERO);
        // These wait on from turn to turn: to make, register and remove each one again would cost
        // hundreds of instructions at each wake-up. So would a poll of each.
        let seldom = Seldom::new();
        let (respecified, rearmed) = (changed(self.service.spec.clone()), listener.rearm.notified());
        let mut is_specified = true;
        tokio::pin!(closing, gone, asked_to_stop, timer, respecified, rearmed);
        loop {
            let is_armed = self.arm(timer.as_mut());
            let mut call = |cx: &mut Context<'_>| {
                if gone.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Call::End);
                }
                if asked_to_stop.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Call::Stop);
                }
                match alive.is_some() {
                    true if closing.as_mut().poll(cx).is_ready() => return Poll::Ready(Call::Close),
                    false if self.all_gone.poll_recv(cx).is_ready() => return Poll::Ready(Call::End),
                    _ => {}
                }
                if is_specified && let Poll::Ready(spec) = respecified.as_mut().poll(cx) {
                    return Poll::Ready(Call::Spec(spec));
                }
                rearmed.as_mut().poll(cx).map(|()| Call::Rearm)
            };
            tokio::select! {
                biased;
                called = poll_fn(|cx| seldom.poll(cx, &mut call)) => match called {
                    Call::End => return,
                    Call::Stop => {
                        tokio::select! {
                            () = &mut gone => return,
                            () = this_loop.stand_still() => {}
                        }
                        asked_to_stop.set(flows.hold.asked());
                    }
                    Call::Close => {
                        alive = None;
                        self.listener.table().drain();
                    }
                    Call::Spec(Some(receiver)) => respecified.set(changed(self.respecified(receiver))),
                    Call::Spec(None) => is_specified = false,
                    Call::Rearm => rearmed.set(listener.rearm.notified()),
                },
                () = &mut timer, if is_armed => {
                    self.look_back();
                    // Its deadline lies in the past now, and must not be taken for the one armed
                    // next.
                    timer.as_mut().reset(Instant::now() + SUMMARY_EVERY);
                }
                // Only this task waits for the socket.
                ready = poll_fn(|cx| listener.socket.poll_recv_ready(cx)) => match ready {
                    Ok(()) => self.take_in(alive.as_ref()).await,
                    Err(_) => return,
                },
            }
        }
    }

    /// Arms the timer for what is due next. Whether anything is.
    fn arm(&self, timer: Pin<&mut Sleep>) -> bool {
        let wake_at = self.wake_at();
        if let Some(at) = wake_at.filter(|at| *at != timer.deadline()) {
            timer.reset(at);
        }
        wake_at.is_some()
    }

    /// Does what is due by the clock.
    fn look_back(&mut self) {
        self.expire();
        self.summarise();
    }

    /// Takes another spec, and gives its receiver back.
    fn respecified(&mut self, mut receiver: watch::Receiver<Arc<UdpSpec>>) -> watch::Receiver<Arc<UdpSpec>> {
        let spec = Arc::clone(&receiver.borrow_and_update());
        self.peers = Arc::clone(&spec.options.accept_proxy);
        self.listener.table().retune(spec.options.idle_timeout);
        receiver
    }

    /// Takes in what has arrived.
    async fn take_in(&mut self, alive: Option<&mpsc::Sender<()>>) {
        match self.turn(alive) {
            Ok(Read::Empty) => {
                self.backoff = Backoff::default();
                if self.reprieve.take().is_some() {
                    self.listener.expire();
                }
            }
            Ok(Read::More) => yield_now().await,
            Err(error) => self.wait_out(&error).await,
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
    async fn wait_out(&mut self, error: &io::Error) {
        if let Some(left_out) = self.listener.log.receive.take(Instant::now()) {
            tracing::warn!(%error, failures = left_out + 1, "cannot receive datagrams; trying again");
        }
        tokio::select! {
            () = sleep(self.backoff.next()) => {}
            () = self.service.flows.hold.asked() => {}
        }
    }
}
