//! One listener that runs, waits, or is on its way out.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rustix::io::Errno;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout},
};

use super::{Budgets, SETTLE, bind::Socket, lull::Left, named::few};
use crate::{
    alarm::Alarm,
    config::{ListenerPlan, Service},
    mapping::{ListenerKey, MappingName},
    meter::{Ended, ListenerMeter, SessionLog},
    policy::{Admission, Gate},
    relay::{
        Door, Drain,
        socket::Listening,
        tcp::{TcpService, TcpSpec, TrapService},
        udp::{UdpDrops, UdpService, UdpSpec},
    },
    targets::Dialer,
};

/// What every listener shares.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) dialer: Dialer,
    pub(super) budgets: Budgets,
    pub(super) gate: Arc<Gate>,
    /// What doors tell of their refusals.
    pub(super) refused: Arc<Notify>,
    /// Raised by a listener that panics.
    pub(super) alarm: Alarm,
    /// Where a listener whose socket died says so.
    pub(super) failed: mpsc::UnboundedSender<Failed>,
    /// The number of the next socket that is served.
    pub(super) next: Arc<AtomicU64>,
}

/// A socket that died. Its listener may have another one by now, or its place may be another listener's: its number
/// tells.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) key: ListenerKey,
    pub(super) number: u64,
}

/// The task that holds a socket.
#[derive(Debug)]
struct Serving {
    drain: Drain,
    number: u64,
    socket: Listening,
}

/// The end of the wire through which a listener learns of a change.
#[derive(Debug)]
enum Spec {
    Tcp(watch::Sender<Arc<TcpSpec>>, Keeper),
    Udp(watch::Sender<Arc<UdpSpec>>, Keeper),
    Trap,
}

/// The doorkeeper of a listener; another one when it goes to another mapping.
type Keeper = watch::Sender<Arc<Admission>>;

/// A listener of the plan.
#[derive(Debug)]
pub(super) struct Running {
    key: ListenerKey,
    spec: Spec,
    meter: Arc<ListenerMeter>,
    /// Datagrams that were not forwarded; none for TCP.
    drops: Arc<UdpDrops>,
    /// `None` while it waits for its port.
    serving: Option<Serving>,
    /// The cause of the last failure to bind it, since it last served.
    waits_for: Option<Errno>,
    sessions: Drain,
    shared: Shared,
}

impl Running {
    /// A listener without a socket yet.
    pub(super) fn new(
        key: ListenerKey,
        plan: ListenerPlan,
        keeper: Option<(Arc<Admission>, Arc<SessionLog>)>,
        shared: Shared,
    ) -> Self {
        let meter = ListenerMeter::new(plan.mapping, key.protocol, key.addr.clone());
        let keeper = keeper.map(|(keeper, log)| {
            meter.log_to(&log);
            keeper
        });
        let spec = match (plan.service, keeper) {
            (Service::Tcp(spec), Some(keeper)) => {
                Spec::Tcp(watch::Sender::new(Arc::new(spec)), watch::Sender::new(keeper))
            }
            (Service::Udp(spec), Some(keeper)) => {
                Spec::Udp(watch::Sender::new(Arc::new(spec)), watch::Sender::new(keeper))
            }
            (Service::Trap, _) => Spec::Trap,
            (_, None) => unreachable!("every mapping of a plan has its doorkeeper"),
        };
        let drops = Arc::default();
        let sessions = Drain::new();
        Self { key, spec, meter, drops, serving: None, waits_for: None, sessions, shared }
    }

    /// Serves on `socket`: at first, after waiting, or after another listener had its place.
    pub(super) fn serve(&mut self, socket: Socket) {
        let (drain, number) = (Drain::new(), self.shared.next.fetch_add(1, Relaxed));
        let (closing, alarm) = (drain.watch(), self.shared.alarm.clone());
        let name = format!("listener {}", self.key);
        let (key, failed) = (self.key.clone(), self.shared.failed.clone());
        let report = move |outcome: io::Result<()>| {
            if let Err(error) = outcome {
                say_failed(&key, &error);
                let _ = failed.send(Failed { key, number });
            }
        };
        let socket: Listening = match (&self.spec, socket) {
            (Spec::Tcp(spec, keeper), Socket::Tcp(listener)) => {
                let (service, listener) = (self.tcp(spec, keeper), Arc::new(listener));
                let socket = Arc::downgrade(&listener);
                let serve = async move { report(service.serve(listener, closing).await) };
                drain.watch().spawn(async move { alarm.guard(name, serve).await });
                socket
            }
            (Spec::Udp(spec, keeper), Socket::Udp(socket)) => match self.udp(spec, keeper).register(socket) {
                Ok(listener) => {
                    let socket = listener.socket();
                    drain.watch().spawn(async move { alarm.guard(name, listener.run(closing)).await });
                    socket
                }
                Err(error) => {
                    report(Err(error));
                    Weak::<std::net::UdpSocket>::new()
                }
            },
            (Spec::Trap, Socket::Tcp(listener)) => {
                let service =
                    TrapService { gate: Arc::clone(&self.shared.gate), meter: Arc::clone(&self.meter) };
                let listener = Arc::new(listener);
                let socket = Arc::downgrade(&listener);
                let serve = async move { report(service.serve(listener, closing).await) };
                drain.watch().spawn(async move { alarm.guard(name, serve).await });
                socket
            }
            _ => unreachable!("the key of a listener names one protocol, for its socket and its service"),
        };
        self.serving = Some(Serving { drain, number, socket });
        self.waits_for = None;
        tracing::info!(
            mapping = %self.meter.mapping(),
            protocol = self.key.protocol.as_str(),
            listen.addr = %self.key.addr,
            targets = self.targets(),
            trap = matches!(self.spec, Spec::Trap).then_some(true),
            "listening"
        );
    }

    /// Where it leads, for its log line.
    fn targets(&self) -> Option<String> {
        match &self.spec {
            Spec::Tcp(spec, _) => few(spec.borrow().targets.iter()),
            Spec::Udp(spec, _) => few(spec.borrow().targets.iter()),
            Spec::Trap => None,
        }
    }

    fn tcp(&self, spec: &watch::Sender<Arc<TcpSpec>>, keeper: &Keeper) -> TcpService {
        TcpService {
            spec: spec.subscribe(),
            door: self.door(keeper),
            dialer: self.shared.dialer.clone(),
            meter: Arc::clone(&self.meter),
            budget: self.shared.budgets.sessions.clone(),
            silence: self.shared.budgets.silence.clone(),
            sessions: self.sessions.watch(),
        }
    }

    fn udp(&self, spec: &watch::Sender<Arc<UdpSpec>>, keeper: &Keeper) -> UdpService {
        UdpService {
            spec: spec.subscribe(),
            door: self.door(keeper),
            dialer: self.shared.dialer.clone(),
            meter: Arc::clone(&self.meter),
            budget: self.shared.budgets.flows.clone(),
            drops: Arc::clone(&self.drops),
            flows: self.sessions.watch(),
        }
    }

    fn door(&self, keeper: &Keeper) -> Door {
        Door { keeper: keeper.subscribe(), refused: Arc::clone(&self.shared.refused) }
    }

    /// Whether it has no socket.
    pub(super) fn is_waiting(&self) -> bool {
        self.serving.is_none()
    }

    /// Its socket, where it has one.
    pub(super) fn socket(&self) -> Option<Listening> {
        self.serving.as_ref().map(|serving| serving.socket.clone())
    }

    /// Notes that its socket is gone; it waits to be bound again.
    fn suspend(&mut self) {
        self.serving = None;
    }

    /// Notes that a socket died, if it still is the one that is served.
    pub(super) fn failed(&mut self, failed: &Failed) {
        if self.serving.as_ref().is_some_and(|serving| serving.number == failed.number) {
            self.suspend();
        }
    }

    /// Notes why it could not be bound; whether that is another cause than the last time.
    pub(super) fn waits_for(&mut self, cause: Option<Errno>) -> bool {
        std::mem::replace(&mut self.waits_for, cause) != cause
    }

    /// Takes a changed plan for the same socket: new sessions follow it, live ones go on.
    pub(super) fn retune(&self, plan: &ListenerPlan) {
        self.meter.rename(plan.mapping.clone());
        match (&self.spec, &plan.service) {
            (Spec::Tcp(wire, _), Service::Tcp(spec)) => drop(wire.send_replace(Arc::new(spec.clone()))),
            (Spec::Udp(wire, _), Service::Udp(spec)) => drop(wire.send_replace(Arc::new(spec.clone()))),
            (Spec::Trap, Service::Trap) => {}
            _ => unreachable!("a listener with another service opens anew"),
        }
    }

    /// Takes a doorkeeper: that of the mapping that it belongs to now. Whether it is another one.
    pub(super) fn keep_by(&self, admission: &Arc<Admission>) -> bool {
        self.keeper().is_some_and(|keeper| {
            keeper.send_if_modified(|present| {
                let other = !Arc::ptr_eq(present, admission);
                *present = Arc::clone(admission);
                other
            })
        })
    }

    /// Counts its session lines against the budget of the mapping that it belongs to now.
    pub(super) fn log_to(&self, log: &Arc<SessionLog>) {
        self.meter.log_to(log);
    }

    /// Cuts the sessions of clients who may no longer be there.
    pub(super) fn sweep(&self, now: Instant) {
        let Some(keeper) = self.keeper() else { return };
        let admission = Arc::clone(&keeper.borrow());
        for live in self.meter.live() {
            if admission.recheck(live.client.ip(), now).is_err() {
                live.cut(Ended::Policy);
            }
        }
    }

    fn keeper(&self) -> Option<&Keeper> {
        match &self.spec {
            Spec::Tcp(_, keeper) | Spec::Udp(_, keeper) => Some(keeper),
            Spec::Trap => None,
        }
    }

    /// Stops to take new sessions.
    pub(super) fn close(&self) {
        if let Some(serving) = &self.serving {
            serving.drain.close();
        }
        self.sessions.close();
    }

    /// Waits, after [`Running::close`], until its TCP socket is closed. The socket of a UDP listener stays for the flows
    /// that live on it.
    pub(super) async fn stopped_listening(&self) {
        if let Spec::Tcp(..) | Spec::Trap = &self.spec {
            self.socket_closed().await;
        }
    }

    /// Gives the socket up for good, because another has its place, and returns when it is closed. TCP sessions live on;
    /// the flows of a UDP listener live on its socket and are cut, also one that starts at this moment.
    pub(super) async fn release(&self) {
        self.close();
        if matches!(self.spec, Spec::Udp(..)) {
            self.cut(Ended::Reload);
        }
        self.socket_closed().await;
    }

    /// Waits for the task that holds the socket. It ends within a turn; the limit is for one that hangs, because the
    /// supervisor hears nothing else meanwhile.
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

    /// Adds the sessions or flows that there still are.
    pub(super) fn count_into(&self, left: &mut Left) {
        match self.spec {
            Spec::Tcp(..) | Spec::Trap => left.sessions += self.meter.live_count(),
            Spec::Udp(..) => {
                let flows = self.meter.live();
                left.flows.extend(flows.iter().map(|flow| (flow.id, flow.bytes_in() + flow.bytes_out())));
            }
        }
    }

    /// Ends every session, also one whose client is at the door at this moment. For a listener that closes: the first
    /// reason holds for all who come later.
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

    /// The mapping that it belongs to.
    pub(super) fn mapping(&self) -> MappingName {
        self.meter.mapping()
    }

    /// The socket that it needs.
    pub(super) fn key(&self) -> &ListenerKey {
        &self.key
    }
}

fn say_failed(key: &ListenerKey, error: &io::Error) {
    tracing::error!(
        protocol = key.protocol.as_str(),
        listen.addr = %key.addr,
        error = %error,
        "listener failed; binding it anew"
    );
}
