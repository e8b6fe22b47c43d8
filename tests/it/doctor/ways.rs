//! The ways to be unreachable, and the services of the lab.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::Home;
use crate::harness::RouterLab;

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
];

const CHAIN: &str = "nft add table inet f; nft add chain inet f in '{ type filter hook input priority 0; }';";

/// Runs commands of the firewall on the machine of portway, behind a chain for what comes in.
fn rules(home: &Home<'_>, commands: &str) {
    home.sh("lan", &format!("{CHAIN}{commands}"));
}

pub(super) const FIREWALL: &[Way] = &[
    Way {
        name: "the policy drops",
        hop: "firewall",
        evidence: "the policy of chain inet f in",
        breaks: |home| {
            rules(
                home,
                "nft add rule inet f in ct state established,related accept; nft add rule inet f in iif lo accept; \
                 nft add rule inet f in meta l4proto icmp accept; nft add rule inet f in tcp dport 22 accept; \
                 nft add chain inet f in '{ policy drop; }'",
            );
        },
        cures: as_printed,
    },
    Way {
        name: "a rule of another chain rejects a range",
        hop: "firewall",
        evidence: "a rule rejects 9080/tcp: `tcp dport ",
        breaks: |home| {
            rules(
                home,
                "nft add chain inet f services; nft add rule inet f in iifname eth0 jump services; \
                 nft add rule inet f services tcp dport 9000-9100 reject",
            );
        },
        cures: as_printed,
    },
    Way {
        name: "a named set holds the port",
        hop: "firewall",
        evidence: "a rule drops 9080/tcp: `tcp dport @closed drop`",
        breaks: |home| {
            rules(
                home,
                "nft add set inet f closed '{ type inet_service; elements = { 23, 9080 }; }'; \
                 nft add rule inet f in tcp dport @closed drop",
            );
        },
        cures: as_printed,
    },
    Way {
        name: "only the own network may enter",
        hop: "firewall",
        evidence: "ip saddr !=",
        breaks: |home| rules(home, "nft add rule inet f in meta l4proto tcp ip saddr != 192.168.0.0/16 drop"),
        cures: as_printed,
    },
    Way {
        name: "a verdict map drops the port",
        hop: "firewall",
        evidence: "vmap",
        breaks: |home| rules(home, "nft add rule inet f in tcp dport vmap '{ 22 : accept, 9080 : drop }'"),
        cures: as_printed,
    },
    Way {
        name: "another table sends the port elsewhere",
        hop: "firewall",
        evidence: "sends 9080/tcp elsewhere",
        breaks: |home| {
            home.sh(
                "lan",
                "nft add table ip n; nft add chain ip n pre '{ type nat hook prerouting priority -100; }'; \
                 nft add rule ip n pre tcp dport 9080 redirect to :9081",
            );
        },
        cures: as_printed,
    },
    Way {
        name: "a rule of iptables drops the port",
        hop: "firewall",
        evidence: "-A INPUT -p tcp -m multiport --dports 9080,9443 -j DROP",
        breaks: |home| {
            home.sh(
                "lan",
                "iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; \
                 iptables -A INPUT -p tcp -m multiport --dports 9080,9443 -j DROP",
            );
        },
        cures: as_printed,
    },
    Way {
        name: "the policy of iptables drops, as that of ufw does",
        hop: "firewall",
        evidence: "the policy of chain ip filter INPUT",
        breaks: |home| {
            home.sh(
                "lan",
                "iptables -N user; iptables -A INPUT -i lo -j ACCEPT; \
                 iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; \
                 iptables -A INPUT -p icmp -j ACCEPT; \
                 iptables -A INPUT -j user; iptables -A user -p tcp --dport 22 -j ACCEPT; iptables -P INPUT DROP",
            );
        },
        cures: as_printed,
    },
];

pub(super) const LAN: &[Way] = &[Way {
    name: "there is no default route",
    hop: "lan",
    evidence: "this machine has no way out",
    breaks: |home| home.sh("lan", "ip route del default"),
    cures: |home, cure| {
        assert!(cure.contains("ip route add default via ROUTER"), "{cure}");
        home.sh("lan", "ip route add default via 192.168.77.1 metric 100");
    },
}];

/// A command of upnpc on a machine.
fn upnpc(home: &Home<'_>, on: &str, args: &str) {
    home.sh(on, &format!("upnpc -u http://192.168.77.1:5555/rootDesc.xml {args}"));
}

pub(super) const ROUTER: &[Way] = &[
    Way {
        name: "the router does not open ports",
        hop: "router",
        evidence: "does not open ports",
        breaks: |home| {
            home.stop();
            home.lab.run("daemon stop");
            home.start();
        },
        cures: |home, cure| {
            assert!(cure.starts_with("switch on UPnP"), "{cure}");
            home.lab.run("daemon start");
        },
    },
    Way {
        name: "another machine has the port of the router",
        hop: "router",
        evidence: "leads 9080/tcp to another machine: 192.168.77.3:8080",
        breaks: |home| {
            home.stop();
            upnpc(home, "lan2", "-a 192.168.77.3 8080 9080 TCP 600");
            home.start();
        },
        cures: |home, cure| {
            at_another_port(home, cure);
            home.wait_reached("at another port");
            upnpc(home, "lan2", "-d 9080 TCP");
        },
    },
    Way {
        name: "the router refuses the port",
        hop: "router",
        evidence: "refuses to open 9080/tcp",
        breaks: |home| {
            home.stop();
            let rules = "allow 30000 192.168.77.0/24 1-65535|deny 0-65535 0.0.0.0/0 0-65535";
            home.lab.run_with("RULES", rules, "daemon restart");
            home.start();
        },
        cures: |home, cure| {
            at_another_port(home, cure);
            home.wait_reached("at another port");
            let rules = "allow 1024-65535 192.168.77.0/24 1024-65535|deny 0-65535 0.0.0.0/0 0-65535";
            home.lab.run_with("RULES", rules, "daemon restart");
        },
    },
    Way {
        name: "the router has lost the opening",
        hop: "router",
        evidence: "has lost the opening of 9080/tcp",
        breaks: |home| {
            home.stop();
            home.configure_with(super::USUAL, "1h");
            home.start();
            home.wait_reached("before the router loses it");
            upnpc(home, "lan", "-d 9080 TCP");
        },
        cures: |home, cure| {
            assert!(cure.starts_with("restart portway"), "{cure}");
            home.stop();
            home.start();
        },
    },
    Way {
        name: "the opening leads to an old address",
        hop: "router",
        evidence: "an old address: this machine is 192.168.77.9 now",
        breaks: |home| {
            if let Some(portway) = home.portway.take() {
                portway.kill();
            }
            // As after a crash on another disk: nothing is remembered of the opening.
            let _ = std::fs::remove_file(home.dir.path().join("router.json"));
            home.lab.run("lanip 192.168.77.9");
            home.start();
        },
        cures: |home, cure| {
            assert!(cure.contains("restart the router"), "{cure}");
            home.lab.run("reboot");
            home.wait_reached("after the router's restart");
            home.stop();
            home.lab.run("lanip 192.168.77.2");
            home.start();
        },
    },
];

/// A service on `lan2`, on a thread of its own.
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How often a server looks whether it has to stop.
const TURN: Duration = Duration::from_millis(50);

impl Server {
    /// Sends back what comes.
    pub(super) fn tcp(lab: &RouterLab, port: u16) -> Self {
        Self::of_streams(lab, port, |mut stream| {
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() {
                let _ = stream.write_all(&all);
            }
        })
    }

    /// Answers everything as a TLS server answers what it does not like: with an alert.
    pub(super) fn tls(lab: &RouterLab, port: u16) -> Self {
        Self::of_streams(lab, port, |mut stream| {
            let mut first = [0; 5];
            if stream.read_exact(&mut first).is_ok() {
                let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 40]);
            }
        })
    }

    fn of_streams(lab: &RouterLab, port: u16, serve: fn(TcpStream)) -> Self {
        let listener = lab.inside("lan2", || TcpListener::bind(("0.0.0.0", port)).expect("a free port"));
        listener.set_nonblocking(true).expect("a socket");
        Self::run(move || match listener.accept() {
            Ok((stream, _)) => {
                let _ = stream.set_nonblocking(false);
                let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                std::thread::spawn(move || serve(stream));
            }
            Err(_) => crate::harness::pass(TURN),
        })
    }

    /// Sends every datagram back.
    pub(super) fn udp(lab: &RouterLab, port: u16) -> Self {
        let socket = lab.inside("lan2", || UdpSocket::bind(("0.0.0.0", port)).expect("a free port"));
        socket.set_read_timeout(Some(TURN)).expect("a socket");
        Self::run(move || {
            let mut datagram = [0; 1500];
            if let Ok((length, from)) = socket.recv_from(&mut datagram) {
                let _ = socket.send_to(&datagram[..length], from);
            }
        })
    }

    fn run(mut turn: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let its = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !its.load(Ordering::Relaxed) {
                turn();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
