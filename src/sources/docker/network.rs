//! By which address a container is reached.
//!
//! A container on the network of the host is reached by loopback, and one that shares the network
//! of another container by the address of that one. Where there is a choice, portway makes none:
//! an address that works today and leads elsewhere after the next start is worse than a message.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
};

use crate::config::Home;

/// A container in its networks.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// `bridge`, `host`, `none`, `container:ID`, or the name of a network.
    pub(super) mode: String,
    /// Its address in each network.
    pub(super) addresses: BTreeMap<String, IpAddr>,
}

/// What to do about a container that cannot be found.
const SAY_HOST: &str = "or name the host in the label, as in `8080:10.0.0.5:80`";

impl Member {
    /// Whether it has one of these addresses: then it is the container that portway runs in.
    pub(super) fn has_one_of(&self, own: &[IpAddr]) -> bool {
        self.addresses.values().any(|ip| own.contains(ip))
    }

    fn names(&self) -> String {
        self.addresses.keys().take(10).cloned().collect::<Vec<_>>().join(", ")
    }
}

/// Where a container is reached. `members` are all that run, by id; `portway` is the one that
/// portway runs in, if any. `network` is the one that `[docker]` names.
pub(super) fn home(
    container: &Member,
    members: &HashMap<&str, Member>,
    portway: Option<&Member>,
    network: Option<&str>,
) -> Home {
    if let Some(id) = container.mode.strip_prefix("container:") {
        return match members.get(id).filter(|other| !other.mode.starts_with("container:")) {
            Some(other) => home(other, members, portway, network),
            None => Home::Unknown(
                "the container shares the network of another one, which does not run".to_owned(),
                format!("start that one, {SAY_HOST}"),
            ),
        };
    }
    if container.mode == "host" {
        return match portway {
            None => Home::At(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Some(_) => Home::Unknown(
                "the container is on the network of the host, and portway runs in a container of its own"
                    .to_owned(),
                "name the address of the host in the label, as in `8080:192.168.1.10:80`".to_owned(),
            ),
        };
    }
    if let Some(network) = network {
        return match container.addresses.get(network) {
            Some(ip) => Home::At(*ip),
            None if container.addresses.is_empty() => nowhere(),
            None => Home::Unknown(
                format!(
                    "the container has no address in the network {network}; it is in {}",
                    container.names()
                ),
                format!("connect it to that network, change `network` in [docker], {SAY_HOST}"),
            ),
        };
    }
    let shared = |name: &String| portway.is_none_or(|portway| portway.addresses.contains_key(name));
    let mut usable = container.addresses.iter().filter(|(name, _)| shared(name));
    match (usable.next(), usable.next(), portway) {
        (Some((_, ip)), None, _) => Home::At(*ip),
        (Some(_), Some(_), _) => Home::Unknown(
            format!("the container is in several networks: {}", container.names()),
            format!("name one of them by `network` in [docker], {SAY_HOST}"),
        ),
        (None, _, Some(portway)) if !container.addresses.is_empty() => Home::Unknown(
            format!(
                "the container and portway share no network: it is in {}, portway in {}",
                container.names(),
                portway.names()
            ),
            format!("connect portway to a network of the container, {SAY_HOST}"),
        ),
        (None, ..) => nowhere(),
    }
}

fn nowhere() -> Home {
    Home::Unknown(
        "the container has no address in any network".to_owned(),
        format!("connect it to a network, {SAY_HOST}"),
    )
}

#[cfg(test)]
mod tests;
