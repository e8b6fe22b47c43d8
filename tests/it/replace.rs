//! Listeners that close, and listeners that take the place of others: nothing is left over, nothing hangs, and what is
//! refused changes nothing.

use std::{
    collections::HashSet,
    io::Read,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use crate::harness::{
    Client, Portway, TcpTarget, UdpTarget, eventually, free_port, mapping, own_addr, own_ip, udp_client,
    udp_mapping,
};

const NO_CAPS: &str = "max_sessions = \"unlimited\"\nmax_sessions_per_client = \"unlimited\"";
const EVERYWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// Runs `load` on two threads, again and again, while `body` runs.
fn under<R>(load: impl Fn() + Sync, body: impl FnOnce() -> R) -> R {
    /// Also where `body` panics.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = Over(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    load();
                }
            });
        }
        body()
    })
}

/// One datagram of a new client.
fn knock(at: SocketAddr) {
    let client = UdpSocket::bind(("0.0.0.0", 0)).expect("a client binds");
    let _ = client.send_to(b"x", at);
}

#[test]
fn a_udp_listener_that_is_replaced_under_new_clients_never_hangs() {
    let target = UdpTarget::echo();
    let (ip, port) = (own_ip(), free_port());
    let at = SocketAddr::new(ip, port);
    let terms = format!("{NO_CAPS}\nidle_timeout = \"10m\"");
    let plans = [(EVERYWHERE, port).into(), at].map(|listen| udp_mapping(listen, target.addr, &terms));
    let mut portway = Portway::with(&plans[0]).start();
    under(
        || knock(at),
        || {
            for nth in 1..=40 {
                portway.reload_with(&plans[nth % 2]);
            }
        },
    );
    let client = udp_client(at);
    client.send(b"still there?").expect("the client sends");
    // An earlier client may have had this port: its answer is one byte.
    while client.recv(&mut [0; 20]).expect("the answer comes") != 12 {}
}

/// A target that counts the connections that are open.
fn counting_target() -> (TcpTarget, Arc<AtomicUsize>) {
    let open = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&open);
    let target = TcpTarget::serve(move |mut stream| {
        count.fetch_add(1, SeqCst);
        while let Ok(1..) = stream.read(&mut [0; 64]) {}
        count.fetch_sub(1, SeqCst);
    });
    (target, open)
}

#[test]
fn without_grace_no_session_and_no_flow_outlives_its_mapping() {
    let ((tcp, open), udp) = (counting_target(), UdpTarget::echo());
    let (stays, streams, datagrams) = (own_addr(8080), own_addr(8081), own_addr(5353));
    let rest = mapping(stays, tcp.addr, "") + "[shutdown]\ngrace = \"0s\"\n";
    let terms = format!("{NO_CAPS}\nidle_timeout = \"10m\"");
    let all = mapping(streams, tcp.addr, &terms) + &udp_mapping(datagrams, udp.addr, &terms) + &rest;
    let mut portway = Portway::with(&rest).start();
    let base = portway.fds();
    // They stay for as long as they may.
    let clients = std::sync::Mutex::new(Vec::new());
    let load = || {
        knock(datagrams);
        let mut clients = clients.lock().expect("no thread panics here");
        clients.extend(Client::try_to(streams));
        if clients.len() > 500 {
            clients.drain(..250);
        }
    };
    under(load, || {
        for _ in 0..40 {
            let reached = tcp.accepted();
            portway.reload_with(&all);
            eventually("a session", || (tcp.accepted() > reached).then_some(()));
            portway.reload_with(&rest);
        }
    });
    eventually("no session is left at the target", || (open.load(SeqCst) == 0).then_some(()));
    portway.wait_fds(base);
    drop(clients);
}

/// A flow through the daemon, and whether the target always saw the same one.
struct Flow(UdpSocket);

impl Flow {
    fn to(at: SocketAddr) -> Self {
        let flow = Self(udp_client(at));
        flow.ping();
        flow
    }

    #[track_caller]
    fn ping(&self) {
        self.0.send(b"ping").expect("the client sends");
        assert_eq!(self.0.recv(&mut [0; 10]).expect("the answer comes"), 4);
    }
}

fn sources(target: &UdpTarget) -> HashSet<SocketAddr> {
    target.got().into_iter().map(|(from, _)| from).collect()
}

#[test]
fn a_flow_goes_on_when_its_listener_cannot_be_replaced() {
    let target = UdpTarget::echo();
    let (port, taken) = (free_port(), own_addr(5353));
    let narrow = SocketAddr::new(own_ip(), port);
    let stranger = UdpSocket::bind((own_ip(), port)).expect("an address of its own");
    let of_another_port = UdpSocket::bind(taken).expect("an address of its own");
    let wide = udp_mapping((EVERYWHERE, port).into(), target.addr, "");
    let mut portway = Portway::with(&udp_mapping(narrow, target.addr, "")).start();

    let flow = Flow::to(narrow);
    let refused = portway.refused_reload_with(&wide);
    let holder = format!("(pid {})", std::process::id());
    assert!(refused.text("error").contains(&holder), "{}", refused.raw());
    flow.ping();
    assert_eq!(sources(&target).len(), 1);

    // The other way, where the replacement itself could be had.
    drop(stranger);
    portway.reload_with(&wide);
    let before = sources(&target).len();
    let flow = Flow::to(narrow);
    portway
        .refused_reload_with(&(udp_mapping(narrow, target.addr, "") + &udp_mapping(taken, target.addr, "")));
    flow.ping();
    assert_eq!(sources(&target).len(), before + 1);
    drop(of_another_port);
}

#[test]
fn the_last_flows_of_a_mapping_go_on_when_it_cannot_come_back() {
    let target = UdpTarget::echo();
    let (at, stays, taken) = (own_addr(5353), own_addr(5354), own_addr(5355));
    let _stranger = UdpSocket::bind(taken).expect("an address of its own");
    let rest = udp_mapping(stays, target.addr, "");
    let with = udp_mapping(at, target.addr, "") + &rest;
    let mut portway = Portway::with(&with).start();
    let flow = Flow::to(at);
    portway.reload_with(&rest);
    flow.ping();
    portway.refused_reload_with(&(with.clone() + &udp_mapping(taken, target.addr, "")));
    flow.ping();
    assert_eq!(sources(&target).len(), 1);
    portway.reload_with(&with);
    Flow::to(at);
}

/// The sockets that listen on a port, by their number in the kernel.
fn sockets_at(port: u16) -> HashSet<u64> {
    let all = procfs::net::tcp().expect("the kernel's table");
    let listening = all.into_iter().filter(|s| s.state == procfs::net::TcpState::Listen);
    listening.filter(|s| s.local_address.port() == port).map(|s| s.inode).collect()
}

#[test]
fn a_refused_replacement_leaves_the_listening_socket_alone() {
    let target = TcpTarget::echo();
    let (port, taken) = (free_port(), own_addr(8080));
    let at = SocketAddr::new(own_ip(), port);
    let _stranger = std::net::TcpListener::bind(taken).expect("an address of its own");
    let (narrow, wide) = (mapping(at, target.addr, ""), mapping((EVERYWHERE, port).into(), target.addr, ""));
    let elsewhere = mapping(taken, target.addr, "");
    let mut portway = Portway::with(&narrow).start();

    let beside = std::net::TcpListener::bind((own_ip(), port)).expect("an address of its own");
    let before = sockets_at(port);
    portway.refused_reload_with(&wide);
    assert_eq!((sockets_at(port), before.len()), (before, 2));
    Client::to(at).ping();
    drop(beside);

    portway.reload_with(&wide);
    let before = sockets_at(port);
    portway.refused_reload_with(&(narrow + &elsewhere));
    assert_eq!((sockets_at(port), before.len()), (before, 1));
    Client::to(at).ping();
}

#[test]
fn a_session_stays_when_its_listener_is_replaced_and_has_the_grace_when_its_mapping_goes() {
    let target = TcpTarget::echo();
    let (port, other) =
        (free_port(), mapping(own_addr(8080), target.addr, "") + "[shutdown]\ngrace = \"0s\"\n");
    let at = SocketAddr::new(own_ip(), port);
    let named = |listen| mapping(listen, target.addr, "name = \"moves\"") + &other;
    let mut portway = Portway::with(&named(at)).start();
    let mut session = Client::to(at);
    session.ping();
    portway.reload_with(&named((EVERYWHERE, port).into()));
    session.ping();
    portway.reload_with(&named(at));
    session.ping();
    portway.reload_with(&other);
    session.until_closed();
    assert_eq!(portway.wait_session().text("reason"), "reload");
}
