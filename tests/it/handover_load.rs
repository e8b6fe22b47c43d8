//! Hand-overs under load: every byte of every session is right, no flow loses its datagrams, and the process that serves
//! neither grows nor collects descriptors. The pause is measured, by portway and by its clients, and printed.
//!
//! [`UPGRADES`] is how many hand-overs there are in a row.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::Signal;
use socket2::SockRef;
use tokio::time::Instant;

use super::handover::hand_over;
use crate::harness::{
    Client, Content, DEADLINE, Portway, TcpTarget, UdpTarget, eventually, mapping, messages, own_addr, pass,
    udp_client, udp_mapping, with_tools,
};

/// How many hand-overs there are, in place of ten.
const UPGRADES: &str = "PORTWAY_TEST_UPGRADES";
/// TCP sessions of each kind.
const EACH: usize = 40;
/// UDP flows.
const FLOWS: usize = 200;
/// What a stalled session is owed: more than all buffers hold.
const OWED: u64 = 6 << 20;
/// The answer of a half-closed session.
const ANSWER: u64 = 256 << 10;

/// A flag that ends the load.
type Stop = Arc<AtomicBool>;

fn upgrades() -> usize {
    std::env::var(UPGRADES).ok().and_then(|count| count.parse().ok()).unwrap_or(10)
}

/// The longest time that something took, in microseconds.
#[derive(Debug, Default)]
struct Longest(AtomicU64);

impl Longest {
    fn note(&self, span: Duration) {
        self.0.fetch_max(u64::try_from(span.as_micros()).expect("a short time"), SeqCst);
    }

    fn take_ms(&self) -> f64 {
        Duration::from_micros(self.0.swap(0, SeqCst)).as_secs_f64() * 1e3
    }
}

/// Sends a stream to an echo and checks what comes back.
fn bulk(at: SocketAddr, seed: u64, stop: &Stop) -> JoinHandle<()> {
    let (stream, content) = (Client::to(at).0, Content::of(seed));
    let (mut reader, expected) = (stream.try_clone().expect("a socket"), content.clone());
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let reads = thread::spawn(move || expected.receive(&mut reader).expect("the whole stream"));
        let (mut stream, mut sent) = (stream, 0);
        while !stop.load(SeqCst) {
            stream.write_all(content.piece(sent, 8 * 1024)).expect("the stream goes on");
            sent += 8 * 1024;
            pass(Duration::from_millis(10));
        }
        stream.shutdown(std::net::Shutdown::Write).expect("the end of this side");
        assert_eq!(reads.join().expect("each byte is right"), sent);
    })
}

/// Sends a byte to an echo at each interval, and waits for it.
fn trickle(at: SocketAddr, every: Duration, stop: &Stop, longest: &Arc<Longest>) -> JoinHandle<()> {
    let (mut client, stop, longest) = (Client::to(at), Arc::clone(stop), Arc::clone(longest));
    thread::spawn(move || {
        let mut nth = 0_u8;
        while !stop.load(SeqCst) {
            let sent = Instant::now();
            client.say(&[nth]);
            assert_eq!(client.hear(1), [nth]);
            longest.note(sent.elapsed());
            nth = nth.wrapping_add(1);
            pass(every);
        }
    })
}

/// Datagrams of many flows at a steady pace, each numbered. Returns how many were sent, and how many came back.
fn flows(at: SocketAddr, stop: &Stop) -> JoinHandle<(u64, u64)> {
    let clients: Vec<UdpSocket> = (0..FLOWS).map(|_| udp_client(at)).collect();
    clients.iter().for_each(|client| client.set_nonblocking(true).expect("a socket"));
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let (mut sent, mut back) = (0, 0);
        let drain = |clients: &[UdpSocket]| {
            let mut word = [0; 8];
            let mut count = 0;
            for client in clients {
                while client.recv(&mut word).is_ok() {
                    count += 1;
                }
            }
            count
        };
        while !stop.load(SeqCst) {
            for client in &clients {
                client.send(&u64::to_le_bytes(sent)).expect("a datagram leaves");
                sent += 1;
            }
            pass(Duration::from_millis(20));
            back += drain(&clients);
        }
        let until = Instant::now() + Duration::from_secs(3);
        while back < sent && Instant::now() < until {
            back += drain(&clients);
            pass(Duration::from_millis(5));
        }
        (sent, back)
    })
}

/// A listener whose queue is full: connections to it are being made as long as it stays so.
struct Full {
    listener: TcpListener,
    held: Vec<TcpStream>,
}

impl Full {
    fn new() -> Self {
        let listener = TcpListener::bind(own_addr(0)).expect("a listener");
        SockRef::from(&listener).listen(0).expect("a short queue");
        let (addr, mut held) = (listener.local_addr().expect("an address"), Vec::new());
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(300)) {
            held.push(stream);
        }
        Self { listener, held }
    }

    /// Makes room, and echoes a word for each connection.
    fn serve(self) {
        SockRef::from(&self.listener).listen(1024).expect("a long queue");
        drop(self.held);
        thread::spawn(move || {
            for mut stream in self.listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut word = [0; 4];
                    while stream.read_exact(&mut word).is_ok() && stream.write_all(&word).is_ok() {}
                });
            }
        });
    }
}

/// A target that owes each client a stream, and gives it as fast as it is taken.
fn creditor(content: &Content) -> TcpTarget {
    let content = content.clone();
    TcpTarget::serve(move |mut stream| {
        stream.set_write_timeout(None).expect("a socket");
        let _ = content.send(&mut stream, OWED);
    })
}

/// A target that reads a question to its end, and answers when it may.
fn late(content: &Content, may: &Stop) -> TcpTarget {
    let (content, may) = (content.clone(), Arc::clone(may));
    TcpTarget::serve(move |mut stream| {
        let mut question = Vec::new();
        stream.read_to_end(&mut question).expect("the whole question");
        assert_eq!(question, b"question");
        while !may.load(SeqCst) {
            pass(Duration::from_millis(5));
        }
        content.send(&mut stream, ANSWER).expect("the answer leaves");
    })
}

fn printed(what: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    println!(
        "{what}: median {:.2} ms, p99 {:.2} ms, most {:.2} ms ({} hand-overs)",
        at(0.5),
        at(0.99),
        at(1.0),
        values.len()
    );
}

/// Clients that wait: those that read nothing, those that have ended their side, and those whose target is being dialled.
struct Waiting {
    stalled: Vec<Client>,
    halves: Vec<Client>,
    dialled: Vec<Client>,
}

impl Waiting {
    fn start(stalled_at: SocketAddr, half_at: SocketAddr, dialled_at: SocketAddr) -> Self {
        let each = |at: SocketAddr, word: &'static [u8]| {
            let clients = (0..EACH).map(move |_| {
                let mut client = Client::to(at);
                client.say(word);
                client
            });
            clients.collect::<Vec<_>>()
        };
        let halves = each(half_at, b"question");
        halves.iter().for_each(Client::finish);
        Self { stalled: each(stalled_at, b""), halves, dialled: each(dialled_at, b"word") }
    }

    /// Takes what is owed to each.
    fn settle(self, owed: &Content, full: Full) {
        for mut client in self.halves {
            assert_eq!(owed.receive(&mut client.0).expect("the whole answer"), ANSWER);
        }
        for mut client in self.stalled {
            assert_eq!(owed.receive_at_most(&mut client.0, OWED).expect("all that is owed"), OWED);
        }
        full.serve();
        for mut client in self.dialled {
            client.0.set_read_timeout(Some(2 * DEADLINE)).expect("a timeout");
            assert_eq!(client.hear(4), b"word");
        }
    }
}

/// What was seen of each hand-over.
#[derive(Default)]
struct Seen {
    pauses: Vec<f64>,
    gaps: Vec<f64>,
    descriptors: Vec<usize>,
    memory: Vec<u64>,
}

impl Seen {
    fn note(&mut self, daemon: &Portway, longest: &Longest) {
        self.gaps.push(longest.take_ms());
        self.pauses.push(daemon.last_pause());
        self.descriptors.push(daemon.fds());
        self.memory.push(daemon.memory());
    }

    #[track_caller]
    fn is_flat(&self) {
        let (Self { descriptors, memory, .. }, last) = (self, self.memory.len() - 1);
        assert!(descriptors[last] <= descriptors[0] + 20, "descriptors: {descriptors:?}");
        assert!(memory[last] <= memory[0] + memory[0] / 4 + 16 * 1024, "memory in KiB: {memory:?}");
    }
}

/// The datagrams that the kernel dropped so far because the buffer of a socket was full (`RcvbufErrors`).
fn overflowed() -> u64 {
    let counts = std::fs::read_to_string("/proc/net/snmp").expect("the kernel's counts");
    let mut rows = counts.lines().filter(|line| line.starts_with("Udp:")).map(str::split_whitespace);
    let (names, values) = (rows.next().expect("the names"), rows.next().expect("the values"));
    let (_, value) = names.zip(values).find(|(name, _)| *name == "RcvbufErrors").expect("this count");
    value.parse().expect("a number")
}

#[test]
fn sessions_and_flows_live_through_many_hand_overs_and_nothing_grows() {
    let (stop, may, overflowed) = (Stop::default(), Stop::default(), overflowed());
    let owed = Content::of(77);
    let (echo, owes, answers, full) = (TcpTarget::echo(), creditor(&owed), late(&owed, &may), Full::new());
    let udp = UdpTarget::echo();
    let [at_echo, at_owes, at_late, at_full, at_udp] = [8080, 8081, 8082, 8083, 8084].map(own_addr);
    let full_at = full.listener.local_addr().expect("an address");
    let config = mapping(at_echo, echo.addr, "")
        + &mapping(at_owes, owes.addr, "")
        + &mapping(at_late, answers.addr, "")
        + &mapping(at_full, full_at, "connect_timeout = \"10m\"")
        + &udp_mapping(at_udp, udp.addr, "max_sessions_per_client = \"unlimited\"");
    let mut daemon = Portway::with(&config).installed().start();
    let longest = Arc::new(Longest::default());
    let mut busy: Vec<_> = (0..EACH).map(|nth| bulk(at_echo, nth as u64, &stop)).collect();
    busy.extend((0..EACH).map(|_| trickle(at_echo, Duration::from_millis(10), &stop, &longest)));
    let waiting = Waiting::start(at_owes, at_late, at_full);
    let datagrams = flows(at_udp, &stop);
    let counts = |daemon: &Portway| {
        let status = daemon.api().get("/v1/status").is(200).json();
        (status["sessions"].as_u64(), status["flows"].as_u64())
    };
    let all = (Some(5 * EACH as u64), Some(FLOWS as u64));
    eventually("all sessions and flows are there", || (counts(&daemon) == all).then_some(()));
    let mut seen = Seen::default();
    for nth in 0..upgrades() {
        longest.take_ms();
        let report = hand_over(&mut daemon);
        assert_eq!(counts(&daemon), all, "after hand-over {nth}: {report}\n{}", daemon.log());
        assert_eq!(report["left_behind"], 0, "{report}");
        pass(Duration::from_millis(100));
        seen.note(&daemon, &longest);
    }
    stop.store(true, SeqCst);
    busy.into_iter().for_each(|busy| busy.join().expect("each byte is right"));
    let (sent, back) = datagrams.join().expect("the flows end");
    may.store(true, SeqCst);
    waiting.settle(&owed, full);
    printed("pause", seen.pauses.clone());
    printed("gap that clients see", seen.gaps.clone());
    println!(
        "datagrams: {} of {sent} lost; descriptors {:?}; KiB {:?}",
        sent - back,
        seen.descriptors,
        seen.memory
    );
    // A busy machine overflows the buffers of sockets, here and at the target, with a hand-over and without.
    let overflowed = self::overflowed() - overflowed;
    let lost = (sent - back).saturating_sub(overflowed);
    assert!(lost * 1000 <= sent, "{lost} of {sent} datagrams lost, and {overflowed} in full buffers");
    seen.is_flat();
}

/// Many quiet sessions.
fn quiet(at: SocketAddr, count: usize) -> Vec<Client> {
    let clients = (0..count).map(|_| {
        let mut client = Client::to(at);
        client.ping();
        client
    });
    clients.collect()
}

#[test]
fn what_travels_while_sessions_stand_still_does_not_grow_with_their_number() {
    // What comes before the sessions stand still, and what comes while they do.
    let before = ["hello", "ready", "listen", "staged", "state"];
    let meanwhile = ["state", "snapshot", "receipt", "go", "serving", "moved", "released"];
    with_tools(&["python3"], || {
        for count in [1, 300] {
            let echo = TcpTarget::echo();
            let at = own_addr(8080);
            let more = "max_sessions_per_client = \"unlimited\"";
            let mut daemon = Portway::with(&mapping(at, echo.addr, more)).installed().start();
            let mut clients = quiet(at, count);
            let notes = daemon.dir().join("notes");
            let between = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/handover/between.py");
            let words = format!("exec python3 {between} - note {}", notes.display());
            daemon.install_script(&format!("{words} \"$PORTWAY\" \"$@\""));
            daemon.signal(Signal::USR2);
            daemon.wait_log(messages::HANDED_OVER, |line| line.number("sessions") == count as u64);
            clients.iter_mut().for_each(Client::ping);
            // The last message comes after that line.
            let text = eventually("the last message is noted", || {
                let text = std::fs::read_to_string(&notes).expect("what was noted");
                text.contains("\nreleased 0\n").then_some(text)
            });
            let noted = text.lines().map(|line| line.split_once(' ').expect("a name and a number"));
            let (parts, noted): (Vec<_>, Vec<_>) =
                noted.filter(|(name, _)| *name != "sockets").partition(|(name, _)| *name == "part");
            assert!(parts.len() <= 8 && (count == 1) == parts.is_empty(), "{text}");
            let names: Vec<_> = noted.iter().map(|(name, _)| *name).collect();
            let (first, then) = names.split_at(before.len());
            assert_eq!((first, then), (&before[..], &meanwhile[..]), "{text}");
            // What is known goes twice: ahead, and while all stand still.
            let (_, rest) = text.split_once("\nstate ").expect("what is known");
            let still = rest.split_once("\npart ").or_else(|| rest.split_once("\nstate "));
            let (ahead, late) = still.expect("what is known, again");
            assert!(!late.contains("sockets"), "each socket went ahead: {text}");
            let sockets = ahead.lines().filter_map(|line| line.strip_prefix("sockets "));
            let sockets: usize = sockets.map(|count| count.parse::<usize>().expect("a number")).sum();
            assert_eq!(sockets, 2 * count, "{text}");
        }
    });
}

#[test]
fn a_thousand_sessions_go_along_and_their_pause_is_printed() {
    let echo = TcpTarget::echo();
    let at = own_addr(8080);
    let more = "max_sessions_per_client = \"unlimited\"";
    let mut daemon = Portway::with(&mapping(at, echo.addr, more)).installed().start();
    let (stop, longest) = (Stop::default(), Arc::new(Longest::default()));
    let waiting: Mutex<Vec<Client>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let clients = quiet(at, 245);
                waiting.lock().expect("no thread panics here").extend(clients);
            });
        }
    });
    let pings: Vec<_> = (0..20).map(|_| trickle(at, Duration::from_millis(1), &stop, &longest)).collect();
    let (mut pauses, mut gaps) = (Vec::new(), Vec::new());
    for _ in 0..upgrades() {
        longest.take_ms();
        let report = hand_over(&mut daemon);
        assert_eq!(report["sessions"], 1000, "{report}");
        pass(Duration::from_millis(100));
        gaps.push(longest.take_ms());
        pauses.push(daemon.last_pause());
    }
    stop.store(true, SeqCst);
    pings.into_iter().for_each(|ping| ping.join().expect("each byte is right"));
    waiting.lock().expect("no thread panics here").iter_mut().for_each(Client::ping);
    printed("pause of 1000 sessions", pauses);
    printed("gap that clients see", gaps);
}
