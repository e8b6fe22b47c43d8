//! A rule that changes the destination, whichever program wrote it: iptables or nftables.

use super::{
    model::{Imported, Loss, Mapping, Place, Target},
    words::{ip, is_ports, listener, protocols_of, target, why},
};

/// What the rules have and portway does not.
const SEEN: &str =
    "The target saw the client's own address; now it sees portway's, unless `transparent` is set.";

/// Such a rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Dnat {
    /// The protocols that it names.
    pub(super) tcp: bool,
    pub(super) udp: bool,
    /// The ports that it names: single ones and ranges with `-`.
    pub(super) ports: Vec<String>,
    /// The address that clients ask for.
    pub(super) destination: Option<String>,
    /// Clients that it takes, and clients that it does not take.
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    /// Where it leads: an address, unless it is this machine.
    pub(super) to: Option<String>,
    /// Where it leads: a port or a range, unless it stays the same.
    pub(super) to_ports: Option<String>,
    /// What its comment says.
    pub(super) comment: String,
    /// What is lost of it.
    pub(super) losses: Vec<Loss>,
}

impl Dnat {
    /// Takes the rule in; `what` it is, as it is written.
    pub(super) fn add(self, place: Place, what: &str, into: &mut Imported) {
        if self.ports.is_empty() || !(self.tcp || self.udp) {
            return into.lose(place, what, "it names no port: portway forwards ports, not machines");
        }
        let comment = if self.comment.is_empty() { String::new() } else { format!(" ({})", self.comment) };
        for ports in &self.ports {
            let mut mapping = Mapping::at(place, format!("{what}{comment}"), self.comment.as_str());
            mapping.protocols = protocols_of(self.tcp, self.udp);
            let host = self.destination.as_deref().unwrap_or_default();
            match listener(host, ports) {
                Some(listener) => mapping.listen.push(listener),
                None => {
                    let what = format!("{host} {ports}").trim_start().to_owned();
                    let why = why(&what, "not an address and ports to listen on");
                    mapping.lose(place, what, why);
                }
            }
            let to_ports = self.to_ports.as_deref().unwrap_or(ports);
            let host = self.to.as_deref().unwrap_or("127.0.0.1");
            match target(host, to_ports).filter(|_| ip(host).is_some() && is_ports(to_ports)) {
                Some(target) => mapping.targets.push(Target::at(target)),
                None => {
                    let what = format!("{host} {to_ports}");
                    let why = why(&what, "not one target");
                    mapping.lose(place, what, why);
                }
            }
            mapping.set_texts("allow", self.allow.clone());
            mapping.set_texts("deny", self.deny.clone());
            mapping.losses.extend(self.losses.iter().cloned());
            if self.to.is_some() {
                mapping.notes.push(SEEN.to_owned());
            }
            into.add(mapping);
        }
    }
}
