//! All that a UDP listener has, standing still: packed for another process, and then resumed here
//! or let go. It is what [`FrozenTcp`](crate::relay::tcp::FrozenTcp) is for TCP.
//!
//! A frozen flow keeps its live objects, and its place in the table of the listener. It is open
//! (its target's socket goes along), or it is connecting: then the datagrams that it holds go
//! along, and its way begins again. Replies that wait for the listener's socket go along, too.
//!
//! Meanwhile the kernel queues what arrives. The listener's socket has room for 4 MiB and a flow's
//! for 1 MiB where the system lets it (`net.core.rmem_max`; else that, 208 KiB as a rule; with
//! `CAP_NET_ADMIN` the listener's has its 4 MiB in any case). A small datagram takes some 768 bytes
//! of it. A datagram that finds its queue full is lost, as at any other time.
//!
//! A flow whose target is joined by the kernel (GRO) has to be read with the sizes of the parts, so
//! that goes along. What may be joined for a send is found out again.
//!
//! A flow cannot stay with the process that had the listener's socket: its client's datagrams come
//! to the other one. So a flow that is not taken ends here.
//!
//! Not handed over: for how long no flow is tried after one could not be opened (a second at most).
//!
//! Invariants: no datagram moves while this exists. It ends with [`FrozenUdp::resume`] or
//! [`FrozenUdp::let_go`]; a drop resumes.

mod record;

use std::{collections::HashSet, io, net::IpAddr, os::fd::AsFd as _, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Connecting, Flows, ListenerShared, UdpService,
    drops::DropsRecord,
    flow::Flow,
    flow_table::{FlowId, Shape},
    return_path,
    stopped::{Seat, StoppedFlow},
};
use crate::{
    handover::{Packer, SocketId, Unpacker, lenient},
    meter::{Ended, ListenerMeter},
};
use record::{FlowRecord, Unpacking};

/// How long flows have to stop. They need a moment, unless the machine is overloaded: then a long
/// pause is better than flows that are lost.
const LIMIT: Duration = Duration::from_secs(2);

impl StoppedFlow {
    /// Goes on where it stopped.
    pub(super) fn resume(self, flows: &Flows) {
        let Self { flow, target, ride, seat } = self;
        let (listener, id, alive) = match seat {
            Seat::Here(listener, id, alive) => (listener, id, alive),
            Seat::Later(client, shape) => match sit_down(&flow, client, shape, flows) {
                Some(place) => place,
                None => return flow.end(Ended::Reload, None),
            },
        };
        flow.live().thaw();
        let connecting = if target.is_some() { Connecting::is_done() } else { listener.connect(&flow) };
        let tasks = listener.tasks.clone();
        tasks.spawn(return_path::run((listener, alive), flow, id, connecting, ride));
    }

    /// Gives up the place here: another process has the flow, or does not take it.
    fn leave(self, is_taken: bool) {
        match is_taken {
            true => self.flow.let_go(),
            false => self.flow.end(Ended::Reload, None),
        }
        if let Seat::Here(listener, id, _) = &self.seat {
            drop(listener.table().remove(*id));
        }
    }

    /// How far it is; `None` where it has ended.
    fn shape(&self) -> Option<Shape> {
        match &self.seat {
            Seat::Here(listener, id, _) => listener.table().shape(*id),
            Seat::Later(_, shape) => Some(shape.clone()),
        }
    }

    /// Its place in the order in which flows began.
    fn began(&self) -> u64 {
        match &self.seat {
            Seat::Here(_, id, _) => id.serial(),
            Seat::Later(..) => 0,
        }
    }

    fn socket(&self) -> Option<SocketId> {
        SocketId::of(self.target.as_ref()?.socket.as_fd()).ok()
    }
}

/// Gives a flow of another process its place; `None` where no socket serves it, or the client has a
/// flow already.
fn sit_down(
    flow: &Arc<Flow>,
    client: IpAddr,
    shape: Shape,
    flows: &Flows,
) -> Option<(Arc<ListenerShared>, FlowId, mpsc::Sender<()>)> {
    let listener = flows.listener()?;
    let alive = listener.alive.upgrade()?;
    let entered = listener.with_table(|table, _| table.enter(flow.key(), client, Arc::clone(flow), shape));
    let id = entered.ok()?;
    Some((listener, id, alive))
}

/// What a UDP listener hands over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UdpRecord {
    /// Its flows, the oldest first.
    #[serde(deserialize_with = "lenient::each")]
    flows: Vec<FlowRecord>,
    /// Its counts of datagrams that were not forwarded.
    #[serde(deserialize_with = "lenient::some")]
    drops: Option<DropsRecord>,
}

impl UdpRecord {
    /// The sockets by which its flows are known.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = SocketId> {
        self.flows.iter().filter_map(FlowRecord::socket)
    }
}

/// All that a UDP listener has, standing still.
#[derive(Debug)]
#[must_use = "it goes on when this is dropped"]
pub(crate) struct FrozenUdp {
    all: Arc<Flows>,
    stopped: Vec<StoppedFlow>,
    /// How many flows did not stop.
    left: usize,
    /// Whether the listener goes on when this is dropped.
    releases: bool,
}

/// A freeze under way. Where it is broken off, all goes on.
struct Freezing<'a> {
    all: &'a Arc<Flows>,
    meter: &'a ListenerMeter,
    is_over: bool,
}

impl Freezing<'_> {
    fn end(&mut self) -> FrozenUdp {
        self.is_over = true;
        let (mut stopped, left) = self.all.close_tray();
        self.meter.thaw();
        // The oldest first: which flow makes way for another depends on it.
        stopped.sort_by_key(StoppedFlow::began);
        FrozenUdp { all: Arc::clone(self.all), stopped, left, releases: true }
    }
}

impl Drop for Freezing<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end().resume();
        }
    }
}

impl FrozenUdp {
    /// Stops a listener and its flows. Ready when all have answered, or after [`LIMIT`]. May be
    /// dropped before: then all goes on.
    pub(crate) async fn freeze(all: &Arc<Flows>, meter: &ListenerMeter) -> Self {
        let mut freezing = Freezing { all, meter, is_over: false };
        all.hold.hold();
        let stopped = async {
            // From then on no flow begins, and none is sent anything.
            all.hold.stopped().await;
            all.await_flows();
            meter.freeze();
            all.complete().await;
        };
        let _ = timeout(LIMIT, stopped).await;
        freezing.end()
    }

    /// A listener that stands still and has nothing yet, in a process that takes over.
    pub(crate) fn held(all: &Arc<Flows>) -> Self {
        all.hold.hold();
        Self { all: Arc::clone(all), stopped: Vec::new(), left: 0, releases: true }
    }

    /// How many flows stand still.
    pub(crate) fn count(&self) -> usize {
        self.stopped.len()
    }

    /// How many flows did not stop. They go on here, and end here.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// The record of all. What it refers to stays open here.
    ///
    /// # Errors
    /// What the system says of a socket.
    pub(crate) fn pack<'a>(&'a self, packer: &mut Packer<'a>) -> io::Result<UdpRecord> {
        let now = Instant::now();
        let mut record = UdpRecord::default();
        for stopped in &self.stopped {
            if let Some(shape) = stopped.shape() {
                record.flows.push(FlowRecord::of(stopped, shape, packer, now)?);
            }
        }
        record.drops = self.all.listener().map(|listener| listener.drops.snapshot());
        Ok(record)
    }

    /// Adds what another process hands over. Returns the flows that it cannot take, by their
    /// targets' sockets.
    pub(crate) fn take_over(
        &mut self,
        record: &UdpRecord,
        unpacker: &mut Unpacker,
        service: &UdpService,
    ) -> Vec<SocketId> {
        if let Some(drops) = &record.drops {
            service.drops.take_over(drops);
        }
        let (unpacking, mut not_taken) = (Unpacking::new(service), Vec::new());
        for record in &record.flows {
            match unpacking.take(record, unpacker) {
                Ok(flow) => self.stopped.push(flow),
                Err(error) => {
                    tracing::debug!(%error, session.id = record.id(), "flow not taken over");
                    not_taken.extend(record.socket());
                }
            }
        }
        not_taken
    }

    /// Goes on where it stopped.
    pub(crate) fn resume(self) {
        drop(self);
    }

    /// Lets all go that another process has, and ends what it did not take. The listener receives
    /// no more.
    pub(crate) fn let_go(mut self, not_taken: &HashSet<SocketId>) {
        for stopped in self.stopped.drain(..) {
            let is_taken =
                not_taken.is_empty() || stopped.socket().is_none_or(|socket| !not_taken.contains(&socket));
            stopped.leave(is_taken);
        }
        self.releases = false;
        self.all.let_go();
    }
}

impl Drop for FrozenUdp {
    fn drop(&mut self) {
        self.stopped.drain(..).for_each(|stopped| stopped.resume(&self.all));
        if self.releases {
            self.all.hold.release();
        }
    }
}

#[cfg(test)]
mod tests;
