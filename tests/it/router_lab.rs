//! The routers that other tests need, tried out: what they claim about the router is only worth what these claim.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, Stdio},
    time::Duration,
};

use crate::harness::{
    FakeRouter, Household, Ran, RouterLab, as_root, eventually, in_fake_household, in_router_lab,
};

fn wan(port: u16) -> SocketAddr {
    (RouterLab::WAN, port).into()
}

/// Asks the router from one of the networks, with a program of other people's.
fn natpmpc(lab: &RouterLab, from: &str, arguments: &str) -> Ran {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.network(from), "natpmpc", "-g", &RouterLab::GATEWAY.to_string()]);
    Ran::of(command.args(arguments.split_whitespace()).stdin(Stdio::null()))
}

/// Has the public port 9080 lead to 8080 of the machine under test.
#[track_caller]
fn map(lab: &RouterLab, protocol: &str) {
    // It repeats a question after a quarter of a second, and takes a second answer to that for the one to its next.
    eventually("the router maps the port", || {
        let ran = natpmpc(lab, "lan", &format!("-a 9080 8080 {protocol} 600"));
        ran.out.contains("Mapped public port 9080").then_some(())
    });
}

#[test]
fn the_internet_reaches_what_the_router_has_open_until_it_restarts() {
    in_router_lab(&["natpmpc"], [], |lab| {
        let _echo = lab.echo("lan", 8080);
        assert!(lab.reaches_tcp("lan2", (RouterLab::LAN, 8080).into()), "inside nothing is in the way");
        assert!(!lab.reaches_tcp("wan", wan(9080)));
        assert!(!lab.reaches_udp("wan", wan(9080)));
        let before = lab.run("rules");
        map(lab, "tcp");
        map(lab, "udp");
        assert_ne!(lab.run("rules"), before);
        assert!(lab.reaches_tcp("wan", wan(9080)));
        assert!(lab.reaches_udp("wan", wan(9080)));
        lab.run("reboot");
        assert!(!lab.reaches_tcp("wan", wan(9080)));
        assert!(!lab.reaches_udp("wan", wan(9080)));
    });
}

#[test]
fn a_setting_of_the_router_holds_from_its_next_start() {
    in_router_lab(&["natpmpc"], [("NATPMP", "no")], |lab| {
        assert_ne!(natpmpc(lab, "lan2", "").code, Some(0));
        lab.run_with("NATPMP", "yes", "daemon restart");
        assert_eq!(natpmpc(lab, "lan2", "").code, Some(0));
    });
}

#[test]
fn the_address_of_the_machine_can_change() {
    in_router_lab(&[], [], |lab| {
        let to = |ip: Ipv4Addr| SocketAddr::from((ip, 8080));
        let _echo = lab.echo("lan", 8080);
        lab.run("lanip 192.168.77.20");
        assert!(lab.reaches_tcp("lan2", to(Ipv4Addr::new(192, 168, 77, 20))));
        assert!(!lab.reaches_tcp("lan2", to(RouterLab::LAN)));
        assert!(!lab.reaches_tcp("lan", to(RouterLab::LAN2)), "nothing listens there");
    });
}

#[test]
fn the_lab_checks_itself() {
    in_router_lab(&["upnpc", "natpmpc", "socat"], [], |lab| {
        let checks = lab.run("selftest");
        assert_eq!(checks.lines().filter(|line| line.starts_with("ok ")).count(), 21, "{checks}");
    });
}

/// What the fake router answers to a search: its head lines.
fn searched(router: &FakeRouter) -> Option<String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    let question = "M-SEARCH * HTTP/1.1\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";
    socket.send_to(question.as_bytes(), (Ipv4Addr::LOCALHOST, router.search_port())).expect("a socket");
    let mut answer = [0; 2048];
    let len = socket.recv(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..len]).into_owned())
}

#[test]
fn a_fake_router_restarts_and_moves_on_request() {
    in_fake_household("good", |router| {
        let answers = |what: &str| searched(router).filter(|answer| answer.contains(what));
        eventually("it answers a search", || answers("BOOTID.UPNP.ORG: 1\r\n"));
        router.restart();
        eventually("its BOOTID is another", || answers("BOOTID.UPNP.ORG: 2\r\n"));
        eventually("its description", || answers("/root1.xml"));
        router.move_description();
        eventually("its description is elsewhere", || answers("/root2.xml"));
        assert_eq!(router.log(), [""; 0], "it got no request");
    });
}

#[test]
fn a_household_fails_if_the_mapping_of_a_neighbour_is_gone() {
    as_root(&[&RouterLab::TOOLS[..], &["upnpc"]].concat(), || {
        let home = Household::real([]);
        home.run("in lan2 upnpc -u http://192.168.77.1:5555/rootDesc.xml -d 7001 TCP");
        assert!(catch_unwind(AssertUnwindSafe(|| drop(home))).is_err());
    });
}
