//! `portway upgrade`: hands over to the program that is installed now.
//!
//! The daemon answers when the new process serves. Process 1 of a container cannot: it becomes the
//! new program in the middle of the request. So where the connection ends, the new one is asked.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::{Daemon, Failed, Outcome, human::count};
use crate::{
    api::client::{Answer, Ask, ClientError, LONG_PATIENCE},
    handover::Report,
};

/// How long the new process may take until it answers.
const NEW: Duration = Duration::from_secs(15);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Nothing to choose.
#[derive(Debug, Args)]
pub(in crate::cli) struct Upgrade {}

/// Asks for a hand-over, and waits for the outcome.
pub(super) async fn upgrade(_: Upgrade, daemon: &Daemon) -> Result<Outcome, Failed> {
    let answer = match daemon.client.ask(&Ask::post("/v1/upgrade").patiently(LONG_PATIENCE)).await {
        Ok(answer) => answer,
        Err(ended @ ClientError::Ended(_)) => after(daemon, ended).await?,
        Err(error) => return Err(error.into()),
    };
    daemon.shown(&answer, text)
}

/// What the process says that has taken the place of the one that was asked.
async fn after(daemon: &Daemon, ended: ClientError) -> Result<Answer, ClientError> {
    let until = Instant::now() + NEW;
    loop {
        match daemon.client.ask(&Ask::get("/v1/upgrade")).await {
            Ok(answer) => return Ok(answer),
            // It was started afresh: the hand-over was lost.
            Err(ClientError::Refused { .. }) => return Err(ended),
            Err(_) if Instant::now() < until => sleep(PAUSE).await,
            Err(_) => return Err(ended),
        }
    }
}

fn text(report: &Report) -> String {
    let Report { version, pid, sessions, flows, pause_ms, left_behind, .. } = report;
    let (sessions, flows) = (count(*sessions as u64, "session"), count(*flows as u64, "flow"));
    let mut text = format!(
        "handed over to portway {version} (pid {pid}): {sessions} and {flows}, paused {pause_ms:.1} ms"
    );
    if *left_behind > 0 {
        let stay = if *left_behind == 1 { "stays" } else { "stay" };
        text.push_str(&format!(
            "; {} {stay} with the former process until the end",
            count(*left_behind as u64, "session")
        ));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_one_plain_line() {
        let mut report = Report {
            version: "0.2.0".into(),
            pid: 4711,
            sessions: 12,
            flows: 3,
            pause_ms: 2.1,
            ..Report::default()
        };
        assert_eq!(
            text(&report),
            "handed over to portway 0.2.0 (pid 4711): 12 sessions and 3 flows, paused 2.1 ms\n"
        );
        (report.sessions, report.left_behind) = (1, 1);
        assert_eq!(
            text(&report),
            "handed over to portway 0.2.0 (pid 4711): 1 session and 3 flows, paused 2.1 ms; 1 session stays with the \
             former process until the end\n"
        );
    }
}
