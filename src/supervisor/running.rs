//! One listener that serves, waits for its socket, or has closed and still has sessions.

use std::{
    collections::HashMap,
    fmt, io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
};

use rustix::io::Errno;
use tokio::time::{Instant, timeout};

use super::{
    SETTLE,
    kind::{self, Ahead, Freezing, FrozenListener, HandedListener, Kind, Parts},
    mapping::MappingRuntime,
    quiet_stop::Remaining,
    roster::{ListenerRecord, Serving, Trouble},
    shared::{Failed, Shared},
};
use crate::{
    config::ListenerPlan,
    events::{Draft, EventKind},
    handover::{SocketId, Unpacker},
    mapping::{ListenerKey, MappingId, Protocol, TargetAddr},
    meter::{Ended, ListenerMeter, LiveSession},
    relay::{Drain, DrainWatch},
    sock::bind::Listening,
    targets::{Dialer, Leg},
};

/// The task that holds a socket.
#[derive(Debug)]
struct Held {
    drain: Drain,
    number: u64,
    socket: Listening,
}

/// What an event says of a listener.
struct Told {
    key: ListenerKey,
    listens: bool,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.listens {
            true => write!(f, "listening on {}", self.key),
            false => write!(f, "{} is closed", self.key),
        }
    }
}

/// A listener of the plan.
#[derive(Debug)]
pub(super) struct Running {
    key: ListenerKey,
    mapping: Option<MappingId>,
    kind: Box<dyn Kind>,
    meter: Arc<ListenerMeter>,
    /// `None` while it waits for its port.
    serving: Option<Held>,
    /// The cause of the last failure to bind it, since it last served.
    waits_for: Option<Errno>,
    /// Why it has no socket, as others see it.
    trouble: Trouble,
    /// It had a socket, which died.
    has_failed: bool,
    sessions: Drain,
    shared: Arc<Shared>,
}

impl Running {
    /// A listener without a socket yet.
    pub(super) fn new(
        key: ListenerKey,
        plan: ListenerPlan,
        mapping: Option<&MappingRuntime>,
        shared: Arc<Shared>,
    ) -> Self {
        let meter = ListenerMeter::new(plan.name, key.protocol, key.addr.clone(), shared.ledger.clone());
        if let Some(mapping) = mapping {
            meter.join(&mapping.log, &mapping.totals);
        }
        Self {
            mapping: plan.mapping,
            kind: kind::of(plan.service, key.protocol, mapping),
            key,
            meter,
            serving: None,
            waits_for: None,
            trouble: Trouble::default(),
            has_failed: false,
            sessions: Drain::new(),
            shared,
        }
    }

    /// Serves on `socket`, and logs that where the log is to have a line of this listener.
    pub(super) fn serve(&mut self, socket: OwnedFd, has_line: bool) {
        let (drain, number) = (Drain::new(), self.shared.next.fetch_add(1, Relaxed));
        let (key, failed) = (self.key.clone(), self.shared.failed.clone());
        let meter = Arc::clone(&self.meter);
        let report = move |error: &io::Error| {
            tracing::error!(
                protocol = key.protocol.as_str(),
                listen.addr = %key.addr,
                error = %error,
                "listener failed; binding it again"
            );
            meter.events().emit(EventKind::ListenerFailed, || {
                let message = format_args!("{key} failed and is bound again: {error}");
                Draft::new(message).mapping(meter.mapping())
            });
            let _ = failed.send(Failed { key, number, error: error.to_string() });
        };
        let parts = Parts {
            shared: &self.shared,
            meter: &self.meter,
            sessions: self.sessions.watch(),
            closing: drain.watch(),
        };
        let socket = match self.kind.serve(socket, parts) {
            Ok((socket, work)) => {
                let (name, alarm) = (format!("listener {}", self.key), self.shared.alarm.clone());
                let serves = self.shared.serves.clone();
                let work = async move {
                    serves.cancelled().await;
                    if let Err(error) = work.await {
                        report(&error);
                    }
                };
                drain.watch().spawn(async move { alarm.guard(name, work).await });
                socket
            }
            Err(error) => {
                report(&error);
                Weak::<std::net::UdpSocket>::new()
            }
        };
        self.serving = Some(Held { drain, number, socket });
        self.waits_for = None;
        self.has_failed = false;
        if has_line {
            tracing::info!(
                mapping = %self.meter.mapping(),
                protocol = self.key.protocol.as_str(),
                listen.addr = %self.key.addr,
                targets = self.kind.targets(),
                trap = self.kind.is_trap().then_some(true),
                "listening"
            );
        }
        self.tell(EventKind::Listening, Told { key: self.key.clone(), listens: true });
    }

    /// A duplicate of its socket, where it has one.
    pub(super) fn twin(&self) -> Option<OwnedFd> {
        self.socket()?.upgrade()?.as_fd().try_clone_to_owned().ok()
    }

    /// The text is made when it is read: a start opens thousands of listeners.
    fn tell(&self, kind: EventKind, told: Told) {
        self.meter.events().emit(kind, || Draft::later(told).mapping(self.meter.mapping()));
    }

    /// Tells that it takes no more clients, because the plan has it no more.
    pub(super) fn tell_closed(&self) {
        if !self.is_waiting() {
            self.tell(EventKind::ListenerClosed, Told { key: self.key.clone(), listens: false });
        }
    }

    /// Whether it has no socket.
    pub(super) fn is_waiting(&self) -> bool {
        self.serving.is_none()
    }

    /// Its socket, where it has one.
    pub(super) fn socket(&self) -> Option<Listening> {
        self.serving.as_ref().map(|serving| serving.socket.clone())
    }

    /// Notes that a socket died. If it is still the one in use, the listener waits to be bound
    /// again.
    pub(super) fn failed(&mut self, failed: &Failed) {
        if self.serving.take_if(|serving| serving.number == failed.number).is_some() {
            self.has_failed = true;
            self.trouble = Trouble { error: failed.error.clone(), holder: None, is_taken: false };
        }
    }

    /// Notes what others see of why it has no socket.
    pub(super) fn is_in_trouble(&mut self, trouble: Trouble) {
        self.trouble = trouble;
    }

    /// What others see of it.
    pub(super) fn record(&self, is_closing: bool) -> ListenerRecord {
        let state = match &self.serving {
            _ if is_closing => Serving::Closing,
            Some(_) => Serving::Listening,
            None if self.has_failed => Serving::Failed(self.trouble.clone()),
            None => Serving::Waiting(self.trouble.clone()),
        };
        let (key, mapping, meter) = (self.key.clone(), self.mapping.clone(), Arc::clone(&self.meter));
        ListenerRecord { key, mapping, state, meter, drops: self.kind.drops().cloned() }
    }

    /// Its sessions and totals.
    pub(super) fn meter(&self) -> &Arc<ListenerMeter> {
        &self.meter
    }

    /// Notes why it could not be bound. Returns whether that is another cause than the last time.
    pub(super) fn waits_for(&mut self, cause: Option<Errno>) -> bool {
        std::mem::replace(&mut self.waits_for, cause) != cause
    }

    /// Takes a changed plan for the same socket: new sessions follow it, live ones go on.
    pub(super) fn retune(&mut self, plan: &ListenerPlan) {
        self.mapping.clone_from(&plan.mapping);
        self.meter.rename(plan.name.clone());
        self.kind.retune(&plan.service);
    }

    /// Joins a mapping: its admission decides from now on, its pool chooses, and its budget holds
    /// for the session lines. Returns whether the admission is another one.
    pub(super) fn join(&self, mapping: &MappingRuntime) -> bool {
        self.meter.join(&mapping.log, &mapping.totals);
        if let Some(pool) = self.kind.pool() {
            pool.join(&mapping.pool);
        }
        self.kind.admission().is_some_and(|admission| {
            admission.send_if_modified(|present| {
                let other = !Arc::ptr_eq(present, &mapping.admission);
                *present = Arc::clone(&mapping.admission);
                other
            })
        })
    }

    /// Cuts the sessions of clients whose access was revoked.
    pub(super) fn sweep(&self, now: Instant) {
        let Some(admission) = self.kind.admission() else { return };
        let admission = Arc::clone(&admission.borrow());
        for live in self.meter.live() {
            let may_stay =
                admission.recheck(live.client.ip(), now).is_ok() && self.kind.may_stay(&admission, &live);
            if !may_stay {
                live.cut(Ended::Policy);
            }
        }
    }

    /// Ends the sessions whose target went down after they had begun.
    pub(super) fn end_sessions_of_targets_down(&self, dialer: &Dialer) {
        let (mapping, protocol) = (self.meter.mapping(), self.key.protocol);
        let mut went_down: HashMap<TargetAddr, Option<Instant>> = HashMap::new();
        for live in self.meter.live() {
            let Some(member) = live.member() else { continue };
            let went_down = went_down.entry(member.addr().clone()).or_insert_with_key(|target| {
                let leg = Leg { mapping: mapping.clone(), protocol, target: target.clone() };
                dialer.down(&leg).map(|down| down.at)
            });
            if went_down.is_some_and(|at| live.started <= at) {
                live.cut(Ended::TargetError);
            }
        }
    }

    /// Stops it and its sessions where they are; see [`Kind::freeze`]. Freezes of several listeners
    /// may be awaited together.
    pub(super) fn freeze(&self) -> Freezing {
        self.kind.freeze(self.parts())
    }

    /// Copies of the sockets of some of its live sessions; see [`Kind::ahead`].
    pub(super) fn ahead(&self, live: Vec<Arc<LiveSession>>) -> Ahead {
        self.kind.ahead(self.parts(), live)
    }

    /// Takes what another process hands over; see [`Kind::take_over`].
    pub(super) fn take_over(
        &self,
        handed: &HandedListener,
        unpacker: &mut Unpacker,
    ) -> (FrozenListener, Vec<SocketId>) {
        self.kind.take_over(handed, unpacker, self.parts())
    }

    /// What it works with, without a socket.
    fn parts(&self) -> Parts<'_> {
        let (sessions, closing) = (self.sessions.watch(), DrainWatch::default());
        Parts { shared: &self.shared, meter: &self.meter, sessions, closing }
    }

    /// Stops taking new sessions.
    pub(super) fn close(&self) {
        if let Some(serving) = &self.serving {
            serving.drain.close();
        }
        self.sessions.close();
    }

    /// Waits, after [`Running::close`], until its TCP socket is closed. The socket of a UDP
    /// listener stays open for its flows.
    pub(super) async fn stopped_listening(&self) {
        if !self.kind.shares_its_socket() {
            self.socket_closed().await;
        }
    }

    /// Closes the socket for good, because another listener has its place. TCP sessions go on. The
    /// flows of a UDP listener need its socket and are cut, also one that starts at this moment.
    pub(super) async fn release(&self) {
        self.close();
        if self.kind.shares_its_socket() {
            self.cut(Ended::Reload);
        }
        self.socket_closed().await;
    }

    /// Waits for the task that holds the socket. It ends within a turn. The limit is for a task
    /// that hangs, because the supervisor handles no request meanwhile.
    async fn socket_closed(&self) {
        let Some(serving) = &self.serving else { return };
        if timeout(SETTLE, serving.drain.finished()).await.is_err() {
            tracing::error!(
                protocol = self.key.protocol.as_str(),
                listen.addr = %self.key.addr,
                "listener does not close its socket"
            );
        }
    }

    /// Adds its live sessions or flows.
    pub(super) fn count_into(&self, left: &mut Remaining) {
        match self.key.protocol {
            Protocol::Tcp => left.sessions += self.meter.live_count(),
            Protocol::Udp => {
                let flows = self.meter.live();
                left.flows.extend(flows.iter().map(|flow| (flow.id, flow.bytes_in() + flow.bytes_out())));
            }
        }
    }

    /// Ends every session, also one whose client is being accepted. The first reason holds for all
    /// later sessions.
    pub(super) fn cut(&self, reason: Ended) {
        self.meter.close(reason);
    }

    /// Waits, after [`Running::close`], for the last session.
    pub(super) async fn finished(&self) {
        if let Some(serving) = &self.serving {
            serving.drain.finished().await;
        }
        self.sessions.finished().await;
    }

    /// The mapping that it belongs to; `None` for a decoy.
    pub(super) fn mapping(&self) -> Option<&MappingId> {
        self.mapping.as_ref()
    }

    /// The socket that it needs.
    pub(super) fn key(&self) -> &ListenerKey {
        &self.key
    }
}
