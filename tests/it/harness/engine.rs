//! A container engine as its socket shows it, or as a proxy before it does: what portway asks of one, and no more.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use serde_json::{Value, json};

use super::{api::HttpStream, eventually};

/// An engine. It ends with the test.
pub(crate) struct Engine {
    _dir: tempfile::TempDir,
    place: Place,
    state: Arc<State>,
    serving: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

#[derive(Clone)]
enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// What an action is answered with: a status of HTTP.
type Actions = Box<dyn FnMut(&str) -> u16 + Send>;

#[derive(Default)]
struct State {
    /// What runs, as the list has it.
    containers: Mutex<Vec<Value>>,
    /// Sent in place of the list.
    instead: Mutex<Option<Vec<u8>>>,
    asked: Mutex<Vec<String>>,
    events: Mutex<Events>,
    actions: Mutex<Option<Actions>>,
}

/// The events so far, and those that follow them.
#[derive(Default)]
struct Events {
    told: Vec<String>,
    followers: Vec<HttpStream>,
}

impl Events {
    /// The engine's clock: a second for each event.
    fn now(&self) -> usize {
        self.told.len()
    }

    fn tell(&mut self, line: &str) {
        let chunk = format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
        self.followers.retain_mut(|follower| follower.write_all(chunk.as_bytes()).is_ok());
        self.told.push(chunk);
    }

    /// Another follower: it hears first what it has missed, as from an engine.
    fn follow(&mut self, since: usize, mut stream: HttpStream) {
        let missed = self.told.get(since..).unwrap_or_default().concat();
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{missed}");
        if stream.write_all(answer.as_bytes()).is_ok() {
            self.followers.push(stream);
        }
    }
}

/// The day on which the engine's clock begins, and its start in seconds since 1970.
const DAY: (&str, usize) = ("Mon, 30 Nov 2026", 1_795_996_800);

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().expect("no panic")
}

/// A container as the list has it, with an address in the network `net`.
pub(crate) fn container(name: &str, ip: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    json!({
        "Id": format!("{name}{}", "0".repeat(60)), "Names": [format!("/{name}")], "Created": 1_700_000_000, "State": "running",
        "Labels": labels, "HostConfig": { "NetworkMode": "net" },
        "NetworkSettings": { "Networks": { "net": { "IPAddress": ip, "GlobalIPv6Address": "" } } },
    })
}

impl Engine {
    /// On a unix socket.
    pub(crate) fn start() -> Self {
        let mut engine = Self::absent();
        engine.serve();
        engine
    }

    /// On a unix socket, of which there is nothing yet.
    pub(crate) fn absent() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let place = Place::Unix(dir.path().join("docker.sock"));
        Self { _dir: dir, place, state: Arc::default(), serving: None }
    }

    /// A proxy before it.
    pub(crate) fn at(addr: SocketAddr) -> Self {
        let mut engine = Self::absent();
        engine.place = Place::Tcp(addr);
        engine.serve();
        engine
    }

    /// One that starts and stops containers.
    pub(crate) fn acting(actions: impl FnMut(&str) -> u16 + Send + 'static) -> Self {
        let engine = Self::start();
        *locked(&engine.state.actions) = Some(Box::new(actions));
        engine
    }

    /// Where it is, as `DOCKER_HOST` says it.
    pub(crate) fn host(&self) -> String {
        match &self.place {
            Place::Unix(path) => format!("unix://{}", path.display()),
            Place::Tcp(addr) => format!("tcp://{addr}"),
        }
    }

    /// The requests so far, without those that look.
    pub(crate) fn asked(&self) -> Vec<String> {
        locked(&self.state.asked).clone()
    }

    /// How often the list was read.
    pub(crate) fn lists(&self) -> usize {
        self.asked().iter().filter(|asked| asked.starts_with("GET /containers/json")).count()
    }

    /// Begins to serve, again too.
    pub(crate) fn serve(&mut self) {
        let (state, stop) = (Arc::clone(&self.state), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let accept: Box<dyn FnMut() -> io::Result<HttpStream> + Send> = match &self.place {
            Place::Unix(path) => {
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path).expect("the test's own directory");
                Box::new(move || listener.accept().map(|(stream, _)| HttpStream::Unix(stream)))
            }
            Place::Tcp(addr) => {
                let listener = TcpListener::bind(addr).expect("the test's own address");
                Box::new(move || listener.accept().map(|(stream, _)| HttpStream::Tcp(stream)))
            }
        };
        let serving = std::thread::spawn(move || {
            let mut accept = accept;
            while let Ok(stream) = accept() {
                if stopped.load(SeqCst) {
                    return;
                }
                let state = Arc::clone(&state);
                std::thread::spawn(move || state.answer(stream));
            }
        });
        self.serving = Some((stop, serving));
    }

    /// Goes away, as an engine that is stopped does.
    pub(crate) fn stop(&mut self) {
        let Some((stop, serving)) = self.serving.take() else { return };
        stop.store(true, SeqCst);
        let _ = match &self.place {
            Place::Unix(path) => UnixStream::connect(path).map(drop),
            Place::Tcp(addr) => TcpStream::connect(addr).map(drop),
        };
        serving.join().expect("no panic");
        if let Place::Unix(path) = &self.place {
            let _ = std::fs::remove_file(path);
        }
        locked(&self.state.events).followers.drain(..).for_each(|follower| follower.close());
    }

    /// Changes what runs, without a word about it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<Value>)) {
        change(&mut locked(&self.state.containers));
    }

    /// A container starts.
    pub(crate) fn run(&self, container: Value) {
        self.change(|all| all.push(container));
        self.tell("start");
    }

    /// A container ends. `word` is what the engine calls it.
    pub(crate) fn end(&self, name: &str, word: &str) {
        let slashed = format!("/{name}");
        self.change(|all| all.retain(|container| container["Names"][0] != *slashed));
        self.tell(word);
    }

    /// Tells of an event.
    pub(crate) fn tell(&self, action: &str) {
        self.tell_line(&json!({ "Type": "container", "Action": action, "id": "x", "time": 1 }).to_string());
    }

    /// Writes this line to those that follow the events.
    pub(crate) fn tell_line(&self, line: &str) {
        locked(&self.state.events).tell(line);
    }

    /// Answers with this in place of the list, or with the list again.
    pub(crate) fn answer_instead(&self, bytes: Option<Vec<u8>>) {
        *locked(&self.state.instead) = bytes;
    }

    /// Waits until somebody follows the events.
    #[track_caller]
    pub(crate) fn wait_follower(&self) {
        eventually("portway follows the events", || {
            (!locked(&self.state.events).followers.is_empty()).then_some(())
        });
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn answer(&self, mut stream: HttpStream) {
        let Some(asked) = request(&mut stream) else { return };
        locked(&self.asked).push(asked.clone());
        let now = locked(&self.events).now();
        let json = |status: &str, body: &[u8]| {
            let head = format!(
                "HTTP/1.1 {status}\r\nDate: {} {:02}:{:02}:{:02} GMT\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                DAY.0,
                now / 3600,
                now / 60 % 60,
                now % 60,
                body.len()
            );
            [head.as_bytes(), body].concat()
        };
        let answer = if asked.starts_with("GET /containers/json") {
            match locked(&self.instead).clone() {
                Some(bytes) => bytes,
                None => json("200 OK", Value::from(locked(&self.containers).clone()).to_string().as_bytes()),
            }
        } else if let Some(query) = asked.strip_prefix("GET /events?since=") {
            let since =
                query.split('&').next().and_then(|since| since.parse::<usize>().ok()).expect("a time");
            return locked(&self.events).follow(since.saturating_sub(DAY.1), stream);
        } else if let (Some(path), Some(act)) = (asked.strip_prefix("POST /"), &mut *locked(&self.actions)) {
            match act(path) {
                404 => json("404 Not Found", br#"{"message":"No such container: x"}"#),
                status => json(&format!("{status} Done"), b""),
            }
        } else {
            json("403 Forbidden", br#"{"message":"forbidden by the proxy"}"#)
        };
        let _ = stream.write_all(&answer);
    }
}

/// The first line of a request, without the version.
fn request(stream: &mut HttpStream) -> Option<String> {
    let _ = stream.set_deadline();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    head.split(" HTTP/").next().map(str::to_owned)
}
