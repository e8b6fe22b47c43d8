//! Several names on one port, with real clients and servers: TLS by SNI, HTTP/1 and HTTP/2 by host, a browser.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::{
    Browser, Client, Portway, Program, Ran, TcpTarget, eventually, in_own_network, mapping, messages,
    own_addr, run,
};

/// One port for all the names.
const PORT: u16 = 9443;

fn wait_for_port(port: u16) {
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    eventually(&format!("something listens on port {port}"), || TcpStream::connect(at).ok());
}

/// A certificate that says one name, and its key.
fn certificate(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    run(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} \
         -addext subjectAltName=DNS:{name} -keyout {} -out {}",
        key.display(),
        cert.display()
    ));
    (cert, key)
}

/// nginx with two servers for TLS, one for HTTP/1 and one for HTTP/2 without TLS, each on a port of its own.
fn servers(dir: &Path) -> Program {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = kinds.map(|kind| format!("{kind}_temp_path {}/{kind}; ", dir.display())).concat();
    let tls = [("one", 8441), ("two", 8442)].map(|(name, port)| {
        let (cert, key) = certificate(dir, &format!("{name}.example.org"));
        format!(
            "server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {}; ssl_certificate_key {}; \
             default_type text/html; return 200 '<p id=who>{name}'; }} ",
            cert.display(),
            key.display()
        )
    });
    let config = format!(
        "daemon off; master_process off; user root; pid {}/pid; error_log stderr crit; events {{}}
         http {{ access_log off; {paths} default_type text/html; {}
             server {{ listen 127.0.0.1:8451; return 200 '<p id=who>plain'; }}
             server {{ listen 127.0.0.1:8452 http2; return 200 '<p id=who>h2c'; }} }}",
        dir.display(),
        tls.concat()
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config).expect("the test's own directory");
    let nginx = Program::start("nginx", &["-c", file.to_str().expect("a readable path")]);
    [8441, 8442, 8451, 8452].into_iter().for_each(wait_for_port);
    nginx
}

fn names(more: &str) -> String {
    format!(
        "[[mapping]]\nname = \"names\"\nlisten = [\"127.0.0.1:{PORT}\"]\nmatch = \"auto\"\n\
         hosts = {{ \"one.example.org\" = \"127.0.0.1:8441\", \"*.example.org\" = \"127.0.0.1:8442\", \
         \"plain.example.org\" = \"127.0.0.1:8451\", \"h2c.example.org\" = \"127.0.0.1:8452\", \
         \"closed.example.org\" = {{ targets = [\"127.0.0.1:8451\"], deny = [\"127.0.0.0/8\"] }} }}\n{more}\n"
    )
}

/// What curl says of `url`: its body, and then the words of `--write-out`.
fn curl(dir: &Path, url: &str, more: &str) -> Ran {
    let host = url.split("//").nth(1).and_then(|rest| rest.split('/').next()).expect("a host");
    let trust = dir.join("trust.pem");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(trust);
    command.args(["--resolve", &format!("{host}:127.0.0.1")]);
    command.args(["--write-out", " %{http_version} %{http_code}"]);
    Ran::of(command.args(more.split_whitespace()).arg(url).stdin(Stdio::null()))
}

fn trust(dir: &Path) {
    let all = ["one", "two"]
        .map(|name| fs::read_to_string(dir.join(format!("{name}.example.org.pem"))).expect("a certificate"));
    fs::write(dir.join("trust.pem"), all.concat()).expect("the test's own directory");
}

#[test]
fn each_name_leads_to_its_server_over_tls_and_http() {
    in_own_network(&["nginx", "curl", "openssl"], || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _servers = servers(dir.path());
        trust(dir.path());
        let mut portway = Portway::with(&names("")).start();
        for (url, more, expected) in [
            ("https://one.example.org:9443/", "", "one 2 200"),
            ("https://two.example.org:9443/", "", "two 2 200"),
            ("https://two.example.org:9443/", "--http1.1", "two 1.1 200"),
            ("https://TWO.example.org:9443/", "--tls-max 1.2", "two 2 200"),
            ("http://plain.example.org:9443/", "", "plain 1.1 200"),
            ("http://plain.example.org:9443/", "--http1.0", "plain 1.1 200"),
            ("http://h2c.example.org:9443/", "--http2-prior-knowledge", "h2c 2 200"),
        ] {
            // The certificates say which server it was, too.
            let ran = curl(dir.path(), url, more).exits(0);
            assert_eq!(ran.out, format!("<p id=who>{expected}"), "{url} {more}");
        }
        curl(dir.path(), "http://elsewhere.net:9443/", "").exits(0).says(" 1.1 421");
        curl(dir.path(), "http://elsewhere.net:9443/", "--http2-prior-knowledge").exits(0).says(" 2 421");
        let refused = curl(dir.path(), "https://elsewhere.net:9443/", "");
        assert_ne!(refused.code, Some(0));
        assert!(refused.err.contains("unrecognized name"), "{refused}");
        let closed = curl(dir.path(), "http://closed.example.org:9443/", "");
        assert_eq!(closed.code, Some(52), "an empty reply: {closed}");
        let reasons = |reason: &str| {
            let lines = portway.sessions_ended();
            lines.iter().filter(|line| line.text("reason") == reason).count()
        };
        eventually("each end has its line", || {
            (reasons("preface") == 3 && reasons("policy") == 1).then_some(())
        });
        let unknown = portway.wait_log(messages::SESSION_ENDED, |line| line.text("reason") == "preface");
        assert!(unknown.text("error").contains("elsewhere.net"), "{}", unknown.raw());
    });
}

#[test]
fn a_handshake_that_comes_byte_by_byte_in_segments_of_its_own_leads_to_its_server() {
    in_own_network(&["nginx", "openssl"], || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _servers = servers(dir.path());
        let _portway = Portway::with(&names("")).start();
        // Between the client and portway: a machine that sends each byte of the hello by itself.
        let splitter = TcpTarget::serve_at(SocketAddr::from(([127, 0, 0, 1], 9000)), |client| {
            let mut server = Client::to(SocketAddr::from(([127, 0, 0, 1], PORT))).0;
            let (mut from, mut to) =
                (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            let back = std::thread::spawn(move || {
                let mut client = client;
                let _ = std::io::copy(&mut server, &mut client);
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
            let mut byte = [0; 1];
            while let Ok(1) = std::io::Read::read(&mut from, &mut byte) {
                if to.write_all(&byte).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Write);
            let _ = back.join();
        });
        for (name, other) in [("one", "two"), ("two", "one")] {
            let ran = run(&format!(
                "openssl s_client -connect {} -servername {name}.example.org -verify_return_error -CAfile {}",
                splitter.addr,
                dir.path().join(format!("{name}.example.org.pem")).display()
            ));
            ran.says(&format!("CN = {name}.example.org")).never_says(&format!("CN = {other}.example.org"));
        }
        // The client hears why: an alert of TLS.
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", "127.0.0.1:9443", "-servername", "elsewhere.net"]);
        let ran = Ran::of(command.stdin(Stdio::null()));
        assert_eq!(ran.code, Some(1), "{ran}");
        ran.says("unrecognized name");
    });
}

#[test]
fn a_browser_reaches_each_name_over_http_2_and_http_1() {
    in_own_network(&[&Browser::TOOLS[..], &["nginx", "openssl"]].concat(), || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _servers = servers(dir.path());
        let _portway = Portway::with(&names("")).start();
        let flags = ["--host-resolver-rules=MAP *.example.org 127.0.0.1", "--ignore-certificate-errors"];
        let browser = Browser::start_with(1280, 900, &flags);
        for (url, who, protocol) in [
            ("https://one.example.org:9443/", "one", "h2"),
            ("https://two.example.org:9443/", "two", "h2"),
            ("http://plain.example.org:9443/", "plain", "http/1.1"),
        ] {
            browser.open(url);
            browser.wait_text("#who", who);
            let spoken =
                browser.script("return performance.getEntriesByType('navigation')[0].nextHopProtocol");
            assert_eq!(spoken, protocol, "{url}");
        }
    });
}

#[test]
fn a_client_without_a_name_waits_for_its_time_and_no_longer() {
    let target = TcpTarget::echo();
    let (listen, lonely) = (own_addr(8080), own_addr(8080));
    let host = format!(
        "match = \"tls-sni\"\nmatch_timeout = \"200ms\"\nhosts = {{ \"one.example.org\" = \"{}\" }}",
        target.addr
    );
    let config =
        mapping(listen, target.addr, &host) + &format!("[[mapping]]\nlisten = [\"{lonely}\"]\n{host}\n");
    let mut portway = Portway::with(&config).start();
    // With targets of the mapping: what it said is not lost.
    let mut client = Client::to(listen);
    client.say(b"\x16");
    assert_eq!(client.hear(1), b"\x16");
    client.ping();
    let mut client = Client::to(lonely);
    client.say(b"\x16");
    client.until_closed();
    let line = portway.wait_session();
    assert_eq!(line.text("reason"), "preface");
}

#[test]
fn a_reload_that_shuts_a_client_out_of_a_name_ends_its_session_and_no_other() {
    let target = TcpTarget::echo();
    let listen = own_addr(8080);
    let config = |deny: &str| {
        format!(
            "[[mapping]]\nlisten = [\"{listen}\"]\nmatch = \"http-host\"\nhosts = {{ \
             \"one.example.org\" = {{ targets = [\"{0}\"], deny = [{deny}] }}, \"two.example.org\" = \"{0}\" }}\n",
            target.addr
        )
    };
    let mut portway = Portway::with(&config("")).start();
    let [mut one, mut two] = ["one", "two"].map(|name| {
        let request = format!("GET / HTTP/1.1\r\nHost: {name}.example.org\r\n\r\n");
        let mut client = Client::to(listen);
        client.say(request.as_bytes());
        assert_eq!(client.hear(request.len()), request.as_bytes());
        client
    });
    portway.reload_with(&config("\"127.0.0.0/8\""));
    one.until_closed();
    assert_eq!(portway.wait_session().text("reason"), "policy");
    two.ping();
}
