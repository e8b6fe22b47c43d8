//! What a test needs from the machine: the right to make a network of its own, and other people's programs.

use std::{
    any::type_name,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    Browser, FakeRouter, Household, Ran, RouterLab, Suite, SystemdLab, axe, eventually, portway_program,
};

/// Set in the copy of this program that runs inside a network of its own.
const INSIDE: &str = "PORTWAY_TEST_NETWORK";

/// Where the modules of Node for Minecraft are, if they are installed: `tests/run` says so.
const MINECRAFT: &str = "PORTWAY_TEST_MINECRAFT";

/// A file that `tests/run` names: one line for each test that could not run here.
const SKIPS: &str = "PORTWAY_TEST_SKIPS";

/// Whether this process may do everything.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a program to its end, and fails unless it succeeds.
#[track_caller]
pub(crate) fn run(command: &str) -> Ran {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a command has a name");
    Ran::of(Command::new(program).args(words).stdin(Stdio::null())).exits(0)
}

/// Gives the loopback interface one more address, and waits until it can be used: the kernel makes the route of an IPv6
/// address in its own time.
#[track_caller]
pub(crate) fn add_address(ip: IpAddr) {
    let (length, flag) = if ip.is_ipv4() { (32, "") } else { (128, "nodad") };
    run(&format!("ip addr add {ip}/{length} dev lo {flag}"));
    wait_usable(ip);
}

/// Waits until a datagram from the address to itself arrives. A bind and a connect succeed before that, but such a socket
/// keeps the missing route that it found, and loses all that is sent with it: so each try has a socket of its own.
#[track_caller]
fn wait_usable(ip: IpAddr) {
    let arrives = || -> std::io::Result<()> {
        let socket = UdpSocket::bind((ip, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket.connect(socket.local_addr()?)?;
        socket.send(b"?")?;
        socket.recv(&mut [0]).map(drop)
    };
    eventually(&format!("{ip} can be used"), || arrives().ok());
}

/// Brings up the loopback interface of a new network, and waits until the kernel is done with it: an IPv6 address that is
/// added before may be lost again.
#[track_caller]
fn loopback_up() {
    run("ip link set lo up");
    // The interface says so a second later, and until then routes come and go.
    eventually("the loopback interface is up", || {
        run("ip -oneline link show lo").out.contains("state UNKNOWN").then_some(())
    });
    wait_usable(Ipv4Addr::LOCALHOST.into());
    if Path::new("/proc/net/if_inet6").exists() {
        wait_usable(Ipv6Addr::LOCALHOST.into());
    }
}

/// Says, loudly, that the test of `body` cannot run here.
fn skip<F>(_body: &F, why: &str) {
    skip_named(name_of::<F>(), why);
}

fn skip_named(name: &str, why: &str) {
    let line = format!("SKIPPED: {name}: {why}\n");
    eprint!("{line}");
    if let Some(file) = std::env::var_os(SKIPS) {
        let mut file =
            std::fs::OpenOptions::new().append(true).create(true).open(&file).expect("the list of skips");
        // One write, so that the lines of tests side by side stay whole.
        file.write_all(line.as_bytes()).expect("the list of skips");
    }
}

/// Whether the test of `body` can run here: as root if that is needed, and with these tools. If not, that is said.
fn can_run<F>(body: &F, needs_root: bool, tools: &[&str]) -> bool {
    let obstacle = obstacle(needs_root, tools);
    if let Some(why) = &obstacle {
        skip(body, why);
    }
    obstacle.is_none()
}

/// Why a test cannot run here.
fn obstacle(needs_root: bool, tools: &[&str]) -> Option<String> {
    if needs_root && !is_root() { Some("only root may do this".to_owned()) } else { missing(tools) }
}

/// Runs the test's `body` with a real router in networks of its own, if the router's tools and these further ones are
/// there.
#[track_caller]
pub(crate) fn in_router_lab<F: FnOnce(&mut RouterLab), const N: usize>(
    tools: &[&str],
    settings: [(&str, &str); N],
    body: F,
) {
    if can_run(&body, true, &[tools, &RouterLab::TOOLS].concat()) {
        body(&mut RouterLab::up(settings));
    }
}

/// The same with a whole household.
#[track_caller]
pub(crate) fn in_household<F: FnOnce(&mut Household<RouterLab>), const N: usize>(
    tools: &[&str],
    settings: [(&str, &str); N],
    body: F,
) {
    if can_run(&body, true, &[tools, &RouterLab::TOOLS].concat()) {
        body(&mut Household::real(settings));
    }
}

/// Runs the test's `body` with a household whose router misbehaves in one way, if it can be started.
#[track_caller]
pub(crate) fn in_fake_household<F: FnOnce(&Household<FakeRouter>)>(mode: &str, body: F) {
    if can_run(&body, false, &FakeRouter::TOOLS) {
        body(&Household::fake(mode));
    }
}

/// Runs the test's `body` if these `tools` are there.
#[track_caller]
pub(crate) fn with_tools<F: FnOnce()>(tools: &[&str], body: F) {
    if can_run(&body, false, tools) {
        body();
    }
}

/// Runs the test's `body` if a browser and axe-core, the rules of accessibility, are there.
#[track_caller]
pub(crate) fn with_accessibility_rules<F: FnOnce(&str)>(body: F) {
    match axe() {
        Some(axe) if can_run(&body, false, &Browser::TOOLS) => body(&axe),
        Some(_) => {}
        None => skip(&body, "not installed: axe-core"),
    }
}

/// Runs the test's `body` in a network of its own, if the modules of Node for Minecraft are there: it gets their directory.
#[track_caller]
pub(crate) fn in_own_network_with_minecraft<F: FnOnce(&str)>(body: F) {
    let Some(modules) = std::env::var_os(MINECRAFT) else {
        return skip(&body, "not installed: minecraft-protocol, flying-squid");
    };
    let modules = modules.into_string().expect("a readable path");
    in_own_network_as(name_of::<F>(), &["node"], || body(&modules));
}

/// Runs the test's `body` with a real router in networks of its own, if that and the modules of Node for Minecraft are there.
#[track_caller]
pub(crate) fn in_router_lab_with_minecraft<F: FnOnce(&mut RouterLab, &str), const N: usize>(
    tools: &[&str],
    settings: [(&str, &str); N],
    body: F,
) {
    let Some(modules) = std::env::var_os(MINECRAFT) else {
        return skip(&body, "not installed: minecraft-protocol, flying-squid");
    };
    let modules = modules.into_string().expect("a readable path");
    if can_run(&body, true, &[tools, &["node"], &RouterLab::TOOLS].concat()) {
        body(&mut RouterLab::up(settings), &modules);
    }
}

/// Runs the test's `body` as root, if these `tools` are there.
#[track_caller]
pub(crate) fn as_root<F: FnOnce()>(tools: &[&str], body: F) {
    if can_run(&body, true, tools) {
        body();
    }
}

/// Runs the test's `body` in a lab with a real systemd, if there is a root for it.
#[track_caller]
pub(crate) fn under_systemd<F: FnOnce(&SystemdLab) + Send>(suite: Suite, body: F) {
    if !can_run(&body, true, &SystemdLab::TOOLS) {
        return;
    }
    match SystemdLab::prepare(suite) {
        Ok(()) => SystemdLab::with(suite, body),
        Err(why) => skip(&body, &why),
    }
}

/// Runs the test's `body` in a lab of its own with a real systemd and these files, without portway. `files` are made when
/// the lab can be had.
#[track_caller]
pub(crate) fn under_bare_systemd<F: FnOnce(&SystemdLab) + Send>(
    suite: Suite,
    tools: &[&str],
    files: impl FnOnce() -> Vec<(PathBuf, &'static str)>,
    body: F,
) {
    if !can_run(&body, true, &[&SystemdLab::TOOLS[..], tools].concat()) {
        return;
    }
    match SystemdLab::prepare(suite) {
        Ok(()) => SystemdLab::bare(suite, &files(), body),
        Err(why) => skip(&body, &why),
    }
}

/// Which of these tools are not there.
fn missing(tools: &[&str]) -> Option<String> {
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !is_installed(tool)).collect();
    (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
}

/// Runs the test's `body` in a network namespace of its own, where every port is free, if these `tools` are there.
///
/// A namespace belongs to a process, so the body runs in a second copy of this program, which is asked for this one
/// test. The namespace has no name and goes away with the last process in it.
#[track_caller]
pub(crate) fn in_own_network<F: FnOnce()>(tools: &[&str], body: F) {
    in_own_network_as(name_of::<F>(), tools, body);
}

/// Runs the test's `body` in a lab with this container engine, and with an image as `portway:lab`: the one of the Dockerfile,
/// but with the program under test in the place of the one that the Dockerfile builds.
#[track_caller]
pub(crate) fn in_container_lab<F: FnOnce()>(engine: &str, body: F) {
    in_container_lab_with(engine, body, |lab| {
        let built = built();
        lab.arg("--built").arg(built.path());
        built
    });
}

/// The same, with the image of the Dockerfile as it is. The first one builds it, which takes minutes; the next ones find it
/// in the lab's store.
#[track_caller]
pub(crate) fn in_container_lab_of_the_dockerfile<F: FnOnce()>(body: F) {
    in_container_lab_with("docker", body, |lab| {
        // With little optimisation: the bytes are the subject and not their speed.
        for arg in ["REVISION=0123456789abcdef", "LTO=off", "CODEGEN_UNITS=16", "OPT_LEVEL=1"] {
            lab.args(["--build-arg", arg]);
        }
    });
}

/// What the stage `build` of the Dockerfile makes, of the program under test: that one is not static.
fn built() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (image, state) = (dir.path().join("image"), dir.path().join("state"));
    for place in [image.clone(), state.join("var/lib/portway"), state.join("run/portway")] {
        std::fs::create_dir_all(place).expect("the test's own directory");
    }
    Ran::of(Command::new("strip").arg("-o").arg(image.join("portway")).arg(portway_program())).exits(0);
    copy_libraries(portway_program(), &image);
    dir
}

/// Copies the libraries that a program needs, each to its place below `root`.
#[track_caller]
pub(crate) fn copy_libraries(program: &Path, root: &Path) {
    const COPY: &str = "for file in $(ldd \"$0\" | grep -o '/[^ ]*'); do \
         install -D \"$(realpath \"$file\")\" \"$1/$file\"; done";
    Ran::of(Command::new("sh").args(["-ec", COPY]).arg(program).arg(root)).exits(0);
}

/// Runs `body` in a lab. `prepare` says how its image is made, and keeps what that needs.
#[track_caller]
fn in_container_lab_with<F: FnOnce(), K>(engine: &str, body: F, prepare: impl FnOnce(&mut Command) -> K) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let tools = ["unshare", "slirp4netns", "mmdebstrap", "runc", "iptables", "rustup", "haproxy", "strip"];
    let podman = if engine == "podman" { &["podman", "catatonit"][..] } else { &[] };
    if let Some(why) = obstacle(true, &[&tools[..], podman].concat()) {
        return skip(&body, &why);
    }
    let (root, this) = (env!("CARGO_MANIFEST_DIR"), std::env::current_exe().expect("this program"));
    let lab = || Command::new(Path::new(root).join("tests/lab/containers/lab.sh"));
    let mut command = lab();
    command.args(["--build", &format!("portway:lab={root}")]);
    let _kept = prepare(&mut command);
    command.arg("--");
    let saved = tempfile::NamedTempFile::new().expect("a temporary file");
    if engine == "podman" {
        // Docker's builder alone can take what is built already.
        command.args(["docker", "save", "portway:lab", "-o"]).arg(saved.path()).stdin(Stdio::null());
        Ran::of(&mut command).exits(0);
        command = lab();
        let take =
            "podman load -q -i \"$0\" && podman tag docker.io/library/portway:lab portway:lab && exec \"$@\"";
        command.args(["--podman", "--", "sh", "-c", take]).arg(saved.path());
    }
    command.arg(this).args(["--exact", name_of::<F>(), "--nocapture"]);
    let ran = Ran::of(command.env(INSIDE, "1").stdin(Stdio::null()));
    let said = format!("{}{}", ran.out, ran.err);
    assert!(ran.code == Some(0) && said.contains("1 passed"), "in the lab, {}\n{said}", name_of::<F>());
}

#[track_caller]
fn in_own_network_as(name: &str, tools: &[&str], body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        loopback_up();
        return body();
    }
    if let Some(why) = obstacle(true, &[tools, &["ip", "unshare"]].concat()) {
        return skip_named(name, &why);
    }
    let this = std::env::current_exe().expect("this program");
    let mut command = Command::new("unshare");
    command.arg("--net").arg("--").arg(this).args(["--exact", name, "--nocapture"]);
    let ran = Ran::of(command.env(INSIDE, "1").stdin(Stdio::null()));
    let said = format!("{}{}", ran.out, ran.err);
    // Indented, so that the inner program's own summary is never counted.
    let said: Vec<String> = said.lines().map(|line| format!("  | {line}")).collect();
    let passed = ran.code == Some(0) && ran.out.contains("1 passed");
    assert!(passed, "in a network of its own, exit {:?}:\n{}", ran.code, said.join("\n"));
}

/// Whether a program is on the search path, or where administrators have theirs.
fn is_installed(tool: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(tool).is_file())
}

/// The name of the test whose body is `F`, as the test runner knows it: `it::file::test::{{closure}}` without the ends.
fn name_of<F>() -> &'static str {
    let name = type_name::<F>();
    let name = name.split_once("::").map_or(name, |(_, rest)| rest);
    name.strip_suffix("::{{closure}}").unwrap_or(name)
}
