//! TCP sessions over hand-overs: every byte arrives, once and in order.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use socket2::SockRef;

use super::hand_over;
use crate::harness::{Client, Content, DEADLINE, Portway, TcpTarget, eventually, mapping, own_addr, paced};

fn start(target: SocketAddr, more: &str) -> (SocketAddr, Portway) {
    let at = own_addr(8080);
    (at, Portway::with(&mapping(at, target, more)).installed().start())
}

#[test]
fn a_session_keeps_its_number_its_age_and_its_counters() {
    let target = TcpTarget::echo();
    let (at, mut daemon) = start(target.addr, "");
    let mut client = Client::to(at);
    client.ping();
    let sessions = |daemon: &Portway| daemon.api().get("/v1/sessions").is(200).json()["sessions"][0].clone();
    let before = sessions(&daemon);
    for nth in 2..5_u64 {
        let report = hand_over(&mut daemon);
        assert_eq!((&report["sessions"], &report["left_behind"]), (&1.into(), &0.into()), "{report}");
        client.ping();
        // What has arrived may be counted a moment later.
        let after = eventually("its bytes are counted", || {
            let after = sessions(&daemon);
            (after["bytes_out"] == 4 * nth).then_some(after)
        });
        for same in ["id", "client", "target", "mapping", "listen"] {
            assert_eq!(after[same], before[same], "{same}");
        }
        assert_eq!(after["bytes_in"], 4 * nth);
    }
    assert_eq!(target.accepted(), 1, "the target saw one connection");
    drop(client);
    let line = daemon.wait_session();
    assert_eq!((line.number("bytes.in"), line.number("bytes.out")), (16, 16), "{}", line.raw());
    assert_eq!(line.text("reason"), "client-closed");
    assert_eq!(daemon.sessions_ended().len(), 1, "one line, by one process");
    let mapping = daemon.api().get("/v1/mappings/8080%2Ftcp").is(200).json();
    assert_eq!((&mapping["sessions"], &mapping["bytes_in"]), (&0.into(), &16.into()), "{mapping}");
}

#[test]
fn bulk_in_both_directions_loses_no_byte() {
    let up = Content::of(1);
    let down = Content::of(2);
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, sent, got, sends) = (Arc::clone(&stop), Arc::clone(&total), up.clone(), down.clone());
    let target = TcpTarget::serve(move |mut stream| {
        let (mut reader, got) = (stream.try_clone().expect("a socket"), got.clone());
        let reads = thread::spawn(move || got.receive(&mut reader).expect("the whole stream"));
        let mut at = 0;
        while !stopped.load(SeqCst) {
            stream.write_all(sends.piece(at, 32 * 1024)).expect("the stream goes on");
            at += 32 * 1024;
        }
        sent.store(at, SeqCst);
        stream.shutdown(std::net::Shutdown::Write).expect("the end of this side");
        reads.join().expect("each byte is right");
    });
    let (at, mut daemon) = start(target.addr, "");
    let client = TcpStream::connect(at).expect("a session");
    client.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut reader = client.try_clone().expect("a socket");
    let reads = thread::spawn(move || down.receive(&mut reader).expect("the whole stream"));
    let (mut writer, stopped) = (client, Arc::clone(&stop));
    let writes = thread::spawn(move || {
        let mut at = 0;
        while !stopped.load(SeqCst) {
            writer.write_all(up.piece(at, 32 * 1024)).expect("the stream goes on");
            at += 32 * 1024;
        }
        writer.shutdown(std::net::Shutdown::Write).expect("the end of this side");
    });
    for _ in 0..4 {
        let report = hand_over(&mut daemon);
        assert_eq!(report["sessions"], 1, "{report}");
    }
    stop.store(true, SeqCst);
    writes.join().expect("the client writes");
    assert_eq!(reads.join().expect("each byte is right"), total.load(SeqCst));
    assert_eq!(daemon.wait_session().number("bytes.out"), total.load(SeqCst));
}

#[test]
fn a_trickle_a_stalled_reader_and_a_half_closed_session_live_on() {
    let (target, connections) = TcpTarget::manual();
    let (at, mut daemon) = start(target.addr, "");
    let mut trickle = Client::to(at);
    let mut trickle_far = connections.next();
    // The target sends more than all buffers hold, and the client reads nothing.
    let stalled = Client::to(at);
    let mut stalled_far = connections.next();
    let content = Content::of(3);
    let sends = content.clone();
    let total = 24 << 20;
    let sending = thread::spawn(move || sends.send(&mut stalled_far, total).expect("the stream goes on"));
    // The client has ended its side, and the answer comes later.
    let mut half = Client::to(at);
    half.say(b"question");
    half.finish();
    let mut half_far = connections.next();
    let mut question = Vec::new();
    half_far.read_to_end(&mut question).expect("the whole question");
    assert_eq!(question, b"question");
    for nth in 0..3 {
        paced(Duration::from_millis(1), 20, |_| {
            trickle.say(b"a");
            let mut byte = [0];
            trickle_far.read_exact(&mut byte).expect("the byte");
            assert_eq!(&byte, b"a");
        });
        let report = hand_over(&mut daemon);
        assert_eq!(report["sessions"], 3, "hand-over {nth}: {report}\n{}", daemon.log());
    }
    let reads =
        thread::spawn(move || content.receive_at_most(&mut { stalled.0 }, total).expect("the stream"));
    assert_eq!(reads.join().expect("each byte is right"), total);
    sending.join().expect("the target sends");
    half_far.write_all(b"answer").expect("the answer leaves");
    drop(half_far);
    let mut answer = Vec::new();
    half.0.read_to_end(&mut answer).expect("the whole answer");
    assert_eq!(answer, b"answer");
}

/// A listener whose queue is full: a connection to it is neither made nor refused.
fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind(own_addr(0)).expect("a listener");
    SockRef::from(&listener).listen(0).expect("a short queue");
    let addr = listener.local_addr().expect("an address");
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(300)) {
        held.push(stream);
    }
    (listener, held)
}

#[test]
fn a_client_whose_target_is_being_dialled_is_served_by_the_new_process() {
    let (listener, held) = full_listener();
    let target = listener.local_addr().expect("an address");
    let (at, mut daemon) = start(target, "connect_timeout = \"25s\"");
    let mut client = Client::to(at);
    client.say(b"early");
    eventually("the session is there", || {
        (daemon.api().get("/v1/status").json()["sessions"] == 1).then_some(())
    });
    let report = hand_over(&mut daemon);
    assert_eq!(report["sessions"], 1, "{report}");
    // Now there is room.
    for _ in &held {
        drop(listener.accept());
    }
    drop(held);
    let mut far = loop {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut word = [0; 5];
        if stream.read_exact(&mut word).is_ok() {
            assert_eq!(&word, b"early");
            break stream;
        }
    };
    far.write_all(b"late").expect("the answer leaves");
    assert_eq!(client.hear(4), b"late");
}
