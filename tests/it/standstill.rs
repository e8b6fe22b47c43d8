//! A daemon that stood still (stopped, a paused container) takes in what came meanwhile before it looks at idle times.

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::UdpSocket,
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::harness::{
    Client, DEADLINE, Portway, TcpTarget, UdpTarget, mapping, own_addr, paced, pass, udp_client, udp_mapping,
};

/// The limit for silence, in the configuration's words: much longer than a talker is silent, much shorter than the pause.
const LIMIT: &str = "3s";
const STANDS_STILL: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_millis(100);
/// What a talker says: it talks before the pause, all through it, and after it.
const WORDS: usize = 80;

/// A TCP target that talks and does not listen.
fn talking_target() -> TcpTarget {
    TcpTarget::serve(|mut stream| paced(EVERY, WORDS, |_| drop(stream.write_all(b"x"))))
}

/// A UDP target that talks to the first client that asks.
fn talking_socket() -> UdpSocket {
    let socket = UdpSocket::bind(own_addr(0)).expect("a target binds");
    let talker = socket.try_clone().expect("a socket can be cloned");
    thread::spawn(move || {
        let (_, from) = talker.recv_from(&mut [0; 10]).expect("a question");
        paced(EVERY, WORDS, |_| drop(talker.send_to(b"x", from)));
    });
    socket
}

fn hears_all_of_it(client: &UdpSocket) {
    for nth in 0..WORDS {
        let heard = client.recv(&mut [0; 10]);
        assert!(heard.is_ok(), "{nth} datagrams, and then {heard:?}");
    }
}

#[test]
fn sessions_and_flows_that_talk_outlive_a_standstill() {
    let (echo, talker) = (TcpTarget::echo(), talking_target());
    let (echo_datagrams, talking_datagrams) = (UdpTarget::echo(), talking_socket());
    let (asks, hears) = (own_addr(8080), own_addr(8081));
    let (asks_datagrams, hears_datagrams) = (own_addr(5353), own_addr(5354));
    let limit = &format!("idle_timeout = \"{LIMIT}\"");
    let half = &format!("half_close_timeout = \"{LIMIT}\"");
    let portway = Portway::with(
        &[
            mapping(asks, echo.addr, limit),
            mapping(hears, talker.addr, half),
            udp_mapping(asks_datagrams, echo_datagrams.addr, limit),
            udp_mapping(hears_datagrams, talking_datagrams.local_addr().expect("it is bound"), limit),
        ]
        .concat(),
    )
    .start();

    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::to(asks);
            paced(EVERY, WORDS, |_| client.say(b"x"));
            client.hear(WORDS);
        });
        scope.spawn(|| {
            let mut client = Client::to(hears);
            client.finish();
            let mut heard = Vec::new();
            client.0.read_to_end(&mut heard).expect("an orderly end");
            assert_eq!(heard.len(), WORDS, "of the session with one side closed");
        });
        scope.spawn(|| {
            let client = udp_client(asks_datagrams);
            paced(EVERY, WORDS, |_| drop(client.send(b"x")));
            hears_all_of_it(&client);
            let sources: HashSet<_> = echo_datagrams.got().into_iter().map(|(from, _)| from).collect();
            assert_eq!(sources.len(), 1, "the flow lives on");
        });
        scope.spawn(|| {
            let client = udp_client(hears_datagrams);
            client.set_read_timeout(Some(DEADLINE / 3)).expect("a socket takes a timeout");
            client.send(b"?").expect("the client sends");
            hears_all_of_it(&client);
        });
        pass(Duration::from_secs(1));
        portway.signal(Signal::STOP);
        pass(STANDS_STILL);
        portway.signal(Signal::CONT);
    });
}
