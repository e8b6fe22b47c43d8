//! The way of a flow to a target: the first one, and the ones after it.
//!
//! The candidates are the addresses of all targets, in the order of the pool. Addresses that failed
//! lately come last, whatever target they belong to. A connect of UDP sends nothing, so it fails
//! only where this machine has no way. What a target says comes later, as a trouble of the flow
//! (see `failover`).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use super::{
    ListenerShared, UdpSpec,
    batch::JoinLimit,
    failover::Trouble,
    flow::{Flow, Target},
    open_error::OpenError,
};
use crate::{
    mapping::{Protocol, TargetAddr},
    sock::{errno::is_own_shortage, transparent::Source, udp as sockets},
    targets::{Dialer, Leg, Place, Pool, Sign},
};

/// How long the lookup of a target's name may take before the next target is tried.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);

/// What came of it. Boxed: few fail.
type Outcome = Result<(), Box<OpenError>>;

/// The way to a target, which may take a lookup.
pub(super) enum Connecting {
    /// Under way. Boxed: most of a flow's life comes after this, and its task is as large as its
    /// largest state.
    Pending(Pin<Box<dyn Future<Output = Outcome> + Send>>),
    /// Done, well or badly.
    Done(Outcome),
}

impl Connecting {
    /// Begins to connect `flow` to the first candidate of `spec` that lets itself be connected to.
    pub(super) fn begin(flow: Arc<Flow>, spec: Arc<UdpSpec>, (dialer, pool): (Dialer, Arc<Pool>)) -> Self {
        Self::Pending(Box::pin(async move {
            if let Some(waker) = flow.waker() {
                waker.start().await.map_err(|error| {
                    flow.session().missed(spec.targets.first());
                    Box::new(OpenError::from(error))
                })?;
            }
            let reached = connect(&flow, &spec, (&dialer, &pool), None).await;
            reached.map(|(target, place)| flow.reached(target, place)).map_err(Box::new)
        }))
    }

    /// A flow that is connected already.
    pub(super) const fn is_done() -> Self {
        Self::Done(Ok(()))
    }

    /// Goes as far as it can without waiting, and says whether the flow is connected by then.
    pub(super) fn is_done_at_once(&mut self) -> bool {
        if let Self::Pending(connecting) = self {
            // The caller that waits for the rest leaves a waker of its own.
            let outcome = connecting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(outcome) = outcome {
                *self = Self::Done(outcome);
            }
        }
        matches!(self, Self::Done(Ok(())))
    }

    /// Ready with what came of it, once. Not an `async fn`: a task would keep this twice.
    pub(super) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = match self {
            Self::Pending(connecting) => ready!(connecting.as_mut().poll(cx)),
            Self::Done(outcome) => std::mem::replace(outcome, Ok(())),
        };
        *self = Self::is_done();
        Poll::Ready(outcome)
    }
}

/// A socket to the first candidate that lets itself be connected to, other than `but`.
async fn connect(
    flow: &Flow,
    spec: &UdpSpec,
    (dialer, pool): (&Dialer, &Pool),
    but: Option<SocketAddr>,
) -> Result<(Target, Place), OpenError> {
    let mut failed: Vec<(&TargetAddr, OpenError)> = Vec::new();
    let mut dead: Vec<(&TargetAddr, SocketAddr)> = Vec::new();
    let mut places: Vec<(&TargetAddr, Place)> = Vec::new();
    for (target, place) in pool.order(Protocol::Udp, &spec.targets, flow.live().client.ip()) {
        let addrs = match dialer.candidates(Protocol::Udp, target, LOOKUP_LIMIT).await {
            Ok(addrs) => addrs,
            Err(error) => {
                failed.push((target, error.into()));
                continue;
            }
        };
        for addr in addrs.into_iter().filter(|addr| Some(*addr) != but) {
            if dialer.is_dead(Protocol::Udp, addr) {
                dead.push((target, addr));
                continue;
            }
            match try_one(flow, spec, dialer, &place, target, addr) {
                Ok(reached) => {
                    report_failures(flow, dialer, &places, &failed);
                    return Ok((reached, place));
                }
                Err(error) => failed.push((target, error)),
            }
        }
        places.push((target, place));
    }
    let mut order: Vec<SocketAddr> = dead.iter().map(|(_, addr)| *addr).collect();
    dialer.order(Protocol::Udp, &mut order);
    for addr in order {
        let Some((target, _)) = dead.iter().find(|(_, dead)| *dead == addr) else { continue };
        let Some(at) = places.iter().position(|(of, _)| of == target) else { continue };
        match try_one(flow, spec, dialer, &places[at].1, target, addr) {
            Ok(reached) => return Ok((reached, places.swap_remove(at).1)),
            Err(error) => failed.push((target, error)),
        }
    }
    if places.is_empty() {
        flow.session().missed(spec.targets.first());
        return Err(OpenError::AllPaused);
    }
    report_failures(flow, dialer, &places, &failed);
    let (last, error) = failed.pop().unwrap_or((spec.targets.first(), OpenError::NoOther));
    flow.session().missed(last);
    Err(error)
}

fn try_one(
    flow: &Flow,
    spec: &UdpSpec,
    dialer: &Dialer,
    place: &Place,
    of: &TargetAddr,
    addr: SocketAddr,
) -> Result<Target, OpenError> {
    let client = spec.options.transparent.then_some(flow.live().client);
    let from = Source::new(spec.options.source, client);
    match sockets::connect(addr, from) {
        Ok((socket, peer)) => {
            let joins = JoinLimit::new(flow.kernel_joins);
            let is_introduced = AtomicBool::new(false);
            let member = place.member().cloned();
            Ok(Target { socket, peer, addr, of: of.clone(), member, joins, is_introduced })
        }
        Err(source) if is_own_shortage(&source) => Err(OpenError::NoSocket { addr, source }),
        Err(source) => {
            // Where `source` is not there, nothing was tried.
            if !from.is_to_blame(&source) {
                dialer.failed(Protocol::Udp, addr, &source);
            }
            Err(OpenError::Connect { addr, source })
        }
    }
}

/// Reports targets of which no address could be used: those with a place that was not taken.
fn report_failures(
    flow: &Flow,
    dialer: &Dialer,
    places: &[(&TargetAddr, Place)],
    failed: &[(&TargetAddr, OpenError)],
) {
    for (target, error) in failed {
        if let Some((_, place)) = places.iter().find(|(of, _)| of == target) {
            place.failed(dialer, &leg(flow, target), error.sign(), error);
        }
    }
}

/// Moves a flow in trouble to another address, if there is a better one. True if it moved.
///
/// The targets are those of the present configuration, so a reload can help a flow whose target is
/// gone.
pub(super) async fn fail_over(
    listener: &ListenerShared,
    flow: &Flow,
    from: &Target,
    trouble: Trouble,
) -> bool {
    let spec = Arc::clone(&listener.spec.borrow());
    if let Some(waker) = flow.waker().filter(|_| trouble == Trouble::Refused) {
        // The next client starts it, or this one if it comes again.
        waker.lost();
    }
    let but = match trouble {
        // A new socket to the same address has a new own address.
        Trouble::NoWay => None,
        Trouble::Silent if !sockets::has_own_address(&from.socket) => None,
        Trouble::Silent if !has_moved(listener, from).await => return false,
        Trouble::Silent => Some(from.addr),
        Trouble::Refused => {
            let error = io::Error::from(io::ErrorKind::ConnectionRefused);
            listener.dialer.failed(Protocol::Udp, from.addr, &error);
            report_refusal(listener, flow, from, &error).await;
            Some(from.addr)
        }
    };
    let pool = listener.pool.current();
    match connect(flow, &spec, (&listener.dialer, &pool), but).await {
        Ok((target, place)) => {
            tracing::debug!(
                mapping = %listener.meter.mapping(),
                client.addr = %flow.live().client,
                target.addr = %target.addr,
                target.before = %from.addr,
                trouble = ?trouble,
                "flow moved to another target address"
            );
            flow.reached(target, place);
            true
        }
        Err(_) => false,
    }
}

/// Whether the flow's name has other addresses now.
async fn has_moved(listener: &ListenerShared, from: &Target) -> bool {
    let addrs = listener.dialer.candidates(Protocol::Udp, &from.of, LOOKUP_LIMIT).await;
    addrs.is_ok_and(|addrs| !addrs.contains(&from.addr))
}

/// Reports the target of a refused address where all of its addresses are dead.
async fn report_refusal(listener: &ListenerShared, flow: &Flow, from: &Target, error: &io::Error) {
    let Ok(addrs) = listener.dialer.candidates(Protocol::Udp, &from.of, LOOKUP_LIMIT).await else { return };
    if addrs.iter().all(|addr| listener.dialer.is_dead(Protocol::Udp, *addr)) {
        if let Some(member) = &from.member {
            member.failed(Sign::of(error));
        }
        listener.dialer.target_failed(&leg(flow, &from.of), Sign::of(error), error);
    }
}

/// Reports that the flow had an answer.
pub(super) fn report_answer(listener: &ListenerShared, flow: &Flow, from: &Target) {
    if let Some(waker) = flow.waker() {
        waker.reached();
    }
    listener.dialer.worked(Protocol::Udp, from.addr);
    if from.member.as_ref().is_none_or(|member| member.worked()) {
        listener.dialer.target_worked(|| leg(flow, &from.of));
    }
}

fn leg(flow: &Flow, target: &TargetAddr) -> Leg {
    Leg { mapping: flow.session().mapping(), protocol: Protocol::Udp, target: target.clone() }
}
