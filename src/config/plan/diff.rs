//! How one plan differs from the next: what a reload opens, closes and changes in place.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    config::plan::{ListenerPlan, Plan},
    mapping::{ListenerKey, MappingId},
};

/// The way from one plan to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlanDiff {
    /// Only in the new plan, and nothing of the old one is in the way.
    pub open: Vec<ListenerKey>,
    /// Only in the old plan.
    pub close: Vec<ListenerKey>,
    /// In both, with a change in the listener or its mapping: the socket stays.
    pub retune: Vec<ListenerKey>,
    /// Listeners that must close before others can open.
    pub replace: Vec<Replace>,
}

impl PlanDiff {
    /// Whether both plans are the same.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A wildcard and addresses of its port cannot be had at once, and neither can a mapping and a
/// decoy on the same socket: these close for those to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replace {
    /// In the old plan, and not or as something else in the new one; never empty.
    pub close: Vec<ListenerKey>,
    /// In the new plan, and not or as something else in the old one; never empty.
    pub open: Vec<ListenerKey>,
}

/// Says how to come from `old` to `new`. No two listeners of one plan may collide, which
/// [`crate::config::load`] ensures.
pub(crate) fn diff(old: &Plan, new: &Plan) -> PlanDiff {
    // Once for each mapping: a range of ports may have thousands of listeners.
    let changed = side_by_side(&old.mappings, &new.mappings).filter_map(|(id, was, now)| {
        let is_changed = was.zip(now).is_some_and(|(was, now)| was != now);
        is_changed.then_some(id)
    });
    let changed: BTreeSet<&MappingId> = changed.collect();
    let differs = |was: &ListenerPlan, now: &ListenerPlan| {
        was != now || now.mapping.as_ref().is_some_and(|id| changed.contains(id))
    };
    let (mut opening, mut closing, mut retune) = (Vec::new(), Vec::new(), Vec::new());
    for (key, was, now) in side_by_side(&old.listeners, &new.listeners) {
        match was.zip(now) {
            Some((was, now)) if is_retuned(was, now) => {
                if differs(was, now) {
                    retune.push(key.clone());
                }
            }
            _ => {
                closing.extend(was.map(|_| key));
                opening.extend(now.map(|_| key));
            }
        }
    }
    let replace = replacements(&opening, &closing);

    let in_a_group: BTreeSet<_> = replace.iter().flat_map(|r| r.close.iter().chain(&r.open)).collect();
    let alone = |keys: &[&ListenerKey]| {
        keys.iter().filter(|k| !in_a_group.contains(*k)).map(|k| (*k).clone()).collect()
    };
    PlanDiff { open: alone(&opening), close: alone(&closing), retune, replace }
}

/// Every key of either map with what each of them has there. It walks both at once, which costs
/// less than a search in the other for each key.
fn side_by_side<'p, K: Ord, V>(
    old: &'p BTreeMap<K, V>,
    new: &'p BTreeMap<K, V>,
) -> impl Iterator<Item = (&'p K, Option<&'p V>, Option<&'p V>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (Some((was, _)), Some((now, _))) => was.cmp(now),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let was = if order.is_le() { old.next() } else { None };
        let now = if order.is_ge() { new.next() } else { None };
        let (key, _) = was.or(now)?;
        Some((key, was.map(|(_, was)| was), now.map(|(_, now)| now)))
    })
}

/// Whether a listener can become the other with its socket in place: both are of one kind.
fn is_retuned(a: &ListenerPlan, b: &ListenerPlan) -> bool {
    std::mem::discriminant(&a.service) == std::mem::discriminant(&b.service)
}

/// The groups of keys that stand in each other's way.
///
/// Within a plan nothing collides, so of the two sides of a group one is a single key: a wildcard,
/// or an address that the other side has too, as something else.
fn replacements(opening: &[&ListenerKey], closing: &[&ListenerKey]) -> Vec<Replace> {
    let mut ports: BTreeMap<_, (Vec<&ListenerKey>, Vec<&ListenerKey>)> = BTreeMap::new();
    let port = |key: &ListenerKey| (key.protocol, key.addr.port);
    for key in closing {
        ports.entry(port(key)).or_default().0.push(key);
    }
    for key in opening {
        ports.entry(port(key)).or_default().1.push(key);
    }
    let mut groups = Vec::new();
    for (closing, opening) in ports.into_values().filter(|(c, o)| !c.is_empty() && !o.is_empty()) {
        let is_wild = |keys: &[&ListenerKey]| keys.iter().any(|k| k.addr.is_wildcard());
        if is_wild(&closing) || is_wild(&opening) {
            let owned = |keys: Vec<&ListenerKey>| keys.into_iter().cloned().collect();
            groups.push(Replace { close: owned(closing), open: owned(opening) });
            continue;
        }
        for close in closing {
            let same = opening.iter().filter(|open| open.addr.collides_with(&close.addr));
            let open: Vec<_> = same.map(|open| (*open).clone()).collect();
            if !open.is_empty() {
                groups.push(Replace { close: vec![close.clone()], open });
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::{
        num::{NonZeroU16, NonZeroU64},
        sync::Arc,
    };

    use super::*;
    use crate::{
        config::{
            lower::draft::Draft,
            plan::{MappingPlan, Service, about::State},
            text::SourceMap,
        },
        mapping::{Exposure, MappingName, PortSpan, Protocol, publish::Publish},
        policy::{Policy, Refuse},
        relay::{
            tcp::{Route, TcpOptions, TcpSpec},
            udp::{UdpOptions, UdpSpec},
        },
        targets::Targets,
    };

    /// Listeners without names, each of a mapping of its own.
    fn plan(specs: &[&str]) -> Plan {
        let specs = specs.iter().map(|s| Publish::parse(s, &|_, _| None).unwrap());
        let listeners = specs.flat_map(|s| s.expand().collect::<Vec<_>>());
        let mut draft = Draft::default();
        for (protocol, addr, target) in listeners {
            let name = MappingName::default_for(PortSpan::single(addr.port), protocol);
            let targets = Targets::one(target);
            let service = match protocol {
                Protocol::Tcp => {
                    Service::Tcp(TcpSpec { route: Route::Targets(targets), options: TcpOptions::default() })
                }
                Protocol::Udp => Service::Udp(UdpSpec { targets, options: UdpOptions::default() }),
            };
            let shared = MappingPlan::default();
            let state = State { enabled: true, paused: false, until: None };
            let mapping = draft.mapping(None, SourceMap::default().start(), shared, state);
            draft.listener(mapping, ListenerKey { protocol, addr }, name, service, None);
        }
        draft.finish().0
    }

    fn names(keys: &[ListenerKey]) -> Vec<String> {
        keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_plans_differ_in_nothing() {
        let one = plan(&["80:8080", "53:5353/tcp+udp"]);
        assert!(diff(&one, &one.clone()).is_empty());
    }

    #[test]
    fn what_is_new_opens_what_is_gone_closes_what_changed_is_retuned() {
        let d = diff(&plan(&["80:8080", "81:8081", "82:8082"]), &plan(&["81:9999", "82:8082", "83:1/udp"]));
        assert_eq!(names(&d.open), ["[::]:83/udp"]);
        assert_eq!(names(&d.close), ["[::]:80/tcp"]);
        assert_eq!(names(&d.retune), ["[::]:81/tcp"]);
        assert_eq!(d.replace, []);
    }

    #[test]
    fn another_mapping_name_or_option_is_a_retune() {
        let old = plan(&["80:8080"]);
        let mut new = old.clone();
        for listener in new.listeners.values_mut() {
            listener.name = MappingName::new("web").unwrap();
        }
        assert_eq!(names(&diff(&old, &new).retune), ["[::]:80/tcp"]);
        let mut new = old.clone();
        for listener in new.listeners.values_mut() {
            let Service::Tcp(spec) = &mut listener.service else { panic!() };
            spec.options.connect_timeout *= 2;
        }
        assert_eq!(names(&diff(&old, &new).retune), ["[::]:80/tcp"]);
    }

    fn changed(old: &Plan, change: impl Fn(&mut ListenerPlan)) -> Plan {
        let mut new = old.clone();
        new.listeners.values_mut().for_each(change);
        new
    }

    /// Every mapping has this policy.
    fn ruled(old: &Plan, policy: &Policy) -> Plan {
        let mut new = old.clone();
        new.mappings.values_mut().for_each(|mapping| mapping.policy = Arc::new(policy.clone()));
        new
    }

    #[test]
    fn other_terms_are_a_retune() {
        let old = plan(&["80:8080"]);
        let strict = Policy { refuse: Refuse::Drop, ..Policy::default() };
        let port = NonZeroU16::new(30_000);
        for new in [
            ruled(&old, &strict),
            changed(&old, |l| {
                l.exposure = Some(Exposure { external_port: port, ipv6: false, ..Exposure::default() });
            }),
            changed(&old, |l| {
                let Service::Tcp(spec) = &mut l.service else { panic!() };
                spec.options.bandwidth = NonZeroU64::new(65_536);
            }),
        ] {
            let d = diff(&old, &new);
            assert_eq!((names(&d.retune), d.open.len(), d.close.len()), (vec!["[::]:80/tcp".into()], 0, 0));
            assert_eq!(d.replace, []);
        }
        let same = ruled(&old, &Policy::default());
        assert!(diff(&old, &same).is_empty());
    }

    #[test]
    fn a_decoy_and_a_mapping_replace_each_other_on_the_same_socket() {
        let old = plan(&["127.0.0.1:80:8080", "127.0.0.2:80:8080", "23:1", "81:1"]);
        let mut new = old.clone();
        for (key, listener) in &mut new.listeners {
            if matches!(key.to_string().as_str(), "127.0.0.1:80/tcp" | "[::]:23/tcp") {
                listener.service = Service::Trap;
            }
        }
        for d in [diff(&old, &new), diff(&new, &old)] {
            assert_eq!((d.open, d.close, d.retune), (vec![], vec![], vec![]));
            let groups: Vec<_> = d.replace.iter().map(|r| (names(&r.close), names(&r.open))).collect();
            let alone = |key: &str| (vec![key.to_owned()], vec![key.to_owned()]);
            assert_eq!(groups, [alone("[::]:23/tcp"), alone("127.0.0.1:80/tcp")]);
        }
    }

    #[test]
    fn a_decoy_on_every_address_is_replaced_by_a_mapping_on_one() {
        let old = changed(&plan(&["23:1"]), |l| l.service = Service::Trap);
        let d = diff(&old, &plan(&["127.0.0.1:23:1"]));
        assert_eq!(
            (names(&d.replace[0].close), names(&d.replace[0].open)),
            (vec!["[::]:23/tcp".into()], vec!["127.0.0.1:23/tcp".into()],)
        );
        let moved = changed(&plan(&["127.0.0.1:23:1"]), |l| l.service = Service::Trap);
        assert!(diff(&moved, &moved.clone()).is_empty());
        let renamed = changed(&moved, |l| l.name = MappingName::new("decoy").unwrap());
        assert_eq!(names(&diff(&moved, &renamed).retune), ["127.0.0.1:23/tcp"]);
    }

    #[test]
    fn a_wildcard_is_replaced_by_the_addresses_of_its_port() {
        let old = plan(&["80:8080", "81:1"]);
        let new = plan(&["127.0.0.1:80:8080", "[::1]:80:8080", "127.0.0.1:82:1"]);
        let d = diff(&old, &new);
        assert_eq!(
            (names(&d.open), names(&d.close)),
            (vec!["127.0.0.1:82/tcp".into()], vec!["[::]:81/tcp".into()])
        );
        assert_eq!(d.replace.len(), 1);
        assert_eq!(names(&d.replace[0].close), ["[::]:80/tcp"]);
        assert_eq!(names(&d.replace[0].open), ["127.0.0.1:80/tcp", "[::1]:80/tcp"]);
        let back = diff(&new, &old);
        assert_eq!(names(&back.replace[0].close), ["127.0.0.1:80/tcp", "[::1]:80/tcp"]);
        assert_eq!(names(&back.replace[0].open), ["[::]:80/tcp"]);
    }

    #[test]
    fn one_wildcard_is_replaced_by_another() {
        let d = diff(&plan(&["80:8080"]), &plan(&["0.0.0.0:80:8080"]));
        assert_eq!((d.open, d.close, d.retune), (vec![], vec![], vec![]));
        assert_eq!(names(&d.replace[0].open), ["0.0.0.0:80/tcp"]);
    }

    #[test]
    fn other_addresses_and_the_other_protocol_are_not_in_the_way() {
        let d = diff(&plan(&["127.0.0.1:80:1", "81:1"]), &plan(&["127.0.0.2:80:1", "81:1/udp"]));
        assert_eq!(d.replace, []);
        assert_eq!((d.open.len(), d.close.len()), (2, 2));
    }
}
