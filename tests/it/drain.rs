//! What happens to UDP flows when their listener closes: a flow has no visible end.

use std::net::{SocketAddr, UdpSocket};

use crate::harness::{
    Client, Portway, TcpTarget, UdpTarget, eventually, mapping, own_addr, udp_client, udp_mapping,
};

/// Longer than the few silent seconds after which a stop gives flows up that are all that is left.
const GRACE_MS: u64 = 7_000;

fn with_grace(mappings: &str) -> String {
    format!("{mappings}[shutdown]\ngrace = \"{GRACE_MS}ms\"\n")
}

/// Starts a flow through the listener at this address.
fn flow(at: SocketAddr) -> UdpSocket {
    let client = udp_client(at);
    eventually("an answer", || {
        client.send(b"hello").ok()?;
        client.recv(&mut [0; 16]).ok()
    });
    client
}

#[test]
fn a_silent_flow_of_a_removed_mapping_has_the_whole_grace() {
    let target = UdpTarget::echo();
    let (kept, removed) = (own_addr(5353), own_addr(5354));
    let stays = udp_mapping(kept, target.addr, "");
    let both = format!("{stays}{}", udp_mapping(removed, target.addr, ""));
    let mut portway = Portway::with(&with_grace(&both)).start();
    let _client = flow(removed);
    portway.reload_with(&with_grace(&stays));
    let line = portway.wait_session();
    assert_eq!((line.text("mapping"), line.text("reason")), ("5354/udp", "reload"));
    assert!(line.number("duration_ms") >= GRACE_MS, "{}", line.raw());
}

#[test]
fn a_silent_flow_may_stay_while_a_stop_waits_for_a_session() {
    let (tcp, udp) = (TcpTarget::echo(), UdpTarget::echo());
    let (at, flows_at) = (own_addr(8080), own_addr(5353));
    let both = mapping(at, tcp.addr, "") + &udp_mapping(flows_at, udp.addr, "");
    let portway = Portway::with(&with_grace(&both)).start();
    let mut session = Client::to(at);
    session.ping();
    let _client = flow(flows_at);
    let exit = portway.stop().with(0);
    let ended = exit.sessions_ended();
    assert_eq!(ended.len(), 2, "{}", exit.log);
    for line in ended {
        assert_eq!(line.text("reason"), "shutdown", "{}", line.raw());
        assert!(line.number("duration_ms") >= GRACE_MS, "{}", line.raw());
    }
}
