//! frp: the proxies of a client (frpc), in TOML, JSON, YAML or the older INI.

use std::collections::BTreeMap;

use super::{
    model::{File, Host, Imported, Mapping, Place, Protocols, Target},
    tree::{self, Node},
    words::{is_ports, listener, target},
};

/// A proxy, whatever file it is from: its keys in lower case without `_`.
struct Proxy {
    place: Place,
    name: String,
    keys: BTreeMap<String, (Place, String)>,
}

/// Reads the file.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    let proxies = proxies(file, into);
    if !proxies.is_empty() {
        into.lose(file.at(1), "the tunnel", super::TUNNEL);
    }
    for proxy in proxies {
        take(proxy, into);
    }
}

/// The key without the differences of the forms.
fn plain(key: &str) -> String {
    key.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

fn proxies(file: File<'_>, into: &mut Imported) -> Vec<Proxy> {
    let text = file.text.trim_start();
    let tree = match text {
        text if text.starts_with('{') => tree::yaml(file.text),
        _ => tree::toml(file.text),
    };
    let root = match tree {
        Ok(root) if root.get("proxies").is_some() || root.get("serverAddr").is_some() => root,
        _ if text.lines().any(|line| line.trim() == "[common]") => return ini(file),
        Ok(root) => match root.get("common") {
            Some(_) => return ini(file),
            None => {
                into.lose(file.at(root.line), "", "no proxies are in it");
                return Vec::new();
            }
        },
        Err((line, error)) => match tree::yaml(file.text) {
            Ok(root) if root.get("proxies").is_some() => root,
            _ => {
                into.lose(file.at(line), "", error);
                return Vec::new();
            }
        },
    };
    if let Some(visitors) = root.get("visitors") {
        into.lose(file.at(visitors.line), "visitors", "portway has no tunnel to visit");
    }
    let proxy = |node: &Node| {
        let entry = |(key, value): &(String, Node)| {
            let text = match value.items() {
                [] => value.text().unwrap_or("{}").to_owned(),
                items => items.iter().filter_map(Node::text).collect::<Vec<_>>().join(","),
            };
            (plain(key), (file.at(value.line), text))
        };
        let name = node.text_of("name").unwrap_or_default().to_owned();
        Proxy { place: file.at(node.line), name, keys: node.entries().iter().map(entry).collect() }
    };
    root.get("proxies").map_or(&[][..], Node::items).iter().map(proxy).collect()
}

/// The sections of an INI file.
fn ini(file: File<'_>) -> Vec<Proxy> {
    let mut proxies: Vec<Proxy> = Vec::new();
    for (place, line) in file.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let name = name.trim_start_matches("range:").to_owned();
            proxies.push(Proxy { place, name, keys: BTreeMap::new() });
        } else if let (Some((key, value)), Some(proxy)) = (line.split_once('='), proxies.last_mut())
            && !line.starts_with(['#', ';'])
        {
            proxy.keys.insert(plain(key.trim()), (place, value.trim().to_owned()));
        }
    }
    proxies.retain(|proxy| proxy.name != "common");
    proxies
}

fn take(proxy: Proxy, into: &mut Imported) {
    let Proxy { place, name, mut keys } = proxy;
    let mut text = |key: &str| keys.remove(key).map(|(_, text)| text);
    let kind = text("type").unwrap_or_else(|| "tcp".to_owned());
    let (host, port, outer) = (text("localip"), text("localport"), text("remoteport"));
    let domains = text("customdomains");
    let what = format!("proxy {name} ({kind})");
    let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let mut mapping = Mapping::at(place, what.clone(), name);
    let target = port.as_deref().and_then(|port| target(&host, port));
    match kind.as_str() {
        "tcp" | "udp" => {
            mapping.protocols = Protocols::of(kind == "tcp", kind == "udp");
            mapping.listen.extend(outer.as_deref().and_then(|port| listener("", port)));
            mapping.targets.extend(target.map(Target::at));
        }
        "http" | "https" => {
            let (by, port) = if kind == "http" { ("http-host", "80") } else { ("tls-sni", "443") };
            mapping.listen.push(port.to_owned());
            mapping.set_text("match", Some(by.to_owned()));
            if let Some(target) = target {
                let names = domains.iter().flat_map(|names| names.split(','));
                let names = names.map(str::trim).filter(|name| !name.is_empty());
                let host = |name: &str| Host {
                    name: name.to_owned(),
                    targets: vec![Target::at(target.clone())],
                    send_proxy: None,
                };
                mapping.hosts.extend(names.map(host));
            }
            mapping.notes.push(format!("Port {port} is the usual one: frps has it in its own file."));
            mapping.targets.clear();
        }
        _ => return into.lose(place, what, "it needs a tunnel between two machines"),
    }
    if outer.as_deref().is_some_and(|port| !is_ports(port) || port == "0") {
        mapping.lose(
            place,
            format!("remotePort {}", outer.unwrap_or_default()),
            "portway needs one port or a range",
        );
    }
    if ["127.0.0.1", "localhost"].contains(&host.as_str()) {
        mapping
            .notes
            .push("127.0.0.1 is the machine of frpc: write its address, if portway runs elsewhere.".into());
    }
    match keys.remove("transport.proxyprotocolversion").or_else(|| keys.remove("proxyprotocolversion")) {
        Some((_, version)) if ["v1", "v2"].contains(&&*version) => {
            mapping.set_text("send_proxy", Some(version));
        }
        _ => {}
    }
    let others: Vec<&str> = keys.keys().map(String::as_str).filter(|key| *key != "name").collect();
    if !others.is_empty() {
        mapping.lose(place, others.join(", "), "portway has no such keys");
    }
    into.add(mapping);
}
