//! What unit tests of several modules share: a catcher of log lines, databases of countries
//! ([`mmdb`]), [`Random`] numbers, free ports, records that are spoilt ([`each_spoilt`]) and a look
//! at keepalive. Not in the program.

#[path = "../tests/free_ports.rs"]
mod free_ports;
#[path = "../tests/mmdb.rs"]
pub(crate) mod mmdb;
#[path = "../tests/random.rs"]
mod random;
mod spoil;

use std::{
    io::{self, Write as _},
    os::fd::AsFd,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

pub(crate) use free_ports::free_port;
pub(crate) use random::Random;
use socket2::SockRef;
pub(crate) use spoil::each_spoilt;
use tracing::{Dispatch, Level, subscriber::DefaultGuard};
use tracing_subscriber::fmt::MakeWriter;

/// Keeps what is written. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    /// Takes out the text that was written since the last call.
    pub(crate) fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8(bytes).unwrap()
    }
}

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Catches the log lines of this thread, of every level, until it is dropped.
#[derive(Debug)]
pub(crate) struct LogCatcher {
    kept: Kept,
    _guard: DefaultGuard,
}

impl LogCatcher {
    /// Begins to catch.
    pub(crate) fn start() -> Self {
        // While there is but one dispatcher, tracing asks the one of the thread that comes to a
        // line first, and believes it for all threads. A thread without any would hide the line
        // from us.
        static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));
        LazyLock::force(&ANOTHER);
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt().with_writer(kept.clone()).with_ansi(false);
        let guard = tracing::subscriber::set_default(subscriber.with_max_level(Level::TRACE).finish());
        Self { kept, _guard: guard }
    }

    /// Takes out the lines since the last call, without their time stamps.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = self.kept.take();
        text.lines()
            .map(|line| line.split_once(' ').map_or(line, |(_, line)| line).trim().to_owned())
            .collect()
    }
}

/// What the kernel holds for a socket: the idle time, the interval and the probes, where keepalive
/// is on.
pub(crate) fn keepalive_of(socket: &impl AsFd) -> Option<(Duration, Duration, u32)> {
    let socket = SockRef::from(socket);
    let pace = || {
        (
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
            socket.tcp_keepalive_retries().unwrap(),
        )
    };
    socket.keepalive().unwrap().then(pace)
}

/// Says loudly that a test is skipped, and notes it for the closing count of `tests/run`.
pub(crate) fn note_skipped(test: &str, why: &str) {
    let line = format!("SKIPPED: {test}: {why}\n");
    eprint!("{line}");
    if let Some(file) = std::env::var_os("PORTWAY_TEST_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the list of skips");
    }
}
