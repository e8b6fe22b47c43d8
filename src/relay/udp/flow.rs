//! One flow: its way to the target, and its account.
//!
//! Shared by the table (through which the listener finds it) and the flow's own task. It is over when the last of them
//! lets go of it: that closes its socket, gives its permits back and settles its account, all at once and once, with the
//! reason that the task left. A datagram that the listener is sending at that moment still goes out. A flow that ends in
//! favour of another ([`Flow::give_way`]) gives its permits back earlier.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU64,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use quinn_udp::{Transmit, UdpSocketState};
use rustix::{
    io::Errno,
    net::{SendFlags, send, sendto},
};
use tokio::{net::UdpSocket, time::Instant};

use super::{
    batch::{JoinLimit, Pushed, Run, push},
    budget::FlowPermit,
    flow_table::FlowKey,
};
use crate::{
    meter::{Ended, Live, SessionMeter},
    policy::Permit,
    relay::throttle::Bucket,
};

/// One flow.
#[derive(Debug)]
pub(super) struct Flow {
    key: FlowKey,
    /// There until the flow is dropped.
    session: Option<SessionMeter>,
    ended: OnceLock<Ended>,
    target: OnceLock<Target>,
    to_target: JoinLimit,
    to_client: JoinLimit,
    /// The system will not send from the address that the client hit (it was a broadcast address, or is gone).
    local_refused: AtomicBool,
    /// The limit of each direction (to the target, to the client), where there is one.
    bandwidth: Option<Box<[Mutex<Bucket>; 2]>>,
    /// Its share of the daemon's flows, and its place in the mapping. The last field: the socket is closed by then.
    places: Mutex<(Option<FlowPermit>, Option<Permit>)>,
}

#[derive(Debug)]
struct Target {
    socket: UdpSocket,
    addr: SocketAddr,
}

impl Flow {
    /// A flow that leads nowhere yet.
    pub(super) fn new(
        key: FlowKey,
        session: SessionMeter,
        (permit, admitted): (FlowPermit, Permit),
        bandwidth: Option<NonZeroU64>,
        kernel_joins: bool,
    ) -> Self {
        let bucket = |rate| Mutex::new(Bucket::new(rate, Instant::now()));
        Self {
            key,
            session: Some(session),
            ended: OnceLock::new(),
            target: OnceLock::new(),
            to_target: JoinLimit::new(kernel_joins),
            to_client: JoinLimit::new(kernel_joins),
            local_refused: AtomicBool::new(false),
            bandwidth: bandwidth.map(|rate| Box::new([bucket(rate), bucket(rate)])),
            places: Mutex::new((Some(permit), Some(admitted))),
        }
    }

    /// What of a run of the client's the bandwidth allows, and how many datagrams it does not.
    pub(super) fn police_in<'a>(&self, run: Run<'a>) -> (Option<Run<'a>>, u64) {
        self.police(run, 0)
    }

    /// The same for a run of the target's.
    pub(super) fn police_out<'a>(&self, run: Run<'a>) -> (Option<Run<'a>>, u64) {
        self.police(run, 1)
    }

    fn police<'a>(&self, run: Run<'a>, direction: usize) -> (Option<Run<'a>>, u64) {
        let Some(buckets) = &self.bandwidth else { return (Some(run), 0) };
        let mut bucket = buckets[direction].lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let passing = run.datagrams().take_while(|datagram| bucket.try_take(datagram.len(), now)).count();
        (run.first(passing), (run.count() - passing) as u64)
    }

    /// Leads the flow to `addr` from now on. It keeps its first socket, and with it its source port, for life.
    pub(super) fn reached(&self, socket: UdpSocket, addr: SocketAddr) {
        self.session().reached(addr);
        let _ = self.target.set(Target { socket, addr });
    }

    /// The socket to the target, once there is one.
    pub(super) fn socket(&self) -> Option<&UdpSocket> {
        self.target.get().map(|target| &target.socket)
    }

    /// The flow's account.
    pub(super) fn session(&self) -> &SessionMeter {
        self.session.as_ref().expect("only drop takes it")
    }

    /// What others see of the flow, and end it by.
    pub(super) fn live(&self) -> &Arc<Live> {
        self.session().live()
    }

    /// Ends the flow in favour of one that starts, which may have its places at once.
    ///
    /// The flow's socket is open for a moment longer, until its task has its turn. The listener lets the tasks have theirs
    /// after a few batches, and there is a reserve of descriptors for so few.
    pub(super) fn give_way(&self) {
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = (None, None);
        self.live().cut(Ended::Idle);
    }

    /// Leaves the reason with which the account is settled.
    pub(super) fn end(&self, reason: Ended) {
        let _ = self.ended.set(reason);
    }

    /// Sends datagrams of the client to the target, as far as its socket takes them.
    pub(super) fn send_to_target<'a>(&self, run: Run<'a>, offload: &UdpSocketState) -> Pushed<'a> {
        let Some(Target { socket, addr }) = self.target.get() else {
            return Pushed { refused: run.count() as u64, ..Pushed::default() };
        };
        let mut lost_before = 0;
        let mut pushed = push(run, &self.to_target, |contents, segment_size| {
            let send_now = || match segment_size {
                // The socket is connected: without an address the kernel spares the route lookup.
                None => Ok(send(socket, contents, SendFlags::empty()).map(drop)?),
                Some(_) => {
                    let (destination, src_ip) = (*addr, None);
                    let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
                    offload.try_send(socket.into(), &transmit)
                }
            };
            match send_now() {
                // The error may be that of an earlier datagram (an ICMP message to it has come back since). The kernel
                // tells it once, instead of sending, so it must not cost this one.
                Err(error) if is_leftover(&error) => send_now().inspect(|()| lost_before += 1),
                outcome => outcome,
            }
        });
        pushed.refused += lost_before;
        self.session().add_in(pushed.bytes);
        pushed
    }

    /// Sends datagrams of the target to the client through the listener's socket, from the address the client hit.
    pub(super) fn send_to_client<'a>(
        &self,
        run: Run<'a>,
        socket: &UdpSocket,
        offload: &UdpSocketState,
    ) -> Pushed<'a> {
        let FlowKey { client: destination, local } = self.key;
        let pushed = push(run, &self.to_client, |contents, segment_size| {
            let send = |src_ip: Option<IpAddr>| {
                if src_ip.is_none() && segment_size.is_none() {
                    return Ok(sendto(socket, contents, SendFlags::empty(), &destination).map(drop)?);
                }
                let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
                offload.try_send(socket.into(), &transmit)
            };
            let Some(local) = local.filter(|_| !self.local_refused.load(Relaxed)) else {
                return send(None);
            };
            match send(Some(local)) {
                Err(error)
                    if Errno::from_io_error(&error) == Some(Errno::INVAL) && segment_size.is_none() =>
                {
                    send(None).inspect(|()| self.local_refused.store(true, Relaxed))
                }
                Err(error) if is_leftover(&error) => send(Some(local)),
                outcome => outcome,
            }
        });
        self.session().add_out(pushed.bytes);
        pushed
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        // Whoever reads of the end finds the place free.
        self.places.get_mut().unwrap_or_else(PoisonError::into_inner).1 = None;
        if let Some((session, reason)) = self.session.take().zip(self.ended.get()) {
            session.end(*reason);
        }
    }
}

/// Whether an error of a send may stem from a datagram before it. The others are about this one: it is too long, there
/// is no room, it cannot be sent this way.
fn is_leftover(error: &io::Error) -> bool {
    !matches!(
        Errno::from_io_error(error),
        Some(
            Errno::AGAIN
                | Errno::MSGSIZE
                | Errno::INVAL
                | Errno::IO
                | Errno::NOBUFS
                | Errno::NOMEM
                | Errno::PERM
        )
    )
}
