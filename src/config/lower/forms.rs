//! The two forms of a mapping: the short one, a publish spec, and the long one, `listen` and
//! `targets`.
//!
//! Both make entries. What cannot be read is noted, and the rest is looked at all the same.

use std::sync::Arc;

use crate::{
    config::{
        file::MappingText,
        lower::{Lowering, MOST_WAYS, listen_entry::ListenEntry, trial},
        source::SpecsFrom,
        text::{
            Code, List, Setting, Span, Text,
            hint::{expanded, instead},
        },
    },
    mapping::publish::{ListenSpec, Mismatch, Protocols, Publish, SpecError, TargetSpec, meant},
};

impl Lowering<'_> {
    /// What a mapping promises, in whichever form; only what could be read.
    pub(super) fn entries_of(&mut self, mapping: &MappingText, is_broken: bool) -> Vec<ListenEntry> {
        let MappingText { span, publish, listen, targets, has_slip, .. } = mapping;
        // What is missing may stand in a broken line, or behind a mistyped key: that is noted
        // already.
        let is_broken = is_broken || *has_slip;
        match (publish, listen, targets) {
            (Some(publish), _, _) => {
                self.refuse_beside_publish(mapping);
                publish.items.iter().filter_map(|text| self.short(text)).collect()
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
                    (Some(listen), None) if !is_broken => {
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
        let lists = [("listen", &mapping.listen), ("targets", &mapping.targets)];
        for (key, list) in lists {
            if let Some(list) = list {
                self.diagnostics
                    .problem(Code::ConflictingKeys, list.key, format!("`{key}` beside `publish`"))
                    .hint("use either `publish`, or `listen` and `targets`");
            }
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
        let spec = Publish::parse(&text.value, &services);
        let meant = |value: &str| meant::publish(value, &services);
        let Publish { listen, target, protocols } = self.sound("publish", text, spec, meant)?;
        let span = text.span();
        Some(ListenEntry { listen, span, protocols, targets: [(target, span)].into() })
    }

    /// The long form: every `listen` entry leads to all of the targets.
    fn long(
        &mut self,
        listen: Option<&List>,
        targets: Option<&List>,
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
        let mut read = Vec::new();
        for text in targets.map_or(&[][..], |t| &t.items) {
            let spec = TargetSpec::parse(&text.value, protocols, &services);
            let meant = |value: &str| meant::target(value, protocols, &services);
            read.extend(self.sound("targets", text, spec, meant).map(|spec| (spec, text.span())));
        }
        let is_whole = !is_unreadable
            && targets.is_some_and(|t| t.is_whole && !t.items.is_empty() && read.len() == t.items.len());
        let read: Arc<[(TargetSpec, Span)]> = read.into();
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
            if self.all_fit(&listen, &read) && is_whole {
                entries.push(ListenEntry {
                    listen,
                    span: text.span(),
                    protocols,
                    targets: Arc::clone(&read),
                });
            }
        }
        entries
    }

    fn all_fit(&mut self, listen: &ListenSpec, targets: &[(TargetSpec, Span)]) -> bool {
        let mut all = true;
        for (target, span) in targets {
            if let Err(e) = target.fits(listen.ports) {
                self.diagnostics.problem(Code::RangeMismatch, *span, e.to_string()).hint(Mismatch::HINT);
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
