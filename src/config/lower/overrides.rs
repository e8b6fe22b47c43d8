//! The mapping keys that also stand in `[defaults]`, and how the two come together.

use std::{net::IpAddr, num::NonZeroU64, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::{
    config::{
        lower::{
            names::{self, MATCH_TIMEOUT, NamesOverrides},
            policy::{self, PolicyOverrides},
            proxy,
            router::{self, Wish},
            selection::{self, SelectionOverrides},
            wake,
        },
        plan::{ListenerPlan, MappingPlan, Service},
        text::{
            Keys, Kind, Reader, Refusal, Setting, Span, Term, Value, amount,
            cure::{self},
            duration::{self, DURATION},
            hint::{bare, bare_address, instead},
            spelling::Opening,
            table::{closest, word},
        },
    },
    mapping::{ListenerKey, Timeout, canonical, is_of_one_machine, publish::Protocols},
    meter::SessionLines,
    preface::proxy::SendProxy,
    relay::{tcp::TcpOptions, udp::UdpOptions},
};

/// The longest TCP keepalive time of the kernel (`MAX_TCP_KEEPIDLE`).
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// Expands to the code if the protocol is among those that have the option: `tcp`, `udp`, `both`.
macro_rules! only {
    (tcp tcp $($code:tt)*) => { $($code)* };
    (tcp both $($code:tt)*) => { $($code)* };
    (udp udp $($code:tt)*) => { $($code)* };
    (udp both $($code:tt)*) => { $($code)* };
    (not_udp tcp $($code:tt)*) => { $($code)* };
    ($protocol:ident $others:ident $($code:tt)*) => {};
}

/// Makes the overrides of the options of a listener. A line is a key: its name, the field that it
/// fills, the type of its value, its reader, and the protocols whose options have the field.
macro_rules! options {
    ($($key:literal $field:ident: $type:ty = $read:expr, $protocol:ident;)*) => {
        /// What was given of the keys that fill [`TcpOptions`] and [`UdpOptions`].
        #[derive(Clone, Debug, Default)]
        pub(crate) struct OptionOverrides {
            $(pub(crate) $field: Setting<$type>,)*
        }

        impl OptionOverrides {
            fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
                Self { $($field: keys.setting(reader, $key, $read),)* }
            }

            /// The keys given here that mean nothing to UDP.
            fn tcp_only(&self) -> Vec<(&'static str, Span)> {
                let mut given = Vec::new();
                $(only!(not_udp $protocol
                    given.extend(self.$field.given().map(|given| ($key, given.span)));
                );)*
                given
            }

            /// The options of a TCP listener.
            pub(crate) fn tcp(&self, defaults: &Self) -> TcpOptions {
                let mut options = TcpOptions::default();
                $(only!(tcp $protocol
                    options.$field = self.$field.resolve(&defaults.$field, options.$field);
                );)*
                options
            }

            /// The options of a UDP listener.
            pub(crate) fn udp(&self, defaults: &Self) -> UdpOptions {
                let mut options = UdpOptions::default();
                $(only!(udp $protocol
                    options.$field = self.$field.resolve(&defaults.$field, options.$field);
                );)*
                options
            }
        }

        fn tcp_terms(options: &TcpOptions) -> Vec<Term<'_>> {
            let (mut terms, built_in) = (Vec::new(), TcpOptions::default());
            $(only!(tcp $protocol terms.push(Term::new($key, &options.$field, &built_in.$field)););)*
            terms
        }

        fn udp_terms(options: &UdpOptions) -> Vec<Term<'_>> {
            let (mut terms, built_in) = (Vec::new(), UdpOptions::default());
            $(only!(udp $protocol terms.push(Term::new($key, &options.$field, &built_in.$field)););)*
            terms
        }
    };
}

options! {
    "connect_timeout" connect_timeout: Duration = connect_timeout, tcp;
    "idle_timeout" idle_timeout: Timeout = timeout, both;
    "half_close_timeout" half_close_timeout: Timeout = timeout, tcp;
    "keepalive" keepalive: Timeout = keepalive, tcp;
    "source" source: IpAddr = source, both;
    "bandwidth_per_session" bandwidth: Option<NonZeroU64> = amount::size, both;
    "send_proxy" send_proxy: SendProxy = proxy::send, both;
    "accept_proxy" accept_proxy: Arc<[IpNet]> = proxy::accept, both;
    "match_timeout" match_timeout: Duration = match_timeout, tcp;
    "transparent" transparent: bool = flag, both;
    "wake" wake: wake::Wish = wake::wake, both;
}

/// The keys of a listener and its mapping, with their values.
pub(crate) fn terms<'p>(
    key: &ListenerKey,
    listener: &'p ListenerPlan,
    mapping: &'p MappingPlan,
) -> Vec<Term<'p>> {
    let mut terms = match &listener.service {
        Service::Tcp(spec) => {
            let mut terms = tcp_terms(&spec.options);
            names::terms(&spec.route, &mut terms);
            terms
        }
        Service::Udp(spec) => udp_terms(&spec.options),
        Service::Trap | Service::Knock | Service::Step => return Vec::new(),
    };
    selection::terms(&mapping.selection, &mut terms);
    policy::terms(&mapping.policy, key.protocol, &mut terms);
    terms.push(Term::new("log", &mapping.log, &SessionLines::default()));
    let opening = listener.exposure.map(|exposure| Opening {
        external_port: exposure.external_port.unwrap_or(key.addr.port),
        ipv6: exposure.ipv6,
        while_down: exposure.while_down,
    });
    terms.push(Term::owned("router", opening, &None));
    terms
}

/// What was given of the shared keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// With the place of its key.
    pub(crate) protocol: Setting<Protocols>,
    pub(crate) enabled: Setting<bool>,
    pub(crate) options: OptionOverrides,
    pub(crate) names: NamesOverrides,
    pub(crate) selection: SelectionOverrides,
    pub(crate) policy: PolicyOverrides,
    pub(crate) log: Setting<SessionLines>,
    pub(crate) router: Setting<Wish>,
}

impl Overrides {
    /// Takes the shared keys out of a table.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
        let mut protocol = keys.setting(reader, "protocol", protocol);
        if let (Setting::Set(given), Some((key, _))) = (&mut protocol, keys.entry(reader, "protocol")) {
            given.span = key;
        }
        Self {
            protocol,
            enabled: keys.setting(reader, "enabled", |reader, key, value| reader.flag(key, value)),
            options: OptionOverrides::read(reader, keys),
            names: NamesOverrides::read(reader, keys),
            selection: SelectionOverrides::read(reader, keys),
            policy: PolicyOverrides::read(reader, keys),
            log: keys.setting(reader, "log", log),
            router: keys.setting(reader, "router", router::wish),
        }
    }

    /// The keys given here that mean nothing to UDP, with their places and what does instead.
    pub(crate) fn tcp_only(&self) -> impl Iterator<Item = (&'static str, Span, &'static str)> {
        const FLOW: &str = "remove it; a flow ends by its `idle_timeout`";
        const SILENT: &str = "remove it; a refused datagram is never answered";
        const NAMES: &str = "remove it; a UDP client says no name";
        let options = self.options.tcp_only().into_iter().map(|(key, span)| match key {
            "match_timeout" => (key, span, NAMES),
            _ => (key, span, FLOW),
        });
        let options = options.chain(self.names.tcp_only().map(|(key, span)| (key, span, NAMES)));
        options.chain(self.policy.tcp_only().map(|(key, span)| (key, span, SILENT)))
    }

    /// The key given here that means nothing to TCP, with its place.
    pub(crate) fn udp_only(&self) -> Option<(&'static str, Span)> {
        self.policy.udp_only()
    }
}

fn protocol(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Protocols> {
    const FORMS: &str = "use \"tcp\", \"udp\" or \"tcp+udp\"";
    if let Some(words) = value.get_ref().as_array() {
        let has = |word: &str| {
            words.iter().any(|w| w.get_ref().as_str().is_some_and(|w| w.eq_ignore_ascii_case(word)))
        };
        let hint = if has("tcp") && has("udp") { "write \"tcp+udp\"" } else { FORMS };
        reader.wrong_type(key, value, "a string").hint(hint);
        return None;
    }
    let kind = Kind { forms: FORMS, guesses: protocol_guesses };
    cure::read(reader, key, value, &kind, |text| {
        Protocols::parse(text).map_err(|e| Refusal::new(e.message, FORMS))
    })
}

/// What was meant by another way to write the protocols.
fn protocol_guesses(text: &str) -> Vec<String> {
    let text = bare(text).to_ascii_lowercase();
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let has = |word| words.contains(&word);
    if (has("tcp") && has("udp")) || ["both", "any", "all", "tcpudp"].into_iter().any(has) {
        return vec!["tcp+udp".to_owned()];
    }
    closest(&text, &["tcp", "udp", "tcp+udp"]).map(str::to_owned).into_iter().collect()
}

fn flag(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<bool> {
    reader.flag(key, value)
}

fn match_timeout(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Duration> {
    MATCH_TIMEOUT.read(reader, key, value)
}

fn timeout(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Timeout> {
    cure::read(reader, key, value, &DURATION, duration::parse)
}

fn connect_timeout(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Duration> {
    const FORMS: &str = "a client waits this long for a dead target; use a time such as \"5s\" or \"500ms\"";
    cure::read(reader, key, value, &Kind { forms: FORMS, ..DURATION }, |text| match duration::parse(text) {
        Ok(Timeout::After(limit)) => Ok(limit),
        Ok(Timeout::Never) => Err(Refusal::new("`connect_timeout` cannot be \"never\"", FORMS)),
        Err(refusal) => Err(Refusal { hint: FORMS.into(), ..refusal }),
    })
}

fn keepalive(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Timeout> {
    const FORMS: &str = "use whole seconds from \"1s\" to \"32767s\", as the kernel does; or \"never\"";
    cure::read(reader, key, value, &Kind { forms: FORMS, ..DURATION }, |text| match duration::parse(text) {
        Ok(Timeout::After(d)) if d.subsec_nanos() != 0 || d > LONGEST_KEEPALIVE => {
            Err(Refusal::new("`keepalive` is whole seconds, from 1s to 32767s", FORMS))
        }
        Ok(limit) => Ok(limit),
        Err(refusal) => Err(Refusal { hint: FORMS.into(), ..refusal }),
    })
}

fn source(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<IpAddr> {
    let text = reader.text(key, value)?;
    let bare = text.value.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(&text.value);
    match bare.parse::<IpAddr>().map(canonical) {
        Ok(ip) if ip.is_unspecified() => reader.refuse_text(
            "the source",
            &text,
            "stands for every address",
            "leave `source` out, and the kernel chooses the address",
        ),
        Ok(ip) if !is_of_one_machine(ip) => reader.refuse_text(
            "the source",
            &text,
            "is not the address of one machine",
            "use an address of this machine",
        ),
        Ok(ip) => Some(ip),
        Err(_) => {
            let hint = match bare_address(&text.value) {
                Some(ip) => instead(&text, &format!("\"{ip}\"")),
                None => {
                    "use an address of this machine, without port or zone, as in \"192.168.1.2\"".to_owned()
                }
            };
            reader.refuse_text("the source", &text, "is not an IP address", hint)
        }
    }
}

fn log(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<SessionLines> {
    let words =
        [SessionLines::All, SessionLines::Errors, SessionLines::None].map(|lines| (lines.as_str(), lines));
    word(reader, key, value, &words)
}
