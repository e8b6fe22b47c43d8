//! What stands beside portway, and what portway stands beside: other devices that answer, other people's openings on the
//! same router, and sessions that have nothing to do with any router.
//!
//! The households, and how to read them, are those of [`super::router_home`].

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    router,
    router_home::{TARGET, exposed, openings, settings, start, state, wait_open, wait_reached, wan, web},
};
use crate::harness::{
    Client, Content, FakeRouter, Portway, RouterLab, TcpTarget, eventually, free_port, in_router_lab, run,
    with_tools,
};

const MIB: u64 = 1024 * 1024;

/// A mapping's port on this machine itself.
fn near(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn a_device_that_hangs_is_not_asked_although_it_answers_the_search_first() {
    in_router_lab(&FakeRouter::TOOLS, [("NATPMP", "no")], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let fake = FakeRouter::beside(lab, "lan2", RouterLab::LAN2, "hangdesc");
        // The router hears the search of everybody alone, which the other device answers, too.
        lab.run("in rtr nft add table inet deaf");
        lab.run("in rtr nft add chain inet deaf in { type filter hook input priority 0 ; }");
        lab.run("in rtr nft add rule inet deaf in ip daddr 192.168.77.1 udp dport 1900 drop");
        eventually("the other device answers first", || {
            (lab.inside("lan", first_to_answer)? == RouterLab::LAN2).then_some(())
        });
        let state = state();
        let mut portway = start(lab, "lan", &(web("tcp") + &settings("")), state.path());
        let line = portway.wait_log("router found", |_| true);
        assert_eq!(line.text("router.addr"), "192.168.77.1");
        wait_open(&mut portway, 0, "tcp");
        wait_reached(lab, wan(9080));
        let exit = portway.stop().with(0);
        assert_eq!(exit.lines("no router found").len(), 0, "{}", exit.log);
        assert_eq!(fake.log(), [""; 0], "it was asked for something");
        assert_eq!(openings(lab), [""; 0]);
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

/// The value that a share of them, in hundredths, does not exceed.
fn percentile(times: &mut [Duration], share: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * share / 100]
}

#[test]
fn beside_a_router_that_hangs_sessions_are_as_fast_as_without_one() {
    const LEN: u64 = 8 * MIB;
    const PINGS: usize = 5;
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, content) = (FakeRouter::start("hangsoap"), state(), Content::of(3));
        let (bulk, echo) = (TcpTarget::writes_and_closes(&content, LEN), TcpTarget::echo());
        let [port, echo_port, plain_port, plain_echo_port] = [(); 4].map(|()| free_port());
        let mappings =
            router::exposed("bulk", port, bulk.addr, "") + &router::exposed("echo", echo_port, echo.addr, "");
        let mut hung = router::start(&(mappings + &router::router(&fake, "")), state.path());
        let specs = (format!("{plain_port}:{}", bulk.addr), format!("{plain_echo_port}:{}", echo.addr));
        let _plain = Portway::publishing(&specs.0).args(["-p", &specs.1]).start();
        let transfer = |port| {
            let (began, mut client) = (Instant::now(), Client::to(near(port)));
            assert_eq!(content.receive(&mut client.0).expect("the client reads"), LEN);
            began.elapsed()
        };
        let ping = |port| {
            let began = Instant::now();
            Client::to(near(port)).ping();
            began.elapsed()
        };
        // From the first such line to the next there is always a question that the router does not answer.
        hung.wait_log("router lost", |_| true);
        let (mut transfers, mut pings) = ([vec![], vec![]], [vec![], vec![]]);
        while hung.count("router lost") == 1 {
            for (nth, (port, echo_port)) in
                [(port, echo_port), (plain_port, plain_echo_port)].iter().enumerate()
            {
                transfers[nth].push(transfer(*port));
                pings[nth].extend((0..PINGS).map(|_| ping(*echo_port)));
            }
        }
        assert!(transfers[0].len() > 2, "not enough to compare: {transfers:?}");
        let [beside, alone] = transfers.each_mut().map(|times| percentile(times, 0));
        // A session that waits for the router waits for seconds; the slack is for a busy machine.
        let most = alone * 2 + Duration::from_millis(50);
        assert!(beside < most, "{LEN} bytes took {beside:?}, without a router {alone:?}");
        for (share, slack) in [(50, 20), (95, 200)] {
            let [beside, alone] = pings.each_mut().map(|times| percentile(times, share));
            let most = alone * 2 + Duration::from_millis(slack);
            assert!(beside < most, "{share} % of the sessions within {beside:?}, without a router {alone:?}");
        }
        hung.stop().with(0);
    });
}

/// Asks the router as other people's programs do.
#[track_caller]
fn upnpc(lab: &RouterLab, on: &str, arguments: &str) -> String {
    let description = "http://192.168.77.1:5555/rootDesc.xml";
    run(&format!("ip netns exec {} upnpc -u {description} {arguments}", lab.network(on))).out
}

/// What the router lists that is not ours, without what is left of its leases, and the rules for it with their handles.
fn others(lab: &RouterLab) -> (Vec<String>, Vec<String>) {
    const PORTS: [u16; 5] = [3074, 6881, 9083, 9085, 9090];
    let list = upnpc(lab, "lan", "-l");
    let entry = |line: &str| {
        let (_, entry) = line.trim().split_once(' ')?;
        let (entry, _) = entry.trim().rsplit_once(' ')?;
        PORTS.iter().any(|port| entry.contains(&format!(" {port}->"))).then(|| entry.to_owned())
    };
    let mut listed: Vec<String> = list.lines().filter_map(entry).collect();
    listed.sort();
    let mut rules = openings(lab);
    rules.retain(|rule| PORTS.iter().any(|port| rule.contains(&format!("dport {port} "))));
    (listed, rules)
}

#[test]
fn what_others_opened_is_never_touched() {
    in_router_lab(&["upnpc"], [], |lab| {
        let _echo = lab.echo("lan", TARGET);
        // An entry as ours would be but of another machine, one with a text that has to be escaped, one in the way of
        // ours, and one that does for us what ours would do.
        for (on, text, entry) in [
            ("lan2", "Xbox", "192.168.77.3 3074 3074 UDP"),
            ("lan2", "portway:web@elsewhere", "192.168.77.3 9080 9090 TCP"),
            ("lan", "Torrent&Co<1>", "192.168.77.2 6881 6881 TCP"),
            ("lan", "ssh", "192.168.77.2 8022 9083 TCP"),
            ("lan", "by-hand", "192.168.77.2 9085 9085 TCP"),
        ] {
            upnpc(lab, on, &format!("-e {text} -a {entry} 3600"));
        }
        let before = others(lab);
        assert_eq!((before.0.len(), before.1.len()), (5, 5), "{before:#?}");

        let mapping = |name, port| exposed(name, port, "tcp", "true");
        let all = web("tcp") + &mapping("taken", 9083) + &mapping("hand", 9085) + &mapping("of-lan2", 9090);
        let state = state();
        let settle = |portway: &mut Portway, mark| {
            for name in ["web", "hand"] {
                portway.wait_log_after(mark, "open on the router", |line| line.text("mapping") == name);
            }
            for (name, holder) in [("taken", "192.168.77.2:8022"), ("of-lan2", "192.168.77.3:9080")] {
                portway.wait_log_after(mark, "held by another machine", |line| {
                    line.text("mapping") == name && line.text("holder").starts_with(holder)
                });
            }
        };
        let mut portway = start(lab, "lan", &(all.clone() + &settings("")), state.path());
        settle(&mut portway, 0);
        assert_eq!(others(lab), before, "at the start");

        // Everything goes but for one that comes.
        let mark = portway.log_len();
        portway.reload_with(&(mapping("more", 9081) + &settings("")));
        portway.wait_log_after(mark, "closed on the router", |line| line.text("mapping") == "web");
        portway.wait_log_after(mark, "open on the router", |line| line.text("mapping") == "more");
        assert_eq!(others(lab), before, "after a reload");
        let mark = portway.log_len();
        portway.reload_with(&(all.clone() + &settings("")));
        settle(&mut portway, mark);

        portway.kill();
        let mut portway = start(lab, "lan", &(mapping("more", 9081) + &settings("")), state.path());
        portway.wait_log("closed on the router", |line| line.text("mapping") == "web");
        portway.wait_log("open on the router", |line| line.text("mapping") == "more");
        assert_eq!(others(lab), before, "after a crash");

        let mark = portway.log_len();
        portway.reload_with(&(all + &settings("")));
        settle(&mut portway, mark);
        portway.stop().with(0);
        assert_eq!(others(lab), before, "after the end");
        assert_eq!(openings(lab).len(), 5, "of ours nothing is left");
    });
}
