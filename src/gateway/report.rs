//! What a person reads about the router: each change once.
//!
//! Owns what was said already, and compares each status with it. A router that comes and goes makes
//! a bounded number of lines: of each kind at most [`MOST`] in [`SPAN`]; what was held back is said
//! later, if it is still so then.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;
use tracing::{field::display, info, warn};

use super::{
    RouterProtocol,
    lease::Gone,
    openings::Departed,
    status::{OpeningState, OpeningStatus, RouterState, RouterStatus},
    verdict::Verdict,
    want::Want,
};
use crate::mapping::{ListenAddr, Protocol};

/// So many lines of one kind …
const MOST: u32 = 10;
/// … in so much time.
const SPAN: Duration = Duration::from_secs(3600);

/// Which opening a line is about.
type OpeningKey = (Protocol, ListenAddr, Option<IpAddr>);

/// What was last said of an opening: its state without times, and while it is open its port and how
/// often it was opened.
type ToldOpening = (OpeningState, Option<(u16, u32)>);

/// What was last said of the router: what was found, or that none was.
type ToldRouter = Option<(String, Option<IpAddr>, Option<RouterProtocol>)>;

/// What a limit counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Router,
    Restart,
    External,
    Verdict,
    Opening(OpeningKey),
}

/// Says what changed.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    router: Option<ToldRouter>,
    external: Option<IpAddr>,
    verdict: Option<Verdict>,
    openings: BTreeMap<OpeningKey, ToldOpening>,
    said: BTreeMap<Kind, (Instant, u32)>,
}

impl Reporter {
    /// Says what changed since the last time.
    pub(super) fn report(&mut self, status: &RouterStatus, now: Instant) {
        self.report_router(status, now);
        self.report_address(status, now);
        for opening in &status.openings {
            self.report_opening(opening, status.protocol, now);
        }
        let there: Vec<OpeningKey> = status.openings.iter().map(key).collect();
        self.openings.retain(|key, _| there.contains(key));
        self.said.retain(|kind, (since, _)| match kind {
            Kind::Opening(key) => there.contains(key) || *since + SPAN > now,
            _ => true,
        });
    }

    fn report_router(&mut self, status: &RouterStatus, now: Instant) {
        let router = match status.state {
            RouterState::Ready => Some((status.model.clone(), status.address, status.protocol)),
            RouterState::NoNetwork | RouterState::Lost => None,
            RouterState::Off | RouterState::Searching => return,
        };
        if self.router.as_ref() == Some(&router) || !self.may_say(Kind::Router, now) {
            return;
        }
        match &router {
            Some((model, address, via)) => info!(
                router.model = %model,
                router.addr = address.map(display),
                via = via.map(RouterProtocol::as_str),
                "router found"
            ),
            None => warn!(error = %status.reason, "no router found"),
        }
        self.router = Some(router);
    }

    fn report_address(&mut self, status: &RouterStatus, now: Instant) {
        let Some(verdict) = status.verdict else { return };
        if let Some(external) = status.external
            && self.external != Some(external)
        {
            let before = self.external;
            match before {
                None => self.external = Some(external),
                Some(before) if self.may_say(Kind::External, now) => {
                    info!(external.addr = %external, external.before = %before, "external address changed");
                    self.external = Some(external);
                }
                Some(_) => {}
            }
        }
        if self.verdict == Some(verdict) || !self.may_say(Kind::Verdict, now) {
            return;
        }
        let (external, advice) = (status.external.map(display), verdict.advice());
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
        let mut told = (opening.state.clone(), None);
        match &mut told.0 {
            OpeningState::Searching => return,
            OpeningState::Open { lease_s, ends, .. } => {
                (*lease_s, *ends) = (None, None);
                told.1 = Some((opening.external_port, opening.times_opened));
            }
            OpeningState::Conflict { .. } => {}
            OpeningState::Denied { next_try, .. } => *next_try = 0,
            OpeningState::Failed { next_try, .. } => *next_try = None,
        }
        let key = key(opening);
        if self.openings.get(&key) == Some(&told) || !self.may_say(Kind::Opening(key.clone()), now) {
            return;
        }
        say(opening, via);
        self.openings.insert(key, told);
    }

    /// Logs a restart of the router. A router whose clock stands still seems to restart at every
    /// check.
    pub(super) fn report_restart(&mut self, now: Instant) {
        if self.may_say(Kind::Restart, now) {
            info!("router restarted");
        }
    }

    /// Says what has gone from the router.
    pub(super) fn report_departed(&mut self, departed: &Departed) {
        let Departed { want, external_port, how } = departed;
        let (mapping, listen) = (&want.mapping, &want.key.listener.addr);
        let protocol = want.protocol().as_str();
        match how {
            Gone::Nothing => {}
            Gone::Closed => {
                self.forget_open(want, *external_port);
                info!(
                %mapping, protocol, listen.addr = %listen, external.port = external_port,
                "closed on the router"
                );
            }
            Gone::Left(error) => warn!(
                %mapping, protocol, listen.addr = %listen, external.port = external_port, error,
                "left open on the router"
            ),
        }
    }

    /// What was closed and is opened again is said again.
    fn forget_open(&mut self, want: &Want, port: u16) {
        let key = (want.protocol(), want.key.listener.addr.clone(), want.key.pinhole.map(IpAddr::V6));
        if matches!(self.openings.get(&key), Some((_, Some((told, _)))) if *told == port) {
            self.openings.remove(&key);
        }
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

fn key(opening: &OpeningStatus) -> OpeningKey {
    let pinhole = opening.internal.filter(|_| opening.pinhole);
    (opening.protocol, opening.listen.clone(), pinhole)
}

/// One word for each state, the same in every line and in the README.
fn word(state: &OpeningState) -> &'static str {
    match state {
        OpeningState::Searching => "searching",
        OpeningState::Open { .. } => "open",
        OpeningState::Conflict { .. } => "conflict",
        OpeningState::Denied { .. } => "denied",
        OpeningState::Failed { .. } => "failed",
    }
}

/// The holder of the port. Only UPnP distinguishes a held port from a refused one.
fn holder(holder: Option<&str>, via: Option<RouterProtocol>) -> &str {
    match (holder, via) {
        (Some(holder), _) => holder,
        (None, Some(RouterProtocol::Pcp | RouterProtocol::NatPmp)) => {
            "unknown: the router gave another port; held, or refused by a rule"
        }
        (None, _) => "unknown",
    }
}

/// Why it may not be open although the router says so.
const UNVERIFIED: &str = "the router grants it and does not show it: try it from outside";

fn say(opening: &OpeningStatus, via: Option<RouterProtocol>) {
    let (mapping, state) = (&opening.mapping, word(&opening.state));
    let (protocol, listen) = (opening.protocol.as_str(), &opening.listen);
    let port = opening.external_port;
    match &opening.state {
        OpeningState::Searching => {}
        OpeningState::Open { via, lease_s, unverified: true, .. } => warn!(
            %mapping, protocol, listen.addr = %listen, state,
            external.addr = opening.external.map(|external| display(external.ip())),
            external.port = port,
            via = via.as_str(),
            lease_s,
            unverified = UNVERIFIED,
            "open on the router"
        ),
        OpeningState::Open { via, lease_s, .. } => info!(
            %mapping, protocol, listen.addr = %listen, state,
            external.addr = opening.external.map(|external| display(external.ip())),
            external.port = port,
            via = via.as_str(),
            lease_s,
            "open on the router"
        ),
        OpeningState::Conflict { holder: by } => warn!(
            %mapping, protocol, listen.addr = %listen, state, external.port = port,
            holder = holder(by.as_deref(), via),
            "held by another machine"
        ),
        OpeningState::Denied { error, .. } => warn!(
            %mapping, protocol, listen.addr = %listen, state, external.port = port, error,
            "router refuses"
        ),
        OpeningState::Failed { error, next_try } => warn!(
            %mapping, protocol, listen.addr = %listen, state, external.port = port, error,
            retry_s = next_try.map(|at| at.saturating_sub(unix_now())),
            "not open on the router"
        ),
    }
}

fn unix_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::{fixture::LogCatcher, mapping::MappingName};

    /// What is logged while `body` runs, line by line.
    fn logged(body: impl FnOnce()) -> Vec<String> {
        let log = LogCatcher::start();
        body();
        log.lines()
    }

    fn status(state: OpeningState, times_opened: u32) -> RouterStatus {
        let opening = OpeningStatus {
            mapping: MappingName::new("web").unwrap(),
            protocol: Protocol::Tcp,
            listen: ListenAddr::every(NonZeroU16::new(80).unwrap()),
            external: Some("11.22.33.1:80".parse().unwrap()),
            external_port: 80,
            internal: None,
            pinhole: false,
            state,
            times_opened,
        };
        RouterStatus {
            state: RouterState::Ready,
            address: Some([192, 168, 77, 1].into()),
            protocol: Some(RouterProtocol::Upnp),
            external: Some([11, 22, 33, 1].into()),
            verdict: Some(Verdict::Public),
            openings: vec![opening],
            ..RouterStatus::default()
        }
    }

    fn open(ends: u64) -> OpeningState {
        OpeningState::Open {
            via: RouterProtocol::Upnp,
            lease_s: Some(3600),
            ends: Some(ends),
            unverified: false,
        }
    }

    fn missing() -> RouterStatus {
        let mut status = status(OpeningState::Searching, 1);
        (status.state, status.verdict, status.external) = (RouterState::Lost, None, None);
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
            for ends in 0..100 {
                reporter.report(&status(open(ends), 1), now);
            }
            let error = || "501".to_owned();
            for next_try in 0..100 {
                let failed = OpeningState::Failed { error: error(), next_try: Some(next_try) };
                reporter.report(&status(failed, 1), now);
            }
            reporter.report(&status(open(0), 2), now);
        });
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert_eq!((count(&lines, "router found"), count(&lines, "open on the router")), (1, 3));
        assert!(
            lines[1].contains("external.addr=11.22.33.1") && lines[1].contains("external.port=80"),
            "{lines:?}"
        );
    }

    #[test]
    fn each_line_about_an_opening_has_its_state_in_one_word() {
        let error = || "606".to_owned();
        for (state, word) in [
            (open(0), "open"),
            (OpeningState::Conflict { holder: None }, "conflict"),
            (OpeningState::Denied { error: error(), next_try: 0 }, "denied"),
            (OpeningState::Failed { error: error(), next_try: None }, "failed"),
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
            let conflict = status(OpeningState::Conflict { holder: None }, 1);
            let status = RouterStatus { protocol: Some(via), ..conflict };
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
                let there = if nth % 2 == 0 { missing() } else { status(open(0), nth) };
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
                let there = if nth % 2 == 0 { status(open(0), 1) } else { missing() };
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
            let mut status = status(open(0), 1);
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
        let nothing = RouterStatus { external: None, verdict: Some(Verdict::of(None)), ..status(open(0), 1) };
        let said = logged(|| Reporter::default().report(&nothing, now));
        assert_eq!(count(&said, "behind a second NAT"), 1, "{said:#?}");
        assert!(lines.iter().any(|line| line.contains("advice=")), "{lines:#?}");
    }
}
