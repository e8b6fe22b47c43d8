//! Which listeners are open on the home router, and at which of its ports.
//!
//! A mapping's own `router` must be possible: some listener of it can be reached from the router,
//! and no other listener has its port there. What it only inherits (from `[defaults]` or the
//! command line) passes over listeners that cannot be reached, with a warning where that is all of
//! them.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
};

use crate::{
    config::{
        lower::{listen_entry::ListenEntry, overrides::Overrides, router::Wish},
        text::{Code, Diagnostics, Located, Span},
    },
    gateway::{MOST_OPENINGS, PortRefusal, RouterPorts},
    mapping::{Exposure, ListenerKey, Protocol},
};

/// The ports below are those of well-known services; many routers keep them for themselves.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// What a mapping wants of the router.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    exposure: Exposure,
    /// Where the mapping says so itself.
    own: Option<Span>,
}

impl Wanted {
    /// What a mapping wants with these keys; `everything` where the command line opens whatever
    /// does not say otherwise.
    pub(super) fn of(own: &Overrides, defaults: &Overrides, everything: bool) -> Option<Self> {
        match own.router.given() {
            Some(Located { value: Wish::Closed, .. }) => return None,
            Some(Located { value: Wish::Open(exposure), span }) => {
                return Some(Self { exposure: *exposure, own: Some(*span) });
            }
            None => {}
        }
        let exposure = match defaults.router.given() {
            Some(Located { value: Wish::Open(exposure), .. }) => Some(*exposure),
            _ => everything.then(Exposure::default),
        };
        exposure.map(|exposure| Self { exposure, own: None })
    }

    /// Notes what of it cannot be, and what is likely to fail.
    pub(super) fn check(&self, entries: &[ListenEntry], diagnostics: &mut Diagnostics) {
        let Some(first) = entries.first() else { return };
        let reachable = || entries.iter().filter(|e| is_reachable(e.listen.ip));
        if reachable().next().is_none() {
            let message = "no router leads here: this listens on loopback or link-local addresses only";
            const HINT: &str =
                "listen on every address, or on the one that the router sends to; or say `router = false`";
            match self.own {
                Some(span) => diagnostics.problem(Code::Unreachable, span, message).hint(HINT),
                None => diagnostics.warning(Code::Unreachable, first.span, message).hint(HINT),
            };
        }
        for entry in reachable() {
            self.check_ports(entry, diagnostics);
        }
        self.check_family(entries, diagnostics);
    }

    fn check_ports(&self, entry: &ListenEntry, diagnostics: &mut Diagnostics) {
        if !has_ipv4(entry.listen.ip) {
            return;
        }
        let span = self.own.unwrap_or(entry.span);
        let (first, count) = (self.first(entry).get(), entry.listen.ports.count());
        if usize::from(first) + count - 1 > usize::from(u16::MAX) {
            let message = format!("{count} external ports from {first} on go beyond 65535");
            diagnostics.problem(Code::RangeMismatch, span, message).hint(
                "the external port is the first of as many as there are listen ports: choose a lower one",
            );
        } else if first < FIRST_UNPRIVILEGED {
            let message = format!(
                "the external port {first} is below {FIRST_UNPRIVILEGED}: many routers do not open it"
            );
            diagnostics.warning(Code::UnwiseValue, span, message).hint(format!(
                "where yours does not, choose another: router = {{ external_port = {} }}",
                30_000 + first
            ));
        }
    }

    /// Warns where the router opens nothing because of the kind of address.
    fn check_family(&self, entries: &[ListenEntry], diagnostics: &mut Diagnostics) {
        let has =
            |test: fn(IpAddr) -> bool| entries.iter().any(|e| is_reachable(e.listen.ip) && test(e.listen.ip));
        let span = self.own.or(entries.first().map(|e| e.span));
        let Some(span) = span else { return };
        if has(has_ipv6) && !has(has_ipv4) && !self.exposure.ipv6 {
            diagnostics
                .warning(Code::NoEffect, span, "nothing is opened for IPv6 addresses alone")
                .hint("say router = { ipv6 = true } to have them opened in the router's IPv6 firewall");
        }
        if self.own.is_some() && self.exposure.ipv6 && has(has_ipv4) && !has(has_ipv6) {
            diagnostics
                .warning(Code::NoEffect, span, "`ipv6 = true` opens nothing for IPv4 addresses alone")
                .hint("leave it out, or listen on every address");
        }
    }

    /// How a listener of an entry is reachable through the router; `None` where it is not, or past
    /// the last port.
    pub(super) fn exposure(&self, entry: &ListenEntry, key: &ListenerKey) -> Option<Exposure> {
        let external = self.external(entry, key).filter(|_| is_reachable(entry.listen.ip))?;
        let external_port = self.exposure.external_port.map(|_| external);
        Some(Exposure { external_port, ..self.exposure })
    }

    fn external(&self, entry: &ListenEntry, key: &ListenerKey) -> Option<NonZeroU16> {
        self.first(entry).checked_add(key.addr.port.get() - entry.listen.ports.first().get())
    }

    fn first(&self, entry: &ListenEntry) -> NonZeroU16 {
        self.exposure.external_port.unwrap_or(entry.listen.ports.first())
    }
}

/// Whether a packet from the router can come to a listener on `ip`.
pub(super) fn is_reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

/// Whether IPv4 clients come to a listener on `ip`, so that it needs a port of the router.
fn has_ipv4(ip: IpAddr) -> bool {
    ip.is_ipv4() || ip == Ipv6Addr::UNSPECIFIED
}

fn has_ipv6(ip: IpAddr) -> bool {
    ip.is_ipv6()
}

/// The ports of the router that the configuration asks for, and what was reported of them.
#[derive(Default)]
pub(super) struct Openings {
    ports: RouterPorts<Span>,
    is_told_of_many: bool,
    told: Option<Span>,
}

impl Openings {
    /// Opens the router for one listener of an entry, which needs a port that no other has.
    pub(super) fn open(
        &mut self,
        wanted: &Wanted,
        entry: &ListenEntry,
        key: &ListenerKey,
        diagnostics: &mut Diagnostics,
    ) -> Option<Exposure> {
        let span = wanted.own.unwrap_or(entry.span);
        // Past the last port: that is noted already.
        let exposure = wanted.exposure(entry, key)?;
        let external = wanted.external(entry, key)?;
        let port = match entry.listen.ip {
            IpAddr::V6(ip) if !has_ipv4(ip.into()) => (key.protocol, key.addr.port, Some(ip)),
            _ => (key.protocol, external, None),
        };
        match self.ports.take(port, span) {
            Ok(()) => {}
            Err(PortRefusal::Taken(first)) => {
                self.report_taken(key.protocol, external, span, first, diagnostics);
            }
            Err(PortRefusal::TooMany) => self.report_many(span, diagnostics),
        }
        Some(exposure)
    }

    fn report_many(&mut self, span: Span, diagnostics: &mut Diagnostics) {
        if !std::mem::replace(&mut self.is_told_of_many, true) {
            let message = format!("more than {MOST_OPENINGS} listeners in all are to be open on the router");
            diagnostics
                .problem(Code::TooMany, span, message)
                .hint("say `router = false` where it need not be, or use smaller ranges");
        }
    }

    /// Of a range that overlaps, one note is enough.
    fn report_taken(
        &mut self,
        protocol: Protocol,
        port: NonZeroU16,
        span: Span,
        first: Span,
        diagnostics: &mut Diagnostics,
    ) {
        if self.told.replace(span) == Some(span) {
            return;
        }
        if first == span {
            let message = format!("several listeners here ask for the router's port {port}/{protocol}");
            diagnostics
                .problem(Code::RouterPortInUse, span, message)
                .hint("give each of them a mapping with an `external_port` of its own");
        } else {
            let message = format!("the router's port {port}/{protocol} is asked for twice, first at");
            diagnostics
                .problem(Code::RouterPortInUse, span, message)
                .also(first)
                .hint("choose another one: router = { external_port = 30000 }");
        }
    }
}
