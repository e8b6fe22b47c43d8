//! A thread that checks the supervisor, and ends the process if the supervisor hangs. It also
//! speaks to the service manager, whose watchdog it feeds after each answer.
//!
//! A supervisor that hangs handles neither a reload nor a stop, and a service manager sees a
//! process that lives. So this thread asks it for a sign of life. Without one for [`LIMIT`], it
//! logs that and ends the process with 1. It is a thread and not a task, because a runtime whose
//! threads all hang would not run a task.
//!
//! Time in which this thread does not run does not count: the process was stopped or frozen, or its
//! machine slept.
//!
//! It ends with the supervisor.

use std::{io, time::Duration};

use tokio::time::Instant;

use super::{logging, systemd::Manager};
use crate::{job, supervisor::Pulse};

/// How long the supervisor may stand.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked while it answers, and while it does not.
const CALM: Duration = Duration::from_secs(5);
const WORRIED: Duration = Duration::from_secs(1);

/// Starts to watch.
///
/// # Errors
/// When the system makes no thread.
pub(super) fn start(pulse: Pulse, mut manager: Manager) -> io::Result<()> {
    job::thread("portway-watch", move || watch(&pulse, &mut manager)).map(drop).map_err(|(error, _)| error)
}

fn watch(pulse: &Pulse, manager: &mut Manager) {
    let mut patience = Patience::default();
    while pulse.ask() {
        let (asked, pause) = (Instant::now(), patience.pause().min(manager.pace()));
        manager.listen_for(pause);
        let answered = pulse.has_answered();
        if answered {
            manager.is_alive();
        }
        if patience.is_over(answered, asked.elapsed().min(pause)) {
            tracing::error!(
                task = "supervisor",
                stands_s = LIMIT.as_secs(),
                "a part of portway does not answer; ending the process"
            );
            logging::flush();
            std::process::exit(1);
        }
    }
}

/// What is left of the limit.
#[derive(Debug, Default)]
struct Patience {
    stands: Duration,
}

impl Patience {
    fn pause(&self) -> Duration {
        if self.stands.is_zero() { CALM } else { WORRIED }
    }

    /// Takes the outcome of a look, and the time that this thread has waited for it; whether the
    /// limit is reached.
    fn is_over(&mut self, answered: bool, waited: Duration) -> bool {
        self.stands = if answered { Duration::ZERO } else { self.stands + waited };
        self.stands >= LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_reached_by_silence_alone_and_an_answer_begins_it_again() {
        let mut patience = Patience::default();
        assert_eq!(patience.pause(), CALM);
        assert!(!patience.is_over(true, CALM));
        assert!(!patience.is_over(false, CALM));
        let looks = (1..).find(|_| patience.is_over(false, patience.pause())).expect("some look is the last");
        assert_eq!(looks, 25, "each second after the first five");
        assert!(!patience.is_over(true, CALM));
        assert_eq!(patience.pause(), CALM);
        assert!(!patience.is_over(false, CALM));
    }
}
