//! Ends the parts in order: a stop, a restart, a hand-over that is done, or a part that failed.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Daemon,
    handover::{self, Done, Known, Left},
    signals::Signals,
    start::StartError,
};
use crate::{
    events::{Draft, EventKind},
    log_level::LevelControl,
};

/// How long a router may take to close its ports when the end is wanted at once.
const LAST_MOMENT: Duration = Duration::from_millis(500);
/// How long the bans may take to be saved at the end, and everything when the end is wanted at
/// once.
const LAST_SAVE: Duration = Duration::from_secs(5);

impl Daemon {
    /// Leaves everything to the process that serves now: nothing is closed on the router, no file
    /// is written or removed. Sessions that it could not take go on until they end by themselves. A
    /// stop ends them with the grace.
    async fn leave(&self, mut left: Left, signals: &mut Signals) {
        self.manager.leave();
        tokio::join!(self.gateway.leave(), self.bans.leave(), self.knocks.leave());
        left.released().await;
        left.leave();
        let drained = async { tokio::join!(self.windows.leave(), self.handle.ended()) };
        tokio::pin!(drained);
        tokio::select! {
            _ = &mut drained => return,
            () = signals.stop() => {}
        }
        let stopped = async { tokio::join!(self.handle.stop(), drained) };
        tokio::select! {
            _ = stopped => {}
            () = signals.stop() => {}
        }
    }

    /// Does what comes after serving.
    ///
    /// # Errors
    /// A part that ended without plan, or that does not end.
    pub(super) async fn end(
        &self,
        served: Result<Done, StartError>,
        (signals, log_level): (&mut Signals, &LevelControl),
    ) -> Result<(), StartError> {
        let ended = match served {
            Ok(Done::Stop) => self.stop(signals).await,
            Ok(Done::Restart) => self.restart(signals, &self.known(log_level)).await,
            Ok(Done::HandedOver(left)) => {
                self.leave(left, signals).await;
                return Ok(());
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            return Err(self.fail(error).await);
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Leaves everything to the next start of this service. Where that does not work, stops.
    ///
    /// # Errors
    /// As [`Daemon::stop`].
    async fn restart(&self, signals: &mut Signals, known: &Known) -> Result<(), StartError> {
        match handover::put_aside(known, &self.upgrades).await {
            Ok(sockets) => tracing::info!(sockets, "left to the next start"),
            Err(error) => {
                tracing::info!(error, "sessions cannot go on over a restart");
                return self.stop(signals).await;
            }
        }
        self.manager.leave();
        self.handle.stop_at_once();
        let ended = async {
            let supervisor = async { tokio::join!(self.handle.stop(), self.handle.ended()) };
            tokio::join!(
                supervisor,
                self.gateway.leave(),
                self.bans.save_last(),
                self.knocks.save(),
                self.windows.stop()
            )
        };
        if timeout(LAST_SAVE, ended).await.is_err() {
            tracing::warn!("a part does not end; it is left behind");
        }
        Ok(())
    }

    /// Logs what has failed, and saves what it can in a moment: nothing is left that would end the
    /// sessions in order.
    async fn fail(&self, error: StartError) -> StartError {
        tracing::error!(%error, "portway ends by a mistake of its own");
        let end = async { tokio::join!(self.gateway.stop(), self.bans.save_last(), self.knocks.save()) };
        let _ = timeout(LAST_MOMENT, end).await;
        error
    }

    /// Ends the sessions, and closes what is open on the router meanwhile; then saves the bans. A
    /// second signal ends all of this at once.
    ///
    /// # Errors
    /// A part that ended without plan, or that does not end.
    async fn stop(&self, signals: &mut Signals) -> Result<(), StartError> {
        tracing::info!("stopping");
        self.manager.stopping();
        self.events.emit(EventKind::Stopping, || Draft::new("the daemon stops"));
        let in_a_hurry = CancellationToken::new();
        let gateway_stopped = async {
            tokio::select! {
                () = self.gateway.stop() => {}
                // What is then still open on the router is remembered, and taken over or back at
                // the next start.
                () = async { in_a_hurry.cancelled().await; sleep(LAST_MOMENT).await } => {}
            }
        };
        let stopped = async { tokio::join!(self.handle.stop(), gateway_stopped) };
        tokio::pin!(stopped);
        let overdue = async {
            in_a_hurry.cancelled().await;
            sleep(LAST_SAVE).await;
        };
        tokio::pin!(overdue);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                part = self.alarm.raised() => return Err(StartError::Part(part)),
                () = &mut overdue => return Err(StartError::Part("supervisor".into())),
                () = signals.stop() => {
                    tracing::info!("stopping at once");
                    self.handle.stop_at_once();
                    in_a_hurry.cancel();
                },
            }
        }
        tokio::select! {
            saved = timeout(LAST_SAVE, async { tokio::join!(self.bans.save_last(), self.knocks.save()) }) => if saved.is_err() {
                tracing::warn!("bans not saved: the disk does not answer");
            },
            () = signals.stop() => {}
        }
        tokio::select! {
            () = self.windows.stop() => {}
            () = signals.stop() => {}
        }
        Ok(())
    }
}
