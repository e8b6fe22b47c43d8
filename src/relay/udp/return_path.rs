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
//! The task ends when its session is cut. The listener cuts an idle flow. What the task holds is
//! released in this order: the flow's place in the table, the flow (with its socket, permit and
//! account), the listener, its sign of life.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
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
    ListenerShared,
    batch::{FLOW_BATCH, Pushed, Read, Run, receive, receive_singly},
    connecting::{Connecting, fail_over, report_answer},
    drops::DropReason,
    failover::{FailoverJudge, Trouble},
    flow::{Flow, Target},
    flow_table::{Early, FlowId},
};
use crate::{
    meter::Ended,
    sock::{Backoff, udp as sockets},
};

/// The bytes of replies that the flows of a listener may hold while its socket takes no more.
pub(super) const HELD_FOR_CLIENTS: usize = 4 * 1024 * 1024;
/// Errors in a row that are taken as they come: a burst of ICMP messages is not a standing failure.
const FREE_ERRORS: u32 = 64;
/// How long no other flow is tried after one could not be opened.
const HOLD_OFF: Duration = Duration::from_secs(1);

/// Runs a flow from its first datagram to its end.
pub(super) async fn run(
    _alive: mpsc::Sender<()>,
    listener: Arc<ListenerShared>,
    flow: Arc<Flow>,
    id: FlowId,
    connecting: Connecting,
) {
    let mut entry = TableEntry { listener: &listener, id, lost: DropReason::FlowEnded };
    let mut failure = None;
    let opened = tokio::select! {
        biased;
        reason = flow.live().wait_cut() => Err(reason),
        opened = connecting.outcome() => opened.map_err(|error| {
            entry.lost = error.tell(&listener.log);
            listener.table().unreachable(id, Instant::now().into_std(), HOLD_OFF);
            failure = Some(Box::new(error));
            Ended::Unreachable
        }),
    };
    let reason = match opened {
        Ok(()) => {
            while !send_early(&listener, &flow, id) {
                yield_now().await;
            }
            carry_replies(&listener, &flow, id).await
        }
        Err(reason) => reason,
    };
    flow.end(reason, failure);
}

/// A flow's entry in the table, for as long as its task lives.
struct TableEntry<'a> {
    listener: &'a ListenerShared,
    id: FlowId,
    /// What becomes of datagrams that are still held for it.
    lost: DropReason,
}

impl Drop for TableEntry<'_> {
    fn drop(&mut self) {
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
async fn carry_replies(listener: &ListenerShared, flow: &Flow, id: FlowId) -> Ended {
    let mut judge = FailoverJudge::default();
    loop {
        let Some(target) = flow.target() else { return Ended::Unreachable };
        let trouble = match carry_from(listener, flow, id, &target, &mut judge).await {
            Event::Cut(reason) => return reason,
            Event::Trouble(trouble) => trouble,
            Event::Readable => continue,
        };
        // Boxed: this is rare, and a flow's task is as large as its largest state.
        let looking = Box::pin(fail_over(listener, flow, &target, trouble));
        tokio::select! {
            biased;
            reason = flow.live().wait_cut() => return reason,
            has_moved_on = looking => if has_moved_on { judge.failed_over() },
        }
    }
}

/// Carries replies of `target` until the session is cut or the flow has to look for another one.
async fn carry_from(
    listener: &ListenerShared,
    flow: &Flow,
    id: FlowId,
    target: &Target,
    judge: &mut FailoverJudge,
) -> Event {
    let socket = &target.socket;
    let mut backoff = Backoff::default();
    let mut pace = Pace::Single;
    // One future for the whole loop, not one for each reply: tokio does not wait for "readable or
    // failed".
    let mut failure = pin!(socket.ready(Interest::ERROR));
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(reason) = flow.live().poll_cut(cx) {
                return Poll::Ready(Event::Cut(reason));
            }
            if let Poll::Ready(trouble) = flow.poll_trouble(cx) {
                return Poll::Ready(Event::Trouble(trouble));
            }
            if let Poll::Ready(ready) = socket.poll_recv_ready(cx) {
                return Poll::Ready(ready.map_or(Event::Cut(Ended::Shutdown), |()| Event::Readable));
            }
            let ready = ready!(failure.as_mut().poll(cx));
            failure.set(socket.ready(Interest::ERROR));
            Poll::Ready(ready.map_or(Event::Cut(Ended::Shutdown), |_| Event::Readable))
        });
        let event = event.await;
        if event == Event::Cut(Ended::Idle) {
            // A reply that came in at the last moment is worth its one try.
            let _ = reply_turn(listener, flow, id, socket, &mut pace);
        }
        if let Event::Cut(_) = event {
            return event;
        }
        let mut trouble = if let Event::Trouble(trouble) = event { Some(trouble) } else { None };
        let failure = take_error(socket);
        listener.drops.add(DropReason::TargetRefused, u64::from(failure == Failure::New));
        if failure != Failure::None {
            trouble = trouble.max(Some(Trouble::Refused));
        }
        let next = match reply_turn(listener, flow, id, socket, &mut pace) {
            Ok((read, held, answers)) => {
                backoff = Backoff::default();
                if answers > 0 && judge.answered() {
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
            let next = Box::pin(next.run(listener, flow));
            tokio::select! {
                biased;
                reason = flow.live().wait_cut() => return Event::Cut(reason),
                () = next => {}
            }
        }
        if let Some(trouble) = trouble.filter(|trouble| judge.looks(*trouble, Instant::now().into_std())) {
            return Event::Trouble(trouble);
        }
    }
}

/// What a flow's task waits for.
#[derive(PartialEq, Eq)]
enum Event {
    /// There may be a reply, or an error instead of one.
    Readable,
    /// The way to the target is in trouble.
    Trouble(Trouble),
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
    async fn run(self, listener: &ListenerShared, flow: &Flow) {
        match self {
            Self::Send(read, held) => {
                for held in held {
                    held.send(listener, flow).await;
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
        Pace::Batch => receive(socket, &listener.offload, FLOW_BATCH, |_, _, run| pass_on(run)),
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
}

impl<'a> Held<'a> {
    /// Keeps a copy of `run`, or nothing when enough is kept.
    pub(super) fn new(listener: &'a ListenerShared, run: Run<'_>) -> Option<Self> {
        listener.held.reserve(run.bytes().len(), HELD_FOR_CLIENTS).then(|| Self {
            listener,
            bytes: run.bytes().to_vec(),
            segment: run.segment(),
        })
    }

    pub(super) async fn send(self, listener: &ListenerShared, flow: &Flow) {
        let mut left = Some(Run::new(&self.bytes, self.segment));
        let sent = listener.socket.async_io(Interest::WRITABLE, || {
            if let Some(run) = left.take() {
                let Pushed { refused, rest, .. } =
                    flow.send_to_client(run, &listener.socket, &listener.offload);
                listener.drops.add(DropReason::ClientRefused, refused);
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
        self.listener.held.release(self.bytes.len());
    }
}
