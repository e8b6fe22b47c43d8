//! The API, in a portway that was built with it; nothing in another one.
//!
//! Owns the steps: bind before the first plan, so that a socket that is missing is seen while
//! nothing runs; serve when the plan runs; end last.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::{
    events::Events, gateway::Gateway, handover::Upgrades, log_level::LevelControl, supervisor::Handle,
};

#[cfg(feature = "api")]
pub(super) use with_api::{Opened, Rates, Windows};
#[cfg(not(feature = "api"))]
pub(super) use without::{Opened, Rates, Windows};

/// What the windows look at.
pub(super) struct View<'v> {
    /// When the daemon started, by both clocks.
    pub(super) started: (SystemTime, Instant),
    /// How many descriptors it may have.
    pub(super) descriptors: u64,
    pub(super) handle: &'v Handle,
    pub(super) gateway: &'v Gateway,
    pub(super) log_level: &'v LevelControl,
    pub(super) events: &'v Events,
    /// The points of graphs of another process.
    pub(super) rates: Option<serde_json::Value>,
    pub(super) upgrades: &'v Upgrades,
}

/// Sockets of the API that another process handed over, by their places.
pub(super) type Passed = std::collections::HashMap<String, std::os::fd::OwnedFd>;

#[cfg(feature = "api")]
mod with_api {
    use std::{os::fd::OwnedFd, time::Duration};

    use tokio_util::task::TaskTracker;

    use super::{Passed, View};
    use crate::{
        alarm::Alarm,
        api::{Api, Doors, Means},
        config::Settings,
        daemon::start::StartError,
        events::Events,
        job,
        sources::managed::Managed,
        status::{Board, Facts, History},
    };

    /// How long the system may take to make the sockets.
    const OPEN_LIMIT: Duration = Duration::from_secs(10);

    /// The sockets, bound.
    pub(in crate::daemon) struct Opened(Doors);

    /// The API that runs.
    pub(in crate::daemon) struct Windows {
        api: Api,
        rates: Rates,
        board: Board,
        tasks: TaskTracker,
    }

    /// The points of graphs.
    #[derive(Clone, Debug)]
    pub(in crate::daemon) struct Rates(History);

    impl Rates {
        /// They as they are now; `None` while nothing is measured.
        pub(in crate::daemon) fn snapshot(&self) -> Option<serde_json::Value> {
            serde_json::to_value(self.0.snapshot()?).ok()
        }

        fn take_over(&self, rates: serde_json::Value) {
            match serde_json::from_value(rates) {
                Ok(rates) => self.0.take_over(rates),
                Err(error) => tracing::debug!(%error, "rates of another process"),
            }
        }
    }

    impl Opened {
        /// Binds what the settings name and was not passed. If there is anything, events are kept
        /// from here on.
        ///
        /// # Errors
        /// A socket that is named and cannot be bound.
        pub(in crate::daemon) async fn open(
            settings: &Settings,
            events: &Events,
            passed: Passed,
        ) -> Result<Self, StartError> {
            let settings = settings.clone();
            let open = job::run_within(OPEN_LIMIT, "portway-open", move || Doors::open(&settings, passed));
            let opened = open.await.map_err(|error| StartError::Window(error.to_string()))?;
            let doors = opened.map_err(|error| StartError::Window(error.to_string()))?;
            // The first events are those of the first plan.
            events.switch(!doors.is_empty());
            Ok(Self(doors))
        }

        /// Begins to serve, and waits until that is so.
        pub(in crate::daemon) async fn serve(
            self,
            view: &View<'_>,
            alarm: &Alarm,
            tasks: &TaskTracker,
        ) -> Windows {
            let (started, since) = view.started;
            let facts = Facts { started, since, descriptors: view.descriptors };
            let board = Board::new(facts, view.handle, view.gateway.status(), view.log_level.clone());
            let rates = Rates(board.rates());
            if let Some(before) = view.rates.clone() {
                rates.take_over(before);
            }
            let (measured, raised) = (board.measure(), alarm.clone());
            tasks.spawn(async move { raised.guard("history", measured).await });
            let managed = Managed::new(view.handle.clone(), view.events.clone());
            let (followed, raised) = (managed.clone().follow(), alarm.clone());
            tasks.spawn(async move { raised.guard("managed mappings", followed).await });
            let means = Means {
                managed,
                board: board.clone(),
                handle: view.handle.clone(),
                events: view.events.clone(),
                log_level: view.log_level.clone(),
                upgrades: view.upgrades.clone(),
            };
            let api = Api::start(self.0, means, alarm.clone(), tasks);
            api.ready().await;
            Windows { api, rates, board, tasks: tasks.clone() }
        }
    }

    impl Windows {
        /// What makes a dump of this moment.
        pub(in crate::daemon) fn dump(
            &self,
            events: &Events,
        ) -> Option<impl FnOnce() -> String + Send + use<>> {
            let (board, events) = (self.board.clone(), events.clone());
            Some(move || serde_json::to_string_pretty(&board.dump(&events, false)).unwrap_or_default())
        }

        /// Runs work beside everything else.
        pub(in crate::daemon) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
            self.tasks.spawn(work);
        }

        pub(in crate::daemon) async fn stop(&self) {
            self.api.stop().await;
        }

        /// Duplicates of the sockets, by their places.
        pub(in crate::daemon) async fn sockets(&self) -> Vec<(String, OwnedFd)> {
            self.api.sockets().await
        }

        /// The points of graphs.
        pub(in crate::daemon) fn rates(&self) -> Rates {
            self.rates.clone()
        }

        /// Ends, and leaves the sockets to another process.
        pub(in crate::daemon) async fn leave(&self) {
            self.api.leave().await;
        }
    }
}

#[cfg(not(feature = "api"))]
mod without {
    use std::os::fd::OwnedFd;

    use tokio_util::task::TaskTracker;

    use super::{Passed, View};
    use crate::{alarm::Alarm, config::Settings, daemon::start::StartError, events::Events};

    pub(in crate::daemon) struct Opened;

    pub(in crate::daemon) struct Windows;

    /// Nothing is measured.
    #[derive(Clone, Debug)]
    pub(in crate::daemon) struct Rates;

    impl Rates {
        #[expect(clippy::unused_self, reason = "the one that measures looks at its points")]
        pub(in crate::daemon) fn snapshot(&self) -> Option<serde_json::Value> {
            None
        }
    }

    impl Opened {
        #[expect(clippy::unused_async, reason = "the one that binds sockets waits for them")]
        pub(in crate::daemon) async fn open(_: &Settings, _: &Events, _: Passed) -> Result<Self, StartError> {
            Ok(Self)
        }

        #[expect(clippy::unused_async, reason = "the one that serves waits for its thread")]
        pub(in crate::daemon) async fn serve(self, _: &View<'_>, _: &Alarm, _: &TaskTracker) -> Windows {
            Windows
        }
    }

    impl Windows {
        #[expect(clippy::unused_self, reason = "the one that is there makes it")]
        pub(in crate::daemon) fn dump(&self, _: &Events) -> Option<fn() -> String> {
            None
        }

        #[expect(clippy::unused_self, reason = "the one that is there has tasks")]
        pub(in crate::daemon) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
            drop(work);
        }

        #[expect(clippy::unused_self, reason = "the one that measures has points")]
        pub(in crate::daemon) fn rates(&self) -> Rates {
            Rates
        }

        #[expect(clippy::unused_async, reason = "the one that serves waits for its clients")]
        pub(in crate::daemon) async fn stop(&self) {}

        #[expect(clippy::unused_async, reason = "the one that serves waits for its thread")]
        pub(in crate::daemon) async fn sockets(&self) -> Vec<(String, OwnedFd)> {
            Vec::new()
        }

        #[expect(clippy::unused_async, reason = "the one that serves waits for its clients")]
        pub(in crate::daemon) async fn leave(&self) {}
    }
}
