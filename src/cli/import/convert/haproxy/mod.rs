//! HAProxy: `frontend`, `listen` and `backend` sections.
//!
//! Each way in is a mapping: its listeners, and the servers of its backends. `acl` knows the
//! conditions. portway forwards TCP: of `mode http` only where a connection leads is carried over.

mod acl;

use acl::Acls;

use super::{
    EVERY_PROXY,
    model::{File, Host, Imported, Loss, Mapping, Place, Target, Value},
    words::{bracketed, duration, host_and_port, ip, is_ports, listener, millis, network, target, words},
};

/// A line: its place and its words.
type Line = (Place, Vec<String>);

/// A section that forwards, with the lines of the `defaults` before it.
struct Section {
    kind: String,
    name: String,
    place: Place,
    lines: Vec<Line>,
}

/// Reads the file.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    let sections = sections(file, into);
    let mut used = Vec::new();
    for section in sections.iter().filter(|section| section.kind != "backend") {
        frontend(section, &sections, &mut used, into);
    }
    for section in sections.iter().filter(|s| s.kind == "backend" && !used.contains(&s.name)) {
        into.lose(
            section.place,
            format!("backend {}", section.name),
            "no frontend that is imported leads to it",
        );
    }
}

/// The sections that forward. Of the others, those that change what is forwarded are lost.
fn sections(file: File<'_>, into: &mut Imported) -> Vec<Section> {
    let (mut sections, mut defaults): (Vec<Section>, Vec<Line>) = (Vec::new(), Vec::new());
    let mut current = String::new();
    for (place, line) in file.lines() {
        let words = words(line);
        let Some(first) = words.first() else { continue };
        match first.as_str() {
            "defaults" => defaults.clear(),
            "frontend" | "backend" | "listen" => {
                let name = words.get(1).cloned().unwrap_or_default();
                let mut lines = defaults.clone();
                // The older form: `listen NAME ADDRESS:PORT`.
                if let Some(bind) = words.get(2).filter(|word| *word != "from") {
                    lines.push((place, vec!["bind".to_owned(), bind.clone()]));
                }
                sections.push(Section { kind: first.clone(), name, place, lines });
            }
            "global" => {}
            "peers" | "resolvers" | "userlist" | "mailers" | "program" | "cache" | "http-errors" | "ring"
            | "log-forward" | "fcgi-app" => {
                into.lose(place, line.trim(), "portway has no such section");
            }
            _ => {
                match current.as_str() {
                    "defaults" => defaults.push((place, words)),
                    "frontend" | "backend" | "listen" => {
                        if let Some(section) = sections.last_mut() {
                            section.lines.push((place, words));
                        }
                    }
                    _ => {}
                }
                continue;
            }
        }
        current.clone_from(first);
    }
    sections
}

impl Section {
    /// The lines of a keyword.
    fn lines(&self, keyword: &str) -> impl Iterator<Item = (Place, &[String])> {
        let is = move |(_, words): &&Line| words[0] == keyword;
        self.lines.iter().filter(is).map(|(place, words)| (*place, &words[1..]))
    }

    /// The arguments of the last line that begins so: it goes before those above.
    fn last(&self, keywords: &[&str]) -> Option<(Place, &[String])> {
        let is = |words: &[String]| {
            words.len() >= keywords.len() && keywords.iter().zip(words).all(|(key, word)| key == word)
        };
        let (place, words) = self.lines.iter().rev().find(|(_, words)| is(words))?;
        Some((*place, &words[keywords.len()..]))
    }

    fn is_http(&self) -> bool {
        self.last(&["mode"]).is_some_and(|(_, words)| words.first().is_some_and(|mode| mode == "http"))
    }
}

fn frontend(section: &Section, all: &[Section], used: &mut Vec<String>, into: &mut Imported) {
    let what = format!("{} {}", section.kind, section.name);
    let mut mapping = Mapping::at(section.place, what, section.name.clone());
    binds(&mut mapping, section);
    if section.is_http() {
        mapping.lose(
            section.place,
            "mode http",
            "portway forwards TCP: it changes no header and knows no path",
        );
    }
    let acls = Acls::of(section.lines("acl"));
    let ways = ways(&mut mapping, section, all, used, &acls);
    if let Some(way) = ways.first() {
        mapping.targets = servers(&mut mapping, way);
        choice(&mut mapping, way);
    }
    clients(&mut mapping, section, &acls);
    let mut sections = vec![section];
    sections.extend(ways.first());
    times(&mut mapping, &sections);
    sections.dedup_by(|a, b| std::ptr::eq(*a, *b));
    for section in sections {
        others(&mut mapping, section);
    }
    finish_hosts(&mut mapping);
    into.add(mapping);
}

/// The backends that a frontend leads to: those without a condition. Those for some names become
/// hosts.
fn ways<'s>(
    mapping: &mut Mapping,
    section: &'s Section,
    all: &'s [Section],
    used: &mut Vec<String>,
    acls: &Acls,
) -> Vec<&'s Section> {
    let mut ways: Vec<&Section> = Vec::new();
    if section.kind == "listen" {
        ways.push(section);
    }
    let mut backend = |place: Place, name: &str| {
        used.push(name.to_owned());
        let found = all.iter().find(|section| section.kind != "frontend" && section.name == name);
        found.ok_or_else(|| Loss::new(place, format!("backend {name}"), "there is no such backend"))
    };
    if let Some((place, [name, ..])) = section.last(&["default_backend"]) {
        match backend(place, name) {
            Ok(found) => ways.push(found),
            Err(loss) => mapping.losses.push(loss),
        }
    }
    for (place, words) in section.lines("use_backend") {
        let [name, condition @ ..] = words else { continue };
        let found = match backend(place, name) {
            Ok(found) => found,
            Err(loss) => {
                mapping.losses.push(loss);
                continue;
            }
        };
        match acls.names(condition) {
            Some((by, names)) => {
                mapping.set_text("match", Some(by.to_owned()));
                let found = own(mapping, place, found);
                let hosts = names.into_iter().map(|name| Host { name, ..found.clone() });
                mapping.hosts.extend(hosts);
            }
            None if condition.is_empty() => ways.push(found),
            None => {
                let why = "portway leads by the name in TLS or in the Host header alone";
                mapping.lose(place, format!("use_backend {}", words.join(" ")), why);
            }
        }
    }
    ways
}

/// The servers of a backend for some names, with the terms that those names have alone.
fn own(mapping: &mut Mapping, place: Place, backend: &Section) -> Host {
    let mut apart = Mapping { listen: mapping.listen.clone(), ..Mapping::at(place, "", "") };
    let targets = servers(&mut apart, backend);
    mapping.losses.append(&mut apart.losses);
    let mut host = Host { targets, ..Host::default() };
    for (key, value) in apart.keys {
        match value {
            Value::Text(version) if key == "send_proxy" => host.send_proxy = Some(version),
            value if mapping.keys.iter().all(|(known, _)| *known != key) => mapping.set(key, value),
            _ => {}
        }
    }
    host
}

/// Leaves each name once, and says where one has another PROXY header than the mapping.
fn finish_hosts(mapping: &mut Mapping) {
    let mut seen = std::collections::HashSet::new();
    mapping.hosts.retain(|host| !host.targets.is_empty() && seen.insert(host.name.clone()));
    let common = mapping.keys.iter().find_map(|(key, value)| match value {
        Value::Text(version) if *key == "send_proxy" => Some(version.clone()),
        _ => None,
    });
    for host in &mut mapping.hosts {
        host.send_proxy = match (host.send_proxy.take(), &common) {
            (Some(own), Some(common)) if own == *common => None,
            (None, Some(_)) => Some("off".to_owned()),
            (own, _) => own,
        };
    }
}

/// The listeners.
fn binds(mapping: &mut Mapping, section: &Section) {
    for (place, words) in section.lines("bind") {
        let [addresses, options @ ..] = words else { continue };
        if options.iter().any(|option| option == "ssl") {
            let why = "portway never ends TLS: let the target do it, and forward the port as it is";
            mapping.lose(place, format!("bind {}", words.join(" ")), why);
            continue;
        }
        for address in addresses.split(',') {
            let address = ["ipv4@", "ipv6@"].iter().find_map(|p| address.strip_prefix(p)).unwrap_or(address);
            let found = match address.rsplit_once(':') {
                Some((host, ports)) if host != "::" || is_ports(ports) => listener(host, ports),
                _ => None,
            };
            match found {
                Some(listener) => mapping.listen.push(listener),
                None => mapping.lose(place, address, "not an address and a port to listen on"),
            }
        }
        let mut options = options.iter().map(String::as_str);
        while let Some(option) = options.next() {
            match option {
                "accept-proxy" => {
                    mapping.set("accept_proxy", Value::Texts(vec!["0.0.0.0/0".into(), "::/0".into()]));
                    mapping.notes.push(EVERY_PROXY.to_owned());
                }
                "transparent" | "v4v6" | "v6only" | "tfo" | "defer-accept" => {}
                "name" | "id" | "maxconn" | "backlog" | "process" | "thread" | "shards" => {
                    options.next();
                }
                "interface" => mapping.lose(
                    place,
                    format!("interface {}", options.next().unwrap_or_default()),
                    "listen on an address of that interface",
                ),
                other => mapping.lose(place, format!("bind … {other}"), "portway has no such option"),
            }
        }
    }
}

/// The servers of a backend.
fn servers(mapping: &mut Mapping, section: &Section) -> Vec<Target> {
    let mut targets = Vec::new();
    for (place, words) in section.lines("server") {
        let [name, address, options @ ..] = words else {
            mapping.lose(place, format!("server {}", words.join(" ")), "not understood");
            continue;
        };
        let Some(mut target) = server_address(mapping, address) else {
            mapping.lose(place, format!("server {name} {address}"), "not a target with a port");
            continue;
        };
        if server_options(mapping, (place, name), options, &mut target) {
            targets.push(target);
        }
    }
    for (place, words) in section.lines("server-template") {
        mapping.lose(place, format!("server-template {}", words.join(" ")), "write each target");
    }
    targets
}

/// The address of a server; without a port it has that of the listener.
fn server_address(mapping: &Mapping, address: &str) -> Option<Target> {
    let address = ["ipv4@", "ipv6@"].iter().find_map(|p| address.strip_prefix(p)).unwrap_or(address);
    if let Some((host, port)) = host_and_port(address) {
        return target(host, port).map(Target::at);
    }
    let [listener] = &*mapping.listen else { return None };
    let port = listener.rsplit(':').next()?;
    let host = if ip(address).is_some() { bracketed(address) } else { address.to_owned() };
    target(&host, port).map(Target::at)
}

/// Options of a server with a value that portway needs not.
const IGNORED: [&str; 16] = [
    "id",
    "init-addr",
    "resolvers",
    "resolve-prefer",
    "cookie",
    "verify",
    "sni",
    "port",
    "addr",
    "fastinter",
    "downinter",
    "observe",
    "error-limit",
    "on-error",
    "ca-file",
    "pool-max-conn",
];

/// Reads the options of a server; says whether it is in use.
fn server_options(
    mapping: &mut Mapping,
    (place, name): (Place, &str),
    options: &[String],
    target: &mut Target,
) -> bool {
    let mut options = options.iter().map(String::as_str);
    let (mut checks, mut health) = (false, Vec::new());
    while let Some(option) = options.next() {
        let mut value = || options.next().unwrap_or_default();
        match option {
            "check" => checks = true,
            "backup" => target.backup = true,
            "weight" => match value().parse::<u64>() {
                Ok(0) | Err(_) => {
                    mapping.lose(place, format!("server {name} weight 0"), "it takes a full share");
                }
                Ok(weight) => target.weight = Some(weight).filter(|weight| *weight > 1),
            },
            "inter" => health.extend(duration(value(), 1).map(|time| ("interval", Value::Text(time)))),
            "rise" => health.extend(value().parse().ok().map(|count| ("rise", Value::Number(count)))),
            "fall" => health.extend(value().parse().ok().map(|count| ("fall", Value::Number(count)))),
            "send-proxy" => mapping.set_text("send_proxy", Some("v1".to_owned())),
            "send-proxy-v2" => mapping.set_text("send_proxy", Some("v2".to_owned())),
            "slowstart" => mapping.set_text("slow_start", duration(value(), 1)),
            "source" => {
                let value = value();
                let host = host_and_port(value).map_or(value, |(host, _)| host);
                mapping
                    .set_text("source", ip(host).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()));
            }
            "on-marked-down" => {
                value();
                mapping.set_text("on_down", Some("close".to_owned()));
            }
            "disabled" => {
                mapping.lose(place, format!("server {name}"), "it is disabled");
                return false;
            }
            "ssl" | "check-ssl" => {
                mapping.lose(place, format!("server {name} {option}"), "portway makes no TLS");
            }
            option if IGNORED.contains(&option) => {
                value();
            }
            "maxconn" | "maxqueue" => {
                let value = value();
                mapping.lose(
                    place,
                    format!("server {name} {option} {value}"),
                    "`max_sessions` is for a mapping",
                );
            }
            other => mapping.lose(place, format!("server {name} {other}"), "portway has no such option"),
        }
    }
    if checks {
        mapping.set("health", Value::Table(health));
    }
    true
}

/// How the next server is chosen.
fn choice(mapping: &mut Mapping, section: &Section) {
    let Some((place, [balance, ..])) = section.last(&["balance"]) else { return };
    let meant = match balance.as_str() {
        "roundrobin" | "static-rr" => return,
        "leastconn" => "least-sessions",
        "source" => "client-hash",
        "first" => "first",
        other => {
            return mapping.lose(place, format!("balance {other}"), "portway takes the targets by turns");
        }
    };
    if mapping.targets.len() > 1 {
        mapping.set_text("balance", Some(meant.to_owned()));
    }
    if meant == "first" {
        mapping.targets.iter_mut().for_each(|target| target.weight = None);
    }
}

/// Timeouts and the most connections.
fn times(mapping: &mut Mapping, sections: &[&Section]) {
    let time = |name: &str| {
        let (_, words) = sections.iter().rev().find_map(|section| section.last(&["timeout", name]))?;
        duration(words.first()?, 1)
    };
    let longer = |a: Option<String>, b: Option<String>| match (a, b) {
        (Some(a), Some(b)) => Some(if millis(&a) >= millis(&b) { a } else { b }),
        (a, b) => a.or(b),
    };
    mapping.set_text("connect_timeout", time("connect"));
    mapping.set_text("idle_timeout", time("tunnel").or_else(|| longer(time("client"), time("server"))));
    mapping.set_text("half_close_timeout", longer(time("client-fin"), time("server-fin")));
    if let Some((_, Value::Table(health))) = mapping.keys.iter_mut().find(|(key, _)| *key == "health")
        && let Some(check) = time("check")
    {
        let interval = health.iter().find_map(|(key, value)| match value {
            Value::Text(text) if *key == "interval" => Some(millis(text)),
            _ => None,
        });
        // It has to be shorter than the interval, which is 5s unless it is said.
        if millis(&check) < interval.unwrap_or(5000) {
            health.push(("timeout", Value::Text(check)));
        }
    }
    if let Some((_, [most, ..])) = sections[0].last(&["maxconn"])
        && let Ok(most @ 1..) = most.parse::<u64>()
    {
        mapping.set("max_sessions", Value::Number(most));
    }
}

/// Which clients may enter.
fn clients(mapping: &mut Mapping, section: &Section, acls: &Acls) {
    for (place, words) in section.lines("tcp-request") {
        let text: Vec<&str> = words.iter().map(String::as_str).collect();
        let lose = |mapping: &mut Mapping| {
            mapping.lose(place, format!("tcp-request {}", text.join(" ")), "portway has no such rule");
        };
        match &*text {
            ["inspect-delay", time, ..] => {
                if !mapping.hosts.is_empty() {
                    mapping.set_text("match_timeout", duration(time, 1));
                }
            }
            // The name is waited for anyway.
            ["content", "accept", ..]
                if text.iter().any(|word| {
                    word.contains("req_ssl_hello_type") || word.contains("req.ssl_hello_type")
                }) => {}
            ["connection" | "content" | "session", "reject", "if" | "unless", ..] => {
                let is_unless = text[2] == "unless";
                match acls.clients(&words[3..]) {
                    Some((nets, is_not)) => {
                        let nets = nets.iter().map(|net| network(net)).collect::<Option<Vec<_>>>();
                        match nets {
                            Some(nets) if is_not != is_unless => mapping.set_texts("allow", nets),
                            Some(nets) => mapping.set_texts("deny", nets),
                            None => lose(mapping),
                        }
                    }
                    None => lose(mapping),
                }
            }
            _ => lose(mapping),
        }
    }
}

/// What remains: what portway does anyway is passed over, the rest is lost.
fn others(mapping: &mut Mapping, section: &Section) {
    for (place, words) in &section.lines {
        let second = words.get(1).map(String::as_str).unwrap_or_default();
        let is_known = match words[0].as_str() {
            "bind" | "server" | "acl" | "use_backend" | "default_backend" | "mode" | "balance"
            | "maxconn" | "log" | "tcp-request" | "description" | "retries" | "hash-type"
            | "default-server" | "server-template" | "fullconn" | "id" | "unique-id-format"
            | "log-format" | "option-http" | "errorfile" | "stats" | "backlog" => {
                words[0] != "default-server" && words[0] != "stats"
            }
            "timeout" => {
                ["connect", "client", "server", "tunnel", "client-fin", "server-fin", "check", "queue"]
                    .contains(&second)
                    || second.starts_with("http-")
            }
            "option" => {
                second.ends_with("log")
                    || second.ends_with("ka")
                    || [
                        "dontlognull",
                        "redispatch",
                        "tcp-check",
                        "splice-auto",
                        "splice-request",
                        "splice-response",
                    ]
                    .contains(&second)
            }
            "no" | "enabled" => true,
            _ => false,
        };
        // What `defaults` says of HTTP was lost with the mode.
        let is_http = section.is_http() && (words[0].starts_with("http") || words[0] == "option");
        if !is_known && !is_http && mapping.losses.len() < 200 {
            mapping.lose(*place, words.join(" "), "portway has no such directive");
        }
    }
}
