//! What stands beside portway: other devices that answer, and other people's openings on the same router.
//!
//! The households, and how to read them, are those of [`super::router_home`].

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use super::router_home::{exposed, wait_reached, wan, web};
use crate::harness::{
    FakeRouter, HomeRouter as _, Household, Portway, RouterLab, eventually, in_household, messages, run,
};

#[test]
fn a_device_that_hangs_is_not_asked_although_it_answers_the_search_first() {
    in_household(&FakeRouter::TOOLS, [("NATPMP", "no")], |home| {
        let fake = FakeRouter::beside(home, "lan2", RouterLab::LAN2, "hangdesc");
        // The router hears only the multicast search, which the other device answers, too.
        home.run("in rtr nft add table inet deaf");
        home.run("in rtr nft add chain inet deaf in { type filter hook input priority 0 ; }");
        home.run("in rtr nft add rule inet deaf in ip daddr 192.168.77.1 udp dport 1900 drop");
        eventually("the other device answers first", || {
            (home.inside("lan", first_to_answer)? == RouterLab::LAN2).then_some(())
        });
        let mut portway = home.up(&web("tcp"));
        let line = portway.wait_log(messages::ROUTER_FOUND, |_| true);
        assert_eq!(line.text("router.addr"), "192.168.77.1");
        wait_reached(home, wan(9080));
        let exit = home.down(portway);
        assert_eq!(exit.lines(messages::NO_ROUTER_FOUND).len(), 0, "{}", exit.log);
        assert_eq!(fake.log(), [""; 0], "it was asked for something");
    });
}

/// Searches as a careless program does, and gives the first device that answers.
fn first_to_answer() -> Option<IpAddr> {
    let question = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\
                    ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";
    let socket = UdpSocket::bind((RouterLab::LAN, 0)).expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    socket.send_to(question.as_bytes(), "239.255.255.250:1900").expect("a socket");
    socket.recv_from(&mut [0; 2048]).ok().map(|(_, from)| from.ip())
}

/// Asks the router as other people's programs do.
#[track_caller]
fn upnpc(home: &Household<RouterLab>, on: &str, arguments: &str) -> String {
    let description = "http://192.168.77.1:5555/rootDesc.xml";
    run(&format!("ip netns exec {} upnpc -u {description} {arguments}", home.network(on))).out
}

/// What the router lists that is not ours, without what is left of its leases, and the rules for it with their handles.
fn others(home: &Household<RouterLab>) -> (Vec<String>, Vec<String>) {
    const PORTS: [u16; 5] = [3074, 6881, 9083, 9085, 9090];
    let list = upnpc(home, "lan", "-l");
    let entry = |line: &str| {
        let (_, entry) = line.trim().split_once(' ')?;
        let (entry, _) = entry.trim().rsplit_once(' ')?;
        PORTS.iter().any(|port| entry.contains(&format!(" {port}->"))).then(|| entry.to_owned())
    };
    let mut listed: Vec<String> = list.lines().filter_map(entry).collect();
    listed.sort();
    let mut rules = home.openings();
    rules.retain(|rule| PORTS.iter().any(|port| rule.contains(&format!("dport {port} "))));
    (listed, rules)
}

#[test]
fn what_others_opened_is_never_touched() {
    in_household(&["upnpc"], [], |home| {
        // An entry as ours would be but of another machine, one with a text that has to be escaped, one in the way of
        // ours, and one that does for us what ours would do.
        for (on, text, entry) in [
            ("lan2", "Xbox", "192.168.77.3 3074 3074 UDP"),
            ("lan2", "portway:web@elsewhere", "192.168.77.3 9080 9090 TCP"),
            ("lan", "Torrent&Co<1>", "192.168.77.2 6881 6881 TCP"),
            ("lan", "ssh", "192.168.77.2 8022 9083 TCP"),
            ("lan", "by-hand", "192.168.77.2 9085 9085 TCP"),
        ] {
            upnpc(home, on, &format!("-e {text} -a {entry} 3600"));
        }
        let before = others(home);
        assert_eq!((before.0.len(), before.1.len()), (5, 5), "{before:#?}");

        let mapping = |name, port| exposed(name, port, "tcp", "true");
        let all = web("tcp") + &mapping("taken", 9083) + &mapping("hand", 9085) + &mapping("of-lan2", 9090);
        let settle = |portway: &mut Portway, mark| {
            for name in ["web", "hand"] {
                portway
                    .wait_log_after(mark, messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == name);
            }
            for (name, holder) in [("taken", "192.168.77.2:8022"), ("of-lan2", "192.168.77.3:9080")] {
                portway.wait_log_after(mark, messages::HELD_BY_ANOTHER_MACHINE, |line| {
                    line.text("mapping") == name && line.text("holder").starts_with(holder)
                });
            }
        };
        let mut portway = home.start(&all);
        settle(&mut portway, 0);
        assert_eq!(others(home), before, "at the start");

        // Everything goes but for one that comes.
        let mark = portway.log_len();
        portway.reload_with(&home.config(&mapping("more", 9081)));
        portway.wait_log_after(mark, messages::CLOSED_ON_THE_ROUTER, |line| line.text("mapping") == "web");
        portway.wait_log_after(mark, messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == "more");
        assert_eq!(others(home), before, "after a reload");
        let mark = portway.log_len();
        portway.reload_with(&home.config(&all));
        settle(&mut portway, mark);

        portway.kill();
        let mut portway = home.start(&mapping("more", 9081));
        portway.wait_log(messages::CLOSED_ON_THE_ROUTER, |line| line.text("mapping") == "web");
        portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == "more");
        assert_eq!(others(home), before, "after a crash");

        let mark = portway.log_len();
        portway.reload_with(&home.config(&all));
        settle(&mut portway, mark);
        portway.stop().with(0);
        assert_eq!(others(home), before, "after the end");
        assert_eq!(home.openings().len(), 5, "ours are gone");
    });
}
