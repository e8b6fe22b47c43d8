//! Targets that see the client's own address: three machines in networks of their own, with a real web server.
//!
//! The machine of portway is this network. The client and the target are neighbours in networks of theirs, which go
//! away with the process that holds each. The target's default route leads through portway's machine.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::{Command, Stdio},
};

use crate::harness::{
    DEADLINE, Neighbour, Portway, Program, Ran, as_root, eventually, in_own_network, messages,
};

const CLIENT: (&str, &str) = ("10.91.1.2", "fd91:1::2");
const TARGET: (&str, &str) = ("10.91.2.2", "fd91:2::2");
/// The address of portway's machine toward the client.
const DOOR: (&str, &str) = ("10.91.1.1", "fd91:1::1");
const HERE: (&str, &str) = ("10.91.2.1", "fd91:2::1");

/// What portway says to run, for the replies.
const ROUTING: [&str; 7] = [
    "ip rule add fwmark 1 lookup 100",
    "ip route add local default dev lo table 100",
    "ip -6 rule add fwmark 1 lookup 100",
    "ip -6 route add local default dev lo table 100",
    "nft add table inet portway",
    "nft add chain inet portway prerouting '{ type filter hook prerouting priority mangle; }'",
    "nft add rule inet portway prerouting meta l4proto '{ tcp, udp }' socket transparent 1 meta mark set 1 accept",
];

/// Has every datagram to `at` answered with the address that it came from.
fn answer_with_the_sender(target: &Neighbour, at: SocketAddr) {
    let socket = target.inside(|| UdpSocket::bind(at).expect("the target's own address"));
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(from.to_string().as_bytes(), from);
        }
    });
}

fn both(ips: (&'static str, &'static str)) -> [IpAddr; 2] {
    [ips.0, ips.1].map(|ip| ip.parse().expect("an address"))
}

/// What brings the replies back from a target on portway's own machine, besides.
const ROUTING_HERE: [&str; 3] = [
    "nft add chain inet portway output '{ type route hook output priority mangle; }'",
    "nft add rule inet portway output socket transparent 1 ct mark set 1",
    "nft add rule inet portway output ct direction reply ct mark 1 meta mark set 1",
];

/// A web server that answers each request with the address that it came from, and notes it.
struct Web {
    dir: tempfile::TempDir,
    _nginx: Program,
}

impl Web {
    fn start(on: Option<&Neighbour>, config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().display();
        let config = format!(
            "daemon off; master_process off; user root; pid {root}/pid; error_log stderr; events {{}}
             http {{ log_format plain '$remote_addr $remote_port'; access_log {root}/log plain;
                     client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
                     uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                     server {{ {config} return 200 '$remote_addr $remote_port'; }} }}"
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).expect("the test's own directory");
        let file = file.to_str().expect("a readable path");
        let nginx = match on {
            Some(on) => on.start(&format!("nginx -c {file}")),
            None => Program::start("nginx", &["-c", file]),
        };
        Self { dir, _nginx: nginx }
    }

    /// The last line of its log.
    fn noted(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }
}

/// What the web server behind `url` says, and the client's own port.
fn visit(client: &Neighbour, url: &str) -> (String, String) {
    let got = client.run(&format!(
        "curl --silent --show-error --fail --max-time 20 --noproxy * --write-out |%{{local_port}} {url}"
    ));
    let (said, port) = got.rsplit_once('|').expect("the port comes last");
    (said.to_owned(), port.to_owned())
}

fn run_routing() {
    run_all(&ROUTING);
}

fn run_all(commands: &[&str]) {
    for command in commands {
        // As a person pastes them: through a shell.
        Ran::of(Command::new("sh").args(["-c", command]).stdin(Stdio::null())).exits(0);
    }
}

fn config(protocol: &str) -> String {
    let mapping = |(door, target): (IpAddr, IpAddr)| {
        let (door, target) = (SocketAddr::new(door, 8080), SocketAddr::new(target, 80));
        format!("[[mapping]]\npublish = \"{door}:{target}/{protocol}\"\ntransparent = true\n")
    };
    both(DOOR).into_iter().zip(both(TARGET)).map(mapping).collect()
}

#[test]
fn a_real_web_server_sees_the_address_and_the_port_of_the_client() {
    in_own_network(&["nginx", "curl", "nft", "nsenter"], || {
        let client = Neighbour::join("client", DOOR, CLIENT);
        let target = Neighbour::join("target", HERE, TARGET);
        run_routing();
        let web = Web::start(Some(&target), "listen 10.91.2.2:80; listen [fd91:2::2]:80;");
        for ip in both(TARGET) {
            eventually("nginx listens", || TcpStream::connect((ip, 80)).ok());
        }
        let portway = Portway::with(&config("tcp")).start();
        for (door, own) in both(DOOR).into_iter().zip(both(CLIENT)) {
            let url = format!("http://{}/", SocketAddr::new(door, 8080));
            for _ in 0..3 {
                let (said, port) = visit(&client, &url);
                assert_eq!(said, format!("{own} {port}"), "{}", portway.log());
                eventually("nginx has noted it", || (web.noted() == said).then_some(()));
            }
        }
        assert_eq!(portway.count(messages::NO_ROUTING_FOR_TRANSPARENT), 0, "{}", portway.log());
        portway.stop().with(0);
    });
}

#[test]
fn a_udp_target_sees_the_address_and_the_port_of_the_client_and_its_answers_come_back() {
    in_own_network(&["nft", "nsenter"], || {
        let client = Neighbour::join("client", DOOR, CLIENT);
        let target = Neighbour::join("target", HERE, TARGET);
        run_routing();
        both(TARGET).into_iter().for_each(|ip| answer_with_the_sender(&target, SocketAddr::new(ip, 80)));
        let portway = Portway::with(&config("udp")).start();
        for (door, own) in both(DOOR).into_iter().zip(both(CLIENT)) {
            let said = client.inside(|| {
                let socket = UdpSocket::bind(SocketAddr::new(own, 0)).expect("the client's own address");
                socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
                socket.connect(SocketAddr::new(door, 8080)).expect("a way to portway");
                let mut buffer = [0; 100];
                let mut ask = || {
                    socket.send(b"who am I").expect("the client sends");
                    let length = socket.recv(&mut buffer).expect("the answer comes");
                    String::from_utf8_lossy(&buffer[..length]).into_owned()
                };
                assert_eq!(ask(), ask());
                (ask(), socket.local_addr().expect("a bound socket").to_string())
            });
            assert_eq!(said.0, said.1, "{}", portway.log());
        }
        portway.stop().with(0);
    });
}

#[test]
fn a_port_that_is_taken_is_another_one_and_the_address_stays() {
    in_own_network(&["nginx", "curl", "nft", "nsenter"], || {
        let client = Neighbour::join("client", DOOR, CLIENT);
        let target = Neighbour::join("target", HERE, TARGET);
        run_routing();
        let _web = Web::start(Some(&target), "listen 10.91.2.2:80;");
        eventually("nginx listens", || TcpStream::connect((TARGET.0, 80)).ok());
        // Two doors to one target: the same client with the same port would be the same connection.
        let config = format!(
            "[[mapping]]\npublish = [\"{0}:8080:{1}:80\", \"{0}:8081:{1}:80\"]\ntransparent = true\n",
            DOOR.0, TARGET.0
        );
        let portway = Portway::with(&config).start();
        let ask = |port: u16| {
            let own = SocketAddr::new(CLIENT.0.parse().expect("an address"), 40_000);
            let door = SocketAddr::new(DOOR.0.parse().expect("an address"), port);
            client.inside(move || {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                    .expect("a socket");
                socket.set_reuse_address(true).expect("a socket");
                socket.bind(&own.into()).expect("the client's own address");
                socket.connect(&door.into()).expect("a way to portway");
                let mut stream = TcpStream::from(socket);
                stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("the client sends");
                let mut text = [0; 2000];
                let length = stream.read(&mut text).expect("the answer comes");
                let text = String::from_utf8_lossy(&text[..length]).into_owned();
                (stream, text.lines().last().unwrap_or_default().to_owned())
            })
        };
        let (first, said) = ask(8080);
        assert_eq!(said, "10.91.1.2 40000", "{}", portway.log());
        let (second, said) = ask(8081);
        assert!(said.starts_with("10.91.1.2 ") && said != "10.91.1.2 40000", "{said}");
        drop((first, second));
        portway.stop().with(0);
    });
}

#[test]
fn a_target_on_the_same_machine_sees_the_client_too_and_others_reach_it_as_before() {
    in_own_network(&["nginx", "curl", "nft", "nsenter"], || {
        let client = Neighbour::join("client", DOOR, CLIENT);
        run_routing();
        run_all(&ROUTING_HERE);
        let _web = Web::start(None, "listen 10.91.1.1:80; listen [fd91:1::1]:80; listen [::1]:80;");
        eventually("nginx listens", || TcpStream::connect((DOOR.0, 80)).ok());
        let ways = [
            ("10.91.1.1:8080", "10.91.1.1"),
            ("[fd91:1::1]:8080", "[fd91:1::1]"),
            ("[fd91:1::1]:8081", "[::1]"),
        ];
        let mapping = |(door, target): (&str, &str)| {
            format!("[[mapping]]\npublish = \"{door}:{target}:80\"\ntransparent = true\n")
        };
        let stranded = mapping(("10.91.1.1:8082", "127.0.0.1"));
        let config: String = ways.into_iter().map(mapping).chain([stranded]).collect();
        let mut portway = Portway::with(&config).start();
        for (door, _) in ways {
            let own = if door.starts_with('[') { CLIENT.1 } else { CLIENT.0 };
            let (said, port) = visit(&client, &format!("http://{door}/"));
            assert_eq!(said, format!("{own} {port}"), "{}", portway.log());
        }
        let (said, port) = visit(&client, "http://10.91.1.1:80/");
        assert_eq!(said, format!("{} {port}", CLIENT.0), "without portway");
        client.inside(|| drop(TcpStream::connect("10.91.1.1:8082").expect("portway listens")));
        portway.wait_log(messages::SESSION_ENDED, |line| {
            line.text("error").contains("a target on 127.0.0.1 cannot answer the address of another machine")
        });
        portway.stop().with(0);
    });
}

#[test]
fn without_routing_a_warning_has_the_commands() {
    in_own_network(&["nft"], || {
        let config = "[[mapping]]\npublish = \"127.0.0.1:8080:127.0.0.1:80\"\ntransparent = true\n";
        let mut portway = Portway::with(config).start();
        let line = portway.wait_log(messages::NO_ROUTING_FOR_TRANSPARENT, |_| true);
        assert_eq!(line.text("commands"), ROUTING.join("; "));
        portway.reload_with(&format!("{config}allow = [\"10.0.0.0/8\"]\n"));
        assert_eq!(
            portway.stop().with(0).lines(messages::NO_ROUTING_FOR_TRANSPARENT).len(),
            1,
            "it is said once"
        );
    });
}

#[test]
fn without_the_right_the_start_is_refused_with_the_cure() {
    as_root(&["setpriv"], || {
        let port = crate::harness::free_port();
        let config =
            format!("[[mapping]]\npublish = \"127.0.0.1:{port}:127.0.0.1:80\"\ntransparent = true\n");
        let exit = Portway::with(&config).user(65534).launch().exit();
        exit.with(1).says("`transparent` needs the capability CAP_NET_ADMIN").says("--cap-add NET_ADMIN");
    });
}

#[test]
fn a_target_of_the_other_family_is_an_error_that_says_so() {
    in_own_network(&["nft"], || {
        let config = "[[mapping]]\npublish = \"127.0.0.1:8080:[::1]:80\"\ntransparent = true\n";
        let mut portway = Portway::with(config).start();
        drop(TcpStream::connect("127.0.0.1:8080").expect("portway listens"));
        let line = portway.wait_session();
        let said = "the client has an IPv4 address and the target has none";
        assert!(line.raw().contains(said), "{}", line.raw());
    });
}
