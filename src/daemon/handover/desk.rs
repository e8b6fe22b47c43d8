//! Where hand-overs are asked for: one at a time, while the daemon goes on.
//!
//! Owns the hand-over that is under way and the one that asked for it. A second wish is refused at
//! once. A stop ends a hand-over that can be ended, and comes after it.

use std::pin::Pin;

use tokio_util::sync::CancellationToken;

use super::{
    give::{Given, Giver, Left},
    in_place,
    program::Program,
    state::Known,
};
use crate::{
    daemon::windows::Windows,
    events::{Draft, EventKind},
    handover::{Refusal, Reply, Upgrades},
    supervisor::Handle,
};

/// Process 1 is replaced in its place. Then this does not come back where it goes well.
async fn run(giver: Giver<'_>) -> Result<Given, Refusal> {
    match rustix::process::getpid().is_init() {
        true => Err(in_place::hand_over(giver).await),
        false => giver.hand_over().await,
    }
}

type UnderWay<'d> = Pin<Box<dyn Future<Output = Result<Given, Refusal>> + Send + 'd>>;

/// What a hand-over works with, and the one that is under way.
pub(in crate::daemon) struct Desk<'d> {
    pub(in crate::daemon) handle: &'d Handle,
    pub(in crate::daemon) windows: &'d Windows,
    pub(in crate::daemon) upgrades: &'d Upgrades,
    pub(in crate::daemon) program: &'d Program,
    known: Known,
    under_way: Option<UnderWay<'d>>,
    reply: Option<Reply>,
    abort: CancellationToken,
}

/// What came of a hand-over.
pub(in crate::daemon) enum Done {
    /// Another process serves.
    HandedOver(Left),
    /// It failed, and a stop was asked for meanwhile.
    Stop,
    /// The service manager starts this program again at once.
    Restart,
}

impl<'d> Desk<'d> {
    /// Without a hand-over.
    pub(in crate::daemon) fn new(
        handle: &'d Handle,
        windows: &'d Windows,
        upgrades: &'d Upgrades,
        program: &'d Program,
        known: Known,
    ) -> Self {
        let abort = CancellationToken::new();
        Self { handle, windows, upgrades, program, known, under_way: None, reply: None, abort }
    }

    /// Begins a hand-over, unless one is under way.
    pub(in crate::daemon) fn ask(&mut self, reply: Option<Reply>) {
        if self.under_way.is_some() {
            let refusal = Refusal::new("a hand-over is under way");
            match reply {
                Some(reply) => drop(reply.send(Err(refusal))),
                None => tracing::warn!(error = %refusal, "hand-over refused"),
            }
            return;
        }
        self.reply = reply;
        self.known.events.emit(EventKind::HandingOver, || Draft::new("a new process is about to take over"));
        let giver = Giver {
            handle: self.handle,
            windows: self.windows,
            upgrades: self.upgrades,
            program: self.program,
            known: self.known.clone(),
            abort: self.abort.clone(),
        };
        self.under_way = Some(Box::pin(run(giver)));
    }

    /// Asks for a stop. Returns whether it may begin now.
    pub(in crate::daemon) fn stop(&mut self) -> bool {
        self.abort.cancel();
        self.under_way.is_none()
    }

    /// Whether no hand-over is under way.
    pub(in crate::daemon) fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// Waits for the end of a hand-over that means the end of this process. May be dropped at any
    /// time.
    pub(in crate::daemon) async fn done(&mut self) -> Done {
        loop {
            let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
            let outcome = under_way.await;
            self.under_way = None;
            let reply = self.reply.take();
            let told = outcome.as_ref().map(|given| given.report.clone()).map_err(Clone::clone);
            if let Err(refusal) = &told {
                tracing::warn!(error = refusal.on_one_line(), "hand-over failed; going on");
                self.known.events.emit(EventKind::HandOverFailed, || {
                    Draft::new(format_args!("the hand-over failed, all goes on: {refusal}"))
                });
            }
            if let Some(reply) = reply {
                let _ = reply.send(told);
            }
            match outcome {
                Ok(given) => {
                    if self.abort.is_cancelled() {
                        given.left.pass_on_stop();
                    }
                    return Done::HandedOver(given.left);
                }
                Err(_) if self.abort.is_cancelled() => return Done::Stop,
                Err(_) => {}
            }
        }
    }
}
