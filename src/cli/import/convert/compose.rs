//! `ports:` of a compose file, in the short and in the long form.

use super::{
    model::{File, Imported, Mapping, Place, Target},
    tree::{self, Node},
    words::{is_ports, listener, protocols_named},
};

/// Where the name of a service means something.
const NAME: &str = "The name of the service is known inside the compose network alone: run portway there, use labels \
                    ([docker]), or write an address.";
/// What has to go first.
const TAKE_OUT: &str = "Take this port out of `ports:`, or Docker has it first.";

/// Reads the file.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    let root = match tree::yaml(file.text) {
        Ok(root) => root,
        Err((line, error)) => return into.lose(file.at(line), "", error),
    };
    for (name, service) in root.get("services").map_or(&[][..], Node::entries) {
        if service.text_of("network_mode") == Some("host") {
            into.lose(file.at(service.line), name, "it has the network of the host: there is nothing to map");
            continue;
        }
        let host = service.text_of("container_name").filter(|host| is_host(host)).unwrap_or(name);
        let extends = service.get("extends").filter(|_| service.get("ports").is_none());
        if let Some(extends) = extends {
            into.lose(file.at(extends.line), format!("{name}: extends"), "other files are not read");
        }
        for port in service.get("ports").map_or(&[][..], Node::items) {
            if into.is_full() {
                return;
            }
            let place = file.at(port.line);
            match port.text() {
                Some(text) => short(place, (name, host), text, into),
                None => long(place, (name, host), port, into),
            }
        }
    }
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// `[IP:][PUBLISHED:]TARGET[/PROTOCOL]`.
fn short(place: Place, (name, host): (&str, &str), written: &str, into: &mut Imported) {
    let Some(text) = substituted(written) else {
        return into.lose(
            place,
            format!("{name}: {written}"),
            "it needs a variable of compose without a default",
        );
    };
    let (text, protocol) = text.rsplit_once('/').unwrap_or((&text, "tcp"));
    let (rest, inner) = match text.rsplit_once(':') {
        Some((rest, inner)) => (rest, inner),
        None => ("", text),
    };
    let (ip, outer) = match rest.rsplit_once(':') {
        Some((ip, outer)) => (ip, outer),
        None => ("", rest),
    };
    if outer.is_empty() {
        return into.lose(
            place,
            format!("{name}: {written}"),
            "Docker chooses the port: name one in portway",
        );
    }
    add(place, (name, host), [ip, outer, inner, protocol], into);
}

/// `{ target, published, host_ip, protocol, mode }`.
fn long(place: Place, (name, host): (&str, &str), port: &Node, into: &mut Imported) {
    let text = |key: &str| port.text_of(key).map_or(Some(String::new()), substituted);
    let parts = [text("host_ip"), text("published"), text("target"), text("protocol")];
    let [Some(ip), Some(outer), Some(inner), Some(protocol)] = parts else {
        return into.lose(place, name, "it needs a variable of compose without a default");
    };
    if outer.is_empty() {
        return into.lose(place, format!("{name}: {inner}"), "Docker chooses the port: name one in portway");
    }
    let protocol = if protocol.is_empty() { "tcp" } else { &protocol };
    add(place, (name, host), [&ip, &outer, &inner, protocol], into);
}

fn add(place: Place, (name, host): (&str, &str), parts: [&str; 4], into: &mut Imported) {
    let [ip, outer, inner, protocol] = parts;
    let what = format!("service {name}, port {outer}:{inner}/{protocol}");
    let Some(protocols) = protocols_named(protocol) else {
        return into.lose(place, what, "portway forwards TCP and UDP");
    };
    let mut mapping = Mapping::at(place, what.clone(), name);
    let (Some(listener), true, true) = (listener(ip, outer), is_ports(inner), is_host(host)) else {
        return into.lose(place, what, "not understood");
    };
    mapping.listen.push(listener);
    mapping.protocols = protocols;
    mapping.targets.push(Target::at(format!("{host}:{inner}")));
    mapping.notes.extend([NAME.to_owned(), TAKE_OUT.to_owned()]);
    into.add(mapping);
}

/// The text with the defaults of its variables.
fn substituted(text: &str) -> Option<String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (inside, behind) = after.strip_prefix('{')?.split_once('}')?;
        let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        let default = inside[end..].strip_prefix(":-").or_else(|| inside[end..].strip_prefix('-'))?;
        out.push_str(default);
        rest = behind;
    }
    out.push_str(rest);
    (!out.contains('$')).then_some(out)
}
