//! How one plan differs from the next: what a reload opens, closes and changes in place.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{ListenerKey, Plan};

/// The way from one plan to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanDiff {
    /// Only in the new plan, and nothing of the old one is in the way.
    pub open: Vec<ListenerKey>,
    /// Only in the old plan.
    pub close: Vec<ListenerKey>,
    /// In both, with another name, other targets or other options: the socket stays.
    pub retune: Vec<ListenerKey>,
    /// Listeners that must close before others can open.
    pub replace: Vec<Replace>,
}

impl PlanDiff {
    /// Whether both plans are the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A wildcard and addresses of its port cannot be had at once: these close for those to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replace {
    /// Only in the old plan; never empty.
    pub close: Vec<ListenerKey>,
    /// Only in the new plan; never empty.
    pub open: Vec<ListenerKey>,
}

/// Says how to come from `old` to `new`. No two listeners of one plan may collide, which [`super::load`] ensures.
pub fn diff(old: &Plan, new: &Plan) -> PlanDiff {
    let opening = only(new, old);
    let closing = only(old, new);
    let retune = old.iter().filter(|(key, was)| new.get(key).is_some_and(|now| now != *was));
    let retune = retune.map(|(key, _)| key.clone()).collect();
    let replace = replacements(&opening, &closing);

    let in_a_group: BTreeSet<_> = replace.iter().flat_map(|r| r.close.iter().chain(&r.open)).collect();
    let alone = |keys: &[&ListenerKey]| {
        keys.iter().filter(|k| !in_a_group.contains(*k)).map(|k| (*k).clone()).collect()
    };
    PlanDiff { open: alone(&opening), close: alone(&closing), retune, replace }
}

fn only<'p>(one: &'p Plan, other: &Plan) -> Vec<&'p ListenerKey> {
    one.keys().filter(|key| !other.contains_key(key)).collect()
}

/// The groups of keys that stand in each other's way.
///
/// Within a plan nothing collides, so of the two sides of a group one is a single key: a wildcard, or an address that
/// the other side writes in another form.
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
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::{ListenerPlan, Service},
        mapping::{MappingName, Protocol, publish::Publish},
        relay::{
            tcp::{TcpOptions, TcpSpec},
            udp::{UdpOptions, UdpSpec},
        },
        target::Targets,
    };

    fn plan(specs: &[&str]) -> Plan {
        let specs = specs.iter().map(|s| Publish::parse(s, &|_, _| None).unwrap());
        let listeners = specs.flat_map(|s| s.expand().collect::<Vec<_>>());
        listeners
            .map(|(protocol, addr, target)| {
                let mapping = MappingName::default_for(addr.port.get(), protocol);
                let targets = Targets::one(target);
                let service = match protocol {
                    Protocol::Tcp => Service::Tcp(TcpSpec { targets, options: TcpOptions::default() }),
                    Protocol::Udp => Service::Udp(UdpSpec { targets, options: UdpOptions::default() }),
                };
                (
                    ListenerKey { protocol, addr },
                    ListenerPlan { mapping, service, policy: Arc::default(), exposure: None },
                )
            })
            .collect()
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
        for listener in new.values_mut() {
            listener.mapping = MappingName::new("web").unwrap();
        }
        assert_eq!(names(&diff(&old, &new).retune), ["[::]:80/tcp"]);
        let mut new = old.clone();
        for listener in new.values_mut() {
            let Service::Tcp(spec) = &mut listener.service else { panic!() };
            spec.options.connect_timeout *= 2;
        }
        assert_eq!(names(&diff(&old, &new).retune), ["[::]:80/tcp"]);
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
