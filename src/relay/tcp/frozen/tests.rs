//! Freeze, hand-over and resume, through real sockets. A "process" here is all that a listener
//! works with, so that two of them share nothing but what the message carries.

mod malformed;
mod measure;
mod random;
mod states;
mod steps;

use std::{
    net::SocketAddr,
    num::NonZeroU16,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::{
    events::Events,
    fixture::LogCatcher,
    handover::Packer,
    mapping::{Host, ListenAddr, MappingName, Protocol, TargetAddr},
    meter::{Ended, Ledger, MappingTotals, SessionLines, SessionLog},
    policy::{Admission, Caps, Gate, Limit, Policy},
    relay::{
        AdmissionHandle, Drain,
        tcp::{Route, SessionBudget, SilentDrops, TcpOptions, TcpSpec},
    },
    targets::{Dialer, Pool, PoolHandle, Selection, Targets},
    wake::Wakers,
};

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(1);

/// All that a listener works with.
struct Process {
    spec: watch::Sender<Arc<TcpSpec>>,
    admission: Arc<Admission>,
    pool: Arc<Pool>,
    wakers: Wakers,
    ledger: Ledger,
    meter: Arc<ListenerMeter>,
    totals: Arc<MappingTotals>,
    budget: SessionBudget,
    silence: SilentDrops,
    sessions: Arc<Sessions>,
    drain: Drain,
    closing: Drain,
    listener: std::net::TcpListener,
    serving: JoinSet<io::Result<()>>,
}

/// What one process tells another.
struct Message {
    json: String,
    bytes: Vec<u8>,
    sockets: Vec<OwnedFd>,
}

impl Process {
    /// One that does not serve yet, with room for so many sessions.
    fn new(spec: &TcpSpec, policy: Policy, slots: usize, listener: std::net::TcpListener) -> Self {
        let listen = ListenAddr::every(NonZeroU16::MIN);
        let name = MappingName::new("t").unwrap();
        let ledger = Ledger::default();
        let meter = ListenerMeter::new(name, Protocol::Tcp, listen, ledger.clone());
        let totals = Arc::<MappingTotals>::default();
        meter.join(&SessionLog::new(SessionLines::All, Arc::default()), &totals);
        let (drain, budget) = (Drain::new(), SessionBudget::new(slots, 64));
        let pool = Arc::new(Pool::new(&Selection::default()));
        Self {
            spec: watch::Sender::new(Arc::new(spec.clone())),
            admission: Admission::new(&Arc::new(policy), &Gate::new(std::time::SystemTime::now)),
            pool,
            wakers: Wakers::new(Events::default()),
            ledger,
            meter,
            totals,
            sessions: Sessions::new(budget.clone(), drain.watch()),
            budget,
            silence: SilentDrops::new(4),
            drain,
            closing: Drain::new(),
            listener,
            serving: JoinSet::new(),
        }
    }

    /// The first one, which serves.
    fn first(spec: &TcpSpec) -> Self {
        Self::of(spec, open_policy(), 4096)
    }

    fn of(spec: &TcpSpec, policy: Policy, slots: usize) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut process = Self::new(spec, policy, slots, listener);
        process.serve();
        process
    }

    /// The next one, with the same listening socket. It does not serve yet.
    fn next(&self, slots: usize) -> Self {
        let spec = Arc::clone(&self.spec.borrow());
        Self::new(&spec, open_policy(), slots, self.listener.try_clone().unwrap())
    }

    fn serve(&mut self) {
        let listener = Arc::new(self.listener.try_clone().unwrap());
        self.serving.spawn(self.service().serve(listener, self.closing.watch()));
    }

    fn service(&self) -> TcpService {
        TcpService {
            spec: self.spec.subscribe(),
            admission: AdmissionHandle {
                admission: watch::Sender::new(Arc::clone(&self.admission)).subscribe(),
                refused: Arc::default(),
            },
            dialer: Dialer::new(Events::default()),
            pool: PoolHandle::new(&self.pool),
            wakers: self.wakers.clone(),
            meter: Arc::clone(&self.meter),
            silence: self.silence.clone(),
            log: Arc::default(),
            sessions: Arc::clone(&self.sessions),
        }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    async fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.addr()).await.unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    async fn freeze(&self) -> FrozenTcp {
        FrozenTcp::freeze(&self.sessions, &self.meter).await
    }

    /// What is packed of what stands still; the totals and the last number go along.
    fn pack(&self, frozen: &FrozenTcp) -> Message {
        let mut packer = Packer::default();
        let records = frozen.pack(0..frozen.count(), &mut packer).unwrap();
        let totals = self.totals.record(Protocol::Tcp);
        let json = serde_json::to_string(&(records, totals, self.ledger.last_id())).unwrap();
        let (sockets, bytes) = packer.into_parts();
        let copy = |socket: &BorrowedFd<'_>| socket.try_clone_to_owned().unwrap();
        Message { json, bytes, sockets: sockets.values().map(copy).collect() }
    }

    /// Takes what another process hands over.
    fn take_over(&self, message: Message) -> (FrozenTcp, Vec<SocketId>) {
        let (records, totals, last_id): (Vec<SessionRecord>, _, _) =
            serde_json::from_str(&message.json).unwrap();
        self.totals.take_over(Protocol::Tcp, &totals);
        self.ledger.raise_last_id(last_id);
        let mut unpacker = Unpacker::new(message.bytes);
        message.sockets.into_iter().for_each(|socket| unpacker.add(socket));
        let mut frozen = FrozenTcp::held(&self.sessions);
        let not_taken = frozen.take_over(&records, &mut unpacker, &Arc::new(self.service()));
        assert!(!not_taken.is_empty() || unpacker.left() == 0, "{} sockets are left", unpacker.left());
        (frozen, not_taken)
    }

    /// Hands all over to another process, or stands still and goes on.
    async fn through(self, way: Way) -> Self {
        let frozen = self.freeze().await;
        assert_eq!(frozen.left(), 0);
        match way {
            Way::Back => {
                let _unused = self.pack(&frozen);
                frozen.resume();
                self
            }
            Way::Over => {
                let mut next = self.next(4096);
                let before = self.totals.read(Protocol::Tcp);
                let (taken, not_taken) = next.take_over(self.pack(&frozen));
                assert_eq!(not_taken, [], "all are taken");
                assert_eq!(next.totals.read(Protocol::Tcp), before, "the sums are the same");
                frozen.let_go(&HashSet::new());
                let left = self.totals.read(Protocol::Tcp);
                assert_eq!((left.live, left.moved), (0, before.moved), "nothing of this is lost here");
                self.assert_empty();
                next.serve();
                taken.resume();
                next
            }
        }
    }

    /// Waits until so many sessions ended for this reason, here or in a process before.
    async fn until_ended(&self, reason: Ended, times: u64) {
        let ended = || {
            let all = self.totals.read(Protocol::Tcp).ended;
            all.iter().find(|(ended, _)| *ended == reason).map_or(0, |(_, count)| *count)
        };
        let wait = async {
            while ended() < times {
                sleep(MOMENT).await;
            }
        };
        timeout(600 * SECOND, wait).await.unwrap_or_else(|_| panic!("not ended as {reason:?}"));
        assert_eq!(ended(), times);
    }

    async fn until_live(&self, sessions: usize) {
        while self.meter.live_count() < sessions {
            sleep(MOMENT).await;
        }
    }

    /// Nothing of a session is left.
    fn assert_empty(&self) {
        assert_eq!(self.meter.live_count(), 0);
        assert_eq!((self.budget.used(), self.admission.inside()), (0, 0));
    }

    async fn until_empty(&self) {
        let wait = async {
            while self.budget.used() > 0 {
                sleep(MOMENT).await;
            }
        };
        timeout(600 * SECOND, wait).await.expect("all sessions end");
        self.assert_empty();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It goes on in the same process.
    Back,
    /// Another process takes it over.
    Over,
}

const WAYS: [Way; 2] = [Way::Back, Way::Over];

fn open_policy() -> Policy {
    let caps = Caps { sessions: Limit::Unlimited, sessions_per_client: Limit::Unlimited };
    Policy { caps, ..Policy::default() }
}

async fn target() -> (TcpListener, Targets) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, Targets::one(addr_of(addr)))
}

fn addr_of(addr: SocketAddr) -> TargetAddr {
    TargetAddr { host: Host::Ip(addr.ip(), None), port: addr.port().try_into().unwrap() }
}

fn spec(targets: Targets, options: TcpOptions) -> TcpSpec {
    TcpSpec { route: Route::Targets(targets), options }
}

/// The bytes of a stream from one on; no two streams are alike.
fn content(stream: u64, from: u64, length: usize) -> Vec<u8> {
    let byte = |at: u64| {
        let mixed = (at ^ stream.wrapping_mul(0x9E37_79B9)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed >> 56) as u8
    };
    (from..from + length as u64).map(byte).collect()
}

/// Writes a stream up to `length`, and ends it.
async fn write_all(to: &mut (impl AsyncWriteExt + Unpin), stream: u64, length: u64) {
    let mut sent = 0;
    while sent < length {
        let piece = content(stream, sent, usize::try_from((length - sent).min(60_000)).unwrap());
        to.write_all(&piece).await.unwrap();
        sent += piece.len() as u64;
    }
    to.shutdown().await.unwrap();
}

/// Reads a stream to its end, and checks each byte. Returns its length.
async fn read_all(from: &mut (impl AsyncReadExt + Unpin), stream: u64) -> u64 {
    let (mut got, mut piece) = (0, vec![0; 60_000]);
    loop {
        match from.read(&mut piece).await.unwrap() {
            0 => return got,
            n => {
                assert!(piece[..n] == content(stream, got, n), "stream {stream} differs after {got}");
                got += n as u64;
            }
        }
    }
}

/// A session that is joined: the far ends of both its connections.
async fn joined(process: &Process, target: &TcpListener) -> (TcpStream, TcpStream) {
    let client = process.client().await;
    let (reached, _) = target.accept().await.unwrap();
    until_joined(process, 1).await;
    (client, reached)
}

/// Waits until there are so many sessions, and each knows of its target: a moment after that does.
async fn until_joined(process: &Process, sessions: usize) {
    let is_joined = |live: &Arc<LiveSession>| live.target_text().is_some();
    while process.meter.live_count() < sessions || !process.meter.live().iter().all(is_joined) {
        sleep(MOMENT).await;
    }
}

/// Writes a stream, of which so much was sent, until nothing more is taken for a while. Returns how
/// much was taken in all.
async fn fill(to: &mut TcpStream, stream: u64, mut sent: u64) -> u64 {
    loop {
        let piece = content(stream, sent, 60_000);
        match timeout(SECOND / 5, to.write(&piece)).await {
            Ok(n) => sent += n.unwrap() as u64,
            Err(_) => return sent,
        }
    }
}
