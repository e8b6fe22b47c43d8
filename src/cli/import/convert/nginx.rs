//! nginx: the servers of `stream {}`.

use std::collections::HashMap;

use ipnet::IpNet;

use super::{
    EVERY_PROXY,
    model::{File, Host, Imported, Mapping, Place, Target, Value},
    words::{duration, host_and_port, ip, is_ports, listener, network, protocols_of, target},
};
use crate::mapping::publish::Protocols;

/// How deep blocks may stand in each other.
const DEEPEST: usize = 32;

/// A directive, with what is in its block.
#[derive(Debug)]
struct Directive {
    place: Place,
    words: Vec<String>,
    block: Option<Vec<Directive>>,
}

impl Directive {
    fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    fn first(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }

    fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    fn written(&self) -> String {
        self.words.join(" ")
    }
}

/// Reads the file.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    let mut tokens = tokens(file, into).into_iter();
    let all = block(&mut tokens, 0);
    let streams: Vec<&Directive> = all.iter().filter(|directive| directive.name() == "stream").collect();
    for directive in &all {
        match directive.name() {
            "http" | "mail" => {
                let why =
                    "portway forwards TCP and UDP, not requests: a port of its own can be forwarded as it is";
                into.lose(directive.place, format!("{} {{}}", directive.name()), why);
            }
            "include" => {
                into.lose(directive.place, directive.written(), "other files are not read: import them, too");
            }
            _ => {}
        }
    }
    if streams.is_empty() {
        // A file that is included in `stream {}`.
        stream(&all, into);
    }
    for directive in streams {
        stream(directive.inside(), into);
    }
}

/// A word, or one of the signs `{`, `}` and `;`.
type Token = (Place, String, bool);

fn tokens(file: File<'_>, into: &mut Imported) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut word, mut quote, mut start) = (None::<String>, None, Place::default());
    for (place, line) in file.lines() {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            if word.is_none() {
                start = place;
            }
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (_, '\\') => {
                    let word = word.get_or_insert_default();
                    let next = chars.next();
                    if !next.is_some_and(|c| "\"' \t;{}\\".contains(c)) {
                        word.push('\\');
                    }
                    word.extend(next);
                }
                (Some(_), c) => word.get_or_insert_default().push(c),
                (None, '\'' | '"') if word.is_none() => {
                    quote = Some(c);
                    word = Some(String::new());
                }
                (None, '#') if word.is_none() => break,
                // A variable in braces is part of its word.
                (None, '{') if word.as_ref().is_some_and(|word| word.ends_with('$')) => {
                    word.get_or_insert_default().push(c);
                    for c in chars.by_ref() {
                        word.get_or_insert_default().push(c);
                        if c == '}' {
                            break;
                        }
                    }
                }
                (None, '{' | '}' | ';') => {
                    tokens.extend(word.take().map(|word| (start, word, false)));
                    tokens.push((place, c.to_string(), true));
                }
                (None, c) if c.is_whitespace() => tokens.extend(word.take().map(|word| (start, word, false))),
                (None, c) => word.get_or_insert_default().push(c),
            }
        }
        if quote.is_none() {
            tokens.extend(word.take().map(|word| (start, word, false)));
        }
    }
    if quote.is_some() {
        into.lose(start, "a quote", "it has no end");
    }
    tokens
}

fn block(tokens: &mut std::vec::IntoIter<Token>, depth: usize) -> Vec<Directive> {
    let mut directives = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut start = Place::default();
    while let Some((place, text, is_sign)) = tokens.next() {
        match (&*text, is_sign) {
            (";", true) => {
                if !words.is_empty() {
                    directives.push(Directive {
                        place: start,
                        words: std::mem::take(&mut words),
                        block: None,
                    });
                }
            }
            ("{", true) if depth < DEEPEST => {
                let inside = block(tokens, depth + 1);
                directives.push(Directive {
                    place: start,
                    words: std::mem::take(&mut words),
                    block: Some(inside),
                });
            }
            ("}", true) => return directives,
            _ => {
                if words.is_empty() {
                    start = place;
                }
                words.push(text);
            }
        }
    }
    directives
}

/// What a server may name: groups of targets, and maps by the name in TLS.
struct Named<'d> {
    upstreams: HashMap<&'d str, &'d Directive>,
    maps: HashMap<&'d str, &'d Directive>,
}

fn stream(directives: &[Directive], into: &mut Imported) {
    let of = |name: &'static str| directives.iter().filter(move |directive| directive.name() == name);
    let named = Named {
        upstreams: of("upstream").map(|directive| (directive.first(), directive)).collect(),
        maps: of("map")
            .filter_map(|map| Some((map.words.get(2)?.as_str(), map)))
            .filter(|(_, map)| map.first().starts_with("$ssl_preread_server_name"))
            .collect(),
    };
    for directive in directives {
        match directive.name() {
            "server" => server(directive, directives, &named, into),
            "map" if !directive.first().starts_with("$ssl_preread_server_name") => {
                let why = "portway leads by the name in TLS alone";
                into.lose(directive.place, format!("map {}", directive.arguments().join(" ")), why);
            }
            "geo" | "limit_conn_zone" | "split_clients" => {
                into.lose(directive.place, directive.written(), "portway has no such directive");
            }
            "include" => {
                into.lose(directive.place, directive.written(), "other files are not read: import them, too");
            }
            _ => {}
        }
    }
}

fn server(server: &Directive, above: &[Directive], named: &Named<'_>, into: &mut Imported) {
    // What a server says goes before what `stream` says.
    let inherited = above.iter().filter(|directive| {
        !["server", "upstream", "map", "include", "geo", "limit_conn_zone", "split_clients", "log_format"]
            .contains(&directive.name())
            && !server.inside().iter().any(|own| own.name() == directive.name())
    });
    let directives: Vec<&Directive> = server.inside().iter().chain(inherited).collect();
    let listens = directives.iter().filter(|directive| directive.name() == "listen");
    let origin = listens.clone().map(|listen| listen.written()).collect::<Vec<_>>().join(", ");
    let mut mapping = Mapping::at(server.place, format!("server with {origin}"), "");
    let (mut tcp, mut udp) = (false, false);
    for listen in listens {
        self::listen(&mut mapping, listen, (&mut tcp, &mut udp), &directives);
    }
    mapping.protocols = protocols_of(tcp, udp);
    access(&mut mapping, &directives);
    for directive in &directives {
        self::directive(&mut mapping, directive, named);
    }
    if mapping.targets.len() < 2 {
        mapping.keys.retain(|(key, _)| *key != "balance");
    }
    into.add(mapping);
}

fn listen(mapping: &mut Mapping, listen: &Directive, (tcp, udp): (&mut bool, &mut bool), all: &[&Directive]) {
    let place = listen.place;
    let address = listen.first();
    let (host, ports) =
        if is_ports(address) { ("0.0.0.0", address) } else { host_and_port(address).unwrap_or_default() };
    let options = listen.arguments().get(1..).unwrap_or_default();
    let is_udp = options.iter().any(|option| option == "udp");
    if options.iter().any(|option| option == "ssl") {
        let why = "portway never ends TLS: let the target do it, and forward the port as it is";
        return mapping.lose(place, listen.written(), why);
    }
    // nginx writes both families; portway has one socket for both.
    let found = match host {
        "*" => listener("0.0.0.0", ports),
        "::" if options.iter().all(|option| option != "ipv6only=off") => listener("::", ports),
        host => listener(host, ports),
    };
    match found {
        Some(listener) if listener == ports => {
            let same = format!("0.0.0.0:{ports}");
            mapping.listen.retain(|known| *known != same);
            mapping.listen.push(listener);
        }
        Some(listener) if mapping.listen.iter().any(|known| known == ports) && host == "0.0.0.0" => {
            drop(listener);
        }
        Some(listener) => mapping.listen.push(listener),
        None => mapping.lose(place, listen.written(), "not an address and ports to listen on"),
    }
    *(if is_udp { udp } else { tcp }) = true;
    for option in options {
        match option.split('=').next().unwrap_or_default() {
            "udp" | "reuseport" | "backlog" | "rcvbuf" | "sndbuf" | "ipv6only" | "bind"
            | "default_server" | "fastopen" | "deferred" | "multipath" => {}
            "so_keepalive" => {
                if option.ends_with("=off") {
                    mapping.set_text("keepalive", Some("never".to_owned()));
                }
            }
            "proxy_protocol" => {
                let from = all.iter().filter(|directive| directive.name() == "set_real_ip_from");
                let nets: Vec<String> = from.filter_map(|directive| network(directive.first())).collect();
                if nets.is_empty() {
                    mapping.set("accept_proxy", Value::Texts(vec!["0.0.0.0/0".into(), "::/0".into()]));
                    mapping.notes.push(EVERY_PROXY.to_owned());
                } else {
                    mapping.set_texts("accept_proxy", nets);
                }
            }
            _ => mapping.lose(place, format!("listen … {option}"), "portway has no such option"),
        }
    }
}

/// `allow` and `deny`: with nginx the first one decides, with portway the most specific one.
fn access(mapping: &mut Mapping, directives: &[&Directive]) {
    let rules = directives.iter().filter(|directive| ["allow", "deny"].contains(&directive.name()));
    let (mut seen, mut last): (Vec<(bool, IpNet)>, Option<bool>) = (Vec::new(), None);
    for rule in rules {
        if last.is_some() {
            break;
        }
        let allows = rule.name() == "allow";
        if rule.first() == "all" {
            last = Some(allows);
            continue;
        }
        let net = network(rule.first())
            .and_then(|net| net.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(ip(&net)?))));
        match net {
            Some(net) if seen.iter().any(|(other, first)| *other != allows && first.contains(&net)) => {
                mapping.lose(rule.place, rule.written(), "a wider rule above it decides");
            }
            Some(net) => seen.push((allows, net)),
            None => mapping.lose(rule.place, rule.written(), "not a network"),
        }
    }
    let texts = |wanted: bool| {
        let nets = seen.iter().filter(|(allows, _)| *allows == wanted);
        nets.map(|(_, net)| net.to_string()).collect::<Vec<_>>()
    };
    match (last, texts(true)) {
        (Some(false), allow) if allow.is_empty() => {
            mapping.set("enabled", Value::Flag(false));
            mapping.notes.push("It lets no client in: it is disabled.".to_owned());
        }
        (Some(false), allow) => mapping.set_texts("allow", allow),
        (_, allow) if allow.is_empty() => {}
        (_, mut allow) => {
            // Exceptions from what is refused: all others may enter, too.
            allow.extend(["0.0.0.0/0".to_owned(), "::/0".to_owned()]);
            mapping.set_texts("allow", allow);
        }
    }
    mapping.set_texts("deny", texts(false));
}

fn directive(mapping: &mut Mapping, directive: &Directive, named: &Named<'_>) {
    let (place, first) = (directive.place, directive.first());
    let is_on = first == "on";
    match directive.name() {
        "proxy_pass" => pass(mapping, place, first, named),
        "proxy_timeout" => mapping.set_text("idle_timeout", duration(first, 1000)),
        "proxy_connect_timeout" => {
            if mapping.protocols != Protocols::Udp {
                mapping.set_text("connect_timeout", duration(first, 1000));
            }
        }
        "proxy_protocol" if is_on => {
            let version = if mapping.protocols.has_udp() { "v2" } else { "v1" };
            mapping.set_text("send_proxy", Some(version.to_owned()));
        }
        "proxy_bind" => match ip(first) {
            Some(ip) => mapping.set_text("source", Some(ip.to_string())),
            None if first.starts_with('$')
                && directive.arguments().iter().any(|word| word == "transparent") =>
            {
                mapping.set("transparent", Value::Flag(true));
            }
            None => mapping.lose(place, directive.written(), "not an address"),
        },
        "proxy_socket_keepalive"
        | "tcp_nodelay"
        | "proxy_buffer_size"
        | "access_log"
        | "error_log"
        | "proxy_responses"
        | "proxy_requests"
        | "resolver"
        | "resolver_timeout"
        | "proxy_next_upstream"
        | "proxy_next_upstream_tries"
        | "proxy_next_upstream_timeout"
        | "listen"
        | "allow"
        | "deny"
        | "set_real_ip_from"
        | "ssl_preread"
        | "server_name"
        | "preread_buffer_size"
        | "variables_hash_max_size"
        | "variables_hash_bucket_size"
        | "map_hash_bucket_size"
        | "log_format"
        | "proxy_half_close"
        | "status_zone"
        | "proxy_protocol" => {}
        "preread_timeout" => {
            if !mapping.hosts.is_empty() {
                mapping.set_text("match_timeout", duration(first, 1000));
            }
        }
        "limit_conn" => match directive.arguments().get(1).and_then(|most| most.parse::<u64>().ok()) {
            Some(most) if most > 0 => mapping.set("max_sessions_per_client", Value::Number(most)),
            _ => mapping.lose(place, directive.written(), "not a number"),
        },
        _ => mapping.lose(place, directive.written(), "portway has no such directive"),
    }
}

/// Where a server leads: an address, a group, or a map by names.
fn pass(mapping: &mut Mapping, place: Place, to: &str, named: &Named<'_>) {
    if to.starts_with('$') {
        let (name, port) = to.split_once(':').map_or((to, None), |(name, port)| (name, Some(port)));
        let Some(map) = named.maps.get(name) else {
            return mapping.lose(place, format!("proxy_pass {to}"), "no map by the name in TLS gives it");
        };
        mapping.set_text("match", Some("tls-sni".to_owned()));
        for entry in map.inside() {
            names(mapping, entry, named, port);
        }
        return;
    }
    mapping.targets = targets(mapping, place, to, named, true);
}

/// An entry of a map: a name and where it leads, with the port that stands behind the map.
fn names(mapping: &mut Mapping, entry: &Directive, named: &Named<'_>, port: Option<&str>) {
    let to = port.map_or_else(|| entry.first().to_owned(), |port| format!("{}:{port}", entry.first()));
    let (name, to) = (entry.name(), to.as_str());
    match name {
        "hostnames" | "volatile" => {}
        "include" => mapping.lose(entry.place, entry.written(), "other files are not read"),
        "default" => mapping.targets = targets(mapping, entry.place, to, named, true),
        name if name.starts_with('~') => {
            mapping.lose(
                entry.place,
                entry.written(),
                "portway knows names and *. before them, no expressions",
            );
        }
        name => {
            let targets = targets(mapping, entry.place, to, named, false);
            let name = name.to_ascii_lowercase();
            // `.example.org` is the name itself and every name below it.
            let all = match name.strip_prefix('.') {
                Some(rest) => vec![rest.to_owned(), format!("*.{rest}")],
                None => vec![name],
            };
            for name in all {
                let is_new = mapping.hosts.iter().all(|host| host.name != name);
                if !targets.is_empty() && is_new && mapping.hosts.len() < 10_000 {
                    mapping.hosts.push(Host { name, targets: targets.clone(), send_proxy: None });
                }
            }
        }
    }
}

/// The targets of an address or of a group.
fn targets(mapping: &mut Mapping, place: Place, to: &str, named: &Named<'_>, is_main: bool) -> Vec<Target> {
    let Some(upstream) = named.upstreams.get(to) else {
        let found = host_and_port(to).and_then(|(host, port)| target(host, port));
        if found.is_none() {
            mapping.lose(place, to, "not a target with a port");
        }
        return found.map(Target::at).into_iter().collect();
    };
    let mut targets = Vec::new();
    for directive in upstream.inside() {
        match directive.name() {
            "server" => targets.extend(upstream_server(mapping, directive)),
            "least_conn" if is_main => mapping.set_text("balance", Some("least-sessions".to_owned())),
            "hash" if is_main && directive.first().starts_with("$remote_addr") => {
                mapping.set_text("balance", Some("client-hash".to_owned()));
            }
            "zone" | "least_conn" | "resolver" => {}
            _ => mapping.lose(directive.place, directive.written(), "portway has no such directive"),
        }
    }
    targets
}

fn upstream_server(mapping: &mut Mapping, server: &Directive) -> Option<Target> {
    let address = server.first();
    let mut found = match host_and_port(address).and_then(|(host, port)| target(host, port)) {
        Some(target) => Target::at(target),
        None => {
            mapping.lose(server.place, server.written(), "not a target with a port");
            return None;
        }
    };
    for option in server.arguments().get(1..).unwrap_or_default() {
        match option.split_once('=').unwrap_or((option, "")) {
            ("weight", weight) => found.weight = weight.parse().ok().filter(|weight| *weight > 1),
            ("backup", _) => found.backup = true,
            ("down", _) => {
                mapping.lose(server.place, server.written(), "it is marked as down");
                return None;
            }
            // portway notices a failing target by itself.
            ("max_fails" | "fail_timeout" | "resolve", _) => {}
            ("slow_start", time) => mapping.set_text("slow_start", duration(time, 1000)),
            _ => {
                mapping.lose(
                    server.place,
                    format!("server {address} {option}"),
                    "portway has no such option",
                );
            }
        }
    }
    Some(found)
}
