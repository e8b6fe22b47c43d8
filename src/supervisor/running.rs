//! One listener that runs, waits, or is on its way out.

use std::{io, sync::Arc};

use tokio::sync::{mpsc, watch};

use super::{
    Budgets,
    bind::{Socket, Staged},
};
use crate::{
    config::{ListenerKey, ListenerPlan, Service},
    meter::{Ended, ListenerMeter},
    relay::{
        Drain,
        tcp::{TcpService, TcpSpec},
        udp::{UdpDrops, UdpService, UdpSpec},
    },
    target::Resolver,
};

/// What every listener shares.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) resolver: Resolver,
    pub(super) budgets: Budgets,
    /// Where a listener whose socket died says so.
    pub(super) failed: mpsc::UnboundedSender<ListenerKey>,
}

/// The end of the wire through which a listener learns of a change.
#[derive(Debug)]
enum Spec {
    Tcp(watch::Sender<Arc<TcpSpec>>),
    Udp(watch::Sender<Arc<UdpSpec>>),
    Trap,
}

/// A listener of the plan.
#[derive(Debug)]
pub(super) struct Running {
    key: ListenerKey,
    spec: Spec,
    meter: Arc<ListenerMeter>,
    /// Datagrams that were not forwarded; none for TCP.
    drops: Arc<UdpDrops>,
    /// The task that holds the socket; `None` while the address is not there.
    serving: Option<Drain>,
    sessions: Drain,
    shared: Shared,
}

impl Running {
    /// A listener with what staging came to.
    pub(super) fn new(key: ListenerKey, plan: ListenerPlan, staged: Staged, shared: Shared) -> Self {
        let meter = ListenerMeter::new(plan.mapping, key.protocol, key.addr.clone());
        let spec = match plan.service {
            Service::Tcp(spec) => Spec::Tcp(watch::Sender::new(Arc::new(spec))),
            Service::Udp(spec) => Spec::Udp(watch::Sender::new(Arc::new(spec))),
            Service::Trap => Spec::Trap,
        };
        let drops = Arc::default();
        let mut running = Self { key, spec, meter, drops, serving: None, sessions: Drain::new(), shared };
        match staged {
            Staged::Bound(socket) => running.serve(socket),
            Staged::Absent(error) => running.say_waiting(&error),
        }
        running
    }

    /// Serves on `socket`: at first, after waiting, or after another listener had its place.
    pub(super) fn serve(&mut self, socket: Socket) {
        let serving = Drain::new();
        let (closing, sessions) = (serving.watch(), self.sessions.watch());
        let (meter, resolver) = (Arc::clone(&self.meter), self.shared.resolver.clone());
        let (key, failed) = (self.key.clone(), self.shared.failed.clone());
        match (&self.spec, socket) {
            (Spec::Tcp(spec), Socket::Tcp(listener)) => {
                let budget = self.shared.budgets.sessions.clone();
                let service = TcpService { spec: spec.subscribe(), resolver, meter, budget, sessions };
                serving.watch().spawn(async move {
                    if let Err(error) = service.serve(listener, closing).await {
                        say_failed(&key, &error);
                        let _ = failed.send(key);
                    }
                });
            }
            (Spec::Udp(spec), Socket::Udp(socket)) => {
                let budget = self.shared.budgets.flows.clone();
                let drops = Arc::clone(&self.drops);
                let service =
                    UdpService { spec: spec.subscribe(), resolver, meter, budget, drops, flows: sessions };
                serving.watch().spawn(async move {
                    match service.register(socket) {
                        Ok(listener) => listener.run(closing).await,
                        Err(error) => {
                            say_failed(&key, &error);
                            let _ = failed.send(key);
                        }
                    }
                });
            }
            (Spec::Trap, Socket::Tcp(_listener)) => {}
            _ => unreachable!("the key of a listener names one protocol, for its socket and its service"),
        }
        self.serving = Some(serving);
        tracing::info!(
            mapping = %self.meter.mapping(),
            protocol = self.key.protocol.as_str(),
            listen.addr = %self.key.addr,
            "listening"
        );
    }

    /// Whether its address is not there yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.serving.is_none()
    }

    /// Notes that its socket is gone; it waits to be bound again.
    pub(super) fn suspend(&mut self) {
        self.serving = None;
    }

    fn say_waiting(&self, error: &io::Error) {
        tracing::warn!(
            mapping = %self.meter.mapping(),
            protocol = self.key.protocol.as_str(),
            listen.addr = %self.key.addr,
            error = %error,
            "listener waiting"
        );
    }

    /// Takes a changed plan for the same socket: new sessions follow it, live ones go on.
    pub(super) fn retune(&self, plan: &ListenerPlan) {
        self.meter.rename(plan.mapping.clone());
        match (&self.spec, &plan.service) {
            (Spec::Tcp(wire), Service::Tcp(spec)) => drop(wire.send_replace(Arc::new(spec.clone()))),
            (Spec::Udp(wire), Service::Udp(spec)) => drop(wire.send_replace(Arc::new(spec.clone()))),
            _ => unreachable!("the key of a listener names one protocol"),
        }
    }

    /// Stops to take new sessions.
    pub(super) fn close(&self) {
        if let Some(serving) = &self.serving {
            serving.close();
        }
        self.sessions.close();
    }

    /// Waits, after [`Running::close`], until nobody listens any more. The socket of a UDP listener stays for the flows
    /// that live on it.
    pub(super) async fn stopped_listening(&self) {
        if let (Spec::Tcp(_), Some(serving)) = (&self.spec, &self.serving) {
            serving.finished().await;
        }
    }

    /// Gives the socket up, so that another can take its place, and returns when it is closed. TCP sessions live on;
    /// the flows of a UDP listener live on its socket and are cut.
    pub(super) async fn release(&self) {
        let Some(serving) = &self.serving else { return };
        serving.close();
        if matches!(self.spec, Spec::Udp(_)) {
            self.cut(Ended::Reload);
        }
        serving.finished().await;
    }

    /// Ends every session.
    pub(super) fn cut(&self, reason: Ended) {
        self.meter.cut_all(reason);
    }

    /// Waits, after [`Running::close`], for the last session.
    pub(super) async fn finished(&self) {
        if let Some(serving) = &self.serving {
            serving.finished().await;
        }
        self.sessions.finished().await;
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
