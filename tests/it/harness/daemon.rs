//! The program under test: started, watched, signalled and ended by its own process id.

use std::{
    ffi::OsStr,
    fmt::Display,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, test_kill_process, waitpid};
use serde_json::Value;
use tokio::time::Instant;

use super::{Api, DEADLINE, eventually, messages};

/// Set where every daemon under test runs with its fast paths off: `tests/run` has such a second pass.
const FAST_PATHS_OFF: &str = "PORTWAY_TEST_FAST_PATHS_OFF";

/// Becomes the program of its arguments, without the descriptors beyond the standard streams.
const CLOSE_INHERITED: &str = "for fd in /proc/self/fd/*; do fd=${fd##*/}; \
    if [ \"$fd\" -gt 2 ]; then eval \"exec $fd>&-\"; fi; done; exec \"$@\"";

const PROGRAM: &str = env!("CARGO_BIN_EXE_portway");

/// The program under test.
pub(crate) fn portway_program() -> &'static Path {
    Path::new(PROGRAM)
}

/// `portway` with arguments, and nothing of the caller's environment that it listens to.
pub(crate) fn portway<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Ran {
    Ran::of(clean(Command::new(PROGRAM)).args(args))
}

/// `portway check` of a configuration, with these further arguments.
#[track_caller]
pub(crate) fn check(text: &str, more: &[&str]) -> Ran {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("portway.toml");
    std::fs::write(&file, text).expect("the test's own directory");
    let args = [Path::new("check"), Path::new("-c"), &file];
    portway(args.into_iter().chain(more.iter().map(Path::new)))
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PORTWAY_") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    if std::env::var_os(FAST_PATHS_OFF).is_some() {
        command.env("PORTWAY_FAST_PATHS", "off");
    }
    command.stdin(Stdio::null());
    command
}

/// A command that ran to its end.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ran {
    /// Runs it.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails unless it ended with `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code, of {self}");
        self
    }

    /// Fails unless one of its streams contains `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text) || self.err.contains(text), "{text:?} is missing in {self}");
        self
    }

    /// Fails if one of its streams contains `text`.
    #[track_caller]
    pub(crate) fn never_says(self, text: &str) -> Self {
        assert!(!self.out.contains(text) && !self.err.contains(text), "{text:?} stands in {self}");
        self
    }
}

impl Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n-- stdout\n{}\n-- stderr\n{}", self.code, self.out, self.err)
    }
}

/// One line of the log.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    raw: String,
    fields: Option<Value>,
}

impl Line {
    fn new(raw: String) -> Self {
        let fields = serde_json::from_str(&raw).ok();
        Self { raw, fields }
    }

    /// A field as text; empty if it is not there.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.field(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field as a number.
    #[track_caller]
    pub(crate) fn number(&self, field: &str) -> u64 {
        let number = self.field(field).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no number {field:?} in {}", self.raw))
    }

    /// The message; of a text log the whole line.
    pub(crate) fn message(&self) -> &str {
        if self.fields.is_some() { self.text("message") } else { &self.raw }
    }

    /// The line as it was written.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    fn field(&self, field: &str) -> Option<&Value> {
        self.fields.as_ref()?.get(field)
    }
}

/// Both output streams of the daemon, line by line.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<Line>>,
    more: Condvar,
}

impl Log {
    fn follow(self: &Arc<Self>, stream: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                log.lines().push(Line::new(String::from_utf8_lossy(&line).into_owned()));
                log.more.notify_all();
            }
        });
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> String {
        const LAST: usize = 100;
        let lines = self.lines();
        let skipped = lines.len().saturating_sub(LAST);
        let last: Vec<&str> = lines[skipped..].iter().map(Line::raw).collect();
        format!("-- the daemon's log ({skipped} earlier lines left out)\n{}", last.join("\n"))
    }
}

/// How a daemon is to be started.
#[derive(Debug)]
pub(crate) struct Setup {
    wrapper: Vec<String>,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    config: Option<String>,
    for_user: Option<u32>,
    is_installed: bool,
}

impl Setup {
    /// Through a link in a directory of its own, as a package installs a program: another one can take its place.
    pub(crate) fn installed(mut self) -> Self {
        self.is_installed = true;
        self
    }

    /// With these further arguments.
    pub(crate) fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(str::to_owned));
        self
    }

    /// With this variable in its environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With the whole sandbox: files are closed, too.
    pub(crate) fn confined(self) -> Self {
        self.env("PORTWAY_SANDBOX", "on")
    }

    /// With this limit of open descriptors, soft and hard, and none open but the standard streams, whatever the test itself
    /// was started with.
    pub(crate) fn descriptors(self, limit: u32) -> Self {
        self.through(["bash", "-c", CLOSE_INHERITED, "bash"]).through([
            "prlimit",
            &format!("--nofile={limit}:{limit}"),
            "--",
        ])
    }

    /// Through a program that ends by becoming the daemon.
    pub(crate) fn through<const N: usize>(mut self, wrapper: [&str; N]) -> Self {
        self.wrapper.extend(wrapper.map(str::to_owned));
        self
    }

    /// As this user, with the right to run the program and to read its configuration, and no other.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.for_user = Some(id);
        let id = id.to_string();
        self.through(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"])
    }

    /// Started as root, which goes on as this user.
    pub(crate) fn going_on_as(self, id: u32) -> Self {
        let id_text = id.to_string();
        self.for_user(id).args(["--user", &id_text])
    }

    /// With what this user needs: the right to run the program, and directories of its own.
    pub(crate) fn for_user(mut self, id: u32) -> Self {
        self.for_user = Some(id);
        self
    }

    /// Starts it and waits until the whole first plan is up.
    #[track_caller]
    pub(crate) fn start(self) -> Portway {
        let mut portway = self.launch();
        portway.wait_ready();
        portway
    }

    /// Starts it and waits for nothing.
    #[track_caller]
    pub(crate) fn launch(mut self) -> Portway {
        let dir = tempfile::tempdir().expect("a temporary directory");
        if self.for_user.is_some() {
            // The build directory may be closed to others.
            let program = dir.path().join("portway");
            std::fs::copy(&self.program, &program).expect("a copy of the program");
            let open = PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir.path(), open).expect("the test's own directory");
            self.program = program;
        }
        if self.is_installed {
            let link = dir.path().join("portway");
            // A copy for a user is there already.
            if self.for_user.is_none() {
                std::os::unix::fs::symlink(&self.program, &link).expect("the test's own directory");
            }
            self.program = link;
            // Processes that take over become children of this one when their parent ends.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                .expect("the system allows it");
        }
        let config = dir.path().join("portway.toml");
        let mut words: Vec<&OsStr> = self.wrapper.iter().map(OsStr::new).collect();
        words.push(self.program.as_os_str());
        words.extend(self.args.iter().map(OsStr::new));
        if let Some(text) = &self.config {
            write_config(&config, text);
            words.extend([OsStr::new("--config"), config.as_os_str()]);
        }
        let mut command = clean(Command::new(words[0]));
        // Each daemon has a socket and a state of its own.
        for (variable, name) in [("RUNTIME_DIRECTORY", "run"), ("STATE_DIRECTORY", "state")] {
            let own = dir.path().join(name);
            std::fs::create_dir(&own).expect("the test's own directory");
            std::os::unix::fs::chown(&own, self.for_user, self.for_user).expect("the test's own directory");
            command.env(variable, &own);
        }
        command.args(&words[1..]).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        let log = Arc::<Log>::default();
        log.follow(child.stdout.take().expect("stdout is piped"));
        log.follow(child.stderr.take().expect("stderr is piped"));
        Portway { child, heir: None, heir_ended: None, log, dir, config, is_installed: self.is_installed }
    }
}

/// Writes a configuration as a deployment tool does: whole or not at all. The log is JSON, for the tests to read.
fn write_config(path: &Path, text: &str) {
    let new = path.with_extension("new");
    let log = if text.contains("[log]") { "" } else { "\n[log]\nformat = \"json\"\n" };
    std::fs::write(&new, format!("{text}{log}")).expect("the test's own directory");
    std::fs::rename(&new, path).expect("the test's own directory");
}

/// A running daemon. It is killed when the test lets go of it.
#[derive(Debug)]
pub(crate) struct Portway {
    child: Child,
    /// The process that has taken over from it.
    heir: Option<Pid>,
    heir_ended: Option<Option<i32>>,
    is_installed: bool,
    log: Arc<Log>,
    dir: tempfile::TempDir,
    config: PathBuf,
}

/// How a daemon ended, and all that it said.
#[derive(Debug)]
pub(crate) struct Exit {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// All that it wrote.
    pub(crate) log: String,
    lines: Vec<Line>,
}

impl Exit {
    /// Fails unless it ended with `code`.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of the daemon, which said\n{}", self.log);
        self
    }

    /// Fails unless it said `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.log.contains(text), "{text:?} is missing in\n{}", self.log);
        self
    }

    /// The lines with this message.
    pub(crate) fn lines(&self, message: &str) -> Vec<&Line> {
        self.lines.iter().filter(|line| line.message() == message).collect()
    }

    /// The lines of sessions that ended.
    pub(crate) fn sessions_ended(&self) -> Vec<&Line> {
        self.lines.iter().filter(|line| line.message() == messages::SESSION_ENDED).collect()
    }
}

impl Portway {
    /// `portway run` with a configuration file.
    pub(crate) fn with(config: &str) -> Setup {
        Setup { config: Some(config.to_owned()), ..Self::bare().args(["run"]) }
    }

    /// `portway run -p SPEC`, with no file.
    pub(crate) fn publishing(spec: &str) -> Setup {
        Self::bare().args(["run", "-p", spec])
    }

    /// `portway` with no arguments yet.
    pub(crate) fn bare() -> Setup {
        Setup {
            wrapper: vec![],
            program: PROGRAM.into(),
            args: vec![],
            env: vec![],
            config: None,
            for_user: None,
            is_installed: false,
        }
    }

    /// The directory of its configuration file.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Its API, on the usual socket.
    pub(crate) fn api(&self) -> Api {
        Api::Unix(self.socket())
    }

    /// The usual socket of its API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/portway.sock")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process().as_raw_nonzero().get().unsigned_abs()
    }

    fn process(&self) -> Pid {
        self.heir.unwrap_or_else(|| Pid::from_child(&self.child))
    }

    /// The program that is installed.
    pub(crate) fn installed(&self) -> PathBuf {
        self.dir.path().join("portway")
    }

    /// Installs a script in the place of the program, which does what is usual by `exec "$PORTWAY" "$@"`.
    pub(crate) fn install_script(&self, script: &str) {
        let new = self.dir.path().join("portway.new");
        let text = format!("#!/bin/bash\nPORTWAY='{PROGRAM}'\n{script}\n");
        std::fs::write(&new, text).expect("the test's own directory");
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("the test's own directory");
        std::fs::rename(&new, self.installed()).expect("the test's own directory");
    }

    /// Installs the program itself again.
    pub(crate) fn install_program(&self) {
        let new = self.dir.path().join("portway.new");
        std::os::unix::fs::symlink(PROGRAM, &new).expect("the test's own directory");
        std::fs::rename(&new, self.installed()).expect("the test's own directory");
    }

    /// Follows the process that has taken over, by its id.
    pub(crate) fn follow(&mut self, pid: u64) {
        let status = eventually("the former process ends", || self.exit_status());
        assert_eq!(status, Some(0), "exit code of the former process\n{}", self.log.shown());
        self.heir = i32::try_from(pid).ok().and_then(Pid::from_raw);
        self.heir_ended = None;
    }

    /// How long the last hand-over let everything stand still, in milliseconds.
    #[track_caller]
    pub(crate) fn last_pause(&self) -> f64 {
        let lines = self.lines(messages::HANDED_OVER);
        let pause = lines.last().and_then(|line| line.field("pause_ms")).and_then(Value::as_f64);
        pause.expect("a hand-over tells its pause")
    }

    /// The processes that were started with its directories, by their ids.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let own = format!("RUNTIME_DIRECTORY={}", self.dir.path().join("run").display());
        let is_own = |pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == own.as_bytes())
        };
        let all = std::fs::read_dir("/proc").expect("a system with processes").flatten();
        let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(is_own).filter_map(Pid::from_raw).collect()
    }

    /// Waits until the whole first plan is up.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        self.wait_for(0, "the daemon is ready", |line| {
            line.message() == messages::READY
                || (line.fields.is_none() && words(&line.raw).any(|word| word == "ready"))
        });
    }

    /// Waits for a line with this message for which `fits` holds, from the start of the log on.
    #[track_caller]
    pub(crate) fn wait_log(&mut self, message: &str, fits: impl Fn(&Line) -> bool) -> Line {
        self.wait_log_after(0, message, fits)
    }

    /// The same, but after the first `mark` lines; see [`Portway::log_len`].
    #[track_caller]
    pub(crate) fn wait_log_after(
        &mut self,
        mark: usize,
        message: &str,
        fits: impl Fn(&Line) -> bool,
    ) -> Line {
        self.wait_for(mark, message, |line| line.message() == message && fits(line))
    }

    /// Waits for a line that contains `text`, in whatever format.
    #[track_caller]
    pub(crate) fn wait_text(&mut self, text: &str) -> Line {
        self.wait_for(0, text, |line| line.raw.contains(text))
    }

    #[track_caller]
    fn wait_for(&mut self, mark: usize, what: &str, fits: impl Fn(&Line) -> bool) -> Line {
        let started = Instant::now();
        let log = Arc::clone(&self.log);
        let (mut seen, mut ended_at) = (mark, None);
        loop {
            let ended = self.exit_status();
            ended_at = ended_at.or(ended.map(|_| Instant::now()));
            let lines = log.lines();
            let seen_now = lines.len();
            if let Some(line) = lines.get(seen..).unwrap_or_default().iter().find(|line| fits(line)) {
                return line.clone();
            }
            seen = seen.max(seen_now);
            drop(lines);
            // What it wrote last may still be under way to the log.
            let is_over = ended_at.is_some_and(|at| at.elapsed() > Duration::from_secs(2));
            assert!(!is_over, "the daemon ended ({ended:?}) before: {what}\n{}", log.shown());
            assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}\n{}", log.shown());
            let lines = log.lines();
            if lines.len() == seen {
                let waited = log.more.wait_timeout(lines, Duration::from_millis(100));
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// How many lines it has written.
    pub(crate) fn log_len(&self) -> usize {
        self.log.lines().len()
    }

    /// Its last lines.
    pub(crate) fn log(&self) -> String {
        self.log.shown()
    }

    /// The lines of the sessions that ended so far.
    pub(crate) fn sessions_ended(&self) -> Vec<Line> {
        let lines = self.log.lines();
        lines.iter().filter(|line| line.message() == messages::SESSION_ENDED).cloned().collect()
    }

    /// Waits until so many sessions have ended, and gives their lines.
    #[track_caller]
    pub(crate) fn wait_sessions(&mut self, count: usize) -> Vec<Line> {
        let is_end = |line: &&Line| line.message() == messages::SESSION_ENDED;
        eventually(&format!("{count} session lines"), || {
            (self.log.lines().iter().filter(is_end).count() >= count).then_some(())
        });
        self.sessions_ended()
    }

    /// Waits for the line of the only session there is.
    #[track_caller]
    pub(crate) fn wait_session(&mut self) -> Line {
        self.wait_log(messages::SESSION_ENDED, |_| true)
    }

    /// Replaces the configuration file, asks for a reload and waits until it is applied.
    #[track_caller]
    pub(crate) fn reload_with(&mut self, config: &str) -> Line {
        self.reload(config, messages::RELOAD_APPLIED)
    }

    /// The same with a file that has to be refused.
    #[track_caller]
    pub(crate) fn refused_reload_with(&mut self, config: &str) -> Line {
        self.reload(config, messages::RELOAD_REFUSED)
    }

    /// Replaces the configuration file, and no more.
    #[track_caller]
    pub(crate) fn write_config(&self, config: &str) {
        write_config(&self.config, config);
    }

    fn reload(&mut self, config: &str, outcome: &str) -> Line {
        let mark = self.log_len();
        write_config(&self.config, config);
        self.signal(Signal::HUP);
        self.wait_log_after(mark, outcome, |_| true)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).expect("the daemon's own process");
    }

    /// How many descriptors it holds.
    pub(crate) fn fds(&self) -> usize {
        let held = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the daemon runs");
        held.count()
    }

    /// Waits until it holds no more than `base` descriptors.
    #[track_caller]
    pub(crate) fn wait_fds(&self, base: usize) {
        eventually(&format!("{base} descriptors again"), || (self.fds() <= base).then_some(()));
    }

    /// A line of `/proc/PID/task/TID/status`, for every thread.
    pub(crate) fn of_threads(&self, name: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        // A thread may end between the two looks.
        let status = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
        let line = |status: String| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
        };
        status.map(line).collect()
    }

    /// The memory that it has in use, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let pid = i32::try_from(self.pid()).expect("a process id");
        let status = procfs::process::Process::new(pid).and_then(|p| p.status()).expect("the daemon runs");
        status.vmrss.expect("a process has memory")
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the daemon's own process");
        self.child.wait().expect("the daemon's own process");
    }

    /// How many lines with this message it has written so far.
    pub(crate) fn count(&self, message: &str) -> usize {
        self.log.lines().iter().filter(|line| line.message() == message).count()
    }

    /// The processor time that it has used.
    pub(crate) fn cpu_time(&self) -> Duration {
        let pid = i32::try_from(self.pid()).expect("a process id");
        let stat = procfs::process::Process::new(pid).and_then(|p| p.stat()).expect("the daemon runs");
        Duration::from_secs(stat.utime + stat.stime)
            / u32::try_from(procfs::ticks_per_second()).expect("small")
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn most_memory(&self) -> u64 {
        let pid = i32::try_from(self.pid()).expect("a process id");
        let status = procfs::process::Process::new(pid).and_then(|p| p.status()).expect("the daemon runs");
        status.vmhwm.expect("a process has memory") * 1024
    }

    /// The lines with this message so far.
    pub(crate) fn lines(&self, message: &str) -> Vec<Line> {
        self.log.lines().iter().filter(|line| line.message() == message).cloned().collect()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.exit_status().is_none()
    }

    fn exit_status(&mut self) -> Option<Option<i32>> {
        match self.heir {
            Some(heir) => {
                // The system tells it once.
                self.heir_ended = self.heir_ended.or_else(|| ended(heir));
                self.heir_ended
            }
            None => {
                let status = self.child.try_wait().expect("the daemon's own process");
                status.as_ref().map(ExitStatus::code)
            }
        }
    }

    /// Asks it to stop, and waits for its end.
    #[track_caller]
    pub(crate) fn stop(self) -> Exit {
        self.signal(Signal::TERM);
        self.exit()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn exit(mut self) -> Exit {
        let status = eventually("the daemon ends", || self.exit_status());
        // Both streams are at their end now; the threads that read them need a moment to say so.
        eventually("the whole log was read", || (Arc::strong_count(&self.log) == 1).then_some(()));
        let lines = self.log.lines().clone();
        let log = lines.iter().map(|line| format!("{}\n", line.raw)).collect();
        Exit { code: status, log, lines }
    }
}

impl Drop for Portway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log.shown());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.is_installed {
            for process in self.processes() {
                let _ = kill_process(process, Signal::KILL);
                eventually("a process of the test ends", || ended(process));
            }
        }
    }
}

/// How a process ended that is a child of this one, or will be: its code, or nothing after a signal.
fn ended(process: Pid) -> Option<Option<i32>> {
    match waitpid(Some(process), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(status.exit_status()),
        Ok(None) => None,
        // It is still the child of another one, or it is gone without a trace.
        Err(_) => test_kill_process(process).is_err().then_some(None),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}
