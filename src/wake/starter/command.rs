//! A command that starts a target, and one that stops it.
//!
//! No shell: the words are the program and its arguments. A command has no input, a process group
//! of its own (a Ctrl-C in the terminal of portway does not reach it) and the words of its
//! [`Call`] in its environment. Its output goes to the log, level debug, as far as [`MOST_LINES`].
//!
//! A command may end at once and leave a server behind, or be the server and run on. It is reaped
//! in any case, and is never started a second time while it runs.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{Call, child::take_signals};
use crate::text::clean_start;

/// Lines of one run that go to the log.
const MOST_LINES: u32 = 200;
/// The longest line that goes to the log, in characters.
const LONGEST_LINE: usize = 400;
/// How long the last words of a command that has ended are waited for: what it left behind may
/// hold its output open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Variables of the service manager that are meant for portway alone.
const NOT_PASSED_ON: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "FDSTORE",
];

/// A command that starts a target, and what stops it.
#[derive(Debug)]
pub(super) struct Command {
    start: Arc<[String]>,
    stop: Option<Arc<[String]>>,
    /// Whether the one that starts it runs.
    runs: AtomicBool,
    tasks: TaskTracker,
}

impl Command {
    pub(super) fn new(start: &Arc<[String]>, stop: Option<&Arc<[String]>>, tasks: &TaskTracker) -> Self {
        let (runs, tasks) = (AtomicBool::new(false), tasks.clone());
        Self { start: Arc::clone(start), stop: stop.cloned(), runs, tasks }
    }

    /// Runs the command until its end, unless it runs already.
    pub(super) async fn start(&self, call: &Call) -> Result<(), String> {
        if self.runs.swap(true, Relaxed) {
            return Ok(());
        }
        let ran = self.run(&self.start, call).await;
        self.runs.store(false, Relaxed);
        ran
    }

    /// Runs the command that stops it.
    pub(super) async fn stop(&self, call: &Call) -> Result<(), String> {
        let Some(stop) = &self.stop else { return Err("it has no `stop_command`".to_owned()) };
        self.run(stop, call).await.map_err(|why| format!("stop_command: {why}"))
    }

    /// Runs `words` to their end.
    async fn run(&self, words: &[String], call: &Call) -> Result<(), String> {
        let [program, arguments @ ..] = words else { return Err("the command is empty".to_owned()) };
        let mut child = spawn(program, arguments, call).map_err(|error| unstarted(program, &error))?;
        let mapping = &call.mapping;
        tracing::debug!(%mapping, %program, pid = child.id(), "command started");
        let last = Arc::<Mutex<String>>::default();
        // On tasks of their own: a server that it left behind may write for a long time, and would
        // end by a broken pipe otherwise.
        let out =
            child.stdout.take().map(|out| self.tasks.spawn(Output::of(program, call).follow(out, None)));
        let err = child
            .stderr
            .take()
            .map(|err| self.tasks.spawn(Output::of(program, call).follow(err, Some(Arc::clone(&last)))));
        let status = child.wait().await;
        for output in [out, err].into_iter().flatten() {
            let _ = timeout(LAST_WORDS, output).await;
        }
        let last = std::mem::take(&mut *last.lock().unwrap_or_else(PoisonError::into_inner));
        let status = status.map_err(|error| format!("wait for {program}: {error}"))?;
        tracing::debug!(%mapping, %program, %status, "command ended");
        if status.success() { Ok(()) } else { Err(failure(status, &last)) }
    }
}

fn spawn(program: &str, arguments: &[String], call: &Call) -> io::Result<Child> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(false);
    take_signals(&mut command);
    for name in NOT_PASSED_ON {
        command.env_remove(name);
    }
    command.env("PORTWAY_MAPPING", call.mapping.as_str()).env("PORTWAY_TARGET", &*call.target);
    match &call.host {
        Some(host) => command.env("PORTWAY_HOST", &**host),
        None => command.env_remove("PORTWAY_HOST"),
    };
    command.spawn()
}

/// Why a program does not run, with the cure.
fn unstarted(program: &str, error: &io::Error) -> String {
    let cure = match error.kind() {
        io::ErrorKind::NotFound => ": name an existing program by its whole path",
        io::ErrorKind::PermissionDenied => ": make it executable for the user of portway",
        _ => "",
    };
    format!("run {program}: {error}{cure}")
}

fn failure(status: ExitStatus, last: &str) -> String {
    let status = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    };
    if last.is_empty() {
        format!("{status}, and nothing on standard error")
    } else {
        format!("{status}: {last}")
    }
}

/// What a command writes, on its way to the log.
struct Output {
    program: String,
    mapping: String,
    lines: u32,
    /// The line that has not ended yet, as far as it is kept.
    line: Vec<u8>,
}

impl Output {
    fn of(program: &str, call: &Call) -> Self {
        Self { program: program.to_owned(), mapping: call.mapping.to_string(), lines: 0, line: Vec::new() }
    }

    /// Reads until nothing can write any more. The last line goes to `last`.
    async fn follow(mut self, mut from: impl AsyncRead + Unpin, last: Option<Arc<Mutex<String>>>) {
        let mut buffer = [0; 1024];
        while let Ok(1..) = from.read(&mut buffer).await.inspect(|bytes| {
            for byte in &buffer[..*bytes] {
                self.take(*byte, last.as_deref());
            }
        }) {}
        self.end_line(last.as_deref());
    }

    fn take(&mut self, byte: u8, last: Option<&Mutex<String>>) {
        match byte {
            b'\n' => self.end_line(last),
            // A character has at most four bytes.
            _ if self.line.len() < 4 * LONGEST_LINE => self.line.push(byte),
            _ => {}
        }
    }

    fn end_line(&mut self, last: Option<&Mutex<String>>) {
        let line = clean_start(&String::from_utf8_lossy(&std::mem::take(&mut self.line)), LONGEST_LINE);
        if line.is_empty() {
            return;
        }
        self.lines = self.lines.saturating_add(1);
        let (mapping, program) = (&self.mapping, &self.program);
        match self.lines {
            0..=MOST_LINES => tracing::debug!(%mapping, %program, %line, "command says"),
            n if n == MOST_LINES + 1 => {
                tracing::debug!(%mapping, %program, lines = MOST_LINES, "command says more; the rest is left out");
            }
            _ => {}
        }
        if let Some(last) = last {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }
    }
}
