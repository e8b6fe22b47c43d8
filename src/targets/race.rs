//! Several addresses of one target, as RFC 8305 has it: the next one is tried while the last one
//! has not answered.
//!
//! Attempts begin [`STAGGER`] apart, or at once when one fails. Each has all the time that is left.
//! The first connection wins, and the others are closed. An address that was overtaken is tried
//! last for a while, like one that failed.
//!
//! It runs inside the session's future: when the session ends, so do all attempts.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::dial_error::DialError;

/// The head start of an address (RFC 8305, section 5: the recommended Connection Attempt Delay).
pub(super) const STAGGER: Duration = Duration::from_millis(250);
/// Attempts at once: each holds a descriptor.
const MOST_AT_ONCE: usize = 8;

/// Puts addresses of the two families in turn, from that of the first on (RFC 8305, section 4).
pub(super) fn alternate(addrs: &mut [SocketAddr]) {
    for at in 1..addrs.len() {
        let last = addrs[at - 1].is_ipv4();
        if let Some(next) = addrs[at..].iter().position(|addr| addr.is_ipv4() != last) {
            addrs[at..=at + next].rotate_right(1);
        }
    }
}

/// What came of an address.
pub(super) enum Outcome<'a> {
    Connected,
    Failed(&'a io::Error),
    /// It had more time than the one that was connected to.
    Overtaken,
}

/// A connection that comes about.
pub(super) type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

struct Attempt<'a> {
    addr: SocketAddr,
    begun: Instant,
    connecting: Connecting<'a>,
}

/// Connects to one of `addrs` until `deadline`, and says through `note` what came of each.
///
/// # Errors
/// The last failure, or that the time is over; `limit` is what the error names then.
pub(super) async fn race<'a>(
    addrs: &[SocketAddr],
    (deadline, limit): (Instant, Duration),
    connect: impl Fn(SocketAddr) -> Connecting<'a>,
    note: impl Fn(SocketAddr, &Outcome<'_>),
) -> Result<(TcpStream, SocketAddr), DialError> {
    let mut waiting = addrs.iter().copied();
    let mut running: Vec<Attempt<'a>> = Vec::new();
    let mut timer = pin!(sleep_until(deadline));
    let mut failure = None;
    loop {
        let mut wake_at = deadline;
        if running.len() < MOST_AT_ONCE
            && let Some(addr) = waiting.next()
        {
            let begun = Instant::now();
            running.push(Attempt { addr, begun, connecting: connect(addr) });
            wake_at = deadline.min(begun + STAGGER);
        } else if running.is_empty() {
            let none = || DialError::TimedOut { addr: addrs[0], limit };
            return Err(failure.unwrap_or_else(none));
        }
        timer.as_mut().reset(wake_at);
        match next(&mut running, timer.as_mut()).await {
            None if Instant::now() < deadline => {}
            None => {
                let silent = io::ErrorKind::TimedOut.into();
                running.iter().for_each(|attempt| note(attempt.addr, &Outcome::Failed(&silent)));
                return Err(DialError::TimedOut { addr: running[0].addr, limit });
            }
            Some((Attempt { addr, begun, .. }, Ok(stream))) => {
                note(addr, &Outcome::Connected);
                let now = Instant::now();
                for other in running.iter().filter(|a| a.begun < begun && now >= a.begun + STAGGER) {
                    note(other.addr, &Outcome::Overtaken);
                }
                return Ok((stream, addr));
            }
            Some((Attempt { addr, .. }, Err(source))) => {
                note(addr, &Outcome::Failed(&source));
                failure = Some(DialError::Connect { addr, source });
            }
        }
    }
}

/// The next attempt that ends, and how, or `None` when the timer does.
async fn next<'a>(
    running: &mut Vec<Attempt<'a>>,
    mut timer: Pin<&mut Sleep>,
) -> Option<(Attempt<'a>, io::Result<TcpStream>)> {
    let ended = |cx: &mut Context<'_>| {
        for at in 0..running.len() {
            if let Poll::Ready(outcome) = running[at].connecting.as_mut().poll(cx) {
                return Poll::Ready(Some((running.remove(at), outcome)));
            }
        }
        timer.as_mut().poll(cx).map(|()| None)
    };
    std::future::poll_fn(ended).await
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
    };

    use tokio::{net::TcpListener, time::sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    fn addr(n: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, n).into()
    }

    /// Races `count` addresses, of which the nth does what `attempt` says: connect, or fail, after
    /// a time. Says what came of it, what was noted, and after how long.
    async fn try_all(
        count: u16,
        attempt: impl Fn(u16) -> (Duration, bool),
    ) -> (Result<u16, DialError>, Vec<(u16, &'static str)>, Duration) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (at, noted, running) = (listener.local_addr().unwrap(), Mutex::default(), AtomicUsize::new(0));
        let addrs: Vec<_> = (1..=count).map(addr).collect();
        let connect = |addr: SocketAddr| -> Connecting<'_> {
            assert!(running.fetch_add(1, Relaxed) < MOST_AT_ONCE);
            let ((time, works), running) = (attempt(addr.port()), &running);
            Box::pin(async move {
                sleep(time).await;
                running.fetch_sub(1, Relaxed);
                if works {
                    TcpStream::connect(at).await
                } else {
                    Err(io::ErrorKind::ConnectionRefused.into())
                }
            })
        };
        let note = |addr: SocketAddr, outcome: &Outcome<'_>| {
            let word = match outcome {
                Outcome::Connected => "connected",
                Outcome::Failed(_) => "failed",
                Outcome::Overtaken => "overtaken",
            };
            let noted: &Mutex<Vec<_>> = &noted;
            noted.lock().unwrap().push((addr.port(), word));
        };
        let start = Instant::now();
        let won = race(&addrs, (start + LIMIT, LIMIT), connect, note).await;
        let took = start.elapsed();
        (won.map(|(_, addr)| addr.port()), noted.into_inner().unwrap(), took)
    }

    const NEVER: Duration = Duration::from_secs(1000);
    const SLACK: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn each_address_has_all_the_time_that_is_left() {
        let (won, noted, _) = try_all(8, |_| (Duration::from_millis(900), true)).await;
        assert_eq!((won.unwrap(), noted), (1, vec![(1, "connected")]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_its_head_start_and_is_noted() {
        let (won, noted, took) =
            try_all(3, |n| if n == 1 { (NEVER, true) } else { (Duration::ZERO, true) }).await;
        assert_eq!((won.unwrap(), noted), (2, vec![(2, "connected"), (1, "overtaken")]));
        assert!((STAGGER..STAGGER + SLACK).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_attempt_at_once() {
        let (won, noted, took) = try_all(3, |n| (Duration::ZERO, n == 3)).await;
        assert_eq!((won.unwrap(), noted), (3, vec![(1, "failed"), (2, "failed"), (3, "connected")]));
        assert!(took < SLACK, "{took:?}");
        let (won, noted, took) = try_all(2, |_| (Duration::ZERO, false)).await;
        assert!(matches!(won, Err(DialError::Connect { .. })));
        assert_eq!(noted, [(1, "failed"), (2, "failed")]);
        assert!(took < SLACK, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_everywhere_ends_with_the_time() {
        let (won, noted, took) = try_all(3, |_| (NEVER, true)).await;
        assert!(matches!(won, Err(DialError::TimedOut { .. })));
        assert_eq!(noted, [(1, "failed"), (2, "failed"), (3, "failed")]);
        assert!((LIMIT..LIMIT + SLACK).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_attempts_than_the_limit_run_at_once() {
        // `try_all` looks at that.
        let (won, ..) =
            try_all(40, |n| if n == 40 { (Duration::ZERO, true) } else { (STAGGER * 3, false) }).await;
        assert!(won.is_err(), "there was no time for the last one");
        let (won, ..) = try_all(20, |n| if n == 20 { (Duration::ZERO, true) } else { (SLACK, false) }).await;
        assert_eq!(won.unwrap(), 20);
    }

    #[test]
    fn the_families_alternate_from_the_first_on() {
        let ordered = |addrs: &[&str]| {
            let mut addrs: Vec<SocketAddr> =
                addrs.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 80)).collect();
            alternate(&mut addrs);
            addrs.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            ordered(&["::1", "::2", "::3", "10.0.0.1", "10.0.0.2"]),
            ["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]
        );
        assert_eq!(ordered(&["10.0.0.1", "10.0.0.2", "::1"]), ["10.0.0.1", "::1", "10.0.0.2"]);
        assert_eq!(ordered(&["::1"]), ["::1"]);
        assert_eq!(ordered(&[]), [""; 0]);
    }
}
