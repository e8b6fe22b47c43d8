//! The image, the compose files and the labels, with real engines: a machine of its own with Docker or podman, which
//! `tests/lab/containers/lab.sh` makes. One test builds the Dockerfile as it is; the others need an image of the same shape.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use crate::harness::{
    Portway, Ran, copy_libraries, eventually, eventually_within, in_container_lab,
    in_container_lab_of_the_dockerfile, in_own_network, own_addr, portway_program, run,
};

/// How long an engine may take for what it does to several containers.
const PATIENCE: Duration = Duration::from_secs(90);
const IMAGE: &str = "portway:lab";

/// Runs the engine's client with these words, and gives what it says.
#[track_caller]
fn engine(words: &str) -> String {
    let client = std::env::var("ENGINE").expect("the lab says which");
    let ran = Ran::of(Command::new(client).args(words.split_whitespace())).exits(0);
    ran.out.trim().to_owned()
}

/// What a container has written.
fn log(name: &str) -> String {
    let client = std::env::var("ENGINE").expect("the lab says which");
    Ran::of(Command::new(client).args(["logs", name])).err
}

/// Makes an image from a Dockerfile and these files.
fn image(name: &str, dockerfile: &str, files: &[(&str, &str)]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (file, text) in files.iter().chain([&("Dockerfile", dockerfile)]) {
        fs::write(dir.path().join(file), text).expect("the test's own directory");
    }
    engine(&format!("build -q -t {name} {}", dir.path().display()));
}

/// An application that answers on port 80, under the name of a well-known one.
fn make_app() {
    let config = "[metrics]\nlisten = \"0.0.0.0:80\"\n[log]\nlevel = \"warn\"\n";
    let dockerfile = format!("FROM {IMAGE}\nCOPY app.toml /etc/portway/portway.toml\n");
    image("nginx", &dockerfile, &[("app.toml", config)]);
}

/// Whether the application answers at this port of the machine.
fn answers(port: u16) -> bool {
    answers_at((Ipv4Addr::LOCALHOST, port).into())
}

fn answers_at(addr: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"ok\""))
}

#[track_caller]
fn wait_answer(port: u16, wanted: bool) {
    let what = format!("port {port} {}", if wanted { "answers" } else { "is closed" });
    eventually_within(PATIENCE, &what, || (answers(port) == wanted).then_some(()));
}

#[track_caller]
fn wait_health(name: &str, wanted: &str) {
    eventually_within(PATIENCE, &format!("{name} is {wanted}"), || {
        (engine(&format!("inspect -f {{{{.State.Health.Status}}}} {name}")) == wanted).then_some(())
    });
}

fn compose(words: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/compose.yaml");
    engine(&format!("compose -f {} {words}", file.display()))
}

#[test]
fn the_image_runs_without_rights_and_opens_low_ports_where_it_may() {
    in_container_lab_of_the_dockerfile(|| {
        assert!(engine(&format!("run --rm {IMAGE} --version")).contains("0123456789abcdef"));
        let about =
            engine(&format!("image inspect -f {{{{.Config.User}}}}-{{{{.Config.StopSignal}}}} {IMAGE}"));
        assert_eq!(about, "65532:65532-SIGTERM");
        // Nothing of the machine, no right, nothing to write to but the socket's directory.
        engine(&format!(
            "run -d --name bare --cap-drop ALL --read-only --security-opt no-new-privileges --health-interval 1s \
             --tmpfs /run/portway:uid=65532 -p 8080:8080 -e PORTWAY_PUBLISH=8080:192.0.2.1:80 {IMAGE}"
        ));
        wait_health("bare", "healthy");
        // The network of the machine, whose low ports need a right.
        engine(&format!(
            "run -d --name low --network host --cap-drop ALL --cap-add NET_BIND_SERVICE --health-interval 1s \
             -e PORTWAY_PUBLISH=127.0.0.1:81:192.0.2.1:80 {IMAGE}"
        ));
        wait_health("low", "healthy");
        // As process 1 it heeds signals.
        engine("kill --signal HUP low");
        eventually("a reload", || log("low").contains("reload applied").then_some(()));
        engine("stop low bare");
        for name in ["low", "bare"] {
            assert_eq!(engine(&format!("inspect -f {{{{.State.ExitCode}}}} {name}")), "0");
        }
    });
}

#[test]
fn a_sidecar_serves_an_application_that_restarts() {
    in_container_lab("docker", || {
        make_app();
        engine(&format!("tag {IMAGE} portway"));
        compose("--profile sidecar up -d");
        wait_answer(8080, true);
        let started = || engine("inspect -f {{.State.StartedAt}} examples-portway-1");
        let before = started();
        compose("--profile sidecar restart --no-deps app");
        wait_answer(8080, true);
        assert_eq!(started(), before, "portway runs on");
        compose("--profile sidecar down -v -t 2");
    });
}

#[test]
fn health_tells_of_a_listener_that_fails() {
    in_container_lab("docker", || {
        engine(&format!("run -d --name first {IMAGE} run -p 9000:192.0.2.1:80"));
        engine(&format!(
            "run -d --name second --network container:first --health-interval 1s --health-retries 1 \
             --health-start-period 0s {IMAGE} run -p 9000:192.0.2.1:80 -p 9001:192.0.2.1:80"
        ));
        wait_health("second", "unhealthy");
        let said = engine("inspect second");
        assert!(said.contains("the address is in use"), "{said}");
        engine("rm -f first");
    });
}

#[test]
fn labels_of_real_containers_come_change_and_go_and_the_engine_may_restart() {
    in_container_lab("docker", || {
        make_app();
        let mut portway = Portway::with("[docker]\n").start();
        engine("run -d --name web --restart always --label portway.publish=127.0.0.1:8081:80 nginx");
        wait_answer(8081, true);
        engine("run -d --name bad --label portway.publish=127.0.0.1:8082:80x nginx");
        portway.wait_text("container bad, label portway.publish");
        // The same container again, with another label.
        engine("rm -f web");
        wait_answer(8081, false);
        engine("run -d --name web --restart always --label portway.web.publish=127.0.0.1:8083:80 nginx");
        wait_answer(8083, true);
        Ran::of(Command::new("bash").args(["-c", "stop_docker"])).exits(0);
        portway.wait_text("cannot be asked");
        Ran::of(Command::new("bash").args(["-c", "start_docker"])).exits(0);
        wait_answer(8083, true);
        engine("stop -t 2 web");
        wait_answer(8083, false);
        assert!(portway.runs());
        portway.stop().with(0);
    });
}

#[test]
fn labels_of_podman_are_labels_too() {
    in_container_lab("podman", || {
        make_app();
        let socket = "/run/podman/podman.sock";
        fs::create_dir_all("/run/podman").expect("the lab's own /run");
        let mut service = Command::new("podman")
            .args(["system", "service", "--time", "0", &format!("unix://{socket}")])
            .spawn()
            .expect("podman");
        let mut portway = Portway::with(&format!("[docker]\nsocket = \"{socket}\"\n")).start();
        // Podman keeps port 80 for those with a right, which the file of the program under test does not give.
        engine(
            "run -d --name web --sysctl net.ipv4.ip_unprivileged_port_start=0 \
             --label portway.publish=127.0.0.1:8081:80 nginx",
        );
        wait_answer(8081, true);
        engine("stop -t 2 web");
        wait_answer(8081, false);
        engine("start web");
        wait_answer(8081, true);
        // Its word for the owner of a directory in memory is another one than Docker's. The commands need that directory.
        engine(&format!(
            "run -d --name bare --cap-drop ALL --read-only --tmpfs /run/portway:U \
             -e PORTWAY_PUBLISH=8080:192.0.2.1:80 {IMAGE}"
        ));
        eventually("the socket of the commands", || log("bare").contains("API listening").then_some(()));
        assert_eq!(engine("exec bare /portway health"), "ready");
        assert!(portway.runs());
        portway.stop().with(0);
        service.kill().expect("the test's own process");
        service.wait().expect("the test's own process");
    });
}

#[test]
fn the_gateway_of_the_examples_publishes_by_labels_through_a_proxy() {
    in_container_lab("docker", || {
        make_app();
        make_proxy();
        engine(&format!("tag {IMAGE} portway"));
        compose("--profile gateway up -d");
        wait_answer(8081, true);
        the_proxy_refuses_what_is_not_a_question();
        engine("run -d --name more --network examples_apps --label portway.publish=8082:80 nginx");
        wait_answer(8082, true);
        engine("rm -f more");
        wait_answer(8082, false);
        compose("--profile gateway down -v -t 2");
    });
}

/// The proxy stands between: it refuses what would change something, which the engine would do.
#[track_caller]
fn the_proxy_refuses_what_is_not_a_question() {
    let addr =
        engine("inspect -f {{.NetworkSettings.Networks.examples_engine.IPAddress}} examples-socket-proxy-1");
    let status = |request: &str| -> String {
        let mut stream = TcpStream::connect(format!("{addr}:2375")).expect("the proxy");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        write!(stream, "{request} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("an answer");
        String::from_utf8_lossy(&first).into_owned()
    };
    assert_eq!(status("GET /containers/json"), "HTTP/1.1 200");
    for refused in ["POST /containers/create", "GET /images/json", "DELETE /containers/web"] {
        assert_eq!(status(refused), "HTTP/1.1 403", "{refused}");
    }
}

/// What stands before the socket in the examples: a HAProxy that lets through what the variables of the real one allow.
/// Every other question, and everything but GET, is refused.
fn make_proxy() {
    const RULES: &str = r"
defaults
    mode http
    timeout connect 10s
    timeout client 10m
    timeout server 10m
frontend engine
    bind :2375
    http-request deny unless METH_GET
    http-request allow if { path -m reg ^(/v[0-9.]+)?/containers } { env(CONTAINERS) -m bool }
    http-request allow if { path -m reg ^(/v[0-9.]+)?/events } { env(EVENTS) -m bool }
    http-request allow if { path -m reg ^(/v[0-9.]+)?/(_ping|version)$ }
    http-request deny
    default_backend socket
backend socket
    server engine unix@/var/run/docker.sock
";
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = dir.path();
    // The program of this machine with its libraries.
    let found =
        Ran::of(Command::new("sh").args(["-c", "PATH=$PATH:/usr/sbin command -v haproxy"])).exits(0).out;
    fs::copy(found.trim(), root.join("haproxy")).expect("the test's own directory");
    copy_libraries(&root.join("haproxy"), root);
    fs::write(root.join("rules"), RULES).expect("the test's own directory");
    let dockerfile = "FROM scratch\nCOPY . /\nENTRYPOINT [\"/haproxy\", \"-db\", \"-f\", \"/rules\"]\n";
    fs::write(root.join("Dockerfile"), dockerfile).expect("the test's own directory");
    engine(&format!("build -q -t tecnativa/docker-socket-proxy {}", root.display()));
}

#[test]
fn a_network_that_lost_its_interfaces_is_not_healthy() {
    in_own_network(&["ip"], || {
        run("ip link add gone type veth peer name gone-peer");
        let running = Portway::publishing(&format!("{}:192.0.2.1:80", own_addr(8080))).start();
        let socket = running.socket();
        let health = || Ran::of(Command::new(portway_program()).arg("health").env("PORTWAY_SOCKET", &socket));
        health().exits(0);
        run("ip link del gone");
        health().exits(1).says("its interfaces are gone");
        running.stop().with(0);
    });
}
