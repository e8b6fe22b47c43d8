//! Questions to the router: each within its time, whatever the drivers do.
//!
//! Owns how a [`Call`] becomes a request, the search in every protocol at once, and the taking back
//! of what was opened. Keeps nothing; everything ends with the question.

use std::{net::IpAddr, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    driver::{Driver, LONGEST_CALL, LONGEST_SEARCH},
    lease::{Answer, Call, Context, Done, Habits, Lease, State},
    router::{CALL, Found, RouterAddr, RouterError},
};
use crate::gateway::{RouterProtocol, RouterSettings};

/// Sends a request to the router, which is reached from `own`. If a request from another address
/// gets no answer, the router may still be there: this machine may have lost that address, or the
/// router may have no IPv6 firewall to ask.
pub(super) async fn put(driver: &Driver, own: IpAddr, call: &Call) -> Answer {
    let answer = limited(async {
        match call {
            Call::Open(request) => driver.open(request).await.map(Done::Granted),
            Call::AnyPort(request) => driver.any_port(request).await.map(Done::Granted),
            Call::Look(request) => driver.look(request).await.map(Done::Seen),
            Call::Close(request) => driver.close(request).await.map(|()| Done::Closed),
        }
    });
    answer.await.map_err(|error| match error {
        RouterError::Lost(why) if call.request().internal.ip() != own => RouterError::Failed(why),
        error => error,
    })
}

/// A driver keeps its own limit; this one is for a mistake in it.
pub(super) async fn limited<T>(call: impl Future<Output = Result<T, RouterError>>) -> Result<T, RouterError> {
    const SLACK: Duration = Duration::from_secs(2);
    let done = timeout(LONGEST_CALL + SLACK, call).await;
    done.unwrap_or_else(|_| Err(RouterError::Lost("its answer does not end".to_owned())))
}

/// Searches in every protocol at once, and takes the first of them, in their order, that has an
/// answer. Once there is one, those before it have [`CALL`] to answer, too: a second try in vain is
/// not waited for.
pub(super) async fn search(
    protocols: &[RouterProtocol],
    router_addr: &RouterAddr,
) -> Result<(Driver, Found), String> {
    let mut tries = JoinSet::new();
    for (nth, via) in protocols.iter().copied().enumerate() {
        let router_addr = router_addr.clone();
        tries.spawn(async move {
            let found = timeout(LONGEST_SEARCH * 2, Driver::search(via, &router_addr)).await;
            (nth, found.unwrap_or_else(|_| Err(RouterError::Lost("the search does not end".to_owned()))))
        });
    }
    let mut outcomes: Vec<Option<Result<_, RouterError>>> = protocols.iter().map(|_| None).collect();
    let mut until = Instant::now() + LONGEST_SEARCH * 3;
    while let Ok(Some(done)) = timeout_at(until, tries.join_next()).await {
        let Ok((nth, outcome)) = done else { continue };
        if outcome.is_ok() {
            until = until.min(Instant::now() + CALL);
        }
        outcomes[nth] = Some(outcome);
        if let Some(Some(Ok(_))) = outcomes.iter().find(|outcome| !matches!(outcome, Some(Err(_)))) {
            break;
        }
    }
    if let Some(found) = outcomes.iter_mut().find_map(|outcome| outcome.take_if(|o| o.is_ok())) {
        return found.map_err(|error| error.to_string());
    }
    let why = outcomes.into_iter().zip(protocols).filter_map(|(outcome, via)| match outcome {
        Some(Err(error)) => Some(format!("{}: {error}", via.as_str())),
        _ => None,
    });
    Err(why.collect::<Vec<_>>().join("; "))
}

/// Takes one opening back. It is given up when the router does not answer.
pub(super) async fn take_back(
    driver: Arc<Driver>,
    own: IpAddr,
    mut lease: Lease,
    settings: RouterSettings,
    mut habits: Habits,
) -> Lease {
    let mut rng = Rng::with_seed(0);
    while !matches!(lease.state(), State::Gone(_)) {
        let call = lease.call(&settings, habits);
        let answer = put(&driver, own, &call).await;
        if matches!(answer, Err(RouterError::Lost(_))) {
            break;
        }
        let now = Instant::now();
        let mut cx = Context { now, settings: &settings, habits: &mut habits, formers: &[], rng: &mut rng };
        lease.answered(answer, &mut cx);
    }
    lease
}
