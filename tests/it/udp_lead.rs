//! A flow is led to where it is answered, without its client changing its port.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::harness::{
    Portway, TcpTarget, UdpTarget, eventually, in_own_network, mapping, messages, own_addr, paced, portway,
    run, udp_client, udp_mapping,
};

/// Several times the longest pause between two looks for another address, on a busy machine.
const ASKED: usize = 300;

/// A mapping with several targets.
fn several(at: SocketAddr, targets: &[SocketAddr]) -> String {
    let targets = strings(targets);
    format!(
        "[[mapping]]\nlisten = [\"{at}\"]\ntargets = {targets:?}\nprotocol = \"udp\"\nbalance = \"first\"\n"
    )
}

fn strings(targets: &[SocketAddr]) -> Vec<String> {
    targets.iter().map(SocketAddr::to_string).collect()
}

/// Asks about ten times a second until there is an answer; how many questions that took.
#[track_caller]
fn questions_until_answered(client: &UdpSocket) -> usize {
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket takes a timeout");
    let answered = (1..=ASKED).find(|nth| {
        let question = nth.to_string();
        let mut answer = [0; 10];
        // An ICMP error may come in the place of either.
        let _ = client.send(question.as_bytes());
        client.recv(&mut answer).is_ok()
    });
    answered.expect("an answer comes")
}

#[test]
fn a_flow_is_led_to_the_next_target_and_the_next_flow_starts_there() {
    let (dead, at) = (own_addr(9009), own_addr(5353));
    let target = UdpTarget::echo();
    let mut portway = Portway::with(&several(at, &[dead, target.addr])).start();
    let client = udp_client(at);
    assert!(questions_until_answered(&client) <= 20, "{}", portway.log());
    let port = client.local_addr().expect("a bound socket has an address").port();
    // What was found out is remembered: the very first question of others is answered.
    for _ in 0..5 {
        let other = udp_client(at);
        other.send(b"?").expect("the client sends");
        assert_eq!(other.recv(&mut [0; 9]).expect("an answer comes"), 1);
    }
    portway.wait_log(messages::TARGET_DOWN, |line| {
        line.text("target.addr") == dead.to_string() && line.text("protocol") == "udp"
    });
    let sources: BTreeSet<SocketAddr> = target.got().into_iter().map(|(from, _)| from).collect();
    assert_eq!(sources.len(), 6, "one for each flow");
    let exit = portway.stop().with(0);
    let ended = exit.sessions_ended();
    let own = ended.iter().find(|line| line.text("client.addr").ends_with(&format!(":{port}")));
    let own = own.expect("the client had one flow, and it ended");
    assert_eq!(own.text("target.addr"), target.addr.to_string());
}

#[test]
fn a_flow_is_led_to_the_second_address_of_localhost() {
    in_own_network(&["mount"], || {
        let _hosts = hosts("::1 localhost\n");
        // Whatever the resolver's order is, nothing listens on one of both.
        for ip in ["127.0.0.1", "::1"] {
            let target = UdpTarget::echo_at(SocketAddr::new(ip.parse().expect("an address"), 5300));
            let _portway = Portway::publishing("5353:localhost:5300/udp").start();
            let client = udp_client(([127, 0, 0, 1], 5353).into());
            assert!(questions_until_answered(&client) <= 20, "{ip}");
            drop(target);
        }
    });
}

#[test]
fn a_flow_follows_its_name_to_another_address() {
    in_own_network(&["mount"], || {
        let hosts = hosts("127.0.0.2 svc.test\n");
        let old = UdpTarget::silent_at(([127, 0, 0, 2], 5300).into());
        let _portway = Portway::publishing("5353:svc.test:5300/udp").start();
        let client = udp_client(([127, 0, 0, 1], 5353).into());
        client.send(b"?").expect("the client sends");
        eventually("the first question arrives", || (!old.got().is_empty()).then_some(()));
        hosts.say("127.0.0.3 svc.test\n");
        let new = UdpTarget::echo_at(([127, 0, 0, 3], 5300).into());
        // The old one neither answers nor refuses.
        questions_until_answered(&client);
        assert_eq!(new.got().len(), 1);
    });
}

/// A file in the place of `/etc/hosts`, for this process and its children.
struct Hosts(tempfile::TempDir);

impl Hosts {
    fn say(&self, line: &str) {
        std::fs::write(self.0.path().join("hosts"), format!("127.0.0.1 localhost\n{line}"))
            .expect("the test's own directory");
    }
}

fn hosts(line: &str) -> Hosts {
    let hosts = Hosts(tempfile::tempdir().expect("a temporary directory"));
    hosts.say(line);
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root makes a mount namespace");
    run("mount --make-rprivate /");
    let file = hosts.0.path().join("hosts");
    run(&format!("mount --bind {} /etc/hosts", file.display()));
    assert!(Path::new("/etc/hosts").exists());
    hosts
}

/// A target on another machine, 10.9.0.2, with a cable to this one, 10.9.0.1.
fn far_target() -> UdpTarget {
    let (tell, its_id) = mpsc::channel();
    let (go, plugged) = mpsc::channel();
    let far = thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root makes a network");
        tell.send(rustix::thread::gettid().as_raw_nonzero()).expect("the test waits");
        plugged.recv().expect("the test plugs the cable in");
        run("ip addr add 10.9.0.2/24 dev vb");
        run("ip link set vb up");
        UdpTarget::echo_at(([10, 9, 0, 2], 5300).into())
    });
    let id = its_id.recv().expect("the other machine starts");
    run(&format!("ip link add va type veth peer name vb netns {id}"));
    run("ip addr add 10.9.0.1/24 dev va");
    run("ip link set va up");
    go.send(()).expect("the other machine waits");
    far.join().expect("the other machine is up")
}

#[test]
fn a_flow_outlives_the_address_that_it_was_sent_from() {
    in_own_network(&[], || {
        let target = far_target();
        let _portway = Portway::publishing("5353:10.9.0.2:5300/udp").start();
        let client = udp_client(([127, 0, 0, 1], 5353).into());
        questions_until_answered(&client);
        let last = || target.got().last().map(|(from, _)| from.ip().to_string());
        assert_eq!(last().as_deref(), Some("10.9.0.1"));
        run("ip addr del 10.9.0.1/24 dev va");
        run("ip addr add 10.9.0.77/24 dev va");
        questions_until_answered(&client);
        assert_eq!(last().as_deref(), Some("10.9.0.77"));
    });
}

#[test]
fn a_flow_is_led_away_from_a_machine_that_is_off() {
    in_own_network(&[], || {
        let target = far_target();
        let at = ([127, 0, 0, 1], 5353).into();
        // No machine has the first address.
        let _portway = Portway::with(&several(at, &[([10, 9, 0, 9], 5300).into(), target.addr])).start();
        questions_until_answered(&udp_client(at));
        let next = udp_client(at);
        next.send(b"?").expect("the client sends");
        assert_eq!(next.recv(&mut [0; 9]).expect("the first question is answered"), 1);
    });
}

#[test]
fn a_flow_that_is_answered_keeps_its_target() {
    let (first, second, at) = (own_addr(5300), UdpTarget::echo(), own_addr(5353));
    let target = UdpTarget::echo_at(first);
    let mut portway = Portway::with(&several(at, &[first, second.addr])).start();
    let client = udp_client(at);
    questions_until_answered(&client);
    // A restart that is over before it lasts: the refusal alone moves nothing.
    drop(target);
    let _ = client.send(b"lost");
    let again = UdpTarget::echo_at(first);
    questions_until_answered(&client);
    assert!(!again.got().is_empty());
    paced(Duration::from_millis(100), 20, |_| {
        client.send(b"?").expect("the client sends");
    });
    assert!(second.got().is_empty(), "{}", portway.log());
    assert!(portway.runs());
}

#[test]
fn a_one_way_stream_stays_where_it_is() {
    let (silent, other, at) = (UdpTarget::silent(), UdpTarget::echo(), own_addr(5353));
    let portway = Portway::with(&several(at, &[silent.addr, other.addr])).start();
    let client = udp_client(at);
    paced(Duration::from_millis(250), 20, |_| {
        client.send(b"a line").expect("the client sends");
    });
    eventually("all of it arrives", || (silent.got().len() == 20).then_some(()));
    let sources: BTreeSet<SocketAddr> = silent.got().into_iter().map(|(from, _)| from).collect();
    assert_eq!((sources.len(), other.got().len()), (1, 0), "{}", portway.log());
}

#[test]
fn a_flow_that_cannot_be_opened_says_why_in_the_words_of_tcp() {
    let (tcp, udp) = (own_addr(5353), own_addr(5353));
    let target = TcpTarget::echo();
    // An address that this machine does not have.
    let terms = "source = \"192.0.2.1\"";
    let config = mapping(tcp, target.addr, terms) + &udp_mapping(udp, target.addr, terms);
    let mut portway = Portway::with(&config).start();
    drop(std::net::TcpStream::connect(tcp).expect("the listener accepts"));
    udp_client(udp).send(b"?").expect("the client sends");
    let ended = portway.wait_sessions(2);
    for line in &ended {
        let said = ["reason", "level", "target.addr", "error"].map(|field| line.text(field).to_owned());
        let why = format!("connect {}: Cannot assign requested address (os error 99)", target.addr);
        let expected = ["unreachable".to_owned(), "INFO".to_owned(), target.addr.to_string(), why];
        assert_eq!(said, expected, "{}", line.raw());
    }
    assert_eq!(ended.iter().filter(|line| line.text("protocol") == "udp").count(), 1);
}

#[test]
fn a_broadcast_target_gets_the_question_and_each_answer_comes_back() {
    in_own_network(&[], || {
        run("ip link add va type veth peer name vb");
        run("ip addr add 10.8.0.1/24 brd + dev va");
        run("ip link set va up");
        run("ip link set vb up");
        run("ip route add 224.0.0.0/4 dev va");
        let any = UdpTarget::echo_at(([0, 0, 0, 0], 5300).into());
        let group = UdpSocket::bind("0.0.0.0:5301").expect("a target binds");
        group.join_multicast_v4(&[239, 1, 2, 3].into(), &[10, 8, 0, 1].into()).expect("it joins");
        let _portway = Portway::with(
            "publish = [\"6000:10.8.0.255:5300/udp\", \"6001:239.1.2.3:5301/udp\", \"6002:255.255.255.255:5300/udp\"]\n",
        )
        .start();
        let client = udp_client(([127, 0, 0, 1], 6000).into());
        questions_until_answered(&client);
        assert!(!any.got().is_empty());
        let client = udp_client(([127, 0, 0, 1], 6001).into());
        client.send(b"to the group").expect("the client sends");
        let mut question = [0; 20];
        let (len, from) = group.recv_from(&mut question).expect("it arrives");
        assert_eq!(&question[..len], b"to the group");
        group.send_to(b"from one", from).expect("the target answers");
        assert_eq!(client.recv(&mut question).expect("the answer comes"), 8);
    });
}

/// A question to an address that stands for many machines, from a machine of the same network.
#[track_caller]
fn is_answered_by_one(from: &str, to: &str) {
    let client = UdpSocket::bind(from).expect("a client binds");
    client.set_broadcast(true).expect("a socket may broadcast");
    client.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket takes a timeout");
    let from = eventually(&format!("an answer to a question to {to}"), || {
        client.send_to(b"who is there?", to).expect("the client sends");
        client.recv_from(&mut [0; 20]).ok().map(|(_, from)| from)
    });
    assert_eq!(from.ip(), client.local_addr().expect("a bound socket has an address").ip());
}

#[test]
fn a_question_to_everyone_is_answered_from_the_interfaces_own_address() {
    in_own_network(&[], || {
        run("ip link add va type veth peer name vb");
        run("ip addr add 10.8.0.1/24 brd + dev va");
        run("ip -6 addr add fe80::77/64 dev va nodad");
        run("ip link set va up");
        run("ip link set vb up");
        let target = UdpTarget::echo();
        let config = format!("publish = [\"6000:{0}/udp\", \"0.0.0.0:6001:{0}/udp\"]\n", target.addr);
        let _portway = Portway::with(&config).start();
        for port in [6000, 6001] {
            for to in ["10.8.0.255", "255.255.255.255", "224.0.0.1"] {
                is_answered_by_one("10.8.0.1:0", &format!("{to}:{port}"));
            }
        }
        let index = interface_index("va");
        is_answered_by_one(&format!("[fe80::77%{index}]:0"), &format!("[ff02::1%{index}]:6000"));
    });
}

/// The number of an interface; `/sys` may be that of another network.
fn interface_index(name: &str) -> String {
    let said = run(&format!("ip -oneline link show {name}")).out;
    said.split(':').next().expect("a number comes first").to_owned()
}

#[test]
fn tcp_to_a_broadcast_or_multicast_address_is_refused_before_it_runs() {
    for target in ["255.255.255.255", "239.1.2.3", "[ff02::1]"] {
        let tcp = portway(["check", "-p", &format!("8080:{target}:80")]);
        tcp.exits(78).says(target.trim_matches(['[', ']'])).says("TCP");
        portway(["check", "-p", &format!("8080:{target}:80/udp")]).exits(0);
        // Every address takes what is sent to everyone, so this listener would hear itself.
        portway(["check", "-p", &format!("80:{target}:80/udp")]).exits(78).says("this listener");
        portway(["check", "-p", &format!("{target}:8080:80")]).exits(78).says("TCP");
    }
}
