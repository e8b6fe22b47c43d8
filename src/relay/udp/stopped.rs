//! A flow that stands still, and what its task takes along.
//!
//! Only the data: `return_path` makes it, [`Flows`](super::Flows) collects it, and `frozen` packs
//! it and lets it go on.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::mpsc;

use super::{
    ListenerShared,
    failover::{FailoverJudge, Trouble},
    flow::{Flow, Target},
    flow_table::{FlowId, Shape},
};

/// What the task of a flow knows of it, and takes along when it stops.
#[derive(Debug, Default)]
pub(super) struct Ride {
    pub(super) judge: FailoverJudge,
    /// The kernel joins the replies.
    pub(super) is_joined: bool,
    /// Replies that wait for the listener's socket, in their order.
    pub(super) replies: Vec<Reply>,
    /// It looks for another address.
    pub(super) looking: Option<Trouble>,
}

/// Datagrams of a target, back to back, of which the first ones may have been sent.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    pub(super) segment: usize,
}

/// A flow that stands still.
#[derive(Debug)]
pub(super) struct StoppedFlow {
    pub(super) flow: Arc<Flow>,
    /// Where it leads: its socket outlives a message that refers to it.
    pub(super) target: Option<Arc<Target>>,
    pub(super) ride: Ride,
    pub(super) seat: Seat,
}

/// Its place in a table.
#[derive(Debug)]
pub(super) enum Seat {
    /// It has one.
    Here(Arc<ListenerShared>, FlowId, mpsc::Sender<()>),
    /// It comes from another process, and gets one when it is resumed.
    Later(IpAddr, Shape),
}

impl StoppedFlow {
    /// A flow with a place in the table of its listener, whose sign of life is `alive`.
    pub(super) fn here(
        flow: Arc<Flow>,
        ride: Ride,
        (listener, id, alive): (Arc<ListenerShared>, FlowId, mpsc::Sender<()>),
    ) -> Self {
        Self { target: flow.target(), flow, ride, seat: Seat::Here(listener, id, alive) }
    }

    /// A flow of another process, of this client.
    pub(super) fn taken_over(flow: Arc<Flow>, ride: Ride, client: IpAddr, shape: Shape) -> Self {
        Self { target: flow.target(), flow, ride, seat: Seat::Later(client, shape) }
    }
}
