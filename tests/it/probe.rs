//! Proof from outside: another portway tries the ports of this one, and nothing else.
//!
//! A household behind a real router: `lan` is the machine of portway, `lan2` has the services, and `wan` is the internet,
//! where the other portway runs. Its addresses are public by their range.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{
    Api, HomeRouter as _, Portway, Program, Ran, Reply, RouterLab, TcpTarget, UdpTarget, in_router_lab,
    messages, portway_program,
};

const TOKEN: &str = "a-token-for-other-nodes";
/// Where the other portway is.
const NODE: Ipv4Addr = Ipv4Addr::new(11, 22, 33, 9);
const PORT: u16 = 7678;
/// The services on `lan2`.
const SERVICE: u16 = 7000;
const GREETING: &[u8] = b"SSH-2.0-lab\r\n";

/// The household, with the services and a file that holds the token.
struct Home<'l> {
    lab: &'l RouterLab,
    dir: tempfile::TempDir,
    tcp: Option<TcpTarget>,
    udp: Option<UdpTarget>,
}

impl Drop for Home<'_> {
    fn drop(&mut self) {
        // They wake their own threads, which can be reached from there alone.
        let services = (self.tcp.take(), self.udp.take());
        self.lab.inside("lan2", move || drop(services));
    }
}

impl<'l> Home<'l> {
    fn new(lab: &'l RouterLab) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("token"), TOKEN).expect("the test's own directory");
        let at = SocketAddr::from((RouterLab::LAN2, SERVICE));
        let greet = |mut stream: std::net::TcpStream| {
            let _ = stream.write_all(GREETING);
            let _ = stream.read_to_end(&mut Vec::new());
        };
        let tcp = lab.inside("lan2", || TcpTarget::serve_at(at, greet));
        let udp = lab.inside("lan2", || UdpTarget::echo_at(at));
        Self { lab, dir, tcp: Some(tcp), udp: Some(udp) }
    }

    /// Fails if the target of UDP saw a number. The doctor itself asks it with an empty datagram.
    #[track_caller]
    fn assert_no_target_saw_a_number(&self) {
        let got = self.udp.as_ref().map(UdpTarget::got).unwrap_or_default();
        assert!(got.iter().all(|(_, datagram)| datagram.is_empty()), "{got:?}");
    }

    fn token(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// `[probe]` with the token, and what else it says.
    fn probe(&self, more: &str) -> String {
        format!("[probe]\ntoken_file = \"{}\"\n{more}\n", self.token().display())
    }

    /// Another portway, which tries ports for others.
    fn node(&self, on: &str, listen: Ipv4Addr, probe: &str) -> Portway {
        let config = format!("[api]\nlisten = \"{listen}:{PORT}\"\n{probe}");
        self.lab.place(Portway::with(&config), on).start()
    }

    /// The portway of the household, with one mapping of each protocol. Both are open on the router.
    fn portway(&self, probe: &str) -> Portway {
        let (target, mut config) = (SocketAddr::from((RouterLab::LAN2, SERVICE)), probe.to_owned());
        for (name, port, protocol) in [("web", 9080, "tcp"), ("game", 9081, "udp")] {
            config += &format!(
                "[[mapping]]\nname = \"{name}\"\npublish = \"{port}:{target}/{protocol}\"\nrouter = true\n"
            );
        }
        let mut portway = self.lab.place(Portway::with(&config), "lan").start();
        for name in ["web", "game"] {
            portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == name);
        }
        portway
    }

    /// What the doctor says of a mapping, with these further arguments.
    fn doctor(&self, portway: &Portway, name: &str, more: &[&str]) -> Ran {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.lab.network("lan")]).arg(portway_program());
        command.args(["doctor", name, "--json", "--socket"]).arg(portway.socket()).args(more);
        Ran::of(command.stdin(Stdio::null()))
    }

    /// The row of the last hop.
    #[track_caller]
    fn internet(&self, portway: &Portway, name: &str, url: &str) -> Row {
        let token = self.token();
        let token = token.to_str().expect("a plain path");
        Row::of(&self.doctor(portway, name, &["--from", url, "--token-file", token]))
    }

    /// Runs a command of the shell on a machine.
    #[track_caller]
    fn sh(&self, on: &str, command: &str) {
        let mut shell = Command::new("ip");
        shell.args(["netns", "exec", &self.lab.network(on), "sh", "-ec", command]).stdin(Stdio::null());
        Ran::of(shell.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")).exits(0);
    }

    /// Asks the other portway, as a program on a machine.
    #[track_caller]
    fn ask(&self, on: &str, node: Ipv4Addr, token: Option<&str>, body: &Value) -> Reply {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        let api = Api::Tcp((node, PORT).into());
        self.lab.inside(on, || api.send("POST", "/v1/probe", &headers, Some(&body.to_string())))
    }
}

/// A row of the doctor.
#[derive(Debug)]
struct Row {
    verdict: String,
    evidence: String,
    cure: String,
    /// Which hops fail.
    failing: Vec<String>,
    code: Option<i32>,
}

impl Row {
    #[track_caller]
    fn of(ran: &Ran) -> Self {
        let json: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran}"));
        let hops = json["hops"].as_array().expect("a list");
        let text = |row: &Value, key: &str| row[key].as_str().expect("a text").to_owned();
        let last = hops.last().filter(|row| row["hop"] == "internet").expect("the last hop is the internet");
        let failing = hops.iter().filter(|row| row["verdict"] == "fail").map(|row| text(row, "hop"));
        Self {
            verdict: text(last, "verdict"),
            evidence: text(last, "evidence"),
            cure: text(last, "cure"),
            failing: failing.collect(),
            code: ran.code,
        }
    }

    #[track_caller]
    fn is(self, verdict: &str, evidence: &[&str]) -> Self {
        assert_eq!(self.verdict, verdict, "{self:#?}");
        assert!(evidence.iter().all(|words| self.evidence.contains(words)), "{evidence:?} in {self:#?}");
        assert_eq!(self.cure.is_empty(), verdict == "ok", "{self:#?}");
        self
    }
}

fn url() -> String {
    format!("http://{NODE}:{PORT}")
}

#[test]
fn a_port_that_is_reached_from_outside_is_proven_over_tcp_and_udp() {
    in_router_lab(&[], [("IPV6", "no")], |lab| {
        let home = Home::new(lab);
        let mut node = home.node("wan", NODE, &home.probe(""));
        let portway = home.portway("");
        let web = home.internet(&portway, "web", &url());
        let web = web.is("ok", &["11.22.33.1:9080/tcp connected from outside in ", "sent 13 bytes (ssh)"]);
        assert_eq!((web.failing.len(), web.code), (0, Some(0)), "{web:#?}");
        let game = home.internet(&portway, "game", &url());
        game.is("ok", &["11.22.33.1:9081/udp answered from outside in "]);
        home.assert_no_target_saw_a_number();
        // A datagram of the same form that is not expected is a client's.
        let forged = [&b"portway probe ?\n"[..], &[7; 16]].concat();
        let echoed = home.lab.inside("wan", || -> std::io::Result<Vec<u8>> {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(20)))?;
            socket.connect((RouterLab::WAN, 9081))?;
            socket.send(&forged)?;
            let mut answer = [0; 64];
            let count = socket.recv(&mut answer)?;
            Ok(answer[..count].to_vec())
        });
        assert_eq!(echoed.expect("an answer of the target"), forged);

        // At the socket of a node on the same machine, the doctor names the address itself.
        let socket = format!("unix:{}", node.socket().display());
        home.internet(&portway, "web", &socket).is("ok", &["11.22.33.1:9080/tcp connected"]);
        node.wait_ready();
    });
}

#[test]
fn a_port_that_is_not_reached_from_outside_fails_with_a_cure() {
    in_router_lab(&[], [("IPV6", "no")], |lab| {
        let home = Home::new(lab);
        let _node = home.node("wan", NODE, &home.probe(""));
        let portway = home.portway("");
        home.sh(
            "rtr",
            "nft add table inet isp; nft add chain inet isp in '{ type filter hook prerouting priority -300; }'; \
             nft add rule inet isp in iifname wan0 meta l4proto { tcp, udp } th dport 9080-9081 drop",
        );
        for (name, what) in [("web", "11.22.33.1:9080/tcp"), ("game", "11.22.33.1:9081/udp")] {
            let row = home.internet(&portway, name, &url());
            let row = row.is("fail", &[what, "does not answer from outside"]);
            assert_eq!((&*row.failing, row.code), (&["internet".to_owned()][..], Some(1)), "{row:#?}");
        }
        home.sh("rtr", "nft delete table inet isp");
        // The router leads the port to another machine, which answers in the place of this one.
        home.sh(
            "rtr",
            "nft insert rule inet filter prerouting iifname wan0 tcp dport 9080 dnat ip to 192.168.77.3:7000; \
             nft insert rule inet filter forward ip daddr 192.168.77.3 accept",
        );
        let row = home.internet(&portway, "web", &url());
        row.is("fail", &["takes connections from outside, and none of them came in here"]);
    });
}

#[test]
fn the_dashboard_has_the_configured_portway_try_a_mapping() {
    in_router_lab(&[], [("IPV6", "no")], |lab| {
        let home = Home::new(lab);
        let _node = home.node("wan", NODE, &home.probe(""));
        let portway = home.portway(&home.probe(&format!("from = \"{}\"", url())));
        let config = portway.api().get("/v1/config").is(200).json();
        assert_eq!(config["probe"], json!({ "from": url(), "proxies": [] }));
        for (name, evidence) in [("web", "9080/tcp connected from outside"), ("game", "9081/udp answered")] {
            let answer = portway.api().call("POST", &format!("/v1/mappings/{name}/probe")).is(200).json();
            let proof = &answer["proofs"][0]["proof"];
            assert_eq!(proof["verdict"], "ok", "{answer}");
            assert!(proof["evidence"].as_str().is_some_and(|words| words.contains(evidence)), "{answer}");
        }
        portway.api().call("POST", "/v1/mappings/none/probe").is(404);
        home.assert_no_target_saw_a_number();
        // The doctor needs no address where the configuration has one.
        let config = portway.config().to_str().expect("a plain path").to_owned();
        Row::of(&home.doctor(&portway, "web", &["-c", &config])).is("ok", &["connected from outside"]);
        portway.write_config("publish = \"9080:192.168.77.3:7000\"\n");
        portway.api().call("POST", "/v1/reload").is(200);
        let refused = portway.api().call("POST", "/v1/mappings/9080%2Ftcp/probe").is(409);
        assert!(refused.error().contains("name one as `from` in [probe]"), "{refused:?}");
    });
}

#[test]
fn a_node_tries_the_own_public_address_of_who_has_the_token_five_times_a_minute() {
    in_router_lab(&[], [("IPV6", "no")], |lab| {
        let home = Home::new(lab);
        let node = home.node("wan", NODE, &home.probe(""));
        let question = json!({ "protocol": "tcp", "port": 9999 });
        let ask = |token: Option<&str>, body: &Value| home.ask("lan", NODE, token, body);
        ask(None, &question).is(401);
        ask(Some("a-token-that-is-wrong"), &question).is(401);
        for (key, value) in [("address", json!("11.22.33.77")), ("address", json!("192.168.77.3"))] {
            let mut body = question.clone();
            body[key] = value;
            let refused = ask(Some(TOKEN), &body).is(403);
            assert!(refused.error().contains("comes from 11.22.33.1"), "{refused:?}");
        }
        // A try comes back every twelve seconds.
        let started = Instant::now();
        for nth in 1..=6 {
            let tried = ask(Some(TOKEN), &question);
            if nth == 6 && started.elapsed() < Duration::from_secs(12) {
                assert_eq!(tried.header("retry-after"), Some("12"));
                assert!(tried.is(429).error().contains("11.22.33.1 has used up its 5 tries a minute"));
                break;
            }
            let tried = tried.is(200).json();
            assert_eq!(
                (&tried["address"], &tried["outcome"]),
                (&json!("11.22.33.1"), &json!("refused")),
                "{tried}"
            );
        }
        // Another client has tries of its own, which the socket shows.
        let other = json!({ "protocol": "tcp", "port": 9999, "address": "11.22.33.1" });
        assert!([200, 429].contains(&node.api().post("/v1/probe", &other).status));
        node.api().post("/v1/probe", &question).is(400);
        let private = json!({ "protocol": "tcp", "port": 9999, "address": "192.168.77.3" });
        node.api().post("/v1/probe", &private).is(403);
        node.stop().with(0);

        // A node in the same network sees a private address.
        let _inside = home.node("lan2", RouterLab::LAN2, &home.probe(""));
        let refused = home.ask("lan", RouterLab::LAN2, Some(TOKEN), &question).is(403);
        assert!(refused.error().contains("192.168.77.2 is not an address of the internet"), "{refused:?}");
    });
}

#[test]
fn a_node_refuses_wrong_questions_and_its_token_is_for_nothing_else() {
    in_router_lab(&[], [("IPV6", "no")], |lab| {
        let home = Home::new(lab);
        let _node = home.node("wan", NODE, &home.probe(""));
        let ask = |token: Option<&str>, body: &Value| home.ask("lan", NODE, token, body);
        for body in [
            json!({ "protocol": "sctp", "port": 80 }),
            json!({ "protocol": "tcp", "port": 0 }),
            json!({ "protocol": "tcp", "port": 70000 }),
            json!({ "protocol": "tcp" }),
            json!({ "protocol": "udp", "port": 80 }),
            json!({ "protocol": "udp", "port": 80, "nonce": "00" }),
            json!({ "protocol": "tcp", "port": 80, "host": "192.168.77.3" }),
            json!([]),
        ] {
            ask(Some(TOKEN), &body).is(400);
        }
        // The token is for nothing else.
        let headers = [("authorization", format!("Bearer {TOKEN}"))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let api = Api::Tcp((NODE, PORT).into());
        for (method, path) in [
            ("GET", "/v1/status"),
            ("GET", "/v1/probe"),
            ("GET", "/metrics"),
            ("POST", "/v1/reload"),
            ("POST", "/v1/probe/expect"),
            ("DELETE", "/v1/bans?client=8.8.8.8"),
        ] {
            let refused = home.lab.inside("lan", || api.send(method, path, &headers, None));
            assert_eq!(
                (refused.status, &*refused.error()),
                (403, "the token is for POST /v1/probe alone"),
                "{path}"
            );
        }
        let login = json!({ "token": TOKEN });
        home.lab.inside("lan", || api.post("/v1/login", &login)).is(401);
    });
}

#[test]
fn a_node_without_the_table_tries_nothing() {
    in_router_lab(&[], [("IPV6", "no")], |lab| {
        let home = Home::new(lab);
        let tokens = format!("tokens = [{{ role = \"admin\", file = \"{}\" }}]\n", home.token().display());
        let _node = home.node("wan", NODE, &tokens);
        let question = json!({ "protocol": "tcp", "port": 9999 });
        let refused = home.ask("lan", NODE, Some(TOKEN), &question).is(404);
        assert!(refused.error().contains("it has no [probe]"), "{refused:?}");
    });
}

/// A program on `wan` that is no portway: it reads a request, and writes this.
struct Other(std::thread::JoinHandle<()>, SocketAddr);

impl Other {
    fn answering(home: &Home<'_>, port: u16, answer: Vec<u8>, stays: bool) -> Self {
        let at = SocketAddr::from((NODE, port));
        let listener = home.lab.inside("wan", || TcpListener::bind(at).expect("a free port"));
        let serve = move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
            if stays {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        };
        Self(std::thread::spawn(serve), at)
    }
}

#[test]
fn a_node_that_is_wrong_slow_or_absent_leaves_the_hop_unknown() {
    in_router_lab(&[], [("IPV6", "no")], |lab| {
        let home = Home::new(lab);
        let portway = home.portway("");
        let head = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let long = [head(10 << 20).as_bytes(), &vec![b'x'; 10 << 20]].concat();
        let redirect = b"HTTP/1.1 302 Found\r\nlocation: http://192.168.77.3/\r\ncontent-length: 0\r\n\r\n";
        let hostile = r#"{"error": "no\u001b[31m\nway"}"#;
        let hostile = format!("HTTP/1.1 403 X\r\ncontent-length: {}\r\n\r\n{hostile}", hostile.len());
        let cases: [(&str, Vec<u8>, bool, &[&str]); 7] = [
            ("garbage", b"220 mail ready\r\n".to_vec(), false, &["does not answer as a portway does"]),
            ("nothing", Vec::new(), false, &["does not answer as a portway does"]),
            ("other JSON", [head(2).as_bytes(), b"[]"].concat(), false, &["its answer is another one"]),
            ("too much", long, false, &["its answer is too long"]),
            ("a redirect", redirect.to_vec(), false, &["HTTP 302 without a reason"]),
            ("hostile words", hostile.into_bytes(), false, &["refuses: no.[31m.way"]),
            ("silence", Vec::new(), true, &["has not answered for 15 s"]),
        ];
        for (nth, (what, answer, stays, evidence)) in cases.into_iter().enumerate() {
            let other = Other::answering(&home, 8000 + nth as u16, answer, stays);
            let row = home.internet(&portway, "web", &format!("http://{}", other.1));
            eprintln!("{what}: {row:?}");
            let row = row.is("unknown", evidence);
            assert_eq!((row.failing.len(), row.code), (0, Some(0)), "{row:#?}");
            other.0.join().expect("it served");
        }
        let absent = home.internet(&portway, "web", &format!("http://{NODE}:1"));
        absent.is("unknown", &["http://11.22.33.9:1 cannot be asked: "]);
        let none = home.internet(&portway, "web", "unix:/nonexistent/portway.sock");
        none.is("unknown", &["unix:/nonexistent/portway.sock cannot be asked: "]);
        // A node with another token.
        let other = home.dir.path().join("other");
        std::fs::write(&other, "a-token-that-is-another-one").expect("the test's own directory");
        let probe = format!("[probe]\ntoken_file = \"{}\"\n", other.display());
        let _node = home.node("wan", NODE, &probe);
        home.internet(&portway, "web", &url()).is("unknown", &["refuses: the token is wrong"]);
    });
}

#[test]
fn what_is_asked_wrongly_ends_with_2() {
    let ran = |args: &[&str]| {
        let mut command = Command::new(portway_program());
        command.arg("doctor").args(["--socket", "off", "-p", "9080:127.0.0.1:1"]).args(args);
        Ran::of(command.stdin(Stdio::null()))
    };
    for url in ["other.example", "ftp://other.example", "http://user@other.example", "unix:x"] {
        ran(&["--from", url]).exits(2).says("write it as in \"https://other.example\"");
    }
    ran(&["--from", "http://203.0.113.9:7678"]).exits(2).says("--token-file FILE");
    let missing = Path::new("/nonexistent/token").display().to_string();
    ran(&["--from", "http://203.0.113.9", "--token-file", &missing])
        .exits(2)
        .says("/nonexistent/token cannot be read");
}

/// A web server with TLS in `wan` before the API of the node, with a certificate of its own in `cert.pem`.
fn nginx(home: &Home<'_>) -> Program {
    let dir = home.dir.path();
    let path = |name: &str| dir.join(name).display().to_string();
    home.sh(
        "wan",
        &format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=node \
             -addext subjectAltName=IP:{NODE} -keyout {} -out {}",
            path("key.pem"),
            path("cert.pem")
        ),
    );
    let config = format!(
        "daemon off; pid {pid}; error_log stderr; events {{}}\nhttp {{ access_log off; client_body_temp_path {dir}/b; \
         proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         server {{ listen {NODE}:443 ssl; ssl_certificate {cert}; ssl_certificate_key {key};\n\
         location / {{ proxy_pass http://{NODE}:{PORT}; proxy_set_header X-Forwarded-For $remote_addr; }} }} }}\n",
        pid = path("pid"),
        dir = dir.display(),
        cert = path("cert.pem"),
        key = path("key.pem"),
    );
    std::fs::write(dir.join("nginx.conf"), config).expect("the test's own directory");
    let network = home.lab.network("wan");
    Program::start("ip", &["netns", "exec", &network, "nginx", "-c", &path("nginx.conf"), "-e", "stderr"])
}

#[test]
fn a_node_behind_a_proxy_with_tls_is_asked_by_curl() {
    in_router_lab(&["nginx", "openssl", "curl"], [("IPV6", "no")], |lab| {
        let home = Home::new(lab);
        let dir = home.dir.path();
        let path = |name: &str| dir.join(name).display().to_string();
        std::fs::write(dir.join("admin"), "a-token-of-an-admin").expect("the test's own directory");
        let tokens = format!("tokens = [{{ role = \"admin\", file = \"{}\" }}]\n", path("admin"));
        let probe = home.probe(&format!("proxies = [\"{NODE}\"]"));
        let _node = home.node("wan", NODE, &format!("{tokens}{probe}"));
        let portway = home.portway("");
        let _nginx = nginx(&home);
        let to = SocketAddr::from((NODE, 443));
        crate::harness::eventually("nginx listens", || {
            home.lab.inside("wan", || std::net::TcpStream::connect(to)).ok()
        });
        let url = format!("https://{NODE}");
        let ask = |with: &str| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &home.lab.network("lan"), "env", with]).arg(portway_program());
            command.args(["doctor", "web", "--json", "--from", &url, "--token-file"]).arg(home.token());
            command.arg("--socket").arg(portway.socket());
            Row::of(&Ran::of(command.stdin(Stdio::null())))
        };
        let trusted = ask(&format!("CURL_CA_BUNDLE={}", path("cert.pem")));
        let strange = ask("LC_ALL=C");
        let missing = ask("PATH=/nonexistent");
        trusted.is("ok", &["11.22.33.1:9080/tcp connected from outside in "]);
        strange.is("unknown", &["https://11.22.33.9 cannot be asked: curl: "]);
        missing.is("unknown", &["is asked by curl, which is not installed"]);
    });
}
