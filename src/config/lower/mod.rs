//! Mappings as written to listeners: the grammar is applied, ranges are spread out, defaults come
//! in.
//!
//! A disabled mapping is checked like any other, but claims no port and opens no listener. The two
//! forms in which a mapping is written come together in `forms`.

pub(super) mod api;
mod claims;
pub(crate) mod daemon;
pub(super) mod declared;
pub(super) mod docker;
pub(super) mod draft;
mod entries;
mod exposure;
mod forms;
pub(super) mod gate;
pub(super) mod guard;
pub(super) mod hosts;
pub(super) mod knock;
pub(super) mod labels;
pub(super) mod listen_entry;
pub(super) mod lists;
pub(super) mod log;
mod loops;
mod many;
mod names;
mod openings;
pub(super) mod overrides;
mod own_api;
pub(super) mod own_paths;
pub(super) mod paused;
mod policy;
pub(crate) mod probe;
mod proxy;
mod router;
pub(super) mod secret;
mod selection;
pub(super) mod settings;
pub(super) mod target;
mod together;
pub(super) mod trial;
mod wake;
mod ways;

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::SystemTime};

use crate::{
    config::{
        containers::Home,
        file::{FileText, MappingText},
        host::HostView,
        lower::{
            api::OwnService,
            claims::{Claim, Claims},
            declared::Declared,
            draft::{Abouts, Draft, MappingNumber},
            exposure::OwnAddresses,
            hosts::HostsText,
            knock::KnockText,
            listen_entry::ListenEntry,
            many::Many,
            openings::{Openings, Wanted},
            overrides::Overrides,
            paused::Paused,
            policy::HasRates,
            together::Together,
            ways::Ways,
        },
        plan::{MappingPlan, Plan, Service, about::State},
        text::{Code, Diagnostics, Setting, Span, Text, hint::instead},
    },
    mapping::{
        Exposure, Host, ListenerKey, MappingName,
        publish::{ListenSpec, Protocols, meant},
    },
    meter::SessionLines,
    policy::Policy,
    relay::{tcp::TcpOptions, udp::UdpOptions},
    targets::Selection,
};

/// The outcome of all mappings.
pub(crate) struct Lowered {
    pub(crate) plan: Plan,
    /// What is known of the mappings, which is not yet in the plan.
    pub(crate) abouts: Abouts,
    pub(crate) disabled: usize,
}

/// What the listeners of a mapping are made from.
struct ListenerOptions {
    mapping: MappingNumber,
    is_named: bool,
    tcp: TcpOptions,
    udp: UdpOptions,
    wanted: Option<Wanted>,
}

/// What the keys of a mapping come to, with those of `[defaults]`.
#[derive(Clone)]
struct Resolved {
    policy: Arc<Policy>,
    log: SessionLines,
    selection: Selection,
    tcp: TcpOptions,
    udp: UdpOptions,
}

/// What a listener is for.
#[derive(Clone, Copy)]
enum For<'t> {
    /// A mapping.
    Mapping(&'t ListenerOptions),
    /// Something that belongs to no mapping.
    Alone(&'t Service),
}

/// What all mappings are lowered with.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) host: &'a dyn HostView,
    pub(crate) defaults: &'a Overrides,
    pub(crate) known: &'a Declared,
    /// The command line opens every listener on the router whose mapping does not say otherwise.
    pub(crate) everything_on_router: bool,
    /// Where `[router]` is, if anywhere.
    pub(crate) router: Option<Span>,
    /// The listeners of portway itself, which no mapping may take or lead to.
    pub(crate) services: &'a [OwnService],
    /// The mappings that are paused.
    pub(crate) paused: &'a Paused,
    /// Mappings that end before this are left out.
    pub(crate) now: SystemTime,
}

impl Context<'_> {
    fn wanted(&self, own: &Overrides) -> Option<Wanted> {
        Wanted::of(own, self.defaults, self.everything_on_router)
    }
}

/// Collects listeners from mapping after mapping.
pub(crate) struct Lowering<'a> {
    context: Context<'a>,
    many: Many<'a>,
    own: OwnAddresses<'a>,
    diagnostics: &'a mut Diagnostics,
    draft: Draft,
    entries: Vec<ListenEntry>,
    claims: Claims,
    openings: Openings,
    /// Some mapping, even a disabled one, wants to be open on the router.
    uses_router: bool,
    /// Some open mapping lets in only clients that knocked.
    knocks: bool,
    /// One of these wants to be open on the router, so the port of knocks has to be.
    knocks_on_router: bool,
    /// Which bursts some mapping, even a disabled one, has a rate for.
    has_rates: HasRates,
    names: HashMap<String, Span>,
    disabled: usize,
    /// The listeners of closed mappings that are remembered.
    remembered: usize,
    is_full: bool,
    /// The targets of all listeners together.
    ways: usize,
    /// How many cures for specs were looked for.
    cures: usize,
    /// Where a target is whose host is not named, if not on this machine.
    home: Option<Home>,
    /// What specs outside any mapping have. There may be thousands of them.
    alone: Option<Resolved>,
}

/// More listeners than one machine can have for one address: every port, both protocols, twice.
const MOST_LISTENERS: usize = 262_144;
/// The most targets of all listeners together: what reads, checks or prints a plan takes time for
/// each of them.
pub(crate) const MOST_WAYS: usize = 1 << 20;

impl<'a> Lowering<'a> {
    pub(crate) fn new(context: Context<'a>, diagnostics: &'a mut Diagnostics) -> Self {
        context.defaults.policy.check_defaults(context.known, diagnostics);
        let own = OwnAddresses::new(context.host);
        warn_of_source(context.defaults, &own, diagnostics);
        Self {
            many: Many::new(context.host),
            own,
            context,
            diagnostics,
            draft: Draft::default(),
            entries: Vec::new(),
            claims: Claims::default(),
            openings: Openings::default(),
            uses_router: false,
            knocks: false,
            knocks_on_router: false,
            has_rates: HasRates::default(),
            names: HashMap::new(),
            disabled: 0,
            remembered: 0,
            is_full: false,
            ways: 0,
            cures: 0,
            home: None,
            alone: None,
        }
    }

    /// The same, for a look at a guess: it asks for no further guesses.
    pub(crate) fn without_cures(mut self) -> Self {
        self.cures = usize::MAX / 2;
        self
    }

    /// Takes in the mappings of a file or of another fragment.
    pub(crate) fn mappings(&mut self, text: &FileText) {
        self.home.clone_from(&text.home);
        let none = Overrides::default();
        for spec in &text.publish {
            self.publish_alone(spec, &none);
        }
        for mapping in &text.mappings {
            self.mapping(mapping, text.is_broken);
        }
    }

    /// Checks what only the whole shows, and hands over the plan.
    pub(crate) fn finish(self) -> Lowered {
        let (mut plan, abouts) = self.draft.finish();
        if self.knocks_on_router {
            let doors = plan.listeners.values_mut();
            for door in doors.filter(|door| matches!(door.service, Service::Knock | Service::Step)) {
                door.exposure = Some(Exposure::default());
            }
        }
        if let Some(span) = self.context.known.knock.filter(|_| !self.knocks) {
            self.diagnostics
                .warning(Code::NoEffect, span, "[knock] without a mapping that wants a knock")
                .hint("say `knock = true` in one");
        }
        loops::refuse(&plan, &self.claims, &self.entries, self.context.host, self.diagnostics);
        let Context { services, host, .. } = self.context;
        own_api::refuse(&plan, &self.claims, &self.entries, services, host, self.diagnostics);
        if let Some(span) = self.context.router
            && !self.uses_router
        {
            self.diagnostics
                .warning(Code::NoEffect, span, "[router] without a mapping that is to be open on the router")
                .hint("say `router = true` in one, or in [defaults] for all");
        }
        self.context.defaults.policy.warn_of_idle_bursts(self.has_rates, self.diagnostics);
        for (name, span) in self.names.iter().filter(|(name, _)| name.contains('/')) {
            if let Some(other) = self.claims.default_name(name) {
                let message = format!("the name \"{name}\" is the default name of the listener at");
                self.diagnostics
                    .problem(Code::DuplicateName, *span, message)
                    .also(self.entries[other].span)
                    .hint("choose another name");
            }
        }
        Lowered { plan, abouts, disabled: self.disabled }
    }

    /// A spec outside any mapping: it has its defaults and nothing else.
    fn publish_alone(&mut self, text: &Text, none: &Overrides) {
        let Some(entry) = self.short(text) else { return };
        let entries = vec![entry];
        self.check(&entries, none, None);
        let resolved = self.alone.take().unwrap_or_else(|| self.resolved(none));
        self.open_all(entries, None, (text.span(), None), (none, &resolved));
        self.alone = Some(resolved);
    }

    fn resolved(&self, own: &Overrides) -> Resolved {
        let defaults = self.context.defaults;
        Resolved {
            policy: Arc::new(own.policy.policy(&defaults.policy)),
            log: own.log.resolve(&defaults.log, SessionLines::default()),
            selection: own.selection.selection(&defaults.selection),
            tcp: own.options.tcp(&defaults.options),
            udp: own.options.udp(&defaults.options),
        }
    }

    fn mapping(&mut self, mapping: &MappingText, is_broken: bool) {
        if mapping.until.is_some_and(|until| until <= self.context.now) {
            return;
        }
        let name = mapping.name.as_ref().and_then(|text| self.name(text));
        let entries = self.entries_of(mapping, is_broken);
        if !entries.is_empty() && entries.iter().all(|e| !e.protocols.has_tcp()) {
            for (key, span, hint) in mapping.overrides.tcp_only() {
                self.diagnostics
                    .warning(Code::NoEffect, span, format!("`{key}` has no meaning for UDP"))
                    .hint(hint);
            }
        }
        if let Some((key, span)) = mapping.overrides.udp_only()
            && !entries.is_empty()
            && entries.iter().all(|e| !e.protocols.has_udp())
        {
            self.diagnostics
                .warning(Code::NoEffect, span, format!("`{key}` has no meaning for TCP"))
                .hint("remove it; for TCP there are `new_sessions_per_client` and `bandwidth_per_session`");
        }
        self.check(&entries, &mapping.overrides, mapping.hosts.as_ref());
        warn_of_source(&mapping.overrides, &self.own, self.diagnostics);
        let resolved = self.resolved(&mapping.overrides);
        self.open_all(entries, name, (mapping.span, mapping.until), (&mapping.overrides, &resolved));
    }

    /// Checks what does not depend on other mappings.
    fn check(&mut self, entries: &[ListenEntry], own: &Overrides, hosts: Option<&HostsText>) {
        for entry in entries {
            self.check_sources(entry, own);
            self.many.refuse_for_tcp(entry, self.diagnostics);
        }
        let Context { defaults, known, .. } = self.context;
        Together { own, defaults, hosts, entries }.check(known, self.diagnostics);
        let defaults = &defaults.policy;
        own.policy.check(defaults, known, self.diagnostics);
        self.has_rates |= own.policy.has_rates(defaults);
        if let Some(wanted) = self.context.wanted(own) {
            self.uses_router = true;
            wanted.check(entries, self.diagnostics);
        }
    }

    /// Opens the listeners of a mapping, unless it is closed.
    fn open_all(
        &mut self,
        entries: Vec<ListenEntry>,
        name: Option<MappingName>,
        (span, until): (Span, Option<SystemTime>),
        (own, resolved): (&Overrides, &Resolved),
    ) {
        let enabled = own.enabled.resolve(&self.context.defaults.enabled, true);
        let paused = match &name {
            Some(name) => self.context.paused.has(name),
            None if self.context.paused.is_empty() => false,
            None => default_name(&entries).is_some_and(|name| self.context.paused.has(&name)),
        };
        let state = State { enabled, paused, until };
        let Resolved { policy, log, selection, tcp, udp } = resolved;
        self.knocks |= policy.knock;
        self.knocks_on_router |= policy.knock && state.is_open() && self.context.wanted(own).is_some();
        let is_named = name.is_some();
        let plan = MappingPlan { policy: Arc::clone(policy), log: *log, selection: selection.clone() };
        let terms = ListenerOptions {
            mapping: self.draft.mapping(name, span, plan, state),
            is_named,
            tcp: tcp.clone(),
            udp: udp.clone(),
            wanted: self.context.wanted(own),
        };
        if !state.is_open() {
            self.disabled += 1;
            return self.remember_closed(&entries, &terms);
        }
        for entry in entries {
            let on_router = terms.wanted.is_some();
            exposure::warn(&entry, policy, on_router, self.context.host, self.diagnostics);
            self.own.warn_of_listener(&entry, self.diagnostics);
            self.open(entry, For::Mapping(&terms));
        }
    }

    /// Takes in the listeners that a closed mapping would have. They claim nothing.
    fn remember_closed(&mut self, entries: &[ListenEntry], terms: &ListenerOptions) {
        /// More of one range are not shown, and less where there are many of all mappings.
        const MOST: usize = 1000;
        const MOST_OF_ALL: usize = 65_536;
        for entry in entries {
            let shared = Ways::shared(entry);
            for protocol in entry.protocols.iter() {
                let most = if self.remembered < MOST_OF_ALL { MOST } else { 1 };
                for port in entry.listen.ports.ports().take(most) {
                    self.remembered += 1;
                    let key = ListenerKey { protocol, addr: entry.listen.addr(port) };
                    let ways = shared.clone().unwrap_or_else(|| Ways::of(entry, port));
                    let Some(service) = ways.service(protocol, &terms.tcp, &terms.udp) else { continue };
                    let name = MappingName::default_for(entry.listen.ports, protocol);
                    let exposure = terms.wanted.as_ref().and_then(|wanted| wanted.exposure(entry, &key));
                    self.draft.listener(terms.mapping, key, name, service, exposure);
                }
            }
        }
    }

    /// Takes in the decoys.
    pub(crate) fn traps(&mut self, specs: &[Text]) {
        let host = self.context.host;
        let services = |name: &str, protocol| host.service(name, protocol);
        for text in specs {
            let spec = ListenSpec::parse(&text.value, Protocols::Tcp, &services);
            let meant = |value: &str| meant::listen(value, Protocols::Tcp, &services);
            let Some(listen) = self.sound("trap", text, spec, meant) else { continue };
            let (span, targets) = (text.span(), Arc::default());
            let entry = ListenEntry { listen, span, protocols: Protocols::Tcp, targets, names: None };
            exposure::warn_of_ephemeral_ports(&entry, host, self.diagnostics);
            self.own.warn_of_listener(&entry, self.diagnostics);
            self.open(entry, For::Alone(&Service::Trap));
        }
    }

    /// Takes in the port of knocks, and the ports of the sequence.
    pub(crate) fn knocks(&mut self, knock: &KnockText) {
        let host = self.context.host;
        let services = |name: &str, protocol| host.service(name, protocol);
        let listen = knock.listen().map(|text| ("listen", text, Service::Knock));
        let steps = knock.steps().iter().map(|text| ("sequence", text, Service::Step));
        for (key, text, service) in listen.into_iter().chain(steps) {
            let (value, protocols) = knock::port_of(&text.value, service == Service::Knock);
            let spec = ListenSpec::parse(value, protocols, &services);
            let meant = |value: &str| meant::listen(value, protocols, &services);
            let Some(listen) = self.sound(key, text, spec, meant) else { continue };
            if listen.ports.count() > 1 {
                let message = format!("`{}` is more than one port", text.value);
                self.diagnostics.problem(Code::InvalidSpec, text.span(), message).hint("name one port");
                continue;
            }
            let (span, targets) = (text.span(), Arc::default());
            let entry = ListenEntry { listen, span, protocols, targets, names: None };
            self.own.warn_of_listener(&entry, self.diagnostics);
            self.open(entry, For::Alone(&service));
        }
    }

    /// Checks a name, and that no other mapping has it.
    fn name(&mut self, text: &Text) -> Option<MappingName> {
        let span = text.span();
        let name = match MappingName::new(&text.value) {
            Ok(name) => name,
            Err(e) => {
                self.diagnostics
                    .problem(Code::InvalidName, span, format!("`{}` is not a name for a mapping", text.value))
                    .text(&text.value)
                    .hint(match name_meant(&text.value) {
                        Some(meant) => instead(text, &format!("\"{meant}\"")),
                        None => e.to_string(),
                    });
                return None;
            }
        };
        if let Some(first) = self.names.get(name.as_str()) {
            self.diagnostics
                .problem(Code::DuplicateName, span, format!("the name \"{name}\" is used twice, first at"))
                .also(*first)
                .hint("give each mapping a name of its own");
        } else {
            self.names.insert(name.as_str().to_owned(), span);
        }
        Some(name)
    }

    /// A source address reaches only targets of its own family.
    fn check_sources(&mut self, entry: &ListenEntry, own: &Overrides) {
        let default = &self.context.defaults.options.source;
        let is_inherited = matches!(own.options.source, Setting::Unset);
        let Some(source) = own.options.source.or(default).given() else { return };
        let reaches = |ip: &IpAddr| ip.is_ipv4() == source.value.is_ipv4();
        for target in entry.all() {
            if let Host::Ip(ip, _) = &target.spec.host
                && !reaches(ip)
            {
                let at = if is_inherited { target.span } else { source.span };
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                let message = format!("the source {} cannot reach the target {ip}", source.value);
                self.diagnostics
                    .problem(Code::Unreachable, at, message)
                    .hint(format!("its source is an {family} address"));
            }
        }
    }

    /// Claims the ports of an enabled entry and plans their listeners; without terms they are
    /// decoys.
    fn open(&mut self, entry: ListenEntry, terms: For<'_>) {
        let asked = entry.listen.ports.count() * entry.protocols.iter().count();
        if self.claims.asked + asked > MOST_LISTENERS {
            if !std::mem::replace(&mut self.is_full, true) {
                let message = format!("more than {MOST_LISTENERS} listeners in all");
                self.diagnostics
                    .problem(Code::TooMany, entry.span, message)
                    .hint("use fewer or smaller ranges");
            }
            return;
        }
        self.claims.asked += asked;
        self.ways = self.ways.saturating_add(asked.saturating_mul(entry.all().count()));
        if self.ways > MOST_WAYS {
            self.refuse_ways(entry.span);
            return;
        }
        let claim = Claim {
            entry: self.entries.len(),
            is_named: matches!(terms, For::Mapping(terms) if terms.is_named),
        };
        let mut is_told = false;
        let shared = Ways::shared(&entry);
        for protocol in entry.protocols.iter() {
            for port in entry.listen.ports.ports() {
                let key = ListenerKey { protocol, addr: entry.listen.addr(port) };
                match self.claims.claim(&key, claim) {
                    Ok(()) => {
                        let name = MappingName::default_for(entry.listen.ports, protocol);
                        match terms {
                            For::Mapping(terms) => self.listener(&entry, terms, key, name, shared.as_ref()),
                            For::Alone(service) => self.draft.alone(key, name, service.clone()),
                        }
                    }
                    Err(other) if !is_told => {
                        is_told = true;
                        self.refuse_twice(&entry, &key, other, terms);
                    }
                    Err(_) => {}
                }
            }
        }
        self.entries.push(entry);
    }

    /// Says once that there are too many targets.
    pub(crate) fn refuse_ways(&mut self, span: Span) {
        if !std::mem::replace(&mut self.is_full, true) {
            let message = format!("more than {MOST_WAYS} targets of all listeners together");
            self.diagnostics
                .problem(Code::TooMany, span, message)
                .hint("use fewer targets, or smaller ranges of listen ports");
        }
    }

    fn refuse_twice(&mut self, entry: &ListenEntry, key: &ListenerKey, other: usize, terms: For<'_>) {
        let first = self.entries.get(other).map_or(entry.span, |e| e.span);
        self.diagnostics
            .problem(Code::PortInUse, entry.span, format!("{key} is listened on twice, first at"))
            .also(first)
            .hint(match terms {
                For::Mapping(_) => {
                    "a port takes one mapping for each protocol, and a wildcard takes all addresses"
                }
                For::Alone(Service::Trap) => "a trap takes a port that no mapping has",
                For::Alone(_) => "a port of knocks takes a port that nothing else has",
            });
    }

    /// Plans one listener of an entry.
    fn listener(
        &mut self,
        entry: &ListenEntry,
        terms: &ListenerOptions,
        key: ListenerKey,
        default: MappingName,
        shared: Option<&Ways>,
    ) {
        let ways = shared.cloned().unwrap_or_else(|| Ways::of(entry, key.addr.port));
        // A listener that leads nowhere is noted where its keys are checked.
        let Some(service) = ways.service(key.protocol, &terms.tcp, &terms.udp) else { return };
        let wanted = terms.wanted.as_ref();
        let exposure = wanted.and_then(|wanted| self.openings.open(wanted, entry, &key, self.diagnostics));
        self.draft.listener(terms.mapping, key, default, service, exposure);
    }
}

/// A name with a hyphen for each run of characters that no name has.
fn name_meant(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let words: Vec<&str> = text.split(|c| !plain(c)).filter(|word| !word.is_empty()).collect();
    let name: String = words.join("-").chars().take(MappingName::MAX_LEN).collect();
    MappingName::new(&name).is_ok().then_some(name)
}

/// The name of a mapping that was given none: that of its first listener.
fn default_name(entries: &[ListenEntry]) -> Option<MappingName> {
    let keys = entries.iter().flat_map(|entry| {
        let addr = entry.listen.addr(entry.listen.ports.first());
        entry.protocols.iter().map(move |protocol| (ListenerKey { protocol, addr: addr.clone() }, entry))
    });
    let (key, entry) = keys.min_by(|(one, _), (other, _)| one.cmp(other))?;
    Some(MappingName::default_for(entry.listen.ports, key.protocol))
}

/// Notes a source that this machine does not have.
fn warn_of_source(overrides: &Overrides, own: &OwnAddresses<'_>, diagnostics: &mut Diagnostics) {
    const CURE: &str = "targets are not reached from it: compare with `ip addr`, or leave `source` out";
    if let Some(source) = overrides.options.source.given() {
        own.warn_of_foreign(source.value, source.span, "the source", CURE, diagnostics);
    }
}
