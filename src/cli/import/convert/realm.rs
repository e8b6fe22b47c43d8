//! realm: endpoints in TOML or JSON.

use super::{
    model::{File, Imported, Mapping, Target, Value},
    tree::{self, Node},
    words::{host_and_port, listener, protocols_of, target, written},
};
use crate::mapping::publish::Protocols;

/// Reads the file.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    let is_json = file.text.trim_start().starts_with('{');
    let root = if is_json { tree::yaml(file.text) } else { tree::toml(file.text) };
    let root = match root {
        Ok(root) => root,
        Err((line, error)) => return into.lose(file.at(line), "", error),
    };
    for (key, value) in root.entries() {
        match key.as_str() {
            "endpoints" | "network" => {}
            "log" => into.lose(file.at(value.line), "log", "see [log] of portway"),
            "dns" => into.lose(file.at(value.line), "dns", "portway asks the resolver of the system"),
            key => into.lose(file.at(value.line), key, "portway has no such table"),
        }
    }
    for node in root.get("endpoints").map_or(&[][..], Node::items) {
        into.add(endpoint(file, node, root.get("network")));
    }
}

fn endpoint(file: File<'_>, node: &Node, global: Option<&Node>) -> Mapping {
    let place = file.at(node.line);
    // `local` and `udp` are of version 1.
    let listen = node.text_of("listen").or_else(|| node.text_of("local")).unwrap_or_default();
    let remote = node.text_of("remote").unwrap_or_default();
    let mut mapping = Mapping::at(place, format!("endpoint {listen} to {remote}"), "");
    match host_and_port(listen).and_then(|(host, port)| listener(host, port)) {
        Some(listener) => mapping.listen.push(listener),
        None => mapping.lose(place, listen, "not an address to listen on"),
    }
    let extra = node.get("extra_remotes").map_or(&[][..], Node::items).iter().filter_map(Node::text);
    for remote in std::iter::once(remote).chain(extra) {
        match host_and_port(remote).and_then(|(host, port)| target(host, port)) {
            Some(target) => mapping.targets.push(Target::at(target)),
            None => mapping.lose(place, remote, "not a target"),
        }
    }
    if let Some(balance) = node.text_of("balance") {
        self::balance(&mut mapping, file, node, balance);
    }
    for (key, value) in node.entries() {
        let place = file.at(value.line);
        match key.as_str() {
            "listen" | "local" | "remote" | "extra_remotes" | "balance" | "network" | "udp" => {}
            "through" => {
                let text = value.text().unwrap_or_default();
                let ip = host_and_port(text).map_or(text, |(host, _)| host);
                let ip = super::words::ip(ip).filter(|ip| !ip.is_unspecified());
                mapping.set_text("source", ip.map(|ip| ip.to_string()));
            }
            "listen_transport" | "remote_transport" => {
                mapping.lose(place, key, "portway forwards bytes and makes no TLS or WebSocket");
            }
            key => mapping.lose(place, key, "portway has no such key"),
        }
    }
    network(&mut mapping, file, node.get("network"), global);
    match node.text_of("udp") {
        Some("true") => mapping.protocols = Protocols::Both,
        Some(_) => mapping.protocols = Protocols::Tcp,
        None => {}
    }
    mapping
}

/// `roundrobin: 4, 2` and `iphash: 4, 2`.
fn balance(mapping: &mut Mapping, file: File<'_>, node: &Node, text: &str) {
    let place = file.at(node.get("balance").map_or(node.line, |balance| balance.line));
    let (strategy, weights) = text.split_once(':').unwrap_or((text, ""));
    match strategy.trim() {
        "roundrobin" => {}
        "iphash" => mapping.set_text("balance", Some("client-hash".to_owned())),
        "off" => return mapping.targets.truncate(1),
        other => return mapping.lose(place, other, "portway has no such balance"),
    }
    for (target, weight) in mapping.targets.iter_mut().zip(weights.split(',')) {
        let weight = weight.trim().parse::<u64>().ok().filter(|weight| (2..=1000).contains(weight));
        target.weight = weight;
    }
}

/// What a `[network]` says: that of the endpoint goes before that of the file.
fn network(mapping: &mut Mapping, file: File<'_>, own: Option<&Node>, global: Option<&Node>) {
    let of = |key: &str| own.and_then(|own| own.get(key)).or_else(|| global.and_then(|all| all.get(key)));
    let is = |key: &str| of(key).and_then(Node::text) == Some("true");
    mapping.protocols = protocols_of(!is("no_tcp"), is("use_udp"));
    let seconds = |key: &str| of(key)?.text()?.parse::<u64>().ok();
    let timeout = |key: &str| seconds(key).and_then(|s| written(s.saturating_mul(1000)));
    if mapping.protocols != Protocols::Udp {
        mapping.set_text("connect_timeout", timeout("tcp_timeout"));
        match seconds("tcp_keepalive") {
            Some(0) => mapping.set_text("keepalive", Some("never".to_owned())),
            Some(s) if s < 32_768 => mapping.set_text("keepalive", written(s * 1000)),
            _ => {}
        }
    }
    match (mapping.protocols, timeout("udp_timeout")) {
        (Protocols::Udp, time) => mapping.set_text("idle_timeout", time),
        (Protocols::Both, Some(time)) => {
            let place = file.at(of("udp_timeout").map_or(mapping.place.line, |node| node.line));
            let why = format!("`idle_timeout = \"{time}\"` would hold for TCP, too; without it UDP has 60s");
            mapping.lose(place, "udp_timeout", why);
        }
        _ => {}
    }
    if is("send_proxy") {
        let version = of("send_proxy_version").and_then(Node::text).unwrap_or("2");
        let version = if version == "1" && !mapping.protocols.has_udp() { "v1" } else { "v2" };
        mapping.set_text("send_proxy", Some(version.to_owned()));
    }
    if is("accept_proxy") {
        mapping.set("accept_proxy", Value::Texts(vec!["0.0.0.0/0".into(), "::/0".into()]));
        mapping.notes.push(super::EVERY_PROXY.to_owned());
        mapping.set_text("match_timeout", timeout("accept_proxy_timeout"));
    }
    for key in ["ipv6_only", "send_mptcp", "accept_mptcp"] {
        if let Some(node) = of(key).filter(|_| is(key)) {
            mapping.lose(file.at(node.line), key, "portway has no such option");
        }
    }
}
