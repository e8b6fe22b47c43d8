//! What becomes of a datagram that a listener received: its flow gets it, or a new flow begins with
//! it, or it is dropped and counted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::{sync::mpsc, time::Instant};

use super::UdpListener;
use crate::{
    mapping::{Protocol, canonical_socket},
    meter::SessionMeter,
    policy::{Admission, Refusal},
    preface::proxy::Header,
    relay::udp::{
        UdpOptions, UdpSpec,
        batch::Run,
        drops::DropReason,
        failover::Trouble,
        flow::{Flow, More},
        flow_table::{Arrival, FlowId, FlowKey, Silent, Verdict},
        introduction::{Introduction, may_have_header, take_header},
        return_path,
        stopped::Ride,
    },
    wake::Place,
};

impl UdpListener {
    /// Forwards datagrams of a listed peer: its headers say who their clients are.
    pub(super) fn forward_of_peer(
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
    pub(super) fn forward(
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
