//! The pump between two real sockets, under a paused clock: loopback delivers at once, so no time
//! passes but what a test lets pass.

mod lead;

use std::{
    io,
    num::NonZeroU64,
    os::fd::{AsFd, OwnedFd},
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

use super::{
    Route, SessionBudget, Sessions, SilentDrops, TcpOptions, TcpService, TcpSpec,
    pump::{Begin, ClientSide, Ending, Limits, Outcome, SETTLED, pump},
    session::{self, Origin},
};
use crate::{
    events::Events,
    fixture::keepalive_of,
    mapping::{Host, ListenAddr, MappingName, Protocol, TargetAddr, Timeout},
    meter::{Ended, Ledger, ListenerMeter, LiveSession},
    policy::{Admission, Caps, Gate, Limit, Policy},
    relay::{AdmissionHandle, DrainWatch},
    sock::stream::reset_on_close,
    targets::{Dialer, PoolHandle, Targets},
    wake::Wakers,
};

const SECOND: Duration = Duration::from_secs(1);

/// A session: the far ends of its two connections, and the pump between them.
struct Session {
    client: TcpStream,
    target: TcpStream,
    live: Arc<LiveSession>,
    pump: JoinSet<Ending>,
}

impl Session {
    async fn start(limits: Limits) -> Self {
        Self::throttled(limits, None).await
    }

    async fn throttled(limits: Limits, bandwidth: Option<NonZeroU64>) -> Self {
        Self::with(limits, bandwidth, Timeout::Never).await.0
    }

    /// The same with a keepalive, and a copy of the socket to the target.
    async fn with(limits: Limits, bandwidth: Option<NonZeroU64>, keepalive: Timeout) -> (Self, OwnedFd) {
        let listen = ListenAddr::every(80.try_into().unwrap());
        let meter =
            ListenerMeter::new(MappingName::new("t").unwrap(), Protocol::Tcp, listen, Ledger::default());
        let (client, inside_client) = pair().await;
        let (inside_target, target) = pair().await;
        let copy = inside_target.as_fd().try_clone_to_owned().unwrap();
        let session = meter.open(client.local_addr().unwrap());
        let live = Arc::clone(session.live());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let sessions = Sessions::new(SessionBudget::new(1, 64), DrainWatch::default());
            let slot = sessions.try_take().unwrap();
            let near = ClientSide { client: inside_client, meter: session, slot };
            let begin = Begin::New { limits, keepalive, bandwidth, first: None };
            let Outcome::Ended(ending) = pump(&near, &inside_target, begin).await else { unreachable!() };
            near.meter.end(ending.reason);
            ending
        });
        (Self { client, target, live, pump: tasks }, copy)
    }

    async fn ended(&mut self) -> Ended {
        self.pump.join_next().await.unwrap().unwrap().reason
    }

    fn moved(&self) -> (u64, u64) {
        (self.live.bytes_in(), self.live.bytes_out())
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

fn unlimited() -> Limits {
    Limits { idle: Timeout::Never, half_close: Timeout::After(300 * SECOND) }
}

async fn reset(stream: TcpStream) {
    reset_on_close(&stream);
    drop(stream);
}

async fn assert_reset(stream: &mut TcpStream) {
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn half_close_lets_the_reply_finish() {
    let mut session = Session::start(unlimited()).await;
    session.client.write_all(b"question").await.unwrap();
    session.client.shutdown().await.unwrap();
    let mut question = Vec::new();
    session.target.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");

    let answer: Vec<u8> = (0..1_u32 << 20).map(|i| (i % 251) as u8).collect();
    let mut got = Vec::new();
    let (sent, received) = tokio::join!(
        async {
            session.target.write_all(&answer).await?;
            session.target.shutdown().await
        },
        session.client.read_to_end(&mut got)
    );
    sent.and(received.map(drop)).unwrap();
    assert!(got == answer);
    assert_eq!(session.ended().await, Ended::ClientClosed);
    assert_eq!(session.moved(), (8, 1 << 20));
}

#[tokio::test(start_paused = true)]
async fn a_silent_survivor_of_a_half_close_is_reaped() {
    let mut session = Session::start(unlimited()).await;
    let start = Instant::now();
    session.client.shutdown().await.unwrap();
    assert_eq!(session.ended().await, Ended::HalfCloseTimeout);
    let waited = start.elapsed();
    assert!(waited >= 300 * SECOND && waited < 302 * SECOND, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn every_byte_renews_the_time_after_a_half_close() {
    let limits = Limits { half_close: Timeout::After(3 * SECOND), ..unlimited() };
    let mut session = Session::start(limits).await;
    session.target.shutdown().await.unwrap();
    for i in 0..60_u8 {
        session.client.write_all(&[i]).await.unwrap();
        assert_eq!(session.target.read_u8().await.unwrap(), i);
        sleep(SECOND).await;
    }
    drop(session.client);
    let mut rest = Vec::new();
    session.target.read_to_end(&mut rest).await.unwrap();
    assert_eq!(session.pump.join_next().await.unwrap().unwrap().reason, Ended::TargetClosed);
}

#[tokio::test(start_paused = true)]
async fn a_session_without_limits_stays_for_days() {
    let mut session = Session::start(unlimited()).await;
    sleep(86_400 * 3 * SECOND).await;
    session.client.write_all(b"x").await.unwrap();
    assert_eq!(session.target.read_u8().await.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn either_direction_renews_the_idle_time() {
    let mut session = Session::start(Limits { idle: Timeout::After(10 * SECOND), ..unlimited() }).await;
    for i in 0..20_u8 {
        let (from, to) = match i % 2 {
            0 => (&mut session.client, &mut session.target),
            _ => (&mut session.target, &mut session.client),
        };
        from.write_all(&[i]).await.unwrap();
        assert_eq!(to.read_u8().await.unwrap(), i);
        sleep(7 * SECOND).await;
    }
    let last = Instant::now();
    assert_eq!(session.ended().await, Ended::Idle);
    assert_eq!(last.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_reset_by_the_client_is_a_reset_at_the_target() {
    let mut session = Session::start(unlimited()).await;
    session.client.write_all(b"x").await.unwrap();
    session.target.read_u8().await.unwrap();
    reset(session.client).await;
    assert_reset(&mut session.target).await;
    assert_eq!(session.pump.join_next().await.unwrap().unwrap().reason, Ended::ClientError);
}

#[tokio::test(start_paused = true)]
async fn a_reset_by_the_target_is_a_reset_at_the_client() {
    let mut session = Session::start(unlimited()).await;
    session.target.write_all(b"x").await.unwrap();
    session.client.read_u8().await.unwrap();
    reset(session.target).await;
    assert_reset(&mut session.client).await;
    let ending = session.pump.join_next().await.unwrap().unwrap();
    assert_eq!(ending.reason, Ended::TargetError);
    assert_eq!(ending.error.unwrap().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_noticed_while_the_session_is_stalled() {
    let mut session = Session::start(unlimited()).await;
    // The target does not read: fill every buffer on the way.
    let chunk = vec![7; 1 << 16];
    while timeout(SECOND, session.client.write_all(&chunk)).await.is_ok() {}
    let start = Instant::now();
    reset(session.client).await;
    assert_eq!(session.pump.join_next().await.unwrap().unwrap().reason, Ended::ClientError);
    assert!(start.elapsed() <= 2 * SECOND, "{:?}", start.elapsed());
    // What was under way is gone with the reset, as it would be without a proxy.
    assert_reset(&mut session.target).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_noticed_after_a_half_close() {
    let mut session = Session::start(unlimited()).await;
    session.client.shutdown().await.unwrap();
    assert_eq!(session.target.read(&mut [0; 1]).await.unwrap(), 0);
    let start = Instant::now();
    reset(session.client).await;
    assert_eq!(session.pump.join_next().await.unwrap().unwrap().reason, Ended::ClientClosed);
    assert!(start.elapsed() <= 3 * SECOND);
    while session.target.write_all(b"more").await.is_ok() {
        tokio::task::yield_now().await;
    }
}

/// A web server that refuses an upload answers and closes while the client still sends: its reset
/// must not eat the answer.
#[tokio::test(start_paused = true)]
async fn an_answer_survives_a_target_that_closes_on_a_client_that_still_sends() {
    let mut session = Session::start(unlimited()).await;
    session.client.write_all(b"upload").await.unwrap();
    session.target.read_exact(&mut [0; 6]).await.unwrap();
    let answer = vec![b'a'; 50_000];
    session.target.write_all(&answer).await.unwrap();
    drop(session.target);
    for _ in 0..50 {
        session.client.write_all(&[b'u'; 4096]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut got = Vec::new();
    session.client.read_to_end(&mut got).await.unwrap();
    assert_eq!(got.len(), answer.len());
    drop(session.client);
    assert_eq!(session.pump.join_next().await.unwrap().unwrap().reason, Ended::TargetClosed);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_for_ever_to_a_target_that_has_gone_is_reset() {
    let mut session = Session::start(unlimited()).await;
    drop(session.target);
    let start = Instant::now();
    while session.client.write_all(b"more").await.is_ok() {
        assert!(start.elapsed() < 40 * SECOND);
        sleep(SECOND / 10).await;
    }
    assert_eq!(session.pump.join_next().await.unwrap().unwrap().reason, Ended::TargetClosed);
}

/// A client that says one line and closes, at a target that greets: the greeting's reset must not
/// eat the line.
#[tokio::test(start_paused = true)]
async fn the_last_bytes_of_a_client_survive_a_target_that_keeps_talking() {
    let mut session = Session::start(unlimited()).await;
    let words = vec![b'w'; 50_000];
    session.client.write_all(&words).await.unwrap();
    drop(session.client);
    let mut got = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let _ = session.target.write_all(b"220 welcome").await;
        match session.target.read(&mut piece).await.unwrap() {
            0 => break,
            n => got.extend_from_slice(&piece[..n]),
        }
    }
    assert_eq!(got.len(), words.len());
    drop(session.target);
    assert_eq!(session.pump.join_next().await.unwrap().unwrap().reason, Ended::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_the_session_with_its_reason() {
    let mut session = Session::start(unlimited()).await;
    session.live.cut(Ended::Reload);
    session.live.cut(Ended::Shutdown);
    assert_eq!(session.ended().await, Ended::Reload, "the first reason stands");
    assert_eq!(session.client.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_loses_nothing_when_the_other_side_closes_early() {
    let mut session = Session::start(unlimited()).await;
    let data: Vec<u8> = (0..8_u32 << 20).map(|i| (i % 253) as u8).collect();
    let expected = data.clone();
    let mut writers = JoinSet::new();
    let mut target = session.target;
    writers.spawn(async move {
        target.write_all(&data).await.unwrap();
        drop(target);
    });
    let mut got = Vec::new();
    let mut piece = vec![0; 50_000];
    loop {
        sleep(SECOND / 100).await;
        match session.client.read(&mut piece).await.unwrap() {
            0 => break,
            n => got.extend_from_slice(&piece[..n]),
        }
    }
    assert!(got == expected);
    drop(session.client);
    assert_eq!(session.pump.join_next().await.unwrap().unwrap().reason, Ended::TargetClosed);
    assert_eq!(session.live.bytes_out(), 8 << 20);
}

async fn slow(bandwidth: u64) -> Session {
    Session::throttled(unlimited(), NonZeroU64::new(bandwidth)).await
}

#[tokio::test(start_paused = true)]
async fn a_throttled_session_moves_its_bytes_at_the_rate_and_whole() {
    let mut session = slow(100_000).await;
    let data: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let expected = data.clone();
    let start = Instant::now();
    let mut target = session.target;
    let mut writers = JoinSet::new();
    writers.spawn(async move {
        target.write_all(&data).await.unwrap();
        drop(target);
    });
    let mut got = Vec::new();
    session.client.read_to_end(&mut got).await.unwrap();
    assert!(got == expected);
    let took = start.elapsed();
    assert!(took > 19 * SECOND / 2 && took < 21 * SECOND / 2, "{took:?} in place of ten seconds");
    drop(session.client);
    assert_eq!(session.pump.join_next().await.unwrap().unwrap().reason, Ended::TargetClosed);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_held_back_is_not_idle() {
    let limits = Limits { idle: Timeout::After(Duration::from_millis(30)), ..unlimited() };
    let mut session = Session::throttled(limits, NonZeroU64::new(1_000)).await;
    session.client.write_all(&[7; 3_000]).await.unwrap();
    let mut got = vec![0; 3_000];
    session.target.read_exact(&mut got).await.unwrap();
    assert_eq!(got, vec![7; 3_000]);
    assert_eq!(session.ended().await, Ended::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_session_is_cut_at_once() {
    let mut session = slow(1_000).await;
    session.client.write_all(&[7; 30_000]).await.unwrap();
    session.target.read_u8().await.unwrap();
    let start = Instant::now();
    session.live.cut(Ended::Policy);
    assert_eq!(session.ended().await, Ended::Policy);
    assert!(start.elapsed() < SECOND / 100);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_lasts_gives_its_target_the_keepalive_whether_it_speaks_or_not() {
    let limited = Limits { idle: Timeout::After(60 * SECOND), ..unlimited() };
    for (limits, speaks) in [(unlimited(), false), (unlimited(), true), (limited, false), (limited, true)] {
        let (mut session, inside) = Session::with(limits, None, Timeout::After(60 * SECOND)).await;
        let start = Instant::now();
        while start.elapsed() < SETTLED {
            assert_eq!(keepalive_of(&inside), None, "after {:?}", start.elapsed());
            if speaks {
                session.client.write_all(b"x").await.unwrap();
                assert_eq!(session.target.read_u8().await.unwrap(), b'x');
            }
            sleep(SECOND / 4).await;
        }
        sleep(SECOND / 4).await;
        let expected = Some((60 * SECOND, 15 * SECOND, 3));
        assert_eq!(keepalive_of(&inside), expected, "{limits:?}, speaks: {speaks}");
        drop((session.client.into_std(), session.target.into_std()));
    }
}

#[tokio::test]
async fn the_task_of_a_session_stays_small() {
    let (client, _far) = pair().await;
    let listen = ListenAddr::every(80.try_into().unwrap());
    let meter = ListenerMeter::new(MappingName::new("t").unwrap(), Protocol::Tcp, listen, Ledger::default());
    let from = client.local_addr().unwrap();
    let target = TargetAddr { host: Host::Ip(from.ip(), None), port: 80.try_into().unwrap() };
    let spec = TcpSpec { route: Route::Targets(Targets::one(target)), options: TcpOptions::default() };
    let permit = AdmissionHandle::open().admit(from.ip(), &meter).unwrap();
    let sessions = Sessions::new(SessionBudget::new(1, 0), DrainWatch::default());
    let slot = sessions.try_take().unwrap();
    let near = ClientSide { client, meter: meter.open(from), slot };
    let spec = Arc::new(spec);
    let feed = watch::Sender::new(spec).subscribe();
    let service = service_under(feed, &meter, Policy::default(), 1, DrainWatch::default());
    let task = session::run(near, permit, Origin::Way(Arc::new(service)), None);
    // With up to 400 bytes tokio's own part and this fit into one allocation of 512.
    assert!(size_of_val(&task) <= 400, "{} bytes", size_of_val(&task));
}

/// What a listener works with.
fn service_under(
    spec: watch::Receiver<Arc<TcpSpec>>,
    meter: &Arc<ListenerMeter>,
    policy: Policy,
    slots: usize,
    sessions: DrainWatch,
) -> TcpService {
    TcpService {
        spec,
        admission: AdmissionHandle::under(policy),
        dialer: Dialer::new(Events::default()),
        pool: PoolHandle::default(),
        wakers: Wakers::new(Events::default()),
        meter: Arc::clone(meter),
        silence: SilentDrops::new(1),
        log: Arc::default(),
        sessions: Sessions::new(SessionBudget::new(slots, 64), sessions),
    }
}

impl AdmissionHandle {
    /// One under this policy, which does not change.
    pub(in crate::relay) fn under(policy: Policy) -> Self {
        let admission = Admission::new(&Arc::new(policy), &Gate::new(std::time::SystemTime::now));
        Self { admission: watch::Sender::new(admission).subscribe(), refused: Arc::default() }
    }

    /// One that admits every client.
    pub(in crate::relay) fn open() -> Self {
        let caps = Caps { sessions: Limit::Unlimited, sessions_per_client: Limit::Unlimited };
        Self::under(Policy { caps, ..Policy::default() })
    }
}
