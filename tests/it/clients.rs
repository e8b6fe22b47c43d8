//! What counts as one client: neighbours do not pay for one another, and a crowd locks no newcomer out.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::{
    Client, DEADLINE, Portway, TcpTarget, add_address, enters, eventually, in_own_network, messages, run,
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Makes all addresses of a network local, and clients of it possible.
fn add_network(net: &str) {
    run(&format!("ip -6 route add local {net} dev lo"));
}

/// Connects from a link-local address to another one of the same interface; whether an echo answers.
fn enters_over_the_link(from: &str, at: SocketAddrV6) -> bool {
    let connect = || -> io::Result<Client> {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        let from = SocketAddrV6::new(from.parse().expect("an address"), 0, 0, at.scope_id());
        socket.bind(&from.into())?;
        socket.connect_timeout(&at.into(), DEADLINE)?;
        let stream = std::net::TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Client(stream))
    };
    connect().is_ok_and(|mut client| client.still_echoes())
}

const CONFIG: &str = "[guard]\ntrap = [\"2323\"]\nban = \"1h\"\n";

#[test]
fn a_ban_of_one_client_shuts_out_no_neighbour_where_a_64_is_not_one_customer() {
    in_own_network(&[], || {
        let target = TcpTarget::echo();
        for net in ["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "2001:db8::/32"] {
            add_network(net);
        }
        let (open, trap) =
            (SocketAddr::new(ip("2001:db8::1"), 8080), SocketAddr::new(ip("2001:db8::1"), 2323));
        let mut portway = Portway::with(&format!("publish = [\"8080:{}\"]\n{CONFIG}", target.addr)).start();
        for (kind, bad, same, good) in [
            ("NAT64", "64:ff9b::192.0.2.1", "64:ff9b::192.0.2.1", "64:ff9b::203.0.113.1"),
            ("local NAT64", "64:ff9b:1::192.0.2.2", "64:ff9b:1:5::192.0.2.2", "64:ff9b:1::203.0.113.2"),
            ("6to4", "2002:c000:203::1", "2002:c000:203:5::1", "2002:cb00:7103::1"),
            ("Teredo", "2001:0:1:2:0:1:3fff:fdfb", "2001:0:1:2:0:2:3fff:fdfb", "2001:0:1:2:0:1:34ff:8efb"),
            (
                "ISATAP",
                "2001:db8:5::5efe:10.0.0.1",
                "2001:db8:5::200:5efe:10.0.0.1",
                "2001:db8:5::5efe:10.0.0.2",
            ),
            ("usual", "2001:db8:6::1", "2001:db8:6::2", "2001:db8:6:1::1"),
        ] {
            let bans = portway.count(messages::CLIENT_BANNED);
            assert!(enters(ip(bad), open) && enters(ip(good), open), "{kind}");
            assert!(!enters(ip(bad), trap), "{kind}");
            eventually("a ban", || (portway.count(messages::CLIENT_BANNED) > bans).then_some(()));
            assert!(!enters(ip(bad), open) && !enters(ip(same), open), "{kind}: the client is banned");
            assert!(enters(ip(good), open), "{kind}: its neighbour is not");
        }
        // The client behind a translator is the IPv4 client.
        portway.wait_log(messages::CLIENT_BANNED, |line| line.text("client.addr") == "192.0.2.1");
        let at = SocketAddr::new(ip("127.0.0.1"), 8080);
        add_address(ip("192.0.2.1"));
        add_address(ip("192.0.2.9"));
        assert!(!enters(ip("192.0.2.1"), at) && enters(ip("192.0.2.9"), at));
    });
}

#[test]
fn a_ban_of_one_machine_of_a_link_shuts_out_no_other() {
    in_own_network(&[], || {
        let target = TcpTarget::echo();
        run("ip link add pwa type veth peer name pwb");
        for name in ["pwa", "pwb"] {
            run(&format!("ip link set {name} up"));
        }
        for address in ["fe80::1", "fe80::a", "fe80::b"] {
            run(&format!("ip -6 addr add {address}/128 dev pwa nodad"));
        }
        let interfaces = run("ip -oneline link show pwa").out;
        let index = interfaces.split(':').next().and_then(|index| index.trim().parse().ok());
        let index: u32 = index.unwrap_or_else(|| panic!("{interfaces}"));
        let at = |port| SocketAddrV6::new("fe80::1".parse().expect("an address"), port, 0, index);
        let mut portway = Portway::with(&format!("publish = [\"8080:{}\"]\n{CONFIG}", target.addr)).start();
        eventually("the link is up", || enters_over_the_link("fe80::b", at(8080)).then_some(()));
        assert!(!enters_over_the_link("fe80::a", at(2323)));
        portway.wait_log(messages::CLIENT_BANNED, |line| line.text("client.addr") == "fe80::a");
        assert!(!enters_over_the_link("fe80::a", at(8080)));
        assert!(enters_over_the_link("fe80::b", at(8080)));
    });
}

#[test]
fn a_flood_from_seventy_thousand_networks_locks_no_newcomer_out() {
    const NETWORKS: u32 = 70_000;
    const THREADS: u32 = 4;
    in_own_network(&[], || {
        add_network("2001:db8::/31");
        // Nothing listens there during the flood, so that its sessions cost little.
        let target = SocketAddr::new(ip("127.0.0.1"), 9000);
        let at = SocketAddr::new(ip("2001:db9:ffff::1"), 8080);
        let terms = "max_sessions = \"unlimited\"\nnew_sessions_per_client = \"10/h\"\nlog = \"none\"\n";
        let mut portway =
            Portway::with(&format!("[[mapping]]\npublish = \"8080:{target}\"\n{terms}")).start();
        let network = |first: u16, n: u32| {
            let (net, n) = ((n >> 16) as u16, n as u16);
            IpAddr::from(Ipv6Addr::new(0x2001, first, net, n, 0, 0, 0, 1))
        };
        let old = network(0xdb9, 0);
        Client::from(old, at).until_closed();
        thread::scope(|scope| {
            for part in 0..THREADS {
                let ours = (0..NETWORKS).filter(move |n| n % THREADS == part);
                scope.spawn(move || {
                    for n in ours {
                        if let Ok(client) = Client::try_from_ip(network(0xdb8, n), at) {
                            // Its port is free at once.
                            let _ = SockRef::from(&client.0).set_linger(Some(Duration::ZERO));
                        }
                    }
                });
            }
        });
        let _target = TcpTarget::echo_at(target);
        portway.wait_log(messages::SESSIONS_REFUSED, |line| line.text("reasons").starts_with("rate "));
        for n in 1..=10 {
            assert!(enters(network(0xdb9, n), at), "newcomer {n} of another /32");
            assert!(enters(network(0xdb8, 9 << 16 | n), at), "newcomer {n} of another /48");
        }
        let more = (0..20).filter(|_| enters(old, at)).count();
        assert_eq!(more, 9, "a client that was there keeps what is left of its rate");
        assert!(portway.most_memory() < 400 << 20, "{} bytes", portway.most_memory());
    });
}
