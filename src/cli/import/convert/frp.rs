//! frp: the proxies of a client (frpc), in TOML, JSON, YAML or the older INI. The file of the
//! server (frps) beside it says the ports of HTTP and HTTPS.
//!
//! All proxies of HTTP share one port of the server, and so do those of HTTPS: each kind becomes
//! one mapping that leads by the name.

use std::collections::BTreeMap;

use super::{
    model::{File, Host, Imported, Mapping, Place, Target, Value},
    tree::{self, Node, Tree},
    words::{is_ports, listener, protocols_of, target, why, written},
};

/// The most proxies: each is compared with those before it.
const MOST: usize = 10_000;

/// Its keys in lower case without `_`, those of inner tables with a dot.
type Keys = BTreeMap<String, (Place, String)>;

/// A proxy, whatever file it is from.
struct Proxy {
    place: Place,
    name: String,
    keys: Keys,
}

/// Keys that are about the tunnel, which is lost as a whole.
const OF_THE_TUNNEL: [&str; 12] = [
    "name",
    "useencryption",
    "usecompression",
    "bandwidthlimitmode",
    "transport.useencryption",
    "transport.usecompression",
    "transport.bandwidthlimitmode",
    "loadbalancer.group",
    "loadbalancer.groupkey",
    "group",
    "groupkey",
    "enabled",
];

/// Reads the files: those of clients, and maybe that of the server.
pub(super) fn read(files: &[File<'_>], into: &mut Imported) {
    let mut server = Keys::new();
    let mut all = Vec::new();
    for file in files {
        let (keys, proxies) = parts(*file, into);
        if proxies.is_empty() && (keys.contains_key("bindport") || keys.contains_key("bindaddr")) {
            server.extend(keys);
            if files.len() == 1 {
                let why = "the file of the client (frpc) has the proxies: import it, or both together";
                into.lose(file.at(1), "frps", why);
            }
            continue;
        }
        if !proxies.is_empty() {
            into.lose(file.at(1), "the tunnel", super::TUNNEL);
        }
        all.extend(proxies);
    }
    let mut mappings: Vec<Mapping> = Vec::new();
    for proxy in all.into_iter().flat_map(each_range).take(MOST) {
        let Some(mapping) = taken(proxy, &server, into) else { continue };
        let same =
            |known: &&mut Mapping| known.listen == mapping.listen && known.protocols == mapping.protocols;
        match mappings.iter_mut().find(same) {
            Some(known) if !known.hosts.is_empty() && !mapping.hosts.is_empty() => merge(known, mapping),
            Some(known) if known.hosts.is_empty() && mapping.hosts.is_empty() && !known.listen.is_empty() => {
                // A group: one port, several targets.
                known.targets.extend(mapping.targets);
                known.losses.extend(mapping.losses);
            }
            _ => mappings.push(mapping),
        }
    }
    mappings.into_iter().for_each(|mapping| into.add(mapping));
}

/// A proxy for each part of a list such as `6000-6006,6007`, where both lists have as many.
fn each_range(proxy: Proxy) -> Vec<Proxy> {
    let list = |key: &str| {
        let ports = proxy.keys.get(key).map_or("", |(_, ports)| ports);
        ports.split(',').map(|ports| ports.trim().to_owned()).collect::<Vec<_>>()
    };
    let (local, remote) = (list("localport"), list("remoteport"));
    if local.len() < 2 || local.len() != remote.len() {
        return vec![proxy];
    }
    let one = |(local, remote): (String, String)| {
        let mut keys = proxy.keys.clone();
        keys.insert("localport".to_owned(), (proxy.place, local));
        keys.insert("remoteport".to_owned(), (proxy.place, remote));
        Proxy { place: proxy.place, name: proxy.name.clone(), keys }
    };
    local.into_iter().zip(remote).take(MOST).map(one).collect()
}

/// Puts the names of a mapping into another one.
fn merge(known: &mut Mapping, other: Mapping) {
    if known.origin.len() < 200 {
        known.origin = format!("{}, {}", known.origin, other.origin);
    }
    known.name = if known.keys.iter().any(|(_, value)| *value == Value::Text("tls-sni".to_owned())) {
        "https".to_owned()
    } else {
        "http".to_owned()
    };
    for host in other.hosts {
        if known.hosts.iter().all(|present| present.name != host.name) {
            known.hosts.push(host);
        }
    }
    known.losses.extend(other.losses);
    for note in other.notes {
        if !known.notes.contains(&note) {
            known.notes.push(note);
        }
    }
}

/// The key without the differences of the forms.
fn plain(key: &str) -> String {
    key.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

/// The keys of a table, those of inner ones with a dot between.
fn keys_of(file: File<'_>, node: &Node, before: &str, keys: &mut Keys) {
    for (key, value) in node.entries() {
        let key = format!("{before}{}", plain(key));
        match &value.tree {
            Tree::Table(_) => keys_of(file, value, &format!("{key}."), keys),
            Tree::List(items) => {
                let texts = items.iter().filter_map(Node::text).collect::<Vec<_>>().join(",");
                keys.insert(key, (file.at(value.line), texts));
            }
            Tree::Text(text) => {
                keys.insert(key, (file.at(value.line), text.to_string()));
            }
        }
    }
}

/// What a file says of itself, and its proxies.
fn parts(file: File<'_>, into: &mut Imported) -> (Keys, Vec<Proxy>) {
    let text = file.text.trim_start();
    let is_ini = || {
        let mut lines = text.lines().map(str::trim);
        lines.any(|line| line == "[common]")
    };
    let is_wanted = |root: &Node| {
        ["proxies", "serverAddr", "visitors", "bindPort", "bindAddr"]
            .iter()
            .any(|key| root.get(key).is_some())
    };
    let tree = if text.starts_with('{') { tree::yaml(file.text) } else { tree::toml(file.text) };
    let root = match tree {
        Ok(root) if is_wanted(&root) => root,
        _ if is_ini() => return ini(file),
        Ok(root) => {
            into.lose(file.at(root.line), "", "no proxies are in it");
            return Default::default();
        }
        Err((line, error)) => match tree::yaml(file.text) {
            Ok(root) if is_wanted(&root) => root,
            _ => {
                into.lose(file.at(line), "", error);
                return Default::default();
            }
        },
    };
    if let Some(visitors) = root.get("visitors") {
        into.lose(file.at(visitors.line), "visitors", "portway has no tunnel to visit");
    }
    if let Some(includes) = root.get("includes") {
        into.lose(file.at(includes.line), "includes", "other files are not read: import them, too");
    }
    let proxy = |node: &Node| {
        let mut keys = Keys::new();
        keys_of(file, node, "", &mut keys);
        let name = node.text_of("name").unwrap_or_default().to_owned();
        Proxy { place: file.at(node.line), name, keys }
    };
    let proxies = root.get("proxies").map_or(&[][..], Node::items).iter().map(proxy).collect();
    let mut keys = Keys::new();
    keys_of(file, &root, "", &mut keys);
    (keys, proxies)
}

/// The sections of an INI file.
fn ini(file: File<'_>) -> (Keys, Vec<Proxy>) {
    let (mut common, mut proxies) = (Keys::new(), Vec::<Proxy>::new());
    let mut is_common = false;
    for (place, line) in file.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_common = name == "common";
            if !is_common {
                let name = name.trim_start_matches("range:").to_owned();
                proxies.push(Proxy { place, name, keys: Keys::new() });
            }
        } else if let (Some((key, value)), false) = (line.split_once('='), line.starts_with(['#', ';'])) {
            let keys = match proxies.last_mut().filter(|_| !is_common) {
                Some(proxy) => &mut proxy.keys,
                None => &mut common,
            };
            keys.insert(plain(key.trim()), (place, value.trim().to_owned()));
        }
    }
    (common, proxies)
}

/// The mapping of a proxy.
fn taken(proxy: Proxy, server: &Keys, into: &mut Imported) -> Option<Mapping> {
    let Proxy { place, name, mut keys } = proxy;
    let mut text = |key: &str| keys.remove(key).map(|(_, text)| text);
    let kind = text("type").unwrap_or_else(|| "tcp".to_owned());
    let what = format!("proxy {name} ({kind})");
    let plugin = text("plugin.type").or_else(|| text("plugin"));
    if let Some(plugin) = plugin.filter(|plugin| !plugin.is_empty()) {
        into.lose(place, what, format!("portway forwards to a port, and has no plugin {plugin}"));
        return None;
    }
    let (host, port, outer) = (text("localip"), text("localport"), text("remoteport"));
    let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let mut mapping = Mapping::at(place, what.clone(), name);
    let target = port.as_deref().and_then(|port| target(&host, port));
    if target.is_none() {
        let given = format!("{host}:{}", port.as_deref().unwrap_or_default());
        let why = why(&given, "not a target with a port");
        mapping.lose(place, given, why);
    }
    match kind.as_str() {
        "tcp" | "udp" => {
            mapping.protocols = protocols_of(kind == "tcp", kind == "udp");
            mapping.listen.extend(outer.as_deref().and_then(|port| listener("", port)));
            mapping.targets.extend(target.map(Target::at));
            if mapping.listen.is_empty() {
                let given = format!("remotePort {}", outer.as_deref().unwrap_or_default());
                let why = why(&given, "portway needs one port or a range");
                mapping.lose(place, given, why);
            }
        }
        "http" | "https" => {
            let domains = names(&mut mapping, &mut keys, server);
            by_name(&mut mapping, &kind, target, domains, server);
        }
        _ => {
            into.lose(place, what, "it needs a tunnel between two machines");
            return None;
        }
    }
    if ["127.0.0.1", "localhost"].contains(&host.as_str()) {
        mapping
            .notes
            .push("127.0.0.1 is the machine of frpc: write its address, if portway runs elsewhere.".into());
    }
    others(&mut mapping, keys);
    Some(mapping)
}

/// The names that lead to a proxy.
fn names(mapping: &mut Mapping, keys: &mut Keys, server: &Keys) -> Vec<String> {
    let list = keys.remove("customdomains").map(|(_, text)| text).unwrap_or_default();
    let mut names: Vec<String> =
        list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if let Some((place, subdomain)) = keys.remove("subdomain").filter(|(_, name)| !name.is_empty()) {
        match server.get("subdomainhost") {
            Some((_, host)) => names.push(format!("{subdomain}.{host}")),
            None => {
                let why = "the file of the server (frps) has the domain: import both together";
                mapping.lose(place, format!("subdomain {subdomain}"), why);
            }
        }
    }
    names
}

/// A mapping that leads by the name in HTTP or TLS.
fn by_name(mapping: &mut Mapping, kind: &str, target: Option<String>, names: Vec<String>, server: &Keys) {
    let (by, usual, key) = match kind {
        "http" => ("http-host", "80", "vhosthttpport"),
        _ => ("tls-sni", "443", "vhosthttpsport"),
    };
    match server.get(key).filter(|(_, port)| is_ports(port)) {
        Some((_, port)) => mapping.listen.push(port.clone()),
        None => {
            mapping.listen.push(usual.to_owned());
            mapping.notes.push(format!("Port {usual} is the usual one: frps has it in its own file."));
        }
    }
    mapping.set_text("match", Some(by.to_owned()));
    if let Some(target) = target {
        let host = |name: String| Host { name, targets: vec![Target::at(target.clone())], send_proxy: None };
        mapping.hosts.extend(names.into_iter().map(host));
    }
}

/// The further keys of a proxy.
fn others(mapping: &mut Mapping, mut keys: Keys) {
    let version =
        keys.remove("transport.proxyprotocolversion").or_else(|| keys.remove("proxyprotocolversion"));
    if let Some((_, version)) = version.filter(|(_, version)| ["v1", "v2"].contains(&&**version)) {
        match &mut *mapping.hosts {
            [] => mapping.set_text("send_proxy", Some(version)),
            hosts => hosts.iter_mut().for_each(|host| host.send_proxy = Some(version.clone())),
        }
    }
    let mut check =
        |key: &str, old: &str| keys.remove(key).or_else(|| keys.remove(old)).map(|(_, text)| text);
    let kind = check("healthcheck.type", "healthchecktype");
    let count =
        |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).filter(|count| *count > 0);
    let seconds = |text| count(text).and_then(|seconds| written(seconds.saturating_mul(1000)));
    let interval = seconds(check("healthcheck.intervalseconds", "healthcheckintervals"));
    let fall = count(check("healthcheck.maxfailed", "healthcheckmaxfailed"));
    drop(check("healthcheck.timeoutseconds", "healthchecktimeouts"));
    if kind.as_deref() == Some("tcp") {
        let mut health = Vec::new();
        health.extend(interval.map(|interval| ("interval", Value::Text(interval))));
        health.extend(fall.map(|fall| ("fall", Value::Number(fall))));
        mapping.set("health", Value::Table(health));
    } else if let Some(kind) = kind.filter(|kind| !kind.is_empty()) {
        mapping.lose(mapping.place, format!("healthCheck {kind}"), "`health` of portway looks at bytes");
    }
    let is_lost = |key: &&str| {
        !OF_THE_TUNNEL.contains(key)
            && !["metadatas.", "annotations.", "meta"].iter().any(|start| key.starts_with(start))
    };
    let left: Vec<&str> = keys.keys().map(String::as_str).filter(is_lost).collect();
    if !left.is_empty() {
        mapping.lose(mapping.place, left.join(", "), "portway has no such keys");
    }
}
