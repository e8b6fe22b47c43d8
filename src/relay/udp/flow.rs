//! One flow: its way to the target, and its account.
//!
//! Shared by the table (through which the listener finds it) and the flow's own task. It is over
//! when the last of them lets go of it: that closes its socket, gives its permits back and settles
//! its account, all at once and once, with the reason that the task left. A datagram that the
//! listener is sending at that moment still goes out. A flow that ends in favour of another
//! ([`Flow::give_way`]) gives its permits back earlier.
//!
//! Its target can change ([`Flow::reached`]): see `failover` and `connecting`. The listener sends
//! to whatever it is at the moment, and tells the flow's task of troubles that it meets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU64,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwapOption;
use atomic_waker::AtomicWaker;
use quinn_udp::{Transmit, UdpSocketState};
use tokio::{net::UdpSocket, time::Instant};

use super::{
    batch::{JoinLimit, Pushed, Run, push},
    budget::FlowPermit,
    failover::Trouble,
    flow_table::FlowKey,
    introduction::Introduction,
    open_error::OpenError,
};
use crate::{
    mapping::TargetAddr,
    meter::{Ended, LiveSession, SessionMeter},
    policy::Permit,
    relay::throttle::ByteBucket,
    sock::{
        errno::{is_leftover, is_no_way},
        udp::{self as sockets, Peer},
    },
    targets::{Member, Place},
    wake::{Awake, Waker},
};

/// One flow.
#[derive(Debug)]
pub(super) struct Flow {
    key: FlowKey,
    /// There until the flow is dropped.
    session: Option<SessionMeter>,
    /// Another process has it: its line is written there.
    is_let_go: AtomicBool,
    /// Why it ended; boxed, as few flows end with an error.
    ended: OnceLock<(Ended, Option<Box<OpenError>>)>,
    /// Where it leads, once that is known. It changes when the flow is led to another address; a
    /// load takes no lock.
    target: ArcSwapOption<Target>,
    /// What the listener met on the way to the target, for the flow's task: 0, or the code of a
    /// [`Trouble`].
    trouble: AtomicU8,
    in_trouble: AtomicWaker,
    /// Whether the kernel may join its datagrams.
    pub(super) kernel_joins: bool,
    to_client: JoinLimit,
    /// The system will not send from the address that the client hit (it was a broadcast address,
    /// or is gone).
    local_refused: AtomicBool,
    /// The limit of each direction (to the target, to the client), where there is one.
    bandwidth: Bandwidth,
    /// What few flows need.
    more: Option<Box<More>>,
    /// Its share of the daemon's flows, and its place in the mapping. The last field: the socket is
    /// closed by then.
    places: Mutex<(Option<FlowPermit>, Option<Permit>)>,
}

/// The buckets of both directions (to the target, to the client), where there is a limit.
type Bandwidth = Option<Box<[Mutex<ByteBucket>; 2]>>;

/// What a flow needs for a key that few mappings have.
#[derive(Debug, Default)]
pub(super) struct More {
    /// What its targets get to know of its client.
    pub(super) introduction: Option<Introduction>,
    /// What starts its target, and that it is needed.
    pub(super) waker: Option<(Waker, Awake)>,
}

/// Where a flow leads: the socket, whose port the target sees, and the address.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) socket: UdpSocket,
    pub(super) peer: Peer,
    pub(super) addr: SocketAddr,
    /// The target of the configuration that has this address.
    pub(super) of: TargetAddr,
    /// That target in the pool; `None` where there is but one.
    pub(super) member: Option<Arc<Member>>,
    pub(super) joins: JoinLimit,
    /// The client was introduced to it.
    pub(super) is_introduced: AtomicBool,
}

impl Target {
    fn send(&self, contents: &[u8], segment_size: Option<usize>, offload: &UdpSocketState) -> io::Result<()> {
        match (segment_size, self.peer) {
            // The socket is connected: without an address the kernel spares the route lookup.
            (None, Peer::One) => sockets::send(&self.socket, contents),
            (None, Peer::Many) => sockets::send_to(&self.socket, contents, self.addr),
            (Some(_), _) => {
                let (destination, src_ip) = (self.addr, None);
                let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
                offload.try_send((&self.socket).into(), &transmit)
            }
        }
    }
}

impl Flow {
    /// A flow that leads nowhere yet.
    pub(super) fn new(
        key: FlowKey,
        session: SessionMeter,
        (permit, admitted): (FlowPermit, Permit),
        buckets: Option<[ByteBucket; 2]>,
        kernel_joins: bool,
        more: More,
    ) -> Self {
        Self {
            key,
            session: Some(session),
            is_let_go: AtomicBool::new(false),
            ended: OnceLock::new(),
            target: ArcSwapOption::empty(),
            trouble: AtomicU8::new(0),
            in_trouble: AtomicWaker::new(),
            kernel_joins,
            to_client: JoinLimit::new(kernel_joins),
            local_refused: AtomicBool::new(false),
            bandwidth: buckets.map(|buckets| Box::new(buckets.map(Mutex::new))),
            more: (more.introduction.is_some() || more.waker.is_some()).then(|| Box::new(more)),
            places: Mutex::new((Some(permit), Some(admitted))),
        }
    }

    /// Full buckets of a new flow, where there is a limit.
    pub(super) fn buckets(rate: Option<NonZeroU64>) -> Option<[ByteBucket; 2]> {
        rate.map(|rate| [ByteBucket::new(rate, Instant::now()); 2])
    }

    /// Where its client is, and what that hit.
    pub(super) fn key(&self) -> FlowKey {
        self.key
    }

    /// The limit of each direction as it is now.
    pub(super) fn bandwidth(&self) -> Option<[ByteBucket; 2]> {
        let now = |bucket: &Mutex<ByteBucket>| *bucket.lock().unwrap_or_else(PoisonError::into_inner);
        self.bandwidth.as_ref().map(|buckets| [now(&buckets[0]), now(&buckets[1])])
    }

    /// What its targets get to know of its client.
    pub(super) fn introduction(&self) -> Option<&Introduction> {
        self.more.as_ref()?.introduction.as_ref()
    }

    /// Whether the system will not send from the address that the client hit.
    pub(super) fn is_local_refused(&self) -> bool {
        self.local_refused.load(Relaxed)
    }

    /// Goes on as another process left it: it leads there, and knows that.
    pub(super) fn takes_over(&self, target: Option<Target>, is_local_refused: bool) {
        self.local_refused.store(is_local_refused, Relaxed);
        self.target.store(target.map(Arc::new));
    }

    /// Another process has it: nothing is written or counted when it ends here.
    pub(super) fn let_go(&self) {
        self.is_let_go.store(true, Relaxed);
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

    /// Leads the flow to `target` from now on. Datagrams that are being sent at that moment still
    /// go where it led before.
    pub(super) fn reached(&self, target: Target, place: Place) {
        self.session().reached(target.addr, place);
        self.target.store(Some(Arc::new(target)));
    }

    /// Where the flow leads, once that is known.
    pub(super) fn target(&self) -> Option<Arc<Target>> {
        self.target.load_full()
    }

    /// Tells the flow's task of a trouble on the way to the target.
    pub(super) fn tell(&self, trouble: Trouble) {
        self.trouble.fetch_max(trouble.code(), SeqCst);
        self.in_trouble.wake();
    }

    /// Ready with the trouble that the flow was told of. Only its task may poll this.
    pub(super) fn poll_trouble(&self, cx: &Context<'_>) -> Poll<Trouble> {
        self.in_trouble.register(cx.waker());
        match Trouble::from_code(self.trouble.swap(0, SeqCst)) {
            Some(trouble) => Poll::Ready(trouble),
            None => Poll::Pending,
        }
    }

    /// The flow's account.
    pub(super) fn session(&self) -> &SessionMeter {
        self.session.as_ref().expect("only drop takes it")
    }

    /// What others see of the flow, and end it by.
    pub(super) fn live(&self) -> &Arc<LiveSession> {
        self.session().live()
    }

    /// What starts its target.
    pub(super) fn waker(&self) -> Option<&Waker> {
        self.more.as_ref()?.waker.as_ref().map(|(waker, _)| waker)
    }

    /// Ends the flow in favour of one that starts, which may have its places at once.
    ///
    /// The flow's socket is open for a moment longer, until its task has its turn. The listener
    /// lets the tasks have theirs after a few batches, and there is a reserve of descriptors for so
    /// few.
    pub(super) fn give_way(&self) {
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = (None, None);
        self.live().cut(Ended::Idle);
    }

    /// Leaves the reason with which the account is settled, and the error that led to it.
    pub(super) fn end(&self, reason: Ended, error: Option<Box<OpenError>>) {
        let _ = self.ended.set((reason, error));
    }

    /// Sends datagrams of the client to the target, as far as its socket takes them.
    pub(super) fn send_to_target(&self, run: Run<'_>, offload: &UdpSocketState) -> Sent {
        let target = self.target.load();
        let Some(target) = &*target else { return Sent { refused: run.count() as u64, ..Sent::default() } };
        let mut sent = Sent::default();
        match self.more.as_ref().and_then(|more| more.introduction.as_ref()) {
            None => sent.add(&self.push_to(target, run, offload), 0),
            Some(introduction) => self.introduce(target, introduction, run, offload, &mut sent),
        }
        self.session().add_in(sent.bytes);
        self.session().add_datagrams_in(sent.datagrams);
        sent
    }

    /// Sends with the introduction before each datagram, or before the first that the target gets.
    fn introduce(
        &self,
        target: &Target,
        introduction: &Introduction,
        run: Run<'_>,
        offload: &UdpSocketState,
        sent: &mut Sent,
    ) {
        let mut left = Some(run);
        while let Some(run) = left.take() {
            if !introduction.is_in_each() && target.is_introduced.load(Relaxed) {
                sent.add(&self.push_to(target, run, offload), 0);
                return;
            }
            // The first datagrams are as long as any of a run.
            let now = if introduction.is_in_each() { run } else { Run::single(run.split_first().0) };
            let before = sent.datagrams;
            match introduction.before(now) {
                Some(introduced) => {
                    sent.add(&self.push_to(target, introduced.run(), offload), introduced.added);
                }
                None if now.count() > 1 => {
                    // A shorter one at the end may fit.
                    sent.too_long += now.count() as u64 - 1;
                    let last = now.datagrams().last().unwrap_or_default();
                    match introduction.before(Run::single(last)) {
                        Some(last) => sent.add(&self.push_to(target, last.run(), offload), last.added),
                        None => sent.too_long += 1,
                    }
                }
                None => sent.too_long += 1,
            }
            if sent.datagrams > before {
                target.is_introduced.store(true, Relaxed);
            }
            left = if introduction.is_in_each() { None } else { run.split_first().1 };
        }
    }

    fn push_to<'a>(&self, target: &Target, run: Run<'a>, offload: &UdpSocketState) -> Pushed<'a> {
        let mut lost_before = 0;
        let mut pushed = push(run, &target.joins, |contents, segment_size| {
            let outcome = match target.send(contents, segment_size, offload) {
                // The error may be that of an earlier datagram (an ICMP message to it has come back
                // since). The kernel tells it once, instead of sending, so it must not cost this
                // one.
                Err(error) if is_leftover(&error) => {
                    let again = target.send(contents, segment_size, offload);
                    if again.is_ok() {
                        lost_before += 1;
                        self.tell(Trouble::Refused);
                    }
                    again
                }
                outcome => outcome,
            };
            // A joined send fails for more reasons, and is tried again datagram by datagram.
            if let Err(error) = &outcome
                && segment_size.is_none()
                && is_no_way(error)
            {
                self.tell(Trouble::NoWay);
            }
            outcome
        });
        pushed.refused += lost_before;
        pushed
    }

    /// Sends datagrams of the target to the client through the listener's socket, from the address
    /// the client hit.
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
                    return sockets::send_to(socket, contents, destination);
                }
                let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
                offload.try_send(socket.into(), &transmit)
            };
            let Some(local) = local.filter(|_| !self.local_refused.load(Relaxed)) else {
                return send(None);
            };
            match send(Some(local)) {
                // Joined datagrams are tried again one by one, and then come here.
                Err(error) if is_no_way(&error) && segment_size.is_none() => {
                    send(None).inspect(|()| self.local_refused.store(true, Relaxed))
                }
                Err(error) if is_leftover(&error) => send(Some(local)),
                outcome => outcome,
            }
        });
        self.session().add_out(pushed.bytes);
        self.session().add_datagrams_out(pushed.datagrams);
        pushed
    }
}

/// What became of datagrams for the target.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Bytes of the client that went out, without what was put before them.
    bytes: u64,
    /// In so many datagrams.
    datagrams: u64,
    /// Datagrams that the system refused.
    pub(super) refused: u64,
    /// Datagrams that the socket has no room for.
    pub(super) busy: u64,
    /// Datagrams that are too long with what is put before them.
    pub(super) too_long: u64,
}

impl Sent {
    /// Adds what became of a run in which each datagram has `added` bytes that are not the
    /// client's.
    fn add(&mut self, pushed: &Pushed<'_>, added: usize) {
        self.bytes += pushed.bytes - pushed.datagrams * added as u64;
        self.datagrams += pushed.datagrams;
        self.refused += pushed.refused;
        self.busy += pushed.rest.map_or(0, |rest| rest.count() as u64);
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        // A reader of the session line finds the place free.
        self.places.get_mut().unwrap_or_else(PoisonError::into_inner).1 = None;
        if *self.is_let_go.get_mut() {
            if let Some(session) = self.session.take() {
                session.let_go();
            }
            return;
        }
        match self.session.take().zip(self.ended.take()) {
            Some((session, (reason, Some(error)))) => session.end_with(reason, &error),
            Some((session, (reason, None))) => session.end(reason),
            None => {}
        }
    }
}
