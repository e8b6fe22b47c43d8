//! One TCP session: dial, pump, settle. It ends with exactly one session line, whatever happens.

use std::{io, slice, sync::Arc};

use tokio::{io::Interest, net::TcpStream};

use super::{
    TcpSpec,
    pump::{ClientSide, Ending, Limits, pump},
};
use crate::{
    mapping::Protocol,
    meter::Ended,
    policy::Permit,
    sock::unanswered_limit,
    targets::{
        Dialer, Leg,
        dial::{DialOptions, dial},
    },
};

/// Carries one admitted connection to its target and back until it ends; then its place in the
/// mapping and its room in the budget are free again.
///
/// Not an `async fn`: that would keep every argument twice, and a task is as large as its future.
#[expect(clippy::manual_async_fn, reason = "its arguments would be kept twice")]
pub(super) fn run(
    near: ClientSide,
    permit: Permit,
    spec: Arc<TcpSpec>,
    dialer: Dialer,
) -> impl Future<Output = ()> + Send {
    async move {
        // Boxed: the way to the target is short and needs much, the session is long and needs
        // little.
        let reached = Box::pin(reach(&near, &spec, &dialer)).await;
        let options = &spec.options;
        let limits = Limits { idle: options.idle_timeout, half_close: options.half_close_timeout };
        let (unanswered, bandwidth) = (unanswered_limit(options.keepalive), options.bandwidth);
        // The session may last for days: what only the start needs is let go.
        drop((spec, dialer));
        let target = match reached {
            Ok(target) => target,
            Err(ending) => return settle(near, permit, ending),
        };
        let ending = pump(&near, &target, limits, unanswered, bandwidth).await;
        drop(target);
        settle(near, permit, ending);
    }
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

/// An open connection to the first target that takes one, or how the session ended without any.
/// Targets that failed lately are tried last. A client that is gone meanwhile (it was reset; one
/// that has only finished still wants its answer) needs none, and takes up no place.
async fn reach(near: &ClientSide, spec: &TcpSpec, dialer: &Dialer) -> Result<TcpStream, Ending> {
    let ClientSide { client, meter, .. } = near;
    let options = DialOptions {
        connect_timeout: spec.options.connect_timeout,
        keepalive: spec.options.keepalive,
        source: spec.options.source,
    };
    let mut ending = Ending::from(Ended::Unreachable);
    let Some(all) = spec.route.targets() else { return Err(Ended::Unreachable.into()) };
    let first = all.first();
    let mut last = first;
    let ordered;
    let targets = if all.is_single() {
        slice::from_ref(&first)
    } else {
        ordered = dialer.in_order(|| meter.mapping(), Protocol::Tcp, all);
        &ordered
    };
    for &target in targets {
        let leg = || Leg { mapping: meter.mapping(), protocol: Protocol::Tcp, target: target.clone() };
        let error = tokio::select! {
            reached = dial(dialer, target, options) => match reached {
                Ok((stream, addr)) => {
                    meter.reached(addr);
                    dialer.target_worked(leg);
                    return Ok(stream);
                }
                Err(error) => {
                    dialer.target_failed(&leg(), error.sign(), &error);
                    io::Error::other(error)
                }
            },
            reason = meter.live().wait_cut() => return Err(reason.into()),
            _ = client.ready(Interest::ERROR) => {
                meter.missed(target);
                return Err(Ended::ClientError.into());
            }
        };
        ending.error = Some(error);
        last = target;
    }
    meter.missed(last);
    Err(ending)
}
