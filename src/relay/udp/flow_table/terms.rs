//! What goes into the table and comes out of it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{
    policy::Refusal,
    relay::udp::{activity::Activity, drops::DropReason},
};

/// What makes two datagrams belong to one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::relay::udp) struct FlowKey {
    /// Where the client's datagrams come from, as the socket reports it.
    pub(in crate::relay::udp) client: SocketAddr,
    /// The address the client sent them to, which replies leave from. `None` when the system has to
    /// choose.
    pub(in crate::relay::udp) local: Option<IpAddr>,
}

/// What has come from a client.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay::udp) struct Arrival<'a> {
    /// Whose it is.
    pub(in crate::relay::udp) key: FlowKey,
    /// The client that a new flow counts for: another one than that of the key behind a proxy.
    pub(in crate::relay::udp) client: IpAddr,
    /// The first datagram.
    pub(in crate::relay::udp) payload: &'a [u8],
    /// How many datagrams there are, with the first. An open flow takes them all at once; else each
    /// is decided on by itself.
    pub(in crate::relay::udp) count: usize,
    /// When.
    pub(in crate::relay::udp) now: Instant,
}

/// One flow. Never reused: an event that comes too late names no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay::udp) struct FlowId {
    pub(super) slot: usize,
    pub(super) serial: u64,
}

impl FlowId {
    /// The order in which flows began.
    pub(in crate::relay::udp) fn serial(self) -> u64 {
        self.serial
    }
}

/// How far a flow is: what goes with it to another table.
#[derive(Clone, Debug)]
pub(in crate::relay::udp) enum Shape {
    /// Its target is not connected yet: the datagrams that are held, and how many were sent.
    Connecting { held: Vec<Vec<u8>>, sent: u32 },
    /// It is open. Without a deadline it never expires.
    Open { activity: Activity, deadline: Option<Instant> },
}

/// What becomes of a client's datagram.
#[derive(Debug)]
pub(in crate::relay::udp) enum Verdict<'a, T> {
    /// Its flow is open: forward it. The target may be silent: several datagrams had no answer.
    Known(&'a T, Silent),
    /// It started a flow, which holds it: open the flow.
    New(FlowId, &'a T),
    /// Its flow is connecting and holds it.
    Held,
    /// It is not forwarded.
    Dropped(DropReason),
    /// Its client may not enter, or not send so many.
    Refused(Refusal),
}

/// Whether a flow's target does not answer; told at most once in a few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay::udp) struct Silent(pub(in crate::relay::udp) bool);

/// What a connecting flow has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::relay::udp) enum Early {
    /// Send these, in this order, and ask again.
    Send(Vec<Vec<u8>>),
    /// Nothing is left: the flow is open from now on.
    Open,
    /// The flow does not exist any more.
    Gone,
}
