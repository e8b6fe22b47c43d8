//! One TCP session: find its way, dial, greet, pump, settle. It ends with exactly one session line,
//! whatever happens. One that is asked to stands still, and hands itself in (`frozen`): then the
//! line comes later.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{io::Interest, net::TcpStream, time::Instant};

use super::{
    Route, TcpOptions, TcpSpec, greet,
    preface::Lead,
    pump::{Begin, ClientSide, Ending, Limits, Outcome, Still, pump},
    route::{self, Way},
    service::TcpService,
    sessions::Standing,
    stand_in,
};
use crate::{
    mapping::{Protocol, TargetAddr},
    meter::{Asked, Ended, SessionMeter},
    policy::Permit,
    preface::minecraft::Greeting,
    sock::{stream::reset_on_close, transparent::Source},
    targets::{
        Leg, Place, Targets,
        dial::{DialError, DialOptions, dial},
    },
    wake::{self, Waker},
};

/// The least time that a dial gets which began before the session stood still.
const LEAST_DIAL: Duration = Duration::from_millis(100);

/// Where the task of a session begins.
#[derive(Debug)]
pub(super) enum Origin {
    /// With the way to a target.
    Way(Arc<TcpService>),
    /// With a target, where it stood still.
    Still(Box<(TcpStream, Still)>),
}

/// Carries one admitted connection to its target and back until it ends; then its place in the
/// mapping and its room in the budget are free again. `lead` is what came before it, where a peer
/// has spoken for it; what the session keeps besides is in it, too.
///
/// Not an `async fn`: that would keep every argument twice, and a task is as large as its future.
#[expect(clippy::manual_async_fn, reason = "its arguments would be kept twice")]
pub(super) fn run(
    near: ClientSide,
    permit: Permit,
    origin: Origin,
    mut lead: Option<Box<Lead>>,
) -> impl Future<Output = ()> + Send {
    async move {
        let (target, begin) = match origin {
            Origin::Still(still) => {
                let (target, still) = *still;
                (target, Begin::Still(Box::new(still)))
            }
            Origin::Way(service) => {
                let spec = Arc::clone(&service.spec.borrow());
                // Boxed: the way to the target is short and needs much, the session is long and
                // needs little.
                match Box::pin(reach(&near, &spec, &service, &mut lead)).await {
                    Reached::Target(target) => (target, begin(&spec.options, &mut lead)),
                    Reached::Nothing(ending) => return settle(near, permit, ending),
                    Reached::Stopped => return hand_in(near, permit, Origin::Way(service), lead),
                }
                // The session may last for days: what only the start needs is let go.
            }
        };
        match pump(&near, &target, begin).await {
            Outcome::Ended(ending) => {
                drop(target);
                settle(near, permit, ending);
            }
            Outcome::Stopped(still) => {
                hand_in(near, permit, Origin::Still(Box::new((target, *still))), lead);
            }
        }
    }
}

/// What the pump of a new session begins with.
fn begin(options: &TcpOptions, lead: &mut Option<Box<Lead>>) -> Begin {
    Begin::New {
        limits: Limits { idle: options.idle_timeout, half_close: options.half_close_timeout },
        keepalive: options.keepalive,
        bandwidth: options.bandwidth,
        first: lead.as_mut().and_then(|lead| lead.first.take()),
    }
}

/// A session that stands still: what its task begins with.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) near: ClientSide,
    pub(super) permit: Permit,
    pub(super) origin: Origin,
    pub(super) lead: Option<Box<Lead>>,
}

impl Standing for Stopped {
    fn resume(self: Box<Self>) {
        let Self { near, permit, origin, lead } = *self;
        near.meter.live().thaw();
        let sessions = Arc::clone(near.slot.sessions());
        sessions.spawn(run(near, permit, origin, lead));
    }
}

fn hand_in(near: ClientSide, permit: Permit, origin: Origin, lead: Option<Box<Lead>>) {
    let sessions = Arc::clone(near.slot.sessions());
    sessions.hand_in(Box::new(Stopped { near, permit, origin, lead }));
}

/// Releases the permit, closes the client and writes the session line, in this order. A client that
/// sees the end may come back at once, and both sides see the end before the log does.
fn settle(near: ClientSide, permit: Permit, ending: Ending) {
    let ClientSide { client, meter, slot: _slot } = near;
    drop(permit);
    drop(client);
    match ending.error {
        Some(error) => meter.end_with(ending.reason, &error),
        None => meter.end(ending.reason),
    }
}

/// What came of the search for a target.
enum Reached {
    Target(TcpStream),
    /// How the session ended without any.
    Nothing(Ending),
    /// It was asked to stop. What the client has said is kept.
    Stopped,
}

/// Searches the target of the session, until it is asked for something else.
async fn reach(
    near: &ClientSide,
    spec: &TcpSpec,
    service: &TcpService,
    lead: &mut Option<Box<Lead>>,
) -> Reached {
    let mut own = lead.take().map_or_else(Lead::default, |lead| *lead);
    let reached = {
        let mut search = pin!(search(near, spec, service, &mut own));
        loop {
            tokio::select! {
                // First, so that a dial that has just succeeded is not made again.
                biased;
                reached = &mut search => break reached.map_or_else(Reached::Nothing, Reached::Target),
                asked = near.meter.live().wait_asked() => match asked {
                    Asked::End(reason) => break Reached::Nothing(reason.into()),
                    Asked::Freeze => break Reached::Stopped,
                    Asked::Show => near.slot.sessions().show(None),
                },
            }
        }
    };
    if own.first.is_some() || own.awake.is_some() || matches!(reached, Reached::Stopped) {
        *lead = Some(Box::new(own));
    }
    reached
}

async fn search(
    near: &ClientSide,
    spec: &TcpSpec,
    service: &TcpService,
    lead: &mut Lead,
) -> Result<TcpStream, Ending> {
    let mut way = match &spec.route {
        Route::Targets(targets) => Way::of_mapping(targets, &spec.options),
        Route::Names(names) => route::find(near, names, &spec.options, service, &mut lead.said).await?,
    };
    let is_ping = way.player.as_ref().is_some_and(Greeting::is_ping);
    let waker = way.wake.map(|wake| {
        let (mapping, target) = (&near.meter.mapping(), way.targets.first());
        service.wakers.of(wake, wake::Place { mapping, host: way.host, target })
    });
    lead.awake = waker.as_ref().filter(|_| !is_ping).map(Waker::enter);
    let dialled = match &waker {
        // A player gets an answer at once, and comes again.
        Some(waker) if way.player.is_none() => {
            let came = *lead.waking.get_or_insert_with(Instant::now);
            wake(near, spec, &way, service, (waker, came)).await
        }
        _ => dial_any(near, spec, way.targets, service, &mut lead.dialled).await,
    };
    // The waker knows of its own dials. A player was dialled for without it.
    if let (Some(waker), Some(_), Ok(_), false) = (&waker, &way.player, &dialled, is_ping) {
        waker.reached();
    }
    match dialled {
        Ok(target) => match greet::first(near, &way, lead) {
            Ok(first) => {
                lead.first = first;
                Ok(target)
            }
            Err(error) => {
                reset_on_close(&target);
                Err(Ending { reason: Ended::ClientError, error: Some(error) })
            }
        },
        Err(ending) => {
            if let (Some(player), Ended::Unreachable) = (way.player.take(), ending.reason) {
                let state = waker.map(|waker| if is_ping { waker.state() } else { waker.start_soon() });
                stand_in::in_place_of_target(near, player, spec, state, &mut lead.said).await;
            }
            Err(ending)
        }
    }
}

/// A connection to a target that may have to be started first.
async fn wake(
    near: &ClientSide,
    spec: &TcpSpec,
    way: &Way<'_>,
    service: &TcpService,
    (waker, came): (&Waker, Instant),
) -> Result<TcpStream, Ending> {
    let ClientSide { client, meter, .. } = near;
    let woken = tokio::select! {
        woken = waker.reach(came, || try_any(spec, way.targets, meter, service)) => woken,
        _ = client.ready(Interest::ERROR) => {
            meter.missed(way.targets.first());
            return Err(Ended::ClientError.into());
        }
    };
    woken
        .map(|(stream, addr, place)| {
            meter.reached(addr, place);
            stream
        })
        .map_err(|unreached| {
            meter.missed(way.targets.first());
            Ending { reason: Ended::Unreachable, error: Some(io::Error::other(unreached.to_string())) }
        })
}

/// Tries each target once. A failure says nothing here: the target may be starting.
async fn try_any(
    spec: &TcpSpec,
    all: &Targets,
    meter: &SessionMeter,
    service: &TcpService,
) -> Result<(TcpStream, SocketAddr, Place), DialError> {
    let dialer = &service.dialer;
    let mut missed = DialError::AllPaused;
    for (target, place) in service.pool.current().order(Protocol::Tcp, all, meter.live().client.ip()) {
        match dial(dialer, target, options(spec, meter)).await {
            Ok((stream, addr)) => {
                place.worked(dialer, || leg(meter, target));
                return Ok((stream, addr, place));
            }
            Err(error) => missed = error,
        }
    }
    Err(missed)
}

fn leg(meter: &SessionMeter, target: &TargetAddr) -> Leg {
    Leg { mapping: meter.mapping(), protocol: Protocol::Tcp, target: target.clone() }
}

fn options(spec: &TcpSpec, meter: &SessionMeter) -> DialOptions {
    let options = &spec.options;
    DialOptions {
        connect_timeout: options.connect_timeout,
        keepalive: options.keepalive,
        source: Source::new(options.source, options.transparent.then_some(meter.live().client)),
    }
}

/// An open connection to the first target that takes one, or how the session ended without any. The
/// pool says in which order they are tried. A client that is gone meanwhile (it was reset; one that
/// has only finished still wants its answer) needs none, and takes up no place.
async fn dial_any(
    near: &ClientSide,
    spec: &TcpSpec,
    all: &Targets,
    service: &TcpService,
    dialled: &mut Option<Instant>,
) -> Result<TcpStream, Ending> {
    let ClientSide { client, meter, .. } = near;
    let dialer = &service.dialer;
    let mut missed = (all.first(), DialError::AllPaused);
    for (target, place) in service.pool.current().order(Protocol::Tcp, all, meter.live().client.ip()) {
        let options = what_is_left(options(spec, meter), dialled);
        tokio::select! {
            // First: a near target answers at once, and the client need not be watched then.
            biased;
            reached = dial(dialer, target, options) => match reached {
                Ok((stream, addr)) => {
                    place.worked(dialer, || leg(meter, target));
                    meter.reached(addr, place);
                    return Ok(stream);
                }
                Err(error) => {
                    place.failed(dialer, &leg(meter, target), error.sign(), &error);
                    missed = (target, error);
                    *dialled = None;
                }
            },
            _ = client.ready(Interest::ERROR) => {
                meter.missed(target);
                return Err(Ended::ClientError.into());
            }
        }
    }
    let (last, error) = missed;
    meter.missed(last);
    Err(Ending { reason: Ended::Unreachable, error: Some(io::Error::other(error)) })
}

/// The options of a dial that began at `dialled`, or begins now: of its time, what is left.
fn what_is_left(options: DialOptions, dialled: &mut Option<Instant>) -> DialOptions {
    let all = options.connect_timeout;
    let left = match *dialled {
        Some(began) => all.saturating_sub(began.elapsed()).max(LEAST_DIAL.min(all)),
        None => all,
    };
    dialled.get_or_insert_with(Instant::now);
    DialOptions { connect_timeout: left, ..options }
}
