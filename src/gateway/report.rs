//! What a person reads about the router: each change once.
//!
//! Owns what was said already, and compares each status with it. Each line is an event, too. A
//! router that comes and goes makes a bounded number of lines: of each kind at most [`MOST`] in
//! [`SPAN`]; what was held back is said later, if it is still so then.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{field::display, info, warn};

use super::{
    RouterProtocol,
    lease::{Gone, Lease, State},
    router::{Found, Holder},
    status::{OpeningState, OpeningStatus, RouterState, RouterStatus},
    verdict::Verdict,
    want::Key,
};
use crate::{
    events::{Draft, EventKind, Events},
    mapping::MappingName,
};

/// The most lines of one kind within [`SPAN`].
const MOST: u32 = 10;
const SPAN: Duration = Duration::from_secs(3600);

/// What was last logged of an opening: its state, and while it is open its port and how often it
/// was opened.
type ToldOpening = (OpeningState, Option<(u16, u32)>);

/// What a limit counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Router,
    Restart,
    External,
    Verdict,
    Opening(Key),
}

/// Logs what changed.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    /// The router that was last logged; inside, `None` where none was found.
    router: Option<Option<Found>>,
    external: Option<IpAddr>,
    verdict: Option<Verdict>,
    openings: BTreeMap<Key, ToldOpening>,
    said: BTreeMap<Kind, (Instant, u32)>,
    events: Events,
}

/// Logs a line about an opening: what identifies it, then the other fields and the message.
macro_rules! opening_line {
    ($level:ident, $mapping:expr, $listener:expr; $($rest:tt)+) => {
        $level!(
            mapping = %$mapping,
            protocol = $listener.protocol.as_str(),
            listen.addr = %$listener.addr,
            $($rest)+
        )
    };
}

impl Reporter {
    /// A reporter that has said nothing. It says everything to `events`, too.
    pub(super) fn telling(events: Events) -> Self {
        Self { events, ..Self::default() }
    }

    /// Logs what changed since the last time.
    pub(super) fn report(&mut self, status: &RouterStatus, now: Instant) {
        self.report_router(&status.router, now);
        self.report_address(status, now);
        let via = if let RouterState::Ready(found) = &status.router { Some(found.via) } else { None };
        for opening in &status.openings {
            self.report_opening(opening, via, now);
        }
        let there = |key: &Key| status.openings.iter().any(|opening| opening.key == *key);
        self.openings.retain(|key, _| there(key));
        self.said.retain(|kind, (since, _)| match kind {
            Kind::Opening(key) => there(key) || *since + SPAN > now,
            _ => true,
        });
    }

    fn report_router(&mut self, state: &RouterState, now: Instant) {
        let router = match state {
            RouterState::Ready(found) => Some(found),
            RouterState::Missing(_) => None,
            RouterState::Off | RouterState::Searching => return,
        };
        if self.router.as_ref().is_some_and(|told| told.as_ref() == router)
            || !self.may_say(Kind::Router, now)
        {
            return;
        }
        self.router = Some(router.cloned());
        match state {
            RouterState::Ready(Found { model, addr, via, .. }) => {
                info!(router.model = %model, router.addr = %addr, via = via.as_str(), "router found");
                self.tell(None, || format!("found the router {addr} ({model}) by {}", via.as_str()));
            }
            RouterState::Missing(reason) => {
                warn!(error = %reason, "no router found");
                self.tell(None, || format!("no router found: {reason}"));
            }
            RouterState::Off | RouterState::Searching => {}
        }
    }

    fn report_address(&mut self, status: &RouterStatus, now: Instant) {
        let Some(verdict) = status.verdict else { return };
        if let Some(external) = status.external {
            let before = *self.external.get_or_insert(external);
            if before != external && self.may_say(Kind::External, now) {
                info!(external.addr = %external, external.before = %before, "external address changed");
                self.tell(None, || format!("the external address changed from {before} to {external}"));
                self.external = Some(external);
            }
        }
        if self.verdict == Some(verdict) || !self.may_say(Kind::Verdict, now) {
            return;
        }
        let (external, advice) = (status.external.map(display), verdict.advice());
        if verdict != Verdict::Public || self.verdict.is_some() {
            self.tell(None, || match verdict {
                Verdict::Public => "reachable from the internet again".to_owned(),
                _ => format!("not reachable from the internet: {advice}"),
            });
        }
        match verdict {
            // The first good one goes without saying.
            Verdict::Public if self.verdict.is_none() => {}
            Verdict::Public => info!(external.addr = external, "reachable from the internet again"),
            Verdict::SecondNat | Verdict::CarrierNat => {
                warn!(external.addr = external, advice, "behind a second NAT");
            }
            Verdict::NoAddress => warn!(
                external.addr = external,
                advice, "no external address: the router is offline, or behind a second NAT"
            ),
        }
        self.verdict = Some(verdict);
    }

    fn report_opening(&mut self, opening: &OpeningStatus, via: Option<RouterProtocol>, now: Instant) {
        let open = match opening.state {
            OpeningState::Searching => return,
            OpeningState::Open { .. } => Some((opening.external_port, opening.times_opened)),
            _ => None,
        };
        let (key, told) = (&opening.key, (opening.state.clone(), open));
        if self.openings.get(key) == Some(&told) || !self.may_say(Kind::Opening(key.clone()), now) {
            return;
        }
        say(opening, via, now);
        self.tell(Some(&opening.mapping), || sentence(opening, via));
        self.openings.insert(key.clone(), told);
    }

    /// Logs a restart of the router. A router whose clock stands still seems to restart at every
    /// check.
    pub(super) fn report_restart(&mut self, now: Instant) {
        if self.may_say(Kind::Restart, now) {
            info!("router restarted");
            self.tell(None, || "the router restarted".to_owned());
        }
    }

    /// Logs the end of a lease.
    pub(super) fn report_departed(&mut self, lease: &Lease) {
        let (key, mapping, port) = (&lease.want().key, &lease.want().mapping, lease.external_port().get());
        match lease.state() {
            State::Gone(Gone::Closed) => {
                // If it is opened again, that is logged again.
                if matches!(self.openings.get(key), Some((_, Some((told, _)))) if *told == port) {
                    self.openings.remove(key);
                }
                opening_line!(info, mapping, key.listener; external.port = port, "closed on the router");
                self.tell(Some(mapping), || format!("port {port} is closed on the router"));
            }
            State::Gone(Gone::Left(error)) => {
                opening_line!(
                    warn, mapping, key.listener; external.port = port, error, "left open on the router"
                );
                self.tell(Some(mapping), || format!("port {port} is left open on the router: {error}"));
            }
            _ => {}
        }
    }

    fn tell(&self, mapping: Option<&MappingName>, message: impl FnOnce() -> String) {
        self.events.emit(EventKind::Router, || {
            let draft = Draft::new(message());
            mapping.into_iter().cloned().fold(draft, Draft::mapping)
        });
    }

    /// Whether one more line of this kind is not too many.
    fn may_say(&mut self, kind: Kind, now: Instant) -> bool {
        let (since, count) = self.said.entry(kind).or_insert((now, 0));
        if *since + SPAN <= now {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= MOST
    }
}

/// The holder of the port. Only UPnP distinguishes a held port from a refused one.
fn named(holder: Option<&Holder>, via: Option<RouterProtocol>) -> String {
    match (holder, via) {
        (Some(holder), _) => holder.to_string(),
        (None, Some(RouterProtocol::Pcp | RouterProtocol::NatPmp)) => {
            "unknown: the router gave another port; held, or refused by a rule".to_owned()
        }
        (None, _) => "unknown".to_owned(),
    }
}

/// Why it may not be open although the router says so.
const UNVERIFIED: &str = "the router grants it and does not show it: try it from outside";

/// Logs the state of an opening. The word for a state is the same in every line and in the README.
fn say(opening: &OpeningStatus, via: Option<RouterProtocol>, now: Instant) {
    let OpeningStatus { mapping, external_port: port, .. } = opening;
    let (listener, external) = (&opening.key.listener, opening.external.map(display));
    let lease_s = opening.lease.map(|lease| lease.as_secs());
    match &opening.state {
        OpeningState::Searching => {}
        OpeningState::Open { via, unverified: true } => opening_line!(
            warn, mapping, listener; state = "open", external.addr = external, external.port = port,
            via = via.as_str(), lease_s, unverified = UNVERIFIED, "open on the router"
        ),
        OpeningState::Open { via, unverified: false } => opening_line!(
            info, mapping, listener; state = "open", external.addr = external, external.port = port,
            via = via.as_str(), lease_s, "open on the router"
        ),
        OpeningState::Conflict(holder) => opening_line!(
            warn, mapping, listener; state = "conflict", external.port = port,
            holder = named(holder.as_ref(), via), "held by another machine"
        ),
        OpeningState::Denied(error) => opening_line!(
            warn, mapping, listener; state = "denied", external.port = port, error, "router refuses"
        ),
        OpeningState::Failed(error) => opening_line!(
            warn, mapping, listener; state = "failed", external.port = port, error,
            retry_s = opening.retry_at.map(|at| at.saturating_duration_since(now).as_secs()),
            "not open on the router"
        ),
    }
}

/// The same as an event.
fn sentence(opening: &OpeningStatus, via: Option<RouterProtocol>) -> String {
    let OpeningStatus { key, external_port: port, .. } = opening;
    let listener = &key.listener;
    match &opening.state {
        OpeningState::Searching => format!("the router is asked for port {port}"),
        OpeningState::Open { unverified, .. } => {
            let doubt = if *unverified { format!("; {UNVERIFIED}") } else { String::new() };
            match opening.external {
                Some(ip) => format!("{listener} is open as {}{doubt}", SocketAddr::new(ip, *port)),
                None => format!("{listener} is open as port {port}{doubt}"),
            }
        }
        OpeningState::Conflict(holder) => {
            format!("port {port} on the router is held by {}", named(holder.as_ref(), via))
        }
        OpeningState::Denied(error) => format!("the router refuses port {port}: {error}"),
        OpeningState::Failed(error) => format!("port {port} is not open on the router: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::{
        fixture::LogCatcher,
        mapping::{ListenAddr, ListenerKey, MappingName, Protocol},
    };

    /// What is logged while `body` runs, line by line.
    fn logged(body: impl FnOnce()) -> Vec<String> {
        let log = LogCatcher::start();
        body();
        log.lines()
    }

    fn status(state: OpeningState, times_opened: u32) -> RouterStatus {
        let opening = OpeningStatus {
            key: Key {
                listener: ListenerKey {
                    protocol: Protocol::Tcp,
                    addr: ListenAddr::every(NonZeroU16::new(80).unwrap()),
                },
                pinhole: None,
            },
            mapping: MappingName::new("web").unwrap(),
            external: Some([11, 22, 33, 1].into()),
            external_port: 80,
            lease: Some(Duration::from_secs(3600)),
            retry_at: None,
            state,
            times_opened,
        };
        RouterStatus {
            router: RouterState::Ready(found(RouterProtocol::Upnp)),
            external: Some([11, 22, 33, 1].into()),
            verdict: Some(Verdict::Public),
            openings: vec![opening],
        }
    }

    fn found(via: RouterProtocol) -> Found {
        Found { via, addr: [192, 168, 77, 1].into(), model: String::new(), id: String::new() }
    }

    const OPEN: OpeningState = OpeningState::Open { via: RouterProtocol::Upnp, unverified: false };

    fn missing() -> RouterStatus {
        let mut status = status(OpeningState::Searching, 1);
        (status.verdict, status.external) = (None, None);
        status.router = RouterState::Missing("no answer".to_owned());
        status
    }

    fn count(lines: &[String], message: &str) -> usize {
        lines.iter().filter(|line| line.contains(message)).count()
    }

    #[test]
    fn a_change_is_said_once_and_a_renewal_is_none() {
        let now = Instant::now();
        let lines = logged(|| {
            let mut reporter = Reporter::default();
            for lease_s in 0..100 {
                let mut renewed = status(OPEN, 1);
                renewed.openings[0].lease = Some(Duration::from_secs(lease_s));
                reporter.report(&renewed, now);
            }
            for retry_s in 0..100 {
                let mut failed = status(OpeningState::Failed("501".to_owned()), 1);
                failed.openings[0].retry_at = Some(now + Duration::from_secs(retry_s));
                reporter.report(&failed, now);
            }
            reporter.report(&status(OPEN, 2), now);
        });
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert_eq!((count(&lines, "router found"), count(&lines, "open on the router")), (1, 3));
        assert!(
            lines[1].contains("external.addr=11.22.33.1") && lines[1].contains("external.port=80"),
            "{lines:?}"
        );
    }

    #[test]
    fn an_opening_by_another_protocol_is_said_again() {
        let lines = logged(|| {
            let mut reporter = Reporter::default();
            for via in [RouterProtocol::Upnp, RouterProtocol::Pcp] {
                let opened = status(OpeningState::Open { via, unverified: false }, 1);
                reporter.report(&opened, Instant::now());
            }
        });
        assert_eq!(count(&lines, "open on the router"), 2, "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("via=\"pcp\"")), "{lines:#?}");
    }

    #[test]
    fn each_line_about_an_opening_has_its_state_in_one_word() {
        let error = || "606".to_owned();
        for (state, word) in [
            (OPEN, "open"),
            (OpeningState::Conflict(None), "conflict"),
            (OpeningState::Denied(error()), "denied"),
            (OpeningState::Failed(error()), "failed"),
        ] {
            let lines = logged(|| Reporter::default().report(&status(state, 1), Instant::now()));
            assert!(lines[1].contains(&format!("state=\"{word}\"")), "{lines:#?}");
        }
    }

    #[test]
    fn a_router_that_gave_another_port_may_have_refused_this_one() {
        for (via, words) in
            [(RouterProtocol::Upnp, "holder=\"unknown\""), (RouterProtocol::Pcp, "refused by a rule")]
        {
            let conflict = status(OpeningState::Conflict(None), 1);
            let status = RouterStatus { router: RouterState::Ready(found(via)), ..conflict };
            let lines = logged(|| Reporter::default().report(&status, Instant::now()));
            assert!(lines[1].contains(words), "{lines:#?}");
        }
    }

    #[test]
    fn a_router_that_comes_and_goes_all_day_fills_no_disk() {
        let start = Instant::now();
        let lines = logged(|| {
            let mut reporter = Reporter::default();
            for nth in 0..8640 {
                let now = start + Duration::from_secs(10 * u64::from(nth));
                let there = if nth % 2 == 0 { missing() } else { status(OPEN, nth) };
                reporter.report(&there, now);
            }
        });
        let hours = 24 + 1;
        assert!(lines.len() <= hours * 2 * MOST as usize, "{} lines", lines.len());
        assert!(count(&lines, "no router found") > 20, "{} lines", lines.len());
    }

    #[test]
    fn a_router_whose_clock_stands_still_fills_no_disk() {
        let start = Instant::now();
        let lines = logged(|| {
            let mut reporter = Reporter::default();
            (0..120).for_each(|nth| reporter.report_restart(start + Duration::from_secs(60 * nth)));
        });
        assert_eq!(count(&lines, "router restarted"), 2 * MOST as usize);
    }

    #[test]
    fn what_was_held_back_is_said_when_there_is_room_again() {
        let start = Instant::now();
        let lines = logged(|| {
            let mut reporter = Reporter::default();
            for nth in 0..100 {
                let there = if nth % 2 == 0 { status(OPEN, 1) } else { missing() };
                reporter.report(&there, start);
            }
            reporter.report(&missing(), start + SPAN);
        });
        assert!(lines.last().is_some_and(|line| line.contains("no router found")), "{lines:#?}");
    }

    #[test]
    fn a_second_nat_is_said_once_a_change_with_what_to_do() {
        let now = Instant::now();
        let behind = |ip: [u8; 4]| {
            let mut status = status(OPEN, 1);
            (status.external, status.verdict) = (Some(ip.into()), Some(Verdict::of(Some(ip.into()))));
            status
        };
        let lines = logged(|| {
            let mut reporter = Reporter::default();
            for _ in 0..10 {
                reporter.report(&behind([100, 64, 1, 2]), now);
            }
            reporter.report(&behind([11, 22, 33, 4]), now);
        });
        assert_eq!(count(&lines, "behind a second NAT"), 1);
        assert_eq!(count(&lines, "reachable from the internet again"), 1);
        // Many routers hide an address that is not one of the internet.
        let nothing = RouterStatus { external: None, verdict: Some(Verdict::of(None)), ..status(OPEN, 1) };
        let said = logged(|| Reporter::default().report(&nothing, now));
        assert_eq!(count(&said, "behind a second NAT"), 1, "{said:#?}");
        assert!(lines.iter().any(|line| line.contains("advice=")), "{lines:#?}");
    }
}
