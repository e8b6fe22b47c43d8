//! Several targets of one mapping: which one a session goes to, and what follows when one is down.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::harness::{
    Client, Portway, Program, TcpTarget, UdpTarget, eventually, in_own_network, messages, own_addr, run,
    udp_client,
};

/// A target that says its letter to each client, and sends back what it gets.
struct Lettered {
    target: Option<TcpTarget>,
    addr: SocketAddr,
    letter: u8,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Lettered {
    fn new(letter: u8) -> Self {
        Self::at(own_addr(0), letter)
    }

    fn at(addr: SocketAddr, letter: u8) -> Self {
        let streams = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&streams);
        let target = TcpTarget::serve_at(addr, move |mut stream| {
            if let Ok(clone) = stream.try_clone() {
                kept.lock().expect("no thread panics here").push(clone);
            }
            let mut buffer = [0; 1024];
            if stream.write_all(&[letter]).is_err() {
                return;
            }
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..len]).is_err() {
                    break;
                }
            }
            // The other handle would keep it open.
            let _ = stream.shutdown(Shutdown::Both);
        });
        Self { addr: target.addr, target: Some(target), letter, streams }
    }

    /// Takes it away as the death of its process would: nothing listens, and its sessions end.
    fn kill(&mut self) {
        self.target = None;
        for stream in self.streams.lock().expect("no thread panics here").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn is_back(&mut self) {
        *self = Self::at(self.addr, self.letter);
    }
}

fn lettered<const N: usize>(letters: &[u8; N]) -> [Lettered; N] {
    letters.map(Lettered::new)
}

fn config(at: SocketAddr, targets: &[&Lettered], more: &str) -> String {
    let targets: Vec<_> = targets.iter().map(|target| target.addr.to_string()).collect();
    format!("[[mapping]]\nname = \"web\"\nlisten = [\"{at}\"]\ntargets = {targets:?}\n{more}\n")
}

/// The client's session, and the letter of its target.
#[track_caller]
fn enter(at: SocketAddr) -> (Client, char) {
    let mut client = Client::to(at);
    let letter = char::from(client.hear(1)[0]);
    (client, letter)
}

/// The letters of so many sessions, one after the other, with how many there are of each.
#[track_caller]
fn letters(at: SocketAddr, sessions: usize) -> BTreeMap<char, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..sessions {
        *counts.entry(enter(at).1).or_default() += 1;
    }
    counts
}

fn states(portway: &Portway) -> BTreeMap<String, String> {
    let mapping = portway.api().get("/v1/mappings/web").json();
    let targets = mapping["targets"].as_array().expect("a list").iter();
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    targets.map(|target| (text(&target["address"]), text(&target["state"]))).collect()
}

#[test]
fn sessions_are_spread_as_the_weights_say() {
    let (at, targets) = (own_addr(8080), lettered(b"abcd"));
    let [a, b, c, d] = targets.each_ref().map(|target| target.addr);
    let config = format!(
        "[[mapping]]\nname = \"web\"\nlisten = [\"{at}\"]\n\
         targets = [{{ address = \"{a}\", weight = 4 }}, {{ address = \"{b}\", weight = 2 }}, \"{c}\", \"{d}\"]\n\
         max_sessions_per_client = \"unlimited\"\n"
    );
    let portway = Portway::with(&config).start();
    assert_eq!(letters(at, 800), BTreeMap::from([('a', 400), ('b', 200), ('c', 100), ('d', 100)]));
    let shown = portway.api().get("/v1/mappings/web").json();
    assert_eq!(
        (&shown["targets"][0]["weight"], &shown["targets"][2]["weight"]),
        (&4.into(), &serde_json::Value::Null)
    );
}

#[test]
fn a_target_that_is_killed_costs_only_its_own_sessions() {
    let (at, [a, mut b, c]) = (own_addr(8080), lettered(b"abc"));
    let mut portway = Portway::with(&config(at, &[&a, &b, &c], "")).start();
    let mut sessions: Vec<_> = (0..30).map(|_| enter(at)).collect();
    b.kill();
    for (client, letter) in &mut sessions {
        assert_eq!(client.still_echoes(), *letter != 'b', "of {letter}");
    }
    // Each dial that meets the dead one goes on to another. No client sees it.
    let after = letters(at, 60);
    assert_eq!(after.keys().collect::<Vec<_>>(), [&'a', &'c'], "{after:?}");
    portway.wait_log(messages::TARGET_DOWN, |line| line.text("target.addr") == b.addr.to_string());
    assert_eq!(states(&portway)[&b.addr.to_string()], "down");
    b.is_back();
    eventually("the target is used again", || letters(at, 3).contains_key(&'b').then_some(()));
    portway.wait_log(messages::TARGET_UP, |_| true);
    for (client, _) in sessions.iter_mut().filter(|(_, letter)| *letter != 'b') {
        assert!(client.still_echoes());
    }
}

#[test]
fn the_target_with_the_fewest_sessions_is_next() {
    let (at, [a, b]) = (own_addr(8080), lettered(b"ab"));
    let portway = Portway::with(&config(at, &[&a, &b], "balance = \"least-sessions\"")).start();
    let mut sessions: Vec<_> = (0..10).map(|_| enter(at)).collect();
    let count = |sessions: &[(Client, char)], of| sessions.iter().filter(|(_, letter)| *letter == of).count();
    assert_eq!((count(&sessions, 'a'), count(&sessions, 'b')), (5, 5));
    sessions.retain(|(_, letter)| *letter == 'a');
    let api = portway.api();
    eventually("the sessions of one have ended", || {
        let shown = api.get("/v1/mappings/web").json();
        (shown["targets"][1]["sessions"] == 0).then_some(())
    });
    assert_eq!(
        (0..5)
            .map(|_| enter(at))
            .map(|(client, letter)| {
                sessions.push((client, letter));
                letter
            })
            .collect::<String>(),
        "bbbbb"
    );
}

#[test]
fn a_client_keeps_its_target_and_one_that_is_paused_moves_only_its_own_clients() {
    let (at, [a, b, c]) = (own_addr(8080), lettered(b"abc"));
    let portway = Portway::with(&config(at, &[&a, &b, &c], "balance = \"client-hash\"")).start();
    let whole = || -> Vec<char> {
        let from = |n| IpAddr::from(Ipv4Addr::new(127, 0, 77, n));
        let enter = |n| char::from(Client::from(from(n), at).hear(1)[0]);
        (1..=90).map(enter).collect()
    };
    let before = whole();
    assert_eq!(whole(), before);
    for letter in ['a', 'b', 'c'] {
        assert!(before.iter().filter(|l| **l == letter).count() >= 12, "{before:?}");
    }
    let of_b = format!("{}@web", b.addr);
    portway.ctl(["pause", &of_b]).exits(0).says("paused");
    for (was, now) in before.iter().zip(whole()) {
        assert!(if *was == 'b' { now != 'b' } else { now == *was }, "{was} became {now}");
    }
    portway.ctl(["resume", &of_b]).exits(0);
    assert_eq!(whole(), before);
}

#[test]
fn a_paused_target_keeps_its_sessions_and_takes_no_new_ones_also_after_a_reload() {
    let (at, [a, b]) = (own_addr(8080), lettered(b"ab"));
    let text = config(at, &[&a, &b], "");
    let mut portway = Portway::with(&text).start();
    let mut sessions: Vec<_> = (0..4).map(|_| enter(at)).collect();
    let (of_a, of_b) = (format!("{}@web", a.addr), format!("{}@web", b.addr));
    portway.ctl(["pause", &of_a]).exits(0);
    assert_eq!(letters(at, 6), BTreeMap::from([('b', 6)]));
    assert_eq!(states(&portway)[&a.addr.to_string()], "paused");
    portway.ctl(["status", "web"]).exits(0).says("paused");
    portway.reload_with(&format!("{text}idle_timeout = \"1h\"\n"));
    assert_eq!(letters(at, 6), BTreeMap::from([('b', 6)]));
    portway.ctl(["pause", &of_b]).exits(0);
    Client::to(at).until_closed();
    portway.wait_log(messages::SESSION_ENDED, |line| {
        line.text("reason") == "unreachable" && line.text("error").contains("every target is paused")
    });
    for target in [&of_a, &of_b] {
        portway.ctl(["resume", target]).exits(0);
    }
    assert_eq!(letters(at, 6).len(), 2);
    assert!(sessions.iter_mut().all(|(client, _)| client.still_echoes()));
    portway.ctl(["pause", "10.9.9.9:1@web"]).exits(1).says("no target");
}

#[test]
fn a_backup_serves_only_while_no_other_target_works() {
    let (at, [mut a, b]) = (own_addr(8080), lettered(b"ab"));
    let config = format!(
        "[[mapping]]\nname = \"web\"\nlisten = [\"{at}\"]\n\
         targets = [\"{}\", {{ address = \"{}\", backup = true }}]\n",
        a.addr, b.addr
    );
    let mut portway = Portway::with(&config).start();
    assert_eq!(letters(at, 10), BTreeMap::from([('a', 10)]));
    a.kill();
    assert_eq!(letters(at, 10), BTreeMap::from([('b', 10)]));
    a.is_back();
    eventually("the first target serves again", || (enter(at).1 == 'a').then_some(()));
    portway.wait_log(messages::TARGET_UP, |_| true);
    assert_eq!(letters(at, 10), BTreeMap::from([('a', 10)]));
}

/// A target that answers `PING` with a word, which can change.
fn pongs(word: &Arc<AtomicU8>) -> TcpTarget {
    let word = Arc::clone(word);
    TcpTarget::serve(move |mut stream| {
        let mut buffer = [0; 64];
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            let answer: &[u8] = match &buffer[..len] {
                b"PING\r\n" if word.load(SeqCst) == 1 => b"+PONG\r\n",
                b"PING\r\n" => b"-LOADING\r\n",
                other => other,
            };
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    })
}

#[test]
fn probes_find_a_target_that_accepts_and_does_not_work_and_its_sessions_end() {
    let at = own_addr(8080);
    let words = [Arc::new(AtomicU8::new(1)), Arc::new(AtomicU8::new(1))];
    let targets = words.each_ref().map(pongs);
    let addrs = targets.each_ref().map(|target| target.addr.to_string());
    let config = format!(
        "[[mapping]]\nname = \"web\"\nlisten = [\"{at}\"]\ntargets = {addrs:?}\non_down = \"close\"\nbalance = \"first\"\n\
         health = {{ interval = \"1s\", timeout = \"500ms\", rise = 2, fall = 2, send = \"PING\\r\\n\", expect = \"PONG\" }}\n"
    );
    let mut portway = Portway::with(&config).start();
    let mut first = Client::to(at);
    first.ping();
    words[0].store(0, SeqCst);
    let down = portway.wait_log(messages::TARGET_DOWN, |_| true);
    assert_eq!((down.text("level"), down.text("target.addr")), ("WARN", &*addrs[0]));
    assert!(down.text("error").contains("probe"), "{}", down.raw());
    first.until_closed();
    assert_eq!(portway.wait_session().text("reason"), "target-error");
    let mut second = Client::to(at);
    second.ping();
    assert_eq!(
        states(&portway),
        BTreeMap::from([(addrs[0].clone(), "down".into()), (addrs[1].clone(), "up".into())])
    );
    words[0].store(1, SeqCst);
    let up = portway.wait_log(messages::TARGET_UP, |_| true);
    assert_eq!((up.text("level"), up.text("target.addr")), ("INFO", &*addrs[0]));
    assert!(second.still_echoes(), "the sessions of the other are not touched");
    assert_eq!((portway.count(messages::TARGET_DOWN), portway.count(messages::TARGET_UP)), (1, 1));
}

#[test]
fn a_probe_says_local_in_its_proxy_header() {
    let at = own_addr(8080);
    for (version, header) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")] {
        let (target, connections) = TcpTarget::manual();
        let config = format!(
            "[[mapping]]\nlisten = [\"{at}\"]\ntargets = [\"{}\"]\nsend_proxy = \"{version}\"\n\
             health = {{ interval = \"1s\", timeout = \"500ms\" }}\n",
            target.addr
        );
        let _portway = Portway::with(&config).start();
        let mut said = Vec::new();
        connections.next().read_to_end(&mut said).expect("the probe ends with a FIN");
        assert_eq!(said, header, "{version}");
    }
}

#[test]
fn probes_of_udp_find_a_silent_target_and_one_that_refuses() {
    let (at, dead) = (own_addr(5353), own_addr(9009));
    let (silent, target) = (UdpTarget::silent(), UdpTarget::echo());
    let targets = [silent.addr, dead, target.addr].map(|addr| addr.to_string());
    let config = format!(
        "[[mapping]]\nname = \"web\"\nlisten = [\"{at}\"]\ntargets = {targets:?}\nprotocol = \"udp\"\n\
         health = {{ interval = \"1s\", timeout = \"300ms\", fall = 2, send = \"?\", expect = \"?\" }}\n"
    );
    let mut portway = Portway::with(&config).start();
    for addr in [silent.addr, dead] {
        portway.wait_log(messages::TARGET_DOWN, |line| line.text("target.addr") == addr.to_string());
    }
    for _ in 0..12 {
        let client = udp_client(at);
        client.send(b"!").expect("the client sends");
        assert_eq!(client.recv(&mut [0; 9]).expect("an answer comes at once"), 1);
    }
    assert_eq!(states(&portway)[&target.addr.to_string()], "up");
}

#[test]
fn of_two_name_servers_the_one_that_answers_is_asked() {
    in_own_network(&["dnsmasq", "dig"], || {
        let start = |server: &str| Program::name_server(server, &["--address=/camera.lan/10.1.2.3"]);
        let (first, _second) = (start("127.0.0.2"), start("127.0.0.3"));
        let mut portway = Portway::with(
            "[[mapping]]\nlisten = [\"127.0.0.1:5353\"]\ntargets = [\"127.0.0.2:53\", \"127.0.0.3:53\"]\nprotocol = \"udp\"\n",
        )
        .start();
        let ask = |tries: u8| {
            run(&format!("dig @127.0.0.1 -p 5353 +short +time=1 +tries={tries} +notcp camera.lan")).out
        };
        eventually("both answer", || (0..4).all(|_| ask(3).trim() == "10.1.2.3").then_some(()));
        drop(first);
        // A question may be lost for what the first refusal tells; dig asks again.
        for _ in 0..10 {
            assert!(ask(3).trim().ends_with("10.1.2.3"), "{}", portway.log());
        }
        portway.wait_log(messages::TARGET_DOWN, |line| line.text("target.addr") == "127.0.0.2:53");
    });
}

#[test]
fn each_name_has_its_targets_shown_with_their_sessions() {
    let (at, [a, b]) = (own_addr(8080), lettered(b"ab"));
    let config = format!(
        "[[mapping]]\nname = \"web\"\nlisten = [\"{at}\"]\nmatch = \"http-host\"\n\
         hosts = {{ \"a.test\" = \"{}\", \"b.test\" = [\"{}\", \"{}\"] }}\n",
        a.addr, a.addr, b.addr
    );
    let portway = Portway::with(&config).start();
    let mut clients: Vec<Client> = Vec::new();
    for host in ["a.test", "a.test", "b.test", "b.test"] {
        let mut client = Client::to(at);
        client.say(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        client.hear(1);
        clients.push(client);
    }
    let shown = portway.api().get("/v1/mappings/web").json();
    let sessions: Vec<_> =
        shown["targets"].as_array().expect("a list").iter().map(|t| t["sessions"].as_u64()).collect();
    assert_eq!(sessions, [Some(3), Some(1)], "{shown}");
}

#[test]
fn at_its_default_a_failing_target_is_left_alone_for_a_second() {
    let (at, [mut a, b]) = (own_addr(8080), lettered(b"ab"));
    let mut portway = Portway::with(&config(at, &[&a, &b], "balance = \"first\"")).start();
    assert_eq!(letters(at, 3), BTreeMap::from([('a', 3)]));
    a.kill();
    assert_eq!(enter(at).1, 'b');
    a.is_back();
    let begun = std::time::SystemTime::now();
    eventually("the hold is over", || (enter(at).1 == 'a').then_some(()));
    let took = begun.elapsed().expect("the clock goes on");
    assert!(took > Duration::from_millis(500), "{took:?}");
    portway.wait_log(messages::TARGET_UP, |_| true);
}
