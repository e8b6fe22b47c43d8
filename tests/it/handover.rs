//! A new process takes over from the one that serves: no client is refused, and no session is lost.

mod sessions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Api, Client, Portway, Ran, TcpTarget, echoes, eventually, mapping, messages, own_addr, portway,
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
