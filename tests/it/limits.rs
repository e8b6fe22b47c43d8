//! What happens at the limits of the machine, and that everything borrowed is given back.

use std::{thread, time::Duration};

use crate::harness::{Client, Portway, TcpTarget, echoes, eventually, mapping, messages, own_addr, pass};

#[test]
fn running_out_of_descriptors_is_survived_quietly() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let mut portway = Portway::with(&mapping(at, target.addr, "")).descriptors(128).start();
    let clients: Vec<Client> = (0..200).map(|_| Client::to(at)).collect();
    portway.wait_text(messages::NO_ROOM_FOR_MORE_SESSIONS);

    // Over four seconds of exhaustion, the processor rests and the log does too.
    let span = Duration::from_secs(4);
    let (cpu, lines) = (portway.cpu_time(), portway.log_len());
    pass(span);
    let (cpu, lines) = (portway.cpu_time() - cpu, portway.log_len() - lines);
    assert!(cpu < span / 5, "{cpu:?} of processor time in {span:?}");
    assert!(lines <= 4, "{lines} lines in {span:?}\n{}", portway.log());

    drop(clients);
    eventually("a new client is served", || echoes(at).then_some(()));
    portway.stop().with(0);
}

#[test]
fn a_second_listener_serves_again_after_the_descriptors_ran_out_on_the_first() {
    let target = TcpTarget::echo();
    let (first, second) = (own_addr(8080), own_addr(8080));
    let config = mapping(first, target.addr, "name = \"a\"") + &mapping(second, target.addr, "name = \"b\"");
    let mut portway = Portway::with(&config).descriptors(128).start();
    let clients: Vec<Client> = (0..200).map(|_| Client::to(first)).collect();
    portway.wait_text(messages::NO_ROOM_FOR_MORE_SESSIONS);
    let waiting = Client::to(second);
    let cpu = portway.cpu_time();
    pass(Duration::from_secs(2));
    assert!(portway.cpu_time() - cpu < Duration::from_millis(400), "a listener spins");
    drop((clients, waiting));
    for at in [first, second] {
        eventually("a new client is served", || echoes(at).then_some(()));
    }
}

#[test]
fn ten_thousand_sessions_give_every_descriptor_back() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    // Clients come faster than a busy machine sees others go: the cap is not what is tested here.
    let terms = "max_sessions_per_client = \"unlimited\"";
    let mut portway = Portway::with(&mapping(at, target.addr, terms)).start();
    Client::to(at).ping();
    portway.wait_sessions(1);
    let base = portway.fds();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_500 {
                    Client::to(at).ping();
                }
            });
        }
    });
    // Their lines have a budget, so it is the descriptors that tell.
    portway.wait_fds(base);
}
