//! Knocks: who is let in, for how long, and what everyone else hears.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use serde_json::Value;

use crate::{
    handover::hand_over,
    harness::{
        Client, FakeRouter, Household, Portway, Ran, TcpTarget, UdpTarget, check, enters, eventually,
        mapping, messages, own_addr, own_ip, portway, udp_client_from, udp_mapping, with_tools,
    },
};

/// The address that a program of this machine sends from to another loopback address.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Keys, a mapping that wants a knock, and where knocks go.
struct Home {
    keys: tempfile::TempDir,
    target: TcpTarget,
    at: SocketAddr,
    door: SocketAddr,
}

impl Home {
    fn new(names: &[&str]) -> Self {
        let keys = tempfile::tempdir().expect("a temporary directory");
        let home = Self { keys, target: TcpTarget::echo(), at: own_addr(8080), door: own_addr(62201) };
        names.iter().for_each(|name| drop(home.key(name).exits(0)));
        home
    }

    /// Makes a key.
    fn key(&self, name: &str) -> Ran {
        portway(["key".as_ref(), "new".as_ref(), name.as_ref(), "-o".as_ref(), self.keys.path().as_os_str()])
    }

    fn config(&self, names: &[&str], more: &str) -> String {
        let dir = self.keys.path().display();
        let keys =
            names.iter().map(|name| format!("{{ name = \"{name}\", key_file = \"{dir}/{name}.pub\" }}"));
        let keys = keys.collect::<Vec<_>>().join(", ");
        mapping(self.at, self.target.addr, "name = \"web\"\nknock = true")
            + &format!(
                "[knock]\nlisten = \"{}\"\nkeys = [{keys}]\nstate = \"{dir}/knocks.json\"\n{more}\n",
                self.door
            )
    }

    fn knock_at(&self, name: &str, to: SocketAddr, more: &[&str]) -> Ran {
        let key = self.keys.path().join(format!("{name}.key"));
        let (to, key) = (to.to_string(), key.to_str().expect("a readable path").to_owned());
        portway(["knock", &to, "--key", &key].into_iter().chain(more.iter().copied()))
    }

    /// Knocks, as a person does.
    fn knock(&self, name: &str) {
        self.knock_at(name, self.door, &[]).exits(0).says("knocked at");
    }

    /// The datagram that `portway knock` sends.
    fn datagram(&self, name: &str, more: &[&str]) -> Vec<u8> {
        let catcher = UdpSocket::bind((HERE, 0)).expect("a socket");
        self.knock_at(name, catcher.local_addr().expect("it is bound"), more).exits(0);
        let mut buffer = [0; 512];
        catcher.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
        let (len, _) = catcher.recv_from(&mut buffer).expect("the knock");
        buffer[..len].to_vec()
    }

    /// Sends a datagram from an address of this machine, and gives the socket.
    fn send(&self, from: IpAddr, datagram: &[u8]) -> UdpSocket {
        let socket = udp_client_from(from, self.door);
        socket.send(datagram).expect("it is sent");
        socket
    }

    fn is_open(&self, ip: IpAddr) -> bool {
        grants(&self.at, ip)
    }
}

/// Whether a client enters; one that does not is given a moment only.
fn grants(at: &SocketAddr, ip: IpAddr) -> bool {
    let Ok(client) = Client::try_from_ip(ip, *at) else { return false };
    let mut stream = client.0;
    let short = Some(Duration::from_millis(500));
    stream.set_read_timeout(short).expect("a socket option");
    stream.write_all(b"x").is_ok() && stream.read(&mut [0; 1]).is_ok_and(|len| len == 1)
}

/// The clients that are let in.
fn let_in(portway: &Portway) -> Vec<String> {
    let status = portway.api().get("/v1/status").is(200).json();
    let grants = status["grants"].as_array().cloned().unwrap_or_default();
    grants.iter().map(|grant| format!("{} {}", text(&grant["client"]), text(&grant["key"]))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn wait_let_in(portway: &Portway, clients: &[String]) {
    eventually("these clients are let in", || (let_in(portway) == clients).then_some(()));
}

#[test]
fn a_knock_lets_its_client_in_and_to_all_others_the_mapping_is_silent() {
    let home = Home::new(&["anna"]);
    let mut portway = Portway::with(&home.config(&["anna"], "")).start();
    assert!(!home.is_open(HERE), "before the knock");
    home.knock("anna");
    portway.wait_text("knock accepted");
    assert!(home.is_open(HERE) && !home.is_open(own_ip()), "after it");
    portway.ctl(["status", "web"]).exits(0).says("let in by a knock: 127.0.0.1 with the key anna");
    portway.ctl(["events"]).exits(0).says("knock-accepted");
    let web = portway.api().get("/v1/mappings/web").is(200).json();
    assert_eq!((&web["grants"][0]["key"], &web["policy"]["knock"]), (&"anna".into(), &true.into()), "{web}");
    assert!(web["refused"]["no-knock"].as_u64() >= Some(2), "{web}");
    let metrics = portway.api().get("/metrics").is(200).body;
    assert!(metrics.contains("portway_knocks_total{reason=\"accepted\"} 1"), "{metrics}");
}

#[test]
fn an_operator_ends_a_grant_its_sessions_go_on_and_a_new_knock_opens_again() {
    let home = Home::new(&["anna"]);
    let mut portway = Portway::with(&home.config(&["anna"], "")).start();
    let api = portway.api();
    api.call("DELETE", &format!("/v1/grants?client={HERE}")).is(404);
    home.knock("anna");
    wait_let_in(&portway, &[format!("{HERE} anna")]);
    let mut client = Client::to(home.at);
    client.ping();
    let grants = api.get("/v1/grants").is(200).json();
    assert_eq!(grants["grants"][0]["client"], HERE.to_string(), "{grants}");
    api.call("DELETE", "/v1/grants").is(400);
    api.call("DELETE", "/v1/grants?client=10.0.0.0/8").is(400);
    portway.ctl(["revoke", "127.0.0.1"]).exits(0).says("has to knock again").says("portway close --client");
    wait_let_in(&portway, &[]);
    assert!(!home.is_open(HERE), "after the end of the grant");
    client.ping();
    portway.wait_text("grant ended by an operator");
    portway.ctl(["events"]).exits(0).says("knock-ended");
    portway.ctl(["revoke", "127.0.0.1"]).exits(1).says("not let in by a knock");
    home.knock("anna");
    wait_let_in(&portway, &[format!("{HERE} anna")]);
    assert!(home.is_open(HERE), "after another knock");
    // What was ended stays so over a restart: the file of the grants knows it.
    portway.ctl(["revoke", "127.0.0.1"]).exits(0);
    drop(client);
    let _ = portway.stop();
    let portway = Portway::with(&home.config(&["anna"], "")).start();
    assert_eq!(let_in(&portway), [""; 0]);
}

#[test]
fn a_silent_port_says_neither_a_byte_nor_an_end() {
    let home = Home::new(&["anna"]);
    let _portway = Portway::with(&home.config(&["anna"], "")).start();
    let mut stream = TcpStream::connect(home.at).expect("the system accepts");
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket option");
    let heard = stream.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(heard, Err(std::io::ErrorKind::WouldBlock), "neither a byte nor an end");
}

#[test]
fn false_knocks_get_no_answer_open_nothing_ban_no_one_and_are_one_line() {
    let home = Home::new(&["anna", "foe"]);
    let mut portway = Portway::with(&home.config(&["anna"], "[guard]\nrefusals = \"1/h\"\n")).start();
    let foe = own_ip();
    let unknown = home.datagram("foe", &["--address", &foe.to_string()]);
    let other = home.datagram("anna", &[]);
    let mut sockets = vec![home.send(foe, &unknown), home.send(foe, &other), home.send(foe, &[])];
    for n in 0..50_u16 {
        let mut junk = unknown.clone();
        junk[60] = n.to_be_bytes()[1];
        junk[61] ^= 0xff;
        sockets[0].send(&junk).expect("it is sent");
    }
    let counts = || portway.api().get("/metrics").is(200).body;
    eventually("all are counted", || {
        let metrics = counts();
        let has =
            |reason: &str, count| metrics.contains(&format!("knocks_total{{reason=\"{reason}\"}} {count}"));
        (has("unknown-key", 1) && has("other-address", 1) && has("malformed", 51)).then_some(())
    });
    assert!(!home.is_open(foe) && !home.is_open(HERE));
    for socket in &mut sockets {
        socket.set_nonblocking(true).expect("a socket option");
        assert!(socket.recv(&mut [0; 1]).is_err(), "no answer");
    }
    assert_eq!(portway.api().get("/v1/bans").is(200).json()["bans"].as_array().map(Vec::len), Some(0));
    portway.wait_text("knocks refused");
    assert_eq!(portway.count("knocks refused"), 1, "{}", portway.log());
    home.knock("anna");
    portway.wait_text("knock accepted");
}

#[test]
fn a_replay_opens_nothing_also_after_a_restart_and_grants_go_on() {
    let home = Home::new(&["anna"]);
    let config = home.config(&["anna"], "");
    let portway = Portway::with(&config).start();
    let (there, thief) = (own_ip(), own_ip());
    let datagram = home.datagram("anna", &["--address", &there.to_string()]);
    home.send(there, &datagram);
    wait_let_in(&portway, &[format!("{there} anna")]);
    home.send(thief, &datagram);
    portway.stop().with(0);
    let portway = Portway::with(&config).start();
    wait_let_in(&portway, &[format!("{there} anna")]);
    home.send(thief, &datagram);
    home.send(there, &datagram);
    eventually("the replays are counted", || {
        let metrics = portway.api().get("/metrics").is(200).body;
        metrics.contains("reason=\"replayed\"} 2").then_some(())
    });
    assert!(home.is_open(there) && !home.is_open(thief));
}

#[test]
fn a_session_goes_on_when_the_time_of_its_client_is_over_and_a_new_one_does_not_begin() {
    let home = Home::new(&["anna"]);
    let mut portway = Portway::with(&home.config(&["anna"], "open_for = \"3s\"")).start();
    home.knock("anna");
    portway.wait_text("knock accepted");
    let mut client = Client::from(HERE, home.at);
    client.ping();
    wait_let_in(&portway, &[]);
    assert!(!home.is_open(HERE));
    client.ping();
    portway.ctl(["events", "--recent"]).exits(0).says("knock-ended");
}

#[test]
fn a_reload_keeps_grants_but_for_those_of_keys_that_it_removes() {
    let home = Home::new(&["anna", "bob"]);
    let mut portway = Portway::with(&home.config(&["anna", "bob"], "")).start();
    let (anna, bob) = (own_ip(), own_ip());
    for (name, ip) in [("anna", anna), ("bob", bob)] {
        home.send(ip, &home.datagram(name, &["--address", &ip.to_string()]));
    }
    let both = eventually("both are let in", || {
        let both = let_in(&portway);
        (both.len() == 2).then_some(both)
    });
    portway.reload_with(&home.config(&["anna", "bob"], "open_for = \"1h\""));
    assert_eq!(let_in(&portway), both);
    portway.reload_with(&home.config(&["bob"], ""));
    assert_eq!(let_in(&portway), [format!("{bob} bob")]);
    assert!(enters(bob, home.at) && !home.is_open(anna));
}

#[test]
fn a_hand_over_takes_grants_and_taken_knocks_along() {
    let home = Home::new(&["anna"]);
    // Without a file: only the hand-over can bring them.
    let config = home.config(&["anna"], "").replace("knocks.json", "no/such/dir/knocks.json");
    let mut portway = Portway::with(&config).installed().start();
    let (there, thief) = (own_ip(), own_ip());
    let datagram = home.datagram("anna", &["--address", &there.to_string()]);
    home.send(there, &datagram);
    wait_let_in(&portway, &[format!("{there} anna")]);
    hand_over(&mut portway);
    assert_eq!(let_in(&portway), [format!("{there} anna")]);
    home.send(thief, &datagram);
    eventually("the replay is counted", || {
        let metrics = portway.api().get("/metrics").is(200).body;
        metrics.contains("reason=\"replayed\"} 1").then_some(())
    });
    assert!(home.is_open(there) && !home.is_open(thief));
}

#[test]
fn the_sequence_opens_in_its_order_over_tcp_and_udp_and_a_udp_mapping_too() {
    let (target, steps) = (UdpTarget::echo(), [own_addr(7000), own_addr(8000), own_addr(9000)]);
    let (at, [one, two, three]) = (own_addr(8080), steps);
    let config = udp_mapping(at, target.addr, "name = \"game\"\nknock = true")
        + &format!("[knock]\nsequence = [\"{one}\", \"{two}/udp\", \"{three}\"]\n");
    let mut portway = Portway::with(&config).start();
    let client = own_ip();
    let touch = |at| drop(Client::try_from_ip(client, at));
    let say = || udp_client_from(client, two).send(b"").expect("it is sent");
    touch(three);
    touch(one);
    touch(three);
    assert_eq!(let_in(&portway), [""; 0], "a wrong order");
    // Each port has a task of its own, and the daemon may see two touches in another order.
    eventually("the sequence is done", || {
        touch(one);
        say();
        touch(three);
        (let_in(&portway) == [format!("{client} (sequence)")]).then_some(())
    });
    portway.wait_text("knock accepted");
    let socket = udp_client_from(client, at);
    socket.send(b"hello").expect("it is sent");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
    assert_eq!(socket.recv(&mut [0; 16]).expect("the echo"), 5);
    check(&config, &[]).exits(0).says("repeat");
}

#[test]
fn the_router_is_open_only_while_a_client_is_let_in() {
    with_tools(&FakeRouter::TOOLS, || {
        let house = Household::fake("good");
        let home = Home::new(&["anna"]);
        let dir = home.keys.path().display();
        let knock = format!(
            "[knock]\nlisten = \"{}\"\nopen_for = \"3s\"\nkeys = [{{ name = \"anna\", key_file = \"{dir}/anna.pub\" }}]\n",
            home.door
        );
        let mut portway =
            house.start(&(house.web("true").replace("[[mapping]]", "[[mapping]]\nknock = true") + &knock));
        portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.raw().contains("62201"));
        assert_eq!(
            portway.count(messages::OPEN_ON_THE_ROUTER),
            1,
            "the port of knocks alone: {}",
            portway.log()
        );
        home.knock("anna");
        portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| !line.raw().contains("62201"));
        portway.wait_text("closed on the router");
    });
}

#[test]
fn the_section_of_the_readme_works_as_it_is_pasted() {
    let readme = include_str!("../../README.md");
    let section = readme.split("### Knocking\n").nth(1).expect("the section").split("\n## ").next();
    let section = section.expect("a section");
    let block = |language: &str| {
        let start = section.split(&format!("```{language}\n")).nth(1).expect("a block");
        start.split("```").next().expect("its end").to_owned()
    };
    let home = Home::new(&[]);
    let dir = home.keys.path().display().to_string();
    let pasted = |text: &str, own: &str, other: &str| {
        assert!(text.contains(own), "the README has {own}: {text}");
        text.replace(own, other)
    };
    let mut portway = Portway::with(&mapping(home.at, home.target.addr, "name = \"rdp\"")).start();
    assert!(home.is_open(HERE), "before the lines are added");
    let mut config =
        pasted(&block("toml"), "3389:10.0.0.7:3389", &format!("{}:{}", home.at, home.target.addr));
    // A test asks no router of this network.
    for (own, other) in [
        ("router = true", "router = false"),
        ("62201", &home.door.to_string()),
        ("/etc/portway/keys", &dir),
        ("/var/lib/portway", &dir),
    ] {
        config = pasted(&config, own, other);
    }
    let lines = block("sh");
    let commands = lines.lines().map(|line| line.trim_start_matches("sudo "));
    let commands: Vec<&str> = commands.filter(|line| line.starts_with("portway ")).collect();
    let [key, reload, knock] = commands[..] else { panic!("{commands:?}") };
    let words = |command: &str| command.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    self::portway(words(&pasted(key, "/etc/portway/keys", &dir))).exits(0).says("[knock]");
    portway.write_config(&config);
    assert_eq!(reload, "portway reload");
    portway.ctl(["reload"]).exits(0);
    assert!(!home.is_open(HERE), "before the knock");
    let knock = pasted(knock, "home.example.org", &home.door.to_string());
    self::portway(words(&pasted(&knock, "anna.key", &format!("{dir}/anna.key")))).exits(0);
    portway.wait_text("knock accepted");
    assert!(home.is_open(HERE), "after the knock");
    let shown = portway.ctl(["status", "rdp"]).exits(0);
    assert!(shown.out.contains("let in by a knock"), "{shown}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}

#[test]
fn a_key_is_for_its_owner_alone_and_never_written_over() {
    let home = Home::new(&[]);
    let dir = home.keys.path();
    home.key("anna")
        .exits(0)
        .says("portway-knock:anna:")
        .says("key_file = ")
        .says("portway knock HOST --key anna.key");
    let files = ["anna.key", "anna.pub", "server.key"].map(|name| dir.join(name));
    assert_eq!(files.each_ref().map(|file| mode(file)), [0o600, 0o644, 0o600]);
    let before = files.each_ref().map(|file| fs::read(file).expect("it is there"));
    home.key("anna").exits(1).says("is there already").says("nothing was written over");
    home.key("bob").exits(0).never_says("made the server");
    assert_eq!(files.each_ref().map(|file| fs::read(file).expect("it is there")), before);
    for name in ["", "../x", "server", "a b"] {
        home.key(name).exits(1).says("cannot be named");
    }
    let ran = portway(["key", "new", "qr", "--qr", "-o", dir.to_str().expect("a readable path")]).exits(0);
    assert!(ran.out.contains('▀') && ran.out.lines().all(|line| line.chars().count() < 170), "{ran}");
    let public = fs::read_to_string(&files[1]).expect("it is there");
    assert!(
        !before[0].windows(20).any(|part| public.as_bytes()[24..].windows(20).any(|other| part == other))
    );
}

#[test]
fn a_configuration_that_could_let_no_one_in_or_would_answer_is_refused() {
    let home = Home::new(&["anna"]);
    let web = |more: &str| format!("[[mapping]]\npublish = \"8080:80\"\nknock = true\n{more}\n");
    check(&web(""), &[]).exits(78).says("without [knock]").says("portway key new");
    let good = home.config(&["anna"], "");
    check(&good, &[]).exits(0).says("knocks").says("1 port of knocks");
    check(&good.replace("knock = true", "knock = true\nrefuse = \"reset\""), &[])
        .exits(78)
        .says("would show the port");
    check(&good.replace("anna.pub", "anna.key"), &[])
        .exits(78)
        .says("NAME.pub")
        .never_says("portway-knock:anna");
    check(&good.replace("anna.pub", "gone.pub"), &[]).exits(78).says("gone.pub");
    check(&good.replace("knock = true", ""), &[]).exits(0).says("without a mapping that wants a knock");
    check(&good.replace("open_for", "opne_for"), &[]).exits(0);
    check(&(good.clone() + "opne_for = \"1h\"\n"), &[]).exits(78).says("open_for");
    check(&web("[knock]\n"), &[]).exits(78).says("without `keys`");
    fs::remove_file(home.keys.path().join("server.key")).expect("the test's own file");
    check(&good, &[]).exits(78).says("server.key");
    let json = check(&home.config(&[], "sequence = [\"7000\", \"6000/udp\"]"), &["--json"]).exits(0);
    let json: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json["knock"]["sequence"], serde_json::json!(["7000/tcp", "6000/udp"]), "{json}");
}
