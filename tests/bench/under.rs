//! Latency under load: one connection plays ping-pong, first in quiet, then while something else goes on.
//!
//! Both are measured in one run, and a relay is compared with itself, too. The player sleeps between its messages and goes
//! before everything else on its core (`chrt`), so that it waits for the relay and not for the other load. That load is a
//! thread of the same core. Another thread spins there at the lowest priority: the core never sleeps, in quiet either.
//! Where the priorities may not be set, the figures hold the other load's share, too. There is no floor here: without a
//! relay the player would never sleep.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    cases::Disturbance,
    clock,
    config::{First, Forward, KeepOut, Setup},
    disturb::{Disturbed, Scene},
    load::{Work as _, World, probe::Probe, sessions::Sessions, target::Target},
    runs::{Bench, FIRST_PORT, START_WITHIN, Values},
    subject::Subject,
};

/// The port of the dashboard.
const WINDOW: u16 = 9_000;
/// The other load begins within this time, on a machine with much to do.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);

impl Bench<'_> {
    /// Measures in quiet and under the other load.
    pub(crate) fn under(
        &self,
        subject: &Subject,
        what: Disturbance,
        at: impl Fn(u8, u16) -> SocketAddr,
    ) -> Result<Values> {
        let target = Target::tcp_echo(at(2, 0))?;
        let other = match what {
            Disturbance::Bulk => Target::tcp_stream(at(3, 0))?,
            _ => Target::tcp_echo(at(3, 0))?,
        };
        let forward = |target: SocketAddr, port| Forward {
            listen: at(1, port),
            target,
            udp: false,
            first: First::Nothing,
        };
        let player = forward(target.addr()?, FIRST_PORT);
        let others = FIRST_PORT + 1..=FIRST_PORT + self.pace.beside(what);
        let others: Vec<Forward> =
            others.map(|port| other.addr().map(|target| forward(target, port))).collect::<Result<_>>()?;
        let setup = Setup {
            reload: what == Disturbance::Reload,
            keep_out: if what == Disturbance::Refused { KeepOut::Refused } else { KeepOut::Nobody },
            window: (what == Disturbance::Dashboard).then(|| at(1, WINDOW)),
            ..Setup::of([&[player][..], &others].concat())
        };
        let mut world = World::new(target)?;
        let relay = self.start(subject, &setup)?;
        Probe::all(&mut world, [player.listen], START_WITHIN, || relay.check_alive())?;
        let (over, ready, stop) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        let next = FIRST_PORT + self.pace.beside(what) + 1;
        let scene =
            Scene { subject, relay: &relay, setup, next, home: self.home, stop: &stop, ready: &ready };
        let result = thread::scope(|scope| {
            let _over = SetAtEnd([&over, &stop]);
            scope.spawn(|| keep_awake(&over));
            let mut sessions = Sessions::open(&mut world, player.listen, 1)?;
            sessions.date_latencies();
            sessions.start(&mut world, 1)?;
            let _urgent = Urgent::now();
            let quiet = self.play(&mut world, &mut sessions)?;
            sessions.restart(&mut world);
            let disturber = scope.spawn(move || {
                // A thread begins with the priority of the one that makes it.
                schedule("--other", 0);
                scene.run(what, other)
            });
            let finished = || disturber.is_finished();
            world.until(&mut sessions, "the other load", BEGIN_WITHIN, |_, _| {
                ready.load(Relaxed) || finished()
            })?;
            // Every message counts from here on: the first reload may be over at once.
            let (began, length) = (clock::now(), self.pace.span.length);
            let enough = |_: &Sessions, _: &World| began.elapsed() > length || finished();
            world.until(&mut sessions, "the ping-pong", length + BEGIN_WITHIN, enough)?;
            stop.store(true, Relaxed);
            world.until(&mut sessions, "the end of the other load", BEGIN_WITHIN, |_, _| finished())?;
            let before = sessions.done(&world);
            world.until(&mut sessions, "the last answer", BEGIN_WITHIN, |sessions, world| {
                sessions.done(world) > before
            })?;
            let disturbed = disturber.join().map_err(|_| anyhow!("the other load panicked"))??;
            relay.check_alive()?;
            found(&sessions, &quiet, &disturbed)
        });
        result.context(what.name())
    }

    /// Plays for the measured time, and returns what shares of the messages took how long.
    fn play(&self, world: &mut World, sessions: &mut Sessions) -> Result<Vec<(&'static str, f64)>> {
        let mut began = clock::now();
        for length in [self.pace.span.warm, self.pace.span.length] {
            sessions.restart(world);
            began = clock::now();
            // At least one answer, however short the time and busy the machine.
            let ended =
                |sessions: &Sessions, world: &World| began.elapsed() > length && sessions.done(world) > 0;
            world.until(sessions, "the ping-pong", length + BEGIN_WITHIN, ended)?;
        }
        Ok(sessions.latencies_within(&[(began, clock::now())]))
    }
}

fn found(sessions: &Sessions, quiet: &[(&str, f64)], disturbed: &Disturbed) -> Result<Values> {
    let under = sessions.latencies_within(&disturbed.spans);
    ensure!(!under.is_empty(), "no message was under way while it happened");
    let of =
        |shares: &[(&str, f64)], key| shares.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
    let (p99, calm) = (of(&under, "p99").context("no p99")?, of(quiet, "p99").context("no p99 in quiet")?);
    let mut found: Values = under.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    found.extend([
        ("quiet".to_owned(), calm),
        ("times".to_owned(), p99 / calm),
        ("beside".to_owned(), disturbed.amount),
    ]);
    Ok(found)
}

/// Sets flags when it goes, so that no thread waits for one that failed.
struct SetAtEnd<'a>([&'a AtomicBool; 2]);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|flag| flag.store(true, Relaxed));
    }
}

/// Uses up all time of the core that nobody else wants.
fn keep_awake(over: &AtomicBool) {
    if !schedule("--idle", 0) {
        return;
    }
    while !over.load(Relaxed) {
        std::hint::spin_loop();
    }
}

/// This thread goes before all others while it lives.
struct Urgent;

impl Urgent {
    fn now() -> Self {
        schedule("--fifo", 10);
        Self
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        schedule("--other", 0);
    }
}

/// Asks for another way to be scheduled; false where it may not be had.
fn schedule(policy: &str, priority: u8) -> bool {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let mut chrt = Command::new("chrt");
    chrt.args([policy, "--pid", &priority.to_string(), &thread]);
    chrt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    chrt.status().is_ok_and(|status| status.success())
}
