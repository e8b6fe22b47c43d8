//! The firewall of the machine of portway.

use super::{Way, as_printed};
use crate::doctor::Home;

const CHAIN: &str = "nft add table inet f; nft add chain inet f in '{ type filter hook input priority 0; }';";

/// Runs commands of the firewall on the machine of portway, behind a chain for what comes in.
fn rules(home: &Home<'_>, commands: &str) {
    home.sh("lan", &format!("{CHAIN}{commands}"));
}

pub(in crate::doctor) const FIREWALL: &[Way] = &[
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
    Way {
        name: "ufw drops it",
        hop: "firewall",
        evidence: "(made by ufw): the policy of chain ip filter INPUT",
        breaks: |home| {
            home.sh(
                "lan",
                "iptables -N ufw-before-input; iptables -N ufw-user-input; iptables -A INPUT -j ufw-before-input; \
                 iptables -A ufw-before-input -i lo -j ACCEPT; \
                 iptables -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; \
                 iptables -A ufw-before-input -p icmp -j ACCEPT; \
                 iptables -A ufw-before-input -j ufw-user-input; \
                 iptables -A ufw-user-input -p tcp --dport 22 -j ACCEPT; iptables -P INPUT DROP",
            );
        },
        cures: |home, cure| {
            assert_eq!(cure, "ufw allow 9080/tcp");
            home.sh("lan", "iptables -A ufw-user-input -p tcp --dport 9080 -j ACCEPT");
        },
    },
    Way {
        name: "firewalld rejects it",
        hop: "firewall",
        evidence: "a rule rejects 9080/tcp (made by firewalld)",
        breaks: |home| {
            home.sh(
                "lan",
                "nft add table inet firewalld; \
                 nft add chain inet firewalld filter_INPUT '{ type filter hook input priority 10; }'; \
                 nft add chain inet firewalld filter_IN_public_allow; \
                 nft add rule inet firewalld filter_INPUT ct state established,related accept; \
                 nft add rule inet firewalld filter_INPUT iifname lo accept; \
                 nft add rule inet firewalld filter_INPUT jump filter_IN_public_allow; \
                 nft add rule inet firewalld filter_INPUT reject with icmpx admin-prohibited; \
                 nft add rule inet firewalld filter_IN_public_allow tcp dport 22 accept",
            );
        },
        cures: |home, cure| {
            assert_eq!(cure, "firewall-cmd --add-port=9080/tcp && firewall-cmd --runtime-to-permanent");
            home.sh("lan", "nft add rule inet firewalld filter_IN_public_allow tcp dport 9080 accept");
        },
    },
];
