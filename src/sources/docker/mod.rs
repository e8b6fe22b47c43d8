//! Containers that declare mappings by their labels, while they run (`[docker]`).
//!
//! Owns the watch over an engine: list what runs, then follow the events. An event only says that
//! it is time to list again, so nothing depends on what an engine calls it or leaves out; a list
//! now and then finds what had no event. What the list says goes onto the shelf ([`Containers`]),
//! and the supervisor makes the mappings of it. `seen` reads the list, `config` the labels.
//!
//! - The engine decides alone. While it cannot be asked, what ran goes on: with a live restore,
//!   so do the containers. The first list after that says which are gone.
//! - Changes are gathered before each list. A container that starts again and again costs a list
//!   every few seconds at most, and harms no other.
//! - An answer that is too long or makes no sense is an engine that cannot be asked.
//!
//! [`follow`] ends when the supervisor has stopped. [`first_look`] is for the start: the first
//! plan has the mappings of the containers, if their engine answers soon.

mod network;
mod seen;

use std::{
    net::IpAddr,
    pin::pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    config::{Containers, DockerSettings, HostView as _, Loaded, Seen, Settings, System},
    engine::{Bounds, Engine, EngineError},
    job,
    supervisor::{Handle, ReloadError},
};

/// What a list may take. One of a thousand containers has some 2 MiB.
const LIST: Bounds = Bounds { time: Duration::from_secs(30), bytes: 32 << 20 };
/// How long the start waits for the first list.
const FIRST: Duration = Duration::from_secs(3);
/// Changes within this time are one.
const GATHER: Duration = Duration::from_millis(200);
/// The longest time that changes are gathered, where they come one after the other.
const GATHER_LONGEST: Duration = Duration::from_secs(3);
/// A list without an event.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after a failure: the first, and the longest. It doubles.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_LONGEST: Duration = Duration::from_secs(15);
/// The system answers at once, or something is wrong with it.
const ADDRESSES: Duration = Duration::from_secs(5);

/// Asks the engine once before the first plan is applied. Where it answers, the outcome is the plan
/// with its containers.
pub(crate) async fn first_look(loaded: Loaded) -> Loaded {
    let (Some(settings), Some(texts)) = (&loaded.settings.docker, &loaded.texts) else { return loaded };
    let engine = Engine::at(settings.engine.clone());
    let listed = timeout(FIRST, list(&engine, settings, &loaded.containers)).await;
    let seen = match listed {
        Ok(Ok((seen, _))) => seen,
        Ok(Err(error)) => in_trouble(&error, settings, &loaded.containers),
        Err(_) => in_trouble(&EngineError::Late(FIRST), settings, &loaded.containers),
    };
    loaded.containers.put(seen);
    let texts = std::sync::Arc::clone(texts);
    // What was sound without containers is sound with them.
    match job::run_within(LIST.time, "portway-config", move || texts.again()).await {
        Ok(Ok(with_containers)) => with_containers,
        _ => loaded,
    }
}

/// Keeps the mappings of containers as the engine says, until the supervisor has stopped.
pub(crate) async fn follow(handle: Handle, containers: Containers) {
    let mut settings = handle.settings();
    loop {
        let docker = settings.borrow_and_update().docker.clone();
        let other = other_settings(&mut settings, docker.as_ref());
        let is_left = match &docker {
            None => other.await,
            Some(docker) => tokio::select! {
                () = Watch::new(docker, &handle, &containers).run() => return,
                is_left = other => is_left,
            },
        };
        if !is_left {
            return;
        }
    }
}

/// Waits for another `[docker]` than this one; false where there will be none.
async fn other_settings(settings: &mut watch::Receiver<Settings>, now: Option<&DockerSettings>) -> bool {
    settings.wait_for(|settings| settings.docker.as_ref() != now).await.is_ok()
}

/// The watch over one engine.
struct Watch<'w> {
    engine: Engine,
    settings: &'w DockerSettings,
    handle: &'w Handle,
    containers: &'w Containers,
    /// Failures in a row.
    failures: u32,
    /// How long changes are gathered now.
    gather: Duration,
    listed: Instant,
}

/// Why a watch has ended.
enum End {
    Engine(EngineError),
    /// The daemon stops.
    Stopping,
}

impl<'w> Watch<'w> {
    fn new(settings: &'w DockerSettings, handle: &'w Handle, containers: &'w Containers) -> Self {
        Self {
            engine: Engine::at(settings.engine.clone()),
            settings,
            handle,
            containers,
            failures: 0,
            gather: GATHER,
            listed: Instant::now(),
        }
    }

    /// Returns when the daemon stops.
    async fn run(mut self) {
        loop {
            let error = match self.session().await {
                End::Engine(error) => error,
                End::Stopping => return,
            };
            tracing::debug!(engine = %self.engine.address(), %error, "container engine lost");
            self.failures = self.failures.saturating_add(1);
            // An engine that restarts is back in a moment.
            let is_worth_telling = self.failures > 2 || matches!(error, EngineError::Refused { .. });
            if is_worth_telling {
                let seen = in_trouble(&error, self.settings, self.containers);
                if self.put(seen).await.is_err() {
                    return;
                }
            }
            let doubled = PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(10));
            sleep(doubled.min(PAUSE_LONGEST)).await;
        }
    }

    /// One stay with the engine: a list, then the events, and a list for each change.
    async fn session(&mut self) -> End {
        let since = match self.look().await {
            Ok(date) => date,
            Err(end) => return end,
        };
        // A clock that is not set must not hide events; those that come twice cost a list.
        let since = since.unwrap_or_else(SystemTime::now).duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = format!("/events?since={}&filters={FILTER}", since.as_secs());
        let (bell, engine) = (Notify::new(), self.engine.clone());
        let mut events = pin!(engine.follow(&path, |line| {
            if is_a_change(line) {
                bell.notify_one();
            }
        }));
        loop {
            tokio::select! {
                error = &mut events => return End::Engine(error),
                () = bell.notified() => {
                    let calm = self.listed + self.gather * 10;
                    self.gather = if Instant::now() < calm { (self.gather * 2).min(GATHER_LONGEST) } else { GATHER };
                    tokio::select! {
                        error = &mut events => return End::Engine(error),
                        () = sleep(self.gather) => {}
                    }
                }
                () = sleep_until(self.listed + LOOK) => {}
            }
            if let Err(end) = self.look().await {
                return end;
            }
        }
    }

    /// Lists what runs, and has the mappings follow. Returns when that was by the engine's clock.
    async fn look(&mut self) -> Result<Option<SystemTime>, End> {
        let listed = list(&self.engine, self.settings, self.containers).await;
        let (seen, date) = listed.map_err(End::Engine)?;
        self.listed = Instant::now();
        self.failures = 0;
        if self.containers.seen().trouble.is_some() {
            tracing::info!(engine = %self.engine.address(), "container engine answers again");
        }
        self.put(seen).await?;
        Ok(date)
    }

    async fn put(&self, seen: Seen) -> Result<(), End> {
        if !self.containers.put(seen) {
            return Ok(());
        }
        match self.handle.heed_containers().await {
            Err(error) if matches!(*error, ReloadError::Stopping) => Err(End::Stopping),
            // What is on the shelf is taken with the next plan; the log has the cause.
            _ => Ok(()),
        }
    }
}

/// `{"type":["container"]}`.
const FILTER: &str = "%7B%22type%22%3A%5B%22container%22%5D%7D";

/// Whether an event may change what runs, or what it is called. What has no event here is found by
/// the list that comes now and then.
fn is_a_change(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event<'l> {
        #[serde(rename = "Action", alias = "status", alias = "Status", borrow, default)]
        action: std::borrow::Cow<'l, str>,
    }
    // Docker says `die`, podman `died`; both say `exec_start: …` for each health check.
    const CHANGES: [&str; 11] = [
        "start", "restart", "die", "died", "stop", "destroy", "remove", "rename", "update", "init", "unpause",
    ];
    match serde_json::from_slice::<Event<'_>>(line) {
        Ok(event) => CHANGES.contains(&&*event.action),
        Err(_) => !line.is_empty(),
    }
}

/// Asks which containers run.
async fn list(
    engine: &Engine,
    settings: &DockerSettings,
    containers: &Containers,
) -> Result<(Seen, Option<SystemTime>), EngineError> {
    let (listed, date) = engine.get::<Vec<seen::Listed>>("/containers/json", LIST).await?;
    let own = job::run_within(ADDRESSES, "portway-addresses", own_addresses).await.unwrap_or_default();
    let seen =
        Seen { containers: seen::containers(&listed, settings, &own, &containers.seen()), trouble: None };
    Ok((seen, date))
}

/// The addresses of this machine, or of the container that portway runs in.
fn own_addresses() -> Vec<IpAddr> {
    System.addresses().into_iter().collect()
}

/// What was seen last, and that the engine cannot be asked.
fn in_trouble(error: &EngineError, settings: &DockerSettings, containers: &Containers) -> Seen {
    let seen = containers.seen();
    Seen { trouble: Some((error.to_string(), error.cure(&settings.engine))), ..Seen::clone(&seen) }
}
