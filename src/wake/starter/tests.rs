use std::{
    fs,
    future::poll_fn,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, test_kill_process};
use tokio::{
    net::UnixListener,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;
use zbus::export::futures_core::Stream;

use super::{Call, command::Command, container::Container, unit::Unit};
use crate::{fixture::note_skipped, mapping::MappingName};

const DEADLINE: Duration = Duration::from_secs(20);

fn call() -> Call {
    let mapping = MappingName::new("game").unwrap();
    Call { mapping, host: Some("mc.example.org".into()), target: "127.0.0.1:25565".into() }
}

/// A command of the shell's language, which is not portway's.
fn shell(script: &str) -> Arc<[String]> {
    ["sh", "-c", script].map(str::to_owned).into()
}

fn command(start: &str, stop: Option<&str>) -> Command {
    Command::new(&shell(start), stop.map(shell).as_ref(), &TaskTracker::new())
}

async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn written(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
}

#[tokio::test]
async fn a_command_learns_whom_it_is_for_and_has_no_input_and_a_group_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = format!(
        "read line; echo $PORTWAY_MAPPING $PORTWAY_HOST $PORTWAY_TARGET \"[$line]\" \
         $(cut -d' ' -f5 /proc/$$/stat) $$ > {}",
        out.display()
    );
    command(&script, None).start(&call()).await.unwrap();
    let said = written(&out).unwrap();
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words[..4], ["game", "mc.example.org", "127.0.0.1:25565", "[]"]);
    assert_eq!(words[4], words[5], "its group is its own");
}

#[tokio::test]
async fn a_command_that_fails_says_how_it_ended_and_its_last_words() {
    let fails = |script: &'static str| async move { command(script, None).start(&call()).await.unwrap_err() };
    assert_eq!(fails("echo one >&2; printf two >&2; echo out; exit 3").await, "exit code 3: two");
    assert_eq!(fails("exit 4").await, "exit code 4, and nothing on standard error");
    assert_eq!(fails("kill -9 $$").await, "ended by signal 9, and nothing on standard error");
    let absent: Arc<[String]> = ["/no/such/program".to_owned()].into();
    let absent = Command::new(&absent, None, &TaskTracker::new()).start(&call()).await.unwrap_err();
    assert!(absent.starts_with("run /no/such/program: No such file"), "{absent}");
    let odd = fails("printf 'a\\033[31mred\\n' >&2; exit 1").await;
    assert_eq!(odd, "exit code 1: a.[31mred");
}

#[tokio::test]
async fn a_command_that_writes_much_ends_and_only_its_last_line_is_kept() {
    let script = "yes 0123456789 | head -c 3000000 >&2; yes x | head -c 3000000; \
                  echo >&2; head -c 100000 /dev/zero | tr '\\0' z >&2; exit 1";
    let error = timeout(DEADLINE, command(script, None).start(&call())).await.unwrap().unwrap_err();
    let last = error.strip_prefix("exit code 1: ").unwrap();
    assert!(last.starts_with("zzz") && last.chars().count() <= 401, "{}", last.len());
}

#[tokio::test]
async fn what_a_command_leaves_behind_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("sleep 100 & echo $! > {}", pid.display());
    let began = Instant::now();
    command(&script, None).start(&call()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let left = Pid::from_raw(written(&pid).unwrap().trim().parse().unwrap()).unwrap();
    test_kill_process(left).expect("it lives");
    rustix::process::kill_process(left, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_command_that_is_the_server_is_not_started_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (log, end) = (dir.path().join("log"), dir.path().join("end"));
    let script =
        format!("echo up >> {}; while [ ! -e {} ]; do sleep 0.05; done", log.display(), end.display());
    let server = Arc::new(command(&script, None));
    let mut running = JoinSet::new();
    running.spawn({
        let server = Arc::clone(&server);
        async move { server.start(&call()).await }
    });
    eventually("it runs", || written(&log)).await;
    server.start(&call()).await.unwrap();
    fs::write(&end, "").unwrap();
    running.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(written(&log).unwrap(), "up\n", "started once");
    server.start(&call()).await.unwrap();
    assert_eq!(written(&log).unwrap(), "up\nup\n", "and again when it has ended");
}

#[tokio::test]
async fn a_command_that_stops_it_runs_and_its_failure_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let stops = command("true", Some(&format!("echo $PORTWAY_TARGET > {}", out.display())));
    stops.stop(&call()).await.unwrap();
    assert_eq!(written(&out).unwrap(), "127.0.0.1:25565\n");
    let fails = command("true", Some("echo no >&2; exit 7")).stop(&call()).await.unwrap_err();
    assert_eq!(fails, "stop_command: exit code 7: no");
}

/// A container engine that knows one container, `game`, and notes what it is asked.
struct Engine {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    /// Serves until the engine is dropped.
    _serving: JoinSet<()>,
}

impl Engine {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let notes = Arc::clone(&asked);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let runs = AtomicBool::new(false);
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(|request: Request<Incoming>| {
                    let asked = format!("{} {}", request.method(), request.uri().path());
                    let answer = answer(&asked, &runs);
                    notes.lock().unwrap().push(asked);
                    async move { Ok::<_, hyper::Error>(answer) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            }
        });
        Self { dir, asked, _serving: serving }
    }

    fn container(&self, name: &str) -> Container {
        Container::of(name, &format!("unix://{}/docker.sock", self.dir.path().display()))
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn answer(asked: &str, runs: &AtomicBool) -> Response<Full<hyper::body::Bytes>> {
    let was = runs.load(SeqCst);
    let (status, body) = match asked.strip_prefix("POST /") {
        Some("containers/game/start") => {
            runs.store(true, SeqCst);
            (if was { 304 } else { 204 }, "")
        }
        Some("containers/game/stop") => {
            runs.store(false, SeqCst);
            (if was { 204 } else { 304 }, "")
        }
        Some("containers/broken/start") => (500, r#"{"message":"no such image"}"#),
        Some("containers/guarded/start") => (403, r#"{"message":"forbidden by proxy"}"#),
        _ => (404, r#"{"message":"No such container: x"}"#),
    };
    Response::builder().status(status).body(Full::from(body)).unwrap()
}

#[tokio::test]
async fn a_container_is_started_and_stopped_by_name_and_as_it_is_is_fine() {
    let engine = Engine::start();
    let game = engine.container("game");
    for _ in 0..2 {
        game.start().await.unwrap();
    }
    for _ in 0..2 {
        game.stop().await.unwrap();
    }
    let [start, stop] = ["start", "stop"].map(|verb| format!("POST /containers/game/{verb}"));
    assert_eq!(engine.asked(), [&*start, &*start, &*stop, &*stop]);
}

#[tokio::test]
async fn an_engine_that_does_not_start_a_container_is_an_error_with_a_cure() {
    let engine = Engine::start();
    let error = engine.container("gone").start().await.unwrap_err();
    assert!(error.contains("knows no such container") && error.contains("--name gone"), "{error}");
    assert_eq!(engine.container("broken").start().await.unwrap_err(), "no such image");
    let error = engine.container("guarded").start().await.unwrap_err();
    assert!(error.contains("allow POST /containers (forbidden by proxy)"), "{error}");
    let _ = engine.asked();
    let error = engine.container("../volumes/x").start().await.unwrap_err();
    assert!(error.starts_with("a name has letters"), "{error}");
    assert_eq!(engine.asked(), [""; 0], "nothing is asked with such a name");
    let nowhere = Container::of("game", "unix:///no/such/engine.sock").start().await.unwrap_err();
    assert!(nowhere.starts_with("no container engine at unix:///no/such/engine.sock"), "{nowhere}");
    let nobody = Container::of("game", "tcp://127.0.0.1:1").start().await.unwrap_err();
    assert!(nobody.contains("refused") && nobody.contains("set DOCKER_HOST"), "{nobody}");
}

/// A message bus of its own, and on it a systemd that knows two units: `game.service`, and
/// `broken.service`, whose job fails.
struct Systemd {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    /// Ends with the test.
    _bus: tokio::process::Child,
    _serving: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Systemd {
    /// `None`, said loudly, where there is no message bus to be had.
    async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix:path={}", dir.path().join("bus").display());
        let bus = tokio::process::Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--address", &address])
            .kill_on_drop(true)
            .spawn();
        let Ok(bus) = bus else {
            note_skipped("wake::starter::tests", "not installed: dbus-daemon");
            return None;
        };
        eventually("the bus listens", || dir.path().join("bus").exists().then_some(())).await;
        let own = zbus::connection::Builder::address(&*address).name("org.freedesktop.systemd1");
        let own = own.build().await.unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve_units(own, Arc::clone(&asked)));
        Some(Self { address, asked, _bus: bus, _serving: serving, _dir: dir })
    }

    fn unit(&self, name: &str) -> Unit {
        Unit::on(name, &self.address)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn serve_units(bus: zbus::Connection, asked: Arc<Mutex<Vec<String>>>) {
    let mut calls = zbus::MessageStream::from(&bus);
    let job = |number: u32| {
        let path = format!("/org/freedesktop/systemd1/job/{number}");
        zbus::OwnedObjectPath::try_from(path).unwrap()
    };
    while let Some(Ok(call)) = poll_fn(|cx| Pin::new(&mut calls).poll_next(cx)).await {
        let header = call.header();
        let method = header.member().map(ToString::to_string).unwrap_or_default();
        if method == "Subscribe" {
            bus.reply(&header, &()).await.unwrap();
            continue;
        }
        let Ok((name, mode)) = call.body().deserialize::<(String, String)>() else { continue };
        asked.lock().unwrap().push(format!("{method} {name} {mode}"));
        let result = match &*name {
            "game.service" => "done",
            "broken.service" => "failed",
            _ => {
                let error = "org.freedesktop.systemd1.NoSuchUnit";
                bus.reply_error(&header, error.to_owned(), &"Unit not found.").await.unwrap();
                continue;
            }
        };
        bus.reply(&header, &job(7)).await.unwrap();
        // The end of another job comes first.
        for (number, result) in [(6, "failed"), (7, result)] {
            let body = (number, job(number), &*name, result);
            let (path, manager) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
            bus.emit_signal(None::<&str>, path, manager, "JobRemoved", &body).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_unit_is_started_and_stopped_over_the_bus_and_its_job_decides() {
    let Some(systemd) = Systemd::start().await else { return };
    systemd.unit("game").start().await.unwrap();
    systemd.unit("game.service").stop().await.unwrap();
    assert_eq!(systemd.asked(), ["StartUnit game.service replace", "StopUnit game.service replace"]);
    let failed = systemd.unit("broken").start().await.unwrap_err();
    assert!(failed.contains("\"failed\"") && failed.contains("journalctl -u broken.service"), "{failed}");
    let unknown = systemd.unit("gone").start().await.unwrap_err();
    assert!(unknown.contains("knows no such unit") && unknown.contains("daemon-reload"), "{unknown}");
    let nowhere = Unit::on("game", "unix:path=/no/such/bus").start().await.unwrap_err();
    assert!(!nowhere.is_empty(), "{nowhere}");
}
