//! The task of one flow: it opens the way to the target, and carries the target's datagrams back to the client.
//!
//! Names are looked up here, so that a slow resolver holds up one flow's datagrams and no one else's. Replies go out
//! through the listener's socket, which all flows share. When that takes no more, the flow keeps what it has read (a
//! turn's worth, and no more than [`HELD_FOR_CLIENTS`] for all flows of the listener), waits until it may go on, and
//! reads nothing meanwhile: the burst waits in the kernel, and no other flow waits for this one.
//!
//! An ICMP error comes in as an error of the flow's socket. It says that a datagram was lost, not that the next one will
//! be: the target may be starting. So it is counted, and the flow goes on.
//!
//! The task ends when its session is cut, be it by the listener because the flow was idle. It leaves in this order: the
//! flow's place in the table, the flow (with its socket, permit and account), the listener, its sign of life.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::mpsc,
    task::yield_now,
    time::{Instant, sleep},
};

use super::{
    Front, UdpSpec,
    batch::{FLOW_BATCH, Pushed, Read, Run, receive, receive_singly},
    drops::DropReason,
    flow::Flow,
    flow_table::{Early, FlowId},
    pause::Pause,
    sockets,
};
use crate::{
    mapping::Protocol,
    meter::Ended,
    relay::quiet::Quiet,
    target::{Dialer, ResolveError},
};

/// The bytes of replies that the flows of a listener may hold while its socket takes no more.
pub(super) const HELD_FOR_CLIENTS: usize = 4 * 1024 * 1024;
/// How long the lookup of a target's name may take before the next target is tried.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// How long no other flow is tried after one could not be opened.
const HOLD_OFF: Duration = Duration::from_secs(1);

static EXHAUSTED: Quiet = Quiet::new(Duration::from_secs(1));

/// Runs a flow from its first datagram to its end.
pub(super) async fn run(
    _alive: mpsc::Sender<()>,
    front: Arc<Front>,
    flow: Arc<Flow>,
    id: FlowId,
    opening: Opening,
) {
    let mut place = Place { front: &front, id, lost: DropReason::FlowEnded };
    let opened = tokio::select! {
        biased;
        reason = flow.live().wait_cut() => Err(reason),
        opened = opening.outcome() => opened.map_err(|error| {
            place.lost = tell(&error);
            front.table().unreachable(id, Instant::now().into_std(), HOLD_OFF);
            Ended::Unreachable
        }),
    };
    let reason = match opened {
        Ok(()) => {
            while !send_early(&front, &flow, id) {
                yield_now().await;
            }
            carry_replies(&front, &flow, id).await
        }
        Err(reason) => reason,
    };
    flow.end(reason);
}

/// A flow's place in the table, for as long as its task lives.
struct Place<'a> {
    front: &'a Front,
    id: FlowId,
    /// What becomes of datagrams that are still held for it.
    lost: DropReason,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let removed = self.front.table().remove(self.id);
        if let Some((_flow, held)) = removed {
            self.front.drops.add(self.lost, held as u64);
        }
    }
}

/// Why a flow could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("connect: {0}")]
    Connect(io::Error),
    #[error("open a socket: {0}")]
    NoSocket(io::Error),
}

/// The way to a target, which may take a lookup.
pub(super) enum Opening {
    /// Under way. Boxed: most of a flow's life comes after this, and its task is as large as its largest state.
    Pending(Pin<Box<dyn Future<Output = Result<(), OpenError>> + Send>>),
    /// Done, well or badly.
    Done(Result<(), OpenError>),
}

impl Opening {
    /// Begins to connect `flow` to the first target of `spec` that lets itself be connected to.
    pub(super) fn begin(flow: Arc<Flow>, spec: Arc<UdpSpec>, dialer: Dialer) -> Self {
        Self::Pending(Box::pin(async move { open(&flow, &spec, &dialer).await }))
    }

    /// Goes as far as it can without waiting, and says whether the flow is connected by then.
    pub(super) fn is_done_at_once(&mut self) -> bool {
        if let Self::Pending(opening) = self {
            // Whoever waits for the rest leaves a waker of its own.
            let outcome = opening.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(outcome) = outcome {
                *self = Self::Done(outcome);
            }
        }
        matches!(self, Self::Done(Ok(())))
    }

    async fn outcome(self) -> Result<(), OpenError> {
        match self {
            Self::Pending(opening) => opening.await,
            Self::Done(outcome) => outcome,
        }
    }
}

async fn open(flow: &Flow, spec: &UdpSpec, dialer: &Dialer) -> Result<(), OpenError> {
    let mut failure = OpenError::Connect(io::ErrorKind::AddrNotAvailable.into());
    for target in spec.targets.iter() {
        let addrs = match dialer.candidates(Protocol::Udp, target, LOOKUP_LIMIT).await {
            Ok(addrs) => addrs,
            Err(error) => {
                failure = error.into();
                continue;
            }
        };
        for addr in addrs {
            match sockets::connect(addr, spec.options.source) {
                Ok(socket) => {
                    flow.reached(socket, addr);
                    return Ok(());
                }
                Err(error) if sockets::is_exhaustion(&error) => {
                    failure = OpenError::NoSocket(error);
                    break;
                }
                Err(error) => {
                    dialer.failed(Protocol::Udp, addr, &error);
                    failure = OpenError::Connect(error);
                }
            }
        }
    }
    flow.session().missed(spec.targets.first());
    Err(failure)
}

/// Says why a flow could not be opened, and what its datagrams are counted under.
fn tell(error: &OpenError) -> DropReason {
    if let OpenError::NoSocket(_) = error {
        if let Some(left_out) = EXHAUSTED.may_speak() {
            tracing::warn!(%error, failures = left_out + 1, "cannot open flows; raise the descriptor limit or lower limits.flows");
        }
        return DropReason::NoSocket;
    }
    tracing::debug!(%error, "no target reached");
    DropReason::Unreachable
}

/// Sends what is held for a connected flow, in order, and opens the flow if nothing was. Whether it is open now: the
/// listener goes on to receive meanwhile, and may hold more.
pub(super) fn send_early(front: &Front, flow: &Flow, id: FlowId) -> bool {
    let Early::Send(held) = front.with_table(|table, now| table.take_early(id, now)) else { return true };
    for datagram in &held {
        front.send_in(flow, Run::single(datagram));
    }
    false
}

/// Carries replies until the session is cut.
async fn carry_replies(front: &Front, flow: &Flow, id: FlowId) -> Ended {
    let Some(socket) = flow.socket() else { return Ended::Unreachable };
    let mut pause = Pause::default();
    let mut pace = Pace::Single;
    // Waited for by itself, and not anew for every reply: tokio does not wait for "readable or failed".
    let mut failure = pin!(socket.ready(Interest::ERROR));
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(reason) = flow.live().poll_cut(cx) {
                return Poll::Ready(Event::Cut(reason));
            }
            if let Poll::Ready(ready) = socket.poll_recv_ready(cx) {
                return Poll::Ready(ready.map_or(Event::Cut(Ended::Shutdown), |()| Event::Readable));
            }
            let ready = ready!(failure.as_mut().poll(cx));
            failure.set(socket.ready(Interest::ERROR));
            Poll::Ready(ready.map_or(Event::Cut(Ended::Shutdown), |_| Event::Readable))
        });
        if let Event::Cut(reason) = event.await {
            if reason == Ended::Idle {
                // A reply that came in at the last moment is worth its one try.
                let _ = reply_turn(front, flow, id, socket, &mut pace);
            }
            return reason;
        }
        if take_error(socket) {
            front.drops.add(DropReason::TargetRefused, 1);
        }
        let next = match reply_turn(front, flow, id, socket, &mut pace) {
            Ok((read, held)) => {
                pause = Pause::default();
                if read == Read::Empty && held.is_empty() {
                    continue;
                }
                Next::Send(read, held)
            }
            Err(_) => {
                front.drops.add(DropReason::TargetRefused, 1);
                Next::Pause(pause.next_after_first())
            }
        };
        // Boxed: this is rare, and a flow's task is as large as its largest state.
        let next = Box::pin(next.run(front, flow));
        tokio::select! {
            biased;
            reason = flow.live().wait_cut() => return reason,
            () = next => {}
        }
    }
}

/// What a flow's task waits for.
enum Event {
    /// There may be a reply, or an error instead of one.
    Readable,
    /// The flow has to end.
    Cut(Ended),
}

/// How replies are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// One at a time: as a rule there is one.
    Single,
    /// In batches, joined by the kernel where it can: the target has sent bursts.
    Batch,
}

/// Takes the error that an ICMP message left at the socket, if any. It makes the socket neither readable nor writable.
fn take_error(socket: &UdpSocket) -> bool {
    let mut failed = false;
    // "Would block" is how tokio is told that there is no more of it.
    let _ = socket.try_io(Interest::ERROR, || -> io::Result<()> {
        failed = matches!(socket.take_error(), Ok(Some(_)));
        Err(io::ErrorKind::WouldBlock.into())
    });
    failed
}

/// What follows a turn.
enum Next<'a> {
    /// Send what is held, then read on; step back first where there was more to read than one turn may.
    Send(Read, Vec<Held<'a>>),
    /// Too many errors in a row.
    Pause(Duration),
}

impl Next<'_> {
    async fn run(self, front: &Front, flow: &Flow) {
        match self {
            Self::Send(read, held) => {
                for held in held {
                    held.send(front, flow).await;
                }
                if read == Read::More {
                    yield_now().await;
                }
            }
            Self::Pause(pause) if pause.is_zero() => {}
            Self::Pause(pause) => sleep(pause).await,
        }
    }
}

/// Reads one batch of replies and sends them at once; what the listener's socket did not take is returned.
fn reply_turn<'a>(
    front: &'a Front,
    flow: &Flow,
    id: FlowId,
    socket: &UdpSocket,
    pace: &mut Pace,
) -> io::Result<(Read, Vec<Held<'a>>)> {
    let mut held = Vec::new();
    let mut answers = 0;
    let mut pass_on = |run: Run<'_>| {
        answers += run.count();
        let (run, over) = flow.police_out(run);
        front.drops.add(DropReason::Bandwidth, over);
        let Some(run) = run else { return };
        let rest = if held.is_empty() {
            let pushed = flow.send_to_client(run, &front.socket, &front.offload);
            front.drops.add(DropReason::ClientRefused, pushed.refused);
            pushed.rest
        } else {
            Some(run)
        };
        if let Some(rest) = rest {
            match Held::new(front, rest) {
                Some(rest) => held.push(rest),
                None => front.drops.add(DropReason::ClientBusy, rest.count() as u64),
            }
        }
    };
    let read = match *pace {
        Pace::Single => receive_singly(socket, FLOW_BATCH, pass_on),
        Pace::Batch => receive(socket, &front.offload, FLOW_BATCH, |_, _, run| pass_on(run)),
    };
    if answers > 0 {
        front.with_table(|table, now| table.reply(id, answers, now));
    }
    let read = match read {
        // What came before the error has gone out, or is held and must go out.
        Err(_) if answers > 0 => {
            front.drops.add(DropReason::TargetRefused, 1);
            Read::More
        }
        read => read?,
    };
    if read == Read::More && *pace == Pace::Single {
        sockets::join(socket);
        *pace = Pace::Batch;
    }
    Ok((read, held))
}

/// Replies that wait for the listener's socket.
pub(super) struct Held<'a> {
    front: &'a Front,
    bytes: Vec<u8>,
    segment: usize,
}

impl<'a> Held<'a> {
    /// Keeps a copy of `run`, or nothing when enough is kept.
    pub(super) fn new(front: &'a Front, run: Run<'_>) -> Option<Self> {
        front.held.reserve(run.bytes().len(), HELD_FOR_CLIENTS).then(|| Self {
            front,
            bytes: run.bytes().to_vec(),
            segment: run.segment(),
        })
    }

    pub(super) async fn send(self, front: &Front, flow: &Flow) {
        let mut left = Some(Run::new(&self.bytes, self.segment));
        let sent = front.socket.async_io(Interest::WRITABLE, || {
            if let Some(run) = left.take() {
                let Pushed { refused, rest, .. } = flow.send_to_client(run, &front.socket, &front.offload);
                front.drops.add(DropReason::ClientRefused, refused);
                left = rest;
            }
            if left.is_some() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        // The only other error is that the runtime is gone.
        let _ = sent.await;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.front.held.release(self.bytes.len());
    }
}
