//! A point of a curve: the same work, with so many of something beside it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    cases::{BUSY_CONNECTIONS, BUSY_FLOWS, Growth},
    config::{First, Forward, KeepOut, Setup, write_lists},
    load::{
        World,
        churn::{Churn, Request},
        ping::DatagramPing,
        probe::Probe,
        sessions::Sessions,
        target::Target,
    },
    process::Process,
    runs::{Bench, FIRST_PORT, START_WITHIN, Values, each, without_process},
    subject::{Kind, Subject},
};

/// How long a relay may take to read a million entries, or ten thousand mappings.
const START_MANY_WITHIN: Duration = Duration::from_secs(120);
/// Connections being made at a time.
const PARALLEL: usize = 16;
/// Requests or datagrams that may be lost in a ping-pong: more would make its rate one of resending.
const LOST: u64 = 10;

impl Bench<'_> {
    /// Measures with so many.
    pub(crate) fn grow(
        &self,
        subject: &Subject,
        by: Growth,
        size: usize,
        at: impl Fn(u8, u16) -> SocketAddr,
    ) -> Result<Values> {
        let udp = by == Growth::Flows;
        let target = if udp { Target::udp(at(2, 0))? } else { Target::tcp_echo(at(2, 0))? };
        let target_addr = target.addr()?;
        let place = if subject.kind == Kind::Direct { 2 } else { 1 };
        let forward =
            |port| Forward { listen: at(place, port), target: target_addr, udp, first: First::Nothing };
        let forwards = match by {
            Growth::Mappings => {
                let end = FIRST_PORT + u16::try_from(size).context("too many mappings")?;
                (FIRST_PORT..end).map(forward).collect()
            }
            _ => vec![forward(target_addr.port())],
        };
        let setup = setup(by, size, forwards);
        write_lists(setup.keep_out, self.home)?;
        let mut world = World::new(target)?;
        let relay = self.start(subject, &setup)?;
        let listeners: Vec<SocketAddr> = setup.forwards.iter().map(|forward| forward.listen).collect();
        let within = if size > 1 { START_MANY_WITHIN } else { START_WITHIN };
        for part in listeners.chunks(32) {
            Probe::all(&mut world, part.iter().copied(), within, || relay.check_alive())?;
        }
        relay.rested(self.pace.calm / 10)?;
        let mut found = self.work(&mut world, &relay, listeners, by, size)?;
        without_process(subject, &mut found);
        #[expect(clippy::cast_precision_loss, reason = "a count, shown with three digits")]
        found.insert("size".to_owned(), size as f64);
        Ok(found)
    }

    fn work(
        &self,
        world: &mut World,
        relay: &Process,
        listeners: Vec<SocketAddr>,
        by: Growth,
        size: usize,
    ) -> Result<Values> {
        let at = *listeners.first().context("no listener")?;
        match by {
            Growth::Connections | Growth::CoresPing => {
                let count = if by == Growth::Connections { size } else { BUSY_CONNECTIONS };
                let mut sessions = Sessions::open(world, at, count)?;
                sessions.start(world, BUSY_CONNECTIONS)?;
                let window = world.measure(&mut sessions, relay, self.pace.span)?;
                Ok(each(window, sessions.latencies()))
            }
            Growth::Flows => {
                let mut ping = DatagramPing::open(world, at, size, BUSY_FLOWS)?;
                let window = world.measure(&mut ping, relay, self.pace.span)?;
                ensure!(ping.lost() <= LOST, "{} datagrams of a ping-pong were lost", ping.lost());
                Ok(each(window, ping.latencies()))
            }
            Growth::Mappings | Growth::Entries | Growth::Bans | Growth::CoresConnect => {
                let mut churn = Churn::new(listeners, PARALLEL, Request::Message);
                churn.run(world, relay, self.pace.connections / 10)?;
                let window = churn.run(world, relay, self.pace.connections)?;
                Ok(each(window, churn.latencies()))
            }
        }
    }
}

fn setup(by: Growth, size: usize, forwards: Vec<Forward>) -> Setup {
    let setup = Setup::of(forwards);
    match by {
        Growth::Connections | Growth::Flows => Setup { room: setup.room.max(size + 100), ..setup },
        Growth::Mappings => setup,
        Growth::Entries => Setup { keep_out: KeepOut::Listed(size), ..setup },
        Growth::Bans => Setup { keep_out: KeepOut::Banned(size), ..setup },
        Growth::CoresConnect | Growth::CoresPing => Setup { threads: size, ..setup },
    }
}
