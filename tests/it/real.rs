//! Real programs on both sides, with the specs as a person would type them.
//!
//! Each test has a network of its own, where ports 53, 80 and 5201 are free whatever this machine runs.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::{Portway, Program, Ran, eventually, in_own_network, run, udp_client};

fn wait_for_port(port: u16) {
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    eventually(&format!("something listens on port {port}"), || TcpStream::connect(at).ok());
}

#[test]
fn a_web_server_is_reached() {
    in_own_network(&["nginx", "curl"], || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().display();
        let page = "<p>behind the port\n".repeat(50_000);
        fs::write(dir.path().join("index.html"), &page).expect("the test's own directory");
        // One process, so that one kill ends it. It runs as the user of the test, because that user can read the directory.
        let config = format!(
            "daemon off; master_process off; user root; pid {root}/pid; error_log stderr;
             events {{}}
             http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p;
                     fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                     server {{ listen 127.0.0.1:80; root {root}; }} }}"
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, config).expect("the test's own directory");
        let _nginx = Program::start("nginx", &["-c", file.to_str().expect("a readable path")]);
        wait_for_port(80);
        let _portway = Portway::publishing("8080:80").start();
        for host in ["127.0.0.1", "[::1]"] {
            let ran = run(&format!("curl --silent --show-error --fail --max-time 20 http://{host}:8080/"));
            assert_eq!(ran.out, page);
        }
    });
}

#[test]
fn a_name_server_is_reached_over_both_protocols() {
    in_own_network(&["dnsmasq", "dig"], || {
        let _dnsmasq = Program::name_server("127.0.0.1", &["--address=/camera.lan/10.1.2.3"]);
        wait_for_port(53);
        let _portway = Portway::publishing("5353:53/tcp+udp").start();
        for (server, protocol) in
            [("127.0.0.1", "+notcp"), ("127.0.0.1", "+tcp"), ("::1", "+notcp"), ("::1", "+tcp")]
        {
            let asked = format!("dig @{server} -p 5353 +short +time=5 +tries=3 {protocol} camera.lan");
            assert_eq!(run(&asked).out.trim(), "10.1.2.3", "{asked}");
        }
    });
}

/// Runs an iperf3 client through the daemon and gives its report.
#[track_caller]
fn iperf3(more: &str) -> Value {
    eventually("the iperf3 server has time", || {
        let mut command = Command::new("iperf3");
        command.args(["--client", "127.0.0.1", "--port", "5202", "--time", "2", "--json"]);
        let ran = Ran::of(command.args(more.split_whitespace()).stdin(Stdio::null()));
        let report: Value = serde_json::from_str(&ran.out).unwrap_or_default();
        let error = report["error"].as_str().unwrap_or(&ran.err);
        // It takes one test at a time, and ends the last one in its own time. Until then it refuses or cuts off a client.
        if ["busy", "control socket", "control message"].iter().any(|reason| error.contains(reason)) {
            return None;
        }
        assert!(ran.code == Some(0) && report.is_object() && report.get("error").is_none(), "{ran}");
        Some(report)
    })
}

#[test]
fn a_bandwidth_test_passes_in_every_mode() {
    in_own_network(&["iperf3"], || {
        let _iperf3 = Program::start("iperf3", &["--server", "--port", "5201", "--bind", "127.0.0.1"]);
        wait_for_port(5201);
        let mut portway = Portway::publishing("5202:5201/tcp+udp").start();
        for mode in ["", "--reverse"] {
            let report = iperf3(mode);
            let bytes = report["end"]["sum_received"]["bytes"].as_u64().expect("a report has its sum");
            assert!(bytes > 10_000_000, "{bytes} bytes {mode}");
        }
        for mode in ["--udp --bitrate 1M --length 1200", "--udp --bitrate 1M --length 1200 --reverse"] {
            let report = iperf3(mode);
            let sum = &report["end"]["sum"];
            let (packets, lost) = (sum["packets"].as_u64(), sum["lost_packets"].as_i64());
            let (packets, lost) = (packets.expect("packets"), lost.expect("lost packets"));
            assert!(
                packets > 100 && lost * 20 < i64::try_from(packets).expect("small"),
                "{lost} of {packets} {mode}"
            );
        }
        assert!(portway.runs());
    });
}

#[test]
fn the_demo_shows_a_page_and_answers_datagrams() {
    in_own_network(&["curl"], || {
        let mut demo = Portway::bare().args(["demo"]).launch();
        let line = demo.wait_text("curl http://");
        let url =
            line.raw().split_whitespace().rfind(|word| word.starts_with("http://")).expect("an address");
        let line = demo.wait_text("nc -u ");
        let echo = line.raw().split_once("nc -u ").and_then(|(_, rest)| {
            let mut words = rest.split_whitespace();
            format!("{}:{}", words.next()?, words.next()?).parse().ok()
        });
        let at: SocketAddr = echo.expect("the address of the UDP echo");
        demo.wait_ready();
        run(&format!("curl --silent --show-error --fail --max-time 20 {url}")).says("<html");
        let client = udp_client(at);
        client.send(b"hello").expect("the client sends");
        let mut buffer = [0; 100];
        let len = client.recv(&mut buffer).expect("the answer comes");
        assert_eq!(&buffer[..len], b"hello");
        // The echo's flow has no end of its own: the demo does not wait for it.
        demo.stop().with(0);
    });
}
