//! The records of what a UDP listener has, and what another process makes of them.
//!
//! A record is made by reference: the flow stays as it is. A flow that cannot be taken leaves
//! nothing behind, neither an account nor a permit.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Serialize};
use tokio::{net::UdpSocket, time::Instant};

use crate::{
    handover::{Held, Packer, SocketId, Span, Unpacker, Unusable},
    mapping::{Protocol, TargetAddr},
    meter::LiveRecord,
    relay::{
        throttle::{BucketRecord, ByteBucket},
        udp::{
            UdpService, UdpSpec,
            activity::{Activity, ActivityRecord},
            batch::JoinLimit,
            failover::{FailoverJudge, JudgeRecord, Trouble},
            flow::{Flow, More, Target},
            flow_table::{FlowKey, Shape},
            introduction::{Introduction, LONGEST},
            stopped::{Reply, Ride, StoppedFlow},
        },
    },
    sock::udp::{self as sockets, Peer},
    targets::Place,
    wake::{self, Awake, Waker},
};

/// The most datagrams of one flow that are taken over in either direction.
const MOST_HELD: usize = 1024;
/// The longest run of replies: what a socket gives at once.
const LONGEST_RUN: usize = 1 << 20;

/// A flow: one that is open (`traffic`), or one that is connecting and holds datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct FlowRecord {
    live: Option<LiveRecord>,
    /// Where the client's datagrams come from: another address than the client's behind a proxy.
    peer: Option<SocketAddr>,
    /// The address that they are sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<IpAddr>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_local_refused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetRecord>,
    /// Datagrams of the client that wait for the target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    early: Vec<Held>,
    /// How many of them were sent.
    sent: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic: Option<ActivityRecord>,
    /// Until it has been idle for too long; without it, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_left_us: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<[BucketRecord; 2]>,
    /// The header that targets get, and whether it is in each datagram.
    #[serde(skip_serializing_if = "Option::is_none")]
    introduction: Option<(Held, bool)>,
    /// The flow keeps its target awake.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_awake: bool,
    judge: JudgeRecord,
    /// The kernel joins the replies.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_joined: bool,
    /// Replies that wait for the listener's socket, each with the size of its datagrams.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replies: Vec<(Held, usize)>,
    /// The trouble for which it looks for another address.
    #[serde(skip_serializing_if = "Option::is_none")]
    looking: Option<u8>,
}

/// Where a flow leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TargetRecord {
    socket: SocketId,
    addr: SocketAddr,
    /// The target of the configuration that has this address.
    of: TargetAddr,
    /// The address stands for many machines.
    #[serde(default)]
    is_many: bool,
    #[serde(default)]
    is_introduced: bool,
}

impl FlowRecord {
    /// The record of a flow that is so far.
    pub(super) fn of<'a>(
        stopped: &'a StoppedFlow,
        shape: Shape,
        packer: &mut Packer<'a>,
        now: Instant,
    ) -> io::Result<Self> {
        let StoppedFlow { flow, target, ride, .. } = stopped;
        let (FlowKey { client, local }, then) = (flow.key(), now.into_std());
        let mut record = Self {
            live: Some(flow.live().record(now)),
            peer: Some(client),
            local,
            is_local_refused: flow.is_local_refused(),
            bandwidth: flow.bandwidth().map(|buckets| buckets.map(|bucket| bucket.record(now))),
            introduction: flow.introduction().map(|of| (packer.bytes(of.header()), of.is_in_each())),
            is_awake: flow.waker().is_some(),
            judge: ride.judge.record(then),
            is_joined: ride.is_joined,
            replies: ride.replies.iter().map(|reply| (packer.bytes(&reply.bytes), reply.segment)).collect(),
            looking: ride.looking.map(Trouble::code),
            ..Self::default()
        };
        match shape {
            Shape::Connecting { held, sent } => {
                record.early = held.iter().map(|datagram| packer.bytes(datagram)).collect();
                record.sent = sent;
            }
            Shape::Open { activity, deadline } => {
                record.traffic = Some(activity.record(then));
                record.idle_left_us = deadline.map(|at| Span::of(at.saturating_duration_since(then)));
            }
        }
        if let Some(target) = target {
            record.target = Some(TargetRecord {
                socket: packer.socket(target.socket.as_fd())?,
                addr: target.addr,
                of: target.of.clone(),
                is_many: target.peer == Peer::Many,
                is_introduced: target.is_introduced.load(Relaxed),
            });
        }
        Ok(record)
    }

    /// The number of its session.
    pub(super) fn id(&self) -> Option<u64> {
        self.live.as_ref().map(|live| live.id)
    }

    /// The target's socket.
    pub(super) fn socket(&self) -> Option<SocketId> {
        self.target.as_ref().map(|target| target.socket)
    }

    fn shape(&self, unpacker: &Unpacker, now: Instant) -> Result<Shape, Unusable> {
        if let Some(traffic) = &self.traffic {
            if self.target.is_none() {
                return Err(Unusable::Value("an open flow without a target"));
            }
            let activity = Activity::taken_over(traffic, now.into_std());
            return Ok(Shape::Open {
                activity,
                deadline: self.idle_left_us.map(|left| left.after(now).into_std()),
            });
        }
        if self.early.len() > MOST_HELD {
            return Err(Unusable::Value("a flow that holds too much"));
        }
        let datagram = |held: &Held| match unpacker.bytes(*held)? {
            long if long.len() > LONGEST => Err(Unusable::Value("a datagram that is too long")),
            datagram => Ok(datagram.to_vec()),
        };
        let held = self.early.iter().map(datagram).collect::<Result<_, _>>()?;
        Ok(Shape::Connecting { held, sent: self.sent })
    }

    fn ride(&self, is_joined: bool, unpacker: &Unpacker, now: Instant) -> Result<Ride, Unusable> {
        let reply = |(held, segment): &(Held, usize)| match unpacker.bytes(*held)? {
            long if long.len() > LONGEST_RUN || *segment > LONGEST => {
                Err(Unusable::Value("a reply that is too long"))
            }
            bytes => Ok(Reply { bytes: bytes.to_vec(), segment: *segment }),
        };
        if self.replies.len() > MOST_HELD {
            return Err(Unusable::Value("a flow that holds too much"));
        }
        Ok(Ride {
            judge: FailoverJudge::taken_over(&self.judge, now.into_std()),
            is_joined,
            replies: self.replies.iter().map(reply).collect::<Result<_, _>>()?,
            looking: self.looking.and_then(Trouble::from_code),
        })
    }
}

/// Unpacks the records of one listener.
pub(super) struct Unpacking<'a> {
    service: &'a UdpService,
    spec: Arc<UdpSpec>,
    /// The targets of the plan, by their text.
    targets: HashMap<String, TargetAddr>,
    /// Whether the kernel joins datagrams that are sent.
    joins: bool,
    now: Instant,
}

impl<'a> Unpacking<'a> {
    pub(super) fn new(service: &'a UdpService) -> Self {
        let spec = Arc::clone(&service.spec.borrow());
        let targets = spec.targets.iter().map(|target| (target.to_string(), target.clone())).collect();
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let joins = service.joins && sockets::offload(any).is_ok_and(|of| of.max_gso_segments() > 1);
        Self { service, spec, targets, joins, now: Instant::now() }
    }

    /// The flow that a record stands for.
    ///
    /// # Errors
    /// It cannot be used. Its socket is closed here.
    pub(super) fn take(&self, record: &FlowRecord, unpacker: &mut Unpacker) -> Result<StoppedFlow, Unusable> {
        let (service, now) = (self.service, self.now);
        let live = record.live.as_ref().ok_or(Unusable::Value("a flow without an account"))?;
        let client = record.peer.ok_or(Unusable::Value("a flow without a client"))?;
        // What can fail comes first: an account that was opened has to end.
        let target = record.target.as_ref().map(|target| self.target(target, unpacker)).transpose()?;
        let shape = record.shape(unpacker, now)?;
        let is_joined = record.is_joined || target.as_ref().is_some_and(|of| sockets::is_joined(&of.socket));
        let ride = record.ride(is_joined, unpacker, now)?;
        let introduction = record.introduction.map(|(held, in_each)| {
            let header = unpacker.bytes(held)?;
            Introduction::taken_over(header, in_each).ok_or(Unusable::Value("a header that is too long"))
        });
        let introduction = introduction.transpose()?;
        let place = live.place.as_deref().and_then(|text| self.place(text)).unwrap_or_default();
        let target = target.map(|target| Target { member: place.member().cloned(), ..target });
        let session = service.meter.take_over(live, place, now)?;
        let waker = self.waker(record);
        let client_ip = session.live().client.ip();
        let permit = service.admission.current().take_over(client_ip, Protocol::Udp);
        let flow = Flow::new(
            FlowKey { client, local: record.local },
            session,
            (service.budget.take_over(), permit),
            record.bandwidth.map(|buckets| buckets.map(|bucket| ByteBucket::taken_over(bucket, now))),
            self.joins,
            More { introduction, waker },
        );
        flow.takes_over(target, record.is_local_refused);
        Ok(StoppedFlow::taken_over(Arc::new(flow), ride, client_ip, shape))
    }

    fn target(&self, record: &TargetRecord, unpacker: &mut Unpacker) -> Result<Target, Unusable> {
        let socket = unpacker.socket(record.socket)?;
        if !sockets::is_of_datagrams(&socket) {
            return Err(Unusable::Value("a socket is not of UDP"));
        }
        let socket = std::net::UdpSocket::from(socket);
        socket.set_nonblocking(true).map_err(|_| Unusable::Socket)?;
        Ok(Target {
            socket: UdpSocket::from_std(socket).map_err(|_| Unusable::Socket)?,
            peer: if record.is_many { Peer::Many } else { Peer::One },
            addr: record.addr,
            of: record.of.clone(),
            member: None,
            joins: JoinLimit::new(self.joins),
            is_introduced: AtomicBool::new(record.is_introduced),
        })
    }

    /// The place at a target that the plan still has.
    fn place(&self, text: &str) -> Option<Place> {
        let target = self.targets.get(text)?;
        Some(self.service.pool.current().take_place(Protocol::Udp, target))
    }

    /// Counts a flow at what started its target, where the plan still starts it.
    fn waker(&self, record: &FlowRecord) -> Option<(Waker, Awake)> {
        let wake = self.spec.options.wake.as_ref().filter(|_| record.is_awake)?;
        let (mapping, target) = (&self.service.meter.mapping(), self.spec.targets.first());
        let waker = self.service.wakers.of(wake, wake::Place { mapping, host: None, target });
        let awake = waker.enter();
        if record.judge.has_answered {
            waker.reached();
        }
        Some((waker, awake))
    }
}
