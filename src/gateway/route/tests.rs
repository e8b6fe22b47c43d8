use super::*;

/// Two home networks, a VPN with the better default route, a container bridge, a route that is down
/// and one that rejects.
const ROUTES: &str = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
tun0	00000000	0100080A	0003	0	0	50	00000000	0	0	0
eth0	00000000	014DA8C0	0003	0	0	100	00000000	0	0	0
wlan0	00000000	0100000A	0003	0	0	600	00000000	0	0	0
down0	00000000	0100000A	0002	0	0	0	00000000	0	0	0
lo	00000000	0100000A	0203	0	0	0	00000000	0	0	0
tun0	0000080A	00000000	0001	0	0	0	0000FFFF	0	0	0
eth0	004DA8C0	00000000	0001	0	0	100	00FFFFFF	0	0	0
wlan0	0000000A	00000000	0001	0	0	600	00FFFFFF	0	0	0
docker0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0
not a route at all
short
";

fn chosen(text: &str, interface: Option<&str>) -> Result<(Ipv4Addr, String), NoRoute> {
    default_route(&ipv4_routes(text), interface).map(|route| (route.gateway, route.interface.clone()))
}

/// The lines of [`ROUTES`] that are not of these interfaces.
fn without(names: &[&str]) -> String {
    let kept = |line: &&str| !names.iter().any(|name| line.starts_with(name));
    ROUTES.lines().filter(kept).map(|line| format!("{line}\n")).collect()
}

// The kernel writes addresses as the machine has them in memory; the texts above are of a
// little-endian one.
#[cfg(target_endian = "little")]
#[test]
fn a_vpn_that_took_the_default_route_does_not_hide_the_home_router() {
    assert_eq!(chosen(ROUTES, None), Ok((Ipv4Addr::new(192, 168, 77, 1), "eth0".into())));
    assert_eq!(chosen(&without(&["eth0"]), None), Ok((Ipv4Addr::new(10, 0, 0, 1), "wlan0".into())));
}

#[cfg(target_endian = "little")]
#[test]
fn the_interface_that_is_named_counts_whatever_it_is() {
    assert_eq!(chosen(ROUTES, Some("wlan0")), Ok((Ipv4Addr::new(10, 0, 0, 1), "wlan0".into())));
    assert_eq!(chosen(ROUTES, Some("tun0")), Ok((Ipv4Addr::new(10, 8, 0, 1), "tun0".into())));
}

#[test]
fn no_way_home_is_told_apart() {
    let only_vpn = without(&["eth0", "wlan0"]);
    assert_eq!(chosen(&only_vpn, None), Err(NoRoute::OnlyThrough("tun0".into())));
    assert_eq!(chosen(ROUTES, Some("eth1")), Err(NoRoute::NoDefault(Some("eth1".into()))));
    assert_eq!(chosen(ROUTES, Some("down0")), Err(NoRoute::NoDefault(Some("down0".into()))));
    assert_eq!(chosen("", None), Err(NoRoute::NoDefault(None)));
}

#[test]
fn names_tell_what_leads_home() {
    for name in ["eth0", "enp3s0", "wlan0", "wlp2s0", "end0", "br0", "br1", "bond0", "lora0", "usb0"] {
        assert!(is_home(name), "{name}");
    }
    for name in ["lo", "tun0", "wg0", "docker0", "br-5f1e", "veth12ab", "tailscale0", "virbr0", "ppp0"] {
        assert!(!is_home(name), "{name}");
    }
}

#[cfg(target_endian = "little")]
#[test]
fn the_interface_toward_a_given_gateway_is_that_of_its_network() {
    let routes = ipv4_routes(ROUTES);
    let toward = |ip: &str| on_link(&routes, ip.parse().expect("an address"));
    assert_eq!(toward("192.168.77.1"), Some("eth0"));
    assert_eq!(toward("10.0.0.9"), Some("wlan0"));
    assert_eq!(toward("10.8.0.1"), Some("tun0"));
    assert_eq!(toward("8.8.8.8"), None);
    assert_eq!(toward("fe80::1"), None);
}

#[test]
fn the_ipv6_gateway_is_the_one_of_a_default_route() {
    let text = "\
20010db8007700000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
00000000000000000000000000000000 60 00000000000000000000000000000000 00 fe800000000000000000000000000002 00000400 00000001 00000000 00000003     eth0
nonsense 00 00 00
";
    let gateway = "fe80::1".parse().expect("an address");
    assert_eq!(ipv6_defaults(text), [Default6 { interface: "eth0".into(), gateway, metric: 0x400 }]);
}

#[test]
fn only_global_addresses_that_stay_are_taken() {
    let text = "\
00000000000000000000000000000001 01 80 10 80       lo
20010db8007700000000000000000002 02 40 00 80     eth0
20010db8007700000000000000000003 02 40 00 01     eth0
20010db8007700000000000000000004 02 40 00 20     eth0
20010db8007700000000000000000005 02 40 00 40     eth0
20010db8007700000000000000000006 02 40 00 c8     eth0
20010db8007700000000000000000007 03 40 00 00    wlan0
fd000000000000000000000000000008 02 40 00 80     eth0
fe800000000000000000000000000009 02 40 20 80     eth0
2001 02
";
    let global = |interface| -> Vec<String> {
        stable_globals(text, interface).iter().map(ToString::to_string).collect()
    };
    assert_eq!(global(2), ["2001:db8:77::2"]);
    assert_eq!(global(0), ["2001:db8:77::2", "2001:db8:77::7"]);
}

#[test]
fn the_loopback_network_needs_no_route_of_its_own() {
    let router_addr = router_addr(Some((Ipv4Addr::LOCALHOST.into(), NonZeroU16::new(4000))), None);
    let router_addr = router_addr.expect("the loopback interface is up");
    assert_eq!(
        (router_addr.gateway, router_addr.own),
        (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into())
    );
    assert_eq!(router_addr.search_port, NonZeroU16::new(4000));
}

proptest::proptest! {
    #[test]
    fn no_table_is_too_odd(text in "([0-9a-f]{0,33}[ \t]+){0,12}\n?([0-9a-f]{8}[ \t]){0,12}eth0[é\n]{0,3}") {
        ipv4_routes(&format!("head\n{text}"));
        ipv6_defaults(&text);
        stable_globals(&text, 0);
    }
}
