use super::*;
use crate::{doctor::Verdict, mapping::Protocol};

fn interface(name: &str, address: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        is_up: true,
        has_link: true,
        addresses: vec![address.parse().unwrap()],
    }
}

fn healthy() -> Lan {
    Lan {
        way: Ok(Way { gateway: "192.168.1.1".parse().unwrap(), own: "192.168.1.2".parse().unwrap() }),
        interfaces: vec![interface("eth0", "192.168.1.2"), interface("vpn0", "10.8.0.2")],
        replies_by: Some("eth0".to_owned()),
        answers: Some(true),
        mtu: Some(1500),
        fits: Some(Fits::All),
        is_container: false,
        has_ipv6: false,
        elsewhere: None,
    }
}

/// A router that the default route does not lead to.
fn elsewhere() -> Option<Elsewhere> {
    let ip = |text: &str| text.parse().unwrap();
    Some(Elsewhere { router: ip("192.168.1.9"), own: ip("192.168.1.2"), interface: "eth0".to_owned() })
}

fn judged(change: impl FnOnce(&mut Lan)) -> Judged {
    let mut lan = healthy();
    change(&mut lan);
    judge(&lan, &Subject::example("web", &[(Protocol::Udp, "[::]:53")], &[]))
}

/// What breaks the network, what the evidence contains, and what the cure does.
type Fault = (fn(&mut Lan), &'static str, &'static str);

fn no_way(only_through: Option<&str>) -> NoWay {
    NoWay { reason: "no default route".to_owned(), only_through: only_through.map(str::to_owned) }
}

#[test]
fn each_fault_of_the_network_has_its_evidence_and_its_cure() {
    assert_eq!(judged(|_| ()).verdict, Verdict::Ok);
    let faults: [Fault; 9] = [
        (|lan| lan.way = Err(no_way(None)), "no way out", "ip route add default"),
        (
            |lan| lan.way = Err(no_way(Some("wg0"))),
            "leads through wg0",
            "ip route add default via ROUTER dev INTERFACE",
        ),
        (|lan| lan.interfaces[0].has_link = false, "eth0 has no link", "cable"),
        (|lan| lan.interfaces[0].is_up = false, "eth0 is switched off", "ip link set eth0 up"),
        (|lan| lan.answers = Some(false), "192.168.1.1 does not answer", "ip route replace"),
        (
            |lan| lan.replies_by = Some("vpn0".to_owned()),
            "leave by vpn0",
            "ip rule add from 192.168.1.2 table 100",
        ),
        (|lan| lan.mtu = Some(1200), "up to 1200 bytes", "mtu 1500"),
        (|lan| lan.fits = Some(Fits::UpTo(1420)), "those of 1420 do", "ip link set dev eth0 mtu 1420"),
        (
            |lan| {
                lan.way = Err(no_way(None));
                lan.is_container = true;
            },
            "container has no way out",
            "network_mode: host",
        ),
    ];
    all_fail(&faults);
}

#[test]
fn a_router_that_the_default_route_does_not_lead_to_is_in_the_cure() {
    let faults: [Fault; 4] = [
        (
            |lan| {
                lan.way = Err(no_way(None));
                lan.elsewhere = elsewhere();
            },
            "a router answers at 192.168.1.9",
            "`ip route add default via 192.168.1.9 dev eth0`",
        ),
        (
            |lan| {
                lan.way = Err(no_way(Some("wg0")));
                lan.elsewhere = elsewhere();
            },
            "a router answers at 192.168.1.9",
            "ip route add default via 192.168.1.9 dev eth0 metric 1000 && \
             ip route add default via 192.168.1.9 dev eth0 table 100 && \
             ip rule add from 192.168.1.2 table 100",
        ),
        (
            |lan| {
                lan.answers = Some(false);
                lan.elsewhere = elsewhere();
            },
            "192.168.1.1 does not answer on eth0, and a router answers at 192.168.1.9",
            "`ip route replace default via 192.168.1.9 dev eth0`",
        ),
        (
            |lan| lan.elsewhere = elsewhere(),
            "192.168.1.1, where the default route leads, does not answer as a router does",
            "`ip route replace default via 192.168.1.9 dev eth0`",
        ),
    ];
    all_fail(&faults);
}

#[track_caller]
fn all_fail(faults: &[Fault]) {
    for (change, evidence, cure) in faults {
        let judged = judged(change);
        assert_eq!(judged.verdict, Verdict::Fail, "{judged:?}");
        assert!(judged.evidence.contains(evidence) && judged.cure.contains(cure), "{judged:?}");
    }
}

#[test]
fn a_router_that_opens_ports_is_the_right_one_though_it_answers_no_probe() {
    let mut lan = healthy();
    lan.elsewhere = elsewhere();
    lan.confirm_router();
    assert_eq!(judge(&lan, &Subject::example("web", &[], &[])).verdict, Verdict::Ok);
}

#[test]
fn a_container_with_a_network_of_its_own_is_unknown_and_says_how_to_publish() {
    let judged = judged(|lan| lan.is_container = true);
    assert_eq!(judged.verdict, Verdict::Unknown);
    assert!(judged.cure.contains("-p 53:53/udp") && judged.cure.contains("network_mode: host"), "{judged:?}");
}

#[test]
fn a_machine_with_ipv6_alone_needs_a_mapping_that_says_so() {
    let change = |lan: &mut Lan| {
        lan.way = Err(no_way(None));
        lan.has_ipv6 = true;
        lan.interfaces = vec![interface("eth0", "2001:db8::2")];
    };
    let said = judged(change);
    assert!(said.verdict == Verdict::Fail && said.cure.contains("ipv6 = true"), "{said:?}");
    let mut lan = healthy();
    change(&mut lan);
    let mut web = Subject::example("web", &[(Protocol::Tcp, "[::]:80")], &[]);
    web.terms.insert("router".to_owned(), serde_json::json!({ "ipv6": true }));
    assert_eq!(judge(&lan, &web).verdict, Verdict::Ok);
}
