//! The two forms of a mapping: the short one, a publish spec, and the long one, `listen` and
//! `targets`.
//!
//! Both make entries. What cannot be read is noted, and the rest is looked at all the same.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
    sync::{Arc, OnceLock},
};

use crate::{
    config::{
        containers::Home,
        file::MappingText,
        lower::{
            Lowering, MOST_WAYS,
            entries::EntriesText,
            listen_entry::{HostEntry, ListenEntry, NamesEntry, TargetEntry},
            target::TargetText,
            trial,
        },
        source::SpecsFrom,
        text::{
            Code, List, Setting, Text,
            hint::{expanded, instead},
        },
    },
    mapping::{
        Host,
        publish::{ListenSpec, Mismatch, Protocols, Publish, SpecError, TargetSpec, meant},
    },
    policy::AccessSpec,
    preface::Match,
    relay::tcp::Asleep,
};

/// The host of a target that is not known to be anywhere. No text names it.
const NOWHERE: Host = Host::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED), None);

impl Lowering<'_> {
    /// What a mapping promises, in whichever form; only what could be read.
    pub(super) fn entries_of(&mut self, mapping: &MappingText, is_broken: bool) -> Vec<ListenEntry> {
        let MappingText { span, publish, listen, targets, hosts, has_slip, .. } = mapping;
        // What is missing may stand in a broken line, or behind a mistyped key: that is noted
        // already.
        let is_broken = is_broken || *has_slip;
        match (publish, listen, targets) {
            (Some(publish), _, _) => {
                self.refuse_beside_publish(mapping);
                let entries = publish.items.iter().filter_map(|text| self.short(text)).collect();
                self.named(entries, mapping)
            }
            (None, None, None) => {
                if !is_broken {
                    self.diagnostics
                        .problem(Code::MissingKey, *span, "a mapping without `publish` or `listen`")
                        .hint("say what it forwards, as in publish = \"8080:80\"");
                }
                Vec::new()
            }
            (None, listen, targets) => {
                match (listen, targets) {
                    (Some(listen), None) if !is_broken && hosts.is_none() => {
                        self.diagnostics
                            .problem(Code::MissingKey, listen.key, "`listen` without `targets`")
                            .hint("say where it leads, as in targets = [\"10.0.0.7:3389\"]");
                    }
                    (None, Some(targets)) if !is_broken => {
                        self.diagnostics
                            .problem(Code::MissingKey, targets.key, "`targets` without `listen`")
                            .hint("say where it listens, as in listen = [\"3389\"]");
                    }
                    _ => {}
                }
                self.long(listen.as_ref(), targets.as_ref(), mapping)
            }
        }
    }

    /// The keys of the long form do not go together with the short one.
    fn refuse_beside_publish(&mut self, mapping: &MappingText) {
        let listen = mapping.listen.as_ref().map(|list| ("listen", list.key));
        let targets = mapping.targets.as_ref().map(|list| ("targets", list.key));
        for (key, span) in listen.into_iter().chain(targets) {
            self.diagnostics
                .problem(Code::ConflictingKeys, span, format!("`{key}` beside `publish`"))
                .hint("use either `publish`, or `listen` and `targets`");
        }
        if let Some(protocol) = mapping.overrides.protocol.given() {
            self.diagnostics
                .problem(Code::ConflictingKeys, protocol.span, "`protocol` beside `publish`")
                .hint("write it in the spec, as in publish = \"8080:80/tcp+udp\"");
        }
    }

    /// The short form: a publish spec.
    pub(super) fn short(&mut self, text: &Text) -> Option<ListenEntry> {
        if self.diagnostics.is_full() {
            return None;
        }
        let host = self.context.host;
        let services = |name: &str, protocol| host.service(name, protocol);
        let spec = Publish::parse_for(&self.home_host(), &text.value, &services);
        let meant = |value: &str| meant::publish(value, &services);
        let Publish { listen, target, protocols } = self.sound("publish", text, spec, meant)?;
        if !self.is_in_this_build(&target, text) || !self.has_place(&target, text) {
            return None;
        }
        let span = text.span();
        let target = TargetEntry { spec: target, span, weight: NonZeroU16::MIN, backup: false };
        Some(ListenEntry { listen, span, protocols, targets: [target].into(), names: None })
    }

    /// The long form: every `listen` entry leads to all of the targets.
    fn long(
        &mut self,
        listen: Option<&List>,
        targets: Option<&List<TargetText>>,
        mapping: &MappingText,
    ) -> Vec<ListenEntry> {
        let own = &mapping.overrides.protocol;
        let is_unreadable = matches!(own, Setting::Unreadable);
        // If it cannot be read, the addresses are still checked, with the services of both
        // protocols.
        let unknown = if is_unreadable { Protocols::Both } else { Protocols::Tcp };
        let protocols = own.resolve(&self.context.defaults.protocol, unknown);
        let host = self.context.host;
        let services = |name: &str, protocol| host.service(name, protocol);
        let read = targets.map(|targets| self.targets(targets, protocols));
        let is_whole = !is_unreadable
            && match (targets, &read) {
                (Some(targets), Some(read)) => {
                    targets.is_whole && !targets.items.is_empty() && read.len() == targets.items.len()
                }
                _ => mapping.hosts.is_some(),
            };
        let read: Arc<[TargetEntry]> = read.unwrap_or_default().into();
        if let Some(list) = listen
            && list.items.len().saturating_mul(read.len()) > MOST_WAYS
        {
            self.refuse_ways(list.key);
            return Vec::new();
        }
        let mut entries = Vec::new();
        for text in listen.map_or(&[][..], |l| &l.items) {
            let spec = ListenSpec::parse(&text.value, protocols, &services);
            let meant = |value: &str| meant::listen(value, protocols, &services);
            let Some(listen) = self.sound("listen", text, spec, meant) else { continue };
            if self.all_fit(&listen, read.iter()) && is_whole {
                let (span, targets) = (text.span(), Arc::clone(&read));
                entries.push(ListenEntry { listen, span, protocols, targets, names: None });
            }
        }
        self.named(entries, mapping)
    }

    /// The targets of a list that could be read.
    fn targets(&mut self, list: &List<TargetText>, protocols: Protocols) -> Vec<TargetEntry> {
        let host = self.context.host;
        let services = |name: &str, protocol| host.service(name, protocol);
        let mut read = Vec::with_capacity(list.items.len());
        for TargetText { address, weight, backup } in &list.items {
            let spec = TargetSpec::parse_for(&self.home_host(), &address.value, protocols, &services);
            let meant = |value: &str| meant::target(value, protocols, &services);
            let spec = self.sound("targets", address, spec, meant);
            let spec =
                spec.filter(|spec| self.is_in_this_build(spec, address) && self.has_place(spec, address));
            let target = |spec| TargetEntry { spec, span: address.span(), weight: *weight, backup: *backup };
            read.extend(spec.map(target));
        }
        read
    }

    /// The machine of a target whose host is not named.
    fn home_host(&self) -> Host {
        match &self.home {
            None => Host::LOOPBACK,
            Some(Home::At(ip)) => Host::Ip(*ip, None),
            Some(Home::Unknown(..)) => NOWHERE,
        }
    }

    /// Notes a target of a container that is not known to be anywhere.
    fn has_place(&mut self, spec: &TargetSpec, text: &Text) -> bool {
        let Some(Home::Unknown(why, cure)) = self.home.as_ref().filter(|_| spec.host == NOWHERE) else {
            return true;
        };
        self.diagnostics.problem(Code::Unreachable, text.span(), why.clone()).hint(cure.clone());
        false
    }

    /// Notes the name of a service where this build looks up no SRV records.
    fn is_in_this_build(&mut self, spec: &TargetSpec, address: &Text) -> bool {
        let is_missing = matches!(spec.host, Host::Srv(_)) && !cfg!(feature = "srv");
        if is_missing {
            self.diagnostics
                .problem(Code::Unsupported, address.span(), "this build looks up no SRV records")
                .hint("name the machine and its port, or build portway with the feature `srv`");
        }
        !is_missing
    }

    /// The entries of a mapping with its names. Where these cannot be read, there are no entries.
    fn named(&mut self, entries: Vec<ListenEntry>, mapping: &MappingText) -> Vec<ListenEntry> {
        let MappingText { hosts, overrides, .. } = mapping;
        let own = &overrides.names;
        let defaults = &self.context.defaults.names;
        let by = own.by.resolve(&defaults.by, None::<Match>);
        let asleep = own.asleep.resolve(&defaults.asleep, None::<Arc<Asleep>>);
        let mut is_whole = true;
        let mut read = Vec::new();
        for host in hosts.iter().flat_map(|hosts| &hosts.items) {
            let targets = self.targets(&host.targets, Protocols::Tcp);
            is_whole &= targets.len() == host.targets.items.len();
            let entries = |text: &Option<EntriesText>| text.as_ref().map(|text| text.entries.clone());
            read.push(HostEntry {
                name: host.name.clone(),
                targets,
                access: AccessSpec {
                    allow: entries(&host.allow),
                    deny: entries(&host.deny).unwrap_or_default(),
                    ..AccessSpec::default()
                },
                send_proxy: host.send_proxy.given().map(|given| given.value),
                wake: host.wake.given().and_then(|given| given.value.clone()),
            });
        }
        if let Some(hosts) = hosts {
            is_whole &= hosts.is_whole;
        }
        let mut fits = true;
        for entry in &entries {
            fits &= self.all_fit(&entry.listen, read.iter().flat_map(|host: &HostEntry| &host.targets));
        }
        if !is_whole || !fits {
            return Vec::new();
        }
        let asleep = asleep.filter(|_| by == Some(Match::Minecraft));
        let Some(by) = by.filter(|_| !read.is_empty() || asleep.is_some()) else { return entries };
        let names = Arc::new(NamesEntry { by, hosts: read, asleep, shared: OnceLock::new() });
        let with = |entry| ListenEntry { names: Some(Arc::clone(&names)), ..entry };
        entries.into_iter().map(with).collect()
    }

    fn all_fit<'t>(
        &mut self,
        listen: &ListenSpec,
        targets: impl IntoIterator<Item = &'t TargetEntry>,
    ) -> bool {
        let mut all = true;
        for target in targets {
            if let Err(e) = target.spec.fits(listen.ports) {
                self.diagnostics
                    .problem(Code::RangeMismatch, target.span, e.to_string())
                    .hint(Mismatch::HINT);
                all = false;
            }
        }
        all
    }

    /// The outcome of the grammar, or its error at its place, with what `meant` makes of the text.
    pub(super) fn sound<T>(
        &mut self,
        key: &str,
        text: &Text,
        spec: Result<T, SpecError>,
        meant: impl Fn(&str) -> Vec<Vec<String>>,
    ) -> Option<T> {
        spec.map_err(|e| {
            let range = e.at..e.at + e.len;
            let offending = text.value.get(range.clone()).unwrap_or_default().to_owned();
            let hint = match self.cure(key, &meant(&text.value)) {
                Some(specs) => Some(offer(key, text, &specs)),
                None => match (expanded(text), e.hint) {
                    (Some(value), Some(hint)) => Some(format!("{value}; {hint}")),
                    (value, hint) => value.or(hint),
                },
            };
            let note = self.diagnostics.problem(Code::InvalidSpec, text.at(range), e.message).text(offending);
            if let Some(hint) = hint {
                note.hint(hint);
            }
        })
        .ok()
    }

    /// The first guess that would be taken. The grammar takes all of them; a whole spec is also
    /// looked at by itself, for loops and for ports that are wanted twice.
    fn cure(&mut self, key: &str, guesses: &[Vec<String>]) -> Option<Vec<String>> {
        /// So many problems are shown.
        const MOST: usize = 100;
        let is_one_too_many = self.cures >= MOST;
        self.cures += 1;
        let takes = |specs: &&Vec<String>| key != "publish" || trial::are_sound(specs, self.context.host);
        if is_one_too_many { None } else { guesses.iter().find(takes).cloned() }
    }
}

/// Offers specs in place of a text, as they are written where it stands.
fn offer(key: &str, text: &Text, specs: &[String]) -> String {
    let name_it = |cure: String| {
        let has_gap = specs.iter().any(|spec| spec.contains(meant::PLACEHOLDER));
        if has_gap {
            format!("name the target's address in place of {}: {cure}", meant::PLACEHOLDER)
        } else {
            cure
        }
    };
    match (specs, text.beside()) {
        ([spec], _) => name_it(instead(text, spec)),
        (_, Some(SpecsFrom::Arguments)) => name_it(format!("write -p {}", specs.join(" -p "))),
        (_, Some(SpecsFrom::Variable)) => name_it(format!("write {}", specs.join(","))),
        (_, None) => {
            let specs: Vec<String> = specs.iter().map(|spec| format!("\"{spec}\"")).collect();
            let list = format!("{key} = [{}]", specs.join(", "));
            name_it(expanded(text).map_or(format!("write {list}"), |value| format!("{value}; write {list}")))
        }
    }
}
