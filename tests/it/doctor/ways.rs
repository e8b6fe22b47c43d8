//! The ways to be unreachable.

mod firewall;
mod lan;
mod router;

pub(super) use firewall::FIREWALL;
pub(super) use lan::LAN;
pub(super) use router::{INTERNET, ROUTER};

use super::{Home, server::Server};
use crate::harness::{Program, eventually};

/// A way to be unreachable.
pub(super) struct Way {
    pub(super) name: &'static str,
    /// The hop that has to fail, and no other.
    pub(super) hop: &'static str,
    /// What its evidence contains.
    pub(super) evidence: &'static str,
    pub(super) breaks: fn(&mut Home<'_>),
    /// Applies the cure.
    pub(super) cures: fn(&mut Home<'_>, &str),
}

/// Runs the cure on the machine of portway, as it stands there.
fn as_printed(home: &mut Home<'_>, cure: &str) {
    home.sh("lan", cure);
}

/// Runs the commands that stand in the cure in quotes.
fn in_quotes(home: &mut Home<'_>, cure: &str) {
    let commands: Vec<&str> = cure.split('`').skip(1).step_by(2).collect();
    assert!(!commands.is_empty(), "{cure}");
    for command in commands {
        home.sh("lan", command);
    }
}

fn usual(home: &mut Home<'_>, _: &str) {
    home.restart_with(super::USUAL);
}

/// The cure names another port of the router.
fn at_another_port(home: &mut Home<'_>, cure: &str) {
    assert!(cure.contains("router = { external_port = 30000 }"), "{cure}");
    home.restart_with("publish = \"9080:192.168.77.3:7000\"\nrouter = { external_port = 30000 }\n");
    home.port = 30_000;
}

pub(super) const TARGET: &[Way] = &[
    Way {
        name: "the service does not run",
        hop: "target",
        evidence: "192.168.77.3:7000 refuses TCP: no program listens",
        breaks: |home| home.services.clear(),
        cures: |home, _| home.serve(),
    },
    Way {
        name: "the firewall of its machine drops it",
        hop: "target",
        evidence: "192.168.77.3:7000 does not answer at all",
        breaks: |home| {
            home.sh(
                "lan2",
                "nft add table inet f; nft add chain inet f in '{ type filter hook input priority 0; }'; \
                 nft add rule inet f in tcp dport 7000 drop",
            );
        },
        cures: |home, cure| {
            assert!(cure.starts_with("let 7000/tcp in at the firewall of 192.168.77.3"), "{cure}");
            home.sh("lan2", "nft insert rule inet f in tcp dport 7000 accept");
        },
    },
    Way {
        name: "its machine is off",
        hop: "target",
        evidence: "192.168.77.66:7000 cannot be reached",
        breaks: |home| home.restart_with("publish = \"9080:192.168.77.66:7000\"\nrouter = true\n"),
        cures: usual,
    },
    Way {
        name: "a service of UDP is published as TCP",
        hop: "target",
        evidence: "refuses TCP and takes UDP",
        breaks: |home| drop(home.services.remove(0)),
        cures: |home, cure| {
            assert!(cure.contains("/udp"), "{cure}");
            home.restart_with("publish = \"9080:192.168.77.3:7000/udp\"\nrouter = true\n");
        },
    },
    Way {
        name: "a service of TCP is published as UDP",
        hop: "target",
        evidence: "refuses UDP and takes TCP",
        breaks: |home| {
            home.services.truncate(1);
            home.restart_with("publish = \"9080:192.168.77.3:7000/udp\"\nrouter = true\n");
        },
        cures: |home, cure| {
            assert!(cure.contains("/tcp"), "{cure}");
            home.restart_with(super::USUAL);
        },
    },
    Way {
        name: "an HTTP port leads to a TLS port",
        hop: "target",
        evidence: "192.168.77.3:7443 speaks TLS",
        breaks: |home| {
            let tls = Server::tls(home.lab, 7443);
            home.services.push(tls);
            home.port = 8080;
            home.restart_with("publish = \"8080:192.168.77.3:7443\"\nrouter = true\n");
        },
        cures: |home, _| home.restart_with("publish = \"8080:192.168.77.3:7000\"\nrouter = true\n"),
    },
    Way {
        name: "its name has no address",
        hop: "target",
        evidence: "the name nosuch.invalid has no address",
        breaks: |home| home.restart_with("publish = \"9080:nosuch.invalid:7000\"\nrouter = true\n"),
        cures: usual,
    },
    Way {
        name: "it leads to itself, by an address that this machine was given later",
        hop: "target",
        evidence: "leads to 192.168.77.60:9080, which is a listener of this mapping",
        breaks: |home| {
            home.restart_with("publish = \"9080:192.168.77.60:9080\"\nrouter = true\n");
            home.sh("lan", "ip addr add 192.168.77.60/24 dev eth0");
        },
        cures: usual,
    },
    Way {
        name: "it leads to another mapping of portway",
        hop: "target",
        evidence: "leads to 192.168.77.2:9081, which is a listener of more",
        breaks: |home| {
            let more = "[[mapping]]\nname = \"more\"\npublish = \"9081:192.168.77.3:7000\"\n";
            home.restart_with(&format!("publish = \"9080:192.168.77.2:9081\"\nrouter = true\n{more}"));
        },
        cures: usual,
    },
    Way {
        name: "it leads to the router's external address, and so to itself",
        hop: "target",
        evidence: "11.22.33.1:9080 is the external address of the router, whose port leads back",
        breaks: |home| home.restart_with("publish = \"9080:11.22.33.1:9080\"\nrouter = true\n"),
        cures: usual,
    },
];

pub(super) const LISTENER: &[Way] = &[
    Way {
        name: "portway does not run",
        hop: "listener",
        evidence: "portway does not run",
        breaks: |home| home.stop(),
        cures: |home, _| home.start(),
    },
    Way {
        name: "it is paused",
        hop: "listener",
        evidence: "the mapping is paused",
        breaks: |home| drop(home.portway(&["pause", "web"]).exits(0)),
        cures: |home, cure| {
            let words: Vec<&str> = cure.split_whitespace().skip(1).collect();
            home.portway(&words).exits(0);
        },
    },
    Way {
        name: "it listens on loopback",
        hop: "listener",
        evidence: "for programs of this machine alone",
        breaks: |home| home.restart_with("publish = \"127.0.0.1:9080:192.168.77.3:7000\"\n"),
        cures: usual,
    },
    Way {
        name: "its address is not one of this machine",
        hop: "listener",
        evidence: "does not have that address, it has 192.168.77.2",
        breaks: |home| {
            home.restart_with("publish = \"192.168.77.50:9080:192.168.77.3:7000\"\nrouter = true\n");
        },
        cures: usual,
    },
    Way {
        name: "another program has its port",
        hop: "listener",
        evidence: "python3 (pid ",
        breaks: |home| {
            home.stop();
            let listens =
                "import socket\ns = socket.create_server((\"\", 9080))\nwhile True: s.accept()[0].close()";
            let network = home.lab.network("lan");
            home.other = Some(Program::start("ip", &["netns", "exec", &network, "python3", "-c", listens]));
            let at = std::net::SocketAddr::from(([127, 0, 0, 1], super::PORT));
            eventually("the other program listens", || {
                home.lab.inside("lan", || std::net::TcpStream::connect(at).ok())
            });
            // A start without any port would fail.
            home.configure("publish = \"9080:192.168.77.3:7000/tcp+udp\"\nrouter = true\n");
            home.start();
        },
        cures: in_quotes,
    },
];
