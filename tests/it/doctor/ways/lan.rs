//! The local network.

use super::{Way, as_printed, in_quotes};

pub(in crate::doctor) const LAN: &[Way] = &[
    Way {
        name: "there is no default route",
        hop: "lan",
        evidence: "this machine has no way out",
        breaks: |home| home.sh("lan", "ip route del default"),
        cures: in_quotes,
    },
    Way {
        name: "the cable is out",
        hop: "lan",
        evidence: "eth0 has no link",
        breaks: |home| drop(home.lab.run("link down")),
        cures: |home, cure| {
            assert!(cure.contains("plug the cable in"), "{cure}");
            home.lab.run("link up");
        },
    },
    Way {
        name: "the interface is switched off",
        hop: "lan",
        evidence: "eth0 is switched off",
        breaks: |home| home.sh("lan", "ip link set eth0 down"),
        cures: |home, cure| {
            as_printed(home, cure);
            // As the program does that asks the network for an address.
            home.sh("lan", "ip route add default via 192.168.77.1 metric 100");
        },
    },
    Way {
        name: "the default route leads to an address without a machine",
        hop: "lan",
        evidence: "192.168.77.99 does not answer on eth0, and a router answers at 192.168.77.1",
        breaks: |home| {
            home.sh("lan", "ip route del default; ip route add default via 192.168.77.99 metric 100");
        },
        cures: in_quotes,
    },
    Way {
        name: "the default route leads to a machine that is no router",
        hop: "lan",
        evidence: "192.168.77.3, where the default route leads, does not answer as a router does, and a router answers at 192.168.77.1",
        breaks: |home| {
            home.sh("lan", "ip route del default; ip route add default via 192.168.77.3 metric 100");
        },
        cures: in_quotes,
    },
    Way {
        name: "a VPN has taken the default route",
        hop: "lan",
        evidence: "clients come in by eth0, and the answers to them leave by vpn0",
        breaks: |home| drop(home.lab.run("vpn on")),
        cures: as_printed,
    },
    Way {
        name: "a VPN has taken all but its own packets by rules, as wg-quick does",
        hop: "lan",
        evidence: "clients come in by eth0, and the answers to them leave by wg0",
        breaks: |home| {
            home.sh(
                "lan",
                "ip link add wg0 type veth peer name wg1; ip link set wg0 up; ip link set wg1 up; \
                 ip addr add 10.9.0.2/32 dev wg0; ip route add default dev wg0 table 51820; \
                 ip rule add not fwmark 51820 table 51820; ip rule add table main suppress_prefixlength 0",
            );
        },
        cures: as_printed,
    },
    Way {
        name: "a VPN has the only default route",
        hop: "lan",
        evidence: "leads through vpn0, not to a home router; a router answers at 192.168.77.1",
        breaks: |home| drop(home.lab.run("vpn only")),
        cures: as_printed,
    },
    Way {
        name: "something on the way to the router swallows large packets",
        hop: "lan",
        evidence: "packets of 1500 bytes (the MTU of eth0) do not reach the router, those of 1280 do",
        breaks: |home| {
            // A pair of interfaces passes on what is still to be cut, whatever its size.
            home.sh("lan", "ip link set eth0 gso_max_segs 1");
            home.sh("rtr", "ip link set p1 mtu 1400");
        },
        cures: as_printed,
    },
    Way {
        name: "portway runs in a container without a way out",
        hop: "lan",
        evidence: "this container has no way out of its network",
        breaks: |home| {
            home.stop();
            home.lab.run("box up");
            home.on = "box";
            home.start();
        },
        cures: |home, cure| {
            assert!(cure.starts_with("run it with `network_mode: host`"), "{cure}");
            home.stop();
            home.on = "lan";
            home.start();
        },
    },
];
