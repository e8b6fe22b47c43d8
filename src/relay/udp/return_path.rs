//! The task of one flow: it opens the way to the target, and carries the target's datagrams back to
//! the client.
//!
//! The wait for a lookup is here, so that a slow resolver holds up one flow's datagrams and no one
//! else's. Replies go out through the listener's socket, which all flows share. When that takes no
//! more, the flow keeps what it has read (a turn's worth, and no more than [`HELD_FOR_CLIENTS`] for
//! all flows of the listener), waits until it may go on, and reads nothing meanwhile: the burst
//! waits in the kernel, and no other flow waits for this one.
//!
//! An ICMP error comes in as an error of the flow's socket. It says that a datagram was lost, not
//! that the next one will be: the target may be starting. So it is counted, and the flow goes on.
//! Such a failure counts, as do those that the listener met: if `failover` says so, the flow looks
//! for another address.
//!
//! It stops where it is when it is asked to freeze, and hands itself in with what it knows
//! ([`Ride`]). Replies that wait for the listener's socket go along.
//!
//! The task ends when its session is cut. The listener cuts an idle flow. What the task holds is
//! released in this order: the flow's place in the table, the flow (with its socket, permit and
//! account), the listener, its sign of life.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{Interest, Ready},
    net::UdpSocket,
    sync::mpsc,
    task::yield_now,
    time::{Instant, sleep},
};

use super::{
    ListenerShared,
    batch::{FLOW_BATCH, Pushed, Read, Run, receive, receive_singly},
    connecting::{Connecting, fail_over, report_answer},
    drops::DropReason,
    failover::Trouble,
    flow::{Flow, Target},
    flow_table::{Early, FlowId},
    stopped::{Reply, Ride, StoppedFlow},
};
use crate::{
    meter::{Asked, Ended},
    sock::{Backoff, udp as sockets},
};

/// The bytes of replies that the flows of a listener may hold while its socket takes no more.
pub(super) const HELD_FOR_CLIENTS: usize = 4 * 1024 * 1024;
/// Errors in a row that are taken as they come: a burst of ICMP messages is not a standing failure.
const FREE_ERRORS: u32 = 64;
/// How long no other flow is tried after one could not be opened.
const HOLD_OFF: Duration = Duration::from_secs(1);

/// Runs a flow until its end, from its first datagram or from where it stopped. `alive` is held
/// until everything else is released.
///
/// Not an `async fn`: that would keep every argument twice, and a task is as large as its future.
#[expect(clippy::manual_async_fn, reason = "its arguments would be kept twice")]
pub(super) fn run(
    (listener, alive): (Arc<ListenerShared>, mpsc::Sender<()>),
    flow: Arc<Flow>,
    id: FlowId,
    mut connecting: Connecting,
    mut ride: Ride,
) -> impl Future<Output = ()> + Send {
    async move {
        let mut entry = TableEntry { listener: &listener, id, lost: DropReason::FlowEnded, stays: false };
        let mut failure = None;
        let opened = poll_fn(|cx| match poll_asked(&flow, cx) {
            Poll::Ready(asked) => Poll::Ready(Err(asked)),
            Poll::Pending => connecting.poll_outcome(cx).map(Ok),
        });
        let stop = match opened.await {
            Err(asked) => asked,
            Ok(Err(error)) => {
                entry.lost = error.tell(&listener.log);
                listener.table().unreachable(id, Instant::now().into_std(), HOLD_OFF);
                failure = Some(error);
                Stop::End(Ended::Unreachable)
            }
            Ok(Ok(())) => {
                while !send_early(&listener, &flow, id) {
                    yield_now().await;
                }
                carry_replies(&listener, &flow, id, &mut ride).await
            }
        };
        match stop {
            Stop::End(reason) => {
                flow.end(reason, failure);
                drop(entry);
                drop(flow);
                listener.flows.ring();
            }
            Stop::Freeze => {
                entry.stays = true;
                drop(entry);
                let flows = Arc::clone(&listener.flows);
                flows.hand_in(StoppedFlow::here(flow, ride, (listener, id, alive)));
                return;
            }
        }
        drop(listener);
        drop(alive);
    }
}

/// Why the task of a flow stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The flow ends.
    End(Ended),
    /// It stops where it is.
    Freeze,
}

/// Ready when the flow is asked to stop. Only its task may poll this.
fn poll_asked(flow: &Flow, cx: &Context<'_>) -> Poll<Stop> {
    loop {
        return match ready!(flow.live().poll_asked(cx)) {
            Asked::End(reason) => Poll::Ready(Stop::End(reason)),
            Asked::Freeze => Poll::Ready(Stop::Freeze),
            // The sockets of flows are found without their tasks.
            Asked::Show => continue,
        };
    }
}

/// Waits until the flow is asked to stop.
async fn asked(flow: &Flow) -> Stop {
    poll_fn(|cx| poll_asked(flow, cx)).await
}

/// A flow's entry in the table, for as long as its task lives.
struct TableEntry<'a> {
    listener: &'a ListenerShared,
    id: FlowId,
    /// What becomes of datagrams that are still held for it.
    lost: DropReason,
    /// The task only stops.
    stays: bool,
}

impl Drop for TableEntry<'_> {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let removed = self.listener.table().remove(self.id);
        if let Some((_flow, held)) = removed {
            self.listener.drops.add(self.lost, held as u64);
        }
    }
}

/// Sends what is held for a connected flow, in order, and opens the flow if nothing was. Whether it
/// is open now: the listener goes on to receive meanwhile, and may hold more.
pub(super) fn send_early(listener: &ListenerShared, flow: &Flow, id: FlowId) -> bool {
    let Early::Send(held) = listener.with_table(|table, now| table.take_early(id, now)) else { return true };
    for datagram in &held {
        listener.send_in(flow, Run::single(datagram));
    }
    false
}

/// Carries replies until the session is cut, from wherever the flow leads.
#[expect(clippy::manual_async_fn, reason = "its arguments would be kept twice")]
fn carry_replies<'a>(
    listener: &'a ListenerShared,
    flow: &'a Flow,
    id: FlowId,
    ride: &'a mut Ride,
) -> impl Future<Output = Stop> + Send + 'a {
    async move {
        if !ride.replies.is_empty() {
            // They came before what the socket has.
            let held = std::mem::take(&mut ride.replies).into_iter();
            let held = held.map(|reply| Held::again(listener, reply)).collect();
            if let Some(stop) = Box::pin(send_held(listener, flow, held, ride)).await {
                return stop;
            }
        }
        loop {
            let Some(target) = flow.target() else { return Stop::End(Ended::Unreachable) };
            let trouble = match ride.looking {
                Some(trouble) => trouble,
                None => match carry_from(listener, flow, id, &target, ride).await {
                    Event::Stop(stop) => return stop,
                    Event::Trouble(trouble) => trouble,
                    Event::Readable => continue,
                },
            };
            ride.looking = Some(trouble);
            // Boxed: this is rare, and a flow's task is as large as its largest state.
            let looking = Box::pin(fail_over(listener, flow, &target, trouble));
            tokio::select! {
                biased;
                stop = asked(flow) => return stop,
                has_moved_on = looking => {
                    ride.looking = None;
                    if has_moved_on {
                        ride.is_joined = false;
                        ride.judge.failed_over();
                    }
                }
            }
        }
    }
}

/// Carries replies of `target` until the session is cut or the flow has to look for another one.
#[expect(clippy::manual_async_fn, reason = "its arguments would be kept twice")]
fn carry_from<'a>(
    listener: &'a ListenerShared,
    flow: &'a Flow,
    id: FlowId,
    target: &'a Target,
    ride: &'a mut Ride,
) -> impl Future<Output = Event> + Send + 'a {
    async move {
        let socket = &target.socket;
        let mut backoff = Backoff::default();
        let mut pace = if ride.is_joined { Pace::Batch } else { Pace::Single };
        // One future for the whole loop, not one for each reply: tokio does not wait for "readable
        // or failed".
        let mut failure = pin!(socket.ready(Interest::ERROR));
        loop {
            let event = event(flow, socket, &mut failure, || socket.ready(Interest::ERROR)).await;
            if event == Event::Stop(Stop::End(Ended::Idle)) {
                // A reply that came in at the last moment is worth its one try.
                let _ = reply_turn(listener, flow, id, socket, &mut pace);
            }
            if let Event::Stop(_) = event {
                return event;
            }
            let mut trouble = if let Event::Trouble(trouble) = event { Some(trouble) } else { None };
            let failure = take_error(socket);
            listener.drops.add(DropReason::TargetRefused, u64::from(failure == Failure::New));
            if failure != Failure::None {
                trouble = trouble.max(Some(Trouble::Refused));
            }
            let turned = reply_turn(listener, flow, id, socket, &mut pace);
            ride.is_joined = pace == Pace::Batch;
            let next = match turned {
                Ok((read, held, answers)) => {
                    backoff = Backoff::default();
                    if answers > 0 && ride.judge.answered() {
                        report_answer(listener, flow, target);
                    }
                    (read == Read::More || !held.is_empty()).then_some(Next::Send(read, held))
                }
                Err(_) => {
                    listener.drops.add(DropReason::TargetRefused, 1);
                    trouble = trouble.max(Some(Trouble::Refused));
                    Some(Next::Pause(backoff.next_after(FREE_ERRORS)))
                }
            };
            if let Some(next) = next {
                // Boxed: this is rare, and a flow's task is as large as its largest state.
                if let Some(stop) = Box::pin(next.run(listener, flow, ride)).await {
                    ride.looking =
                        trouble.filter(|trouble| ride.judge.looks(*trouble, Instant::now().into_std()));
                    return Event::Stop(stop);
                }
            }
            if let Some(trouble) =
                trouble.filter(|trouble| ride.judge.looks(*trouble, Instant::now().into_std()))
            {
                return Event::Trouble(trouble);
            }
        }
    }
}

/// Waits for something to do. `failure` is ready where the socket has an error, and `again` makes
/// another such.
async fn event<F: Future<Output = io::Result<Ready>>>(
    flow: &Flow,
    socket: &UdpSocket,
    failure: &mut Pin<&mut F>,
    again: impl Fn() -> F,
) -> Event {
    poll_fn(|cx| {
        if let Poll::Ready(stop) = poll_asked(flow, cx) {
            return Poll::Ready(Event::Stop(stop));
        }
        if let Poll::Ready(trouble) = flow.poll_trouble(cx) {
            return Poll::Ready(Event::Trouble(trouble));
        }
        if let Poll::Ready(ready) = socket.poll_recv_ready(cx) {
            return Poll::Ready(ready.map_or(Event::SHUTDOWN, |()| Event::Readable));
        }
        let ready = ready!(failure.as_mut().poll(cx));
        failure.set(again());
        Poll::Ready(ready.map_or(Event::SHUTDOWN, |_| Event::Readable))
    })
    .await
}

/// What a flow's task waits for.
#[derive(PartialEq, Eq)]
enum Event {
    /// There may be a reply, or an error instead of one.
    Readable,
    /// The way to the target is in trouble.
    Trouble(Trouble),
    /// The flow is asked to stop.
    Stop(Stop),
}

impl Event {
    /// The runtime is gone.
    const SHUTDOWN: Self = Self::Stop(Stop::End(Ended::Shutdown));
}

/// How replies are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// One at a time: as a rule there is one.
    Single,
    /// In batches, joined by the kernel where it can: the target has sent bursts.
    Batch,
}

/// What ICMP messages left at a flow's socket.
#[derive(PartialEq, Eq)]
enum Failure {
    /// Nothing.
    None,
    /// An error that a send has met and counted before.
    Told,
    /// An error that is not counted yet.
    New,
}

/// Takes the error that an ICMP message left at the socket, if any. It makes the socket neither
/// readable nor writable.
fn take_error(socket: &UdpSocket) -> Failure {
    let mut failure = Failure::None;
    // "Would block" tells tokio that nothing is left.
    let _ = socket.try_io(Interest::ERROR, || -> io::Result<()> {
        failure = match (socket.take_error(), sockets::take_icmp_errors(socket)) {
            (Ok(Some(_)), _) => Failure::New,
            (_, true) => Failure::Told,
            (_, false) => Failure::None,
        };
        Err(io::ErrorKind::WouldBlock.into())
    });
    failure
}

/// What follows a turn.
enum Next<'a> {
    /// Send what is held, then read on; step back first where there was more to read than one turn
    /// may.
    Send(Read, Vec<Held<'a>>),
    /// Too many errors in a row.
    Pause(Duration),
}

impl Next<'_> {
    /// Why the flow is asked to stop, if it is.
    async fn run(self, listener: &ListenerShared, flow: &Flow, ride: &mut Ride) -> Option<Stop> {
        match self {
            Self::Send(read, held) => {
                let stop = send_held(listener, flow, held, ride).await;
                if read == Read::More && stop.is_none() {
                    yield_now().await;
                }
                stop
            }
            Self::Pause(pause) if pause.is_zero() => None,
            Self::Pause(pause) => tokio::select! {
                biased;
                stop = asked(flow) => Some(stop),
                () = sleep(pause) => None,
            },
        }
    }
}

/// Sends what is held. Where the flow is asked to stop meanwhile, the rest is left in its ride.
async fn send_held(
    listener: &ListenerShared,
    flow: &Flow,
    held: Vec<Held<'_>>,
    ride: &mut Ride,
) -> Option<Stop> {
    let mut held = held.into_iter();
    while let Some(mut next) = held.next() {
        let stop = tokio::select! {
            biased;
            stop = asked(flow) => stop,
            () = next.send(listener, flow) => continue,
        };
        let left = std::iter::once(next).chain(held);
        ride.replies = left.filter_map(Held::into_reply).collect();
        return Some(stop);
    }
    None
}

/// Reads one batch of replies and sends them at once. Returns what the listener's socket did not
/// take, and how many there were.
fn reply_turn<'a>(
    listener: &'a ListenerShared,
    flow: &Flow,
    id: FlowId,
    socket: &UdpSocket,
    pace: &mut Pace,
) -> io::Result<(Read, Vec<Held<'a>>, usize)> {
    let mut held = Vec::new();
    let mut answers = 0;
    let mut pass_on = |run: Run<'_>| {
        answers += run.count();
        let (run, over) = flow.police_out(run);
        listener.drops.add(DropReason::Bandwidth, over);
        let Some(run) = run else { return };
        let rest = if held.is_empty() {
            let pushed = flow.send_to_client(run, &listener.socket, &listener.offload);
            listener.drops.add(DropReason::ClientRefused, pushed.refused);
            pushed.rest
        } else {
            Some(run)
        };
        if let Some(rest) = rest {
            match Held::new(listener, rest) {
                Some(rest) => held.push(rest),
                None => listener.drops.add(DropReason::ClientBusy, rest.count() as u64),
            }
        }
    };
    let read = match *pace {
        Pace::Single => receive_singly(socket, FLOW_BATCH, pass_on),
        Pace::Batch => {
            receive(socket, &listener.offload, FLOW_BATCH, |_, _, run| pass_on(run)).map(|(read, _)| read)
        }
    };
    if answers > 0 {
        listener.with_table(|table, now| table.reply(id, answers, now));
    }
    let read = match read {
        // What came before the error has gone out, or is held and must go out.
        Err(_) if answers > 0 => {
            listener.drops.add(DropReason::TargetRefused, 1);
            Read::More
        }
        read => read?,
    };
    if read == Read::More && *pace == Pace::Single {
        if listener.kernel_joins {
            sockets::join(socket);
        }
        *pace = Pace::Batch;
    }
    Ok((read, held, answers))
}

/// Replies that wait for the listener's socket.
pub(super) struct Held<'a> {
    listener: &'a ListenerShared,
    bytes: Vec<u8>,
    segment: usize,
    /// Where the datagrams begin that are left; `None` when all are sent.
    left: Option<usize>,
}

impl<'a> Held<'a> {
    /// Keeps a copy of `run`, or nothing when enough is kept.
    pub(super) fn new(listener: &'a ListenerShared, run: Run<'_>) -> Option<Self> {
        listener.held.reserve(run.bytes().len(), HELD_FOR_CLIENTS).then(|| Self {
            listener,
            bytes: run.bytes().to_vec(),
            segment: run.segment(),
            left: Some(0),
        })
    }

    /// Keeps what a flow has brought along, however much is kept.
    fn again(listener: &'a ListenerShared, Reply { bytes, segment }: Reply) -> Self {
        listener.held.take_over(bytes.len());
        Self { listener, bytes, segment, left: Some(0) }
    }

    /// What is left of it.
    fn into_reply(self) -> Option<Reply> {
        let bytes = self.bytes.get(self.left?..)?.to_vec();
        Some(Reply { bytes, segment: self.segment })
    }

    /// Sends it. What was sent is known when this is dropped before its end.
    pub(super) async fn send(&mut self, listener: &ListenerShared, flow: &Flow) {
        let Self { bytes, segment, left, .. } = self;
        let sent = listener.socket.async_io(Interest::WRITABLE, || {
            if let Some(at) = left.take() {
                let Pushed { refused, rest, .. } = flow.send_to_client(
                    Run::new(&bytes[at..], *segment),
                    &listener.socket,
                    &listener.offload,
                );
                listener.drops.add(DropReason::ClientRefused, refused);
                *left = rest.map(|rest| bytes.len() - rest.bytes().len());
            }
            if left.is_some() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        // The only other error is that the runtime is gone.
        let _ = sent.await;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.listener.held.release(self.bytes.len());
    }
}
