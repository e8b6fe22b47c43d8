//! What the integration tests and benchmarks use of the library. It is not an interface.

pub use crate::{
    alarm::Alarm,
    config::{Source, System, load},
    events::Events,
    mapping::Protocol,
    policy::{
        AccessSpec, Admission, Caps, Entries, Gate, GateInput, IpSet, Limit, ListName, Policy, Rate, Rates,
        Refusal,
    },
    sock::inherited::Inherited,
    supervisor::{Budgets, Handle, Means, Tolerance},
};

/// What clients say first, as the benchmark uses it.
pub mod preface {
    use std::net::SocketAddr;

    use crate::{
        mapping::Protocol,
        preface::{
            Match, Reader, Verdict,
            hosts::HostTable,
            proxy::{Addresses, Outgoing, SendProxy},
        },
    };

    /// The name that a client of TLS or HTTP wants.
    pub fn name(bytes: &[u8]) -> Option<Box<str>> {
        match Reader::new(Match::Auto).read(bytes) {
            Verdict::Name(name) => Some(name),
            _ => None,
        }
    }

    /// The verdicts on a client that sends its bytes one by one; how many it waited for.
    pub fn dribble(bytes: &[u8]) -> usize {
        let mut reader = Reader::new(Match::Auto);
        (0..=bytes.len()).take_while(|end| reader.read(&bytes[..*end]) == Verdict::More).count()
    }

    /// A PROXY header of version 2 for a session.
    pub fn proxy(source: SocketAddr, destination: SocketAddr, id: &[u8], name: &str) -> Vec<u8> {
        let addresses = Addresses { source, destination };
        let authority = Some(name);
        Outgoing { protocol: Protocol::Tcp, addresses, id, authority, received: None }.encode(SendProxy::V2)
    }

    /// A table of names, each with its place.
    #[derive(Debug, Default)]
    pub struct Hosts(HostTable<usize>);

    impl Hosts {
        /// Adds a name.
        pub fn insert(&mut self, name: &str) {
            let place = self.0.len();
            self.0.insert(name, place).expect("a name that is not there yet");
        }

        /// The place of the name that takes this one.
        pub fn get(&self, name: &str) -> Option<usize> {
            self.0.get(name).copied()
        }
    }
}
