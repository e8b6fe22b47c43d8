//! The side of new: takes everything from the process that serves, and serves in its place.
//!
//! Until the receipt is sent, an end of old is an end of new, and nothing has changed. After it,
//! new serves where it hears `Go`, and where old is gone. Standard input is the connection; a
//! program gets `/dev/null` there as soon as it is known.

use std::{collections::HashMap, ffi::OsStr, fs::File, io, os::fd::OwnedFd, time::Duration};

use rustix::{
    net::sockopt::{socket_domain, socket_peercred},
    process::{getpid, getppid},
};
use tokio::time::Instant;

use super::{
    FOR_A_CHECK, FOR_GOOD, HELLO, LAST_WORDS, Line, LineError, PATIENCE, STAGED, VARIABLE,
    messages::{FromNew, FromOld, Hello, Listen, Receipt, receive, send},
    state::{Learning, Learnt},
};
use crate::{
    events::Events,
    handover::{FORMAT, Fault, Frame, Refusal, Report, Unpacker, Wire, WireError},
    log_level::LevelControl,
    sock::inherited::{Inherited, Stays},
    supervisor::{Handle, Inheritance, TakenOver},
    version,
};

/// Why this process does not take over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// The variable says so, and it is not so.
    #[error("{VARIABLE} is set, and standard input is no connection to a portway that hands over; unset it")]
    NoConnection,
    /// The other process is not the one that started this one.
    #[error("the process that hands over is not the parent of this one; a script has to `exec` the program")]
    NotTheParent,
    /// The other process, or the way to it.
    #[error("the process that hands over: {0}")]
    Line(String),
    /// It has given up.
    #[error("the process that hands over has given up: it goes on")]
    GivenUp,
}

impl From<LineError> for TakeError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Wire(WireError::Closed) => Self::GivenUp,
            error => Self::Line(error.to_string()),
        }
    }
}

/// A process that takes over from another one.
#[derive(Debug)]
pub(in crate::daemon) struct Successor {
    line: Line,
    /// It was the other process itself, and hears no answer.
    is_in_place: bool,
    is_check: bool,
    unpacker: Unpacker,
}

/// What arrived before anything stood still.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Arrived {
    /// The sockets of the API, by their places.
    pub(in crate::daemon) doors: HashMap<String, OwnedFd>,
    /// The listeners that have no socket in old either.
    pub(in crate::daemon) waiting: Vec<String>,
}

/// What new has taken.
#[derive(Debug)]
pub(in crate::daemon) struct Taken {
    line: Line,
    pub(in crate::daemon) report: Report,
    /// The configuration is to be read again.
    pub(in crate::daemon) reload: bool,
    /// What parts need that start later.
    pub(in crate::daemon) learnt: Learnt,
}

/// Whether this process was started to take over, and from where.
///
/// # Errors
/// It was, and cannot.
pub(in crate::daemon) fn successor() -> Result<Option<Successor>, TakeError> {
    let is_check = match std::env::var_os(VARIABLE) {
        Some(how) if how == OsStr::new(FOR_GOOD) => false,
        Some(how) if how == OsStr::new(FOR_A_CHECK) => true,
        _ => return Ok(None),
    };
    let socket = connection().map_err(|_| TakeError::NoConnection)?;
    let peer = socket_peercred(&socket).map_err(|_| TakeError::NoConnection)?.pid;
    let is_in_place = peer == getpid();
    let mut wire = Wire::new(socket);
    if !is_in_place && Some(peer) != getppid() {
        let error = TakeError::NotTheParent;
        let (fault, problems) = (Fault::Conflict, Vec::new());
        let refused = FromNew::Refused { fault, error: error.to_string(), problems };
        // Where it does not hear that, it sees the end.
        let _ = send(&mut wire, &refused, Instant::now() + LAST_WORDS);
        return Err(error);
    }
    let line = Line::new(wire);
    Ok(Some(Successor { line, is_in_place, is_check, unpacker: Unpacker::default() }))
}

/// Takes standard input away, where it is a unix socket.
fn connection() -> io::Result<OwnedFd> {
    let stdin = rustix::stdio::stdin();
    if socket_domain(stdin)? != rustix::net::AddressFamily::UNIX {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(socket)
}

impl Successor {
    /// One that takes over without another process. These sockets have arrived.
    pub(super) fn in_place(line: Line, unpacker: Unpacker) -> Self {
        Self { line, is_in_place: true, is_check: false, unpacker }
    }

    /// Whether it only checks whether it could.
    pub(in crate::daemon) fn is_check(&self) -> bool {
        self.is_check
    }

    async fn say(&mut self, message: FromNew) -> Result<(), TakeError> {
        if !self.is_in_place {
            self.line.with(LAST_WORDS, move |wire, until| send(wire, &message, until)).await?;
        }
        Ok(())
    }

    /// Says that it runs.
    pub(in crate::daemon) async fn hello(&mut self) -> Result<(), TakeError> {
        let hello = Hello {
            format: FORMAT,
            version: version::VERSION.to_owned(),
            commit: version::COMMIT.map(str::to_owned),
            pid: std::process::id(),
            parts: true,
        };
        self.say(FromNew::Hello(hello)).await
    }

    /// Says that it will not.
    pub(in crate::daemon) async fn refuse(&mut self, refusal: Refusal) {
        let Refusal { fault, error, problems } = refusal;
        // Old sees the end as well.
        let _ = self.say(FromNew::Refused { fault, error, problems }).await;
    }

    /// Says that it could take over, and ends.
    pub(in crate::daemon) async fn passes(mut self) -> Result<(), TakeError> {
        self.say(FromNew::Ready {}).await
    }

    /// Says that the configuration is good, and takes the listening sockets: those of listeners
    /// into the bag.
    ///
    /// # Errors
    /// [`TakeError`].
    pub(in crate::daemon) async fn arrived(&mut self, inherited: &Inherited) -> Result<Arrived, TakeError> {
        self.say(FromNew::Ready {}).await?;
        let mut unpacker = std::mem::take(&mut self.unpacker);
        let received = self.line.with(STAGED + HELLO, move |wire, until| {
            let listen = loop {
                match next(wire, &mut unpacker, until)? {
                    FromOld::Sockets {} => {}
                    FromOld::Listen(listen) => break listen,
                    _ => return Err(WireError::Broken("listening sockets are missing")),
                }
            };
            Ok((listen, unpacker))
        });
        let (Listen { listeners, waiting, doors, staying }, mut unpacker) = received.await?;
        let mut arrived = Arrived { waiting, ..Arrived::default() };
        for (id, socket) in listeners.into_iter().filter_map(|id| Some((id, unpacker.socket(id).ok()?))) {
            let stays = if staying.contains(&id) { Stays::Always } else { Stays::UntilUsed };
            if let Err(error) = inherited.add(socket, stays) {
                tracing::warn!(%error, "a socket that was handed over is of no use");
            }
        }
        let doors =
            doors.into_iter().filter_map(|door| Some((door.place, unpacker.socket(door.socket).ok()?)));
        arrived.doors = doors.collect();
        self.unpacker = unpacker;
        Ok(arrived)
    }

    /// Takes the sessions, and serves as soon as it may.
    ///
    /// # Errors
    /// [`TakeError`]: old goes on.
    pub(in crate::daemon) async fn take_over(
        mut self,
        handle: &Handle,
        (events, log_level): (&Events, &LevelControl),
    ) -> Result<Taken, TakeError> {
        self.say(FromNew::Staged {}).await?;
        let taking = Taking {
            runtime: tokio::runtime::Handle::current(),
            handle: handle.clone(),
            is_in_place: self.is_in_place,
        };
        let parts = (std::mem::take(&mut self.unpacker), Learning::new(handle, events, log_level));
        let (receipt, Begun { reload, moved, learnt }) =
            self.line.with(PATIENCE, move |wire, until| Ok(taking.take(wire, parts, until))).await??;
        let mut report = Report {
            version: version::VERSION.to_owned(),
            commit: version::COMMIT.map(str::to_owned),
            pid: std::process::id(),
            sessions: receipt.sessions,
            flows: receipt.flows,
            pause_ms: 0.0,
            left_behind: receipt.not_taken.len(),
        };
        report.stood_still(moved);
        Ok(Taken { line: self.line, report, reload, learnt })
    }
}

/// What takes over while all stands still, on one thread: each change of threads is a wait, and
/// every session waits with it.
struct Taking {
    runtime: tokio::runtime::Handle,
    handle: Handle,
    is_in_place: bool,
}

/// How this process began to serve.
struct Begun {
    /// The configuration is to be read again.
    reload: bool,
    /// How long it took until every session moved.
    moved: Duration,
    learnt: Learnt,
}

impl Taking {
    /// Receives what stands still, makes it its own, and serves when it may.
    fn take(
        &self,
        wire: &mut Wire,
        parts: (Unpacker, Learning),
        until: Instant,
    ) -> Result<(Receipt, Begun), TakeError> {
        // Sockets are registered with its reactor.
        let _context = self.runtime.enter();
        let (receipt, unpacker, learning) = self.take_all(wire, parts, until)?;
        self.say(wire, &FromNew::Receipt(receipt.clone())).map_err(LineError::from)?;
        let reload = !self.is_in_place && may_go(wire)?;
        let serving = Instant::now();
        self.runtime.block_on(self.handle.begin());
        let learnt = learning.begin();
        let moved = serving.elapsed();
        let us = u64::try_from(moved.as_micros()).unwrap_or(u64::MAX);
        // Old may be gone. Then there is only one.
        let _ = self.say(wire, &FromNew::Moved { us });
        // Sockets that nothing refers to are closed.
        drop(unpacker);
        Ok((receipt, Begun { reload, moved, learnt }))
    }

    /// Receives what stands still, and takes each part as it comes: old packs the next one
    /// meanwhile.
    fn take_all(
        &self,
        wire: &mut Wire,
        (mut unpacker, mut learning): (Unpacker, Learning),
        until: Instant,
    ) -> Result<(Receipt, Unpacker, Learning), TakeError> {
        let (mut receipt, mut took) = (Receipt::default(), Duration::ZERO);
        loop {
            let (message, bytes) =
                sessions(wire, (&mut unpacker, &mut learning), until).map_err(LineError::from)?;
            let (snapshot, is_last) = match message {
                FromOld::Part(part) => (part, false),
                FromOld::Snapshot(rest) => (rest, true),
                _ => return Err(LineError::from(WireError::Broken("the sessions are missing")).into()),
            };
            unpacker.add_bytes(bytes);
            let read = Instant::now();
            let inheritance = Inheritance { snapshot: *snapshot, unpacker };
            let taken =
                self.runtime.block_on(self.handle.take_over(inheritance)).ok_or(TakeError::GivenUp)?;
            let TakenOver { sessions, flows, not_taken, unpacker: given_back } = taken;
            unpacker = given_back;
            (receipt.sessions, receipt.flows) = (sessions, flows);
            receipt.not_taken.extend(not_taken);
            took += read.elapsed();
            if is_last {
                tracing::debug!(sessions, flows, ?took, "sessions taken over");
                return Ok((receipt, unpacker, learning));
            }
        }
    }

    fn say(&self, wire: &mut Wire, message: &FromNew) -> Result<(), WireError> {
        if self.is_in_place { Ok(()) } else { send(wire, message, Instant::now() + LAST_WORDS) }
    }
}

/// Waits for `Go`, and answers that this process serves. Whether the configuration is to be read
/// again.
fn may_go(wire: &mut Wire) -> Result<bool, TakeError> {
    let until = Instant::now() + PATIENCE;
    let mut go = || -> Result<FromOld, WireError> {
        let go = receive::<FromOld>(wire, until)?.0;
        send(wire, &FromNew::Serving {}, until)?;
        Ok(go)
    };
    match go() {
        Ok(FromOld::Go { reload }) => Ok(reload),
        // It has ended, and nothing else serves.
        Err(WireError::Closed) => Ok(false),
        Ok(_) => Err(TakeError::Line("it says something else than go".into())),
        Err(error) => Err(LineError::from(error).into()),
    }
}

impl Taken {
    /// Waits, for a short while, until old uses its files no more. It says how long all stood
    /// still, too: this process knows its own part alone.
    pub(in crate::daemon) async fn released(&mut self) {
        // In place, and where old is gone, the end of the connection says the same.
        let last = self.line.with(LAST_WORDS + Duration::from_secs(2), receive::<FromOld>).await;
        if let Ok((FromOld::Released { pause_us: Some(pause) }, _)) = last {
            self.report.stood_still(pause.duration());
        }
    }
}

/// The next message; its sockets are kept.
fn next(wire: &mut Wire, unpacker: &mut Unpacker, until: Instant) -> Result<FromOld, WireError> {
    let (message, received) = receive(wire, until)?;
    if matches!(message, FromOld::Sockets {}) {
        received.descriptors.into_iter().for_each(|socket| unpacker.add(socket));
    }
    Ok(message)
}

/// The next message with sessions, and the bytes that it refers to. What comes before is taken.
fn sessions(
    wire: &mut Wire,
    (unpacker, learning): (&mut Unpacker, &mut Learning),
    until: Instant,
) -> Result<(FromOld, Vec<u8>), WireError> {
    loop {
        let (mut message, mut received) = receive(wire, until)?;
        if let FromOld::Memory {} = message {
            let file = received.descriptors.pop().ok_or(WireError::Broken("no file"))?;
            let Frame { record, bytes } = Frame::read_from(File::from(file))?;
            message = serde_json::from_slice(&record)?;
            received.frame.bytes = bytes;
        }
        match message {
            FromOld::State(state) => learning.take(*state),
            FromOld::Sockets {} => {
                received.descriptors.into_iter().for_each(|socket| unpacker.add(socket));
                unpacker.register_streams();
            }
            message => return Ok((message, received.frame.bytes)),
        }
    }
}
