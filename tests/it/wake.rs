//! Targets that are started by the first session and stopped after the last one: real commands, systemd as its bus shows
//! it, a container engine as its socket shows it, and a machine that waits for a magic packet.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::harness::{
    DEADLINE, Engine, Neighbour, Portway, Program, TcpTarget, eventually, in_own_network, messages, own_addr,
    with_tools,
};

/// A web server of python's, which a command starts and another one stops.
struct Server {
    dir: tempfile::TempDir,
    addr: SocketAddr,
}

impl Server {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("hello"), "hello").expect("the test's own directory");
        Self { dir, addr: own_addr(9000) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the shell runs to be the server. Each run leaves a line.
    fn script(&self) -> String {
        let dir = self.dir.path().display();
        let (ip, port) = (self.addr.ip(), self.addr.port());
        format!(
            "cd {dir}; echo $PORTWAY_MAPPING $PORTWAY_TARGET >> runs; grep SigBlk /proc/self/status > signals; \
             exec python3 -m http.server {port} --bind {ip} > /dev/null 2>&1"
        )
    }

    /// The key `wake` with a start that leaves the server behind.
    fn wake(&self, more: &str) -> String {
        let (script, pid) = (self.script(), self.path("pid"));
        let start = format!("({script}) & echo $! > {}", pid.display());
        let stop = format!("kill $(cat {})", pid.display());
        format!(
            "wake = {{ command = [\"/bin/sh\", \"-c\", '{start}'], stop_command = [\"/bin/sh\", \"-c\", '{stop}'], {more} }}\n"
        )
    }

    /// The runs so far, a line each.
    fn runs(&self) -> Vec<String> {
        let runs = fs::read_to_string(self.path("runs")).unwrap_or_default();
        runs.lines().map(str::to_owned).collect()
    }

    fn pid(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.path("pid")).ok()?;
        Pid::from_raw(pid.trim().parse().ok()?)
    }

    fn lives(&self) -> bool {
        TcpStream::connect(self.addr).is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = self.pid().filter(|pid| test_kill_process(*pid).is_ok()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn mapping(listen: SocketAddr, target: SocketAddr, more: &str) -> String {
    format!("[[mapping]]\nname = \"game\"\npublish = \"{listen}:{target}\"\n{more}")
}

/// The page behind `addr`; `None` if the connection ends without one.
fn page(addr: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(2 * DEADLINE)).ok()?;
    stream.write_all(b"GET /hello HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.rsplit_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[test]
fn the_first_clients_start_a_real_server_once_and_the_last_one_has_it_stopped() {
    with_tools(&["python3"], || {
        let (server, listen) = (Server::new(), own_addr(8080));
        let wake = server.wake("wait = \"60s\", stop_after = \"1s\"");
        let mut portway = Portway::with(&mapping(listen, server.addr, &wake)).start();
        assert!(!server.lives());
        for round in 1..=2 {
            let clients: Vec<_> = (0..10).map(|_| std::thread::spawn(move || page(listen))).collect();
            for client in clients {
                assert_eq!(client.join().expect("no panic").as_deref(), Some("hello"), "{}", portway.log());
            }
            assert_eq!(
                server.runs(),
                vec![format!("game {}", server.addr); round],
                "one start for all of them"
            );
            eventually("the server is stopped", || (!server.lives()).then_some(()));
            eventually("the stop is told", || {
                (portway.count(messages::TARGET_STOPPED) == round).then_some(())
            });
        }
        portway.wait_log(messages::TARGET_STARTED, |line| line.text("wake") == "command /bin/sh");
        assert_eq!(portway.count(messages::STARTING_TARGET), 2);
        portway.stop().with(0);
    });
}

#[test]
fn a_server_in_use_is_not_stopped_and_the_end_of_portway_leaves_it_running() {
    with_tools(&["python3"], || {
        let (server, listen) = (Server::new(), own_addr(8080));
        let wake = server.wake("stop_after = \"1s\"");
        let config = mapping(listen, server.addr, &wake);
        let mut portway = Portway::with(&config).start();
        let held = TcpStream::connect(listen).expect("portway listens");
        portway.wait_log(messages::TARGET_STARTED, |_| true);
        crate::harness::pass(std::time::Duration::from_millis(1500));
        assert!(server.lives());
        // The reload takes the mapping away: what runs is left as it is.
        portway.reload_with("");
        drop(held);
        portway.wait_session();
        crate::harness::pass(std::time::Duration::from_millis(1500));
        assert!(server.lives());
        assert_eq!(portway.count(messages::TARGET_STOPPED), 0);
        portway.reload_with(&config);
        assert_eq!(page(listen).as_deref(), Some("hello"));
        portway.stop().with(0);
        assert!(server.lives());
        assert_eq!(server.runs().len(), 1);
    });
}

#[test]
fn a_command_that_is_the_server_is_reached_while_it_runs() {
    with_tools(&["python3"], || {
        let (server, listen) = (Server::new(), own_addr(8080));
        let start = format!("echo $$$$ > {}; {}", server.path("pid").display(), server.script());
        let wake = format!("wake = {{ command = [\"/bin/sh\", \"-c\", '{start}'] }}\n");
        let portway = Portway::with(&mapping(listen, server.addr, &wake)).start();
        for _ in 0..3 {
            assert_eq!(page(listen).as_deref(), Some("hello"), "{}", portway.log());
        }
        assert_eq!(server.runs().len(), 1);
        // It dies, and the next client has it started again; what has ended is reaped.
        let first = server.pid().expect("it runs");
        kill_process(first, Signal::KILL).expect("the test's own process");
        eventually("it is gone", || (!server.lives()).then_some(()));
        assert_eq!(page(listen).as_deref(), Some("hello"), "{}", portway.log());
        assert_eq!(server.runs().len(), 2);
        let blocked = fs::read_to_string(server.path("signals")).expect("it ran");
        assert_eq!(blocked.trim(), "SigBlk:\t0000000000000000", "it hears every signal");
        assert!(!Path::new(&format!("/proc/{}", first.as_raw_nonzero())).exists(), "no zombie is left");
        portway.stop().with(0);
    });
}

#[test]
fn a_command_that_fails_is_told_with_its_last_words_and_is_not_run_for_each_client() {
    let (dir, listen, target) = (tempfile::tempdir().expect("a directory"), own_addr(8080), own_addr(9000));
    let runs = dir.path().join("runs");
    let script = format!("echo run >> {}; echo no disk >&2; exit 3", runs.display());
    let wake = format!("wake = {{ command = [\"/bin/sh\", \"-c\", '{script}'] }}\n");
    let mut portway = Portway::with(&mapping(listen, target, &wake)).start();
    let clients: Vec<_> = (0..10).map(|_| std::thread::spawn(move || page(listen))).collect();
    for client in clients {
        assert_eq!(client.join().expect("no panic"), None);
    }
    let line = portway.wait_log(messages::TARGET_NOT_STARTED, |_| true);
    assert_eq!(line.text("error"), "command /bin/sh: exit code 3: no disk");
    for line in portway.wait_sessions(10) {
        assert_eq!(line.text("reason"), "unreachable");
        assert!(line.text("error").starts_with("command /bin/sh: exit code 3: no disk"), "{}", line.raw());
    }
    let count = fs::read_to_string(&runs).expect("it ran").lines().count();
    assert!(count <= 2, "{count} runs for ten clients");
    portway.stop().with(0);
}

#[test]
fn a_client_that_is_refused_starts_nothing() {
    let (dir, listen, target) = (tempfile::tempdir().expect("a directory"), own_addr(8080), own_addr(9000));
    let ran = dir.path().join("ran");
    let wake = format!(
        "wake = {{ command = [\"/usr/bin/touch\", \"{}\"] }}\nallow = [\"192.0.2.0/24\"]\n",
        ran.display()
    );
    let mut portway = Portway::with(&mapping(listen, target, &wake)).start();
    assert_eq!(page(listen), None);
    portway.wait_log(messages::SESSIONS_REFUSED, |_| true);
    assert!(!ran.exists());
    assert!(portway.runs());
}

/// A target that answers each request with this page.
fn says(addr: SocketAddr, page: &'static str) -> TcpTarget {
    TcpTarget::serve_at(addr, move |mut stream| {
        let _ = stream.read(&mut [0; 1000]);
        let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{page}");
    })
}

/// A container engine that knows one container, which is a target at `addr` while it runs.
fn engine(addr: SocketAddr) -> Engine {
    let mut running = None;
    Engine::acting(move |path| match path {
        "containers/game/start" => {
            running = Some(says(addr, "from a container"));
            204
        }
        "containers/game/stop" => {
            drop(running.take());
            204
        }
        _ => 404,
    })
}

#[test]
fn a_container_is_started_for_a_client_and_stopped_after_it() {
    let (listen, target) = (own_addr(8080), own_addr(9000));
    let engine = engine(target);
    let wake = "wake = { docker = \"game\", stop_after = \"1s\" }\n";
    let portway = Portway::with(&mapping(listen, target, wake)).env("DOCKER_HOST", &engine.host()).start();
    assert_eq!(page(listen).as_deref(), Some("from a container"), "{}", portway.log());
    let both = ["POST /containers/game/start", "POST /containers/game/stop"];
    eventually("it is started and stopped", || (engine.asked() == both).then_some(()));
    portway.stop().with(0);
}

#[test]
fn a_container_that_is_not_there_is_told_with_the_cure() {
    let (listen, target) = (own_addr(8080), own_addr(9000));
    let engine = engine(target);
    let wake = "wake = { docker = \"gone\" }\n";
    let mut portway =
        Portway::with(&mapping(listen, target, wake)).env("DOCKER_HOST", &engine.host()).start();
    assert_eq!(page(listen), None);
    let line = portway.wait_log(messages::TARGET_NOT_STARTED, |_| true);
    assert!(line.text("error").contains("docker create --name gone"), "{}", line.raw());
    portway.stop().with(0);
}

/// A bus of the test's own, with a systemd that knows these units: `game`, a target while it runs; `broken`, whose job
/// fails; `secret`, which is not for everyone.
struct Bus {
    address: String,
    starts: Arc<AtomicUsize>,
    stops: Arc<AtomicUsize>,
    _daemon: Program,
    _dir: tempfile::TempDir,
    end: Option<tokio::sync::oneshot::Sender<()>>,
}

struct Manager {
    target: SocketAddr,
    running: Option<TcpTarget>,
    jobs: u32,
    starts: Arc<AtomicUsize>,
    stops: Arc<AtomicUsize>,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    async fn start_unit(
        &mut self,
        name: String,
        mode: String,
        #[zbus(signal_emitter)] emitter: zbus::object_server::SignalEmitter<'_>,
    ) -> zbus::fdo::Result<zbus::OwnedObjectPath> {
        assert_eq!(mode, "replace");
        let result = match name.as_str() {
            "game.service" => {
                self.starts.fetch_add(1, SeqCst);
                self.running = Some(says(self.target, "from a unit"));
                "done"
            }
            "broken.service" => "failed",
            _ => {
                let why = "Interactive authentication required.".to_owned();
                return Err(zbus::fdo::Error::InteractiveAuthorizationRequired(why));
            }
        };
        self.end_job(&name, result, &emitter).await
    }

    async fn stop_unit(
        &mut self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: zbus::object_server::SignalEmitter<'_>,
    ) -> zbus::fdo::Result<zbus::OwnedObjectPath> {
        self.running = None;
        self.stops.fetch_add(1, SeqCst);
        self.end_job(&name, "done", &emitter).await
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &zbus::object_server::SignalEmitter<'_>,
        id: u32,
        job: zbus::OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

impl Manager {
    /// The job ends before the answer: the signal may come first.
    async fn end_job(
        &mut self,
        unit: &str,
        result: &str,
        emitter: &zbus::object_server::SignalEmitter<'_>,
    ) -> zbus::fdo::Result<zbus::OwnedObjectPath> {
        self.jobs += 1;
        let path = |id: u32| format!("/org/freedesktop/systemd1/job/{id}");
        let job = |id| zbus::OwnedObjectPath::try_from(path(id)).expect("a path");
        // One of another client, too.
        Self::job_removed(emitter, 999, job(999), "other.service", "failed").await?;
        Self::job_removed(emitter, self.jobs, job(self.jobs), unit, result).await?;
        Ok(job(self.jobs))
    }
}

impl Bus {
    fn start(target: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = dir.path().join("bus");
        let address = format!("unix:path={}", socket.display());
        let daemon = Program::start(
            "dbus-daemon",
            &["--session", "--nofork", "--nopidfile", &format!("--address={address}")],
        );
        eventually("the bus listens", || socket.exists().then_some(()));
        let (starts, stops) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let manager = Manager {
            target,
            running: None,
            jobs: 0,
            starts: Arc::clone(&starts),
            stops: Arc::clone(&stops),
        };
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let at = address.clone();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let bus = zbus::connection::Builder::address(at.as_str())
                    .serve_at("/org/freedesktop/systemd1", manager)
                    .name("org.freedesktop.systemd1");
                let _bus = bus.build().await.expect("the test's own bus");
                ready.send(()).expect("the test waits");
                let _ = ended.await;
            });
        });
        is_ready.recv_timeout(DEADLINE).expect("systemd is on the bus");
        Self { address, starts, stops, _daemon: daemon, _dir: dir, end: Some(end) }
    }

    fn portway(&self, listen: SocketAddr, target: SocketAddr, unit: &str) -> Portway {
        let wake = format!("wake = {{ unit = \"{unit}.service\", stop_after = \"1s\" }}\n");
        let setup = Portway::with(&mapping(listen, target, &wake));
        setup.env("DBUS_SYSTEM_BUS_ADDRESS", &self.address).start()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.end.take());
    }
}

#[test]
fn a_unit_is_started_for_a_client_and_stopped_after_it() {
    with_tools(&["dbus-daemon"], || {
        let (listen, target) = (own_addr(8080), own_addr(9000));
        let bus = Bus::start(target);
        let mut portway = bus.portway(listen, target, "game");
        for round in 1..=2 {
            assert_eq!(page(listen).as_deref(), Some("from a unit"), "{}", portway.log());
            assert_eq!(bus.starts.load(SeqCst), round);
            eventually("it is stopped", || (bus.stops.load(SeqCst) == round).then_some(()));
            eventually("the stop is told", || {
                (portway.count(messages::TARGET_STOPPED) == round).then_some(())
            });
        }
        assert!(portway.runs());
        portway.stop().with(0);
    });
}

#[test]
fn a_unit_that_does_not_start_is_told_with_the_cure() {
    with_tools(&["dbus-daemon"], || {
        for (unit, said) in [
            (
                "broken",
                "unit broken.service: its job ended with \"failed\"; look into `journalctl -u broken.service`",
            ),
            ("secret", "org.freedesktop.systemd1.manage-units by a polkit rule"),
        ] {
            let (listen, target) = (own_addr(8080), own_addr(9000));
            let bus = Bus::start(target);
            let mut portway = bus.portway(listen, target, unit);
            assert_eq!(page(listen), None);
            let line = portway.wait_log(messages::TARGET_NOT_STARTED, |_| true);
            assert!(line.text("error").contains(said), "{}", line.raw());
            portway.stop().with(0);
        }
    });
}

#[test]
fn without_a_bus_the_error_says_where_it_was_looked_for() {
    let (listen, target) = (own_addr(8080), own_addr(9000));
    let wake = "wake = { unit = \"game.service\" }\n";
    let setup = Portway::with(&mapping(listen, target, wake));
    let mut portway = setup.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/no/such/bus").start();
    assert_eq!(page(listen), None);
    let line = portway.wait_log(messages::TARGET_NOT_STARTED, |_| true);
    assert!(line.text("error").contains("no way to the system bus"), "{}", line.raw());
    assert!(line.text("error").contains("/no/such/bus"), "{}", line.raw());
    portway.stop().with(0);
}

#[test]
fn a_magic_packet_wakes_a_machine_on_another_cable() {
    in_own_network(&["nsenter"], || {
        let neighbour = Neighbour::join("lan", ("10.91.2.1", "fd91:2::1"), ("10.91.2.2", "fd91:2::2"));
        let target = SocketAddr::from(([10, 91, 2, 2], 80));
        let packets = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (card, noted) =
            neighbour.inside(|| (UdpSocket::bind("0.0.0.0:9").expect("port 9"), Arc::clone(&packets)));
        let network = neighbour.network();
        std::thread::spawn(move || {
            let mut buffer = [0; 200];
            let mut awake = None;
            while let Ok(length) = card.recv(&mut buffer) {
                noted.lock().expect("no panic").push(buffer[..length].to_vec());
                awake.get_or_insert_with(|| {
                    network.enter();
                    says(target, "good morning")
                });
            }
        });
        let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        let wake = "wake = { mac = \"02:91:00:00:00:07\" }\n";
        let portway = Portway::with(&mapping(listen, target, wake)).start();
        assert_eq!(page(listen).as_deref(), Some("good morning"), "{}", portway.log());
        let magic = [vec![0xff; 6], [2, 0x91, 0, 0, 0, 7].repeat(16)].concat();
        eventually("it is sent three times", || (packets.lock().expect("no panic").len() >= 3).then_some(()));
        assert!(packets.lock().expect("no panic").iter().all(|packet| *packet == magic));
        portway.stop().with(0);
    });
}

#[test]
fn a_program_that_is_not_there_is_told_with_the_cure() {
    let (listen, target) = (own_addr(8080), own_addr(9000));
    let config = mapping(listen, target, "wake = { command = [\"no-such-program-of-anyone\"] }\n");
    let mut portway = Portway::with(&config).start();
    assert_eq!(page(listen), None);
    let line = portway.wait_log(messages::TARGET_NOT_STARTED, |_| true);
    assert!(line.text("error").contains("name an existing program by its whole path"), "{}", line.raw());
}
