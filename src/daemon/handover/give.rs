//! The side of old: starts the new program, gives it everything, and takes it back where that
//! fails. [`carry`] is what it does while all stands still.
//!
//! Invariants: new is dead before old thaws. A thread that holds what is frozen is waited for. A
//! stop that is asked for before `Go` ends the hand-over; later it is too late.

mod carry;

use std::{
    collections::HashSet,
    os::fd::{AsFd, OwnedFd},
    pin::pin,
    time::Duration,
};

use carry::{Carried, Carrier, Still, TAKE, Turn};

use rustix::process::Signal;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    FOR_GOOD, HELLO, LAST_WORDS, Line, LineError, READY, RECEIPT, SERVING, STAGED,
    child::Heir,
    messages::{DoorRecord, FromNew, FromOld, Hello, Listen, Receipt, receive, send, send_sockets},
    notify,
    program::Program,
    state::{Known, StateRecord},
};
use crate::{
    daemon::windows::Windows,
    handover::{Refusal, Report, SocketId, Span, Upgrades, Wire, WireError, is_readable},
    supervisor::{Frozen, HandOver, Handle},
};

/// What a hand-over works with.
pub(in crate::daemon) struct Giver<'d> {
    pub(in crate::daemon) handle: &'d Handle,
    pub(in crate::daemon) windows: &'d Windows,
    pub(in crate::daemon) upgrades: &'d Upgrades,
    pub(in crate::daemon) program: &'d Program,
    pub(in crate::daemon) known: Known,
    /// Cancelled when a stop is asked for.
    pub(in crate::daemon) abort: CancellationToken,
}

/// A hand-over that went well.
#[derive(Debug)]
pub(in crate::daemon) struct Given {
    pub(in crate::daemon) report: Report,
    /// What this process still has to do.
    pub(in crate::daemon) left: Left,
}

/// What is left to do for a process that has handed over.
#[derive(Debug)]
pub(in crate::daemon) struct Left {
    line: Line,
    heir: Heir,
    pause: Duration,
}

impl Left {
    /// Says that this process uses its files no more.
    pub(in crate::daemon) async fn released(&mut self) {
        let released = FromOld::Released { pause_us: Some(Span::of(self.pause)) };
        // New goes on without this word, after a while.
        let _ = self.line.with(LAST_WORDS, move |wire, until| send(wire, &released, until)).await;
    }

    /// Asks the new process to stop: the wish came when it was too late to go back.
    pub(in crate::daemon) fn pass_on_stop(&self) {
        self.heir.signal(Signal::TERM);
    }

    /// Leaves the new process alone.
    pub(in crate::daemon) fn leave(self) {
        self.heir.leave();
    }
}

/// What new has before anything stands still.
struct Offered {
    hello: Hello,
    /// What it was told ahead.
    ahead: StateRecord,
    /// The sockets that it got.
    sent: HashSet<SocketId>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    /// The other side, or the way to it.
    #[error("{step}: {error}")]
    Line { step: &'static str, error: LineError },
    /// The other side did not answer in time.
    #[error("{step}: no answer within {} s", .limit.as_secs())]
    Silence { step: &'static str, limit: Duration },
    /// The new program will not.
    #[error("{0}")]
    Refused(Refusal),
    /// It answers with something else.
    #[error("{step}: it says something else")]
    OutOfStep { step: &'static str },
    /// It is of another time.
    #[error("it speaks the format {0} of a hand-over, and this one {own} and its neighbours", own = crate::handover::FORMAT)]
    Format(u16),
    /// A stop was asked for.
    #[error("a stop was asked for")]
    Aborted,
    /// The supervisor is gone.
    #[error("the daemon is stopping")]
    Stopping,
}

impl Cause {
    fn of((step, limit): (&'static str, Duration), error: LineError) -> Self {
        match error {
            LineError::Wire(WireError::TimedOut) => Self::Silence { step, limit },
            error => Self::Line { step, error },
        }
    }
}

impl Giver<'_> {
    /// Begins, unless it is known that it cannot go well. With it come the sockets of the
    /// listeners.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn begin(&self) -> Result<(HandOver, Vec<OwnedFd>), Refusal> {
        if let Some(refusal) = self.program.refusal() {
            return Err(Refusal::new(refusal));
        }
        let path = self.program.path().map_err(Refusal::new)?.display().to_string();
        tracing::info!(program = path, "handing over");
        let begun = self.handle.hand_over().await;
        begun.ok_or_else(|| Refusal::new("the daemon is stopping"))
    }

    /// Hands over to the program that is installed now.
    ///
    /// # Errors
    /// Why that did not work. Everything goes on as if nothing had happened.
    pub(in crate::daemon) async fn hand_over(self) -> Result<Given, Refusal> {
        let (hand, listeners) = self.begin().await?;
        let (mut heir, mut line) = Heir::start(self.program, FOR_GOOD).await.map_err(Refusal::new)?;
        let (mut still, turn) = (None, Turn::default());
        let cause = match self.offer((&hand, listeners), &heir, &mut line).await {
            Ok(offered) => {
                let hello = offered.hello.clone();
                match self.carry(&hand, offered, (&mut heir, &mut line), (&mut still, &turn)).await {
                    Ok((receipt, pause)) => {
                        let frozen = still.and_then(Still::into_frozen);
                        return Ok(self.commit(hand, frozen, (hello, receipt), (heir, line), pause).await);
                    }
                    Err(cause) => cause,
                }
            }
            Err(cause) => cause,
        };
        let refusal = refusal(cause, &mut heir).await;
        heir.end().await;
        if turn.has_gone() {
            notify::is_main(std::process::id());
        }
        if let Some(frozen) = still.and_then(Still::into_frozen) {
            hand.thaw(frozen).await;
        }
        self.upgrades.stand_still(false);
        Err(refusal)
    }

    /// One step: works with the line, until the limit, unless a stop is asked for. Then new is
    /// killed, and the step ends at once.
    async fn step<T: Send + 'static>(
        &self,
        (step, limit): (&'static str, Duration),
        heir: &Heir,
        line: &mut Line,
        work: impl FnOnce(&mut Wire, Instant) -> Result<T, WireError> + Send + 'static,
    ) -> Result<T, Cause> {
        let work = line.with(limit, work);
        tokio::pin!(work);
        let done = tokio::select! {
            done = &mut work => done,
            () = self.abort.cancelled() => {
                heir.signal(Signal::KILL);
                let _ = work.await;
                return Err(Cause::Aborted);
            }
        };
        done.map_err(|error| Cause::of((step, limit), error))
    }

    /// Waits for what new says next.
    async fn hear(
        &self,
        step: (&'static str, Duration),
        heir: &Heir,
        line: &mut Line,
    ) -> Result<FromNew, Cause> {
        let said = self.step(step, heir, line, |wire, until| Ok(receive::<FromNew>(wire, until)?.0)).await?;
        refused(said)
    }

    /// Everything before the freeze.
    async fn offer(
        &self,
        (hand, listeners): (&HandOver, Vec<OwnedFd>),
        heir: &Heir,
        line: &mut Line,
    ) -> Result<Offered, Cause> {
        let hello = self.greeted(heir, line).await?;
        let doors = self.windows.sockets().await;
        let listen = Listen::of(hand, &listeners, &doors);
        let mut sent: HashSet<SocketId> = listen.sockets().collect();
        let all = move |wire: &mut Wire, until| {
            let doors = doors.iter().map(|(_, socket)| socket);
            send_sockets(wire, listeners.iter().chain(doors).map(AsFd::as_fd), until)?;
            send(wire, &FromOld::Listen(listen), until)
        };
        self.step(("send the listening sockets", STAGED), heir, line, all).await?;
        let FromNew::Staged {} = self.hear(("bind", STAGED), heir, line).await? else {
            return Err(Cause::OutOfStep { step: "bind" });
        };
        let ahead = self.tell_ahead(heir, line).await?;
        sent.extend(self.send_ahead(hand, heir, line).await?);
        Ok(Offered { hello, ahead, sent })
    }

    /// Freezes everything and carries it over: new serves then. What new has taken, and how long
    /// all stood still.
    async fn carry(
        &self,
        hand: &HandOver,
        Offered { hello, ahead, sent }: Offered,
        (heir, line): (&mut Heir, &mut Line),
        (still, turn): (&mut Option<Still>, &Turn),
    ) -> Result<(Receipt, Duration), Cause> {
        let carrier = Carrier {
            known: self.known.clone(),
            ahead,
            sent,
            takes_parts: hello.parts,
            pid: heir.pid(),
            reload_was_asked: hand.reload_was_asked(),
            turn: turn.clone(),
        };
        let (freezes, frozen) = oneshot::channel();
        let done = {
            let limit = RECEIPT + SERVING + LAST_WORDS;
            let mut work = pin!(line.with(limit, move |wire, _| Ok(carrier.carry(wire, frozen))));
            self.upgrades.stand_still(true);
            let freeze = async {
                let since = Instant::now();
                // Where the supervisor is gone, the thread sees that nothing comes.
                if let Some(frozen) = hand.freeze().await {
                    let now_still = still.insert(Still::new(frozen, since));
                    let _ = freezes.send(now_still.clone());
                }
            };
            let mut frozen = pin!(async { tokio::join!(freeze, &mut work).1 });
            tokio::select! {
                done = &mut frozen => done,
                () = self.abort.cancelled() => {
                    // It may come too late.
                    if turn.stop() {
                        heir.signal(Signal::KILL);
                    }
                    frozen.await
                }
            }
        };
        let carried = done.map_err(|error| Cause::of(TAKE, error))?;
        let Carried { receipt, pause } = carried.map_err(|cause| match cause {
            Cause::Line { .. } | Cause::Silence { .. } if self.abort.is_cancelled() => Cause::Aborted,
            cause => cause,
        })?;
        match pause {
            Ok(pause) => Ok((receipt, pause)),
            Err(error) => {
                self.has_it_served(hand, (heir, line), still).await;
                Err(Cause::of(("serve", SERVING), error.into()))
            }
        }
    }

    /// New has not answered to `Go`, and is ended. What it has said before its end counts: it may
    /// have moved bytes.
    async fn has_it_served(
        &self,
        hand: &HandOver,
        (heir, line): (&mut Heir, &mut Line),
        still: &mut Option<Still>,
    ) {
        heir.end().await;
        let last = line.with(Duration::ZERO, |wire, until| Ok(receive::<FromNew>(wire, until)?.0)).await;
        if let Ok(FromNew::Serving {}) = last {
            tracing::error!("the new process served and was gone; its sessions are lost");
            if let Some(frozen) = still.take().and_then(Still::into_frozen) {
                hand.thaw_without_sessions(frozen).await;
            }
        }
    }

    /// Tells what this process knows, as far as it can be a moment old; what it was.
    async fn tell_ahead(&self, heir: &Heir, line: &mut Line) -> Result<StateRecord, Cause> {
        let known = self.known.clone();
        let tell = move |wire: &mut Wire, until| {
            let ahead = Box::new(known.ahead());
            let message = FromOld::State(ahead);
            send(wire, &message, until)?;
            match message {
                FromOld::State(ahead) => Ok(*ahead),
                _ => Ok(StateRecord::default()),
            }
        };
        self.step(("take what is known", STAGED), heir, line, tell).await
    }

    /// Sends the sockets of live sessions, which go on meanwhile; which these are.
    async fn send_ahead(
        &self,
        hand: &HandOver,
        heir: &Heir,
        line: &mut Line,
    ) -> Result<Vec<SocketId>, Cause> {
        let mut sent = Vec::new();
        for batch in hand.ahead().await {
            let sockets = batch.await;
            sent.extend(sockets.iter().filter_map(|socket| SocketId::of(socket).ok()));
            let send =
                move |wire: &mut Wire, until| send_sockets(wire, sockets.iter().map(AsFd::as_fd), until);
            self.step(("take the sockets of sessions", STAGED), heir, line, send).await?;
        }
        // What new still has to do with them would be a part of the pause.
        let taken = |wire: &mut Wire, until| wire.taken(until);
        self.step(("take the sockets of sessions", STAGED), heir, line, taken).await?;
        Ok(sent)
    }

    /// Waits until new has read the configuration.
    pub(super) async fn greeted(&self, heir: &Heir, line: &mut Line) -> Result<Hello, Cause> {
        let FromNew::Hello(hello) = self.hear(("start", HELLO), heir, line).await? else {
            return Err(Cause::OutOfStep { step: "start" });
        };
        if !is_readable(hello.format) {
            return Err(Cause::Format(hello.format));
        }
        match self.hear(("read the configuration", READY), heir, line).await? {
            FromNew::Ready {} => Ok(hello),
            _ => Err(Cause::OutOfStep { step: "read the configuration" }),
        }
    }

    async fn commit(
        &self,
        hand: HandOver,
        frozen: Option<Frozen>,
        (hello, receipt): (Hello, Receipt),
        (heir, line): (Heir, Line),
        pause: Duration,
    ) -> Given {
        let mut left_behind = receipt.not_taken.len();
        if let Some(frozen) = frozen {
            left_behind += frozen.left();
            hand.let_go(frozen, receipt.not_taken.into_iter().collect()).await;
        }
        let mut report = Report {
            version: hello.version,
            commit: hello.commit,
            pid: heir.pid(),
            sessions: receipt.sessions,
            flows: receipt.flows,
            pause_ms: 0.0,
            left_behind,
        };
        report.stood_still(pause);
        tracing::info!(
            version = report.version,
            pid = report.pid,
            sessions = report.sessions,
            flows = report.flows,
            pause_ms = report.pause_ms,
            left_behind,
            "handed over"
        );
        Given { report, left: Left { line, heir, pause } }
    }
}

impl Listen {
    /// What is said of these sockets.
    pub(super) fn of(hand: &HandOver, listeners: &[OwnedFd], doors: &[(String, OwnedFd)]) -> Self {
        let listeners = listeners.iter().filter_map(|socket| SocketId::of(socket).ok()).collect();
        let doors = doors.iter().filter_map(|(place, socket)| {
            Some(DoorRecord { place: place.clone(), socket: SocketId::of(socket).ok()? })
        });
        Self { listeners, waiting: hand.waiting(), doors: doors.collect(), staying: hand.staying() }
    }

    fn sockets(&self) -> impl Iterator<Item = SocketId> {
        self.listeners.iter().copied().chain(self.doors.iter().map(|door| door.socket))
    }
}

fn refused(said: FromNew) -> Result<FromNew, Cause> {
    match said {
        FromNew::Refused { fault, error, problems } => {
            Err(Cause::Refused(Refusal { fault, error, problems }))
        }
        other => Ok(other),
    }
}

/// The cause for people, with how the new process ended.
pub(super) async fn refusal(cause: Cause, heir: &mut Heir) -> Refusal {
    match cause {
        Cause::Refused(refusal) => refusal,
        Cause::Line { step, error: LineError::Wire(WireError::Closed) } => {
            let how = heir.how_it_ended().await;
            Refusal::new(match how {
                Some(how) => format!("the new program has ended before it could {step} ({how})"),
                None => format!("the new program has closed the connection before it could {step}"),
            })
        }
        cause @ (Cause::Aborted | Cause::Stopping) => Refusal::new(cause.to_string()),
        cause => Refusal::new(format!("the new program (pid {}) failed to {cause}", heir.pid())),
    }
}
