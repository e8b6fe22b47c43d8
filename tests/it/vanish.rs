//! Peers that vanish, and peers that only have no room.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

use crate::harness::{
    Client, Content, DEADLINE, Portway, TcpTarget, eventually, in_own_network, mapping, own_addr, pass, run,
};

/// Another machine on a cable: a thread with a network of its own, at 10.77.0.2. This one is 10.77.0.1.
struct Far {
    work: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Far {
    fn connected() -> Self {
        let (work, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        let far = Self { work };
        let id = far.does(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network");
            rustix::thread::gettid().as_raw_nonzero()
        });
        run(&format!("ip link add near0 type veth peer name far0 netns {id}"));
        run("ip addr add 10.77.0.1/24 dev near0");
        run("ip link set near0 up");
        far.does(|| {
            run("ip addr add 10.77.0.2/24 dev far0");
            run("ip link set far0 up");
        });
        far
    }

    /// Does something on that machine.
    fn does<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (give, take) = mpsc::channel();
        let job = Box::new(move || drop(give.send(job())));
        self.work.send(job).expect("the other machine runs");
        take.recv_timeout(DEADLINE).expect("the other machine answers")
    }

    /// From now on nothing that it sends arrives here.
    fn vanish(&self) {
        self.does(|| run("ip route add blackhole 10.77.0.1/32"));
    }
}

/// Writes without a pause longer than a moment, until that fails.
fn talk(mut to: TcpStream) {
    thread::spawn(move || {
        while to.write_all(b"something").is_ok() {
            pass(Duration::from_millis(50));
        }
    });
}

#[test]
fn a_peer_that_vanishes_is_found_while_bytes_are_on_their_way_to_it() {
    in_own_network(&[], || {
        let far = Far::connected();
        let (talker, listener) = TcpTarget::manual();
        let (in_far, out_far) = (SocketAddr::from(([10, 77, 0, 1], 8080)), own_addr(8081));
        let there = far.does(|| TcpListener::bind("10.77.0.2:9000").expect("it listens"));
        let at = there.local_addr().expect("it is bound");
        let keepalive = "keepalive = \"1s\"";
        let config = mapping(in_far, talker.addr, keepalive) + &mapping(out_far, at, keepalive);
        let mut portway = Portway::with(&config).start();

        let client = far.does(move || {
            let mut client = eventually("a connection", || TcpStream::connect(in_far).ok());
            client.write_all(b"?").expect("the client sends");
            client
        });
        talk(listener.next());
        let near = Client::to(out_far);
        let target = there.accept().expect("the session arrives").0;
        talk(near.0.try_clone().expect("a socket can be cloned"));
        far.vanish();

        let lines = portway.wait_sessions(2);
        let mut reasons: Vec<_> = lines.iter().map(|line| line.text("reason")).collect();
        reasons.sort_unstable();
        assert_eq!(reasons, ["client-error", "target-error"]);
        drop((client, target));
    });
}

/// A client that has room for little.
fn narrow_client(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&to.into()).expect("the client connects");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
    stream
}

#[test]
fn a_peer_without_room_is_kept_while_it_answers() {
    // One that the kernel holds for the client, and one that stalls the session.
    const SIZES: [u64; 2] = [300_000, 16 << 20];
    /// Three times as long as the peer may leave bytes unanswered.
    const PAUSED: Duration = Duration::from_secs(12);
    let content = Content::of(23);
    let targets = SIZES.map(|len| TcpTarget::writes_and_closes(&content, len));
    let listens = [own_addr(8080), own_addr(8081)];
    let config = [0, 1].map(|i| mapping(listens[i], targets[i].addr, "keepalive = \"1s\"")).concat();
    let _portway = Portway::with(&config).start();
    let clients = listens.map(narrow_client);
    pass(PAUSED);
    for (mut client, len) in clients.into_iter().zip(SIZES) {
        assert_eq!(content.receive(&mut client).expect("an orderly end"), len);
    }
}
