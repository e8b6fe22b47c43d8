//! TCP's urgent data, which Telnet and FTP use: the marked byte is one of the stream, in its place.

use std::{io::Read, sync::mpsc};

use rustix::{
    net::{SendFlags, send},
    process::Signal,
};
use socket2::SockRef;

use crate::harness::{Client, Content, DEADLINE, Portway, TcpTarget, mapping, own_addr};

const MIB: u64 = 1 << 20;

/// A target that tells all that it received.
fn listening_target() -> (TcpTarget, mpsc::Receiver<Vec<u8>>) {
    let (heard, all) = mpsc::channel();
    let heard = std::sync::Mutex::new(heard);
    let target = TcpTarget::serve(move |mut stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an orderly end");
        let _ = heard.lock().expect("no thread panics here").send(bytes);
    });
    (target, all)
}

fn say_urgently(client: &Client, byte: u8) {
    assert_eq!(send(&client.0, &[byte], SendFlags::OOB).expect("the client sends"), 1);
}

#[test]
fn an_urgent_byte_keeps_its_place() {
    let (target, heard) = listening_target();
    let at = own_addr(8080);
    let _portway = Portway::with(&mapping(at, target.addr, "")).start();
    let mut client = Client::to(at);
    client.say(b"\xff\xf4\xff");
    say_urgently(&client, 0xf2);
    client.say(b"ABOR\r\n");
    client.finish();
    assert_eq!(heard.recv_timeout(DEADLINE).expect("the target's word"), b"\xff\xf4\xff\xf2ABOR\r\n");
}

#[test]
fn what_stands_at_and_behind_an_urgent_byte_waits_for_nothing() {
    let (target, connections) = TcpTarget::manual();
    let at = own_addr(8080);
    let portway = Portway::with(&mapping(at, target.addr, "")).start();
    for (before, behind) in [(3, 6), (1_000, 1_000), (20_000, 20_000), (3, 0)] {
        for from_client in [true, false] {
            let client = Client::to(at);
            let peer = Client(connections.next());
            let (mut sender, mut receiver) = if from_client { (client, peer) } else { (peer, client) };
            // So that all of it is there at once, as it comes over a network.
            portway.signal(Signal::STOP);
            sender.say(&vec![b'a'; before]);
            say_urgently(&sender, b'!');
            sender.say(&vec![b'b'; behind]);
            portway.signal(Signal::CONT);
            SockRef::from(&receiver.0).set_out_of_band_inline(true).expect("a socket takes it");
            // No end follows, and no further byte.
            let heard = receiver.hear(before + 1 + behind);
            assert_eq!(heard[before], b'!');
        }
    }
}

#[test]
fn an_urgent_byte_in_bulk_costs_no_byte() {
    const HALF: u64 = 8 * MIB;
    let content = Content::of(11);
    let (target, heard) = listening_target();
    let at = own_addr(8080);
    let _portway = Portway::with(&mapping(at, target.addr, "")).start();
    let mut client = Client::to(at);
    content.send(&mut client.0, HALF).expect("the client sends");
    say_urgently(&client, b'!');
    content.send(&mut client.0, HALF).expect("the client sends");
    client.finish();
    let all = heard.recv_timeout(DEADLINE).expect("the target's word");
    let half = usize::try_from(HALF).expect("it fits");
    assert_eq!(all.len(), 2 * half + 1);
    assert_eq!(all[half], b'!');
    for mut part in [&all[..half], &all[half + 1..]] {
        assert_eq!(content.receive(&mut part).expect("it is in memory"), HALF);
    }
}
