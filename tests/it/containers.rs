//! What concerns portway in a container.

use std::process::Command;

use crate::harness::{Portway, Ran, in_own_network, own_addr, portway_program, run};

#[test]
fn a_network_that_lost_its_interfaces_is_not_healthy() {
    in_own_network(&["ip"], || {
        run("ip link add gone type veth peer name gone-peer");
        let running = Portway::publishing(&format!("{}:192.0.2.1:80", own_addr(8080))).start();
        let socket = running.socket();
        let health = || Ran::of(Command::new(portway_program()).arg("health").env("PORTWAY_SOCKET", &socket));
        health().exits(0);
        run("ip link del gone");
        health().exits(1).says("its interfaces are gone");
        running.stop().with(0);
    });
}
