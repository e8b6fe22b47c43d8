//! Load and target: both ends of every session, in one thread and one event loop.
//!
//! One thread, because the two ends share a core anyway and a switch between them would only cost. The loop spins while
//! it measures, so that the relay never pays for waking an idle core. [`World`] owns the loop and the target; a [`Work`]
//! owns the clients of one case.

pub(crate) mod bulk;
pub(crate) mod churn;
pub(crate) mod flood;
pub(crate) mod flows;
pub(crate) mod hello;
pub(crate) mod ping;
pub(crate) mod probe;
pub(crate) mod sessions;
pub(crate) mod target;

use std::{
    io::{self, ErrorKind},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
pub(crate) use rustix::event::epoll::EventFlags;
use rustix::event::{Timespec, epoll};

use crate::{
    clock,
    pattern::Pattern,
    process::{Process, busy_machine, own_cpu},
    stats::percentile,
};
use target::Target;

/// Marks the tokens of the target's sockets.
const TARGET: u64 = 1 << 63;
/// A relay that moves nothing for so long has failed.
const STALLED: Duration = Duration::from_secs(5);
/// Turns of the loop between two looks at the clock.
const TURNS: u32 = 32;

/// What watches sockets.
pub(crate) struct Reactor {
    epoll: OwnedFd,
    /// Wait without sleeping.
    spin: bool,
}

impl Reactor {
    /// Watches a socket; it stays watched until it is closed.
    pub(crate) fn watch(&self, socket: impl AsFd, token: u64, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), interest)?)
    }

    /// Changes what is watched for.
    pub(crate) fn rewatch(&self, socket: impl AsFd, token: u64, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(token), interest)?)
    }
}

/// What every case has: the loop, the target behind the relay, the bytes.
pub(crate) struct World {
    pub(crate) reactor: Reactor,
    pub(crate) target: Target,
    pub(crate) pattern: Pattern,
    /// The time spent in turns that found nothing to do.
    waited: Waited,
}

/// The clients of a case.
pub(crate) trait Work {
    /// A client's socket is ready.
    fn ready(&mut self, world: &mut World, token: usize, flags: EventFlags) -> Result<()>;

    /// Once in every turn of the loop; whether there was something to do.
    fn turn(&mut self, _world: &mut World) -> Result<bool> {
        Ok(false)
    }

    /// What has been done since the last [`restart`](Self::restart).
    fn done(&self, world: &World) -> u64;

    /// The measured time begins: count from nothing.
    fn restart(&mut self, world: &mut World);
}

/// How long to warm up and to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) warm: Duration,
    pub(crate) length: Duration,
}

/// What a measured time cost and brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Seconds of the relay's processor.
    pub(crate) cpu: f64,
    /// Seconds of all processors, except those in which the load had nothing to do.
    pub(crate) machine: f64,
    /// Seconds of all processors, except all of the load's and the target's own.
    pub(crate) rest: f64,
    /// Seconds.
    pub(crate) wall: f64,
    /// Bytes, requests, datagrams: what the work counts.
    pub(crate) done: f64,
}

impl World {
    /// A loop around a target.
    pub(crate) fn new(target: Target) -> Result<Self> {
        let reactor = Reactor { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, spin: false };
        target.watch(&reactor)?;
        Ok(Self { reactor, target, pattern: Pattern::new(), waited: Waited::default() })
    }

    /// Whether to wait without sleeping.
    pub(crate) fn spin(&mut self, spin: bool) {
        self.reactor.spin = spin;
    }

    /// Serves whatever is ready.
    fn turn(&mut self, work: &mut impl Work) -> Result<()> {
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; 256];
        let timeout = if self.reactor.spin { 0 } else { 1_000_000 };
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout };
        let (ready, _) = match epoll::wait(&self.reactor.epoll, &mut events, Some(&timeout)) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut idle = ready.is_empty();
        if !idle {
            self.waited.over();
        }
        for event in ready.iter() {
            let (token, flags) = (event.data.u64(), event.flags);
            if token & TARGET == 0 {
                work.ready(self, usize::try_from(token)?, flags)?;
            } else {
                self.target.ready(&self.reactor, &self.pattern, token, flags)?;
            }
        }
        idle &= !work.turn(self)?;
        if idle {
            self.waited.begins();
        } else {
            self.waited.over();
        }
        Ok(())
    }

    /// Turns until the condition holds; fails when that takes longer than `limit`.
    pub(crate) fn until<W: Work>(
        &mut self,
        work: &mut W,
        what: &str,
        limit: Duration,
        holds: impl Fn(&W, &Self) -> bool,
    ) -> Result<()> {
        let deadline = clock::now() + limit;
        while !holds(work, self) {
            for _ in 0..TURNS {
                self.turn(work)?;
                if holds(work, self) {
                    return Ok(());
                }
            }
            if clock::now() > deadline {
                bail!("waited {limit:?} for {what}");
            }
        }
        Ok(())
    }

    /// Warms up, then measures for a time.
    pub(crate) fn measure(&mut self, work: &mut impl Work, relay: &Process, span: Span) -> Result<Window> {
        self.spin(true);
        self.run_for(work, span.warm)?;
        work.restart(self);
        let meter = Meter::begin(self, relay)?;
        self.run_for(work, span.length)?;
        let window = meter.end(self, relay)?;
        self.spin(false);
        relay.check_alive()?;
        #[expect(clippy::cast_precision_loss, reason = "a count, shown with three digits")]
        let done = work.done(self) as f64;
        Ok(Window { done, ..window })
    }

    fn run_for(&mut self, work: &mut impl Work, length: Duration) -> Result<()> {
        let end = clock::now() + length;
        let (mut seen, mut moved) = (work.done(self), clock::now());
        loop {
            for _ in 0..TURNS {
                self.turn(work)?;
            }
            let now = clock::now();
            let done = work.done(self);
            if done != seen {
                (seen, moved) = (done, now);
            } else if now - moved > STALLED {
                bail!("nothing came through for {STALLED:?}");
            }
            if now >= end {
                return Ok(());
            }
        }
    }
}

/// The time in which the loop had nothing to do. It spins then, and that is no work.
#[derive(Default)]
struct Waited {
    total: Duration,
    since: Option<Instant>,
}

impl Waited {
    fn begins(&mut self) {
        self.since.get_or_insert_with(clock::now);
    }

    fn over(&mut self) {
        if let Some(since) = self.since.take() {
            self.total += since.elapsed();
        }
    }
}

/// All clocks, read at the begin of a measured time.
pub(crate) struct Meter {
    relay: f64,
    machine: f64,
    own: f64,
    started: Instant,
}

impl Meter {
    /// The measured time begins.
    pub(crate) fn begin(world: &mut World, relay: &Process) -> Result<Self> {
        world.waited = Waited::default();
        let (machine, own) = (busy_machine()?, own_cpu()?);
        Ok(Self { machine, own, relay: relay.cpu()?, started: clock::now() })
    }

    /// It ends: what it cost. What was done in it is the caller's to say.
    pub(crate) fn end(self, world: &mut World, relay: &Process) -> Result<Window> {
        let wall = self.started.elapsed().as_secs_f64();
        let cpu = relay.cpu()? - self.relay;
        world.waited.over();
        let (machine, own) = (busy_machine()? - self.machine, own_cpu()? - self.own);
        // A loop that was not let run for a while has not spun in it.
        let waited = world.waited.total.as_secs_f64().min(own);
        // The machine's clock counts in hundredths of a second, and may be behind ours.
        Ok(Window {
            cpu,
            machine: (machine - waited).max(0.0),
            rest: (machine - own).max(0.0),
            wall,
            done: 0.0,
        })
    }
}

/// The times of many requests.
#[derive(Default)]
pub(crate) struct Latencies {
    nanoseconds: Vec<u32>,
    /// When each was over, where that is wanted.
    ends: Option<Vec<Instant>>,
}

impl Latencies {
    /// Adds one.
    pub(crate) fn add(&mut self, time: Duration) {
        self.nanoseconds.push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
        if let Some(ends) = &mut self.ends {
            ends.push(clock::now());
        }
    }

    /// Remembers from now on when each was.
    pub(crate) fn date(&mut self) {
        self.ends = Some(Vec::new());
    }

    /// Those that were under way in one of the spans; it forgets the dates of all.
    fn within(&self, spans: &[(Instant, Instant)]) -> Self {
        let ends = self.ends.as_deref().unwrap_or_default();
        let hit = |(nanoseconds, end): (&u32, &Instant)| {
            let length = Duration::from_nanos((*nanoseconds).into());
            let under_way = |span: &&(Instant, Instant)| *end >= span.0 && *end - length <= span.1;
            spans.iter().find(under_way).map(|_| *nanoseconds)
        };
        Self { nanoseconds: self.nanoseconds.iter().zip(ends).filter_map(hit).collect(), ends: None }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.nanoseconds.clear();
        if let Some(ends) = &mut self.ends {
            ends.clear();
        }
    }

    /// p50, p99 and p99.9 in microseconds.
    pub(crate) fn shares(&mut self) -> Vec<(&'static str, f64)> {
        let shares = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];
        let value = |share| percentile(&mut self.nanoseconds, share).map(|time| f64::from(time) / 1_000.0);
        let mut value = value;
        shares.into_iter().filter_map(|(key, share)| Some((key, value(share)?))).collect()
    }
}

/// Nothing yet, rather than a failure.
fn not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
