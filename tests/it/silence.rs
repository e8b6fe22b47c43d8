//! What the operator hears of `refuse = "drop"`.

use crate::harness::{Portway, Setup, TcpTarget, in_own_network, mapping, messages, own_addr};

/// Without the right to close a connection and send nothing.
fn humble(setup: Setup) -> Setup {
    setup.through(["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"])
}

#[test]
fn a_drop_that_cannot_be_wholly_silent_is_reported_once() {
    in_own_network(&["setpriv"], || {
        let (target, at, other) = (TcpTarget::echo(), own_addr(8080), own_addr(8081));
        let drops = mapping(at, target.addr, "refuse = \"drop\"");
        let mut portway = humble(Portway::with(&mapping(at, target.addr, ""))).start();
        assert_eq!(portway.count(messages::DROPPED_CLIENTS_HEAR_A_RESET), 0, "no client is dropped yet");
        portway.reload_with(&drops);
        portway.reload_with(&(drops.clone() + &mapping(other, target.addr, "refuse = \"drop\"")));
        assert_eq!(portway.count(messages::DROPPED_CLIENTS_HEAR_A_RESET), 1, "{}", portway.log());
        drop(portway);
        assert_eq!(humble(Portway::with(&drops)).start().count(messages::DROPPED_CLIENTS_HEAR_A_RESET), 1);
        assert_eq!(
            Portway::with(&drops).start().count(messages::DROPPED_CLIENTS_HEAR_A_RESET),
            0,
            "root may do it"
        );
    });
}
