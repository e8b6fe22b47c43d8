//! A household of the router tests: a router, mappings that its neighbours have on it, and a daemon behind it.
//!
//! When a household ends, the mappings of the neighbours must be as they were. One of them looks like a mapping of
//! portway, and another leads to the machine of the daemon itself.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    ops::{Deref, DerefMut},
    path::Path,
    sync::Mutex,
    time::Duration,
};

use toml::{Table, Value};

use super::{
    Client, FakeRouter, Portway, RouterLab, Setup, TcpTarget, daemon::Exit, eventually, free_port, messages,
    router::Echo,
};

/// A router with mappings of neighbours.
pub(crate) trait HomeRouter {
    /// What a household has beside the router.
    type Rest;

    /// Makes that: mappings of neighbours, if the router does not bring them, and a target.
    fn rest(&self) -> Self::Rest;

    /// The keys of `[router]` without which the daemon does not find it.
    fn keys(&self) -> String;

    /// The daemon on a machine of the household.
    fn place(&self, setup: Setup, on: &str) -> Setup;

    /// The mappings on the router, without those of the neighbours.
    fn openings(&self) -> Vec<String>;

    /// Fails unless each mapping of a neighbour is there and was not touched.
    fn assert_neighbours_are_untouched(&self, rest: &Self::Rest);
}

/// A household. It gives out its router.
#[derive(Debug)]
pub(crate) struct Household<R: HomeRouter> {
    router: R,
    rest: R::Rest,
    /// Where the daemon keeps its state.
    state: tempfile::TempDir,
}

impl<R: HomeRouter> Household<R> {
    /// A household with this router, and no daemon yet.
    fn with(router: R) -> Self {
        let rest = router.rest();
        Self { router, rest, state: tempfile::tempdir().expect("a temporary directory") }
    }

    /// Where a daemon of [`Household::start`] keeps its state.
    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    /// `[router]` with checks as often as can be, and a log with each question.
    pub(crate) fn settings(&self, more: &str) -> String {
        let keys = self.router.keys();
        format!("[router]\n{keys}check_every = \"5s\"\n{more}\n[log]\nformat = \"json\"\nlevel = \"debug\"\n")
    }

    /// A whole configuration: the mappings, with the settings unless the text has some.
    pub(crate) fn config(&self, mappings: &str) -> String {
        let settings = if mappings.contains("[router]") { String::new() } else { self.settings("") };
        format!("{mappings}{settings}")
    }

    /// Starts a daemon, and waits until it has opened on the router what the configuration exposes.
    #[track_caller]
    pub(crate) fn up(&self, mappings: &str) -> Portway {
        let mut portway = self.start(mappings);
        for (name, protocol) in exposed(mappings) {
            portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| {
                line.text("mapping") == name && line.text("protocol") == protocol
            });
        }
        portway
    }

    /// Starts a daemon, and does not wait for the router.
    #[track_caller]
    pub(crate) fn start(&self, mappings: &str) -> Portway {
        self.start_on("lan", mappings, self.state())
    }

    /// The same on one of the machines, with its state in another directory.
    #[track_caller]
    pub(crate) fn start_on(&self, machine: &str, mappings: &str, state: &Path) -> Portway {
        let setup =
            Portway::with(&self.config(mappings)).env("STATE_DIRECTORY", &state.display().to_string());
        self.router.place(setup, machine).start()
    }

    /// Stops a daemon: its end is in order, and no mapping of it is left on the router.
    #[track_caller]
    pub(crate) fn down(&self, portway: Portway) -> Exit {
        let exit = portway.stop().with(0);
        assert_eq!(self.router.openings(), [""; 0], "{}", exit.log);
        exit
    }
}

/// The name and the protocols of each mapping that is exposed.
fn exposed(config: &str) -> Vec<(String, String)> {
    let config: Table = config.parse().unwrap_or_else(|e| panic!("{e}\n{config}"));
    let mappings = config.get("mapping").and_then(Value::as_array).expect("mappings");
    let is_exposed = |mapping: &&Value| mapping.get("router").is_some_and(|key| key.as_bool() != Some(false));
    let text = |mapping: &Value, key| mapping[key].as_str().expect("a text").to_owned();
    let each = |mapping: &Value| -> Vec<(String, String)> {
        let publish = text(mapping, "publish");
        let protocols = publish.rsplit_once('/').map_or("tcp", |(_, protocols)| protocols);
        protocols.split('+').map(|protocol| (text(mapping, "name"), protocol.to_owned())).collect()
    };
    let all: Vec<_> = mappings.iter().filter(is_exposed).flat_map(each).collect();
    assert!(!all.is_empty(), "no mapping is exposed: {config:?}");
    all
}

impl<R: HomeRouter> Deref for Household<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.router
    }
}

impl<R: HomeRouter> DerefMut for Household<R> {
    fn deref_mut(&mut self) -> &mut R {
        &mut self.router
    }
}

impl<R: HomeRouter> Drop for Household<R> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.router.assert_neighbours_are_untouched(&self.rest);
        }
    }
}

/// What the mappings behind a fake router lead to: a target on this machine, and a port for `web`.
#[derive(Debug)]
pub(crate) struct Web {
    target: TcpTarget,
    port: u16,
}

impl HomeRouter for FakeRouter {
    type Rest = Web;

    fn rest(&self) -> Web {
        Web { target: TcpTarget::echo(), port: free_port() }
    }

    fn keys(&self) -> String {
        format!("gateway = \"127.0.0.1:{}\"\nprotocols = [\"upnp\"]\n", self.search_port())
    }

    fn place(&self, setup: Setup, _on: &str) -> Setup {
        setup
    }

    fn openings(&self) -> Vec<String> {
        let log = self.log();
        let last = log.iter().rev().find_map(|line| line.split_once('{'));
        let (_, openings) = last.unwrap_or_default();
        openings
            .trim_end_matches('}')
            .split("), (")
            .filter(|opening| !opening.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn assert_neighbours_are_untouched(&self, _rest: &Web) {
        let touched: Vec<_> = self.log().into_iter().filter(|line| line.starts_with("touched")).collect();
        assert_eq!(touched, [""; 0], "mappings of neighbours");
    }
}

impl Household<FakeRouter> {
    /// A household on the loopback interface, whose router misbehaves in one way.
    #[track_caller]
    pub(crate) fn fake(mode: &str) -> Self {
        Self::with(FakeRouter::start(mode))
    }

    /// The same with further arguments of the router.
    #[track_caller]
    pub(crate) fn fake_with<const N: usize>(mode: &str, args: [&str; N]) -> Self {
        Self::with(FakeRouter::start_with(mode, args))
    }

    /// The port of the mapping `web`.
    pub(crate) fn port(&self) -> u16 {
        self.rest.port
    }

    /// The mapping `web`; its `router` key.
    pub(crate) fn web(&self, router: &str) -> String {
        self.mapping("web", self.port(), router)
    }

    /// Another mapping.
    pub(crate) fn mapping(&self, name: &str, port: u16, router: &str) -> String {
        let target = self.rest.target.addr;
        format!("[[mapping]]\nname = \"{name}\"\npublish = \"{port}:{target}\"\nrouter = {router}\n")
    }

    /// A session through `web`.
    #[track_caller]
    pub(crate) fn ping(&self) {
        Client::to(([127, 0, 0, 1], self.port()).into()).ping();
    }

    /// How often the router was asked for this.
    pub(crate) fn requests(&self, action: &str) -> usize {
        self.log().iter().filter(|line| line.contains(action)).count()
    }

    /// Waits for so many further checks of the router.
    #[track_caller]
    pub(crate) fn wait_checks(&self, count: usize) {
        const CHECK: &str = "GetExternalIPAddress";
        let before = self.requests(CHECK);
        eventually("another check", || (self.requests(CHECK) >= before + count).then_some(()));
    }
}

/// The household of a router lab: an echo on `lan` at [`LAN_TARGET`], and the rules for the neighbours' mappings.
#[derive(Debug)]
pub(crate) struct Lan {
    _echo: Echo,
    neighbours: Mutex<Vec<String>>,
}

/// The port of the echo on `lan`.
pub(crate) const LAN_TARGET: u16 = 8000;

/// A mapping of a neighbour over TCP: its machine, its text, and its external and internal ports.
const NEIGHBOURS: [(&str, Ipv4Addr, &str, u16, u16); 2] = [
    ("lan2", RouterLab::LAN2, "portway:web@elsewhere", 7001, 9080),
    ("lan", RouterLab::LAN, "ssh", 7002, 8022),
];

/// The rules that change an address, with their handles: of the neighbours or of others.
fn rules(lab: &RouterLab, of_neighbours: bool) -> Vec<String> {
    let is_neighbours = |rule: &str| NEIGHBOURS.iter().any(|n| rule.contains(&format!(" dport {} ", n.3)));
    let rules = lab.run("rules");
    let rules = rules.lines().filter(|rule| rule.contains(" dnat ") && is_neighbours(rule) == of_neighbours);
    rules.map(|rule| rule.trim().to_owned()).collect()
}

/// Has the neighbours open their mappings, and gives the rules for them.
#[track_caller]
fn let_neighbours_open(lab: &RouterLab) -> Vec<String> {
    for (machine, ip, text, external, internal) in NEIGHBOURS {
        lab.inside(machine, || {
            if lab.has("UPNP", "no") {
                eventually("the router maps the port", || map_by_natpmp(external, internal).ok());
            } else {
                let answer = map_by_upnp(ip, text, external, internal).expect("an answer of the router");
                assert!(answer.contains(" 200 OK"), "{answer}");
            }
        });
    }
    let rules = rules(lab, true);
    assert_eq!(rules.len(), NEIGHBOURS.len(), "{rules:#?}");
    rules
}

fn map_by_upnp(ip: Ipv4Addr, text: &str, external: u16, internal: u16) -> std::io::Result<String> {
    let service = "urn:schemas-upnp-org:service:WANIPConnection:1";
    let values = [
        ("RemoteHost", ""),
        ("ExternalPort", &external.to_string()),
        ("Protocol", "TCP"),
        ("InternalPort", &internal.to_string()),
        ("InternalClient", &ip.to_string()),
        ("Enabled", "1"),
        ("PortMappingDescription", text),
        ("LeaseDuration", "0"),
    ];
    let values = values.map(|(name, value)| format!("<New{name}>{value}</New{name}>")).concat();
    let body = format!(
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
         <u:AddPortMapping xmlns:u=\"{service}\">{values}</u:AddPortMapping></s:Body></s:Envelope>"
    );
    let mut stream = TcpStream::connect((RouterLab::GATEWAY, 5555))?;
    write!(
        stream,
        "POST /ctl/IPConn HTTP/1.1\r\nHost: {}:5555\r\nSOAPAction: \"{service}#AddPortMapping\"\r\n\
         Content-Type: text/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        RouterLab::GATEWAY,
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// RFC 6886, section 3.3.
fn map_by_natpmp(external: u16, internal: u16) -> std::io::Result<()> {
    const MAP_TCP: u8 = 2;
    let mut question = vec![0, MAP_TCP, 0, 0];
    question.extend([internal.to_be_bytes(), external.to_be_bytes()].concat());
    question.extend(86_400_u32.to_be_bytes());
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect((RouterLab::GATEWAY, 5351))?;
    socket.send(&question)?;
    let mut answer = [0; 16];
    socket.recv(&mut answer)?;
    assert_eq!(answer[..4], [0, 128 + MAP_TCP, 0, 0], "{answer:?}");
    Ok(())
}

impl HomeRouter for RouterLab {
    type Rest = Lan;

    fn rest(&self) -> Lan {
        let echo = self.echo("lan", LAN_TARGET);
        Lan { _echo: echo, neighbours: let_neighbours_open(self).into() }
    }

    fn keys(&self) -> String {
        String::new()
    }

    fn place(&self, setup: Setup, on: &str) -> Setup {
        setup.through(["ip", "netns", "exec", &self.network(on)])
    }

    fn openings(&self) -> Vec<String> {
        rules(self, false)
    }

    fn assert_neighbours_are_untouched(&self, rest: &Lan) {
        assert_eq!(rules(self, true), *rest.neighbours.lock().expect("no test panicked here"));
    }
}

impl Household<RouterLab> {
    /// A household behind a real router with these settings of `router.sh`. Only root may.
    #[track_caller]
    pub(crate) fn real<const N: usize>(settings: [(&str, &str); N]) -> Self {
        Self::with(RouterLab::up(settings))
    }

    /// One command of `router.sh`. After a restart of the router the neighbours open their mappings again.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> String {
        let said = self.router.run(command);
        self.after(command);
        said
    }

    /// The same with another setting from now on.
    #[track_caller]
    pub(crate) fn run_with(&mut self, setting: &str, value: &str, command: &str) {
        self.router.run_with(setting, value, command);
        self.after(command);
    }

    fn after(&self, command: &str) {
        if command == "reboot" {
            *self.rest.neighbours.lock().expect("no test panicked here") = let_neighbours_open(&self.router);
        }
    }
}
