//! Home routers to test against: a real one in a network of its own, and one that misbehaves on purpose.
//!
//! Only the standard library, `rustix` and `tempfile` are used, so that the unit tests of the drivers can have the same
//! routers. Each ends with the test, even one that is killed: what holds a router waits for the end of its input.

use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// How long a router may take to come up on a busy machine.
const START: Duration = Duration::from_secs(60);

/// How long a connection or an answer through the router may take: far more than it needs.
const REACH: Duration = Duration::from_secs(2);

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/router").join(name)
}

/// Starts a program that says `READY …` when it is, and ends with its input; gives that line.
#[track_caller]
fn held(command: &mut Command) -> (Child, String) {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|e| panic!("start {command:?}: {e}"));
    let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // Read to the end, so that it can always write.
        for line in lines.map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    let ready = told.recv_timeout(START).unwrap_or_default();
    assert!(ready.starts_with("READY"), "{command:?} did not become ready: {ready:?}");
    (child, ready)
}

fn let_go(child: &mut Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}

/// A household behind a real router (`tests/lab/router/router.sh`).
///
/// `lan` is the machine under test (192.168.77.2, 2001:db8:77::2), `lan2` another one (.3), `rtr` the router (.1), `wan`
/// a client on the internet (11.22.33.9, 2001:db8:99::9). The router's external address is [`RouterLab::WAN`].
#[derive(Debug)]
pub(crate) struct RouterLab {
    name: String,
    settings: Vec<(String, String)>,
    holder: Child,
}

impl RouterLab {
    /// The programs that it needs.
    pub(crate) const TOOLS: [&str; 5] = ["ip", "nft", "miniupnpd", "ss", "sysctl"];
    /// The router's external address.
    pub(crate) const WAN: Ipv4Addr = Ipv4Addr::new(11, 22, 33, 1);
    /// The router's address inside.
    pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
    /// The machine under test.
    pub(crate) const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
    /// The other machine.
    pub(crate) const LAN2: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 3);

    /// Builds one, with these settings of `router.sh`. Only root may; [`RouterLab::TOOLS`] must be there.
    #[track_caller]
    pub(crate) fn up<const N: usize>(settings: [(&str, &str); N]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pw{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (holder, _) = held(Self::script(&name, &settings).arg("hold"));
        Self { name, settings, holder }
    }

    fn script(name: &str, settings: &[(String, String)]) -> Command {
        let mut command = Command::new(file("router.sh"));
        command.env("LAB", name).envs(settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// One command of `router.sh`, and what it says: `run("wanip 100.64.3.4")`.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> String {
        let mut script = Self::script(&self.name, &self.settings);
        let ran = script.args(command.split_whitespace()).stdin(Stdio::null()).output();
        let ran = ran.unwrap_or_else(|e| panic!("start {script:?}: {e}"));
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "router.sh {command}, {}: {said}{errors}", ran.status);
        said
    }

    /// The same with another setting from now on: `run_with("HTTP_PORT", "0", "daemon restart")`.
    #[track_caller]
    pub(crate) fn run_with(&mut self, setting: &str, value: &str, command: &str) -> String {
        self.settings.retain(|(name, _)| name != setting);
        self.settings.push((setting.to_owned(), value.to_owned()));
        self.run(command)
    }

    /// Whether it was built with this setting of `router.sh`, or has it by now.
    pub(crate) fn has(&self, setting: &str, value: &str) -> bool {
        self.settings.iter().any(|(name, its)| (name.as_str(), its.as_str()) == (setting, value))
    }

    /// The name of one of its networks for `ip netns exec`.
    pub(crate) fn network(&self, of: &str) -> String {
        format!("{}-{of}", self.name)
    }

    /// Runs `body` on a thread in one of its networks, where it also makes its sockets, which then stay there.
    #[track_caller]
    pub(crate) fn inside<T: Send>(&self, of: &str, body: impl FnOnce() -> T + Send) -> T {
        let network = Path::new("/run/netns").join(self.network(of));
        let network = std::fs::File::open(&network).unwrap_or_else(|e| panic!("{}: {e}", network.display()));
        let entered = move || {
            use std::os::fd::AsFd;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter a network");
            body()
        };
        std::thread::scope(|scope| match scope.spawn(entered).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// A server in one of its networks that sends everything back, on the port over TCP and UDP.
    #[track_caller]
    pub(crate) fn echo(&self, of: &str, port: u16) -> Echo {
        self.inside(of, || Echo::start(port))
    }

    /// Whether the echo at that address answers a client in the network over TCP.
    pub(crate) fn reaches_tcp(&self, from: &str, to: SocketAddr) -> bool {
        self.inside(from, || {
            let answered = || -> std::io::Result<bool> {
                let mut stream = TcpStream::connect_timeout(&to, REACH)?;
                stream.set_read_timeout(Some(REACH))?;
                stream.write_all(b"hello?")?;
                stream.shutdown(Shutdown::Write)?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer == "hello?")
            };
            answered().unwrap_or(false)
        })
    }

    /// The same with more than fits into a few packets: those of full size have to arrive, too.
    pub(crate) fn reaches_much(&self, from: &str, to: SocketAddr) -> bool {
        self.inside(from, || {
            let answered = || -> std::io::Result<bool> {
                let all = vec![b'm'; 20_000];
                let mut stream = TcpStream::connect_timeout(&to, REACH)?;
                stream.set_read_timeout(Some(REACH))?;
                stream.write_all(&all)?;
                stream.shutdown(Shutdown::Write)?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer)?;
                Ok(answer == all)
            };
            answered().unwrap_or(false)
        })
    }

    /// Whether the echo answers over UDP, where a datagram may be lost.
    pub(crate) fn reaches_udp(&self, from: &str, to: SocketAddr) -> bool {
        self.inside(from, || {
            let answered = || -> std::io::Result<bool> {
                let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
                let socket = UdpSocket::bind((any, 0))?;
                socket.set_read_timeout(Some(REACH / 4))?;
                socket.connect(to)?;
                let mut answer = [0; 32];
                for _ in 0..4 {
                    socket.send(b"hello?")?;
                    match socket.recv(&mut answer) {
                        Ok(len) => return Ok(&answer[..len] == b"hello?"),
                        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(false)
            };
            answered().unwrap_or(false)
        })
    }
}

impl Drop for RouterLab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = Self::script(&self.name, &[]).arg("log").stdin(Stdio::null()).output();
            let log = log.map(|log| String::from_utf8_lossy(&log.stdout).into_owned()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("-- the router's last lines\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        let_go(&mut self.holder);
    }
}

/// A server that sends everything back, until it is let go.
#[derive(Debug)]
pub(crate) struct Echo {
    tcp: TcpListener,
    udp: UdpSocket,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Echo {
    fn start(port: u16) -> Self {
        let any = SocketAddr::from(([0_u16; 8], port));
        let tcp = TcpListener::bind(any).unwrap_or_else(|e| panic!("listen on {any}: {e}"));
        let udp = UdpSocket::bind(any).unwrap_or_else(|e| panic!("bind {any}: {e}"));
        let (accepts, answers) =
            (tcp.try_clone().expect("a descriptor"), udp.try_clone().expect("a descriptor"));
        let streams = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepts.accept() {
                let _ = stream.set_read_timeout(Some(REACH));
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).is_ok() {
                    let _ = stream.write_all(&all);
                }
            }
        });
        let datagrams = std::thread::spawn(move || {
            let mut datagram = [0; 1500];
            while let Ok((len, from)) = answers.recv_from(&mut datagram) {
                // An empty one to a socket that was shut down, not a client's.
                if len == 0 {
                    return;
                }
                let _ = answers.send_to(&datagram[..len], from);
            }
        });
        Self { tcp, udp, threads: vec![streams, datagrams] }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Both calls wake the thread that waits on the socket.
        let _ = rustix::net::shutdown(&self.tcp, rustix::net::Shutdown::Both);
        let _ = rustix::net::shutdown(&self.udp, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A router that misbehaves in one way (`tests/lab/router/fake_igd.py`), on the loopback interface or in a household.
#[derive(Debug)]
pub(crate) struct FakeRouter {
    program: Child,
    search_port: u16,
    said: File,
}

impl FakeRouter {
    /// The programs that it needs.
    pub(crate) const TOOLS: [&str; 1] = ["python3"];

    /// Starts one.
    #[track_caller]
    pub(crate) fn start(mode: &str) -> Self {
        Self::start_with(mode, [])
    }

    /// The same with further arguments.
    #[track_caller]
    pub(crate) fn start_with<const N: usize>(mode: &str, args: [&str; N]) -> Self {
        let mut command = Command::new("python3");
        command.arg(file("fake_igd.py")).args([mode, "--unicast", "--ssdp", "0"]).args(args);
        Self::run(&mut command)
    }

    /// One on a machine of a household, which hears what is asked of all machines there.
    #[track_caller]
    pub(crate) fn beside(lab: &RouterLab, on: &str, ip: Ipv4Addr, mode: &str) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.network(on), "python3"]).arg(file("fake_igd.py"));
        Self::run(command.args([mode, "--ip", &ip.to_string()]))
    }

    #[track_caller]
    fn run(command: &mut Command) -> Self {
        // It writes before it answers: its line is in the file before a client can know the answer.
        let said = tempfile::tempfile().expect("a temporary file");
        let its_own = said.try_clone().expect("a descriptor");
        let (program, ready) = held(command.arg("--until-eof").stderr(its_own));
        let search_port = ready.rsplit(' ').next().and_then(|port| port.parse().ok());
        Self { program, search_port: search_port.expect("a line with its ports"), said }
    }

    /// The port of its search on 127.0.0.1: `gateway = "127.0.0.1:PORT"`.
    pub(crate) fn search_port(&self) -> u16 {
        self.search_port
    }

    /// Each request that it got: each reader of its description, and each other question with the answer and its openings.
    pub(crate) fn log(&self) -> Vec<String> {
        let mut said = vec![0; self.said.metadata().map_or(0, |file| file.len()).try_into().expect("small")];
        // At a place of its own: reading on would move the place where the program writes.
        self.said.read_exact_at(&mut said, 0).expect("a file never gets shorter");
        // A line that is still being written does not count.
        let whole = said.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        String::from_utf8_lossy(&said[..whole]).lines().map(str::to_owned).collect()
    }

    /// It forgets everything, and has another BOOTID.
    pub(crate) fn restart(&self) {
        self.signal(Signal::USR1);
    }

    /// Its description moves to another address.
    pub(crate) fn move_description(&self) {
        self.signal(Signal::USR2);
    }

    /// It hangs, in whatever it does, from now on.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.program), signal).expect("the test's own program");
    }
}

impl Drop for FakeRouter {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let_go(&mut self.program);
        if std::thread::panicking() {
            eprintln!("-- the fake router's requests\n{}", self.log().join("\n"));
        }
    }
}
