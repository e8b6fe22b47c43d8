//! Keys of one mapping that do not go together, or that do nothing together.
//!
//! A key of the mapping itself is to blame. What only `[defaults]` says is noted at the listener
//! where it cannot hold.

use crate::{
    config::{
        lower::{
            declared::Declared,
            hosts::HostsText,
            listen_entry::{ListenEntry, TargetEntry},
            overrides::Overrides,
        },
        text::{Code, Diagnostics, Setting, Span},
    },
    mapping::Host,
    preface::{Match, proxy::SendProxy},
    targets::{Balance, OnDown},
};

/// The keys of a mapping.
pub(super) struct Together<'a> {
    pub(super) own: &'a Overrides,
    pub(super) defaults: &'a Overrides,
    pub(super) hosts: Option<&'a HostsText>,
    /// What could be read of where it listens and leads.
    pub(super) entries: &'a [ListenEntry],
}

impl Together<'_> {
    /// Notes what cannot be, and what has no effect.
    pub(super) fn check(&self, known: &Declared, diagnostics: &mut Diagnostics) {
        if let Some(hosts) = self.hosts {
            self.check_hosts(hosts, known, diagnostics);
        }
        self.check_names(diagnostics);
        self.check_proxy(diagnostics);
        self.check_transparent(diagnostics);
        self.check_health(diagnostics);
        self.check_selection(diagnostics);
    }

    /// The resolved value of a setting, with the place to blame: its own, or a listener's.
    fn resolved<'s, T>(
        &self,
        of: impl Fn(&'s Overrides) -> &'s Setting<T>,
        own: &'s Overrides,
        defaults: &'s Overrides,
    ) -> Option<(&'s T, Option<Span>)> {
        let (mine, default) = (of(own), of(defaults));
        match mine {
            Setting::Unset => {
                let at = self.entries.first().map(|entry| entry.span);
                default.given().map(|given| (&given.value, at))
            }
            Setting::Unreadable => None,
            Setting::Set(given) => Some((&given.value, Some(given.span))),
        }
    }

    fn has_tcp(&self) -> bool {
        self.entries.iter().any(|entry| entry.protocols.has_tcp())
    }

    fn has_udp(&self) -> bool {
        self.entries.iter().any(|entry| entry.protocols.has_udp())
    }

    /// The name that clients want, if it is asked for.
    fn by(&self) -> Option<Match> {
        self.own.names.by.resolve(&self.defaults.names.by, None)
    }

    fn check_hosts(&self, hosts: &HostsText, known: &Declared, diagnostics: &mut Diagnostics) {
        for host in &hosts.items {
            for entries in [&host.allow, &host.deny].into_iter().flatten() {
                known.refuse_unknown_lists(entries, diagnostics);
            }
            if let Some(given) = host.send_proxy.given().filter(|given| given.value == SendProxy::V2Each) {
                warn_of_each(given.span, diagnostics);
            }
        }
        let by = self.own.names.by.or(&self.defaults.names.by);
        if matches!(by, Setting::Unset) || by.given().is_some_and(|given| given.value.is_none()) {
            let meant = self.match_meant();
            diagnostics
                .problem(Code::MissingKey, hosts.key, "`hosts` without `match`")
                .hint(format!("say where the client says the name: match = \"{}\"", meant.as_str()));
        }
        if !self.entries.is_empty() && !self.has_tcp() {
            diagnostics
                .problem(Code::ConflictingKeys, hosts.key, "`hosts` for UDP: its clients say no name")
                .hint("use `targets` alone, or protocol = \"tcp\"");
        } else if self.entries.iter().any(|entry| entry.protocols.has_udp() && entry.targets.is_empty()) {
            diagnostics
                .problem(Code::MissingKey, hosts.key, "`hosts` lead no UDP client: it says no name")
                .hint("add `targets` for UDP, or say protocol = \"tcp\"");
        }
        if self.by() == Some(Match::TlsSni) {
            let is_address = |name: &str| name.parse::<std::net::IpAddr>().is_ok();
            for host in hosts.items.iter().filter(|host| is_address(&host.name)) {
                let message = format!("the host {} is never reached: TLS names no address", host.name);
                diagnostics
                    .warning(Code::NoEffect, host.span, message)
                    .hint("lead to it by `targets`: they take clients that say no name");
            }
        }
    }

    /// What is most likely spoken on these ports.
    fn match_meant(&self) -> Match {
        let listens = |port: u16| {
            let has = |entry: &ListenEntry| {
                (entry.listen.ports.first().get()..=entry.listen.ports.last().get()).contains(&port)
            };
            self.entries.iter().any(has)
        };
        match () {
            () if listens(25565) => Match::Minecraft,
            () if listens(80) || listens(8080) => Match::HttpHost,
            () => Match::TlsSni,
        }
    }

    fn check_names(&self, diagnostics: &mut Diagnostics) {
        let by = self.by();
        let asleep = self.own.names.asleep.given().filter(|given| given.value.is_some());
        if let Some(given) = asleep
            && by != Some(Match::Minecraft)
            && !matches!(self.own.names.by, Setting::Unreadable)
        {
            diagnostics
                .problem(Code::MissingKey, given.span, "`on_connect_failure` answers Minecraft players alone")
                .hint("add match = \"minecraft\", or leave it out");
        }
        let answers = by == Some(Match::Minecraft)
            && self
                .own
                .names
                .asleep
                .or(&self.defaults.names.asleep)
                .given()
                .is_some_and(|g| g.value.is_some());
        if let Some(given) = self.own.names.by.given().filter(|given| given.value.is_some())
            && self.hosts.is_none()
            && (self.has_tcp() || self.entries.is_empty())
            && !answers
            && asleep.is_none()
        {
            diagnostics
                .warning(
                    Code::NoEffect,
                    given.span,
                    "`match` without `hosts`: every client has the same targets",
                )
                .hint("name the hosts, as in hosts = { \"mc.example.org\" = \"10.0.0.20:25565\" }");
        }
        let accept = self.resolved(|o| &o.options.accept_proxy, self.own, self.defaults);
        if let Some(given) = self.own.options.match_timeout.given()
            && by.is_none()
            && self.hosts.is_none()
            && accept.is_none_or(|(nets, _)| nets.is_empty())
            && self.has_tcp()
        {
            diagnostics
                .warning(Code::NoEffect, given.span, "`match_timeout` without `match` or `accept_proxy`")
                .hint("nothing is waited for: leave it out");
        }
    }

    fn check_proxy(&self, diagnostics: &mut Diagnostics) {
        let Some((send, at)) = self.resolved(|o| &o.options.send_proxy, self.own, self.defaults) else {
            return;
        };
        let Some(at) = at else { return };
        if *send == SendProxy::V1 && self.has_udp() {
            diagnostics
                .problem(Code::ConflictingKeys, at, "send_proxy = \"v1\" for UDP: that form is for TCP alone")
                .hint("write send_proxy = \"v2\"");
        }
        let is_own = self.own.options.send_proxy.given().is_some();
        if *send == SendProxy::V2Each && is_own && !self.has_udp() && !self.entries.is_empty() {
            warn_of_each(at, diagnostics);
        }
    }

    fn check_transparent(&self, diagnostics: &mut Diagnostics) {
        let (own, defaults) = (self.own, self.defaults);
        let Some((true, at)) = self.resolved(|o| &o.options.transparent, own, defaults) else { return };
        let sends = self
            .resolved(|o| &o.options.send_proxy, own, defaults)
            .filter(|(send, _)| **send != SendProxy::Off);
        let host = self.hosts.iter().flat_map(|hosts| &hosts.items).find_map(|host| {
            host.send_proxy.given().filter(|given| given.value != SendProxy::Off).map(|given| given.span)
        });
        if let Some(at) = host.or(sends.and_then(|(_, other)| blamed(at, own, other))) {
            diagnostics
                .problem(Code::ConflictingKeys, at, "`send_proxy` beside `transparent`")
                .hint("with `transparent` the target sees the client already: leave one of them out");
        }
        if let Some((_, other)) = self.resolved(|o| &o.options.source, own, defaults)
            && let Some(at) = blamed(at, own, other)
        {
            diagnostics
                .problem(Code::ConflictingKeys, at, "`source` beside `transparent`")
                .hint("with `transparent` the source is the client's own address: leave one of them out");
        }
        self.warn_of_replies(diagnostics);
    }

    /// Replies to the client's own address have to come back by way of portway, and both have to be
    /// of one family.
    fn warn_of_replies(&self, diagnostics: &mut Diagnostics) {
        let leads = || self.entries.first().into_iter().flat_map(ListenEntry::all);
        let ip_of = |target: &TargetEntry| match target.spec.host {
            Host::Ip(ip, _) => Some(ip),
            Host::Name(_) | Host::Srv(_) => None,
        };
        if let Some(target) = leads().find(|target| ip_of(target).is_some_and(|ip| ip.is_loopback())) {
            diagnostics.warning(Code::Unreachable, target.span, "`transparent` to this machine itself").hint(
                "its replies would go to the client past portway: use `send_proxy`, or another machine",
            );
        } else if let Some(entry) = self.entries.iter().find(|entry| entry.listen.is_every_address())
            && leads().all(|target| ip_of(target).is_some_and(|ip| ip.is_ipv4()))
        {
            diagnostics
                .warning(
                    Code::Unreachable,
                    entry.span,
                    "with `transparent`, IPv6 clients reach no IPv4 target",
                )
                .hint("listen on 0.0.0.0 for IPv4 alone, or name an IPv6 target, too");
        }
    }

    fn check_health(&self, diagnostics: &mut Diagnostics) {
        let health = self.resolved(|o| &o.selection.health, self.own, self.defaults);
        let Some((Some(health), Some(at))) = health else { return };
        if health.send.is_some() || !self.has_udp() {
            return;
        }
        const HINT: &str = "say what it sends, and what is answered, as in \
                            health = { send = 'PING', expect = 'PONG' }";
        if !self.has_tcp() {
            diagnostics
                .problem(Code::MissingKey, at, "`health` for UDP without `send`: silence says nothing")
                .hint(HINT);
        } else if self.own.selection.health.given().is_some() {
            diagnostics.warning(Code::NoEffect, at, "`health` without `send` probes TCP alone").hint(HINT);
        }
    }

    /// Every group of targets: those of the mapping, and those of each name.
    fn groups(&self) -> impl Iterator<Item = &[TargetEntry]> {
        self.entries.first().into_iter().flat_map(|entry| {
            let hosts = entry.names.iter().flat_map(|names| names.hosts.iter());
            std::iter::once(&*entry.targets).chain(hosts.map(|host| &*host.targets))
        })
    }

    fn check_selection(&self, diagnostics: &mut Diagnostics) {
        let own = &self.own.selection;
        let defaults = &self.defaults.selection;
        for group in self.groups() {
            if let [first, ..] = group
                && group.iter().all(|target| target.backup)
            {
                diagnostics
                    .warning(Code::NoEffect, first.span, "`backup` on every target: none of them is one")
                    .hint("leave it out where a target takes sessions from the start");
            }
        }
        let balance = own.balance.resolve(&defaults.balance, Balance::default());
        let weighed = self.groups().flatten().find(|target| target.weight.get() > 1);
        if let Some(target) = weighed.filter(|_| balance == Balance::First) {
            diagnostics
                .warning(Code::NoEffect, target.span, "`weight` beside balance = \"first\"")
                .hint("the first target that works takes every session: leave `weight` out");
        }
        let is_single = !self.entries.is_empty() && self.groups().all(|group| group.len() < 2);
        if let Some(given) = own.slow_start.given().filter(|given| given.value.is_some())
            && (is_single || balance == Balance::First)
        {
            let why = if is_single { "for a single target" } else { "beside balance = \"first\"" };
            diagnostics
                .warning(Code::NoEffect, given.span, format!("`slow_start` {why}"))
                .hint("no other target takes the sessions meanwhile: leave it out");
        }
        let has_health = own.health.or(&defaults.health).given().is_some_and(|given| given.value.is_some());
        if let Some(given) = own.on_down.given().filter(|given| given.value == OnDown::Close)
            && is_single
            && !has_health
        {
            let message = "`on_down` for a single target without `health`";
            diagnostics
                .warning(Code::NoEffect, given.span, message)
                .hint("add a second target, or `health` to notice that this one is down");
        }
    }
}

fn warn_of_each(at: Span, diagnostics: &mut Diagnostics) {
    diagnostics
        .warning(Code::NoEffect, at, "send_proxy = \"v2-each\" for TCP is the same as \"v2\"")
        .hint("write \"v2\"");
}

/// Of two keys that exclude each other, one that the mapping says itself is to blame.
fn blamed(transparent: Option<Span>, own: &Overrides, other: Option<Span>) -> Option<Span> {
    if own.options.transparent.given().is_some() { transparent } else { other }
}
