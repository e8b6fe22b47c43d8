//! A new process takes over from the one that serves: no client is refused, and no session is lost.

mod known;
mod sessions;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::harness::{
    Api, Client, Portway, Ran, TcpTarget, UdpTarget, as_root, echoes, eventually, free_port, mapping,
    messages, own_addr, own_ip, portway, udp_client, udp_mapping,
};

/// `portway upgrade`, to its end.
fn upgrade(portway_: &Portway) -> Ran {
    portway(["upgrade".as_ref(), "--socket".as_ref(), portway_.socket().as_os_str()])
}

/// Hands over by the command, and follows the new process.
#[track_caller]
pub(super) fn hand_over(daemon: &mut Portway) -> Value {
    let mark = daemon.log_len();
    upgrade(daemon).exits(0).says("handed over to portway ");
    let line = daemon.wait_log_after(mark, messages::HANDED_OVER, |_| true);
    daemon.follow(line.number("pid"));
    daemon.api().get("/v1/upgrade").is(200).json()
}

#[test]
fn clients_are_served_without_a_gap_over_several_hand_overs() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let mut daemon = Portway::with(&mapping(at, target.addr, "")).installed().start();
    let (stop, served, lost) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served, lost) = (Arc::clone(&stop), Arc::clone(&served), Arc::clone(&lost));
            thread::spawn(move || {
                while !stop.load(SeqCst) {
                    let count = if echoes(at) { &served } else { &lost };
                    count.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let before = (daemon.pid(), served.load(SeqCst));
        let report = hand_over(&mut daemon);
        assert_ne!(daemon.pid(), before.0);
        assert_eq!(report["pid"], daemon.pid());
        eventually("clients are served again", || (served.load(SeqCst) > before.1 + 20).then_some(()));
    }
    stop.store(true, SeqCst);
    clients.into_iter().for_each(|client| client.join().expect("a client ends"));
    assert_eq!(lost.load(SeqCst), 0, "of {} clients\n{}", served.load(SeqCst), daemon.log());
    daemon.stop().with(0);
}

#[test]
fn the_api_goes_along_and_says_who_serves() {
    let target = TcpTarget::echo();
    let (at, api_at) = (own_addr(8080), own_addr(7678));
    let config = mapping(at, target.addr, "") + &format!("[api]\nlisten = \"{api_at}\"\n");
    let mut daemon = Portway::with(&config).installed().start();
    let tcp = Api::Tcp(api_at);
    let asks = thread::spawn({
        let (unix, tcp) = (daemon.api(), tcp.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let asking = thread::spawn(move || {
            let mut answers = 0;
            while !stopped.load(SeqCst) {
                unix.get("/v1/status").is(200);
                tcp.get("/v1/status").is(200);
                answers += 2;
            }
            answers
        });
        move || (stop, asking)
    });
    let (stop, asking) = asks.join().expect("a thread");
    for _ in 0..2 {
        let report = hand_over(&mut daemon);
        let pid = json!(daemon.pid());
        assert_eq!(report["pid"], pid);
        for api in [daemon.api(), tcp.clone()] {
            assert_eq!(api.get("/v1/status").is(200).json()["pid"], pid);
        }
    }
    stop.store(true, SeqCst);
    assert!(asking.join().expect("each question has an answer") > 10);
    let socket = daemon.socket();
    assert!(socket.exists());
    daemon.stop().with(0);
    assert!(!socket.exists(), "the last one removes it");
}

#[test]
fn a_signal_hands_over_as_well_and_the_end_of_the_old_one_is_quiet() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let mut daemon = Portway::with(&mapping(at, target.addr, "")).installed().start();
    daemon.signal(Signal::USR2);
    let line = daemon.wait_log(messages::HANDED_OVER, |_| true);
    daemon.follow(line.number("pid"));
    Client::to(at).ping();
    for unwanted in [messages::STOPPING, messages::STOPPED] {
        assert_eq!(daemon.count(unwanted), 0, "{unwanted}\n{}", daemon.log());
    }
    daemon.stop().with(0);
}

#[test]
fn a_udp_flow_keeps_its_number_and_its_target_and_loses_no_datagram() {
    let target = UdpTarget::echo();
    let at = own_addr(8080);
    let mut daemon = Portway::with(&udp_mapping(at, target.addr, "")).installed().start();
    let client = udp_client(at);
    let asks = |text: &[u8]| {
        client.send(text).expect("a datagram leaves");
        let mut back = [0; 8];
        let len = client.recv(&mut back).expect("its answer comes");
        assert_eq!(&back[..len], text);
    };
    asks(b"one");
    let flow = |daemon: &Portway| daemon.api().get("/v1/sessions").is(200).json()["sessions"][0].clone();
    let before = flow(&daemon);
    for _ in 0..3 {
        let report = hand_over(&mut daemon);
        assert_eq!((&report["flows"], &report["left_behind"]), (&json!(1), &json!(0)), "{report}");
        asks(b"two");
        let after = flow(&daemon);
        for same in ["id", "client", "target", "mapping"] {
            assert_eq!(after[same], before[same], "{same}");
        }
    }
    let senders: std::collections::HashSet<_> = target.got().into_iter().map(|(from, _)| from).collect();
    assert_eq!(senders.len(), 1, "the target sees one client");
}

#[test]
fn sessions_of_a_listener_that_is_gone_stay_with_the_old_process_until_they_end() {
    let target = TcpTarget::echo();
    let (kept, gone) = (own_addr(8080), own_addr(8081));
    let config = mapping(kept, target.addr, "");
    let daemon = Portway::with(&(config.clone() + &mapping(gone, target.addr, ""))).installed().start();
    let (mut stays, mut goes) = (Client::to(gone), Client::to(kept));
    stays.ping();
    goes.ping();
    daemon.write_config(&config);
    upgrade(&daemon).exits(0).says("1 session and 0 flows").says("; 1 session stays");
    stays.ping();
    goes.ping();
    assert!(!echoes(gone), "its listener is closed");
    assert!(echoes(kept));
    assert_eq!(daemon.processes().len(), 2);
    drop(stays);
    eventually("the former process ends", || (daemon.processes().len() == 1).then_some(()));
    goes.ping();
}

#[test]
fn a_listener_on_every_address_takes_the_place_of_one_on_a_single_address() {
    let (target, datagrams) = (TcpTarget::echo(), UdpTarget::echo());
    let port = free_port();
    let (one, other) = (SocketAddr::new(own_ip(), port), SocketAddr::new(own_ip(), port));
    let every = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let both = |at| mapping(at, target.addr, "") + &udp_mapping(at, datagrams.addr, "");
    let mut daemon = Portway::with(&both(one)).installed().start();
    let mut stays = Client::to(one);
    stays.ping();
    assert!(!echoes(other));
    daemon.write_config(&both(every));
    upgrade(&daemon).exits(0).says("0 sessions and 0 flows").says("; 1 session stays");
    daemon.wait_log(messages::HANDED_OVER, |_| true);
    eventually("every address is served", || (echoes(one) && echoes(other)).then_some(()));
    let client = udp_client(other);
    client.send(b"ask").expect("a datagram leaves");
    assert_eq!(client.recv(&mut [0; 8]).expect("its answer comes"), 3);
    stays.ping();
    drop(stays);
    eventually("the former process ends", || (daemon.processes().len() == 1).then_some(()));
    // What fails leaves the options of sockets as they were: nothing else gets the port.
    let stranger = std::net::TcpListener::bind(one);
    assert!(stranger.is_err(), "{stranger:?}");
}

#[test]
fn process_1_becomes_the_new_program_in_its_place() {
    as_root(&["unshare"], || {
        let target = TcpTarget::echo();
        let at = own_addr(8080);
        let alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
        let daemon = Portway::with(&mapping(at, target.addr, "")).installed().through(alone).start();
        let mut client = Client::to(at);
        client.ping();
        let first = || daemon.api().get("/v1/status").is(200).json();
        assert_eq!(first()["pid"], 1);
        for _ in 0..3 {
            upgrade(&daemon).exits(0).says("(pid 1): 1 session and 0 flows");
            client.ping();
            let status = first();
            assert_eq!((&status["pid"], &status["sessions"]), (&json!(1), &json!(1)), "{status}");
        }
        // What cannot be executed leaves it as it was.
        daemon.install_script("exit 3");
        upgrade(&daemon).exits(1).says("exit status: 3");
        daemon.write_config("nonsense = 1\n");
        daemon.install_program();
        upgrade(&daemon).exits(1).says("the configuration is wrong");
        client.ping();
        assert!(echoes(at));
        assert_eq!(target.accepted(), 2);
    });
}

/// The id of the process that is the first one of its own numbers.
fn first_process(daemon: &Portway) -> Pid {
    let is_first = |pid: &Pid| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
        let status = status.unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.is_some_and(|numbers| numbers.split_whitespace().skip(1).last() == Some("1"))
    };
    daemon.processes().into_iter().find(is_first).expect("a process 1")
}

#[test]
fn process_1_obeys_a_stop_that_comes_while_the_program_is_replaced() {
    as_root(&["unshare"], || {
        let target = TcpTarget::echo();
        let at = own_addr(8080);
        let alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
        let daemon = Portway::with(&mapping(at, target.addr, "")).installed().through(alone).start();
        // After the exec and before the new program: it has no handler yet.
        let (there, may) = (daemon.dir().join("there"), daemon.dir().join("may"));
        daemon.install_script(&format!(
            "if [ \"$PORTWAY_HANDOVER\" = 1 ]; then\ntouch {}\nuntil [ -e {} ]; do sleep 0.01; done\nfi\nexec \
             \"$PORTWAY\" \"$@\"",
            there.display(),
            may.display()
        ));
        let first = first_process(&daemon);
        rustix::process::kill_process(first, Signal::USR2).expect("it is there");
        eventually("it is between the two programs", || there.exists().then_some(()));
        rustix::process::kill_process(first, Signal::TERM).expect("it is there");
        std::fs::write(may, "").expect("the test's own directory");
        eventually("it has ended", || daemon.processes().is_empty().then_some(()));
    });
}
