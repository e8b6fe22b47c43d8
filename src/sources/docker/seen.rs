//! The list of containers, as an engine gives it, to what mappings are made from.
//!
//! Reads only what Docker and podman have in common, and passes over what it does not know. Order
//! is a claim: of two containers that want one port, the one that was seen first keeps it, and
//! after a start of portway the one that was created first.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use serde::{Deserialize, Deserializer};

use super::network;
use crate::{
    config::{Container, DockerSettings, Label, Seen},
    text::escaped,
};

/// The longest name of a container that is shown in full.
const LONGEST_NAME: usize = 128;

/// A container of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Listed {
    #[serde(deserialize_with = "or_nothing")]
    id: String,
    #[serde(deserialize_with = "or_nothing")]
    names: Vec<String>,
    /// Seconds since 1970; podman's own form is a text.
    #[serde(deserialize_with = "seconds")]
    created: i64,
    #[serde(deserialize_with = "or_nothing")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_nothing")]
    host_config: HostConfig,
    #[serde(deserialize_with = "or_nothing")]
    network_settings: NetworkSettings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    #[serde(deserialize_with = "or_nothing")]
    network_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    #[serde(deserialize_with = "or_nothing")]
    networks: BTreeMap<String, Endpoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    #[serde(rename = "IPAddress", deserialize_with = "or_nothing")]
    ipv4: String,
    #[serde(rename = "GlobalIPv6Address", deserialize_with = "or_nothing")]
    ipv6: String,
}

/// `null` for nothing.
fn or_nothing<'d, D: Deserializer<'d>, T: Deserialize<'d> + Default>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

fn seconds<'d, D: Deserializer<'d>>(from: D) -> Result<i64, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    let text =
        |text: &str| humantime::parse_rfc3339_weak(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok();
    let of_text = value.as_str().and_then(text).and_then(|since| i64::try_from(since.as_secs()).ok());
    Ok(value.as_i64().or(of_text).unwrap_or_default())
}

/// The containers with labels of portway, in the order of their claims. `own` are the addresses of
/// portway, `last` is what was seen before.
pub(super) fn containers(
    listed: &[Listed],
    settings: &DockerSettings,
    own: &[IpAddr],
    last: &Seen,
) -> Vec<Container> {
    let members: HashMap<&str, network::Member> =
        listed.iter().map(|listed| (listed.id.as_str(), listed.member())).collect();
    let portway = members.values().find(|member| member.has_one_of(own));
    let prefix = format!("{}.", settings.label_prefix);
    let known: HashMap<&str, usize> =
        last.containers.iter().enumerate().map(|(place, container)| (container.id.as_str(), place)).collect();
    let mut found: Vec<_> = listed
        .iter()
        .filter_map(|listed| {
            let labels = labels(&listed.labels, &prefix);
            let is_meant = !labels.is_empty() && !listed.id.is_empty();
            is_meant.then(|| {
                let home = network::home(
                    &members[listed.id.as_str()],
                    &members,
                    portway,
                    settings.network.as_deref(),
                );
                let container = Container { name: listed.name(), id: listed.id.clone(), labels, home };
                let place = known.get(listed.id.as_str()).copied().unwrap_or(usize::MAX);
                ((place, listed.created, listed.id.clone()), container)
            })
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found.into_iter().map(|(_, container)| container).collect()
}

/// The labels with the prefix.
fn labels(all: &BTreeMap<String, String>, prefix: &str) -> Vec<Label> {
    let mine = all.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
    mine.map(|(name, value)| Label { at: prefix.len(), name: name.clone(), value: value.clone() }).collect()
}

impl Listed {
    /// The name, without the slash that Docker puts before it. Links to a container have a second.
    fn name(&self) -> String {
        let names = self.names.iter().map(|name| name.strip_prefix('/').unwrap_or(name));
        let name = names.filter(|name| !name.contains('/')).find(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| self.id.get(..12).unwrap_or(&self.id));
        escaped(&name.chars().take(LONGEST_NAME).collect::<String>())
    }

    fn member(&self) -> network::Member {
        let addresses = self.network_settings.networks.iter().filter_map(|(network, endpoint)| {
            let all = [&endpoint.ipv4, &endpoint.ipv6].into_iter();
            let ip = all.filter_map(|ip| ip.parse::<IpAddr>().ok()).find(|ip| !ip.is_unspecified())?;
            Some((escaped(network), ip))
        });
        network::Member { mode: self.host_config.network_mode.clone(), addresses: addresses.collect() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Home;

    fn settings() -> DockerSettings {
        let engine = "/run/x.sock".parse().unwrap();
        DockerSettings { engine, label_prefix: "portway".into(), network: None, allow_router: false }
    }

    fn read(list: &serde_json::Value, last: &Seen) -> Vec<Container> {
        let listed: Vec<Listed> = serde_json::from_value(list.clone()).unwrap();
        containers(&listed, &settings(), &[], last)
    }

    fn one(id: &str, created: i64) -> serde_json::Value {
        json!({ "Id": id, "Names": [format!("/{id}")], "Created": created, "Labels": { "portway.publish": "1:1" } })
    }

    #[test]
    fn what_docker_and_podman_say_is_read_alike() {
        let networks =
            json!({ "Networks": { "bridge": { "IPAddress": "172.17.0.2", "GlobalIPv6Address": "" } } });
        let docker = json!([{
            "Id": "0123456789abcdef", "Names": ["/other/alias", "/web"], "Created": 1_700_000_000, "State": "running",
            "Labels": { "portway.publish": "8080:80", "portwayx.y": "1", "a": "b" },
            "HostConfig": { "NetworkMode": "default" }, "NetworkSettings": networks, "Mounts": []
        }]);
        let podman = json!([{
            "Id": "0123456789abcdef", "Names": ["/web"], "Created": "2023-11-14T22:13:20Z",
            "Labels": { "portway.publish": "8080:80" }, "HostConfig": { "NetworkMode": "bridge" },
            "NetworkSettings": networks, "Ports": null, "NetworkID": 7
        }]);
        let expected = Container {
            name: "web".into(),
            id: "0123456789abcdef".into(),
            labels: vec![Label { name: "portway.publish".into(), at: 8, value: "8080:80".into() }],
            home: Home::At("172.17.0.2".parse().unwrap()),
        };
        for list in [docker, podman] {
            assert_eq!(read(&list, &Seen::default()), std::slice::from_ref(&expected));
        }
    }

    #[test]
    fn what_is_missing_or_null_is_nothing() {
        let list = json!([
            { "Id": "a", "Names": null, "Labels": { "portway.publish": "1:1" }, "HostConfig": null, "NetworkSettings": null },
            { "Id": "b", "Labels": null },
            { "Labels": { "portway.publish": "1:1" } },
            {}
        ]);
        let found = read(&list, &Seen::default());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "a");
        assert!(matches!(found[0].home, Home::Unknown(..)));
    }

    #[test]
    fn who_was_seen_first_stays_first_and_after_a_start_the_oldest_does() {
        let ids = |found: &[Container]| found.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
        let first = read(&json!([one("young", 30), one("old", 10)]), &Seen::default());
        assert_eq!(ids(&first), ["old", "young"]);
        let seen = Seen { containers: read(&json!([one("young", 30)]), &Seen::default()), trouble: None };
        assert_eq!(ids(&read(&json!([one("old", 10), one("young", 30)]), &seen)), ["young", "old"]);
    }

    #[test]
    fn a_name_is_safe_to_show() {
        let list = json!([{ "Id": "a", "Names": ["/x\u{1b}[2J"], "Labels": { "portway.publish": "1:1" } }]);
        assert!(!read(&list, &Seen::default())[0].name.contains('\u{1b}'));
    }
}
