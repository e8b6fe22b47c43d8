//! The home router, and what is in front of it.

use super::{Way, at_another_port};
use crate::doctor::{Home, USUAL};

/// A command of upnpc on a machine.
fn upnpc(home: &Home<'_>, on: &str, args: &str) {
    home.sh(on, &format!("upnpc -u http://192.168.77.1:5555/rootDesc.xml {args}"));
}

pub(in crate::doctor) const ROUTER: &[Way] = &[
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
            home.configure_with(USUAL, "1h");
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

/// Waits until the router knows its address again, and has started again with it.
fn online(home: &Home<'_>) {
    home.lab.run("daemon restart");
}

pub(in crate::doctor) const INTERNET: &[Way] = &[
    Way {
        name: "another router stands in front of the router",
        hop: "internet",
        evidence: "it has none, and the next router is 10.20.30.1, a second NAT",
        breaks: |home| drop(home.lab.run("behind 10.20.30.40")),
        cures: |home, cure| {
            assert!(cure.contains("set it to bridge mode"), "{cure}");
            home.lab.run("behind off");
            online(home);
        },
    },
    Way {
        name: "the provider shares one address among many customers",
        hop: "internet",
        evidence: "it has none, and the next router is 100.64.7.1, in the provider's NAT (CGNAT)",
        breaks: |home| drop(home.lab.run("behind 100.64.7.8")),
        cures: |home, cure| {
            assert!(cure.contains("ask it for a public IPv4 address"), "{cure}");
            home.lab.run("behind off");
            online(home);
        },
    },
    Way {
        name: "the router is offline",
        hop: "internet",
        evidence: "it has none, and it says that it has no way to the internet",
        breaks: |home| home.sh("rtr", "ip link set wan0 down"),
        cures: |home, cure| {
            assert!(cure.contains("look whether the router is online"), "{cure}");
            home.sh("rtr", "ip link set wan0 up; ip route replace default dev wan0");
            online(home);
        },
    },
];
