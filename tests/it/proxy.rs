//! The PROXY protocol between portway and real programs: HAProxy and nginx, both ways, in both versions, over IPv4 and
//! IPv6. What they say of the client is compared with the client.

use std::{
    fs,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
};

use crate::harness::{
    Client, Portway, Program, Ran, TcpTarget, UdpTarget, eventually, in_own_network, own_addr, udp_client,
    udp_mapping,
};

const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
const DENIED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 13));
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The clients, and the addresses that they connect to.
const WAYS: [(IpAddr, IpAddr); 2] = [(NEAR, V4), (V6, V6)];

fn wait_for_port(port: u16) {
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    eventually(&format!("something listens on port {port}"), || TcpStream::connect(at).ok());
}

/// nginx in one process, with these blocks.
fn nginx(dir: &Path, blocks: &str) -> Program {
    let root = dir.display();
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
         daemon off; master_process off; user root; pid {root}/pid; error_log stderr;
         events {{}}
         {blocks}"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config).expect("the test's own directory");
    Program::start("nginx", &["-c", file.to_str().expect("a readable path")])
}

/// The paths that nginx needs for HTTP.
fn http_paths(dir: &Path) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    kinds.map(|kind| format!("{kind}_temp_path {}/{kind}; ", dir.display())).concat()
}

fn haproxy(dir: &Path, sections: &str) -> Program {
    let config = format!(
        "defaults\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n timeout check 2s\n{sections}"
    );
    let file = dir.join("haproxy.cfg");
    fs::write(&file, config).expect("the test's own directory");
    Program::start("haproxy", &["-db", "-f", file.to_str().expect("a readable path")])
}

/// Asks over HTTP from an address of this machine. Gives the client's own address, and the answer.
fn ask(from: IpAddr, at: SocketAddr) -> (SocketAddr, String) {
    let mut client = Client::from(from, at);
    let own = client.0.local_addr().expect("a connected socket");
    client.say(b"GET / HTTP/1.0\r\n\r\n");
    let mut answer = String::new();
    client.0.read_to_string(&mut answer).expect("an answer");
    (own, answer)
}

/// A mapping that listens over both families.
fn mapping(port: u16, target: SocketAddr, more: &str) -> String {
    format!(
        "[[mapping]]\nname = \"p{port}\"\nlisten = [\"127.0.0.1:{port}\", \"[::1]:{port}\"]\n\
         targets = [\"{target}\"]\n{more}\n"
    )
}

#[test]
fn nginx_and_haproxy_see_the_client_of_the_header() {
    in_own_network(&["nginx", "haproxy"], || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (log, paths) = (dir.path().join("access.log"), http_paths(dir.path()));
        let _nginx = nginx(
            dir.path(),
            &format!(
                "http {{ {paths}
                    log_format seen '$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port';
                    server {{ listen 127.0.0.1:8081 proxy_protocol; access_log {} seen; return 200 'nginx'; }} }}",
                log.display()
            ),
        );
        let _haproxy = haproxy(
            dir.path(),
            "frontend seen\n mode http\n bind 127.0.0.1:8082 accept-proxy\n \
             http-request return status 200 content-type text/plain lf-string \
             \"%[src] %[src_port] %[dst] %[dst_port] id=%[fc_pp_unique_id]\"\n",
        );
        wait_for_port(8081);
        wait_for_port(8082);
        let (to_nginx, to_haproxy) = (SocketAddr::new(V4, 8081), SocketAddr::new(V4, 8082));
        let config = mapping(9101, to_nginx, "send_proxy = \"v1\"")
            + &mapping(9102, to_nginx, "send_proxy = \"v2\"")
            + &mapping(9103, to_haproxy, "send_proxy = \"v1\"")
            + &mapping(9104, to_haproxy, "send_proxy = \"v2\"");
        let mut portway = Portway::with(&config).start();
        for (from, to) in WAYS {
            for port in [9101, 9102] {
                let (own, answer) = ask(from, SocketAddr::new(to, port));
                assert!(answer.ends_with("nginx"), "{answer}");
                let seen = format!("{} {} {to} {port}\n", own.ip(), own.port());
                eventually(&format!("the access log has {seen}"), || {
                    fs::read_to_string(&log).unwrap_or_default().contains(&seen).then_some(())
                });
            }
            for port in [9103, 9104] {
                let (own, answer) = ask(from, SocketAddr::new(to, port));
                let seen = format!("{} {} {to} {port} id=", own.ip(), own.port());
                assert!(answer.contains(&seen), "{seen:?} is missing in {answer}");
                // In version 2 the id of the session stands in the header.
                let line = portway.wait_log(crate::harness::messages::SESSION_ENDED, |line| {
                    line.text("client.addr") == own.to_string()
                });
                let id = if port == 9104 { line.number("session.id").to_string() } else { String::new() };
                assert!(answer.ends_with(&format!("id={id}")), "{answer}");
            }
        }
    });
}

#[test]
fn the_client_behind_nginx_and_haproxy_is_the_one_that_is_admitted_and_logged() {
    in_own_network(&["nginx", "haproxy"], || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = TcpTarget::echo();
        let config = mapping(
            9200,
            target.addr,
            &format!("accept_proxy = [\"127.0.0.0/8\", \"::1\"]\ndeny = [\"{DENIED}\"]"),
        );
        let mut portway = Portway::with(&config).start();
        let _nginx = nginx(
            dir.path(),
            "stream { server { listen 127.0.0.1:8083; listen [::1]:8083; proxy_pass 127.0.0.1:9200; proxy_protocol on; } }",
        );
        let listen = |name: &str, port: u16, server: &str| {
            format!(
                "listen {name}\n mode tcp\n bind 127.0.0.1:{port}\n bind [::1]:{port}\n server portway {server}\n"
            )
        };
        let _haproxy = haproxy(
            dir.path(),
            &(listen("one", 8084, "127.0.0.1:9200 send-proxy")
                + &listen("two", 8085, "[::1]:9200 send-proxy-v2 proxy-v2-options crc32c,unique-id")),
        );
        for port in [8083, 8084, 8085] {
            eventually("the proxy listens", || TcpStream::connect((V6, port)).ok());
            for (from, to) in WAYS {
                let at = SocketAddr::new(to, port);
                let mut client = eventually("a client is connected", || {
                    let mut client = Client::try_from_ip(from, at).ok()?;
                    client.still_echoes().then_some(client)
                });
                let own = client.0.local_addr().expect("a connected socket").to_string();
                client.ping();
                drop(client);
                let line = portway.wait_log(crate::harness::messages::SESSION_ENDED, |line| {
                    line.text("client.addr") == own
                });
                assert_eq!((line.text("mapping"), line.number("bytes.in")), ("p9200", 8));
            }
            let mut denied = Client::from(DENIED, SocketAddr::new(V4, port));
            assert!(!denied.still_echoes(), "it may not enter");
        }
    });
}

#[test]
fn a_health_check_of_haproxy_is_heard_and_a_chain_of_proxies_keeps_the_client() {
    in_own_network(&["haproxy"], || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config =
            mapping(9300, SocketAddr::new(V4, 8087), "accept_proxy = [\"127.0.0.0/8\"]\nsend_proxy = \"v2\"");
        let mut portway = Portway::with(&config).start();
        let _haproxy = haproxy(
            dir.path(),
            "listen first\n mode tcp\n bind 127.0.0.1:8086\n \
             server portway 127.0.0.1:9300 send-proxy-v2 check check-send-proxy inter 100ms rise 1 fall 1\n\
             frontend last\n mode http\n bind 127.0.0.1:8087 accept-proxy\n \
             http-request return status 200 content-type text/plain lf-string \"%[src] %[dst] %[dst_port]\"\n",
        );
        // A check comes as LOCAL: the peer speaks for itself.
        let check = portway.wait_log(crate::harness::messages::SESSION_ENDED, |line| {
            line.text("client.addr").starts_with("127.0.0.1:")
        });
        assert_ne!(check.text("reason"), "preface");
        let answer = eventually("the chain answers", || {
            let (_, answer) = ask(NEAR, SocketAddr::new(V4, 8086));
            answer.contains("200 OK").then_some(answer)
        });
        assert!(answer.ends_with(&format!("{NEAR} 127.0.0.1 8086")), "{answer}");
        assert!(portway.sessions_ended().iter().all(|line| line.text("reason") != "preface"));
    });
}

#[test]
fn a_listed_peer_without_a_header_has_a_line_of_its_own() {
    let target = TcpTarget::echo();
    let (listen, other) = (own_addr(8080), own_addr(8080));
    let more = "accept_proxy = [\"127.0.0.0/8\"]\nmatch_timeout = \"100ms\"";
    let config = crate::harness::mapping(listen, target.addr, more)
        + &crate::harness::mapping(other, target.addr, "accept_proxy = [\"192.0.2.0/24\"]");
    let mut portway = Portway::with(&config).start();
    let mut silent = Client::to(listen);
    silent.until_closed();
    let line = portway.wait_session();
    assert_eq!(line.text("reason"), "preface");
    assert!(line.text("error").contains("no PROXY header in time"), "{}", line.raw());
    // From a peer that is not listed a header is only bytes.
    let mut client = Client::to(other);
    let header = b"PROXY TCP4 203.0.113.9 192.0.2.1 50312 443\r\n";
    client.say(header);
    assert_eq!(client.hear(header.len()), header);
}

#[test]
fn datagrams_say_who_the_client_is() {
    let (listen, each) = (own_addr(8080), own_addr(8080));
    let (first, second) = (UdpTarget::echo(), UdpTarget::echo());
    let config = udp_mapping(listen, first.addr, "send_proxy = \"v2\"")
        + &udp_mapping(each, second.addr, "send_proxy = \"v2-each\"");
    let _portway = Portway::with(&config).start();
    let header = |datagram: &[u8]| datagram.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x12");
    for (at, target, expected) in [(listen, &first, [true, false]), (each, &second, [true, true])] {
        let client = udp_client(at);
        for text in [b"one", b"two"] {
            client.send(text).expect("the client sends");
            let len = client.recv(&mut [0; 100]).expect("the echo answers");
            assert!(len >= text.len());
        }
        let got: Vec<bool> = target.got().iter().map(|(_, datagram)| header(datagram)).collect();
        assert_eq!(got, expected);
    }
}

/// dnsdist in the foreground.
fn dnsdist(dir: &Path, name: &str, config: &str) -> Program {
    let file = dir.join(name);
    fs::write(&file, config).expect("the test's own directory");
    let file = file.to_str().expect("a readable path");
    Program::start("dnsdist", &["--supervised", "--disable-syslog", "-C", file])
}

/// Asks a name server from an address of this machine; `None` without an answer.
fn dig(from: IpAddr, port: u16) -> Option<String> {
    let mut command = Command::new("dig");
    command.args(["-b", &from.to_string(), "@127.0.0.1", "-p", &port.to_string()]);
    let ran = Ran::of(command.args(["+short", "+tries=1", "+time=2", "who.lan"]).stdin(Stdio::null()));
    (ran.code == Some(0)).then(|| ran.out.trim().to_owned())
}

#[test]
fn a_name_server_sees_the_client_of_a_datagram() {
    in_own_network(&["dnsdist", "dig"], || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // It answers with the address of its client.
        let _server = dnsdist(
            dir.path(),
            "server",
            "setLocal('127.0.0.1:5301')\nsetProxyProtocolACL({'127.0.0.0/8'})\n\
             newServer({address='127.0.0.1:9', healthCheckMode='up'})\n\
             addAction(AllRule(), LuaAction(function(dq) return DNSAction.Spoof, dq.remoteaddr:toString() end))\n",
        );
        let (listen, target) = (SocketAddr::new(V4, 9500), SocketAddr::new(V4, 5301));
        let _portway = Portway::with(&udp_mapping(listen, target, "send_proxy = \"v2-each\"")).start();
        for from in [NEAR, DENIED] {
            let seen = eventually("the name server answers", || dig(from, 9500));
            assert_eq!(seen, from.to_string());
        }
    });
}

#[test]
fn the_client_behind_a_proxy_of_datagrams_is_the_one_that_is_admitted() {
    in_own_network(&["dnsdist", "dig", "dnsmasq"], || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _dnsmasq = Program::name_server("127.0.0.1", &["--port=5303", "--address=/who.lan/10.1.2.3"]);
        let (listen, target) = (SocketAddr::new(V4, 9501), SocketAddr::new(V4, 5303));
        let more = format!("accept_proxy = [\"127.0.0.1\"]\ndeny = [\"{DENIED}\"]\nidle_timeout = \"1s\"");
        let mut portway = Portway::with(&udp_mapping(listen, target, &more)).start();
        let _proxy = dnsdist(
            dir.path(),
            "proxy",
            "setLocal('127.0.0.1:5302')\n\
             newServer({address='127.0.0.1:9501', useProxyProtocol=true, healthCheckMode='up'})\n",
        );
        assert_eq!(eventually("the name server answers", || dig(NEAR, 5302)), "10.1.2.3");
        // dnsdist sends for both clients from one port.
        assert_eq!(dig(DENIED, 5302), None);
        let line = portway.wait_log(crate::harness::messages::SESSION_ENDED, |line| {
            line.text("client.addr").starts_with(&format!("{NEAR}:"))
        });
        assert_eq!(line.text("protocol"), "udp");
    });
}
