//! rathole: services of a server and of a client, by their names.

use super::{
    model::{File, Imported, Mapping, Target},
    tree::{self, Node},
    words::{host_and_port, listener, protocols_named, target},
};
use crate::mapping::publish::Protocols;

/// Reads the files: the one of the server and the one of the client belong together.
pub(super) fn read(files: &[File<'_>], into: &mut Imported) {
    let mut roots = Vec::new();
    for file in files {
        match tree::toml(file.text) {
            Ok(root) => roots.push((*file, root)),
            Err((line, error)) => into.lose(file.at(line), "", error),
        }
    }
    let services = |side: &'static str| {
        roots.iter().flat_map(move |(file, root)| {
            let services = root.get(side).and_then(|side| side.get("services"));
            services.map_or(&[][..], Node::entries).iter().map(move |(name, node)| (*file, name, node))
        })
    };
    if let Some((file, ..)) = services("server").next() {
        into.lose(file.at(1), "the tunnel", super::TUNNEL);
    }
    for (file, name, server) in services("server") {
        let place = file.at(server.line);
        let Some((_, _, client)) = services("client").find(|(_, other, _)| *other == name) else {
            let why = "the file of the client says where it leads: import both files together";
            into.lose(place, format!("service {name}"), why);
            continue;
        };
        let (from, to) = (server.text_of("bind_addr"), client.text_of("local_addr"));
        let mut mapping = Mapping::at(place, format!("service {name}"), name.as_str());
        mapping.protocols = Protocols::Tcp;
        if let Some(protocols) = server.text_of("type").and_then(protocols_named) {
            mapping.protocols = protocols;
        }
        match from.and_then(host_and_port).and_then(|(host, port)| listener(host, port)) {
            Some(listener) => mapping.listen.push(listener),
            None => mapping.lose(place, "bind_addr", "not an address to listen on"),
        }
        match to.and_then(host_and_port).and_then(|(host, port)| target(host, port)) {
            Some(target) => {
                if ["127.0.0.1:", "localhost:"].iter().any(|start| target.starts_with(start)) {
                    let note = "127.0.0.1 is the machine of the client: write its address, if portway runs elsewhere.";
                    mapping.notes.push(note.to_owned());
                }
                mapping.targets.push(Target::at(target));
            }
            None => mapping.lose(place, "local_addr", "not a target"),
        }
        into.add(mapping);
    }
    for (file, name, client) in services("client") {
        if !services("server").any(|(_, other, _)| other == name) {
            let why = "the file of the server says where it listens: import both files together";
            into.lose(file.at(client.line), format!("service {name}"), why);
        }
    }
}
