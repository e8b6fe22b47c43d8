//! Opening a connection to a target.
//!
//! One time limit holds for all of it: the lookup of a name, and the addresses. A slow lookup is
//! given up while there is still time to connect. Several addresses race (`race`), each with all
//! the time that is left then. One address alone needs no more than a connect and a timer. Nothing
//! of it outlasts the limit: the next target waits.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

pub(crate) use super::dial_error::DialError;
use super::{
    Dialer,
    race::{Connecting, Outcome, race},
};
use crate::{
    mapping::{Protocol, TargetAddr, Timeout},
    sock::{stream::connect, transparent::Source},
};

/// One of so many parts of the time for a target is kept for the connection, however long the
/// lookup takes.
const CONNECT_PART: u32 = 5;

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DialOptions {
    /// The time for the target: the lookup of its name, and all of its addresses together.
    pub connect_timeout: Duration,
    /// The idle time before TCP keepalive probes. Where it [`may_wait`](crate::sock::may_wait), the
    /// connection has no such setting yet.
    pub keepalive: Timeout,
    /// The local address to connect from.
    pub source: Source,
}

/// Connects to `target`.
///
/// # Errors
/// [`DialError`] with the last address's trouble when none of them took the connection.
pub(crate) async fn dial(
    dialer: &Dialer,
    target: &TargetAddr,
    options: DialOptions,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let deadline = Instant::now() + options.connect_timeout;
    let for_answer = options.connect_timeout - options.connect_timeout / CONNECT_PART;
    let mut addrs = dialer.candidates(Protocol::Tcp, target, for_answer).await?;
    let first = addrs[0];
    addrs.retain(|addr| options.source.fits(*addr));
    let note = |addr, outcome: &Outcome<'_>| note(dialer, options, addr, outcome);
    match *addrs {
        [] => Err(DialError::Connect { addr: first, source: options.source.misfit(first) }),
        [addr] => match timeout_at(deadline, connect(addr, options.source, options.keepalive)).await {
            Ok(Ok(stream)) => {
                note(addr, &Outcome::Connected);
                Ok((stream, addr))
            }
            Ok(Err(source)) => {
                note(addr, &Outcome::Failed(&source));
                Err(DialError::Connect { addr, source })
            }
            Err(_) => {
                note(addr, &Outcome::Failed(&io::ErrorKind::TimedOut.into()));
                Err(DialError::TimedOut { addr, limit: options.connect_timeout })
            }
        },
        _ => {
            let connect =
                |addr| -> Connecting<'_> { Box::pin(connect(addr, options.source, options.keepalive)) };
            let time = (deadline, options.connect_timeout);
            // Boxed: a session's task is as large as its largest state, and few sessions race.
            let reached = Box::pin(race(&addrs, time, connect, note)).await?;
            if reached.1 != addrs[0] {
                dialer.won(reached.1);
            }
            Ok(reached)
        }
    }
}

/// Remembers what came of an address.
fn note(dialer: &Dialer, options: DialOptions, addr: SocketAddr, outcome: &Outcome<'_>) {
    match outcome {
        Outcome::Connected => dialer.worked(Protocol::Tcp, addr),
        // Where `source` is not there, nothing was tried.
        Outcome::Failed(error) if options.source.is_to_blame(error) => {}
        Outcome::Failed(error) => dialer.failed(Protocol::Tcp, addr, error),
        Outcome::Overtaken => dialer.failed(Protocol::Tcp, addr, &io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        num::NonZeroU16,
        sync::Arc,
    };

    use tokio::{net::TcpListener, time::sleep};

    use super::*;
    use crate::{
        events::Events,
        fixture::keepalive_of,
        mapping::{Host, ListenAddr},
        targets::{ResolveError, Resolver},
    };

    const LIMIT: Duration = Duration::from_secs(5);

    fn within(connect_timeout: Duration) -> DialOptions {
        DialOptions { connect_timeout, keepalive: Timeout::Never, source: Source::Any }
    }

    /// A target that listens, its address by name, and a resolver that has just been asked for that
    /// name.
    async fn named() -> (TcpListener, TargetAddr, Resolver, impl Fn(&[IpAddr]), Arc<str>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = NonZeroU16::new(listener.local_addr().unwrap().port()).unwrap();
        let name: Arc<str> = "slow.test".into();
        let (resolver, answer) = Resolver::asking(&name);
        (listener, TargetAddr { host: Host::Name(Arc::clone(&name)), port }, resolver, answer, name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_answer_is_given_up_within_the_time_for_the_target() {
        let (_listener, target, resolver, _answer, _) = named().await;
        let start = Instant::now();
        let error = dial(&Dialer::with(resolver.clone()), &target, within(LIMIT)).await.unwrap_err();
        assert!(start.elapsed() <= LIMIT, "{:?}", start.elapsed());
        assert!(matches!(error, DialError::Resolve(ResolveError::TimedOut { .. })), "{error}");
        let said = error.to_string();
        assert!(said.starts_with("resolve slow.test: the lookup took longer than 4000 ms"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_almost_all_of_its_time_leaves_enough_to_connect() {
        let (listener, target, resolver, answer, _) = named().await;
        let answer = async {
            sleep(LIMIT - LIMIT / CONNECT_PART - Duration::from_millis(10)).await;
            answer(&[Ipv4Addr::LOCALHOST.into()]);
        };
        let dialer = Dialer::with(resolver);
        let (reached, ()) = tokio::join!(dial(&dialer, &target, within(LIMIT)), answer);
        assert_eq!(reached.unwrap().1, listener.local_addr().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_came_too_late_serves_the_next_session() {
        let (_listener, target, resolver, answer, _) = named().await;
        dial(&Dialer::with(resolver.clone()), &target, within(LIMIT)).await.unwrap_err();
        answer(&[Ipv4Addr::LOCALHOST.into()]);
        dial(&Dialer::with(resolver.clone()), &target, within(LIMIT)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_answer_is_taken_in_time_to_connect_however_short_the_limit_is() {
        for limit in [Duration::from_millis(200), Duration::from_secs(1), LIMIT, LIMIT * 100] {
            let (listener, target, resolver, _answer, name) = named().await;
            resolver.remembers(&name, &[Ipv4Addr::LOCALHOST.into()]);
            let start = Instant::now();
            let reached = dial(&Dialer::with(resolver.clone()), &target, within(limit)).await;
            assert_eq!(reached.unwrap().1, listener.local_addr().unwrap(), "within {limit:?}");
            let took = start.elapsed();
            assert!(took <= (limit / 4).min(Duration::from_millis(1010)), "{took:?} of {limit:?}");
        }
    }

    #[tokio::test]
    async fn a_name_that_comes_to_mean_the_api_is_not_dialled() {
        let (listener, target, resolver, _answer, name) = named().await;
        resolver.remembers(&name, &[Ipv4Addr::LOCALHOST.into()]);
        let dialer = Dialer::with(resolver);
        let api = ListenAddr { ip: Ipv4Addr::LOCALHOST.into(), zone: None, port: target.port };
        dialer.api_listens_on(std::iter::once(&api));
        let error = dial(&dialer, &target, within(LIMIT)).await.unwrap_err();
        assert!(matches!(error, DialError::Resolve(ResolveError::Api { .. })), "{error}");
        dialer.api_listens_on(std::iter::empty());
        dial(&dialer, &target, within(LIMIT)).await.unwrap();
        drop(listener);
    }

    #[tokio::test]
    async fn a_target_that_falls_silent_is_given_up_after_three_probes_a_quarter_of_a_minute_apart() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let target =
            TargetAddr { host: Host::Ip(addr.ip(), None), port: NonZeroU16::new(addr.port()).unwrap() };
        let secs = Duration::from_secs;
        for (keepalive, expected) in [
            (Timeout::Never, None),
            (Timeout::After(secs(1)), Some((secs(1), secs(1), 3))),
            (Timeout::After(secs(20)), Some((secs(20), secs(15), 3))),
            // The session sets it.
            (Timeout::After(secs(60)), None),
        ] {
            let options = DialOptions { keepalive, ..within(LIMIT) };
            let (stream, _) = dial(&Dialer::new(Events::default()), &target, options).await.unwrap();
            assert_eq!(keepalive_of(&stream), expected);
        }
    }
}
