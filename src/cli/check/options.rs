//! The last column of the table: the keys whose values differ from the built-in ones.

use super::Listener;
use crate::{
    config::{Spell as _, host_terms, terms},
    mapping::WhileDown,
    policy::GuardSpec,
    relay::tcp::HostRoute,
    text::Escaped,
};

/// The key of the opening on the router. A run of listeners shows it as one.
const ROUTER: &str = "router";

/// The names of a port. They have rows of their own.
const HOSTS: &str = "hosts";

/// Words such as `idle_timeout=1h`, but for the opening on the router and the names.
pub(super) fn options(listener: Listener<'_>) -> Vec<String> {
    let Some(mapping) = listener.mapping else { return Vec::new() };
    let terms = terms(listener.key, listener.plan, mapping).into_iter();
    let shown = terms.filter(|term| term.differs && ![ROUTER, HOSTS].contains(&term.key));
    shown.map(|term| format!("{}={}", term.key, term.value.brief())).collect()
}

/// The port on the router, if it is to be open there.
pub(super) fn external_port(listener: Listener<'_>) -> Option<u16> {
    Some(listener.plan.exposure?.external_port.unwrap_or(listener.key.addr.port).get())
}

/// The opening on the router for a run of listeners: `router=30000`, `router=30000-30010`,
/// `router=80+ipv6`.
pub(super) fn router(first: Listener<'_>, last: Listener<'_>) -> Option<String> {
    let (from, to) = (external_port(first)?, external_port(last)?);
    let ports = if from == to { from.to_string() } else { format!("{from}-{to}") };
    let exposure = first.plan.exposure?;
    let ipv6 = if exposure.ipv6 { "+ipv6" } else { "" };
    let while_down = if exposure.while_down == WhileDown::Close { " while up" } else { "" };
    Some(format!("{ROUTER}={ports}{ipv6}{while_down}"))
}

/// What one of the names of a port says itself.
pub(super) fn host(route: &HostRoute) -> Vec<String> {
    let terms = host_terms(route).into_iter();
    terms.map(|term| format!("{}={}", term.key, term.value.brief())).collect()
}

/// The guard's keys.
pub(super) fn guard(spec: &GuardSpec) -> String {
    let mut words = format!("refusals={} ban={}", spec.refusals.brief(), spec.ban.brief());
    let exempt = spec.exempt.brief();
    if !exempt.is_empty() {
        words += &format!(" exempt={exempt}");
    }
    if let Some(state) = &spec.state {
        words += &format!(" state={}", Escaped(state.display()));
    }
    words
}
