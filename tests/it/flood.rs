//! A flood of refused clients: it costs little, leaves nothing behind, and takes no turn from the clients inside.

use std::{
    array,
    io::Read,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use crate::harness::{
    Client, Portway, TcpTarget, eventually, mapping, messages, own_addr, own_ip, udp_client_from, udp_mapping,
};

/// Clients that flood at once.
const FOES: usize = 4;

/// Connects from `ip` and waits for the end, so many times.
fn knock(ip: IpAddr, at: SocketAddr, times: usize) {
    for _ in 0..times {
        // A reset may come before the client knows that it was connected.
        if let Ok(mut client) = Client::try_from_ip(ip, at) {
            let _ = client.0.read(&mut [0]);
        }
    }
}

/// Lets all foes knock, and gives the number of pings of a client inside meanwhile.
fn pings_during_a_flood(
    at: SocketAddr,
    foes: [IpAddr; FOES],
    connects: usize,
    inside: &mut Client,
    look: impl Fn(),
) -> usize {
    let over = AtomicBool::new(false);
    let mut pings = 0;
    thread::scope(|scope| {
        let floods = foes.map(|foe| scope.spawn(move || knock(foe, at, connects / FOES)));
        scope.spawn(|| {
            floods.into_iter().for_each(|flood| flood.join().expect("a flood ends"));
            over.store(true, SeqCst);
        });
        while !over.load(SeqCst) {
            inside.ping();
            pings += 1;
            look();
        }
    });
    pings
}

/// Refuses `connects` in this way, while one client is inside. More refusals of one client than `borne` are a ban.
fn flood(connects: usize, refuse: &str, borne: &str, reason: &str) {
    let target = TcpTarget::echo();
    let (at, friend) = (own_addr(8080), own_ip());
    let terms = format!("allow = \"{friend}\"\nrefuse = \"{refuse}\"\n");
    let config = mapping(at, target.addr, &terms) + &format!("[guard]\nrefusals = \"{borne}\"\n");
    let mut portway = Portway::with(&config).start();
    let mut inside = Client::from(friend, at);
    let foes: [IpAddr; FOES] = array::from_fn(|_| own_ip());
    foes.iter().for_each(|foe| knock(*foe, at, 250));
    inside.ping();
    let (fds, memory, lines) = (portway.fds(), portway.memory(), portway.log_len());

    let pings = pings_during_a_flood(at, foes, connects, &mut inside, || {
        // Some descriptors may be on their way out at any moment.
        assert!(portway.fds() <= fds + 64, "{} descriptors", portway.fds());
    });
    // The client inside has its turn as often as a foe, give or take: refusals are not served first.
    assert!(pings >= connects / FOES / 5, "{pings} pings during {connects} refusals");
    portway.wait_fds(fds);
    let grown = portway.memory().saturating_sub(memory);
    assert!(grown < 8 * 1024, "{grown} KiB more than before");
    let said = portway.log_len() - lines;
    assert!(said <= 3, "{said} lines\n{}", portway.log());
    portway.wait_log(messages::SESSIONS_REFUSED, |line| line.text("reasons").starts_with(reason));
    inside.ping();
}

#[test]
fn a_hundred_thousand_refused_connects_leave_descriptors_and_memory_as_they_were() {
    flood(100_000, "reset", "1000000/h", "denied");
}

#[test]
fn a_flood_of_connects_that_are_closed_is_not_felt_inside() {
    flood(20_000, "close", "1000000/h", "denied");
}

#[test]
fn a_flood_of_connects_of_banned_clients_is_not_felt_inside() {
    flood(20_000, "close", "3/h", "banned");
}

#[test]
fn a_refused_client_costs_less_than_an_admitted_one() {
    const CLIENTS: usize = 10_000;
    let target = TcpTarget::serve(drop);
    let (at, friend, foe) = (own_addr(8080), own_ip(), own_ip());
    // Those admitted come faster than a busy machine sees others go: a cap would refuse them.
    let terms = format!("deny = \"{foe}\"\nmax_sessions_per_client = \"unlimited\"");
    let portway = Portway::with(&mapping(at, target.addr, &terms)).start();
    let cost = |ip| {
        let before = portway.cpu_time();
        knock(ip, at, CLIENTS);
        portway.cpu_time() - before
    };
    cost(friend);
    let (admitted, refused) = (cost(friend), cost(foe));
    assert!(refused < admitted / 2, "{refused:?} for those refused, {admitted:?} for those admitted");
}

#[test]
fn a_flood_of_refused_datagrams_opens_nothing() {
    let target = TcpTarget::echo();
    let (at, udp_at, foe) = (own_addr(8080), own_addr(8080), own_ip());
    let config = mapping(at, target.addr, "name = \"t\"")
        + &udp_mapping(udp_at, target.addr, &format!("name = \"u\"\ndeny = \"{foe}\""));
    let mut portway = Portway::with(&config).start();
    let mut inside = Client::to(at);
    inside.ping();
    let (fds, memory) = (portway.fds(), portway.memory());
    for _ in 0..100 {
        let client = udp_client_from(foe, udp_at);
        for _ in 0..1_000 {
            let _ = client.send(b"let me in");
        }
        inside.ping();
    }
    portway.wait_log(messages::SESSIONS_REFUSED, |line| line.text("mapping") == "u");
    eventually("the flood is over", || (portway.fds() <= fds).then_some(()));
    assert!(portway.memory() < memory + 8 * 1024, "{} KiB, {memory} before", portway.memory());
}
